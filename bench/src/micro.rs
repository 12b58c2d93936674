//! The CPU's share of the road, one thread, without servers: parse, decode, seal, compress, encode.
//!
//! Everything is timed batch by batch in turn, so that whatever disturbs the machine disturbs all of
//! it alike; a pass is the sum over the corpus, a result the median of the passes. Thread CPU time
//! decides; wall time stands beside it.

use std::time::{Duration, Instant};

use inosec_ingest::{Decoder, Limits};
use inosec_schemas::{Batch, Catalog, Directory, Messages};
use inosec_sink::{BlockOptions, SealOptions, Sealed, seal};
use serde::Serialize;
use simd_json::{Buffers, INPUT_PADDING, Tape, fill_tape_padded};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use crate::copyform;
use crate::corpus::Corpus;
use crate::deck::{self, Deck};
use crate::error::{At, Result};
use crate::stats::median;
use crate::usage::thread_cpu;

/// The column `data` of `raw_blocks`' COPY.
const DATA: usize = 7;
/// Above every block.
const MAX_PLAIN: usize = 64 << 20;

/// What `decode` and `encode` take.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub choice: crate::corpus::Choice,
    /// How many events a pass has; default is the corpus once.
    #[arg(long)]
    pub events: Option<usize>,
    /// How many times each step is timed over all events.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub passes: u32,
    /// Into how many partitions the events are dealt.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// Time only this step, for a profiler: tape, decode or seal.
    #[arg(long)]
    pub only: Option<Step>,
}

/// A step worth profiling alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Step {
    Tape,
    Decode,
    Seal,
}

/// Time for a number of events.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    cpu: Duration,
    wall: Duration,
}

impl Spent {
    /// Runs `work` and adds what it took.
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (cpu, wall) = (thread_cpu(), Instant::now());
        let result = work();
        self.cpu += thread_cpu() - cpu;
        self.wall += wall.elapsed();
        result
    }
}

/// One pass over all events.
#[derive(Debug, Clone, Copy, Default)]
struct Pass {
    tape: Spent,
    tape_copied: Spent,
    decode: Spent,
    seal: Spent,
    zstd: Spent,
    encode: Spent,
}

/// Microseconds per event.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    pub cpu_us: f64,
    pub wall_us: f64,
}

impl Cost {
    /// Events per second of one core.
    pub fn rate(&self) -> f64 {
        1e6 / self.cpu_us
    }

    fn plus(self, other: Self) -> Self {
        Self { cpu_us: self.cpu_us + other.cpu_us, wall_us: self.wall_us + other.wall_us }
    }

    fn minus(self, other: Self) -> Self {
        Self { cpu_us: self.cpu_us - other.cpu_us, wall_us: self.wall_us - other.wall_us }
    }
}

/// The medians.
#[derive(Debug, Clone, Serialize)]
pub struct Micro {
    pub events: usize,
    pub mean_bytes: f64,
    pub passes: u32,
    /// simd-json's tape alone, buffers reused, parsing in place: the input is spoilt by it.
    pub tape: Cost,
    /// The same with the copy that keeps the message as it came.
    pub tape_copied: Cost,
    /// Messages to typed columns.
    pub decode: Cost,
    /// Columns to COPY data: order, counts, hosts, raw blocks, encoding, compression.
    pub seal: Cost,
    /// zstd over the plain blocks that seal made.
    pub zstd: Cost,
    /// Ordering, counting and COPY encoding of the rows, without blocks.
    pub encode: Cost,
    /// decode + seal.
    pub whole: Cost,
    /// decode + seal − zstd: the same bytes moved, none compressed.
    pub uncompressed: Cost,
    pub row_bytes: f64,
    pub block_bytes: f64,
    pub plain_bytes: f64,
    pub events_per_block: f64,
    pub rows: u64,
    pub dead_letters: u64,
    /// Bytes per row of each column's values in COPY's format, widest first.
    pub columns: Vec<(String, f64)>,
}

impl Micro {
    /// Of simd-json's tape-only rate, with compression and without: what issue 3 asks for.
    pub fn ratios(&self) -> (f64, f64) {
        (self.tape.cpu_us / self.whole.cpu_us, self.tape.cpu_us / self.uncompressed.cpu_us)
    }

    /// The same beside a tape that must keep its input, as decode must.
    pub fn copied_ratios(&self) -> (f64, f64) {
        (self.tape_copied.cpu_us / self.whole.cpu_us, self.tape_copied.cpu_us / self.uncompressed.cpu_us)
    }
}

/// What all passes share.
struct Bench<'a> {
    decoder: Decoder,
    directory: &'a Directory,
    options: SealOptions,
    tape: Parser,
    packer: Compressor<'static>,
    sizes: Sizes,
}

#[derive(Debug, Default)]
struct Sizes {
    bytes: usize,
    rows: usize,
    dead: usize,
    row_bytes: usize,
    block_bytes: usize,
    plain_bytes: usize,
    blocks: usize,
    columns: Vec<usize>,
}

/// The defaults of `[time]` and `[limits]`.
pub fn limits() -> Limits {
    Limits {
        max_age_us: 30 * 86_400_000_000,
        max_skew_us: 3_600_000_000,
        max_message_bytes: 4 << 20,
        max_depth: 128,
    }
}

/// Times every step; `None` if only one was wanted, whose time is printed.
pub fn run(corpus: &Corpus, args: &Args) -> Result<Option<Micro>> {
    let catalog = Catalog::embedded().at("reading the descriptions")?;
    let events = args.events.unwrap_or(corpus.len());
    let topic = deck::topic(&catalog)?;
    let stream = std::sync::Arc::clone(&topic.stream);
    let started = inosec::databases::now();
    let mut batches: Vec<Messages> = Deck::new(corpus, topic, args.partitions, events, started).collect();
    let directory = corpus.directory();
    let mut bench = Bench {
        decoder: Decoder::new(&catalog, limits()),
        directory: &directory,
        options: SealOptions::default(),
        tape: Parser::default(),
        packer: packer(BlockOptions::default().level)?,
        sizes: Sizes::default(),
    };
    if let Some(step) = args.only {
        return bench.only(step, &mut batches, args.passes).map(|()| None);
    }
    let mut passes = Vec::new();
    for _ in 0..args.passes {
        bench.sizes = Sizes::default();
        let mut pass = Pass::default();
        for batch in &mut batches {
            bench.batch(batch, &mut pass)?;
        }
        passes.push(pass);
    }
    let mut micro = summary(&passes, &bench.sizes, events);
    let names = stream.columns.iter().map(|column| column.name.clone());
    let each = |bytes: &usize| *bytes as f64 / bench.sizes.rows.max(1) as f64;
    micro.columns = names.zip(bench.sizes.columns.iter().map(each)).collect();
    micro.columns.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    Ok(Some(micro))
}

impl Bench<'_> {
    /// Times one batch; the messages come back as they were.
    fn batch(&mut self, messages: &mut Messages, pass: &mut Pass) -> Result<()> {
        self.sizes.bytes +=
            messages.entries.iter().map(|entry| (entry.end - entry.start) as usize).sum::<usize>();
        self.tape.in_place(messages, &mut pass.tape)?;
        pass.tape_copied.time(|| self.tape.copied(messages))?;
        let taken = std::mem::take(messages);
        let batch: Batch = pass.decode.time(|| self.decoder.decode(taken, self.directory));
        let sealed: Sealed = pass.seal.time(|| seal(batch, 1, &self.options));
        let keep = vec![true; sealed.batch.rows.len()];
        let encoded = pass.encode.time(|| sealed.encode_kept(&keep));
        drop(encoded);
        self.compress(&sealed, &mut pass.zstd)?;
        self.sizes.rows += sealed.batch.rows.len();
        self.sizes.dead += sealed.batch.dead.len();
        self.sizes.row_bytes += sealed.rows.iter().map(bytes::Bytes::len).sum::<usize>();
        let widths = copyform::widths(&sealed.rows).at("reading the COPY data of agent_logs")?;
        self.sizes.columns.resize(widths.len().max(self.sizes.columns.len()), 0);
        self.sizes.columns.iter_mut().zip(widths).for_each(|(sum, width)| *sum += width);
        *messages = sealed.batch.messages;
        Ok(())
    }

    fn compress(&mut self, sealed: &Sealed, spent: &mut Spent) -> Result<()> {
        let blocks = plain_blocks(sealed)?;
        let mut packed = Vec::new();
        spent.time(|| -> Result<()> {
            for (plain, _) in &blocks {
                packed.clear();
                packed.reserve(zstd::zstd_safe::compress_bound(plain.len()));
                self.packer.compress_to_buffer(plain, &mut packed).at("compressing")?;
            }
            Ok(())
        })?;
        self.sizes.blocks += blocks.len();
        self.sizes.plain_bytes += blocks.iter().map(|(plain, _)| plain.len()).sum::<usize>();
        self.sizes.block_bytes += blocks.iter().map(|(_, packed)| packed).sum::<usize>();
        Ok(())
    }

    /// Runs one step over and over; what it needs before is not counted.
    fn only(&mut self, step: Step, batches: &mut [Messages], passes: u32) -> Result<()> {
        let (mut spent, mut uncounted) = (Spent::default(), Spent::default());
        let mut events = 0;
        for turn in 0..passes as usize * batches.len() {
            let at = turn % batches.len();
            let messages = &mut batches[at];
            events += messages.entries.len();
            if step == Step::Tape {
                self.tape.in_place(messages, &mut spent)?;
                continue;
            }
            let taken = std::mem::take(messages);
            let decoding = if step == Step::Decode { &mut spent } else { &mut uncounted };
            let batch = decoding.time(|| self.decoder.decode(taken, self.directory));
            *messages = match step {
                Step::Seal => spent.time(|| seal(batch, 1, &self.options)).batch.messages,
                Step::Tape | Step::Decode => batch.messages,
            };
        }
        println!("{step:?}: {:.3} µs an event", spent.cpu.as_secs_f64() * 1e6 / events as f64);
        Ok(())
    }
}

/// zstd as seal sets it.
pub fn packer(level: i32) -> Result<Compressor<'static>> {
    let mut packer = Compressor::new(level).at("making a compressor")?;
    packer.set_parameter(CParameter::ChecksumFlag(true)).at("asking zstd for checksums")?;
    Ok(packer)
}

/// The blocks of a batch, decompressed, and how large each is compressed.
pub fn plain_blocks(sealed: &Sealed) -> Result<Vec<(Vec<u8>, usize)>> {
    if sealed.blocks.is_empty() {
        return Ok(Vec::new());
    }
    let data = copyform::column(&sealed.blocks, DATA).at("reading the COPY data of raw_blocks")?;
    let mut unpacker = Decompressor::new().at("making a decompressor")?;
    let mut plain = |block: &bytes::Bytes| -> Result<(Vec<u8>, usize)> {
        let size = Decompressor::upper_bound(block).unwrap_or(MAX_PLAIN);
        Ok((unpacker.decompress(block, size).at("decompressing a block")?, block.len()))
    };
    data.iter().map(&mut plain).collect()
}

/// simd-json with everything reused that can be, and no copy inside it (`fill_tape_padded`): the
/// fastest it can be asked for a tape.
#[derive(Default)]
struct Parser {
    buffers: Buffers,
    tape: Option<Tape<'static>>,
    scratch: Vec<u8>,
}

impl Parser {
    /// Parses the first `length` bytes; what follows is padding.
    fn parse(&mut self, text: &mut [u8], length: usize) -> Result<()> {
        let mut tape = self.tape.take().unwrap_or_else(|| Tape(Vec::new())).reset();
        fill_tape_padded(text, length, &mut self.buffers, &mut tape).at("parsing an event")?;
        std::hint::black_box(&tape);
        self.tape = Some(tape.reset());
        Ok(())
    }

    /// Parses a copy made before the clock starts.
    fn in_place(&mut self, messages: &Messages, spent: &mut Spent) -> Result<()> {
        let mut spoilt = messages.bytes.clone();
        spoilt.resize(spoilt.len() + INPUT_PADDING, 0);
        spent.time(|| {
            for entry in &messages.entries {
                self.parse(&mut spoilt[entry.start as usize..], (entry.end - entry.start) as usize)?;
            }
            Ok(())
        })
    }

    /// Copies each message before it is parsed.
    fn copied(&mut self, messages: &Messages) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        for entry in &messages.entries {
            let value = messages.value(entry);
            scratch.clear();
            scratch.extend_from_slice(value);
            scratch.extend_from_slice(&[0; INPUT_PADDING]);
            self.parse(&mut scratch, value.len())?;
        }
        self.scratch = scratch;
        Ok(())
    }
}

fn summary(passes: &[Pass], sizes: &Sizes, events: usize) -> Micro {
    let per_event = |duration: Duration| duration.as_secs_f64() * 1e6 / events as f64;
    let cost = |step: fn(&Pass) -> Spent| Cost {
        cpu_us: median(&passes.iter().map(|pass| per_event(step(pass).cpu)).collect::<Vec<_>>()),
        wall_us: median(&passes.iter().map(|pass| per_event(step(pass).wall)).collect::<Vec<_>>()),
    };
    let (decode, seal, zstd) = (cost(|pass| pass.decode), cost(|pass| pass.seal), cost(|pass| pass.zstd));
    let each = |total: usize| total as f64 / events as f64;
    Micro {
        events,
        mean_bytes: each(sizes.bytes),
        passes: passes.len() as u32,
        tape: cost(|pass| pass.tape),
        tape_copied: cost(|pass| pass.tape_copied),
        decode,
        seal,
        zstd,
        encode: cost(|pass| pass.encode),
        whole: decode.plus(seal),
        uncompressed: decode.plus(seal).minus(zstd),
        row_bytes: each(sizes.row_bytes),
        block_bytes: each(sizes.block_bytes),
        plain_bytes: each(sizes.plain_bytes),
        events_per_block: sizes.rows as f64 / sizes.blocks.max(1) as f64,
        rows: sizes.rows as u64,
        dead_letters: sizes.dead as u64,
        columns: Vec::new(),
    }
}

/// The table of both micro benchmarks.
pub fn print(micro: &Micro) {
    let Micro { events, mean_bytes, passes, .. } = micro;
    println!("{events} events of {mean_bytes:.0} bytes, {passes} passes, medians, one thread");
    println!("{:<44} {:>9} {:>9} {:>12}", "", "CPU µs", "wall µs", "events/s");
    for (name, cost) in [
        ("simd-json tape, in place", micro.tape),
        ("simd-json tape, with a copy", micro.tape_copied),
        ("decode", micro.decode),
        ("seal", micro.seal),
        ("  of it zstd", micro.zstd),
        ("  of it all but zstd", micro.seal.minus(micro.zstd)),
        ("  of it order, counts, COPY encoding", micro.encode),
        ("decode + seal", micro.whole),
        ("decode + seal without compression", micro.uncompressed),
    ] {
        println!("{name:<44} {:>9.3} {:>9.3} {:>12.0}", cost.cpu_us, cost.wall_us, cost.rate());
    }
    let ((with, without), (copied_with, copied_without)) = (micro.ratios(), micro.copied_ratios());
    println!(
        "of the tape's rate, with compression     {with:.3}  (asked: 0.35; of the copying tape's {copied_with:.3})"
    );
    println!(
        "of the tape's rate, without compression  {without:.3}  (asked: 0.55; of the copying tape's {copied_without:.3})"
    );
    println!(
        "rows {} + dead letters {}; COPY bytes per event: rows {:.0}, blocks {:.0} (plain {:.0}, {:.0} events a block)",
        micro.rows,
        micro.dead_letters,
        micro.row_bytes,
        micro.block_bytes,
        micro.plain_bytes,
        micro.events_per_block
    );
    let columns = micro.columns.iter().map(|(name, bytes)| format!("{name} {bytes:.0}"));
    println!(
        "COPY bytes per row by column, 4 of each its length: {}",
        columns.collect::<Vec<_>>().join(", ")
    );
}
