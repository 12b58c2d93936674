//! Detections of others: on the threat-events topic and inside agent logs, attributed like everything
//! else, each stored once however often it is sent.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::conservation::{add_tenant, check_counts, wait_consumed};
use crate::support::calm;
use crate::support::database::Database;
use crate::support::kafka::{self, Producer};
use crate::support::process::{INGEST_ONLY, Setup};
use crate::support::servers::Store;

const PARTITIONS: i32 = 2;

struct Arena {
    topic: String,
    setup: Setup,
    database: Database,
}

impl Arena {
    async fn new(store: Store, stream: &str, tenant: &str) -> Self {
        let database = Database::create(store).await;
        let topic = kafka::topic_name("foreign");
        kafka::create_topic(&topic, PARTITIONS, &[]).await;
        let more = format!(
            "[[topics]]\nname = \"{topic}\"\nstream = \"{stream}\"\ntenant = \"{tenant}\"\n\
             [time]\nmax_age = \"36500d\"\n"
        );
        let setup = Setup::new(&database.url, &topic, &more);
        setup.json(&["migrate"]);
        Self { topic, setup, database }
    }

    async fn end(self) {
        self.database.drop().await;
        kafka::delete_topic(&self.topic).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_threat_event_changes_nothing_anywhere() {
    let _calm = calm().await;
    for store in Store::BOTH {
        repeated(store).await;
    }
}

/// Sent once, then all of it sent again in other partitions and read again from the first offset.
async fn repeated(store: Store) {
    let arena = Arena::new(store, "threat_events", "payload").await;
    let Arena { topic, setup, database } = &arena;
    let tenants = [add_tenant(setup, "one"), add_tenant(setup, "other")];
    let events: Vec<Value> = (0..60).map(|number| threat(tenants[number % 2], number)).collect();
    let producer = Producer::new();
    let send = |shift: usize| {
        for (number, event) in events.iter().enumerate() {
            let partition = i32::try_from(number + shift).unwrap() % PARTITIONS;
            producer.send_to(topic, partition, event.to_string().as_bytes(), None);
        }
    };
    send(0);
    let mut inosec = setup.start(&[]);
    wait_consumed(database, &producer.ledger(), &inosec).await;
    assert!(inosec.stop().success());
    let before = everything(database).await;
    assert_eq!(database.number("SELECT count(*) FROM inosec.threat_events").await, 60);
    assert_eq!(database.number("SELECT count(*) FROM inosec.host_devices").await, 2 * 7);
    assert_eq!(database.number("SELECT sum(events)::bigint FROM inosec.event_counts").await, 60);

    send(1);
    let ledger = producer.ledger();
    for partition in 0..PARTITIONS {
        let partition = partition.to_string();
        setup.json(&["offsets", "set", "--topic", topic, "--partition", &partition, "--to", "0"]);
    }
    let mut inosec = setup.start(&[]);
    wait_consumed(database, &ledger, &inosec).await;
    assert!(inosec.stop().success());
    assert_eq!(everything(database).await, before);
    assert_eq!(database.number("SELECT count(*) FROM inosec.dead_letters").await, 0);
    arena.end().await;
}

fn threat(tenant: Uuid, number: usize) -> Value {
    let severity = ["Critical", "HIGH", "4", "low"][number % 4];
    let detected_at = format!("2026-11-0{}T00:00:00Z", 1 + number % 9);
    json!({
        "id": Uuid::new_v4(), "tenant_id": tenant, "signature": format!("Beacon {}", number % 5),
        "severity": severity, "detected_at": detected_at,
        "techniques": ["T1071"], "source": "edr", "rule_id": format!("r{}", number % 5),
        "payload": {"host": format!("ws{}", number % 7), "user": "ann"},
    })
}

/// What a threat event leaves behind, as text, without what correlation makes of it later.
async fn everything(database: &Database) -> Vec<String> {
    let mut all = Vec::new();
    for table in ["threat_events", "threat_event_ids", "event_counts", "host_devices"] {
        let sql = format!("SELECT (to_jsonb(t) - 'alert_id')::text FROM inosec.{table} AS t ORDER BY 1");
        all.extend(
            database.rows(&sql, &[]).await.iter().map(|row| format!("{table}: {}", row.get::<_, &str>(0))),
        );
    }
    // Rows of the queue come and go; its numbers tell whether there were more.
    let sql = "SELECT last_value FROM pg_sequences
        WHERE schemaname = 'inosec' AND sequencename = 'correlation_queue_id_seq'";
    all.push(format!("queued: {}", database.number(sql).await));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn detections_in_agent_logs_are_threat_events_and_named_ones_once() {
    let _calm = calm().await;
    for store in Store::BOTH {
        inside_agent_logs(store).await;
    }
}

/// Each message is sent three times, the last time in an envelope: three agent events. What has an id or a time is
/// one threat event.
async fn inside_agent_logs(store: Store) {
    let arena = Arena::new(store, "agent_logs", "header").await;
    let Arena { topic, setup, database } = &arena;
    let tenants = [add_tenant(setup, "one"), add_tenant(setup, "other")];
    let mut timeless = eve();
    timeless["timestamp"] = json!("long ago");
    let uuid = Some(Uuid::from_u128(7));
    let messages = [falco(uuid), falco(None), timeless, wazuh(10), wazuh(0), defender(), eve()];
    let producer = Producer::new();
    let mut inosec = setup.start(INGEST_ONLY);
    for round in 0..3 {
        for message in &messages {
            let enveloped = json!({"event": message, "collector": "c-1"});
            let message = if round == 2 { &enveloped } else { message };
            for tenant in tenants {
                producer.send_to(topic, round % PARTITIONS, message.to_string().as_bytes(), Some(tenant));
            }
        }
        // So that repeats come both within a batch and after it.
        if round == 1 {
            wait_consumed(database, &producer.ledger(), &inosec).await;
        }
    }
    wait_consumed(database, &producer.ledger(), &inosec).await;
    assert!(inosec.stop().success());

    let sql =
        "SELECT tenant_id, source, severity_id, signature, host_name, user_name, host(src_ip), techniques,
            count(*), count(DISTINCT id)
        FROM inosec.threat_events GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1, 2, 9";
    let rows = database.rows(sql, &[]).await;
    for tenant in tenants {
        let of_tenant = rows.iter().filter(|row| row.get::<_, Uuid>(0) == tenant);
        let found: Vec<Value> = of_tenant
            .map(|row| {
                assert_eq!(row.get::<_, i64>(8), row.get::<_, i64>(9), "each has an id of its own");
                let text = |column| row.get::<_, Option<String>>(column);
                let techniques = row.get::<_, Option<Vec<String>>>(7).unwrap_or_default();
                json!([
                    text(1),
                    row.get::<_, i16>(2),
                    text(3),
                    text(4),
                    text(5),
                    text(6),
                    techniques,
                    row.get::<_, i64>(8)
                ])
            })
            .collect();
        // One with an id of its own and one with a time; of Suricata's one has neither.
        let falco =
            json!(["falco", 5, "Invented shell", "node-7", "www-data", "192.0.2.44", ["T1059.004"], 2]);
        assert_eq!(
            found,
            [
                falco,
                json!(["suricata", 4, "INVENTED beacon", "tap-1", null, "192.0.2.3", [], 4]),
                json!([
                    "wazuh",
                    3,
                    "Many failed logins, invented",
                    "gate",
                    "root",
                    "203.0.113.77",
                    ["T1110"],
                    1
                ]),
                json!([
                    "windows-defender",
                    5,
                    "Trojan:Win32/Fabricated.A",
                    "till-04",
                    "SHOP\\mia",
                    null,
                    [],
                    1
                ]),
            ]
        );
    }
    assert_eq!(database.number("SELECT count(*) FROM inosec.agent_logs").await, 3 * 7 * 2);
    let joined = "SELECT count(*) FROM inosec.threat_events t JOIN inosec.agent_logs a
        ON a.event_id = t.event_id AND a.tenant_id = t.tenant_id AND a.seq = t.seq AND a.format <> 'json'";
    assert_eq!(database.number(joined).await, 2 * (2 + 4 + 1 + 1), "each is of the event it came in");
    let queued = "SELECT count(*) FROM (SELECT unnest(ids) AS id, unnest(tenants) AS tenant_id
            FROM inosec.correlation_queue) AS q
        FULL JOIN inosec.threat_events AS t USING (tenant_id, id) WHERE t.ts IS NULL OR q.id IS NULL";
    assert_eq!(database.number(queued).await, 0, "what is stored is queued, and nothing else");
    check_counts(database).await;
    arena.end().await;
}

fn falco(uuid: Option<Uuid>) -> Value {
    let mut alert = json!({
        "hostname": "node-7", "priority": "Critical", "rule": "Invented shell", "source": "syscall",
        "time": "2026-11-20T08:21:00.123456789Z", "output": "A shell below nginx", "tags": ["container", "T1059.004"],
        "output_fields": {"fd.cip": "192.0.2.44", "user.name": "www-data", "proc.cmdline": "sh -c id"},
    });
    if let Some(uuid) = uuid {
        alert["uuid"] = json!(uuid);
    }
    alert
}

fn wazuh(level: u8) -> Value {
    json!({
        "timestamp": "2026-11-20T08:22:00.250+0000", "id": "1767169320.7700", "location": "/var/log/auth.log",
        "rule": {"level": level, "description": "Many failed logins, invented", "id": "99001", "mitre": {"id": ["T1110"]}},
        "agent": {"id": "017", "name": "gate"}, "manager": {"name": "wazuh-a"}, "full_log": "invented",
        "data": {"srcip": "203.0.113.77", "dstuser": "root"},
    })
}

fn defender() -> Value {
    json!({
        "@timestamp": "2026-11-20T08:15:07Z", "winlog": {
            "channel": "Microsoft-Windows-Windows Defender/Operational", "computer_name": "till-04", "event_id": 1116,
            "provider_name": "Microsoft-Windows-Windows Defender", "event_data": {
                "Threat Name": "Trojan:Win32/Fabricated.A", "Threat ID": "2147700001", "Severity ID": "5",
                "Detection User": "SHOP\\mia", "Path": "file:_C:\\offer.exe", "Action Name": "Quarantine",
            },
        },
    })
}

fn eve() -> Value {
    json!({
        "timestamp": "2026-11-20T08:24:00.000001+0000", "event_type": "alert", "host": "tap-1",
        "src_ip": "192.0.2.3", "dest_ip": "198.51.100.3",
        "alert": {"signature_id": 9_000_001, "rev": 2, "signature": "INVENTED beacon", "severity": 1},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_threat_event_that_cannot_be_stored_is_a_dead_letter() {
    let _calm = calm().await;
    let arena = Arena::new(Store::Timescale, "threat_events", "payload").await;
    let Arena { topic, setup, database } = &arena;
    let (tenant, suspended) = (add_tenant(setup, "one"), add_tenant(setup, "suspended"));
    setup.json(&["tenant", "suspend", &suspended.to_string()]);
    let with = |name: &str, value: Value| {
        let mut event = threat(tenant, 0);
        event[name] = value;
        event.to_string()
    };
    let producer = Producer::new();
    let mut expected = Vec::new();
    for (reason, message) in [
        ("unknown_format", with("signature", Value::Null)),
        ("missing_time", with("detected_at", Value::Null)),
        ("missing_time", with("detected_at", json!("lately"))),
        ("type_mismatch", with("id", json!("not a UUID"))),
        ("type_mismatch", with("src_ip", json!("nowhere"))),
        ("unknown_tenant", with("tenant_id", json!(Uuid::new_v4()))),
        ("unknown_tenant", with("tenant_id", Value::Null)),
        ("suspended_tenant", with("tenant_id", json!(suspended))),
        // An agent's event that is no detection has nothing to do here.
        (
            "unknown_format",
            json!({"tenant_id": tenant, "event_type": "flow", "timestamp": "2026-11-20T00:00:00Z"})
                .to_string(),
        ),
        ("bad_json", "{\"signature\": ".to_owned()),
    ] {
        producer.send_to(topic, 0, message.as_bytes(), None);
        expected.push(reason);
    }
    // A payload beyond the column's cap is left out; the message keeps it.
    let long = json!({"text": "x".repeat(20_000)});
    producer.send_to(topic, 0, with("payload", long).as_bytes(), None);
    let mut inosec = setup.start(&[]);
    wait_consumed(database, &producer.ledger(), &inosec).await;
    assert!(inosec.stop().success());
    let rows = database.rows("SELECT reason FROM inosec.dead_letters ORDER BY \"offset\"", &[]).await;
    let reasons: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(reasons, expected);
    let stored = "SELECT count(*) FROM inosec.threat_events WHERE payload IS NULL AND severity_id = 5";
    assert_eq!(database.number(stored).await, 1);
    arena.end().await;
}
