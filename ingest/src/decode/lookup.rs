//! Where the wanted fields of a class lie in the records of a format: a tree of member names, walked
//! beside the record.

use hashbrown::HashMap;
use inosec_schemas::{Extracted, FieldId, FieldNames, Kept, LogSources, Path, Source, Wanted};
use simd_json::{Node, StaticNode};

use super::record::{Fields, Record, Value, members, value_at, width};

/// The branch of the record itself.
const ROOT: usize = 0;
/// The member that XML's text becomes where an element also has attributes.
const TEXT: &str = "#text";

/// A field that is wanted, and how good the place is where it was found; lower wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish {
    field: FieldId,
    rank: u16,
}

/// The paths of the wanted fields as a tree.
#[derive(Debug)]
pub(crate) struct Paths {
    branches: Vec<Branch>,
}

#[derive(Debug, Default)]
struct Branch {
    below: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
    /// Of any member that isn't in `below`.
    any: Option<usize>,
    wishes: Vec<Wish>,
}

impl Paths {
    /// Of several places of a field those the format names come first, then its objects in order, then
    /// the record itself.
    pub(crate) fn compile(sources: &LogSources, names: &FieldNames, wanted: &Wanted) -> Self {
        let mut paths = Self { branches: vec![Branch::default()] };
        for field in &wanted.fields {
            let name = names.name(*field);
            let own = Path::from(name.to_owned());
            let mut rank = 0;
            let mut add = |members: &[String]| {
                paths.add(members, Wish { field: *field, rank });
                if members.len() > 1 && !members.iter().any(|member| member == "*") {
                    paths.add(&[members.join(".")], Wish { field: *field, rank });
                }
                rank += 1;
            };
            for path in sources.fields.get(name).into_iter().flatten() {
                add(&path.0);
            }
            for object in &sources.objects {
                add(&[&object.0[..], &own.0].concat());
                if own.0.len() > 1 {
                    add(&[&object.0[..], &[name.to_owned()]].concat());
                }
            }
            add(&own.0);
        }
        paths
    }

    fn add(&mut self, members: &[String], wish: Wish) {
        let mut at = ROOT;
        for member in members {
            let next = self.branches.len();
            let branch = &mut self.branches[at];
            at = if member == "*" {
                *branch.any.get_or_insert(next)
            } else {
                *branch.below.entry(member.as_str().into()).or_insert(next)
            };
            if at == next {
                self.branches.push(Branch::default());
            }
        }
        self.branches[at].wishes.push(wish);
    }

    /// The branch of a member. Rendered event data may have spaces in names that Sigma writes without.
    fn below(&self, branch: usize, name: &str) -> Option<usize> {
        let branch = &self.branches[branch];
        let found = branch.below.get(name).copied().or(branch.any);
        if found.is_none() && name.contains(' ') && !branch.below.is_empty() {
            return branch.below.get(name.replace(' ', "").as_str()).copied();
        }
        found
    }
}

/// Walks records; keeps its buffers between them.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// What was found, in document order.
    found: Vec<(Wish, Kept)>,
    /// By field: the best of what was found in this record; a null elsewhere doesn't count.
    best: Vec<Option<(bool, u16)>>,
}

/// One record being walked.
struct Walking<'a, 't> {
    paths: &'a Paths,
    keywords: bool,
    tape: &'a [Node<'t>],
    out: &'a mut Extracted,
    found: &'a mut Vec<(Wish, Kept)>,
}

impl Walk {
    /// Takes the wanted values of a JSON object.
    pub(crate) fn json(
        &mut self,
        paths: &Paths,
        keywords: bool,
        tape: &[Node<'_>],
        root: usize,
        out: &mut Extracted,
    ) {
        self.found.clear();
        let mut walking = Walking { paths, keywords, tape, out, found: &mut self.found };
        walking.object(root, Some(ROOT));
        self.settle(out);
    }

    /// Takes the wanted fields of a line of text, and the line itself for keywords.
    pub(crate) fn text(
        &mut self,
        paths: &Paths,
        keywords: bool,
        fields: &Fields<'_>,
        line: &str,
        out: &mut Extracted,
    ) {
        self.found.clear();
        let line_at = line.as_bytes().as_ptr_range();
        for (name, value) in fields.iter() {
            let wishes = paths.below(ROOT, name).map_or(&[][..], |at| &paths.branches[at].wishes);
            // By its place: looking for the text would take the line's length for each field.
            let decoded = keywords && !line_at.contains(&value.as_ptr());
            if !wishes.is_empty() || decoded {
                let kept = keep(out.text(), value);
                if decoded {
                    out.push(None, kept.clone());
                }
                self.found.extend(wishes.iter().map(|wish| (*wish, kept.clone())));
            }
        }
        if keywords {
            let kept = keep(out.text(), line);
            out.push(None, kept);
        }
        self.settle(out);
    }

    /// Keeps of each field what was found in its best place, all values of it, nulls in an array too.
    fn settle(&mut self, out: &mut Extracted) {
        let Self { found, best } = self;
        for (wish, kept) in found.iter() {
            let field = wish.field.index();
            if best.len() <= field {
                best.resize(field + 1, None);
            }
            let this = (*kept == Kept::Null, wish.rank);
            if best[field].is_none_or(|best| this < best) {
                best[field] = Some(this);
            }
        }
        for (wish, kept) in found.iter() {
            if best[wish.field.index()].is_some_and(|(_, rank)| rank == wish.rank) {
                out.push(Some(wish.field), kept.clone());
            }
        }
        for (wish, _) in found.drain(..) {
            best[wish.field.index()] = None;
        }
    }
}

impl Walking<'_, '_> {
    fn object(&mut self, at: usize, branch: Option<usize>) {
        for (name, value) in members(self.tape, at) {
            let below = branch.and_then(|branch| self.paths.below(branch, name));
            if below.is_some() || self.keywords {
                self.value(value, below);
            }
        }
    }

    fn value(&mut self, at: usize, branch: Option<usize>) {
        match self.tape[at] {
            Node::Object { .. } => match self.text_of(at).filter(|_| self.is_wanted(branch)) {
                Some(text) => self.value(text, branch),
                None => {
                    self.wish(branch, &Kept::Other);
                    self.object(at, branch);
                }
            },
            Node::Array { len: 0, .. } => self.wish(branch, &Kept::Other),
            Node::Array { len, .. } => {
                let mut item = at + 1;
                for _ in 0..len {
                    self.value(item, branch);
                    item += width(&self.tape[item]);
                }
            }
            Node::Static(StaticNode::Null) => self.wish(branch, &Kept::Null),
            Node::String(_) | Node::Static(_) => self.scalar(value_at(self.tape, at), branch),
        }
    }

    fn scalar(&mut self, value: Value<'_>, branch: Option<usize>) {
        let wanted = self.is_wanted(branch);
        if !wanted && !self.keywords {
            return;
        }
        let text = self.out.text();
        let start = text.len();
        write(value, text);
        let kept = Kept::Text(start..text.len());
        if wanted {
            self.wish(branch, &kept);
        } else {
            self.out.push(None, kept);
        }
    }

    fn wish(&mut self, branch: Option<usize>, kept: &Kept) {
        if let Some(branch) = branch {
            let wishes = &self.paths.branches[branch].wishes;
            self.found.extend(wishes.iter().map(|wish| (*wish, kept.clone())));
        }
    }

    fn is_wanted(&self, branch: Option<usize>) -> bool {
        branch.is_some_and(|branch| !self.paths.branches[branch].wishes.is_empty())
    }

    /// The text of an XML element with attributes.
    fn text_of(&self, at: usize) -> Option<usize> {
        members(self.tape, at).find(|(name, _)| *name == TEXT).map(|(_, value)| value)
    }
}

fn keep(text: &mut String, value: &str) -> Kept {
    let start = text.len();
    text.push_str(value);
    Kept::Text(start..text.len())
}

/// A scalar as JSON writes it, a text without quotes.
fn write(value: Value<'_>, text: &mut String) {
    match value {
        Value::Text(value) => text.push_str(value),
        Value::Bool(value) => text.push_str(if value { "true" } else { "false" }),
        Value::Int(value) => text.push_str(itoa::Buffer::new().format(value)),
        Value::Uint(value) => text.push_str(itoa::Buffer::new().format(value)),
        Value::Float(value) => text.push_str(&serde_json::Value::from(value).to_string()),
        Value::Null | Value::Nested(_) => {}
    }
}

/// Appends a look-up's key: per part the first path that has a scalar, parts joined by `/`.
pub(crate) fn key(source: &Source, record: &Record<'_>, root: usize, text: &mut String) {
    let Source::Lookup { key, .. } = source else { return };
    for (index, paths) in key.iter().enumerate() {
        if index > 0 {
            text.push('/');
        }
        match record {
            Record::Json(tape) => {
                let found = paths.iter().find_map(|path| find(tape, root, &path.0));
                found.into_iter().for_each(|value| write(value, text));
            }
            Record::Text(fields) => {
                let found = paths.iter().find_map(|path| fields.get(&path.to_string()));
                found.into_iter().for_each(|value| text.push_str(value));
            }
        }
    }
}

/// The scalar at a path; of an array the first.
fn find<'i>(tape: &[Node<'i>], at: usize, path: &[String]) -> Option<Value<'i>> {
    let (first, rest) = path.split_first()?;
    let dotted = || members(tape, at).find(|(name, _)| !rest.is_empty() && is_joined(name, path));
    let Some((_, place)) = members(tape, at).find(|(name, _)| name == first) else {
        return dotted().and_then(|(_, place)| scalar(tape, place));
    };
    let found = if rest.is_empty() { scalar(tape, place) } else { find(tape, place, rest) };
    found.or_else(|| dotted().and_then(|(_, place)| scalar(tape, place)))
}

fn is_joined(name: &str, path: &[String]) -> bool {
    name.split('.').eq(path.iter().map(String::as_str))
}

fn scalar<'i>(tape: &[Node<'i>], at: usize) -> Option<Value<'i>> {
    match tape[at] {
        Node::Array { len, .. } if len > 0 => scalar(tape, at + 1),
        Node::Object { .. } => {
            let (_, text) = members(tape, at).find(|(name, _)| *name == TEXT)?;
            scalar(tape, text)
        }
        Node::Array { .. } | Node::Static(StaticNode::Null) => None,
        Node::String(_) | Node::Static(_) => Some(value_at(tape, at)),
    }
}
