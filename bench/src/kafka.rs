//! A topic of a run's own: filled, read as fast as librdkafka reads, deleted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use inosec_schemas::TenantId;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use uuid::Uuid;

use crate::corpus::Corpus;
use crate::error::{At, Error, Result};

const FLUSH: Duration = Duration::from_secs(60);
/// Every how many-th message is timed.
const SAMPLE: usize = 16;

/// One topic.
#[derive(Debug, Clone)]
pub struct Topic {
    pub brokers: String,
    pub name: String,
    pub partitions: i32,
}

impl Topic {
    pub async fn create(brokers: &str, partitions: i32) -> Result<Self> {
        let name = format!("inosec-bench.{}", Uuid::new_v4().simple());
        let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1)).set("compression.type", "lz4");
        let made =
            admin(brokers)?.create_topics([&new], &AdminOptions::new()).await.at("creating a topic")?;
        for outcome in made {
            outcome.map_err(|(_, code)| code).at("creating a topic")?;
        }
        Ok(Self { brokers: brokers.to_owned(), name, partitions })
    }

    pub async fn delete(self) -> Result<()> {
        let admin = admin(&self.brokers)?;
        admin.delete_topics(&[&self.name], &AdminOptions::new()).await.at("deleting the topic").map(drop)
    }

    /// The broker's port, if it is on this machine.
    pub fn port(&self) -> Option<u16> {
        let first = self.brokers.split(',').next()?;
        first.rsplit_once(':')?.1.parse().ok()
    }
}

fn admin(brokers: &str) -> Result<AdminClient<DefaultClientContext>> {
    client(brokers).create().at("connecting to Kafka")
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("client.id", "inosec-bench");
    config
}

/// A message that was sent and acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// When it was handed to the producer, since [`Producer::started`].
    pub at: Duration,
    pub partition: i32,
    pub offset: i64,
}

/// Remembers where samples went, and that nothing failed.
#[derive(Default, Clone)]
struct Deliveries {
    sent: Arc<Mutex<Vec<Sent>>>,
    failed: Arc<Mutex<Option<String>>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    /// When it was sent, in microseconds; 0 for a message that isn't timed.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, micros: usize) {
        match result {
            Ok(message) if micros > 0 => {
                let at = Duration::from_micros(micros as u64);
                let sent = Sent { at, partition: message.partition(), offset: message.offset() };
                self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
            }
            Ok(_) => {}
            Err((error, _)) => {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            }
        }
    }
}

/// Sends the corpus, event by event, each to the next partition.
pub struct Producer<'a> {
    inner: ThreadedProducer<Deliveries>,
    deliveries: Deliveries,
    topic: &'a Topic,
    corpus: &'a Corpus,
    tenants: Vec<String>,
    /// What times are counted from.
    pub started: Instant,
    next: usize,
}

impl<'a> Producer<'a> {
    /// `linger` is how long the client waits for a fuller request.
    pub fn new(topic: &'a Topic, corpus: &'a Corpus, linger: Duration) -> Result<Self> {
        let deliveries = Deliveries::default();
        let inner = client(&topic.brokers)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", linger.as_millis().to_string())
            .set("batch.size", "524288")
            .set("queue.buffering.max.kbytes", "131072")
            .set("queue.buffering.max.messages", "200000")
            .create_with_context(deliveries.clone())
            .at("making a producer")?;
        let tenants = corpus.tenants().iter().map(ToString::to_string).collect();
        Ok(Self { inner, deliveries, topic, corpus, tenants, started: Instant::now(), next: 0 })
    }

    /// Sends the next event.
    pub fn send(&mut self) -> Result<()> {
        let (corpus, place) = (self.corpus, self.next);
        let micros = if place.is_multiple_of(SAMPLE) { self.started.elapsed().as_micros().max(1) } else { 0 };
        self.put(corpus.tenant(place), corpus.value(place), micros as usize)
    }

    /// Sends something that is not of the corpus, untimed.
    pub fn send_other(&mut self, tenant: TenantId, value: &[u8]) -> Result<()> {
        self.put(tenant, value, 0)
    }

    fn put(&mut self, tenant: TenantId, value: &[u8], micros: usize) -> Result<()> {
        let index = self.corpus.tenants().iter().position(|known| *known == tenant).unwrap_or(0);
        let header = Header { key: "inosec-tenant", value: Some(self.tenants[index].as_str()) };
        let mut record: BaseRecord<'_, (), [u8], usize> =
            BaseRecord::with_opaque_to(&self.topic.name, micros)
                .payload(value)
                .partition((self.next % self.topic.partitions as usize) as i32)
                .headers(OwnedHeaders::new_with_capacity(1).insert(header));
        loop {
            match self.inner.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::park_timeout(Duration::from_millis(2));
                }
                Err((error, _)) => return Err(error).at("sending"),
            }
        }
        self.next += 1;
        Ok(())
    }

    /// How many were sent.
    pub fn sent(&self) -> usize {
        self.next
    }

    /// Waits for all acknowledgements; returns the timed messages, in the order they were sent.
    pub fn finish(self) -> Result<Vec<Sent>> {
        self.inner.flush(FLUSH).at("waiting for acknowledgements")?;
        let failed = self.deliveries.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(error) = failed {
            return Err(Error::new(format!("a message was not delivered: {error}")));
        }
        let mut sent =
            std::mem::take(&mut *self.deliveries.sent.lock().unwrap_or_else(PoisonError::into_inner));
        sent.sort_by_key(|sent| sent.at);
        Ok(sent)
    }
}

/// Fills the topic; returns the time it took.
pub fn preload(topic: &Topic, corpus: &Corpus, events: usize) -> Result<Duration> {
    let mut producer = Producer::new(topic, corpus, Duration::from_millis(50))?;
    for _ in 0..events {
        producer.send()?;
    }
    let started = producer.started;
    producer.finish()?;
    Ok(started.elapsed())
}

/// Reads the topic from its beginning with one thread and touches every message.
pub fn consume(topic: &Topic, events: usize, limit: Duration) -> Result<u64> {
    let consumer: BaseConsumer = client(&topic.brokers)
        .set("group.id", format!("{}.consume", topic.name))
        .set("enable.auto.commit", "false")
        .set("queued.min.messages", "100000")
        .set("queued.max.messages.kbytes", "65536")
        .set("fetch.message.max.bytes", "4194304")
        .create()
        .at("making a consumer")?;
    let mut places = TopicPartitionList::new();
    for partition in 0..topic.partitions {
        places.add_partition_offset(&topic.name, partition, Offset::Beginning).at("assigning")?;
    }
    consumer.assign(&places).at("assigning")?;
    let deadline = Instant::now() + limit;
    let (mut seen, mut bytes) = (0, 0_u64);
    while seen < events {
        if Instant::now() > deadline {
            return Err(Error::new(format!("consume only: {seen} of {events} read within {limit:?}")));
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                bytes += std::hint::black_box(message.payload().unwrap_or_default()).len() as u64;
                seen += 1;
            }
            Some(Err(error)) => return Err(error).at("consuming"),
            None => {}
        }
    }
    Ok(bytes)
}
