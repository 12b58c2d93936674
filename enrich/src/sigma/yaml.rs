//! YAML text in, a tree that knows its lines out.
//!
//! A file's documents are cut apart first, so that a syntax error in one never hides the next. Anchors
//! are resolved within a budget: a document can't grow beyond [`MAX_NODES`].

use hashbrown::{HashMap, HashSet};
use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::number::Number;

/// Nodes a document may have, aliases counted as often as they are used.
const MAX_NODES: usize = 200_000;

/// How deep a document may nest.
const MAX_DEPTH: usize = 64;

/// A value and the line it starts on, counted from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its line.
    pub line: usize,
    /// What it is.
    pub value: Yaml,
}

/// A YAML value, resolved by YAML 1.2's core schema.
#[derive(Debug, Clone, PartialEq)]
pub enum Yaml {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, with the text it was written as.
    Number(Number, String),
    /// Any other scalar.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order it was written.
    Map(Vec<(Node, Node)>),
}

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its line.
    pub line: usize,
    /// What is wrong and what to change.
    pub message: String,
}

impl Fault {
    /// A fault on a line.
    pub fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

impl Node {
    /// The value under a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Yaml::Map(entries) = &self.value else { return None };
        entries.iter().find(|(name, _)| name.value == *key).map(|(_, value)| value)
    }

    /// A scalar as it was written; none for null, lists and mappings.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Yaml::Text(text) | Yaml::Number(_, text) => Some(text),
            Yaml::Bool(true) => Some("true"),
            Yaml::Bool(false) => Some("false"),
            Yaml::Null | Yaml::List(_) | Yaml::Map(_) => None,
        }
    }

    /// The texts of a list of scalars, or of one scalar.
    pub fn texts(&self) -> Vec<String> {
        match &self.value {
            Yaml::List(items) => items.iter().filter_map(Node::text).map(str::to_owned).collect(),
            _ => self.text().map(str::to_owned).into_iter().collect(),
        }
    }
}

impl PartialEq<str> for Yaml {
    fn eq(&self, other: &str) -> bool {
        matches!(self, Yaml::Text(text) if text == other)
    }
}

/// Every document of a file, empty ones left out; with a fault the `id` that the document's text gives.
pub fn documents(text: &str) -> Vec<Result<Node, (Fault, Option<String>)>> {
    let mut documents = Vec::new();
    for (first_line, chunk) in cut(text) {
        match document(chunk) {
            Ok(Some(mut node)) => {
                shift(&mut node, first_line);
                documents.push(Ok(node));
            }
            Ok(None) => {}
            Err(fault) => {
                documents.push(Err((Fault::new(fault.line + first_line, fault.message), id(chunk))));
            }
        }
    }
    documents
}

/// The value of a line `id: …`, for a document that could not be read.
fn id(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("id:"))?;
    Some(value.trim_matches([' ', '\'', '"']).to_owned())
}

/// Pieces of a text that start at `---` in the first column, with the lines before them.
fn cut(text: &str) -> Vec<(usize, &str)> {
    let mut pieces = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 0, 0);
    for (line, content) in text.split_inclusive('\n').enumerate() {
        let marker = content
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(|next: char| next.is_ascii_whitespace()));
        if marker && offset > start {
            pieces.push((first_line, &text[start..offset]));
            (start, first_line) = (offset, line);
        }
        offset += content.len();
    }
    pieces.push((first_line, &text[start..]));
    pieces
}

fn shift(node: &mut Node, lines: usize) {
    node.line += lines;
    match &mut node.value {
        Yaml::List(items) => items.iter_mut().for_each(|item| shift(item, lines)),
        Yaml::Map(entries) => {
            for (key, value) in entries {
                shift(key, lines);
                shift(value, lines);
            }
        }
        _ => {}
    }
}

/// The one document of a piece, none when it is empty.
fn document(text: &str) -> Result<Option<Node>, Fault> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            Fault::new(error.marker().line().max(1), format!("not YAML: {}", error.info()))
        })?;
        builder.event(event, span)?;
    }
    Ok(builder.root.filter(|root| root.value != Yaml::Null))
}

/// A collection that is still open.
struct Open {
    anchor: usize,
    node: Node,
    /// A mapping's key that waits for its value.
    key: Option<Node>,
    /// A mapping's keys so far.
    keys: HashSet<String>,
}

#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let line = span.start.line().max(1);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let as_text = style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str");
                let value = if as_text { Yaml::Text(text.into_owned()) } else { scalar(&text) };
                self.finished(Node { line, value }, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                self.open(Node { line, value: Yaml::List(Vec::new()) }, anchor)
            }
            Event::MappingStart(anchor, _) => self.open(Node { line, value: Yaml::Map(Vec::new()) }, anchor),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.finished(open.node, open.anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(Fault::new(
                        line,
                        "an alias points to itself or to nothing: write the value out",
                    ));
                };
                self.nodes += size(&node);
                self.finished(node, 0)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        if self.open.len() == MAX_DEPTH {
            return Err(Fault::new(node.line, format!("nested deeper than {MAX_DEPTH} levels: flatten it")));
        }
        self.open.push(Open { anchor, node, key: None, keys: HashSet::new() });
        Ok(())
    }

    fn finished(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Fault::new(node.line, format!("more than {MAX_NODES} values: split the document")));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut open.node.value, open.key.take()) {
            (Yaml::List(items), _) => items.push(node),
            (Yaml::Map(_), None) => open.key = Some(node),
            (Yaml::Map(entries), Some(key)) => {
                let name = key.text().unwrap_or("null");
                if !open.keys.insert(name.to_owned()) {
                    let message = format!("the key `{name}` is there twice: join or rename them");
                    return Err(Fault::new(key.line, message));
                }
                entries.push((key, node));
            }
            _ => {}
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    match &node.value {
        Yaml::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Yaml::Map(entries) => 1 + entries.iter().map(|(key, value)| size(key) + size(value)).sum::<usize>(),
        _ => 1,
    }
}

/// A plain scalar by the core schema.
fn scalar(text: &str) -> Yaml {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Yaml::Null,
        "true" | "True" | "TRUE" => return Yaml::Bool(true),
        "false" | "False" | "FALSE" => return Yaml::Bool(false),
        _ => {}
    }
    match number(text) {
        Some(number) => Yaml::Number(number, text.to_owned()),
        None => Yaml::Text(text.to_owned()),
    }
}

fn number(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return i128::from_str_radix(digits, 16).ok().map(Number::Int);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return i128::from_str_radix(digits, 8).ok().map(Number::Int);
    }
    Number::parse(text.strip_prefix('+').unwrap_or(text))
}
