//! Any text as a file of rules: parsed or refused, never a panic; whatever is taken compiles, and matches
//! a few events alike whether they come together, one by one, or again. Time is bounded by `-timeout`.
#![no_main]

use std::sync::Arc;

use inosec_enrich::{
    ClassId, Engine, FilterId, Hit, Matcher, Parsed, Placeholders, Selection, Tenants, costs,
};
use inosec_schemas::{Columns, EventClass, FieldId, Value};
use libfuzzer_sys::fuzz_target;

/// What each field of an event holds: short, long, numbers, addresses, times, letters that fold oddly.
const TEXTS: &[&str] = &[
    "",
    "a",
    "C:\\Windows\\System32\\cmd.exe /c whoami /all & powershell -EncodedCommand SQBFAFgA",
    "4688",
    "-9223372036854775808",
    "1.5e3",
    "true",
    "10.0.0.7",
    "::ffff:192.168.0.1",
    "2026-01-01T03:04:05.678Z",
    "Straße İSTANBUL ſpécial ΑΣΣ \u{202e}exe.txt",
    "*?\\*\\?%%x%%",
];

fuzz_target!(|text: &str| {
    let placeholders: Placeholders =
        [("a".to_owned(), vec!["b*".to_owned(), String::new()])].into_iter().collect();
    let mut parsed = Parsed::default();
    parsed.add("fuzz.yml", text, &placeholders);
    // To YAML a carriage return alone ends a line too.
    let lines = text.split(['\n', '\r']).count() + 1;
    for problem in &parsed.problems {
        assert!((1..=lines).contains(&problem.line), "{problem:?}");
        assert!(!problem.message.is_empty());
    }
    let mut classes: Vec<EventClass> = Vec::new();
    for rule in &parsed.rules {
        let from = &rule.logsource;
        let class =
            EventClass::triple(from.product.as_deref(), from.category.as_deref(), from.service.as_deref());
        assert!(from.admits(&class));
        classes.push(class);
        let _ = (costs(rule), rule.shown_fields(), rule.by_selection());
    }
    let rules = parsed.rules.len();
    // Rules are checked one by one; together they may be too large.
    let Ok(engine) = Engine::new(parsed.rules, parsed.filters, &classes) else {
        assert!(rules > 1, "a rule that parses compiles");
        return;
    };
    let engine = Arc::new(engine);
    let mut all = Selection::all(&engine);
    for filter in (0..).map(FilterId).take(engine.filters().len()) {
        all.add_filter(&engine, filter);
    }
    let mut tenants = Tenants::default();
    tenants.add(all);
    let mut matcher = Matcher::new(Arc::clone(&engine), 1 << 20);
    for class in &classes {
        let class = engine.class(class).expect("compiled");
        let together = hits(&mut matcher, &tenants, class, 0..TEXTS.len() as u32 + 2);
        assert_eq!(hits(&mut matcher, &tenants, class, 0..TEXTS.len() as u32 + 2), together, "again");
        let one_by_one: Vec<Hit> = (0..TEXTS.len() as u32 + 2)
            .flat_map(|row| {
                let hits = hits(&mut Matcher::new(Arc::clone(&engine), 0), &tenants, class, row..row + 1);
                hits.into_iter().map(move |hit| Hit { row, ..hit })
            })
            .collect();
        assert_eq!(one_by_one, together, "one by one");
    }
});

/// Runs the rules over events, each of which has one text in every field; of the last two one has nulls, the
/// other several values of each sort.
fn hits(matcher: &mut Matcher, tenants: &Tenants, class: ClassId, rows: std::ops::Range<u32>) -> Vec<Hit> {
    let engine = Arc::clone(matcher.engine());
    let wanted = engine.wanted(class);
    let mut columns = Columns::new(engine.fields().len());
    for row in rows.clone() {
        columns.add_row();
        let text = TEXTS.get(row as usize).map(|text| Value::Text(text));
        for field in &wanted.fields {
            push(&mut columns, *field, row, text);
        }
        if wanted.keywords
            && let Some(Value::Text(text)) = text
        {
            columns.push_rest(text);
        }
    }
    let mut hits = Vec::new();
    matcher.run(class, &columns, tenants, &vec![0; rows.len()], &mut hits);
    hits
}

fn push(columns: &mut Columns<'_>, field: FieldId, row: u32, text: Option<Value<'static>>) {
    match text {
        Some(text) => columns.push(field, text),
        None if row as usize == TEXTS.len() => columns.push(field, Value::Null),
        None => {
            columns.push(field, Value::Other);
            columns.push(field, Value::Text(TEXTS[2]));
            columns.push(field, Value::Text(TEXTS[3]));
        }
    }
}
