//! `inosec dlq`: messages that could not be stored.

use clap::Subcommand;
use inosec_schemas::TenantId;
use inosec_sink::{Letter, LetterContents, LetterFilter, Redriven, Store};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Failure, Output, actor, time};
use crate::config::Config;
use crate::{databases, pipeline};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    /// The database they are kept in.
    #[arg(long, global = true, default_value = "main")]
    database: String,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List dead letters, newest first.
    List {
        #[command(flatten)]
        which: Which,
        /// Those that were redriven, too.
        #[arg(long)]
        redriven: bool,
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: i64,
    },
    /// Show one: headers and payload. Text prints the payload as received, JSON also in base 16.
    Show {
        /// Its id.
        id: i64,
    },
    /// Send letters through the road again, once their cause is gone. What is still bad stays.
    Redrive {
        /// These letters.
        ids: Vec<i64>,
        #[command(flatten)]
        which: Which,
        /// All that match, or all there are.
        #[arg(long)]
        all: bool,
        /// At most this many, oldest first.
        #[arg(long, default_value_t = i64::MAX, hide_default_value = true)]
        limit: i64,
    },
}

/// Which letters.
#[derive(Debug, Clone, clap::Args)]
struct Which {
    /// Only those with this reason, such as unknown_tenant.
    #[arg(long)]
    reason: Option<String>,
    /// Only those of this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only those of this tenant.
    #[arg(long)]
    tenant: Option<Uuid>,
}

impl Which {
    fn filter(self, ids: Vec<i64>, redriven: bool) -> LetterFilter {
        LetterFilter {
            ids,
            reason: self.reason,
            topic: self.topic,
            tenant: self.tenant.map(TenantId),
            redriven,
        }
    }
}

/// Does what was asked.
pub async fn dlq(args: Args, config: &Config, output: &Output) -> Result<(), Failure> {
    let store = databases::connect(config, &args.database).await.map_err(Failure::new)?;
    match args.action {
        Action::List { which, redriven, limit } => {
            let letters = store.dead_letters(&which.filter(Vec::new(), redriven), limit).await?;
            let rows: Vec<Vec<Value>> = letters.iter().map(row).collect();
            output.table(&HEADINGS, &rows)
        }
        Action::Show { id } => show(&store, id, output).await,
        Action::Redrive { ids, which, all, limit } => {
            if ids.is_empty() && !all {
                return Err(Failure::new(
                    "give ids, or --all (with --reason, --topic, --tenant to narrow it)",
                ));
            }
            let topics = pipeline::topics_without_kafka(config, &args.database)?;
            let redo = pipeline::redo(config, &args.database, &store).await?;
            let filter = which.filter(ids, false);
            let done = inosec_sink::redrive(&store, &filter, limit, &topics, &redo, &actor()).await?;
            report(&done, output)
        }
    }
}

const HEADINGS: [&str; 10] = [
    "id",
    "received_at",
    "tenant_id",
    "reason",
    "detail",
    "topic",
    "partition",
    "offset",
    "bytes",
    "redriven_at",
];

fn row(letter: &Letter) -> Vec<Value> {
    vec![
        json!(letter.id),
        json!(time(letter.received_at)),
        json!(letter.tenant),
        json!(letter.reason),
        json!(letter.detail),
        json!(letter.topic),
        json!(letter.partition),
        json!(letter.offset),
        json!(letter.payload_bytes),
        json!(letter.redriven_at.map(time)),
    ]
}

async fn show(store: &Store, id: i64, output: &Output) -> Result<(), Failure> {
    let Some(contents) = store.dead_letter(id).await? else {
        return Err(Failure::new(format!("there is no dead letter {id}: `inosec dlq list` shows them")));
    };
    let text = text_of(&contents);
    output.text_or_json(&text, || {
        let mut document: serde_json::Map<String, Value> =
            HEADINGS.iter().map(|key| (*key).to_owned()).zip(row(&contents.letter)).collect();
        document.insert("headers".to_owned(), contents.headers.clone());
        let payload = contents.payload.as_deref();
        document.insert("payload".to_owned(), json!(payload.map(String::from_utf8_lossy)));
        document.insert("payload_hex".to_owned(), json!(payload.map(hex)));
        Value::Object(document)
    })
}

fn text_of(contents: &LetterContents) -> String {
    let letter = &contents.letter;
    let payload = match &contents.payload {
        Some(payload) => String::from_utf8_lossy(payload).into_owned(),
        None => "(no payload: a tombstone, or beyond the tenant's quota)".to_owned(),
    };
    format!(
        "{} {}: {}\nreceived {}, {}/{} at offset {}\nheaders {}\n\n{payload}",
        letter.id,
        letter.reason,
        letter.detail,
        time(letter.received_at),
        letter.topic,
        letter.partition,
        letter.offset,
        contents.headers,
    )
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn report(done: &Redriven, output: &Output) -> Result<(), Failure> {
    let mut text = format!("{} redriven, {} still rejected", done.redriven, done.still.len());
    for (id, reason, detail) in done.still.iter().take(20) {
        text.push_str(&format!("\n  {id} {reason}: {detail}"));
    }
    for (id, why) in done.skipped.iter().take(20) {
        text.push_str(&format!("\n  {id} not tried: {why}"));
    }
    output.text_or_json(&text, || {
        let still = done
            .still
            .iter()
            .map(|(id, reason, detail)| json!({ "id": id, "reason": reason, "detail": detail }));
        let skipped = done.skipped.iter().map(|(id, why)| json!({ "id": id, "why": why }));
        json!({
            "redriven": done.redriven,
            "taken_by_others": done.taken,
            "still_rejected": still.collect::<Vec<_>>(),
            "not_tried": skipped.collect::<Vec<_>>(),
        })
    })
}
