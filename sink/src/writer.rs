//! Writes sealed batches, exactly once, whatever the database does meanwhile.
//!
//! Each piece of work is one [`attempt`]; what came of it decides what is next:
//!
//! ```text
//!   committed ─► done
//!   lost span ─► drop it, redo the rest             (another owner stored it: seek)
//!   stale     ─► read the tenants, redo             (a tenant was added, suspended …)
//!   refused   ─► halve, redo each half on its own   (one message left: a dead letter)
//!   uncertain ─► read the proof: committed, or try again
//!   else      ─► wait and try again; the circuit is open meanwhile
//! ```
//!
//! Nothing is stored or forgotten when the future is dropped before it is done: the transaction
//! rolls back, and the offsets say what is left.

use std::sync::Arc;
use std::time::Instant;

use inosec_schemas::{Batch, DeadLetter, Messages, Reason, Rows, Span};

use crate::backoff::Backoff;
use crate::error::Disposition;
use crate::seal::{SealOptions, Sealed, seal};
use crate::transaction::{Failure, Lost, Outcome, Proof, Stored, attempt, took_effect};
use crate::{Error, Store, fault, metrics as names};

/// Decodes and seals messages under a batch number, with the tenants known now. Runs on a blocking
/// thread.
pub type Redo = Arc<dyn Fn(Messages, i64) -> Sealed + Send + Sync>;

/// After so many failures in a row that are no outage (locks, deadlocks) the circuit opens too.
const PATIENCE: u32 = 3;
/// How many delays of one batch are recorded.
const DELAY_SAMPLES: usize = 64;

/// What became of a batch. Spans are either committed or lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows stored in the stream's table.
    pub rows: u64,
    /// Threat events stored besides.
    pub detections: u64,
    /// Repeats of foreign threat events, dropped.
    pub duplicates: u64,
    /// Messages stored as dead letters.
    pub dead: u64,
    /// Bytes of all these messages.
    pub bytes: u64,
    /// The spans stored; a bisected one appears in its parts.
    pub committed: Vec<Span>,
    /// The spans another owner had stored: seek to what the table says.
    pub lost: Vec<Lost>,
    /// How many transactions it took.
    pub transactions: u32,
}

/// Writes to one database. One transaction at a time; have several writers for more.
#[derive(Debug)]
pub struct Writer {
    store: Arc<Store>,
}

/// A batch to store, or messages that must be decoded and sealed first.
enum Work {
    Sealed(Box<Sealed>),
    Again(Messages),
}

impl Writer {
    /// A writer to this store.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// Stores a batch. Returns when every span is committed or lost; an error means that nothing will
    /// change by itself (a table or right is missing) and what wasn't committed is untouched.
    pub async fn write(&mut self, sealed: Sealed, redo: &Redo) -> Result<Written, Error> {
        let mut written = Written::default();
        // A stack: the first half of a bisected span must be committed before the second.
        let mut work = vec![Work::Sealed(Box::new(sealed))];
        while let Some(next) = work.pop() {
            let sealed = match next {
                Work::Sealed(sealed) => sealed,
                Work::Again(messages) => Box::new(prepare(&self.store, messages, redo).await?),
            };
            written.transactions += 1;
            match settle(&self.store, &sealed, &Proof::Offsets).await? {
                Settled::Committed(stored) => written.committed(&sealed, stored),
                Settled::Lost(lost) => work.extend(written.lost(*sealed, lost)),
                Settled::Stale => {
                    refresh_directory(&self.store).await?;
                    work.push(Work::Again(sealed.batch.messages));
                }
                Settled::Refused(error) => {
                    fault::point("during-bisect").await;
                    work.extend(bisect(*sealed, error)?);
                }
                Settled::Taken(_) => unreachable!("only letters are taken"),
            }
        }
        Ok(written)
    }
}

/// Draws a number, waiting out outages, and decodes and seals on a blocking thread.
pub async fn prepare(store: &Store, messages: Messages, redo: &Redo) -> Result<Sealed, Error> {
    let number = number(store).await?;
    let redo = Arc::clone(redo);
    Ok(tokio::task::spawn_blocking(move || redo(messages, number)).await?)
}

async fn number(store: &Store) -> Result<i64, Error> {
    let mut trouble = Trouble::new(store);
    loop {
        match store.answered("drawing a batch number", store.number()).await {
            Err(error) if error.disposition() == Disposition::Retry => trouble.wait(&error).await,
            done => return done,
        }
    }
}

/// Reads the tenants anew, waiting out outages.
pub(crate) async fn refresh_directory(store: &Store) -> Result<(), Error> {
    let mut trouble = Trouble::new(store);
    loop {
        match store.answered("reading the tenants", store.refresh_directory()).await {
            Err(error) if error.disposition() == Disposition::Retry => trouble.wait(&error).await,
            done => return done.map(drop),
        }
    }
}

impl Written {
    fn committed(&mut self, sealed: &Sealed, stored: Stored) {
        self.rows += stored.rows;
        self.detections += stored.detections;
        self.duplicates += stored.duplicates;
        self.dead += sealed.batch.dead.len() as u64;
        self.bytes += message_bytes(&sealed.batch.messages);
        self.committed.extend(&sealed.batch.messages.spans);
    }

    /// Notes the lost spans; what is left of the batch is to be done again.
    fn lost(&mut self, sealed: Sealed, lost: Vec<Lost>) -> Option<Work> {
        metrics::counter!(names::SPANS_LOST).increment(lost.len() as u64);
        for lost in &lost {
            tracing::info!(
                topic = sealed.batch.messages.topic().name,
                partition = lost.span.partition,
                from = lost.span.from,
                stored = lost.stored,
                "another owner stored this span"
            );
        }
        let messages = sealed.batch.messages;
        let is_lost = |span: &Span| lost.iter().any(|lost| lost.span.partition == span.partition);
        let left: Vec<Span> = messages.spans.iter().copied().filter(|span| !is_lost(span)).collect();
        self.lost.extend(lost);
        (!left.is_empty()).then(|| Work::Again(messages.of_spans(left)))
    }
}

/// Halves a batch the database refused; a single message becomes a dead letter. The second half
/// comes first: the work is a stack.
fn bisect(sealed: Sealed, error: Error) -> Result<Vec<Work>, Error> {
    metrics::counter!(names::BISECTIONS).increment(1);
    if let Some((first, second)) = sealed.batch.messages.split() {
        return Ok(vec![Work::Again(second), Work::Again(first)]);
    }
    match rejected(sealed, &error) {
        Some(sealed) => Ok(vec![Work::Sealed(Box::new(sealed))]),
        // Refused without any row: not the data's fault.
        None => Err(error),
    }
}

/// The batch of one message, turned into a dead letter; `None` if it was one already.
fn rejected(sealed: Sealed, error: &Error) -> Option<Sealed> {
    let (number, batch) = (sealed.number, sealed.batch);
    if batch.messages.entries.len() != 1 || !batch.dead.is_empty() {
        return None;
    }
    let tenant = (!batch.rows.is_empty()).then(|| batch.rows.tenant(0));
    let dead = DeadLetter { message: 0, reason: Reason::Constraint, detail: error.refusal(), tenant };
    let batch = Batch {
        rows: Rows::new(Arc::clone(&batch.rows.stream)),
        detections: Rows::new(Arc::clone(&batch.detections.stream)),
        named: Vec::new(),
        suppressed: Vec::new(),
        dead: vec![dead],
        ..batch
    };
    Some(seal(batch, number, &SealOptions::default()))
}

/// What became of an attempt that was repeated for as long as waiting helps.
pub(crate) enum Settled {
    Committed(Stored),
    Lost(Vec<Lost>),
    Stale,
    Taken(Vec<i64>),
    Refused(Error),
}

/// Attempts until the batch is settled, one way or the other.
pub(crate) async fn settle(store: &Store, sealed: &Sealed, proof: &Proof) -> Result<Settled, Error> {
    let mut trouble = Trouble::new(store);
    let mut uncertain: Option<Stored> = None;
    loop {
        if let Some(stored) = uncertain {
            match store.answered("finding out", took_effect(store, sealed, proof)).await {
                Ok(true) => {
                    measure(store, sealed, proof, stored);
                    return Ok(Settled::Committed(stored));
                }
                Ok(false) => uncertain = None,
                Err(error) if error.disposition() == Disposition::Retry => {
                    trouble.wait(&error).await;
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        let started = Instant::now();
        match try_once(store, sealed, proof).await {
            Ok(outcome) => return Ok(settled(store, sealed, proof, outcome, started)),
            Err(Failure::Uncertain(stored, error)) => {
                tally("uncertain");
                uncertain = Some(stored);
                trouble.wait(&error).await;
            }
            Err(Failure::Before(error)) => match error.disposition() {
                Disposition::Retry => {
                    tally("failed");
                    if error.is_missing_partition() {
                        store.forget_partitions();
                    }
                    trouble.wait(&error).await;
                }
                Disposition::Reject => {
                    tally("refused");
                    tracing::warn!(refusal = error.refusal(), "the database refuses a row");
                    return Ok(Settled::Refused(error));
                }
                Disposition::Halt => return Err(error),
            },
        }
    }
}

async fn try_once(store: &Store, sealed: &Sealed, proof: &Proof) -> Result<Outcome, Failure> {
    ensure_partitions(store, sealed).await.map_err(Failure::Before)?;
    attempt(store, sealed, proof).await
}

/// Only the first batch of a day pays for these: what is known to be there isn't asked for again.
async fn ensure_partitions(store: &Store, sealed: &Sealed) -> Result<(), Error> {
    for (table, at) in &sealed.partitions {
        store.ensure_partition(table, *at).await?;
    }
    if !sealed.batch.dead.is_empty() {
        const DAY: i64 = 86_400_000_000;
        store.ensure_partition("dead_letters", store.now().div_euclid(DAY) * DAY).await?;
    }
    Ok(())
}

fn settled(store: &Store, sealed: &Sealed, proof: &Proof, outcome: Outcome, started: Instant) -> Settled {
    match outcome {
        Outcome::Committed(stored) => {
            metrics::histogram!(names::COMMIT_SECONDS).record(started.elapsed());
            measure(store, sealed, proof, stored);
            Settled::Committed(stored)
        }
        Outcome::Lost(lost) => {
            tally("lost");
            Settled::Lost(lost)
        }
        Outcome::Stale => {
            tally("stale");
            Settled::Stale
        }
        Outcome::Taken(letters) => {
            tally("lost");
            Settled::Taken(letters)
        }
    }
}

fn tally(outcome: &'static str) {
    metrics::counter!(names::TRANSACTIONS, "outcome" => outcome).increment(1);
}

/// Counts what was committed.
fn measure(store: &Store, sealed: &Sealed, proof: &Proof, stored: Stored) {
    tally("committed");
    let batch = &sealed.batch;
    let stream = batch.rows.stream.name.clone();
    let block_bytes = sealed.blocks.iter().map(bytes::Bytes::len).sum::<usize>() as u64;
    metrics::counter!(names::ROWS, "stream" => stream.clone()).increment(stored.rows);
    metrics::counter!(names::BYTES, "stream" => stream.clone()).increment(message_bytes(&batch.messages));
    metrics::counter!(names::BLOCK_BYTES, "stream" => stream).increment(block_bytes);
    if stored.duplicates > 0 {
        let of = if batch.rows.stream.dedup.is_some() { &batch.rows } else { &batch.detections };
        let stream = of.stream.name.clone();
        metrics::counter!(names::DUPLICATES, "stream" => stream).increment(stored.duplicates);
    }
    if stored.detections > 0 {
        let stream = batch.detections.stream.name.clone();
        metrics::counter!(names::ROWS, "stream" => stream).increment(stored.detections);
    }
    let suppressed: u64 = batch.suppressed.iter().map(|of| of.matches).sum();
    if suppressed > 0 {
        metrics::counter!(names::SUPPRESSED).increment(suppressed);
    }
    // A redrive leaves its rejected letters as they were.
    if let Proof::Offsets = proof {
        for dead in &batch.dead {
            metrics::counter!(names::DEAD_LETTERS, "reason" => dead.reason.name()).increment(1);
        }
        measure_delays(store, &batch.messages);
    }
}

fn measure_delays(store: &Store, messages: &Messages) {
    let now = store.now();
    let delays = metrics::histogram!(names::DELAY_SECONDS);
    let step = messages.entries.len().div_ceil(DELAY_SAMPLES).max(1);
    for message in messages.entries.iter().step_by(step) {
        let micros = u64::try_from(now - message.arrived_at).unwrap_or_default();
        delays.record(std::time::Duration::from_micros(micros));
    }
}

fn message_bytes(messages: &Messages) -> u64 {
    messages.entries.iter().map(|message| u64::from(message.end - message.start)).sum()
}

/// Failures in a row, the waits between them, and the circuit they open.
struct Trouble<'a> {
    store: &'a Store,
    backoff: Backoff,
    outage: Option<crate::health::Outage<'a>>,
}

impl<'a> Trouble<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, backoff: Backoff::default(), outage: None }
    }

    async fn wait(&mut self, error: &Error) {
        metrics::counter!(names::RETRIES).increment(1);
        tracing::warn!(%error, attempts = self.backoff.attempts() + 1, "a write failed, trying again");
        if error.is_outage() || self.backoff.attempts() + 1 >= PATIENCE {
            self.outage.get_or_insert_with(|| self.store.outage(error));
        }
        self.backoff.wait().await;
    }
}
