//! The road's tasks and channels: the only place that has any.
//!
//! ```text
//!  consumer (OS thread) ──lane: 2 Messages──► prepare (task + blocking pool) ──1 Sealed──► writer (task)
//!     ▲      │ events: 1,024                                                                  │
//!     │      ▼                                                                                │
//!     └── steward (task) ◄─────────────────── lost spans, committed spans: 1,024 ─────────────┘
//!  commands: 1,024
//! ```
//!
//! Beside it, per database: the correlator (task), which turns what the writers queued in the database into
//! alerts, and while it leads the relay (task), which sends their changes to Kafka.
//!
//! The geo keeper (task) replaces the GeoIP databases that prepare asks.
//!
//! One such road per database; one lane per connection. Stopping cancels the consumer only: it hands
//! on what it holds, drops its ends of the lanes, and each stage ends after the one before it.

mod correlator;
mod detection;
pub mod geo;
mod lane;
mod relay;
mod steward;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inosec_ingest::consumer::{Budget, Command, Consumer, ConsumerConfig, Wiring};
use inosec_ingest::topics::{Cluster, describe as describe_topics};
use inosec_schemas::{Catalog, EventIds, Topic};
use inosec_sink::{Redo, Store};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tracing::info;

use self::detection::Detection;
use crate::cli::chain;
use crate::config::{Config, Role, Start, TopicConfig};
use crate::databases;
use crate::ops::Readiness;

/// Batches that may wait for a lane; the consumer's budget bounds their bytes.
const LANE: usize = 2;
/// Events from and commands to the consumer: a rebalance makes a few per partition.
const NOTICES: usize = 1024;
/// So many batches at least fit the memory: each lane has some that wait, are prepared and are written.
const BATCHES: usize = 8;
/// Between two rounds of maintenance.
const KEEP: Duration = Duration::from_secs(60);
/// How long the brokers may take to tell about the topics at the start.
const DESCRIBE: Duration = Duration::from_secs(20);

/// Why the road could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka's side.
    #[error("kafka: {0}")]
    Ingest(#[from] inosec_ingest::Error),
    /// A database's side.
    #[error("database {name}: {source}")]
    Sink {
        /// The database.
        name: String,
        /// What it says.
        source: inosec_sink::Error,
    },
    /// A stream or format description.
    #[error(transparent)]
    Schemas(#[from] inosec_schemas::Error),
    /// A GeoIP database that can't be used.
    #[error(
        "geo.{key}: {}: {why}: put a GeoLite2, GeoIP2 or compatible .mmdb file there, or leave geo.{key} out",
        path.display()
    )]
    Geo {
        /// The key in `[geo]`.
        key: &'static str,
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The configuration asks for something that isn't there.
    #[error("{0}")]
    Config(String),
    /// A task ended that should have gone on.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
    /// A task panicked: a bug.
    #[error("a task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// What was in flight could not be stored in time; it is read again.
    #[error("what was in flight was not stored within {0:?}; it is read again at the next start")]
    Drain(Duration),
}

/// A running road, all databases.
#[derive(Debug)]
pub struct Running {
    roads: Vec<Road>,
    /// The correlators and the geo keeper, which don't end.
    attendants: Vec<JoinHandle<()>>,
}

/// The road of one database.
#[derive(Debug)]
struct Road {
    commands: mpsc::Sender<Command>,
    /// The consumer and the lanes: they end one after another.
    stages: JoinSet<Result<(), Error>>,
    /// The steward, which ends after the writers; the keeper, the directory's watcher and the rules' keeper,
    /// which don't end.
    attendants: Vec<JoinHandle<()>>,
}

/// What prepare adds to a database's events.
struct Additions {
    geo: geo::Current,
    detection: Option<(Detection, detection::Keeper)>,
}

/// Asks the brokers about the configured topics. Blocks.
pub fn describe(config: &Config) -> Result<Cluster, inosec_ingest::Error> {
    let names: Vec<&str> = config.topics.iter().map(|topic| topic.name.as_str()).collect();
    describe_topics(&config.kafka.brokers, &properties(config), &names, DESCRIBE)
}

/// The configured topics of a database as far as they are known without asking Kafka.
pub fn topics_without_kafka(config: &Config, database: &str) -> Result<Vec<Arc<Topic>>, Error> {
    let catalog = databases::catalog(config)?;
    let nowhere = Cluster { id: String::new(), topics: Vec::new() };
    config.topics_of(database).map(|topic| join(topic, &catalog, &nowhere, 0)).collect()
}

/// Decodes, detects and seals messages outside a running road.
pub async fn redo(config: &Config, database: &str, store: &Arc<Store>) -> Result<Redo, Error> {
    let catalog = Arc::new(databases::catalog(config)?);
    let detection = detection::start(config, database, &catalog, store).await?;
    let geo = geo::Current::load(&config.geo).await?;
    let detection = detection.as_ref().map(|(shared, _)| shared);
    Ok(lane::work(config, database, &catalog, Arc::clone(store), geo, detection))
}

/// Starts the roles of this process for every database.
pub async fn start(config: &Config, readiness: &Readiness) -> Result<Running, Error> {
    let config = Arc::new(config.clone());
    let catalog = Arc::new(databases::catalog(&config)?);
    let ingest = match config.has(Role::Ingest) {
        true => Some(Ingest::start(&config).await?),
        false => None,
    };
    let mut running = Running { roads: Vec::new(), attendants: Vec::new() };
    for (name, database) in &config.databases {
        if config.topics_of(name).next().is_none() {
            continue;
        }
        let of = |source| Error::Sink { name: name.clone(), source };
        let store = Store::connect(&databases::store_config(&config, database)).await.map_err(of)?;
        info!(database = name, hot_store = store.hot().name(), roles = ?config.roles, "starting");
        let mut files = None;
        if let Some(Ingest { described, geo, .. }) = &ingest {
            let topics = register(&config, name, &catalog, described, &store).await?;
            let detection = detection::start(&config, name, &catalog, &store).await?;
            files = detection.as_ref().map(|(_, keeper)| keeper.files());
            let additions = Additions { geo: geo.clone(), detection };
            let store = Arc::clone(&store);
            running.roads.push(Road::start(&config, name, &catalog, store, topics, additions, readiness)?);
        }
        if config.has(Role::Correlate) {
            let files = match files {
                Some(files) => files,
                None => detection::files(&config, &catalog).await?,
            };
            let role = correlator::Role::new(&config, name, &store, files.rules()).await?;
            running.attendants.push(tokio::spawn(role.run()));
        }
    }
    if running.roads.is_empty() && running.attendants.is_empty() {
        return Err(Error::Config("there is nothing to do: write a [[topics]] entry".to_owned()));
    }
    running.attendants.extend(ingest.map(|ingest| tokio::spawn(ingest.keeper.run())));
    Ok(running)
}

/// What the roads of all databases share.
struct Ingest {
    described: Cluster,
    keeper: geo::Keeper,
    geo: geo::Current,
}

impl Ingest {
    async fn start(config: &Arc<Config>) -> Result<Self, Error> {
        let (keeper, geo) = geo::Keeper::start(&config.geo).await?;
        let asked = Arc::clone(config);
        let described = tokio::task::spawn_blocking(move || describe(&asked)).await??;
        Ok(Self { described, keeper, geo })
    }
}

/// Joins what the configuration, the brokers and the database say of a database's topics.
async fn register(
    config: &Config,
    database: &str,
    catalog: &Catalog,
    cluster: &Cluster,
    store: &Store,
) -> Result<Vec<Arc<Topic>>, Error> {
    let mut topics = Vec::new();
    for topic in config.topics_of(database) {
        let key = store
            .register_topic(&cluster.id, &topic.name, id_of(cluster, &topic.name))
            .await
            .map_err(|source| Error::Sink { name: database.to_owned(), source })?;
        topics.push(join(topic, catalog, cluster, key)?);
    }
    Ok(topics)
}

fn join(topic: &TopicConfig, catalog: &Catalog, cluster: &Cluster, key: i32) -> Result<Arc<Topic>, Error> {
    let stream = catalog.streams.get(&topic.stream).cloned().ok_or_else(|| {
        Error::Config(format!("topic {} feeds stream {}, which doesn't exist", topic.name, topic.stream))
    })?;
    let id = id_of(cluster, &topic.name);
    Ok(Arc::new(Topic {
        cluster: cluster.id.clone(),
        name: topic.name.clone(),
        id,
        key,
        stream,
        tenant: topic.tenant,
        event_ids: EventIds::new(&cluster.id, &topic.name, id),
    }))
}

fn id_of(cluster: &Cluster, topic: &str) -> Option<uuid::Uuid> {
    cluster.topics.iter().find(|known| known.name == topic).and_then(|known| known.id)
}

fn properties(config: &Config) -> BTreeMap<String, String> {
    let properties = config.kafka.properties.iter();
    properties.map(|(key, value)| (key.clone(), value.expose().to_owned())).collect()
}

fn consumer_config(config: &Config) -> ConsumerConfig {
    let kafka = &config.kafka;
    ConsumerConfig {
        client_id: kafka.client_id.clone(),
        instance_id: kafka.instance_id.clone(),
        session_timeout: kafka.session_timeout,
        properties: properties(config),
        max_rows: config.batch.max_rows,
        max_bytes: config.batch.max_bytes,
        max_age: config.batch.max_age,
        memory: config.batch.memory,
        ..ConsumerConfig::new(&kafka.brokers, &kafka.group)
    }
}

impl Road {
    fn start(
        config: &Config,
        name: &str,
        catalog: &Arc<Catalog>,
        store: Arc<Store>,
        topics: Vec<Arc<Topic>>,
        additions: Additions,
        readiness: &Readiness,
    ) -> Result<Self, Error> {
        let geo = additions.geo;
        let (detection, rules) = additions.detection.unzip();
        let (commands, orders) = mpsc::channel(NOTICES);
        let (events, notices) = mpsc::channel(NOTICES);
        let (reports, outcomes) = mpsc::channel(NOTICES);
        let mut stages = JoinSet::new();
        let mut lanes = Vec::new();
        for _ in 0..config.databases[name].writers {
            let (lane, messages) = mpsc::channel(LANE);
            lanes.push(lane);
            let work = lane::work(config, name, catalog, Arc::clone(&store), geo.clone(), detection.as_ref());
            lane::spawn(&mut stages, name, &store, work, messages, reports.clone());
        }
        drop(reports);
        let mut settings = consumer_config(config);
        if detection.is_some() {
            // What rules remember is part of it. Batches shrink with it, so that none waits for another.
            settings.memory -= detection::memory(config);
            settings.max_bytes = settings.max_bytes.min(settings.memory / BATCHES);
        }
        let budget = Budget::new(settings.memory);
        let clock = databases::now;
        let wiring = Wiring { topics, lanes, events, commands: orders, clock, budget };
        let consumer = Consumer::new(&settings, wiring)?;
        stages.spawn_blocking(move || Ok(consumer.run()?));
        let start = match config.kafka.start {
            Start::Earliest => inosec_sink::Start::Earliest,
            Start::Latest => inosec_sink::Start::Latest,
        };
        let steward =
            steward::Steward::new(name, Arc::clone(&store), start, commands.clone(), readiness.clone());
        let watcher = Arc::clone(&store);
        let mut attendants = vec![
            tokio::spawn(steward.run(notices, outcomes)),
            tokio::spawn(async move { watcher.watch_directory().await }),
            tokio::spawn(keep(Arc::clone(&store))),
        ];
        attendants.extend(rules.map(|rules| tokio::spawn(rules.run(store))));
        Ok(Self { commands, stages, attendants })
    }

    /// Returns when a stage fails, or ends without having been told to.
    async fn failed(&mut self) -> Error {
        match self.stages.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => Error::Task(error),
            Some(Ok(Ok(()))) | None => Error::Ended("a stage"),
        }
    }

    async fn stop(mut self, drain: Duration) -> Result<(), Error> {
        // The consumer may be gone already, if it was what failed. It leaves its group once nobody
        // commands it any more: the steward ends when the last writer has reported.
        let _ = self.commands.send(Command::Stop { deadline: Instant::now() + drain }).await;
        drop(self.commands);
        let drained = tokio::time::timeout(drain, async {
            while let Some(ended) = self.stages.join_next().await {
                ended??;
            }
            Ok(())
        });
        let result = drained.await.unwrap_or(Err(Error::Drain(drain)));
        self.stages.abort_all();
        self.attendants.iter().for_each(JoinHandle::abort);
        result
    }
}

impl Running {
    /// Returns when a part fails; as long as all is well it doesn't.
    pub async fn failed(&mut self) -> Error {
        let mut failures = self.roads.iter_mut().map(|road| Box::pin(road.failed())).collect::<Vec<_>>();
        std::future::poll_fn(|context| {
            let ready = failures.iter_mut().find_map(|failure| match failure.as_mut().poll(context) {
                std::task::Poll::Ready(error) => Some(error),
                std::task::Poll::Pending => None,
            });
            ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }

    /// Stops reading, stores what was read, and ends; whatever doesn't end within `drain` is dropped
    /// and read again at the next start.
    pub async fn stop(self, drain: Duration) -> Result<(), Error> {
        let mut stopping = JoinSet::new();
        for road in self.roads {
            stopping.spawn(road.stop(drain));
        }
        self.attendants.iter().for_each(JoinHandle::abort);
        let mut result = Ok(());
        while let Some(stopped) = stopping.join_next().await {
            result = result.and(stopped.unwrap_or_else(|error| Err(Error::Task(error))));
        }
        result
    }
}

/// Makes partitions ahead of time, merges small raw blocks, drops old dead letters and changes of alerts.
async fn keep(store: Arc<Store>) {
    loop {
        if let Err(error) = store.maintain().await {
            tracing::warn!(%error, "maintenance failed, trying again in a minute");
        }
        tokio::time::sleep(KEEP).await;
    }
}
