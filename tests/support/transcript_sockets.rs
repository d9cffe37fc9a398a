//! Plays dialogues against the real server: one process for each set of flags that the transcripts
//! wish for, on ports of the kernel's choice; real sockets, real handshakes, a real Maildir.
//!
//! Not promised: where a file of the Maildir lies. Its octets and its trace header are looked at.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};
use ringpost::smtp::end_of_data::StrayNewline;
use ringpost::smtp::server::StartTls;

use super::transcript::{Kind, Mail, Transcript, Way, Wishes};
use super::transcript_line::{HOSTNAME, piece_octets, shortened};
use super::transcript_match::{LastReply, Replies};
use super::transcript_play::{Fault, is_reply};

/// How long a reply, a file, or a server's start may take on a slow machine under load.
const PATIENCE: Duration = Duration::from_secs(20);

const TRANSCRIPTS_A_SERVER: usize = 8;

/// Whether the real server can be brought into what the transcript needs.
pub(crate) fn is_playable(transcript: &Transcript) -> bool {
    let wishes = &transcript.wishes;
    wishes.peer.is_none()
        && !wishes.tls_unavailable
        && !wishes.verify_unavailable
        && wishes.commits.is_empty()
        && !transcript
            .items
            .iter()
            .any(|item| matches!(item.kind, Kind::Expire | Kind::Drain))
}

/// Transcripts by the flags they need; many that need the same go to several servers, so that none
/// keeps all others waiting.
pub(crate) fn by_flags(transcripts: Vec<Transcript>) -> Vec<(Flags, Vec<Transcript>)> {
    let mut groups: BTreeMap<Flags, Vec<Transcript>> = BTreeMap::new();
    for transcript in transcripts.into_iter().filter(is_playable) {
        groups
            .entry(Flags::of(&transcript.wishes))
            .or_default()
            .push(transcript);
    }
    let mut parts = Vec::new();
    for (flags, transcripts) in groups {
        let servers = transcripts.len().div_ceil(TRANSCRIPTS_A_SERVER);
        for first in 0..servers {
            // Every so many of them: neighbours by name are alike in how long they take.
            let part = transcripts.iter().skip(first).step_by(servers).cloned();
            parts.push((flags.clone(), part.collect()));
        }
    }
    parts
}

/// What a server is started with, besides its directories and addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flags {
    flags: Vec<(&'static str, String)>,
    users: Vec<(String, String)>,
    recipients: Vec<String>,
}

impl Flags {
    fn of(wishes: &Wishes) -> Flags {
        let mut flags = vec![("--hostname", String::from(HOSTNAME))];
        let mut give = |flag, value: Option<String>| flags.extend(value.map(|value| (flag, value)));
        let yes_no = |yes: bool| Some(String::from(if yes { "yes" } else { "no" }));
        give("--greeting", wishes.greeting.clone());
        give(
            "--starttls",
            Some(String::from(match wishes.starttls {
                StartTls::Off => "off",
                StartTls::On => "on",
                StartTls::Required => "required",
            })),
        );
        give("--tcp-auth", yes_no(wishes.tcp_auth));
        give("--tls-auth", yes_no(wishes.tls_auth));
        give("--tcp-anonymous", yes_no(wishes.tcp_anonymous));
        give("--tls-anonymous", yes_no(wishes.tls_anonymous));
        give(
            "--stray-newline",
            Some(String::from(match wishes.stray_newline {
                StrayNewline::Normalize => "normalize",
                StrayNewline::Accept => "accept",
                StrayNewline::Reject => "reject",
            })),
        );
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        give("--max-message-bytes", number(wishes.message_octets_max));
        give(
            "--max-recipients",
            wishes.recipients_max.map(|max| max.to_string()),
        );
        give("--max-errors", number(wishes.errors_max.map(u64::from)));
        give("--mail-memory", number(wishes.mail_memory));
        if wishes.local_domains.is_empty() {
            give("--local-domain", Some(String::from(HOSTNAME)));
        }
        for domain in &wishes.local_domains {
            give("--local-domain", Some(domain.clone()));
        }
        for net in &wishes.trusted_nets {
            give("--trusted-net", Some(net.clone()));
        }
        Flags {
            flags,
            users: wishes.users.clone(),
            recipients: wishes.recipients.clone(),
        }
    }
}

/// How the client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// What stands between two replies, in one call.
    Turns,
    /// The same in pieces of random length, each its own segment or TLS record.
    Pieces(u64),
    /// All before it reads a reply, as far as handshakes let it.
    Ahead,
}

/// More in pieces takes longer than it shows.
const PIECES_OCTETS_MAX: usize = 10_000;

/// A server under way; killed when dropped.
pub(crate) struct Server {
    process: Child,
    directory: tempfile::TempDir,
    tcp: SocketAddr,
    tls: SocketAddr,
}

impl Server {
    /// Starts one, and waits until it says that it is ready.
    pub(crate) fn start(flags: &Flags) -> Result<Server, String> {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        let path = |name: &str| root.join(name).display().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringpost"));
        command
            .arg("serve")
            .args(["--listen", "127.0.0.1:0"])
            .args(["--listen-tls", "127.0.0.1:0"])
            .args(["--data-dir", &path("data")])
            .args(["--deliver", &format!("maildir:{}", path("mail"))])
            .args([
                "--durability",
                "none",
                "--shards",
                "1",
                "--log-level",
                "debug",
            ]);
        for (flag, value) in &flags.flags {
            command.args([*flag, value]);
        }
        if !flags.users.is_empty() {
            let mut lines = String::new();
            for (name, password) in &flags.users {
                lines.push_str(&format!("{name}:{}\n", hash(password)));
            }
            write_private(Path::new(&path("users")), &lines);
            command.args(["--users", &path("users")]);
        }
        if !flags.recipients.is_empty() {
            let lines = flags.recipients.join("\n") + "\n";
            write_private(Path::new(&path("recipients")), &lines);
            command.args(["--recipients", &path("recipients")]);
        }
        let log = fs::File::create(path("log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let process = command.spawn().unwrap();
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut server = Server {
            process,
            directory,
            tcp: nowhere,
            tls: nowhere,
        };
        let start = Instant::now();
        let log = loop {
            let log = fs::read_to_string(path("log")).unwrap_or_default();
            if log.contains(" INFO ready ") {
                break log;
            }
            if let Some(status) = server.process.try_wait().unwrap() {
                return Err(format!("{status}: {command:?}\n{}", server.log()));
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("does not listen: {command:?}\n{}", server.log()));
            }
            thread::sleep(Duration::from_millis(10));
        };
        server.tcp = listener(&log, "tcp")?;
        server.tls = listener(&log, "tls")?;
        Ok(server)
    }

    /// The last lines it logged.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Whether it is still there.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Plays a transcript.
    pub(crate) fn play(&self, transcript: &Transcript, way: Way, pace: Pace) -> Result<(), Fault> {
        let is_pipelined = pace == Pace::Ahead;
        let fault_at = |line: usize| move |text: String| Fault { line, text };
        let first = &transcript.items[0];
        let mut peer = self.connect(way).map_err(fault_at(first.line))?;
        let mut last_reply = LastReply::default();
        let greeting = Kind::WholeReply(String::from("220"));
        if !is_reply(first) || way == Way::StartTls {
            last_reply
                .hold(&greeting, &mut peer)
                .map_err(fault_at(first.line))?;
        }
        if way == Way::StartTls {
            let list = Kind::WholeReply(String::from("250"));
            peer.send(b"EHLO before.tls.example\r\n");
            last_reply
                .hold(&list, &mut peer)
                .map_err(fault_at(first.line))?;
            peer.send(b"STARTTLS\r\n");
            last_reply
                .hold(&greeting, &mut peer)
                .map_err(fault_at(first.line))?;
            peer.handshake().map_err(fault_at(first.line))?;
        }
        let mut items = transcript.items.iter().peekable();
        if way == Way::StartTls && is_reply(first) {
            items.next();
        }
        let mut mails: Vec<&Mail> = Vec::new();
        let mut sent_ahead = false;
        while let Some(item) = items.next() {
            let fault = fault_at(item.line);
            match &item.kind {
                Kind::Client(octets) => {
                    if is_pipelined && sent_ahead {
                        continue;
                    }
                    let mut piece = octets.clone();
                    if is_pipelined {
                        sent_ahead = true;
                        for ahead in items
                            .clone()
                            .take_while(|item| !matches!(item.kind, Kind::Handshake | Kind::Close))
                        {
                            if let Kind::Client(octets) = &ahead.kind {
                                piece.extend_from_slice(octets);
                            }
                        }
                    } else {
                        while let Some(Kind::Client(octets)) = items.peek().map(|next| &next.kind) {
                            piece.extend_from_slice(octets);
                            items.next();
                        }
                    }
                    peer.send_at(pace, &piece);
                }
                Kind::Handshake => {
                    sent_ahead = false;
                    peer.handshake().map_err(fault)?;
                }
                Kind::Close => peer.closes().map_err(fault)?,
                Kind::Mail(mail) => mails.push(mail),
                Kind::To { .. } => {}
                Kind::Expire | Kind::Drain => unreachable!("not playable"),
                kind => last_reply.hold(kind, &mut peer).map_err(fault)?,
            }
        }
        let end = transcript.items.last().map_or(0, |item| item.line);
        if !transcript.items.iter().any(|item| item.kind == Kind::Close) {
            // Unless the dialogue stops in the midst of something, the session is still there, in
            // step, and says no more than that.
            peer.hang_up(is_between_commands(transcript))
                .map_err(fault_at(end))?;
        }
        self.delivered(&mails).map_err(fault_at(end))
    }

    fn connect(&self, way: Way) -> Result<Peer, String> {
        let address = match way {
            Way::Clear | Way::StartTls => self.tcp,
            Way::TlsPort => self.tls,
        };
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut peer = Peer {
            stream: Some(Stream::Clear(stream)),
            unread: Vec::new(),
            is_over: false,
        };
        if way == Way::TlsPort {
            peer.handshake()?;
        }
        Ok(peer)
    }

    /// The Maildir holds a file for each recipient of each message, and nothing else; it is empty
    /// afterwards.
    fn delivered(&self, mails: &[&Mail]) -> Result<(), String> {
        let wanted_max: usize = mails.iter().map(|mail| mail.recipients.len()).sum();
        let start = Instant::now();
        let mut files = Vec::new();
        loop {
            for path in new_files(&self.directory.path().join("mail")) {
                let file = fs::read(&path).map_err(|error| error.to_string())?;
                if !is_report(&file) {
                    files.push(file);
                }
                fs::remove_file(&path).map_err(|error| error.to_string())?;
            }
            if let Some(file) = files
                .iter()
                .find(|file| !mails.iter().any(|mail| is_copy(file, mail)))
            {
                return Err(format!(
                    "delivered, and no MAIL says so: {}",
                    shortened(file)
                ));
            }
            // Of messages that are alike, as many as there are.
            let missing = mails.iter().find(|mail| {
                let copies = files.iter().filter(|file| is_copy(file, mail)).count();
                let alike = mails
                    .iter()
                    .filter(|other| files.iter().any(|f| is_copy(f, mail) && is_copy(f, other)));
                let wanted: usize = alike.map(|mail| mailboxes(mail)).sum();
                copies < wanted.max(mailboxes(mail))
            });
            match missing {
                None => break,
                Some(mail) if start.elapsed() > PATIENCE => {
                    let files: Vec<String> = files.iter().map(|file| shortened(file)).collect();
                    return Err(format!(
                        "no copy for each recipient of {mail:?} among\n{}",
                        files.join("\n")
                    ));
                }
                Some(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
        if files.len() > wanted_max {
            return Err(format!("{} files for {wanted_max} recipients", files.len()));
        }
        Ok(())
    }
}

/// In how many a message lies.
fn mailboxes(mail: &Mail) -> usize {
    let mut recipients = mail.recipients.clone();
    recipients.sort();
    recipients.dedup();
    recipients.len()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether the last octets the client sends are a whole command, outside of mail data.
fn is_between_commands(transcript: &Transcript) -> bool {
    let mut is_answered = false;
    for item in &transcript.items {
        match &item.kind {
            Kind::Client(_) => is_answered = false,
            Kind::Reply { pattern, .. } => {
                is_answered = !pattern.starts_with("354") && !pattern.starts_with("334");
            }
            Kind::WholeReply(_) | Kind::Handshake => is_answered = true,
            _ => {}
        }
    }
    is_answered
}

/// Whether a file is a message as delivered: Return-Path, one Received, then its octets with lines
/// that end in LF.
fn is_copy(file: &[u8], mail: &Mail) -> bool {
    let Some((header, content)) = trace_of(file) else {
        return false;
    };
    let return_path = format!("Return-Path: <{}>\n", mail.reverse_path);
    let with = mail.protocol.as_ref().map(|with| format!("with {with} "));
    header.starts_with(&return_path)
        && with.is_none_or(|with| header.contains(&with))
        && content == with_lf(&mail.octets)
}

/// The trace header, and what stands below it.
fn trace_of(file: &[u8]) -> Option<(&str, &[u8])> {
    let mut end = 0;
    for (index, line) in file.split_inclusive(|octet| *octet == b'\n').enumerate() {
        let belongs = match index {
            0 => line.starts_with(b"Return-Path: "),
            1 => line.starts_with(b"Received: "),
            _ if line.starts_with(b"\t") => true,
            _ => break,
        };
        if !belongs {
            return None;
        }
        end += line.len();
    }
    let (header, content) = file.split_at(end);
    Some((std::str::from_utf8(header).ok()?, content))
}

fn with_lf(octets: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(octets.len());
    for (at, octet) in octets.iter().enumerate() {
        if *octet != b'\r' || octets.get(at + 1) != Some(&b'\n') {
            lines.push(*octet);
        }
    }
    lines
}

/// Files in `new`, however deep.
fn new_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else {
        return files;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(new_files(&path));
        } else if directory.file_name().is_some_and(|name| name == "new") {
            files.push(path);
        }
    }
    files
}

/// Where a listener listens, by the line that says so; it stands before `ready`.
fn listener(log: &str, name: &str) -> Result<SocketAddr, String> {
    log.lines()
        .filter_map(|line| line.split_once(&format!(" listening listener={name} address=")))
        .find_map(|(_, address)| address.parse().ok())
        .ok_or_else(|| format!("no `listening` line for {name} in\n{log}"))
}

fn hash(password: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringpost"))
        .arg("hash-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let line = format!("{password}\n");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(line.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "hash-password: {}", output.status);
    String::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The client's end of a connection.
struct Peer {
    /// None only while a handshake goes on, or after it failed.
    stream: Option<Stream>,
    unread: Vec<u8>,
    is_over: bool,
}

enum Stream {
    Clear(TcpStream),
    Tls(Box<SslStream<TcpStream>>),
}

/// Whether the server wrote it, since a dialogue asked to be told of success.
fn is_report(file: &[u8]) -> bool {
    let has = |part: &[u8]| file.windows(part.len()).any(|window| window == part);
    file.starts_with(b"Return-Path: <>\n") && has(b"report-type")
}

impl Peer {
    /// A server that closed while we still write is no fault: what was expected of it decides.
    fn send(&mut self, octets: &[u8]) {
        let _ = match &mut self.stream {
            Some(Stream::Clear(stream)) => stream.write_all(octets),
            Some(Stream::Tls(stream)) => stream.write_all(octets),
            None => Ok(()),
        };
    }

    fn send_at(&mut self, pace: Pace, octets: &[u8]) {
        match pace {
            Pace::Pieces(seed) if octets.len() < PIECES_OCTETS_MAX => {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut rest = octets;
                while !rest.is_empty() {
                    let (piece, behind) = rest.split_at(piece_octets(&mut random, rest.len()));
                    self.send(piece);
                    rest = behind;
                }
            }
            Pace::Turns | Pace::Ahead | Pace::Pieces(_) => self.send(octets),
        }
    }

    fn handshake(&mut self) -> Result<(), String> {
        if !self.unread.is_empty() {
            return Err(format!(
                "in clear behind the 220: {}",
                shortened(&self.unread)
            ));
        }
        let Some(Stream::Clear(stream)) = self.stream.take() else {
            return Err(String::from("a handshake inside TLS"));
        };
        let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
        connector.set_verify(SslVerifyMode::NONE);
        let stream = connector
            .build()
            .connect(HOSTNAME, stream)
            .map_err(|error| format!("handshake: {error}"))?;
        self.stream = Some(Stream::Tls(Box::new(stream)));
        Ok(())
    }

    /// Reads on. False: nothing more comes.
    fn read(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        let count = match &mut self.stream {
            Some(Stream::Clear(stream)) => stream.read(&mut piece),
            Some(Stream::Tls(stream)) => stream.read(&mut piece),
            None => Ok(0),
        };
        match count {
            Ok(count) if count > 0 => {
                self.unread.extend_from_slice(&piece[..count]);
                true
            }
            Ok(_) => {
                self.is_over = true;
                false
            }
            Err(error) => {
                self.is_over = !matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                );
                false
            }
        }
    }

    /// The server ends the connection, and says no more.
    fn closes(&mut self) -> Result<(), String> {
        while self.read() {}
        if !self.is_over {
            return Err(String::from("the connection is not over"));
        }
        // Clear octets in place of a handshake are answered by a TLS alert at most.
        const ALERT: u8 = 21;
        if self.unread.first().is_some_and(|first| *first != ALERT) {
            return Err(format!("a reply too many: {}", shortened(&self.unread)));
        }
        Ok(())
    }

    fn hang_up(mut self, is_between_commands: bool) -> Result<(), String> {
        if is_between_commands {
            self.send(b"QUIT\r\n");
            match self.take() {
                Some(line) if line.starts_with(b"221 ") => self.closes()?,
                Some(line) => {
                    return Err(format!("a reply too many: {}", line.escape_ascii()));
                }
                None => return Err(String::from("the connection is over, and no CLOSE says so")),
            }
        } else if !self.unread.is_empty() {
            return Err(format!("a reply too many: {}", shortened(&self.unread)));
        }
        Ok(())
    }
}

impl Replies for Peer {
    fn peek(&mut self) -> Option<&[u8]> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                return Some(&self.unread[..end]);
            }
            if !self.read() {
                return None;
            }
        }
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let line = self.peek()?.to_vec();
        self.unread.drain(..line.len() + 2);
        Some(line)
    }
}
