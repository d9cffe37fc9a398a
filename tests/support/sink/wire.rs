//! The next hop's end of a connection: TCP or a UNIX socket, in clear or inside TLS, read by lines and by counts.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use openssl::ssl::{HandshakeError, SslAcceptor, SslRef, SslStream};

use super::script::Cut;

pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) fn try_clone(&self) -> io::Result<Stream> {
        match self {
            Stream::Tcp(stream) => stream.try_clone().map(Stream::Tcp),
            Stream::Unix(stream) => stream.try_clone().map(Stream::Unix),
        }
    }

    /// Ends what waits for it, on whatever thread.
    pub(super) fn shutdown(&self) {
        // Fails only if the peer was faster.
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(octets),
            Stream::Unix(stream) => stream.read(octets),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(octets),
            Stream::Unix(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) struct Wire {
    /// None only while a handshake goes on, or after it failed.
    channel: Option<Channel>,
    unread: Vec<u8>,
    cut: Cut,
}

enum Channel {
    Clear(Stream),
    Tls(Box<SslStream<Stream>>),
}

impl Wire {
    pub(super) fn new(stream: Stream, cut: Cut) -> Wire {
        Wire {
            channel: Some(Channel::Clear(stream)),
            unread: Vec::new(),
            cut,
        }
    }

    /// Octets that came ahead of what they may wait for.
    pub(super) fn unread(&self) -> usize {
        self.unread.len()
    }

    pub(super) fn tls(&self) -> Option<&SslRef> {
        match &self.channel {
            Some(Channel::Tls(stream)) => Some(stream.ssl()),
            Some(Channel::Clear(_)) | None => None,
        }
    }

    pub(super) fn secure(&mut self, acceptor: &SslAcceptor) -> Result<(), String> {
        let Some(Channel::Clear(stream)) = self.channel.take() else {
            return Err("a handshake inside TLS".to_owned());
        };
        match acceptor.accept(stream) {
            Ok(stream) => {
                self.channel = Some(Channel::Tls(Box::new(stream)));
                Ok(())
            }
            Err(HandshakeError::SetupFailure(error)) => Err(error.to_string()),
            Err(HandshakeError::Failure(middle) | HandshakeError::WouldBlock(middle)) => {
                Err(middle.error().to_string())
            }
        }
    }

    pub(super) fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        match self.cut {
            Cut::Whole => self.write(octets),
            Cut::Octets => octets.chunks(1).try_for_each(|octet| self.write(octet)),
        }
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        match &mut self.channel {
            Some(Channel::Clear(stream)) => stream.write_all(octets),
            Some(Channel::Tls(stream)) => stream.write_all(octets),
            None => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Reads on; the end of the stream is an error here.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        let mut octets = [0; 16 * 1024];
        let count = match &mut self.channel {
            Some(Channel::Clear(stream)) => stream.read(&mut octets)?,
            Some(Channel::Tls(stream)) => stream.read(&mut octets)?,
            None => 0,
        };
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend_from_slice(&octets[..count]);
        Ok(())
    }

    /// A line without its CR LF.
    pub(super) fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = self.take_to(b"\r\n")?;
        line.truncate(line.len() - 2);
        Ok(line)
    }

    pub(super) fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < count {
            self.fill()?;
        }
        Ok(self.unread.drain(..count).collect())
    }

    /// Mail data up to its final dot, its stuffing undone.
    pub(super) fn data(&mut self) -> io::Result<Vec<u8>> {
        while self.unread.len() < 3 {
            self.fill()?;
        }
        if self.unread.starts_with(b".\r\n") {
            return self.take(3).map(|_| Vec::new());
        }
        let mut stuffed = self.take_to(b"\r\n.\r\n")?;
        stuffed.truncate(stuffed.len() - 3);
        let mut octets = Vec::with_capacity(stuffed.len());
        let mut rest = stuffed.as_slice();
        while !rest.is_empty() {
            let end = memchr::memmem::find(rest, b"\r\n").map_or(rest.len(), |at| at + 2);
            let (line, behind) = rest.split_at(end);
            octets.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            rest = behind;
        }
        Ok(octets)
    }

    /// Reads and forgets until the peer goes.
    pub(super) fn drain(&mut self) {
        while self.fill().is_ok() {
            self.unread.clear();
        }
    }

    /// Says close_notify, if there is TLS to say it in.
    pub(super) fn close(&mut self) {
        if let Some(Channel::Tls(stream)) = &mut self.channel {
            let _ = stream.shutdown();
        }
    }

    fn take_to(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            if let Some(at) = memchr::memmem::find(&self.unread[searched..], end) {
                return self.take(searched + at + end.len());
            }
            searched = self.unread.len().saturating_sub(end.len() - 1);
            self.fill()?;
        }
    }
}
