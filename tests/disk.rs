//! A disk that is full, read-only or in the way: nothing that got a 250 is lost, nobody gets one for what is not
//! safe, and all heals by itself.
//!
//! A Maildir that cannot be written keeps its mail in the queue; a spool that cannot be written refuses mail with
//! a 4yz reply. Skipped, with the reason printed, where no file system can be mounted (not root, or no
//! `CAP_SYS_ADMIN`).

#![cfg(test)]

mod support;

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use support::maildir::files;
use support::mount::fill;
use support::programs::{program, run};
use support::server::{Server, Setup, field};
use support::{Ledger, Load, Maildir, Mount, TEXT, eventually, raise_open_files};

// ---------------------------------------------------------------- a Maildir that cannot be written

#[test]
fn a_full_maildir_keeps_mail_in_the_queue() {
    let setup = Setup::new();
    let Some(mount) = Mount::tmpfs(&setup, "small", "1m") else {
        return;
    };
    let server = deliver_below(setup, &mount.path);
    let maildir = |local_part: &str| Maildir::new(mount.path.join("example.test").join(local_part));
    let mut client = server.client();
    client.ehlo();
    let to = ["u@example.test"];
    client.deliver("a@b.test", &to, TEXT).begins("250");
    server.await_delivery();
    let ballast = mount.path.join("ballast");
    fill(&ballast);
    let text = [TEXT, &b"0123456789abcdef\r\n".repeat(4000)].concat();
    client.deliver("a@b.test", &to, &text).begins("250");
    // Recipients that have no directory yet.
    client
        .deliver("a@b.test", &["new@example.test", "v@example.test"], &text)
        .begins("250");
    await_deferred(&server, 2, "No space left on device");
    assert_eq!(maildir("u").messages().len(), 1);
    // Nothing half is shown, and what an attempt wrote is taken away again; one may be under way.
    eventually("nothing lies in tmp", || {
        let tmp = mount.path.join("example.test/u/tmp");
        files(&tmp).is_empty().then_some(())
    });
    client.say("NOOP").begins("250");
    fs::remove_file(&ballast).unwrap();
    server.await_delivery();
    client.deliver("a@b.test", &to, &text).begins("250");
    client.quit();
    server.await_delivery();
    for (local_part, count) in [("u", 3), ("new", 1), ("v", 1)] {
        assert_eq!(maildir(local_part).messages().len(), count, "{local_part}");
        maildir(local_part).check();
    }
    drop(server);
}

#[test]
fn a_read_only_maildir_keeps_mail_in_the_queue() {
    let setup = Setup::new();
    let Some(mount) = Mount::tmpfs(&setup, "small", "1m") else {
        return;
    };
    let server = deliver_below(setup, &mount.path);
    let mut client = server.client();
    client.ehlo();
    client
        .deliver("a@b.test", &["u@example.test"], TEXT)
        .begins("250");
    server.await_delivery();
    mount.remount("ro");
    for to in ["u@example.test", "new@example.test"] {
        client.deliver("a@b.test", &[to], TEXT).begins("250");
    }
    await_deferred(&server, 2, "Read-only file system");
    mount.remount("rw");
    server.await_delivery();
    client
        .deliver("a@b.test", &["u@example.test"], TEXT)
        .begins("250");
    client.quit();
    server.await_delivery();
    for (local_part, count) in [("u", 3), ("new", 1)] {
        let maildir = Maildir::new(mount.path.join("example.test").join(local_part));
        assert_eq!(maildir.messages().len(), count);
        maildir.check();
    }
    drop(server);
}

/// A file where a directory should be: no permissions involved, so it holds for root as well.
#[test]
fn a_maildir_that_cannot_be_made_delays_nobody_else() {
    let server = Setup::new().flag("--retry-schedule", "100ms").start();
    fs::create_dir_all(server.path("mail/example.test")).unwrap();
    let in_the_way = server.path("mail/example.test/u");
    fs::write(&in_the_way, "in the way").unwrap();
    let mut client = server.client();
    client.ehlo();
    let to = ["u@example.test", "v@example.test"];
    client.deliver("a@b.test", &to, TEXT).begins("250");
    client
        .deliver("a@b.test", &["w@example.test"], TEXT)
        .begins("250");
    client.quit();
    await_deferred(&server, 1, "cannot ");
    for local_part in ["v", "w"] {
        Maildir::new(server.path("mail/example.test").join(local_part)).only();
    }
    fs::remove_file(&in_the_way).unwrap();
    for local_part in ["u", "v", "w"] {
        server.maildir("example.test", local_part).only();
    }
}

fn deliver_below(setup: Setup, path: &Path) -> Server {
    setup
        .flag("--deliver", format!("maildir:{}", path.display()))
        .flag("--retry-schedule", "100ms")
        .start()
}

/// Waits until so many messages wait, and each attempt at them says why in the log.
fn await_deferred(server: &Server, count: u64, reason: &str) {
    let line = server
        .log()
        .await_line("deferred", |line| line.contains("outcome=deferred"));
    assert!(line.contains(" WARN delivery "), "{line}");
    let logged = field(&line, "reason").unwrap();
    assert!(logged.contains(reason), "{line}");
    eventually("all else is delivered", || {
        (queued(server) == count).then_some(())
    });
}

fn queued(server: &Server) -> u64 {
    server.scrape().sum("ringpost_queue_messages", &[])
}

// ---------------------------------------------------------------- a spool that cannot be written

/// Data directory and Maildir on one small file system, filled by the mail that comes in.
#[test]
fn a_full_data_directory_is_452_loses_nothing_and_heals() {
    let setup = small_segments(Setup::new());
    let Some(mount) = Mount::ext4(&setup, "small", 48 << 20) else {
        return;
    };
    let ballast = mount.path.join("ballast");
    fs::write(&ballast, vec![0; 16 << 20]).unwrap();
    let mail = mount.path.join("mail");
    let server = setup
        .flag("--shards", "2")
        .flag("--data-dir", mount.path.join("data").to_str().unwrap())
        .flag("--deliver", format!("maildir:{}", mail.display()))
        .start();
    let ledger = Ledger::default();
    let refused = load_while(&server, &ledger, |refused| {
        eventually("several refusals", || {
            (refused.load(Ordering::Relaxed) >= 50).then_some(())
        });
    });
    assert!(refused >= 50 && ledger.accepted() > 50, "{refused} refused");
    expect_refusal(&server, "452 4.3.1");
    fs::remove_file(&ballast).unwrap();
    await_acceptance(&server);
    server.await_delivery();
    ledger.collect(&mail, "example.test");
    let (duplicates, unannounced) = ledger.check();
    assert_eq!((duplicates, unannounced), (0, 0));
    expect_empty_tmp(&mail);
    expect_no_large_files(&mount.path.join("data"));
    drop(server);
}

/// A file system that was full when the server was stopped is full when it starts again: then above all it is to
/// start, since it is what makes space.
#[test]
fn a_full_data_directory_does_not_keep_the_server_down() {
    let setup = small_segments(Setup::new());
    let Some(mount) = Mount::ext4(&setup, "small", 32 << 20) else {
        return;
    };
    let in_the_way = setup.path("mail/example.test");
    fs::create_dir(setup.path("mail")).unwrap();
    fs::write(&in_the_way, "in the way").unwrap();
    let setup = setup.flag("--data-dir", mount.path.join("data").to_str().unwrap());
    let server = setup.start();
    let mut client = server.client();
    client.ehlo();
    let to = ["u@example.test"];
    for _ in 0..5 {
        client.deliver("a@b.test", &to, TEXT).begins("250");
    }
    client.quit();
    let setup = server.stop();
    fill(&mount.path.join("ballast"));
    let server = setup.start();
    fs::remove_file(&in_the_way).unwrap();
    assert_eq!(server.maildir("example.test", "u").messages().len(), 5);
    drop(server);
}

/// The kernel refuses to remount what a server writes to (EBUSY), so it is made immutable, directory by directory
/// and file by file: then every write fails, to files that are open as well.
#[test]
fn a_data_directory_read_only_under_load_is_4yz_and_heals() {
    let setup = small_segments(Setup::new());
    let Some(mount) = Mount::ext4(&setup, "small", 96 << 20) else {
        return;
    };
    let data = mount.path.join("data");
    let server = setup
        .flag("--shards", "2")
        .flag("--data-dir", data.to_str().unwrap())
        .start();
    let spool = data.join("spool");
    let immutable = |how: &str| {
        let ended = run(program("chattr").args(["-R", how]).arg(&spool), "");
        // A file that went meanwhile is no fault.
        ended.code == Some(0) || ended.err.contains("No such file")
    };
    let ledger = Ledger::default();
    let mut possible = true;
    let refused = load_while(&server, &ledger, |refused| {
        eventually("some messages", || (ledger.accepted() >= 30).then_some(()));
        possible = immutable("+i");
        if !possible {
            return;
        }
        eventually("several refusals", || {
            (refused.load(Ordering::Relaxed) >= 20).then_some(())
        });
        expect_refusal(&server, "45");
        assert!(immutable("-i"));
        let accepted = ledger.accepted();
        eventually("mail is accepted again", || {
            (ledger.accepted() >= accepted + 20).then_some(())
        });
    });
    if !possible {
        eprintln!("skipped: chattr +i is not allowed here");
        return;
    }
    assert!(refused >= 20);
    server.await_delivery();
    ledger.collect(&server.path("mail"), "example.test");
    let (duplicates, unannounced) = ledger.check();
    assert_eq!((duplicates, unannounced), (0, 0));
    expect_empty_tmp(&server.path("mail"));
    let server = server.kill().start();
    server.await_delivery();
    expect_no_large_files(&data);
    drop(server);
}

/// The power goes: the file system stops where it is (`EXT4_IOC_SHUTDOWN` without a flush of its journal), and what
/// was not synced is not on its device.
#[test]
fn a_power_cut_loses_nothing() {
    let mut setup = small_segments(Setup::new());
    let Some(mount) = Mount::ext4(&setup, "small", 128 << 20) else {
        return;
    };
    let mail = mount.path.join("mail");
    setup = setup
        .flag("--shards", "2")
        .flag("--data-dir", mount.path.join("data").to_str().unwrap())
        .flag("--deliver", format!("maildir:{}", mail.display()));
    let ledger = Ledger::default();
    for round in 1..=5 {
        let server = setup.start();
        load_while(&server, &ledger, |_| {
            eventually("some messages", || {
                (ledger.accepted() >= round * 60).then_some(())
            });
            shut_down(&mount.path);
        });
        setup = server.kill();
        mount.again();
    }
    let server = setup.start();
    server.await_delivery();
    ledger.collect(&mail, "example.test");
    let (duplicates, unannounced) = ledger.check();
    eprintln!(
        "{} messages got a 250, {duplicates} deliveries were duplicates, {unannounced} messages came that \
         nobody had been told of",
        ledger.accepted()
    );
    drop(server);
}

/// `_IOR('X', 125, __u32)` with `EXT4_GOING_FLAGS_NOLOGFLUSH`.
fn shut_down(path: &Path) {
    let script = "import fcntl, os, struct, sys\n\
                  fd = os.open(sys.argv[1], os.O_RDONLY)\n\
                  fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))\n";
    run(program("python3").args(["-c", script]).arg(path), "").succeeded();
}

/// Descriptors run out while mail comes in and is delivered.
#[test]
fn no_descriptors_left_loses_nothing_and_heals() {
    raise_open_files();
    let server = small_segments(Setup::new())
        .open_files_max(128)
        .flag("--max-sessions", "4096")
        .start();
    let free = server.descriptors();
    let ledger = Ledger::default();
    load_while(&server, &ledger, |_| {
        eventually("some messages", || (ledger.accepted() >= 20).then_some(()));
        let address = server.tcp();
        let held: Vec<TcpStream> = (0..400)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let accepted = ledger.accepted();
        // Small ones need no descriptor but the log's.
        eventually("mail goes on", || {
            (ledger.accepted() >= accepted + 20).then_some(())
        });
        drop(held);
    });
    await_acceptance(&server);
    server.await_delivery();
    eventually("descriptors are given back", || {
        (server.descriptors() <= free + SEGMENTS_OPEN_MAX).then_some(())
    });
    ledger.collect(&server.path("mail"), "example.test");
    let (duplicates, unannounced) = ledger.check();
    assert_eq!((duplicates, unannounced), (0, 0));
    expect_empty_tmp(&server.path("mail"));
    expect_no_large_files(&server.path("data"));
}

/// A log holds its segments open.
const SEGMENTS_OPEN_MAX: usize = 8;

/// A queue that nobody takes anything out of is bounded, and goes on where it is emptied.
#[test]
fn spool_max_bytes_is_452_and_heals() {
    let setup = small_segments(Setup::new()).flag("--spool-max-bytes", "6M");
    let in_the_way = setup.path("mail/example.test");
    fs::create_dir(setup.path("mail")).unwrap();
    fs::write(&in_the_way, "in the way").unwrap();
    let server = setup.start();
    let ledger = Ledger::default();
    let refused = load_while(&server, &ledger, |refused| {
        eventually("several refusals", || {
            (refused.load(Ordering::Relaxed) >= 50).then_some(())
        });
    });
    assert!(refused >= 50 && ledger.accepted() > 50, "{refused} refused");
    expect_refusal(&server, "452 4.3.1");
    let taken = |server: &Server| server.scrape().sum("ringpost_spool_disk_bytes", &[]);
    assert!(taken(&server) <= 6 << 20);
    // A restart finds it as it was, and goes by the same bound.
    let server = server.stop().start();
    assert_eq!(queued(&server), u64::try_from(ledger.accepted()).unwrap());
    assert!(taken(&server) <= 6 << 20);
    expect_refusal(&server, "452 4.3.1");
    fs::remove_file(&in_the_way).unwrap();
    await_acceptance(&server);
    server.await_delivery();
    ledger.collect(&server.path("mail"), "example.test");
    let (duplicates, unannounced) = ledger.check();
    assert_eq!((duplicates, unannounced), (0, 0));
    expect_no_large_files(&server.path("data"));
}

/// Without a promise, too, mail is not thrown away for want of room in the spool: it stays in memory, and when that
/// is spent nothing more is taken.
#[test]
fn durability_none_loses_nothing_to_a_full_spool() {
    let setup = small_segments(Setup::new())
        .flag("--durability", "none")
        .flag("--spool-max-bytes", "3M")
        .flag("--mail-memory", "2M");
    let in_the_way = setup.path("mail/example.test");
    fs::create_dir(setup.path("mail")).unwrap();
    fs::write(&in_the_way, "in the way").unwrap();
    let server = setup.start();
    let ledger = Ledger::default();
    load_while(&server, &ledger, |refused| {
        eventually("several refusals", || {
            (refused.load(Ordering::Relaxed) >= 50).then_some(())
        });
        server
            .log()
            .await_line("why", |line| line.contains("message stays in memory"));
    });
    assert_eq!(queued(&server), u64::try_from(ledger.accepted()).unwrap());
    fs::remove_file(&in_the_way).unwrap();
    server.await_delivery();
    await_acceptance(&server);
    ledger.collect(&server.path("mail"), "example.test");
    assert_eq!(ledger.check(), (0, 0));
}

/// The smallest there may be, so that they are used again and again.
fn small_segments(setup: Setup) -> Setup {
    setup
        .flag("--max-recipients", "100")
        .flag("--spool-segment-bytes", "1M")
        .flag("--retry-schedule", "100ms")
}

/// Has four sessions send what they can while `then` runs; how many messages were refused.
fn load_while(server: &Server, ledger: &Ledger, then: impl FnOnce(&AtomicU64)) -> u64 {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (stop, refused) = (AtomicBool::new(false), AtomicU64::new(0));
    let address = server.tcp();
    thread::scope(|scope| {
        // Also when `then` panics.
        let _stop = Stop(&stop);
        for _ in 0..4 {
            let mut load = Load {
                ledger,
                rng: rng.fork(),
                octets_max: 600 * 1024,
                mailboxes: 4,
            };
            let (stop, refused) = (&stop, &refused);
            scope.spawn(move || load.run(address, stop, refused));
        }
        then(&refused);
    });
    refused.into_inner()
}

struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A large message: a small one may find room that is left.
const LARGE: &[u8] = &[b'x'; 900];

fn send_large(server: &Server) -> support::Reply {
    let mut client = server.client();
    client.ehlo();
    let text = [TEXT, &[LARGE, b"\r\n"].concat().repeat(600)].concat();
    let reply = client.deliver("a@b.test", &["probe@mx.test"], &text);
    client.say("NOOP").begins("250");
    client.quit();
    reply
}

fn expect_refusal(server: &Server, reply: &str) {
    send_large(server).begins(reply);
}

fn await_acceptance(server: &Server) {
    eventually("mail is accepted", || {
        (send_large(server).code == 250).then_some(())
    });
}

fn expect_empty_tmp(mail: &Path) {
    for mailbox in files(&mail.join("example.test")) {
        assert_eq!(files(&mailbox.join("tmp")), Vec::<PathBuf>::new());
    }
}

fn expect_no_large_files(data: &Path) {
    eventually("no file of a large message is left", || {
        let shards = files(&data.join("spool"));
        let mut large = shards.iter().flat_map(|shard| files(&shard.join("large")));
        large.next().is_none().then_some(())
    });
}
