//! Decode against a slow extractor in Python that reads the same descriptions and shares no code, and
//! against anything at all.

#![allow(clippy::unwrap_used, missing_docs)]

mod detections;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use inosec_ingest::{Decoder, Limits};
use inosec_schemas::{
    Batch, Catalog, Column, Directory, EventIds, Fill, Message, Messages, Reason, Rows, Tenant, TenantId,
    TenantSource, TenantStatus, Tier, Topic,
};
use proptest::prelude::*;
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
                            examples.push(format!(
                                "{name}: {found} is not {value} in {}",
                                String::from_utf8_lossy(chunk[row])
                            ));
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
    let batch = decode_any("agent_logs", lines);
    let reasons: Vec<_> = batch.dead.iter().take(5).collect();
    assert!(batch.dead.is_empty(), "dead letters: {reasons:?}");
    batch.rows
}

fn decode_any(stream: &str, lines: &[&[u8]]) -> Batch {
    decode_by(&Catalog::embedded().unwrap(), stream, lines)
}

fn decode_by(catalog: &Catalog, stream: &str, lines: &[&[u8]]) -> Batch {
    let tenant = TenantId(uuid::Uuid::from_u128(7));
    let topic = Arc::new(Topic {
        cluster: "c".to_owned(),
        name: "t".to_owned(),
        id: None,
        key: 1,
        stream: Arc::clone(&catalog.streams[stream]),
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
    Decoder::new(catalog, limits).decode(messages, &directory)
}

proptest! {
    /// Whatever bytes arrive: one row or one dead letter each, and texts PostgreSQL can hold.
    #[test]
    fn any_bytes_become_a_row_or_a_dead_letter(
        any in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..6),
        broken in prop::collection::vec((0..SOUND.len(), any::<usize>(), any::<u8>()), 1..6),
    ) {
        let mut messages = any;
        for (which, place, byte) in broken {
            let mut message = SOUND[which].as_bytes().to_vec();
            let place = place % message.len();
            message[place] = byte;
            messages.push(message);
        }
        let lines: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let batch = decode_any("agent_logs", &lines);
        prop_assert_eq!(batch.rows.len() + batch.dead.len(), lines.len());
        let mut seen: Vec<u32> = batch.rows.message.iter().copied().chain(batch.dead.iter().map(|dead| dead.message)).collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..u32::try_from(lines.len()).unwrap()).collect::<Vec<_>>());
        for rows in [&batch.rows, &batch.detections] {
            for column in &rows.columns {
                if let Column::Text(values) = column {
                    prop_assert_eq!(values.len(), rows.len());
                    for slice in values.iter().flatten() {
                        let text = rows.slice(*slice);
                        prop_assert!(std::str::from_utf8(text).is_ok() && !text.contains(&0));
                    }
                }
            }
        }
    }
}

/// Of a text of which only the first line is kept, and that is empty, nothing is left.
#[test]
fn a_required_text_without_a_first_line_is_missing() {
    let mut catalog = Catalog::embedded().unwrap();
    let stream = catalog.streams.get_mut("agent_logs").map(Arc::make_mut).unwrap();
    stream.columns.iter_mut().find(|column| column.name == "message").unwrap().required = true;
    let batch =
        decode_by(&catalog, "agent_logs", &[br#"{"message":"\nbelow"}"#, br#"{"message":"above\nbelow"}"#]);
    assert_eq!((batch.rows.len(), batch.dead[0].reason, batch.dead.len()), (1, Reason::MissingField, 1));
}

#[test]
fn a_country_s_name_is_not_cut_to_a_code() {
    let event = |country: &str| {
        format!(
            r#"{{"@timestamp":"2026-01-01T00:00:00Z","ecs":{{"version":"8"}},"source":{{"ip":"10.0.0.1","geo":{{"country_iso_code":"{country}"}}}}}}"#
        )
    };
    let events = ["DE", "Germany", "Österreich"].map(event);
    let batch = decode_any("agent_logs", &events.each_ref().map(String::as_bytes));
    assert!(batch.dead.is_empty(), "{:?}", batch.dead);
    let column = batch.rows.stream.column("src_country").unwrap();
    let countries = [0, 1, 2].map(|row| found(&batch.rows, column, row));
    assert_eq!(countries, [json!("DE"), Value::Null, Value::Null]);
    assert_eq!(batch.mismatches, 2, "what doesn't fit is counted");
}

/// One record of each kind of format, to be broken in one place.
const SOUND: &[&str] = &[
    r#"{"host":"h","ts":"2026-01-01T00:00:00Z","format":"json","src":"s","event":{"message":"m","n":[1,{"a":null}]}}"#,
    r#"{"EventID":4624,"SourceName":"s","EventReceivedTime":"2020-01-01 00:00:00","Hostname":"h","SourcePort":"1","Message":"a\r\nb"}"#,
    r#"{"timestamp":"2022-01-07T10:16:40.480073+0000","event_type":"alert","src_ip":"1.2.3.4","alert":{"signature_id":1,"signature":"s","severity":1}}"#,
    r#"{"Event":{"System":{"EventID":1,"Computer":"c","TimeCreated":{"\u0023attributes":{"SystemTime":"2021-04-22T08:50:53.614492Z"}}}}}"#,
    r#"{"hostname":"n","priority":"Notice","rule":"r","time":"2026-01-01T00:00:00Z","tags":["T1059"],"uuid":"00000000-0000-4000-8000-000000000001","output_fields":{"fd.cip":"1.2.3.4","user.name":null}}"#,
    r#"{"timestamp":"2026-01-01T00:00:00.000+0000","id":"1.2","rule":{"level":3,"description":"d","id":"1","mitre":{"id":["T1110"]}},"agent":{"id":"1","name":"a"},"manager":{"name":"m"},"data":{"srcip":"1.2.3.4"}}"#,
    r#"{"winlog":{"event_id":1116,"provider_name":"Microsoft-Windows-Windows Defender","event_data":{"Threat Name":"t","Severity ID":"5","Path":"p"}}}"#,
    "Mar 27 13:06:56 web1 sshd[1]: Failed password for root from 10.0.0.7 port 4022 ssh2",
    "<165>1 2003-10-11T22:14:15.003Z host app - ID47 [a@1 iut=\"3\"] text",
    "type=SYSCALL msg=audit(1604996384.965:93777): arch=c000003e syscall=59 success=yes exe=2F62696E key=(null)",
];

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
