//! What this process and its loops use. A test of it has its process for itself: it is the only one of its file, which
//! makes [`Counting`] its `#[global_allocator]`.
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// Bytes of this process that were allocated and not given back, and the most that there ever were. Resident memory also
/// tells what an allocator keeps for itself, which depends on who else has work to do.
static LIVE: AtomicI64 = AtomicI64::new(0);
static MOST: AtomicI64 = AtomicI64::new(0);
/// Bytes that were ever allocated.
static TAKEN: AtomicI64 = AtomicI64::new(0);
/// What the system's allocator takes for the live ones: with what it rounds up and the word before each.
static CHUNKS: AtomicI64 = AtomicI64::new(0);

/// The system's allocator, counted.
pub struct Counting;

fn grow(bytes: i64) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    MOST.fetch_max(live, Relaxed);
    TAKEN.fetch_add(bytes.max(0), Relaxed);
}

// SAFETY: everything is done by the system's allocator; beside it there are only counters.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size() as i64);
        // SAFETY: the caller's promise.
        let pointer = unsafe { System.alloc(layout) };
        CHUNKS.fetch_add(chunk(pointer), Relaxed);
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        grow(-(layout.size() as i64));
        CHUNKS.fetch_sub(chunk(pointer), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size as i64 - layout.size() as i64);
        let before = chunk(pointer);
        // SAFETY: the caller's promise.
        let pointer = unsafe { System.realloc(pointer, layout, size) };
        CHUNKS.fetch_add(chunk(pointer) - before, Relaxed);
        pointer
    }
}

/// What the allocator keeps for this block: its usable bytes and the word before them.
fn chunk(pointer: *mut u8) -> i64 {
    // SAFETY: a block of the system's allocator, or null, for which it returns 0.
    (unsafe { libc::malloc_usable_size(pointer.cast()) } + size_of::<usize>()) as i64
}

/// What the allocator keeps for all that is allocated now.
pub fn chunks() -> i64 {
    CHUNKS.load(Relaxed)
}

/// Bytes that are allocated now.
pub fn live() -> i64 {
    LIVE.load(Relaxed)
}

/// Bytes that were ever allocated, given back or not.
pub fn taken() -> i64 {
    TAKEN.load(Relaxed)
}

/// By how much memory grew at most, over what it was before, while `body` ran.
pub fn most_while<T>(body: impl FnOnce() -> T) -> (T, i64) {
    let before = live();
    MOST.store(before, Relaxed);
    let result = body();
    (result, MOST.load(Relaxed) - before)
}

/// Processor time of the loops' threads in nanoseconds, and how often they were woken.
pub fn loops_cpu() -> (u64, u64) {
    let mut sum = (0, 0);
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").starts_with("wsredis-") {
            let schedstat = read("schedstat");
            let mut numbers = schedstat.split_whitespace().map(|n| n.parse::<u64>().unwrap());
            sum.0 += numbers.next().unwrap_or(0);
            sum.1 += numbers.nth(1).unwrap_or(0);
        }
    }
    sum
}
