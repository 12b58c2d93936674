//! Correlation rules as they are written: what is read, what is refused and with which words.

use inosec_enrich::correlate::{Kind, Operator};
use inosec_enrich::{Correlations, Parsed, Problem};

use super::support::{detection, parse};

const SECOND: i64 = 1_000_000;

fn correlation(id: &str, section: &str) -> String {
    let section: String = section.lines().map(|line| format!("  {line}\n")).collect();
    format!("title: Correlation {id}\nid: {id}\nname: name_of_{id}\ncorrelation:\n{section}---\n")
}

fn file(correlations: &[(&str, &str)]) -> Parsed {
    let mut text = ["a", "b"].map(detection).concat();
    for (id, section) in correlations {
        text += &correlation(id, section);
    }
    parse(&text)
}

fn resolved(correlations: &[(&str, &str)]) -> (Correlations, Vec<Problem>) {
    let parsed = file(correlations);
    assert_eq!(parsed.problems, []);
    Correlations::new(&parsed.correlations, &parsed.rules)
}

#[test]
fn a_correlation_is_read() {
    let section = "type: value_percentile\nrules: [a, name_of_b]\ngroup-by: [user, host]\ntimespan: 90m\n\
                   condition: {field: bytes, percentile: 99.5, gt: 1.5, lte: 20}\ngenerate: true";
    let parsed = file(&[("c", section)]);
    let [rule] = parsed.correlations.as_slice() else { panic!("{:?}", parsed.problems) };
    assert_eq!(rule.kind, Kind::ValuePercentile(99_500_000));
    assert_eq!(rule.rules, ["a", "name_of_b"]);
    assert_eq!(rule.group_by, ["user", "host"]);
    assert_eq!(rule.timespan, 5_400 * SECOND);
    assert_eq!(rule.values, ["bytes"]);
    assert_eq!(rule.condition.0, [(Operator::Gt, 1_500_000), (Operator::Lte, 20_000_000)]);
    assert!(rule.generate && !rule.is_monotone());
    assert_eq!(rule.origin, ("rules/c.yml".to_owned(), 17));
    for (timespan, seconds) in [("5s", 5), ("2h", 7_200), ("1d", 86_400), ("1w", 604_800), ("1M", 2_629_746)]
    {
        let section = format!("type: temporal\nrules: [a, b]\ntimespan: {timespan}");
        assert_eq!(file(&[("c", &section)]).correlations[0].timespan, seconds * SECOND);
    }
}

#[test]
fn what_is_wrong_is_said() {
    let count = "type: event_count\nrules: [a]\ntimespan: 5m\n";
    let cases: [(&str, usize, &str); 24] = [
        ("type: count\nrules: [a]", 1, "the type is event_count"),
        ("type: event_count", 0, "add `rules:`"),
        ("type: temporal\nrules: [a]\ntimespan: 5m", 2, "two rules or more"),
        ("type: temporal\nrules: [a, a]\ntimespan: 5m", 2, "`a` twice"),
        ("type: event_count\nrules: [a]\ncondition: {gte: 1}", 0, "there is no timespan"),
        ("type: event_count\nrules: [a]\ntimespan: 5\ncondition: {gte: 1}", 3, "such as `90m`"),
        ("type: event_count\nrules: [a]\ntimespan: 0s\ncondition: {gte: 1}", 3, "above zero"),
        ("type: event_count\nrules: [a]\ntimespan: 2y\ncondition: {gte: 1}", 3, "longer than a year"),
        ("type: event_count\nrules: [a]\ntimeframe: 5m", 3, "`timeframe` is no part"),
        (count, 0, "there is no condition"),
        ("type: event_count\nrules: [a]\ntimespan: 5m\ncondition: a and b", 4, "chain correlations"),
        ("type: event_count\nrules: [a]\ntimespan: 5m\ncondition: {}", 4, "compares nothing"),
        ("type: event_count\nrules: [a]\ntimespan: 5m\ncondition: {ge: 1}", 4, "`ge` is no comparison"),
        ("type: event_count\nrules: [a]\ntimespan: 5m\ncondition: {gte: x}", 4, "takes a number"),
        ("type: event_count\nrules: [a]\ntimespan: 5m\ncondition: {gte: 1.5}", 4, "whole number"),
        ("type: event_count\nrules: [a]\ntimespan: 5m\ncondition: {gte: 0}", 4, "nothing at all"),
        ("type: event_count\nrules: [a]\ntimespan: 5m\ncondition: {gte: 9, lt: 5}", 4, "no count from 1"),
        ("type: event_count\nrules: [a]\ntimespan: 5m\ncondition: {gte: 10000000}", 4, "no count from 1"),
        ("type: temporal\nrules: [a, b]\ntimespan: 5m\ncondition: {gte: 3}", 4, "no count from 1 to 2"),
        ("type: value_count\nrules: [a]\ntimespan: 5m\ncondition: {gte: 3}", 4, "needs a field"),
        ("type: event_count\nrules: [a]\ntimespan: 5m\ncondition: {gte: 3, field: f}", 4, "no field"),
        (
            "type: value_percentile\nrules: [a]\ntimespan: 5m\ncondition: {gte: 3, field: f}",
            4,
            "`percentile: 95`",
        ),
        (
            "type: value_percentile\nrules: [a]\ntimespan: 5m\ncondition: {gte: 3, field: f, percentile: 101}",
            4,
            "at most 100",
        ),
        ("type: temporal\nrules: [a, b]\ntimespan: 5m\naliases: [x]", 4, "aliases are a mapping"),
    ];
    for (section, line, message) in cases {
        let parsed = file(&[("c", section)]);
        let [problem] = parsed.problems.as_slice() else { panic!("{section}: {:?}", parsed.problems) };
        assert!(problem.message.contains(message), "{section}: {problem}");
        // The document begins at line 17, the section's content at 21; a fault without a line is the section's.
        let expected = if line == 0 { 21 } else { 20 + line };
        assert_eq!((problem.line, problem.rule.as_deref()), (expected, Some("c")), "{section}: {problem}");
    }
}

#[test]
fn what_it_refers_to_is_looked_up() {
    let section = |rules: &str, more: &str| {
        format!(
            "type: event_count\nrules: [{rules}]\ngroup-by: [user]\ntimespan: 5m\ncondition: {{gte: 2}}\n{more}"
        )
    };
    let cases: [(&str, String, &str); 9] = [
        ("unknown", section("nobody", ""), "no rule has the id or name `nobody`"),
        ("twice", section("a, name_of_a", ""), "listed already"),
        ("itself", section("itself", ""), "refers to itself, through Correlation itself"),
        ("one", section("two", ""), "through Correlation one, Correlation two"),
        ("two", section("one", ""), "through Correlation two, Correlation one"),
        ("three", section("unknown", ""), "`Correlation unknown`, which is left out"),
        ("alias", section("a", "aliases: {user: {b: x}}"), "which is not under `rules`"),
        ("half", section("a, b", "aliases: {user: {b: x}}"), "says nothing of `Detection a`"),
        (
            "group",
            section("good", "").replace("[user]", "[host]"),
            "`Correlation good` is not grouped by `host`",
        ),
    ];
    let good = section("name_of_a", "");
    let mut all: Vec<(&str, &str)> = cases.iter().map(|(id, section, _)| (*id, section.as_str())).collect();
    all.push(("good", &good));
    let (correlations, problems) = resolved(&all);
    assert_eq!(correlations.rules().map(|rule| rule.id.as_str()).collect::<Vec<_>>(), ["good"]);
    assert_eq!(problems.len(), cases.len());
    for (id, _, message) in cases {
        let problem = problems.iter().find(|problem| problem.rule.as_deref() == Some(id)).unwrap();
        assert!(problem.message.contains(message), "{id}: {problem}");
        assert_eq!(problem.file, "rules/c.yml");
    }
}

#[test]
fn a_name_of_several_rules_is_nobodys() {
    let mut text = ["a", "b"].map(detection).concat().replace("name_of_b", "name_of_a");
    text += &correlation("c", "type: event_count\nrules: [name_of_a]\ntimespan: 5m\ncondition: {gte: 2}");
    let parsed = parse(&text);
    let (_, problems) = Correlations::new(&parsed.correlations, &parsed.rules);
    assert!(problems[0].message.contains("several rules have the name"), "{}", problems[0]);
}

#[test]
fn fields_that_events_must_carry() {
    let (correlations, problems) = resolved(&[
        (
            "one",
            "type: value_count\nrules: [name_of_a, b]\ngroup-by: [who, host]\ntimespan: 5m\n\
             condition: {field: port, gte: 2}\naliases: {who: {name_of_a: user, b: account}}",
        ),
        (
            "two",
            "type: temporal_ordered\nrules: [one, b]\ngroup-by: [who]\ntimespan: 1h\n\
             aliases: {who: {one: who, b: other}}",
        ),
    ]);
    assert_eq!(problems, []);
    assert_eq!(correlations.fields_for("a"), ["host", "port", "user"]);
    assert_eq!(correlations.fields_for("b"), ["account", "host", "other", "port"]);
    assert_eq!(correlations.fields_for("c"), [""; 0]);
    assert_eq!(correlations.detections_of("two"), ["a", "b"]);
    assert!(!correlations.makes_own_alerts("a", |_| true));
    assert!(correlations.makes_own_alerts("a", |id| id != "one"));
    assert!(correlations.makes_own_alerts("z", |_| true));
}

#[test]
fn a_chain_ends_somewhere() {
    let sections: Vec<(String, String)> = (0..10)
        .map(|number| {
            let rule = if number == 0 { "a".to_owned() } else { format!("r{}", number - 1) };
            let section = format!("type: event_count\nrules: [{rule}]\ntimespan: 5m\ncondition: {{gte: 2}}");
            (format!("r{number}"), section)
        })
        .collect();
    let all: Vec<(&str, &str)> =
        sections.iter().map(|(id, section)| (id.as_str(), section.as_str())).collect();
    let (correlations, problems) = resolved(&all);
    assert_eq!(correlations.rules().count(), 8);
    assert!(problems[0].message.contains("a chain of more than 8"), "{}", problems[0]);
    assert!(problems[1].message.contains("left out"), "{}", problems[1]);
}
