//! Partitions on demand: plain PostgreSQL refuses a row without one.

use std::collections::HashSet;
use std::sync::{MutexGuard, PoisonError};

use crate::hot::HotStore;
use crate::micros::Micros;
use crate::{Error, Store};

/// Partitions that were there when last looked: table and start.
#[derive(Debug, Default)]
pub(crate) struct Known(HashSet<(String, i64)>);

impl Store {
    /// Makes sure a partition of `table` for time `at` exists. TimescaleDB makes chunks by itself.
    pub(crate) async fn ensure_partition(&self, table: &str, at: i64) -> Result<(), Error> {
        if self.hot() == HotStore::Timescale {
            return Ok(());
        }
        let key = (table.to_owned(), at);
        if self.known().0.contains(&key) {
            return Ok(());
        }
        let sql = "SELECT inosec.ensure_partition($1, $2)";
        let session = self.session().await?;
        let made = session.query_one(sql, &[&table, &Micros(at)]).await;
        made.map_err(Error::at("making a partition"))?;
        self.known().0.insert(key);
        Ok(())
    }

    /// Forgets all: some partition was dropped.
    pub(crate) fn forget_partitions(&self) {
        self.known().0.clear();
    }

    /// A poisoned lock holds a set that is as good as before.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known_partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
