//! The sending side of SMTP (RFC 5321) and LMTP (RFC 2033): one [`Session`] a connection.
//!
//! Takes the peer's octets and the time, gives octets to send and effects. The caller performs the
//! effects and tells the session how it went:
//!
//! ```text
//!   peer's octets ──▶ receive ──▶ Effect::Input          send what was said, read more
//!                        │        Effect::Secure         handshake         ──▶ secured
//!                        │        Effect::Ready          a message, or not ──▶ begin / quit
//!                        │        Effect::Content(…)     send the content  ──▶ content…, content_sent
//!                        │        Effect::Finished(…)    record the outcome; then as Ready, or as Over
//!                        │        Effect::Over(…)        send what was said, close
//!                        ▼        Effect::Closed         close
//!                 octets to send
//! ```
//!
//! `session` is the state machine of the connection, `transaction` that of one message, `terms`
//! decides before MAIL what this peer can take, `outcome` is what a message comes to. `reply` reads
//! replies, `extensions` what EHLO lists, `stuffing` writes content for DATA, `facts` finds out what
//! content is like, `settings` is what all sessions to a next hop share.
//!
//! Must never know: who the peer is, how it was found, what becomes of a message afterwards.

mod extensions;
mod facts;
mod outcome;
mod reply;
mod session;
mod settings;
mod stuffing;
mod terms;
mod transaction;

#[cfg(test)]
mod dialogues;

pub use extensions::{AuthMechanisms, Extensions, Limits};
pub use facts::{ContentFacts, LINE_OCTETS_MAX, Scanner};
pub use outcome::{After, Cause, Failure, Outcome, RecipientOutcome, Refusal};
pub use reply::{
    Kind, REPLY_LINE_OCTETS_MAX, REPLY_OCTETS_MAX, REPLY_TEXT_OCTETS_MAX, Replies, Reply,
    ReplyError,
};
pub use session::{Channel, Effect, RECIPIENTS_MAX_DEFAULT, Session};
pub use settings::{Dialect, Ignored, Login, Settings, StartTls, Timeouts};
pub use stuffing::Stuffer;
pub use terms::{CONTENT_IN_FLIGHT_OCTETS_MAX, Transaction, TransactionRecipient};
pub use transaction::Transfer;
