//! Receive buffers that the kernel hands out when octets arrive, so that an idle session holds none.
//!
//! The pool is given to the kernel once (`PROVIDE_BUFFERS`). A receive names the group, not a buffer; its
//! completion says which buffer was filled. Dropping a [`ReceiveBuffer`] gives it back with the next batch.
//!
//! ```text
//!   kernel's list:  [3][7][0][4] …        one in use by a shard:  [5]
//!   recv completes with 3  ──▶ ReceiveBuffer{3}  ──drop──▶ PROVIDE_BUFFERS(3) ──▶ kernel's list
//! ```
//!
//! No buffer outlives the step in which a session looks at it (see `shard::dialogue`), so a slow peer cannot
//! keep one. When a burst empties the list, receives fail with `ENOBUFS` and wait here for the next return.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::ops::Deref;
use std::rc::Rc;

use io_uring::opcode;
use tokio::sync::Notify;

use super::{op, runtime};

/// The one group of a ring.
pub(super) const GROUP: u16 = 0;

/// A shard's pool of receive buffers. Cloning shares it.
#[derive(Clone)]
pub struct ReceiveBuffers(Rc<Pool>);

struct Pool {
    memory: Box<[UnsafeCell<u8>]>,
    buffer_octets: usize,
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
        self.0.waiting.set(self.0.waiting.get() + 1);
        self.0.returned.notified().await;
        self.0.waiting.set(self.0.waiting.get() - 1);
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

impl Pool {
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
        let length = i32::try_from(self.pool.buffer_octets).unwrap_or(i32::MAX);
        let entry =
            opcode::ProvideBuffers::new(self.pool.start(self.id), length, 1, GROUP, self.id)
                .build();
        // SAFETY: as in `provide`; from here on nobody reads the buffer through this value.
        drop(unsafe { op::submit((), entry) });
        if self.pool.waiting.get() > 0 {
            self.pool.returned.notify_one();
        }
    }
}
