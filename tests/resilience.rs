//! What a peer, a full disk or an empty descriptor table can do to the server: nothing lasting.
//!
//! Where a test measures, it reads `/proc`: descriptors exactly, memory approximately, CPU time over
//! a second of wall clock.
//! Skipped, with the reason printed, where no file system can be mounted (not root, or no
//! `CAP_SYS_ADMIN`): a full disk, a Maildir on a file system mounted read-only.

#![cfg(test)]

mod support;

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::SockRef;
use support::maildir::files;
use support::metrics::get;
use support::server::{Server, Setup};
use support::{Client, PATIENCE, eventually};

const TEXT: &[u8] = b"Subject: x\r\n\r\nx\r\n";

// ---------------------------------------------------------------- slow and silent peers

#[test]
fn a_slow_peer_octet_by_octet_is_served() {
    let server = Setup::new().start();
    let mut client = server.client();
    for octet in b"EHLO slow.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u@example.test>\r\nDATA\r\n" {
        client.send([*octet]);
    }
    for code in [250, 250, 250, 354] {
        client.expect(code);
    }
    for octet in [TEXT, b"..\r\n.\r\n"].concat() {
        client.send([octet]);
    }
    client.expect(250);
    client.quit();
    let delivered = server.maildir("example.test", "u").only();
    assert_eq!(delivered.parts().message, b"Subject: x\n\nx\n.\n");
}

/// The same inside TLS: a record an octet.
#[test]
fn a_slow_peer_inside_tls_is_served() {
    let server = Setup::new().start();
    let mut client = server.tls_client();
    for octet in b"EHLO slow.test\r\nNOOP\r\n" {
        client.send([*octet]);
    }
    client.expect(250);
    client.expect(250);
    client.quit();
}

#[test]
fn the_command_timeout_is_421() {
    let server = Setup::new().flag("--command-timeout", "300ms").start();
    for mut client in [server.client(), server.tls_client()] {
        client.ehlo();
        client.say("MAIL FROM:<a@b.test>").begins("250");
        let started = Instant::now();
        client.reply().begins("421 4.4.2 mx.test");
        client.expect_end();
        assert!(started.elapsed() >= Duration::from_millis(250));
    }
}

#[test]
fn the_data_timeout_is_421_and_keeps_nothing() {
    let server = Setup::new().flag("--data-timeout", "300ms").start();
    let mut client = server.client();
    client.ehlo();
    client.say("MAIL FROM:<a@b.test>").begins("250");
    client.say("RCPT TO:<u@example.test>").begins("250");
    client.say("DATA").begins("354");
    client.send("Subject: never finished\r\n");
    client.reply().begins("421 4.4.2");
    client.expect_end();
    assert!(server.maildir("example.test", "u").messages().is_empty());
}

#[test]
fn the_session_timeout_ends_even_a_busy_session() {
    let server = Setup::new().flag("--session-timeout", "500ms").start();
    let mut client = server.client();
    let started = Instant::now();
    let reply = loop {
        client.send("NOOP\r\n");
        let reply = client.reply();
        if reply.code != 250 {
            break reply;
        }
        assert!(started.elapsed() < PATIENCE, "NOOP for ever");
    };
    reply.begins("421 4.4.2");
    client.read_to_end();
}

#[test]
fn the_handshake_timeout_ends_a_silent_and_a_slow_handshake() {
    let server = Setup::new().flag("--handshake-timeout", "300ms").start();
    let before = server.descriptors();
    // Says nothing at all on the TLS port.
    let mut silent = Client::connect(server.tls());
    silent.read_to_end();
    // Begins a record and keeps the rest to itself.
    let mut partial = Client::connect(server.tls());
    partial.send([22, 3, 1, 2, 0, 1]);
    partial.read_to_end();
    // STARTTLS, and then nothing.
    let mut starttls = server.client();
    starttls.ehlo();
    starttls.say("STARTTLS").begins("220");
    starttls.read_to_end();
    server.await_descriptors(before);
}

// ---------------------------------------------------------------- hosts of connections

/// How a host of clients misbehaves.
#[derive(Debug, Clone, Copy)]
enum Abort {
    /// Connects and resets, often before the greeting.
    AtOnce,
    /// Resets in the middle of DATA.
    InData,
    /// Resets with a command half said.
    InCommand,
    /// Resets a TLS port's connection with its ClientHello half sent.
    InHandshake,
    /// The same, but by FIN.
    HandshakeHalfClosed,
    /// Resets right behind its end of data, while the message is committed.
    InCommit,
}

const ABORTS: [Abort; 6] = [
    Abort::AtOnce,
    Abort::InData,
    Abort::InCommand,
    Abort::InHandshake,
    Abort::HandshakeHalfClosed,
    Abort::InCommit,
];

fn abort(server_tcp: std::net::SocketAddr, server_tls: std::net::SocketAddr, kind: Abort) {
    match kind {
        Abort::AtOnce => Client::connect(server_tcp).reset(),
        Abort::InData => {
            let mut client = in_data(server_tcp);
            client.send("Subject: torn\r\n\r\nin the midd");
            client.reset();
        }
        Abort::InCommand => {
            let mut client = Client::connect(server_tcp);
            client.expect(220);
            client.send("EHLO client.test\r\nMAIL FRO");
            client.reset();
        }
        Abort::InHandshake => {
            let mut client = Client::connect(server_tls);
            client.send([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]);
            client.reset();
        }
        Abort::HandshakeHalfClosed => {
            let mut client = Client::connect(server_tls);
            client.send([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]);
            client.shutdown_writing();
            client.read_to_end();
            // The server closed first, so its end waits in TIME_WAIT; ours needs none.
            client.reset();
        }
        Abort::InCommit => {
            let mut client = in_data(server_tcp);
            client.send("Subject: whole\r\n\r\nx\r\n.\r\n");
            client.reset();
        }
    }
}

fn in_data(address: std::net::SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.expect(220);
    client.send("EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u@example.test>\r\nDATA\r\n");
    for code in [250, 250, 250, 354] {
        client.expect(code);
    }
    client
}

fn aborts(server: &Server, count: usize) {
    let (tcp, tls) = (server.tcp(), server.tls());
    thread::scope(|scope| {
        for worker in 0..8 {
            scope.spawn(move || {
                for index in (worker..count).step_by(8) {
                    abort(tcp, tls, ABORTS[(index / 8) % ABORTS.len()]);
                }
            });
        }
    });
}

/// 10,000 connections that end badly. Afterwards descriptors are exactly, and memory approximately,
/// where they were.
#[test]
fn ten_thousand_aborts_leave_nothing_behind() {
    let server = Setup::new()
        .flag("--shards", "2")
        .flag("--durability", "none")
        .flag("--deliver", "discard")
        .start();
    let descriptors = server.descriptors();
    // The allocator and the kernel reach their working size first.
    aborts(&server, 3000);
    server.await_descriptors(descriptors);
    let resident = server.resident_kib();
    aborts(&server, 7000);
    server.await_descriptors(descriptors);
    eventually("no session is open", || {
        (server.scrape().sum("ringpost_sessions_open", &[]) == 0).then_some(())
    });
    let afterwards = server.resident_kib();
    assert!(
        afterwards <= resident + RESIDENT_KIB_SLACK,
        "{resident} KiB resident before, {afterwards} after"
    );
    // It serves as before.
    let mut client = server.tls_client();
    client.ehlo();
    client
        .deliver("a@b.test", &["u@example.test"], TEXT)
        .begins("250");
    client.quit();
}

/// 7,000 sessions that leaked one 512-octet line each would take 3,500 KiB.
const RESIDENT_KIB_SLACK: u64 = 3072;

/// A burst of connections held open, then dropped all at once.
#[test]
fn two_thousand_idle_sessions_come_and_go() {
    let server = Setup::new().flag("--shards", "2").start();
    let before = server.descriptors();
    for round in 0..2 {
        let mut held: Vec<Client> = (0..1000).map(|_| Client::connect(server.tcp())).collect();
        for client in &mut held {
            client.expect(220);
        }
        assert!(server.descriptors() >= before + 1000, "round {round}");
        drop(held);
        server.await_descriptors(before);
    }
}

#[test]
fn endless_lines_cost_no_memory() {
    let server = Setup::new().start();
    let mut client = server.client();
    client.ehlo();
    let resident = server.resident_kib();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        client.send(&piece);
    }
    client.send("\r\n");
    client.reply().begins("500 5.5.2");
    client.say("NOOP").begins("250");
    let afterwards = server.resident_kib();
    assert!(
        afterwards < resident + 8192,
        "{resident} KiB before, {afterwards} after 64 MiB"
    );
    client.quit();
}

/// A peer that never reads: its replies must not pile up without a limit.
#[test]
fn a_peer_that_never_reads_costs_little() {
    let server = Setup::new()
        .flag("--command-timeout", "2s")
        .flag("--max-errors", "1000000")
        .start();
    let mut stream = TcpStream::connect(server.tcp()).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let before = server.resident_kib();
    let commands = b"HELP\r\nNOOP\r\nVRFY somebody\r\n".repeat(4096);
    let mut sent = 0;
    // Until the server stops reading, which it must once its replies do not leave.
    let stopped = loop {
        match stream.write(&commands) {
            Ok(octets) => sent += octets,
            Err(error) => break error,
        }
        assert!(sent < 512 << 20, "it reads on and on");
    };
    assert!(
        matches!(
            stopped.kind(),
            ErrorKind::WouldBlock
                | ErrorKind::TimedOut
                | ErrorKind::ConnectionReset
                | ErrorKind::BrokenPipe
        ),
        "{stopped}"
    );
    let after = server.resident_kib();
    assert!(
        after < before + 16384,
        "{before} KiB before, {after} after {sent} octets"
    );
    server.client().quit();
}

/// Mail data held in memory is bounded for the whole process; past it a message gets a 452.
#[test]
fn mail_memory_spent_is_452_and_heals() {
    let server = Setup::new().flag("--mail-memory", "1M").start();
    let mut hoarders: Vec<Client> = Vec::new();
    let mut refused = false;
    let line = b"0123456789012345678901234567890123456789012345678901234567890\r\n";
    let piece = line.repeat(8192);
    for _ in 0..4 {
        let mut client = in_data(server.tcp());
        client.send(&piece);
        hoarders.push(client);
    }
    for mut client in hoarders {
        client.send(".\r\n");
        let reply = client.reply();
        if reply.code == 452 {
            refused = true;
        } else {
            reply.begins("250");
        }
        client.say("NOOP").begins("250");
        client.quit();
    }
    assert!(refused, "2 MiB were held under --mail-memory 1M");
    let mut client = server.client();
    client.ehlo();
    client
        .deliver("a@b.test", &["u@example.test"], TEXT)
        .begins("250");
    client.quit();
}

// ---------------------------------------------------------------- limits

#[test]
fn max_sessions_is_421_and_holds_over_shards() {
    for shards in ["1", "2"] {
        let server = Setup::new()
            .flag("--shards", shards)
            .flag("--max-sessions", "4")
            .start();
        let mut held: Vec<Client> = (0..4).map(|_| server.client()).collect();
        for _ in 0..8 {
            let mut refused = Client::connect(server.tcp());
            refused.reply().begins("421 4");
            refused.expect_end();
        }
        // Those that are in are not disturbed, and a place given up is given again.
        for client in &mut held {
            client.say("NOOP").begins("250");
        }
        held.pop().unwrap().quit();
        eventually("a free place", || {
            let mut client = Client::connect(server.tcp());
            (client.reply().code == 220).then_some(())
        });
    }
}

#[test]
fn max_sessions_per_ip_is_421_for_that_address_only() {
    let server = Setup::new()
        .flag("--shards", "2")
        .flag("--max-sessions-per-ip", "2")
        .start();
    let _held = [server.client(), server.client()];
    for _ in 0..8 {
        Client::connect(server.tcp()).reply().begins("421 4");
    }
    // All of 127/8 is this machine: another of its addresses is another client.
    let other = connect_from("127.0.0.2:0", server.tcp());
    let mut other = Client::over(other);
    other.expect(220);
    other.quit();
}

fn connect_from(source: &str, address: std::net::SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let source: std::net::SocketAddr = source.parse().unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

/// Descriptors exhausted: a 421 or a delay, never a spin, and it heals.
#[test]
fn no_descriptors_left_is_a_delay_and_heals() {
    let server = Setup::new()
        .open_files_max(128)
        .flag("--max-sessions", "4096")
        .start();
    let free = server.descriptors();
    let mut held: Vec<TcpStream> = (0..400)
        .map(|_| TcpStream::connect(server.tcp()).unwrap())
        .collect();
    // Those that got in were greeted or told to go; the rest wait in the backlog.
    let mut greeted = 0;
    let mut refused = 0;
    for stream in &mut held {
        stream
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let mut octets = [0; 3];
        match stream.read_exact(&mut octets) {
            Ok(()) if &octets == b"220" => greeted += 1,
            Ok(()) => {
                assert_eq!(&octets, b"421");
                refused += 1;
            }
            Err(_) => {}
        }
    }
    assert!(
        greeted > 0 && greeted < 128,
        "{greeted} greeted, {refused} refused"
    );
    let cpu = server.cpu();
    thread::sleep(Duration::from_secs(1)); // a measured second, not a wait for anything
    let spent = server.cpu() - cpu;
    assert!(
        spent < Duration::from_millis(300),
        "{spent:?} of CPU in an idle second"
    );
    for stream in &held {
        SockRef::from(stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    drop(held);
    // New sessions first: nothing else need wake the listener.
    eventually("a greeting", || {
        let mut client = Client::connect(server.tcp());
        client
            .socket()
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        client.read_some().starts_with(b"220").then_some(())
    });
    server.await_descriptors(free);
    let mut client = server.client();
    client.ehlo();
    client
        .deliver("a@b.test", &["u@example.test"], TEXT)
        .begins("250");
    client.quit();
}

/// An idle server, idle sessions on it, costs no CPU.
#[test]
fn idle_is_idle() {
    let server = Setup::new().flag("--shards", "2").start();
    let _held = [
        server.client(),
        server.tls_client(),
        server.client().starttls(),
    ];
    let cpu = server.cpu();
    thread::sleep(Duration::from_secs(1)); // a measured second, not a wait for anything
    let spent = server.cpu() - cpu;
    assert!(
        spent < Duration::from_millis(100),
        "{spent:?} of CPU in an idle second"
    );
}

// ---------------------------------------------------------------- the disk

/// A small file system of its own, unmounted on drop.
struct Mount {
    path: PathBuf,
}

impl Mount {
    /// `None`, with the reason printed, where nothing can be mounted.
    fn tmpfs(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let output = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size},mode=700"),
                "ringpost-test",
            ])
            .arg(&path)
            .output()
            .unwrap();
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            eprintln!("skipped: no file system can be mounted here: {reason}");
            return None;
        }
        Some(Self { path })
    }

    fn remount(&self, how: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{how}")])
            .arg(&self.path)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.path).status();
    }
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let mut piece = 1 << 16;
    while piece > 0 {
        match file.write_all(&vec![0; piece]) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
                piece /= 16;
            }
        }
    }
}

#[test]
fn a_full_disk_is_452_loses_nothing_and_heals() {
    let setup = Setup::new();
    let Some(mount) = Mount::tmpfs(setup.path("small"), "1m") else {
        return;
    };
    let server = setup
        .flag("--deliver", format!("maildir:{}", mount.path.display()))
        .start();
    let mut client = server.client();
    client.ehlo();
    let to = ["u@example.test"];
    client.deliver("a@b.test", &to, TEXT).begins("250");
    let ballast = mount.path.join("ballast");
    fill(&ballast);
    let text = [TEXT, &b"0123456789abcdef\r\n".repeat(4000)].concat();
    client.deliver("a@b.test", &to, &text).begins("452 4.3.1");
    // A recipient that has no directory yet, and two at once: all or nothing.
    client
        .deliver("a@b.test", &["new@example.test"], &text)
        .begins("452 4.3.1");
    client
        .deliver("a@b.test", &["u@example.test", "v@example.test"], &text)
        .begins("452 4.3.1");
    client.say("NOOP").begins("250");
    let maildir = support::Maildir::new(mount.path.join("example.test/u"));
    assert_eq!(maildir.messages().len(), 1);
    maildir.check();
    fs::remove_file(&ballast).unwrap();
    client.deliver("a@b.test", &to, &text).begins("250");
    client.quit();
    assert_eq!(maildir.messages().len(), 2);
    maildir.check();
    drop(server);
    drop(mount);
}

#[test]
fn a_read_only_file_system_is_4yz_and_heals() {
    let setup = Setup::new();
    let Some(mount) = Mount::tmpfs(setup.path("small"), "1m") else {
        return;
    };
    let server = setup
        .flag("--deliver", format!("maildir:{}", mount.path.display()))
        .start();
    let mut client = server.client();
    client.ehlo();
    client
        .deliver("a@b.test", &["u@example.test"], TEXT)
        .begins("250");
    mount.remount("ro");
    for to in ["u@example.test", "new@example.test"] {
        let reply = client.deliver("a@b.test", &[to], TEXT);
        assert!([451, 452].contains(&reply.code), "{reply:?}");
    }
    mount.remount("rw");
    client
        .deliver("a@b.test", &["u@example.test"], TEXT)
        .begins("250");
    client.quit();
    drop(server);
    drop(mount);
}

/// A file where a directory should be: no permissions involved, so it holds for root as well.
#[test]
fn a_maildir_that_cannot_be_made_is_451() {
    let server = Setup::new().start();
    fs::create_dir_all(server.path("mail/example.test")).unwrap();
    fs::write(server.path("mail/example.test/u"), "in the way").unwrap();
    let mut client = server.client();
    client.ehlo();
    let reply = client.deliver("a@b.test", &["u@example.test"], TEXT);
    assert!([451, 452].contains(&reply.code), "{reply:?}");
    reply.begins("45");
    client
        .deliver("a@b.test", &["v@example.test"], TEXT)
        .begins("250");
    client.quit();
}

// ---------------------------------------------------------------- start and end

/// A failure to start: this exit status, and one line that is not a log line and names the cause.
#[track_caller]
fn expect_refusal(setup: &Setup, code: i32, named: &[&str]) {
    let started = Instant::now();
    let ended = setup.run("serve");
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    assert!(started.elapsed() < PATIENCE);
    assert!(
        !ended.err.iter().any(|line| line.contains("panicked")),
        "{ended:#?}"
    );
    let last = ended.err.last().unwrap();
    for word in named {
        assert!(last.contains(word), "{word:?} is not in {last:?}");
    }
    let others = ended
        .err
        .iter()
        .filter(|line| !line.contains(" INFO "))
        .count();
    assert_eq!(others, 1, "one line is enough: {ended:#?}");
}

#[test]
fn a_second_server_on_the_same_data_directory_is_refused() {
    let setup = Setup::new();
    let second = setup.beside();
    let data = setup.path("data").to_str().unwrap().to_owned();
    let server = setup.start();
    expect_refusal(&second, 1, &[&data]);
    server.client().quit();
    // The lock dies with its holder, however that ended.
    let setup = server.kill();
    setup.start().client().quit();
}

#[test]
fn a_port_in_use_is_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--listen-tls", "--metrics"] {
        expect_refusal(&Setup::new().flag(flag, address.as_str()), 1, &[&address]);
    }
}

/// `SO_REUSEPORT` would let a second server of the same user share the port in silence.
#[test]
fn a_port_in_use_by_another_ringpost_is_one_line() {
    let server = Setup::new().start();
    let address = server.tcp().to_string();
    expect_refusal(
        &Setup::new().flag("--listen", address.as_str()),
        1,
        &[&address],
    );
}

#[test]
fn a_missing_certificate_is_one_line_for_check_and_serve_alike() {
    let setup = Setup::new();
    let nowhere = setup.path("nowhere.crt");
    let key = setup.path("ecdsa.key");
    let setup = setup.pair(&nowhere, &key);
    let cert = nowhere.to_str().unwrap();
    expect_refusal(&setup, 1, &[cert]);
    let checked = setup.run("check");
    assert_eq!(checked.code, Some(1), "{checked:#?}");
    assert!(
        checked
            .err
            .iter()
            .chain(&checked.out)
            .any(|line| line.contains(cert)),
        "{checked:#?}"
    );
}

#[test]
fn sigterm_lets_a_transaction_finish_and_refuses_new_ones() {
    for shards in ["1", "2"] {
        let mut server = Setup::new().flag("--shards", shards).start();
        let metrics = server.listener("metrics");
        let mut busy = in_data(server.tcp());
        busy.send("Subject: under way\r\n");
        let mut idle = server.client();
        idle.ehlo();
        let mut tls_idle = server.tls_client();
        tls_idle.ehlo();
        assert_eq!(get(metrics, "/readyz").0, 200);

        server.signal(Signal::TERM);
        idle.reply().begins("421 4.3.2");
        idle.expect_end();
        tls_idle.reply().begins("421 4.3.2");
        tls_idle.expect_end();
        assert_eq!(get(metrics, "/readyz").0, 503);
        assert_eq!(get(metrics, "/healthz").0, 200);
        eventually("new connections are refused", || {
            match TcpStream::connect(server.tcp()) {
                Err(_) => Some(()),
                Ok(stream) => {
                    let mut client = Client::over(stream);
                    let said = client.read_some();
                    (said.is_empty() || said.starts_with(b"421")).then_some(())
                }
            }
        });

        busy.send("\r\nx\r\n.\r\n");
        busy.reply().begins("250 2.0.0");
        busy.reply().begins("421 4.3.2");
        busy.expect_end();
        assert_eq!(server.exit_status().code(), Some(0));
        assert_eq!(server.maildir("example.test", "u").messages().len(), 1);
    }
}

#[test]
fn sigint_drains_as_well() {
    let mut server = Setup::new().start();
    server.signal(Signal::INT);
    assert_eq!(server.exit_status().code(), Some(0));
}

#[test]
fn the_drain_timeout_bounds_the_drain() {
    let mut server = Setup::new().flag("--drain-timeout", "300ms").start();
    let mut busy = in_data(server.tcp());
    let started = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.exit_status().code(), Some(0));
    assert!(
        started.elapsed() >= Duration::from_millis(250),
        "it did not wait"
    );
    busy.read_to_end();
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut server = Setup::new().flag("--drain-timeout", "10m").start();
    let mut busy = in_data(server.tcp());
    server.signal(Signal::TERM);
    eventually("draining", || {
        (get(server.listener("metrics"), "/readyz").0 == 503).then_some(())
    });
    assert!(!server.has_exited());
    server.signal(Signal::TERM);
    server.exit_status();
    busy.read_to_end();
    assert!(server.maildir("example.test", "u").messages().is_empty());
    assert_eq!(
        files(&server.path("mail/example.test/u/new")),
        Vec::<PathBuf>::new()
    );
}

// ---------------------------------------------------------------- what the log must not say

#[test]
fn credentials_and_mail_are_never_in_a_log() {
    for (format, level) in [("text", "trace"), ("json", "trace"), ("text", "info")] {
        let server = Setup::new()
            .users(&[("alice", "wonderland")])
            .flag("--tcp-auth", "yes")
            .flag("--tls-auth", "yes")
            .flag("--log-format", format)
            .flag("--log-level", level)
            .start();
        for mut client in [
            server.client(),
            server.client().starttls(),
            server.tls_client(),
        ] {
            client.ehlo();
            client
                .say("AUTH PLAIN AGFsaWNlAGxvb2tpbmcgZ2xhc3M=")
                .begins("535");
            // Not base64, no credentials, a line that is not one of AUTH's: all must stay unsaid.
            client.say("AUTH PLAIN wonderland!").begins("501");
            client.say("AUTH LOGIN").begins("334");
            client.say("YWxpY2U=").begins("334");
            client.say("bG9va2luZyBnbGFzcw==").begins("535");
            client.say("AUTH PLAIN").begins("334");
            client.say("AGFsaWNlAHdvbmRlcmxhbmQ=").begins("235");
            client
                .deliver(
                    "a@b.test",
                    &["u@example.test"],
                    b"Subject: sesame\r\n\r\nopen sesame\r\n",
                )
                .begins("250");
            client.quit();
        }
        let log = server.log_to_end();
        assert!(!log.is_empty());
        for line in &log {
            for secret in [
                "wonderland",
                "looking glass",
                "d29uZGVybGFuZA",
                "bG9va2luZyBnbGFzcw",
                "AGFsaWNlAHdvbmRlcmxhbmQ",
                "AGFsaWNlAGxvb2tpbmcgZ2xhc3M",
                "argon2id",
                "sesame",
            ] {
                assert!(!line.contains(secret), "{secret:?} is in {line:?}");
            }
        }
    }
}

/// One line a session and one a transaction, with what an operator looks for.
#[test]
fn a_session_and_a_transaction_are_one_line_each() {
    let server = Setup::new().start();
    let mut client = server.client();
    let peer = client.socket().local_addr().unwrap().to_string();
    client.ehlo();
    let reply = client.deliver("a@b.test", &["u@example.test"], TEXT);
    let queue_id = reply.first().rsplit(' ').next().unwrap().to_owned();
    client.quit();
    let log = server.log_to_end();
    let about: Vec<&String> = log.iter().filter(|line| line.contains(&queue_id)).collect();
    assert_eq!(about.len(), 1, "{log:#?}");
    for word in ["a@b.test", "u@example.test", peer.as_str()] {
        assert!(about[0].contains(word), "{word}: {}", about[0]);
    }
    let sessions = log
        .iter()
        .filter(|line| line.contains(&peer) && !line.contains(&queue_id))
        .collect::<Vec<_>>();
    assert_eq!(sessions.len(), 1, "{log:#?}");
}

#[test]
fn json_log_lines_are_json() {
    let server = Setup::new().flag("--log-format", "json").start();
    server.client().quit();
    let log = server.log_to_end().join("\n");
    let script = "import json, sys\nfor line in sys.stdin:\n    json.loads(line)\n";
    support::programs::run(support::program("python3").args(["-c", script]), log).succeeded();
}
