//! The configuration as written. Every field is optional here; `check` fills in the documented
//! defaults and reports what is missing or makes no sense.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use inosec_schemas::{TenantId, TenantSource};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::raw_correlate::{RawCorrelate, check_roles};
use super::raw_enrich::{RawGeo, RawRules};
use super::units::{Bytes, Secret, Span};
use super::{Batch, Config, Database, DeadLetters, Kafka, Limits, Log, Time, TopicConfig};

/// Ten thousand rows cost PostgreSQL about 40 ms: long enough to amortise a commit, short enough
/// for a quarter of a second from arrival to storage.
const MAX_ROWS: usize = 10_000;
/// The position of a row in its batch has 20 bits (`seq`).
const MAX_ROWS_LIMIT: usize = 1 << 19;
/// Of few large batches one waits for another; of many small ones PostgreSQL has the cost of more commits.
const MAX_BYTES: u64 = 8 << 20;
const MAX_AGE: Duration = Duration::from_millis(250);
/// With columns, blocks and COPY frames beside the messages the process stays under 512 MiB.
const MEMORY: u64 = 72 << 20;
/// A killed process is declared dead after this long, so others take over well within 10 s. Kafka's
/// own default of 45 s is what every rival pays.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
const EVENT_MAX_AGE: Duration = Duration::from_hours(30 * 24);
const EVENT_MAX_SKEW: Duration = Duration::from_hours(1);
const MAX_MESSAGE: u64 = 4 << 20;
const MAX_DEPTH: usize = 128;
const DEAD_LETTER_RETENTION: Duration = Duration::from_hours(30 * 24);
const DEAD_LETTER_QUOTA: u64 = 256 << 20;
const DRAIN: Duration = Duration::from_secs(20);
/// Two connections keep PostgreSQL busy on two cores; more only wait for each other.
const WRITERS: usize = 2;
/// ADR 3: level 1 costs 3.5 µs a message, level 3 half as much again for 5 % fewer bytes.
const ZSTD_LEVEL: i32 = 1;

/// Where a partition starts that no offset is stored for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the oldest message Kafka still has.
    #[default]
    Earliest,
    /// At what comes next.
    Latest,
}

/// Which kind of table keeps the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HotStoreChoice {
    /// TimescaleDB where the extension can be had, else plain PostgreSQL.
    #[default]
    Auto,
    /// TimescaleDB hypertables.
    Timescaledb,
    /// PostgreSQL range partitions.
    Postgres,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawConfig {
    roles: Option<Vec<String>>,
    kafka: RawKafka,
    topics: Vec<RawTopic>,
    databases: BTreeMap<String, RawDatabase>,
    batch: RawBatch,
    time: RawTime,
    limits: RawLimits,
    geo: RawGeo,
    dead_letters: RawDeadLetters,
    rules: RawRules,
    correlate: RawCorrelate,
    schemas: RawSchemas,
    metrics: RawMetrics,
    shutdown: RawShutdown,
    log: RawLog,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawKafka {
    brokers: Option<String>,
    group: Option<String>,
    client_id: Option<String>,
    instance_id: Option<String>,
    session_timeout: Option<Span>,
    start: Start,
    security_protocol: Option<String>,
    sasl_mechanism: Option<String>,
    sasl_username: Option<String>,
    sasl_password: Option<Secret>,
    sasl_password_file: Option<PathBuf>,
    ssl_ca: Option<String>,
    ssl_certificate: Option<String>,
    ssl_key: Option<String>,
    ssl_key_password: Option<Secret>,
    ssl_key_password_file: Option<PathBuf>,
    properties: BTreeMap<String, Secret>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTopic {
    name: String,
    stream: String,
    tenant: RawTenant,
    #[serde(default)]
    database: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawTenant {
    Named(String),
    Fixed { fixed: String },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawDatabase {
    url: Option<Secret>,
    url_file: Option<PathBuf>,
    admin_url: Option<Secret>,
    admin_url_file: Option<PathBuf>,
    hot_store: HotStoreChoice,
    writers: Option<usize>,
    synchronous_commit: Option<bool>,
    zstd_level: Option<i32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawBatch {
    max_rows: Option<usize>,
    max_bytes: Option<Bytes>,
    max_age: Option<Span>,
    memory: Option<Bytes>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawTime {
    max_age: Option<Span>,
    max_skew: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawLimits {
    max_message_bytes: Option<Bytes>,
    max_depth: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawDeadLetters {
    retention: Option<Span>,
    quota_per_day: Option<Bytes>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawSchemas {
    directory: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawMetrics {
    listen: Option<SocketAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawShutdown {
    drain: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawLog {
    format: LogFormat,
    filter: Option<String>,
}

/// Puts `INOSEC__SECTION__KEY=value` on top of what the file says. A value is read as TOML where it
/// is one (`17`, `true`, `["a"]`), else taken as text.
pub(super) fn overlay(
    table: &mut toml::Table,
    environment: impl IntoIterator<Item = (String, String)>,
    faults: &mut Vec<String>,
) {
    for (name, value) in environment {
        let Some(path) = name.strip_prefix("INOSEC__") else { continue };
        let path = path.to_ascii_lowercase();
        let mut keys: Vec<&str> = path.split("__").collect();
        let Some(last) = keys.pop() else { continue };
        let mut target = &mut *table;
        for key in keys {
            let entry = target.entry(key).or_insert_with(|| toml::Table::new().into());
            match entry {
                toml::Value::Table(inner) => target = inner,
                _ => {
                    faults.push(format!("{name}: {key} is not a section"));
                    return;
                }
            }
        }
        target.insert(last.to_owned(), read_value(&value));
    }
}

fn read_value(text: &str) -> toml::Value {
    let parsed = format!("value = {text}").parse::<toml::Table>().ok();
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| text.to_owned().into())
}

impl RawConfig {
    /// Reads each key by itself first, so that one bad key doesn't hide the next; what is sound of a
    /// section is kept, so that `check` can go on to its own faults.
    pub(super) fn from_table(table: &toml::Table, faults: &mut Vec<String>) -> Self {
        let mut sound = toml::Table::new();
        for (key, value) in table {
            let kept = match key.as_str() {
                "databases" => probe_databases(value, faults),
                "topics" => probe_topics(value, faults),
                "kafka" => probe::<RawKafka>(key, value, faults),
                "batch" => probe::<RawBatch>(key, value, faults),
                "time" => probe::<RawTime>(key, value, faults),
                "limits" => probe::<RawLimits>(key, value, faults),
                "geo" => probe::<RawGeo>(key, value, faults),
                "dead_letters" => probe::<RawDeadLetters>(key, value, faults),
                "rules" => probe::<RawRules>(key, value, faults),
                "correlate" => probe::<RawCorrelate>(key, value, faults),
                "roles" => value.clone(),
                "schemas" => probe::<RawSchemas>(key, value, faults),
                "metrics" => probe::<RawMetrics>(key, value, faults),
                "shutdown" => probe::<RawShutdown>(key, value, faults),
                "log" => probe::<RawLog>(key, value, faults),
                _ => {
                    faults.push(format!("there is no section or key {key:?}: see `inosec config --help`"));
                    continue;
                }
            };
            sound.insert(key.clone(), kept);
        }
        sound.try_into().unwrap_or_else(|error| {
            faults.push(first_line(&error));
            Self::default()
        })
    }

    /// Fills in defaults and checks what serde can't.
    pub(super) fn check(self, faults: &mut Vec<String>) -> Config {
        let topics = check_topics(self.topics, &self.databases, faults);
        Config {
            roles: check_roles(self.roles, faults),
            kafka: self.kafka.check(faults),
            topics,
            databases: check_databases(self.databases, faults),
            batch: self.batch.check(faults),
            time: Time {
                max_age: self.time.max_age.map_or(EVENT_MAX_AGE, |span| span.0),
                max_skew: self.time.max_skew.map_or(EVENT_MAX_SKEW, |span| span.0),
            },
            limits: Limits {
                max_message_bytes: size(self.limits.max_message_bytes, MAX_MESSAGE),
                max_depth: self.limits.max_depth.unwrap_or(MAX_DEPTH),
            },
            geo: self.geo.check(faults),
            dead_letters: DeadLetters {
                retention: self.dead_letters.retention.map_or(DEAD_LETTER_RETENTION, |span| span.0),
                quota_per_day: self.dead_letters.quota_per_day.map_or(DEAD_LETTER_QUOTA, |bytes| bytes.0),
            },
            rules: self.rules.check(faults),
            correlate: self.correlate.check(faults),
            schemas: self.schemas.directory,
            metrics_listen: self.metrics.listen,
            drain: self.shutdown.drain.map_or(DRAIN, |span| span.0),
            log: Log {
                format: self.log.format,
                filter: self.log.filter.unwrap_or_else(|| "info".to_owned()),
            },
        }
    }
}

/// Checks every key of a section alone (all sections take defaults for the rest) and keeps the sound.
fn probe<T: DeserializeOwned>(section: &str, value: &toml::Value, faults: &mut Vec<String>) -> toml::Value {
    let toml::Value::Table(table) = value else {
        faults.push(format!("{section} must be a section: write [{section}]"));
        return toml::Table::new().into();
    };
    let mut sound = toml::Table::new();
    for (key, value) in table {
        let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
        match alone.try_into::<T>() {
            Ok(_) => _ = sound.insert(key.clone(), value.clone()),
            Err(error) => faults.push(format!("{section}.{key}: {}", first_line(&error))),
        }
    }
    sound.into()
}

fn probe_databases(value: &toml::Value, faults: &mut Vec<String>) -> toml::Value {
    let mut sound = toml::Table::new();
    for (name, database) in value.as_table().into_iter().flatten() {
        let kept = probe::<RawDatabase>(&format!("databases.{name}"), database, faults);
        sound.insert(name.clone(), kept);
    }
    sound.into()
}

fn probe_topics(value: &toml::Value, faults: &mut Vec<String>) -> toml::Value {
    let mut sound = toml::value::Array::new();
    for (index, topic) in value.as_array().into_iter().flatten().enumerate() {
        match topic.clone().try_into::<RawTopic>() {
            Ok(_) => sound.push(topic.clone()),
            Err(error) => faults.push(format!("topics[{index}]: {}", first_line(&error))),
        }
    }
    sound.into()
}

fn first_line(error: &toml::de::Error) -> String {
    error.message().lines().next().unwrap_or_default().to_owned()
}

fn size(given: Option<Bytes>, default: u64) -> usize {
    usize::try_from(given.map_or(default, |bytes| bytes.0)).unwrap_or(usize::MAX)
}

impl RawKafka {
    fn check(self, faults: &mut Vec<String>) -> Kafka {
        let brokers = self.brokers.unwrap_or_default();
        if brokers.trim().is_empty() {
            faults.push("kafka.brokers is missing: write host:port, several separated by commas".to_owned());
        }
        let mut properties = self.properties;
        let password = secret("kafka.sasl_password", self.sasl_password, self.sasl_password_file, faults);
        let key_password =
            secret("kafka.ssl_key_password", self.ssl_key_password, self.ssl_key_password_file, faults);
        let named = [
            ("security.protocol", self.security_protocol.map(Secret::new)),
            ("sasl.mechanism", self.sasl_mechanism.map(Secret::new)),
            ("sasl.username", self.sasl_username.map(Secret::new)),
            ("sasl.password", password),
            ("ssl.ca.location", self.ssl_ca.map(Secret::new)),
            ("ssl.certificate.location", self.ssl_certificate.map(Secret::new)),
            ("ssl.key.location", self.ssl_key.map(Secret::new)),
            ("ssl.key.password", key_password),
        ];
        for (property, value) in named {
            if let Some(value) = value {
                properties.insert(property.to_owned(), value);
            }
        }
        for property in
            ["enable.auto.commit", "auto.offset.reset", "enable.auto.offset.store", "isolation.level"]
        {
            if properties.contains_key(property) {
                faults.push(format!("kafka.properties.{property}: exactly-once depends on it, leave it out"));
            }
        }
        Kafka {
            brokers,
            group: self.group.unwrap_or_else(|| "inosec".to_owned()),
            client_id: self.client_id.unwrap_or_else(|| "inosec".to_owned()),
            instance_id: self.instance_id,
            session_timeout: self.session_timeout.map_or(SESSION_TIMEOUT, |span| span.0),
            start: self.start,
            properties,
        }
    }
}

impl RawBatch {
    fn check(self, faults: &mut Vec<String>) -> Batch {
        let batch = Batch {
            max_rows: self.max_rows.unwrap_or(MAX_ROWS),
            max_bytes: size(self.max_bytes, MAX_BYTES),
            max_age: self.max_age.map_or(MAX_AGE, |span| span.0),
            memory: size(self.memory, MEMORY),
        };
        if !(1..=MAX_ROWS_LIMIT).contains(&batch.max_rows) {
            faults.push(format!("batch.max_rows must lie between 1 and {MAX_ROWS_LIMIT}"));
        }
        if batch.max_bytes == 0 || batch.memory < batch.max_bytes {
            faults.push("batch.memory must hold at least one batch of batch.max_bytes".to_owned());
        }
        batch
    }
}

fn check_topics(
    topics: Vec<RawTopic>,
    databases: &BTreeMap<String, RawDatabase>,
    faults: &mut Vec<String>,
) -> Vec<TopicConfig> {
    let mut checked: Vec<TopicConfig> = Vec::new();
    for topic in topics {
        let tenant = match &topic.tenant {
            RawTenant::Named(name) if name == "header" => TenantSource::Header,
            RawTenant::Named(name) if name == "payload" => TenantSource::Payload,
            RawTenant::Fixed { fixed } if TenantId::from_str(fixed).is_ok() => {
                TenantSource::Fixed(TenantId::from_str(fixed).unwrap_or(TenantId(uuid::Uuid::nil())))
            }
            _ => {
                let what = "must be \"header\", \"payload\" or { fixed = \"<uuid>\" }";
                faults.push(format!("topics: {}: tenant {what}", topic.name));
                continue;
            }
        };
        let database = topic.database.unwrap_or_else(|| "main".to_owned());
        if !databases.contains_key(&database) {
            faults.push(format!("topics: {}: there is no [databases.{database}]", topic.name));
        }
        if checked.iter().any(|other| other.name == topic.name) {
            faults.push(format!("topics: {} stands twice: a topic feeds exactly one stream", topic.name));
        }
        checked.push(TopicConfig { name: topic.name, stream: topic.stream, tenant, database });
    }
    checked
}

fn check_databases(
    databases: BTreeMap<String, RawDatabase>,
    faults: &mut Vec<String>,
) -> BTreeMap<String, Database> {
    if databases.is_empty() {
        faults.push("databases: there is none: write [databases.main] with its url".to_owned());
    }
    let check = |(name, raw): (String, RawDatabase)| {
        let place = format!("databases.{name}.url");
        let url = secret(&place, raw.url, raw.url_file, faults).unwrap_or_else(|| {
            faults.push(format!("{place} is missing: write postgres://user:password@host:port/database"));
            Secret::default()
        });
        let admin_place = format!("databases.{name}.admin_url");
        let database = Database {
            url,
            admin_url: secret(&admin_place, raw.admin_url, raw.admin_url_file, faults),
            hot_store: raw.hot_store,
            writers: raw.writers.unwrap_or(WRITERS).max(1),
            synchronous_commit: raw.synchronous_commit.unwrap_or(true),
            zstd_level: raw.zstd_level.unwrap_or(ZSTD_LEVEL),
        };
        (name, database)
    };
    databases.into_iter().map(check).collect()
}

/// A secret given in place or by file, not both.
fn secret(
    place: &str,
    given: Option<Secret>,
    file: Option<PathBuf>,
    faults: &mut Vec<String>,
) -> Option<Secret> {
    match (given, file) {
        (Some(_), Some(_)) => {
            faults.push(format!("{place} and {place}_file are both given: choose one"));
            None
        }
        (None, Some(path)) => match std::fs::read_to_string(&path) {
            Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
            Err(error) => {
                faults.push(format!("{place}_file: {}: {error}", path.display()));
                None
            }
        },
        (given, None) => given,
    }
}
