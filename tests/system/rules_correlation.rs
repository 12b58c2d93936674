//! Correlations without a server: `inosec rules eval`, `test`, `check` and `list` as their users meet them.

use serde_json::{Value, json};

use crate::rules::{Folder, documents, rules};

const RULES: &str = "
title: Refused
id: refused
level: informational
logsource: {product: linux, service: sshd}
detection: {text: ['Failed password'], condition: text}
---
title: Accepted
id: accepted
level: informational
logsource: {product: linux, service: sshd}
detection: {text: ['Accepted password'], condition: text}
---
title: Broken
id: broken
level: high
logsource: {product: linux, service: sshd}
detection: {text: ['exploit'], condition: text}
";

const CORRELATIONS: &str = "
title: Many
id: many
level: high
correlation: {type: event_count, rules: [refused], group-by: [src_ip], timespan: 1m, condition: {gte: 3}}
---
title: Found
id: found
level: critical
correlation: {type: temporal_ordered, rules: [many, accepted], group-by: [src_ip], timespan: 10m, generate: true}
---
title: Few
id: few
level: low
correlation: {type: event_count, rules: [accepted], group-by: [host_name], timespan: 1h, condition: {lt: 2}}
";

fn line(time: &str, text: &str) -> String {
    format!("Mar 27 {time} web1 sshd[1]: {text}\n")
}

fn refused(time: &str, address: &str) -> String {
    line(time, &format!("Failed password for root from {address} port 4022 ssh2"))
}

fn accepted(time: &str, address: &str) -> String {
    line(time, &format!("Accepted password for root from {address} port 4022 ssh2"))
}

fn eval(arguments: &[&str]) -> Vec<Value> {
    let output = rules(&[&["eval"], arguments].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    documents(&output)
}

/// Rule, group, count and the lines of the members, of each episode.
fn episodes(documents: &[Value]) -> Vec<(String, Value, u64, Vec<u64>)> {
    let episodes = documents.iter().filter_map(|document| document.get("episode"));
    let line = |member: &Value| member["line"].as_u64().unwrap();
    let episode = |episode: &Value| {
        let members = episode["members"].as_array().unwrap();
        (
            episode["rule_id"].as_str().unwrap().to_owned(),
            episode["group"].clone(),
            episode["count"].as_u64().unwrap(),
            members.iter().map(line).collect(),
        )
    };
    episodes.map(episode).collect()
}

#[test]
fn eval_prints_hits_as_without_correlations_and_then_episodes() {
    let folder = Folder::new();
    let plain = folder.write("plain.yml", RULES);
    let all = folder.write("all.yml", &format!("{RULES}---{CORRELATIONS}"));
    let text = [
        refused("13:06:01", "10.0.0.7"),
        refused("13:06:20", "10.0.0.7"),
        refused("13:06:21", "10.0.0.8"),
        refused("13:06:40", "10.0.0.7"),
        accepted("13:10:00", "10.0.0.7"),
        line("13:11:00", "exploit"),
        line("14:30:00", "exploit"),
    ];
    let events = folder.write("events.log", &text.concat());
    let hits = eval(&["--rules", &plain, &events]);
    assert_eq!(hits.len(), 7);
    let found = eval(&["--rules", &all, &events]);
    assert_eq!(found[..7], hits);
    assert!(found[7..].iter().all(|document| document.as_object().unwrap().keys().eq(["episode"])));
    let address = json!({ "src_ip": "10.0.0.7" });
    let expected = [
        ("found".to_owned(), address.clone(), 4, vec![1, 2, 4, 5]),
        ("many".to_owned(), address, 3, vec![1, 2, 4]),
        ("few".to_owned(), json!({ "host_name": "web1" }), 1, vec![5]),
        ("broken".to_owned(), json!({ "host": "web1" }), 1, vec![6]),
        ("broken".to_owned(), json!({ "host": "web1" }), 1, vec![7]),
    ];
    let mut sorted = episodes(&found);
    sorted.sort_by_key(|(rule, ..)| expected.iter().position(|(other, ..)| other == rule));
    assert_eq!(sorted, expected);
    let of = found.iter().find(|document| document["episode"]["rule_id"] == "found").unwrap();
    let member = json!({ "rule_id": "refused", "file": events, "line": 1 });
    assert_eq!((&of["episode"]["title"], &of["episode"]["members"][0]), (&json!("Found"), &member));
    let year = of["episode"]["first_seen"].as_str().unwrap().split_once('-').unwrap().0;
    assert_eq!(of["episode"]["last_seen"], json!(format!("{year}-03-27T13:10:00Z")));
}

#[test]
fn episodes_do_not_depend_on_the_order_of_lines_and_files() {
    let folder = Folder::new();
    let all = folder.write("all.yml", &format!("{RULES}---{CORRELATIONS}"));
    let first = folder.write("a.log", &(accepted("13:10:00", "10.0.0.7") + &refused("13:06:40", "10.0.0.7")));
    let second = folder.write("b.log", &(refused("13:06:01", "10.0.0.7") + &refused("13:06:20", "10.0.0.7")));
    let found = eval(&["--rules", &all, &first, &second]);
    let episodes = episodes(&found);
    let of = episodes.iter().find(|(rule, ..)| rule == "found").unwrap();
    assert_eq!((of.2, &of.3), (4, &vec![1, 2, 2, 1]), "by time: b 1, b 2, a 2, a 1");
}

#[test]
fn old_and_future_events_count_by_their_own_time() {
    let folder = Folder::new();
    let all = folder.write("all.yml", &format!("{RULES}---{CORRELATIONS}"));
    let event = |time: &str| {
        let raw = "Failed password for root from 10.0.0.7 port 1 ssh2";
        format!("<38>1 {time} web1 sshd 1 - - {raw}\n")
    };
    for year in ["2009", "2093"] {
        let times = ["00:00:01", "00:00:30", "00:01:01"].map(|time| event(&format!("{year}-05-01T{time}Z")));
        let events = folder.write("events.log", &times.concat());
        let found = episodes(&eval(&["--rules", &all, &events]));
        assert_eq!(found.len(), 1, "{year}: {found:?}");
    }
}

#[test]
fn a_correlation_that_does_not_resolve_is_named_and_explain_says_what_it_is() {
    let folder = Folder::new();
    let lost = CORRELATIONS.replace("rules: [refused]", "rules: [gone]");
    let path = folder.write("all.yml", &format!("{RULES}---{lost}"));
    let events = folder.write("events.log", &refused("13:06:01", "10.0.0.7"));
    let output = rules(&["eval", "--rules", &path, &events]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("left out") && said.contains("`gone`"), "{said}");
    let output = rules(&["eval", "--rules", &path, "--explain", "few", &events]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("is a correlation"), "{said}");
}

#[test]
fn check_names_rules_that_lose_their_alerts_and_list_shows_correlations() {
    let folder = Folder::new();
    let silent = CORRELATIONS.replace("rules: [accepted]", "rules: [broken]").replace(", generate: true", "");
    let path = folder.write("all.yml", &format!("{RULES}---{silent}"));
    let output = rules(&["--output", "json", "check", &path]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["correlations"], &report["errors"]), (&json!(3), &json!([])));
    let warnings = report["warnings"].as_array().unwrap();
    let silenced = warnings.iter().filter(|warning| warning["kind"] == "silenced");
    let silenced: Vec<&str> = silenced.map(|warning| warning["rule"].as_str().unwrap()).collect();
    assert_eq!(silenced, ["broken", "many"]);
    let output = rules(&["--output", "json", "list", &path]).output().unwrap();
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = list.as_array().unwrap().iter().find(|row| row["id"] == "found").unwrap();
    let shown = (&of["level"], &of["logsource"]);
    assert_eq!(shown, (&json!("critical"), &json!("correlation, temporal_ordered")));
}

#[test]
fn a_pack_tests_its_correlations_case_by_case() {
    let folder = Folder::new();
    let many = CORRELATIONS.split("---").next().unwrap();
    folder.write("detection/refused.yml", RULES.split("---").next().unwrap());
    let rule = folder.write("correlation/ssh/many.yml", many);
    let text = "{stamp} web1 sshd[1]: Failed password for root from 10.0.0.{n} port 4022 ssh2";
    let one = text.replace("{n}", "7");
    let case = |why: &str, episodes: &str, raw: &str, times: u32| {
        format!(
            "{{\"why\":{why:?},\"episodes\":{episodes},\"events\":[{{\"raw\":{raw:?},\"times\":{times}}}]}}\n"
        )
    };
    let sound = case("three", "[3]", &one, 3)
        + &case("nine", "[9]", &one, 9)
        + &case("two", "[]", &one, 2)
        + &case("one of each", "[]", text, 9);
    let fixture = "fixtures/correlation/ssh/many.ndjson";
    let path = folder.write(fixture, &sound);
    let output = rules(&["test", &rule]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("0 rules, 0 events fire, 0 near-misses, 1 correlations, 2 cases"), "{said}");

    let harmless = "{stamp} web1 sshd[1]: Connection closed";
    let unsound = case("too many", "[4]", &one, 3)
        + &case("none", "[]", &one, 3)
        + &case("harmless", "[]", harmless, 3)
        + "{\"fires\":true}\n";
    folder.write(fixture, &unsound);
    let output = rules(&["test", &rule]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout);
    for part in [
        ":1: rule many: episodes of [3] threat events instead of [4]: too many",
        ":2: rule many: episodes of [3] threat events instead of []: none",
        ":3: rule many: it proves nothing, no rule that the correlation refers to fires: harmless",
        ":4: rule many: not a case of a correlation",
        ":1: rule many: 1 cases that raise episodes, 2 near-misses",
    ] {
        assert!(said.contains(&format!("{path}{part}")), "{part}: {said}");
    }
    let all = rules(&["test", &folder.0.display().to_string()]).output().unwrap();
    let said = String::from_utf8_lossy(&all.stdout);
    assert!(said.contains("refused.ndjson:1: rule refused: no fixture"), "{said}");
}
