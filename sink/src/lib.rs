//! How events are stored: sealed batches in, exactly one transaction each.
//!
//! ```text
//!  Batch ─► seal ─► Sealed ─► writer ─► transaction ─► TimescaleDB or PostgreSQL
//!           order, tally,     bisect,   COPY, offsets by
//!           block, encode     wait      compare-and-swap, …
//! ```
//!
//! The upper half is pure: [`seal`] and what it uses know no database. The lower half is everything that
//! talks to one: [`Store`] is a database and what is known about it; [`Writer`] brings batches in;
//! `maintain`, `redrive`, `events`, `dlq`, `offsets` and `tenants` are what operators and the road ask
//! for besides; [`correlator`] is what correlation does here. [`HotStore`] is the only place that knows which of the two stores it is.

// Pure.
mod block;
mod encode;
mod merge;
mod order;
mod seal;
mod tally;

pub use block::{BlockError, BlockOptions, CODEC, MAX_PLAIN, RawBlock, read_block};
pub use encode::Frames;
pub use merge::{Merge, MergedBlock, StoredBlock, encode_merged, merge_blocks};
pub use seal::{Count, Host, SealOptions, Sealed, seal};

// With a database.
mod backoff;
pub mod correlator;
mod directory;
mod dlq;
mod error;
pub mod events;
pub mod fault;
mod health;
mod hot;
mod letters;
mod maintain;
pub mod metrics;
mod micros;
mod migrate;
mod numbers;
mod offsets;
mod partitions;
mod redrive;
mod store;
mod suppressed;
mod tables;
mod tenant_rules;
mod tenants;
mod transaction;
mod writer;

pub use dlq::{Letter, LetterContents, LetterFilter};
pub use error::{Disposition, Error};
pub use health::Health;
pub use hot::{HotStore, Wanted};
pub use maintain::Maintained;
pub use migrate::{Migrated, migrate, migrate_to};
pub use offsets::{OffsetRow, Resume, Start};
pub use redrive::{Redriven, redrive};
pub use store::{Store, StoreConfig, wait_for};
pub use tenant_rules::TenantRules;
pub use tenants::{NewTenant, TenantRow};
pub use transaction::Lost;
pub use writer::{Redo, Writer, Written, prepare};
