//! Countries and AS numbers in the hot table and in the matches of rules, from databases that are replaced
//! while events come in.

use std::time::Duration;

use crate::conservation::{add_tenant, wait_consumed};
use crate::support::database::Database;
use crate::support::kafka::{self, Producer};
use crate::support::process::{Running, Setup};
use crate::support::servers::Store;
use crate::support::{calm, corpus, eventually};

/// Source, destination, and what the sender says of the source's country itself.
const EVENTS: [(&str, &str, &str); 5] = [
    ("81.2.69.142", "1.0.0.7", ""),
    ("2001:480::1", "::ffff:81.2.69.142", ""),
    ("10.1.2.3", "127.0.0.1", ""),
    ("81.2.69.142", "10.0.0.1", "NZ"),
    ("2c0f:ff80::7", "216.160.83.56", ""),
];

/// Every event matches; the correlation asks matches to keep where it came from.
const RULES: &str = "
title: Message
id: message
logsource: {product: linux}
detection: {selection: {message: m}, condition: selection}
---
title: Many from one place
id: place
correlation:
  type: event_count
  rules: [message]
  group-by: [src_country, src_asn]
  timespan: 1h
  condition: {gte: 10}
";

#[tokio::test(flavor = "multi_thread")]
async fn countries_and_as_numbers_follow_databases_that_are_replaced() {
    let _calm = calm().await;
    let Some(folder) = corpus::folder() else { return };
    for store in Store::BOTH {
        follow(store, &folder.join("geoip")).await;
    }
}

async fn follow(store: Store, geoip: &std::path::Path) {
    let database = Database::create(store).await;
    let topic = kafka::topic_name("geo");
    kafka::create_topic(&topic, 1, &[]).await;
    let entry = format!("[[topics]]\nname = \"{topic}\"\nstream = \"agent_logs\"\ntenant = \"header\"\n");
    let setup = Setup::new(&database.url, &topic, &entry);
    let (country, asn) = (setup.folder.join("country.mmdb"), setup.folder.join("asn.mmdb"));
    let rules = setup.folder.join("rules.yml");
    std::fs::write(&rules, RULES).unwrap();
    let more = format!(
        "\n[geo]\ncountry = {country:?}\nasn = {asn:?}\nreload = \"100ms\"\n[rules]\npaths = [{rules:?}]\n"
    );
    let text = std::fs::read_to_string(&setup.config).unwrap();
    std::fs::write(&setup.config, text + &more).unwrap();
    let bytes = std::fs::read(geoip.join("GeoLite2-City-Test.mmdb")).unwrap();
    std::fs::write(&country, &bytes).unwrap();
    setup.json(&["migrate"]);

    let missing = setup.run(&["check"]);
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(missing.status.code(), Some(6), "{said}");
    assert!(said.contains("asn.mmdb") && said.contains("geo country: GeoLite2-City, built 20"), "{said}");
    std::fs::copy(geoip.join("GeoLite2-ASN-Test.mmdb"), &asn).unwrap();
    setup.json(&["check"]);

    let tenant = add_tenant(&setup, "tenant");
    let mut inosec = setup.start(&[]);
    let producer = Producer::new();
    let send = |round: &str| {
        for (source, destination, told) in EVENTS {
            let country = if told.is_empty() {
                String::new()
            } else {
                format!(r#","geo":{{"country_iso_code":"{told}"}}"#)
            };
            let event = format!(
                r#"{{"@timestamp":"2026-01-02T03:04:05Z","ecs":{{"version":"8.11"}},"host":{{"name":"{round}","os":{{"type":"linux"}}}},"message":"m","source":{{"ip":"{source}"{country}}},"destination":{{"ip":"{destination}"}}}}"#
            );
            producer.send(&topic, event.as_bytes(), Some(tenant));
        }
    };
    send("before");
    wait_consumed(&database, &producer.ledger(), &inosec).await;
    assert_eq!(
        rows(&database, "before").await,
        ["GB - - 15169", "US - GB -", "- - - -", "NZ - - -", "- 237 US 209"]
    );
    assert_eq!(kept(&database, "before").await, ["GB -", "US -", "- -", "NZ -", "- 237"]);
    assert!(inosec.metric("inosec_enrich_geo_build_timestamp_seconds") > 1e9);
    assert!(inosec.metric("inosec_enrich_geo_lookups_total") >= 19.0);

    // Half a database: the old one goes on.
    std::fs::write(&country, &bytes[..bytes.len() / 2]).unwrap();
    counted(&inosec, "outcome=\"failed\"", 2.0).await;
    send("torn");
    wait_consumed(&database, &producer.ledger(), &inosec).await;
    assert_eq!(rows(&database, "torn").await, rows(&database, "before").await);

    let mut other = bytes.clone();
    for at in (0..bytes.len() - 3).filter(|at| bytes[*at..].starts_with(b"\x42GB")) {
        other[at + 1..at + 3].copy_from_slice(b"XB");
    }
    std::fs::write(setup.folder.join("new"), &other).unwrap();
    std::fs::rename(setup.folder.join("new"), &country).unwrap();
    counted(&inosec, "outcome=\"loaded\"", 3.0).await;
    send("after");
    wait_consumed(&database, &producer.ledger(), &inosec).await;
    assert_eq!(
        rows(&database, "after").await,
        ["XB - - 15169", "US - XB -", "- - - -", "NZ - - -", "- 237 US 209"]
    );
    assert_eq!(kept(&database, "after").await, ["XB -", "US -", "- -", "NZ -", "- 237"]);
    let warned = inosec.logs().matches("can't be loaded anew").count();
    assert_eq!(warned, 1, "told once:\n{}", inosec.logs());
    assert!(inosec.stop().success());
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

/// Waits until this many loads had this outcome.
async fn counted(inosec: &Running, outcome: &str, number: f64) {
    let enough = || async {
        let (_, scrape) = inosec.get("/metrics")?;
        let lines = scrape
            .lines()
            .filter(|line| line.starts_with("inosec_enrich_geo_loads_total") && line.contains(outcome));
        let sum: f64 = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        (sum >= number).then_some(())
    };
    eventually(outcome, Duration::from_secs(30), enough).await;
}

/// Country and ASN of source and destination, in the order of sending.
async fn rows(database: &Database, host: &str) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', coalesce(src_country, '-'), coalesce(src_asn::text, '-'),
            coalesce(dst_country, '-'), coalesce(dst_asn::text, '-'))
        FROM inosec.agent_logs WHERE host_name = $1 ORDER BY kafka_offset";
    database.rows(sql, &[&host]).await.iter().map(|row| row.get(0)).collect()
}

/// Country and ASN of the source as the matches of these events keep them.
async fn kept(database: &Database, host: &str) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', coalesce(t.payload->'fields'->>'src_country', '-'),
            coalesce(t.payload->'fields'->>'src_asn', '-'))
        FROM inosec.threat_events AS t JOIN inosec.agent_logs AS l USING (tenant_id, event_id)
        WHERE l.host_name = $1 ORDER BY l.kafka_offset";
    database.rows(sql, &[&host]).await.iter().map(|row| row.get(0)).collect()
}
