//! The control socket: how `ringpost queue` reaches the shards of a running server.
//!
//! ```text
//!  ringpost queue                     control thread                         shards
//!  {"show":"06hq3k…"}            ──▶  read_question ── Asked, one a shard ──▶
//!  {"id":"06hq3k…","state":…}    ◀──  answer        ◀── Reply ────────────
//!  {"done":1}                    ◀──
//! ```
//!
//! One connection is one exchange: the client sends a [`Question`] on a line, and is answered with a [`Line`] for
//! each message, and one last line, which is `done` or `error`. A connection that ends without one was cut off.
//!
//! Invariants:
//! - The file is there, for the owner alone, while the lock on the data directory is held. Who finds nobody
//!   behind it knows that no server runs.
//! - Of a list no more than a page a shard lies in memory, however long it is and however slowly it is read.
//! - A client that sends or reads nothing holds one of a few places, for a bounded time, and no shard.
//! - A shard that is gone or does not answer is an error, and is no wait without end.

mod merge;

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions, Permissions};
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use self::merge::Merge;
use super::lock::DataDirLock;
use crate::deliver::queue::request::{Asked, QueueState, Queued, Reply, Request};
use crate::spool::QueueId;

/// What a client asks: a [`Request`] to whichever shard has the message, and a list without pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// All messages, in the order of their ids.
    List,
    /// One message.
    Show(QueueId),
    /// An attempt now.
    Retry(QueueId),
    /// An attempt now for every message that is not held.
    RetryAll,
    /// The message is forgotten.
    Remove(QueueId),
    /// No attempts until it is released.
    Hold(QueueId),
    /// Attempts again.
    Release(QueueId),
}

/// A line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// A message.
    Message(Box<Queued>),
    /// The last line: for how many messages it was done, or how many were shown. 0: nobody knows the id.
    Done {
        /// So many.
        done: usize,
    },
    /// The last line: what went wrong.
    Error {
        /// In a few words.
        error: String,
    },
}

/// The socket of a server, removed when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: std::os::unix::net::UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing is lost with a file that stays: the next server replaces it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It cannot be made.
    #[error("cannot make the control socket {}: {source}", .path.display())]
    Make {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Something else has its name.
    #[error("cannot make the control socket {}: that is something else", .0.display())]
    SomethingElse(PathBuf),
}

impl ControlSocket {
    /// Makes the socket in the data directory that `_lock` is for, in the place of one that a dead server left.
    ///
    /// To be called as whom the server runs as: then the socket is theirs from the start, and nobody who may
    /// write to the directory can have root give away another file.
    pub fn bind(_lock: &DataDirLock, data_dir: &Path) -> Result<ControlSocket, SocketError> {
        let path = data_dir.join(NAME);
        let fault = |source| SocketError::Make {
            path: path.clone(),
            source,
        };
        match fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => {
                fs::remove_file(&path).map_err(fault)?;
            }
            Ok(_) => return Err(SocketError::SomethingElse(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault(error)),
        }
        let bound = || {
            let address = Address::of(data_dir)?;
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.bind(&SockAddr::unix(&address.path)?)?;
            let file = SocketFile(path.clone());
            // Until it listens nobody can connect, whatever the umask let its mode be.
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(ControlSocket {
                listener: socket.into(),
                file,
            })
        };
        bound().map_err(fault)
    }

    /// Answers until it is dropped, and asks `shards` by these channels. Within a tokio runtime.
    pub fn serve(
        self,
        shards: Vec<mpsc::Sender<Asked>>,
    ) -> io::Result<impl Future<Output = Infallible> + use<>> {
        self.serve_within(shards, BOUNDS)
    }

    fn serve_within(
        self,
        shards: Vec<mpsc::Sender<Asked>>,
        bounds: Bounds,
    ) -> io::Result<impl Future<Output = Infallible> + use<>> {
        let listener = UnixListener::from_std(self.listener)?;
        let file = self.file;
        Ok(async move {
            let _file = file;
            let shards: Arc<[mpsc::Sender<Asked>]> = shards.into();
            let free = Arc::new(Semaphore::new(bounds.connections_max));
            loop {
                // Connections beyond the limit wait in the backlog. The semaphore is never closed.
                let Ok(place) = Arc::clone(&free).acquire_owned().await else {
                    std::future::pending::<()>().await;
                    continue;
                };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let exchange = Exchange {
                            stream,
                            bounds,
                            shards: Arc::clone(&shards),
                            _place: place,
                        };
                        tokio::spawn(exchange.run());
                    }
                    Err(error) => {
                        tracing::warn!(
                            error = &error as &(dyn std::error::Error + 'static),
                            "cannot accept a connection to the control socket"
                        );
                        // No descriptors, most likely: the next accept would fail as fast.
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        })
    }
}

/// Connects to the server of a data directory. `None`: no server runs on it.
pub fn connect(data_dir: &Path) -> io::Result<Option<BlockingStream>> {
    let connected =
        Address::of(data_dir).and_then(|address| BlockingStream::connect(&address.path));
    let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    match connected {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if nobody.contains(&error.kind()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The path by which the kernel is told of a socket: of no more than 107 octets (unix(7)), whatever the data
/// directory is called.
struct Address {
    path: PathBuf,
    /// Open while `path` leads through it.
    _directory: Option<File>,
}

impl Address {
    fn of(data_dir: &Path) -> io::Result<Address> {
        let path = data_dir.join(NAME);
        if path.as_os_str().as_bytes().len() <= PATH_OCTETS_MAX {
            return Ok(Address {
                path,
                _directory: None,
            });
        }
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(data_dir)?;
        let through = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
        Ok(Address {
            path: through.join(NAME),
            _directory: Some(directory),
        })
    }
}

/// What is wrong with an exchange.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the request has more than {QUESTION_OCTETS_MAX} octets")]
    TooLong,
    #[error("the request has no end of line")]
    Unended,
    #[error("no request came in time")]
    Late,
    #[error("not a request: {0}")]
    Malformed(serde_json::Error),
    #[error("shard {0} is gone")]
    ShardGone(usize),
    #[error("shard {0} does not answer")]
    ShardSilent(usize),
    #[error("{}", match .0 {
        QueueState::Held => "the message is held, release it first",
        QueueState::Active | QueueState::Waiting | QueueState::Deferred => "the message is not held",
    })]
    Passed(QueueState),
    #[error("shard {0} answers something else")]
    OtherReply(usize),
    /// There is nobody to be told anything.
    #[error("the client is gone: {0}")]
    Client(#[from] io::Error),
}

/// One connection.
struct Exchange {
    stream: UnixStream,
    bounds: Bounds,
    shards: Arc<[mpsc::Sender<Asked>]>,
    _place: OwnedSemaphorePermit,
}

impl Exchange {
    async fn run(self) {
        let outcome = match self.read_question().await {
            Ok(question) => self.answer(question).await,
            Err(fault) => Err(fault),
        };
        let last = match outcome {
            Ok(done) => Line::Done { done },
            Err(Fault::Client(_)) => return,
            Err(fault) => Line::Error {
                error: fault.to_string(),
            },
        };
        let mut octets = Vec::new();
        push_line(&mut octets, &last);
        // Who does not read it has learnt that by itself.
        let _ = self.write(&octets).await;
    }

    async fn read_question(&self) -> Result<Question, Fault> {
        let mut octets = [0; QUESTION_OCTETS_MAX];
        let mut filled = 0;
        let line = async {
            loop {
                let room = octets.get_mut(filled..).unwrap_or_default();
                if room.is_empty() {
                    return Err(Fault::TooLong);
                }
                self.stream.readable().await?;
                match self.stream.try_read(room) {
                    Ok(0) => return Err(Fault::Unended),
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error.into()),
                }
                // What follows the line is nobody's.
                let so_far = octets.get(..filled).unwrap_or_default();
                if let Some(end) = memchr::memchr(b'\n', so_far) {
                    let line = so_far.get(..end).unwrap_or_default();
                    return serde_json::from_slice(line).map_err(Fault::Malformed);
                }
            }
        };
        match timeout(self.bounds.question_within, line).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Fault::Late),
        }
    }

    /// Answers all but the last line, and gives what that is to say.
    async fn answer(&self, question: Question) -> Result<usize, Fault> {
        match question {
            Question::List => self.list().await,
            Question::Show(id) => self.show(id).await,
            Question::Retry(id) => self.change("retry", id, Request::Retry(id)).await,
            Question::Remove(id) => self.change("remove", id, Request::Remove(id)).await,
            Question::Hold(id) => self.change("hold", id, Request::Hold(id)).await,
            Question::Release(id) => self.change("release", id, Request::Release(id)).await,
            Question::RetryAll => self.retry_all().await,
        }
    }

    async fn list(&self) -> Result<usize, Fault> {
        let mut messages = Merge::new(self.shards.len(), |shard, after| async move {
            let count = PAGE_MESSAGES;
            match self.ask(shard, Request::List { after, count }).await? {
                Reply::Listed(page) => Ok(page),
                Reply::Shown(_) | Reply::Done(_) | Reply::Passed(_) => {
                    Err(Fault::OtherReply(shard))
                }
            }
        });
        let mut octets = Vec::with_capacity(WRITE_OCTETS * 2);
        let mut listed = 0;
        while let Some(message) = messages.next().await? {
            push_line(&mut octets, &message);
            listed += 1;
            if octets.len() >= WRITE_OCTETS {
                self.write(&octets).await?;
                octets.clear();
            }
        }
        self.write(&octets).await?;
        Ok(listed)
    }

    async fn show(&self, id: QueueId) -> Result<usize, Fault> {
        let mut faults = Vec::new();
        for shard in 0..self.shards.len() {
            match self.ask(shard, Request::Show(id)).await {
                Ok(Reply::Shown(Some(message))) => {
                    let mut octets = Vec::new();
                    push_line(&mut octets, &message);
                    self.write(&octets).await?;
                    return Ok(1);
                }
                Ok(Reply::Shown(None)) => {}
                Ok(Reply::Listed(_) | Reply::Done(_) | Reply::Passed(_)) => {
                    faults.push(Fault::OtherReply(shard));
                }
                Err(fault) => faults.push(fault),
            }
        }
        faults.into_iter().next().map_or(Ok(0), Err)
    }

    /// Asks one shard after the other, until one of them has the message. Any of them may: the id tells only
    /// which one took it, and by another `--shards` it went to another.
    async fn change(
        &self,
        command: &'static str,
        id: QueueId,
        request: Request,
    ) -> Result<usize, Fault> {
        let mut faults = Vec::new();
        for shard in 0..self.shards.len() {
            match self.done(shard, request).await {
                Ok(0) => {}
                Ok(done) => {
                    let uid = self.uid();
                    tracing::info!(command, queue_id = %id, uid, "queue command");
                    return Ok(done);
                }
                Err(fault) => faults.push(fault),
            }
        }
        faults.into_iter().next().map_or(Ok(0), Err)
    }

    async fn retry_all(&self) -> Result<usize, Fault> {
        let (mut messages, mut faults) = (0, Vec::new());
        for shard in 0..self.shards.len() {
            match self.done(shard, Request::RetryAll).await {
                Ok(done) => messages += done,
                Err(fault) => faults.push(fault),
            }
        }
        let uid = self.uid();
        tracing::info!(command = "retry-all", messages, uid, "queue command");
        faults.into_iter().next().map_or(Ok(messages), Err)
    }

    async fn done(&self, shard: usize, request: Request) -> Result<usize, Fault> {
        match self.ask(shard, request).await? {
            Reply::Done(done) => Ok(done),
            Reply::Passed(state) => Err(Fault::Passed(state)),
            Reply::Listed(_) | Reply::Shown(_) => Err(Fault::OtherReply(shard)),
        }
    }

    async fn ask(&self, shard: usize, request: Request) -> Result<Reply, Fault> {
        let gone = || Fault::ShardGone(shard);
        let (reply, answer) = oneshot::channel();
        let asked = Asked { request, reply };
        let sender = self.shards.get(shard).ok_or_else(gone)?;
        let answered = async {
            sender.send(asked).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())
        };
        match timeout(self.bounds.answer_within, answered).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Fault::ShardSilent(shard)),
        }
    }

    /// Each part is to be taken in time.
    async fn write(&self, octets: &[u8]) -> io::Result<()> {
        let mut rest = octets;
        while !rest.is_empty() {
            match timeout(self.bounds.taken_within, self.stream.writable()).await {
                Ok(writable) => writable?,
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
            match self.stream.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Who asks, for the log.
    fn uid(&self) -> Option<u32> {
        self.stream.peer_cred().ok().map(|peer| peer.uid())
    }
}

fn push_line(octets: &mut Vec<u8>, line: &impl Serialize) {
    // To a vector, of types without a map: neither can fail.
    let _ = serde_json::to_writer(&mut *octets, line);
    octets.push(b'\n');
}

/// How many clients, and how long they may take.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    connections_max: usize,
    question_within: Duration,
    taken_within: Duration,
    answer_within: Duration,
}

const BOUNDS: Bounds = Bounds {
    // People and scripts; more wait.
    connections_max: 16,
    // The command sends it with its connection.
    question_within: Duration::from_secs(10),
    // Somebody reads a list page by page on a terminal.
    taken_within: Duration::from_secs(15 * 60),
    // A shard answers between two messages; with a slow disk a change takes a write.
    answer_within: Duration::from_secs(30),
};

/// The file in the data directory.
const NAME: &str = "control";

/// A request has some 40.
const QUESTION_OCTETS_MAX: usize = 256;

/// Messages that a shard is asked for at once: what it tells between two steps of its sessions.
const PAGE_MESSAGES: usize = 256;

/// Written at once, or somewhat more.
const WRITE_OCTETS: usize = 16 * 1024;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 128;

/// `sun_path` without its closing NUL.
const PATH_OCTETS_MAX: usize = 107;

/// Between two accepts of which the first failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Requests that wait for one shard: at most one of each connection is under way.
pub const ASKED_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::fs::MetadataExt;
    use std::time::{Instant, UNIX_EPOCH};

    use tempfile::TempDir;

    use super::*;
    use crate::deliver::queue::request::{QueueState, QueuedRecipient, RecipientState};
    use crate::spool::QueueIds;

    pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    pub(super) fn id(number: u64) -> QueueId {
        QueueIds::new(0).next(UNIX_EPOCH + Duration::from_micros(number + 1))
    }

    pub(super) fn queued(number: u64) -> Queued {
        Queued {
            id: id(number),
            state: QueueState::Waiting,
            from: "a@example.test".to_owned(),
            ret: None,
            envid: None,
            octets: number,
            arrived_unix_ms: number,
            attempts: 0,
            next_attempt_unix_ms: Some(number),
            recipients: vec![QueuedRecipient {
                to: "b@example.test".to_owned(),
                state: RecipientState::Waiting,
                reason: None,
                notify: None,
                orcpt: None,
            }],
        }
    }

    /// How a shard behaves.
    #[derive(Clone)]
    enum Shard {
        Has(Vec<u64>),
        Gone,
        Silent,
    }

    async fn shard(messages: Vec<u64>, mut asked: mpsc::Receiver<Asked>) {
        while let Some(Asked { request, reply }) = asked.recv().await {
            let has = |wanted: QueueId| messages.iter().find(|number| id(**number) == wanted);
            let answer = match request {
                Request::List { after, count } => {
                    let behind = messages.iter().filter(|number| Some(id(**number)) > after);
                    Reply::Listed(behind.take(count).map(|number| queued(*number)).collect())
                }
                Request::Show(id) => Reply::Shown(has(id).map(|number| Box::new(queued(*number)))),
                Request::RetryAll => Reply::Done(messages.len()),
                Request::Retry(id)
                | Request::Remove(id)
                | Request::Hold(id)
                | Request::Release(id) => Reply::Done(has(id).into_iter().count()),
            };
            let _ = reply.send(answer);
        }
    }

    struct Served {
        directory: TempDir,
    }

    /// Runs `test` against a socket in front of these shards.
    fn with_shards(shards: &[Shard], bounds: Bounds, test: impl FnOnce(&Served)) {
        let directory = tempfile::tempdir().unwrap();
        let lock = DataDirLock::take(directory.path(), None).unwrap();
        let socket = ControlSocket::bind(&lock, directory.path()).unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let shards = shards.to_vec();
        let server = std::thread::spawn(move || {
            block_on(async {
                let mut senders = Vec::new();
                let mut silent = Vec::new();
                for behaviour in shards {
                    let (sender, receiver) = mpsc::channel(ASKED_MAX);
                    senders.push(sender);
                    match behaviour {
                        Shard::Has(messages) => drop(tokio::spawn(shard(messages, receiver))),
                        Shard::Gone => drop(receiver),
                        Shard::Silent => silent.push(receiver),
                    }
                }
                let serving = socket.serve_within(senders, bounds).unwrap();
                tokio::select! {
                    never = serving => match never {},
                    _ = ended => {}
                }
            });
        });
        let served = Served { directory };
        test(&served);
        drop(end);
        server.join().unwrap();
        assert!(!served.directory.path().join(NAME).exists());
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    const SHORT: Bounds = Bounds {
        question_within: Duration::from_millis(300),
        taken_within: Duration::from_millis(300),
        answer_within: Duration::from_millis(500),
        ..BOUNDS
    };

    impl Served {
        fn connect(&self) -> BlockingStream {
            let stream = connect(self.directory.path()).unwrap().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            stream
        }

        fn ask(&self, question: Question) -> Vec<Line> {
            let mut octets = Vec::new();
            push_line(&mut octets, &question);
            self.say(&octets)
        }

        /// The lines that answer to these octets.
        fn say(&self, octets: &[u8]) -> Vec<Line> {
            let mut stream = self.connect();
            stream.write_all(octets).unwrap();
            lines(stream)
        }
    }

    fn lines(stream: BlockingStream) -> Vec<Line> {
        BufReader::new(stream)
            .lines()
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect()
    }

    fn message(number: u64) -> Line {
        Line::Message(Box::new(queued(number)))
    }

    fn done(done: usize) -> Line {
        Line::Done { done }
    }

    #[track_caller]
    fn assert_error(lines: &[Line], beginning: &str) {
        match lines {
            [Line::Error { error }] => assert!(error.starts_with(beginning), "{error}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn questions_go_to_the_shard_that_has_the_message() {
        let shards = [Shard::Has(vec![1, 4]), Shard::Has(vec![2, 3, 5])];
        with_shards(&shards, BOUNDS, |served| {
            let mut all: Vec<Line> = (1..=5).map(message).collect();
            all.push(done(5));
            assert_eq!(served.ask(Question::List), all);
            for number in 1..=5 {
                let shown = served.ask(Question::Show(id(number)));
                assert_eq!(shown, [message(number), done(1)]);
            }
            assert_eq!(served.ask(Question::Show(id(6))), [done(0)]);
            let changes = [
                Question::Retry,
                Question::Remove,
                Question::Hold,
                Question::Release,
            ];
            for change in changes {
                assert_eq!(served.ask(change(id(5))), [done(1)]);
                assert_eq!(served.ask(change(id(6))), [done(0)]);
            }
            assert_eq!(served.ask(Question::RetryAll), [done(5)]);
        });
        with_shards(&[Shard::Has(vec![])], BOUNDS, |served| {
            assert_eq!(served.ask(Question::List), [done(0)]);
            assert_eq!(served.ask(Question::RetryAll), [done(0)]);
        });
    }

    #[test]
    fn the_words_are_these() {
        let id = id(7);
        let rows = [
            (Question::List, "\"list\"".to_owned()),
            (Question::Show(id), format!("{{\"show\":\"{id}\"}}")),
            (Question::RetryAll, "\"retry-all\"".to_owned()),
            (Question::Release(id), format!("{{\"release\":\"{id}\"}}")),
        ];
        for (question, text) in rows {
            assert_eq!(serde_json::to_string(&question).unwrap(), text);
            assert_eq!(serde_json::from_str::<Question>(&text).unwrap(), question);
        }
    }

    #[test]
    fn a_long_list_comes_whole() {
        let (even, odd) = (0..6000).partition(|number| number % 2 == 0);
        with_shards(&[Shard::Has(even), Shard::Has(odd)], BOUNDS, |served| {
            let listed = served.ask(Question::List);
            let (last, messages) = listed.split_last().unwrap();
            assert_eq!(*last, done(6000));
            assert!(std::iter::zip(messages, 0..).all(|(line, number)| *line == message(number)));
            assert_eq!(messages.len(), 6000);
        });
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        let long = [b' '; QUESTION_OCTETS_MAX];
        let rows: &[(&str, &[u8], &str)] = &[
            ("an empty line", b"\n", "not a request: "),
            ("no JSON", b"EHLO x\r\n", "not a request: "),
            ("another word", b"\"lists\"\n", "not a request: "),
            (
                "no id",
                b"{\"show\":\"x\"}\n",
                "not a request: not a queue id",
            ),
            ("two words", b"\"list\" \"list\"\n", "not a request: "),
            ("not UTF-8", b"\"\xff\"\n", "not a request: "),
            ("too long", &long, "the request has more than 256 octets"),
        ];
        with_shards(&[Shard::Has(vec![1])], BOUNDS, |served| {
            for (name, octets, beginning) in rows {
                println!("{name}");
                assert_error(&served.say(octets), beginning);
            }
            let mut unended = served.connect();
            unended.write_all(b"\"list\"").unwrap();
            unended.shutdown(std::net::Shutdown::Write).unwrap();
            assert_error(&lines(unended), "the request has no end of line");
            // What just fits: blanks are JSON's.
            let mut fits = vec![b' '; QUESTION_OCTETS_MAX - 7];
            fits.extend_from_slice(b"\"list\"\n");
            assert_eq!(fits.len(), QUESTION_OCTETS_MAX);
            assert_eq!(served.say(&fits), [message(1), done(1)]);
            // And octet by octet.
            let mut slow = served.connect();
            for octet in b"\"list\"\n" {
                slow.write_all(&[*octet]).unwrap();
            }
            assert_eq!(lines(slow), [message(1), done(1)]);
        });
    }

    #[test]
    fn silent_clients_lose_their_places() {
        with_shards(&[Shard::Has(vec![1])], SHORT, |served| {
            let silent: Vec<_> = (0..SHORT.connections_max)
                .map(|_| served.connect())
                .collect();
            let begun = Instant::now();
            assert_eq!(served.ask(Question::List), [message(1), done(1)]);
            assert!(begun.elapsed() >= SHORT.question_within / 2);
            for stream in silent {
                assert_error(&lines(stream), "no request came in time");
            }
        });
    }

    #[test]
    fn a_client_that_reads_nothing_is_cut_off() {
        let many = (0..20_000).collect();
        with_shards(&[Shard::Has(many)], SHORT, |served| {
            let mut stuck = served.connect();
            stuck.write_all(b"\"list\"\n").unwrap();
            // Nobody else waits for it.
            assert_eq!(served.ask(Question::Show(id(7))), [message(7), done(1)]);
            // A write fails once the other end is closed, and tells nothing before.
            stuck.set_nonblocking(true).unwrap();
            let deadline = Instant::now() + PATIENCE;
            loop {
                match stuck.write(b" ") {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                    Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
                assert!(Instant::now() < deadline, "it is not cut off");
            }
            stuck.set_nonblocking(false).unwrap();
            let mut octets = Vec::new();
            // What the kernel held, and no last line.
            let _ = stuck.read_to_end(&mut octets);
            let text = String::from_utf8(octets).unwrap();
            let listed = text.lines().count();
            assert!((1..20_000).contains(&listed), "{listed}");
            assert!(!text.contains("\"done\""));
        });
    }

    #[test]
    fn a_shard_that_is_gone_or_silent_is_an_error() {
        let rows = [
            (Shard::Gone, "shard 0 is gone"),
            (Shard::Silent, "shard 0 does not answer"),
        ];
        for (broken, text) in rows {
            let shards = [broken, Shard::Has(vec![1, 2])];
            with_shards(&shards, SHORT, |served| {
                assert_error(&served.ask(Question::List), text);
                assert_error(&served.ask(Question::RetryAll), text);
                assert_error(&served.ask(Question::Show(id(3))), text);
                assert_error(&served.ask(Question::Remove(id(3))), text);
                // The others are asked all the same.
                let shown = served.ask(Question::Show(id(2)));
                assert_eq!(shown, [message(2), done(1)]);
                assert_eq!(served.ask(Question::Remove(id(2))), [done(1)]);
            });
        }
    }

    #[test]
    fn the_socket_is_private_and_replaces_a_dead_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        assert!(connect(directory.path()).unwrap().is_none());
        let lock = DataDirLock::take(directory.path(), None).unwrap();
        let socket = ControlSocket::bind(&lock, directory.path()).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o600);
        assert!(connect(directory.path()).unwrap().is_some());
        // A server that is killed closes its socket and leaves the file.
        let ControlSocket { listener, file } = socket;
        std::mem::forget(file);
        drop(listener);
        assert!(path.exists());
        assert!(connect(directory.path()).unwrap().is_none());
        let socket = ControlSocket::bind(&lock, directory.path()).unwrap();
        assert!(connect(directory.path()).unwrap().is_some());
        drop(socket);
        assert!(!path.exists());

        fs::write(&path, "precious").unwrap();
        let error = ControlSocket::bind(&lock, directory.path()).unwrap_err();
        let text = format!(
            "cannot make the control socket {}: that is something else",
            path.display()
        );
        assert_eq!(error.to_string(), text);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_data_directory_may_have_a_long_name() {
        let above = tempfile::tempdir().unwrap();
        for octets in [1, 80, 200] {
            let data = above.path().join("d".repeat(octets));
            let lock = DataDirLock::take(&data, None).unwrap();
            let socket = ControlSocket::bind(&lock, &data).unwrap();
            assert!(data.join(NAME).exists());
            assert!(connect(&data).unwrap().is_some());
            drop(socket);
            assert!(!data.join(NAME).exists());
            assert!(connect(&data).unwrap().is_none());
        }
    }
}
