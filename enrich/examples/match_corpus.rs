//! Match-only speed: SigmaHQ's Windows rules over the corpus' Windows events, on one core.
//!
//! `cargo run --release -p inosec-enrich --example match_corpus -- [passes] [tenants] [class] [without]`
//! where `class` is a part of a class' name, and `without` a field to leave out (`Message` is the rendered
//! text, half of all bytes); the corpus is found by `INOSEC_CORPUS`. Events are parsed and put into
//! columns before the clock starts; each pass begins with an empty memo.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

#[path = "../tests/enrich/support.rs"]
#[allow(dead_code)]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inosec_enrich::{ClassId, Engine, Matcher, Parsed, Placeholders, Selection, Tenants};
use inosec_schemas::{Columns, EventClass};
use serde_json::{Map, Value};

/// Events that arrive together.
const BATCH: usize = 8192;

struct Batch<'a> {
    class: ClassId,
    columns: Columns<'a>,
    owners: Vec<u32>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let passes: usize = arguments.next().map_or(5, |passes| passes.parse().unwrap());
    let tenants: u32 = arguments.next().map_or(1, |tenants| tenants.parse().unwrap());
    let only = arguments.next().unwrap_or_default();
    let without = arguments.next().unwrap_or_default();
    let (Some(text), Some(map)) = (support::text("agent_logs.ndjson.zst"), support::WindowsMap::load())
    else {
        return;
    };
    let mut classes: BTreeMap<EventClass, usize> = BTreeMap::new();
    // Batches in the order of the stream: of each, the events of one class go together.
    let mut arrived: Vec<BTreeMap<EventClass, Vec<Map<String, Value>>>> = vec![BTreeMap::new()];
    let mut open = 0;
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        if !record["fmt"].as_str().unwrap().starts_with("winlog-") && record["fmt"] != "evtx-json" {
            continue;
        }
        let mut fields = support::flat(&record["event"]);
        fields.remove(&without);
        let class = map.class(&fields);
        if !name(&class).contains(&only) {
            continue;
        }
        *classes.entry(class.clone()).or_default() += 1;
        arrived.last_mut().unwrap().entry(class).or_default().push(fields);
        open += 1;
        if open % BATCH == 0 {
            arrived.push(BTreeMap::new());
        }
    }
    let before = resident();
    let mut parsed = Parsed::default();
    for rule in support::rule_texts().unwrap() {
        if rule.path.starts_with("rules/") {
            parsed.add(&rule.path, &rule.yaml, &Placeholders::new());
        }
    }
    let started = Instant::now();
    let names: Vec<EventClass> = classes.keys().cloned().collect();
    let engine = Arc::new(Engine::new(parsed.rules, parsed.filters, &names).unwrap());
    let took = started.elapsed();
    eprintln!(
        "{} rules, {} classes compiled in {took:.1?}; {} fields",
        engine.rules().len(),
        names.len(),
        engine.fields().len()
    );
    eprintln!("parsed rules and programs: {} MiB", resident().saturating_sub(before) >> 10);
    let mut everyone = Tenants::default();
    for tenant in 0..tenants {
        let mut selection = Selection::all(&engine);
        if tenants > 1 {
            let rules = (0..engine.rules().len() as u32).filter(|rule| (rule + tenant) % 10 == 0);
            rules.for_each(|rule| selection.set(inosec_enrich::RuleId(rule), false));
        }
        everyone.add(selection);
    }
    let groups: Vec<(ClassId, Vec<&Map<String, Value>>)> = arrived
        .iter()
        .flatten()
        .map(|(class, events)| (engine.class(class).unwrap(), events.iter().collect()))
        .collect();
    let texts: Vec<_> = groups.iter().map(|(_, events)| support::Texts::of(events.iter().copied())).collect();
    let batches: Vec<Batch<'_>> = groups
        .iter()
        .zip(&texts)
        .map(|((class, events), texts)| Batch {
            class: *class,
            columns: support::columns(&engine, *class, events, texts),
            owners: (0..events.len() as u32).map(|row| row % tenants).collect(),
        })
        .collect();
    let all = measure(&engine, &everyone, &batches, passes);
    report("all", open, all);
    for (class, events) in &classes {
        let id = engine.class(class).unwrap();
        let chosen: Vec<&Batch<'_>> = batches.iter().filter(|batch| batch.class == id).collect();
        if *events >= 1000 || class.categories.iter().any(|category| category == "process_creation") {
            let measured = measure_some(&engine, &everyone, &chosen, passes);
            report(&format!("{} ({} rules)", name(class), engine.rules_of(id)), *events, measured);
        }
    }
}

/// KiB of memory in use.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn name(class: &EventClass) -> String {
    class.categories.iter().chain(&class.services).cloned().collect::<Vec<_>>().join("+")
}

fn measure(
    engine: &Arc<Engine>,
    tenants: &Tenants,
    batches: &[Batch<'_>],
    passes: usize,
) -> (Duration, usize) {
    measure_some(engine, tenants, &batches.iter().collect::<Vec<_>>(), passes)
}

/// The median pass.
fn measure_some(
    engine: &Arc<Engine>,
    tenants: &Tenants,
    batches: &[&Batch<'_>],
    passes: usize,
) -> (Duration, usize) {
    let mut took = Vec::new();
    let mut hits = Vec::new();
    for _ in 0..passes {
        let mut matcher = Matcher::new(Arc::clone(engine), 64 << 20);
        hits.clear();
        let started = Instant::now();
        for batch in batches {
            matcher.run(batch.class, &batch.columns, tenants, &batch.owners, &mut hits);
        }
        took.push(started.elapsed());
    }
    took.sort();
    (took[took.len() / 2], hits.len())
}

fn report(name: &str, events: usize, (took, hits): (Duration, usize)) {
    let speed = events as f64 / took.as_secs_f64() / 1000.0;
    eprintln!("{name}: {events} events, {hits} hits, {took:.1?}, {speed:.1} k events/s");
}
