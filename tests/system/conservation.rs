//! The whole corpus through real Kafka into both hot stores: rows + dead letters = messages, the
//! exact bytes, and what independent experts expect to find in them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::support::database::Database;
use crate::support::kafka::{self, Ledger, Producer};
use crate::support::process::{Running, Setup};
use crate::support::servers::Store;
use crate::support::{blocks, calm, corpus, eventually};

const TENANTS: usize = 5;
const PARTITIONS: i32 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn the_corpus_is_conserved_in_timescaledb() {
    conserve(Store::Timescale).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_corpus_is_conserved_in_plain_postgresql() {
    conserve(Store::Postgres).await;
}

async fn conserve(store: Store) {
    let _calm = calm().await;
    let Some(mut lines) = corpus::lines("agent_logs.ndjson.zst") else { return };
    let agent_lines = lines.len();
    lines.extend(corpus::lines("threat_events.ndjson.zst").expect("both files are there"));
    assert_eq!((agent_lines, lines.len() - agent_lines), (165_473, 31_040));

    let database = Database::create(store).await;
    let topic = kafka::topic_name("conservation");
    kafka::create_topic(&topic, PARTITIONS, &[]).await;
    let setup = Setup::new(
        &database.url,
        &topic,
        &format!("[[topics]]\nname = \"{topic}\"\nstream = \"agent_logs\"\ntenant = \"header\"\n"),
    );
    setup.json(&["migrate"]);
    let tenants: Vec<Uuid> =
        (0..TENANTS).map(|tenant| add_tenant(&setup, &format!("tenant {tenant}"))).collect();

    let mut inosec = setup.start(&[]);
    let producer = Producer::new();
    let mut sent = HashMap::new();
    for line in &lines {
        let tenant = tenant_of(&tenants, line);
        sent.insert(Sha256::digest(line).into(), tenant);
        producer.send(&topic, line, Some(tenant));
    }
    let ledger = producer.ledger();
    wait_consumed(&database, &ledger, &inosec).await;
    assert!(inosec.stop().success());

    let stored = check_bytes(&database, &ledger, &sent).await;
    check_detections(&database, &lines[agent_lines..]).await;
    check_expectations(&stored);
    check_counts(&database).await;
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

/// `inosec tenant add`, and the id it prints.
pub fn add_tenant(setup: &Setup, name: &str) -> Uuid {
    setup.json(&["tenant", "add", "--name", name])["id"].as_str().unwrap().parse().unwrap()
}

fn tenant_of(tenants: &[Uuid], line: &[u8]) -> Uuid {
    tenants[Sha256::digest(line)[0] as usize % tenants.len()]
}

/// Until the table's offsets stand behind the ledger's last message of every partition.
pub async fn wait_consumed(database: &Database, ledger: &Ledger, inosec: &Running) {
    let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
    for (partition, offset, _) in ledger {
        let end = ends.entry(*partition).or_default();
        *end = (*end).max(offset + 1);
    }
    let what = format!("all of {} messages consumed; log: {}", ledger.len(), inosec.log.display());
    eventually(&what, Duration::from_secs(300), || async {
        let rows = database.rows("SELECT partition, next_offset FROM inosec.ingest_offsets", &[]).await;
        let stored: BTreeMap<i32, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let behind = ends.iter().any(|(partition, end)| stored.get(partition).is_none_or(|next| next < end));
        (!behind).then_some(())
    })
    .await;
}

/// Every acknowledged message is one row with its bytes, under its tenant; returns the bytes.
async fn check_bytes(database: &Database, ledger: &Ledger, sent: &HashMap<[u8; 32], Uuid>) -> Vec<Vec<u8>> {
    let dead = database.rows("SELECT reason, count(*) FROM inosec.dead_letters GROUP BY 1", &[]).await;
    let dead: Vec<(String, i64)> = dead.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(dead.is_empty(), "the corpus holds nothing that can't be stored: {dead:?}");
    let raw = blocks::messages(database, "agent_logs").await;
    let sql = "SELECT kafka_partition, kafka_offset, tenant_id, seq FROM inosec.agent_logs";
    let mut rows: HashMap<(i32, i64), (Uuid, i64)> = HashMap::new();
    for row in database.rows(sql, &[]).await {
        let place = (row.get(0), row.get(1));
        assert!(rows.insert(place, (row.get(2), row.get(3))).is_none(), "{place:?} is stored twice");
    }
    assert_eq!((rows.len(), raw.len()), (ledger.len(), ledger.len()), "rows and raw messages = messages");
    for (partition, offset, hash) in ledger {
        let (tenant, seq) = rows[&(*partition, *offset)];
        assert_eq!(tenant, sent[hash], "tenant of {partition}/{offset}");
        let message = &raw[&(tenant, seq)];
        assert_eq!(<[u8; 32]>::from(Sha256::digest(message)), *hash, "bytes of {partition}/{offset}");
    }
    raw.into_values().collect()
}

/// Every EVE alert is also a threat event, each once, of the event it came in.
async fn check_detections(database: &Database, lines: &[Vec<u8>]) {
    let is_alert = |line: &&Vec<u8>| {
        let value: Value = serde_json::from_slice(line).unwrap();
        value["event"]["event_type"] == "alert"
    };
    let alerts = i64::try_from(lines.iter().filter(is_alert).count()).unwrap();
    assert_eq!(database.number("SELECT count(*) FROM inosec.threat_events").await, alerts);
    assert_eq!(
        database.number("SELECT count(DISTINCT (tenant_id, id)) FROM inosec.threat_events").await,
        alerts
    );
    let joined = "SELECT count(*) FROM inosec.threat_events t JOIN inosec.agent_logs a
         ON a.event_id = t.event_id AND a.tenant_id = t.tenant_id AND a.seq = t.seq";
    assert_eq!(database.number(joined).await, alerts);
}

/// The checks of suricata-verify over what was stored.
fn check_expectations(stored: &[Vec<u8>]) {
    let mut events: HashMap<String, Vec<Value>> = HashMap::new();
    for message in stored {
        let Ok(mut value) = serde_json::from_slice::<Value>(message) else { continue };
        let source = value["src"].as_str().unwrap_or_default().to_owned();
        if source.starts_with("suricata-verify/") {
            events.entry(source).or_default().push(value["event"].take());
        }
    }
    let text =
        std::fs::read_to_string(corpus::folder().unwrap().join("suricata_verify_expected.jsonl")).unwrap();
    let mut checks = 0;
    for line in text.lines() {
        let expected: Value = serde_json::from_str(line).unwrap();
        let source = expected["src"].as_str().unwrap();
        let found = events.get(source).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(found.len() as u64, expected["events"].as_u64().unwrap(), "{source}");
        for check in expected["checks"].as_array().unwrap() {
            let matching = found.iter().filter(|event| matches(event, &check["match"])).count();
            assert_eq!(matching as u64, check["count"].as_u64().unwrap(), "{source}: {check}");
            checks += 1;
        }
    }
    assert_eq!(checks, 2245);
}

fn matches(event: &Value, filter: &Value) -> bool {
    filter.as_object().unwrap().iter().all(|(key, expected)| match key.as_str() {
        "has-key" => keys(expected).all(|path| find(event, path).is_some()),
        "not-has-key" => keys(expected).all(|path| find(event, path).is_none()),
        key => match key.strip_suffix(".__endswith") {
            Some(path) => {
                let text = find(event, path).and_then(Value::as_str);
                text.is_some_and(|text| text.ends_with(expected.as_str().unwrap()))
            }
            None => find(event, key).is_some_and(|value| same(value, expected)),
        },
    })
}

fn keys(value: &Value) -> impl Iterator<Item = &str> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or(std::slice::from_ref(value));
    list.iter().filter_map(Value::as_str)
}

/// Equal as Python sees it: `1 == 1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a_number), Some(b_number)) => a_number == b_number || a == b,
        _ => a == b,
    }
}

/// `a.b[0].c`; a null counts as absent.
fn find<'a>(event: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = event;
    for part in path.split('.') {
        let (name, index) = match part.split_once('[') {
            Some((name, index)) => (name, index.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        value = value.get(name)?;
        if let Some(index) = index {
            value = value.get(index)?;
        }
    }
    (!value.is_null()).then_some(value)
}

/// `event_counts` and `host_devices` say exactly what the rows say.
pub async fn check_counts(database: &Database) {
    for stream in ["agent_logs", "threat_events"] {
        let sql = format!(
            "WITH counted AS (
               SELECT bucket, tenant_id, class_uid, severity_id, sum(events)::bigint AS events
               FROM inosec.event_counts WHERE stream = '{stream}' GROUP BY 1, 2, 3, 4
             ), actual AS (
               SELECT date_trunc('hour', ts) AS bucket, tenant_id, {class} AS class_uid, severity_id,
                      count(*)::bigint AS events
               FROM inosec.{stream} GROUP BY 1, 2, 3, 4
             )
             SELECT count(*) FROM counted FULL JOIN actual USING (bucket, tenant_id, class_uid, severity_id)
             WHERE counted.events IS DISTINCT FROM actual.events",
            class = if stream == "agent_logs" { "class_uid" } else { "0" },
        );
        assert_eq!(database.number(&sql).await, 0, "event_counts of {stream} differ from its rows");
    }
    let hosts = "WITH actual AS (
           SELECT tenant_id, host_name, min(ts) AS first_seen, max(ts) AS last_seen
           FROM inosec.agent_logs WHERE host_name IS NOT NULL GROUP BY 1, 2
         )
         SELECT count(*) FROM inosec.host_devices h FULL JOIN actual a USING (tenant_id, host_name)
         WHERE (h.first_seen, h.last_seen) IS DISTINCT FROM (a.first_seen, a.last_seen)";
    assert_eq!(database.number(hosts).await, 0, "host_devices differ from the rows");
}
