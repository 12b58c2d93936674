//! What is measured in a window: kept up to date while a window slides, or worked out at once.

use super::decimal::ONE;
use super::rule::Kind;

/// One thing in a window: an event, whose `since` and `until` are its time, or a parent's episode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    pub(super) since: i64,
    pub(super) until: i64,
    pub(super) slot: u16,
    pub(super) value: i64,
}

/// A measure that inputs are added to and removed from, for all kinds but chains in order, averages and
/// percentiles.
#[derive(Debug)]
pub(super) struct Tally {
    kind: Kind,
    total: i128,
    /// By rule, or by the number that stands for a text: those are dense in each group.
    counts: Vec<u32>,
}

impl Tally {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, total: 0, counts: Vec::new() }
    }

    /// Begins another measure. What was added must have been removed again.
    pub(super) fn begin(&mut self, kind: Kind) {
        debug_assert!(self.total == 0, "nothing is left in a tally");
        self.kind = kind;
    }

    pub(super) fn add(&mut self, slot: u16, value: i64) {
        match self.kind {
            Kind::EventCount => self.total += ONE,
            Kind::ValueSum => self.total += i128::from(value),
            _ => {
                let what = self.what(slot, value);
                if what >= self.counts.len() {
                    self.counts.resize(what + 1, 0);
                }
                self.counts[what] += 1;
                self.total += if self.counts[what] == 1 { ONE } else { 0 };
            }
        }
    }

    /// Of what was added.
    pub(super) fn remove(&mut self, slot: u16, value: i64) {
        match self.kind {
            Kind::EventCount => self.total -= ONE,
            Kind::ValueSum => self.total -= i128::from(value),
            _ => {
                let what = self.what(slot, value);
                self.counts[what] -= 1;
                self.total -= if self.counts[what] == 0 { ONE } else { 0 };
            }
        }
    }

    fn what(&self, slot: u16, value: i64) -> usize {
        if self.kind == Kind::Temporal { usize::from(slot) } else { value.unsigned_abs() as usize }
    }

    /// In millionths.
    pub(super) fn total(&self) -> i128 {
        self.total
    }
}

/// Rules that follow each other, in whatever window is asked for.
#[derive(Debug)]
pub(super) struct Order {
    /// By rule, sorted by `until`: `until`, and the least `since` from here on.
    slots: Vec<Vec<(i64, i64)>>,
    /// The earliest end of a chain of so many rules, for the window at hand.
    ends: Vec<i64>,
}

impl Order {
    pub(super) fn new(inputs: impl Iterator<Item = Input>, slots: usize) -> Self {
        let mut lists = vec![Vec::new(); slots];
        for Input { since, until, slot, .. } in inputs {
            lists[usize::from(slot)].push((until, since));
        }
        for list in &mut lists {
            list.sort_unstable();
            let mut least = i64::MAX;
            for (_, since) in list.iter_mut().rev() {
                least = least.min(*since);
                *since = least;
            }
        }
        Self { slots: lists, ends: Vec::new() }
    }

    /// The earliest moment from `from` on at which a rule's input is there.
    fn earliest(&self, slot: usize, from: i64) -> Option<i64> {
        let list = &self.slots[slot];
        list.get(list.partition_point(|(until, _)| *until < from)).map(|(_, since)| from.max(*since))
    }

    /// How many rules follow each other within [from, to], at most. Chains that can't reach `least` rules
    /// are not looked into.
    pub(super) fn longest(&mut self, from: i64, to: i64, least: usize) -> usize {
        let slots = self.slots.len();
        self.ends.clear();
        self.ends.push(from);
        for slot in 0..slots {
            let shortest = (least + slot).saturating_sub(slots);
            for length in (shortest..self.ends.len()).rev() {
                let Some(end) = self.earliest(slot, self.ends[length]).filter(|end| *end <= to) else {
                    continue;
                };
                match self.ends.get_mut(length + 1) {
                    Some(other) => *other = end.min(*other),
                    None => self.ends.push(end),
                }
            }
        }
        self.ends.len() - 1
    }
}

/// The measure of a whole window, as a total in millionths and what to divide it by.
pub(super) fn of_window(kind: Kind, inputs: &[Input], slots: usize) -> (i128, i128) {
    match kind {
        Kind::ValueAvg => (inputs.iter().map(|input| i128::from(input.value)).sum(), inputs.len() as i128),
        Kind::ValuePercentile(percent) => (i128::from(percentile(inputs, percent)), 1),
        Kind::TemporalOrdered => {
            let longest = Order::new(inputs.iter().copied(), slots).longest(i64::MIN, i64::MAX, 1);
            (longest as i128 * ONE, 1)
        }
        _ => {
            let mut tally = Tally::new(kind);
            inputs.iter().for_each(|input| tally.add(input.slot, input.value));
            (tally.total(), 1)
        }
    }
}

/// The nearest rank: the smallest value that at least so many percent of the values don't exceed.
fn percentile(inputs: &[Input], percent: i64) -> i64 {
    let mut values: Vec<i64> = inputs.iter().map(|input| input.value).collect();
    let rank = (i128::from(percent) * values.len() as i128 + 100 * ONE - 1) / (100 * ONE);
    let place = (rank.max(1) as usize - 1).min(values.len().saturating_sub(1));
    if values.is_empty() { 0 } else { *values.select_nth_unstable(place).1 }
}
