//! The road itself: `inosec run` as a child process, watched through the database it writes to.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{At, Error, Result, check};
use crate::kafka::Topic;
use crate::phase::{Phase, Start};
use crate::postgres::{Database, connect};
use crate::stats::commit_rate;
use crate::usage::{Parties, peak_memory};

/// Between two looks at the offsets.
const LOOK: Duration = Duration::from_millis(20);
/// How long a process may take to say that it is ready, and to stop.
const READY: Duration = Duration::from_secs(60);

/// A running `inosec run`; killed when dropped.
pub struct Inosec {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Inosec {
    /// Starts the release binary on this topic and database, with these detection rules.
    pub fn start(topic: &Topic, database: &Database, rules: &[PathBuf]) -> Result<Self> {
        let binary = binary()?;
        let folder = std::env::temp_dir().join(format!("inosec-bench-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).at("making a folder")?;
        let config = folder.join("inosec.toml");
        let port = free_port()?;
        let mut text = format!(
            "[kafka]\nbrokers = {:?}\ngroup = {:?}\n\n[[topics]]\nname = {:?}\nstream = \"agent_logs\"\n\
             tenant = \"header\"\n\n[databases.main]\nurl = {:?}\n\n[metrics]\nlisten = \"127.0.0.1:{port}\"\n",
            topic.brokers, topic.name, topic.name, database.url
        );
        if !rules.is_empty() {
            let _ = writeln!(text, "\n[rules]\npaths = {rules:?}");
        }
        std::fs::write(&config, text).at("writing a configuration")?;
        let log = std::fs::File::create(folder.join("log")).at("making a log")?;
        let mut command = Command::new(&binary);
        command.arg("-c").arg(&config).arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().at(format!("starting {}", binary.display()))?;
        Ok(Self { child, folder, port })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails, with the end of its log, if the process is gone.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait().at("looking after inosec")? {
            None => Ok(()),
            Some(status) => Err(Error::new(format!("inosec ended ({status}):\n{}", self.log()))),
        }
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let last: Vec<&str> = text.lines().rev().take(20).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The cumulative buckets of a histogram, summed over its labels.
    pub fn histogram(&self, name: &str) -> Result<Vec<(f64, u64)>> {
        Ok(read_histogram(&self.scrape().at("scraping inosec's metrics")?, name))
    }

    /// What its own metrics say about where the time went: not measured, only told.
    pub fn tell(&self) -> Result<()> {
        let scrape = self.scrape().at("scraping inosec's metrics")?;
        let committed = sum(&scrape, inosec_sink::metrics::TRANSACTIONS, "outcome=\"committed\"");
        let rows = sum(&scrape, inosec_sink::metrics::ROWS, "agent_logs");
        let seconds = sum(&scrape, &format!("{}_sum", inosec_sink::metrics::COMMIT_SECONDS), "");
        let closed = ["rows", "bytes", "age", "stop", "memory"].map(|reason| {
            let batches = sum(&scrape, inosec_ingest::metrics::BATCHES, &format!("reason=\"{reason}\""));
            (batches > 0.0).then(|| format!("{batches:.0} by {reason}"))
        });
        println!(
            "  its own metrics: {committed:.0} transactions of {:.0} rows, {:.0} ms each; batches closed: {}",
            rows / committed,
            seconds * 1e3 / committed,
            closed.into_iter().flatten().collect::<Vec<_>>().join(", ")
        );
        Ok(())
    }

    fn scrape(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: inosec\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// SIGTERM; everything it read is stored before it ends.
    pub fn stop(&mut self) -> Result<()> {
        let pid = self.pid().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().at("stopping inosec")?;
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().at("stopping inosec")? {
                let failed = || Error::new(format!("inosec ended with {status}:\n{}", self.log()));
                return if status.success() { Ok(()) } else { Err(failed()) };
            }
            std::thread::park_timeout(LOOK);
        }
        Err(Error::new(format!("inosec doesn't stop:\n{}", self.log())))
    }
}

impl Drop for Inosec {
    fn drop(&mut self) {
        // All of this fails if it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Beside this program, where `cargo build --release` puts it.
fn binary() -> Result<PathBuf> {
    let ours = std::env::current_exe().at("finding this program")?;
    let binary = ours.with_file_name("inosec");
    if binary.exists() {
        return Ok(binary);
    }
    let advice = "cargo build --release --bin inosec";
    Err(Error::new(format!("{} is missing: {advice}", binary.display())))
}

pub fn free_port() -> Result<u16> {
    let socket = TcpListener::bind("127.0.0.1:0").at("finding a free port")?;
    Ok(socket.local_addr().at("finding a free port")?.port())
}

fn read_histogram(scrape: &str, name: &str) -> Vec<(f64, u64)> {
    let mut buckets: Vec<(f64, u64)> = Vec::new();
    let lines = scrape.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix("_bucket{"));
    for line in lines {
        let bound = line.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
        let count = line.rsplit(' ').next().and_then(|count| count.parse().ok());
        let (Some(bound), Some(count)) = (bound.and_then(|bound| bound.parse::<f64>().ok()), count) else {
            continue;
        };
        match buckets.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, sum)) => *sum += count,
            None => buckets.push((bound, count)),
        }
    }
    buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    buckets
}

/// The sum of a metric's series whose labels hold `label`.
fn sum(scrape: &str, name: &str, label: &str) -> f64 {
    let of_name = |rest: &&str| rest.starts_with(['{', ' ']) && rest.contains(label);
    let series = scrape.lines().filter_map(|line| line.strip_prefix(name)).filter(of_name);
    series.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// How many messages have been consumed and committed.
const CONSUMED: &str = "SELECT coalesce(sum(next_offset), 0)::int8 FROM inosec.ingest_offsets";

/// Looks at the offsets until `total` events are committed.
async fn watch(
    inosec: &mut Inosec,
    database: &Database,
    total: u64,
    limit: Duration,
) -> Result<Vec<(Duration, u64)>> {
    let client = connect(&database.url).await?;
    let statement = client.prepare(CONSUMED).await.at("watching the offsets")?;
    let started = Instant::now();
    let mut looks = Vec::new();
    loop {
        let row = client.query_one(&statement, &[]).await.at("watching the offsets")?;
        let done = row.get::<_, i64>(0).unsigned_abs();
        looks.push((started.elapsed(), done));
        if done >= total {
            return Ok(looks);
        }
        if started.elapsed() > limit {
            return Err(Error::new(format!(
                "the road: {done} of {total} events within {limit:?}:\n{}",
                inosec.log()
            )));
        }
        inosec.alive()?;
        tokio::time::sleep(LOOK).await;
    }
}

/// Runs the preloaded topic down. The rate is that from the first commit to the last; CPU time counts
/// from the start of the process.
pub async fn run(
    topic: &Topic,
    database: &Database,
    parties: &mut Parties,
    events: u64,
    limit: Duration,
    rules: &[PathBuf],
) -> Result<(Inosec, Phase)> {
    database.empty(&[]).await?;
    database.settle().await?;
    let name = if rules.is_empty() { "inosec, Kafka to hypertable" } else { "inosec, detection rules on" };
    let before = Start::take(database, parties).await?;
    let mut inosec = Inosec::start(topic, database, rules)?;
    parties.contender = Some(inosec.pid());
    let looks = watch(&mut inosec, database, events, limit).await?;
    let tables = ["inosec.agent_logs", "inosec.raw_blocks"];
    let mut phase = before.end(name, events, database, parties, &tables).await?;
    phase.peak_memory = peak_memory(inosec.pid());
    let rate = commit_rate(&looks, events);
    phase.rate = rate.map(|(rate, _)| rate).at("the road was over at the first look: use more --events")?;
    phase.print();
    inosec.tell()?;
    counts(database, events).await?;
    Ok((inosec, phase))
}

/// Every event is a row or a dead letter, and every row's message is in a block.
pub async fn counts(database: &Database, events: u64) -> Result<(u64, u64)> {
    let rows = database.number("SELECT count(*) FROM inosec.agent_logs").await?;
    let dead = database.number("SELECT count(*) FROM inosec.dead_letters").await?;
    let kept = database.number("SELECT coalesce(sum(events), 0)::int8 FROM inosec.raw_blocks").await?;
    let counted =
        "SELECT coalesce(sum(events), 0)::int8 FROM inosec.event_counts WHERE stream = 'agent_logs'";
    check("rows and dead letters of the road", events, rows + dead)?;
    check("messages in the road's raw blocks", rows, kept)?;
    check("event_counts", rows, database.number(counted).await?)?;
    Ok((rows, dead))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_summed_over_labels() {
        let scrape = "# TYPE delay_seconds histogram\n\
            delay_seconds_bucket{le=\"0.1\"} 4\n\
            delay_seconds_bucket{stream=\"a\",le=\"0.1\"} 2\n\
            delay_seconds_bucket{le=\"+Inf\"} 9\n\
            delay_seconds_sum 3\n\
            other_delay_seconds_bucket{le=\"0.1\"} 7\n";
        assert_eq!(read_histogram(scrape, "delay_seconds"), [(0.1, 6), (f64::INFINITY, 9)]);
        assert_eq!(sum(scrape, "delay_seconds_sum", ""), 3.0);
        assert_eq!(sum(scrape, "delay_seconds_bucket", "stream=\"a\""), 2.0);
    }
}
