//! Detection on one core: events a second, class by class, beside the fastest open engine we know, on the
//! same events in the same run; what a hundred tenants cost; and memory.
//!
//! Group by group (the events of one class in one batch) every contender has its turn, and each round
//! another one goes first, so that whatever disturbs the machine disturbs all alike. A round's ratio is
//! between sums over the same groups; a result is the median round. Thread CPU time decides.

mod events;
mod memory;
mod ours;
mod report;
#[cfg_attr(not(feature = "rsigma"), path = "detect/no_rival.rs")]
mod rival;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use inosec_schemas::Catalog;

use self::events::{Events, Group};
use self::ours::Ours;
use self::report::{Difference, Report};
use self::rival::{Rival, Routing};
use crate::corpus::Corpus;
use crate::error::{At, Result, check};
use crate::machine;
use crate::usage::thread_cpu;

/// What `detect` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    choice: crate::corpus::Choice,
    /// How many events a round has; default is the corpus once.
    #[arg(long)]
    events: Option<usize>,
    /// How many times everything is timed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where the rules are that take part: beginnings of SigmaHQ's paths.
    #[arg(long, value_delimiter = ',', default_value = "rules/windows/,rules/linux/,rules/cloud/")]
    rules: Vec<String>,
    /// How many tenants with overlapping rule sets are compared with one that has all rules.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..))]
    rule_sets: u32,
    /// Only classes whose name has this in it, such as process_creation.
    #[arg(long, default_value = "")]
    class: String,
    /// Run only this, over and over, for a profiler; nothing is written.
    #[arg(long)]
    only: Option<Only>,
    /// Measure the memory of one contender, which is what `detect` starts itself for.
    #[arg(long, hide = true)]
    memory: Option<memory::Contender>,
    /// Where the report goes, without extension; default is bench/runs/<date>-detect.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What a profiler may want alone. Columns are filled between matches, extraction is part of `parse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Only {
    /// Extract fields, match nothing.
    Extract,
    /// Match; extraction runs too, once per match.
    Match,
    /// The rival's matching, strict.
    Strict,
}

/// Something that is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Turn {
    Match,
    Parse,
    Many,
    Routed,
    RoutedParse,
    Strict,
    StrictParse,
}

impl Turn {
    const OURS: [Self; 3] = [Self::Match, Self::Parse, Self::Many];
    const ALL: [Self; 7] = [
        Self::Match,
        Self::Routed,
        Self::Strict,
        Self::Parse,
        Self::RoutedParse,
        Self::StrictParse,
        Self::Many,
    ];
}

/// CPU time by turn and class.
type Round = BTreeMap<(Turn, u32), Duration>;

/// An event's place in the corpus, and a rule it matches.
type Hits = BTreeSet<(usize, String)>;

/// Everyone who takes part.
struct Contest<'a> {
    corpus: &'a Corpus,
    ours: [Ours; 3],
    rival: Rival,
    turns: &'static [Turn],
    hits: BTreeMap<Turn, u64>,
    ours_found: Hits,
    strict_found: Hits,
}

/// Runs what was asked for.
pub fn run(args: &Args) -> Result<()> {
    if let Some(contender) = args.memory {
        return memory::measure(contender, args);
    }
    let catalog = Catalog::embedded().at("reading the descriptions")?;
    let corpus = Corpus::load(&args.choice)?;
    println!("{}", corpus.description);
    let texts = rules::texts(&args.rules)?;
    let engine = ours::engine(&texts, &catalog)?;
    let rival = cfg!(feature = "rsigma") && matches!(args.only, None | Some(Only::Strict));
    let wanted = (args.events.unwrap_or(corpus.len()), args.class.as_str(), rival);
    let events = Events::load(&corpus, &catalog, &mut ours::extractor(&engine, &catalog), wanted)?;
    let counts = events.counts();
    let mut contest = Contest {
        corpus: &corpus,
        ours: [1, 1, args.rule_sets].map(|tenants| Ours::new(&engine, &catalog, tenants)),
        rival: Rival::new(&texts, &engine, &events.classes, |class| rival && counts.contains_key(&class))?,
        turns: if rival { &Turn::ALL } else { &Turn::OURS },
        hits: BTreeMap::new(),
        ours_found: Hits::new(),
        strict_found: Hits::new(),
    };
    if let Some(only) = args.only {
        return contest.only(only, &events, args.rounds);
    }
    let mut rounds = Vec::new();
    for number in 0..args.rounds {
        rounds.push(contest.round(number as usize, &events)?);
        println!("round {} of {}", number + 1, args.rounds);
    }
    let report = Report {
        date: machine::inosec_date(),
        machine: machine::host(),
        revision: machine::revision(),
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        rival: rival::NAME.to_owned(),
        corpus: corpus.description.clone(),
        rule_files: args.rules.clone(),
        rules: engine.rules().len(),
        refused: texts.len() - engine.rules().len(),
        rule_sets: args.rule_sets,
        unclassified: events.unclassified,
        lines: report::lines(&rounds, &events, &engine),
        hits: contest.hits.iter().map(|(turn, hits)| (format!("{turn:?}"), *hits)).collect(),
        differences: if rival { contest.differences() } else { Vec::new() },
        memory: memory::all(args)?,
    };
    report.write(args.out.as_deref())
}

impl Contest<'_> {
    fn round(&mut self, number: usize, events: &Events) -> Result<Round> {
        let mut round = Round::new();
        let mut hits = BTreeMap::new();
        self.ours.iter_mut().for_each(Ours::forget);
        for (index, group) in events.groups.iter().enumerate() {
            for turn in 0..self.turns.len() {
                let turn = self.turns[(turn + number + index) % self.turns.len()];
                let spent = round.entry((turn, group.class)).or_default();
                *hits.entry(turn).or_insert(0) += self.turn(turn, group, spent, number == 0)?;
            }
        }
        if number > 0 {
            for (turn, expected) in &self.hits {
                check(&format!("hits of {turn:?}"), *expected, hits[turn])?;
            }
        }
        self.hits = hits;
        Ok(round)
    }

    /// Runs and times one contender; what it found is kept if asked for.
    fn turn(&mut self, turn: Turn, group: &Group, spent: &mut Duration, keep: bool) -> Result<u64> {
        let mut clock = |work: &mut dyn FnMut()| {
            let before = thread_cpu();
            work();
            *spent += thread_cpu() - before;
        };
        let (routing, parse) = match turn {
            Turn::Match | Turn::Parse | Turn::Many => {
                let ours = &mut self.ours[turn as usize];
                let hits = ours.run(group, self.corpus, turn == Turn::Parse, &mut clock);
                if keep && turn == Turn::Match {
                    self.ours_found.extend(ours.found(group));
                }
                return Ok(hits as u64);
            }
            Turn::Routed => (Routing::Shipped, false),
            Turn::RoutedParse => (Routing::Shipped, true),
            Turn::Strict => (Routing::Strict, false),
            Turn::StrictParse => (Routing::Strict, true),
        };
        let found = self.rival.run(group, routing, parse, &mut clock)?;
        let hits = found.len() as u64;
        if keep && turn == Turn::Strict {
            self.strict_found.extend(found);
        }
        Ok(hits)
    }

    /// Verdicts that one engine has and the other has not, by rule.
    fn differences(&self) -> Vec<Difference> {
        let mut by_rule: BTreeMap<&str, Difference> = BTreeMap::new();
        for (place, rule) in self.ours_found.symmetric_difference(&self.strict_found) {
            let new = || Difference { rule: rule.clone(), ours_only: 0, theirs_only: 0, example: *place };
            let difference = by_rule.entry(rule).or_insert_with(new);
            if self.ours_found.contains(&(*place, rule.clone())) {
                difference.ours_only += 1;
            } else {
                difference.theirs_only += 1;
            }
        }
        by_rule.into_values().collect()
    }

    fn only(&mut self, only: Only, events: &Events, rounds: u32) -> Result<()> {
        let mut spent = Duration::ZERO;
        let mut count = 0;
        for _ in 0..rounds {
            self.ours[0].forget();
            for group in &events.groups {
                count += group.places.len();
                match only {
                    Only::Extract => {
                        let before = thread_cpu();
                        self.ours[0].extract(group, self.corpus);
                        spent += thread_cpu() - before;
                    }
                    Only::Match => {
                        self.turn(Turn::Match, group, &mut spent, false)?;
                    }
                    Only::Strict => {
                        self.turn(Turn::Strict, group, &mut spent, false)?;
                    }
                }
            }
        }
        println!("{only:?}: {:.3} µs an event", spent.as_secs_f64() * 1e6 / count as f64);
        Ok(())
    }
}
