//! What a new leader reads: the threat events that still count, and the alerts that are still live.

use std::pin::pin;

use futures_util::TryStreamExt;
use hashbrown::HashMap;
use inosec_schemas::{Alert, Entities, StoredThreatEvent};
use tokio_postgres::types::ToSql;
use tokio_postgres::{IsolationLevel, Row, Transaction};
use uuid::Uuid;

use super::leader::Leader;
use super::row::{COLUMNS, NO_NOTICE, read};
use crate::Error;
use crate::micros::Micros;

/// Threat events handed on at a time.
const CHUNK: usize = 10_000;

/// Which threat events can matter.
#[derive(Debug, Clone)]
pub struct Relevant {
    /// Those that arrived since, in microseconds UTC,
    pub since: i64,
    /// which are stored at most so long before their arrival,
    pub max_age: i64,
    /// if they are of this severity or more
    pub severity_id: i16,
    /// or of these rules.
    pub rules: Vec<String>,
}

impl Leader {
    /// Hands on, in chunks, the relevant threat events that are no longer queued; returns the live alerts
    /// and the ids of their events.
    pub async fn rebuild(
        &mut self,
        relevant: &Relevant,
        mut each: impl FnMut(Vec<StoredThreatEvent>),
    ) -> Result<Vec<(Alert, Vec<Uuid>)>, Error> {
        let doing = "reading what counts";
        let start =
            self.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let transaction = start.start().await.map_err(Error::at(doing))?;
        // Each comparison leaves partitions out: what arrived since is stored no earlier than this.
        let sql = format!(
            "WITH queued AS MATERIALIZED (
                SELECT q.tenant_id, q.id FROM inosec.correlation_queue, unnest(tenants, ids) AS q (tenant_id, id)
            )
            SELECT {COLUMNS} FROM inosec.threat_events AS e
            WHERE e.ts >= $2 AND e.ingested_at >= $1
                AND (e.severity_id >= $3 OR e.rule_id = ANY($4)) AND {NO_NOTICE}
                AND NOT EXISTS (SELECT FROM queued AS q WHERE (q.tenant_id, q.id) = (e.tenant_id, e.id))"
        );
        let since = Micros(relevant.since);
        let stored = Micros(relevant.since.saturating_sub(relevant.max_age));
        let parameters: [&(dyn ToSql + Sync); 4] = [&since, &stored, &relevant.severity_id, &relevant.rules];
        let rows = transaction.query_raw(&sql, parameters).await.map_err(Error::at(doing))?;
        let mut rows = pin!(rows);
        let mut chunk = Vec::new();
        while let Some(row) = rows.try_next().await.map_err(Error::at(doing))? {
            chunk.push(read(&row));
            if chunk.len() == CHUNK {
                each(std::mem::take(&mut chunk));
            }
        }
        each(chunk);
        let alerts = live(&transaction).await?;
        transaction.commit().await.map_err(Error::at(doing))?;
        Ok(alerts)
    }
}

async fn live(transaction: &Transaction<'_>) -> Result<Vec<(Alert, Vec<Uuid>)>, Error> {
    let doing = "reading live alerts";
    let sql = "SELECT id, tenant_id, title, rule_id, rule_revision, rule_author, correlation, group_id,
            array(SELECT key FROM jsonb_each_text(grouped_by) ORDER BY key),
            array(SELECT value FROM jsonb_each_text(grouped_by) ORDER BY key),
            severity_id, risk_score, techniques, entities::text, first_seen, last_seen
        FROM inosec.alerts WHERE episode = 'live'";
    let alerts = transaction.query(sql, &[]).await.map_err(Error::at(doing))?;
    let sql = "SELECT m.alert_id, m.threat_event_id FROM inosec.alerts AS a
        JOIN inosec.alert_events AS m ON m.alert_id = a.id WHERE a.episode = 'live'";
    let mut members: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
    for row in transaction.query(sql, &[]).await.map_err(Error::at(doing))? {
        members.entry(row.get(0)).or_default().push(row.get(1));
    }
    let with_members = |row: &Row| {
        let alert = alert(row);
        let of = members.remove(&alert.id).unwrap_or_default();
        (alert, of)
    };
    Ok(alerts.iter().map(with_members).collect())
}

fn alert(row: &Row) -> Alert {
    let (names, values): (Vec<String>, Vec<String>) = (row.get(8), row.get(9));
    Alert {
        id: row.get(0),
        tenant_id: row.get(1),
        title: row.get(2),
        rule_id: row.get(3),
        rule_revision: row.get(4),
        rule_author: row.get(5),
        correlation: row.get(6),
        group_id: row.get(7),
        grouped_by: names.into_iter().zip(values).collect(),
        severity_id: row.get(10),
        risk_score: row.get(11),
        techniques: row.get::<_, Vec<String>>(12).into_iter().collect(),
        entities: serde_json::from_str::<Entities>(row.get(13)).unwrap_or_default(),
        first_seen: row.get::<_, Micros>(14).0,
        last_seen: row.get::<_, Micros>(15).0,
    }
}
