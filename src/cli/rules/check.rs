//! `inosec rules check`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use inosec_enrich::{Correlations, Engine, Problem};
use serde_json::{Value, json};

use super::super::{Failure, Output};
use super::Paths;
use crate::config::Config;
use crate::rules::{self, Measured, NEVER_RUNS, Sample, Warning};

/// How many of the slowest rules are told, and of rules that never run for the same reason.
const SLOWEST: usize = 10;
const ALIKE: usize = 3;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    rules: Paths,
    /// Measure on these events (NDJSON or text, also .zst) what each rule takes, and name the slowest.
    #[arg(long, value_name = "FILE")]
    sample: Option<PathBuf>,
}

/// What was found.
struct Report {
    engine: Arc<Engine>,
    correlations: usize,
    errors: Vec<Problem>,
    warnings: Vec<Warning>,
    /// The events measured on, and what each rule took.
    measured: Option<(usize, Vec<Measured>)>,
}

pub fn check(args: &Args, config: &Config, output: &Output) -> Result<(), Failure> {
    let parsed = super::load(&args.rules.paths, config)?;
    let catalog = super::catalog(config)?;
    let classes = catalog.classes();
    let (_, unresolved) = Correlations::new(&parsed.correlations, &parsed.rules);
    let errors = parsed.problems.into_iter().chain(unresolved).collect();
    let engine = Arc::new(Engine::new(parsed.rules, parsed.filters, &classes)?);
    let warnings = rules::lint(&engine, &parsed.correlations, &classes);
    let correlations = parsed.correlations.len();
    let mut report = Report { engine, correlations, errors, warnings, measured: None };
    if let Some(file) = &args.sample {
        let sample = Sample::read(file, &report.engine, &catalog, rules::limits(config))?;
        report.measured = Some((sample.events, sample.measure(&report.engine)?));
    }
    output.text_or_json(&report.text(), || report.json())?;
    if report.errors.is_empty() { Ok(()) } else { Err(Failure::told(1)) }
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        for problem in &self.errors {
            let _ = writeln!(text, "error    {problem}");
        }
        let (never, others): (Vec<_>, Vec<_>) =
            self.warnings.iter().partition(|warning| warning.kind == NEVER_RUNS);
        let mut alike: BTreeMap<&str, Vec<&Warning>> = BTreeMap::new();
        for warning in never {
            alike.entry(&warning.message).or_default().push(warning);
        }
        for (message, warnings) in alike {
            for Warning { file, line, rule, .. } in warnings.iter().take(ALIKE) {
                let _ = writeln!(text, "warning  {file}:{line}: rule {rule}: {message}");
            }
            if let Some(more @ 1..) = warnings.len().checked_sub(ALIKE) {
                let _ = writeln!(text, "           and {more} more for the same log source");
            }
        }
        for Warning { file, line, rule, message, .. } in others {
            let _ = writeln!(text, "warning  {file}:{line}: rule {rule}: {message}");
        }
        if let Some((events, measured)) = &self.measured {
            let _ = writeln!(text, "slowest of {} rules that ran on {events} events:", measured.len());
            for Measured { rule, events, hits, nanoseconds } in measured.iter().take(SLOWEST) {
                let rule = self.engine.rule(*rule);
                let _ = writeln!(
                    text,
                    "  {nanoseconds:>8.0} ns an event ({events} events, {hits} hits)  {} ({})",
                    rule.title, rule.id
                );
            }
        }
        let (rules, filters) = (self.engine.rules().len(), self.engine.filters().len());
        let (correlations, errors, warnings) = (self.correlations, self.errors.len(), self.warnings.len());
        let _ = write!(
            text,
            "{rules} rules, {filters} filters, {correlations} correlations, {errors} errors, {warnings} warnings"
        );
        text
    }

    fn json(&self) -> Value {
        let error = |problem: &Problem| {
            let Problem { file, line, rule, message, .. } = problem;
            json!({ "file": file, "line": line, "rule": rule, "message": message })
        };
        let warning = |warning: &Warning| {
            let Warning { kind, file, line, rule, message } = warning;
            json!({ "kind": kind, "file": file, "line": line, "rule": rule, "message": message })
        };
        let slow = |measured: &Measured| {
            let rule = self.engine.rule(measured.rule);
            json!({
                "rule": rule.id,
                "title": rule.title,
                "file": rule.origin.0,
                "line": rule.origin.1,
                "nanoseconds_per_event": measured.nanoseconds.round(),
                "events": measured.events,
                "hits": measured.hits,
            })
        };
        let mut document = json!({
            "rules": self.engine.rules().len(),
            "filters": self.engine.filters().len(),
            "correlations": self.correlations,
            "errors": self.errors.iter().map(error).collect::<Vec<_>>(),
            "warnings": self.warnings.iter().map(warning).collect::<Vec<_>>(),
        });
        if let Some((events, measured)) = &self.measured {
            let slowest: Vec<_> = measured.iter().take(SLOWEST).map(slow).collect();
            document["sample"] = json!({ "events": events, "rules": measured.len(), "slowest": slowest });
        }
        document
    }
}
