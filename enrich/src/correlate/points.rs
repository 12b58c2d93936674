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

/// Events in order of time and id.
///
/// Most come at the end and go at the front: places are looked for from the end, and what is forgotten is
/// only closed up when it is a quarter.
#[derive(Debug, Default)]
pub(super) struct Points {
    all: Vec<Point>,
    forgotten: usize,
}

impl Points {
    /// Sorts events in; of them remain those that are new, in order. A repeated event is found by its place.
    pub(super) fn absorb(&mut self, events: &mut Vec<Point>) {
        events.sort_unstable_by_key(Point::key);
        events.dedup_by_key(|point| point.key());
        events.retain(|point| {
            let place = self.place(|other| other.key() < point.key());
            self.as_slice().get(place).is_none_or(|other| other.key() != point.key())
        });
        if self.all.len() + events.len() > self.all.capacity() {
            self.close_up();
        }
        let mut read = self.all.len();
        self.all.extend_from_slice(events);
        let mut write = self.all.len();
        for point in events.iter().rev() {
            let start =
                self.forgotten + place(&self.all[self.forgotten..read], |other| other.key() < point.key());
            self.all.copy_within(start..read, write - (read - start));
            write -= read - start + 1;
            self.all[write] = *point;
            read = start;
        }
    }

    /// The time of the last event that arrived before `cutoff`; none of those was at `limit` or later.
    pub(super) fn last_expired(&self, cutoff: i64, limit: i64) -> Option<i64> {
        let front = self.as_slice().iter().take_while(|point| point.time < limit);
        front.filter(|point| point.arrival < cutoff).last().map(|point| point.time)
    }

    /// Drops what arrived before `cutoff`; none of that was at `limit` or later.
    pub(super) fn forget(&mut self, cutoff: i64, limit: i64) {
        let front = self.as_slice().iter().take_while(|point| point.time < limit).count();
        let mut write = self.forgotten + front;
        for read in (self.forgotten..write).rev() {
            if self.all[read].arrival >= cutoff {
                write -= 1;
                self.all[write] = self.all[read];
            }
        }
        self.forgotten = write;
        if self.forgotten > self.all.len() / 4 {
            self.close_up();
            if self.all.len() < self.all.capacity() / 4 {
                self.all.shrink_to_fit();
            }
        }
    }

    fn close_up(&mut self) {
        self.all.drain(..self.forgotten);
        self.forgotten = 0;
    }

    /// The earliest arrival, if none is more than `max_skew` before its event's time.
    pub(super) fn oldest(&self, max_skew: i64) -> Option<i64> {
        let mut oldest = self.as_slice().first()?.arrival;
        for point in self.as_slice() {
            if point.time.saturating_sub(max_skew) >= oldest {
                break;
            }
            oldest = oldest.min(point.arrival);
        }
        Some(oldest)
    }

    /// The arrival that half of the events lie before.
    pub(super) fn median_arrival(&self) -> i64 {
        let mut arrivals: Vec<i64> = self.as_slice().iter().map(|point| point.arrival).collect();
        let middle = arrivals.len() / 2;
        if arrivals.is_empty() { i64::MIN } else { *arrivals.select_nth_unstable(middle).1 }
    }

    pub(super) fn as_slice(&self) -> &[Point] {
        &self.all[self.forgotten..]
    }

    /// To change values by; times and ids are to stay.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut i64> {
        self.all[self.forgotten..].iter_mut().map(|point| &mut point.value)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len() - self.forgotten
    }

    /// The place of the first event at `time` or later.
    pub(super) fn from(&self, time: i64) -> usize {
        self.place(|point| point.time < time)
    }

    /// The place after the last event at `time` or earlier.
    pub(super) fn until(&self, time: i64) -> usize {
        self.place(|point| point.time <= time)
    }

    /// The place after those that come before something.
    pub(super) fn place(&self, is_before: impl Fn(&Point) -> bool) -> usize {
        place(self.as_slice(), is_before)
    }
}

/// The partition point, looked for from the end in growing steps: what is close to it is in the cache.
fn place(points: &[Point], is_before: impl Fn(&Point) -> bool) -> usize {
    let (mut high, mut step) = (points.len(), 1);
    while high >= step && !is_before(&points[high - step]) {
        high -= step;
        step *= 2;
    }
    let low = high.saturating_sub(step);
    low + points[low..high].partition_point(is_before)
}
