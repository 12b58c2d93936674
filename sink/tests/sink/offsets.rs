//! Assigning partitions: first start, gaps, re-created topics, setting by hand.

use std::sync::Arc;

use inosec_schemas::{EventIds, TenantSource, Topic};
use inosec_sink::{Resume, Start, Store};
use uuid::Uuid;

use crate::support::database::each;
use crate::support::road::stream;

async fn topic(store: &Store, id: Option<Uuid>) -> Arc<Topic> {
    let key = store.register_topic("c", "t", id).await.expect("registers");
    Arc::new(Topic {
        cluster: "c".to_owned(),
        name: "t".to_owned(),
        id,
        key,
        stream: stream("agent_logs"),
        tenant: TenantSource::Header,
        event_ids: EventIds::new("c", "t", id),
    })
}

#[tokio::test]
async fn the_first_assignment_is_stored_and_later_ones_resume() {
    each(async |database| {
        let store = database.store().await;
        let topic = topic(&store, Some(Uuid::from_u128(1))).await;
        let at = |partition, marks, start| store.resume_offset(&topic, partition, marks, start);
        assert_eq!(at(0, (5, 90), Start::Earliest).await.expect("resumes"), Resume::At(5));
        assert_eq!(at(1, (5, 90), Start::Latest).await.expect("resumes"), Resume::At(90));
        // The watermarks moved on: the stored start holds.
        assert_eq!(at(0, (5, 99), Start::Latest).await.expect("resumes"), Resume::At(5));
        assert_eq!(at(1, (5, 120), Start::Latest).await.expect("resumes"), Resume::At(90));
        assert_eq!(store.offsets(Some("t")).await.expect("lists").len(), 2);
        assert_eq!(store.offsets(Some("other")).await.expect("lists").len(), 0);
    })
    .await;
}

#[tokio::test]
async fn what_kafka_deleted_unread_is_a_recorded_gap() {
    each(async |database| {
        let store = database.store().await;
        let topic = topic(&store, None).await;
        store.resume_offset(&topic, 0, (0, 10), Start::Earliest).await.expect("resumes");
        let resumed = store.resume_offset(&topic, 0, (7, 50), Start::Earliest).await.expect("resumes");
        assert_eq!(resumed, Resume::At(7));
        let gap = "SELECT count(*) FROM inosec.ingest_gaps WHERE from_offset = 0 AND to_offset = 7";
        assert_eq!(database.count(gap).await, 1);
        assert_eq!(store.offsets(None).await.expect("lists")[0].next_offset, 7);
    })
    .await;
}

#[tokio::test]
async fn a_recreated_topic_halts_until_somebody_decides() {
    each(async |database| {
        let store = database.store().await;
        let old = topic(&store, Some(Uuid::from_u128(1))).await;
        let new = topic(&store, Some(Uuid::from_u128(2))).await;
        assert_ne!(old.key, new.key);
        assert_eq!(store.register_topic("c", "t", old.id).await.expect("finds"), old.key);
        store.resume_offset(&old, 0, (0, 10), Start::Latest).await.expect("resumes");
        let halted = store.resume_offset(&new, 0, (0, 30), Start::Earliest).await.expect("answers");
        assert!(
            matches!(&halted, Resume::Halt { why } if why.contains("inosec offsets set --topic t")),
            "{halted:?}"
        );
        let halted = store.resume_offset(&old, 0, (0, 4), Start::Earliest).await.expect("answers");
        assert!(matches!(&halted, Resume::Halt { why } if why.contains("ends at 4")), "{halted:?}");
        let before = store.set_offset(("c", "t", 0), 0, "anna").await.expect("sets");
        assert_eq!(before, Some(10));
        let resumed = store.resume_offset(&new, 0, (0, 30), Start::Earliest).await.expect("answers");
        assert_eq!(resumed, Resume::At(0));
        assert_eq!(store.offsets(None).await.expect("lists")[0].topic_id, new.id);
        let audited =
            "SELECT count(*) FROM inosec.audit_trails WHERE actor = 'anna' AND action = 'offsets.set'
            AND detail = '{\"from\": 10, \"to\": 0}'";
        assert_eq!(database.count(audited).await, 1);
    })
    .await;
}

#[tokio::test]
async fn numbers_are_handed_out_once() {
    each(async |database| {
        let (one, two) = (database.store().await, database.store().await);
        let mut numbers = std::collections::HashSet::new();
        for _ in 0..100 {
            assert!(numbers.insert(one.number().await.expect("a number")));
            assert!(numbers.insert(two.number().await.expect("a number")));
        }
        assert_eq!(one.batch_numbers(5).await.expect("numbers").len(), 5);
    })
    .await;
}
