//! What is added to events and detected in them, as the file says it: `[geo]`, `[rules]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::units::Span;
use super::{Geo, Rules};

/// Sixteen a second of one rule: nobody reads more, and correlation has seen enough.
const MAX_PER_MINUTE: u32 = 1_000;
/// What was let through is remembered, so it can't be without end.
const MOST_PER_MINUTE: u32 = 100_000;
/// Databases come out twice a week; a look at a file costs microseconds.
const GEO_RELOAD: Duration = Duration::from_mins(1);
const GEO_RELOAD_LEAST: Duration = Duration::from_millis(100);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawGeo {
    country: Option<PathBuf>,
    asn: Option<PathBuf>,
    reload: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRules {
    builtin: bool,
    paths: Vec<PathBuf>,
    optional: Vec<PathBuf>,
    max_per_minute: Option<u32>,
    placeholders: BTreeMap<String, Vec<String>>,
}

impl RawGeo {
    pub(super) fn check(self, faults: &mut Vec<String>) -> Geo {
        let reload = self.reload.map_or(GEO_RELOAD, |span| span.0);
        if reload < GEO_RELOAD_LEAST {
            faults.push(format!("geo.reload must be at least {}", Span(GEO_RELOAD_LEAST)));
        }
        Geo { country: self.country, asn: self.asn, reload }
    }
}

impl RawRules {
    pub(super) fn check(self, faults: &mut Vec<String>) -> Rules {
        let max_per_minute = self.max_per_minute.unwrap_or(MAX_PER_MINUTE);
        if !(1..=MOST_PER_MINUTE).contains(&max_per_minute) {
            faults.push(format!("rules.max_per_minute: between 1 and {MOST_PER_MINUTE}"));
        }
        Rules {
            builtin: self.builtin,
            paths: self.paths,
            optional: self.optional,
            max_per_minute,
            placeholders: self.placeholders,
        }
    }
}
