//! Lines of events to the threat events that the road would store of them.
//!
//! Decode, GeoIP and detection are the road's own. Offline there is no arrival: correlation is given each
//! event as if it had arrived the moment it happened, so that an old file is neither late nor in the future.

use std::sync::Arc;

use inosec_enrich::correlate::{Row, Stored};
use inosec_enrich::geo::Geo;
use inosec_enrich::{Correlations, Detector, Limiter, Ruleset};
use inosec_ingest::{Decoder, Limits, Watch};
use inosec_schemas::{
    Catalog, Directory, EventIds, Message, Messages, Span, Tenant, TenantId, TenantSource, TenantStatus,
    Tier, Topic,
};
use uuid::Uuid;

use super::Error;
use crate::event_file::Lines;

/// The stream rules run on.
const STREAM: &str = "agent_logs";
/// Whose events they are, offline.
const TENANT: TenantId = TenantId(Uuid::nil());

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

/// A threat event and where it comes from.
#[derive(Debug, Clone)]
pub struct Detected {
    /// The line's index among those given.
    pub index: u32,
    /// Its id.
    pub id: Uuid,
    /// The rule's id, else the signature.
    pub rule: String,
    /// The rule's title, or the signature.
    pub title: String,
    /// When it happened, in microseconds UTC.
    pub time: i64,
    /// As correlation takes it.
    pub stored: Stored,
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
            detector: Detector::new(ruleset, Arc::new(Limiter::new(u32::MAX))),
            geo,
            arrived_at: now,
        })
    }

    /// What is detected in lines of a source: the same number and line are the same event.
    pub fn run(&mut self, lines: &Lines, source: i32, rules: &Correlations) -> Vec<Detected> {
        let messages = self.messages(lines, source);
        let mut batch = self.decoder.decode(messages, &self.directory, Some(&mut self.watch));
        for rows in [&mut batch.rows, &mut batch.detections] {
            self.geo.enrich(rows);
        }
        self.detector.detect(&mut batch, self.watch.extracted());
        let rows = &batch.detections;
        let detected = |(row, index): (usize, &u32)| {
            let row = Row::of(rows, row);
            let row = Row { ingested_at: row.detected_at, ..row };
            let stored = Stored::new(&row, rules);
            let rule = stored.event().rule.to_owned();
            let (title, time) = (row.signature.to_owned(), row.detected_at);
            Detected { index: *index, id: row.id, rule, title, time, stored }
        };
        rows.message.iter().enumerate().map(detected).collect()
    }

    fn messages(&self, lines: &Lines, source: i32) -> Messages {
        let mut messages = Messages::new(Arc::clone(&self.topic));
        for (index, line) in (0..).zip(lines.messages()) {
            let offset = i64::try_from(lines.number(index)).unwrap_or(i64::MAX);
            let message = Message {
                start: 0,
                end: 0,
                headers: (0, 0),
                partition: source,
                offset,
                arrived_at: self.arrived_at,
                tombstone: false,
            };
            messages.push(message, line, &[]);
        }
        let offsets = || messages.entries.iter().map(|message| message.offset);
        if let (Some(from), Some(last)) = (offsets().next(), offsets().next_back()) {
            messages.spans.push(Span { partition: source, from, to: last + 1, generation: 0 });
        }
        messages
    }
}
