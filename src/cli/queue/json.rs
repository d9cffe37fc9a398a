//! A message as JSON for scripts. Its fields are documented in the help and the manual pages.
//!
//! Apart from [`Queued`], which the control socket speaks, so that times are texts here, and that either can
//! change without the other.

use serde::Serialize;

use super::printable::PrintableJson;
use super::timestamp;
use crate::deliver::queue::request::{QueueState, Queued, QueuedRecipient};
use crate::spool::QueueId;

#[derive(Serialize)]
struct View<'q> {
    id: QueueId,
    state: QueueState,
    from: &'q str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ret: Option<&'q str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    envid: Option<&'q str>,
    octets: u64,
    arrived: String,
    attempts: u32,
    next_attempt: Option<String>,
    recipients: &'q [QueuedRecipient],
}

/// Appends the object and a line end.
pub(super) fn push(text: &mut String, message: &Queued) {
    let view = View {
        id: message.id,
        state: message.state,
        from: &message.from,
        ret: message.ret.as_deref(),
        envid: message.envid.as_deref(),
        octets: message.octets,
        arrived: rfc3339(message.arrived_unix_ms),
        attempts: message.attempts,
        next_attempt: message.next_attempt_unix_ms.map(rfc3339),
        recipients: &message.recipients,
    };
    let mut octets = Vec::new();
    let mut to = serde_json::Serializer::with_formatter(&mut octets, PrintableJson);
    // To a vector, of types without a map: neither can fail.
    let _ = view.serialize(&mut to);
    text.push_str(&String::from_utf8_lossy(&octets));
    text.push('\n');
}

fn rfc3339(unix_ms: u64) -> String {
    format!("{:.3}", timestamp(unix_ms))
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::sample;
    use super::*;
    use crate::deliver::queue::request::RecipientState;

    #[test]
    fn an_object_a_line() {
        let mut text = String::new();
        push(&mut text, &sample());
        let expected = concat!(
            r#"{"id":"0000000000200","state":"deferred","from":"a@x.test","octets":2048,"#,
            r#""arrived":"2026-11-24T08:00:00.000Z","attempts":2,"#,
            r#""next_attempt":"2026-11-24T08:05:00.007Z","recipients":["#,
            r#"{"to":"b@y.test","state":"delivered"},"#,
            r#"{"to":"c@y.test","state":"deferred","reason":"451 later"},"#,
            r#"{"to":"d@y.test","state":"bounced","reason":"550 no \u001b[1m"}]}"#,
            "\n"
        );
        assert_eq!(text, expected);
        let mut held = sample();
        held.next_attempt_unix_ms = None;
        held.state = QueueState::Held;
        held.recipients.truncate(1);
        held.recipients[0].state = RecipientState::Waiting;
        text.clear();
        push(&mut text, &held);
        assert!(text.contains(r#""next_attempt":null"#), "{text}");
        assert!(text.contains(r#""state":"held""#), "{text}");
    }

    #[test]
    fn what_the_sender_wants_to_be_told() {
        let mut message = sample();
        message.ret = Some("HDRS".to_owned());
        message.envid = Some("QQ314159".to_owned());
        message.recipients.truncate(1);
        message.recipients[0].notify = Some("NEVER".to_owned());
        message.recipients[0].orcpt = Some("rfc822;x@x.test".to_owned());
        let mut text = String::new();
        push(&mut text, &message);
        let expected = [
            r#""from":"a@x.test","ret":"HDRS","envid":"QQ314159","octets""#,
            r#""state":"delivered","notify":"NEVER","orcpt":"rfc822;x@x.test"}]}"#,
        ];
        for expected in expected {
            assert!(text.contains(expected), "{text}");
        }
    }
}
