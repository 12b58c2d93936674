//! Messages as the road detects on them: extracted, then matched by rules that look everywhere.

use std::sync::Arc;

use inosec_enrich::{ClassId, Engine, Matcher, Placeholders, RuleId, Selection, Tenants, parse};
use inosec_ingest::Extractor;
use inosec_schemas::{Catalog, Columns};

use crate::LIMITS;

/// Keywords, nested names, arrays, nulls, other fields, and every sort of test; for every product.
const RULES: &str = include_str!("detect.yml");

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The class it is of.
    pub class: Option<u32>,
    /// Whether it can't be read.
    pub unreadable: bool,
    /// The rules that match it.
    pub rules: Vec<RuleId>,
}

/// An extractor and a matcher that keep what they learn.
#[derive(Debug)]
pub struct Detect {
    extractor: Extractor,
    matcher: Matcher,
    tenants: Tenants,
    fields: usize,
}

impl Detect {
    /// With the embedded descriptions, nothing learnt yet.
    ///
    /// # Panics
    /// If the rules are not sound.
    #[must_use]
    pub fn new(catalog: &Catalog) -> Self {
        let parsed = parse("detect.yml", RULES, &Placeholders::default());
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        let engine = Engine::new(parsed.rules, parsed.filters, &catalog.classes());
        let engine = Arc::new(engine.expect("rules that go together"));
        let mut tenants = Tenants::default();
        tenants.add(Selection::all(&engine));
        Self {
            extractor: Extractor::new(catalog, engine.class_fields(), LIMITS),
            fields: engine.fields().len(),
            // Small, so that what is remembered is also forgotten.
            matcher: Matcher::new(engine, 64 << 10),
            tenants,
        }
    }

    /// What becomes of each message of a batch.
    pub fn batch(&mut self, messages: &[(&[u8], Option<&str>)]) -> Vec<Seen> {
        let extracted = self.extractor.extract(messages.iter().copied());
        let mut seen = vec![Seen { class: None, unreadable: false, rules: Vec::new() }; messages.len()];
        for (message, _) in &extracted.unreadable {
            seen[*message as usize].unreadable = true;
        }
        for (class, rows) in &extracted.classes {
            let columns = extracted.fill(rows, Columns::new(self.fields));
            let mut hits = Vec::new();
            let owners = vec![0; columns.rows() as usize];
            self.matcher.run(ClassId(*class), &columns, &self.tenants, &owners, &mut hits);
            for message in &rows.messages {
                assert_eq!(seen[*message as usize].class.replace(*class), None, "a message has one class");
            }
            for hit in hits {
                seen[rows.messages[hit.row as usize] as usize].rules.push(hit.rule);
            }
        }
        let unclassified: u64 = extracted.unclassified.values().sum();
        let accounted = seen.iter().filter(|seen| seen.unreadable || seen.class.is_some()).count() as u64;
        assert_eq!(accounted + unclassified, messages.len() as u64, "each message is accounted for once");
        seen
    }
}
