//! How long a command line takes to read, by verb.
//!
//! All that a line says is checked before it is timed; inside the timing loop its verb is, or its error, as far as
//! that costs one comparison.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringpost::smtp::command::{Addresses, Command, CommandError, InitialResponse, Verb, parse};
use ringpost::smtp::dsn::{Notify, Ret};
use ringpost::smtp::envelope::Body;
use ringpost::smtp::parameters::{MailParameters, RcptParameters};
use ringpost::smtp::path::{ForwardPath, ReversePath};

/// What a line says, in the order of the verbs.
enum Says {
    /// Exactly this.
    Plain(Command<'static>),
    /// MAIL with this mailbox, or the null reverse-path.
    Mail(Option<&'static str>, MailParameters<'static>),
    /// RCPT with this mailbox.
    Rcpt(&'static str, RcptParameters<'static>),
    /// No command.
    Nothing(CommandError),
}

const NO_MAIL_PARAMETERS: MailParameters<'static> = MailParameters {
    declared_octets: None,
    body: None,
    smtputf8: false,
    auth: None,
    ret: None,
    envid: None,
};

const NO_RCPT_PARAMETERS: RcptParameters<'static> = RcptParameters {
    notify: None,
    orcpt: None,
};

const LINES: &[(&str, &str, Says)] = &[
    (
        "EHLO",
        "EHLO mail-lj1-f174.example.com",
        Says::Plain(Command::Ehlo("mail-lj1-f174.example.com")),
    ),
    (
        "HELO",
        "HELO client.example.com",
        Says::Plain(Command::Helo("client.example.com")),
    ),
    (
        "MAIL",
        "MAIL FROM:<sender@lists.example.com>",
        Says::Mail(Some("sender@lists.example.com"), NO_MAIL_PARAMETERS),
    ),
    (
        "MAIL null",
        "MAIL FROM:<>",
        Says::Mail(None, NO_MAIL_PARAMETERS),
    ),
    (
        "MAIL SIZE BODY",
        "MAIL FROM:<bounce+5f2c=user=example.org@lists.example.com> SIZE=48213 BODY=8BITMIME",
        Says::Mail(
            Some("bounce+5f2c=user=example.org@lists.example.com"),
            MailParameters {
                declared_octets: Some(48_213),
                body: Some(Body::EightBitMime),
                ..NO_MAIL_PARAMETERS
            },
        ),
    ),
    (
        "MAIL SIZE BODY RET ENVID",
        "MAIL FROM:<sender@lists.example.com> SIZE=48213 BODY=8BITMIME RET=HDRS ENVID=QQ314159+2B1",
        Says::Mail(
            Some("sender@lists.example.com"),
            MailParameters {
                declared_octets: Some(48_213),
                body: Some(Body::EightBitMime),
                ret: Some(Ret::Headers),
                envid: Some("QQ314159+2B1"),
                ..NO_MAIL_PARAMETERS
            },
        ),
    ),
    (
        "MAIL SMTPUTF8 AUTH",
        "MAIL FROM:<δοκιμή@παράδειγμα.δοκιμή> SMTPUTF8 AUTH=e+3Dmc2@example.com",
        Says::Mail(
            Some("δοκιμή@παράδειγμα.δοκιμή"),
            MailParameters {
                smtputf8: true,
                auth: Some("e+3Dmc2@example.com"),
                ..NO_MAIL_PARAMETERS
            },
        ),
    ),
    (
        "RCPT",
        "RCPT TO:<first.last@mail.example.org>",
        Says::Rcpt("first.last@mail.example.org", NO_RCPT_PARAMETERS),
    ),
    (
        "RCPT NOTIFY ORCPT",
        "RCPT TO:<first.last@mail.example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first+2Blast@example.com",
        Says::Rcpt(
            "first.last@mail.example.org",
            RcptParameters {
                notify: Some(Notify {
                    success: true,
                    failure: true,
                    delay: false,
                }),
                orcpt: Some("rfc822;first+2Blast@example.com"),
            },
        ),
    ),
    (
        "RCPT quoted",
        r#"RCPT TO:<"first \"x\" last"@Mail.Example.org>"#,
        Says::Rcpt(r#""first \"x\" last"@Mail.Example.org"#, NO_RCPT_PARAMETERS),
    ),
    (
        "RCPT literal",
        "RCPT TO:<postmaster@[IPv6:2001:db8::25]>",
        Says::Rcpt("postmaster@[IPv6:2001:db8::25]", NO_RCPT_PARAMETERS),
    ),
    (
        "RCPT international",
        "RCPT TO:<δοκιμή@παράδειγμα.δοκιμή>",
        Says::Rcpt("δοκιμή@παράδειγμα.δοκιμή", NO_RCPT_PARAMETERS),
    ),
    ("DATA", "DATA", Says::Plain(Command::Data)),
    (
        "BDAT",
        "BDAT 86000 LAST",
        Says::Plain(Command::Bdat {
            octets: 86_000,
            last: true,
        }),
    ),
    ("RSET", "RSET", Says::Plain(Command::Rset)),
    ("NOOP", "NOOP", Says::Plain(Command::Noop)),
    ("QUIT", "QUIT", Says::Plain(Command::Quit)),
    (
        "VRFY",
        "VRFY first.last@mail.example.org",
        Says::Plain(Command::Vrfy(b"first.last@mail.example.org")),
    ),
    ("EXPN", "EXPN staff", Says::Plain(Command::Expn(b"staff"))),
    ("HELP", "HELP", Says::Plain(Command::Help)),
    ("STARTTLS", "STARTTLS", Says::Plain(Command::StartTls)),
    (
        "AUTH",
        "AUTH PLAIN AGFubgBzZWNyZXQ=",
        Says::Plain(Command::Auth {
            mechanism: "PLAIN",
            initial: Some(InitialResponse(b"AGFubgBzZWNyZXQ=")),
        }),
    ),
    (
        "unknown verb",
        "GET /index.html HTTP/1.1",
        Says::Nothing(CommandError::Unknown),
    ),
    (
        "unknown parameter",
        "MAIL FROM:<sender@lists.example.com> SIZE=48213 XSPEED=9600",
        Says::Nothing(CommandError::UnknownParameter(Verb::Mail)),
    ),
];

/// Whether the line was read as what it says.
fn holds(read: &Result<Command<'_>, CommandError>, says: &Says) -> bool {
    match (read, says) {
        (Ok(Command::Mail(mail)), Says::Mail(mailbox, parameters)) => {
            let given = match &mail.reverse_path {
                ReversePath::Null => None,
                ReversePath::Mailbox(mailbox) => Some(mailbox.as_given()),
            };
            given == *mailbox && mail.parameters == *parameters
        }
        (Ok(Command::Rcpt(rcpt)), Says::Rcpt(wanted, parameters)) => {
            matches!(&rcpt.forward_path, ForwardPath::Mailbox(given) if given.as_given() == *wanted)
                && rcpt.parameters == *parameters
        }
        (Ok(command), Says::Plain(wanted)) => command == wanted,
        (Err(error), Says::Nothing(wanted)) => error == wanted,
        (Ok(_), Says::Mail(..) | Says::Rcpt(..) | Says::Nothing(_))
        | (Err(_), Says::Plain(_) | Says::Mail(..) | Says::Rcpt(..)) => false,
    }
}

fn command(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("command");
    for (name, line, says) in LINES {
        let read = || parse(black_box(line.as_bytes()), Addresses::Utf8);
        assert!(holds(&read(), says), "{name}: {:?}", read());
        let expected = match says {
            Says::Plain(command) => Ok(command.verb()),
            Says::Mail(..) => Ok(Verb::Mail),
            Says::Rcpt(..) => Ok(Verb::Rcpt),
            Says::Nothing(error) => Err(*error),
        };
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function(*name, |bencher| {
            bencher.iter(|| assert!(read().map(|command| command.verb()) == expected));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    // Enough for what takes less than a microsecond.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = command
}
criterion_main!(benches);
