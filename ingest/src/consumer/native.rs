//! The parts of librdkafka that rust-rdkafka 0.39 hides, and the only unsafe code of the room.
//!
//! * Its `poll` keeps neither topic nor offset of an error or an end of partition, and its header
//!   access panics on a name that isn't UTF-8, which any producer may send. [`Link`] polls the same
//!   queue through the same event interface and keeps both.
//! * `DescribeTopics`, which tells a topic's id, is not wrapped: [`describe_topics`].
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, TopicPartitionList};
use rdkafka_sys as sys;
use uuid::Uuid;

/// Sends librdkafka's log lines to `tracing`, and answers rebalances that come while closing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level as i32, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason, "error");
    }
}

impl ConsumerContext for Context {
    /// Only reached from `BaseConsumer::drop`: [`Link::poll`] handles all others. What is revoked
    /// may be more than what was started, and a failed answer would keep `drop` waiting for ever.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, _: &mut TopicPartitionList) {
        let answer = if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            consumer.incremental_assign(&TopicPartitionList::new())
        } else {
            consumer.assignment().and_then(|started| consumer.incremental_unassign(&started))
        };
        if let Err(error) = answer {
            tracing::debug!(%error, "rebalance while closing");
        }
    }
}

fn log(level: i32, facility: &str, text: &str) {
    match level {
        0..=3 => tracing::error!(target: "librdkafka", facility, "{text}"),
        4 => tracing::warn!(target: "librdkafka", facility, "{text}"),
        5 | 6 => tracing::info!(target: "librdkafka", facility, "{text}"),
        _ => tracing::debug!(target: "librdkafka", facility, "{text}"),
    }
}

/// A consumer in a group and the queue on which everything arrives.
pub(crate) struct Link {
    queue: NonNull<sys::rd_kafka_queue_t>,
    consumer: BaseConsumer<Context>,
}

// SAFETY: librdkafka's handles may be used from any thread; the queue is not shared otherwise.
unsafe impl Send for Link {}

impl Link {
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, KafkaError> {
        let consumer: BaseConsumer<Context> = config.create_with_context(Context)?;
        // SAFETY: the client lives as long as `consumer`; the call returns a new reference or null.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        let queue = NonNull::new(queue)
            .ok_or_else(|| KafkaError::ClientCreation("the client has no consumer queue".to_owned()))?;
        Ok(Self { queue, consumer })
    }

    pub(crate) fn consumer(&self) -> &BaseConsumer<Context> {
        &self.consumer
    }

    /// The next thing that happened, waiting at most `timeout` for it.
    pub(crate) fn poll(&self, timeout: Duration) -> Option<Happening<'_>> {
        let timeout = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the queue is alive; the event returned is ours to destroy, which `Happening` does.
        let event = unsafe { sys::rd_kafka_queue_poll(self.queue.as_ptr(), timeout) };
        NonNull::new(event).map(|event| Happening { event, link: PhantomData })
    }

    /// Messages and other events waiting in the queue.
    pub(crate) fn queued(&self) -> usize {
        // SAFETY: the queue is alive.
        unsafe { sys::rd_kafka_queue_length(self.queue.as_ptr()) }
    }

    /// The reason of a fatal error.
    pub(crate) fn fatal(&self) -> Option<String> {
        self.consumer.client().fatal_error().map(|(code, text)| format!("{text} ({code})"))
    }
}

impl Drop for Link {
    /// The queue's reference goes first: `rd_kafka_destroy` would wait for it.
    fn drop(&mut self) {
        // SAFETY: ours, and destroyed once.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// One event of the queue. What is borrowed from it lives until it is dropped.
pub(crate) struct Happening<'a> {
    event: NonNull<sys::rd_kafka_event_t>,
    link: PhantomData<&'a Link>,
}

/// What an event says.
pub(crate) enum Kind<'a> {
    /// A message.
    Record(Record<'a>),
    /// Statistics as JSON.
    Statistics(&'a [u8]),
    /// Something rarer.
    News(News),
    /// Nothing of interest.
    Nothing,
}

/// What happens rarely.
#[derive(Debug)]
pub(crate) enum News {
    /// Partitions of this list were given to us.
    Assigned(Vec<(String, i32)>),
    /// Partitions of this list were taken from us.
    Revoked(Vec<(String, i32)>),
    /// Everything before this offset has been delivered or is a hole.
    End { topic: String, partition: i32, offset: i64 },
    /// Something went wrong, with a partition or with the client.
    Failure { place: Option<(String, i32)>, code: RDKafkaErrorCode, text: String, fatal: bool },
}

impl Happening<'_> {
    /// What it says.
    pub(crate) fn kind(&self) -> Kind<'_> {
        let event = self.event.as_ptr();
        // SAFETY: the event is alive.
        match unsafe { sys::rd_kafka_event_type(event) } {
            sys::RD_KAFKA_EVENT_FETCH => self.record(),
            sys::RD_KAFKA_EVENT_ERROR => Kind::News(self.failure()),
            sys::RD_KAFKA_EVENT_REBALANCE => Kind::News(self.rebalance()),
            sys::RD_KAFKA_EVENT_STATS => {
                // SAFETY: statistics events carry a string that lives as long as the event.
                Kind::Statistics(unsafe { CStr::from_ptr(sys::rd_kafka_event_stats(event)) }.to_bytes())
            }
            sys::RD_KAFKA_EVENT_LOG => {
                self.log();
                Kind::Nothing
            }
            _ => Kind::Nothing,
        }
    }

    fn record(&self) -> Kind<'_> {
        // SAFETY: a fetch event holds one message, which lives as long as the event.
        let message = unsafe { sys::rd_kafka_event_message_next(self.event.as_ptr()).as_ref() };
        match message {
            Some(message) if message.err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {
                Kind::Record(Record { message })
            }
            Some(message) => {
                let record = Record { message };
                let topic = String::from_utf8_lossy(record.topic()).into_owned();
                let place = Some((topic, record.partition()));
                Kind::News(News::Failure {
                    place,
                    code: message.err.into(),
                    text: String::new(),
                    fatal: false,
                })
            }
            None => Kind::Nothing,
        }
    }

    fn failure(&self) -> News {
        let event = self.event.as_ptr();
        // SAFETY: the event is alive; its strings live as long as it; `place` is ours to destroy and
        // its topic is a string.
        unsafe {
            let code = sys::rd_kafka_event_error(event);
            let text = owned(sys::rd_kafka_event_error_string(event));
            let fatal = sys::rd_kafka_event_error_is_fatal(event) != 0;
            let place = sys::rd_kafka_event_topic_partition(event);
            let Some(found) = place.as_ref() else {
                return News::Failure { place: None, code: code.into(), text, fatal };
            };
            let (topic, partition, offset) = (owned(found.topic), found.partition, found.offset);
            sys::rd_kafka_topic_partition_destroy(place);
            if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF {
                return News::End { topic, partition, offset };
            }
            News::Failure { place: Some((topic, partition)), code: code.into(), text, fatal }
        }
    }

    fn rebalance(&self) -> News {
        let event = self.event.as_ptr();
        // SAFETY: the list belongs to the event; its elements are `cnt` valid entries.
        let (code, places) = unsafe {
            let list = sys::rd_kafka_event_topic_partition_list(event);
            (sys::rd_kafka_event_error(event), list.as_ref().map(|list| places(list)).unwrap_or_default())
        };
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            News::Assigned(places)
        } else {
            News::Revoked(places)
        }
    }

    fn log(&self) {
        let (mut facility, mut text, mut level) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the event is a log event; the strings live as long as it.
        unsafe {
            if sys::rd_kafka_event_log(self.event.as_ptr(), &raw mut facility, &raw mut text, &raw mut level)
                == 0
            {
                log(level, &owned(facility), owned(text).trim());
            }
        }
    }
}

impl Drop for Happening<'_> {
    fn drop(&mut self) {
        // SAFETY: ours, and destroyed once; everything borrowed from it has ended.
        unsafe { sys::rd_kafka_event_destroy(self.event.as_ptr()) }
    }
}

/// # Safety
/// `text` is null or a string that outlives the call.
unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as promised by the caller.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// # Safety
/// `list` holds `cnt` elements, each with a topic.
unsafe fn places(list: &sys::rd_kafka_topic_partition_list_t) -> Vec<(String, i32)> {
    let count = usize::try_from(list.cnt).unwrap_or(0);
    if count == 0 {
        return Vec::new();
    }
    // SAFETY: as promised by the caller.
    let elements = unsafe { std::slice::from_raw_parts(list.elems, count) };
    // SAFETY: as promised by the caller.
    elements.iter().map(|element| (unsafe { owned(element.topic) }, element.partition)).collect()
}

/// A message, borrowed from its event.
pub(crate) struct Record<'a> {
    message: &'a sys::rd_kafka_message_t,
}

impl<'a> Record<'a> {
    pub(crate) fn topic(&self) -> &'a [u8] {
        // SAFETY: a message's topic handle is valid, and its name lives as long as the handle, which
        // the message keeps.
        unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.message.rkt)) }.to_bytes()
    }

    pub(crate) fn partition(&self) -> i32 {
        self.message.partition
    }

    pub(crate) fn offset(&self) -> i64 {
        self.message.offset
    }

    /// Milliseconds since 1970, or -1.
    pub(crate) fn timestamp(&self) -> i64 {
        // SAFETY: the message is alive; the kind of time stamp isn't asked for.
        unsafe { sys::rd_kafka_message_timestamp(self.message, ptr::null_mut()) }
    }

    /// `None` for a tombstone.
    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: a message's payload is null or `len` bytes that live as long as its event.
        unsafe { slice(self.message.payload, self.message.len) }
    }

    /// Calls `each` with every header's name and value, in order.
    pub(crate) fn headers(&self, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive; the headers belong to it, and so do their names and values.
        unsafe {
            let found = sys::rd_kafka_message_headers(self.message, &raw mut headers);
            if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            for index in 0.. {
                let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
                let err = sys::rd_kafka_header_get_all(
                    headers,
                    index,
                    &raw mut name,
                    &raw mut value,
                    &raw mut size,
                );
                if err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                    return;
                }
                each(CStr::from_ptr(name).to_bytes(), slice(value, size));
            }
        }
    }
}

/// # Safety
/// `start` is null or the start of `length` bytes that live for `'a`.
unsafe fn slice<'a>(start: *const c_void, length: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: as promised by the caller.
    Some(unsafe { std::slice::from_raw_parts(start.cast(), length) })
}

/// What the broker says about one topic.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) id: Option<Uuid>,
    pub(crate) partitions: usize,
    pub(crate) error: Option<(RDKafkaErrorCode, String)>,
}

/// Asks for a description of topics, waiting at most `timeout`. The answer's order is the broker's.
pub(crate) fn describe_topics<C: ClientContext>(
    client: &rdkafka::client::Client<C>,
    names: &[&str],
    timeout: Duration,
) -> Result<Vec<Described>, (RDKafkaErrorCode, String)> {
    let names: Vec<CString> = names.iter().filter_map(|name| CString::new(*name).ok()).collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: the client outlives the call; the names outlive the collection; collection, options,
    // queue and event are ours and each is destroyed once, after its last use.
    unsafe {
        let native = client.native_ptr();
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = sys::rd_kafka_AdminOptions_new(native, operation);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
        let queue = sys::rd_kafka_queue_new(native);
        sys::rd_kafka_DescribeTopics(native, topics, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, millis);
        let answer = described(event);
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(topics);
        answer
    }
}

/// # Safety
/// `event` is null or alive.
unsafe fn described(event: *mut sys::rd_kafka_event_t) -> Result<Vec<Described>, (RDKafkaErrorCode, String)> {
    if event.is_null() {
        return Err((RDKafkaErrorCode::OperationTimedOut, "no answer".to_owned()));
    }
    // SAFETY: the event is alive, and everything read from it is copied before this returns.
    unsafe {
        let code = sys::rd_kafka_event_error(event);
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err((code.into(), owned(sys::rd_kafka_event_error_string(event))));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err((RDKafkaErrorCode::Fail, "unexpected answer".to_owned()));
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        Ok((0..count).map(|index| one_described(*topics.add(index))).collect())
    }
}

/// # Safety
/// `topic` is alive.
unsafe fn one_described(topic: *const sys::rd_kafka_TopicDescription_t) -> Described {
    // SAFETY: as promised by the caller; what is read belongs to it.
    unsafe {
        let error = sys::rd_kafka_TopicDescription_error(topic);
        let code = sys::rd_kafka_error_code(error);
        let failed = code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let id = (!id.is_null()).then(|| {
            let high = sys::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
            Uuid::from_u64_pair(high, sys::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned())
        });
        let mut partitions = 0;
        sys::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        Described {
            name: owned(sys::rd_kafka_TopicDescription_name(topic)),
            id: id.filter(|id| !id.is_nil()),
            partitions,
            error: failed.then(|| (code.into(), owned(sys::rd_kafka_error_string(error)))),
        }
    }
}
