//! The road's alerts, `inosec rules backtest` over what it stored and `inosec rules eval` over the same lines.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::conservation::{add_tenant, wait_consumed};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::kafka::{self, Producer};
use crate::support::process::Setup;
use crate::support::servers::Store;

const RULES: &str = "
title: Refused
id: refused
level: low
logsource: {product: linux, service: sshd}
detection: {text: ['Failed password'], condition: text}
---
title: Accepted
id: accepted
level: informational
logsource: {product: linux, service: sshd}
detection: {text: ['Accepted password'], condition: text}
---
title: Guessing
id: guessing
level: low
correlation: {type: event_count, rules: [refused], group-by: [src_ip], timespan: 5m, condition: {gte: 5}}
---
title: Found
id: found
level: high
correlation: {type: temporal_ordered, rules: [guessing, accepted], group-by: [src_ip], timespan: 10m, generate: true}
";

fn line(day: u32, second: u32, host: &str, text: &str) -> String {
    let (minute, second) = (second / 60, second % 60);
    format!("<38>1 2026-05-{day:02}T10:{minute:02}:{second:02}Z {host} sshd 1 - - {text} port 4022 ssh2")
}

/// Two days on two hosts: on the first the password is found.
fn lines() -> Vec<String> {
    let mut lines = Vec::new();
    for (day, host) in [(1, "web1"), (2, "web1"), (2, "db2")] {
        let refused = |second| line(day, second, host, "Failed password for root from 198.51.100.7");
        lines.extend((0..6).map(|at| refused(at * 10)));
    }
    lines.push(line(1, 120, "web1", "Accepted password for root from 198.51.100.7"));
    lines.push(line(1, 130, "web1", "Accepted password for ann from 10.0.0.7"));
    lines
}

fn of<'a>(report: &'a Value, rule: &str) -> &'a Value {
    report["rules"].as_array().unwrap().iter().find(|one| one["rule_id"] == *rule).unwrap()
}

async fn on(store: Store) {
    let database = Database::create(store).await;
    let topic = kafka::topic_name("backtest");
    kafka::create_topic(&topic, 2, &[]).await;
    let more = format!(
        "[[topics]]\nname = \"{topic}\"\nstream = \"agent_logs\"\ntenant = \"header\"\n[time]\nmax_age = \"36500d\"\n"
    );
    let setup = Setup::new(&database.url, &topic, &more);
    let path = setup.folder.join("rules.yml").display().to_string();
    std::fs::write(&path, RULES).unwrap();
    let text = std::fs::read_to_string(&setup.config).unwrap();
    std::fs::write(&setup.config, text + &format!("[rules]\npaths = [{path:?}]\n")).unwrap();
    setup.json(&["migrate"]);
    let tenants: [Uuid; 2] = [add_tenant(&setup, "one"), add_tenant(&setup, "other")];
    let producer = Producer::new();
    let inosec = setup.start(&[]);
    for line in lines() {
        producer.send(&topic, line.as_bytes(), Some(tenants[0]));
    }
    producer.send(&topic, lines()[0].as_bytes(), Some(tenants[1]));
    wait_consumed(&database, &producer.ledger(), &inosec).await;

    let tenant = tenants[0].to_string();
    let backtest = |from: &str, meant: &[&str]| {
        let arguments =
            ["rules", "backtest", "--tenant", &tenant, "--from", from, "--to", "2026-06-01T00:00:00Z"];
        setup.json(&[&arguments, meant].concat())
    };
    let report = backtest("2026-05-01T00:00:00Z", &[&path]);
    assert_eq!(report["events"], json!(20));
    let fired = |rule: &str| of(&report, rule)["fired"].as_u64().unwrap();
    assert_eq!(["refused", "accepted", "guessing", "found"].map(fired), [18, 2, 2, 1]);
    let refused = of(&report, "refused");
    assert_eq!(refused["days"], json!({ "2026-05-01": 6, "2026-05-02": 12 }));
    assert_eq!(refused["hosts"], json!([{ "name": "web1", "fired": 12 }, { "name": "db2", "fired": 6 }]));
    assert_eq!(of(&report, "found")["users"], json!([{ "name": "root", "fired": 1 }]));
    assert_eq!(of(&report, "found")["days"], json!({ "2026-05-01": 1 }));

    // The same lines in a file come to the alerts of the road.
    let events = setup.folder.join("events.log");
    std::fs::write(&events, lines().join("\n")).unwrap();
    let eval = setup.run(&["rules", "eval", &events.display().to_string()]);
    let out = String::from_utf8_lossy(&eval.stdout);
    let printed = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut episodes: Vec<Vec<String>> = printed
        .filter_map(|line| {
            let episode = line.get("episode")?;
            let text = |name: &str| episode[name].as_str().unwrap().to_owned();
            Some(vec![text("rule_id"), text("first_seen"), text("last_seen"), episode["count"].to_string()])
        })
        .collect();
    episodes.sort();
    assert_eq!(episodes.len(), 3, "{out}");
    let sql = "SELECT rule_id, to_char(first_seen AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
            to_char(last_seen AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), event_count::text
        FROM inosec.alerts WHERE tenant_id = $1 ORDER BY 1, 2";
    let what = format!("the road's alerts are {episodes:?}; log: {}", inosec.log.display());
    eventually(&what, Duration::from_secs(60), || async {
        let rows = database.rows(sql, &[&tenants[0]]).await;
        let alerts: Vec<Vec<String>> =
            rows.iter().map(|row| (0..4).map(|at| row.get(at)).collect()).collect();
        (alerts == episodes).then_some(())
    })
    .await;

    // One of a folder by its title, from the second day on.
    let report = backtest("2026-05-02T00:00:00Z", &["--rules", &path, "Guessing"]);
    assert_eq!((&report["events"], &of(&report, "guessing")["fired"]), (&json!(12), &json!(1)));

    // What the tenant says: an exception holds, and a base rule that is off feeds nothing.
    let says = format!(
        "INSERT INTO inosec.tenant_rules (tenant_id, rule_id, enabled, exception) VALUES
            ('{tenant}', 'refused', true, 'db: {{host: db2}}'), ('{tenant}', 'accepted', false, NULL)"
    );
    database.execute(&says).await;
    let report = backtest("2026-05-01T00:00:00Z", &["--rules", &path, "refused", "found"]);
    assert_eq!((&of(&report, "refused")["fired"], &of(&report, "found")["fired"]), (&json!(12), &json!(0)));

    let unknown = setup.run(&["rules", "backtest", "--tenant", &tenant, "--rules", &path, "nobody"]);
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(!unknown.status.success() && said.contains("nobody") && said.contains("rules check"), "{said}");
    let nobody = Uuid::nil().to_string();
    let unknown = setup.run(&["rules", "backtest", "--tenant", &nobody, "--rules", &path, "found"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("tenant list"));
    drop(inosec);
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_events_say_how_often_and_for_whom_a_rule_would_have_fired_on_timescale() {
    on(Store::Timescale).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_events_say_how_often_and_for_whom_a_rule_would_have_fired_on_postgres() {
    on(Store::Postgres).await;
}
