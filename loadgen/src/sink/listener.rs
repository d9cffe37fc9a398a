//! Listening sockets: one a thread for each address, on a common port.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::connection;
use super::dialogue::Channel;
use super::threads::Place;

/// Whether other sockets listen on the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Alone,
    /// The kernel spreads connections over the sockets (`SO_REUSEPORT`).
    Shared,
}

pub(super) fn bind(address: SocketAddr, port: Port) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(port == Port::Shared)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until it is aborted.
pub(super) async fn accept(listener: tokio::net::TcpListener, channel: Channel, place: Arc<Place>) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                place.counts.connections.add(1);
                place.shared.stalls.connected();
                // Else the greeting would wait behind the session tickets for an acknowledgement that
                // the peer delays. Not to be had from a connection that is gone already.
                let _ = socket.set_nodelay(true);
                tokio::spawn(connection::serve(socket, channel, Arc::clone(&place)));
            }
            Err(error) => {
                place.counts.accepts_failed.add(1);
                let of_the_connection = matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                );
                if !of_the_connection {
                    // EMFILE, ENFILE, ENOMEM: the connection stays in the queue, and the listener
                    // readable. Some time lets others end.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Cut by the kernel to net.core.somaxconn.
const BACKLOG: i32 = 4096;

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
