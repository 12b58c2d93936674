//! `inosec events`: finds stored events by typed columns, and inside the raw message.

use std::io::Write as _;
use std::str::FromStr as _;

use inosec_schemas::TenantId;
use inosec_sink::events::{Filter, Query, Search};
use serde_json::json;
use uuid::Uuid;

use super::{Failure, Output, time};
use crate::config::{Config, micros, parse_duration};
use crate::databases;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose events.
    #[arg(long)]
    tenant: Uuid,
    /// Stored at or after this time: RFC 3339, or a duration back from now such as 24h.
    #[arg(long, default_value = "24h")]
    from: String,
    /// Stored before this time.
    #[arg(long, default_value = "0s")]
    to: String,
    /// Of this host.
    #[arg(long)]
    host: Option<String>,
    /// By this user.
    #[arg(long)]
    user: Option<String>,
    /// From or to this address.
    #[arg(long)]
    src_ip: Option<String>,
    /// A condition on a column: NAME=VALUE, also != < <= > >= and ~ (contains). Several must all hold.
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<String>,
    /// The message as received contains this text.
    #[arg(long)]
    text: Option<String>,
    /// The stream.
    #[arg(long, default_value = "agent_logs")]
    stream: String,
    /// At most this many, newest first.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// The database.
    #[arg(long, default_value = "main")]
    database: String,
}

/// Prints what is found, one message a line, as received.
pub async fn events(args: Args, config: &Config, output: &Output) -> Result<(), Failure> {
    let store = databases::connect(config, &args.database).await.map_err(Failure::new)?;
    let catalog = databases::catalog(config)?;
    let stream = catalog
        .streams
        .get(&args.stream)
        .cloned()
        .ok_or_else(|| Failure::new(format!("there is no stream {}", args.stream)))?;
    let mut filters = Vec::new();
    for condition in &args.conditions {
        filters.push(Filter::from_str(condition)?);
    }
    for (column, value) in [("host_name", &args.host), ("user_name", &args.user), ("src_ip", &args.src_ip)] {
        if let Some(value) = value {
            filters.push(Filter::from_str(&format!("{column}={value}"))?);
        }
    }
    let query = Query {
        stream,
        tenant: TenantId(args.tenant),
        from: moment(&args.from)?,
        to: moment(&args.to)?,
        filters,
        text: args.text,
        limit: args.limit,
    };
    let mut search = Search::new(&store, query)?;
    let mut documents = Vec::new();
    let mut stdout = std::io::stdout().lock();
    while let Some(hits) = search.next().await? {
        for hit in hits {
            let message = hit.message.unwrap_or_default();
            if output.json() {
                let text = String::from_utf8_lossy(&message);
                documents.push(json!({ "ts": time(hit.ts), "seq": hit.seq, "message": text }));
            } else if stdout.write_all(&message).and_then(|()| stdout.write_all(b"\n")).is_err() {
                return Ok(());
            }
        }
    }
    drop(stdout);
    if output.json() { output.text_or_json("", || json!(documents)) } else { Ok(()) }
}

/// A time in microseconds UTC: RFC 3339, or so long ago.
pub fn moment(text: &str) -> Result<i64, Failure> {
    if let Some(back) = parse_duration(text) {
        return Ok(databases::now().saturating_sub(micros(back)) + 1);
    }
    let read: Result<jiff::Timestamp, _> = text.parse();
    read.map(jiff::Timestamp::as_microsecond).map_err(|_| {
        Failure::new(format!("{text:?} is no time: write 2026-01-02T03:04:05Z, or 24h for a day ago"))
    })
}
