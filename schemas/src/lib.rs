//! What the rooms of inosec share: the single description of every stream and wire format, and the
//! values that travel down the road.
//!
//! Nothing here does I/O or reads a clock. A stream is one TOML file (`streams/*.toml`), a wire
//! format another (`formats/*.toml`); DDL, COPY layout, Arrow schema and reference docs are derived
//! from the closed [`Kind`] enum by one exhaustive `match` each.

mod batch;
mod catalog;
mod derive;
mod error;
mod format;
mod ident;
mod kind;
mod messages;
mod stream;
mod tenant;

pub use batch::{Batch, Column, DeadLetter, Reason, Rows, Slice};
pub use catalog::Catalog;
pub use derive::{arrow_schema, column_docs, create_table};
pub use error::Error;
pub use format::{Condition, Format, Mapping, Path, Shape, Source};
pub use ident::{EventIds, derived_id};
pub use kind::{Kind, Layout};
pub use messages::{Headers, Message, Messages, Permit, Span, TenantSource, Topic};
pub use stream::{ColumnSpec, Fill, Index, Interval, Mismatch, Pii, Stream};
pub use tenant::{Directory, Placement, Tenant, TenantId, TenantStatus, Tier};

/// Numbered, idempotent SQL migrations in the order they are applied: (number, name, text).
pub const MIGRATIONS: &[(i32, &str, &str)] = &[];
