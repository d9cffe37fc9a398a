//! Daemons that nobody here wrote, unpacked but not installed, each run in a house of its own.
//!
//! A daemon wants to lie where its package puts it, users of its own, and to be root. So it gets
//! namespaces, which every user may make:
//!
//! ```text
//! the test ── unshare ── sh       root in a user namespace, process 1 of a process namespace; lays
//!              (waits)   │        the unpacked tree over /usr, and two short files over /etc/passwd
//!                        │        and /etc/group
//!                        ├─ the daemon   an ordinary user, in a further user namespace
//!                        └─ a reader     of standard input, which the test holds open
//! ```
//!
//! Invariants:
//! - Nothing outside of the temporary directory is written.
//! - It is the same for root and for others. Where the machine keeps its users from making namespaces
//!   (a sysctl, a container), a test fails and shows what `unshare` or `mount` said.
//! - When the test lets go of the daemon, or dies, standard input ends; the shell ends with that, and
//!   the kernel kills every process of the house, however it was started, before `unshare` ends.
//!
//! The network is not the house's own: the daemon listens on the machine's loopback.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use super::PATIENCE;
use super::client::Client;
use super::maildir::files;
use super::programs::{Running, program};

/// A place for a daemon: where its files lie, and the port it is to listen on.
pub(crate) struct House {
    directory: TempDir,
    pub(crate) port: u16,
}

/// A running daemon. Dropping it ends all its processes and removes its files.
pub(crate) struct Housed {
    house: House,
    running: Option<Running>,
}

impl House {
    pub(crate) fn new() -> Self {
        Self::with_port(free_port())
    }

    pub(crate) fn with_port(port: u16) -> Self {
        let directory = tempfile::Builder::new().prefix("hop-").tempdir().unwrap();
        Self { directory, port }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A path as text, for a configuration.
    pub(crate) fn name(&self, name: &str) -> String {
        self.path(name).into_os_string().into_string().unwrap()
    }

    pub(crate) fn make(&self, directories: &[&str]) {
        for name in directories {
            fs::create_dir_all(self.path(name)).unwrap();
        }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let mut file = File::create(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        // Postfix waits for a file to be some seconds old, lest it is still being written.
        file.set_modified(SystemTime::now() - Duration::from_secs(60))
            .unwrap();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Starts a daemon that stays in the foreground, as the user who has all these names.
    pub(crate) fn start(self, users: &[&str], command: &[&str]) -> Housed {
        let line = |name: &str, id: u32| format!("{name}:x:{id}:{id}::/:/bin/false\n");
        let mut passwd = line("root", 0) + &line("nobody", NOBODY);
        let mut group = format!("root:x:0:\nnogroup:x:{NOBODY}:\npostdrop:x:{POSTDROP}:\n");
        for user in users {
            passwd += &line(user, USER);
            group += &format!("{user}:x:{USER}:\n");
        }
        self.write("passwd", &passwd);
        self.write("group", &group);
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-programs");
        for file in command.iter().filter(|word| word.starts_with("/usr/")) {
            let found = [Path::new(file), &unpacked.join(&file[1..])];
            let found = found.iter().any(|path| path.exists());
            assert!(found, "{file} is not unpacked: run tests/run");
        }
        let mut unshare = program("unshare");
        unshare
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir(&unpacked)
            .args(["--user", "--map-root-user", "--mount", "--pid", "--fork"])
            .args(["sh", "-c", HOUSE, "house"])
            .arg(self.directory.path())
            .arg(USER.to_string())
            .args(command);
        Housed {
            running: Some(Running::start(&mut unshare)),
            house: self,
        }
    }
}

impl Housed {
    pub(crate) fn house(&self) -> &House {
        &self.house
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.running.as_mut().is_none_or(Running::has_ended)
    }

    /// Asks until `answers` is true; false if the daemon ends before.
    pub(crate) fn await_answer(&mut self, mut answers: impl FnMut(&House) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.has_ended() {
                return false;
            }
            if answers(&self.house) {
                return true;
            }
            assert!(Instant::now() < deadline, "it does not answer");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the greeting of this host name.
    pub(crate) fn await_greeting(mut self, hostname: &str) -> Self {
        let greeted = self.await_answer(|house| greets(house.address(), hostname));
        assert!(
            greeted,
            "{hostname} ended before it greeted: {:#?}",
            self.log()
        );
        self
    }

    /// What it wrote to its log files, whose names begin so, and what it said before it had one.
    pub(crate) fn log(&self) -> Vec<String> {
        let mut lines = match &self.running {
            Some(running) => [running.out.lines(), running.err.lines()].concat(),
            None => Vec::new(),
        };
        for path in files(self.house.directory.path()) {
            if path.file_name().unwrap().as_bytes().starts_with(b"log") {
                let octets = fs::read(&path).unwrap();
                lines.extend(String::from_utf8_lossy(&octets).lines().map(str::to_owned));
            }
        }
        lines
    }
}

impl Drop for Housed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the log in {}", self.house.directory.path().display());
            for line in self.log() {
                eprintln!("{line}");
            }
            eprintln!("--- end of that log");
        }
        let Some(mut running) = self.running.take() else {
            return;
        };
        running.close_input();
        let deadline = Instant::now() + PATIENCE;
        while !running.has_ended() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A TCP port that the kernel chose and gives to nobody else for the next minute, but to who asks for
/// it by number, with `SO_REUSEADDR`: a connection that this side closed first lies there in TIME-WAIT.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    drop(listener.accept().unwrap());
    client.read_to_end(&mut Vec::new()).unwrap();
    address.port()
}

/// Whether who listens there is ready for a session, and is this host.
fn greets(address: SocketAddr, hostname: &str) -> bool {
    let Ok(stream) = TcpStream::connect(address) else {
        return false;
    };
    let mut client = Client::over(stream);
    let Ok(greeting) = client.try_reply() else {
        return false;
    };
    greeting.begins(&format!("220 {hostname} "));
    let _ = client.try_send("QUIT\r\n");
    let _ = client.try_reply();
    true
}

/// A message as a next hop keeps it, its own header fields before what it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    /// The recipient, as the next hop noted it.
    pub(crate) to: String,
    /// The reverse-path, without angle brackets.
    pub(crate) from: String,
    pub(crate) octets: Vec<u8>,
}

impl Arrived {
    /// All messages of the Maildirs in a directory, in no promised order.
    pub(crate) fn all(directory: &Path) -> Vec<Self> {
        let mut messages = Vec::new();
        for maildir in files(directory) {
            let name = maildir.file_name().unwrap().to_string_lossy().into_owned();
            for place in ["new", "cur"] {
                let paths = files(&maildir.join(place)).into_iter();
                messages.extend(paths.map(|path| Self::read(&path, &name)));
            }
        }
        messages
    }

    fn read(path: &Path, maildir: &str) -> Self {
        let octets = fs::read(path).unwrap();
        let text = String::from_utf8_lossy(&octets);
        let field = |wanted: [&str; 2]| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                let value = value.trim().trim_matches(['<', '>']);
                wanted.contains(&name).then(|| value.to_owned())
            })
        };
        // Dovecot names a recipient in the header only where there is no other, and in the Maildir's
        // name always.
        let to = field(["Delivered-To", "Envelope-to"]).unwrap_or_else(|| maildir.to_owned());
        let from = field(["Return-Path", "Return-path"]).unwrap_or_default();
        Self { to, from, octets }
    }

    /// Expects the whole message that was sent, whose lines end in CR LF, behind fields of those who passed it on and no
    /// others; these fields.
    #[track_caller]
    pub(crate) fn is(&self, sent: &[u8]) -> &str {
        // Nobody sends a CR that stands alone.
        let sent: Vec<u8> = sent
            .iter()
            .copied()
            .filter(|octet| *octet != b'\r')
            .collect();
        let Some(added) = self.octets.strip_suffix(sent.as_slice()) else {
            panic!("not what was sent: {}", self.octets.escape_ascii());
        };
        let added = str::from_utf8(added).unwrap();
        assert!(
            added.ends_with('\n'),
            "a line has more than was sent: {added}"
        );
        for line in added.lines().filter(|line| !line.starts_with([' ', '\t'])) {
            let name = line.split(':').next().unwrap();
            let mut known = TRACE_FIELDS.iter();
            assert!(
                known.any(|known| known.eq_ignore_ascii_case(name)),
                "{line}"
            );
        }
        added
    }
}

/// What those add who pass a message on, Postfix, Exim, Dovecot and ringpost.
const TRACE_FIELDS: [&str; 6] = [
    "Received",
    "Return-Path",
    "Delivered-To",
    "X-Original-To",
    "Envelope-To",
    "Delivery-Date",
];

/// The user in the house, who is who started the test outside of it.
pub(crate) const USER: u32 = 1000;
const NOBODY: u32 = 65534;
const POSTDROP: u32 = 1001;

/// Process 1 of the house, in the directory that has the unpacked tree. Its arguments: the temporary
/// directory, the id of the user, and the daemon's command.
const HOUSE: &str = r#"
set -e
directory=$1 user=$2
shift 2
# Relative, for a colon or a comma in the path would end the option.
mount -t overlay -o lowerdir=usr:/usr overlay /usr
mount --bind "$directory/passwd" /etc/passwd
mount --bind "$directory/group" /etc/group
cd "$directory"
exec 3<&0
unshare --user --map-user="$user" --map-group="$user" "$@" 3<&- </dev/null &
daemon=$!
{ read -r _ <&3 || true; kill -KILL "$daemon"; } &
exec 3<&-
wait "$daemon"
"#;
