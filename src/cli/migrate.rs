//! `inosec migrate`.

use serde_json::json;

use super::{Failure, Output, chain};
use crate::config::Config;
use crate::databases;

/// Migrates every configured database.
pub async fn migrate(config: &Config, output: &Output) -> Result<(), Failure> {
    let catalog = databases::catalog(config)?;
    let mut lines = Vec::new();
    let mut documents = Vec::new();
    for (name, database) in &config.databases {
        let url = database.admin_url.as_ref().unwrap_or(&database.url);
        let migrated = inosec_sink::migrate(url.expose(), &catalog, databases::wanted(database.hot_store))
            .await
            .map_err(|error| Failure::new(format!("database {name}: {}", chain(&error))))?;
        let applied: Vec<&str> = migrated.applied.iter().map(|(_, name)| name.as_str()).collect();
        let what = if applied.is_empty() { "nothing new".to_owned() } else { applied.join(", ") };
        lines.push(format!(
            "{name} ({}): {what}; stands at migration {}",
            migrated.hot.name(),
            migrated.stands_at
        ));
        documents.push(json!({
            "database": name,
            "hot_store": migrated.hot.name(),
            "applied": applied,
            "stands_at": migrated.stands_at,
        }));
    }
    output.text_or_json(&lines.join("\n"), || json!(documents))
}
