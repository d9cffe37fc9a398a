//! Mail sent on in clear: what the next hop gets, octet for octet, whatever it can and however it answers.

#![cfg(test)]

mod support;

use support::sending::{
    SENDER, Tally, assert_no_report, attempt, greeted, only_report, queued, relay, route, send,
    send_as, submit,
};
use support::sink::{Act, Gate, Message, Point::*, Script, Way, long_reply};
use support::{Sink, TEXT};

/// Every message, to every kind of hop that must get it unchanged.
#[test]
fn octets_arrive_as_they_came_behind_one_received_field() {
    let head = "Subject: x\r\n\r\n";
    let lines = |line: &str, count: usize| (head.to_owned() + &line.repeat(count)).into_bytes();
    let texts: [(&str, Vec<u8>); 11] = [
        ("small", TEXT.to_vec()),
        ("dots", lines(".\r\n..\r\n.x\r\n", 3)),
        ("a dot first of all", b".\r\n.\r\n".to_vec()),
        ("a dot last of all", lines(".\r\n", 1)),
        ("no final newline", lines("x", 1)),
        ("no final newline behind a dot", lines("\r\n.", 1)),
        ("8-bit", lines("\u{e9}\u{20ac}\r\n", 10)),
        ("a line of 998", lines(&("x".repeat(998) + "\r\n"), 2)),
        ("over 64 KiB", lines(&(".".repeat(70) + "\r\n"), 2_000)),
        (
            "in a file of its own",
            lines(&("x".repeat(76) + "\r\n.\r\n"), 8_000),
        ),
        ("empty", Vec::new()),
    ];
    let rows = [
        ("all extensions", Script::smtp()),
        ("no CHUNKING", Script::smtp().without("CHUNKING")),
        ("no PIPELINING", Script::smtp().without("PIPELINING")),
        (
            "neither",
            Script::smtp().without("CHUNKING").without("PIPELINING"),
        ),
        ("8BITMIME alone", Script::bare().with("8BITMIME")),
        ("cut replies", Script::smtp().cut()),
        (
            "replies of 1,000 lines",
            Script::smtp()
                .at(Greeting, long_reply(220, 1_000))
                .at(Mail, long_reply(250, 1_000))
                .at(Rcpt, long_reply(250, 1_000))
                .at(EndOfData, long_reply(250, 1_000)),
        ),
    ];
    std::thread::scope(|scope| {
        for (name, script) in rows {
            let texts = &texts;
            scope.spawn(move || {
                let sink = Sink::start(script);
                let server = relay(&sink.target()).start();
                for (index, (text_name, text)) in texts.iter().enumerate() {
                    let id = send_as(
                        &server,
                        &format!("<{SENDER}> BODY=8BITMIME"),
                        &["<bob@hop.test>"],
                        text,
                    );
                    let message = sink.messages(index + 1).remove(index);
                    let (received, content) = message.parts();
                    let mut expected = text.clone();
                    // Nothing else can end mail data.
                    if message.way == Way::Data && !text.is_empty() && !text.ends_with(b"\r\n") {
                        expected.extend(b"\r\n");
                    }
                    assert!(content == expected, "{name}, {text_name}: {message:?}");
                    for part in ["from client.test", "by mx.test", &format!("id {id}")] {
                        assert!(received.contains(part), "{name}: {received}");
                    }
                }
                server.await_delivery();
                assert_eq!(
                    sink.books(|books| books.messages.len()),
                    texts.len(),
                    "{name}"
                );
                assert_no_report(&server);
                let delivered = Tally::of(server).count("bob@hop.test", "delivered");
                assert_eq!(delivered, texts.len(), "{name}");
            });
        }
    });
}

/// RFC 3030: a small message and its envelope need no reply in between, a hop without CHUNKING gets DATA.
#[test]
fn the_way_of_the_content_follows_what_is_listed() {
    for (script, way) in [
        (Script::smtp(), Way::Bdat),
        (Script::smtp().without("CHUNKING"), Way::Data),
    ] {
        let sink = Sink::start(script);
        let server = relay(&sink.target()).start();
        send(&server, &["bob@hop.test"], TEXT);
        assert_eq!(sink.only().way, way);
    }
}

#[test]
fn the_envelope_is_passed_on() {
    type Row<'r> = (&'r str, &'r str, &'r [&'r str], &'r str, &'r [&'r str]);
    let rows: [Row<'_>; 4] = [
        (
            "a sender",
            "<carol@x.test>",
            &["<bob@hop.test>"],
            "carol@x.test",
            &["bob@hop.test"],
        ),
        (
            "no sender",
            "<>",
            &["<bob@hop.test>"],
            "",
            &["bob@hop.test"],
        ),
        (
            "recipients in order",
            "<carol@x.test>",
            &["<c@hop.test>", "<a@hop.test>", "<B@hop.test>"],
            "carol@x.test",
            &["c@hop.test", "a@hop.test", "B@hop.test"],
        ),
        (
            "a quoted local part",
            "<\"car ol\"@x.test>",
            &["<\"b \\\\ ob\"@hop.test>"],
            "\"car ol\"@x.test",
            &["\"b \\\\ ob\"@hop.test"],
        ),
    ];
    for (name, from, to, from_passed, to_passed) in rows {
        let sink = Sink::start(Script::smtp());
        let server = relay(&sink.target()).start();
        send_as(&server, from, to, TEXT);
        let message = sink.only();
        assert_eq!(message.from(), from_passed, "{name}");
        assert_eq!(message.to(), to_passed, "{name}");
        server.await_delivery();
        assert_eq!(sink.books(|books| books.messages.len()), 1, "{name}");
    }
}

/// Commands go ahead of the replies if the hop can take it (RFC 2920), and never else: the sink would tell.
#[test]
fn a_flight_leaves_whole() {
    for chunking in [true, false] {
        let mut script = Script::smtp()
            .at(Mail, Act::WhenMore)
            .at(Rcpt, Act::WhenMore);
        if !chunking {
            script = script.without("CHUNKING");
        }
        let sink = Sink::start(script);
        let server = relay(&sink.target()).start();
        send(&server, &["a@hop.test", "b@hop.test", "c@hop.test"], TEXT);
        assert_eq!(sink.only().to().len(), 3);
    }
}

#[test]
fn helo_follows_a_refused_ehlo() {
    let sink = Sink::start(Script::smtp().at(Ehlo, "502 5.5.1 what is that?"));
    let server = relay(&sink.target()).start();
    send(&server, &["bob@hop.test"], TEXT);
    assert_eq!(sink.only().way, Way::Data);
    let verbs = sink.connections(1)[0].verbs();
    assert_eq!(verbs[..5], ["EHLO", "HELO", "MAIL", "RCPT", "DATA"]);
}

#[test]
fn the_name_given_is_the_hosts_or_that_of_a_flag() {
    for (flag, name) in [(None, "mx.test"), (Some("out.x.test"), "out.x.test")] {
        let sink = Sink::start(Script::smtp().at(Ehlo, "502 5.5.1 what is that?"));
        let mut setup = relay(&sink.target());
        if let Some(name) = flag {
            setup = setup.flag("--out-helo", name);
        }
        let server = setup.start();
        send(&server, &["bob@hop.test"], TEXT);
        sink.only();
        let commands = &sink.connections(1)[0].commands;
        assert_eq!(
            commands[..2],
            [format!("EHLO {name}"), format!("HELO {name}")]
        );
    }
}

/// What a hop lists decides what of a message it is asked to take; what it cannot take goes back before MAIL.
#[test]
fn what_a_hop_cannot_take_goes_back_and_the_rest_is_asked_plainly() {
    struct Row {
        name: &'static str,
        script: Script,
        from: &'static str,
        to: &'static str,
        text: &'static [u8],
        /// MAIL's parameters but SIZE, or the status of the report.
        outcome: Result<&'static [&'static str], &'static str>,
    }
    const PLAIN: &str = "<alice@home.test>";
    const EIGHT: &str = "<alice@home.test> BODY=8BITMIME";
    const UTF8: &str = "<alice@home.test> SMTPUTF8";
    const BOB: &str = "<bob@hop.test>";
    let row = |name, script, from, to, text, outcome| Row {
        name,
        script,
        from,
        to,
        text,
        outcome,
    };
    let no_utf8 = || Script::smtp().without("SMTPUTF8");
    let no_eight = || Script::smtp().without("8BITMIME").without("SMTPUTF8");
    let rows = [
        row(
            "SIZE without a number",
            Script::smtp(),
            PLAIN,
            BOB,
            TEXT,
            Ok(&[]),
        ),
        row(
            "SIZE 0",
            Script::smtp().with("SIZE 0"),
            PLAIN,
            BOB,
            TEXT,
            Ok(&[]),
        ),
        row(
            "SIZE large enough",
            Script::smtp().with("SIZE 10000"),
            PLAIN,
            BOB,
            TEXT,
            Ok(&[]),
        ),
        row(
            "SIZE too small",
            Script::smtp().with("SIZE 20"),
            PLAIN,
            BOB,
            TEXT,
            Err("5.3.4"),
        ),
        row(
            "8BITMIME",
            Script::smtp(),
            EIGHT,
            BOB,
            b"\xe9\r\n",
            Ok(&["BODY=8BITMIME"]),
        ),
        row(
            "8-bit to a 7-bit hop",
            no_eight(),
            EIGHT,
            BOB,
            b"\r\n\xe9\r\n",
            Err("5.6.3"),
        ),
        row(
            "declared 8-bit, but it is not",
            no_eight(),
            EIGHT,
            BOB,
            TEXT,
            Ok(&[]),
        ),
        row(
            "SMTPUTF8",
            Script::smtp(),
            UTF8,
            "<\u{e9}@hop.test>",
            TEXT,
            Ok(&["SMTPUTF8"]),
        ),
        row(
            "SMTPUTF8 to a hop without",
            no_utf8(),
            UTF8,
            "<\u{e9}@hop.test>",
            TEXT,
            Err("5.6.7"),
        ),
        row(
            "SMTPUTF8 in the header to a hop without",
            no_utf8(),
            UTF8,
            BOB,
            "Subject: \u{e9}\r\n\r\nx\r\n".as_bytes(),
            Err("5.6.7"),
        ),
        row(
            "declared SMTPUTF8, but nothing is",
            no_utf8(),
            UTF8,
            BOB,
            TEXT,
            Ok(&[]),
        ),
    ];
    for row in rows {
        let sink = Sink::start(row.script);
        let server = relay(&sink.target()).start();
        send_as(&server, row.from, &[row.to], row.text);
        match row.outcome {
            Ok(parameters) => {
                let message = sink.only();
                let mut passed = Message::parameters(&message.mail);
                passed.retain(|parameter| !parameter.starts_with("SIZE="));
                assert_eq!(passed, parameters, "{}", row.name);
                assert_no_report(&server);
            }
            Err(status) => {
                let report = only_report(&server);
                let told = &report.recipients[0];
                assert_eq!(told.get("Status"), status, "{}: {report:#?}", row.name);
                assert_eq!(told.get("Action"), "failed", "{}", row.name);
                server.await_delivery();
                let has_said = sink.connections(1)[0].has_said("MAIL");
                assert!(!has_said, "{}", row.name);
            }
        }
    }
}

/// RFC 1870 §6.1: the size is that of all octets, our own field among them.
#[test]
fn the_size_declared_is_that_of_what_comes() {
    let sink = Sink::start(Script::smtp());
    let server = relay(&sink.target()).start();
    send(&server, &["bob@hop.test"], TEXT);
    let message = sink.only();
    let size = format!("SIZE={}", message.octets.len());
    assert!(
        Message::parameters(&message.mail).contains(&size.as_str()),
        "{}",
        message.mail
    );
}

#[test]
fn a_domains_route_decides_and_the_default_takes_the_rest() {
    let [one, two, rest] = [(); 3].map(|()| Sink::start(Script::smtp()));
    let server = relay(&rest.target())
        .also("--route", route("one.test", &one))
        .also("--route", route("two.test", &two))
        .start();
    let to = [
        "a@one.test",
        "b@TWO.test",
        "c@x.test",
        "d@one.test",
        "e@sub.one.test",
    ];
    send(&server, &to, TEXT);
    for (sink, expected) in [
        (&one, vec!["a@one.test", "d@one.test"]),
        (&two, vec!["b@TWO.test"]),
        (&rest, vec!["c@x.test", "e@sub.one.test"]),
    ] {
        let mut taken: Vec<String> = sink.wait("all its recipients", |books| {
            let taken = books
                .taken()
                .into_iter()
                .flat_map(|message| &message.taken_for);
            let taken: Vec<String> = taken.cloned().collect();
            (taken.len() >= expected.len()).then_some(taken)
        });
        taken.sort();
        assert_eq!(taken, expected);
    }
    server.await_delivery();
    let delivered = attempt(&server, "a@one.test", "delivered");
    assert_eq!(delivered.target, one.target());
    assert!(
        delivered.hop.contains(&one.address().port().to_string()),
        "{delivered:?}"
    );
    assert!(delivered.is_clear(), "{delivered:?}");
}

/// A hop that takes connections and says nothing holds up its own mail, and no other message.
#[test]
fn a_silent_hop_delays_no_other_mail() {
    mail_passes_a_silent_hop(&["b@awake.test"]);
}

/// Nor the other recipients of the messages that it holds up.
#[test]
fn a_silent_hop_delays_no_other_recipient() {
    mail_passes_a_silent_hop(&["c@silent.test", "b@awake.test"]);
}

/// While much waits for a silent hop, messages to these mailboxes come to the one that is awake.
fn mail_passes_a_silent_hop(to: &[&str]) {
    let silent = Sink::start(Script::smtp().at(Greeting, Act::Silence));
    let awake = Sink::start(Script::smtp());
    let server = relay(&awake.target())
        .also("--route", route("silent.test", &silent))
        .start();
    for _ in 0..30 {
        send(&server, &["a@silent.test"], TEXT);
    }
    silent.connections(1);
    for _ in 0..30 {
        send(&server, to, TEXT);
    }
    assert_eq!(awake.messages(30).len(), 30);
}

/// Connections are kept and used again, however many messages there are.
#[test]
fn a_hundred_messages_need_few_connections() {
    let sink = Sink::start(Script::smtp());
    let server = relay(&sink.target())
        .flag("--out-connections-per-hop", "2")
        .start();
    let mut client = greeted(server.tcp());
    for _ in 0..100 {
        submit(&mut client, "<alice@home.test>", &["<bob@hop.test>"], TEXT).begins("250");
    }
    assert_eq!(sink.messages(100).len(), 100);
    sink.books(|books| {
        assert!(books.open_max <= 2, "{} at a time", books.open_max);
        assert!(
            books.connections.len() <= 10,
            "{} connections",
            books.connections.len()
        );
    });
}

/// Both limits hold over all shards: what is over them waits its turn.
#[test]
fn connections_are_limited() {
    // Two names of one sink are two targets.
    let rows: [(&str, &str, usize, [&str; 2]); 3] = [
        (
            "one in all",
            "--out-connections",
            1,
            ["<a@one.test>", "<b@two.test>"],
        ),
        (
            "three in all",
            "--out-connections",
            3,
            ["<a@one.test>", "<b@two.test>"],
        ),
        (
            "two to a hop",
            "--out-connections-per-hop",
            2,
            ["<a@one.test>", "<b@one.test>"],
        ),
    ];
    for (name, flag, limit, to) in rows {
        let gate = Gate::default();
        let sink = Sink::start(Script::smtp().at(EndOfData, Act::Hold(gate.clone())));
        let other_name = sink.target_named("smtp", "localhost");
        let server = relay(&sink.target())
            .also("--route", format!("two.test={other_name}"))
            .flag("--shards", "2")
            .flag(flag, limit.to_string())
            .start();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = greeted(server.tcp());
                    for to in to.repeat(2) {
                        submit(&mut client, "<alice@home.test>", &[to], TEXT).begins("250");
                    }
                });
            }
        });
        sink.arrived(limit);
        assert_eq!(queued(&server.scrape()), 16, "{name}");
        gate.open();
        server.await_delivery();
        sink.books(|books| {
            assert_eq!(books.open_max, limit, "{name}");
            assert_eq!(
                (books.messages.len(), books.taken().len()),
                (16, 16),
                "{name}"
            );
        });
    }
}

/// A hop that closes between two messages, as many do when idle, costs no attempt.
#[test]
fn a_connection_that_ended_idle_is_made_anew() {
    let last = || Act::Last("250 2.0.0 taken, and bye".to_owned());
    let sink = Sink::start(Script::smtp().at(EndOfData, last()));
    let server = relay(&sink.target()).flag("--retry-schedule", "1h").start();
    for count in 1..=5 {
        send(&server, &["bob@hop.test"], TEXT);
        assert_eq!(sink.messages(count).len(), count);
        server.await_delivery();
    }
    assert_eq!(sink.connections(5).len(), 5);
    assert_eq!(Tally::of(server).count("bob@hop.test", "deferred"), 0);
}

/// Nothing of a session that is sent on is left when the drain is over, and QUIT was said.
#[test]
fn a_drain_takes_leave_of_the_hops() {
    let sink = Sink::start(Script::smtp());
    let server = relay(&sink.target()).start();
    send(&server, &["bob@hop.test"], TEXT);
    sink.only();
    server.await_delivery();
    server.stop();
    assert_eq!(
        sink.ended(0).verbs().last().map(String::as_str),
        Some("QUIT")
    );
}

/// Ourselves as a hop: what was sent on arrives as it would from anybody.
#[test]
fn two_servers_in_a_row_keep_the_message() {
    let last = support::Setup::new().start();
    let first = relay(&format!("smtp:{}", last.tcp())).start();
    let text = b"Subject: x\r\n\r\n.\r\n\xe9\r\n";
    send_as(
        &first,
        "<alice@home.test> BODY=8BITMIME",
        &["<u@example.test>"],
        text,
    );
    first.await_delivery();
    let delivered = last.maildir("example.test", "u").only();
    let parts = delivered.parts();
    assert_eq!(parts.return_path, "Return-Path: <alice@home.test>");
    let (ours, behind) = parts.message.split_at(b"Received: ".len());
    assert_eq!(ours, b"Received: ");
    assert!(behind.ends_with(b"\nSubject: x\n\n.\n\xe9\n"));
}
