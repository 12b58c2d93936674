//! What has to be done now and then: partitions for tomorrow, small blocks merged, what is old of dead
//! letters and of alerts' changes dropped. Any replica may do it at any time: each piece is one
//! transaction, and merging is done by whoever gets the lock.

use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::Transaction;
use futures_util::SinkExt;
use inosec_schemas::TenantId;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::block::BlockOptions;
use crate::merge::{Merge, StoredBlock, encode_merged, merge_blocks};
use crate::micros::Micros;
use crate::transaction::COPY_BLOCKS;
use crate::{Error, Store, metrics as names};

/// Partitions exist this long ahead.
const AHEAD: &str = "2 days";
/// An hour's blocks are merged this long after it ended: by then slow writers are done.
const GRACE: i64 = HOUR;
/// A database that was never maintained starts so far back.
const LOOK_BACK: i64 = 48 * HOUR;
const HOUR: i64 = 3_600_000_000;
/// Blocks of at least so many messages stay as they are.
const SMALL: i32 = 64;
/// Blocks merged in one transaction at most.
const BLOCKS: i64 = 512;
/// Held by the transaction that merges. The number is arbitrary and must never change.
const LOCK: i64 = 0x0069_6e6f_7365_6302;

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Partitions made.
    pub partitions: i64,
    /// Blocks that larger ones replaced.
    pub merged: u64,
    /// The larger ones.
    pub into: u64,
    /// Partitions of dead letters dropped.
    pub expired: i64,
    /// Changes of alerts dropped.
    pub expired_changes: i64,
}

/// One tenant's blocks of one stream and hour.
struct Shelf {
    tenant: Uuid,
    stream: String,
    from: Micros,
    to: Micros,
}

impl Store {
    /// Does what is due; call it every minute or so.
    pub async fn maintain(&self) -> Result<Maintained, Error> {
        let partitions = self.partitions_ahead().await?;
        let expired = self.expire_dead_letters().await?;
        let expired_changes = self.expire_alert_changes().await?;
        let (merged, into) = self.merge_past_hours().await?;
        metrics::counter!(names::MERGED_BLOCKS).increment(merged);
        Ok(Maintained { partitions, merged, into, expired, expired_changes })
    }

    async fn partitions_ahead(&self) -> Result<i64, Error> {
        let sql = format!("SELECT inosec.ensure_partitions_ahead(interval '{AHEAD}')");
        let session = self.session().await?;
        let row = session.query_one(&sql, &[]).await.map_err(Error::at("making partitions ahead"))?;
        Ok(row.get(0))
    }

    async fn expire_dead_letters(&self) -> Result<i64, Error> {
        let keep = self.config.dead_letter_retention.max(Duration::from_secs(86_400)).as_secs();
        let sql = format!("SELECT inosec.expire_dead_letters(interval '{keep} seconds')");
        let session = self.session().await?;
        let row = session.query_one(&sql, &[]).await.map_err(Error::at("dropping old dead letters"))?;
        let sql = format!("SELECT inosec.expire_suppressed(interval '{keep} seconds')");
        session.batch_execute(&sql).await.map_err(Error::at("dropping old counts of suppressed matches"))?;
        Ok(row.get(0))
    }

    async fn expire_alert_changes(&self) -> Result<i64, Error> {
        let keep = self.config.alert_change_retention.as_secs();
        let sql = format!("SELECT inosec.expire_alert_changes(interval '{keep} seconds')");
        let session = self.session().await?;
        let row = session.query_one(&sql, &[]).await.map_err(Error::at("dropping old changes of alerts"))?;
        Ok(row.get(0))
    }

    /// Merges the hours that are past, oldest first, and notes how far it came.
    async fn merge_past_hours(&self) -> Result<(u64, u64), Error> {
        let now = self.now();
        let until = (now - GRACE).div_euclid(HOUR) * HOUR;
        let mut hour = self.merged_until().await?.unwrap_or(until - LOOK_BACK).max(until - LOOK_BACK);
        let (mut merged, mut into) = (0, 0);
        while hour < until {
            for shelf in self.shelves(hour).await? {
                let Some(done) = self.merge_shelf(&shelf).await? else {
                    return Ok((merged, into));
                };
                merged += done.0;
                into += done.1;
            }
            hour += HOUR;
            self.note_merged(hour).await?;
        }
        Ok((merged, into))
    }

    async fn merged_until(&self) -> Result<Option<i64>, Error> {
        let sql = "SELECT done_until FROM inosec.maintenance WHERE step = 'merge_blocks'";
        let session = self.session().await?;
        let row = session.query_opt(sql, &[]).await.map_err(Error::at("reading what was maintained"))?;
        Ok(row.map(|row| row.get::<_, Micros>(0).0))
    }

    async fn note_merged(&self, until: i64) -> Result<(), Error> {
        let sql = "INSERT INTO inosec.maintenance (step, done_until) VALUES ('merge_blocks', $1)
            ON CONFLICT (step) DO UPDATE SET done_until = greatest(maintenance.done_until, excluded.done_until)";
        let session = self.session().await?;
        let noted = session.execute(sql, &[&Micros(until)]).await;
        noted.map(drop).map_err(Error::at("noting what was maintained"))
    }

    /// Tenants and streams with several small blocks in the hour.
    async fn shelves(&self, hour: i64) -> Result<Vec<Shelf>, Error> {
        let sql = "SELECT tenant_id, stream FROM inosec.raw_blocks
            WHERE ts >= $1 AND ts < $2 AND events < $3 GROUP BY tenant_id, stream HAVING count(*) > 1";
        let (from, to) = (Micros(hour), Micros(hour + HOUR));
        let session = self.session().await?;
        let rows =
            session.query(sql, &[&from, &to, &SMALL]).await.map_err(Error::at("looking for small blocks"))?;
        let shelf = |row: &Row| Shelf { tenant: row.get(0), stream: row.get(1), from, to };
        Ok(rows.iter().map(shelf).collect())
    }

    /// Merges a shelf's small blocks, a portion per transaction. `None` if another replica is at it.
    async fn merge_shelf(&self, shelf: &Shelf) -> Result<Option<(u64, u64)>, Error> {
        let mut done = (0, 0);
        let mut after = i64::MIN;
        loop {
            let mut session = self.session().await?;
            let transaction = session.transaction().await.map_err(Error::at(MERGING))?;
            let lock = "SELECT pg_try_advisory_xact_lock($1)";
            let row = transaction.query_one(lock, &[&LOCK]).await.map_err(Error::at(MERGING))?;
            if !row.get::<_, bool>(0) {
                return Ok(None);
            }
            let blocks = small_blocks(&transaction, shelf, after).await?;
            let Some(last) = blocks.last() else { return Ok(Some(done)) };
            after = last.last_seq;
            let (blocks, merge) = merge(blocks).await?;
            for (position, error) in &merge.unreadable {
                tracing::error!(first_seq = blocks[*position].first_seq, %error, "a raw block can't be read");
            }
            let replaced = replace(&transaction, shelf, &blocks, &merge).await?;
            transaction.commit().await.map_err(Error::at(MERGING))?;
            done.0 += replaced;
            done.1 += merge.merged.len() as u64;
        }
    }
}

const MERGING: &str = "merging raw blocks";

async fn small_blocks(
    transaction: &Transaction<'_>,
    shelf: &Shelf,
    after: i64,
) -> Result<Vec<StoredBlock>, Error> {
    let sql = "SELECT ts, first_seq, last_seq, data FROM inosec.raw_blocks
        WHERE tenant_id = $1 AND stream = $2 AND ts >= $3 AND ts < $4 AND events < $5 AND first_seq > $6
            AND codec = 'zstd'
        ORDER BY first_seq LIMIT $7";
    let rows = transaction
        .query(sql, &[&shelf.tenant, &shelf.stream, &shelf.from, &shelf.to, &SMALL, &after, &BLOCKS])
        .await
        .map_err(Error::at(MERGING))?;
    let block = |row: &Row| StoredBlock {
        ts: row.get::<_, Micros>(0).0,
        first_seq: row.get(1),
        last_seq: row.get(2),
        data: row.get(3),
    };
    Ok(rows.iter().map(block).collect())
}

/// Decompressing and compressing belong on a blocking thread.
async fn merge(blocks: Vec<StoredBlock>) -> Result<(Vec<StoredBlock>, Merge), Error> {
    let work = move || {
        let merge = merge_blocks(&blocks, &BlockOptions::default());
        (blocks, merge)
    };
    Ok(tokio::task::spawn_blocking(work).await?)
}

/// Deletes what is replaced and inserts what replaces it. Deleting fewer than expected means that
/// somebody else was here: nothing is done.
async fn replace(
    transaction: &Transaction<'_>,
    shelf: &Shelf,
    blocks: &[StoredBlock],
    merge: &Merge,
) -> Result<u64, Error> {
    let replaced = merge.merged.iter().flat_map(|merged| &blocks[merged.replaces.clone()]);
    let firsts: Vec<i64> = replaced.map(|block| block.first_seq).collect();
    if firsts.is_empty() {
        return Ok(0);
    }
    let sql = "DELETE FROM inosec.raw_blocks
        WHERE tenant_id = $1 AND stream = $2 AND ts >= $3 AND ts < $4 AND first_seq = ANY($5)";
    let deleted = transaction
        .execute(sql, &[&shelf.tenant, &shelf.stream, &shelf.from, &shelf.to, &firsts])
        .await
        .map_err(Error::at(MERGING))?;
    if deleted != firsts.len() as u64 {
        let what =
            format!("{} of {} blocks to be merged are gone", firsts.len() as u64 - deleted, firsts.len());
        return Err(Error::Block { first_seq: firsts[0], what });
    }
    let sink = transaction.copy_in::<_, Bytes>(COPY_BLOCKS).await.map_err(Error::at(MERGING))?;
    let mut sink = std::pin::pin!(sink);
    for frame in encode_merged(TenantId(shelf.tenant), &shelf.stream, &merge.merged) {
        sink.feed(frame).await.map_err(Error::at(MERGING))?;
    }
    sink.finish().await.map_err(Error::at(MERGING))?;
    Ok(deleted)
}
