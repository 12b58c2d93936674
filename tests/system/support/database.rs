//! A database of a test's own on one of the real servers, dropped when the test ends.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};
use uuid::Uuid;

use super::servers::Store;

pub struct Database {
    pub name: String,
    pub url: String,
    pub client: Client,
    admin_url: String,
}

impl Database {
    /// Creates an empty database on this server.
    pub async fn create(store: Store) -> Self {
        Self::create_at(&store.admin_url()).await
    }

    /// Creates an empty database on the server of this administrator URL.
    pub async fn create_at(admin_url: &str) -> Self {
        let name = format!("inosec_test_{}", Uuid::new_v4().simple());
        let admin = connect(admin_url).await;
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let url = with_database(admin_url, &name);
        let client = connect(&url).await;
        Self { name, url, client, admin_url: admin_url.to_owned() }
    }

    /// Connects again, after the server was restarted.
    pub async fn reconnect(&mut self) {
        self.client = connect(&self.url).await;
    }

    pub async fn rows(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        self.client.query(sql, parameters).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The single number a query answers.
    pub async fn number(&self, sql: &str) -> i64 {
        self.rows(sql, &[]).await[0].get::<_, Option<i64>>(0).unwrap_or(0)
    }

    pub async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Drops the database; called at the end of a test that passed, so that a failed one can be
    /// looked at.
    pub async fn drop(self) {
        drop(self.client);
        let admin = connect(&self.admin_url).await;
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        admin.batch_execute(&sql).await.unwrap();
    }
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
    tokio::spawn(connection);
    client
}

/// The URL with another database name.
fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, ""), |(base, query)| (base, query));
    let slash = base.rfind('/').expect("a URL has a path");
    let base = if base[..slash].ends_with('/') { base } else { &base[..slash] };
    if query.is_empty() { format!("{base}/{name}") } else { format!("{base}/{name}?{query}") }
}
