//! What raw blocks cost, by size, order and compression level, where a tenant sends much and where it
//! sends little: our CPU, PostgreSQL's CPU, write-ahead log and disk, and the time to fetch a message.
//!
//! Blocks are cut here, not by `seal`, so that orders `seal` doesn't have can be tried.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use inosec_ingest::Decoder;
use inosec_schemas::{Batch, Catalog, TenantId};
use inosec_sink::read_block;

use crate::copyform::Writer;
use crate::corpus::Corpus;
use crate::deck::{self, Deck};
use crate::error::{At, Result, check};
use crate::limits::RAW_BLOCKS;
use crate::machine::{Machine, inosec_date};
use crate::micro::{self, packer};
use crate::phase::Start;
use crate::postgres::{Copy, Database, copy_all, copy_into};
use crate::usage::{Parties, listener, thread_cpu};

/// How often each variant is packed; the best counts, the first is cold.
const PASSES: u32 = 3;
/// How many messages are fetched to time it.
const FETCHES: usize = 2_000;

/// What `blocks` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    choice: crate::corpus::Choice,
    /// How many events each variant packs.
    #[arg(long, default_value_t = 100_000)]
    events: usize,
    /// Where the report goes; default is bench/runs/<date>-blocks.md.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// In which order a tenant's messages are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Arrival,
    Time,
    HostTime,
    HostKindTime,
}

/// One way to make blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Variant {
    messages: usize,
    kib: usize,
    level: i32,
    order: Order,
}

/// What `seal` does.
const CHOSEN: Variant = Variant { messages: 128, kib: 512, level: 1, order: Order::HostKindTime };

fn variants() -> Vec<Variant> {
    let sizes = [(1, 256), (16, 64), (32, 128), (64, 256), (128, 256), (256, 512), (256, 1024)];
    let sizes = sizes.map(|(messages, kib)| Variant { messages, kib, ..CHOSEN });
    let levels = [-5, -1, 2, 3, 6].map(|level| Variant { level, ..CHOSEN });
    let orders = [Order::Arrival, Order::Time, Order::HostTime].map(|order| Variant { order, ..CHOSEN });
    [CHOSEN].into_iter().chain(sizes).chain(levels).chain(orders).collect()
}

/// A message and what it is sorted by.
struct Item<'a> {
    tenant: TenantId,
    host: &'a [u8],
    kind: &'a [u8],
    ts: i64,
    value: &'a [u8],
}

/// What packing came to.
#[derive(Default)]
struct Packed {
    /// COPY data, one transaction per batch.
    transactions: Vec<Vec<Copy>>,
    blocks: usize,
    events: usize,
    bytes: usize,
    cpu_us: f64,
    fetch_us: f64,
}

/// Runs all variants at both rates and writes the table.
pub async fn run(args: Args) -> Result<()> {
    let url = std::env::var("INOSEC_TEST_TIMESCALE_URL")
        .at("INOSEC_TEST_TIMESCALE_URL is not set: eval \"$(deploy/local/services env)\"")?;
    let corpus = Corpus::load(&args.choice)?;
    let catalog = Catalog::embedded().at("reading the descriptions")?;
    let database = Database::create(&url, &corpus, &catalog).await?;
    let result = measure(&args, &corpus, &catalog, &database).await;
    database.drop().await?;
    let report = result?;
    let out = args.out.clone();
    let out = out.unwrap_or_else(|| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("runs").join(format!("{}-blocks.md", inosec_date()))
    });
    std::fs::write(&out, report).at(format!("writing {}", out.display()))?;
    println!("\nwritten to {}", out.display());
    Ok(())
}

async fn measure(args: &Args, corpus: &Corpus, catalog: &Catalog, database: &Database) -> Result<String> {
    let parties = Parties { postgres: listener(database.port), ..Parties::default() };
    let machine = Machine::describe(database, &parties).await?;
    let mut report = format!(
        "# Raw blocks, {}\n\n{}\n\n```\ncargo run --release -p inosec-bench -- blocks --events {}\n```\n\n{}; \
         {} events a variant. CPU is that of one thread, the best of {PASSES} passes; PostgreSQL's that of the whole server while it takes \
         the blocks alone, 1 connection. A fetch is reading one block and finding one message in it.\n",
        inosec_date(),
        machine.summary(),
        args.events,
        corpus.description,
        args.events,
    );
    for (rate, rows) in
        [("much: batches of 10,000 messages", 10_000), ("little: batches of 200 messages", 200)]
    {
        let batches = decode(corpus, catalog, args.events, rows)?;
        let head = "| messages | KiB | level | order | a block | our µs | bytes | PostgreSQL µs | WAL B | disk B | fetch µs |";
        let _ = write!(
            report,
            "\n## A tenant sends {rate}\n\n{head}\n| ---: | ---: | ---: | --- |{}\n",
            " ---: |".repeat(7)
        );
        println!("\n{rate}\n{head}");
        for variant in variants() {
            let line = variant.measure(&batches, database, &parties).await?;
            println!("{line}");
            let _ = writeln!(report, "{line}");
        }
    }
    Ok(report)
}

/// Batches of so many rows.
fn decode(corpus: &Corpus, catalog: &Catalog, events: usize, rows: usize) -> Result<Vec<Batch>> {
    let topic = deck::topic(catalog)?;
    let (mut decoder, directory) = (Decoder::new(catalog, micro::limits()), corpus.directory());
    let deck = Deck::new(corpus, topic, 4, events, inosec::databases::now()).with_rows(rows);
    Ok(deck.map(|messages| decoder.decode(messages, &directory)).collect())
}

impl Variant {
    async fn measure(&self, batches: &[Batch], database: &Database, parties: &Parties) -> Result<String> {
        let mut packed = self.pack(batches)?;
        for _ in 1..PASSES {
            let again = self.pack(batches)?;
            packed.cpu_us = packed.cpu_us.min(again.cpu_us);
            packed.fetch_us = packed.fetch_us.min(again.fetch_us);
        }
        database.empty(&["raw_blocks"]).await?;
        database.settle().await?;
        let start = Start::take(database, parties).await?;
        let copied = copy_all(&database.url, Arc::new(packed.transactions), 1).await?;
        check("blocks", packed.blocks as u64, copied.rows)?;
        let phase = start.end("", packed.events as u64, database, parties, &["inosec.raw_blocks"]).await?;
        let each = |bytes: Option<u64>| phase.each(bytes).unwrap_or_default();
        let order = match self.order {
            Order::Arrival => "arrival",
            Order::Time => "time",
            Order::HostTime => "host, time",
            Order::HostKindTime => "host, event code, time",
        };
        let chosen = if *self == CHOSEN { "**" } else { "" };
        Ok(format!(
            "| {chosen}{}{chosen} | {} | {} | {order} | {:.0} | {:.2} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} |",
            self.messages,
            self.kib,
            self.level,
            packed.events as f64 / packed.blocks as f64,
            packed.cpu_us / packed.events as f64,
            packed.bytes as f64 / packed.events as f64,
            phase.micros(phase.usage.postgres_cpu.unwrap_or_default()),
            each(phase.wal_bytes),
            each(phase.disk_bytes),
            packed.fetch_us,
        ))
    }

    fn pack(&self, batches: &[Batch]) -> Result<Packed> {
        let (mut compressor, mut all) = (packer(self.level)?, Packed::default());
        let into = copy_into("inosec.raw_blocks", &RAW_BLOCKS);
        let mut kept = Vec::new();
        for (number, batch) in (1_i64..).zip(batches) {
            let items = self.ordered(batch);
            let mut writer = Writer::new();
            let mut start = 0;
            while start < items.len() {
                let end = start + self.length(&items[start..]);
                let block = &items[start..end];
                let first_seq = number << 20 | start as i64;
                let before = thread_cpu();
                let data = compressor.compress(&plain(block, first_seq)).at("compressing")?;
                all.cpu_us += (thread_cpu() - before).as_secs_f64() * 1e6;
                put(&mut writer, block, first_seq, &data);
                (all.blocks, all.events, all.bytes) =
                    (all.blocks + 1, all.events + block.len(), all.bytes + data.len());
                if kept.len() < FETCHES {
                    kept.push((data, first_seq + block.len() as i64 / 2));
                }
                start = end;
            }
            all.transactions.push(vec![(Arc::clone(&into), writer.finish())]);
        }
        let before = Instant::now();
        for (data, seq) in &kept {
            let found = read_block(data).at("reading a block")?.find(*seq).is_some();
            check("a message in its block", 1, u64::from(found))?;
        }
        all.fetch_us = before.elapsed().as_secs_f64() * 1e6 / kept.len() as f64;
        Ok(all)
    }

    fn ordered<'a>(&self, batch: &'a Batch) -> Vec<Item<'a>> {
        let rows = &batch.rows;
        let column = |name: &str| rows.stream.column(name).expect("agent_logs has it");
        let (host, kind) = (column("host_name"), column("event_code"));
        let item = |row: usize| Item {
            tenant: rows.tenant(row),
            host: rows.text(host, row).unwrap_or_default(),
            kind: rows.text(kind, row).unwrap_or_default(),
            ts: rows.ts(row),
            value: batch.messages.value(&batch.messages.entries[rows.message[row] as usize]),
        };
        let mut items: Vec<Item<'a>> = (0..rows.len()).map(item).collect();
        // Stable: what is equal stays in the order of arrival.
        items.sort_by(|a, b| {
            let host = || a.host.cmp(b.host);
            a.tenant.cmp(&b.tenant).then_with(|| match self.order {
                Order::Arrival => std::cmp::Ordering::Equal,
                Order::Time => a.ts.cmp(&b.ts),
                Order::HostTime => host().then(a.ts.cmp(&b.ts)),
                Order::HostKindTime => host().then_with(|| a.kind.cmp(b.kind)).then(a.ts.cmp(&b.ts)),
            })
        });
        items
    }

    /// How many of these make one block.
    fn length(&self, items: &[Item<'_>]) -> usize {
        let mut bytes = 0;
        let fits = |(position, item): &(usize, &Item<'_>)| {
            bytes += item.value.len();
            let full = *position >= self.messages || bytes > self.kib << 10;
            item.tenant == items[0].tenant && (*position == 0 || !full)
        };
        items.iter().enumerate().take_while(fits).count()
    }
}

/// The content of a block, as `docs/raw-blocks.md` describes it.
fn plain(block: &[Item<'_>], first_seq: i64) -> Vec<u8> {
    let mut plain = (block.len() as u32).to_le_bytes().to_vec();
    for (seq, item) in (first_seq..).zip(block) {
        plain.extend_from_slice(&seq.to_le_bytes());
        plain.extend_from_slice(&(item.value.len() as u32).to_le_bytes());
    }
    block.iter().for_each(|item| plain.extend_from_slice(item.value));
    plain
}

fn put(writer: &mut Writer, block: &[Item<'_>], first_seq: i64, data: &[u8]) {
    let ts = block.iter().map(|item| item.ts).max().unwrap_or_default();
    let last_seq = first_seq + block.len() as i64 - 1;
    writer.tuple(RAW_BLOCKS.len() as i16);
    writer.timestamp(ts);
    writer.field(Some(block[0].tenant.0.as_bytes()));
    writer.field(Some(b"agent_logs"));
    writer.field(Some(&first_seq.to_be_bytes()));
    writer.field(Some(&last_seq.to_be_bytes()));
    writer.field(Some(&(block.len() as i32).to_be_bytes()));
    writer.field(Some(b"zstd"));
    writer.field(Some(data));
}
