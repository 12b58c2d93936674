//! How events arrive: the consumer takes messages from Kafka, decode makes rows of them.

// decode
mod decode;
pub use decode::{Decoder, Limits};

// consumer
pub mod consumer;
pub mod error;
pub mod metrics;
pub mod topics;
pub use error::{Disposition, Error};
