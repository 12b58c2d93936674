//! What the distinct values of one field came to, kept across batches within a budget.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use inosec_schemas::{Cell, Value};

use super::scanner::AtomId;

/// Tests that passed, as a place in an [`Arena`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    start: u32,
    length: u32,
}

impl Passed {
    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.length == 0
    }
}

/// Lists of passed tests, one after another.
#[derive(Debug, Default)]
pub struct Arena {
    atoms: Vec<AtomId>,
}

impl Arena {
    /// Keeps a list.
    pub fn keep(&mut self, atoms: &[AtomId]) -> Passed {
        let start = narrow(self.atoms.len());
        self.atoms.extend_from_slice(atoms);
        Passed { start, length: narrow(atoms.len()) }
    }

    /// The list.
    pub fn get(&self, passed: Passed) -> &[AtomId] {
        &self.atoms[passed.start as usize..][..passed.length as usize]
    }

    /// Bytes it takes, room to grow included.
    pub fn bytes(&self) -> usize {
        self.atoms.capacity() * size_of::<AtomId>()
    }
}

/// Longer values are remembered only within a batch: they seldom come again, and copying them costs
/// more than scanning some twice.
const LONG: usize = 512;

/// A value that was copied.
#[derive(Debug)]
struct Short {
    hash: u64,
    start: u32,
    length: u32,
    passed: Passed,
}

/// A value of the column at hand.
#[derive(Debug)]
struct Long {
    hash: u64,
    cell: u32,
    passed: Passed,
}

/// Values and their results.
#[derive(Debug, Default)]
pub struct Memo {
    short: HashTable<Short>,
    text: String,
    long: HashTable<Long>,
    hasher: foldhash::fast::RandomState,
}

impl Memo {
    /// Begins a column: long values of the one before are forgotten.
    pub fn begin(&mut self) {
        self.long.clear();
    }

    /// The result of the text in `cells[cell]`, by `scan` if it is new.
    pub fn get_or(
        &mut self,
        value: &str,
        cells: &[Cell<'_>],
        cell: usize,
        scan: impl FnOnce() -> Passed,
    ) -> Passed {
        let hash = self.hasher.hash_one(value);
        if value.len() > LONG {
            return self.long(hash, value, cells, cell, scan);
        }
        let known = self.short.find(hash, |entry| {
            let text = &self.text.as_bytes()[entry.start as usize..][..entry.length as usize];
            entry.hash == hash && text == value.as_bytes()
        });
        if let Some(entry) = known {
            return entry.passed;
        }
        let passed = scan();
        let entry = Short { hash, start: narrow(self.text.len()), length: narrow(value.len()), passed };
        self.text.push_str(value);
        self.short.insert_unique(hash, entry, |entry| entry.hash);
        passed
    }

    fn long(
        &mut self,
        hash: u64,
        value: &str,
        cells: &[Cell<'_>],
        cell: usize,
        scan: impl FnOnce() -> Passed,
    ) -> Passed {
        let known = self
            .long
            .find(hash, |entry| entry.hash == hash && cells[entry.cell as usize].value == Value::Text(value));
        if let Some(entry) = known {
            return entry.passed;
        }
        let passed = scan();
        self.long.insert_unique(hash, Long { hash, cell: narrow(cell), passed }, |entry| entry.hash);
        passed
    }

    /// Bytes it takes, room to grow included.
    pub fn bytes(&self) -> usize {
        self.text.capacity() + self.short.allocation_size() + self.long.allocation_size()
    }
}

/// Batches and budgets are far below 4 GiB.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("a memo within 4 GiB")
}
