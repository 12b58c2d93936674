//! Which alert each live episode is, and what is to be written about it.

use std::collections::{BTreeMap, HashSet};

use hashbrown::HashMap;
use inosec_schemas::{Alert, AlertChange, AlertWrites, MemberKey, StoredThreatEvent, Suppression, TenantId};
use uuid::Uuid;

use super::content;
use crate::correlate::{Change, ChangeKind, Correlation, Correlations, Episode, Summary, WentOn};

/// Threat events by tenant and id, to look up what joins an alert.
pub type Events = HashMap<(TenantId, Uuid), StoredThreatEvent>;

/// The alerts of live episodes.
#[derive(Debug)]
pub struct Ledger {
    rules: HashMap<String, Correlation>,
    alerts: HashMap<Uuid, Live>,
    /// The alert of each episode.
    numbers: HashMap<u64, Uuid>,
    /// Makes alerts' ids.
    new_id: fn() -> Uuid,
    /// What happened since it was last asked, by tenant and alert.
    changed: BTreeMap<(Uuid, Uuid), AlertChange>,
    /// Which alerts others went on with since then, one after another.
    absorbed: Vec<Absorbed>,
    /// The rest of what is to be written.
    writes: AlertWrites,
}

#[derive(Debug)]
struct Live {
    alert: Alert,
    /// The events it has gained since it was last asked.
    added: Vec<MemberKey>,
}

#[derive(Debug)]
struct Absorbed {
    gone: Uuid,
    into: Uuid,
    /// Whether anybody has seen it.
    written: bool,
}

impl Ledger {
    /// One for a correlator that holds nothing.
    #[must_use]
    pub fn new(rules: &Correlations, new_id: fn() -> Uuid) -> Self {
        Self {
            rules: rules.rules().map(|rule| (rule.id.clone(), rule.clone())).collect(),
            alerts: HashMap::new(),
            numbers: HashMap::new(),
            new_id,
            changed: BTreeMap::new(),
            absorbed: Vec::new(),
            writes: AlertWrites::default(),
        }
    }

    /// The events of rebuilt episodes that none of these alerts has: [`Ledger::take_over`] wants to know them.
    #[must_use]
    pub fn unknown(alerts: &[(Alert, Vec<Uuid>)], episodes: &[Episode]) -> Vec<(TenantId, Uuid)> {
        let known: HashSet<(Uuid, Uuid)> =
            alerts.iter().flat_map(|(alert, of)| of.iter().map(|event| (alert.group_id, *event))).collect();
        let unknown = |episode: &Episode| {
            let (of, group) = (&episode.summary.of, content::group_id(&episode.summary.of));
            let unknown = episode.members.iter().filter(|event| !known.contains(&(group, **event)));
            unknown.map(|event| (of.tenant, *event)).collect::<Vec<_>>()
        };
        episodes.iter().flat_map(unknown).collect()
    }

    /// Finds the alerts of a rebuilt correlator's episodes: those of the same group that share events.
    /// Alerts that are no episode any more are settled. Returns the numbers of episodes that are one alert with
    /// an earlier one, and that one's: [`Correlator::unite`](crate::Correlator::unite) wants to know them.
    #[must_use]
    pub fn take_over(
        &mut self,
        alerts: Vec<(Alert, Vec<Uuid>)>,
        episodes: &[Episode],
        events: &Events,
    ) -> HashMap<u64, u64> {
        let mut members: HashMap<(Uuid, Uuid), Uuid> = HashMap::new();
        for (alert, of) in alerts {
            members.extend(of.into_iter().map(|event| ((alert.group_id, event), alert.id)));
            self.alerts.insert(alert.id, Live::of(alert));
        }
        let mut went_on = WentOn::default();
        for episode in episodes {
            let group = content::group_id(&episode.summary.of);
            let of = |event: &Uuid| members.get(&(group, *event)).map(|id| went_on.last(*id));
            let mut known: Vec<Uuid> = episode.members.iter().filter_map(of).collect();
            known.sort_unstable_by_key(|id| (self.alerts.get(id).map(|live| live.alert.first_seen), *id));
            known.dedup();
            let added: Vec<Uuid> =
                episode.members.iter().filter(|event| of(event).is_none()).copied().collect();
            let id = known.first().copied().unwrap_or_else(|| self.open(&episode.summary));
            self.numbers.insert(episode.number, id);
            for other in known.into_iter().skip(1) {
                self.absorb(id, other);
                went_on.insert(other, id);
            }
            self.add(id, &episode.summary, added, events);
        }
        let (mut first, mut same) = (HashMap::new(), HashMap::new());
        for Episode { number, .. } in episodes {
            let Some(id) = self.numbers.remove(number).map(|id| went_on.last(id)) else { continue };
            let called = *first.entry(id).or_insert(*number);
            self.numbers.insert(called, id);
            if called != *number {
                same.insert(*number, called);
            }
        }
        let over: Vec<Uuid> = self.alerts.keys().filter(|id| !first.contains_key(*id)).copied().collect();
        for id in over {
            self.alerts.remove(&id);
            self.writes.settled.push(id);
        }
        same
    }

    /// Takes changes of episodes in. Events that join must be among `events`.
    pub fn apply(&mut self, changes: Vec<Change>, events: &Events) {
        for change in changes {
            match change.kind {
                ChangeKind::Settled => {
                    self.writes.settled.extend(self.numbers.remove(&change.number));
                }
                ChangeKind::Withdrawn => {
                    if let Some(id) = self.numbers.remove(&change.number) {
                        self.withdraw(id);
                    }
                }
                ChangeKind::Opened | ChangeKind::Grown | ChangeKind::Merged | ChangeKind::Shrunk => {
                    self.go_on(change, events);
                }
            }
        }
    }

    fn go_on(&mut self, change: Change, events: &Events) {
        let Change { kind, number, summary, added, removed, absorbed } = change;
        let id = match self.numbers.get(&number) {
            Some(id) => *id,
            None => {
                let id = self.open(&summary);
                self.numbers.insert(number, id);
                id
            }
        };
        for other in absorbed {
            if let Some(alert) = self.numbers.remove(&other).filter(|alert| *alert != id) {
                self.absorb(id, alert);
            }
        }
        self.add(id, &summary, added, events);
        if !removed.is_empty() {
            self.remove(id, removed);
        }
        if kind == ChangeKind::Shrunk
            && let Some(live) = self.alerts.get_mut(&id)
        {
            (live.alert.first_seen, live.alert.last_seen) = (summary.first_seen, summary.last_seen);
        }
    }

    fn open(&mut self, summary: &Summary) -> Uuid {
        let rule = self.rules.get(&summary.of.rule).filter(|_| summary.of.correlation);
        let seen = (summary.first_seen, summary.last_seen);
        let alert = content::open((self.new_id)(), &summary.of, rule, seen);
        let id = alert.id;
        self.changed.insert((alert.tenant_id, id), AlertChange::Opened);
        self.alerts.insert(id, Live::of(alert));
        id
    }

    /// The younger goes on in the older.
    fn absorb(&mut self, id: Uuid, other: Uuid) {
        let Some(mut gone) = self.alerts.remove(&other) else { return };
        let written = self.changed.remove(&(gone.alert.tenant_id, other)) != Some(AlertChange::Opened);
        self.absorbed.push(Absorbed { gone: other, into: id, written });
        if let Some(live) = self.alerts.get_mut(&id) {
            if live.added.len() < gone.added.len() {
                std::mem::swap(&mut live.added, &mut gone.added);
            }
            live.added.append(&mut gone.added);
            content::join(&mut live.alert, &gone.alert);
            self.mark(id, AlertChange::Absorbed);
        }
    }

    fn add(&mut self, id: Uuid, summary: &Summary, added: Vec<Uuid>, events: &Events) {
        let Some(live) = self.alerts.get_mut(&id) else { return };
        let alert = &mut live.alert;
        let before = (alert.first_seen, alert.last_seen);
        alert.first_seen = alert.first_seen.min(summary.first_seen);
        alert.last_seen = alert.last_seen.max(summary.last_seen);
        let grown = !added.is_empty() || before != (alert.first_seen, alert.last_seen);
        let tenant = summary.of.tenant;
        for event in added {
            let known = events.get(&(tenant, event));
            let key = known.map_or(MemberKey { tenant, id: event, ts: summary.last_seen }, |of| of.key());
            if let Some(event) = known {
                content::take(alert, event);
            }
            live.added.push(key);
        }
        if grown {
            self.mark(id, AlertChange::Grown);
        }
    }

    fn remove(&mut self, id: Uuid, removed: Vec<Uuid>) {
        let lost: HashSet<Uuid> = removed.into_iter().collect();
        if let Some(live) = self.alerts.get_mut(&id) {
            live.added.retain(|key| !lost.contains(&key.id));
        }
        // Nor does it come along with those that went on in this one meanwhile.
        let mut of = vec![id];
        for Absorbed { gone, into, .. } in self.absorbed.iter().rev() {
            if of.contains(into) {
                of.push(*gone);
            }
        }
        let removed = of.iter().flat_map(|alert| lost.iter().map(move |event| (*alert, *event)));
        self.writes.removed.extend(removed);
        self.mark(id, AlertChange::Shrunk);
    }

    fn mark(&mut self, id: Uuid, change: AlertChange) {
        let Some(live) = self.alerts.get(&id) else { return };
        let entry = self.changed.entry((live.alert.tenant_id, id)).or_insert(change);
        *entry = change.max(*entry);
    }

    fn withdraw(&mut self, id: Uuid) {
        let Some(tenant) = self.alerts.get(&id).map(|live| live.alert.tenant_id) else { return };
        if self.changed.get(&(tenant, id)) == Some(&AlertChange::Opened) {
            // Nobody has seen it.
            self.changed.remove(&(tenant, id));
            self.alerts.remove(&id);
        } else {
            self.writes.withdrawn.push(id);
        }
    }

    /// The hosts of alerts that changed, for [`Ledger::write`].
    pub fn hosts(&self) -> impl Iterator<Item = (TenantId, &str)> {
        let alerts = self.changed.keys().filter_map(|(_, id)| self.alerts.get(id));
        alerts.flat_map(|live| {
            let tenant = TenantId(live.alert.tenant_id);
            live.alert.entities.hosts.iter().map(move |host| (tenant, host.as_str()))
        })
    }

    /// The tenants of alerts that changed, for [`Ledger::write`]; one after another, with repeats.
    pub fn changed_tenants(&self) -> impl Iterator<Item = Uuid> {
        self.changed.keys().map(|(tenant, _)| *tenant)
    }

    /// Whether nothing happened since it was last asked.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.changed.is_empty() && self.absorbed.is_empty() && self.writes == AlertWrites::default()
    }

    /// What is to be written of what happened since it was last asked.
    pub fn write(
        &mut self,
        criticality: &HashMap<(TenantId, String), i16>,
        suppressions: &[Suppression],
    ) -> AlertWrites {
        let mut writes = std::mem::take(&mut self.writes);
        for ((tenant, id), change) in std::mem::take(&mut self.changed) {
            let Some(Live { alert, added, .. }) = self.alerts.get_mut(&id) else { continue };
            let members = std::mem::take(added).into_iter().map(|key| (id, key));
            let before = writes.added.len();
            writes.added.extend(members);
            if !alert.correlation {
                writes.own.extend_from_slice(&writes.added[before..]);
            }
            let tenant = TenantId(tenant);
            let of_hosts = alert.entities.hosts.iter();
            let of_hosts = of_hosts.filter_map(|host| criticality.get(&(tenant, host.clone())).copied());
            alert.risk_score = content::risk_score(alert, of_hosts.max());
            let suppression = suppressions.iter().find(|by| content::is_suppressed(alert, by));
            writes.alerts.push((alert.clone(), change, suppression.map(|by| by.id)));
        }
        for id in writes.settled.iter().chain(&writes.withdrawn) {
            self.alerts.remove(id);
        }
        // From the last to the first.
        let mut went_on = WentOn::default();
        for Absorbed { gone, into, written } in self.absorbed.drain(..).rev() {
            let into = went_on.last(into);
            went_on.insert(gone, into);
            if written {
                writes.merged.push((gone, into));
            }
        }
        writes
    }
}

impl Live {
    fn of(alert: Alert) -> Self {
        Self { alert, added: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::correlate::Identity;

    const TENANT: TenantId = TenantId(Uuid::from_u128(7));

    fn ledger() -> Ledger {
        Ledger::new(&Correlations::default(), Uuid::new_v4)
    }

    fn summary(first_seen: i64, last_seen: i64) -> Summary {
        let group = vec![("host".to_owned(), "ws1".to_owned())];
        let of = Identity { tenant: TENANT, rule: "r".to_owned(), revision: None, correlation: false, group };
        Summary { of: Arc::new(of), first_seen, last_seen, count: 0 }
    }

    fn change(kind: ChangeKind, number: u64, seen: (i64, i64), added: &[u128], absorbed: &[u64]) -> Change {
        Change {
            kind,
            number,
            summary: summary(seen.0, seen.1),
            added: ids(added),
            removed: Vec::new(),
            absorbed: absorbed.to_vec(),
        }
    }

    fn ids(numbers: &[u128]) -> Vec<Uuid> {
        numbers.iter().map(|number| Uuid::from_u128(*number)).collect()
    }

    fn events(numbers: &[u128]) -> Events {
        let event = |id: &Uuid| {
            let host_name = Some("ws1".to_owned());
            let ts = id.as_u128() as i64;
            let of = StoredThreatEvent::of(TENANT, *id);
            ((TENANT, *id), StoredThreatEvent { host_name, ts, signature: "s".into(), severity_id: 4, ..of })
        };
        ids(numbers).iter().map(event).collect()
    }

    fn write(ledger: &mut Ledger) -> AlertWrites {
        ledger.write(&HashMap::new(), &[])
    }

    /// The alert that gained the event of this time. Alerts are written in the order of their ids, which are random.
    fn alert_of(writes: &AlertWrites, event: i64) -> Uuid {
        writes.added.iter().find(|(_, key)| key.ts == event).unwrap().0
    }

    #[test]
    fn an_alert_opens_grows_and_settles() {
        let (mut ledger, events) = (ledger(), events(&[1, 2]));
        ledger.apply(vec![change(ChangeKind::Opened, 1, (1, 1), &[1], &[])], &events);
        let opened = write(&mut ledger);
        let (alert, kind, _) = &opened.alerts[0];
        assert_eq!((alert.title.as_str(), *kind, alert.risk_score), ("s", AlertChange::Opened, 65));
        assert_eq!((opened.added.len(), opened.own[0].1.ts), (1, 1));
        ledger.apply(vec![change(ChangeKind::Grown, 1, (1, 2), &[2], &[])], &events);
        let grown = write(&mut ledger);
        assert_eq!((grown.alerts[0].0.id, grown.alerts[0].0.last_seen), (alert.id, 2));
        ledger.apply(vec![change(ChangeKind::Settled, 1, (1, 2), &[], &[])], &events);
        assert_eq!(write(&mut ledger).settled, [alert.id]);
        assert!(ledger.is_idle() && ledger.alerts.is_empty());
    }

    #[test]
    fn the_absorbed_points_to_what_goes_on_whether_written_or_not() {
        let (mut ledger, events) = (ledger(), events(&[1, 2, 3, 4]));
        ledger.apply(vec![change(ChangeKind::Opened, 1, (1, 1), &[1], &[])], &events);
        ledger.apply(vec![change(ChangeKind::Opened, 2, (3, 3), &[3], &[])], &events);
        let opened = write(&mut ledger);
        // A third one opens and goes within one transaction: nobody hears of it.
        ledger.apply(vec![change(ChangeKind::Opened, 3, (4, 4), &[4], &[])], &events);
        ledger.apply(vec![change(ChangeKind::Merged, 1, (1, 4), &[2], &[2, 3])], &events);
        let merged = write(&mut ledger);
        let (first, second) = (alert_of(&opened, 1), alert_of(&opened, 3));
        assert_eq!(merged.merged, [(second, first)]);
        assert_eq!(merged.alerts.len(), 1);
        assert_eq!((merged.alerts[0].0.id, merged.alerts[0].1), (first, AlertChange::Absorbed));
        let mut added: Vec<(Uuid, i64)> = merged.added.iter().map(|(alert, of)| (*alert, of.ts)).collect();
        added.sort_unstable();
        assert_eq!(added, [(first, 2), (first, 4)]);
    }

    #[test]
    fn what_is_lost_right_after_a_merger_does_not_come_along() {
        let (mut ledger, events) = (ledger(), events(&[1, 2, 3]));
        ledger.apply(vec![change(ChangeKind::Opened, 1, (1, 1), &[1], &[])], &events);
        ledger.apply(vec![change(ChangeKind::Opened, 2, (2, 3), &[2, 3], &[])], &events);
        let opened = write(&mut ledger);
        let merged = change(ChangeKind::Merged, 1, (1, 3), &[], &[2]);
        let shrunk = Change { removed: ids(&[2]), ..change(ChangeKind::Shrunk, 1, (1, 3), &[], &[]) };
        ledger.apply(vec![merged, shrunk], &events);
        let (first, second, lost) = (alert_of(&opened, 1), alert_of(&opened, 2), Uuid::from_u128(2));
        assert_eq!(write(&mut ledger).removed, [(first, lost), (second, lost)]);
    }

    #[test]
    fn what_is_withdrawn_before_anybody_saw_it_is_not_written() {
        let (mut ledger, events) = (ledger(), events(&[1]));
        ledger.apply(vec![change(ChangeKind::Opened, 1, (1, 1), &[1], &[])], &events);
        ledger.apply(vec![change(ChangeKind::Withdrawn, 1, (1, 1), &[], &[])], &events);
        assert!(ledger.is_idle());
    }

    #[test]
    fn a_take_over_finds_alerts_by_their_events() {
        let (mut before, of_all) = (ledger(), events(&[1, 2, 3, 9]));
        for (number, event) in [(1, 1), (2, 3), (3, 9)] {
            let seen = (event as i64, event as i64);
            before.apply(vec![change(ChangeKind::Opened, number, seen, &[event], &[])], &of_all);
        }
        let written = write(&mut before);
        let alerts = written.alerts.iter().map(|(alert, ..)| {
            let members = written.added.iter().filter(|(id, _)| *id == alert.id);
            (alert.clone(), members.map(|(_, key)| key.id).collect())
        });
        let alert = |event| alert_of(&written, event);
        let episode = of(50, &[1, 2, 3]);
        let mut after = ledger();
        let same = after.take_over(alerts.collect(), &[episode], &of_all);
        assert_eq!(same, HashMap::new());
        let taken = write(&mut after);
        assert_eq!((taken.merged, taken.settled), (vec![(alert(3), alert(1))], vec![alert(9)]));
        assert_eq!(taken.added.len(), 1, "the event that no alert had");
        after.apply(vec![change(ChangeKind::Grown, 50, (1, 4), &[], &[])], &of_all);
        assert_eq!(write(&mut after).alerts[0].0.id, alert(1));
    }

    #[test]
    fn two_episodes_of_one_alert_are_called_the_same() {
        let (mut before, of_all) = (ledger(), events(&[1, 9]));
        before.apply(vec![change(ChangeKind::Opened, 1, (1, 9), &[1, 9], &[])], &of_all);
        let alert = write(&mut before).alerts.remove(0).0;
        let mut after = ledger();
        let same = after.take_over(vec![(alert.clone(), ids(&[1, 9]))], &[of(1, &[1]), of(9, &[9])], &of_all);
        assert_eq!(same, HashMap::from_iter([(9, 1)]));
        assert!(after.is_idle());
        after.apply(vec![change(ChangeKind::Settled, 1, (1, 9), &[], &[])], &of_all);
        assert_eq!(write(&mut after).settled, [alert.id]);
    }

    #[test]
    fn a_take_over_that_absorbs_half_of_an_alert_goes_on_with_the_other_half() {
        let (mut before, of_all) = (ledger(), events(&[1, 2, 9, 10]));
        before.apply(vec![change(ChangeKind::Opened, 1, (1, 1), &[1], &[])], &of_all);
        before.apply(vec![change(ChangeKind::Opened, 2, (2, 9), &[2, 9], &[])], &of_all);
        let written = write(&mut before);
        let (first, second) = (alert_of(&written, 1), alert_of(&written, 2));
        let members = |id| if id == first { ids(&[1]) } else { ids(&[2, 9]) };
        let alerts = written.alerts.into_iter().map(|(alert, ..)| (alert.clone(), members(alert.id)));
        let mut after = ledger();
        let same = after.take_over(alerts.collect(), &[of(5, &[1, 2]), of(6, &[9])], &of_all);
        assert_eq!(same, HashMap::from_iter([(6, 5)]));
        let taken = write(&mut after);
        assert_eq!((taken.merged, taken.settled), (vec![(second, first)], vec![]));
        after.apply(vec![change(ChangeKind::Grown, 5, (9, 10), &[10], &[])], &of_all);
        assert_eq!(alert_of(&write(&mut after), 10), first);
    }

    /// An episode of a rebuilt correlator.
    fn of(number: u64, members: &[u128]) -> Episode {
        let time = |member: Option<&u128>| member.map_or(0, |member| *member as i64);
        Episode {
            summary: summary(time(members.first()), time(members.last())),
            members: ids(members),
            number,
        }
    }
}
