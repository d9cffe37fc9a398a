//! Verifies passwords on threads of its own: a hash takes a core for tens of milliseconds, and a
//! shard that computed one would stall all its sessions.
//!
//! Claims:
//! - At most `waiting_max` logins wait; the next one is [`Busy`] at once, which a session answers
//!   with 454.
//! - One peer has at most an eighth as many logins here, from asking to verdict, so that a guesser with
//!   many connections keeps nobody else from logging in. Who is one peer: see [`peers`](crate::peers).
//! - A login that nobody waits for any more is not computed; that is, one whose shard was stopped. One
//!   whose peer hung up is: a session that waits for a verdict does not look at its peer.
//! - Dropping the last [`Verifier`] ends the threads, after the logins that are still waited for.
//!
//! It does not promise an order among waiting logins, and it does not slow a guesser down: counting
//! and delaying failures is the session's part.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::users::Users;
use crate::peers::{PeerPlace, Peers};
use crate::smtp::sasl::Secret;

/// Logins that may wait: at 20 ms each, one thread is through with them in 1.3 s.
pub const DEFAULT_WAITING_MAX: usize = 64;

/// The threads that hash, and the queue before them.
#[derive(Debug, Clone)]
pub struct Verifier {
    threads: Arc<Threads>,
    peers: Arc<Peers>,
}

/// Too many logins wait already, or too many of this peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many logins are waiting to be verified")]
pub struct Busy;

impl Verifier {
    /// Half of the cores, the others being busy with sessions; at least one.
    pub fn default_threads() -> NonZeroUsize {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN)
    }

    /// Starts the threads. Fails as starting a thread fails.
    pub fn start(threads: NonZeroUsize, waiting_max: usize) -> io::Result<Verifier> {
        let (logins, arriving) = mpsc::sync_channel::<Login>(waiting_max);
        let arriving = Arc::new(Mutex::new(arriving));
        let waiting = Arc::new(AtomicUsize::new(0));
        // Made before the first thread, so that an error on a later one ends the earlier ones.
        let mut started = Threads {
            logins: Some(logins),
            waiting: Arc::clone(&waiting),
            handles: Vec::new(),
        };
        for _ in 0..threads.get() {
            let (arriving, waiting) = (Arc::clone(&arriving), Arc::clone(&waiting));
            let handle = thread::Builder::new()
                .name("verifier".to_owned())
                .spawn(move || {
                    loop {
                        // The lock is held while waiting: whoever has it takes the next login.
                        let next = arriving
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .recv();
                        let Ok(login) = next else { return };
                        waiting.fetch_sub(1, Ordering::Relaxed);
                        login.verify();
                    }
                })?;
            started.handles.push(handle);
        }
        Ok(Verifier::over(started, waiting_max))
    }

    fn over(threads: Threads, waiting_max: usize) -> Verifier {
        Verifier {
            threads: Arc::new(threads),
            peers: Peers::new((waiting_max / PEERS_THAT_FILL_THE_QUEUE).max(1)),
        }
    }

    /// Queues a login of the peer at `ip`. The receiver gets the verdict; it gets an error if the
    /// threads are ended before that, which is no verdict.
    pub fn verify(
        &self,
        users: Arc<Users>,
        ip: IpAddr,
        name: &str,
        password: Secret,
    ) -> Result<oneshot::Receiver<bool>, Busy> {
        let place = self.peers.enter(ip).ok_or(Busy)?;
        let (verdict, receiver) = oneshot::channel();
        let login = Login {
            users,
            name: name.to_owned(),
            password,
            verdict,
            place,
        };
        let logins = self.threads.logins.as_ref().ok_or(Busy)?;
        // Counted before: the thread may have it, and have taken it off, before `try_send` returns.
        self.threads.waiting.fetch_add(1, Ordering::Relaxed);
        match logins.try_send(login) {
            Ok(()) => Ok(receiver),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.threads.waiting.fetch_sub(1, Ordering::Relaxed);
                Err(Busy)
            }
        }
    }

    /// Logins that wait for a thread now.
    pub fn waiting(&self) -> usize {
        self.threads.waiting.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Threads {
    /// `None` only while dropping: the threads end when the sender is gone.
    logins: Option<SyncSender<Login>>,
    waiting: Arc<AtomicUsize>,
    handles: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.logins = None;
        for handle in self.handles.drain(..) {
            // A thread that panicked has told so itself.
            let _ = handle.join();
        }
    }
}

struct Login {
    users: Arc<Users>,
    name: String,
    password: Secret,
    verdict: oneshot::Sender<bool>,
    place: PeerPlace,
}

/// It takes so many peers to fill the queue. Of the default one each has 8 places: more than a household of
/// mail programs needs at once, and at 20 ms each others wait 160 ms for one thread to be through with them.
const PEERS_THAT_FILL_THE_QUEUE: usize = 8;

impl Login {
    fn verify(self) {
        if self.verdict.is_closed() {
            return;
        }
        let verdict = self.users.verify(&self.name, self.password.octets());
        // First: a peer that hears its verdict may ask again before this thread runs on.
        drop(self.place);
        // The session may have ended meanwhile.
        let _ = self.verdict.send(verdict);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::hash::SECRET_HASH as HASH;

    fn users() -> Arc<Users> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        std::fs::write(&path, format!("anna:{HASH}\n")).unwrap();
        Arc::new(Users::load(&path).unwrap())
    }

    fn ip(host: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, host])
    }

    fn secret(text: &str) -> Secret {
        Secret::from(text.as_bytes().to_vec())
    }

    #[test]
    fn verdicts() {
        let verifier = Verifier::start(NonZeroUsize::new(2).unwrap(), 8).unwrap();
        let rows = [
            ("right", "anna", "secret", true),
            ("wrong password", "anna", "guess", false),
            ("unknown name", "bert", "secret", false),
        ];
        for (name, user, password, expected) in rows {
            let verdict = verifier.verify(users(), ip(1), user, secret(password));
            let verdict = verdict.unwrap();
            assert_eq!(verdict.blocking_recv(), Ok(expected), "{name}");
        }
        assert_eq!(verifier.waiting(), 0);
    }

    #[test]
    fn one_more_than_may_wait_is_busy() {
        // No thread takes anything: what waits stays.
        let (logins, _arriving) = mpsc::sync_channel(2);
        let waiting = Arc::new(AtomicUsize::new(0));
        let threads = Threads {
            logins: Some(logins),
            waiting,
            handles: Vec::new(),
        };
        let verifier = Verifier::over(threads, 2);
        let users = users();
        let ask = |host| verifier.verify(Arc::clone(&users), ip(host), "anna", secret("secret"));
        let kept: Vec<_> = (0..2).map(|host| ask(host).unwrap()).collect();
        assert_eq!(ask(2).unwrap_err(), Busy);
        assert_eq!((kept.len(), verifier.waiting()), (2, 2));
    }

    #[test]
    fn one_peer_has_an_eighth_of_the_queue() {
        let (logins, arriving) = mpsc::sync_channel(16);
        let threads = Threads {
            logins: Some(logins),
            waiting: Arc::new(AtomicUsize::new(0)),
            handles: Vec::new(),
        };
        let verifier = Verifier::over(threads, 16);
        let users = users();
        let ask = |host| verifier.verify(Arc::clone(&users), ip(host), "anna", secret("secret"));
        let _first = ask(1).unwrap();
        let _second = ask(1).unwrap();
        assert_eq!(ask(1).unwrap_err(), Busy, "two of sixteen are its share");
        let _other = ask(2).unwrap();
        drop(arriving.recv().unwrap());
        let _third = ask(1).unwrap();
    }

    #[test]
    fn a_login_that_finds_the_queue_full_takes_nothing_of_its_peers_share() {
        let (logins, arriving) = mpsc::sync_channel(1);
        let threads = Threads {
            logins: Some(logins),
            waiting: Arc::new(AtomicUsize::new(0)),
            handles: Vec::new(),
        };
        let verifier = Verifier::over(threads, 1);
        let ask = |host| verifier.verify(Arc::default(), ip(host), "anna", secret("secret"));
        let _first = ask(1).unwrap();
        for _ in 0..2 {
            assert_eq!(ask(2).unwrap_err(), Busy);
            assert_eq!(verifier.peers.remembered(), 1);
        }
        drop(arriving.recv().unwrap());
        let _second = ask(2).unwrap();
    }

    /// Regression: the place came back behind the verdict, and a peer that asked again at once was refused.
    #[test]
    fn who_has_its_verdict_has_its_place_back() {
        // A share of one place, and verdicts that take no time: there are no users.
        let verifier = Verifier::start(NonZeroUsize::new(2).unwrap(), 8).unwrap();
        for round in 0..10_000 {
            let verdict = verifier.verify(Arc::default(), ip(1), "anna", secret("secret"));
            let verdict = verdict.unwrap_or_else(|busy| panic!("round {round}: {busy}"));
            assert_eq!(verdict.blocking_recv(), Ok(false));
        }
    }

    #[test]
    fn dropping_the_last_one_answers_and_ends() {
        let verifier = Verifier::start(NonZeroUsize::MIN, 8).unwrap();
        let users = users();
        let verdicts: Vec<_> = (0..4)
            .map(|host| {
                verifier
                    .verify(Arc::clone(&users), ip(host), "anna", secret("secret"))
                    .unwrap()
            })
            .collect();
        let clone = verifier.clone();
        drop(verifier);
        drop(clone);
        for mut verdict in verdicts {
            assert_eq!(verdict.try_recv(), Ok(true));
        }
        // Every thread has ended and dropped its share.
        assert_eq!(Arc::strong_count(&users), 1);
    }
}
