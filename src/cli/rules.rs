//! `inosec rules`: detection rules and correlations, most of it without any server.

mod backtest;
mod check;
mod episodes;
mod eval;
mod list;
mod test;

use std::path::PathBuf;

use clap::Subcommand;
use inosec_enrich::Parsed;
use inosec_schemas::Catalog;

use super::{Failure, Output, chain};
use crate::config::Config;
use crate::{databases, rules};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check rules: what is wrong, odd or dear in them, and what to change.
    ///
    /// Every rule is parsed and compiled as `run` would do it. Errors name file, line and rule; warnings
    /// tell of rules that never run because no supported format gives such events, of rules without id or
    /// level, of selections nobody uses, of tests that cost more than they need, and of rules of level high
    /// that correlations leave without alerts of their own. Exit status 0: no rule has an error.
    Check(check::Args),
    /// Run rules over files of events and print each hit as a JSON line.
    ///
    /// Events are taken as they come from Kafka: one JSON object or line of text a line, in any supported
    /// format. A hit is {"rule_id", "title", "file", "line"}, in order of file, line and rule_id, whatever
    /// --output says. Lines that can't be read and events without a log source are counted on stderr.
    ///
    /// If there are correlations among the rules, the episodes of all files together follow: {"episode":
    /// {"rule_id", "title", "group", "first_seen", "last_seen", "count", "members"}}, in order of time. These
    /// are the alerts that `run` would make of the same events: of correlations, and of rules from level
    /// high on that feed none. Members are hits: {"rule_id", "file", "line"}. Each event counts as arrived
    /// the moment it happened, whatever the order of lines and files; one that tells no time as arrived now.
    Eval(eval::Args),
    /// Run a pack's rules over its fixtures: each fires where it must, and on no near-miss.
    ///
    /// A pack is a folder `detection` of rules, one a file, beside a folder `fixtures` with their events:
    /// lines such as {"fires": true, "why": "short flag", "event": {…}}, or "raw": "…" for a line of text.
    /// A folder `correlation` beside them holds correlations; their fixtures lie in `fixtures/correlation`,
    /// a case a line: {"why": "twelve users", "episodes": [12], "events": [{"times": 12, "every": "5s",
    /// "event": {…}}]}, with the number of threat events of each episode that the events come to. `{n}` is
    /// replaced by 1, 2, …, `{time}`, `{stamp}` or `{epoch}` by a time as the format writes it. Each case
    /// must come to the same in random order and with every event twice. Exit status 0: everything behaves.
    Test(test::Args),
    /// Run rules and correlations over a tenant's stored events: how often and for whom they would have fired.
    ///
    /// The messages as received are taken from the database and through the road's own decode, GeoIP look-up
    /// and detection, with the tenant's exceptions; nothing is written. A correlation's base rules run with
    /// it, unless the tenant has switched them off. Each event counts as arrived the moment it happened.
    /// Needs [databases] of the configuration.
    Backtest(backtest::Args),
    /// List rules and correlations: id, level, title, log source and file; of a tenant, which it has.
    List(list::Args),
}

/// Where rules are.
#[derive(Debug, clap::Args)]
struct Paths {
    /// Rules: YAML files, folders of them, or JSON lines with the text as member `yaml` or `rule` (.jsonl,
    /// .ndjson, .json; all also as .zst). Default: what [rules] of the configuration says.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Does what was asked.
pub fn rules(args: &Args, config: &Config, output: &Output) -> Result<(), Failure> {
    match &args.action {
        Action::Check(args) => check::check(args, config, output),
        Action::Eval(args) => eval::eval(args, config, output),
        Action::Test(args) => test::test(args, config, output),
        Action::Backtest(args) => super::block_on(backtest::backtest(args, config, output)),
        Action::List(args) => super::block_on(list::list(args, config, output)),
    }
}

/// The rules at the paths given, or at those configured.
fn load(given: &[PathBuf], config: &Config) -> Result<Parsed, Failure> {
    let placeholders = rules::placeholders(&config.rules);
    if !given.is_empty() {
        return Ok(rules::load(given, &placeholders)?);
    }
    Ok(configured(config)?.parsed)
}

/// The rules that are configured, of which there must be some.
fn configured(config: &Config) -> Result<rules::Configured, Failure> {
    if config.rules.is_empty() {
        let text = "no rules: give the paths of rule files or folders, or [rules] paths or builtin = true in \
            the configuration";
        return Err(Failure::new(text));
    }
    Ok(rules::configured(&config.rules, &rules::placeholders(&config.rules))?)
}

/// The formats, embedded and configured.
fn catalog(config: &Config) -> Result<Catalog, Failure> {
    databases::catalog(config).map_err(|error| Failure::new(chain(&error)))
}

/// Says on stderr which rules are left out, for commands that go on without them.
fn tell_left_out(parsed: &Parsed, output: &Output) {
    const SHOWN: usize = 10;
    let count = parsed.problems.len();
    for problem in parsed.problems.iter().take(SHOWN) {
        output.note(&format!("left out: {problem}"));
    }
    if count > SHOWN {
        output.note(&format!("left out: {} more; `inosec rules check` shows all", count - SHOWN));
    }
}
