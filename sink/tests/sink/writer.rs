//! The one transaction: order, compare-and-swap, bisecting, epochs, duplicates, lost replies.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use inosec_schemas::{Span, TenantStatus};
use inosec_sink::{Health, Store, StoreConfig, Writer};
use uuid::Uuid;

use crate::support::database::{Database, each};
use crate::support::proxy::Proxy;
use crate::support::road::{NOON, and, event, messages, redo, sealed, stream, tenant, topic};

async fn next_offset(database: &Database, partition: i32) -> i64 {
    database
        .count(&format!("SELECT next_offset FROM inosec.ingest_offsets WHERE partition = {partition}"))
        .await
}

async fn rows(database: &Database) -> i64 {
    database.count("SELECT count(*) FROM inosec.agent_logs").await
}

/// Counts, rows and blocks say the same.
async fn consistent(database: &Database) {
    let rows = rows(database).await;
    let counted =
        "SELECT coalesce(sum(events), 0)::int8 FROM inosec.event_counts WHERE stream = 'agent_logs'";
    assert_eq!(database.count(counted).await, rows, "counts");
    let blocks = "SELECT coalesce(sum(events), 0)::int8 FROM inosec.raw_blocks WHERE stream = 'agent_logs'";
    assert_eq!(database.count(blocks).await, rows, "blocks");
    let hosts = "SELECT coalesce(sum(events), 0)::int8 FROM inosec.host_devices";
    assert_eq!(database.count(hosts).await, rows, "hosts");
    let twice = "SELECT count(*) - count(DISTINCT (kafka_topic_id, kafka_partition, kafka_offset)) FROM inosec.agent_logs";
    assert_eq!(database.count(twice).await, 0, "duplicates");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_becomes_rows_blocks_counts_hosts_letters_and_offsets() {
    each(async |database| {
        let store = database.store().await;
        let (a, b) = (tenant(&store, "a").await, tenant(&store, "b").await);
        let topic = topic(&store, "t", "agent_logs", 2).await;
        let first: Vec<String> =
            (0..300).map(|n| event([a, b][n as usize % 2], &format!("h{}", n % 7), n)).collect();
        let detection = format!("tenant={a};host=h;at={NOON};text=x;detect={}", Uuid::from_u128(5));
        let second = vec![event(a, "h", 1), "!no".to_owned(), detection, format!("!tenant={a};")];
        let batch = sealed(&store, and(messages(&topic, 0, 0, &first), 1, 0, &second)).await;
        let written = Writer::new(Arc::clone(&store)).write(batch, &redo(&store)).await.expect("writes");
        assert_eq!((written.rows, written.detections, written.dead, written.transactions), (302, 1, 2, 1));
        assert_eq!((written.committed.len(), written.lost.len()), (2, 0));
        assert_eq!((next_offset(database, 0).await, next_offset(database, 1).await), (300, 4));
        assert_eq!(rows(database).await, 302);
        consistent(database).await;
        assert_eq!(
            database.count("SELECT count(*) FROM inosec.threat_events WHERE signature = 'x'").await,
            1
        );
        assert_eq!(database.count("SELECT cardinality(ids)::int8 FROM inosec.correlation_queue").await, 1);
        let letter =
            "SELECT count(*) FROM inosec.dead_letters WHERE reason = 'bad_json' AND \"offset\" IN (1, 3)
            AND partition = 1 AND headers->>'kind' = 'test' AND headers->'bytes'->>'hex' = '00c8'
            AND payload IN ('!no', convert_to('!tenant=' || tenant_id || ';', 'UTF8')) ";
        assert_eq!(database.count(letter).await, 2);
        let used = "SELECT sum(letters)::int8 FROM inosec.dead_letter_usage";
        assert_eq!(database.count(used).await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_without_messages_moves_the_offset() {
    each(async |database| {
        let store = database.store().await;
        let topic = topic(&store, "t", "agent_logs", 1).await;
        let mut none = messages(&topic, 0, 0, &[]);
        none.spans = vec![Span { partition: 0, from: 0, to: 57, generation: 1 }];
        let batch = sealed(&store, none).await;
        let written = Writer::new(Arc::clone(&store)).write(batch, &redo(&store)).await.expect("writes");
        assert_eq!((written.rows, written.committed.len()), (0, 1));
        assert_eq!(next_offset(database, 0).await, 57);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_owners_one_stores_a_span_and_the_other_only_the_rest() {
    each(async |database| {
        let store = database.store().await;
        let tenant = tenant(&store, "a").await;
        let topic = topic(&store, "t", "agent_logs", 2).await;
        let zero: Vec<String> = (0..50).map(|n| event(tenant, "h0", n)).collect();
        let one: Vec<String> = (0..50).map(|n| event(tenant, "h1", n)).collect();
        let both = sealed(&store, and(messages(&topic, 0, 0, &zero), 1, 0, &one)).await;
        let alone = sealed(&store, messages(&topic, 0, 0, &zero[..20])).await;
        let redo = redo(&store);
        let first = Writer::new(Arc::clone(&store)).write(alone, &redo).await.expect("writes");
        assert_eq!(first.rows, 20);
        let second = Writer::new(Arc::clone(&store)).write(both, &redo).await.expect("writes");
        assert_eq!((second.rows, second.transactions, second.committed.len()), (50, 2, 1));
        assert_eq!((second.lost[0].span.partition, second.lost[0].stored), (0, Some(20)));
        assert_eq!((next_offset(database, 0).await, next_offset(database, 1).await), (20, 50));
        consistent(database).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_zombies_and_overlapping_hosts_neither_duplicate_nor_deadlock() {
    each(async |database| {
        let store = database.store().await;
        let tenant = tenant(&store, "a").await;
        let topic = topic(&store, "t", "agent_logs", 4).await;
        // Four writers want the same spans of all partitions, in chunks, over the same 40 hosts.
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..4_i64 {
            let (store, topic) = (Arc::clone(&store), Arc::clone(&topic));
            writers.spawn(async move {
                let mut lost = 0;
                for chunk in 0..6 {
                    let values: Vec<String> =
                        (0..60).map(|n| event(tenant, &format!("h{}", (n * (writer + 7)) % 40), n)).collect();
                    let mut all = messages(&topic, 0, chunk * 60, &values);
                    for partition in 1..4 {
                        all = and(all, partition, chunk * 60, &values);
                    }
                    let batch = sealed(&store, all).await;
                    let written = Writer::new(Arc::clone(&store)).write(batch, &redo(&store)).await;
                    lost += written.expect("writes").lost.len();
                }
                lost
            });
        }
        let lost: usize = writers.join_all().await.into_iter().sum();
        assert_eq!(lost, 3 * 4 * 6, "each span has one owner");
        assert_eq!(rows(database).await, 4 * 6 * 60);
        consistent(database).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poisoned_row_is_found_and_the_others_are_stored() {
    each(async |database| {
        let store = database.store().await;
        let tenant = tenant(&store, "a").await;
        let topic = topic(&store, "t", "agent_logs", 2).await;
        let admin = database.admin().await;
        let check = "ALTER TABLE inosec.agent_logs ADD CONSTRAINT no_poison CHECK (host_name <> 'poison')";
        admin.batch_execute(check).await.expect("adds the check");
        let mut zero: Vec<String> = (0..100).map(|n| event(tenant, "h0", n)).collect();
        zero[37] = event(tenant, "poison", 37);
        let one: Vec<String> = (0..30).map(|n| event(tenant, "h1", n)).collect();
        let batch = sealed(&store, and(messages(&topic, 0, 0, &zero), 1, 0, &one)).await;
        let written = Writer::new(Arc::clone(&store)).write(batch, &redo(&store)).await.expect("writes");
        assert_eq!((written.rows, written.dead), (129, 1));
        assert_eq!((next_offset(database, 0).await, next_offset(database, 1).await), (100, 30));
        consistent(database).await;
        let letters = store.dead_letters(&Default::default(), 10).await.expect("lists");
        assert_eq!((letters.len(), letters[0].offset, letters[0].reason.as_str()), (1, 37, "constraint"));
        assert_eq!(letters[0].tenant, Some(tenant));
        assert!(
            letters[0].detail.contains("23514") && letters[0].detail.contains("no_poison"),
            "{letters:?}"
        );
        assert!(!letters[0].detail.contains("event 37"), "no values");
        let contents = store.dead_letter(letters[0].id).await.expect("reads").expect("is there");
        assert_eq!(contents.payload.as_deref(), Some(zero[37].as_bytes()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_suspended_meanwhile_is_not_written_to() {
    each(async |database| {
        let store = database.store().await;
        let (a, b) = (tenant(&store, "a").await, tenant(&store, "b").await);
        let topic = topic(&store, "t", "agent_logs", 1).await;
        let values: Vec<String> = (0..20).map(|n| event([a, b][n as usize % 2], "h", n)).collect();
        let batch = sealed(&store, messages(&topic, 0, 0, &values)).await;
        let other = database.store().await;
        other.set_tenant_status(b, TenantStatus::Suspended, "test").await.expect("suspends");
        let written = Writer::new(Arc::clone(&store)).write(batch, &redo(&store)).await.expect("writes");
        assert_eq!((written.rows, written.dead, written.transactions), (10, 10, 2));
        let letters = "SELECT count(*) FROM inosec.dead_letters WHERE reason = 'suspended_tenant'";
        assert_eq!(database.count(letters).await, 10);
        let audited =
            "SELECT count(*) FROM inosec.audit_trails WHERE action IN ('tenant.add', 'tenant.suspend')";
        assert_eq!(database.count(audited).await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_threat_event_is_stored_once_per_tenant_and_id() {
    each(async |database| {
        let store = database.store().await;
        let (a, b) = (tenant(&store, "a").await, tenant(&store, "b").await);
        let topic = topic(&store, "t", "threat_events", 1).await;
        let value = |tenant, id: u128| {
            format!("tenant={tenant};host=h;at={NOON};text=sig;id={}", Uuid::from_u128(id))
        };
        let first = [value(a, 9), value(a, 1), value(a, 9), value(b, 9)];
        let second = [value(a, 1), value(a, 2), value(b, 9)];
        let mut writer = Writer::new(Arc::clone(&store));
        let batch = sealed(&store, messages(&topic, 0, 0, &first)).await;
        let written = writer.write(batch, &redo(&store)).await.expect("writes");
        assert_eq!((written.rows, written.duplicates), (3, 1));
        let batch = sealed(&store, messages(&topic, 0, 4, &second)).await;
        let written = writer.write(batch, &redo(&store)).await.expect("writes");
        assert_eq!((written.rows, written.duplicates), (1, 2));
        assert_eq!(database.count("SELECT count(*) FROM inosec.threat_events").await, 4);
        let counted = "SELECT sum(events)::int8 FROM inosec.event_counts WHERE stream = 'threat_events'";
        assert_eq!(database.count(counted).await, 4);
        assert_eq!(database.count("SELECT sum(events)::int8 FROM inosec.correlation_queue").await, 4);
    })
    .await;
}

/// The store of a database behind a proxy.
pub async fn behind_proxy(database: &Database) -> (Proxy, Arc<Store>) {
    behind_proxy_with(database, database.config()).await
}

async fn behind_proxy_with(database: &Database, mut config: StoreConfig) -> (Proxy, Arc<Store>) {
    let url = database.url.clone();
    let (head, tail) = url.split_once("@").expect("a login");
    let (server, name) = tail.split_once('/').expect("a database");
    let proxy = Proxy::start(server).await;
    config.url = format!("{head}@127.0.0.1:{}/{name}", proxy.port);
    (proxy, Store::connect(&config).await.expect("connects"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_an_answer_is_looked_up_not_repeated() {
    each(async |database| {
        let (proxy, store) = behind_proxy(database).await;
        let tenant = tenant(&store, "a").await;
        let topic = topic(&store, "t", "agent_logs", 1).await;
        let mut writer = Writer::new(Arc::clone(&store));
        let values: Vec<String> = (0..25).map(|n| event(tenant, "h", n)).collect();

        proxy.cut_after_commit.store(true, Ordering::SeqCst);
        let batch = sealed(&store, messages(&topic, 0, 0, &values)).await;
        let written = writer.write(batch, &redo(&store)).await.expect("writes");
        assert_eq!((written.rows, written.lost.len()), (25, 0));
        assert!(!proxy.cut_after_commit.load(Ordering::SeqCst), "it was cut");
        assert_eq!((rows(database).await, next_offset(database, 0).await), (25, 25));

        proxy.cut_before_commit.store(true, Ordering::SeqCst);
        let batch = sealed(&store, messages(&topic, 0, 25, &values)).await;
        let written = writer.write(batch, &redo(&store)).await.expect("writes");
        assert_eq!((written.rows, written.lost.len()), (25, 0));
        assert_eq!((rows(database).await, next_offset(database, 0).await), (50, 50));
        consistent(database).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_comes_is_given_up() {
    each(async |database| {
        let mut config = database.config();
        config.answer_timeout = Duration::from_millis(500);
        let (proxy, store) = behind_proxy_with(database, config).await;
        let tenant = tenant(&store, "a").await;
        let topic = topic(&store, "t", "agent_logs", 1).await;
        let values: Vec<String> = (0..25).map(|n| event(tenant, "h", n)).collect();
        proxy.swallow_commit.store(true, Ordering::SeqCst);
        let batch = sealed(&store, messages(&topic, 0, 0, &values)).await;
        let written = Writer::new(Arc::clone(&store)).write(batch, &redo(&store)).await.expect("writes");
        assert_eq!((written.rows, written.lost.len()), (25, 0));
        assert!(!proxy.swallow_commit.load(Ordering::SeqCst), "it was swallowed");
        assert_eq!((rows(database).await, next_offset(database, 0).await), (25, 25));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_is_waited_for_and_blames_no_row() {
    each(async |database| {
        let mut config = database.config();
        config.lock_timeout = Duration::from_millis(100);
        let store = Store::connect(&config).await.expect("connects");
        let tenant = tenant(&store, "a").await;
        let topic = topic(&store, "t", "agent_logs", 1).await;
        let values: Vec<String> = (0..5).map(|n| event(tenant, "h", n)).collect();
        let batch = sealed(&store, messages(&topic, 0, 0, &values)).await;
        let admin = database.admin().await;
        admin.batch_execute("BEGIN; LOCK TABLE inosec.agent_logs").await.expect("locks");
        let (redo, writing) = (redo(&store), Arc::clone(&store));
        let writing = tokio::spawn(async move { Writer::new(writing).write(batch, &redo).await });
        let mut health = store.health();
        health.wait_for(|health| matches!(health, Health::Down { .. })).await.expect("goes down");
        admin.batch_execute("ROLLBACK").await.expect("unlocks");
        let written = writing.await.expect("no panic").expect("writes");
        assert_eq!((written.rows, written.dead), (5, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_write_leaves_nothing_and_the_circuit_closed() {
    each(async |database| {
        let mut config = database.config();
        config.lock_timeout = Duration::from_millis(50);
        let store = Store::connect(&config).await.expect("connects");
        let tenant = tenant(&store, "a").await;
        let topic = topic(&store, "t", "agent_logs", 1).await;
        let values: Vec<String> = (0..5).map(|n| event(tenant, "h", n)).collect();
        let admin = database.admin().await;
        admin.batch_execute("BEGIN; LOCK TABLE inosec.event_counts").await.expect("locks");
        let batch = sealed(&store, messages(&topic, 0, 0, &values)).await;
        let redo = redo(&store);
        let mut writer = Writer::new(Arc::clone(&store));
        let cancelled = tokio::time::timeout(Duration::from_millis(700), writer.write(batch, &redo)).await;
        assert!(cancelled.is_err());
        assert_eq!(*store.health().borrow(), Health::Ok, "nobody is left to wait");
        admin.batch_execute("ROLLBACK").await.expect("unlocks");
        assert_eq!((rows(database).await, next_offset(database, 0).await), (0, 0));
        let batch = sealed(&store, messages(&topic, 0, 0, &values)).await;
        assert_eq!(writer.write(batch, &redo).await.expect("writes").rows, 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_opens_the_circuit_and_ends_by_itself() {
    each(async |database| {
        let store = database.store().await;
        let tenant = tenant(&store, "a").await;
        let topic = topic(&store, "t", "agent_logs", 1).await;
        let mut health = store.health();
        let values: Vec<String> = (0..5).map(|n| event(tenant, "h", n)).collect();
        let batch = sealed(&store, messages(&topic, 0, 0, &values)).await;
        let name = database.url.rsplit('/').next().expect("a name").to_owned();
        let server = database.url.replace(&name, "postgres");
        let admin = crate::support::database::connect(&server).await;
        admin.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.expect("closes");
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        admin.query(kill, &[&name]).await.expect("kills");
        let (redo, writing) = (redo(&store), Arc::clone(&store));
        let writing = tokio::spawn(async move { Writer::new(writing).write(batch, &redo).await });
        health.wait_for(|health| matches!(health, Health::Down { .. })).await.expect("goes down");
        admin.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await.expect("opens");
        let written = writing.await.expect("no panic").expect("writes");
        assert_eq!(written.rows, 5);
        assert_eq!(*health.borrow_and_update(), Health::Ok);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_partition_is_made_again() {
    each(async |database| {
        let store = database.store().await;
        let tenant = tenant(&store, "a").await;
        let topic = topic(&store, "t", "agent_logs", 1).await;
        let mut writer = Writer::new(Arc::clone(&store));
        for from in [0, 10] {
            let values: Vec<String> = (0..10).map(|n| event(tenant, "h", n)).collect();
            let batch = sealed(&store, messages(&topic, 0, from, &values)).await;
            assert_eq!(writer.write(batch, &redo(&store)).await.expect("writes").rows, 10);
            if from == 0 {
                let drop = if database.timescale {
                    "SELECT drop_chunks('inosec.agent_logs', older_than => timestamptz 'infinity')"
                } else {
                    "DROP TABLE inosec.agent_logs_p20260304"
                };
                database.admin().await.batch_execute(drop).await.expect("drops");
            }
        }
        assert_eq!((rows(database).await, next_offset(database, 0).await), (10, 20));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_quota_letters_keep_offsets_only() {
    each(async |database| {
        let mut config = database.config();
        config.dead_letter_quota = 1000;
        let store = Store::connect(&config).await.expect("connects");
        let tenant = tenant(&store, "a").await;
        let topic = topic(&store, "t", "agent_logs", 1).await;
        let values: Vec<String> =
            (0..100).map(|n| format!("!{n};tenant={tenant};{}", "x".repeat(60))).collect();
        let mut writer = Writer::new(Arc::clone(&store));
        for half in [0, 50] {
            let batch = sealed(&store, messages(&topic, 0, half, &values[half as usize..][..50])).await;
            assert_eq!(writer.write(batch, &redo(&store)).await.expect("writes").dead, 50);
        }
        let letters = store.dead_letters(&Default::default(), 1000).await.expect("lists");
        let kept = letters.iter().filter(|letter| letter.payload_bytes.is_some()).count();
        assert!((5..10).contains(&kept), "{kept} letters kept their bytes");
        let ranges: Vec<_> = letters.iter().filter(|letter| letter.payload_bytes.is_none()).collect();
        assert_eq!(ranges.len(), 2, "one range per transaction");
        let covered: i64 = letters.iter().map(|letter| letter.last_offset - letter.offset + 1).sum();
        assert_eq!(covered, 100);
        let stream = stream("agent_logs");
        assert_eq!(stream.name, topic.stream.name);
    })
    .await;
}
