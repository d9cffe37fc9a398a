//! Reads transcripts: dialogues in the notation of `tests/transcripts/README.md`.
//!
//! Apart from those who play them, because three do: the session alone, the real server over
//! sockets, and the fuzzer, which takes its seeds from here. A file that does not follow the notation
//! is an error naming file and line, never a dialogue that silently tests less.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ringpost::smtp::end_of_data::StrayNewline;
use ringpost::smtp::envelope::Body;
use ringpost::smtp::server::{CommitFailure, StartTls};

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct Transcript {
    pub(crate) path: PathBuf,
    pub(crate) wishes: Wishes,
    pub(crate) items: Vec<Item>,
}

/// What the `=` lines ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) channel: Channels,
    pub(crate) greeting: Option<String>,
    pub(crate) starttls: StartTls,
    pub(crate) tcp_auth: bool,
    pub(crate) tls_auth: bool,
    pub(crate) tcp_anonymous: bool,
    pub(crate) tls_anonymous: bool,
    pub(crate) users: Vec<(String, String)>,
    pub(crate) local_domains: Vec<String>,
    pub(crate) trusted_nets: Vec<String>,
    pub(crate) recipients: Vec<String>,
    pub(crate) stray_newline: StrayNewline,
    pub(crate) message_octets_max: Option<u64>,
    pub(crate) recipients_max: Option<usize>,
    pub(crate) errors_max: Option<u32>,
    pub(crate) mail_memory: Option<u64>,
    /// For the fuzzer: the server has no flag for it.
    pub(crate) message_memory_octets_max: Option<u64>,
    pub(crate) peer: Option<IpAddr>,
    pub(crate) tls_unavailable: bool,
    pub(crate) verify_unavailable: bool,
    pub(crate) commits: Vec<Option<CommitFailure>>,
}

impl Default for Wishes {
    fn default() -> Wishes {
        Wishes {
            channel: Channels::Both,
            greeting: None,
            starttls: StartTls::On,
            tcp_auth: false,
            tls_auth: false,
            tcp_anonymous: true,
            tls_anonymous: true,
            users: Vec::new(),
            local_domains: Vec::new(),
            trusted_nets: Vec::new(),
            recipients: Vec::new(),
            stray_newline: StrayNewline::Normalize,
            message_octets_max: None,
            recipients_max: None,
            errors_max: None,
            mail_memory: None,
            message_memory_octets_max: None,
            peer: None,
            tls_unavailable: false,
            verify_unavailable: false,
            commits: Vec::new(),
        }
    }
}

/// Where a dialogue goes the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channels {
    Clear,
    Tls,
    Both,
}

/// How a dialogue's channel comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// In clear on a TCP port, unless the dialogue itself changes that.
    Clear,
    /// Inside TLS that STARTTLS brought about before the first line of the dialogue.
    StartTls,
    /// On a TLS port.
    TlsPort,
}

/// One line with a meaning, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

/// What a line means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `C:`, `C|`: octets the client sends.
    Client(Vec<u8>),
    /// `S:`: so many reply lines that match.
    Reply { pattern: String, count: usize },
    /// `S: 250-…`: all lines of one reply.
    WholeReply(String),
    /// `S?`: a reply line that may also be missing.
    MaybeReply(String),
    /// `S+`: a line the reply above has.
    Listed(String),
    /// `S-`: a line the reply above has not.
    NotListed(String),
    /// `TLS`: the handshake.
    Handshake,
    /// `CLOSE`: the session is over.
    Close,
    /// `EXPIRE`: nothing comes until the session's deadline.
    Expire,
    /// `DRAIN`: the server is going down.
    Drain,
    /// `MAIL`: what was committed.
    Mail(Mail),
    /// `TO`: a recipient of that, as delivery sees it.
    To {
        local_part: String,
        domain: String,
        /// ` NOTIFY=… ORCPT=…`, as for the next hop.
        dsn: String,
    },
}

/// A message as it must have been committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mail {
    pub(crate) reverse_path: String,
    pub(crate) recipients: Vec<String>,
    pub(crate) body: Option<Body>,
    pub(crate) smtputf8: bool,
    pub(crate) protocol: Option<String>,
    pub(crate) authenticated: Option<String>,
    pub(crate) greeted_as: Option<String>,
    /// ` RET=… ENVID=…`, as for the next hop.
    pub(crate) dsn: String,
    pub(crate) octets: Vec<u8>,
}

impl Transcript {
    /// All transcripts there are, by name.
    pub(crate) fn all() -> Vec<Transcript> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
        let mut paths: Vec<PathBuf> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "smtp"))
            .collect();
        paths.sort();
        paths.iter().map(|path| Transcript::read(path)).collect()
    }

    fn read(path: &Path) -> Transcript {
        let text = fs::read_to_string(path).unwrap();
        Transcript::parse(path, &text)
            .unwrap_or_else(|(line, fault)| panic!("{}:{line}: {fault}", path.display()))
    }

    /// Reads one; an error names the line.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Transcript, (usize, String)> {
        let mut transcript = Transcript {
            path: path.to_path_buf(),
            wishes: Wishes::default(),
            items: Vec::new(),
        };
        if !text.starts_with("# ") {
            return Err((1, String::from("no comment says what it pins")));
        }
        for (index, line) in text.lines().enumerate() {
            let fault = |fault: String| (index + 1, fault);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(wish) = line.strip_prefix("= ") {
                if !transcript.items.is_empty() {
                    return Err(fault(String::from("a setting behind the first line")));
                }
                transcript.wishes.take(wish).map_err(fault)?;
                continue;
            }
            let kind = kind(line).map_err(fault)?;
            transcript.items.push(Item {
                line: index + 1,
                kind,
            });
        }
        if transcript.items.is_empty() {
            return Err((1, String::from("no dialogue")));
        }
        Ok(transcript)
    }

    /// The file's name without its ending.
    pub(crate) fn name(&self) -> &str {
        self.path.file_stem().unwrap().to_str().unwrap()
    }

    /// The ways in which the dialogue is to be played.
    pub(crate) fn ways(&self) -> &'static [Way] {
        match (self.wishes.channel, self.wishes.starttls) {
            (Channels::Clear, _) => &[Way::Clear],
            (Channels::Tls, StartTls::Off) => &[Way::TlsPort],
            (Channels::Tls, StartTls::On | StartTls::Required) => &[Way::TlsPort],
            (Channels::Both, StartTls::Off | StartTls::Required) => &[Way::Clear, Way::TlsPort],
            (Channels::Both, StartTls::On) => &[Way::Clear, Way::StartTls, Way::TlsPort],
        }
    }

    /// Whether some reply line is expected that begins with this.
    pub(crate) fn expects(&self, beginning: &str) -> bool {
        self.items.iter().any(|item| match &item.kind {
            Kind::Reply { pattern, .. } => pattern.starts_with(beginning),
            _ => false,
        })
    }

    /// All that the client sends, in order.
    pub(crate) fn client_octets(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        for item in &self.items {
            if let Kind::Client(sent) = &item.kind {
                octets.extend_from_slice(sent);
            }
        }
        octets
    }
}

impl Wishes {
    fn take(&mut self, wish: &str) -> Result<(), String> {
        let (name, value) = wish.split_once(' ').ok_or("a setting needs a value")?;
        let bad = || format!("{value:?} is no value of {name}");
        let yes_no = || match value {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(bad()),
        };
        match name {
            "channel" => {
                self.channel = match value {
                    "clear" => Channels::Clear,
                    "tls" => Channels::Tls,
                    "both" => Channels::Both,
                    _ => return Err(bad()),
                }
            }
            "greeting" => self.greeting = Some(String::from(value)),
            "starttls" => {
                self.starttls = match value {
                    "off" => StartTls::Off,
                    "on" => StartTls::On,
                    "required" => StartTls::Required,
                    _ => return Err(bad()),
                }
            }
            "tcp-auth" => self.tcp_auth = yes_no()?,
            "tls-auth" => self.tls_auth = yes_no()?,
            "tcp-anonymous" => self.tcp_anonymous = yes_no()?,
            "tls-anonymous" => self.tls_anonymous = yes_no()?,
            "user" => {
                let (user, password) = value.split_once(' ').ok_or_else(bad)?;
                self.users
                    .push((String::from(user), String::from(password)));
            }
            "local-domain" => self.local_domains.push(String::from(value)),
            "trusted-net" => self.trusted_nets.push(String::from(value)),
            "recipient" => self.recipients.push(String::from(value)),
            "stray-newline" => {
                self.stray_newline = match value {
                    "normalize" => StrayNewline::Normalize,
                    "accept" => StrayNewline::Accept,
                    "reject" => StrayNewline::Reject,
                    _ => return Err(bad()),
                }
            }
            "max-message-bytes" => {
                self.message_octets_max = Some(value.parse().map_err(|_| bad())?);
            }
            "max-recipients" => self.recipients_max = Some(value.parse().map_err(|_| bad())?),
            "max-errors" => self.errors_max = Some(value.parse().map_err(|_| bad())?),
            "mail-memory" => self.mail_memory = Some(value.parse().map_err(|_| bad())?),
            "peer" => self.peer = Some(value.parse().map_err(|_| bad())?),
            "tls" if value == "unavailable" => self.tls_unavailable = true,
            "verify" if value == "unavailable" => self.verify_unavailable = true,
            "commit" => {
                for word in value.split(' ') {
                    self.commits.push(match word {
                        "ok" => None,
                        "no-space" => Some(CommitFailure::NoSpace),
                        "failed" => Some(CommitFailure::Failed),
                        _ => return Err(bad()),
                    });
                }
            }
            _ => return Err(format!("no setting {name} = {value:?}")),
        }
        Ok(())
    }
}

/// A line that is neither a comment nor a setting.
fn kind(line: &str) -> Result<Kind, String> {
    if line == "C:" {
        return Ok(Kind::Client(b"\r\n".to_vec()));
    }
    if let Some(text) = line.strip_prefix("C: ") {
        if text.ends_with([' ', '\t']) {
            return Err(String::from("white space at the end: write it as C|"));
        }
        return Ok(Kind::Client([text.as_bytes(), b"\r\n"].concat()));
    }
    if let Some(text) = line.strip_prefix("C| ") {
        return octets(text).map(Kind::Client);
    }
    if let Some(text) = line.strip_prefix("S: ") {
        return Ok(match text.strip_suffix("-…") {
            Some(code) => Kind::WholeReply(String::from(code)),
            None => Kind::Reply {
                pattern: String::from(text),
                count: 1,
            },
        });
    }
    if let Some(text) = line.strip_prefix("S*") {
        let (count, pattern) = text.split_once(": ").ok_or("S*COUNT: PATTERN")?;
        return Ok(Kind::Reply {
            pattern: String::from(pattern),
            count: count.parse().map_err(|_| "S*COUNT: PATTERN")?,
        });
    }
    if let Some(text) = line.strip_prefix("S? ") {
        return Ok(Kind::MaybeReply(String::from(text)));
    }
    if let Some(text) = line.strip_prefix("S+ ") {
        return Ok(Kind::Listed(String::from(text)));
    }
    if let Some(text) = line.strip_prefix("S- ") {
        return Ok(Kind::NotListed(String::from(text)));
    }
    if let Some(text) = line.strip_prefix("MAIL ") {
        return mail(text).map(Kind::Mail);
    }
    if let Some(text) = line.strip_prefix("TO ") {
        let (local_part, domain) = text
            .rsplit_once(" at ")
            .ok_or("TO \"LOCAL PART\" at DOMAIN")?;
        let (domain, dsn) = domain.split_at(domain.find(' ').unwrap_or(domain.len()));
        return Ok(Kind::To {
            local_part: String::from_utf8(octets(local_part)?).map_err(|e| e.to_string())?,
            domain: String::from(domain),
            dsn: String::from(dsn),
        });
    }
    match line {
        "TLS" => Ok(Kind::Handshake),
        "CLOSE" => Ok(Kind::Close),
        "EXPIRE" => Ok(Kind::Expire),
        "DRAIN" => Ok(Kind::Drain),
        _ => Err(format!("what is {line:?}?")),
    }
}

/// `MAIL <reverse-path> -> <forward-path>… [word]… "octets"…`
fn mail(text: &str) -> Result<Mail, String> {
    let (reverse_path, mut rest) = angles(text)?;
    rest = rest.strip_prefix("-> ").ok_or("no -> behind <…>")?;
    let mut mail = Mail {
        reverse_path: String::from(reverse_path),
        recipients: Vec::new(),
        body: None,
        smtputf8: false,
        protocol: None,
        authenticated: None,
        greeted_as: None,
        dsn: String::new(),
        octets: Vec::new(),
    };
    while rest.starts_with('<') {
        let (recipient, behind) = angles(rest)?;
        mail.recipients.push(String::from(recipient));
        rest = behind;
    }
    while !rest.starts_with(|first: char| first == '"' || first.is_ascii_digit()) {
        let (word, behind) = rest.split_once(' ').ok_or("no octets")?;
        rest = behind;
        match word.split_once('=') {
            None if word == "smtputf8" => mail.smtputf8 = true,
            Some(("body", "7BIT")) => mail.body = Some(Body::SevenBit),
            Some(("body", "8BITMIME")) => mail.body = Some(Body::EightBitMime),
            Some(("body", "BINARYMIME")) => mail.body = Some(Body::BinaryMime),
            Some(("with", protocol)) => mail.protocol = Some(String::from(protocol)),
            Some(("auth", name)) => mail.authenticated = Some(String::from(name)),
            Some(("helo", name)) => mail.greeted_as = Some(String::from(name)),
            Some(("RET" | "ENVID", _)) => mail.dsn.extend([" ", word]),
            _ => return Err(format!("what is {word:?}?")),
        }
    }
    mail.octets = octets(rest)?;
    Ok(mail)
}

/// What stands between `<` and the `>` that no quote hides, and what comes behind it.
fn angles(text: &str) -> Result<(&str, &str), String> {
    let inside = text.strip_prefix('<').ok_or("no <")?;
    let mut quoted = false;
    let mut escaped = false;
    for (at, letter) in inside.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => {
                let behind = &inside[at + 1..];
                return Ok((&inside[..at], behind.strip_prefix(' ').unwrap_or(behind)));
            }
            _ => {}
        }
    }
    Err(String::from("no >"))
}

/// Octets as the notation has them: `"text"` with escapes, or `100*"text"`, strung together.
fn octets(text: &str) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let mut times = 1;
        if rest.starts_with(|first: char| first.is_ascii_digit()) {
            let (count, behind) = rest.split_once('*').ok_or("a number without *")?;
            times = count.parse().map_err(|_| "a number without *")?;
            rest = behind;
        }
        let (piece, behind) = quoted(rest)?;
        all.extend_from_slice(&piece.repeat(times));
        rest = behind.trim_start();
    }
    Ok(all)
}

fn quoted(text: &str) -> Result<(Vec<u8>, &str), String> {
    let inside = text.strip_prefix('"').ok_or("no quote")?;
    let mut piece = Vec::new();
    let mut letters = inside.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((piece, &inside[at + 1..])),
            '\\' => {
                let (at, escape) = letters.next().ok_or("nothing behind \\")?;
                match escape {
                    'r' => piece.push(b'\r'),
                    'n' => piece.push(b'\n'),
                    't' => piece.push(b'\t'),
                    '0' => piece.push(0),
                    '\\' | '"' => piece.push(escape as u8),
                    'x' => {
                        let digits = inside.get(at + 1..at + 3).ok_or("\\x wants two digits")?;
                        piece.push(
                            u8::from_str_radix(digits, 16).map_err(|_| "\\x wants two digits")?,
                        );
                        letters.nth(1);
                    }
                    _ => return Err(format!("no escape \\{escape}")),
                }
            }
            _ => piece.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Err(String::from("no closing quote"))
}
