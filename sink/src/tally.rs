//! What a batch adds to `event_counts` and `host_devices`.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use inosec_schemas::{Column, Messages, Rows, TenantId};

use crate::order::{Order, interval_start};

/// One hour, the width of a bucket, in microseconds.
const HOUR: i64 = 3_600_000_000;

/// What a batch adds to one row of `event_counts`. Ordered by the row's key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    /// The UTC hour of `ts`, in microseconds.
    pub bucket: i64,
    /// The tenant.
    pub tenant: TenantId,
    /// The stream.
    pub stream: String,
    /// The column `class_uid`; 0 if the stream has none or it is null.
    pub class_uid: i32,
    /// The column `severity_id`; 0 if the stream has none or it is null.
    pub severity_id: i16,
    /// See [`shard`].
    pub shard: i32,
    /// Rows.
    pub events: i64,
    /// Bytes of their messages as received; 0 for detections, whose message is counted once, with the
    /// stream it arrived on: summed over streams this is what the tenant sent.
    pub bytes: i64,
}

/// What a batch adds to one row of `host_devices`. Ordered by the row's key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    /// The tenant.
    pub tenant: TenantId,
    /// The host.
    pub name: String,
    /// The smallest `ts`, in microseconds.
    pub first_seen: i64,
    /// The largest `ts`, in microseconds.
    pub last_seen: i64,
    /// Rows.
    pub events: i64,
}

/// The smallest partition of the batch. A partition has one owner, so replicas reading the same topic
/// never add to the same row of `event_counts` and never wait for each other there.
pub(crate) fn shard(messages: &Messages) -> i32 {
    let spans = messages.spans.iter().map(|span| span.partition).min();
    // A redrive has messages without spans.
    spans.or_else(|| messages.entries.iter().map(|message| message.partition).min()).unwrap_or(0)
}

/// Counts the rows that `keep` says, sorted by key. `messages` gives their bytes, if they count.
pub(crate) fn counts(
    rows: &Rows,
    messages: Option<&Messages>,
    shard: i32,
    keep: impl Fn(usize) -> bool,
) -> Vec<Count> {
    let class = rows.stream.column("class_uid").map(|column| &rows.columns[column]);
    let severity = rows.stream.column("severity_id").map(|column| &rows.columns[column]);
    let mut sums: HashMap<(i64, TenantId, i32, i16), (i64, i64), RandomState> = HashMap::default();
    for row in (0..rows.len()).filter(|row| keep(*row)) {
        let bucket = interval_start(rows.ts(row), HOUR);
        let class_uid = class.map_or(0, |column| small(column, row));
        let severity_id = severity.map_or(0, |column| small(column, row));
        let sum = sums.entry((bucket, rows.tenant(row), class_uid, severity_id as i16)).or_default();
        sum.0 += 1;
        if let Some(messages) = messages {
            let message = &messages.entries[rows.message[row] as usize];
            sum.1 += i64::from(message.end - message.start);
        }
    }
    let stream = &rows.stream.name;
    let count = |((bucket, tenant, class_uid, severity_id), (events, bytes))| Count {
        bucket,
        tenant,
        stream: stream.clone(),
        class_uid,
        severity_id,
        shard,
        events,
        bytes,
    };
    let mut counts: Vec<Count> = sums.into_iter().map(count).collect();
    counts.sort_unstable();
    counts
}

/// A class or severity. OCSF's fit: a stream that declares a wider column and exceeds them counts as 0.
fn small(column: &Column, row: usize) -> i32 {
    match column {
        Column::Int16(values) => values[row].map_or(0, i32::from),
        Column::Int32(values) => values[row].unwrap_or(0),
        _ => 0,
    }
}

/// The hosts that the ordered rows which `keep` says name, sorted by key.
pub(crate) fn hosts(order: &Order<'_>, keep: impl Fn(usize) -> bool) -> Vec<Host> {
    let mut seen: Vec<Option<(i64, i64, i64)>> = vec![None; order.groups.len()];
    for place in order.places.iter().filter(|place| keep(place.row as usize)) {
        let host = &mut seen[place.group as usize];
        let (first, last, events) = host.unwrap_or((place.ts, place.ts, 0));
        *host = Some((first.min(place.ts), last.max(place.ts), events + 1));
    }
    let hosts = order.groups.iter().zip(seen).filter_map(|(group, seen)| {
        let (first_seen, last_seen, events) = seen?;
        let name = String::from_utf8_lossy(group.host?).into_owned();
        Some(Host { tenant: group.tenant, name, first_seen, last_seen, events })
    });
    hosts.collect()
}
