//! SigmaHQ's rules over real events: they parse, they fire where their authors say, and as often as
//! another engine found.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use inosec_enrich::{Engine, Matcher, Parsed, Placeholders};
use inosec_schemas::EventClass;
use serde_json::{Map, Value};

use crate::oracle::{self, OracleRule};
use crate::support::{self, RuleText, WindowsMap};

/// Every rule, with a value for every placeholder SigmaHQ uses.
fn all_rules(texts: &[RuleText], placeholders: &Placeholders) -> Parsed {
    let mut parsed = Parsed::default();
    for rule in texts {
        parsed.add(&rule.path, &rule.yaml, placeholders);
    }
    parsed
}

/// Every placeholder of the rules, with a value that no event has.
fn nowhere(texts: &[RuleText]) -> Placeholders {
    let mut given = Placeholders::new();
    loop {
        let parsed = all_rules(texts, &given);
        let names: Vec<_> =
            parsed.problems.iter().filter_map(|problem| problem.message.split('%').nth(1)).collect();
        if names.is_empty() {
            return given;
        }
        given.extend(names.into_iter().map(|name| (name.to_owned(), vec!["nowhere-to-be-found".to_owned()])));
    }
}

fn compiled(classes: &[EventClass]) -> Option<Arc<Engine>> {
    let texts = support::rule_texts()?;
    let parsed = all_rules(&texts, &nowhere(&texts));
    Some(Arc::new(Engine::new(parsed.rules, parsed.filters, classes).unwrap()))
}

#[test]
fn every_rule_parses_or_is_named_with_the_reason() {
    let Some(texts) = support::rule_texts() else { return };
    let parsed = all_rules(&texts, &Placeholders::new());
    for problem in &parsed.problems {
        println!("{problem}");
        assert!(problem.message.contains("placeholder"), "{problem}");
        assert!(problem.line > 1 && problem.rule.is_some(), "{problem:?}");
    }
    assert_eq!(parsed.rules.len() + parsed.problems.len(), texts.len());
    let more = all_rules(&texts, &nowhere(&texts));
    println!("{} of {} parse, {} with placeholders given", parsed.rules.len(), texts.len(), more.rules.len());
    assert_eq!((more.rules.len(), more.problems.len()), (texts.len(), 0));
    let mut classes: Vec<EventClass> = more
        .rules
        .iter()
        .map(|rule| &rule.logsource)
        .map(|from| {
            EventClass::triple(from.product.as_deref(), from.category.as_deref(), from.service.as_deref())
        })
        .collect();
    classes.sort();
    classes.dedup();
    let engine = Engine::new(more.rules, more.filters, &classes).unwrap();
    let hardest = EventClass::triple(Some("windows"), Some("process_creation"), None);
    let hardest = engine.class(&hardest).unwrap();
    println!("{} classes; {} rules on Windows process creation", classes.len(), engine.rules_of(hardest));
    assert!(engine.rules_of(hardest) > 1000);
}

#[test]
fn every_regression_test_fires() {
    let (Some(tests), Some(map)) = (support::lines("sigma_regression.jsonl.zst"), WindowsMap::load()) else {
        return;
    };
    let events: Vec<Vec<Map<String, Value>>> = tests
        .iter()
        .map(|test| test["events"].as_array().unwrap().iter().map(support::flat).collect())
        .collect();
    let classes: Vec<EventClass> = events.iter().flatten().map(|event| map.class(event)).collect();
    let Some(engine) = compiled(&classes) else { return };
    let mut matcher = Matcher::new(Arc::clone(&engine), 64 << 20);
    let mut fired = 0;
    for (test, events) in tests.iter().zip(&events) {
        let (id, least) = (test["rule_id"].as_str().unwrap(), test["expected_min"].as_u64().unwrap());
        let mut count = 0;
        for event in events {
            let class = engine.class(&map.class(event)).unwrap();
            let hits = support::run(&mut matcher, class, &[event]);
            count += hits.iter().filter(|hit| engine.rule(hit.rule).id == id).count() as u64;
        }
        if count >= least {
            fired += 1;
        } else {
            println!("{id} {}: {count} of {least}; {:?}", test["rule_title"], map.class(&events[0]));
        }
    }
    println!("{fired} of {} regression tests fire", tests.len());
    assert_eq!(fired, tests.len());
}

#[test]
fn counts_equal_another_engine_or_the_difference_is_explained() {
    let (Some(text), Some(map)) = (support::text("agent_logs.ndjson.zst"), WindowsMap::load()) else {
        return;
    };
    let reference = support::lines("sigma_reference_counts.jsonl").unwrap();
    let shapes = [r#""fmt":"winlog-nxlog""#, r#""fmt":"winlog-wef""#];
    let lines: Vec<&str> =
        text.lines().filter(|line| shapes.iter().any(|shape| line.contains(shape))).collect();
    let mut by_class: BTreeMap<EventClass, Vec<&str>> = BTreeMap::new();
    for line in lines {
        let event: Value = serde_json::from_str(line).unwrap();
        by_class.entry(map.class(event["event"].as_object().unwrap())).or_default().push(line);
    }
    let Some(engine) = compiled(&by_class.keys().cloned().collect::<Vec<_>>()) else { return };
    let mut matcher = Matcher::new(Arc::clone(&engine), 64 << 20);
    let mut found: BTreeMap<(String, String), i64> = BTreeMap::new();
    for (class, lines) in &by_class {
        let class = engine.class(class).unwrap();
        for lines in lines.chunks(4096) {
            let records: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            let events: Vec<_> = records.iter().map(|record| record["event"].as_object().unwrap()).collect();
            for hit in support::run(&mut matcher, class, &events) {
                let rule = engine.rule(hit.rule);
                if rule.logsource.product.as_deref() != Some("windows") {
                    continue;
                }
                let source = records[hit.row as usize]["src"].as_str().unwrap().to_owned();
                *found.entry((source, rule.id.clone())).or_default() += 1;
            }
        }
    }
    let titles: HashMap<&str, &str> =
        engine.rules().iter().map(|rule| (rule.id.as_str(), rule.title.as_str())).collect();
    let mut differences = Vec::new();
    for line in &reference {
        let key = (line["src"].as_str().unwrap().to_owned(), line["rule_id"].as_str().unwrap().to_owned());
        let expected = line["count"].as_i64().unwrap();
        let count = found.remove(&key).unwrap_or(0);
        if count != expected {
            differences.push((key, expected, count));
        }
    }
    differences.extend(found.into_iter().map(|(key, count)| (key, 0, count)));
    for ((source, rule), expected, count) in &differences {
        println!(
            "{source} {rule} {}: theirs {expected}, ours {count}",
            titles.get(rule.as_str()).unwrap_or(&"?")
        );
    }
    println!("{} counts compared, {} differ", reference.len(), differences.len());
    let explained =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sigma-differences.md"));
    let explained = explained.unwrap_or_default();
    for ((source, rule), expected, count) in &differences {
        let cells = format!("| {expected} | {count} |");
        let known = explained.lines().any(|line| line.contains(rule.as_str()) && line.contains(&cells));
        assert!(known, "{source} {rule} is not in docs/sigma-differences.md");
    }
}

/// A record's class and its fields, for every shape that needs no parser of its own.
fn classified(record: &Value, map: &WindowsMap) -> (EventClass, Map<String, Value>) {
    let event = &record["event"];
    match record["fmt"].as_str().unwrap() {
        "cloudtrail" => {
            (EventClass::triple(Some("aws"), None, Some("cloudtrail")), event.as_object().unwrap().clone())
        }
        "syslog-3164" => (EventClass::triple(Some("linux"), None, Some("auth")), raw(record)),
        "auditd" => (EventClass::triple(Some("linux"), None, Some("auditd")), raw(record)),
        _ => {
            let fields = support::flat(event);
            (map.class(&fields), fields)
        }
    }
}

fn raw(record: &Value) -> Map<String, Value> {
    Map::from_iter([("raw".to_owned(), record["raw"].clone())])
}

/// Events of each class that are compared: so many in `make test`, all of them in `make soak`.
fn sample() -> usize {
    if std::env::var("INOSEC_SOAK").is_ok_and(|value| value == "full") { usize::MAX } else { 40 }
}

#[test]
fn every_verdict_over_the_corpus_is_the_oracles() {
    let (Some(text), Some(map)) = (support::text("agent_logs.ndjson.zst"), WindowsMap::load()) else {
        return;
    };
    let rules = support::rule_texts().unwrap();
    let given = nowhere(&rules);
    let theirs: oracle::Placeholders = given.into_iter().collect();
    let mut classes: BTreeMap<EventClass, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        classes.entry(classified(&record, &map).0).or_default().push(line);
    }
    let engine = compiled(&classes.keys().cloned().collect::<Vec<_>>()).unwrap();
    let oracles: Vec<OracleRule> =
        rules.iter().flat_map(|rule| OracleRule::parse(&rule.yaml, &theirs)).collect();
    assert_eq!(oracles.len(), engine.rules().len());
    let mut matcher = Matcher::new(Arc::clone(&engine), 8 << 20);
    let (mut events, mut verdicts, mut matches) = (0, 0, 0);
    for (class, lines) in &classes {
        let admitted: Vec<(usize, &OracleRule)> =
            oracles.iter().enumerate().filter(|(_, rule)| rule.runs_on(class)).collect();
        let id = engine.class(class).unwrap();
        assert_eq!(admitted.len(), engine.rules_of(id), "{class:?}");
        for chunk in spread(lines, sample()).chunks(512) {
            let records: Vec<Value> = chunk.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            let fields: Vec<_> = records.iter().map(|record| classified(record, &map).1).collect();
            let hits = support::run(&mut matcher, id, &fields.iter().collect::<Vec<_>>());
            let found: Vec<_> = hits.iter().map(|hit| (hit.row as usize, hit.rule.0 as usize)).collect();
            let mut expected = Vec::new();
            for (row, event) in fields.iter().enumerate() {
                let matching = admitted.iter().filter(|(_, rule)| rule.matches(event));
                expected.extend(matching.map(|(rule, _)| (row, *rule)));
            }
            assert_eq!(found, expected, "{class:?}");
            events += chunk.len();
            verdicts += chunk.len() * admitted.len();
            matches += found.len();
        }
    }
    println!(
        "{events} events of {} classes, {verdicts} verdicts, {matches} matches, no difference",
        classes.len()
    );
    assert!(matches > 50);
}

/// So many of them, from start to end, always the same.
fn spread<'a>(lines: &[&'a str], most: usize) -> Vec<&'a str> {
    let step = lines.len().div_ceil(most.min(lines.len()));
    lines.iter().step_by(step).copied().collect()
}
