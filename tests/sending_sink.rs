//! The scripted next hop of the tests of sending, proved by clients that are known to be right.

#![cfg(test)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use openssl::ssl::{SslConnectorBuilder, SslOptions, SslVersion};
use support::programs::{program, run};
use support::sink::{Act, Gate, Login, Message, Point::*, Script, Tls, TlsSeen, Way, long_reply};
use support::{Authority, Client, KeyKind, Pair, Sink};

fn tls() -> Tls {
    Tls::with(&Authority::shared().issue(&["mx.test"], KeyKind::Ecdsa))
}

/// The lines are sent one by one, and the first line of each reply begins so.
#[track_caller]
fn converse(name: &str, sink: &Sink, lines: &[(&str, &str)]) {
    let mut client = Client::connect(sink.address());
    for (line, reply) in lines {
        let first = match *line {
            "" => client.reply().first(),
            line => client.say(line).first(),
        };
        assert!(first.starts_with(reply), "{name}: {line:?} got {first:?}");
    }
}

/// A line, and how the reply to it begins.
type Turn = (&'static str, &'static str);

#[test]
fn a_script_departs_where_it_says() {
    const OPENED: [Turn; 2] = [("", "220 "), ("EHLO c.test", "250 hop.test")];
    let mail = ("MAIL FROM:<a@b.test>", "250 ");
    let rows: Vec<(&str, Script, Vec<Turn>)> = vec![
        (
            "nothing",
            Script::smtp(),
            vec![
                mail,
                ("RCPT TO:<c@d.test>", "250 "),
                ("DATA", "354 "),
                (".", "250 "),
            ],
        ),
        (
            "a recipient",
            Script::smtp().at(Rcpt.of("c@d.test"), "550 5.1.1 who?"),
            vec![
                mail,
                ("RCPT TO:<C@d.test>", "550 5.1.1"),
                ("RCPT TO:<e@d.test>", "250 "),
            ],
        ),
        (
            "the first two times",
            Script::smtp().at(Mail.first(2), "451 later"),
            vec![
                ("MAIL FROM:<>", "451"),
                ("MAIL FROM:<>", "451"),
                ("MAIL FROM:<>", "250"),
            ],
        ),
        (
            "the first rule that fits, then the next",
            Script::smtp()
                .at(Rcpt.of("c@d.test").first(1), "450 later")
                .at(Rcpt, "550 never"),
            vec![
                mail,
                ("RCPT TO:<c@d.test>", "450"),
                ("RCPT TO:<c@d.test>", "550"),
            ],
        ),
        (
            "no recipients are left",
            Script::smtp().at(Rcpt, "550 never"),
            vec![mail, ("RCPT TO:<c@d.test>", "550"), ("DATA", "554 5.5.1")],
        ),
        (
            "354 without recipients (RFC 2920 §3.1)",
            Script::smtp()
                .at(Rcpt, "550 never")
                .at(Data, "354 all the same"),
            vec![
                mail,
                ("RCPT TO:<c@d.test>", "550"),
                ("DATA", "354"),
                (".", "554 5.5.1"),
            ],
        ),
        (
            "STARTTLS is refused",
            Script::smtp()
                .with("STARTTLS")
                .at(StartTls, "454 4.7.0 not now"),
            vec![("STARTTLS", "454 4.7.0"), mail],
        ),
        (
            "a long reply, octet by octet",
            Script::smtp().cut().at(Mail, long_reply(250, 1_000)),
            vec![
                ("MAIL FROM:<>", "250 line 1 of 1000"),
                ("RSET", "250 2.0.0"),
            ],
        ),
        (
            "a login is wanted",
            Script::smtp().auth("anna", "secret"),
            vec![
                ("MAIL FROM:<>", "530 5.7.0"),
                ("AUTH PLAIN AGFubmEAd3Jvbmc=", "535 5.7.8"),
                ("AUTH LOGIN", "334 VXNlcm5hbWU6"),
                ("YW5uYQ==", "334 UGFzc3dvcmQ6"),
                ("c2VjcmV0", "235 2.7.0"),
                ("MAIL FROM:<>", "250"),
            ],
        ),
        (
            "the last reply",
            Script::smtp().at(Mail, Act::Last("250 2.1.0 and bye".to_owned())),
            vec![("MAIL FROM:<>", "250 2.1.0 and bye")],
        ),
        (
            "421 ends it",
            Script::smtp().at(Mail, "421 4.3.2 going down"),
            vec![("MAIL FROM:<>", "421")],
        ),
    ];
    for (name, script, lines) in rows {
        let sink = Sink::start(script);
        converse(name, &sink, &[&OPENED[..], &lines].concat());
    }
}

#[test]
fn the_scripts_of_first_second_and_other_connections() {
    let sink = Sink::start([
        Script::smtp().at(Greeting, "554 5.7.1 go away"),
        Script::smtp().at(Greeting, Act::Close),
        Script::smtp(),
    ]);
    converse("first", &sink, &[("", "554 5.7.1"), ("QUIT", "221")]);
    Client::connect(sink.address()).expect_end();
    for name in ["third", "fourth"] {
        converse(name, &sink, &[("", "220"), ("QUIT", "221")]);
    }
    sink.play(Script::smtp().at(Greeting, "421 changed"));
    converse("told anew", &sink, &[("", "421 changed")]);
    for number in 0..5 {
        sink.ended(number);
    }
    assert_eq!(
        sink.books(|books| (books.connections.len(), books.open())),
        (5, 0)
    );
}

#[test]
fn messages_are_kept_octet_for_octet() {
    let sink = Sink::start(Script::smtp().at(EndOfData.first(1), "451 4.3.0 once more"));
    let mut client = Client::connect(sink.address());
    client.expect(220);
    client.ehlo();
    let stuffed = b"..\r\n..two\r\n.. \r\n\xff\nbare\r\n.x\r\n";
    let octets = b".\r\n.two\r\n. \r\n\xff\nbare\r\nx\r\n";
    client
        .deliver("a@b.test", &["c@d.test"], stuffed)
        .begins("451");
    client.deliver("", &["c@d.test"], b"").begins("250");
    client.send("MAIL FROM:<a@b.test> SIZE=12 RET=HDRS\r\nRCPT TO:<c@d.test> NOTIFY=NEVER\r\n");
    client.send("RCPT TO:<e@d.test>\r\nBDAT 5\r\n\r\n.\r\nBDAT 7 LAST\r\nhalf.\r\n");
    for _ in 0..5 {
        client.expect(250);
    }
    client.quit();
    let arrived = sink.arrived(3);
    assert_eq!(arrived[0].octets, octets);
    assert_eq!((arrived[0].taken_for.len(), arrived[0].way), (0, Way::Data));
    assert_eq!(
        (arrived[1].octets.as_slice(), arrived[1].from()),
        (&b""[..], "")
    );
    let last = &sink.messages(2)[1];
    assert_eq!(last.octets, b"\r\n.\r\nhalf.\r\n");
    assert_eq!((last.from(), last.way), ("a@b.test", Way::Bdat));
    assert_eq!(last.to(), ["c@d.test", "e@d.test"]);
    assert_eq!(last.taken_for, last.to());
    assert_eq!(Message::parameters(&last.mail), ["RET=HDRS", "SIZE=12"]);
    assert_eq!(Message::parameters(&last.rcpt[0]), ["NOTIFY=NEVER"]);
    let verbs = [
        "EHLO", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "RCPT",
    ];
    let connection = sink.ended(0);
    assert_eq!(
        connection.verbs(),
        [&verbs[..], &["BDAT", "BDAT", "QUIT"]].concat()
    );
}

/// A library that nobody here wrote sends over STARTTLS behind a login.
#[test]
fn smtplib_is_content() {
    let sink = Sink::start(
        Script::smtp()
            .tls(tls())
            .inside(&["AUTH PLAIN", "SIZE 1000"])
            .auth("anna", "secret"),
    );
    let script = r#"
import smtplib, ssl, sys
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
with smtplib.SMTP("127.0.0.1", int(sys.argv[1]), "c.test") as smtp:
    smtp.starttls(context=context)
    smtp.login("anna", "secret")
    smtp.sendmail("a@b.test", ["c@d.test"], b"Subject: x\r\n\r\n.\r\nlast")
"#;
    let port = sink.address().port().to_string();
    run(program("python3").args(["-c", script, &port]), "").succeeded();
    let message = sink.only();
    assert_eq!(message.octets, b"Subject: x\r\n\r\n.\r\nlast\r\n");
    assert!(message.is_inside_tls);
    let connection = sink.ended(0);
    let login = Login {
        mechanism: "PLAIN".to_owned(),
        name: "anna".to_owned(),
        password: "secret".to_owned(),
        is_inside_tls: true,
    };
    assert_eq!(connection.logins, [login]);
    assert!(
        connection.has_said("MAIL FROM:<A@B.TEST> SIZE=21"),
        "{connection:#?}"
    );
}

#[test]
fn what_came_of_tls_is_seen() {
    let pair = Authority::shared().issue(&["client.test"], KeyKind::Ecdsa);
    type Wish = fn(&mut SslConnectorBuilder);
    type Row = (&'static str, fn() -> Tls, Wish, &'static str);
    let rows: [Row; 4] = [
        ("1.3", tls, |_| {}, "TLSv1.3"),
        (
            "1.2",
            || tls().at_most(SslVersion::TLS1_2),
            |_| {},
            "TLSv1.2",
        ),
        (
            "1.0",
            || tls().at_most(SslVersion::TLS1),
            |connector| {
                connector.clear_options(SslOptions::NO_TLSV1);
                connector
                    .set_min_proto_version(Some(SslVersion::TLS1))
                    .unwrap();
                connector.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
            },
            "TLSv1",
        ),
        ("asking", || tls().asking(), |_| {}, "TLSv1.3"),
    ];
    for (name, tls, wish, version) in rows {
        let sink = Sink::start(Script::smtp().tls_at_once(tls()));
        let mut connector = Authority::shared().connector();
        connector.set_certificate(&pair.certificate).unwrap();
        connector.set_private_key(&pair.key).unwrap();
        wish(&mut connector);
        let client = Client::connect(sink.address());
        let configuration = connector.build().configure().unwrap();
        let mut client = client.secure_with(configuration, "mx.test").unwrap();
        client.expect(220);
        client.quit();
        let seen = TlsSeen {
            version: version.to_owned(),
            sni: Some("mx.test".to_owned()),
            is_resumed: false,
            client: (name == "asking").then(|| "client.test".to_owned()),
        };
        assert_eq!(sink.ended(0).tls, Some(seen), "{name}");
    }
}

/// By Python, since handing a session on is `unsafe` in ours.
#[test]
fn a_ticket_resumes_unless_the_hop_is_forgetful() {
    let script = r#"
import socket, ssl, sys
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
session = None
for _ in range(2):
    plain = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    with context.wrap_socket(plain, session=session) as hop:
        hop.recv(100)
        session = hop.session
"#;
    for (tls, resumes) in [(tls().asking(), true), (tls().forgetful(), false)] {
        let sink = Sink::start(Script::smtp().tls_at_once(tls));
        let port = sink.address().port().to_string();
        run(program("python3").args(["-c", script, &port]), "").succeeded();
        let resumed = [0, 1].map(|number| sink.ended(number).tls.unwrap().is_resumed);
        assert_eq!(resumed, [false, resumes]);
    }
}

#[test]
fn a_handshake_that_fails_leaves_its_reason() {
    let rows: [(&str, Script, &str); 4] = [
        (
            "self-signed",
            Script::smtp().tls(Tls::with(&Pair::self_signed(&["mx.test"]))),
            "certificate verify failed",
        ),
        (
            "expired",
            Script::smtp().tls(Tls::with(&Authority::shared().issue_expired(&["mx.test"]))),
            "certificate verify failed",
        ),
        (
            "clear octets",
            Script::smtp().tls(tls()).at(Handshake, "554 never"),
            "packet length too long|wrong version number",
        ),
        (
            "closed",
            Script::smtp().tls(tls()).at(Handshake, Act::Close),
            "unexpected EOF",
        ),
    ];
    for (name, script, reason) in rows {
        let sink = Sink::start(script);
        let mut client = Client::connect(sink.address());
        client.expect(220);
        client.ehlo();
        client.say("STARTTLS").begins("220");
        let connector = Authority::shared().connector().build();
        let failure = client
            .secure_with(connector.configure().unwrap(), "mx.test")
            .err()
            .unwrap();
        assert!(
            reason.split('|').any(|reason| failure.contains(reason)),
            "{name}: {failure}"
        );
        let connection = sink.ended(0);
        assert_eq!(connection.tls, None, "{name}");
        let peer_gave_up = reason.starts_with("certificate");
        assert_eq!(
            connection.handshake_failure.is_some(),
            peer_gave_up,
            "{name}"
        );
    }
}

#[test]
fn lmtp_replies_for_each_recipient_on_either_socket() {
    let script = || {
        Script::lmtp()
            .at(Rcpt.of("no@d.test"), "550 5.1.1 no")
            .at(EndOfData.of("full@d.test"), "452 4.2.2 full")
    };
    let envelope = "MAIL FROM:<a@b.test>\r\nRCPT TO:<full@d.test>\r\nRCPT TO:<no@d.test>\r\n\
                    RCPT TO:<yes@d.test>\r\nDATA\r\n";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lmtp");
    let tcp = Sink::start(script());
    let unix = Sink::start_unix(&path, script());
    assert_eq!(
        unix.target_by("lmtp"),
        format!("lmtp:unix:{}", path.display())
    );
    assert_eq!(tcp.target_by("lmtp"), format!("lmtp:{}", tcp.address()));
    let mut over_tcp = TcpStream::connect(tcp.address()).unwrap();
    let mut over_unix = UnixStream::connect(&path).unwrap();
    let speak = |sink: &Sink, stream: &mut dyn ReadWrite| {
        // Nothing may follow LHLO and DATA before their replies.
        for (commands, end) in [
            ("LHLO c.test\r\n", "STATUSCODES\r\n"),
            (envelope, "ahead\r\n"),
        ] {
            stream.write_all(commands.as_bytes()).unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(end.as_bytes()) {
                let mut octets = [0; 1024];
                let count = stream.read(&mut octets).unwrap();
                heard.extend_from_slice(&octets[..count]);
            }
        }
        stream.write_all(b"x\r\n.\r\nQUIT\r\n").unwrap();
        let mut replies = String::new();
        stream.read_to_string(&mut replies).unwrap();
        assert_eq!(
            replies,
            "452 4.2.2 full\r\n250 2.0.0 message taken\r\n221 2.0.0 bye\r\n"
        );
        assert_eq!(sink.only().taken_for, ["yes@d.test"]);
        assert_eq!(sink.only().to(), ["full@d.test", "yes@d.test"]);
    };
    speak(&tcp, &mut over_tcp);
    speak(&unix, &mut over_unix);
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn gates_silence_sleep_and_counts() {
    let gate = Gate::default();
    let mut sink = Sink::asleep();
    TcpStream::connect(sink.address()).unwrap_err();
    sink.wake(
        Script::smtp()
            .at(EndOfData, Act::Hold(gate.clone()))
            .at(Quit, Act::Silence),
    );
    let mut clients = [0, 1].map(|_| {
        let mut client = Client::connect(sink.address());
        client.expect(220);
        client.ehlo();
        for (line, code) in [
            ("MAIL FROM:<>", 250),
            ("RCPT TO:<a@b.test>", 250),
            ("DATA", 354),
        ] {
            assert_eq!(client.say(line).code, code);
        }
        client
    });
    for client in &mut clients {
        client.send("x\r\n.\r\n");
    }
    let arrived = sink.arrived(2);
    assert!(arrived.iter().all(|message| message.taken_for.is_empty()));
    gate.open();
    for client in &mut clients {
        client.reply().begins("250");
    }
    assert_eq!(sink.messages(2).len(), 2);
    let [mut first, second] = clients;
    first.send("QUIT\r\n");
    drop(second);
    sink.ended(1);
    sink.books(|books| {
        assert_eq!(books.open_max, 2);
        assert!(!books.connections[0].is_over, "nobody answered its QUIT");
    });
    drop(sink);
    first.expect_end();
}

#[test]
fn breaches_are_found() {
    let begin = "EHLO c.test\r\n";
    let rows = [
        (
            "SIZE",
            Script::bare(),
            "MAIL FROM:<> SIZE=1\r\n",
            "SIZE was not listed",
        ),
        (
            "BODY",
            Script::bare(),
            "MAIL FROM:<> BODY=8BITMIME\r\n",
            "8BITMIME was not listed",
        ),
        (
            "binary",
            Script::smtp(),
            "MAIL FROM:<> BODY=BINARYMIME\r\n",
            "BINARYMIME was not listed",
        ),
        (
            "UTF-8",
            Script::bare(),
            "MAIL FROM:<\u{e9}@b.test>\r\n",
            "SMTPUTF8 was not listed",
        ),
        (
            "DSN",
            Script::bare(),
            "MAIL FROM:<>\r\n|RCPT TO:<a@b.test> NOTIFY=NEVER\r\n",
            "DSN was not listed",
        ),
        (
            "BDAT",
            Script::bare(),
            "BDAT 0 LAST\r\n",
            "BDAT that was not listed",
        ),
        (
            "AUTH",
            Script::bare(),
            "AUTH PLAIN AA==\r\n",
            "AUTH that was not listed",
        ),
        (
            "STARTTLS",
            Script::bare(),
            "STARTTLS\r\n",
            "STARTTLS that was not listed",
        ),
        (
            "pipelined",
            Script::bare(),
            "MAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\n",
            "without PIPELINING",
        ),
        (
            "behind DATA",
            Script::smtp(),
            "MAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nDATA\r\nx\r\n.\r\n",
            "octets right behind Data",
        ),
        (
            "nested",
            Script::smtp(),
            "MAIL FROM:<>\r\n|MAIL FROM:<>\r\n",
            "MAIL inside a transaction",
        ),
        ("a verb", Script::smtp(), "EXPN x\r\n", "an unknown command"),
        (
            "dialect",
            Script::smtp(),
            "LHLO c.test\r\n",
            "Lhlo to a hop that speaks Smtp",
        ),
    ];
    for (name, script, lines, breach) in rows {
        let sink = Sink::start(script);
        let mut client = Client::connect(sink.address());
        client.expect(220);
        client.send(begin);
        client.expect(250);
        for part in lines.split('|') {
            client.send(part);
            client.reply();
        }
        client.shutdown_writing();
        sink.ended(0);
        let breaches = sink.forgive();
        assert!(
            breaches.iter().any(|text| text.contains(breach)),
            "{name}: {breaches:?}"
        );
    }
}
