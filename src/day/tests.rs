//! The day as a whole.

use std::collections::BTreeMap;

use super::clock::DAY;
use super::*;

const START: i64 = 1_795_132_800_000_000;

fn day(events: u64) -> Vec<Message> {
    Day::new(&Options::new(7, events, START)).collect()
}

fn quiet(events: u64) -> Vec<Message> {
    let options = Options { intrusion: false, trouble: None, threats: 0, ..Options::new(7, events, START) };
    Day::new(&options).collect()
}

#[test]
fn the_same_seed_gives_the_same_day() {
    assert!(day(3000) == day(3000));
    let other = Options { seed: 8, ..Options::new(7, 3000, START) };
    assert!(day(3000) != Day::new(&other).collect::<Vec<_>>());
}

#[test]
fn the_day_is_in_order_and_as_long_as_announced() {
    let announced = Day::new(&Options::new(7, 3000, START)).len();
    let messages = day(3000);
    assert_eq!((messages.len(), announced), (3000, 3000));
    assert!(messages.is_sorted_by_key(|message| message.at_us));
    let within = START..START + DAY;
    assert!(messages.iter().all(|message| within.contains(&message.at_us)));
}

#[test]
fn what_looks_like_json_is_json() {
    for message in day(6000).iter().filter(|message| message.fate != Fate::DeadLetter) {
        if message.payload.starts_with(b"{") {
            let parsed: Result<serde_json::Value, _> = serde_json::from_slice(&message.payload);
            assert!(parsed.is_ok(), "{parsed:?}: {}", String::from_utf8_lossy(&message.payload));
        } else {
            let line = std::str::from_utf8(&message.payload).expect("lines are text");
            assert!(line.starts_with('<') || line.starts_with("type=") || line.contains(": "), "{line}");
        }
    }
}

#[test]
fn sizes_are_those_of_the_corpus() {
    let mut sizes: Vec<usize> = quiet(20_000).iter().map(|message| message.payload.len()).collect();
    sizes.sort_unstable();
    let mean = sizes.iter().sum::<usize>() / sizes.len();
    let median = sizes[sizes.len() / 2];
    assert!((2000..2800).contains(&mean), "mean {mean}");
    assert!((1600..2100).contains(&median), "median {median}");
}

#[test]
fn sources_write_as_often_as_the_mix_says() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for message in quiet(20_000) {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        let source = [
            ("im_msvistalog", "nxlog"),
            ("winlogbeat", "beats"),
            ("#attributes", "evtx"),
            ("TimeCreated", "wef"),
            ("eventSource", "cloudtrail"),
            ("flow_id", "eve"),
            ("audit(", "auditd"),
        ];
        let found =
            source.iter().find(|(part, _)| text.contains(part)).map_or("syslog", |(_, source)| source);
        *counts.entry(found).or_default() += 1;
    }
    let expected = [
        ("nxlog", 9400),
        ("wef", 7600),
        ("beats", 400),
        ("evtx", 700),
        ("syslog", 500),
        ("auditd", 200),
        ("cloudtrail", 200),
        ("eve", 1000),
    ];
    for (source, expected) in expected {
        let count = counts[source];
        assert!(count.abs_diff(expected) < expected / 5 + 40, "{source}: {count}, not about {expected}");
    }
}

#[test]
fn every_fate_occurs_and_duplicates_repeat_an_earlier_message() {
    let messages = day(20_000);
    let of = |fate: Fate| messages.iter().filter(move |message| message.fate == fate);
    assert!(of(Fate::RowAndThreat).count() > 20);
    assert!(of(Fate::DeadLetter).count() >= 17);
    assert!(of(Fate::Duplicate).count() >= 4);
    for duplicate in of(Fate::Duplicate) {
        let first =
            messages.iter().find(|message| message.payload == duplicate.payload).expect("itself at least");
        assert_eq!(first.fate, Fate::Row);
    }
    assert!(messages.iter().any(|message| message.payload.len() > 1_200_000));
    assert!(messages.iter().any(|message| message.payload.is_empty()));
}

#[test]
fn the_intrusion_is_in_it() {
    let payloads: Vec<String> = day(3000)
        .iter()
        .filter(|message| message.fate != Fate::DeadLetter)
        .map(|message| String::from_utf8_lossy(&message.payload).into_owned())
        .collect();
    for part in
        ["4471.docm", "-enc ", "nltest", r"lsass.exe", "PSEXESVC", "vssadmin delete", "wevtutil cl", "beacon"]
    {
        assert!(payloads.iter().any(|payload| payload.contains(part)), "{part}");
    }
    let cleared = |payload: &String| payload.contains(r#""EventID":1102"#);
    assert_eq!(payloads.iter().filter(|payload| cleared(payload)).count(), 1);
}

#[test]
fn tenants_are_stable_and_the_first_is_the_largest() {
    let day = Day::new(&Options::new(7, 5000, START));
    let tenants: Vec<Tenant> = day.tenants().cloned().collect();
    assert_eq!(tenants[0].name, "Aurora Bank");
    let mut counts = vec![0; tenants.len()];
    for message in day {
        if let Some(at) = tenants.iter().position(|tenant| Some(tenant.id) == message.tenant) {
            counts[at] += 1;
        }
    }
    assert!(counts[0] > counts[1] && counts[1] > counts[2] && counts[2] > 0, "{counts:?}");
}
