//! Delay from the producer's call to the committed alert, at half the rate of the road with rules on.
//!
//! Ten times a second an event of a new host goes among the corpus's, which a rule of its own finds: an alert
//! of its own. The feed of alerts' changes is looked at every few milliseconds, as a reader of it would.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use inosec_schemas::TenantId;
use tokio::sync::watch;

use crate::corpus::Corpus;
use crate::error::{At, Error, Result};
use crate::kafka::{Producer, Topic};
use crate::latency::{LINGER, Latency, REST, WARM_UP, send};
use crate::postgres::{Database, connect};
use crate::road::Inosec;

const RULE_ID: &str = "be0c0000-0000-4000-8000-00000000ca01";
/// The rule's file.
pub const RULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/canary.yml");
/// Between two of them: fewer a minute than a rule may match.
const EVERY: Duration = Duration::from_millis(100);
/// Between two looks at the feed.
const LOOK: Duration = Duration::from_millis(5);

/// Sends at `rate` for `seconds`, canaries among it, and waits for their alerts.
pub async fn measure(
    topic: &Topic,
    corpus: &Corpus,
    database: &Database,
    inosec: &mut Inosec,
    rate: f64,
    seconds: u64,
) -> Result<Latency> {
    let tenant = corpus.tenants()[0];
    let origin = Instant::now();
    let (stop, stopped) = watch::channel(None);
    let looking = tokio::spawn(look(database.url.clone(), tenant, origin, stopped));
    let mut sent: Vec<Duration> = Vec::new();
    let sending = || {
        let mut producer = Producer::new(topic, corpus, LINGER)?;
        let took = send(&mut producer, rate, seconds, |producer| {
            if origin.elapsed() >= sent.last().map_or(WARM_UP, |last| *last + EVERY) {
                sent.push(origin.elapsed());
                producer.send_other(tenant, event(sent.len() - 1).as_bytes())?;
            }
            Ok(())
        })?;
        let events = producer.sent();
        producer.finish()?;
        Ok((events as u64, took))
    };
    let done: Result<(u64, Duration)> = tokio::task::block_in_place(sending);
    // The looking ends by itself once all alerts are there; if it failed, it says so below.
    let _ = stop.send(Some(if done.is_ok() { sent.len() } else { 0 }));
    let (events, took) = done?;
    let seen = looking.await.at("looking at the alerts")??;
    inosec.alive()?;
    let delay = |(number, at): (usize, &Duration)| seen[&number].saturating_sub(*at).as_secs_f64();
    let delays: Vec<f64> = sent.iter().enumerate().map(delay).collect();
    Ok(Latency::new(rate, events, took, &delays))
}

fn event(number: usize) -> String {
    let now = jiff::Timestamp::now().strftime("%F %T");
    serde_json::json!({
        "EventID": 1, "Channel": "Microsoft-Windows-Sysmon/Operational", "Hostname": format!("canary-{number}"),
        "SourceName": "Microsoft-Windows-Sysmon", "EventTime": now.to_string(),
        "EventReceivedTime": now.to_string(), "Image": r"C:\canary.exe", "CommandLine": "inosec-bench canary",
    })
    .to_string()
}

/// When the alert of each canary was first seen; ends when there are as many as were sent.
async fn look(
    url: String,
    tenant: TenantId,
    origin: Instant,
    stopped: watch::Receiver<Option<usize>>,
) -> Result<HashMap<usize, Duration>> {
    let client = connect(&url).await?;
    let sql = "SELECT coalesce(max(last_seq), 0)::bigint FROM inosec.alert_sequences WHERE tenant_id = $1";
    let row = client.query_one(sql, &[&tenant.0]).await.at("looking at the alerts")?;
    let mut seq: i64 = row.get(0);
    let sql = "SELECT seq, alert->'entities'->'hosts'->>0 FROM inosec.alert_changes
        WHERE tenant_id = $1 AND seq > $2 AND alert->>'rule_id' = $3 ORDER BY seq";
    let statement = client.prepare(sql).await.at("preparing to look at the alerts")?;
    let mut seen = HashMap::new();
    let mut deadline = None;
    loop {
        let rows = client.query(&statement, &[&tenant.0, &seq, &RULE_ID]).await;
        let at = origin.elapsed();
        for row in rows.at("looking at the alerts")? {
            seq = row.get(0);
            let host: Option<&str> = row.get(1);
            let number = host.and_then(|host| host.strip_prefix("canary-")?.parse().ok());
            seen.entry(number.at("an alert of no canary")?).or_insert(at);
        }
        if let Some(sent) = *stopped.borrow() {
            if seen.len() >= sent {
                return Ok(seen);
            }
            if Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + REST) {
                return Err(Error::new(format!("{} of {sent} alerts after {REST:?}", seen.len())));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
