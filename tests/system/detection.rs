//! Detection in the road: every match exactly once whatever is killed, each tenant's own rules, limits.
//! The oracle is a full scan of the parsed JSON that shares nothing with the engine.

use std::collections::BTreeMap;
use std::time::Duration;

use inosec_schemas::{TenantId, derived_id};
use uuid::Uuid;

use crate::conservation::{add_tenant, check_counts, wait_consumed};
use crate::support::database::Database;
use crate::support::full_scan::{self, FullScan};
use crate::support::kafka::{self, Producer};
use crate::support::process::{INGEST_ONLY, Running, Setup};
use crate::support::servers::Store;
use crate::support::{Random, calm, corpus, eventually};

const PARTITIONS: i32 = 3;

/// Two rules that anything can be made to match.
const RULES: &str = r"
title: Whoami
id: 6c1fd6a5-0000-4000-8000-000000000001
author: A. Author
date: 2026-01-02
tags: [attack.discovery, attack.t1033]
logsource: {product: windows, category: process_creation}
detection:
    selection: {Image|endswith: '\whoami.exe'}
    condition: selection
level: high
---
title: Any process
id: 6c1fd6a5-0000-4000-8000-000000000002
logsource: {product: windows, category: process_creation}
detection:
    selection: {CommandLine|contains: '-loud'}
    condition: selection
level: low
";
const WHOAMI: &str = "6c1fd6a5-0000-4000-8000-000000000001";
const LOUD: &str = "6c1fd6a5-0000-4000-8000-000000000002";

struct Arena {
    topic: String,
    setup: Setup,
    database: Database,
}

impl Arena {
    async fn new(what: &str, store: Store, rules: &str) -> Self {
        let database = Database::create(store).await;
        let topic = kafka::topic_name(what);
        kafka::create_topic(&topic, PARTITIONS, &[]).await;
        let more = format!(
            "[[topics]]\nname = \"{topic}\"\nstream = \"agent_logs\"\ntenant = \"header\"\n\
             [batch]\nmax_rows = 200\nmax_age = \"50ms\"\n[time]\nmax_age = \"36500d\"\n[rules]\n{rules}\n"
        );
        let setup = Setup::new(&database.url, &topic, &more);
        std::fs::write(setup.folder.join("rules.yml"), RULES).unwrap();
        let text = std::fs::read_to_string(&setup.config).unwrap();
        let text = text.replace("RULES", setup.folder.join("rules.yml").to_str().unwrap()).replacen(
            "[kafka]",
            "[kafka]\nsession_timeout = \"1500ms\"",
            1,
        );
        std::fs::write(&setup.config, text).unwrap();
        setup.json(&["migrate"]);
        Self { topic, setup, database }
    }

    fn send(&self, producer: &Producer, tenant: Uuid, number: usize, image: &str, line: &str) {
        let event = serde_json::json!({
            "EventID": 1, "Channel": "Microsoft-Windows-Sysmon/Operational", "Hostname": "ws1.example",
            "EventTime": "2026-11-20 10:00:00", "Image": image, "CommandLine": format!("{line} {number}"),
            "User": "EXAMPLE\\ann", "SourceName": "Microsoft-Windows-Sysmon",
            "EventReceivedTime": "2026-11-20 10:00:01",
        });
        producer.send(&self.topic, event.to_string().as_bytes(), Some(tenant));
    }

    /// Threat events of our rules by tenant and rule.
    async fn found(&self) -> BTreeMap<(Uuid, String), i64> {
        let sql = "SELECT tenant_id, rule_id, count(*) FROM inosec.threat_events
            WHERE source = 'inosec' AND payload->>'notice' IS NULL GROUP BY 1, 2";
        let rows = self.database.rows(sql, &[]).await;
        rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect()
    }

    async fn end(self, inosec: Running) {
        drop(inosec);
        self.database.drop().await;
        kafka::delete_topic(&self.topic).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_events_are_the_oracles_whatever_is_killed() {
    let (Some(folder), Some(sample)) = (corpus::folder(), sample()) else { return };
    let _calm = calm().await;
    let what = "detections killed";
    let mut random = Random::new(what);
    let rules = format!("paths = [{:?}]", folder.join("sigma_rules.jsonl.zst"));
    let arena = Arena::new("detections", Store::Timescale, &rules).await;
    let tenants = [add_tenant(&arena.setup, "one"), add_tenant(&arena.setup, "other")];
    let full = std::env::var("INOSEC_SOAK").as_deref() == Ok("full");
    let mut inosec = arena.setup.spawn(INGEST_ONLY);
    let producer = Producer::new();
    let kills = if full { 40 } else { 4 };
    for part in sample.chunks(sample.len().div_ceil(kills)) {
        for (number, event) in part.iter().enumerate() {
            producer.send(&arena.topic, event, Some(tenants[number % 2]));
        }
        tokio::time::sleep(Duration::from_millis(2_000 + random.below(2_500))).await;
        inosec.kill();
        inosec = arena.setup.spawn(INGEST_ONLY);
    }
    let ledger = producer.ledger();
    wait_consumed(&arena.database, &ledger, &inosec).await;
    let scan = FullScan::of(sample.iter().map(Vec::as_slice)).unwrap();
    let matches = scan.check(&arena.database, &ledger).await;
    println!("{} events, {matches} matches, {kills} kills", ledger.len());
    assert!(matches > 20, "the sample holds matches");
    let sql = "SELECT tenant_id, rule_id, event_id, id FROM inosec.threat_events";
    let rows = arena.database.rows(sql, &[]).await;
    assert_eq!(rows.len(), matches);
    for row in &rows {
        let id = derived_id(TenantId(row.get(0)), row.get(1), row.get(2));
        assert_eq!(row.get::<_, Uuid>(3), id);
    }
    let queued = "SELECT count(*) FROM (SELECT unnest(ids) AS id FROM inosec.correlation_queue) AS q
        FULL JOIN inosec.threat_events AS t ON t.id = q.id WHERE t.id IS NULL OR q.id IS NULL";
    assert_eq!(arena.database.number(queued).await, 0, "each is queued for correlation");
    check_counts(&arena.database).await;
    arena.end(inosec).await;
}

/// Events spread over the corpus, of those that the full scan covers.
fn sample() -> Option<Vec<Vec<u8>>> {
    let most = if std::env::var("INOSEC_SOAK").as_deref() == Ok("full") { 20_000 } else { 1_500 };
    let mut lines = corpus::lines("agent_logs.ndjson.zst")?;
    lines.retain(|line| full_scan::covers(line));
    let step = lines.len().div_ceil(most);
    Some(lines.into_iter().step_by(step).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_says_of_a_rule_counts_within_seconds() {
    let _calm = calm().await;
    for store in Store::BOTH {
        let arena = Arena::new("tenant-rules", store, "optional = [\"RULES\"]").await;
        let tenants = [add_tenant(&arena.setup, "one"), add_tenant(&arena.setup, "other")];
        let [one, other] = tenants;
        let producer = Producer::new();
        let inosec = arena.setup.start(&[]);
        let sent = |number| {
            for tenant in tenants {
                arena.send(&producer, tenant, number, r"C:\Windows\whoami.exe", "whoami -loud");
            }
            producer.ledger()
        };
        // Optional rules are off.
        wait_consumed(&arena.database, &sent(1), &inosec).await;
        assert_eq!(arena.found().await, BTreeMap::new());
        let switch = |tenant, rule, enabled, exception: &str| {
            format!(
                "INSERT INTO inosec.tenant_rules (tenant_id, rule_id, enabled, exception)
                 VALUES ('{tenant}', '{rule}', {enabled}, {exception}) ON CONFLICT (tenant_id, rule_id)
                 DO UPDATE SET enabled = excluded.enabled, exception = excluded.exception"
            )
        };
        let settled = async |number, expected: &[(Uuid, &str)]| {
            // Each change has its time; what was sent before it may be seen either way.
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            let before = arena.found().await;
            wait_consumed(&arena.database, &sent(number), &inosec).await;
            let mut after = arena.found().await;
            for ((tenant, rule), count) in &before {
                *after.get_mut(&(*tenant, rule.clone())).unwrap() -= count;
            }
            after.retain(|_, count| *count != 0);
            let new: Vec<(Uuid, &str)> =
                after.keys().map(|(tenant, rule)| (*tenant, rule.as_str())).collect();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            assert_eq!(new, expected, "{store:?} {number}");
        };
        arena.database.execute(&switch(one, WHOAMI, true, "NULL")).await;
        settled(2, &[(one, WHOAMI)]).await;
        arena.database.execute(&switch(other, LOUD, true, "NULL")).await;
        settled(3, &[(one, WHOAMI), (other, LOUD)]).await;
        // An exception, of any selection or with a condition, and one that can't be read: the rule runs.
        arena.database.execute(&switch(one, WHOAMI, true, r"'fine: {User|endswith: ann}'")).await;
        settled(4, &[(other, LOUD)]).await;
        arena.database.execute(&switch(other, WHOAMI, true, r"'fine: {User|endswith: bob}'")).await;
        settled(5, &[(other, LOUD), (other, WHOAMI)]).await;
        arena.database.execute(&switch(one, WHOAMI, true, "'fine: ['")).await;
        settled(6, &[(one, WHOAMI), (other, LOUD), (other, WHOAMI)]).await;
        arena.database.execute(&switch(other, LOUD, false, "NULL")).await;
        settled(7, &[(one, WHOAMI), (other, WHOAMI)]).await;
        assert!(inosec.logs().contains("runs without it"));
        let row =
            "SELECT signature, severity_id, rule_revision, rule_author, techniques, host_name, user_name,
            payload->'fields'->>'Image' FROM inosec.threat_events WHERE rule_id = $1 LIMIT 1";
        let row = &arena.database.rows(row, &[&WHOAMI]).await[0];
        assert_eq!(row.get::<_, &str>(0), "Whoami");
        assert_eq!(row.get::<_, i16>(1), 4);
        assert_eq!(row.get::<_, &str>(2), "2026-01-02");
        assert_eq!(row.get::<_, &str>(3), "A. Author");
        assert_eq!(row.get::<_, Vec<String>>(4), ["T1033"]);
        assert_eq!(row.get::<_, &str>(5), "ws1.example");
        assert!(row.get::<_, &str>(6).contains("ann"));
        assert_eq!(row.get::<_, &str>(7), r"C:\Windows\whoami.exe");
        arena.end(inosec).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_noisy_rule_is_limited_counted_and_told_of_once() {
    let _calm = calm().await;
    for store in Store::BOTH {
        let arena = Arena::new("noise", store, "paths = [\"RULES\"]\nmax_per_minute = 10").await;
        let (noisy, quiet) = (add_tenant(&arena.setup, "noisy"), add_tenant(&arena.setup, "quiet"));
        let producer = Producer::new();
        for number in 0..300 {
            arena.send(&producer, noisy, number, r"C:\Windows\cmd.exe", "cmd -loud");
        }
        for number in 0..5 {
            arena.send(&producer, quiet, number, r"C:\Windows\cmd.exe", "cmd -loud");
        }
        let ledger = producer.ledger();
        // Killed once before its transactions are done: what is done again is not counted twice.
        let mut inosec = arena.setup.spawn(&[("INOSEC_FAULT", "before-commit:kill:2")]);
        inosec.wait(Duration::from_secs(60));
        let inosec = arena.setup.start(&[]);
        wait_consumed(&arena.database, &ledger, &inosec).await;
        let found = arena.found().await;
        assert_eq!(found[&(quiet, LOUD.to_owned())], 5);
        let stored = found[&(noisy, LOUD.to_owned())];
        let suppressed = "SELECT coalesce(sum(matches), 0)::bigint FROM inosec.suppressed_matches";
        let suppressed = arena.database.number(suppressed).await;
        assert_eq!(stored + suppressed, 300, "every match is stored or counted");
        let minutes = arena.database.number("SELECT count(*) FROM inosec.suppressed_matches").await;
        // Each process counts for itself, and there were two.
        assert!((1..=2).contains(&minutes) && stored <= 20 * (minutes + 1), "{stored} in {minutes} minutes");
        let notices = "SELECT count(*) FROM inosec.threat_events AS t JOIN inosec.suppressed_matches AS s
            ON t.id = s.notice_id AND t.tenant_id = s.tenant_id WHERE t.payload->>'notice' = 'suppressed'";
        assert_eq!(arena.database.number(notices).await, minutes);
        let all = "SELECT count(*) FROM inosec.threat_events";
        assert_eq!(arena.database.number(all).await, stored + 5 + minutes);
        eventually("the metric", Duration::from_secs(5), || async {
            (inosec.metric("inosec_sink_suppressed_matches_total") > 0.0).then_some(())
        })
        .await;
        check_counts(&arena.database).await;
        arena.end(inosec).await;
    }
}
