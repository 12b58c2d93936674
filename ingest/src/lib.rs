//! inosec ingest

// consumer
pub mod consumer;
pub mod error;
pub mod metrics;
pub mod topics;
pub use error::{Disposition, Error};
