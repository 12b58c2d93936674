//! One field's tests, all at once: a value in, the numbers of the tests that pass out.
//!
//! Exact texts are looked up by hash, prefixes and suffixes walked in a [`Trie`], contained texts found
//! by one [`Finder`]; each once for folded and once for cased tests. What these can't
//! decide (inner wildcards, regular expressions) is tried only on values that hold a text every match
//! contains.

use hashbrown::HashMap;
use regex::Regex;

use super::expr::{Comparison, Test};
use super::finder::Finder;
use super::fold::fold_into;
use super::network::{self, Network};
use super::number::Number;
use super::pattern::{Part, Pattern, Shape};
use super::regexes;
use super::time::TimePart;
use super::trie::Trie;

/// A test's number within its program.
pub type AtomId = u32;

/// What a literal's presence in a value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// The test passes.
    Pass(AtomId),
    /// This one of [`Scanner::checks`] may pass.
    Check(u32),
}

/// A test that has to look at the whole value.
#[derive(Debug)]
enum Check {
    /// On the folded value.
    Folded(Pattern),
    /// On the value as it is.
    Cased(Pattern),
    /// On the value as it is.
    Regex(Regex),
}

/// All tests of one field.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Pass on any text.
    any_text: Vec<AtomId>,
    /// Pass when the field is there.
    exists: Vec<AtomId>,
    /// Pass on an explicit null.
    on_null: Vec<AtomId>,
    folded: TextSet,
    cased: TextSet,
    numbers: HashMap<Number, AtomId, foldhash::fast::RandomState>,
    comparisons: Vec<(Comparison, Number, AtomId)>,
    times: Vec<(TimePart, Comparison, Number, AtomId)>,
    networks: Vec<(Network, AtomId)>,
    checks: Vec<(Check, AtomId)>,
    /// Checks that no literal announces.
    unannounced: Vec<u32>,
    shortest: usize,
}

/// Buffers of [`Scanner::scan`], kept between values.
#[derive(Debug, Default)]
pub struct Scratch {
    folded: String,
    checks: Vec<u32>,
    /// The tests that passed, ascending.
    pub passed: Vec<AtomId>,
}

impl Scanner {
    /// From the field's tests. Tests of another field's value are not for a scanner.
    pub fn new<'a>(tests: impl IntoIterator<Item = (AtomId, &'a Test)>) -> Result<Self, String> {
        let mut scanner = Self::default();
        let (mut folded, mut cased) = (Literals::default(), Literals::default());
        for (atom, test) in tests {
            match test {
                Test::Exists => scanner.exists.push(atom),
                Test::IsNull => scanner.on_null.push(atom),
                Test::Number(number) => {
                    scanner.numbers.insert(*number, atom);
                }
                Test::Compare(comparison, number) => scanner.comparisons.push((*comparison, *number, atom)),
                Test::Time(part, comparison, number) => {
                    scanner.times.push((*part, *comparison, *number, atom));
                }
                Test::Network(network) => scanner.networks.push((*network, atom)),
                Test::Text { pattern, cased: is_cased } => {
                    let literals = if *is_cased { &mut cased } else { &mut folded };
                    scanner.text(pattern, *is_cased, atom, literals);
                }
                Test::Regex(source) => scanner.regex(source, atom, &mut folded)?,
                Test::Field { .. } => {}
            }
        }
        scanner.folded = folded.build();
        scanner.cased = cased.build();
        scanner.on_null.extend_from_slice(&scanner.exists);
        scanner.shortest = scanner.shortest_passing();
        Ok(scanner)
    }

    fn text(&mut self, pattern: &Pattern, cased: bool, atom: AtomId, literals: &mut Literals) {
        let pass = Action::Pass(atom);
        match pattern.shape() {
            Shape::Anything => self.any_text.push(atom),
            Shape::Exact(text) => literals.exact.push((text.to_owned(), pass)),
            Shape::Prefix(text) => literals.prefixes.push((text.as_bytes().to_vec(), pass)),
            Shape::Suffix(text) => literals.suffixes.push((text.as_bytes().to_vec(), pass)),
            Shape::Contains(text) => literals.contained.push((text.to_owned(), pass)),
            Shape::Glob => {
                let check =
                    if cased { Check::Cased(pattern.clone()) } else { Check::Folded(pattern.clone()) };
                let check = self.check(check, atom);
                match (pattern.parts(), pattern.longest_literal()) {
                    ([Part::Literal(text), ..], _) => {
                        literals.prefixes.push((text.as_bytes().to_vec(), Action::Check(check)));
                    }
                    ([.., Part::Literal(text)], _) => {
                        literals.suffixes.push((text.as_bytes().to_vec(), Action::Check(check)));
                    }
                    (_, Some(text)) => literals.contained.push((text.to_owned(), Action::Check(check))),
                    (_, None) => self.unannounced.push(check),
                }
            }
        }
    }

    fn regex(&mut self, source: &str, atom: AtomId, literals: &mut Literals) -> Result<(), String> {
        let regex = regexes::build(source).map_err(|error| error.to_string())?;
        let check = self.check(Check::Regex(regex), atom);
        match regexes::required(source) {
            Some(texts) => {
                literals.contained.extend(texts.into_iter().map(|text| (text, Action::Check(check))));
            }
            None => self.unannounced.push(check),
        }
        Ok(())
    }

    fn check(&mut self, check: Check, atom: AtomId) -> u32 {
        self.checks.push((check, atom));
        u32::try_from(self.checks.len() - 1).expect("fewer than 2^32 tests")
    }

    /// Adds the tests that a text passes; the caller sorts them.
    pub fn scan(&self, value: &str, scratch: &mut Scratch) {
        let Scratch { folded, checks, passed } = scratch;
        checks.clear();
        checks.extend_from_slice(&self.unannounced);
        passed.extend_from_slice(&self.exists);
        passed.extend_from_slice(&self.any_text);
        let mut found = |action| match action {
            Action::Pass(atom) => passed.push(atom),
            Action::Check(check) => checks.push(check),
        };
        folded.clear();
        fold_into(value, folded);
        self.folded.find(folded, &mut found);
        self.cased.find(value, &mut found);
        self.values(value, passed);
        checks.sort_unstable();
        checks.dedup();
        for check in checks {
            let (check, atom) = &self.checks[*check as usize];
            let passes = match check {
                Check::Folded(pattern) => pattern.matches(folded),
                Check::Cased(pattern) => pattern.matches(value),
                Check::Regex(regex) => regex.is_match(value),
            };
            if passes {
                passed.push(*atom);
            }
        }
    }

    /// What the text means as a number, a time or an address.
    fn values(&self, value: &str, passed: &mut Vec<AtomId>) {
        if !(self.numbers.is_empty() && self.comparisons.is_empty())
            && let Some(number) = Number::parse(value)
        {
            passed.extend(self.numbers.get(&number));
            let hold =
                self.comparisons.iter().filter(|(comparison, right, _)| comparison.holds(number, *right));
            passed.extend(hold.map(|(_, _, atom)| *atom));
        }
        for (part, comparison, right, atom) in &self.times {
            let left = part.extract(value).map(|value| Number::Int(i128::from(value)));
            if left.is_some_and(|left| comparison.holds(left, *right)) {
                passed.push(*atom);
            }
        }
        if !self.networks.is_empty()
            && let Some(address) = network::address(value)
        {
            let inside = self.networks.iter().filter(|(network, _)| network.contains(address));
            passed.extend(inside.map(|(_, atom)| *atom));
        }
    }

    /// The tests that an explicit null passes.
    pub fn on_null(&self) -> &[AtomId] {
        &self.on_null
    }

    /// The tests that an object or an empty array passes.
    pub fn on_other(&self) -> &[AtomId] {
        &self.exists
    }

    /// Texts with fewer bytes pass nothing.
    pub fn shortest(&self) -> usize {
        self.shortest
    }

    /// Unless all tests are of texts that are contained, a text of any length may pass one.
    fn shortest_passing(&self) -> usize {
        let other = self.any_text.len()
            + self.exists.len()
            + self.numbers.len()
            + self.comparisons.len()
            + self.times.len()
            + self.networks.len()
            + self.unannounced.len();
        if other > 0 { 0 } else { self.folded.shortest().min(self.cased.shortest()) }
    }
}

/// Literals on their way into a [`TextSet`].
#[derive(Default)]
struct Literals {
    exact: Vec<(String, Action)>,
    prefixes: Vec<(Vec<u8>, Action)>,
    suffixes: Vec<(Vec<u8>, Action)>,
    contained: Vec<(String, Action)>,
}

impl Literals {
    fn build(self) -> TextSet {
        let mut set = TextSet {
            prefixes: Trie::new(self.prefixes, false),
            suffixes: Trie::new(self.suffixes, true),
            contained: Finder::new(self.contained),
            ..TextSet::default()
        };
        for (text, action) in self.exact {
            set.longest_exact = set.longest_exact.max(text.len());
            set.exact.entry(text.into_boxed_str()).or_default().push(action);
        }
        set
    }
}

/// Literals of one case mode.
#[derive(Debug, Default)]
struct TextSet {
    exact: HashMap<Box<str>, Vec<Action>, foldhash::fast::RandomState>,
    /// Longer texts are not even hashed.
    longest_exact: usize,
    prefixes: Trie<Action>,
    suffixes: Trie<Action>,
    contained: Finder<Action>,
}

impl TextSet {
    /// The shortest text that anything is found in, as far as only contained texts are asked for.
    fn shortest(&self) -> usize {
        let anchored = !(self.exact.is_empty() && self.prefixes.is_empty() && self.suffixes.is_empty());
        if anchored { 0 } else { self.contained.shortest() }
    }

    fn find(&self, text: &str, found: &mut impl FnMut(Action)) {
        if !self.exact.is_empty()
            && text.len() <= self.longest_exact
            && let Some(actions) = self.exact.get(text)
        {
            actions.iter().for_each(|action| found(*action));
        }
        self.prefixes.walk(text.bytes(), &mut *found);
        self.suffixes.walk(text.bytes().rev(), &mut *found);
        self.contained.find(text.as_bytes(), &mut *found);
    }
}
