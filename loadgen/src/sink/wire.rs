//! A connection's octets, in clear or in TLS, and how long their silence is borne.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use openssl::ssl::{Ssl, SslContext};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_openssl::SslStream;

/// Where octets come from and go to.
#[derive(Debug)]
pub(super) enum Wire {
    Clear(TcpStream),
    Tls(Box<SslStream<TcpStream>>),
}

impl Wire {
    /// Reads what is there, at most what `buffer` has room for; 0 is the end.
    pub(super) async fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Wire::Clear(socket) => socket.read_buf(buffer).await,
            Wire::Tls(stream) => stream.read_buf(buffer).await,
        }
    }

    pub(super) async fn write_all(&mut self, octets: &[u8]) -> io::Result<()> {
        match self {
            Wire::Clear(socket) => socket.write_all(octets).await,
            Wire::Tls(stream) => stream.write_all(octets).await,
        }
    }

    /// Says that nothing more will come.
    pub(super) async fn shut_down(&mut self) -> io::Result<()> {
        match self {
            Wire::Clear(socket) => socket.shutdown().await,
            Wire::Tls(stream) => stream.shutdown().await,
        }
    }
}

/// The server's side of a handshake.
pub(super) async fn accept_tls(
    context: &SslContext,
    socket: TcpStream,
) -> Option<Box<SslStream<TcpStream>>> {
    let mut stream = Box::new(SslStream::new(Ssl::new(context).ok()?, socket).ok()?);
    Pin::new(stream.as_mut()).accept().await.ok()?;
    Some(stream)
}

/// A bound on waiting for the peer. One timer a connection, moved only when it fires too early.
#[derive(Debug)]
pub(super) struct Patience {
    timer: Pin<Box<Sleep>>,
    patience: Duration,
}

impl Patience {
    pub(super) fn new(patience: Duration) -> Patience {
        Patience {
            timer: Box::pin(tokio::time::sleep(patience)),
            patience,
        }
    }

    /// What `future` comes to; `None` if the peer lets it wait for too long.
    pub(super) async fn wait<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let deadline = Instant::now() + self.patience;
        tokio::pin!(future);
        loop {
            tokio::select! {
                biased;
                outcome = &mut future => return Some(outcome),
                () = &mut self.timer => {
                    // Armed for an earlier wait: a timer that is moved at every read costs more than
                    // one that fires once in a while for nothing.
                    if Instant::now() >= deadline {
                        return None;
                    }
                    self.timer.as_mut().reset(deadline);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_all_the_patience() {
        let mut patience = Patience::new(Duration::from_secs(10));
        let started = Instant::now();
        for _ in 0..5 {
            let slept = patience
                .wait(tokio::time::sleep(Duration::from_secs(9)))
                .await;
            assert_eq!(slept, Some(()));
        }
        assert_eq!(started.elapsed().as_secs(), 45);
        assert_eq!(patience.wait(std::future::pending::<()>()).await, None);
        assert_eq!(started.elapsed().as_secs(), 55);
    }
}
