//! The lines that a session and a transaction leave in the log, and the names of their fields.
//!
//! Here and nowhere else, so that whoever greps, parses or draws them has one place to look.
//! Never in them: mail data, credentials, or more recipients than a few.
//!
//! ```text
//! INFO transaction session=1f transaction=1 queue_id=… from=<a@x.test> recipients=2 to=<b@y.test>,<c@y.test> octets=2048 outcome=accepted reply=250 durability=disk seconds=0.004
//! INFO session session=1f listener=tcp peer=192.0.2.1:4711 local=192.0.2.9:25 tls=TLSv1.3 cipher=… resumed=false ehlo=mx.x.test messages=1 commands=6 octets_in=2300 octets_out=410 ended=quit seconds=0.031
//! ```

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::metrics::Listener;

/// A session's name in the log: unique in the process, in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(u64);

impl SessionId {
    /// The `number`-th session of the shard with this index.
    ///
    /// The index stands in the upper 16 bits, so shards need not share a counter.
    pub fn new(shard: u16, number: u64) -> Self {
        Self((u64::from(shard) << SESSION_NUMBER_BITS) | (number & SESSION_NUMBER_MASK))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A session that ended.
#[derive(Debug)]
pub struct Session<'a> {
    /// Its name.
    pub id: SessionId,
    /// The kind of port.
    pub listener: Listener,
    /// The client.
    pub peer: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    /// TLS, if it was spoken.
    pub tls: Option<Tls<'a>>,
    /// The name that EHLO or HELO gave.
    pub greeted_as: Option<&'a str>,
    /// The name that AUTH proved.
    pub authenticated: Option<&'a str>,
    /// Messages accepted.
    pub messages: u64,
    /// Commands read.
    pub commands: u64,
    /// Octets from the client, on the wire.
    pub octets_in: u64,
    /// Octets to the client, on the wire.
    pub octets_out: u64,
    /// How it ended.
    pub ended: SessionEnd,
    /// How long it lasted.
    pub lasted: Duration,
}

/// The TLS of a session.
#[derive(Debug)]
pub struct Tls<'a> {
    /// As OpenSSL calls it.
    pub version: &'a str,
    /// As OpenSSL calls it.
    pub cipher: &'a str,
    /// The group of the key exchange, as OpenSSL calls it.
    pub group: Option<&'a str>,
    /// Whether the client brought a ticket that was good.
    pub resumed: bool,
    /// The server name that the client asked for.
    pub server_name: Option<&'a str>,
    /// The client's certificate.
    pub client: Option<Client<'a>>,
}

/// The certificate of a client.
#[derive(Debug)]
pub struct Client<'a> {
    /// Its subject.
    pub subject: &'a str,
    /// Its subject alternative names.
    pub names: &'a [Box<str>],
    /// Whether a CA of `--client-ca` vouches for it.
    pub trusted: bool,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// QUIT.
    Quit,
    /// The client closed the connection without QUIT.
    Closed,
    /// The connection broke.
    Broken,
    /// The client was silent, or there, for too long.
    TimedOut,
    /// Too many errors.
    TooManyErrors,
    /// The TLS handshake failed.
    HandshakeFailed,
    /// The client sent octets in clear behind STARTTLS.
    Injection,
    /// The server is going down.
    Draining,
    /// A fault of the server's.
    Failed,
}

impl SessionEnd {
    /// The name in the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::Closed => "closed",
            Self::Broken => "broken",
            Self::TimedOut => "timeout",
            Self::TooManyErrors => "too-many-errors",
            Self::HandshakeFailed => "handshake-failed",
            Self::Injection => "injection",
            Self::Draining => "draining",
            Self::Failed => "failed",
        }
    }
}

/// A transaction that ended.
#[derive(Debug)]
pub struct Transaction<'a> {
    /// The session it was in.
    pub session: SessionId,
    /// Which one of the session, from 1.
    pub number: u64,
    /// The reverse-path, empty for the null one.
    pub from: &'a str,
    /// Octets of the message, as far as it came.
    pub octets: u64,
    /// How it ended.
    pub outcome: TransactionOutcome<'a>,
    /// From MAIL to its end.
    pub lasted: Duration,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionOutcome<'a> {
    /// 250 to the end of data.
    Accepted {
        /// The name of the message from here on.
        queue_id: &'a str,
        /// What that promises.
        durability: &'a str,
    },
    /// Another reply to the end of data.
    Refused {
        /// The code of the reply.
        code: u16,
    },
    /// No end of data: RSET, a new EHLO, a lost connection.
    Abandoned,
}

/// Logs a session.
pub fn session(session: &Session<'_>) {
    let tls = session.tls.as_ref();
    let client = tls.and_then(|tls| tls.client.as_ref());
    tracing::info!(
        session = display(session.id),
        listener = session.listener.label(),
        peer = display(session.peer),
        local = display(session.local),
        tls = tls.map(|tls| tls.version),
        cipher = tls.map(|tls| tls.cipher),
        group = tls.and_then(|tls| tls.group),
        resumed = tls.map(|tls| tls.resumed),
        sni = tls.and_then(|tls| tls.server_name),
        client_subject = client.map(|client| client.subject),
        client_names = client.map(|client| client.names.join(",")),
        client_trusted = client.map(|client| client.trusted),
        ehlo = session.greeted_as,
        auth = session.authenticated,
        messages = session.messages,
        commands = session.commands,
        octets_in = session.octets_in,
        octets_out = session.octets_out,
        ended = session.ended.label(),
        seconds = seconds(session.lasted),
        "session"
    );
}

/// Logs a transaction; `recipients` are its forward-paths, as they were given.
pub fn transaction<'r, R>(transaction: &Transaction<'_>, recipients: R)
where
    R: ExactSizeIterator<Item = &'r str> + Clone,
{
    let (accepted, outcome, reply) = match transaction.outcome {
        TransactionOutcome::Accepted {
            queue_id,
            durability,
        } => (Some((queue_id, durability)), "accepted", Some(250)),
        TransactionOutcome::Refused { code } => (None, "refused", Some(code)),
        TransactionOutcome::Abandoned => (None, "abandoned", None),
    };
    let (queue_id, durability) = accepted.unzip();
    let count = recipients.len();
    tracing::info!(
        session = display(transaction.session),
        transaction = transaction.number,
        queue_id,
        from = display(Path(transaction.from)),
        recipients = count,
        to = (count > 0).then(|| display(FirstPaths(recipients))),
        octets = transaction.octets,
        outcome,
        reply,
        durability,
        seconds = seconds(transaction.lasted),
        "transaction"
    );
}

/// A path in its brackets.
struct Path<'a>(&'a str);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0)
    }
}

/// The first few paths, and dots if there are more.
struct FirstPaths<R>(R);

impl<'r, R: ExactSizeIterator<Item = &'r str> + Clone> fmt::Display for FirstPaths<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for path in self.0.clone().take(RECIPIENTS_SHOWN_MAX) {
            write!(f, "{separator}{}", Path(path))?;
            separator = ",";
        }
        if self.0.len() > RECIPIENTS_SHOWN_MAX {
            f.write_str(",...")?;
        }
        Ok(())
    }
}

/// To the microsecond: the digits below are noise.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e6
}

/// Enough to know a message by; a thousand would make a line that nobody reads.
const RECIPIENTS_SHOWN_MAX: usize = 3;

/// 2^48 sessions are 890 years at 10,000 a second.
const SESSION_NUMBER_BITS: u32 = 48;

const SESSION_NUMBER_MASK: u64 = (1 << SESSION_NUMBER_BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::log::tests::{json, text};

    fn clear() -> Session<'static> {
        Session {
            id: SessionId::new(1, 0x2f),
            listener: Listener::Tcp,
            peer: "[2001:db8::1]:4711".parse().unwrap(),
            local: "192.0.2.9:25".parse().unwrap(),
            tls: None,
            greeted_as: None,
            authenticated: None,
            messages: 0,
            commands: 1,
            octets_in: 6,
            octets_out: 80,
            ended: SessionEnd::Quit,
            lasted: Duration::from_nanos(31_000_499),
        }
    }

    #[test]
    fn a_session_in_clear() {
        assert_eq!(
            text(|| session(&clear())),
            "INFO session session=100000000002f listener=tcp peer=[2001:db8::1]:4711 \
             local=192.0.2.9:25 messages=0 commands=1 octets_in=6 octets_out=80 ended=quit \
             seconds=0.031\n"
        );
    }

    #[test]
    fn a_session_inside_tls() {
        let tls = Tls {
            version: "TLSv1.3",
            cipher: "TLS_AES_256_GCM_SHA384",
            group: Some("x25519"),
            resumed: true,
            server_name: Some("mx.test"),
            client: Some(Client {
                subject: "CN = a, O = \"x\" tls=no",
                names: &["a.test".into(), "b.test".into()],
                trusted: false,
            }),
        };
        let secured = Session {
            tls: Some(tls),
            greeted_as: Some("evil\r\nauth=root"),
            authenticated: Some("anna"),
            ended: SessionEnd::TimedOut,
            ..clear()
        };
        let line = text(|| session(&secured));
        assert!(
            line.contains(
                " tls=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384 group=x25519 resumed=true sni=mx.test \
                 client_subject=\"CN \\u{3d} a, O \\u{3d} \\\"x\\\" tls\\u{3d}no\" \
                 client_names=a.test,b.test client_trusted=false \
                 ehlo=\"evil\\r\\nauth\\u{3d}root\" auth=anna messages=0 "
            ),
            "{line}"
        );
        assert!(line.ends_with(" ended=timeout seconds=0.031\n"));
        let object = json(|| session(&secured));
        assert!(object.contains(",\"resumed\":true,\"sni\":\"mx.test\","));
        assert!(object.contains(",\"commands\":1,"));
        assert!(object.contains(",\"seconds\":0.031}"));
    }

    #[test]
    fn transactions() {
        let rows: [(&str, &[&str], TransactionOutcome<'_>, &str); 4] = [
            (
                "a@x.test",
                &["b@y.test"],
                TransactionOutcome::Accepted {
                    queue_id: "4bXz1",
                    durability: "disk",
                },
                "queue_id=4bXz1 from=<a@x.test> recipients=1 to=<b@y.test> octets=9 \
                 outcome=accepted reply=250 durability=disk ",
            ),
            (
                "",
                &["b@y.test", "c@y.test", "d@y.test", "e@y.test"],
                TransactionOutcome::Refused { code: 552 },
                "from=<> recipients=4 to=<b@y.test>,<c@y.test>,<d@y.test>,... octets=9 \
                 outcome=refused reply=552 ",
            ),
            (
                "\"a b\"@x.test",
                &[],
                TransactionOutcome::Abandoned,
                "from=\"<\\\"a b\\\"@x.test>\" recipients=0 octets=9 outcome=abandoned ",
            ),
            (
                "a@x.test",
                &["\"x to=y\"@y.test"],
                TransactionOutcome::Abandoned,
                "from=<a@x.test> recipients=1 to=\"<\\\"x to\\u{3d}y\\\"@y.test>\" octets=9 \
                 outcome=abandoned ",
            ),
        ];
        for (from, to, outcome, fields) in rows {
            let ended = Transaction {
                session: SessionId::new(0, 0x1f),
                number: 2,
                from,
                octets: 9,
                outcome,
                lasted: Duration::from_micros(4250),
            };
            let line = text(|| transaction(&ended, to.iter().copied()));
            assert_eq!(
                line,
                format!("INFO transaction session=1f transaction=2 {fields}seconds=0.00425\n")
            );
        }
    }

    #[test]
    fn session_ids_of_shards_differ() {
        assert_ne!(SessionId::new(0, 1), SessionId::new(1, 1));
        assert_eq!(SessionId::new(2, 1 << 48).to_string(), "2000000000000");
    }
}
