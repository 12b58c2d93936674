//! Rules of one class in, a [`Program`] out: equal tests are one atom, conditions flat nodes, and each
//! rule hangs on the witness that is expected to pass least often.

use hashbrown::HashMap;
use inosec_schemas::{FieldId, FieldNames, Wanted};

use super::engine::{FilterId, RuleId, number};
use super::expr::{Atom, Expr, Test};
use super::program::{Node, NodeId, Program};
use super::reference::Reference;
use super::rule::{Filter, Rule};
use super::scanner::{AtomId, Scanner};
use super::witness::{frequency, witness};

/// Compiles rules and the filters that are for some of them.
pub fn compile(
    rules: &[(RuleId, &Rule)],
    filters: &[(FilterId, &Filter)],
    names: &mut FieldNames,
) -> Result<Program, String> {
    let kept: Vec<FieldId> =
        rules.iter().flat_map(|(_, rule)| &rule.kept).map(|field| names.intern(field)).collect();
    let rules: Vec<(RuleId, Expr)> =
        rules.iter().map(|(id, rule)| (*id, prepared(rule.detection.expr()))).collect();
    let filters: Vec<(FilterId, Expr)> =
        filters.iter().map(|(id, filter)| (*id, prepared(filter.detection.expr()))).collect();
    let mut compiler =
        Compiler { program: Program::default(), atoms: HashMap::new(), uses: Vec::new(), names };
    for (id, expr) in &rules {
        let node = compiler.root(expr);
        compiler.program.rules.push((*id, node));
    }
    for (id, expr) in &filters {
        let node = compiler.root(expr);
        compiler.program.filters.insert(*id, node);
    }
    compiler.watch(rules.iter().map(|(_, expr)| expr));
    compiler.scanners(&kept)?;
    Ok(compiler.program)
}

/// Nested and-s and or-s joined; a comparison with another field asks first whether the field is there,
/// so that it has a witness.
pub fn prepared(expr: Expr) -> Expr {
    match expr {
        Expr::And(parts) => {
            let mut all = Vec::with_capacity(parts.len());
            for part in parts.into_iter().map(prepared) {
                if let Expr::And(inner) = part { all.extend(inner) } else { all.push(part) }
            }
            all.sort_by_key(weight);
            Expr::And(all)
        }
        Expr::Or(parts) => {
            let mut all = Vec::with_capacity(parts.len());
            for part in parts.into_iter().map(prepared) {
                if let Expr::Or(inner) = part { all.extend(inner) } else { all.push(part) }
            }
            all.sort_by_key(weight);
            Expr::Or(all)
        }
        Expr::Not(part) => prepared(*part).negated(),
        Expr::Atom(Atom { test: Test::Field { .. }, ref field }) => {
            let exists = Expr::atom(field.as_deref(), Test::Exists);
            Expr::And(vec![exists, expr])
        }
        Expr::Atom(_) => expr,
    }
}

/// What is decided quickly comes first.
fn weight(expr: &Expr) -> u32 {
    match expr {
        Expr::Atom(Atom { test: Test::Field { .. }, .. }) => 1000,
        Expr::Atom(_) => 1,
        Expr::Not(part) => weight(part),
        Expr::And(parts) | Expr::Or(parts) => parts.iter().map(weight).fold(1, u32::saturating_add),
    }
}

struct Compiler<'a, 'n> {
    program: Program,
    atoms: HashMap<&'a Atom, AtomId>,
    /// How often rules mention an atom.
    uses: Vec<usize>,
    names: &'n mut FieldNames,
}

impl<'a> Compiler<'a, '_> {
    fn root(&mut self, expr: &'a Expr) -> NodeId {
        let node = number(self.program.nodes.len());
        self.program.nodes.push(Node::Atom(0));
        self.fill(node, expr);
        node
    }

    fn fill(&mut self, node: NodeId, expr: &'a Expr) {
        self.program.nodes[node as usize] = match expr {
            Expr::And(parts) => {
                let (start, end) = self.children(parts);
                Node::And(start, end)
            }
            Expr::Or(parts) => {
                let (start, end) = self.children(parts);
                Node::Or(start, end)
            }
            Expr::Not(part) => Node::Not(self.root(part)),
            Expr::Atom(atom) => self.atom(atom),
        };
    }

    fn children(&mut self, parts: &'a [Expr]) -> (NodeId, NodeId) {
        let start = self.program.nodes.len();
        self.program.nodes.resize(start + parts.len(), Node::Atom(0));
        for (child, part) in parts.iter().enumerate() {
            self.fill(number(start + child), part);
        }
        (number(start), number(start + parts.len()))
    }

    fn atom(&mut self, atom: &'a Atom) -> Node {
        if let (Test::Field { other, before, after, cased }, Some(field)) = (&atom.test, &atom.field) {
            let (before, after, cased) = (*before, *after, *cased);
            let reference = Reference {
                field: self.names.intern(field),
                other: self.names.intern(other),
                before,
                after,
                cased,
            };
            self.program.references.push(reference);
            return Node::Reference(number(self.program.references.len() - 1));
        }
        let next = number(self.uses.len());
        let id = *self.atoms.entry(atom).or_insert(next);
        if id == next {
            self.uses.push(0);
        }
        self.uses[id as usize] += 1;
        Node::Atom(id)
    }

    /// Hangs every rule on its witness.
    fn watch(&mut self, rules: impl Iterator<Item = &'a Expr>) {
        let mut watched = Vec::new();
        for (rule, expr) in rules.enumerate() {
            let cost = |atom: &Atom| {
                frequency(&atom.test, self.atoms.get(atom).map_or(0, |id| self.uses[*id as usize]))
            };
            match witness(expr, &cost) {
                Some(witness) => {
                    watched.extend(witness.atoms.iter().map(|atom| (self.atoms[*atom], number(rule))));
                }
                None => self.program.unwatched.push(number(rule)),
            }
        }
        watched.sort_unstable();
        watched.dedup();
        let atoms = self.uses.len();
        self.program.atoms = atoms;
        self.program.watcher_starts = (0..=atoms)
            .map(|atom| number(watched.partition_point(|(other, _)| (*other as usize) < atom)))
            .collect();
        self.program.watchers = watched.into_iter().map(|(_, rule)| rule).collect();
    }

    /// `kept` are fields that nobody tests and matches keep.
    fn scanners(&mut self, kept: &[FieldId]) -> Result<(), String> {
        let mut by_field: HashMap<Option<FieldId>, Vec<(AtomId, &Test)>> = HashMap::new();
        for (atom, id) in &self.atoms {
            let field = atom.field.as_deref().map(|field| self.names.intern(field));
            by_field.entry(field).or_default().push((*id, &atom.test));
        }
        let mut fields: Vec<FieldId> = by_field.keys().filter_map(|field| *field).collect();
        fields
            .extend(self.program.references.iter().flat_map(|reference| [reference.field, reference.other]));
        fields.extend(kept);
        fields.sort_unstable();
        fields.dedup();
        self.program.wanted = Wanted { fields, keywords: by_field.contains_key(&None) };
        let keywords = by_field.get(&None).cloned().unwrap_or_default();
        for (field, mut tests) in by_field {
            if field.is_some() {
                tests.extend_from_slice(&keywords);
            }
            tests.sort_unstable_by_key(|(id, _)| *id);
            let scanner = Scanner::new(tests)?;
            match field {
                Some(field) => {
                    self.program.scanners.insert(field, scanner);
                }
                None => self.program.keywords = Some(scanner),
            }
        }
        Ok(())
    }
}
