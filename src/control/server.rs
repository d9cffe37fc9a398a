//! The server's life: start, serve, reload, drain, end.
//!
//! ```text
//!  limits ─▶ data directory ─▶ files ─▶ ports ─▶ identity given up ─▶ log, threads ─▶ ready
//!                                                                                     │
//!            exit 0 ◀── shards joined ◀── drain, at most --drain-timeout ◀── SIGTERM ─┘
//! ```
//!
//! Whatever takes root, or can be wrong, comes before the first thread: a start that fails is one line for
//! each fault, and leaves nothing running.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, watch};

use super::http::Endpoints;
use super::listeners::{self, BindError, Bound, Families};
use super::lock::{self, DataDirLock, LockError};
use super::log;
use super::metrics::{Build, Kind, Listener, Metrics, Reload};
use super::privileges::{self, Identity, PrivilegesError};
use super::readiness::Readiness;
use super::sending;
use super::signals::{Signal, Signals};
use super::socket::{self, ControlSocket, SocketError};
use super::spool::{Spool, SpoolError};
use crate::auth::{Verifier, verifier};
use crate::config::loaded::{self, Loaded, Purpose};
use crate::config::{Config, Fault};
use crate::deliver::queue::request::Asked;
use crate::deliver::target::Target;
use crate::deliver::{DeliverySettings, QueuePlan, Routes, Sending};
use crate::ring::{self, RingError, RingSettings};
use crate::shard::limits::SessionLimits;
use crate::shard::{self, Common, EarlyGreeting, Phase, Plan, StartError};
use crate::smtp::data::Budget;
use crate::tls::{CertifiedKey, ClientMaterial, Rotation, ServerContexts, TicketKeyRing, TlsError};

/// Why the server did not start, or did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// What is opened at the start would not all be had; the runtimes panic then, or a shard fails.
    #[error(
        "{max} descriptors are too few, --shards {shards} takes {needed}: raise RLIMIT_NOFILE (ulimit -n)"
    )]
    Descriptors {
        /// RLIMIT_NOFILE.
        max: u64,
        /// How many must be there.
        needed: u64,
        /// How many shards there are to be.
        shards: u64,
    },
    /// The data directory is not ours.
    #[error("--data-dir: {0}")]
    DataDirectory(#[from] LockError),
    /// `ringpost queue` could not reach the server.
    #[error("--data-dir: {0}")]
    Socket(#[from] SocketError),
    /// A port is not to be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Whom `--user` and `--group` name cannot write where mail is to go.
    #[error("{fault} (as --user {user})")]
    Directory {
        /// The first of the faults.
        fault: Fault,
        /// Whom the server runs as.
        user: String,
    },
    /// Root could not be given up.
    #[error(transparent)]
    Privileges(#[from] PrivilegesError),
    /// The kernel lets us have no ring, or not use it.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// No TLS contexts.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A shard did not start.
    #[error(transparent)]
    Shard(#[from] StartError),
    /// A shard's thread ended, by a panic, while it was to serve.
    #[error("a shard ended while it served, see the log")]
    ShardLost,
    /// Something of the process's own.
    #[error("cannot {what}: {source}")]
    Process {
        /// What was tried.
        what: &'static str,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn process<E>(what: &'static str) -> impl FnOnce(E) -> ServeError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| ServeError::Process {
        what,
        source: source.into(),
    }
}

/// Runs the server on what was loaded for `config`, until a signal ends it.
pub fn run(config: Config, loaded: Loaded) -> Result<(), ServeError> {
    let descriptors = privileges::raise_descriptors_max();
    descriptors_suffice(&config, descriptors)?;
    let identity = Identity::resolve(config.user.as_deref(), config.group.as_deref())?;
    if let Some(identity) = &identity {
        identity.may_be_assumed()?;
    }
    let lock = DataDirLock::take(&config.data_dir, identity.as_ref())?;
    let bound = bind(&config)?;
    let metrics_listener = config
        .metrics
        .map(|address| listeners::bind_one("--metrics", address))
        .transpose()?;
    if let Some(identity) = &identity {
        own_what_was_made(&config, identity).map_err(process("give files to --user"))?;
        make_maildirs(&config, identity);
        identity.assume()?;
        if let Some(fault) = loaded::directory_faults(&config).into_iter().next() {
            let user = config.user.or(config.group).unwrap_or_default();
            return Err(ServeError::Directory { fault, user });
        }
    }
    // Before anything in the directory is worked on: who asks meanwhile waits, and does not take it for that of
    // a stopped server.
    let socket = ControlSocket::bind(&lock, &config.data_dir)?;

    ring::probe(ring_settings(&config))?;
    let logging =
        log::init(config.log_format, config.log_level).map_err(process("start logging"))?;
    for warning in &loaded.warnings {
        tracing::warn!(flag = warning.flag, text = warning.text, "check");
    }
    let sessions_max = u64::try_from(config.sessions_max).unwrap_or(u64::MAX);
    let out_connections_max = match config.targets().any(|(_, target)| target.is_next_hop()) {
        true => u64::try_from(config.sending.connections_max).unwrap_or(u64::MAX),
        false => 0,
    };
    let connections_max = sessions_max.saturating_add(out_connections_max);
    if descriptors < connections_max.saturating_add(DESCRIPTORS_BESIDE_SESSIONS) {
        tracing::warn!(
            flag = "--max-sessions",
            sessions_max,
            out_connections_max,
            descriptors,
            "more sessions than descriptors; raise RLIMIT_NOFILE (ulimit -n)"
        );
    }
    let server = Server::new(config, loaded, bound)?;
    logging.watch(&server.metrics);
    let outcome = server.run(metrics_listener, socket);
    drop(lock);
    drop(logging);
    outcome
}

/// Whether so many descriptors let the server start, and each shard take a message.
fn descriptors_suffice(config: &Config, max: u64) -> Result<(), ServeError> {
    let open = match privileges::descriptors_open() {
        Ok(open) => open,
        // To count them takes one.
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => max,
        // Without /proc the start goes on, and says less if it fails.
        Err(_) => return Ok(()),
    };
    let shards = u64::try_from(config.shards.get()).unwrap_or(u64::MAX);
    let listeners =
        u64::try_from(config.listen.len() + config.listen_tls.len()).unwrap_or(u64::MAX);
    let of_a_shard = listeners.saturating_add(DESCRIPTORS_OF_A_SHARD);
    let needed = open
        .saturating_add(DESCRIPTORS_OF_CONTROL)
        .saturating_add(u64::from(config.metrics.is_some()))
        .saturating_add(shards.saturating_mul(of_a_shard));
    if needed > max {
        return Err(ServeError::Descriptors {
            max,
            needed,
            shards,
        });
    }
    Ok(())
}

fn bind(config: &Config) -> Result<Vec<Bound>, BindError> {
    let tcp = config
        .listen
        .iter()
        .map(|address| ("--listen", Listener::Tcp, *address));
    let tls = config
        .listen_tls
        .iter()
        .map(|address| ("--listen-tls", Listener::Tls, *address));
    tcp.chain(tls)
        .map(|(flag, listener, address)| {
            let all = config.listen.iter().chain(&config.listen_tls).copied();
            let families = Families::of(address, all);
            let shards = config.shards.get();
            listeners::bind(flag, listener, address, families, shards, config.backlog)
        })
        .collect()
}

fn ring_settings(config: &Config) -> RingSettings {
    RingSettings {
        entries: config.ring_entries,
        sqpoll: config.sqpoll,
    }
}

/// What the start made as root belongs to the identity that goes on.
fn own_what_was_made(config: &Config, identity: &Identity) -> std::io::Result<()> {
    let own_if_there = |path: &Path| match identity.own(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    };
    if let Some(path) = &config.ticket_keys {
        // The lock too, or no key could ever be added.
        for file in TicketKeyRing::files(path) {
            own_if_there(&file)?;
        }
    }
    let certificates = loaded::development_directory(config);
    own_if_there(&certificates)?;
    if let Ok(entries) = std::fs::read_dir(&certificates) {
        for entry in entries {
            own_if_there(&entry?.path())?;
        }
    }
    Ok(())
}

/// Makes the directories of Maildir targets while that takes no more than root's rights. One that cannot be
/// made is found missing as `identity`.
fn make_maildirs(config: &Config, identity: &Identity) {
    for (_, target) in config.targets() {
        if let Target::Maildir(directory) = target {
            let _ = lock::private_dir(directory, Some(identity));
        }
    }
}

/// What the control thread owns.
struct Server {
    config: Config,
    common: Arc<Common>,
    budget: Arc<Budget>,
    ticket_keys: Arc<TicketKeyRing>,
    /// Each shard's.
    contexts: Vec<Arc<ArcSwapOption<ServerContexts>>>,
    /// What is shown to next hops and verified of them.
    out_tls: Arc<ArcSwap<ClientMaterial>>,
    bound: Vec<Bound>,
    /// Each shard's, until it is started.
    queues: Vec<QueuePlan>,
    metrics: Arc<Metrics>,
    readiness: Readiness,
}

/// The shards, running.
struct Shards {
    phase: watch::Sender<Phase>,
    threads: Vec<JoinHandle<()>>,
    /// By which each is asked about its queue.
    askers: Vec<mpsc::Sender<Asked>>,
}

impl Server {
    fn new(config: Config, loaded: Loaded, bound: Vec<Bound>) -> Result<Server, ServeError> {
        let budget = Budget::new(config.mail_memory_octets);
        let settings = config
            .session_settings(loaded.recipients, Arc::clone(&budget))
            .map_err(process("use --local-domain"))?;
        let verifier = Verifier::start(Verifier::default_threads(), verifier::DEFAULT_WAITING_MAX)
            .map_err(process("start threads for AUTH"))?;
        let routes = Routes::new(config.deliver.clone(), config.routes.iter().cloned());
        let common = Common {
            settings: ArcSwap::from_pointee(settings),
            users: ArcSwap::new(loaded.users),
            verifier,
            limits: SessionLimits::new(config.sessions_max, config.sessions_per_ip_max),
            delivery: Arc::new(DeliverySettings {
                hostname: config.hostname.clone(),
                routes,
                durability: config.durability,
                schedule: config.retry_schedule.clone(),
                sending: Sending {
                    logins: loaded.logins,
                    ..config.sending.clone()
                },
            }),
            handshake_timeout: config.handshake_timeout,
            early_greeting: if config.early_greeting {
                EarlyGreeting::Yes
            } else {
                EarlyGreeting::No
            },
        };
        let contexts = contexts(&config, &loaded.certified_keys, &loaded.ticket_keys)?;
        let contexts = contexts
            .into_iter()
            .map(|context| Arc::new(ArcSwapOption::new(context)))
            .collect();
        let metrics = Metrics::new(Build {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            openssl: openssl::version::version().to_owned(),
        });
        watch_bounds(&metrics, &budget, &common);
        let addresses = bound.iter().map(|bound| bound.address);
        let hops = sending::plan(&config, loaded.out_tls, addresses);
        sending::watch(&metrics, &hops);
        let spool = Spool::recover(&config, &budget, &hops)?;
        spool.watch(&metrics);
        Ok(Server {
            config,
            common: Arc::new(common),
            budget,
            ticket_keys: loaded.ticket_keys,
            contexts,
            bound,
            queues: spool.plans,
            out_tls: hops.material,
            metrics: Arc::new(metrics),
            readiness: Readiness::new(),
        })
    }

    fn run(
        mut self,
        metrics_listener: Option<TcpListener>,
        socket: ControlSocket,
    ) -> Result<(), ServeError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(process("start the control thread's runtime"))?;
        runtime.block_on(async {
            let mut signals = Signals::catch().map_err(process("catch signals"))?;
            if let Some(listener) = metrics_listener {
                let metrics = Arc::clone(&self.metrics);
                let endpoints = Endpoints::new(listener, metrics, self.readiness.clone())
                    .map_err(process("listen on --metrics"))?;
                if let Ok(address) = endpoints.address() {
                    tracing::info!(listener = "metrics", %address, "listening");
                }
                tokio::spawn(endpoints.serve());
            }
            let started = self.start_shards().await?;
            let (phase, shards) = (started.phase, started.threads);
            let answering = socket.serve(started.askers);
            tokio::spawn(answering.map_err(process("listen on the control socket"))?);
            for bound in &self.bound {
                let listener = bound.listener.label();
                tracing::info!(listener, address = %bound.address, "listening");
            }
            tracing::info!(
                version = env!("CARGO_PKG_VERSION"),
                openssl = openssl::version::version(),
                shards = shards.len(),
                "ready"
            );
            self.readiness.ready();
            let outcome = self.serve(&mut signals, &shards).await;
            self.drain(&mut signals, &phase, shards).await;
            outcome
        })
    }

    async fn start_shards(&mut self) -> Result<Shards, ServeError> {
        let (phase, _) = watch::channel(Phase::Serving);
        let cores = privileges::cores_allowed();
        let mut threads = Vec::new();
        let mut askers = Vec::new();
        let mut ready = Vec::new();
        let queues = std::mem::take(&mut self.queues);
        for (number, queue) in queues.into_iter().enumerate() {
            let listeners = self
                .bound
                .iter_mut()
                .filter_map(|bound| bound.sockets.pop().map(|socket| (socket, bound.listener)))
                .collect();
            let Some(contexts) = self.contexts.get(number) else {
                continue;
            };
            let (asker, asked) = mpsc::channel(socket::ASKED_MAX);
            askers.push(asker);
            let plan = Plan {
                number,
                ring: ring_settings(&self.config),
                pin_to: match number.checked_rem(cores.len()) {
                    Some(place) if self.config.pin => cores.get(place).copied(),
                    Some(_) | None => None,
                },
                listeners,
                contexts: Arc::clone(contexts),
                metrics: self.metrics.add_shard(),
                queue,
                asked,
            };
            let started = shard::start(plan, Arc::clone(&self.common), phase.subscribe())?;
            threads.push(started.thread);
            ready.push(started.ready);
        }
        for ready in ready {
            // A shard that fails takes the others down with `phase`, whose sender is dropped.
            ready.await.map_err(|_| StartError::Gone)??;
        }
        Ok(Shards {
            phase,
            threads,
            askers,
        })
    }

    /// Until the first signal to end, or until a shard is gone: what is left of the server then drains, and
    /// whoever supervises it starts a whole one.
    async fn serve(
        &self,
        signals: &mut Signals,
        shards: &[JoinHandle<()>],
    ) -> Result<(), ServeError> {
        let mut rotation = tokio::time::interval(ROTATION_LOOKED_AT);
        let mut roll_call = tokio::time::interval(SHARDS_LOOKED_AT);
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Reload => self.reload(),
                    Signal::Drain | Signal::Stop => return Ok(()),
                },
                _ = rotation.tick() => self.rotate_ticket_keys(),
                _ = roll_call.tick() => if shards.iter().any(JoinHandle::is_finished) {
                    tracing::error!("a shard is gone");
                    return Err(ServeError::ShardLost);
                },
            }
        }
    }

    async fn drain(
        &self,
        signals: &mut Signals,
        phase: &watch::Sender<Phase>,
        shards: Vec<JoinHandle<()>>,
    ) {
        let timeout = self.config.drain_timeout;
        tracing::info!(
            sessions = self.common.limits.open(),
            seconds = timeout.as_secs(),
            "draining"
        );
        self.readiness.draining();
        phase.send_replace(Phase::Draining);
        let joined = tokio::task::spawn_blocking(move || {
            for shard in shards {
                // A shard that panicked has said so by the panic hook.
                let _ = shard.join();
            }
        });
        tokio::pin!(joined);
        let deadline = tokio::time::sleep(timeout);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                _ = &mut joined => break,
                () = &mut deadline, if *phase.borrow() == Phase::Draining => {
                    let sessions = self.common.limits.open();
                    tracing::warn!(sessions, "--drain-timeout is over, stopping");
                    phase.send_replace(Phase::Stopping);
                }
                signal = signals.next() => if signal == Signal::Stop {
                    tracing::warn!(sessions = self.common.limits.open(), "stopping at once");
                    phase.send_replace(Phase::Stopping);
                },
            }
        }
        tracing::info!("stopped");
    }

    /// SIGHUP: what loads replaces the old, what does not is logged.
    fn reload(&self) {
        let mut good = true;
        let mut failed = |fault: &Fault| {
            good = false;
            tracing::error!(
                flag = fault.flag,
                text = fault.text,
                "not reloaded, the old one stays"
            );
        };
        match loaded::load_certified_keys(&self.config, Purpose::Serve) {
            Ok(keys) => match contexts(&self.config, &keys, &self.ticket_keys) {
                Ok(contexts) => {
                    for (place, context) in self.contexts.iter().zip(contexts) {
                        place.store(context);
                    }
                }
                Err(error) => failed(&Fault::new("--cert", error.to_string())),
            },
            Err(faults) => faults.iter().for_each(&mut failed),
        }
        match loaded::load_out_tls(&self.config) {
            Ok(material) => self.out_tls.store(Arc::new(material)),
            Err(fault) => failed(&fault),
        }
        match loaded::load_users(&self.config) {
            Ok(users) => self.common.users.store(users),
            Err(fault) => failed(&fault),
        }
        let settings = loaded::load_recipients(&self.config).and_then(|recipients| {
            self.config
                .session_settings(recipients, Arc::clone(&self.budget))
                .map_err(|error| Fault::new("--local-domain", error.to_string()))
        });
        match settings {
            Ok(settings) => self.common.settings.store(Arc::new(settings)),
            Err(fault) => failed(&fault),
        }
        match self.ticket_keys.reload() {
            Ok(Rotation::Restored) => {
                let path = self.config.ticket_keys.as_deref().unwrap_or(Path::new(""));
                tracing::warn!(
                    flag = "--ticket-keys",
                    path = %path.display(),
                    "the file was missing, made again from the keys in use"
                );
            }
            Ok(Rotation::Rotated) => tracing::info!("ticket keys rotated"),
            Ok(Rotation::NotDue | Rotation::Adopted) => {}
            Err(error) => failed(&Fault::new("--ticket-keys", error.to_string())),
        }
        self.metrics
            .reloaded(if good { Reload::Done } else { Reload::Failed });
        if good {
            tracing::info!("reloaded");
        }
    }

    fn rotate_ticket_keys(&self) {
        match self.ticket_keys.rotate_if_due(SystemTime::now()) {
            Ok(Rotation::NotDue) => {}
            Ok(Rotation::Rotated | Rotation::Adopted | Rotation::Restored) => {
                tracing::info!("ticket keys rotated");
            }
            Err(error) => tracing::error!(%error, "ticket keys not rotated"),
        }
    }
}

/// Has `metrics` tell how full what the whole process shares is.
fn watch_bounds(metrics: &Metrics, budget: &Arc<Budget>, common: &Common) {
    let held = Arc::clone(budget);
    metrics.watch(
        Kind::Gauge,
        "ringpost_mail_memory_bytes",
        "Memory that mail data takes now.",
        move || held.held(),
    );
    let max = budget.octets_max();
    metrics.watch(
        Kind::Gauge,
        "ringpost_mail_memory_max_bytes",
        "Memory that mail data may take.",
        move || max,
    );
    let verifier = common.verifier.clone();
    metrics.watch(
        Kind::Gauge,
        "ringpost_auth_waiting",
        "Logins that wait to be verified.",
        move || u64::try_from(verifier.waiting()).unwrap_or(u64::MAX),
    );
}

/// Contexts for each shard, so that shards do not contend for OpenSSL's counters.
fn contexts(
    config: &Config,
    keys: &[CertifiedKey],
    ticket_keys: &Arc<TicketKeyRing>,
) -> Result<Vec<Option<Arc<ServerContexts>>>, TlsError> {
    (0..config.shards.get())
        .map(|_| {
            if keys.is_empty() {
                return Ok(None);
            }
            ServerContexts::build(keys, &config.tls, Arc::clone(ticket_keys))
                .map(|contexts| Some(Arc::new(contexts)))
        })
        .collect()
}

/// How often the control thread asks whether a ticket key is due for replacement.
const ROTATION_LOOKED_AT: Duration = Duration::from_secs(60);

/// How often the control thread looks whether all shards are there.
const SHARDS_LOOKED_AT: Duration = Duration::from_secs(1);

/// Descriptors for rings, listeners, logs and deliveries under way.
const DESCRIPTORS_BESIDE_SESSIONS: u64 = 256;

/// Of the control thread: the data directory's lock, the control socket, epoll and its second handle, its waker,
/// the pair that signals come by and the reader's handle of that.
const DESCRIPTORS_OF_CONTROL: u64 = 8;

/// Of a shard beside its listeners: two rings and a bell, epoll and its second handle, its waker, a handle for
/// signals, the spare one, the spool's segment; and for a message a connection, its file and the file's directory.
const DESCRIPTORS_OF_A_SHARD: u64 = 12;
