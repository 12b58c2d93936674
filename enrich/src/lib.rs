//! What is added to events: where their addresses are ([`geo`]); detection, Sigma rules in, hits out; and
//! correlation, hits in, episodes out ([`correlate`]), episodes in, alerts out ([`alert`]).
//!
//! Pure: no clock, no I/O. Rule texts are parsed ([`parse`]) and compiled once for all tenants into an
//! [`Engine`]; a [`Matcher`] carries a batch of events of one [`EventClass`](inosec_schemas::EventClass), as columns, over it and
//! gives the [`Hit`]s that each tenant's [`Selection`] lets through.

pub mod alert;
pub mod correlate;
mod detect;
pub mod geo;
mod limit;
pub mod metrics;
mod ruleset;
pub mod sigma;

pub use alert::Ledger;
pub use correlate::{Correlation, Correlations, Correlator};
pub use detect::Detector;
pub use limit::Limiter;
pub use ruleset::{RuleFiles, Ruleset};

pub use sigma::{
    ClassId, Cost, Engine, Filter, FilterId, Hit, Level, LogSource, Matcher, Parsed, Placeholders, Problem,
    Rule, RuleId, Selection, Tenants, TooLarge, costs, parse,
};
