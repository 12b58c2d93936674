//! Lines of the Linux audit log: `type=SYSCALL msg=audit(1604996384.965:93777): key=value …`.
//!
//! Fields get the names and forms that go-libaudit gives them: quotes off, hexadecimal texts decoded,
//! `res` and `success` as `result`, numbers of system calls and errors by name, security contexts split.

mod names;

use std::borrow::Cow;

type Fields<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// Fields the kernel writes in hexadecimal when they hold a space, a quote or a control character.
const TEXTS: &[&str] = &[
    "acct",
    "cmd",
    "comm",
    "cwd",
    "data",
    "device",
    "dir",
    "exe",
    "file",
    "grp",
    "key",
    "name",
    "new_group",
    "ocomm",
    "path",
    "proctitle",
    "title",
    "unit",
    "vm",
    "watch",
];

/// Reads a line; false if it isn't one. Fields: `type`, `time`, `serial`, then the record's own.
pub(crate) fn parse<'a>(line: &'a str, fields: &mut Fields<'a>) -> bool {
    read(line, fields).is_some()
}

fn read<'a>(line: &'a str, fields: &mut Fields<'a>) -> Option<()> {
    let at = line.find("type=").filter(|at| *at == 0 || line[..*at].starts_with("node="))?;
    if let Some(node) = line[..at].strip_prefix("node=") {
        fields.push(("node".into(), node.trim_end().into()));
    }
    let (kind, rest) = line[at + 5..].split_once(" msg=audit(")?;
    let (stamp, rest) = rest.split_once("):")?;
    let (time, serial) = stamp.split_once(':')?;
    if serial.is_empty() || !serial.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    fields.push(("type".into(), kind.into()));
    fields.push(("time".into(), time.into()));
    fields.push(("serial".into(), serial.into()));
    let own = fields.len();
    // Enriched records repeat fields in capitals behind a group separator; ours are the originals.
    let rest = rest.split('\u{1d}').next().unwrap_or_default();
    pairs(kind, access(rest, fields), Quoted::Opens, fields);
    name_numbers(&mut fields[own..]);
    Some(())
}

/// `avc:  denied  { read } for  ` in front of the pairs.
fn access<'a>(text: &'a str, fields: &mut Fields<'a>) -> &'a str {
    let told = text.trim_start().strip_prefix("avc:").and_then(|rest| {
        let (result, rest) = rest.trim_start().split_once(" {")?;
        let (permissions, rest) = rest.split_once('}')?;
        Some((result.trim(), permissions.trim(), rest))
    });
    let Some((result, permissions, rest)) = told else { return text };
    fields.push(("seresult".into(), result.into()));
    fields
        .push(("seperms".into(), permissions.split_ascii_whitespace().collect::<Vec<_>>().join(",").into()));
    rest
}

/// What single quotes around a value mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoted {
    /// A message with pairs of its own.
    Opens,
    /// A text: the message in quotes holds no further ones. Followed inwards without end, a line of
    /// `a='a='a='…` would exhaust the stack.
    Text,
}

/// `key=value` pairs; a message in single quotes holds further ones.
fn pairs<'a>(kind: &str, text: &'a str, quoted: Quoted, fields: &mut Fields<'a>) {
    let mut rest = text;
    let mut before = "";
    while let Some((word, after)) = next_word(rest) {
        rest = after;
        let Some((name, value)) = word.split_once('=') else {
            before = word;
            continue;
        };
        let name = name.trim_start_matches(['(', ',']);
        let inner = value.strip_prefix('\'').filter(|_| quoted == Quoted::Opens);
        if let Some(inner) = inner {
            pairs(kind, inner.strip_suffix('\'').unwrap_or(inner), Quoted::Text, fields);
        } else {
            // `old auid=…` and `new auid=…` of LOGIN records.
            let name = match before {
                "old" | "new" => Cow::Owned(format!("{before}_{name}")),
                _ => Cow::Borrowed(name),
            };
            pair(kind, name, value, fields);
        }
        before = "";
    }
}

/// The next word, where quotes hold words together, and what follows it.
fn next_word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    if text.is_empty() {
        return None;
    }
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if (c == '"' || c == '\'') && text[..at].ends_with('=') => quote = Some(c),
            None if c.is_whitespace() => return Some((&text[..at], &text[at..])),
            None => {}
        }
    }
    Some((text, ""))
}

fn pair<'a>(kind: &str, name: Cow<'a, str>, value: &'a str, fields: &mut Fields<'a>) {
    let value = value.trim_end_matches(',');
    let value = if value.contains('(') { value } else { value.trim_end_matches(')') };
    if let Some(quoted) = value.strip_prefix('"') {
        let quoted = quoted.strip_suffix('"').unwrap_or(quoted);
        if !quoted.is_empty() {
            fields.push((name, quoted.into()));
        }
        return;
    }
    if matches!(value, "" | "?" | "(null)") || name.is_empty() {
        return;
    }
    match &*name {
        "subj" | "obj" => context(&name, value, fields),
        "res" | "success" => {
            let good = matches!(value, "success" | "yes" | "1");
            fields.push(("result".into(), if good { "success" } else { "fail" }.into()));
        }
        "auid" | "ses" if matches!(value, "4294967295" | "-1") => fields.push((name, "unset".into())),
        "arch" if value == "c000003e" => fields.push((name, "x86_64".into())),
        text if TEXTS.contains(&text) || (kind == "EXECVE" && is_argument(text)) => {
            let decoded = decode_hex(value).map_or(Cow::Borrowed(value), Cow::Owned);
            fields.push((name, decoded));
        }
        _ => fields.push((name, value.into())),
    }
}

/// `user:role:domain:level[:category]`.
fn context<'a>(name: &str, value: &'a str, fields: &mut Fields<'a>) {
    for (part, value) in ["user", "role", "domain", "level", "category"].iter().zip(value.splitn(5, ':')) {
        fields.push((format!("{name}_{part}").into(), value.into()));
    }
}

fn is_argument(name: &str) -> bool {
    name.strip_prefix('a')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Upper-case hexadecimal of UTF-8, as the kernel writes it; NULs, which separate arguments, as spaces.
fn decode_hex(value: &str) -> Option<String> {
    if value.is_empty() || !value.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = value
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .map(|byte| byte.map(|byte| if byte == 0 { b' ' } else { byte }))
        .collect();
    Some(String::from_utf8_lossy(&bytes?).into_owned())
}

/// System calls and errors by name, where the architecture is one whose numbers we know.
fn name_numbers(fields: &mut [(Cow<'_, str>, Cow<'_, str>)]) {
    if !fields.iter().any(|(name, value)| name == "arch" && value == "x86_64") {
        return;
    }
    for (name, value) in fields {
        let named = match &**name {
            "syscall" => names::syscall(value),
            "exit" => names::error(value),
            _ => None,
        };
        if let Some(named) = named {
            *value = named.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    /// The goldens of the shared corpus; said loudly where it is missing.
    #[test]
    fn the_goldens_hold() {
        let folder = std::env::var_os("INOSEC_CORPUS").map_or_else(
            || std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
            Into::into,
        );
        let Ok(text) = std::fs::read_to_string(folder.join("auditd_expected.jsonl")) else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "the corpus is missing: set INOSEC_CORPUS");
            println!("NOT TESTED: the corpus is not at {}: set INOSEC_CORPUS", folder.display());
            return;
        };
        let mut held = 0;
        for golden in text.lines() {
            let golden: Value = serde_json::from_str(golden).unwrap();
            let line = golden["line"].as_str().unwrap();
            let mut fields = Vec::new();
            assert!(parse(line, &mut fields), "{line}");
            let own: BTreeMap<&str, &str> =
                fields[3..].iter().map(|(name, value)| (&**name, &**value)).collect();
            let expected = &golden["expected"];
            let data: BTreeMap<&str, &str> = expected["data"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| (&**name, value.as_str().unwrap()))
                .collect();
            assert_eq!(own, data, "{line}");
            assert_eq!(fields[0].1.to_lowercase(), expected["record_type"].as_str().unwrap());
            assert_eq!(fields[2].1, expected["sequence"].to_string());
            held += 1;
        }
        assert_eq!(held, 16);
    }

    #[test]
    fn arguments_and_titles_are_decoded() {
        let mut fields = Vec::new();
        assert!(parse("type=EXECVE msg=audit(1.000:1): argc=2 a0=\"ls\" a1=2F746D70", &mut fields));
        assert!(fields.contains(&("a1".into(), "/tmp".into())));
        fields.clear();
        assert!(parse("type=PROCTITLE msg=audit(1.000:1): proctitle=617270002D61", &mut fields));
        assert!(fields.contains(&("proctitle".into(), "arp -a".into())));
    }

    #[test]
    fn quotes_within_quotes_cost_no_stack() {
        let line = format!("type=A msg=audit(1:2): {}", "a='".repeat(1 << 20));
        let mut fields = Vec::new();
        assert!(parse(&line, &mut fields));
        assert_eq!(fields.len(), 4);
        fields.clear();
        assert!(parse("type=A msg=audit(1:2): msg='op=x acct=\"root\" res=success'", &mut fields));
        assert_eq!(fields[3..].iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["op", "acct", "result"]);
    }

    #[test]
    fn other_lines_are_refused_and_harmless() {
        for line in [
            "",
            "type=",
            "type=X msg=audit(",
            "type=X msg=audit(1:x): a=b",
            "node=é",
            "x type=A msg=audit(1:2): ",
        ] {
            assert!(!parse(line, &mut Vec::new()), "{line}");
        }
        for line in [
            "type=X msg=audit(1:2): '=' \"",
            "type=X msg=audit(1:2): msg='a=\"b",
            "type=AVC msg=audit(1:2): avc: {",
        ] {
            let _ = parse(line, &mut Vec::new());
        }
    }
}
