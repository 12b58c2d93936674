//! Decode against a slow extractor in Python that reads the same descriptions and shares no code.

#![allow(missing_docs)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use inosec_ingest::{Decoder, Limits};
use inosec_schemas::{
    Catalog, Column, Directory, EventIds, Fill, Message, Messages, Rows, Tenant, TenantId, TenantSource, TenantStatus,
    Tier, Topic,
};
use serde_json::{Value, json};

/// 2026-01-01: gives the year of times that leave it out.
const ARRIVED_AT: i64 = 1_767_225_600_000_000;

#[test]
fn every_column_of_the_corpus_equals_the_slow_extractor() {
    let Some(folder) = corpus() else { return };
    for file in ["agent_logs.ndjson.zst", "threat_events.ndjson.zst"] {
        let plain = zstd::decode_all(&std::fs::read(folder.join(file)).unwrap()[..]).unwrap();
        let lines: Vec<&[u8]> = plain.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        let expected = extract(&plain);
        let expected: Vec<&str> = expected.lines().collect();
        assert_eq!(expected.len(), lines.len(), "{file}: the extractor answers every line");
        let (mut different, mut examples) = (0, Vec::new());
        for (chunk, expected) in lines.chunks(5000).zip(expected.chunks(5000)) {
            let rows = decode(chunk);
            assert_eq!(rows.len(), chunk.len(), "{file}: every line is a row");
            for (row, expected) in expected.iter().enumerate() {
                let expected: Value = serde_json::from_str(expected).unwrap();
                for (name, value) in expected.as_object().unwrap() {
                    let found = found(&rows, rows.stream.column(name).unwrap(), row);
                    if found != *value {
                        different += 1;
                        if examples.len() < 10 {
                            examples.push(format!("{name}: {found} is not {value} in {}", String::from_utf8_lossy(chunk[row])));
                        }
                    }
                }
            }
        }
        println!("{file}: {} lines, {different} differences", lines.len());
        assert_eq!(different, 0, "{file}: {examples:#?}");
    }
}

/// The shared corpus; said loudly where it is missing.
fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("INOSEC_CORPUS").map_or(beside, PathBuf::from);
    if folder.join("agent_logs.ndjson.zst").exists() {
        return Some(folder);
    }
    let text = format!("NOT TESTED: the corpus is not at {}: set INOSEC_CORPUS", folder.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{text}");
    println!("{text}");
    None
}

fn extract(lines: &[u8]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut python = Command::new("python3")
        .arg(root.join("tests/oracle/extract.py"))
        .arg(root.join("schemas"))
        .arg(ARRIVED_AT.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = python.stdin.take().unwrap();
    let lines = lines.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&lines));
    let output = python.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn decode(lines: &[&[u8]]) -> Rows {
    let catalog = Catalog::embedded().unwrap();
    let tenant = TenantId(uuid::Uuid::from_u128(7));
    let topic = Arc::new(Topic {
        cluster: "c".to_owned(),
        name: "t".to_owned(),
        id: None,
        key: 1,
        stream: Arc::clone(&catalog.streams["agent_logs"]),
        tenant: TenantSource::Fixed(tenant),
        event_ids: EventIds::new("c", "t", None),
    });
    let mut directory = Directory::default();
    directory.tenants.insert(tenant, Tenant { tier: Tier::Standard, status: TenantStatus::Active });
    let mut messages = Messages::new(topic);
    for (offset, line) in (0..).zip(lines) {
        let place = Message {
            start: 0,
            end: 0,
            headers: (0, 0),
            partition: 0,
            offset,
            arrived_at: ARRIVED_AT,
            tombstone: false,
        };
        messages.push(place, line, &[]);
    }
    let limits = Limits { max_age_us: 1, max_skew_us: 1, max_message_bytes: 16 << 20, max_depth: 128 };
    let batch = Decoder::new(&catalog, limits).decode(messages, &directory);
    let reasons: Vec<_> = batch.dead.iter().take(5).collect();
    assert!(batch.dead.is_empty(), "dead letters: {reasons:?}");
    batch.rows
}

/// A value as the extractor prints it.
fn found(rows: &Rows, column: usize, row: usize) -> Value {
    debug_assert_ne!(rows.stream.columns[column].fill, Fill::Seq);
    match &rows.columns[column] {
        Column::Bool(values) => json!(values[row]),
        Column::Int16(values) => json!(values[row]),
        Column::Int32(values) => json!(values[row]),
        Column::Int64(values) | Column::Timestamp(values) => json!(values[row]),
        Column::Float64(values) => json!(values[row]),
        Column::Uuid(values) => json!(values[row]),
        Column::Inet(values) => json!(values[row].map(|address| address.to_string())),
        Column::Text(values) => json!(values[row].map(|slice| String::from_utf8_lossy(rows.slice(slice)))),
        Column::Json(_) | Column::TextList(_) | Column::Bytes(_) => Value::Null,
    }
}
