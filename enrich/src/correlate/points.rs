//! The events of one group, by time.

use uuid::Uuid;

/// An event in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    /// Effective.
    pub(super) time: i64,
    pub(super) id: Uuid,
    pub(super) arrival: i64,
    /// A number in millionths, or what stands for a text.
    pub(super) value: i64,
    /// The place of its rule.
    pub(super) slot: u16,
}

impl Point {
    pub(super) fn key(&self) -> (i64, Uuid) {
        (self.time, self.id)
    }
}

/// Events in order of time and id, and those that wait to be sorted in.
#[derive(Debug, Default)]
pub(super) struct Points {
    sorted: Vec<Point>,
    pending: Vec<Point>,
}

impl Points {
    /// Adds an event; it counts from the next [`Points::absorb`] on.
    pub(super) fn push(&mut self, point: Point) {
        self.pending.push(point);
    }

    /// Sorts in what waits and returns what is new, in order. A repeated event is found by its place.
    pub(super) fn absorb(&mut self) -> Vec<(i64, Uuid)> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_unstable_by_key(Point::key);
        pending.dedup_by_key(|point| point.key());
        let Some(first) = pending.first().map(Point::key) else { return Vec::new() };
        let place = self.sorted.partition_point(|point| point.key() < first);
        if place == self.sorted.len() {
            let new = pending.iter().map(Point::key).collect();
            self.sorted.append(&mut pending);
            return new;
        }
        let tail = self.sorted.split_off(place);
        self.sorted.reserve(tail.len() + pending.len());
        let (mut new, mut tail) = (Vec::with_capacity(pending.len()), tail.into_iter().peekable());
        for point in pending {
            while let Some(earlier) = tail.next_if(|other| other.key() < point.key()) {
                self.sorted.push(earlier);
            }
            if tail.peek().is_none_or(|other| other.key() != point.key()) {
                new.push(point.key());
                self.sorted.push(point);
            }
        }
        self.sorted.extend(tail);
        new
    }

    /// Drops what arrived before; whether there was any.
    pub(super) fn forget(&mut self, cutoff: i64) -> bool {
        let before = self.sorted.len();
        self.sorted.retain(|point| point.arrival >= cutoff);
        if self.sorted.len() < self.sorted.capacity() / 4 {
            self.sorted.shrink_to_fit();
        }
        self.sorted.len() != before
    }

    /// The arrival that half of the events lie before.
    pub(super) fn median_arrival(&self) -> i64 {
        let mut arrivals: Vec<i64> = self.sorted.iter().map(|point| point.arrival).collect();
        let middle = arrivals.len() / 2;
        if arrivals.is_empty() { i64::MIN } else { *arrivals.select_nth_unstable(middle).1 }
    }

    pub(super) fn as_slice(&self) -> &[Point] {
        &self.sorted
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The place of the first event at `time` or later.
    pub(super) fn from(&self, time: i64) -> usize {
        self.sorted.partition_point(|point| point.time < time)
    }

    /// The place after the last event at `time` or earlier.
    pub(super) fn until(&self, time: i64) -> usize {
        self.sorted.partition_point(|point| point.time <= time)
    }
}
