//! A message as text for people who know postqueue(1).

use std::fmt::Write;

use super::printable::printable;
use super::timestamp;
use crate::deliver::queue::request::{QueueState, Queued, QueuedRecipient, RecipientState};

/// What stands above a list; the columns are those of [`push_listed`].
pub(super) const LIST_HEADING: &str =
    "ID             STATE         OCTETS  ARRIVED (UTC)         SENDER -> RECIPIENTS\n";

/// Appends a message of a list: its line, and the reasons why recipients wait.
pub(super) fn push_listed(text: &mut String, message: &Queued) {
    // Writing to a `String` cannot fail, here and below.
    let _ = write!(
        text,
        "{}  {:<8}  {:>10}  {:.0}  {} -> ",
        message.id,
        state(message.state),
        message.octets,
        timestamp(message.arrived_unix_ms),
        sender(message),
    );
    let to_come: Vec<&QueuedRecipient> = message.recipients.iter().filter(is_to_come).collect();
    for (index, recipient) in to_come.iter().take(LISTED_MAX).enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let _ = write!(text, "{comma}{}", printable(&recipient.to));
    }
    match to_come.len() {
        0 => text.push_str("(nobody any more)"),
        count if count > LISTED_MAX => {
            let _ = write!(text, " and {} more", count - LISTED_MAX);
        }
        _ => {}
    }
    text.push('\n');
    // Most often all wait for the same reason.
    let mut reasons: Vec<&str> = Vec::new();
    for reason in to_come
        .iter()
        .filter_map(|recipient| recipient.reason.as_deref())
    {
        if reasons.len() < LISTED_MAX && !reasons.contains(&reason) {
            reasons.push(reason);
            let _ = writeln!(text, "    ({})", printable(reason));
        }
    }
}

/// The last line of a list.
pub(super) fn summary(messages: u64, octets: u64) -> String {
    match messages {
        0 => "queue is empty\n".to_owned(),
        1 => format!("1 message, {octets} octets\n"),
        _ => format!("{messages} messages, {octets} octets\n"),
    }
}

/// Appends everything about a message.
pub(super) fn push_shown(text: &mut String, message: &Queued) {
    let mut entry = |label: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{label:<10}{value}");
    };
    entry("id", &message.id);
    entry("state", &state(message.state));
    entry(
        "arrived",
        &format_args!("{:.3}", timestamp(message.arrived_unix_ms)),
    );
    entry("octets", &message.octets);
    entry("sender", &sender(message));
    for (label, value) in [("ret", &message.ret), ("envid", &message.envid)] {
        if let Some(value) = value {
            entry(label, &printable(value));
        }
    }
    entry("attempts", &message.attempts);
    let next = next(message);
    for recipient in &message.recipients {
        let _ = writeln!(text, "recipient {}", printable(&recipient.to));
        let reason = recipient.reason.as_deref().map(printable);
        let reason = reason.as_deref().unwrap_or("no reason was given");
        let (happened, comes) = match recipient.state {
            RecipientState::Waiting => ("no attempt yet".to_owned(), next.as_str()),
            RecipientState::Deferred => (format!("deferred: {reason}"), next.as_str()),
            RecipientState::Delivered => ("delivered".to_owned(), ""),
            RecipientState::Bounced => (format!("given up: {reason}"), "no more attempts"),
        };
        for line in [happened.as_str(), comes] {
            if !line.is_empty() {
                let _ = writeln!(text, "          {line}");
            }
        }
        for (label, value) in [("notify", &recipient.notify), ("orcpt", &recipient.orcpt)] {
            if let Some(value) = value {
                let _ = writeln!(text, "          {label} {}", printable(value));
            }
        }
    }
}

/// What comes next for the recipients that wait.
fn next(message: &Queued) -> String {
    match (message.state, message.next_attempt_unix_ms) {
        (QueueState::Active, _) => "an attempt is under way".to_owned(),
        (QueueState::Held, _) => "held: no attempt until it is released".to_owned(),
        (QueueState::Waiting | QueueState::Deferred, None) => "the next attempt is due".to_owned(),
        (QueueState::Waiting, Some(due)) => format!("first attempt {:.0}", timestamp(due)),
        (QueueState::Deferred, Some(due)) => format!("next attempt {:.0}", timestamp(due)),
    }
}

fn sender(message: &Queued) -> std::borrow::Cow<'_, str> {
    match message.from.as_str() {
        "" => "<>".into(),
        from => printable(from),
    }
}

fn is_to_come(recipient: &&QueuedRecipient) -> bool {
    match recipient.state {
        RecipientState::Waiting | RecipientState::Deferred => true,
        RecipientState::Delivered | RecipientState::Bounced => false,
    }
}

fn state(state: QueueState) -> &'static str {
    match state {
        QueueState::Active => "active",
        QueueState::Waiting => "waiting",
        QueueState::Deferred => "deferred",
        QueueState::Held => "held",
    }
}

/// Recipients of a message that are listed, and reasons.
const LISTED_MAX: usize = 3;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn recipient(to: &str, state: RecipientState, reason: Option<&str>) -> QueuedRecipient {
        QueuedRecipient {
            to: to.to_owned(),
            state,
            reason: reason.map(str::to_owned),
            notify: None,
            orcpt: None,
        }
    }

    /// One of each, but for those that wait for a first attempt.
    pub(in crate::cli::queue) fn sample() -> Queued {
        Queued {
            id: "0000000000200".parse().unwrap(),
            state: QueueState::Deferred,
            from: "a@x.test".to_owned(),
            ret: None,
            envid: None,
            octets: 2048,
            arrived_unix_ms: 1_795_507_200_000,
            attempts: 2,
            next_attempt_unix_ms: Some(1_795_507_500_007),
            recipients: vec![
                recipient("b@y.test", RecipientState::Delivered, None),
                recipient("c@y.test", RecipientState::Deferred, Some("451 later")),
                recipient("d@y.test", RecipientState::Bounced, Some("550 no \x1b[1m")),
            ],
        }
    }

    fn listed(message: &Queued) -> String {
        let mut text = String::new();
        push_listed(&mut text, message);
        text
    }

    #[test]
    fn a_line_a_message_and_its_reasons() {
        assert_eq!(
            LIST_HEADING.to_owned() + &listed(&sample()),
            "\
ID             STATE         OCTETS  ARRIVED (UTC)         SENDER -> RECIPIENTS
0000000000200  deferred        2048  2026-11-24T08:00:00Z  a@x.test -> c@y.test
    (451 later)
"
        );
        let mut message = sample();
        message.from.clear();
        message.state = QueueState::Held;
        let deferred = |n: usize, reason| {
            recipient(
                &format!("{n}@y.test"),
                RecipientState::Deferred,
                Some(reason),
            )
        };
        message.recipients = (0..3).map(|n| deferred(n, "451 later")).collect();
        assert_eq!(
            listed(&message),
            "0000000000200  held            2048  2026-11-24T08:00:00Z  <> -> 0@y.test, 1@y.test, 2@y.test\n    \
             (451 later)\n"
        );
        let reasons = ["a", "a", "b\r\nc", "\x1b", "e", "f"];
        let several = std::iter::zip(0.., reasons).map(|(n, reason)| deferred(n, reason));
        message.recipients = several.collect();
        assert!(
            listed(&message).ends_with(
                "<> -> 0@y.test, 1@y.test, 2@y.test and 3 more\n    (a)\n    (b\\r\\nc)\n    (\\u{1b})\n"
            ),
            "{}",
            listed(&message)
        );
        message.recipients = vec![recipient("x@y.test", RecipientState::Delivered, None)];
        assert!(listed(&message).ends_with("<> -> (nobody any more)\n"));
        message.recipients = vec![recipient(
            "\"\x1b]0;x\x07\"@y",
            RecipientState::Waiting,
            None,
        )];
        assert!(listed(&message).ends_with("<> -> \"\\u{1b}]0;x\\u{7}\"@y\n"));
    }

    #[test]
    fn summaries() {
        assert_eq!(summary(0, 0), "queue is empty\n");
        assert_eq!(summary(1, 7), "1 message, 7 octets\n");
        assert_eq!(summary(3, 12345), "3 messages, 12345 octets\n");
    }

    #[test]
    fn everything_about_one() {
        let mut text = String::new();
        push_shown(&mut text, &sample());
        assert_eq!(
            text,
            "\
id        0000000000200
state     deferred
arrived   2026-11-24T08:00:00.000Z
octets    2048
sender    a@x.test
attempts  2
recipient b@y.test
          delivered
recipient c@y.test
          deferred: 451 later
          next attempt 2026-11-24T08:05:00Z
recipient d@y.test
          given up: 550 no \\u{1b}[1m
          no more attempts
"
        );
    }

    #[test]
    fn what_the_sender_wants_to_be_told() {
        let mut message = sample();
        message.ret = Some("HDRS".to_owned());
        message.envid = Some("QQ+20314159".to_owned());
        message.recipients.truncate(1);
        message.recipients[0].notify = Some("SUCCESS,DELAY".to_owned());
        message.recipients[0].orcpt = Some("utf-8;ü\u{1b}@x.test".to_owned());
        let mut text = String::new();
        push_shown(&mut text, &message);
        let expected = "\
sender    a@x.test
ret       HDRS
envid     QQ+20314159
attempts  2
recipient b@y.test
          delivered
          notify SUCCESS,DELAY
          orcpt utf-8;ü\\u{1b}@x.test
";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn what_comes_next() {
        let rows = [
            (QueueState::Active, None, "an attempt is under way"),
            (
                QueueState::Held,
                None,
                "held: no attempt until it is released",
            ),
            (
                QueueState::Waiting,
                Some(0),
                "first attempt 1970-01-01T00:00:00Z",
            ),
            (
                QueueState::Deferred,
                Some(1999),
                "next attempt 1970-01-01T00:00:01Z",
            ),
            (QueueState::Deferred, None, "the next attempt is due"),
            (
                QueueState::Deferred,
                Some(u64::MAX),
                "next attempt 9999-12-30T22:00:00Z",
            ),
        ];
        for (state, next_attempt_unix_ms, text) in rows {
            let message = Queued {
                state,
                next_attempt_unix_ms,
                ..sample()
            };
            assert_eq!(next(&message), text);
        }
    }
}
