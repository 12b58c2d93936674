//! The closed set of column kinds. Everything derived from a column (DDL, COPY layout, Arrow type,
//! docs) is one exhaustive `match` on [`Kind`]: a new kind doesn't compile until each is decided.

use arrow_schema::{DataType, Field, TimeUnit};
use serde::Deserialize;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A signed 16-bit integer.
    Int16,
    /// A signed 32-bit integer.
    Int32,
    /// A signed 64-bit integer.
    Int64,
    /// An IEEE 754 double.
    Float64,
    /// Microseconds since 1970-01-01T00:00:00 UTC.
    Timestamp,
    /// A 128-bit identifier (RFC 9562).
    Uuid,
    /// An IPv4 or IPv6 address without a prefix length.
    Inet,
    /// UTF-8 text without NUL, cut at the column's cap.
    Text,
    /// A JSON document (PostgreSQL `jsonb`).
    Json,
    /// A list of texts.
    TextList,
    /// Bytes as they are.
    Bytes,
}

/// How a value lies in a field of PostgreSQL's binary COPY format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Always this many bytes.
    Fixed(u32),
    /// As long as the value, after `prefix` bytes of header.
    Variable {
        /// Bytes before the value itself.
        prefix: u32,
    },
}

impl Kind {
    /// The column type in PostgreSQL.
    #[must_use]
    pub fn ddl(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int16 => "smallint",
            Self::Int32 => "integer",
            Self::Int64 => "bigint",
            Self::Float64 => "double precision",
            Self::Timestamp => "timestamptz",
            Self::Uuid => "uuid",
            Self::Inet => "inet",
            Self::Text => "text",
            Self::Json => "jsonb",
            Self::TextList => "text[]",
            Self::Bytes => "bytea",
        }
    }

    /// The field's layout in binary COPY.
    #[must_use]
    pub fn copy_layout(self) -> Layout {
        match self {
            Self::Bool => Layout::Fixed(1),
            Self::Int16 => Layout::Fixed(2),
            Self::Int32 => Layout::Fixed(4),
            Self::Int64 | Self::Float64 | Self::Timestamp => Layout::Fixed(8),
            Self::Uuid => Layout::Fixed(16),
            // Family, prefix bits, is_cidr, address length; then 4 or 16 bytes.
            Self::Inet => Layout::Variable { prefix: 4 },
            Self::Text | Self::Bytes => Layout::Variable { prefix: 0 },
            // The jsonb version byte.
            Self::Json => Layout::Variable { prefix: 1 },
            // Dimensions, has-null flag, element type, length and lower bound of the one dimension.
            Self::TextList => Layout::Variable { prefix: 20 },
        }
    }

    /// The Arrow type under which the archive writes the column.
    #[must_use]
    pub fn arrow_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::Inet | Self::Text | Self::Json => DataType::Utf8,
            Self::TextList => DataType::List(Field::new("element", DataType::Utf8, false).into()),
            Self::Bytes => DataType::Binary,
        }
    }

    /// One line for the reference.
    #[must_use]
    pub fn docs(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Int16 => "signed 16-bit integer",
            Self::Int32 => "signed 32-bit integer",
            Self::Int64 => "signed 64-bit integer",
            Self::Float64 => "IEEE 754 double",
            Self::Timestamp => "UTC time with microseconds",
            Self::Uuid => "UUID (RFC 9562)",
            Self::Inet => "IPv4 or IPv6 address",
            Self::Text => "UTF-8 text",
            Self::Json => "JSON document",
            Self::TextList => "list of UTF-8 texts",
            Self::Bytes => "bytes",
        }
    }
}
