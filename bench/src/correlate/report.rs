//! A run as JSON for programs and as Markdown for people.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::cases::Case;
use super::memory::Memory;
use super::{BATCHES, Found, Round};
use crate::error::{At, Result};
use crate::stats::median;

/// Which of [`BATCHES`] the aims are about.
const USUAL: usize = 1;
/// Seconds in which a million events are to be rebuilt from.
const REBUILD: f64 = 15.0;

/// Everything one run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub date: String,
    pub machine: String,
    pub revision: String,
    pub command: String,
    pub rival: String,
    pub rounds: u32,
    /// Events a round times.
    pub events: u64,
    pub lines: Vec<Line>,
    pub memory: Vec<Memory>,
}

/// One case. Rates are thousands of events a second of one core, one for each round.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub name: String,
    pub aim: Option<f64>,
    /// Events that are held.
    pub held: u64,
    /// By size of batch.
    pub ours: Vec<Vec<f64>>,
    pub rival: Vec<f64>,
    /// Seconds that a rebuild from the events held takes.
    pub rebuild: Vec<f64>,
    pub groups: usize,
    pub episodes: usize,
    /// By size of batch.
    pub changes: Vec<u64>,
    /// How often the rival's correlations fired.
    pub fired: u64,
}

impl Line {
    pub fn new(case: &Case, rounds: &[Round], found: Found, events: u64) -> Self {
        let rate = |time: Duration| events as f64 / time.as_secs_f64() / 1e3;
        let rival = rounds.iter().map(|round| round.rival).filter(|time| !time.is_zero());
        Self {
            name: case.name.to_owned(),
            aim: case.aim,
            held: case.held,
            ours: (0..BATCHES.len())
                .map(|batch| rounds.iter().map(|round| rate(round.batches[batch])).collect())
                .collect(),
            rival: rival.map(rate).collect(),
            rebuild: rounds.iter().map(|round| round.rebuild.as_secs_f64()).collect(),
            groups: found.groups,
            episodes: found.episodes,
            changes: found.changes,
            fired: found.fired,
        }
    }

    /// How many times faster than the rival, round by round: median, least, most.
    fn ratio(&self) -> Option<(f64, f64, f64)> {
        let ratios: Vec<f64> =
            self.ours[USUAL].iter().zip(&self.rival).map(|(ours, rival)| ours / rival).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        (!ratios.is_empty()).then(|| (median(&ratios), least, ratios.iter().copied().fold(0.0, f64::max)))
    }

    /// A row of the table.
    pub fn row(&self) -> String {
        let rates: Vec<String> = self.ours.iter().map(|rates| format!("{:.0}", median(rates))).collect();
        let rival =
            if self.rival.is_empty() { "–".to_owned() } else { format!("{:.0}", median(&self.rival)) };
        let ratio = self.ratio().map_or_else(
            || "–".to_owned(),
            |(middle, least, most)| format!("{middle:.1} ({least:.1} – {most:.1})"),
        );
        format!(
            "| {} | {} | {rival} | {ratio} | {} | {} |",
            self.name,
            rates.join(" | "),
            self.changes[USUAL],
            self.fired
        )
    }
}

impl Report {
    /// Writes both files and says where.
    pub fn write(&self, out: Option<&Path>) -> Result<()> {
        let named =
            || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("runs/{}-correlate", self.date));
        let base = out.map_or_else(named, Path::to_path_buf);
        let markdown = self.markdown();
        let json = serde_json::to_string_pretty(self).at("writing the report")?;
        for (extension, text) in [("md", markdown.clone()), ("json", json + "\n")] {
            let path = base.with_added_extension(extension);
            std::fs::write(&path, text).at(format!("writing {}", path.display()))?;
        }
        println!("\n{markdown}\nwritten to {}.md and .json", base.display());
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "# Correlation, {}\n\n{}; revision {}; {}\n\n```\ncargo run --release -p inosec-bench --features rsigma -- {}\n```\n\n",
            self.date, self.machine, self.revision, self.rival, self.command
        );
        let _ = writeln!(
            text,
            "One thread, CPU time, median of {} rounds of {} events, given to a correlator that holds the events of a \
             horizon (130 minutes with defaults, of which a window is 5) and lets go of as many as come; all take turns, \
             10,000 events each. inosec is told the time after each batch, and its changes are taken; events are up to \
             3 s out of order. rsigma gets detections made beforehand and events one by one; it keeps a window, no \
             members, and counts in the order of arrival.\n",
            self.rounds, self.events,
        );
        self.asked(&mut text);
        let sizes = BATCHES.map(|batch| format!("inosec, batches of {batch}")).join(" | ");
        let _ = writeln!(
            text,
            "\n## Thousand events/s\n\n| | {sizes} | rsigma | batches of {} : rsigma (rounds) | changes | rsigma fired |\n| --- |{}",
            BATCHES[USUAL],
            " ---: |".repeat(BATCHES.len() + 4)
        );
        for line in &self.lines {
            let _ = writeln!(text, "{}", line.row());
        }
        self.rebuilds(&mut text);
        self.weights(&mut text);
        text
    }

    fn asked(&self, text: &mut String) {
        text.push_str("| asked | aim | found | rounds from – to | |\n| --- | ---: | ---: | ---: | --- |\n");
        let span = |values: &[f64]| {
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            (median(values), least, values.iter().copied().fold(0.0, f64::max))
        };
        for (line, aim) in self.lines.iter().filter_map(|line| Some((line, line.aim?))) {
            let (middle, least, most) = span(&line.ours[USUAL]);
            let met = if middle >= aim { "met" } else { "**short**" };
            let _ = writeln!(
                text,
                "| {}, batches of {} | ≥ {aim:.0} k/s | {middle:.0} k/s | {least:.0} – {most:.0} | {met} |",
                line.name, BATCHES[USUAL]
            );
        }
        let per_million = |line: &Line| median(&line.rebuild) * 1e6 / line.held as f64;
        let slowest = self.lines.iter().max_by(|one, other| per_million(one).total_cmp(&per_million(other)));
        let Some(line) = slowest else { return };
        let seconds: Vec<f64> = line.rebuild.iter().map(|time| time * 1e6 / line.held as f64).collect();
        let (middle, least, most) = span(&seconds);
        let met = if middle < REBUILD { "met" } else { "**short**" };
        let _ = writeln!(
            text,
            "| rebuild of 1 M events, slowest case ({}) | < {REBUILD:.0} s | {middle:.2} s | {least:.2} – {most:.2} | {met} |",
            line.name
        );
    }

    fn rebuilds(&self, text: &mut String) {
        text.push_str(
            "\n## Rebuild\n\n| | events | groups | episodes | s |\n| --- | ---: | ---: | ---: | ---: |\n",
        );
        for line in &self.lines {
            let seconds = median(&line.rebuild);
            let (held, groups, episodes) = (line.held, line.groups, line.episodes);
            let _ = writeln!(text, "| {} | {held} | {groups} | {episodes} | {seconds:.2} |", line.name);
        }
    }

    fn weights(&self, text: &mut String) {
        text.push_str(
            "\n## Memory\n\n| | groups | events in them | MiB | bytes an event |\n| --- | ---: | ---: | ---: | ---: |\n",
        );
        for memory in &self.memory {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.0} | {:.0} |",
                memory.case,
                memory.groups,
                memory.entries,
                memory.bytes as f64 / f64::from(1 << 20),
                memory.bytes as f64 / memory.entries as f64
            );
        }
        text.push_str("\nResident memory with a full horizon, each in a process of its own.\n");
        if let Some((group, entry)) = self.shares() {
            let _ = writeln!(
                text,
                "From the cases with few and with many groups: {group:.0} bytes a group with its first events, \
                 {entry:.0} bytes an event."
            );
        }
    }

    /// What a group and what an event takes: two cases of one rule that differ in groups.
    fn shares(&self) -> Option<(f64, f64)> {
        let of = |name: &str| self.memory.iter().find(|memory| memory.case.ends_with(name));
        let (few, many) = (of("10 k groups (few fire)")?, of("1 M groups")?);
        // bytes = group × groups + entry × entries, twice.
        let matrix = [few, many].map(|memory| [memory.groups as f64, memory.entries as f64]);
        let determinant = matrix[0][0] * matrix[1][1] - matrix[0][1] * matrix[1][0];
        let bytes = [few.bytes as f64, many.bytes as f64];
        let group = (bytes[0] * matrix[1][1] - bytes[1] * matrix[0][1]) / determinant;
        let entry = (matrix[0][0] * bytes[1] - matrix[1][0] * bytes[0]) / determinant;
        Some((group, entry))
    }
}
