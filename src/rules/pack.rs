//! A pack of rules with fixtures: each rule fires on the events that must fire it, and on no near-miss;
//! each correlation comes to the episodes it must.
//!
//! `detection/<area>/<name>.yml` holds one rule, `fixtures/<area>/<name>.ndjson` its events, a JSON object
//! a line: `{"fires": true, "why": "…", "event": {…}}`, or `"raw": "…"` for a line of text.
//! `correlation/<area>/<name>.yml` holds one correlation, `fixtures/correlation/<area>/<name>.ndjson` its
//! cases: `{"why": "…", "episodes": [12], "events": [{"times": 12, "every": "5s", "event": {…}}, …]}`.

mod case;
mod correlation;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use inosec_enrich::{Parsed, Placeholders, RuleFiles, RuleId, Ruleset};
use inosec_ingest::Limits;
use inosec_schemas::{Catalog, EventClass};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Detections, Error, Evaluator, load, logsource};
use crate::event_file::Lines;

/// Of each sort a rule has at least so many.
const LEAST: usize = 2;
/// A pack's folders of rules.
const DETECTION: &str = "detection";
const CORRELATION: &str = "correlation";
/// In the `why` of a near-miss that is not of the rule's log source.
const OTHER_LOG: &str = "other log";

/// What a pack was tested with, and what failed.
#[derive(Debug, Default)]
pub struct Report {
    /// Rules.
    pub rules: usize,
    /// Events that must fire.
    pub firing: usize,
    /// Events that must not.
    pub near_misses: usize,
    /// Correlations.
    pub correlations: usize,
    /// Cases that must come to episodes.
    pub raising: usize,
    /// Cases that must not.
    pub quiet: usize,
    /// What is wrong.
    pub failures: Vec<Failure>,
}

/// A rule or fixture that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The file of the rule or of its fixture.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The rule's id.
    pub rule: Option<String>,
    /// What is wrong.
    pub message: String,
}

/// A line of a fixture.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    fires: bool,
    why: String,
    #[serde(default)]
    event: Option<Box<RawValue>>,
    #[serde(default)]
    raw: Option<String>,
}

/// The folder that holds `detection` or `correlation`, and `fixtures`, and what of it is meant by `path`: all
/// of it, or what lies there.
fn pack_of(path: &Path) -> Result<(PathBuf, PathBuf), Error> {
    let whole = |root: &Path| [DETECTION, CORRELATION].iter().any(|folder| root.join(folder).is_dir());
    std::fs::metadata(path).map_err(Error::path(path))?;
    for root in [path.to_owned(), path.join("rules")] {
        if whole(&root) {
            return Ok((root.clone(), root));
        }
    }
    let folder = path
        .ancestors()
        .find(|ancestor| ancestor.file_name().is_some_and(|name| name == DETECTION || name == CORRELATION));
    let root = folder.and_then(Path::parent).ok_or_else(|| Error::NoPack(path.to_owned()))?;
    Ok((root.to_owned(), path.to_owned()))
}

/// The fixture of a rule of the pack: `detection/a/b.yml` has `fixtures/a/b.ndjson`.
fn fixture_of(root: &Path, rule: &str) -> PathBuf {
    let below = Path::new(rule).strip_prefix(root).unwrap_or(Path::new(rule));
    let below = below.strip_prefix(DETECTION).unwrap_or(below);
    root.join("fixtures").join(below).with_extension("ndjson")
}

/// Tests the pack at a path, or the rules that the path names in it.
///
/// # Errors
/// If there is none, or its rules can't be compiled together. What is wrong with a rule or a fixture is in
/// the report.
pub fn test(
    path: &Path,
    catalog: &Catalog,
    placeholders: &Placeholders,
    limits: Limits,
) -> Result<Report, Error> {
    let (root, meant) = pack_of(path)?;
    let folders = [root.join(DETECTION), root.join(CORRELATION)];
    let folders: Vec<PathBuf> = folders.into_iter().filter(|folder| folder.is_dir()).collect();
    let parsed = load(&folders, placeholders)?;
    let is_meant = |file: &str| Path::new(file).starts_with(&meant);
    let mut report = Report::default();
    report.one_rule_a_file(&parsed);
    let Parsed { rules, correlations, problems, .. } = parsed;
    let files = RuleFiles { rules, correlations, ..RuleFiles::default() };
    let ruleset = Arc::new(Ruleset::new(&files, &catalog.classes(), &[], None)?);
    for problem in problems.iter().chain(ruleset.problems()) {
        let (file, line) = (problem.file.clone(), problem.line);
        let (rule, message) = (problem.rule.clone(), problem.message.clone());
        report.failures.push(Failure { file, line, rule, message });
    }
    report.failures.retain(|failure| is_meant(&failure.file));
    let engine = ruleset.engine();
    let classes = engine.class_fields().classes.into_iter().map(|(class, _)| class).collect();
    let evaluator = Evaluator::new(Arc::clone(engine), catalog, limits);
    let mut tester = Tester { root: root.clone(), classes, evaluator, report };
    for (number, _) in (0..).map(RuleId).zip(engine.rules()).filter(|(_, rule)| is_meant(&rule.origin.0)) {
        tester.rule(number);
    }
    let mut report = tester.report;
    let (rules, correlations) = (&files.rules, &files.correlations);
    let detections = Detections::new(Arc::clone(&ruleset), catalog, limits, case::geo()?, case::ARRIVAL)?;
    let mut tester = correlation::Tester { root: &root, rules, correlations, detections };
    for rule in correlations.iter().filter(|rule| is_meant(&rule.origin.0)) {
        tester.correlation(rule, &mut report);
    }
    Ok(report)
}

impl Report {
    fn one_rule_a_file(&mut self, parsed: &Parsed) {
        let mut files = std::collections::HashSet::new();
        let rules = parsed.rules.iter().map(|rule| (&rule.origin, &rule.id));
        let correlations = parsed.correlations.iter().map(|rule| (&rule.origin, &rule.id));
        for ((file, line), id) in rules.chain(correlations) {
            if !files.insert(file) {
                let message =
                    "a second rule in the file: fixtures belong to a file, give it its own".to_owned();
                let (file, rule) = (file.clone(), Some(id.clone()));
                self.failures.push(Failure { file, line: *line, rule, message });
            }
        }
    }
}

struct Tester {
    root: PathBuf,
    classes: Vec<EventClass>,
    evaluator: Evaluator,
    report: Report,
}

impl Tester {
    /// Runs a rule over its fixture.
    fn rule(&mut self, number: RuleId) {
        let rule = self.evaluator.engine().rule(number);
        let (path, id) = (fixture_of(&self.root, &rule.origin.0), rule.id.clone());
        self.report.rules += 1;
        let file = path.display().to_string();
        let mut fail = |line: usize, message: String| {
            let (file, rule) = (file.clone(), Some(id.clone()));
            self.report.failures.push(Failure { file, line, rule, message });
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => return fail(1, format!("no fixture: {error}")),
        };
        let mut fixtures = Vec::new();
        let mut lines = Lines::default();
        for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
            match read(text) {
                Ok((fixture, event)) => {
                    lines.push(event.as_bytes(), line as u64);
                    fixtures.push((line, fixture));
                }
                Err(message) => fail(line, message),
            }
        }
        let firing = fixtures.iter().filter(|(_, fixture)| fixture.fires).count();
        let near = fixtures.len() - firing;
        self.report.firing += firing;
        self.report.near_misses += near;
        if firing < LEAST || near < LEAST {
            let message =
                format!("{firing} events that fire, {near} near-misses: {LEAST} of each are needed");
            self.report.failures.push(Failure {
                file: file.clone(),
                line: 1,
                rule: Some(id.clone()),
                message,
            });
        }
        for (line, message) in self.wrong(number, &fixtures, &lines) {
            self.report.failures.push(Failure { file: file.clone(), line, rule: Some(id.clone()), message });
        }
    }

    /// What is wrong with each event.
    fn wrong(
        &mut self,
        number: RuleId,
        fixtures: &[(usize, Fixture)],
        lines: &Lines,
    ) -> Vec<(usize, String)> {
        let extracted = self.evaluator.extract(lines);
        let hits = self.evaluator.matched(&extracted);
        let rule = self.evaluator.engine().rule(number);
        let mut wrong = Vec::new();
        for (index, (line, fixture)) in (0..).zip(fixtures) {
            let why = &fixture.why;
            let fires = hits.contains(&(index, number));
            let of = extracted.classes.iter().find(|(_, rows)| rows.messages.binary_search(&index).is_ok());
            let class = of.map(|(class, _)| &self.classes[*class as usize]);
            let unreadable = extracted.unreadable.iter().find(|(message, _)| *message == index);
            let from = match (class, unreadable) {
                (_, Some((_, detail))) => format!("it can't be read: {detail}"),
                (Some(class), _) if rule.logsource.admits(class) => String::new(),
                (Some(class), _) => {
                    format!("it is of {class}, the rule is for {}", logsource(&rule.logsource))
                }
                (None, None) => "no log source is known for it".to_owned(),
            };
            match (fixture.fires, fires, from.as_str()) {
                (true, false, "") => wrong.push((*line, format!("does not fire: {why}"))),
                (true, false, from) => wrong.push((*line, format!("does not fire, {from}: {why}"))),
                (false, true, _) => wrong.push((*line, format!("a near-miss fires: {why}"))),
                (false, false, from) if !from.is_empty() && !why.contains(OTHER_LOG) => {
                    wrong.push((*line, format!("a near-miss that proves nothing, {from}: {why}")));
                }
                _ => {}
            }
        }
        wrong
    }
}

/// A line of a fixture, and its event as an agent sends it.
fn read(text: &str) -> Result<(Fixture, String), String> {
    let fixture: Fixture = serde_json::from_str(text).map_err(|error| format!("not a fixture: {error}"))?;
    let event = match (&fixture.event, &fixture.raw) {
        (Some(event), None) => event.get().to_owned(),
        (None, Some(raw)) => raw.clone(),
        _ => return Err("a fixture has either `event` or `raw`".to_owned()),
    };
    Ok((fixture, event))
}
