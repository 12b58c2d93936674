//! What trips engines that count in the order of arrival, on real servers: each event is correlated before the
//! next is sent. The same traps without servers are the engine's own tests.

use std::time::Duration;

use uuid::Uuid;

use crate::support::calm;
use crate::support::correlation::{Arena, BROKEN_IN, BRUTE, WHOAMI};
use crate::support::process::Running;
use crate::support::servers::Store;

/// An hour in seconds.
const HOUR: i64 = 3600;
const YEAR: i64 = 31_556_952;

/// Seconds; what is sent lies around it.
fn now() -> i64 {
    jiff::Timestamp::now().as_second() - 60
}

/// Failures of a user to log on, one after another in this order.
async fn fail(arena: &Arena, inosec: &Running, tenant: usize, user: &str, times: &[i64]) {
    for (number, time) in times.iter().enumerate() {
        arena.agent(tenant, "fail", user, &format!("ws{number}"), *time);
        arena.settle(inosec).await;
    }
}

/// Events and versions of a rule's live alerts.
async fn alerts(arena: &Arena, rule: &str) -> Vec<(i64, i64)> {
    let sql =
        "SELECT event_count, version::bigint FROM inosec.alerts WHERE rule_id = $1 AND episode = 'live'";
    let rows = arena.database.rows(sql, &[&rule]).await;
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn set(correlate: &str) -> (Arena, Running) {
    let arena = Arena::with(Store::Timescale, correlate).await;
    let inosec = arena.setup.start(&[]);
    (arena, inosec)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_completes_nothing_an_hour_later() {
    let _calm = calm().await;
    let ((arena, inosec), now) = (set("").await, now());
    fail(&arena, &inosec, 0, "ann", &[now, now - HOUR, now + 10, now + 20]).await;
    assert_eq!(alerts(&arena, BRUTE).await, []);
    arena.end(vec![inosec]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_completes_its_own_window() {
    let _calm = calm().await;
    let ((arena, inosec), then) = (set("").await, now() - HOUR);
    fail(&arena, &inosec, 0, "ann", &[then, then + 10, then + 20, then + HOUR, then + 30]).await;
    assert_eq!(alerts(&arena, BRUTE).await, [(4, 1)]);
    arena.end(vec![inosec]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_event_hides_nothing() {
    let _calm = calm().await;
    let ((arena, inosec), now) = (set("").await, now());
    fail(&arena, &inosec, 0, "ann", &[now, now + 10, now + HOUR / 2, now + 20, now + 30]).await;
    assert_eq!(alerts(&arena, BRUTE).await, [(4, 1)]);
    arena.end(vec![inosec]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_of_the_far_future_expires_nothing() {
    let _calm = calm().await;
    let ((arena, inosec), now) = (set("").await, now());
    fail(&arena, &inosec, 0, "ann", &[now, now + 10, now + 20]).await;
    fail(&arena, &inosec, 1, "ann", &[now, now + 10, now + 20]).await;
    fail(&arena, &inosec, 0, "poison", &[now + 10 * YEAR]).await;
    fail(&arena, &inosec, 0, "ann", &[now + 30]).await;
    fail(&arena, &inosec, 1, "ann", &[now + 30]).await;
    assert_eq!(alerts(&arena, BRUTE).await, [(4, 1), (4, 1)]);
    assert_eq!(inosec.metric("inosec_correlate_future_events_total"), 1.0);
    arena.end(vec![inosec]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_another_tenant_silences_nobody() {
    let _calm = calm().await;
    let ((arena, inosec), now) = (set("max_groups = 100").await, now());
    fail(&arena, &inosec, 1, "ann", &[now, now + 10, now + 20]).await;
    for number in 0..1_000 {
        arena.agent(0, "fail", &format!("user{number}"), "ws", now);
    }
    arena.settle(&inosec).await;
    fail(&arena, &inosec, 1, "ann", &[now + 30]).await;
    assert_eq!(alerts(&arena, BRUTE).await, [(4, 1)]);
    let evicted = "SELECT array_agg(DISTINCT tenant_id) FROM inosec.correlation_evictions";
    let evicted: Vec<Uuid> = arena.database.rows(evicted, &[]).await[0].get(0);
    assert_eq!(evicted, [arena.tenants[0]], "whoever floods loses, and is told");
    arena.end(vec![inosec]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_redelivered_three_times_counts_once() {
    let _calm = calm().await;
    let (arena, now) = (Arena::new(Store::Timescale).await, now());
    arena.agent(0, "fail", "ann", "ws0", now);
    // Three processes read it and die before, or after, it is stored; the last one finds it.
    for point in ["before-commit", "after-commit", "correlator-before-commit"] {
        let mut dying = arena.setup.spawn(&[("INOSEC_FAULT", &format!("{point}:kill:1"))]);
        dying.wait(Duration::from_secs(60));
    }
    let inosec = arena.setup.start(&[]);
    arena.settle(&inosec).await;
    fail(&arena, &inosec, 0, "ann", &[now + 10, now + 20]).await;
    assert_eq!(alerts(&arena, BRUTE).await, [], "three are not four");
    fail(&arena, &inosec, 0, "ann", &[now + 30]).await;
    assert_eq!(alerts(&arena, BRUTE).await, [(4, 1)]);
    // Another producer's event keeps its id, however often it is sent.
    for _ in 0..4 {
        arena.foreign(0, 7, "ws1", now);
        arena.settle(&inosec).await;
    }
    assert_eq!(alerts(&arena, "Foreign finding").await.len(), 1);
    arena.end(vec![inosec]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_mid_count_it_goes_on() {
    let _calm = calm().await;
    let ((arena, mut inosec), now) = (set("").await, now());
    fail(&arena, &inosec, 0, "ann", &[now, now + 10, now + 20]).await;
    inosec.kill();
    let inosec = arena.setup.start(&[]);
    fail(&arena, &inosec, 0, "ann", &[now + 30]).await;
    assert_eq!(alerts(&arena, BRUTE).await, [(4, 1)]);
    arena.end(vec![inosec]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_are_one_alert_that_grows() {
    let _calm = calm().await;
    let ((arena, inosec), now) = (set("").await, now());
    let times: Vec<i64> = (0..10).map(|number| now + number).collect();
    fail(&arena, &inosec, 0, "ann", &times).await;
    assert_eq!(alerts(&arena, BRUTE).await, [(10, 7)], "opened by the fourth, grown by six");
    for time in &times {
        arena.agent(0, "whoami", "ann", "ws1", *time);
    }
    arena.settle(&inosec).await;
    let found = alerts(&arena, WHOAMI).await;
    assert_eq!((found.len(), found[0].0), (1, 10));
    arena.end(vec![inosec]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_arrives_reversed_is_in_order() {
    let _calm = calm().await;
    let ((arena, inosec), now) = (set("").await, now());
    let failures = [now, now + 10, now + 20, now + 30];
    // Ann's success comes first and happened last; Bob's happened before he failed.
    arena.agent(0, "success", "ann", "ws1", now + 60);
    arena.agent(0, "success", "bob", "ws1", now - 60);
    arena.settle(&inosec).await;
    fail(&arena, &inosec, 0, "ann", &failures).await;
    fail(&arena, &inosec, 0, "bob", &failures).await;
    assert_eq!(alerts(&arena, BROKEN_IN).await, [(5, 1)]);
    let sql = "SELECT grouped_by->>'User' FROM inosec.alerts WHERE rule_id = $1";
    let user: String = arena.database.rows(sql, &[&BROKEN_IN]).await[0].get(0);
    assert_eq!(user, "ann");
    arena.end(vec![inosec]).await;
}
