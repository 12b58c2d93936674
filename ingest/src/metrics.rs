//! The names of the ingest room's metrics, each described once. Labels come from closed sets:
//! `stream` (the stream a topic feeds) and `reason`; never a tenant, topic or partition.

use metrics::{Unit, describe_counter, describe_gauge};

/// Messages received and put into batches. Label: `stream`.
pub const MESSAGES: &str = "inosec_consumer_messages_total";
/// Bytes of values and headers received. Label: `stream`.
pub const BYTES: &str = "inosec_consumer_bytes_total";
/// Batches closed. Labels: `stream`; `reason` = `rows`, `bytes`, `age` or `stop`.
pub const BATCHES: &str = "inosec_consumer_batches_total";
/// Messages received from a position the consumer had already left, and ignored. Label: `stream`.
pub const STALE: &str = "inosec_consumer_stale_messages_total";
/// Rebalance callbacks. Label: `reason` = `assigned`, `revoked` or `lost`.
pub const REBALANCES: &str = "inosec_consumer_rebalances_total";
/// Times a partition was started at an offset. Label: `stream`.
pub const STARTS: &str = "inosec_consumer_partition_starts_total";
/// Errors Kafka reported. Label: `reason` = `broker`, `topic`, `offset`, `unreadable` or `other`.
pub const ERRORS: &str = "inosec_consumer_errors_total";
/// Partitions assigned to this process. Label: `stream`.
pub const PARTITIONS: &str = "inosec_consumer_assigned_partitions";
/// Partitions of these not being fetched. Label: `reason` = `memory`, `database` or `waiting`.
pub const PAUSED: &str = "inosec_consumer_paused_partitions";
/// Messages not yet consumed, summed over this process's partitions. Label: `stream`.
pub const LAG: &str = "inosec_consumer_lag_messages";
/// Messages not yet consumed in the partition that is furthest behind. Label: `stream`.
pub const LAG_MAX: &str = "inosec_consumer_lag_max_messages";
/// Bytes of the memory budget in use.
pub const BUDGET_USED: &str = "inosec_consumer_budget_used_bytes";
/// The memory budget.
pub const BUDGET: &str = "inosec_consumer_budget_bytes";
/// Messages in librdkafka's queue, waiting to be polled.
pub const QUEUE_MESSAGES: &str = "inosec_consumer_fetch_queue_messages";
/// Values that fit no column and were left null. Label: `stream`.
pub const MISMATCHES: &str = "inosec_decode_mismatches_total";
/// Events without a class, on which no rule runs. Label: `format`.
pub const UNCLASSIFIED: &str = "inosec_decode_unclassified_events_total";

/// Registers every description with the recorder in place.
pub fn describe() {
    describe_counter!(MESSAGES, Unit::Count, "Messages received and put into batches");
    describe_counter!(BYTES, Unit::Bytes, "Bytes of values and headers received");
    describe_counter!(BATCHES, Unit::Count, "Batches closed, by what closed them");
    describe_counter!(STALE, Unit::Count, "Messages from a position already left, ignored");
    describe_counter!(REBALANCES, Unit::Count, "Rebalances of the consumer group seen by this process");
    describe_counter!(STARTS, Unit::Count, "Times a partition was started at an offset");
    describe_counter!(ERRORS, Unit::Count, "Errors reported by Kafka");
    describe_counter!(MISMATCHES, Unit::Count, "Values that fit no column and were left null");
    describe_counter!(UNCLASSIFIED, Unit::Count, "Events without a class, on which no rule runs");
    describe_gauge!(PARTITIONS, Unit::Count, "Partitions assigned to this process");
    describe_gauge!(PAUSED, Unit::Count, "Assigned partitions that are not being fetched");
    describe_gauge!(LAG, Unit::Count, "Messages not yet consumed, all partitions of this process");
    describe_gauge!(LAG_MAX, Unit::Count, "Messages not yet consumed, the partition furthest behind");
    describe_gauge!(BUDGET_USED, Unit::Bytes, "Memory budget held by messages in flight");
    describe_gauge!(BUDGET, Unit::Bytes, "Memory budget for messages in flight");
    describe_gauge!(QUEUE_MESSAGES, Unit::Count, "Messages fetched by librdkafka and not yet polled");
}
