//! `inosec demo`: a day of several tenants through the whole road, with nothing to install but
//! PostgreSQL's programs.
//!
//! The broker is librdkafka's mock cluster inside this process, PostgreSQL a private server in the
//! state folder; between them runs the very road `inosec run` runs. Afterwards every message is
//! accounted for, and everything is stopped and removed, also on Ctrl-C and on errors.

mod census;
mod fingerprint;
mod player;
mod screen;
mod stage;
mod summary;

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, Output};
use census::Observer;
use player::{Ledger, Player, Progress, Script};
use screen::Screen;
use stage::Stage;
use summary::{Course, Summary};

/// How often the screen is renewed.
const REFRESH: Duration = Duration::from_secs(1);
/// How often the player learns what is stored, which bounds how far ahead it may run.
const GLANCE: Duration = Duration::from_millis(200);
/// The exit status after a signal, as shells give it for SIGINT.
const INTERRUPTED: u8 = 130;
/// How long storing and correlating the rest may take once everything is sent.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Play these events (NDJSON or lines of text, also .zst) instead of the made-up day. A line's
    /// `host` decides, by hash, which of the demo's tenants it belongs to.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// Leave everything running until Ctrl-C, to look around.
    #[arg(long)]
    keep: bool,
    /// How many events to play; default is 60000, or up to 200000 of a corpus.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,
    /// How many seconds the day is to last.
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Decides everything about the made-up day.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where the private PostgreSQL lives meanwhile.
    #[arg(long, value_name = "DIR", default_value = ".inosec/demo")]
    state: PathBuf,
}

/// Plays the day, tells what came of it, and fails if a message is unaccounted for.
pub async fn demo(args: Args, output: &Output) -> Result<(), Failure> {
    let mut interrupt = Interrupt::new()?;
    let script = Script::new(&args, jiff::Timestamp::now().as_microsecond())?;
    let mut stage = interrupt.or(Stage::build(&args.state, script.tenants())).await?;
    let (course, ledger) = interrupt.or(play(&mut stage, script, args.seconds)).await?;
    let census = stage.observer.census().await?;
    let summary = Summary { course, ledger, census, place: stage.place(args.keep) };
    let shown = show(&summary, output);
    if args.keep && shown.is_ok() {
        match interrupt.or(stage.failed()).await {
            Err(failure) if failure.status != INTERRUPTED => return Err(failure),
            _ => screen::note("stopping and removing everything"),
        }
    }
    stage.strike().await?;
    shown
}

/// Sends the whole script while watching what arrives, then waits until all of it is stored.
async fn play(stage: &mut Stage, script: Script, seconds: u64) -> Result<(Course, Ledger), Failure> {
    let progress = Arc::new(Progress::default());
    let player = Player::start(stage.config(), script, Duration::from_secs(seconds), Arc::clone(&progress))?;
    let started = Instant::now();
    let mut screen = Screen::new();
    let watched = tokio::select! {
        watched = watch(&stage.observer, &progress, &mut screen) => watched,
        failure = stage.running.failed() => Err(failure.into()),
    };
    let ledger = player.end().await?;
    let course = Course { seconds: started.elapsed().as_secs_f64(), peak: watched?, delays: stage.delays() };
    Ok((course, ledger))
}

/// Returns the busiest second's events once everything sent is stored and correlated, or it took too long.
async fn watch(observer: &Observer, progress: &Progress, screen: &mut Screen) -> Result<u64, Failure> {
    let mut peak = 0;
    let (mut last, mut stored_then) = (Instant::now(), 0);
    let mut waiting: Option<Instant> = None;
    let mut ticks = tokio::time::interval(GLANCE);
    loop {
        ticks.tick().await;
        let stored = observer.stored().await?;
        progress.set_stored(stored);
        if last.elapsed() >= REFRESH {
            let rate = (stored.saturating_sub(stored_then) as f64 / last.elapsed().as_secs_f64()) as u64;
            peak = peak.max(rate);
            (last, stored_then) = (Instant::now(), stored);
            screen.show(&observer.glance(rate, progress).await?);
        }
        if !progress.all_sent() {
            continue;
        }
        let waited = waiting.get_or_insert_with(Instant::now).elapsed();
        let done = stored >= progress.sent() && observer.queued().await? == 0;
        if done || waited > PATIENCE {
            screen.show(&observer.glance(0, progress).await?);
            return Ok(peak);
        }
    }
}

/// Prints the summary; an unaccounted message is a failure.
fn show(summary: &Summary, output: &Output) -> Result<(), Failure> {
    let passed = summary.passed();
    if output.json() && !passed {
        // Stdout gets one document: the failure's.
        return Err(Failure::new(format!("the promise was broken\n{}", summary.text())));
    }
    output.text_or_json(&summary.text(), || summary.document())?;
    match passed {
        true => Ok(()),
        false => Err(Failure::new("the promise was broken: see the lines marked FAIL")),
    }
}

/// Ctrl-C and SIGTERM.
struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    fn new() -> Result<Self, Failure> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Does the work, unless a signal comes first; what was begun is cleaned up by being dropped.
    async fn or<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let signalled = async {
            tokio::select! {
                Some(()) = self.interrupt.recv() => {}
                Some(()) = self.terminate.recv() => {}
                else => pending().await,
            }
        };
        tokio::select! {
            done = work => done,
            () = signalled => Err(Failure { status: INTERRUPTED, text: "interrupted; nothing is left running".to_owned() }),
        }
    }
}
