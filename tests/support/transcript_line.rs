//! A session at the end of an imaginary line: performs its effects, and holds what it commits
//! against the invariants that no transcript needs to spell out.
//!
//! Apart from the player of transcripts because the fuzzer drives the same [`Line`] with octets
//! that nobody wrote down.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ringpost::smtp::command::Verb;
use ringpost::smtp::data::{Budget, MailData};
use ringpost::smtp::envelope::Envelope;
use ringpost::smtp::message::{Origin, Security};
use ringpost::smtp::reply::{OUTPUT_OCTETS_MAX, Outcome, Output, Refusal};
use ringpost::smtp::reply::{TransactionRecord, Witness};
use ringpost::smtp::server::{
    Anonymous, AuthOffer, Channel, ChannelPolicy, CommitFailure, Connection, DEFAULT_GREETING,
    Effect, KnownRecipients, Limits, LocalDomains, Session, Settings, StartTls, TlsAvailability,
    Verdict,
};

use super::transcript::{Way, Wishes};

/// The host name of every transcript, and its local domain if it names none.
pub(crate) const HOSTNAME: &str = "mx.test";

/// The settings that a transcript wishes for.
pub(crate) fn settings(wishes: &Wishes) -> Settings {
    let policy = |auth, anonymous| ChannelPolicy {
        auth: if auth { AuthOffer::Yes } else { AuthOffer::No },
        anonymous: if anonymous {
            Anonymous::Yes
        } else {
            Anonymous::No
        },
    };
    let default = Limits::default();
    let mut domains = wishes.local_domains.iter().map(String::as_str);
    let first = domains.next().unwrap_or(HOSTNAME);
    Settings {
        hostname: String::from(HOSTNAME),
        greeting: wishes
            .greeting
            .clone()
            .unwrap_or_else(|| String::from(DEFAULT_GREETING)),
        starttls: wishes.starttls,
        tcp: policy(wishes.tcp_auth, wishes.tcp_anonymous),
        tls: policy(wishes.tls_auth, wishes.tls_anonymous),
        local_domains: LocalDomains::new(first, domains).unwrap(),
        trusted_nets: wishes
            .trusted_nets
            .iter()
            .map(|net| net.parse().unwrap())
            .collect(),
        recipients: if wishes.recipients.is_empty() {
            None
        } else {
            Some(KnownRecipients::parse(&wishes.recipients.join("\n")).unwrap())
        },
        stray_newline: wishes.stray_newline,
        limits: Limits {
            message_octets_max: wishes
                .message_octets_max
                .unwrap_or(default.message_octets_max),
            message_memory_octets_max: wishes
                .message_memory_octets_max
                .unwrap_or(default.message_memory_octets_max),
            recipients_max: wishes.recipients_max.unwrap_or(default.recipients_max),
            errors_max: wishes.errors_max.unwrap_or(default.errors_max),
            ..default
        },
        budget: Budget::new(wishes.mail_memory.unwrap_or(256 * 1024 * 1024)),
    }
}

/// Facts of a handshake that never was.
pub(crate) fn security() -> Security {
    Security {
        version: "TLSv1.3",
        cipher: "TLS_AES_256_GCM_SHA384".into(),
        bits: 256,
        ..Security::default()
    }
}

/// What was committed.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) origin: Origin,
    pub(crate) octets: Vec<u8>,
}

/// How the outside answers the session's effects.
pub(crate) trait Outside {
    fn verify(&mut self, name: &str, password: &[u8]) -> Verdict;
    fn store(&mut self) -> Option<CommitFailure>;
    fn commit(&mut self) -> Option<CommitFailure>;
}

/// The outside of a transcript: its users, and its list of commits that fail.
#[derive(Debug)]
pub(crate) struct Scripted {
    users: HashMap<String, String>,
    is_available: bool,
    commits: VecDeque<Option<CommitFailure>>,
    last_commit: Option<CommitFailure>,
}

impl Scripted {
    pub(crate) fn new(wishes: &Wishes) -> Scripted {
        Scripted {
            users: wishes.users.iter().cloned().collect(),
            is_available: !wishes.verify_unavailable,
            commits: wishes.commits.iter().copied().collect(),
            last_commit: None,
        }
    }
}

impl Outside for Scripted {
    fn verify(&mut self, name: &str, password: &[u8]) -> Verdict {
        let is_good = self
            .users
            .get(name)
            .is_some_and(|known| known.as_bytes() == password);
        match (self.is_available, is_good) {
            (false, _) => Verdict::Unavailable,
            (true, true) => Verdict::Accepted,
            (true, false) => Verdict::Refused,
        }
    }

    fn store(&mut self) -> Option<CommitFailure> {
        None
    }

    fn commit(&mut self) -> Option<CommitFailure> {
        // The last word holds for all that follow.
        if let Some(next) = self.commits.pop_front() {
            self.last_commit = next;
        }
        self.last_commit
    }
}

/// Counts what the session reports, to hold it against what it says.
#[derive(Debug, Default)]
struct Told {
    replies: usize,
    codes: Vec<u16>,
    refusals: Vec<Refusal>,
    accepted: usize,
    transactions: usize,
}

#[derive(Debug, Default)]
struct Books(RefCell<Told>);

impl Witness for Books {
    fn replied(&self, _: Verb, code: u16, refusal: Option<Refusal>) {
        let mut told = self.0.borrow_mut();
        told.replies += 1;
        told.codes.push(code);
        told.refusals.extend(refusal);
        if let Some(refusal) = refusal {
            assert!(code >= 400, "{refusal:?} with {code}");
        } else {
            assert!(code < 500, "{code} without a refusal");
        }
    }

    fn transaction(&self, record: &TransactionRecord<'_>) {
        let mut told = self.0.borrow_mut();
        told.transactions += 1;
        told.accepted += usize::from(matches!(record.outcome, Outcome::Accepted(_)));
        assert!(record.started <= record.ended, "a transaction back in time");
    }

    fn ended(&self, refusal: Refusal) {
        self.0.borrow_mut().refusals.push(refusal);
    }
}

/// A session at the end of an imaginary line.
pub(crate) struct Line<O> {
    session: Session,
    settings: Arc<Settings>,
    pub(crate) outside: O,
    pub(crate) now: Instant,
    told: Books,
    /// What came in clear while a handshake was due counts as an attack.
    is_securing: bool,
    is_secured: bool,
    is_closed: bool,
    pub(crate) is_lost: bool,
    authenticated: HashSet<String>,
    /// What was taken on this channel since the last message or handshake: all that the next
    /// envelope can come from.
    said: Vec<u8>,
    /// What was put away of the message under way.
    stored: Vec<u8>,
    pub(crate) replies: Vec<u8>,
    pub(crate) committed: Vec<Committed>,
    accepted: usize,
}

impl<O: Outside> Line<O> {
    /// Opens a connection. `way` tells what it comes through; for [`Way::StartTls`] see
    /// [`Line::start_tls`].
    pub(crate) fn open(wishes: &Wishes, way: Way, outside: O, now: Instant) -> Line<O> {
        let settings = Arc::new(settings(wishes));
        let peer = wishes.peer.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let connection = Connection {
            peer: SocketAddr::new(peer, 40_000),
            local: SocketAddr::from(([127, 0, 0, 1], 25)),
            channel: match way {
                Way::Clear | Way::StartTls => Channel::Clear,
                Way::TlsPort => Channel::Tls(security()),
            },
        };
        let mut session = Session::new(Arc::clone(&settings), connection, now);
        if wishes.tls_unavailable {
            session.set_tls_availability(TlsAvailability::Unavailable);
        }
        let mut line = Line {
            session,
            settings,
            outside,
            now,
            told: Books::default(),
            is_securing: false,
            is_secured: way == Way::TlsPort,
            is_closed: false,
            is_lost: false,
            authenticated: HashSet::new(),
            said: Vec::new(),
            stored: Vec::new(),
            replies: Vec::new(),
            committed: Vec::new(),
            accepted: 0,
        };
        line.with_output(|session, now, out| session.greet(now, out));
        line
    }

    /// Goes through EHLO, STARTTLS and a handshake; forgets the replies to them.
    pub(crate) fn start_tls(&mut self) -> Result<(), String> {
        self.send(b"EHLO before.tls.example\r\n")?;
        self.send(b"STARTTLS\r\n")?;
        self.handshake()?;
        self.replies.clear();
        Ok(())
    }

    /// Sends octets in one piece. A session that does not get on with its input is an error.
    pub(crate) fn send(&mut self, octets: &[u8]) -> Result<(), String> {
        if self.is_closed || octets.is_empty() {
            return Ok(());
        }
        if self.is_securing {
            return self.inject();
        }
        let mut input = octets;
        loop {
            let before = (input.len(), self.replies.len(), self.committed.len());
            let (mut effect, waiting) = self.with_output(|session, now, out| {
                let effect = session.receive(now, &mut input, out);
                (effect, out.len())
            });
            self.clean_up()?;
            let taken = before.0 - input.len();
            self.said
                .extend_from_slice(&octets[octets.len() - before.0..][..taken]);
            loop {
                match effect {
                    Effect::Input => {
                        if self.session.is_closing() {
                            // The next receive is to say Close.
                            break;
                        }
                        if input.is_empty() {
                            return Ok(());
                        }
                        if !self.session.wants_input() {
                            return Err(String::from("wants no input, and no effect either"));
                        }
                        if waiting <= OUTPUT_OCTETS_MAX
                            && before == (input.len(), self.replies.len(), self.committed.len())
                        {
                            return Err(format!("stands still before {} octets", input.len()));
                        }
                        break;
                    }
                    Effect::Secure => {
                        if self.is_secured {
                            return Err(String::from("a handshake inside TLS"));
                        }
                        self.is_securing = true;
                        if !input.is_empty() {
                            return self.inject();
                        }
                        return Ok(());
                    }
                    Effect::Verify(credentials) => {
                        self.may_verify()?;
                        let name = credentials.name.clone();
                        let verdict = self.outside.verify(&name, credentials.password.octets());
                        if verdict == Verdict::Accepted {
                            self.authenticated.insert(name);
                        }
                        effect = self
                            .with_output(|session, now, out| session.verified(now, verdict, out));
                    }
                    Effect::Store(part) => effect = self.store(&part)?,
                    Effect::Commit(message) => {
                        let failure = self.outside.commit();
                        let id = format!("Q{}", self.committed.len());
                        if message.stored_octets != self.stored.len() as u64 {
                            return Err(String::from("more or less was put away than it says"));
                        }
                        self.put_away(&message.data)?;
                        let octets = mem::take(&mut self.stored);
                        if octets.len() as u64 != message.octets() {
                            return Err(String::from("a message of another length than it says"));
                        }
                        let committed = Committed {
                            envelope: Arc::clone(&message.envelope),
                            origin: message.origin.clone(),
                            octets,
                        };
                        drop(message);
                        self.may_commit(&committed)?;
                        self.committed.push(committed);
                        self.said.clear();
                        self.accepted += usize::from(failure.is_none());
                        effect = self.with_output(|session, now, out| {
                            let outcome = match failure {
                                None => Ok(id.as_str()),
                                Some(failure) => Err(failure),
                            };
                            session.committed(now, outcome, out)
                        });
                        self.clean_up()?;
                    }
                    Effect::Close => {
                        self.is_closed = true;
                        if !self.session.is_closing() {
                            return Err(String::from("Close, and not closing"));
                        }
                        // Said to `verified` or `committed`, it leaves what nobody will run.
                        let mut effect = Effect::Close;
                        if !input.is_empty() {
                            effect = self.with_output(|session, now, out| {
                                session.receive(now, &mut input, out)
                            });
                        }
                        if !input.is_empty() || !matches!(effect, Effect::Close) {
                            return Err(String::from("Close, and input left to be run"));
                        }
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Puts a part of the message under way away, if the outside likes.
    fn store(&mut self, part: &MailData) -> Result<Effect, String> {
        if self.session.wants_input() || part.is_empty() {
            return Err(String::from("nothing to store, or not waited for"));
        }
        let outcome = match self.outside.store() {
            None => Ok(self.put_away(part)?),
            Some(failure) => Err(failure),
        };
        let before = self.replies.len();
        let effect = self.with_output(|session, now, out| session.stored(now, outcome, out));
        if self.replies.len() != before {
            return Err(String::from("a reply to a message that has not ended"));
        }
        if outcome.is_ok() && self.session.stored_octets() != self.stored.len() as u64 {
            return Err(String::from("a part was put away and is of no use"));
        }
        self.clean_up()?;
        Ok(effect)
    }

    /// Adds `data` to what was put away, and holds its length and checksum against it.
    fn put_away(&mut self, data: &MailData) -> Result<(), String> {
        let before = self.stored.len();
        for slice in data.slices() {
            self.stored.extend_from_slice(slice);
        }
        if (self.stored.len() - before) as u64 != data.len() {
            return Err(String::from("mail data of another length than it says"));
        }
        if crc32c::crc32c(&self.stored) != data.crc32c() {
            return Err(String::from("mail data with another checksum"));
        }
        Ok(())
    }

    /// Removes what was put away and is of no use any more. Nothing else may be missing.
    fn clean_up(&mut self) -> Result<(), String> {
        match self.session.stored_octets() {
            0 => self.stored.clear(),
            octets if octets == self.stored.len() as u64 => {}
            octets => {
                let stored = self.stored.len();
                return Err(format!("{stored} octets put away, {octets} by its word"));
            }
        }
        Ok(())
    }

    /// Octets in clear where a handshake was due.
    fn inject(&mut self) -> Result<(), String> {
        let before = self.replies.len();
        self.with_output(|session, now, out| session.injected(now, out));
        if self.replies.len() != before {
            return Err(String::from("a reply to an injection"));
        }
        if !self.told.0.borrow().refusals.contains(&Refusal::Injection) {
            return Err(String::from("an injection that nobody counts"));
        }
        self.is_securing = false;
        self.closes()
    }

    /// The handshake after STARTTLS.
    pub(crate) fn handshake(&mut self) -> Result<(), String> {
        if !self.is_securing {
            return Err(String::from("the session wants no handshake here"));
        }
        self.is_securing = false;
        self.is_secured = true;
        self.authenticated.clear();
        self.said.clear();
        self.session.secured(self.now, security());
        Ok(())
    }

    /// Nothing comes until the deadline.
    pub(crate) fn expire(&mut self) -> Result<(), String> {
        self.now = self.session.deadline();
        self.with_output(|session, now, out| session.expired(now, out));
        self.look_for_close()
    }

    /// The server is going down.
    pub(crate) fn drain(&mut self) -> Result<(), String> {
        let gone = self.with_output(|session, now, out| session.drain(now, out));
        if gone != self.session.is_closing() {
            return Err(String::from("drain says one thing and is_closing another"));
        }
        self.look_for_close()
    }

    /// The peer hangs up, unless the session did before.
    pub(crate) fn hang_up(&mut self) {
        if !self.is_closed {
            self.is_lost = true;
            self.with_output(|session, now, out| session.lost(now, out));
        }
    }

    /// Whether the connection is over.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether a handshake is due.
    pub(crate) fn is_securing(&self) -> bool {
        self.is_securing
    }

    /// Hangs up and holds the books against each other: replies told and written, messages
    /// accepted, memory given back. Gives the replies and what was committed.
    pub(crate) fn close(mut self) -> Result<(Vec<u8>, Vec<Committed>), String> {
        self.hang_up();
        let told = self.told.0.into_inner();
        if told.accepted != self.accepted {
            return Err(format!(
                "{} messages told as accepted, {} were",
                told.accepted, self.accepted
            ));
        }
        if told.transactions < self.committed.len() {
            return Err(format!(
                "{} transactions told, {} messages committed",
                told.transactions,
                self.committed.len()
            ));
        }
        if self.session.stored_octets() != 0 {
            return Err(String::from("closed, and parts put away are still of use"));
        }
        drop(self.session);
        let held = self.settings.budget.held();
        if held != 0 {
            return Err(format!("{held} octets of mail data are never given back"));
        }
        Ok((self.replies, self.committed))
    }

    fn look_for_close(&mut self) -> Result<(), String> {
        if self.session.is_closing() {
            self.closes()
        } else {
            Ok(())
        }
    }

    /// The session is over: whatever it is asked, it says so.
    fn closes(&mut self) -> Result<(), String> {
        let mut input: &[u8] = b"NOOP\r\n";
        let before = self.replies.len();
        let effect = self.with_output(|session, now, out| session.receive(now, &mut input, out));
        if !matches!(effect, Effect::Close) || self.replies.len() != before {
            return Err(format!("closing, and {effect:?} to a NOOP"));
        }
        self.is_closed = true;
        Ok(())
    }

    fn with_output<T>(
        &mut self,
        call: impl FnOnce(&mut Session, Instant, &mut Output<'_>) -> T,
    ) -> T {
        let told_before = self.told.0.borrow().replies;
        let mut out = Output::new(Vec::new(), &self.told);
        let value = call(&mut self.session, self.now, &mut out);
        let octets = out.into_octets();
        let written = octets
            .split_inclusive(|octet| *octet == b'\n')
            .filter(|line| line.get(3) == Some(&b' '))
            .count();
        let told = self.told.0.borrow().replies - told_before;
        assert_eq!(written, told, "written and told: {}", octets.escape_ascii());
        assert!(octets.is_empty() || octets.ends_with(b"\r\n"));
        self.replies.extend_from_slice(&octets);
        value
    }

    /// Port policy: who may be asked for a password.
    fn may_verify(&self) -> Result<(), String> {
        let settings = &self.settings;
        let offer = if self.is_secured {
            settings.tls.auth
        } else if settings.starttls == StartTls::Required {
            AuthOffer::No
        } else {
            settings.tcp.auth
        };
        match offer {
            AuthOffer::Yes => Ok(()),
            AuthOffer::No => Err(String::from("credentials taken where AUTH is not offered")),
        }
    }

    /// What must hold of every message that is committed, whatever was said before.
    fn may_commit(&self, committed: &Committed) -> Result<(), String> {
        let settings = &self.settings;
        let Committed {
            envelope,
            origin,
            octets,
        } = committed;
        if origin.security.is_some() != self.is_secured {
            return Err(String::from("the trace is wrong about TLS"));
        }
        if !self.is_secured && settings.starttls == StartTls::Required {
            return Err(String::from("accepted in clear under starttls required"));
        }
        let policy = if self.is_secured {
            settings.tls
        } else {
            settings.tcp
        };
        match &origin.authenticated {
            Some(name) if !self.authenticated.contains(&**name) => {
                return Err(format!("{name} never proved to be so here"));
            }
            None if policy.anonymous == Anonymous::No => {
                return Err(String::from("accepted from an anonymous client"));
            }
            Some(_) | None => {}
        }
        if envelope.recipients.is_empty() {
            return Err(String::from("no recipients"));
        }
        for address in envelope
            .recipients
            .iter()
            .map(|to| &*to.as_given)
            .filter(|to| *to != "postmaster")
            .chain(envelope.reverse_path.as_deref())
        {
            if memchr::memmem::find(&self.said, address.as_bytes()).is_none() {
                return Err(format!("{address} is of an earlier envelope"));
            }
        }
        if envelope.recipients.len() > settings.limits.recipients_max {
            return Err(String::from("too many recipients"));
        }
        if octets.len() as u64 > settings.limits.message_octets_max {
            return Err(String::from("too large"));
        }
        let may_relay = origin.authenticated.is_some() || settings.trusts(origin.peer.ip());
        for recipient in &envelope.recipients {
            let is_local = settings.local_domains.contains(&recipient.domain);
            if !is_local && !may_relay {
                return Err(format!("relays to {} for a stranger", recipient.as_given));
            }
            if let Some(known) = &settings.recipients
                && is_local
                && !recipient.local_part.eq_ignore_ascii_case("postmaster")
                && !known.contains(&recipient.local_part, &recipient.domain)
            {
                return Err(format!("{} is unknown", recipient.as_given));
            }
        }
        Ok(())
    }
}

/// Mostly a few octets, now and then many.
pub(crate) fn piece_octets(random: &mut fastrand::Rng, octets_max: usize) -> usize {
    let octets = match random.u8(..8) {
        0 => 1,
        1..4 => random.usize(1..6),
        4..7 => random.usize(1..80),
        _ => random.usize(1..9000),
    };
    octets.min(octets_max)
}

/// Octets for a reader, the midst of many left out.
pub(crate) fn shortened(octets: &[u8]) -> String {
    const OCTETS_SHOWN: usize = 300;
    if octets.len() <= 2 * OCTETS_SHOWN {
        return octets.escape_ascii().to_string();
    }
    format!(
        "{} … {} octets … {}",
        octets[..OCTETS_SHOWN].escape_ascii(),
        octets.len() - 2 * OCTETS_SHOWN,
        octets[octets.len() - OCTETS_SHOWN..].escape_ascii()
    )
}
