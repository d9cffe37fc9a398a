//! The first part of a report: what happened, in plain words.
//!
//! Written for somebody who does not know what a server is and wants to know three things: did it arrive, why not,
//! what now.

use mail_builder::headers::date::Date;

use super::fields::{Charset, plain};
use super::original::Scope;
use super::{Action, Diagnostic, Kind, Report, Reported};

/// The text. An address or a word longer than a line stays whole; the builder encodes the text then.
pub(super) fn text(report: &Report<'_>, scope: Scope) -> String {
    let mut text = Paragraphs(String::with_capacity(512 + 256 * report.recipients.len()));
    let hostname = report.hostname;
    let arrived = report.accepted.arrived_unix_ms / 1000;
    let arrived = Date::new(i64::try_from(arrived).unwrap_or(i64::MAX)).to_rfc822();
    let (whom, address) = match &*report.recipients {
        [_] => ("this recipient", "the address"),
        [..] => ("these recipients", "the addresses"),
    };
    text.push("", &format!("This is the mail server {hostname}."));
    text.end();
    text.push(
        "",
        &match report.kind {
            Kind::Failure => format!(
                "Your message of {arrived} could not be delivered to {whom}, and will not be tried again:"
            ),
            Kind::Delay => format!(
                "Your message of {arrived} has not been delivered to {whom} yet. There is nothing that \
                 you need to do, and no need to send it again. It is tried again from time to time:"
            ),
            Kind::Success => {
                format!("You asked to be told what became of your message of {arrived}. For {whom}:")
            }
        },
    );
    text.end();
    for reported in &report.recipients {
        text.push("  ", &format!("<{}>", reported.recipient.as_given));
        text.push("    ", &reason(reported));
        if let (Action::Delayed, Some(seconds)) =
            (reported.action, reported.retry_until_unix_seconds)
        {
            let until = Date::new(seconds).to_rfc822();
            text.push("    ", &format!("It will be tried until {until}."));
        }
        text.end();
    }
    let attached = match scope {
        Scope::Whole => "Your message is attached.",
        Scope::Header => "The header of your message is attached.",
    };
    let advice = match report.kind {
        Kind::Failure => format!(
            "Please check {address}, and see whether the reason tells you what to change before you send the \
             message again. If it does not, ask {whom} by other means, or send this report to \
             postmaster@{hostname}. "
        ),
        // Only who wants it is told of a failure: NOTIFY=DELAY alone is silence then.
        Kind::Delay if will_hear(report) => {
            "If it cannot be delivered in the end, you will be told. ".to_owned()
        }
        Kind::Delay | Kind::Success => String::new(),
    };
    text.push("", &format!("{advice}{attached}"));
    text.0
}

/// Whether a failure of any of the recipients would be reported.
fn will_hear(report: &Report<'_>) -> bool {
    let mut recipients = report.recipients.iter();
    recipients.all(|reported| reported.recipient.dsn.wants_failure())
}

fn reason(reported: &Reported<'_>) -> String {
    match reported.action {
        Action::Delivered => "It was delivered.".to_owned(),
        Action::Relayed => {
            let hop = reported.remote_mta.unwrap_or("another server");
            format!(
                "It was passed on to {hop}, which does not send such reports: this is the last one for this recipient."
            )
        }
        Action::Failed | Action::Delayed => {
            let words = match reported.diagnostic {
                Some(Diagnostic::Smtp(words) | Diagnostic::Ours(words)) => words,
                None => "",
            };
            let mut words = [reported.text, words].into_iter();
            let said = words.find(|words| !words.trim().is_empty());
            said.unwrap_or("No reason is known.").to_owned()
        }
    }
}

/// Text that grows by paragraphs.
struct Paragraphs(String);

impl Paragraphs {
    /// Adds `words`, each line behind `indent`. What looks like the end of a line in them is a blank.
    fn push(&mut self, indent: &str, words: &str) {
        let words = plain(words, Charset::Utf8);
        let mut columns = 0;
        for word in words.split_ascii_whitespace() {
            let word_columns = word.chars().count();
            if columns == 0 {
                self.0.push_str(indent);
                columns = indent.len();
            } else if columns + 1 + word_columns > COLUMNS_MAX {
                self.0.push_str("\r\n");
                self.0.push_str(indent);
                columns = indent.len();
            } else {
                self.0.push(' ');
                columns += 1;
            }
            self.0.push_str(word);
            columns += word_columns;
        }
        self.0.push_str("\r\n");
    }

    /// Ends a paragraph.
    fn end(&mut self) {
        self.0.push_str("\r\n");
    }
}

/// Of a line: 78 is the most that RFC 5322 §2.1.1 wants, and some of it goes to whoever quotes it.
const COLUMNS_MAX: usize = 72;
