//! A pack of rules with fixtures: each rule fires on the events that must fire it, and on no near-miss.
//!
//! `detection/<area>/<name>.yml` holds one rule, `fixtures/<area>/<name>.ndjson` its events, a JSON object
//! a line: `{"fires": true, "why": "…", "event": {…}}`, or `"raw": "…"` for a line of text.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use inosec_enrich::{Engine, Parsed, Placeholders, RuleId};
use inosec_ingest::Limits;
use inosec_schemas::{Catalog, EventClass};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Error, Evaluator, load, logsource};
use crate::event_file::Lines;

/// Of each sort a rule has at least so many.
const LEAST: usize = 2;
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

/// The folder that holds `detection` and `fixtures`, and the rules of it that are meant by `path`: the
/// folder itself, its `detection`, or something in there.
fn pack_of(path: &Path) -> Result<(PathBuf, PathBuf), Error> {
    let whole = |root: &Path| root.join("detection").is_dir().then(|| root.join("detection"));
    std::fs::metadata(path).map_err(Error::path(path))?;
    for (root, rules) in [(path.to_owned(), whole(path)), (path.join("rules"), whole(&path.join("rules")))] {
        if let Some(rules) = rules {
            return Ok((root, rules));
        }
    }
    let detection =
        path.ancestors().find(|ancestor| ancestor.file_name().is_some_and(|name| name == "detection"));
    let root = detection.and_then(Path::parent).ok_or_else(|| Error::NoPack(path.to_owned()))?;
    Ok((root.to_owned(), path.to_owned()))
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
    let (root, rules) = pack_of(path)?;
    let parsed = load(&[rules], placeholders)?;
    let mut report = Report { rules: parsed.rules.len(), ..Report::default() };
    for problem in &parsed.problems {
        let (file, line) = (problem.file.clone(), problem.line);
        let (rule, message) = (problem.rule.clone(), problem.message.clone());
        report.failures.push(Failure { file, line, rule, message });
    }
    report.one_rule_a_file(&parsed);
    let classes = catalog.classes();
    let engine = Arc::new(Engine::new(parsed.rules, Vec::new(), &classes)?);
    let classes = engine.class_fields().classes.into_iter().map(|(class, _)| class).collect();
    let mut tester =
        Tester { root, classes, evaluator: Evaluator::new(Arc::clone(&engine), catalog, limits), report };
    for rule in (0..).map(RuleId).take(engine.rules().len()) {
        tester.rule(rule);
    }
    Ok(tester.report)
}

impl Report {
    fn one_rule_a_file(&mut self, parsed: &Parsed) {
        for pair in parsed.rules.windows(2) {
            if pair[0].origin.0 == pair[1].origin.0 {
                let (file, line) = pair[1].origin.clone();
                let message =
                    "a second rule in the file: fixtures belong to a file, give it its own".to_owned();
                self.failures.push(Failure { file, line, rule: Some(pair[1].id.clone()), message });
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
        let (origin, id) = (PathBuf::from(&rule.origin.0), rule.id.clone());
        // Detection's own folder is the beginning of every rule's path.
        let below = origin.strip_prefix(self.root.join("detection")).unwrap_or(&origin);
        let path = self.root.join("fixtures").join(below).with_extension("ndjson");
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
