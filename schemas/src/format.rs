//! A wire format: how its records are recognised and how their fields map to columns. One TOML
//! file each; the mapping is data, so a slow independent extractor can check the fast one.
//!
//! A path names members from the record down, joined by dots (`event_data.Image`); it also matches
//! a single member whose name contains those dots (`"host.name": …`), as flattened ECS has it. A
//! member within others whose own name has dots is quoted (`output_fields."user.name"`). Of
//! several paths the first whose value is present, not null and not the empty text wins.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::{Error, Kind, LogSources};

/// How a record is read before its fields are mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// A JSON object.
    Json,
    /// A syslog line, RFC 3164 or RFC 5424.
    Syslog,
    /// A line of the Linux audit log.
    Auditd,
    /// Any other line of text.
    Text,
}

/// Member names from the record down.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(from = "String")]
pub struct Path(pub Vec<String>);

impl From<String> for Path {
    fn from(text: String) -> Self {
        let mut quoted = false;
        let members = text.split(|c| {
            quoted ^= c == '"';
            c == '.' && !quoted
        });
        Self(members.map(|member| member.trim_matches('"').to_owned()).collect())
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// What must hold of a record. All parts that are given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Every one of these is present (null counts as absent).
    #[serde(default)]
    pub all: Vec<Path>,
    /// At least one of these is present.
    #[serde(default)]
    pub any: Vec<Path>,
    /// None of these is present.
    #[serde(default)]
    pub none: Vec<Path>,
    /// Each of these has one of the texts (numbers and booleans as JSON writes them). Several paths
    /// of one value are separated by `|`: any of them will do.
    #[serde(default)]
    pub equals: BTreeMap<String, Vec<String>>,
}

/// Where a column's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The first of these paths that has a value.
    First(Vec<Path>),
    /// A table look-up: per part the first path that has a value (else the empty text), the parts
    /// joined by `/`, compared in ASCII lower case.
    Lookup {
        /// The parts of the key.
        key: Vec<Vec<Path>>,
        /// Key to value, the value as text of the column's kind.
        map: Arc<BTreeMap<String, String>>,
        /// The value for other keys.
        default: Option<String>,
    },
    /// A JSON object of members that are there, for a column of [`Kind::Json`].
    Members(BTreeMap<String, Vec<Path>>),
    /// The same id for the same values, for a column of [`Kind::Uuid`]. Is one of them missing, there
    /// is none.
    Id(Vec<Vec<Path>>),
}

/// How a format feeds one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Which records of the format feed the stream; empty means all.
    pub when: Condition,
    /// Column to source, by column name.
    pub columns: BTreeMap<String, Source>,
}

/// A wire format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// Its name, as in `agent_logs.format` and the header `inosec-format`.
    pub name: String,
    /// Other names senders use for it.
    pub aliases: Vec<String>,
    /// One sentence for the reference.
    pub description: String,
    /// How the record is read.
    pub shape: Shape,
    /// Formats are asked in this order, lowest first.
    pub priority: u32,
    /// What its records have in common; `None` for a format that is only known by name.
    pub recognise: Option<Condition>,
    /// The streams it feeds, by name.
    pub streams: BTreeMap<String, Mapping>,
    /// What its records are to detection rules; `None`: none runs on them.
    pub sigma: Option<LogSources>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFormat {
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    description: String,
    shape: Shape,
    priority: u32,
    #[serde(default)]
    recognise: Option<Condition>,
    streams: BTreeMap<String, RawMapping>,
    #[serde(default)]
    sigma: Option<RawLogSources>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLogSources {
    product: RawNames,
    #[serde(default)]
    category: RawNames,
    #[serde(default)]
    service: RawNames,
    #[serde(default)]
    objects: Vec<Path>,
    #[serde(default)]
    fields: BTreeMap<String, RawPart>,
}

/// The same for all records, or a look-up.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawNames {
    Always(String),
    Lookup(RawLookup),
}

impl Default for RawNames {
    fn default() -> Self {
        Self::Always(String::new())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMapping {
    #[serde(default)]
    when: Condition,
    columns: BTreeMap<String, RawSource>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawSource {
    One(Path),
    First(Vec<Path>),
    Lookup(RawLookup),
    Always(RawAlways),
    Members(RawMembers),
    Id(RawId),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAlways {
    always: toml::Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMembers {
    members: BTreeMap<String, RawPart>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawId {
    id_of: Vec<RawPart>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLookup {
    key: Vec<RawPart>,
    map: RawMap,
    #[serde(default)]
    default: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawPart {
    One(Path),
    First(Vec<Path>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawMap {
    Shared(String),
    Inline(BTreeMap<String, toml::Value>),
}

/// Look-up tables that several formats share, by name.
pub type Maps = BTreeMap<String, Arc<BTreeMap<String, String>>>;

impl Format {
    /// Reads a format file; `maps` are the shared look-up tables it may name.
    pub fn parse(file: &str, text: &str, maps: &Maps) -> Result<Self, Error> {
        let raw: RawFormat = toml::from_str(text)
            .map_err(|source| Error::Toml { file: file.to_owned(), source: Box::new(source) })?;
        let mut streams = BTreeMap::new();
        for (stream, mapping) in raw.streams {
            let mut columns = BTreeMap::new();
            for (column, source) in mapping.columns {
                columns.insert(column, source.resolve(file, maps)?);
            }
            streams.insert(stream, Mapping { when: mapping.when, columns });
        }
        Ok(Self {
            name: raw.name,
            aliases: raw.aliases,
            description: raw.description,
            shape: raw.shape,
            priority: raw.priority,
            recognise: raw.recognise,
            streams,
            sigma: raw.sigma.map(|sigma| sigma.resolve(file, maps)).transpose()?,
        })
    }
}

impl RawLogSources {
    fn resolve(self, file: &str, maps: &Maps) -> Result<LogSources, Error> {
        Ok(LogSources {
            product: self.product.resolve(file, maps)?,
            category: self.category.resolve(file, maps)?,
            service: self.service.resolve(file, maps)?,
            objects: self.objects,
            fields: self.fields.into_iter().map(|(name, part)| (name, part.paths())).collect(),
        })
    }
}

impl RawNames {
    fn resolve(self, file: &str, maps: &Maps) -> Result<Source, Error> {
        match self {
            Self::Lookup(lookup) => lookup.resolve(file, maps),
            Self::Always(names) => {
                let default = (!names.is_empty()).then_some(names);
                Ok(Source::always(default))
            }
        }
    }
}

impl RawPart {
    fn paths(self) -> Vec<Path> {
        match self {
            Self::One(path) => vec![path],
            Self::First(paths) => paths,
        }
    }
}

impl RawLookup {
    fn resolve(self, file: &str, maps: &Maps) -> Result<Source, Error> {
        Ok(Source::Lookup {
            key: self.key.into_iter().map(RawPart::paths).collect(),
            map: self.map.resolve(file, maps)?,
            default: self.default.as_ref().map(plain_text),
        })
    }
}

impl RawSource {
    fn resolve(self, file: &str, maps: &Maps) -> Result<Source, Error> {
        match self {
            Self::One(path) => Ok(Source::First(vec![path])),
            Self::First(paths) => Ok(Source::First(paths)),
            Self::Lookup(lookup) => lookup.resolve(file, maps),
            Self::Always(RawAlways { always }) => Ok(Source::always(Some(plain_text(&always)))),
            Self::Members(RawMembers { members }) => {
                Ok(Source::Members(members.into_iter().map(|(name, part)| (name, part.paths())).collect()))
            }
            Self::Id(RawId { id_of }) => Ok(Source::Id(id_of.into_iter().map(RawPart::paths).collect())),
        }
    }
}

impl Source {
    /// The same for all records.
    fn always(value: Option<String>) -> Self {
        Self::Lookup { key: Vec::new(), map: Arc::default(), default: value }
    }

    /// Whether a column of this kind can be made so.
    pub(crate) fn suits(&self, kind: Kind) -> bool {
        match self {
            Self::First(_) | Self::Lookup { .. } => true,
            Self::Members(_) => kind == Kind::Json,
            Self::Id(_) => kind == Kind::Uuid,
        }
    }
}

impl RawMap {
    fn resolve(self, file: &str, maps: &Maps) -> Result<Arc<BTreeMap<String, String>>, Error> {
        match self {
            Self::Inline(map) => Ok(Arc::new(lower_keys(&map))),
            Self::Shared(name) => maps
                .get(&name)
                .cloned()
                .ok_or_else(|| Error::invalid(file, format!("there is no map {name:?} in formats/maps/"))),
        }
    }
}

/// Reads a shared look-up table: a flat TOML table of key = value.
pub(crate) fn parse_map(file: &str, text: &str) -> Result<Arc<BTreeMap<String, String>>, Error> {
    let map: BTreeMap<String, toml::Value> = toml::from_str(text)
        .map_err(|source| Error::Toml { file: file.to_owned(), source: Box::new(source) })?;
    Ok(Arc::new(lower_keys(&map)))
}

fn lower_keys(map: &BTreeMap<String, toml::Value>) -> BTreeMap<String, String> {
    map.iter().map(|(key, value)| (key.to_ascii_lowercase(), plain_text(value))).collect()
}

fn plain_text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_member_keeps_its_dots() {
        let members = |text: &str| Path::from(text.to_owned()).0;
        assert_eq!(members("a.b"), ["a", "b"]);
        assert_eq!(members("fields.\"user.name\""), ["fields", "user.name"]);
        assert_eq!(members("\"a.b\".c d.#e"), ["a.b", "c d", "#e"]);
        assert_eq!(Path::from("fields.\"user.name\"".to_owned()).to_string(), "fields.user.name");
    }
}
