//! What the correlator lets go: what is beyond the horizon, and what a tenant has too much of.

use std::sync::Arc;

use super::correlator::Correlator;
use super::event::Change;
use super::group::State;

impl Correlator {
    /// Drops everything that arrived before `cutoff`.
    pub(super) fn forget(&mut self, cutoff: i64, changes: &mut Vec<Change>) {
        let places: Vec<u32> = self.groups.iter().map(|(place, _)| place).collect();
        for place in places {
            self.forget_in(place, cutoff, changes);
        }
        changes.extend(self.settle(true));
    }

    /// Brings tenants back within their limits: the groups whose last event is oldest go.
    pub(super) fn evict(&mut self, changes: &mut Vec<Change>) {
        let (groups, entries) = (self.options.max_groups, self.options.max_entries);
        for tenant in 0..self.tenants.len() {
            let of = &self.tenants[tenant];
            if of.groups > groups || of.entries > entries {
                self.evict_from(tenant as u32, changes);
            }
        }
    }

    fn evict_from(&mut self, tenant: u32, changes: &mut Vec<Change>) {
        // A tenth more than needed, so that a flood doesn't make every batch look at all groups.
        let (most, most_entries) = (self.options.max_groups, self.options.max_entries);
        let (goal, goal_entries) = (most - most / 10, most_entries - most_entries / 10);
        let mut groups: Vec<(i64, Arc<str>, u32, usize)> = self
            .groups
            .iter()
            .filter(|(_, group)| group.tenant == tenant)
            .map(|(place, group)| (group.newest, Arc::from(&*group.key), place, group.len()))
            .collect();
        groups.sort_unstable();
        let of = &self.tenants[tenant as usize];
        let (mut count, mut entries, mut evicted) = (of.groups, of.entries, (0, 0));
        for (_, _, place, size) in groups {
            if count <= goal && entries <= goal_entries {
                break;
            }
            // One that holds most of all loses its older half: it is what happens now.
            let half = (size > most_entries / 2).then(|| self.groups.get_mut(place)).flatten();
            let cutoff = half.map_or(i64::MAX, |group| group.points().median_arrival().saturating_add(1));
            let left = self.forget_in(place, cutoff, changes);
            evicted.1 += (size - left) as u64;
            entries -= size - left;
            if left == 0 {
                evicted.0 += 1;
                count -= 1;
            }
        }
        let total = self.dropped.evicted.entry(self.tenants[tenant as usize].id).or_default();
        total.groups += evicted.0;
        total.entries += evicted.1;
        changes.extend(self.settle(true));
    }

    /// Drops a group's events that arrived before and marks it; how many are left.
    fn forget_in(&mut self, place: u32, cutoff: i64, changes: &mut Vec<Change>) -> usize {
        let Some(mut group) = self.groups.take(place) else { return 0 };
        let mut forgot = true;
        let plan = self.plan(group.plan);
        let deltas = match &mut group.state {
            State::Sliding(sliding) => {
                let deltas = sliding.forget(plan, cutoff);
                forgot = deltas.is_some();
                deltas.unwrap_or_default()
            }
            State::Recomputed(recomputed) => {
                recomputed.points.forget(cutoff);
                if cutoff == i64::MAX {
                    recomputed.parents.clear();
                }
                Vec::new()
            }
        };
        self.tell(&mut group, deltas, changes);
        if forgot {
            group.changed = matches!(group.state, State::Sliding(_));
            group.forget_texts();
        }
        let left = group.len();
        self.groups.put(place, group);
        if forgot {
            self.mark(place);
        }
        left
    }
}
