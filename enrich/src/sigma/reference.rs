//! Comparing two fields of the same event.

use std::borrow::Cow;

use hashbrown::HashSet;
use inosec_schemas::{Cell, Columns, FieldId, Value};

use super::fold::{fold, fold_char};

/// With more pairs of values than this, work is saved and limited. Fields hold one value, nearly always; but
/// who writes events can write two long arrays, and a message of 4 MiB has room for 10^11 pairs.
const PAIRS: usize = 16;

/// How many bytes the comparisons of one event may then look at, which takes some 50 ms. What is beyond does
/// not agree. Equal texts are found without.
const WORK: usize = 64 << 20;

/// What a comparison costs at least, in bytes.
const PAIR: usize = 16;

/// A comparison of two fields of the same event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// The field.
    pub field: FieldId,
    /// What it is compared with.
    pub other: FieldId,
    /// Whether text may stand before it.
    pub before: bool,
    /// Whether text may stand after it.
    pub after: bool,
    /// Whether case counts.
    pub cased: bool,
}

impl Reference {
    /// Whether any value of the field agrees with any of the other.
    pub fn holds(self, columns: &Columns<'_>, row: u32) -> bool {
        let (fields, others) = (columns.cells(self.field, row), columns.cells(self.other, row));
        if fields.len().saturating_mul(others.len()) > PAIRS {
            return self.any_agree(&self.folded(fields), &self.folded(others));
        }
        fields.iter().any(|cell| others.iter().any(|other| self.agree(cell, other)))
    }

    fn agree(self, cell: &Cell<'_>, other: &Cell<'_>) -> bool {
        let (Value::Text(text), Value::Text(other)) = (cell.value, other.value) else { return false };
        match (self.before, self.after, self.cased) {
            (false, false, true) => text == other,
            (false, false, false) => text.chars().map(fold_char).eq(other.chars().map(fold_char)),
            (.., true) => self.found(text, other),
            (.., false) => self.found(&fold(text), &fold(other)),
        }
    }

    fn found(self, text: &str, other: &str) -> bool {
        match (self.before, self.after) {
            (true, true) => text.contains(other),
            (true, false) => text.ends_with(other),
            (false, true) => text.starts_with(other),
            (false, false) => text == other,
        }
    }

    /// The texts among values, as they are compared.
    fn folded<'a>(self, cells: &[Cell<'a>]) -> Vec<Cow<'a, str>> {
        let texts = cells.iter().filter_map(|cell| match cell.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::Other => None,
        });
        texts.map(|text| if self.cased { Cow::Borrowed(text) } else { Cow::Owned(fold(text)) }).collect()
    }

    /// The same for any number of values.
    fn any_agree(self, texts: &[Cow<'_, str>], others: &[Cow<'_, str>]) -> bool {
        if !self.before && !self.after {
            let others: HashSet<&str> = others.iter().map(AsRef::as_ref).collect();
            return texts.iter().any(|text| others.contains(text.as_ref()));
        }
        let mut work = WORK;
        for text in texts {
            for other in others {
                let looked_at = if self.before && self.after { text.len() } else { other.len() };
                let Some(left) = work.checked_sub(looked_at + PAIR) else { return false };
                work = left;
                if self.found(text, other) {
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const SIDES: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

    fn columns<'a>(fields: &'a [String], others: &'a [String]) -> Columns<'a> {
        let mut columns = Columns::new(2);
        columns.add_row();
        for (field, texts) in [(FieldId(0), fields), (FieldId(1), others)] {
            texts.iter().for_each(|text| columns.push(field, Value::Text(text)));
            columns.push(field, Value::Null);
        }
        columns
    }

    fn references() -> impl Iterator<Item = Reference> {
        let all = SIDES.into_iter().flat_map(|side| [(side, false), (side, true)]);
        let (field, other) = (FieldId(0), FieldId(1));
        all.map(move |((before, after), cased)| Reference { field, other, before, after, cased })
    }

    #[test]
    fn many_values_agree_as_few_do() {
        let words = ["", "a", "Ab", "bA", "Straße", "aß", "ẞ", "x", "xy", "yX", "zzz", "É", "é"];
        for first in 0..words.len() {
            for second in 0..words.len() {
                let filler = |letter: char| (0..9).map(move |at| format!("{letter}{letter}{at}"));
                let few = [[words[first].to_owned()], [words[second].to_owned()]];
                let many = [('q', words[first]), ('w', words[second])]
                    .map(|(letter, word)| filler(letter).chain([word.to_owned()]).collect::<Vec<_>>());
                for reference in references() {
                    // An empty text is a part of the filler too.
                    let expected = reference.holds(&columns(&few[0], &few[1]), 0)
                        || words[second].is_empty() && (reference.before || reference.after);
                    let found = reference.holds(&columns(&many[0], &many[1]), 0);
                    assert_eq!(found, expected, "{reference:?} {:?} {:?}", words[first], words[second]);
                }
            }
        }
    }

    #[test]
    fn two_long_arrays_take_no_quadratic_time() {
        let fields: Vec<String> = (0..100_000).map(|at| format!("i{at}")).collect();
        let others: Vec<String> = (0..100_000).map(|at| format!("o{at}")).collect();
        let columns = columns(&fields, &others);
        let started = Instant::now();
        for reference in references() {
            assert!(!reference.holds(&columns, 0));
        }
        // 10^10 pairs took minutes.
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}
