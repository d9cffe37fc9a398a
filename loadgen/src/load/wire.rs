//! What octets go through: a TCP connection, with TLS in it or without.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use openssl::ssl::Ssl;
use openssl::x509::X509VerifyResult;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_openssl::SslStream;

/// The connection.
pub(crate) enum Wire {
    /// In clear.
    Clear(TcpStream),
    /// In TLS.
    Tls(Box<SslStream<TcpStream>>),
}

/// Connects, from that address if one is given.
pub(crate) async fn connect(target: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let stream = match from {
        None => TcpStream::connect(target).await?,
        Some(from) => {
            let socket = match from {
                IpAddr::V4(_) => TcpSocket::new_v4()?,
                IpAddr::V6(_) => TcpSocket::new_v6()?,
            };
            socket.bind(SocketAddr::new(from, 0))?;
            socket.connect(target).await?
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Wire {
    /// A handshake over a connection that was in clear. The error says what is wrong with the server's certificate, if
    /// that is what failed.
    pub(crate) async fn secure(stream: TcpStream, ssl: Ssl) -> Result<Wire, String> {
        let stream = SslStream::new(ssl, stream).map_err(|error| error.to_string())?;
        let mut stream = Box::new(stream);
        let Err(error) = Pin::new(&mut *stream).connect().await else {
            return Ok(Wire::Tls(stream));
        };
        let text = error.to_string();
        // Where nobody is verified, what is wrong with the certificate is not what failed.
        let verified = stream.ssl().verify_result();
        let is_verified = verified == X509VerifyResult::OK || !text.contains("verify failed");
        Err(if is_verified {
            text
        } else {
            format!("certificate not accepted: {verified}")
        })
    }

    /// Reads what is there.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Wire::Clear(stream) => Pin::new(stream).poll_read(context, buffer),
            Wire::Tls(stream) => Pin::new(&mut **stream).poll_read(context, buffer),
        }
    }

    /// Writes a part of that.
    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Wire::Clear(stream) => Pin::new(stream).poll_write(context, octets),
            Wire::Tls(stream) => Pin::new(&mut **stream).poll_write(context, octets),
        }
    }

    /// Whether nothing came that was not read yet. The runtime knows: no system call is made.
    pub(crate) fn is_quiet(&self) -> bool {
        let stream = match self {
            Wire::Clear(stream) => stream,
            Wire::Tls(stream) => stream.get_ref(),
        };
        stream.try_io(Interest::READABLE, || Ok(())).is_err()
    }

    /// Ends it. TLS says so first (RFC 8446 §6.1), without which OpenSSL would drop the session's ticket. Nobody waits
    /// for the server to take it: it may be gone, or be what reads nothing any more.
    pub(crate) async fn close(self) {
        match self {
            Wire::Clear(stream) => drop(stream),
            Wire::Tls(mut stream) => {
                let mut stream = Pin::new(&mut *stream);
                poll_fn(|context| {
                    let _ = stream.as_mut().poll_shutdown(context);
                    Poll::Ready(())
                })
                .await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use openssl::ssl::{SslContext, SslMethod, SslVersion};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_not_waited_for() {
        let ssl = |method| {
            let mut builder = SslContext::builder(method).unwrap();
            // These need no certificate.
            builder
                .set_max_proto_version(Some(SslVersion::TLS1_2))
                .unwrap();
            builder
                .set_cipher_list("AECDH-AES128-SHA@SECLEVEL=0")
                .unwrap();
            Ssl::new(&builder.build()).unwrap()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect(listener.local_addr().unwrap(), None).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let mut server = SslStream::new(ssl(SslMethod::tls_server()), accepted).unwrap();
        let (wire, accepted) = tokio::join!(
            Wire::secure(stream, ssl(SslMethod::tls_client())),
            Pin::new(&mut server).accept()
        );
        accepted.unwrap();
        let mut wire = wire.unwrap();
        // Until the kernel takes no more.
        let quiet = Duration::from_millis(200);
        let octets = [0; 16_384];
        while let Ok(written) =
            timeout(quiet, poll_fn(|context| wire.poll_write(context, &octets))).await
        {
            written.unwrap();
        }
        let closed = timeout(Duration::from_secs(10), wire.close()).await;
        assert!(closed.is_ok());
    }
}
