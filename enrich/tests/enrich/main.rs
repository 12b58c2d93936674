//! Detection against a slow evaluator that shares nothing with it, and against what others found; the
//! places of addresses against the databases' own records.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, clippy::print_stderr)]

mod corpus;
mod correlate;
mod geo;
mod oracle;
mod properties;
mod rules;
mod support;
