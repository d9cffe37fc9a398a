//! Command lines: any octets parse or are refused, and what parses holds nothing but what its
//! grammar lets in.

use ringpost::smtp::command::{Addresses, Command, Verb, parse};
use ringpost::smtp::dsn::{ENVID_OCTETS_MAX, MailDsn, ORCPT_OCTETS_MAX, RcptDsn};
use ringpost::smtp::path::{ForwardPath, Mailbox, ReversePath};

use super::{cases, line_of_transcripts, mutate};

#[test]
fn command_lines() {
    cases("command_lines", |random| {
        let mut line = line_of_transcripts(random);
        mutate(random, &mut line);
        for addresses in [Addresses::Ascii, Addresses::Utf8] {
            let parsed = parse(&line, addresses);
            let shown = line.escape_ascii();
            match &parsed {
                Ok(command) => looks_right(command, addresses, &line),
                Err(error) => {
                    assert!((500..=599).contains(&error.code()), "{shown}");
                    assert!(error.enhanced().starts_with("5."), "{shown}");
                    assert!(!error.text().is_empty(), "{shown}");
                }
            }
            // RFC 5321 §4.1.1: white space at the end means nothing.
            let spaced = [&line[..], b" \t "].concat();
            assert_eq!(parse(&spaced, addresses), parsed, "{shown}");
            // RFC 5321 §2.4: neither does the case of the verb.
            let mut other = line.clone();
            for octet in other.iter_mut().take_while(|octet| **octet != b' ') {
                *octet ^= u8::from(octet.is_ascii_alphabetic() && random.bool()) << 5;
            }
            assert_eq!(parse(&other, addresses), parsed, "{shown}");
        }
    });
}

fn looks_right(command: &Command<'_>, addresses: Addresses, line: &[u8]) {
    let shown = line.escape_ascii();
    let word = line
        .split(|octet| matches!(octet, b' ' | b'\t'))
        .next()
        .unwrap();
    assert_eq!(command.verb(), Verb::of(word), "{shown}");
    match command {
        Command::Ehlo(name) | Command::Helo(name) => {
            assert!(
                name.bytes().all(|octet| octet.is_ascii_graphic()),
                "{shown}"
            );
        }
        Command::Mail(mail) => {
            if let ReversePath::Mailbox(mailbox) = &mail.reverse_path {
                holds_a_mailbox(mailbox, mail.parameters.smtputf8, line);
            }
            holds_no_line_end_for_mail(&mail.parameters.dsn(), line);
        }
        Command::Rcpt(rcpt) => {
            if let ForwardPath::Mailbox(mailbox) = &rcpt.forward_path {
                holds_a_mailbox(mailbox, addresses == Addresses::Utf8, line);
            }
            holds_no_line_end_for_rcpt(&rcpt.parameters.dsn(), addresses, line);
        }
        Command::Data
        | Command::Bdat { .. }
        | Command::Rset
        | Command::Noop
        | Command::Quit
        | Command::Vrfy(_)
        | Command::Expn(_)
        | Command::Help
        | Command::StartTls
        | Command::Auth { .. } => {}
    }
}

/// What MAIL says of reports breaks no field of one, and reads at the next hop as it did here.
fn holds_no_line_end_for_mail(dsn: &MailDsn, from: &[u8]) {
    let shown = from.escape_ascii();
    if dsn.envid.is_some() {
        let id = dsn.envelope_id().unwrap();
        assert!(id.len() <= ENVID_OCTETS_MAX, "{shown}");
        assert!(
            id.bytes().all(|octet| matches!(octet, b' '..=b'~')),
            "{shown}"
        );
    }
    let again = format!("MAIL FROM:<>{}", dsn.parameters());
    let Ok(Command::Mail(mail)) = parse(again.as_bytes(), Addresses::Ascii) else {
        panic!("{again}: {shown}");
    };
    assert_eq!(mail.parameters.dsn(), *dsn, "{shown}");
}

/// The same for RCPT, and a next hop without SMTPUTF8 learns of the same address.
fn holds_no_line_end_for_rcpt(dsn: &RcptDsn, addresses: Addresses, from: &[u8]) {
    let shown = from.escape_ascii();
    if let Some(orcpt) = &dsn.orcpt {
        let (addr_type, address) = dsn.original_recipient().unwrap();
        assert!(orcpt.len() <= ORCPT_OCTETS_MAX, "{shown}");
        assert!(!addr_type.is_empty() && !address.is_empty(), "{shown}");
        assert!(!address.contains(char::is_control), "{shown}");
        assert!(orcpt.is_ascii() || addresses == Addresses::Utf8, "{shown}");
        assert!(
            address.is_ascii() || addr_type.eq_ignore_ascii_case("utf-8"),
            "{shown}"
        );
    }
    for there in [Addresses::Ascii, Addresses::Utf8] {
        let again = format!("RCPT TO:<postmaster>{}", dsn.parameters(there));
        let Ok(Command::Rcpt(rcpt)) = parse(again.as_bytes(), there) else {
            panic!("{again}: {shown}");
        };
        let passed = rcpt.parameters.dsn();
        assert_eq!(passed.notify, dsn.notify, "{shown}");
        if there == Addresses::Utf8 || passed.orcpt.is_some() {
            assert_eq!(
                passed.original_recipient(),
                dsn.original_recipient(),
                "{shown}"
            );
        }
    }
}

/// No mailbox breaks a line of the trace header, or names another domain than the one it was
/// compared by.
pub(super) fn holds_a_mailbox(mailbox: &Mailbox<'_>, may_be_utf8: bool, from: &[u8]) {
    let shown = from.escape_ascii();
    let as_given = mailbox.as_given();
    assert!(
        !as_given.contains(|c: char| c.is_ascii_control()),
        "{shown}"
    );
    assert!(may_be_utf8 || as_given.is_ascii(), "{shown}");
    let domain = mailbox.domain().comparable();
    assert!(!domain.is_empty() && domain.is_ascii(), "{shown}");
    assert!(
        !domain.contains(|c: char| c.is_ascii_uppercase()),
        "{shown}"
    );
    assert!(
        !domain.contains(|c: char| c.is_ascii_control() || " @<>\"\\,/".contains(c)),
        "{shown}"
    );
    assert!(!domain.ends_with('.') && !domain.contains(".."), "{shown}");
    let unquoted = mailbox.local_part().unquoted();
    assert!(
        !unquoted.contains(|c: char| c.is_ascii_control()),
        "{shown}"
    );
}
