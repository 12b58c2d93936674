//! Results on stdout: text for people, or one JSON document.

use std::io::Write as _;

use serde_json::Value;

use super::{Failure, Form};

/// Where a command's result goes.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    form: Form,
}

impl Output {
    /// Prints in this form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self { form }
    }

    /// Whether JSON was asked for.
    #[must_use]
    pub fn json(&self) -> bool {
        self.form == Form::Json
    }

    /// Prints the text, or the document instead of it.
    pub fn text_or_json(&self, text: &str, json: impl FnOnce() -> Value) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        let text = text.trim_end_matches('\n');
        let printed = match self.form {
            Form::Text => writeln!(stdout, "{text}"),
            Form::Json => writeln!(stdout, "{}", json()),
        };
        quiet_on_closed_pipe(printed)
    }

    /// Prints rows under headings, columns aligned; in JSON an array of objects.
    pub fn table(&self, headings: &[&str], rows: &[Vec<Value>]) -> Result<(), Failure> {
        let document = || {
            let object = |row: &Vec<Value>| {
                headings.iter().zip(row).map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
            };
            Value::Array(rows.iter().map(object).map(Value::Object).collect())
        };
        self.text_or_json(&align(headings, rows), document)
    }

    /// Says something beside the result, on stderr.
    pub fn note(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Says why a command failed: on stderr, and in JSON form also as the document. What the result has
    /// told already is not said again.
    pub fn failure(&self, failure: &Failure) {
        if failure.text.is_empty() {
            return;
        }
        let _ = writeln!(std::io::stderr().lock(), "inosec: {}", failure.text);
        if self.json() {
            let document = serde_json::json!({ "error": failure.text, "status": failure.status });
            let _ = writeln!(std::io::stdout().lock(), "{document}");
        }
    }
}

/// `inosec … | head` is no failure.
fn quiet_on_closed_pipe(printed: std::io::Result<()>) -> Result<(), Failure> {
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn align(headings: &[&str], rows: &[Vec<Value>]) -> String {
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let mut lines: Vec<Vec<String>> = vec![headings.iter().map(|heading| (*heading).to_owned()).collect()];
    lines.extend(rows.iter().map(|row| row.iter().map(shown).collect()));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
