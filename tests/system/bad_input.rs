//! P2 attacked: whatever arrives is a row or a dead letter with its exact bytes and reason; the
//! partition advances, or halts saying what to do.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::producer::Producer as _;
use uuid::Uuid;

use crate::conservation::{add_tenant, wait_consumed};
use crate::support::database::Database;
use crate::support::kafka::{self, Producer};
use crate::support::load;
use crate::support::process::Setup;
use crate::support::servers::{self, Store};
use crate::support::{calm, eventually};

fn topics(name: &str) -> String {
    format!("[[topics]]\nname = \"{name}\"\nstream = \"agent_logs\"\ntenant = \"header\"\n")
}

/// What must become of a message: `None` is a row.
type Case = (&'static str, Vec<u8>, Option<&'static str>);

fn cases() -> Vec<Case> {
    let event =
        |body: &str| format!("{{\"host\":\"h\",\"format\":\"json\",\"event\":{{{body}}}}}").into_bytes();
    let mut invalid_utf8 = event("\"a\":\"?\"");
    let place = invalid_utf8.iter().position(|byte| *byte == b'?').unwrap();
    invalid_utf8[place] = 0xff;
    let deep = |depth: usize| {
        let mut text = event("\"a\":?");
        let place = text.iter().position(|byte| *byte == b'?').unwrap();
        let nested = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        text.splice(place..=place, nested.into_bytes());
        text
    };
    vec![
        ("broken", b"{\"event\": {\"a\": 1,,}}".to_vec(), Some("bad_json")),
        ("truncated", b"{\"event\": {\"a\": \"unfinis".to_vec(), Some("bad_json")),
        ("two documents", b"{\"a\":1}{\"b\":2}".to_vec(), Some("bad_json")),
        ("empty", Vec::new(), Some("bad_json")),
        ("an array", b"[1,2,3]".to_vec(), Some("bad_json")),
        ("invalid UTF-8", invalid_utf8, Some("bad_utf8")),
        ("an escaped NUL", event("\"message\":\"a\\u0000b\",\"labels\":\"\\u0000\""), None),
        ("a lone surrogate", event("\"message\":\"\\ud800 tail\""), None),
        ("10 MiB", event(&format!("\"a\":\"{}\"", "x".repeat(10 << 20))), Some("too_large")),
        ("depth 10,000", deep(10_000), Some("too_deep")),
        ("depth 50", deep(50), None),
        ("duplicate keys", event("\"message\":\"first\",\"message\":\"second\""), None),
        ("an integer beyond i64", event("\"a\":123456789012345678901234567890"), None),
        ("a number beyond f64", event("\"a\":1e999"), None),
        ("a host name of 100 kB", event(&format!("\"host\":{{\"name\":\"{}\"}}", "h".repeat(100_000))), None),
        ("1970", event("\"@timestamp\":\"1970-01-01T00:00:00Z\""), None),
        ("2262", event("\"@timestamp\":\"2262-04-11T23:47:16Z\""), None),
        ("the far future", event("\"@timestamp\":\"9999-12-31T23:59:59Z\""), None),
        ("a time that is none", event("\"@timestamp\":\"yesterday\""), None),
        ("types turned round", every_type_wrong(), None),
        ("a plain line", b"something happened".to_vec(), None),
    ]
}

/// An NXLog record in which every field has a type its column can't take.
fn every_type_wrong() -> Vec<u8> {
    let fields = [
        "\"EventID\":{\"a\":1}",
        "\"Channel\":[1,2]",
        "\"SourceName\":{}",
        "\"EventReceivedTime\":12.5",
        "\"Hostname\":[\"x\"]",
        "\"@timestamp\":{\"when\":\"now\"}",
        "\"EventTime\":[]",
        "\"SeverityValue\":\"many\"",
        "\"Message\":{\"m\":1}",
        "\"SourcePort\":\"port\"",
        "\"DestPort\":{}",
        "\"SourceAddress\":\"nowhere\"",
        "\"DestAddress\":123",
        "\"Image\":[[]]",
        "\"CommandLine\":{}",
        "\"ParentImage\":false",
        "\"User\":[null]",
        "\"TargetFilename\":{}",
        "\"Hashes\":[1]",
        "\"QueryName\":{}",
    ];
    format!("{{\"format\":\"winlog-nxlog\",\"event\":{{{}}}}}", fields.join(",")).into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_message_is_a_row_or_a_dead_letter_with_its_bytes() {
    let _calm = calm().await;
    for store in Store::BOTH {
        bad_messages(store).await;
    }
}

async fn bad_messages(store: Store) {
    let database = Database::create(store).await;
    let topic = kafka::topic_name("bad");
    kafka::create_topic(&topic, 1, &[("max.message.bytes", "16000000")]).await;
    let setup = Setup::new(&database.url, &topic, &topics(&topic));
    setup.json(&["migrate"]);
    let tenant = add_tenant(&setup, "tenant");
    let producer = Producer::new();
    let cases = cases();
    for (_, message, _) in &cases {
        producer.send_to(&topic, 0, message, Some(tenant));
    }
    let good = load::message(1);
    producer.send_to(&topic, 0, &good, Some(Uuid::new_v4()));
    producer.send_to(&topic, 0, &good, None);
    producer.tombstone(&topic, Some(tenant));
    let ledger = producer.ledger();
    let mut inosec = setup.start(&[]);
    wait_consumed(&database, &ledger, &inosec).await;

    let sql = "SELECT \"offset\", reason, payload FROM inosec.dead_letters";
    let rows = database.rows(sql, &[]).await;
    let dead: HashMap<i64, (String, Option<Vec<u8>>)> =
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    let stored = database.rows("SELECT kafka_offset FROM inosec.agent_logs", &[]).await;
    let stored: Vec<i64> = stored.iter().map(|row| row.get(0)).collect();
    assert_eq!(dead.len() + stored.len(), ledger.len(), "rows + dead letters = messages");
    for (offset, (name, message, expected)) in (0..).zip(&cases) {
        match expected {
            None => {
                assert!(stored.contains(&offset), "{name}: {:?}", dead.get(&offset).map(|letter| &letter.0));
            }
            Some(reason) => {
                let (found, payload) = dead.get(&offset).unwrap_or_else(|| panic!("{name} became a row"));
                assert_eq!(found, reason, "{name}");
                assert_eq!(payload.as_deref().unwrap_or_default(), message, "{name}: exact bytes");
            }
        }
    }
    let after = i64::try_from(cases.len()).unwrap();
    for (offset, reason) in
        [(after, "unknown_tenant"), (after + 1, "unknown_tenant"), (after + 2, "tombstone")]
    {
        assert_eq!(dead[&offset].0, reason, "offset {offset}");
    }
    assert!(!inosec.logs().contains("panicked"), "{}", inosec.logs());
    assert!(inosec.stop().success());
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_redriven_once_its_cause_is_gone() {
    let _calm = calm().await;
    let database = Database::create(Store::Timescale).await;
    let topic = kafka::topic_name("redrive");
    kafka::create_topic(&topic, 1, &[]).await;
    let setup = Setup::new(&database.url, &topic, &topics(&topic));
    setup.json(&["migrate"]);
    let suspended = add_tenant(&setup, "suspended");
    setup.json(&["tenant", "suspend", &suspended.to_string()]);
    let newcomer = Uuid::new_v4();
    let producer = Producer::new();
    for number in 0..10 {
        producer.send(&topic, &load::message(number), Some(suspended));
        producer.send(&topic, &load::message(number), Some(newcomer));
    }
    producer.send(&topic, b"{\"event\":{,}}", Some(newcomer));
    let ledger = producer.ledger();
    let mut inosec = setup.start(&[]);
    wait_consumed(&database, &ledger, &inosec).await;
    let count = "SELECT count(*) FROM inosec.dead_letters WHERE redriven_at IS NULL";
    assert_eq!(database.number(count).await, 21);

    setup.json(&["tenant", "resume", &suspended.to_string()]);
    setup.json(&["tenant", "add", "--name", "newcomer", "--id", &newcomer.to_string()]);
    setup.json(&["dlq", "redrive", "--all"]);
    setup.json(&["dlq", "redrive", "--all"]);
    assert_eq!(database.number(count).await, 1, "only what is still bad stays");
    assert_eq!(database.number("SELECT count(*) FROM inosec.agent_logs").await, 20, "each exactly once");
    let places = "SELECT count(DISTINCT kafka_offset) FROM inosec.agent_logs WHERE kafka_partition = 0";
    assert_eq!(database.number(places).await, 20, "with their original places");
    assert!(database.number("SELECT count(*) FROM inosec.audit_trails").await >= 5);
    assert!(inosec.stop().success());
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_leave_holes_and_nothing_else() {
    let _calm = calm().await;
    let database = Database::create(Store::Timescale).await;
    let topic = kafka::topic_name("transactions");
    kafka::create_topic(&topic, 1, &[]).await;
    let setup = Setup::new(&database.url, &topic, &topics(&topic));
    setup.json(&["migrate"]);
    let tenant = add_tenant(&setup, "tenant");
    let producer = Producer::with(&[("transactional.id", &topic)]);
    producer.inner().init_transactions(Duration::from_secs(30)).unwrap();
    for round in 0..6 {
        producer.inner().begin_transaction().unwrap();
        for number in 0..20 {
            producer.send(&topic, &load::message(round * 20 + number), Some(tenant));
        }
        producer.ledger();
        match round % 2 {
            0 => producer.inner().commit_transaction(Duration::from_secs(30)).unwrap(),
            _ => producer.inner().abort_transaction(Duration::from_secs(30)).unwrap(),
        }
    }
    let last = Producer::new();
    last.send(&topic, &load::message(1000), Some(tenant));
    let ledger = last.ledger();
    let mut inosec = setup.start(&[]);
    wait_consumed(&database, &ledger, &inosec).await;
    assert_eq!(database.number("SELECT count(*) FROM inosec.agent_logs").await, 61);
    assert!(inosec.stop().success());
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_that_overtakes_a_stopped_consumer_is_a_recorded_gap() {
    let _calm = calm().await;
    let database = Database::create(Store::Timescale).await;
    let topic = kafka::topic_name("retention");
    kafka::create_topic(&topic, 1, &[]).await;
    let setup = Setup::new(&database.url, &topic, &topics(&topic));
    setup.json(&["migrate"]);
    let tenant = add_tenant(&setup, "tenant");
    let producer = Producer::new();
    (0..10).for_each(|number| producer.send(&topic, &load::message(number), Some(tenant)));
    let mut inosec = setup.start(&[]);
    wait_consumed(&database, &producer.ledger(), &inosec).await;
    assert!(inosec.stop().success());
    (10..30).for_each(|number| producer.send(&topic, &load::message(number), Some(tenant)));
    producer.ledger();
    kafka::delete_records(&topic, 0, 25).await;
    let mut inosec = setup.start(&[]);
    wait_consumed(&database, &producer.ledger(), &inosec).await;
    assert_eq!(database.number("SELECT count(*) FROM inosec.agent_logs").await, 15);
    let gaps = database.rows("SELECT * FROM inosec.ingest_gaps", &[]).await;
    assert_eq!(gaps.len(), 1, "offsets 10 to 24 are a recorded gap");
    assert!(inosec.stop().success());
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_halts_until_the_offset_is_set() {
    let _calm = calm().await;
    let database = Database::create(Store::Timescale).await;
    let topic = kafka::topic_name("recreated");
    kafka::create_topic(&topic, 1, &[]).await;
    let setup = Setup::new(&database.url, &topic, &topics(&topic));
    setup.json(&["migrate"]);
    let tenant = add_tenant(&setup, "tenant");
    let producer = Producer::new();
    (0..10).for_each(|number| producer.send(&topic, &load::message(number), Some(tenant)));
    let mut inosec = setup.start(&[]);
    wait_consumed(&database, &producer.ledger(), &inosec).await;
    assert!(inosec.stop().success());

    kafka::delete_topic(&topic).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    kafka::create_topic(&topic, 1, &[]).await;
    let producer = Producer::new();
    (100..105).for_each(|number| producer.send(&topic, &load::message(number), Some(tenant)));
    let ledger = producer.ledger();
    let mut inosec = setup.spawn(&[]);
    eventually("a halt that says what to do", Duration::from_secs(30), || async {
        let report =
            inosec.get("/readyz").is_some_and(|(status, body)| status == 503 && body.contains("offsets set"));
        report.then_some(())
    })
    .await;
    assert_eq!(database.number("SELECT count(*) FROM inosec.agent_logs").await, 10);
    inosec.stop();

    setup.json(&["offsets", "set", "--topic", &topic, "--partition", "0", "--to", "0"]);
    let mut inosec = setup.start(&[]);
    wait_consumed(&database, &ledger, &inosec).await;
    assert_eq!(database.number("SELECT count(*) FROM inosec.agent_logs").await, 15);
    assert_eq!(database.number("SELECT count(DISTINCT event_id) FROM inosec.agent_logs").await, 15);
    assert!(inosec.stop().success());
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_has_holes() {
    let _calm = calm().await;
    let database = Database::create(Store::Timescale).await;
    let topic = kafka::topic_name("compacted");
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "500"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "500"),
    ];
    kafka::create_topic(&topic, 1, &settings).await;
    let setup = Setup::new(&database.url, &topic, &topics(&topic));
    setup.json(&["migrate"]);
    let tenant = add_tenant(&setup, "tenant");
    let producer = Producer::new();
    for round in 0..3 {
        for key in 0..10 {
            producer.send_keyed(&topic, &key.to_string(), &load::message(round * 10 + key), Some(tenant));
        }
        producer.ledger();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Rolls the segment, so that what lies before it can be compacted.
    producer.send_keyed(&topic, "last", &load::message(999), Some(tenant));
    let ledger = producer.ledger();
    eventually("compaction", Duration::from_secs(90), || async {
        (kafka::readable(&topic, 0).len() < ledger.len()).then_some(())
    })
    .await;
    let readable = kafka::readable(&topic, 0);
    let mut inosec = setup.start(&[]);
    wait_consumed(&database, &ledger, &inosec).await;
    let rows = database.rows("SELECT kafka_offset FROM inosec.agent_logs ORDER BY 1", &[]).await;
    let stored: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    // Compaction may go on while we read: what is stored lies between the two readings.
    let left = kafka::readable(&topic, 0);
    assert!(left.iter().all(|offset| stored.contains(offset)), "{left:?} ⊄ {stored:?}");
    assert!(stored.iter().all(|offset| readable.contains(offset)), "{stored:?} ⊄ {readable:?}");
    assert!(inosec.stop().success());
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

/// The servers the archive will need are part of the set-up: MinIO answers.
#[tokio::test]
async fn the_object_store_answers() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let endpoint = servers::variable("INOSEC_TEST_S3_ENDPOINT");
    let address = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let request = format!("GET /minio/health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
