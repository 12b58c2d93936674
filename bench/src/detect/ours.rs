//! inosec's side: fields extracted into columns, columns matched.

use std::sync::Arc;

use inosec_enrich::{ClassId, Engine, Hit, Matcher, Tenants};
use inosec_ingest::Extractor;
use inosec_schemas::{Catalog, Columns};

use super::events::Group;
use super::rules;
use crate::corpus::Corpus;
use crate::error::{At, Result};
use crate::micro;

/// What a matcher may remember.
const MEMO: usize = 64 << 20;

/// The engine for every class an event can have.
pub fn engine(texts: &[rules::RuleText], catalog: &Catalog) -> Result<Arc<Engine>> {
    let parsed = rules::parse(texts);
    let engine = Engine::new(parsed.rules, parsed.filters, &catalog.classes());
    Ok(Arc::new(engine.at("compiling the rules")?))
}

/// An extractor for what the engine looks at.
pub fn extractor(engine: &Engine, catalog: &Catalog) -> Extractor {
    Extractor::new(catalog, engine.class_fields(), micro::limits())
}

/// One contender: its own tenants, memo and buffers.
pub struct Ours {
    engine: Arc<Engine>,
    extractor: Extractor,
    matcher: Matcher,
    tenants: Tenants,
    many: u32,
    columns: Option<Columns<'static>>,
    owners: Vec<u32>,
    hits: Vec<Hit>,
}

impl Ours {
    /// For one tenant with every rule, or for many whose rule sets overlap.
    pub fn new(engine: &Arc<Engine>, catalog: &Catalog, many: u32) -> Self {
        let tenants = if many == 1 { rules::one_tenant(engine) } else { rules::many_tenants(engine, many) };
        Self {
            engine: Arc::clone(engine),
            extractor: extractor(engine, catalog),
            matcher: Matcher::new(Arc::clone(engine), MEMO),
            tenants,
            many,
            columns: Some(Columns::new(engine.fields().len())),
            owners: Vec::new(),
            hits: Vec::new(),
        }
    }

    /// Begins a pass with an empty memo.
    pub fn forget(&mut self) {
        self.matcher = Matcher::new(Arc::clone(&self.engine), MEMO);
    }

    /// Matches a group; `clock` times what it is given to do. With `parse` that is everything from the
    /// message's bytes on, else matching alone. The hits are (place in the corpus, rule).
    pub fn run(
        &mut self,
        group: &Group,
        corpus: &Corpus,
        parse: bool,
        clock: &mut dyn FnMut(&mut dyn FnMut()),
    ) -> usize {
        let Self { extractor, matcher, tenants, columns, owners, hits, .. } = self;
        hits.clear();
        owners.clear();
        // Any mixture will do, as long as neighbours belong to different tenants.
        owners
            .extend(group.places.iter().map(|place| rules::Random(*place as u64).next() as u32 % self.many));
        let class = ClassId(group.class);
        let messages = || group.places.iter().map(|place| (corpus.value(*place), None));
        let empty = columns.take().unwrap_or_default();
        if parse {
            let mut empty = Some(empty);
            let mut back = None;
            clock(&mut || {
                let extracted = extractor.extract(messages());
                let filled =
                    extracted.fill(&extracted.classes[&group.class], empty.take().unwrap_or_default());
                matcher.run(class, &filled, tenants, owners, hits);
                back = Some(filled.recycle());
                extractor.recycle(extracted);
            });
            *columns = back;
        } else {
            let extracted = extractor.extract(messages());
            let filled = extracted.fill(&extracted.classes[&group.class], empty);
            clock(&mut || matcher.run(class, &filled, tenants, owners, hits));
            *columns = Some(filled.recycle());
            extractor.recycle(extracted);
        }
        hits.len()
    }

    /// What the last group matched: place in the corpus, and rule.
    pub fn found<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = (usize, String)> + 'a {
        self.hits.iter().map(|hit| (group.places[hit.row as usize], self.engine.rule(hit.rule).id.clone()))
    }

    /// Extracts a group, and nothing else.
    pub fn extract(&mut self, group: &Group, corpus: &Corpus) {
        let messages = group.places.iter().map(|place| (corpus.value(*place), None));
        let extracted = self.extractor.extract(messages);
        let filled =
            extracted.fill(&extracted.classes[&group.class], self.columns.take().unwrap_or_default());
        std::hint::black_box(&filled);
        self.columns = Some(filled.recycle());
        self.extractor.recycle(extracted);
    }
}
