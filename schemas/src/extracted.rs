//! What a batch holds for detection: decode fills it, detection reads it.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::fields::{Columns, FieldId, Value};

/// The fields of a batch's events, class by class.
#[derive(Debug, Default)]
pub struct Extracted {
    /// The classes, by their number in [`ClassFields::classes`](crate::ClassFields::classes); some may be
    /// empty.
    pub classes: BTreeMap<u32, ClassRows>,
    /// How many events have no class, by format.
    pub unclassified: BTreeMap<String, u64>,
    /// The messages that can't be read, and why; in the road these are dead letters instead.
    pub unreadable: Vec<(u32, String)>,
}

/// The events of one class in a batch.
#[derive(Debug, Default)]
pub struct ClassRows {
    /// Each event's message, ascending.
    pub messages: Vec<u32>,
    /// What belongs to each event ends here in `cells`.
    ends: Vec<usize>,
    cells: Vec<Taken>,
    text: String,
}

/// A value of a field, or of no wanted field.
#[derive(Debug, Clone)]
struct Taken {
    field: Option<FieldId>,
    value: Kept,
}

/// A value on its way to a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A place in the rows' text.
    Text(Range<usize>),
    /// An explicit `null`.
    Null,
    /// An object or an empty array.
    Other,
}

impl Extracted {
    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.unclassified.clear();
        self.unreadable.clear();
        self.classes.values_mut().for_each(ClassRows::clear);
    }

    /// Counts an event of a format that has no class.
    pub fn unclassified(&mut self, format: &str) {
        match self.unclassified.get_mut(format) {
            Some(count) => *count += 1,
            None => drop(self.unclassified.insert(format.to_owned(), 1)),
        }
    }
}

impl ClassRows {
    /// Fills columns, which are empty, with the events in order.
    #[must_use]
    pub fn fill<'a>(&'a self, mut columns: Columns<'a>) -> Columns<'a> {
        let mut start = 0;
        for end in &self.ends {
            columns.add_row();
            for Taken { field, value } in &self.cells[start..*end] {
                let value = match value {
                    Kept::Text(range) => Value::Text(&self.text[range.clone()]),
                    Kept::Null => Value::Null,
                    Kept::Other => Value::Other,
                };
                match (field, value) {
                    (Some(field), value) => columns.push(*field, value),
                    (None, Value::Text(text)) => columns.push_rest(text),
                    (None, _) => {}
                }
            }
            start = *end;
        }
        columns
    }

    /// The text that values lie in; it only grows.
    pub fn text(&mut self) -> &mut String {
        &mut self.text
    }

    /// Adds a value of the event that is being read: of a field, or of none that is wanted.
    pub fn push(&mut self, field: Option<FieldId>, value: Kept) {
        self.cells.push(Taken { field, value });
    }

    /// Ends the event: it came from this message.
    pub fn close(&mut self, message: u32) {
        self.messages.push(message);
        self.ends.push(self.cells.len());
    }

    fn clear(&mut self) {
        self.messages.clear();
        self.ends.clear();
        self.cells.clear();
        self.text.clear();
    }
}
