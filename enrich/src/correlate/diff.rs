//! What changed in the episodes of one group.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::Hash;

use hashbrown::{HashMap, HashSet};
use uuid::Uuid;

use super::event::ChangeKind;

/// A member: its time and id.
type Member = (i64, Uuid);

/// Gives episodes their numbers.
#[derive(Debug, Default)]
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// What was absorbed, and what it went on in.
#[derive(Debug)]
pub(crate) struct WentOn<K>(HashMap<K, K>);

impl<K> Default for WentOn<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Copy + Eq + Hash> WentOn<K> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, gone: K, into: K) {
        self.0.insert(gone, into);
    }

    /// What something went on in, one after another.
    pub(crate) fn last(&self, mut gone: K) -> K {
        while let Some(into) = self.0.get(&gone) {
            gone = *into;
        }
        gone
    }
}

/// A change, with what only the group knows.
#[derive(Debug)]
pub(super) struct Delta {
    pub(super) kind: ChangeKind,
    pub(super) number: u64,
    pub(super) first_seen: i64,
    pub(super) last_seen: i64,
    pub(super) count: usize,
    pub(super) added: Vec<Uuid>,
    pub(super) removed: Vec<Uuid>,
    pub(super) absorbed: Vec<u64>,
}

impl Delta {
    pub(super) fn settled(number: u64, (first_seen, last_seen, count): (i64, i64, usize)) -> Self {
        let (added, removed, absorbed) = (Vec::new(), Vec::new(), Vec::new());
        Self { kind: ChangeKind::Settled, number, first_seen, last_seen, count, added, removed, absorbed }
    }

    /// Of an episode with these members, none of which was added or removed.
    fn of(kind: ChangeKind, number: u64, members: &[Member]) -> Self {
        let time = |member: Option<&Member>| member.map_or(0, |(time, _)| *time);
        let extent = (time(members.first()), time(members.last()), members.len());
        Self { kind, ..Self::settled(number, extent) }
    }
}

/// An episode that is worked out as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) number: u64,
    /// The earliest moment at which it was satisfied, and its last.
    pub(super) since: i64,
    pub(super) until: i64,
    /// Times and ids, in order.
    pub(super) members: Vec<Member>,
}

impl Whole {
    pub(super) fn extent(&self) -> (i64, i64, usize) {
        let first = self.members.first().map_or(self.since, |(time, _)| *time);
        let last = self.members.last().map_or(self.until, |(time, _)| *time);
        (first, last, self.members.len())
    }
}

/// Numbers the new episodes like the old ones they share members with, and says what changed.
///
/// What is lost while `forgetting` is no change: only episodes that are gone are told, and those that come of a
/// parent's falling into two. If one episode falls into two, both keep its number, because it stays one alert.
pub(super) fn diff(old: &[Whole], new: &mut [Whole], forgetting: bool, numbers: &mut Numbers) -> Vec<Delta> {
    let same = |(one, other): (&Whole, &Whole)| one.members == other.members;
    if old.len() == new.len() && old.iter().zip(&*new).all(same) {
        old.iter().zip(new).for_each(|(old, new)| new.number = old.number);
        return Vec::new();
    }
    let absorbed = number(old, new, numbers);
    let (before, after) = (by_number(old), by_number(new));
    let mut deltas = Vec::new();
    // Losses come first: what one loses another may gain, or go on with the rest of it.
    for (number, members) in before.iter().filter(|_| !forgetting) {
        let Some(now) = after.get(absorbed.get(number).unwrap_or(number)) else { continue };
        let removed = missing(members, &[now]);
        if !removed.is_empty() {
            deltas.push(Delta { removed, ..Delta::of(ChangeKind::Shrunk, *number, now) });
        }
    }
    for (number, members) in &after {
        let taken = absorbed.iter().filter(|(_, into)| *into == number);
        let absorbed: Vec<u64> = taken.map(|(gone, _)| *gone).collect();
        let had: Vec<&[Member]> = absorbed
            .iter()
            .chain([number])
            .filter_map(|number| before.get(number).map(|had| &**had))
            .collect();
        let added = missing(members, &had);
        let kind = match (had.is_empty(), absorbed.is_empty()) {
            (true, _) => ChangeKind::Opened,
            (_, false) => ChangeKind::Merged,
            _ if added.is_empty() => continue,
            _ => ChangeKind::Grown,
        };
        deltas.push(Delta { added, absorbed, ..Delta::of(kind, *number, members) });
    }
    for (number, members) in &before {
        if after.contains_key(number) || absorbed.contains_key(number) {
            continue;
        }
        if forgetting {
            deltas.push(Delta::of(ChangeKind::Settled, *number, members));
        } else {
            let removed = missing(members, &[]);
            deltas.push(Delta { removed, ..Delta::of(ChangeKind::Withdrawn, *number, members) });
        }
    }
    deltas
}

/// Numbers the new episodes; by number, those that go on in another: none of the new ones has theirs.
fn number(old: &[Whole], new: &mut [Whole], numbers: &mut Numbers) -> BTreeMap<u64, u64> {
    let mut owners: HashMap<Uuid, usize> = HashMap::new();
    for (index, episode) in old.iter().enumerate() {
        for (_, id) in &episode.members {
            owners.entry(*id).or_insert(index);
        }
    }
    let mut goes_on: Vec<(u64, u64)> = Vec::new();
    for episode in new.iter_mut() {
        let mut from: Vec<usize> =
            episode.members.iter().filter_map(|(_, id)| owners.get(id).copied()).collect();
        from.sort_unstable();
        from.dedup();
        episode.number = from.first().map_or_else(|| numbers.next(), |index| old[*index].number);
        goes_on.extend(from.iter().map(|index| (old[*index].number, episode.number)));
    }
    let lives: HashSet<u64> = new.iter().map(|episode| episode.number).collect();
    // Of several the first.
    goes_on.into_iter().rev().filter(|(gone, _)| !lives.contains(gone)).collect()
}

/// The members of all episodes of each number, in order.
fn by_number(episodes: &[Whole]) -> BTreeMap<u64, Cow<'_, [Member]>> {
    let mut all: BTreeMap<u64, Cow<'_, [Member]>> = BTreeMap::new();
    for Whole { number, members, .. } in episodes {
        let more = |all: &mut Cow<'_, [Member]>| all.to_mut().extend(members);
        all.entry(*number).and_modify(more).or_insert(Cow::Borrowed(members));
    }
    for members in all.values_mut() {
        if let Cow::Owned(members) = members {
            members.sort_unstable();
            members.dedup();
        }
    }
    all
}

/// The members that none of these lists, which are in order, has.
fn missing(of: &[Member], among: &[&[Member]]) -> Vec<Uuid> {
    if among.contains(&of) {
        return Vec::new();
    }
    let is_missing = |member: &&Member| among.iter().all(|list| list.binary_search(member).is_err());
    of.iter().filter(is_missing).map(|(_, id)| *id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(members: &[u128]) -> Whole {
        let member = |id: &u128| (*id as i64, Uuid::from_u128(*id));
        Whole { number: 0, since: 0, until: 0, members: members.iter().map(member).collect() }
    }

    /// What becomes of episodes: their numbers, and by change kind, number, added, removed, absorbed.
    fn told(old: &mut Vec<Whole>, new: &[&[u128]], numbers: &mut Numbers) -> (Vec<u64>, Vec<String>) {
        let mut new: Vec<Whole> = new.iter().map(|members| whole(members)).collect();
        let deltas = diff(old, &mut new, false, numbers);
        *old = new;
        let ids = |ids: &[Uuid]| ids.iter().map(|id| id.as_u128()).collect::<Vec<_>>();
        let text = |delta: &Delta| {
            let Delta { kind, number, added, removed, absorbed, .. } = delta;
            format!("{kind:?} {number} +{:?} -{:?} <{absorbed:?}", ids(added), ids(removed))
        };
        (old.iter().map(|episode| episode.number).collect(), deltas.iter().map(text).collect())
    }

    #[test]
    fn of_two_halves_of_one_alert_that_which_goes_takes_its_members_along() {
        let (mut old, mut numbers) = (Vec::new(), Numbers::default());
        told(&mut old, &[&[1, 2, 3]], &mut numbers);
        let halves = told(&mut old, &[&[1], &[3]], &mut numbers);
        assert_eq!(halves, (vec![1, 1], vec!["Shrunk 1 +[] -[2] <[]".to_owned()]));
        let half = told(&mut old, &[&[1]], &mut numbers);
        assert_eq!(half, (vec![1], vec!["Shrunk 1 +[] -[3] <[]".to_owned()]));
        let grown = told(&mut old, &[&[1, 3]], &mut numbers);
        assert_eq!(grown, (vec![1], vec!["Grown 1 +[3] -[] <[]".to_owned()]));
    }

    #[test]
    fn what_goes_on_by_itself_is_not_absorbed_by_who_took_a_part() {
        let (mut old, mut numbers) = (Vec::new(), Numbers::default());
        told(&mut old, &[&[1], &[2, 3]], &mut numbers);
        let split = told(&mut old, &[&[1, 2], &[3]], &mut numbers);
        let changes = ["Shrunk 2 +[] -[2] <[]", "Grown 1 +[2] -[] <[]"].map(str::to_owned);
        assert_eq!(split, (vec![1, 2], changes.to_vec()));
    }

    #[test]
    fn what_two_share_goes_on_in_the_first_and_what_is_lost_is_told_before() {
        let (mut old, mut numbers) = (Vec::new(), Numbers::default());
        told(&mut old, &[&[1], &[2], &[3, 4, 5]], &mut numbers);
        let split = told(&mut old, &[&[1, 3], &[2, 4]], &mut numbers);
        let changes = ["Shrunk 3 +[] -[4, 5] <[]", "Merged 1 +[] -[] <[3]", "Grown 2 +[4] -[] <[]"];
        assert_eq!(split, (vec![1, 2], changes.map(str::to_owned).to_vec()));
    }
}
