//! The rules that run now, and which of them each tenant has.
//!
//! Rules come from files, what tenants say of them from a table. A change of either makes a new
//! [`Ruleset`]; the compiled [`Engine`] is kept as long as no exception changes.

use std::collections::HashSet;
use std::sync::Arc;

use hashbrown::HashMap;
use inosec_schemas::{EventClass, TenantId, TenantRule, derived_id};
use uuid::Uuid;

use crate::correlate::{Correlation, Correlations};
use crate::sigma::{
    Engine, Filter, FilterId, Placeholders, Problem, Rule, RuleId, Selection, Tenants, TooLarge,
};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What the rule files hold.
#[derive(Debug, Clone, Default)]
pub struct RuleFiles {
    /// All rules.
    pub rules: Vec<Rule>,
    /// All filters, on for everyone.
    pub filters: Vec<Filter>,
    /// All correlations: what they group by and measure, matches keep.
    pub correlations: Vec<Correlation>,
    /// The ids of rules that are off unless a tenant switches them on.
    pub optional: HashSet<String>,
    /// For exceptions that use `expand`.
    pub placeholders: Placeholders,
}

/// Compiled rules and the tenants that have them.
#[derive(Debug)]
pub struct Ruleset {
    engine: Arc<Engine>,
    details: Arc<[Detail]>,
    tenants: Tenants,
    numbers: Map<TenantId, u32>,
    everyone: u32,
    /// What is compiled in besides the files, in the order of their filters.
    exceptions: Vec<(TenantId, String, String)>,
    /// Whose they are, those left out that can't be read.
    excepting: Arc<[TenantId]>,
    problems: Vec<Problem>,
}

/// What a threat event says of its rule.
#[derive(Debug)]
pub(crate) struct Detail {
    /// Stands for the rule's id where that would be long.
    pub(crate) key: u64,
    /// OCSF.
    pub(crate) severity_id: i16,
    /// As `attack.t1059.001` gives `T1059.001`.
    pub(crate) techniques: Vec<String>,
    /// The fields it tests or keeps: first what correlations need, which long values of others must not
    /// crowd out.
    pub(crate) fields: Vec<String>,
}

impl Ruleset {
    /// Compiles the rules, or keeps those compiled before if the tenants' exceptions are the same.
    ///
    /// # Errors
    /// If the rules together are too large for one automaton.
    pub fn new(
        files: &RuleFiles,
        classes: &[EventClass],
        tenant_rules: &[TenantRule],
        before: Option<&Self>,
    ) -> Result<Self, TooLarge> {
        let mut exceptions: Vec<_> = tenant_rules
            .iter()
            .filter(|rule| rule.enabled)
            .filter_map(|rule| Some((rule.tenant, rule.rule_id.clone(), rule.exception.clone()?)))
            .collect();
        exceptions.sort_unstable();
        let kept = before.filter(|before| before.exceptions == exceptions);
        let mut ruleset = match kept {
            Some(kept) => Self {
                engine: Arc::clone(&kept.engine),
                details: Arc::clone(&kept.details),
                tenants: Tenants::default(),
                numbers: Map::default(),
                everyone: 0,
                exceptions,
                excepting: Arc::clone(&kept.excepting),
                problems: kept.problems.clone(),
            },
            None => Self::compile(files, classes, exceptions)?,
        };
        ruleset.select(files, tenant_rules);
        Ok(ruleset)
    }

    fn compile(
        files: &RuleFiles,
        classes: &[EventClass],
        exceptions: Vec<(TenantId, String, String)>,
    ) -> Result<Self, TooLarge> {
        let (correlations, mut problems) = Correlations::new(&files.correlations, &files.rules);
        let mut rules = files.rules.clone();
        for rule in &mut rules {
            rule.kept.extend(correlations.fields_for(&rule.id).into_iter().map(str::to_owned));
        }
        let by_id: Map<&str, &Rule> = files.rules.iter().map(|rule| (rule.id.as_str(), rule)).collect();
        let (mut filters, mut excepting) = (files.filters.clone(), Vec::new());
        for (tenant, id, text) in &exceptions {
            // What is said of a rule that isn't loaded waits until it is.
            let Some(rule) = by_id.get(id.as_str()) else { continue };
            let name = format!("tenant_rules of {tenant} for {id}");
            match Filter::exception(&name, rule, text, &files.placeholders) {
                Ok(filter) => {
                    filters.push(filter);
                    excepting.push(*tenant);
                }
                Err(problem) => problems.push(problem),
            }
        }
        Ok(Self {
            details: rules.iter().map(Detail::of).collect(),
            engine: Arc::new(Engine::new(rules, filters, classes)?),
            tenants: Tenants::default(),
            numbers: Map::default(),
            everyone: 0,
            exceptions,
            excepting: excepting.into(),
            problems,
        })
    }

    fn select(&mut self, files: &RuleFiles, tenant_rules: &[TenantRule]) {
        let engine = &self.engine;
        let mut everyone = Selection::all(engine);
        for rule in files.optional.iter().filter_map(|id| engine.find_rule(id)) {
            everyone.set(rule, false);
        }
        let common = (0..).map(FilterId).zip(&files.filters);
        let mut own: Map<TenantId, Vec<&TenantRule>> = Map::default();
        tenant_rules.iter().for_each(|rule| own.entry(rule.tenant).or_default().push(rule));
        let exceptions = (files.filters.len() as u32..).map(FilterId).zip(&*self.excepting);
        for (tenant, rules) in own {
            let mut selection = everyone.clone();
            for rule in &rules {
                if let Some(id) = engine.find_rule(&rule.rule_id) {
                    selection.set(id, rule.enabled);
                }
            }
            let off = |filter: &Filter| rules.iter().any(|rule| rule.rule_id == filter.id && !rule.enabled);
            let shared = common.clone().filter(|(_, filter)| !off(filter)).map(|(id, _)| id);
            let except = exceptions.clone().filter(|(_, of)| **of == tenant).map(|(id, _)| id);
            shared.chain(except).for_each(|id| selection.add_filter(engine, id));
            let number = self.tenants.add(selection);
            self.numbers.insert(tenant, number);
        }
        common.for_each(|(id, _)| everyone.add_filter(engine, id));
        self.everyone = self.tenants.add(everyone);
    }

    /// The compiled rules.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The correlations that don't resolve, and the exceptions that can't be read: the rules run without
    /// them.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The rules a tenant has.
    #[must_use]
    pub fn selection(&self, tenant: TenantId) -> &Selection {
        self.tenants.get(self.number(tenant)).expect("every number is a tenant's")
    }

    pub(crate) fn number(&self, tenant: TenantId) -> u32 {
        self.numbers.get(&tenant).copied().unwrap_or(self.everyone)
    }

    pub(crate) fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    pub(crate) fn detail(&self, rule: RuleId) -> &Detail {
        &self.details[rule.0 as usize]
    }
}

impl Detail {
    fn of(rule: &Rule) -> Self {
        let techniques = rule.tags.iter().filter_map(|tag| technique(tag)).collect();
        let (key, _) = derived_id(TenantId(Uuid::nil()), &rule.id, Uuid::nil()).as_u64_pair();
        let mut fields = rule.shown_fields();
        fields.sort_by_key(|field| !rule.kept.contains(field));
        Self { key, severity_id: rule.level.severity_id(), techniques, fields }
    }
}

/// `attack.t1059.001` to `T1059.001`.
pub(crate) fn technique(tag: &str) -> Option<String> {
    let tag = tag.to_ascii_lowercase();
    let digits = tag.strip_prefix("attack.t")?;
    let plausible = digits.starts_with(|first: char| first.is_ascii_digit());
    (plausible && digits.chars().all(|each| each.is_ascii_digit() || each == '.'))
        .then(|| format!("T{digits}"))
}

#[cfg(test)]
mod tests {
    use crate::sigma::parse;

    use super::*;

    const RULES: &str = "
title: One
id: one
fields: [shown]
tags: [attack.execution, attack.t1059.001, attack.s0154, cve.2026.1]
logsource: {product: windows}
detection: {a: {f: v}, condition: a}
level: critical
---
title: Other
id: other
logsource: {product: windows}
detection: {a: {f: v}, condition: a}
---
title: Many
id: many
correlation: {type: event_count, rules: [one], group-by: [grouped], timespan: 1h, condition: {gte: 3}}
---
title: Known good
id: good
logsource: {product: windows}
filter: {rules: any, a: {g: v}, condition: not a}
";

    fn ruleset(tenant_rules: &[TenantRule], before: Option<&Ruleset>) -> Ruleset {
        let parsed = parse("rules.yml", RULES, &Placeholders::default());
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        let files = RuleFiles {
            rules: parsed.rules,
            filters: parsed.filters,
            correlations: parsed.correlations,
            optional: HashSet::from(["other".to_owned()]),
            placeholders: Placeholders::default(),
        };
        let classes = [EventClass::triple(Some("windows"), None, None)];
        Ruleset::new(&files, &classes, tenant_rules, before).unwrap()
    }

    fn says(tenant: u128, rule: &str, enabled: bool, exception: Option<&str>) -> TenantRule {
        TenantRule {
            tenant: TenantId(Uuid::from_u128(tenant)),
            rule_id: rule.to_owned(),
            enabled,
            exception: exception.map(str::to_owned),
        }
    }

    fn has(ruleset: &Ruleset, tenant: u128) -> [bool; 2] {
        let selection = ruleset.selection(TenantId(Uuid::from_u128(tenant)));
        ["one", "other"].map(|rule| selection.has(ruleset.engine().find_rule(rule).unwrap()))
    }

    #[test]
    fn a_tenant_has_what_is_on_for_everyone_and_what_it_says() {
        let none = ruleset(&[], None);
        assert_eq!(has(&none, 1), [true, false]);
        let said = [says(1, "one", false, None), says(1, "other", true, None), says(2, "gone", true, None)];
        let some = ruleset(&said, Some(&none));
        assert_eq!(
            (has(&some, 1), has(&some, 2), has(&some, 3)),
            ([false, true], [true, false], [true, false])
        );
        assert!(Arc::ptr_eq(none.engine(), some.engine()), "switching compiles nothing");
    }

    #[test]
    fn an_exception_compiles_and_a_bad_one_is_named() {
        let none = ruleset(&[], None);
        let said = [
            says(1, "one", true, Some("a: {g: w}")),
            says(2, "one", true, Some("a: [")),
            says(3, "one", false, Some("[")),
        ];
        let some = ruleset(&said, Some(&none));
        assert!(!Arc::ptr_eq(none.engine(), some.engine()));
        assert_eq!(some.engine().filters().len(), 2, "the files' and one exception");
        assert_eq!(some.problems().len(), 1, "what is off is not read");
        assert!(some.problems()[0].to_string().contains(&Uuid::from_u128(2).to_string()));
        assert!(Arc::ptr_eq(some.engine(), ruleset(&said, Some(&some)).engine()));
    }

    #[test]
    fn a_correlation_that_does_not_resolve_is_named() {
        let parsed =
            parse("rules.yml", &RULES.replace("rules: [one]", "rules: [gone]"), &Placeholders::default());
        let (rules, correlations) = (parsed.rules, parsed.correlations);
        let files = RuleFiles { rules, correlations, ..RuleFiles::default() };
        let ruleset = Ruleset::new(&files, &[], &[], None).unwrap();
        assert_eq!(ruleset.problems().len(), 1);
        assert_eq!(ruleset.problems()[0].rule.as_deref(), Some("many"));
    }

    #[test]
    fn techniques_are_tags_of_their_form() {
        let ruleset = ruleset(&[], None);
        let detail = ruleset.detail(RuleId(0));
        assert_eq!((detail.techniques.as_slice(), detail.severity_id), (&["T1059.001".to_owned()][..], 5));
        assert_eq!(detail.fields, ["grouped", "shown", "f"]);
        let wanted = &ruleset.engine().class_fields().classes[0].1;
        assert_eq!(wanted.fields.len(), 4, "f, the filter's g, what is shown and what is grouped by");
    }
}
