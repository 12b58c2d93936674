//! Rules and events as the reference has them, given to the correlator.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use inosec_enrich::correlate::{Change, ChangeKind, Episode, Options, ThreatEvent};
use inosec_enrich::{Correlations, Correlator, Parsed, Placeholders};
use inosec_schemas::TenantId;
use uuid::Uuid;

use super::reference::{Event, Found, Measure, Rule, SECOND, Setting};

/// What a severity is that makes no alert of its own.
pub const LOW: i16 = 2;

pub fn detection(id: &str) -> String {
    format!(
        "title: Detection {id}\nid: {id}\nname: name_of_{id}\nlogsource: {{product: windows}}\n\
         detection:\n  s: {{F: a}}\n  condition: s\n---\n"
    )
}

/// A correlation as a rule file has it.
pub fn text(rule: &Rule) -> String {
    let mut text = format!("title: Correlation {0}\nid: {0}\nmodified: 2026-01-02\ncorrelation:\n", rule.id);
    let (kind, percentile) = match rule.measure {
        Measure::Count => ("event_count", None),
        Measure::Distinct => ("value_count", None),
        Measure::Rules => ("temporal", None),
        Measure::Order => ("temporal_ordered", None),
        Measure::Sum => ("value_sum", None),
        Measure::Average => ("value_avg", None),
        Measure::Percentile(percent) => ("value_percentile", Some(percent)),
    };
    let _ = writeln!(text, "  type: {kind}\n  rules: [{}]", rule.inputs.join(", "));
    let _ = writeln!(text, "  group-by: [{}]\n  timespan: {}s", rule.group.join(", "), rule.timespan);
    let _ = writeln!(text, "  generate: {}\n  condition:", rule.generate);
    for (operator, value) in &rule.condition {
        let _ = writeln!(text, "    {operator}: {value}");
    }
    if let Some(percent) = percentile {
        let _ = writeln!(text, "    percentile: {percent}");
    }
    if let Some(value) = &rule.value {
        let _ = writeln!(text, "    field: {value}");
    }
    if !rule.names.is_empty() {
        text.push_str("  aliases:\n");
        let aliases: BTreeSet<&String> = rule.names.keys().map(|(alias, _)| alias).collect();
        for alias in aliases {
            let _ = writeln!(text, "    {alias}:");
            for ((_, input), field) in rule.names.iter().filter(|((other, _), _)| other == alias) {
                let _ = writeln!(text, "      {input}: {field}");
            }
        }
    }
    text + "---\n"
}

pub fn parse(text: &str) -> Parsed {
    inosec_enrich::parse("rules/c.yml", text, &Placeholders::default())
}

/// The rules as the correlator takes them, given with detections a, b and c.
pub fn correlations(rules: &[Rule]) -> Arc<Correlations> {
    let mut all: String = ["a", "b", "c"].map(detection).concat();
    rules.iter().for_each(|rule| all += &text(rule));
    let parsed = parse(&all);
    assert_eq!(parsed.problems, [], "{all}");
    let (correlations, problems) = Correlations::new(&parsed.correlations, &parsed.rules);
    assert_eq!(problems, [], "{all}");
    Arc::new(correlations)
}

pub fn options(setting: &Setting) -> Options {
    Options {
        max_skew: setting.max_skew * SECOND,
        allowed_lateness: setting.lateness * SECOND,
        gap: setting.gap * SECOND,
        alert_severity: setting.alert_severity,
        ..Options::default()
    }
}

pub fn correlator(setting: &Setting) -> Correlator {
    Correlator::new(correlations(&setting.rules), options(setting))
}

pub fn threat_events(events: &[Event]) -> Vec<ThreatEvent<'_>> {
    events.iter().map(threat_event).collect()
}

fn threat_event(event: &Event) -> ThreatEvent<'_> {
    ThreatEvent {
        tenant: tenant(event.tenant),
        id: id(event.id),
        rule: &event.rule,
        time: event.time * SECOND,
        arrival: event.arrival * SECOND,
        severity: event.severity,
        host: event.host.as_deref(),
        fields: event.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
    }
}

pub fn tenant(number: u8) -> TenantId {
    TenantId(Uuid::from_u128(number.into()))
}

pub fn id(number: u32) -> Uuid {
    Uuid::from_u128(number.into())
}

/// An episode as the reference tells it.
pub fn found(episode: &Episode) -> Found {
    let summary = &episode.summary;
    assert_eq!(summary.count, episode.members.len());
    (
        summary.of.tenant.0.as_u128() as u8,
        summary.of.rule.clone(),
        summary.of.group.iter().map(|(_, value)| value.clone()).collect(),
        summary.first_seen / SECOND,
        summary.last_seen / SECOND,
        episode.members.iter().map(|id| id.as_u128() as u32).collect(),
    )
}

pub fn episodes(correlator: &Correlator) -> BTreeSet<Found> {
    correlator.episodes().iter().map(found).collect()
}

/// What a reader of changes believes: by number, an episode's members.
#[derive(Debug, Default)]
pub struct Reader {
    /// Whether the horizon passes events meanwhile: what it took may come back with what still counts.
    pub forgetting: bool,
    pub alerts: std::collections::BTreeMap<u64, BTreeSet<Uuid>>,
}

impl Reader {
    pub fn read(&mut self, changes: &[Change]) {
        for change in changes {
            let mut members = self.alerts.remove(&change.number).unwrap_or_default();
            if change.kind == ChangeKind::Settled {
                continue;
            }
            assert_eq!(
                members.is_empty() && !self.forgetting,
                change.kind == ChangeKind::Opened && !self.forgetting,
                "only what is opened is new: {change:?}"
            );
            for number in &change.absorbed {
                let absorbed = self.alerts.remove(number);
                assert!(absorbed.is_some() || self.forgetting, "what is absorbed was opened: {change:?}");
                members.extend(absorbed.unwrap_or_default());
            }
            for id in &change.removed {
                assert!(members.remove(id) || self.forgetting, "only members are removed: {change:?}");
            }
            for id in &change.added {
                assert!(members.insert(*id) || self.forgetting, "only others are added: {change:?}");
            }
            if change.kind != ChangeKind::Withdrawn {
                self.alerts.insert(change.number, members);
            }
        }
    }
}

impl Reader {
    /// One that knows what a correlator holds.
    pub fn of(correlator: &Correlator) -> Self {
        let mut reader = Self::default();
        for episode in correlator.episodes() {
            reader.alerts.entry(episode.number).or_default().extend(episode.members);
        }
        reader
    }

    /// It believes what is so.
    pub fn agrees(&self, correlator: &Correlator) {
        assert_eq!(self.alerts, Self::of(correlator).alerts);
    }
}
