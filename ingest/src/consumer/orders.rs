//! Carrying out commands. Answers that come too late, of a generation that has passed, are ignored.

use std::time::Instant;

use inosec_schemas::Topic;
use tokio::sync::mpsc::error::TryRecvError;

use super::partitions::{Key, State, Why};
use super::{Command, Consumer, GRACE};
use crate::error::Error;

impl Consumer {
    /// Carries out what was commanded. The end of the commands is the permission to leave.
    pub(super) fn obey(&mut self, now: Instant) -> Result<(), Error> {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.carry_out(command)?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    self.left = true;
                    return self.stop(now + GRACE);
                }
            }
        }
    }

    fn carry_out(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::Resume { topic, partition, generation, offset } => {
                self.resume(&topic, partition, generation, offset);
            }
            Command::Reseek { topic, partition, generation, offset } => {
                if let Some(key) = self.running(&topic, partition, generation) {
                    self.restart(key, State::Held(offset.max(0)))?;
                }
            }
            Command::Halt { topic, partition, why } => {
                if let Some(key) = self.known(&topic, partition) {
                    tracing::error!(topic = topic.name, partition, why, "partition halted");
                    self.restart(key, State::Waiting)?;
                }
            }
            Command::Retry { topic, partition } => {
                if let Some(key) = self.known(&topic, partition) {
                    self.restart(key, State::Looking { asked: false, why: Why::Assigned })?;
                }
            }
            Command::PauseAll => self.pause_all(true)?,
            Command::ResumeAll if self.stop.is_none() => self.pause_all(false)?,
            Command::ResumeAll => {}
            Command::Commit { topic, partition, offset } => {
                if let Some(key) = self.known(&topic, partition) {
                    self.commits.insert(key, offset);
                }
            }
            Command::Stop { deadline } => self.stop(deadline)?,
        }
        Ok(())
    }

    fn resume(&mut self, topic: &Topic, partition: i32, generation: u64, offset: i64) {
        let Some(key) = self.known(topic, partition) else { return };
        let Some(slot) = self.partitions.get(key) else { return };
        if slot.place.generation == generation && slot.state == State::Waiting && offset >= 0 {
            slot.state = State::Held(offset);
        } else {
            tracing::debug!(partition, generation, offset, "stale resume ignored");
        }
    }

    pub(super) fn pause_all(&mut self, paused: bool) -> Result<(), Error> {
        self.partitions.pause_all(self.link.consumer(), paused).map_err(Error::Consumer)
    }

    /// Takes no more messages; flushes what is open.
    fn stop(&mut self, deadline: Instant) -> Result<(), Error> {
        if self.stop.is_none() {
            self.stop = Some(deadline);
            self.pause_all(true)?;
            self.batches.close_all();
        }
        Ok(())
    }

    /// The key of an assigned partition.
    fn known(&mut self, topic: &Topic, partition: i32) -> Option<Key> {
        let key = (self.partitions.index(topic.name.as_bytes())?, partition);
        self.partitions.get(key).map(|_| key)
    }

    /// The key of a running partition, if this is its generation.
    fn running(&mut self, topic: &Topic, partition: i32, generation: u64) -> Option<Key> {
        let key = self.known(topic, partition)?;
        let slot = self.partitions.get(key)?;
        (slot.place.generation == generation && slot.state == State::Running).then_some(key)
    }
}
