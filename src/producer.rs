//! Sends messages to Kafka and counts what the brokers acknowledged. Used by `replay`, the demo and the
//! relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use crate::config::Kafka;

/// Sends with `acks=all` and idempotence: a retry inside the client doesn't duplicate.
pub struct Producer {
    inner: ThreadedProducer<Deliveries>,
    deliveries: Deliveries,
}

/// What became of the messages.
#[derive(Debug, Clone, Default)]
pub struct Deliveries {
    acknowledged: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl rdkafka::ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.acknowledged.fetch_add(1, Ordering::Relaxed),
            Err((error, _)) => {
                tracing::warn!(%error, "a message was not delivered");
                self.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

/// The client settings that every Kafka client of this process shares.
#[must_use]
pub fn client_config(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.brokers).set("client.id", &kafka.client_id);
    for (property, value) in &kafka.properties {
        config.set(property, value.expose());
    }
    config
}

impl Producer {
    /// A producer for these brokers.
    pub fn new(kafka: &Kafka) -> Result<Self, KafkaError> {
        let deliveries = Deliveries::default();
        let inner = client_config(kafka)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "20")
            .set("batch.size", "262144")
            .set("message.max.bytes", "16000000")
            .set("queue.buffering.max.kbytes", "65536")
            .set("delivery.timeout.ms", "60000")
            .create_with_context(deliveries.clone())?;
        Ok(Self { inner, deliveries })
    }

    /// Queues one message, waiting while the queue is full. `tenant` becomes the header
    /// `inosec-tenant`.
    pub fn send(&self, topic: &str, payload: &[u8], tenant: Option<&str>) -> Result<(), KafkaError> {
        self.queue(BaseRecord::to(topic).payload(payload), tenant)
    }

    /// The same under a key: messages with one key stay in order.
    pub fn send_keyed(
        &self,
        topic: &str,
        key: &[u8],
        payload: &[u8],
        tenant: Option<&str>,
    ) -> Result<(), KafkaError> {
        self.queue(BaseRecord::to(topic).key(key).payload(payload), tenant)
    }

    fn queue(&self, mut record: BaseRecord<'_, [u8], [u8]>, tenant: Option<&str>) -> Result<(), KafkaError> {
        if let Some(tenant) = tenant {
            let header = Header { key: "inosec-tenant", value: Some(tenant) };
            record = record.headers(OwnedHeaders::new_with_capacity(1).insert(header));
        }
        loop {
            match self.inner.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.inner.poll(Duration::from_millis(20));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Waits until everything queued was acknowledged or failed.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaError> {
        self.inner.flush(timeout)
    }

    /// Messages the brokers have acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.deliveries.acknowledged.load(Ordering::Relaxed)
    }

    /// Messages that were given up.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.deliveries.failed.load(Ordering::Relaxed)
    }
}
