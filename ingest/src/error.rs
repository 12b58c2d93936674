//! What can go wrong between Kafka and a decoded batch, apart from bad messages, which are data.

use rdkafka::error::KafkaError;

/// An error of the ingest room. Every text says what to do where that isn't obvious.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that can't be used.
    #[error("{0}")]
    Config(String),
    /// A Kafka client could not be made: usually a property librdkafka doesn't know or can't read.
    #[error("can't make a Kafka client: {0}; check the [kafka] section")]
    Client(#[source] KafkaError),
    /// No broker answered in time.
    #[error(
        "no Kafka broker of {brokers} answered within {seconds} s{}; check kafka.brokers, the network \
         and the security settings", because(.reason)
    )]
    Unreachable {
        /// The configured addresses.
        brokers: String,
        /// How long it was tried.
        seconds: u64,
        /// The last thing librdkafka said, if it said anything.
        reason: String,
    },
    /// A configured topic doesn't exist, or this user may not see it.
    #[error("Kafka topic {topic}: {reason}; create it or remove its [[topics]] entry")]
    Topic {
        /// The topic.
        topic: String,
        /// What the broker says.
        reason: String,
    },
    /// Kafka ended this member for good, for example because another process uses its instance id.
    #[error("Kafka ended this consumer: {0}; each replica needs its own kafka.instance_id")]
    Fatal(String),
    /// Subscribing, assigning or leaving failed.
    #[error("Kafka consumer: {0}")]
    Consumer(#[source] KafkaError),
    /// The other end of a lane or of the events went away: whoever held it has failed.
    #[error("the pipeline behind the consumer has ended")]
    Closed,
    /// A thread could not be started.
    #[error("can't start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// What the caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Try again after a pause.
    Retry,
    /// Stop with a message: only an operator can mend it.
    Halt,
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Unreachable { .. } | Self::Consumer(_) | Self::Thread(_) => Disposition::Retry,
            Self::Config(_) | Self::Client(_) | Self::Topic { .. } | Self::Fatal(_) | Self::Closed => {
                Disposition::Halt
            }
        }
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}
