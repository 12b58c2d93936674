//! Everything derived from a stream, as files to be read in a review: its table, its Arrow schema,
//! its reference page. `UPDATE_GOLDEN=1 cargo test -p inosec-schemas --test golden` writes them anew.

use std::fmt::Write;
use std::path::PathBuf;

use inosec_schemas::{Catalog, Stream, arrow_schema, column_docs, create_table};

#[test]
fn what_is_derived_from_the_streams_is_as_reviewed() {
    let catalog = Catalog::embedded().expect("embedded descriptions parse");
    let mut stale = Vec::new();
    for stream in catalog.streams.values() {
        for (extension, derived) in [
            ("sql", create_table(stream) + ";\n"),
            ("arrow.txt", arrow(stream)),
            ("copy.txt", copy(stream)),
            ("md", column_docs(stream)),
        ] {
            let file = folder().join(format!("{}.{extension}", stream.name));
            if std::fs::read_to_string(&file).unwrap_or_default() != derived {
                stale.push((file, derived));
            }
        }
    }
    if std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1") {
        std::fs::create_dir_all(folder()).expect("the folder is made");
        for (file, derived) in stale {
            std::fs::write(file, derived).expect("the file is written");
        }
        return;
    }
    let names: Vec<_> = stale.iter().map(|(file, _)| file.display().to_string()).collect();
    assert!(
        stale.is_empty(),
        "derived differently, review and run with UPDATE_GOLDEN=1:\n{}",
        names.join("\n")
    );
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// One line per field: id, name, type, whether it may be null.
fn arrow(stream: &Stream) -> String {
    let mut text = String::new();
    for field in arrow_schema(stream).fields() {
        let id = field.metadata().get("PARQUET:field_id").map_or("", String::as_str);
        let null = if field.is_nullable() { "nullable" } else { "required" };
        let _ = writeln!(text, "{id} {} {:?} {null}", field.name(), field.data_type());
    }
    text
}

/// One line per column: name, layout in binary COPY.
fn copy(stream: &Stream) -> String {
    let mut text = String::new();
    for column in &stream.columns {
        let _ = writeln!(text, "{} {:?}", column.name, column.kind.copy_layout());
    }
    text
}
