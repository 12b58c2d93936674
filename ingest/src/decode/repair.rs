//! The slow path: sound JSON that simd-json can't hold is rewritten so that it can.
//!
//! Lone surrogates become U+FFFD, numbers beyond 64 bits become texts of the same digits. Nothing else
//! changes, so what was a syntax error still is one. The raw message keeps the original.

/// The rewritten text.
pub(crate) fn repair(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = match first {
            b'"' => string(rest, &mut out),
            b'-' | b'0'..=b'9' => number(rest, &mut out),
            other => {
                out.push(*other);
                after
            }
        };
    }
    out
}

/// Copies a string literal; returns what follows it.
fn string<'a>(text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    out.push(b'"');
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                out.push(b'"');
                return &text[at + 1..];
            }
            b'\\' => at += escape(&text[at..], out),
            other => {
                out.push(*other);
                at += 1;
            }
        }
    }
    &[]
}

/// Copies one escape, mending lone surrogates; returns how many bytes it took.
fn escape(text: &[u8], out: &mut Vec<u8>) -> usize {
    let first = code_unit(text);
    let pair = || code_unit(&text[6..]).is_some_and(|second| (0xdc00..0xe000).contains(&second));
    match first {
        Some(0xd800..0xdc00) if pair() => {
            out.extend_from_slice(&text[..12]);
            12
        }
        Some(0xd800..0xe000) => {
            out.extend_from_slice(b"\\ufffd");
            6
        }
        _ => {
            let taken = text.len().min(2);
            out.extend_from_slice(&text[..taken]);
            taken
        }
    }
}

/// The value of `\uXXXX` at the start.
fn code_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Copies a number, as a text if 64 bits can't hold it; returns what follows it.
fn number<'a>(text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let end = text
        .iter()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if is_number(digits) && !fits(digits) {
        out.push(b'"');
        out.extend_from_slice(digits);
        out.push(b'"');
    } else {
        out.extend_from_slice(digits);
    }
    rest
}

/// The grammar of RFC 8259 §6.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let exponent =
            exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let length = digits(exponent);
        return length > 0 && exponent.len() == length;
    }
    rest.is_empty()
}

fn fits(digits: &[u8]) -> bool {
    let text = std::str::from_utf8(digits).unwrap_or_default();
    if digits.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        return text.parse::<f64>().is_ok_and(f64::is_finite);
    }
    text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(text: &str) -> String {
        String::from_utf8(repair(text.as_bytes())).unwrap()
    }

    #[test]
    fn surrogates_without_a_partner_are_replaced() {
        assert_eq!(repaired(r#"{"a":"\ud800x"}"#), r#"{"a":"\ufffdx"}"#);
        assert_eq!(repaired(r#"{"a":"\udc00"}"#), r#"{"a":"\ufffd"}"#);
        assert_eq!(repaired(r#"{"a":"\ud83d\ude00"}"#), r#"{"a":"\ud83d\ude00"}"#);
        assert_eq!(repaired(r#"{"a":"\ud800\ud83d\ude00"}"#), r#"{"a":"\ufffd\ud83d\ude00"}"#);
        assert_eq!(repaired(r#"{"a":"\\ud800"}"#), r#"{"a":"\\ud800"}"#);
    }

    #[test]
    fn numbers_beyond_64_bits_become_texts() {
        assert_eq!(repaired("[18446744073709551616]"), "[\"18446744073709551616\"]");
        assert_eq!(repaired("[1e999, -1e999]"), "[\"1e999\", \"-1e999\"]");
        for same in [
            "[18446744073709551615]",
            "[-9223372036854775808]",
            "[1.5e3]",
            "[01]",
            "[1.]",
            "[--1]",
            "[\"1e999\"]",
        ] {
            assert_eq!(repaired(same), same);
        }
    }

    #[test]
    fn broken_text_stays_broken_and_harmless() {
        for text in ["\"", "\"\\", "\"\\u", "\"\\ud800\\", "-", "{", "\"\\ud800\\u12\""] {
            let _ = repaired(text);
        }
    }
}
