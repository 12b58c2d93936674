//! Fills `fuzz/corpus` with seeds: records of the shared corpus, blocks sealed of them, the embedded
//! descriptions and our own rules. Without the shared corpus the built-in records have to do.
//!
//! Not a target, but shaped like one (`-runs=0`): coverage flags want libFuzzer linked, and without them
//! every dependency would be built a second time.
#![no_main]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use inosec_fuzz::{Road, SOUND, Sent, tuples};
use inosec_schemas::Catalog;
use inosec_sink::{SealOptions, read_block, seal};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Records of each format; more are alike.
const PER_FORMAT: usize = 25;
/// Longer ones only slow the fuzzer down.
const LONGEST: usize = 6 << 10;
/// The column `data` of the COPY of raw blocks.
const DATA: usize = 7;

/// A column of every kind, and a format that fills them: small, so that changes reach far.
const SMALL: &str = r#"name = "t"
description = ""
partition_interval = "hour"
on_mismatch = "null"
columns = [
{ name = "ts", kind = "timestamp", fill = "ts", description = "" },
{ name = "tenant_id", kind = "uuid", fill = "tenant", description = "" },
{ name = "event_id", kind = "uuid", fill = "event_id", description = "" },
{ name = "seq", kind = "int64", fill = "seq", description = "" },
{ name = "source", kind = "text", fill = "source", description = "" },
{ name = "id", kind = "uuid", fill = "id", description = "" },
{ name = "message", kind = "text", required = true, cap = 9, first_line = true, description = "" },
{ name = "a", kind = "bool", description = "" },
{ name = "b", kind = "int16", description = "" },
{ name = "c", kind = "float64", description = "" },
{ name = "d", kind = "inet", description = "" },
{ name = "e", kind = "json", description = "" },
{ name = "f", kind = "text_list", description = "" },
{ name = "g", kind = "bytes", description = "" },
]
---
name = "fuzz"
description = ""
shape = "json"
priority = 1
[streams.t]
when = { none = ["x"] }
[streams.t.columns]
message = ["Message", "signature", "alert.signature", "event.message"]
ts = ["timestamp", "detected_at"]
b = { key = ["severity", ["alert.severity"]], map = { 1 = 4 }, default = 0 }
c = ["EventID", "detected_at"]
d = ["src_ip"]
e = ["alert", "payload"]
f = ["techniques", "alert.metadata.mitre_technique_id", "Message"]
g = ["signature", "Hostname"]
"#;

type Outcome<T> = Result<T, Box<dyn Error>>;

fuzz_target!(init: seed().expect("seeds are written"), |_data: &[u8]| {});

fn seed() -> Outcome<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = here.join("corpus");
    let catalog = Catalog::embedded()?;
    for (stream, file, high) in
        [("agent_logs", "agent_logs.ndjson.zst", 0), ("threat_events", "threat_events.ndjson.zst", 0x80)]
    {
        let lines = lines(here, file)?;
        for (place, line) in lines.iter().enumerate() {
            write(&corpus, "decode", &format!("{stream}-{place}"), line)?;
            write(&corpus, "event_json", &format!("{stream}-{place}"), line)?;
            if let Some(record) = record(&catalog, line, high) {
                write(&corpus, "formats", &format!("{stream}-{place}"), &record)?;
            }
        }
        for (place, lines) in lines.chunks(20).enumerate() {
            for (kind, block) in blocks(stream, lines)?.iter().enumerate() {
                write(&corpus, "raw_block", &format!("{stream}-{place}-{kind}"), block)?;
            }
        }
    }
    rules(&here.join("../rules/detection"), &corpus)?;
    write(&corpus, "formats_toml", "small", SMALL.as_bytes())?;
    for folder in ["streams", "formats"] {
        for entry in std::fs::read_dir(here.join("../schemas").join(folder))? {
            let path = entry?.path();
            if let Some(name) = path.file_stem().filter(|_| path.is_file()) {
                write(&corpus, "formats_toml", &name.to_string_lossy(), &std::fs::read(&path)?)?;
            }
        }
    }
    Ok(())
}

/// Our own rules, and those that the other target runs: they have a test of every sort.
fn rules(folder: &Path, corpus: &Path) -> Outcome<()> {
    write(corpus, "rule_yaml", "detect", include_bytes!("../src/detect.yml"))?;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            rules(&path, corpus)?;
        } else if let Some(name) = path.file_stem() {
            write(corpus, "rule_yaml", &name.to_string_lossy(), &std::fs::read(&path)?)?;
        }
    }
    Ok(())
}

fn write(corpus: &Path, target: &str, name: &str, seed: &[u8]) -> Outcome<()> {
    let folder = corpus.join(target);
    std::fs::create_dir_all(&folder)?;
    Ok(std::fs::write(folder.join(format!("seed-{name}")), seed)?)
}

/// The first few lines of each format, and the built-in records.
fn lines(here: &Path, file: &str) -> Outcome<Vec<Vec<u8>>> {
    let beside = || here.join("../../shared/data");
    let path = std::env::var_os("INOSEC_CORPUS").map_or_else(beside, PathBuf::from).join(file);
    let mut chosen: Vec<Vec<u8>> = SOUND.iter().map(|text| text.as_bytes().to_vec()).collect();
    if !path.exists() {
        println!("no {}: set INOSEC_CORPUS for better seeds", path.display());
        return Ok(chosen);
    }
    let plain = zstd::decode_all(&std::fs::read(path)?[..])?;
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    for line in plain.split(|byte| *byte == b'\n').filter(|line| (1..LONGEST).contains(&line.len())) {
        let format = serde_json::from_slice::<Value>(line)?["fmt"].to_string();
        let taken = taken.entry(format).or_default();
        *taken += 1;
        if *taken <= PER_FORMAT {
            chosen.push(line.to_vec());
        }
    }
    Ok(chosen)
}

/// The record without its envelope, behind the byte that says format and stream.
fn record(catalog: &Catalog, line: &[u8], high: u8) -> Option<Vec<u8>> {
    let none = catalog.formats.len();
    let Ok(envelope) = serde_json::from_slice::<Value>(line) else {
        return Some([&[u8::try_from(none).ok()? | high], line].concat());
    };
    let told = envelope["fmt"].as_str().unwrap_or_default();
    let known = |name: &str| {
        catalog
            .formats
            .iter()
            .position(|format| format.name == name || format.aliases.iter().any(|a| a == name))
    };
    let choice = u8::try_from(known(told).unwrap_or(none)).ok()? | high;
    let record = match (&envelope["event"], &envelope["raw"]) {
        (Value::Object(event), _) => serde_json::to_vec(event).ok()?,
        (_, Value::String(text)) => text.clone().into_bytes(),
        _ => line.to_vec(),
    };
    Some([&[choice], record.as_slice()].concat())
}

/// The blocks of these messages, as frames and as what is inside them.
fn blocks(stream: &str, lines: &[Vec<u8>]) -> Outcome<Vec<Vec<u8>>> {
    let sent: Vec<Sent<'_>> =
        (0..).zip(lines).map(|(offset, value)| Sent { value, format: None, offset }).collect();
    let sealed = seal(Road::embedded().decode(stream, &sent), 1, &SealOptions::default());
    let mut blocks = Vec::new();
    for tuple in tuples(&sealed.blocks) {
        let data = tuple[DATA].as_deref().unwrap_or_default();
        let plain = zstd::bulk::decompress(data, LONGEST * lines.len() + (64 << 10))?;
        debug_assert!(read_block(data).is_ok());
        blocks.push([&[0], data].concat());
        blocks.push([&[1], plain.as_slice()].concat());
    }
    Ok(blocks)
}
