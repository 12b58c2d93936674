//! What the fuzz targets share: the road from bytes to sealed batches without servers, and what must
//! hold at its end whatever the bytes were; and the way of an event through detection.
//!
//! A check that fails panics, which is how libFuzzer learns of it. Nothing here shares code with what
//! it judges, except the types.

mod check;
mod copy;
mod detect;
mod road;

pub use check::{batch, cells, sealed};
pub use copy::tuples;
pub use detect::{Detect, Seen};
pub use road::{ARRIVED_AT, LIMITS, Road, SOUND, Sent};
