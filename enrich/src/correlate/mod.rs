//! Correlation: threat events in, episodes out; the same events give the same episodes in whatever order
//! they come (`docs/correlation.md`).
//!
//! ```text
//! text ─ parse ─► Correlation ─ resolve ─► Correlations                              rules
//! events ─ correlator ─► groups ─┬─ sliding     monotone, over events ────────┬─ diff ─► changes
//!              ▲                 └─ whole       decided once, or over episodes ┘
//!              └── episodes that are inputs of other correlations
//! ```

mod address;
mod correlator;
mod decimal;
mod diff;
mod event;
mod forget;
mod group;
mod groups;
mod measure;
mod parse;
mod points;
mod resolve;
mod rule;
mod sliding;
mod stored;
mod whole;

pub use correlator::Correlator;
pub(crate) use diff::WentOn;
pub use event::{
    Change, ChangeKind, Dropped, Episode, Evicted, Identity, Options, Summary, TenantOptions, ThreatEvent,
};
pub use resolve::Correlations;
pub use rule::{Alias, Condition, Correlation, Kind, Operator};
pub use stored::stored;
