//! `inosec rules eval`.

use std::collections::BTreeMap;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use inosec_enrich::{Engine, Parsed, Rule, RuleFiles, Ruleset};
use inosec_schemas::Catalog;
use serde::Serialize;

use super::super::{Failure, Output};
use super::episodes::Correlating;
use crate::config::Config;
use crate::event_file::{EventFile, Lines};
use crate::rules::{self, Evaluator, Explainer, Outcome};

/// How many lines that can't be read are named.
const NAMED: usize = 5;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rules, as `inosec rules check` takes them; can be repeated. Default: [rules] paths of the
    /// configuration.
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Say on stderr how fast events were parsed and matched.
    #[arg(long)]
    timing: bool,
    /// Instead of hits, tell for every event why this rule (id, title or name) matches it or does not:
    /// selection by selection, with the values it looked at. As JSON lines with --output json.
    #[arg(long, value_name = "RULE", conflicts_with = "timing")]
    explain: Option<String>,
    /// Files of events: one JSON object or text a line, also .zst; `-` is standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// A hit as it is printed.
#[derive(Debug, Serialize)]
struct Line<'a> {
    rule_id: &'a str,
    title: &'a str,
    file: &'a str,
    line: u64,
}

pub fn eval(args: &Args, config: &Config, output: &Output) -> Result<(), Failure> {
    let parsed = super::load(&args.rules, config)?;
    let catalog = super::catalog(config)?;
    if let Some(named) = &args.explain {
        return explain(named, &parsed, &catalog, args, config, output);
    }
    super::tell_left_out(&parsed, output);
    if parsed.rules.is_empty() {
        return Err(Failure::new("no rule can be run: `inosec rules check` tells why"));
    }
    let started = Instant::now();
    let Parsed { rules, filters, correlations, .. } = parsed;
    let files = RuleFiles { rules, filters, correlations, ..RuleFiles::default() };
    let ruleset = Arc::new(Ruleset::new(&files, &catalog.classes(), &[], None)?);
    let compile = started.elapsed();
    for problem in ruleset.problems() {
        output.note(&format!("left out: {problem}"));
    }
    let mut run = Run {
        evaluator: Evaluator::new(Arc::clone(ruleset.engine()), &catalog, rules::limits(config)),
        engine: Arc::clone(ruleset.engine()),
        correlating: Correlating::new(&ruleset, &files, &catalog, config)?,
        out: BufWriter::new(std::io::stdout().lock()),
        totals: Totals { compile, ..Totals::default() },
        progress: progress(),
        longest: config.limits.max_message_bytes,
    };
    let done = args.files.iter().enumerate().try_for_each(|(number, file)| run.file(number, file));
    let done = done.and_then(|()| run.episodes(&args.files));
    run.progress.finish_and_clear();
    run.totals.tell(args.timing, output);
    match done {
        // `inosec rules eval … | head` is no failure.
        Err(Stopped::Closed) => Ok(()),
        Err(Stopped::Failed(failure)) => Err(failure),
        Ok(()) => Ok(()),
    }
}

/// Why a run ended early.
enum Stopped {
    /// Nobody reads stdout any more.
    Closed,
    Failed(Failure),
}

impl From<std::io::Error> for Stopped {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(error.into()),
        }
    }
}

struct Run<'a, W: Write> {
    engine: Arc<Engine>,
    evaluator: Evaluator,
    correlating: Option<Correlating>,
    out: W,
    totals: Totals<'a>,
    progress: ProgressBar,
    longest: usize,
}

impl<'a, W: Write> Run<'a, W> {
    fn file(&mut self, number: usize, file: &'a Path) -> Result<(), Stopped> {
        let name = file.display().to_string();
        let failed = |error: std::io::Error| Stopped::Failed(Failure::new(format!("{name}: {error}")));
        let mut input = EventFile::open(file, self.longest).map_err(failed)?;
        let mut lines = Lines::default();
        loop {
            let started = Instant::now();
            input.read(&mut lines).map_err(failed)?;
            self.totals.read += started.elapsed();
            if lines.is_empty() {
                return Ok(());
            }
            let outcome = self.evaluator.run(&lines);
            for (index, rule) in &outcome.hits {
                let Rule { id, title, .. } = self.engine.rule(*rule);
                let hit = Line { rule_id: id, title, file: &name, line: lines.number(*index) };
                serde_json::to_writer(&mut self.out, &hit).map_err(std::io::Error::from)?;
                self.out.write_all(b"\n")?;
            }
            if let Some(correlating) = &mut self.correlating {
                let started = Instant::now();
                correlating.add(number, &lines);
                self.totals.correlate += started.elapsed();
            }
            self.totals.add(file, &lines, outcome);
            self.progress.set_position(self.totals.events);
        }
    }

    fn episodes(&mut self, files: &[PathBuf]) -> Result<(), Stopped> {
        if let Some(correlating) = self.correlating.take() {
            let started = Instant::now();
            self.totals.episodes = Some(correlating.print(files, &mut self.out)?);
            self.totals.correlate += started.elapsed();
        }
        Ok(self.out.flush()?)
    }
}

/// What all files gave together.
#[derive(Default)]
struct Totals<'a> {
    events: u64,
    bytes: u64,
    hits: u64,
    compile: Duration,
    read: Duration,
    parse: Duration,
    matching: Duration,
    /// Decoding, detecting and folding once more as the road does, if there are correlations.
    correlate: Duration,
    episodes: Option<usize>,
    unclassified: BTreeMap<String, u64>,
    unreadable: u64,
    /// The first that can't be read.
    named: Vec<(&'a Path, u64, String)>,
}

impl<'a> Totals<'a> {
    fn add(&mut self, file: &'a Path, lines: &Lines, outcome: Outcome) {
        self.events += lines.len() as u64;
        self.bytes += lines.bytes() as u64;
        self.hits += outcome.hits.len() as u64;
        self.parse += outcome.parse;
        self.matching += outcome.matching;
        for (format, count) in outcome.unclassified {
            *self.unclassified.entry(format).or_default() += count;
        }
        self.unreadable += outcome.unreadable.len() as u64;
        let room = NAMED - self.named.len();
        let named = outcome.unreadable.into_iter().take(room);
        self.named.extend(named.map(|(index, detail)| (file, lines.number(index), detail)));
    }

    fn tell(&self, timing: bool, output: &Output) {
        let (events, hits) = (self.events, self.hits);
        let episodes = self.episodes.map(|episodes| format!(", {episodes} episodes"));
        output.note(&format!("{events} events, {hits} hits{}", episodes.unwrap_or_default()));
        if self.unreadable > 0 {
            output.note(&format!("{} lines can't be read:", self.unreadable));
            for (file, line, detail) in &self.named {
                output.note(&format!("  {}:{line}: {detail}", file.display()));
            }
        }
        if !self.unclassified.is_empty() {
            let each = self.unclassified.iter().map(|(format, count)| format!("{format} {count}"));
            let each = each.collect::<Vec<_>>().join(", ");
            output.note(&format!("no log source is known for some events, so no rule ran on them: {each}"));
        }
        if timing {
            let rate = |took: Duration| self.events as f64 / took.as_secs_f64().max(1e-9);
            let all = self.read + self.parse + self.matching;
            output.note(&format!("compile  {:>9.3} s", self.compile.as_secs_f64()));
            for (what, took) in
                [("read", self.read), ("parse", self.parse), ("match", self.matching), ("total", all)]
            {
                let (seconds, rate) = (took.as_secs_f64(), rate(took));
                output.note(&format!("{what:<8} {seconds:>9.3} s  {rate:>9.0} events/s"));
            }
            if self.episodes.is_some() {
                output.note(&format!("then correlate {:>.3} s", self.correlate.as_secs_f64()));
            }
            let megabytes = self.bytes as f64 / 1e6;
            output.note(&format!("{megabytes:.1} MB of events on one thread"));
        }
    }
}

fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() || std::io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {human_pos} events, {per_sec}, {elapsed}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// Tells of every event why a rule matches it or not.
fn explain(
    named: &str,
    parsed: &Parsed,
    catalog: &Catalog,
    args: &Args,
    config: &Config,
    output: &Output,
) -> Result<(), Failure> {
    let rule = find(named, parsed)?;
    let mut explainer = Explainer::new(rule, &parsed.filters, catalog, rules::limits(config))?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut lines = Lines::default();
    for file in &args.files {
        let name = file.display().to_string();
        let failed = |error: std::io::Error| Failure::new(format!("{name}: {error}"));
        let mut input = EventFile::open(file, config.limits.max_message_bytes).map_err(failed)?;
        loop {
            input.read(&mut lines).map_err(failed)?;
            if lines.is_empty() {
                break;
            }
            for (index, message) in (0..).zip(lines.messages()) {
                let number = lines.number(index);
                let explanation = explainer.explain(message);
                let printed = match output.json() {
                    true => writeln!(out, "{}", explanation.to_json(&name, number)),
                    false => writeln!(out, "{name}:{number}: {explanation}"),
                };
                match printed {
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                    printed => printed?,
                }
            }
        }
    }
    match out.flush() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The rule by id, else by name, else by title.
fn find<'a>(named: &str, parsed: &'a Parsed) -> Result<&'a Rule, Failure> {
    let by = |is: &dyn Fn(&Rule) -> bool| parsed.rules.iter().find(|rule| is(rule));
    let found = by(&|rule| rule.id == named)
        .or_else(|| by(&|rule| rule.name.as_deref() == Some(named)))
        .or_else(|| by(&|rule| rule.title == named));
    if let Some(rule) = found {
        return Ok(rule);
    }
    let correlation = parsed
        .correlations
        .iter()
        .find(|rule| rule.id == named || rule.title == named || rule.name.as_deref() == Some(named));
    if let Some(rule) = correlation {
        let rules = rule.rules.join(", ");
        return Err(Failure::new(format!("{named} is a correlation: explain the rules it counts, {rules}")));
    }
    match parsed.problems.iter().find(|problem| problem.rule.as_deref() == Some(named)) {
        Some(problem) => Err(Failure::new(format!("the rule has an error: {problem}"))),
        None => Err(Failure::new(format!(
            "no rule has the id, name or title {named:?}: `inosec rules list` shows them"
        ))),
    }
}
