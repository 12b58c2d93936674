//! All descriptions inosec runs with: those embedded in the binary, and those of a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::format::{Maps, parse_map};
use crate::{Error, EventClass, Format, LogSources, Stream};

macro_rules! embedded {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$((concat!($folder, "/", $name, ".toml"), include_str!(concat!("../", $folder, "/", $name, ".toml")))),*]
    };
}

const STREAMS: &[(&str, &str)] = embedded!("streams": "agent_logs", "threat_events");
const MAPS: &[(&str, &str)] = embedded!("formats/maps": "defender_severities", "log_levels", "nxlog_severities", "threat_severities", "wazuh_levels", "windows_categories", "windows_classes", "windows_levels", "windows_services");
const FORMATS: &[(&str, &str)] = embedded!("formats": "auditd", "cloudtrail", "ecs", "evtx-json", "falco", "inosec-threat", "json", "ocsf", "suricata-eve", "syslog-3164", "text", "wazuh", "winlog-beats6", "winlog-beats7", "winlog-flat", "winlog-nxlog", "winlog-wef");

/// Streams and formats by name.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// The streams, by name.
    pub streams: BTreeMap<String, Arc<Stream>>,
    /// The formats in the order they are asked: by priority, then name.
    pub formats: Vec<Arc<Format>>,
    maps: Maps,
}

impl Catalog {
    /// What the binary carries.
    pub fn embedded() -> Result<Self, Error> {
        let mut catalog = Self::default();
        for (file, text) in STREAMS {
            catalog.add_stream(file, text)?;
        }
        for (file, text) in MAPS {
            catalog.add_map(file, text)?;
        }
        for (file, text) in FORMATS {
            catalog.add_format(file, text)?;
        }
        Ok(catalog)
    }

    /// Adds what `directory` holds in `streams/`, `formats/maps/` and `formats/`; a file of the
    /// same name as an embedded description replaces it.
    pub fn extend(&mut self, directory: &Path) -> Result<(), Error> {
        for (file, text) in toml_files(&directory.join("streams"))? {
            self.add_stream(&file, &text)?;
        }
        for (file, text) in toml_files(&directory.join("formats/maps"))? {
            self.add_map(&file, &text)?;
        }
        for (file, text) in toml_files(&directory.join("formats"))? {
            self.add_format(&file, &text)?;
        }
        Ok(())
    }

    /// Every class that an event of these formats can have, for detection to compile its rules for.
    #[must_use]
    pub fn classes(&self) -> Vec<EventClass> {
        let sections = self.formats.iter().filter_map(|format| format.sigma.as_ref());
        sections.flat_map(LogSources::classes).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn add_stream(&mut self, file: &str, text: &str) -> Result<(), Error> {
        let stream = Stream::parse(file, text)?;
        self.streams.insert(stream.name.clone(), Arc::new(stream));
        Ok(())
    }

    fn add_map(&mut self, file: &str, text: &str) -> Result<(), Error> {
        let name = Path::new(file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        self.maps.insert(name, parse_map(file, text)?);
        Ok(())
    }

    fn add_format(&mut self, file: &str, text: &str) -> Result<(), Error> {
        let format = Format::parse(file, text, &self.maps)?;
        for (stream, mapping) in &format.streams {
            let Some(stream) = self.streams.get(stream) else {
                return Err(Error::invalid(file, format!("feeds stream {stream}, which doesn't exist")));
            };
            for (column, source) in &mapping.columns {
                let Some(position) = stream.column(column) else {
                    let what = format!("maps column {column}, which {} doesn't have", stream.name);
                    return Err(Error::invalid(file, what));
                };
                let kind = stream.columns[position].kind;
                if !source.suits(kind) {
                    let what = format!("column {column} takes {}: it isn't made of members", kind.docs());
                    return Err(Error::invalid(file, what));
                }
            }
        }
        self.formats.retain(|other| other.name != format.name);
        self.formats.push(Arc::new(format));
        self.formats.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
        Ok(())
    }
}

/// The TOML files of a folder, sorted by name; none if there is no such folder.
fn toml_files(folder: &Path) -> Result<Vec<(String, String)>, Error> {
    let failed = |source| Error::Io { file: folder.display().to_string(), source };
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&path).map_err(failed)?;
            files.push((path.display().to_string(), text));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;

    #[test]
    fn the_embedded_descriptions_are_sound() {
        let catalog = Catalog::embedded().expect("embedded descriptions parse");
        assert!(catalog.streams.contains_key("agent_logs"));
        assert!(catalog.streams.contains_key("threat_events"));
    }

    /// The example in `docs/formats.md` is a format, and reads as it says.
    #[test]
    fn the_documented_example_is_sound() {
        let page = include_str!("../../docs/formats.md");
        let example = page.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let mut catalog = Catalog::embedded().unwrap();
        catalog.add_format("docs/formats.md", example).unwrap();
        let format = catalog.formats.iter().find(|format| format.name == "door-controller").unwrap();
        let columns = &format.streams["threat_events"].columns;
        let Source::Members(members) = &columns["payload"] else { panic!("{columns:?}") };
        assert_eq!(members["badge"], [crate::Path(vec!["badge".to_owned(), "id".to_owned()])]);
        assert!(matches!(&columns["id"], Source::Id(parts) if parts.len() == 2));
    }

    #[test]
    fn members_and_ids_suit_their_columns_only() {
        let mapped = |column: &str| {
            let text = format!(
                "name = \"x\"\ndescription = \"\"\nshape = \"json\"\npriority = 1\n\
                 [streams.threat_events.columns]\n{column}"
            );
            Catalog::embedded().unwrap().add_format("x.toml", &text)
        };
        for sound in
            ["payload = { members = { a = \"b\" } }", "id = { id_of = [\"a\"] }", "source = { always = 7 }"]
        {
            assert!(mapped(sound).is_ok(), "{sound}");
        }
        for wrong in
            ["signature = { members = { a = \"b\" } }", "payload = { id_of = [\"a\"] }", "id = { never = 1 }"]
        {
            assert!(mapped(wrong).is_err(), "{wrong}");
        }
    }
}
