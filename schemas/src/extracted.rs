//! What decode takes from events for detection: decode fills it, detection reads it.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::fields::{Columns, FieldId, Value};

/// The fields of a run of events, class by class. All classes share one memory: a burst of one class
/// leaves no room behind that only this class could use again.
#[derive(Debug, Default)]
pub struct Extracted {
    /// The classes, by their number in [`ClassFields::classes`](crate::ClassFields::classes); some may be
    /// empty.
    pub classes: BTreeMap<u32, ClassRows>,
    /// How many events have no class, by format.
    pub unclassified: BTreeMap<String, u64>,
    /// The messages that can't be read, and why; in the road these are dead letters instead.
    pub unreadable: Vec<(u32, String)>,
    cells: Vec<Taken>,
    text: String,
    /// Where the cells of the event start that is being read.
    open: usize,
}

/// The events of one class.
#[derive(Debug, Default)]
pub struct ClassRows {
    /// Each event's message, ascending.
    pub messages: Vec<u32>,
    /// Where each event's cells lie.
    places: Vec<Range<usize>>,
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
    /// A place in [`Extracted::text`].
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
        self.cells.clear();
        self.text.clear();
        self.open = 0;
    }

    /// Counts an event of a format that has no class.
    pub fn unclassified(&mut self, format: &str) {
        match self.unclassified.get_mut(format) {
            Some(count) => *count += 1,
            None => drop(self.unclassified.insert(format.to_owned(), 1)),
        }
    }

    /// The text that values lie in; it only grows.
    pub fn text(&mut self) -> &mut String {
        &mut self.text
    }

    /// Adds a value of the event that is being read: of a field, or of none that is wanted.
    pub fn push(&mut self, field: Option<FieldId>, value: Kept) {
        self.cells.push(Taken { field, value });
    }

    /// Ends the event: it is of this class and came from this message.
    pub fn close(&mut self, class: u32, message: u32) {
        let rows = self.classes.entry(class).or_default();
        rows.messages.push(message);
        rows.places.push(self.open..self.cells.len());
        self.open = self.cells.len();
    }

    /// Fills columns, which are empty, with the events of one of its classes in order.
    #[must_use]
    pub fn fill<'a>(&'a self, rows: &ClassRows, mut columns: Columns<'a>) -> Columns<'a> {
        for place in &rows.places {
            columns.add_row();
            for taken in &self.cells[place.clone()] {
                match (taken.field, self.value(taken)) {
                    (Some(field), value) => columns.push(field, value),
                    (None, Value::Text(text)) => columns.push_rest(text),
                    (None, _) => {}
                }
            }
        }
        columns
    }

    /// One field's values in one event of one of its classes, found by looking through the event's.
    pub fn values(&self, rows: &ClassRows, event: u32, field: FieldId) -> impl Iterator<Item = Value<'_>> {
        let cells = &self.cells[rows.places[event as usize].clone()];
        cells.iter().filter(move |taken| taken.field == Some(field)).map(|taken| self.value(taken))
    }

    fn value(&self, taken: &Taken) -> Value<'_> {
        match &taken.value {
            Kept::Text(range) => Value::Text(&self.text[range.clone()]),
            Kept::Null => Value::Null,
            Kept::Other => Value::Other,
        }
    }
}

impl ClassRows {
    fn clear(&mut self) {
        self.messages.clear();
        self.places.clear();
    }
}
