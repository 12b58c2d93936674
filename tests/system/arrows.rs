//! The arrows between rooms (DESIGN §3), from what cargo knows.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// Who may use whom among our own rooms; dev-dependencies are free.
const ALLOWED: &[(&str, &[&str])] = &[
    ("inosec-schemas", &[]),
    ("inosec-ingest", &["inosec-schemas"]),
    ("inosec-enrich", &["inosec-schemas"]),
    ("inosec-sink", &["inosec-schemas"]),
    ("inosec", &["inosec-schemas", "inosec-ingest", "inosec-enrich", "inosec-sink"]),
    ("inosec-bench", &["inosec", "inosec-schemas", "inosec-ingest", "inosec-enrich", "inosec-sink"]),
];

/// Heavy libraries and the only rooms that may know them.
const CONFINED: &[(&str, &[&str])] = &[
    ("rdkafka", &["inosec-ingest", "inosec", "inosec-bench"]),
    ("simd-json", &["inosec-ingest", "inosec-bench"]),
    ("tokio-postgres", &["inosec-sink", "inosec", "inosec-bench"]),
    ("deadpool-postgres", &["inosec-sink"]),
    ("axum", &["inosec"]),
    ("arrow-schema", &["inosec-schemas"]),
    ("tokio", &["inosec-ingest", "inosec-sink", "inosec", "inosec-bench"]),
];

#[test]
fn rooms_use_only_what_the_design_allows() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        seen.insert(name.to_owned());
        let Some((_, allowed)) = ALLOWED.iter().find(|(room, _)| *room == name) else {
            faults.push(format!("{name} is no room the design knows"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            if dependency["kind"] == "dev" {
                continue;
            }
            if used.starts_with("inosec") && !allowed.contains(&used) {
                faults.push(format!("{name} must not use {used}"));
            }
            let confined = CONFINED.iter().find(|(library, _)| *library == used);
            if confined.is_some_and(|(_, rooms)| !rooms.contains(&name)) {
                faults.push(format!("{name} must not know {used}"));
            }
        }
    }
    assert_eq!(seen.len(), ALLOWED.len(), "rooms: {seen:?}");
    assert!(faults.is_empty(), "{faults:#?}");
}
