//! The receiving side of SMTP (RFC 5321): one [`Session`] a connection.
//!
//! Takes octets and the time, gives replies and effects. The caller performs the effects and
//! tells the session how it went:
//!
//! ```text
//!            input ──▶ receive ──▶ Effect::Input          read more
//!                         │        Effect::Secure         send, handshake ──▶ secured / injected
//!                         │        Effect::Verify(…)      check             ──▶ verified
//!                         │        Effect::Store(…)       put away          ──▶ stored
//!                         │        Effect::Commit(…)      make durable      ──▶ committed
//!                         ▼        Effect::Close          send, close
//!                      replies
//! ```
//!
//! `session` is the state machine, `policy` who may say what where, `replies` every fixed reply,
//! `line` cuts lines out of the input, `transaction` gathers a message, `settings` is what all
//! sessions share.

mod line;
mod policy;
mod replies;
mod session;
mod settings;
mod transaction;

#[cfg(test)]
mod dialogues;

pub use policy::{Anonymous, AuthOffer, ChannelPolicy, StartTls};
pub use session::{Channel, CommitFailure, Connection, Effect, Session, TlsAvailability, Verdict};
pub use settings::{
    DEFAULT_GREETING, KnownRecipients, Limits, LocalDomains, Settings, SettingsError,
};
