//! Lines of events to the threat events that the road would store of them.
//!
//! Decode, GeoIP and detection are the road's own. Offline there is no arrival: correlation is given each
//! event as if it had arrived the moment it happened, so that an old file is neither late nor in the future.

use std::sync::Arc;

use inosec_enrich::correlate::stored;
use inosec_enrich::geo::Geo;
use inosec_enrich::{Detector, Limiter, Ruleset};
use inosec_ingest::{Decoder, Limits, Watch};
use inosec_schemas::{
    Catalog, Directory, EventIds, Message, Messages, StoredThreatEvent, Tenant, TenantId, TenantSource,
    TenantStatus, Tier, Topic,
};
use uuid::Uuid;

use super::Error;
use crate::event_file::Lines;

/// The stream rules run on.
const STREAM: &str = "agent_logs";
/// Bytes of values whose verdicts are remembered.
const MEMO: usize = 32 << 20;
/// Whose events they are, offline.
pub const TENANT: TenantId = TenantId(Uuid::nil());

/// Detects in lines of events as the road does, without limits.
#[derive(Debug)]
pub struct Detections {
    topic: Arc<Topic>,
    directory: Directory,
    decoder: Decoder,
    watch: Watch,
    detector: Detector,
    geo: Geo,
    arrived_at: i64,
}

/// A message and where it comes from: the same source and number are the same event.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Such as the file's number.
    pub source: i32,
    /// Such as the line's number.
    pub number: i64,
    /// In microseconds UTC.
    pub arrived_at: i64,
    /// As an agent sent it.
    pub message: &'a [u8],
}

/// A threat event and where it comes from.
#[derive(Debug, Clone)]
pub struct Detected {
    /// The event's index among those given.
    pub index: u32,
    /// As if it had been stored.
    pub event: StoredThreatEvent,
}

impl Detections {
    /// `now`, in microseconds UTC, is the time of events that tell none, and gives the year of those that
    /// leave it out.
    ///
    /// # Errors
    /// If the catalogue was robbed of `agent_logs`.
    pub fn new(
        ruleset: Arc<Ruleset>,
        catalog: &Catalog,
        limits: Limits,
        geo: Geo,
        now: i64,
    ) -> Result<Self, Error> {
        let stream = catalog.streams.get(STREAM).cloned().ok_or(Error::NoStream(STREAM))?;
        let topic = Topic {
            cluster: String::new(),
            name: STREAM.to_owned(),
            id: None,
            key: 0,
            stream,
            tenant: TenantSource::Fixed(TENANT),
            event_ids: EventIds::new("", STREAM, None),
        };
        let mut directory = Directory::default();
        directory.tenants.insert(TENANT, Tenant { tier: Tier::Standard, status: TenantStatus::Active });
        Ok(Self {
            topic: Arc::new(topic),
            directory,
            decoder: Decoder::new(catalog, limits),
            watch: Watch::new(catalog, ruleset.engine().class_fields()),
            detector: Detector::new(ruleset, Arc::new(Limiter::new(u32::MAX)), MEMO),
            geo,
            arrived_at: now,
        })
    }

    /// What is detected in lines of a source.
    pub fn run(&mut self, lines: &Lines, source: i32) -> Vec<Detected> {
        let arrived_at = self.arrived_at;
        let events = (0..).zip(lines.messages()).map(|(index, message)| {
            let number = i64::try_from(lines.number(index)).unwrap_or(i64::MAX);
            Event { source, number, arrived_at, message }
        });
        self.detect(events)
    }

    /// What is detected in events.
    pub fn detect<'m>(&mut self, events: impl Iterator<Item = Event<'m>>) -> Vec<Detected> {
        let mut messages = Messages::new(Arc::clone(&self.topic));
        for Event { source: partition, number: offset, arrived_at, message } in events {
            let (start, end, headers, tombstone) = (0, 0, (0, 0), false);
            let entry = Message { start, end, headers, partition, offset, arrived_at, tombstone };
            messages.push(entry, message, &[]);
        }
        let mut decoding = self.decoder.begin(messages, &self.directory);
        while let Some(rows) = decoding.advance(usize::MAX, Some(&mut self.watch)) {
            let batch = decoding.batch();
            self.geo.enrich(&mut batch.rows, rows);
            self.detector.detect(batch, self.watch.extracted());
        }
        let batch = decoding.finish();
        let rows = &batch.detections;
        let detected = |(row, index): (usize, &u32)| {
            let event = stored(rows, row);
            Detected { index: *index, event: StoredThreatEvent { ingested_at: event.detected_at, ..event } }
        };
        rows.message.iter().enumerate().map(detected).collect()
    }
}
