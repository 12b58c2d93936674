//! Numbers of rules and of events' text, compared exactly.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

/// A finite number; whole ones are always [`Number::Int`] as far as it reaches, so that 4, 4.0 and 4e0
/// are equal and nothing of 64 bits goes through a double.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    /// A whole number.
    Int(i128),
    /// Any other finite number, or one too large.
    Float(f64),
}

/// Whole numbers up to here are exact in a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Number {
    /// Reads `-?digits(.digits)?([eE][+-]?digits)?`, the numbers of JSON with leading zeros allowed.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let unsigned = bytes.strip_prefix(b"-").unwrap_or(bytes);
        let whole = digits(unsigned);
        if whole == 0 {
            return None;
        }
        if whole == unsigned.len() {
            return text.parse().map(Self::Int).ok().or_else(|| Self::float(text));
        }
        let mut rest = &unsigned[whole..];
        if let Some(fraction) = rest.strip_prefix(b".") {
            let length = digits(fraction);
            if length == 0 {
                return None;
            }
            rest = &fraction[length..];
        }
        if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
            let exponent =
                exponent.strip_prefix(b"-").or_else(|| exponent.strip_prefix(b"+")).unwrap_or(exponent);
            let length = digits(exponent);
            if length == 0 {
                return None;
            }
            rest = &exponent[length..];
        }
        if rest.is_empty() { Self::float(text) } else { None }
    }

    #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
    fn float(text: &str) -> Option<Self> {
        let value: f64 = text.parse().ok()?;
        if !value.is_finite() {
            return None;
        }
        if value.abs() <= EXACT && value.fract() == 0.0 {
            return Some(Self::Int(value as i128));
        }
        Some(Self::Float(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "only compared with a double")]
    fn as_float(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }
}

fn digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int(one), Self::Int(two)) => one == two,
            (Self::Float(one), Self::Float(two)) => one.to_bits() == two.to_bits(),
            _ => false,
        }
    }
}

impl Eq for Number {}

impl Hash for Number {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Int(value) => value.hash(state),
            Self::Float(value) => value.to_bits().hash(state),
        }
    }
}

impl Number {
    /// Which of the two is larger.
    pub fn order(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Int(one), Self::Int(two)) => one.cmp(&two),
            _ => self.as_float().total_cmp(&other.as_float()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_in_other_words() {
        for text in ["4", "04", "4.0", "4e0", "40E-1"] {
            assert_eq!(Number::parse(text), Some(Number::Int(4)), "{text}");
        }
        assert_eq!(Number::parse("-9223372036854775808"), Some(Number::Int(i128::from(i64::MIN))));
        assert_ne!(Number::parse("-9223372036854775808"), Number::parse("-9223372036854775807"));
        for text in ["", "-", "4.", ".5", "0x4", "4e", "inf", "NaN", "4 ", "+4", "1e999"] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
    }
}
