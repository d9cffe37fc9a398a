//! TLS clients that nobody here wrote, against the real binary: `openssl s_client` and GnuTLS's
//! `gnutls-cli`. The system's OpenSSL is usually older than the linked one, so these tests tell
//! also that the two get on.
//!
//! `tests/run` installs them; a missing one fails, it is not skipped.

#![cfg(test)]

mod support;

use std::fs;

use support::programs::{Ended, Running, program};
use support::server::{Server, Setup};
use support::{Authority, KeyKind};

fn setup() -> Setup {
    Setup::new()
        .users(&[("alice", "wonderland")])
        .flag("--tcp-auth", "yes")
        .flag("--tls-auth", "yes")
}

// ---------------------------------------------------------------- openssl s_client

/// `openssl s_client` that says EHLO and QUIT, on the TLS port or by STARTTLS.
fn s_client(server: &Server, starttls: bool, extra: &[&str]) -> Ended {
    let address = if starttls { server.tcp() } else { server.tls() };
    let mut command = program("openssl");
    command
        .args([
            "s_client",
            "-connect",
            &address.to_string(),
            "-ign_eof",
            "-crlf",
            "-CAfile",
        ])
        .arg(server.path("ca.crt"))
        .args([
            "-verify_return_error",
            "-verify_hostname",
            "mx.test",
            "-servername",
            "mx.test",
        ])
        .args(extra)
        .current_dir(server.path("."));
    if starttls {
        command.args(["-starttls", "smtp", "-name", "client.test"]);
    }
    let mut running = Running::start(&mut command);
    // Over STARTTLS the program says EHLO in clear only; the session is as new inside.
    running.write("EHLO client.test\nQUIT\n");
    running.wait()
}

#[test]
fn s_client_by_tls_1_2_and_1_3_both_ways() {
    let server = setup().start();
    for starttls in [true, false] {
        for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let ended = s_client(&server, starttls, &[flag]);
            let text = ended.text();
            assert!(
                text.contains(&format!("New, {version}, Cipher is")),
                "{ended:#?}"
            );
            assert!(text.contains("Verify return code: 0 (ok)"), "{ended:#?}");
            assert!(
                text.contains("250-AUTH PLAIN LOGIN") || text.contains("250 AUTH"),
                "{ended:#?}"
            );
            assert!(text.contains("221 2.0.0"), "{ended:#?}");
            assert!(text.contains("Compression: NONE"), "{ended:#?}");
        }
    }
}

#[test]
fn s_client_by_tls_1_1_and_1_0_is_refused() {
    let server = setup().start();
    for flag in ["-tls1_1", "-tls1"] {
        // Level 0 lets the client itself offer such a version.
        let ended = s_client(&server, false, &[flag, "-cipher", "ALL:@SECLEVEL=0"]);
        assert_ne!(ended.code, Some(0), "{ended:#?}");
        assert!(!ended.text().contains("220 mx.test"), "{ended:#?}");
        assert!(
            ended.text().contains("protocol version"),
            "an alert that says so: {ended:#?}"
        );
    }
}

#[test]
fn s_client_renegotiation_is_refused() {
    let server = setup().start();
    let address = server.tls().to_string();
    let mut command = program("openssl");
    command.args(["s_client", "-connect", &address, "-tls1_2", "-crlf"]);
    let mut running = Running::start(&mut command);
    running
        .out
        .await_line("greeting", |line| line.starts_with("220 "));
    running.write("R\n");
    let ended = running.wait();
    assert!(ended.text().contains("no renegotiation"), "{ended:#?}");
}

#[test]
fn s_client_resumes() {
    let server = setup().flag("--shards", "2").start();
    for flag in ["-tls1_2", "-tls1_3"] {
        for starttls in [false, true] {
            let ended = s_client(&server, starttls, &[flag, "-sess_out", "session.pem"]);
            assert!(ended.text().contains("New, TLS"), "{ended:#?}");
            // Each round presents the ticket of the round before, and brings away another.
            for round in 0..4 {
                let extra = [flag, "-sess_in", "session.pem", "-sess_out", "session.pem"];
                let ended = s_client(&server, starttls, &extra);
                assert!(
                    ended.text().contains("Reused, TLS"),
                    "{flag} {round}: {ended:#?}"
                );
                assert!(ended.text().contains("221 2.0.0"), "{ended:#?}");
            }
            fs::remove_file(server.path("session.pem")).unwrap();
        }
    }
}

#[test]
fn s_client_counts_the_tickets() {
    for (tickets, expected) in [("0", 0), ("1", 1), ("3", 3)] {
        let server = setup().flag("--tls-tickets", tickets).start();
        let ended = s_client(&server, false, &["-tls1_3"]);
        let count = ended
            .text()
            .matches("Post-Handshake New Session Ticket arrived")
            .count();
        assert_eq!(count, expected, "--tls-tickets {tickets}: {ended:#?}");
    }
}

#[test]
fn s_client_by_key_type_and_name() {
    let setup = setup();
    let pair = Authority::shared().issue(&["other.test"], KeyKind::Ecdsa);
    let (cert, key) = (setup.path("other.crt"), setup.path("other.key"));
    pair.write(&cert, &key);
    let server = setup
        .also("--cert", cert.to_str().unwrap())
        .also("--key", key.to_str().unwrap())
        .start();
    for (sigalgs, peer) in [
        ("ECDSA+SHA256", "Peer signature type: ECDSA"),
        ("RSA-PSS+SHA256", "Peer signature type: RSA-PSS"),
    ] {
        for starttls in [false, true] {
            let ended = s_client(&server, starttls, &["-tls1_3", "-sigalgs", sigalgs]);
            assert!(ended.text().contains(peer), "{sigalgs}: {ended:#?}");
        }
    }
    for (cipher, peer) in [
        ("ECDHE-RSA-AES128-GCM-SHA256", "RSA"),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDSA"),
    ] {
        let ended = s_client(&server, false, &["-tls1_2", "-cipher", cipher]);
        assert!(
            ended
                .text()
                .contains(&format!("Peer signature type: {peer}")),
            "{ended:#?}"
        );
    }
    let extra = [
        "-servername",
        "other.test",
        "-verify_hostname",
        "other.test",
    ];
    let ended = s_client(&server, false, &extra);
    assert!(
        ended.text().contains("CN = other.test") || ended.text().contains("CN=other.test"),
        "{ended:#?}"
    );
    assert!(
        ended.text().contains("Verify return code: 0 (ok)"),
        "{ended:#?}"
    );
}

#[test]
fn s_client_with_and_without_a_certificate() {
    let setup = setup().flag("--client-cert", "require");
    let ca = setup.path("ca.crt");
    let pair = Authority::shared().issue(&["client.mx.test"], KeyKind::Ecdsa);
    pair.write(&setup.path("client.crt"), &setup.path("client.key"));
    let server = setup.flag("--client-ca", ca.to_str().unwrap()).start();
    for flag in ["-tls1_2", "-tls1_3"] {
        let extra = [flag, "-cert", "client.crt", "-key", "client.key"];
        let ended = s_client(&server, false, &extra);
        assert!(ended.text().contains("221 2.0.0"), "{ended:#?}");
        assert!(
            ended
                .text()
                .contains("Acceptable client certificate CA names"),
            "{ended:#?}"
        );
        let ended = s_client(&server, false, &[flag]);
        assert!(!ended.text().contains("220 mx.test"), "{ended:#?}");
    }
}

/// Groups that every OpenSSL since 1.1.1 knows; the hybrid one is `tls.rs`'s, whose client is linked.
#[test]
fn s_client_by_group() {
    let server = setup().start();
    for starttls in [false, true] {
        for (group, key) in [
            ("X25519", "X25519, 253 bits"),
            ("P-256", "ECDH, prime256v1, 256 bits"),
            ("P-384", "ECDH, secp384r1, 384 bits"),
        ] {
            let ended = s_client(&server, starttls, &["-tls1_3", "-groups", group]);
            let text = ended.text();
            assert!(
                text.contains(&format!("Server Temp Key: {key}")),
                "{group}: {ended:#?}"
            );
            assert!(text.contains("221 2.0.0"), "{group}: {ended:#?}");
        }
    }
}

// ---------------------------------------------------------------- GnuTLS

// Its `--crlf` changes the first LF of each read only, so these tests write CR LF themselves.

#[test]
fn gnutls_cli_on_both_ports() {
    let server = setup().start();
    for (starttls, priority, version) in [
        (false, "NORMAL:-VERS-ALL:+VERS-TLS1.3", "TLS1.3"),
        (false, "NORMAL:-VERS-ALL:+VERS-TLS1.2", "TLS1.2"),
        (true, "NORMAL:-VERS-ALL:+VERS-TLS1.3", "TLS1.3"),
        (true, "NORMAL:-VERS-ALL:+VERS-TLS1.2", "TLS1.2"),
    ] {
        let address = if starttls { server.tcp() } else { server.tls() };
        let mut command = program("gnutls-cli");
        command
            .args([
                "--port",
                &address.port().to_string(),
                "--priority",
                priority,
            ])
            .args([
                "--sni-hostname",
                "mx.test",
                "--verify-hostname",
                "mx.test",
                "--x509cafile",
            ])
            .arg(server.path("ca.crt"));
        if starttls {
            command.arg("--starttls-proto=smtp");
        }
        let mut running = Running::start(command.arg("127.0.0.1"));
        running
            .out
            .await_line("handshake", |line| line.contains("Handshake was completed"));
        running.write(
            "EHLO client.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u@example.test>\r\nDATA\r\n",
        );
        running
            .out
            .await_line("354", |line| line.starts_with("354 "));
        running.write("Subject: by GnuTLS\r\n\r\nx\r\n.\r\n");
        running
            .out
            .await_line("250", |line| line.starts_with("250 2.0.0 Ok: queued as"));
        running.write("QUIT\r\n");
        running
            .out
            .await_line("221", |line| line.starts_with("221 2.0.0"));
        running.close_input();
        let ended = running.wait();
        assert!(ended.out.contains(version), "{ended:#?}");
        assert!(
            ended.out.contains("The certificate is trusted"),
            "{ended:#?}"
        );
        // GnuTLS says so when the peer leaves without close_notify.
        assert!(
            !ended.text().contains("not properly terminated"),
            "{ended:#?}"
        );
    }
    assert_eq!(server.maildir("example.test", "u").messages().len(), 4);
}

#[test]
fn gnutls_cli_resumes() {
    let server = setup().flag("--shards", "2").start();
    for version in ["TLS1.2", "TLS1.3"] {
        let mut command = program("gnutls-cli");
        command
            .args(["--port", &server.tls().port().to_string(), "--resume"])
            .args(["--priority", &format!("NORMAL:-VERS-ALL:+VERS-{version}")])
            .args([
                "--sni-hostname",
                "mx.test",
                "--verify-hostname",
                "mx.test",
                "--x509cafile",
            ])
            .arg(server.path("ca.crt"));
        let mut running = Running::start(command.arg("127.0.0.1"));
        // It connects, ends that session by itself, connects again with its ticket, then listens to us.
        let resumed = "This is a resumed session";
        running
            .out
            .await_line("resumption", |line| line.contains(resumed));
        running.write("EHLO client.test\r\nQUIT\r\n");
        running
            .out
            .await_line("221", |line| line.starts_with("221 2.0.0"));
        running.close_input();
        running.wait();
    }
}
