//! A run as JSON for programs and as Markdown for people; the table goes into the README.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use crate::error::{At, Result};
use crate::latency::Latency;
use crate::machine::Machine;
use crate::micro::Micro;
use crate::phase::Phase;
use crate::rivals::Rival;

/// The figure issue 3 asks for: the raw COPY of what others would write, on one connection.
const YARDSTICK: &str = "raw COPY, message as lz4 text, 1 connection";

/// Everything one run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub corpus: String,
    pub partitions: i32,
    pub minutes: f64,
    pub raw: Vec<Phase>,
    pub consume: Phase,
    pub micro: Micro,
    pub rivals: Vec<Phase>,
    /// Why a rival that was asked for isn't among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<String>,
    pub road: Phase,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ruled: Option<Phase>,
    pub delay: Option<Latency>,
    /// From an event to its alert, rules on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alerts: Option<Latency>,
    pub prices: Vec<Phase>,
}

impl Report {
    /// Writes both files and says where.
    pub fn write(&self, out: Option<&Path>) -> Result<()> {
        let named = || Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("runs/{}-e2e", self.machine.date));
        let base = out.map_or_else(named, Path::to_path_buf);
        if let Some(folder) = base.parent() {
            std::fs::create_dir_all(folder).at("making the reports' folder")?;
        }
        let mut document = serde_json::to_value(self).at("writing the report")?;
        document["ratios"] = self.ratios();
        let json = serde_json::to_string_pretty(&document).at("writing the report")?;
        let markdown = self.markdown();
        write(&with_extension(&base, "json"), &(json + "\n"))?;
        write(&with_extension(&base, "md"), &markdown)?;
        println!("\n{markdown}\nwritten to {} and .json", with_extension(&base, "md").display());
        Ok(())
    }

    fn yardstick(&self) -> Option<&Phase> {
        self.raw.iter().find(|phase| phase.name == YARDSTICK)
    }

    /// What the issue asks for, as numbers.
    fn ratios(&self) -> serde_json::Value {
        let yard = self.yardstick();
        let of = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs?);
        let wal = of(self.road.each(self.road.wal_bytes), yard.and_then(|yard| yard.each(yard.wal_bytes)));
        let disk = of(self.road.each(self.road.disk_bytes), yard.and_then(|yard| yard.each(yard.disk_bytes)));
        let rivals = self.rivals.iter().map(|rival| (rival.name.clone(), json!(self.road.rate / rival.rate)));
        json!({
            "decode_to_tape_with_compression": self.micro.ratios().0,
            "decode_to_tape_without_compression": self.micro.ratios().1,
            "road_to_raw_lz4_copy": yard.map(|yard| self.road.rate / yard.rate),
            "wal_to_raw_lz4_copy": wal,
            "disk_to_raw_lz4_copy": disk,
            "road_with_rules_to_road": self.ruled.as_ref().map(|ruled| ruled.rate / self.road.rate),
            "road_to_rivals": rivals.collect::<serde_json::Map<_, _>>(),
        })
    }

    fn markdown(&self) -> String {
        let mut text = format!("# End to end, {}\n\n", self.machine.date);
        self.preamble(&mut text);
        self.throughput(&mut text);
        self.asked(&mut text);
        self.cpu(&mut text);
        self.delays(&mut text);
        self.prices(&mut text);
        text
    }

    fn preamble(&self, text: &mut String) {
        let machine = &self.machine;
        let settings = machine.postgres_settings.iter().map(|(name, value)| format!("{name} {value}"));
        let _ = writeln!(text, "Machine: {}.\n", machine.summary());
        let _ = writeln!(text, "PostgreSQL: {}.\n", settings.collect::<Vec<_>>().join(", "));
        let _ = writeln!(
            text,
            "Input: {}, mean {:.0} bytes, repeated to {} events in an lz4 topic of {} partitions. \
             Revision {} (`+`: with uncommitted changes), {:.0} minutes:\n\n```\n{}\n```\n",
            self.corpus,
            self.micro.mean_bytes,
            self.road.events,
            self.partitions,
            machine.revision,
            self.minutes,
            machine.command
        );
        if !machine.overrides.is_empty() {
            let _ = writeln!(text, "Not the defaults: {}.\n", machine.overrides.join(", "));
        }
    }

    fn throughput(&self, text: &mut String) {
        text.push_str(
            "| | events/s | of raw lz4 COPY | own CPU µs | PostgreSQL CPU µs | Kafka CPU µs | WAL B | disk B | peak MiB |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        );
        let road = std::iter::once(&self.road).chain(&self.ruled);
        for phase in self.raw.iter().chain([&self.consume]).chain(&self.rivals).chain(road) {
            let own = if phase.usage.contender_cpu > 0.0 {
                phase.usage.contender_cpu
            } else {
                phase.usage.bench_cpu
            };
            let ratio = self.yardstick().map(|yard| phase.rate / yard.rate);
            let name =
                if phase.name == self.road.name { format!("**{}**", phase.name) } else { phase.name.clone() };
            let idle = phase.wal_bytes.is_none();
            let _ = writeln!(
                text,
                "| {name}{} | {:.0} | {} | {:.1} | {} | {} | {} | {} | {} |",
                disturbed(phase),
                phase.rate,
                optional(ratio.filter(|_| !idle), 2),
                phase.micros(own),
                optional(phase.usage.postgres_cpu.filter(|_| !idle).map(|cpu| phase.micros(cpu)), 1),
                optional(phase.usage.kafka_cpu.map(|cpu| phase.micros(cpu)).filter(|cpu| *cpu >= 0.05), 1),
                optional(phase.each(phase.wal_bytes), 0),
                optional(phase.each(phase.disk_bytes), 0),
                optional(phase.peak_memory.map(|bytes| bytes as f64 / f64::from(1 << 20)), 0),
            );
        }
        text.push_str(
            "\nAll columns per event but the first two and the last. Own CPU is the client's: the benchmark's for \
             raw COPY and reading, the contender's otherwise. The rate of the road and of rivals is that from the \
             first commit to the last, CPU counts from the start of the process. A raw limit is the better of two \
             runs. Rows + dead letters = events was checked after each phase.\n",
        );
        let phases = self
            .raw
            .iter()
            .chain(&self.rivals)
            .chain([&self.consume, &self.road])
            .chain(&self.ruled)
            .chain(&self.prices);
        if phases.into_iter().any(|phase| !disturbed(phase).is_empty()) {
            text.push_str("\\* more than 3 % of the machine's CPU went to other processes meanwhile.\n");
        }
        text.push('\n');
    }

    fn asked(&self, text: &mut String) {
        let ratios = self.ratios();
        let number = |key: &str| optional(ratios[key].as_f64(), 2);
        text.push_str("| asked | reached |\n| --- | ---: |\n");
        for (asked, key) in [
            (
                "decode + compress + encode ≥ 0.35 of simd-json's tape-only rate",
                "decode_to_tape_with_compression",
            ),
            ("the same without compression ≥ 0.55", "decode_to_tape_without_compression"),
            ("road ≥ 1.0 of one raw COPY as lz4 text (aim 1.3)", "road_to_raw_lz4_copy"),
            ("WAL ≤ 0.3 of it", "wal_to_raw_lz4_copy"),
            ("disk ≤ 0.3 of it", "disk_to_raw_lz4_copy"),
            ("rules on, of the road without", "road_with_rules_to_road"),
        ] {
            let _ = writeln!(text, "| {asked} | {} |", number(key));
        }
        for rival in &self.rivals {
            let known = Rival::ALL.into_iter().find(|known| known.name() == rival.name);
            let asked = known.map_or_else(String::new, |known| format!(" ≥ {:.0}", known.factor()));
            let warm =
                rival.warm_rate.map(|warm| format!(" ({:.2} of its second half)", self.road.rate / warm));
            let ratio = self.road.rate / rival.rate;
            let _ = writeln!(
                text,
                "| road against {}{asked} | {ratio:.2}{} |",
                rival.name,
                warm.unwrap_or_default()
            );
        }
        text.push('\n');
        for why in &self.absent {
            let _ = writeln!(text, "Not measured: {}.\n", why.lines().next().unwrap_or_default());
        }
    }

    fn cpu(&self, text: &mut String) {
        let micro = &self.micro;
        text.push_str("| one thread, per event | CPU µs | events/s |\n| --- | ---: | ---: |\n");
        for (name, cost) in [
            ("simd-json tape only, in place", micro.tape),
            ("simd-json tape with the copy that keeps the message", micro.tape_copied),
            ("zstd of the blocks only", micro.zstd),
            ("decode", micro.decode),
            ("seal (order, counts, blocks, zstd, COPY encoding)", micro.seal),
            ("decode + compress + encode", micro.whole),
            ("decode + encode, without compression", micro.uncompressed),
        ] {
            let _ = writeln!(text, "| {name} | {:.2} | {:.0} |", cost.cpu_us, cost.rate());
        }
        let _ = writeln!(
            text,
            "\nMedians of {} interleaved passes over {} events; COPY data per event: rows {:.0} B, blocks {:.0} B \
             (from {:.0} B, {:.0} events a block).\n",
            micro.passes,
            micro.events,
            micro.row_bytes,
            micro.block_bytes,
            micro.plain_bytes,
            micro.events_per_block
        );
    }

    fn delays(&self, text: &mut String) {
        if let Some(delay) = &self.delay {
            let what = "to the commit, seen from outside, at half the road's rate";
            let _ = writeln!(text, "Delay from the producer's call {what}: {}.\n", delay.text());
        }
        if let Some(delay) = &self.alerts {
            let what = "to the alert in `alert_changes`, at half the rate with rules on";
            let _ = writeln!(text, "Delay from the producer's call {what}: {}.\n", delay.text());
        }
        text.push_str(
            "Timed after five seconds of the same load. The producer lingers 20 ms; a batch waits up to 250 ms for \
             its fill; producer and broker take their part of the same two cores.\n\n",
        );
    }

    fn prices(&self, text: &mut String) {
        text.push_str(
            "| price of an index, 1 connection | backend CPU µs/row | WAL B/row | disk B/row |\n\
             | --- | ---: | ---: | ---: |\n",
        );
        for phase in &self.prices {
            let _ = writeln!(
                text,
                "| {}{} | {} | {} | {} |",
                phase.name,
                disturbed(phase),
                optional(phase.backend_cpu.map(|cpu| phase.micros(cpu)), 2),
                optional(phase.each(phase.wal_bytes), 0),
                optional(phase.each(phase.disk_bytes), 0),
            );
        }
    }
}

/// Marks a phase whose wall time was not its own.
fn disturbed(phase: &Phase) -> &'static str {
    if phase.usage.foreign_share > 0.03 { " \\*" } else { "" }
}

fn optional(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// Appends rather than replaces: a date may be followed by a point.
fn with_extension(base: &Path, extension: &str) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).at(format!("writing {}", path.display()))
}
