//! What travels between correlation and the tables of alerts.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::TenantId;

/// A threat event as stored, as far as alerts and correlation look at it. Times are microseconds UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredThreatEvent {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its id.
    pub id: Uuid,
    /// The rule that found it, or its sender's; else empty.
    pub rule_id: String,
    /// Who wrote the rule.
    pub rule_author: Option<String>,
    /// What was detected.
    pub signature: String,
    /// OCSF.
    pub severity_id: i16,
    /// When it says it happened.
    pub detected_at: i64,
    /// When Kafka took it.
    pub ingested_at: i64,
    /// What it is stored under.
    pub ts: i64,
    /// ATT&CK.
    pub techniques: Vec<String>,
    /// Where.
    pub host_name: Option<String>,
    /// Who.
    pub user_name: Option<String>,
    /// From.
    pub src_ip: Option<String>,
    /// To.
    pub dst_ip: Option<String>,
    /// The fields that its rule keeps, of several values the first.
    pub fields: Vec<(String, String)>,
}

impl StoredThreatEvent {
    /// One that says nothing yet.
    #[must_use]
    pub fn of(tenant: TenantId, id: Uuid) -> Self {
        Self {
            tenant,
            id,
            rule_id: String::new(),
            rule_author: None,
            signature: String::new(),
            severity_id: 0,
            detected_at: 0,
            ingested_at: 0,
            ts: 0,
            techniques: Vec::new(),
            host_name: None,
            user_name: None,
            src_ip: None,
            dst_ip: None,
            fields: Vec::new(),
        }
    }

    /// Where it is stored.
    #[must_use]
    pub fn key(&self) -> MemberKey {
        MemberKey { tenant: self.tenant, id: self.id, ts: self.ts }
    }

    /// Reads [`fields`](Self::fields): the member `fields` of a payload, as JSON.
    #[must_use]
    pub fn read_fields(text: Option<&str>) -> Vec<(String, String)> {
        let Some(Ok(Value::Object(fields))) = text.map(serde_json::from_str) else { return Vec::new() };
        let value = |value| match value {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            _ => None,
        };
        let first = |of| match of {
            Value::Array(values) => values.into_iter().find_map(value),
            other => value(other),
        };
        fields.into_iter().filter_map(|(name, of)| Some((name, first(of)?))).collect()
    }

    /// What correlation calls its rule: the rule's id, else the signature.
    #[must_use]
    pub fn rule(&self) -> &str {
        if self.rule_id.is_empty() { &self.signature } else { &self.rule_id }
    }
}

/// An alert without what only its table knows: analysts' columns, the number of its events, its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant_id: Uuid,
    /// What an analyst reads first.
    pub title: String,
    /// The correlation, or the rule or signature whose events it groups.
    pub rule_id: String,
    /// The correlation's revision.
    pub rule_revision: Option<String>,
    /// Who wrote the rule.
    pub rule_author: Option<String>,
    /// Whether a correlation found it.
    pub correlation: bool,
    /// Stands for tenant, rule, revision and group.
    pub group_id: Uuid,
    /// The group: names and values.
    pub grouped_by: BTreeMap<String, String>,
    /// OCSF.
    pub severity_id: i16,
    /// 0 to 100.
    pub risk_score: i16,
    /// ATT&CK.
    pub techniques: BTreeSet<String>,
    /// Who and what is concerned.
    pub entities: Entities,
    /// The time of its first event.
    pub first_seen: i64,
    /// The time of its last event.
    pub last_seen: i64,
}

/// Who and what an alert concerns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entities {
    /// Endpoints.
    pub hosts: BTreeSet<String>,
    /// Accounts.
    pub users: BTreeSet<String>,
    /// Addresses.
    pub addresses: BTreeSet<String>,
}

/// What happened to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertChange {
    /// It lost events, because a correlation it builds on changed.
    Shrunk,
    /// It has more events.
    Grown,
    /// It took in others.
    Absorbed,
    /// It is new.
    Opened,
}

impl AlertChange {
    /// As `alert_changes.kind` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shrunk => "shrunk",
            Self::Grown => "grown",
            Self::Absorbed => "absorbed",
            Self::Opened => "opened",
        }
    }
}

/// What a transaction of the correlator writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertWrites {
    /// Alerts as they are now, by tenant and id, what happened to them, and the suppression they are under.
    pub alerts: Vec<(Alert, AlertChange, Option<Uuid>)>,
    /// Memberships, which may exist: alert and threat event.
    pub added: Vec<(Uuid, MemberKey)>,
    /// Memberships that are no more.
    pub removed: Vec<(Uuid, Uuid)>,
    /// Alerts that another goes on with, and that other.
    pub merged: Vec<(Uuid, Uuid)>,
    /// Alerts whose reason is no more.
    pub withdrawn: Vec<Uuid>,
    /// Alerts that won't change any more.
    pub settled: Vec<Uuid>,
    /// Threat events that belong to an alert of their own, and that.
    pub own: Vec<(Uuid, MemberKey)>,
}

/// Where a threat event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemberKey {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its id.
    pub id: Uuid,
    /// What it is stored under, microseconds UTC.
    pub ts: i64,
}

/// What a tenant doesn't want to be bothered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppression {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// The rule, or any.
    pub rule_id: Option<String>,
    /// What the alert must be grouped by or concern.
    pub fields: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_values_the_first_counts() {
        let read = |text| StoredThreatEvent::read_fields(text);
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [named("a", "x"), named("b", "z"), named("d", "7")];
        assert_eq!(read(Some(r#"{"a":["x","y"],"b":"z","c":null,"d":[null,7],"e":{}}"#)), expected);
        assert_eq!(read(Some("[]")), []);
        assert_eq!(read(None), []);
    }
}
