//! What a sealed batch promises, recounted the slow way from what went in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use inosec_schemas::{
    Column, DeadLetter, EventIds, Message, Messages, Reason, Slice, Span, Stream, TenantId, TenantSource,
    Topic,
};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::block::read_block;
use crate::encode::tests::read;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;
/// A midnight.
const MIDNIGHT: i64 = 20_454 * DAY;
const NUMBER: i64 = 9;
/// 2000-01-01, from where COPY counts its microseconds.
const COPY_EPOCH: i64 = 10_957 * DAY;

/// A message and what decode made of it.
#[derive(Debug, Clone)]
struct Event {
    fate: Fate,
    tenant: u8,
    host: Option<u8>,
    ts: i64,
    class: Option<i32>,
    severity: Option<i16>,
    bytes: usize,
    partition: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Row,
    Detection,
    Dead,
}

impl Event {
    fn tenant(&self) -> TenantId {
        TenantId(Uuid::from_u128(self.tenant.into()))
    }

    fn host(&self) -> Option<String> {
        // One is the beginning of another.
        self.host.map(|host| "h".repeat(usize::from(host) + 1))
    }
}

/// A batch to be sealed, and how.
#[derive(Debug, Clone)]
struct Case {
    events: Vec<Event>,
    interval: &'static str,
    dedup: bool,
    spans: bool,
    options: SealOptions,
}

fn event() -> impl Strategy<Value = Event> {
    let fate = prop_oneof![5 => Just(Fate::Row), 2 => Just(Fate::Detection), 1 => Just(Fate::Dead)];
    // Around midnight, in 2026 and in 1970, with ties; or on its edge.
    let day = prop_oneof![Just(MIDNIGHT), Just(0)];
    let within = prop_oneof![(-60_i64..60).prop_map(|halves| halves * HOUR / 2), -1_i64..=1];
    let ts = (day, within).prop_map(|(day, within)| day + within);
    let host = prop::option::of(0_u8..3);
    let class = prop::option::of(prop::sample::select(vec![0, 1007, 3002]));
    let bytes = prop_oneof![3 => 0_usize..200, 1 => 0_usize..2000];
    (fate, 0_u8..3, host, ts, class, prop::option::of(0_i16..3), bytes, 3_i32..6).prop_map(
        |(fate, tenant, host, ts, class, severity, bytes, partition)| Event {
            fate,
            tenant,
            host,
            ts,
            class,
            severity,
            bytes,
            partition,
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let events =
        prop_oneof![4 => prop::collection::vec(event(), 0..80), 1 => prop::collection::vec(event(), 0..3)];
    let options = (1_usize..12, 1_usize..600)
        .prop_map(|(messages, bytes)| SealOptions { blocks: BlockOptions { messages, bytes, level: 1 } });
    let interval = prop_oneof![Just("hour"), Just("day")];
    (events, interval, any::<bool>(), any::<bool>(), options).prop_map(
        |(events, interval, dedup, spans, options)| Case { events, interval, dedup, spans, options },
    )
}

fn stream(name: &str, interval: &str, dedup: bool) -> Arc<Stream> {
    let dedup = if dedup { "dedup = \"id\"\n" } else { "" };
    let mut text =
        format!("name = \"{name}\"\ndescription = \"\"\npartition_interval = \"{interval}\"\n{dedup}");
    for (name, kind, fill) in [
        ("mark", "int64", "message"),
        ("tenant_id", "uuid", "tenant"),
        ("host_name", "text", "message"),
        ("ts", "timestamp", "ts"),
        ("id", "uuid", "id"),
        ("class_uid", "int32", "message"),
        ("seq", "int64", "seq"),
        ("severity_id", "int16", "message"),
    ] {
        text += &format!(
            "[[columns]]\nname = \"{name}\"\nkind = \"{kind}\"\nfill = \"{fill}\"\ndescription = \"\"\n"
        );
    }
    Arc::new(Stream::parse("t.toml", &text).unwrap())
}

impl Case {
    fn messages(&self, stream: &Arc<Stream>) -> Messages {
        let mut messages = Messages::new(Arc::new(Topic {
            cluster: "c".to_owned(),
            name: "t".to_owned(),
            id: None,
            key: 1,
            stream: Arc::clone(stream),
            tenant: TenantSource::Header,
            event_ids: EventIds::new("c", "t", None),
        }));
        for (index, event) in self.events.iter().enumerate() {
            let message = Message {
                start: 0,
                end: 0,
                headers: (0, 0),
                partition: event.partition,
                offset: index as i64,
                arrived_at: event.ts,
                tombstone: false,
            };
            messages.push(message, &vec![index as u8; event.bytes], &[("inosec-tenant", Some(b"t"))]);
        }
        if self.spans {
            messages.spans =
                [2, 3, 4, 5].map(|partition| Span { partition, from: 0, to: 99, generation: 1 }).to_vec();
        }
        messages
    }

    /// The rows of these events, in this order.
    fn rows(&self, stream: Arc<Stream>, events: &[usize]) -> Rows {
        let mut rows = Rows::new(stream);
        for index in events {
            let event = &self.events[*index];
            let host = event.host().map(|host| rows.push_text(host.as_bytes()));
            push_row(&mut rows, *index, event, host);
        }
        rows.finish();
        rows
    }

    fn batch(&self, shuffled: impl Fn(&mut Vec<usize>)) -> Batch {
        let of = |wanted: &[Fate]| {
            let mut events: Vec<usize> =
                (0..self.events.len()).filter(|index| wanted.contains(&self.events[*index].fate)).collect();
            shuffled(&mut events);
            events
        };
        let stream = stream("things", self.interval, self.dedup);
        let detections = self::stream("findings", "day", false);
        let dead = of(&[Fate::Dead]).into_iter().map(|message| DeadLetter {
            message: message as u32,
            reason: Reason::BadJson,
            detail: String::new(),
            tenant: None,
        });
        Batch {
            messages: self.messages(&stream),
            rows: self.rows(stream, &of(&[Fate::Row, Fate::Detection])),
            detections: self.rows(detections, &of(&[Fate::Detection])),
            named: Vec::new(),
            suppressed: Vec::new(),
            dead: dead.collect(),
            epoch: 1,
            mismatches: 0,
        }
    }

    fn seal(&self) -> Sealed {
        seal(self.batch(|_| ()), NUMBER, &self.options)
    }

    fn width(&self) -> i64 {
        if self.interval == "hour" { HOUR } else { DAY }
    }

    /// The rows' messages in the order they must be stored.
    fn ordered(&self) -> Vec<usize> {
        let mut rows: Vec<usize> =
            (0..self.events.len()).filter(|index| self.events[*index].fate != Fate::Dead).collect();
        rows.sort_by_key(|index| {
            let event = &self.events[*index];
            (event.ts.div_euclid(self.width()), event.tenant(), event.host(), event.ts, *index)
        });
        rows
    }

    /// What stands in the tables of counts, from these rows' messages and those of all detections.
    fn counts(&self, rows: &[usize]) -> Vec<Count> {
        let mut counts = BTreeMap::new();
        let mut add = |stream: &str, index: usize, bytes: usize| {
            let event = &self.events[index];
            let bucket = event.ts.div_euclid(HOUR) * HOUR;
            let (class, severity) = (event.class.unwrap_or(0), event.severity.unwrap_or(0));
            let key = (bucket, event.tenant(), stream.to_owned(), class, severity);
            let count: &mut (i64, i64) = counts.entry(key).or_default();
            *count = (count.0 + 1, count.1 + bytes as i64);
        };
        rows.iter().for_each(|index| add("things", *index, self.events[*index].bytes));
        let found = (0..self.events.len()).filter(|index| self.events[*index].fate == Fate::Detection);
        found.for_each(|index| add("findings", index, 0));
        let smallest = self.events.iter().map(|event| event.partition).min().unwrap_or(0);
        let shard = if self.spans { 2 } else { smallest };
        let count = |((bucket, tenant, stream, class_uid, severity_id), (events, bytes))| Count {
            bucket,
            tenant,
            stream,
            class_uid,
            severity_id,
            shard,
            events,
            bytes,
        };
        counts.into_iter().map(count).collect()
    }

    fn hosts(&self, rows: &[usize]) -> Vec<Host> {
        let mut hosts: BTreeMap<(TenantId, String), Vec<i64>> = BTreeMap::new();
        for event in rows.iter().map(|index| &self.events[*index]) {
            if let Some(host) = event.host() {
                hosts.entry((event.tenant(), host)).or_default().push(event.ts);
            }
        }
        let host = |((tenant, name), seen): (_, Vec<i64>)| Host {
            tenant,
            name,
            first_seen: *seen.iter().min().unwrap(),
            last_seen: *seen.iter().max().unwrap(),
            events: seen.len() as i64,
        };
        hosts.into_iter().map(host).collect()
    }
}

fn push_row(rows: &mut Rows, index: usize, event: &Event, host: Option<Slice>) {
    for position in 0..rows.columns.len() {
        let name = rows.stream.columns[position].name.clone();
        match (name.as_str(), rows.end_of(position)) {
            ("mark", Column::Int64(values)) => values.push(Some(index as i64)),
            ("tenant_id", Column::Uuid(values)) => values.push(Some(event.tenant().0)),
            ("host_name", Column::Text(values)) => values.push(host),
            ("ts", Column::Timestamp(values)) => values.push(Some(event.ts)),
            ("class_uid", Column::Int32(values)) => values.push(event.class),
            ("severity_id", Column::Int16(values)) => values.push(event.severity),
            // The id is null and the seq filled in by seal.
            _ => {}
        }
    }
    rows.message.push(index as u32);
}

/// The message and `seq` of each written row, in order.
fn marks(frames: &Frames) -> Vec<(usize, i64)> {
    let integer = |field: &Option<Vec<u8>>| i64::from_be_bytes(field.as_deref().unwrap().try_into().unwrap());
    tuples(frames).iter().map(|tuple| (integer(&tuple[0]) as usize, integer(&tuple[6]))).collect()
}

/// No tuple is no COPY.
fn tuples(frames: &Frames) -> Vec<Vec<Option<Vec<u8>>>> {
    if frames.is_empty() { Vec::new() } else { read(frames) }
}

/// One row of `raw_blocks` and the messages inside.
struct Block {
    ts: i64,
    tenant: TenantId,
    first: i64,
    last: i64,
    messages: Vec<(i64, Vec<u8>)>,
}

fn blocks(frames: &Frames) -> Vec<Block> {
    let block = |tuple: Vec<Option<Vec<u8>>>| {
        let fields: Vec<Vec<u8>> = tuple.into_iter().map(Option::unwrap).collect();
        let integer = |at: usize| i64::from_be_bytes(fields[at].as_slice().try_into().unwrap());
        assert_eq!((fields.len(), &fields[2][..], &fields[6][..]), (8, &b"things"[..], &b"zstd"[..]));
        let raw = read_block(&fields[7]).unwrap();
        assert_eq!(fields[5], (raw.len() as i32).to_be_bytes());
        Block {
            ts: integer(0) + COPY_EPOCH,
            tenant: TenantId(Uuid::from_slice(&fields[1]).unwrap()),
            first: integer(3),
            last: integer(4),
            messages: raw.iter().map(|(seq, message)| (seq, message.to_vec())).collect(),
        }
    };
    tuples(frames).into_iter().map(block).collect()
}

proptest! {
    #[test]
    fn every_row_s_message_lies_in_one_block_under_its_seq(case in case()) {
        let sealed = case.seal();
        let ordered = case.ordered();
        let mut kept = BTreeMap::new();
        for block in blocks(&sealed.blocks) {
            for (seq, message) in block.messages {
                prop_assert!(kept.insert(seq, message).is_none(), "one block only");
            }
        }
        let seqs: Vec<i64> = (0..ordered.len()).map(|position| NUMBER << 20 | position as i64).collect();
        prop_assert_eq!(kept.keys().copied().collect::<Vec<_>>(), seqs);
        for ((seq, message), index) in kept.iter().zip(&ordered) {
            prop_assert_eq!(message, &vec![*index as u8; case.events[*index].bytes], "seq {}", seq);
        }
    }

    #[test]
    fn rows_are_in_order_and_numbered_by_it(case in case()) {
        let sealed = case.seal();
        let ordered = case.ordered();
        let rows = if case.dedup {
            prop_assert!(sealed.rows.is_empty() && sealed.hosts.is_empty(), "rows wait for what is new");
            sealed.encode_kept(&vec![true; ordered.len()]).0
        } else {
            sealed.rows.clone()
        };
        let numbered = |ordered: Vec<usize>| (0_i64..).zip(ordered).map(|(place, index)| (index, NUMBER << 20 | place));
        prop_assert_eq!(marks(&rows), numbered(ordered.clone()).collect::<Vec<_>>());
        // Detections have the seq of their message's row, and are ordered by days.
        let mut found: Vec<(usize, i64)> = numbered(ordered).filter(|(index, _)| case.events[*index].fate == Fate::Detection).collect();
        found.sort_by_key(|(index, _)| {
            let event = &case.events[*index];
            (event.ts.div_euclid(DAY), event.tenant(), event.host(), event.ts, *index)
        });
        prop_assert_eq!(marks(&sealed.detections), found);
    }

    #[test]
    fn a_block_has_one_tenant_one_interval_and_fits_the_limits(case in case()) {
        let sealed = case.seal();
        let ordered = case.ordered();
        let limits = case.options.blocks;
        let all = blocks(&sealed.blocks);
        for block in &all {
            let place = |seq: i64| (seq - (NUMBER << 20)) as usize;
            let events: Vec<&Event> = ordered[place(block.first)..=place(block.last)].iter().map(|index| &case.events[*index]).collect();
            prop_assert_eq!(events.len(), block.messages.len());
            prop_assert!(events.iter().all(|event| event.tenant() == block.tenant));
            let interval = block.ts.div_euclid(case.width());
            prop_assert!(events.iter().all(|event| event.ts.div_euclid(case.width()) == interval));
            prop_assert_eq!(Some(block.ts), events.iter().map(|event| event.ts).max());
            let bytes: usize = events.iter().map(|event| event.bytes).sum();
            prop_assert!(events.len() == 1 || (events.len() <= limits.messages && bytes <= limits.bytes));
        }
        // No two neighbours could have been one.
        for pair in all.windows(2) {
            let bytes = pair[0].messages.iter().map(|(_, message)| message.len()).sum::<usize>() + pair[1].messages[0].1.len();
            let full = pair[0].messages.len() == limits.messages || bytes > limits.bytes;
            let other = pair[0].tenant != pair[1].tenant || pair[0].ts.div_euclid(case.width()) != pair[1].ts.div_euclid(case.width());
            prop_assert!(full || other);
        }
    }

    #[test]
    fn counts_hosts_and_partitions_equal_a_recount(case in case(), keep in prop::collection::vec(any::<bool>(), 80)) {
        let sealed = case.seal();
        let ordered = case.ordered();
        if case.dedup {
            let rows = &sealed.batch.rows;
            let keep = &keep[..rows.len()];
            let is_kept = |index: &usize| keep[rows.message.iter().position(|message| *message as usize == *index).unwrap()];
            let kept: Vec<usize> = ordered.iter().copied().filter(is_kept).collect();
            let (frames, counts) = sealed.encode_kept(keep);
            prop_assert_eq!(counts, case.counts(&kept));
            prop_assert_eq!(sealed.hosts_kept(keep), case.hosts(&kept));
            prop_assert_eq!(&sealed.counts, &case.counts(&[]));
            // What is left out changes no other row's seq.
            let seqs = (0_i64..).zip(&ordered).filter(|(_, index)| is_kept(index)).map(|(place, index)| (*index, NUMBER << 20 | place));
            prop_assert_eq!(marks(&frames), seqs.collect::<Vec<_>>());
        } else {
            prop_assert_eq!(&sealed.counts, &case.counts(&ordered));
            prop_assert_eq!(&sealed.hosts, &case.hosts(&ordered));
            // Detections that repeat others are left out, and nothing else changes.
            let found = &sealed.batch.detections;
            let (frames, counts) = sealed.detections_kept(&keep[..found.len()]);
            let is_kept = |index: usize| keep[found.message.iter().position(|message| *message as usize == index).unwrap()];
            let kept: Vec<_> = marks(&sealed.detections).into_iter().filter(|(index, _)| is_kept(*index)).collect();
            let counted = counts.iter().filter(|count| count.stream == "findings").map(|count| count.events).sum::<i64>();
            prop_assert_eq!(counted, kept.len() as i64);
            prop_assert_eq!(marks(&frames), kept);
            let of_rows = |counts: &[Count]| counts.iter().filter(|count| count.stream == "things").cloned().collect::<Vec<_>>();
            prop_assert_eq!(of_rows(&counts), of_rows(&sealed.counts));
        }
        let mut partitions = BTreeSet::new();
        for event in ordered.iter().map(|index| &case.events[*index]) {
            let mut touch = |table: &str, width: i64| {
                partitions.insert((table.to_owned(), event.ts.div_euclid(width) * width));
            };
            touch("things", case.width());
            touch("raw_blocks", DAY);
            if event.fate == Fate::Detection {
                touch("findings", DAY);
            }
        }
        prop_assert_eq!(sealed.partitions, partitions.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn the_order_of_rows_within_the_batch_changes_nothing(case in case(), turn in any::<prop::sample::Index>()) {
        let sealed = case.seal();
        let shuffled = case.batch(|events| {
            let length = events.len();
            events.rotate_left(if length == 0 { 0 } else { turn.index(length) });
            events.chunks_mut(3).for_each(<[usize]>::reverse);
        });
        let other = seal(shuffled, NUMBER, &case.options);
        prop_assert_eq!(&sealed.rows, &other.rows);
        prop_assert_eq!(&sealed.detections, &other.detections);
        prop_assert_eq!(&sealed.blocks, &other.blocks);
        prop_assert_eq!(&sealed.counts, &other.counts);
        prop_assert_eq!(&sealed.hosts, &other.hosts);
        prop_assert_eq!(&sealed.partitions, &other.partitions);
        let all = vec![true; sealed.batch.rows.len()];
        prop_assert_eq!(sealed.encode_kept(&all), other.encode_kept(&all));
    }
}

#[test]
fn a_batch_without_rows_is_sealed_to_nothing() {
    let case = Case {
        events: Vec::new(),
        interval: "day",
        dedup: false,
        spans: true,
        options: SealOptions::default(),
    };
    let sealed = case.seal();
    assert!(sealed.rows.is_empty() && sealed.blocks.is_empty() && sealed.detections.is_empty());
    assert!(sealed.counts.is_empty() && sealed.hosts.is_empty() && sealed.partitions.is_empty());
}
