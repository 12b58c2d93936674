//! A group of a monotone rule over events: windows slide, and only those near new events are measured.
//!
//! A window [t, t + timespan] that is satisfied stays so when it begins at its first event instead; so
//! only windows that begin at an event (anchors) are looked at. Anchors no further apart than the timespan
//! are one episode, a [`Span`], whose members are all events from its first anchor to the end of its last
//! window. What lies between a span's anchors can't change it, so it is never measured again.

use std::ops::Range;

use uuid::Uuid;

use super::diff::{Delta, Numbers, WentOn};
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
    /// Its members.
    count: usize,
    pub(super) number: u64,
}

/// The group's state.
#[derive(Debug, Default)]
pub(super) struct Sliding {
    pub(super) points: Points,
    pub(super) spans: Vec<Span>,
}

/// A span to be, and the spans it takes in.
struct Merged<'a> {
    first: i64,
    last: i64,
    old: &'a [Span],
}

impl Sliding {
    /// Works out what new events change, which the group has already.
    pub(super) fn apply(
        &mut self,
        plan: &Plan,
        events: &[Point],
        numbers: &mut Numbers,
        tally: &mut Tally,
    ) -> Vec<Delta> {
        let window = plan.rule.timespan;
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Vec::new() };
        let mut anchors = Vec::new();
        self.fresh_anchors(plan, events, tally, &mut anchors);
        // The spans that new anchors can join or new events can be in.
        let (low, high) = (first.time.saturating_sub(window), last.time.saturating_add(window));
        let start = self.spans.partition_point(|span| span.last.saturating_add(window) < low);
        let end = self.spans.partition_point(|span| span.first <= high).max(start);
        if anchors.is_empty() && start == end {
            return Vec::new();
        }
        let merged = merge(&self.spans[start..end], &anchors, window);
        let mut spans = Vec::with_capacity(merged.len());
        let (mut deltas, mut went_on) = (Vec::new(), WentOn::default());
        for merged in merged {
            let (number, absorbed) = survivor(merged.old, &went_on, numbers);
            absorbed.iter().for_each(|absorbed| went_on.insert(*absorbed, number));
            let added = self.added(&merged, events, window);
            let count = merged.old.iter().map(|span| span.count).sum::<usize>() + added.len();
            let span = Span { first: merged.first, last: merged.last, count, number };
            spans.push(span);
            if added.is_empty() && absorbed.is_empty() {
                continue;
            }
            let kind = match merged.old.len() {
                0 => ChangeKind::Opened,
                _ if absorbed.is_empty() => ChangeKind::Grown,
                _ => ChangeKind::Merged,
            };
            let (first_seen, last_seen, count) = self.extent(&span, window);
            let removed = Vec::new();
            deltas.push(Delta { kind, number, first_seen, last_seen, count, added, removed, absorbed });
        }
        self.spans.splice(start..end, spans);
        if !went_on.is_empty() {
            // The other half of what was absorbed goes on with it.
            self.spans.iter_mut().for_each(|span| span.number = went_on.last(span.number));
        }
        deltas
    }

    /// Drops what arrived before `cutoff`, none of which was at `limit` or later, and returns the numbers
    /// that are gone; none if no span lost anything.
    pub(super) fn forget(
        &mut self,
        plan: &Plan,
        (cutoff, limit): (i64, i64),
        tally: &mut Tally,
    ) -> Option<Vec<Delta>> {
        let window = plan.rule.timespan;
        let lost = self.points.last_expired(cutoff, limit)?;
        // Windows that begin later have lost nothing; spans that reach there live on.
        let touched = self.spans.partition_point(|span| span.first <= lost);
        let ending = self.spans[..touched].iter().filter(|span| span.last <= lost);
        let ending: Vec<_> = ending.map(|span| (span.number, self.extent(span, window))).collect();
        self.points.forget(cutoff, limit);
        if touched == 0 {
            return None;
        }
        let old: Vec<Span> = self.spans.drain(..touched).collect();
        let (mut spans, mut anchors) = (Vec::new(), Vec::new());
        for span in old {
            // The first anchor that is later is no further away than a window.
            let end = span.last.min(lost.saturating_add(window));
            anchors.clear();
            self.satisfied(plan, self.between(span.first, end), tally, &mut anchors);
            if span.last > lost {
                anchors.push(span.last);
                let next = anchors.partition_point(|anchor| *anchor <= lost);
                anchors.drain(next + 1..);
            }
            let number = span.number;
            let parts = merge(&[], &anchors, window);
            for (index, part) in parts.iter().enumerate() {
                let whole = span.last > lost && index + 1 == parts.len();
                let last = if whole { span.last } else { part.last };
                let count = self.between(part.first, last.saturating_add(window)).len();
                spans.push(Span { first: part.first, last, count, number });
            }
        }
        self.spans.splice(..0, spans);
        let lives = |number| self.spans.iter().any(|span| span.number == number);
        let gone = ending.into_iter().filter(|(number, _)| !lives(*number));
        Some(gone.map(|(number, extent)| Delta::settled(number, extent)).collect())
    }

    /// First and last seen and the number of members.
    pub(super) fn extent(&self, span: &Span, window: i64) -> (i64, i64, usize) {
        let end = self.points.until(span.last.saturating_add(window));
        let last = end.checked_sub(1).and_then(|last| self.points.as_slice().get(last));
        (span.first, last.map_or(span.last, |point| point.time), span.count)
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
    fn fresh_anchors(&self, plan: &Plan, inserted: &[Point], tally: &mut Tally, anchors: &mut Vec<i64>) {
        let window = plan.rule.timespan;
        let near = |one: &Point, other: &Point| other.time.saturating_sub(one.time) <= window;
        for cluster in inserted.chunk_by(near) {
            let (low, high) = (cluster[0].time.saturating_sub(window), cluster[cluster.len() - 1].time);
            let end = self.points.until(high);
            let mut at = if plan.rule.kind == Kind::EventCount {
                // Only the first so many events of a window make it satisfied.
                let first = self.points.place(|point| point.key() < cluster[0].key());
                let start = first.saturating_sub(plan.least - 1);
                start + self.points.as_slice()[start..first].partition_point(|point| point.time < low)
            } else {
                self.points.from(low)
            };
            while at < end {
                let time = self.points.as_slice()[at].time;
                let next = self.spans.partition_point(|span| span.last < time);
                match self.spans.get(next) {
                    Some(span) if span.first <= time => at = self.points.until(span.last),
                    span => {
                        let stop = span.map_or(end, |span| self.points.from(span.first).min(end));
                        self.satisfied(plan, at..stop, tally, anchors);
                        at = stop;
                    }
                }
            }
        }
    }

    /// The times of events in a range at which a satisfied window begins.
    fn satisfied(&self, plan: &Plan, range: Range<usize>, tally: &mut Tally, anchors: &mut Vec<i64>) {
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
                tally.begin(kind);
                let mut end = range.start;
                for anchor in &points[range.clone()] {
                    while let Some(point) = points.get(end).filter(|point| point.time <= ends(anchor)) {
                        tally.add(point.slot, point.value);
                        end += 1;
                    }
                    if plan.rule.condition.holds(tally.total(), 1) {
                        anchors.push(anchor.time);
                    }
                    tally.remove(anchor.slot, anchor.value);
                }
                points[range.end..end].iter().for_each(|point| tally.remove(point.slot, point.value));
            }
        }
    }

    /// The members of a span to be that the spans it takes in didn't have.
    fn added(&self, merged: &Merged<'_>, inserted: &[Point], window: i64) -> Vec<Uuid> {
        let mut added = Vec::new();
        let mut from = merged.first;
        for span in merged.old {
            let end = span.last.saturating_add(window);
            if from < span.first {
                added.extend(self.ids(self.between(from, span.first - 1)));
            }
            let start = inserted.partition_point(|point| point.time < span.first);
            let stop = inserted.partition_point(|point| point.time <= end);
            added.extend(inserted[start..stop].iter().map(|point| point.id));
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
fn merge<'a>(spans: &'a [Span], anchors: &[i64], window: i64) -> Vec<Merged<'a>> {
    let mut merged: Vec<Merged<'a>> = Vec::new();
    let (mut span, mut anchor, mut taken) = (0, 0, 0);
    loop {
        let (first, last) = match (spans.get(span), anchors.get(anchor)) {
            (Some(next), other) if other.is_none_or(|other| next.first <= *other) => {
                span += 1;
                (next.first, next.last)
            }
            (_, Some(next)) => {
                anchor += 1;
                (*next, *next)
            }
            (_, None) => return merged,
        };
        match merged.last_mut() {
            Some(before) if first <= before.last.saturating_add(window) => {
                before.last = before.last.max(last);
                before.old = &spans[taken - before.old.len()..span];
            }
            _ => merged.push(Merged { first, last, old: &spans[taken..span] }),
        }
        taken = span;
    }
}

/// The number that goes on, the earliest's, and the others; some went on in others before.
fn survivor(old: &[Span], went_on: &WentOn<u64>, numbers: &mut Numbers) -> (u64, Vec<u64>) {
    let Some(first) = old.first() else { return (numbers.next(), Vec::new()) };
    let first = went_on.last(first.number);
    let mut absorbed: Vec<u64> =
        old.iter().map(|span| went_on.last(span.number)).filter(|number| *number != first).collect();
    absorbed.sort_unstable();
    absorbed.dedup();
    (first, absorbed)
}
