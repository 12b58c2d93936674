//! `field|modifier|modifier: values` in, one [`Expr`] out.

use hashbrown::HashMap;

use super::encode;
use super::expr::{Comparison, Expr, Test};
use super::fold::fold;
use super::network::Network;
use super::number::Number;
use super::pattern::Pattern;
use super::regexes;
use super::time::TimePart;
use super::yaml::{Fault, Node, Yaml};

/// The values behind `%name%`, given by whoever loads the rules.
pub type Placeholders = HashMap<String, Vec<String>>;

/// Alternatives that the values of one item may expand to.
const MAX_ALTERNATIVES: usize = 50_000;

/// What a modifier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Modifier {
    Contains,
    StartsWith,
    EndsWith,
    All,
    Cased,
    Exists,
    Neq,
    Re,
    Flag(char),
    Base64,
    Base64Offset,
    Utf16,
    Utf16Le,
    Utf16Be,
    Windash,
    Cidr,
    Compare(Comparison),
    Time(TimePart),
    FieldRef,
    Expand,
}

impl Modifier {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "contains" => Self::Contains,
            "startswith" => Self::StartsWith,
            "endswith" => Self::EndsWith,
            "all" => Self::All,
            "cased" => Self::Cased,
            "exists" => Self::Exists,
            "neq" => Self::Neq,
            "re" => Self::Re,
            "i" | "ignorecase" => Self::Flag('i'),
            "m" | "multiline" => Self::Flag('m'),
            "s" | "dotall" => Self::Flag('s'),
            "base64" => Self::Base64,
            "base64offset" => Self::Base64Offset,
            "utf16" => Self::Utf16,
            "utf16le" | "wide" => Self::Utf16Le,
            "utf16be" => Self::Utf16Be,
            "windash" => Self::Windash,
            "cidr" => Self::Cidr,
            "lt" => Self::Compare(Comparison::Less),
            "lte" => Self::Compare(Comparison::LessOrEqual),
            "gt" => Self::Compare(Comparison::Greater),
            "gte" => Self::Compare(Comparison::GreaterOrEqual),
            "minute" => Self::Time(TimePart::Minute),
            "hour" => Self::Time(TimePart::Hour),
            "day" => Self::Time(TimePart::Day),
            "week" => Self::Time(TimePart::Week),
            "month" => Self::Time(TimePart::Month),
            "year" => Self::Time(TimePart::Year),
            "fieldref" => Self::FieldRef,
            "expand" => Self::Expand,
            _ => return None,
        })
    }
}

/// A field with its modifiers.
pub struct Key<'a> {
    field: Option<&'a str>,
    modifiers: Vec<Modifier>,
    line: usize,
    placeholders: &'a Placeholders,
}

impl<'a> Key<'a> {
    /// Keywords: no field, no modifiers.
    pub fn keyword(line: usize, placeholders: &'a Placeholders) -> Self {
        Self { field: None, modifiers: Vec::new(), line, placeholders }
    }

    /// Reads `field|modifier|…`; an empty field is a keyword search.
    pub fn parse(text: &'a str, line: usize, placeholders: &'a Placeholders) -> Result<Self, Fault> {
        let mut names = text.split('|');
        let field = names.next().filter(|field| !field.is_empty());
        let mut modifiers = Vec::new();
        for name in names {
            let modifier = Modifier::parse(name).ok_or_else(|| {
                Fault::new(
                    line,
                    format!("`{name}` is not a modifier of Sigma 2.1: correct or remove it in `{text}`"),
                )
            })?;
            modifiers.push(modifier);
        }
        let key = Self { field, modifiers, line, placeholders };
        key.check(text)?;
        Ok(key)
    }

    fn has(&self, modifier: Modifier) -> bool {
        self.modifiers.contains(&modifier)
    }

    fn comparison(&self) -> Option<Comparison> {
        self.modifiers.iter().find_map(|modifier| match modifier {
            Modifier::Compare(comparison) => Some(*comparison),
            _ => None,
        })
    }

    fn time_part(&self) -> Option<TimePart> {
        self.modifiers.iter().find_map(|modifier| match modifier {
            Modifier::Time(part) => Some(*part),
            _ => None,
        })
    }

    /// What kind of value is compared can be said only once, and goes with few other modifiers.
    fn check(&self, text: &str) -> Result<(), Fault> {
        let fault = |message: &str| Err(Fault::new(self.line, format!("{message} in `{text}`")));
        let count = |is: fn(&Modifier) -> bool| self.modifiers.iter().filter(|modifier| is(modifier)).count();
        let kinds = count(|modifier| {
            matches!(modifier, Modifier::Re | Modifier::Cidr | Modifier::Exists | Modifier::FieldRef)
        }) + usize::from(self.comparison().is_some() || self.time_part().is_some());
        if kinds > 1 {
            return fault("re, cidr, exists, fieldref, comparisons and times exclude each other: keep one");
        }
        if count(|modifier| matches!(modifier, Modifier::Compare(_))) > 1 {
            return fault("two comparisons of one field: use two items in a selection");
        }
        if count(|modifier| matches!(modifier, Modifier::Time(_))) > 1 {
            return fault("two parts of a time: use two items in a selection");
        }
        let flags = count(|modifier| matches!(modifier, Modifier::Flag(_))) > 0;
        if flags && !self.has(Modifier::Re) {
            return fault("i, m and s belong to re: write `|re|i`");
        }
        let text_only = count(|modifier| {
            use Modifier::{Base64, Base64Offset, Utf16, Utf16Be, Utf16Le, Windash};
            matches!(modifier, Base64 | Base64Offset | Utf16 | Utf16Be | Utf16Le | Windash)
        }) > 0;
        if kinds > 0 && text_only {
            return fault("encodings and windash are for plain text: remove them");
        }
        let bounds = count(|modifier| {
            matches!(modifier, Modifier::Contains | Modifier::StartsWith | Modifier::EndsWith)
        }) > 0;
        if bounds && kinds > 0 && !self.has(Modifier::Re) && !self.has(Modifier::FieldRef) {
            return fault("contains, startswith and endswith are for text: remove them");
        }
        if self.field.is_none() && kinds > 0 && !self.has(Modifier::Re) {
            return fault("keywords are text or regular expressions: name a field");
        }
        Ok(())
    }

    /// The whole item.
    pub fn expr(&self, value: &Node) -> Result<Expr, Fault> {
        let single = std::slice::from_ref(value);
        let values = if let Yaml::List(items) = &value.value { items.as_slice() } else { single };
        if values.is_empty() {
            return Err(Fault::new(
                value.line,
                "an empty list matches nothing: give a value or remove the item",
            ));
        }
        let mut parts = Vec::with_capacity(values.len());
        let mut tests = 0;
        for value in values {
            let part = self.value(value)?;
            tests += part.tests();
            if tests > MAX_ALTERNATIVES {
                let message =
                    format!("more than {MAX_ALTERNATIVES} alternatives in one item: split the rule");
                return Err(Fault::new(value.line, message));
            }
            parts.push(part);
        }
        let neq = self.has(Modifier::Neq);
        let matched = if self.has(Modifier::All) && !neq { Expr::and(parts) } else { Expr::or(parts) };
        if neq {
            return Ok(Expr::And(vec![Expr::atom(self.field, Test::Exists), matched.negated()]));
        }
        Ok(matched)
    }

    fn value(&self, value: &Node) -> Result<Expr, Fault> {
        if self.has(Modifier::Exists) {
            return self.exists(value);
        }
        if value.value == Yaml::Null {
            let plain =
                self.modifiers.iter().all(|modifier| matches!(modifier, Modifier::All | Modifier::Neq));
            return match (self.field, plain) {
                (Some(_), true) => Ok(Expr::null(self.field)),
                (Some(_), false) => {
                    Err(Fault::new(value.line, "null takes no modifier: remove it, or write ''"))
                }
                (None, _) => Err(Fault::new(value.line, "null is not a keyword: give a text")),
            };
        }
        let Some(text) = value.text() else {
            return Err(Fault::new(
                value.line,
                "a field's value is a scalar or a list of scalars: flatten it",
            ));
        };
        if self.comparison().is_some() || self.time_part().is_some() {
            return self.compare(value);
        }
        let mut alternatives = Vec::new();
        for text in self.expanded(text, value.line)? {
            alternatives.extend(self.tests(value, &text)?);
        }
        Ok(Expr::or(alternatives.into_iter().map(|test| Expr::atom(self.field, test)).collect()))
    }

    fn exists(&self, value: &Node) -> Result<Expr, Fault> {
        let exists = Expr::atom(self.field, Test::Exists);
        match value.text() {
            Some(text) if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("yes") => Ok(exists),
            Some(text) if text.eq_ignore_ascii_case("false") || text.eq_ignore_ascii_case("no") => {
                Ok(exists.negated())
            }
            _ => Err(Fault::new(value.line, "exists takes true or false")),
        }
    }

    fn compare(&self, value: &Node) -> Result<Expr, Fault> {
        let number = match &value.value {
            Yaml::Number(number, _) => Some(*number),
            Yaml::Text(text) => Number::parse(text),
            _ => None,
        };
        let Some(number) = number else {
            return Err(Fault::new(value.line, "a comparison takes a number"));
        };
        let comparison = self.comparison().unwrap_or(Comparison::Equal);
        let test = match self.time_part() {
            Some(part) => Test::Time(part, comparison, number),
            None => Test::Compare(comparison, number),
        };
        Ok(Expr::atom(self.field, test))
    }

    /// The tests one text stands for; any of them suffices.
    fn tests(&self, value: &Node, text: &str) -> Result<Vec<Test>, Fault> {
        let cased = self.has(Modifier::Cased);
        let before = self.has(Modifier::Contains) || self.has(Modifier::EndsWith);
        let after = self.has(Modifier::Contains) || self.has(Modifier::StartsWith);
        if self.has(Modifier::Re) {
            let anchors = (self.has(Modifier::StartsWith), self.has(Modifier::EndsWith));
            return regexes::source(text, &self.flags(), anchors)
                .map(|source| vec![Test::Regex(source)])
                .map_err(|message| Fault::new(value.line, message));
        }
        if self.has(Modifier::Cidr) {
            let network = Network::parse(text)
                .ok_or_else(|| Fault::new(value.line, format!("`{text}` is not a block like 10.0.0.0/8")))?;
            return Ok(vec![Test::Network(network)]);
        }
        if self.has(Modifier::FieldRef) {
            return Ok(vec![Test::Field { other: text.to_owned(), before, after, cased }]);
        }
        let plain = self
            .modifiers
            .iter()
            .all(|modifier| matches!(modifier, Modifier::All | Modifier::Neq | Modifier::Cased));
        if let (Yaml::Number(number, _), true, Some(_)) = (&value.value, plain, self.field) {
            return Ok(vec![Test::Number(*number)]);
        }
        let patterns = self.patterns(value.line, text)?;
        let unbound = self.field.is_none();
        Ok(patterns
            .into_iter()
            .map(|pattern| pattern.unbound(before || unbound, after || unbound))
            .map(|pattern| Test::Text { pattern: if cased { pattern } else { pattern.map(fold) }, cased })
            .collect())
    }

    /// The flags of `re`, as the regex syntax writes them.
    fn flags(&self) -> String {
        let flags = ['i', 'm', 's'].into_iter();
        flags.filter(|flag| self.has(Modifier::Flag(*flag))).collect()
    }

    /// The text after windash and the encodings, in the order they are written.
    fn patterns(&self, line: usize, text: &str) -> Result<Vec<Pattern>, Fault> {
        let mut patterns = vec![Pattern::parse(text)];
        let mut bytes: Option<Vec<u8>> = None;
        for modifier in &self.modifiers {
            match modifier {
                Modifier::Windash => {
                    let variants = patterns
                        .iter()
                        .map(|pattern| windash(pattern, line))
                        .collect::<Result<Vec<_>, _>>()?;
                    patterns = variants.concat();
                }
                Modifier::Utf16 | Modifier::Utf16Le | Modifier::Utf16Be => {
                    let plain = encodable(&patterns, line)?;
                    bytes = Some(match modifier {
                        Modifier::Utf16 => [vec![0xFF, 0xFE], encode::utf16le(plain)].concat(),
                        Modifier::Utf16Be => encode::utf16be(plain),
                        _ => encode::utf16le(plain),
                    });
                }
                Modifier::Base64 | Modifier::Base64Offset => {
                    let plain = match bytes.take() {
                        Some(bytes) => vec![bytes],
                        None => {
                            let texts = patterns.iter().map(|pattern| literal(pattern, line));
                            texts
                                .map(|text| text.map(|text| text.as_bytes().to_vec()))
                                .collect::<Result<_, _>>()?
                        }
                    };
                    let encoded = plain.iter().flat_map(|plain| match modifier {
                        Modifier::Base64 => vec![encode::base64(plain)],
                        _ => encode::base64_offsets(plain).to_vec(),
                    });
                    patterns = encoded.map(|text| Pattern::literal(&text)).collect();
                }
                _ => {}
            }
        }
        if let Some(bytes) = bytes {
            let text = String::from_utf8(bytes).map_err(|_| {
                Fault::new(line, "this in UTF-16 is not text: follow it with base64 or base64offset")
            })?;
            patterns = vec![Pattern::literal(&text)];
        }
        Ok(patterns)
    }

    /// The text with every `%name%` replaced by each of its values; as it is without `expand`.
    fn expanded(&self, text: &str, line: usize) -> Result<Vec<String>, Fault> {
        if !self.has(Modifier::Expand) {
            return Ok(vec![text.to_owned()]);
        }
        let mut variants = vec![String::new()];
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            let (before, from) = rest.split_at(at);
            let append = |variants: &mut Vec<String>, text: &str| {
                variants.iter_mut().for_each(|one| one.push_str(text));
            };
            if let Some(before) = before.strip_suffix('\\') {
                append(&mut variants, before);
                append(&mut variants, "%");
                rest = &from[1..];
                continue;
            }
            append(&mut variants, before);
            let Some(end) = from[1..].find('%').filter(|end| *end > 0) else {
                append(&mut variants, "%");
                rest = &from[1..];
                continue;
            };
            let name = &from[1..=end];
            let Some(values) = self.placeholders.get(name).filter(|values| !values.is_empty()) else {
                return Err(Fault::new(
                    line,
                    format!("the placeholder `%{name}%` has no values: give it some"),
                ));
            };
            variants = variants
                .iter()
                .flat_map(|one| values.iter().map(move |value| format!("{one}{value}")))
                .collect();
            if variants.len() > MAX_ALTERNATIVES {
                return Err(Fault::new(
                    line,
                    format!("more than {MAX_ALTERNATIVES} combinations of placeholders"),
                ));
            }
            rest = &from[end + 2..];
        }
        variants.iter_mut().for_each(|one| one.push_str(rest));
        Ok(variants)
    }
}

fn windash(pattern: &Pattern, line: usize) -> Result<Vec<Pattern>, Fault> {
    use super::pattern::Part;
    let mut variants = vec![Vec::new()];
    for part in pattern.parts() {
        let choices = match part {
            Part::Literal(text) => encode::dashes(text)
                .ok_or_else(|| {
                    let most = encode::MAX_DASHES;
                    Fault::new(
                        line,
                        format!("windash with more than {most} dashes: split the value with contains|all"),
                    )
                })?
                .into_iter()
                .map(Part::Literal)
                .collect(),
            other => vec![other.clone()],
        };
        variants = variants
            .iter()
            .flat_map(|variant: &Vec<Part>| {
                choices.iter().map(move |choice| variant.iter().chain([choice]).cloned().collect())
            })
            .collect();
        if variants.len() > MAX_ALTERNATIVES {
            return Err(Fault::new(line, "windash with too many dashes: split the value with contains|all"));
        }
    }
    Ok(variants.into_iter().map(Pattern::from_parts).collect())
}

fn encodable(patterns: &[Pattern], line: usize) -> Result<&str, Fault> {
    match patterns {
        [only] => literal(only, line),
        _ => Err(Fault::new(line, "windash and UTF-16 exclude each other: keep one")),
    }
}

fn literal(pattern: &Pattern, line: usize) -> Result<&str, Fault> {
    pattern.as_literal().ok_or_else(|| {
        Fault::new(line, "a wildcard can't be encoded: escape it, and put contains after the encoding")
    })
}
