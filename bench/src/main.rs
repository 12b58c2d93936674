//! What inosec costs: micro benchmarks of its CPU work, and the whole road on real servers beside the
//! raw limits of what it stands on. A speed claim in the README links to a run made by this program.

mod blocks;
mod canary;
mod copyform;
mod corpus;
mod correlate;
mod deck;
mod detect;
mod e2e;
mod error;
mod kafka;
mod latency;
mod limits;
mod machine;
mod micro;
mod peers;
mod phase;
mod postgres;
mod report;
mod rivals;
mod road;
mod stats;
mod usage;

use clap::Parser;

use crate::corpus::Corpus;
use crate::error::{At as _, Result};

/// The allocator of the program under test.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(about, name = "inosec-bench")]
enum Command {
    /// Parse and decode, one thread, without servers (the same run as `encode`)
    Decode(micro::Args),
    /// Seal, compress and encode, one thread, without servers (the same run as `decode`)
    Encode(micro::Args),
    /// Sigma rules over events, one thread, beside rsigma (feature `rsigma`); writes bench/runs/
    Detect(detect::Args),
    /// Threat events folded into episodes, one thread, beside rsigma (feature `rsigma`); writes bench/runs/
    Correlate(correlate::Args),
    /// Raw blocks by size, order and level, on a real server; writes bench/runs/
    Blocks(blocks::Args),
    /// Kafka to hot store on real servers, beside the raw limits; writes bench/runs/
    E2e(e2e::Args),
}

fn main() -> Result<()> {
    match Command::parse() {
        // Each step's share only means something beside the others, so both time all of them.
        Command::Decode(args) | Command::Encode(args) => {
            let corpus = Corpus::load(&args.choice)?;
            println!("{}", corpus.description);
            if let Some(micro) = micro::run(&corpus, &args)? {
                micro::print(&micro);
            }
            Ok(())
        }
        Command::Detect(args) => detect::run(&args),
        Command::Correlate(args) => correlate::run(&args),
        Command::Blocks(args) => runtime()?.block_on(blocks::run(args)),
        Command::E2e(args) => runtime()?.block_on(e2e::run(args)),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usage::cores().max(2))
        .enable_all()
        .build()
        .at("starting the runtime")
}
