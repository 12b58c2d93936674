//! Two tenants with rules whose alerts are known by their definitions, on real servers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::database::Database;
use super::kafka::{self, Producer};
use super::process::{Running, Setup};
use super::servers::Store;
use super::{Random, eventually};
use crate::conservation::add_tenant;
use crate::reference::{Event, Found, Measure, Rule, SECOND, Setting};

const PARTITIONS: i32 = 3;
const FAILURE: &str = "7c1fd6a5-0000-4000-8000-000000000001";
const SUCCESS: &str = "7c1fd6a5-0000-4000-8000-000000000002";
pub const WHOAMI: &str = "7c1fd6a5-0000-4000-8000-000000000003";
const BEAT: &str = "7c1fd6a5-0000-4000-8000-000000000004";
pub const BRUTE: &str = "7c1fd6a5-0000-4000-8000-00000000000a";
const SPRAY: &str = "7c1fd6a5-0000-4000-8000-00000000000b";
pub const BROKEN_IN: &str = "7c1fd6a5-0000-4000-8000-00000000000c";
pub const FEW: &str = "7c1fd6a5-0000-4000-8000-00000000000d";

/// Seconds of lateness that windows allow that are decided at their end.
pub const LATENESS: i64 = 4;
/// Seconds of the one that is.
pub const WINDOW: i64 = 5;

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
pub fn rules() -> Vec<Rule> {
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
    pub alerts: String,
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
    pub async fn check_changes(&self) {
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

    /// Every change went out under its tenant; the first of each in order, whatever was sent again. Returns how
    /// many were.
    pub async fn check_relayed(&self) -> usize {
        eventually("all changes sent", Duration::from_secs(90), || async {
            let sql = "SELECT count(*) FROM inosec.alert_sequences AS s
                LEFT JOIN inosec.alert_relay AS r USING (tenant_id) WHERE r.sent_seq IS DISTINCT FROM s.last_seq";
            (self.database.number(sql).await == 0).then_some(())
        })
        .await;
        let mut sent: BTreeMap<Uuid, i64> = BTreeMap::new();
        let mut versions: BTreeMap<String, i64> = BTreeMap::new();
        let mut again = 0;
        for (key, value) in kafka::read_all(&self.alerts).await {
            let change: Value = serde_json::from_slice(&value).unwrap();
            let tenant: Uuid = std::str::from_utf8(&key).unwrap().parse().unwrap();
            assert_eq!(change["alert"]["tenant_id"], json!(tenant));
            assert_eq!(change["alert"]["version"], change["version"]);
            let seq = change["seq"].as_i64().unwrap();
            let last = sent.entry(tenant).or_insert(0);
            assert!(seq <= *last + 1, "{seq} after {last}");
            again += usize::from(seq <= *last);
            if seq > *last {
                let version = versions.entry(change["alert"]["id"].to_string()).or_insert(0);
                *version += 1;
                assert_eq!(change["version"], json!(version), "{change}");
            }
            *last = seq.max(*last);
        }
        let rows = self.database.rows("SELECT tenant_id, last_seq FROM inosec.alert_sequences", &[]).await;
        assert_eq!(sent, rows.iter().map(|row| (row.get(0), row.get(1))).collect());
        println!("{} changes sent, {again} of them more than once", sent.values().sum::<i64>());
        again
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

/// Two processes of an arena, one or the other of which something befalls.
pub struct Pair {
    pub running: Vec<Running>,
}

impl Pair {
    pub fn start(setup: &Setup) -> Self {
        Self { running: vec![setup.spawn(&[]), setup.spawn(&[])] }
    }

    /// Strikes one of them dead, at a named point or wherever it is, or freezes the leader for a while.
    pub async fn strike(&mut self, turn: usize, setup: &Setup, random: &mut Random) {
        let points =
            ["correlator-taken", "correlator-before-commit", "correlator-after-commit", "before-commit"];
        if turn % 10 == 5 {
            return self.freeze_the_leader().await;
        }
        let victim = &mut self.running[random.below(2) as usize];
        match turn % 10 {
            // At a named point, if it comes to it before it is killed anyway.
            point @ 0..=3 => {
                victim.kill();
                *victim = setup.spawn(&[("INOSEC_FAULT", &format!("{}:kill:2", points[point]))]);
            }
            _ => {
                victim.kill();
                *victim = setup.spawn(&[]);
            }
        }
    }

    /// The server ends its session and another leads; then it wakes up.
    async fn freeze_the_leader(&self) {
        let leader = eventually("a leader", Duration::from_secs(60), || async {
            self.running.iter().find(|process| {
                let page = process.get("/metrics").map(|(_, page)| page).unwrap_or_default();
                let leading =
                    |line: &str| line.starts_with("inosec_correlate_leading_state{") && line.ends_with(" 1");
                page.lines().any(leading)
            })
        })
        .await;
        leader.signal(libc::SIGSTOP);
        tokio::time::sleep(Duration::from_secs(13)).await;
        leader.signal(libc::SIGCONT);
    }

    /// Kills both once more and starts them without a fault: whoever was to die at a point may have done so.
    pub fn renew(&mut self, setup: &Setup) {
        for process in &mut self.running {
            process.kill();
            *process = setup.spawn(&[]);
        }
    }
}
