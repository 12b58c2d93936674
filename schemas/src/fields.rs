//! The seam between decode and detection: the fields that rules mention, as sparse columns.
//!
//! Detection names its fields once in [`FieldNames`]; decode asks it for the [`FieldId`] behind each name
//! a wire format can give, and for each class of event which fields are [`Wanted`]. It then fills one
//! [`Columns`] per batch and class: values are borrowed from the messages, nothing is copied. Neither
//! side knows the other.

use hashbrown::HashMap;

/// A field's number in [`FieldNames`]; dense, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldId(pub u32);

impl FieldId {
    /// The number as an index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The names of the fields that the loaded rules mention, exactly as the rules write them.
#[derive(Debug, Clone, Default)]
pub struct FieldNames {
    names: Vec<String>,
    ids: HashMap<String, FieldId, foldhash::fast::RandomState>,
}

impl FieldNames {
    /// The field's number, given out on first sight.
    ///
    /// # Panics
    /// Beyond 2^32 names.
    pub fn intern(&mut self, name: &str) -> FieldId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = FieldId(u32::try_from(self.names.len()).expect("fewer than 2^32 fields"));
        self.names.push(name.to_owned());
        self.ids.insert(name.to_owned(), id);
        id
    }

    /// The field's number, if any rule mentions it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<FieldId> {
        self.ids.get(name).copied()
    }

    /// The field's name.
    #[must_use]
    pub fn name(&self, id: FieldId) -> &str {
        &self.names[id.index()]
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// What the rules of one class of events look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The fields, ascending.
    pub fields: Vec<FieldId>,
    /// Whether a rule searches the whole event: then every scalar of the event goes somewhere, those
    /// of no wanted field through [`Columns::push_rest`].
    pub keywords: bool,
}

impl Wanted {
    /// Whether the field is looked at.
    #[must_use]
    pub fn has(&self, field: FieldId) -> bool {
        self.fields.binary_search(&field).is_ok()
    }
}

/// One value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A string, or a number or boolean as its JSON text (`4688`, `1.5`, `true`).
    Text(&'a str),
    /// An explicit `null`.
    Null,
    /// The field is there, but holds neither text nor null: an object, or an empty array.
    Other,
}

/// A value and its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell<'a> {
    /// The event's number within the batch.
    pub row: u32,
    /// Its value.
    pub value: Value<'a>,
}

/// Sparse columns of a batch of events of one class.
///
/// Rows are pushed in ascending order within a column. An array is several values of the same row. A
/// field that an event does not have is not pushed.
#[derive(Debug, Default)]
pub struct Columns<'a> {
    rows: u32,
    columns: Vec<Vec<Cell<'a>>>,
    rest: Vec<Cell<'a>>,
}

impl<'a> Columns<'a> {
    /// No rows, room for `fields` columns (that is [`FieldNames::len`]).
    #[must_use]
    pub fn new(fields: usize) -> Self {
        Self { rows: 0, columns: std::iter::repeat_with(Vec::new).take(fields).collect(), rest: Vec::new() }
    }

    /// Opens the next row and returns its number; what is pushed now belongs to it.
    pub fn add_row(&mut self) -> u32 {
        let row = self.rows;
        self.rows += 1;
        row
    }

    /// Adds a value of the row opened last.
    pub fn push(&mut self, field: FieldId, value: Value<'a>) {
        debug_assert!(self.rows > 0, "a row is opened before its values");
        self.columns[field.index()].push(Cell { row: self.rows - 1, value });
    }

    /// Adds a scalar of the row opened last that belongs to no wanted field, for keyword rules.
    pub fn push_rest(&mut self, text: &'a str) {
        debug_assert!(self.rows > 0, "a row is opened before its values");
        self.rest.push(Cell { row: self.rows - 1, value: Value::Text(text) });
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// The columns that hold anything, by field.
    pub fn iter(&self) -> impl Iterator<Item = (FieldId, &[Cell<'a>])> {
        let numbered = (0..).map(FieldId).zip(&self.columns);
        numbered.filter(|(_, cells)| !cells.is_empty()).map(|(field, cells)| (field, cells.as_slice()))
    }

    /// One field's values, rows ascending.
    #[must_use]
    pub fn column(&self, field: FieldId) -> &[Cell<'a>] {
        self.columns.get(field.index()).map_or(&[], Vec::as_slice)
    }

    /// One field's values in one row.
    #[must_use]
    pub fn cells(&self, field: FieldId, row: u32) -> &[Cell<'a>] {
        let column = self.column(field);
        let start = column.partition_point(|cell| cell.row < row);
        let length = column[start..].iter().take_while(|cell| cell.row == row).count();
        &column[start..start + length]
    }

    /// The scalars that belong to no wanted field.
    #[must_use]
    pub fn rest(&self) -> &[Cell<'a>] {
        &self.rest
    }

    /// Empty again, its memory kept for a batch that borrows from other messages.
    #[must_use]
    pub fn recycle<'b>(self) -> Columns<'b> {
        let columns = self.columns.into_iter().map(recycle).collect();
        Columns { rows: 0, columns, rest: recycle(self.rest) }
    }
}

/// The same allocation with another lifetime: collecting in place keeps it.
fn recycle<'b>(mut cells: Vec<Cell<'_>>) -> Vec<Cell<'b>> {
    cells.clear();
    cells.into_iter().map(|cell| Cell { row: cell.row, value: Value::Null }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_finds_its_values() {
        let mut columns = Columns::new(2);
        let text = String::from("a");
        for row in 0..3 {
            assert_eq!(columns.add_row(), row);
            if row != 1 {
                columns.push(FieldId(1), Value::Text(&text));
                columns.push(FieldId(1), Value::Null);
            }
        }
        assert_eq!(columns.cells(FieldId(1), 0).len(), 2);
        assert_eq!(columns.cells(FieldId(1), 1).len(), 0);
        assert_eq!(columns.cells(FieldId(1), 2)[1], Cell { row: 2, value: Value::Null });
        assert_eq!(columns.cells(FieldId(0), 2).len(), 0);
    }

    #[test]
    fn recycling_keeps_the_memory() {
        let mut columns = Columns::new(1);
        columns.add_row();
        for _ in 0..100 {
            columns.push(FieldId(0), Value::Null);
        }
        let before = columns.columns[0].as_ptr() as usize;
        let again: Columns<'_> = columns.recycle();
        assert_eq!((again.rows(), again.column(FieldId(0)).len()), (0, 0));
        assert_eq!(again.columns[0].as_ptr() as usize, before);
    }
}
