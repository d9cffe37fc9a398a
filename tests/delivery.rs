//! What lies in the Maildir after a 250, octet for octet, and what does not after a refusal.

#![cfg(test)]

mod support;

use std::fs;
use std::path::PathBuf;

use support::maildir::files;
use support::programs::{program, run};
use support::server::{Server, Setup};
use support::{Client, Delivered, Maildir};

const TEXT: &[u8] = b"From: a@b.test\r\nSubject: hello\r\n\r\nFirst line\r\nsecond line\r\n";

/// A text as a Maildir has it.
fn with_lf(text: &[u8]) -> Vec<u8> {
    String::from_utf8(text.to_vec())
        .unwrap()
        .replace("\r\n", "\n")
        .into_bytes()
}

#[test]
fn layout_modes_and_trace_header() {
    let server = Setup::new().start();
    let mut client = server.client();
    client.ehlo();
    let reply = client.deliver("a@b.test", &["u@example.test"], TEXT);
    reply.begins("250 2.0.0 Ok: queued as ");
    let queue_id = reply.first().rsplit(' ').next().unwrap().to_owned();
    client.quit();

    let maildir = server.maildir("example.test", "u");
    maildir.check();
    let delivered = maildir.only();
    let parts = delivered.parts();
    assert_eq!(parts.return_path, "Return-Path: <a@b.test>");
    assert!(
        parts.received.starts_with("Received: from client.test ("),
        "{}",
        parts.received
    );
    assert!(parts.received.contains("127.0.0.1"), "{}", parts.received);
    assert!(parts.received.contains("by mx.test"), "{}", parts.received);
    assert!(
        parts.received.contains(&format!("id {queue_id}")),
        "{}",
        parts.received
    );
    assert!(
        parts.received.contains("for <u@example.test>;"),
        "{}",
        parts.received
    );
    assert_eq!(parts.with(), "ESMTP");
    assert_eq!(parts.message, with_lf(TEXT));
    // RFC 5322 §2.1.1 would have lines of 78, and must have them of 998 at most.
    assert!(
        parts.received.lines().all(|line| line.len() <= 998),
        "{}",
        parts.received
    );

    // The directories above are private too.
    use std::os::unix::fs::PermissionsExt;
    for path in ["data", "mail", "mail/example.test", "mail/example.test/u"] {
        let mode = fs::metadata(server.path(path))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700, "{path}");
    }
}

/// RFC 3848 and RFC 6531 §4.3: the keyword tells how the message came.
#[test]
fn the_with_keyword_tells_how_the_message_came() {
    let server = Setup::new()
        .users(&[("alice", "wonderland")])
        .flag("--tcp-auth", "yes")
        .flag("--tls-auth", "yes")
        .start();
    let auth = "AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ=";
    let hello = |mut client: Client| {
        client.ehlo();
        client
    };
    let authenticated = |mut client: Client| {
        client.ehlo();
        client.say(auth).begins("235 2.7.0");
        client
    };
    let mut helo = server.client();
    helo.say("HELO client.test").begins("250");
    for (name, utf8, mut client) in [
        ("SMTP", false, helo),
        ("ESMTP", false, hello(server.client())),
        ("ESMTPS", false, hello(server.client().starttls())),
        ("ESMTPS", false, hello(server.tls_client())),
        ("ESMTPA", false, authenticated(server.client())),
        ("ESMTPSA", false, authenticated(server.client().starttls())),
        ("ESMTPSA", false, authenticated(server.tls_client())),
        ("UTF8SMTP", true, hello(server.client())),
        ("UTF8SMTPS", true, hello(server.tls_client())),
        ("UTF8SMTPA", true, authenticated(server.client())),
        ("UTF8SMTPSA", true, authenticated(server.tls_client())),
    ] {
        let local_part = format!("{}{}", name.to_lowercase(), fastrand::u32(..));
        let parameter = if utf8 { " SMTPUTF8" } else { "" };
        client
            .say(&format!("MAIL FROM:<a@b.test>{parameter}"))
            .begins("250 2.1.0");
        client
            .say(&format!("RCPT TO:<{local_part}@example.test>"))
            .begins("250 2.1.5");
        client.say("DATA").begins("354");
        client.send("Subject: x\r\n\r\nx\r\n.\r\n");
        client.reply().begins("250 2.0.0");
        client.quit();
        let delivered = server.maildir("example.test", &local_part).only();
        let parts = delivered.parts();
        assert_eq!(parts.with(), name, "{}", parts.received);
        let secured = name.trim_start_matches("UTF8").contains("PS");
        assert_eq!(
            parts.received.contains("TLSv1."),
            secured,
            "{name}: {}",
            parts.received
        );
        // A credential's name is nobody else's business.
        assert!(!parts.received.contains("alice"), "{}", parts.received);
    }
}

#[test]
fn one_copy_a_recipient_and_for_only_when_there_is_one() {
    let server = Setup::new().start();
    let mut client = server.client();
    client.ehlo();
    let to = ["one@example.test", "two@example.test", "one@mx.test"];
    client.deliver("a@b.test", &to, TEXT).begins("250 2.0.0");
    client.quit();
    for (domain, local_part) in [
        ("example.test", "one"),
        ("example.test", "two"),
        ("mx.test", "one"),
    ] {
        let maildir = server.maildir(domain, local_part);
        maildir.check();
        let delivered = maildir.only();
        let parts = delivered.parts();
        // RFC 5321 §7.2: a `for` with several recipients would show blind ones.
        assert!(!parts.received.contains("for <"), "{}", parts.received);
        assert_eq!(parts.message, with_lf(TEXT));
    }
}

#[test]
fn mailboxes_become_file_names() {
    let server = Setup::new().start();
    let mut client = server.client();
    client.ehlo();
    for (mailbox, domain, directory) in [
        ("<Upper.Case@EXAMPLE.Test>", "example.test", "upper.case"),
        ("<a/b@example.test>", "example.test", "a%2Fb"),
        ("<\"quoted\"@example.test>", "example.test", "quoted"),
        ("<\"sp ace\"@example.test>", "example.test", "sp%20ace"),
        ("<postmaster>", "example.test", "postmaster"),
        ("<Postmaster@mx.test>", "mx.test", "postmaster"),
        ("<plus+tag@example.test>", "example.test", "plus+tag"),
    ] {
        client.say("MAIL FROM:<>").begins("250 2.1.0");
        client
            .say(&format!("RCPT TO:{mailbox}"))
            .begins("250 2.1.5");
        client.say("DATA").begins("354");
        client.send("Subject: x\r\n\r\nx\r\n.\r\n");
        client.reply().begins("250 2.0.0");
        let maildir = if directory == "sp%20ace" {
            // Whether a space counts as unsafe is the server's choice; where it lies is not.
            let plain = server.maildir(domain, "sp ace");
            if plain.root().exists() {
                plain
            } else {
                server.maildir(domain, directory)
            }
        } else {
            server.maildir(domain, directory)
        };
        maildir.check();
        assert_eq!(maildir.only().parts().return_path, "Return-Path: <>");
    }
    client.quit();
}

/// No local part leaves its domain's directory, or meets another's.
#[test]
fn local_parts_cannot_escape() {
    let server = Setup::new().start();
    let mut client = server.client();
    client.ehlo();
    let mut accepted = 0;
    for local_part in [
        "\"..\"",
        "\".\"",
        "\"../../escape\"",
        "\"/etc/x\"",
        "\"a/../b\"",
        "\"tmp\"",
        "\"%2F\"",
        "\"new/x\"",
    ] {
        client.say("MAIL FROM:<>").begins("250 2.1.0");
        let reply = client.say(&format!("RCPT TO:<{local_part}@example.test>"));
        if reply.code == 250 {
            client.say("DATA").begins("354");
            client.send("Subject: x\r\n\r\nx\r\n.\r\n");
            client.reply().begins("250 2.0.0");
            accepted += 1;
        } else {
            client.say("RSET").begins("250 2.0.0");
        }
    }
    client.quit();
    server.await_delivery();
    assert_eq!(
        files(&server.path("mail")),
        [server.path("mail/example.test")]
    );
    let directories = files(&server.path("mail/example.test"));
    assert_eq!(directories.len(), accepted, "{directories:?}");
    for directory in directories {
        Maildir::new(directory.clone()).check();
        assert_eq!(Maildir::new(directory).messages().len(), 1);
    }
}

/// Octets for octets, by DATA with dots stuffed.
#[test]
fn data_octets_are_unchanged() {
    let server = Setup::new().start();
    let mut client = server.client();
    client.ehlo();
    let every_octet: Vec<u8> = (0..=255)
        .filter(|octet| *octet != b'\r' && *octet != b'\n')
        .collect();
    let mut long = vec![b'x'; 300_000];
    long.extend_from_slice(b"\r\n");
    let mut random = Vec::new();
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..2000 {
        let line: Vec<u8> = (0..rng.usize(..200)).map(|_| rng.u8(b'-'..b'1')).collect();
        random.extend_from_slice(&line);
        random.extend_from_slice(b"\r\n");
    }
    for text in [
        b"Subject: dots\r\n\r\n.\r\n..\r\n...\r\n.x\r\nx.\r\n".to_vec(),
        [b"Subject: octets\r\n\r\n".as_slice(), &every_octet, b"\r\n"].concat(),
        [b"Subject: long\r\n\r\n".as_slice(), &long].concat(),
        [b"Subject: random\r\n\r\n".as_slice(), &random].concat(),
        b"Subject: only a header\r\n".to_vec(),
        b"\r\nno header\r\n".to_vec(),
        b"\r\n\r\n\r\n".to_vec(),
    ] {
        let user = format!("u{}", fastrand::u64(..));
        client
            .say("MAIL FROM:<a@b.test> BODY=8BITMIME")
            .begins("250 2.1.0");
        client
            .say(&format!("RCPT TO:<{user}@example.test>"))
            .begins("250 2.1.5");
        client.say("DATA").begins("354");
        client.send(stuffed(&text));
        client.send(b".\r\n");
        client.reply().begins("250 2.0.0");
        let delivered = server.maildir("example.test", &user).only();
        assert_message(&delivered, &replaced(&text));
    }
    client.quit();
}

/// RFC 5321 §4.5.2: a line that begins with a dot gets one more.
fn stuffed(text: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::new();
    for line in text.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    stuffed
}

/// CR LF as LF, everything else as it is.
fn replaced(text: &[u8]) -> Vec<u8> {
    let mut lines = Vec::new();
    for (index, octet) in text.iter().enumerate() {
        if *octet != b'\r' || text.get(index + 1) != Some(&b'\n') {
            lines.push(*octet);
        }
    }
    lines
}

#[track_caller]
fn assert_message(delivered: &Delivered, expected: &[u8]) {
    let octets = &delivered.octets;
    assert!(
        octets.ends_with(expected),
        "{} octets lie there, these were expected at their end: {}",
        octets.len(),
        String::from_utf8_lossy(&expected[..expected.len().min(400)])
    );
    // Before it: Return-Path and Received, no third field and no empty line.
    let trace = &octets[..octets.len() - expected.len()];
    let trace = String::from_utf8(trace.to_vec()).unwrap();
    let fields = trace
        .lines()
        .filter(|line| !line.starts_with(['\t', ' ']))
        .count();
    assert_eq!(fields, 2, "{trace}");
}

#[test]
fn bdat_octets_are_unchanged() {
    let server = Setup::new().start();
    let mut client = server.client();
    let reply = client.ehlo();
    assert!(
        reply.lists("CHUNKING") && reply.lists("BINARYMIME"),
        "{reply:?}"
    );
    client
        .say("MAIL FROM:<a@b.test> BODY=BINARYMIME")
        .begins("250 2.1.0");
    client.say("RCPT TO:<u@example.test>").begins("250 2.1.5");
    let text =
        b"Subject: chunks\r\n\r\n.\r\n..\r\nlone \n and \r here\r\n\x00\xff\r\n.\r\nno line end";
    let (first, second) = text.split_at(21);
    client.send(format!("BDAT {}\r\n", first.len()));
    client.send(first);
    client.reply().begins("250 2.0.0");
    // RFC 3030 §4.2 and RFC 2920: chunks may be pipelined, the last one empty.
    client.send(
        [
            format!("BDAT {}\r\n", second.len()).as_bytes(),
            second,
            b"BDAT 0 LAST\r\n",
        ]
        .concat(),
    );
    client.reply().begins("250 2.0.0");
    client.reply().begins("250 2.0.0 Ok: queued as ");
    client.quit();
    let delivered = server.maildir("example.test", "u").only();
    assert_message(&delivered, &replaced(text));
}

#[test]
fn stray_newlines_by_mode_and_never_an_end() {
    let smuggled =
        b"Subject: s\r\n\r\nlone\nLF\rCR\n.\nMAIL FROM:<evil@b.test>\r.\r\n..\n\r\n\n.\r\nend\r\n";
    for mode in ["normalize", "accept", "reject"] {
        let server = Setup::new().flag("--stray-newline", mode).start();
        let mut client = server.client();
        client.ehlo();
        let reply = client.deliver("a@b.test", &["u@example.test"], smuggled);
        match mode {
            "reject" => reply.begins("550 5.6.0"),
            _ => reply.begins("250 2.0.0"),
        }
        // The dialogue is in step: nothing of the text was taken for a command.
        client.say("NOOP").begins("250 2.0.0");
        client.quit();
        let maildir = server.maildir("example.test", "u");
        match mode {
            "normalize" => {
                let expected =
                    b"Subject: s\n\nlone\nLF\nCR\n.\nMAIL FROM:<evil@b.test>\n.\n.\n\n\n.\nend\n";
                assert_message(&maildir.only(), expected);
            }
            "accept" => assert_eq!(
                maildir
                    .only()
                    .octets
                    .iter()
                    .filter(|octet| **octet == b'\r')
                    .count(),
                smuggled.iter().filter(|octet| **octet == b'\r').count()
                    - smuggled.windows(2).filter(|pair| pair == b"\r\n").count(),
                "lone CRs are kept, those of line ends are not"
            ),
            _ => assert!(maildir.messages().is_empty()),
        }
    }
}

#[test]
fn a_message_over_the_limit_is_read_to_its_end() {
    let server = Setup::new().flag("--max-message-bytes", "64k").start();
    let mut client = server.client();
    assert!(client.ehlo().lists("SIZE 65536"));
    client
        .say("MAIL FROM:<a@b.test> SIZE=65537")
        .begins("552 5.3.4");
    client
        .say("MAIL FROM:<a@b.test> SIZE=65536")
        .begins("250 2.1.0");
    client.say("RSET").begins("250 2.0.0");
    let too_large = [
        b"Subject: x\r\n\r\n".as_slice(),
        &b"0123456789abcd\r\n".repeat(5000),
    ]
    .concat();
    client
        .deliver("a@b.test", &["u@example.test"], &too_large)
        .begins("552 5.3.4");
    client.say("MAIL FROM:<a@b.test>").begins("250 2.1.0");
    client.say("RCPT TO:<u@example.test>").begins("250 2.1.5");
    client.send(format!("BDAT {}\r\n", too_large.len()));
    client.send(&too_large);
    client.reply().begins("552 5.3.4");
    client.say("RSET").begins("250 2.0.0");
    // To the octet: what the limit says still fits, one more does not.
    let exact = [
        b"Subject: x\r\n\r\n".as_slice(),
        &vec![b'x'; 65536 - 16],
        b"\r\n",
    ]
    .concat();
    assert_eq!(exact.len(), 65536);
    client
        .deliver("a@b.test", &["u@example.test"], &exact)
        .begins("250 2.0.0");
    let one_more = [
        b"Subject: xx\r\n\r\n".as_slice(),
        &vec![b'x'; 65536 - 16],
        b"\r\n",
    ]
    .concat();
    client
        .deliver("a@b.test", &["u@example.test"], &one_more)
        .begins("552 5.3.4");
    client.quit();
    assert_eq!(server.maildir("example.test", "u").messages().len(), 1);
}

#[test]
fn a_loop_is_detected() {
    let server = Setup::new().start();
    let mut client = server.client();
    client.ehlo();
    let hops = |count: usize| {
        let mut text = "Received: from a by b; x\r\n".repeat(count);
        text += "Subject: x\r\n\r\nReceived: in the body does not count\r\n";
        text.into_bytes()
    };
    client
        .deliver("a@b.test", &["u@example.test"], &hops(99))
        .begins("250 2.0.0");
    client
        .deliver("a@b.test", &["u@example.test"], &hops(101))
        .begins("554 5.4.6");
    client.quit();
    assert_eq!(server.maildir("example.test", "u").messages().len(), 1);
}

#[test]
fn unknown_recipients_are_refused_and_postmaster_never() {
    let setup = Setup::new();
    let path = setup.path("recipients");
    fs::write(&path, "# known\nknown@example.test\n").unwrap();
    let server = setup.flag("--recipients", path.to_str().unwrap()).start();
    let mut client = server.client();
    client.ehlo();
    client.say("MAIL FROM:<a@b.test>").begins("250 2.1.0");
    client
        .say("RCPT TO:<known@example.test>")
        .begins("250 2.1.5");
    client
        .say("RCPT TO:<KNOWN@EXAMPLE.TEST>")
        .begins("250 2.1.5");
    client
        .say("RCPT TO:<unknown@example.test>")
        .begins("550 5.1.1");
    client.say("RCPT TO:<known@mx.test>").begins("550 5.1.1");
    client.say("RCPT TO:<postmaster>").begins("250 2.1.5");
    client
        .say("RCPT TO:<postmaster@mx.test>")
        .begins("250 2.1.5");
    client.quit();
}

#[test]
fn recipients_are_limited() {
    let server = Setup::new().flag("--max-recipients", "3").start();
    let mut client = server.client();
    assert!(client.ehlo().lists("LIMITS RCPTMAX=3"));
    client.say("MAIL FROM:<a@b.test>").begins("250 2.1.0");
    for index in 0..3 {
        client
            .say(&format!("RCPT TO:<u{index}@example.test>"))
            .begins("250 2.1.5");
    }
    client.say("RCPT TO:<u3@example.test>").begins("452 4.5.3");
    client.say("DATA").begins("354");
    client.send("x\r\n.\r\n");
    client.reply().begins("250 2.0.0");
    client.quit();
    assert!(server.maildir("example.test", "u3").messages().is_empty());
}

#[test]
fn routes_and_discard() {
    let setup = Setup::new();
    let elsewhere: PathBuf = setup.path("elsewhere");
    let server = setup
        .also(
            "--route",
            format!("mx.test=maildir:{}", elsewhere.display()),
        )
        .also("--local-domain", "gone.test")
        .also("--route", "gone.test=discard")
        .start();
    let mut client = server.client();
    client.ehlo();
    let to = ["u@example.test", "u@mx.test", "u@gone.test"];
    client.deliver("a@b.test", &to, TEXT).begins("250 2.0.0");
    client.quit();
    assert_eq!(server.maildir("example.test", "u").messages().len(), 1);
    assert_eq!(
        Maildir::new(elsewhere.join("mx.test/u")).messages().len(),
        1
    );
    assert_eq!(
        files(&server.path("mail")),
        [server.path("mail/example.test")]
    );
    assert_eq!(files(&elsewhere), [elsewhere.join("mx.test")]);
}

#[test]
fn durability_none_delivers_all_the_same() {
    let server = Setup::new().flag("--durability", "none").start();
    send(&server, 20);
    assert_eq!(server.maildir("example.test", "u").messages().len(), 20);
}

/// A 250 is kept by a process that is gone the moment after: what it had not delivered, the next one delivers.
#[test]
fn acknowledged_messages_outlive_sigkill() {
    let server = Setup::new().flag("--shards", "2").start();
    send(&server, 50);
    let server = server.kill().start();
    let maildir = server.maildir("example.test", "u");
    assert_eq!(maildir.messages().len(), 50);
    maildir.check();
}

/// Sends messages in one session, pipelined, and expects a 250 for each.
fn send(server: &Server, count: usize) {
    let mut client = server.client();
    client.ehlo();
    for _ in 0..count {
        client.send("MAIL FROM:<a@b.test>\r\nRCPT TO:<u@example.test>\r\nDATA\r\n");
        for code in [250, 250, 354] {
            client.expect(code);
        }
        client.send(TEXT);
        client.send(".\r\n");
        client.expect(250);
    }
    client.quit();
}

#[test]
fn queue_ids_and_file_names_are_unique_over_shards() {
    let server = Setup::new()
        .flag("--shards", "2")
        .flag("--durability", "none")
        .start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| send(&server, 25));
        }
    });
    let messages = server.maildir("example.test", "u").messages();
    assert_eq!(messages.len(), 200);
    let mut ids: Vec<String> = messages
        .iter()
        .map(|message| {
            let received = message.parts().received;
            received
                .split(" id ")
                .nth(1)
                .unwrap()
                .split_whitespace()
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200);
}

/// The longest host name that `--hostname` takes leaves room for the file's name in a Maildir.
#[test]
fn a_host_with_the_longest_name_delivers() {
    let label = "a".repeat(63);
    let hostname = format!("mx1.{label}.{label}.{label}.{}", "b".repeat(52));
    assert_eq!(hostname.len(), 248);
    let server = Setup::new().flag("--hostname", &hostname).start();
    send(&server, 1);
    let maildir = server.maildir("example.test", "u");
    maildir.check();
    let delivered = maildir.only();
    let name = delivered.path.file_name().unwrap().to_str().unwrap();
    assert!(name.len() < 200 && name.contains(".mx1.aaa"), "{name}");
    let received = delivered.parts().received;
    assert!(received.contains(&hostname), "{received}");
}

/// `ringpost serve` and nothing else, in a network namespace of its own because its ports are fixed:
/// the contract's embedded default, end to end.
#[test]
fn the_embedded_default_takes_mail_on_both_ports() {
    let probe = run(program("unshare").args(["-rn", "true"]), "");
    if probe.code != Some(0) {
        eprintln!(
            "skipped: no network namespace to be had here: {}",
            probe.err.trim()
        );
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = r#"
        set -eu
        ip link set lo up
        "$0" serve 2>log & server=$!
        trap 'kill -9 $server 2>/dev/null || true' EXIT
        for _ in $(seq 600); do
            grep -q ready log && break
            kill -0 $server || { cat log; exit 1; }
            sleep 0.05
        done
        grep -q ready log
        send() { swaks --from a@b.test --silent 2 --ehlo client.test "$@"; }
        send --server 127.0.0.1:2525 --to clear@localhost
        send --server 127.0.0.1:2525 --to starttls@localhost --tls
        send --server 127.0.0.1:4650 --to tls@localhost --tlsc
        kill -TERM $server
        trap - EXIT
        wait $server
    "#;
    let ended = run(
        program("unshare")
            .args(["-rn", "bash", "-c", script, support::server::BINARY])
            .current_dir(directory.path()),
        "",
    );
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    for local_part in ["clear", "starttls", "tls"] {
        let root = directory
            .path()
            .join("ringpost-data/maildir/localhost")
            .join(local_part);
        let maildir = Maildir::new(root);
        maildir.check();
        maildir.only();
    }
}
