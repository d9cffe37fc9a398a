//! One connection of a next hop: plays its script, writes down what it sees, and finds the peer's breaches.
//!
//! Breaches are what a conforming sender never does, whatever a test is about: a parameter that was not offered,
//! a command ahead of the reply it has to wait for, a command out of order. Each fails the test that owns the sink.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use openssl::nid::Nid;
use openssl::ssl::NameType;

use super::record::{Login, Message, TlsSeen, Way, path_of};
use super::script::{Act, Dialect, Point, Script};
use super::wire::{Stream, Wire};
use super::{Books, Shared};

pub(super) struct Session {
    script: Script,
    wire: Wire,
    /// Which connection of the sink it is.
    number: usize,
    shared: Arc<Shared>,
    /// What the last EHLO listed; None before it.
    listed: Option<Vec<String>>,
    is_logged_in: bool,
    transaction: Option<Transaction>,
}

#[derive(Default)]
struct Transaction {
    mail: String,
    rcpt: Vec<String>,
    chunks: Vec<u8>,
}

/// Longer lines than an ORCPT of 500 octets makes are a breach (RFC 3461 §5.1).
const LINE_OCTETS_MAX: usize = 2_048;

impl Session {
    pub(super) fn new(
        script: Script,
        stream: Stream,
        number: usize,
        shared: Arc<Shared>,
    ) -> Session {
        Session {
            wire: Wire::new(stream, script.cut),
            script,
            number,
            shared,
            listed: None,
            is_logged_in: false,
            transaction: None,
        }
    }

    /// Until either side ends it.
    pub(super) fn play(mut self) {
        // An error is the end of the connection, as the script or the peer wanted it.
        let _ = self.dialogue();
        self.wire.close();
    }

    fn dialogue(&mut self) -> io::Result<()> {
        if self.script.is_tls_at_once {
            self.handshake()?;
        }
        if !self
            .reply(Point::Greeting, "220 hop.test ESMTP")?
            .starts_with('2')
        {
            // RFC 5321 §3.1: behind a 554 the peer may only quit.
            self.command()?;
            return self.wire.send(b"221 bye\r\n");
        }
        loop {
            let line = self.command()?;
            let verb = line.split(' ').next().unwrap_or("").to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" => self.hello(Point::Ehlo, Dialect::Smtp)?,
                "HELO" => self.hello(Point::Helo, Dialect::Smtp)?,
                "LHLO" => self.hello(Point::Lhlo, Dialect::Lmtp)?,
                "STARTTLS" => self.starttls()?,
                "AUTH" => self.auth(&line)?,
                "MAIL" => self.mail(line)?,
                "RCPT" => self.rcpt(line)?,
                "DATA" => self.data()?,
                "BDAT" => self.bdat(&line)?,
                "RSET" => {
                    self.transaction = None;
                    self.reply(Point::Rset, "250 2.0.0 forgotten")?;
                }
                "NOOP" => self.say("250 2.0.0 still here")?,
                "QUIT" => {
                    let number = self.number;
                    self.shared
                        .book(|books| books.connections[number].has_quit = true);
                    self.reply(Point::Quit, "221 2.0.0 bye")?;
                    return Ok(());
                }
                _ => {
                    self.breach(&format!("an unknown command: {line:?}"));
                    self.say("500 5.5.1 unknown")?;
                }
            }
        }
    }

    /// The next command, written down.
    fn command(&mut self) -> io::Result<String> {
        let line = self.wire.line()?;
        if line.len() > LINE_OCTETS_MAX || line.contains(&b'\n') {
            self.breach(&format!("a line of {} octets", line.len()));
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        self.book(|books, number| books.connections[number].commands.push(line.clone()));
        Ok(line)
    }

    fn hello(&mut self, point: Point, dialect: Dialect) -> io::Result<()> {
        if dialect != self.script.dialect {
            self.breach(&format!(
                "{point:?} to a hop that speaks {:?}",
                self.script.dialect
            ));
        }
        self.must_wait(point);
        let is_inside = self.wire.tls().is_some();
        let listed = match point == Point::Helo {
            true => Vec::new(),
            false => self.script.listed(is_inside),
        };
        let mut lines: Vec<&str> = vec!["hop.test"];
        lines.extend(listed.iter().map(String::as_str));
        let last = lines.len() - 1;
        let lines: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(at, line)| format!("250{}{line}", if at == last { ' ' } else { '-' }))
            .collect();
        if self.reply(point, &lines.join("\r\n"))?.starts_with('2') {
            self.listed = Some(listed);
        }
        Ok(())
    }

    fn starttls(&mut self) -> io::Result<()> {
        self.must_wait(Point::StartTls);
        if !self.has_listed("STARTTLS") {
            self.breach("STARTTLS that was not listed");
        }
        if self
            .reply(Point::StartTls, "220 2.0.0 go on")?
            .starts_with("220")
        {
            self.handshake()?;
            // RFC 3207 §4.2: all that was known is forgotten.
            self.listed = None;
            self.transaction = None;
        }
        Ok(())
    }

    fn handshake(&mut self) -> io::Result<()> {
        if let Some(act) = self.script.departure(Point::Handshake, None) {
            // Its ClientHello first, so that it sees the answer and not a reset.
            self.wire.fill()?;
            self.perform(act, "")?;
            self.wire.drain();
            return Err(ErrorKind::ConnectionAborted.into());
        }
        let Some(acceptor) = self.script.acceptor.clone() else {
            return Err(ErrorKind::Unsupported.into());
        };
        if let Err(failure) = self.wire.secure(&acceptor) {
            self.book(|books, number| books.connections[number].handshake_failure = Some(failure));
            return Err(ErrorKind::ConnectionAborted.into());
        }
        let seen = self.wire.tls().map(|ssl| TlsSeen {
            version: ssl.version_str().to_owned(),
            sni: ssl.servername(NameType::HOST_NAME).map(str::to_owned),
            is_resumed: ssl.session_reused(),
            client: ssl.peer_certificate().and_then(|certificate| {
                let name = certificate.subject_name();
                let entry = name.entries_by_nid(Nid::COMMONNAME).next()?;
                entry.data().to_string().ok()
            }),
        });
        self.book(|books, number| books.connections[number].tls = seen);
        Ok(())
    }

    /// AUTH PLAIN and LOGIN, with and without an initial response (RFC 4954 §4, RFC 4616).
    fn auth(&mut self, line: &str) -> io::Result<()> {
        if !self.has_listed("AUTH") {
            self.breach("AUTH that was not listed");
        }
        let mut words = line.split(' ').skip(1);
        let mechanism = words.next().unwrap_or("").to_ascii_uppercase();
        let initial = words.next().map(str::to_owned);
        let (name, password) = match mechanism.as_str() {
            "PLAIN" => {
                let response = match initial {
                    Some(response) => response,
                    None => self.ask("334 ")?,
                };
                let plain = decoded(&response);
                let mut parts = plain.split('\0').skip(1).map(str::to_owned);
                (
                    parts.next().unwrap_or_default(),
                    parts.next().unwrap_or_default(),
                )
            }
            "LOGIN" => {
                let name = match initial {
                    Some(response) => response,
                    None => self.ask("334 VXNlcm5hbWU6")?,
                };
                (decoded(&name), decoded(&self.ask("334 UGFzc3dvcmQ6")?))
            }
            _ => return self.say("504 5.5.4 which?"),
        };
        let is_right = self.script.login == Some((name.clone(), password.clone()));
        let login = Login {
            mechanism,
            name,
            password,
            is_inside_tls: self.wire.tls().is_some(),
        };
        self.book(|books, number| books.connections[number].logins.push(login));
        let verdict = if is_right {
            "235 2.7.0 welcome"
        } else {
            "535 5.7.8 no"
        };
        self.is_logged_in = self.reply(Point::Auth, verdict)?.starts_with("235");
        Ok(())
    }

    fn ask(&mut self, challenge: &str) -> io::Result<String> {
        self.say(challenge)?;
        self.command()
    }

    fn mail(&mut self, line: String) -> io::Result<()> {
        if self.transaction.is_some() {
            self.breach("MAIL inside a transaction");
        }
        self.check_parameters(&line);
        let ordinary = match (&self.script.login, self.is_logged_in) {
            (Some(_), false) => "530 5.7.0 who are you?",
            (Some(_), true) | (None, _) => "250 2.1.0 sender taken",
        };
        if self.reply(Point::Mail, ordinary)?.starts_with('2') {
            self.transaction = Some(Transaction {
                mail: line,
                ..Transaction::default()
            });
        }
        Ok(())
    }

    fn rcpt(&mut self, line: String) -> io::Result<()> {
        self.check_parameters(&line);
        if self.transaction.is_none() {
            return self.out_of_order("503 5.5.1 MAIL first");
        }
        let mailbox = path_of(&line).to_owned();
        let reply = self.reply_to(Point::Rcpt, Some(&mailbox), "250 2.1.5 recipient taken")?;
        if let Some(transaction) = &mut self.transaction
            && reply.starts_with('2')
        {
            transaction.rcpt.push(line);
        }
        Ok(())
    }

    fn data(&mut self) -> io::Result<()> {
        let ordinary = match &self.transaction {
            None => return self.out_of_order("503 5.5.1 MAIL first"),
            Some(transaction) if transaction.rcpt.is_empty() => "554 5.5.1 no recipients",
            Some(_) => "354 go ahead",
        };
        self.must_wait(Point::Data);
        if !self.reply(Point::Data, ordinary)?.starts_with("354") {
            self.transaction = None;
            return Ok(());
        }
        let octets = self.wire.data()?;
        self.end_of_data(Way::Data, octets)
    }

    fn bdat(&mut self, line: &str) -> io::Result<()> {
        if !self.has_listed("CHUNKING") {
            self.breach("BDAT that was not listed");
        }
        let mut words = line.split(' ').skip(1);
        let count = words.next().and_then(|count| count.parse().ok());
        let Some(count) = count else {
            self.breach(&format!("no count: {line:?}"));
            return Err(ErrorKind::InvalidData.into());
        };
        let is_last = words
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
        let chunk = self.wire.take(count)?;
        match &mut self.transaction {
            None => return self.out_of_order("503 5.5.1 MAIL first"),
            Some(transaction) if transaction.rcpt.is_empty() => {
                return self.say("554 5.5.1 no recipients");
            }
            Some(transaction) => transaction.chunks.extend(chunk),
        }
        if !is_last {
            self.reply(Point::Bdat, "250 2.0.0 chunk taken")?;
            return Ok(());
        }
        let chunks = self
            .transaction
            .as_mut()
            .map(|all| std::mem::take(&mut all.chunks));
        self.end_of_data(Way::Bdat, chunks.unwrap_or_default())
    }

    fn end_of_data(&mut self, way: Way, octets: Vec<u8>) -> io::Result<()> {
        let Some(transaction) = self.transaction.take() else {
            return Ok(());
        };
        let mailboxes: Vec<String> = transaction
            .rcpt
            .iter()
            .map(|line| path_of(line).to_owned())
            .collect();
        let message = Message {
            connection: self.number,
            mail: transaction.mail,
            rcpt: transaction.rcpt,
            way,
            is_inside_tls: self.wire.tls().is_some(),
            octets,
            taken_for: Vec::new(),
        };
        let mut index = 0;
        self.book(|books, _| {
            index = books.messages.len();
            books.messages.push(message);
        });
        let ordinary = match mailboxes.is_empty() {
            true => "554 5.5.1 no recipients",
            false => "250 2.0.0 message taken",
        };
        match self.script.dialect {
            Dialect::Smtp => self.verdict(index, &mailboxes, None, ordinary),
            Dialect::Lmtp => mailboxes.iter().try_for_each(|mailbox| {
                let one = std::slice::from_ref(mailbox);
                self.verdict(index, one, Some(mailbox), ordinary)
            }),
        }
    }

    /// The reply to a message, for all its recipients or for one. It is in the books before the peer can know it.
    fn verdict(
        &mut self,
        message: usize,
        mailboxes: &[String],
        of: Option<&str>,
        ordinary: &str,
    ) -> io::Result<()> {
        let departure = self.script.departure(Point::EndOfData, of);
        let text = match &departure {
            Some(Act::Reply(text) | Act::Last(text)) => text.as_str(),
            Some(Act::Close | Act::Silence) => "",
            Some(Act::Hold(_) | Act::WhenMore) | None => ordinary,
        };
        if let Some(Act::Hold(gate)) = &departure {
            let gate = gate.clone();
            self.wait(|| gate.is_open())?;
        }
        if text.starts_with('2') {
            self.book(|books, _| {
                let taken_for = &mut books.messages[message].taken_for;
                taken_for.extend_from_slice(mailboxes);
            });
        }
        match departure {
            Some(act) => self.perform(act, ordinary).map(drop),
            None => self.say(ordinary),
        }
    }

    fn reply(&mut self, point: Point, ordinary: &str) -> io::Result<String> {
        self.reply_to(point, None, ordinary)
    }

    /// Does what the script says at this point, or the ordinary; what was said.
    fn reply_to(&mut self, point: Point, of: Option<&str>, ordinary: &str) -> io::Result<String> {
        match self.script.departure(point, of) {
            Some(act) => self.perform(act, ordinary),
            None => self.say(ordinary).map(|()| ordinary.to_owned()),
        }
    }

    fn perform(&mut self, act: Act, ordinary: &str) -> io::Result<String> {
        let text = match act {
            Act::Reply(text) => text,
            Act::Last(text) => {
                self.say(&text)?;
                return Err(ErrorKind::ConnectionAborted.into());
            }
            Act::Close => return Err(ErrorKind::ConnectionAborted.into()),
            Act::Silence => {
                self.wire.drain();
                return Err(ErrorKind::UnexpectedEof.into());
            }
            Act::Hold(gate) => {
                self.wait(|| gate.is_open())?;
                ordinary.to_owned()
            }
            Act::WhenMore => {
                if self.wire.unread() == 0 {
                    self.wire.fill()?;
                }
                ordinary.to_owned()
            }
        };
        self.say(&text)?;
        Ok(text)
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        let ahead = self.wire.unread();
        if ahead > 0 && self.listed.is_some() && !self.has_listed("PIPELINING") {
            self.breach(&format!(
                "{ahead} octets ahead of {text:?} without PIPELINING"
            ));
        }
        self.wire.send(format!("{text}\r\n").as_bytes())?;
        match text.starts_with("421") {
            true => Err(ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }

    fn out_of_order(&mut self, text: &str) -> io::Result<()> {
        if !self.has_listed("PIPELINING") {
            self.breach(&format!("out of order without PIPELINING: {text}"));
        }
        self.say(text)
    }

    /// Nothing may follow these commands before their reply (RFC 2920 §3.1).
    fn must_wait(&mut self, point: Point) {
        if self.wire.unread() > 0 {
            self.breach(&format!(
                "{} octets right behind {point:?}",
                self.wire.unread()
            ));
        }
    }

    /// Only what EHLO offered may be used.
    fn check_parameters(&mut self, line: &str) {
        for parameter in Message::parameters(line) {
            let keyword = parameter.split('=').next().unwrap_or(parameter);
            let extension = match (keyword.to_ascii_uppercase().as_str(), parameter) {
                ("BODY", "BODY=BINARYMIME") => "BINARYMIME",
                ("BODY", _) => "8BITMIME",
                ("SIZE", _) => "SIZE",
                ("SMTPUTF8", _) => "SMTPUTF8",
                ("RET" | "ENVID" | "NOTIFY" | "ORCPT", _) => "DSN",
                ("AUTH", _) => "AUTH",
                _ => "an extension that nobody knows",
            };
            if !self.has_listed(extension) {
                self.breach(&format!("{parameter:?}, but {extension} was not listed"));
            }
        }
        if !line.is_ascii() && !self.has_listed("SMTPUTF8") {
            self.breach(&format!("{line:?}, but SMTPUTF8 was not listed"));
        }
    }

    fn has_listed(&self, keyword: &str) -> bool {
        let is = |line: &String| line.split(' ').next() == Some(keyword);
        self.listed
            .as_ref()
            .is_some_and(|listed| listed.iter().any(is))
    }

    /// Polls, for a gate has many who wait behind it; the sink's end is the end of this too.
    fn wait(&self, is_open: impl Fn() -> bool) -> io::Result<()> {
        while !is_open() {
            if self.shared.is_over() {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn breach(&self, what: &str) {
        let text = format!("connection {}: {what}", self.number);
        self.book(|books, _| books.breaches.push(text));
    }

    fn book(&self, write: impl FnOnce(&mut Books, usize)) {
        self.shared.book(|books| write(books, self.number));
    }
}

fn decoded(base64: &str) -> String {
    let octets = BASE64.decode(base64).unwrap_or_default();
    String::from_utf8_lossy(&octets).into_owned()
}
