//! Dialogues of the session: every reply the contract fixes, as tables with named rows.
//!
//! In a script `C:` is a line sent with its CR LF, `R:` octets sent as they are (with Rust's
//! escapes), `S:` a line of a reply (`\s` is a space at its end), and `=` something that is no reply: `=secured`, `=injected`,
//! `=closed`, `=store DATA`, `=commit REVERSE-PATH FORWARD-PATHS PROTOCOL DATA`. A part that holds
//! `!full` or `!broken` cannot be stored. Lines sent without a reply
//! between them are one pipelined group. Every script runs whole and cut into pieces of every small
//! size, so that each row is also a test for the cuts.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::smtp::command::Verb;
use crate::smtp::data::{Budget, MailData};
use crate::smtp::end_of_data::StrayNewline;
use crate::smtp::message::{Message, Security};
use crate::smtp::reply::{Outcome, Output, Refusal, TransactionRecord, Witness};

/// Settings of a small server, changed as a test needs them.
pub(super) fn settings(change: impl FnOnce(&mut Settings)) -> Arc<Settings> {
    let mut settings = Settings {
        hostname: String::from("mx.test"),
        greeting: String::from(DEFAULT_GREETING),
        starttls: StartTls::On,
        tcp: ChannelPolicy::default(),
        tls: ChannelPolicy::default(),
        local_domains: LocalDomains::new("mx.test", ["bücher.test"]).unwrap(),
        trusted_nets: Vec::new(),
        recipients: None,
        stray_newline: StrayNewline::Normalize,
        limits: Limits {
            message_octets_max: 9000,
            recipients_max: 3,
            ..Limits::default()
        },
        budget: Budget::new(1024 * 1024),
    };
    change(&mut settings);
    Arc::new(settings)
}

fn tls() -> Channel {
    Channel::Tls(security())
}

fn security() -> Security {
    Security {
        version: "TLSv1.3",
        cipher: "TLS_AES_256_GCM_SHA384".into(),
        bits: 256,
        resumed: false,
        client_subject: None,
    }
}

/// What a witness saw.
#[derive(Debug, Default)]
struct Seen {
    replies: RefCell<Vec<(Verb, u16, Option<Refusal>)>>,
    transactions: RefCell<Vec<String>>,
    ended: RefCell<Vec<Refusal>>,
}

impl Witness for Seen {
    fn replied(&self, verb: Verb, code: u16, refusal: Option<Refusal>) {
        self.replies.borrow_mut().push((verb, code, refusal));
    }

    fn transaction(&self, record: &TransactionRecord<'_>) {
        let outcome = match record.outcome {
            Outcome::Accepted(id) => id.to_string(),
            Outcome::Refused(code) => code.to_string(),
            Outcome::Abandoned => String::from("abandoned"),
        };
        let recipients = record.envelope.recipients.len();
        self.transactions.borrow_mut().push(format!(
            "{recipients} recipients, {} octets: {outcome}",
            record.octets
        ));
    }

    fn ended(&self, refusal: Refusal) {
        self.ended.borrow_mut().push(refusal);
    }
}

/// A session with an outside that performs its effects at once.
struct Stage {
    session: Session,
    seen: Seen,
    now: Instant,
    log: Vec<String>,
    /// What was put away of the message under way.
    stored: Vec<u8>,
    closed: bool,
}

impl Stage {
    fn new(settings: &Arc<Settings>, channel: Channel) -> Stage {
        let now = Instant::now();
        let peer = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 40000));
        let local = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 25), 25));
        let session = Session::new(
            Arc::clone(settings),
            Connection {
                peer,
                local,
                channel,
            },
            now,
        );
        let mut stage = Stage {
            session,
            seen: Seen::default(),
            now,
            log: Vec::new(),
            stored: Vec::new(),
            closed: false,
        };
        stage.with_output(|session, now, out| session.greet(now, out));
        stage
    }

    /// Past the greeting and an EHLO.
    fn greeted(settings: &Arc<Settings>, channel: Channel) -> Stage {
        let mut stage = Stage::new(settings, channel);
        stage.say(b"EHLO client.test\r\n");
        stage.log.clear();
        stage
    }

    fn with_output<T>(
        &mut self,
        act: impl FnOnce(&mut Session, Instant, &mut Output<'_>) -> T,
    ) -> T {
        let mut out = Output::new(Vec::new(), &self.seen);
        let done = act(&mut self.session, self.now, &mut out);
        let text = String::from_utf8(out.into_octets()).unwrap();
        assert!(text.is_empty() || text.ends_with("\r\n"));
        text.lines().for_each(assert_well_formed);
        self.log
            .extend(text.lines().map(|line| format!("S: {line}")));
        done
    }

    fn say(&mut self, mut input: &[u8]) {
        loop {
            let effect =
                self.with_output(|session, now, out| session.receive(now, &mut input, out));
            self.clean_up();
            match effect {
                Effect::Input if input.is_empty() => return,
                Effect::Input => assert!(self.session.wants_input()),
                Effect::Secure if input.is_empty() => {
                    assert!(!self.session.wants_input());
                    self.log.push(String::from("=secured"));
                    self.session.secured(self.now, security());
                }
                Effect::Secure => {
                    self.log.push(String::from("=injected"));
                    self.with_output(|session, now, out| session.injected(now, out));
                }
                Effect::Verify(credentials) => {
                    assert!(!self.session.wants_input());
                    let verdict = match credentials.password.octets() {
                        b"good" if !credentials.name.contains('\0') => Verdict::Accepted,
                        b"busy" => Verdict::Unavailable,
                        _ => Verdict::Refused,
                    };
                    self.with_output(|session, now, out| session.verified(now, verdict, out));
                }
                Effect::Store(part) => {
                    self.store(&part);
                    // Nobody comes back without input: no reply may depend on it.
                    if input.is_empty() {
                        return;
                    }
                }
                Effect::Commit(message) => {
                    assert!(!self.session.wants_input());
                    self.log.push(committed(&message));
                    self.stored.extend(octets_of(&message.data));
                    assert_eq!(message.octets(), self.stored.len() as u64);
                    assert_eq!(message.data.crc32c(), crc32c::crc32c(&self.stored));
                    let outcome = match &*message.envelope.recipients[0].local_part {
                        "full" => Err(CommitFailure::NoSpace),
                        "broken" => Err(CommitFailure::Failed),
                        _ => Ok("ID7"),
                    };
                    self.with_output(|session, now, out| session.committed(now, outcome, out));
                    self.clean_up();
                }
                Effect::Close => {
                    assert!(input.is_empty() && self.session.is_closing());
                    if !std::mem::replace(&mut self.closed, true) {
                        self.log.push(String::from("=closed"));
                    }
                    return;
                }
            }
        }
    }

    /// Puts a part away.
    fn store(&mut self, part: &MailData) {
        assert!(!self.session.wants_input() && !part.is_empty());
        let octets = octets_of(part);
        self.log.push(format!("=store {}", octets.escape_ascii()));
        let outcome = if memchr::memmem::find(&octets, b"!full").is_some() {
            Err(CommitFailure::NoSpace)
        } else if memchr::memmem::find(&octets, b"!broken").is_some() {
            Err(CommitFailure::Failed)
        } else {
            self.stored.extend(octets);
            assert_eq!(part.crc32c(), crc32c::crc32c(&self.stored));
            Ok(())
        };
        self.with_output(|session, now, out| session.stored(now, outcome, out));
        self.clean_up();
    }

    /// Removes what the session has no use for any more.
    fn clean_up(&mut self) {
        match self.session.stored_octets() {
            0 => self.stored.clear(),
            octets => assert_eq!(octets, self.stored.len() as u64),
        }
    }

    fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

/// RFC 2034 §4: an enhanced code begins with the class of its reply. RFC 2034 §3 leaves it out of
/// the greeting and the replies to EHLO and HELO; 334 and 354 have none.
fn assert_well_formed(line: &str) {
    let (code, rest) = line.split_at(3);
    let enhanced = rest.split(' ').nth(1).filter(|word| word.contains('.'));
    match enhanced.filter(|word| word.bytes().all(|octet| b"0123456789.".contains(&octet))) {
        Some(enhanced) => assert_eq!(code[..1], enhanced[..1], "{line}"),
        None => assert!(["220", "250", "334", "354"].contains(&code), "{line}"),
    }
}

fn octets_of(data: &MailData) -> Vec<u8> {
    data.slices().flatten().copied().collect()
}

fn committed(message: &Message) -> String {
    let data = octets_of(&message.data);
    let recipients: Vec<_> = message
        .envelope
        .recipients
        .iter()
        .map(|recipient| &*recipient.as_given)
        .collect();
    format!(
        "=commit <{}> {} {} {}",
        message.envelope.reverse_path.as_deref().unwrap_or_default(),
        recipients.join(","),
        message.origin.protocol.label(),
        data.escape_ascii()
    )
}

/// One row: what the server is like, what is said.
struct Row {
    name: &'static str,
    change: fn(&mut Settings),
    channel: fn() -> Channel,
    script: &'static str,
}

fn clear() -> Channel {
    Channel::Clear
}

fn unescaped(text: &str) -> Vec<u8> {
    let text = text
        .replace("\\r", "\r")
        .replace("\\n", "\n")
        .replace("\\0", "\0");
    text.into_bytes()
}

/// The groups of octets sent, each with what is expected behind it.
fn groups(script: &str) -> Vec<(Vec<u8>, Vec<String>)> {
    let mut groups: Vec<(Vec<u8>, Vec<String>)> = vec![(Vec::new(), Vec::new())];
    for line in script
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty())
    {
        let sent = if let Some(text) = line.strip_prefix("C: ") {
            [text.as_bytes(), b"\r\n"].concat()
        } else if let Some(text) = line.strip_prefix("R: ") {
            unescaped(text)
        } else {
            groups.last_mut().unwrap().1.push(line.replace("\\s", " "));
            continue;
        };
        if groups.last().unwrap().1.is_empty() {
            groups.last_mut().unwrap().0.extend(sent);
        } else {
            groups.push((sent, Vec::new()));
        }
    }
    groups
}

fn run(rows: &[Row]) {
    for row in rows {
        let groups = groups(row.script);
        // By octets, by a few, and each group whole.
        for piece_octets in [1, 2, 3, 5, 7, 64, usize::MAX] {
            let settings = settings(row.change);
            let mut stage = Stage::greeted(&settings, (row.channel)());
            for (sent, wanted) in &groups {
                for piece in sent.chunks(piece_octets) {
                    stage.say(piece);
                }
                assert_eq!(
                    stage.take_log(),
                    *wanted,
                    "{}, by {piece_octets}, after {:?}",
                    row.name,
                    String::from_utf8_lossy(sent)
                );
            }
            drop(stage);
            assert_eq!(
                settings.budget.held(),
                0,
                "{}: mail data is given back",
                row.name
            );
        }
    }
}

fn unchanged(_: &mut Settings) {}

fn row(name: &'static str, script: &'static str) -> Row {
    Row {
        name,
        change: unchanged,
        channel: clear,
        script,
    }
}

fn row_with(name: &'static str, change: fn(&mut Settings), script: &'static str) -> Row {
    Row {
        name,
        change,
        channel: clear,
        script,
    }
}

#[test]
fn greeting_and_ehlo() {
    let settings = settings(|_| {});
    let mut stage = Stage::new(&settings, Channel::Clear);
    assert_eq!(stage.take_log(), ["S: 220 mx.test ESMTP ringpost"]);
    stage.say(b"EHLO client.test\r\n");
    let wanted = [
        "S: 250-mx.test",
        "S: 250-PIPELINING",
        "S: 250-SIZE 9000",
        "S: 250-8BITMIME",
        "S: 250-SMTPUTF8",
        "S: 250-ENHANCEDSTATUSCODES",
        "S: 250-CHUNKING",
        "S: 250-BINARYMIME",
        "S: 250-DSN",
        "S: 250-STARTTLS",
        "S: 250 LIMITS RCPTMAX=3",
    ];
    assert_eq!(stage.take_log(), wanted);
    stage.say(b"HELO client.test\r\n");
    assert_eq!(stage.take_log(), ["S: 250 mx.test"]);
}

/// The contract's table: 2 × 2 settings of AUTH × 3 ways a channel comes about.
#[test]
fn auth_by_channel() {
    #[derive(Clone, Copy, Debug)]
    enum Way {
        Clear,
        StartTls,
        TlsPort,
    }
    use AuthOffer::{No, Yes};
    let rows = [
        (No, No, Way::Clear, No),
        (No, Yes, Way::Clear, No),
        (Yes, No, Way::Clear, Yes),
        (Yes, Yes, Way::Clear, Yes),
        (No, No, Way::StartTls, No),
        (No, Yes, Way::StartTls, Yes),
        (Yes, No, Way::StartTls, No),
        (Yes, Yes, Way::StartTls, Yes),
        (No, No, Way::TlsPort, No),
        (No, Yes, Way::TlsPort, Yes),
        (Yes, No, Way::TlsPort, No),
        (Yes, Yes, Way::TlsPort, Yes),
    ];
    for (tcp_auth, tls_auth, way, offered) in rows {
        let name = format!("tcp-auth {tcp_auth:?}, tls-auth {tls_auth:?}, {way:?}");
        let settings = settings(|settings| {
            settings.tcp.auth = tcp_auth;
            settings.tls.auth = tls_auth;
        });
        let mut stage = match way {
            Way::Clear | Way::StartTls => Stage::new(&settings, Channel::Clear),
            Way::TlsPort => Stage::new(&settings, tls()),
        };
        if let Way::StartTls = way {
            stage.say(b"EHLO client.test\r\n");
            stage.say(b"STARTTLS\r\n");
            assert_eq!(stage.log.last().unwrap(), "=secured", "{name}");
        }
        stage.take_log();
        stage.say(b"EHLO client.test\r\n");
        let listed = stage
            .take_log()
            .iter()
            .any(|line| line == "S: 250-AUTH PLAIN LOGIN");
        assert_eq!(listed, offered == Yes, "{name}: EHLO");
        // AHRpbQBnb29k: NUL tim NUL good; AHRpbQBiYWQ=: NUL tim NUL bad.
        stage.say(b"AUTH PLAIN AHRpbQBiYWQ=\r\nAUTH PLAIN AHRpbQBnb29k\r\n");
        let wanted = match offered {
            Yes => [
                "S: 535 5.7.8 Authentication credentials invalid",
                "S: 235 2.7.0 Authentication successful",
            ],
            No => ["S: 502 5.5.1 Command not implemented"; 2],
        };
        assert_eq!(stage.take_log(), wanted, "{name}: AUTH");
    }
}

#[test]
fn transactions() {
    run(&[
        row(
            "a message",
            "C: MAIL FROM:<a@client.test>
             S: 250 2.1.0 Ok
             C: RCPT TO:<b@mx.test>
             S: 250 2.1.5 Ok
             C: DATA
             S: 354 End data with <CR><LF>.<CR><LF>
             C: Subject: x
             R: \\r\\n
             C: ..x
             C: .
             =commit <a@client.test> b@mx.test ESMTP Subject: x\\r\\n\\r\\n.x\\r\\n
             S: 250 2.0.0 Ok: queued as ID7
             C: QUIT
             S: 221 2.0.0 Bye
             =closed",
        ),
        row(
            "two messages and QUIT in one pipelined group, and what follows QUIT is dropped",
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: 1
             C: .
             C: MAIL FROM:<a@client.test>
             C: RCPT TO:<postmaster>
             C: RCPT TO:<\"c d\"@MX.test>
             C: DATA
             C: .
             C: QUIT
             C: NOOP
             R: NO
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =commit <> b@mx.test ESMTP 1\\r\\n
             S: 250 2.0.0 Ok: queued as ID7
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =commit <a@client.test> postmaster,\"c d\"@MX.test ESMTP\\s
             S: 250 2.0.0 Ok: queued as ID7
             S: 221 2.0.0 Bye
             =closed
             C: NOOP",
        ),
        row(
            "a commit that fails",
            "C: MAIL FROM:<>
             C: RCPT TO:<full@mx.test>
             C: DATA
             C: .
             C: MAIL FROM:<>
             C: RCPT TO:<broken@mx.test>
             C: DATA
             C: .
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =commit <> full@mx.test ESMTP\\s
             S: 452 4.3.1 No space for the message, try later
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =commit <> broken@mx.test ESMTP\\s
             S: 452 4.3.0 Cannot store the message, try later
             S: 250 2.0.0 Ok",
        ),
        row(
            "RSET and EHLO forget the envelope",
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: RSET
             C: DATA
             C: MAIL FROM:<>
             C: HELO client.test
             C: RCPT TO:<b@mx.test>
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 250 2.0.0 Ok
             S: 503 5.5.1 Send MAIL first
             S: 250 2.1.0 Ok
             S: 250 mx.test
             S: 503 5.5.1 Send MAIL first",
        ),
        row(
            "commands out of sequence",
            "C: RCPT TO:<b@mx.test>
             S: 503 5.5.1 Send MAIL first
             C: DATA
             S: 503 5.5.1 Send MAIL first
             C: MAIL FROM:<>
             S: 250 2.1.0 Ok
             C: MAIL FROM:<>
             S: 503 5.5.1 Transaction already open
             C: DATA
             S: 503 5.5.1 Send RCPT first
             C: RCPT TO:<b@elsewhere.test>
             S: 550 5.7.1 Relaying denied
             C: DATA
             S: 554 5.5.1 No valid recipients
             C: RCPT TO:<b@mx.test>
             S: 250 2.1.5 Ok
             C: STARTTLS
             S: 503 5.5.1 STARTTLS not possible in a transaction
             C: DATA
             S: 354 End data with <CR><LF>.<CR><LF>",
        ),
        row(
            "commands without effect",
            "C: NOOP
             S: 250 2.0.0 Ok
             C: NOOP with an argument
             S: 250 2.0.0 Ok
             C: HELP
             S: 214 2.0.0 See RFC 5321
             C: HELP MAIL
             S: 214 2.0.0 See RFC 5321
             C: VRFY b
             S: 252 2.5.2 Cannot verify; send mail and see
             C: VRFY
             S: 501 5.5.4 Syntax: VRFY address
             C: EXPN list
             S: 502 5.5.1 Command not implemented
             C: RSET
             S: 250 2.0.0 Ok
             C: RSET now
             S: 501 5.5.4 Syntax: RSET
             C: TURN
             S: 500 5.5.1 Command not recognized
             R: \\r\\n
             S: 500 5.5.1 Command not recognized",
        ),
        row(
            "lines that end wrongly are not run",
            "R: NOOP\\nNOOP\\r\\nNOOP\\rNOOP\\r\\n
             S: 500 5.5.2 Lines end in CR LF
             S: 250 2.0.0 Ok
             S: 500 5.5.1 Command not recognized",
        ),
        row(
            "HELO has no extensions",
            "C: HELO client.test
             S: 250 mx.test
             C: MAIL FROM:<> SIZE=1
             S: 555 5.5.4 Parameter not recognized
             C: STARTTLS
             S: 503 5.5.1 Send EHLO first
             C: BDAT 4
             R: abc
             R: d
             S: 503 5.5.1 Send EHLO first
             C: MAIL FROM:<>
             S: 250 2.1.0 Ok
             C: RCPT TO:<b@mx.test>
             S: 250 2.1.5 Ok
             C: DATA
             S: 354 End data with <CR><LF>.<CR><LF>
             C: .
             =commit <> b@mx.test SMTP\\s
             S: 250 2.0.0 Ok: queued as ID7",
        ),
        row(
            "addresses beyond ASCII want SMTPUTF8",
            "C: MAIL FROM:<ä@client.test>
             S: 550 5.6.7 Non-ASCII address needs SMTPUTF8
             C: MAIL FROM:<>
             S: 250 2.1.0 Ok
             C: RCPT TO:<b@bücher.test>
             S: 553 5.6.7 Non-ASCII address needs SMTPUTF8
             C: RSET
             S: 250 2.0.0 Ok
             C: MAIL FROM:<ä@client.test> SMTPUTF8
             S: 250 2.1.0 Ok
             C: RCPT TO:<b@bücher.test>
             S: 250 2.1.5 Ok
             C: DATA
             S: 354 End data with <CR><LF>.<CR><LF>
             C: .
             =commit <ä@client.test> b@bücher.test UTF8SMTP\\s
             S: 250 2.0.0 Ok: queued as ID7",
        ),
        row(
            "parameters of MAIL",
            "C: MAIL FROM:<> SIZE=9001
             S: 552 5.3.4 Message too large
             C: MAIL FROM:<> AUTH=<>
             S: 555 5.5.4 Parameter not recognized
             C: MAIL FROM:<> REQUIRETLS
             S: 555 5.5.4 Parameter not recognized
             C: MAIL FROM:<> BODY=9BIT
             S: 501 5.5.4 Bad parameter value
             C: MAIL FROM:<> SIZE=1 SIZE=1
             S: 501 5.5.4 Parameter given twice
             C: MAIL FROM:<> SIZE=9000 BODY=8BITMIME SMTPUTF8
             S: 250 2.1.0 Ok
             C: RCPT TO:<b@mx.test> SIZE=1
             S: 555 5.5.4 Parameter not recognized",
        ),
        row(
            "parameters of DSN",
            "C: MAIL FROM:<> RET=ALL
             S: 501 5.5.4 Bad parameter value
             C: MAIL FROM:<> ENVID=a+0A
             S: 501 5.5.4 Bad parameter value
             C: MAIL FROM:<> RET=HDRS ENVID=QQ314159
             S: 250 2.1.0 Ok
             C: RCPT TO:<b@mx.test> NOTIFY=NEVER,DELAY
             S: 501 5.5.4 Bad parameter value
             C: RCPT TO:<b@mx.test> ORCPT=b@mx.test
             S: 501 5.5.4 Bad parameter value
             C: RCPT TO:<b@mx.test> NOTIFY=DELAY NOTIFY=DELAY
             S: 501 5.5.4 Parameter given twice
             C: DATA
             S: 503 5.5.1 Send RCPT first
             C: RCPT TO:<b@mx.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bc@mx.test
             S: 250 2.1.5 Ok",
        ),
        row(
            "no parameters of RCPT behind HELO",
            "C: HELO client.test
             S: 250 mx.test
             C: MAIL FROM:<>
             S: 250 2.1.0 Ok
             C: RCPT TO:<b@mx.test> NOTIFY=NEVER
             S: 555 5.5.4 Parameter not recognized
             C: RCPT TO:<b@mx.test>
             S: 250 2.1.5 Ok",
        ),
    ]);
}

#[test]
fn before_the_first_ehlo() {
    let rows = [
        ("MAIL FROM:<>", "503 5.5.1 Send EHLO or HELO first"),
        ("RCPT TO:<b@mx.test>", "503 5.5.1 Send EHLO or HELO first"),
        ("DATA", "503 5.5.1 Send EHLO or HELO first"),
        ("BDAT 0 LAST", "503 5.5.1 Send EHLO first"),
        ("STARTTLS", "503 5.5.1 Send EHLO first"),
        ("AUTH PLAIN", "503 5.5.1 Send EHLO first"),
        ("EHLO", "501 5.5.4 Syntax: EHLO hostname"),
        ("HELO", "501 5.5.4 Syntax: HELO hostname"),
        ("VRFY b", "252 2.5.2 Cannot verify; send mail and see"),
        ("NOOP", "250 2.0.0 Ok"),
        ("RSET", "250 2.0.0 Ok"),
        ("HELP", "214 2.0.0 See RFC 5321"),
        ("QUIT", "221 2.0.0 Bye"),
    ];
    let settings = settings(|settings| settings.tcp.auth = AuthOffer::Yes);
    for (command, wanted) in rows {
        let mut stage = Stage::new(&settings, Channel::Clear);
        stage.take_log();
        stage.say(format!("{command}\r\n").as_bytes());
        assert_eq!(stage.take_log()[0], format!("S: {wanted}"), "{command}");
    }
}

#[test]
fn recipients() {
    run(&[
        row_with(
            "known recipients; postmaster always is one",
            |settings| {
                let known = KnownRecipients::parse("Tim@mx.test\n").unwrap();
                settings.recipients = Some(known);
            },
            "C: MAIL FROM:<>
             S: 250 2.1.0 Ok
             C: RCPT TO:<tom@mx.test>
             S: 550 5.1.1 No such recipient
             C: RCPT TO:<tim@mx.test>
             S: 250 2.1.5 Ok
             C: RCPT TO:<\"TI\\M\"@MX.TEST>
             S: 250 2.1.5 Ok
             C: RCPT TO:<PostMaster@bücher.test>
             S: 553 5.6.7 Non-ASCII address needs SMTPUTF8
             C: RCPT TO:<PostMaster@xn--bcher-kva.test>
             S: 250 2.1.5 Ok",
        ),
        row(
            "one recipient more than a transaction takes",
            "C: MAIL FROM:<>
             C: RCPT TO:<1@mx.test>
             C: RCPT TO:<2@mx.test>
             C: RCPT TO:<3@mx.test>
             C: RCPT TO:<4@mx.test>
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 250 2.1.5 Ok
             S: 250 2.1.5 Ok
             S: 452 4.5.3 Too many recipients
             C: DATA
             S: 354 End data with <CR><LF>.<CR><LF>
             C: .
             =commit <> 1@mx.test,2@mx.test,3@mx.test ESMTP\\s
             S: 250 2.0.0 Ok: queued as ID7",
        ),
        row(
            "nobody relays",
            "C: MAIL FROM:<a@mx.test>
             S: 250 2.1.0 Ok
             C: RCPT TO:<b@elsewhere.test>
             S: 550 5.7.1 Relaying denied
             C: RCPT TO:<b@[192.0.2.25]>
             S: 550 5.7.1 Relaying denied
             C: RCPT TO:<\"b@mx.test\"@elsewhere.test>
             S: 550 5.7.1 Relaying denied
             C: RCPT TO:<@mx.test:b@elsewhere.test>
             S: 550 5.7.1 Relaying denied
             C: RCPT TO:<b%elsewhere.test@mx.test>
             S: 250 2.1.5 Ok",
        ),
        row_with(
            "a trusted network relays",
            |settings| settings.trusted_nets = vec!["192.0.2.0/24".parse().unwrap()],
            "C: MAIL FROM:<a@mx.test>
             S: 250 2.1.0 Ok
             C: RCPT TO:<b@elsewhere.test>
             S: 250 2.1.5 Ok",
        ),
        row_with(
            "the authenticated relay",
            |settings| settings.tcp.auth = AuthOffer::Yes,
            "C: AUTH PLAIN AHRpbQBnb29k
             S: 235 2.7.0 Authentication successful
             C: MAIL FROM:<a@mx.test> AUTH=<>
             S: 250 2.1.0 Ok
             C: RCPT TO:<b@elsewhere.test>
             S: 250 2.1.5 Ok
             C: DATA
             S: 354 End data with <CR><LF>.<CR><LF>
             C: .
             =commit <a@mx.test> b@elsewhere.test ESMTPA\\s
             S: 250 2.0.0 Ok: queued as ID7",
        ),
    ]);
}

#[test]
fn authentication() {
    fn offered(settings: &mut Settings) {
        settings.tcp.auth = AuthOffer::Yes;
    }
    run(&[
        row_with(
            "PLAIN behind a challenge",
            offered,
            "C: AUTH PLAIN
             S: 334\\s
             C: AHRpbQBnb29k
             S: 235 2.7.0 Authentication successful
             C: AUTH PLAIN
             S: 503 5.5.1 Already authenticated",
        ),
        row_with(
            "LOGIN, and commands pipelined behind it",
            offered,
            "C: AUTH LOGIN
             S: 334 VXNlcm5hbWU6
             C: dGlt
             S: 334 UGFzc3dvcmQ6
             C: Z29vZA==
             C: NOOP
             S: 235 2.7.0 Authentication successful
             S: 250 2.0.0 Ok",
        ),
        row_with(
            "LOGIN with its initial response, in lower case",
            offered,
            "C: auth login dGlt
             S: 334 UGFzc3dvcmQ6
             C: Z29vZA==
             S: 235 2.7.0 Authentication successful",
        ),
        row_with(
            "what ends an exchange leaves the session as it was",
            offered,
            "C: AUTH LOGIN
             S: 334 VXNlcm5hbWU6
             C: *
             S: 501 5.7.0 Authentication cancelled
             C: AUTH PLAIN
             S: 334\\s
             C: not base64
             S: 501 5.5.2 Cannot decode response
             C: AUTH PLAIN =
             S: 501 5.5.2 Cannot decode response
             C: AUTH CRAM-MD5
             S: 504 5.5.4 Mechanism not recognized
             C: AUTH
             S: 501 5.5.4 Syntax: AUTH mechanism [initial-response]
             C: AUTH PLAIN cm9vdAB0aW0AZ29vZA==
             S: 535 5.7.8 Authentication credentials invalid
             C: AUTH PLAIN AHRpbQBidXN5
             S: 454 4.7.0 Temporary authentication failure
             C: AUTH PLAIN
             S: 334\\s
             R: AHRpbQBnb29k\\n
             S: 500 5.5.2 Lines end in CR LF
             C: AUTH PLAIN AHRpbQBnb29k
             S: 235 2.7.0 Authentication successful",
        ),
        row_with(
            "AUTH in a transaction, and in a HELO session",
            offered,
            "C: MAIL FROM:<>
             S: 250 2.1.0 Ok
             C: AUTH PLAIN AHRpbQBnb29k
             S: 503 5.5.1 AUTH not possible in a transaction
             C: HELO client.test
             S: 250 mx.test
             C: AUTH PLAIN AHRpbQBnb29k
             S: 503 5.5.1 Send EHLO first",
        ),
        row_with(
            "a new EHLO keeps what AUTH proved, STARTTLS forgets it",
            |settings| {
                offered(settings);
                settings.tls.auth = AuthOffer::Yes;
            },
            "C: AUTH PLAIN AHRpbQBnb29k
             S: 235 2.7.0 Authentication successful
             C: HELO client.test
             S: 250 mx.test
             C: MAIL FROM:<>
             S: 250 2.1.0 Ok
             C: RCPT TO:<b@elsewhere.test>
             S: 250 2.1.5 Ok
             C: EHLO client.test
             S: 250-mx.test
             S: 250-PIPELINING
             S: 250-SIZE 9000
             S: 250-8BITMIME
             S: 250-SMTPUTF8
             S: 250-ENHANCEDSTATUSCODES
             S: 250-CHUNKING
             S: 250-BINARYMIME
             S: 250-DSN
             S: 250-STARTTLS
             S: 250-AUTH PLAIN LOGIN
             S: 250 LIMITS RCPTMAX=3
             C: STARTTLS
             S: 220 2.0.0 Ready to start TLS
             =secured
             C: EHLO client.test
             S: 250-mx.test
             S: 250-PIPELINING
             S: 250-SIZE 9000
             S: 250-8BITMIME
             S: 250-SMTPUTF8
             S: 250-ENHANCEDSTATUSCODES
             S: 250-CHUNKING
             S: 250-BINARYMIME
             S: 250-DSN
             S: 250-AUTH PLAIN LOGIN
             S: 250 LIMITS RCPTMAX=3
             C: MAIL FROM:<>
             S: 250 2.1.0 Ok
             C: RCPT TO:<b@elsewhere.test>
             S: 550 5.7.1 Relaying denied",
        ),
        row_with(
            "MAIL where AUTH is required",
            |settings| {
                offered(settings);
                settings.tcp.anonymous = Anonymous::No;
            },
            "C: MAIL FROM:<>
             S: 530 5.7.0 Authentication required
             C: AUTH PLAIN AHRpbQBnb29k
             S: 235 2.7.0 Authentication successful
             C: MAIL FROM:<>
             S: 250 2.1.0 Ok",
        ),
    ]);
}

#[test]
fn starttls() {
    run(&[
        row(
            "the session is as new afterwards",
            "C: STARTTLS now
             S: 501 5.5.4 Syntax: STARTTLS
             C: STARTTLS
             S: 220 2.0.0 Ready to start TLS
             =secured
             C: MAIL FROM:<>
             S: 503 5.5.1 Send EHLO or HELO first
             C: STARTTLS
             S: 503 5.5.1 TLS already active
             C: HELO client.test
             S: 250 mx.test
             C: STARTTLS now
             S: 503 5.5.1 TLS already active",
        ),
        row_with(
            "off",
            |settings| settings.starttls = StartTls::Off,
            "C: STARTTLS
             S: 502 5.5.1 Command not implemented
             C: STARTTLS now
             S: 502 5.5.1 Command not implemented",
        ),
        row_with(
            "required",
            |settings| {
                settings.starttls = StartTls::Required;
                settings.tcp.auth = AuthOffer::Yes;
            },
            "C: MAIL FROM:<>
             S: 530 5.7.0 Must issue a STARTTLS command first
             C: RCPT nonsense
             S: 530 5.7.0 Must issue a STARTTLS command first
             C: AUTH PLAIN AHRpbQBnb29k
             S: 530 5.7.0 Must issue a STARTTLS command first
             C: BDAT 6
             R: QUIT\\r\\n
             S: 530 5.7.0 Must issue a STARTTLS command first
             C: VRFY b
             S: 530 5.7.0 Must issue a STARTTLS command first
             C: NOOP
             S: 250 2.0.0 Ok
             C: RSET
             S: 250 2.0.0 Ok
             C: HELP
             S: 214 2.0.0 See RFC 5321
             C: TURN
             S: 530 5.7.0 Must issue a STARTTLS command first
             C: EHLO client.test
             S: 250-mx.test
             S: 250-PIPELINING
             S: 250-SIZE 9000
             S: 250-8BITMIME
             S: 250-SMTPUTF8
             S: 250-ENHANCEDSTATUSCODES
             S: 250-CHUNKING
             S: 250-BINARYMIME
             S: 250-DSN
             S: 250-STARTTLS
             S: 250 LIMITS RCPTMAX=3
             C: STARTTLS
             S: 220 2.0.0 Ready to start TLS
             =secured
             C: HELO client.test
             S: 250 mx.test
             C: MAIL FROM:<>
             S: 250 2.1.0 Ok",
        ),
        Row {
            name: "the TLS port",
            change: |settings| settings.starttls = StartTls::Required,
            channel: tls,
            script: "C: STARTTLS
                     S: 503 5.5.1 TLS already active
                     C: MAIL FROM:<>
                     S: 250 2.1.0 Ok
                     C: RCPT TO:<b@mx.test>
                     S: 250 2.1.5 Ok
                     C: DATA
                     S: 354 End data with <CR><LF>.<CR><LF>
                     C: .
                     =commit <> b@mx.test ESMTPS\\s
                     S: 250 2.0.0 Ok: queued as ID7",
        },
    ]);
}

#[test]
fn octets_behind_starttls_end_the_session() {
    let settings = settings(|_| {});
    let mut stage = Stage::greeted(&settings, Channel::Clear);
    stage.say(b"STARTTLS\r\nEHLO evil.test\r\n");
    assert_eq!(
        stage.take_log(),
        ["S: 220 2.0.0 Ready to start TLS", "=injected", "=closed"],
        "nothing is run and nothing said"
    );
    assert_eq!(stage.seen.ended.take(), [Refusal::Injection]);
}

#[test]
fn no_key_no_tls() {
    let settings = settings(|_| {});
    let mut stage = Stage::greeted(&settings, Channel::Clear);
    stage
        .session
        .set_tls_availability(TlsAvailability::Unavailable);
    stage.say(b"STARTTLS\r\nMAIL FROM:<>\r\n");
    assert_eq!(
        stage.take_log(),
        [
            "S: 454 4.7.0 TLS not available due to temporary reason",
            "S: 250 2.1.0 Ok"
        ]
    );
}

#[test]
fn chunks() {
    run(&[
        row(
            "a message in chunks, never changed",
            "C: MAIL FROM:<> BODY=BINARYMIME
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: BDAT 7
             R: .\\r\\n.\\r\\n\\0
             C: BDAT 0
             C: BDAT 2 last
             R: a\\n
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 503 5.5.1 BINARYMIME needs BDAT
             S: 250 2.0.0 7 octets received
             S: 250 2.0.0 0 octets received
             =commit <> b@mx.test ESMTP .\\r\\n.\\r\\n\\x00a\\n
             S: 250 2.0.0 Ok: queued as ID7
             S: 250 2.0.0 Ok",
        ),
        row(
            "an empty last chunk",
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: BDAT 1
             R: a
             C: BDAT 0 LAST
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 250 2.0.0 1 octets received
             =commit <> b@mx.test ESMTP a
             S: 250 2.0.0 Ok: queued as ID7",
        ),
        row(
            "between chunks",
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: BDAT 1
             R: a
             C: MAIL FROM:<>
             C: RCPT TO:<c@mx.test>
             C: DATA
             C: NOOP
             C: RSET
             C: BDAT 6 LAST
             R: QUIT\\r\\n
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 250 2.0.0 1 octets received
             S: 503 5.5.1 Transaction already open
             S: 503 5.5.1 Mail data already begun with BDAT
             S: 503 5.5.1 Mail data already begun with BDAT
             S: 250 2.0.0 Ok
             S: 250 2.0.0 Ok
             S: 503 5.5.1 Send MAIL first
             S: 250 2.0.0 Ok",
        ),
        row(
            "a chunk without recipients is read",
            "C: BDAT 6
             R: QUIT\\r\\n
             C: MAIL FROM:<>
             C: BDAT 6
             R: QUIT\\r\\n
             C: RCPT TO:<b@elsewhere.test>
             C: BDAT 6 LAST
             R: QUIT\\r\\n
             C: BDAT six
             S: 503 5.5.1 Send MAIL first
             S: 250 2.1.0 Ok
             S: 503 5.5.1 Send RCPT first
             S: 550 5.7.1 Relaying denied
             S: 554 5.5.1 No valid recipients
             S: 501 5.5.4 Syntax: BDAT size [LAST]",
        ),
        row_with(
            "over the limit the chunk and those behind it are read",
            |settings| settings.limits.message_octets_max = 8,
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: BDAT 6
             R: QUIT\\r\\n
             C: BDAT 6
             R: QUIT\\r\\n
             C: BDAT 6 LAST
             R: QUIT\\r\\n
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 250 2.0.0 6 octets received
             S: 552 5.3.4 Message too large
             S: 503 5.5.1 Send MAIL first
             S: 250 2.0.0 Ok",
        ),
    ]);
}

#[test]
fn refused_messages_keep_the_dialogue_in_step() {
    run(&[
        row_with(
            "over the limit",
            |settings| settings.limits.message_octets_max = 8,
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: 123456
             C: .
             C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: 1234567
             C: QUIT
             C: .
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =commit <> b@mx.test ESMTP 123456\\r\\n
             S: 250 2.0.0 Ok: queued as ID7
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             S: 552 5.3.4 Message too large
             S: 250 2.0.0 Ok",
        ),
        row_with(
            "a stray newline under reject, and none",
            |settings| settings.stray_newline = StrayNewline::Reject,
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             R: a\\n.\\nQUIT\\r\\n.\\r\\n
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             S: 550 5.6.0 Lone CR or LF in message
             S: 250 2.0.0 Ok",
        ),
        row_with(
            "no memory",
            |settings| settings.budget = Budget::new(100),
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: QUIT
             C: .
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             S: 452 4.3.1 No memory for mail data, try later
             S: 250 2.0.0 Ok",
        ),
    ]);
}

#[test]
fn messages_put_away_in_parts() {
    run(&[
        row_with(
            "in DATA, and what follows its end",
            |settings| settings.limits.message_memory_octets_max = 8,
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: 123456
             C: abcdefghij
             C: .
             C: MAIL FROM:<>
             C: RCPT TO:<c@mx.test>
             C: DATA
             C: 1
             C: .
             C: QUIT
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =store 123456\\r\\n
             =store abcdefgh
             =commit <> b@mx.test ESMTP ij\\r\\n
             S: 250 2.0.0 Ok: queued as ID7
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =commit <> c@mx.test ESMTP 1\\r\\n
             S: 250 2.0.0 Ok: queued as ID7
             S: 221 2.0.0 Bye
             =closed",
        ),
        row_with(
            "nothing left behind the last part",
            |settings| settings.limits.message_memory_octets_max = 8,
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: 123456
             C: .
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =store 123456\\r\\n
             =commit <> b@mx.test ESMTP\\s
             S: 250 2.0.0 Ok: queued as ID7
             S: 250 2.0.0 Ok",
        ),
        row_with(
            "dots behind a part",
            |settings| settings.limits.message_memory_octets_max = 4,
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: ab
             C: ..c
             C: .d
             C: ..
             C: .
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =store ab\\r\\n
             =store .c\\r\\n
             =store d\\r\\n.
             =commit <> b@mx.test ESMTP \\r\\n
             S: 250 2.0.0 Ok: queued as ID7
             S: 250 2.0.0 Ok",
        ),
        row_with(
            "a part that ends between the CR and the LF in front of the end",
            |settings| settings.limits.message_memory_octets_max = 3,
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: ab
             C: .
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =store ab\\r
             =commit <> b@mx.test ESMTP \\n
             S: 250 2.0.0 Ok: queued as ID7
             S: 250 2.0.0 Ok",
        ),
        row_with(
            "stray newlines that grow",
            |settings| settings.limits.message_memory_octets_max = 5,
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             R: \\n\\n\\n\\na\\r\\n.\\r\\r\\n
             C: .
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =store \\r\\n\\r\\n\\r\\n
             =store \\r\\na\\r\\n
             =commit <> b@mx.test ESMTP \\r\\n\\r\\n
             S: 250 2.0.0 Ok: queued as ID7
             S: 250 2.0.0 Ok",
        ),
        row_with(
            "in chunks: not at the end of one, but when more comes",
            |settings| settings.limits.message_memory_octets_max = 4,
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: BDAT 10
             R: 1234567890
             C: BDAT 2
             R: ab
             C: BDAT 0
             C: NOOP
             C: BDAT 1
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             =store 1234
             =store 5678
             S: 250 2.0.0 10 octets received
             S: 250 2.0.0 2 octets received
             S: 250 2.0.0 0 octets received
             S: 250 2.0.0 Ok
             =store 90ab
             R: c
             C: BDAT 3 LAST
             R: def
             C: NOOP
             S: 250 2.0.0 1 octets received
             =commit <> b@mx.test ESMTP cdef
             S: 250 2.0.0 Ok: queued as ID7
             S: 250 2.0.0 Ok",
        ),
        row_with(
            "an empty last chunk behind a full part",
            |settings| settings.limits.message_memory_octets_max = 4,
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: BDAT 8
             R: 12345678
             C: BDAT 0 LAST
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             =store 1234
             S: 250 2.0.0 8 octets received
             =commit <> b@mx.test ESMTP 5678
             S: 250 2.0.0 Ok: queued as ID7",
        ),
        row_with(
            "a limit of nothing puts octets away one by one",
            |settings| settings.limits.message_memory_octets_max = 0,
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: BDAT 3 LAST
             R: 123
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             =store 1
             =store 2
             =commit <> b@mx.test ESMTP 3
             S: 250 2.0.0 Ok: queued as ID7",
        ),
        row_with(
            "given up between chunks",
            |settings| settings.limits.message_memory_octets_max = 4,
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: BDAT 5
             R: 12345
             C: RSET
             C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: BDAT 6
             R: 123456
             C: HELO client.test
             C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: ab
             C: .
             C: QUIT
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             =store 1234
             S: 250 2.0.0 5 octets received
             S: 250 2.0.0 Ok
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             =store 1234
             S: 250 2.0.0 6 octets received
             S: 250 mx.test
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =store ab\\r\\n
             =commit <> b@mx.test SMTP\\s
             S: 250 2.0.0 Ok: queued as ID7
             S: 221 2.0.0 Bye
             =closed",
        ),
        row_with(
            "QUIT behind a part",
            |settings| settings.limits.message_memory_octets_max = 4,
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: BDAT 5
             R: 12345
             C: QUIT
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             =store 1234
             S: 250 2.0.0 5 octets received
             S: 221 2.0.0 Bye
             =closed",
        ),
    ]);
}

#[test]
fn messages_refused_behind_a_part() {
    run(&[
        row_with(
            "a part cannot be stored, in DATA",
            |settings| settings.limits.message_memory_octets_max = 8,
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: 123456
             C: !full 89
             C: QUIT
             C: ..
             C: .
             C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: !broken
             C: .
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =store 123456\\r\\n
             =store !full 89
             S: 452 4.3.1 No space for the message, try later
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =store !broken\\r
             S: 452 4.3.0 Cannot store the message, try later
             S: 250 2.0.0 Ok",
        ),
        row_with(
            "a part cannot be stored, in a chunk",
            |settings| settings.limits.message_memory_octets_max = 8,
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: BDAT 23
             R: 12345678!full 789QUIT\\r\\n
             C: BDAT 6 LAST
             R: QUIT\\r\\n
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             =store 12345678
             =store !full 78
             S: 452 4.3.1 No space for the message, try later
             S: 503 5.5.1 Send MAIL first
             S: 250 2.0.0 Ok",
        ),
        row_with(
            "over the size limit, which goes before a part that cannot be stored",
            |settings| {
                settings.limits.message_octets_max = 12;
                settings.limits.message_memory_octets_max = 5;
            },
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: 123456789
             C: QUIT
             C: .
             C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: !full6789
             C: QUIT
             C: .
             C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: BDAT 6
             R: 123456
             C: BDAT 7
             R: 1234567
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =store 12345
             =store 6789\\r
             S: 552 5.3.4 Message too large
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =store !full
             S: 552 5.3.4 Message too large
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             =store 12345
             S: 250 2.0.0 6 octets received
             S: 552 5.3.4 Message too large
             S: 250 2.0.0 Ok",
        ),
        row_with(
            "just as large as may be, and a part's last octet is the one too many",
            |settings| {
                settings.limits.message_octets_max = 7;
                settings.limits.message_memory_octets_max = 4;
            },
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: 12345
             C: .
             C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: 123456
             C: .
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =store 1234
             =commit <> b@mx.test ESMTP 5\\r\\n
             S: 250 2.0.0 Ok: queued as ID7
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =store 1234
             S: 552 5.3.4 Message too large
             S: 250 2.0.0 Ok",
        ),
        row_with(
            "a stray newline under reject: nothing is put away behind it",
            |settings| {
                settings.stray_newline = StrayNewline::Reject;
                settings.limits.message_memory_octets_max = 4;
            },
            "C: MAIL FROM:<>
             C: RCPT TO:<b@mx.test>
             C: DATA
             R: 12345\\n
             C: 123456789
             C: .
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =store 1234
             S: 550 5.6.0 Lone CR or LF in message
             S: 250 2.0.0 Ok",
        ),
        row_with(
            "no memory behind a part",
            |settings| {
                settings.limits.message_memory_octets_max = 4;
                settings.budget = Budget::new(4000);
            },
            "C: MAIL FROM:<> SIZE=9
             C: RCPT TO:<b@mx.test>
             C: DATA
             C: 123456789
             C: .
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End data with <CR><LF>.<CR><LF>
             =store 1234
             S: 452 4.3.1 No memory for mail data, try later
             S: 250 2.0.0 Ok",
        ),
        row_with(
            "the commit fails",
            |settings| settings.limits.message_memory_octets_max = 4,
            "C: MAIL FROM:<>
             C: RCPT TO:<full@mx.test>
             C: BDAT 5 LAST
             R: 12345
             C: NOOP
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             =store 1234
             =commit <> full@mx.test ESMTP 5
             S: 452 4.3.1 No space for the message, try later
             S: 250 2.0.0 Ok",
        ),
    ]);
}

/// A session to which `sent` is said behind the envelope, in pieces as `cuts` has them.
fn parts_of(settings: &Arc<Settings>, sent: &[u8], cuts: &mut dyn FnMut(usize) -> usize) -> Stage {
    let mut stage = Stage::greeted(settings, Channel::Clear);
    stage.say(b"MAIL FROM:<>\r\nRCPT TO:<b@mx.test>\r\n");
    stage.take_log();
    let mut rest = sent;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(cuts(rest.len()));
        stage.say(piece);
        rest = behind;
    }
    stage
}

/// Stuffed, as DATA sends it.
fn by_data(message: &[u8]) -> Vec<u8> {
    let mut sent = b"DATA\r\n".to_vec();
    for line in message.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            sent.push(b'.');
        }
        sent.extend_from_slice(line);
    }
    sent.extend_from_slice(b".\r\nNOOP\r\n");
    sent
}

/// In chunks of so many octets, and a last one of the rest.
fn by_bdat(message: &[u8], chunks: &[usize]) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut rest = message;
    for octets in chunks {
        let (chunk, behind) = rest.split_at(*octets.min(&rest.len()));
        sent.extend_from_slice(format!("BDAT {}\r\n", chunk.len()).as_bytes());
        sent.extend_from_slice(chunk);
        rest = behind;
    }
    sent.extend_from_slice(format!("BDAT {} LAST\r\n", rest.len()).as_bytes());
    sent.extend_from_slice(rest);
    sent.extend_from_slice(b"NOOP\r\n");
    sent
}

/// The parts and the rest are the message, and the parts are the same, however it is cut. That the
/// checksums fit, [`Stage`] sees to.
#[test]
fn parts_are_the_message_however_it_is_cut() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let settings = settings(|settings| {
            settings.limits.message_octets_max = u64::MAX;
            settings.limits.message_memory_octets_max = random.u64(..3_000);
        });
        let mut message = Vec::new();
        for _ in 0..random.usize(..80) {
            message.extend_from_slice(random.choice([".", "..", "a", "text"]).unwrap().as_bytes());
            message.extend(std::iter::repeat_n(b'x', random.usize(..60)));
            message.extend_from_slice(b"\r\n");
        }
        let sent = if random.bool() {
            by_data(&message)
        } else {
            let chunks = random.usize(..5);
            let chunks: Vec<usize> = std::iter::repeat_with(|| random.usize(..2_000))
                .take(chunks)
                .collect();
            by_bdat(&message, &chunks)
        };
        let mut whole = parts_of(&settings, &sent, &mut |rest| rest);
        let log = whole.take_log();
        assert_eq!(log.last().unwrap(), "S: 250 2.0.0 Ok", "seed {seed}");
        let got: String = log
            .iter()
            .filter_map(|line| {
                line.strip_prefix("=store ")
                    .or_else(|| line.strip_prefix("=commit <> b@mx.test ESMTP "))
            })
            .collect();
        assert_eq!(got, message.escape_ascii().to_string(), "seed {seed}");
        let mut single = parts_of(&settings, &sent, &mut |_| 1);
        assert_eq!(single.take_log(), log, "seed {seed}, octet by octet");
        for _ in 0..4 {
            let mut cut = parts_of(&settings, &sent, &mut |rest| {
                random.usize(1..=rest.min(900))
            });
            assert_eq!(cut.take_log(), log, "seed {seed}, cut at random");
        }
    }
}

/// How long the parts are that a message by DATA is put away in.
fn part_octets(log: &[String]) -> Vec<usize> {
    log.iter()
        .filter_map(|line| line.strip_prefix("=store "))
        .map(|octets| octets.replace("\\r", "r").replace("\\n", "n").len())
        .collect()
}

#[test]
fn a_tight_budget_has_parts_put_away_early() {
    const KIB: usize = 1024;
    let message = [&[b'x'; 97], &b"\r\n"[..]].concat().repeat(600);
    // The second way fills a part with a chunk, so that it is put away in front of the next.
    let ways = [by_data(&message), by_bdat(&message, &[16 * KIB])];
    // name, budget, what others hold of it, the parts
    #[rustfmt::skip] // a row a line
    let rows: &[(&str, usize, usize, &[usize])] = &[
        ("enough", 1024 * KIB, 0, &[]),
        ("tight with the fourth block", 1024 * KIB, 736 * KIB, &[28 * KIB + 1; 2]),
        ("tight from the beginning", 1024 * KIB, 800 * KIB, &[16 * KIB; 3]),
        ("tight by nobody else", 64 * KIB, 0, &[28 * KIB + 1; 2]),
    ];
    for (name, octets_max, others, wanted) in rows {
        let settings = settings(|settings| {
            settings.limits.message_octets_max = u64::MAX;
            settings.limits.message_memory_octets_max = u64::MAX;
            settings.budget = Budget::new(*octets_max as u64);
        });
        let mut held = Vec::new();
        for _ in 0..others / (4 * KIB) {
            let mut data = MailData::new(&settings.budget, None);
            data.push(b"x").unwrap();
            held.push(data);
        }
        for sent in &ways {
            for piece_octets in [1, 7, 1000, 16 * KIB, usize::MAX] {
                let mut stage = parts_of(&settings, sent, &mut |rest| rest.min(piece_octets));
                let log = stage.take_log();
                assert_eq!(part_octets(&log), *wanted, "{name}, by {piece_octets}");
                assert_eq!(log.last().unwrap(), "S: 250 2.0.0 Ok", "{name}");
                assert_eq!(settings.budget.held(), *others as u64, "{name}");
            }
        }
    }
}

#[test]
fn a_message_in_a_loop_is_not_put_away() {
    let settings = settings(|settings| settings.limits.message_memory_octets_max = 1300);
    for (hops, parts) in [(100, 3), (101, 1)] {
        // The hundredth field ends at octet 1300, with the first part.
        let message = ["Received: x\r\n".repeat(hops), "x\r\n".repeat(900)].concat();
        let message = message.as_bytes();
        for sent in [
            by_data(message),
            by_bdat(message, &[]),
            by_bdat(message, &[7]),
        ] {
            let mut stage = parts_of(&settings, &sent, &mut |rest| rest);
            assert_eq!(part_octets(&stage.take_log()).len(), parts, "{hops} hops");
            assert_eq!(stage.session.stored_octets(), 0, "{hops} hops");
        }
    }
}

/// A session that has handed out the first four octets of a message by `command`.
fn storing(settings: &Arc<Settings>, command: &str) -> Stage {
    let mut stage = Stage::greeted(settings, Channel::Clear);
    stage.say(format!("MAIL FROM:<>\r\nRCPT TO:<b@mx.test>\r\n{command}\r\n").as_bytes());
    stage.take_log();
    let mut input: &[u8] = b"1234567";
    let effect = stage.with_output(|session, now, out| session.receive(now, &mut input, out));
    assert!(matches!(effect, Effect::Store(_)), "{command}");
    assert_eq!(input, b"567", "{command}: the rest stays with the caller");
    let again = stage.with_output(|session, now, out| session.receive(now, &mut input, out));
    assert!(matches!(again, Effect::Input) && !stage.session.wants_input());
    assert_eq!(input, b"567", "{command}: and is not taken meanwhile");
    stage
}

#[test]
fn nothing_expires_while_a_part_is_put_away() {
    let settings = settings(|settings| settings.limits.message_memory_octets_max = 4);
    let rows = [
        ("DATA", "\r\n.\r\nNOOP\r\n", "1 recipients, 9 octets: ID7"),
        ("BDAT 7 LAST", "NOOP\r\n", "1 recipients, 7 octets: ID7"),
    ];
    for (command, behind, wanted) in rows {
        let mut stage = storing(&settings, command);
        assert_eq!(stage.session.stored_octets(), 0, "{command}: not yet");
        stage.now += Duration::from_secs(30 * 60);
        assert!(stage.session.deadline() > stage.now + Duration::from_secs(24 * 60 * 60));
        stage.with_output(|session, now, out| {
            session.expired(now, out);
            assert!(!session.drain(now, out));
            let effect = session.stored(now, Ok(()), out);
            assert!(matches!(effect, Effect::Input));
        });
        assert!(stage.session.wants_input());
        assert_eq!(stage.session.stored_octets(), 4, "{command}");
        let data_timeout = settings.limits.data_timeout;
        assert_eq!(stage.session.deadline(), stage.now + data_timeout);
        assert!(stage.take_log().is_empty(), "{command}");
        stage.stored.extend(b"1234");
        stage.say(format!("567{behind}").as_bytes());
        let log = stage.take_log();
        let end = [
            "S: 250 2.0.0 Ok: queued as ID7",
            "S: 421 4.3.2 mx.test Service going down",
            "=closed",
        ];
        assert_eq!(log[log.len() - 3..], end, "{command}");
        assert_eq!(stage.session.stored_octets(), 0, "{command}");
        assert_eq!(stage.seen.transactions.take(), [wanted], "{command}");
    }
}

#[test]
fn a_session_lost_behind_a_part_has_no_use_for_it() {
    let settings = settings(|settings| settings.limits.message_memory_octets_max = 4);
    for command in ["DATA", "BDAT 7 LAST", "BDAT 9"] {
        for outcome in [Ok(()), Err(CommitFailure::NoSpace)] {
            let mut stage = storing(&settings, command);
            stage.with_output(|session, now, out| {
                session.lost(now, out);
                assert!(session.is_closing());
                let effect = session.stored(now, outcome, out);
                assert!(matches!(effect, Effect::Close));
            });
            assert_eq!(
                stage.session.stored_octets(),
                0,
                "{command}, while it is stored"
            );
            let reports = stage.seen.transactions.take();
            assert_eq!(reports, ["1 recipients, 4 octets: abandoned"], "{command}");

            let mut stage = storing(&settings, command);
            stage.with_output(|session, now, out| session.stored(now, outcome, out));
            let stored = if outcome.is_ok() { 4 } else { 0 };
            assert_eq!(stage.session.stored_octets(), stored, "{command}");
            stage.with_output(|session, now, out| session.lost(now, out));
            assert_eq!(stage.session.stored_octets(), 0, "{command}, behind it");
            let reports = stage.seen.transactions.take();
            assert_eq!(reports, ["1 recipients, 4 octets: abandoned"], "{command}");
            assert!(stage.take_log().is_empty(), "{command}");
        }
    }
    assert_eq!(settings.budget.held(), 0);
}

#[test]
fn hops() {
    for (count, wanted) in [
        (100, "S: 250 2.0.0 Ok: queued as ID7"),
        (101, "S: 554 5.4.6 Too many hops"),
    ] {
        let data = "Received: x\r\n".repeat(count);
        let settings = settings(|_| {});
        let mut stage = Stage::greeted(&settings, Channel::Clear);
        stage.say(b"MAIL FROM:<>\r\nRCPT TO:<b@mx.test>\r\nDATA\r\n");
        stage.say(format!("{data}\r\n.\r\n").as_bytes());
        assert_eq!(stage.take_log().last().unwrap(), wanted, "{count} by DATA");
        stage.say(b"MAIL FROM:<>\r\nRCPT TO:<b@mx.test>\r\n");
        stage.say(format!("BDAT {} LAST\r\n{data}NOOP\r\n", data.len()).as_bytes());
        let log = stage.take_log();
        assert_eq!(
            log[log.len() - 2..],
            [wanted, "S: 250 2.0.0 Ok"],
            "{count} by BDAT"
        );
    }
}

#[test]
fn line_limits() {
    let pad =
        |head: &str, octets: usize| format!("{head}{}\r\n", "x".repeat(octets - head.len() - 2));
    let rows = [
        (
            "a command at its limit",
            pad("NOOP ", 512),
            "S: 250 2.0.0 Ok",
        ),
        (
            "one octet more",
            pad("NOOP ", 513),
            "S: 500 5.5.2 Line too long",
        ),
        (
            "MAIL has more",
            pad("MAIL FROM:<> ", 1381),
            "S: 555 5.5.4 Parameter not recognized",
        ),
        (
            "but not without end",
            pad("MAIL FROM:<> ", 1382),
            "S: 500 5.5.2 Line too long",
        ),
        (
            "RCPT has more",
            pad("RCPT TO:<b> ", 1048),
            "S: 501 5.1.3 Bad recipient address syntax",
        ),
        (
            "but not without end either",
            pad("RCPT TO:<b> ", 1049),
            "S: 500 5.5.2 Line too long",
        ),
        (
            "AUTH at its limit",
            pad("AUTH PLAIN ", 12290),
            "S: 501 5.5.2 Cannot decode response",
        ),
        (
            "AUTH over it",
            pad("AUTH PLAIN ", 12291),
            "S: 500 5.5.6 Authentication exchange line too long",
        ),
    ];
    let settings = settings(|settings| settings.tcp.auth = AuthOffer::Yes);
    for (name, line, wanted) in rows {
        for piece_octets in [1, 100, usize::MAX] {
            let mut stage = Stage::greeted(&settings, Channel::Clear);
            let line = format!("{line}NOOP\r\n");
            for piece in line.as_bytes().chunks(piece_octets) {
                stage.say(piece);
            }
            assert_eq!(
                stage.take_log(),
                [wanted, "S: 250 2.0.0 Ok"],
                "{name}, by {piece_octets}"
            );
        }
    }
    let mut stage = Stage::greeted(&settings, Channel::Clear);
    stage.say(b"AUTH PLAIN\r\n");
    stage.say(pad("", 12291).as_bytes());
    stage.say(b"NOOP\r\n");
    assert_eq!(
        stage.take_log(),
        [
            "S: 334 ",
            "S: 500 5.5.6 Authentication exchange line too long",
            "S: 250 2.0.0 Ok"
        ],
        "a line of the exchange"
    );
}

#[test]
fn too_many_errors() {
    let message = "MAIL FROM:<>\r\nRCPT TO:<b@mx.test>\r\nDATA\r\n.\r\n";
    let settings = settings(|settings| {
        settings.limits.errors_max = 3;
        settings.tcp.auth = AuthOffer::Yes;
    });
    let end = ["S: 421 4.7.0 Too many errors", "=closed"];

    let mut stage = Stage::greeted(&settings, Channel::Clear);
    stage.say(b"BAD\r\nNOOP\r\nBAD\r\nBAD\r\nNOOP\r\n");
    let log = stage.take_log();
    assert_eq!(log[log.len() - 2..], end);
    assert_eq!(log.len(), 6, "nothing is run behind the 421");

    let mut stage = Stage::greeted(&settings, Channel::Clear);
    stage.say(format!("BAD\r\nBAD\r\n{message}BAD\r\nBAD\r\nNOOP\r\n").as_bytes());
    assert_eq!(
        stage.take_log().last().unwrap(),
        "S: 250 2.0.0 Ok",
        "a message resets the count"
    );

    let mut stage = Stage::greeted(&settings, Channel::Clear);
    let guess = "AUTH PLAIN AHRpbQBiYWQ=\r\n";
    stage.say(format!("{guess}{guess}{message}{guess}NOOP\r\n").as_bytes());
    let log = stage.take_log();
    assert_eq!(log[log.len() - 2..], end, "but not for guesses");
    assert_eq!(
        log[log.len() - 3],
        "S: 535 5.7.8 Authentication credentials invalid"
    );

    let mut stage = Stage::greeted(&settings, Channel::Clear);
    stage.say(b"MAIL FROM:<>\r\n");
    stage.say("RCPT TO:<b@mx.test>\r\n".repeat(20).as_bytes());
    stage.say(b"DATA\r\n.\r\n");
    assert_eq!(
        stage.take_log().last().unwrap(),
        "S: 250 2.0.0 Ok: queued as ID7",
        "recipients past the limit are no errors"
    );
}

#[test]
fn deadlines() {
    let settings = settings(|settings| {
        settings.limits.command_timeout = Duration::from_secs(10);
        settings.limits.data_timeout = Duration::from_secs(5);
        settings.limits.session_timeout = Duration::from_secs(100);
    });
    let mut stage = Stage::greeted(&settings, Channel::Clear);
    let start = stage.now;
    let due = |stage: &Stage| stage.session.deadline().duration_since(start).as_secs();
    assert_eq!(due(&stage), 10);
    stage.now = start + Duration::from_secs(3);
    stage.say(b"NOO");
    assert_eq!(due(&stage), 10, "a part of a line buys no time");
    stage.say(b"P\r\n");
    assert_eq!(due(&stage), 13, "a line does");
    stage.say(b"MAIL FROM:<>\r\nRCPT TO:<b@mx.test>\r\nDATA\r\n");
    assert_eq!(due(&stage), 8, "mail data has its own time");
    stage.now = start + Duration::from_secs(7);
    stage.say(b"x");
    assert_eq!(due(&stage), 12, "and each octet renews it");
    stage.now = start + Duration::from_secs(98);
    stage.say(b"x");
    assert_eq!(due(&stage), 100, "the session's time is absolute");
    stage.take_log();
    stage.now = start + Duration::from_secs(100);
    stage.say(b"x\r\n.\r\n");
    assert_eq!(
        stage.take_log(),
        ["S: 421 4.4.2 mx.test Timeout", "=closed"]
    );
    assert_eq!(
        stage.seen.transactions.take(),
        ["1 recipients, 2 octets: abandoned"]
    );
}

#[test]
fn nothing_expires_while_a_message_is_committed() {
    let settings = settings(|_| {});
    let mut stage = Stage::greeted(&settings, Channel::Clear);
    stage.say(b"MAIL FROM:<>\r\nRCPT TO:<b@mx.test>\r\nDATA\r\n");
    stage.take_log();
    let mut input: &[u8] = b".\r\n";
    let effect = stage.with_output(|session, now, out| session.receive(now, &mut input, out));
    assert!(matches!(effect, Effect::Commit(_)));
    stage.now += Duration::from_secs(3 * 60 * 60);
    assert!(stage.session.deadline() > stage.now);
    stage.with_output(|session, now, out| {
        session.expired(now, out);
        session.lost(now, out);
        assert!(!session.drain(now, out));
        session.committed(now, Ok("ID8"), out)
    });
    assert_eq!(
        stage.take_log(),
        [
            "S: 250 2.0.0 Ok: queued as ID8",
            "S: 421 4.3.2 mx.test Service going down"
        ]
    );
    assert_eq!(
        stage.seen.transactions.take(),
        ["1 recipients, 0 octets: ID8"]
    );
}

#[test]
fn draining() {
    let settings = settings(|settings| settings.tcp.auth = AuthOffer::Yes);
    let down = "S: 421 4.3.2 mx.test Service going down";
    let at_once: [(&str, &[u8]); 4] = [
        ("idle", b""),
        ("in a line", b"MAIL FR"),
        ("in an exchange", b"AUTH LOGIN\r\n"),
        ("after a message", b"MAIL FROM:<>\r\nRSET\r\n"),
    ];
    for (name, said) in at_once {
        let mut stage = Stage::greeted(&settings, Channel::Clear);
        stage.say(said);
        stage.take_log();
        assert!(
            stage.with_output(|session, now, out| session.drain(now, out)),
            "{name}"
        );
        assert_eq!(stage.take_log(), [down], "{name}");
        assert!(stage.session.is_closing(), "{name}");
        assert!(
            stage.with_output(|session, now, out| session.drain(now, out)),
            "{name}, again"
        );
        assert!(stage.take_log().is_empty(), "{name}, again");
    }
    let later: [(&str, &[u8], &[u8], &str); 4] = [
        (
            "RSET",
            b"MAIL FROM:<>\r\n",
            b"RSET\r\nNOOP\r\n",
            "S: 250 2.0.0 Ok",
        ),
        (
            "the end of data",
            b"MAIL FROM:<>\r\nRCPT TO:<b@mx.test>\r\nDATA\r\n",
            b".\r\nNOOP\r\n",
            "S: 250 2.0.0 Ok: queued as ID7",
        ),
        (
            "the last chunk",
            b"MAIL FROM:<>\r\nRCPT TO:<b@mx.test>\r\nBDAT 1\r\n",
            b"aBDAT 0 LAST\r\nNOOP\r\n",
            "S: 250 2.0.0 Ok: queued as ID7",
        ),
        (
            "a refused message",
            b"MAIL FROM:<>\r\nRCPT TO:<b@mx.test>\r\nBDAT 10000\r\n",
            &[b'x'; 10000],
            "S: 552 5.3.4 Message too large",
        ),
    ];
    for (name, before, behind, reply) in later {
        let mut stage = Stage::greeted(&settings, Channel::Clear);
        stage.say(before);
        assert!(
            !stage.with_output(|session, now, out| session.drain(now, out)),
            "{name}"
        );
        stage.say(behind);
        let log = stage.take_log();
        assert_eq!(log[log.len() - 3..], [reply, down, "=closed"], "{name}");
    }
}

#[test]
fn a_session_drained_during_its_handshake_is_due_at_once() {
    let settings = settings(|_| {});
    let mut stage = Stage::greeted(&settings, Channel::Clear);
    let mut input: &[u8] = b"STARTTLS\r\n";
    let effect = stage.with_output(|session, now, out| session.receive(now, &mut input, out));
    assert!(matches!(effect, Effect::Secure));
    assert!(!stage.with_output(|session, now, out| session.drain(now, out)));
    stage.session.secured(stage.now, security());
    assert!(stage.session.deadline() <= stage.now);
    stage.take_log();
    stage.with_output(|session, now, out| session.expired(now, out));
    assert_eq!(
        stage.take_log(),
        ["S: 421 4.3.2 mx.test Service going down"]
    );
}

#[test]
fn transactions_are_reported_once() {
    let open = "MAIL FROM:<>\r\nRCPT TO:<b@mx.test>\r\n";
    let rows = [
        (
            "accepted",
            "DATA\r\nx\r\n.\r\n",
            "1 recipients, 3 octets: ID7",
        ),
        ("RSET", "RSET\r\n", "1 recipients, 0 octets: abandoned"),
        (
            "EHLO",
            "EHLO client.test\r\n",
            "1 recipients, 0 octets: abandoned",
        ),
        ("QUIT", "QUIT\r\n", "1 recipients, 0 octets: abandoned"),
        (
            "lost in DATA",
            "DATA\r\nx",
            "1 recipients, 1 octets: abandoned",
        ),
        (
            "lost in a chunk",
            "BDAT 3\r\nx",
            "1 recipients, 1 octets: abandoned",
        ),
        (
            "lost between chunks",
            "BDAT 1\r\nx",
            "1 recipients, 1 octets: abandoned",
        ),
        (
            "refused",
            "BDAT 9001\r\n",
            "1 recipients, 0 octets: abandoned",
        ),
    ];
    let settings = settings(|_| {});
    for (name, behind, wanted) in rows {
        let mut stage = Stage::greeted(&settings, Channel::Clear);
        stage.say(format!("{open}{behind}").as_bytes());
        stage.with_output(|session, now, out| session.lost(now, out));
        stage.with_output(|session, now, out| session.lost(now, out));
        assert_eq!(stage.seen.transactions.take(), [wanted], "{name}");
    }
}

#[test]
fn every_reply_is_witnessed() {
    let settings = settings(|_| {});
    let mut stage = Stage::new(&settings, Channel::Clear);
    stage.say(b"EHLO c.test\r\nBAD\r\nMAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nQUIT\r\n");
    let wanted = [
        (Verb::Greeting, 220, None),
        (Verb::Ehlo, 250, None),
        (Verb::Unknown, 500, Some(Refusal::Syntax)),
        (Verb::Mail, 250, None),
        (Verb::Rcpt, 550, Some(Refusal::Relay)),
        (Verb::Quit, 221, None),
    ];
    assert_eq!(stage.seen.replies.take(), wanted);
}

#[test]
fn a_peer_that_reads_no_replies_is_not_read() {
    let settings = settings(|_| {});
    let mut stage = Stage::greeted(&settings, Channel::Clear);
    let many = "NOOP\r\n".repeat(10_000);
    let mut input = many.as_bytes();
    let mut out = Output::new(Vec::new(), &stage.seen);
    let effect = stage.session.receive(stage.now, &mut input, &mut out);
    assert!(matches!(effect, Effect::Input));
    assert!(!input.is_empty());
    let octets = out.into_octets();
    assert!(octets.len() < crate::smtp::reply::OUTPUT_OCTETS_MAX + 100);
    let replies = octets.len() / "250 2.0.0 Ok\r\n".len();
    stage.say(input);
    assert_eq!(replies + stage.log.len(), 10_000, "no reply is lost");
}

#[test]
fn an_idle_session_is_small() {
    assert!(
        size_of::<Session>() <= 512,
        "{} octets",
        size_of::<Session>()
    );
}

/// Pieces of dialogues, good and bad, that are put together at random.
const PIECES: &[&[u8]] = &[
    b"EHLO client.test\r\n",
    b"HELO client.test\r\n",
    b"MAIL FROM:<>\r\n",
    b"MAIL FROM:<a@b.test> BODY=BINARYMIME\r\n",
    b"RCPT TO:<b@mx.test>\r\n",
    b"RCPT TO:<b@mx.test>\r\n",
    b"RCPT TO:<full@mx.test>\r\n",
    b"RCPT TO:<b@elsewhere.test>\r\n",
    b"DATA\r\n",
    b"DATA\r\nReceived: x\r\n\r\n..\r\n.\r\n",
    b".\r\n",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\r.\r",
    b"BDAT 0\r\n",
    b"BDAT 5\r\n",
    b"BDAT 9001\r\n",
    b"BDAT 7 LAST\r\nRSET\r\n\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT 40\r\nin a chunk!full, in the middle of it\r\n\r\n",
    b"..\r\n!broken\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"NOOP\n",
    b"AUTH PLAIN\r\n",
    b"AUTH LOGIN dGlt\r\n",
    b"Z29vZA==\r\n",
    b"AUTH PLAIN AHRpbQBnb29k\r\n",
    b"*\r\n",
    b"VRFY x\r\n",
    b"STARTTLS\r\n",
    b"QUIT\r\n",
    b"\0\xff\r",
    &[b'x'; 700],
];

/// Seeds are printed by the assertion; a failure becomes a row above.
#[test]
fn random_dialogues_are_answered_the_same_however_cut() {
    for seed in 0..2000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let settings = settings(|settings| {
            settings.tcp.auth = AuthOffer::Yes;
            settings.limits.errors_max = random.u32(1..60);
            settings.stray_newline = *random
                .choice(&[
                    StrayNewline::Normalize,
                    StrayNewline::Accept,
                    StrayNewline::Reject,
                ])
                .unwrap();
            settings.starttls = *random.choice(&[StartTls::Off, StartTls::On]).unwrap();
            if random.bool() {
                settings.limits.message_memory_octets_max = random.u64(..200);
            }
        });
        let mut input = Vec::new();
        for _ in 0..random.usize(1..60) {
            input.extend_from_slice(random.choice(PIECES).unwrap());
        }
        // Where STARTTLS is read alone, what follows it is no injection, so all cuts of one input
        // agree only without it.
        if settings.starttls == StartTls::On {
            let at = memchr::memmem::find(&input, b"STARTTLS\r\n");
            input.truncate(at.map_or(input.len(), |at| at + b"STARTTLS\r\n".len()));
        }
        let mut whole = Stage::greeted(&settings, Channel::Clear);
        whole.say(&input);
        for octets_max in [1, 2, 10, 1000] {
            let mut cut = Stage::greeted(&settings, Channel::Clear);
            let mut rest = &input[..];
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(random.usize(1..=octets_max.min(rest.len())));
                cut.say(piece);
                rest = behind;
            }
            assert_eq!(whole.log, cut.log, "seed {seed}, pieces up to {octets_max}");
            assert_eq!(
                *whole.seen.transactions.borrow(),
                *cut.seen.transactions.borrow(),
                "seed {seed}, pieces up to {octets_max}"
            );
            cut.with_output(|session, now, out| session.lost(now, out));
        }
        whole.with_output(|session, now, out| session.lost(now, out));
        drop(whole);
        assert_eq!(settings.budget.held(), 0, "seed {seed}");
    }
}
