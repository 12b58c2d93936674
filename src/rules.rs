//! Detection rules on disk: loaded, checked, measured, tried on files of events.
//!
//! ```text
//! paths ─ load ─► Parsed ─ Engine ─┬─ lint, measure ─► what to change      rules check
//!                                  ├─ Evaluator ────► hits by line         rules eval
//!                                  ├─ Detections ───► Episodes             rules eval, test
//!                                  ├─ Explanation ──► why, part by part    rules eval --explain
//!                                  └─ pack ─────────► fixtures that fail   rules test
//! ```
//!
//! No server is asked for anything, and events take the road's own way from bytes to columns.

mod detections;
mod episodes;
mod evaluator;
mod explain;
mod lint;
mod load;
mod measure;
pub mod pack;

use std::path::PathBuf;

use inosec_enrich::Placeholders;
use inosec_ingest::Limits;

use crate::config::{self, Config, micros};

pub use detections::{Detected, Detections, Event, TENANT};
pub use episodes::{Episode, Episodes, alone};
pub use evaluator::{Evaluator, Outcome};
pub use explain::{Explainer, Explanation};
pub use lint::{NEVER_RUNS, Warning, lint};
pub use load::{Configured, add, configured, load};
pub use measure::{Measured, Sample};

/// Why rules or events could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path leads nowhere, or can't be read.
    #[error("{path}: {source}")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is of no kind that holds rules.
    #[error("{0}: rules are YAML (.yml, .yaml) or JSON lines (.jsonl, .ndjson, .json), also with .zst")]
    Kind(PathBuf),
    /// The rules don't go together.
    #[error(transparent)]
    TooLarge(#[from] inosec_enrich::TooLarge),
    /// The networks of documentation are in another order.
    #[error(transparent)]
    Geo(#[from] inosec_enrich::geo::Error),
    /// A stream is missing.
    #[error("there is no stream {0}: the schemas in the configured folder took its place")]
    NoStream(&'static str),
    /// There is no pack.
    #[error("{0}: no pack of rules: a folder `detection` or `correlation` beside a folder `fixtures`")]
    NoPack(PathBuf),
}

impl Error {
    fn path(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        |source| Self::Path { path: path.into(), source }
    }
}

/// What placeholders stand for, as configured.
#[must_use]
pub fn placeholders(rules: &config::Rules) -> Placeholders {
    rules.placeholders.iter().map(|(name, values)| (name.clone(), values.clone())).collect()
}

/// What a message may be, as configured.
#[must_use]
pub fn limits(config: &Config) -> Limits {
    Limits {
        max_age_us: micros(config.time.max_age),
        max_skew_us: micros(config.time.max_skew),
        max_message_bytes: config.limits.max_message_bytes,
        max_depth: config.limits.max_depth,
    }
}

/// A log source as people write it.
#[must_use]
pub fn logsource(from: &inosec_enrich::LogSource) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
    format!("{}/{}/{}", part(&from.product), part(&from.category), part(&from.service))
}
