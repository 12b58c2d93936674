//! Values to columns: what fits, and how.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use inosec_schemas::{Column, ColumnSpec, Rows, Slice};
use simd_json::{Node, StaticNode};
use uuid::Uuid;

use super::record::{Value, members, value_at, width};
use super::time;

/// The value doesn't fit the column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Misfit;

/// Appends a value to a column, and says whether there was anything to append; on a misfit nothing is appended.
pub(crate) fn push(
    rows: &mut Rows,
    position: usize,
    value: Value<'_>,
    tape: &[Node<'_>],
    arrived_at: i64,
    scratch: &mut String,
) -> Result<bool, Misfit> {
    rows.end_of(position);
    let Rows { stream, columns, text, .. } = rows;
    let spec = &stream.columns[position];
    match &mut columns[position] {
        Column::Text(values) => match self::text(text, value, spec, scratch)? {
            None => return Ok(false),
            slice => values.push(slice),
        },
        Column::Json(values) => {
            scratch.clear();
            write_value(value, tape, scratch);
            if scratch.len() > spec.cap as usize {
                return Err(Misfit);
            }
            values.push(Some(Slice::append(text, scratch.as_bytes())));
        }
        Column::TextList(values) => {
            if spec.name == "techniques" {
                techniques(value, tape, scratch);
            } else {
                list(value, tape, scratch)?;
            }
            values.push(Some(Slice::append(text, scratch.as_bytes())));
        }
        Column::Bytes(values) => match value {
            Value::Text(value) => values.push(Some(Slice::append(text, value.as_bytes()))),
            _ => return Err(Misfit),
        },
        Column::Bool(values) => values.push(Some(boolean(value)?)),
        Column::Int16(values) => values.push(Some(i16::try_from(integer(value)?).map_err(|_| Misfit)?)),
        Column::Int32(values) => values.push(Some(i32::try_from(integer(value)?).map_err(|_| Misfit)?)),
        Column::Int64(values) => values.push(Some(integer(value)?)),
        Column::Float64(values) => values.push(Some(float(value)?)),
        Column::Timestamp(values) => values.push(Some(time::parse(value, arrived_at).ok_or(Misfit)?)),
        Column::Uuid(values) => values.push(Some(uuid(value)?)),
        Column::Inet(values) => values.push(Some(address(value)?)),
    }
    Ok(true)
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
                Some(digits) => i64::from_str_radix(digits, 16),
                None => text.parse(),
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

/// Text, cut at the column's cap unless that leaves no sense; `None` if its first line is empty.
fn text(
    all: &mut Vec<u8>,
    value: Value<'_>,
    spec: &ColumnSpec,
    scratch: &mut String,
) -> Result<Option<Slice>, Misfit> {
    let full = match value {
        Value::Text(text) => text,
        Value::Nested(_) | Value::Null => return Err(Misfit),
        other => {
            scratch.clear();
            write_scalar(other, scratch);
            scratch
        }
    };
    if spec.whole && full.len() > spec.cap as usize {
        return Err(Misfit);
    }
    Ok(push_text(all, full, spec))
}

/// Appends a text to the rows' text as the column wants it.
pub(crate) fn push_text(all: &mut Vec<u8>, text: &str, spec: &ColumnSpec) -> Option<Slice> {
    let mut kept = &text[..text.floor_char_boundary(spec.cap as usize)];
    if spec.first_line {
        let end = kept.bytes().position(|byte| matches!(byte, b'\r' | b'\n'));
        kept = &kept[..end.unwrap_or(kept.len())];
    }
    if kept.is_empty() {
        return None;
    }
    if kept.as_bytes().contains(&0) {
        // PostgreSQL's text can't hold NUL.
        let replaced = kept.replace('\0', "\u{fffd}");
        let cut = replaced.floor_char_boundary(spec.cap as usize);
        return Some(Slice::append(all, &replaced.as_bytes()[..cut]));
    }
    Some(Slice::append(all, kept.as_bytes()))
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

/// The ATT&CK techniques among what is said, each ended by NUL: `T1059.001`, `attack.t1059.001`, or
/// several in one text. Rules are tagged with much besides.
fn techniques(value: Value<'_>, tape: &[Node<'_>], scratch: &mut String) {
    scratch.clear();
    let mut texts = |value: Value<'_>| {
        let Value::Text(text) = value else { return };
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.') {
            let word = word.rsplit_once("attack.").map_or(word, |(_, tag)| tag);
            if is_technique(word.as_bytes()) {
                scratch.push('T');
                scratch.push_str(&word[1..]);
                scratch.push('\0');
            }
        }
    };
    let Value::Nested(at) = value else { return texts(value) };
    let Node::Array { len, .. } = tape[at] else { return };
    let mut place = at + 1;
    for _ in 0..len {
        texts(value_at(tape, place));
        place += width(&tape[place]);
    }
}

/// `T`, four digits, and perhaps a dot and three more.
fn is_technique(word: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    match word {
        [b'T' | b't', rest @ ..] if rest.len() == 4 => digits(rest),
        [b'T' | b't', rest @ ..] if rest.len() == 8 => {
            digits(&rest[..4]) && rest[4] == b'.' && digits(&rest[5..])
        }
        _ => false,
    }
}

/// Writes a value as JSON that `jsonb` accepts.
pub(crate) fn write_value(value: Value<'_>, tape: &[Node<'_>], out: &mut String) {
    match value {
        Value::Nested(at) => write_json(tape, at, out),
        other => write_scalar(other, out),
    }
}

/// Writes a scalar as JSON does.
pub(crate) fn write_scalar(value: Value<'_>, out: &mut String) {
    match value {
        Value::Null | Value::Nested(_) => out.push_str("null"),
        Value::Bool(value) => out.push_str(if value { "true" } else { "false" }),
        Value::Int(value) => out.push_str(itoa::Buffer::new().format(value)),
        Value::Uint(value) => out.push_str(itoa::Buffer::new().format(value)),
        Value::Float(value) => _ = write!(out, "{value:?}"),
        Value::Text(text) => write_string(text, out),
    }
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
        let escaped = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0 => "\u{fffd}",
            1..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        out.push_str(escaped);
        if escaped.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        }
        plain = at + 1;
    }
    out.push_str(&text[plain..]);
    out.push('"');
}
