//! What a next hop does: what it lists, where it departs from the ordinary, and its TLS.
//!
//! A script reads as a table of departures; what it does not name goes well:
//! ```ignore
//! Script::smtp()
//!     .without("PIPELINING")
//!     .at(Rcpt.of("b@x.test"), "550 5.1.1 nobody")   // this recipient, always
//!     .at(EndOfData.first(2), "451 4.3.0 later")     // twice, over all connections that play it
//!     .at(Quit, Close)
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use openssl::ssl::{
    SslAcceptor, SslAcceptorBuilder, SslMethod, SslOptions, SslSessionCacheMode, SslVerifyMode,
    SslVersion,
};

use crate::support::certificates::Pair;

/// Where in the dialogue a script can depart from what goes well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    Greeting,
    Ehlo,
    Helo,
    Lhlo,
    StartTls,
    /// A reply here is what stands in place of a ServerHello.
    Handshake,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// A chunk that is not the last.
    Bdat,
    /// Behind the final dot, or the last chunk. In LMTP once for each recipient that was taken.
    EndOfData,
    Rset,
    Quit,
}

/// What is done at a point in place of the ordinary reply.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// This is said: lines without the last CR LF. A 421 ends the connection.
    Reply(String),
    /// The same, and the connection is closed.
    Last(String),
    /// The connection is closed.
    Close,
    /// Nothing is said any more.
    Silence,
    /// Nothing is said until the test opens the gate; then the ordinary reply.
    Hold(Gate),
    /// The ordinary reply, but not before the peer has sent more: one that does not pipeline waits in vain.
    WhenMore,
}

impl From<&str> for Act {
    fn from(line: &str) -> Act {
        Act::Reply(line.to_owned())
    }
}

impl From<String> for Act {
    fn from(lines: String) -> Act {
        Act::Reply(lines)
    }
}

/// A point, perhaps of one recipient only, perhaps not for ever.
#[derive(Clone, Debug)]
pub(crate) struct When {
    point: Point,
    mailbox: Option<String>,
    times_max: usize,
}

impl Point {
    /// Only for this mailbox: at `Rcpt`, and at `EndOfData` in LMTP.
    pub(crate) fn of(self, mailbox: &str) -> When {
        When {
            mailbox: Some(mailbox.to_owned()),
            ..self.into()
        }
    }

    /// Only the first times, counted over all connections.
    pub(crate) fn first(self, times: usize) -> When {
        When::from(self).first(times)
    }
}

impl When {
    pub(crate) fn first(self, times_max: usize) -> When {
        When { times_max, ..self }
    }
}

impl From<Point> for When {
    fn from(point: Point) -> When {
        When {
            point,
            mailbox: None,
            times_max: usize::MAX,
        }
    }
}

/// Keeps replies back until the test opens it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// SMTP, or its local kin (RFC 2033).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Smtp,
    Lmtp,
}

/// How replies leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Whole,
    /// Each octet by itself.
    Octets,
}

/// One next hop's behaviour. A clone shares the counts of `first`.
#[derive(Clone)]
pub(crate) struct Script {
    pub(super) dialect: Dialect,
    keywords: Vec<String>,
    keywords_inside: Option<Vec<String>>,
    rules: Vec<Arc<Rule>>,
    pub(super) cut: Cut,
    pub(super) acceptor: Option<SslAcceptor>,
    pub(super) is_tls_at_once: bool,
    pub(super) login: Option<(String, String)>,
}

struct Rule {
    when: When,
    times: AtomicUsize,
    act: Act,
}

impl Script {
    /// Takes everything, and lists all that a sender can profit from but STARTTLS and AUTH.
    pub(crate) fn smtp() -> Script {
        let keywords = [
            "PIPELINING",
            "SIZE",
            "8BITMIME",
            "SMTPUTF8",
            "CHUNKING",
            "DSN",
            "ENHANCEDSTATUSCODES",
        ];
        Script {
            dialect: Dialect::Smtp,
            keywords: keywords.map(str::to_owned).into(),
            keywords_inside: None,
            rules: Vec::new(),
            cut: Cut::Whole,
            acceptor: None,
            is_tls_at_once: false,
            login: None,
        }
    }

    /// The same in LMTP.
    pub(crate) fn lmtp() -> Script {
        Script {
            dialect: Dialect::Lmtp,
            ..Script::smtp()
        }
    }

    /// A host of 1982: it lists nothing.
    pub(crate) fn bare() -> Script {
        Script {
            keywords: Vec::new(),
            ..Script::smtp()
        }
    }

    /// Lists this too, in place of what has the same keyword.
    pub(crate) fn with(self, line: &str) -> Script {
        let mut script = self.without(keyword_of(line));
        script.keywords.push(line.to_owned());
        script
    }

    pub(crate) fn without(mut self, keyword: &str) -> Script {
        self.keywords.retain(|line| keyword_of(line) != keyword);
        self
    }

    /// What is listed inside TLS, if it is not the same.
    pub(crate) fn inside(mut self, lines: &[&str]) -> Script {
        self.keywords_inside = Some(lines.iter().map(|line| (*line).to_owned()).collect());
        self
    }

    /// Departs from the ordinary. The first rule that fits wins.
    pub(crate) fn at(mut self, when: impl Into<When>, act: impl Into<Act>) -> Script {
        self.rules.push(Arc::new(Rule {
            when: when.into(),
            times: AtomicUsize::new(0),
            act: act.into(),
        }));
        self
    }

    /// Replies leave octet by octet.
    pub(crate) fn cut(mut self) -> Script {
        self.cut = Cut::Octets;
        self
    }

    /// Offers STARTTLS.
    pub(crate) fn tls(mut self, tls: Tls) -> Script {
        self.acceptor = Some(tls.builder.build());
        self
    }

    /// Speaks TLS from the first octet.
    pub(crate) fn tls_at_once(mut self, tls: Tls) -> Script {
        self.is_tls_at_once = true;
        self.tls(tls)
    }

    /// Lists `AUTH PLAIN LOGIN`, in clear too, and takes mail only behind this login.
    pub(crate) fn auth(self, name: &str, password: &str) -> Script {
        let mut script = self.with("AUTH PLAIN LOGIN");
        script.login = Some((name.to_owned(), password.to_owned()));
        script
    }

    /// The lines of EHLO's reply behind the first.
    pub(super) fn listed(&self, is_inside: bool) -> Vec<String> {
        let mut lines = match &self.keywords_inside {
            Some(lines) if is_inside => lines.clone(),
            Some(_) | None => self.keywords.clone(),
        };
        if self.acceptor.is_some() && !is_inside {
            lines.push("STARTTLS".to_owned());
        }
        lines
    }

    /// What is to be done here, if it is not the ordinary; counts it.
    pub(super) fn departure(&self, point: Point, mailbox: Option<&str>) -> Option<Act> {
        let mut fitting = self.rules.iter().filter(|rule| {
            let is_mailbox = |wanted: &String| {
                mailbox.is_some_and(|mailbox| mailbox.eq_ignore_ascii_case(wanted))
            };
            rule.when.point == point && rule.when.mailbox.as_ref().is_none_or(is_mailbox)
        });
        let rule =
            fitting.find(|rule| rule.times.fetch_add(1, Ordering::SeqCst) < rule.when.times_max)?;
        Some(rule.act.clone())
    }
}

impl From<Script> for Vec<Script> {
    fn from(script: Script) -> Vec<Script> {
        vec![script]
    }
}

/// A reply of so many lines.
pub(crate) fn long_reply(code: u16, lines: usize) -> String {
    let lines: Vec<String> = (1..=lines)
        .map(|line| {
            let follows = if line == lines { ' ' } else { '-' };
            format!("{code}{follows}line {line} of {lines}")
        })
        .collect();
    lines.join("\r\n")
}

/// TLS as a next hop has it: 1.2 and newer, with tickets, and without a wish to see certificates.
pub(crate) struct Tls {
    builder: SslAcceptorBuilder,
}

impl Tls {
    pub(crate) fn with(pair: &Pair) -> Tls {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        builder.set_certificate(&pair.certificate).unwrap();
        builder.set_private_key(&pair.key).unwrap();
        // Without it a session that saw a client's certificate is never resumed.
        builder.set_session_id_context(b"sink").unwrap();
        Tls { builder }
    }

    /// Nothing newer than this, and this however old.
    pub(crate) fn at_most(mut self, version: SslVersion) -> Tls {
        let old = [SslVersion::TLS1, SslVersion::TLS1_1].contains(&version);
        if old {
            let refusals = SslOptions::NO_TLSV1 | SslOptions::NO_TLSV1_1;
            self.builder.clear_options(refusals);
            self.builder.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
            self.builder.set_min_proto_version(Some(version)).unwrap();
        }
        self.builder.set_max_proto_version(Some(version)).unwrap();
        self
    }

    /// Asks for a certificate, and takes any or none.
    pub(crate) fn asking(mut self) -> Tls {
        self.builder
            .set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        self
    }

    /// Gives out nothing that a session could be resumed by.
    pub(crate) fn forgetful(mut self) -> Tls {
        self.builder.set_options(SslOptions::NO_TICKET);
        self.builder
            .set_session_cache_mode(SslSessionCacheMode::OFF);
        self.builder.set_num_tickets(0).unwrap();
        self
    }
}

fn keyword_of(line: &str) -> &str {
    line.split(' ').next().unwrap_or(line)
}
