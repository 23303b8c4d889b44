//! I9: no node uses more memory than its limit, whatever the others send it. Owns the allocator of
//! this test program, which counts for each machine what is allocated while it runs. What the
//! simulation itself keeps for a machine (its disk, what it was told to put and what a get gave) is
//! allocated aside, and not counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What a node may use, in bytes (`core::limits`).
const LIMIT: i64 = 64 << 20;
/// Machines that are told apart; 0 stands for the simulation.
const OWNERS: usize = 64;

static LIVE: [AtomicI64; OWNERS] = [const { AtomicI64::new(0) }; OWNERS];
static MOST: [AtomicI64; OWNERS] = [const { AtomicI64::new(0) }; OWNERS];
static WRONG: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static OWNER: Cell<usize> = const { Cell::new(0) };
}

/// Until it is dropped, what this thread allocates belongs to a machine.
pub(crate) struct Books(usize);

impl Books {
    /// The books of machine `number`.
    pub(crate) fn of(number: usize) -> Self {
        Self(OWNER.replace(number + 1))
    }

    /// Nobody's books.
    pub(crate) fn aside() -> Self {
        Self(OWNER.replace(0))
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        OWNER.set(self.0);
    }
}

/// Which machines have used more than they may, each once.
pub(crate) fn check(machines: usize) -> Vec<String> {
    let over = (0..machines).filter(|at| {
        let over = MOST[at + 1].load(Ordering::Relaxed) > LIMIT;
        over && WRONG.fetch_or(1 << at, Ordering::Relaxed) >> at & 1 == 0
    });
    over.map(|at| format!("I9: n{at} uses more than {} MiB", LIMIT >> 20)).collect()
}

/// The most bytes that any machine has used.
pub(crate) fn most() -> i64 {
    MOST[1..].iter().map(|most| most.load(Ordering::Relaxed)).max().unwrap_or(0)
}

/// The allocator: before each allocation stands whose it is.
pub(crate) struct Counting;

/// Bytes before an allocation, which keep its alignment.
fn head(layout: Layout) -> usize {
    layout.align().max(16)
}

fn with_head(layout: Layout, size: usize) -> Option<Layout> {
    let head = head(layout);
    Layout::from_size_align(size.checked_add(head)?, head).ok()
}

fn count(owner: usize, bytes: i64) {
    let live = LIVE[owner].fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST[owner].fetch_max(live, Ordering::Relaxed);
}

/// The place behind the owner in what the system gave.
///
/// # Safety
/// `start` is null or has [`head`] bytes more than the layout.
#[allow(unsafe_code, reason = "see the allocator")]
unsafe fn given_out(start: *mut u8, layout: Layout) -> *mut u8 {
    if start.is_null() {
        return start;
    }
    let owner = OWNER.try_with(Cell::get).unwrap_or(0) % OWNERS;
    count(owner, layout.size() as i64);
    // SAFETY: `head` bytes, at least 16, lie before the place that is given out.
    unsafe {
        let place = start.add(head(layout));
        place.sub(8).cast::<usize>().write(owner);
        place
    }
}

#[allow(unsafe_code, reason = "an allocator cannot be written otherwise")]
// SAFETY: everything is the system allocator's, with room for the owner before what is given out;
// the room is a multiple of the alignment.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(full) = with_head(layout, layout.size()) else { return std::ptr::null_mut() };
        // SAFETY: the size is not zero.
        unsafe { given_out(System.alloc(full), layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(full) = with_head(layout, layout.size()) else { return std::ptr::null_mut() };
        // SAFETY: as in `alloc`.
        unsafe { given_out(System.alloc_zeroed(full), layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        let Some(full) = with_head(layout, layout.size()) else { return };
        // SAFETY: `place` was given out by `alloc` with this layout.
        unsafe {
            count(place.sub(8).cast::<usize>().read(), -(layout.size() as i64));
            System.dealloc(place.sub(head(layout)), full);
        }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (Some(full), Some(new)) = (with_head(layout, layout.size()), with_head(layout, size))
        else {
            return std::ptr::null_mut();
        };
        // SAFETY: as above; the owner moves with the bytes.
        unsafe {
            let start = System.realloc(place.sub(head(layout)), full, new.size());
            if start.is_null() {
                return start;
            }
            let place = start.add(head(layout));
            count(place.sub(8).cast::<usize>().read(), size as i64 - layout.size() as i64);
            place
        }
    }
}
