//! An allocator that counts what is alive, for programs that measure memory.
//!
//! A program makes it its own (`#[global_allocator] static ALLOCATOR: Counting = Counting;`) and says from when on it counts.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
};

/// Sizes up to this are counted one by one.
const SIZES: usize = 32 << 10;

static COUNTS: AtomicBool = AtomicBool::new(false);
static LIVE: AtomicI64 = AtomicI64::new(0);
static BY_SIZE: [AtomicI64; SIZES] = [const { AtomicI64::new(0) }; SIZES];

/// The system's allocator, counting what is alive once [`count_from_now`] was called.
#[derive(Debug)]
pub struct Counting;

fn count(size: usize, n: i64) {
    if COUNTS.load(Relaxed) {
        LIVE.fetch_add(n * size as i64, Relaxed);
        if let Some(of_size) = BY_SIZE.get(size) {
            of_size.fetch_add(n, Relaxed);
        }
    }
}

// SAFETY: every call goes to the system's allocator unchanged; the counters allocate nothing.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Begins to count. What was there before is not counted, so that only differences mean something.
pub fn count_from_now() {
    COUNTS.store(true, Relaxed);
}

/// Bytes alive.
pub fn live() -> i64 {
    LIVE.load(Relaxed)
}

/// Blocks alive, by their size.
pub fn blocks() -> Vec<i64> {
    BY_SIZE.iter().map(|n| n.load(Relaxed)).collect()
}

/// How many more blocks of each size are alive than in `before`.
pub fn grown(before: &[i64]) -> Vec<(i64, usize)> {
    BY_SIZE.iter().zip(before).enumerate().map(|(size, (n, old))| (n.load(Relaxed) - old, size)).collect()
}
