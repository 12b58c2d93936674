//! Where and on what a run was made.

use std::process::Command;

use serde::Serialize;

use crate::error::Result;
use crate::postgres::Database;
use crate::usage::{Parties, cores};

/// The facts a result is worth nothing without.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub processor: String,
    pub memory_gib: f64,
    pub kernel: String,
    pub postgres: String,
    pub timescaledb: String,
    /// Settings that decide what a commit costs.
    pub postgres_settings: Vec<(String, String)>,
    pub kafka: String,
    pub librdkafka: String,
    pub zstd: String,
    /// The commit, with `+` if files were changed since.
    pub revision: String,
    pub date: String,
    pub command: String,
    /// `INOSEC__…` variables, which change inosec's configuration.
    pub overrides: Vec<String>,
}

const SETTINGS: [&str; 6] =
    ["shared_buffers", "max_wal_size", "fsync", "synchronous_commit", "full_page_writes", "wal_compression"];

impl Machine {
    pub async fn describe(database: &Database, parties: &Parties) -> Result<Self> {
        let mut postgres_settings = Vec::new();
        for setting in SETTINGS {
            let value = database.text(&format!("SELECT current_setting('{setting}')")).await?;
            postgres_settings.push((setting.to_owned(), value));
        }
        Ok(Self {
            cores: cores(),
            processor: line("/proc/cpuinfo", "model name").unwrap_or_default(),
            memory_gib: memory(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            postgres: database.text("SELECT current_setting('server_version')").await?,
            timescaledb: database
                .text("SELECT max(extversion) FROM pg_extension WHERE extname = 'timescaledb'")
                .await?,
            postgres_settings,
            kafka: parties.kafka.and_then(kafka_version).unwrap_or_else(|| "unknown".to_owned()),
            librdkafka: rdkafka::util::get_rdkafka_version().1,
            zstd: zstd::zstd_safe::version_string().to_owned(),
            revision: revision(),
            date: inosec_date(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            overrides: overrides(),
        })
    }

    pub fn summary(&self) -> String {
        format!(
            "{} × {}, {:.0} GiB, Linux {}; PostgreSQL {}, TimescaleDB {}, Kafka {}, librdkafka {}, zstd {}; \
             broker, database and client share the machine",
            self.cores,
            self.processor,
            self.memory_gib,
            self.kernel,
            self.postgres,
            self.timescaledb,
            self.kafka,
            self.librdkafka,
            self.zstd
        )
    }
}

/// The machine alone, for runs without servers.
pub fn host() -> String {
    let processor = line("/proc/cpuinfo", "model name").unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} × {processor}, {:.0} GiB, Linux {}", cores(), memory(), kernel.trim())
}

/// Today, UTC.
pub fn inosec_date() -> String {
    jiff::Timestamp::from_microsecond(inosec::databases::now())
        .map_or_else(|_| String::new(), |now| now.strftime("%Y-%m-%d").to_string())
}

fn line(file: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory() -> f64 {
    let kib = line("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / f64::from(1 << 20)
}

/// The broker doesn't tell clients its version; its class path does.
fn kafka_version(pid: u32) -> Option<String> {
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let tail = command
        .split("kafka-")
        .skip(1)
        .find(|tail| tail.starts_with(|first: char| first.is_ascii_digit()))?;
    Some(tail.chars().take_while(|next| next.is_ascii_digit() || *next == '.').collect())
}

/// The commit, with `+` if files were changed since.
pub fn revision() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let changed =
        git(&["status", "--porcelain", "--untracked-files=all"]).is_some_and(|status| !status.is_empty());
    if changed { format!("{commit}+") } else { commit }
}

fn overrides() -> Vec<String> {
    // A password may stand in one of them.
    let shown = |name: &String| !["URL", "PASSWORD", "KEY", "SECRET"].iter().any(|word| name.contains(word));
    let names = std::env::vars().filter(|(name, _)| name.starts_with("INOSEC__"));
    let mut overrides: Vec<String> =
        names.map(|(name, value)| if shown(&name) { format!("{name}={value}") } else { name }).collect();
    overrides.sort();
    overrides
}
