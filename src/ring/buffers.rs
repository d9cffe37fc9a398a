//! Receive buffers that the kernel hands out when octets arrive, so that an idle session holds none.
//!
//! The pool is given to the kernel once (`PROVIDE_BUFFERS`). A receive names the group, not a buffer; its
//! completion says which buffer was filled. Dropped buffers go back some at a time, since each return is an
//! operation of its own whose completion wakes the shard.
//!
//! ```text
//!   kernel's list:  [3][4][5][6] …
//!   receive completes with 3 ──▶ ReceiveBuffer{3} ──drop──▶ free: 0 1 2 3 ──▶ PROVIDE_BUFFERS(0, 4 of them)
//! ```
//!
//! No buffer outlives the step in which a session looks at it (see `shard::dialogue`), so a slow peer cannot
//! keep one. When a burst empties the list, receives fail with `ENOBUFS` and wait here for the next return.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::io;
use std::ops::Deref;
use std::rc::Rc;

use io_uring::opcode;
use tokio::sync::Notify;

use super::{op, runtime};

/// The one group of a ring.
pub(super) const GROUP: u16 = 0;

/// Buffers that gather before they go back: a quarter of a small pool, and one wake of the shard for so many.
const FREE_MAX: usize = 32;

/// A shard's pool of receive buffers. Cloning shares it.
#[derive(Clone)]
pub struct ReceiveBuffers(Rc<Pool>);

struct Pool {
    memory: Box<[UnsafeCell<u8>]>,
    buffer_octets: usize,
    /// Buffers that nobody holds and the kernel does not have yet.
    free: RefCell<Vec<u16>>,
    returned: Notify,
    waiting: Cell<usize>,
}

impl ReceiveBuffers {
    /// Makes `count` buffers of `buffer_octets` each and provides them to this thread's ring.
    pub async fn provide(count: u16, buffer_octets: u16) -> io::Result<ReceiveBuffers> {
        let octets = usize::from(count) * usize::from(buffer_octets);
        let mut memory = Vec::with_capacity(octets);
        memory.resize_with(octets, || UnsafeCell::new(0));
        let pool = Rc::new(Pool {
            memory: memory.into_boxed_slice(),
            buffer_octets: usize::from(buffer_octets),
            free: RefCell::new(Vec::with_capacity(FREE_MAX)),
            returned: Notify::new(),
            waiting: Cell::new(0),
        });
        let entry =
            opcode::ProvideBuffers::new(pool.start(0), i32::from(buffer_octets), count, GROUP, 0)
                .build();
        // SAFETY: the kernel writes into the memory only on behalf of a receive, and each receive in
        // flight holds a share of the pool; the memory is on the heap and never moves.
        let done = unsafe { op::submit(Rc::clone(&pool), entry) }.await;
        done.result?;
        Ok(ReceiveBuffers(pool))
    }

    /// Waits until some buffer was given back.
    pub(super) async fn returned(&self) {
        if self.0.provide_free() {
            return;
        }
        let _waiting = Waiting::new(&self.0.waiting);
        self.0.returned.notified().await;
    }

    /// Takes over the buffer that a receive's completion names.
    pub(super) fn filled(&self, id: u16, octets: usize) -> ReceiveBuffer {
        ReceiveBuffer {
            pool: Rc::clone(&self.0),
            id,
            octets: octets.min(self.0.buffer_octets),
        }
    }
}

/// Somebody waits for a buffer, also one that gives up.
struct Waiting<'p>(&'p Cell<usize>);

impl Waiting<'_> {
    fn new(count: &Cell<usize>) -> Waiting<'_> {
        count.set(count.get() + 1);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Pool {
    /// Gives buffers back to the kernel: one operation for each run of neighbours, and the kernel hands them
    /// out in the order it got them, so mostly one in all. False: there were none.
    fn provide_free(self: &Rc<Self>) -> bool {
        let mut free = self.free.borrow_mut();
        if free.is_empty() {
            return false;
        }
        free.sort_unstable();
        let length = i32::try_from(self.buffer_octets).unwrap_or(i32::MAX);
        for run in free.chunk_by(|id, next| id.checked_add(1) == Some(*next)) {
            let (Some(&first), Ok(count)) = (run.first(), u16::try_from(run.len())) else {
                continue;
            };
            let start = self.start(first);
            let entry = opcode::ProvideBuffers::new(start, length, count, GROUP, first).build();
            // SAFETY: as in `ReceiveBuffers::provide`; nobody holds these buffers.
            let provided = unsafe { op::submit(Rc::clone(self), entry) };
            let last = first.saturating_add(count - 1);
            tokio_uring::spawn(async move {
                let done = provided.await;
                if done.result.is_err() {
                    // The kernel had no memory for the list: they go with the next ones.
                    done.data.free.borrow_mut().extend(first..=last);
                }
            });
        }
        free.clear();
        if self.waiting.get() > 0 {
            self.returned.notify_waiters();
        }
        true
    }

    fn start(&self, id: u16) -> *mut u8 {
        let offset = usize::from(id) * self.buffer_octets;
        self.memory
            .get(offset)
            .map_or(std::ptr::null_mut(), UnsafeCell::get)
    }
}

/// A buffer with received octets, ours until dropped.
pub struct ReceiveBuffer {
    pool: Rc<Pool>,
    id: u16,
    octets: usize,
}

impl Deref for ReceiveBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the completion gave this buffer to us: the kernel writes nothing into it until `drop`
        // provides it again; `octets` is at most the buffer's length; the memory was zeroed at the start.
        unsafe { std::slice::from_raw_parts(self.pool.start(self.id), self.octets) }
    }
}

impl Drop for ReceiveBuffer {
    fn drop(&mut self) {
        if !runtime::is_running() {
            return; // the ring is going down, and the pool with it
        }
        let mut free = self.pool.free.borrow_mut();
        free.push(self.id);
        let enough = free.len() >= FREE_MAX || self.pool.waiting.get() > 0;
        drop(free);
        if enough {
            self.pool.provide_free();
        }
    }
}
