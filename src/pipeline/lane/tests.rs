//! A lane's pure work, with the rules of the binary and a few of our own.

use std::net::IpAddr;

use inosec_enrich::geo::{Database, Subject};
use inosec_enrich::{Limiter, Placeholders, RuleFiles, Ruleset};
use inosec_ingest::Limits;
use inosec_schemas::{
    Column, Directory, EventIds, Message, Tenant, TenantId, TenantSource, TenantStatus, Tier,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use super::*;
use crate::config;
use crate::day::{Day, Options};

/// London, in the country databases of the corpus.
const LONDON: &str = "81.2.69.142";
/// The time of arrival of all messages: one minute, so that limits are met.
const ARRIVED_AT: i64 = 1_795_132_800_000_000;
const LIMITS: Limits = Limits { max_age_us: 0, max_skew_us: 0, max_message_bytes: 1 << 20, max_depth: 64 };

/// Fires on any message of Linux that says `m`; what is kept are columns, a field, and neither.
const RULES: &str = "
title: Message
id: message
logsource: {product: linux}
detection: {selection: {message: m}, condition: selection}
---
title: From one place
id: place
correlation:
  type: value_count
  rules: [message]
  group-by: [src_country, src_asn, src_ip, dst_port, host_name, user_name, dst_country, seq]
  timespan: 1h
  condition: {field: user.name, gte: 2}
";

fn tenant(number: u128) -> TenantId {
    TenantId(Uuid::from_u128(number))
}

fn directory() -> Directory {
    let active = Tenant { tier: Tier::Standard, status: TenantStatus::Active };
    let tenants = (1..=3).map(|number| (tenant(number), active)).collect();
    Directory { epoch: 1, tenants }
}

fn messages<'a>(catalog: &Catalog, values: impl IntoIterator<Item = &'a [u8]>) -> Messages {
    let mut messages = Messages::new(Arc::new(Topic {
        cluster: "c".to_owned(),
        name: "t".to_owned(),
        id: None,
        key: 1,
        stream: Arc::clone(&catalog.streams["agent_logs"]),
        tenant: TenantSource::Header,
        event_ids: EventIds::new("c", "t", None),
    }));
    for (offset, value) in (0..).zip(values) {
        let place = Message {
            start: 0,
            end: 0,
            headers: (0, 0),
            partition: 0,
            offset,
            arrived_at: ARRIVED_AT,
            tombstone: false,
        };
        let tenant = tenant(offset as u128 % 3 + 1).to_string();
        messages.push(place, value, &[("inosec-tenant", Some(tenant.as_bytes()))]);
    }
    messages
}

fn detection(catalog: &Catalog, max_per_minute: u32) -> Detection {
    let rules = config::Rules { builtin: true, max_per_minute, ..config::Rules::default() };
    let mut parsed = rules::configured(&rules, &Placeholders::default()).expect("the pack is sound").parsed;
    parsed.add("rules.yml", RULES, &Placeholders::default());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    let (rules, filters, correlations) = (parsed.rules, parsed.filters, parsed.correlations);
    let files = RuleFiles { rules, filters, correlations, ..RuleFiles::default() };
    let ruleset = Ruleset::new(&files, &catalog.classes(), &[], None).expect("rules that go together");
    assert!(ruleset.problems().is_empty(), "{:?}", ruleset.problems());
    let (_, current) = watch::channel(Arc::new(ruleset));
    let limiter = Arc::new(Limiter::new(max_per_minute));
    Detection { catalog: Arc::new(catalog.clone()), current, limiter, memo: 1 << 20 }
}

/// The database of the corpus that knows London.
fn geo() -> Option<Geo> {
    let bytes = geo::tests::corpus("GeoLite2-Country-Test.mmdb")?;
    let country = Database::read(&bytes, Subject::Country).expect("a sound database");
    Some(Geo { country: Some(Arc::new(country)), asn: None })
}

/// What linux says, from London.
fn ecs(more: &Value) -> Vec<u8> {
    let mut event = json!({
        "@timestamp": "2026-11-20T10:00:00Z", "ecs": {"version": "8.11"}, "message": "m",
        "host": {"name": "h", "os": {"type": "linux"}}, "user": {"name": "ann"},
        "source": {"ip": LONDON, "as": {"number": 64512}}, "destination": {"port": 443},
    });
    for (name, value) in more.as_object().expect("an object") {
        event[name] = value.clone();
    }
    event.to_string().into_bytes()
}

fn enriched(catalog: &Catalog, detection: &Detection, messages: Messages, chunk: usize) -> Batch {
    let mut decoder = Decoder::new(catalog, LIMITS);
    let directory = directory();
    let mut stage = detection.stage();
    enrich(decoder.begin(messages, &directory), &geo().unwrap_or_default(), Some(&mut stage), chunk)
}

#[test]
fn the_size_of_chunks_changes_nothing() {
    let catalog = Catalog::embedded().expect("sound descriptions");
    let day = Day::new(&Options::new(7, 3000, ARRIVED_AT)).map(|message| message.payload);
    let mut values: Vec<Vec<u8>> = day.collect();
    values.extend((0..30).map(|_| ecs(&json!({}))));
    // What is done again finds a limiter that knows it.
    let detection = detection(&catalog, 4);
    let whole: usize = values.iter().map(Vec::len).sum();
    let mut first: Option<String> = None;
    for chunk in [usize::MAX, whole / 2, 100_000, 5_000, 1] {
        for fresh in [true, false] {
            let detection = match fresh {
                true => Detection { limiter: Arc::new(Limiter::new(4)), ..detection.clone() },
                false => detection.clone(),
            };
            let messages = messages(&catalog, values.iter().map(Vec::as_slice));
            let sealed = seal(enriched(&catalog, &detection, messages, chunk), 1, &SealOptions::default());
            let Sealed { batch, rows, detections, blocks, counts, hosts, partitions, .. } = sealed;
            let Batch { suppressed, dead, mismatches, .. } = &batch;
            assert!(batch.detections.len() > 40, "{}", batch.detections.len());
            assert!(!suppressed.is_empty() && !dead.is_empty());
            let text = format!(
                "{rows:?}{detections:?}{blocks:?}{counts:?}{hosts:?}{partitions:?}{suppressed:?}{dead:?}{mismatches}"
            );
            assert!(
                *first.get_or_insert_with(|| text.clone()) == text,
                "in chunks of {chunk}: {suppressed:?}"
            );
        }
    }
}

/// The fields that the match of each event of one batch keeps.
fn kept(events: &[Vec<u8>]) -> Vec<Value> {
    let catalog = Catalog::embedded().expect("sound descriptions");
    let messages = messages(&catalog, events.iter().map(Vec::as_slice));
    let batch = enriched(&catalog, &detection(&catalog, 100), messages, usize::MAX);
    assert!(batch.dead.is_empty(), "{:?}", batch.dead);
    let rows = &batch.detections;
    let Column::Json(payloads) = &rows.columns[rows.stream.column("payload").expect("a column")] else {
        panic!("a payload is JSON");
    };
    let payload = |slice: &Option<inosec_schemas::Slice>| -> Value {
        serde_json::from_slice(rows.slice(slice.expect("each has one"))).expect("JSON")
    };
    payloads.iter().map(|slice| payload(slice)["fields"].clone()).collect()
}

#[test]
fn a_match_keeps_columns_that_correlations_group_by() {
    let from = |ip: &str| json!({"source": {"ip": ip}});
    let named =
        json!({"user_name": "its own word", "source": {"ip": LONDON, "geo": {"country_iso_code": "NZ"}}});
    let found = kept(&[ecs(&json!({})), ecs(&from("10.1.2.3")), ecs(&named)]);
    let london: IpAddr = LONDON.parse().expect("an address");
    let known = geo().is_some_and(|geo| geo.country(london).is_some());
    let mut first = json!({
        "message": "m", "src_country": "GB", "src_asn": "64512", "src_ip": LONDON, "dst_port": "443",
        "host_name": "h", "user_name": "ann", "user.name": "ann",
    });
    if !known {
        first.as_object_mut().expect("an object").remove("src_country");
    }
    assert_eq!(found[0], first, "neither what has no value nor what the road fills");
    assert_eq!(found[1].get("src_country"), None, "a private address has no country");
    assert_eq!(found[2]["src_country"], "NZ", "the message's own word");
    assert_eq!(found[2]["user_name"], "its own word", "an event's field comes before the column");
}
