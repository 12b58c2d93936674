//! Exact decimals: text in, millionths out.
//!
//! Sums of doubles depend on the order they are added in, and events arrive in any order.

use crate::sigma::Number;

/// What one is.
pub(super) const ONE: i128 = 1_000_000;

/// A number in millionths, rounded, kept within what an `i64` takes; none for what is no number.
pub(super) fn parse(text: &str) -> Option<i64> {
    Number::parse(text.trim()).map(from_number)
}

/// The same of a number that is read already.
#[expect(clippy::cast_possible_truncation, reason = "a double beyond i128 becomes its limit, then i64's")]
pub(super) fn from_number(number: Number) -> i64 {
    let millionths = match number {
        Number::Int(value) => value.saturating_mul(ONE),
        Number::Float(value) => (value * 1e6).round() as i128,
    };
    i64::try_from(millionths).unwrap_or(if millionths < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millionths() {
        for (text, value) in [
            ("1", Some(1_000_000)),
            (" -0.25 ", Some(-250_000)),
            ("1e3", Some(1_000_000_000)),
            ("0.0000004", Some(0)),
            ("99999999999999999999", Some(i64::MAX)),
            ("-1e300", Some(i64::MIN)),
            ("1,024", None),
            ("", None),
        ] {
            assert_eq!(parse(text), value, "{text}");
        }
    }
}
