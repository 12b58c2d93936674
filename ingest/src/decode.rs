//! Messages to typed columns: each becomes one row or one dead letter, never both, never neither.
//!
//! Pure: no clock, no I/O. A JSON message is parsed to simd-json's tape in a scratch buffer, the tape
//! is walked once, and what columns want is copied into the batch's text. Malformed input is data.

mod auditd;
mod convert;
mod envelope;
mod fields;
mod json;
mod lookup;
mod names;
mod plan;
mod read;
mod recognise;
mod record;
mod repair;
mod row;
mod syslog;
mod time;

use std::ops::Range;
use std::str::FromStr as _;
use std::sync::Arc;

use hashbrown::HashMap;
use inosec_schemas::{
    Batch, Catalog, DeadLetter, Directory, Headers, Message, Messages, Reason, Rows, Shape, TenantId,
    TenantSource, TenantStatus, Topic,
};

pub use self::fields::{Extractor, Watch};
use self::names::{Hit, Names};
use self::plan::Plans;
use self::read::{Opened, Reader};
use self::record::{Fields, Record, Value};
use self::row::{RowContext, Scratch, Sink};

/// The stream that records which are detections themselves also feed.
const DETECTIONS: &str = "threat_events";
/// The stream on whose events detection rules run.
const WATCHED: &str = "agent_logs";

/// What a message may be, and which times are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Event times older than arrival by more are stored under arrival, in microseconds.
    pub max_age_us: i64,
    /// Event times ahead of arrival by more are stored under arrival, in microseconds.
    pub max_skew_us: i64,
    /// Larger messages become dead letters.
    pub max_message_bytes: usize,
    /// More deeply nested ones too.
    pub max_depth: usize,
}

/// A reason and what to look at.
#[derive(Debug)]
pub(crate) struct Reject {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
    pub(crate) tenant: Option<TenantId>,
}

impl Reject {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), tenant: None }
    }
}

/// Decodes batches; keeps compiled mappings and scratch space between them.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    catalog: Catalog,
    plans: HashMap<String, (Plans, Names), foldhash::fast::RandomState>,
    reader: Reader,
    scratch: Scratch,
}

/// A batch that is being decoded.
#[derive(Debug)]
pub struct Decoding<'a> {
    topic: Arc<Topic>,
    limits: &'a Limits,
    plans: &'a Plans,
    directory: &'a Directory,
    names: &'a mut Names,
    reader: &'a mut Reader,
    scratch: &'a mut Scratch,
    batch: Batch,
    /// The message to go on with.
    next: usize,
}

/// What all messages of a batch share.
struct Shared<'a> {
    topic: &'a Topic,
    plans: &'a Plans,
    directory: &'a Directory,
    limits: &'a Limits,
}

/// What decoding a message writes to.
struct Tools<'a> {
    names: &'a mut Names,
    scratch: &'a mut Scratch,
    sink: Sink<'a>,
    watch: Option<&'a mut Watch>,
}

impl Decoder {
    /// Compiles the catalogue's mappings for streams as they are first met.
    #[must_use]
    pub fn new(catalog: &Catalog, limits: Limits) -> Self {
        Self {
            limits,
            catalog: catalog.clone(),
            plans: HashMap::default(),
            reader: Reader::new(limits),
            scratch: Scratch::default(),
        }
    }

    /// Decodes all messages with the tenants known at `directory`'s epoch.
    pub fn decode(&mut self, messages: Messages, directory: &Directory) -> Batch {
        let mut decoding = self.begin(messages, directory);
        decoding.advance(usize::MAX, None);
        decoding.finish()
    }

    /// The same, chunk by chunk: to do with each what wants memory in its proportion.
    pub fn begin<'a>(&'a mut self, messages: Messages, directory: &'a Directory) -> Decoding<'a> {
        let topic = Arc::clone(messages.topic());
        let Self { limits, catalog, plans, reader, scratch } = self;
        let stream = &topic.stream;
        let (plans, names) = plans.entry_ref(stream.name.as_str()).or_insert_with(|| {
            let mut names = Names::default();
            (Plans::compile(catalog, stream, &mut names), names)
        });
        let mut rows = Rows::new(Arc::clone(stream));
        rows.reserve(messages.entries.len());
        let detections = Rows::new(catalog.streams.get(DETECTIONS).unwrap_or(stream).clone());
        let batch = Batch {
            messages,
            rows,
            detections,
            named: Vec::new(),
            suppressed: Vec::new(),
            dead: Vec::new(),
            epoch: directory.epoch,
            mismatches: 0,
        };
        Decoding { topic, limits, plans, directory, names, reader, scratch, batch, next: 0 }
    }
}

impl Decoding<'_> {
    /// Decodes the next messages, as many as make `bytes` and at least one, and says which rows they
    /// became; nothing at the end. `watch` takes from those rows what detection rules look at, and
    /// forgets what it took before.
    pub fn advance(&mut self, bytes: usize, mut watch: Option<&mut Watch>) -> Option<Range<usize>> {
        let Self { topic, limits, plans, directory, names, reader, scratch, batch, next } = self;
        let shared = Shared { topic, plans, directory, limits };
        let Batch { messages, rows, detections, named, dead, mismatches, .. } = batch;
        if *next == messages.entries.len() {
            return None;
        }
        if let Some(watch) = &mut watch {
            watch.begin();
        }
        let mut watch = watch.filter(|_| topic.stream.name == WATCHED);
        let (first, mut taken) = (rows.len(), 0);
        while let Some(message) = messages.entries.get(*next).filter(|_| taken < bytes) {
            let value = messages.value(message);
            let received = Received { message, index: *next as u32, headers: messages.headers(message) };
            let mut tools = Tools {
                names,
                scratch,
                sink: Sink { rows, detections, named, mismatches },
                watch: watch.as_deref_mut(),
            };
            let decoded = match message.tombstone {
                true => Err(Reject::new(Reason::Tombstone, "the value is null")),
                false => reader.open(value, |opened| received.row(opened, &shared, &mut tools)),
            };
            if let Err(Reject { reason, detail, tenant }) = decoded {
                dead.push(DeadLetter { message: received.index, reason, detail, tenant });
            }
            taken += value.len();
            *next += 1;
        }
        rows.finish();
        detections.finish();
        for (format, events) in watch.iter().flat_map(|watch| &watch.extracted().unclassified) {
            metrics::counter!(crate::metrics::UNCLASSIFIED, "format" => format.clone()).increment(*events);
        }
        Some(first..rows.len())
    }

    /// What the messages so far became.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// All of it, once [`advance`](Self::advance) has come to the end.
    #[must_use]
    pub fn finish(self) -> Batch {
        debug_assert_eq!(self.next, self.batch.messages.entries.len(), "every message is decoded");
        let stream = self.topic.stream.name.clone();
        metrics::counter!(crate::metrics::MISMATCHES, "stream" => stream).increment(self.batch.mismatches);
        self.batch
    }
}

/// One message.
struct Received<'a> {
    message: &'a Message,
    index: u32,
    headers: Headers<'a>,
}

impl Received<'_> {
    fn row(&self, mut opened: Opened<'_>, shared: &Shared<'_>, tools: &mut Tools<'_>) -> Result<(), Reject> {
        let Shared { topic, plans, directory, limits } = *shared;
        let envelope = opened.envelope;
        let tenant = attribute(topic.tenant, self.headers.get("inosec-tenant"), envelope.tenant, directory)?;
        let format = self.headers.get("inosec-format").and_then(|name| std::str::from_utf8(name).ok());
        let Tools { names, scratch, sink, watch } = tools;
        let mut fields = Fields::default();
        let added = opened.recognise(format, plans, names, &mut fields).and_then(|(chosen, record)| {
            let context = RowContext {
                topic,
                message: self.message,
                index: self.index,
                tenant,
                envelope: &envelope,
                tape: opened.tape,
                hits: opened.hits,
                limits,
            };
            row::add(&chosen, &record, &context, sink, scratch)?;
            if let Some(watch) = watch {
                watch.take(self.index, &chosen.format.name, &record, &envelope);
            }
            Ok(())
        });
        added.map_err(|reject| Reject { tenant: Some(tenant), ..reject })
    }
}

/// Whose message it is.
fn attribute(
    source: TenantSource,
    header: Option<&[u8]>,
    member: Option<&str>,
    directory: &Directory,
) -> Result<TenantId, Reject> {
    let unknown = |detail: &str| Reject::new(Reason::UnknownTenant, detail);
    let tenant = match source {
        TenantSource::Fixed(tenant) => tenant,
        TenantSource::Header => {
            let text = header.ok_or_else(|| unknown("the header inosec-tenant is missing"))?;
            let text = std::str::from_utf8(text).unwrap_or_default();
            TenantId::from_str(text).map_err(|_| unknown("the header inosec-tenant is no UUID"))?
        }
        TenantSource::Payload => {
            let text = member.ok_or_else(|| unknown("the member tenant_id is missing"))?;
            TenantId::from_str(text).map_err(|_| unknown("the member tenant_id is no UUID"))?
        }
    };
    match directory.tenants.get(&tenant) {
        None => Err(unknown("nobody added this tenant: inosec tenant add")),
        Some(known) if known.status == TenantStatus::Suspended => Err(Reject {
            reason: Reason::SuspendedTenant,
            detail: "the tenant is suspended: redrive once it resumes".to_owned(),
            tenant: Some(tenant),
        }),
        Some(_) => Ok(tenant),
    }
}

impl Plans {
    /// The format of a JSON record: as told, else as recognised.
    fn choose_json<'p>(
        &'p self,
        told: Option<&str>,
        record: &Record<'_>,
        hits: &[Hit],
    ) -> Result<plan::Chosen<'p>, Reject> {
        let told = told.and_then(|name| self.named(name)).filter(|format| format.shape == Shape::Json);
        let marks =
            if told.is_none() || self.any_conditions { self.recogniser.marks(record, hits) } else { [0; 4] };
        self.chosen(told.or_else(|| self.recognised(&marks)), &marks)
    }

    /// The format of a text line: as told if it can be read so, else the first that can.
    fn choose_text<'p, 't>(
        &'p self,
        told: Option<&str>,
        text: &'t str,
        fields: &mut Fields<'t>,
    ) -> Result<plan::Chosen<'p>, Reject> {
        let told = told.and_then(|name| self.named(name));
        let format = told.filter(|format| fields.read(format.shape, text)).or_else(|| {
            self.texts.iter().map(|at| &self.formats[*at]).find(|format| fields.read(format.shape, text))
        });
        self.chosen(format, &[0; 4])
    }
}

/// A value that says something: not null, empty, or `-`.
fn says_something(value: Value<'_>) -> bool {
    !matches!(value, Value::Null | Value::Text("" | "-"))
}
