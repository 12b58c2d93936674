//! A fresh database per test, on each server.

use std::str::FromStr;
use std::sync::Arc;

use inosec_schemas::Catalog;
use inosec_sink::{Store, StoreConfig, Wanted, migrate};
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

/// The servers, by the variable that says where they are.
const SERVERS: [&str; 2] = ["INOSEC_TEST_TIMESCALE_URL", "INOSEC_TEST_POSTGRES_URL"];

/// A database that exists for one test.
pub struct Database {
    pub url: String,
    pub timescale: bool,
    name: String,
    server: String,
}

/// Runs the test in a fresh, empty database of each server. A server that isn't there fails the
/// test, unless `INOSEC_TEST_SKIP_SERVERS=1` asked to skip it.
pub async fn each_empty(test: impl AsyncFn(&Database)) {
    for variable in SERVERS {
        let Ok(server) = std::env::var(variable) else {
            let skip = std::env::var("INOSEC_TEST_SKIP_SERVERS").is_ok_and(|value| value == "1");
            assert!(skip, "{variable} is not set: eval \"$(deploy/local/services env)\"");
            continue;
        };
        let database = Database::create(server, variable.contains("TIMESCALE")).await;
        test(&database).await;
        database.remove().await;
    }
}

/// As [`each_empty`], migrated.
pub async fn each(test: impl AsyncFn(&Database)) {
    each_empty(async |database| {
        database.migrate().await;
        test(database).await;
    })
    .await;
}

impl Database {
    async fn create(server: String, timescale: bool) -> Self {
        let name = format!("inosec_test_{}", Uuid::new_v4().simple());
        let admin = connect(&server).await;
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("the database is created");
        let url =
            server.rsplit_once('/').map(|(base, _)| format!("{base}/{name}")).expect("a URL with a database");
        Self { url, timescale, name, server }
    }

    pub async fn migrate(&self) {
        let catalog = Catalog::embedded().expect("embedded descriptions parse");
        migrate(&self.url, &catalog, Wanted::Auto).await.expect("migrates");
    }

    /// An administrator's session.
    pub async fn admin(&self) -> Client {
        connect(&self.url).await
    }

    pub async fn store(&self) -> Arc<Store> {
        Store::connect(&self.config()).await.expect("connects")
    }

    pub fn config(&self) -> StoreConfig {
        StoreConfig::new(&self.url, super::now)
    }

    /// The first column of the first row as a number.
    pub async fn count(&self, sql: &str) -> i64 {
        self.admin().await.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    async fn remove(self) {
        let admin = connect(&self.server).await;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        admin.batch_execute(&drop).await.expect("the database is dropped");
    }
}

/// A session of whatever login the URL names.
pub async fn connect(url: &str) -> Client {
    let (client, connection) =
        Config::from_str(url).expect("a URL").connect(NoTls).await.expect("the server answers");
    tokio::spawn(connection);
    client
}
