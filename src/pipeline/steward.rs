//! The steward answers the consumer's questions from the database, and tells it what became of what
//! it handed on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use inosec_ingest::consumer::{Command, Event};
use inosec_schemas::Topic;
use inosec_sink::{Health, Lost, Resume, Start, Store};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::lane::Report;
use crate::ops::Readiness;

/// Between two attempts to ask a database that doesn't answer.
const RETRY: Duration = Duration::from_millis(500);

/// The steward of one database.
pub struct Steward {
    name: String,
    store: Arc<Store>,
    start: Start,
    commands: mpsc::Sender<Command>,
    readiness: Readiness,
    /// Partitions that are not read until somebody decides, and why.
    halted: BTreeMap<(String, i32), String>,
}

impl Steward {
    /// A steward that commands a consumer.
    pub fn new(
        name: &str,
        store: Arc<Store>,
        start: Start,
        commands: mpsc::Sender<Command>,
        readiness: Readiness,
    ) -> Self {
        Self { name: name.to_owned(), store, start, commands, readiness, halted: BTreeMap::new() }
    }

    /// Works until the last writer is gone; until then their commits are told to Kafka.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, mut reports: mpsc::Receiver<Report>) {
        let mut health = self.store.health();
        let state = health.borrow_and_update().clone();
        self.tell(&state).await;
        loop {
            tokio::select! {
                Some(event) = events.recv() => self.event(event).await,
                report = reports.recv() => match report {
                    Some(report) => self.report(report).await,
                    None => return,
                },
                Ok(()) = health.changed() => {
                    let state = health.borrow_and_update().clone();
                    self.tell(&state).await;
                }
            }
        }
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::Assigned { topic, partition, generation, low, high } => {
                self.resume(&topic, partition, generation, (low, high)).await;
            }
            Event::Revoked { topic, partition } => {
                self.halted.remove(&(topic.name.clone(), partition));
                self.show_halted();
            }
            Event::OutOfRange { topic, partition, generation, position, low, high } => {
                warn!(
                    topic = topic.name,
                    partition, position, low, high, "the broker doesn't have our position"
                );
                self.resume(&topic, partition, generation, (low, high)).await;
            }
            Event::AtEnd { partitions, at } => {
                if let Err(error) = self.store.read_until(&partitions, at).await {
                    debug!(database = self.name, %error, "how far partitions were read was not noted");
                }
            }
            Event::Unreadable { topic, partition, offset, why, .. } => {
                let why = format!(
                    "partition {partition} of topic {} can't be read at offset {offset} ({why}): repair it, or \
                     skip with `inosec offsets set --topic {} --partition {partition} --to N` and restart",
                    topic.name, topic.name
                );
                self.halt(&topic, partition, why);
            }
            Event::Fault { topic, why } => {
                warn!(database = self.name, topic = topic.map(|topic| topic.name.clone()), why, "kafka");
            }
        }
    }

    /// Looks up where a partition goes on, for as long as it takes: until then it isn't read.
    async fn resume(&mut self, topic: &Arc<Topic>, partition: i32, generation: u64, watermarks: (i64, i64)) {
        let resumed = loop {
            match self.store.resume_offset(topic, partition, watermarks, self.start).await {
                Ok(resumed) => break resumed,
                Err(error) => {
                    warn!(topic = topic.name, partition, %error, "can't look up the offset, trying again");
                    self.readiness.set(&format!("database {}", self.name), Err(error.to_string()));
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        self.readiness.set(&format!("database {}", self.name), Ok(()));
        match resumed {
            Resume::At(offset) => {
                info!(topic = topic.name, partition, offset, "resuming");
                self.halted.remove(&(topic.name.clone(), partition));
                self.command(Command::Resume { topic: Arc::clone(topic), partition, generation, offset })
                    .await;
            }
            Resume::Halt { why } => {
                self.halt(topic, partition, why);
            }
        }
        self.show_halted();
    }

    /// Leaves a partition unread until somebody decides.
    fn halt(&mut self, topic: &Topic, partition: i32, why: String) {
        error!(topic = topic.name, partition, why, "halted");
        self.halted.insert((topic.name.clone(), partition), why);
        self.show_halted();
    }

    async fn report(&self, Report { topic, written }: Report) {
        for Lost { span, stored } in written.lost {
            let (topic, partition, generation) = (Arc::clone(&topic), span.partition, span.generation);
            if let Some(offset) = stored {
                self.command(Command::Reseek { topic, partition, generation, offset }).await;
            }
        }
        for span in written.committed {
            let topic = Arc::clone(&topic);
            self.command(Command::Commit { topic, partition: span.partition, offset: span.to }).await;
        }
    }

    async fn tell(&self, health: &Health) {
        let part = format!("database {}", self.name);
        match health {
            Health::Ok => {
                self.readiness.set(&part, Ok(()));
                self.command(Command::ResumeAll).await;
            }
            Health::Down { why, .. } => {
                self.readiness.set(&part, Err(why.clone()));
                self.command(Command::PauseAll).await;
            }
        }
    }

    fn show_halted(&self) {
        let part = format!("partitions of {}", self.name);
        match self.halted.values().next() {
            None => self.readiness.set(&part, Ok(())),
            Some(_) => {
                let all: Vec<&str> = self.halted.values().map(String::as_str).collect();
                self.readiness.set(&part, Err(all.join("; ")));
            }
        }
    }

    /// The consumer takes commands on every turn of its loop; if it is gone, the road is ending.
    async fn command(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }
}
