//! Kafka to batches: one OS thread that polls, copies and hands on, and knows nothing of PostgreSQL.
//!
//! ```text
//!  librdkafka queue (queue_bytes) ──poll──► open batch per topic × lane ──► lane (bounded channel) ──► decode
//!        ▲ pause / resume / start at offset         │ memory budget: Hold
//!        └───────────── commands ◄── pipeline ◄── events (assigned, revoked, out of range…)
//! ```
//!
//! **In**: messages of the subscribed topics; [`Command`]s. **Out**: [`Messages`] on the lanes, whose
//! spans chain without gap within a generation; [`Event`]s. **Promised on failure**: what isn't in a
//! lane is forgotten and will be read again from the offset the pipeline gives; nothing waits for a
//! lane, a database or (but for the calls librdkafka's own thread answers at once) Kafka.
//!
//! A partition's life: assigned → its watermarks are looked up on another thread →
//! [`Event::Assigned`] → the pipeline asks the database → [`Command::Resume`] → fetched from exactly
//! that offset. `consumer/partitions.rs` says why it is not assigned to librdkafka before.
//!
//! **Holes.** Offsets without a message (transaction markers, aborted or compacted records) belong to
//! the span of the next message. Behind the last message librdkafka's end-of-partition event, which
//! comes in the order of the messages, carries the position it has reached: an empty span up to there
//! follows. Unknown remains only what is beyond the last stable offset.

mod batches;
mod budget;
pub(crate) mod config;
mod event;
pub(crate) mod native;
mod news;
mod orders;
mod partitions;
mod scout;
mod statistics;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use inosec_schemas::{Messages, Topic};
use metrics::{counter, gauge};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender};

use self::batches::{Batches, Incoming, Limits, write_header};
pub use self::budget::Budget;
use self::budget::{Holder, relieve};
pub use self::config::{
    ConsumerConfig, FETCH_BYTES, MAX_AGE, MAX_BYTES, MAX_ROWS, MEMORY, QUEUE_BYTES, SESSION_TIMEOUT,
};
pub use self::event::{Command, Event};
use self::native::{Kind, Link, Record};
use self::partitions::{Key, Partitions, State};
use self::scout::Scout;
use self::statistics::Statistics;
use crate::error::Error;
use crate::metrics as names;

/// Messages taken between two looks at commands and lanes: less than a millisecond of work.
const TURN: usize = 500;
/// How long an idle turn waits for a message.
const IDLE: Duration = Duration::from_millis(10);
/// How long a turn waits when batches wait for their lane.
const BUSY: Duration = Duration::from_millis(2);
/// Above the high mark polling rests this long before the heavy partitions are paused, if another topic
/// may be waiting behind them.
const PATIENCE: Duration = Duration::from_millis(100);
/// If none may, it rests for as long as batches are stored within this time. A pause throws away what
/// librdkafka has fetched, and after one of all partitions it sleeps for up to a second; a sink that is
/// merely busy should cost neither.
const STUCK: Duration = Duration::from_millis(500);
/// Time between advisory commits, and between looks at the gauges.
const TICK: Duration = Duration::from_secs(1);
/// The same fault is told again after this long.
const QUIET: Duration = Duration::from_secs(30);
/// Where a partition ends was heard with its last fetch, and producers stamp records before they send them:
/// what is known of an end holds of so long ago.
const FETCHED: i64 = 10_000_000;
/// Record times further than this ahead of our clock are not believed.
const AHEAD: i64 = 3_600_000_000;
/// Without an assignment for so long after partitions were lost, the client is replaced. librdkafka
/// 2.12 can wait for ever to finish unassigning (an offset commit that met a coordinator going away
/// is counted twice); a live group assigns within its session time-out.
const REJOIN: Duration = Duration::from_secs(12);
/// How long to flush if nobody said `Stop` but the commands ended.
const GRACE: Duration = Duration::from_secs(5);

/// What the consumer is connected to.
pub struct Wiring {
    /// The topics to subscribe to.
    pub topics: Vec<Arc<Topic>>,
    /// Where batches go; a partition keeps its lane while it is assigned. A capacity of 1 or 2 keeps
    /// topics fair to each other.
    pub lanes: Vec<Sender<Messages>>,
    /// Where events go.
    pub events: Sender<Event>,
    /// Where commands come from. Dropping all senders after [`Command::Stop`] makes it leave.
    pub commands: Receiver<Command>,
    /// Microseconds UTC now.
    pub clock: fn() -> i64,
    /// The memory of all messages in flight, made by [`Budget::new`] of [`ConsumerConfig::memory`].
    pub budget: Arc<Budget>,
}

/// The consumer. [`Consumer::run`] on a thread of its own, or [`Consumer::spawn`].
pub struct Consumer {
    link: Link,
    partitions: Partitions,
    batches: Batches,
    budget: Arc<Budget>,
    scout: Scout,
    events: Sender<Event>,
    outbox: VecDeque<Event>,
    commands: Receiver<Command>,
    clock: fn() -> i64,
    commits: HashMap<Key, i64>,
    /// When each kind of fault was last told.
    told: HashMap<String, Instant>,
    /// Since when nothing was given back while the memory is above the high mark, and what was used
    /// then.
    full: Option<(Instant, usize)>,
    unreachable: bool,
    /// What another client is made of.
    config: ConsumerConfig,
    /// Since when partitions are lost without a new assignment.
    lost_since: Option<Instant>,
    stop: Option<Instant>,
    left: bool,
    ticked: Instant,
    last_topic: usize,
}

impl Consumer {
    /// Makes the clients and subscribes. Doesn't wait for a broker.
    ///
    /// # Errors
    /// [`Error::Config`] and [`Error::Client`] for settings that can't work.
    pub fn new(config: &ConsumerConfig, wiring: Wiring) -> Result<Self, Error> {
        config.check()?;
        if wiring.topics.is_empty() || wiring.lanes.is_empty() {
            return Err(Error::Config("no [[topics]] to consume, or no lane to put them".to_owned()));
        }
        let link = Link::new(&config.consumer()).map_err(Error::Client)?;
        let scout = Scout::start(config.scout()?)?;
        let names: Vec<&str> = wiring.topics.iter().map(|topic| topic.name.as_str()).collect();
        link.consumer().subscribe(&names).map_err(Error::Consumer)?;
        let limits =
            Limits { max_rows: config.max_rows, max_bytes: config.max_bytes, max_age: config.max_age };
        Ok(Self {
            link,
            partitions: Partitions::new(wiring.topics.clone()),
            batches: Batches::new(limits, Arc::clone(&wiring.budget), wiring.topics, wiring.lanes),
            budget: wiring.budget,
            scout,
            events: wiring.events,
            outbox: VecDeque::new(),
            commands: wiring.commands,
            clock: wiring.clock,
            commits: HashMap::new(),
            told: HashMap::new(),
            full: None,
            unreachable: false,
            config: config.clone(),
            lost_since: None,
            stop: None,
            left: false,
            ticked: Instant::now(),
            last_topic: 0,
        })
    }

    /// Runs it on a thread of its own.
    pub fn spawn(config: &ConsumerConfig, wiring: Wiring) -> Result<JoinHandle<Result<(), Error>>, Error> {
        let consumer = Self::new(config, wiring)?;
        thread::Builder::new()
            .name("kafka-consumer".into())
            .spawn(move || consumer.run())
            .map_err(Error::Thread)
    }

    /// Consumes until stopped, then leaves the group.
    ///
    /// # Errors
    /// [`Error::Fatal`] if Kafka ends this member, [`Error::Closed`] if a lane or the events were
    /// closed from the other side.
    pub fn run(mut self) -> Result<(), Error> {
        let outcome = loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.commit();
        self.batches.close_lanes();
        outcome
    }

    /// One round of the loop; false when it is over.
    fn turn(&mut self) -> Result<bool, Error> {
        let now = Instant::now();
        self.obey(now)?;
        self.look(now)?;
        self.start(now);
        self.batches.send(now)?;
        self.tell()?;
        if now.saturating_duration_since(self.ticked) >= TICK {
            self.ticked = now;
            self.commit();
            self.report();
            self.rejoin(now)?;
        }
        if let Some(deadline) = self.stop {
            let flushed = self.batches.is_empty();
            if flushed {
                self.batches.close_lanes();
            }
            if now >= deadline && !flushed {
                tracing::warn!("stopped with batches still waiting; they will be read again");
            }
            if now >= deadline || (flushed && self.left) {
                return Ok(false);
            }
        }
        if self.relieve(now)? {
            self.budget.wait(BUSY);
        } else {
            self.receive(now)?;
        }
        Ok(true)
    }

    /// Polls until there is nothing, or enough.
    fn receive(&mut self, now: Instant) -> Result<(), Error> {
        let clock = (self.clock)();
        let mut wait = if self.batches.is_waiting() { BUSY } else { IDLE };
        for _ in 0..TURN {
            let Some(happening) = self.link.poll(wait) else { break };
            wait = Duration::ZERO;
            let news = match happening.kind() {
                Kind::Record(record) => {
                    if self.stop.is_none() {
                        let (partitions, batches) = (&mut self.partitions, &mut self.batches);
                        take(partitions, batches, &mut self.last_topic, &record, now, clock);
                    }
                    // Not after the turn: 500 messages may be 500 MB.
                    if self.budget.used() >= self.budget.high() {
                        break;
                    }
                    continue;
                }
                Kind::Statistics(json) => {
                    let statistics = Statistics::parse(json);
                    self.partitions.learn_ends(&statistics);
                    self.unreachable &= !statistics.reachable();
                    let at_end = self.partitions.at_end();
                    if !self.unreachable && !at_end.is_empty() {
                        self.outbox.push_back(Event::AtEnd { partitions: at_end, at: clock - FETCHED });
                    }
                    continue;
                }
                Kind::News(news) => news,
                Kind::Nothing => continue,
            };
            drop(happening);
            self.heed(news, now)?;
        }
        Ok(())
    }

    fn start(&mut self, now: Instant) {
        let (started, failed) = self.partitions.start_held(self.link.consumer(), now);
        for key in started {
            let stream = self.partitions.topic(key).stream.name.clone();
            counter!(names::STARTS, "stream" => stream).increment(1);
        }
        for (key, error) in failed {
            self.fault(Some(key), format!("can't start: {error}"), now);
        }
    }

    /// Pauses and resumes by memory; true if polling should rest for a moment instead.
    fn relieve(&mut self, now: Instant) -> Result<bool, Error> {
        let used = self.budget.used();
        let full = used >= self.budget.high();
        if !full {
            self.full = None;
        } else {
            let waits = self.a_light_topic_waits();
            let (since, least) = self.full.get_or_insert((now, used));
            if used < *least && !waits {
                (*since, *least) = (now, used);
            }
            if now.saturating_duration_since(*since) < if waits { PATIENCE } else { STUCK } {
                return Ok(self.batches_running());
            }
        }
        if !full && self.partitions.iter().all(|(_, slot)| !slot.heavy) {
            return Ok(false);
        }
        let running = self.partitions.iter().filter(|(_, slot)| slot.state == State::Running);
        let holders: Vec<Holder<Key>> = running
            .map(|(key, slot)| Holder { key: *key, held: self.batches.held(&slot.place), paused: slot.heavy })
            .collect();
        let relief = relieve(&self.budget, &holders);
        let consumer = self.link.consumer();
        self.partitions.set_heavy(consumer, &relief.pause, true).map_err(Error::Consumer)?;
        self.partitions.set_heavy(consumer, &relief.resume, false).map_err(Error::Consumer)?;
        Ok(false)
    }

    /// Whether a topic holds so little that it may be waiting behind the others.
    fn a_light_topic_waits(&self) -> bool {
        let mut held: BTreeMap<usize, usize> = BTreeMap::new();
        for (key, slot) in self.partitions.iter().filter(|(_, slot)| slot.state == State::Running) {
            *held.entry(key.0).or_default() += self.batches.held(&slot.place);
        }
        let fair = self.budget.low() / held.len().max(1);
        held.len() > 1 && held.values().any(|held| *held < fair / 2)
    }

    /// Whether any partition is still fetched; if none is, there is no reason to rest.
    fn batches_running(&self) -> bool {
        self.partitions.iter().any(|(_, slot)| slot.state == State::Running && !slot.heavy)
    }

    /// Sends what is in the outbox, as far as there is room.
    fn tell(&mut self) -> Result<(), Error> {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    break;
                }
                // While stopping nobody needs to listen any more.
                Err(TrySendError::Closed(_)) if self.stop.is_some() => {}
                Err(TrySendError::Closed(_)) => return Err(Error::Closed),
            }
        }
        Ok(())
    }

    /// Replaces a client that lost its partitions and doesn't come back to its group.
    fn rejoin(&mut self, now: Instant) -> Result<(), Error> {
        let stuck = self.lost_since.is_some_and(|since| now.saturating_duration_since(since) > REJOIN);
        if !stuck || self.stop.is_some() {
            return Ok(());
        }
        tracing::warn!("no assignment since partitions were lost: joining the group with a new client");
        let keys: Vec<Key> = self.partitions.iter().map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(slot) = self.partitions.remove(key) {
                self.batches.forget(&slot.place);
            }
        }
        let link = Link::new(&self.config.consumer()).map_err(Error::Client)?;
        let names: Vec<&str> = self.partitions.topics().iter().map(|topic| topic.name.as_str()).collect();
        link.consumer().subscribe(&names).map_err(Error::Consumer)?;
        let old = std::mem::replace(&mut self.link, link);
        self.lost_since = Some(now);
        // Closing waits for what will not happen; it may take its thread with it.
        let closing = thread::Builder::new().name("kafka-leaving".into()).spawn(move || drop(old));
        closing.map(drop).map_err(Error::Thread)
    }

    /// Commits to Kafka what the table already holds: for lag tools only, so failures don't matter.
    fn commit(&mut self) {
        if self.commits.is_empty() || self.unreachable || self.lost_since.is_some() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (key, offset) in self.commits.drain() {
            let name = &self.partitions.topic(key).name;
            drop(list.add_partition_offset(name, key.1, Offset::Offset(offset)));
        }
        if let Err(error) = self.link.consumer().commit(&list, CommitMode::Async) {
            tracing::debug!(%error, "advisory commit failed");
        }
    }

    fn report(&self) {
        let names_of = self.partitions.topics().iter().map(|topic| topic.stream.name.as_str());
        let mut streams: HashMap<&str, (u32, i64, i64)> = names_of.map(|name| (name, (0, 0, 0))).collect();
        let (mut heavy, mut waiting) = (0_u32, 0_u32);
        for (key, slot) in self.partitions.iter() {
            let entry = streams.entry(&self.partitions.topic(*key).stream.name).or_default();
            let lag = (slot.end - slot.place.next).max(0);
            *entry = (entry.0 + 1, entry.1 + lag, entry.2.max(lag));
            heavy += u32::from(slot.heavy);
            waiting += u32::from(slot.state != State::Running);
        }
        for (stream, (partitions, lag, worst)) in streams {
            gauge!(names::PARTITIONS, "stream" => stream.to_owned()).set(partitions);
            gauge!(names::LAG, "stream" => stream.to_owned()).set(lag as f64);
            gauge!(names::LAG_MAX, "stream" => stream.to_owned()).set(worst as f64);
        }
        let stopped = if self.partitions.paused { self.partitions.iter().count() } else { 0 };
        gauge!(names::PAUSED, "reason" => "database").set(stopped as f64);
        gauge!(names::PAUSED, "reason" => "memory").set(heavy);
        gauge!(names::PAUSED, "reason" => "waiting").set(waiting);
        gauge!(names::BUDGET).set(self.budget.memory() as f64);
        gauge!(names::BUDGET_USED).set(self.budget.used() as f64);
        gauge!(names::QUEUE_MESSAGES).set(self.link.queued() as f64);
    }
}

/// Puts a message into its batch, unless it comes from a position already left.
fn take(
    partitions: &mut Partitions,
    batches: &mut Batches,
    last_topic: &mut usize,
    record: &Record<'_>,
    now: Instant,
    clock: i64,
) {
    let name = record.topic();
    if !partitions.is_named(*last_topic, name) {
        let Some(index) = partitions.index(name) else { return };
        *last_topic = index;
    }
    let key = (*last_topic, record.partition());
    let offset = record.offset();
    match partitions.get(key) {
        Some(slot) if slot.state == State::Running && offset >= slot.place.next => {
            let arrived_at = arrival(record.timestamp(), clock);
            let incoming = Incoming { offset, arrived_at, value: record.value() };
            batches.push(&mut slot.place, now, incoming, |bytes| {
                record.headers(|name, value| write_header(bytes, name, value));
            });
        }
        _ => {
            let stream = partitions.topic(key).stream.name.clone();
            counter!(names::STALE, "stream" => stream).increment(1);
        }
    }
}

/// When Kafka took a message, in microseconds: its record time, or `clock` if there is none or it
/// lies in the future, which a producer's clock may do to it.
fn arrival(millis: i64, clock: i64) -> i64 {
    match millis.checked_mul(1000) {
        Some(micros) if micros > 0 && micros <= clock.saturating_add(AHEAD) => micros,
        _ => clock,
    }
}
