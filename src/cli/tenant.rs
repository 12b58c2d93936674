//! `inosec tenant`.

use clap::Subcommand;
use inosec_schemas::{TenantId, TenantStatus, Tier};
use inosec_sink::{NewTenant, Store, TenantRow};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Failure, Output, actor, time};
use crate::config::Config;
use crate::databases;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    /// The database the tenant lives in.
    #[arg(long, global = true, default_value = "main")]
    database: String,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a tenant and print it with its id.
    Add {
        /// Its name, unique in the database.
        #[arg(long)]
        name: String,
        /// Its id; default is a new one.
        #[arg(long)]
        id: Option<Uuid>,
        /// How much of a database it has to itself; `standard` is shared tables.
        #[arg(long, default_value = "standard", value_parser = tier)]
        tier: Tier,
        /// Where its data must stay.
        #[arg(long)]
        region: Option<String>,
    },
    /// List all tenants.
    List,
    /// From now on the tenant's events become dead letters, to be redriven later.
    Suspend {
        /// The tenant.
        id: Uuid,
    },
    /// Take the tenant's events again.
    Resume {
        /// The tenant.
        id: Uuid,
    },
}

/// Does what was asked.
pub async fn tenant(args: Args, config: &Config, output: &Output) -> Result<(), Failure> {
    let store = databases::connect(config, &args.database).await.map_err(Failure::new)?;
    match args.action {
        Action::Add { name, id, tier, region } => {
            let new = NewTenant { id: id.map(TenantId), name, tier, region };
            let added = store.add_tenant(&new, &actor()).await?;
            output.text_or_json(&format!("added {} as {}", added.name, added.id), || document(&added))
        }
        Action::List => {
            let rows: Vec<Vec<Value>> = store.tenants().await?.iter().map(row).collect();
            output.table(&["id", "name", "tier", "region", "status", "created_at"], &rows)
        }
        Action::Suspend { id } => set(&store, TenantId(id), TenantStatus::Suspended, output).await,
        Action::Resume { id } => set(&store, TenantId(id), TenantStatus::Active, output).await,
    }
}

async fn set(store: &Store, id: TenantId, status: TenantStatus, output: &Output) -> Result<(), Failure> {
    store.set_tenant_status(id, status, &actor()).await?;
    let text = format!("{id} is {}", json!(status).as_str().unwrap_or_default());
    output.text_or_json(&text, || json!({ "id": id, "status": status }))
}

fn tier(text: &str) -> Result<Tier, String> {
    match text {
        "standard" => Ok(Tier::Standard),
        _ => Err("this version knows the tier standard only".to_owned()),
    }
}

fn document(tenant: &TenantRow) -> Value {
    json!({
        "id": tenant.id,
        "name": tenant.name,
        "tier": tenant.tier,
        "region": tenant.region,
        "status": tenant.status,
        "created_at": time(tenant.created_at),
    })
}

fn row(tenant: &TenantRow) -> Vec<Value> {
    let document = document(tenant);
    ["id", "name", "tier", "region", "status", "created_at"]
        .iter()
        .map(|key| document[*key].clone())
        .collect()
}
