//! Configuration: what the user wrote (`raw`) becomes what it means (`Config`).
//!
//! TOML, then `INOSEC__SECTION__KEY` from the environment on top; an unknown key is an error and all
//! faults are reported at once. A secret can also be given as `<key>_file`.

mod effective;
mod raw;
mod raw_correlate;
mod raw_enrich;
mod units;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inosec_enrich::Level;
use inosec_schemas::TenantSource;

pub use raw::{HotStoreChoice, LogFormat, Start};
pub use units::{Secret, micros, parse_duration};

/// Everything `inosec` was told, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// What this process does.
    pub roles: Vec<Role>,
    /// How to reach Kafka.
    pub kafka: Kafka,
    /// What to read there.
    pub topics: Vec<TopicConfig>,
    /// Where to store it, by name.
    pub databases: BTreeMap<String, Database>,
    /// When a batch closes.
    pub batch: Batch,
    /// Which event times are believed.
    pub time: Time,
    /// What a message may be.
    pub limits: Limits,
    /// The databases that say where addresses are.
    pub geo: Geo,
    /// How long and how much of what can't be stored is kept.
    pub dead_letters: DeadLetters,
    /// Which detection rules there are.
    pub rules: Rules,
    /// How threat events become alerts.
    pub correlate: Correlate,
    /// A folder of further streams and formats.
    pub schemas: Option<PathBuf>,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub metrics_listen: Option<SocketAddr>,
    /// How long a graceful stop may take.
    pub drain: Duration,
    /// How logs are written.
    pub log: Log,
}

/// How to reach Kafka.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// Bootstrap servers, `host:port` separated by commas.
    pub brokers: String,
    /// The consumer group.
    pub group: String,
    /// What brokers call us in their logs.
    pub client_id: String,
    /// Static membership (`group.instance.id`).
    pub instance_id: Option<String>,
    /// After this long without a heartbeat our partitions go to others.
    pub session_timeout: Duration,
    /// Where a partition starts that no offset is stored for.
    pub start: Start,
    /// librdkafka properties: security settings and whatever else was given, secrets included.
    pub properties: BTreeMap<String, Secret>,
}

/// One topic to read.
#[derive(Debug, Clone)]
pub struct TopicConfig {
    /// Its name.
    pub name: String,
    /// The stream it feeds.
    pub stream: String,
    /// How its messages say whose they are.
    pub tenant: TenantSource,
    /// The database its rows go to.
    pub database: String,
}

/// One database.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its connection URL.
    pub url: Secret,
    /// The URL of the role that owns the tables, if another one; for `migrate`.
    pub admin_url: Option<Secret>,
    /// TimescaleDB or plain PostgreSQL.
    pub hot_store: HotStoreChoice,
    /// How many connections write at the same time.
    pub writers: usize,
    /// Whether a commit waits for the disk.
    pub synchronous_commit: bool,
    /// zstd level of raw blocks.
    pub zstd_level: i32,
}

/// When a batch closes, and how much memory all batches share.
#[derive(Debug, Clone)]
pub struct Batch {
    /// At this many messages,
    pub max_rows: usize,
    /// or this many bytes,
    pub max_bytes: usize,
    /// or this long after its first message.
    pub max_age: Duration,
    /// Bytes of messages in flight, from fetch to commit; with rules half of it is theirs.
    pub memory: usize,
}

/// Which event times are believed for storage.
#[derive(Debug, Clone)]
pub struct Time {
    /// Older than arrival by more: stored under arrival.
    pub max_age: Duration,
    /// Ahead of arrival by more: stored under arrival.
    pub max_skew: Duration,
}

/// What a message may be.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Larger messages become dead letters.
    pub max_message_bytes: usize,
    /// More deeply nested ones too.
    pub max_depth: usize,
}

/// The databases that say where addresses are: MaxMind's format, replaced in a running process when
/// their files change. Without one its columns hold only what messages say themselves.
#[derive(Debug, Clone)]
pub struct Geo {
    /// Says countries; City databases do too.
    pub country: Option<PathBuf>,
    /// Says autonomous systems.
    pub asn: Option<PathBuf>,
    /// How often the files are looked at.
    pub reload: Duration,
}

/// How long and how much of what can't be stored is kept.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    /// Dropped after this long.
    pub retention: Duration,
    /// Payload bytes a tenant may have per day; beyond it only offset ranges are kept.
    pub quota_per_day: u64,
}

/// Which detection rules there are.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Whether the pack that the binary carries is on for everyone.
    pub builtin: bool,
    /// Files and folders of Sigma rules, on for everyone.
    pub paths: Vec<PathBuf>,
    /// The same, off unless a tenant switches them on.
    pub optional: Vec<PathBuf>,
    /// Matches of a rule that are stored per tenant and minute of arrival; more are counted.
    pub max_per_minute: u32,
    /// What the placeholders of rules (`field|expand: '%name%'`) stand for, by name.
    pub placeholders: BTreeMap<String, Vec<String>>,
}

impl Rules {
    /// Whether no rules are configured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.builtin && self.paths.is_empty() && self.optional.is_empty()
    }
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads Kafka, detects and stores.
    Ingest,
    /// Makes alerts of threat events, if it leads.
    Correlate,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Ingest, Self::Correlate];

    /// As the file has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Correlate => "correlate",
        }
    }
}

/// How threat events become alerts.
#[derive(Debug, Clone)]
pub struct Correlate {
    /// How long after a window's end its events may arrive, for rules that are decided at the end.
    pub allowed_lateness: Duration,
    /// Threat events of one rule and host further apart than this are different alerts.
    pub gap: Duration,
    /// Threat events of this level or more have alerts of their own, unless their tenant says otherwise.
    pub alert_level: Level,
    /// Groups of a tenant that are kept in mind.
    pub max_groups: usize,
    /// Events of a tenant that are kept in mind, counted in each group.
    pub max_entries: usize,
    /// Bytes that groups and events of all tenants may take, about.
    pub memory: usize,
    /// How long changes of alerts are kept.
    pub keep_changes: Duration,
    /// Where changes of alerts are sent, if anywhere.
    pub alerts_topic: Option<String>,
}

/// How logs are written.
#[derive(Debug, Clone)]
pub struct Log {
    /// For a person or for a machine.
    pub format: LogFormat,
    /// A `tracing` filter such as `info` or `inosec_sink=debug`.
    pub filter: String,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub struct Faults(pub Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the configuration has {count} fault{}:", if count == 1 { "" } else { "s" })?;
        for fault in &self.0 {
            write!(f, "\n  - {fault}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads `file` (or, without one, nothing) and the environment.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        let (raw, faults) = Self::read(file, environment)?;
        Self::checked(raw, faults)
    }

    fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(raw::RawConfig, Vec<String>), Faults> {
        let text = match file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| Faults(vec![format!("{}: {error}", path.display())]))?,
            None => String::new(),
        };
        let name = file.map_or_else(|| "environment".to_owned(), |path| path.display().to_string());
        Self::parse_raw(&name, &text, environment)
    }

    /// The same over text at hand.
    pub fn parse(
        name: &str,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        let (raw, faults) = Self::parse_raw(name, text, environment)?;
        Self::checked(raw, faults)
    }

    /// What is sound of the sections, and the faults of the rest.
    fn parse_raw(
        name: &str,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(raw::RawConfig, Vec<String>), Faults> {
        let mut table: toml::Table =
            text.parse().map_err(|error| Faults(vec![format!("{name}: {error}")]))?;
        let mut faults = Vec::new();
        raw::overlay(&mut table, environment, &mut faults);
        let raw = raw::RawConfig::from_table(&table, &mut faults);
        Ok((raw, faults))
    }

    fn checked(raw: raw::RawConfig, mut faults: Vec<String>) -> Result<Self, Faults> {
        let config = raw.check(&mut faults);
        if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
    }

    /// The same for a command that reaches no server: nothing need be there, but what is there must be
    /// readable.
    pub fn load_offline(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        let (raw, faults) = Self::read(file, environment)?;
        // Faults that `check` finds are of sections that only servers need.
        let config = raw.check(&mut Vec::new());
        if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
    }

    /// Whether this process has a role.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The topics that feed `database`.
    pub fn topics_of(&self, database: &str) -> impl Iterator<Item = &TopicConfig> {
        self.topics.iter().filter(move |topic| topic.database == database)
    }

    /// The effective configuration as TOML, secrets redacted.
    #[must_use]
    pub fn to_toml(&self) -> String {
        effective::to_toml(self)
    }

    /// The same as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let table: toml::Table = self.to_toml().parse().unwrap_or_default();
        serde_json::to_value(table).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = r#"
        [kafka]
        brokers = "127.0.0.1:9092"
        [[topics]]
        name = "inosec.agent_logs"
        stream = "agent_logs"
        tenant = { fixed = "11111111-1111-4111-8111-111111111111" }
        [databases.main]
        url = "postgres://inosec:secret@127.0.0.1/inosec"
    "#;

    fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, Faults> {
        let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Config::parse("test", text, environment)
    }

    #[test]
    fn defaults_fill_what_is_left_out() {
        let config = parse(SOUND, &[]).expect("sound");
        assert_eq!(config.kafka.group, "inosec");
        assert_eq!(config.batch.max_age, Duration::from_millis(250));
        assert_eq!(config.topics[0].database, "main");
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let environment = [
            ("INOSEC__KAFKA__GROUP", "other"),
            ("INOSEC__BATCH__MAX_ROWS", "17"),
            ("INOSEC__DATABASES__MAIN__URL", "postgres://x@y/z"),
            ("INOSEC__TOPICS", r#"[{ name = "a", stream = "threat_events", tenant = "payload" }]"#),
        ];
        let config = parse(SOUND, &environment).expect("sound");
        assert_eq!((config.kafka.group.as_str(), config.batch.max_rows), ("other", 17));
        assert_eq!(config.databases["main"].url.expose(), "postgres://x@y/z");
        assert_eq!(config.topics[0].tenant, TenantSource::Payload);
    }

    #[test]
    fn roles_and_correlation_are_read_checked_and_printed() {
        let text = format!(
            "roles = [\"correlate\"]\n{SOUND}\n[correlate]\ngap = \"10m\"\nalert_level = \"low\"\nalerts_topic = \"a\""
        );
        let config = parse(&parse(&text, &[]).expect("sound").to_toml(), &[]).expect("printed");
        assert!(config.has(Role::Correlate) && !config.has(Role::Ingest));
        let correlate = &config.correlate;
        assert_eq!((correlate.gap, correlate.alert_level), (Duration::from_mins(10), Level::Low));
        assert_eq!(correlate.alerts_topic.as_deref(), Some("a"));
        assert_eq!((correlate.keep_changes, correlate.memory), (Duration::from_hours(30 * 24), 256 << 20));
        let faulty = [("INOSEC__ROLES", "[\"corelate\"]"), ("INOSEC__CORRELATE__MAX_GROUPS", "0")];
        let faults = parse(SOUND, &faulty).expect_err("faulty").0;
        assert!(faults.iter().any(|fault| fault.contains("corelate")), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.contains("max_groups")), "{faults:?}");
    }

    #[test]
    fn geoip_databases_by_file_or_environment() {
        let none = parse(SOUND, &[]).expect("sound");
        assert_eq!((none.geo.country, none.geo.asn, none.geo.reload), (None, None, Duration::from_mins(1)));
        let text = format!("{SOUND}\n[geo]\ncountry = \"/var/lib/GeoIP/GeoLite2-Country.mmdb\"");
        let environment = [("INOSEC__GEO__ASN", "asn.mmdb"), ("INOSEC__GEO__RELOAD", "5s")];
        let printed = parse(&text, &environment).expect("sound").to_toml();
        let geo = parse(&printed, &[]).expect("what is printed can be read").geo;
        assert_eq!(geo.country, Some("/var/lib/GeoIP/GeoLite2-Country.mmdb".into()));
        assert_eq!((geo.asn, geo.reload), (Some("asn.mmdb".into()), Duration::from_secs(5)));
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let text = r#"
            surprise = 1
            [kafka]
            brokers = ""
            borkers = "x"
            [[topics]]
            name = "a"
            stream = "agent_logs"
            tenant = "guess"
            [batch]
            max_age = "soon"
            max_rows = 0
            [geo]
            reload = "1ms"
            city = "x"
        "#;
        let faults = parse(text, &[]).expect_err("faulty").0;
        for part in [
            "surprise",
            "brokers",
            "borkers",
            "tenant",
            "max_age",
            "max_rows",
            "databases",
            "geo.reload",
            "city",
        ] {
            assert!(faults.iter().any(|fault| fault.contains(part)), "{part} is not in {faults:#?}");
        }
    }

    #[test]
    fn the_effective_configuration_hides_secrets_and_parses_again() {
        let text = parse(SOUND, &[("INOSEC__KAFKA__SASL_PASSWORD", "hunter2")]).expect("sound").to_toml();
        assert!(!text.contains("secret") && !text.contains("hunter2"), "{text}");
        parse(&text, &[]).expect("what is printed can be read");
    }

    #[test]
    fn rules_come_from_file_and_environment_and_print() {
        let text = format!(
            "{SOUND}\n[rules]\npaths = [\"a b\", \"c\"]\nplaceholders = {{ \"Admins x\" = [\"eve\", \"*\\\\bob\"] }}"
        );
        let config = parse(&text, &[]).expect("sound");
        assert_eq!(config.rules.paths, [PathBuf::from("a b"), PathBuf::from("c")]);
        assert_eq!(config.rules.placeholders["Admins x"], ["eve", "*\\bob"]);
        let again = parse(&config.to_toml(), &[]).expect("what is printed can be read");
        assert_eq!(
            (again.rules.paths, again.rules.placeholders),
            (config.rules.paths, config.rules.placeholders)
        );
        let environment =
            [("INOSEC__RULES__PATHS", "[\"d\"]"), ("INOSEC__RULES__PLACEHOLDERS", "{ N = [\"v\"] }")];
        let config = parse(&text, &environment).expect("sound");
        assert_eq!(config.rules.paths, [PathBuf::from("d")]);
        assert_eq!(config.rules.placeholders["N"], ["v"]);
    }

    #[test]
    fn a_command_without_servers_needs_no_configuration() {
        let config = Config::load_offline(None, []).expect("nothing is missing");
        assert!(config.rules.paths.is_empty() && config.limits.max_depth > 0);
        let typo = [("INOSEC__RULES__PATH".to_owned(), "x".to_owned())];
        let faults = Config::load_offline(None, typo).expect_err("a typo").0;
        assert!(faults.iter().any(|fault| fault.contains("rules.path")), "{faults:?}");
    }

    #[test]
    fn a_secret_can_come_from_a_file() {
        let path = std::env::temp_dir().join(format!("inosec-secret-{}", std::process::id()));
        std::fs::write(&path, "postgres://from/file\n").expect("written");
        let text = SOUND.replace(
            r#"url = "postgres://inosec:secret@127.0.0.1/inosec""#,
            &format!("url_file = {:?}", path.display().to_string()),
        );
        let config = parse(&text, &[]).expect("sound");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(config.databases["main"].url.expose(), "postgres://from/file");
    }
}
