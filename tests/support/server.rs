//! The real binary as a child process: started with ports of the kernel's choice, watched through
//! its log, killed and reaped when the test lets go of it.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::certificates::{Authority, KeyKind};
use super::client::Client;
use super::maildir::Maildir;
use super::metrics::Scrape;
use super::{PATIENCE, eventually};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ringpost");

/// How a server is to be started. `new` gives one that takes mail for `example.test` and `mx.test`
/// on both ports into a Maildir; the flags of a test replace or add to that.
pub(crate) struct Setup {
    directory: Arc<TempDir>,
    flags: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    open_files_max: Option<u32>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("ringpost-")
            .tempdir()
            .unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let authority = Authority::shared();
        fs::write(path("ca.crt"), authority.certificate_pem()).unwrap();
        let mut flags = Vec::new();
        for (name, kind) in [("ecdsa", KeyKind::Ecdsa), ("rsa", KeyKind::Rsa)] {
            let pair = authority.issue(&["mx.test", "localhost"], kind);
            let (cert, key) = (path(&format!("{name}.crt")), path(&format!("{name}.key")));
            pair.write(Path::new(&cert), Path::new(&key));
            flags.push(("--cert".to_owned(), cert));
            flags.push(("--key".to_owned(), key));
        }
        for (name, value) in [
            ("--hostname", "mx.test".to_owned()),
            ("--listen", "127.0.0.1:0".to_owned()),
            ("--listen-tls", "127.0.0.1:0".to_owned()),
            ("--metrics", "127.0.0.1:0".to_owned()),
            ("--shards", "1".to_owned()),
            ("--spool-segment-bytes", "4M".to_owned()),
            ("--local-domain", "example.test".to_owned()),
            ("--local-domain", "mx.test".to_owned()),
            ("--data-dir", path("data")),
            ("--deliver", format!("maildir:{}", path("mail"))),
        ] {
            flags.push((name.to_owned(), value));
        }
        Self {
            directory: Arc::new(directory),
            flags,
            environment: Vec::new(),
            open_files_max: None,
        }
    }

    /// The same directory again, for a second server or a restart in the place of the first.
    pub(crate) fn beside(&self) -> Self {
        Self {
            directory: Arc::clone(&self.directory),
            flags: self.flags.clone(),
            environment: self.environment.clone(),
            open_files_max: self.open_files_max,
        }
    }

    /// Gives a flag this one value, whatever it had.
    pub(crate) fn flag(mut self, name: &str, value: impl Into<String>) -> Self {
        self = self.without(name);
        self.flags.push((name.to_owned(), value.into()));
        self
    }

    /// Adds a value to a flag that may be repeated.
    pub(crate) fn also(mut self, name: &str, value: impl Into<String>) -> Self {
        self.flags.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.flags.retain(|(known, _)| known != name);
        self
    }

    /// Replaces the certificates by one pair.
    pub(crate) fn pair(self, cert: &Path, key: &Path) -> Self {
        self.without("--cert")
            .without("--key")
            .also("--cert", cert.to_str().unwrap())
            .also("--key", key.to_str().unwrap())
    }

    /// Writes a users file (`name`, password in clear) and names it.
    pub(crate) fn users(self, users: &[(&str, &str)]) -> Self {
        let path = self.path("users");
        write_users(&path, users);
        self.flag("--users", path.to_str().unwrap())
    }

    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the server with so few descriptors (`ulimit -n`, soft and hard).
    pub(crate) fn open_files_max(mut self, descriptors: u32) -> Self {
        self.open_files_max = Some(descriptors);
        self
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The command line, `ringpost serve …` unless another command is asked for.
    pub(crate) fn command(&self, verb: &str) -> Command {
        let mut arguments: Vec<OsString> = vec![verb.into()];
        for (name, value) in &self.flags {
            arguments.push(name.into());
            arguments.push(value.into());
        }
        let mut command = match self.open_files_max {
            None => Command::new(BINARY),
            Some(descriptors) => {
                // A shell lowers the limit: std has no call for it and `unsafe` stays out of tests.
                let mut shell = Command::new("sh");
                shell
                    .arg("-c")
                    .arg(format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""));
                shell.arg(BINARY);
                shell
            }
        };
        for (name, _) in std::env::vars_os() {
            if name
                .to_str()
                .is_some_and(|name| name.starts_with("RINGPOST_"))
            {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    /// Starts the server and waits for its `ready` line.
    pub(crate) fn start(self) -> Server {
        let server = self.spawn();
        server.await_ready();
        server
    }

    /// Starts the server without waiting for anything.
    pub(crate) fn spawn(self) -> Server {
        let mut child = self
            .command("serve")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::follow(child.stderr.take().unwrap());
        let pid = Pid::from_child(&child);
        Server {
            setup: self,
            child,
            pid,
            log,
        }
    }

    /// Runs a command that is expected to end by itself; its exit status and standard error.
    pub(crate) fn run(&self, verb: &str) -> Ended {
        let mut child = self
            .command(verb)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = Log::follow(child.stdout.take().unwrap());
        let err = Log::follow(child.stderr.take().unwrap());
        let status = wait(&mut child, PATIENCE);
        if status.is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let ended = Ended {
            code: status.and_then(|s| s.code()),
            out: out.to_end(),
            err: err.to_end(),
        };
        assert!(status.is_some(), "`ringpost {verb}` did not end: {ended:?}");
        ended
    }
}

/// How a command that ended by itself did so.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<String>,
    pub(crate) err: Vec<String>,
}

/// Writes a users file with real hashes, made by `ringpost hash-password`.
pub(crate) fn write_users(path: &Path, users: &[(&str, &str)]) {
    let mut lines = String::from("# made for a test\n");
    for (name, password) in users {
        lines += &format!("{name}:{}\n", hash_password(password));
    }
    fs::write(path, lines).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Runs `ringpost hash-password`, once a password and test program: a hash takes its time on purpose.
pub(crate) fn hash_password(password: &str) -> String {
    static KNOWN: LazyLock<Mutex<Vec<(String, String)>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap();
    if let Some((_, hash)) = known.iter().find(|(known, _)| known == password) {
        return hash.clone();
    }
    let mut child = Command::new(BINARY)
        .arg("hash-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(format!("{password}\n").as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "hash-password: {output:?}");
    let hash = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert!(
        hash.starts_with("$argon2id$"),
        "hash-password printed {hash:?}"
    );
    known.push((password.to_owned(), hash.clone()));
    hash
}

/// A running server. Dropping it kills the process and reaps it.
pub(crate) struct Server {
    setup: Setup,
    child: Child,
    pid: Pid,
    log: Arc<Log>,
}

impl Server {
    pub(crate) fn await_ready(&self) {
        self.log.await_line("a line that says ready", |line| {
            !line.contains("listening")
                && line
                    .split(|c: char| !c.is_alphanumeric())
                    .any(|w| w == "ready")
        });
    }

    /// The address of the TCP port.
    pub(crate) fn tcp(&self) -> SocketAddr {
        self.listener("tcp")
    }

    /// The address of the TLS port.
    pub(crate) fn tls(&self) -> SocketAddr {
        self.listener("tls")
    }

    /// The address a listener really got, from its `listening` line. Every such line comes before
    /// `ready`, so a missing one is a failure, not a reason to wait.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        self.find_listener(name)
            .unwrap_or_else(|| panic!("no `listening` line for {name}: {:#?}", self.log.lines()))
    }

    pub(crate) fn find_listener(&self, name: &str) -> Option<SocketAddr> {
        self.log.lines().iter().find_map(|line| {
            if !line.contains("listening") || field(line, "listener").as_deref() != Some(name) {
                return None;
            }
            field(line, "address")?.parse().ok()
        })
    }

    /// A clear connection to the TCP port, its greeting already read.
    pub(crate) fn client(&self) -> Client {
        let mut client = Client::connect(self.tcp());
        client.expect(220);
        client
    }

    /// A connection to the TLS port, handshake done and its greeting read.
    pub(crate) fn tls_client(&self) -> Client {
        let mut client = Client::connect(self.tls()).secure();
        client.expect(220);
        client
    }

    pub(crate) fn scrape(&self) -> Scrape {
        Scrape::take(self.listener("metrics"))
    }

    /// Waits until all that was accepted is delivered.
    pub(crate) fn await_delivery(&self) {
        eventually("an empty queue", || {
            (self.scrape().sum("ringpost_queue_messages", &[]) == 0).then_some(())
        });
    }

    /// A recipient's Maildir, once all that was accepted is delivered.
    pub(crate) fn maildir(&self, domain: &str, local_part: &str) -> Maildir {
        self.await_delivery();
        Maildir::new(self.setup.path("mail").join(domain).join(local_part))
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.setup.path(name)
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Waits for the process to end by itself.
    pub(crate) fn exit_status(&mut self) -> ExitStatus {
        match wait(&mut self.child, PATIENCE) {
            Some(status) => status,
            None => panic!("the server did not exit: {:#?}", self.log.lines()),
        }
    }

    pub(crate) fn has_exited(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Stops the server at once and hands its directory on, for a start in the same place.
    pub(crate) fn kill(mut self) -> Setup {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.setup.beside()
    }

    /// Drains the server by SIGTERM, expects exit status 0, and hands its directory on.
    pub(crate) fn stop(self) -> Setup {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits for the process to end by itself, with exit status 0, and hands its directory on.
    pub(crate) fn ended(mut self) -> Setup {
        let status = self.exit_status();
        assert_eq!(status.code(), Some(0), "{:#?}", self.log.lines());
        self.setup.beside()
    }

    /// Drains the server and gives its whole log.
    pub(crate) fn log_to_end(mut self) -> Vec<String> {
        self.signal(Signal::TERM);
        let status = self.exit_status();
        assert_eq!(status.code(), Some(0), "{:#?}", self.log.lines());
        self.log.to_end()
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many descriptors the process holds.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    /// CPU time so far, user and system, of all threads.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(self.proc("stat")).unwrap();
        // The command's name, in parentheses, may hold anything: the fields are counted behind it.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // USER_HZ is 100 on every architecture that has io_uring in practice.
        Duration::from_millis(ticks * 10)
    }

    /// Waits until the process holds so many descriptors again.
    pub(crate) fn await_descriptors(&self, count: usize) {
        let mut seen = 0;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            seen = self.descriptors();
            if seen == count {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("{seen} descriptors are open, {count} were before");
    }

    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let lines = self.log.to_end();
            let skipped = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!("--- the server's log ({skipped} lines before these)");
            for line in &lines[skipped..] {
                eprintln!("{line}");
            }
            eprintln!("--- end of the server's log");
        }
    }
}

/// Standard error of a process, line by line.
pub(crate) struct Log {
    read: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    /// Reads `source` on a thread of its own, which ends with it.
    pub(crate) fn follow(source: impl Read + Send + 'static) -> Arc<Self> {
        let log = Arc::new(Self {
            read: Mutex::default(),
            changed: Condvar::new(),
        });
        let writer = Arc::clone(&log);
        thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source
                .read_until(b'\n', &mut line)
                .is_ok_and(|octets| octets > 0)
            {
                let text = String::from_utf8_lossy(&line)
                    .trim_end_matches(['\r', '\n'])
                    .to_owned();
                writer.lock().lines.push(text);
                writer.changed.notify_all();
                line.clear();
            }
            writer.lock().ended = true;
            writer.changed.notify_all();
        });
        log
    }

    /// A test that fails while it looks at the lines poisons the lock; they are whole all the same,
    /// and the reader goes on, so that the failure shows them to the end.
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// All lines; waits for the end of the stream.
    pub(crate) fn to_end(&self) -> Vec<String> {
        let (read, timeout) = self
            .changed
            .wait_timeout_while(self.lock(), PATIENCE, |read| !read.ended)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(
            !timeout.timed_out(),
            "the stream did not end: {:#?}",
            read.lines
        );
        read.lines.clone()
    }

    /// Waits for a line, past ones included.
    pub(crate) fn await_line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.await_line_after(0, what, wanted)
    }

    /// Waits for a line among those behind the first `skip`.
    pub(crate) fn await_line_after(
        &self,
        skip: usize,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut read = self.lock();
        loop {
            if let Some(line) = read.lines.iter().skip(skip).find(|line| wanted(line)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !read.ended && !left.is_zero(),
                "no {what} among {:#?}",
                read.lines
            );
            let woken = self.changed.wait_timeout(read, left);
            read = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A field of a log line, in the text form (`name=value`) or in JSON (`"name":"value"`).
pub(crate) fn field(line: &str, name: &str) -> Option<String> {
    let start = [format!("{name}="), format!("\"{name}\":")]
        .iter()
        .find_map(|key| Some(line.find(key.as_str())? + key.len()))?;
    let rest = &line[start..];
    let value = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split([' ', ',', '}']).next(),
    };
    value.map(str::to_owned)
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// How much of a server's log a failed test shows.
const LOG_LINES_SHOWN: usize = 200;
