//! The events every benchmark plays: the shared corpus of real ones, or the generator's day.
//!
//! The corpus is a row of recordings. A platform receives many hosts at once, so the recordings are
//! played side by side, each stretched over the whole run: a batch holds events of all of them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use inosec::day::{Day, Fate, Feed, Options as DayOptions};
use inosec_schemas::{Directory, Tenant, TenantId, TenantStatus, Tier};
use serde::Deserialize;
use uuid::Uuid;

use crate::error::{At, Result};

const FILE: &str = "agent_logs.ndjson.zst";
/// How many events the generator makes: about as many as the corpus has.
const GENERATED: u64 = 165_000;
const SEED: u64 = 7;

/// Which events to play.
#[derive(Debug, Clone, clap::Args)]
pub struct Choice {
    /// Events of the seeded generator instead of the corpus.
    #[arg(long)]
    generated: bool,
    /// Play the corpus' recordings one after another instead of side by side.
    #[arg(long, conflicts_with = "generated")]
    in_order: bool,
    /// Among how many tenants the corpus' hosts are divided.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    tenants: u16,
}

/// Events in the order they are sent, over and over.
#[derive(Debug)]
pub struct Corpus {
    bytes: Vec<u8>,
    events: Vec<(Range<usize>, u16)>,
    tenants: Vec<TenantId>,
    /// What it is, for the report.
    pub description: String,
}

impl Corpus {
    pub fn load(choice: &Choice) -> Result<Self> {
        if choice.generated { Ok(Self::generated()) } else { Self::recorded(choice) }
    }

    fn recorded(choice: &Choice) -> Result<Self> {
        let path = path();
        let compressed = std::fs::read(&path).at(format!(
            "reading {}: set INOSEC_CORPUS to the corpus' folder, or use --generated",
            path.display()
        ))?;
        let bytes = zstd::decode_all(&compressed[..]).at("decompressing the corpus")?;
        let mut lines = lines(&bytes, choice.tenants)?;
        if !choice.in_order {
            side_by_side(&mut lines);
        }
        let events: Vec<_> = lines.into_iter().map(|line| (line.place, line.tenant)).collect();
        let tenants =
            (1..=choice.tenants).map(|number| TenantId(Uuid::from_u128(0xbe0c_0000 + u128::from(number))));
        let order = if choice.in_order { "recordings one after another" } else { "recordings side by side" };
        let description = format!("{} corpus events, {order}, {} tenants", events.len(), choice.tenants);
        Ok(Self { bytes, events, tenants: tenants.collect(), description })
    }

    fn generated() -> Self {
        let start = jiff::Timestamp::UNIX_EPOCH.as_microsecond();
        let options = DayOptions { trouble: None, threats: 0, ..DayOptions::new(SEED, GENERATED, start) };
        let day = Day::new(&options);
        let tenants: Vec<TenantId> = day.tenants().map(|tenant| TenantId(tenant.id)).collect();
        let (mut bytes, mut events) = (Vec::new(), Vec::new());
        for message in day {
            let tenant = tenants.iter().position(|known| Some(known.0) == message.tenant);
            let (Some(tenant), Feed::AgentLogs, Fate::Row | Fate::RowAndThreat) =
                (tenant, message.feed, message.fate)
            else {
                continue;
            };
            let start = bytes.len();
            bytes.extend_from_slice(&message.payload);
            events.push((start..bytes.len(), tenant as u16));
        }
        let description =
            format!("{} generated events (seed {SEED}), {} tenants", events.len(), tenants.len());
        Self { bytes, events, tenants, description }
    }

    /// How many events there are before they repeat.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// The bytes of the event at this place of the endless play.
    pub fn value(&self, place: usize) -> &[u8] {
        &self.bytes[self.events[place % self.events.len()].0.clone()]
    }

    /// Whose it is.
    pub fn tenant(&self, place: usize) -> TenantId {
        self.tenants[usize::from(self.events[place % self.events.len()].1)]
    }

    pub fn tenants(&self) -> &[TenantId] {
        &self.tenants
    }

    /// A directory in which all of them are active.
    pub fn directory(&self) -> Directory {
        let mut directory = Directory { epoch: 1, ..Directory::default() };
        for tenant in &self.tenants {
            directory.tenants.insert(*tenant, Tenant { tier: Tier::Standard, status: TenantStatus::Active });
        }
        directory
    }
}

/// The corpus' folder, or its file of events.
fn given() -> PathBuf {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    std::env::var_os("INOSEC_CORPUS").map_or_else(beside, PathBuf::from)
}

fn path() -> PathBuf {
    let given = given();
    if given.is_dir() { given.join(FILE) } else { given }
}

/// Where the other files of the corpus lie.
pub fn folder() -> PathBuf {
    let given = given();
    if given.is_dir() { given } else { given.parent().map(Path::to_path_buf).unwrap_or_default() }
}

struct Line {
    place: Range<usize>,
    tenant: u16,
    recording: usize,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    src: Option<Cow<'a, str>>,
    #[serde(borrow)]
    host: Option<Cow<'a, str>>,
}

fn lines(bytes: &[u8], tenants: u16) -> Result<Vec<Line>> {
    let mut recordings = HashMap::new();
    let mut lines = Vec::new();
    let mut start = 0;
    for line in bytes.split(|byte| *byte == b'\n') {
        let place = start..start + line.len();
        start = place.end + 1;
        if line.is_empty() {
            continue;
        }
        let envelope: Envelope<'_> = serde_json::from_slice(line).at("reading a line of the corpus")?;
        let next = recordings.len();
        let recording = *recordings.entry(envelope.src.unwrap_or_default()).or_insert(next);
        let tenant = hash(envelope.host.unwrap_or_default().as_bytes()) % u32::from(tenants);
        lines.push(Line { place, tenant: tenant as u16, recording });
    }
    Ok(lines)
}

/// FNV-1a: a host always belongs to the same tenant.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Event k of a recording of n comes at (k + ½) / n of the whole.
fn side_by_side(lines: &mut Vec<Line>) {
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for line in &*lines {
        *lengths.entry(line.recording).or_default() += 1;
    }
    let mut played: HashMap<usize, usize> = HashMap::new();
    let mut keyed: Vec<(f64, Line)> = Vec::with_capacity(lines.len());
    for line in lines.drain(..) {
        let place = played.entry(line.recording).or_default();
        keyed.push(((*place as f64 + 0.5) / lengths[&line.recording] as f64, line));
        *place += 1;
    }
    keyed.sort_by(|(a, first), (b, second)| a.total_cmp(b).then(first.recording.cmp(&second.recording)));
    lines.extend(keyed.into_iter().map(|(_, line)| line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_play_side_by_side_each_in_its_order() {
        let line = |recording, start| Line { place: start..start + 1, tenant: 0, recording };
        let mut lines = vec![line(0, 0), line(0, 1), line(0, 2), line(0, 3), line(1, 10), line(1, 11)];
        side_by_side(&mut lines);
        let starts: Vec<usize> = lines.iter().map(|line| line.place.start).collect();
        assert_eq!(starts, [0, 10, 1, 2, 11, 3]);
    }
}
