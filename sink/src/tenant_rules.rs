//! What tenants say of rules, kept current by asking for the table's revision.

use std::time::Duration;

use inosec_schemas::{TenantId, TenantRule};

use crate::{Error, Store};

/// How often the revision is asked for: how long a change takes to arrive at most.
const EVERY: Duration = Duration::from_secs(1);

/// The table at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantRules {
    /// Grows with every change.
    pub revision: i64,
    /// By tenant and rule.
    pub rules: Vec<TenantRule>,
}

impl Store {
    /// All that tenants say of rules.
    pub async fn tenant_rules(&self) -> Result<TenantRules, Error> {
        // One statement, hence one snapshot: revision and rules belong together.
        let sql = "SELECT v.revision, r.tenant_id, r.rule_id, r.enabled, r.exception
            FROM inosec.tenant_rules_revision AS v LEFT JOIN inosec.tenant_rules AS r ON true
            ORDER BY r.tenant_id, r.rule_id";
        let session = self.session().await?;
        let rows = session.query(sql, &[]).await.map_err(Error::at("reading what tenants say of rules"))?;
        let mut read = TenantRules::default();
        for row in &rows {
            read.revision = row.get(0);
            let Some(tenant) = row.get::<_, Option<uuid::Uuid>>(1) else { continue };
            let tenant = TenantId(tenant);
            read.rules.push(TenantRule {
                tenant,
                rule_id: row.get(2),
                enabled: row.get(3),
                exception: row.get(4),
            });
        }
        Ok(read)
    }

    /// Returns once the table stands at another revision. A database that doesn't answer leaves the last
    /// state standing.
    pub async fn tenant_rules_after(&self, revision: i64) -> TenantRules {
        let mut failing = false;
        loop {
            tokio::time::sleep(EVERY).await;
            match self.answered("asking for tenants' rules", self.changed_tenant_rules(revision)).await {
                Ok(Some(changed)) => return changed,
                Ok(None) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "what tenants say of rules can't be read: the last state stands");
                    }
                }
            }
        }
    }

    async fn changed_tenant_rules(&self, since: i64) -> Result<Option<TenantRules>, Error> {
        // Not "newer": a database restored from a backup goes back.
        if self.tenant_rules_revision().await? == since {
            Ok(None)
        } else {
            self.tenant_rules().await.map(Some)
        }
    }

    /// Changes whenever what tenants say of rules or alerts does, or there are more tenants.
    pub async fn tenant_rules_revision(&self) -> Result<i64, Error> {
        let session = self.session().await?;
        let row = session.query_one("SELECT revision FROM inosec.tenant_rules_revision", &[]).await;
        Ok(row.map_err(Error::at("asking for tenants' rules"))?.get(0))
    }
}
