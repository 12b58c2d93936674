//! What a cluster says about the configured topics, asked once at the start: its own id, each
//! topic's id and number of partitions, and in plain words what is missing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use uuid::Uuid;

use crate::consumer::config;
use crate::consumer::native::describe_topics;
use crate::error::Error;

/// Events served while looking for the reason why nobody answers: more than a few seconds bring.
const EVENTS: usize = 100;

/// A cluster and the topics that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's id; empty if the broker doesn't tell one (before Kafka 0.10.1).
    pub id: String,
    /// The topics, in the order asked for.
    pub topics: Vec<Described>,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// Its id: tells a re-created topic from its predecessor. `None` before Kafka 2.8.
    pub id: Option<Uuid>,
    /// The number of its partitions.
    pub partitions: usize,
}

/// Asks the brokers, with the same properties the consumer gets. Blocks at most about `timeout`.
///
/// # Errors
/// [`Error::Unreachable`] if no broker answers in time, with what librdkafka said last (a refused
/// connection, a failed login); [`Error::Topic`] for a topic that doesn't exist or may not be seen.
pub fn describe(
    brokers: &str,
    properties: &BTreeMap<String, String>,
    names: &[&str],
    timeout: Duration,
) -> Result<Cluster, Error> {
    let deadline = Instant::now() + timeout;
    let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
    let asking = config::client(brokers, "inosec", properties);
    let client: BaseConsumer<Listener> =
        asking.create_with_context(Listener::default()).map_err(Error::Client)?;
    let Some(id) = client.client().fetch_cluster_id(left()).or_else(|| answers(&client, left())) else {
        let reason = client.context().last();
        return Err(Error::Unreachable { brokers: brokers.to_owned(), seconds: timeout.as_secs(), reason });
    };
    let mut topics = ids(&client, names, left())?;
    for topic in &mut topics {
        if topic.partitions == 0 {
            topic.partitions = partitions(&client, &topic.name, left())?;
        }
    }
    Ok(Cluster { id, topics })
}

/// An empty cluster id if a broker answers at all. Serves the queue while it waits, which is how
/// errors reach the listener.
fn answers(client: &BaseConsumer<Listener>, timeout: Duration) -> Option<String> {
    let found = client.client().fetch_metadata(None, timeout);
    // A poll that only served an error returns nothing, so its answer can't end the loop.
    for _ in 0..EVENTS {
        drop(client.poll(Duration::ZERO));
    }
    found.ok().map(|_| String::new())
}

/// The topics with their ids; without them, and with 0 partitions, if the broker can't describe.
fn ids(client: &BaseConsumer<Listener>, names: &[&str], timeout: Duration) -> Result<Vec<Described>, Error> {
    let unknown = |name: &&str| Described { name: (*name).to_owned(), id: None, partitions: 0 };
    let mut topics: Vec<Described> = names.iter().map(unknown).collect();
    let answer = match describe_topics(client.client(), names, timeout) {
        Ok(answer) => answer,
        Err((code, text)) => {
            tracing::debug!(%code, text, "topics can't be described, asking for metadata instead");
            return Ok(topics);
        }
    };
    for found in answer {
        if let Some((code, text)) = found.error {
            return Err(missing(found.name, code, &text));
        }
        if let Some(topic) = topics.iter_mut().find(|topic| topic.name == found.name) {
            (topic.id, topic.partitions) = (found.id, found.partitions);
        }
    }
    Ok(topics)
}

fn partitions(client: &BaseConsumer<Listener>, name: &str, timeout: Duration) -> Result<usize, Error> {
    let metadata = client.client().fetch_metadata(Some(name), timeout).map_err(|error| {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        missing(name.to_owned(), code, &error.to_string())
    })?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    match topic.map(|topic| (topic.error(), topic.partitions().len())) {
        Some((None, count)) if count > 0 => Ok(count),
        Some((Some(error), _)) => Err(missing(name.to_owned(), error.into(), "")),
        _ => Err(missing(name.to_owned(), RDKafkaErrorCode::UnknownTopicOrPartition, "")),
    }
}

fn missing(topic: String, code: RDKafkaErrorCode, text: &str) -> Error {
    let reason = match code {
        RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {
            "does not exist".to_owned()
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => "this user may not read it".to_owned(),
        other if text.is_empty() => other.to_string(),
        _ => text.to_owned(),
    };
    Error::Topic { topic, reason }
}

/// Keeps the last error, for the message to the operator.
#[derive(Default)]
struct Listener(Mutex<String>);

impl Listener {
    fn last(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, text: &str) {
        text.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ClientContext for Listener {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(target: "librdkafka", facility, "{text}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // "All brokers are down" follows every other error and says less.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.keep(reason);
        }
    }
}

impl ConsumerContext for Listener {}
