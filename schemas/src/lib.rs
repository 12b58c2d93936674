//! What the rooms of inosec share: the single description of every stream and wire format, and the
//! values that travel down the road.
//!
//! Nothing here does I/O or reads a clock. A stream is one TOML file (`streams/*.toml`), a wire
//! format another (`formats/*.toml`); DDL, COPY layout, Arrow schema and reference docs are derived
//! from the closed [`Kind`] enum by one exhaustive `match` each.

mod alert;
mod batch;
mod catalog;
mod derive;
mod error;
mod extracted;
mod fields;
mod format;
mod ident;
mod kind;
mod logsource;
mod messages;
mod stream;
mod tenant;

pub use alert::{Alert, AlertChange, AlertWrites, Entities, MemberKey, StoredThreatEvent, Suppression};
pub use batch::{Batch, Column, DeadLetter, Reason, Rows, Slice, Suppressed};
pub use catalog::Catalog;
pub use derive::{arrow_schema, column_definition, column_docs, create_table};
pub use error::Error;
pub use extracted::{ClassRows, Extracted, Kept};
pub use fields::{Cell, Columns, FieldId, FieldNames, Value, Wanted};
pub use format::{Condition, Format, Mapping, Path, Shape, Source};
pub use ident::{EventIds, content_id, derived_id};
pub use kind::{Kind, Layout};
pub use logsource::{ClassFields, EventClass, LogSources};
pub use messages::{Headers, Message, Messages, Permit, Span, TenantSource, Topic};
pub use stream::{ColumnSpec, Fill, Index, Interval, Mismatch, Pii, Stream};
pub use tenant::{Directory, Placement, Tenant, TenantId, TenantRule, TenantStatus, Tier};

/// Numbered, idempotent SQL migrations in the order they are applied: (number, name, text).
///
/// The comments `/*plain: … */` in them are opened on plain PostgreSQL, where a partitioned table is
/// declared as such; TimescaleDB wants an ordinary one.
pub const MIGRATIONS: &[(i32, &str, &str)] = &[
    (1, "partitions", include_str!("../migrations/0001_partitions.sql")),
    (2, "tenants", include_str!("../migrations/0002_tenants.sql")),
    (3, "ingest", include_str!("../migrations/0003_ingest.sql")),
    (4, "raw_blocks", include_str!("../migrations/0004_raw_blocks.sql")),
    (5, "dead_letters", include_str!("../migrations/0005_dead_letters.sql")),
    (6, "tenant_rules", include_str!("../migrations/0006_tenant_rules.sql")),
    (7, "correlation", include_str!("../migrations/0007_correlation.sql")),
];

/// The roles, which belong to the whole server; run by an administrator before the migrations.
pub const ROLES: &str = include_str!("../migrations/roles.sql");
