//! What rules cost on real events: each compiled alone, run over what the events hold.
//!
//! Events are parsed once, for all rules; what one rule looks at is then copied into columns of its own,
//! so that its time is the matcher's alone, with an empty memo and no other rule's tests.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inosec_enrich::{ClassId, Engine, Matcher, Rule, RuleId, Selection, Tenants};
use inosec_ingest::Limits;
use inosec_schemas::{Catalog, Cell, Columns, EventClass, Extracted, FieldId, Value};

use super::{Error, Evaluator};
use crate::event_file::{EventFile, Lines};

/// So many events say enough; more cost memory.
const EVENTS: usize = 20_000;
/// Each rule is run so often, and the quickest counts: other work on the machine only adds time.
const PASSES: usize = 3;
/// Bytes of a memo, as large as the road's.
const MEMO: usize = 64 << 20;

/// Events, parsed.
#[derive(Debug)]
pub struct Sample {
    batches: Vec<Extracted>,
    /// How many events have a class.
    pub events: usize,
}

/// What a rule took.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// The rule.
    pub rule: RuleId,
    /// The events it ran on.
    pub events: usize,
    /// How many it matched.
    pub hits: usize,
    /// The time per event.
    pub nanoseconds: f64,
}

impl Sample {
    /// Reads the first events of a file.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn read(file: &Path, engine: &Arc<Engine>, catalog: &Catalog, limits: Limits) -> Result<Self, Error> {
        let mut evaluator = Evaluator::new(Arc::clone(engine), catalog, limits);
        let mut input = EventFile::open(file, limits.max_message_bytes).map_err(Error::path(file))?;
        let mut sample = Self { batches: Vec::new(), events: 0 };
        let mut lines = Lines::default();
        while sample.events < EVENTS {
            input.read(&mut lines).map_err(Error::path(file))?;
            if lines.is_empty() {
                break;
            }
            let extracted = evaluator.extract(&lines);
            sample.events += extracted.classes.values().map(|rows| rows.messages.len()).sum::<usize>();
            sample.batches.push(extracted);
        }
        Ok(sample)
    }

    /// Measures every rule that runs on any of the events, the slowest first.
    ///
    /// # Errors
    /// If a rule alone can't be compiled.
    pub fn measure(&self, engine: &Engine) -> Result<Vec<Measured>, Error> {
        let fields = engine.class_fields();
        let columns: Vec<(&EventClass, Columns<'_>)> = self
            .batches
            .iter()
            .flat_map(|batch| batch.classes.iter().map(move |(class, rows)| (batch, class, rows)))
            .map(|(batch, class, rows)| {
                let (class, _) = &fields.classes[*class as usize];
                (class, batch.fill(rows, Columns::new(fields.names.len())))
            })
            .collect();
        let mut measured = Vec::new();
        for (number, rule) in (0..).map(RuleId).zip(engine.rules()) {
            let admitted: Vec<_> = columns.iter().filter(|(class, _)| rule.logsource.admits(class)).collect();
            let events = admitted.iter().map(|(_, columns)| columns.rows() as usize).sum();
            if events > 0 {
                let (took, hits) = alone(rule, engine, &admitted)?;
                let nanoseconds = took.as_secs_f64() * 1e9 / events as f64;
                measured.push(Measured { rule: number, events, hits, nanoseconds });
            }
        }
        measured.sort_by(|left, right| right.nanoseconds.total_cmp(&left.nanoseconds));
        Ok(measured)
    }
}

/// The time of the quickest pass, and the hits.
fn alone(
    rule: &Rule,
    all: &Engine,
    batches: &[&(&EventClass, Columns<'_>)],
) -> Result<(Duration, usize), Error> {
    let mut classes: Vec<EventClass> = batches.iter().map(|(class, _)| (*class).clone()).collect();
    classes.sort_unstable();
    classes.dedup();
    let engine = Arc::new(Engine::new(vec![rule.clone()], Vec::new(), &classes)?);
    let mut tenants = Tenants::default();
    tenants.add(Selection::all(&engine));
    let own: Vec<(ClassId, Columns<'_>, Vec<u32>)> = batches
        .iter()
        .filter_map(|(class, columns)| {
            let owners = vec![0; columns.rows() as usize];
            let class = engine.class(class)?;
            Some((class, narrowed(columns, all, &engine, class), owners))
        })
        .collect();
    let (mut best, mut hits) = (Duration::MAX, Vec::new());
    for _ in 0..PASSES {
        let mut matcher = Matcher::new(Arc::clone(&engine), MEMO);
        hits.clear();
        let started = Instant::now();
        for (class, columns, owners) in &own {
            matcher.run(*class, columns, &tenants, owners, &mut hits);
        }
        best = best.min(started.elapsed());
    }
    Ok((best, hits.len()))
}

/// Of columns for all rules those that one looks at. For keywords that is every value.
fn narrowed<'a>(columns: &Columns<'a>, all: &Engine, own: &Engine, class: ClassId) -> Columns<'a> {
    let wanted = own.wanted(class);
    let mut sources: Vec<(Option<FieldId>, &[Cell<'a>])> = Vec::new();
    for (field, cells) in columns.iter() {
        let known = own.fields().get(all.fields().name(field)).filter(|field| wanted.has(*field));
        if known.is_some() || wanted.keywords {
            sources.push((known, cells));
        }
    }
    if wanted.keywords {
        sources.push((None, columns.rest()));
    }
    let mut narrow = Columns::new(own.fields().len());
    for row in 0..columns.rows() {
        narrow.add_row();
        for (field, cells) in &mut sources {
            while let Some((cell, later)) = cells.split_first().filter(|(cell, _)| cell.row == row) {
                match (*field, cell.value) {
                    (Some(field), value) => narrow.push(field, value),
                    (None, Value::Text(text)) => narrow.push_rest(text),
                    (None, Value::Null | Value::Other) => {}
                }
                *cells = later;
            }
        }
    }
    narrow
}
