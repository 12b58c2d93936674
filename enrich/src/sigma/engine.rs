//! All rules of all tenants, compiled once per class of events.

use hashbrown::HashMap;
use inosec_schemas::{ClassFields, EventClass, FieldNames, Wanted};

use super::compile;
use super::program::Program;
use super::rule::{Filter, Rule};

/// A rule's number in its [`Engine`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// A filter's number in its [`Engine`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilterId(pub u32);

/// A class' number in its [`Engine`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassId(pub u32);

/// The rules of a class are too many or too long together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rules for {class:?} are too large together: {message}")]
pub struct TooLarge {
    /// The class.
    pub class: EventClass,
    /// What refused.
    pub message: String,
}

/// Compiled rules. Immutable: a change of rules is a new engine.
#[derive(Debug)]
pub struct Engine {
    rules: Vec<Rule>,
    ids: HashMap<String, RuleId>,
    filters: Vec<Filter>,
    filtered: Vec<Vec<RuleId>>,
    names: FieldNames,
    classes: HashMap<EventClass, ClassId>,
    programs: Vec<Program>,
}

impl Engine {
    /// Compiles the rules for the classes that events can have. Rules of no class never run.
    ///
    /// # Errors
    /// Rules are checked one by one when they are parsed; together they may still be too large for one
    /// automaton.
    pub fn new(rules: Vec<Rule>, filters: Vec<Filter>, classes: &[EventClass]) -> Result<Self, TooLarge> {
        let filtered = filters.iter().map(|filter| applies_to(filter, &rules)).collect();
        let ids = (0..).map(RuleId).zip(&rules).map(|(number, rule)| (rule.id.clone(), number)).collect();
        let mut engine = Self {
            rules,
            ids,
            filters,
            filtered,
            names: FieldNames::default(),
            classes: HashMap::new(),
            programs: Vec::new(),
        };
        for class in classes {
            if engine.classes.contains_key(class) {
                continue;
            }
            let id = ClassId(number(engine.programs.len()));
            let program = engine.compile(class)?;
            engine.programs.push(program);
            engine.classes.insert(class.clone(), id);
        }
        Ok(engine)
    }

    fn compile(&mut self, class: &EventClass) -> Result<Program, TooLarge> {
        let numbered = (0..).map(RuleId).zip(&self.rules);
        let rules: Vec<_> = numbered.filter(|(_, rule)| rule.logsource.admits(class)).collect();
        let runs = |rule: &RuleId| rules.binary_search_by_key(rule, |(id, _)| *id).is_ok();
        let numbered = (0..).map(FilterId).zip(&self.filters).zip(&self.filtered);
        let filters = numbered.filter(|(_, filtered)| filtered.iter().any(runs)).map(|(filter, _)| filter);
        compile::compile(&rules, &filters.collect::<Vec<_>>(), &mut self.names)
            .map_err(|message| TooLarge { class: class.clone(), message })
    }

    /// The rules, by [`RuleId`].
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// A rule.
    #[must_use]
    pub fn rule(&self, rule: RuleId) -> &Rule {
        &self.rules[rule.0 as usize]
    }

    /// The rule with this `id`.
    #[must_use]
    pub fn find_rule(&self, id: &str) -> Option<RuleId> {
        self.ids.get(id).copied()
    }

    /// The filter with this `id`.
    #[must_use]
    pub fn find_filter(&self, id: &str) -> Option<FilterId> {
        (0..).map(FilterId).zip(&self.filters).find(|(_, filter)| filter.id == id).map(|(number, _)| number)
    }

    /// The filters, by [`FilterId`].
    #[must_use]
    pub fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// The rules a filter is for.
    #[must_use]
    pub fn filtered_by(&self, filter: FilterId) -> &[RuleId] {
        &self.filtered[filter.0 as usize]
    }

    /// The fields that rules mention: decode asks here for the number behind a name.
    #[must_use]
    pub fn fields(&self) -> &FieldNames {
        &self.names
    }

    /// The class' number, if it was compiled.
    #[must_use]
    pub fn class(&self, class: &EventClass) -> Option<ClassId> {
        self.classes.get(class).copied()
    }

    /// What the rules of a class look at.
    #[must_use]
    pub fn wanted(&self, class: ClassId) -> &Wanted {
        self.program(class).wanted()
    }

    /// What the rules look at in every class, in the order of [`ClassId`]: for decode.
    #[must_use]
    pub fn class_fields(&self) -> ClassFields {
        let mut classes: Vec<_> = self.classes.iter().collect();
        classes.sort_unstable_by_key(|(_, id)| **id);
        let classes = classes.into_iter().map(|(class, id)| (class.clone(), self.wanted(*id).clone()));
        ClassFields { names: self.names.clone(), classes: classes.collect() }
    }

    /// How many rules run on a class.
    #[must_use]
    pub fn rules_of(&self, class: ClassId) -> usize {
        self.program(class).rules().len()
    }

    pub(super) fn program(&self, class: ClassId) -> &Program {
        &self.programs[class.0 as usize]
    }
}

fn applies_to(filter: &Filter, rules: &[Rule]) -> Vec<RuleId> {
    let numbered = (0..).map(RuleId).zip(rules);
    numbered.filter(|(_, rule)| filter.is_for(rule)).map(|(id, _)| id).collect()
}

pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 of anything")
}
