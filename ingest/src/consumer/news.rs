//! What Kafka reports apart from messages: rebalances, ends of partitions, errors, watermarks.
//! Nothing here waits for a broker: a callback that does stalls the whole group.

use std::sync::Arc;
use std::time::Instant;

use metrics::counter;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::native::News;
use super::partitions::{Key, State, Why};
use super::scout::Question;
use super::{Consumer, Event, QUIET};
use crate::error::Error;
use crate::metrics as names;

impl Consumer {
    pub(super) fn heed(&mut self, news: News, now: Instant) -> Result<(), Error> {
        match news {
            News::Assigned(places) => self.assigned(&places),
            News::Revoked(places) => self.revoked(&places),
            News::End { topic, partition, offset } => {
                self.end(&topic, partition, offset, now);
                Ok(())
            }
            News::Failure { place, code, text, fatal } => self.failed(place, code, &text, fatal, now),
        }
    }

    fn assigned(&mut self, places: &[(String, i32)]) -> Result<(), Error> {
        counter!(names::REBALANCES, "reason" => "assigned").increment(1);
        self.link.consumer().incremental_assign(&TopicPartitionList::new()).map_err(Error::Consumer)?;
        if self.stop.is_some() {
            return Ok(());
        }
        for key in self.keys(places) {
            self.partitions.add(key, self.batches.lanes());
        }
        self.lost_since = None;
        tracing::info!(partitions = places.len(), "partitions assigned");
        Ok(())
    }

    fn revoked(&mut self, places: &[(String, i32)]) -> Result<(), Error> {
        let lost = self.link.consumer().assignment_lost();
        let reason = if lost { "lost" } else { "revoked" };
        if lost {
            self.lost_since = Some(Instant::now());
        }
        counter!(names::REBALANCES, "reason" => reason).increment(1);
        tracing::info!(partitions = places.len(), reason, "partitions revoked");
        let keys = self.keys(places);
        self.partitions.stop(self.link.consumer(), &keys).map_err(Error::Consumer)?;
        for key in keys {
            self.commits.remove(&key);
            if let Some(slot) = self.partitions.remove(key) {
                self.batches.forget(&slot.place);
                let topic = Arc::clone(self.partitions.topic(key));
                self.outbox.push_back(Event::Revoked { topic, partition: key.1 });
            }
        }
        Ok(())
    }

    /// Everything before `offset` was delivered or is a hole.
    fn end(&mut self, topic: &str, partition: i32, offset: i64, now: Instant) {
        let Some(index) = self.partitions.index(topic.as_bytes()) else { return };
        let Some(slot) = self.partitions.get((index, partition)) else { return };
        if slot.state == State::Running && self.stop.is_none() {
            slot.end = slot.end.max(offset);
            self.batches.advance(&mut slot.place, now, offset);
        }
    }

    fn failed(
        &mut self,
        place: Option<(String, i32)>,
        code: Code,
        text: &str,
        fatal: bool,
        now: Instant,
    ) -> Result<(), Error> {
        if fatal || code == Code::Fatal {
            return Err(Error::Fatal(self.link.fatal().unwrap_or_else(|| format!("{text} ({code:?})"))));
        }
        let (count, key) =
            (|reason| counter!(names::ERRORS, "reason" => reason).increment(1), self.key(place));
        match (code, key) {
            (Code::AutoOffsetReset | Code::OffsetOutOfRange, Some(key)) => {
                count("offset");
                // Such an error has no version; one that isn't running has long been stopped.
                if self.partitions.get(key).is_some_and(|slot| slot.state == State::Running) {
                    self.restart(key, State::Looking { asked: false, why: Why::OutOfRange })?;
                }
            }
            // librdkafka goes on behind what it couldn't read: stop, or it would be lost in silence.
            (Code::BadMessage | Code::BadCompression | Code::NotImplemented, Some(key)) => {
                count("unreadable");
                self.unreadable(key, format!("{text} ({code:?})"))?;
            }
            (Code::AllBrokersDown, _) => {
                count("broker");
                if !std::mem::replace(&mut self.unreachable, true) {
                    self.fault(None, "no Kafka broker can be reached; waiting for one".to_owned(), now);
                }
            }
            (Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut, _) => count("broker"),
            (Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::TopicAuthorizationFailed, key) => {
                count("topic");
                let hint = "create it or allow this user to read it; it is tried again by itself";
                self.fault(key, format!("{text}: {hint}"), now);
            }
            (_, key) => {
                count("other");
                self.fault(key, format!("{text} ({code:?})"), now);
            }
        }
        Ok(())
    }

    fn unreadable(&mut self, key: Key, why: String) -> Result<(), Error> {
        let Some(offset) = self.partitions.get(key).map(|slot| slot.place.next) else { return Ok(()) };
        if let Some(generation) = self.restart(key, State::Waiting)? {
            let topic = Arc::clone(self.partitions.topic(key));
            self.outbox.push_back(Event::Unreadable { topic, partition: key.1, generation, offset, why });
        }
        Ok(())
    }

    /// Stops a partition, forgets what isn't in a lane and puts it into `state` of a new generation.
    pub(super) fn restart(&mut self, key: Key, state: State) -> Result<Option<u64>, Error> {
        self.partitions.stop(self.link.consumer(), &[key]).map_err(Error::Consumer)?;
        let Some(slot) = self.partitions.get(key) else { return Ok(None) };
        self.batches.forget(&slot.place);
        Ok(Some(self.partitions.renew(key, state)))
    }

    /// Asks for watermarks and turns answers into events.
    pub(super) fn look(&mut self, now: Instant) -> Result<(), Error> {
        for (key, generation) in self.partitions.to_ask(now) {
            let topic = self.partitions.topic(key).name.clone();
            if self.scout.ask(Question { topic, partition: key.1, generation })? {
                self.partitions.asked(key, true, now);
            }
        }
        while let Some((question, found)) = self.scout.answer() {
            let Some(key) = self.key(Some((question.topic, question.partition))) else { continue };
            let current = self.partitions.get(key).map(|slot| (slot.place.generation, slot.state));
            let Some((generation, State::Looking { why, .. })) = current else { continue };
            if generation != question.generation {
                continue;
            }
            match found {
                Ok((low, high)) => self.found(key, why, low, high),
                Err(error) => {
                    self.partitions.asked(key, false, now);
                    self.fault(Some(key), format!("can't tell where it begins and ends: {error}"), now);
                }
            }
        }
        Ok(())
    }

    fn found(&mut self, key: Key, why: Why, low: i64, high: i64) {
        let (topic, partition) = (Arc::clone(self.partitions.topic(key)), key.1);
        let Some(slot) = self.partitions.get(key) else { return };
        (slot.state, slot.end) = (State::Waiting, high);
        let (generation, position) = (slot.place.generation, slot.place.next);
        self.outbox.push_back(match why {
            Why::Assigned => Event::Assigned { topic, partition, generation, low, high },
            Why::OutOfRange => Event::OutOfRange { topic, partition, generation, position, low, high },
        });
    }

    /// Tells a fault, unless the same was told a short while ago.
    pub(super) fn fault(&mut self, key: Option<Key>, why: String, now: Instant) {
        let topic = key.map(|key| Arc::clone(self.partitions.topic(key)));
        let what = format!("{}: {why}", topic.as_ref().map_or("", |topic| topic.name.as_str()));
        let recent = |told: &Instant| now.saturating_duration_since(*told) < QUIET;
        self.told.retain(|_, told| recent(told));
        if self.told.contains_key(&what) {
            return;
        }
        tracing::warn!(topic = topic.as_ref().map(|topic| topic.name.as_str()), why, "Kafka fault");
        self.told.insert(what, now);
        self.outbox.push_back(Event::Fault { topic, why });
    }

    fn keys(&self, places: &[(String, i32)]) -> Vec<Key> {
        let key =
            |(topic, partition): &(String, i32)| Some((self.partitions.index(topic.as_bytes())?, *partition));
        places.iter().filter_map(key).collect()
    }

    pub(super) fn key(&self, place: Option<(String, i32)>) -> Option<Key> {
        let (topic, partition) = place?;
        Some((self.partitions.index(topic.as_bytes())?, partition))
    }
}
