//! One record to one row (and, if it is a detection, one more).

use inosec_schemas::{Column, Fill, Kind, Message, Mismatch, Reason, Rows, TenantId, Topic, derived_id};
use simd_json::Node;
use uuid::Uuid;

use super::convert::{self, push_text};
use super::envelope::{Envelope, is_envelope_name};
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
        let added =
            one(&chosen.format.name, plan, record, context, sink.detections, sink.mismatches, scratch);
        // The event is stored in any case; that it is no sound detection is only counted.
        *sink.mismatches += u64::from(added.is_err());
    }
    Ok(())
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
) -> Result<(), Reject> {
    let (length, text) = (rows.len(), rows.text.len());
    let mut row = Row { format, plan, record, context, rows, mismatches, scratch, times: Times::default() };
    match row.fill() {
        Ok(()) => {
            row.rows.message.push(context.index);
            Ok(())
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
    fn fill(&mut self) -> Result<(), Reject> {
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
                    let found = map.get(self.scratch.key.as_str()).or(default.as_ref());
                    found.map(|text| Value::Text(text))
                }
            };
            match value {
                Some(value) => self.put(*position, value, *absent)?,
                None => self.absent(*position, *absent)?,
            }
        }
        // A detection's id is made of what other columns hold.
        if let Some(position) = self.plan.id {
            self.identify(position);
        }
        Ok(())
    }

    fn slot(&self, slot: u16) -> Option<Value<'r>> {
        let capture = self.scratch.captures[usize::from(slot)];
        (capture.rank != u16::MAX).then(|| self.record.value(capture.at))
    }

    /// The parts of a look-up's key, joined by `/`, in ASCII lower case.
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
        key.make_ascii_lowercase();
        self.scratch.key = key;
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
        let pushed = convert::push(self.rows, position, value, tape, arrived_at, &mut self.scratch.text);
        pushed.or_else(|_| self.misfit(position, absent))
    }

    /// A value doesn't fit: null where the stream allows it.
    fn misfit(&mut self, position: usize, absent: Absent) -> Result<(), Reject> {
        let spec = &self.rows.stream.columns[position];
        let lenient = self.rows.stream.mismatch == Mismatch::Null && (!spec.required || is_vocabulary(spec));
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
                if self.times.event.is_none() && self.rows.stream.columns[position].required {
                    return Err(Reject::new(Reason::MissingTime, "it doesn't say when it happened"));
                }
                self.timestamp(position, self.times.event);
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

    /// The sender's id if the message has one, else one made of tenant, rule and event.
    fn identify(&mut self, position: usize) {
        let row = self.rows.len();
        if let Column::Uuid(values) = &self.rows.columns[position]
            && values.get(row).copied().flatten().is_some_and(|id| !id.is_nil())
        {
            return;
        }
        let rule = self.rows.stream.column("rule_id");
        let rule = rule.filter(|rule| self.rows.columns[*rule].len() > row);
        let rule = rule.and_then(|rule| self.rows.text(rule, row)).unwrap_or_default();
        let rule = format!("{}:{}", self.format, String::from_utf8_lossy(rule));
        let id = derived_id(self.context.tenant, &rule, self.event_id());
        if let Column::Uuid(values) = &mut self.rows.columns[position] {
            values.truncate(row);
            values.push(Some(id));
        }
    }
}
