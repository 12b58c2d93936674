//! The order in which a batch's rows are stored, and what can be summed up on the way.
//!
//! Rows go by partition interval, tenant, host, event code, time and message (ADR 5). Why not by time
//! alone: TimescaleDB only wants a chunk's rows together, within a chunk any order suits it; both
//! default indexes lead with the tenant, so this order touches few leaves; and raw blocks, cut from the
//! same order, compress better the more alike neighbours are.

use std::hash::Hash;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use inosec_schemas::{Rows, TenantId};

/// `time` cut down to a multiple of `width` since 1970, both in microseconds.
#[must_use]
pub(crate) fn interval_start(time: i64, width: i64) -> i64 {
    time - time.rem_euclid(width)
}

/// One row's place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Start of the partition interval, in microseconds.
    pub interval: i64,
    /// Rank of (tenant, host) among those of the batch: an index into [`Order::groups`].
    pub group: u32,
    /// Rank of the event code among those of the batch.
    pub kind: u32,
    /// Storage time, in microseconds.
    pub ts: i64,
    /// The row's message: breaks ties, so that the same batch always gives the same order.
    pub message: u32,
    /// The row.
    pub row: u32,
}

/// A tenant's host, if the row names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Group<'a> {
    pub tenant: TenantId,
    pub host: Option<&'a [u8]>,
}

/// All rows of a batch in order.
pub(crate) struct Order<'a> {
    /// The rows; a row's position here is the low part of its `seq`.
    pub places: Vec<Place>,
    /// The tenants and hosts, sorted.
    pub groups: Vec<Group<'a>>,
}

/// The distinct keys of a batch, numbered as they come and ranked at the end, so that sorting compares
/// integers.
struct Ranks<K>(HashMap<K, u32, RandomState>);

impl<K: Copy + Ord + Hash> Ranks<K> {
    fn new() -> Self {
        Self(HashMap::default())
    }

    fn number(&mut self, key: K) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(key).or_insert(next)
    }

    /// The keys, sorted, and the rank of each number.
    fn finish(self) -> (Vec<K>, Vec<u32>) {
        let mut sorted: Vec<(K, u32)> = self.0.into_iter().collect();
        sorted.sort_unstable();
        let mut ranks = vec![0; sorted.len()];
        for (rank, (_, number)) in (0..).zip(&sorted) {
            ranks[*number as usize] = rank;
        }
        (sorted.into_iter().map(|(key, _)| key).collect(), ranks)
    }
}

impl<'a> Order<'a> {
    /// Orders by `width` (microseconds), tenant, host, event code, time and message: about 0.2 µs a row.
    pub(crate) fn of(rows: &'a Rows, width: i64) -> Self {
        let (host, kind) = (rows.stream.column("host_name"), rows.stream.column("event_code"));
        let text = |column: Option<usize>, row| column.and_then(|column| rows.text(column, row));
        let (mut groups, mut kinds) = (Ranks::new(), Ranks::new());
        let mut places = Vec::with_capacity(rows.len());
        for row in 0..rows.len() {
            let ts = rows.ts(row);
            places.push(Place {
                interval: interval_start(ts, width),
                group: groups.number(Group { tenant: rows.tenant(row), host: text(host, row) }),
                kind: kinds.number(text(kind, row)),
                ts,
                message: rows.message[row],
                row: row as u32,
            });
        }
        let ((groups, group_ranks), (_, kind_ranks)) = (groups.finish(), kinds.finish());
        for place in &mut places {
            place.group = group_ranks[place.group as usize];
            place.kind = kind_ranks[place.kind as usize];
        }
        places.sort_unstable();
        Self { places, groups }
    }

    pub(crate) fn tenant(&self, place: &Place) -> TenantId {
        self.groups[place.group as usize].tenant
    }
}
