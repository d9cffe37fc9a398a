//! Streams over the ring: listeners, and connections that receive by way of the intake or into a buffer of their own.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use io_uring::{opcode, types};
use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::{Domain, Protocol, SockAddr, SockRef, Type};

use super::descriptor::Descriptor;
use super::incoming::{Acceptor, Receiver};
use super::intake::Intake;
use super::op::{self, Flight};

/// A listening socket.
#[derive(Clone)]
pub struct Listener {
    descriptor: Descriptor,
    address: SocketAddr,
}

/// A new connection and the peer's address.
pub struct Accepted {
    /// The connection.
    pub socket: Socket,
    /// Who connected.
    pub peer: SocketAddr,
}

impl Accepted {
    /// Takes over a connection.
    pub(super) fn new(fd: OwnedFd, peer: SocketAddr) -> Accepted {
        Accepted {
            socket: Socket {
                descriptor: Descriptor::new(fd),
            },
            peer,
        }
    }
}

impl Listener {
    /// Takes over a listening socket. Accepted sockets inherit `TCP_NODELAY` from it.
    pub fn new(listener: TcpListener) -> io::Result<Listener> {
        let address = listener.local_addr()?;
        SockRef::from(&listener).set_tcp_nodelay(true)?;
        Ok(Listener {
            descriptor: Descriptor::new(listener.into()),
            address,
        })
    }

    /// The address it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections, one at a time, by way of `intake`.
    pub fn acceptor(&self, intake: &Intake) -> Acceptor {
        Acceptor::new(intake.hold_listener(self.descriptor.clone()))
    }
}

/// A stream connection. Cloning shares the descriptor.
#[derive(Clone)]
pub struct Socket {
    descriptor: Descriptor,
}

impl Socket {
    /// A TCP socket for a connection to an address of this kind. [`Socket::connect`] connects it.
    pub fn for_address(address: &SocketAddr) -> io::Result<Socket> {
        let socket = socket2::Socket::new(
            Domain::for_address(*address),
            Type::STREAM.cloexec(),
            Some(Protocol::TCP),
        )?;
        // What is sent is sent whole; waiting for more would only delay it.
        socket.set_tcp_nodelay(true)?;
        Ok(Socket {
            descriptor: Descriptor::new(socket.into()),
        })
    }

    /// A socket for a connection to a UNIX socket.
    pub fn for_unix() -> io::Result<Socket> {
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
        Ok(Socket {
            descriptor: Descriptor::new(socket.into()),
        })
    }

    /// Connects to where [`Socket::for_address`] or [`Socket::for_unix`] made it for. `ECANCELED` follows
    /// [`Socket::cancel`].
    pub async fn connect(&self, address: SockAddr) -> io::Result<()> {
        let address = Box::new(address);
        let entry = opcode::Connect::new(
            self.descriptor.target(),
            address.as_ptr().cast(),
            address.len(),
        )
        .build();
        // SAFETY: the pointer leads into the box, which the operation owns with the descriptor.
        let done = unsafe { op::submit((self.descriptor.clone(), address), entry) }.await;
        done.result.map(|_zero| ())
    }

    /// Receives into `buffer`, as much as its capacity has room for, in place of what it held. It comes back
    /// whatever happens; empty at the peer's end of stream. `ECANCELED` follows [`Socket::cancel`].
    ///
    /// For the few connections that we make ourselves: nothing of a pool is lost if this is dropped.
    pub async fn receive_into(&self, mut buffer: Vec<u8>) -> (Vec<u8>, io::Result<()>) {
        buffer.clear();
        let room = u32::try_from(buffer.capacity()).unwrap_or(u32::MAX);
        let entry = opcode::Recv::new(self.descriptor.target(), buffer.as_mut_ptr(), room).build();
        let entry = op::poll_first(entry);
        // SAFETY: the pointer leads into the vector's heap memory, which has so much room; the operation owns it
        // and the descriptor.
        let done = unsafe { op::submit((self.descriptor.clone(), buffer), entry) }.await;
        let (_, mut buffer) = done.data;
        let outcome = done.result.map(|octets| {
            let octets = usize::try_from(octets).unwrap_or(0);
            assert!(octets <= buffer.capacity(), "the kernel keeps to the room");
            // SAFETY: the kernel filled so many octets, and they are within the capacity.
            unsafe { buffer.set_len(octets) };
        });
        (buffer, outcome)
    }

    /// Whether nothing waits to be received and the peer has not gone, as far as is known here.
    pub fn is_quiet(&self) -> bool {
        let mut octet = [std::mem::MaybeUninit::uninit()];
        let peeked = self.socket(|socket| {
            socket.recv_with_flags(&mut octet, libc::MSG_DONTWAIT | libc::MSG_PEEK)
        });
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// What the peer sends, by way of `intake`.
    pub fn receiver(&self, intake: &Intake) -> Receiver {
        Receiver::new(intake.hold_connection(self.descriptor.clone()))
    }

    /// Sends all of `octets`, at once or by an operation that is then to be awaited.
    ///
    /// A reply fits into the socket's buffer nearly always, and a completion for it would only wake the shard
    /// to learn what is known already. What does not fit goes by way of the ring.
    pub fn send(&self, octets: Vec<u8>) -> Sent {
        // Not by way of libc, for which a send is a point of cancellation with a bookkeeping of its own.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = match rustix::net::send(self.borrowed(), &octets, flags) {
            Ok(sent) if sent == octets.len() => return Sent::AtOnce(octets),
            Ok(sent) => sent,
            Err(Errno::AGAIN) => 0,
            Err(errno) => return Sent::Failed(errno.into()),
        };
        let rest = octets.get(sent..).unwrap_or_default();
        let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(self.descriptor.target(), rest.as_ptr(), length)
            // WAITALL: the kernel goes on after a short write, so that one completion means all or an error.
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        // SAFETY: the pointer leads into the vector's heap memory; the operation owns it and the descriptor.
        let flight = unsafe { op::submit((self.descriptor.clone(), octets), entry) };
        Sent::InFlight(Sending {
            flight,
            rest: length,
        })
    }

    /// Tells the peer that nothing more will come.
    pub async fn shutdown(&self) {
        let entry = opcode::Shutdown::new(self.descriptor.target(), libc::SHUT_WR).build();
        // SAFETY: no pointers; the operation owns a share of the descriptor.
        // A peer that is gone already (ENOTCONN) has learned it another way.
        let _ = unsafe { op::submit(self.descriptor.clone(), entry) }.await;
    }

    /// Cancels what is in flight on this connection, other than what a [`Receiver`] does; it then completes with
    /// `ECANCELED`.
    pub fn cancel(&self) {
        cancel(&self.descriptor);
    }

    /// The address that the peer connected to.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket(|socket| socket.local_addr())?
            .as_socket()
            .ok_or(io::ErrorKind::InvalidData.into())
    }

    fn socket<T>(&self, call: impl FnOnce(SockRef<'_>) -> T) -> T {
        call(SockRef::from(&self.borrowed()))
    }

    fn borrowed(&self) -> BorrowedFd<'_> {
        // SAFETY: `self` keeps the descriptor open over the borrow.
        unsafe { BorrowedFd::borrow_raw(self.descriptor.as_raw_fd()) }
    }
}

/// What became of a send.
pub enum Sent {
    /// All of it left; the vector comes back for reuse.
    AtOnce(Vec<u8>),
    /// The kernel has it.
    InFlight(Sending),
    /// The connection is broken.
    Failed(io::Error),
}

/// A send in flight; resolves to the vector and whether all of it left.
pub struct Sending {
    flight: Flight<(Descriptor, Vec<u8>)>,
    rest: u32,
}

impl Future for Sending {
    type Output = (Vec<u8>, io::Result<()>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let rest = self.rest;
        Pin::new(&mut self.flight).poll(cx).map(|done| {
            let outcome = match done.result {
                Ok(sent) if sent == rest => Ok(()),
                Ok(_) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) => Err(error),
            };
            (done.data.1, outcome)
        })
    }
}

fn cancel(descriptor: &Descriptor) {
    let all = types::CancelBuilder::fd(descriptor.target()).all();
    let entry = opcode::AsyncCancel2::new(all).build();
    // SAFETY: no pointers; the operation owns a share of the descriptor, so that it cannot hit a later one of
    // the same number.
    drop(unsafe { op::submit(descriptor.clone(), entry) });
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::rc::Rc;

    use super::super::{RingSettings, run};
    use super::*;

    const SETTINGS: RingSettings = RingSettings {
        entries: 8,
        sqpoll: false,
    };

    /// A peer that says hello, hears one word and goes.
    fn polite(mut peer: impl Read + Write) -> Vec<u8> {
        peer.write_all(b"hello").unwrap();
        let mut word = [0; 4];
        peer.read_exact(&mut word).unwrap();
        word.to_vec()
    }

    async fn talk(socket: Socket, address: SockAddr) {
        socket.connect(address).await.unwrap();
        let (buffer, outcome) = socket.receive_into(Vec::with_capacity(3)).await;
        outcome.unwrap();
        assert_eq!(buffer, b"hel");
        // The rest is there, and unread.
        assert!(!socket.is_quiet());
        let (buffer, outcome) = socket.receive_into(Vec::with_capacity(64)).await;
        outcome.unwrap();
        assert_eq!(buffer, b"lo");
        assert!(socket.is_quiet());
        let Sent::AtOnce(_) = socket.send(b"ciao".to_vec()) else {
            panic!("four octets do not fit");
        };
        let (buffer, outcome) = socket.receive_into(buffer).await;
        outcome.unwrap();
        assert!(buffer.is_empty(), "the end of stream");
        assert!(!socket.is_quiet());
    }

    #[test]
    fn connections_are_made_to_both_kinds_of_sockets() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let heard = std::thread::spawn(move || polite(tcp.accept().unwrap().0));
        run(SETTINGS, async {
            talk(Socket::for_address(&address).unwrap(), address.into()).await;
        })
        .unwrap();
        assert_eq!(heard.join().unwrap(), b"ciao");

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let unix = UnixListener::bind(&path).unwrap();
        let heard = std::thread::spawn(move || polite(unix.accept().unwrap().0));
        run(SETTINGS, async {
            talk(Socket::for_unix().unwrap(), SockAddr::unix(&path).unwrap()).await;
        })
        .unwrap();
        assert_eq!(heard.join().unwrap(), b"ciao");
    }

    #[test]
    fn what_does_not_connect_says_why_and_what_waits_can_be_cancelled() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let gone = TcpListener::bind("127.0.0.1:0").unwrap();
            gone.local_addr().unwrap()
        };
        run(SETTINGS, async {
            let socket = Socket::for_address(&closed).unwrap();
            let refused = socket.connect(closed.into()).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

            let socket = Rc::new(Socket::for_address(&open).unwrap());
            socket.connect(open.into()).await.unwrap();
            let waiting = Rc::clone(&socket);
            let waiting = tokio_uring::spawn(async move {
                let (buffer, outcome) = waiting.receive_into(Vec::with_capacity(16)).await;
                assert_eq!(buffer.capacity(), 16);
                outcome.unwrap_err().raw_os_error()
            });
            tokio::task::yield_now().await;
            socket.cancel();
            assert_eq!(waiting.await.unwrap(), Some(libc::ECANCELED));
        })
        .unwrap();
    }
}
