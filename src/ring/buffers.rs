//! Receive buffers that the kernel chooses from, so that an idle session holds none.
//!
//! They are one piece of memory, and a ring of entries that is shared with the kernel
//! (`IORING_REGISTER_PBUF_RING`). A buffer is given back by writing its entry; there is no operation for it, and
//! nothing to wait for.
//!
//! ```text
//!   entries:  … [3][4][5][6] tail
//!   receive completes with 3 ──▶ ReceiveBuffer{3} ──drop──▶ … [4][5][6][3] tail
//! ```

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// The one group of a ring.
pub(super) const GROUP: u16 = 0;

/// The buffers of one ring.
pub(super) struct Buffers(Rc<Pool>);

struct Pool {
    memory: Zeroed,
    buffer_octets: u16,
    entries: Zeroed,
    mask: u16,
    /// The entry that is written next, before it is masked.
    tail: Cell<u16>,
}

impl Buffers {
    /// Makes `count` buffers, a power of two, of `buffer_octets` each, and gives them to `ring`.
    pub(super) fn register(ring: &IoUring, count: u16, buffer_octets: u16) -> io::Result<Buffers> {
        assert!(count.is_power_of_two(), "{count} entries make no ring");
        let octets = usize::from(count) * usize::from(buffer_octets);
        let memory = Layout::array::<u8>(octets).map_err(io::Error::other)?;
        // The kernel wants the ring of entries to begin a page.
        let entries = Layout::array::<BufRingEntry>(usize::from(count))
            .and_then(|layout| layout.align_to(rustix::param::page_size()))
            .map_err(io::Error::other)?;
        let pool = Pool {
            memory: Zeroed::new(memory),
            buffer_octets,
            entries: Zeroed::new(entries),
            mask: count - 1,
            tail: Cell::new(0),
        };
        let start = pool.entries.start.as_ptr().expose_provenance();
        // SAFETY: so many entries are there, they begin a page, and they stay as long as the ring does: whoever
        // holds both drops the ring first, and frees nothing while a receive is in flight.
        unsafe {
            ring.submitter()
                .register_buf_ring(start as u64, count, GROUP)?;
        }
        for id in 0..count {
            pool.give_back(id);
        }
        Ok(Buffers(Rc::new(pool)))
    }

    /// Takes over the buffer that a receive's completion names.
    ///
    /// # Safety
    ///
    /// The kernel has completed a receive of so many octets into it, and nobody took it over for that before.
    pub(super) unsafe fn filled(&self, id: u16, octets: usize) -> ReceiveBuffer {
        let octets = u16::try_from(octets).unwrap_or(u16::MAX);
        ReceiveBuffer(Content::Pooled(Pooled {
            pool: Rc::clone(&self.0),
            id,
            octets: octets.min(self.0.buffer_octets),
        }))
    }
}

impl Pool {
    /// Gives a buffer back to the kernel, which may write into it from now on.
    fn give_back(&self, id: u16) {
        let entries = self.entries.start.cast::<BufRingEntry>();
        let tail = self.tail.get();
        // SAFETY: the place is within the entries.
        let mut entry = unsafe { entries.add(usize::from(tail & self.mask)) };
        // SAFETY: the kernel reads an entry only once the tail has passed it, and there are never more buffers given
        // back than there are entries; nobody else has a reference to it.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(self.start(id).as_ptr().expose_provenance() as u64);
        entry.set_len(u32::from(self.buffer_octets));
        entry.set_bid(id);
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        // SAFETY: the tail lies in the first entry, in a field that the setters above leave alone.
        let shared = unsafe { entries.cast::<u16>().add(TAIL) };
        // SAFETY: it is there as long as the entries are, and the kernel only reads it.
        let shared = unsafe { AtomicU16::from_ptr(shared.as_ptr()) };
        shared.store(tail, Ordering::Release);
    }

    fn start(&self, id: u16) -> NonNull<u8> {
        let offset = usize::from(id & self.mask) * usize::from(self.buffer_octets);
        // SAFETY: there are as many buffers as the mask lets through.
        unsafe { self.memory.start.add(offset) }
    }
}

/// Octets that were received.
pub struct ReceiveBuffer(Content);

enum Content {
    Pooled(Pooled),
    Copied(Box<[u8]>),
}

/// A buffer of the pool, ours until dropped.
struct Pooled {
    pool: Rc<Pool>,
    id: u16,
    octets: u16,
}

impl ReceiveBuffer {
    /// The same octets, and the buffer goes back.
    pub(super) fn out_of_the_pool(self) -> ReceiveBuffer {
        match self.0 {
            Content::Pooled(pooled) => ReceiveBuffer(Content::Copied(Box::from(&*pooled))),
            copied @ Content::Copied(_) => ReceiveBuffer(copied),
        }
    }
}

impl Deref for ReceiveBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Content::Pooled(pooled) => pooled,
            Content::Copied(copy) => copy,
        }
    }
}

impl Deref for Pooled {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.pool.start(self.id);
        // SAFETY: the completion gave this buffer to us: the kernel writes nothing into it until `drop` gives it
        // back; `octets` is at most the buffer's length; the memory was zeroed at the start.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), usize::from(self.octets)) }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.give_back(self.id);
    }
}

/// Where the tail lies in the first entry: `struct io_uring_buf_ring`, in units of two octets.
const TAIL: usize = 7;

/// Memory that the kernel writes into, or reads, beside us: nothing ever borrows all of it.
struct Zeroed {
    start: NonNull<u8>,
    layout: Layout,
}

impl Zeroed {
    fn new(layout: Layout) -> Zeroed {
        assert!(layout.size() > 0, "nothing to allocate");
        // SAFETY: the layout has a size.
        let start = unsafe { alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => Zeroed { start, layout },
            None => handle_alloc_error(layout),
        }
    }
}

impl Drop for Zeroed {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and the kernel does not use it any more (see `Buffers::register`).
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
