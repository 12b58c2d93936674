//! `inosec replay`: the lines of a file become Kafka messages, byte for byte.

use std::io::{BufRead, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::json;

use super::{Failure, Output};
use crate::config::Config;
use crate::producer::Producer;

/// How long the last messages may take to be acknowledged.
const FLUSH: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file: one message a line, zstd-compressed if it ends in .zst; `-` is standard input.
    file: PathBuf,
    /// The topic; default is the first configured one that feeds agent_logs.
    #[arg(long)]
    topic: Option<String>,
    /// The tenant, sent as header `inosec-tenant`. Given several times, each line's `host` decides
    /// (by hash), so that a host always belongs to the same tenant.
    #[arg(long, value_name = "UUID")]
    tenant: Vec<uuid::Uuid>,
    /// Messages per second; default is as fast as the brokers take them.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Send the file this many times; 0 is until interrupted.
    #[arg(long = "loop", value_name = "TIMES", default_value_t = 1)]
    times: u64,
    /// Stop after this many messages.
    #[arg(long)]
    limit: Option<u64>,
}

/// Sends the file.
pub fn replay(args: &Args, config: &Config, output: &Output) -> Result<(), Failure> {
    let topic = match &args.topic {
        Some(topic) => topic.clone(),
        None => default_topic(config)?,
    };
    let producer = Producer::new(&config.kafka)?;
    let mut sending = Sending::new(&producer, &topic, args);
    let mut pass = 0;
    while (args.times == 0 || pass < args.times) && !sending.done() {
        let before = sending.sent;
        sending.pass(open(&args.file)?)?;
        if sending.sent == before {
            return Err(Failure::new(format!("{} holds no lines", args.file.display())));
        }
        pass += 1;
    }
    let (sent, bytes, started) = (sending.sent, sending.bytes, sending.started);
    sending.progress.finish_and_clear();
    let flushed = producer.flush(FLUSH);
    let (acknowledged, failed) = (producer.acknowledged(), producer.failed());
    if flushed.is_err() || failed > 0 || acknowledged < sent {
        let lost = sent.saturating_sub(acknowledged);
        return Err(Failure::new(format!(
            "{lost} of {sent} messages were not acknowledged: is topic {topic} there and the broker well? \
             `inosec check` tells"
        )));
    }
    let seconds = started.elapsed().as_secs_f64();
    let text = format!(
        "{sent} messages, {:.1} MB to {topic} in {seconds:.1} s ({:.0} a second)",
        bytes as f64 / 1e6,
        sent as f64 / seconds
    );
    output.text_or_json(&text, || {
        json!({ "topic": topic, "messages": sent, "acknowledged": acknowledged, "bytes": bytes, "seconds": seconds })
    })
}

fn default_topic(config: &Config) -> Result<String, Failure> {
    let topic = config.topics.iter().find(|topic| topic.stream == "agent_logs").or(config.topics.first());
    topic.map(|topic| topic.name.clone()).ok_or_else(|| {
        Failure::new("no topic is configured: give --topic, or a [[topics]] entry in the configuration")
    })
}

/// The file's lines, decompressed where its name says so.
pub fn open(file: &Path) -> Result<Box<dyn BufRead>, Failure> {
    crate::event_file::open(file).map_err(|error| Failure::new(format!("{}: {error}", file.display())))
}

/// One run of the command.
struct Sending<'a> {
    producer: &'a Producer,
    topic: &'a str,
    tenants: Vec<String>,
    pace: Option<Pace>,
    limit: u64,
    sent: u64,
    bytes: u64,
    started: Instant,
    progress: ProgressBar,
}

impl<'a> Sending<'a> {
    fn new(producer: &'a Producer, topic: &'a str, args: &Args) -> Self {
        Self {
            producer,
            topic,
            tenants: args.tenant.iter().map(ToString::to_string).collect(),
            pace: args.rate.map(Pace::new),
            limit: args.limit.unwrap_or(u64::MAX),
            sent: 0,
            bytes: 0,
            started: Instant::now(),
            progress: progress(args.limit),
        }
    }

    fn done(&self) -> bool {
        self.sent >= self.limit
    }

    /// Sends all lines once. Only the line's end is taken off; empty lines are skipped.
    fn pass(&mut self, mut lines: Box<dyn BufRead>) -> Result<(), Failure> {
        let mut line = Vec::new();
        while !self.done() {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let message = line.strip_suffix(b"\n").unwrap_or(&line);
            let message = message.strip_suffix(b"\r").unwrap_or(message);
            if message.is_empty() {
                continue;
            }
            let tenant = tenant_of(&self.tenants, message);
            self.producer.send(self.topic, message, tenant)?;
            self.sent += 1;
            self.bytes += message.len() as u64;
            self.progress.set_position(self.sent);
            if let Some(pace) = &self.pace {
                pace.wait(self.sent);
            }
        }
        Ok(())
    }
}

/// The tenant of a line: the only one given, or by hash of the line's host.
#[must_use]
pub fn tenant_of<'a>(tenants: &'a [String], line: &[u8]) -> Option<&'a str> {
    #[derive(Deserialize)]
    struct Hosted {
        host: Option<String>,
    }
    match tenants {
        [] => None,
        [only] => Some(only),
        several => {
            let hosted: Option<Hosted> = serde_json::from_slice(line).ok();
            let host = hosted.and_then(|hosted| hosted.host).unwrap_or_default();
            let hash = host
                .bytes()
                .fold(0xcbf2_9ce4_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
            Some(&several[hash as usize % several.len()])
        }
    }
}

fn progress(limit: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = match limit {
        Some(_) => "{bar:40} {human_pos} of {human_len} messages, {per_sec}, {eta} left",
        None => "{spinner} {human_pos} messages, {per_sec}, {elapsed}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    limit.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_style(style)
}

/// Keeps to a rate by waiting until a message's turn has come.
struct Pace {
    rate: u32,
    started: Instant,
}

impl Pace {
    fn new(rate: u32) -> Self {
        Self { rate, started: Instant::now() }
    }

    fn wait(&self, sent: u64) {
        let due = Duration::from_secs_f64(sent as f64 / f64::from(self.rate));
        if let Some(early) = due.checked_sub(self.started.elapsed())
            && early > Duration::from_millis(2)
        {
            std::thread::park_timeout(early);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_always_belongs_to_the_same_tenant() {
        let tenants = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let line = |host: &str| format!(r#"{{"host":"{host}","event":{{}}}}"#).into_bytes();
        assert_eq!(tenant_of(&tenants, &line("ws5")), tenant_of(&tenants, &line("ws5")));
        let spread: std::collections::BTreeSet<_> =
            (0..50).filter_map(|host| tenant_of(&tenants, &line(&host.to_string()))).collect();
        assert_eq!(spread.len(), 3);
        assert_eq!(tenant_of(&[], b"{}"), None);
    }
}
