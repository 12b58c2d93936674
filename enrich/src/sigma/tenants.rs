//! What a tenant has of the compiled rules: a bitmap and its filters.

use super::engine::{Engine, FilterId, RuleId};

/// The rules a tenant has enabled, and the filters that apply to them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    words: Vec<u64>,
    /// Sorted.
    filters: Vec<(RuleId, FilterId)>,
}

impl Selection {
    /// No rule.
    #[must_use]
    pub fn none(engine: &Engine) -> Self {
        Self { words: vec![0; engine.rules().len().div_ceil(64)], filters: Vec::new() }
    }

    /// Every rule.
    #[must_use]
    pub fn all(engine: &Engine) -> Self {
        let mut selection = Self::none(engine);
        selection.words.fill(u64::MAX);
        selection
    }

    /// Switches a rule on or off.
    pub fn set(&mut self, rule: RuleId, enabled: bool) {
        let bit = 1 << (rule.0 % 64);
        let word = &mut self.words[rule.0 as usize / 64];
        *word = if enabled { *word | bit } else { *word & !bit };
    }

    /// Whether a rule is on.
    #[must_use]
    pub fn has(&self, rule: RuleId) -> bool {
        self.words.get(rule.0 as usize / 64).is_some_and(|word| word >> (rule.0 % 64) & 1 == 1)
    }

    /// Adds a filter: what it is for matches from now on only where the filter's condition holds too.
    pub fn add_filter(&mut self, engine: &Engine, filter: FilterId) {
        self.filters.extend(engine.filtered_by(filter).iter().map(|rule| (*rule, filter)));
        self.filters.sort_unstable();
        self.filters.dedup();
    }

    /// The filters for one rule.
    pub(super) fn filters(&self, rule: RuleId) -> impl Iterator<Item = FilterId> {
        let start = self.filters.partition_point(|(other, _)| *other < rule);
        self.filters[start..].iter().take_while(move |(other, _)| *other == rule).map(|(_, filter)| *filter)
    }
}

/// The selections of all tenants, by a number the caller gives each.
#[derive(Debug, Clone, Default)]
pub struct Tenants {
    selections: Vec<Selection>,
}

impl Tenants {
    /// Adds a tenant and returns its number, counted from 0.
    ///
    /// # Panics
    /// Beyond 2^32 tenants.
    pub fn add(&mut self, selection: Selection) -> u32 {
        self.selections.push(selection);
        u32::try_from(self.selections.len() - 1).expect("fewer than 2^32 tenants")
    }

    /// A tenant's selection.
    #[must_use]
    pub fn get(&self, tenant: u32) -> Option<&Selection> {
        self.selections.get(tenant as usize)
    }
}
