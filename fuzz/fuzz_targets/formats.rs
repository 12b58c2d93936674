//! Records of a format that is told: what a record means depends neither on the envelope around it nor
//! on what was decoded before it.
//!
//! In: one byte that chooses format (six bits), stream (the highest bit) and whether the record alone is
//! read by a decoder that has learnt nothing (the bit below); then records, with line feeds between them.
//! The last one is the record; the others come before it.
#![no_main]

use std::cell::RefCell;
use std::sync::LazyLock;

use inosec_fuzz::{Road, SOUND, Sent};
use inosec_schemas::{Batch, Catalog};
use libfuzzer_sys::fuzz_target;

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::embedded().expect("sound descriptions"));

thread_local! {
    /// One decodes records alone, the other all the rest. Both keep what they learnt: compiling the
    /// formats afresh for every input would take ten times as long as all else.
    static ROADS: RefCell<[Road; 2]> = RefCell::new([Road::new(&CATALOG), Road::new(&CATALOG)]);
}

fuzz_target!(|data: &[u8]| ROADS.with_borrow_mut(|[alone, others]| check(data, alone, others)));

fn check(data: &[u8], by_itself: &mut Road, others: &mut Road) {
    let Some((choice, records)) = data.split_first() else { return };
    let stream = if choice & 0x80 == 0 { "agent_logs" } else { "threat_events" };
    // One beyond the formats: none is told.
    let format = CATALOG.formats.get(usize::from(choice & 0x3f) % (CATALOG.formats.len() + 1));
    let format = format.map(|format| format.name.as_str());
    let mut records: Vec<&[u8]> = records.split(|byte| *byte == b'\n').collect();
    let record = records.pop().unwrap_or_default();

    let sent = |value, offset| Sent { value, format, offset };
    if choice & 0x40 != 0 {
        *by_itself = Road::new(&CATALOG);
    }
    let alone = by_itself.decode(stream, &[sent(record, 0)]);
    inosec_fuzz::batch(&alone);

    let alike = alike(record);
    let sound = SOUND.iter().map(|text| text.as_bytes());
    let before: Vec<&[u8]> = sound.chain(records).chain([alike.as_slice()]).collect();
    let mut all: Vec<Sent<'_>> = (1..).zip(before).map(|(offset, value)| sent(value, offset)).collect();
    all.push(sent(record, 0));
    let after = others.decode(stream, &all);
    inosec_fuzz::batch(&after);
    same(&alone, &after, "after others");

    for envelope in envelopes(record, format) {
        // What is told around it is enough.
        let told = others.decode(stream, &[Sent { value: &envelope, format: None, offset: 0 }]);
        inosec_fuzz::batch(&told);
        if alone.rows.len() == 1 && told.dead.iter().all(|dead| dead.reason.name() != "too_deep") {
            same(&alone, &told, "in an envelope");
        }
    }
    inosec_fuzz::sealed(after, 5);
}

/// The last message of each became the same.
fn same(alone: &Batch, other: &Batch, how: &str) {
    let last = u32::try_from(other.messages.entries.len() - 1).unwrap_or(0);
    assert_eq!(inosec_fuzz::cells(alone, 0), inosec_fuzz::cells(other, last), "alone and {how}");
}

/// Names and texts of the same lengths but others: what decode learns shapes by.
fn alike(record: &[u8]) -> Vec<u8> {
    record.iter().map(|byte| if byte.is_ascii_alphabetic() { byte ^ 1 } else { *byte }).collect()
}

/// The record in an envelope, unless it could be one itself.
fn envelopes(record: &[u8], format: Option<&str>) -> Vec<Vec<u8>> {
    let told = format.map(|format| format!("\"format\":\"{format}\",")).unwrap_or_default();
    let has = |part: &[u8]| record.windows(part.len()).any(|window| window == part);
    let first = record.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        // A name may be written with escapes.
        Some(b'{') if !has(b"\"event\"") && !has(b"\"raw\"") && !has(b"\\u00") => {
            let open = format!("{{{told}\"event\":").into_bytes();
            vec![[open.as_slice(), record, b"}"].concat()]
        }
        Some(b'{' | b'[') | None => Vec::new(),
        Some(_) => {
            let Ok(text) = std::str::from_utf8(record) else { return Vec::new() };
            let raw = serde_json::to_string(text.trim_end_matches(['\r', '\n'])).unwrap_or_default();
            vec![format!("{{{told}\"raw\":{raw}}}").into_bytes()]
        }
    }
}
