//! One core: its rings, its listeners, and a task for each session.
//!
//! A shard performs what the protocol core asks for (`smtp::server::Effect`) and tells it how it went. Shards
//! share nothing on the way of a message: the limits on sessions are one atomic, what a reload replaces is
//! read without a lock, and passwords are checked on the verifier's threads.

mod account;
mod dialogue;
pub mod limits;
mod listener;
mod watch;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, oneshot, watch as channel};

use crate::auth::{Users, Verifier};
use crate::control::events::SessionId;
use crate::control::log;
use crate::control::metrics::{self, ShardMetrics};
use crate::deliver::queue::request::Asked;
use crate::deliver::{DeliverySettings, OpenError, Queue, QueuePlan};
use crate::ring::{self, Intake, IntakeSettings, RingError, RingSettings};
use crate::smtp::server::Settings;
use crate::tls::ServerContexts;

use limits::SessionLimits;
use watch::Watch;

/// What all shards of the process work with.
pub struct Common {
    /// What sessions are told; a reload replaces it for sessions to come.
    pub settings: ArcSwap<Settings>,
    /// Who may log in; nobody without `--users`.
    pub users: ArcSwap<Users>,
    /// Checks passwords on its own threads.
    pub verifier: Verifier,
    /// Sessions of the process.
    pub limits: Arc<SessionLimits>,
    /// Where mail goes.
    pub delivery: Arc<DeliverySettings>,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Whether the greeting of a TLS port leaves with the server's Finished.
    pub early_greeting: EarlyGreeting,
}

/// When the greeting of a TLS port leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyGreeting {
    /// With the server's Finished.
    Yes,
    /// After the handshake.
    No,
}

/// What one shard is started with.
pub struct Plan {
    /// Its number, from 0.
    pub number: usize,
    /// Its rings.
    pub ring: RingSettings,
    /// The core to stay on.
    pub pin_to: Option<usize>,
    /// Bound and listening.
    pub listeners: Vec<(TcpListener, metrics::Listener)>,
    /// Its own TLS contexts, if there is a certificate; a reload replaces them for handshakes to come.
    pub contexts: Arc<ArcSwapOption<ServerContexts>>,
    /// Its counters.
    pub metrics: ShardMetrics,
    /// Its queue, as it was found.
    pub queue: QueuePlan,
    /// What operators ask of its queue.
    pub asked: mpsc::Receiver<Asked>,
}

/// What the control thread wants of the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sessions are taken.
    Serving,
    /// No new ones; those under way finish.
    Draining,
    /// The end, whatever is under way.
    Stopping,
}

/// Why a shard could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel refused the ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A listener could not be taken over.
    #[error("cannot set up a listener: {0}")]
    Listener(io::Error),
    /// The queue could not be opened.
    #[error(transparent)]
    Queue(#[from] OpenError),
    /// There was no thread to be had.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The shard went away before it said anything.
    #[error("a shard ended while it started")]
    Gone,
}

/// A shard's thread, and the word that it listens.
pub struct Started {
    /// Ends after [`Phase::Draining`] when no session is left, or after [`Phase::Stopping`].
    pub thread: JoinHandle<()>,
    /// Resolves once the shard accepts connections, or could not be started.
    pub ready: oneshot::Receiver<Result<(), StartError>>,
}

/// Starts a shard on a thread of its own.
pub fn start(
    plan: Plan,
    common: Arc<Common>,
    phase: channel::Receiver<Phase>,
) -> Result<Started, StartError> {
    let (tell, ready) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name(format!("shard-{}", plan.number))
        .spawn(move || run(plan, common, phase, tell))
        .map_err(StartError::Thread)?;
    Ok(Started { thread, ready })
}

fn run(
    plan: Plan,
    common: Arc<Common>,
    phase: channel::Receiver<Phase>,
    tell: oneshot::Sender<Result<(), StartError>>,
) {
    if let Some(core) = plan.pin_to {
        let mut cores = rustix::thread::CpuSet::new();
        cores.set(core);
        if let Err(error) = rustix::thread::sched_setaffinity(None, &cores) {
            tracing::warn!(shard = plan.number, core, %error, "cannot pin the shard to its core");
        }
    }
    log::batch();
    let tell = Cell::new(Some(tell));
    let say = |outcome| {
        if let Some(tell) = tell.take() {
            // The control thread may have given up already.
            let _ = tell.send(outcome);
        }
    };
    let outcome = ring::run(plan.ring, async {
        let shard = match Shard::new(plan, common).await {
            Ok(begun) => {
                say(Ok(()));
                Some(begun)
            }
            Err(error) => {
                say(Err(error));
                None
            }
        };
        if let Some((shard, comes_in)) = shard {
            // In a task of its own: what the runtime runs itself, it polls again whenever any task has run.
            let serving = tokio_uring::spawn(shard.serve(comes_in, phase)).await;
            if let Err(error) = serving
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    });
    if let Err(error) = outcome {
        say(Err(error.into()));
    }
    log::flush();
}

/// What the tasks of one shard share.
struct Shard {
    common: Arc<Common>,
    contexts: Arc<ArcSwapOption<ServerContexts>>,
    metrics: Rc<ShardMetrics>,
    queue: Queue,
    intake: Intake,
    watch: Watch,
    /// Vectors for replies, used again and again; an idle session holds none.
    vectors: RefCell<Vec<Vec<u8>>>,
    /// Where OpenSSL puts plaintext; used within one step.
    plaintext: RefCell<Box<[u8]>>,
    /// A descriptor to give up when there is no other.
    spare: listener::Spare,
    number: usize,
    sessions_begun: Cell<u64>,
}

/// By what others reach a shard.
struct ComesIn {
    listeners: Vec<(ring::Listener, metrics::Listener)>,
    asked: mpsc::Receiver<Asked>,
    /// Serves the intake.
    taking_in: tokio::task::JoinHandle<()>,
}

impl Shard {
    async fn new(plan: Plan, common: Arc<Common>) -> Result<(Rc<Shard>, ComesIn), StartError> {
        let (intake, taking_in) = Intake::open(IntakeSettings {
            ring: plan.ring,
            buffers: RECEIVE_BUFFERS,
            buffer_octets: RECEIVE_BUFFER_OCTETS,
        })?;
        let mut listeners = Vec::with_capacity(plan.listeners.len());
        for (listener, kind) in plan.listeners {
            let listener = ring::Listener::new(listener).map_err(StartError::Listener)?;
            listeners.push((listener, kind));
        }
        let queue = Queue::open(plan.queue, Arc::clone(&common.delivery)).await?;
        let shard = Rc::new(Shard {
            common,
            contexts: plan.contexts,
            metrics: Rc::new(plan.metrics),
            queue,
            intake,
            watch: Watch::default(),
            vectors: RefCell::default(),
            plaintext: RefCell::new(vec![0; PLAINTEXT_OCTETS].into_boxed_slice()),
            spare: listener::Spare::new(),
            number: plan.number,
            sessions_begun: Cell::new(0),
        });
        let comes_in = ComesIn {
            listeners,
            asked: plan.asked,
            taking_in,
        };
        Ok((shard, comes_in))
    }

    /// Serves until the control thread wants the end.
    async fn serve(self: Rc<Shard>, comes_in: ComesIn, mut phase: channel::Receiver<Phase>) {
        let ComesIn {
            listeners,
            asked,
            mut taking_in,
        } = comes_in;
        let ticking = tokio_uring::spawn(Rc::clone(&self).tick());
        let mut delivering = tokio_uring::spawn(self.queue.clone().run());
        let answering = tokio_uring::spawn(answer(self.queue.clone(), asked));
        let mut accepting = Vec::new();
        for (listener, kind) in &listeners {
            for _ in 0..listener::ACCEPTS_ARMED {
                let accept = Rc::clone(&self).accept(listener.clone(), *kind);
                accepting.push(tokio_uring::spawn(accept));
            }
        }
        tokio::select! {
            // An error means that the control thread is gone: drain as well.
            _ = phase.wait_for(|phase| *phase != Phase::Serving) => {}
            // Nobody would get an answer to the end of data any more. The control thread sees that a shard is gone,
            // and what got a 250 is found by the next start.
            _ = &mut delivering => {
                tracing::error!(shard = self.number, "the queue is gone");
                return;
            }
            _ = &mut taking_in => {
                tracing::error!(shard = self.number, "the intake is gone");
                return;
            }
        }
        self.watch.drain();
        self.intake.interrupt_accepting();
        drop(listeners);
        let ended = async {
            for task in accepting {
                // It lets go of its accept and ends; the last of them closes the listener.
                let _ = task.await;
            }
            self.watch.all_gone().await;
            // The last receives are cancelled, and with them the last connections close.
            self.intake.quiet().await;
            // Nothing is accepted any more.
            self.queue.end();
            let _ = delivering.await;
        };
        tokio::select! {
            () = ended => {}
            _ = phase.wait_for(|phase| *phase == Phase::Stopping) => {
                // What was delivered is noted; a disk that hangs does not keep the process.
                let _ = tokio::time::timeout(LAST_NOTES_MAX, self.queue.flush()).await;
            }
        }
        ticking.abort();
        answering.abort();
    }

    /// Enforces deadlines, and hands the log on.
    async fn tick(self: Rc<Shard>) {
        let mut interval = tokio::time::interval(watch::TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.watch.tick(Instant::now());
            log::flush();
        }
    }

    /// An empty vector for replies.
    fn take_vector(&self) -> Vec<u8> {
        self.vectors.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a vector back, unless it has grown or there are enough.
    fn give_vector(&self, mut vector: Vec<u8>) {
        let mut vectors = self.vectors.borrow_mut();
        if vector.capacity() > 0
            && vector.capacity() <= VECTOR_OCTETS_KEPT
            && vectors.len() < VECTORS_KEPT
        {
            vector.clear();
            vectors.push(vector);
        }
    }

    /// The name of a new session.
    fn next_session(&self) -> SessionId {
        let begun = self.sessions_begun.get() + 1;
        self.sessions_begun.set(begun);
        SessionId::new(u16::try_from(self.number).unwrap_or(u16::MAX), begun)
    }
}

/// Answers what operators ask of a queue, as long as there is somebody to ask.
async fn answer(queue: Queue, mut asked: mpsc::Receiver<Asked>) {
    while let Some(Asked { request, reply }) = asked.recv().await {
        let queue = queue.clone();
        // By itself: an answer may wait for the disk, and the next need not.
        tokio_uring::spawn(async move {
            // Who asked may have gone.
            let _ = reply.send(queue.answer(request).await);
        });
    }
}

/// How long the last notes to the spool may take when the server stops at once.
const LAST_NOTES_MAX: Duration = Duration::from_secs(1);

/// Buffers of a shard that the kernel chooses from. They are held for one step each, so few serve many
/// sessions, and few stay in the cache; a burst beyond them waits a moment.
const RECEIVE_BUFFERS: u16 = 128;

/// One TLS record (RFC 8446 §5.2) and then some of bulk data.
const RECEIVE_BUFFER_OCTETS: u16 = 16 * 1024 + 512;

/// One TLS record's plaintext (RFC 8446 §5.1).
const PLAINTEXT_OCTETS: usize = 16 * 1024;

/// Vectors for replies that a shard keeps: about as many as are in flight in one batch.
const VECTORS_KEPT: usize = 256;

/// The largest that is kept; a larger one served an unusual batch.
const VECTOR_OCTETS_KEPT: usize = 4096;
