//! What comes in by one socket: octets from a connection, connections from a listener.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::buffers::ReceiveBuffer;
use super::intake::{Arrival, Holder};
use super::socket::Accepted;

/// What one connection receives. Its receive is cancelled when this goes.
pub struct Receiver(Holder);

impl Receiver {
    pub(super) fn new(holder: Holder) -> Receiver {
        Receiver(holder)
    }

    /// What the peer sent next. `Ok(None)` is its end of stream.
    ///
    /// Errors: `ECANCELED` follows [`Receiver::interrupt`]; with `ENOBUFS` the pool was empty for a moment, and the
    /// next call finds buffers; others are the connection's own. Dropping the future loses nothing.
    pub fn receive(&self) -> Receiving<'_> {
        Receiving(self)
    }

    /// Has the call that waits return `ECANCELED`. Whether there is one.
    pub fn interrupt(&self) -> bool {
        self.0.interrupt()
    }
}

/// A call of [`Receiver::receive`].
pub struct Receiving<'r>(&'r Receiver);

impl Future for Receiving<'_> {
    type Output = io::Result<Option<ReceiveBuffer>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.0.poll(cx).map(|arrival| match arrival {
            Arrival::Octets(buffer) => Ok(Some(buffer)),
            Arrival::EndOfStream => Ok(None),
            Arrival::Failed(errno) => Err(io::Error::from_raw_os_error(errno)),
            Arrival::Connection(_) => unreachable!("a connection does not accept"),
        })
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.0.leave();
    }
}

/// Accepts on one listener, one connection at a time.
pub struct Acceptor(Holder);

impl Acceptor {
    pub(super) fn new(holder: Holder) -> Acceptor {
        Acceptor(holder)
    }

    /// Accepts one connection. Expected errors: `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM` (back off),
    /// `ECONNABORTED` and the network errors of accept(2) (go on), `ECANCELED` after
    /// [`Intake::interrupt_accepting`](super::Intake::interrupt_accepting).
    pub async fn accept(&self) -> io::Result<Accepted> {
        let arrival = poll_fn(|cx| self.0.poll(cx)).await;
        self.accepted(arrival)
    }

    /// Accepts no more, and lets go of the listener. Gives the connection that came at this moment, if one did.
    pub async fn close(self) -> Option<Accepted> {
        if !self.0.cancel() {
            return None;
        }
        let arrival = poll_fn(|cx| self.0.poll(cx)).await;
        self.accepted(arrival).ok()
    }

    fn accepted(&self, arrival: Arrival) -> io::Result<Accepted> {
        let descriptor = match arrival {
            Arrival::Connection(descriptor) => descriptor,
            Arrival::Failed(errno) => return Err(io::Error::from_raw_os_error(errno)),
            Arrival::Octets(_) | Arrival::EndOfStream => {
                unreachable!("a listener does not receive")
            }
        };
        let peer = self.0.take_peer().and_then(|peer| peer.as_socket());
        let peer = peer.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Accepted::new(descriptor, peer))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;
    use std::time::Duration;

    use super::super::descriptor::Descriptor;
    use super::super::intake::{Intake, IntakeSettings};
    use super::super::socket::Listener;
    use super::super::{RingSettings, Socket, run};
    use super::*;

    const OCTETS: u16 = 64;

    /// Runs `test` with an intake of `buffers` small buffers, on each kind of ring. At its end nothing is in flight.
    fn each_way<F: Future<Output = ()>>(buffers: u16, test: impl Fn(Intake) -> F) {
        for sqpoll in [false, true] {
            let ring = RingSettings { entries: 8, sqpoll };
            run(ring, async {
                let (intake, _serving) = Intake::open(IntakeSettings {
                    ring,
                    buffers,
                    buffer_octets: OCTETS,
                })
                .unwrap();
                test(intake.clone()).await;
                intake.quiet().await;
            })
            .unwrap();
        }
    }

    /// A connection: the peer's end, and what is received from it.
    fn connection(intake: &Intake) -> (UnixStream, Receiver) {
        let (peer, ours) = UnixStream::pair().unwrap();
        let held = intake.hold_connection(Descriptor::new(ours.into()));
        (peer, Receiver::new(held))
    }

    /// The next octets, whatever is short.
    async fn next(receiver: &Receiver) -> Option<Vec<u8>> {
        loop {
            match receiver.receive().await {
                Ok(buffer) => return buffer.map(|buffer| buffer.to_vec()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Lets the kernel and the driver do what they can without us.
    async fn some_passes(intake: &Intake) {
        let (mut peer, receiver) = connection(intake);
        for _ in 0..4 {
            peer.write_all(b"x").unwrap();
            assert_eq!(next(&receiver).await.unwrap(), b"x");
        }
    }

    /// Has a call wait, and interrupts it: from here on a receive is in flight that nobody waits for.
    async fn give_up(intake: &Intake, receiver: Receiver) -> Rc<Receiver> {
        let receiver = Rc::new(receiver);
        let waiting = Rc::clone(&receiver);
        let waiting = tokio_uring::spawn(async move {
            let error = waiting.receive().await.err().expect("an interruption");
            error.raw_os_error()
        });
        some_passes(intake).await;
        assert!(receiver.interrupt(), "somebody waits");
        assert_eq!(waiting.await.unwrap(), Some(libc::ECANCELED));
        receiver
    }

    #[test]
    fn what_is_sent_arrives_whole_and_in_order_to_its_end() {
        each_way(4, async |intake| {
            let (mut peer, receiver) = connection(&intake);
            let sent: Vec<u8> = (0..100_000u32).map(|n| n.to_le_bytes()[0]).collect();
            let copy = sent.clone();
            let sending = std::thread::spawn(move || {
                for (index, part) in copy.chunks(997).enumerate() {
                    let (first, second) = part.split_at(index.min(part.len()));
                    peer.write_all(first).unwrap();
                    peer.write_all(second).unwrap();
                }
            });
            let mut received = Vec::new();
            while let Some(octets) = next(&receiver).await {
                received.extend(octets);
            }
            sending.join().unwrap();
            assert!(received == sent, "{} of {}", received.len(), sent.len());
            // And the end is told again to whoever asks again.
            assert_eq!(next(&receiver).await, None);
        });
    }

    #[test]
    fn octets_that_nobody_waits_for_hold_no_buffer() {
        each_way(1, async |intake| {
            let (mut hasty, receiver) = connection(&intake);
            let receiver = give_up(&intake, receiver).await;
            hasty.write_all(&[7; 1000]).unwrap();
            // With the one buffer of the pool.
            some_passes(&intake).await;
            let mut received = Vec::new();
            while received.len() < 1000 {
                let octets = next(&receiver).await.unwrap();
                assert!(octets.len() <= usize::from(OCTETS));
                received.extend(octets);
            }
            assert_eq!(received, [7; 1000]);
        });
    }

    #[test]
    fn a_pool_that_is_empty_for_a_moment_keeps_nobody_waiting() {
        each_way(2, async |intake| {
            let mut tasks = Vec::new();
            for number in 0..20 {
                let (mut peer, receiver) = connection(&intake);
                tasks.push(tokio_uring::spawn(async move {
                    let text = format!("{number}, and so on");
                    for _ in 0..10 {
                        peer.write_all(text.as_bytes()).unwrap();
                        let mut received = Vec::new();
                        while received.len() < text.len() {
                            received.extend(next(&receiver).await.unwrap());
                        }
                        assert_eq!(received, text.as_bytes());
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
    }

    #[test]
    fn who_waits_can_be_interrupted_and_loses_nothing() {
        each_way(4, async |intake| {
            let (mut peer, receiver) = connection(&intake);
            assert!(!receiver.interrupt(), "nobody waits");
            let receiver = give_up(&intake, receiver).await;
            peer.write_all(b"behind").unwrap();
            assert_eq!(next(&receiver).await.unwrap(), b"behind");
            // A call that was dropped takes nothing with it.
            let dropped = tokio::time::timeout(Duration::ZERO, receiver.receive()).await;
            assert!(dropped.is_err());
            peer.write_all(b"still").unwrap();
            some_passes(&intake).await;
            assert_eq!(next(&receiver).await.unwrap(), b"still");
        });
    }

    #[test]
    fn a_receiver_that_goes_takes_its_receive_and_its_connection_along() {
        each_way(4, async |intake| {
            for unread in [&b""[..], b"unread", &[1; 500]] {
                let (mut peer, receiver) = connection(&intake);
                peer.write_all(b"hello").unwrap();
                assert_eq!(next(&receiver).await.unwrap(), b"hello");
                let receiver = give_up(&intake, receiver).await;
                peer.write_all(unread).unwrap();
                drop(receiver);
                intake.quiet().await;
                // An end of stream, or what the kernel makes of octets that nobody read.
                let end = peer.read(&mut [0]);
                assert!(
                    matches!(&end, Ok(0)) || end.as_ref().is_err_and(is_reset),
                    "{end:?}"
                );
            }
        });
    }

    fn is_reset(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::ConnectionReset
    }

    #[test]
    fn a_listener_is_accepted_from_until_it_is_closed() {
        each_way(4, async |intake| {
            let listener = Listener::new(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
            let address = listener.address();
            let acceptor = Rc::new(listener.acceptor(&intake));
            drop(listener);
            let mut peers = Vec::new();
            for _ in 0..20 {
                let peer = TcpStream::connect(address).unwrap();
                let accepted = acceptor.accept().await.unwrap();
                assert_eq!(accepted.peer, peer.local_addr().unwrap());
                assert_eq!(accepted.socket.local_address().unwrap(), address);
                peers.push((peer, accepted));
            }
            let waiting = Rc::clone(&acceptor);
            let waiting = tokio_uring::spawn(async move {
                let error = waiting.accept().await.err().expect("an interruption");
                error.raw_os_error()
            });
            some_passes(&intake).await;
            intake.interrupt_accepting();
            assert_eq!(waiting.await.unwrap(), Some(libc::ECANCELED));
            let late = Rc::into_inner(acceptor).unwrap().close().await;
            assert!(late.is_none());
            let refused = TcpStream::connect(address).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            drop(peers);
        });
    }

    /// The rings of a shard do not keep each other from their work.
    #[test]
    fn the_runtimes_own_ring_is_served_under_load() {
        // More than a runtime runs at once, so that it is never done with those it has woken.
        const CONNECTIONS: usize = 256;
        const ROUNDS: u32 = 5_000;
        each_way(64, async |intake| {
            let served = Rc::new(Cell::new(false));
            let mut peers = Vec::new();
            let mut tasks = Vec::new();
            for _ in 0..CONNECTIONS {
                let (peer, ours) = UnixStream::pair().unwrap();
                let mut replies = ours.try_clone().unwrap();
                let receiver = Receiver::new(intake.hold_connection(Descriptor::new(ours.into())));
                let served = Rc::clone(&served);
                tasks.push(tokio_uring::spawn(async move {
                    for _ in 0..ROUNDS {
                        // The load goes with the first of us that goes.
                        if served.get() || next(&receiver).await.is_none() {
                            break;
                        }
                        let _ = replies.write_all(b"y");
                    }
                    served.get()
                }));
                peers.push(peer);
            }
            let load = std::thread::spawn(move || {
                // Until we have enough of it.
                while peers.iter_mut().all(|peer| peer.write_all(b"x").is_ok()) {
                    if !peers
                        .iter_mut()
                        .all(|peer| peer.read_exact(&mut [0]).is_ok())
                    {
                        return;
                    }
                }
            });
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            for _ in 0..100 {
                let socket = Socket::for_address(&address).unwrap();
                socket.connect(address.into()).await.unwrap();
            }
            served.set(true);
            for task in tasks {
                assert!(task.await.unwrap(), "the load ended first");
            }
            load.join().unwrap();
        });
    }
}
