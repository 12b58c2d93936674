//! One record to one row (and, if it is a detection, one more).

use std::borrow::Cow;

use inosec_schemas::{
    Column, Fill, Kind, Message, Mismatch, Reason, Rows, TenantId, Topic, content_id, derived_id,
};
use simd_json::Node;
use uuid::Uuid;

use super::convert::{self, push_text};
use super::envelope::{self, Envelope, is_envelope_name};
use super::names::Hit;
use super::plan::{Absent, Chosen, Make, Plan, is_vocabulary, push_integer};
use super::record::{Capture, Record, Value, capture, members, value_at};
use super::{Limits, Reject, time};

/// What a row needs besides its record.
pub(crate) struct RowContext<'a> {
    pub(crate) topic: &'a Topic,
    pub(crate) message: &'a Message,
    /// The message's place in the batch.
    pub(crate) index: u32,
    pub(crate) tenant: TenantId,
    pub(crate) envelope: &'a Envelope<'a>,
    /// The tape the envelope lies on; empty for a bare line.
    pub(crate) tape: &'a [Node<'a>],
    /// The record's members that are asked for.
    pub(crate) hits: &'a [Hit],
    pub(crate) limits: &'a Limits,
}

/// Where rows go.
pub(crate) struct Sink<'a> {
    pub(crate) rows: &'a mut Rows,
    pub(crate) detections: &'a mut Rows,
    /// The detections whose id is their sender's or their content's.
    pub(crate) named: &'a mut Vec<u32>,
    pub(crate) mismatches: &'a mut u64,
}

/// Scratch space between records.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    captures: Vec<Capture>,
    text: String,
    key: String,
}

/// Adds the record's row, and the detection it is, if it is one.
pub(crate) fn add(
    chosen: &Chosen<'_>,
    record: &Record<'_>,
    context: &RowContext<'_>,
    sink: &mut Sink<'_>,
    scratch: &mut Scratch,
) -> Result<(), Reject> {
    one(&chosen.format.name, &chosen.format.plan, record, context, sink.rows, sink.mismatches, scratch)?;
    if let Some(plan) = chosen.detection {
        let place = sink.detections.len() as u32;
        match one(&chosen.format.name, plan, record, context, sink.detections, sink.mismatches, scratch) {
            Ok(Named::ByContent) => sink.named.push(place),
            Ok(Named::ByPlace) => {}
            // The event is stored in any case; that it is no sound detection is only counted.
            Err(_) => *sink.mismatches += 1,
        }
    }
    Ok(())
}

/// Where a row's id comes from, if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    /// What the message says: sent again it is the same.
    ByContent,
    /// Where it was read.
    ByPlace,
}

/// Adds a row, or leaves the rows as they were.
fn one(
    format: &str,
    plan: &Plan,
    record: &Record<'_>,
    context: &RowContext<'_>,
    rows: &mut Rows,
    mismatches: &mut u64,
    scratch: &mut Scratch,
) -> Result<Named, Reject> {
    let (length, text) = (rows.len(), rows.text.len());
    let mut row = Row { format, plan, record, context, rows, mismatches, scratch, times: Times::default() };
    match row.fill() {
        Ok(named) => {
            row.rows.message.push(context.index);
            Ok(named)
        }
        Err(reject) => {
            rows.columns.iter_mut().for_each(|column| column.resize(length));
            rows.text.truncate(text);
            Err(reject)
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Times {
    event: Option<i64>,
    storage: i64,
}

struct Row<'r, 'c> {
    format: &'r str,
    plan: &'r Plan,
    record: &'r Record<'r>,
    context: &'r RowContext<'c>,
    rows: &'r mut Rows,
    mismatches: &'r mut u64,
    scratch: &'r mut Scratch,
    times: Times,
}

impl<'r> Row<'r, '_> {
    fn fill(&mut self) -> Result<Named, Reject> {
        let Self { record, plan, context, .. } = *self;
        capture(record, context.hits, &plan.targets, plan.slots, &mut self.scratch.captures);
        self.times = self.times();
        for (position, make, absent) in &self.plan.makes {
            let value = match make {
                Make::Nothing => None,
                Make::Fill(fill) => {
                    self.by_road(*position, *fill)?;
                    continue;
                }
                Make::Slot(slot) => self.slot(*slot),
                Make::Lookup { slots, map, default } => {
                    self.key(slots);
                    self.scratch.key.make_ascii_lowercase();
                    let key = self.scratch.key.as_str();
                    let found = map.get(key).or(default.as_ref());
                    *self.mismatches += u64::from(found.is_none() && key.bytes().any(|byte| byte != b'/'));
                    found.map(|text| Value::Text(text))
                }
                Make::Members(members) => {
                    self.members(*position, members);
                    continue;
                }
                Make::Id(slots) => {
                    let id = self.id_of(slots);
                    self.uuid(*position, id.unwrap_or_default());
                    continue;
                }
            };
            match value {
                Some(value) => self.put(*position, value, *absent)?,
                None => self.absent(*position, *absent)?,
            }
        }
        // A detection's id is made of what other columns hold.
        Ok(self.plan.id.map_or(Named::ByPlace, |position| self.identify(position)))
    }

    fn slot(&self, slot: u16) -> Option<Value<'r>> {
        let capture = self.scratch.captures[usize::from(slot)];
        (capture.rank != u16::MAX).then(|| self.record.value(capture.at))
    }

    /// The parts of a key, joined by `/`.
    fn key(&mut self, slots: &[u16]) {
        let mut key = std::mem::take(&mut self.scratch.key);
        key.clear();
        for (index, slot) in slots.iter().enumerate() {
            if index > 0 {
                key.push('/');
            }
            match self.slot(*slot) {
                Some(Value::Text(text)) => key.push_str(text),
                Some(Value::Nested(_)) | None => {}
                Some(other) => convert::write_scalar(other, &mut key),
            }
        }
        self.scratch.key = key;
    }

    /// The id of the slots' values, if all of them are there.
    fn id_of(&mut self, slots: &[u16]) -> Option<Uuid> {
        let said = |slot: &u16| !matches!(self.slot(*slot), None | Some(Value::Nested(_)));
        let complete = slots.iter().all(said);
        self.key(slots);
        let named = format!("{}:{}", self.format, self.scratch.key);
        complete.then(|| derived_id(self.context.tenant, &named, Uuid::nil()))
    }

    /// An object of the members that are there. Those beyond the column's cap are left out: the raw
    /// message has them.
    fn members(&mut self, position: usize, members: &[(Box<str>, u16)]) {
        let cap = self.rows.stream.columns[position].cap as usize;
        let mut text = std::mem::take(&mut self.scratch.text);
        text.clear();
        for (name, slot) in members {
            let Some(value) = self.slot(*slot) else { continue };
            let before = text.len();
            text.push(if before == 0 { '{' } else { ',' });
            convert::write_string(name, &mut text);
            text.push(':');
            convert::write_value(value, self.record.tape(), &mut text);
            if text.len() >= cap {
                text.truncate(before);
            }
        }
        if !text.is_empty() {
            text.push('}');
            let slice = self.rows.push_text(text.as_bytes());
            self.rows.end_of(position).push_slice(Some(slice));
        }
        self.scratch.text = text;
    }

    /// Whether the record is a detection besides being an event. Of an event that is stored anyway,
    /// the detection is worth having without what can't be read.
    fn is_implied(&self) -> bool {
        self.rows.stream.name != self.context.topic.stream.name
    }

    /// What the event says of its time, and the time it is stored under.
    fn times(&self) -> Times {
        let arrived_at = self.context.message.arrived_at;
        let told = self.plan.time.and_then(|slot| self.slot(slot));
        let told = told.and_then(|value| time::parse(value, arrived_at));
        let around = || {
            let at = self.context.envelope.ts?;
            time::parse(value_at(self.context.tape, at), arrived_at)
        };
        let event = told.or_else(around);
        let limits = self.context.limits;
        let earliest = arrived_at.saturating_sub(limits.max_age_us);
        let latest = arrived_at.saturating_add(limits.max_skew_us);
        let storage = event.filter(|time| (earliest..=latest).contains(time)).unwrap_or(arrived_at);
        Times { event, storage }
    }

    fn put(&mut self, position: usize, value: Value<'_>, absent: Absent) -> Result<(), Reject> {
        let arrived_at = self.context.message.arrived_at;
        let tape = self.record.tape();
        match convert::push(self.rows, position, value, tape, arrived_at, &mut self.scratch.text) {
            Ok(true) => Ok(()),
            Ok(false) => self.absent(position, absent),
            Err(_) => self.misfit(position, absent),
        }
    }

    /// A value doesn't fit: null where the stream allows it.
    fn misfit(&mut self, position: usize, absent: Absent) -> Result<(), Reject> {
        let spec = &self.rows.stream.columns[position];
        let forgiving = self.rows.stream.mismatch == Mismatch::Null || self.is_implied();
        let dispensable = !spec.required || is_vocabulary(spec) || matches!(absent, Absent::Fill(_));
        let lenient = forgiving && dispensable;
        // A document that is merely too long is no reason to lose the row.
        if lenient || (spec.kind == Kind::Json && !spec.required) {
            *self.mismatches += 1;
            return self.absent(position, absent);
        }
        Err(Reject::new(Reason::TypeMismatch, format!("column {} takes {}", spec.name, spec.kind.docs())))
    }

    /// No value: null, or what stands for it.
    fn absent(&mut self, position: usize, absent: Absent) -> Result<(), Reject> {
        match absent {
            Absent::Null => {}
            Absent::Host => {
                if let Some(host) = self.context.envelope.host {
                    let text = push_text(&mut self.rows.text, host, &self.rows.stream.columns[position]);
                    self.rows.end_of(position).push_slice(text);
                }
            }
            Absent::Fill(fill) => return self.by_road(position, fill),
            Absent::Unknown => push_integer(self.rows.end_of(position), 0),
            Absent::Reject => {
                let name = &self.rows.stream.columns[position].name;
                return Err(Reject::new(Reason::MissingField, format!("column {name} has no value")));
            }
        }
        Ok(())
    }

    fn by_road(&mut self, position: usize, fill: Fill) -> Result<(), Reject> {
        let RowContext { message, topic, tenant, .. } = *self.context;
        match fill {
            Fill::Ts => self.timestamp(position, Some(self.times.storage)),
            Fill::EventTime => {
                let mut time = self.times.event;
                if time.is_none() && self.rows.stream.columns[position].required {
                    if !self.is_implied() {
                        return Err(Reject::new(Reason::MissingTime, "it doesn't say when it happened"));
                    }
                    time = Some(self.times.storage);
                }
                self.timestamp(position, time);
            }
            Fill::ArrivedAt => self.timestamp(position, Some(message.arrived_at)),
            Fill::Tenant => self.uuid(position, tenant.0),
            Fill::EventId => self.uuid(position, self.event_id()),
            // Set at the end.
            Fill::Id => self.uuid(position, Uuid::nil()),
            Fill::Format | Fill::Source => {
                let slice = self.rows.push_text(self.format.as_bytes());
                self.rows.end_of(position).push_slice(Some(slice));
            }
            Fill::Labels => self.labels(position),
            Fill::Seq => push_integer(self.rows.end_of(position), 0),
            Fill::TopicKey => push_integer(self.rows.end_of(position), i64::from(topic.key)),
            Fill::Partition => push_integer(self.rows.end_of(position), i64::from(message.partition)),
            Fill::Offset => push_integer(self.rows.end_of(position), message.offset),
            // The plan says where these come from.
            Fill::Message => {}
        }
        Ok(())
    }

    fn timestamp(&mut self, position: usize, value: Option<i64>) {
        if let Column::Timestamp(values) = self.rows.end_of(position) {
            values.push(value);
        }
    }

    fn uuid(&mut self, position: usize, value: Uuid) {
        if let Column::Uuid(values) = self.rows.end_of(position) {
            values.push(Some(value));
        }
    }

    fn event_id(&self) -> Uuid {
        let message = self.context.message;
        self.context.topic.event_ids.event_id(message.partition, message.offset)
    }

    /// The envelope's other members as one JSON object.
    fn labels(&mut self, position: usize) {
        if !self.context.envelope.labels {
            return;
        }
        let text = &mut self.scratch.text;
        text.clear();
        for (name, at) in members(self.context.tape, 0).filter(|(name, _)| !is_envelope_name(name)) {
            text.push(if text.is_empty() { '{' } else { ',' });
            convert::write_string(name, text);
            text.push(':');
            convert::write_json(self.context.tape, at, text);
        }
        text.push('}');
        let slice = self.rows.push_text(text.as_bytes());
        self.rows.end_of(position).push_slice(Some(slice));
    }

    /// The sender's id if the message has one, else one made of tenant, rule, host, time and the record. One that
    /// doesn't say when can't be told from another of its kind: its id is made of its place.
    fn identify(&mut self, position: usize) -> Named {
        let row = self.rows.len();
        if let Column::Uuid(values) = &self.rows.columns[position]
            && values.get(row).copied().flatten().is_some_and(|id| !id.is_nil())
        {
            return Named::ByContent;
        }
        let rule = format!("{}:{}", self.format, self.text_of("rule_id"));
        let (id, named) = match self.times.event {
            Some(time) => {
                self.content(time);
                let content = self.scratch.text.as_bytes();
                (content_id(self.context.tenant, &rule, content), Named::ByContent)
            }
            None => (derived_id(self.context.tenant, &rule, self.event_id()), Named::ByPlace),
        };
        if let Column::Uuid(values) = &mut self.rows.columns[position] {
            values.truncate(row);
            values.push(Some(id));
        }
        named
    }

    /// What a detection says: its host, its time and its record, but for spaces. The envelope around it and
    /// the way it came are left out.
    fn content(&mut self, time: i64) {
        let mut text = std::mem::take(&mut self.scratch.text);
        text.clear();
        convert::write_string(&self.text_of("host_name"), &mut text);
        convert::write_scalar(Value::Int(time), &mut text);
        match self.context.envelope.record {
            envelope::Record::Json(root) => convert::write_json(self.record.tape(), root, &mut text),
            envelope::Record::Text(line) => convert::write_string(line, &mut text),
        }
        self.scratch.text = text;
    }

    /// What this row has in a column of texts, if it got there.
    fn text_of(&self, column: &str) -> Cow<'_, str> {
        let row = self.rows.len();
        let column = self.rows.stream.column(column).filter(|column| self.rows.columns[*column].len() > row);
        let text = column.and_then(|column| self.rows.text(column, row)).unwrap_or_default();
        String::from_utf8_lossy(text)
    }
}
