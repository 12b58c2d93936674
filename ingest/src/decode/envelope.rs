//! inosec's envelope around a record, or the bare record.
//!
//! An object with a member `event` (an object) or `raw` (a text) is an envelope if it names a format or
//! a tenant, or if all its other members are scalars; never if it has `@timestamp`. ECS records, which
//! have an `event` of their own, have that name or objects beside it.

use inosec_schemas::Reason;
use simd_json::Node;

use super::Reject;
use super::record::{Value, members, value_at};

/// The record inside.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Record<'a> {
    /// An object on the tape.
    Json(usize),
    /// A line of text.
    Text(&'a str),
}

/// What the sender says around the record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'a> {
    pub(crate) record: Record<'a>,
    /// `tenant_id`, of the envelope or of a bare record.
    pub(crate) tenant: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
    pub(crate) format: Option<&'a str>,
    /// Place of `ts` on the tape.
    pub(crate) ts: Option<usize>,
    /// Whether there are further members: they become labels.
    pub(crate) labels: bool,
}

impl<'a> Envelope<'a> {
    fn bare(record: Record<'a>) -> Self {
        Self { record, tenant: None, host: None, format: None, ts: None, labels: false }
    }

    /// A line of text by itself.
    pub(crate) fn of_text(value: &'a [u8]) -> Result<Self, Reject> {
        let text = std::str::from_utf8(value)
            .map_err(|_| Reject::new(Reason::BadUtf8, "bytes that are neither JSON nor UTF-8"))?;
        Ok(Self::bare(Record::Text(text.trim_end_matches(['\r', '\n']))))
    }

    /// An object: the envelope, or the record itself.
    pub(crate) fn of_json(tape: &[Node<'a>]) -> Self {
        let mut envelope = Self::bare(Record::Json(0));
        let (mut inner, mut nested, mut elastic) = (None, false, false);
        for (name, at) in members(tape, 0) {
            let value = value_at(tape, at);
            match (name, value) {
                ("event", Value::Nested(_)) if matches!(tape[at], Node::Object { .. }) => {
                    inner = Some(Record::Json(at));
                }
                ("raw", Value::Text(text)) => inner = Some(Record::Text(text)),
                ("tenant_id", Value::Text(text)) => envelope.tenant = Some(text),
                ("host", Value::Text(text)) => envelope.host = Some(text),
                ("format" | "fmt", Value::Text(text)) => envelope.format = Some(text),
                ("ts", Value::Text(_) | Value::Int(_) | Value::Float(_)) => envelope.ts = Some(at),
                ("@timestamp", _) => elastic = true,
                (name, value) => {
                    nested |= matches!(value, Value::Nested(_));
                    envelope.labels |= !is_envelope_name(name);
                }
            }
        }
        let told = envelope.format.is_some() || envelope.tenant.is_some();
        match inner {
            Some(record) if !elastic && (told || !nested) => Self { record, ..envelope },
            _ => Self { tenant: envelope.tenant, ..Self::bare(Record::Json(0)) },
        }
    }
}

/// Members that are not labels, whatever their type.
pub(crate) fn is_envelope_name(name: &str) -> bool {
    matches!(name, "tenant_id" | "host" | "ts" | "format" | "fmt" | "event" | "raw")
}
