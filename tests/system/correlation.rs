//! Correlation on real servers: the same threat events give the same alerts, whoever is killed, frozen or
//! without a broker meanwhile. The reference goes by the definitions, over all that was stored.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::conservation::add_tenant;
use crate::reference::{Event, Found, Measure, Rule, SECOND, Setting};
use crate::support::database::Database;
use crate::support::kafka::{self, Producer};
use crate::support::process::{Running, Setup};
use crate::support::servers::Store;
use crate::support::{Random, calm, eventually};

const PARTITIONS: i32 = 3;
const FAILURE: &str = "7c1fd6a5-0000-4000-8000-000000000001";
const SUCCESS: &str = "7c1fd6a5-0000-4000-8000-000000000002";
pub const WHOAMI: &str = "7c1fd6a5-0000-4000-8000-000000000003";
const BEAT: &str = "7c1fd6a5-0000-4000-8000-000000000004";
pub const BRUTE: &str = "7c1fd6a5-0000-4000-8000-00000000000a";
const SPRAY: &str = "7c1fd6a5-0000-4000-8000-00000000000b";
pub const BROKEN_IN: &str = "7c1fd6a5-0000-4000-8000-00000000000c";
const FEW: &str = "7c1fd6a5-0000-4000-8000-00000000000d";

/// Seconds of lateness that windows allow that are decided at their end.
const LATENESS: i64 = 4;
/// Seconds of the one that is.
const WINDOW: i64 = 5;

const RULES: &str = r"
title: Logon failed
id: 7c1fd6a5-0000-4000-8000-000000000001
name: failure
logsource: {product: windows, category: process_creation}
detection: {selection: {CommandLine|startswith: fail}, condition: selection}
level: informational
---
title: Logon succeeded
id: 7c1fd6a5-0000-4000-8000-000000000002
name: success
logsource: {product: windows, category: process_creation}
detection: {selection: {CommandLine|startswith: success}, condition: selection}
level: informational
---
title: Whoami
id: 7c1fd6a5-0000-4000-8000-000000000003
author: A. Author
logsource: {product: windows, category: process_creation}
detection: {selection: {CommandLine|startswith: whoami}, condition: selection}
level: high
tags: [attack.t1033]
---
title: Beat
id: 7c1fd6a5-0000-4000-8000-000000000004
name: beat
logsource: {product: windows, category: process_creation}
detection: {selection: {CommandLine|startswith: beat}, condition: selection}
level: informational
---
title: 'Many failures of {User}'
id: 7c1fd6a5-0000-4000-8000-00000000000a
name: brute
author: B. Author
date: 2026-01-02
level: medium
tags: [attack.t1110]
correlation: {type: event_count, rules: [failure], group-by: [User], timespan: 2m, condition: {gte: 4}}
---
title: 'Many users of {host_name}'
id: 7c1fd6a5-0000-4000-8000-00000000000b
level: high
correlation:
  type: value_count
  rules: [failure]
  group-by: [host_name]
  timespan: 1m
  condition: {field: User, gte: 4}
---
title: Broken in
id: 7c1fd6a5-0000-4000-8000-00000000000c
level: critical
correlation:
  type: temporal_ordered
  rules: [brute, success]
  group-by: [User]
  timespan: 3m
  generate: true
---
title: Few beats
id: 7c1fd6a5-0000-4000-8000-00000000000d
level: medium
correlation: {type: event_count, rules: [beat], group-by: [host_name], timespan: 5s, condition: {lt: 3}}
";

/// The rules as the reference has them.
fn rules() -> Vec<Rule> {
    let rule = |id: &str, measure, inputs: &[&str], group: &str, seconds: i64, condition: (&str, f64)| Rule {
        id: id.to_owned(),
        measure,
        inputs: inputs.iter().map(|input| (*input).to_owned()).collect(),
        group: vec![group.to_owned()],
        names: BTreeMap::new(),
        value: (measure == Measure::Distinct).then(|| "User".to_owned()),
        timespan: seconds * SECOND,
        condition: vec![(condition.0.to_owned(), condition.1)],
        generate: id == BROKEN_IN,
    };
    vec![
        rule(BRUTE, Measure::Count, &[FAILURE], "User", 120, ("gte", 4.0)),
        rule(SPRAY, Measure::Distinct, &[FAILURE], "host_name", 60, ("gte", 4.0)),
        rule(BROKEN_IN, Measure::Order, &[BRUTE, SUCCESS], "User", 180, ("gte", 2.0)),
        rule(FEW, Measure::Count, &[BEAT], "host_name", WINDOW, ("lt", 3.0)),
    ]
}

/// Servers' part of a test, two tenants and the rules above.
pub struct Arena {
    pub topic: String,
    threats: String,
    alerts: String,
    pub setup: Setup,
    pub database: Database,
    pub tenants: Vec<Uuid>,
    pub producer: Producer,
}

impl Arena {
    pub async fn new(store: Store) -> Self {
        Self::with(store, "").await
    }

    /// With these lines of `[correlate]`.
    pub async fn with(store: Store, correlate: &str) -> Self {
        let database = Database::create(store).await;
        let topic = kafka::topic_name("correlation");
        let (threats, alerts) = (format!("{topic}-threats"), format!("{topic}-alerts"));
        for name in [&topic, &threats, &alerts] {
            kafka::create_topic(name, PARTITIONS, &[]).await;
        }
        let more = format!(
            "[[topics]]\nname = \"{topic}\"\nstream = \"agent_logs\"\ntenant = \"header\"\n\
             [[topics]]\nname = \"{threats}\"\nstream = \"threat_events\"\ntenant = \"header\"\n\
             [batch]\nmax_rows = 200\nmax_age = \"50ms\"\n[time]\nmax_age = \"36500d\"\n\
             max_skew = \"1h\"\n[correlate]\nallowed_lateness = \"{LATENESS}s\"\n\
             alerts_topic = \"{alerts}\"\n{correlate}\n[rules]\npaths = [\"RULES\"]\nmax_per_minute = 100000\n"
        );
        let setup = Setup::new(&database.url, &topic, &more);
        let rules = setup.folder.join("rules.yml");
        std::fs::write(&rules, RULES).unwrap();
        let text = std::fs::read_to_string(&setup.config).unwrap();
        let text = text.replace("RULES", rules.to_str().unwrap());
        let text = text.replacen("[kafka]", "[kafka]\nsession_timeout = \"1500ms\"", 1);
        std::fs::write(&setup.config, text).unwrap();
        setup.json(&["migrate"]);
        let tenants = vec![add_tenant(&setup, "one"), add_tenant(&setup, "other")];
        Self { topic, threats, alerts, setup, database, tenants, producer: Producer::new() }
    }

    /// A process event of a host, that says something of a user.
    pub fn agent(&self, tenant: usize, what: &str, user: &str, host: &str, time: i64) {
        let at = jiff::Timestamp::from_second(time).unwrap();
        let event = json!({
            "EventID": 1, "Channel": "Microsoft-Windows-Sysmon/Operational", "Hostname": host,
            "SourceName": "Microsoft-Windows-Sysmon", "EventTime": at.strftime("%F %T").to_string(),
            "EventReceivedTime": at.strftime("%F %T").to_string(), "Image": r"C:\a.exe",
            "CommandLine": what, "User": user,
        });
        self.producer.send(&self.topic, event.to_string().as_bytes(), Some(self.tenants[tenant]));
    }

    /// What another producer detected, under its own id.
    pub fn foreign(&self, tenant: usize, id: u128, host: &str, time: i64) {
        let event = json!({
            "id": Uuid::from_u128(id), "signature": "Foreign finding", "severity": "high",
            "detected_at": jiff::Timestamp::from_second(time).unwrap().to_string(), "host_name": host,
            "source": "edr",
        });
        self.producer.send(&self.threats, event.to_string().as_bytes(), Some(self.tenants[tenant]));
    }

    /// Writes something else into the configuration.
    pub fn configure(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.setup.config).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&self.setup.config, text.replace(from, to)).unwrap();
    }

    /// Until all was read and correlated.
    pub async fn settle(&self, inosec: &Running) {
        let sent = self.producer.ledger().len() as i64;
        let what = format!("all of {sent} messages consumed; log: {}", inosec.log.display());
        eventually(&what, Duration::from_secs(300), || async {
            let sql = "SELECT coalesce(sum(next_offset), 0)::bigint FROM inosec.ingest_offsets";
            (self.database.number(sql).await >= sent).then_some(())
        })
        .await;
        eventually("an empty queue", Duration::from_secs(60), || async {
            let left = "SELECT count(*) FROM inosec.correlation_queue";
            (self.database.number(left).await == 0).then_some(())
        })
        .await;
    }

    /// What is stored, as the reference takes it; ids are places in the second list.
    async fn stored(&self) -> (Vec<Event>, Vec<Uuid>) {
        let sql = "SELECT tenant_id, id, coalesce(rule_id, signature),
                (extract(epoch FROM detected_at) * 1000000)::bigint,
                (extract(epoch FROM ingested_at) * 1000000)::bigint, severity_id, host_name,
                (jsonb_build_object('host_name', host_name, 'user_name', user_name, 'src_ip', host(src_ip),
                    'dst_ip', host(dst_ip), 'signature', signature) || coalesce(payload->'fields', '{}'))::text
            FROM inosec.threat_events ORDER BY id, tenant_id";
        let (mut events, mut ids) = (Vec::new(), Vec::new());
        for row in self.database.rows(sql, &[]).await {
            let tenant = self.tenants.iter().position(|tenant| *tenant == row.get::<_, Uuid>(0)).unwrap();
            let fields: BTreeMap<String, Value> = serde_json::from_str(row.get(7)).unwrap();
            events.push(Event {
                tenant: tenant as u8,
                id: ids.len() as u32,
                rule: row.get(2),
                time: row.get(3),
                arrival: row.get(4),
                severity: row.get(5),
                host: row.get(6),
                fields: fields
                    .iter()
                    .filter_map(|(name, value)| Some((name.clone(), first(value)?)))
                    .collect(),
            });
            ids.push(row.get(1));
        }
        (events, ids)
    }

    /// Until the clock has passed the end of every window of now, and what it then is.
    async fn decided(&self) -> i64 {
        let clock =
            "SELECT coalesce((extract(epoch FROM clock) * 1000000)::bigint, 0) FROM inosec.correlator";
        let last =
            "SELECT (extract(epoch FROM max(ingested_at)) * 1000000)::bigint FROM inosec.threat_events";
        let last = self.database.number(last).await + (WINDOW + LATENESS) * SECOND;
        eventually("every window decided", Duration::from_secs(60), || async {
            let now = self.database.number(clock).await;
            (now > last).then_some(now)
        })
        .await
    }

    /// The episodes that alerts show.
    async fn found(&self, ids: &[Uuid]) -> BTreeSet<Found> {
        let sql = "SELECT a.tenant_id, a.rule_id,
                array(SELECT value FROM jsonb_each_text(a.grouped_by) ORDER BY key COLLATE \"C\"),
                (extract(epoch FROM a.first_seen) * 1000000)::bigint,
                (extract(epoch FROM a.last_seen) * 1000000)::bigint,
                array(SELECT threat_event_id FROM inosec.alert_events AS m WHERE m.alert_id = a.id), a.event_count
            FROM inosec.alerts AS a WHERE a.episode = 'live'";
        let places: HashMap<&Uuid, u32> = ids.iter().zip(0..).collect();
        let mut found = BTreeSet::new();
        for row in self.database.rows(sql, &[]).await {
            let tenant = self.tenants.iter().position(|tenant| *tenant == row.get::<_, Uuid>(0)).unwrap();
            let events: Vec<Uuid> = row.get(5);
            assert_eq!(events.len() as i64, row.get::<_, i64>(6), "what is counted is there");
            let mut members: Vec<u32> = events.iter().map(|id| places[id]).collect();
            members.sort_unstable();
            let group = row.get::<_, Vec<String>>(2).iter().map(|value| value.to_lowercase()).collect();
            let new = found.insert((tenant as u8, row.get(1), group, row.get(3), row.get(4), members));
            assert!(new, "one episode, one alert: {row:?}");
        }
        found
    }

    /// Alerts are the episodes of these rules, and their trail is whole. Returns them by rule.
    pub async fn check(&self, rules: Vec<Rule>) -> BTreeMap<String, usize> {
        let now = self.decided().await;
        let (events, ids) = self.stored().await;
        let setting = Setting {
            rules,
            lateness: LATENESS * SECOND,
            max_skew: 3600 * SECOND,
            gap: 3600 * SECOND,
            alert_severity: 4,
            now,
            unit: 1,
        };
        let sorted = |(tenant, rule, group, first, last, mut members): Found| {
            members.sort_unstable();
            (tenant, rule, group, first, last, members)
        };
        let expected: BTreeSet<Found> = setting.episodes(&events).into_iter().map(sorted).collect();
        let found = self.found(&ids).await;
        let missing: Vec<_> = expected.difference(&found).collect();
        let extra: Vec<_> = found.difference(&expected).collect();
        println!("{} threat events, {} alerts", events.len(), found.len());
        assert!(missing.is_empty() && extra.is_empty(), "missing {missing:#?}\nextra {extra:#?}");
        let own = "SELECT count(*) FROM inosec.threat_events AS e
            JOIN inosec.alert_events AS m ON m.threat_event_id = e.id AND m.tenant_id = e.tenant_id
            JOIN inosec.alerts AS a ON a.id = m.alert_id AND a.episode = 'live' AND NOT a.correlation
            WHERE e.alert_id IS DISTINCT FROM a.id";
        assert_eq!(self.database.number(own).await, 0, "each knows the alert of its own");
        self.check_changes().await;
        let mut by_rule = BTreeMap::new();
        found.into_iter().for_each(|found| *by_rule.entry(found.1).or_insert(0) += 1);
        by_rule
    }

    /// Every alert's versions are recorded without a gap, in order, and the last is as the alert is.
    async fn check_changes(&self) {
        let sql = "SELECT count(*) FROM inosec.alerts AS a WHERE a.version <> (
            SELECT count(*) FROM inosec.alert_changes AS c WHERE c.alert_id = a.id)";
        assert_eq!(self.database.number(sql).await, 0, "every version is recorded");
        let sql = "SELECT count(*) FROM (SELECT c.version, row_number() OVER (PARTITION BY c.alert_id ORDER BY c.seq) AS n
            FROM inosec.alert_changes AS c) AS v WHERE version <> n";
        assert_eq!(self.database.number(sql).await, 0, "in order");
        let sql = "SELECT count(*) FROM inosec.alert_sequences AS s
            WHERE s.last_seq <> (SELECT count(*) FROM inosec.alert_changes AS c WHERE c.tenant_id = s.tenant_id)";
        assert_eq!(self.database.number(sql).await, 0, "no sequence number is missing");
    }

    pub async fn end(self, running: Vec<Running>) {
        drop(running);
        self.database.drop().await;
        for topic in [&self.topic, &self.threats, &self.alerts] {
            kafka::delete_topic(topic).await;
        }
    }
}

/// The first value there is, as text.
fn first(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(values) => values.iter().find_map(first),
        other => Some(other.to_string()),
    }
}

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
    let mut running = vec![arena.setup.spawn(&[]), arena.setup.spawn(&[])];
    let points = ["correlator-taken", "correlator-before-commit", "correlator-after-commit", "before-commit"];
    for kill in 0..kills {
        for number in 0..120 {
            send_one(&arena, &mut random, now, kill * 1000 + number);
        }
        send_beats(&arena, &mut random, kill as u64);
        let victim = random.below(2) as usize;
        tokio::time::sleep(Duration::from_millis(300 + random.below(2_500))).await;
        match kill % 10 {
            // Frozen: the server ends its session and another leads; then it wakes up.
            5 => {
                running[victim].signal(libc::SIGSTOP);
                tokio::time::sleep(Duration::from_secs(13)).await;
                running[victim].signal(libc::SIGCONT);
            }
            // At a named point, if it comes to it before it is killed anyway.
            point @ 0..=3 => {
                running[victim].kill();
                let fault = format!("{}:kill:2", points[point as usize]);
                running[victim] = arena.setup.spawn(&[("INOSEC_FAULT", &fault)]);
            }
            _ => {
                running[victim].kill();
                running[victim] = arena.setup.spawn(&[]);
            }
        }
    }
    // Whoever was to die at a point may have done so.
    for process in &mut running {
        process.kill();
        *process = arena.setup.spawn(&[]);
    }
    arena.settle(&running[0]).await;
    let found = arena.check(rules()).await;
    assert!(rules().iter().all(|rule| found[&rule.id] > 2), "the day has alerts of each rule: {found:?}");
    let taken_back = "SELECT count(*) FROM inosec.alert_changes
        WHERE alert->>'rule_id' = $1 AND kind IN ('shrunk', 'withdrawn')";
    let taken_back: i64 = arena.database.rows(taken_back, &[&FEW]).await[0].get(0);
    assert_eq!(taken_back, 0, "what is decided at a window's end is decided once");
    let epoch = arena.database.number("SELECT epoch FROM inosec.correlator").await;
    println!("{kills} kills, {epoch} leaders");
    assert!(epoch > 2, "others came to lead");
    arena.end(running).await;
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

        // Every change went out under its tenant, in order.
        let changes = arena.database.number("SELECT count(*) FROM inosec.alert_changes").await;
        let sent = kafka::read_all(&arena.alerts, changes as usize).await;
        let mut last: BTreeMap<String, i64> = BTreeMap::new();
        for (key, value) in &sent {
            let message: Value = serde_json::from_slice(value).unwrap();
            assert_eq!(message["alert"]["tenant_id"].as_str().unwrap().as_bytes(), key.as_slice());
            let version = message["version"].as_i64().unwrap();
            let id = message["alert"]["id"].as_str().unwrap().to_owned();
            assert_eq!(message["alert"]["version"].as_i64(), Some(version));
            let before = last.insert(id, version).unwrap_or(0);
            assert_eq!(version, before + 1, "{message}");
        }
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
    let services = |how: &str| {
        let program = crate::support::servers::variable("INOSEC_TEST_SERVICES");
        let status = std::process::Command::new(program).args([how, "kafka"]).status().unwrap();
        assert!(status.success(), "{how}");
    };
    services("down");
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
    services("up");
    eventually("all changes sent", Duration::from_secs(90), || async {
        let sql = "SELECT count(*) FROM inosec.alert_sequences AS s
            LEFT JOIN inosec.alert_relay AS r USING (tenant_id) WHERE r.sent_seq IS DISTINCT FROM s.last_seq";
        (arena.database.number(sql).await == 0).then_some(())
    })
    .await;
    let sent = kafka::read_all(&arena.alerts, 2).await;
    let kinds: Vec<Value> = sent.iter().map(|(_, value)| serde_json::from_slice(value).unwrap()).collect();
    assert!(kinds.iter().any(|change| change["alert"]["title"] == "Foreign finding"), "{kinds:?}");
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
