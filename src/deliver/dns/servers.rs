//! The DNS servers: one question at a time, asked of each until one answers.
//!
//! Apart from what is made of the answers because here is decided what is one. The library would ask several servers
//! by itself, but takes the first SERVFAIL or REFUSED for the answer, and a retry goes to the same server again: one that
//! is broken in a moment would hide one that works. So each server has a resolver of its own, and they are asked in turn.
//! Invariants:
//! - An answer is records, "no such name" or "no such records"; everything else is trouble, told in one line.
//! - The server that answered last is asked first: one that is silent costs its timeout once, not every time.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, Record, RecordType};

/// The servers, each with the answers it gave.
pub(super) struct Servers {
    resolvers: Vec<TokioResolver>,
    /// The index of the one that answered last.
    first: Cell<usize>,
}

/// What DNS says to a question.
#[derive(Debug)]
pub(super) enum Answer {
    /// These, with the CNAME records on the way there.
    Records(Vec<Record>),
    /// NXDOMAIN.
    NoName,
    /// The name exists, without records of that type.
    NoRecords,
}

/// Why there is no answer, in one line without control characters.
#[derive(Debug)]
pub(super) struct Trouble(Box<str>);

impl Servers {
    /// `hosts`: whether `/etc/hosts` is looked at first.
    pub(super) fn new(
        servers: Vec<NameServerConfig>,
        hosts: ResolveHosts,
        query_max: Duration,
    ) -> Result<Servers, NetError> {
        let resolver = |server| {
            let config = ResolverConfig::from_name_servers(vec![server]);
            let provider = TokioRuntimeProvider::default();
            let mut builder = TokioResolver::builder_with_config(config, provider);
            let options = builder.options_mut();
            options.timeout = query_max;
            options.attempts = 0; // they are `ask`'s
            options.use_hosts_file = hosts;
            options.max_active_requests = QUESTIONS_MAX;
            options.cache_size = ANSWERS_MAX;
            options.positive_max_ttl = Some(POSITIVE_TTL_MAX);
            options.negative_max_ttl = Some(NEGATIVE_TTL_MAX);
            builder.build()
        };
        let servers = servers.into_iter().take(SERVERS_MAX);
        Ok(Servers {
            resolvers: servers.map(resolver).collect::<Result<_, _>>()?,
            first: Cell::new(0),
        })
    }

    /// Asks for the records of one type that an absolute name has, or the name that it is an alias of.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Result<Answer, Trouble> {
        let mut trouble = Trouble::new("there is no DNS server");
        let turns = self.resolvers.iter().enumerate().cycle();
        let tries = self.resolvers.len().max(TRIES_MIN);
        for (index, resolver) in turns.skip(self.first.get()).take(tries) {
            let answer = match resolver.lookup(name.clone(), kind).await {
                Ok(lookup) => Ok(Answer::Records(lookup.answers().to_vec())),
                Err(error) => negative(&error),
            };
            match answer {
                Ok(answer) => {
                    self.first.set(index);
                    return Ok(answer);
                }
                Err(met) => trouble = met,
            }
        }
        Err(trouble)
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Servers");
        shown
            .field("count", &self.resolvers.len())
            .field("first", &self.first)
            .finish()
    }
}

impl Trouble {
    pub(super) fn new(text: impl AsRef<str>) -> Trouble {
        let visible = |character: char| match character.is_control() {
            true => char::REPLACEMENT_CHARACTER,
            false => character,
        };
        let text: String = text.as_ref().chars().map(visible).collect();
        Trouble(text.into())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The answers among the library's errors (RFC 2308 §2).
fn negative(error: &NetError) -> Result<Answer, Trouble> {
    if let NetError::Dns(DnsError::NoRecordsFound(nothing)) = error {
        // Authority without SOA is a referral (RFC 2308 §2.2): the server does not know, and would not ask for us.
        let referred = nothing.ns.is_some() && nothing.soa.is_none();
        return match (nothing.response_code, referred) {
            (ResponseCode::NXDomain, _) => Ok(Answer::NoName),
            (ResponseCode::NoError, true) => {
                Err(Trouble::new("the DNS server only refers to others"))
            }
            (ResponseCode::NoError, false) => Ok(Answer::NoRecords),
            (code, _) => Err(refusal(code)),
        };
    }
    Err(if let NetError::Dns(DnsError::ResponseCode(code)) = error {
        refusal(*code)
    } else if let NetError::Timeout = error {
        Trouble::new("the DNS server does not answer")
    } else if let NetError::Io(error) = error {
        Trouble::new(format!("cannot ask the DNS server: {error}"))
    } else {
        Trouble::new(error.to_string())
    })
}

/// An answer that says nothing of the name, by what operators call it.
fn refusal(code: ResponseCode) -> Trouble {
    let code = if code == ResponseCode::ServFail {
        "SERVFAIL"
    } else if code == ResponseCode::Refused {
        "REFUSED"
    } else {
        code.to_str()
    };
    Trouble::new(format!("the DNS server answers {code}"))
}

/// Datagrams get lost: each question is asked twice at least, and once of each server.
const TRIES_MIN: usize = 2;

/// As many as resolv.conf(5) has.
const SERVERS_MAX: usize = 3;

/// Questions at a time over one TCP connection, behind which the library answers "busy": the hosts of one domain alone
/// can be 40.
const QUESTIONS_MAX: usize = 1024;

/// Answers that are remembered of each server: a few KiB each at the worst, half a KiB usually. A busy sender has fewer
/// domains than that in a TTL.
const ANSWERS_MAX: u64 = 4096;

/// A day: what is set to a week by mistake need not stay so long.
const POSITIVE_TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// RFC 2308 §5 takes one to three hours for sensible. A domain that is just being set up should not bounce so long.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(5 * 60);
