//! Dead letters sent through the road again, each once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use inosec_schemas::TenantStatus;
use inosec_sink::{LetterFilter, Writer, redrive};

use crate::support::database::each;
use crate::support::road::{event, messages, redo, sealed, tenant, topic};

#[tokio::test(flavor = "multi_thread")]
async fn once_the_cause_is_gone_letters_become_rows_exactly_once() {
    each(async |database| {
        let store = database.store().await;
        let (a, b) = (tenant(&store, "a").await, tenant(&store, "b").await);
        let topic = topic(&store, "t", "agent_logs", 1).await;
        store.set_tenant_status(b, TenantStatus::Suspended, "test").await.expect("suspends");
        let mut values: Vec<String> = (0..40).map(|n| event([a, b][n as usize % 2], "h", n)).collect();
        values[3] = format!("!tenant={b};never good");
        values[4] = "!nobody's".to_owned();
        let batch = sealed(&store, messages(&topic, 0, 0, &values)).await;
        let written = Writer::new(Arc::clone(&store)).write(batch, &redo(&store)).await.expect("writes");
        assert_eq!((written.rows, written.dead), (19, 21));
        let letters = store.dead_letters(&LetterFilter::default(), 100).await.expect("lists");
        assert_eq!(letters.len(), 21);
        let filter = LetterFilter { reason: Some("bad_json".to_owned()), ..LetterFilter::default() };
        assert_eq!(store.dead_letters(&filter, 100).await.expect("lists").len(), 1);

        let topics = [Arc::clone(&topic)];
        let all = LetterFilter::default();
        let done = redrive(&store, &all, 100, &topics, &redo(&store), "test").await.expect("answers");
        assert_eq!((done.redriven, done.still.len()), (0, 21), "the tenant is still suspended");

        store.set_tenant_status(b, TenantStatus::Active, "test").await.expect("resumes");
        // Two operators at the same time.
        let other = database.store().await;
        let (redo_one, redo_two) = (redo(&store), redo(&other));
        let one = redrive(&store, &all, 100, &topics, &redo_one, "one");
        let two = redrive(&other, &all, 100, &topics, &redo_two, "two");
        let (one, two) = tokio::join!(one, two);
        let (one, two) = (one.expect("answers"), two.expect("answers"));
        assert_eq!(one.redriven + two.redriven, 19);
        assert!(one.still.iter().all(|(_, reason, _)| *reason == "bad_json"), "{one:?}");
        let rows = "SELECT count(DISTINCT (kafka_partition, kafka_offset)) FROM inosec.agent_logs";
        assert_eq!(database.count(rows).await, 38);
        assert_eq!(database.count("SELECT count(*) FROM inosec.agent_logs").await, 38);
        let counted = "SELECT sum(events)::int8 FROM inosec.event_counts";
        assert_eq!(database.count(counted).await, 38);
        let left = store.dead_letters(&all, 100).await.expect("lists");
        assert_eq!(left.len(), 2);
        assert_eq!(database.count("SELECT next_offset FROM inosec.ingest_offsets").await, 40);
        let ids = "SELECT count(DISTINCT event_id) FROM inosec.agent_logs";
        assert_eq!(database.count(ids).await, 38, "a redriven event has its own id");
        let audited = "SELECT count(*) FROM inosec.audit_trails WHERE action = 'dlq.redrive'";
        assert_eq!(database.count(audited).await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_whose_commit_got_no_answer_is_not_repeated() {
    each(async |database| {
        let (proxy, store) = crate::writer::behind_proxy(database).await;
        let tenant = tenant(&store, "a").await;
        let topic = topic(&store, "t", "agent_logs", 1).await;
        store.set_tenant_status(tenant, TenantStatus::Suspended, "test").await.expect("suspends");
        let values: Vec<String> = (0..10).map(|n| event(tenant, "h", n)).collect();
        let batch = sealed(&store, messages(&topic, 0, 0, &values)).await;
        Writer::new(Arc::clone(&store)).write(batch, &redo(&store)).await.expect("writes");
        store.set_tenant_status(tenant, TenantStatus::Active, "test").await.expect("resumes");
        proxy.cut_after_commit.store(true, Ordering::SeqCst);
        let all = LetterFilter::default();
        let done = redrive(&store, &all, 100, &[topic], &redo(&store), "test").await.expect("answers");
        assert_eq!((done.redriven, done.taken), (10, 0));
        assert_eq!(database.count("SELECT count(*) FROM inosec.agent_logs").await, 10);
    })
    .await;
}
