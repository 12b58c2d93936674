//! One record to one row (and, if it is a detection, one more).
//!
//! While a batch is being filled columns are only as long as their last value; [`finish`] fills them up.

use inosec_schemas::{
    Column, Fill, Kind, Message, Reason, Rows, TenantId, Topic, derived_id,
};
use simd_json::Node;
use uuid::Uuid;

use super::convert::{self, Misfit, append, place_text, put_fixed};
use super::envelope::{Envelope, is_envelope_name};
use super::plan::{Absent, Chosen, Make, Part, Plan, Slot, Step};
use super::record::{Value, Walk, members, value_at};
use super::tree::Places;
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
    pub(crate) places: Places,
    text: String,
    key: String,
}

/// Fills all columns up to the number of rows.
pub(crate) fn finish(rows: &mut Rows) {
    let length = rows.len();
    rows.columns.iter_mut().for_each(|column| column.resize(length));
}

/// Adds the record's row, and the detection it is, if it is one.
pub(crate) fn add(
    chosen: &Chosen<'_>,
    record: &impl Walk,
    context: &RowContext<'_>,
    sink: Sink<'_>,
    scratch: &mut Scratch,
) -> Result<(), Reject> {
    let Sink { rows, detections, mismatches } = sink;
    let format = &chosen.format.name;
    one(format, &chosen.format.plan, record, context, rows, mismatches, scratch)?;
    if let Some(plan) = chosen.detection {
        let added = one(format, plan, record, context, detections, mismatches, scratch);
        // The event is stored in any case; that it is no sound detection is only counted.
        *mismatches += u64::from(added.is_err());
    }
    Ok(())
}

/// Adds a row, or leaves the rows as they were.
fn one(
    format: &str,
    plan: &Plan,
    record: &impl Walk,
    context: &RowContext<'_>,
    rows: &mut Rows,
    mismatches: &mut u64,
    scratch: &mut Scratch,
) -> Result<(), Reject> {
    let (row, text) = (rows.len(), rows.text.len());
    let Scratch { places, text: buffer, key } = scratch;
    let times = Times::of(plan, record, places, context);
    let mut filling =
        Row { format, plan, record, places, context, rows, mismatches, buffer, key, times, row };
    for step in &plan.steps {
        if let Err(reject) = filling.fill(step) {
            filling.undo(text);
            return Err(reject);
        }
    }
    rows.message.push(context.index);
    Ok(())
}

#[derive(Debug, Clone, Copy)]
struct Times {
    event: Option<i64>,
    storage: i64,
}

impl Times {
    /// What the event says of its time, and the time it is stored under.
    fn of(plan: &Plan, record: &impl Walk, places: &[u32], context: &RowContext<'_>) -> Self {
        let arrived_at = context.message.arrived_at;
        let told = plan.time.as_ref().and_then(|slot| record.first(places, slot));
        let told = told.and_then(|value| time::parse(value, arrived_at));
        let around = || time::parse(value_at(context.tape, context.envelope.ts?), arrived_at);
        let event = told.or_else(around);
        let earliest = arrived_at.saturating_sub(context.limits.max_age_us);
        let latest = arrived_at.saturating_add(context.limits.max_skew_us);
        let storage = event.filter(|time| (earliest..=latest).contains(time)).unwrap_or(arrived_at);
        Self { event, storage }
    }
}

/// A row being filled.
struct Row<'r, 'c, W: Walk> {
    format: &'r str,
    plan: &'r Plan,
    record: &'r W,
    places: &'r [u32],
    context: &'r RowContext<'c>,
    rows: &'r mut Rows,
    mismatches: &'r mut u64,
    buffer: &'r mut String,
    key: &'r mut String,
    times: Times,
    /// Its number.
    row: usize,
}

impl<'r, W: Walk> Row<'r, '_, W> {
    fn fill(&mut self, step: &Step) -> Result<(), Reject> {
        match &step.make {
            Make::Fill(fill) => self.by_road(step, *fill),
            Make::First(slot) => match self.first(slot) {
                Some(value) => self.put(step, value),
                None => self.absent(step),
            },
            Make::Lookup { key, map, default } => {
                self.write_key(key);
                match map.get(self.key.as_str()).or(default.as_ref()) {
                    Some(text) => self.put(step, Value::Text(text)),
                    None => self.absent(step),
                }
            }
            Make::Template(parts) => {
                let mut text = std::mem::take(self.key);
                let done = match self.write_template(parts, &mut text) {
                    Some(()) => self.put(step, Value::Text(&text)),
                    None => self.absent(step),
                };
                *self.key = text;
                done
            }
            Make::Nothing => self.absent(step),
        }
    }

    fn first(&self, slot: &Slot) -> Option<Value<'r>> {
        self.record.first(self.places, slot)
    }

    /// The parts of a look-up's key, joined by `/`, in ASCII lower case.
    fn write_key(&mut self, parts: &[Slot]) {
        self.key.clear();
        for (index, slot) in parts.iter().enumerate() {
            if index > 0 {
                self.key.push('/');
            }
            if let Some(value) = self.record.first(self.places, slot) {
                write_plain(value, self.key);
            }
        }
        self.key.make_ascii_lowercase();
    }

    /// `None` if one of the values is missing.
    fn write_template(&self, parts: &[Part], out: &mut String) -> Option<()> {
        out.clear();
        for part in parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(slot) => write_plain(self.first(slot)?, out),
            }
        }
        Some(())
    }

    fn put(&mut self, step: &Step, value: Value<'_>) -> Result<(), Reject> {
        let put = match step.kind {
            Kind::Text => self.put_text(step, value),
            Kind::Json | Kind::TextList | Kind::Bytes => self.put_document(step, value),
            // What Windows writes where an address would be: as good as none.
            Kind::Inet if value == Value::Text("LOCAL") => return self.absent(step),
            _ => {
                let column = &mut self.rows.columns[step.position];
                put_fixed(column, self.row, value, self.context.message.arrived_at)
            }
        };
        put.or_else(|_| self.misfit(step))
    }

    fn put_text(&mut self, step: &Step, value: Value<'_>) -> Result<(), Misfit> {
        let full = match value {
            Value::Text(text) => text,
            Value::Nested(_) | Value::Null => return Err(Misfit),
            other => {
                self.buffer.clear();
                convert::write_scalar(other, self.buffer);
                self.buffer
            }
        };
        let slice = place_text(self.rows, full, step.cap, step.first_line);
        append(&mut self.rows.columns[step.position], self.row, slice);
        Ok(())
    }

    fn put_document(&mut self, step: &Step, value: Value<'_>) -> Result<(), Misfit> {
        convert::write_document(step.kind, value, self.record.tape(), self.buffer)?;
        if step.kind == Kind::Json && self.buffer.len() > step.cap {
            return Err(Misfit);
        }
        let slice = self.rows.push_text(self.buffer.as_bytes());
        append(&mut self.rows.columns[step.position], self.row, Some(slice));
        Ok(())
    }

    /// A value doesn't fit.
    fn misfit(&mut self, step: &Step) -> Result<(), Reject> {
        if step.lenient {
            *self.mismatches += 1;
            return self.absent(step);
        }
        let spec = &self.rows.stream.columns[step.position];
        Err(Reject::new(Reason::TypeMismatch, format!("column {} takes {}", spec.name, spec.kind.docs())))
    }

    /// The message doesn't say.
    fn absent(&mut self, step: &Step) -> Result<(), Reject> {
        match step.absent {
            Absent::Null => {}
            Absent::Zero => {
                put_fixed(&mut self.rows.columns[step.position], self.row, Value::Int(0), 0)
                    .unwrap_or_else(|Misfit| unreachable!("0 fits every integer"));
            }
            Absent::Host => {
                if let Some(host) = self.context.envelope.host {
                    let slice = place_text(self.rows, host, step.cap, step.first_line);
                    append(&mut self.rows.columns[step.position], self.row, slice);
                }
            }
            Absent::FormatName => {
                let slice = place_text(self.rows, self.format, step.cap, false);
                append(&mut self.rows.columns[step.position], self.row, slice);
            }
            Absent::DerivedId => {
                let id = self.derived_id();
                self.uuid(step.position, id);
            }
            Absent::Reject => {
                let name = &self.rows.stream.columns[step.position].name;
                return Err(Reject::new(Reason::MissingField, format!("column {name} has no value")));
            }
        }
        Ok(())
    }

    fn by_road(&mut self, step: &Step, fill: Fill) -> Result<(), Reject> {
        let RowContext { message, topic, tenant, .. } = *self.context;
        let position = step.position;
        match fill {
            Fill::Ts => self.timestamp(position, self.times.storage),
            Fill::EventTime => match self.times.event {
                Some(time) => self.timestamp(position, time),
                None if step.absent == Absent::Reject => {
                    return Err(Reject::new(Reason::MissingTime, "it doesn't say when it happened"));
                }
                None => {}
            },
            Fill::ArrivedAt => self.timestamp(position, message.arrived_at),
            Fill::Tenant => self.uuid(position, tenant.0),
            Fill::EventId => self.uuid(position, self.event_id()),
            Fill::Format => {
                let slice = self.rows.push_text(self.format.as_bytes());
                append(&mut self.rows.columns[position], self.row, Some(slice));
            }
            Fill::Labels => self.labels(position),
            Fill::Seq => self.integer(position, 0),
            Fill::TopicKey => self.integer(position, i64::from(topic.key)),
            Fill::Partition => self.integer(position, i64::from(message.partition)),
            Fill::Offset => self.integer(position, message.offset),
            Fill::Message | Fill::Id | Fill::Source => return self.absent(step),
        }
        Ok(())
    }

    fn timestamp(&mut self, position: usize, value: i64) {
        if let Column::Timestamp(values) = &mut self.rows.columns[position] {
            values.resize(self.row, None);
            values.push(Some(value));
        }
    }

    fn uuid(&mut self, position: usize, value: Uuid) {
        if let Column::Uuid(values) = &mut self.rows.columns[position] {
            values.resize(self.row, None);
            values.push(Some(value));
        }
    }

    /// An integer the road says; the stream's check gave it a column wide enough.
    fn integer(&mut self, position: usize, value: i64) {
        let _ = put_fixed(&mut self.rows.columns[position], self.row, Value::Int(value), 0);
    }

    fn event_id(&self) -> Uuid {
        let message = self.context.message;
        self.context.topic.event_ids.event_id(message.partition, message.offset)
    }

    /// The same for every redo of the message: made of tenant, rule (else the format) and event.
    fn derived_id(&self) -> Uuid {
        let rule = match self.plan.rule.map(|position| &self.rows.columns[position]) {
            Some(Column::Text(values)) => values.get(self.row).copied().flatten(),
            _ => None,
        };
        let rule = rule.and_then(|slice| std::str::from_utf8(self.rows.slice(slice)).ok());
        derived_id(self.context.tenant, rule.unwrap_or(self.format), self.event_id())
    }

    /// The envelope's other members as one JSON object.
    fn labels(&mut self, position: usize) {
        if !self.context.envelope.labels {
            return;
        }
        let text = &mut *self.buffer;
        text.clear();
        for (name, at) in members(self.context.tape, 0).filter(|(name, _)| !is_envelope_name(name)) {
            text.push(if text.is_empty() { '{' } else { ',' });
            convert::write_string(name, text);
            text.push(':');
            convert::write_json(self.context.tape, at, text);
        }
        text.push('}');
        let slice = self.rows.push_text(text.as_bytes());
        append(&mut self.rows.columns[position], self.row, Some(slice));
    }

    /// Takes back what the row's columns already hold.
    fn undo(&mut self, text: usize) {
        for column in &mut self.rows.columns {
            if convert::length(column) > self.row {
                column.resize(self.row);
            }
        }
        self.rows.text.truncate(text);
    }
}

/// A scalar without quotes; documents say nothing here.
fn write_plain(value: Value<'_>, out: &mut String) {
    match value {
        Value::Text(text) => out.push_str(text),
        Value::Nested(_) | Value::Null => {}
        other => convert::write_scalar(other, out),
    }
}
