//! Delay at half the road's rate: from the producer's call to the commit, seen from outside.
//!
//! One event in sixteen is timed. An event and the offset behind it become visible in one transaction,
//! so looking at the offsets every few milliseconds tells when each timed event could first be read;
//! what the look itself takes is part of the result. inosec's own histogram stands beside it.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use crate::corpus::Corpus;
use crate::error::{At, Error, Result};
use crate::kafka::{Producer, Sent, Topic};
use crate::postgres::{Database, connect};
use crate::road::Inosec;
use crate::stats::{bucket, delays, percentile, since};

/// Between two looks at the offsets.
const LOOK: Duration = Duration::from_millis(3);
/// The producer's own wait for a fuller request, part of the delay. Producer and broker share the machine: with
/// five milliseconds their small requests took more of it than the road.
pub const LINGER: Duration = Duration::from_millis(20);
/// The load stands for this long before anything is timed: what the first requests meet is the broker's
/// compiler, and what fetching begins with.
pub const WARM_UP: Duration = Duration::from_secs(5);
/// After the last event was sent, how long the last commit may take.
pub const REST: Duration = Duration::from_secs(30);

/// Delays in seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// Events per second asked for, and sent.
    pub wanted_rate: f64,
    pub rate: f64,
    pub events: u64,
    pub timed: usize,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    /// Bounds from inosec's own histogram: the bucket that holds the percentile ends here.
    pub own_p50_below: Option<f64>,
    pub own_p99_below: Option<f64>,
}

impl Latency {
    pub fn new(wanted_rate: f64, events: u64, took: Duration, delays: &[f64]) -> Self {
        Self {
            wanted_rate,
            rate: events as f64 / took.as_secs_f64().max(1e-3),
            events,
            timed: delays.len(),
            p50: percentile(delays, 0.5),
            p90: percentile(delays, 0.9),
            p99: percentile(delays, 0.99),
            p999: percentile(delays, 0.999),
            max: percentile(delays, 1.0),
            own_p50_below: None,
            own_p99_below: None,
        }
    }

    pub fn text(&self) -> String {
        let Self { rate, events, timed, p50, p90, p99, p999, max, .. } = self;
        let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(|seconds| seconds * 1e3);
        format!(
            "{rate:.0} events/s, {timed} of {events} timed: p50 {p50:.0} ms, p90 {p90:.0} ms, p99 {p99:.0} ms, \
             p99.9 {p999:.0} ms, max {max:.0} ms"
        )
    }

    pub fn print(&self) {
        println!("delay at {}", self.text());
        if let (Some(p50), Some(p99)) = (self.own_p50_below, self.own_p99_below) {
            println!("  inosec's own histogram: p50 below {p50} s, p99 below {p99} s");
        }
    }
}

/// Committed offsets by partition.
type Offsets = Vec<i64>;

/// Sends at `rate` for `seconds` and follows the events into the table.
pub async fn measure(
    topic: &Topic,
    corpus: &Corpus,
    database: &Database,
    inosec: &mut Inosec,
    rate: f64,
    seconds: u64,
) -> Result<Latency> {
    let name = inosec_sink::metrics::DELAY_SECONDS;
    let before = inosec.histogram(name)?;
    let origin = Instant::now();
    let (stop, stopped) = watch::channel(None);
    // On another thread of the runtime, while the sending blocks this one.
    let looking = tokio::spawn(look(database.url.clone(), topic.name.clone(), origin, stopped));
    let sending = || {
        let mut producer = Producer::new(topic, corpus, LINGER)?;
        producer.started = origin;
        let took = send(&mut producer, rate, seconds, |_| Ok(()))?;
        let events = producer.sent() as u64;
        Ok((producer.finish()?, events, took))
    };
    let sent: Result<(Vec<Sent>, u64, Duration)> = tokio::task::block_in_place(sending);
    // The looking ends by itself once all of them are there; if it failed, it says so below.
    let _ = stop.send(Some(sent.as_ref().map_or(0, |(_, events, _)| *events)));
    let (sent, events, took) = sent?;
    let looks = looking.await.at("looking at the offsets")??;
    inosec.alive()?;
    let filled = since(&before, &inosec.histogram(name)?);
    let seen = |event: &Sent, offsets: &Offsets| offsets[event.partition as usize] > event.offset;
    let warm = sent.iter().filter(|sent| sent.at >= WARM_UP);
    let timed: Vec<(Duration, Sent)> = warm.map(|sent| (sent.at, *sent)).collect();
    let delays: Option<Vec<f64>> = delays(&timed, &looks, seen).into_iter().collect();
    let delays = delays.at("a timed event was never seen")?;
    let own = |share| bucket(&filled, share);
    let (own_p50_below, own_p99_below) = (own(0.5), own(0.99));
    Ok(Latency { own_p50_below, own_p99_below, ..Latency::new(rate, events, took, &delays) })
}

/// Sends the corpus at a rate, after a warm-up for so many seconds, and whatever else is to be sent meanwhile;
/// how long it took.
pub fn send(
    producer: &mut Producer<'_>,
    rate: f64,
    seconds: u64,
    mut also: impl FnMut(&mut Producer<'_>) -> Result<()>,
) -> Result<Duration> {
    // Connecting is not what is measured.
    let begin = Instant::now();
    while begin.elapsed() < WARM_UP + Duration::from_secs(seconds) {
        let due = (begin.elapsed().as_secs_f64() * rate) as usize;
        while producer.sent() < due {
            producer.send()?;
        }
        also(producer)?;
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(begin.elapsed())
}

/// Looks until the offsets have moved by what was sent.
async fn look(
    url: String,
    topic: String,
    origin: Instant,
    stopped: watch::Receiver<Option<u64>>,
) -> Result<Vec<(Duration, Offsets)>> {
    let client = connect(&url).await?;
    let sql = "SELECT array_agg(next_offset ORDER BY partition) FROM inosec.ingest_offsets WHERE topic = $1";
    let statement = client.prepare(sql).await.at("preparing to look at the offsets")?;
    let mut looks: Vec<(Duration, Offsets)> = Vec::new();
    let mut deadline = None;
    loop {
        let row = client.query_one(&statement, &[&topic]).await.at("looking at the offsets")?;
        let offsets: Offsets = row.get::<_, Option<Vec<i64>>>(0).at("no partition was started")?;
        looks.push((origin.elapsed(), offsets));
        let moved =
            |(first, last): (&Offsets, &Offsets)| last.iter().sum::<i64>() - first.iter().sum::<i64>();
        let ends = (&looks[0].1, &looks[looks.len() - 1].1);
        if let Some(sent) = *stopped.borrow() {
            if moved(ends).unsigned_abs() >= sent {
                return Ok(looks);
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + REST);
            if Instant::now() > deadline {
                return Err(Error::new(format!("{} of {sent} events stored after {REST:?}", moved(ends))));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
