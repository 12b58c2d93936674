//! A decoded batch: typed columns over the messages they came from.

use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use crate::{Fill, Kind, Messages, Stream, TenantId};

/// A text's place in [`Rows::text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Where it starts.
    pub start: u32,
    /// How many bytes it has.
    pub length: u32,
}

impl Slice {
    /// Appends bytes to a text and says where they are.
    ///
    /// # Panics
    /// At 4 GiB, far above a batch's memory.
    pub fn append(text: &mut Vec<u8>, bytes: &[u8]) -> Self {
        let start = u32::try_from(text.len()).expect("a batch's text is below 4 GiB");
        text.extend_from_slice(bytes);
        Self { start, length: u32::try_from(bytes.len()).expect("a text is below 4 GiB") }
    }
}

/// One column's values, one per row; `None` is SQL's null.
#[derive(Debug, Clone)]
pub enum Column {
    /// [`Kind::Bool`].
    Bool(Vec<Option<bool>>),
    /// [`Kind::Int16`].
    Int16(Vec<Option<i16>>),
    /// [`Kind::Int32`].
    Int32(Vec<Option<i32>>),
    /// [`Kind::Int64`].
    Int64(Vec<Option<i64>>),
    /// [`Kind::Float64`].
    Float64(Vec<Option<f64>>),
    /// [`Kind::Timestamp`]: microseconds UTC.
    Timestamp(Vec<Option<i64>>),
    /// [`Kind::Uuid`].
    Uuid(Vec<Option<Uuid>>),
    /// [`Kind::Inet`].
    Inet(Vec<Option<IpAddr>>),
    /// [`Kind::Text`]: places in the rows' text; never holds NUL.
    Text(Vec<Option<Slice>>),
    /// [`Kind::Json`]: places of JSON text in the rows' text.
    Json(Vec<Option<Slice>>),
    /// [`Kind::TextList`]: places of items, each ended by NUL, in the rows' text.
    TextList(Vec<Option<Slice>>),
    /// [`Kind::Bytes`]: places in the rows' text.
    Bytes(Vec<Option<Slice>>),
}

impl Column {
    /// An empty column of this kind.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        match kind {
            Kind::Bool => Self::Bool(Vec::new()),
            Kind::Int16 => Self::Int16(Vec::new()),
            Kind::Int32 => Self::Int32(Vec::new()),
            Kind::Int64 => Self::Int64(Vec::new()),
            Kind::Float64 => Self::Float64(Vec::new()),
            Kind::Timestamp => Self::Timestamp(Vec::new()),
            Kind::Uuid => Self::Uuid(Vec::new()),
            Kind::Inet => Self::Inet(Vec::new()),
            Kind::Text => Self::Text(Vec::new()),
            Kind::Json => Self::Json(Vec::new()),
            Kind::TextList => Self::TextList(Vec::new()),
            Kind::Bytes => Self::Bytes(Vec::new()),
        }
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bool(values) => values.len(),
            Self::Int16(values) => values.len(),
            Self::Int32(values) => values.len(),
            Self::Int64(values) | Self::Timestamp(values) => values.len(),
            Self::Float64(values) => values.len(),
            Self::Uuid(values) => values.len(),
            Self::Inet(values) => values.len(),
            Self::Text(values) | Self::Json(values) | Self::TextList(values) | Self::Bytes(values) => {
                values.len()
            }
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the place of a text, JSON document, list or bytes value.
    ///
    /// # Panics
    /// If the column holds values of another kind.
    pub fn push_slice(&mut self, slice: Option<Slice>) {
        match self {
            Self::Text(values) | Self::Json(values) | Self::TextList(values) | Self::Bytes(values) => {
                values.push(slice);
            }
            other => unreachable!("not a column of texts: {other:?}"),
        }
    }

    fn reserve(&mut self, rows: usize) {
        match self {
            Self::Bool(values) => values.reserve(rows),
            Self::Int16(values) => values.reserve(rows),
            Self::Int32(values) => values.reserve(rows),
            Self::Int64(values) | Self::Timestamp(values) => values.reserve(rows),
            Self::Float64(values) => values.reserve(rows),
            Self::Uuid(values) => values.reserve(rows),
            Self::Inet(values) => values.reserve(rows),
            Self::Text(values) | Self::Json(values) | Self::TextList(values) | Self::Bytes(values) => {
                values.reserve(rows);
            }
        }
    }

    /// Cuts or fills up with nulls to `rows` values.
    pub fn resize(&mut self, rows: usize) {
        match self {
            Self::Bool(values) => values.resize(rows, None),
            Self::Int16(values) => values.resize(rows, None),
            Self::Int32(values) => values.resize(rows, None),
            Self::Int64(values) | Self::Timestamp(values) => values.resize(rows, None),
            Self::Float64(values) => values.resize(rows, None),
            Self::Uuid(values) => values.resize(rows, None),
            Self::Inet(values) => values.resize(rows, None),
            Self::Text(values) | Self::Json(values) | Self::TextList(values) | Self::Bytes(values) => {
                values.resize(rows, None);
            }
        }
    }
}

/// Rows of one stream.
#[derive(Debug, Clone)]
pub struct Rows {
    /// The stream.
    pub stream: Arc<Stream>,
    /// One column per column of the stream, in its order.
    pub columns: Vec<Column>,
    /// The texts the columns refer into.
    pub text: Vec<u8>,
    /// For each row the index of the message it came from.
    pub message: Vec<u32>,
}

impl Rows {
    /// No rows yet.
    #[must_use]
    pub fn new(stream: Arc<Stream>) -> Self {
        let columns = stream.columns.iter().map(|column| Column::new(column.kind)).collect();
        Self { stream, columns, text: Vec::new(), message: Vec::new() }
    }

    /// Makes room for so many further rows, so that columns needn't grow one by one.
    pub fn reserve(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.reserve(rows));
        self.message.reserve(rows);
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.message.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.message.is_empty()
    }

    /// The storage time of a row, in microseconds UTC.
    ///
    /// # Panics
    /// If decode left it out: a row without `ts` can't be stored.
    #[must_use]
    pub fn ts(&self, row: usize) -> i64 {
        match &self.columns[self.stream.ts] {
            Column::Timestamp(values) => values[row].expect("decode sets ts"),
            other => unreachable!("ts is a timestamp, not {other:?}"),
        }
    }

    /// The tenant of a row.
    ///
    /// # Panics
    /// If decode left it out: every row belongs to a tenant.
    #[must_use]
    pub fn tenant(&self, row: usize) -> TenantId {
        match &self.columns[self.stream.tenant] {
            Column::Uuid(values) => TenantId(values[row].expect("decode sets the tenant")),
            other => unreachable!("the tenant is a uuid, not {other:?}"),
        }
    }

    /// The bytes of a text, JSON document, list or bytes value.
    #[must_use]
    pub fn slice(&self, slice: Slice) -> &[u8] {
        &self.text[slice.start as usize..slice.start as usize + slice.length as usize]
    }

    /// A text value by column position.
    #[must_use]
    pub fn text(&self, column: usize, row: usize) -> Option<&[u8]> {
        match &self.columns[column] {
            Column::Text(values) => values[row].map(|slice| self.slice(slice)),
            _ => None,
        }
    }

    /// A small integer by column position.
    #[must_use]
    pub fn integer(&self, column: usize, row: usize) -> Option<i64> {
        match &self.columns[column] {
            Column::Int16(values) => values[row].map(i64::from),
            Column::Int32(values) => values[row].map(i64::from),
            Column::Int64(values) => values[row],
            _ => None,
        }
    }

    /// Appends a text to the rows' text and says where it is.
    pub fn push_text(&mut self, text: &[u8]) -> Slice {
        Slice::append(&mut self.text, text)
    }

    /// The column, filled up with nulls to the number of rows so far: what is pushed belongs to the
    /// next row. A row may leave out columns.
    pub fn end_of(&mut self, position: usize) -> &mut Column {
        let rows = self.len();
        let column = &mut self.columns[position];
        if column.len() != rows {
            column.resize(rows);
        }
        column
    }

    /// Fills up the columns that the last rows left out.
    pub fn finish(&mut self) {
        for position in 0..self.columns.len() {
            self.end_of(position);
        }
    }

    /// The position of the column filled by `fill`, if the stream has one.
    #[must_use]
    pub fn filled_by(&self, fill: Fill) -> Option<usize> {
        self.stream.columns.iter().position(|column| column.fill == fill)
    }
}

/// Why a message became a dead letter. A closed list: scripts and dashboards rely on the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Neither JSON nor a text line of a known format, or an empty value.
    BadJson,
    /// Bytes that are not UTF-8.
    BadUtf8,
    /// The value is null: a tombstone says nothing.
    Tombstone,
    /// Larger than the limit.
    TooLarge,
    /// Nested deeper than the limit.
    TooDeep,
    /// No tenant, or one nobody added.
    UnknownTenant,
    /// The tenant is suspended.
    SuspendedTenant,
    /// A required time is missing or unreadable.
    MissingTime,
    /// A required column is missing.
    MissingField,
    /// A value doesn't fit its column.
    TypeMismatch,
    /// The record is of no format that feeds this stream.
    UnknownFormat,
    /// The database refused the row (SQLSTATE class 22, 23 or 54).
    Constraint,
}

impl Reason {
    /// All of them, for docs and metrics.
    pub const ALL: [Self; 12] = [
        Self::BadJson,
        Self::BadUtf8,
        Self::Tombstone,
        Self::TooLarge,
        Self::TooDeep,
        Self::UnknownTenant,
        Self::SuspendedTenant,
        Self::MissingTime,
        Self::MissingField,
        Self::TypeMismatch,
        Self::UnknownFormat,
        Self::Constraint,
    ];

    /// The name in `dead_letters.reason` and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::BadUtf8 => "bad_utf8",
            Self::Tombstone => "tombstone",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::UnknownTenant => "unknown_tenant",
            Self::SuspendedTenant => "suspended_tenant",
            Self::MissingTime => "missing_time",
            Self::MissingField => "missing_field",
            Self::TypeMismatch => "type_mismatch",
            Self::UnknownFormat => "unknown_format",
            Self::Constraint => "constraint",
        }
    }
}

/// A message that can't be stored as a row.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The index of the message.
    pub message: u32,
    /// Why.
    pub reason: Reason,
    /// What to look at, without payload values.
    pub detail: String,
    /// The tenant, where the message said one that is known.
    pub tenant: Option<TenantId>,
}

/// Matches of a rule beyond what a tenant may have of it in a minute: counted, not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppressed {
    /// The minute of arrival, its start in microseconds UTC.
    pub minute: i64,
    /// The tenant.
    pub tenant: TenantId,
    /// The rule.
    pub rule_id: String,
    /// Its revision.
    pub rule_revision: Option<String>,
    /// Its title.
    pub title: String,
    /// How many there are in this batch.
    pub matches: u64,
    /// How many were stored before, at least.
    pub limit: u32,
    /// The first event of them.
    pub event_id: Uuid,
    /// The id of the threat event that tells of it: one per tenant, rule and minute.
    pub notice_id: Uuid,
}

/// What decode makes of [`Messages`]: every message is either a row or a dead letter.
#[derive(Debug)]
pub struct Batch {
    /// The messages as received.
    pub messages: Messages,
    /// Rows of the topic's stream.
    pub rows: Rows,
    /// Rows that the messages imply besides: threat events, of records that are detections and of those
    /// that a rule matches.
    pub detections: Rows,
    /// Those of the detections, by row, whose id is their sender's or their content's: a repeat
    /// is dropped.
    pub named: Vec<u32>,
    /// Matches beyond a rule's limit, at most one entry per tenant, rule and minute, in that order.
    pub suppressed: Vec<Suppressed>,
    /// The rest.
    pub dead: Vec<DeadLetter>,
    /// The placement epoch of the directory that attributed the tenants.
    pub epoch: i64,
    /// Values that didn't fit an optional column and were left null.
    pub mismatches: u64,
}
