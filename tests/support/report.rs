//! A delivery status notification as its reader's program finds it (RFC 3464, RFC 6522), by a parser that nobody here
//! wrote.

use mail_parser::{MessageParser, MessagePart, MimeHeaders};

/// A report in parts.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// The fields of the report's own header, as `Name: value`.
    pub(crate) header: Fields,
    /// What people read.
    pub(crate) text: String,
    /// The fields about the message.
    pub(crate) message: Fields,
    /// Those about each recipient.
    pub(crate) recipients: Vec<Fields>,
    /// The type and the octets of what came back.
    pub(crate) original_type: String,
    pub(crate) original: Vec<u8>,
}

/// Header fields in order, unfolded.
#[derive(Clone, Debug)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// The value of a field; "" if there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        let mut fields = self.0.iter();
        fields
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value)
    }

    fn read(octets: &[u8]) -> Fields {
        let text = String::from_utf8_lossy(octets).replace("\r\n", "\n");
        let unfolded = text.replace("\n ", " ").replace("\n\t", " ");
        let fields = unfolded.lines().filter_map(|line| line.split_once(':'));
        Fields(
            fields
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
        )
    }
}

impl Report {
    #[track_caller]
    pub(crate) fn read(octets: &[u8]) -> Report {
        let message = MessageParser::default().parse(octets).expect("a message");
        let type_of = |part: &MessagePart<'_>| {
            let content_type = part.content_type().expect("a content type");
            let subtype = content_type.subtype().unwrap_or_default();
            format!("{}/{subtype}", content_type.ctype()).to_ascii_lowercase()
        };
        let body = |part: &MessagePart<'_>| {
            let (begin, end) = (part.raw_body_offset(), part.raw_end_offset());
            let (begin, end) = (
                usize::try_from(begin).unwrap(),
                usize::try_from(end).unwrap(),
            );
            octets[begin..end].to_vec()
        };
        let [whole, text, status, original] = message.parts.as_slice() else {
            panic!("not three parts: {}", String::from_utf8_lossy(octets));
        };
        assert_eq!(type_of(whole), "multipart/report");
        assert_eq!(type_of(text), "text/plain");
        // RFC 6522 §3: the parameter names the subtype of the second part.
        let report_type = whole.content_type().unwrap().attribute("report-type");
        let subtype = report_type.unwrap_or_default();
        assert!(
            ["delivery-status", "global-delivery-status"].contains(&subtype),
            "{subtype}"
        );
        assert_eq!(type_of(status), format!("message/{subtype}"));
        let header_end = usize::try_from(whole.raw_body_offset()).unwrap();
        let mut groups = groups(&body(status)).into_iter();
        Report {
            header: Fields::read(&octets[..header_end]),
            text: text.text_contents().unwrap_or_default().to_owned(),
            message: groups.next().expect("fields about the message"),
            recipients: groups.collect(),
            original_type: type_of(original),
            original: body(original),
        }
    }

    /// The fields about this mailbox.
    #[track_caller]
    pub(crate) fn of(&self, mailbox: &str) -> &Fields {
        let is = |fields: &&Fields| fields.get("Final-Recipient").ends_with(mailbox);
        self.recipients
            .iter()
            .find(is)
            .unwrap_or_else(|| panic!("nothing about {mailbox}: {self:#?}"))
    }
}

/// Groups of fields between empty lines.
fn groups(octets: &[u8]) -> Vec<Fields> {
    let text = String::from_utf8_lossy(octets).replace("\r\n", "\n");
    let groups = text.split("\n\n").filter(|group| !group.trim().is_empty());
    groups.map(|group| Fields::read(group.as_bytes())).collect()
}
