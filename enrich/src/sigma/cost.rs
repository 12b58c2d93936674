//! What a rule costs at run time, where that is more than it need be.

use std::fmt;

use super::compile::prepared;
use super::expr::Test;
use super::pattern::Shape;
use super::regexes;
use super::rule::Rule;
use super::witness::{frequency, witness};

/// A witness that passes so often makes the rule one that is looked at on most events.
const OFTEN: f64 = 0.4;

/// A reason why a rule is dear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cost {
    /// It can match an event in which none of its tests passes: its condition is decided on every event.
    EveryEvent,
    /// What it needs is there in most events.
    MostEvents,
    /// The regular expression needs no text of three characters, so it runs on every value of the field.
    Regex(String),
    /// The wildcards need no text, so they are tried on every value of the field.
    Wildcards(String),
}

impl fmt::Display for Cost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EveryEvent => formatter
                .write_str("decided on every event: add a selection that must match, such as an EventID"),
            Self::MostEvents => formatter.write_str("decided on most events: ask for a longer or rarer text"),
            Self::Regex(field) => {
                write!(
                    formatter,
                    "a regular expression runs on every value of {field}: give it a fixed text of three characters"
                )
            }
            Self::Wildcards(field) => {
                write!(formatter, "wildcards are tried on every value of {field}: give them a fixed text")
            }
        }
    }
}

/// Why the rule is dear; nothing for nearly all rules.
#[must_use]
pub fn costs(rule: &Rule) -> Vec<Cost> {
    let expr = prepared(rule.detection.expr());
    let mut costs = Vec::new();
    match witness(&expr, &|atom| frequency(&atom.test, 1)) {
        None => costs.push(Cost::EveryEvent),
        Some(witness) if witness.cost > OFTEN => costs.push(Cost::MostEvents),
        Some(_) => {}
    }
    expr.each_atom(&mut |atom| {
        let field = || atom.field.clone().unwrap_or_else(|| "any field".to_owned());
        let cost = match &atom.test {
            Test::Regex(source) if regexes::required(source).is_none() => Cost::Regex(field()),
            Test::Text { pattern, .. }
                if pattern.shape() == Shape::Glob && pattern.longest_literal().is_none() =>
            {
                Cost::Wildcards(field())
            }
            _ => return,
        };
        if !costs.contains(&cost) {
            costs.push(cost);
        }
    });
    costs
}
