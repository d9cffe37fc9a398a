//! What the server says: every reply with a fixed text, in one place.
//!
//! Apart from the session so that codes and texts can be read, and tested, as a list.
//! Enhanced status codes follow RFC 3463, 5248 and 4954 §6; they stand on all but the greeting,
//! the replies to EHLO and HELO, 334 and 354 (RFC 2034 §3).

use crate::smtp::reply::{Refusal, Reply};

/// Behind it comes the configured greeting, before it the host name.
pub(super) const GREETING: Reply = Reply::good(220, "", "");
pub(super) const HELO: Reply = Reply::good(250, "", "");
pub(super) const OK: Reply = Reply::good(250, "2.0.0", "Ok");
pub(super) const SENDER_OK: Reply = Reply::good(250, "2.1.0", "Ok");
pub(super) const RECIPIENT_OK: Reply = Reply::good(250, "2.1.5", "Ok");
pub(super) const SEND_DATA: Reply = Reply::good(354, "", "End data with <CR><LF>.<CR><LF>");
/// Before it comes how many.
pub(super) const CHUNK_OK: Reply = Reply::good(250, "2.0.0", "octets received");
/// Behind it comes the queue id.
pub(super) const QUEUED: Reply = Reply::good(250, "2.0.0", "Ok: queued as");
pub(super) const BYE: Reply = Reply::good(221, "2.0.0", "Bye");
pub(super) const HELP: Reply = Reply::good(214, "2.0.0", "See RFC 5321");
/// RFC 5321 §3.5.3: 252 where nothing is verified.
pub(super) const NOT_VERIFIED: Reply =
    Reply::good(252, "2.5.2", "Cannot verify; send mail and see");
pub(super) const START_TLS: Reply = Reply::good(220, "2.0.0", "Ready to start TLS");
/// The text is the challenge.
pub(super) const CHALLENGE: Reply = Reply::good(334, "", "");
pub(super) const AUTHENTICATED: Reply = Reply::good(235, "2.7.0", "Authentication successful");

pub(super) const LINE_TOO_LONG: Reply =
    Reply::refusal(500, "5.5.2", "Line too long", Refusal::Line);
/// RFC 4954 §6.
pub(super) const AUTH_LINE_TOO_LONG: Reply = Reply::refusal(
    500,
    "5.5.6",
    "Authentication exchange line too long",
    Refusal::Line,
);
pub(super) const LINE_END: Reply =
    Reply::refusal(500, "5.5.2", "Lines end in CR LF", Refusal::Line);
/// RFC 5321 §4.1.1.11; here because HELO opened no extension that has parameters.
pub(super) const PARAMETERS_UNKNOWN: Reply =
    Reply::refusal(555, "5.5.4", "Parameter not recognized", Refusal::Parameter);
pub(super) const NOT_IMPLEMENTED: Reply = Reply::refusal(
    502,
    "5.5.1",
    "Command not implemented",
    Refusal::NotImplemented,
);

pub(super) const GREETING_MISSING: Reply = sequence("Send EHLO or HELO first");
pub(super) const EHLO_MISSING: Reply = sequence("Send EHLO first");
pub(super) const MAIL_NESTED: Reply = sequence("Transaction already open");
pub(super) const MAIL_MISSING: Reply = sequence("Send MAIL first");
pub(super) const RCPT_MISSING: Reply = sequence("Send RCPT first");
pub(super) const BDAT_UNDER_WAY: Reply = sequence("Mail data already begun with BDAT");
/// RFC 3030 §3: DATA cannot carry it.
pub(super) const BINARY_WANTS_BDAT: Reply = sequence("BINARYMIME needs BDAT");
pub(super) const TLS_ACTIVE: Reply = sequence("TLS already active");
pub(super) const TLS_IN_TRANSACTION: Reply = sequence("STARTTLS not possible in a transaction");
pub(super) const AUTH_TWICE: Reply = sequence("Already authenticated");
pub(super) const AUTH_IN_TRANSACTION: Reply = sequence("AUTH not possible in a transaction");
/// RFC 5321 §3.3: 554 when there was a RCPT, but none was accepted.
pub(super) const NO_RECIPIENTS: Reply =
    Reply::refusal(554, "5.5.1", "No valid recipients", Refusal::Sequence);

pub(super) const TLS_REQUIRED: Reply = Reply::refusal(
    530,
    "5.7.0",
    "Must issue a STARTTLS command first",
    Refusal::TlsRequired,
);
pub(super) const TLS_UNAVAILABLE: Reply = Reply::refusal(
    454,
    "4.7.0",
    "TLS not available due to temporary reason",
    Refusal::TlsUnavailable,
);

pub(super) const AUTH_REQUIRED: Reply = Reply::refusal(
    530,
    "5.7.0",
    "Authentication required",
    Refusal::AuthRequired,
);
pub(super) const MECHANISM_UNKNOWN: Reply = Reply::refusal(
    504,
    "5.5.4",
    "Mechanism not recognized",
    Refusal::NotImplemented,
);
pub(super) const AUTH_CANCELLED: Reply = Reply::refusal(
    501,
    "5.7.0",
    "Authentication cancelled",
    Refusal::AuthFailed,
);
pub(super) const AUTH_MALFORMED: Reply =
    Reply::refusal(501, "5.5.2", "Cannot decode response", Refusal::Syntax);
pub(super) const AUTH_FAILED: Reply = Reply::refusal(
    535,
    "5.7.8",
    "Authentication credentials invalid",
    Refusal::AuthFailed,
);
pub(super) const AUTH_UNAVAILABLE: Reply = Reply::refusal(
    454,
    "4.7.0",
    "Temporary authentication failure",
    Refusal::AuthUnavailable,
);

pub(super) const RELAYING_DENIED: Reply =
    Reply::refusal(550, "5.7.1", "Relaying denied", Refusal::Relay);
pub(super) const RECIPIENT_UNKNOWN: Reply =
    Reply::refusal(550, "5.1.1", "No such recipient", Refusal::UnknownRecipient);
pub(super) const RECIPIENTS_TOO_MANY: Reply = Reply::refusal(
    452,
    "4.5.3",
    "Too many recipients",
    Refusal::TooManyRecipients,
);

pub(super) const TOO_LARGE: Reply =
    Reply::refusal(552, "5.3.4", "Message too large", Refusal::TooLarge);
pub(super) const STRAY_NEWLINE: Reply = Reply::refusal(
    550,
    "5.6.0",
    "Lone CR or LF in message",
    Refusal::StrayNewline,
);
pub(super) const LOOP: Reply = Reply::refusal(554, "5.4.6", "Too many hops", Refusal::Loop);
pub(super) const MEMORY_SPENT: Reply = Reply::refusal(
    452,
    "4.3.1",
    "No memory for mail data, try later",
    Refusal::MailDataMemory,
);
pub(super) const NO_SPACE: Reply = Reply::refusal(
    452,
    "4.3.1",
    "No space for the message, try later",
    Refusal::CommitFailed,
);
/// 452 like the one before: for the peer a disk that fails is storage that is not there.
pub(super) const COMMIT_FAILED: Reply = Reply::refusal(
    452,
    "4.3.0",
    "Cannot store the message, try later",
    Refusal::CommitFailed,
);

/// Its code and text are the next hop's.
pub(super) const REFUSED_BY_HOP: Reply = Reply::refusal(554, "", "", Refusal::NextHop);

pub(super) const ERRORS_TOO_MANY: Reply =
    Reply::refusal(421, "4.7.0", "Too many errors", Refusal::TooManyErrors);
/// Before it comes the host name (RFC 5321 §4.2.3).
pub(super) const TIMEOUT: Reply = Reply::refusal(421, "4.4.2", "Timeout", Refusal::Timeout);
/// Before it comes the host name.
pub(super) const GOING_DOWN: Reply =
    Reply::refusal(421, "4.3.2", "Service going down", Refusal::Draining);

const fn sequence(text: &'static str) -> Reply {
    Reply::refusal(503, "5.5.1", text, Refusal::Sequence)
}
