//! The whole of inosec against real servers. `make test` starts them; a missing one fails its tests. Rules
//! and arrows need none.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, clippy::print_stderr)]

mod arrows;
mod bad_input;
mod bounded;
mod commands;
mod conservation;
mod database_faults;
mod exactly_once;
mod rules;
mod rules_corpus;
mod streams;
mod support;
