//! A group that is worked out as a whole whenever it changes: of rules that are decided at the end of
//! their windows, and of rules over other correlations, whose episodes come, grow and merge.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::diff::{self, Delta, Numbers, Whole};
use super::measure::{Input, Order, Tally, of_window};
use super::points::{Point, Points};
use super::resolve::Plan;
use super::rule::Kind;

/// The group's state.
#[derive(Debug)]
pub(super) struct Recomputed {
    pub(super) points: Points,
    /// The groups whose episodes are inputs.
    pub(super) parents: BTreeSet<u32>,
    /// These episodes, as they were when all was worked out.
    inputs: Vec<Input>,
    pub(super) episodes: Vec<Whole>,
    /// When the next window is decided.
    pub(super) due: Option<i64>,
    /// Where the earliest window begins that is decided only as long as it is within the horizon.
    pub(super) since: i64,
}

/// What episodes are worked out from.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// New events, which the group has already.
    pub(super) events: &'a [Point],
    pub(super) parents: &'a [Parental],
    pub(super) clock: Clock,
    /// Whether only the horizon or a limit took something.
    pub(super) forgetting: bool,
}

impl Default for Recomputed {
    fn default() -> Self {
        Self {
            points: Points::default(),
            parents: BTreeSet::new(),
            inputs: Vec::new(),
            episodes: Vec::new(),
            due: None,
            since: i64::MAX,
        }
    }
}

/// An episode that is an input.
#[derive(Debug)]
pub(super) struct Parental {
    pub(super) input: Input,
    pub(super) members: Vec<(i64, Uuid)>,
}

/// What decisions depend on besides the inputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// Nothing arrives before this any more.
    pub(super) now: i64,
    /// No event at this time or later has been forgotten.
    pub(super) floor: i64,
    pub(super) lateness: i64,
}

/// An input and where its members are: an event or a parent's episode.
struct Part<'a> {
    input: Input,
    event: Option<(i64, Uuid)>,
    arrival: i64,
    parent: &'a [(i64, Uuid)],
}

impl Recomputed {
    /// Works the episodes out anew; whether they changed in any way, and what to tell of it.
    pub(super) fn apply(
        &mut self,
        plan: &Plan,
        given: Given<'_>,
        numbers: &mut Numbers,
    ) -> (bool, Vec<Delta>) {
        let Given { events, parents, clock, forgetting } = given;
        if !plan.has_parents && !forgetting && self.wait(plan, events.first(), clock) {
            return (false, Vec::new());
        }
        self.inputs.clear();
        self.inputs.extend(parents.iter().map(|parent| parent.input));
        let parts = parts(self.points.as_slice(), parents);
        let mut episodes = if plan.monotone {
            sliding(plan, &parts)
        } else {
            let (episodes, due) = decided(plan, &parts, clock);
            self.due = due;
            episodes
        };
        let begin = |first: &Whole| first.since - first.since.rem_euclid(plan.rule.timespan);
        self.since = episodes.first().filter(|_| !plan.monotone).map_or(i64::MAX, begin);
        let deltas = diff::diff(&self.episodes, &mut episodes, forgetting, numbers);
        let changed = self.episodes != episodes;
        self.episodes = episodes;
        (changed, deltas)
    }

    /// Whether new events change nothing, if that is quickly told: no window is satisfied that they are in. The
    /// other inputs must be as they were.
    pub(super) fn misses(&self, plan: &Plan, events: &[Point]) -> bool {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return plan.monotone };
        if !plan.monotone {
            return false;
        }
        let window = plan.rule.timespan;
        let (low, high) = (first.time.saturating_sub(window), last.time.saturating_add(window));
        let points = &self.points.as_slice()[self.points.from(low)..self.points.until(high)];
        let near = self.inputs.iter().filter(|input| input.until >= low && input.since <= high);
        let near: Vec<Parental> = near.map(|input| Parental { input: *input, members: Vec::new() }).collect();
        let touches = |anchor: &i64| *anchor <= last.time && anchor.saturating_add(window) >= first.time;
        !anchors(plan, &parts(points, &near)).iter().any(touches)
    }

    /// Whether nothing is to be decided yet: the first new event is of a window that comes later.
    fn wait(&mut self, plan: &Plan, first: Option<&Point>, clock: Clock) -> bool {
        let window = plan.rule.timespan;
        let decision = first.map(|first| decision(first.time.div_euclid(window), window, clock));
        let next = self.due.into_iter().chain(decision).min();
        let waits = next.is_none_or(|next| next > clock.now);
        if waits {
            self.due = next;
        }
        waits
    }

    /// Whether episodes may lose a member with what arrived before `cutoff`, none of which was at `limit` or later.
    pub(super) fn loses(&self, plan: &Plan, cutoff: i64, limit: i64) -> bool {
        let lost = self.points.last_expired(cutoff, limit).filter(|_| plan.monotone);
        lost.is_some_and(|lost| self.episodes.iter().any(|episode| episode.extent().0 <= lost))
    }

    /// Whether decided windows stay within the horizon.
    pub(super) fn stands(&self, plan: &Plan, clock: Clock) -> bool {
        self.since >= clock.floor.saturating_add(plan.reach_in)
    }
}

/// The inputs, by `until`.
fn parts<'a>(points: &'a [Point], parents: &'a [Parental]) -> Vec<Part<'a>> {
    let events = points.iter().map(|point| Part {
        input: Input { since: point.time, until: point.time, slot: point.slot, value: point.value },
        event: Some(point.key()),
        arrival: point.arrival,
        parent: &[],
    });
    let episodes = parents.iter().map(|parent| Part {
        input: parent.input,
        event: None,
        arrival: i64::MIN,
        parent: &parent.members,
    });
    let mut parts: Vec<Part<'a>> = events.chain(episodes).collect();
    parts.sort_by_key(|part| (part.input.until, part.input.since));
    parts
}

/// Episodes of a monotone rule whose inputs may last: a window that is satisfied stays so when it begins
/// where the first of its inputs ends. Windows that share an input are one episode.
fn sliding(plan: &Plan, parts: &[Part<'_>]) -> Vec<Whole> {
    let window = plan.rule.timespan;
    let anchors = anchors(plan, parts);
    // The least `since` from each input on, in order of `until`.
    let mut least: Vec<i64> = parts.iter().map(|part| part.input.since).collect();
    for index in (1..least.len()).rev() {
        least[index - 1] = least[index - 1].min(least[index]);
    }
    let mut numbers: Vec<usize> = Vec::with_capacity(anchors.len());
    for (index, anchor) in anchors.iter().enumerate() {
        let first = parts.partition_point(|part| part.input.until < *anchor);
        let number = match index.checked_sub(1) {
            None => 0,
            Some(before) if least[first] <= anchors[before].saturating_add(window) => numbers[before],
            Some(before) => numbers[before] + 1,
        };
        numbers.push(number);
    }
    let count = numbers.last().map_or(0, |last| last + 1);
    let mut episodes: Vec<Whole> = (0..count)
        .map(|_| Whole { number: 0, since: i64::MAX, until: i64::MIN, members: Vec::new() })
        .collect();
    let satisfied = moments(plan, parts);
    for (part, satisfied) in parts.iter().zip(satisfied) {
        let anchor = anchors.partition_point(|anchor| anchor.saturating_add(window) < part.input.since);
        if anchors.get(anchor).is_none_or(|anchor| *anchor > part.input.until) {
            continue;
        }
        let episode = &mut episodes[numbers[anchor]];
        episode.until = episode.until.max(part.input.until);
        if satisfied {
            episode.since = episode.since.min(part.input.since);
        }
        episode.members.extend(part.event.iter().chain(part.parent));
    }
    finish(episodes)
}

/// The moments at which satisfied windows begin.
fn anchors(plan: &Plan, parts: &[Part<'_>]) -> Vec<i64> {
    let window = plan.rule.timespan;
    let ends = |part: &Part<'_>| part.input.until.saturating_add(window);
    let mut anchors = Vec::new();
    if plan.rule.kind == Kind::TemporalOrdered {
        let mut order = Order::new(parts.iter().map(|part| part.input), plan.slots());
        for part in parts {
            if order.longest(part.input.until, ends(part), plan.least) >= plan.least {
                anchors.push(part.input.until);
            }
        }
        return anchors;
    }
    let by_since = by_since(parts);
    let mut waiting = by_since.iter().peekable();
    let mut tally = Tally::new(plan.rule.kind);
    for part in parts {
        while let Some(index) = waiting.next_if(|index| parts[**index].input.since <= ends(part)) {
            let Input { slot, value, .. } = parts[*index].input;
            tally.add(slot, value);
        }
        if plan.rule.condition.holds(tally.total(), 1) {
            anchors.push(part.input.until);
        }
        tally.remove(part.input.slot, part.input.value);
    }
    anchors
}

/// For each input whether the window that ends where it begins is satisfied.
fn moments(plan: &Plan, parts: &[Part<'_>]) -> Vec<bool> {
    let window = plan.rule.timespan;
    let mut moments = vec![false; parts.len()];
    if plan.children.is_empty() {
        return moments;
    }
    if plan.rule.kind == Kind::TemporalOrdered {
        let mut order = Order::new(parts.iter().map(|part| part.input), plan.slots());
        for (moment, part) in moments.iter_mut().zip(parts) {
            let end = part.input.since;
            *moment = order.longest(end.saturating_sub(window), end, plan.least) >= plan.least;
        }
        return moments;
    }
    let mut tally = Tally::new(plan.rule.kind);
    let mut gone = 0;
    let order = by_since(parts);
    let mut at = 0;
    while let Some(since) = order.get(at).map(|index| parts[*index].input.since) {
        let first = at;
        while let Some(index) = order.get(at).filter(|index| parts[**index].input.since == since) {
            let Input { slot, value, .. } = parts[*index].input;
            tally.add(slot, value);
            at += 1;
        }
        while parts[gone].input.until < since.saturating_sub(window) {
            tally.remove(parts[gone].input.slot, parts[gone].input.value);
            gone += 1;
        }
        if plan.rule.condition.holds(tally.total(), 1) {
            order[first..at].iter().for_each(|index| moments[*index] = true);
        }
    }
    moments
}

fn by_since(parts: &[Part<'_>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|index| parts[*index].input.since);
    order
}

/// Episodes of a rule that is decided at the end of its windows, which lie side by side from 1970 on, and
/// when the next is decided. Satisfied neighbours are one episode.
fn decided(plan: &Plan, parts: &[Part<'_>], clock: Clock) -> (Vec<Whole>, Option<i64>) {
    let window = plan.rule.timespan;
    let mut windows: BTreeMap<i64, Vec<&Part<'_>>> = BTreeMap::new();
    for part in parts {
        windows.entry(part.input.since.div_euclid(window)).or_default().push(part);
    }
    let (mut episodes, mut due, mut last) = (Vec::<Whole>::new(), None, None);
    for (number, mut parts) in windows {
        let start = number.saturating_mul(window);
        let decision = decision(number, window, clock);
        if start < clock.floor.saturating_add(plan.reach_in) {
            continue;
        }
        if decision > clock.now {
            due = Some(decision);
            break;
        }
        // What came after the decision stays out of it, also when all is rebuilt.
        parts.retain(|part| part.arrival < decision);
        if parts.is_empty() {
            continue;
        }
        let inputs: Vec<Input> = parts.iter().map(|part| part.input).collect();
        let (total, count) = of_window(plan.rule.kind, &inputs, plan.slots());
        if !plan.rule.condition.holds(total, count) {
            continue;
        }
        if last.is_none_or(|last| last + 1 < number) {
            episodes.push(Whole { number: 0, since: i64::MAX, until: i64::MIN, members: Vec::new() });
        }
        last = Some(number);
        let Some(episode) = episodes.last_mut() else { continue };
        for part in parts {
            episode.since = episode.since.min(part.input.since);
            episode.until = episode.until.max(part.input.until);
            episode.members.extend(part.event.iter().chain(part.parent));
        }
    }
    (finish(episodes), due)
}

/// When a window is decided.
fn decision(number: i64, window: i64, clock: Clock) -> i64 {
    number.saturating_add(1).saturating_mul(window).saturating_add(clock.lateness)
}

fn finish(mut episodes: Vec<Whole>) -> Vec<Whole> {
    for episode in &mut episodes {
        episode.members.sort_unstable();
        episode.members.dedup();
        if episode.since == i64::MAX {
            episode.since = episode.members.first().map_or(0, |(time, _)| *time);
        }
    }
    episodes
}
