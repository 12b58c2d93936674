//! Correlation's speed on one core: events given at once (as at take-over) and in batches (as in the road).
//!
//! `cargo run --release -p inosec-enrich --example correlate -- [events] [batch]`
//! Events are made beforehand, in order of arrival, each up to three seconds late.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::sync::Arc;
use std::time::Instant;

use inosec_enrich::correlate::{Options, ThreatEvent};
use inosec_enrich::{Correlations, Correlator, Placeholders};
use inosec_schemas::TenantId;
use uuid::Uuid;

const SECOND: i64 = 1_000_000;

const DETECTIONS: &str = "
title: A
id: a
logsource: {product: windows}
detection: {s: {F: a}, condition: s}
---
title: B
id: b
logsource: {product: windows}
detection: {s: {F: b}, condition: s}
---
";

/// Name, correlation, groups, distinct values.
const CASES: [(&str, &str, u64, u64); 7] = [
    ("event_count, 10 k groups", "type: event_count, rules: [a, b], condition: {gte: 10}", 10_000, 1),
    ("event_count, 1 M groups", "type: event_count, rules: [a, b], condition: {gte: 10}", 1_000_000, 1),
    ("event_count, one group", "type: event_count, rules: [a, b], condition: {gte: 10}", 1, 1),
    (
        "value_count, 10 groups of 2,000",
        "type: value_count, rules: [a, b], condition: {field: v, gte: 2001}",
        10,
        2_000,
    ),
    ("temporal, 10 k groups", "type: temporal, rules: [a, b]", 10_000, 1),
    ("temporal_ordered, 10 k groups", "type: temporal_ordered, rules: [a, b]", 10_000, 1),
    ("value_avg, 10 k groups", "type: value_avg, rules: [a, b], condition: {field: v, gte: 5}", 10_000, 10),
];

fn rules(correlation: &str) -> Arc<Correlations> {
    let text =
        format!("{DETECTIONS}title: C\nid: c\ncorrelation: {{{correlation}, group-by: [g], timespan: 5m}}\n");
    let parsed = inosec_enrich::parse("c.yml", &text, &Placeholders::default());
    let (rules, problems) = Correlations::new(&parsed.correlations, &parsed.rules);
    assert!(parsed.problems.is_empty() && problems.is_empty(), "{problems:?}");
    Arc::new(rules)
}

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>().unwrap());
    let (count, batch) = (args.next().unwrap_or(1_000_000), args.next().unwrap_or(1_000) as usize);
    for (name, correlation, groups, values) in CASES {
        let texts: Vec<(String, String)> = (0..count)
            .map(|number| {
                let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
                (format!("group {}", random % groups), (random / groups % values).to_string())
            })
            .collect();
        let events: Vec<ThreatEvent<'_>> = (0..)
            .zip(&texts)
            .map(|(number, (group, value))| ThreatEvent {
                tenant: TenantId(Uuid::from_u128(1)),
                id: Uuid::from_u128(number),
                rule: if number % 2 == 0 { "a" } else { "b" },
                // An hour in all.
                time: number as i64 * 3_600 * SECOND / count as i64 - number as i64 * 7_919 % (3 * SECOND),
                arrival: number as i64 * 3_600 * SECOND / count as i64,
                severity: 2,
                host: None,
                fields: vec![("g", group), ("v", value)],
            })
            .collect();
        let options = Options {
            max_groups: usize::MAX,
            max_entries: usize::MAX,
            allowed_lateness: 60 * SECOND,
            ..Options::default()
        };
        let rules = rules(correlation);
        let before = resident();
        let start = Instant::now();
        let rebuilt = Correlator::rebuild(Arc::clone(&rules), options.clone(), &events, 3_600 * SECOND);
        let all = start.elapsed().as_secs_f64();
        let (groups, _) = rebuilt.size();
        let bytes = (resident().saturating_sub(before)) * 1024;
        let start = Instant::now();
        let mut live = Correlator::new(rules, options);
        let mut changes = 0;
        for events in events.chunks(batch) {
            changes += live.insert(events).len();
            changes += live.advance(events[events.len() - 1].arrival).len();
        }
        changes += live.advance(3_600 * SECOND).len();
        let batched = start.elapsed().as_secs_f64();
        assert_eq!(live.episodes().len(), rebuilt.episodes().len());
        eprintln!(
            "{name:32} rebuild {:>5.0} k/s, batches of {batch} {:>5.0} k/s; {groups} groups, {} episodes, \
             {changes} changes, {} bytes an event",
            count as f64 / all / 1e3,
            count as f64 / batched / 1e3,
            live.episodes().len(),
            bytes as u64 / count,
        );
    }
}
