//! SigmaHQ's rules over real events, through the real binary: extraction and engine together fire where
//! the rules' authors say, and as often as another engine found.

use std::collections::BTreeMap;
use std::process::Output;

use serde_json::Value;

use crate::rules::{Folder, documents, rules};
use crate::support::corpus;

const RULES: &str = "sigma_rules.jsonl.zst";

fn json_lines(file: &str) -> Option<Vec<Value>> {
    let lines = corpus::lines(file)?;
    Some(lines.iter().map(|line| serde_json::from_slice(line).unwrap()).collect())
}

/// Runs `inosec rules` with a value that no event has for every placeholder of the rules.
fn with_placeholders(arguments: &[&str], sigma: &[Value]) -> Output {
    let mut names: Vec<&str> = Vec::new();
    for rule in sigma {
        let text = rule["yaml"].as_str().unwrap();
        if text.contains("|expand") {
            names.extend(text.split('%').filter(|piece| {
                !piece.is_empty() && piece.chars().all(|one| one.is_alphanumeric() || "-_".contains(one))
            }));
        }
    }
    names.sort_unstable();
    names.dedup();
    let entries: Vec<String> =
        names.iter().map(|name| format!("{name:?} = [\"nowhere-to-be-found\"]")).collect();
    let output = rules(arguments)
        .env("INOSEC__RULES__PLACEHOLDERS", format!("{{ {} }}", entries.join(", ")))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("left out"), "{said}");
    output
}

#[test]
fn every_regression_test_fires_through_the_road_s_own_extraction() {
    let Some(tests) = json_lines("sigma_regression.jsonl.zst") else { return };
    let sigma = json_lines(RULES).unwrap();
    let (mut text, mut test_of) = (String::new(), Vec::new());
    for (number, test) in tests.iter().enumerate() {
        for event in test["events"].as_array().unwrap() {
            text.push_str(&format!("{event}\n"));
            test_of.push(number);
        }
    }
    let folder = Folder::new();
    let events = folder.write("events.ndjson", &text);
    let rules_path = corpus::folder().unwrap().join(RULES).display().to_string();
    let output = with_placeholders(&["eval", "--rules", &rules_path, &events], &sigma);
    let mut counts = vec![0; tests.len()];
    for hit in documents(&output) {
        let test = test_of[usize::try_from(hit["line"].as_u64().unwrap()).unwrap() - 1];
        counts[test] += u64::from(hit["rule_id"] == tests[test]["rule_id"]);
    }
    for (test, count) in tests.iter().zip(counts) {
        let least = test["expected_min"].as_u64().unwrap();
        assert!(count >= least, "{} {}: {count} of {least}", test["rule_id"], test["rule_title"]);
    }
    assert!(tests.len() >= 91);
}

#[test]
fn eval_counts_equal_another_engine_or_the_difference_is_explained() {
    let Some(reference) = json_lines("sigma_reference_counts.jsonl") else { return };
    let sigma = json_lines(RULES).unwrap();
    let folder = corpus::folder().unwrap();
    let path = |file: &str| folder.join(file).display().to_string();
    let output =
        with_placeholders(&["eval", "--rules", &path(RULES), &path("agent_logs.ndjson.zst")], &sigma);
    let hits = documents(&output);
    // The reference holds the rules for Windows over these two formats.
    let windows: std::collections::HashSet<&str> = sigma
        .iter()
        .filter(|rule| rule["yaml"].as_str().unwrap().lines().any(|line| line.trim() == "product: windows"))
        .map(|rule| rule["rule_id"].as_str().unwrap())
        .collect();
    let mut found: BTreeMap<(String, String), i64> = BTreeMap::new();
    let lines = corpus::lines("agent_logs.ndjson.zst").unwrap();
    for hit in &hits {
        let line = &lines[usize::try_from(hit["line"].as_u64().unwrap()).unwrap() - 1];
        let record: Value = serde_json::from_slice(line).unwrap();
        let rule = hit["rule_id"].as_str().unwrap();
        if matches!(record["fmt"].as_str(), Some("winlog-nxlog" | "winlog-wef")) && windows.contains(rule) {
            let source = record["src"].as_str().unwrap().to_owned();
            *found.entry((source, rule.to_owned())).or_default() += 1;
        }
    }
    let mut differences: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for line in &reference {
        let rule = line["rule_id"].as_str().unwrap().to_owned();
        let expected = line["count"].as_i64().unwrap();
        let count = found.remove(&(line["src"].as_str().unwrap().to_owned(), rule.clone())).unwrap_or(0);
        if count != expected {
            let sums = differences.entry(rule).or_default();
            *sums = (sums.0 + expected, sums.1 + count);
        }
    }
    for ((_, rule), count) in found {
        differences.entry(rule).or_default().1 += count;
    }
    let explained = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sigma-differences.md");
    let explained = std::fs::read_to_string(explained).unwrap();
    for (rule, (theirs, ours)) in &differences {
        let cells = format!("| {theirs} | {ours} |");
        let known = explained.lines().any(|line| line.contains(rule.as_str()) && line.contains(&cells));
        assert!(known, "{rule}: theirs {theirs}, ours {ours}: not in docs/sigma-differences.md");
    }
    assert!(reference.len() >= 289 && differences.len() == 7, "{differences:?}");
}
