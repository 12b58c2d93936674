//! SigmaHQ's rules as the corpus holds them, and rule sets of many tenants.

use inosec_enrich::{Engine, Parsed, Placeholders, RuleId, Selection, Tenants};
use serde::Deserialize;

use crate::corpus;
use crate::error::{At, Result};

const FILE: &str = "sigma_rules.jsonl.zst";

/// Of a rule set of its own a tenant has between these shares of all rules.
const SHARES: (f64, f64) = (0.6, 1.0);

/// A rule file.
#[derive(Debug, Deserialize)]
pub struct RuleText {
    #[serde(rename = "rule_path")]
    pub path: String,
    pub yaml: String,
}

/// The rule files whose path begins with one of these.
pub fn texts(beginnings: &[String]) -> Result<Vec<RuleText>> {
    let path = corpus::folder().join(FILE);
    let compressed = std::fs::read(&path).at(format!("reading {}", path.display()))?;
    let bytes = zstd::decode_all(&compressed[..]).at("decompressing the rules")?;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let all: std::result::Result<Vec<RuleText>, _> = lines.map(serde_json::from_slice).collect();
    let mut texts = all.at("reading the rules")?;
    texts.retain(|text| beginnings.iter().any(|beginning| text.path.starts_with(beginning.as_str())));
    Ok(texts)
}

/// Parses them; the few with placeholders, which have no values here, are left out.
pub fn parse(texts: &[RuleText]) -> Parsed {
    let mut parsed = Parsed::default();
    for text in texts {
        parsed.add(&text.path, &text.yaml, &Placeholders::new());
    }
    parsed
}

/// One tenant with every rule.
pub fn one_tenant(engine: &Engine) -> Tenants {
    let mut tenants = Tenants::default();
    tenants.add(Selection::all(engine));
    tenants
}

/// Tenants whose rule sets overlap: of each rule it is drawn whether the tenant has it, with a
/// probability of the tenant's own.
pub fn many_tenants(engine: &Engine, tenants: u32) -> Tenants {
    let mut random = Random(0x5EED);
    let mut all = Tenants::default();
    for _ in 0..tenants {
        let share = SHARES.0 + (SHARES.1 - SHARES.0) * random.fraction();
        let mut selection = Selection::none(engine);
        for rule in 0..engine.rules().len() as u32 {
            selection.set(RuleId(rule), random.fraction() < share);
        }
        all.add(selection);
    }
    all
}

/// SplitMix64: the same draws on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
