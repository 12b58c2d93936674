//! Paths in, rules out. A path that leads nowhere is an error; a bad rule is a named problem.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use inosec_enrich::{Parsed, Placeholders, Problem};
use serde_json::Value;

use super::Error;
use crate::config;

/// The members of a JSON line that may name the rule's file, best first.
const NAMES: [&str; 4] = ["path", "rule_path", "file", "id"];

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Yaml,
    JsonLines,
}

/// Reads every rule under the paths: files, and folders with what is below them.
///
/// Of a folder only YAML is read (JSON lines there are likelier to be events), in order of the names,
/// and nothing whose name starts with a dot. A file that is reached twice is read once.
///
/// # Errors
/// A path that can't be read, or is a file of another kind.
pub fn load(paths: &[PathBuf], placeholders: &Placeholders) -> Result<Parsed, Error> {
    let mut parsed = Parsed::default();
    add(paths, placeholders, &mut parsed)?;
    Ok(parsed)
}

/// Reads further rules. Of two with one id the first counts.
///
/// # Errors
/// As [`load`].
pub fn add(paths: &[PathBuf], placeholders: &Placeholders, parsed: &mut Parsed) -> Result<(), Error> {
    read_all(&find(paths, &mut HashSet::new())?, placeholders, parsed)
}

/// The pack that the binary carries: file and text.
const PACK: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/pack.rs"));

/// What the configuration says.
#[derive(Debug, Default)]
pub struct Configured {
    /// All rules, filters and correlations.
    pub parsed: Parsed,
    /// The ids of rules and correlations that are off unless a tenant switches them on.
    pub optional: HashSet<String>,
}

/// Reads the configured rules. Of two with one id the first counts: the binary's pack, `paths`, `optional`.
///
/// # Errors
/// As [`load`].
pub fn configured(rules: &config::Rules, placeholders: &Placeholders) -> Result<Configured, Error> {
    let mut parsed = Parsed::default();
    for (file, text) in PACK.iter().filter(|_| rules.builtin) {
        parsed.add(file, text, placeholders);
    }
    let mut seen = HashSet::new();
    read_all(&find(&rules.paths, &mut seen)?, placeholders, &mut parsed)?;
    let (everyone, common) = (parsed.rules.len(), parsed.correlations.len());
    read_all(&find(&rules.optional, &mut seen)?, placeholders, &mut parsed)?;
    let optional = parsed.rules[everyone..].iter().map(|rule| rule.id.clone());
    let optional = optional.chain(parsed.correlations[common..].iter().map(|rule| rule.id.clone())).collect();
    Ok(Configured { parsed, optional })
}

fn read_all(
    files: &[(PathBuf, Kind)],
    placeholders: &Placeholders,
    parsed: &mut Parsed,
) -> Result<(), Error> {
    for (path, kind) in files {
        let text = read(path).map_err(Error::path(path))?;
        let file = path.display().to_string();
        let Ok(text) = String::from_utf8(text) else {
            parsed.problems.push(problem(file, 1, "not UTF-8: save the file as such"));
            continue;
        };
        match kind {
            Kind::Yaml => parsed.add(&file, &text, placeholders),
            Kind::JsonLines => json_lines(&file, &text, placeholders, parsed),
        }
    }
    Ok(())
}

/// The files at the paths; none that was seen before.
fn find(paths: &[PathBuf], seen: &mut HashSet<PathBuf>) -> Result<Vec<(PathBuf, Kind)>, Error> {
    let mut files = Vec::new();
    for path in paths {
        let metadata = fs::metadata(path).map_err(Error::path(path))?;
        if metadata.is_dir() {
            walk(path, seen, &mut files)?;
        } else if let Some(kind) = kind(path) {
            if seen.insert(path.canonicalize().map_err(Error::path(path))?) {
                files.push((path.clone(), kind));
            }
        } else {
            return Err(Error::Kind(path.clone()));
        }
    }
    Ok(files)
}

/// Collects the YAML files below a folder. What was seen already ends loops of symbolic links.
fn walk(folder: &Path, seen: &mut HashSet<PathBuf>, files: &mut Vec<(PathBuf, Kind)>) -> Result<(), Error> {
    if !seen.insert(folder.canonicalize().map_err(Error::path(folder))?) {
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::path(folder))? {
        entries.push(entry.map_err(Error::path(folder))?.path());
    }
    entries.sort_unstable();
    for path in entries {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        // A link that leads nowhere is not the rules' fault.
        let Some(metadata) = fs::metadata(&path).ok().filter(|_| !hidden) else { continue };
        if metadata.is_dir() {
            walk(&path, seen, files)?;
        } else if kind(&path) == Some(Kind::Yaml)
            && seen.insert(path.canonicalize().map_err(Error::path(&path))?)
        {
            files.push((path, Kind::Yaml));
        }
    }
    Ok(())
}

fn kind(path: &Path) -> Option<Kind> {
    let packed = path.extension().is_some_and(|extension| extension == "zst");
    let plain = if packed { path.with_extension("") } else { path.to_owned() };
    match plain.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "yml" | "yaml" => Some(Kind::Yaml),
        "jsonl" | "ndjson" | "json" => Some(Kind::JsonLines),
        _ => None,
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let bytes = fs::read(path)?;
    if path.extension().is_some_and(|extension| extension == "zst") {
        return zstd::decode_all(&bytes[..]);
    }
    Ok(bytes)
}

/// One object a line, with the rule's text in it.
fn json_lines(file: &str, text: &str, placeholders: &Placeholders, parsed: &mut Parsed) {
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let object: Value = match serde_json::from_str(line) {
            Ok(object) => object,
            Err(error) => {
                parsed.problems.push(problem(file.to_owned(), number, &format!("not JSON: {error}")));
                continue;
            }
        };
        let Some(rule) = object.get("yaml").or_else(|| object.get("rule")).and_then(Value::as_str) else {
            let message = "no rule: give its text as member `yaml` or `rule`";
            parsed.problems.push(problem(file.to_owned(), number, message));
            continue;
        };
        let named = NAMES.iter().find_map(|name| object.get(name)?.as_str());
        let name = named.map_or_else(|| format!("{file}:{number}"), str::to_owned);
        parsed.add(&name, rule, placeholders);
    }
}

fn problem(file: String, line: usize, message: &str) -> Problem {
    Problem { file, line, rule: None, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str) -> String {
        format!(
            "title: {id}\nid: {id}\nlogsource:\n  product: windows\ndetection:\n  a:\n    f: v\n  condition: a\n"
        )
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let folder = std::env::temp_dir().join(format!("inosec-load-{}", uuid::Uuid::new_v4().simple()));
            fs::create_dir_all(folder.join("sub/.git")).expect("created");
            Self(folder)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            fs::write(self.0.join(name), text).expect("written");
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn ids(parsed: &Parsed) -> Vec<&str> {
        parsed.rules.iter().map(|rule| rule.id.as_str()).collect()
    }

    #[test]
    fn folders_are_read_in_order_and_links_in_circles_do_no_harm() {
        let folder = Folder::new();
        folder.write("b.yml", &format!("{}---\n{}", rule("b1"), rule("b2")));
        folder.write("sub/a.YAML", &rule("a"));
        folder.write("sub/.git/hidden.yml", "no rule");
        folder.write("sub/events.ndjson", "{}");
        std::os::unix::fs::symlink(&folder.0, folder.0.join("sub/again")).expect("linked");
        std::os::unix::fs::symlink("nowhere", folder.0.join("dangling.yml")).expect("linked");
        let paths = [folder.0.join("b.yml"), folder.0.clone()];
        let parsed = load(&paths, &Placeholders::default()).expect("loaded");
        assert_eq!(ids(&parsed), ["b1", "b2", "a"]);
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    }

    #[test]
    fn json_lines_carry_rules_and_bad_ones_stop_no_others() {
        let folder = Folder::new();
        let line = |name: &str, value: &str| format!("{{{name}\"rule\":{}}}\n", Value::from(value));
        let text = format!(
            "{}\nnonsense\n{{}}\n{}{}",
            line("\"path\":\"x/y.yml\",", &rule("one")),
            line("", "title: t"),
            line("", &rule("two"))
        );
        let path = folder.write("rules.jsonl.zst", "");
        fs::write(&path, zstd::encode_all(text.as_bytes(), 1).expect("packed")).expect("written");
        let parsed = load(&[path], &Placeholders::default()).expect("loaded");
        assert_eq!(ids(&parsed), ["one", "two"]);
        assert_eq!(parsed.rules[0].origin.0, "x/y.yml");
        let lines: Vec<_> = parsed.problems.iter().map(|problem| (problem.line, &problem.file[..])).collect();
        assert_eq!(lines.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 4, 1]);
        assert!(lines[2].1.ends_with("rules.jsonl.zst:5"), "{lines:?}");
    }

    #[test]
    fn what_is_not_there_is_said() {
        let error =
            load(&[PathBuf::from("/no/such.yml")], &Placeholders::default()).expect_err("nothing there");
        assert!(error.to_string().contains("/no/such.yml"), "{error}");
        let folder = Folder::new();
        let error = load(&[folder.write("a.txt", "")], &Placeholders::default()).expect_err("another kind");
        assert!(error.to_string().contains(".yaml"), "{error}");
    }
}
