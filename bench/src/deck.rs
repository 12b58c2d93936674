//! The corpus as the consumer would hand it on: batches of messages, without Kafka.

use std::sync::Arc;

use inosec_schemas::{Catalog, EventIds, Message, Messages, Span, TenantSource, Topic};

use crate::corpus::Corpus;
use crate::error::{At, Result};

/// When the consumer closes a batch; the defaults of `[batch]`.
const MAX_ROWS: usize = 10_000;
const MAX_BYTES: usize = 24 << 20;
/// Arrivals are this far apart: a hundred thousand a second, in Kafka's whole milliseconds.
const SPACING_US: i64 = 10;

/// Deals batches.
pub struct Deck<'a> {
    corpus: &'a Corpus,
    topic: Arc<Topic>,
    partitions: i32,
    events: usize,
    next: usize,
    started_us: i64,
    rows: usize,
}

/// A topic that feeds `agent_logs` and names tenants in the header.
pub fn topic(catalog: &Catalog) -> Result<Arc<Topic>> {
    let stream = catalog.streams.get("agent_logs").at("the stream agent_logs is gone")?;
    Ok(Arc::new(Topic {
        cluster: "bench".to_owned(),
        name: "bench".to_owned(),
        id: None,
        key: 1,
        stream: Arc::clone(stream),
        tenant: TenantSource::Header,
        event_ids: EventIds::new("bench", "bench", None),
    }))
}

impl<'a> Deck<'a> {
    /// `events` events that arrive from `started_us` on (microseconds UTC).
    pub fn new(
        corpus: &'a Corpus,
        topic: Arc<Topic>,
        partitions: i32,
        events: usize,
        started_us: i64,
    ) -> Self {
        Self { corpus, topic, partitions, events, next: 0, started_us, rows: MAX_ROWS }
    }

    /// Closes batches at so many rows.
    pub fn with_rows(mut self, rows: usize) -> Self {
        self.rows = rows;
        self
    }

    fn push(&mut self, messages: &mut Messages) {
        let place = self.next as i64;
        let arrived_at = self.started_us + place * SPACING_US;
        let message = Message {
            start: 0,
            end: 0,
            headers: (0, 0),
            partition: (place % i64::from(self.partitions)) as i32,
            offset: place / i64::from(self.partitions),
            arrived_at: arrived_at - arrived_at % 1000,
            tombstone: false,
        };
        let tenant = self.corpus.tenant(self.next).to_string();
        let headers = [("inosec-tenant", Some(tenant.as_bytes()))];
        messages.push(message, self.corpus.value(self.next), &headers);
        self.next += 1;
    }
}

impl Iterator for Deck<'_> {
    type Item = Messages;

    fn next(&mut self) -> Option<Messages> {
        if self.next >= self.events {
            return None;
        }
        let mut messages = Messages::new(Arc::clone(&self.topic));
        while self.next < self.events
            && messages.entries.len() < self.rows
            && messages.bytes.len() < MAX_BYTES
        {
            self.push(&mut messages);
        }
        for partition in 0..self.partitions {
            let offsets = || messages.entries.iter().filter(|entry| entry.partition == partition);
            if let (Some(first), Some(last)) = (offsets().next(), offsets().next_back()) {
                messages.spans.push(Span {
                    partition,
                    from: first.offset,
                    to: last.offset + 1,
                    generation: 1,
                });
            }
        }
        Some(messages)
    }
}
