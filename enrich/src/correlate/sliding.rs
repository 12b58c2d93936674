//! A group of a monotone rule over events: windows slide, and only those near new events are measured.
//!
//! A window [t, t + timespan] that is satisfied stays so when it begins at its first event instead; so
//! only windows that begin at an event (anchors) are looked at. Anchors no further apart than the timespan
//! are one episode, a [`Span`], whose members are all events from its first anchor to the end of its last
//! window. What lies between a span's anchors can't change it, so it is never measured again.

use std::ops::Range;

use uuid::Uuid;

use super::diff::{Delta, Numbers};
use super::event::ChangeKind;
use super::measure::{Input, Order, Tally};
use super::points::{Point, Points};
use super::resolve::Plan;
use super::rule::Kind;

/// Anchors of satisfied windows that overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    first: i64,
    last: i64,
    pub(super) number: u64,
}

/// The group's state.
#[derive(Debug, Default)]
pub(super) struct Sliding {
    pub(super) points: Points,
    pub(super) spans: Vec<Span>,
}

/// A span to be, and the spans it takes in.
struct Merged {
    first: i64,
    last: i64,
    old: Vec<Span>,
}

impl Sliding {
    /// Takes in the events that wait.
    pub(super) fn apply(&mut self, plan: &Plan, numbers: &mut Numbers) -> Vec<Delta> {
        let window = plan.rule.timespan;
        let inserted = self.points.absorb();
        let (Some((low, _)), Some((high, _))) = (inserted.first(), inserted.last()) else {
            return Vec::new();
        };
        let anchors = self.fresh_anchors(plan, &inserted);
        // The spans that new anchors can join or new events can be in.
        let (low, high) = (low.saturating_sub(window), high.saturating_add(window));
        let start = self.spans.partition_point(|span| span.last.saturating_add(window) < low);
        let end = self.spans.partition_point(|span| span.first <= high).max(start);
        let merged = merge(&self.spans[start..end], &anchors, window);
        let mut spans = Vec::with_capacity(merged.len());
        let mut deltas = Vec::new();
        for merged in merged {
            let (number, absorbed) = survivor(&merged.old, numbers);
            spans.push(Span { first: merged.first, last: merged.last, number });
            let added = self.added(&merged, &inserted, window);
            if added.is_empty() && absorbed.is_empty() {
                continue;
            }
            let kind = match merged.old.len() {
                0 => ChangeKind::Opened,
                _ if absorbed.is_empty() => ChangeKind::Grown,
                _ => ChangeKind::Merged,
            };
            let (first_seen, last_seen, count) = self.extent(&spans[spans.len() - 1], window);
            deltas.push(Delta {
                kind,
                number,
                first_seen,
                last_seen,
                count,
                added,
                removed: Vec::new(),
                absorbed,
            });
        }
        self.spans.splice(start..end, spans);
        deltas
    }

    /// Drops what arrived before the horizon and returns the numbers that are gone; none if nothing was
    /// dropped.
    pub(super) fn forget(&mut self, plan: &Plan, cutoff: i64) -> Option<Vec<Delta>> {
        let before: Vec<_> = self.spans.iter().map(|span| self.extent(span, plan.rule.timespan)).collect();
        if !self.points.forget(cutoff) {
            return None;
        }
        let mut anchors = Vec::new();
        self.satisfied(plan, 0..self.points.len(), &mut anchors);
        let old = std::mem::take(&mut self.spans);
        for Merged { first, last, .. } in merge(&[], &anchors, plan.rule.timespan) {
            // A satisfied window with fewer events was one with more.
            let place = old.partition_point(|span| span.last < first);
            let Some(span) = old.get(place) else { continue };
            self.spans.push(Span { first, last, number: span.number });
        }
        let lives = |number| self.spans.iter().any(|span| span.number == number);
        let gone = old.iter().zip(before).filter(|(span, _)| !lives(span.number));
        Some(gone.map(|(span, extent)| Delta::settled(span.number, extent)).collect())
    }

    /// First and last seen and the number of members.
    pub(super) fn extent(&self, span: &Span, window: i64) -> (i64, i64, usize) {
        let members = self.members(span, window);
        let last = members.last().map_or(span.last, |point| point.time);
        (span.first, last, members.len())
    }

    pub(super) fn members(&self, span: &Span, window: i64) -> &[Point] {
        &self.points.as_slice()[self.between(span.first, span.last.saturating_add(window))]
    }

    /// The earliest moment at which a window of the span was satisfied.
    pub(super) fn satisfied_since(&self, span: &Span, plan: &Plan) -> i64 {
        let members = self.members(span, plan.rule.timespan);
        if plan.rule.kind == Kind::TemporalOrdered {
            let moments = members.iter().map(|point| point.time);
            let mut order = Order::new(members.iter().map(input), plan.slots());
            let satisfied = |end: &i64| order.longest(span.first, *end, plan.least) >= plan.least;
            return moments.into_iter().find(satisfied).unwrap_or(span.last);
        }
        let mut tally = Tally::new(plan.rule.kind);
        for point in members {
            tally.add(point.slot, point.value);
            if plan.rule.condition.holds(tally.total(), 1) {
                return point.time;
            }
        }
        span.last
    }

    /// The anchors satisfied among those that new events can have satisfied.
    fn fresh_anchors(&self, plan: &Plan, inserted: &[(i64, Uuid)]) -> Vec<i64> {
        let window = plan.rule.timespan;
        let mut anchors = Vec::new();
        let near = |one: &(i64, Uuid), other: &(i64, Uuid)| other.0.saturating_sub(one.0) <= window;
        for cluster in inserted.chunk_by(near) {
            let (low, high) = (cluster[0].0.saturating_sub(window), cluster[cluster.len() - 1].0);
            let (mut at, end) = (self.points.from(low), self.points.until(high));
            while at < end {
                let time = self.points.as_slice()[at].time;
                let next = self.spans.partition_point(|span| span.last < time);
                match self.spans.get(next) {
                    Some(span) if span.first <= time => at = self.points.until(span.last),
                    span => {
                        let stop = span.map_or(end, |span| self.points.from(span.first).min(end));
                        self.satisfied(plan, at..stop, &mut anchors);
                        at = stop;
                    }
                }
            }
        }
        anchors
    }

    /// The times of events in a range at which a satisfied window begins.
    fn satisfied(&self, plan: &Plan, range: Range<usize>, anchors: &mut Vec<i64>) {
        let (points, window) = (self.points.as_slice(), plan.rule.timespan);
        let ends = |point: &Point| point.time.saturating_add(window);
        match plan.rule.kind {
            Kind::EventCount => {
                let reached = |index: &usize| {
                    let last = index.saturating_add(plan.least - 1);
                    points.get(last).is_some_and(|point| point.time <= ends(&points[*index]))
                };
                anchors.extend(range.filter(reached).map(|index| points[index].time));
            }
            Kind::TemporalOrdered => {
                let Some(last) = range.clone().last() else { return };
                let reach = &points[range.start..self.points.until(ends(&points[last]))];
                let mut order = Order::new(reach.iter().map(input), plan.slots());
                for point in &points[range] {
                    if order.longest(point.time, ends(point), plan.least) >= plan.least {
                        anchors.push(point.time);
                    }
                }
            }
            kind => {
                let (mut tally, mut end) = (Tally::new(kind), range.start);
                for anchor in &points[range] {
                    while let Some(point) = points.get(end).filter(|point| point.time <= ends(anchor)) {
                        tally.add(point.slot, point.value);
                        end += 1;
                    }
                    if plan.rule.condition.holds(tally.total(), 1) {
                        anchors.push(anchor.time);
                    }
                    tally.remove(anchor.slot, anchor.value);
                }
            }
        }
    }

    /// The members of a span to be that the spans it takes in didn't have.
    fn added(&self, merged: &Merged, inserted: &[(i64, Uuid)], window: i64) -> Vec<Uuid> {
        let mut added = Vec::new();
        let mut from = merged.first;
        for span in &merged.old {
            let end = span.last.saturating_add(window);
            added.extend(self.ids(self.between(from, span.first - 1)));
            let start = inserted.partition_point(|(time, _)| *time < span.first);
            let stop = inserted.partition_point(|(time, _)| *time <= end);
            added.extend(inserted[start..stop].iter().map(|(_, id)| *id));
            from = end.saturating_add(1);
        }
        added.extend(self.ids(self.between(from, merged.last.saturating_add(window))));
        added
    }

    fn ids(&self, range: Range<usize>) -> impl Iterator<Item = Uuid> {
        self.points.as_slice()[range].iter().map(|point| point.id)
    }

    /// The places of the events in [from, to].
    fn between(&self, from: i64, to: i64) -> Range<usize> {
        let start = self.points.from(from);
        start..self.points.until(to).max(start)
    }
}

fn input(point: &Point) -> Input {
    Input { since: point.time, until: point.time, slot: point.slot, value: point.value }
}

/// Joins spans and new anchors, both in order, that are no further apart than a window.
fn merge(spans: &[Span], anchors: &[i64], window: i64) -> Vec<Merged> {
    let mut merged: Vec<Merged> = Vec::new();
    let (mut spans, mut anchors) = (spans.iter().peekable(), anchors.iter().peekable());
    loop {
        let span = spans.next_if(|span| anchors.peek().is_none_or(|anchor| span.first <= **anchor));
        let (first, last) = match (span, span.is_none().then(|| anchors.next()).flatten()) {
            (Some(span), _) => (span.first, span.last),
            (None, Some(anchor)) => (*anchor, *anchor),
            (None, None) => return merged,
        };
        match merged.last_mut() {
            Some(before) if first <= before.last.saturating_add(window) => {
                before.last = before.last.max(last);
                before.old.extend(span);
            }
            _ => merged.push(Merged { first, last, old: span.copied().into_iter().collect() }),
        }
    }
}

/// The number that goes on, the earliest's, and the others.
fn survivor(old: &[Span], numbers: &mut Numbers) -> (u64, Vec<u64>) {
    let Some(first) = old.first() else { return (numbers.next(), Vec::new()) };
    let mut absorbed: Vec<u64> =
        old.iter().map(|span| span.number).filter(|number| *number != first.number).collect();
    absorbed.sort_unstable();
    absorbed.dedup();
    (first.number, absorbed)
}
