//! `inosec rules list`.

use inosec_enrich::{Level, Rule};
use serde_json::{Value, json};

use super::super::{Failure, Output};
use super::Paths;
use crate::config::Config;
use crate::rules::logsource;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    rules: Paths,
}

pub fn list(args: &Args, config: &Config, output: &Output) -> Result<(), Failure> {
    let parsed = super::load(&args.rules.paths, config)?;
    super::tell_left_out(&parsed, output);
    let rows: Vec<Vec<Value>> = parsed.rules.iter().map(row).collect();
    output.table(&["id", "level", "title", "logsource", "file"], &rows)
}

fn row(rule: &Rule) -> Vec<Value> {
    let level = match rule.level {
        Level::Informational => "informational",
        Level::Low => "low",
        Level::Medium => "medium",
        Level::High => "high",
        Level::Critical => "critical",
    };
    let file = format!("{}:{}", rule.origin.0, rule.origin.1);
    vec![json!(rule.id), json!(level), json!(rule.title), json!(logsource(&rule.logsource)), json!(file)]
}
