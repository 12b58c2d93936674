//! Generated rules over generated events: the engine's verdicts are the oracle's.

use std::sync::Arc;

use inosec_enrich::{Engine, FilterId, Matcher, Parsed, Placeholders, RuleId, Selection, Tenants};
use inosec_schemas::EventClass;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use serde_json::{Map, Number, Value, json};

use crate::oracle::{self, OracleRule};
use crate::support;

const FIELDS: [&str; 4] = ["a", "b", "c.d", "e"];

/// Pieces of which texts are made: few, so that they meet.
const PIECES: [&str; 26] = [
    "a", "B", "b", "k", "K", "\u{212A}", "s", "ſ", "ß", "É", "é", "Σ", "ς", "ı", "İ", "ǅ", "-", "/", "–",
    " ", "\\", ".", "1", "12", "_", "中",
];

/// The same with what Sigma gives a meaning.
fn pattern() -> impl Strategy<Value = String> {
    let piece = prop_oneof![8 => select(PIECES.to_vec()), 1 => Just("*"), 1 => Just("?"), 1 => Just("\\*"), 1 => Just("\\\\")];
    vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

fn plain() -> impl Strategy<Value = String> {
    vec(select(PIECES.to_vec()), 1..4).prop_map(|pieces| pieces.concat())
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-2..20i64).prop_map(Value::from),
        Just(json!(i64::MIN)),
        Just(json!(u64::MAX)),
        select(vec![1.5, -0.25, 12.0, 1e20])
            .prop_map(|value| Value::Number(Number::from_f64(value).unwrap())),
    ]
}

fn one_or_more(value: impl Strategy<Value = Value> + Clone) -> impl Strategy<Value = Value> {
    prop_oneof![value.clone(), vec(value, 1..4).prop_map(Value::Array)]
}

fn scalar() -> impl Strategy<Value = Value> + Clone {
    prop_oneof![
        6 => pattern().prop_map(Value::String).boxed(),
        2 => number().boxed(),
        1 => any::<bool>().prop_map(Value::Bool).boxed(),
        1 => Just(Value::Null).boxed(),
    ]
    .boxed()
}

fn text_value() -> impl Strategy<Value = Value> + Clone {
    prop_oneof![6 => pattern().prop_map(Value::String).boxed(), 1 => (0..20i64).prop_map(Value::from).boxed()]
        .boxed()
}

fn plain_value() -> impl Strategy<Value = Value> + Clone {
    plain().prop_map(Value::String).boxed()
}

/// A key's modifiers and values that go with them.
fn asked() -> impl Strategy<Value = (String, Value)> {
    let texts = select(vec![
        "contains",
        "startswith",
        "endswith",
        "contains|all",
        "cased",
        "contains|cased",
        "endswith|all",
        "neq",
        "neq|contains",
        "startswith|cased|neq",
        "contains|windash",
        "windash|startswith",
    ]);
    let encodings = select(vec![
        "base64",
        "base64|contains",
        "base64offset|contains",
        "wide|base64offset|contains",
        "utf16be|base64|startswith",
        "utf16|base64",
        "utf16le|contains",
    ]);
    let regexes =
        select(vec!["a+", "(?:a|B)k?", "^s", "b$", "[k-s]{2,}", ".*12", "É|ς", r"\d\s", "a.b", "(1|12)+_?"]);
    let networks = select(vec!["10.0.0.0/8", "10.1.0.0/16", "::/0", "fe80::/10", "10.1.2.3", "0.0.0.0/0"]);
    let references = select(FIELDS.to_vec());
    let expanded = select(vec!["%one%", "x%two%", r"\%one%", "%one%%two%", "50%", "%one%*"]);
    prop_oneof![
        6 => (Just(String::new()), one_or_more(scalar())),
        8 => (texts.prop_map(|name| format!("|{name}")), one_or_more(text_value())),
        2 => (encodings.prop_map(|name| format!("|{name}")), one_or_more(plain_value())),
        2 => (
            select(vec!["|re", "|re|i", "|re|i|s|m", "|re|startswith", "|re|neq"]).prop_map(str::to_owned),
            one_or_more(regexes.prop_map(Value::from).boxed()),
        ),
        1 => (Just("|cidr".to_owned()), one_or_more(networks.prop_map(Value::from).boxed())),
        2 => (
            select(vec!["|gt", "|gte", "|lt", "|lte", "|gt|neq"]).prop_map(str::to_owned),
            one_or_more(number().boxed()),
        ),
        1 => (
            select(vec!["|minute", "|hour|gte", "|day", "|week", "|month|lt", "|year"]).prop_map(str::to_owned),
            one_or_more(select(vec![1, 2, 10, 12, 23, 52, 53, 2026]).prop_map(Value::from).boxed()),
        ),
        1 => (Just("|exists".to_owned()), any::<bool>().prop_map(Value::Bool)),
        2 => (
            select(vec!["|fieldref", "|fieldref|contains", "|fieldref|neq", "|fieldref|cased", "|fieldref|endswith"])
                .prop_map(str::to_owned),
            references.prop_map(Value::from),
        ),
        1 => (
            select(vec!["|expand", "|contains|expand", "|expand|cased"]).prop_map(str::to_owned),
            one_or_more(expanded.prop_map(Value::from).boxed()),
        ),
    ]
}

fn mapping() -> impl Strategy<Value = Value> {
    let item = (select(FIELDS.to_vec()), asked())
        .prop_map(|(field, (modifiers, value))| (format!("{field}{modifiers}"), value));
    vec(item, 1..4).prop_map(|items| Value::Object(items.into_iter().collect()))
}

fn keywords() -> impl Strategy<Value = Value> {
    let modifiers = select(vec!["|all", "|cased", "|re", "|contains", "|windash"]);
    prop_oneof![
        vec(text_value(), 1..3).prop_map(Value::Array),
        (modifiers, vec(plain_value(), 1..3)).prop_map(|(name, values)| {
            let escaped = |value: &Value| Value::from(regex::escape(value.as_str().unwrap()));
            let values = if name == "|re" { values.iter().map(escaped).collect() } else { values };
            Value::Object(Map::from_iter([(name.to_owned(), Value::Array(values))]))
        }),
    ]
}

fn selection() -> impl Strategy<Value = Value> {
    let mixed = prop_oneof![3 => mapping(), 1 => plain_value()];
    prop_oneof![6 => mapping().boxed(), 2 => vec(mixed, 1..3).prop_map(Value::Array).boxed(), 2 => keywords().boxed()]
}

/// Over the selections `one`, `other`, `_third`.
fn condition() -> impl Strategy<Value = Value> {
    let leaf = select(vec![
        "one",
        "other",
        "_third",
        "1 of o*",
        "all of o*",
        "1 of them",
        "all of them",
        "any of _*",
    ]);
    let tree = leaf.prop_map(str::to_owned).prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{left} and {right}")),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} or {right})")),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{left} or {right}")),
            inner.prop_map(|inner| format!("not ({inner})")),
        ]
    });
    let tree = tree.prop_map(Value::from);
    prop_oneof![4 => tree.clone().boxed(), 1 => vec(tree, 1..3).prop_map(Value::Array).boxed()]
}

fn detection() -> impl Strategy<Value = Value> {
    (selection(), selection(), selection(), condition())
        .prop_map(|(one, other, third, condition)| json!({"one": one, "other": other, "_third": third, "condition": condition}))
}

fn rule() -> impl Strategy<Value = Value> {
    detection()
        .prop_map(|detection| json!({"title": "t", "logsource": {"product": "p"}, "detection": detection}))
}

fn leaf() -> impl Strategy<Value = Value> + Clone {
    let special = select(vec![
        "10.1.2.3",
        "fe80::1%eth0",
        "::ffff:10.1.2.3",
        "2026-12-28T23:12:01Z",
        "2026-01-02 10:01",
        "true",
        "",
        "12.0",
        "012",
        "-2",
        "1e20",
        "18446744073709551615",
        "YQ==",
        "YWE=",
        "a\0B\0",
        " -a",
        "50%",
        "%one%",
        "x-first",
    ]);
    let encoded = plain().prop_map(|text| oracle_base64(&text));
    prop_oneof![
        8 => plain().prop_map(Value::String).boxed(),
        3 => number().boxed(),
        3 => special.prop_map(Value::from).boxed(),
        1 => encoded.prop_map(Value::from).boxed(),
        1 => any::<bool>().prop_map(Value::Bool).boxed(),
        1 => Just(Value::Null).boxed(),
    ]
    .boxed()
}

fn oracle_base64(text: &str) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let chunk = |bytes: &[u8]| {
        let at = |index: usize| u32::from(*bytes.get(index).unwrap_or(&0));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        (0..4)
            .map(move |place| char::from(alphabet[(word >> (18 - 6 * place)) as usize & 63]))
            .collect::<String>()
    };
    text.as_bytes().chunks(3).map(chunk).collect()
}

fn event() -> impl Strategy<Value = Map<String, Value>> {
    let value = prop_oneof![
        6 => leaf(),
        1 => vec(leaf(), 0..3).prop_map(Value::Array),
        1 => leaf().prop_map(|value| json!({"d": value})),
        1 => vec(leaf().prop_map(|value| json!({"d": value})), 1..3).prop_map(Value::Array),
    ];
    vec((select(vec!["a", "b", "c", "c", "c.d", "e", "other"]), value), 0..6)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn placeholders() -> [(&'static str, &'static [&'static str]); 2] {
    [("one", &["-first", "K*"]), ("two", &["B"])]
}

/// Rules that parse, by the engine and by the oracle.
fn parsed(rules: &[Value]) -> (Parsed, Vec<OracleRule>) {
    let given: Placeholders = placeholders()
        .into_iter()
        .map(|(name, values)| (name.to_owned(), values.iter().map(|one| (*one).to_owned()).collect()))
        .collect();
    let theirs: oracle::Placeholders =
        given.iter().map(|(name, values)| (name.clone(), values.clone())).collect();
    let (mut parsed, mut oracles) = (Parsed::default(), Vec::new());
    for (number, rule) in rules.iter().enumerate() {
        let mut rule = rule.clone();
        rule["id"] = json!(number.to_string());
        let text = rule.to_string();
        let before = parsed.rules.len();
        parsed.add("generated", &text, &given);
        if parsed.rules.len() > before {
            oracles.extend(OracleRule::parse(&text, &theirs));
        }
    }
    (parsed, oracles)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_says_what_the_oracle_says(
        rules in vec(rule(), 1..8),
        events in vec(event(), 1..12),
        budget in select(vec![0usize, 1 << 20]),
    ) {
        let (parsed, oracles) = parsed(&rules);
        let class = EventClass::triple(Some("p"), Some("any"), None);
        let engine = Arc::new(Engine::new(parsed.rules, Vec::new(), std::slice::from_ref(&class)).unwrap());
        let class = engine.class(&class).unwrap();
        let mut matcher = Matcher::new(Arc::clone(&engine), budget);
        for events in [&events[..], &events[..1], &events[..]] {
            let hits = support::run(&mut matcher, class, &events.iter().collect::<Vec<_>>());
            let mut expected = Vec::new();
            for (row, event) in events.iter().enumerate() {
                let matching = oracles.iter().enumerate().filter(|(_, rule)| rule.matches(event));
                expected.extend(matching.map(|(rule, _)| (row as u32, rule as u32)));
            }
            let found: Vec<_> = hits.iter().map(|hit| (hit.row, hit.rule.0)).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_tenant_sees_its_rules_through_its_filters(
        rules in vec(rule(), 1..5),
        filter in detection(),
        events in vec(event(), 1..8),
        enabled in vec(any::<bool>(), 5),
    ) {
        let mut filter = filter;
        filter["rules"] = json!("any");
        let filter = json!({"title": "f", "logsource": {"product": "p"}, "filter": filter});
        let (mut parsed, oracles) = parsed(&rules);
        parsed.add("generated", &filter.to_string(), &Placeholders::new());
        if parsed.filters.is_empty() {
            return Ok(());
        }
        let oracle_filter = OracleRule::parse_filter(&filter.to_string());
        let class = EventClass::triple(Some("p"), None, None);
        let engine = Arc::new(Engine::new(parsed.rules, parsed.filters, std::slice::from_ref(&class)).unwrap());
        let class = engine.class(&class).unwrap();
        let mut tenants = Tenants::default();
        tenants.add(Selection::all(&engine));
        let mut some = Selection::none(&engine);
        for (rule, enabled) in enabled.iter().enumerate().take(oracles.len()) {
            some.set(RuleId(rule as u32), *enabled);
        }
        some.add_filter(&engine, FilterId(0));
        tenants.add(some);
        let events: Vec<_> = events.iter().collect();
        let texts = support::Texts::of(events.iter().copied());
        let columns = support::columns(&engine, class, &events, &texts);
        let owners: Vec<u32> = (0..events.len() as u32).map(|row| row % 3).collect();
        let mut hits = Vec::new();
        Matcher::new(Arc::clone(&engine), 1 << 20).run(class, &columns, &tenants, &owners, &mut hits);
        let mut expected = Vec::new();
        for (row, event) in events.iter().enumerate() {
            for (rule, oracle) in oracles.iter().enumerate() {
                let let_through = match owners[row] {
                    0 => true,
                    1 => enabled[rule] && oracle_filter.matches(event),
                    _ => false,
                };
                if let_through && oracle.matches(event) {
                    expected.push((row as u32, rule as u32));
                }
            }
        }
        let found: Vec<_> = hits.iter().map(|hit| (hit.row, hit.rule.0)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,80}", prefix in select(vec!["", "title: x\nlogsource: {product: p}\ndetection:\n  ", "- ", "{a: &b [*b, "])) {
        let mut parsed = Parsed::default();
        parsed.add("generated", &format!("{prefix}{text}"), &Placeholders::new());
    }
}

fn cases() -> u32 {
    let full = std::env::var("INOSEC_SOAK").is_ok_and(|value| value == "full");
    if full { 50_000 } else { 400 }
}

#[test]
fn most_generated_rules_parse() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut sound, mut all, mut matches, mut verdicts) = (0, 0, 0, 0);
    for _ in 0..300 {
        let rules = vec(rule(), 4..5).new_tree(&mut runner).unwrap().current();
        let event = event().new_tree(&mut runner).unwrap().current();
        let (parsed, oracles) = parsed(&rules);
        (sound, all) = (sound + parsed.rules.len(), all + rules.len());
        matches += oracles.iter().filter(|rule| rule.matches(&event)).count();
        verdicts += oracles.len();
    }
    println!("{sound} of {all} generated rules parse; {matches} of {verdicts} match");
    assert!(sound * 3 > all * 2 && matches * 10 > verdicts && matches * 10 < verdicts * 9);
}

#[test]
fn the_oracle_folds_like_the_engine() {
    // Letters beyond are newer than the Unicode version of one or the other.
    for character in '\0'..='\u{A7C0}' {
        let upper: String = character.to_uppercase().collect();
        for other in upper.chars().chain(character.to_lowercase()) {
            let insensitive = regex::RegexBuilder::new(&regex::escape(&character.to_string()))
                .case_insensitive(true)
                .build();
            if other != character && upper.chars().count() == 1 {
                let same = insensitive.unwrap().is_match(&other.to_string());
                assert_eq!(same, oracle::fold(character) == oracle::fold(other), "{character:?} {other:?}");
            }
        }
    }
}
