//! What must hold of a decoded batch and of a sealed one.

use std::collections::BTreeMap;

use inosec_schemas::{Batch, Column, Fill, Kind, Rows, Slice};
use inosec_sink::{SealOptions, read_block, seal};

use crate::copy::tuples;
use crate::road::{ARRIVED_AT, LIMITS};

/// What PostgreSQL's `timestamptz` can hold: 4713 BC to 294276 AD, in microseconds since 1970.
const TIMES: std::ops::RangeInclusive<i64> = -210_866_803_200_000_000..=9_223_371_331_199_999_999;

/// Every message is one row or one dead letter, and rows are such that PostgreSQL takes them.
///
/// # Panics
/// If not.
pub fn batch(batch: &Batch) {
    let mut seen: Vec<u32> = batch.rows.message.clone();
    seen.extend(batch.dead.iter().map(|dead| dead.message));
    seen.sort_unstable();
    let all: Vec<u32> = (0..).take(batch.messages.entries.len()).collect();
    assert_eq!(seen, all, "each message is one row or one dead letter");
    for message in &batch.detections.message {
        assert!(batch.rows.message.contains(message), "a detection's message has a row");
    }
    for rows in [&batch.rows, &batch.detections] {
        for (position, column) in rows.columns.iter().enumerate() {
            self::column(rows, position, column);
        }
        for row in 0..rows.len() {
            let ts = rows.ts(row);
            let believed = ARRIVED_AT - LIMITS.max_age_us..=ARRIVED_AT + LIMITS.max_skew_us;
            assert!(believed.contains(&ts), "ts {ts} is within what is believed");
        }
    }
}

fn column(rows: &Rows, position: usize, column: &Column) {
    let spec = &rows.stream.columns[position];
    let name = &spec.name;
    assert_eq!(column.len(), rows.len(), "column {name} has a value per row");
    for row in 0..rows.len() {
        let value = value(rows, column, row);
        assert!(value.is_some() || !spec.required, "required column {name} has a value");
        let Some(bytes) = value else { continue };
        match spec.kind {
            Kind::Text => {
                let text = std::str::from_utf8(&bytes).expect("texts are UTF-8");
                assert!(!text.contains('\0'), "column {name} has no NUL");
                let cut = spec.fill == Fill::Message;
                assert!(!cut || bytes.len() <= spec.cap as usize, "column {name} is cut at its cap");
                assert!(
                    !cut || !spec.first_line || !text.contains(['\r', '\n']),
                    "column {name} is one line"
                );
            }
            Kind::TextList => {
                std::str::from_utf8(&bytes).expect("texts are UTF-8");
                assert!(bytes.last().is_none_or(|last| *last == 0), "items of {name} are ended by NUL");
            }
            Kind::Json => {
                let json: serde_json::Value = serde_json::from_slice(&bytes).expect("sound JSON");
                assert!(no_nul(&json), "column {name} has no NUL, which jsonb refuses");
            }
            Kind::Timestamp => {
                let time = i64::from_le_bytes(bytes.try_into().expect("eight bytes"));
                assert!(TIMES.contains(&time), "column {name} holds a time PostgreSQL can hold: {time}");
            }
            _ => {}
        }
    }
}

fn no_nul(json: &serde_json::Value) -> bool {
    match json {
        serde_json::Value::String(text) => !text.contains('\0'),
        serde_json::Value::Array(items) => items.iter().all(no_nul),
        serde_json::Value::Object(members) => {
            members.iter().all(|(name, value)| !name.contains('\0') && no_nul(value))
        }
        _ => true,
    }
}

/// A value as bytes; `None` is null.
fn value(rows: &Rows, column: &Column, row: usize) -> Option<Vec<u8>> {
    let slice = |slice: Slice| rows.slice(slice).to_vec();
    match column {
        Column::Bool(values) => values[row].map(|value| vec![value.into()]),
        Column::Int16(values) => values[row].map(|value| value.to_le_bytes().to_vec()),
        Column::Int32(values) => values[row].map(|value| value.to_le_bytes().to_vec()),
        Column::Int64(values) | Column::Timestamp(values) => {
            values[row].map(|value| value.to_le_bytes().to_vec())
        }
        Column::Float64(values) => values[row].map(|value| value.to_le_bytes().to_vec()),
        Column::Uuid(values) => values[row].map(|value| value.as_bytes().to_vec()),
        Column::Inet(values) => values[row].map(|value| value.to_string().into_bytes()),
        Column::Text(values) | Column::Json(values) | Column::TextList(values) | Column::Bytes(values) => {
            values[row].map(slice)
        }
    }
}

/// What a message became: its row's values by column, or the reason why it has none; then the values of
/// its detection, if it is one.
///
/// # Panics
/// If it is neither row nor dead letter.
#[must_use]
pub fn cells(batch: &Batch, message: u32) -> Result<[Vec<(String, String)>; 2], &'static str> {
    if let Some(dead) = batch.dead.iter().find(|dead| dead.message == message) {
        return Err(dead.reason.name());
    }
    let of = |rows: &Rows| -> Option<Vec<(String, String)>> {
        let row = rows.message.iter().position(|known| *known == message)?;
        let cell = |(position, column): (usize, &Column)| {
            let name = rows.stream.columns[position].name.clone();
            (name, format!("{:?}", value(rows, column, row).map(|bytes| bytes.escape_ascii().to_string())))
        };
        Some(rows.columns.iter().enumerate().map(cell).collect())
    };
    Ok([of(&batch.rows).expect("a row or a dead letter"), of(&batch.detections).unwrap_or_default()])
}

/// Seals the batch: the messages with a row, and only those, come back byte for byte under their row's
/// `seq`. Offsets must be distinct, for rows are told apart by `event_id`.
///
/// # Panics
/// If not.
pub fn sealed(batch: Batch, number: i64) {
    let stream = std::sync::Arc::clone(&batch.rows.stream);
    let sealed = seal(batch, number, &SealOptions::default());
    let mut kept: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
    for block in tuples(&sealed.blocks) {
        let data = block[7].as_deref().expect("data");
        let block = read_block(data).expect("a block is read back");
        for (seq, message) in block.iter() {
            assert_eq!(block.find(seq), Some(message));
            assert!(kept.insert(seq, message.to_vec()).is_none(), "seq {seq} stands in one block only");
        }
    }
    let rows = match stream.dedup {
        None => tuples(&sealed.rows),
        Some(_) => tuples(&sealed.encode_kept(&vec![true; sealed.batch.rows.len()]).0),
    };
    assert_eq!(rows.len(), sealed.batch.rows.len(), "each row is written");
    assert_eq!(kept.len(), rows.len(), "each row's message is kept");
    let seq = stream.filled_by(Fill::Seq);
    let id = stream.filled_by(Fill::EventId);
    // A stream needs neither column; without them rows can't be told apart here.
    let (Some(seq), Some(id)) = (seq, id) else { return };
    let messages = &sealed.batch.messages;
    for row in rows {
        let seq = row[seq].as_deref().and_then(|seq| seq.try_into().ok()).map(i64::from_be_bytes);
        let message = messages.entries.iter().find(|message| {
            let event = messages.topic().event_ids.event_id(message.partition, message.offset);
            row[id].as_deref() == Some(event.as_bytes())
        });
        let message = message.expect("a row's event_id is of its message");
        let found = kept.get(&seq.expect("seq is eight bytes"));
        assert_eq!(found.map(Vec::as_slice), Some(messages.value(message)), "byte for byte");
    }
    assert_eq!(tuples(&sealed.detections).len(), sealed.batch.detections.len());
}
