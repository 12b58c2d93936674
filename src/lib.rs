//! inosec: security telemetry from host to alert to archive.
//!
//! The binary is a thin `main`; what it does is here, so that tests and benches can use it.

pub mod cli;
pub mod config;
pub mod databases;
pub mod day;
pub mod event_file;
pub mod logs;
pub mod ops;
pub mod pipeline;
pub mod private_postgres;
pub mod producer;
pub mod rules;
