//! Threat events as correlation reads them.

use inosec_schemas::{StoredThreatEvent, TenantId};
use serde_json::Value;
use tokio_postgres::Row;

use crate::micros::Micros;

/// What [`read`] reads, of `inosec.threat_events AS e`. The fields a rule keeps lie in the payload.
pub(super) const COLUMNS: &str = "e.tenant_id, e.id, coalesce(e.rule_id, ''), e.rule_author, e.signature,
    e.severity_id, e.detected_at, e.ingested_at, e.ts, coalesce(e.techniques, '{}'), e.host_name, e.user_name,
    host(e.src_ip), host(e.dst_ip), (e.payload->'fields')::text";

/// Notices about suppressed matches are no matches.
pub(super) const NO_NOTICE: &str = "(e.source <> 'inosec' OR e.payload IS NULL OR NOT e.payload ? 'notice')";

pub(super) fn read(row: &Row) -> StoredThreatEvent {
    let micros = |place: usize| row.get::<_, Micros>(place).0;
    StoredThreatEvent {
        tenant: TenantId(row.get(0)),
        id: row.get(1),
        rule_id: row.get(2),
        rule_author: row.get(3),
        signature: row.get(4),
        severity_id: row.get(5),
        detected_at: micros(6),
        ingested_at: micros(7),
        ts: micros(8),
        techniques: row.get(9),
        host_name: row.get(10),
        user_name: row.get(11),
        src_ip: row.get(12),
        dst_ip: row.get(13),
        fields: fields(row.get(14)),
    }
}

/// Of several values the first, as the rule's own comparison would meet it.
fn fields(text: Option<&str>) -> Vec<(String, String)> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_values_the_first_counts() {
        let read = fields(Some(r#"{"a":["x","y"],"b":"z","c":null,"d":[null,7],"e":{}}"#));
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read, [named("a", "x"), named("b", "z"), named("d", "7")]);
        assert_eq!(fields(Some("[]")), []);
        assert_eq!(fields(None), []);
    }
}
