//! Topics of a test's own, and a producer that keeps a ledger of what the broker acknowledged.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::servers;

pub fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers::kafka());
    config
}

fn admin() -> AdminClient<DefaultClientContext> {
    config().create().unwrap()
}

/// A name no other test uses.
pub fn topic_name(what: &str) -> String {
    format!("test.{what}.{}", Uuid::new_v4().simple())
}

pub async fn create_topic(name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let made = admin().create_topics([&topic], &AdminOptions::new()).await.unwrap();
    made[0].as_ref().unwrap();
}

pub async fn delete_topic(name: &str) {
    let gone = admin().delete_topics(&[name], &AdminOptions::new()).await.unwrap();
    gone[0].as_ref().unwrap();
}

/// Deletes the messages before this offset, as retention would.
pub async fn delete_records(topic: &str, partition: i32, before: i64) {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, partition, Offset::Offset(before)).unwrap();
    admin().delete_records(&offsets, &AdminOptions::new()).await.unwrap();
}

/// The messages of a topic so far, keys and values; partition by partition in order.
pub async fn read_all(topic: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let topic = topic.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config().set("group.id", "reader").create().unwrap();
        let patience = Duration::from_secs(10);
        let metadata = consumer.fetch_metadata(Some(&topic), patience).unwrap();
        let mut all = TopicPartitionList::new();
        let mut count = 0;
        for partition in metadata.topics()[0].partitions() {
            all.add_partition_offset(&topic, partition.id(), Offset::Beginning).unwrap();
            let (first, end) = consumer.fetch_watermarks(&topic, partition.id(), patience).unwrap();
            count += usize::try_from(end - first).unwrap();
        }
        consumer.assign(&all).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut read = Vec::new();
        while read.len() < count {
            assert!(Instant::now() < deadline, "only {} of {count} messages came", read.len());
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            let message = message.unwrap();
            read.push((
                message.key().unwrap_or_default().to_vec(),
                message.payload().unwrap_or_default().to_vec(),
            ));
        }
        read
    });
    reading.await.unwrap()
}

/// The offsets a reader of the whole partition sees.
pub fn readable(topic: &str, partition: i32) -> Vec<i64> {
    let consumer: BaseConsumer =
        config().set("group.id", topic_name("reader")).set("enable.partition.eof", "true").create().unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let mut offsets = Vec::new();
    loop {
        match consumer.poll(Duration::from_secs(20)) {
            Some(Ok(message)) => offsets.push(message.offset()),
            Some(Err(KafkaError::PartitionEOF(_))) => return offsets,
            other => panic!("{topic}/{partition}: {:?}", other.map(|result| result.map(|_| ()))),
        }
    }
}

/// What the broker acknowledged: partition, offset, SHA-256 of the value.
pub type Ledger = Vec<(i32, i64, [u8; 32])>;

#[derive(Clone, Default)]
pub struct Deliveries(Arc<Mutex<Ledger>>);

impl rdkafka::ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let message = result.as_ref().expect("delivered");
        let hash = Sha256::digest(message.payload().unwrap_or_default()).into();
        self.0.lock().unwrap().push((message.partition(), message.offset(), hash));
    }
}

/// A producer with a ledger.
pub struct Producer {
    inner: ThreadedProducer<Deliveries>,
    ledger: Deliveries,
}

impl Producer {
    pub fn new() -> Self {
        Self::with(&[])
    }

    pub fn with(settings: &[(&str, &str)]) -> Self {
        let ledger = Deliveries::default();
        let mut config = config();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("message.max.bytes", "16000000");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        Self { inner: config.create_with_context(ledger.clone()).unwrap(), ledger }
    }

    pub fn send(&self, topic: &str, value: &[u8], tenant: Option<Uuid>) {
        self.record(topic, None, None, Some(value), tenant);
    }

    pub fn send_keyed(&self, topic: &str, key: &str, value: &[u8], tenant: Option<Uuid>) {
        self.record(topic, None, Some(key), Some(value), tenant);
    }

    pub fn send_to(&self, topic: &str, partition: i32, value: &[u8], tenant: Option<Uuid>) {
        self.record(topic, Some(partition), None, Some(value), tenant);
    }

    pub fn tombstone(&self, topic: &str, tenant: Option<Uuid>) {
        self.record(topic, None, None, None, tenant);
    }

    fn record(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&str>,
        value: Option<&[u8]>,
        tenant: Option<Uuid>,
    ) {
        let tenant = tenant.map(|tenant| tenant.to_string());
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
        record.payload = value;
        record.key = key.map(str::as_bytes);
        record.partition = partition;
        if let Some(tenant) = &tenant {
            record = record.headers(
                OwnedHeaders::new().insert(Header { key: "inosec-tenant", value: Some(tenant.as_bytes()) }),
            );
        }
        loop {
            match self.inner.send(record) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.inner.poll(Duration::from_millis(10));
                }
                Err((error, _)) => panic!("{error}"),
            }
        }
    }

    pub fn inner(&self) -> &impl rdkafka::producer::Producer<Deliveries> {
        &self.inner
    }

    /// Waits for all acknowledgements and returns the ledger, sorted by place.
    pub fn ledger(&self) -> Ledger {
        self.inner.flush(Duration::from_secs(60)).unwrap();
        let mut ledger = self.ledger.0.lock().unwrap().clone();
        ledger.sort_unstable();
        ledger
    }
}
