//! The effective configuration, printed.

use std::fmt::Write as _;

use inosec_schemas::TenantSource;

use super::Config;
use super::raw::{HotStoreChoice, LogFormat, Start};
use super::units::{Bytes, Span};

/// The effective configuration as TOML that reads back, secrets as `***`.
pub(super) fn to_toml(config: &Config) -> String {
    let mut text = String::new();
    let roles: Vec<&str> = config.roles.iter().map(|role| role.name()).collect();
    let _ = writeln!(text, "roles = {roles:?}\n");
    let kafka = &config.kafka;
    let start = match kafka.start {
        Start::Earliest => "earliest",
        Start::Latest => "latest",
    };
    let _ = writeln!(text, "[kafka]\nbrokers = {:?}\ngroup = {:?}", kafka.brokers, kafka.group);
    let _ = writeln!(text, "client_id = {:?}", kafka.client_id);
    if let Some(instance) = &kafka.instance_id {
        let _ = writeln!(text, "instance_id = {instance:?}");
    }
    let _ = writeln!(text, "session_timeout = \"{}\"\nstart = \"{start}\"", Span(kafka.session_timeout));
    if !kafka.properties.is_empty() {
        let _ = writeln!(text, "\n[kafka.properties]");
    }
    for (property, value) in &kafka.properties {
        let secret = property.contains("password") || property.contains("secret") || property.contains("pem");
        let shown = if secret { "***" } else { value.expose() };
        let _ = writeln!(text, "{property:?} = {shown:?}");
    }
    for topic in &config.topics {
        let tenant = match topic.tenant {
            TenantSource::Header => "\"header\"".to_owned(),
            TenantSource::Payload => "\"payload\"".to_owned(),
            TenantSource::Fixed(id) => format!("{{ fixed = \"{id}\" }}"),
        };
        let _ = writeln!(text, "\n[[topics]]\nname = {:?}\nstream = {:?}", topic.name, topic.stream);
        let _ = writeln!(text, "tenant = {tenant}\ndatabase = {:?}", topic.database);
    }
    for (name, database) in &config.databases {
        let hot_store = match database.hot_store {
            HotStoreChoice::Auto => "auto",
            HotStoreChoice::Timescaledb => "timescaledb",
            HotStoreChoice::Postgres => "postgres",
        };
        let _ = writeln!(text, "\n[databases.{name}]\nurl = \"***\"");
        if database.admin_url.is_some() {
            let _ = writeln!(text, "admin_url = \"***\"");
        }
        let _ = writeln!(text, "hot_store = \"{hot_store}\"\nwriters = {}", database.writers);
        let _ = writeln!(text, "synchronous_commit = {}", database.synchronous_commit);
        let _ = writeln!(text, "zstd_level = {}", database.zstd_level);
    }
    let bytes = |bytes: usize| Bytes(bytes as u64);
    let batch = &config.batch;
    let _ = writeln!(text, "\n[batch]\nmax_rows = {}", batch.max_rows);
    let _ =
        writeln!(text, "max_bytes = \"{}\"\nmax_age = \"{}\"", bytes(batch.max_bytes), Span(batch.max_age));
    let _ = writeln!(text, "memory = \"{}\"", bytes(batch.memory));
    let time = &config.time;
    let _ = writeln!(
        text,
        "\n[time]\nmax_age = \"{}\"\nmax_skew = \"{}\"",
        Span(time.max_age),
        Span(time.max_skew)
    );
    let limits = &config.limits;
    let _ = writeln!(text, "\n[limits]\nmax_message_bytes = \"{}\"", bytes(limits.max_message_bytes));
    let _ = writeln!(text, "max_depth = {}", limits.max_depth);
    let geo = &config.geo;
    let _ = writeln!(text, "\n[geo]\nreload = \"{}\"", Span(geo.reload));
    for (key, path) in [("country", &geo.country), ("asn", &geo.asn)] {
        if let Some(path) = path {
            let _ = writeln!(text, "{key} = {path:?}");
        }
    }
    let dead = &config.dead_letters;
    let _ = writeln!(text, "\n[dead_letters]\nretention = \"{}\"", Span(dead.retention));
    let _ = writeln!(text, "quota_per_day = \"{}\"", Bytes(dead.quota_per_day));
    rules(config, &mut text);
    let correlate = &config.correlate;
    let level = correlate.alert_level.name();
    let _ = writeln!(
        text,
        "\n[correlate]\nallowed_lateness = \"{}\"\ngap = \"{}\"\nalert_level = {level:?}",
        Span(correlate.allowed_lateness),
        Span(correlate.gap)
    );
    let (groups, entries) = (correlate.max_groups, correlate.max_entries);
    let _ = writeln!(text, "memory = \"{}\"", bytes(correlate.memory));
    let keep = Span(correlate.keep_changes);
    let _ = writeln!(text, "max_groups = {groups}\nmax_entries = {entries}\nkeep_changes = \"{keep}\"");
    if let Some(topic) = &correlate.alerts_topic {
        let _ = writeln!(text, "alerts_topic = {topic:?}");
    }
    if let Some(directory) = &config.schemas {
        let _ = writeln!(text, "\n[schemas]\ndirectory = {directory:?}");
    }
    if let Some(listen) = config.metrics_listen {
        let _ = writeln!(text, "\n[metrics]\nlisten = \"{listen}\"");
    }
    let _ = writeln!(text, "\n[shutdown]\ndrain = \"{}\"", Span(config.drain));
    let format = match config.log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let _ = writeln!(text, "\n[log]\nformat = \"{format}\"\nfilter = {:?}", config.log.filter);
    text
}

/// Values go through the TOML writer: Rust's escapes (`\u{1b}`) are not TOML's, and rules have backslashes.
fn rules(config: &Config, text: &mut String) {
    let list = |paths: &[std::path::PathBuf]| {
        toml::Value::from(paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>())
    };
    let _ = writeln!(
        text,
        "\n[rules]\nbuiltin = {}\npaths = {}",
        config.rules.builtin,
        list(&config.rules.paths)
    );
    let _ = writeln!(text, "optional = {}", list(&config.rules.optional));
    let _ = writeln!(text, "max_per_minute = {}", config.rules.max_per_minute);
    let table: toml::Table = config
        .rules
        .placeholders
        .iter()
        .map(|(name, values)| (name.clone(), values.clone().into()))
        .collect();
    let _ = writeln!(text, "placeholders = {}", toml::Value::Table(table));
}
