//! Records to the fields that detection rules look at, class by class.
//!
//! In: records as decode reads them and, in [`ClassFields`], what rules want. Out: per class its events,
//! and their wanted values in one text, from which [`Columns`](inosec_schemas::Columns) borrow. Nothing here knows a
//! rule. Events that have no class are counted, never matched.

use std::ops::Range;

use hashbrown::HashMap;
use inosec_schemas::{Catalog, ClassFields, EventClass, Extracted, LogSources};

use super::envelope::{self, Envelope};
use super::lookup::{Paths, Walk, key};
use super::names::Names;
use super::plan::Plans;
use super::read::Reader;
use super::record::{Fields, Record};
use super::{Limits, WATCHED};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// How many keys of a format are remembered with their class; then they are forgotten.
const KEYS: usize = 4096;

/// Takes from records what detection rules look at; keeps what it learnt between batches.
#[derive(Debug)]
pub struct Watch {
    fields: ClassFields,
    classes: Map<EventClass, u32>,
    sections: Map<String, Section>,
    walk: Walk,
    extracted: Extracted,
}

/// Reads messages for their fields alone: for detection outside the road.
#[derive(Debug)]
pub struct Extractor {
    watch: Watch,
    reader: Reader,
    plans: Option<Plans>,
    names: Names,
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

impl Watch {
    /// Asks the catalogue's formats for the classes and fields that `fields` names.
    #[must_use]
    pub fn new(catalog: &Catalog, fields: ClassFields) -> Self {
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
        let sections = sections.collect();
        Self { fields, classes, sections, walk: Walk::default(), extracted: Extracted::default() }
    }

    /// The classes and fields it was made for.
    #[must_use]
    pub fn fields(&self) -> &ClassFields {
        &self.fields
    }

    /// What was taken since the last [`begin`](Self::begin).
    #[must_use]
    pub fn extracted(&self) -> &Extracted {
        &self.extracted
    }

    /// Empties it, keeping its memory.
    pub(crate) fn begin(&mut self) {
        self.extracted.clear();
    }

    /// Takes a record's fields.
    pub(crate) fn take(&mut self, index: u32, format: &str, record: &Record<'_>, envelope: &Envelope<'_>) {
        let Self { fields, classes, sections, walk, extracted } = self;
        let section = sections.get_mut(format);
        let class = section.and_then(|section| {
            let class = section.class(record, envelope, classes)?;
            Some((section, class))
        });
        let Some((section, class)) = class else {
            extracted.unclassified(format);
            return;
        };
        let wanted = &fields.classes[class as usize].1;
        let paths = section
            .paths
            .entry(class)
            .or_insert_with(|| Paths::compile(&section.sources, &fields.names, wanted));
        match (record, envelope.record) {
            (Record::Json(tape), envelope::Record::Json(root)) => {
                walk.json(paths, wanted.keywords, tape, root, extracted);
            }
            (Record::Text(texts), envelope::Record::Text(line)) => {
                walk.text(paths, wanted.keywords, texts, line, extracted);
            }
            _ => unreachable!("a record is read as it is written"),
        }
        extracted.close(class, index);
    }
}

impl Extractor {
    /// Asks the catalogue's formats for the classes and fields that `fields` names.
    #[must_use]
    pub fn new(catalog: &Catalog, fields: ClassFields, limits: Limits) -> Self {
        let mut names = Names::default();
        let stream = catalog.streams.get(WATCHED);
        Self {
            watch: Watch::new(catalog, fields),
            reader: Reader::new(limits),
            plans: stream.map(|stream| Plans::compile(catalog, stream, &mut names)),
            names,
        }
    }

    /// The classes and fields it was made for.
    #[must_use]
    pub fn fields(&self) -> &ClassFields {
        self.watch.fields()
    }

    /// Takes the fields of all messages: each with the format its sender names, if any.
    pub fn extract<'m>(
        &mut self,
        messages: impl IntoIterator<Item = (&'m [u8], Option<&'m str>)>,
    ) -> Extracted {
        let Self { watch, reader, plans, names } = self;
        for (index, (value, told)) in (0..).zip(messages) {
            let read = reader.open(value, |mut opened| {
                let Some(plans) = plans else { return Ok(()) };
                let (envelope, mut fields) = (opened.envelope, Fields::default());
                let (chosen, record) = opened.recognise(told, plans, names, &mut fields)?;
                watch.take(index, &chosen.format.name, &record, &envelope);
                Ok(())
            });
            if let Err(reject) = read {
                watch.extracted.unreadable.push((index, reject.detail));
            }
        }
        std::mem::take(&mut watch.extracted)
    }

    /// Takes back what the last batch held, for its memory: growing it anew costs a quarter of the time.
    pub fn recycle(&mut self, extracted: Extracted) {
        self.watch.extracted = extracted;
        self.watch.extracted.clear();
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

#[cfg(test)]
mod tests {
    use inosec_schemas::{FieldNames, Wanted};

    use super::*;

    const LIMITS: Limits =
        Limits { max_age_us: 0, max_skew_us: 0, max_message_bytes: 16 << 20, max_depth: 128 };

    fn auditd(keywords: bool, line: &str) -> usize {
        let catalog = Catalog::embedded().unwrap();
        let class = EventClass::triple(Some("linux"), None, Some("auditd"));
        let mut names = FieldNames::default();
        let wanted = Wanted { fields: vec![names.intern("a1")], keywords };
        let fields = ClassFields { names: names.clone(), classes: vec![(class, wanted)] };
        let mut extractor = Extractor::new(&catalog, fields, LIMITS);
        let extracted = extractor.extract([(line.as_bytes(), Some("auditd"))]);
        let rows = &extracted.classes[&0];
        let columns = extracted.fill(rows, inosec_schemas::Columns::new(names.len()));
        assert_eq!(columns.column(names.get("a1").unwrap()).len(), 1);
        columns.rest().len()
    }

    /// Minutes, when every value was looked for in the whole line.
    #[test]
    fn a_long_line_of_decoded_arguments_takes_no_quadratic_time() {
        let arguments = 100_000;
        let hex: String = (0..arguments).map(|at| format!(" a{at}=2F746D702F20{:08X}", at % 1000)).collect();
        let line = format!("type=EXECVE msg=audit(1700000000.123:42): argc={arguments}{hex}");
        let rest = auditd(true, &line);
        assert!(rest > arguments, "{rest}: what is decoded is searched, and the line");
        assert_eq!(auditd(false, &line), 0);
    }
}
