//! What changed in the episodes of one group.

use hashbrown::{HashMap, HashSet};
use uuid::Uuid;

use super::event::ChangeKind;

/// Gives episodes their numbers.
#[derive(Debug, Default)]
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
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
}

/// An episode that is worked out as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) number: u64,
    /// The earliest moment at which it was satisfied, and its last.
    pub(super) since: i64,
    pub(super) until: i64,
    /// Times and ids, in order.
    pub(super) members: Vec<(i64, Uuid)>,
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
    let mut owners: HashMap<Uuid, usize> = HashMap::new();
    for (index, episode) in old.iter().enumerate() {
        for (_, id) in &episode.members {
            owners.entry(*id).or_insert(index);
        }
    }
    let mut deltas = Vec::new();
    let mut lives = HashSet::new();
    let mut absorbed_all = HashSet::new();
    for episode in new.iter_mut() {
        let mut from: Vec<usize> =
            episode.members.iter().filter_map(|(_, id)| owners.get(id).copied()).collect();
        from.sort_unstable();
        from.dedup();
        episode.number = from.first().map_or_else(|| numbers.next(), |index| old[*index].number);
        let mut absorbed: Vec<u64> = from.iter().map(|index| old[*index].number).collect();
        absorbed.retain(|number| *number != episode.number);
        absorbed.sort_unstable();
        absorbed.dedup();
        lives.insert(episode.number);
        absorbed_all.extend(absorbed.iter().copied());
        deltas.extend(delta(old, &from, episode, absorbed, forgetting));
    }
    // Members of an episode that fell into two are still there.
    let kept: HashSet<Uuid> = new.iter().flat_map(|episode| &episode.members).map(|(_, id)| *id).collect();
    for delta in &mut deltas {
        delta.removed.retain(|id| !kept.contains(id));
        if delta.kind == ChangeKind::Shrunk && delta.removed.is_empty() {
            delta.kind = ChangeKind::Grown;
        }
    }
    deltas.retain(|delta| {
        delta.kind != ChangeKind::Grown || !delta.added.is_empty() || !delta.removed.is_empty()
    });
    for episode in old {
        if !absorbed_all.contains(&episode.number) && lives.insert(episode.number) {
            let mut gone = Delta::settled(episode.number, episode.extent());
            if !forgetting {
                gone.kind = ChangeKind::Withdrawn;
                gone.removed = episode.members.iter().map(|(_, id)| *id).collect();
            }
            deltas.push(gone);
        }
    }
    deltas
}

fn delta(
    old: &[Whole],
    from: &[usize],
    episode: &Whole,
    absorbed: Vec<u64>,
    forgetting: bool,
) -> Option<Delta> {
    let (first_seen, last_seen, count) = episode.extent();
    let before: HashSet<(i64, Uuid)> =
        from.iter().flat_map(|index| old[*index].members.iter().copied()).collect();
    let now: HashSet<(i64, Uuid)> = episode.members.iter().copied().collect();
    let missing = |of: &[(i64, Uuid)], among: &HashSet<(i64, Uuid)>| -> Vec<Uuid> {
        of.iter().filter(|member| !among.contains(*member)).map(|(_, id)| *id).collect()
    };
    let added = missing(&episode.members, &before);
    let mut removed: Vec<Uuid> = Vec::new();
    for index in from.iter().filter(|_| !forgetting) {
        removed.extend(missing(&old[*index].members, &now));
    }
    let kind = match (from.len(), absorbed.is_empty(), removed.is_empty()) {
        (0, ..) => ChangeKind::Opened,
        (_, false, _) => ChangeKind::Merged,
        (_, _, false) => ChangeKind::Shrunk,
        _ if added.is_empty() => return None,
        _ => ChangeKind::Grown,
    };
    Some(Delta { kind, number: episode.number, first_seen, last_seen, count, added, removed, absorbed })
}
