//! A stream: one kind of event, its columns and how they are stored. One TOML file each.

use serde::Deserialize;

use crate::{Error, Kind};

/// How sensitive a column's values are, after the classes data-protection officers use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pii {
    /// Says nothing about a person.
    #[default]
    None,
    /// Points to a person or their device: user names, addresses, host names.
    Identifier,
    /// May contain anything people type: command lines, messages.
    FreeText,
}

/// Who fills a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// The message, by the format's mapping, or by the member of the column's own name.
    #[default]
    Message,
    /// The storage time: event time if plausible, else arrival.
    Ts,
    /// The tenant.
    Tenant,
    /// The deterministic id of the message's place in Kafka.
    EventId,
    /// The row's own identifier: the message's, or derived from tenant, rule and event.
    Id,
    /// What the event says of its time, whatever that is.
    EventTime,
    /// When Kafka took the message.
    ArrivedAt,
    /// The name of the wire format.
    Format,
    /// The envelope's other members, as JSON.
    Labels,
    /// The place of the raw message among the tenant's blocks.
    Seq,
    /// `kafka_topics.key`.
    TopicKey,
    /// The Kafka partition.
    Partition,
    /// The Kafka offset.
    Offset,
    /// The name of what produced the row: the wire format of a foreign detection, or `inosec`.
    Source,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnSpec {
    /// Its name in SQL, Parquet and the API.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Who fills it.
    #[serde(default)]
    pub fill: Fill,
    /// A message without it becomes a dead letter; NOT NULL in SQL.
    #[serde(default)]
    pub required: bool,
    /// Texts are cut at this many bytes (at a character boundary); the raw message keeps the rest.
    #[serde(default = "default_cap")]
    pub cap: u32,
    /// A longer text is no value of this column, such as a country's name where its code belongs; it
    /// isn't cut.
    #[serde(default)]
    pub whole: bool,
    /// Only the first line is kept.
    #[serde(default)]
    pub first_line: bool,
    /// The unit or vocabulary of its values.
    #[serde(default)]
    pub unit: Option<String>,
    /// How sensitive it is.
    #[serde(default)]
    pub pii: Pii,
    /// One sentence for the reference.
    pub description: String,
}

/// An indexed text of 512 bytes still fits a btree page three times over.
fn default_cap() -> u32 {
    512
}

/// An index and what it costs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// The columns, each optionally followed by ` DESC`.
    pub columns: Vec<String>,
    /// Its measured write price in microseconds of PostgreSQL per row, with the run it comes from.
    #[serde(default)]
    pub price: Option<String>,
}

/// The width of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// One hour.
    Hour,
    /// One UTC day.
    #[default]
    Day,
}

impl Interval {
    /// Its width in microseconds.
    #[must_use]
    pub fn micros(self) -> i64 {
        match self {
            Self::Hour => 3_600_000_000,
            Self::Day => 86_400_000_000,
        }
    }

    /// As PostgreSQL's `interval` reads it.
    #[must_use]
    pub fn sql(self) -> &'static str {
        match self {
            Self::Hour => "1 hour",
            Self::Day => "1 day",
        }
    }
}

/// What happens to a message whose value doesn't fit an optional column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mismatch {
    /// It becomes a dead letter: whoever declared the stream also writes it.
    #[default]
    Reject,
    /// The column stays null and a counter moves: foreign telemetry is never lost over one field.
    Null,
}

/// A stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// Its name, also the table's.
    pub name: String,
    /// One paragraph for the reference.
    pub description: String,
    /// The columns, in table order.
    pub columns: Vec<ColumnSpec>,
    /// Position of the time column that partitions the table.
    pub ts: usize,
    /// Position of the tenant column.
    pub tenant: usize,
    /// The width of a partition.
    pub interval: Interval,
    /// The indexes.
    pub indexes: Vec<Index>,
    /// The order of rows in the archive.
    pub archive_order: Vec<String>,
    /// What a misfit does.
    pub mismatch: Mismatch,
    /// Position of a column holding the sender's own id, by which repeats are dropped.
    pub dedup: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStream {
    name: String,
    description: String,
    #[serde(default)]
    partition_interval: Interval,
    #[serde(default)]
    on_mismatch: Mismatch,
    #[serde(default)]
    dedup: Option<String>,
    #[serde(default)]
    archive_order: Vec<String>,
    columns: Vec<ColumnSpec>,
    #[serde(default)]
    indexes: Vec<Index>,
}

impl Stream {
    /// Reads a stream file; `file` is named in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let raw: RawStream = toml::from_str(text)
            .map_err(|source| Error::Toml { file: file.to_owned(), source: Box::new(source) })?;
        check_names(file, &raw)?;
        let filled = |fill: Fill, kind: Kind| {
            let position = raw.columns.iter().position(|column| column.fill == fill && column.kind == kind);
            position.ok_or_else(|| {
                let fill = format!("{fill:?}").to_lowercase();
                Error::invalid(file, format!("needs one {} column with fill = \"{fill}\"", kind.ddl()))
            })
        };
        let stream = Self {
            ts: filled(Fill::Ts, Kind::Timestamp)?,
            tenant: filled(Fill::Tenant, Kind::Uuid)?,
            dedup: raw.dedup.as_ref().map(|name| position(file, &raw.columns, name)).transpose()?,
            name: raw.name,
            description: raw.description,
            columns: raw.columns,
            interval: raw.partition_interval,
            indexes: raw.indexes,
            archive_order: raw.archive_order,
            mismatch: raw.on_mismatch,
        };
        stream.check(file)?;
        Ok(stream)
    }

    /// The position of a column by name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The position of the column filled by `fill`.
    #[must_use]
    pub fn filled_by(&self, fill: Fill) -> Option<usize> {
        self.columns.iter().position(|column| column.fill == fill)
    }

    fn check(&self, file: &str) -> Result<(), Error> {
        for name in self.archive_order.iter().chain(self.indexes.iter().flat_map(|index| &index.columns)) {
            position(file, &self.columns, name.trim_end_matches(" DESC"))?;
        }
        for column in &self.columns {
            if let Some(kind) = kind_of(column.fill)
                && kind != column.kind
            {
                let what =
                    format!("column {}: fill needs kind {:?}, not {:?}", column.name, kind, column.kind);
                return Err(Error::invalid(file, what));
            }
        }
        if let Some(dedup) = self.dedup
            && (self.columns[dedup].kind != Kind::Uuid || self.columns[dedup].fill != Fill::Id)
        {
            return Err(Error::invalid(file, "dedup must name a uuid column with fill = \"id\""));
        }
        Ok(())
    }
}

/// The kind a column must have to be filled this way.
fn kind_of(fill: Fill) -> Option<Kind> {
    match fill {
        Fill::Message => None,
        Fill::Ts | Fill::EventTime | Fill::ArrivedAt => Some(Kind::Timestamp),
        Fill::Tenant | Fill::EventId | Fill::Id => Some(Kind::Uuid),
        Fill::Format | Fill::Source => Some(Kind::Text),
        Fill::Labels => Some(Kind::Json),
        Fill::Seq | Fill::Offset => Some(Kind::Int64),
        Fill::TopicKey | Fill::Partition => Some(Kind::Int32),
    }
}

fn position(file: &str, columns: &[ColumnSpec], name: &str) -> Result<usize, Error> {
    columns
        .iter()
        .position(|column| column.name == name)
        .ok_or_else(|| Error::invalid(file, format!("names column {name}, which the stream doesn't have")))
}

/// Names go into SQL unquoted, so only plain lower-case identifiers are taken.
fn check_names(file: &str, raw: &RawStream) -> Result<(), Error> {
    let plain = |name: &str| {
        name.len() <= 48
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    for name in std::iter::once(&raw.name).chain(raw.columns.iter().map(|column| &column.name)) {
        if !plain(name) {
            let what = format!("name {name:?}: use lower-case letters, digits and _, at most 48");
            return Err(Error::invalid(file, what));
        }
    }
    for (index, column) in raw.columns.iter().enumerate() {
        if raw.columns[..index].iter().any(|other| other.name == column.name) {
            return Err(Error::invalid(file, format!("column {} stands twice", column.name)));
        }
    }
    Ok(())
}
