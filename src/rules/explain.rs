//! Why a rule matches an event or doesn't: its selections, and the parts of each, run by themselves.

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use inosec_enrich::sigma::{
    Atom, Comparison, Condition, Detection, Expr, NamedSelection, Network, Number, Part, Test,
};
use inosec_enrich::{Engine, Filter, Rule, RuleId};
use inosec_ingest::Limits;
use inosec_schemas::{Catalog, Columns, Value};
use serde_json::json;

use super::{Error, Evaluator, logsource};
use crate::event_file::Lines;

/// More of a value, or more tests, tell nothing.
const SHOWN_CHARACTERS: usize = 160;
const SHOWN_TESTS: usize = 3;

/// One rule taken apart.
#[derive(Debug)]
pub struct Explainer {
    rule: Rule,
    /// By number in the engine, the rule itself being 0.
    pieces: Vec<Piece>,
    evaluator: Evaluator,
    classes: Vec<String>,
}

/// A piece of the rule, run as a rule of its own.
#[derive(Debug)]
struct Piece {
    kind: Kind,
    name: String,
    fields: Vec<String>,
    asks: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rule,
    Selection,
    /// Of the selection before it.
    Part,
    /// A filter document, which must hold too.
    Filter,
}

/// What became of one event.
#[derive(Debug)]
pub struct Explanation<'a> {
    rule: &'a Rule,
    verdict: Verdict,
    class: Option<&'a str>,
    pieces: Vec<Shown<'a>>,
}

/// The verdict on an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The rule matches.
    Match,
    /// It runs, and doesn't.
    NoMatch,
    /// Its log source is another.
    OtherLog,
    /// No log source is known for events of this format, or of this kind within it.
    Unclassified(String),
    /// It is no event.
    Unreadable(String),
}

/// A piece and what it found.
#[derive(Debug)]
struct Shown<'a> {
    piece: &'a Piece,
    holds: bool,
    /// By field; none is a field the event doesn't have.
    values: Vec<(&'a str, Vec<String>)>,
}

impl Explainer {
    /// Takes a rule apart.
    ///
    /// # Errors
    /// If it can't be compiled.
    pub fn new(rule: &Rule, filters: &[Filter], catalog: &Catalog, limits: Limits) -> Result<Self, Error> {
        let mut rules = vec![rule.clone()];
        let mut pieces = vec![Piece::new(Kind::Rule, &rule.title, &rule.detection.expr())];
        for selection in &rule.detection.selections {
            rules.push(alone(rule, &selection.expr));
            pieces.push(Piece::new(Kind::Selection, &selection.name, &selection.expr));
            let parts = match &selection.expr {
                Expr::And(parts) => parts.as_slice(),
                whole => std::slice::from_ref(whole),
            };
            for part in parts {
                rules.push(alone(rule, part));
                pieces.push(Piece::new(Kind::Part, "", part));
            }
        }
        for filter in filters.iter().filter(|filter| filter.is_for(rule)) {
            rules.push(Rule { detection: filter.detection.clone(), ..rule.clone() });
            pieces.push(Piece::new(Kind::Filter, &filter.title, &filter.detection.expr()));
        }
        let classes = catalog.classes();
        let engine = Arc::new(Engine::new(rules, Vec::new(), &classes)?);
        Ok(Self {
            rule: rule.clone(),
            pieces,
            classes: engine.class_fields().classes.iter().map(|(class, _)| class.to_string()).collect(),
            evaluator: Evaluator::new(engine, catalog, limits),
        })
    }

    /// Explains one event.
    pub fn explain(&mut self, line: &[u8]) -> Explanation<'_> {
        let mut lines = Lines::default();
        lines.push(line, 1);
        let extracted = self.evaluator.extract(&lines);
        let rule = &self.rule;
        let bare = |verdict, class| Explanation { rule, verdict, class, pieces: Vec::new() };
        if let Some((_, detail)) = extracted.unreadable.first() {
            return bare(Verdict::Unreadable(detail.clone()), None);
        }
        let Some((class, rows)) = extracted.classes.first_key_value() else {
            let format = extracted.unclassified.keys().next().cloned().unwrap_or_default();
            return bare(Verdict::Unclassified(format), None);
        };
        let class = inosec_enrich::ClassId(*class);
        let name = self.classes.get(class.0 as usize).map(String::as_str);
        if self.evaluator.engine().rules_of(class) == 0 {
            return bare(Verdict::OtherLog, name);
        }
        let held: Vec<RuleId> =
            self.evaluator.matched(&extracted).into_iter().map(|(_, piece)| piece).collect();
        let engine = self.evaluator.engine();
        let columns = extracted.fill(rows, Columns::new(engine.fields().len()));
        let mut shown = Vec::new();
        for (number, piece) in (0..).map(RuleId).zip(&self.pieces) {
            let values = piece.fields.iter().map(|field| (field.as_str(), values(engine, &columns, field)));
            shown.push(Shown { piece, holds: held.contains(&number), values: values.collect() });
        }
        let filtered = shown.iter().any(|shown| shown.piece.kind == Kind::Filter && !shown.holds);
        let verdict = if shown[0].holds && !filtered { Verdict::Match } else { Verdict::NoMatch };
        Explanation { rule, verdict, class: name, pieces: shown }
    }
}

/// The rule with another detection.
fn alone(rule: &Rule, expr: &Expr) -> Rule {
    let selections = vec![NamedSelection { name: String::new(), expr: expr.clone() }];
    Rule { detection: Detection { selections, condition: Condition::Selection(0) }, ..rule.clone() }
}

impl Piece {
    fn new(kind: Kind, name: &str, expr: &Expr) -> Self {
        let (mut fields, mut asked) = (Vec::new(), Vec::new());
        expr.each_atom(&mut |Atom { field, test }| {
            if let Some(field) = field
                && !fields.contains(field)
            {
                fields.push(field.clone());
            }
            asked.push(asks(test));
        });
        let more = asked.len().saturating_sub(SHOWN_TESTS);
        asked.truncate(SHOWN_TESTS);
        let mut asks = asked.join(", ");
        if more > 0 {
            let _ = write!(asks, " and {more} more");
        }
        Self { kind, name: name.to_owned(), fields, asks }
    }
}

/// A test, roughly as rules write it.
fn asks(test: &Test) -> String {
    match test {
        Test::Text { pattern, .. } => {
            let part = |part: &Part| match part {
                Part::Literal(text) => text.clone(),
                Part::Any => "*".to_owned(),
                Part::One => "?".to_owned(),
            };
            shortened(&pattern.parts().iter().map(part).collect::<String>())
        }
        Test::Regex(source) => shortened(&format!("/{source}/")),
        Test::Number(wanted) => number(*wanted),
        Test::Compare(comparison, with) => format!("{} {}", sign(*comparison), number(*with)),
        Test::Time(part, comparison, with) => format!("{part:?} {} {}", sign(*comparison), number(*with)),
        Test::Network(Network::V4(address, mask)) => {
            format!("{}/{}", Ipv4Addr::from_bits(*address), mask.count_ones())
        }
        Test::Network(Network::V6(address, mask)) => {
            format!("{}/{}", Ipv6Addr::from_bits(*address), mask.count_ones())
        }
        Test::Field { other, before, after, .. } => {
            let any = |any: bool| if any { "*" } else { "" };
            format!("{}(what {other} holds){}", any(*before), any(*after))
        }
        Test::Exists => "that it exists".to_owned(),
        Test::IsNull => "null".to_owned(),
    }
}

fn number(number: Number) -> String {
    match number {
        Number::Int(number) => number.to_string(),
        Number::Float(number) => number.to_string(),
    }
}

fn sign(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
        Comparison::Equal => "=",
    }
}

/// What the one event has in a field.
fn values(engine: &Engine, columns: &Columns<'_>, field: &str) -> Vec<String> {
    let cells = engine.fields().get(field).map(|field| columns.cells(field, 0)).unwrap_or_default();
    let value = |value| match value {
        Value::Text(text) => format!("{:?}", shortened(text)),
        Value::Null => "null".to_owned(),
        Value::Other => "an object or an empty array".to_owned(),
    };
    cells.iter().map(|cell| value(cell.value)).collect()
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A condition with the names of its selections, quantifiers written out.
fn condition(detection: &Detection) -> String {
    fn write(detection: &Detection, condition: &Condition, nested: bool, text: &mut String) {
        let (parts, word) = match condition {
            Condition::Selection(index) => return text.push_str(&detection.selections[*index].name),
            Condition::Not(part) => {
                text.push_str("not ");
                return write(detection, part, true, text);
            }
            Condition::And(parts) => (parts, " and "),
            Condition::Or(parts) => (parts, " or "),
        };
        text.push_str(if nested { "(" } else { "" });
        for (index, part) in parts.iter().enumerate() {
            text.push_str(if index > 0 { word } else { "" });
            write(detection, part, true, text);
        }
        text.push_str(if nested { ")" } else { "" });
    }
    let mut text = String::new();
    write(detection, &detection.condition, false, &mut text);
    text
}

impl Verdict {
    fn name(&self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::NoMatch => "no match",
            Self::OtherLog => "other log",
            Self::Unclassified(_) => "not classified",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

impl Explanation<'_> {
    /// The verdict.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Why, where the rule did not run at all.
    fn reason(&self) -> Option<String> {
        match &self.verdict {
            Verdict::Match | Verdict::NoMatch => None,
            Verdict::OtherLog => {
                let (wanted, class) = (logsource(&self.rule.logsource), self.class.unwrap_or("-"));
                Some(format!("the rule is for {wanted}, the event is of {class}"))
            }
            Verdict::Unclassified(format) => {
                Some(format!("an event of format {format} without a log source: no rule runs on it"))
            }
            Verdict::Unreadable(detail) => Some(detail.clone()),
        }
    }

    /// The whole as JSON, the event's place added.
    #[must_use]
    pub fn to_json(&self, file: &str, line: u64) -> serde_json::Value {
        let piece = |shown: &Shown<'_>| {
            let values: serde_json::Map<_, _> =
                shown.values.iter().map(|(field, values)| ((*field).to_owned(), json!(values))).collect();
            json!({ "holds": shown.holds, "asks": shown.piece.asks, "values": values })
        };
        let mut selections: Vec<serde_json::Value> = Vec::new();
        let mut filters = Vec::new();
        for shown in &self.pieces {
            let named = json!({ "name": shown.piece.name, "holds": shown.holds, "parts": [] });
            match shown.piece.kind {
                Kind::Rule => {}
                Kind::Selection => selections.push(named),
                Kind::Filter => filters.push(json!({ "name": shown.piece.name, "holds": shown.holds })),
                Kind::Part => {
                    let parts = selections.last_mut().and_then(|last| last["parts"].as_array_mut());
                    parts.into_iter().for_each(|parts| parts.push(piece(shown)));
                }
            }
        }
        json!({
            "file": file,
            "line": line,
            "rule_id": self.rule.id,
            "title": self.rule.title,
            "verdict": self.verdict.name(),
            "reason": self.reason(),
            "class": self.class,
            "condition": condition(&self.rule.detection),
            "selections": selections,
            "filters": filters,
        })
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.verdict.name(), self.rule.title, self.rule.id)?;
        if let Some(reason) = self.reason() {
            return write!(f, "\n  {reason}");
        }
        write!(f, "\n  class      {}", self.class.unwrap_or("-"))?;
        write!(f, "\n  condition  {}", condition(&self.rule.detection))?;
        for Shown { piece, holds, values } in &self.pieces {
            let holds = if *holds { "yes" } else { "no " };
            match piece.kind {
                Kind::Rule => continue,
                Kind::Selection => write!(f, "\n  {holds}  {}", piece.name)?,
                Kind::Filter => write!(f, "\n  {holds}  filter {}", piece.name)?,
                Kind::Part => {
                    write!(f, "\n       {holds}  ")?;
                    for (index, (field, values)) in values.iter().enumerate() {
                        let values = if values.is_empty() {
                            "absent".to_owned()
                        } else {
                            format!("= {}", values.join(", "))
                        };
                        write!(f, "{}{field} {values}", if index > 0 { "; " } else { "" })?;
                    }
                    if values.is_empty() {
                        f.write_str("any field")?;
                    }
                    write!(f, "\n            asks {}", piece.asks)?;
                }
            }
        }
        Ok(())
    }
}
