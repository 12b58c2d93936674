//! What the consumer can be told, and how that becomes librdkafka properties.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::native::Context;
use crate::error::Error;

/// Rows at which a batch closes: transactions of about ten thousand rows were the fastest measured.
pub const MAX_ROWS: usize = 10_000;
/// Bytes at which a batch closes: ten thousand events of the corpus's mean size are 24 MB; memory is
/// given up here so that several batches fit the budget.
pub const MAX_BYTES: usize = 16 << 20;
/// Age at which a batch closes if there is room for it in its lane.
pub const MAX_AGE: Duration = Duration::from_millis(250);
/// Bytes of all batches in flight: what is left of 512 MiB after librdkafka, parsing and encoding.
pub const MEMORY: usize = 128 << 20;
/// After this long without a heartbeat a killed member's partitions go to others. Brokers refuse
/// less than 6 s by default (`group.min.session.timeout.ms`), and work must be back within 10 s.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// Bytes librdkafka may hold fetched and not yet polled. Small: larger queues gained others 5 to
/// 15 %, a pause throws the queue away, and a quiet topic's message waits behind what is in it.
pub const QUEUE_BYTES: usize = 16 << 20;
/// Bytes one fetch may bring, compressed; a broker sends at least one batch, however large. Fetched
/// batches are decompressed at once, so ten times this may be held per broker.
pub const FETCH_BYTES: usize = 4 << 20;
/// The largest response taken: a single batch may hold one message of 16 MiB and more.
const RECEIVE_BYTES: usize = 100 << 20;

/// What the consumer is told.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// The consumer group.
    pub group: String,
    /// How the client calls itself in the brokers' logs and quotas.
    pub client_id: String,
    /// A name for static membership, one per replica and the same after its restart: a restarted
    /// replica gets its partitions back at once and without a rebalance, but a stopped one keeps
    /// them from others until the session times out.
    pub instance_id: Option<String>,
    /// See [`SESSION_TIMEOUT`].
    pub session_timeout: Duration,
    /// Further librdkafka properties, as they are: `security.protocol`, `sasl.*`, `ssl.*`…
    pub properties: BTreeMap<String, String>,
    /// See [`MAX_ROWS`].
    pub max_rows: usize,
    /// See [`MAX_BYTES`]; values and headers.
    pub max_bytes: usize,
    /// See [`MAX_AGE`].
    pub max_age: Duration,
    /// See [`MEMORY`].
    pub memory: usize,
    /// See [`QUEUE_BYTES`].
    pub queue_bytes: usize,
    /// See [`FETCH_BYTES`].
    pub fetch_bytes: usize,
}

impl ConsumerConfig {
    /// The defaults for these brokers and this group.
    #[must_use]
    pub fn new(brokers: impl Into<String>, group: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            group: group.into(),
            client_id: "inosec".to_owned(),
            instance_id: None,
            session_timeout: SESSION_TIMEOUT,
            properties: BTreeMap::new(),
            max_rows: MAX_ROWS,
            max_bytes: MAX_BYTES,
            max_age: MAX_AGE,
            memory: MEMORY,
            queue_bytes: QUEUE_BYTES,
            fetch_bytes: FETCH_BYTES,
        }
    }

    /// Refuses what can't work, all faults in one message.
    pub fn check(&self) -> Result<(), Error> {
        let mut faults = Vec::new();
        for name in RESERVED.iter().filter(|name| self.properties.contains_key(**name)) {
            faults.push(format!("kafka property {name} is inosec's own: exactly-once depends on it"));
        }
        if self.max_rows == 0 || self.max_bytes == 0 {
            faults.push("batch.max_rows and batch.max_bytes must be at least 1".to_owned());
        }
        if self.max_bytes > 1 << 30 {
            faults.push("batch.max_bytes must be at most 1 GiB".to_owned());
        }
        if self.memory < self.max_bytes.saturating_mul(2) {
            faults.push("batch.memory must be at least twice batch.max_bytes".to_owned());
        }
        if faults.is_empty() { Ok(()) } else { Err(Error::Config(faults.join("; "))) }
    }

    /// The properties of any client of these brokers.
    pub(crate) fn client(&self) -> ClientConfig {
        client(&self.brokers, &self.client_id, &self.properties)
    }

    /// The properties of the consumer.
    pub(crate) fn consumer(&self) -> ClientConfig {
        let session = self.session_timeout.as_millis();
        let mut config = self.client();
        config
            .set("group.id", &self.group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            // Tells the position behind trailing holes, see `super`.
            .set("enable.partition.eof", "true")
            // On: librdkafka skips what it can't read, and only with the check does it say so.
            .set("check.crcs", "true")
            .set("session.timeout.ms", session.to_string())
            .set("heartbeat.interval.ms", (session / 3).to_string())
            // The loop polls many times a second; a minute without it means that it hangs.
            .set("max.poll.interval.ms", session.max(60_000).to_string())
            .set("statistics.interval.ms", "10000")
            .set("queued.max.messages.kbytes", (self.queue_bytes >> 10).max(1).to_string())
            // A full queue would otherwise rest for a second, longer than it takes to empty it.
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.max.bytes", self.fetch_bytes.to_string())
            .set("fetch.message.max.bytes", self.fetch_bytes.min(1 << 20).to_string())
            .set("fetch.wait.max.ms", "100")
            .set("receive.message.max.bytes", RECEIVE_BYTES.max(self.fetch_bytes * 2).to_string());
        // The values above are what works; whoever overrides the ones not reserved means it.
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        if let Some(instance) = &self.instance_id {
            config.set("group.instance.id", instance);
        }
        config
    }

    /// A client without a group, for watermarks. It reads uncommitted, to see the real end.
    pub(crate) fn scout(&self) -> Result<rdkafka::consumer::BaseConsumer<Context>, Error> {
        let mut config = self.client();
        config.set("isolation.level", "read_uncommitted");
        config.create_with_context(Context).map_err(Error::Client)
    }
}

/// The properties of any client: addresses, security, and a log that `tracing` filters.
pub(crate) fn client(brokers: &str, client_id: &str, properties: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", client_id)
        .set("topic.metadata.refresh.interval.ms", "30000")
        .set("reconnect.backoff.max.ms", "2000")
        .set("socket.nagle.disable", "true");
    for (name, value) in properties {
        config.set(name, value);
    }
    config.set("bootstrap.servers", brokers).set_log_level(RDKafkaLogLevel::Info);
    config
}

/// Properties that can't be overridden.
const RESERVED: &[&str] = &[
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "session.timeout.ms",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_are_told_at_once() {
        let mut config = ConsumerConfig::new("127.0.0.1:1", "g");
        assert!(config.check().is_ok());
        config.properties.insert("enable.auto.commit".into(), "true".into());
        config.max_rows = 0;
        config.memory = 1;
        let text = config.check().unwrap_err().to_string();
        for part in ["enable.auto.commit", "max_rows", "batch.memory"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn properties_reach_librdkafka_but_ours_stay() {
        let mut config = ConsumerConfig::new("127.0.0.1:1", "g");
        config.properties.insert("sasl.username".into(), "u".into());
        config.properties.insert("fetch.wait.max.ms".into(), "7".into());
        let made = config.consumer();
        assert_eq!(made.get("sasl.username"), Some("u"));
        assert_eq!(made.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(made.get("auto.offset.reset"), Some("error"));
    }
}
