//! The sink's metrics: every name once, described once. Labels come from closed sets (`stream`,
//! `outcome`, `reason`), never from tenants.

use metrics::{Unit, describe_counter, describe_histogram};

/// Rows committed, by `stream`; detections count under the stream they were written to.
pub const ROWS: &str = "inosec_sink_rows_total";
/// Bytes of messages committed (values as received), by `stream`.
pub const BYTES: &str = "inosec_sink_message_bytes_total";
/// Bytes of raw blocks committed (compressed), by `stream`.
pub const BLOCK_BYTES: &str = "inosec_sink_block_bytes_total";
/// Repeats of a foreign threat event that were dropped, by `stream`.
pub const DUPLICATES: &str = "inosec_sink_duplicates_total";
/// Messages committed as dead letters, by `reason`.
pub const DEAD_LETTERS: &str = "inosec_sink_dead_letters_total";
/// Matches beyond a rule's limit, counted and not stored.
pub const SUPPRESSED: &str = "inosec_sink_suppressed_matches_total";
/// Transactions, by `outcome`: committed, lost, stale, refused, failed, uncertain.
pub const TRANSACTIONS: &str = "inosec_sink_transactions_total";
/// How long a transaction took from BEGIN to the answer to COMMIT.
pub const COMMIT_SECONDS: &str = "inosec_sink_commit_duration_seconds";
/// From Kafka's time stamp of a message to its commit; sampled.
pub const DELAY_SECONDS: &str = "inosec_sink_event_delay_seconds";
/// Spans another owner had stored already.
pub const SPANS_LOST: &str = "inosec_sink_spans_lost_total";
/// Batches cut in two to find the row the database refuses.
pub const BISECTIONS: &str = "inosec_sink_bisections_total";
/// Attempts that failed and were tried again.
pub const RETRIES: &str = "inosec_sink_retries_total";
/// Raw blocks merged away by maintenance.
pub const MERGED_BLOCKS: &str = "inosec_sink_merged_blocks_total";

/// Tells the recorder what the names mean.
pub fn describe() {
    describe_counter!(ROWS, "Rows committed, by stream.");
    describe_counter!(BYTES, Unit::Bytes, "Bytes of messages committed, as received, by stream.");
    describe_counter!(BLOCK_BYTES, Unit::Bytes, "Bytes of raw blocks committed, compressed, by stream.");
    describe_counter!(DUPLICATES, "Repeats of a foreign threat event that were dropped, by stream.");
    describe_counter!(DEAD_LETTERS, "Messages committed as dead letters, by reason.");
    describe_counter!(SUPPRESSED, "Matches beyond a rule's limit, counted and not stored.");
    describe_counter!(TRANSACTIONS, "Transactions, by outcome.");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "Time from BEGIN to the answer to COMMIT.");
    describe_histogram!(
        DELAY_SECONDS,
        Unit::Seconds,
        "Time from Kafka's time stamp of a message to its commit."
    );
    describe_counter!(SPANS_LOST, "Spans another owner had stored already.");
    describe_counter!(BISECTIONS, "Batches cut in two to find the row the database refuses.");
    describe_counter!(RETRIES, "Attempts that failed and were tried again.");
    describe_counter!(MERGED_BLOCKS, "Raw blocks merged into larger ones.");
}
