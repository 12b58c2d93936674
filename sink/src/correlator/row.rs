//! Threat events as correlation reads them.

use inosec_schemas::{StoredThreatEvent, TenantId};
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
        fields: StoredThreatEvent::read_fields(row.get(14)),
    }
}
