//! `inosec offsets`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Failure, Output, actor, time};
use crate::config::Config;
use crate::databases;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    /// The database that keeps the offsets.
    #[arg(long, global = true, default_value = "main")]
    database: String,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List where each partition stands: the next offset to be stored.
    List {
        /// Only this topic.
        #[arg(long)]
        topic: Option<String>,
    },
    /// Set where a partition is read next. Messages before it are never read, or, going back, stored again.
    Set {
        /// The topic.
        #[arg(long)]
        topic: String,
        /// The partition.
        #[arg(long)]
        partition: i32,
        /// The next offset.
        #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
        to: i64,
        /// The Kafka cluster's id, where the table knows several that have this topic.
        #[arg(long)]
        cluster: Option<String>,
    },
}

/// Does what was asked.
pub async fn offsets(args: Args, config: &Config, output: &Output) -> Result<(), Failure> {
    let store = databases::connect(config, &args.database).await.map_err(Failure::new)?;
    match args.action {
        Action::List { topic } => {
            let rows: Vec<Vec<Value>> = store
                .offsets(topic.as_deref())
                .await?
                .iter()
                .map(|row| {
                    let updated = time(row.updated_at);
                    vec![
                        json!(row.cluster),
                        json!(row.topic),
                        json!(row.partition),
                        json!(row.next_offset),
                        json!(updated),
                    ]
                })
                .collect();
            output.table(&["cluster", "topic", "partition", "next_offset", "updated_at"], &rows)
        }
        Action::Set { topic, partition, to, cluster } => {
            let cluster = match cluster {
                Some(cluster) => cluster,
                None => only_cluster(&store, &topic).await?,
            };
            let before = store.set_offset((&cluster, &topic, partition), to, &actor()).await?;
            let was = before.map_or_else(|| "unknown".to_owned(), |before| before.to_string());
            let text = format!("partition {partition} of {topic} is read next from {to} (it was {was})");
            output.text_or_json(&text, || {
                json!({ "cluster": cluster, "topic": topic, "partition": partition, "from": before, "to": to })
            })
        }
    }
}

/// The one cluster the table knows for this topic.
async fn only_cluster(store: &inosec_sink::Store, topic: &str) -> Result<String, Failure> {
    let mut clusters: Vec<String> =
        store.offsets(Some(topic)).await?.into_iter().map(|row| row.cluster).collect();
    clusters.dedup();
    match clusters.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Failure::new(format!("no offset of {topic} is stored yet: give --cluster to set one"))),
        several => {
            Err(Failure::new(format!("{topic} is known of clusters {}: give --cluster", several.join(", "))))
        }
    }
}
