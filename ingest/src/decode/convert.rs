//! Values to columns: what fits, and how.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use inosec_schemas::{Column, Kind, Rows, Slice};
use simd_json::{Node, StaticNode};
use uuid::Uuid;

use super::record::{Value, members, value_at, width};
use super::time;

/// The value doesn't fit the column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Misfit;

/// Puts a value into row `row` of a column of fixed width; on a misfit nothing is put.
pub(crate) fn put_fixed(
    column: &mut Column,
    row: usize,
    value: Value<'_>,
    arrived_at: i64,
) -> Result<(), Misfit> {
    fn put<T: Clone>(values: &mut Vec<Option<T>>, row: usize, value: T) {
        values.resize(row, None);
        values.push(Some(value));
    }
    match column {
        Column::Bool(values) => put(values, row, boolean(value)?),
        Column::Int16(values) => put(values, row, i16::try_from(integer(value)?).map_err(|_| Misfit)?),
        Column::Int32(values) => put(values, row, i32::try_from(integer(value)?).map_err(|_| Misfit)?),
        Column::Int64(values) => put(values, row, integer(value)?),
        Column::Float64(values) => put(values, row, float(value)?),
        Column::Timestamp(values) => put(values, row, time::parse(value, arrived_at).ok_or(Misfit)?),
        Column::Uuid(values) => put(values, row, uuid(value)?),
        Column::Inet(values) => put(values, row, address(value)?),
        Column::Text(_) | Column::Json(_) | Column::TextList(_) | Column::Bytes(_) => return Err(Misfit),
    }
    Ok(())
}

/// Puts a place in the text into row `row` of a column of texts.
pub(crate) fn append(column: &mut Column, row: usize, slice: Option<Slice>) {
    match column {
        Column::Text(values) | Column::Json(values) | Column::TextList(values) | Column::Bytes(values) => {
            values.resize(row, None);
            values.push(slice);
        }
        other => unreachable!("not a column of texts: {other:?}"),
    }
}

/// How many values a column holds.
pub(crate) fn length(column: &Column) -> usize {
    match column {
        Column::Bool(values) => values.len(),
        Column::Int16(values) => values.len(),
        Column::Int32(values) => values.len(),
        Column::Int64(values) | Column::Timestamp(values) => values.len(),
        Column::Float64(values) => values.len(),
        Column::Uuid(values) => values.len(),
        Column::Inet(values) => values.len(),
        Column::Text(values) | Column::Json(values) | Column::TextList(values) | Column::Bytes(values) => {
            values.len()
        }
    }
}

/// Writes a JSON document, a list or bytes as their columns hold them.
pub(crate) fn write_document(
    kind: Kind,
    value: Value<'_>,
    tape: &[Node<'_>],
    out: &mut String,
) -> Result<(), Misfit> {
    out.clear();
    match (kind, value) {
        (Kind::TextList, value) => return list(value, tape, out),
        (Kind::Json, Value::Nested(at)) => write_json(tape, at, out),
        (Kind::Json, Value::Text(text)) => write_string(text, out),
        (Kind::Json, other) => write_scalar(other, out),
        (_, Value::Text(text)) => out.push_str(text),
        _ => return Err(Misfit),
    }
    Ok(())
}

fn boolean(value: Value<'_>) -> Result<bool, Misfit> {
    match value {
        Value::Bool(value) => Ok(value),
        Value::Text(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Value::Text(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(Misfit),
    }
}

/// A JSON integer, or decimal or `0x` hexadecimal text.
fn integer(value: Value<'_>) -> Result<i64, Misfit> {
    match value {
        Value::Int(value) => Ok(value),
        Value::Text(text) => {
            let text = text.trim();
            let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
                // `from_str_radix` would take a sign.
                Some(digits) if digits.starts_with(|digit: char| digit.is_ascii_hexdigit()) => {
                    i64::from_str_radix(digits, 16)
                }
                _ => text.parse(),
            };
            parsed.map_err(|_| Misfit)
        }
        _ => Err(Misfit),
    }
}

fn float(value: Value<'_>) -> Result<f64, Misfit> {
    let value = match value {
        Value::Int(value) => value as f64,
        Value::Uint(value) => value as f64,
        Value::Float(value) => value,
        Value::Text(text) => text.trim().parse().map_err(|_| Misfit)?,
        Value::Null | Value::Bool(_) | Value::Nested(_) => return Err(Misfit),
    };
    if value.is_finite() { Ok(value) } else { Err(Misfit) }
}

pub(crate) fn uuid(value: Value<'_>) -> Result<Uuid, Misfit> {
    match value {
        Value::Text(text) => Uuid::try_parse(text.trim()).map_err(|_| Misfit),
        _ => Err(Misfit),
    }
}

/// An address, without the brackets and zone some write around it.
fn address(value: Value<'_>) -> Result<IpAddr, Misfit> {
    let Value::Text(text) = value else { return Err(Misfit) };
    let text = text.trim();
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match text.split_once('%') {
        Some((address, _)) => address.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| Misfit),
        None => text.parse().map_err(|_| Misfit),
    }
}

/// Appends a text to the rows' text: its first line if so asked, at most `cap` bytes of it, NULs,
/// which PostgreSQL's text can't hold, as U+FFFD. `None` if nothing is left.
pub(crate) fn place_text(rows: &mut Rows, text: &str, cap: usize, first_line: bool) -> Option<Slice> {
    let mut kept = &text[..text.floor_char_boundary(cap)];
    if first_line {
        let end = kept.bytes().position(|byte| byte == b'\r' || byte == b'\n');
        kept = &kept[..end.unwrap_or(kept.len())];
    }
    if kept.is_empty() {
        return None;
    }
    if kept.as_bytes().contains(&0) {
        let replaced = kept.replace('\0', "\u{fffd}");
        return Some(rows.push_text(&replaced.as_bytes()[..replaced.floor_char_boundary(cap)]));
    }
    Some(rows.push_text(kept.as_bytes()))
}

/// Items each ended by NUL: an array of scalars, or one scalar.
fn list(value: Value<'_>, tape: &[Node<'_>], scratch: &mut String) -> Result<(), Misfit> {
    scratch.clear();
    let mut item = |value: Value<'_>| {
        match value {
            Value::Nested(_) | Value::Null => return Err(Misfit),
            Value::Text(text) => scratch.extend(text.chars().filter(|c| *c != '\0')),
            other => write_scalar(other, scratch),
        }
        scratch.push('\0');
        Ok(())
    };
    let Value::Nested(at) = value else { return item(value) };
    let Node::Array { len, .. } = tape[at] else { return Err(Misfit) };
    let mut place = at + 1;
    for _ in 0..len {
        item(value_at(tape, place))?;
        place += width(&tape[place]);
    }
    Ok(())
}

/// Writes a scalar as JSON does, but texts without quotes.
pub(crate) fn write_scalar(value: Value<'_>, out: &mut String) {
    let _ = match value {
        Value::Null | Value::Nested(_) => write!(out, "null"),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(value) => write!(out, "{value}"),
        Value::Uint(value) => write!(out, "{value}"),
        Value::Float(value) => write!(out, "{value:?}"),
        Value::Text(text) => write!(out, "{text}"),
    };
}

/// Writes what stands at `at` of a tape as compact JSON that `jsonb` accepts.
pub(crate) fn write_json(tape: &[Node<'_>], at: usize, out: &mut String) {
    match tape[at] {
        Node::Object { .. } => {
            out.push('{');
            for (index, (name, value)) in members(tape, at).enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(name, out);
                out.push(':');
                write_json(tape, value, out);
            }
            out.push('}');
        }
        Node::Array { len, .. } => {
            out.push('[');
            let mut place = at + 1;
            for index in 0..len {
                if index > 0 {
                    out.push(',');
                }
                write_json(tape, place, out);
                place += width(&tape[place]);
            }
            out.push(']');
        }
        Node::String(text) => write_string(text, out),
        Node::Static(StaticNode::Null) => out.push_str("null"),
        Node::Static(_) => write_scalar(value_at(tape, at), out),
    }
}

/// A JSON string literal; NUL, which `jsonb` refuses even escaped, becomes U+FFFD.
pub(crate) fn write_string(text: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0 => out.push('\u{fffd}'),
            other => _ = write!(out, "\\u{other:04x}"),
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}
