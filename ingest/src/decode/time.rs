//! Times as events write them, to microseconds since 1970 UTC.
//!
//! A time without a zone is taken as UTC: there is no other clue, and arrival stands beside it.

use super::record::Value;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Reads a time; `None` if it is none, or out of range. `arrived_at` gives the year of times that
/// leave it out.
pub(crate) fn parse(value: Value<'_>, arrived_at: i64) -> Option<i64> {
    match value {
        Value::Int(number) => of_number(number, 0),
        Value::Float(number) => of_float(number),
        Value::Text(text) => of_text(text.trim(), arrived_at),
        Value::Null | Value::Bool(_) | Value::Uint(_) | Value::Nested(_) => None,
    }
}

fn of_text(text: &str, arrived_at: i64) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() >= 10 && bytes[4] == b'-' && bytes[7] == b'-' {
        return of_calendar(bytes);
    }
    if bytes.first().is_some_and(u8::is_ascii_digit) {
        return of_decimal(text);
    }
    of_syslog(bytes, arrived_at)
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by magnitude: in
/// seconds 10^11 is the year 5138. `fraction` is in millionths of the unit.
fn of_number(number: i64, fraction: i64) -> Option<i64> {
    match number.unsigned_abs() {
        0..100_000_000_000 => number.checked_mul(SECOND)?.checked_add(fraction),
        100_000_000_000..100_000_000_000_000 => number.checked_mul(1000)?.checked_add(fraction / 1000),
        100_000_000_000_000..100_000_000_000_000_000 => Some(number),
        _ => Some(number / 1000),
    }
}

fn of_float(number: f64) -> Option<i64> {
    if !number.is_finite() || number.abs() >= 9e18 {
        return None;
    }
    let whole = number.trunc();
    of_number(whole as i64, ((number - whole) * 1e6).round() as i64)
}

/// `1604996384.965`, exactly.
fn of_decimal(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    of_number(whole.parse().ok()?, millionths(fraction.as_bytes()))
}

/// The first six digits of a fraction.
fn millionths(digits: &[u8]) -> i64 {
    (0..6).fold(0, |sum, place| sum * 10 + digits.get(place).map_or(0, |digit| i64::from(digit - b'0')))
}

/// RFC 3339, and what resembles it: `T` or a space, any or no fraction, any offset or none.
fn of_calendar(text: &[u8]) -> Option<i64> {
    let (year, month, day) = (number(text, 0, 4)?, number(text, 5, 2)?, number(text, 8, 2)?);
    let date = days(year, month, day)?.checked_mul(DAY)?;
    let Some(time) = text.get(10..).filter(|rest| !rest.is_empty()) else { return Some(date) };
    if !matches!(time[0], b'T' | b't' | b' ') {
        return None;
    }
    let (clock, rest) = clock(&time[1..])?;
    date.checked_add(clock)?.checked_sub(offset(rest)?)
}

/// `hh:mm[:ss[.fraction]]` and what follows it.
fn clock(text: &[u8]) -> Option<(i64, &[u8])> {
    let (hour, minute) = (number(text, 0, 2)?, number(text, 3, 2)?);
    if text[2] != b':' || hour > 23 || minute > 59 {
        return None;
    }
    let mut micros = (hour * 3600 + minute * 60) * SECOND;
    let mut rest = &text[5..];
    if let Some(seconds) = rest.strip_prefix(b":") {
        let second = number(seconds, 0, 2)?;
        // 60 is a leap second, which our count of time doesn't have.
        micros += (second <= 60).then_some(second.min(59))? * SECOND;
        rest = &seconds[2..];
        if let [b'.' | b',', fraction @ ..] = rest {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            micros += millionths(&fraction[..digits]);
            rest = &fraction[digits..];
        }
    }
    Some((micros, rest))
}

/// `Z`, `+hh:mm`, `+hhmm`, `+hh`, or nothing, in microseconds east of UTC.
fn offset(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii();
    let (sign, digits) = match text {
        [] | b"Z" | b"z" | b"UTC" | b"GMT" => return Some(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let minutes = match digits.len() {
        2 => 0,
        4 => number(digits, 2, 2)?,
        5 if digits[2] == b':' => number(digits, 3, 2)?,
        _ => return None,
    };
    let hours = number(digits, 0, 2)?;
    (hours <= 18 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60) * SECOND)
}

/// RFC 3164: `Mar 27 13:06:56`. The year is the latest that doesn't lie more than a day ahead of
/// arrival.
fn of_syslog(text: &[u8], arrived_at: i64) -> Option<i64> {
    const MONTHS: [&[u8]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let name = text.get(..3)?;
    let month = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))? + 1;
    let rest = text.get(3..)?.trim_ascii_start();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let day = number(rest, 0, digits.clamp(1, 2))?;
    let (clock, rest) = clock(rest.get(digits..)?.trim_ascii_start())?;
    if !rest.is_empty() {
        return None;
    }
    let year = year_of(arrived_at.checked_add(DAY)?);
    let in_year = |year| Some(days(year, i64::try_from(month).ok()?, day)? * DAY + clock);
    // 29 February may need to go back to the last leap year.
    (0..=8).find_map(|back| in_year(year - back).filter(|time| *time <= arrived_at.saturating_add(DAY)))
}

fn number(text: &[u8], at: usize, digits: usize) -> Option<i64> {
    text.get(at..at + digits)?
        .iter()
        .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar; `None` for no such date.
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".)
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// The calendar year of a time: found from an estimate, since years differ by a day.
fn year_of(micros: i64) -> i64 {
    let day = micros.div_euclid(DAY);
    let estimate = 1970 + day.div_euclid(366);
    (estimate..estimate + 3)
        .rev()
        .find(|year| days(*year, 1, 1).is_some_and(|start| start <= day))
        .unwrap_or(estimate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<i64> {
        parse(Value::Text(text), 1_790_000_000 * SECOND)
    }

    #[test]
    fn calendar_times_in_every_dress() {
        let expected = Some(1_603_078_241_104_000);
        for same in [
            "2020-10-19 03:30:41.104",
            "2020-10-19T03:30:41.104Z",
            "2020-10-19T03:30:41.104000000Z",
            "2020-10-19T05:30:41.104+02:00",
            "2020-10-19T05:30:41.104+0200",
            "2020-10-18T23:30:41,104-04",
        ] {
            assert_eq!(text(same), expected, "{same}");
        }
        assert_eq!(text("2022-01-07T10:16:40.480073+0000"), Some(1_641_550_600_480_073));
        assert_eq!(text("1970-01-01"), Some(0));
        assert_eq!(text("9999-12-31T23:59:59Z"), Some(253_402_300_799 * SECOND));
        assert_eq!(text("2262-04-11T23:47:16.854775807Z"), Some(9_223_372_036_854_775));
    }

    #[test]
    fn numbers_by_magnitude() {
        let expected = Some(1_604_996_384_965_000);
        for same in ["1604996384.965", "1604996384965", "1604996384965000", "1604996384965000000"] {
            assert_eq!(text(same), expected, "{same}");
        }
        assert_eq!(parse(Value::Int(1_604_996_384_965), 0), expected);
        assert_eq!(parse(Value::Float(1_604_996_384.965), 0), expected);
    }

    #[test]
    fn syslog_takes_the_latest_year_that_has_arrived() {
        // 2026-09-21: March is this year's, December last year's.
        assert_eq!(text("Mar 27 13:06:56"), text("2026-03-27T13:06:56Z"));
        assert_eq!(text("Dec  1 00:00:00"), text("2025-12-01T00:00:00Z"));
        assert_eq!(text("Feb 29 00:00:00"), text("2024-02-29T00:00:00Z"));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for none in [
            "",
            "yesterday",
            "2020-13-01",
            "2020-02-30T00:00:00Z",
            "2020-10-19T25:00:00Z",
            "Mar",
            "12:00",
            "2020-10-19Tx",
            "2020-10-19T00:00:00.Z",
            "1.2.3",
            "99999999999999999999",
            "Mar 99 00:00:00",
            "éééé-éé-éé",
        ] {
            assert_eq!(text(none), None, "{none}");
        }
    }
}
