//! `ringpost check` from outside: it says what would run, and finds the faults that `serve` finds.

#![cfg(test)]

#[path = "support/command_line.rs"]
mod command_line;

use std::fs;
use std::os::unix::fs::PermissionsExt;

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
    assert!(!summary.contains("Warnings"), "{summary}");
    assert_eq!(fs::read_dir(run.directory.path()).unwrap().count(), 0);
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
