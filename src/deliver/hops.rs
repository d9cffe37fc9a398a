//! Next hops: finds them, keeps connections to them, and passes messages on.
//!
//! ```text
//!  job ─▶ an idle connection? ──▶ send
//!             │ no                  ▲
//!             ▼                     │
//!          slot ─▶ names, addresses ─▶ connect, one after the other, until one is ready
//! ```
//!
//! One connection carries one message at a time, and is kept a while for the next. What is decided here is only what
//! a connection comes to; what becomes of a recipient then is the queue's business.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use self::endpoint::{Endpoint, Place};
use self::hosts::Hosts;
use self::link::{Link, LinkError, Opening, Security, Sending};
pub use self::meters::HopMeters;
use self::meters::Secured;
use self::pool::{Idle, Pool, Waited, Wants};
use self::word::{failure_of, is_lost, temporary, verdict_of};
use super::attempt::{Left, Tried};
use super::content::Source;
use super::destination::Destination;
use super::dns::{Dns, DnsError, Ourselves};
use super::ending::Ending;
use super::queue::News;
use super::settings::{DeliverySettings, OutTls};
use super::slots::{Slot, Slots};
use super::target::{Host, Target};
use super::verdict::{Failure, Verdict};
use crate::smtp::client::{
    self, Dialect, Ignored, RecipientOutcome, Settings, StartTls, Timeouts, Transaction,
    TransactionRecipient,
};
use crate::smtp::status::{Class, Status};
use crate::spool::ReadError;
use crate::tls::{ClientContext, ClientMaterial, TlsError};

mod endpoint;
mod hosts;
mod link;
mod meters;
mod pool;
mod word;

/// What connections to next hops are made with.
#[derive(Clone)]
pub struct HopsPlan {
    /// How many there may be.
    pub slots: Arc<Slots>,
    /// What is counted.
    pub meters: Arc<HopMeters>,
    /// What is shown and verified; a reload replaces it for connections to come.
    pub material: Arc<ArcSwap<ClientMaterial>>,
    /// Who we are, so that nothing is sent to ourselves.
    pub ourselves: Ourselves,
}

/// Why next hops cannot be reached at all.
#[derive(Debug, thiserror::Error)]
pub enum HopsError {
    /// Names cannot be looked up.
    #[error("{0}")]
    Dns(#[from] DnsError),
    /// There can be no TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The next hops of a shard.
pub(super) struct Hops {
    settings: Arc<DeliverySettings>,
    ending: Rc<Ending>,
    meters: Arc<HopMeters>,
    material: Arc<ArcSwap<ClientMaterial>>,
    /// Made of the material that stands beside it.
    context: RefCell<(Arc<ClientMaterial>, Rc<ClientContext>)>,
    /// None where no target is a name.
    dns: Option<Dns>,
    pool: Pool,
}

/// A message for recipients of one destination.
pub(super) struct Job<'a> {
    pub(super) destination: &'a Destination,
    pub(super) target: &'a Target,
    /// The first recipient's.
    pub(super) domain: &'a str,
    /// Places in the envelope.
    pub(super) recipients: Vec<usize>,
}

/// Why no connection came about.
enum Unopened {
    /// Of the hosts of the destination, none.
    Failed(Failure),
    /// There are as many connections as there may be.
    Crowded,
    /// The server goes down.
    Ending,
}

impl Hops {
    pub(super) fn new(
        plan: HopsPlan,
        settings: Arc<DeliverySettings>,
        ending: Rc<Ending>,
    ) -> Result<Hops, HopsError> {
        let HopsPlan {
            slots,
            meters,
            material,
            ourselves,
        } = plan;
        let current = material.load_full();
        let context = Rc::new(ClientContext::build(&current)?);
        let dns = match settings.routes.targets().any(Target::needs_dns) {
            true => Some(Dns::new(settings.sending.dns, ourselves)?),
            false => None,
        };
        Ok(Hops {
            settings,
            ending,
            pool: Pool::new(slots),
            meters,
            material,
            context: RefCell::new((current, context)),
            dns,
        })
    }

    /// Ends connections that nobody uses, as long as it is polled.
    pub(super) async fn keep(&self) {
        self.pool.keep().await;
    }

    /// Ends all connections that nobody uses.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    /// Passes a message on to the recipients of a job.
    ///
    /// Whom a host does not take now another may: a domain's next host is asked in the same attempt (RFC 5321 §5.1).
    pub(super) async fn deliver(&self, source: &Source, job: Job<'_>) -> Tried {
        let mut tried = Tried::default();
        let mut waiting = job.recipients.clone();
        // What the host before has said of those who wait.
        let mut deferred = Vec::new();
        let mut hosts = None;
        let mut asked = Vec::new();
        let mut gone = 0;
        let mut idle = self.pool.take(&job.destination.key);
        loop {
            let Idle { mut link, slot, .. } = match idle.take() {
                Some(idle) => idle,
                None => match self.connect(&job, &mut hosts, &asked).await {
                    Ok(idle) => idle,
                    Err(Unopened::Ending) => {
                        tried.left = Left::CutShort;
                        break;
                    }
                    Err(Unopened::Failed(failure)) if deferred.is_empty() => {
                        tried.news = Some(news(&job, &failure));
                        tried.judge(waiting, &failure.verdict());
                        break;
                    }
                    // Whoever was asked already has an answer.
                    Err(Unopened::Crowded) if deferred.is_empty() => {
                        tried.left = Left::Crowded;
                        break;
                    }
                    Err(Unopened::Failed(_) | Unopened::Crowded) => break,
                },
            };
            let is_used = link.messages() > 0;
            let (verdicts, end) = hand_over(&mut link, source, &waiting).await;
            if end == End::Gone && is_used && gone < GONE_MAX {
                // Idle, it had gone without our noticing. Nothing was taken.
                gone += 1;
                drop(slot);
                continue;
            }
            tried.news = Some(News::Answered(Rc::clone(&job.destination.key)));
            if is_used {
                self.meters.used_again();
            }
            asked.push(link.endpoint.clone());
            self.put_back(&job, link, slot);
            deferred.clear();
            for (place, verdict) in verdicts {
                match verdict {
                    Verdict::Deferred(_) => deferred.push((place, verdict)),
                    Verdict::Delivered(_) | Verdict::Failed(_) => {
                        tried.verdicts.push((place, verdict));
                    }
                }
            }
            match end {
                End::Ending => tried.left = Left::CutShort,
                End::Unreadable => tried.left = Left::Unreadable,
                End::Said | End::Gone => {}
            }
            let has_others = *job.target == Target::Mx && asked.len() < HOSTS_ASKED_MAX;
            let is_said = end == End::Said || deferred.iter().all(|(_, verdict)| verdict.is_said());
            if deferred.is_empty() || !is_said || !has_others {
                break;
            }
            waiting = deferred.iter().map(|(place, _)| *place).collect();
        }
        tried.verdicts.extend(deferred);
        tried
    }

    /// Keeps a connection for the next message, or ends it.
    fn put_back(&self, job: &Job<'_>, link: Link, slot: Slot) {
        match link.is_ready() && !self.ending.is_wanted() {
            true => self.pool.give(&job.destination.key, link, slot),
            false => pool::farewell(Idle::in_use(link, slot)),
        }
    }

    /// A connection that is ready, to one of the hosts of a destination that were not asked yet.
    async fn connect<'h>(
        &'h self,
        job: &Job<'_>,
        hosts: &mut Option<Hosts<'h>>,
        asked: &[Endpoint],
    ) -> Result<Idle, Unopened> {
        let key = &job.destination.key;
        // One that is handed over may be to a host that was asked.
        let what = match asked.is_empty() {
            true => Wants::Either,
            false => Wants::Slot,
        };
        let waited = tokio::select! {
            biased;
            waited = self.pool.wait(key, what) => Ok(waited),
            () = tokio::time::sleep(SLOT_MAX) => Err(Unopened::Crowded),
            () = self.ending.is_due() => Err(Unopened::Ending),
        };
        self.pool.tidy(key);
        let slot = match waited? {
            Waited::Slot(slot) => slot,
            Waited::Idle(idle) => return Ok(*idle),
        };
        let hosts = match hosts {
            Some(hosts) => hosts,
            None => {
                let found = self.unless_ending(self.hosts(job)).await?;
                hosts.insert(found.map_err(Unopened::Failed)?)
            }
        };
        let until = Instant::now() + HOSTS_MAX;
        let mut worst = None::<(Weight, Failure)>;
        for _ in 0..ENDPOINTS_MAX {
            let Some(endpoint) = self.unless_ending(hosts.next()).await? else {
                break;
            };
            if asked.contains(&endpoint) {
                continue;
            }
            match self.open(job, endpoint.clone()).await {
                Ok(link) => return Ok(Idle::in_use(link, slot)),
                Err(LinkError::Ending) => return Err(Unopened::Ending),
                Err(error) => {
                    let has_answered = !matches!(error, LinkError::Io(..));
                    let failure = failure_of(error).at(&endpoint.to_string());
                    tracing::debug!(hop = %endpoint, reason = %failure, "next hop not reached");
                    // One that may take it another time weighs more than one that never will, and what was said
                    // more than that nothing was.
                    let weight = (failure.status.class == Class::Temporary, has_answered);
                    if worst.as_ref().is_none_or(|(known, _)| weight > *known) {
                        worst = Some((weight, failure));
                    }
                }
            }
            if Instant::now() >= until {
                break;
            }
        }
        Err(Unopened::Failed(match worst {
            Some((_, failure)) => failure,
            None => Failure::ours(Status::temporary(4, 4), "no next hop could be found"),
        }))
    }

    /// Waits for an answer of DNS, not beyond the end of the server.
    async fn unless_ending<T>(&self, answer: impl Future<Output = T>) -> Result<T, Unopened> {
        tokio::select! {
            biased;
            answer = answer => Ok(answer),
            () = self.ending.is_due() => Err(Unopened::Ending),
        }
    }

    /// Opens a connection, in clear if TLS fails and that is wanted.
    async fn open(&self, job: &Job<'_>, endpoint: Endpoint) -> Result<Link, LinkError> {
        let sending = &self.settings.sending;
        let starttls = match sending.tls {
            // What stays on this machine needs none.
            _ if matches!(endpoint.place, Place::Unix(_)) => StartTls::Off,
            OutTls::Off => StartTls::Off,
            OutTls::Negotiated => StartTls::Negotiated,
            OutTls::Required => StartTls::Required,
        };
        let opened = self.open_with(job, endpoint.clone(), starttls).await;
        let may_go_clear = starttls == StartTls::Negotiated
            && sending.clear_after_tls_failure
            && !endpoint.implicit_tls;
        let opened = match opened {
            Err(LinkError::Handshake(reason)) if may_go_clear => {
                tracing::warn!(hop = %endpoint, reason, "TLS failed, going on in clear");
                self.open_with(job, endpoint.clone(), StartTls::Off).await
            }
            opened => opened,
        };
        match &opened {
            Ok(link) => {
                self.meters.ready(match link.security {
                    Security::Clear => Secured::No,
                    Security::Tls(_) => Secured::Yes,
                });
                tracing::info!(
                    hop = %link.endpoint,
                    tls = link.describe_tls(),
                    starttls_refused = link.starttls_refusal(),
                    "next hop connected"
                );
            }
            Err(_) => self.meters.not_ready(),
        }
        opened
    }

    async fn open_with(
        &self,
        job: &Job<'_>,
        endpoint: Endpoint,
        starttls: StartTls,
    ) -> Result<Link, LinkError> {
        let login = self.settings.sending.login(&endpoint.name, job.domain);
        let settings = Settings {
            dialect: match job.target {
                Target::Lmtp(_) | Target::LmtpUnix(_) => Dialect::Lmtp,
                Target::Smtp(_)
                | Target::Smtps(_)
                | Target::Mx
                | Target::Maildir(_)
                | Target::Discard => Dialect::Smtp,
            },
            helo: self.settings.sending.helo.clone(),
            starttls,
            login: login.map(|login| client::Login {
                name: login.name.clone(),
                password: login.password.clone().into_bytes().into(),
            }),
            ignored: Ignored::default(),
            timeouts: self.timeouts(),
        };
        let context = self
            .context()
            .map_err(|error| LinkError::Tls(error.to_string()))?;
        let opening = Opening {
            settings: Arc::new(settings),
            context: &context,
            sessions_key: &format!("{} {endpoint}", job.destination.key),
            handshake_timeout: self.settings.sending.handshake_timeout,
            ending: &self.ending,
            meters: &self.meters,
        };
        Link::open(endpoint, &opening).await
    }

    /// How long a next hop may take. While many connections are open one that does not even greet has less time than
    /// RFC 5321 §4.5.3.2.1 would give it: others wait for its place, and it is tried again.
    fn timeouts(&self) -> Timeouts {
        let defaults = Timeouts::default();
        Timeouts {
            greeting: match self.pool.is_crowded() {
                true => GREETING_CROWDED_MAX,
                false => defaults.greeting,
            },
            quit: QUIT_MAX,
            ..defaults
        }
    }

    /// The TLS context, of the material that was loaded last.
    fn context(&self) -> Result<Rc<ClientContext>, TlsError> {
        let material = self.material.load();
        let mut context = self.context.borrow_mut();
        if !Arc::ptr_eq(&material, &context.0) {
            let fresh = Rc::new(ClientContext::build(&material)?);
            *context = (Arc::clone(&material), fresh);
        }
        Ok(Rc::clone(&context.1))
    }

    /// The places that a destination is reached at.
    async fn hosts(&self, job: &Job<'_>) -> Result<Hosts<'_>, Failure> {
        let (host, implicit_tls) = match job.target {
            Target::Smtp(host) | Target::Lmtp(host) => (host, false),
            Target::Smtps(host) => (host, true),
            Target::LmtpUnix(path) => {
                return Ok(Hosts::of(Endpoint {
                    name: "localhost".into(),
                    place: Place::Unix(path.clone()),
                    implicit_tls: false,
                }));
            }
            Target::Mx => {
                return Ok(Hosts {
                    known: VecDeque::new(),
                    exchangers: Some(self.dns()?.exchangers(job.domain).await?),
                });
            }
            Target::Maildir(_) | Target::Discard => return Ok(Hosts::none()),
        };
        let Host { name, port } = host;
        let addresses = match name.parse() {
            Ok(address) => vec![address],
            // A name that an operator gave wrongly is to be mended, not to bounce mail.
            Err(_) => self.dns()?.addresses(name).await.map_err(temporary)?,
        };
        let known = addresses.into_iter().map(|address| Endpoint {
            name: name.as_str().into(),
            place: Place::Tcp((address, *port).into()),
            implicit_tls,
        });
        Ok(Hosts {
            known: known.collect(),
            exchangers: None,
        })
    }

    fn dns(&self) -> Result<&Dns, Failure> {
        let missing = || Failure::ours(Status::temporary(4, 3), "there is no resolver");
        self.dns.as_ref().ok_or_else(missing)
    }
}

/// What a failed connection tells: whether it may come about another time, and whether somebody was there.
type Weight = (bool, bool);

/// Why no more is said over a connection about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All was said.
    Said,
    /// The connection went before a word was said.
    Gone,
    /// The message cannot be read.
    Unreadable,
    /// The server goes down.
    Ending,
}

/// Hands a message over, in as many transactions as it takes. Who has no verdict was not tried.
async fn hand_over(
    link: &mut Link,
    source: &Source,
    recipients: &[usize],
) -> (Vec<(usize, Verdict)>, End) {
    let mut verdicts = Vec::with_capacity(recipients.len());
    let mut waiting: VecDeque<usize> = recipients.iter().copied().collect();
    let hop = link.endpoint.to_string();
    let end = loop {
        let count = link.recipients_max().max(1).min(waiting.len());
        if count == 0 {
            break End::Said;
        }
        let now: Vec<usize> = waiting.drain(..count).collect();
        let sent = link.send(transaction(source, &now), source).await;
        let (verdict, end) = match sent {
            Ok(Sending::Finished(outcome)) => {
                let has_begun = link.content_begun();
                if verdicts.is_empty()
                    && outcome
                        .recipients
                        .iter()
                        .all(|outcome| is_lost(outcome, has_begun))
                {
                    let mut lost = judged(now.into_iter().zip(outcome.recipients), &hop);
                    let same = lost.first().map(|(_, verdict)| verdict.clone());
                    lost.extend(waiting.into_iter().zip(same.into_iter().cycle()));
                    return (lost, End::Gone);
                }
                let mut again = false;
                for (place, outcome) in now.into_iter().zip(outcome.recipients) {
                    match &outcome {
                        RecipientOutcome::Unsent(failure) if failure.again_now => {
                            again = true;
                            waiting.push_back(place);
                        }
                        RecipientOutcome::Unsent(_)
                        | RecipientOutcome::Refused(_)
                        | RecipientOutcome::Accepted { .. } => {
                            verdicts.push((place, verdict_of(outcome, &hop)));
                        }
                    }
                }
                if waiting.is_empty() || link.is_ready() {
                    continue;
                }
                let text = match again {
                    true => "it takes no more recipients at a time",
                    false => "the connection ended before these recipients had their turn",
                };
                let failure = Failure::ours(Status::temporary(5, 3), text);
                (Verdict::Deferred(failure.at(&hop)), End::Said)
            }
            Ok(Sending::Unsendable(refusal)) => {
                waiting.extend(now);
                let failure = Failure::ours(refusal.status, refusal.text);
                (failure.at(&hop).verdict(), End::Said)
            }
            Err(LinkError::Ending) => return (verdicts, End::Ending),
            Err(error) => {
                waiting.extend(now);
                let end = match &error {
                    LinkError::Content(ReadError::Damaged { .. }) => End::Unreadable,
                    LinkError::Io(..) | LinkError::Tls(_) | LinkError::Dialogue(_)
                        if verdicts.is_empty() && !link.content_begun() =>
                    {
                        End::Gone
                    }
                    LinkError::Content(_)
                    | LinkError::Io(..)
                    | LinkError::Tls(_)
                    | LinkError::Dialogue(_)
                    | LinkError::Handshake(_)
                    | LinkError::Ending => End::Said,
                };
                // Whatever happened to the connection is no reason to give anybody up.
                let failure = temporary(failure_of(error)).at(&hop);
                (Verdict::Deferred(failure), end)
            }
        };
        verdicts.extend(waiting.drain(..).map(|place| (place, verdict.clone())));
        break end;
    };
    (verdicts, end)
}

fn judged(
    outcomes: impl Iterator<Item = (usize, RecipientOutcome)>,
    hop: &str,
) -> Vec<(usize, Verdict)> {
    outcomes
        .map(|(place, outcome)| (place, verdict_of(outcome, hop)))
        .collect()
}

fn transaction(source: &Source, places: &[usize]) -> Transaction {
    let envelope = &source.accepted.envelope;
    let recipients = places
        .iter()
        .filter_map(|place| envelope.recipients.get(*place))
        .map(|recipient| TransactionRecipient {
            path: recipient.as_given.clone(),
            dsn: recipient.dsn.clone(),
        });
    Transaction {
        reverse_path: envelope.reverse_path.clone(),
        recipients: recipients.collect(),
        octets: source.octets(),
        body: envelope.body,
        smtputf8: envelope.smtputf8,
        dsn: envelope.dsn.clone(),
        facts: None,
    }
}

/// What it tells about a destination that no connection came about.
fn news(job: &Job<'_>, failure: &Failure) -> News {
    let key = Rc::clone(&job.destination.key);
    match failure.status.class {
        Class::Temporary => News::Unreachable(key, failure.to_string().into()),
        // It is clear what is to be said to those that wait as well.
        Class::Permanent | Class::Success => News::Answered(key),
    }
}

/// Places that are tried in one attempt.
const ENDPOINTS_MAX: usize = 8;

/// No other place is tried behind this.
const HOSTS_MAX: Duration = Duration::from_secs(2 * 60);

/// How long a greeting may take while half of all connections are open.
const GREETING_CROWDED_MAX: Duration = Duration::from_secs(30);

/// How long the reply to QUIT may take, which changes nothing and keeps a place.
const QUIT_MAX: Duration = Duration::from_secs(1);

/// Used connections that may turn out to be gone, one after the other, in one attempt.
const GONE_MAX: u32 = 3;

/// Hosts of a domain that are asked to take a message in one attempt.
const HOSTS_ASKED_MAX: usize = 2;

/// How long an attempt waits for its right to a connection.
const SLOT_MAX: Duration = Duration::from_secs(60);
