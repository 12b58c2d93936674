//! What state weighs: each correlator in a process of its own, by resident memory.

use std::process::Command;
use std::time::Duration;

use inosec_enrich::Correlator;
use serde::{Deserialize, Serialize};

use super::cases::{CASES, Case};
use super::take;
use crate::error::{At, Error, Result};
use crate::usage::resident;

/// Events in a batch while state is built.
const BATCH: u64 = 10_000;

/// A correlator that holds a full horizon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Memory {
    pub case: String,
    pub groups: u64,
    pub entries: u64,
    pub bytes: u64,
}

/// Asks a process for each case that has this in its name.
pub fn all(filter: &str) -> Result<Vec<Memory>> {
    let cases = (0..).zip(CASES).filter(|(_, case)| case.name.contains(filter));
    cases.map(|(place, case): (usize, Case)| ask(place, case.name)).collect()
}

fn ask(place: usize, name: &str) -> Result<Memory> {
    let program = std::env::current_exe().at("finding this program")?;
    let output = Command::new(program)
        .args(["correlate", "--memory", &place.to_string()])
        // What was freed goes back at once: nothing hides in pages that something else left behind.
        .env("MIMALLOC_PURGE_DELAY", "0")
        .output()
        .at("starting a process to weigh")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::new(format!("weighing {name}: {said}")));
    }
    serde_json::from_slice(&output.stdout).at("reading what was weighed")
}

/// Weighs, and prints JSON.
pub fn measure(place: usize) -> Result<()> {
    let case = CASES.get(place).at("finding the case to weigh")?;
    let before = resident();
    let mut correlator = Correlator::new(case.rules()?, Case::options());
    let horizon = correlator.horizon();
    for first in (0..case.held).step_by(BATCH as usize) {
        let made = case.events(first..(first + BATCH).min(case.held), horizon);
        take(&mut correlator, &made, BATCH as usize, &mut Duration::default());
    }
    let (groups, entries) = correlator.size();
    let memory = Memory {
        case: case.name.to_owned(),
        groups: groups as u64,
        entries: entries as u64,
        bytes: resident().saturating_sub(before),
    };
    println!("{}", serde_json::to_string(&memory).at("writing what was weighed")?);
    Ok(())
}
