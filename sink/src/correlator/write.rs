//! What a transaction of the correlator writes: alerts, their events, their changes.

use hashbrown::HashMap;
use inosec_schemas::{AlertWrites, MemberKey, Suppression, TenantId};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::fold::Fold;
use crate::micros::Micros;
use crate::{Error, fault};

/// What decides whether an alert is still as we left it: then it may be closed for its analysts.
const UNTOUCHED: &str = "status_id IN (1, 3) AND verdict IS NULL AND assignee IS NULL AND tags = '{}'";

impl Fold<'_> {
    /// How critical hosts are, as far as somebody said.
    pub async fn criticality(
        &self,
        hosts: &[(TenantId, &str)],
    ) -> Result<HashMap<(TenantId, String), i16>, Error> {
        if hosts.is_empty() {
            return Ok(HashMap::new());
        }
        let (tenants, names): (Vec<Uuid>, Vec<&str>) =
            hosts.iter().map(|(tenant, name)| (tenant.0, *name)).unzip();
        let sql = "SELECT h.tenant_id, h.host_name, h.criticality
            FROM unnest($1::uuid[], $2::text[]) AS q (tenant_id, host_name)
            JOIN inosec.host_devices AS h USING (tenant_id, host_name) WHERE h.criticality IS NOT NULL";
        let rows = self.query("asking how critical hosts are", sql, &[&tenants, &names]).await?;
        Ok(rows.iter().map(|row| ((TenantId(row.get(0)), row.get(1)), row.get(2))).collect())
    }

    /// The suppressions of these tenants that are in force.
    pub async fn suppressions(&self, tenants: &[Uuid]) -> Result<Vec<Suppression>, Error> {
        let sql = "SELECT s.id, s.tenant_id, s.rule_id,
                array(SELECT key FROM jsonb_each_text(s.fields) ORDER BY key),
                array(SELECT value FROM jsonb_each_text(s.fields) ORDER BY key)
            FROM inosec.alert_suppressions AS s
            WHERE s.tenant_id = ANY($1) AND (s.until IS NULL OR s.until > now()) ORDER BY s.created_at, s.id";
        let rows = self.query("reading suppressions", sql, &[&tenants]).await?;
        let read = |row: &tokio_postgres::Row| {
            let (names, values): (Vec<String>, Vec<Option<String>>) = (row.get(3), row.get(4));
            let fields = names.into_iter().zip(values.into_iter().map(Option::unwrap_or_default));
            Suppression {
                id: row.get(0),
                tenant: TenantId(row.get(1)),
                rule_id: row.get(2),
                fields: fields.collect(),
            }
        };
        Ok(rows.iter().map(read).collect())
    }

    /// Writes all of it.
    pub async fn write(&self, writes: &AlertWrites) -> Result<(), Error> {
        let counts = self.members_of(writes).await?;
        self.alerts(writes, &counts).await?;
        self.ends(writes).await?;
        self.own(writes).await?;
        self.changes(writes).await
    }

    /// Marks threat events that arrived before the horizon.
    pub async fn mark_late(&self, late: &[MemberKey]) -> Result<(), Error> {
        let with = vec![true; late.len()];
        let keys = late.iter().copied();
        self.mark("marking late threat events", "late = m.mark", "boolean", &with, keys).await
    }

    /// Counts what was forgotten of a tenant beyond its limits, and tells it once an hour.
    pub async fn count_evicted(&self, tenant: TenantId, groups: u64, entries: u64) -> Result<(), Error> {
        let sql = "SELECT inosec.count_evicted($1, $2, $3)";
        let (groups, entries) = (groups.cast_signed(), entries.cast_signed());
        self.execute("counting what was forgotten", sql, &[&tenant.0, &groups, &entries]).await
    }

    /// Notes how far correlation has come.
    pub async fn set_clock(&self, clock: i64) -> Result<(), Error> {
        let sql = "UPDATE inosec.correlator SET clock = greatest(clock, $1)";
        self.execute("noting the correlator's clock", sql, &[&Micros(clock)]).await
    }

    /// Ends the transaction.
    pub async fn commit(self) -> Result<(), Error> {
        fault::point("correlator-before-commit").await;
        self.transaction.commit().await.map_err(Error::at("committing alerts"))?;
        fault::point("correlator-after-commit").await;
        Ok(())
    }

    /// Writes memberships; returns how many more each alert has.
    async fn members_of(&self, writes: &AlertWrites) -> Result<HashMap<Uuid, i64>, Error> {
        let doing = "writing the events of alerts";
        let mut counts: HashMap<Uuid, i64> = HashMap::new();
        if !writes.removed.is_empty() {
            let (alerts, events): (Vec<Uuid>, Vec<Uuid>) = writes.removed.iter().copied().unzip();
            let sql = "WITH gone AS (
                    DELETE FROM inosec.alert_events AS m
                    USING unnest($1::uuid[], $2::uuid[]) AS r (alert_id, threat_event_id)
                    WHERE (m.alert_id, m.threat_event_id) = (r.alert_id, r.threat_event_id)
                    RETURNING m.alert_id
                ) SELECT alert_id, -count(*) FROM gone GROUP BY alert_id";
            add(&mut counts, &self.query(doing, sql, &[&alerts, &events]).await?);
        }
        if !writes.merged.is_empty() {
            let (gone, into): (Vec<Uuid>, Vec<Uuid>) = writes.merged.iter().copied().unzip();
            let sql = "WITH added AS (
                    INSERT INTO inosec.alert_events (alert_id, threat_event_id, tenant_id, ts)
                    SELECT DISTINCT r.into_id, m.threat_event_id, m.tenant_id, m.ts
                    FROM unnest($1::uuid[], $2::uuid[]) AS r (alert_id, into_id)
                    JOIN inosec.alert_events AS m USING (alert_id)
                    ON CONFLICT DO NOTHING RETURNING alert_id
                ) SELECT alert_id, count(*) FROM added GROUP BY alert_id";
            add(&mut counts, &self.query(doing, sql, &[&gone, &into]).await?);
        }
        if !writes.added.is_empty() {
            let alerts: Vec<Uuid> = writes.added.iter().map(|(alert, _)| *alert).collect();
            let events: Vec<Uuid> = writes.added.iter().map(|(_, key)| key.id).collect();
            let tenants: Vec<Uuid> = writes.added.iter().map(|(_, key)| key.tenant.0).collect();
            let times: Vec<Micros> = writes.added.iter().map(|(_, key)| Micros(key.ts)).collect();
            let sql = "WITH added AS (
                    INSERT INTO inosec.alert_events (alert_id, threat_event_id, tenant_id, ts)
                    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[])
                    ON CONFLICT DO NOTHING RETURNING alert_id
                ) SELECT alert_id, count(*) FROM added GROUP BY alert_id";
            add(&mut counts, &self.query(doing, sql, &[&alerts, &events, &tenants, &times]).await?);
        }
        Ok(counts)
    }

    async fn alerts(&self, writes: &AlertWrites, counts: &HashMap<Uuid, i64>) -> Result<(), Error> {
        if writes.alerts.is_empty() {
            return Ok(());
        }
        let alerts: Vec<_> = writes.alerts.iter().map(|(alert, ..)| alert).collect();
        let document = serde_json::to_string(&alerts)
            .map_err(|error| Error::Invalid(format!("an alert can't be written as JSON: {error}")))?;
        let first: Vec<Micros> = alerts.iter().map(|alert| Micros(alert.first_seen)).collect();
        let last: Vec<Micros> = alerts.iter().map(|alert| Micros(alert.last_seen)).collect();
        let suppressions: Vec<Option<Uuid>> = writes.alerts.iter().map(|(.., by)| *by).collect();
        let counts: Vec<i64> =
            alerts.iter().map(|alert| counts.get(&alert.id).copied().unwrap_or(0)).collect();
        let parameters: [&(dyn ToSql + Sync); 5] = [&document, &first, &last, &suppressions, &counts];
        self.execute("writing alerts", UPSERT, &parameters).await
    }

    /// Alerts that another goes on with, whose reason is no more, or that won't change any more.
    async fn ends(&self, writes: &AlertWrites) -> Result<(), Error> {
        let doing = "ending alerts";
        let (gone, into): (Vec<Uuid>, Vec<Uuid>) = writes.merged.iter().copied().unzip();
        let close = format!(
            "status_id = CASE WHEN {UNTOUCHED} THEN 5 ELSE status_id END, version = version + 1, updated_at = now()"
        );
        if !gone.is_empty() {
            let sql = format!(
                "UPDATE inosec.alerts AS a SET episode = 'merged', merged_into = r.into_id, {close}
                FROM unnest($1::uuid[], $2::uuid[]) AS r (alert_id, into_id) WHERE a.id = r.alert_id"
            );
            self.execute(doing, &sql, &[&gone, &into]).await?;
        }
        if !writes.withdrawn.is_empty() {
            let sql = format!("UPDATE inosec.alerts SET episode = 'withdrawn', {close} WHERE id = ANY($1)");
            self.execute(doing, &sql, &[&writes.withdrawn]).await?;
        }
        if !writes.settled.is_empty() {
            let sql = "UPDATE inosec.alerts SET episode = 'settled' WHERE id = ANY($1) AND episode = 'live'";
            self.execute(doing, sql, &[&writes.settled]).await?;
        }
        Ok(())
    }

    /// Tells threat events which alert of their own they belong to.
    async fn own(&self, writes: &AlertWrites) -> Result<(), Error> {
        let doing = "telling threat events their alert";
        let alerts: Vec<Uuid> = writes.own.iter().map(|(alert, _)| *alert).collect();
        let keys = writes.own.iter().map(|(_, key)| *key);
        self.mark(doing, "alert_id = m.mark", "uuid", &alerts, keys).await?;
        if writes.merged.is_empty() {
            return Ok(());
        }
        let (gone, into): (Vec<Uuid>, Vec<Uuid>) = writes.merged.iter().copied().unzip();
        let sql = "UPDATE inosec.threat_events AS e SET alert_id = r.into_id
            FROM unnest($1::uuid[], $2::uuid[]) AS r (alert_id, into_id)
            JOIN inosec.alerts AS a ON a.id = r.alert_id AND NOT a.correlation
            JOIN inosec.alert_events AS m ON m.alert_id = a.id
            WHERE (e.tenant_id, e.id, e.ts) = (m.tenant_id, m.threat_event_id, m.ts)";
        self.execute(doing, sql, &[&gone, &into]).await
    }

    /// Sets a column of threat events, each to its own mark.
    async fn mark<T: ToSql + Sync>(
        &self,
        doing: &'static str,
        set: &str,
        kind: &str,
        marks: &[T],
        keys: impl Iterator<Item = MemberKey>,
    ) -> Result<(), Error> {
        let (mut tenants, mut ids, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for key in keys {
            tenants.push(key.tenant.0);
            ids.push(key.id);
            times.push(Micros(key.ts));
        }
        // The bounds tell the planner which partitions there can be.
        let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else { return Ok(()) };
        let sql = format!(
            "UPDATE inosec.threat_events AS e SET {set}
            FROM unnest($1::{kind}[], $2::uuid[], $3::uuid[], $4::timestamptz[]) AS m (mark, tenant_id, id, ts)
            WHERE (e.tenant_id, e.id, e.ts) = (m.tenant_id, m.id, m.ts) AND e.ts BETWEEN $5 AND $6"
        );
        self.execute(doing, &sql, &[&marks, &tenants, &ids, &times, first, last]).await
    }

    /// Records what happened, in an order that all writers share.
    async fn changes(&self, writes: &AlertWrites) -> Result<(), Error> {
        let of_alerts = writes.alerts.iter().map(|(alert, change, _)| (alert.id, change.name()));
        let merged = writes.merged.iter().map(|(alert, _)| (*alert, "merged"));
        let withdrawn = writes.withdrawn.iter().map(|alert| (*alert, "withdrawn"));
        let (ids, kinds): (Vec<Uuid>, Vec<&str>) = of_alerts.chain(merged).chain(withdrawn).unzip();
        if ids.is_empty() {
            return Ok(());
        }
        let sql = "SELECT inosec.record_alert_changes($1, $2)";
        self.execute("recording changes of alerts", sql, &[&ids, &kinds]).await
    }

    async fn query(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, Error> {
        self.transaction.query(sql, parameters).await.map_err(Error::at(doing))
    }

    async fn execute(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<(), Error> {
        self.transaction.execute(sql, parameters).await.map(drop).map_err(Error::at(doing))
    }
}

/// New alerts, and those that changed: what analysts say of them stays.
const UPSERT: &str = "
    INSERT INTO inosec.alerts AS known (id, tenant_id, title, rule_id, rule_revision, rule_author, correlation,
        group_id, grouped_by, severity_id, risk_score, techniques, entities, first_seen, last_seen,
        suppression_id, event_count, status_id, follows)
    SELECT a.id, a.tenant_id, a.title, a.rule_id, a.rule_revision, a.rule_author, a.correlation, a.group_id,
        a.grouped_by, a.severity_id, a.risk_score, a.techniques, a.entities, a.first_seen, a.last_seen,
        a.suppression_id, a.event_count, CASE WHEN a.suppression_id IS NULL THEN 1 ELSE 3 END,
        (SELECT id FROM inosec.alerts AS other WHERE other.group_id = a.group_id AND other.id <> a.id
            ORDER BY created_at DESC LIMIT 1)
    FROM ROWS FROM (
        jsonb_to_recordset($1::text::jsonb) AS (id uuid, tenant_id uuid, title text, rule_id text,
            rule_revision text, rule_author text, correlation boolean, group_id uuid, grouped_by jsonb,
            severity_id smallint, risk_score smallint, techniques text[], entities jsonb),
        unnest($2::timestamptz[], $3::timestamptz[], $4::uuid[], $5::bigint[])
    ) AS a (id, tenant_id, title, rule_id, rule_revision, rule_author, correlation, group_id, grouped_by,
        severity_id, risk_score, techniques, entities, first_seen, last_seen, suppression_id, event_count)
    ON CONFLICT (id) DO UPDATE SET
        severity_id = excluded.severity_id,
        risk_score = excluded.risk_score,
        techniques = excluded.techniques,
        entities = excluded.entities,
        first_seen = excluded.first_seen,
        last_seen = excluded.last_seen,
        event_count = known.event_count + excluded.event_count,
        suppression_id = coalesce(known.suppression_id, excluded.suppression_id),
        status_id = CASE WHEN known.status_id = 1 THEN excluded.status_id ELSE known.status_id END,
        version = known.version + 1,
        updated_at = now()";

/// Adds counts by alert.
fn add(counts: &mut HashMap<Uuid, i64>, rows: &[tokio_postgres::Row]) {
    for row in rows {
        *counts.entry(row.get(0)).or_default() += row.get::<_, i64>(1);
    }
}
