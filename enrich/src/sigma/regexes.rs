//! Regular expressions of rules: checked, bounded, and the text every match of them contains.

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::fold::{fold, fold_char};

/// Bytes a compiled expression may take.
const SIZE_LIMIT: usize = 4 << 20;

/// Shorter texts are in nearly every value: no help in choosing which values to look at.
const SHORTEST: usize = 3;

/// Alternatives of [`required`] beyond which it is no help either.
const MAX_REQUIRED: usize = 64;

/// The expression with its flags and anchors written into it, if it compiles.
pub fn source(text: &str, flags: &str, (start, end): (bool, bool)) -> Result<String, String> {
    let flags = if flags.is_empty() { String::new() } else { format!("(?{flags})") };
    let source = match (start, end) {
        (false, false) => format!("{flags}{text}"),
        _ => format!(r"{}{flags}(?:{text}){}", if start { r"\A" } else { "" }, if end { r"\z" } else { "" }),
    };
    match build(&source) {
        Ok(_) => Ok(source),
        Err(regex::Error::CompiledTooBig(limit)) => {
            Err(format!("the regular expression takes more than {limit} bytes: shorten its repetitions"))
        }
        Err(error) => {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Err(format!("not a regular expression that runs in linear time: {reason}"))
        }
    }
}

/// Compiles what [`source`] has checked.
pub fn build(source: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(source).size_limit(SIZE_LIMIT).dfa_size_limit(SIZE_LIMIT).build()
}

/// Folded texts of which every match contains one, if there are any that help.
pub fn required(source: &str) -> Option<Vec<String>> {
    let hir = regex_syntax::parse(source).ok()?;
    let found = Required::of(&hir).best?;
    (found.iter().all(|text| text.len() >= SHORTEST)).then_some(found)
}

/// What a piece of an expression is sure to contain.
struct Required {
    /// The piece matches this folded text and nothing else.
    exact: Option<String>,
    /// Every match contains one of these.
    best: Option<Vec<String>>,
}

impl Required {
    fn none() -> Self {
        Self { exact: None, best: None }
    }

    fn exact(text: String) -> Self {
        Self { best: (!text.is_empty()).then(|| vec![text.clone()]), exact: Some(text) }
    }

    fn of(hir: &Hir) -> Self {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::exact(String::new()),
            HirKind::Literal(literal) => {
                std::str::from_utf8(&literal.0).map_or_else(|_| Self::none(), |text| Self::exact(fold(text)))
            }
            HirKind::Class(class) => Self::of_class(class),
            HirKind::Capture(capture) => Self::of(&capture.sub),
            HirKind::Repetition(repetition) if repetition.min >= 1 => {
                Self { exact: None, best: Self::of(&repetition.sub).best }
            }
            HirKind::Repetition(_) => Self::none(),
            HirKind::Concat(parts) => Self::of_concat(parts),
            HirKind::Alternation(parts) => {
                let all: Option<Vec<Vec<String>>> = parts.iter().map(|part| Self::of(part).best).collect();
                let all = all.map(|all| all.concat()).filter(|all| all.len() <= MAX_REQUIRED);
                Self { exact: None, best: all }
            }
        }
    }

    /// A class whose members differ only in case is a character.
    fn of_class(class: &Class) -> Self {
        let Class::Unicode(class) = class else { return Self::none() };
        let mut members = class.iter().flat_map(|range| range.start()..=range.end());
        let Some(first) = members.next().map(fold_char) else { return Self::none() };
        if members.take(8).any(|member| fold_char(member) != first) {
            return Self::none();
        }
        Self::exact(first.to_string())
    }

    fn of_concat(parts: &[Hir]) -> Self {
        let (mut run, mut whole, mut best) = (String::new(), true, None);
        for part in parts {
            let part = Self::of(part);
            if let Some(text) = part.exact {
                run.push_str(&text);
                continue;
            }
            whole = false;
            best = better(best, Self::exact(std::mem::take(&mut run)).best);
            best = better(best, part.best);
        }
        if whole {
            return Self::exact(run);
        }
        Self { exact: None, best: better(best, Self::exact(run).best) }
    }
}

/// The one whose shortest text is longest.
fn better(one: Option<Vec<String>>, two: Option<Vec<String>>) -> Option<Vec<String>> {
    let score = |texts: &Option<Vec<String>>| {
        texts.as_ref().map_or(0, |texts| texts.iter().map(String::len).min().unwrap_or(0))
    };
    if score(&two) > score(&one) { two } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_match_contains_a_required_text() {
        let cases: [(&str, Option<&[&str]>); 8] = [
            ("(?i)Invoke-Expression", Some(&["invoke-expression"])),
            (r"\s+abcd?\b", Some(&["abc"])),
            ("foo(bar|baz)", Some(&["foo"])),
            ("(alpha|BETA)x*", Some(&["alpha", "beta"])),
            ("(alpha|.)", None),
            ("[a-z]{3,}", None),
            ("(?:abc){2}", Some(&["abc"])),
            ("(?i)k", None),
        ];
        for (source, expected) in cases {
            let expected =
                expected.map(|texts| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
            assert_eq!(required(source), expected, "{source}");
        }
    }

    #[test]
    fn what_does_not_run_in_linear_time_is_named() {
        let error = source("(?=x)", "", (false, false)).unwrap_err();
        assert!(error.contains("look-around"), "{error}");
        assert!(source("(a{1000}){1000}", "", (false, false)).unwrap_err().contains("more than"));
        assert_eq!(source("a", "i", (true, false)).unwrap(), r"\A(?i)(?:a)");
    }
}
