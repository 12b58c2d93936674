//! Messages, a decoder small enough to be read, and the closure that redoes both steps.
//!
//! A message is `key=value` pairs joined by `;`: `tenant` (a uuid), `host`, `at` (micros UTC),
//! `text`, `id` (of a foreign threat event), `detect` (an id: the record is a detection itself).
//! One that starts with `!` is rejected. Tenants are looked up as decode does.

use std::collections::HashMap;
use std::sync::Arc;

use inosec_schemas::{
    Batch, Catalog, Column, DeadLetter, Directory, EventIds, Fill, Message, Messages, Reason, Rows, Span,
    Stream, TenantId, TenantSource, TenantStatus, Tier, Topic,
};
use inosec_sink::{NewTenant, Redo, SealOptions, Sealed, Store, seal};
use uuid::Uuid;

/// A day all tests live in, so that partitions are predictable: 2026-03-04T10:00:00Z.
pub const NOON: i64 = 1_772_618_400_000_000;

pub fn stream(name: &str) -> Arc<Stream> {
    Arc::clone(&Catalog::embedded().expect("parses").streams[name])
}

/// A registered topic whose partitions 0.. start at offset 0.
pub async fn topic(store: &Store, name: &str, stream_name: &str, partitions: i32) -> Arc<Topic> {
    let id = Some(Uuid::from_u128(77));
    let key = store.register_topic("cluster", name, id).await.expect("registers");
    let topic = Arc::new(Topic {
        cluster: "cluster".to_owned(),
        name: name.to_owned(),
        id,
        key,
        stream: stream(stream_name),
        tenant: TenantSource::Payload,
        event_ids: EventIds::new("cluster", name, id),
    });
    for partition in 0..partitions {
        let resumed =
            store.resume_offset(&topic, partition, (0, 1_000_000), inosec_sink::Start::Earliest).await;
        assert_eq!(resumed.expect("resumes"), inosec_sink::Resume::At(0));
    }
    topic
}

pub async fn tenant(store: &Store, name: &str) -> TenantId {
    let new = NewTenant { id: None, name: name.to_owned(), tier: Tier::Standard, region: None };
    store.add_tenant(&new, "test").await.expect("adds").id
}

/// Messages of consecutive offsets from `from`, one span.
pub fn messages(topic: &Arc<Topic>, partition: i32, from: i64, values: &[String]) -> Messages {
    let to = from + i64::try_from(values.len()).expect("few");
    let mut messages = Messages::new(Arc::clone(topic));
    messages.spans.push(Span { partition, from, to, generation: 1 });
    append(&mut messages, partition, from, values);
    messages
}

/// Adds another partition's messages and span.
pub fn and(mut messages: Messages, partition: i32, from: i64, values: &[String]) -> Messages {
    let to = from + i64::try_from(values.len()).expect("few");
    messages.spans.push(Span { partition, from, to, generation: 1 });
    append(&mut messages, partition, from, values);
    messages
}

fn append(messages: &mut Messages, partition: i32, from: i64, values: &[String]) {
    for (offset, value) in (from..).zip(values) {
        let message = Message {
            start: 0,
            end: 0,
            headers: (0, 0),
            partition,
            offset,
            arrived_at: NOON + offset,
            tombstone: false,
        };
        messages.push(message, value.as_bytes(), &[("kind", Some(b"test")), ("bytes", Some(&[0, 200]))]);
    }
}

pub fn event(tenant: TenantId, host: &str, number: i64) -> String {
    format!("tenant={tenant};host={host};at={};text=event {number}", NOON + number * 1_000_000)
}

/// The redo closure over the store's newest directory.
pub fn redo(store: &Arc<Store>) -> Redo {
    let store = Arc::clone(store);
    Arc::new(move |messages, number| {
        seal(decode(messages, &store.directory()), number, &SealOptions::default())
    })
}

/// Decodes and seals for the first time.
pub async fn sealed(store: &Arc<Store>, messages: Messages) -> Sealed {
    let number = store.number().await.expect("a number");
    redo(store)(messages, number)
}

pub fn decode(messages: Messages, directory: &Directory) -> Batch {
    let topic = Arc::clone(messages.topic());
    let mut rows = Rows::new(Arc::clone(&topic.stream));
    let mut detections = Rows::new(stream("threat_events"));
    let mut dead = Vec::new();
    for (index, message) in (0_u32..).zip(&messages.entries) {
        let value = std::str::from_utf8(messages.value(message)).expect("tests write text");
        let fields: HashMap<&str, &str> =
            value.trim_start_matches('!').split(';').filter_map(|pair| pair.split_once('=')).collect();
        match attribute(value, &fields, directory) {
            Err((reason, tenant)) => {
                dead.push(DeadLetter { message: index, reason, detail: "a test".to_owned(), tenant });
            }
            Ok(tenant) => {
                push(&mut rows, &topic, message, index, tenant, &fields);
                if fields.contains_key("detect") {
                    push(&mut detections, &topic, message, index, tenant, &fields);
                }
            }
        }
    }
    Batch {
        messages,
        rows,
        detections,
        named: Vec::new(),
        suppressed: Vec::new(),
        dead,
        epoch: directory.epoch,
        mismatches: 0,
    }
}

fn attribute(
    value: &str,
    fields: &HashMap<&str, &str>,
    directory: &Directory,
) -> Result<TenantId, (Reason, Option<TenantId>)> {
    let tenant = fields.get("tenant").and_then(|id| id.parse::<TenantId>().ok());
    let tenant = tenant.ok_or((Reason::BadJson, None))?;
    match directory.tenants.get(&tenant).map(|known| known.status) {
        None => Err((Reason::UnknownTenant, None)),
        Some(TenantStatus::Suspended) => Err((Reason::SuspendedTenant, Some(tenant))),
        Some(TenantStatus::Active) if value.starts_with('!') => Err((Reason::BadJson, Some(tenant))),
        Some(TenantStatus::Active) => Ok(tenant),
    }
}

fn push(
    rows: &mut Rows,
    topic: &Topic,
    message: &Message,
    index: u32,
    tenant: TenantId,
    fields: &HashMap<&str, &str>,
) {
    let at = fields.get("at").map_or(message.arrived_at, |at| at.parse().expect("a number"));
    let event = topic.event_ids.event_id(message.partition, message.offset);
    let id = fields.get("id").or(fields.get("detect")).map_or(event, |id| id.parse().expect("a uuid"));
    let row = rows.len();
    for position in 0..rows.columns.len() {
        let column = rows.stream.columns[position].clone();
        let text = match (column.fill, column.name.as_str()) {
            (Fill::Format | Fill::Source, _) => Some("test"),
            (_, "host_name") => fields.get("host").copied(),
            (_, "message" | "signature") => fields.get("text").copied(),
            _ => None,
        };
        let text = text.map(|text| rows.push_text(text.as_bytes()));
        match &mut rows.columns[position] {
            Column::Timestamp(values) => values.push(match column.fill {
                Fill::ArrivedAt => Some(message.arrived_at),
                _ => Some(at),
            }),
            Column::Uuid(values) => values.push(match column.fill {
                Fill::Tenant => Some(tenant.0),
                Fill::EventId => Some(event),
                Fill::Id => Some(id),
                _ => None,
            }),
            Column::Int16(values) => values.push(column.required.then_some(1)),
            Column::Int32(values) => values.push(match column.fill {
                Fill::TopicKey => Some(topic.key),
                Fill::Partition => Some(message.partition),
                _ => column.required.then_some(1001),
            }),
            Column::Int64(values) => values.push(match column.fill {
                Fill::Offset => Some(message.offset),
                Fill::Seq => Some(0),
                _ => None,
            }),
            Column::Text(values) => values.push(text),
            other => other.resize(row + 1),
        }
    }
    rows.message.push(index);
}
