//! What the demo plays on: broker, database, tenants, road and metrics, all in this process or
//! started by it, all gone when it is dropped.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use inosec_schemas::{TenantId, Tier};
use inosec_sink::NewTenant;
use metrics_exporter_prometheus::PrometheusHandle;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use tracing_subscriber::EnvFilter;

use super::census::{Delays, Observer};
use super::screen::note;
use crate::cli::{Failure, chain};
use crate::config::Config;
use crate::day::Tenant;
use crate::ops::{self, Readiness};
use crate::pipeline::{self, Running};
use crate::private_postgres::{Options, PrivatePostgres};
use crate::{databases, private_postgres};

/// Where agents and sensors report.
pub const AGENT_LOGS: &str = "inosec.agent_logs";
/// Where another producer reports what it detected.
pub const THREAT_EVENTS: &str = "inosec.threat_events";
/// Topics and their partitions.
const TOPICS: [(&str, i32); 2] = [(AGENT_LOGS, 6), (THREAT_EVENTS, 2)];
/// The group's first assignment takes librdkafka's mock broker three seconds.
const ASSIGNMENT: Duration = Duration::from_secs(20);
/// Messages larger than this become dead letters; the made-up day has one.
const MAX_MESSAGE: &str = "1MiB";
/// How long the road may take to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Everything that runs. Fields are dropped in this order: the road before what it needs.
pub struct Stage {
    /// The road.
    pub running: Running,
    /// Looks at the database.
    pub observer: Observer,
    database: PrivatePostgres,
    broker: MockCluster<'static, DefaultProducerContext>,
    config: Config,
    config_file: PathBuf,
    metrics: PrometheusHandle,
    metrics_at: SocketAddr,
}

/// Where a user finds things.
#[derive(Debug)]
pub struct Place {
    /// The database's URL.
    pub database: String,
    /// Where metrics are served.
    pub metrics: String,
    /// A configuration for the other commands.
    pub config: PathBuf,
    /// Whether all this is there until Ctrl-C.
    pub stays: bool,
}

impl Stage {
    /// Builds it all; a few seconds.
    pub async fn build(state: &Path, tenants: &[Tenant]) -> Result<Self, Failure> {
        fs::create_dir_all(state).map_err(|error| Failure::new(format!("{}: {error}", state.display())))?;
        log_to(&state.join("demo.log"))?;
        note("starting a private PostgreSQL");
        let database = start_postgres(state).await?;
        note("starting a broker inside this process");
        let broker = start_broker()?;
        let config_file = state.join("demo.toml");
        let text = config_text(&broker.bootstrap_servers(), &database.url());
        fs::write(&config_file, &text)?;
        let config = Config::parse("demo.toml", &text, [])?;
        note("creating tables, roles and tenants");
        migrate(&config).await?;
        add_tenants(&config, tenants).await?;
        let metrics = ops::install_metrics()?;
        let readiness = Readiness::default();
        let listener = ops::listen((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let metrics_at = listener.local_addr()?;
        tokio::spawn(ops::serve(listener, metrics.clone(), readiness.clone()));
        note("starting the road: the consumer group needs some three seconds");
        let running = pipeline::start(&config, &readiness).await?;
        let observer = Observer::connect(&database.url()).await?;
        let stage = Self { running, observer, database, broker, config, config_file, metrics, metrics_at };
        stage.assigned().await?;
        Ok(stage)
    }

    /// The road's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How long messages took from Kafka to their commit.
    pub fn delays(&self) -> Delays {
        self.metrics.run_upkeep();
        Delays::read(&self.metrics.render())
    }

    /// Where a user finds things.
    pub fn place(&self, stays: bool) -> Place {
        Place {
            database: self.database.url(),
            metrics: format!("http://{}/metrics", self.metrics_at),
            config: self.config_file.clone(),
            stays,
        }
    }

    /// Returns when a part of the road fails.
    pub async fn failed(&mut self) -> Result<(), Failure> {
        Err(self.running.failed().await.into())
    }

    /// Stops everything in order.
    pub async fn strike(self) -> Result<(), Failure> {
        let Self { running, observer, mut database, broker, config_file, .. } = self;
        // What it names is about to be gone.
        drop(fs::remove_file(config_file));
        let stopped = running.stop(DRAIN).await;
        drop(observer);
        let database_stopped = tokio::task::spawn_blocking(move || {
            let stopped = database.stop(private_postgres::Mode::Fast);
            drop(database);
            stopped
        });
        database_stopped.await??;
        drop(broker);
        Ok(stopped?)
    }

    /// Waits until every partition has an owner: that stores where it starts.
    async fn assigned(&self) -> Result<(), Failure> {
        let partitions: i32 = TOPICS.iter().map(|(_, partitions)| partitions).sum();
        let deadline = Instant::now() + ASSIGNMENT;
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        while self.observer.partitions().await? < i64::from(partitions) {
            if Instant::now() > deadline {
                return Err(Failure::new(format!(
                    "the consumer got no partitions within {ASSIGNMENT:?}: see demo.log beside {}",
                    self.config_file.display()
                )));
            }
            ticks.tick().await;
        }
        Ok(())
    }
}

/// The live display owns the terminal, so logs go to a file: warnings and worse.
fn log_to(file: &Path) -> Result<(), Failure> {
    let file = File::create(file).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    let filter = EnvFilter::new("warn,inosec=info,inosec_sink=info,inosec_ingest=info");
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // A second call in one process changes nothing.
    drop(builder.with_writer(Mutex::new(file)).try_init());
    Ok(())
}

async fn start_postgres(state: &Path) -> Result<PrivatePostgres, Failure> {
    let folder = state.join("postgres");
    // Durability as anywhere: the demo's promise is the real one.
    let options = Options::default().with("shared_buffers", "128MB").with("max_wal_size", "2GB");
    let started = tokio::task::spawn_blocking(move || PrivatePostgres::start(&folder, &options)).await?;
    Ok(started?)
}

fn start_broker() -> Result<MockCluster<'static, DefaultProducerContext>, Failure> {
    let broker = MockCluster::new(1)?;
    for (topic, partitions) in TOPICS {
        broker.create_topic(topic, partitions, 1)?;
    }
    Ok(broker)
}

fn config_text(brokers: &str, url: &str) -> String {
    let mut text = format!(
        "# Written by `inosec demo`; of use while it runs with --keep.\n[kafka]\nbrokers = \"{brokers}\"\ngroup = \"inosec-demo\"\n"
    );
    for ((topic, _), (stream, tenant)) in
        TOPICS.iter().zip([("agent_logs", "header"), ("threat_events", "payload")])
    {
        let _ =
            write!(text, "\n[[topics]]\nname = \"{topic}\"\nstream = \"{stream}\"\ntenant = \"{tenant}\"\n");
    }
    let _ = write!(text, "\n[databases.main]\nurl = \"{url}\"\nhot_store = \"postgres\"\n");
    let _ = write!(text, "\n[rules]\nbuiltin = true\n\n[limits]\nmax_message_bytes = \"{MAX_MESSAGE}\"\n");
    text
}

async fn migrate(config: &Config) -> Result<(), Failure> {
    let catalog = databases::catalog(config)?;
    for database in config.databases.values() {
        let wanted = databases::wanted(database.hot_store);
        inosec_sink::migrate(database.url.expose(), &catalog, wanted).await?;
    }
    Ok(())
}

async fn add_tenants(config: &Config, tenants: &[Tenant]) -> Result<(), Failure> {
    let store = databases::connect(config, "main").await.map_err(Failure::new)?;
    for tenant in tenants {
        let id = Some(TenantId(tenant.id));
        let new = NewTenant { id, name: tenant.name.clone(), tier: Tier::Standard, region: None };
        store.add_tenant(&new, "demo").await.map_err(|error| Failure::new(chain(&error)))?;
    }
    Ok(())
}
