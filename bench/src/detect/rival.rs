//! rsigma-eval 0.23, the fastest open engine we know (feature `rsigma`).
//!
//! It is given what it likes best: flat events, so that a field is one look-up; the event's logsource
//! resolved beforehand (`evaluate_pruned`), which spares it extraction; match details and whole events
//! in results left off, as is its default; the Bloom and cross-rule filters left off too, which its
//! documentation advises against for mixed events.

use std::collections::HashSet;

use inosec_enrich::{Engine as OurEngine, Rule};
use inosec_schemas::EventClass;
use rsigma_eval::{Engine, EvaluationResult, JsonEvent};
use rsigma_parser::{LogSource, SigmaCollection, SigmaRule, parse_sigma_yaml};
use serde_json::Value;

use super::events::Group;
use super::rules::RuleText;
use crate::error::{At, Error, Result};

/// What reports call it.
pub const NAME: &str = "rsigma-eval 0.23.0";

/// How the rival chooses rules for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// As it ships: one engine of all rules; a rule runs unless its logsource contradicts the event's.
    Shipped,
    /// As inosec does: an engine per class, of the rules whose logsource the class meets in full.
    Strict,
}

/// Its engines.
pub struct Rival {
    routed: Engine,
    sources: Vec<LogSource>,
    strict: Vec<Option<Engine>>,
    values: Vec<Value>,
    results: Vec<EvaluationResult>,
}

/// The rules that both engines have.
fn shared(texts: &[RuleText], ours: &[Rule]) -> Result<SigmaCollection> {
    let ids: HashSet<&str> = ours.iter().map(|rule| rule.id.as_str()).collect();
    let mut all = SigmaCollection::new();
    for text in texts {
        let parsed = parse_sigma_yaml(&text.yaml).at(format!("rsigma reading {}", text.path))?;
        all.rules.extend(parsed.rules.into_iter().filter(|rule| ids.contains(id(rule))));
    }
    Ok(all)
}

fn id(rule: &SigmaRule) -> &str {
    rule.id.as_deref().unwrap_or(&rule.title)
}

/// One engine of all rules.
pub fn engine(texts: &[RuleText], ours: &[Rule]) -> Result<Engine> {
    compile(&shared(texts, ours)?.rules.iter().collect::<Vec<_>>())
}

fn compile(rules: &[&SigmaRule]) -> Result<Engine> {
    let mut engine = Engine::new();
    match engine.add_rules(rules.iter().copied()).first() {
        None => Ok(engine),
        Some((index, error)) => Err(Error::new(format!("rsigma refuses {}: {error}", id(rules[*index])))),
    }
}

impl Rival {
    /// Compiles the rules; the strict engines only for classes that have events.
    pub fn new(
        texts: &[RuleText],
        ours: &OurEngine,
        classes: &[EventClass],
        present: impl Fn(u32) -> bool,
    ) -> Result<Self> {
        let all = shared(texts, ours.rules())?;
        let admitted = |class: &EventClass| {
            let rules = all.rules.iter().filter(|rule| {
                let known = ours.find_rule(id(rule)).map(|rule| ours.rule(rule));
                known.is_some_and(|rule| rule.logsource.admits(class))
            });
            compile(&rules.collect::<Vec<_>>())
        };
        let strict: Result<Vec<_>> = (0..)
            .zip(classes)
            .map(|(number, class)| present(number).then(|| admitted(class)).transpose())
            .collect();
        Ok(Self {
            routed: compile(&all.rules.iter().collect::<Vec<_>>())?,
            sources: classes.iter().map(source).collect(),
            strict: strict?,
            values: Vec::new(),
            results: Vec::new(),
        })
    }

    /// Matches a group; `clock` times what it is given to do. With `parse` that is everything from the
    /// flat JSON's bytes on, event by event, else matching alone.
    pub fn run(
        &mut self,
        group: &Group,
        routing: Routing,
        parse: bool,
        clock: &mut dyn FnMut(&mut dyn FnMut()),
    ) -> Result<Vec<(usize, String)>> {
        let Self { routed, sources, strict, values, results } = self;
        let class = group.class as usize;
        let strict = strict[class].as_ref();
        let evaluate = |event: &Value| {
            let event = JsonEvent::borrow(event);
            match (routing, strict) {
                (Routing::Shipped, _) => routed.evaluate_pruned(&event, &sources[class]),
                (Routing::Strict, Some(engine)) => engine.evaluate(&event),
                (Routing::Strict, None) => Vec::new(),
            }
        };
        values.clear();
        results.clear();
        let mut failed = None;
        // (results so far, place): whose each result is.
        let mut ends = Vec::with_capacity(group.flat.len());
        if parse {
            clock(&mut || {
                for text in &group.flat {
                    match serde_json::from_str(text) {
                        Ok(value) => results.extend(evaluate(&value)),
                        Err(error) => failed = Some(error),
                    }
                    ends.push(results.len());
                }
            });
        } else {
            for text in &group.flat {
                values.push(serde_json::from_str(text).at("parsing an event")?);
            }
            clock(&mut || {
                for value in &*values {
                    results.extend(evaluate(value));
                    ends.push(results.len());
                }
            });
        }
        if let Some(error) = failed {
            return Err(error).at("parsing an event");
        }
        let mut hits = Vec::with_capacity(results.len());
        for (index, result) in results.iter().enumerate() {
            let event = ends.partition_point(|end| *end <= index);
            let header = &result.header;
            let id = header.rule_id.clone().unwrap_or_else(|| header.rule_title.clone());
            hits.push((group.places[event], id));
        }
        Ok(hits)
    }
}

/// The class as one product, category and service. It has no word for several: the first is taken, so
/// that it has less to do.
fn source(class: &EventClass) -> LogSource {
    LogSource {
        product: class.product.clone(),
        category: class.categories.first().cloned(),
        service: class.services.first().cloned(),
        ..LogSource::default()
    }
}
