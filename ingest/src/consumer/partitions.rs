//! The partitions assigned to this process, each with its position and state, and what has to be
//! told to librdkafka to start, stop, pause and resume them.
//!
//! **Why partitions are not handed to librdkafka in the rebalance callback.** The obvious way, to
//! assign them paused and seek later, is unsound with `auto.offset.reset=error` (librdkafka 2.12.1):
//! an assignment needs a position, any wrong one may be answered with "out of range" before the
//! pause takes effect, and a partition in that state refuses every later seek ("Erroneous state").
//! So the callback is answered with an empty incremental assignment, and a partition is added by
//! `incremental_assign` at its exact offset once that is known. Nothing can be fetched before that,
//! and one mechanism serves first start, re-seek and recovery from "out of range". What a revocation
//! takes away is the part of it that was added.
//!
//! **Why nothing from an old position is ever delivered.** `pause` raises the partition's version in
//! the calling thread; messages of an older version are dropped when polled. So [`Partitions::stop`]
//! pauses, then unassigns. The pause outlives the unassignment and is taken back before the next
//! start. As a second line the consumer ignores messages before the position.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inosec_schemas::Topic;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::batches::Place;
use super::native::Context;
use super::statistics::Statistics;

/// How long after a failed attempt the next one waits.
const RETRY: Duration = Duration::from_secs(1);

/// Index of the topic, and the partition.
pub(crate) type Key = (usize, i32);

/// What a partition is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Its watermarks are wanted, or asked for; the event that carries them follows.
    Looking { asked: bool, why: Why },
    /// The event was sent: somebody must say at which offset to start.
    Waiting,
    /// That was said; it starts as soon as it may.
    Held(i64),
    /// It is fetched, unless paused.
    Running,
}

/// Why watermarks are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// A new assignment, or a retry.
    Assigned,
    /// The broker doesn't have the position.
    OutOfRange,
}

/// One assigned partition.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) place: Place,
    pub(crate) state: State,
    /// Paused because it holds too much memory.
    pub(crate) heavy: bool,
    /// Where it ends, as far as known; at least the position.
    pub(crate) end: i64,
    /// Not to be asked or started before.
    not_before: Option<Instant>,
}

impl Slot {
    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|time| time <= now)
    }
}

/// All assigned partitions.
pub(crate) struct Partitions {
    topics: Vec<Arc<Topic>>,
    slots: BTreeMap<Key, Slot>,
    /// Counts up over all partitions, so that no generation is used twice.
    generation: u64,
    /// Nothing may be fetched: the database is down, or we are stopping.
    pub(crate) paused: bool,
}

impl Partitions {
    pub(crate) fn new(topics: Vec<Arc<Topic>>) -> Self {
        Self { topics, slots: BTreeMap::new(), generation: 0, paused: false }
    }

    pub(crate) fn topics(&self) -> &[Arc<Topic>] {
        &self.topics
    }

    pub(crate) fn topic(&self, key: Key) -> &Arc<Topic> {
        &self.topics[key.0]
    }

    /// The index of a topic by name.
    pub(crate) fn index(&self, topic: &[u8]) -> Option<usize> {
        self.topics.iter().position(|known| known.name.as_bytes() == topic)
    }

    /// Whether the topic of this index has this name.
    pub(crate) fn is_named(&self, index: usize, topic: &[u8]) -> bool {
        self.topics[index].name.as_bytes() == topic
    }

    pub(crate) fn get(&mut self, key: Key) -> Option<&mut Slot> {
        self.slots.get_mut(&key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Slot)> {
        self.slots.iter()
    }

    /// Adds a partition, in the lane with the fewest of its topic, then the fewest at all.
    pub(crate) fn add(&mut self, key: Key, lanes: usize) {
        let generation = self.next_generation();
        let load = |lane: usize| {
            let of_lane = || self.slots.iter().filter(move |(_, slot)| slot.place.lane == lane);
            (of_lane().filter(|(other, _)| other.0 == key.0).count(), of_lane().count())
        };
        let lane = (0..lanes).min_by_key(|lane| load(*lane)).unwrap_or(0);
        let place =
            Place { topic: key.0, partition: key.1, lane, generation, next: 0, share: Arc::default() };
        let state = State::Looking { asked: false, why: Why::Assigned };
        self.slots.insert(key, Slot { place, state, heavy: false, end: 0, not_before: None });
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Slot> {
        self.slots.remove(&key)
    }

    /// Puts a partition that isn't running into a state of a new generation; returns that.
    pub(crate) fn renew(&mut self, key: Key, state: State) -> u64 {
        let generation = self.next_generation();
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.place.generation = generation;
            (slot.state, slot.heavy, slot.not_before) = (state, false, None);
        }
        generation
    }

    /// Partitions whose watermarks have to be asked for.
    pub(crate) fn to_ask(&self, now: Instant) -> Vec<(Key, u64)> {
        let wanted =
            |slot: &Slot| matches!(slot.state, State::Looking { asked: false, .. }) && slot.is_due(now);
        self.slots
            .iter()
            .filter(|(_, slot)| wanted(slot))
            .map(|(key, slot)| (*key, slot.place.generation))
            .collect()
    }

    /// Records that a partition's watermarks were asked for, or that they couldn't be told.
    pub(crate) fn asked(&mut self, key: Key, asked: bool, now: Instant) {
        if let Some(slot) = self.slots.get_mut(&key)
            && let State::Looking { why, .. } = slot.state
        {
            slot.state = State::Looking { asked, why };
            slot.not_before = (!asked).then_some(now + RETRY);
        }
    }

    /// Starts every partition that may; returns those that started and failures, which are retried.
    pub(crate) fn start_held(
        &mut self,
        consumer: &BaseConsumer<Context>,
        now: Instant,
    ) -> (Vec<Key>, Vec<(Key, KafkaError)>) {
        let (mut started, mut failed) = (Vec::new(), Vec::new());
        if self.paused {
            return (started, failed);
        }
        for (key, slot) in &mut self.slots {
            let State::Held(offset) = slot.state else { continue };
            if !slot.is_due(now) {
                continue;
            }
            match start(consumer, &self.topics[key.0].name, key.1, offset) {
                Ok(()) => {
                    slot.place.next = offset;
                    slot.state = State::Running;
                    started.push(*key);
                }
                Err(error) => {
                    slot.not_before = Some(now + RETRY);
                    failed.push((*key, error));
                }
            }
        }
        (started, failed)
    }

    /// Stops fetching these of the running ones; no message of them will be polled any more.
    pub(crate) fn stop(&self, consumer: &BaseConsumer<Context>, keys: &[Key]) -> Result<(), KafkaError> {
        let running = |key: &&Key| self.slots.get(*key).is_some_and(|slot| slot.state == State::Running);
        let list = self.list(keys.iter().filter(running).copied());
        consumer.pause(&list)?;
        consumer.incremental_unassign(&list)
    }

    /// Pauses everything, or lets all go on that don't hold too much memory.
    pub(crate) fn pause_all(
        &mut self,
        consumer: &BaseConsumer<Context>,
        paused: bool,
    ) -> Result<(), KafkaError> {
        if self.paused == paused {
            return Ok(());
        }
        self.paused = paused;
        let running = self.slots.iter().filter(|(_, slot)| slot.state == State::Running && !slot.heavy);
        let list = self.list(running.map(|(key, _)| *key));
        if paused { consumer.pause(&list) } else { consumer.resume(&list) }
    }

    /// Pauses or resumes these because of the memory they hold.
    pub(crate) fn set_heavy(
        &mut self,
        consumer: &BaseConsumer<Context>,
        keys: &[Key],
        heavy: bool,
    ) -> Result<(), KafkaError> {
        for key in keys {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.heavy = heavy;
            }
        }
        if keys.is_empty() || self.paused {
            return Ok(());
        }
        let list = self.list(keys.iter().copied());
        if heavy { consumer.pause(&list) } else { consumer.resume(&list) }
    }

    /// Notes where partitions end.
    pub(crate) fn learn_ends(&mut self, statistics: &Statistics) {
        for (key, slot) in &mut self.slots {
            if let Some(end) = statistics.end(&self.topics[key.0].name, key.1) {
                slot.end = end;
            }
        }
    }

    /// The partitions that were read to where they end, with their positions.
    pub(crate) fn at_end(&self) -> Vec<(Arc<Topic>, i32, i64)> {
        let at_end =
            self.slots.iter().filter(|(_, slot)| slot.state == State::Running && slot.place.next >= slot.end);
        at_end.map(|(key, slot)| (Arc::clone(self.topic(*key)), key.1, slot.place.next)).collect()
    }

    /// A list of partitions, as librdkafka takes it.
    pub(crate) fn list(&self, keys: impl Iterator<Item = Key>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for key in keys {
            list.add_partition(&self.topics[key.0].name, key.1);
        }
        list
    }

    fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }
}

fn start(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    consumer.resume(&list)?;
    consumer.incremental_assign(&list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::tests::topic;

    #[test]
    fn partitions_spread_over_lanes_topic_by_topic() {
        let mut partitions = Partitions::new(vec![topic("a"), topic("b")]);
        for key in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
            partitions.add(key, 2);
        }
        let count = |topic, lane| {
            partitions.iter().filter(|(key, slot)| key.0 == topic && slot.place.lane == lane).count()
        };
        assert_eq!((count(0, 0), count(0, 1), count(1, 0), count(1, 1)), (2, 1, 1, 2));
    }

    #[test]
    fn no_generation_is_used_twice() {
        let mut partitions = Partitions::new(vec![topic("a")]);
        partitions.add((0, 0), 1);
        let first = partitions.get((0, 0)).unwrap().place.generation;
        let second = partitions.renew((0, 0), State::Waiting);
        partitions.remove((0, 0));
        partitions.add((0, 0), 1);
        let third = partitions.get((0, 0)).unwrap().place.generation;
        assert!(first < second && second < third);
    }
}
