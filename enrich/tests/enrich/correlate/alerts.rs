//! Whoever leads and whenever: the alerts that are written are the episodes there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;
use inosec_enrich::alert::Events;
use inosec_enrich::correlate::{ChangeKind, Episode};
use inosec_enrich::{Correlations, Correlator, Ledger};
use inosec_schemas::{Alert, AlertWrites, StoredThreatEvent};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

use super::properties::{batches, config, events, setting};
use super::reference::{Event, SECOND, Setting};
use super::support;

/// What the database holds, as the statements of a transaction leave it.
#[derive(Debug, Default)]
struct Store {
    alerts: BTreeMap<Uuid, Alert>,
    live: BTreeSet<Uuid>,
    members: BTreeMap<Uuid, BTreeSet<Uuid>>,
}

impl Store {
    fn write(&mut self, writes: AlertWrites) {
        for (alert, event) in writes.removed {
            self.members.entry(alert).or_default().remove(&event);
        }
        let before = self.members.clone();
        for (gone, into) in &writes.merged {
            self.members.entry(*into).or_default().extend(before.get(gone).into_iter().flatten());
        }
        for (alert, key) in writes.added {
            self.members.entry(alert).or_default().insert(key.id);
        }
        for (alert, ..) in writes.alerts {
            if self.alerts.insert(alert.id, alert.clone()).is_none() {
                self.live.insert(alert.id);
            }
        }
        let merged = writes.merged.into_iter().map(|(gone, _)| gone);
        for gone in merged.chain(writes.withdrawn).chain(writes.settled) {
            self.live.remove(&gone);
        }
    }

    fn live(&self) -> Vec<(Alert, Vec<Uuid>)> {
        let members = |id: &Uuid| self.members.get(id).into_iter().flatten().copied().collect();
        self.live.iter().map(|id| (self.alerts[id].clone(), members(id))).collect()
    }

    /// The members of live alerts by tenant, rule and group.
    fn by_group(&self) -> BTreeMap<Key, Vec<BTreeSet<Uuid>>> {
        let mut groups: BTreeMap<Key, Vec<BTreeSet<Uuid>>> = BTreeMap::new();
        for (alert, members) in self.live() {
            let key = (alert.tenant_id, alert.rule_id, alert.grouped_by.into_values().collect());
            groups.entry(key).or_default().push(members.into_iter().collect());
        }
        groups
    }
}

type Key = (Uuid, String, Vec<String>);

fn by_group(episodes: Vec<Episode>) -> BTreeMap<Key, Vec<BTreeSet<Uuid>>> {
    let mut groups: BTreeMap<Key, Vec<BTreeSet<Uuid>>> = BTreeMap::new();
    for Episode { summary, members, .. } in episodes {
        let of = &summary.of;
        let values: BTreeMap<&String, &String> = of.group.iter().map(|(name, value)| (name, value)).collect();
        let key = (of.tenant.0, of.rule.clone(), values.into_values().cloned().collect());
        groups.entry(key).or_default().push(members.into_iter().collect());
    }
    groups
}

fn stored(events: &[Event]) -> Events {
    let one = |event: &Event| {
        let (tenant, id) = (support::tenant(event.tenant), support::id(event.id));
        let (ts, host_name) = (event.time * SECOND, event.host.clone());
        ((tenant, id), StoredThreatEvent { ts, host_name, ..StoredThreatEvent::of(tenant, id) })
    };
    events.iter().map(one).collect()
}

/// A correlator with its ledger, as one that leads has them.
struct Leader {
    correlator: Correlator,
    ledger: Ledger,
}

impl Leader {
    /// One that takes over what was given and written so far.
    fn new(
        rules: &Arc<Correlations>,
        setting: &Setting,
        given: &[Event],
        now: i64,
        store: &mut Store,
    ) -> Self {
        let given_events = support::threat_events(given);
        let mut correlator =
            Correlator::rebuild(Arc::clone(rules), support::options(setting), &given_events, now * SECOND);
        let mut ledger = Ledger::new(rules, Uuid::new_v4);
        correlator.number_anew();
        let same = ledger.take_over(store.live(), &correlator.episodes(), &stored(given));
        correlator.unite(&same);
        let mut leader = Self { correlator, ledger };
        leader.commit(store);
        leader
    }

    /// Folds events in and tells the time, in one transaction.
    fn fold(&mut self, batch: &[Event], now: i64, given: &[Event], store: &mut Store) {
        let mut changes = self.correlator.insert(&support::threat_events(batch));
        changes.extend(self.correlator.advance(now * SECOND));
        self.ledger.apply(changes, &stored(given));
        self.commit(store);
    }

    fn commit(&mut self, store: &mut Store) {
        store.write(self.ledger.write(&HashMap::new(), &[]));
    }
}

/// An event of one rule and host, which makes an alert by itself.
fn event(id: u32, time: i64, arrival: i64) -> Event {
    let (rule, host) = ("a".to_owned(), Some("h".to_owned()));
    Event { tenant: 1, id, rule, time, arrival, severity: 4, host, fields: BTreeMap::new() }
}

/// No correlations, a gap of 20 s; the horizon is 70 s.
fn alone(now: i64) -> Setting {
    Setting { rules: vec![], lateness: 40, max_skew: 10, gap: 20, alert_severity: 4, now, unit: SECOND }
}

#[test]
fn a_rebuild_joins_nothing_by_what_counts_no_more() {
    let setting = alone(150);
    let rules = support::correlations(&setting.rules);
    // What lies between came before, by a clock that was ahead.
    let given = [event(1, 70, 100), event(2, 85, 76), event(3, 100, 100)];
    let (events, now) = (support::threat_events(&given), setting.now * SECOND);
    let rebuilt = Correlator::rebuild(rules, support::options(&setting), &events, now);
    let numbers: BTreeSet<u64> = rebuilt.episodes().iter().map(|episode| episode.number).collect();
    assert_eq!((rebuilt.episodes().len(), numbers.len()), (2, 2));
}

#[test]
fn the_other_half_of_what_was_absorbed_goes_on_with_it() {
    let setting = alone(0);
    let rules = support::correlations(&setting.rules);
    let mut store = Store::default();
    let mut leader = Leader::new(&rules, &setting, &[], 0, &mut store);
    let mut given = Vec::new();
    // An episode of which the horizon forgets the middle, one in its place, then what joins that with its end, then
    // more at its beginning.
    for (now, events) in [
        (30, vec![event(1, 0, 50), event(2, 15, 15), event(3, 30, 21), event(4, 45, 36), event(5, 60, 50)]),
        (119, vec![]),
        (119, vec![event(6, 32, 60)]),
        (119, vec![event(7, 46, 60)]),
        (119, vec![event(8, 5, 60)]),
    ] {
        given.extend(events.iter().cloned());
        leader.fold(&events, now, &given, &mut store);
    }
    assert_eq!(leader.correlator.episodes().len(), 2);
    let alerts = store.live();
    assert_eq!((alerts.len(), alerts[0].1.len()), (1, 8));
}

#[test]
fn episodes_that_are_one_alert_settle_when_the_last_is_over() {
    let setting = alone(100);
    let rules = support::correlations(&setting.rules);
    let mut correlator = Correlator::new(rules, support::options(&setting));
    correlator.insert(&support::threat_events(&[event(1, 0, 0), event(2, 50, 50)]));
    let numbers: Vec<u64> = correlator.episodes().iter().map(|episode| episode.number).collect();
    correlator.unite(&HashMap::from_iter([(numbers[1], numbers[0])]));
    assert_eq!(correlator.advance(80 * SECOND), []);
    assert_eq!(correlator.episodes().len(), 1);
    let over = correlator.advance(200 * SECOND);
    assert_eq!(
        over.iter().map(|change| (change.kind, change.number)).collect::<Vec<_>>(),
        [(ChangeKind::Settled, numbers[0])]
    );
}

/// When a leader is lost: before it folds in what another reads already, or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    None,
    Before,
    After,
}

/// Each episode is in an alert and each alert has one; if all is `whole`, it has nothing besides.
fn agree(leader: &Leader, store: &Store, whole: bool) -> Result<(), TestCaseError> {
    let (episodes, alerts) = (by_group(leader.correlator.episodes()), store.by_group());
    prop_assert_eq!(alerts.keys().collect::<Vec<_>>(), episodes.keys().collect::<Vec<_>>());
    for (key, alerts) in alerts {
        let episodes = &episodes[&key];
        for alert in &alerts {
            let within = episodes.iter().filter(|episode| episode.is_subset(alert));
            let members: BTreeSet<Uuid> = within.flatten().copied().collect();
            let is_one = if whole { members == *alert } else { !members.is_empty() };
            prop_assert!(is_one, "{:?} among {:?}", alert, episodes);
        }
        for episode in episodes {
            let in_one = alerts.iter().any(|alert| episode.is_subset(alert));
            prop_assert!(in_one, "{:?} is in one of {:?}", episode, alerts);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    /// Everything arrives within the horizon, so alerts are exactly the episodes: each alert has the members of
    /// its episodes, and each episode is in an alert.
    #[test]
    fn alerts_are_the_episodes_whoever_leads(
        shuffled in events(40, 200).prop_flat_map(|events| Just(events).prop_shuffle()),
        sizes in vec(1..8usize, 1..4),
        mut setting in setting(0),
        crashes in vec(select(vec![Crash::None, Crash::Before, Crash::After]), 1..12),
    ) {
        setting.now = 130;
        let oldest = 20 + setting.deepest();
        setting.now = setting.now.min(130 - oldest - setting.cutoff().div_euclid(SECOND));
        let rules = support::correlations(&setting.rules);
        let (mut store, mut now) = (Store::default(), setting.now - 200);
        let mut leader = Leader::new(&rules, &setting, &[], now, &mut store);
        let mut given = Vec::new();
        let batches = batches(&shuffled, &sizes);
        let step = 200 / batches.len() as i64;
        for (batch, crash) in batches.into_iter().zip(crashes.iter().cycle()) {
            given.extend(batch.iter().cloned());
            if *crash == Crash::Before {
                given.reverse();
                leader = Leader::new(&rules, &setting, &given, now, &mut store);
            }
            now += step;
            leader.fold(batch, now, &given, &mut store);
            if *crash == Crash::After {
                given.reverse();
                leader = Leader::new(&rules, &setting, &given, now, &mut store);
            }
            agree(&leader, &store, true)?;
        }
    }

    /// Time goes on and the horizon passes: each episode is in an alert, and each alert is one.
    #[test]
    fn what_the_horizon_leaves_is_in_alerts_whoever_leads(
        events in events(60, 60),
        setting in setting(0),
        steps in vec((1..60i64, select(vec![Crash::None, Crash::Before, Crash::After])), 2..12),
    ) {
        let mut events = events;
        events.iter_mut().for_each(|event| event.arrival *= 4);
        events.iter_mut().for_each(|event| event.time *= 4);
        events.sort_by_key(|event| event.arrival);
        let rules = support::correlations(&setting.rules);
        let (mut store, mut now, mut at) = (Store::default(), -50, 0);
        let mut leader = Leader::new(&rules, &setting, &[], now, &mut store);
        for (step, crash) in steps {
            let next = events.partition_point(|event| event.arrival < now + step).max(at);
            let given = &events[..next];
            if crash == Crash::Before {
                leader = Leader::new(&rules, &setting, given, now, &mut store);
            }
            now += step;
            leader.fold(&events[at..next], now, given, &mut store);
            if crash == Crash::After {
                leader = Leader::new(&rules, &setting, given, now, &mut store);
            }
            at = next;
            agree(&leader, &store, false)?;
        }
    }
}
