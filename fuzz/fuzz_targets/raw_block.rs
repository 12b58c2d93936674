//! Bytes read as a raw block, and as the content of one: an error or a block, never a panic, and no more
//! memory than the frame can stand for.
//!
//! In: one byte that says whether the rest is a frame or what is inside one.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use inosec_sink::{MAX_PLAIN, read_block};
use libfuzzer_sys::fuzz_target;

/// Counts what is allocated, freed or not.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// At most 128 KiB come of four bytes of a frame (RFC 8878 §3.1.1.2).
const MOST: usize = 32 << 10;

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let packed;
    let frame = if kind & 1 == 0 {
        rest
    } else {
        packed = zstd::bulk::compress(rest, 1).expect("compresses");
        &packed
    };
    let before = ALLOCATED.load(Ordering::Relaxed);
    let read = read_block(frame);
    let allocated = ALLOCATED.load(Ordering::Relaxed) - before;
    // The content, and a place of 16 bytes for each 12 of it.
    let most = frame.len().saturating_mul(MOST).min(MAX_PLAIN);
    assert!(allocated <= most / 12 * 28 + 1024, "{allocated} bytes for a frame of {}", frame.len());

    let Ok(block) = read else { return };
    let mut last = None;
    let mut bytes = 0;
    for (seq, message) in block.iter() {
        assert!(last.replace(seq).is_none_or(|last| last < seq), "seqs rise");
        assert_eq!(block.find(seq), Some(message));
        bytes += message.len();
    }
    assert_eq!((block.iter().len(), block.bytes()), (block.len(), bytes));
});
