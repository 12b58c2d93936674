//! A lane: prepare and write the batches of some partitions, one after another.
//!
//! Prepare works on batch n + 1 while the writer waits for the database with batch n. Order within
//! a partition is kept because a partition has one lane and each stage is sequential.

use std::sync::{Arc, Mutex, PoisonError};

use inosec_ingest::{Decoder, Limits};
use inosec_schemas::{Catalog, Messages, Topic};
use inosec_sink::{BlockOptions, Redo, SealOptions, Sealed, Store, Writer, Written, seal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Error;
use crate::config::Config;

/// What became of one batch.
pub struct Report {
    /// The topic it came from.
    pub topic: Arc<Topic>,
    /// What the writer says.
    pub written: Written,
}

/// The pure work of a lane, with the decoder's scratch space.
struct Work {
    store: Arc<Store>,
    decoder: Mutex<Decoder>,
    options: SealOptions,
}

/// The work of one lane of this database, for whoever calls it with messages.
pub fn work(config: &Config, database: &str, catalog: &Catalog, store: Arc<Store>) -> Redo {
    let work = Work::new(config, database, catalog, store);
    Arc::new(move |messages, number| work.prepare(messages, number))
}

impl Work {
    fn new(config: &Config, database: &str, catalog: &Catalog, store: Arc<Store>) -> Self {
        let limits = Limits {
            max_age_us: micros(config.time.max_age),
            max_skew_us: micros(config.time.max_skew),
            max_message_bytes: config.limits.max_message_bytes,
            max_depth: config.limits.max_depth,
        };
        let level = config.databases[database].zstd_level;
        let options = SealOptions { blocks: BlockOptions { level, ..BlockOptions::default() } };
        Self { store, decoder: Mutex::new(Decoder::new(catalog, limits)), options }
    }

    /// Messages to what the database takes. CPU work: not for async threads.
    fn prepare(&self, messages: Messages, number: i64) -> Sealed {
        let directory = self.store.directory();
        let mut decoder = self.decoder.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = decoder.decode(messages, &directory, None);
        drop(decoder);
        seal(batch, number, &self.options)
    }
}

fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Starts both stages of a lane.
pub fn spawn(
    stages: &mut JoinSet<Result<(), Error>>,
    name: &str,
    store: &Arc<Store>,
    redo: Redo,
    messages: mpsc::Receiver<Messages>,
    reports: mpsc::Sender<Report>,
) {
    let (sealed, batches) = mpsc::channel(1);
    stages.spawn(prepare(name.to_owned(), Arc::clone(store), Arc::clone(&redo), messages, sealed));
    stages.spawn(write(name.to_owned(), Arc::clone(store), redo, batches, reports));
}

async fn prepare(
    name: String,
    store: Arc<Store>,
    redo: Redo,
    mut messages: mpsc::Receiver<Messages>,
    sealed: mpsc::Sender<Sealed>,
) -> Result<(), Error> {
    while let Some(batch) = messages.recv().await {
        let ready = inosec_sink::prepare(&store, batch, &redo)
            .await
            .map_err(|source| Error::Sink { name: name.clone(), source })?;
        if sealed.send(ready).await.is_err() {
            return Err(Error::Ended("a writer"));
        }
    }
    Ok(())
}

async fn write(
    name: String,
    store: Arc<Store>,
    redo: Redo,
    mut batches: mpsc::Receiver<Sealed>,
    reports: mpsc::Sender<Report>,
) -> Result<(), Error> {
    let mut writer = Writer::new(store);
    while let Some(sealed) = batches.recv().await {
        let topic = Arc::clone(sealed.batch.messages.topic());
        let written =
            writer.write(sealed, &redo).await.map_err(|source| Error::Sink { name: name.clone(), source })?;
        // The steward ends only after us.
        let _ = reports.send(Report { topic, written }).await;
    }
    Ok(())
}
