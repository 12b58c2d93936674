//! inosec: security telemetry from host to alert to archive.
//!
//! The binary is a thin `main`; what it does is here, so that tests and benches can use it.

pub mod config;
