//! `inosec check`: would `inosec run` find what it needs?

use std::path::Path;

use inosec_enrich::geo::Subject;
use serde_json::{Value, json};

use super::{Failure, Output, chain};
use crate::config::{Config, Role};
use crate::{databases, pipeline, rules};

/// Exit statuses, part of the outside contract.
const FAULTY: u8 = 2;
const KAFKA: u8 = 3;
const DATABASE: u8 = 4;
const NOT_MIGRATED: u8 = 5;
const GEO: u8 = 6;

/// What was looked at, and what was found: a line, or an exit status and what to do.
type Finding = (String, Result<String, (u8, String)>);

/// Checks everything and reports everything; the first failure decides the exit status.
pub async fn check(config: &Config, output: &Output) -> Result<(), Failure> {
    let mut findings: Vec<Finding> = Vec::new();
    findings.push(("configuration".to_owned(), configuration(config)));
    findings.push(("kafka".to_owned(), kafka(config)));
    for name in config.databases.keys() {
        findings.push((format!("database {name}"), database(config, name).await));
    }
    if !config.rules.is_empty() {
        findings.push(("rules".to_owned(), detection_rules(config)));
    }
    for (subject, path) in [(Subject::Country, &config.geo.country), (Subject::Asn, &config.geo.asn)] {
        if let Some(path) = path {
            findings.push((format!("geo {}", subject.name()), geo(subject, path).await));
        }
    }
    let status = findings.iter().find_map(|(_, found)| found.as_ref().err().map(|(status, _)| *status));
    let line = |(what, found): &Finding| match found {
        Ok(text) => format!("ok    {what}: {text}"),
        Err((_, text)) => format!("FAIL  {what}: {text}"),
    };
    let document = |(what, found): &Finding| match found {
        Ok(text) => json!({ "what": what, "ok": true, "text": text }),
        Err((_, text)) => json!({ "what": what, "ok": false, "text": text }),
    };
    let text: Vec<String> = findings.iter().map(line).collect();
    if let Some(status) = status {
        return Err(Failure { status, text: format!("not everything is ready:\n{}", text.join("\n")) });
    }
    output.text_or_json(&text.join("\n"), || Value::Array(findings.iter().map(document).collect()))
}

fn configuration(config: &Config) -> Result<String, (u8, String)> {
    let catalog = databases::catalog(config).map_err(|error| (FAULTY, chain(&error)))?;
    for topic in &config.topics {
        if !catalog.streams.contains_key(&topic.stream) {
            let known: Vec<&str> = catalog.streams.keys().map(String::as_str).collect();
            let text =
                format!("topic {} feeds stream {}: known are {}", topic.name, topic.stream, known.join(", "));
            return Err((FAULTY, text));
        }
    }
    Ok(format!("{} topics, {} databases", config.topics.len(), config.databases.len()))
}

fn kafka(config: &Config) -> Result<String, (u8, String)> {
    let described = pipeline::describe(config).map_err(|error| (KAFKA, chain(&error)))?;
    let partitions: usize = described.topics.iter().map(|topic| topic.partitions).sum();
    Ok(format!("cluster {}, {} topics, {partitions} partitions", described.id, described.topics.len()))
}

async fn database(config: &Config, name: &str) -> Result<String, (u8, String)> {
    let settings = databases::store_config(config, &config.databases[name]);
    let connected = async {
        let store = inosec_sink::Store::connect(&settings).await?;
        if config.has(Role::Correlate) {
            store.feed().await?;
        }
        Ok(store)
    };
    match connected.await {
        Ok(store) => Ok(format!("{}, {} tenants", store.hot().name(), store.directory().tenants.len())),
        Err(error @ inosec_sink::Error::NotMigrated { .. }) => Err((NOT_MIGRATED, chain(&error))),
        Err(error) => Err((DATABASE, chain(&error))),
    }
}

/// A bad rule is left out and keeps nobody from starting.
fn detection_rules(config: &Config) -> Result<String, (u8, String)> {
    let configured = rules::configured(&config.rules, &rules::placeholders(&config.rules));
    let parsed = configured.map_err(|error| (FAULTY, chain(&error)))?.parsed;
    let left_out = parsed.problems.len();
    let filters = parsed.filters.len();
    Ok(format!(
        "{} rules, {filters} filters, {left_out} left out (`inosec rules check` says why)",
        parsed.rules.len()
    ))
}

async fn geo(subject: Subject, path: &Path) -> Result<String, (u8, String)> {
    let database = pipeline::geo::load(subject, path).await.map_err(|error| (GEO, chain(&error)))?;
    let built = i64::try_from(database.built()).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
    let built = built.map_or_else(|| "an unknown day".to_owned(), |at| at.strftime("%F").to_string());
    Ok(format!("{}, built {built}, {} ranges of addresses", database.kind(), database.ranges()))
}
