//! Records that are detections themselves, and threat events of other producers.
//! `UPDATE_GOLDEN=1 cargo test -p inosec-ingest --test ingest` writes `detections.golden.json` anew.

use std::path::{Path, PathBuf};

use inosec_schemas::{Batch, Column, Fill, Reason, Rows};
use serde_json::{Map, Value, json};

use crate::decode_any;

const INVENTED: &str = include_str!("detections.json");

/// Each invented record as the row and the threat event it becomes.
#[test]
fn records_that_are_detections_become_threat_events() {
    let records: Map<String, Value> = serde_json::from_str(INVENTED).unwrap();
    let become_of = |record: &Value| {
        let batch = one("agent_logs", record);
        assert!(batch.dead.is_empty(), "{record}: {:?}", batch.dead);
        json!({
            "agent_logs": shown(&batch.rows, 0),
            "threat_events": (!batch.detections.is_empty()).then(|| shown(&batch.detections, 0)),
            "named_by_content": !batch.named.is_empty(),
        })
    };
    let found: Map<String, Value> =
        records.iter().map(|(name, record)| (name.clone(), become_of(record))).collect();
    let text = serde_json::to_string_pretty(&found).unwrap() + "\n";
    let file = golden();
    if std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1") {
        std::fs::write(file, text).unwrap();
        return;
    }
    let expected: Map<String, Value> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for (name, found) in &found {
        assert_eq!(Some(found), expected.get(name), "{name}: review, then UPDATE_GOLDEN=1");
    }
    assert_eq!(found.len(), expected.len());
}

/// The same record on the threat-events topic is the same threat event, or a dead letter if it is none.
#[test]
fn the_threat_events_topic_takes_every_format_that_maps_to_it() {
    let records: Map<String, Value> = serde_json::from_str(INVENTED).unwrap();
    for (name, record) in &records {
        let (within, direct) = (one("agent_logs", record), one("threat_events", record));
        if name.contains("can't read") {
            assert_eq!(direct.dead[0].reason, Reason::MissingTime, "{name}: nothing is made up here");
        } else if within.detections.is_empty() {
            assert_eq!(direct.dead[0].reason, Reason::UnknownFormat, "{name}");
        } else {
            assert_eq!(shown(&direct.rows, 0), shown(&within.detections, 0), "{name}");
        }
    }
}

#[test]
fn a_severity_is_a_word_in_any_case_or_an_ocsf_id() {
    let severity = |severity: Value| {
        let event = json!({"signature": "s", "detected_at": "2025-12-31T00:00:00Z", "severity": severity});
        let batch = one("threat_events", &event);
        let position = batch.rows.stream.column("severity_id").unwrap();
        (batch.rows.integer(position, 0).unwrap(), batch.mismatches)
    };
    for (id, words) in [
        (0, vec![json!("unknown"), json!(0), json!("99"), json!("")]),
        (1, vec![json!("Informational"), json!("info"), json!(1)]),
        (2, vec![json!("low"), json!("LOW"), json!("2"), json!("minor")]),
        (3, vec![json!("Medium"), json!("moderate"), json!(3), json!("warning")]),
        (4, vec![json!("HIGH"), json!("High"), json!("4"), json!(4), json!("major")]),
        (5, vec![json!("Critical"), json!("severe"), json!(5)]),
        (6, vec![json!("fatal"), json!("6")]),
    ] {
        for word in words {
            assert_eq!(severity(word.clone()), (id, 0), "{word}");
        }
    }
    // What can't be told is unknown, and counted.
    for unclear in [json!(7), json!("9"), json!(-1), json!(7.5), json!("P1"), json!("very")] {
        assert_eq!(severity(unclear.clone()), (0, 1), "{unclear}");
    }
}

#[test]
fn techniques_are_found_among_what_is_said() {
    let techniques = |techniques: Value| {
        let event = json!({"signature": "s", "detected_at": 1_767_139_200, "techniques": techniques});
        shown(&one("threat_events", &event).rows, 0)["techniques"].clone()
    };
    assert_eq!(techniques(json!(["T1059.001", "t1003"])), json!(["T1059.001", "T1003"]));
    assert_eq!(techniques(json!("T1059, attack.t1003.006;TA0002")), json!(["T1059", "T1003.006"]));
    assert_eq!(techniques(json!(["attack.t1190", "mitre_execution", "T12", "T1059.1", 7])), json!(["T1190"]));
    assert_eq!(techniques(json!("none")), json!([]));
    assert_eq!(techniques(json!({"a": 1})), json!([]));
}

/// A sender's id that is no UUID gives one: always the same, another for another manager.
#[test]
fn an_id_of_a_managers_own_is_made_a_uuid() {
    let records: Map<String, Value> = serde_json::from_str(INVENTED).unwrap();
    let id = |alert: &Value| shown(&one("agent_logs", alert).detections, 0)["id"].clone();
    let alert = &records["wazuh of a linux log"];
    let mut repeated = alert.clone();
    repeated["rule"]["firedtimes"] = json!(4);
    assert_eq!(id(alert), id(&repeated));
    let mut elsewhere = alert.clone();
    elsewhere["manager"]["name"] = json!("wazuh-b");
    assert_ne!(id(alert), id(&elsewhere));
    let mut nameless = alert.clone();
    nameless.as_object_mut().unwrap().remove("id");
    assert_ne!(id(alert), id(&nameless));
}

/// Without an id of its own, all a record says is its id, if it says when; else its place is.
#[test]
fn a_detection_without_an_id_is_known_by_what_it_says() {
    let records: Map<String, Value> = serde_json::from_str(INVENTED).unwrap();
    let mut alert = records["wazuh of a linux log"].clone();
    alert.as_object_mut().unwrap().remove("id");
    let ids = |stream: &str, alerts: &[&Value]| {
        let texts: Vec<String> = alerts.iter().map(ToString::to_string).collect();
        let messages: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
        let batch = decode_any(stream, &messages);
        let rows = if stream == "agent_logs" { &batch.detections } else { &batch.rows };
        let id = |row| shown(rows, row)["id"].clone();
        ((0..rows.len()).map(id).collect::<Vec<_>>(), batch.named)
    };
    let mut other = alert.clone();
    other["full_log"] = json!("another line");
    for stream in ["agent_logs", "threat_events"] {
        let (ids, _) = ids(stream, &[&alert, &other, &alert]);
        assert_eq!((ids[0] == ids[2], ids[0] == ids[1]), (true, false), "{stream}");
    }
    assert_eq!(ids("agent_logs", &[&alert]).1, [0]);
    alert["timestamp"] = json!("long ago");
    let (ids, named) = ids("agent_logs", &[&alert, &alert]);
    assert_ne!(ids[0], ids[1]);
    assert!(named.is_empty());
}

#[test]
fn an_envelope_tells_a_detections_host_and_nothing_else_that_names_it() {
    let records: Map<String, Value> = serde_json::from_str(INVENTED).unwrap();
    let alert = &records["suricata"];
    let id = |text: &str| shown(&decode_any("agent_logs", &[text.as_bytes()]).detections, 0)["id"].clone();
    let within = |envelope: Value| id(&envelope.to_string());
    let bare = id(&alert.to_string());
    assert_eq!(id(&serde_json::to_string_pretty(alert).unwrap()), bare);
    assert_eq!(within(json!({"event": alert, "collector": "c-1"})), bare);
    assert_eq!(within(json!({"event": alert, "host": "a relay", "ts": "2026-01-01T00:00:00Z"})), bare);

    let mut nameless = alert.clone();
    nameless.as_object_mut().unwrap().remove("host");
    let on = |host: &str| within(json!({"event": nameless, "host": host}));
    assert_eq!(on("tap-1"), on("tap-1"));
    assert_ne!(on("tap-1"), on("tap-2"));
}

/// Inside agent logs an id that is none is no reason to lose a detection; on the topic it is.
#[test]
fn an_id_that_is_none_is_made_of_what_is_said() {
    let records: Map<String, Value> = serde_json::from_str(INVENTED).unwrap();
    let mut alert = records["falco"].clone();
    alert["uuid"] = json!("seventeen");
    let batch = one("agent_logs", &alert);
    assert_eq!((batch.detections.len(), batch.named.len(), batch.mismatches), (1, 1, 1));
    assert_eq!(one("threat_events", &alert).dead[0].reason, Reason::TypeMismatch);
}

#[test]
fn a_payload_leaves_out_what_is_too_long_and_keeps_the_rest() {
    let records: Map<String, Value> = serde_json::from_str(INVENTED).unwrap();
    let mut alert = records["wazuh of a linux log"].clone();
    alert["full_log"] = json!("x".repeat(20_000));
    let payload = shown(&one("agent_logs", &alert).detections, 0)["payload"].clone();
    assert_eq!(payload["location"], "/var/log/auth.log");
    assert_eq!(payload["data"]["srcip"], "203.0.113.77");
    assert_eq!(payload["full_log"], Value::Null);
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ingest/detections.golden.json")
}

fn one(stream: &str, message: &Value) -> Batch {
    decode_any(stream, &[message.to_string().as_bytes()])
}

/// What a row says, without what the road adds to every row.
fn shown(rows: &Rows, row: usize) -> Value {
    let mut object = Map::new();
    for (position, (spec, column)) in rows.stream.columns.iter().zip(&rows.columns).enumerate() {
        if !matches!(spec.fill, Fill::Message | Fill::Id | Fill::EventTime | Fill::Format | Fill::Source) {
            continue;
        }
        let value = match column {
            Column::Json(values) => values[row].map(|at| serde_json::from_slice(rows.slice(at)).unwrap()),
            Column::TextList(values) => values[row].map(|at| items(rows.slice(at))),
            _ => Some(crate::found(rows, position, row)),
        };
        if let Some(value) = value.filter(|value| !value.is_null()) {
            object.insert(spec.name.clone(), value);
        }
    }
    object.into()
}

/// Texts each ended by NUL.
fn items(bytes: &[u8]) -> Value {
    let text = std::str::from_utf8(bytes).unwrap();
    text.split_terminator('\0').map(Value::from).collect()
}
