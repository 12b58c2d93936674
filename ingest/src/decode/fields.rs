//! Messages to the fields that detection rules look at, class by class.
//!
//! In: a batch of messages and, in [`ClassFields`], what rules want. Out: per class the rows of its
//! events and their wanted values in one text, from which [`Columns`] borrow. Nothing here knows a rule.
//! Messages that can't be read or have no class are counted, never matched.

use std::collections::BTreeMap;
use std::ops::Range;

use hashbrown::HashMap;
use inosec_schemas::{Catalog, ClassFields, Columns, EventClass, FieldId, LogSources, Value};
use simd_json::{Node, Tape};

use super::envelope::{self, Envelope};
use super::json::{self, Parser, Written};
use super::lookup::{Paths, Walk, key};
use super::names::{Hit, Names};
use super::plan::Plans;
use super::record::{Fields, Record};
use super::{Limits, Reject};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The stream whose formats are asked.
const STREAM: &str = "agent_logs";
/// How many keys of a format are remembered with their class; then they are forgotten.
const KEYS: usize = 4096;

/// Takes from messages what detection rules look at; keeps what it learnt between batches.
#[derive(Debug)]
pub struct Extractor {
    limits: Limits,
    fields: ClassFields,
    classes: Map<EventClass, u32>,
    sections: Map<String, Section>,
    plans: Option<Plans>,
    names: Names,
    parser: Parser,
    tape: Tape<'static>,
    hits: Vec<Hit>,
    walk: Walk,
}

/// A format's `[sigma]` section and what was learnt with it.
#[derive(Debug)]
struct Section {
    sources: LogSources,
    /// Class by the look-ups' keys.
    known: Map<String, Option<u32>>,
    /// Where the wanted fields lie, by class.
    paths: Map<u32, Paths>,
    key: String,
}

/// What a batch of messages holds for detection.
#[derive(Debug, Default)]
pub struct Extracted {
    /// The classes of which there are events, by their number in [`ClassFields::classes`].
    pub classes: BTreeMap<u32, ClassRows>,
    /// How many messages have no class, by format.
    pub unclassified: BTreeMap<String, u64>,
    /// The messages that can't be read, and why.
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
pub(crate) enum Kept {
    /// A place in the rows' text.
    Text(Range<usize>),
    /// An explicit `null`.
    Null,
    /// An object or an empty array.
    Other,
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

    pub(crate) fn text(&mut self) -> &mut String {
        &mut self.text
    }

    pub(crate) fn push(&mut self, field: Option<FieldId>, value: Kept) {
        self.cells.push(Taken { field, value });
    }

    fn close(&mut self, message: u32) {
        self.messages.push(message);
        self.ends.push(self.cells.len());
    }
}

impl Extractor {
    /// Asks the catalogue's formats for the classes and fields that `fields` names.
    #[must_use]
    pub fn new(catalog: &Catalog, fields: ClassFields, limits: Limits) -> Self {
        let mut names = Names::default();
        let plans = catalog.streams.get(STREAM).map(|stream| Plans::compile(catalog, stream, &mut names));
        let numbered = (0..).zip(&fields.classes);
        let classes = numbered.map(|(number, (class, _))| (class.clone(), number)).collect();
        let sections = catalog.formats.iter().filter_map(|format| {
            let section = Section {
                sources: format.sigma.clone()?,
                known: Map::default(),
                paths: Map::default(),
                key: String::new(),
            };
            Some((format.name.clone(), section))
        });
        Self {
            limits,
            classes,
            sections: sections.collect(),
            fields,
            plans,
            names,
            parser: Parser::new(limits.max_depth),
            tape: Tape(Vec::new()),
            hits: Vec::new(),
            walk: Walk::default(),
        }
    }

    /// The classes and fields it was made for.
    #[must_use]
    pub fn fields(&self) -> &ClassFields {
        &self.fields
    }

    /// Takes the fields of all messages: each with the format its sender names, if any.
    pub fn extract<'m>(
        &mut self,
        messages: impl IntoIterator<Item = (&'m [u8], Option<&'m str>)>,
    ) -> Extracted {
        let mut extracted = Extracted::default();
        for (index, (value, told)) in (0..).zip(messages) {
            if let Err(reject) = self.message(index, value, told, &mut extracted) {
                extracted.unreadable.push((index, reject.detail));
            }
        }
        extracted
    }

    fn message(
        &mut self,
        index: u32,
        value: &[u8],
        told: Option<&str>,
        extracted: &mut Extracted,
    ) -> Result<(), Reject> {
        if value.len() > self.limits.max_message_bytes {
            let allowed = self.limits.max_message_bytes;
            let detail = format!("{} bytes, {allowed} are allowed", value.len());
            return Err(Reject::new(inosec_schemas::Reason::TooLarge, detail));
        }
        let Self { parser, tape, fields, classes, sections, plans, names, hits, walk, .. } = self;
        let Some(plans) = plans else { return Ok(()) };
        let mut reader = Reader { fields, classes, sections, plans, names, hits, walk };
        if json::written(value)? == Written::Text {
            return reader.record(index, &Envelope::of_text(value)?, &[], told, extracted);
        }
        json::with_tape(parser, tape, value, |tape| {
            reader.record(index, &Envelope::of_json(tape), tape, told, extracted)
        })?
    }
}

/// What reading a record needs.
struct Reader<'a> {
    fields: &'a ClassFields,
    classes: &'a Map<EventClass, u32>,
    sections: &'a mut Map<String, Section>,
    plans: &'a Plans,
    names: &'a mut Names,
    hits: &'a mut Vec<Hit>,
    walk: &'a mut Walk,
}

impl Reader<'_> {
    fn record(
        &mut self,
        index: u32,
        envelope: &Envelope<'_>,
        tape: &[Node<'_>],
        told: Option<&str>,
        extracted: &mut Extracted,
    ) -> Result<(), Reject> {
        let told = told.or(envelope.format);
        self.hits.clear();
        let mut texts = Fields::default();
        let (chosen, record) = match envelope.record {
            envelope::Record::Json(root) => {
                self.names.walk(tape, root, self.hits);
                let record = Record::Json(tape);
                (self.plans.choose_json(told, &record, self.hits)?, record)
            }
            envelope::Record::Text(text) => {
                let chosen = self.plans.choose_text(told, text, &mut texts)?;
                (chosen, Record::Text(&texts))
            }
        };
        let format = &chosen.format.name;
        let section = self.sections.get_mut(format);
        let class = section.and_then(|section| {
            let class = section.class(&record, envelope, self.classes)?;
            Some((section, class))
        });
        let Some((section, class)) = class else {
            *extracted.unclassified.entry_ref(format) += 1;
            return Ok(());
        };
        let wanted = &self.fields.classes[class as usize].1;
        let paths = section
            .paths
            .entry(class)
            .or_insert_with(|| Paths::compile(&section.sources, &self.fields.names, wanted));
        let rows = extracted.classes.entry(class).or_default();
        match envelope.record {
            envelope::Record::Json(root) => self.walk.json(paths, wanted.keywords, tape, root, rows),
            envelope::Record::Text(line) => self.walk.text(paths, wanted.keywords, &texts, line, rows),
        }
        rows.close(index);
        Ok(())
    }
}

impl Section {
    /// The number of the record's class, if it has one that is known.
    fn class(
        &mut self,
        record: &Record<'_>,
        envelope: &Envelope<'_>,
        classes: &Map<EventClass, u32>,
    ) -> Option<u32> {
        let root = match envelope.record {
            envelope::Record::Json(root) => root,
            envelope::Record::Text(_) => 0,
        };
        let sources = [&self.sources.product, &self.sources.category, &self.sources.service];
        self.key.clear();
        let mut ends = [0; 3];
        for (source, end) in sources.iter().zip(&mut ends) {
            key(source, record, root, &mut self.key);
            *end = self.key.len();
        }
        self.key.make_ascii_lowercase();
        if let Some(class) = self.known.get(&self.key) {
            return *class;
        }
        let [product, category, _] = ends;
        let of = |range: Range<usize>| &self.key[range];
        let class = self.sources.class(of(0..product), of(product..category), of(category..self.key.len()));
        let class = class.and_then(|class| classes.get(&class).copied());
        if self.known.len() >= KEYS {
            self.known.clear();
        }
        self.known.insert(self.key.clone(), class);
        class
    }
}

/// A count by name, allocated for once.
trait EntryRef {
    fn entry_ref(&mut self, name: &str) -> &mut u64;
}

impl EntryRef for BTreeMap<String, u64> {
    fn entry_ref(&mut self, name: &str) -> &mut u64 {
        if !self.contains_key(name) {
            self.insert(name.to_owned(), 0);
        }
        self.get_mut(name).expect("just inserted")
    }
}
