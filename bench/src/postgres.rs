//! A database of a run's own, what it takes on disk, and COPY as fast as a client can send it.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt as _;
use inosec_schemas::{Catalog, Tier};
use inosec_sink::{HotStore, NewTenant, Store, StoreConfig, Wanted};
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

use crate::corpus::Corpus;
use crate::error::{At, Error, Result};

const CONNECT: Duration = Duration::from_secs(10);
/// The partitioned tables a stream's rows and messages go to.
pub const TABLES: [&str; 2] = ["agent_logs", "raw_blocks"];

/// One statement and its data.
pub type Copy = (Arc<str>, Vec<Bytes>);

/// A migrated database, gone after [`Database::drop`].
pub struct Database {
    pub client: Client,
    pub url: String,
    pub port: u16,
    name: String,
    admin_url: String,
}

impl Database {
    /// Creates and migrates it on the server of this administrator's URL, with the corpus' tenants.
    pub async fn create(admin_url: &str, corpus: &Corpus, catalog: &Catalog) -> Result<Self> {
        let name = format!("inosec_bench_{}", Uuid::new_v4().simple());
        let admin = connect(admin_url).await?;
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.at("creating a database")?;
        let url = with_database(admin_url, &name)?;
        let made = Self::fill(&url, corpus, catalog).await;
        let client = match made {
            Ok(client) => client,
            Err(error) => {
                // The first error says more than one from cleaning up after it.
                let _ = admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
                return Err(error);
            }
        };
        let port = port(admin_url)?;
        Ok(Self { client, url, port, name, admin_url: admin_url.to_owned() })
    }

    async fn fill(url: &str, corpus: &Corpus, catalog: &Catalog) -> Result<Client> {
        let wanted = Wanted::Only(HotStore::Timescale);
        inosec_sink::migrate(url, catalog, wanted).await.at("migrating")?;
        let store = Store::connect(&StoreConfig::new(url, inosec::databases::now)).await.at("connecting")?;
        for (number, tenant) in corpus.tenants().iter().enumerate() {
            let new = NewTenant {
                id: Some(*tenant),
                name: format!("bench-{number}"),
                tier: Tier::Standard,
                region: None,
            };
            store.add_tenant(&new, "bench").await.at("adding a tenant")?;
        }
        connect(url).await
    }

    pub async fn execute(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.at(sql)
    }

    /// The one number a query answers.
    pub async fn number(&self, sql: &str) -> Result<u64> {
        let row = self.client.query_one(sql, &[]).await.at(sql)?;
        Ok(row.get::<_, Option<i64>>(0).map_or(0, i64::unsigned_abs))
    }

    pub async fn text(&self, sql: &str) -> Result<String> {
        Ok(self.client.query_one(sql, &[]).await.at(sql)?.get::<_, Option<String>>(0).unwrap_or_default())
    }

    /// Empties a table and makes its partitions ahead: two connections that both need a new chunk go
    /// one after the other.
    pub async fn empty(&self, tables: &[&str]) -> Result<()> {
        for table in tables {
            self.execute(&format!("TRUNCATE inosec.{table}")).await?;
        }
        self.execute("SELECT inosec.ensure_partitions_ahead('1 day')").await
    }

    /// Bytes of a table with its partitions, indexes and TOAST.
    pub async fn size(&self, table: &str) -> Result<u64> {
        let sql = format!(
            "SELECT (coalesce(sum(pg_total_relation_size(inhrelid)), 0) + pg_total_relation_size('{table}'))::int8
             FROM pg_inherits WHERE inhparent = '{table}'::regclass"
        );
        self.number(&sql).await
    }

    /// The write-ahead log's position, in bytes. It is the whole server's.
    pub async fn wal(&self) -> Result<u64> {
        self.number("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8").await
    }

    /// Every phase begins after a checkpoint, so that none pays for the pages of the one before.
    pub async fn settle(&self) -> Result<()> {
        self.execute("CHECKPOINT").await
    }

    pub async fn drop(self) -> Result<()> {
        let admin = connect(&self.admin_url).await?;
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        admin.batch_execute(&sql).await.at("dropping the database")
    }
}

/// A session. Its task ends with it.
pub async fn connect(url: &str) -> Result<Client> {
    let mut config = Config::from_str(url).at("reading the database's URL")?;
    config.connect_timeout(CONNECT).application_name("inosec-bench");
    let (client, connection) = config.connect(NoTls).await.at("connecting to the database")?;
    tokio::spawn(connection);
    let set_up = "SET client_min_messages = warning; SET timezone = 'UTC'; SET statement_timeout = '15min'";
    client.batch_execute(set_up).await.at("setting up a session")?;
    Ok(client)
}

fn port(url: &str) -> Result<u16> {
    let config = Config::from_str(url).at("reading the database's URL")?;
    Ok(config.get_ports().first().copied().unwrap_or(5432))
}

/// The URL with another database's name.
pub fn with_database(url: &str, name: &str) -> Result<String> {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let (scheme, rest) = base.split_once("://").at("the database's URL has no scheme")?;
    let server = rest.split_once('/').map_or(rest, |(server, _)| server);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{scheme}://{server}/{name}{query}"))
}

/// The statements of a `COPY … FROM STDIN` in binary.
pub fn copy_into(table: &str, columns: &[&str]) -> Arc<str> {
    format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", columns.join(", ")).into()
}

/// What a COPY run wrote, and what its backends used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Copied {
    pub rows: u64,
    /// CPU seconds of the backends alone, without the checkpointer and the WAL writer.
    pub backend_cpu: f64,
}

/// Sends transactions over so many connections, each taking the next one that is left. Rows are those
/// of each transaction's first statement.
pub async fn copy_all(url: &str, transactions: Arc<Vec<Vec<Copy>>>, connections: usize) -> Result<Copied> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for _ in 0..connections {
        let client = connect(url).await?;
        let (transactions, next) = (Arc::clone(&transactions), Arc::clone(&next));
        workers.push(tokio::spawn(async move { copy_some(client, &transactions, &next).await }));
    }
    let mut copied = Copied::default();
    for worker in workers {
        let some = worker.await.at("copying")??;
        copied.rows += some.rows;
        copied.backend_cpu += some.backend_cpu;
    }
    Ok(copied)
}

async fn copy_some(mut client: Client, transactions: &[Vec<Copy>], next: &AtomicUsize) -> Result<Copied> {
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await.at("asking for the backend")?;
    let backend = row.get::<_, i32>(0).unsigned_abs();
    let before = crate::usage::own_cpu(backend);
    let mut copied = Copied::default();
    while let Some(copies) = transactions.get(next.fetch_add(1, Ordering::Relaxed)) {
        let transaction = client.transaction().await.at("starting a transaction")?;
        for (number, (sql, frames)) in copies.iter().enumerate() {
            let sink = transaction.copy_in::<_, Bytes>(&**sql).await.at("copying")?;
            let mut sink = std::pin::pin!(sink);
            for frame in frames {
                sink.feed(frame.clone()).await.at("copying")?;
            }
            let rows = sink.finish().await.at("copying")?;
            copied.rows += if number == 0 { rows } else { 0 };
        }
        transaction.commit().await.at("committing")?;
    }
    copied.backend_cpu = crate::usage::own_cpu(backend) - before;
    Ok(copied)
}

/// Fails a phase that takes too long.
pub async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Err(Error::new(format!("{what}: not done within {limit:?}")));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| late())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_s_name_changes() {
        let other = |url| with_database(url, "b").expect("a URL");
        assert_eq!(other("postgres://u:p@h:1/a?x=y"), "postgres://u:p@h:1/b?x=y");
        assert_eq!(other("postgres://h"), "postgres://h/b");
    }
}
