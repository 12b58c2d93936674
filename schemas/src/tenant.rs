//! Tenants, and where their rows live.

use std::fmt;
use std::str::FromStr;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A tenant's identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(pub Uuid);

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TenantId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::from_str(text).map(Self)
    }
}

/// How much of a database a tenant has to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Shared tables, told apart by row-level security.
    Standard,
}

/// Whether a tenant's events are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantStatus {
    /// Events are stored.
    Active,
    /// Events become dead letters, to be redriven when the tenant resumes.
    Suspended,
}

/// One tenant as the directory knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenant {
    /// Its tier.
    pub tier: Tier,
    /// Whether its events are taken.
    pub status: TenantStatus,
}

/// What a tenant says of one rule, beyond what is on for everyone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TenantRule {
    /// The tenant.
    pub tenant: TenantId,
    /// The rule's or filter's id.
    pub rule_id: String,
    /// Whether it is on.
    pub enabled: bool,
    /// What the rule shall not fire on: Sigma selections, as YAML.
    pub exception: Option<String>,
}

/// Where a tenant's rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The database's name in the configuration.
    pub database: &'static str,
    /// The schema inside it.
    pub schema: &'static str,
}

/// A snapshot of all tenants of one database, valid at one placement epoch.
///
/// Whoever decides with a snapshot carries its epoch along; the writer's transaction checks that
/// the epoch still stands, so a tenant suspended meanwhile is never written to.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// The placement epoch at which the snapshot was read.
    pub epoch: i64,
    /// All tenants.
    pub tenants: HashMap<TenantId, Tenant, foldhash::fast::RandomState>,
}

impl Directory {
    /// Where this tenant's rows go; `None` for a tenant nobody added.
    #[must_use]
    pub fn placement(&self, tenant: TenantId) -> Option<Placement> {
        self.tenants.get(&tenant).map(|known| match known.tier {
            Tier::Standard => Placement { database: "main", schema: "inosec" },
        })
    }
}
