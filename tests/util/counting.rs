//! An allocator that counts. Resident memory also tells what an allocator keeps for itself, which depends on who else has
//! work to do; this does not. A test makes it its own with `#[global_allocator]`.

#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// The system's allocator, with two counters.
pub struct Counting;

static LIVE: AtomicI64 = AtomicI64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Bytes of this process that were allocated and not given back.
pub fn live() -> i64 {
    LIVE.load(Relaxed)
}

/// Bytes that were ever allocated, given back or not.
pub fn taken() -> u64 {
    TAKEN.load(Relaxed)
}

// SAFETY: everything is done by the system's allocator; beside it there are only counters.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as i64, Relaxed);
        TAKEN.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size as i64 - layout.size() as i64, Relaxed);
        TAKEN.fetch_add(size as u64, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
