//! The full-scan oracle: a rule's YAML and an event's JSON in, a verdict out.
//!
//! Straightforward on purpose. It shares no parser, index, memo or extraction with the engine: every
//! test looks its field up in the JSON tree and compares character by character.

mod values;

use std::net::IpAddr;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};
use yaml_rust2::{Yaml, YamlLoader};

pub use values::fold;
use values::{compare, inside, time};

/// A document of a rule file.
pub struct OracleRule {
    logsource: [Option<String>; 3],
    selections: Vec<(String, Part)>,
    conditions: Vec<String>,
}

enum Part {
    All(Vec<Part>),
    Any(Vec<Part>),
    Not(Box<Part>),
    Test { field: Option<String>, test: Test },
}

enum Test {
    Text(Vec<Token>, bool),
    Regex(Regex),
    Number(String),
    Compare(String, String),
    Time(String, String, String),
    Cidr(IpAddr, u32),
    Null,
    Exists(bool),
    Field { other: String, before: bool, after: bool, cased: bool },
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Char(char),
    Any,
    One,
}

/// Values of placeholders.
pub type Placeholders = std::collections::HashMap<String, Vec<String>>;

impl OracleRule {
    pub fn parse(text: &str, placeholders: &Placeholders) -> Vec<Self> {
        let documents = YamlLoader::load_from_str(text).unwrap();
        documents.iter().map(|document| Self::read(document, "detection", placeholders)).collect()
    }

    /// A Sigma filter reads like a rule whose detection is called `filter`.
    pub fn parse_filter(text: &str) -> Self {
        Self::read(&YamlLoader::load_from_str(text).unwrap()[0], "filter", &Placeholders::new())
    }

    fn read(document: &Yaml, section: &str, placeholders: &Placeholders) -> Self {
        let from = |name: &str| document["logsource"][name].as_str().map(str::to_lowercase);
        let detection = document[section].as_hash().unwrap();
        let mut selections = Vec::new();
        for (name, value) in detection {
            let name = scalar(name);
            if name != "condition" && name != "timeframe" && name != "rules" {
                selections.push((name, selection(value, placeholders)));
            }
        }
        let conditions = match &document[section]["condition"] {
            Yaml::Array(items) => items.iter().map(scalar).collect(),
            one => vec![scalar(one)],
        };
        Self { logsource: ["product", "category", "service"].map(from), selections, conditions }
    }

    /// Every dimension the rule names is known of the event and equal.
    pub fn runs_on(&self, class: &inosec_schemas::EventClass) -> bool {
        let [product, category, service] = &self.logsource;
        let within = |name: &Option<String>, known: &[String]| {
            name.as_ref().is_none_or(|name| known.iter().any(|known| known == name))
        };
        within(product, class.product.as_slice())
            && within(category, &class.categories)
            && within(service, &class.services)
    }

    pub fn matches(&self, event: &Map<String, Value>) -> bool {
        self.conditions.iter().any(|condition| {
            let words: Vec<String> = condition
                .replace('(', " ( ")
                .replace(')', " ) ")
                .split_whitespace()
                .map(str::to_owned)
                .collect();
            let mut at = 0;
            let verdict = self.or(&words, &mut at, event);
            assert_eq!(at, words.len(), "{condition}");
            verdict
        })
    }

    fn or(&self, words: &[String], at: &mut usize, event: &Map<String, Value>) -> bool {
        let mut verdict = self.and(words, at, event);
        while is(words, *at, "or") {
            *at += 1;
            verdict |= self.and(words, at, event);
        }
        verdict
    }

    fn and(&self, words: &[String], at: &mut usize, event: &Map<String, Value>) -> bool {
        let mut verdict = self.operand(words, at, event);
        while is(words, *at, "and") {
            *at += 1;
            verdict &= self.operand(words, at, event);
        }
        verdict
    }

    fn operand(&self, words: &[String], at: &mut usize, event: &Map<String, Value>) -> bool {
        let word = words[*at].as_str();
        *at += 1;
        if word.eq_ignore_ascii_case("not") {
            return !self.operand(words, at, event);
        }
        if word == "(" {
            let verdict = self.or(words, at, event);
            *at += 1;
            return verdict;
        }
        if is(words, *at, "of") {
            let pattern = words[*at + 1].as_str();
            *at += 2;
            let mut chosen = self.selections.iter().filter(|(name, _)| {
                if pattern.eq_ignore_ascii_case("them") {
                    !name.starts_with('_')
                } else {
                    named(pattern, name)
                }
            });
            if word.eq_ignore_ascii_case("all") {
                return chosen.all(|(_, part)| part.holds(event));
            }
            return chosen.any(|(_, part)| part.holds(event));
        }
        self.selections.iter().find(|(name, _)| name == word).unwrap().1.holds(event)
    }
}

fn is(words: &[String], at: usize, word: &str) -> bool {
    words.get(at).is_some_and(|other| other.eq_ignore_ascii_case(word))
}

fn named(pattern: &str, name: &str) -> bool {
    let pattern: Vec<Token> =
        pattern.chars().map(|one| if one == '*' { Token::Any } else { Token::Char(one) }).collect();
    glob(&pattern, &name.chars().collect::<Vec<_>>())
}

fn scalar(yaml: &Yaml) -> String {
    match yaml {
        Yaml::String(text) | Yaml::Real(text) => text.clone(),
        Yaml::Integer(number) => number.to_string(),
        Yaml::Boolean(value) => value.to_string(),
        other => panic!("{other:?} is not a scalar"),
    }
}

fn selection(yaml: &Yaml, placeholders: &Placeholders) -> Part {
    match yaml {
        Yaml::Array(items) => Part::Any(items.iter().map(|item| selection(item, placeholders)).collect()),
        Yaml::Hash(items) => {
            let read = |(key, value): (&Yaml, &Yaml)| item(&scalar(key), value, placeholders);
            Part::All(items.iter().map(read).collect())
        }
        _ => item("", yaml, placeholders),
    }
}

fn item(key: &str, value: &Yaml, placeholders: &Placeholders) -> Part {
    let mut names = key.split('|');
    let field = names.next().filter(|field| !field.is_empty()).map(str::to_owned);
    let modifiers: Vec<&str> = names.collect();
    let values = if let Yaml::Array(values) = value { values.clone() } else { vec![value.clone()] };
    let tests = values.iter().map(|value| any_of(&field, &modifiers, value, placeholders)).collect();
    if modifiers.contains(&"neq") {
        let there = Part::Test { field, test: Test::Exists(true) };
        return Part::All(vec![there, Part::Not(Box::new(Part::Any(tests)))]);
    }
    if modifiers.contains(&"all") { Part::All(tests) } else { Part::Any(tests) }
}

fn any_of(field: &Option<String>, modifiers: &[&str], value: &Yaml, placeholders: &Placeholders) -> Part {
    let tests = tests(field.is_none(), modifiers, value, placeholders);
    Part::Any(tests.into_iter().map(|test| Part::Test { field: field.clone(), test }).collect())
}

fn tests(keyword: bool, modifiers: &[&str], value: &Yaml, placeholders: &Placeholders) -> Vec<Test> {
    let has = |name: &str| modifiers.contains(&name);
    if *value == Yaml::Null {
        return vec![Test::Null];
    }
    let text = scalar(value);
    if has("exists") {
        return vec![Test::Exists(text == "true")];
    }
    let comparison = modifiers.iter().find(|name| ["lt", "lte", "gt", "gte"].contains(name));
    let times = ["minute", "hour", "day", "week", "month", "year"];
    if let Some(part) = modifiers.iter().find(|name| times.contains(name)) {
        return vec![Test::Time((*part).to_owned(), comparison.unwrap_or(&"eq").to_string(), text)];
    }
    if let Some(comparison) = comparison {
        return vec![Test::Compare((*comparison).to_owned(), text)];
    }
    let before = keyword || has("contains") || has("endswith");
    let after = keyword || has("contains") || has("startswith");
    let expanded = if has("expand") { expand(&text, placeholders) } else { vec![text] };
    if has("re") {
        return expanded.iter().map(|text| regex(text, modifiers)).collect();
    }
    if has("cidr") {
        return expanded.iter().map(|text| cidr(text)).collect();
    }
    if has("fieldref") {
        let (cased, field) =
            (has("cased"), |other| Test::Field { other, before, after, cased: has("cased") });
        let _ = cased;
        return expanded.into_iter().map(field).collect();
    }
    let plain = modifiers.iter().all(|name| ["all", "neq", "cased"].contains(name));
    if plain && !keyword && matches!(value, Yaml::Integer(_) | Yaml::Real(_)) {
        return vec![Test::Number(expanded[0].clone())];
    }
    let patterns = expanded.iter().flat_map(|text| encoded(tokens(text), modifiers));
    let bound = patterns.map(|mut pattern| {
        if before {
            pattern.insert(0, Token::Any);
        }
        if after {
            pattern.push(Token::Any);
        }
        if !has("cased") {
            pattern.iter_mut().for_each(|token| {
                if let Token::Char(character) = token {
                    *character = fold(*character);
                }
            });
        }
        Test::Text(pattern, has("cased"))
    });
    bound.collect()
}

fn regex(text: &str, modifiers: &[&str]) -> Test {
    let has = |name: &str| modifiers.contains(&name);
    let start = if has("startswith") { r"\A" } else { "" };
    let end = if has("endswith") { r"\z" } else { "" };
    let text = format!("{start}(?:{text}){end}");
    let mut builder = RegexBuilder::new(&text);
    builder.case_insensitive(has("i")).multi_line(has("m")).dot_matches_new_line(has("s"));
    Test::Regex(builder.build().unwrap())
}

fn cidr(text: &str) -> Test {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().unwrap();
    let all = if address.is_ipv4() { 32 } else { 128 };
    Test::Cidr(address, bits.map_or(all, |bits| bits.parse().unwrap()))
}

fn expand(text: &str, placeholders: &Placeholders) -> Vec<String> {
    let text = text.replace(r"\%", "\u{1}");
    let Some((before, rest)) = text.split_once('%') else { return vec![text.replace('\u{1}', "%")] };
    let Some((name, after)) = rest.split_once('%').filter(|(name, _)| !name.is_empty()) else {
        return expand(&rest.replace('\u{1}', r"\%"), placeholders)
            .into_iter()
            .map(|rest| format!("{}%{rest}", before.replace('\u{1}', "%")))
            .collect();
    };
    let rest = expand(&after.replace('\u{1}', r"\%"), placeholders);
    let mut all = Vec::new();
    for value in &placeholders[&name.replace('\u{1}', r"\%")] {
        all.extend(rest.iter().map(|rest| format!("{}{value}{rest}", before.replace('\u{1}', "%"))));
    }
    all
}

fn tokens(text: &str) -> Vec<Token> {
    let characters: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < characters.len() {
        let next = characters.get(at + 1).copied();
        let (token, taken) = match characters[at] {
            '\\' if matches!(next, Some('*' | '?' | '\\')) => (Token::Char(next.unwrap()), 2),
            '*' => (Token::Any, 1),
            '?' => (Token::One, 1),
            other => (Token::Char(other), 1),
        };
        tokens.push(token);
        at += taken;
    }
    tokens
}

fn encoded(pattern: Vec<Token>, modifiers: &[&str]) -> Vec<Vec<Token>> {
    let mut patterns = vec![pattern];
    let mut bytes: Option<Vec<u8>> = None;
    for modifier in modifiers {
        match *modifier {
            "windash" => patterns = patterns.iter().flat_map(|pattern| dashed(pattern, 0)).collect(),
            "wide" | "utf16le" => bytes = Some(units(&patterns[0]).flat_map(u16::to_le_bytes).collect()),
            "utf16be" => bytes = Some(units(&patterns[0]).flat_map(u16::to_be_bytes).collect()),
            "utf16" => {
                let text = units(&patterns[0]).flat_map(u16::to_le_bytes);
                bytes = Some([0xFF, 0xFE].into_iter().chain(text).collect());
            }
            "base64" | "base64offset" => {
                let all = match bytes.take() {
                    Some(bytes) => vec![bytes],
                    None => patterns.iter().map(|pattern| literal(pattern).into_bytes()).collect(),
                };
                let texts = all.iter().flat_map(|bytes| match *modifier {
                    "base64" => vec![base64(bytes)],
                    _ => (0..3).map(|offset| sure_part(bytes, offset)).collect(),
                });
                patterns = texts.map(|text| text.chars().map(Token::Char).collect()).collect();
            }
            _ => {}
        }
    }
    if let Some(bytes) = bytes {
        patterns = vec![String::from_utf8(bytes).unwrap().chars().map(Token::Char).collect()];
    }
    patterns
}

fn units(pattern: &[Token]) -> std::vec::IntoIter<u16> {
    literal(pattern).encode_utf16().collect::<Vec<_>>().into_iter()
}

fn literal(pattern: &[Token]) -> String {
    let character = |token: &Token| match token {
        Token::Char(character) => *character,
        other => panic!("{other:?} can't be encoded"),
    };
    pattern.iter().map(character).collect()
}

fn dashed(pattern: &[Token], from: usize) -> Vec<Vec<Token>> {
    let dashes = ['-', '/', '–', '—', '―'];
    let word = |token: Option<&Token>| matches!(token, Some(Token::Char(one)) if one.is_alphanumeric() || *one == '_');
    for at in from..pattern.len() {
        let dash = matches!(pattern[at], Token::Char(one) if dashes.contains(&one));
        if dash && !(at > 0 && word(pattern.get(at - 1))) && word(pattern.get(at + 1)) {
            let exchanged = dashes.iter().flat_map(|dash| {
                let mut pattern = pattern.to_vec();
                pattern[at] = Token::Char(*dash);
                dashed(&pattern, at + 1)
            });
            return exchanged.collect();
        }
    }
    vec![pattern.to_vec()]
}

fn base64(bytes: &[u8]) -> String {
    let alphabet: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let sextet = |bits: &[u8]| (0..6).fold(0, |sum, at| sum * 2 + usize::from(*bits.get(at).unwrap_or(&0)));
    let mut text: String = bits.chunks(6).map(|bits| alphabet[sextet(bits)]).collect();
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

/// What stays the same whatever stands before and after.
fn sure_part(bytes: &[u8], offset: usize) -> String {
    let around = |fill: u8| {
        let text = [vec![fill; offset], bytes.to_vec(), vec![fill; 3]].concat();
        base64(&text)
    };
    let (zeros, ones) = (around(0), around(0xFF));
    let first = offset * 8;
    let last = (offset + bytes.len()) * 8;
    let sure = |at: usize| at * 6 >= first && at * 6 + 6 <= last;
    let pairs = zeros.chars().zip(ones.chars()).enumerate().filter(|(at, _)| sure(*at));
    pairs.inspect(|(_, (zero, one))| assert_eq!(zero, one)).map(|(_, (zero, _))| zero).collect()
}

impl Part {
    fn holds(&self, event: &Map<String, Value>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(event)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(event)),
            Self::Not(part) => !part.holds(event),
            Self::Test { field, test } => test.holds(field.as_deref(), event),
        }
    }
}

impl Test {
    fn holds(&self, field: Option<&str>, event: &Map<String, Value>) -> bool {
        let mut values = Vec::new();
        match field {
            Some(field) => look_up(event, field, &mut values),
            None => event.values().for_each(|value| scalars(value, &mut values)),
        }
        match self {
            Self::Exists(there) => values.is_empty() != *there,
            Self::Null => values.is_empty() || values.iter().any(|value| value.is_null()),
            Self::Field { other, before, after, cased } => {
                let mut others = Vec::new();
                look_up(event, other, &mut others);
                let others: Vec<String> = others.into_iter().filter_map(text).collect();
                values.into_iter().filter_map(text).any(|text| {
                    others.iter().any(|other| {
                        let case = |one: char| if *cased { one } else { fold(one) };
                        let mut pattern: Vec<Token> =
                            other.chars().map(|one| Token::Char(case(one))).collect();
                        if *before {
                            pattern.insert(0, Token::Any);
                        }
                        if *after {
                            pattern.push(Token::Any);
                        }
                        glob(&pattern, &text.chars().map(case).collect::<Vec<_>>())
                    })
                })
            }
            _ => values.into_iter().filter_map(text).any(|text| self.passes(&text)),
        }
    }

    fn passes(&self, text: &str) -> bool {
        match self {
            Self::Text(pattern, true) => glob(pattern, &text.chars().collect::<Vec<_>>()),
            Self::Text(pattern, false) => glob(pattern, &text.chars().map(fold).collect::<Vec<_>>()),
            Self::Regex(regex) => regex.is_match(text),
            Self::Number(number) => compare("eq", text, number),
            Self::Compare(comparison, number) => compare(comparison, text, number),
            Self::Time(part, comparison, number) => {
                time(part, text).is_some_and(|value| compare(comparison, &value.to_string(), number))
            }
            Self::Cidr(network, bits) => inside(text, *network, *bits),
            Self::Null | Self::Exists(_) | Self::Field { .. } => unreachable!(),
        }
    }
}

/// Every value at a dotted path; arrays count as all their items.
fn look_up<'a>(fields: &'a Map<String, Value>, path: &str, found: &mut Vec<&'a Value>) {
    for (name, value) in fields {
        if name == path {
            items(value, found);
        } else if let Some(rest) = path.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('.')) {
            let mut inner = Vec::new();
            items(value, &mut inner);
            inner
                .iter()
                .filter_map(|value| value.as_object())
                .for_each(|fields| look_up(fields, rest, found));
        }
    }
}

fn items<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(values) if !values.is_empty() => values.iter().for_each(|value| items(value, found)),
        other => found.push(other),
    }
}

fn scalars<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| scalars(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| scalars(value, found)),
        other => found.push(other),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

fn glob(pattern: &[Token], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((Token::Any, [])) => true,
        Some((Token::Any, rest)) => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        Some((Token::One, rest)) => !text.is_empty() && glob(rest, &text[1..]),
        Some((Token::Char(character), rest)) => text.first() == Some(character) && glob(rest, &text[1..]),
    }
}
