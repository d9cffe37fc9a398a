//! `ringpost check` from outside: it says what would run, and finds the faults that `serve` finds.

#![cfg(test)]

#[path = "support/command_line.rs"]
mod command_line;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use command_line::{Run, assert_lines};

#[test]
fn check_prints_what_would_run_and_makes_nothing() {
    let run = Run::new();
    let summary = run
        .run(&["check", "--ticket-keys", "keys", "--hostname", "mx.test"])
        .fine();
    assert_lines(
        &summary,
        &[
            "  TCP port        127.0.0.1:2525",
            "  TLS port        127.0.0.1:4650",
            "  certificate     for development, made at the start in ./ringpost-data/certs",
            "  groups          X25519MLKEM768:X25519:P-256:P-384",
            "  tickets         1, good for 12h, keys in keys, made at the start",
            "  from anyone     to localhost mx.test",
            "  message         50M octets, 1000 recipients",
            "  deliver         everything to maildir:./ringpost-data/maildir",
        ],
    );
    assert_lines(
        &summary,
        &[
            "  retries         after 1m, 5m, 15m, 1h, 4h, the last goes on",
            "  given up        after 5d, its sender told after 4h",
            "  next hops       none",
        ],
    );
    assert!(!summary.contains("EHLO"), "{summary}");
    assert!(!summary.contains("Warnings"), "{summary}");
    assert_eq!(fs::read_dir(run.directory.path()).unwrap().count(), 0);
}

#[test]
fn check_tells_how_mail_is_sent_on() {
    let run = Run::new();
    run.run(&["dev-certs"]).fine();
    let password = run.write("password", "correct horse\nbattery staple\n");
    fs::set_permissions(password, PermissionsExt::from_mode(0o600)).unwrap();
    let summary = run
        .run(&[
            "check",
            "--hostname=mx.test",
            "--deliver=smtp:Relay.test:587",
            "--route=a.test=lmtp:[::1]:24",
            "--out-auth=relay.test=us@mx.test:password",
            "--durability=next-hop",
        ])
        .fine();
    assert_lines(
        &summary,
        &[
            "  250 means       the next hop has it, or on stable storage",
            "  deliver         a.test to lmtp:[::1]:24",
            "  deliver         everything else to smtp:relay.test:587",
            "  EHLO            mx.test",
            "  STARTTLS        where it is offered, in clear elsewhere",
            "  next hop        need not prove its name, the system's CAs",
            "  login           relay.test as us@mx.test, password in password",
            "  connections     256, 20 to one next hop",
            "  DNS             the system's",
            "  senders wait    10s for the next hop, then its copy is on disk",
            "  --out-auth: without --out-verify yes, who pretends to be the next hop gets the password",
        ],
    );
    assert!(!summary.contains("horse"), "{summary}");

    let summary = run
        .run(&[
            "check",
            "--hostname=mx.test",
            "--deliver=mx",
            "--out-helo=out.test",
            "--out-tls=required",
            "--out-ca=certs/ca.crt",
            "--dns=127.0.0.1:53",
            "--delay-notice=never",
        ])
        .fine();
    assert_lines(
        &summary,
        &[
            "  given up        after 5d, its sender not told before",
            "  EHLO            out.test",
            "  STARTTLS        required, without it mail waits",
            "  next hop        must prove its name, CAs in certs/ca.crt",
            "  DNS             127.0.0.1:53",
        ],
    );
    for absent in ["login", "our certificate", "senders wait", "Warnings"] {
        assert!(!summary.contains(absent), "{absent}: {summary}");
    }

    let summary = run
        .run(&[
            "check",
            "--hostname=mx.test",
            "--deliver=mx",
            "--out-clear-after-tls-failure=yes",
            "--out-cert=certs/client.crt",
            "--out-key=certs/client.key",
        ])
        .fine();
    assert_lines(
        &summary,
        &[
            "  handshake fails a new connection, in clear",
            "  next hop        need not prove its name, the system's CAs",
            "  our certificate certs/client.crt, if asked for",
        ],
    );

    let summary = run.run(&["check", "--deliver=mx", "--out-tls=off"]).fine();
    assert_lines(&summary, &["  STARTTLS        never asked for"]);
}

#[test]
fn check_warns_of_what_is_hardly_meant() {
    let run = Run::new();
    run.run(&["dev-certs"]).fine();
    let pair = [
        "--cert",
        "certs/server-rsa.crt",
        "--key",
        "certs/server-rsa.key",
    ];
    let mut arguments = vec!["check", "--hostname", "other.test", "--tls-auth", "yes"];
    arguments.extend(pair);
    let summary = run.run(&arguments).fine();
    assert_lines(
        &summary,
        &[
            "Warnings",
            "  --tls-auth: without --users every login fails",
            "  --cert: no certificate is for the host name other.test",
        ],
    );
    assert!(
        summary.contains("(RSA, localhost mx.test, until "),
        "{summary}"
    );

    run.write("password", "x\n");
    for name in ["password", "certs/client.key"] {
        fs::set_permissions(run.path(name), PermissionsExt::from_mode(0o644)).unwrap();
    }
    let _socket = UnixListener::bind(run.path("socket")).unwrap();
    let summary = run
        .run(&[
            "check",
            "--hostname=mx.test",
            "--deliver=mx",
            "--route=a.test=lmtp:unix:password",
            "--route=b.test=lmtp:unix:none",
            "--route=c.test=lmtp:unix:socket",
            "--out-verify=yes",
            "--out-ca=certs/ca.crt",
            "--out-cert=certs/client.crt",
            "--out-key=certs/client.key",
            "--out-auth=a.test=us:password",
        ])
        .fine();
    let (_, warnings) = summary.split_once("Warnings\n").expect("warnings");
    let warnings: Vec<&str> = warnings.lines().collect();
    let expected = [
        "  --out-key: certs/client.key can be read by everybody on this machine",
        "  --out-auth: password can be read by everybody on this machine",
        "  --route: password is no socket now, mail waits for one",
        "  --route: none is no socket now, mail waits for one",
    ];
    assert_eq!(warnings, expected, "{summary}");
}

#[test]
fn check_and_serve_name_the_same_faults() {
    let run = Run::new();
    run.run(&["dev-certs"]).fine();
    run.write("file", "not a directory\n");
    run.write("junk", "junk\n");
    run.write("bad-users", "# staff\nanna:secret\n");
    run.write("bad-recipients", "anna@mx.test\nno address\n");
    fs::set_permissions(
        run.write("open-keys", "x\n"),
        PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    run.write("empty", "");
    run.write("empty-line", "\nsecret\n");
    run.write("nul", "a\0b\n");
    fs::write(run.path("latin"), b"caf\xe9\n").unwrap();
    let (cert, key) = ("certs/server-rsa.crt", "certs/server-rsa.key");
    let rows: &[(&str, &[&str], &str)] = &[
        (
            "no certificate",
            &["--cert", "none.crt", "--key", key],
            "--cert: cannot read certificate none.crt",
        ),
        (
            "no key",
            &["--cert", cert, "--key", "none.key"],
            "--key: cannot read key none.key",
        ),
        (
            "not a certificate",
            &["--cert", "junk", "--key", key],
            "--cert: junk: no certificate",
        ),
        (
            "not a key",
            &["--cert", cert, "--key", "junk"],
            "--key: junk: no key",
        ),
        (
            "another certificate's key",
            &["--cert", cert, "--key", "certs/server-ecdsa.key"],
            "--key: the key certs/server-ecdsa.key does not belong",
        ),
        (
            "a certificate alone",
            &["--cert", cert],
            "--cert: certs/server-rsa.crt has no --key",
        ),
        (
            "a key alone",
            &["--key", key],
            "--key: certs/server-rsa.key has no --cert",
        ),
        (
            "no users",
            &["--users", "none"],
            "--users: cannot read users none",
        ),
        (
            "bad users",
            &["--users", "bad-users"],
            "--users: bad-users line 2: not a password hash",
        ),
        (
            "no recipients",
            &["--recipients", "none"],
            "--recipients: cannot read recipients none",
        ),
        (
            "bad recipients",
            &["--recipients", "bad-recipients"],
            "--recipients: bad-recipients line 2: ",
        ),
        (
            "ticket keys that others can read",
            &["--ticket-keys", "open-keys"],
            "--ticket-keys: ticket keys open-keys may be read by others",
        ),
        ("no CAs", &["--client-ca", "none"], "--client-ca: none: "),
        ("not CAs", &["--client-ca", "junk"], "--client-ca: junk: "),
        (
            "require without CAs",
            &["--client-cert", "require"],
            "--client-cert: require needs",
        ),
        (
            "an unknown group",
            &["--tls-groups", "X25519:nope"],
            "--tls-groups: X25519:nope: ",
        ),
        (
            "an unknown cipher",
            &["--tls-ciphers", "nope"],
            "--tls-ciphers: nope: ",
        ),
        (
            "a file for the data directory",
            &["--data-dir", "file"],
            "--data-dir: file is not a dir",
        ),
        (
            "a file for a Maildir",
            &["--deliver", "maildir:file"],
            "--deliver: file is not a dir",
        ),
        (
            "a file for a route's Maildir",
            &["--route", "a.test=maildir:file"],
            "--route: file is not a directory",
        ),
        (
            "nobody's name",
            &["--user", "no-such-user"],
            "--user: no-such-user: no such user",
        ),
        (
            "no group's name",
            &["--group", "no-such-group"],
            "--group: no-such-group: no such group",
        ),
        (
            "a port twice",
            &["--listen", "127.0.0.1:1", "--listen-tls", "127.0.0.1:1"],
            "--listen-tls: 127.0.0.1:1 is already taken by --listen",
        ),
        (
            "no password",
            &["--deliver=mx", "--out-auth=a.test=us:none"],
            "--out-auth: cannot read password none: ",
        ),
        (
            "a password of nothing",
            &["--deliver=mx", "--out-auth=a.test=us:empty"],
            "--out-auth: empty: the first line is empty",
        ),
        (
            "a password on the second line",
            &["--deliver=mx", "--out-auth=a.test=us:empty-line"],
            "--out-auth: empty-line: the first line is empty",
        ),
        (
            "a NUL in the password",
            &["--deliver=mx", "--out-auth=a.test=us:nul"],
            "--out-auth: nul: a password cannot hold NUL",
        ),
        (
            "a password in another encoding",
            &["--deliver=mx", "--out-auth=a.test=us:latin"],
            "--out-auth: cannot read password latin: ",
        ),
        (
            "a certificate for next hops alone",
            &["--deliver=mx", "--out-cert=none"],
            "--out-cert: none has no --out-key",
        ),
        (
            "a circle",
            &["--listen=127.0.0.1:25", "--deliver=smtp:127.0.0.1:25"],
            "--deliver: smtp:127.0.0.1:25 is this server itself",
        ),
    ];
    for (name, flags, beginning) in rows {
        let lines = ["check", "serve"].map(|command| {
            let arguments: Vec<&str> = [command].iter().chain(*flags).copied().collect();
            run.run(&arguments).fails(1, name, beginning)
        });
        assert_eq!(lines[0], lines[1], "{name}");
    }
    // Where the system's word for it differs, the flag does not.
    let below_a_file: [(&str, &[&str], &str); 2] = [
        (
            "data below a file",
            &["check", "--data-dir", "file/data"],
            "--data-dir: ",
        ),
        (
            "keys below a file",
            &["check", "--ticket-keys", "file/keys"],
            "--ticket-keys: ",
        ),
    ];
    for (name, arguments, beginning) in below_a_file {
        run.run(arguments).fails(1, name, beginning);
    }
}

#[test]
fn check_names_all_faults_in_one_go() {
    let run = Run::new();
    run.write("junk", "junk\n");
    let outcome = run.run(&[
        "check",
        "--users=none",
        "--recipients=none",
        "--cert=none.crt",
        "--key=none.key",
        "--client-ca=none",
        "--ticket-keys=junk",
        "--user=no-such-user",
    ]);
    assert_eq!((outcome.status, outcome.out.as_str()), (1, ""));
    let flag = |line: &str| line.split(": ").nth(1).unwrap().to_owned();
    let mut flags: Vec<String> = outcome.err.lines().map(flag).collect();
    flags.sort_unstable();
    let expected = [
        "--cert",
        "--client-ca",
        "--recipients",
        "--ticket-keys",
        "--user",
        "--users",
    ];
    assert_eq!(flags, expected, "{}", outcome.err);
}
