//! How events arrive: the consumer takes messages from Kafka, decode makes rows of them.
//!
//! ```text
//!  Kafka ─► consumer ─► Messages ─► decode ─► Batch: rows, detections, dead letters
//!           one thread, lanes       pure, on worker threads
//! ```
//!
//! The consumer knows nothing of tables and decode nothing of Kafka: what goes between them, and what
//! leaves, are types of `inosec-schemas`. Where a partition starts is asked with an event and answered
//! with a command.

mod decode;
pub use decode::{Decoder, Decoding, Extractor, Limits, Watch};

pub mod consumer;
pub mod error;
pub mod metrics;
pub mod topics;
pub use error::{Disposition, Error};
