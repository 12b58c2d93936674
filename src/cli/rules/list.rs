//! `inosec rules list`.

use std::collections::HashMap;

use inosec_enrich::{Correlation, Level, Parsed, Rule};
use inosec_schemas::{TenantId, TenantRule};
use serde_json::{Value, json};

use super::super::{Failure, Output};
use super::Paths;
use crate::config::Config;
use crate::databases;
use crate::rules::logsource;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    rules: Paths,
    /// Say of each configured rule whether this tenant has it.
    #[arg(long, value_name = "UUID", conflicts_with = "paths")]
    tenant: Option<TenantId>,
    /// Where the tenant's choices are.
    #[arg(long, default_value = "main", requires = "tenant")]
    database: String,
}

pub async fn list(args: &Args, config: &Config, output: &Output) -> Result<(), Failure> {
    if let Some(tenant) = args.tenant {
        return of_tenant(tenant, &args.database, config, output).await;
    }
    let parsed = super::load(&args.rules.paths, config)?;
    super::tell_left_out(&parsed, output);
    let rows: Vec<Vec<Value>> = rows(&parsed).map(|(_, row)| row).collect();
    output.table(&["id", "level", "title", "logsource", "file"], &rows)
}

/// Rules, then correlations: the id and what is shown.
fn rows(parsed: &Parsed) -> impl Iterator<Item = (&str, Vec<Value>)> {
    let row = |id, level: Level, title, logsource, (file, line): &(String, usize)| {
        let file = json!(format!("{file}:{line}"));
        vec![json!(id), json!(level.name()), json!(title), json!(logsource), file]
    };
    let rules = parsed.rules.iter().map(move |rule| {
        let Rule { id, level, title, origin, .. } = rule;
        (id.as_str(), row(id, *level, title, logsource(&rule.logsource), origin))
    });
    let correlations = parsed.correlations.iter().map(move |rule| {
        let Correlation { id, level, title, origin, kind, .. } = rule;
        (id.as_str(), row(id, *level, title, format!("correlation, {}", kind.name()), origin))
    });
    rules.chain(correlations)
}

async fn of_tenant(
    tenant: TenantId,
    database: &str,
    config: &Config,
    output: &Output,
) -> Result<(), Failure> {
    let configured = super::configured(config)?;
    super::tell_left_out(&configured.parsed, output);
    let store = databases::connect(config, database).await.map_err(Failure::new)?;
    if !store.directory().tenants.contains_key(&tenant) {
        return Err(Failure::new(format!("there is no tenant {tenant}: see `inosec tenant list`")));
    }
    let said = store.tenant_rules().await?.rules;
    let said: HashMap<&str, &TenantRule> =
        said.iter().filter(|rule| rule.tenant == tenant).map(|rule| (rule.rule_id.as_str(), rule)).collect();
    let rows = rows(&configured.parsed).map(|(id, mut row)| {
        let own = said.get(id);
        let enabled = own.map_or(!configured.optional.contains(id), |own| own.enabled);
        let exception = own.and_then(|own| own.exception.as_deref());
        row.splice(1..1, [json!(enabled), json!(exception)]);
        row
    });
    let rows: Vec<Vec<Value>> = rows.collect();
    output.table(&["id", "enabled", "exception", "level", "title", "logsource", "file"], &rows)
}
