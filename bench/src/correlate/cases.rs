//! What is measured: correlations, and events for them.
//!
//! Events come in the order of their arrival, each up to three seconds after it happened, at a rate that
//! puts as many of them within the horizon as a tenant may hold by default.

use std::sync::Arc;

use inosec_enrich::correlate::{Options, ThreatEvent};
use inosec_enrich::{Correlations, Placeholders};
use inosec_schemas::TenantId;
use uuid::Uuid;

use crate::error::{Error, Result};

pub const SECOND: i64 = 1_000_000;

/// Where the events begin. Any time will do that whole seconds can tell.
const START: i64 = 1_700_000_000 * SECOND;

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
";

/// A correlation, and how its events are spread.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// Ids and correlations, as rules have them.
    correlations: &'static [(&'static str, &'static str)],
    pub groups: u64,
    values: u64,
    /// How many events the horizon holds.
    pub held: u64,
    /// What issue 5 asks for, in thousands of events a second.
    pub aim: Option<f64>,
}

const COUNT: Case =
    Case { name: "", correlations: &[], groups: 10_000, values: 1_000, held: 1_000_000, aim: None };

/// A window of five minutes holds 38,460 events: 4 of each of 10,000 groups, 2,024 of each of 19.
pub const CASES: [Case; 9] = [
    Case {
        name: "event_count ≥ 10, 10 k groups (few fire)",
        correlations: &[("c", "type: event_count, rules: [a, b], condition: {gte: 10}")],
        aim: Some(600.0),
        ..COUNT
    },
    Case {
        name: "event_count ≥ 2, 10 k groups (nearly all fire)",
        correlations: &[("c", "type: event_count, rules: [a, b], condition: {gte: 2}")],
        aim: Some(600.0),
        ..COUNT
    },
    Case {
        name: "event_count ≥ 10, 1 M groups",
        correlations: &[("c", "type: event_count, rules: [a, b], condition: {gte: 10}")],
        groups: 1_000_000,
        held: 2_000_000,
        ..COUNT
    },
    Case {
        name: "value_count ≥ 3,000 where there are 2,000 (none fires)",
        correlations: &[("c", "type: value_count, rules: [a, b], condition: {field: v, gte: 3000}")],
        groups: 19,
        values: 1_000_000,
        aim: Some(300.0),
        ..COUNT
    },
    Case {
        name: "value_count ≥ 2,000 where there are 2,000 (half fire)",
        correlations: &[("c", "type: value_count, rules: [a, b], condition: {field: v, gte: 2000}")],
        groups: 19,
        values: 1_000_000,
        aim: Some(300.0),
        ..COUNT
    },
    Case {
        name: "temporal a, b; 10 k groups",
        correlations: &[("c", "type: temporal, rules: [a, b]")],
        ..COUNT
    },
    Case {
        name: "temporal_ordered a, b; 10 k groups",
        correlations: &[("c", "type: temporal_ordered, rules: [a, b]")],
        ..COUNT
    },
    Case {
        name: "chain: event_count ≥ 5 of a, then b; 10 k groups",
        correlations: &[
            ("p", "type: event_count, rules: [a], condition: {gte: 5}"),
            ("c", "type: temporal_ordered, rules: [p, b]"),
        ],
        ..COUNT
    },
    Case {
        name: "value_avg ≥ 500, 10 k groups",
        correlations: &[("c", "type: value_avg, rules: [a, b], condition: {field: v, gte: 500}")],
        ..COUNT
    },
];

/// An event, before it is told to anyone.
#[derive(Debug, Clone)]
pub struct Made {
    number: u64,
    pub second: bool,
    pub time: i64,
    pub arrival: i64,
    pub group: String,
    pub value: String,
}

impl Case {
    /// Its rules as text, which every contender parses for itself.
    pub fn text(&self) -> String {
        let mut text = DETECTIONS.to_owned();
        for (id, correlation) in self.correlations {
            text += &format!(
                "---\ntitle: {id}\nid: {id}\ncorrelation: {{{correlation}, group-by: [g], timespan: 5m}}\n"
            );
        }
        text
    }

    /// Its rules, resolved.
    pub fn rules(&self) -> Result<Arc<Correlations>> {
        let parsed = inosec_enrich::parse("case.yml", &self.text(), &Placeholders::default());
        let (rules, problems) = Correlations::new(&parsed.correlations, &parsed.rules);
        match parsed.problems.iter().chain(&problems).next() {
            None => Ok(Arc::new(rules)),
            Some(problem) => Err(Error::new(format!("{}: {}", self.name, problem.message))),
        }
    }

    /// Defaults, but no limits: one tenant has everything.
    pub fn options() -> Options {
        let unlimited = usize::MAX;
        Options { max_groups: unlimited, max_entries: unlimited, max_bytes: unlimited, ..Options::default() }
    }

    /// Events from one number to another; `horizon` is how long those held take to arrive.
    pub fn events(&self, numbers: std::ops::Range<u64>, horizon: i64) -> Vec<Made> {
        numbers.map(|number| self.event(number, horizon)).collect()
    }

    fn event(&self, number: u64, horizon: i64) -> Made {
        let mut random = Random(number);
        let arrival = START + number as i64 * (horizon / self.held as i64);
        Made {
            number,
            second: random.next() % 2 == 1,
            time: arrival - (random.next() % 3_000_000) as i64,
            arrival,
            group: format!("group {}", random.next() % self.groups),
            value: (random.next() % self.values).to_string(),
        }
    }
}

impl Made {
    pub fn threat_event(&self) -> ThreatEvent<'_> {
        ThreatEvent {
            tenant: TenantId(Uuid::from_u128(1)),
            // Ids of the road are hashes: nothing of their order tells the events'.
            id: Uuid::from_u128(u128::from(Random(self.number).next()) << 64 | u128::from(self.number)),
            rule: if self.second { "b" } else { "a" },
            time: self.time,
            arrival: self.arrival,
            severity: 2,
            host: None,
            fields: vec![("g", &self.group), ("v", &self.value)],
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
