//! What a record offers, whatever it was written in: members by name, values by place.

use std::borrow::Cow;

use inosec_schemas::Shape;
use simd_json::{Node, StaticNode};

use super::plan::{Target, Trie};
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

/// Something that can be walked along a trie of paths.
pub(crate) trait Walk {
    /// Calls `hit` with every target whose path leads to a value, and the value's place.
    fn walk(&self, trie: &Trie, hit: &mut impl FnMut(&Target, u32));
    /// The value at a place.
    fn value(&self, at: u32) -> Value<'_>;
    /// The tape under nested values, if there is one.
    fn tape(&self) -> &[Node<'_>];
}

/// A JSON object on a tape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Json<'a> {
    pub(crate) tape: &'a [Node<'a>],
    pub(crate) root: usize,
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

impl Json<'_> {
    fn walk_object(&self, at: usize, trie: &Trie, branch: usize, hit: &mut impl FnMut(&Target, u32)) {
        for (name, value) in members(self.tape, at) {
            let Some(next) = trie.child(branch, name) else { continue };
            for target in trie.targets(next) {
                hit(target, value as u32);
            }
            if trie.has_children(next) && matches!(self.tape[value], Node::Object { .. }) {
                self.walk_object(value, trie, next, hit);
            }
        }
    }
}

impl Walk for Json<'_> {
    fn walk(&self, trie: &Trie, hit: &mut impl FnMut(&Target, u32)) {
        self.walk_object(self.root, trie, Trie::ROOT, hit);
    }

    fn value(&self, at: u32) -> Value<'_> {
        value_at(self.tape, at as usize)
    }

    fn tape(&self) -> &[Node<'_>] {
        self.tape
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
}

/// A text line that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    pub(crate) fields: &'a Fields<'a>,
}

impl Walk for Text<'_> {
    fn walk(&self, trie: &Trie, hit: &mut impl FnMut(&Target, u32)) {
        for (place, (name, _)) in (0_u32..).zip(&self.fields.list) {
            if let Some(next) = trie.child(Trie::ROOT, name) {
                trie.targets(next).iter().for_each(|target| hit(target, place));
            }
        }
    }

    fn value(&self, at: u32) -> Value<'_> {
        Value::Text(&self.fields.list[at as usize].1)
    }

    fn tape(&self) -> &[Node<'_>] {
        &[]
    }
}

/// Walks once and keeps for each slot the value of the lowest rank that says something. Of repeated
/// members the last wins, as in most JSON readers.
pub(crate) fn capture(record: &impl Walk, trie: &Trie, slots: usize, captures: &mut Vec<Capture>) {
    captures.clear();
    captures.resize(slots, Capture::NONE);
    record.walk(trie, &mut |target, at| {
        let best = &mut captures[target.slot as usize];
        if target.rank <= best.rank {
            if says_something(record.value(at)) {
                *best = Capture { rank: target.rank, at };
            } else if target.rank == best.rank {
                *best = Capture::NONE;
            }
        }
    });
}
