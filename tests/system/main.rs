//! The whole of inosec against real servers. `make test` starts them; a missing one fails its tests. Rules
//! and arrows need none.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, clippy::print_stderr)]

mod arrows;
mod bad_input;
mod bounded;
mod commands;
mod conservation;
mod corpus_alerts;
mod correlation;
mod database_faults;
mod detection;
mod exactly_once;
mod foreign;
mod geo;
mod rules;
mod rules_backtest;
mod rules_corpus;
mod rules_correlation;
mod streams;
mod support;
mod traps;

#[path = "../../enrich/tests/enrich/support.rs"]
#[expect(dead_code, reason = "the engine's own tests use all of it")]
mod events;
/// The full-scan oracle of detection, and the corpus as it takes it.
#[path = "../../enrich/tests/enrich/oracle/mod.rs"]
#[expect(dead_code, reason = "the engine's own tests use all of it")]
mod oracle;
/// Correlation by its definitions.
#[path = "../../enrich/tests/enrich/correlate/reference.rs"]
#[expect(dead_code, reason = "the correlator's own tests use all of it")]
mod reference;
