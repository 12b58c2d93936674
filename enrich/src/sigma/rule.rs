//! Rule files in; rules, filters and named problems out. One bad rule never stops the others.

use std::fmt;

use hashbrown::HashSet;
use inosec_schemas::EventClass;
use serde::Deserialize;

use super::condition::Condition;
use super::detection::Detection;
use super::modifier::Placeholders;
use super::yaml::{self, Fault, Node, Yaml};
use crate::correlate::Correlation;

/// Where events come from, as a rule names it; what it leaves out may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct LogSource {
    /// Such as `windows`.
    pub product: Option<String>,
    /// Such as `process_creation`.
    pub category: Option<String>,
    /// Such as `sysmon`.
    pub service: Option<String>,
}

impl LogSource {
    /// Whether a rule runs on these events: every dimension it names must be known and equal.
    #[must_use]
    pub fn admits(&self, class: &EventClass) -> bool {
        let product = self.product.is_none() || self.product == class.product;
        let category = self.category.as_ref().is_none_or(|category| class.categories.contains(category));
        let service = self.service.as_ref().is_none_or(|service| class.services.contains(service));
        product && category && service
    }
}

/// How serious a match is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For enrichment.
    Informational,
    /// Notable.
    Low,
    /// For review.
    Medium,
    /// For prompt review.
    High,
    /// An incident.
    Critical,
}

impl Level {
    /// As rules write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// In OCSF.
    #[must_use]
    pub fn severity_id(self) -> i16 {
        match self {
            Self::Informational => 1,
            Self::Low => 2,
            Self::Medium => 3,
            Self::High => 4,
            Self::Critical => 5,
        }
    }
}

/// A detection rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its `id`, or its title where it has none.
    pub id: String,
    /// Whether it has an `id`.
    pub has_id: bool,
    /// Its name for people.
    pub title: String,
    /// Its `name`, by which correlation rules call it.
    pub name: Option<String>,
    /// Who wrote it; alerts carry it on.
    pub author: Option<String>,
    /// What it is about.
    pub description: Option<String>,
    /// How far it is tested.
    pub status: Option<String>,
    /// When it was changed last: `modified`, else `date`.
    pub revision: Option<String>,
    /// How serious a match is; `medium` where it says nothing.
    pub level: Level,
    /// Whether it says how serious a match is.
    pub has_level: bool,
    /// Tags, such as `attack.t1059`.
    pub tags: Vec<String>,
    /// Fields worth showing.
    pub fields: Vec<String>,
    /// Fields that a match keeps besides those it tests: those worth showing, and what correlations ask for.
    pub kept: Vec<String>,
    /// Known false positives.
    pub falsepositives: Vec<String>,
    /// Where its events come from.
    pub logsource: LogSource,
    /// What it looks for.
    pub detection: Detection,
    /// The file it came from, and its line there.
    pub origin: (String, usize),
}

impl Rule {
    /// The fields whose values it tests or keeps, in order of their names.
    #[must_use]
    pub fn shown_fields(&self) -> Vec<String> {
        let mut fields = self.kept.clone();
        self.detection.expr().each_atom(&mut |atom| fields.extend(atom.field.clone()));
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    /// One rule for each selection, with the selection's name for its id: run over an event they explain
    /// why the rule matches it or not.
    #[must_use]
    pub fn by_selection(&self) -> Vec<Rule> {
        let numbered = self.detection.selections.iter().enumerate();
        let alone = numbered.map(|(index, selection)| {
            let detection = Detection { condition: Condition::Selection(index), ..self.detection.clone() };
            Rule { id: selection.name.clone(), detection, ..self.clone() }
        });
        alone.collect()
    }
}

/// A condition that is joined by `and` to the rules it names, for the tenants that have it.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// Its `id`, or its title where it has none.
    pub id: String,
    /// Its name for people.
    pub title: String,
    /// Where the rules it is for get their events; what it leaves out may be anything.
    pub logsource: LogSource,
    /// The rules it is for, by id or name; none is every rule.
    pub rules: Option<Vec<String>>,
    /// What must also hold: usually `not selection`.
    pub detection: Detection,
    /// The file it came from, and its line there.
    pub origin: (String, usize),
}

impl Filter {
    /// Whether the filter is for this rule.
    pub fn is_for(&self, rule: &Rule) -> bool {
        let named = self.rules.as_ref().is_none_or(|rules| {
            rules.iter().any(|name| *name == rule.id || Some(name) == rule.name.as_ref())
        });
        let agree =
            |mine: &Option<String>, its: &Option<String>| mine.is_none() || its.is_none() || mine == its;
        named
            && agree(&self.logsource.product, &rule.logsource.product)
            && agree(&self.logsource.category, &rule.logsource.category)
            && agree(&self.logsource.service, &rule.logsource.service)
    }
}

impl Filter {
    /// A tenant's exception to a rule: selections as in a detection, and a condition unless any selection
    /// will do. The rule doesn't fire on what matches.
    ///
    /// # Errors
    /// If the text is no such mapping.
    pub fn exception(
        name: &str,
        rule: &Rule,
        text: &str,
        placeholders: &Placeholders,
    ) -> Result<Self, Problem> {
        let problem = |Fault { line, message }| Problem {
            file: name.to_owned(),
            line,
            rule: Some(rule.id.clone()),
            message,
        };
        let node = yaml::documents(text).into_iter().next();
        let node = node.unwrap_or_else(|| Err((Fault::new(1, "the exception is empty"), None)));
        let node = node.map_err(|(fault, _)| problem(fault))?;
        Ok(Self {
            id: name.to_owned(),
            title: name.to_owned(),
            logsource: rule.logsource.clone(),
            rules: Some(vec![rule.id.clone()]),
            detection: Detection::parse_exception(&node, placeholders).map_err(problem)?,
            origin: (name.to_owned(), node.line),
        })
    }
}

/// Why a document gave no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The rule's id or title, where it could be read.
    pub rule: Option<String>,
    /// What is wrong and what to change.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.rule.as_deref().unwrap_or("no id");
        write!(formatter, "{}:{}: rule {rule}: {}", self.file, self.line, self.message)
    }
}

/// What the documents of rule files held.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// Detection rules.
    pub rules: Vec<Rule>,
    /// Filters.
    pub filters: Vec<Filter>,
    /// Correlation rules, their references not looked up yet.
    pub correlations: Vec<Correlation>,
    /// Everything else, with the reason.
    pub problems: Vec<Problem>,
    /// Of rules and correlations so far.
    ids: HashSet<String>,
}

/// Reads a rule file: one document or several. `file` is only named in problems and origins.
pub fn parse(file: &str, text: &str, placeholders: &Placeholders) -> Parsed {
    let mut parsed = Parsed::default();
    parsed.add(file, text, placeholders);
    parsed
}

impl Parsed {
    /// Reads one more file.
    pub fn add(&mut self, file: &str, text: &str, placeholders: &Placeholders) {
        for document in yaml::documents(text) {
            match document {
                Ok(node) => self.document(file, &node, placeholders),
                Err((fault, rule)) => self.problem(file, rule, fault),
            }
        }
    }

    fn document(&mut self, file: &str, node: &Node, placeholders: &Placeholders) {
        let rule = field(node, "id").or_else(|| field(node, "title"));
        let result = match (node.get("correlation"), node.get("filter")) {
            (Some(section), _) => Correlation::parse(file, node, section)
                .and_then(|correlation| self.add_correlation(node.line, correlation)),
            (None, Some(section)) => {
                filter(file, node, section, placeholders).map(|filter| self.filters.push(filter))
            }
            (None, None) => {
                detection_rule(file, node, placeholders).and_then(|rule| self.add_rule(node.line, rule))
            }
        };
        if let Err(fault) = result {
            self.problem(file, rule, fault);
        }
    }

    /// What a rule finds is identified by the rule's id, so an id is one rule.
    fn add_rule(&mut self, line: usize, rule: Rule) -> Result<(), Fault> {
        self.take_id(line, &rule.id)?;
        self.rules.push(rule);
        Ok(())
    }

    fn add_correlation(&mut self, line: usize, correlation: Correlation) -> Result<(), Fault> {
        self.take_id(line, &correlation.id)?;
        self.correlations.push(correlation);
        Ok(())
    }

    fn take_id(&mut self, line: usize, id: &str) -> Result<(), Fault> {
        if self.ids.insert(id.to_owned()) {
            return Ok(());
        }
        let rules = self.rules.iter().map(|rule| (&rule.id, &rule.origin));
        let correlations = self.correlations.iter().map(|rule| (&rule.id, &rule.origin));
        let first = rules.chain(correlations).find(|(other, _)| *other == id);
        let (file, first) = first.map_or(("?", 0), |(_, (file, line))| (file, *line));
        let message = format!("the rule at {file}:{first} has this id: give this one its own, or remove it");
        Err(Fault::new(line, message))
    }

    fn problem(&mut self, file: &str, rule: Option<String>, fault: Fault) {
        let (file, Fault { line, message }) = (file.to_owned(), fault);
        self.problems.push(Problem { file, line, rule, message });
    }
}

fn detection_rule(file: &str, node: &Node, placeholders: &Placeholders) -> Result<Rule, Fault> {
    let Yaml::Map(_) = node.value else {
        return Err(Fault::new(node.line, "a rule is a mapping: start with `title:`"));
    };
    let title = title(node)?;
    let Some(section) = node.get("detection") else {
        return Err(Fault::new(node.line, "there is no detection: add one, or remove the document"));
    };
    let logsource = logsource(node)?;
    if logsource == LogSource::default() {
        let line = node.get("logsource").map_or(node.line, |node| node.line);
        return Err(Fault::new(line, "the logsource names nothing: give product, category or service"));
    }
    let detection = Detection::parse(section, &["timeframe"], placeholders)?;
    Ok(Rule {
        id: field(node, "id").unwrap_or_else(|| title.clone()),
        has_id: field(node, "id").is_some(),
        title,
        name: field(node, "name"),
        author: field(node, "author"),
        description: field(node, "description"),
        status: field(node, "status"),
        revision: field(node, "modified").or_else(|| field(node, "date")),
        level: level(node)?,
        has_level: node.get("level").is_some(),
        tags: fields(node, "tags"),
        fields: fields(node, "fields"),
        kept: fields(node, "fields"),
        falsepositives: fields(node, "falsepositives"),
        logsource,
        detection,
        origin: (file.to_owned(), node.line),
    })
}

fn filter(file: &str, node: &Node, section: &Node, placeholders: &Placeholders) -> Result<Filter, Fault> {
    let title = title(node)?;
    let Some(rules) = section.get("rules") else {
        return Err(Fault::new(
            section.line,
            "the filter names no rules: add `rules:` with their ids, or `any`",
        ));
    };
    let names = rules.texts();
    if names.is_empty() {
        return Err(Fault::new(rules.line, "the filter names no rules: list their ids, or write `any`"));
    }
    let any =
        matches!(rules.value, Yaml::Text(_)) && names.iter().all(|name| name.eq_ignore_ascii_case("any"));
    Ok(Filter {
        id: field(node, "id").unwrap_or_else(|| title.clone()),
        title,
        logsource: logsource(node)?,
        rules: (!any).then_some(names),
        detection: Detection::parse(section, &["rules"], placeholders)?,
        origin: (file.to_owned(), node.line),
    })
}

pub(crate) fn title(node: &Node) -> Result<String, Fault> {
    field(node, "title").ok_or_else(|| Fault::new(node.line, "there is no title: add one"))
}

fn logsource(node: &Node) -> Result<LogSource, Fault> {
    let Some(section) = node.get("logsource") else {
        return Err(Fault::new(node.line, "there is no logsource: add one"));
    };
    let part = |name: &str| field(section, name).map(|value| value.to_ascii_lowercase());
    Ok(LogSource { product: part("product"), category: part("category"), service: part("service") })
}

pub(crate) fn level(node: &Node) -> Result<Level, Fault> {
    let Some(level) = node.get("level") else { return Ok(Level::Medium) };
    match level.text().unwrap_or_default().to_ascii_lowercase().as_str() {
        "informational" => Ok(Level::Informational),
        "low" => Ok(Level::Low),
        "medium" => Ok(Level::Medium),
        "high" => Ok(Level::High),
        "critical" => Ok(Level::Critical),
        _ => Err(Fault::new(level.line, "the level is informational, low, medium, high or critical")),
    }
}

pub(crate) fn field(node: &Node, key: &str) -> Option<String> {
    node.get(key).and_then(Node::text).map(str::to_owned)
}

pub(crate) fn fields(node: &Node, key: &str) -> Vec<String> {
    node.get(key).map(Node::texts).unwrap_or_default()
}
