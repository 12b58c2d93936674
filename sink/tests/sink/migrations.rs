//! Migrating step by step equals initialising afresh.

use inosec_schemas::{Catalog, MIGRATIONS};
use inosec_sink::{Error, Store, Wanted, migrate, migrate_to};
use tokio_postgres::Client;

use crate::support::database::{each, each_empty};

#[tokio::test]
async fn step_by_step_and_twice_equals_afresh() {
    let catalog = Catalog::embedded().expect("parses");
    let dumps = std::sync::Mutex::new(Vec::new());
    for stepwise in [false, true] {
        each_empty(async |database| {
            if stepwise {
                for (number, ..) in MIGRATIONS {
                    for _ in 0..2 {
                        let done = migrate_to(&database.url, &catalog, Wanted::Auto, *number).await;
                        assert_eq!(done.expect("migrates").stands_at, *number);
                    }
                }
            }
            for round in 0..2 {
                let done = migrate(&database.url, &catalog, Wanted::Auto).await.expect("migrates");
                assert_eq!(done.applied.is_empty(), stepwise || round == 1);
            }
            let dump = dump(&database.admin().await).await;
            assert!(dump.len() > 150, "the dump sees the tables: {} lines", dump.len());
            dumps.lock().expect("not poisoned").push((database.timescale, dump));
        })
        .await;
    }
    let dumps = dumps.into_inner().expect("not poisoned");
    for (timescale, afresh) in &dumps[..dumps.len() / 2] {
        let stepwise = dumps[dumps.len() / 2..].iter().find(|(other, _)| other == timescale);
        assert_eq!(afresh, &stepwise.expect("both ran").1, "timescale: {timescale}");
    }
}

/// Everything the catalogue says of our schemas, as sorted lines.
async fn dump(client: &Client) -> Vec<String> {
    let sql = "
        WITH ours AS (SELECT oid FROM pg_namespace WHERE nspname IN ('inosec', 'inosec_api'))
        SELECT format('column %s.%s %s %s %s %s %s', c.relname, a.attnum, a.attname,
            format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage, pg_get_expr(d.adbin, d.adrelid))
        FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
        LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace IN (SELECT oid FROM ours) AND NOT a.attisdropped
        UNION ALL
        SELECT format('relation %s %s %s %s %s %s', c.relname, c.relkind, c.relowner::regrole, c.relrowsecurity,
            c.reloptions, (SELECT array_agg(item::text ORDER BY item::text) FROM unnest(c.relacl) AS item))
        FROM pg_class AS c WHERE c.relnamespace IN (SELECT oid FROM ours)
        UNION ALL
        SELECT 'index ' || pg_get_indexdef(i.indexrelid)
        FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid WHERE c.relnamespace IN (SELECT oid FROM ours)
        UNION ALL
        SELECT 'constraint ' || conrelid::regclass || pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace IN (SELECT oid FROM ours)
        UNION ALL
        SELECT format('policy %s %s %s', polrelid::regclass, polname, pg_get_expr(polqual, polrelid)) FROM pg_policy
        UNION ALL
        SELECT format('function %s %s %s', proname, proacl, md5(prosrc))
        FROM pg_proc WHERE pronamespace IN (SELECT oid FROM ours)
        UNION ALL
        SELECT 'view ' || viewname || definition FROM pg_views WHERE schemaname = 'inosec_api'
        UNION ALL
        SELECT 'declared ' || t::text FROM inosec.partitioned_tables AS t
        UNION ALL
        SELECT format('migration %s %s %s', number, name, sha256) FROM inosec.schema_migrations
        ORDER BY 1";
    let rows = client.query(sql, &[]).await.expect("the catalogue is read");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn replicas_may_migrate_together() {
    each_empty(async |database| {
        let catalog = Catalog::embedded().expect("parses");
        let one = migrate(&database.url, &catalog, Wanted::Auto);
        let two = migrate(&database.url, &catalog, Wanted::Auto);
        let (one, two) = tokio::join!(one, two);
        let applied = one.expect("migrates").applied.len() + two.expect("migrates").applied.len();
        assert_eq!(applied, MIGRATIONS.len());
    })
    .await;
}

#[tokio::test]
async fn a_database_nobody_migrated_says_so() {
    each_empty(async |database| {
        let error = Store::connect(&database.config()).await.expect_err("nothing there");
        assert!(matches!(error, Error::NotMigrated { found: 0, .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_login_without_rights_is_told_what_to_grant() {
    each(async |database| {
        let admin = database.admin().await;
        let login = format!("inosec_test_{}", uuid::Uuid::new_v4().simple());
        admin.batch_execute(&format!("CREATE ROLE {login} LOGIN")).await.expect("creates a login");
        let url = database.url.replace("postgres@", &format!("{login}@"));
        let catalog = Catalog::embedded().expect("parses");

        let error = migrate(&url, &catalog, Wanted::Auto).await.expect_err("may not");
        assert!(error.to_string().contains(&format!("GRANT inosec_migrator TO \"{login}\"")), "{error}");
        let mut config = database.config();
        config.url.clone_from(&url);
        let error = Store::connect(&config).await.expect_err("may not");
        assert!(error.to_string().contains(&format!("GRANT inosec_loader TO \"{login}\"")), "{error}");

        admin
            .batch_execute(&format!("GRANT inosec_migrator, inosec_loader TO {login}"))
            .await
            .expect("grants");
        migrate(&url, &catalog, Wanted::Auto).await.expect("an ordinary login migrates");
        Store::connect(&config).await.expect("an ordinary login loads");
        admin.batch_execute(&format!("DROP ROLE {login}")).await.expect("the login is dropped");
    })
    .await;
}

const STREAM: &str = r#"
name = "door_events"
description = "Doors."
partition_interval = "hour"
[[columns]]
name = "ts"
kind = "timestamp"
fill = "ts"
required = true
description = "When."
[[columns]]
name = "tenant_id"
kind = "uuid"
fill = "tenant"
required = true
description = "Whose."
[[columns]]
name = "door"
kind = "text"
description = "Which."
"#;

const COLUMN: &str = r#"
[[columns]]
name = "opened"
kind = "bool"
description = "Whether."
"#;

/// The embedded catalogue and one more stream, described by a file.
fn with_stream(text: &str) -> Catalog {
    let folder = std::env::temp_dir().join(format!("inosec-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir_all(folder.join("streams")).expect("a folder");
    std::fs::write(folder.join("streams/door_events.toml"), text).expect("a file");
    let mut catalog = Catalog::embedded().expect("parses");
    catalog.extend(&folder).expect("extends");
    std::fs::remove_dir_all(folder).expect("removes");
    catalog
}

#[tokio::test]
async fn a_stream_of_a_file_gets_a_table_that_grows_but_never_changes_a_column() {
    each(async |database| {
        let admin = database.admin().await;
        migrate(&database.url, &with_stream(STREAM), Wanted::Auto).await.expect("makes the table");
        for (at, made) in [("10:59:59", true), ("11:00:00", true), ("11:59:00", false)] {
            let sql = format!("SELECT inosec.ensure_partition('door_events', '2026-03-04 {at}+00')");
            assert_eq!(admin.query_one(&sql, &[]).await.expect("makes").get::<_, bool>(0), made, "{at}");
        }
        let insert =
            "INSERT INTO inosec.door_events VALUES ('2026-03-04 11:00:00+00', gen_random_uuid(), 'front')";
        admin.batch_execute(insert).await.expect("inserts");

        let more = STREAM.to_owned() + COLUMN;
        migrate(&database.url, &with_stream(&more), Wanted::Auto).await.expect("adds the column");
        admin.batch_execute("SELECT opened FROM inosec_api.door_events").await.expect("the view has it, too");

        let required =
            more.replace("kind = \"bool\"", "kind = \"bool\"\nrequired = true").replace("opened", "locked");
        let error =
            migrate(&database.url, &with_stream(&required), Wanted::Auto).await.expect_err("there are rows");
        assert!(error.to_string().contains("make it optional"), "{error}");
        let other = STREAM.replace("kind = \"text\"", "kind = \"int64\"");
        let error =
            migrate(&database.url, &with_stream(&other), Wanted::Auto).await.expect_err("another kind");
        assert!(error.to_string().contains("column door is text"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_database_keeps_its_kind_of_store() {
    use inosec_sink::HotStore;
    each(async |database| {
        let catalog = Catalog::embedded().expect("parses");
        let (is, other) = match database.timescale {
            true => (HotStore::Timescale, HotStore::Postgres),
            false => (HotStore::Postgres, HotStore::Timescale),
        };
        let same = migrate(&database.url, &catalog, Wanted::Only(is)).await.expect("migrates");
        assert_eq!(same.hot, is);
        assert_eq!(database.store().await.hot(), is);
        let error = migrate(&database.url, &catalog, Wanted::Only(other)).await.expect_err("can't change");
        assert!(error.to_string().contains("can't become"), "{error}");
    })
    .await;
}
