//! The whole road beside its raw limits, in one run on one machine.
//!
//! Order: raw COPY, reading alone, parsing and compressing alone; rivals if wanted; the road; delays at
//! half its rate; the price of each index. Everything is checked for its counts and printed as it
//! comes. The databases and the topic are the run's own and are dropped however it ends.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use inosec_schemas::Catalog;

use crate::canary;
use crate::corpus::{Choice, Corpus};
use crate::error::{At, Result};
use crate::kafka::{self, Topic};
use crate::latency::{self, Latency};
use crate::limits::{Captured, Limits};
use crate::machine::Machine;
use crate::micro;
use crate::peers;
use crate::phase::Phase;
use crate::postgres::{Database, within};
use crate::report::Report;
use crate::rivals::{self, Rival};
use crate::road;
use crate::usage::{Parties, listener};

/// No phase takes longer on a machine worth measuring.
const PHASE: Duration = Duration::from_secs(600);
/// Passes of the micro benchmark inside a run.
const PASSES: u32 = 3;

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    choice: Choice,
    /// How many events go down the road; the corpus is repeated.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(50_000..))]
    events: u32,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// How long delays are measured.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Also run the Python contender, installed on demand into the state folder.
    #[arg(long)]
    peers: bool,
    /// Also run Kafka Connect, Benthos and rsyslog, those that bench/rivals/install has installed.
    #[arg(long)]
    rivals: bool,
    /// Also run the road with these detection rules on: files or folders, as in [rules] paths.
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Only the road: no limits, delays, prices or rivals, and no report.
    #[arg(long)]
    road_only: bool,
    /// Where the report goes, without its extension; default is bench/runs/<date>-e2e.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// The servers.
struct Servers {
    kafka: String,
    timescale: String,
}

impl Servers {
    fn from_environment() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var(name)
                .at(format!("{name} is not set: run `make bench`, or eval \"$(deploy/local/services env)\""))
        };
        Ok(Self { kafka: variable("INOSEC_TEST_KAFKA")?, timescale: variable("INOSEC_TEST_TIMESCALE_URL")? })
    }
}

/// Runs everything and cleans up, also after an error or Ctrl-C.
pub async fn run(args: Args) -> Result<()> {
    let servers = Servers::from_environment()?;
    let corpus = Corpus::load(&args.choice)?;
    println!("{}", corpus.description);
    let catalog = Catalog::embedded().at("reading the descriptions")?;
    let raw = Database::create(&servers.timescale, &corpus, &catalog).await?;
    let hot = match Database::create(&servers.timescale, &corpus, &catalog).await {
        Ok(hot) => hot,
        Err(error) => {
            raw.drop().await?;
            return Err(error);
        }
    };
    let topic = Topic::create(&servers.kafka, args.partitions).await;
    let result = match &topic {
        Ok(topic) => {
            let run = Run::new(&args, &corpus, &catalog, (&raw, &hot), topic, &servers.timescale);
            tokio::select! {
                result = Box::pin(run.all()) => result,
                _ = tokio::signal::ctrl_c() => Err(crate::error::Error::new("interrupted")),
            }
        }
        Err(error) => Err(crate::error::Error::new(error.to_string())),
    };
    let mut cleaned = raw.drop().await.and(hot.drop().await);
    if let Ok(topic) = topic {
        cleaned = cleaned.and(topic.delete().await);
    }
    result.and(cleaned)
}

struct Run<'a> {
    args: &'a Args,
    corpus: &'a Corpus,
    catalog: &'a Catalog,
    /// Where the raw limits and rivals write.
    raw: &'a Database,
    /// Where the road writes.
    hot: &'a Database,
    topic: &'a Topic,
    timescale: &'a str,
    parties: Parties,
    started: Instant,
}

impl<'a> Run<'a> {
    fn new(
        args: &'a Args,
        corpus: &'a Corpus,
        catalog: &'a Catalog,
        (raw, hot): (&'a Database, &'a Database),
        topic: &'a Topic,
        timescale: &'a str,
    ) -> Self {
        let parties = Parties {
            postgres: listener(raw.port),
            kafka: topic.port().and_then(listener),
            ..Parties::default()
        };
        Self { args, corpus, catalog, raw, hot, topic, timescale, parties, started: Instant::now() }
    }

    async fn all(mut self) -> Result<()> {
        let events = self.args.events as usize;
        let took = tokio::task::block_in_place(|| kafka::preload(self.topic, self.corpus, events))?;
        println!("topic of {events} events filled in {:.1} s\n", took.as_secs_f64());
        if self.args.road_only {
            let (off, _) = self.road().await?;
            if let Some((on, _)) = self.ruled(self.args.events.into()).await? {
                println!("with rules: {:.2} of the rate without", on.rate / off.rate);
            }
            return Ok(());
        }
        let machine = Machine::describe(self.raw, &self.parties).await?;
        let captured = Captured::new(self.corpus, self.catalog, self.args.partitions, events)?;
        println!("captured: {} rows, {} dead letters", captured.rows, captured.dead_letters);
        let raw = self.limits(&captured).await?;
        let consume = self.consume().await?;
        let micro = self.micro()?;
        let mut rivals = self.peers().await?;
        let absent = self.rivals(&mut rivals).await;
        let (road, delay) = self.road().await?;
        // Delays added to the topic.
        let all = u64::from(self.args.events) + delay.as_ref().map_or(0, |delay| delay.events);
        let (ruled, alerts) = self.ruled(all).await?.unzip();
        let prices = self.prices(&captured).await?;
        let report = Report {
            machine,
            corpus: self.corpus.description.clone(),
            partitions: self.args.partitions,
            minutes: self.started.elapsed().as_secs_f64() / 60.0,
            raw,
            consume,
            micro,
            rivals,
            absent,
            road,
            ruled,
            delay,
            alerts,
            prices,
        };
        report.write(self.args.out.as_deref())
    }

    /// Two passes over each limit, interleaved, of which the better counts: a limit is what can be had.
    async fn limits(&self, captured: &Captured) -> Result<Vec<Phase>> {
        Limits::create_others(self.raw).await?;
        let limits = Limits { database: self.raw, parties: &self.parties, captured, timeout: PHASE };
        let mut best: Vec<Phase> = Vec::new();
        for _ in 0..2 {
            let phases = [
                limits.others(1).await?,
                limits.others(2).await?,
                limits.ours(1).await?,
                limits.ours(2).await?,
            ];
            for phase in phases {
                match best.iter_mut().find(|other| other.name == phase.name) {
                    Some(other) if other.rate < phase.rate => *other = phase,
                    Some(_) => {}
                    None => best.push(phase),
                }
            }
        }
        Ok(best)
    }

    async fn consume(&self) -> Result<Phase> {
        let events = self.args.events as usize;
        let reading = self.parties.read();
        let consume = || kafka::consume(self.topic, events, PHASE);
        within(PHASE, "consume only", async { tokio::task::block_in_place(consume) }).await?;
        let usage = self.parties.since(&reading);
        let phase = Phase::new("consume only, 1 thread", events as u64, events as f64 / usage.seconds, usage);
        phase.print();
        Ok(phase)
    }

    fn micro(&self) -> Result<micro::Micro> {
        let args = micro::Args {
            choice: self.args.choice.clone(),
            events: Some(self.corpus.len().min(self.args.events as usize)),
            passes: PASSES,
            partitions: self.args.partitions,
            only: None,
        };
        let micro =
            tokio::task::block_in_place(|| micro::run(self.corpus, &args))?.at("nothing was timed")?;
        println!();
        micro::print(&micro);
        println!();
        Ok(micro)
    }

    async fn road(&mut self) -> Result<(Phase, Option<Latency>)> {
        let events = u64::from(self.args.events);
        let (mut inosec, phase) =
            road::run(self.topic, self.hot, &mut self.parties, events, PHASE, &[]).await?;
        if self.args.road_only {
            inosec.stop()?;
            return Ok((phase, None));
        }
        let half = phase.rate / 2.0;
        let measuring =
            latency::measure(self.topic, self.corpus, self.hot, &mut inosec, half, self.args.seconds);
        let delay = within(PHASE, "delays", Box::pin(measuring)).await?;
        delay.print();
        inosec.stop()?;
        self.parties.contender = None;
        road::counts(self.hot, events + delay.events).await?;
        Ok((phase, Some(delay)))
    }

    /// The same road, rules on, into a database of its own; and how long alerts take at half its rate.
    async fn ruled(&mut self, events: u64) -> Result<Option<(Phase, Latency)>> {
        if self.args.rules.is_empty() {
            return Ok(None);
        }
        let database = Database::create(self.timescale, self.corpus, self.catalog).await?;
        let result = self.ruled_into(&database, events).await;
        self.parties.contender = None;
        database.drop().await?;
        result.map(Some)
    }

    async fn ruled_into(&mut self, database: &Database, events: u64) -> Result<(Phase, Latency)> {
        let mut rules = self.args.rules.clone();
        rules.push(canary::RULE.into());
        let (mut inosec, phase) =
            road::run(self.topic, database, &mut self.parties, events, PHASE, &rules).await?;
        let queued = "SELECT count(*) FROM inosec.correlation_queue";
        let behind = database.number(queued).await?;
        let started = Instant::now();
        let correlated = async {
            while database.number(queued).await? > 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        };
        within(PHASE, "correlating what is queued", correlated).await?;
        let (matches, alerts) = (
            database.number("SELECT count(*) FROM inosec.threat_events").await?,
            database.number("SELECT count(*) FROM inosec.alerts").await?,
        );
        let took = started.elapsed().as_secs_f64();
        println!(
            "  {matches} threat events, {alerts} alerts; {behind} transactions queued, correlated in {took:.1} s"
        );
        let measuring = canary::measure(
            self.topic,
            self.corpus,
            database,
            &mut inosec,
            phase.rate / 2.0,
            self.args.seconds,
        );
        let delay = within(PHASE, "alerts", Box::pin(measuring)).await?;
        println!("from an event to its alert:");
        delay.print();
        inosec.stop()?;
        Ok((phase, delay))
    }

    async fn prices(&self, captured: &Captured) -> Result<Vec<Phase>> {
        let stream = self.catalog.streams.get("agent_logs").at("the stream agent_logs is gone")?;
        let limits = Limits { database: self.raw, parties: &self.parties, captured, timeout: PHASE };
        let mut prices = Vec::new();
        for indexes in 0..=stream.indexes.len() {
            prices.push(limits.priced(stream, indexes).await?);
        }
        Ok(prices)
    }

    async fn peers(&self) -> Result<Vec<Phase>> {
        let mut rivals = Vec::new();
        if self.args.peers {
            let python = tokio::task::block_in_place(peers::python)?;
            let events = u64::from(self.args.events);
            for processes in [1, 2] {
                let work =
                    peers::measure(&python, self.topic, self.raw, &self.parties, processes, events, PHASE);
                rivals.push(Box::pin(work).await?);
            }
        }
        Ok(rivals)
    }

    /// Adds each rival that runs; returns why others didn't. They are not ours, so they don't end the run.
    async fn rivals(&self, phases: &mut Vec<Phase>) -> Vec<String> {
        let mut absent = Vec::new();
        for rival in Rival::ALL.into_iter().filter(|_| self.args.rivals) {
            let why = if let Some(why) = rival.missing() {
                why
            } else {
                let events = u64::from(self.args.events);
                let work = rivals::measure(rival, self.topic, self.raw, &self.parties, events, PHASE);
                match Box::pin(work).await {
                    Ok(phase) => {
                        phases.push(phase);
                        continue;
                    }
                    Err(error) => error.to_string(),
                }
            };
            println!("\nNOT MEASURED: {why}\n");
            absent.push(why);
        }
        absent
    }
}
