//! What a user would pick instead, cheap enough to be measured in the same run: the Python consumer of
//! `peers/contender.py`, in one process and in two.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{At, Error, Result, check};
use crate::kafka::Topic;
use crate::limits::Limits;
use crate::phase::{Phase, Start};
use crate::postgres::Database;
use crate::stats::commit_rate;
use crate::usage::{Parties, peak_memory};

/// Exact versions, so that two runs compare.
const PACKAGES: [&str; 3] = ["confluent-kafka==2.12.2", "orjson==3.11.4", "psycopg[binary]==3.2.12"];
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/contender.py");
const LOOK: Duration = Duration::from_millis(50);

/// The git-ignored folder of what is installed to be measured against.
pub fn state() -> PathBuf {
    std::env::var_os("INOSEC_STATE")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.inosec")), PathBuf::from)
}

/// The interpreter with what the contender needs; installed into the state folder if it isn't there.
pub fn python() -> Result<PathBuf> {
    let folder = state().join("peers");
    let python = folder.join("bin/python");
    let mark = folder.join("packages");
    let wanted = PACKAGES.join("\n");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    println!("installing {} into {}", PACKAGES.join(", "), folder.display());
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(PACKAGES))?;
    std::fs::write(&mark, wanted).at("remembering what was installed")?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let name = format!("{command:?}");
    let status = command.status().at(name.clone())?;
    if status.success() { Ok(()) } else { Err(Error::new(format!("{name}: {status}"))) }
}

/// Commits as they are reported: (time since 1970 in seconds, rows).
type Commits = Arc<Mutex<Vec<(f64, u64)>>>;

/// Contenders at work; killed when dropped.
struct Contenders {
    children: Vec<Child>,
    commits: Commits,
}

impl Contenders {
    fn start(python: &Path, topic: &Topic, database: &Database, processes: usize) -> Result<Self> {
        let mut contenders = Self { children: Vec::new(), commits: Commits::default() };
        for process in 0..processes {
            let partitions =
                (0..topic.partitions).filter(|partition| *partition as usize % processes == process);
            let mut child = Command::new(python)
                .args([SCRIPT, &topic.brokers, &topic.name, &database.url])
                .args(partitions.map(|partition| partition.to_string()))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .at("starting the Python contender")?;
            let output = child.stdout.take().at("reading from the Python contender")?;
            contenders.children.push(child);
            let commits = Arc::clone(&contenders.commits);
            std::thread::spawn(move || {
                let lines = BufReader::new(output).lines().map_while(std::io::Result::ok);
                for commit in lines.filter_map(|line| parse(&line)) {
                    commits.lock().unwrap_or_else(PoisonError::into_inner).push(commit);
                }
            });
        }
        Ok(contenders)
    }

    fn committed(&self) -> u64 {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(_, rows)| rows).sum()
    }

    async fn wait(&mut self, events: u64, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.committed() < events {
            if Instant::now() > deadline {
                let done = self.committed();
                return Err(Error::new(format!("Python: {done} of {events} rows within {limit:?}")));
            }
            for child in &mut self.children {
                if let Some(status) = child.try_wait().at("looking after the Python contender")? {
                    return Err(Error::new(format!("the Python contender ended: {status}")));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Rows committed over time, since the first commit of any process.
    fn progress(&self) -> Vec<(Duration, u64)> {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner).clone();
        commits.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let first = commits.first().map_or(0.0, |(at, _)| *at);
        let mut done = 0;
        let sum = |(at, rows): &(f64, u64)| {
            done += rows;
            (Duration::from_secs_f64(at - first), done)
        };
        commits.iter().map(sum).collect()
    }
}

impl Drop for Contenders {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Fails if it has ended, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn parse(line: &str) -> Option<(f64, u64)> {
    let (at, rows) = line.split_once(' ')?;
    Some((at.parse().ok()?, rows.parse().ok()?))
}

/// Runs the topic down; the rate is that from the first commit to the last, as for the road.
pub async fn measure(
    python: &Path,
    topic: &Topic,
    database: &Database,
    parties: &Parties,
    processes: usize,
    events: u64,
    limit: Duration,
) -> Result<Phase> {
    Limits::empty_others(database).await?;
    database.settle().await?;
    let start = Start::take(database, parties).await?;
    let mut contenders = Contenders::start(python, topic, database, processes)?;
    let ids: Vec<u32> = contenders.children.iter().map(Child::id).collect();
    let parties = Parties { contender: ids.first().copied(), second: ids.get(1).copied(), ..*parties };
    contenders.wait(events, limit).await?;
    let name = format!("Python, {processes} process{}, lz4 text", if processes == 1 { "" } else { "es" });
    let mut phase = start.end(&name, events, database, &parties, &["others"]).await?;
    phase.peak_memory = Some(ids.iter().filter_map(|pid| peak_memory(*pid)).sum());
    let rate = commit_rate(&contenders.progress(), events);
    phase.rate = rate.map(|(rate, _)| rate).at("the contender made one commit: use more --events")?;
    drop(contenders);
    check(&name, events, database.number("SELECT count(*) FROM others").await?)?;
    phase.print();
    Ok(phase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_of_several_processes_make_one_progress() {
        let commits = vec![(10.0, 5), (12.0, 5), (11.0, 7)];
        let contenders = Contenders { children: Vec::new(), commits: Arc::new(Mutex::new(commits)) };
        let seconds = |seconds| Duration::from_secs(seconds);
        assert_eq!(contenders.progress(), [(seconds(0), 5), (seconds(1), 12), (seconds(2), 17)]);
        assert_eq!(parse("12.5 5000"), Some((12.5, 5000)));
        assert_eq!(parse("Traceback"), None);
    }
}
