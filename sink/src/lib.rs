//! inosec sink

// store
mod backoff;
mod directory;
mod error;
pub mod fault;
mod health;
mod hot;
mod micros;
mod migrate;
mod numbers;
mod offsets;
mod partitions;
mod store;
mod tables;
mod tenants;

pub use error::{Disposition, Error};
pub use health::Health;
pub use hot::{HotStore, Wanted};
pub use migrate::{Migrated, migrate, migrate_to};
pub use offsets::{OffsetRow, Resume, Start};
pub use store::{Store, StoreConfig, wait_for};
pub use tenants::{NewTenant, TenantRow};
