//! What the correlator lets go: what is beyond the horizon, and what a tenant has too much of.

use std::sync::Arc;

use super::correlator::{AHEAD, Correlator};
use super::event::Change;
use super::group::{Counted, ENTRY_BYTES, Group, State};

impl Correlator {
    /// Drops everything that arrived before the horizon.
    pub(super) fn forget(&mut self, changes: &mut Vec<Change>) {
        let later = self.expiring.split_off(&self.cutoff.div_euclid(self.step));
        for (at, places) in std::mem::replace(&mut self.expiring, later) {
            for (index, place) in places.iter().copied().enumerate() {
                if index % AHEAD == 0 {
                    let ahead = &places[index..places.len().min(index + AHEAD)];
                    self.groups.touch(ahead, Group::front);
                }
                let Some(group) = self.groups.get_mut(place).filter(|group| group.expires == at) else {
                    continue;
                };
                group.expires = i64::MAX;
                self.forget_in(place, self.cutoff, changes);
                self.look_again(place);
            }
        }
        changes.extend(self.settle(true));
    }

    /// Has a group looked at when the horizon next takes something of it.
    pub(super) fn look_again(&mut self, place: u32) {
        let Some(group) = self.groups.get(place) else { return };
        let oldest = group.points().oldest(self.options.max_skew);
        let stands = self.stands_until(group);
        if let Some(at) = oldest.into_iter().chain(stands).min() {
            self.expires(place, at);
        }
    }

    /// Where the horizon is when a group has to be worked out again, though it lost no event.
    pub(super) fn stands_until(&self, group: &Group) -> Option<i64> {
        let State::Recomputed(recomputed) = &group.state else { return None };
        let reach = self.plan(group.plan).reach_in.saturating_add(self.options.max_skew);
        (recomputed.since < i64::MAX).then(|| recomputed.since.saturating_sub(reach))
    }

    /// Brings tenants back within their limits: the groups whose last event is oldest go.
    pub(super) fn evict(&mut self, changes: &mut Vec<Change>) {
        let (groups, entries) = (self.options.max_groups, self.options.max_entries);
        let share = self.share();
        for tenant in 0..self.tenants.len() {
            let of = &self.tenants[tenant];
            if of.groups > groups || of.entries > entries || of.bytes > share {
                self.evict_from(tenant as u32, share, changes);
            }
        }
    }

    /// What a tenant may have, in bytes, for all to have no more than all may: who has less keeps it.
    fn share(&self) -> usize {
        let mut left = self.options.max_bytes;
        if self.tenants.iter().map(|tenant| tenant.bytes).sum::<usize>() <= left {
            return usize::MAX;
        }
        let mut sizes: Vec<usize> = self.tenants.iter().map(|tenant| tenant.bytes).collect();
        sizes.sort_unstable();
        let count = sizes.len();
        for (index, size) in sizes.into_iter().enumerate() {
            let share = left / (count - index);
            if size > share {
                return share;
            }
            left -= size;
        }
        usize::MAX
    }

    fn evict_from(&mut self, tenant: u32, share: usize, changes: &mut Vec<Change>) {
        // A tenth more than needed, so that a flood doesn't make every batch look at all groups.
        let (most, most_entries) =
            (self.options.max_groups, self.options.max_entries.min(share / ENTRY_BYTES));
        let (goal, goal_entries) = (most - most / 10, most_entries - most_entries / 10);
        let goal_bytes = share - share / 10;
        let mut groups: Vec<(i64, Arc<str>, u32, Counted)> = self
            .groups
            .iter()
            .filter(|(_, group)| group.tenant == tenant)
            .map(|(place, group)| (group.newest, Arc::from(&*group.key), place, group.counted))
            .collect();
        groups.sort_unstable();
        let (mut evicted, mut evicted_bytes) = ((0, 0), 0);
        for (_, _, place, counted) in groups {
            let of = &self.tenants[tenant as usize];
            let (count, bytes) = (of.groups - evicted.0, of.bytes - evicted_bytes);
            if count <= goal && of.entries <= goal_entries && bytes <= goal_bytes {
                break;
            }
            // One that holds most of all loses its older half: it is what happens now.
            let most_of_all = counted.entries > most_entries / 2 || counted.bytes > share / 2;
            let half = most_of_all.then(|| self.groups.get(place)).flatten();
            let cutoff = half.map_or(i64::MAX, |group| group.points().median_arrival().saturating_add(1));
            let left = self.forget_in(place, cutoff, changes);
            evicted.1 += (counted.entries - left) as u64;
            if left == 0 {
                evicted.0 += 1;
                evicted_bytes += self.groups.get(place).map_or(0, |group| group.counted.bytes);
            }
        }
        let total = self.dropped.evicted.entry(self.tenants[tenant as usize].id).or_default();
        total.groups += evicted.0 as u64;
        total.entries += evicted.1;
        changes.extend(self.settle(true));
    }

    /// Drops a group's events that arrived before and has it looked at if that matters; how many are left.
    fn forget_in(&mut self, place: u32, cutoff: i64, changes: &mut Vec<Change>) -> usize {
        let Some(mut group) = self.groups.take(place) else { return 0 };
        let rules = Arc::clone(&self.rules);
        let own = Arc::clone(&self.own);
        let plan = rules.plans.get(group.plan as usize).unwrap_or(&own);
        let before = group.len();
        // No event's time is further beyond its arrival.
        let limit = cutoff.saturating_add(self.options.max_skew);
        let (mut deltas, mut matters) = (Vec::new(), false);
        match &mut group.state {
            State::Sliding(sliding) => {
                if let Some(gone) = sliding.forget(plan, (cutoff, limit), &mut self.tally) {
                    (deltas, matters) = (gone, !plan.children.is_empty());
                    group.changed = true;
                }
            }
            State::Recomputed(recomputed) => {
                let lost = recomputed.loses(plan, cutoff, limit);
                recomputed.points.forget(cutoff, limit);
                if cutoff == i64::MAX {
                    recomputed.parents.clear();
                }
                matters = cutoff != self.cutoff || lost || !recomputed.stands(plan, self.clock());
            }
        }
        self.tell(&mut group, deltas, changes);
        if group.len() < before {
            group.forget_texts();
            self.recount(&mut group);
        }
        let (left, empty) = (group.len(), group.is_empty());
        self.groups.put(place, group);
        if matters || empty {
            self.mark(place);
        }
        left
    }
}
