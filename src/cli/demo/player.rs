//! Sends the script to Kafka at the pace of the play, and keeps the ledger: what was sent, and what
//! is to become of it.
//!
//! The mock broker keeps only the newest 5 MB of a partition and drops the rest silently, so the
//! player never runs further ahead of what is stored than [`AHEAD`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use uuid::Uuid;

use super::Args;
use super::fingerprint::Fingerprint;
use super::stage::{AGENT_LOGS, THREAT_EVENTS};
use crate::cli::Failure;
use crate::cli::replay::{open, tenant_of};
use crate::config::Config;
use crate::day::{Day, Fate, Feed, Message, Options, Tenant};
use crate::producer::Producer;

/// Bytes sent and not yet stored, over all partitions. They are compressed to about a quarter on the
/// broker, so even in a single partition they stay far below its 5 MB.
const AHEAD: u64 = 12 << 20;
/// How often the player looks whether it may go on.
const GLANCE: Duration = Duration::from_millis(5);
/// How long the last messages may take to be acknowledged.
const FLUSH: Duration = Duration::from_secs(20);
/// Microseconds in a day.
const DAY: i64 = 86_400_000_000;
/// Messages of a made-up day.
const EVENTS: u64 = 60_000;
/// At most this many lines of a corpus, so that the demo ends within a minute.
const LINES: u64 = 200_000;

/// What is played.
pub struct Script {
    source: Source,
    tenants: Vec<Tenant>,
    start_us: i64,
}

enum Source {
    Day(Box<Day>),
    Corpus { file: PathBuf, limit: u64 },
}

/// What the player and its watchers tell each other.
#[derive(Debug, Default)]
pub struct Progress {
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    stored: AtomicU64,
    all_sent: AtomicBool,
    /// Nobody waits any more.
    abandoned: AtomicBool,
    /// How far the play is, in microseconds of its day.
    time_of_day: AtomicI64,
}

/// What was sent.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Messages.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The same as a hash.
    pub fingerprint: Fingerprint,
    /// Messages the broker acknowledged.
    pub acknowledged: u64,
    /// What is to become of them; `None` for a corpus, where nobody knows.
    pub fates: Option<BTreeMap<Fate, u64>>,
    /// Of those, rows of `agent_logs` by tenant.
    pub rows: BTreeMap<Uuid, u64>,
    /// The tenants of the play.
    pub tenants: Vec<Tenant>,
}

/// One message with the moment of the play (0 to 1) at which it is due.
struct Line<'a> {
    due: f64,
    topic: &'static str,
    tenant: Option<&'a str>,
    payload: &'a [u8],
}

impl Script {
    /// The script the arguments ask for; a made-up day is yesterday's (UTC), whole.
    pub fn new(args: &Args, now_us: i64) -> Result<Self, Failure> {
        if let Some(file) = &args.corpus {
            // Better said now than after everything was started.
            drop(open(file)?);
        }
        let start_us = (now_us.div_euclid(DAY) - 1) * DAY;
        let options = Options::new(args.seed, args.events.unwrap_or(EVENTS), start_us);
        let day = Day::new(&options);
        let tenants = day.tenants().cloned().collect();
        let source = match &args.corpus {
            Some(file) => Source::Corpus { file: file.clone(), limit: args.events.unwrap_or(LINES) },
            None => Source::Day(Box::new(day)),
        };
        Ok(Self { source, tenants, start_us })
    }

    /// The tenants of the play.
    pub fn tenants(&self) -> &[Tenant] {
        &self.tenants
    }
}

impl Progress {
    /// Messages sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Messages stored so far.
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Acquire)
    }

    /// Records how many are stored.
    pub fn set_stored(&self, stored: u64) {
        self.stored.store(stored, Ordering::Release);
    }

    /// Whether everything was sent.
    pub fn all_sent(&self) -> bool {
        self.all_sent.load(Ordering::Acquire)
    }

    /// How far the play is, in microseconds of its day.
    pub fn time_of_day(&self) -> i64 {
        self.time_of_day.load(Ordering::Relaxed)
    }

    /// Bytes under way, from the mean size.
    fn under_way(&self) -> u64 {
        let (sent, bytes) = (self.sent(), self.sent_bytes.load(Ordering::Relaxed));
        sent.saturating_sub(self.stored()) * (bytes / sent.max(1))
    }
}

/// The playing thread.
pub struct Player {
    thread: JoinHandle<Result<Ledger, Failure>>,
    progress: Arc<Progress>,
}

impl Player {
    /// Begins.
    pub fn start(
        config: &Config,
        script: Script,
        length: Duration,
        progress: Arc<Progress>,
    ) -> Result<Self, Failure> {
        let producer = Producer::new(&config.kafka)?;
        let shared = Arc::clone(&progress);
        let thread = tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let ledger = Ledger { tenants: script.tenants.clone(), ..Ledger::default() };
            let mut playing = Playing { producer, progress: &shared, started, length, ledger };
            let played = playing.all(script);
            shared.all_sent.store(true, Ordering::Release);
            played.map(|()| playing.ledger)
        });
        Ok(Self { thread, progress })
    }

    /// Waits for the end of the play, which is at hand.
    pub async fn end(mut self) -> Result<Ledger, Failure> {
        self.progress.abandoned.store(true, Ordering::Release);
        (&mut self.thread).await?
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.progress.abandoned.store(true, Ordering::Release);
    }
}

struct Playing<'a> {
    producer: Producer,
    progress: &'a Progress,
    started: Instant,
    length: Duration,
    ledger: Ledger,
}

impl Playing<'_> {
    fn all(&mut self, script: Script) -> Result<(), Failure> {
        match script.source {
            Source::Day(day) => self.day(*day, script.start_us)?,
            Source::Corpus { file, limit } => self.corpus(&file, limit, &script.tenants)?,
        }
        if self.progress.abandoned.load(Ordering::Acquire) {
            return Ok(());
        }
        let flushed = self.producer.flush(FLUSH);
        self.ledger.acknowledged = self.producer.acknowledged();
        Ok(flushed?)
    }

    fn day(&mut self, day: Day, start_us: i64) -> Result<(), Failure> {
        let mut fates = BTreeMap::new();
        for message in day {
            let Message { at_us, feed, tenant, fate, payload } = &message;
            let of_day = at_us - start_us;
            self.progress.time_of_day.store(of_day, Ordering::Relaxed);
            let header = tenant.filter(|_| *feed == Feed::AgentLogs).map(|tenant| tenant.to_string());
            let topic = match feed {
                Feed::AgentLogs => AGENT_LOGS,
                Feed::ThreatEvents => THREAT_EVENTS,
            };
            let due = of_day as f64 / DAY as f64;
            if !self.send(&Line { due, topic, tenant: header.as_deref(), payload })? {
                break;
            }
            *fates.entry(*fate).or_default() += 1;
            if let (Feed::AgentLogs, Fate::Row | Fate::RowAndThreat, Some(tenant)) = (feed, fate, tenant) {
                *self.ledger.rows.entry(*tenant).or_default() += 1;
            }
        }
        self.ledger.fates = Some(fates);
        Ok(())
    }

    fn corpus(&mut self, file: &Path, limit: u64, tenants: &[Tenant]) -> Result<(), Failure> {
        let ids: Vec<String> = tenants.iter().map(|tenant| tenant.id.to_string()).collect();
        // Standard input can't be read twice; then the limit stands for the length.
        let total = if file == Path::new("-") { limit } else { count(file, limit)? };
        let mut lines = open(file)?;
        let mut line = Vec::new();
        while self.ledger.sent < limit {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let payload = line.trim_ascii_end();
            if payload.is_empty() {
                continue;
            }
            let due = self.ledger.sent as f64 / total as f64;
            self.progress.time_of_day.store((due * DAY as f64) as i64, Ordering::Relaxed);
            let tenant = tenant_of(&ids, payload);
            if !self.send(&Line { due, topic: AGENT_LOGS, tenant, payload })? {
                break;
            }
        }
        match self.ledger.sent {
            0 => Err(Failure::new(format!("{} holds no events", file.display()))),
            _ => Ok(()),
        }
    }

    /// Sends one message when it is due and there is room; false if nobody waits for it any more.
    fn send(&mut self, line: &Line<'_>) -> Result<bool, Failure> {
        let due = self.length.mul_f64(line.due);
        while self.started.elapsed() < due || self.progress.under_way() > AHEAD {
            if self.progress.abandoned.load(Ordering::Acquire) {
                return Ok(false);
            }
            std::thread::park_timeout(GLANCE);
        }
        self.producer.send(line.topic, line.payload, line.tenant)?;
        self.ledger.sent += 1;
        self.ledger.fingerprint.add(line.payload);
        self.ledger.bytes += line.payload.len() as u64;
        self.progress.sent_bytes.store(self.ledger.bytes, Ordering::Relaxed);
        self.progress.sent.store(self.ledger.sent, Ordering::Release);
        Ok(true)
    }
}

/// How many lines a file has, up to a limit.
fn count(file: &Path, limit: u64) -> Result<u64, Failure> {
    let mut lines = open(file)?;
    let mut count = 0;
    while count < limit && lines.skip_until(b'\n')? > 0 {
        count += 1;
    }
    Ok(count.max(1))
}
