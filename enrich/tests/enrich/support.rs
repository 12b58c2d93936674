//! The shared corpus, and events as the engine takes them.

use std::path::PathBuf;
use std::sync::Arc;

use inosec_enrich::{ClassId, Engine, Hit, Matcher, Selection, Tenants};
use inosec_schemas::{Columns, EventClass, FieldId, Value as Field};
use serde_json::{Map, Value};
use yaml_rust2::{Yaml, YamlLoader};

/// The corpus' folder; said loudly where it is missing. With `CI=true` it must be there.
pub fn folder() -> Option<PathBuf> {
    // From this room or from the root, whose tests use this file too.
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let beside = ["../shared/data", "../../shared/data"]
        .map(|up| here.join(up))
        .into_iter()
        .find(|path| path.exists());
    let folder = std::env::var_os("INOSEC_CORPUS").map(PathBuf::from).or(beside).unwrap_or(here);
    if folder.join("sigma_rules.jsonl.zst").exists() {
        return Some(folder);
    }
    let text = format!("NOT TESTED: the corpus is not at {}: set INOSEC_CORPUS", folder.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{text}");
    println!("{text}");
    None
}

/// A file of the corpus, unpacked.
pub fn text(file: &str) -> Option<String> {
    let bytes = std::fs::read(folder()?.join(file)).unwrap();
    let bytes = if file.ends_with(".zst") { zstd::decode_all(&bytes[..]).unwrap() } else { bytes };
    Some(String::from_utf8(bytes).unwrap())
}

/// The JSON lines of a file of the corpus.
pub fn lines(file: &str) -> Option<Vec<Value>> {
    text(file).map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// A rule as the corpus holds it.
pub struct RuleText {
    pub path: String,
    pub yaml: String,
}

pub fn rule_texts() -> Option<Vec<RuleText>> {
    let rule = |line: Value| RuleText {
        path: line["rule_path"].as_str().unwrap().to_owned(),
        yaml: line["yaml"].as_str().unwrap().to_owned(),
    };
    Some(lines("sigma_rules.jsonl.zst")?.into_iter().map(rule).collect())
}

/// Category, service, event ids, channels.
type MapEntry = (Option<String>, Option<String>, Vec<String>, Vec<String>);

/// Which categories and services a Windows event has, read from the corpus.
pub struct WindowsMap {
    entries: Vec<MapEntry>,
}

impl WindowsMap {
    pub fn load() -> Option<Self> {
        let documents = YamlLoader::load_from_str(&text("windows_logsource_map.yml")?).unwrap();
        let entries = documents[0]["transformations"].as_vec().unwrap().iter().map(|entry| {
            let rule = &entry["rule_conditions"][0];
            let name = |key: &str| rule[key].as_str().map(str::to_owned);
            let conditions = &entry["conditions"];
            (name("category"), name("service"), list(&conditions["EventID"]), list(&conditions["Channel"]))
        });
        Some(Self { entries: entries.collect() })
    }

    pub fn class(&self, event: &Map<String, Value>) -> EventClass {
        let scalar = |name: &str| event.get(name).map(plain).unwrap_or_default();
        let (id, channel) = (scalar("EventID"), scalar("Channel"));
        let mut class = EventClass { product: Some("windows".to_owned()), ..EventClass::default() };
        for (category, service, ids, channels) in &self.entries {
            let applies = (ids.is_empty() || ids.contains(&id))
                && (channels.is_empty() || channels.iter().any(|one| one.eq_ignore_ascii_case(&channel)));
            if applies {
                class.categories.extend(category.clone());
                class.services.extend(service.clone());
            }
        }
        class
    }
}

fn list(yaml: &Yaml) -> Vec<String> {
    match yaml {
        Yaml::Array(items) => items.iter().flat_map(list).collect(),
        Yaml::Integer(number) => vec![number.to_string()],
        Yaml::String(text) => vec![text.clone()],
        _ => Vec::new(),
    }
}

/// A scalar's text.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A Windows event as one level of fields, named as Sigma names them.
pub fn flat(event: &Value) -> Map<String, Value> {
    let Some(root) = event.get("Event").and_then(Value::as_object) else {
        return event.as_object().cloned().unwrap_or_default();
    };
    let mut fields = Map::new();
    for section in ["System", "EventData", "UserData"] {
        let Some(Value::Object(section_fields)) = root.get(section) else { continue };
        for (name, value) in section_fields {
            add(&mut fields, name, value, section == "UserData");
        }
    }
    fields
}

fn add(fields: &mut Map<String, Value>, name: &str, value: &Value, nested: bool) {
    let name: String = name.chars().filter(|character| *character != ' ').collect();
    let Value::Object(inner) = value else {
        if name != "#attributes" {
            fields.insert(name, value.clone());
        }
        return;
    };
    if let Some(Value::Object(attributes)) = inner.get("#attributes") {
        for (attribute, value) in attributes {
            fields.insert(format!("{name}_{attribute}"), value.clone());
        }
    }
    if let Some(text) = inner.get("#text") {
        fields.insert(name, text.clone());
    }
    if nested {
        inner
            .iter()
            .filter(|(name, _)| !name.starts_with('#'))
            .for_each(|(name, value)| add(fields, name, value, true));
    }
}

/// A value and everything below it, as decode would give it: arrays are several values, objects fields
/// with dotted names.
fn walk<'a>(name: &str, value: &'a Value, texts: &'a Texts, found: &mut impl FnMut(&str, Field<'a>)) {
    match value {
        Value::Null => found(name, Field::Null),
        Value::String(text) => found(name, Field::Text(text)),
        Value::Bool(_) | Value::Number(_) => found(name, Field::Text(texts.get(value))),
        Value::Array(items) if items.is_empty() => found(name, Field::Other),
        Value::Array(items) => items.iter().for_each(|item| walk(name, item, texts, found)),
        Value::Object(fields) => {
            found(name, Field::Other);
            for (inner, value) in fields {
                walk(&format!("{name}.{inner}"), value, texts, found);
            }
        }
    }
}

/// Texts of numbers and booleans, which columns borrow.
#[derive(Default)]
pub struct Texts {
    texts: std::collections::HashMap<Value, String>,
}

impl Texts {
    pub fn of<'a>(events: impl Iterator<Item = &'a Map<String, Value>>) -> Self {
        let mut texts = Self::default();
        events.flat_map(Map::values).for_each(|value| texts.collect(value));
        texts
    }

    fn collect(&mut self, value: &Value) {
        match value {
            Value::Bool(_) | Value::Number(_) => {
                self.texts.entry(value.clone()).or_insert_with(|| value.to_string());
            }
            Value::Array(items) => items.iter().for_each(|item| self.collect(item)),
            Value::Object(fields) => fields.values().for_each(|value| self.collect(value)),
            Value::Null | Value::String(_) => {}
        }
    }

    fn get(&self, value: &Value) -> &str {
        &self.texts[value]
    }
}

/// Columns of events of one class.
pub fn columns<'a>(
    engine: &Engine,
    class: ClassId,
    events: &[&'a Map<String, Value>],
    texts: &'a Texts,
) -> Columns<'a> {
    let wanted = engine.wanted(class);
    let mut columns = Columns::new(engine.fields().len());
    for event in events {
        columns.add_row();
        for (name, value) in *event {
            walk(name, value, texts, &mut |name, field| match (
                engine.fields().get(name).filter(|id: &FieldId| wanted.has(*id)),
                field,
            ) {
                (Some(id), field) => columns.push(id, field),
                (None, Field::Text(text)) if wanted.keywords => columns.push_rest(text),
                (None, _) => {}
            });
        }
    }
    columns
}

/// Runs one tenant with every rule over events of one class.
pub fn run(matcher: &mut Matcher, class: ClassId, events: &[&Map<String, Value>]) -> Vec<Hit> {
    let engine = Arc::clone(matcher.engine());
    let texts = Texts::of(events.iter().copied());
    let columns = columns(&engine, class, events, &texts);
    let mut tenants = Tenants::default();
    let tenant = tenants.add(Selection::all(&engine));
    let mut hits = Vec::new();
    matcher.run(class, &columns, &tenants, &vec![tenant; events.len()], &mut hits);
    hits
}
