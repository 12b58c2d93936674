//! A row of `threat_events` to what correlation looks at.
//!
//! The one place that knows where a field lies: the road reads rows from the table, `inosec rules` takes
//! them from a batch, and both correlate alike.

use std::net::IpAddr;

use inosec_schemas::{Column, Rows, TenantId};
use serde_json::Value as Json;
use uuid::Uuid;

use super::event::ThreatEvent;
use super::resolve::Correlations;

/// The columns of a threat event that correlation needs. Times are microseconds since 1970, UTC.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// `tenant_id`.
    pub tenant: TenantId,
    /// `id`.
    pub id: Uuid,
    /// `rule_id`.
    pub rule_id: Option<&'a str>,
    /// `signature`.
    pub signature: &'a str,
    /// `detected_at`.
    pub detected_at: i64,
    /// `ingested_at`.
    pub ingested_at: i64,
    /// `severity_id`.
    pub severity_id: i16,
    /// `host_name`.
    pub host_name: Option<&'a str>,
    /// `user_name`.
    pub user_name: Option<&'a str>,
    /// `src_ip`.
    pub src_ip: Option<IpAddr>,
    /// `dst_ip`.
    pub dst_ip: Option<IpAddr>,
    /// `payload`, whose member `fields` holds what the match keeps.
    pub payload: Option<&'a str>,
}

/// What correlation takes from a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    tenant: TenantId,
    id: Uuid,
    rule: String,
    time: i64,
    arrival: i64,
    severity: i16,
    host: Option<String>,
    fields: Vec<(String, String)>,
}

impl Stored {
    /// Takes from a row what these rules look at. A field is what the match kept by that name, else the
    /// column of that name (`host_name`, `user_name`, `src_ip`, `dst_ip`, `signature`). Of several values
    /// the first that says something counts, numbers and truth values as they are written.
    #[must_use]
    pub fn new(row: &Row<'_>, rules: &Correlations) -> Self {
        let rule = row.rule_id.filter(|id| !id.is_empty()).unwrap_or(row.signature);
        let wanted = rules.fields_for(rule);
        let payload = row.payload.filter(|_| !wanted.is_empty());
        let payload: Option<Json> = payload.and_then(|text| serde_json::from_str(text).ok());
        let kept = payload.as_ref().and_then(|payload| payload.get("fields"));
        let field = |name: &str| {
            let value = kept.and_then(|kept| text(kept.get(name)?)).or_else(|| row.column(name))?;
            Some((name.to_owned(), value))
        };
        Self {
            tenant: row.tenant,
            id: row.id,
            rule: rule.to_owned(),
            time: row.detected_at,
            arrival: row.ingested_at,
            severity: row.severity_id,
            host: row.host_name.map(str::to_owned),
            fields: wanted.into_iter().filter_map(field).collect(),
        }
    }

    /// As the correlator takes it.
    #[must_use]
    pub fn event(&self) -> ThreatEvent<'_> {
        ThreatEvent {
            tenant: self.tenant,
            id: self.id,
            rule: &self.rule,
            time: self.time,
            arrival: self.arrival,
            severity: self.severity,
            host: self.host.as_deref(),
            fields: self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        }
    }
}

impl<'a> Row<'a> {
    /// A row of a batch of `threat_events`.
    #[must_use]
    pub fn of(rows: &'a Rows, row: usize) -> Self {
        let column = |name: &str| rows.stream.column(name).map(|position| &rows.columns[position]);
        let uuid = |name| match column(name) {
            Some(Column::Uuid(values)) => values[row],
            _ => None,
        };
        let time = |name| match column(name) {
            Some(Column::Timestamp(values)) => values[row],
            _ => None,
        };
        let address = |name| match column(name) {
            Some(Column::Inet(values)) => values[row],
            _ => None,
        };
        let text = |name| match column(name) {
            Some(Column::Text(values) | Column::Json(values)) => {
                values[row].and_then(|slice| std::str::from_utf8(rows.slice(slice)).ok())
            }
            _ => None,
        };
        let severity = rows.stream.column("severity_id").and_then(|position| rows.integer(position, row));
        Self {
            tenant: rows.tenant(row),
            id: uuid("id").unwrap_or_default(),
            rule_id: text("rule_id"),
            signature: text("signature").unwrap_or_default(),
            detected_at: time("detected_at").unwrap_or_else(|| rows.ts(row)),
            ingested_at: time("ingested_at").unwrap_or_else(|| rows.ts(row)),
            severity_id: severity.and_then(|severity| i16::try_from(severity).ok()).unwrap_or_default(),
            host_name: text("host_name"),
            user_name: text("user_name"),
            src_ip: address("src_ip"),
            dst_ip: address("dst_ip"),
            payload: text("payload"),
        }
    }

    fn column(&self, name: &str) -> Option<String> {
        match name {
            "host_name" => self.host_name.map(str::to_owned),
            "user_name" => self.user_name.map(str::to_owned),
            "src_ip" => self.src_ip.map(|address| address.to_string()),
            "dst_ip" => self.dst_ip.map(|address| address.to_string()),
            "signature" => Some(self.signature.to_owned()),
            _ => None,
        }
    }
}

/// What a value of the payload says, if it says anything.
fn text(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => (!text.is_empty()).then(|| text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(truth) => Some(truth.to_string()),
        Json::Array(values) => values.iter().find_map(text),
        Json::Null | Json::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sigma::{Placeholders, parse};

    const RULES: &str = "
title: A
id: a
logsource: {product: windows}
detection: {s: {F: a}, condition: s}
---
title: C
id: c
correlation:
  type: value_count
  rules: [a]
  group-by: [user_name, src_ip, Kind, Many]
  timespan: 1h
  condition: {field: Port, gte: 2}
";

    fn row<'a>() -> Row<'a> {
        Row {
            tenant: TenantId(Uuid::from_u128(1)),
            id: Uuid::from_u128(2),
            rule_id: Some("a"),
            signature: "A",
            detected_at: 3,
            ingested_at: 4,
            severity_id: 1,
            host_name: Some("ws-7"),
            user_name: Some("eve"),
            src_ip: Some(IpAddr::from([10, 0, 0, 7])),
            dst_ip: None,
            payload: Some(
                r#"{"level":"low","fields":{"user_name":"kept","Kind":true,"Port":443,"Many":[null,"","x","y"]}}"#,
            ),
        }
    }

    fn rules() -> Correlations {
        let parsed = parse("rules.yml", RULES, &Placeholders::default());
        let (rules, problems) = Correlations::new(&parsed.correlations, &parsed.rules);
        assert!(parsed.problems.is_empty() && problems.is_empty(), "{problems:?}");
        rules
    }

    #[test]
    fn what_the_match_kept_comes_before_the_column_of_that_name() {
        let stored = Stored::new(&row(), &rules());
        let event = stored.event();
        let expected =
            [("Kind", "true"), ("Many", "x"), ("Port", "443"), ("src_ip", "10.0.0.7"), ("user_name", "kept")];
        assert_eq!(event.fields, expected);
        assert_eq!((event.rule, event.time, event.arrival, event.host), ("a", 3, 4, Some("ws-7")));
    }

    #[test]
    fn an_event_no_correlation_asks_for_is_of_its_rule_or_signature_alone() {
        let stored = Stored::new(&Row { rule_id: Some(""), payload: Some("no JSON"), ..row() }, &rules());
        assert_eq!((stored.event().rule, stored.event().fields.len()), ("A", 0));
    }
}
