//! What the distinct values of one field came to, kept across batches within a budget.

use std::hash::BuildHasher;

use hashbrown::HashTable;

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

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.atoms.len() * size_of::<AtomId>()
    }

    /// Forgets all lists.
    pub fn clear(&mut self) {
        self.atoms.clear();
    }
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    start: u32,
    length: u32,
    passed: Passed,
}

/// Values and their results.
#[derive(Debug, Default)]
pub struct Memo {
    entries: HashTable<Entry>,
    text: String,
    hasher: foldhash::fast::RandomState,
}

impl Memo {
    /// The value's result, by `scan` if it is new.
    pub fn get_or(&mut self, value: &str, scan: impl FnOnce() -> Passed) -> Passed {
        let hash = self.hasher.hash_one(value);
        let known = self.entries.find(hash, |entry| {
            entry.hash == hash
                && &self.text.as_bytes()[entry.start as usize..][..entry.length as usize] == value.as_bytes()
        });
        if let Some(entry) = known {
            return entry.passed;
        }
        let passed = scan();
        let entry = Entry { hash, start: narrow(self.text.len()), length: narrow(value.len()), passed };
        self.text.push_str(value);
        self.entries.insert_unique(hash, entry, |entry| entry.hash);
        passed
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Forgets all values.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.text.clear();
    }
}

/// Batches and budgets are far below 4 GiB.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("a memo within 4 GiB")
}
