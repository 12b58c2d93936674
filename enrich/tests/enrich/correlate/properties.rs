//! Whatever the order, batches, repetition or restart: the episodes are those of the definitions.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use inosec_enrich::Correlator;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;

use super::reference::{Event, Measure, Rule, SECOND, Setting};
use super::support::{self, LOW, Reader};

const LATENESS: i64 = 40;
const SKEW: i64 = 10;

/// Values, some of which are the same when folded, and some no numbers.
fn value() -> impl Strategy<Value = String> {
    select(vec!["1", "2", "3", "2.5", "-1.25", "10", "x", "X", "É", "é", ""]).prop_map(str::to_owned)
}

fn condition(measure: Measure, inputs: usize) -> BoxedStrategy<Vec<(String, f64)>> {
    let some = |operator: &'static str, value: f64| (operator.to_owned(), value);
    let most = match measure {
        Measure::Rules | Measure::Order => inputs as i64,
        _ => 4,
    };
    let bounds_below = prop_oneof![
        6 => (1..=most).prop_map(move |n| vec![some("gte", n as f64)]),
        1 => (1..=most).prop_map(move |n| vec![some("gt", (n - 1) as f64)]),
    ];
    match measure {
        Measure::Average | Measure::Percentile(_) => prop_oneof![
            select(vec![1.0, 2.0, 2.25]).prop_map(move |n| vec![some("gte", n)]),
            select(vec![1.0, 2.0, 2.25]).prop_map(move |n| vec![some("lt", n)]),
            Just(vec![some("gt", 1.0), some("lte", 2.5)]),
        ]
        .boxed(),
        Measure::Sum => prop_oneof![
            4 => select(vec![3.0, 5.5, 12.0]).prop_map(move |n| vec![some("gte", n)]),
            1 => select(vec![3.0, 5.5]).prop_map(move |n| vec![some("lt", n)]),
        ]
        .boxed(),
        _ => prop_oneof![
            3 => bounds_below,
            1 => (1..=most).prop_map(move |n| vec![some("eq", n as f64)]),
            1 => (1..=most).prop_map(move |n| vec![some("lte", n as f64)]),
            1 => (1..=most).prop_map(move |n| vec![some("gte", 1.0), some("lt", n as f64 + 1.0)]),
            1 => Just(vec![some("gte", 1.0), some("neq", 2.0)])
                .prop_filter("must be possible", move |_| most != 2 || inputs > 0),
        ]
        .boxed(),
    }
}

fn measure() -> impl Strategy<Value = Measure> {
    prop_oneof![
        3 => Just(Measure::Count),
        3 => Just(Measure::Distinct),
        3 => Just(Measure::Rules),
        3 => Just(Measure::Order),
        2 => Just(Measure::Sum),
        1 => Just(Measure::Average),
        1 => select(vec![10.0, 50.0, 95.0, 100.0]).prop_map(Measure::Percentile),
    ]
}

/// A rule over detections and the rules before it.
fn rule(number: usize) -> impl Strategy<Value = Rule> {
    let earlier = (0..number).map(|number| format!("r{number}"));
    let inputs: Vec<String> = ["a", "b", "c"].map(str::to_owned).into_iter().chain(earlier).collect();
    let most = inputs.len();
    let inputs = Just(inputs).prop_shuffle();
    (measure(), inputs, 1..=most.min(4), any::<bool>(), select(vec![5i64, 10, 30]), any::<bool>())
        .prop_flat_map(move |(measure, mut inputs, count, aliased, timespan, generate)| {
            let ordered = matches!(measure, Measure::Rules | Measure::Order);
            inputs.truncate(if ordered { count.max(2) } else { count });
            condition(measure, inputs.len()).prop_map(move |condition| {
                let mut names = BTreeMap::new();
                let group = if aliased { "who" } else { "user" };
                for input in inputs.iter().filter(|_| aliased) {
                    // What parents group by is called `user` or `who`; both are set right afterwards.
                    let field = if input == "a" { "user" } else { "account" };
                    names.insert(("who".to_owned(), input.clone()), field.to_owned());
                }
                let numeric = matches!(measure, Measure::Sum | Measure::Average | Measure::Percentile(_));
                Rule {
                    id: format!("r{number}"),
                    measure,
                    inputs: inputs.clone(),
                    group: vec![group.to_owned()],
                    names,
                    value: (numeric || measure == Measure::Distinct).then(|| "n".to_owned()),
                    timespan,
                    condition,
                    generate,
                }
            })
        })
}

/// What a rule takes from its parents must be what they are grouped by.
fn fit(rules: &mut [Rule]) {
    for number in 0..rules.len() {
        let (before, rest) = rules.split_at_mut(number);
        let rule = &mut rest[0];
        for parent in before.iter().filter(|parent| rule.inputs.contains(&parent.id)) {
            let group = parent.group[0].clone();
            if let Some(field) = rule.names.get_mut(&("who".to_owned(), parent.id.clone())) {
                *field = group;
            } else if rule.group[0] != group {
                for input in &rule.inputs {
                    let field = before.iter().find(|other| other.id == *input);
                    let field = field.map_or("user".to_owned(), |other| other.group[0].clone());
                    rule.names.insert(("who".to_owned(), input.clone()), field);
                }
                rule.group[0] = "who".to_owned();
            }
        }
        // Of an episode there is only what it is grouped by: that is measured too.
        if rule.value.is_some() && before.iter().any(|parent| rule.inputs.contains(&parent.id)) {
            for input in rule.inputs.clone() {
                let parent = before.iter().find(|parent| parent.id == input);
                let field = parent.map_or("n".to_owned(), |parent| parent.group[0].clone());
                rule.names.insert(("m".to_owned(), input), field);
            }
            rule.value = Some("m".to_owned());
        }
    }
}

fn event(id: u32, late: i64) -> impl Strategy<Value = Event> {
    let fields = (value(), value(), value());
    let time = prop_oneof![8 => 0..120i64, 1 => Just(10_000)];
    let arrival = prop_oneof![6 => 0..SKEW, 1 => -SKEW..0, 1 => 0..=late];
    (1..3u8, select(vec!["a", "b", "c", "d"]), time, arrival, select(vec![LOW, 4]), fields, 0..4usize)
        .prop_map(move |(tenant, rule, time, delay, severity, (user, account, n), host)| {
            // A clock that is far ahead is none: the event arrives with the others.
            let arrival = if time == 10_000 { delay.abs() * 3 } else { time + delay };
            let fields = [("user", user), ("account", account), ("n", n)];
            Event {
                tenant,
                id,
                rule: rule.to_owned(),
                time,
                arrival,
                severity,
                host: ["h", "H", "i"].get(host).map(|host| (*host).to_owned()),
                fields: fields.map(|(name, value)| (name.to_owned(), value)).into(),
            }
        })
}

/// Few users, so that they meet.
pub fn events(most: usize, late: i64) -> impl Strategy<Value = Vec<Event>> {
    vec(any::<()>(), 1..most)
        .prop_flat_map(move |each| (0..each.len() as u32).map(|id| event(id, late)).collect::<Vec<_>>())
}

pub fn setting(now: i64) -> impl Strategy<Value = Setting> {
    (rule(0), rule(1), rule(2), 0..=3usize).prop_map(move |(one, two, three, count)| {
        let mut rules = vec![one, two, three];
        rules.truncate(count);
        fit(&mut rules);
        Setting { rules, lateness: LATENESS, max_skew: SKEW, gap: 20, alert_severity: 4, now, unit: SECOND }
    })
}

/// Batches of some sizes, until the list is used up.
pub fn batches<'a>(events: &'a [Event], sizes: &[usize]) -> Vec<&'a [Event]> {
    let mut batches = Vec::new();
    let (mut rest, mut sizes) = (events, sizes.iter().cycle());
    while !rest.is_empty() {
        let size = sizes.next().map_or(1, |size| *size).clamp(1, rest.len());
        let (batch, more) = rest.split_at(size);
        batches.push(batch);
        rest = more;
    }
    batches
}

/// Thousands of cases, far more with `INOSEC_SOAK=full`. The seed is shown with what fails, and given back as
/// `INOSEC_SEED`.
pub fn config() -> ProptestConfig {
    let variable = |name: &str| std::env::var(name).ok();
    let soak = variable("INOSEC_SOAK").is_some_and(|value| value == "full");
    let given = variable("INOSEC_SEED").and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| std::hash::RandomState::new().hash_one("seed"));
    let cases = if soak { 200_000 } else { 3_000 };
    eprintln!("{cases} cases, INOSEC_SEED={seed}");
    let rng_seed = RngSeed::Fixed(seed);
    ProptestConfig { cases, rng_seed, max_shrink_iters: 4_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Everything arrives within the horizon; the clock moves now and then; anything is repeated; at some
    /// point the correlator is lost and rebuilt from what it had been given.
    #[test]
    fn same_events_same_episodes(
        (shuffled, sizes, repeats, crash) in events(40, 200).prop_flat_map(|events| {
            let sizes = vec(1..8usize, 1..4);
            let repeats = vec(0..events.len(), 0..10);
            (Just(events).prop_shuffle(), sizes, repeats, 0..40usize)
        }),
        mut setting in setting(0),
        clocks in vec(-400i64..100, 0..4),
        calm in any::<bool>(),
    ) {
        // The first events are not to be beyond the horizon before the last are in.
        setting.now = 130;
        let oldest = if calm { 20 + setting.deepest() } else { 20 };
        setting.now = setting.now.min(130 - oldest - setting.cutoff().div_euclid(SECOND));
        let mut given = shuffled.clone();
        given.extend(repeats.iter().map(|repeat| shuffled[*repeat].clone()));
        let rules = support::correlations(&setting.rules);
        let mut correlator = Correlator::new(Arc::clone(&rules), support::options(&setting));
        // What the horizon passes is no change that is told.
        let forgetting = setting.cutoff() / SECOND + SKEW + setting.deepest() > -SKEW;
        let mut reader = Reader { forgetting, ..Reader::default() };
        let mut done = Vec::new();
        let mut clocks = clocks.into_iter();
        for (number, batch) in batches(&given, &sizes).into_iter().enumerate() {
            if number == crash {
                correlator = Correlator::rebuild(
                    Arc::clone(&rules),
                    support::options(&setting),
                    &support::threat_events(&done),
                    (setting.now - 200) * SECOND,
                );
                reader = Reader { forgetting, ..Reader::of(&correlator) };
            }
            reader.read(&correlator.insert(&support::threat_events(batch)));
            if let Some(clock) = clocks.next() {
                reader.read(&correlator.advance((setting.now + clock.min(0)) * SECOND));
            }
            done.extend(batch.iter().cloned());
        }
        reader.read(&correlator.advance(setting.now * SECOND));
        let right = setting.episodes(&shuffled);
        prop_assert_eq!(&support::episodes(&correlator), &right);
        let rebuilt = Correlator::rebuild(
            Arc::clone(&rules),
            support::options(&setting),
            &support::threat_events(&shuffled),
            setting.now * SECOND,
        );
        prop_assert_eq!(support::episodes(&rebuilt), right);
        if !forgetting {
            reader.agrees(&correlator);
        }
    }

    /// Time goes on: events come in the order of their arrival, the clock follows, and what the horizon
    /// passes is forgotten. At each moment the state is that of a correlator rebuilt from what is left.
    #[test]
    fn the_horizon_passes(
        events in events(60, 60),
        mut setting in setting(0),
        steps in vec(1..60i64, 1..12),
        backwards in any::<bool>(),
    ) {
        let mut events = events;
        events.iter_mut().for_each(|event| event.arrival *= 4);
        events.iter_mut().for_each(|event| event.time *= 4);
        events.sort_by_key(|event| event.arrival);
        let mut correlator = support::correlator(&setting);
        let mut now = -50;
        let mut at = 0;
        for step in steps {
            now += step;
            let next = events.partition_point(|event| event.arrival < now).max(at);
            let mut batch = events[at..next].to_vec();
            if backwards {
                batch.reverse();
            }
            correlator.insert(&support::threat_events(&batch));
            correlator.advance(now * SECOND);
            (at, setting.now) = (next, now);
            prop_assert_eq!(support::episodes(&correlator), setting.episodes(&events[..at]), "at {}", now);
        }
    }

    /// Time goes on, and at some moment a standby takes over: rebuilt from events beyond the horizon too, in
    /// whatever order and by a clock that is behind, it is then given what comes, and some of what it had.
    /// From there on it holds what one that never crashed holds.
    #[test]
    fn a_standby_takes_over(
        events in events(60, 60),
        mut setting in setting(0),
        steps in vec(1..60i64, 2..12),
        crash in 0..8usize,
        older in 0..200i64,
        behind in 0..100i64,
        again in vec(any::<prop::sample::Index>(), 0..10),
        sizes in vec(1..8usize, 1..4),
        backwards in any::<bool>(),
    ) {
        let mut events = events;
        events.iter_mut().for_each(|event| event.arrival *= 4);
        events.iter_mut().for_each(|event| event.time *= 4);
        events.sort_by_key(|event| event.arrival);
        let rules = support::correlations(&setting.rules);
        let mut never_crashed = Correlator::new(Arc::clone(&rules), support::options(&setting));
        let mut standby = None;
        let (mut now, mut at) = (-50, 0);
        let crash = crash % (steps.len() - 1);
        for (number, step) in steps.into_iter().enumerate() {
            now += step;
            let next = events.partition_point(|event| event.arrival < now).max(at);
            let mut batch = events[at..next].to_vec();
            never_crashed.insert(&support::threat_events(&batch));
            never_crashed.advance(now * SECOND);
            if let Some(standby) = &mut standby {
                let standby: &mut Correlator = standby;
                batch.extend(again.iter().filter(|_| next > 0).map(|again| events[again.index(next)].clone()));
                for batch in batches(&batch, &sizes) {
                    standby.insert(&support::threat_events(batch));
                }
                standby.advance(now * SECOND);
            } else if number == crash {
                let since = never_crashed.cutoff() - older * SECOND;
                let mut stored: Vec<Event> = events[..next].to_vec();
                stored.retain(|event| event.arrival * SECOND >= since);
                if backwards {
                    stored.reverse();
                }
                let stored = support::threat_events(&stored);
                let clock = (now - behind) * SECOND;
                let mut rebuilt = Correlator::rebuild(Arc::clone(&rules), support::options(&setting), &stored, clock);
                rebuilt.advance(now * SECOND);
                standby = Some(rebuilt);
            }
            (at, setting.now) = (next, now);
            let right = setting.episodes(&events[..at]);
            prop_assert_eq!(support::episodes(&never_crashed), right.clone(), "at {}", now);
            if let Some(standby) = &standby {
                prop_assert_eq!(support::episodes(standby), right, "after the crash, at {}", now);
                prop_assert_eq!(standby.size(), never_crashed.size(), "nothing else is kept, at {}", now);
            }
        }
    }
}

/// What the generators make is worth testing: every kind of rule finds something.
#[test]
fn the_cases_are_not_empty() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let strategy = (setting(130), events(40, 60));
    let mut kinds = BTreeSet::new();
    let mut chained = 0;
    for _ in 0..400 {
        let (setting, events) = strategy.new_tree(&mut runner).unwrap().current();
        for (_, id, _, _, _, members) in setting.episodes(&events) {
            if let Some(rule) = setting.rules.iter().find(|rule| rule.id == id) {
                let decided =
                    rule.condition.iter().any(|(operator, _)| operator != "gte" && operator != "gt");
                kinds.insert((format!("{:?}", rule.measure), decided));
                let of_parents = rule.inputs.iter().any(|input| input.starts_with('r'));
                chained += usize::from(of_parents && members.len() > 2);
            }
        }
    }
    assert!(kinds.len() >= 13, "{kinds:?}");
    assert!(chained > 5, "{chained}");
}
