//! What an alert says: title, severity, risk, who and what is concerned.

use std::collections::BTreeSet;

use inosec_schemas::{Alert, Entities, StoredThreatEvent, Suppression, TenantId, derived_id};
use uuid::Uuid;

use crate::correlate::{Correlation, Identity};
use crate::ruleset::technique;

/// Of each kind, an alert names so many; its events have them all.
const MOST_ENTITIES: usize = 100;
/// The risk of an OCSF severity by itself.
const OF_SEVERITY: [i16; 7] = [10, 10, 25, 45, 65, 85, 95];
/// What a step of a host's criticality adds; 3 is ordinary.
const OF_CRITICALITY: i16 = 5;
const ORDINARY: i16 = 3;
/// What each technique beyond the first adds, up to five of them.
const OF_TECHNIQUE: i16 = 2;

/// An alert of an episode, before any event was taken in.
pub(super) fn open(id: Uuid, of: &Identity, rule: Option<&Correlation>, seen: (i64, i64)) -> Alert {
    let title = rule.map_or_else(String::new, |rule| fill(&rule.title, &of.group));
    let tags = rule.map_or(&[][..], |rule| &rule.tags);
    Alert {
        id,
        tenant_id: of.tenant.0,
        title,
        rule_id: of.rule.clone(),
        rule_revision: of.revision.clone(),
        rule_author: rule.and_then(|rule| rule.author.clone()),
        correlation: of.correlation,
        group_id: group_id(of),
        grouped_by: of.group.iter().cloned().collect(),
        severity_id: rule.map_or(0, |rule| rule.level.severity_id()),
        risk_score: 0,
        techniques: tags.iter().filter_map(|tag| technique(tag)).collect(),
        entities: Entities::default(),
        first_seen: seen.0,
        last_seen: seen.1,
    }
}

/// Stands for tenant, rule, revision and group.
pub(super) fn group_id(of: &Identity) -> Uuid {
    let mut text = format!("{}\0{}", of.rule, of.revision.as_deref().unwrap_or_default());
    for (name, value) in &of.group {
        text.push('\0');
        text.push_str(name);
        text.push('\0');
        text.push_str(value);
    }
    derived_id(of.tenant, &text, Uuid::from_u128(u128::from(of.correlation)))
}

/// Takes an event in. A correlation's alert has its rule's title, author and severity; one of a rule's own
/// events has theirs.
pub(super) fn take(alert: &mut Alert, event: &StoredThreatEvent) {
    if !alert.correlation {
        if alert.title.is_empty() {
            alert.title.clone_from(&event.signature);
            alert.rule_author.clone_from(&event.rule_author);
        }
        alert.severity_id = alert.severity_id.max(event.severity_id);
    }
    alert.techniques.extend(event.techniques.iter().cloned());
    let Entities { hosts, users, addresses } = &mut alert.entities;
    let named = |value: &Option<String>, set: &mut BTreeSet<String>| {
        value.iter().for_each(|value| note(set, value));
    };
    named(&event.host_name, hosts);
    named(&event.user_name, users);
    named(&event.src_ip, addresses);
    named(&event.dst_ip, addresses);
}

/// Takes in what another alert says.
pub(super) fn join(alert: &mut Alert, other: &Alert) {
    if !alert.correlation {
        alert.severity_id = alert.severity_id.max(other.severity_id);
    }
    alert.techniques.extend(other.techniques.iter().cloned());
    let (into, from) = (&mut alert.entities, &other.entities);
    for (set, values) in [
        (&mut into.hosts, &from.hosts),
        (&mut into.users, &from.users),
        (&mut into.addresses, &from.addresses),
    ] {
        values.iter().for_each(|value| note(set, value));
    }
    alert.first_seen = alert.first_seen.min(other.first_seen);
    alert.last_seen = alert.last_seen.max(other.last_seen);
}

fn note(set: &mut BTreeSet<String>, value: &str) {
    if set.len() < MOST_ENTITIES && !set.contains(value) {
        set.insert(value.to_owned());
    }
}

/// A title with `{name}` replaced by what the alert is grouped by; what is no such name stays.
fn fill(title: &str, group: &[(String, String)]) -> String {
    let mut filled = title.to_owned();
    for (name, value) in group {
        filled = filled.replace(&format!("{{{name}}}"), value);
    }
    filled
}

/// 0 to 100: severity, the criticality of the most critical host (1 to 5), techniques.
pub(super) fn risk_score(alert: &Alert, criticality: Option<i16>) -> i16 {
    let severity = usize::try_from(alert.severity_id).unwrap_or(0).min(OF_SEVERITY.len() - 1);
    let host = (criticality.unwrap_or(ORDINARY).clamp(1, 5) - ORDINARY) * OF_CRITICALITY;
    let techniques = alert.techniques.len().saturating_sub(1).min(5) as i16 * OF_TECHNIQUE;
    (OF_SEVERITY[severity] + host + techniques).clamp(0, 100)
}

/// Whether a suppression is about this alert.
pub(super) fn is_suppressed(alert: &Alert, by: &Suppression) -> bool {
    TenantId(alert.tenant_id) == by.tenant
        && by.rule_id.as_ref().is_none_or(|rule| *rule == alert.rule_id)
        && by.fields.iter().all(|(name, value)| has(alert, name, value))
}

/// Whether the alert is grouped by this value of the field, or concerns it.
fn has(alert: &Alert, name: &str, value: &str) -> bool {
    let same = |other: &String| other.to_lowercase() == value.to_lowercase();
    let concerned = match name {
        "host_name" => &alert.entities.hosts,
        "user_name" => &alert.entities.users,
        "src_ip" | "dst_ip" => &alert.entities.addresses,
        _ => return alert.grouped_by.get(name).is_some_and(same),
    };
    concerned.iter().any(same) || alert.grouped_by.get(name).is_some_and(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            tenant: TenantId(Uuid::from_u128(1)),
            rule: "r".to_owned(),
            revision: None,
            correlation: false,
            group: vec![("host".to_owned(), "ws1".to_owned())],
        }
    }

    #[test]
    fn titles_name_what_they_are_grouped_by() {
        let group = [("TargetUserName".to_owned(), "eve".to_owned())];
        assert_eq!(fill("Failures of {TargetUserName} {x}", &group), "Failures of eve {x}");
    }

    #[test]
    fn risk_is_severity_criticality_and_techniques() {
        let mut alert = open(Uuid::nil(), &identity(), None, (0, 0));
        alert.severity_id = 4;
        assert_eq!(risk_score(&alert, None), 65);
        assert_eq!((risk_score(&alert, Some(5)), risk_score(&alert, Some(1))), (75, 55));
        alert.techniques = (0..20).map(|n| format!("T{n}")).collect();
        assert_eq!(risk_score(&alert, None), 75);
        alert.severity_id = 6;
        assert_eq!(risk_score(&alert, Some(5)), 100);
    }

    #[test]
    fn an_alert_of_a_rules_own_events_is_as_severe_as_the_worst_of_them() {
        let mut alert = open(Uuid::nil(), &identity(), None, (0, 0));
        for (severity_id, host) in [(4, "a"), (5, "b"), (4, "a")] {
            let host_name = Some(host.to_owned());
            let signature = format!("seen on {host}");
            take(&mut alert, &StoredThreatEvent { severity_id, host_name, signature, ..no_event() });
        }
        assert_eq!((alert.severity_id, alert.title.as_str()), (5, "seen on a"));
        assert_eq!(alert.entities.hosts.len(), 2);
    }

    #[test]
    fn a_suppression_names_rule_and_values_or_leaves_them_open() {
        let mut alert = open(Uuid::nil(), &identity(), None, (0, 0));
        alert.entities.users.insert("EXAMPLE\\Backup".to_owned());
        let tenant = TenantId(Uuid::from_u128(1));
        let by = |rule: Option<&str>, fields: &[(&str, &str)]| {
            let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let rule_id = rule.map(str::to_owned);
            is_suppressed(&alert, &Suppression { id: Uuid::nil(), tenant, rule_id, fields: fields.collect() })
        };
        assert!(by(None, &[]) && by(Some("r"), &[("host", "WS1"), ("user_name", "example\\backup")]));
        assert!(!by(Some("s"), &[]) && !by(None, &[("host", "ws2")]) && !by(None, &[("gone", "")]));
    }

    fn no_event() -> StoredThreatEvent {
        StoredThreatEvent::of(TenantId(Uuid::from_u128(1)), Uuid::nil())
    }
}
