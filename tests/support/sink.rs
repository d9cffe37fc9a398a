//! A scripted next hop: SMTP or LMTP, in clear or inside TLS, on a port of the kernel's choice or a UNIX socket.
//!
//! It does what its script says and writes down all it sees. Threads and blocking calls, nothing of the library: a
//! mistake that both sides shared would show in no test.
//! Invariants:
//! - What the peer can know is in the books before it can know it.
//! - A breach of the protocol by the peer fails the test, whatever that is about.
//! - Dropping the sink ends its connections and its threads.

mod record;
mod script;
mod session;
mod wire;

use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use socket2::{Domain, SockAddr, Socket, Type};

pub(crate) use record::{Connection, Login, Message, TlsSeen, Way};
pub(crate) use script::{Act, Gate, Point, Script, Tls, When, long_reply};

use super::PATIENCE;
use session::Session;
use wire::Stream;

/// A next hop under way.
pub(crate) struct Sink {
    place: Place,
    listener: Arc<Socket>,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// Where it listens.
#[derive(Clone, Debug)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

struct Shared {
    books: Mutex<Books>,
    changed: Condvar,
    is_over: AtomicBool,
}

/// All that was seen.
#[derive(Default)]
pub(crate) struct Books {
    pub(crate) connections: Vec<Connection>,
    pub(crate) messages: Vec<Message>,
    /// The most connections at a time.
    pub(crate) open_max: usize,
    breaches: Vec<String>,
    /// What the next connections play: the last one goes on for ever.
    scripts: Vec<Script>,
    /// One a connection under way, to end it from outside.
    streams: Vec<Option<Stream>>,
}

impl Books {
    /// The messages that got a positive reply, for one recipient at least.
    pub(crate) fn taken(&self) -> Vec<&Message> {
        let messages = self.messages.iter();
        messages
            .filter(|message| !message.taken_for.is_empty())
            .collect()
    }

    /// How many connections there are now.
    pub(crate) fn open(&self) -> usize {
        let connections = self.connections.iter();
        let in_use = |connection: &&Connection| !connection.is_over && !connection.has_quit;
        connections.filter(in_use).count()
    }
}

impl Sink {
    /// Listens on 127.0.0.1: the first connection plays the first script, and so on; the last one goes on for ever.
    pub(crate) fn start(scripts: impl Into<Vec<Script>>) -> Sink {
        Sink::start_at(Ipv4Addr::LOCALHOST.into(), 0, scripts)
    }

    pub(crate) fn start_at(ip: IpAddr, port: u16, scripts: impl Into<Vec<Script>>) -> Sink {
        let mut sink = Sink::asleep_at(ip, port);
        sink.wake(scripts);
        sink
    }

    /// Holds a port on which connections are refused, until it wakes.
    pub(crate) fn asleep() -> Sink {
        Sink::asleep_at(Ipv4Addr::LOCALHOST.into(), 0)
    }

    pub(crate) fn asleep_at(ip: IpAddr, port: u16) -> Sink {
        let address = SocketAddr::new(ip, port);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Sink::bound(Place::Tcp(address), socket)
    }

    /// Listens on a UNIX socket.
    pub(crate) fn start_unix(path: &Path, scripts: impl Into<Vec<Script>>) -> Sink {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(path).unwrap()).unwrap();
        let mut sink = Sink::bound(Place::Unix(path.to_owned()), socket);
        sink.wake(scripts);
        sink
    }

    /// Not yet listening.
    fn bound(place: Place, socket: Socket) -> Sink {
        Sink {
            place,
            listener: Arc::new(socket),
            shared: Arc::new(Shared {
                books: Mutex::default(),
                changed: Condvar::new(),
                is_over: AtomicBool::new(false),
            }),
            acceptor: None,
        }
    }

    /// Begins to listen.
    pub(crate) fn wake(&mut self, scripts: impl Into<Vec<Script>>) {
        self.play(scripts);
        self.listener.listen(1024).unwrap();
        let (listener, shared) = (Arc::clone(&self.listener), Arc::clone(&self.shared));
        let place = self.place.clone();
        self.acceptor = Some(thread::spawn(move || accept(&listener, &place, &shared)));
    }

    /// What connections from now on play.
    pub(crate) fn play(&self, scripts: impl Into<Vec<Script>>) {
        let mut scripts = scripts.into();
        scripts.reverse();
        self.shared.book(|books| books.scripts = scripts);
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match &self.place {
            Place::Tcp(address) => *address,
            Place::Unix(path) => panic!("{} has no address", path.display()),
        }
    }

    /// As `--deliver` and `--route` name it: `smtp:127.0.0.1:PORT`.
    pub(crate) fn target(&self) -> String {
        self.target_by("smtp")
    }

    /// The same by another protocol: `smtps`, `lmtp`.
    pub(crate) fn target_by(&self, protocol: &str) -> String {
        match &self.place {
            Place::Tcp(address) => format!("{protocol}:{address}"),
            Place::Unix(path) => format!("{protocol}:unix:{}", path.display()),
        }
    }

    /// The same by a name of this host.
    pub(crate) fn target_named(&self, protocol: &str, name: &str) -> String {
        format!("{protocol}:{name}:{}", self.address().port())
    }

    /// Looks at the books.
    pub(crate) fn books<T>(&self, look: impl FnOnce(&Books) -> T) -> T {
        look(&self.shared.lock())
    }

    /// Takes the breaches so far out of the books: they fail nothing then.
    pub(crate) fn forgive(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().breaches)
    }

    /// Waits until the books say what is wanted.
    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, mut look: impl FnMut(&Books) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut books = self.shared.lock();
        loop {
            if let Some(answer) = look(&books) {
                return answer;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let count = (books.connections.len(), books.messages.len());
            assert!(
                !left.is_zero(),
                "waited in vain: {what}; {count:?} connections and messages came: {:#?}",
                books.connections.last()
            );
            let woken = self.shared.changed.wait_timeout(books, left);
            books = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for so many messages with a positive reply; gives them, and there may be more.
    #[track_caller]
    pub(crate) fn messages(&self, count: usize) -> Vec<Message> {
        self.wait(&format!("{count} messages taken"), |books| {
            let taken = books.taken();
            (taken.len() >= count).then(|| taken.into_iter().cloned().collect())
        })
    }

    /// Waits for the only message, and gives it.
    #[track_caller]
    pub(crate) fn only(&self) -> Message {
        let mut messages = self.messages(1);
        assert_eq!(messages.len(), 1, "{messages:#?}");
        messages.remove(0)
    }

    /// Waits for so many messages, whatever was or will be replied to them.
    #[track_caller]
    pub(crate) fn arrived(&self, count: usize) -> Vec<Message> {
        self.wait(&format!("{count} messages"), |books| {
            (books.messages.len() >= count).then(|| books.messages.clone())
        })
    }

    /// Waits for so many connections, and gives them as they are then.
    #[track_caller]
    pub(crate) fn connections(&self, count: usize) -> Vec<Connection> {
        self.wait(&format!("{count} connections"), |books| {
            (books.connections.len() >= count).then(|| books.connections.clone())
        })
    }

    /// Waits until the connection of this number has ended, and gives it.
    #[track_caller]
    pub(crate) fn ended(&self, number: usize) -> Connection {
        self.wait(&format!("the end of connection {number}"), |books| {
            let connection = books.connections.get(number)?;
            connection.is_over.then(|| connection.clone())
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes `accept`, on Linux; fails if it never listened.
        let _ = self.listener.shutdown(Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let books = self.shared.lock();
        if thread::panicking() {
            let last = books.connections.len().saturating_sub(3);
            eprintln!("--- the last connections to {:?}:", self.place);
            eprintln!("{:#?} {:#?}", &books.connections[last..], books.breaches);
        } else {
            assert!(books.breaches.is_empty(), "{:#?}", books.breaches);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book(&self, write: impl FnOnce(&mut Books)) {
        write(&mut self.lock());
        self.changed.notify_all();
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

/// Accepts until the sink is dropped; then ends the connections and waits for their threads.
fn accept(listener: &Socket, place: &Place, shared: &Arc<Shared>) {
    let mut sessions = Vec::new();
    while let Ok((socket, _)) = listener.accept() {
        let stream = match place {
            Place::Tcp(_) => {
                let _ = socket.set_tcp_nodelay(true);
                Stream::Tcp(socket.into())
            }
            Place::Unix(_) => Stream::Unix(socket.into()),
        };
        let Ok(handle) = stream.try_clone() else {
            continue;
        };
        let mut begin = None;
        shared.book(|books| {
            let script = match books.scripts.len() {
                0 | 1 => books.scripts.last().cloned(),
                _ => books.scripts.pop(),
            };
            begin = script.map(|script| (script, books.connections.len()));
            books.connections.push(Connection::default());
            books.streams.push(Some(handle));
            books.open_max = books.open_max.max(books.open());
        });
        let Some((script, number)) = begin else {
            continue;
        };
        let session = Session::new(script, stream, number, Arc::clone(shared));
        let shared = Arc::clone(shared);
        sessions.push(thread::spawn(move || {
            session.play();
            shared.book(|books| {
                books.connections[number].is_over = true;
                if let Some(stream) = books.streams[number].take() {
                    stream.shutdown();
                }
            });
        }));
    }
    for stream in shared.lock().streams.iter().flatten() {
        stream.shutdown();
    }
    for session in sessions {
        let _ = session.join();
    }
}
