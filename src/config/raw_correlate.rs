//! What makes alerts of threat events, as the file says it: `[correlate]`, and which roles a process has.

use std::time::Duration;

use inosec_enrich::Level;
use serde::Deserialize;

use super::units::{Bytes, Span};
use super::{Correlate, Role};

/// Few agents keep events back for longer.
const ALLOWED_LATENESS: Duration = Duration::from_hours(1);
/// After an hour of silence what a rule finds on a host is another story.
const GAP: Duration = Duration::from_hours(1);
/// Who reads changes and was away for longer reads the alerts.
const KEEP_CHANGES: Duration = Duration::from_hours(30 * 24);
const LEAST_KEPT: Duration = Duration::from_hours(24);
/// A year: every event of it would be kept in mind.
const LONGEST: Duration = Duration::from_hours(366 * 24);
/// With a million entries about 100 MB for one tenant.
const MAX_GROUPS: usize = 100_000;
const MAX_ENTRIES: usize = 1_000_000;
/// Of all tenants; three and a half million events.
const MEMORY: Bytes = Bytes(256 << 20);
const LEAST_MEMORY: Bytes = Bytes(1 << 20);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawCorrelate {
    allowed_lateness: Option<Span>,
    gap: Option<Span>,
    alert_level: Option<Level>,
    max_groups: Option<usize>,
    max_entries: Option<usize>,
    memory: Option<Bytes>,
    keep_changes: Option<Span>,
    alerts_topic: Option<String>,
}

impl RawCorrelate {
    pub(super) fn check(self, faults: &mut Vec<String>) -> Correlate {
        let mut span = |name: &str, span: Option<Span>, default: Duration| {
            let span = span.map_or(default, |span| span.0);
            if span > LONGEST {
                faults.push(format!("correlate.{name}: at most {}", Span(LONGEST)));
            }
            span
        };
        let allowed_lateness = span("allowed_lateness", self.allowed_lateness, ALLOWED_LATENESS);
        let gap = span("gap", self.gap, GAP);
        let mut count = |name: &str, count: Option<usize>, default: usize| {
            let count = count.unwrap_or(default);
            if count == 0 {
                faults.push(format!("correlate.{name}: at least 1"));
            }
            count
        };
        let max_groups = count("max_groups", self.max_groups, MAX_GROUPS);
        let max_entries = count("max_entries", self.max_entries, MAX_ENTRIES);
        if self.alerts_topic.as_deref() == Some("") {
            faults.push("correlate.alerts_topic is empty: name a topic, or leave it out".to_owned());
        }
        let alerts_topic = self.alerts_topic;
        let keep_changes = self.keep_changes.map_or(KEEP_CHANGES, |span| span.0);
        if keep_changes < LEAST_KEPT {
            faults.push(format!("correlate.keep_changes: at least {}", Span(LEAST_KEPT)));
        }
        let memory = self.memory.unwrap_or(MEMORY);
        if memory.0 < LEAST_MEMORY.0 {
            faults.push(format!("correlate.memory: at least {LEAST_MEMORY}"));
        }
        Correlate {
            allowed_lateness,
            gap,
            alert_level: self.alert_level.unwrap_or(Level::High),
            max_groups,
            max_entries,
            memory: usize::try_from(memory.0).unwrap_or(usize::MAX),
            keep_changes,
            alerts_topic,
        }
    }
}

/// Reads `roles`; all, if nothing is said.
pub(super) fn check_roles(roles: Option<Vec<String>>, faults: &mut Vec<String>) -> Vec<Role> {
    let Some(names) = roles else { return Role::ALL.to_vec() };
    let mut roles = Vec::new();
    for name in &names {
        match Role::ALL.into_iter().find(|role| role.name() == name) {
            Some(role) => roles.push(role),
            None => faults.push(format!("roles: {name:?} is none: ingest, correlate")),
        }
    }
    if names.is_empty() {
        faults.push("roles: name at least one of ingest, correlate".to_owned());
    }
    roles
}
