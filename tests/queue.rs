//! `ringpost queue` from outside: on a running server, on a stopped one's directory, and without either.

#![cfg(test)]

#[path = "support/command_line.rs"]
mod command_line;

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use command_line::{Outcome, Run, assert_lines};
use ringpost::ring::{self, RingSettings};
use ringpost::smtp::data::{Budget, MailData};
use ringpost::smtp::dsn::{MailDsn, Notify, RcptDsn, Ret};
use ringpost::smtp::envelope::{Body, Envelope, Recipient};
use ringpost::spool::disk::WriteSync;
use ringpost::spool::disk::on_ring::OnRing;
use ringpost::spool::{
    Accepted, Fate, Held, Log, LogDirectory, LogSettings, Meters, Progress, Purpose, QueueId,
    QueueIds, Space, recover,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::server::{BINARY, Server};
use support::{Setup, eventually};

/// An id that no message has.
const NOBODY: &str = "0000000000200";

/// Runs `ringpost queue` on this data directory.
fn queue(data: &Path, arguments: &[&str]) -> Outcome {
    let mut words = vec!["queue"];
    words.extend(arguments);
    words.extend(["--data-dir", data.to_str().unwrap()]);
    Run::new().run(&words)
}

fn data(server: &Server) -> PathBuf {
    server.path("data")
}

/// What holds of an empty queue, however it is looked at.
#[track_caller]
fn assert_empty(data: &Path) {
    assert_eq!(queue(data, &["list"]).fine(), "queue is empty\n");
    assert_eq!(queue(data, &["list", "--json"]).fine(), "");
    for arguments in [&["show", NOBODY][..], &["show", NOBODY, "--json"]] {
        let text = format!("no message {NOBODY} in the queue");
        queue(data, arguments).fails(1, "show", &text);
    }
}

#[test]
fn an_empty_queue_is_told_of_a_running_and_of_a_stopped_server() {
    for shards in ["1", "2"] {
        let server = Setup::new().flag("--shards", shards).start();
        let data = data(&server);
        assert_empty(&data);
        for verb in ["retry", "remove", "hold", "release"] {
            let text = format!("no message {NOBODY} in the queue");
            queue(&data, &[verb, NOBODY]).fails(1, verb, &text);
            queue(&data, &[verb, NOBODY, "--json"]).fails(1, verb, &text);
        }
        let all = queue(&data, &["retry", "--all"]).fine();
        assert_eq!(all, "0 messages will be tried now\n");
        let all = queue(&data, &["retry", "--all", "--json"]).fine();
        assert_eq!(all, "{\"done\":0}\n");

        let _directory = server.stop();
        assert!(!data.join("control").exists());
        assert_empty(&data);
        for arguments in [
            &["retry", NOBODY][..],
            &["retry", "--all"],
            &["remove", NOBODY],
            &["hold", NOBODY],
            &["release", NOBODY, "--json"],
        ] {
            let text = format!("no server is running on {}", data.display());
            queue(&data, arguments).fails(1, arguments[0], &text);
        }
    }
}

#[test]
fn the_socket_is_private_and_outlived_by_no_server() {
    let setup = Setup::new();
    let beside = setup.beside();
    let server = setup.start();
    let data = data(&server);
    let socket = data.join("control");
    let inode = |socket: &Path| {
        let metadata = fs::metadata(socket).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.mode() & 0o7777, 0o600);
        metadata.ino()
    };
    let first = inode(&socket);
    // A second server that is refused leaves the first one its socket.
    assert_eq!(beside.run("serve").code, Some(1));
    assert_eq!(inode(&socket), first);
    assert_empty(&data);

    // What SIGKILL leaves is nobody's, and the next server's.
    let setup = server.kill();
    inode(&socket);
    assert_empty(&data);
    let text = format!("no server is running on {}", data.display());
    queue(&data, &["hold", NOBODY]).fails(1, "dead", &text);
    let server = setup.start();
    inode(&socket);
    let all = queue(&data, &["retry", "--all"]).fine();
    assert_eq!(all, "0 messages will be tried now\n");
    let _directory = server.stop();
    assert!(!socket.exists());
    assert!(data.exists());
}

#[test]
fn what_is_no_socket_stays_and_stops_the_start() {
    let setup = Setup::new();
    let socket = setup.path("data").join("control");
    fs::create_dir(setup.path("data")).unwrap();
    fs::write(&socket, "precious").unwrap();
    let ended = setup.run("serve");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.err.len(), 1, "{ended:?}");
    assert!(ended.err[0].contains(socket.to_str().unwrap()), "{ended:?}");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn a_server_that_drains_still_answers() {
    let mut server = Setup::new().start();
    let data = data(&server);
    let mut busy = support::Client::in_data(server.tcp());
    server.signal(Signal::TERM);
    eventually("it drains", || {
        let (status, _) = support::metrics::get(server.listener("metrics"), "/readyz");
        (status == 503).then_some(())
    });
    let all = queue(&data, &["retry", "--all"]).fine();
    assert_eq!(all, "0 messages will be tried now\n");
    busy.send("\r\nx\r\n.\r\n");
    busy.reply().begins("250 2.0.0");
    assert_eq!(server.exit_status().code(), Some(0));
}

#[test]
fn wrong_arguments_are_one_line() {
    let run = Run::new();
    let rows: &[(&str, &[&str], &str)] = &[
        (
            "no command",
            &["queue"],
            "a command is missing; ringpost queue --help",
        ),
        (
            "an unknown command",
            &["queue", "lst"],
            "\"lst\" is no command; ringpost queue --help",
        ),
        ("no id", &["queue", "show"], "<ID>: is required"),
        (
            "no id and not all",
            &["queue", "retry"],
            "<ID|--all>: is required",
        ),
        (
            "an id and all",
            &["queue", "retry", NOBODY, "--all"],
            "the argument '[ID]' cannot be used with '--all'",
        ),
        (
            "no id at all",
            &["queue", "hold", "all"],
            "<ID> \"all\": not a queue id",
        ),
        (
            "two ids",
            &["queue", "hold", NOBODY, NOBODY],
            "\"0000000000200\" is neither",
        ),
        (
            "all of another command",
            &["queue", "remove", "--all"],
            "--all: no such flag",
        ),
        (
            "no directory",
            &["queue", "list", "--data-dir"],
            "--data-dir: a value is missing",
        ),
        (
            "a flag of serve",
            &["queue", "list", "--shards", "1"],
            "--shards: no such flag",
        ),
    ];
    for (name, arguments, beginning) in rows {
        run.run(arguments).fails(2, name, beginning);
    }
    run.run(&["queue", "list"]).fails(
        1,
        "no data directory",
        "--data-dir: cannot read ./ringpost-data: ",
    );
    run.run(&["queue", "hold", NOBODY]).fails(
        1,
        "no data directory",
        "no server is running on ./ringpost-data",
    );
}

#[test]
fn the_file_and_the_environment_that_start_a_server_find_its_queue() {
    let run = Run::new();
    fs::create_dir(run.path("mail")).unwrap();
    run.write(
        "mx.conf",
        "--listen 127.0.0.1:25\n--data-dir mail\n--pin yes\n",
    );
    run.run(&["queue", "list"]).fails(1, "elsewhere", "");
    let empty = "queue is empty\n";
    assert_eq!(run.run(&["queue", "list", "@mx.conf"]).fine(), empty);
    let behind_json = run.run(&["queue", "list", "--json", "@mx.conf"]);
    assert_eq!(behind_json.fine(), "");
    let variable = [("RINGPOST_DATA_DIR", "mail")];
    let list = run.run_with(&["queue", "list"], &variable, "");
    assert_eq!(list.fine(), empty);
    run.run_with(&["queue", "list", "--data-dir", "none"], &variable, "")
        .fails(1, "the command line wins", "--data-dir: cannot read none");
    run.write("bad.conf", "--nope 1\n");
    let line = run.run(&["queue", "list", "@bad.conf"]).fails(
        2,
        "unknown to both",
        "--nope: no such flag",
    );
    assert!(line.ends_with("(@bad.conf line 1)"), "{line}");
}

const SHARDS: u64 = 3;
const MESSAGES: u64 = 600;

/// A message as it was put into the log.
struct Put {
    number: u64,
    id: QueueId,
    octets: usize,
}

impl Put {
    fn state(&self) -> &'static str {
        match self.number % 4 {
            0 => "waiting",
            1 => "deferred",
            2 => "held",
            _ => "deferred",
        }
    }

    fn arrived(&self) -> String {
        moment(self.number)
    }
}

/// When a message came: one a second.
fn moment(number: u64) -> String {
    let minutes = number / 60;
    let seconds = number % 60;
    format!("2026-11-24T08:{minutes:02}:{seconds:02}.005Z")
}

const BEGIN_UNIX_MS: u64 = 1_795_507_200_005;

fn recipient(text: &str) -> Recipient {
    let (local_part, domain) = text.rsplit_once('@').unwrap();
    Recipient {
        as_given: text.into(),
        local_part: local_part.into(),
        domain: domain.into(),
        dsn: match text {
            "a@x.test" => RcptDsn {
                notify: Some(Notify::NEVER),
                orcpt: Some("rfc822;old+2Ba@x.test".into()),
            },
            _ => RcptDsn::default(),
        },
    }
}

/// Fills a data directory as a server of three shards would: each message goes to another one, every tenth was
/// delivered meanwhile. Gives what is left, in the order of the ids.
fn fill(data: &Path) -> Vec<Put> {
    let mut put = Vec::new();
    fs::create_dir(data).unwrap();
    for shard in 0..SHARDS {
        let directory = LogDirectory::of_shard(&data.join("spool"), shard.try_into().unwrap());
        let numbers = (0..MESSAGES).filter(|number| number % SHARDS == shard);
        let settings = RingSettings {
            entries: 32,
            sqpoll: false,
        };
        let filled = ring::run(settings, fill_log(directory, numbers.collect())).unwrap();
        put.extend(filled);
    }
    put.sort_by_key(|put| put.id);
    put
}

async fn fill_log(directory: LogDirectory, numbers: Vec<u64>) -> Vec<Put> {
    let recovered = recover(&OnRing, directory, Purpose::GoOn).await.unwrap();
    let settings = LogSettings {
        segment_octets: 64 * 1024,
        sync: WriteSync::No,
        space: Space::new(u64::MAX),
        meters: Arc::new(Meters::default()),
    };
    let log = Log::open(OnRing, recovered, settings).await.unwrap();
    let filling = async {
        let mut put = Vec::new();
        for number in numbers {
            put.extend(put_message(&log, number).await);
        }
        log.flush().await;
        log.close();
        put
    };
    tokio::join!(log.clone().run(), filling).1
}

async fn put_message(log: &Log<OnRing>, number: u64) -> Option<Put> {
    let arrived_unix_ms = BEGIN_UNIX_MS + number * 1000;
    let now: SystemTime = UNIX_EPOCH + Duration::from_millis(arrived_unix_ms);
    let id = QueueIds::new((number % SHARDS).try_into().unwrap()).next(now);
    let octets = vec![b'x'; 100 + usize::try_from(number).unwrap()];
    let mut mail = MailData::new(&Budget::new(u64::MAX), None);
    mail.push(&octets).unwrap();
    let envelope = Envelope {
        reverse_path: (!number.is_multiple_of(5)).then(|| format!("s{number}@example.org").into()),
        recipients: ["a@x.test", "b@x.test", "\"\x1b[31m\"@x.test"]
            .map(recipient)
            .into(),
        body: Body::SevenBit,
        smtputf8: false,
        declared_octets: None,
        dsn: match number % 3 {
            0 => MailDsn::default(),
            _ => MailDsn {
                ret: Some(Ret::Headers),
                envid: Some(format!("E{number}").into()),
            },
        },
    };
    let accepted = Accepted {
        id,
        arrived_unix_ms,
        envelope: Arc::new(envelope),
        received: Arc::from(&b"Received: x\r\n"[..]),
        data_octets: octets.len() as u64,
        data_crc: crc32c::crc32c(&octets),
    };
    log.append(accepted, Rc::new(mail)).await.unwrap();
    let mut progress = Progress::begin(3);
    progress.next_attempt_unix_ms = BEGIN_UNIX_MS + 3_600_000;
    match number % 4 {
        0 => {}
        2 => {
            progress.held = Held::Yes;
            log.note_progress(id, &progress);
        }
        _ => {
            progress.attempts = 2;
            progress.recipients = vec![
                Fate::Delivered,
                Fate::Deferred("mx.x.test: 451 4.7.1 later\x07".into()),
                Fate::Bounced("550 5.1.1 who?".into()),
            ];
            log.note_progress(id, &progress);
        }
    }
    if number % 10 == 9 {
        log.note_done(id);
        return None;
    }
    let octets = octets.len();
    Some(Put { number, id, octets })
}

fn in_json(put: &Put) -> Value {
    let from = match put.number % 5 {
        0 => String::new(),
        _ => format!("s{}@example.org", put.number),
    };
    let waiting = |to: &str| json!({"to": to, "state": "waiting"});
    let first = |state: &str| json!({"to": "a@x.test", "state": state, "notify": "NEVER", "orcpt": "rfc822;old+2Ba@x.test"});
    let (attempts, next, recipients) = match put.state() {
        "deferred" => (
            2,
            Some("2026-11-24T09:00:00.005Z".to_owned()),
            json!([
                first("delivered"),
                {"to": "b@x.test", "state": "deferred", "reason": "mx.x.test: 451 4.7.1 later\u{7}"},
                {"to": "\"\u{1b}[31m\"@x.test", "state": "bounced", "reason": "550 5.1.1 who?"},
            ]),
        ),
        state => (
            0,
            (state == "waiting").then(|| put.arrived()),
            json!([
                first("waiting"),
                waiting("b@x.test"),
                waiting("\"\u{1b}[31m\"@x.test"),
            ]),
        ),
    };
    let mut shown = json!({
        "id": put.id.to_string(),
        "state": put.state(),
        "from": from,
        "octets": put.octets,
        "arrived": put.arrived(),
        "attempts": attempts,
        "next_attempt": next,
        "recipients": recipients,
    });
    if !put.number.is_multiple_of(3) {
        shown["ret"] = json!("HDRS");
        shown["envid"] = json!(format!("E{}", put.number));
    }
    shown
}

fn in_text(put: &Put) -> String {
    let from = match put.number % 5 {
        0 => "<>".to_owned(),
        _ => format!("s{}@example.org", put.number),
    };
    let (to, reason) = match put.state() {
        "deferred" => ("b@x.test", "    (mx.x.test: 451 4.7.1 later\\u{7})\n"),
        _ => ("a@x.test, b@x.test, \"\\u{1b}[31m\"@x.test", ""),
    };
    let arrived = put.arrived().replace(".005Z", "Z");
    format!(
        "{}  {:<8}  {:>10}  {arrived}  {from} -> {to}\n{reason}",
        put.id,
        put.state(),
        put.octets
    )
}

/// All files below a directory, with what tells that they were written to.
fn snapshot(directory: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::metadata(&path).unwrap();
        files.push((path.clone(), metadata.len(), metadata.modified().unwrap()));
        if metadata.is_dir() {
            files.extend(snapshot(&path));
        }
    }
    files.sort();
    files
}

#[test]
fn a_stopped_servers_queue_is_listed_and_shown() {
    let run = Run::new();
    let data = run.path("data");
    let put = fill(&data);
    assert_eq!(put.len(), 540);
    let before = snapshot(&data);

    let list = queue(&data, &["list"]).fine();
    let mut expected = list.lines().next().unwrap().to_owned() + "\n";
    assert!(expected.starts_with("ID  "), "{expected}");
    expected.extend(put.iter().map(in_text));
    let octets: usize = put.iter().map(|put| put.octets).sum();
    expected += &format!("540 messages, {octets} octets\n");
    assert_eq!(list, expected);

    let list = queue(&data, &["list", "--json"]).fine();
    let listed: Vec<Value> = list
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let expected: Vec<Value> = put.iter().map(in_json).collect();
    assert_eq!(listed, expected);

    for put in [&put[0], &put[1], &put[2], &put[539]] {
        let id = put.id.to_string();
        let shown = queue(&data, &["show", &id, "--json"]).fine();
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), in_json(put));
        let shown = queue(&data, &["show", &id.to_uppercase()]).fine();
        let arrived = put.arrived();
        assert_lines(
            &shown,
            &[
                &format!("id        {id}"),
                &format!("state     {}", put.state()),
                &format!("arrived   {arrived}"),
                "recipient a@x.test",
                "          notify NEVER",
                "          orcpt rfc822;old+2Ba@x.test",
                "recipient \"\\u{1b}[31m\"@x.test",
            ],
        );
        let next = match put.state() {
            "deferred" => "          next attempt 2026-11-24T09:00:00Z".to_owned(),
            "held" => "          held: no attempt until it is released".to_owned(),
            _ => format!("          first attempt {}", arrived.replace(".005Z", "Z")),
        };
        assert!(shown.contains(&next), "{shown}");
        let envid = format!("\nret       HDRS\nenvid     E{}\n", put.number);
        assert_eq!(
            shown.contains(&envid),
            !put.number.is_multiple_of(3),
            "{shown}"
        );
    }
    let text = format!("no message {NOBODY} in the queue");
    queue(&data, &["show", NOBODY]).fails(1, "unknown", &text);
    assert_eq!(snapshot(&data), before, "looking changed something");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let run = Run::new();
    let data = run.path("data");
    fill(&data);
    for form in [&["--json"][..], &[]] {
        // More than the pipe and the buffer hold, or the end comes before the reader is gone.
        let mut child = Command::new(BINARY)
            .args(["queue", "list", "--data-dir", data.to_str().unwrap()])
            .args(form)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::with_capacity(16, child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        drop(out);
        let mut err = String::new();
        let mut stderr = child.stderr.take().unwrap();
        stderr.read_to_string(&mut err).unwrap();
        assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
    }
}

#[test]
fn what_is_damaged_is_told_and_the_rest_listed() {
    let run = Run::new();
    let data = run.path("data");
    let put = fill(&data);
    // A message of shard 0 that is not done, by its sender.
    let find = |octets: &[u8], text: &[u8]| memchr::memmem::find(octets, text);
    let (segment, mut octets, sender_at) = fs::read_dir(data.join("spool/shard-0"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .find_map(|path| {
            let octets = fs::read(&path).unwrap();
            let at = find(&octets, b"s3@example.org")?;
            Some((path, octets, at))
        })
        .unwrap();
    let at = sender_at + find(&octets[sender_at..], &[b'x'; 100]).unwrap();
    octets[at + 50] = b'y';
    fs::write(&segment, octets).unwrap();
    let list = queue(&data, &["list", "--json"]);
    assert_eq!(list.status, 0);
    assert_eq!(list.out.lines().count(), put.len() - 1);
    let beginning = format!("ringpost: {} is damaged from octet ", segment.display());
    assert!(list.err.starts_with(&beginning), "{}", list.err);
    assert_eq!(list.err.lines().count(), 1, "{}", list.err);
}

/// A message that cannot be delivered, and all that an operator can do to it.
#[test]
fn a_message_is_held_released_retried_and_removed() {
    let server = Setup::new().flag("--retry-schedule", "1h").start();
    let data = data(&server);
    let in_the_way = server.path("mail/example.test");
    fs::create_dir_all(server.path("mail")).unwrap();
    fs::write(&in_the_way, "a file where a directory should be").unwrap();
    let mut client = server.client();
    client.ehlo();
    let ids: Vec<String> = (0..3)
        .map(|_| {
            let to = ["u@example.test", "v@mx.test"];
            let reply = client.deliver("a@b.test", &to, support::TEXT);
            reply.begins("250 2.0.0 Ok: queued as ");
            reply.first().rsplit(' ').next().unwrap().to_owned()
        })
        .collect();
    client.quit();
    let show = |id: &str| -> Value {
        serde_json::from_str(&queue(&data, &["show", id, "--json"]).fine()).unwrap()
    };
    let await_state = |id: &str, state: &str, attempts: u64| {
        eventually(state, || {
            let shown = show(id);
            (shown["state"] == state && shown["attempts"] == attempts).then_some(shown)
        })
    };
    for id in &ids {
        let shown = await_state(id, "deferred", 1);
        // The one that could be delivered is, and is not delivered again.
        assert_eq!(shown["recipients"][0]["state"], "deferred");
        assert_eq!(shown["recipients"][1]["state"], "delivered");
        assert!(
            !shown["recipients"][0]["reason"]
                .as_str()
                .unwrap()
                .is_empty()
        );
        queue(&data, &["release", id]).fails(
            1,
            "release",
            "the server says: the message is not held",
        );
    }
    let [first, second, third] = [&ids[0], &ids[1], &ids[2]];
    queue(&data, &["retry", first]).fine();
    await_state(first, "deferred", 2);
    queue(&data, &["hold", first]).fine();
    assert_eq!(show(first)["state"], "held");
    queue(&data, &["retry", first]).fails(
        1,
        "retry",
        "the server says: the message is held, release it first",
    );
    let all = queue(&data, &["retry", "--all"]).fine();
    assert_eq!(all, "2 messages will be tried now\n");
    await_state(second, "deferred", 2);
    await_state(third, "deferred", 2);
    queue(&data, &["remove", second]).fine();
    let gone = format!("no message {second} in the queue");
    queue(&data, &["show", second]).fails(1, "show", &gone);

    // What was said outlasts a process that could say nothing more.
    let server = server.kill().start();
    assert_eq!(show(first)["state"], "held");
    queue(&data, &["show", second]).fails(1, "show", &gone);
    fs::remove_file(&in_the_way).unwrap();
    queue(&data, &["retry", third]).fine();
    queue(&data, &["release", first]).fine();
    assert_eq!(server.maildir("example.test", "u").messages().len(), 2);
    assert_eq!(server.maildir("mx.test", "v").messages().len(), 3);
    assert_empty(&data);
}
