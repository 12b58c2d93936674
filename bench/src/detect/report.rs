//! A run as JSON for programs and as Markdown for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inosec_enrich::{ClassId, Engine};
use serde::Serialize;

use super::events::Events;
use super::memory::Memory;
use super::{Round, Turn};
use crate::error::{At, Result};
use crate::stats::median;

/// Classes with fewer events are not shown alone.
const SHOWN: usize = 1_000;
/// The category whose rules are most.
const HARDEST: &str = "process_creation";

/// The documented differences: those rules need no further word.
const EXPLAINED: &str = include_str!("../../../docs/sigma-differences.md");

/// Everything one run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub date: String,
    pub machine: String,
    pub revision: String,
    pub command: String,
    pub rival: String,
    pub corpus: String,
    pub rule_files: Vec<String>,
    pub rules: usize,
    /// Rules with placeholders, for which nobody gave values.
    pub refused: usize,
    pub rule_sets: u32,
    pub unclassified: u64,
    /// All events first, then the hardest category, then class by class.
    pub lines: Vec<Line>,
    pub hits: BTreeMap<String, u64>,
    pub differences: Vec<Difference>,
    pub memory: Vec<Memory>,
}

/// Events that are summed up together.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub name: String,
    pub events: usize,
    pub rules: Option<usize>,
    /// CPU µs an event by turn, one for each round.
    pub micros: BTreeMap<String, Vec<f64>>,
}

/// A rule about which the engines disagree.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    pub rule: String,
    pub ours_only: u64,
    pub theirs_only: u64,
    /// Place of such an event in the corpus as it was played.
    pub example: usize,
}

/// What issue 4 asks for: of whom, by how much.
struct Aim {
    what: &'static str,
    line: &'static str,
    ours: Turn,
    theirs: Turn,
    ratio: f64,
}

const ALL: &str = "all events";

const AIMS: [Aim; 4] = [
    Aim { what: "match-only, rsigma routed", line: ALL, ours: Turn::Match, theirs: Turn::Routed, ratio: 3.0 },
    Aim { what: "match-only, rsigma strict", line: ALL, ours: Turn::Match, theirs: Turn::Strict, ratio: 1.7 },
    Aim {
        what: "parse + match, rsigma routed",
        line: ALL,
        ours: Turn::Parse,
        theirs: Turn::RoutedParse,
        ratio: 2.8,
    },
    Aim {
        what: "process_creation, match-only, rsigma routed",
        line: HARDEST,
        ours: Turn::Match,
        theirs: Turn::Routed,
        ratio: 3.0,
    },
];

/// Sums the rounds up.
pub fn lines(rounds: &[Round], events: &Events, engine: &Engine) -> Vec<Line> {
    let counts = events.counts();
    let sum = |name: &str, chosen: &dyn Fn(u32) -> bool, rules: Option<usize>| {
        let count: usize = counts.iter().filter(|(class, _)| chosen(**class)).map(|(_, count)| count).sum();
        let mut micros: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for round in rounds {
            let mut spent: BTreeMap<Turn, Duration> = BTreeMap::new();
            for ((turn, class), time) in round {
                if chosen(*class) {
                    *spent.entry(*turn).or_default() += *time;
                }
            }
            for (turn, time) in spent {
                let each = time.as_secs_f64() * 1e6 / count as f64;
                micros.entry(format!("{turn:?}")).or_default().push(each);
            }
        }
        Line { name: name.to_owned(), events: count, rules, micros }
    };
    let is_hard = |class: u32| events.classes[class as usize].categories.iter().any(|name| name == HARDEST);
    let mut lines = vec![sum(ALL, &|_| true, None)];
    if counts.keys().any(|class| is_hard(*class)) {
        lines.push(sum(HARDEST, &is_hard, None));
    }
    let mut shown: Vec<_> = counts.iter().filter(|(_, count)| **count >= SHOWN).collect();
    shown.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (class, _) in shown {
        let name = events.classes[*class as usize].to_string();
        lines.push(sum(&name, &|other| other == *class, Some(engine.rules_of(ClassId(*class)))));
    }
    lines
}

impl Line {
    fn micros(&self, turn: Turn) -> Option<f64> {
        self.micros.get(&format!("{turn:?}")).map(|rounds| median(rounds))
    }

    /// Thousands of events a second of one core.
    fn rate(&self, turn: Turn) -> String {
        self.micros(turn).map_or_else(|| "–".to_owned(), |micros| format!("{:.1}", 1000.0 / micros))
    }

    /// How many times faster, round by round: median, least, most.
    fn ratio(&self, ours: Turn, theirs: Turn) -> Option<(f64, f64, f64)> {
        let (ours, theirs) =
            (self.micros.get(&format!("{ours:?}"))?, self.micros.get(&format!("{theirs:?}"))?);
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| theirs / ours).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        Some((median(&ratios), least, ratios.iter().copied().fold(0.0, f64::max)))
    }

    fn shown_ratio(&self, ours: Turn, theirs: Turn) -> String {
        self.ratio(ours, theirs).map_or_else(|| "–".to_owned(), |(middle, ..)| format!("{middle:.2}"))
    }
}

impl Report {
    /// Writes both files and says where.
    pub fn write(&self, out: Option<&Path>) -> Result<()> {
        let named = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("runs/{}-detect", self.date));
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
            "# Detection, {}\n\n{}; revision {}; {}\n\n```\ncargo run --release -p inosec-bench --features rsigma -- {}\n```\n\n",
            self.date, self.machine, self.revision, self.rival, self.command
        );
        let _ = writeln!(
            text,
            "{}; {} events without a class. {} rules of {} ({} with placeholders left out). One thread, CPU time, \
             median of {} rounds; within a round all take turns, group by group. Each round begins with an empty memo. \
             rsigma gets flat events and their logsource resolved; *routed* is its own routing, *strict* one of its \
             engines per class with the rules inosec runs there. inosec's parse includes envelope, format, class and \
             columns.\n",
            self.corpus,
            self.unclassified,
            self.rules,
            self.rule_files.join(", "),
            self.refused,
            self.lines.first().and_then(|line| line.micros.values().next()).map_or(0, Vec::len),
        );
        self.asked(&mut text);
        self.table(&mut text, "Match-only", (Turn::Match, Turn::Routed, Turn::Strict));
        self.table(&mut text, "Parse + match", (Turn::Parse, Turn::RoutedParse, Turn::StrictParse));
        self.weights(&mut text);
        self.verdicts(&mut text);
        text
    }

    fn asked(&self, text: &mut String) {
        text.push_str("| asked | aim | found | rounds from – to | |\n| --- | ---: | ---: | ---: | --- |\n");
        for aim in AIMS {
            let line = self.lines.iter().find(|line| line.name == aim.line);
            let Some((middle, least, most)) = line.and_then(|line| line.ratio(aim.ours, aim.theirs)) else {
                continue;
            };
            let met = if middle >= aim.ratio { "met" } else { "**short**" };
            let _ = writeln!(
                text,
                "| {} | ≥ {:.1} × | {middle:.2} × | {least:.2} – {most:.2} | {met} |",
                aim.what, aim.ratio
            );
        }
        if let Some((middle, least, most)) =
            self.lines.first().and_then(|line| line.ratio(Turn::Match, Turn::Many))
        {
            let percent = |ratio: f64| (ratio - 1.0) * 100.0;
            let met = if percent(middle) <= 15.0 { "met" } else { "**short**" };
            let _ = writeln!(
                text,
                "| {} tenants with overlapping rule sets, match-only, slower than one with all rules by | ≤ 15 % | {:.1} % | {:.1} – {:.1} | {met} |",
                self.rule_sets,
                percent(middle),
                percent(least),
                percent(most)
            );
        }
        if let Some(memory) = self.memory.iter().find(|memory| memory.contender == "many") {
            let met = if memory.peak() <= 1 << 30 { "met" } else { "**short**" };
            let _ = writeln!(
                text,
                "| memory for them, at its peak | ≤ 1024 MiB | {} MiB | | {met} |",
                memory.peak() >> 20
            );
        }
    }

    fn table(&self, text: &mut String, title: &str, (ours, routed, strict): (Turn, Turn, Turn)) {
        let _ = writeln!(
            text,
            "\n## {title}, thousand events/s\n\n| class | events | rules | inosec | rsigma routed | ratio | rsigma strict | ratio |\n| --- |{}",
            " ---: |".repeat(7)
        );
        for line in &self.lines {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                line.name,
                line.events,
                line.rules.map_or_else(String::new, |rules| rules.to_string()),
                line.rate(ours),
                line.rate(routed),
                line.shown_ratio(ours, routed),
                line.rate(strict),
                line.shown_ratio(ours, strict),
            );
        }
    }

    fn weights(&self, text: &mut String) {
        text.push_str(
            "\n## Memory, MiB\n\n| | engine | while compiling | tenants | matching |\n| --- | ---: | ---: | ---: | ---: |\n",
        );
        for memory in &self.memory {
            let name = match memory.contender.as_str() {
                "one" => "inosec, one tenant".to_owned(),
                "many" => format!("inosec, {} tenants", self.rule_sets),
                _ => "rsigma, one engine (its strict engines overlap and take more)".to_owned(),
            };
            let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} | {} |",
                mib(memory.engine),
                mib(memory.compiling),
                mib(memory.tenants),
                mib(memory.matching)
            );
        }
        text.push_str(
            "\nResident memory, each in a process of its own; matching: memo (budget 64 MiB), columns and buffers.\n",
        );
    }

    fn verdicts(&self, text: &mut String) {
        let hits: Vec<String> = self.hits.iter().map(|(turn, hits)| format!("{turn} {hits}")).collect();
        let _ = writeln!(text, "\n## Verdicts\n\nHits: {}.", hits.join(", "));
        if self.differences.is_empty() {
            text.push_str("inosec and rsigma strict agree on every event and rule.\n");
            return;
        }
        text.push_str("Where inosec and rsigma strict differ:\n\n| rule | only inosec | only rsigma | event | explained in docs/sigma-differences.md |\n| --- | ---: | ---: | ---: | --- |\n");
        for difference in &self.differences {
            let explained = if EXPLAINED.contains(&difference.rule) { "yes" } else { "no" };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {explained} |",
                difference.rule, difference.ours_only, difference.theirs_only, difference.example
            );
        }
    }
}
