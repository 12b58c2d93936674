//! The compiled rules of one class: conditions as flat nodes over numbered tests.

use hashbrown::HashMap;
use inosec_schemas::{Columns, FieldId, Wanted};

use super::engine::{FilterId, RuleId};
use super::reference::Reference;
use super::scanner::{AtomId, Scanner};

/// A node's number.
pub type NodeId = u32;

/// A piece of a condition. Children are neighbours, so that a range names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// All of `.0...1`.
    And(NodeId, NodeId),
    /// Any of `.0...1`.
    Or(NodeId, NodeId),
    /// Not this one.
    Not(NodeId),
    /// The test passed.
    Atom(AtomId),
    /// One of [`Program::references`].
    Reference(u32),
}

/// A set of tests that passed; one bit each.
#[derive(Debug, Default)]
pub struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Room for this many.
    pub fn grow(&mut self, bits: usize) {
        self.words.resize(self.words.len().max(bits.div_ceil(64)), 0);
    }

    /// Adds one; false if it was there.
    pub fn insert(&mut self, bit: u32) -> bool {
        let (word, mask) = (&mut self.words[bit as usize / 64], 1 << (bit % 64));
        let new = *word & mask == 0;
        *word |= mask;
        new
    }

    /// Whether it is there.
    pub fn has(&self, bit: u32) -> bool {
        self.words[bit as usize / 64] >> (bit % 64) & 1 == 1
    }

    /// Removes one.
    pub fn remove(&mut self, bit: u32) {
        self.words[bit as usize / 64] &= !(1 << (bit % 64));
    }
}

/// The compiled rules of one class.
#[derive(Debug, Default)]
pub struct Program {
    pub(super) wanted: Wanted,
    /// Rules by their number in the program, with their condition.
    pub(super) rules: Vec<(RuleId, NodeId)>,
    pub(super) filters: HashMap<FilterId, NodeId, foldhash::fast::RandomState>,
    pub(super) nodes: Vec<Node>,
    pub(super) references: Vec<Reference>,
    pub(super) atoms: usize,
    /// Rules to look at when a test passes: `watchers[starts[atom]..starts[atom + 1]]`.
    pub(super) watcher_starts: Vec<u32>,
    pub(super) watchers: Vec<u32>,
    /// Rules to look at always.
    pub(super) unwatched: Vec<u32>,
    /// By field; each does the tests of keywords too.
    pub(super) scanners: HashMap<FieldId, Scanner, foldhash::fast::RandomState>,
    /// Of values in no such field.
    pub(super) keywords: Option<Scanner>,
}

/// One event, while its conditions are decided.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// The tests that passed.
    pub bits: &'a Bits,
    /// Where it lies.
    pub columns: &'a Columns<'a>,
    /// Its row there.
    pub row: u32,
}

impl Program {
    /// What the rules look at.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The rules, ascending.
    pub fn rules(&self) -> &[(RuleId, NodeId)] {
        &self.rules
    }

    /// How many different tests there are.
    pub fn atoms(&self) -> usize {
        self.atoms
    }

    /// The rules, by their number in the program, that a passed test makes worth looking at.
    pub fn watchers(&self, atom: AtomId) -> &[u32] {
        let range =
            self.watcher_starts[atom as usize] as usize..self.watcher_starts[atom as usize + 1] as usize;
        &self.watchers[range]
    }

    /// What a field's values are scanned by, if by anything.
    pub fn scanner(&self, field: FieldId) -> Option<&Scanner> {
        self.scanners.get(&field).or(self.keywords.as_ref())
    }

    /// Whether a condition holds.
    pub fn holds(&self, node: NodeId, row: Row<'_>) -> bool {
        match self.nodes[node as usize] {
            Node::Atom(atom) => row.bits.has(atom),
            Node::And(start, end) => (start..end).all(|child| self.holds(child, row)),
            Node::Or(start, end) => (start..end).any(|child| self.holds(child, row)),
            Node::Not(child) => !self.holds(child, row),
            Node::Reference(reference) => self.references[reference as usize].holds(row.columns, row.row),
        }
    }

    /// Whether a filter's condition holds; filters of other classes always do.
    pub fn filter_holds(&self, filter: FilterId, row: Row<'_>) -> bool {
        self.filters.get(&filter).is_none_or(|node| self.holds(*node, row))
    }
}
