//! A server that the load generator starts for a measurement, and ends.
//!
//! Apart from the watch because it owns what it started. The command line runs in a process group of its own, so
//! Ctrl-C at the terminal reaches the load generator alone, which then ends the server in order.
//!
//! Invariants:
//! - However the value ends (asked to stop, dropped, dropped by a panic), the server's main process has been waited for
//!   and its whole process group was sent SIGKILL. If the load generator itself is killed, the guard does that.
//! - The main process is waited for last: until then the kernel gives its number to nobody else, so no signal of ours
//!   can reach a stranger.
//!
//! Not promised: a process that leaves the group (setsid(1), a daemon that detaches) is ended only if the main process
//! ends it at SIGTERM. A server must therefore be told to stay in the foreground.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::guard::Guard;
use super::own::{Cores, CoresError, pin};
use super::stat::{Life, Stat};

/// How a server is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCommand {
    /// One command with its arguments and redirections, as a shell reads it. The shell becomes that command (`exec`), so
    /// signals reach the server itself: no `a && b`, and variables by `env NAME=VALUE command`.
    pub line: String,
    /// The cores it may run on; None: those of the load generator.
    pub cores: Option<Cores>,
    /// Where its standard output and error go.
    pub output: Output,
    /// A directory of its own, with all that is in it. Whoever made it removes it; the guard does if the load generator
    /// is killed.
    pub directory: Option<PathBuf>,
}

/// Where a server's standard output and error go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Nowhere.
    Discard,
    /// To the end of this file. Its last lines are shown if the server ends too early.
    File(PathBuf),
}

/// A server that was started here.
#[derive(Debug)]
pub struct StartedServer {
    child: Child,
    pid: Pid,
    /// Readable once the main process has ended.
    end: OwnedFd,
    state: State,
    log: Option<Log>,
}

#[derive(Debug)]
enum State {
    /// Not waited for; it may have ended.
    Started(Option<Guard>),
    /// Waited for, and its group killed.
    Ended(ExitStatus),
}

/// Its output, from where this server's begins.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    begins: u64,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Its status.
    pub status: ExitStatus,
    /// What it took.
    pub how: StoppedBy,
}

/// What it took to end a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoppedBy {
    /// Nothing: it had ended before.
    Itself,
    /// SIGTERM.
    Asking,
    /// SIGKILL: it did not heed SIGTERM in time.
    Killing,
}

/// What a server said last, for an error's text; nothing if that is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastLines(String);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Some other server would be measured.
    #[error("another server accepts connections at {0} already")]
    Taken(SocketAddr),
    /// Its output has nowhere to go.
    #[error("cannot write the server's output to {}", .path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It cannot run on those cores.
    #[error("cannot pin the server")]
    Pin(#[from] CoresError),
    /// No process came about.
    #[error("cannot start the server")]
    Start(#[source] io::Error),
    /// It ended too early.
    #[error("the server ended before it was ready ({status}){last_lines}")]
    Ended {
        /// Its status.
        status: ExitStatus,
        /// What it said.
        last_lines: LastLines,
    },
    /// It runs, but does not listen.
    #[error("the server accepts no connection at {address} after {} s{last_lines}", .waited.as_secs_f32())]
    NotReady {
        /// Where.
        address: SocketAddr,
        /// For how long.
        waited: Duration,
        /// What it said.
        last_lines: LastLines,
    },
    /// The kernel refuses to tell whether it runs, or to end it.
    #[error("cannot {doing} the server")]
    Kernel {
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl StartedServer {
    /// Starts it, and does not wait until it is ready.
    pub fn start(command: &ServerCommand) -> Result<StartedServer, ServerError> {
        let (stdout, stderr, log) = command.output.open()?;
        let mut shell = Command::new("/bin/sh");
        shell
            .arg("-c")
            .arg(format!("exec {}", command.line))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0);
        let mut child = match &command.cores {
            None => shell.spawn().map_err(ServerError::Start)?,
            Some(cores) => spawn_on(cores, shell)?,
        };
        let pid = Pid::from_child(&child);
        let end = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(end) => end,
            Err(error) => {
                // Nothing owns it yet that would end it.
                let _ = child.kill();
                let _ = child.wait();
                return Err(ServerError::Start(error.into()));
            }
        };
        let mut server = StartedServer {
            child,
            pid,
            end,
            state: State::Started(None),
            log,
        };
        let guard = Guard::over(pid, command.directory.as_deref()).map_err(ServerError::Start)?;
        server.state = State::Started(Some(guard));
        Ok(server)
    }

    /// Its main process, to be watched.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether its main process has not ended.
    pub fn is_running(&self) -> Result<bool, ServerError> {
        Ok(!self.ends_within(Duration::ZERO)?)
    }

    /// Waits until it accepts connections at all of these addresses. The connections are closed at once.
    ///
    /// That the server runs and somebody accepts is all that can be seen from here: see [`nobody_accepts`].
    pub fn wait_ready(
        &mut self,
        addresses: &[SocketAddr],
        timeout: Duration,
    ) -> Result<(), ServerError> {
        let began = Instant::now();
        for address in addresses {
            loop {
                self.expect_running()?;
                let left = timeout.saturating_sub(began.elapsed());
                if accepts(*address, left.min(CONNECT_MAX)) {
                    break;
                }
                if left.is_zero() {
                    return Err(ServerError::NotReady {
                        address: *address,
                        waited: timeout,
                        last_lines: self.last_lines(),
                    });
                }
                self.ends_within(left.min(PAUSE))?;
            }
        }
        self.expect_running()
    }

    /// Asks it to end (SIGTERM), waits up to [`PATIENCE`], and kills what is left of its process group.
    pub fn stop(self) -> Result<Stopped, ServerError> {
        self.stop_within(PATIENCE)
    }

    fn stop_within(mut self, patience: Duration) -> Result<Stopped, ServerError> {
        let how = if !self.is_running()? {
            StoppedBy::Itself
        } else {
            match rustix::process::pidfd_send_signal(&self.end, Signal::TERM) {
                // It ended this moment.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(kernel("end")(error)),
            }
            match self.ends_within(patience)? {
                true => StoppedBy::Asking,
                false => StoppedBy::Killing,
            }
        };
        let status = self.kill()?;
        Ok(Stopped { status, how })
    }

    /// What it said last, as far as it goes to a file.
    pub fn last_lines(&self) -> LastLines {
        self.log.as_ref().map(Log::last_lines).unwrap_or_default()
    }

    fn expect_running(&mut self) -> Result<(), ServerError> {
        if self.is_running()? {
            return Ok(());
        }
        let status = self.kill()?;
        Err(ServerError::Ended {
            status,
            last_lines: self.last_lines(),
        })
    }

    /// Waits for its end, and says whether that came.
    fn ends_within(&self, time: Duration) -> Result<bool, ServerError> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Out of range would be more than any timeout that can be asked for.
            let left = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&self.end, PollFlags::IN)], left.as_ref()) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(kernel("watch")(error)),
            }
        }
    }

    /// Kills the whole group, waits for the main process, and until nobody of the group runs any more: the next server
    /// may need its ports.
    fn kill(&mut self) -> Result<ExitStatus, ServerError> {
        let guard = match &mut self.state {
            State::Ended(status) => return Ok(*status),
            State::Started(guard) => guard,
        };
        match rustix::process::kill_process_group(self.pid, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(kernel("kill")(error)),
        }
        drop(guard.take());
        let status = self.child.wait().map_err(|source| ServerError::Kernel {
            doing: "wait for",
            source,
        })?;
        self.state = State::Ended(status);
        // Its children are not ours to wait for, so they are looked for.
        let deadline = Instant::now() + KILLED_MAX;
        while group_runs(self.pid) && Instant::now() < deadline {
            thread::sleep(PAUSE);
        }
        Ok(status)
    }
}

impl Drop for StartedServer {
    fn drop(&mut self) {
        // There is nobody to tell. What fails here is a server that runs under an identity which we may not signal.
        let _ = self.kill();
    }
}

/// Makes sure that nobody accepts connections there, before a server is started that shall: it could not listen, and the
/// other one would be measured in its place.
pub fn nobody_accepts(addresses: &[SocketAddr]) -> Result<(), ServerError> {
    let taken = addresses
        .iter()
        .find(|address| accepts(**address, CONNECT_MAX));
    taken.map_or(Ok(()), |address| Err(ServerError::Taken(*address)))
}

impl Output {
    fn open(&self) -> Result<(Stdio, Stdio, Option<Log>), ServerError> {
        let Output::File(path) = self else {
            return Ok((Stdio::null(), Stdio::null(), None));
        };
        let open = || {
            // Appending, or output and error would overwrite each other.
            let mut options = File::options();
            let file = options.create(true).append(true).mode(0o600).open(path)?;
            let begins = file.metadata()?.len();
            Ok((file.try_clone()?, file, begins))
        };
        let (stdout, stderr, begins) = open().map_err(|source| ServerError::Output {
            path: path.clone(),
            source,
        })?;
        let path = path.clone();
        Ok((stdout.into(), stderr.into(), Some(Log { path, begins })))
    }
}

impl Log {
    fn last_lines(&self) -> LastLines {
        let read = || {
            let mut file = File::open(&self.path)?;
            let ends = file.metadata()?.len();
            let from = ends.saturating_sub(LAST_OCTETS_MAX).max(self.begins);
            file.seek(SeekFrom::Start(from))?;
            let mut octets = Vec::new();
            file.take(LAST_OCTETS_MAX).read_to_end(&mut octets)?;
            io::Result::Ok(octets)
        };
        // What it said only helps; the error that it goes with stands without.
        LastLines::of(&read().unwrap_or_default())
    }
}

impl LastLines {
    /// Of a text that may begin within a line. Control characters, which could move a terminal's cursor, are left out.
    fn of(octets: &[u8]) -> LastLines {
        let text = String::from_utf8_lossy(octets);
        let mut lines: Vec<String> = text
            .lines()
            .rev()
            .map(|line| line.chars().filter(|c| !c.is_control()).collect())
            .filter(|line: &String| !line.trim().is_empty())
            .take(LAST_LINES_MAX)
            .collect();
        lines.reverse();
        LastLines(lines.join("\n"))
    }

    /// The lines themselves.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LastLines {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(formatter, "; it said last:\n{}", self.0)
    }
}

/// Starts it from a thread that runs on these cores: a process inherits them from the thread that starts it.
fn spawn_on(cores: &Cores, mut shell: Command) -> Result<Child, ServerError> {
    let cores = cores.clone();
    let spawn = move || {
        pin(&cores)?;
        shell.spawn().map_err(ServerError::Start)
    };
    let thread = thread::Builder::new().name("start".into());
    let thread = thread.spawn(spawn).map_err(ServerError::Start)?;
    match thread.join() {
        Ok(started) => started,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Whether somebody accepts a connection there.
fn accepts(address: SocketAddr, timeout: Duration) -> bool {
    // A timeout of 0 is refused.
    let timeout = timeout.max(Duration::from_millis(1));
    let Ok(stream) = TcpStream::connect_timeout(&address, timeout) else {
        return false;
    };
    // Where nobody listens a connection can come about with itself, if the kernel chooses the very port that is tried.
    stream.local_addr().is_ok_and(|local| local != address)
}

/// Whether a process of the group has not ended. One that ended and is not waited for holds nothing any more.
fn group_runs(group: Pid) -> bool {
    let member = |stat: &Stat| stat.group == Some(group) && stat.life == Life::Running;
    Stat::all().iter().any(member)
}

fn kernel(doing: &'static str) -> impl Fn(Errno) -> ServerError {
    move |error| ServerError::Kernel {
        doing,
        source: error.into(),
    }
}

/// How long a server may take to end when asked: it may have mail to finish.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Between two tries to connect, or two looks at a group that was killed.
const PAUSE: Duration = Duration::from_millis(5);

/// On loopback a connection comes about at once, unless the queue of a listener is full.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// SIGKILL takes its time where a process writes out or hands back much memory.
const KILLED_MAX: Duration = Duration::from_secs(5);

const LAST_LINES_MAX: usize = 10;

const LAST_OCTETS_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::os::unix::process::ExitStatusExt;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::path::Path;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

    use socket2::{Domain, Socket, Type};
    use tempfile::TempDir;

    use super::*;
    use crate::process::cores_allowed;

    /// A server that is a shell script. What it writes to descriptor 3 is seen here, and when the last process that
    /// holds it has ended.
    struct Script {
        folder: TempDir,
        said: Receiver<String>,
    }

    impl Script {
        fn new(text: &str) -> Script {
            let folder = tempfile::tempdir().unwrap();
            let pipe = folder.path().join("pipe");
            let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
            assert!(made.success());
            let script = format!("exec 3>{}\n{text}\n", pipe.display());
            fs::write(folder.path().join("script"), script).unwrap();
            let (say, said) = channel();
            // Opening the pipe waits for the script to do the same.
            thread::spawn(move || {
                let lines = BufReader::new(File::open(pipe).unwrap()).lines();
                lines.for_each(|line| say.send(line.unwrap()).unwrap());
            });
            Script { folder, said }
        }

        fn line(&self) -> String {
            format!("sh {}", self.folder.path().join("script").display())
        }

        fn command(&self) -> ServerCommand {
            command(&self.line())
        }

        #[track_caller]
        fn says(&self, line: &str) {
            assert_eq!(self.said.recv_timeout(LONG).as_deref(), Ok(line));
        }

        #[track_caller]
        fn has_ended(&self) {
            let next = self.said.recv_timeout(LONG);
            assert_eq!(next, Err(RecvTimeoutError::Disconnected));
        }
    }

    fn command(line: &str) -> ServerCommand {
        ServerCommand {
            line: line.into(),
            cores: None,
            output: Output::Discard,
            directory: None,
        }
    }

    /// A port that is taken, but not listened at.
    fn closed() -> (Socket, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, address)
    }

    /// Far longer than anything here takes, and less than a server sleeps that is to be ended before.
    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn one_that_heeds_sigterm_is_asked_only() {
        let script =
            Script::new("trap 'echo ending >&3; exit 7' TERM\nsleep 90 & echo up >&3\nwait");
        let server = StartedServer::start(&script.command()).unwrap();
        script.says("up");
        assert!(server.is_running().unwrap());
        let stopped = server.stop().unwrap();
        assert_eq!(stopped.status.code(), Some(7));
        assert_eq!(stopped.how, StoppedBy::Asking);
        script.says("ending");
        // The child that it left behind held descriptor 3 too.
        script.has_ended();
    }

    #[test]
    fn the_shell_becomes_the_server() {
        let server = StartedServer::start(&command("sleep 90")).unwrap();
        let stopped = server.stop().unwrap();
        assert_eq!(stopped.status.signal(), Some(15));
        assert_eq!(stopped.how, StoppedBy::Asking);
    }

    #[test]
    fn one_that_ignores_sigterm_is_killed_with_its_group() {
        let script = Script::new(
            "trap '' TERM\n(echo child >&3; sleep 90; :) &\necho up >&3\nsleep 90; sleep 90",
        );
        let server = StartedServer::start(&script.command()).unwrap();
        let mut lines = [
            script.said.recv_timeout(LONG),
            script.said.recv_timeout(LONG),
        ];
        lines.sort_by_key(|line| line.clone().ok());
        assert_eq!(lines, [Ok("child".into()), Ok("up".into())]);
        let stopped = server.stop_within(Duration::from_millis(100)).unwrap();
        assert_eq!(stopped.status.signal(), Some(9));
        assert_eq!(stopped.how, StoppedBy::Killing);
        script.has_ended();
    }

    #[test]
    fn nothing_is_left_behind_by_a_panic() {
        let script = Script::new("trap '' TERM\n(sleep 90; :) &\necho up >&3\nsleep 90");
        let panic = catch_unwind(AssertUnwindSafe(|| {
            let _server = StartedServer::start(&script.command()).unwrap();
            script.says("up");
            // A panic without its message.
            resume_unwind(Box::new("a measurement fails"));
        }));
        assert!(panic.is_err());
        script.has_ended();
    }

    #[test]
    fn one_that_dies_early_is_told_with_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "of an earlier one\n").unwrap();
        let mut command = command("sh -c 'echo listening; echo cannot bind port 25 >&2; exit 3'");
        command.output = Output::File(path);
        let mut server = StartedServer::start(&command).unwrap();
        let (_socket, address) = closed();
        let error = server.wait_ready(&[address], LONG).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the server ended before it was ready (exit status: 3); it said last:\nlistening\ncannot bind port 25"
        );
        assert!(!server.is_running().unwrap());
        let stopped = server.stop().unwrap();
        assert_eq!(stopped.status.code(), Some(3));
        assert_eq!(stopped.how, StoppedBy::Itself);
    }

    #[test]
    fn what_is_no_command_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command("/nonexistent/server --flag");
        command.output = Output::File(folder.path().join("log"));
        let mut server = StartedServer::start(&command).unwrap();
        let (_socket, address) = closed();
        let error = server.wait_ready(&[address], LONG).unwrap_err().to_string();
        assert!(error.contains("exit status: 127"), "{error}");
        assert!(error.contains("/nonexistent/server"), "{error}");
        command.output = Output::File("/nonexistent/log".into());
        let error = StartedServer::start(&command).unwrap_err();
        assert!(matches!(error, ServerError::Output { .. }), "{error}");
    }

    #[test]
    fn one_that_does_not_listen_is_not_ready() {
        let mut server = StartedServer::start(&command("sleep 90")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bound = listener.local_addr().unwrap();
        server.wait_ready(&[bound], LONG).unwrap();
        let (_socket, missing) = closed();
        let timeout = Duration::from_millis(50);
        let error = server.wait_ready(&[bound, missing], timeout).unwrap_err();
        assert!(
            matches!(error, ServerError::NotReady { address, .. } if address == missing),
            "{error}"
        );
        assert!(server.is_running().unwrap());
    }

    #[test]
    fn another_server_in_its_place_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bound = listener.local_addr().unwrap();
        let (_socket, free) = closed();
        nobody_accepts(&[free]).unwrap();
        let error = nobody_accepts(&[free, bound]).unwrap_err();
        assert!(matches!(error, ServerError::Taken(address) if address == bound));
    }

    #[test]
    fn it_runs_on_its_cores() {
        let core = *cores_allowed().last().unwrap();
        let script = Script::new("grep Cpus_allowed_list /proc/self/status >&3; sleep 90");
        let mut command = script.command();
        command.cores = Some(core.into());
        let server = StartedServer::start(&command).unwrap();
        script.says(&format!("Cpus_allowed_list:\t{core}"));
        assert!(
            cores_allowed().contains(&core),
            "this thread has kept its own"
        );
        server.stop().unwrap();
        script.has_ended();
        command.cores = Some(1023.into());
        let error = StartedServer::start(&command).unwrap_err();
        assert!(matches!(error, ServerError::Pin(_)), "{error}");
    }

    #[test]
    fn the_last_lines_are_fit_for_a_terminal() {
        for (octets, lines) in [
            (&b""[..], ""),
            (b"one\n\n \ntwo", "one\ntwo"),
            (b"\x1b[2Jred\x07\n\xff\n", "[2Jred\n\u{fffd}"),
            (
                b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n",
                "2\n3\n4\n5\n6\n7\n8\n9\n10\n11",
            ),
        ] {
            assert_eq!(LastLines::of(octets).as_str(), lines);
        }
        assert_eq!(LastLines::default().to_string(), "");
    }

    /// This test program once more, in another part.
    fn as_part(part: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "process::started::tests::in_another_part",
                "--nocapture",
            ])
            .env(PART, part);
        command
    }

    const PART: &str = "RINGPOST_LOADGEN_TEST_PART";

    /// No test by itself: what this program does when the tests below start it once more.
    #[test]
    fn in_another_part() {
        let Ok(part) = std::env::var(PART) else {
            return;
        };
        if let Some(address) = part.strip_prefix("listen ") {
            let listener = TcpListener::bind(address).unwrap();
            while listener.accept().is_ok() {}
        }
        let line = part.strip_prefix("start ").expect("a part that is known");
        let _server = StartedServer::start(&command(line)).unwrap();
        println!("started");
        thread::sleep(LONG);
    }

    #[test]
    fn one_that_listens_is_ready() {
        // Free until the server takes it.
        let (socket, address) = closed();
        drop(socket);
        let part = as_part("");
        let words = [part.get_program()].into_iter().chain(part.get_args());
        let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
        let line = format!("env '{PART}=listen {address}' {}", words.join(" "));
        let mut server = StartedServer::start(&command(&line)).unwrap();
        server.wait_ready(&[address], LONG).unwrap();
        assert!(Path::new(&format!("/proc/{}", server.pid().as_raw_pid())).exists());
        server.stop().unwrap();
        nobody_accepts(&[address]).unwrap();
    }

    #[test]
    fn it_ends_when_the_load_generator_is_killed() {
        let script = Script::new("trap '' TERM\n(sleep 90; :) &\necho up >&3\nsleep 90");
        let mut generator = as_part(&format!("start {}", script.line()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(generator.stdout.take().unwrap());
        // The guard stands when `start` has returned.
        assert!(said.lines().any(|line| line.unwrap().ends_with("started")));
        script.says("up");
        generator.kill().unwrap();
        assert_eq!(generator.wait().unwrap().signal(), Some(9));
        script.has_ended();
    }
}
