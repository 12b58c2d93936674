//! A lane: prepare and write the batches of some partitions, one after another.
//!
//! Prepare works on batch n + 1 while the writer waits for the database with batch n. Order within
//! a partition is kept because a partition has one lane and each stage is sequential.

use std::sync::{Arc, Mutex, PoisonError};

use inosec_enrich::geo::Geo;
use inosec_ingest::{Decoder, Decoding};
use inosec_schemas::{Batch, Catalog, Messages, Topic};
use inosec_sink::{BlockOptions, Redo, SealOptions, Sealed, Store, Writer, Written, seal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::detection::{Detection, Stage};
use super::{Error, geo};
use crate::config::Config;
use crate::rules;

/// Messages are decoded, enriched and detected on in chunks of so many bytes: of the fields that rules
/// look at a lane then holds about as much, and not those of a whole batch.
const CHUNK: usize = 2 << 20;

/// What became of one batch.
pub struct Report {
    /// The topic it came from.
    pub topic: Arc<Topic>,
    /// What the writer says.
    pub written: Written,
}

/// The pure work of a lane, with what it keeps between batches.
struct Work {
    store: Arc<Store>,
    tools: Mutex<(Decoder, Option<Stage>)>,
    geo: geo::Current,
    options: SealOptions,
}

/// The work of one lane of this database, for whoever calls it with messages.
pub fn work(
    config: &Config,
    database: &str,
    catalog: &Catalog,
    store: Arc<Store>,
    geo: geo::Current,
    detection: Option<&Detection>,
) -> Redo {
    let level = config.databases[database].zstd_level;
    let options = SealOptions { blocks: BlockOptions { level, ..BlockOptions::default() } };
    let decoder = Decoder::new(catalog, rules::limits(config));
    let work = Work { store, tools: Mutex::new((decoder, detection.map(Detection::stage))), geo, options };
    Arc::new(move |messages, number| work.prepare(messages, number))
}

impl Work {
    /// Messages to what the database takes. CPU work: not for async threads. Done again after a GeoIP
    /// database was replaced, rows are the same but may name another country.
    fn prepare(&self, messages: Messages, number: i64) -> Sealed {
        let directory = self.store.directory();
        let mut tools = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        let (decoder, detection) = &mut *tools;
        let decoding = decoder.begin(messages, &directory);
        let batch = enrich(decoding, &self.geo.now(), detection.as_mut(), CHUNK);
        drop(tools);
        seal(batch, number, &self.options)
    }
}

/// Decodes to the end, chunk by chunk: to each row is added where its addresses are, then, since rules may
/// keep that, to the batch what the rows match. How large chunks are changes nothing.
fn enrich(mut decoding: Decoding<'_>, geo: &Geo, mut detection: Option<&mut Stage>, chunk: usize) -> Batch {
    if let Some(stage) = &mut detection {
        stage.begin();
    }
    while let Some(rows) = decoding.advance(chunk, detection.as_mut().map(|stage| stage.watch())) {
        let batch = decoding.batch();
        geo::enrich(geo, &mut batch.rows, rows);
        if let Some(stage) = &mut detection {
            stage.detect(batch);
        }
    }
    let mut batch = decoding.finish();
    let detections = 0..batch.detections.len();
    geo::enrich(geo, &mut batch.detections, detections);
    batch
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

#[cfg(test)]
mod tests;
