//! All groups, found by tenant, correlation and values; a group keeps its place until it is empty.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::group::Group;
use super::resolve::Plan;

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    places: Vec<Option<Group>>,
    free: Vec<u32>,
    table: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
}

impl Groups {
    /// What a group is found by.
    pub(super) fn hash(&self, tenant: u32, plan: u32, key: &str) -> u64 {
        self.hasher.hash_one((tenant, plan, key))
    }

    /// The group's place, and whether it is new.
    pub(super) fn find_or_add(
        &mut self,
        hash: u64,
        tenant: u32,
        plan: u32,
        key: &str,
        of: &Plan,
    ) -> (u32, bool) {
        let is_it = |place: &u32| {
            self.places[*place as usize]
                .as_ref()
                .is_some_and(|group| group.tenant == tenant && group.plan == plan && *group.key == *key)
        };
        if let Some(place) = self.table.find(hash, is_it) {
            return (*place, false);
        }
        let group = Group::new(tenant, plan, key, of);
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = Some(group);
                place
            }
            None => {
                self.places.push(Some(group));
                (self.places.len() - 1) as u32
            }
        };
        let (places, hasher) = (&self.places, &self.hasher);
        self.table.insert_unique(hash, place, |place| hash_of(hasher, places[*place as usize].as_ref()));
        (place, true)
    }

    pub(super) fn get(&self, place: u32) -> Option<&Group> {
        self.places.get(place as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut Group> {
        self.places.get_mut(place as usize)?.as_mut()
    }

    /// Has what will be looked at of some groups fetched into the cache, all at once: independent loads overlap.
    pub(super) fn touch(&self, places: &[u32], what: impl Fn(&Group) -> i64) {
        let touched = places.iter().filter_map(|place| self.get(*place).map(&what));
        std::hint::black_box(touched.fold(0, i64::wrapping_add));
    }

    /// Has what groups are found by fetched into the cache, all at once.
    pub(super) fn touch_keys(&self, hashes: impl Iterator<Item = u64>) {
        let places = hashes.filter_map(|hash| self.table.find(hash, |_| true).copied());
        let places: Vec<u32> = places.collect();
        self.touch(&places, |group| i64::from(group.key.as_bytes().first().copied().unwrap_or_default()));
    }

    /// Takes a group out while others are looked at; [`Groups::put`] it back.
    pub(super) fn take(&mut self, place: u32) -> Option<Group> {
        self.places.get_mut(place as usize)?.take()
    }

    pub(super) fn put(&mut self, place: u32, group: Group) {
        self.places[place as usize] = Some(group);
    }

    pub(super) fn remove(&mut self, place: u32) -> Option<Group> {
        let hash = hash_of(&self.hasher, self.get(place));
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == place) {
            entry.remove();
        }
        self.free.push(place);
        self.take(place)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.places.iter_mut().flatten()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Group)> {
        (0..).zip(&self.places).filter_map(|(place, group)| Some((place, group.as_ref()?)))
    }
}

fn hash_of(hasher: &foldhash::fast::RandomState, group: Option<&Group>) -> u64 {
    group.map_or(0, |group| hasher.hash_one((group.tenant, group.plan, &*group.key)))
}
