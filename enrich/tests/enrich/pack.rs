//! Our own rules: all parse, and each fires on its fixtures and on none of its near-misses.
//!
//! Lines of text are left out: what they are split into is decode's part.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use inosec_enrich::{Engine, Matcher, Parsed, Placeholders};
use inosec_schemas::EventClass;
use serde_json::{Map, Value};

use crate::support::{self, flat};

const MEMO: usize = 1 << 20;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules")
}

/// The rule files, relative to `rules/detection`.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            found.push(path.strip_prefix(root().join("detection")).unwrap().to_owned());
        }
    }
}

/// One level of fields, named as Sigma names them, whichever agent sent the event.
fn fields(event: &Value) -> Map<String, Value> {
    let mut fields = flat(event);
    let beats = [event.get("event_data"), event.pointer("/winlog/event_data")];
    for data in beats.into_iter().flatten().filter_map(Value::as_object) {
        fields.extend(data.clone());
    }
    let renamed = [
        ("EventID", event.get("event_id").or_else(|| event.pointer("/winlog/event_id"))),
        ("Channel", event.get("log_name").or_else(|| event.pointer("/winlog/channel"))),
        ("Provider_Name", event.get("source_name").or_else(|| event.pointer("/winlog/provider_name"))),
    ];
    for (name, value) in renamed {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value.clone());
        }
    }
    fields
}

#[test]
fn our_pack_parses_and_behaves_as_its_fixtures_say() {
    let mut paths = Vec::new();
    files(&root().join("detection"), &mut paths);
    assert!(paths.len() >= 80, "{} rules", paths.len());
    let (mut checked, mut wrong) = (0, Vec::new());
    for path in &paths {
        let text = std::fs::read_to_string(root().join("detection").join(path)).unwrap();
        let mut parsed = Parsed::default();
        parsed.add(&path.display().to_string(), &text, &Placeholders::new());
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        let from = &parsed.rules[0].logsource;
        let class =
            EventClass::triple(from.product.as_deref(), from.category.as_deref(), from.service.as_deref());
        let engine = Arc::new(Engine::new(parsed.rules, Vec::new(), std::slice::from_ref(&class)).unwrap());
        let mut matcher = Matcher::new(Arc::clone(&engine), MEMO);
        let fixture = root().join("fixtures").join(path.with_extension("ndjson"));
        let lines = std::fs::read_to_string(&fixture).unwrap();
        for (number, line) in (1..).zip(lines.lines()) {
            let line: Value = serde_json::from_str(line).unwrap();
            // A near-miss may lie in another log.
            let other_log = line["why"].as_str().is_some_and(|why| why.contains("other log"));
            let Some(event) = line.get("event").filter(|_| !other_log) else { continue };
            checked += 1;
            let fires =
                !support::run(&mut matcher, engine.class(&class).unwrap(), &[&fields(event)]).is_empty();
            if Value::Bool(fires) != line["fires"] {
                wrong.push(format!("{}:{number}: fires: {fires}: {}", path.display(), line["why"]));
            }
        }
    }
    println!("{} rules, {checked} events", paths.len());
    assert!(wrong.is_empty(), "{} of {checked}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(checked > 600, "{checked} events");
}
