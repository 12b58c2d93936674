//! Raw messages: merged by maintenance without losing one, and found again.

use std::sync::Arc;

use inosec_schemas::TenantId;
use inosec_sink::events::{Query, Search};
use inosec_sink::{Store, Writer};

use crate::support::database::{Database, each};
use crate::support::now;
use crate::support::road::{messages, redo, sealed, stream, tenant, topic};

const HOUR: i64 = 3_600_000_000;

/// All messages of a tenant as the search shows them, newest first.
async fn search(
    store: &Store,
    tenant: TenantId,
    filters: &[&str],
    text: Option<&str>,
    limit: usize,
) -> Vec<String> {
    let query = Query {
        stream: stream("agent_logs"),
        tenant,
        from: 0,
        to: now() + HOUR,
        filters: filters.iter().map(|filter| filter.parse().expect("a filter")).collect(),
        text: text.map(str::to_owned),
        limit,
    };
    let mut search = Search::new(store, query).expect("a sound query");
    let mut found = Vec::new();
    while let Some(hits) = search.next().await.expect("finds") {
        for hit in hits {
            found.push(String::from_utf8(hit.message.expect("a block holds it")).expect("text"));
        }
    }
    found
}

/// Forty small batches of two tenants, three hours ago; returns the messages of each, newest first.
async fn quiet_hours(store: &Arc<Store>, database: &Database) -> [(TenantId, Vec<String>); 2] {
    let (a, b) = (tenant(store, "a").await, tenant(store, "b").await);
    let topic = topic(store, "t", "agent_logs", 1).await;
    let then = (now() - 3 * HOUR).div_euclid(HOUR) * HOUR;
    let mut sent = [(a, Vec::new()), (b, Vec::new())];
    let mut writer = Writer::new(Arc::clone(store));
    for batch in 0..40_i64 {
        let values: Vec<String> = (0..8)
            .map(|n| {
                let number = batch * 8 + n;
                let (tenant, kept) = &mut sent[n as usize % 2];
                let at = then + number * 1_000_000;
                let value = format!("tenant={tenant};host=h{};at={at};text=Event {number}.", n % 3);
                kept.insert(0, value.clone());
                value
            })
            .collect();
        let sealed = sealed(store, messages(&topic, 0, batch * 8, &values)).await;
        writer.write(sealed, &redo(store)).await.expect("writes");
    }
    assert_eq!(database.count("SELECT count(*) FROM inosec.raw_blocks").await, 80);
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn merging_keeps_every_message_where_its_row_finds_it() {
    each(async |database| {
        let store = database.store().await;
        let sent = quiet_hours(&store, database).await;
        for (tenant, expected) in &sent {
            assert_eq!(&search(&store, *tenant, &[], None, 10_000).await, expected);
        }
        let (done, again) =
            (store.maintain().await.expect("maintains"), store.maintain().await.expect("maintains"));
        assert_eq!((done.merged, done.into), (80, 4), "160 messages a tenant, 128 a block");
        assert_eq!((again.merged, again.partitions), (0, 0));
        assert_eq!(database.count("SELECT count(*) FROM inosec.raw_blocks").await, 4);
        assert_eq!(database.count("SELECT sum(events)::int8 FROM inosec.raw_blocks").await, 320);
        for (tenant, expected) in &sent {
            assert_eq!(&search(&store, *tenant, &[], None, 10_000).await, expected);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_found_by_column_text_and_limit() {
    each(async |database| {
        let store = database.store().await;
        let sent = quiet_hours(&store, database).await;
        let (tenant, all) = &sent[0];
        assert_eq!(search(&store, *tenant, &[], None, 7).await, all[..7]);
        let h2: Vec<String> = all.iter().filter(|value| value.contains("host=h2")).cloned().collect();
        assert_eq!(search(&store, *tenant, &["host_name=h2"], None, 1000).await, h2);
        assert_eq!(
            search(&store, *tenant, &["host_name=h2", "kafka_offset<16"], None, 1000).await,
            h2[h2.len() - 2..]
        );
        assert_eq!(search(&store, *tenant, &["host_name~H2", "class_uid>=1"], None, 1000).await, h2);
        assert_eq!(search(&store, *tenant, &[], Some("eVENT 100."), 10).await.len(), 1);
        assert_eq!(search(&store, *tenant, &["src_ip=10.0.0.1"], None, 10).await.len(), 0);
        assert_eq!(search(&store, TenantId(uuid::Uuid::nil()), &[], None, 10).await.len(), 0);
        let bad = Query {
            stream: stream("agent_logs"),
            tenant: *tenant,
            from: 0,
            to: now(),
            filters: vec!["src_ip=nowhere".parse().expect("a filter")],
            text: None,
            limit: 1,
        };
        let error =
            Search::new(&store, bad.clone()).expect("names are fine").next().await.expect_err("no address");
        assert!(error.to_string().contains("doesn't fit"), "{error}");
        let bad = Query { filters: vec!["nonsense=1".parse().expect("a filter")], ..bad };
        assert!(Search::new(&store, bad).is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_letters_expire_and_partitions_are_ahead() {
    each(async |database| {
        let store = database.store().await;
        let admin = database.admin().await;
        let old = "SELECT inosec.ensure_partition('dead_letters', now() - interval '40 days');
            INSERT INTO inosec.dead_letters (received_at, reason, detail, topic, topic_key, partition, \"offset\",
                last_offset, arrived_at)
            VALUES (now() - interval '40 days', 'bad_json', '', 't', 1, 0, 0, 0, now())";
        admin.batch_execute(old).await.expect("inserts");
        let done = store.maintain().await.expect("maintains");
        assert_eq!(done.expired, 1);
        assert!(done.partitions >= 4 * 2, "{done:?}");
        assert_eq!(database.count("SELECT count(*) FROM inosec.dead_letters").await, 0);
    })
    .await;
}
