//! The correlator on one core: events a second by kind of rule and size of batch, beside the fastest open
//! engine we know, on the same events in the same run; how long a rebuild takes; and memory.
//!
//! Everyone holds a full horizon before the clock runs. Then all take the same stretch of events in turn,
//! each stretch begun by another, so that whatever disturbs the machine disturbs all alike. A result is the
//! median round. Thread CPU time decides; changes are taken within it.

mod cases;
mod memory;
mod report;
#[cfg_attr(not(feature = "rsigma"), path = "correlate/no_rival.rs")]
mod rival;

use std::path::PathBuf;
use std::time::Duration;

use inosec_enrich::Correlator;
use inosec_enrich::correlate::ThreatEvent;

use self::cases::{CASES, Case, Made, SECOND};
use self::report::{Line, Report};
use self::rival::Rival;
use crate::error::{Result, check};
use crate::machine;
use crate::usage::thread_cpu;

/// What `correlate` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How many events are timed in a round, besides those that are held already.
    #[arg(long, default_value_t = 200_000)]
    events: u64,
    /// How many times everything is timed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only cases whose name has this in it, such as value_count.
    #[arg(long, default_value = "")]
    case: String,
    /// Run only inosec in batches of this size, for a profiler; nothing is written.
    #[arg(long)]
    only: Option<usize>,
    /// Measure the memory of the case with this number, which is what `correlate` starts itself for.
    #[arg(long, hide = true)]
    memory: Option<usize>,
    /// Where the report goes, without extension; default is bench/runs/<date>-correlate.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Sizes of batches: a quiet road, one at work, one that catches up.
const BATCHES: [usize; 3] = [10, 1_000, 10_000];
/// Events after which it is another's turn.
const STRETCH: u64 = 10_000;
/// How much the rival is given beforehand: it holds no more than a window.
const WARM: i64 = 2 * 300 * SECOND;

/// One round's CPU time: of a rebuild from what is held, by size of batch, of the rival.
#[derive(Debug, Clone, Default)]
struct Round {
    rebuild: Duration,
    batches: Vec<Duration>,
    rival: Duration,
}

/// What a round found, which must not differ between rounds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Found {
    groups: usize,
    episodes: usize,
    changes: Vec<u64>,
    fired: u64,
}

/// Runs what was asked for.
pub fn run(args: &Args) -> Result<()> {
    if let Some(place) = args.memory {
        return memory::measure(place);
    }
    let mut lines = Vec::new();
    for case in CASES.iter().filter(|case| case.name.contains(&args.case)) {
        if let Some(batch) = args.only {
            only(case, batch, args)?;
            continue;
        }
        let (mut rounds, mut found) = (Vec::new(), None);
        for number in 0..args.rounds as usize {
            let (round, of_round) = self::round(case, number, args.events)?;
            check(case.name, 1, u64::from(*found.get_or_insert_with(|| of_round.clone()) == of_round))?;
            rounds.push(round);
        }
        let line = Line::new(case, &rounds, found.unwrap_or_default(), args.events);
        println!("{}", line.row());
        lines.push(line);
    }
    if args.only.is_some() {
        return Ok(());
    }
    let report = Report {
        date: machine::inosec_date(),
        machine: machine::host(),
        revision: machine::revision(),
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        rival: rival::NAME.to_owned(),
        rounds: args.rounds,
        events: args.events,
        lines,
        memory: memory::all(&args.case)?,
    };
    report.write(args.out.as_deref())
}

fn threat_events(made: &[Made]) -> Vec<ThreatEvent<'_>> {
    made.iter().map(Made::threat_event).collect()
}

fn clocked(spent: &mut Duration, work: &mut dyn FnMut()) {
    let before = thread_cpu();
    work();
    *spent += thread_cpu() - before;
}

fn round(case: &Case, number: usize, events: u64) -> Result<(Round, Found)> {
    let rules = case.rules()?;
    let new = || Correlator::new(rules.clone(), Case::options());
    let horizon = new().horizon();
    let mut round = Round { batches: vec![Duration::ZERO; BATCHES.len()], ..Round::default() };
    let mut found = Found { changes: vec![0; BATCHES.len()], ..Found::default() };

    let held = case.events(0..case.held, horizon);
    let given = threat_events(&held);
    let now = held.last().map_or(0, |last| last.arrival);
    let rebuild = || Correlator::rebuild(rules.clone(), Case::options(), &given, now);
    let mut ours = Vec::new();
    for index in 0..BATCHES.len() {
        let mut spent = Duration::ZERO;
        clocked(&mut spent, &mut || ours.push(rebuild()));
        if index == number % BATCHES.len() {
            round.rebuild = spent;
        }
    }
    let mut rival = Rival::new(case)?;
    let warm = held.partition_point(|made| made.arrival < now - WARM);
    rival.take(&held[warm..], &mut |work| work());
    drop(given);
    drop(held);

    for (turn, first) in (case.held..case.held + events).step_by(STRETCH as usize).enumerate() {
        let made = case.events(first..(first + STRETCH).min(case.held + events), horizon);
        for contender in 0..=BATCHES.len() {
            let contender = (contender + turn + number) % (BATCHES.len() + 1);
            if let Some(batch) = BATCHES.get(contender) {
                let (spent, changes) = (&mut round.batches[contender], &mut found.changes[contender]);
                *changes += take(&mut ours[contender], &made, *batch, spent);
            } else {
                found.fired += rival.take(&made, &mut |work| clocked(&mut round.rival, work));
            }
        }
    }
    let sizes: Vec<(usize, usize)> = ours.iter().map(Correlator::size).collect();
    let episodes: Vec<usize> = ours.iter().map(|ours| ours.episodes().len()).collect();
    for other in 1..BATCHES.len() {
        check("entries", sizes[0].1 as u64, sizes[other].1 as u64)?;
        check("episodes", episodes[0] as u64, episodes[other] as u64)?;
    }
    (found.groups, found.episodes) = (sizes[0].0, episodes[0]);
    Ok((round, found))
}

/// Gives events in batches, tells the time after each and takes the changes; how many there were.
fn take(correlator: &mut Correlator, made: &[Made], batch: usize, spent: &mut Duration) -> u64 {
    let mut changes = 0;
    for made in made.chunks(batch) {
        let events = threat_events(made);
        let now = made.last().map_or(0, |last| last.arrival);
        clocked(spent, &mut || {
            changes += correlator.insert(&events).len();
            changes += correlator.advance(now).len();
        });
    }
    changes as u64
}

fn only(case: &Case, batch: usize, args: &Args) -> Result<()> {
    let rules = case.rules()?;
    for _ in 0..args.rounds {
        let mut ours = Correlator::new(rules.clone(), Case::options());
        let horizon = ours.horizon();
        take(&mut ours, &case.events(0..case.held, horizon), usize::MAX, &mut Duration::default());
        let made = case.events(case.held..case.held + args.events, horizon);
        let mut spent = Duration::ZERO;
        let changes = take(&mut ours, &made, batch, &mut spent);
        let rate = args.events as f64 / spent.as_secs_f64() / 1e3;
        println!("{:56} {rate:.0} k/s, {changes} changes, {:?}", case.name, ours.size());
    }
    Ok(())
}
