//! Matches beyond a rule's limit: counted in the transaction of their events, told of once a minute.

use deadpool_postgres::Transaction;
use inosec_schemas::{Interval, Suppressed};
use uuid::Uuid;

use crate::Error;
use crate::micros::Micros;
use crate::order::interval_start;

/// A threat event that tells of suppressed matches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notice {
    pub tenant: Uuid,
    pub id: Uuid,
    pub ts: i64,
}

/// Adds to the counts, in key order; returns the notices that this stored.
pub(crate) async fn count(
    transaction: &Transaction<'_>,
    suppressed: &[Suppressed],
    shard: i32,
) -> Result<Vec<Notice>, Error> {
    if suppressed.is_empty() {
        return Ok(Vec::new());
    }
    let minutes: Vec<Micros> = suppressed.iter().map(|of| Micros(of.minute)).collect();
    let tenants: Vec<Uuid> = suppressed.iter().map(|of| of.tenant.0).collect();
    let rules: Vec<&str> = suppressed.iter().map(|of| of.rule_id.as_str()).collect();
    let revisions: Vec<Option<&str>> = suppressed.iter().map(|of| of.rule_revision.as_deref()).collect();
    let titles: Vec<&str> = suppressed.iter().map(|of| of.title.as_str()).collect();
    let counts: Vec<i64> = suppressed.iter().map(|of| of.matches.cast_signed()).collect();
    let limits: Vec<i32> = suppressed.iter().map(|of| of.limit.cast_signed()).collect();
    let events: Vec<Uuid> = suppressed.iter().map(|of| of.event_id).collect();
    let notices: Vec<Uuid> = suppressed.iter().map(|of| of.notice_id).collect();
    let sql = "SELECT noticed_tenant, noticed_id, noticed_at
        FROM inosec.count_suppressed($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let doing = "counting suppressed matches";
    let statement = transaction.prepare_cached(sql).await.map_err(Error::at(doing))?;
    let rows = transaction
        .query(
            &statement,
            &[&minutes, &tenants, &rules, &revisions, &titles, &counts, &limits, &events, &notices, &shard],
        )
        .await
        .map_err(Error::at(doing))?;
    let notice = |row: &tokio_postgres::Row| Notice {
        tenant: row.get(0),
        id: row.get(1),
        ts: row.get::<_, Micros>(2).0,
    };
    Ok(rows.iter().map(notice).collect())
}

/// The partitions that notices may need.
pub(crate) fn partitions(suppressed: &[Suppressed], interval: Interval) -> impl Iterator<Item = i64> {
    suppressed.iter().map(move |of| interval_start(of.minute, interval.micros()))
}
