//! Seals a batch: orders its rows, compresses its messages into raw blocks, counts, and writes all of it
//! as COPY data, so that the writer's transaction only has to send bytes.
//!
//! In: a decoded [`Batch`] and its number. Out: [`Sealed`]. A pure function: the same batch and number
//! give the same bytes. The work is the CPU's, about 4 µs a message: it belongs on a worker thread.

use std::collections::BTreeSet;

use inosec_schemas::{Batch, Interval, Rows, Stream};

use crate::block::{BlockOptions, BlockRow, Packer};
use crate::encode::{CopyWriter, Frames, encode_rows};
use crate::order::{Order, Place, interval_start};
use crate::{suppressed, tally};

pub use crate::tally::{Count, Host};

/// `seq` = batch number × 2^20 + position in the batch's order.
const POSITION_BITS: u32 = 20;
/// A batch has fewer rows than this.
const MAX_ROWS: usize = 1 << POSITION_BITS;
/// The table of raw blocks and the width of its partitions (migration 4).
const RAW_BLOCKS: (&str, Interval) = ("raw_blocks", Interval::Day);
/// The `seq` of a detection whose message has no row; no block has it.
const NOWHERE: i64 = -1;

/// How to seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SealOptions {
    /// How raw blocks are cut and compressed.
    pub blocks: BlockOptions,
}

/// A batch ready to be written.
#[derive(Debug)]
pub struct Sealed {
    /// What was sealed; a redo starts from its messages.
    pub batch: Batch,
    /// The batch's number: `seq` = number × 2^20 + position.
    pub number: i64,
    /// COPY data of the stream's table. Empty without rows, and for streams that drop repeats: theirs
    /// comes from [`Sealed::encode_kept`].
    pub rows: Frames,
    /// COPY data of the batch's detections. Empty without any.
    pub detections: Frames,
    /// COPY data of `raw_blocks` (ts, tenant_id, stream, first_seq, last_seq, events, codec, data): the
    /// messages that became rows. A repeat's message is among them too, since blocks are made before it
    /// is known that it is one.
    pub blocks: Frames,
    /// What to add to `event_counts`, sorted by key: rows and detections. For streams that drop repeats
    /// the detections only; [`Sealed::encode_kept`] has the rest.
    pub counts: Vec<Count>,
    /// What to add to `host_devices`, sorted by key: the hosts of rows. Empty for streams that drop
    /// repeats: theirs comes from [`Sealed::hosts_kept`].
    pub hosts: Vec<Host>,
    /// The partitions that must exist: table and start of the interval, in microseconds. Sorted.
    pub partitions: Vec<(String, i64)>,
}

/// Seals a batch under a number that no other batch has.
///
/// # Panics
/// If the batch has 2^20 rows or more (the configuration caps batches far below), or without memory
/// for zstd's context.
#[must_use]
pub fn seal(batch: Batch, number: i64, options: &SealOptions) -> Sealed {
    let rows = &batch.rows;
    assert!(rows.len() < MAX_ROWS, "a batch has fewer than 2^20 rows");
    let order = Order::of(rows, order_width(rows));
    let detections = Order::of(&batch.detections, batch.detections.stream.interval.micros());
    let blocks = encode_blocks(&batch, number, &order, &options.blocks);
    let encoded_detections = encode_detections(&batch, number, &order, &detections);
    let shard = tally::shard(&batch.messages);
    let mut counts = tally::counts(&batch.detections, None, shard, |_| true);
    let (mut encoded, mut hosts) = (Frames::new(), Vec::new());
    // Rows of a stream that drops repeats wait until it is known which ones are new.
    if rows.stream.dedup.is_none() {
        encoded = encode_rows(rows, places(&order.places, number));
        hosts = tally::hosts(&order, |_| true);
        counts.extend(tally::counts(rows, Some(&batch.messages), shard, |_| true));
        counts.sort_unstable();
    }
    let partitions = partitions(&batch, &order, &detections);
    drop((order, detections));
    Sealed { batch, number, rows: encoded, detections: encoded_detections, blocks, counts, hosts, partitions }
}

impl Sealed {
    /// For streams that drop repeats: the COPY data of the rows that `keep` says, by row of
    /// `batch.rows`, and what to add to `event_counts` in place of [`Sealed::counts`]. Each row has the
    /// `seq` under which its message lies in the blocks, whatever else is kept.
    #[must_use]
    pub fn encode_kept(&self, keep: &[bool]) -> (Frames, Vec<Count>) {
        let rows = &self.batch.rows;
        let order = Order::of(rows, order_width(rows));
        let kept = places(&order.places, self.number).filter(|(row, _)| keep[*row]);
        let shard = tally::shard(&self.batch.messages);
        let mut counts = tally::counts(rows, Some(&self.batch.messages), shard, |row| keep[row]);
        counts.extend_from_slice(&self.counts);
        counts.sort_unstable();
        (encode_rows(rows, kept), counts)
    }

    /// Where some detections repeat others: the COPY data of those that `keep` says, by row of
    /// `batch.detections`, and what to add to `event_counts` in place of [`Sealed::counts`].
    #[must_use]
    pub fn detections_kept(&self, keep: &[bool]) -> (Frames, Vec<Count>) {
        let Batch { messages, rows, detections, .. } = &self.batch;
        let order = Order::of(rows, order_width(rows));
        let mut kept = Order::of(detections, detections.stream.interval.micros());
        kept.places.retain(|place| keep[place.row as usize]);
        let shard = tally::shard(messages);
        let mut counts = tally::counts(detections, None, shard, |row| keep[row]);
        counts.extend(tally::counts(rows, Some(messages), shard, |_| true));
        counts.sort_unstable();
        (encode_detections(&self.batch, self.number, &order, &kept), counts)
    }

    /// For streams that drop repeats: what to add to `host_devices` in place of [`Sealed::hosts`].
    #[must_use]
    pub fn hosts_kept(&self, keep: &[bool]) -> Vec<Host> {
        let rows = &self.batch.rows;
        tally::hosts(&Order::of(rows, order_width(rows)), |row| keep[row])
    }
}

/// Blocks and rows must lie in the same partition interval, so the order goes by the narrower one.
fn order_width(rows: &Rows) -> i64 {
    rows.stream.interval.micros().min(RAW_BLOCKS.1.micros())
}

fn seq(number: i64, position: usize) -> i64 {
    number << POSITION_BITS | position as i64
}

/// Rows and their `seq`, in order.
fn places(places: &[Place], number: i64) -> impl Iterator<Item = (usize, i64)> {
    places.iter().enumerate().map(move |(position, place)| (place.row as usize, seq(number, position)))
}

/// Cuts the ordered messages wherever the partition interval or the tenant changes or a block is full.
fn encode_blocks(batch: &Batch, number: i64, order: &Order<'_>, options: &BlockOptions) -> Frames {
    if order.places.is_empty() {
        return Frames::new();
    }
    let mut packer = Packer::new(options.level);
    let mut writer = CopyWriter::new();
    let mut start = 0;
    while start < order.places.len() {
        let end = start + block_length(batch, order, start, options);
        let first = &order.places[start];
        let places = &order.places[start..end];
        let messages = places
            .iter()
            .enumerate()
            .map(|(position, place)| (seq(number, start + position), value(batch, place)));
        BlockRow {
            ts: places.iter().fold(first.ts, |ts, place| ts.max(place.ts)),
            tenant: order.tenant(first),
            stream: &batch.rows.stream.name,
            first_seq: seq(number, start),
            last_seq: seq(number, end - 1),
            events: places.len() as i32,
            data: packer.pack(messages),
        }
        .put(&mut writer);
        start = end;
    }
    writer.finish()
}

fn value<'a>(batch: &'a Batch, place: &Place) -> &'a [u8] {
    batch.messages.value(&batch.messages.entries[place.message as usize])
}

/// How many messages from `start` on make one block; at least one.
fn block_length(batch: &Batch, order: &Order<'_>, start: usize, options: &BlockOptions) -> usize {
    let first = &order.places[start];
    let mut bytes = 0;
    for (length, place) in order.places[start..].iter().enumerate() {
        let more = value(batch, place).len();
        let other = place.interval != first.interval || order.tenant(place) != order.tenant(first);
        if other || options.is_full(length, bytes, 1, more) {
            return length;
        }
        bytes += more;
    }
    order.places.len() - start
}

/// A detection's `seq` is that of the row of the same message.
fn encode_detections(batch: &Batch, number: i64, order: &Order<'_>, detections: &Order<'_>) -> Frames {
    if detections.places.is_empty() {
        return Frames::new();
    }
    let mut seqs = vec![NOWHERE; batch.messages.entries.len()];
    for (position, place) in order.places.iter().enumerate() {
        seqs[place.message as usize] = seq(number, position);
    }
    let places = detections.places.iter().map(|place| {
        let seq = seqs[place.message as usize];
        debug_assert!(seq != NOWHERE, "a detection's message has a row");
        (place.row as usize, seq)
    });
    encode_rows(&batch.detections, places)
}

fn partitions(batch: &Batch, order: &Order<'_>, detections: &Order<'_>) -> Vec<(String, i64)> {
    let mut partitions = BTreeSet::new();
    let mut touch = |order: &Order<'_>, table: &str, interval: Interval| {
        let mut last = None;
        for place in &order.places {
            let start = interval_start(place.ts, interval.micros());
            if last.replace(start) != Some(start) {
                partitions.insert((table.to_owned(), start));
            }
        }
    };
    touch(order, &batch.rows.stream.name, batch.rows.stream.interval);
    touch(order, RAW_BLOCKS.0, RAW_BLOCKS.1);
    let Stream { name, interval, .. } = &*batch.detections.stream;
    touch(detections, name, *interval);
    let noticed = suppressed::partitions(&batch.suppressed, *interval);
    partitions.extend(noticed.map(|start| (name.clone(), start)));
    partitions.into_iter().collect()
}

#[cfg(test)]
mod tests;
