//! What engines weigh: each in a process of its own, by resident memory.

use std::process::Command;

use inosec_schemas::Catalog;
use serde::{Deserialize, Serialize};

use super::events::Events;
use super::ours::{self, Ours};
use super::{Args, rules};
use crate::corpus::Corpus;
use crate::error::{At, Error, Result};
use crate::usage::{peak_memory, resident};

/// Events that are matched to see what matching takes.
const EVENTS: usize = 60_000;

/// Whose memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Contender {
    /// All rules for one tenant.
    One,
    /// All rules for many tenants.
    Many,
    /// The rival's engine of all rules, for one tenant.
    Rival,
}

/// Bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Memory {
    pub contender: String,
    /// What stays when the rules are compiled.
    pub engine: u64,
    /// The most that compiling took, the engine included.
    pub compiling: u64,
    /// What the tenants' rule sets take.
    pub tenants: u64,
    /// What matching takes beyond that: memo, columns, buffers.
    pub matching: u64,
}

impl Memory {
    /// Everything at once.
    pub fn peak(&self) -> u64 {
        self.compiling.max(self.engine + self.tenants + self.matching)
    }
}

/// Asks a process for each contender.
pub fn all(args: &Args) -> Result<Vec<Memory>> {
    let rival = cfg!(feature = "rsigma").then_some("rival");
    ["one", "many"].into_iter().chain(rival).map(|contender| ask(contender, args)).collect()
}

fn ask(contender: &str, args: &Args) -> Result<Memory> {
    let program = std::env::current_exe().at("finding this program")?;
    let output = Command::new(program)
        .args(["detect", "--memory", contender, "--rules", &args.rules.join(",")])
        .args(["--rule-sets", &args.rule_sets.to_string()])
        // What was freed goes back at once: nothing hides in pages that something else left behind.
        .env("MIMALLOC_PURGE_DELAY", "0")
        .output()
        .at("starting a process to weigh")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::new(format!("weighing {contender}: {said}")));
    }
    serde_json::from_slice(&output.stdout).at("reading what was weighed")
}

/// Weighs, and prints JSON.
pub fn measure(contender: Contender, args: &Args) -> Result<()> {
    let catalog = Catalog::embedded().at("reading the descriptions")?;
    let texts = rules::texts(&args.rules)?;
    let mut memory = match contender {
        Contender::One => ours(1, &texts, &catalog, args)?,
        Contender::Many => ours(args.rule_sets, &texts, &catalog, args)?,
        Contender::Rival => rival(&texts)?,
    };
    memory.contender = format!("{contender:?}").to_lowercase();
    println!("{}", serde_json::to_string(&memory).at("writing what was weighed")?);
    Ok(())
}

fn ours(tenants: u32, texts: &[rules::RuleText], catalog: &Catalog, args: &Args) -> Result<Memory> {
    let before = resident();
    let engine = ours::engine(texts, catalog)?;
    let compiled = resident();
    let compiling = peak().saturating_sub(before);
    let mut ours = Ours::new(&engine, catalog, tenants);
    let ready = resident();
    let corpus = Corpus::load(&args.choice)?;
    let wanted = (EVENTS.min(corpus.len()), "", false);
    let events = Events::load(&corpus, catalog, &mut ours::extractor(&engine, catalog), wanted)?;
    let loaded = resident();
    let mut most = loaded;
    for group in &events.groups {
        ours.run(group, &corpus, true, &mut |work| work());
        most = most.max(resident());
    }
    Ok(Memory {
        contender: String::new(),
        engine: compiled.saturating_sub(before),
        compiling,
        tenants: ready.saturating_sub(compiled),
        matching: most - loaded,
    })
}

#[cfg(feature = "rsigma")]
fn rival(texts: &[rules::RuleText]) -> Result<Memory> {
    // Parsed by us first only to know which rules take part.
    let parsed = rules::parse(texts);
    let before = resident();
    let engine = super::rival::engine(texts, &parsed.rules)?;
    let (compiled, compiling) = (resident(), peak());
    drop(engine);
    Ok(Memory {
        contender: String::new(),
        engine: compiled.saturating_sub(before),
        compiling: compiling.saturating_sub(before),
        tenants: 0,
        matching: 0,
    })
}

#[cfg(not(feature = "rsigma"))]
fn rival(_: &[rules::RuleText]) -> Result<Memory> {
    Err(Error::new("built without the feature rsigma"))
}

fn peak() -> u64 {
    peak_memory(std::process::id()).unwrap_or_default()
}
