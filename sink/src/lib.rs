//! inosec sink

// seal
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

// store
mod backoff;
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
mod tables;
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
pub use tenants::{NewTenant, TenantRow};
pub use transaction::Lost;
pub use writer::{Redo, Writer, Written, prepare};
