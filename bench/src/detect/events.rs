//! The corpus as detection gets it: batches in the order of arrival, in each the events of one class
//! together. For the rival every event is written once as flat JSON with Sigma's field names, so that it
//! neither opens envelopes nor looks into nested objects: that is given to it for nothing.

use std::collections::BTreeMap;

use inosec_ingest::Extractor;
use inosec_schemas::{Catalog, EventClass, LogSources, Path};
use serde_json::{Map, Value};

use crate::corpus::Corpus;
use crate::error::{At, Result};

/// Events that arrive together: what `[batch]` closes at.
const BATCH: usize = 10_000;

/// The member that XML's text becomes where an element also has attributes.
const TEXT: &str = "#text";

/// The events of one class in a batch.
pub struct Group {
    /// The class' number.
    pub class: u32,
    /// Where the events stand in the corpus.
    pub places: Vec<usize>,
    /// The same events as the rival gets them.
    pub flat: Vec<String>,
}

/// The events, and how many have no class.
pub struct Events {
    pub groups: Vec<Group>,
    pub classes: Vec<EventClass>,
    pub unclassified: u64,
}

impl Events {
    /// Classifies the corpus' first `events` events; of classes that `filter` is not in, none is taken.
    pub fn load(
        corpus: &Corpus,
        catalog: &Catalog,
        extractor: &mut Extractor,
        (events, filter, flat): (usize, &str, bool),
    ) -> Result<Self> {
        let classes: Vec<_> = extractor.fields().classes.iter().map(|(class, _)| class.clone()).collect();
        let mut loaded = Self { groups: Vec::new(), classes, unclassified: 0 };
        for first in (0..events).step_by(BATCH) {
            let places = first..events.min(first + BATCH);
            let extracted = extractor.extract(places.clone().map(|place| (corpus.value(place), None)));
            loaded.unclassified += extracted.unclassified.values().sum::<u64>();
            for (class, rows) in &extracted.classes {
                let name = loaded.classes[*class as usize].to_string();
                if rows.messages.is_empty() || !name.contains(filter) {
                    continue;
                }
                let places: Vec<usize> = rows.messages.iter().map(|row| first + *row as usize).collect();
                let mut group = Group { class: *class, places, flat: Vec::new() };
                if flat {
                    group.flatten(corpus, catalog)?;
                }
                loaded.groups.push(group);
            }
        }
        Ok(loaded)
    }

    /// How many events each class has.
    pub fn counts(&self) -> BTreeMap<u32, usize> {
        let mut counts = BTreeMap::new();
        for group in &self.groups {
            *counts.entry(group.class).or_default() += group.places.len();
        }
        counts
    }
}

impl Group {
    fn flatten(&mut self, corpus: &Corpus, catalog: &Catalog) -> Result<()> {
        for place in &self.places {
            let line: Value = serde_json::from_slice(corpus.value(*place)).at("reading an event")?;
            let format = line["fmt"].as_str().unwrap_or_default();
            let format = catalog.formats.iter().find(|known| known.name == format);
            let sources = format.and_then(|format| format.sigma.as_ref()).at("an event of no format")?;
            let fields = match (&line["event"], &line["raw"]) {
                (Value::Object(record), _) => flat(record, sources),
                (_, Value::String(text)) => of_text(text),
                _ => Map::new(),
            };
            self.flat.push(Value::Object(fields).to_string());
        }
        Ok(())
    }
}

/// The record with everything that `[sigma]` says lies elsewhere brought to the top.
fn flat(record: &Map<String, Value>, sources: &LogSources) -> Map<String, Value> {
    let mut flat = record.clone();
    for object in &sources.objects {
        flat.remove(&object.0[0]);
    }
    for object in sources.objects.iter().rev() {
        for members in objects(record, &object.0) {
            let members = members.iter().filter(|(name, _)| !name.starts_with('#'));
            flat.extend(members.map(|(name, value)| (name.replace(' ', ""), plain(value).clone())));
        }
    }
    for (name, paths) in &sources.fields {
        let found = paths.iter().find_map(|path| Some((path, at(record, path)?)));
        let Some((path, value)) = found else { continue };
        if let ([only], false) = (&path.0[..], path.0[0] == *name) {
            flat.remove(only);
        }
        flat.insert(name.clone(), value.clone());
    }
    flat
}

/// The objects at a path, of which `*` is any member.
fn objects<'a>(record: &'a Map<String, Value>, path: &[String]) -> Vec<&'a Map<String, Value>> {
    let Some((first, rest)) = path.split_first() else { return vec![record] };
    let members = record.iter().filter(|(name, _)| first == "*" || *name == first);
    let inner = members.filter_map(|(_, value)| value.as_object());
    inner.flat_map(|inner| objects(inner, rest)).collect()
}

fn at<'a>(record: &'a Map<String, Value>, path: &Path) -> Option<&'a Value> {
    let (first, rest) = path.0.split_first()?;
    let value = rest.iter().try_fold(record.get(first)?, |value, name| value.get(name))?;
    Some(plain(value)).filter(|value| !value.is_null())
}

/// An XML element's text, if it also has attributes.
fn plain(value: &Value) -> &Value {
    value.get(TEXT).unwrap_or(value)
}

/// A line of text: all of it, and what is written `name=value`.
fn of_text(line: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    if line.starts_with("type=") {
        for (name, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
            fields.entry(name).or_insert_with(|| value.trim_matches(['"', '\'']).into());
        }
    }
    fields.insert("message".to_owned(), line.into());
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_to_the_top_under_sigma_s_names() {
        let catalog = Catalog::embedded().expect("the descriptions are sound");
        let flat_as = |format: &str, record: &str| {
            let record: Map<String, Value> = serde_json::from_str(record).expect("JSON");
            let format = catalog.formats.iter().find(|known| known.name == format).expect("a format");
            Value::Object(flat(&record, format.sigma.as_ref().expect("its section"))).to_string()
        };
        assert_eq!(
            flat_as("winlog-beats6", r#"{"event_id":1,"event_data":{"Image":"a"},"message":"m"}"#),
            r#"{"EventID":1,"Image":"a","Message":"m"}"#
        );
        assert_eq!(
            flat_as(
                "evtx-json",
                r##"{"Event":{"System":{"EventID":{"#attributes":{"Q":0},"#text":7},"Provider":{"#attributes":{"Name":"p"}}},"UserData":{"X":{"Threat Name":"t"}}}}"##
            ),
            r##"{"EventID":7,"Provider":{"#attributes":{"Name":"p"}},"Provider_Name":"p","ThreatName":"t"}"##
        );
        assert_eq!(
            flat_as("winlog-nxlog", r#"{"Hostname":"h","Image":"a"}"#),
            r#"{"Computer":"h","Image":"a"}"#
        );
    }
}
