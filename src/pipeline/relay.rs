//! Changes of alerts, from their table to the alerts topic: at least once, in order for each tenant.
//!
//! It reads what is committed and holds up nobody. A broker that is away is waited for; what it may have
//! taken already is sent again.

use std::sync::Arc;
use std::time::Duration;

use inosec_enrich::metrics as names;
use inosec_sink::Store;
use inosec_sink::correlator::Outgoing;
use metrics::counter;
use tracing::warn;

use crate::config::Config;
use crate::producer::Producer;

/// Changes sent before it is noted that they were.
const MOST: i64 = 1_000;
/// Between two looks when there is nothing to send.
const IDLE: Duration = Duration::from_millis(200);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// How long the brokers may take to acknowledge.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs until dropped.
pub async fn run(config: Arc<Config>, database: String, store: Arc<Store>) {
    loop {
        let Err(why) = send(&config, &store).await;
        warn!(database, why, "changes of alerts can't be sent, trying again");
        tokio::time::sleep(RETRY).await;
    }
}

async fn send(config: &Arc<Config>, store: &Store) -> Result<std::convert::Infallible, String> {
    let feed = store.feed().await.map_err(|error| error.to_string())?;
    let mut producer = Producer::new(&config.kafka).map_err(|error| error.to_string())?;
    loop {
        let changes = feed.unsent(MOST).await.map_err(|error| error.to_string())?;
        if changes.is_empty() {
            tokio::time::sleep(IDLE).await;
            continue;
        }
        let topic = config.correlate.alerts_topic.clone().unwrap_or_default();
        let sent = tokio::task::spawn_blocking(move || {
            let sent = send_all(&producer, &topic, &changes);
            (producer, changes, sent)
        });
        let (back, changes, sent) = sent.await.map_err(|error| error.to_string())?;
        producer = back;
        let outcome = if sent.is_ok() { "sent" } else { "failed" };
        counter!(names::RELAY_CHANGES, "outcome" => outcome).increment(changes.len() as u64);
        sent?;
        feed.sent(&changes).await.map_err(|error| error.to_string())?;
    }
}

/// Sends all and waits until the brokers have all of it.
fn send_all(producer: &Producer, topic: &str, changes: &[Outgoing]) -> Result<(), String> {
    let before = producer.acknowledged();
    for change in changes {
        let tenant = change.tenant.to_string();
        let sent = producer.send_keyed(topic, tenant.as_bytes(), change.message.as_bytes(), Some(&tenant));
        sent.map_err(|error| error.to_string())?;
    }
    producer.flush(PATIENCE).map_err(|error| error.to_string())?;
    let acknowledged = producer.acknowledged() - before;
    if acknowledged == changes.len() as u64 {
        Ok(())
    } else {
        Err(format!("brokers took {acknowledged} of {} changes", changes.len()))
    }
}
