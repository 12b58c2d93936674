//! Snapshots of the tenants, kept current by asking for the placement epoch.

use std::sync::Arc;
use std::time::Duration;

use inosec_schemas::{Directory, Tenant, TenantId, TenantStatus, Tier};
use tokio::sync::watch;
use tokio_postgres::Row;

use crate::{Error, Store};

/// How often the epoch is asked for: how long a new tenant waits for its first event at most.
const EVERY: Duration = Duration::from_secs(1);

impl Store {
    /// The newest snapshot.
    #[must_use]
    pub fn directory(&self) -> Arc<Directory> {
        self.directory.borrow().clone()
    }

    /// The newest snapshot, and those to come.
    #[must_use]
    pub fn directories(&self) -> watch::Receiver<Arc<Directory>> {
        self.directory.subscribe()
    }

    /// Keeps the snapshot current; runs until dropped. A database that doesn't answer opens the
    /// circuit and leaves the snapshot as it was: the writer's epoch check keeps that harmless.
    pub async fn watch_directory(&self) {
        let mut outage = None;
        loop {
            tokio::time::sleep(EVERY).await;
            match self.answered("asking for the placement epoch", self.refresh_if_changed()).await {
                Ok(()) => outage = None,
                Err(error) => {
                    tracing::warn!(%error, "the tenants can't be read");
                    outage.get_or_insert_with(|| self.outage(&error));
                }
            }
        }
    }

    async fn refresh_if_changed(&self) -> Result<(), Error> {
        let session = self.session().await?;
        let row = session.query_one("SELECT epoch FROM inosec.placement_epoch", &[]).await;
        let epoch: i64 = row.map_err(Error::at("asking for the placement epoch"))?.get(0);
        drop(session);
        if epoch != self.directory.borrow().epoch {
            self.refresh_directory().await?;
        }
        Ok(())
    }

    /// Reads the directory anew, at once.
    pub async fn refresh_directory(&self) -> Result<Arc<Directory>, Error> {
        // One statement, hence one snapshot: epoch and tenants belong together.
        let sql = "SELECT e.epoch, t.id, t.tier, t.status
            FROM inosec.placement_epoch AS e LEFT JOIN inosec.tenants AS t ON true";
        let session = self.session().await?;
        let rows = session.query(sql, &[]).await.map_err(Error::at("reading the tenants"))?;
        let directory = Arc::new(read(&rows)?);
        self.directory.send_if_modified(|current| {
            // Not "newer": a database restored from a backup goes back.
            let other = directory.epoch != current.epoch;
            if other {
                *current = Arc::clone(&directory);
            }
            other
        });
        Ok(self.directory())
    }
}

fn read(rows: &[Row]) -> Result<Directory, Error> {
    let mut directory = Directory::default();
    for row in rows {
        directory.epoch = row.get(0);
        let Some(id) = row.get::<_, Option<uuid::Uuid>>(1) else { continue };
        let tenant = Tenant { tier: tier(row.get(2))?, status: status(row.get(3))? };
        directory.tenants.insert(TenantId(id), tenant);
    }
    Ok(directory)
}

pub(crate) fn tier(name: &str) -> Result<Tier, Error> {
    match name {
        "standard" => Ok(Tier::Standard),
        other => Err(Error::Invalid(format!("tier {other:?} is not supported by this version: standard is"))),
    }
}

pub(crate) fn status(name: &str) -> Result<TenantStatus, Error> {
    match name {
        "active" => Ok(TenantStatus::Active),
        "suspended" => Ok(TenantStatus::Suspended),
        other => Err(Error::Invalid(format!("no tenant can be {other:?}: active or suspended"))),
    }
}
