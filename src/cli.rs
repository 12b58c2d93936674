//! The command line: what the user typed, and who does it.
//!
//! Every command takes `-c/--config` and `--output`. With `--output json` stdout holds exactly one
//! JSON document; logs and progress go to stderr. Exit status 0 means success and nothing else.

mod check;
mod demo;
mod dlq;
mod events;
mod migrate;
mod offsets;
mod output;
mod replay;
mod rules;
mod run;
mod tenant;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{Config, Faults};
pub use output::Output;

/// Security telemetry from host to alert to archive.
#[derive(Debug, Parser)]
#[command(name = "inosec", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// The configuration file (TOML); INOSEC__SECTION__KEY in the environment goes on top of it.
    #[arg(short, long, global = true, env = "INOSEC_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to print results.
    #[arg(long, global = true, value_enum, default_value_t = Form::Text)]
    output: Form,
    #[command(subcommand)]
    command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    Text,
    /// One JSON document on stdout.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Carry events from Kafka to the database until told to stop (SIGTERM; twice: at once).
    Run(run::Args),
    /// Check the configuration, then that Kafka and the databases can be reached and are ready.
    ///
    /// Exit status: 0 all is well, 2 the configuration has faults, 3 Kafka can't be reached or lacks
    /// a topic, 4 a database can't be reached, 5 a database isn't migrated, 6 a GeoIP database can't be used.
    Check,
    /// Print the effective configuration, secrets redacted.
    Config,
    /// Create or update the databases' tables and roles. Can be repeated.
    Migrate,
    /// Add, list, suspend and resume tenants.
    Tenant(tenant::Args),
    /// Send the lines of a file (NDJSON or text, also .zst) to Kafka.
    Replay(replay::Args),
    /// Check, try, test and list detection rules (Sigma). Needs no server and no configuration.
    Rules(rules::Args),
    /// Find stored events and print them as received.
    Events(events::Args),
    /// List, show and redrive dead letters: messages that could not be stored.
    Dlq(dlq::Args),
    /// List and set the offsets that decide what is read next.
    Offsets(offsets::Args),
    /// Play a day of several tenants through the whole road, with nothing to install.
    Demo(demo::Args),
}

/// Why a command failed, and the exit status that says so.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub status: u8,
    /// What happened and what to do next.
    pub text: String,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { status: 1, text: chain(&error) }
    }
}

impl Failure {
    /// A failure that the printed result already tells of.
    #[must_use]
    pub fn told(status: u8) -> Self {
        Self { status, text: String::new() }
    }

    /// A failure with the general exit status.
    pub fn new(text: impl Into<String>) -> Self {
        Self { status: 1, text: text.into() }
    }
}

/// An error and its causes on one line, leaving out causes the error already quotes.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Who did it, for the audit trail: the operating system's user.
fn actor() -> String {
    let user =
        std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).or_else(|_| std::env::var("LOGNAME"));
    format!("cli:{}", user.unwrap_or_else(|_| "unknown".to_owned()))
}

/// A time in microseconds UTC, as RFC 3339.
fn time(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| format!("{micros} µs"), |time| time.to_string())
}

/// Does what the arguments say.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.output);
    match dispatch(cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.status)
        }
    }
}

fn dispatch(cli: Cli, output: &Output) -> Result<(), Failure> {
    if let Command::Demo(args) = cli.command {
        return block_on(demo::demo(args, output));
    }
    if let Command::Rules(args) = cli.command {
        let config = Config::load_offline(cli.config.as_deref(), std::env::vars()).map_err(faulty)?;
        crate::logs::install(&config.log).map_err(Failure::new)?;
        return rules::rules(&args, &config, output);
    }
    let config = load(cli.config.as_deref())?;
    crate::logs::install(&config.log).map_err(Failure::new)?;
    match cli.command {
        Command::Run(args) => block_on(run::run(args, config)),
        Command::Check => block_on(check::check(&config, output)),
        Command::Config => output.text_or_json(&config.to_toml(), || config.to_json()),
        Command::Migrate => block_on(migrate::migrate(&config, output)),
        Command::Tenant(args) => block_on(tenant::tenant(args, &config, output)),
        Command::Replay(args) => replay::replay(&args, &config, output),
        Command::Events(args) => block_on(events::events(args, &config, output)),
        Command::Dlq(args) => block_on(dlq::dlq(args, &config, output)),
        Command::Offsets(args) => block_on(offsets::offsets(args, &config, output)),
        Command::Demo(_) | Command::Rules(_) => unreachable!("handled above"),
    }
}

/// The configuration; its faults end a command with status 2.
fn load(file: Option<&std::path::Path>) -> Result<Config, Failure> {
    Config::load(file, std::env::vars()).map_err(faulty)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn faulty(faults: Faults) -> Failure {
    Failure { status: 2, text: faults.to_string() }
}

fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}
