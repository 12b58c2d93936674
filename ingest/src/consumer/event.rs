//! What the consumer tells the pipeline, and what it can be told.

use std::sync::Arc;
use std::time::Instant;

use inosec_schemas::Topic;

/// What happened. Offsets are Kafka's; `generation` is to be given back in the answer.
#[derive(Debug, Clone)]
pub enum Event {
    /// A partition came, or [`Command::Retry`] was asked for. Answer with [`Command::Resume`] once
    /// the database has said (or been told) where to start; nothing is fetched before.
    Assigned {
        /// The topic.
        topic: Arc<Topic>,
        /// The partition.
        partition: i32,
        /// The generation its spans will carry.
        generation: u64,
        /// The first offset the broker has.
        low: i64,
        /// One past the last.
        high: i64,
    },
    /// A partition went. Its unsent rows are forgotten; what is in lanes is the CAS's to judge.
    Revoked {
        /// The topic.
        topic: Arc<Topic>,
        /// The partition.
        partition: i32,
    },
    /// The broker doesn't have the position: retention overtook us (`position < low`), the topic was
    /// re-created (`position > high`), or the log was truncated. Stopped; answer as to `Assigned`.
    OutOfRange {
        /// The topic.
        topic: Arc<Topic>,
        /// The partition.
        partition: i32,
        /// The generation its spans will carry.
        generation: u64,
        /// The offset that was wanted.
        position: i64,
        /// The first offset the broker has.
        low: i64,
        /// One past the last.
        high: i64,
    },
    /// These partitions were read to their ends: as soon as the table has them at these offsets, all that
    /// Kafka took into them before `at` is stored.
    AtEnd {
        /// Topic, partition, position.
        partitions: Vec<(Arc<Topic>, i32, i64)>,
        /// In microseconds UTC.
        at: i64,
    },
    /// The broker delivers something that can't be read (a wrong checksum, an unknown compression).
    /// Stopped; answer with `Resume` at the same offset to try again, or behind it to skip.
    Unreadable {
        /// The topic.
        topic: Arc<Topic>,
        /// The partition.
        partition: i32,
        /// The generation its spans will carry.
        generation: u64,
        /// The position: everything before it was delivered.
        offset: i64,
        /// What librdkafka says.
        why: String,
    },
    /// Something is wrong that mends itself or needs an operator; consuming goes on where it can.
    Fault {
        /// The topic concerned, if it is one.
        topic: Option<Arc<Topic>>,
        /// What is wrong and what to do.
        why: String,
    },
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Command {
    /// The answer to `Assigned`, `OutOfRange` and `Unreadable`: fetch from this offset. Ignored if
    /// the generation has passed.
    Resume {
        /// The topic.
        topic: Arc<Topic>,
        /// The partition.
        partition: i32,
        /// The event's generation.
        generation: u64,
        /// Where to start, at least 0.
        offset: i64,
    },
    /// A span lost its CAS: fetch again from this offset, in a new generation. Ignored if the span's
    /// generation has passed, so every lost span may ask.
    Reseek {
        /// The topic.
        topic: Arc<Topic>,
        /// The partition.
        partition: i32,
        /// The lost span's generation.
        generation: u64,
        /// What the table says.
        offset: i64,
    },
    /// Stop fetching a partition, forget its unsent rows; [`Command::Retry`] revives it.
    Halt {
        /// The topic.
        topic: Arc<Topic>,
        /// The partition.
        partition: i32,
        /// For the log: what is wrong and what to do.
        why: String,
    },
    /// Look up a partition's watermarks again and send `Assigned` in a new generation.
    Retry {
        /// The topic.
        topic: Arc<Topic>,
        /// The partition.
        partition: i32,
    },
    /// Fetch nothing until `ResumeAll`; open batches stay and go out when they are old.
    PauseAll,
    /// Fetch again.
    ResumeAll,
    /// The table holds this offset: tell Kafka at the next tick, for lag tools. The latest counts.
    Commit {
        /// The topic.
        topic: Arc<Topic>,
        /// The partition.
        partition: i32,
        /// The next offset to consume.
        offset: i64,
    },
    /// Take no more messages, flush open batches to the lanes and close them; then wait for the
    /// commands' senders to be dropped (so that last commits get in), leave the group and return. At
    /// the deadline, leave in any case.
    Stop {
        /// When to leave in any case.
        deadline: Instant,
    },
}
