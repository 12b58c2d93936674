//! Lines of events in, hits out: extraction and matching as the road does them, all rules on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inosec_enrich::{ClassId, Engine, FilterId, Hit, Matcher, RuleId, Selection, Tenants};
use inosec_ingest::{Extractor, Limits};
use inosec_schemas::{Catalog, Columns, Extracted};

use crate::event_file::Lines;

/// Bytes of values whose verdicts are remembered.
const MEMO: usize = 64 << 20;

/// Runs rules over lines of events, batch by batch.
#[derive(Debug)]
pub struct Evaluator {
    engine: Arc<Engine>,
    extractor: Extractor,
    matcher: Matcher,
    tenants: Tenants,
    columns: Columns<'static>,
    owners: Vec<u32>,
    hits: Vec<Hit>,
}

/// What a batch gave.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The line's index in its batch, and the rule.
    pub hits: Vec<(u32, RuleId)>,
    /// How many events have no class, by format.
    pub unclassified: BTreeMap<String, u64>,
    /// The lines that can't be read, and why.
    pub unreadable: Vec<(u32, String)>,
    /// The time it took to read events and take from them what rules look at.
    pub parse: Duration,
    /// The time it took to run the rules.
    pub matching: Duration,
}

impl Evaluator {
    /// With every rule on, and every filter on what it is for.
    #[must_use]
    pub fn new(engine: Arc<Engine>, catalog: &Catalog, limits: Limits) -> Self {
        let mut all = Selection::all(&engine);
        for filter in (0..).map(FilterId).take(engine.filters().len()) {
            all.add_filter(&engine, filter);
        }
        let mut tenants = Tenants::default();
        tenants.add(all);
        Self {
            extractor: Extractor::new(catalog, engine.class_fields(), limits),
            matcher: Matcher::new(Arc::clone(&engine), MEMO),
            columns: Columns::new(engine.fields().len()),
            engine,
            tenants,
            owners: Vec::new(),
            hits: Vec::new(),
        }
    }

    /// The rules.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What is taken from the lines, class by class.
    pub fn extract(&mut self, lines: &Lines) -> Extracted {
        self.extractor.extract(lines.messages().map(|message| (message, None)))
    }

    /// Runs all rules over a batch.
    pub fn run(&mut self, lines: &Lines) -> Outcome {
        let started = Instant::now();
        let mut extracted = self.extract(lines);
        let parse = started.elapsed();
        let started = Instant::now();
        let hits = self.matched(&extracted);
        let matching = started.elapsed();
        let unclassified = std::mem::take(&mut extracted.unclassified);
        let unreadable = std::mem::take(&mut extracted.unreadable);
        self.extractor.recycle(extracted);
        Outcome { hits, unclassified, unreadable, parse, matching }
    }

    /// The hits among what was extracted, by message and then by the rule's id.
    pub fn matched(&mut self, extracted: &Extracted) -> Vec<(u32, RuleId)> {
        let mut found = Vec::new();
        for (class, rows) in extracted.classes.iter().filter(|(_, rows)| !rows.messages.is_empty()) {
            let columns = extracted.fill(rows, std::mem::take(&mut self.columns));
            self.owners.resize(columns.rows() as usize, 0);
            self.hits.clear();
            self.matcher.run(ClassId(*class), &columns, &self.tenants, &self.owners, &mut self.hits);
            found.extend(self.hits.iter().map(|hit| (rows.messages[hit.row as usize], hit.rule)));
            self.columns = columns.recycle();
        }
        let id = |rule: RuleId| self.engine.rule(rule).id.as_str();
        found.sort_unstable_by(|left, right| left.0.cmp(&right.0).then_with(|| id(left.1).cmp(id(right.1))));
        found
    }
}
