//! Streams are data: a third one that the binary has never heard of, threat events dropped when
//! repeated, and brokers that demand authentication.

use std::time::Duration;

use uuid::Uuid;

use crate::conservation::{add_tenant, check_counts, wait_consumed};
use crate::support::database::Database;
use crate::support::kafka::{self, Producer};
use crate::support::process::Setup;
use crate::support::servers::{self, Store};
use crate::support::{blocks, calm, eventually, load};

const BADGE_READERS: &str = r#"
name = "badge_readers"
description = "Door openings."
partition_interval = "day"

[[indexes]]
columns = ["tenant_id", "ts DESC"]

[[columns]]
name = "ts"
kind = "timestamp"
fill = "ts"
required = true
description = "Storage time."

[[columns]]
name = "tenant_id"
kind = "uuid"
fill = "tenant"
required = true
description = "Whose door it is."

[[columns]]
name = "seq"
kind = "int64"
fill = "seq"
required = true
description = "Place among the raw messages."

[[columns]]
name = "door"
kind = "text"
required = true
description = "Which door."

[[columns]]
name = "opened"
kind = "bool"
description = "Whether it opened."

[[columns]]
name = "attempts"
kind = "int16"
description = "How many times the badge was held to it."

[[columns]]
name = "temperature"
kind = "float64"
unit = "°C"
description = "At the reader."

[[columns]]
name = "address"
kind = "inet"
description = "Of the reader."

[[columns]]
name = "roles"
kind = "text_list"
description = "Of the badge."
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_third_stream_needs_only_a_file_and_a_topic() {
    let _calm = calm().await;
    for store in Store::BOTH {
        third_stream(store).await;
    }
}

async fn third_stream(store: Store) {
    let database = Database::create(store).await;
    let topic = kafka::topic_name("badges");
    kafka::create_topic(&topic, 2, &[]).await;
    let setup = Setup::new(&database.url, &topic, "");
    std::fs::create_dir_all(setup.folder.join("schemas/streams")).unwrap();
    std::fs::write(setup.folder.join("schemas/streams/badge_readers.toml"), BADGE_READERS).unwrap();
    let more = format!(
        "[schemas]\ndirectory = {:?}\n\n[[topics]]\nname = \"{topic}\"\nstream = \"badge_readers\"\ntenant = \"payload\"\n",
        setup.folder.join("schemas")
    );
    let text = std::fs::read_to_string(&setup.config).unwrap();
    std::fs::write(&setup.config, text + &more).unwrap();
    setup.json(&["migrate"]);
    let tenant = add_tenant(&setup, "tenant");
    let producer = Producer::new();
    for number in 0..100 {
        let message = format!(
            "{{\"tenant_id\":\"{tenant}\",\"door\":\"door {number}\",\"opened\":{},\"attempts\":{},\
             \"temperature\":{}.5,\"address\":\"10.0.0.{number}\",\"roles\":[\"staff\",\"night\"]}}",
            number % 2 == 0,
            number % 3,
            number
        );
        producer.send(&topic, message.as_bytes(), None);
    }
    producer.send(&topic, format!("{{\"tenant_id\":\"{tenant}\",\"opened\":true}}").as_bytes(), None);
    producer.send(
        &topic,
        format!("{{\"tenant_id\":\"{tenant}\",\"door\":\"d\",\"attempts\":70000}}").as_bytes(),
        None,
    );
    let ledger = producer.ledger();
    let mut inosec = setup.start(&[]);
    wait_consumed(&database, &ledger, &inosec).await;
    let sql =
        "SELECT count(*) FROM (SELECT *, substring(door FROM 6)::int AS n FROM inosec.badge_readers) AS b
         WHERE opened = (n % 2 = 0) AND attempts = n % 3 AND temperature = n + 0.5
           AND address = ('10.0.0.' || n)::inet AND roles = ARRAY['staff', 'night']";
    assert_eq!(database.number(sql).await, 100);
    let reasons =
        "SELECT count(*) FROM inosec.dead_letters WHERE reason IN ('missing_field', 'type_mismatch')";
    assert_eq!(database.number(reasons).await, 2);
    assert_eq!(blocks::messages(&database, "badge_readers").await.len(), 100);
    assert!(inosec.stop().success());
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_threat_event_is_stored_once() {
    let _calm = calm().await;
    for store in Store::BOTH {
        repeated_threat_events(store).await;
    }
}

async fn repeated_threat_events(store: Store) {
    let database = Database::create(store).await;
    let topic = kafka::topic_name("threats");
    kafka::create_topic(&topic, 3, &[]).await;
    let more = format!("[[topics]]\nname = \"{topic}\"\nstream = \"threat_events\"\ntenant = \"payload\"\n");
    let setup = Setup::new(&database.url, &topic, &more);
    setup.json(&["migrate"]);
    let tenants = [add_tenant(&setup, "one"), add_tenant(&setup, "two")];
    let ids: Vec<Uuid> = (0..50).map(|_| Uuid::new_v4()).collect();
    let producer = Producer::new();
    for round in 0..3 {
        for (number, id) in ids.iter().enumerate() {
            let message = format!(
                "{{\"id\":\"{id}\",\"tenant_id\":\"{}\",\"signature\":\"Beacon {number}\",\"severity\":{},\
                 \"detected_at\":\"2026-01-0{}T00:00:00Z\",\"payload\":{{\"round\":{round}}}}}",
                tenants[number % 2],
                ["\"high\"", "3", "\"5\""][number % 3],
                1 + number % 9,
            );
            producer.send_to(&topic, round, message.as_bytes(), None);
        }
    }
    let ledger = producer.ledger();
    let mut inosec = setup.start(&[]);
    wait_consumed(&database, &ledger, &inosec).await;
    assert_eq!(database.number("SELECT count(*) FROM inosec.threat_events").await, 50);
    assert_eq!(database.number("SELECT count(DISTINCT id) FROM inosec.threat_events").await, 50);
    assert_eq!(database.number("SELECT count(*) FROM inosec.dead_letters").await, 0);
    let severities = "SELECT count(*) FROM inosec.threat_events WHERE severity_id IN (3, 4, 5)";
    assert_eq!(database.number(severities).await, 50);
    check_counts(&database).await;
    assert!(inosec.stop().success());
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_demands_scram_and_tls() {
    let _calm = calm().await;
    let database = Database::create(Store::Timescale).await;
    let topic = kafka::topic_name("scram");
    kafka::create_topic(&topic, 1, &[]).await;
    let more = format!("[[topics]]\nname = \"{topic}\"\nstream = \"agent_logs\"\ntenant = \"header\"\n");
    let setup = Setup::new(&database.url, &topic, &more);
    let secret = setup.folder.join("password");
    std::fs::write(&secret, servers::variable("INOSEC_TEST_KAFKA_PASSWORD")).unwrap();
    let secure = format!(
        "brokers = \"{}\"\nsecurity_protocol = \"SASL_SSL\"\nsasl_mechanism = \"SCRAM-SHA-512\"\n\
         sasl_username = \"{}\"\nsasl_password_file = {secret:?}\nssl_ca = \"{}\"\n",
        servers::variable("INOSEC_TEST_KAFKA_SASL"),
        servers::variable("INOSEC_TEST_KAFKA_USER"),
        servers::variable("INOSEC_TEST_KAFKA_CA"),
    );
    let text = std::fs::read_to_string(&setup.config).unwrap();
    let plain = format!("brokers = \"{}\"\n", servers::kafka());
    std::fs::write(&setup.config, text.replace(&plain, &secure)).unwrap();
    setup.json(&["migrate"]);
    let tenant = add_tenant(&setup, "tenant");
    let lines = setup.folder.join("lines.ndjson");
    let text: Vec<Vec<u8>> = (0..100).map(load::message).collect();
    std::fs::write(&lines, text.join(&b'\n')).unwrap();
    let file = lines.to_str().unwrap();
    let sent = setup.json(&["replay", file, "--tenant", &tenant.to_string()]);
    assert_eq!(sent["acknowledged"], 100);
    let mut inosec = setup.start(&[]);
    eventually("100 rows", Duration::from_secs(30), || async {
        (database.number("SELECT count(*) FROM inosec.agent_logs").await == 100).then_some(())
    })
    .await;
    assert!(inosec.stop().success());

    std::fs::write(&secret, "wrong").unwrap();
    let check = setup.run(&["check"]);
    assert_eq!(check.status.code(), Some(3), "{}", String::from_utf8_lossy(&check.stderr));
    let shown = setup.run(&["config"]);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(!shown.contains("wrong"), "the password is redacted: {shown}");
    database.drop().await;
    kafka::delete_topic(&topic).await;
}
