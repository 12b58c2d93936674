//! The order in which a batch's rows are stored, and what can be summed up on the way.
//!
//! Rows go by partition interval, tenant, host, time and message (ADR 5). Why not by time alone:
//! TimescaleDB only wants a chunk's rows together, within a chunk any order suits it; both default
//! indexes lead with the tenant, so this order touches few leaves; and raw blocks, cut from the same
//! order, compress better the more alike neighbours are.

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

impl<'a> Order<'a> {
    /// Orders by `width` (microseconds), tenant, host, time and message: about 0.15 µs a row. Hosts are
    /// ranked once per distinct name, so that sorting compares integers.
    pub(crate) fn of(rows: &'a Rows, width: i64) -> Self {
        let host = rows.stream.column("host_name");
        let mut ids: HashMap<Group<'_>, u32, RandomState> = HashMap::default();
        let mut places = Vec::with_capacity(rows.len());
        for row in 0..rows.len() {
            let group = Group { tenant: rows.tenant(row), host: host.and_then(|host| rows.text(host, row)) };
            let next = ids.len() as u32;
            let id = *ids.entry(group).or_insert(next);
            let ts = rows.ts(row);
            places.push(Place {
                interval: interval_start(ts, width),
                group: id,
                ts,
                message: rows.message[row],
                row: row as u32,
            });
        }
        let mut sorted: Vec<(Group<'a>, u32)> = ids.into_iter().collect();
        sorted.sort_unstable();
        let mut rank = vec![0; sorted.len()];
        for (position, (_, id)) in sorted.iter().enumerate() {
            rank[*id as usize] = position as u32;
        }
        for place in &mut places {
            place.group = rank[place.group as usize];
        }
        places.sort_unstable();
        Self { places, groups: sorted.into_iter().map(|(group, _)| group).collect() }
    }

    pub(crate) fn tenant(&self, place: &Place) -> TenantId {
        self.groups[place.group as usize].tenant
    }
}
