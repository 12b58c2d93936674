//! One measured phase: a name, a rate, what it used, and what it left on disk.

use serde::Serialize;

use crate::error::Result;
use crate::postgres::Database;
use crate::usage::{Parties, Reading, Usage};

/// What came of a phase.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    pub name: String,
    pub events: u64,
    /// Events per second of wall time; see each phase for when its clock runs.
    pub rate: f64,
    /// The same over the second half of the events, where a rival's warm-up is told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_rate: Option<f64>,
    pub usage: Usage,
    /// CPU of the backends alone, in seconds, where they are ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_cpu: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
}

impl Phase {
    pub fn new(name: &str, events: u64, rate: f64, usage: Usage) -> Self {
        let name = name.to_owned();
        let (backend_cpu, wal_bytes, disk_bytes, peak_memory) = (None, None, None, None);
        Self { name, events, rate, warm_rate: None, usage, backend_cpu, wal_bytes, disk_bytes, peak_memory }
    }

    /// Microseconds per event of so many seconds.
    pub fn micros(&self, seconds: f64) -> f64 {
        seconds * 1e6 / self.events as f64
    }

    pub fn each(&self, total: Option<u64>) -> Option<f64> {
        total.map(|total| total as f64 / self.events as f64)
    }

    /// Says at once what came out, so that a run that fails later has told what it knew.
    pub fn print(&self) {
        let Usage { bench_cpu, contender_cpu, postgres_cpu, kafka_cpu, foreign_share, .. } = self.usage;
        let mut parts = Vec::new();
        let mut cpu = |who: &str, seconds: Option<f64>| {
            if let Some(seconds) = seconds.filter(|seconds| *seconds > 0.0) {
                parts.push(format!("{who} {:.1} µs", self.micros(seconds)));
            }
        };
        cpu("bench", Some(bench_cpu));
        cpu("contender", Some(contender_cpu));
        cpu("PostgreSQL", postgres_cpu);
        cpu("backends", self.backend_cpu);
        cpu("Kafka", kafka_cpu);
        if let (Some(wal), Some(disk)) = (self.each(self.wal_bytes), self.each(self.disk_bytes)) {
            parts.push(format!("WAL {wal:.0} B, disk {disk:.0} B"));
        }
        if let Some(warm) = self.warm_rate {
            parts.push(format!("second half {warm:.0}/s"));
        }
        if let Some(peak) = self.peak_memory {
            parts.push(format!("peak {:.0} MiB", peak as f64 / f64::from(1 << 20)));
        }
        if foreign_share > 0.03 {
            parts.push(format!("DISTURBED: {:.0} % of the CPU went elsewhere", foreign_share * 100.0));
        }
        println!("{:<58} {:>9.0}/s  {}", self.name, self.rate, parts.join(", "));
    }
}

/// Readings at the start of a phase that writes to a database.
pub struct Start {
    reading: Reading,
    wal: u64,
}

impl Start {
    pub async fn take(database: &Database, parties: &Parties) -> Result<Self> {
        let wal = database.wal().await?;
        Ok(Self { reading: parties.read(), wal })
    }

    /// The phase that ends now; its rate is that of all its time unless the caller knows better.
    pub async fn end(
        self,
        name: &str,
        events: u64,
        database: &Database,
        parties: &Parties,
        tables: &[&str],
    ) -> Result<Phase> {
        let usage = parties.since(&self.reading);
        let mut phase = Phase::new(name, events, events as f64 / usage.seconds, usage);
        phase.wal_bytes = Some(database.wal().await? - self.wal);
        let mut disk = 0;
        for table in tables {
            disk += database.size(table).await?;
        }
        phase.disk_bytes = Some(disk);
        Ok(phase)
    }
}
