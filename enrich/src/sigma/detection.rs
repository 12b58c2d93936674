//! The `detection` section (and a filter's, which is written alike): YAML in, selections and a
//! condition out.

use super::condition::Condition;
use super::expr::Expr;
use super::modifier::{Key, Placeholders};
use super::yaml::{Fault, Node, Yaml};

/// How many tests a rule may have, a selection counted as often as its condition mentions it.
const MAX_TESTS: usize = 200_000;

/// A named part of a detection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSelection {
    /// Its name in the condition.
    pub name: String,
    /// What it asks.
    pub expr: Expr,
}

/// What a rule looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detection {
    /// Its selections in the order they are written.
    pub selections: Vec<NamedSelection>,
    /// How they are joined.
    pub condition: Condition,
}

impl Detection {
    /// Reads the section; the keys in `besides` are not selections.
    pub fn parse(node: &Node, besides: &[&str], placeholders: &Placeholders) -> Result<Self, Fault> {
        if node.get("condition").is_none() && matches!(node.value, Yaml::Map(_)) {
            return Err(Fault::new(node.line, "there is no condition: add `condition: selection`"));
        }
        Self::read(node, besides, placeholders)
    }

    /// Reads what a rule shall not fire on: what matches the condition, or without one any selection.
    pub fn parse_exception(node: &Node, placeholders: &Placeholders) -> Result<Self, Fault> {
        let excepted = Self::read(node, &[], placeholders)?;
        Ok(Self { condition: Condition::Not(Box::new(excepted.condition)), ..excepted })
    }

    fn read(node: &Node, besides: &[&str], placeholders: &Placeholders) -> Result<Self, Fault> {
        let Yaml::Map(entries) = &node.value else {
            return Err(Fault::new(node.line, "a detection is a mapping of selections and a condition"));
        };
        let mut selections = Vec::new();
        for (key, value) in entries {
            let Some(name) = key.text() else {
                return Err(Fault::new(key.line, "a selection's name is a text"));
            };
            if name == "condition" || besides.contains(&name) {
                continue;
            }
            selections.push(NamedSelection { name: name.to_owned(), expr: selection(value, placeholders)? });
        }
        if selections.is_empty() {
            return Err(Fault::new(node.line, "there is no selection: add one"));
        }
        let condition = match node.get("condition") {
            Some(condition) => conditions(condition, &selections)?,
            None => Condition::Or((0..selections.len()).map(Condition::Selection).collect()),
        };
        let sizes: Vec<usize> = selections.iter().map(|selection| selection.expr.tests()).collect();
        let mut tests = 0;
        condition.each_selection(&mut |index| tests += sizes[index]);
        if tests > MAX_TESTS {
            return Err(Fault::new(node.line, format!("more than {MAX_TESTS} tests: split the rule")));
        }
        Ok(Self { selections, condition })
    }

    /// The whole as one expression.
    pub fn expr(&self) -> Expr {
        self.resolve(&self.condition)
    }

    fn resolve(&self, condition: &Condition) -> Expr {
        match condition {
            Condition::And(parts) => Expr::and(parts.iter().map(|part| self.resolve(part)).collect()),
            Condition::Or(parts) => Expr::or(parts.iter().map(|part| self.resolve(part)).collect()),
            Condition::Not(part) => self.resolve(part).negated(),
            Condition::Selection(index) => self.selections[*index].expr.clone(),
        }
    }
}

/// A condition, or a list of them of which one suffices.
fn conditions(node: &Node, selections: &[NamedSelection]) -> Result<Condition, Fault> {
    let names: Vec<String> = selections.iter().map(|selection| selection.name.clone()).collect();
    let texts: Vec<(&str, usize)> = match &node.value {
        Yaml::List(items) => items.iter().filter_map(|item| Some((item.text()?, item.line))).collect(),
        _ => node.text().map(|text| (text, node.line)).into_iter().collect(),
    };
    let mut parts = Vec::with_capacity(texts.len());
    for (text, line) in texts {
        parts.push(Condition::parse(text, &names, line)?);
    }
    match parts.len() {
        0 => Err(Fault::new(node.line, "a condition is a text, or a list of texts")),
        1 => Ok(parts.remove(0)),
        _ => Ok(Condition::Or(parts)),
    }
}

/// A mapping (all items), a list (any entry) or a keyword.
fn selection(node: &Node, placeholders: &Placeholders) -> Result<Expr, Fault> {
    match &node.value {
        Yaml::Map(entries) => {
            let mut parts = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                let Some(name) = key.text() else {
                    return Err(Fault::new(key.line, "a field's name is a text"));
                };
                parts.push(Key::parse(name, key.line, placeholders)?.expr(value)?);
            }
            if parts.is_empty() {
                return Err(Fault::new(node.line, "an empty selection matches everything: name a field"));
            }
            Ok(Expr::and(parts))
        }
        Yaml::List(entries) => {
            let mut parts = Vec::with_capacity(entries.len());
            for entry in entries {
                parts.push(selection(entry, placeholders)?);
            }
            if parts.is_empty() {
                return Err(Fault::new(node.line, "an empty list matches nothing: give it an entry"));
            }
            Ok(Expr::or(parts))
        }
        _ => Key::keyword(node.line, placeholders).expr(node),
    }
}
