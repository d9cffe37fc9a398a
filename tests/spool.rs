//! The spool from outside: what a 250 is worth when the process is killed, stopped, or finds its files changed.

#![cfg(test)]

mod support;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use support::maildir::files;
use support::numbered;
use support::programs::{Running, program};
use support::server::{Server, Setup, field};
use support::{Ledger, Load, Mount, TEXT, eventually};

// ---------------------------------------------------------------- what outlives a process

/// 50 times on the same directory: sessions send what they can, and the server is killed.
///
/// A reader takes delivered mail away while the server is down, so that a second delivery shows.
#[test]
fn fifty_kills_lose_nothing() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let ledger = Ledger::default();
    let mut setup = small_segments(Setup::new());
    for round in 0..KILLS {
        // Fewer shards than before adopt the logs of those that are no more.
        let shards = if round % 5 == 4 {
            [1, 3][rng.usize(..2)]
        } else {
            2
        };
        let server = setup.flag("--shards", shards.to_string()).start();
        let address = server.tcp();
        let (stop, refused) = (AtomicBool::new(false), AtomicU64::new(0));
        let awaited = ledger.accepted() + rng.usize(..40);
        let instant = Duration::from_micros(rng.u64(..5000));
        let mut loads: Vec<Load<'_>> = (0..SESSIONS).map(|_| load(&ledger, &mut rng)).collect();
        setup = thread::scope(|scope| {
            for load in &mut loads {
                scope.spawn(|| load.run(address, &stop, &refused));
            }
            eventually("some messages", || {
                (ledger.accepted() >= awaited).then_some(())
            });
            // An instant of no meaning, not a wait for anything.
            thread::sleep(instant);
            let setup = server.kill();
            stop.store(true, Ordering::Relaxed);
            setup
        });
        assert_eq!(refused.into_inner(), 0);
        ledger.collect(&setup.path("mail"), "example.test");
    }
    let server = setup.flag("--shards", "2").start();
    server.await_delivery();
    ledger.collect(&server.path("mail"), "example.test");
    let (duplicates, unannounced) = ledger.check();
    eprintln!(
        "{} messages got a 250, {duplicates} deliveries were duplicates, {unannounced} messages came that \
         nobody had been told of",
        ledger.accepted()
    );
    for mailbox in files(&server.path("mail/example.test")) {
        assert_eq!(files(&mailbox.join("tmp")), Vec::<PathBuf>::new());
    }
    await_no_large_files(&server);
}

const KILLS: usize = 50;
const SESSIONS: usize = 6;

fn load<'l>(ledger: &'l Ledger, rng: &mut fastrand::Rng) -> Load<'l> {
    Load {
        ledger,
        rng: rng.fork(),
        octets_max: 600 * 1024,
        mailboxes: 4,
    }
}

/// The smallest there may be, so that they are used again and again.
fn small_segments(setup: Setup) -> Setup {
    setup
        .flag("--max-recipients", "100")
        .flag("--spool-segment-bytes", "1M")
        .flag("--retry-schedule", "100ms")
}

#[test]
fn a_restart_delivers_what_lay_in_the_queue() {
    let server = Setup::new().flag("--retry-schedule", "100ms").start();
    let block = Block::put(&server.path("mail/example.test/u"));
    let large = [TEXT, &b"0123456789abcdef\r\n".repeat(30_000)].concat();
    let mut client = server.client();
    client.ehlo();
    for text in [TEXT, &large, TEXT] {
        let to = ["u@example.test", "v@example.test"];
        client.deliver("a@b.test", &to, text).begins("250 2.0.0");
    }
    client.quit();
    await_deferred(&server, 3);
    assert_eq!(large_files(&server.path("data")).len(), 1);
    // What was delivered is not delivered again.
    let server = server.stop().start();
    assert_eq!(queued(&server), 3);
    let server = server.kill().start();
    block.remove();
    assert_eq!(server.maildir("example.test", "u").messages().len(), 3);
    assert_eq!(server.maildir("example.test", "v").messages().len(), 3);
    server.maildir("example.test", "u").check();
    await_no_large_files(&server);
}

/// `--durability next-hop` without a next hop is as good as `disk`.
#[test]
fn durability_next_hop_keeps_what_it_cannot_pass_on() {
    let setup = Setup::new().flag("--durability", "next-hop");
    let block = Block::put(&setup.path("mail/example.test/u"));
    let server = setup.flag("--retry-schedule", "100ms").start();
    let sum = |name| server.scrape().sum(name, &[]);
    let promised = [("durability", "next-hop")];
    assert_eq!(server.scrape().sum("ringpost_spool_info", &promised), 1);
    let syncs = sum("ringpost_spool_syncs_total");
    let mut client = server.client();
    client.ehlo();
    client
        .deliver("a@b.test", &["u@example.test"], TEXT)
        .begins("250 2.0.0");
    assert!(sum("ringpost_spool_syncs_total") > syncs);
    let server = server.kill().start();
    block.remove();
    assert_eq!(server.maildir("example.test", "u").messages().len(), 1);
}

/// `--durability none` keeps mail in memory, and puts it away when the server ends as it should.
#[test]
fn durability_none_outlives_a_clean_end() {
    let setup = Setup::new().flag("--durability", "none");
    let block = Block::put(&setup.path("mail/example.test/u"));
    let server = setup.flag("--retry-schedule", "1h").start();
    let promised = server
        .scrape()
        .sum("ringpost_spool_info", &[("durability", "none")]);
    assert_eq!(promised, 1);
    let mut client = server.client();
    client.ehlo();
    for _ in 0..5 {
        client
            .deliver("a@b.test", &["u@example.test"], TEXT)
            .begins("250 2.0.0");
    }
    let server = server.stop().start();
    assert_eq!(queued(&server), 5);
    // They were due in an hour; now nobody is to wait that long.
    let server = server.stop().flag("--retry-schedule", "100ms").start();
    block.remove();
    assert_eq!(server.maildir("example.test", "u").messages().len(), 5);
}

#[test]
fn files_below_the_data_directory_are_private() {
    let server = small_segments(Setup::new()).flag("--shards", "2").start();
    let block = Block::put(&server.path("mail/example.test/u"));
    let large = [TEXT, &b"0123456789abcdef\r\n".repeat(30_000)].concat();
    let mut client = server.client();
    client.ehlo();
    for text in [TEXT, &large] {
        client
            .deliver("a@b.test", &["u@example.test"], text)
            .begins("250 2.0.0");
    }
    assert_eq!(large_files(&server.path("data")).len(), 1);
    let mut seen = 0;
    walk(&server.path("data"), &mut |path| {
        let metadata = fs::symlink_metadata(path).unwrap();
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        let mode = metadata.permissions().mode() & 0o777;
        assert_eq!(mode, expected, "{} has mode {mode:o}", path.display());
        seen += 1;
    });
    assert!(seen > 8, "{seen} files and directories");
    drop(block);
}

fn walk(path: &Path, look: &mut impl FnMut(&Path)) {
    look(path);
    if path.is_dir() {
        for path in files(path) {
            walk(&path, look);
        }
    }
}

/// What an operator must not do, and does: nobody gets a 250 for what goes into files without a name, and what was
/// accepted before is delivered while the server runs.
#[test]
fn a_spool_removed_under_the_server_is_452_and_heals() {
    let server = small_segments(Setup::new()).start();
    let block = Block::put(&server.path("mail/example.test/u"));
    deliver_one(&server);
    fs::remove_dir_all(server.path("data/spool")).unwrap();
    let mut client = server.client();
    client.ehlo();
    let to = ["u@example.test"];
    client.deliver("a@b.test", &to, TEXT).begins("452 4.3.0");
    let line = server
        .log()
        .await_line("why", |line| line.contains("somebody removed it"));
    assert!(line.contains(" ERROR "), "{line}");
    let large = [TEXT, &b"0123456789abcdef\r\n".repeat(30_000)].concat();
    for text in [TEXT, &large] {
        eventually("mail is accepted", || {
            let reply = client.deliver("a@b.test", &to, text);
            (reply.code == 250).then_some(())
        });
    }
    assert_eq!(queued(&server), 3);
    // The new files are as good as any.
    let server = server.kill().start();
    assert_eq!(queued(&server), 2);
    block.remove();
    assert_eq!(server.maildir("example.test", "u").messages().len(), 2);
}

// ---------------------------------------------------------------- what a start finds

/// A second server on a directory in use is in `start_and_end`.
#[test]
fn a_segment_of_another_version_refuses_the_start() {
    let setup = Setup::new();
    let directory = setup.path("data/spool/shard-0");
    let server = setup.start();
    deliver_one(&server);
    let setup = server.stop();
    let segment = used_segment(&directory, "");
    // The header lies there twice, so that one that rots is no other version.
    let versions = [8, 520].map(|at| (at, patch(&segment, at, &[99])));
    let ended = setup.run("serve");
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let others: Vec<&String> = ended
        .err
        .iter()
        .filter(|line| !line.contains(" INFO "))
        .collect();
    assert_eq!(others.len(), 1, "{ended:#?}");
    assert!(
        others[0].contains(segment.to_str().unwrap()) && others[0].contains("version 99"),
        "{others:?}"
    );
    // Nothing was changed by it.
    for (at, version) in versions {
        patch(&segment, at, &version);
    }
    let server = setup.start();
    deliver_one(&server);
    assert_eq!(server.maildir("example.test", "u").messages().len(), 2);
}

#[test]
fn a_damaged_entry_is_set_aside_and_the_rest_delivered() {
    let setup = Setup::new().flag("--retry-schedule", "100ms");
    let ledger = Ledger::default();
    let mut rng = fastrand::Rng::with_seed(7);
    let block = Block::put(&setup.path("mail/example.test"));
    let server = setup.start();
    let mut client = server.client();
    client.ehlo();
    for _ in 0..MESSAGES {
        let number = ledger.next_number();
        let text = numbered::text(number, 2000, &mut rng);
        client
            .deliver("a@b.test", &["u@example.test"], &text)
            .begins("250 2.0.0");
    }
    client.quit();
    let setup = server.stop();
    let directory = setup.path("data/spool/shard-0");
    // In the text of a message in the middle.
    let needle = format!("\nNumber: {}\r\n", MESSAGES / 2);
    let segment = used_segment(&directory, &needle[1..]);
    let octets = fs::read(&segment).unwrap();
    let at = octets
        .windows(needle.len())
        .position(|window| window == needle.as_bytes())
        .unwrap_or_else(|| first_of(&octets, &needle[1..]));
    patch(&segment, u64::try_from(at + 100).unwrap(), b"!!!!");
    block.remove();
    let server = setup.start();
    let line = server
        .log()
        .await_line("damage", |line| line.contains("damaged"));
    assert!(
        line.contains(" ERROR ") && line.contains(segment.to_str().unwrap()),
        "{line}"
    );
    server.await_delivery();
    let errors = server.log().lines();
    let errors = errors.iter().filter(|line| line.contains(" ERROR "));
    assert_eq!(errors.count(), 1, "{:#?}", server.log().lines());
    let delivered = server.maildir("example.test", "u").messages();
    let mut numbers: Vec<u64> = delivered
        .iter()
        .map(|m| numbered::number_of(&m.path))
        .collect();
    numbers.sort_unstable();
    let expected: Vec<u64> = (0..MESSAGES).filter(|n| *n != MESSAGES / 2).collect();
    assert_eq!(numbers, expected);
    let aside = files(&directory.join("damaged"));
    assert_eq!(aside.len(), 1, "{aside:?}");
    let kept = fs::read(&aside[0]).unwrap();
    let body = needle.trim();
    assert!(
        kept.windows(body.len()).any(|w| w == body.as_bytes()),
        "what is left of the message is not in {aside:?}"
    );
    // It serves on, and what is new is not affected.
    deliver_one(&server);
}

const MESSAGES: u64 = 20;

fn first_of(octets: &[u8], needle: &str) -> usize {
    let mut windows = octets.windows(needle.len());
    windows.position(|w| w == needle.as_bytes()).unwrap()
}

/// A segment in use, by its header, that holds this text.
fn used_segment(directory: &Path, text: &str) -> PathBuf {
    let used = |path: &PathBuf| {
        let octets = fs::read(path).unwrap_or_default();
        octets.starts_with(b"ringpost")
            && octets.get(16..24) == Some(&1_u64.to_le_bytes())
            && (text.is_empty() || octets.windows(text.len()).any(|w| w == text.as_bytes()))
    };
    let mut used = files(directory).into_iter().filter(used);
    used.next().unwrap()
}

/// Writes over what is there, and gives that back.
fn patch(path: &Path, offset: u64, octets: &[u8]) -> Vec<u8> {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut before = vec![0; octets.len()];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut before).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(octets).unwrap();
    before
}

// ---------------------------------------------------------------- large messages

/// Each way in which a message of several parts can come to nothing.
#[derive(Debug, Clone, Copy)]
enum Abandon {
    Rset,
    Ehlo,
    Quit,
    Closed,
    Reset,
    OverTheLimit,
    Killed,
}

#[test]
fn an_abandoned_large_message_leaves_no_file() {
    let mut setup = Setup::new()
        .flag("--max-message-bytes", "1M")
        .flag("--shards", "2");
    for abandon in [
        Abandon::Rset,
        Abandon::Ehlo,
        Abandon::Quit,
        Abandon::Closed,
        Abandon::Reset,
        Abandon::OverTheLimit,
        Abandon::Killed,
    ] {
        let server = setup.start();
        let mut client = server.client();
        client.ehlo();
        client.say("MAIL FROM:<a@b.test>").begins("250");
        client.say("RCPT TO:<u@example.test>").begins("250");
        let chunk = b"0123456789abcdef\r\n".repeat(40_000);
        client.send(format!("BDAT {}\r\n", chunk.len()));
        client.send(&chunk);
        client.expect(250);
        let begun = large_files(&server.path("data"));
        assert_eq!(begun.len(), 1, "{abandon:?}: {begun:?}");
        let server = match abandon {
            Abandon::Rset => {
                client.say("RSET").begins("250");
                server
            }
            Abandon::Ehlo => {
                client.ehlo();
                server
            }
            Abandon::Quit => {
                client.quit();
                server
            }
            Abandon::Closed => {
                drop(client);
                server
            }
            Abandon::Reset => {
                client.reset();
                server
            }
            Abandon::OverTheLimit => {
                client.send(format!("BDAT {} LAST\r\n", chunk.len()));
                client.send(&chunk);
                client.reply().begins("552 5.3.4");
                client.quit();
                server
            }
            Abandon::Killed => server.kill().start(),
        };
        eventually(&format!("no file is left: {abandon:?}"), || {
            large_files(&server.path("data")).is_empty().then_some(())
        });
        assert_eq!(server.scrape().sum("ringpost_queue_messages", &[]), 0);
        setup = server.stop();
        assert!(files(&setup.path("mail")).is_empty());
    }
}

// ---------------------------------------------------------------- what is counted

#[test]
fn metrics_move_by_what_happened() {
    let server = Setup::new().flag("--retry-schedule", "100ms").start();
    let block = Block::put(&server.path("mail/example.test/blocked"));
    let before = server.scrape();
    let moved = |name: &str| server.scrape().sum(name, &[]) - before.sum(name, &[]);
    let mut client = server.client();
    client.ehlo();
    for _ in 0..10 {
        client
            .deliver("a@b.test", &["u@example.test"], TEXT)
            .begins("250");
    }
    let to = ["u@example.test", "blocked@example.test"];
    client.deliver("a@b.test", &to, TEXT).begins("250");
    // One by one, so each is a batch and a sync of its own; notes go along or come later.
    assert_eq!(moved("ringpost_spool_messages_total"), 11);
    let (batches, syncs) = (
        moved("ringpost_spool_batches_total"),
        moved("ringpost_spool_syncs_total"),
    );
    assert!(
        batches >= 11 && syncs >= 11,
        "{batches} batches, {syncs} syncs"
    );
    assert!(moved("ringpost_spool_bytes_total") > 11 * 17);
    await_deferred(&server, 1);
    assert_eq!(moved("ringpost_queue_recipients_delivered_total"), 11);
    assert!(moved("ringpost_queue_recipients_deferred_total") >= 1);
    block.remove();
    server.await_delivery();
    assert_eq!(moved("ringpost_queue_recipients_delivered_total"), 12);
    assert_eq!(moved("ringpost_spool_messages_total"), 11);
    assert_eq!(moved("ringpost_spool_write_failures_total"), 0);
    let after = server.scrape();
    for gauge in [
        "ringpost_queue_messages",
        "ringpost_queue_attempts_under_way",
    ] {
        assert!(after.has(gauge), "{gauge}");
        assert_eq!(after.sum(gauge, &[]), 0, "{gauge}");
    }
}

/// 64 sessions at once: their messages share syncs.
///
/// The syncs go through the ring, as writes with RWF_DSYNC, so no system call tells of them. Three things are
/// looked at instead: the server's own metric; the flushes that the block device below the data directory was
/// really asked for; and, by strace, that there are no further syncs by system call.
#[test]
fn sixty_four_sessions_share_syncs() {
    let setup = Setup::new();
    let mount = Mount::ext4(&setup, "data", 256 << 20);
    let server = setup.flag("--deliver", "discard").start();
    let trace = Trace::attach(&server);
    let text = [TEXT, &b"0123456789abcd\r\n".repeat(127)].concat();
    let (before, flushes) = (server.scrape(), mount.as_ref().map(Mount::flushes));
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                let mut client = server.client();
                client.ehlo();
                for _ in 0..20 {
                    client
                        .deliver("a@b.test", &["u@example.test"], &text)
                        .begins("250");
                }
                client.quit();
            });
        }
    });
    let after = server.scrape();
    let moved = |name: &str| after.sum(name, &[]) - before.sum(name, &[]);
    let messages = moved("ringpost_spool_messages_total");
    let (batches, syncs) = (
        moved("ringpost_spool_batches_total"),
        moved("ringpost_spool_syncs_total"),
    );
    assert_eq!(messages, 64 * 20);
    eprintln!("{messages} messages: {batches} batches, {syncs} syncs by the metric");
    assert!(syncs >= batches, "{syncs} syncs for {batches} batches");
    assert!(
        syncs * 3 < messages,
        "{syncs} syncs for {messages} messages"
    );
    if let (Some(mount), Some(flushes)) = (&mount, flushes) {
        let flushes = mount.flushes() - flushes;
        eprintln!("{flushes} flushes by the block device");
        // Batches on fresh blocks are a commit of the file system's journal each, of one flush or two.
        assert!(
            flushes >= batches / 2,
            "syncs did not reach the device: {flushes}"
        );
        assert!(
            flushes < messages,
            "{flushes} flushes for {messages} messages"
        );
    }
    if let Some(trace) = trace {
        let calls = trace.end();
        let calls_of = |name: &str| calls.iter().any(|line| line.contains(name));
        assert!(calls_of("io_uring_enter"), "{calls:#?}");
        for name in ["fsync", "fdatasync", "sync_file_range", "syncfs", "msync"] {
            assert!(!calls_of(name), "{calls:#?}");
        }
    }
    // The image is unmounted behind its server.
    drop(server);
}

/// `strace -c` on a running server.
struct Trace {
    running: Running,
    pid: u32,
}

impl Trace {
    /// `None`, with the reason printed, where nothing may be traced.
    fn attach(server: &Server) -> Option<Trace> {
        let mut running = Running::start(
            program("strace")
                .args([
                    "-f",
                    "-c",
                    "-e",
                    "trace=io_uring_enter,fsync,fdatasync,sync_file_range,syncfs,msync",
                ])
                .args(["-p", &server.pid().to_string()]),
        );
        running.close_input();
        let pid = running.pid();
        let attached = eventually("strace is there, or says why not", || {
            let lines = running.err.lines();
            let says = |word: &str| lines.iter().any(|line| line.contains(word));
            if says("attached") {
                return Some(true);
            }
            running.has_ended().then_some(false)
        });
        if !attached {
            eprintln!("skipped: strace: {:?}", running.err.lines());
            return None;
        }
        Some(Trace { running, pid })
    }

    /// Lets go of the server; the table that it prints.
    fn end(self) -> Vec<String> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::INT).unwrap();
        let ended = self.running.wait();
        ended.text().lines().map(str::to_owned).collect()
    }
}

// ---------------------------------------------------------------- helpers

/// A file where a directory should be: no permissions involved, so it holds for root as well.
struct Block(PathBuf);

impl Block {
    fn put(path: &Path) -> Block {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "in the way").unwrap();
        Block(path.to_path_buf())
    }

    fn remove(self) {
        fs::remove_file(&self.0).unwrap();
    }
}

fn deliver_one(server: &Server) {
    let mut client = server.client();
    client.ehlo();
    client
        .deliver("a@b.test", &["u@example.test"], TEXT)
        .begins("250 2.0.0");
    client.quit();
}

fn queued(server: &Server) -> u64 {
    server.scrape().sum("ringpost_queue_messages", &[])
}

/// Waits until so many messages are in the queue and each was deferred, with a reason in the log.
fn await_deferred(server: &Server, count: u64) {
    eventually("all is delivered that can be", || {
        (queued(server) == count).then_some(())
    });
    let line = server
        .log()
        .await_line("deferred", |line| line.contains("outcome=deferred"));
    assert!(line.contains(" WARN delivery "), "{line}");
    let reason = field(&line, "reason").unwrap();
    assert!(reason.contains("cannot "), "{line}");
}

fn large_files(data: &Path) -> Vec<PathBuf> {
    let shards = files(&data.join("spool"));
    shards
        .iter()
        .flat_map(|shard| files(&shard.join("large")))
        .collect()
}

/// A file goes when it is noted that its message is done.
fn await_no_large_files(server: &Server) {
    eventually("no file of a large message is left", || {
        large_files(&server.path("data")).is_empty().then_some(())
    });
}
