//! The verbs and reasons of `smtp`, until they are here.

use super::label::labels;

labels! {
    /// What a reply answers.
    pub enum Verb {
        /// EHLO.
        Ehlo => "EHLO",
        /// HELO.
        Helo => "HELO",
        /// MAIL.
        Mail => "MAIL",
        /// RCPT.
        Rcpt => "RCPT",
        /// DATA.
        Data => "DATA",
        /// BDAT.
        Bdat => "BDAT",
        /// RSET.
        Rset => "RSET",
        /// NOOP.
        Noop => "NOOP",
        /// QUIT.
        Quit => "QUIT",
        /// VRFY.
        Vrfy => "VRFY",
        /// EXPN.
        Expn => "EXPN",
        /// HELP.
        Help => "HELP",
        /// STARTTLS.
        StartTls => "STARTTLS",
        /// AUTH.
        Auth => "AUTH",
        /// The connection.
        Greeting => "greeting",
        /// The end of data.
        EndOfData => "data-end",
        /// Anything else.
        Unknown => "unknown",
    }
}

labels! {
    /// Why something was refused.
    pub enum Refusal {
        /// A recipient elsewhere.
        Relay => "relay",
        /// Larger than the limit.
        TooLarge => "too-large",
        /// Octets in clear behind STARTTLS.
        Injection => "injection",
    }
}
