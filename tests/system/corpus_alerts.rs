//! The recordings of the corpus on real servers, some events twice and none in its place, while processes are
//! killed and frozen and the broker goes away: threat events are those of a full scan, and the alerts of our pack
//! and of SigmaHQ's rules those of the definitions. The pack is read here a second time, for the reference.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

use crate::reference::{Measure, Rule, SECOND};
use crate::support::correlation::{Arena, Pair};
use crate::support::full_scan::FullScan;
use crate::support::kafka::Ledger;
use crate::support::servers::{self, Store};
use crate::support::{Random, corpus, storm};

/// Recordings in which something is to be correlated, and with `INOSEC_SOAK=full` large ones too.
const RECORDINGS: [&str; 3] = ["elastic/examples auth.log", "invictus-ir/aws_dataset", "mdecrevoisier/"];
const LARGE: &str = "OTRF/purplesharp";
/// Refusals of months ago, then a logon.
const GUESSED: &str = "7dc0cafb-c487-4668-a20f-aaae95955fcf";
const SIGNATURES: usize = 3_000;

/// Stops the one Kafka all tests share, so it runs alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_corpus_makes_the_references_alerts_whatever_is_killed() {
    let full = std::env::var("INOSEC_SOAK").as_deref() == Ok("full");
    let (Some(mut events), Some(folder)) = (events(full), corpus::folder()) else { return };
    let scan = FullScan::of(events.iter().map(|(_, line)| line.as_slice())).unwrap();
    let _storm = storm().await;
    let arena = Arena::new(Store::Timescale).await;
    let theirs = folder.join("sigma_rules.jsonl.zst");
    arena.configure("paths = [", &format!("builtin = true\npaths = [{theirs:?}, "));
    let mut random = Random::new("corpus correlated");
    let foreign = foreign(&events);
    // One in eight comes again, and any before any other.
    let again: Vec<Event> = events.iter().filter(|_| random.below(8) == 0).cloned().collect();
    events.extend(again);
    for last in (1..events.len()).rev() {
        events.swap(last, random.below(last as u64 + 1) as usize);
    }
    let turns = if full { 200 } else { 20 };
    let mut pair = Pair::start(&arena.setup);
    for (turn, part) in events.chunks(events.len().div_ceil(turns)).enumerate() {
        for (tenant, event) in part {
            arena.producer.send(&arena.topic, event, Some(arena.tenants[*tenant]));
        }
        tokio::time::sleep(Duration::from_millis(1_000 + random.below(3_000))).await;
        // Once in a while without the broker, which relay and ingest need.
        let away = turn % 20 == 8;
        if away {
            servers::services(&["down", "kafka"]);
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        pair.strike(turn, &arena.setup, &mut random).await;
        if away {
            servers::services(&["up", "kafka"]);
        }
    }
    pair.renew(&arena.setup);
    arena.settle(&pair.running[0]).await;
    let ledger = arena.producer.ledger();
    let matches = scan.check(&arena.database, &ledger).await;
    copies_match_alike(&arena, &ledger).await;
    let stored = "SELECT count(*) FROM inosec.threat_events WHERE source = 'suricata'";
    assert_eq!(arena.database.number(stored).await, foreign as i64, "each alert of Suricata's, once");
    let found = arena.check(pack()).await;
    arena.check_relayed().await;
    let correlated = pack().iter().filter(|rule| found.contains_key(&rule.id)).count();
    println!(
        "{} events, {turns} kills; {matches} matches of SigmaHQ's rules; {correlated} correlations found something",
        ledger.len()
    );
    assert!(found.contains_key(GUESSED), "a chain of old events");
    assert!(matches > 20 && correlated >= 3 && found.len() > 20, "{found:?}");
    arena.end(pair.running).await;
}

/// Which tenant's, and its bytes.
type Event = (usize, Vec<u8>);

/// Events of the recordings, each of one tenant, and Suricata's records.
fn events(full: bool) -> Option<Vec<Event>> {
    let mut events = Vec::new();
    for line in corpus::lines("agent_logs.ndjson.zst")? {
        let record: Value = serde_json::from_slice(&line).unwrap();
        let source = record["src"].as_str().unwrap();
        let large = full && source.starts_with(LARGE);
        if large || RECORDINGS.iter().any(|start| source.starts_with(start)) {
            events.push((source.len() % 2, line));
        }
    }
    let signatures = corpus::lines("threat_events.ndjson.zst")?;
    let most = if full { signatures.len() } else { SIGNATURES };
    events.extend(signatures.into_iter().take(most).map(|line| (0, line)));
    Some(events)
}

/// How many different alerts of Suricata's there are.
fn foreign(events: &[Event]) -> usize {
    let alert = |line: &[u8]| {
        let record: Value = serde_json::from_slice(line).unwrap();
        record["event"]["event_type"] == "alert"
    };
    let distinct: BTreeSet<&Event> = events.iter().filter(|(_, line)| alert(line)).collect();
    distinct.len()
}

/// Messages of the same bytes have the same matches, each.
async fn copies_match_alike(arena: &Arena, ledger: &Ledger) {
    let sql = "SELECT a.kafka_partition, a.kafka_offset, array_agg(t.rule_id ORDER BY t.rule_id)
        FROM inosec.agent_logs AS a JOIN inosec.threat_events AS t USING (tenant_id, event_id)
        WHERE t.source = 'inosec' GROUP BY 1, 2";
    let rows = arena.database.rows(sql, &[]).await;
    let matched: HashMap<(i32, i64), Vec<String>> =
        rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
    let mut of_message: HashMap<[u8; 32], BTreeSet<Vec<String>>> = HashMap::new();
    for (partition, offset, hash) in ledger {
        let rules = matched.get(&(*partition, *offset)).cloned().unwrap_or_default();
        of_message.entry(*hash).or_default().insert(rules);
    }
    let unlike: Vec<_> = of_message.values().filter(|found| found.len() > 1).collect();
    assert!(unlike.is_empty(), "{unlike:?}");
}

/// The correlations of `rules/`, after those they refer to.
fn pack() -> Vec<Rule> {
    let mut documents = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("rules"), &mut documents);
    let text = |document: &Yaml, key: &str| document[key].as_str().map(str::to_owned);
    let named =
        documents.iter().filter_map(|document| Some((text(document, "name")?, text(document, "id")?)));
    let ids: BTreeMap<String, String> = named.collect();
    let correlations = documents.iter().filter(|document| !document["correlation"].is_badvalue());
    let mut waiting: Vec<Rule> = correlations.map(|document| correlation(document, &ids)).collect();
    assert!(waiting.len() >= 60, "{}", waiting.len());
    let mut rules: Vec<Rule> = Vec::new();
    while !waiting.is_empty() {
        let names: BTreeSet<String> = waiting.iter().map(|rule| rule.id.clone()).collect();
        let (later, now) =
            waiting.into_iter().partition(|rule| rule.inputs.iter().any(|id| names.contains(id)));
        rules.extend::<Vec<Rule>>(now);
        waiting = later;
    }
    rules
}

/// Every document of the rule files below.
fn read(folder: &Path, documents: &mut Vec<Yaml>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("fixtures") {
            read(&path, documents);
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            documents.extend(YamlLoader::load_from_str(&std::fs::read_to_string(path).unwrap()).unwrap());
        }
    }
}

fn correlation(document: &Yaml, ids: &BTreeMap<String, String>) -> Rule {
    let body = &document["correlation"];
    let list = |yaml: &Yaml| -> Vec<String> {
        yaml.as_vec().into_iter().flatten().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let id = |name: &str| ids.get(name).cloned().unwrap_or_else(|| name.to_owned());
    let inputs: Vec<String> = list(&body["rules"]).iter().map(|name| id(name)).collect();
    let measure = match body["type"].as_str().unwrap() {
        "event_count" => Measure::Count,
        "value_count" => Measure::Distinct,
        "temporal" => Measure::Rules,
        "temporal_ordered" => Measure::Order,
        "value_sum" => Measure::Sum,
        other => panic!("{other}: tell the reference"),
    };
    let mut names = BTreeMap::new();
    for (field, of_rules) in body["aliases"].as_hash().into_iter().flatten() {
        for (rule, name) in of_rules.as_hash().unwrap() {
            let text = |yaml: &Yaml| yaml.as_str().unwrap().to_owned();
            names.insert((text(field), id(&text(rule))), text(name));
        }
    }
    let condition = body["condition"].as_hash().into_iter().flatten();
    let number = |yaml: &Yaml| yaml.as_i64().map(|number| number as f64).or_else(|| yaml.as_f64());
    let mut condition: Vec<(String, f64)> =
        condition.filter_map(|(key, value)| Some((key.as_str()?.to_owned(), number(value)?))).collect();
    if condition.is_empty() {
        condition.push(("gte".to_owned(), inputs.len() as f64));
    }
    let mut group = list(&body["group-by"]);
    group.sort_unstable();
    let timespan = body["timespan"].as_str().unwrap();
    let (count, unit) = timespan.split_at(timespan.len() - 1);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        other => panic!("{other}"),
    };
    Rule {
        id: document["id"].as_str().unwrap().to_owned(),
        measure,
        inputs,
        group,
        names,
        value: body["condition"]["field"].as_str().map(str::to_owned),
        timespan: count.parse::<i64>().unwrap() * seconds * SECOND,
        condition,
        generate: body["generate"].as_bool().unwrap_or(false),
    }
}
