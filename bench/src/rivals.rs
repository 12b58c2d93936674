//! What a user would install instead, beside the road in the same run: Kafka Connect with Debezium's JDBC
//! sink, Benthos, rsyslog. `rivals/install` fetches them, the files beside it configure them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::error::{At, Error, Result, check};
use crate::kafka::Topic;
use crate::limits::Limits;
use crate::peers::state;
use crate::phase::{Phase, Start};
use crate::postgres::Database;
use crate::road::free_port;
use crate::stats::commit_rate;
use crate::usage::{Parties, peak_memory};

const INSTALL: &str = "bench/rivals/install";
const LOOK: Duration = Duration::from_millis(50);
/// A backend reports its rows once a second: after so long without news, they are counted.
const QUIET: Duration = Duration::from_secs(2);
/// A rival that writes nothing for so long has failed: Connect outlives its tasks, Benthos tries again for ever.
const STALL: Duration = Duration::from_secs(60);
/// Connect waits for its tasks, rsyslog for its queue; neither owes us anything.
const STOP: Duration = Duration::from_secs(10);

/// Rows that committed transactions have inserted: an estimate that costs next to nothing.
const INSERTED: &str = "SELECT coalesce(sum(pg_stat_get_tuples_inserted(inhrelid)), 0)::int8
    FROM pg_inherits WHERE inhparent = 'others'::regclass";
const COUNT: &str = "SELECT count(*) FROM others";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    Connect,
    Benthos,
    Rsyslog,
}

impl Rival {
    pub const ALL: [Self; 3] = [Self::Connect, Self::Benthos, Self::Rsyslog];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "Kafka Connect, Debezium JDBC sink",
            Self::Benthos => "Benthos, sql_insert",
            Self::Rsyslog => "rsyslog, imkafka and ompgsql",
        }
    }

    /// The road's rate over this rival's that issue 3 asks for.
    pub const fn factor(self) -> f64 {
        match self {
            Self::Connect => 3.0,
            Self::Benthos => 4.0,
            Self::Rsyslog => 9.0,
        }
    }

    const fn folder(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Benthos => "benthos",
            Self::Rsyslog => "rsyslog",
        }
    }

    /// Its configuration, by file name.
    const fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Connect => &[
                ("connect-worker.properties", include_str!("../rivals/connect-worker.properties")),
                ("connect-sink.properties", include_str!("../rivals/connect-sink.properties")),
            ],
            Self::Benthos => &[("benthos.yaml", include_str!("../rivals/benthos.yaml"))],
            Self::Rsyslog => &[("rsyslog.conf", include_str!("../rivals/rsyslog.conf"))],
        }
    }

    fn installed(self) -> PathBuf {
        state().join("rivals").join(self.folder())
    }

    /// What keeps it from running, if anything does.
    pub fn missing(self) -> Option<String> {
        let folder = self.installed();
        let advice = || format!("{} is not installed: {INSTALL} {}", self.name(), self.folder());
        if !folder.join(".complete").exists() {
            return Some(advice());
        }
        (self == Self::Connect && broker_jars().is_none())
            .then(|| format!("{}: the broker's jars are missing: make services-up", self.name()))
    }

    /// The program that reads the configuration in `folder`.
    fn command(self, folder: &Path) -> Result<Command> {
        let installed = self.installed();
        let mut command = match self {
            Self::Connect => {
                let jars = broker_jars().at("the broker's jars are missing: make services-up")?;
                let mut java = Command::new("java");
                java.args([
                    "-Xms256m",
                    "-Xmx2g",
                    "-XX:+UseParallelGC",
                    "-Dorg.apache.logging.log4j.level=WARN",
                ]);
                java.arg("-cp").arg(jars.join("*")).arg("org.apache.kafka.connect.cli.ConnectStandalone");
                java
            }
            Self::Benthos => {
                let mut benthos = Command::new(installed.join("benthos"));
                benthos.env("GOGC", "400").arg("-c");
                benthos
            }
            Self::Rsyslog => {
                let libraries = installed.join("usr/lib").join(libraries());
                let mut rsyslog = Command::new(installed.join("usr/sbin/rsyslogd"));
                rsyslog.env("LD_LIBRARY_PATH", &libraries).arg("-M").arg(libraries.join("rsyslog"));
                rsyslog.args(["-n", "-iNONE", "-f"]);
                rsyslog
            }
        };
        command.args(self.files().iter().map(|(name, _)| folder.join(name)));
        Ok(command)
    }
}

/// Debian's name of this machine's libraries.
fn libraries() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

/// Connect's own classes come with the broker that deploy/local/services installs.
fn broker_jars() -> Option<PathBuf> {
    let folders = std::fs::read_dir(state()).ok()?.flatten().map(|entry| entry.path());
    let mut kafkas = folders.filter(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("kafka-"))
    });
    kafkas.find(|path| path.join(".complete").exists())
}

/// A rival at work; stopped when dropped.
struct Running {
    rival: Rival,
    child: Child,
    folder: PathBuf,
}

impl Running {
    fn start(rival: Rival, topic: &Topic, database: &Database) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("inosec-bench-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).at("making a folder")?;
        let words = words(rival, topic, database, &folder)?;
        for (name, text) in rival.files() {
            std::fs::write(folder.join(name), fill(text, &words)).at("writing a rival's configuration")?;
        }
        let log = std::fs::File::create(folder.join("log")).at("making a log")?;
        let errors = log.try_clone().at("making a log")?;
        let mut command = rival.command(&folder)?;
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().at(rival.name())?;
        Ok(Self { rival, child, folder })
    }

    fn fault(&self, what: &str) -> Error {
        let text = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let last = text.lines().count().saturating_sub(20);
        let log: Vec<&str> = text.lines().skip(last).collect();
        Error::new(format!("{}: {what}:\n{}", self.rival.name(), log.join("\n")))
    }

    /// Rows over time, as PostgreSQL's statistics tell them, until all are counted.
    async fn watch(
        &mut self,
        database: &Database,
        before: u64,
        events: u64,
        limit: Duration,
    ) -> Result<Vec<(Duration, u64)>> {
        let started = Instant::now();
        let (mut news, mut counted) = (started, started);
        let mut looks: Vec<(Duration, u64)> = Vec::new();
        loop {
            let rows = database.number(INSERTED).await?.saturating_sub(before);
            if looks.last().map_or(0, |(_, known)| *known) < rows {
                news = Instant::now();
                looks.push((started.elapsed(), rows));
            }
            if !looks.is_empty() && news.max(counted).elapsed() > QUIET {
                if database.number(COUNT).await? >= events {
                    return Ok(looks);
                }
                counted = Instant::now();
            }
            if let Some(status) = self.child.try_wait().at("looking after a rival")? {
                return Err(self.fault(&format!("ended with {status}")));
            }
            if started.elapsed() > limit || news.elapsed() > STALL {
                return Err(self.fault(&format!("{rows} of {events} rows, no news for {:?}", news.elapsed())));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // All of this fails if it has ended, which is what is wanted.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::park_timeout(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What the configurations leave open.
fn words(
    rival: Rival,
    topic: &Topic,
    database: &Database,
    folder: &Path,
) -> Result<Vec<(&'static str, String)>> {
    let config = Config::from_str(&database.url).at("reading the database's URL")?;
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        _ => return Err(Error::new("rivals need the database's address, not a socket")),
    };
    // None of them takes an empty password, and a server that trusts doesn't look at it.
    let password = config.get_password().unwrap_or(b"none");
    Ok(vec![
        ("{brokers}", topic.brokers.clone()),
        ("{topic}", topic.name.clone()),
        ("{host}", host),
        ("{port}", database.port.to_string()),
        ("{database}", config.get_dbname().unwrap_or_default().to_owned()),
        ("{user}", config.get_user().unwrap_or_default().to_owned()),
        ("{password}", String::from_utf8_lossy(password).into_owned()),
        ("{folder}", folder.display().to_string()),
        ("{installed}", rival.installed().display().to_string()),
        ("{free_port}", free_port()?.to_string()),
    ])
}

fn fill(text: &str, words: &[(&str, String)]) -> String {
    words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
}

/// Runs the topic down with a rival, into a table of its own.
pub async fn measure(
    rival: Rival,
    topic: &Topic,
    database: &Database,
    parties: &Parties,
    events: u64,
    limit: Duration,
) -> Result<Phase> {
    Limits::empty_others(database).await?;
    database.settle().await?;
    let inserted = database.number(INSERTED).await?;
    let start = Start::take(database, parties).await?;
    let mut running = Running::start(rival, topic, database)?;
    let parties = Parties { contender: Some(running.child.id()), ..*parties };
    let looks = running.watch(database, inserted, events, limit).await?;
    let mut phase = start.end(rival.name(), events, database, &parties, &["others"]).await?;
    phase.peak_memory = peak_memory(running.child.id());
    tokio::task::block_in_place(|| drop(running));
    let last = looks.last().map_or(0, |(_, rows)| *rows);
    let second = looks.partition_point(|(_, rows)| *rows < last / 2);
    let rate = |looks| commit_rate(looks, last).map(|(rate, _)| rate);
    phase.rate = rate(&looks).at("the rival was over at the first look: use more --events")?;
    phase.warm_rate = rate(&looks[second..]);
    check(rival.name(), events, database.number(COUNT).await?)?;
    phase.print();
    Ok(phase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_open_in_a_configuration() {
        let topic = ["{brokers}", "{topic}", "{host}", "{port}", "{database}", "{user}", "{password}"];
        let words: Vec<(&str, String)> = topic
            .into_iter()
            .chain(["{folder}", "{installed}", "{free_port}"])
            .map(|word| (word, "filled".to_owned()))
            .collect();
        for (name, text) in Rival::ALL.iter().flat_map(|rival| rival.files()) {
            let filled = fill(text, &words);
            let lines = filled.lines().filter(|line| !line.trim_start().starts_with('#'));
            let open: Vec<&str> = lines.filter(|line| line.contains('{') && line.contains('}')).collect();
            assert!(open.is_empty() && filled.contains("filled"), "{name}: {open:?}");
        }
    }
}
