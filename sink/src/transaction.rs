//! The one transaction: everything a batch produced and the proof that it was consumed.
//!
//! In this order: placement epoch `FOR SHARE` → COPY rows and blocks → the proof (offsets moved by
//! compare-and-swap, or dead letters locked) → ids of foreign threat events and the rows that are
//! new → suppressed matches → counts, hosts, detections, queue row, dead letters → COMMIT. Locks are taken in the same
//! order by everybody: partitions, ids and keys sorted.
//!
//! Statements that don't depend on each other's answers are sent together: tokio-postgres sends
//! them in the order in which they are first polled, COPY data included.

use std::pin::Pin;

use bytes::Bytes;
use deadpool_postgres::{Object, Transaction};
use futures_util::SinkExt;
use hashbrown::HashSet;
use inosec_schemas::{Batch, Column, Fill, Rows, Span, Stream};
use uuid::Uuid;

use crate::micros::Micros;
use crate::seal::{Count, Host, Sealed};
use crate::suppressed::{self, Notice};
use crate::{Error, Store, fault, letters, tally};

/// What shows that the messages are this transaction's to store.
#[derive(Debug)]
pub(crate) enum Proof {
    /// The spans' offsets stand where the spans begin.
    Offsets,
    /// These dead letters were not redriven yet: the id of each message's letter, in message order.
    Letters(Vec<i64>),
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All is stored.
    Committed(Stored),
    /// Nothing is stored: these partitions stand elsewhere.
    Lost(Vec<Lost>),
    /// Nothing is stored: tenants changed since the batch was attributed.
    Stale,
    /// Nothing is stored: somebody else redrove these letters.
    Taken(Vec<i64>),
}

/// A span that was not ours to store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// The span as consumed.
    pub span: Span,
    /// What the table says instead: seek there. `None` if it has no such partition.
    pub stored: Option<i64>,
}

/// What a committed transaction stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub rows: u64,
    pub detections: u64,
    pub duplicates: u64,
}

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing was stored.
    Before(Error),
    /// COMMIT was sent and its answer is missing: only the proof can tell.
    Uncertain(Stored, Error),
}

/// Tries once.
pub(crate) async fn attempt(store: &Store, sealed: &Sealed, proof: &Proof) -> Result<Outcome, Failure> {
    let mut session = store.session().await.map_err(Failure::Before)?;
    let result = attempt_in(store, &mut session, sealed, proof).await;
    if let Err(Failure::Before(Error::Timeout { .. }) | Failure::Uncertain(..)) = result {
        // Its fate is unknown; closing it makes the server roll back what it may still hold.
        drop(Object::take(session));
    }
    result
}

async fn attempt_in(
    store: &Store,
    session: &mut Object,
    sealed: &Sealed,
    proof: &Proof,
) -> Result<Outcome, Failure> {
    let begin = async { session.transaction().await.map_err(Error::at("starting a transaction")) };
    let transaction = store.answered("starting a transaction", begin).await.map_err(Failure::Before)?;
    // Boxed: it is large, and lives in the futures of everybody who waits for it.
    let writing: Pin<Box<dyn Future<Output = _> + Send + '_>> =
        Box::pin(write(store, &transaction, sealed, proof));
    let written = store.answered("writing", writing).await;
    let stored = match written.map_err(Failure::Before)? {
        Outcome::Committed(stored) => stored,
        // Dropping the transaction rolls it back.
        other => return Ok(other),
    };
    fault::point("before-commit").await;
    let commit = async { transaction.commit().await.map_err(Error::at("committing")) };
    store.answered("committing", commit).await.map_err(|error| Failure::Uncertain(stored, error))?;
    fault::point("after-commit").await;
    Ok(Outcome::Committed(stored))
}

/// All but the COMMIT; `Outcome::Committed` means "ready to".
async fn write(
    store: &Store,
    transaction: &Transaction<'_>,
    sealed: &Sealed,
    proof: &Proof,
) -> Result<Outcome, Error> {
    fault::point("before-copy").await;
    let batch = &sealed.batch;
    // Rows of a stream with senders' ids wait until it is known which of them are new.
    let dedup = batch.rows.stream.dedup;
    let at_once: &[Bytes] = if dedup.is_some() { &[] } else { &sealed.rows };
    let rows_copy = copy_statement(&batch.rows.stream);
    let (epoch, rows, blocks) = tokio::join!(
        hold_epoch(transaction),
        copy(transaction, &rows_copy, at_once),
        copy(transaction, COPY_BLOCKS, &sealed.blocks),
    );
    if epoch? != batch.epoch {
        return Ok(Outcome::Stale);
    }
    let mut stored = Stored { rows: rows?, ..Stored::default() };
    blocks?;
    fault::point("after-copy").await;
    if let Some(outcome) = prove(transaction, sealed, proof).await? {
        return Ok(outcome);
    }
    fault::point("after-cas").await;
    let mut kept = None;
    if let Some(column) = dedup {
        let new = new_ids(transaction, &batch.rows, column).await?;
        stored.duplicates = repeats(&new);
        let (frames, counts) = sealed.encode_kept(&new);
        stored.rows = copy(transaction, &rows_copy, &frames).await?;
        kept = Some((counts, sealed.hosts_kept(&new), new));
    }
    let mut found = None;
    if dedup.is_none() && !batch.named.is_empty() {
        let new = new_detections(transaction, batch).await?;
        stored.duplicates = repeats(&new);
        // Mostly none: then what was sealed will do.
        found = (stored.duplicates > 0).then(|| (sealed.detections_kept(&new), new));
    }
    let (mut counts, seen, keep) = match &kept {
        Some((counts, hosts, keep)) => (counts, hosts, Some(keep.as_slice())),
        None => (&sealed.counts, &sealed.hosts, None),
    };
    let (mut detections, mut keep_detections) = (&sealed.detections, None);
    if let Some(((frames, counted), new)) = &found {
        (counts, detections, keep_detections) = (counted, frames, Some(new.as_slice()));
    }
    // Seldom any; before the queue row, which names what this stores.
    let notices = suppressed::count(transaction, &batch.suppressed, tally::shard(&batch.messages)).await?;
    let detections_copy = copy_statement(&batch.detections.stream);
    let (counted, hosts, detections, queued) = tokio::join!(
        count(transaction, counts),
        see_hosts(transaction, seen),
        copy(transaction, &detections_copy, detections),
        enqueue(transaction, sealed, [keep, keep_detections], &notices),
    );
    counted.and(hosts)?;
    stored.detections = detections?;
    queued?;
    // Not sent along with the others: a statement that must be prepared first falls behind those that
    // needn't, and the rows of hosts and of the quota would be locked in another order.
    dead_letters(store, transaction, sealed, proof).await?;
    Ok(Outcome::Committed(stored))
}

/// Holds the placement epoch until the end of the transaction and says which it is.
async fn hold_epoch(transaction: &Transaction<'_>) -> Result<i64, Error> {
    let doing = "holding the placement epoch";
    let sql = "SELECT epoch FROM inosec.placement_epoch FOR SHARE";
    let statement = transaction.prepare_cached(sql).await.map_err(Error::at(doing))?;
    Ok(transaction.query_one(&statement, &[]).await.map_err(Error::at(doing))?.get(0))
}

pub(crate) const COPY_BLOCKS: &str =
    "COPY inosec.raw_blocks (ts, tenant_id, stream, first_seq, last_seq, events, codec, data)
    FROM STDIN (FORMAT binary)";

pub(crate) fn copy_statement(stream: &Stream) -> String {
    let columns: Vec<&str> = stream.columns.iter().map(|column| column.name.as_str()).collect();
    format!("COPY inosec.{} ({}) FROM STDIN (FORMAT binary)", stream.name, columns.join(", "))
}

/// Sends one COPY; nothing if there are no frames. Returns the rows.
async fn copy(transaction: &Transaction<'_>, sql: &str, frames: &[Bytes]) -> Result<u64, Error> {
    if frames.is_empty() {
        return Ok(0);
    }
    let statement = transaction.prepare_cached(sql).await.map_err(Error::at("copying"))?;
    let sink = transaction.copy_in::<_, Bytes>(&statement).await.map_err(Error::at("copying"))?;
    let mut sink = std::pin::pin!(sink);
    for frame in frames {
        // An error here only says that the connection went; `finish` says why.
        if sink.feed(frame.clone()).await.is_err() {
            break;
        }
    }
    sink.finish().await.map_err(Error::at("copying"))
}

async fn prove(
    transaction: &Transaction<'_>,
    sealed: &Sealed,
    proof: &Proof,
) -> Result<Option<Outcome>, Error> {
    match proof {
        Proof::Offsets => {
            let lost = advance(transaction, sealed).await?;
            Ok((!lost.is_empty()).then_some(Outcome::Lost(lost)))
        }
        Proof::Letters(ids) => {
            let taken = mark_letters(transaction, sealed, ids).await?;
            Ok((!taken.is_empty()).then_some(Outcome::Taken(taken)))
        }
    }
}

/// Moves the offsets in partition order; returns the spans that didn't stand where they begin.
async fn advance(transaction: &Transaction<'_>, sealed: &Sealed) -> Result<Vec<Lost>, Error> {
    let messages = &sealed.batch.messages;
    let spans = &messages.spans;
    debug_assert!(spans.windows(2).all(|pair| pair[0].partition < pair[1].partition), "in partition order");
    let topic = messages.topic();
    let partitions: Vec<i32> = spans.iter().map(|span| span.partition).collect();
    let froms: Vec<i64> = spans.iter().map(|span| span.from).collect();
    let tos: Vec<i64> = spans.iter().map(|span| span.to).collect();
    let mut arrivals: Vec<Option<Micros>> = vec![None; partitions.len()];
    for message in &messages.entries {
        if let Ok(place) = partitions.binary_search(&message.partition) {
            arrivals[place] = Some(Micros(message.arrived_at));
        }
    }
    let sql = "SELECT lost_partition, stored_offset FROM inosec.advance_offsets($1, $2, $3, $4, $5, $6, $7)";
    let doing = "moving the offsets";
    let statement = transaction.prepare_cached(sql).await.map_err(Error::at(doing))?;
    let rows = transaction
        .query(&statement, &[&topic.cluster, &topic.name, &topic.id, &partitions, &froms, &tos, &arrivals])
        .await
        .map_err(Error::at(doing))?;
    let mut lost = Vec::new();
    for row in &rows {
        let partition: i32 = row.get(0);
        let spans = spans.iter().filter(|span| span.partition == partition);
        lost.extend(spans.map(|span| Lost { span: *span, stored: row.get(1) }));
    }
    Ok(lost)
}

/// Marks the letters whose messages now fit as redriven; returns those somebody else marked before.
async fn mark_letters(
    transaction: &Transaction<'_>,
    sealed: &Sealed,
    ids: &[i64],
) -> Result<Vec<i64>, Error> {
    let fit = fitting(sealed, ids);
    let doing = "marking dead letters";
    let lock = "SELECT id FROM inosec.dead_letters
        WHERE id = ANY($1) AND redriven_at IS NULL ORDER BY id FOR UPDATE";
    let statement = transaction.prepare_cached(lock).await.map_err(Error::at(doing))?;
    let rows = transaction.query(&statement, &[&fit]).await.map_err(Error::at(doing))?;
    let free: HashSet<i64, foldhash::fast::RandomState> = rows.iter().map(|row| row.get(0)).collect();
    let taken: Vec<i64> = fit.iter().copied().filter(|id| !free.contains(id)).collect();
    if taken.is_empty() {
        let mark = "UPDATE inosec.dead_letters SET redriven_at = now() WHERE id = ANY($1)";
        let statement = transaction.prepare_cached(mark).await.map_err(Error::at(doing))?;
        transaction.execute(&statement, &[&fit]).await.map_err(Error::at(doing))?;
    }
    Ok(taken)
}

/// The letters whose messages are no longer rejected.
fn fitting(sealed: &Sealed, ids: &[i64]) -> Vec<i64> {
    let dead: HashSet<u32, foldhash::fast::RandomState> =
        sealed.batch.dead.iter().map(|dead| dead.message).collect();
    let fit = ids.iter().zip(0..).filter(|(_, message)| !dead.contains(message));
    fit.map(|(id, _)| *id).collect()
}

/// Registers the senders' ids; says of each row whether its id is new. Ids are inserted in order, so
/// that two writers with the same ids wait for each other in one direction only.
async fn new_ids(transaction: &Transaction<'_>, rows: &Rows, column: usize) -> Result<Vec<bool>, Error> {
    register(transaction, (0..rows.len()).map(|row| (rows.tenant(row).0, uuid(rows, column, row)))).await
}

/// The same for detections named by their senders or their content; the others are new by their place.
async fn new_detections(transaction: &Transaction<'_>, batch: &Batch) -> Result<Vec<bool>, Error> {
    let rows = &batch.detections;
    let mut new = vec![true; rows.len()];
    let Some(column) = rows.stream.dedup else { return Ok(new) };
    let named = || batch.named.iter().map(|row| *row as usize);
    let ids = named().map(|row| (rows.tenant(row).0, uuid(rows, column, row)));
    for (row, is_new) in named().zip(register(transaction, ids).await?) {
        new[row] = is_new;
    }
    Ok(new)
}

fn repeats(new: &[bool]) -> u64 {
    new.iter().filter(|new| !**new).count() as u64
}

/// Registers tenants' ids; says of each whether it is new.
async fn register(
    transaction: &Transaction<'_>,
    ids: impl Iterator<Item = (Uuid, Uuid)>,
) -> Result<Vec<bool>, Error> {
    let (tenants, ids): (Vec<Uuid>, Vec<Uuid>) = ids.unzip();
    let sql = "INSERT INTO inosec.threat_event_ids (tenant_id, id)
        SELECT tenant_id, id FROM unnest($1::uuid[], $2::uuid[]) AS offered (tenant_id, id)
        ORDER BY tenant_id, id
        ON CONFLICT DO NOTHING
        RETURNING tenant_id, id";
    let doing = "registering ids of threat events";
    let statement = transaction.prepare_cached(sql).await.map_err(Error::at(doing))?;
    let inserted = transaction.query(&statement, &[&tenants, &ids]).await.map_err(Error::at(doing))?;
    let mut new: HashSet<(Uuid, Uuid), foldhash::fast::RandomState> =
        inserted.iter().map(|row| (row.get(0), row.get(1))).collect();
    // Taking it out keeps only the first of several rows with one id.
    Ok(tenants.into_iter().zip(ids).map(|key| new.remove(&key)).collect())
}

fn uuid(rows: &Rows, column: usize, row: usize) -> Uuid {
    match &rows.columns[column] {
        Column::Uuid(values) => values[row].unwrap_or_default(),
        other => unreachable!("an id is a uuid, not {other:?}"),
    }
}

/// Adds to the hourly counts, in key order.
async fn count(transaction: &Transaction<'_>, counts: &[Count]) -> Result<(), Error> {
    if counts.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO inosec.event_counts AS known
            (bucket, tenant_id, stream, class_uid, severity_id, shard, events, bytes)
        SELECT * FROM unnest($1::timestamptz[], $2::uuid[], $3::text[], $4::int4[], $5::int2[], $6::int4[],
            $7::int8[], $8::int8[])
        ON CONFLICT (bucket, tenant_id, stream, class_uid, severity_id, shard)
        DO UPDATE SET events = known.events + excluded.events, bytes = known.bytes + excluded.bytes";
    let doing = "counting events";
    let statement = transaction.prepare_cached(sql).await.map_err(Error::at(doing))?;
    let buckets: Vec<Micros> = counts.iter().map(|count| Micros(count.bucket)).collect();
    let tenants: Vec<Uuid> = counts.iter().map(|count| count.tenant.0).collect();
    let streams: Vec<&str> = counts.iter().map(|count| &*count.stream).collect();
    let classes: Vec<i32> = counts.iter().map(|count| count.class_uid).collect();
    let severities: Vec<i16> = counts.iter().map(|count| count.severity_id).collect();
    let shards: Vec<i32> = counts.iter().map(|count| count.shard).collect();
    let events: Vec<i64> = counts.iter().map(|count| count.events).collect();
    let bytes: Vec<i64> = counts.iter().map(|count| count.bytes).collect();
    let counted = transaction
        .execute(&statement, &[&buckets, &tenants, &streams, &classes, &severities, &shards, &events, &bytes])
        .await;
    counted.map(drop).map_err(Error::at(doing))
}

/// Notes the hosts that were seen, in key order.
async fn see_hosts(transaction: &Transaction<'_>, hosts: &[Host]) -> Result<(), Error> {
    if hosts.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO inosec.host_devices AS known (tenant_id, host_name, first_seen, last_seen, events)
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::int8[])
        ON CONFLICT (tenant_id, host_name)
        DO UPDATE SET first_seen = least(known.first_seen, excluded.first_seen),
            last_seen = greatest(known.last_seen, excluded.last_seen), events = known.events + excluded.events";
    let doing = "noting hosts";
    let statement = transaction.prepare_cached(sql).await.map_err(Error::at(doing))?;
    let tenants: Vec<Uuid> = hosts.iter().map(|host| host.tenant.0).collect();
    let names: Vec<&str> = hosts.iter().map(|host| &*host.name).collect();
    let firsts: Vec<Micros> = hosts.iter().map(|host| Micros(host.first_seen)).collect();
    let lasts: Vec<Micros> = hosts.iter().map(|host| Micros(host.last_seen)).collect();
    let events: Vec<i64> = hosts.iter().map(|host| host.events).collect();
    let noted = transaction.execute(&statement, &[&tenants, &names, &firsts, &lasts, &events]).await;
    noted.map(drop).map_err(Error::at(doing))
}

/// A redrive leaves letters that still don't fit as they are.
async fn dead_letters(
    store: &Store,
    transaction: &Transaction<'_>,
    sealed: &Sealed,
    proof: &Proof,
) -> Result<(), Error> {
    match proof {
        Proof::Offsets => letters::insert(transaction, &sealed.batch, store.config.dead_letter_quota).await,
        Proof::Letters(_) => Ok(()),
    }
}

/// Tells the correlator which threat events this transaction stored.
async fn enqueue(
    transaction: &Transaction<'_>,
    sealed: &Sealed,
    keep: [Option<&[bool]>; 2],
    notices: &[Notice],
) -> Result<(), Error> {
    let batch = &sealed.batch;
    let (mut tenants, mut ids, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for (rows, keep) in [&batch.rows, &batch.detections].into_iter().zip(keep) {
        let Some(column) = rows.filled_by(Fill::Id).filter(|_| rows.stream.name == "threat_events") else {
            continue;
        };
        for row in (0..rows.len()).filter(|row| keep.is_none_or(|keep| keep[*row])) {
            tenants.push(rows.tenant(row).0);
            ids.push(uuid(rows, column, row));
            times.push(rows.ts(row));
        }
    }
    for notice in notices {
        tenants.push(notice.tenant);
        ids.push(notice.id);
        times.push(notice.ts);
    }
    let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else { return Ok(()) };
    let sql = "INSERT INTO inosec.correlation_queue (batch, events, first_ts, last_ts, tenants, ids)
        VALUES ($1, cardinality($5::uuid[]), $2, $3, $4, $5)";
    let doing = "queueing for correlation";
    let statement = transaction.prepare_cached(sql).await.map_err(Error::at(doing))?;
    let (first, last) = (Micros(*first), Micros(*last));
    let queued = transaction.execute(&statement, &[&sealed.number, &first, &last, &tenants, &ids]).await;
    queued.map(drop).map_err(Error::at(doing))
}

/// After a COMMIT without an answer: whether it took effect. Locking the rows waits for a backend
/// that is still at it.
pub(crate) async fn took_effect(store: &Store, sealed: &Sealed, proof: &Proof) -> Result<bool, Error> {
    let session = store.session().await?;
    let doing = "finding out whether a commit took effect";
    match proof {
        Proof::Offsets => {
            let messages = &sealed.batch.messages;
            let topic = messages.topic();
            let partitions: Vec<i32> = messages.spans.iter().map(|span| span.partition).collect();
            let sql = "SELECT partition, next_offset FROM inosec.ingest_offsets
                WHERE cluster = $1 AND topic = $2 AND partition = ANY($3) ORDER BY partition FOR UPDATE";
            let rows = session.query(sql, &[&topic.cluster, &topic.name, &partitions]).await;
            let rows = rows.map_err(Error::at(doing))?;
            let stands = |span: &Span| {
                let row = rows.iter().find(|row| row.get::<_, i32>(0) == span.partition);
                row.is_some_and(|row| row.get::<_, i64>(1) >= span.to)
            };
            Ok(messages.spans.iter().all(stands))
        }
        Proof::Letters(ids) => {
            let fit = fitting(sealed, ids);
            let sql = "SELECT id FROM inosec.dead_letters
                WHERE id = ANY($1) AND redriven_at IS NULL ORDER BY id FOR UPDATE";
            Ok(session.query(sql, &[&fit]).await.map_err(Error::at(doing))?.is_empty())
        }
    }
}
