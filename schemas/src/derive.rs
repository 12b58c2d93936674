//! What is derived from a stream: its table, its Arrow schema, its reference page.

use std::collections::HashMap;
use std::fmt::Write;

use arrow_schema::{Field, Schema};

use crate::{Kind, Pii, Stream};

/// The statement that creates the stream's table in schema `inosec`, without partitions.
#[must_use]
pub fn create_table(stream: &Stream) -> String {
    let mut sql = format!("CREATE TABLE IF NOT EXISTS inosec.{} (\n", stream.name);
    for (position, column) in stream.columns.iter().enumerate() {
        let required = column.required || position == stream.ts || position == stream.tenant;
        let comma = if position + 1 == stream.columns.len() { "" } else { "," };
        let _ = writeln!(sql, "    {}{comma}", column_definition(&column.name, column.kind, required));
    }
    sql.push(')');
    sql
}

/// A column as CREATE TABLE and ADD COLUMN take it.
///
/// Texts are compared byte by byte: they are what machines call themselves. Going through the locale,
/// even `C.UTF-8`, costs an index that holds one an eighth more CPU, a language's rules half as much again.
#[must_use]
pub fn column_definition(name: &str, kind: Kind, required: bool) -> String {
    let collation = if kind == Kind::Text { " COLLATE \"C\"" } else { "" };
    let null = if required { " NOT NULL" } else { "" };
    format!("{name} {}{collation}{null}", kind.ddl())
}

/// The stream's schema in the archive. Field ids are the columns' positions plus one: columns are
/// only ever appended.
#[must_use]
pub fn arrow_schema(stream: &Stream) -> Schema {
    let fields = stream.columns.iter().enumerate().map(|(position, column)| {
        let id = (position + 1).to_string();
        let metadata = HashMap::from([("PARQUET:field_id".to_owned(), id)]);
        Field::new(&column.name, column.kind.arrow_type(), !column.required).with_metadata(metadata)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// The stream's columns as a Markdown table.
#[must_use]
pub fn column_docs(stream: &Stream) -> String {
    let mut text = format!("## `{}`\n\n{}\n\n", stream.name, stream.description.trim());
    text.push_str("| column | type | unit | PII | meaning |\n| --- | --- | --- | --- | --- |\n");
    for column in &stream.columns {
        let pii = match column.pii {
            Pii::None => "",
            Pii::Identifier => "identifier",
            Pii::FreeText => "free text",
        };
        let _ = writeln!(
            text,
            "| `{}` | {} (`{}`) | {} | {pii} | {} |",
            column.name,
            column.kind.docs(),
            column.kind.ddl(),
            column.unit.as_deref().unwrap_or(""),
            column.description.trim(),
        );
    }
    let _ = writeln!(text, "\nIndexes: {}.", index_list(stream));
    text
}

fn index_list(stream: &Stream) -> String {
    let index = |index: &crate::Index| {
        let price = index.price.as_ref().map(|price| format!(", {price}")).unwrap_or_default();
        format!("`({})`{price}", index.columns.join(", "))
    };
    stream.indexes.iter().map(index).collect::<Vec<_>>().join("; ")
}
