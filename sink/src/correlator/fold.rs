//! One transaction of the correlator: the queue rows it takes, and the threat events they name.

use hashbrown::HashSet;
use inosec_schemas::{StoredThreatEvent, TenantId};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use super::leader::Leader;
use super::row::{COLUMNS, NO_NOTICE, read};
use crate::micros::Micros;
use crate::{Error, fault};

/// Queue rows taken at once, at most.
const ROWS: i64 = 2_000;

/// A transaction under way. Dropping it undoes it.
pub struct Fold<'a> {
    pub(super) transaction: Transaction<'a>,
    /// The threat events that were queued.
    pub events: Vec<StoredThreatEvent>,
    /// Whether more may be queued, so that the clock must not move yet.
    pub more: bool,
}

impl std::fmt::Debug for Fold<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fold").field("more", &self.more).finish_non_exhaustive()
    }
}

impl Leader {
    /// Takes queued rows, of about `most` threat events, in a transaction that only the leader can commit.
    pub async fn begin(&mut self, most: i64) -> Result<Fold<'_>, Error> {
        let doing = "taking what is queued";
        let epoch = self.epoch;
        let transaction = self.client.transaction().await.map_err(Error::at(doing))?;
        let held = transaction.query_one("SELECT epoch FROM inosec.correlator FOR UPDATE", &[]).await;
        let held: i64 = held.map_err(Error::at("holding the correlator's epoch"))?.get(0);
        if held != epoch {
            return Err(Error::Invalid(format!("another correlator leads: epoch {held}, not {epoch}")));
        }
        let take = "DELETE FROM inosec.correlation_queue WHERE id IN (
                SELECT id FROM (
                    SELECT id, sum(events) OVER (ORDER BY id) - events AS before
                    FROM (SELECT id, events FROM inosec.correlation_queue ORDER BY id LIMIT $2) AS first
                ) AS counted WHERE before < $1
            ) RETURNING events, first_ts, last_ts, tenants, ids";
        let taken = transaction.query(take, &[&most, &ROWS]).await.map_err(Error::at(doing))?;
        let count: i64 = taken.iter().map(|row| i64::from(row.get::<_, i32>(0))).sum();
        let more = count >= most || taken.len() as i64 >= ROWS;
        let mut fold = Fold { transaction, events: Vec::new(), more };
        fold.events = fold.queued(&taken).await?;
        fault::point("correlator-taken").await;
        Ok(fold)
    }
}

impl Fold<'_> {
    async fn queued(&self, taken: &[Row]) -> Result<Vec<StoredThreatEvent>, Error> {
        let first = taken.iter().map(|row| row.get::<_, Micros>(1).0).min();
        let last = taken.iter().map(|row| row.get::<_, Micros>(2).0).max();
        let (Some(first), Some(last)) = (first, last) else { return Ok(Vec::new()) };
        let (mut tenants, mut ids) = (Vec::new(), Vec::new());
        for row in taken {
            tenants.extend(row.get::<_, Vec<Uuid>>(3));
            ids.extend(row.get::<_, Vec<Uuid>>(4));
        }
        self.find(&tenants, &ids, Some((first, last))).await
    }

    /// Threat events by tenant and id. They are looked for between these times first, which is where they
    /// are unless their own time was not believed.
    pub async fn members(
        &self,
        wanted: &[(TenantId, Uuid)],
        (first, last): (i64, i64),
    ) -> Result<Vec<StoredThreatEvent>, Error> {
        let (tenants, ids): (Vec<Uuid>, Vec<Uuid>) =
            wanted.iter().map(|(tenant, id)| (tenant.0, *id)).unzip();
        let mut found = self.find(&tenants, &ids, Some((first, last))).await?;
        if found.len() < wanted.len() {
            let known: HashSet<(TenantId, Uuid)> =
                found.iter().map(|event| (event.tenant, event.id)).collect();
            let missing = wanted.iter().filter(|key| !known.contains(*key));
            let (tenants, ids): (Vec<Uuid>, Vec<Uuid>) = missing.map(|(tenant, id)| (tenant.0, *id)).unzip();
            found.extend(self.find(&tenants, &ids, None).await?);
        }
        Ok(found)
    }

    async fn find(
        &self,
        tenants: &[Uuid],
        ids: &[Uuid],
        within: Option<(i64, i64)>,
    ) -> Result<Vec<StoredThreatEvent>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let (bounds, times) = match within {
            Some((first, last)) => ("AND e.ts BETWEEN $3 AND $4", vec![Micros(first), Micros(last)]),
            None => ("", Vec::new()),
        };
        let sql = format!(
            "SELECT {COLUMNS} FROM unnest($1::uuid[], $2::uuid[]) AS q (tenant_id, id)
            JOIN inosec.threat_events AS e ON (e.tenant_id, e.id) = (q.tenant_id, q.id)
            WHERE {NO_NOTICE} {bounds}"
        );
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&tenants, &ids];
        parameters.extend(times.iter().map(|time| time as &(dyn ToSql + Sync)));
        let rows = self.transaction.query(&sql, &parameters).await;
        Ok(rows.map_err(Error::at("reading threat events"))?.iter().map(read).collect())
    }
}
