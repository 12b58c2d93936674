//! One database: its pool of loader sessions, what it is, and whether it answers.

use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use inosec_schemas::{Directory, MIGRATIONS};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

use crate::health::{Circuit, Health, Outage};
use crate::hot::HotStore;
use crate::numbers::Numbers;
use crate::partitions::Known;
use crate::{Error, backoff};

/// How to reach a database and how to behave there.
#[derive(Clone)]
pub struct StoreConfig {
    /// `postgres://…`; may hold a password, so it is never printed.
    pub url: String,
    /// What the sessions are called in `pg_stat_activity`.
    pub application_name: String,
    /// How many sessions at most: writers, plus two for directory, maintenance and searches.
    pub pool_size: usize,
    /// The server gives up a statement after this.
    pub statement_timeout: Duration,
    /// The server gives up waiting for a lock after this.
    pub lock_timeout: Duration,
    /// The server ends a session that sits in a transaction for this long.
    pub idle_in_transaction_timeout: Duration,
    /// We give up an answer after this: a frozen server, or a network that swallows packets.
    pub answer_timeout: Duration,
    /// Whether COMMIT waits for the disk. Off is safe for logs while Kafka still has them: rows and
    /// offset are lost together.
    pub synchronous_commit: bool,
    /// Bytes of dead letters kept per tenant and UTC day; beyond it only offsets are kept.
    pub dead_letter_quota: u64,
    /// How long dead letters are kept.
    pub dead_letter_retention: Duration,
    /// How long changes of alerts are kept.
    pub alert_change_retention: Duration,
    /// The wall clock, in microseconds UTC.
    pub clock: fn() -> i64,
}

impl StoreConfig {
    /// Defaults for a URL.
    #[must_use]
    pub fn new(url: &str, clock: fn() -> i64) -> Self {
        Self {
            url: url.to_owned(),
            application_name: "inosec".to_owned(),
            pool_size: 6,
            statement_timeout: Duration::from_secs(30),
            // Below the statement timeout, so that the log says which it was.
            lock_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(60),
            synchronous_commit: true,
            dead_letter_quota: 1 << 30,
            dead_letter_retention: Duration::from_secs(30 * 86_400),
            alert_change_retention: Duration::from_secs(30 * 86_400),
            clock,
        }
    }
}

impl std::fmt::Debug for StoreConfig {
    /// Without the URL's secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreConfig")
            .field("application_name", &self.application_name)
            .field("pool_size", &self.pool_size)
            .finish_non_exhaustive()
    }
}

/// The role of the road's sessions.
const LOADER: &str = "inosec_loader";

/// One database.
pub struct Store {
    pub(crate) config: StoreConfig,
    pub(crate) directory: watch::Sender<Arc<Directory>>,
    pub(crate) numbers: Mutex<Numbers>,
    pub(crate) known_partitions: Mutex<Known>,
    pool: Pool,
    hot: HotStore,
    circuit: Circuit,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("config", &self.config).field("hot", &self.hot).finish_non_exhaustive()
    }
}

impl Store {
    /// Connects, checks that the tables are those this program knows, and reads the directory.
    /// Fails at once if the database can't be reached; afterwards outages are waited out.
    pub async fn connect(config: &StoreConfig) -> Result<Arc<Self>, Error> {
        let pool = pool(config)?;
        let session = get(&pool).await.map_err(|error| missing_role(error, config, LOADER))?;
        check_migrated(&session).await?;
        let hot = HotStore::recorded(&session).await?;
        drop(session);
        let store = Arc::new(Self {
            config: config.clone(),
            directory: watch::Sender::default(),
            numbers: Mutex::default(),
            known_partitions: Mutex::default(),
            pool,
            hot,
            circuit: Circuit::new(),
        });
        store.refresh_directory().await?;
        Ok(store)
    }

    /// Whether writes go through; what the pipeline pauses on and `/readyz` shows.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.circuit.watch()
    }

    /// How this database partitions its tables.
    #[must_use]
    pub fn hot(&self) -> HotStore {
        self.hot
    }

    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// One round trip to the database.
    pub async fn ping(&self) -> Result<(), Error> {
        self.session().await?.batch_execute("").await.map_err(Error::at("asking for a sign of life"))
    }

    /// The wall clock, in microseconds UTC.
    pub(crate) fn now(&self) -> i64 {
        (self.config.clock)()
    }

    /// A loader session.
    pub(crate) async fn session(&self) -> Result<Object, Error> {
        get(&self.pool).await
    }

    /// A session of its own, outside the pool, in this role; and what drives it, until it is aborted.
    pub(crate) async fn session_as(&self, role: &'static str) -> Result<(Client, JoinHandle<()>), Error> {
        let connecting = async {
            let connected = connect_config(&self.config)?.connect(NoTls).await;
            connected.map_err(Error::at("connecting"))
        };
        let (client, connection) = self.answered("connecting", connecting).await?;
        // What ends it is told by the statement that meets the end.
        let connection = tokio::spawn(async move { drop(connection.await) });
        let set_up = client.batch_execute(&session_set_up(&self.config, role)).await;
        set_up
            .map_err(Error::at("setting up the session"))
            .map_err(|error| missing_role(error, &self.config, role))?;
        Ok((client, connection))
    }

    /// Opens the circuit until the guard is dropped.
    pub(crate) fn outage(&self, why: &Error) -> Outage<'_> {
        self.circuit.outage(&why.to_string())
    }

    /// Runs `work` under the answer timeout.
    pub async fn answered<T>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let after = self.config.answer_timeout;
        tokio::time::timeout(after, work).await.unwrap_or(Err(Error::Timeout { doing, after }))
    }
}

fn pool(config: &StoreConfig) -> Result<Pool, Error> {
    let postgres = connect_config(config)?;
    // Fast: a session that died is found out by the next statement, and every statement is retried.
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let set_up = Arc::<str>::from(session_set_up(config, LOADER));
    Pool::builder(Manager::from_config(postgres, NoTls, recycling))
        .max_size(config.pool_size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(config.answer_timeout))
        .create_timeout(Some(Duration::from_secs(10)))
        .recycle_timeout(Some(Duration::from_secs(10)))
        .post_create(Hook::async_fn(move |session, _| {
            let set_up = Arc::clone(&set_up);
            Box::pin(async move { session.batch_execute(&set_up).await.map_err(HookError::Backend) })
        }))
        .build()
        .map_err(|error| Error::Connect { what: error.to_string(), source: None })
}

fn connect_config(config: &StoreConfig) -> Result<Config, Error> {
    let mut postgres = Config::from_str(&config.url).map_err(|source| Error::Url { source })?;
    postgres
        .application_name(&config.application_name)
        .connect_timeout(Duration::from_secs(5))
        .keepalives_idle(Duration::from_secs(10))
        .tcp_user_timeout(Duration::from_secs(30));
    Ok(postgres)
}

fn session_set_up(config: &StoreConfig, role: &str) -> String {
    format!(
        "SET ROLE {role}; SET timezone = 'UTC'; SET statement_timeout = {}; SET lock_timeout = {}; \
         SET idle_in_transaction_session_timeout = {}; SET synchronous_commit = {}",
        config.statement_timeout.as_millis(),
        config.lock_timeout.as_millis(),
        config.idle_in_transaction_timeout.as_millis(),
        if config.synchronous_commit { "on" } else { "off" },
    )
}

async fn get(pool: &Pool) -> Result<Object, Error> {
    pool.get().await.map_err(|error| match error {
        PoolError::Backend(source) => Error::Database { doing: "connecting", source },
        PoolError::PostCreateHook(HookError::Backend(source)) => {
            Error::Database { doing: "setting up the session", source }
        }
        other => Error::Connect { what: other.to_string(), source: Some(Box::new(other)) },
    })
}

/// A login that may not take its role, or a server nobody migrated, deserve plain words.
fn missing_role(error: Error, config: &StoreConfig, role: &str) -> Error {
    let code = error.db().map(|db| db.code().clone());
    if code == Some(SqlState::INSUFFICIENT_PRIVILEGE) {
        let login = Config::from_str(&config.url).ok().and_then(|url| url.get_user().map(str::to_owned));
        let login = login.unwrap_or_else(|| "<login>".to_owned());
        return Error::Rights { statements: vec![format!("GRANT {role} TO \"{login}\";")] };
    }
    if code == Some(SqlState::INVALID_PARAMETER_VALUE) {
        return Error::NotMigrated { found: 0, needed: last_migration() };
    }
    error
}

fn last_migration() -> i32 {
    MIGRATIONS.last().map_or(0, |(number, ..)| *number)
}

async fn check_migrated(session: &Object) -> Result<(), Error> {
    let needed = last_migration();
    let found = match session.query_one("SELECT max(number) FROM inosec.schema_migrations", &[]).await {
        Ok(row) => row.get::<_, Option<i32>>(0).unwrap_or(0),
        Err(error) if is_absent(&error) => 0,
        Err(source) => return Err(Error::Database { doing: "reading the migrations' history", source }),
    };
    if found < needed { Err(Error::NotMigrated { found, needed }) } else { Ok(()) }
}

/// No schema, no table, or no right to look: nobody migrated this database.
fn is_absent(error: &tokio_postgres::Error) -> bool {
    let absent = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME, SqlState::INSUFFICIENT_PRIVILEGE];
    error.code().is_some_and(|code| absent.contains(code))
}

/// Waits until the database answers, at most `patience`; for programs that start beside it.
pub async fn wait_for(config: &StoreConfig, patience: Duration) -> Result<Arc<Store>, Error> {
    let deadline = tokio::time::Instant::now() + patience;
    let mut wait = backoff::Backoff::default();
    loop {
        match Store::connect(config).await {
            Err(error) if error.is_outage() && tokio::time::Instant::now() < deadline => {
                tracing::warn!(%error, "waiting for the database");
                wait.wait().await;
            }
            done => return done,
        }
    }
}
