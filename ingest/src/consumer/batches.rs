//! From messages to batches to lanes. No Kafka here: messages come in by [`Batches::push`] and leave
//! through bounded channels, whose receivers decode and store them.
//!
//! There is one open batch per topic and lane; a partition belongs to one lane while it is assigned,
//! so its spans leave in order. A batch closes when it is full. One that is only old closes when its
//! lane has room for it: while the sink is the limit, batches grow instead of multiplying. When a
//! lane frees up, topics take turns, so a flood in one waits behind its own batches, not before
//! another topic's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inosec_schemas::{Message, Messages, Permit, Span, Topic};
use metrics::counter;
use tokio::sync::mpsc::{Sender, error::TrySendError};

use super::budget::{Budget, Hold, Share};
use crate::error::Error;
use crate::metrics::{BATCHES, BYTES, MESSAGES};

/// Room for a message's headers; those that have more make the bytes grow once more.
const HEADERS: usize = 4 << 10;

/// When a batch closes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_rows: usize,
    pub(crate) max_bytes: usize,
    pub(crate) max_age: Duration,
}

/// Where a partition's messages go and how far it got.
#[derive(Debug)]
pub(crate) struct Place {
    /// Index of the topic.
    pub(crate) topic: usize,
    pub(crate) partition: i32,
    /// Index of the lane.
    pub(crate) lane: usize,
    pub(crate) generation: u64,
    /// The position: where the next span or message starts.
    pub(crate) next: i64,
    pub(crate) share: Arc<Share>,
}

/// A message as it comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming<'a> {
    pub(crate) offset: i64,
    /// Microseconds UTC.
    pub(crate) arrived_at: i64,
    /// `None` for a tombstone.
    pub(crate) value: Option<&'a [u8]>,
}

/// The open batches and those waiting for room in their lanes.
pub(crate) struct Batches {
    limits: Limits,
    budget: Arc<Budget>,
    topics: Vec<Arc<Topic>>,
    lanes: Vec<Lane>,
}

struct Lane {
    /// `None` once everything was flushed.
    sender: Option<Sender<Messages>>,
    /// The topic whose turn it is.
    turn: usize,
    queues: Vec<Queue>,
}

#[derive(Default)]
struct Queue {
    closed: VecDeque<Messages>,
    open: Option<Open>,
}

struct Open {
    messages: Messages,
    hold: Hold,
    /// Per span of `messages`: whose it is and how many bytes it has.
    shares: Vec<(Arc<Share>, usize)>,
    /// The span used last: messages come in runs.
    last: usize,
    since: Instant,
}

impl Batches {
    pub(crate) fn new(
        limits: Limits,
        budget: Arc<Budget>,
        topics: Vec<Arc<Topic>>,
        senders: Vec<Sender<Messages>>,
    ) -> Self {
        let queues = || topics.iter().map(|_| Queue::default()).collect();
        let lanes = senders
            .into_iter()
            .map(|sender| Lane { sender: Some(sender), turn: 0, queues: queues() })
            .collect();
        Self { limits, budget, topics, lanes }
    }

    pub(crate) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Takes a message at or behind the place's position and moves the position past it; `headers`
    /// writes them in the form [`inosec_schemas::Headers`] reads. What lies between the position and
    /// the message is a hole and becomes part of the span.
    pub(crate) fn push(
        &mut self,
        place: &mut Place,
        now: Instant,
        incoming: Incoming<'_>,
        headers: impl FnOnce(&mut Vec<u8>),
    ) {
        debug_assert!(incoming.offset >= place.next, "the caller ignores what lies before the position");
        let max_bytes = self.limits.max_bytes;
        let open = self.open(place, now);
        open.make_room(incoming.value.map_or(0, <[u8]>::len), max_bytes);
        let bytes = open.append(place, incoming, headers);
        place.next = incoming.offset + 1;
        open.extend(place, bytes);
        let (rows, bytes) = (open.messages.entries.len(), open.messages.bytes.len());
        if rows >= self.limits.max_rows {
            self.close(place.lane, place.topic, "rows");
        } else if bytes >= self.limits.max_bytes {
            self.close(place.lane, place.topic, "bytes");
        }
    }

    /// Moves the position to `to` without a message: what lies between is a hole.
    pub(crate) fn advance(&mut self, place: &mut Place, now: Instant, to: i64) {
        if to > place.next {
            let open = self.open(place, now);
            open.span(place);
            place.next = to;
            open.extend(place, 0);
        }
    }

    /// Forgets everything of this partition that is not yet in a lane.
    pub(crate) fn forget(&mut self, place: &Place) {
        let queue = &mut self.lanes[place.lane].queues[place.topic];
        for messages in &mut queue.closed {
            messages.entries.retain(|message| message.partition != place.partition);
            messages.spans.retain(|span| span.partition != place.partition);
        }
        queue.closed.retain(|messages| !messages.spans.is_empty());
        if let Some(open) = &mut queue.open {
            open.forget(place.partition);
            if open.messages.spans.is_empty() {
                queue.open = None;
            }
        }
    }

    /// The bytes this partition holds, here and downstream.
    pub(crate) fn held(&self, place: &Place) -> usize {
        let open = self.lanes[place.lane].queues[place.topic].open.as_ref();
        place.share.held() + open.map_or(0, |open| open.held(place.partition))
    }

    /// Closes every open batch, however young.
    pub(crate) fn close_all(&mut self) {
        for lane in 0..self.lanes.len() {
            for topic in 0..self.topics.len() {
                self.close(lane, topic, "stop");
            }
        }
    }

    /// Closes the lanes: their receivers see the end after what was sent.
    pub(crate) fn close_lanes(&mut self) {
        for lane in &mut self.lanes {
            lane.sender = None;
        }
    }

    /// Whether nothing is open or waiting.
    pub(crate) fn is_empty(&self) -> bool {
        let empty = |queue: &Queue| queue.closed.is_empty() && queue.open.is_none();
        self.lanes.iter().all(|lane| lane.queues.iter().all(empty))
    }

    /// Whether batches are closed and wait for room.
    pub(crate) fn is_waiting(&self) -> bool {
        self.lanes.iter().any(|lane| lane.queues.iter().any(|queue| !queue.closed.is_empty()))
    }

    /// Fills the lanes that have room, topics taking turns. Never waits.
    pub(crate) fn send(&mut self, now: Instant) -> Result<(), Error> {
        for lane in 0..self.lanes.len() {
            while self.lanes[lane].has_room()? {
                let Some(topic) = self.next_topic(lane, now) else { break };
                if self.lanes[lane].queues[topic].closed.is_empty() {
                    self.close(lane, topic, "age");
                }
                self.lanes[lane].offer(topic)?;
            }
        }
        Ok(())
    }

    fn next_topic(&mut self, lane: usize, now: Instant) -> Option<usize> {
        let (max_age, topics) = (self.limits.max_age, self.topics.len());
        let lane = &mut self.lanes[lane];
        let found = (0..topics).map(|step| (lane.turn + step) % topics).find(|topic| {
            let queue = &lane.queues[*topic];
            let old = |open: &Open| now.saturating_duration_since(open.since) >= max_age;
            !queue.closed.is_empty() || queue.open.as_ref().is_some_and(old)
        })?;
        lane.turn = (found + 1) % topics;
        Some(found)
    }

    fn open(&mut self, place: &Place, now: Instant) -> &mut Open {
        let topic = &self.topics[place.topic];
        self.lanes[place.lane].queues[place.topic].open.get_or_insert_with(|| Open {
            messages: Messages::new(Arc::clone(topic)),
            hold: Hold::new(&self.budget),
            shares: Vec::new(),
            last: 0,
            since: now,
        })
    }

    fn close(&mut self, lane: usize, topic: usize, reason: &'static str) {
        let queue = &mut self.lanes[lane].queues[topic];
        if let Some(open) = queue.open.take() {
            let stream = self.topics[topic].stream.name.clone();
            counter!(MESSAGES, "stream" => stream.clone()).increment(open.messages.entries.len() as u64);
            counter!(BYTES, "stream" => stream.clone()).increment(open.messages.bytes.len() as u64);
            counter!(BATCHES, "stream" => stream, "reason" => reason).increment(1);
            queue.closed.push_back(open.close());
        }
    }
}

impl Lane {
    fn has_room(&self) -> Result<bool, Error> {
        match &self.sender {
            Some(sender) if sender.is_closed() => Err(Error::Closed),
            Some(sender) => Ok(sender.capacity() > 0),
            None => Ok(false),
        }
    }

    /// Sends the topic's oldest closed batch.
    fn offer(&mut self, topic: usize) -> Result<(), Error> {
        let Some(sender) = &self.sender else { return Ok(()) };
        let Some(messages) = self.queues[topic].closed.pop_front() else { return Ok(()) };
        match sender.try_send(messages) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(messages)) => {
                self.queues[topic].closed.push_front(messages);
                Ok(())
            }
            Err(TrySendError::Closed(_)) => Err(Error::Closed),
        }
    }
}

impl Open {
    /// Grows the bytes for a message: by doubling, but not beyond what a full batch has.
    fn make_room(&mut self, value: usize, max_bytes: usize) {
        let bytes = &mut self.messages.bytes;
        let needed = value + HEADERS;
        if bytes.capacity() - bytes.len() < needed {
            let left = max_bytes.saturating_sub(bytes.len()) + needed;
            bytes.reserve_exact(bytes.len().clamp(needed, left));
        }
    }

    /// Adds the message and returns its bytes.
    fn append(&mut self, place: &Place, incoming: Incoming<'_>, headers: impl FnOnce(&mut Vec<u8>)) -> usize {
        self.span(place);
        let bytes = &mut self.messages.bytes;
        let begin = bytes.len();
        headers(bytes);
        let start = bytes.len();
        bytes.extend_from_slice(incoming.value.unwrap_or_default());
        let end = bytes.len();
        self.messages.entries.push(Message {
            start: place_in(start),
            end: place_in(end),
            headers: (place_in(begin), place_in(start)),
            partition: place.partition,
            offset: incoming.offset,
            arrived_at: incoming.arrived_at,
            tombstone: incoming.value.is_none(),
        });
        self.hold.grow_to(
            self.messages.bytes.capacity() + self.messages.entries.capacity() * size_of::<Message>(),
        );
        end - begin
    }

    /// Makes the place's span the last used one, beginning it at the place's position if need be.
    fn span(&mut self, place: &Place) {
        let spans = &mut self.messages.spans;
        let is_its = |span: &Span| span.partition == place.partition;
        if spans.get(self.last).is_some_and(is_its) {
            return;
        }
        self.last = spans.iter().position(is_its).unwrap_or_else(|| {
            let (partition, generation) = (place.partition, place.generation);
            spans.push(Span { partition, from: place.next, to: place.next, generation });
            self.shares.push((Arc::clone(&place.share), 0));
            spans.len() - 1
        });
    }

    /// Ends the last used span at the place's position.
    fn extend(&mut self, place: &Place, bytes: usize) {
        let span = &mut self.messages.spans[self.last];
        debug_assert_eq!((span.partition, span.generation), (place.partition, place.generation));
        span.to = place.next;
        self.shares[self.last].1 += bytes;
    }

    fn forget(&mut self, partition: i32) {
        let Some(index) = self.messages.spans.iter().position(|span| span.partition == partition) else {
            return;
        };
        self.messages.spans.remove(index);
        self.shares.remove(index);
        self.messages.entries.retain(|message| message.partition != partition);
        self.last = 0;
    }

    fn held(&self, partition: i32) -> usize {
        let index = self.messages.spans.iter().position(|span| span.partition == partition);
        index.map_or(0, |index| self.shares[index].1)
    }

    fn close(mut self) -> Messages {
        for (share, bytes) in &self.shares {
            self.hold.share(share, *bytes);
        }
        self.messages.spans.sort_unstable_by_key(|span| span.partition);
        self.messages.permit = Some(Arc::new(Box::new(self.hold) as Permit));
        self.messages
    }
}

fn place_in(position: usize) -> u32 {
    u32::try_from(position).expect("a batch is closed at 1 GiB and a message is smaller")
}

/// Writes one header in the form [`inosec_schemas::Headers`] reads; a name needs not be UTF-8.
pub(crate) fn write_header(bytes: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) {
    let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX - 1).to_le_bytes();
    bytes.extend_from_slice(&length(name));
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&value.map_or(u32::MAX.to_le_bytes(), length));
    bytes.extend_from_slice(value.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::consumer::tests::topic;

    fn batches(max_rows: usize, lanes: usize) -> (Batches, Vec<Receiver<Messages>>) {
        let limits = Limits { max_rows, max_bytes: 1000, max_age: Duration::from_millis(250) };
        let topics = vec![topic("a"), topic("b")];
        let (senders, receivers) = (0..lanes).map(|_| channel(1)).unzip();
        (Batches::new(limits, Budget::new(10_000), topics, senders), receivers)
    }

    fn place(topic: usize, partition: i32, next: i64) -> Place {
        Place { topic, partition, lane: 0, generation: 7, next, share: Arc::default() }
    }

    fn push(batches: &mut Batches, place: &mut Place, now: Instant, offset: i64, value: &[u8]) {
        let incoming = Incoming { offset, arrived_at: 1, value: Some(value) };
        batches.push(place, now, incoming, |_| {});
    }

    #[test]
    fn spans_chain_over_holes_and_batches() {
        let (mut batches, mut lanes) = batches(2, 1);
        let (now, mut zero, mut one) = (Instant::now(), place(0, 0, 5), place(0, 1, 0));
        push(&mut batches, &mut one, now, 3, b"x");
        push(&mut batches, &mut zero, now, 9, b"y");
        batches.send(now).unwrap();
        let first = lanes[0].try_recv().unwrap();
        let span = |partition, from, to| Span { partition, from, to, generation: 7 };
        assert_eq!(first.spans, [span(0, 5, 10), span(1, 0, 4)]);
        batches.advance(&mut zero, now, 12);
        batches.advance(&mut zero, now, 11);
        push(&mut batches, &mut one, now, 4, b"z");
        let later = now + Duration::from_millis(250);
        batches.send(later).unwrap();
        let second = lanes[0].try_recv().unwrap();
        assert_eq!(second.spans, [span(0, 10, 12), span(1, 4, 5)]);
        assert_eq!(second.entries.len(), 1);
    }

    #[test]
    fn a_full_lane_makes_batches_grow_and_topics_take_turns() {
        let (mut batches, mut lanes) = batches(3, 1);
        let (now, mut flood, mut quiet) = (Instant::now(), place(0, 0, 0), place(1, 0, 0));
        for offset in 0..9 {
            push(&mut batches, &mut flood, now, offset, b"f");
        }
        push(&mut batches, &mut quiet, now, 0, b"q");
        let later = now + Duration::from_secs(1);
        let mut order = Vec::new();
        for _ in 0..4 {
            batches.send(later).unwrap();
            let messages = lanes[0].try_recv().unwrap();
            order.push((messages.topic().name.clone(), messages.entries.len()));
        }
        let expected = [("a", 3), ("b", 1), ("a", 3), ("a", 3)].map(|(name, rows)| (name.to_owned(), rows));
        assert_eq!(order, expected);
        assert!(batches.is_empty());
    }

    #[test]
    fn an_old_batch_stays_open_while_its_lane_is_full() {
        let (mut batches, mut lanes) = batches(3, 1);
        let (now, mut place) = (Instant::now(), place(0, 0, 0));
        push(&mut batches, &mut place, now, 0, b"1");
        let later = now + Duration::from_secs(1);
        batches.send(later).unwrap();
        push(&mut batches, &mut place, later, 1, b"2");
        let latest = later + Duration::from_secs(1);
        batches.send(latest).unwrap();
        push(&mut batches, &mut place, latest, 2, b"3");
        assert_eq!(lanes[0].try_recv().unwrap().entries.len(), 1);
        batches.send(latest).unwrap();
        assert_eq!(lanes[0].try_recv().unwrap().entries.len(), 2);
    }

    #[test]
    fn a_revoked_partition_is_forgotten_and_others_stay() {
        let (mut batches, mut lanes) = batches(3, 1);
        let (now, mut gone, mut stays) = (Instant::now(), place(0, 0, 0), place(0, 1, 0));
        for offset in 0..2 {
            push(&mut batches, &mut gone, now, offset, b"gone");
            push(&mut batches, &mut stays, now, offset, b"stays");
        }
        batches.forget(&gone);
        batches.close_all();
        batches.send(now).unwrap();
        let first = lanes[0].try_recv().unwrap();
        assert_eq!(first.spans.len(), 1);
        batches.send(now).unwrap();
        let second = lanes[0].try_recv().unwrap();
        for messages in [&first, &second] {
            assert!(messages.entries.iter().all(|message| messages.value(message) == b"stays"));
        }
        assert_eq!(first.entries.len() + second.entries.len(), 2);
        assert_eq!((second.spans[0].from, second.spans[0].to), (1, 2));
    }

    #[test]
    fn memory_is_held_until_the_last_owner_lets_go() {
        let (mut batches, mut lanes) = batches(1, 1);
        let (now, mut place) = (Instant::now(), place(0, 0, 0));
        push(&mut batches, &mut place, now, 0, &[1; 100]);
        assert!(batches.budget.used() >= 100);
        assert_eq!(batches.held(&place), 100);
        batches.send(now).unwrap();
        let messages = lanes[0].try_recv().unwrap();
        let half = messages.of_spans(messages.spans.clone());
        drop(messages);
        assert_eq!(batches.held(&place), 100);
        drop(half);
        assert_eq!((batches.held(&place), batches.budget.used()), (0, 0));
    }

    #[test]
    fn headers_and_tombstones_come_out_as_they_went_in() {
        let (mut batches, mut lanes) = batches(2, 1);
        let (now, mut place) = (Instant::now(), place(0, 0, 0));
        let incoming = Incoming { offset: 0, arrived_at: 1, value: None };
        batches.push(&mut place, now, incoming, |bytes| {
            write_header(bytes, b"inosec-tenant", Some(b"t"));
            write_header(bytes, b"\xff", None);
        });
        push(&mut batches, &mut place, now, 1, b"");
        batches.send(now).unwrap();
        let messages = lanes[0].try_recv().unwrap();
        let headers = messages.headers(&messages.entries[0]);
        assert_eq!(headers.get("inosec-tenant"), Some(&b"t"[..]));
        assert_eq!(headers.last(), Some((&b"\xff"[..], None)));
        assert!(messages.entries[0].tombstone && !messages.entries[1].tombstone);
        assert!(messages.headers(&messages.entries[1]).is_empty());
    }

    #[test]
    fn a_closed_lane_is_an_error() {
        let (mut batches, lanes) = batches(1, 1);
        drop(lanes);
        assert!(matches!(batches.send(Instant::now()), Err(Error::Closed)));
    }
}
