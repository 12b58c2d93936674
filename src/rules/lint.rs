//! What is allowed in a rule and yet likely a mistake, or dear.

use std::collections::HashSet;

use inosec_enrich::{Correlation, Engine, FilterId, Level, LogSource, Rule, costs};
use inosec_schemas::EventClass;

use super::logsource;

/// The kind of the warning that a rule never runs: there are many of a kind, so they are shown together.
pub const NEVER_RUNS: &str = "never-runs";

const NO_ID: &str = "no id, so its title stands for one: give it a UUID that never changes";

/// Something worth a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Its kind, for machines.
    pub kind: &'static str,
    /// The file.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The rule's, filter's or correlation's id.
    pub rule: String,
    /// What is odd and what to change.
    pub message: String,
}

/// Everything odd about the rules, filters and correlations, in the order they were loaded; `classes` are
/// those that events can have.
#[must_use]
pub fn lint(engine: &Engine, correlations: &[Correlation], classes: &[EventClass]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for rule in engine.rules() {
        for (kind, message) in odd(rule, classes) {
            let (file, line) = rule.origin.clone();
            warnings.push(Warning { kind, file, line, rule: rule.id.clone(), message });
        }
    }
    for (number, filter) in (0..).map(FilterId).zip(engine.filters()) {
        if engine.filtered_by(number).is_empty() {
            let (file, line) = filter.origin.clone();
            let message = "the filter is for no rule that is loaded: mind its rules and its logsource";
            let (rule, message) = (filter.id.clone(), message.to_owned());
            warnings.push(Warning { kind: "idle-filter", file, line, rule, message });
        }
    }
    warnings.extend(silenced(engine.rules(), correlations));
    for rule in correlations.iter().filter(|rule| !rule.has_id) {
        let (file, line) = rule.origin.clone();
        let (rule, message) = (rule.id.clone(), NO_ID.to_owned());
        warnings.push(Warning { kind: "no-id", file, line, rule, message });
    }
    warnings
}

/// Rules of level high and above that lose their alerts to correlations.
fn silenced<'a>(
    rules: &'a [Rule],
    correlations: &'a [Correlation],
) -> impl Iterator<Item = Warning> + use<'a> {
    let named = rules.iter().map(|rule| (&rule.id, &rule.name, rule.level, &rule.origin));
    let named = named.chain(correlations.iter().map(|rule| (&rule.id, &rule.name, rule.level, &rule.origin)));
    named.filter(|(.., level, _)| *level >= Level::High).filter_map(|(id, name, level, origin)| {
        let refers = |of: &&Correlation| of.rules.iter().any(|by| by == id || Some(by) == name.as_ref());
        let referring: Vec<&Correlation> = correlations.iter().filter(refers).collect();
        let by = &referring.first().filter(|_| !referring.iter().any(|of| of.generate))?.title;
        let level = level.name();
        let message = format!(
            "of level {level}, but without alerts of its own: `{by}` refers to it, and nothing that does says \
             `generate: true`"
        );
        let (file, line) = origin.clone();
        Some(Warning { kind: "silenced", file, line, rule: id.clone(), message })
    })
}

fn odd(rule: &Rule, classes: &[EventClass]) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if !classes.iter().any(|class| rule.logsource.admits(class)) {
        found.push((NEVER_RUNS, never_runs(&rule.logsource, classes)));
    }
    if !rule.has_id {
        found.push(("no-id", NO_ID.to_owned()));
    }
    if !rule.has_level {
        let message = "no level: medium is assumed, write how serious a match is";
        found.push(("no-level", message.to_owned()));
    }
    let mut used = HashSet::new();
    rule.detection.condition.each_selection(&mut |selection| _ = used.insert(selection));
    for (index, selection) in rule.detection.selections.iter().enumerate() {
        if !used.contains(&index) {
            let name = &selection.name;
            let message = format!("the condition doesn't mention `{name}`: use it, or remove it");
            found.push(("unused-selection", message));
        }
    }
    found.extend(costs(rule).iter().map(|cost| ("cost", cost.to_string())));
    found
}

/// Which part of a log source no event has, and what there is instead.
fn never_runs(from: &LogSource, classes: &[EventClass]) -> String {
    let beginning = format!("never runs: no supported format gives events of {}", logsource(from));
    let alone = |product: bool, category: bool, service: bool| LogSource {
        product: from.product.clone().filter(|_| product),
        category: from.category.clone().filter(|_| category),
        service: from.service.clone().filter(|_| service),
    };
    let admitted = |from: &LogSource| classes.iter().any(|class| from.admits(class));
    let known = |parts: &mut dyn Iterator<Item = &String>| {
        let mut parts: Vec<&str> = parts.map(String::as_str).collect();
        parts.sort_unstable();
        parts.dedup();
        parts.join(", ")
    };
    let product = alone(true, false, false);
    let advice = if !admitted(&product) {
        let products = known(&mut classes.iter().filter_map(|class| class.product.as_ref()));
        format!("products are {products}; another needs a format with a [sigma] section")
    } else if !admitted(&alone(true, true, false)) {
        let mut of = classes.iter().filter(|class| product.admits(class)).flat_map(|class| &class.categories);
        format!("categories there are {}", known(&mut of))
    } else if !admitted(&alone(true, false, true)) {
        let mut of = classes.iter().filter(|class| product.admits(class)).flat_map(|class| &class.services);
        format!("services there are {}", known(&mut of))
    } else {
        "its category and its service never come together: leave one out".to_owned()
    };
    format!("{beginning}; {advice}")
}
