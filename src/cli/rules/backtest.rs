//! `inosec rules backtest`: stored messages through decode, GeoIP, detection and correlation once more, for
//! rules that may not even be enabled.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use inosec_enrich::{Correlation, Correlations, Parsed, Rule, RuleFiles, Ruleset};
use inosec_schemas::{Catalog, TenantId, TenantRule};
use inosec_sink::events::{Hit, Query, Search};
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::events::moment;
use super::super::{Failure, Output, time};
use crate::config::Config;
use crate::pipeline::geo;
use crate::rules::{self, Detected, Detections, Episodes, Event, TENANT};
use crate::{databases, rules::alone};

/// Messages of one batch.
const BATCH: usize = 2000;
/// Hosts and users that are named.
const NAMED: usize = 10;
const STREAM: &str = "agent_logs";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose events.
    #[arg(long, value_name = "UUID")]
    tenant: TenantId,
    /// Stored at or after this time: RFC 3339, or a duration back from now such as 24h.
    #[arg(long, default_value = "24h")]
    from: String,
    /// Stored before this time.
    #[arg(long, default_value = "0s")]
    to: String,
    /// Where rules are, as `inosec rules check` takes them; can be repeated. Default: [rules] of the
    /// configuration.
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// The database.
    #[arg(long, default_value = "main")]
    database: String,
    /// Rules and correlations: ids, names, titles, or files, all of whose rules are meant.
    #[arg(value_name = "RULE", required = true)]
    meant: Vec<String>,
}

pub async fn backtest(args: &Args, config: &Config, output: &Output) -> Result<(), Failure> {
    let plan = Plan::new(args, config, output)?;
    let catalog = super::catalog(config)?;
    let stream = catalog.streams.get(STREAM).cloned();
    let stream = stream.ok_or_else(|| Failure::new(format!("there is no stream {STREAM}")))?;
    let store = databases::connect(config, &args.database).await.map_err(Failure::new)?;
    if !store.directory().tenants.contains_key(&args.tenant) {
        let tenant = args.tenant;
        return Err(Failure::new(format!("there is no tenant {tenant}: see `inosec tenant list`")));
    }
    let said = store.tenant_rules().await?.rules;
    let said = said.into_iter().filter(|rule| rule.tenant == args.tenant).collect();
    let geo = geo::Current::load(&config.geo).await?.now();
    let mut run = plan.start(said, &catalog, config, geo, output)?;

    let (from, to) = (moment(&args.from)?, moment(&args.to)?);
    let (filters, text, limit) = (Vec::new(), None, usize::MAX);
    let query = Query { stream, tenant: args.tenant, from, to, filters, text, limit };
    let mut search = Search::new(&store, query)?;
    let progress = progress(from, to);
    let mut waiting = Vec::new();
    while let Some(hits) = search.next().await? {
        if let Some(last) = hits.last() {
            progress.set_position((to - last.ts).unsigned_abs());
            progress.set_message(format!("{} events", run.events));
        }
        waiting.extend(hits);
        if waiting.len() >= BATCH {
            run.take(&std::mem::take(&mut waiting));
        }
    }
    run.take(&waiting);
    progress.finish_and_clear();
    run.finish(output)
}

/// What is to be run.
struct Plan {
    files: RuleFiles,
    /// Among the files.
    rules: Vec<Rule>,
    correlations: Vec<Correlation>,
}

impl Plan {
    fn new(args: &Args, config: &Config, output: &Output) -> Result<Self, Failure> {
        let placeholders = rules::placeholders(&config.rules);
        let files: Vec<PathBuf> =
            args.meant.iter().map(PathBuf::from).filter(|path| path.is_file()).collect();
        let (parsed, optional) = match (&args.rules[..], config.rules.is_empty()) {
            ([], false) => {
                let rules::Configured { mut parsed, optional } = super::configured(config)?;
                let known = |file: &Path| parsed.rules.iter().any(|rule| Path::new(&rule.origin.0) == file);
                let others: Vec<PathBuf> = files.into_iter().filter(|file| !known(file)).collect();
                rules::add(&others, &placeholders, &mut parsed)?;
                (parsed, optional)
            }
            ([], true) if files.is_empty() => (super::configured(config)?.parsed, HashSet::new()),
            (paths, _) => (rules::load(&[paths, &files].concat(), &placeholders)?, HashSet::new()),
        };
        super::tell_left_out(&parsed, output);
        let Parsed { rules: all, filters, correlations, .. } = parsed;
        let (mut rules, mut chosen) = (Vec::new(), Vec::new());
        for meant in &args.meant {
            let is = |id: &str, name: &Option<String>, title: &str, file: &str| {
                id == meant || name.as_ref() == Some(meant) || title == meant || Path::new(file) == meant
            };
            let before = rules.len() + chosen.len();
            rules.extend(
                all.iter().filter(|rule| is(&rule.id, &rule.name, &rule.title, &rule.origin.0)).cloned(),
            );
            let of = |rule: &&Correlation| is(&rule.id, &rule.name, &rule.title, &rule.origin.0);
            chosen.extend(correlations.iter().filter(of).cloned());
            if rules.len() + chosen.len() == before {
                let text = format!(
                    "no rule has the id, name, title or file {meant:?}, or it has an error: \
                     `inosec rules check` tells"
                );
                return Err(Failure::new(text));
            }
        }
        let files = RuleFiles { rules: all, filters, correlations, optional, placeholders };
        Ok(Self { files, rules, correlations: chosen })
    }

    /// Compiles what is meant, and what that builds on.
    fn start(
        self,
        said: Vec<TenantRule>,
        catalog: &Catalog,
        config: &Config,
        geo: inosec_enrich::geo::Geo,
        output: &Output,
    ) -> Result<Run, Failure> {
        let Self { mut files, rules, correlations } = self;
        let folds: Vec<Arc<Correlations>> = correlations
            .iter()
            .map(|rule| Arc::new(alone(rule, &files.correlations, &files.rules)))
            .collect();
        let meant: HashSet<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
        let mut needed: HashSet<&str> = meant.clone();
        for (rule, fold) in correlations.iter().zip(&folds) {
            let base = fold.detections_of(&rule.id);
            if base.is_empty() {
                let title = &rule.title;
                return Err(Failure::new(format!(
                    "{title}: `inosec rules check` tells what is wrong with it"
                )));
            }
            needed.extend(base);
        }
        files.rules.retain(|rule| needed.contains(rule.id.as_str()));
        files.optional.retain(|id| !meant.contains(id.as_str()));
        let own = said.into_iter().map(|rule| {
            let enabled = rule.enabled || meant.contains(rule.rule_id.as_str());
            TenantRule { tenant: TENANT, enabled, ..rule }
        });
        let ruleset = Ruleset::new(&files, &catalog.classes(), &own.collect::<Vec<_>>(), None)?;
        // A correlation that isn't meant may lack rules now; those that are meant resolve.
        for problem in ruleset.problems().iter().filter(|problem| problem.file.starts_with("tenant_rules")) {
            output.note(&format!("left out: {problem}"));
        }
        let limits = rules::limits(config);
        let detections = Detections::new(Arc::new(ruleset), catalog, limits, geo, databases::now())?;
        let options = databases::correlate_options(config);
        let folds = folds.into_iter().map(|fold| Episodes::new(fold, options.clone()));
        let folds = correlations.into_iter().zip(folds).collect();
        let matched = rules.into_iter().map(|rule| (rule.id.clone(), Tally::of(&rule))).collect();
        Ok(Run { detections, matched, folds, seen: HashMap::new(), events: 0, missing: 0 })
    }
}

/// A backtest under way.
struct Run {
    detections: Detections,
    /// Of the rules that are meant, by id.
    matched: BTreeMap<String, Tally>,
    folds: Vec<(Correlation, Episodes)>,
    /// Host and user of each threat event.
    seen: HashMap<Uuid, (Option<String>, Option<String>)>,
    events: u64,
    missing: u64,
}

/// What a rule or correlation came to.
struct Tally {
    id: String,
    title: String,
    level: &'static str,
    fired: u64,
    days: BTreeMap<String, u64>,
    hosts: HashMap<String, u64>,
    users: HashMap<String, u64>,
}

impl Run {
    fn take(&mut self, hits: &[Hit]) {
        self.events += hits.len() as u64;
        let found = hits.iter().filter_map(|hit| {
            let message = hit.message.as_deref()?;
            Some(Event { source: 0, number: hit.seq, arrived_at: hit.ts, message })
        });
        self.missing += hits.iter().filter(|hit| hit.message.is_none()).count() as u64;
        let detected = self.detections.detect(found);
        for (_, episodes) in &mut self.folds {
            episodes.add(&detected);
        }
        for Detected { event, .. } in detected {
            if let Some(tally) = self.matched.get_mut(event.rule()) {
                tally.add(event.detected_at, event.host_name.iter(), event.user_name.iter());
            }
            if !self.folds.is_empty() {
                self.seen.insert(event.id, (event.host_name, event.user_name));
            }
        }
    }

    fn finish(self, output: &Output) -> Result<(), Failure> {
        let Self { matched, folds, seen, events, missing, .. } = self;
        let mut tallies: Vec<Tally> = matched.into_values().collect();
        for (rule, episodes) in folds {
            let mut tally = Tally::new(&rule.id, &rule.title, rule.level.name());
            for episode in episodes.finish().iter().filter(|episode| episode.of.rule == rule.id) {
                let of = || episode.members.iter().filter_map(|id| seen.get(id));
                let hosts: HashSet<&String> = of().filter_map(|(host, _)| host.as_ref()).collect();
                let users: HashSet<&String> = of().filter_map(|(_, user)| user.as_ref()).collect();
                tally.add(episode.first_seen, hosts.into_iter(), users.into_iter());
            }
            tallies.push(tally);
        }
        if missing > 0 {
            output.note(&format!("{missing} events have no stored message and were left out"));
        }
        let mut text = format!("{events} events\n");
        tallies.iter().for_each(|tally| tally.write(&mut text));
        output.text_or_json(
            &text,
            || json!({ "events": events, "rules": tallies.iter().map(Tally::json).collect::<Vec<_>>() }),
        )
    }
}

impl Tally {
    fn new(id: &str, title: &str, level: &'static str) -> Self {
        Self {
            id: id.to_owned(),
            title: title.to_owned(),
            level,
            fired: 0,
            days: BTreeMap::new(),
            hosts: HashMap::new(),
            users: HashMap::new(),
        }
    }

    fn of(rule: &Rule) -> Self {
        Self::new(&rule.id, &rule.title, rule.level.name())
    }

    fn add<'a>(
        &mut self,
        at: i64,
        hosts: impl Iterator<Item = &'a String>,
        users: impl Iterator<Item = &'a String>,
    ) {
        self.fired += 1;
        let day = time(at).chars().take_while(|each| *each != 'T').collect();
        *self.days.entry(day).or_default() += 1;
        hosts.for_each(|host| *self.hosts.entry(host.clone()).or_default() += 1);
        users.for_each(|user| *self.users.entry(user.clone()).or_default() += 1);
    }

    fn write(&self, text: &mut String) {
        let Self { id, title, level, fired, days, hosts, users } = self;
        let _ = writeln!(text, "\n{title} ({id}, {level}): {fired} times");
        for (day, fired) in days {
            let _ = writeln!(text, "  {day}  {fired}");
        }
        for (what, by_name) in [("hosts", hosts), ("users", users)] {
            if by_name.is_empty() {
                continue;
            }
            let shown: Vec<String> =
                most(by_name).take(NAMED).map(|(name, fired)| format!("{name} {fired}")).collect();
            let more = by_name.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let _ = writeln!(text, "  {what}: {}{more}", shown.join(", "));
        }
    }

    fn json(&self) -> Value {
        let Self { id, title, level, fired, days, hosts, users } = self;
        let named = |by_name| {
            most(by_name).map(|(name, fired)| json!({ "name": name, "fired": fired })).collect::<Vec<_>>()
        };
        json!({
            "rule_id": id,
            "title": title,
            "level": level,
            "fired": fired,
            "days": days,
            "hosts": named(hosts),
            "users": named(users),
        })
    }
}

/// Most first.
fn most(by_name: &HashMap<String, u64>) -> impl Iterator<Item = (&String, u64)> {
    let mut sorted: Vec<(&String, u64)> = by_name.iter().map(|(name, fired)| (name, *fired)).collect();
    sorted.sort_by_key(|(name, fired)| (std::cmp::Reverse(*fired), *name));
    sorted.into_iter()
}

/// Through time, backwards.
fn progress(from: i64, to: i64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent} % of the time, {msg}, {eta} left");
    let bar = ProgressBar::new((to - from).max(1).unsigned_abs());
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
