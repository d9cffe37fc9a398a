//! What a next hop saw: connections, commands as they came, messages octet for octet.

/// One connection so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection {
    /// Command lines as they came, without CR LF; the lines of AUTH among them.
    pub(crate) commands: Vec<String>,
    /// What the handshake came to; `None`: there was none, or it failed.
    pub(crate) tls: Option<TlsSeen>,
    /// Why the handshake failed.
    pub(crate) handshake_failure: Option<String>,
    pub(crate) logins: Vec<Login>,
    /// The peer or the script ended it.
    pub(crate) is_over: bool,
    /// Whether the sender said QUIT: it has no use for the connection any more.
    pub(crate) has_quit: bool,
}

impl Connection {
    /// The verbs in order: `["EHLO", "MAIL", …]`.
    pub(crate) fn verbs(&self) -> Vec<String> {
        let verb = |line: &String| line.split(' ').next().map(str::to_ascii_uppercase);
        self.commands.iter().filter_map(verb).collect()
    }

    /// Whether a command begins so.
    pub(crate) fn has_said(&self, beginning: &str) -> bool {
        self.commands
            .iter()
            .any(|line| line.to_ascii_uppercase().starts_with(beginning))
    }
}

/// What TLS came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsSeen {
    /// As OpenSSL calls it: `TLSv1.3`.
    pub(crate) version: String,
    pub(crate) sni: Option<String>,
    pub(crate) is_resumed: bool,
    /// The common name of the certificate that the peer showed.
    pub(crate) client: Option<String>,
}

/// A login that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) mechanism: String,
    pub(crate) name: String,
    pub(crate) password: String,
    pub(crate) is_inside_tls: bool,
}

/// By which command the octets came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Data,
    Bdat,
}

/// A message that came whole, whatever was replied to it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Which connection brought it, from 0.
    pub(crate) connection: usize,
    /// The MAIL line, and the RCPT lines that were granted.
    pub(crate) mail: String,
    pub(crate) rcpt: Vec<String>,
    pub(crate) way: Way,
    pub(crate) is_inside_tls: bool,
    /// Without the dots and the end that DATA adds.
    pub(crate) octets: Vec<u8>,
    /// The recipients it was taken for by a positive reply at its end.
    pub(crate) taken_for: Vec<String>,
}

impl Message {
    /// The reverse-path, `` for `<>`.
    pub(crate) fn from(&self) -> &str {
        path_of(&self.mail)
    }

    /// The forward-paths that were granted.
    pub(crate) fn to(&self) -> Vec<&str> {
        self.rcpt.iter().map(|line| path_of(line)).collect()
    }

    /// The parameters of a MAIL or RCPT line, sorted.
    pub(crate) fn parameters(line: &str) -> Vec<&str> {
        let behind = line.rfind('>').map_or("", |end| &line[end + 1..]);
        let mut parameters: Vec<&str> = behind.split_whitespace().collect();
        parameters.sort_unstable();
        parameters
    }

    /// The Received field in front, and what is below it.
    #[track_caller]
    pub(crate) fn parts(&self) -> (String, &[u8]) {
        let mut end = 0;
        loop {
            let line = memchr::memmem::find(&self.octets[end..], b"\r\n");
            end += line.expect("a line that ends") + 2;
            if !matches!(self.octets.get(end), Some(b'\t' | b' ')) {
                break;
            }
        }
        let (received, message) = self.octets.split_at(end);
        let received = String::from_utf8(received.to_vec()).unwrap();
        assert!(received.starts_with("Received: "), "{received:?}");
        (received, message)
    }
}

/// What stands in the angle brackets.
pub(super) fn path_of(line: &str) -> &str {
    let begin = line.find('<').map_or(0, |at| at + 1);
    let end = line.rfind('>').unwrap_or(line.len());
    line.get(begin..end).unwrap_or("")
}
