//! The member names that formats ask for, walked once per record.
//!
//! In: an object on a tape. Out: the places of all members that any format asks for; what each means
//! to one format or another is looked up by its number.
//!
//! Records of one kind have the same members in the same order, their shape. A shape that was met
//! before costs one comparison per member; others are looked up name by name, and learnt.

use std::ops::Range;

use hashbrown::HashMap;
use inosec_schemas::Path;
use simd_json::Node;

use super::record::members;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// How many shapes are remembered; then they are forgotten.
const SHAPES: usize = 4096;
/// A shape with more bytes of names isn't remembered.
const LONGEST: usize = 8192;
/// The branch of the record itself.
const ROOT: usize = 0;

/// A member that somebody asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hit {
    /// The number of its name.
    pub(crate) name: u32,
    /// Its value's place: on the tape, or among a text's fields.
    pub(crate) at: u32,
}

/// Names in the objects in which they are asked for.
#[derive(Debug)]
pub(crate) struct Names {
    /// By number: the branch of the members below, if any is asked for.
    below: Vec<Option<usize>>,
    /// By branch.
    branches: Vec<Map<Box<str>, u32>>,
    shapes: Map<u64, Shape>,
    /// Objects still to be walked: branch and place.
    pending: Vec<(usize, usize)>,
}

/// The members of an object.
#[derive(Debug, Default)]
struct Shape {
    branch: usize,
    /// Their names, one after another.
    text: String,
    /// Where each ends.
    ends: Vec<u32>,
    /// Which are asked for: position and number.
    asked: Vec<(u32, u32)>,
}

impl Default for Names {
    fn default() -> Self {
        let branches = vec![Map::default()];
        Self { below: Vec::new(), branches, shapes: Map::default(), pending: Vec::new() }
    }
}

impl Names {
    /// The names under which a path's value may stand, best first: member by member, or all of the
    /// path as one dotted name.
    pub(crate) fn ask(&mut self, path: &Path) -> impl Iterator<Item = u32> + use<> {
        let mut branch = ROOT;
        let mut nested = 0;
        for (depth, member) in path.0.iter().enumerate() {
            if depth > 0 {
                branch = self.branch_below(nested);
            }
            nested = self.add(branch, member);
        }
        let dotted = (path.0.len() > 1).then(|| self.add(ROOT, &path.to_string()));
        std::iter::once(nested).chain(dotted)
    }

    fn branch_below(&mut self, name: u32) -> usize {
        let next = self.branches.len();
        let below = *self.below[name as usize].get_or_insert(next);
        if below == next {
            self.branches.push(Map::default());
        }
        below
    }

    fn add(&mut self, branch: usize, text: &str) -> u32 {
        let next = self.below.len() as u32;
        let name = *self.branches[branch].entry(text.into()).or_insert(next);
        if name == next {
            self.below.push(None);
        }
        name
    }

    /// The number of a text's field.
    pub(crate) fn field(&self, name: &str) -> Option<u32> {
        self.branches[ROOT].get(name).copied()
    }

    /// Walks the object at `at`. Hits of one name are in document order.
    pub(crate) fn walk(&mut self, tape: &[Node<'_>], at: usize, hits: &mut Vec<Hit>) {
        self.pending.clear();
        self.pending.push((ROOT, at));
        let mut walked = 0;
        while let Some((branch, at)) = self.pending.get(walked).copied() {
            let (found, key) = (hits.len(), key(tape, at, branch));
            let met = self.shapes.get(&key).is_some_and(|shape| shape.hits(tape, at, branch, hits));
            if !met {
                hits.truncate(found);
                self.learn(tape, at, branch, key, hits);
            }
            for hit in &hits[found..] {
                if let Some(below) = self.below[hit.name as usize]
                    && matches!(tape[hit.at as usize], Node::Object { .. })
                {
                    self.pending.push((below, hit.at as usize));
                }
            }
            walked += 1;
        }
    }

    #[cold]
    fn learn(&mut self, tape: &[Node<'_>], at: usize, branch: usize, key: u64, hits: &mut Vec<Hit>) {
        let mut shape = Shape { branch, ..Shape::default() };
        for (position, (text, value)) in (0..).zip(members(tape, at)) {
            if shape.text.len() <= LONGEST {
                shape.text.push_str(text);
                shape.ends.push(shape.text.len() as u32);
            }
            if let Some(name) = self.branches[branch].get(text) {
                shape.asked.push((position, *name));
                hits.push(Hit { name: *name, at: value as u32 });
            }
        }
        if shape.text.len() <= LONGEST {
            if self.shapes.len() >= SHAPES {
                self.shapes.clear();
            }
            self.shapes.insert(key, shape);
        }
    }
}

/// What shapes are looked up by: the lengths of the names.
fn key(tape: &[Node<'_>], at: usize, branch: usize) -> u64 {
    let lengths = members(tape, at).map(|(text, _)| text.len() as u64);
    lengths
        .fold(branch as u64, |key, length| (key ^ length).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
}

impl Shape {
    /// Appends the hits of an object of this shape; false if it is of another one.
    fn hits(&self, tape: &[Node<'_>], at: usize, branch: usize, hits: &mut Vec<Hit>) -> bool {
        let (mut start, mut count, mut asked) = (0, 0, self.asked.iter());
        let mut next = asked.next();
        for (text, value) in members(tape, at) {
            let end = self.ends.get(count).map_or(0, |end| *end as usize);
            if self.text.as_bytes().get(start..end) != Some(text.as_bytes()) {
                return false;
            }
            if let Some((position, name)) = next
                && *position as usize == count
            {
                hits.push(Hit { name: *name, at: value as u32 });
                next = asked.next();
            }
            (start, count) = (end, count + 1);
        }
        count == self.ends.len() && branch == self.branch
    }
}

/// What names mean to one format.
#[derive(Debug)]
pub(crate) struct ByName<T> {
    /// By the name's number.
    places: Vec<Range<u32>>,
    meanings: Vec<T>,
}

impl<T> ByName<T> {
    /// What each name means, in order of importance.
    pub(crate) fn new(mut meanings: Vec<(u32, T)>) -> Self {
        meanings.sort_by_key(|(name, _)| *name);
        let mut places = Vec::new();
        for (at, (name, _)) in (0..).zip(&meanings) {
            places.resize((*name as usize + 1).max(places.len()), at..at);
            places[*name as usize].end = at + 1;
        }
        Self { places, meanings: meanings.into_iter().map(|(_, meaning)| meaning).collect() }
    }

    /// What a name means; usually nothing.
    pub(crate) fn of(&self, name: u32) -> &[T] {
        let Some(Range { start, end }) = self.places.get(name as usize) else { return &[] };
        &self.meanings[*start as usize..*end as usize]
    }
}

#[cfg(test)]
mod tests {
    use simd_json::prelude::*;

    use super::*;

    fn walk(names: &mut Names, text: &str) -> Vec<Hit> {
        let mut text = text.as_bytes().to_vec();
        let tape = simd_json::to_tape(&mut text).unwrap();
        assert!(tape.as_value().is_object());
        let mut hits = Vec::new();
        names.walk(&tape.0, 0, &mut hits);
        hits
    }

    fn ask(names: &mut Names, path: &[&str]) -> Vec<u32> {
        names.ask(&Path(path.iter().map(|member| (*member).to_owned()).collect())).collect()
    }

    #[test]
    fn finds_members_in_any_order_nested_and_dotted() {
        let mut names = Names::default();
        let a = ask(&mut names, &["a"])[0];
        let [nested, dotted] = ask(&mut names, &["b", "c"])[..] else { panic!() };
        for _ in 0..2 {
            for text in [
                r#"{"x":1,"a":2,"b":{"z":0,"c":3}}"#,
                r#"{"b":{"c":3,"y":{"c":9}},"b.c":4,"a":2}"#,
                r#"{"a":[{"a":1}],"b":[{"c":1}],"c":5}"#,
            ] {
                let found: Vec<u32> = walk(&mut names, text).iter().map(|hit| hit.name).collect();
                assert_eq!(found.contains(&a), text.contains("\"a\""));
                assert_eq!(found.contains(&nested), text.contains("\"c\":3"), "{text}");
                assert_eq!(found.contains(&dotted), text.contains("b.c"), "{text}");
            }
        }
        assert_eq!(names.field("b.c"), Some(dotted));
        assert_eq!(names.field("x"), None);
    }

    #[test]
    fn shapes_of_the_same_lengths_are_told_apart() {
        let mut names = Names::default();
        let a = ask(&mut names, &["ab"])[0];
        for _ in 0..2 {
            for (text, hits) in [
                (r#"{"ab":1,"c":2}"#, 1),
                (r#"{"cd":1,"c":2}"#, 0),
                (r#"{"a":1,"bc":2}"#, 0),
                (r#"{"xx":1,"ab":2,"ab":3}"#, 2),
                (r#"{"xx":1,"yy":2,"ab":3}"#, 1),
                ("{}", 0),
            ] {
                let found = walk(&mut names, text);
                assert_eq!(found.iter().filter(|hit| hit.name == a).count(), hits, "{text}");
            }
        }
    }

    #[test]
    fn a_flood_of_shapes_is_forgotten_and_long_ones_are_not_kept() {
        let mut names = Names::default();
        let asked = ask(&mut names, &["host", "name"])[0];
        let long = "l".repeat(LONGEST + 1);
        for round in 0..2 * SHAPES {
            let flood: String =
                (0..13).map(|bit| if round >> bit & 1 == 1 { "\"ab\":1," } else { "\"a\":1," }).collect();
            let hits = walk(&mut names, &format!("{{{flood}\"host\":{{\"name\":\"h\"}}}}"));
            assert_eq!(hits.iter().filter(|hit| hit.name == asked).count(), 1);
            assert!(names.shapes.len() <= SHAPES);
        }
        let kept = names.shapes.len();
        let hits = walk(&mut names, &format!("{{\"{long}\":1,\"host\":{{\"name\":\"h\"}}}}"));
        assert_eq!((hits.len(), names.shapes.len()), (2, kept));
    }

    #[test]
    fn meanings_keep_their_order() {
        let meanings = ByName::new(vec![(3, 'a'), (1, 'b'), (3, 'c')]);
        assert_eq!(meanings.of(3), ['a', 'c']);
        assert_eq!(meanings.of(1), ['b']);
        assert!(meanings.of(0).is_empty() && meanings.of(2).is_empty() && meanings.of(9).is_empty());
    }
}
