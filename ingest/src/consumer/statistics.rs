//! What the consumer reads from librdkafka's statistics: where each partition ends, and whether any
//! broker is reachable.

use std::collections::HashMap;

use serde::Deserialize;

/// The part of a statistics document that is used.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) struct Statistics {
    #[serde(default)]
    brokers: HashMap<String, Broker>,
    #[serde(default)]
    topics: HashMap<String, Topic>,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
struct Broker {
    #[serde(default)]
    state: String,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
struct Topic {
    #[serde(default)]
    partitions: HashMap<String, Partition>,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
struct Partition {
    /// The last stable offset: the end for a reader of committed messages; negative if unknown.
    #[serde(default)]
    ls_offset: i64,
}

impl Statistics {
    /// What can be read of the document; nothing if it isn't one.
    pub(crate) fn parse(json: &[u8]) -> Self {
        serde_json::from_slice(json).unwrap_or_default()
    }

    /// Whether a connection to any broker is up.
    pub(crate) fn reachable(&self) -> bool {
        self.brokers.values().any(|broker| broker.state == "UP")
    }

    /// The end of a partition, if it is known.
    pub(crate) fn end(&self, topic: &str, partition: i32) -> Option<i64> {
        let partitions = &self.topics.get(topic)?.partitions;
        partitions.get(&partition.to_string()).map(|found| found.ls_offset).filter(|end| *end >= 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_brokers_are_read() {
        let statistics = Statistics::parse(
            br#"{"ts":1,"brokers":{"a:1/1":{"state":"DOWN"},"b:1/2":{"state":"UP","x":{}}},
                "topics":{"t":{"age":3,"partitions":{"0":{"ls_offset":12,"hi_offset":13},"-1":{"ls_offset":-1001}}}}}"#,
        );
        assert!(statistics.reachable());
        assert_eq!(statistics.end("t", 0), Some(12));
        assert_eq!(
            (statistics.end("t", -1), statistics.end("t", 1), statistics.end("u", 0)),
            (None, None, None)
        );
        assert_eq!(Statistics::parse(b"nonsense"), Statistics::default());
    }
}
