//! Threat events of files to the episodes that the road would make alerts of.
//!
//! The correlator's changes are kept in a ledger, as the road keeps them in tables: what passes the
//! correlator's horizon stays. There is no limit: a run takes the memory of its threat events.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use inosec_enrich::correlate::{Change, ChangeKind, Identity, Options, ThreatEvent};
use inosec_enrich::{Correlation, Correlations, Correlator, Rule};
use uuid::Uuid;

use super::detections::Detected;

/// Folds threat events.
#[derive(Debug)]
pub struct Episodes {
    correlator: Correlator,
    times: HashMap<Uuid, i64>,
    ledger: BTreeMap<u64, Entry>,
    latest: i64,
}

#[derive(Debug)]
struct Entry {
    of: Arc<Identity>,
    members: HashSet<Uuid>,
}

/// An episode.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Episode {
    /// The time of its first member, in microseconds UTC.
    pub first_seen: i64,
    /// The time of its last member.
    pub last_seen: i64,
    /// Of what.
    pub of: Arc<Identity>,
    /// The ids of its threat events, by time and id.
    pub members: Vec<Uuid>,
}

/// A correlation with those it builds on, so that its own episodes are the ones that make alerts. What
/// doesn't resolve is left out.
#[must_use]
pub fn alone(rule: &Correlation, correlations: &[Correlation], rules: &[Rule]) -> Correlations {
    let (mut needed, mut seen) = (vec![rule.clone()], HashSet::from([rule.id.as_str()]));
    let mut at = 0;
    while at < needed.len() {
        let named = |other: &Correlation| {
            needed[at].rules.iter().any(|name| *name == other.id || Some(name) == other.name.as_ref())
        };
        let parents: Vec<&Correlation> = correlations.iter().filter(|other| named(other)).collect();
        needed.extend(parents.into_iter().filter(|other| seen.insert(&other.id)).cloned());
        at += 1;
    }
    Correlations::new(&needed, rules).0
}

impl Episodes {
    /// Without events, and without limits.
    #[must_use]
    pub fn new(rules: Arc<Correlations>, options: Options) -> Self {
        let options =
            Options { max_groups: usize::MAX, max_entries: usize::MAX, max_bytes: usize::MAX, ..options };
        Self {
            correlator: Correlator::new(rules, options),
            times: HashMap::new(),
            ledger: BTreeMap::new(),
            latest: i64::MIN,
        }
    }

    /// Adds threat events, in any order; repeated ones change nothing.
    pub fn add(&mut self, detected: &[Detected]) {
        let events: Vec<ThreatEvent<'_>> =
            detected.iter().map(|detected| ThreatEvent::from(&detected.event)).collect();
        self.times.extend(events.iter().map(|event| (event.id, event.time)));
        self.latest = events.iter().map(|event| event.time).fold(self.latest, i64::max);
        let changes = self.correlator.insert(&events);
        changes.into_iter().for_each(|change| self.note(change));
    }

    /// Lets so much time pass after the last event that every window is decided; the episodes in order of
    /// time.
    #[must_use]
    pub fn finish(mut self) -> Vec<Episode> {
        let end = self.latest.saturating_add(self.correlator.horizon());
        let changes = self.correlator.advance(end);
        changes.into_iter().for_each(|change| self.note(change));
        let Self { times, ledger, .. } = self;
        let mut episodes: Vec<Episode> =
            ledger.into_values().filter_map(|entry| entry.episode(&times)).collect();
        episodes.sort_unstable();
        episodes
    }

    fn note(&mut self, change: Change) {
        match change.kind {
            // The table keeps what the correlator forgets.
            ChangeKind::Settled => return,
            ChangeKind::Withdrawn => {
                self.ledger.remove(&change.number);
                return;
            }
            ChangeKind::Opened | ChangeKind::Grown | ChangeKind::Merged | ChangeKind::Shrunk => {}
        }
        let absorbed: Vec<Entry> =
            change.absorbed.iter().filter_map(|number| self.ledger.remove(number)).collect();
        let entry = self
            .ledger
            .entry(change.number)
            .or_insert_with(|| Entry { of: Arc::clone(&change.summary.of), members: HashSet::new() });
        entry.members.extend(absorbed.into_iter().flat_map(|entry| entry.members));
        entry.members.extend(change.added);
        change.removed.iter().for_each(|id| _ = entry.members.remove(id));
    }
}

impl Entry {
    fn episode(self, times: &HashMap<Uuid, i64>) -> Option<Episode> {
        let timed = self.members.into_iter().filter_map(|id| Some((*times.get(&id)?, id)));
        let mut timed: Vec<(i64, Uuid)> = timed.collect();
        timed.sort_unstable();
        Some(Episode {
            first_seen: timed.first()?.0,
            last_seen: timed.last()?.0,
            of: self.of,
            members: timed.into_iter().map(|(_, id)| id).collect(),
        })
    }
}
