//! Changes of alerts: recorded in order however many come at once, and kept for a while.

use inosec_schemas::AlertWrites;
use uuid::Uuid;

use crate::support::database::each;

#[tokio::test(flavor = "multi_thread")]
async fn old_changes_of_alerts_expire_once_they_are_sent() {
    each(async |database| {
        let store = database.store().await;
        let changes = "INSERT INTO inosec.alert_changes (tenant_id, seq, alert_id, version, kind, changed_at, alert)
            SELECT tenant, seq, tenant, seq, 'grown', now() - interval '9 days' * (5 - seq), '{}'
            FROM generate_series(1, 4) AS seq,
                unnest(ARRAY['00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002']::uuid[])
                    AS tenant;
            INSERT INTO inosec.alert_relay VALUES ('00000000-0000-4000-8000-000000000002', 0)";
        database.admin().await.batch_execute(changes).await.expect("inserts");
        assert_eq!(store.maintain().await.expect("maintains").expired_changes, 1);
        let left = "SELECT count(*) FROM inosec.alert_changes WHERE changed_at < now() - interval '30 days'";
        assert_eq!(database.count(left).await, 1, "the one that is to be sent");
        assert_eq!(database.count("SELECT count(*) FROM inosec.alert_changes").await, 7);
    })
    .await;
}

/// It took minutes for ten thousand, more than a statement may: no leader got to its end.
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_many_alerts_at_once_take_no_quadratic_time() {
    each(async |database| {
        let admin = database.admin().await;
        let alerts = "SET statement_timeout = '20s';
            INSERT INTO inosec.alerts (id, tenant_id, title, rule_id, correlation, group_id, grouped_by, severity_id,
                risk_score, techniques, entities, first_seen, last_seen, event_count)
            SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(n % 2 + 1), 32, '0')::uuid, 'title', 'rule', true,
                gen_random_uuid(), '{}', 4, 50, '{}', '{}', now(), now(), 1
            FROM generate_series(1, 30000) AS n;
            SELECT inosec.record_alert_changes(array_agg(id ORDER BY tenant_id, id), array_agg('opened'::text))
            FROM inosec.alerts";
        admin.batch_execute(alerts).await.expect("records");
        let sql = "SELECT count(*) FROM (SELECT seq, row_number() OVER (PARTITION BY tenant_id ORDER BY alert_id) AS n
            FROM inosec.alert_changes) AS c WHERE seq = n";
        assert_eq!(database.count(sql).await, 30_000, "in order and without a gap");
        let last = "SELECT sum(last_seq)::bigint FROM inosec.alert_sequences";
        assert_eq!(database.count(last).await, 30_000);
    })
    .await;
}

/// An alert that loses an event and goes on in another, both in one transaction, doesn't bring it along.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_absorbed_alert_lost_does_not_go_on() {
    each(async |database| {
        let store = database.store().await;
        let events = "INSERT INTO inosec.alert_events (alert_id, threat_event_id, tenant_id, ts)
            SELECT lpad(alert::text, 32, '0')::uuid, lpad(event::text, 32, '0')::uuid, gen_random_uuid(), now()
            FROM (VALUES (1, 3), (2, 4), (2, 5)) AS e (alert, event)";
        database.admin().await.batch_execute(events).await.expect("inserts");
        let mut leader = store.lead("test").await.expect("leads").expect("nobody else does");
        let fold = leader.begin(0).await.expect("begins");
        let [one, two, _, _, lost] = [1, 2, 3, 4, 5].map(Uuid::from_u128);
        let writes = AlertWrites { removed: vec![(two, lost)], merged: vec![(two, one)], ..AlertWrites::default() };
        fold.write(&writes).await.expect("writes");
        fold.commit().await.expect("commits");
        let has = |alert: Uuid| format!("SELECT count(*) FROM inosec.alert_events WHERE alert_id = '{alert}'");
        assert_eq!((database.count(&has(one)).await, database.count(&has(two)).await), (2, 1));
    })
    .await;
}
