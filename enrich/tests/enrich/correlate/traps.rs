//! What trips engines that count in the order of arrival (each measured on another), with the right answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use inosec_enrich::Correlator;
use inosec_enrich::correlate::{ChangeKind, Options};

use super::reference::{Event, Measure, Rule, SECOND, Setting};
use super::support::{self, LOW, Reader};

const NOW: i64 = 1_000_000;
const YEAR: i64 = 31_556_952;

fn rule(measure: Measure, inputs: &[&str], least: f64) -> Rule {
    Rule {
        id: "r".to_owned(),
        measure,
        inputs: inputs.iter().map(|input| (*input).to_owned()).collect(),
        group: vec!["user".to_owned()],
        names: BTreeMap::new(),
        value: None,
        timespan: 300,
        condition: vec![("gte".to_owned(), least)],
        generate: false,
    }
}

fn setting(rule: Rule) -> Setting {
    let rules = vec![rule];
    Setting { rules, lateness: 3_600, max_skew: 600, gap: 3_600, alert_severity: 4, now: NOW, unit: SECOND }
}

fn at_least(count: f64) -> Setting {
    setting(rule(Measure::Count, &["a"], count))
}

/// An event of a user; it arrives at `NOW` whatever its time, which is counted from there.
fn event(tenant: u8, id: u32, rule: &str, user: &str, time: i64) -> Event {
    Event {
        tenant,
        id,
        rule: rule.to_owned(),
        time: NOW + time,
        arrival: NOW,
        severity: LOW,
        host: None,
        fields: BTreeMap::from([("user".to_owned(), user.to_owned())]),
    }
}

/// Given one by one: the episodes, which are the definition's too, as members.
fn members(setting: &Setting, events: &[Event]) -> Vec<Vec<u32>> {
    let mut correlator = support::correlator(setting);
    let mut reader = Reader::default();
    for event in events {
        reader.read(&correlator.insert(&support::threat_events(std::slice::from_ref(event))));
    }
    reader.agrees(&correlator);
    let found = support::episodes(&correlator);
    assert_eq!(found, setting.episodes(events));
    found.into_iter().map(|(.., members)| members).collect()
}

fn of_a(times: &[i64]) -> Vec<Event> {
    (0..).zip(times).map(|(id, time)| event(1, id, "a", "u", *time)).collect()
}

#[test]
fn a_late_event_does_not_complete_what_is_an_hour_later() {
    assert_eq!(members(&at_least(3.0), &of_a(&[-10, -3610, 0])), [[0u32; 0]; 0]);
    assert_eq!(members(&at_least(3.0), &of_a(&[-1, 0, -3600])), [[0u32; 0]; 0]);
}

#[test]
fn an_early_event_does_not_hide_the_others() {
    // The clock of one agent is an hour ahead, which is no skew: it counts when it arrives.
    assert_eq!(members(&at_least(3.0), &of_a(&[-20, -10, 3600, 0])), [[0, 1, 2, 3]]);
    // Well within skew it counts when it says.
    assert_eq!(members(&at_least(3.0), &of_a(&[-20, -10, 590, 0])), [[0, 1, 3]]);
}

#[test]
fn a_late_event_completes_its_own_window() {
    assert_eq!(members(&at_least(3.0), &of_a(&[-3600, -3590, 0, -3580])), [[0, 1, 3]]);
}

#[test]
fn a_pair_whose_second_arrives_first_is_in_order() {
    let setting = setting(rule(Measure::Order, &["a", "b"], 2.0));
    let (first, second) = (event(1, 1, "a", "u", -60), event(1, 2, "b", "u", -30));
    assert_eq!(members(&setting, &[second.clone(), first.clone()]), [[1, 2]]);
    let swapped = [Event { time: NOW, ..first }, second];
    assert_eq!(members(&setting, &swapped), [[0u32; 0]; 0]);
}

#[test]
fn an_old_attack_that_arrives_now_makes_its_chain() {
    let failures = rule(Measure::Count, &["a"], 3.0);
    let success = Rule { id: "s".to_owned(), generate: false, ..rule(Measure::Order, &["r", "b"], 2.0) };
    let mut setting = Setting { rules: vec![failures, success], ..at_least(1.0) };
    let month = 30 * 86_400;
    let mut events = of_a(&[-month, 10 - month, 20 - month]);
    events.push(event(1, 3, "b", "u", 30 - month));
    let mut correlator = support::correlator(&setting);
    correlator.advance(NOW * SECOND);
    let opened = correlator.insert(&support::threat_events(&events));
    assert_eq!(opened.iter().map(|change| change.summary.count).collect::<Vec<_>>(), [4]);
    // Until it has been there for as long as anything counts.
    setting.now = NOW + 2 * 3_600;
    correlator.advance(setting.now * SECOND);
    assert_eq!(support::episodes(&correlator), setting.episodes(&events));
    assert_eq!(correlator.episodes().len(), 1);
    let settled = correlator.advance((NOW + 9 * 3_600) * SECOND);
    assert_eq!(settled.iter().map(|change| change.kind).collect::<Vec<_>>(), [ChangeKind::Settled]);
}

#[test]
fn a_clock_of_the_far_future_expires_nothing() {
    let setting = at_least(5.0);
    let mut correlator = support::correlator(&setting);
    let user = |number: u32| format!("user {number}");
    for round in 0..5 {
        let of_round =
            |number| event(1, round * 999 + number, "a", &user(number), i64::from(round) * 10 - 50);
        if round == 4 {
            let poison: Vec<Event> =
                (0..2).map(|id| event(1, 10_000 + id, "a", "poison", 10 * YEAR)).collect();
            correlator.insert(&support::threat_events(&poison));
            correlator.advance((NOW + 1) * SECOND);
        }
        let events: Vec<Event> = (0..999).map(of_round).collect();
        correlator.insert(&support::threat_events(&events));
    }
    assert_eq!(correlator.episodes().len(), 999);
    assert_eq!(correlator.dropped().future, 2);
}

#[test]
fn a_flood_of_one_tenant_leaves_others_alone() {
    let setting = at_least(5.0);
    let options = Options { max_groups: 1_000, max_entries: 10_000, ..support::options(&setting) };
    let mut correlator = Correlator::new(support::correlations(&setting.rules), options);
    let of_b = |id: u32| event(2, id, "a", "victim", i64::from(id));
    let four: Vec<Event> = (0..4).map(of_b).collect();
    correlator.insert(&support::threat_events(&four));
    for batch in 0..11u32 {
        let one = |number: u32| event(1, batch * 1_000 + number, "a", &format!("{batch} {number}"), 0);
        let flood: Vec<Event> = (0..1_000).map(one).collect();
        correlator.insert(&support::threat_events(&flood));
    }
    let changes = correlator.insert(&support::threat_events(&[of_b(4)]));
    assert_eq!(changes.iter().map(|change| change.kind).collect::<Vec<_>>(), [ChangeKind::Opened]);
    let evicted = &correlator.dropped().evicted;
    assert_eq!(evicted.keys().copied().collect::<Vec<_>>(), [support::tenant(1)]);
    assert!(evicted[&support::tenant(1)].groups >= 10_000);
    assert!(correlator.size().0 <= 1_001, "{:?}", correlator.size());
}

#[test]
fn what_a_tenant_did_last_survives_its_own_flood() {
    let setting = at_least(3.0);
    let options = Options { max_groups: 100, max_entries: 1_000, ..support::options(&setting) };
    let mut correlator = Correlator::new(support::correlations(&setting.rules), options);
    // One group alone is beyond the limit: its older half goes, the rest goes on.
    let many: Vec<Event> = (0..3_000)
        .map(|id| Event { arrival: NOW + i64::from(id), ..event(1, id, "a", "u", i64::from(id)) })
        .collect();
    correlator.insert(&support::threat_events(&many[..2_999]));
    let (_, entries) = correlator.size();
    assert!((400..=1_500).contains(&entries), "{entries}");
    let changes = correlator.insert(&support::threat_events(&many[2_999..]));
    assert_eq!(changes.iter().map(|change| change.kind).collect::<Vec<_>>(), [ChangeKind::Grown]);
}

#[test]
fn what_all_tenants_hold_is_bounded_and_the_largest_give_way() {
    let setting = at_least(5.0);
    // Room for about a thousand events in groups of one.
    let options = Options { max_bytes: 300_000, ..support::options(&setting) };
    let mut correlator = Correlator::new(support::correlations(&setting.rules), options);
    let of = |tenant: u8, ids: std::ops::Range<u32>| -> Vec<Event> {
        ids.map(|id| event(tenant, id, "a", &format!("u{id}"), 0)).collect()
    };
    let quiet = |id: u32| event(9, id, "a", "victim", i64::from(id));
    correlator.insert(&support::threat_events(&(0..4).map(quiet).collect::<Vec<_>>()));
    for batch in 0..20 {
        for tenant in 1..5 {
            correlator.insert(&support::threat_events(&of(tenant, batch * 100..batch * 100 + 100)));
        }
    }
    let (groups, entries) = correlator.size();
    assert!((600..=1_050).contains(&entries) && groups == entries - 3, "{groups} {entries}");
    assert_eq!(correlator.insert(&support::threat_events(&[quiet(4)])).len(), 1, "the quiet one fires");
    let evicted: Vec<_> = correlator.dropped().evicted.keys().copied().collect();
    assert!(evicted.len() == 4 && !evicted.contains(&support::tenant(9)), "{evicted:?}");
}

/// How many groups and events are left of what came in batches of a hundred.
fn left_of(setting: &Setting, max_bytes: usize, events: &[Event]) -> (usize, usize) {
    let options = Options { max_bytes, ..support::options(setting) };
    let mut correlator = Correlator::new(support::correlations(&setting.rules), options);
    for batch in events.chunks(100) {
        correlator.insert(&support::threat_events(batch));
    }
    correlator.size()
}

#[test]
fn long_values_count_for_what_all_tenants_hold() {
    let long = |id: u32| format!("{id} {}", "x".repeat(1_000));
    let groups: Vec<Event> = (0..3_000).map(|id| event(1, id, "a", &long(id), 0)).collect();
    let (left, _) = left_of(&at_least(5.0), 1_000_000, &groups);
    assert!((600..=1_000).contains(&left), "{left}");
    // Of one group's many values the latest stay.
    let mut counted = rule(Measure::Distinct, &["a"], 1e6);
    counted.value = Some("n".to_owned());
    let with_value = |id: u32| {
        let mut event = Event { arrival: NOW + i64::from(id), ..event(1, id, "a", "u", i64::from(id)) };
        event.fields.insert("n".to_owned(), long(id));
        event
    };
    let values: Vec<Event> = (0..3_000).map(with_value).collect();
    let (groups, left) = left_of(&setting(counted), 1_000_000, &values);
    assert!(groups == 1 && (300..=1_000).contains(&left), "{left}");
}

#[test]
fn alerts_count_for_what_all_tenants_hold() {
    let alone =
        |id: u32| Event { severity: 4, host: Some(format!("ws{id}")), ..event(1, id, "other", "u", 0) };
    let events: Vec<Event> = (0..3_000).map(alone).collect();
    let (left, _) = left_of(&at_least(5.0), 1_000_000, &events);
    assert!((200..=350).contains(&left), "{left}");
}

#[test]
fn one_event_redelivered_three_times_is_one() {
    let one = event(1, 7, "a", "u", 0);
    let setting = at_least(3.0);
    assert_eq!(members(&setting, &[one.clone(), one.clone(), one.clone(), one.clone()]), [[0u32; 0]; 0]);
    let mut correlator = support::correlator(&setting);
    assert_eq!(correlator.insert(&support::threat_events(&vec![one; 4])), []);
}

#[test]
fn ten_events_are_one_alert() {
    let events = of_a(&[-90, -80, -70, -60, -50, -40, -30, -20, -10, 0]);
    assert_eq!(members(&at_least(3.0), &events), [(0..10).collect::<Vec<u32>>()]);
    let mut correlator = support::correlator(&at_least(3.0));
    let mut kinds = Vec::new();
    for event in &events {
        let changes = correlator.insert(&support::threat_events(std::slice::from_ref(event)));
        kinds.extend(changes.iter().map(|change| (change.kind, change.added.len(), change.number)));
    }
    let grown = std::iter::repeat_n((ChangeKind::Grown, 1, 1), 7);
    assert_eq!(kinds, std::iter::once((ChangeKind::Opened, 3, 1)).chain(grown).collect::<Vec<_>>());
}

#[test]
fn killed_mid_count_it_goes_on() {
    let setting = at_least(5.0);
    let events = of_a(&[-40, -30, -20, -10, 0]);
    let rules = support::correlations(&setting.rules);
    let stored = support::threat_events(&events[..4]);
    let mut correlator =
        Correlator::rebuild(Arc::clone(&rules), support::options(&setting), &stored, NOW * SECOND);
    let changes = correlator.insert(&support::threat_events(&events));
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].kind, ChangeKind::Opened);
    assert_eq!(support::episodes(&correlator), setting.episodes(&events));
}

#[test]
fn a_late_event_bridges_two_episodes_and_the_older_survives() {
    let mut correlator = support::correlator(&at_least(2.0));
    let events = of_a(&[-550, -540, -20, -10, -260]);
    let changes = correlator.insert(&support::threat_events(&events[..4]));
    let numbers: Vec<u64> = changes.iter().map(|change| change.number).collect();
    let [merged] = &correlator.insert(&support::threat_events(&events[4..]))[..] else { panic!() };
    assert_eq!(
        (merged.kind, merged.number, &merged.absorbed[..]),
        (ChangeKind::Merged, numbers[0], &numbers[1..])
    );
    assert_eq!(merged.added, [support::id(4)]);
    assert_eq!(merged.summary.count, 5);
}

#[test]
fn absence_waits_for_the_end_and_what_is_late_within_reason() {
    let mut rule = rule(Measure::Count, &["a"], 0.0);
    rule.condition = vec![("lt".to_owned(), 3.0)];
    let mut setting = setting(rule);
    let start = NOW.div_euclid(300) * 300 - NOW;
    let mut correlator = support::correlator(&setting);
    assert_eq!(correlator.insert(&support::threat_events(&of_a(&[start, start + 10]))), []);
    let decision = NOW + start + 300 + 3_600;
    assert_eq!(correlator.advance((decision - 1) * SECOND), []);
    let mut late = of_a(&[start, start + 10, start + 20]);
    late[2].arrival = decision - 1;
    correlator.insert(&support::threat_events(&late));
    assert_eq!(correlator.advance(decision * SECOND), []);
    setting.now = decision;
    // One that comes after the decision doesn't undo the next one that is made alike.
    let mut too_late = of_a(&[start, start + 10, start + 20]);
    too_late[2].arrival = decision;
    let rebuilt = Correlator::rebuild(
        support::correlations(&setting.rules),
        support::options(&setting),
        &support::threat_events(&too_late),
        decision * SECOND,
    );
    assert_eq!(support::episodes(&rebuilt).len(), 1);
    assert_eq!(support::episodes(&rebuilt), setting.episodes(&too_late));
    assert_eq!(support::episodes(&correlator), setting.episodes(&late));
    assert_eq!(support::episodes(&correlator), BTreeSet::new());
}

#[test]
fn a_long_attack_and_then_success() {
    // The failures go on for hours; their episode lasts until then, so what follows it closely counts.
    let failures = rule(Measure::Count, &["a"], 5.0);
    let success = Rule { id: "s".to_owned(), generate: true, ..rule(Measure::Order, &["r", "b"], 2.0) };
    let setting = Setting { rules: vec![failures, success], ..at_least(1.0) };
    let mut events = of_a(&(0..100).map(|number| number * 60 - 6_000).collect::<Vec<_>>());
    events.push(event(1, 200, "b", "u", -5_990));
    assert_eq!(members(&setting, &events).len(), 1, "two failures are no attack yet");
    events.push(event(1, 201, "b", "u", 100));
    let found = members(&setting, &events);
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].len(), 101);
}
