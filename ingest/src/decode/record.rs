//! What a record offers, whatever it was written in: members by name, values by place.

use std::borrow::Cow;

use inosec_schemas::Shape;
use simd_json::{Node, StaticNode};

use super::names::{ByName, Hit, Names};
use super::plan::Target;
use super::{auditd, says_something, syslog};

/// A value on its way to a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Beyond `i64::MAX`.
    Uint(u64),
    Float(f64),
    Text(&'a str),
    /// An object or array, by its place on the tape.
    Nested(usize),
}

/// The best value met so far for one slot of a plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capture {
    /// The rank of its path; lower wins. `u16::MAX`: none yet.
    pub(crate) rank: u16,
    /// Its place: on the tape, or among the fields.
    pub(crate) at: u32,
}

impl Capture {
    pub(crate) const NONE: Self = Self { rank: u16::MAX, at: 0 };
}

/// A record that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Record<'a> {
    /// An object on this tape.
    Json(&'a [Node<'a>]),
    /// A line of text.
    Text(&'a Fields<'a>),
}

impl<'a> Record<'a> {
    /// The value at a place.
    pub(crate) fn value(&self, at: u32) -> Value<'a> {
        match self {
            Self::Json(tape) => value_at(tape, at as usize),
            Self::Text(fields) => Value::Text(&fields.list[at as usize].1),
        }
    }

    /// The tape under nested values, if there is one.
    pub(crate) fn tape(&self) -> &'a [Node<'a>] {
        match self {
            Self::Json(tape) => tape,
            Self::Text(_) => &[],
        }
    }
}

/// How many places a value takes on the tape.
pub(crate) fn width(node: &Node<'_>) -> usize {
    match node {
        Node::Object { count, .. } | Node::Array { count, .. } => 1 + count,
        Node::String(_) | Node::Static(_) => 1,
    }
}

/// The members of the object at `at`: name and the value's place.
pub(crate) fn members<'t, 'i>(
    tape: &'t [Node<'i>],
    at: usize,
) -> impl Iterator<Item = (&'i str, usize)> + use<'t, 'i> {
    let length = match tape[at] {
        Node::Object { len, .. } => len,
        _ => 0,
    };
    let mut place = at + 1;
    (0..length).map_while(move |_| {
        let Node::String(name) = tape[place] else { return None };
        let value = place + 1;
        place = value + width(&tape[value]);
        Some((name, value))
    })
}

pub(crate) fn value_at<'i>(tape: &[Node<'i>], at: usize) -> Value<'i> {
    match tape[at] {
        Node::String(text) => Value::Text(text),
        Node::Static(StaticNode::Null) => Value::Null,
        Node::Static(StaticNode::Bool(value)) => Value::Bool(value),
        Node::Static(StaticNode::I64(value)) => Value::Int(value),
        Node::Static(StaticNode::U64(value)) => i64::try_from(value).map_or(Value::Uint(value), Value::Int),
        Node::Static(StaticNode::F64(value)) => Value::Float(value),
        Node::Object { .. } | Node::Array { .. } => Value::Nested(at),
    }
}

/// The fields of a text line, looked up by their whole dotted names.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    list: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Fields<'a> {
    /// Reads a line in this shape; false if it isn't one.
    pub(crate) fn read(&mut self, shape: Shape, line: &'a str) -> bool {
        self.list.clear();
        match shape {
            Shape::Json => false,
            Shape::Syslog => syslog::parse(line, &mut self.list).is_some(),
            Shape::Auditd => auditd::parse(line, &mut self.list),
            Shape::Text => {
                self.list.push(("message".into(), line.into()));
                true
            }
        }
    }

    /// All fields, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list.iter().map(|(name, value)| (&**name, &**value))
    }

    /// A field's value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The places of the fields that are asked for.
    pub(crate) fn walk(&self, names: &Names, hits: &mut Vec<Hit>) {
        let places = (0..).zip(&self.list);
        hits.extend(places.filter_map(|(at, (name, _))| Some(Hit { name: names.field(name)?, at })));
    }
}

/// Keeps for each slot the value of the lowest rank that says something. Of repeated members the last
/// wins, as in most JSON readers.
pub(crate) fn capture(
    record: &Record<'_>,
    hits: &[Hit],
    targets: &ByName<Target>,
    slots: usize,
    captures: &mut Vec<Capture>,
) {
    captures.clear();
    captures.resize(slots, Capture::NONE);
    for hit in hits {
        for target in targets.of(hit.name) {
            let best = &mut captures[target.slot as usize];
            if target.rank <= best.rank {
                if says_something(record.value(hit.at)) {
                    *best = Capture { rank: target.rank, at: hit.at };
                } else if target.rank == best.rank {
                    *best = Capture::NONE;
                }
            }
        }
    }
}
