//! Parts of a point in time, as Sigma's time modifiers take them: no zones, no conversions.

/// What a time modifier extracts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimePart {
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// Of the month, 1 to 31.
    Day,
    /// By ISO 8601, 1 to 53.
    Week,
    /// 1 to 12.
    Month,
    /// Of the calendar.
    Year,
}

impl TimePart {
    /// The part of a text like `2026-01-31T12:30:59Z`, `2026-01-31 12:30` or `2026-01-31`, as written.
    pub fn extract(self, text: &str) -> Option<i64> {
        let year = digits(text, 0, 4)?;
        let month = after(text, 4, b'-')
            .and_then(|at| digits(text, at, 2))
            .filter(|month| (1..=12).contains(month))?;
        let day = after(text, 7, b'-').and_then(|at| digits(text, at, 2))?;
        if !(1..=days_in(year, month)).contains(&day) {
            return None;
        }
        match self {
            Self::Year => Some(year),
            Self::Month => Some(month),
            Self::Day => Some(day),
            Self::Week => Some(week(year, month, day)),
            Self::Hour => clock(text).map(|(hour, _)| hour),
            Self::Minute => clock(text).map(|(_, minute)| minute),
        }
    }
}

fn clock(text: &str) -> Option<(i64, i64)> {
    let at = after(text, 10, b'T').or_else(|| after(text, 10, b' '))?;
    let hour = digits(text, at, 2).filter(|hour| *hour < 24)?;
    let minute = after(text, 13, b':').and_then(|at| digits(text, at, 2)).filter(|minute| *minute < 60)?;
    Some((hour, minute))
}

fn after(text: &str, at: usize, byte: u8) -> Option<usize> {
    (text.as_bytes().get(at) == Some(&byte)).then_some(at + 1)
}

fn digits(text: &str, at: usize, count: usize) -> Option<i64> {
    let digits = text.as_bytes().get(at..at + count)?;
    digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// ISO 8601: week 1 holds the year's first Thursday.
fn week(year: i64, month: i64, day: i64) -> i64 {
    let ordinal = (1..month).map(|month| days_in(year, month)).sum::<i64>() + day;
    let week = (ordinal - weekday(year, ordinal) + 10) / 7;
    match week {
        0 => weeks_in(year - 1),
        53 if weeks_in(year) == 52 => 1,
        week => week,
    }
}

/// 1 is Monday, 7 Sunday.
fn weekday(year: i64, ordinal: i64) -> i64 {
    let before = year - 1;
    let days =
        before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) + ordinal;
    (days - 1).rem_euclid(7) + 1
}

fn weeks_in(year: i64) -> i64 {
    let first = weekday(year, 1);
    if first == 4 || (first == 3 && leap(year)) { 53 } else { 52 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_time() {
        let text = "2026-11-21T10:23:59.123Z";
        let cases = [
            (TimePart::Minute, 23),
            (TimePart::Hour, 10),
            (TimePart::Day, 21),
            (TimePart::Month, 11),
            (TimePart::Year, 2026),
            (TimePart::Week, 47),
        ];
        for (part, expected) in cases {
            assert_eq!(part.extract(text), Some(expected), "{part:?}");
        }
        assert_eq!(TimePart::Hour.extract("2026-11-21 10:23"), Some(10));
        assert_eq!(TimePart::Hour.extract("2026-11-21"), None);
        assert_eq!(TimePart::Day.extract("2026-02-29"), None);
        assert_eq!(TimePart::Day.extract("yesterday"), None);
    }

    #[test]
    fn weeks_at_the_turn_of_the_year() {
        let cases = [
            ("2021-01-03", 53),
            ("2021-01-04", 1),
            ("2020-12-31", 53),
            ("2024-12-30", 1),
            ("2023-01-01", 52),
        ];
        for (day, week) in cases {
            assert_eq!(TimePart::Week.extract(day), Some(week), "{day}");
        }
    }
}
