//! The `correlation` section of a rule file: YAML in, a [`Correlation`] out, its references not looked
//! up yet (Sigma correlation rules specification 2.1.0).

use super::decimal;
use super::rule::{Alias, Condition, Correlation, Kind, Operator};
use crate::sigma::rule::{field, fields, level, title};
use crate::sigma::yaml::{Fault, Node, Yaml};

/// Rules one correlation may refer to.
const MOST_RULES: usize = 100;
/// Fields a correlation may group by.
const MOST_FIELDS: usize = 16;
/// A count beyond this is a mistake: the state of a tenant ends long before.
const MOST_EVENTS: usize = 1_000_000;
const SECOND: i64 = 1_000_000;
/// A year as Sigma counts it is the longest window.
const LONGEST: i64 = 31_556_952 * SECOND;
const KEYS: [&str; 8] =
    ["type", "rules", "group-by", "timespan", "condition", "aliases", "field", "generate"];

impl Correlation {
    /// Reads a document whose `correlation` is `section`.
    pub(crate) fn parse(file: &str, node: &Node, section: &Node) -> Result<Self, Fault> {
        let title = title(node)?;
        known_keys(section)?;
        let kind = kind(section)?;
        let rules = rules(section, kind)?;
        let (condition, values, percentile) = condition(section, kind, rules.len())?;
        Ok(Self {
            id: field(node, "id").unwrap_or_else(|| title.clone()),
            has_id: field(node, "id").is_some(),
            title,
            name: field(node, "name"),
            author: field(node, "author"),
            description: field(node, "description"),
            status: field(node, "status"),
            revision: field(node, "modified").or_else(|| field(node, "date")),
            level: level(node)?,
            tags: fields(node, "tags"),
            fields: fields(node, "fields"),
            falsepositives: fields(node, "falsepositives"),
            kind: percentile.map_or(kind, Kind::ValuePercentile),
            rules,
            group_by: group_by(section)?,
            aliases: aliases(section)?,
            timespan: timespan(section)?,
            values,
            condition,
            generate: generate(node)? | generate(section)?,
            origin: (file.to_owned(), node.line),
        })
    }
}

/// A misspelt key would otherwise change what a rule means without a word.
fn known_keys(section: &Node) -> Result<(), Fault> {
    let Yaml::Map(entries) = &section.value else {
        return Err(Fault::new(section.line, "a correlation is a mapping: start with `type:`"));
    };
    for (key, _) in entries {
        let name = key.text().unwrap_or_default();
        if !KEYS.contains(&name) {
            let message = format!("`{name}` is no part of a correlation: it has {}", KEYS.join(", "));
            return Err(Fault::new(key.line, message));
        }
    }
    Ok(())
}

fn kind(section: &Node) -> Result<Kind, Fault> {
    let node = section.get("type");
    match node.and_then(Node::text).unwrap_or_default() {
        "event_count" => Ok(Kind::EventCount),
        "value_count" => Ok(Kind::ValueCount),
        "temporal" => Ok(Kind::Temporal),
        "temporal_ordered" => Ok(Kind::TemporalOrdered),
        "value_sum" => Ok(Kind::ValueSum),
        "value_avg" => Ok(Kind::ValueAvg),
        "value_percentile" => Ok(Kind::ValuePercentile(0)),
        _ => {
            let message = "the type is event_count, value_count, temporal, temporal_ordered, value_sum, \
                           value_avg or value_percentile";
            Err(Fault::new(node.map_or(section.line, |node| node.line), message))
        }
    }
}

fn rules(section: &Node, kind: Kind) -> Result<Vec<String>, Fault> {
    let Some(node) = section.get("rules") else {
        return Err(Fault::new(section.line, "it refers to no rules: add `rules:` with their ids or names"));
    };
    let rules = texts(node, "rules", MOST_RULES)?;
    if rules.is_empty() {
        return Err(Fault::new(node.line, "it refers to no rules: list their ids or names"));
    }
    if matches!(kind, Kind::Temporal | Kind::TemporalOrdered) && rules.len() < 2 {
        let message = format!("{} takes two rules or more: add one, or count events", kind.name());
        return Err(Fault::new(node.line, message));
    }
    Ok(rules)
}

fn group_by(section: &Node) -> Result<Vec<String>, Fault> {
    section.get("group-by").map_or_else(|| Ok(Vec::new()), |node| texts(node, "group-by", MOST_FIELDS))
}

/// A text or a list of different texts.
fn texts(node: &Node, what: &str, most: usize) -> Result<Vec<String>, Fault> {
    if let Yaml::Map(_) = node.value {
        return Err(Fault::new(node.line, format!("`{what}` is a list of texts")));
    }
    let texts = node.texts();
    if let Yaml::List(items) = &node.value
        && items.len() != texts.len()
    {
        return Err(Fault::new(node.line, format!("`{what}` is a list of texts")));
    }
    if texts.len() > most {
        return Err(Fault::new(node.line, format!("`{what}` has more than {most} entries: split the rule")));
    }
    for (index, text) in texts.iter().enumerate() {
        if texts[..index].contains(text) {
            return Err(Fault::new(node.line, format!("`{what}` has `{text}` twice: remove one")));
        }
    }
    Ok(texts)
}

fn timespan(section: &Node) -> Result<i64, Fault> {
    let Some(node) = section.get("timespan") else {
        return Err(Fault::new(section.line, "there is no timespan: add one such as `timespan: 5m`"));
    };
    let fault = |message: &str| Err(Fault::new(node.line, message));
    let text = node.text().unwrap_or_default();
    let split = text.find(|each: char| !each.is_ascii_digit()).unwrap_or(text.len());
    // Months and years as pySigma counts them: a mean month, a mean Gregorian year.
    let unit = match &text[split..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        "M" => 2_629_746,
        "y" => 31_556_952,
        _ => return fault("a timespan is a whole number and s, m, h, d, w, M or y: such as `90m`"),
    };
    let Some(number) = text[..split].parse::<i64>().ok().filter(|number| *number > 0) else {
        return fault("a timespan is a whole number above zero and a unit: such as `90m`");
    };
    match number.checked_mul(unit * SECOND) {
        Some(timespan) if timespan <= LONGEST => Ok(timespan),
        _ => fault("the timespan is longer than a year: shorten it"),
    }
}

/// The comparisons, the measured fields and, for percentiles, which one.
fn condition(
    section: &Node,
    kind: Kind,
    rules: usize,
) -> Result<(Condition, Vec<String>, Option<i64>), Fault> {
    let Some(node) = section.get("condition") else {
        let all =
            Condition(vec![(Operator::Gte, decimal::from_number(crate::sigma::Number::Int(rules as i128)))]);
        return match kind {
            Kind::Temporal | Kind::TemporalOrdered => Ok((all, Vec::new(), None)),
            _ => {
                Err(Fault::new(section.line, "there is no condition: add one such as `condition: {gte: 10}`"))
            }
        };
    };
    let Yaml::Map(entries) = &node.value else {
        let message = "a condition is a mapping of comparisons, such as `gte: 10`; to combine rules, chain correlations";
        return Err(Fault::new(node.line, message));
    };
    let (mut comparisons, mut values, mut percentile) = (Vec::new(), Vec::new(), None);
    for (key, value) in entries {
        let name = key.text().unwrap_or_default();
        match (name, Operator::parse(name)) {
            (_, Some(operator)) => comparisons.push((operator, threshold(value, kind)?)),
            ("field", _) => values = texts(value, "field", MOST_FIELDS)?,
            ("percentile", _) => percentile = Some(percent(value, kind)?),
            _ => {
                let message = format!("`{name}` is no comparison: use gt, gte, lt, lte, eq or neq");
                return Err(Fault::new(key.line, message));
            }
        }
    }
    if let Some(field) = section.get("field") {
        values = texts(field, "field", MOST_FIELDS)?;
    }
    let condition = Condition(comparisons);
    sensible(&condition, node, kind, rules)?;
    measured(&values, node, kind)?;
    if matches!(kind, Kind::ValuePercentile(_)) && percentile.is_none() {
        return Err(Fault::new(node.line, "which percentile is missing: add one such as `percentile: 95`"));
    }
    Ok((condition, values, percentile))
}

fn threshold(node: &Node, kind: Kind) -> Result<i64, Fault> {
    let Yaml::Number(number, _) = node.value else {
        return Err(Fault::new(node.line, "a comparison takes a number"));
    };
    let value = decimal::from_number(number);
    if !kind.is_numeric() && i128::from(value) % decimal::ONE != 0 {
        return Err(Fault::new(node.line, "a count is compared with a whole number"));
    }
    if value == i64::MAX || value == i64::MIN {
        return Err(Fault::new(node.line, "the number is too large: 9 million million is the most"));
    }
    Ok(value)
}

fn percent(node: &Node, kind: Kind) -> Result<i64, Fault> {
    let value = match node.value {
        Yaml::Number(number, _) => decimal::from_number(number),
        _ => 0,
    };
    if !matches!(kind, Kind::ValuePercentile(_)) {
        return Err(Fault::new(node.line, "only value_percentile takes a percentile: remove it"));
    }
    if value <= 0 || i128::from(value) > 100 * decimal::ONE {
        return Err(Fault::new(node.line, "the percentile is above 0 and at most 100"));
    }
    Ok(value)
}

/// A condition that can't hold, or holds of any event, is a mistake.
fn sensible(condition: &Condition, node: &Node, kind: Kind, rules: usize) -> Result<(), Fault> {
    let fault = |message: String| Err(Fault::new(node.line, message));
    if condition.0.is_empty() {
        return fault("the condition compares nothing: add a comparison such as `gte: 10`".to_owned());
    }
    if kind.is_numeric() {
        return Ok(());
    }
    let most = if matches!(kind, Kind::Temporal | Kind::TemporalOrdered) { rules } else { MOST_EVENTS };
    if condition.least_count(most).is_none() {
        return fault(format!("no count from 1 to {most} meets the condition: change it"));
    }
    if condition.only_bounds_below() && condition.holds(0, 1) {
        return fault("the condition holds of nothing at all: ask for one at least".to_owned());
    }
    Ok(())
}

fn measured(values: &[String], node: &Node, kind: Kind) -> Result<(), Fault> {
    let fault = |message: String| Err(Fault::new(node.line, message));
    let name = kind.name();
    match (kind.takes_field(), values.len()) {
        (true, 0) => fault(format!("{name} needs a field: add `field:` to the condition")),
        (false, 1..) => fault(format!("{name} looks at no field: remove `field:`")),
        (_, 2..) if kind != Kind::ValueCount => fault(format!("{name} takes one field")),
        _ => Ok(()),
    }
}

fn aliases(section: &Node) -> Result<Vec<Alias>, Fault> {
    let Some(node) = section.get("aliases") else { return Ok(Vec::new()) };
    let shape = "aliases are a mapping of names to mappings of rules to fields";
    let Yaml::Map(entries) = &node.value else { return Err(Fault::new(node.line, shape)) };
    let mut aliases = Vec::new();
    for (key, value) in entries {
        let (Some(name), Yaml::Map(pairs)) = (key.text(), &value.value) else {
            return Err(Fault::new(key.line, shape));
        };
        let mut fields = Vec::new();
        for (rule, field) in pairs {
            let (Some(rule), Some(field)) = (rule.text(), field.text()) else {
                return Err(Fault::new(rule.line, shape));
            };
            fields.push((rule.to_owned(), field.to_owned()));
        }
        aliases.push(Alias { name: name.to_owned(), fields });
    }
    Ok(aliases)
}

/// Sigma 2.0 has it beside the section, later versions within.
fn generate(node: &Node) -> Result<bool, Fault> {
    match node.get("generate") {
        None => Ok(false),
        Some(Node { value: Yaml::Bool(value), .. }) => Ok(*value),
        Some(node) => Err(Fault::new(node.line, "generate is true or false")),
    }
}
