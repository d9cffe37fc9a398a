//! What peers do by themselves: the connections they make, and what they send. It comes in by a ring of its own.
//!
//! The runtime waits in epoll and enters its ring only to submit, so there the kernel has to interrupt the thread for
//! each completion. This ring leaves that work until it is entered (`IORING_SETUP_DEFER_TASKRUN`):
//!
//! ```text
//!   enter: submit what is due; under load, gather ──▶ reap: each completion into its place; its task is woken
//!     ▲                                                  │
//!     └── the next operations are due ◀── the tasks run, look at their buffers and give them back
//! ```
//!
//! When the kernel has something while nobody is in the ring it rings the bell, an eventfd that the runtime waits for.
//!
//! Invariants:
//! - An operation completes once. A receive completes into a buffer that is chosen then, and the buffer is given back
//!   in the same pass, whatever its session waits for: what nobody waits for is copied. So a receive that found the
//!   pool empty finds a buffer when it is submitted again.
//! - An operation in flight keeps its descriptor open, and its place is not used again before the completion. It is
//!   cancelled when its [`Holder`] goes.
//! - The runtime gets a turn, in which it submits to its own ring, before the next gathering when there is something for
//!   that, and else when half a millisecond is over.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};
use slab::Slab;
use socket2::{SockAddr, SockAddrStorage};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::buffers::{self, Buffers, ReceiveBuffer};
use super::descriptor::Descriptor;
use super::op;
use super::pace::{self, Pace};
use super::runtime::{self, RingError, RingSettings, Step};

/// A shard's ring for what comes in. Cloning shares it.
#[derive(Clone)]
pub struct Intake(Rc<Shared>);

/// How an intake is set up.
#[derive(Clone, Copy, Debug)]
pub struct IntakeSettings {
    /// Its ring.
    pub ring: RingSettings,
    /// Buffers in the pool, a power of two.
    pub buffers: u16,
    /// Octets of a buffer.
    pub buffer_octets: u16,
}

struct Shared {
    ring: RefCell<ManuallyDrop<IoUring>>,
    buffers: ManuallyDrop<Buffers>,
    /// Whether the kernel leaves its work until the ring is entered.
    deferred: bool,
    places: RefCell<Slab<Place>>,
    /// What goes to the kernel when the ring is entered next.
    due: RefCell<Vec<Due>>,
    /// Operations that the kernel has, or will have.
    in_flight: Cell<usize>,
    /// Those of them that receive.
    receives: Cell<usize>,
    /// Told when there is none any more.
    quiet: Notify,
    /// Wakes the task that enters the ring, while that waits for something to do.
    driver: Cell<Option<Waker>>,
}

/// Something to submit.
#[derive(Clone, Copy)]
enum Due {
    /// The operation of a place.
    Operation(usize),
    /// The cancellation of the operation of a place.
    Cancellation(usize),
}

/// One socket as the ring sees it.
struct Place {
    /// Open as long as an operation is in flight.
    descriptor: Descriptor,
    kind: Kind,
    state: State,
}

/// What comes in by a socket.
enum Kind {
    Octets,
    /// Connections, and who made the last.
    Connections(Box<Peer>),
}

/// Where the kernel writes the address of a peer.
struct Peer {
    storage: SockAddrStorage,
    length: libc::socklen_t,
}

/// The operation of a place.
enum State {
    /// There is none.
    Idle,
    /// The kernel has it, or will have.
    InFlight(Party),
    /// It has completed, and nobody has looked yet.
    Done(Arrival),
}

/// Who waits for an operation.
enum Party {
    /// Nobody at the moment.
    Nobody,
    /// A task.
    Task(Waker),
    /// A task that was told to look after something else.
    Interrupted,
    /// Nobody ever again.
    Gone,
}

/// How an operation went.
pub(super) enum Arrival {
    /// A connection was made.
    Connection(OwnedFd),
    /// Octets came.
    Octets(ReceiveBuffer),
    /// The peer sends no more.
    EndOfStream,
    /// With this number of an error.
    Failed(i32),
}

/// What a completion of a cancellation says is said by the operation's own.
const CANCELLATION: u64 = u64::MAX;

/// By how much a wait of this thread may be late for company.
const TIMER_SLACK_NANOSECONDS: u64 = 1000;

/// How long the runtime goes without a turn at most, when its own ring has nothing to do: timers are not more exact
/// than a millisecond anyway.
const TURN_DUE: Duration = Duration::from_micros(500);

/// How long entering pauses when the kernel refuses it.
const PAUSE: Duration = Duration::from_millis(10);

impl Intake {
    /// Sets up a ring on this thread, inside its runtime, and a task that serves it. The task never ends by itself.
    pub fn open(settings: IntakeSettings) -> Result<(Intake, JoinHandle<()>), RingError> {
        // Or the kernel may be late by as much as a moment of gathering.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(TIMER_SLACK_NANOSECONDS));
        let entries = settings.ring.entries;
        let ring = builder(settings.ring)
            .build(entries)
            .map_err(RingError::at(Step::SetUp))?;
        let equipped = |ring: &IoUring| {
            let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            ring.submitter().register_eventfd(bell.as_raw_fd())?;
            // SAFETY: what is registered owns its descriptor, and has no other.
            let bell = unsafe { AsyncFd::register_with_interest(bell, Interest::READABLE) }?;
            let buffers = Buffers::register(ring, settings.buffers, settings.buffer_octets)?;
            Ok((bell, buffers))
        };
        let (bell, buffers) = equipped(&ring).map_err(RingError::at(Step::Equip))?;
        let intake = Intake(Rc::new(Shared {
            ring: RefCell::new(ManuallyDrop::new(ring)),
            buffers: ManuallyDrop::new(buffers),
            deferred: !settings.ring.sqpoll,
            places: RefCell::default(),
            due: RefCell::default(),
            in_flight: Cell::new(0),
            receives: Cell::new(0),
            quiet: Notify::new(),
            driver: Cell::new(None),
        }));
        let serving = tokio_uring::spawn(drive(intake.clone(), bell));
        Ok((intake, serving))
    }

    /// A place for what comes in by `descriptor`, a connection.
    pub(super) fn hold_connection(&self, descriptor: Descriptor) -> Holder {
        self.hold(descriptor, Kind::Octets)
    }

    /// A place for what comes in by `descriptor`, which listens.
    pub(super) fn hold_listener(&self, descriptor: Descriptor) -> Holder {
        let peer = Peer {
            storage: SockAddrStorage::zeroed(),
            length: 0,
        };
        self.hold(descriptor, Kind::Connections(Box::new(peer)))
    }

    fn hold(&self, descriptor: Descriptor, kind: Kind) -> Holder {
        let key = self.0.places.borrow_mut().insert(Place {
            descriptor,
            kind,
            state: State::Idle,
        });
        Holder {
            intake: self.clone(),
            key,
        }
    }

    /// Waits until the kernel has nothing of it any more; operations of those who stay are not ended by this.
    pub async fn quiet(&self) {
        loop {
            let quiet = self.0.quiet.notified();
            if self.0.in_flight.get() == 0 {
                return;
            }
            quiet.await;
        }
    }

    /// Has all who wait for connections be told `ECANCELED`.
    pub fn interrupt_accepting(&self) {
        let mut places = self.0.places.borrow_mut();
        for (_, place) in places.iter_mut() {
            if let Kind::Connections(_) = place.kind {
                place.interrupt();
            }
        }
    }
}

/// A ring that leaves its work until it is entered, or one whose submission queue the kernel polls: the kernel does
/// not do both.
pub(super) fn builder(settings: RingSettings) -> io_uring::Builder {
    let mut ring = IoUring::builder();
    ring.setup_single_issuer()
        .setup_cqsize(settings.entries.saturating_mul(4))
        .setup_clamp();
    if settings.sqpoll {
        ring.setup_sqpoll(runtime::SQPOLL_IDLE_MILLISECONDS);
    } else {
        ring.setup_defer_taskrun().setup_taskrun_flag();
    }
    ring
}

/// Serves an intake as long as its runtime runs.
async fn drive(intake: Intake, bell: AsyncFd<OwnedFd>) {
    let shared = &*intake.0;
    let mut pace = Pace::new(Instant::now());
    let mut turned = Instant::now();
    let mut refused = false;
    let mut last_look = false;
    loop {
        let gathers = shared.deferred && pace.gathers();
        if last_look {
            silence(&bell);
        }
        let entered = shared.enter(gathers);
        let completions = shared.reap();
        let now = Instant::now();
        pace.passed(completions, now);
        if let Err(error) = entered
            && completions == 0
        {
            // The kernel is short of memory; that passes.
            if !mem::replace(&mut refused, true) {
                tracing::warn!(%error, "the kernel takes no receives for the moment");
            }
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        refused = false;
        let more = completions > 0 && (last_look || gathers) || shared.has_left_some();
        if last_look && !more {
            last_look = false;
            poll_fn(|cx| shared.poll_work(&bell, cx)).await;
            turned = now;
            continue;
        }
        // Often there is nothing more, and the runtime may wait.
        last_look = !more;
        behind_the_woken().await;
        // What they want of the runtime's ring does not wait until we have gathered.
        let wanted = op::in_flight() > 0 || now.saturating_duration_since(turned) >= TURN_DUE;
        if more && wanted {
            turn_of_the_runtime().await;
            turned = now;
        }
    }
}

/// Unrings the bell. What it was rung for is found when the ring is entered next.
fn silence(bell: &AsyncFd<OwnedFd>) {
    let mut rung = [0; 8];
    // It may not have been rung.
    let _ = rustix::io::read(bell, &mut rung);
}

/// Has the runtime submit to its own ring, and look who else has something.
///
/// By an operation that does nothing: it completes when the runtime has submitted, which it does before it waits, and
/// then it has something to come back for. Yielding would not do: where a task yields, or more were woken than run at
/// once, the runtime looks around and does not submit.
async fn turn_of_the_runtime() {
    let nothing = opcode::Nop::new().build();
    // SAFETY: the operation has no pointers and no descriptor.
    let _ = unsafe { op::submit((), nothing) }.await;
}

/// Whether the runtime has heard the bell since this was asked last; else it will wake who asks.
fn has_rung(bell: &AsyncFd<OwnedFd>, cx: &mut Context<'_>) -> bool {
    let mut rung = false;
    while let Poll::Ready(Ok(mut guard)) = bell.poll_read_ready(cx) {
        guard.clear_ready();
        rung = true;
    }
    rung
}

/// Lets the tasks run that were woken before.
async fn behind_the_woken() {
    let mut woken = false;
    poll_fn(|cx| {
        if mem::replace(&mut woken, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Shared {
    /// Waits for the bell, or for something to submit.
    fn poll_work(&self, bell: &AsyncFd<OwnedFd>, cx: &mut Context<'_>) -> Poll<()> {
        if has_rung(bell, cx) || !self.due.borrow().is_empty() {
            self.driver.set(None);
            return Poll::Ready(());
        }
        self.driver.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Whether the kernel did not get through with what it had: it works some at a time, and signals nothing then.
    fn has_left_some(&self) -> bool {
        let mut ring = self.ring.borrow_mut();
        let queue = ring.submission();
        self.deferred && (queue.taskrun() || queue.cq_overflow() || !queue.is_empty())
    }

    /// Hands the kernel what is due, and has it complete what it can: at once, or what it has gathered in a moment.
    fn enter(&self, gather: bool) -> io::Result<()> {
        let mut ring = self.ring.borrow_mut();
        let mut due = self.due.borrow_mut();
        loop {
            self.fill(&mut ring, &mut due);
            if due.is_empty() {
                break;
            }
            ring.submit()?;
            ring.submitter().squeue_wait()?;
        }
        let entered = if gather {
            let moment = types::Timespec::new().nsec(pace::GATHER.subsec_nanos());
            let moment = types::SubmitArgs::new().timespec(&moment);
            let enough = Pace::enough(self.receives.get());
            ring.submitter().submit_with_args(enough, &moment)
        } else if self.deferred {
            let count = u32::try_from(ring.submission().len()).unwrap_or(u32::MAX);
            // SAFETY: there is no argument for the kernel to read.
            unsafe { ring.submitter().enter::<()>(count, 0, GET_EVENTS, None) }
        } else {
            // The kernel's thread goes to sleep and looks at the queue once more; we fill the queue, and look whether
            // it sleeps. One of us is to see the other.
            fence(Ordering::SeqCst);
            ring.submit()
        };
        match entered {
            // With those two the moment is over, or a process was stopped and continued.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Moves what is due to the submission queue, as far as there is room.
    fn fill(&self, ring: &mut IoUring, due: &mut Vec<Due>) {
        let mut places = self.places.borrow_mut();
        let mut queue = ring.submission();
        let room = queue.capacity() - queue.len();
        for due in due.drain(..due.len().min(room)) {
            let entry = match due {
                Due::Operation(key) => {
                    let Some(place) = places.get_mut(key) else {
                        unreachable!("a place with an operation in flight stays");
                    };
                    place.entry().user_data(key as u64)
                }
                Due::Cancellation(key) => opcode::AsyncCancel::new(key as u64)
                    .build()
                    .user_data(CANCELLATION),
            };
            // SAFETY: the kernel writes into buffers of the pool, or into the box of a place; the place holds a share
            // of the descriptor, and stays until the completion.
            if unsafe { queue.push(&entry) }.is_err() {
                unreachable!("there is room");
            }
        }
    }

    /// Hands completions to their places, and wakes who waits for them. How many there were.
    fn reap(&self) -> u32 {
        let mut ring = self.ring.borrow_mut();
        let mut completions = 0;
        loop {
            for completion in ring.completion() {
                completions += 1;
                if completion.user_data() != CANCELLATION {
                    self.completed(&completion);
                }
            }
            if self.deferred || !ring.submission().cq_overflow() {
                return completions;
            }
            // What found no room: where the kernel's thread submits, nobody else fetches it.
            // SAFETY: there is no argument for the kernel to read.
            if unsafe { ring.submitter().enter::<()>(0, 0, GET_EVENTS, None) }.is_err() {
                return completions;
            }
        }
    }

    /// Hands one completion to its place.
    fn completed(&self, completion: &cqueue::Entry) {
        let mut places = self.places.borrow_mut();
        let place = usize::try_from(completion.user_data()).ok();
        let Some((key, place)) = place.and_then(|key| Some((key, places.get_mut(key)?))) else {
            unreachable!("a place with an operation in flight stays");
        };
        self.in_flight.set(self.in_flight.get() - 1);
        if self.in_flight.get() == 0 {
            self.quiet.notify_waiters();
        }
        if let Kind::Octets = place.kind {
            self.receives.set(self.receives.get() - 1);
        }
        let arrival = self.arrival(&place.kind, completion);
        match mem::replace(&mut place.state, State::Idle) {
            State::InFlight(Party::Task(waker)) => {
                place.state = State::Done(arrival);
                waker.wake();
            }
            State::InFlight(Party::Nobody | Party::Interrupted) => {
                place.state = State::Done(out_of_the_pool(arrival));
            }
            State::InFlight(Party::Gone) => drop(places.remove(key)),
            State::Idle | State::Done(_) => unreachable!("one operation, one completion"),
        }
    }

    /// What a completion says.
    fn arrival(&self, kind: &Kind, completion: &cqueue::Entry) -> Arrival {
        let result = usize::try_from(completion.result());
        // One may come with nothing in it, and goes back.
        let buffer = cqueue::buffer_select(completion.flags()).map(|id| {
            // SAFETY: this completion says so, and completions are looked at once.
            unsafe { self.buffers.filled(id, result.unwrap_or(0)) }
        });
        match (result, kind, buffer) {
            (Err(_), _, _) => Arrival::Failed(-completion.result()),
            (Ok(_), Kind::Connections(_), _) => {
                // SAFETY: the kernel has just given us this descriptor.
                Arrival::Connection(unsafe { OwnedFd::from_raw_fd(completion.result()) })
            }
            (Ok(octets), Kind::Octets, Some(buffer)) if octets > 0 => Arrival::Octets(buffer),
            (Ok(_), Kind::Octets, _) => Arrival::EndOfStream,
        }
    }

    /// Has something submitted when the ring is entered next.
    fn push(&self, due: Due) {
        self.due.borrow_mut().push(due);
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.in_flight.get() > 0 {
            // What the kernel may still write into stays where it is, to the end of the process.
            mem::forget(mem::take(self.places.get_mut()));
            return;
        }
        // SAFETY: neither is used behind this; the ring goes first, as the buffers are its own until then.
        unsafe { ManuallyDrop::drop(self.ring.get_mut()) };
        // SAFETY: as above.
        unsafe { ManuallyDrop::drop(&mut self.buffers) };
    }
}

impl Place {
    /// The next operation.
    fn entry(&mut self) -> squeue::Entry {
        let target = self.descriptor.target();
        match &mut self.kind {
            Kind::Octets => op::poll_first(
                opcode::Recv::new(target, std::ptr::null_mut(), 0)
                    .buf_group(buffers::GROUP)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT),
            ),
            Kind::Connections(peer) => {
                peer.length = peer.storage.size_of();
                let storage: *mut SockAddrStorage = &raw mut peer.storage;
                opcode::Accept::new(target, storage.cast(), &raw mut peer.length)
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            }
        }
    }

    /// Tells who waits to look after something else. Whether somebody does.
    fn interrupt(&mut self) -> bool {
        match mem::replace(&mut self.state, State::Idle) {
            State::InFlight(Party::Task(waker)) => {
                self.state = State::InFlight(Party::Interrupted);
                waker.wake();
                true
            }
            other @ (State::Idle | State::InFlight(_) | State::Done(_)) => {
                self.state = other;
                false
            }
        }
    }
}

/// What nobody waits for does not hold a buffer.
fn out_of_the_pool(arrival: Arrival) -> Arrival {
    match arrival {
        Arrival::Octets(buffer) => Arrival::Octets(buffer.out_of_the_pool()),
        other @ (Arrival::Connection(_) | Arrival::EndOfStream | Arrival::Failed(_)) => other,
    }
}

/// Who has a place. Its operation is cancelled when this goes.
pub(super) struct Holder {
    intake: Intake,
    key: usize,
}

impl Holder {
    /// Waits for the operation that is under way, or for a new one. [`Arrival::Failed`] with `ECANCELED` follows
    /// [`Holder::interrupt`] and [`Holder::cancel`]; only behind the latter is the operation over.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Arrival> {
        let shared = &*self.intake.0;
        let mut places = shared.places.borrow_mut();
        let Some(place) = places.get_mut(self.key) else {
            unreachable!("a place stays as long as it is held");
        };
        let party = match mem::replace(&mut place.state, State::Idle) {
            State::Done(arrival) => return Poll::Ready(arrival),
            State::InFlight(Party::Interrupted) => {
                place.state = State::InFlight(Party::Nobody);
                return Poll::Ready(Arrival::Failed(libc::ECANCELED));
            }
            State::InFlight(Party::Task(mut waker)) => {
                waker.clone_from(cx.waker());
                Party::Task(waker)
            }
            State::InFlight(Party::Nobody | Party::Gone) => Party::Task(cx.waker().clone()),
            State::Idle => {
                shared.in_flight.set(shared.in_flight.get() + 1);
                if let Kind::Octets = place.kind {
                    shared.receives.set(shared.receives.get() + 1);
                }
                shared.push(Due::Operation(self.key));
                Party::Task(cx.waker().clone())
            }
        };
        place.state = State::InFlight(party);
        Poll::Pending
    }

    /// Nobody waits any more: what has arrived unseen, or will, is to hold no buffer.
    pub(super) fn leave(&self) {
        let shared = &*self.intake.0;
        let mut places = shared.places.borrow_mut();
        let Some(place) = places.get_mut(self.key) else {
            return;
        };
        place.state = match mem::replace(&mut place.state, State::Idle) {
            State::InFlight(Party::Task(_)) => State::InFlight(Party::Nobody),
            State::Done(arrival) => State::Done(out_of_the_pool(arrival)),
            other @ (State::Idle | State::InFlight(_)) => other,
        };
    }

    /// Has [`Holder::poll`] say `ECANCELED` to who waits now. Whether somebody does; the operation goes on.
    pub(super) fn interrupt(&self) -> bool {
        let mut places = self.intake.0.places.borrow_mut();
        places.get_mut(self.key).is_some_and(Place::interrupt)
    }

    /// Has the kernel end the operation. Whether there is one.
    pub(super) fn cancel(&self) -> bool {
        let shared = &*self.intake.0;
        let places = shared.places.borrow();
        let in_flight = places
            .get(self.key)
            .is_some_and(|place| matches!(place.state, State::InFlight(_)));
        drop(places);
        if in_flight {
            shared.push(Due::Cancellation(self.key));
        }
        in_flight
    }

    /// Who made the connection that the last operation came with.
    pub(super) fn take_peer(&self) -> Option<SockAddr> {
        let mut places = self.intake.0.places.borrow_mut();
        let Kind::Connections(peer) = &mut places.get_mut(self.key)?.kind else {
            return None;
        };
        let storage = mem::replace(&mut peer.storage, SockAddrStorage::zeroed());
        // SAFETY: accept filled so many octets of the storage.
        Some(unsafe { SockAddr::new(storage, peer.length) })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let shared = &*self.intake.0;
        let mut places = shared.places.borrow_mut();
        let Some(place) = places.get_mut(self.key) else {
            return;
        };
        match mem::replace(&mut place.state, State::Idle) {
            State::InFlight(_) => {
                place.state = State::InFlight(Party::Gone);
                drop(places);
                shared.push(Due::Cancellation(self.key));
            }
            State::Idle | State::Done(_) => drop(places.remove(self.key)),
        }
    }
}

/// `IORING_ENTER_GETEVENTS`: without it a ring that defers its work does none.
const GET_EVENTS: u32 = 1;
