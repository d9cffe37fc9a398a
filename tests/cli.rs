//! The command line from outside: what the real program prints, and its exit status. What `check`
//! says is in `check.rs`.

#![cfg(test)]

#[path = "support/command_line.rs"]
mod command_line;

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use command_line::{Run, assert_lines};
use ringpost::auth::Users;
use support::Setup;
use support::programs::{program, run as run_program};
use support::server::BINARY;

#[test]
fn help_groups_the_flags_and_gives_defaults_and_units() {
    let run = Run::new();
    for command in ["serve", "check"] {
        let help = run.run(&[command, "--help"]).fine();
        let lines: Vec<&str> = help.lines().collect();
        let headings = [
            "Listening:",
            "TLS:",
            "AUTH and policy:",
            "Who may send where:",
            "Limits:",
            "Mail's way:",
            "Sending:",
            "Process:",
            "Watching:",
        ];
        let places: Vec<usize> = headings
            .iter()
            .map(|heading| {
                lines
                    .iter()
                    .position(|line| line == heading)
                    .expect(heading)
            })
            .collect();
        assert!(places.is_sorted(), "{places:?}");
        let facts = [
            ("--listen <ADDR:PORT>", "[default: 127.0.0.1:2525 if"),
            ("--starttls <off|on|required>", "[default: on]"),
            ("--tls-groups <LIST>", "[default: X25519MLKEM768:"),
            ("--max-message-bytes <SIZE>", "[default: 50M]"),
            ("--command-timeout <DURATION>", "[default: 5m]"),
            ("--drain-timeout <DURATION>", "[default: 30s]"),
            ("--max-sessions-per-ip <N>", "0: no limit [default: 0]"),
            ("--durability <disk|next-hop|none>", "[default: disk]"),
            (
                "--out-tls <off|negotiated|required>",
                "[default: negotiated]",
            ),
            ("--out-verify <yes|no>", "[default: yes under --out-tls"),
            (
                "--out-auth <DOMAIN=USER:FILE>",
                "repeatable [default: none]",
            ),
            ("--queue-lifetime <DURATION>", "[default: 5d]"),
            ("--delay-notice <DURATION|never>", "[default: 4h;"),
            ("--out-connections <N>", "[default: 256]"),
            ("--next-hop-timeout <DURATION>", "[default: 10s]"),
        ];
        for (flag, fact) in facts {
            let place = lines
                .iter()
                .position(|line| line.trim() == flag)
                .expect(flag);
            let text = lines[place + 1..place + 3].join(" ");
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains(fact), "{flag}: {text}");
        }
        for form in ["SIZE", "DURATION", "TARGET", "@FILE", "RINGPOST_"] {
            assert!(help.contains(form), "{form}");
        }
    }
    for command in ["queue", "hash-password", "dev-certs", "man", "completions"] {
        assert!(
            run.run(&[command, "--help"])
                .fine()
                .contains("Usage: ringpost"),
            "{command}"
        );
    }
    assert!(run.run(&["--version"]).fine().starts_with("ringpost "));
}

#[test]
fn a_flag_of_a_later_release_is_not_taken() {
    let run = Run::new();
    let beginning = "--take-over: no such flag";
    run.run(&["serve", "--take-over", "yes"])
        .fails(2, "--take-over", beginning);
}

#[test]
fn bad_values_are_one_line_naming_the_flag() {
    let run = Run::new();
    let rows: &[(&str, &[&str], &str)] = &[
        ("no command", &[], "a command is missing"),
        ("an unknown command", &["sevre"], "\"sevre\" is no command"),
        (
            "an unknown flag",
            &["serve", "--nope", "1"],
            "--nope: no such flag",
        ),
        (
            "a mistyped flag",
            &["serve", "--listn", "1"],
            "--listn: no such flag; perhaps --listen",
        ),
        ("a short flag", &["serve", "-p"], "-p: no such flag"),
        ("a stray word", &["serve", "now"], "\"now\" is neither"),
        ("no value", &["serve", "--pin"], "--pin: a value is missing"),
        (
            "a flag for a value",
            &["serve", "--pin", "--sqpoll"],
            "--pin: a value is missing",
        ),
        (
            "an empty value",
            &["serve", "--users="],
            "--users: a value is missing",
        ),
        (
            "not a choice",
            &["serve", "--pin", "true"],
            "--pin \"true\": must be one of yes, no",
        ),
        (
            "not a choice of three",
            &["serve", "--durability", "hop"],
            "--durability \"hop\": must be one of disk, next-hop, none",
        ),
        (
            "a host for an address",
            &["serve", "--listen", "mx:25"],
            "--listen \"mx:25\": must be",
        ),
        (
            "a port too high",
            &["serve", "--listen-tls", "[::]:70000"],
            "--listen-tls \"[::]:70000",
        ),
        (
            "a bad host name",
            &["serve", "--hostname", "a_b"],
            "--hostname \"a_b\": must be",
        ),
        (
            "no shards",
            &["serve", "--shards", "0"],
            "--shards \"0\": must be \"cores\" or",
        ),
        (
            "a size unit",
            &["serve", "--max-message-bytes", "5MB"],
            "--max-message-bytes \"5MB\"",
        ),
        (
            "a time without a unit",
            &["serve", "--command-timeout", "300"],
            "--command-timeout \"300\": a unit is missing: must be a number with ms, s, m, h or d",
        ),
        (
            "too long",
            &["serve", "--ticket-lifetime", "8d"],
            "--ticket-lifetime \"8d\": must be",
        ),
        (
            "a negative count",
            &["serve", "--max-errors", "-1"],
            "--max-errors \"-1\": must be",
        ),
        (
            "host bits",
            &["serve", "--trusted-net", "10.0.0.1/8"],
            "--trusted-net \"10.0.0.1/8\": ",
        ),
        (
            "a next hop without a port",
            &["serve", "--deliver", "smtp:mx"],
            "--deliver \"smtp:mx\": must be smtp:HOST:PORT; the port is missing",
        ),
        (
            "a name in brackets",
            &["serve", "--route", "a.test=smtps:[mx.test]:465"],
            "--route \"a.test=smtps:[mx.test]:465\": must be smtps:HOST:PORT; only an IPv6",
        ),
        (
            "an unknown target",
            &["serve", "--deliver", "relay:mx:25"],
            "--deliver \"relay:mx:25\": not a delivery target; one is maildir:DIR, smtp:HOST:PORT,",
        ),
        (
            "no way of TLS",
            &["serve", "--out-tls", "on"],
            "--out-tls \"on\": must be one of off, negotiated, required",
        ),
        (
            "a login without a file",
            &["serve", "--out-auth", "mx.test=us"],
            "--out-auth \"mx.test=us\": must be DOMAIN=USER:FILE",
        ),
        (
            "a bad name for EHLO",
            &["serve", "--out-helo", "[192.0.2.1]"],
            "--out-helo \"[192.0.2.1]\": must be a domain name",
        ),
        (
            "no connections",
            &["serve", "--out-connections", "0"],
            "--out-connections \"0\": must be a whole number from 1",
        ),
        (
            "no connections to one",
            &["serve", "--out-connections-per-hop", "0"],
            "--out-connections-per-hop \"0\": must be a whole number from 1",
        ),
        (
            "a name for a DNS server",
            &["serve", "--dns", "ns.test:53"],
            "--dns \"ns.test:53\": must be ADDR:PORT",
        ),
        (
            "no port of a DNS server",
            &["serve", "--dns", "127.0.0.1:0"],
            "--dns \"127.0.0.1:0\": the port must be",
        ),
        (
            "no lifetime",
            &["serve", "--queue-lifetime", "0d"],
            "--queue-lifetime \"0d\": must be longer than 0",
        ),
        (
            "neither a time nor never",
            &["serve", "--delay-notice", "no"],
            "--delay-notice \"no\": must be a number with ms, s, m, h or d, as in 300s, or \"never\"",
        ),
        (
            "a line end",
            &["serve", "--greeting", "a\nb"],
            "--greeting \"a\\nb\": must be",
        ),
        (
            "check",
            &["check", "--pin", "2"],
            "--pin \"2\": must be one of yes, no",
        ),
        (
            "the last of several",
            &["serve", "--pin", "no", "--pin", "2"],
            "--pin \"2\"",
        ),
        ("man", &["man"], "<DIR>: is required"),
        (
            "completions",
            &["completions", "dos"],
            "<SHELL> \"dos\": must be one of bash,",
        ),
        (
            "hash-password takes no password",
            &["hash-password", "secret"],
            "\"secret\" is neither",
        ),
    ];
    for (name, arguments, beginning) in rows {
        run.run(arguments).fails(2, name, beginning);
    }
}

#[test]
fn a_flag_file_is_the_configuration() {
    let run = Run::new();
    run.write(
        "mx.conf",
        "# An MX.\n--hostname mx.test\n\n--listen 127.0.0.1:25 # clear\n--listen=127.0.0.1:26\n\
         --greeting \"ESMTP # ready\"\n--max-errors 7\n",
    );
    let summary = run.run(&["check", "@mx.conf", "--max-errors", "9"]).fine();
    assert_lines(
        &summary,
        &[
            "  greeting        220 mx.test ESMTP # ready",
            "  TCP port        127.0.0.1:25",
            "  TCP port        127.0.0.1:26",
            "  errors          9 end a session",
        ],
    );
    assert!(!summary.contains("TLS port"), "{summary}");

    let rows = [
        (
            "an unknown flag",
            "--pin yes\n--nope 1\n",
            "--nope: no such flag",
            "(@bad.conf line 2)",
        ),
        (
            "a bad value",
            "\n\n--pin maybe\n",
            "--pin \"maybe\": must be",
            "(@bad.conf line 3)",
        ),
        (
            "the second of two",
            "--listen 127.0.0.1:1\n--listen x\n",
            "--listen \"x\": must be",
            "(@bad.conf line 2)",
        ),
        (
            "no flag",
            "pin yes\n",
            "@bad.conf line 1: a line is --flag value",
            "",
        ),
        (
            "no value",
            "--pin\n",
            "@bad.conf line 1: the flag has no value",
            "",
        ),
        (
            "another file",
            "--pin yes\n@mx.conf\n",
            "@bad.conf line 2: a flag file cannot",
            "",
        ),
        (
            "an open quote",
            "--greeting \"a\n",
            "@bad.conf line 1: the closing quote",
            "",
        ),
    ];
    for (name, text, beginning, end) in rows {
        run.write("bad.conf", text);
        let line = run.run(&["serve", "@bad.conf"]).fails(2, name, beginning);
        assert!(line.ends_with(end), "{name}: {line}");
    }
    run.run(&["serve", "@missing"])
        .fails(2, "no file", "@missing: cannot be read");
}

#[test]
fn the_command_line_and_flag_files_win_over_the_environment() {
    let run = Run::new();
    run.write("mx.conf", "--max-errors 7\n");
    let errors = |arguments: &[&str], variables: &[(&str, &str)]| {
        let summary = run.run_with(arguments, variables, "").fine();
        let line = summary
            .lines()
            .find(|line| line.starts_with("  errors"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let variable = [("RINGPOST_MAX_ERRORS", "5")];
    assert_eq!(errors(&["check"], &[]), "20");
    assert_eq!(errors(&["check"], &variable), "5");
    assert_eq!(errors(&["check"], &[("RINGPOST_MAX_ERRORS", "")]), "20");
    assert_eq!(errors(&["check", "@mx.conf"], &variable), "7");
    assert_eq!(errors(&["check", "--max-errors", "9"], &variable), "9");

    let ports = [("RINGPOST_LISTEN", "127.0.0.1:1,127.0.0.1:2 127.0.0.1:3")];
    let summary = run.run_with(&["check"], &ports, "").fine();
    assert_eq!(summary.matches("TCP port").count(), 3, "{summary}");
    let summary = run
        .run_with(&["check", "--listen", "127.0.0.1:4"], &ports, "")
        .fine();
    assert_eq!(summary.matches("TCP port").count(), 1, "{summary}");

    let line = run
        .run_with(&["serve"], &[("RINGPOST_PIN", "maybe")], "")
        .fails(2, "a bad value", "--pin \"maybe\": must be one of yes, no");
    assert!(line.ends_with("(from RINGPOST_PIN)"), "{line}");
}

#[test]
fn a_hash_lets_its_password_in() {
    let run = Run::new();
    let hash = run
        .run_with(&["hash-password"], &[], "correct horse\n")
        .fine();
    assert!(
        hash.starts_with("$argon2id$") && hash.matches('\n').count() == 1,
        "{hash}"
    );
    let path = run.write("users", &format!("# staff\nanna:{hash}"));
    let users = Users::load(&path).unwrap();
    assert!(users.verify("anna", b"correct horse"));
    assert!(!users.verify("anna", b"correct horse\n"));
    assert!(!users.verify("Anna", b"correct horse"));
    let summary = run
        .run(&["check", "--users", "users", "--tls-auth", "yes"])
        .fine();
    assert_lines(&summary, &["  users           1 in users"]);

    for (name, input) in [
        ("nothing", ""),
        ("an empty line", "\n"),
        ("an empty CR LF", "\r\nx\n"),
    ] {
        run.run_with(&["hash-password"], &[], input)
            .fails(1, name, "the password is empty");
    }
    run.run_with(&["hash-password"], &[], "a\0b\n")
        .fails(1, "NUL", "a password cannot hold");
}

#[test]
fn dev_certs_never_overwrites() {
    let run = Run::new();
    let contents = |directory: &Path| {
        let mut files: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;

    let out = run.run(&["dev-certs", "--dir", "certs"]).fine();
    let made = contents(&run.path("certs"));
    assert_eq!(made.len(), 8);
    assert_eq!(mode(&run.path("certs")), 0o700);
    for (path, _) in &made {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(out.contains(&format!("  certs/{name} ")), "{name}: {out}");
        assert!(!name.ends_with(".key") || mode(path) == 0o600, "{name}");
    }

    let again = run.run(&["dev-certs", "--dir", "certs"]).fine();
    assert!(
        again.starts_with("Already there, nothing was changed"),
        "{again}"
    );
    assert_eq!(contents(&run.path("certs")), made);

    fs::remove_file(run.path("certs/ca.key")).unwrap();
    run.run(&["dev-certs"])
        .fails(1, "a part of a set", "certs/ca.key is missing");
    assert_eq!(contents(&run.path("certs")).len(), 7);

    run.write("file", "");
    run.run(&["dev-certs", "--dir", "file"])
        .fails(1, "a file", "");
}

#[test]
fn a_manual_page_a_command() {
    let run = Run::new();
    run.run(&["man", "pages/man1"]).fine();
    let commands = [
        "",
        "-serve",
        "-check",
        "-queue",
        "-queue-list",
        "-queue-show",
        "-queue-retry",
        "-queue-remove",
        "-queue-hold",
        "-queue-release",
        "-hash-password",
        "-dev-certs",
        "-man",
        "-completions",
    ];
    let page = |command: &str| {
        fs::read_to_string(run.path(&format!("pages/man1/ringpost{command}.1"))).unwrap()
    };
    for command in commands {
        assert!(page(command).contains(".TH "), "{command}");
    }
    assert_eq!(
        fs::read_dir(run.path("pages/man1")).unwrap().count(),
        commands.len()
    );
    let serve = page("-serve").to_lowercase();
    for text in [
        "listening",
        "who may send where",
        "max\\-message\\-bytes",
        "out\\-clear\\-after\\-tls\\-failure",
        "ringpost_",
    ] {
        assert!(serve.contains(text), "{text}");
    }

    run.write("file", "");
    run.run(&["man", "file"])
        .fails(1, "a file", "cannot make file: ");
}

#[test]
fn completions_name_the_flags() {
    let run = Run::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run.run(&["completions", shell]).fine();
        for word in ["hash-password", "max-message-bytes", "out-tls", "release"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

/// The runtimes panicked with ten, and a start that got further left the cause among other lines.
#[test]
fn too_few_descriptors_are_one_line() {
    // 26 are needed: three standard ones, eight of the control thread, the metrics port, two listeners, twelve.
    for descriptors in 4..26 {
        let ended = Setup::new().open_files_max(descriptors).run("serve");
        assert_eq!(ended.code, Some(1), "{descriptors}: {ended:?}");
        assert_eq!(ended.err.len(), 1, "{descriptors}: {ended:?}");
        let line = &ended.err[0];
        assert!(line.starts_with("ringpost: "), "{descriptors}: {line}");
        // With the very fewest already a file that a flag names cannot be read.
        let told = line.contains("(ulimit -n)") || line.contains("Too many open files");
        assert!(told, "{descriptors}: {line}");
    }
    let ended = Setup::new().open_files_max(10).run("serve");
    let beginning = "ringpost: 10 descriptors are too few, --shards 1 takes ";
    assert!(ended.err[0].starts_with(beginning), "{ended:?}");
}

/// Becomes a program whose `io_uring_enter` gets EPERM from a seccomp filter; `io_uring_setup` works. In Python
/// because installing the filter takes `unsafe`, which stays out of the tests.
const REFUSE_ENTER: &str = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
# load the call's number; unless it is io_uring_enter (426 everywhere) skip one; EPERM; allow
lines = [(0x20, 0, 0, 0), (0x15, 0, 1, 426), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
program = ctypes.create_string_buffer(struct.pack("@HP", len(lines), ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
assert libc.prctl(22, 2, program, 0, 0) == 0, "PR_SET_SECCOMP"
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// The server neither started nor ended.
#[test]
fn a_ring_that_may_not_be_entered_is_one_line() {
    let setup = Setup::new();
    let serve = setup.command("serve");
    let ended = run_program(
        program("python3")
            .args(["-c", REFUSE_ENTER, BINARY])
            .args(serve.get_args()),
        "",
    );
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let beginning = "ringpost: cannot use io_uring: Operation not permitted";
    assert!(ended.err.starts_with(beginning), "{ended:?}");
    assert!(ended.err.contains("seccomp profile"), "{ended:?}");
    assert_eq!(ended.err.matches('\n').count(), 1, "{ended:?}");
}
