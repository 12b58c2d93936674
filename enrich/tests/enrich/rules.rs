//! Rule files: what they mean, and what is said of those that are wrong.

use std::sync::Arc;

use inosec_enrich::{Cost, Engine, Matcher, Parsed, Placeholders, costs, parse};
use inosec_schemas::EventClass;
use serde_json::{Map, Value, json};

use crate::support;

fn rule(detection: &str) -> String {
    let indented: String = detection.lines().map(|line| format!("  {line}\n")).collect();
    format!("title: T\nid: some-id\nlogsource: {{product: windows}}\ndetection:\n{indented}")
}

fn parsed(text: &str) -> Parsed {
    parse("rules/a.yml", text, &Placeholders::new())
}

/// Whether a detection matches an event.
fn matches(detection: &str, event: &Value) -> bool {
    let parsed = parsed(&rule(detection));
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    let class = EventClass::triple(Some("windows"), None, None);
    let engine = Arc::new(Engine::new(parsed.rules, Vec::new(), std::slice::from_ref(&class)).unwrap());
    let mut matcher = Matcher::new(Arc::clone(&engine), 1 << 20);
    let event: &Map<String, Value> = event.as_object().unwrap();
    !support::run(&mut matcher, engine.class(&class).unwrap(), &[event]).is_empty()
}

#[test]
fn a_field_means_what_the_specification_says() {
    let cases = [
        ("F: null", json!({}), true),
        ("F: null", json!({"F": null}), true),
        ("F: null", json!({"F": ""}), false),
        ("F: ''", json!({"F": ""}), true),
        ("F: ''", json!({}), false),
        ("F: '*'", json!({"F": ""}), true),
        ("F: '*'", json!({"F": null}), false),
        ("F|exists: true", json!({"F": null}), true),
        ("F|exists: false", json!({"F": ""}), false),
        ("F|exists: false", json!({"G": ""}), true),
        ("F: 4688", json!({"F": "4688"}), true),
        ("F: 4688", json!({"F": 4688.0}), true),
        ("F: '4688'", json!({"F": 4688}), true),
        ("F: true", json!({"F": "True"}), true),
        ("F|contains: 68", json!({"F": 4688}), true),
        ("F: 'a*c'", json!({"F": "ABBC"}), true),
        (r"F: 'a\*c'", json!({"F": "abc"}), false),
        (r"F: 'C:\\*'", json!({"F": r"c:\x"}), true),
        ("F|cased: aB", json!({"F": "ab"}), false),
        ("F|contains|all: [a, b]", json!({"F": ["xa", "yb"]}), true),
        ("F|neq: a", json!({"F": "b"}), true),
        ("F|neq: [a, b]", json!({"F": "B"}), false),
        ("F|neq: a", json!({}), false),
        ("F|gt: 9223372036854775806", json!({"F": 9_223_372_036_854_775_807_i64}), true),
        ("F|lt: 10", json!({"F": "9.5"}), true),
        ("F|cidr: 10.0.0.0/8", json!({"F": "10.2.3.4"}), true),
        ("F|re: '^a.b$'", json!({"F": "a\nb"}), false),
        ("F|re|s: '^a.b$'", json!({"F": "a\nb"}), true),
        ("F|re|i: 'Σ'", json!({"F": "ς"}), true),
        ("F|windash|contains: ' -x'", json!({"F": "cmd ―X"}), true),
        ("F|wide|base64offset|contains: whoami", json!({"F": "IEX dwBoAG8AYQBtAGkA"}), true),
        ("F|hour|gte: 22", json!({"F": "2026-11-21T23:00:00Z"}), true),
        ("F|fieldref: G", json!({"F": "Ab", "G": "aB"}), true),
        ("F|fieldref|endswith: G", json!({"F": "xab", "G": "AB"}), true),
        ("F.g: 1", json!({"F": [{"g": 2}, {"g": 1}]}), true),
        ("f: a", json!({"F": "a"}), false),
    ];
    for (selection, event, expected) in cases {
        let detection = format!("s:\n  {selection}\ncondition: s");
        assert_eq!(matches(&detection, &event), expected, "{selection} {event}");
    }
}

#[test]
fn keywords_search_the_whole_event() {
    let event = json!({"a": {"deep": ["x", "Mimikatz.exe"]}, "b": 4688});
    for (selection, expected) in [
        ("[mimikatz, nothing]", true),
        ("{'|all': [MIMI, exe]}", true),
        ("{'|all': [mimi, nothing]}", false),
        ("'m*z'", true),
        ("[468]", true),
        ("{'|cased': [mimikatz]}", false),
        ("{'|re': 'katz\\.[a-z]+'}", true),
        ("deep", false),
    ] {
        assert_eq!(matches(&format!("s: {selection}\ncondition: s"), &event), expected, "{selection}");
    }
}

#[test]
fn an_error_names_file_line_rule_and_what_to_change() {
    let cases = [
        ("s: {F|containz: a}\ncondition: s", 5, "`containz` is not a modifier"),
        ("s: {F|re: '(?=a)'}\ncondition: s", 5, "linear time"),
        ("s: {F|cidr: x}\ncondition: s", 5, "not a block"),
        ("s: {F|gt: x}\ncondition: s", 5, "takes a number"),
        ("s: {F|base64: 'a*'}\ncondition: s", 5, "can't be encoded"),
        ("s:\n  F: a\n  F: b\ncondition: s", 7, "twice"),
        ("s: {F: {G: a}}\ncondition: s", 5, "flatten"),
        ("s: {F|re|cidr: a}\ncondition: s", 5, "exclude each other"),
        ("s: {F|expand: '%who%'}\ncondition: s", 5, "%who%"),
        ("s: {F: a}\ncondition: t", 6, "no selection `t`"),
        ("s: {}\ncondition: s", 5, "empty selection"),
        ("s: {F: a}", 5, "no condition"),
    ];
    for (detection, line, message) in cases {
        let problems = parsed(&rule(detection)).problems;
        let [problem] = problems.as_slice() else { panic!("{detection}: {problems:?}") };
        assert!(problem.message.contains(message), "{detection}: {problem}");
        assert_eq!((problem.line, problem.rule.as_deref()), (line, Some("some-id")), "{problem}");
        assert!(problem.to_string().starts_with(&format!("rules/a.yml:{line}: rule some-id: ")), "{problem}");
    }
}

#[test]
fn one_bad_document_never_stops_the_others() {
    let good = rule("s: {F: a}\ncondition: s");
    let other = good.replace("some-id", "other-id");
    let text = format!(
        "{good}---\na: [b\n---\n{other}---\ntitle: C\ncorrelation: {{type: event_count}}\n---\n{good}"
    );
    let parsed = parsed(&text);
    assert_eq!(parsed.rules.iter().map(|rule| rule.id.as_str()).collect::<Vec<_>>(), ["some-id", "other-id"]);
    assert_eq!(parsed.rules[1].origin, ("rules/a.yml".to_owned(), 10));
    let [syntax, correlation, twice] = parsed.problems.as_slice() else { panic!("{:?}", parsed.problems) };
    assert!(syntax.message.starts_with("not YAML") && (8..=10).contains(&syntax.line), "{syntax}");
    assert!(correlation.message.contains("it refers to no rules"), "{correlation}");
    assert!(twice.message.contains("has this id: give this one its own"), "{twice}");
}

#[test]
fn a_logsource_fails_closed() {
    let text =
        rule("s: {F: a}\ncondition: s").replace("{product: windows}", "{product: windows, category: c}");
    let rule = &parsed(&text).rules[0];
    for (product, category, service, runs) in [
        (Some("windows"), Some("c"), Some("s"), true),
        (Some("windows"), Some("c"), None, true),
        (Some("windows"), Some("d"), None, false),
        (Some("windows"), None, None, false),
        (None, Some("c"), None, false),
        (Some("linux"), Some("c"), None, false),
    ] {
        assert_eq!(rule.logsource.admits(&EventClass::triple(product, category, service)), runs);
    }
    let several = EventClass {
        product: Some("windows".to_owned()),
        categories: vec!["b".to_owned(), "c".to_owned()],
        services: Vec::new(),
    };
    assert!(rule.logsource.admits(&several));
    assert!(parsed(&text.replace("{product: windows, category: c}", "{definition: x}")).rules.is_empty());
}

#[test]
fn a_rule_is_explained_by_its_selections() {
    let parsed = parsed(&rule("s: {F: a}\nfilter: {G: b}\ncondition: s and not filter"));
    assert_eq!(parsed.rules[0].shown_fields(), ["F", "G"]);
    let class = EventClass::triple(Some("windows"), None, None);
    let parts = parsed.rules[0].by_selection();
    let engine = Arc::new(Engine::new(parts, Vec::new(), std::slice::from_ref(&class)).unwrap());
    let event = json!({"F": "a", "G": "b"});
    let hits = support::run(
        &mut Matcher::new(Arc::clone(&engine), 0),
        engine.class(&class).unwrap(),
        &[event.as_object().unwrap()],
    );
    let names: Vec<_> = hits.iter().map(|hit| engine.rule(hit.rule).id.as_str()).collect();
    assert_eq!(names, ["s", "filter"]);
}

#[test]
fn dear_rules_are_named() {
    let dear = |detection: &str| costs(&parsed(&rule(detection)).rules[0]);
    assert_eq!(dear("s: {F|contains: something}\ncondition: s"), []);
    assert_eq!(dear("s: {F: something}\ncondition: not s"), [Cost::EveryEvent]);
    assert_eq!(dear("s: {F|contains: a}\ncondition: s"), [Cost::MostEvents]);
    assert_eq!(dear("s: {F|re: '[a-z]{8}'}\ncondition: s"), [Cost::Regex("F".to_owned())]);
    assert_eq!(dear("s: {F: '?*?', G: long-enough}\ncondition: s"), [Cost::Wildcards("F".to_owned())]);
}

#[test]
fn a_rule_that_would_grow_beyond_bounds_is_refused() {
    let bomb = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
        let below = format!("*a{}", level - 1);
        format!("{text}a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(","))
    });
    let many = format!("condition: {}\ns: {{F: a}}", ["s"; 20_000].join(" or "));
    let deep = format!("s: {}a{}\ncondition: s", "[".repeat(200), "]".repeat(200));
    let dashes = "s:\n  F|windash:\n".to_owned() + &"    - ' -a -b -c -d'\n".repeat(200) + "condition: s";
    for (text, message) in [
        (bomb, "more than"),
        (rule(&many), "more than 10000 selections"),
        (rule(&deep), "deeper"),
        (rule(&dashes), "alternatives"),
    ] {
        let problems = parsed(&text).problems;
        assert!(problems[0].message.contains(message), "{problems:?}");
    }
}

#[test]
fn hostile_texts_are_read_in_good_time() {
    let n = 50_000;
    let numbered = |form: &dyn Fn(usize) -> String| (0..n).map(form).collect::<String>();
    let texts = [
        "[".repeat(n),
        "{a: ".repeat(n),
        "- ".repeat(n),
        "? ".repeat(n),
        "a:\n".repeat(n),
        "---\n".repeat(n),
        "\"".repeat(n),
        "&a ".repeat(n),
        "!!x ".repeat(n),
        format!("title: |\n{}", "  x\n".repeat(n)),
        format!("title: >\n{}", "\n".repeat(n)),
        format!("a: {}", "x ".repeat(n)),
        numbered(&|at| format!("k{at}: [{at}]\n")),
        numbered(&|at| format!("? k{at}\n")),
        rule(&format!("s:\n  F:\n{}condition: s", numbered(&|at| format!("    - v{at}\n")))),
        rule(&format!("{}condition: 1 of s*", numbered(&|at| format!("s{at}: {{F: v}}\n")))),
        rule(&format!("s: {{F: a}}\ncondition: {}s{}", "(".repeat(n), ")".repeat(n))),
        rule(&format!("s: {{F|windash: '{}'}}\ncondition: s", "-a ".repeat(n))),
        rule(&format!("s: {{F|re: '{}'}}\ncondition: s", "(a|b)*".repeat(n))),
        rule(&format!("s: {{F|re: '{}'}}\ncondition: s", "(".repeat(n))),
        rule(&format!("s: {{F|expand: '{}'}}\ncondition: s", "%a".repeat(n))),
    ];
    for text in texts {
        let started = std::time::Instant::now();
        let parsed = parsed(&text);
        let took = started.elapsed();
        let start: String = text.chars().take(120).collect();
        println!("{took:.1?} {:?} {start:?}", parsed.problems.first().map(|problem| &problem.message));
        assert!(took.as_secs() < 5, "{took:?} {start}");
    }
}

#[test]
fn hostile_events_are_matched_in_good_time() {
    let detection = "s:\n  - F: '*aaaa*aaab*aa?a*b*c'\n  - F|re: '(a+)+b$'\n  - F|contains: [aaaaaaaaaaaaaaaab, ab, b]\n  - [aaaac, 'a*a*d']\n  - F|fieldref|contains: G\ncondition: s";
    for text in ["a".repeat(2 << 20), "aaab".repeat(1 << 19), "é".repeat(1 << 20)] {
        let started = std::time::Instant::now();
        matches(detection, &json!({"F": text, "G": format!("{text}x")}));
        let took = started.elapsed();
        assert!(took.as_secs() < 5, "{took:?} {}", &text[..4]);
    }
}
