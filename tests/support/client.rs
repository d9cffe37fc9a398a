//! A blocking SMTP client that sends exactly the octets it is given, in clear or inside TLS.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use openssl::ssl::{
    ConnectConfiguration, HandshakeError, ShutdownResult, ShutdownState, SslRef, SslStream,
};
use socket2::{Domain, SockRef, Socket, Type};

use super::PATIENCE;
use super::certificates::Authority;

/// One connection.
pub(crate) struct Client {
    wire: Wire,
    unread: Vec<u8>,
}

enum Wire {
    Clear(TcpStream),
    Tls(SslStream<TcpStream>),
}

/// A whole reply: its code, and the text of each of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) lines: Vec<String>,
}

impl Reply {
    /// The first line as it came, without its line end.
    pub(crate) fn first(&self) -> String {
        format!("{} {}", self.code, self.lines[0])
    }

    /// Expects the first line to be exactly this.
    #[track_caller]
    pub(crate) fn is(&self, line: &str) {
        assert_eq!(self.first(), line);
    }

    /// Expects the first line to start so: code, enhanced code, as much text as matters.
    #[track_caller]
    pub(crate) fn begins(&self, line: &str) {
        assert!(
            self.first().starts_with(line),
            "{:?} does not begin with {line:?}",
            self.first()
        );
    }

    /// Whether one line is exactly this text (an EHLO keyword with its parameters).
    pub(crate) fn lists(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line == text)
    }

    /// Whether an EHLO keyword is listed, with any parameters.
    pub(crate) fn lists_keyword(&self, keyword: &str) -> bool {
        self.lines
            .iter()
            .skip(1)
            .any(|line| line.split(' ').next() == Some(keyword))
    }
}

impl Client {
    /// Connects; reads nothing yet.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// Connects from an address of this machine. All of 127/8 is: another of them is another client.
    pub(crate) fn connect_from(ip: IpAddr, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::over(socket.into())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            wire: Wire::Clear(stream),
            unread: Vec::new(),
        }
    }

    /// Connects and comes, with one recipient, as far as the reply to DATA.
    pub(crate) fn in_data(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.expect(220);
        client.send("EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u@example.test>\r\nDATA\r\n");
        for code in [250, 250, 250, 354] {
            client.expect(code);
        }
        client
    }

    /// Shakes hands as a client that trusts the tests' authority and asks for `mx.test`.
    pub(crate) fn secure(self) -> Self {
        let configuration = Authority::shared().connector().build().configure().unwrap();
        self.secure_with(configuration, "mx.test").unwrap()
    }

    pub(crate) fn secure_with(
        self,
        configuration: ConnectConfiguration,
        name: &str,
    ) -> Result<Self, String> {
        let Wire::Clear(stream) = self.wire else {
            panic!("already inside TLS")
        };
        assert!(
            self.unread.is_empty(),
            "clear octets before the handshake: {:?}",
            self.unread
        );
        match configuration.connect(name, stream) {
            Ok(stream) => Ok(Self {
                wire: Wire::Tls(stream),
                unread: Vec::new(),
            }),
            Err(HandshakeError::SetupFailure(error)) => panic!("{error}"),
            Err(HandshakeError::Failure(middle) | HandshakeError::WouldBlock(middle)) => {
                Err(middle.error().to_string())
            }
        }
    }

    /// EHLO, STARTTLS and the handshake; the session is as new afterwards.
    pub(crate) fn starttls(mut self) -> Self {
        let reply = self.ehlo();
        assert!(reply.lists("STARTTLS"), "{reply:?}");
        self.say("STARTTLS").is("220 2.0.0 Ready to start TLS");
        self.secure()
    }

    pub(crate) fn ssl(&self) -> &SslRef {
        match &self.wire {
            Wire::Tls(stream) => stream.ssl(),
            Wire::Clear(_) => panic!("not inside TLS"),
        }
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        match &self.wire {
            Wire::Clear(stream) => stream,
            Wire::Tls(stream) => stream.get_ref(),
        }
    }

    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.try_send(octets).unwrap();
    }

    pub(crate) fn try_send(&mut self, octets: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.wire {
            Wire::Clear(stream) => stream.write_all(octets.as_ref()),
            Wire::Tls(stream) => stream.write_all(octets.as_ref()),
        }
    }

    /// Sends a command line and reads its reply.
    pub(crate) fn say(&mut self, line: &str) -> Reply {
        self.send(format!("{line}\r\n"));
        self.reply()
    }

    pub(crate) fn ehlo(&mut self) -> Reply {
        let reply = self.say("EHLO client.test");
        assert_eq!(reply.code, 250, "{reply:?}");
        reply
    }

    /// Reads one reply of any number of lines.
    pub(crate) fn reply(&mut self) -> Reply {
        self.try_reply()
            .unwrap_or_else(|error| panic!("{error} in place of a reply"))
    }

    /// The same, from a server that may go away.
    pub(crate) fn try_reply(&mut self) -> io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let line = self.try_line()?;
            let line = line.ok_or(io::ErrorKind::UnexpectedEof)?;
            let (code, rest) = line.split_at(3);
            let code: u16 = code
                .parse()
                .unwrap_or_else(|_| panic!("not a reply: {line:?}"));
            let last = !rest.starts_with('-');
            lines.push(rest.get(1..).unwrap_or("").to_owned());
            if last {
                return Ok(Reply { code, lines });
            }
        }
    }

    /// Reads a reply and expects its code.
    pub(crate) fn expect(&mut self, code: u16) -> Reply {
        let reply = self.reply();
        assert_eq!(reply.code, code, "{reply:?}");
        reply
    }

    /// One line without its CR LF; `None` at the end of the stream.
    pub(crate) fn line(&mut self) -> Option<String> {
        self.try_line().unwrap()
    }

    fn try_line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8(self.unread[..end].to_vec()).unwrap();
                self.unread.drain(..end + 2);
                return Ok(Some(line));
            }
            if !self.fill()? {
                assert!(self.unread.is_empty(), "a torn line: {:?}", self.unread);
                return Ok(None);
            }
        }
    }

    /// Reads to the end of the stream; a reset counts as one.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill().unwrap_or(false) {}
        std::mem::take(&mut self.unread)
    }

    /// What is there after one read, nothing at the end of the stream or after a failure.
    pub(crate) fn read_some(&mut self) -> Vec<u8> {
        if self.unread.is_empty() {
            let _ = self.fill();
        }
        std::mem::take(&mut self.unread)
    }

    /// Reads until the connection fails, and says how: by which alert, for instance.
    pub(crate) fn failure(&mut self) -> String {
        loop {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return String::from("end of stream"),
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Expects that nothing more comes before the stream ends.
    pub(crate) fn expect_end(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }

    /// Whether nothing at all comes within this time, the connection staying open.
    pub(crate) fn silent_for(&mut self, time: Duration) -> bool {
        self.socket().set_read_timeout(Some(time)).unwrap();
        let silent = self.unread.is_empty()
            && self.fill().is_err_and(|error| {
                matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                )
            });
        self.socket().set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }

    /// MAIL, RCPT for each, DATA and the text (which holds its CR LF, and no dot to stuff).
    pub(crate) fn deliver(&mut self, from: &str, to: &[&str], text: &[u8]) -> Reply {
        let reply = self.say(&format!("MAIL FROM:<{from}>"));
        assert_eq!(reply.code, 250, "{reply:?}");
        for mailbox in to {
            let reply = self.say(&format!("RCPT TO:<{mailbox}>"));
            assert_eq!(reply.code, 250, "{reply:?}");
        }
        let reply = self.say("DATA");
        assert_eq!(reply.code, 354, "{reply:?}");
        self.send(text);
        self.send(b".\r\n");
        self.reply()
    }

    /// QUIT, its reply, and the end of the stream.
    pub(crate) fn quit(mut self) {
        let reply = self.say("QUIT");
        assert_eq!(reply.code, 221, "{reply:?}");
        self.expect_end();
    }

    /// Sends close_notify and expects the peer's.
    pub(crate) fn close_notify(&mut self) {
        let Wire::Tls(stream) = &mut self.wire else {
            panic!("not inside TLS")
        };
        if stream.shutdown().unwrap() == ShutdownResult::Sent {
            assert_eq!(stream.shutdown().unwrap(), ShutdownResult::Received);
        }
    }

    /// Whether the peer said close_notify.
    pub(crate) fn was_notified(&mut self) -> bool {
        let Wire::Tls(stream) = &mut self.wire else {
            panic!("not inside TLS")
        };
        stream.get_shutdown().contains(ShutdownState::RECEIVED)
    }

    /// Ends the connection by a reset (`SO_LINGER` 0): no close_notify, no FIN.
    pub(crate) fn reset(self) {
        SockRef::from(self.socket())
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    pub(crate) fn shutdown_writing(&self) {
        self.socket().shutdown(Shutdown::Write).unwrap();
    }

    /// Reads what is there; false at the end of the stream.
    fn fill(&mut self) -> io::Result<bool> {
        let mut octets = [0; 4096];
        let count = match &mut self.wire {
            Wire::Clear(stream) => stream.read(&mut octets)?,
            Wire::Tls(stream) => stream.read(&mut octets)?,
        };
        self.unread.extend_from_slice(&octets[..count]);
        Ok(count > 0)
    }
}
