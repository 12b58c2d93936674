//! From configuration to the rooms' own settings: the one place that knows both.

use std::sync::Arc;

use inosec_enrich::correlate::Options;
use inosec_schemas::Catalog;
use inosec_sink::{HotStore, Store, StoreConfig, Wanted};

use crate::config::{Config, Database, HotStoreChoice, micros};

/// The wall clock, in microseconds UTC; everything below gets it as an argument.
#[must_use]
pub fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// All descriptions: those in the binary and those of the configured folder.
pub fn catalog(config: &Config) -> Result<Catalog, inosec_schemas::Error> {
    let mut catalog = Catalog::embedded()?;
    if let Some(directory) = &config.schemas {
        catalog.extend(directory)?;
    }
    Ok(catalog)
}

/// How the sink is to reach a database.
#[must_use]
pub fn store_config(config: &Config, database: &Database) -> StoreConfig {
    StoreConfig {
        // Writers, and room for directory, keeper, steward and a search.
        pool_size: database.writers + 4,
        synchronous_commit: database.synchronous_commit,
        dead_letter_quota: config.dead_letters.quota_per_day,
        dead_letter_retention: config.dead_letters.retention,
        alert_change_retention: config.correlate.keep_changes,
        ..StoreConfig::new(database.url.expose(), now)
    }
}

/// Which kind of hot store migrations are to make.
#[must_use]
pub fn wanted(choice: HotStoreChoice) -> Wanted {
    match choice {
        HotStoreChoice::Auto => Wanted::Auto,
        HotStoreChoice::Timescaledb => Wanted::Only(HotStore::Timescale),
        HotStoreChoice::Postgres => Wanted::Only(HotStore::Postgres),
    }
}

/// Connects to a database by its name in the configuration.
pub async fn connect(config: &Config, name: &str) -> Result<Arc<Store>, String> {
    let Some(database) = config.databases.get(name) else {
        let known: Vec<&str> = config.databases.keys().map(String::as_str).collect();
        return Err(format!("there is no [databases.{name}]: configured are {}", known.join(", ")));
    };
    Store::connect(&store_config(config, database))
        .await
        .map_err(|error| format!("database {name}: {}", crate::cli::chain(&error)))
}

/// How threat events are correlated, whatever tenants say.
#[must_use]
pub fn correlate_options(config: &Config) -> Options {
    let correlate = &config.correlate;
    Options {
        max_skew: micros(config.time.max_skew),
        allowed_lateness: micros(correlate.allowed_lateness),
        gap: micros(correlate.gap),
        alert_severity: correlate.alert_level.severity_id(),
        max_groups: correlate.max_groups,
        max_entries: correlate.max_entries,
        max_bytes: correlate.memory,
        ..Options::default()
    }
}
