//! Correlation on real servers: the same threat events give the same alerts, whoever is killed, frozen or
//! without a broker meanwhile. The reference goes by the definitions, over all that was stored.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::correlation::{Arena, BROKEN_IN, BRUTE, FEW, LATENESS, Pair, WHOAMI, WINDOW, rules};
use crate::support::process::INGEST_ONLY;
use crate::support::servers::{self, Store};
use crate::support::{Random, calm, eventually, kafka};

/// What hosts say every now and then; some of it so late that its window may have been decided.
fn send_beats(arena: &Arena, random: &mut Random, number: u64) {
    let now = jiff::Timestamp::now().as_second();
    for _ in 0..random.below(8) {
        let (tenant, host) = (random.below(2) as usize, format!("beat{}", random.below(2)));
        let late = if random.below(3) == 0 { random.below(WINDOW as u64 + LATENESS as u64 + 3) } else { 0 };
        arena.agent(tenant, &format!("beat {number}"), "ann", &host, now - late as i64);
    }
}

/// One message of a day in which users fail to log on, succeed, and are looked at.
fn send_one(arena: &Arena, random: &mut Random, now: i64, number: u128) {
    let tenant = random.below(2) as usize;
    // Three hours of event time, in whatever order.
    let time = now - random.below(3 * 3600) as i64;
    let burst = time / 600 * 600 + random.below(90) as i64;
    let (user, host) = (format!("user{}", burst / 600 % 7), format!("ws{}", random.below(3)));
    match random.below(20) {
        0 => arena.agent(tenant, &format!("success {number}"), &user, &host, burst + 60),
        1 => arena.agent(tenant, &format!("whoami {number}"), &user, &host, time),
        2 => {
            // Sent again: changes nothing.
            arena.foreign(tenant, number, &host, time);
            arena.foreign(tenant, number, &host, time);
        }
        3..=7 => {
            let user = format!("user{}", random.below(9));
            arena.agent(tenant, &format!("fail {number}"), &user, &host, burst);
        }
        _ => arena.agent(tenant, &format!("fail {number}"), &user, &host, burst),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_the_references_whatever_is_killed() {
    let _calm = calm().await;
    let arena = Arena::new(Store::Timescale).await;
    let mut random = Random::new("correlation killed");
    let full = std::env::var("INOSEC_SOAK").as_deref() == Ok("full");
    let kills = if full { 200 } else { 20 };
    let now = jiff::Timestamp::now().as_second();
    let mut pair = Pair::start(&arena.setup);
    for kill in 0..kills {
        for number in 0..120 {
            send_one(&arena, &mut random, now, kill as u128 * 1000 + number);
        }
        send_beats(&arena, &mut random, kill as u64);
        tokio::time::sleep(Duration::from_millis(300 + random.below(2_500))).await;
        pair.strike(kill, &arena.setup, &mut random).await;
    }
    pair.renew(&arena.setup);
    arena.settle(&pair.running[0]).await;
    let found = arena.check(rules()).await;
    assert!(rules().iter().all(|rule| found[&rule.id] > 2), "the day has alerts of each rule: {found:?}");
    let taken_back = "SELECT count(*) FROM inosec.alert_changes
        WHERE alert->>'rule_id' = $1 AND kind IN ('shrunk', 'withdrawn')";
    let taken_back: i64 = arena.database.rows(taken_back, &[&FEW]).await[0].get(0);
    assert_eq!(taken_back, 0, "what is decided at a window's end is decided once");
    let epoch = arena.database.number("SELECT epoch FROM inosec.correlator").await;
    println!("{kills} kills, {epoch} leaders");
    assert!(epoch > 2, "others came to lead");
    arena.end(pair.running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_carry_what_an_analyst_needs_and_go_out_in_order() {
    let _calm = calm().await;
    for store in Store::BOTH {
        let arena = Arena::new(store).await;
        let mut inosec = arena.setup.start(&[]);
        let now = jiff::Timestamp::now().as_second() - 600;
        arena
            .database
            .execute(&format!(
                "INSERT INTO inosec.alert_suppressions (tenant_id, rule_id, fields, reason)
                 VALUES ('{}', '{WHOAMI}', '{{\"host_name\": \"WS9\"}}', 'a test machine');
                 INSERT INTO inosec.host_devices (tenant_id, host_name, first_seen, last_seen, events, criticality)
                 VALUES ('{}', 'ws1', now(), now(), 0, 5)",
                arena.tenants[0], arena.tenants[0]
            ))
            .await;
        for (number, user) in ["ann", "ann", "ann", "ANN"].iter().enumerate() {
            arena.agent(0, "fail", user, "ws1", now + number as i64);
        }
        arena.agent(0, "success", "ann", "ws1", now + 30);
        arena.agent(0, "whoami", "ann", "ws1", now);
        arena.agent(0, "whoami", "ann", "ws9", now);
        arena.settle(&inosec).await;
        let alert = async |rule: &str, host: &str| {
            let sql = "SELECT to_jsonb(a)::text FROM inosec.alerts AS a
                WHERE rule_id = $1 AND entities->'hosts' ? $2 AND episode = 'live'";
            let rows = arena.database.rows(sql, &[&rule, &host]).await;
            assert_eq!(rows.len(), 1, "{rule} {host}");
            serde_json::from_str::<Value>(rows[0].get(0)).unwrap()
        };
        let brute = alert(BRUTE, "ws1").await;
        assert_eq!(brute["title"], "Many failures of ann");
        assert_eq!(
            (&brute["rule_author"], &brute["rule_revision"]),
            (&json!("B. Author"), &json!("2026-01-02"))
        );
        assert_eq!((&brute["severity_id"], &brute["event_count"]), (&json!(3), &json!(4)));
        // Medium is 45, a host of criticality 5 adds 10.
        assert_eq!((&brute["risk_score"], &brute["techniques"]), (&json!(55), &json!(["T1110"])));
        let broken = alert(BROKEN_IN, "ws1").await;
        assert_eq!((&broken["event_count"], &broken["severity_id"]), (&json!(5), &json!(5)));
        let whoami = alert(WHOAMI, "ws1").await;
        assert_eq!((&whoami["title"], &whoami["rule_author"]), (&json!("Whoami"), &json!("A. Author")));
        assert_eq!((&whoami["status_id"], &whoami["techniques"]), (&json!(1), &json!(["T1033"])));
        let suppressed = alert(WHOAMI, "ws9").await;
        assert_eq!(suppressed["status_id"], 3, "kept, and marked");

        // An analyst closes one; more of the same episode doesn't open it again, another episode does.
        let close =
            format!("UPDATE inosec.alerts SET status_id = 4, verdict = 'benign' WHERE id = {}", whoami["id"]);
        arena.database.execute(&close.replace('"', "'")).await;
        arena.agent(0, "whoami", "bob", "ws1", now + 60);
        arena.agent(0, "whoami", "bob", "ws1", now - 3 * 3600);
        arena.settle(&inosec).await;
        let sql = "SELECT status_id, event_count, follows = $2 FROM inosec.alerts
            WHERE rule_id = $1 AND entities->'hosts' ? 'ws1' ORDER BY first_seen";
        let id: Uuid = whoami["id"].as_str().unwrap().parse().unwrap();
        let rows = arena.database.rows(sql, &[&WHOAMI, &id]).await;
        let rows: Vec<(i16, i64, Option<bool>)> =
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        assert_eq!(rows, [(1, 1, Some(true)), (4, 2, None)], "{store:?}");

        // A bridge joins the two; the one that was touched stays as its analyst left it.
        for minutes in [150, 110, 60, 20] {
            arena.agent(0, "whoami", "bob", "ws1", now - minutes * 60);
        }
        arena.settle(&inosec).await;
        let sql = "SELECT status_id, episode, event_count, merged_into IS NOT NULL FROM inosec.alerts
            WHERE rule_id = $1 AND entities->'hosts' ? 'ws1' ORDER BY first_seen";
        let rows = arena.database.rows(sql, &[&WHOAMI]).await;
        let rows: Vec<(i16, String, i64, bool)> =
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
        let live = (1, "live".to_owned(), 7, false);
        assert_eq!(rows, [live, (4, "merged".to_owned(), 2, true)], "{store:?}");

        assert_eq!(arena.check_relayed().await, 0, "nothing failed, nothing is sent again");
        assert!(inosec.stop().success());
        arena.check_changes().await;
        arena.end(vec![inosec]).await;
    }
}

/// Stops the one Kafka all tests share, so it runs alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_holds_up_the_relay_and_not_correlation() {
    let _storm = crate::support::storm().await;
    let arena = Arena::new(Store::Timescale).await;
    let now = jiff::Timestamp::now().as_second() - 600;
    arena.agent(0, "whoami", "ann", "ws1", now);
    let inosec = arena.setup.start(&[]);
    arena.settle(&inosec).await;
    servers::services(&["down", "kafka"]);
    // As a writer would have stored it, whose broker went away just then.
    let tenant = arena.tenants[0];
    let more = format!(
        "INSERT INTO inosec.threat_events (id, tenant_id, signature, severity_id, detected_at, ts, ingested_at,
            source, host_name, event_id, seq)
         SELECT gen_random_uuid(), '{tenant}', 'Foreign finding', 5, now(), now(), now(), 'edr', 'ws2',
            gen_random_uuid(), 0;
         INSERT INTO inosec.correlation_queue (batch, events, first_ts, last_ts, tenants, ids)
         SELECT 1, 1, ts, ts, ARRAY[tenant_id], ARRAY[id] FROM inosec.threat_events WHERE host_name = 'ws2'"
    );
    arena.database.execute(&more).await;
    eventually("an alert without a broker", Duration::from_secs(10), || async {
        let sql = "SELECT count(*) FROM inosec.alerts WHERE entities->'hosts' ? 'ws2'";
        (arena.database.number(sql).await == 1).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    servers::services(&["up", "kafka"]);
    arena.check_relayed().await;
    let sent = kafka::read_all(&arena.alerts).await;
    let kinds: Vec<Value> = sent.iter().map(|(_, value)| serde_json::from_slice(value).unwrap()).collect();
    assert!(kinds.iter().any(|change| change["alert"]["title"] == "Foreign finding"), "{kinds:?}");
    arena.end(vec![inosec]).await;
}

/// The database refuses transactions that write many events of alerts, as one would that takes too long.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_too_large_to_end_is_tried_in_parts() {
    let _calm = calm().await;
    let arena = Arena::new(Store::Timescale).await;
    let ingest = arena.setup.start(INGEST_ONLY);
    let now = jiff::Timestamp::now().as_second() - 600;
    for number in 0..2_000 {
        arena.foreign(0, number, &format!("ws{number}"), now);
    }
    let sent = arena.producer.ledger().len() as i64;
    eventually("all of it queued", Duration::from_secs(60), || async {
        let sql = "SELECT coalesce(sum(events), 0)::bigint FROM inosec.correlation_queue";
        (arena.database.number(sql).await == sent).then_some(())
    })
    .await;
    drop(ingest);
    let limit = "CREATE FUNCTION inosec.limit_events() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF (SELECT count(*) FROM added) > 500 THEN RAISE EXCEPTION 'too much at once'; END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER limit_events AFTER INSERT ON inosec.alert_events
            REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION inosec.limit_events();";
    arena.database.execute(limit).await;
    let inosec = arena.setup.start(&[]);
    arena.settle(&inosec).await;
    assert_eq!(arena.database.number("SELECT count(*) FROM inosec.alerts").await, sent);
    assert!(inosec.logs().contains("too much at once"), "it was tried: {}", inosec.logs());
    arena.end(vec![inosec]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_says_brings_no_settled_alert_back() {
    let _calm = calm().await;
    let arena = Arena::with(Store::Timescale, "gap = \"1s\"").await;
    // A horizon of seconds, that the clock soon leaves behind: the rules' would be minutes.
    std::fs::write(arena.setup.folder.join("rules.yml"), "").unwrap();
    arena.configure("max_skew = \"1h\"", "max_skew = \"1s\"");
    let inosec = arena.setup.start(&[]);
    arena.foreign(0, 1, "ws1", jiff::Timestamp::now().as_second());
    arena.settle(&inosec).await;
    let settled = async || {
        let sql = "SELECT count(*) FROM inosec.alerts WHERE episode = 'settled'";
        (arena.database.number(sql).await == 1).then_some(())
    };
    eventually("the alert settled", Duration::from_secs(90), settled).await;
    let low = format!("UPDATE inosec.tenants SET alert_severity_id = 2 WHERE id = '{}'", arena.tenants[0]);
    arena.database.execute(&low).await;
    eventually("correlation rebuilt", Duration::from_secs(20), || async {
        (inosec.logs().matches("correlation is rebuilt").count() == 2).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(arena.database.number("SELECT count(*) FROM inosec.alerts").await, 1, "{}", inosec.logs());
    arena.end(vec![inosec]).await;
}
