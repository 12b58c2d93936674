//! A batch of columns in, hits out.
//!
//! Column by column each distinct value is scanned once ([`Memo`]); what passed is gathered by row; and
//! per row only the rules that a passed test watches for are decided. A matcher belongs to one lane and
//! keeps its buffers and its memo between batches, within a budget.

use std::sync::Arc;

use hashbrown::HashMap;
use inosec_schemas::{Cell, Columns, FieldId, Value};

use super::engine::{ClassId, Engine, RuleId};
use super::memo::{Arena, Memo, Passed};
use super::program::{Bits, Program, Row};
use super::scanner::{Scanner, Scratch};
use super::tenants::Tenants;

/// A rule that matched an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hit {
    /// The event's row in its columns.
    pub row: u32,
    /// The rule.
    pub rule: RuleId,
}

/// Runs an [`Engine`] over batches.
#[derive(Debug)]
pub struct Matcher {
    engine: Arc<Engine>,
    budget: usize,
    classes: Vec<ClassMemo>,
    /// What the memos of all classes take.
    held: usize,
    gathered: Gathered,
    deciding: Deciding,
    scratch: Scratch,
}

/// What is remembered of one class' values.
#[derive(Debug, Default)]
struct ClassMemo {
    fields: HashMap<FieldId, Memo, foldhash::fast::RandomState>,
    rest: Memo,
    arena: Arena,
}

impl ClassMemo {
    fn bytes(&self) -> usize {
        self.fields.values().map(Memo::bytes).sum::<usize>() + self.rest.bytes() + self.arena.bytes()
    }
}

/// What passed, in the order of columns and then in the order of rows.
#[derive(Debug, Default)]
struct Gathered {
    by_column: Vec<(u32, Passed)>,
    row_ends: Vec<u32>,
    by_row: Vec<Passed>,
}

/// Buffers for deciding one row.
#[derive(Debug, Default)]
struct Deciding {
    passed: Bits,
    seen: Bits,
    candidates: Vec<u32>,
}

impl Matcher {
    /// A matcher whose memo takes about `budget` bytes, and a batch's values beyond it.
    #[must_use]
    pub fn new(engine: Arc<Engine>, budget: usize) -> Self {
        Self {
            engine,
            budget,
            classes: Vec::new(),
            held: 0,
            gathered: Gathered::default(),
            deciding: Deciding::default(),
            scratch: Scratch::default(),
        }
    }

    /// The rules it runs.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Adds to `hits` what the events match, by row and then by rule. `owners` gives each row's tenant
    /// by its number in `tenants`; events of unknown tenants match nothing.
    pub fn run(
        &mut self,
        class: ClassId,
        columns: &Columns<'_>,
        tenants: &Tenants,
        owners: &[u32],
        hits: &mut Vec<Hit>,
    ) {
        let engine = Arc::clone(&self.engine);
        let program = engine.program(class);
        self.make_room(class);
        self.gather(program, class, columns);
        self.gathered.sort(columns.rows());
        self.decide(program, class, columns, (tenants, owners), hits);
    }

    /// Forgets values when they take more than the budget, and gives their memory back: emptied tables
    /// would keep it for classes that may not come again.
    fn make_room(&mut self, class: ClassId) {
        if self.held > self.budget {
            self.classes.clear();
            self.held = 0;
        }
        let index = class.0 as usize;
        if self.classes.len() <= index {
            self.classes.resize_with(index + 1, ClassMemo::default);
        }
    }

    fn gather(&mut self, program: &Program, class: ClassId, columns: &Columns<'_>) {
        let memo = &mut self.classes[class.0 as usize];
        self.held -= memo.bytes();
        self.gathered.by_column.clear();
        let (arena, scratch, by_column) = (&mut memo.arena, &mut self.scratch, &mut self.gathered.by_column);
        for (field, cells) in columns.iter() {
            if let Some(scanner) = program.scanner(field) {
                let values = memo.fields.entry(field).or_default();
                scan_column(scanner, cells, values, arena, scratch, by_column);
            }
        }
        if let Some(scanner) = &program.keywords {
            scan_column(scanner, columns.rest(), &mut memo.rest, arena, scratch, by_column);
        }
        self.held += memo.bytes();
    }

    fn decide(
        &mut self,
        program: &Program,
        class: ClassId,
        columns: &Columns<'_>,
        (tenants, owners): (&Tenants, &[u32]),
        hits: &mut Vec<Hit>,
    ) {
        let Deciding { passed: bits, seen, candidates } = &mut self.deciding;
        bits.grow(program.atoms());
        seen.grow(program.rules().len());
        let arena = &self.classes[class.0 as usize].arena;
        for row in 0..columns.rows() {
            let lists = self.gathered.row(row);
            let Some(selection) = owners.get(row as usize).and_then(|tenant| tenants.get(*tenant)) else {
                continue;
            };
            candidates.clear();
            candidates.extend_from_slice(&program.unwatched);
            for list in lists {
                for atom in arena.get(*list) {
                    if bits.insert(*atom) {
                        candidates.extend(program.watchers(*atom).iter().filter(|rule| seen.insert(**rule)));
                    }
                }
            }
            let first = hits.len();
            let event = Row { bits, columns, row };
            for candidate in candidates.iter() {
                let (rule, condition) = program.rules()[*candidate as usize];
                let matched = selection.has(rule)
                    && program.holds(condition, event)
                    && selection.filters(rule).all(|filter| program.filter_holds(filter, event));
                if matched {
                    hits.push(Hit { row, rule });
                }
            }
            hits[first..].sort_unstable();
            lists.iter().flat_map(|list| arena.get(*list)).for_each(|atom| bits.remove(*atom));
            candidates.iter().for_each(|rule| seen.remove(*rule));
        }
    }
}

/// Scans each distinct value of a column once.
fn scan_column(
    scanner: &Scanner,
    cells: &[Cell<'_>],
    memo: &mut Memo,
    arena: &mut Arena,
    scratch: &mut Scratch,
    found: &mut Vec<(u32, Passed)>,
) {
    let shortest = scanner.shortest();
    memo.begin();
    for (index, cell) in cells.iter().enumerate() {
        let passed = match cell.value {
            Value::Text(text) if text.len() < shortest => continue,
            Value::Text(text) => memo.get_or(text, cells, index, || scanned(scanner, text, arena, scratch)),
            // Rare and cheap, so not remembered.
            Value::Null => arena.keep(scanner.on_null()),
            Value::Other => arena.keep(scanner.on_other()),
        };
        if !passed.is_empty() {
            found.push((cell.row, passed));
        }
    }
}

fn scanned(scanner: &Scanner, text: &str, arena: &mut Arena, scratch: &mut Scratch) -> Passed {
    scratch.passed.clear();
    scanner.scan(text, scratch);
    scratch.passed.sort_unstable();
    scratch.passed.dedup();
    arena.keep(&scratch.passed)
}

impl Gathered {
    /// Brings what passed into the order of rows, by counting.
    fn sort(&mut self, rows: u32) {
        self.row_ends.clear();
        self.row_ends.resize(rows as usize + 1, 0);
        for (row, _) in &self.by_column {
            self.row_ends[*row as usize + 1] += 1;
        }
        let mut sum = 0;
        for end in &mut self.row_ends {
            sum += *end;
            *end = sum;
        }
        self.by_row.clear();
        self.by_row.resize(self.by_column.len(), Passed::default());
        for (row, passed) in self.by_column.iter().rev() {
            let end = &mut self.row_ends[*row as usize + 1];
            *end -= 1;
            self.by_row[*end as usize] = *passed;
        }
    }

    /// What passed in a row.
    fn row(&self, row: u32) -> &[Passed] {
        // Sorting has moved each row's end back to its start.
        let start = self.row_ends[row as usize + 1] as usize;
        let end = self.row_ends.get(row as usize + 2).map_or(self.by_row.len(), |end| *end as usize);
        &self.by_row[start..end]
    }
}
