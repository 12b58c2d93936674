//! `inosec rules test`.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::{Failure, Output};
use crate::config::Config;
use crate::rules::{self, pack};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packs, or rules in the folders `detection` and `correlation` of one. Default: the pack in this folder,
    /// or in `rules` below it.
    #[arg(value_name = "PATH", default_value = ".")]
    paths: Vec<PathBuf>,
}

pub fn test(args: &Args, config: &Config, output: &Output) -> Result<(), Failure> {
    let catalog = super::catalog(config)?;
    let placeholders = rules::placeholders(&config.rules);
    let mut all = pack::Report::default();
    for path in &args.paths {
        let report = pack::test(path, &catalog, &placeholders, rules::limits(config))?;
        all.rules += report.rules;
        all.firing += report.firing;
        all.near_misses += report.near_misses;
        all.correlations += report.correlations;
        all.raising += report.raising;
        all.quiet += report.quiet;
        all.failures.extend(report.failures);
    }
    output.text_or_json(&text(&all), || document(&all))?;
    if all.failures.is_empty() && all.rules + all.correlations > 0 { Ok(()) } else { Err(Failure::told(1)) }
}

fn text(report: &pack::Report) -> String {
    let mut text = String::new();
    for pack::Failure { file, line, rule, message } in &report.failures {
        let _ = writeln!(text, "{file}:{line}: rule {}: {message}", rule.as_deref().unwrap_or("no id"));
    }
    let pack::Report { rules, firing, near_misses, correlations, raising, quiet, failures } = report;
    let failures = failures.len();
    let _ = write!(text, "{rules} rules, {firing} events fire, {near_misses} near-misses, ");
    if *correlations > 0 {
        let _ = write!(text, "{correlations} correlations, {raising} cases raise episodes, {quiet} do not, ");
    }
    let _ = write!(text, "{failures} failures");
    text
}

fn document(report: &pack::Report) -> Value {
    let failure = |failure: &pack::Failure| {
        let pack::Failure { file, line, rule, message } = failure;
        json!({ "file": file, "line": line, "rule": rule, "message": message })
    };
    let pack::Report { rules, firing, near_misses, correlations, raising, quiet, failures } = report;
    let failures: Vec<Value> = failures.iter().map(failure).collect();
    json!({
        "rules": rules,
        "firing": firing,
        "near_misses": near_misses,
        "correlations": correlations,
        "raising": raising,
        "quiet": quiet,
        "failures": failures,
    })
}
