//! The outside contract of the command line, and what operators see of a running process.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::conservation::{add_tenant, wait_consumed};
use crate::support::database::Database;
use crate::support::kafka::{self, Producer};
use crate::support::process::Setup;
use crate::support::servers::Store;
use crate::support::{calm, eventually, load};

fn topic_entry(name: &str) -> String {
    format!("[[topics]]\nname = \"{name}\"\nstream = \"agent_logs\"\ntenant = \"header\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_apart_what_is_missing() {
    let _calm = calm().await;
    let database = Database::create(Store::Postgres).await;
    let topic = kafka::topic_name("check");
    let setup = Setup::new(&database.url, "check", &topic_entry(&topic));
    let status = |environment: &[(&str, &str)]| {
        setup.command(&["check"]).envs(environment.iter().copied()).output().unwrap().status.code()
    };
    assert_eq!(status(&[("INOSEC__BATCH__MAX_ROWS", "none")]), Some(2), "a faulty configuration");
    assert_eq!(status(&[]), Some(3), "a topic that isn't there");
    kafka::create_topic(&topic, 1, &[]).await;
    assert_eq!(status(&[]), Some(5), "a database nobody migrated");
    assert_eq!(status(&[("INOSEC__KAFKA__BROKERS", "127.0.0.1:1")]), Some(3), "no broker");
    setup.json(&["migrate"]);
    assert_eq!(
        status(&[("INOSEC__DATABASES__MAIN__URL", "postgres://x@127.0.0.1:1/x")]),
        Some(4),
        "no database"
    );
    assert_eq!(status(&[]), Some(0));
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_do_what_they_say_and_leave_a_trail() {
    let _calm = calm().await;
    let database = Database::create(Store::Timescale).await;
    let topic = kafka::topic_name("commands");
    kafka::create_topic(&topic, 2, &[]).await;
    let setup = Setup::new(&database.url, &topic, &topic_entry(&topic));
    setup.json(&["migrate"]);
    let tenant = add_tenant(&setup, "first");
    let twice = setup.run(&["tenant", "add", "--name", "first"]);
    assert!(!twice.status.success(), "a name is given once");
    let listed = setup.json(&["tenant", "list"]);
    assert_eq!(listed[0]["name"], "first");
    assert_eq!(listed[0]["status"], "active");

    let producer = Producer::new();
    let needle = br#"{"host":"ws-7","ts":"2026-01-02T03:04:05Z","event":{"user":{"name":"eve"},"note":"a needle in the hay"}}"#;
    (0..500).for_each(|number| producer.send(&topic, &load::message(number), Some(tenant)));
    producer.send(&topic, needle, Some(tenant));
    let ledger = producer.ledger();
    let mut inosec = setup.start(&[]);
    wait_consumed(&database, &ledger, &inosec).await;

    let found = setup.run(&["events", "--tenant", &tenant.to_string(), "--host", "ws-7"]);
    assert_eq!(found.stdout.strip_suffix(b"\n").unwrap(), needle, "printed as received");
    let found = setup.run(&["events", "--tenant", &tenant.to_string(), "--text", "needle in the"]);
    assert_eq!(found.stdout.strip_suffix(b"\n").unwrap(), needle);
    let none = setup.run(&["events", "--tenant", &tenant.to_string(), "--text", "no such text"]);
    assert!(none.stdout.is_empty() && none.status.success());
    let offsets = setup.json(&["offsets", "list"]);
    let total: i64 = offsets.as_array().unwrap().iter().map(|row| row["next_offset"].as_i64().unwrap()).sum();
    assert_eq!(total, 501);
    assert_eq!(setup.json(&["dlq", "list"]).as_array().unwrap().len(), 0);
    setup.json(&["tenant", "suspend", &tenant.to_string()]);
    setup.json(&["tenant", "resume", &tenant.to_string()]);
    let actions = database.rows("SELECT DISTINCT action FROM inosec.audit_trails ORDER BY 1", &[]).await;
    assert!(actions.len() >= 3, "add, suspend and resume are audited");

    assert!(inosec.stop().success(), "SIGTERM is a graceful stop");
    assert!(!inosec.logs().contains("needle"), "logs never hold payloads");
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

/// Suspending takes effect in a running process, and nothing slips through.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_is_never_written_to() {
    let _calm = calm().await;
    let database = Database::create(Store::Timescale).await;
    let topic = kafka::topic_name("suspend");
    kafka::create_topic(&topic, 2, &[]).await;
    let setup = Setup::new(&database.url, &topic, &topic_entry(&topic));
    setup.json(&["migrate"]);
    let tenant = add_tenant(&setup, "tenant");
    let inosec = setup.start(&[]);
    let load = load::Load::start(&topic, tenant, 500);
    let rows = "SELECT count(*) FROM inosec.agent_logs";
    eventually("rows", Duration::from_secs(30), || async { (database.number(rows).await > 0).then_some(()) })
        .await;
    setup.json(&["tenant", "suspend", &tenant.to_string()]);
    let at_suspension = database.number(rows).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ledger = load.finish();
    wait_consumed(&database, &ledger, &inosec).await;
    assert_eq!(database.number(rows).await, at_suspension, "no row after the suspension was committed");
    load::verdict(&database, &ledger).await.assert_exact("a tenant suspended under load");
    drop(inosec);
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

/// Every metric of a real scrape is documented, and promtool has nothing to say, also of those that this
/// scrape happens not to have.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_documented_and_clean() {
    let _calm = calm().await;
    let database = Database::create(Store::Timescale).await;
    let topic = kafka::topic_name("metrics");
    kafka::create_topic(&topic, 1, &[]).await;
    let setup = Setup::new(&database.url, &topic, &topic_entry(&topic));
    setup.json(&["migrate"]);
    let tenant = add_tenant(&setup, "tenant");
    let producer = Producer::new();
    (0..100).for_each(|number| producer.send(&topic, &load::message(number), Some(tenant)));
    producer.send(&topic, b"{", Some(tenant));
    let mut inosec = setup.start(&[]);
    wait_consumed(&database, &producer.ledger(), &inosec).await;
    assert_eq!(inosec.get("/livez").unwrap().0, 200);
    let scrape = inosec.get("/metrics").unwrap().1;
    assert!(!scrape.contains(&tenant.to_string()), "the tenant is never a label");
    let names: BTreeSet<&str> =
        scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let kinds = documented_metrics(&docs);
    let documented: BTreeSet<&str> = kinds.keys().copied().collect();
    let undocumented: Vec<_> = names.difference(&documented).collect();
    assert!(undocumented.is_empty(), "not in docs/metrics.md: {undocumented:?}");
    assert_eq!(
        documented,
        named_in_code().iter().map(String::as_str).collect(),
        "docs/metrics.md and the code"
    );

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let unseen: String = documented.difference(&names).map(|name| exposition(name, kinds[name])).collect();
    promtool.stdin.take().unwrap().write_all((scrape + &unseen).as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.trim().is_empty(), "promtool: {text}");
    assert!(inosec.stop().success());
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

/// Each metric of the page's table, and its type.
fn documented_metrics(docs: &str) -> BTreeMap<&str, &str> {
    let rows = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    rows.map(|(name, rest)| (name, rest.split(' ').next().unwrap())).collect()
}

/// What a scrape says of a metric, as far as names go.
fn exposition(name: &str, kind: &str) -> String {
    let values = match kind {
        "histogram" => format!("{name}_bucket{{le=\"+Inf\"}} 1\n{name}_sum 1\n{name}_count 1\n"),
        _ => format!("{name} 1\n"),
    };
    format!("# HELP {name} .\n# TYPE {name} {kind}\n{values}")
}

/// The names the rooms declare.
fn named_in_code() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in ["ingest/src/metrics.rs", "enrich/src/metrics.rs", "sink/src/metrics.rs"] {
        let text = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let declared = text.split('"').filter(|part| part.starts_with("inosec_") && !part.contains(' '));
        names.extend(declared.map(str::to_owned));
    }
    names
}

/// The set-up of a graceful stop: what was read is stored, and a second run goes on behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_loses_and_repeats_nothing() {
    let _calm = calm().await;
    let database = Database::create(Store::Timescale).await;
    let topic = kafka::topic_name("stop");
    kafka::create_topic(&topic, 2, &[]).await;
    let setup = Setup::new(&database.url, &topic, &topic_entry(&topic));
    setup.json(&["migrate"]);
    let tenant = add_tenant(&setup, "tenant");
    let load = load::Load::start(&topic, tenant, 1000);
    for _ in 0..3 {
        let mut inosec = setup.start(&[]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(inosec.stop().success());
    }
    let ledger = load.finish();
    let inosec = setup.start(&[]);
    wait_consumed(&database, &ledger, &inosec).await;
    load::verdict(&database, &ledger).await.assert_exact("stopped gracefully three times");
    drop(inosec);
    database.drop().await;
    kafka::delete_topic(&topic).await;
}
