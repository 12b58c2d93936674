//! Adding, suspending and resuming tenants. Each change bumps the placement epoch and leaves an
//! audit row in the same transaction, under the role `inosec_admin`.

use deadpool_postgres::{Object, Transaction};
use inosec_schemas::{TenantId, TenantStatus, Tier};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::directory::{status, tier};
use crate::micros::Micros;
use crate::{Error, Store};

/// A tenant to add.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// Its id; a new one if the caller has none.
    pub id: Option<TenantId>,
    /// Its name, unique.
    pub name: String,
    /// Its tier.
    pub tier: Tier,
    /// Where it wants its data, as a remark.
    pub region: Option<String>,
}

/// A tenant as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Its tier.
    pub tier: Tier,
    /// Where it wants its data.
    pub region: Option<String>,
    /// Whether its events are taken.
    pub status: TenantStatus,
    /// When it was added, in microseconds UTC.
    pub created_at: i64,
}

impl Store {
    /// Adds a tenant; `actor` goes to the audit trail.
    pub async fn add_tenant(&self, new: &NewTenant, actor: &str) -> Result<TenantRow, Error> {
        let mut session = self.session().await?;
        let transaction = administer(&mut session).await?;
        let id = new.id.map_or_else(Uuid::new_v4, |id| id.0);
        let Tier::Standard = new.tier;
        let sql = "INSERT INTO inosec.tenants (id, name, tier, region) VALUES ($1, $2, 'standard', $3)";
        transaction.execute(sql, &[&id, &new.name, &new.region]).await.map_err(|source| {
            match source.code() == Some(&SqlState::UNIQUE_VIOLATION) {
                true => Error::Invalid(format!("there is a tenant of that name or id: {}", new.name)),
                false => Error::Database { doing: "adding a tenant", source },
            }
        })?;
        let detail = serde_json::json!({ "name": new.name, "tier": "standard", "region": new.region });
        finish(transaction, actor, "tenant.add", TenantId(id), &detail).await?;
        drop(session);
        self.refresh_directory().await?;
        self.tenant(TenantId(id)).await
    }

    /// Stops or resumes taking a tenant's events.
    pub async fn set_tenant_status(
        &self,
        id: TenantId,
        to: TenantStatus,
        actor: &str,
    ) -> Result<TenantRow, Error> {
        let (name, action) = match to {
            TenantStatus::Active => ("active", "tenant.resume"),
            TenantStatus::Suspended => ("suspended", "tenant.suspend"),
        };
        let mut session = self.session().await?;
        let transaction = administer(&mut session).await?;
        let sql = "UPDATE inosec.tenants SET status = $2 WHERE id = $1";
        let changed = transaction.execute(sql, &[&id.0, &name]).await;
        if changed.map_err(Error::at("changing a tenant"))? == 0 {
            return Err(Error::Invalid(format!("there is no tenant {id}: see `inosec tenant list`")));
        }
        finish(transaction, actor, action, id, &serde_json::json!({})).await?;
        drop(session);
        self.refresh_directory().await?;
        self.tenant(id).await
    }

    /// All tenants by name.
    pub async fn tenants(&self) -> Result<Vec<TenantRow>, Error> {
        let session = self.session().await?;
        let sql = "SELECT id, name, tier, region, status, created_at FROM inosec.tenants ORDER BY name";
        let rows = session.query(sql, &[]).await.map_err(Error::at("reading the tenants"))?;
        rows.iter().map(read).collect()
    }

    /// Tenants that have an alert severity of their own.
    pub async fn alert_severities(&self) -> Result<Vec<(TenantId, i16)>, Error> {
        let session = self.session().await?;
        let sql = "SELECT id, alert_severity_id FROM inosec.tenants WHERE alert_severity_id IS NOT NULL ORDER BY id";
        let rows = session.query(sql, &[]).await.map_err(Error::at("reading the tenants"))?;
        Ok(rows.iter().map(|row| (TenantId(row.get(0)), row.get(1))).collect())
    }

    async fn tenant(&self, id: TenantId) -> Result<TenantRow, Error> {
        let session = self.session().await?;
        let sql = "SELECT id, name, tier, region, status, created_at FROM inosec.tenants WHERE id = $1";
        read(&session.query_one(sql, &[&id.0]).await.map_err(Error::at("reading a tenant"))?)
    }
}

fn read(row: &tokio_postgres::Row) -> Result<TenantRow, Error> {
    Ok(TenantRow {
        id: TenantId(row.get(0)),
        name: row.get(1),
        tier: tier(row.get(2))?,
        region: row.get(3),
        status: status(row.get(4))?,
        created_at: row.get::<_, Micros>(5).0,
    })
}

/// A transaction with the administrator's rights, or the grant that is missing.
pub(crate) async fn administer(session: &mut Object) -> Result<Transaction<'_>, Error> {
    let transaction = session.transaction().await.map_err(Error::at("starting a transaction"))?;
    match transaction.batch_execute("SET LOCAL ROLE inosec_admin").await {
        Ok(()) => Ok(transaction),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            let statements = vec!["GRANT inosec_admin TO <login of this command>;".to_owned()];
            Err(Error::Rights { statements })
        }
        Err(source) => Err(Error::Database { doing: "becoming the administrator", source }),
    }
}

async fn finish(
    transaction: Transaction<'_>,
    actor: &str,
    action: &str,
    tenant: TenantId,
    detail: &serde_json::Value,
) -> Result<(), Error> {
    let bump = "UPDATE inosec.placement_epoch SET epoch = epoch + 1";
    transaction.execute(bump, &[]).await.map_err(Error::at("changing the placement epoch"))?;
    audit(&transaction, actor, action, &format!("tenant {tenant}"), Some(tenant), detail).await?;
    transaction.commit().await.map_err(Error::at("changing a tenant"))
}

/// Leaves a row in the audit trail, in the transaction it tells of.
pub(crate) async fn audit(
    transaction: &Transaction<'_>,
    actor: &str,
    action: &str,
    object: &str,
    tenant: Option<TenantId>,
    detail: &serde_json::Value,
) -> Result<(), Error> {
    let sql = "INSERT INTO inosec.audit_trails (actor, action, object, tenant_id, detail)
        VALUES ($1, $2, $3, $4, $5::text::jsonb)";
    let (tenant, detail) = (tenant.map(|tenant| tenant.0), detail.to_string());
    let written = transaction.execute(sql, &[&actor, &action, &object, &tenant, &detail]).await;
    written.map(drop).map_err(Error::at("writing the audit trail"))
}
