//! Messages as received: what the consumer hands to decode, and what a dead letter or a raw block
//! keeps of them.

use std::any::Any;
use std::sync::Arc;

use uuid::Uuid;

use crate::{EventIds, Stream, TenantId};

/// How a topic's messages say whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantSource {
    /// The header `inosec-tenant`, set by an authenticated gateway.
    Header,
    /// The trusted member `tenant_id` of the message.
    Payload,
    /// All messages belong to this tenant.
    Fixed(TenantId),
}

/// One Kafka topic as inosec reads it.
#[derive(Debug)]
pub struct Topic {
    /// The Kafka cluster's id.
    pub cluster: String,
    /// The topic's name.
    pub name: String,
    /// The broker's topic id, where it tells one (Kafka 2.8+).
    pub id: Option<Uuid>,
    /// The number under which rows name this topic: `kafka_topics.key`.
    pub key: i32,
    /// The stream it feeds.
    pub stream: Arc<Stream>,
    /// How its messages say whose they are.
    pub tenant: TenantSource,
    /// Makes the `event_id`s of its messages.
    pub event_ids: EventIds,
}

/// A run of consumed offsets of one partition, `[from, to)`.
///
/// `to` is the consumer's position, not the last offset plus one: compaction and aborted
/// transactions leave holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The partition.
    pub partition: i32,
    /// The offset at which the span starts; what the table must say before the commit.
    pub from: i64,
    /// The offset at which the next span starts; what the table says after it.
    pub to: i64,
    /// Counts the consumer's seeks of this partition: reports about an older generation are stale.
    pub generation: u64,
}

/// One message's place in [`Messages::bytes`] and what Kafka says about it.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    /// Start of the value in [`Messages::bytes`].
    pub start: u32,
    /// End of the value in [`Messages::bytes`].
    pub end: u32,
    /// The headers' place in [`Messages::bytes`], in the form [`Headers`] reads; empty if none.
    pub headers: (u32, u32),
    /// The partition it came from.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// When Kafka took it (its record time stamp), in microseconds UTC; arrival for all purposes.
    pub arrived_at: i64,
    /// A null value (a tombstone), as opposed to an empty one.
    pub tombstone: bool,
}

/// What keeps a batch's share of the memory budget; dropping it gives the bytes back.
pub type Permit = Box<dyn Any + Send + Sync>;

/// Messages of one topic, in offset order within each partition, and the spans they came from.
#[derive(Default)]
pub struct Messages {
    /// The topic; `None` only in an empty value.
    pub topic: Option<Arc<Topic>>,
    /// Values and headers, one after another.
    pub bytes: Vec<u8>,
    /// The messages.
    pub entries: Vec<Message>,
    /// The spans, at most one per partition, in partition order. A span may hold no message.
    pub spans: Vec<Span>,
    /// The memory these bytes hold of the budget.
    pub permit: Option<Arc<Permit>>,
}

impl std::fmt::Debug for Messages {
    /// Never the bytes: they are customers' data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Messages")
            .field("topic", &self.topic.as_ref().map(|topic| &topic.name))
            .field("messages", &self.entries.len())
            .field("bytes", &self.bytes.len())
            .field("spans", &self.spans)
            .finish_non_exhaustive()
    }
}

impl Messages {
    /// An empty value for `topic`.
    #[must_use]
    pub fn new(topic: Arc<Topic>) -> Self {
        Self { topic: Some(topic), ..Self::default() }
    }

    /// The topic.
    ///
    /// # Panics
    /// If called on an empty default value.
    #[must_use]
    pub fn topic(&self) -> &Arc<Topic> {
        self.topic.as_ref().expect("messages have a topic")
    }

    /// A message's value as received.
    #[must_use]
    pub fn value(&self, message: &Message) -> &[u8] {
        &self.bytes[message.start as usize..message.end as usize]
    }

    /// A message's headers.
    #[must_use]
    pub fn headers(&self, message: &Message) -> Headers<'_> {
        Headers(&self.bytes[message.headers.0 as usize..message.headers.1 as usize])
    }

    /// Adds a message; the caller sees to the spans.
    pub fn push(&mut self, mut message: Message, value: &[u8], headers: &[(&str, Option<&[u8]>)]) {
        message.headers.0 = self.position();
        for (name, value) in headers {
            Headers::write(&mut self.bytes, name, *value);
        }
        message.headers.1 = self.position();
        message.start = self.position();
        self.bytes.extend_from_slice(value);
        message.end = self.position();
        self.entries.push(message);
    }

    fn position(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("a batch holds less than 4 GiB")
    }

    /// Halves the messages for bisection: by partition while there are several, then by offset.
    /// `None` when there is only one message (or none) left. The halves together cover the same
    /// spans; within a partition the first half must be committed first.
    #[must_use]
    pub fn split(&self) -> Option<(Self, Self)> {
        if self.entries.len() < 2 {
            return None;
        }
        if self.spans.len() > 1 {
            let middle = self.spans[self.spans.len() / 2].partition;
            let (first, second) = self.spans.iter().partition::<Vec<_>, _>(|span| span.partition < middle);
            return Some((self.of_spans(first), self.of_spans(second)));
        }
        let span = self.spans.first()?;
        let cut = self.entries[self.entries.len() / 2].offset;
        let first = Span { to: cut, ..*span };
        let second = Span { from: cut, ..*span };
        Some((self.of_spans(vec![first]), self.of_spans(vec![second])))
    }

    /// The messages that lie in these spans, copied.
    #[must_use]
    pub fn of_spans(&self, spans: Vec<Span>) -> Self {
        let mut chosen = Self {
            topic: self.topic.clone(),
            bytes: Vec::new(),
            entries: Vec::new(),
            spans,
            permit: self.permit.clone(),
        };
        for message in &self.entries {
            let within = |span: &Span| {
                span.partition == message.partition && (span.from..span.to).contains(&message.offset)
            };
            if chosen.spans.iter().any(within) {
                chosen.copy(self, message);
            }
        }
        chosen
    }

    fn copy(&mut self, from: &Self, message: &Message) {
        let mut copy = *message;
        copy.headers.0 = self.position();
        self.bytes.extend_from_slice(from.headers(message).0);
        copy.headers.1 = self.position();
        copy.start = self.position();
        self.bytes.extend_from_slice(from.value(message));
        copy.end = self.position();
        self.entries.push(copy);
    }
}

/// A message's headers as they lie in [`Messages::bytes`]: per header the name's length (u32), the
/// name, the value's length (u32; `u32::MAX` for a null value) and the value, little-endian.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    fn write(bytes: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
        bytes.extend_from_slice(&u32::try_from(name.len()).unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        let length = value.map_or(u32::MAX, |value| u32::try_from(value.len()).unwrap_or(u32::MAX - 1));
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(value.unwrap_or_default());
    }

    /// The last header of this name, as Kafka clients resolve repeats.
    #[must_use]
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.filter(|(key, _)| *key == name.as_bytes()).last().and_then(|(_, value)| value)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn take_length(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.take_length()? as usize;
        let name = self.take(name)?;
        let value = match self.take_length()? {
            u32::MAX => None,
            length => Some(self.take(length as usize)?),
        };
        Some((name, value))
    }
}
