//! One operation with one completion, on any opcode.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;

use io_uring::{cqueue, squeue};
use tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};

/// An operation in flight; resolves to what it was given, with the kernel's verdict.
pub(super) type Flight<D> = InFlightOneshot<Counted<D>, Whole<D>>;

/// What an operation owns. It goes at the completion, whether anybody waits for that or not.
pub(super) struct Counted<D>(D, InFlight);

/// Counts the operations of this thread's ring that the kernel has not completed.
struct InFlight;

thread_local! {
    static IN_FLIGHT: Cell<usize> = const { Cell::new(0) };
}

impl InFlight {
    fn new() -> InFlight {
        IN_FLIGHT.set(IN_FLIGHT.get() + 1);
        InFlight
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // Not there any more when the thread ends: then nobody counts either.
        let _ = IN_FLIGHT.try_with(|count| count.set(count.get().saturating_sub(1)));
    }
}

/// How many operations of this thread's ring are in flight, or were and have not been looked at.
pub(super) fn in_flight() -> usize {
    IN_FLIGHT.get()
}

/// A finished operation: the data it owned, and how it went.
pub(super) struct Done<D> {
    pub(super) data: D,
    pub(super) result: io::Result<u32>,
}

/// Hands the data back whole.
pub(super) struct Whole<D>(PhantomData<D>);

impl<D> OneshotOutputTransform for Whole<D> {
    type Output = Done<D>;
    type StoredData = Counted<D>;

    fn transform_oneshot_output(self, owned: Counted<D>, completion: cqueue::Entry) -> Done<D> {
        let Counted(data, _in_flight) = owned;
        let result = u32::try_from(completion.result())
            .map_err(|_| io::Error::from_raw_os_error(-completion.result()));
        Done { data, result }
    }
}

/// Puts `entry` on the submission queue of this thread's ring; it goes to the kernel with the next batch.
///
/// # Safety
///
/// - Every pointer in `entry` must lead into `data`, at an address that stays the same while `data`
///   moves (heap memory, not inline fields), or be null.
/// - `data` must own the descriptor that `entry` names, so that the number cannot be reused.
/// - The operation must complete exactly once.
pub(super) unsafe fn submit<D: 'static>(data: D, entry: squeue::Entry) -> Flight<D> {
    let owned = Counted(data, InFlight::new());
    UnsubmittedOneshot::new(owned, Whole(PhantomData), entry).submit()
}

/// Has the kernel wait for readiness before it tries: the receive that follows a reply finds nothing yet.
pub(super) fn poll_first(mut entry: squeue::Entry) -> squeue::Entry {
    const RECVSEND_POLL_FIRST: u16 = 1;
    let start: *mut squeue::Entry = &raw mut entry;
    let ioprio = start.cast::<u16>().wrapping_add(1);
    // SAFETY: an entry is the kernel's `struct io_uring_sqe`, whose second u16 is `ioprio`.
    unsafe { ioprio.write(RECVSEND_POLL_FIRST) };
    entry
}
