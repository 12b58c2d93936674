//! Who may do what, and what row-level security hides.

use std::sync::Arc;

use inosec_schemas::Tier;
use inosec_sink::{NewTenant, Writer};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::database::each;
use crate::support::road::{event, messages, redo, sealed, tenant, topic};

async fn refused(client: &Client, sql: &str) {
    let error = client.batch_execute(sql).await.expect_err(sql);
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}: {error:?}");
}

async fn allowed(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

#[tokio::test]
async fn the_loader_may_load_and_little_else() {
    each(async |database| {
        let client = database.admin().await;
        allowed(&client, "SET ROLE inosec_loader").await;
        for sql in [
            "SELECT * FROM inosec.agent_logs",
            "DELETE FROM inosec.agent_logs",
            "UPDATE inosec.threat_events SET alert_id = NULL",
            "TRUNCATE inosec.raw_blocks",
            "UPDATE inosec.raw_blocks SET events = 0",
            "UPDATE inosec.placement_epoch SET epoch = 9",
            "INSERT INTO inosec.tenants (id, name) VALUES (gen_random_uuid(), 'x')",
            "UPDATE inosec.tenants SET status = 'suspended'",
            "DELETE FROM inosec.ingest_offsets",
            "UPDATE inosec.dead_letters SET payload = NULL",
            "DELETE FROM inosec.dead_letters",
            "SELECT * FROM inosec.audit_trails",
            "DELETE FROM inosec.audit_trails",
            "SELECT * FROM inosec.correlation_queue",
            "CREATE TABLE inosec.mine (a int)",
            "DROP TABLE inosec.event_counts",
            "SELECT inosec.partition_table('tenants', 'created_at', interval '1 day')",
            "SELECT inosec.expose('tenants', 'id')",
        ] {
            refused(&client, sql).await;
        }
        allowed(&client, "SELECT inosec.ensure_partition('agent_logs', '2031-05-06 07:08:09+00')").await;
        allowed(&client, "SELECT inosec.ensure_partitions_ahead(interval '2 days')").await;
        allowed(&client, "SELECT epoch FROM inosec.placement_epoch FOR SHARE").await;
        let not_ours = "SELECT inosec.ensure_partition('tenants', now())";
        assert!(client.batch_execute(not_ours).await.is_err(), "only declared tables get partitions");
        let short = "SELECT inosec.expire_dead_letters(interval '1 hour')";
        assert!(client.batch_execute(short).await.is_err(), "letters are kept for a day at least");
    })
    .await;
}

#[tokio::test]
async fn a_partition_made_ahead_is_there_once_and_empty() {
    each(async |database| {
        let client = database.admin().await;
        allowed(&client, "SET ROLE inosec_loader").await;
        for table in ["agent_logs", "threat_events", "raw_blocks", "dead_letters"] {
            for expected in [true, false] {
                let sql = format!("SELECT inosec.ensure_partition('{table}', '2031-05-06 23:59:59.9+00')");
                let made: bool = client.query_one(&sql, &[]).await.expect("answers").get(0);
                assert_eq!(made, expected, "{table}");
            }
            assert_eq!(database.count(&format!("SELECT count(*) FROM inosec.{table}")).await, 0, "{table}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_sees_the_tenant_of_its_transaction_and_no_other() {
    each(async |database| {
        let store = database.store().await;
        let (a, b) = (tenant(&store, "a").await, tenant(&store, "b").await);
        let topic = topic(&store, "t", "agent_logs", 1).await;
        let values: Vec<String> = (0..30).map(|n| event(if n < 10 { a } else { b }, "h", n)).collect();
        let batch = sealed(&store, messages(&topic, 0, 0, &values)).await;
        Writer::new(Arc::clone(&store)).write(batch, &redo(&store)).await.expect("writes");

        let mut client = database.admin().await;
        allowed(&client, "SET ROLE inosec_api").await;
        for table in ["agent_logs", "raw_blocks", "dead_letters", "host_devices", "event_counts", "tenants"] {
            refused(&client, &format!("SELECT * FROM inosec.{table}")).await;
        }
        let count = "SELECT count(*) FROM inosec_api.agent_logs";
        assert_eq!(
            client.query_one(count, &[]).await.expect("counts").get::<_, i64>(0),
            0,
            "no tenant, no rows"
        );
        for (tenant, rows) in [(a, 10), (b, 20)] {
            let transaction = client.transaction().await.expect("begins");
            transaction
                .batch_execute(&format!("SET LOCAL inosec.tenant_id = '{tenant}'"))
                .await
                .expect("sets");
            assert_eq!(transaction.query_one(count, &[]).await.expect("counts").get::<_, i64>(0), rows);
            let sum = "SELECT sum(events)::int8 FROM inosec_api.event_counts";
            assert_eq!(transaction.query_one(sum, &[]).await.expect("sums").get::<_, i64>(0), rows);
        }
        assert_eq!(
            client.query_one(count, &[]).await.expect("counts").get::<_, i64>(0),
            0,
            "forgotten at commit"
        );
        allowed(&client, "SET row_security = off").await;
        assert!(client.query(count, &[]).await.is_err(), "can't be switched off");
    })
    .await;
}

#[tokio::test]
async fn tenants_are_for_administrators() {
    each(async |database| {
        let admin = database.admin().await;
        let login = format!("inosec_test_{}", uuid::Uuid::new_v4().simple());
        allowed(&admin, &format!("CREATE ROLE {login} LOGIN; GRANT inosec_loader TO {login}")).await;
        let mut config = database.config();
        config.url = database.url.replace("postgres@", &format!("{login}@"));
        let store = inosec_sink::Store::connect(&config).await.expect("connects");
        let new = NewTenant { id: None, name: "x".to_owned(), tier: Tier::Standard, region: None };
        let error = store.add_tenant(&new, "test").await.expect_err("may not");
        assert!(error.to_string().contains("GRANT inosec_admin"), "{error}");
        allowed(&admin, &format!("GRANT inosec_admin TO {login}")).await;
        let added = store.add_tenant(&new, "test").await.expect("may now");
        assert_eq!(store.tenants().await.expect("lists"), std::slice::from_ref(&added));
        assert!(store.directory().tenants.contains_key(&added.id));
        let twice = store.add_tenant(&new, "test").await.expect_err("the name is taken");
        assert!(matches!(twice, inosec_sink::Error::Invalid(_)), "{twice}");
        drop(store);
        allowed(&admin, &format!("REVOKE inosec_loader, inosec_admin FROM {login}")).await;
        allowed(&admin, &format!("DROP ROLE {login}")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_tenant_is_known_everywhere_within_seconds() {
    each(async |database| {
        let (here, there) = (database.store().await, database.store().await);
        let watching = Arc::clone(&there);
        let watch = tokio::spawn(async move { watching.watch_directory().await });
        let mut directories = there.directories();
        let added = tenant(&here, "late").await;
        let known = directories.wait_for(|directory| directory.tenants.contains_key(&added));
        tokio::time::timeout(std::time::Duration::from_secs(5), known)
            .await
            .expect("in time")
            .expect("is told");
        watch.abort();
    })
    .await;
}
