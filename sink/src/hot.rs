//! The seam between TimescaleDB and plain PostgreSQL: one decision, made by the first migration and
//! recorded in the database. What differs afterwards is inside `inosec.partition_table`,
//! `ensure_partition` and `expire_dead_letters`.

use std::str::FromStr;

use tokio_postgres::Client;

use crate::Error;

/// How a database partitions its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HotStore {
    /// Hypertables of TimescaleDB (any edition, used as the Apache one).
    Timescale,
    /// RANGE partitions of PostgreSQL.
    Postgres,
}

/// What whoever migrates asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// What the database already is; else TimescaleDB if the server has it loaded; else PostgreSQL.
    #[default]
    Auto,
    /// This, or an error.
    Only(HotStore),
}

impl HotStore {
    /// The name in `inosec.hot_store` and in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Timescale => "timescale",
            Self::Postgres => "postgres",
        }
    }

    /// What the first migration recorded.
    pub(crate) async fn recorded(session: &Client) -> Result<Self, Error> {
        let row = session.query_one("SELECT kind FROM inosec.hot_store", &[]).await;
        row.map_err(Error::at("reading how the database partitions"))?.get::<_, &str>(0).parse()
    }

    /// Decides for a database that may not be migrated yet.
    pub(crate) async fn decide(session: &Client, wanted: Wanted) -> Result<Self, Error> {
        let doing = "looking for TimescaleDB";
        let exists = "SELECT to_regclass('inosec.hot_store') IS NOT NULL";
        let migrated: bool = session.query_one(exists, &[]).await.map_err(Error::at(doing))?.get(0);
        let recorded = "SELECT kind FROM inosec.hot_store";
        if migrated && let Some(row) = session.query_opt(recorded, &[]).await.map_err(Error::at(doing))? {
            let is: Self = row.get::<_, &str>(0).parse()?;
            return match wanted {
                Wanted::Only(other) if other != is => Err(Error::Invalid(format!(
                    "the database is laid out for {} and can't become {}: use a new database",
                    is.name(),
                    other.name()
                ))),
                _ => Ok(is),
            };
        }
        let loaded = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
             OR EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
             AND current_setting('timescaledb.disable_load', true) IS NOT NULL";
        let loaded: bool = session.query_one(loaded, &[]).await.map_err(Error::at(doing))?.get(0);
        match (wanted, loaded) {
            (Wanted::Only(Self::Postgres), _) | (Wanted::Auto, false) => Ok(Self::Postgres),
            (Wanted::Only(Self::Timescale) | Wanted::Auto, true) => Ok(Self::Timescale),
            (Wanted::Only(Self::Timescale), false) => Err(Error::Invalid(
                "the server has no TimescaleDB: install it and add timescaledb to shared_preload_libraries, \
                 or use plain PostgreSQL"
                    .to_owned(),
            )),
        }
    }
}

impl FromStr for HotStore {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "timescale" => Ok(Self::Timescale),
            "postgres" => Ok(Self::Postgres),
            other => Err(Error::Invalid(format!("no hot store is called {other:?}: timescale or postgres"))),
        }
    }
}
