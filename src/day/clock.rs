//! Times of the day in the forms the sources write them.

use super::write::decimal;

/// Microseconds in a day.
pub const DAY: i64 = 86_400_000_000;
/// Microseconds in a minute.
pub const MINUTE: i64 = 60_000_000;

/// Events per hour of the day, relative: people come at seven, eat at noon, leave at five.
const HOURS: [f64; 24] = [
    2.0, 2.0, 1.5, 1.5, 1.5, 2.0, 4.0, 7.5, 10.5, 12.0, 12.0, 11.0, 8.5, 11.0, 12.0, 11.5, 10.0, 7.5, 5.0,
    4.0, 3.0, 3.0, 2.5, 2.0,
];

/// The microsecond of the day by which `share` (0 to 1) of the day's events have happened.
#[must_use]
pub fn at_share(share: f64) -> i64 {
    let total: f64 = HOURS.iter().sum();
    let mut left = share.clamp(0.0, 1.0) * total;
    for (hour, weight) in HOURS.iter().enumerate() {
        if left < *weight {
            return ((hour as f64 + left / weight) * 60.0 * MINUTE as f64) as i64;
        }
        left -= weight;
    }
    DAY - 1
}

/// A moment, split into its civil parts once.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// Microseconds since 1970, UTC.
    pub us: i64,
    year: i64,
    month: u8,
    day: u8,
    second_of_day: u32,
    fraction: u32,
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Stamp {
    /// The moment `us` microseconds after 1970.
    #[must_use]
    pub fn new(us: i64) -> Self {
        let (year, month, day) = civil(us.div_euclid(DAY));
        let within = us.rem_euclid(DAY);
        Self {
            us,
            year,
            month,
            day,
            second_of_day: (within / 1_000_000) as u32,
            fraction: (within % 1_000_000) as u32,
        }
    }

    /// The moment this much later.
    #[must_use]
    pub fn later(&self, us: i64) -> Self {
        Self::new(self.us + us)
    }

    /// `2026-11-20T10:11:12.345678Z`.
    pub fn rfc3339(&self, out: &mut Vec<u8>) {
        self.date(out);
        out.push(b'T');
        self.time(out);
        out.push(b'.');
        padded(out, self.fraction, 6);
        out.push(b'Z');
    }

    /// `2026-11-20T10:11:12.345Z`.
    pub fn rfc3339_millis(&self, out: &mut Vec<u8>) {
        self.date(out);
        out.push(b'T');
        self.time(out);
        out.push(b'.');
        padded(out, self.fraction / 1000, 3);
        out.push(b'Z');
    }

    /// `2026-11-20T10:11:12Z`.
    pub fn rfc3339_seconds(&self, out: &mut Vec<u8>) {
        self.date(out);
        out.push(b'T');
        self.time(out);
        out.push(b'Z');
    }

    /// `2026-11-20T10:11:12.345678+0000`, as Suricata writes it.
    pub fn eve(&self, out: &mut Vec<u8>) {
        self.rfc3339(out);
        out.pop();
        out.extend_from_slice(b"+0000");
    }

    /// `2026-11-20 10:11:12`.
    pub fn plain(&self, out: &mut Vec<u8>) {
        self.date(out);
        out.push(b' ');
        self.time(out);
    }

    /// `2026-11-20 10:11:12.345`, as Sysmon writes it.
    pub fn plain_millis(&self, out: &mut Vec<u8>) {
        self.plain(out);
        out.push(b'.');
        padded(out, self.fraction / 1000, 3);
    }

    /// `Nov 20 10:11:12`, the day padded with a space (RFC 3164 §4.1.2).
    pub fn syslog(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MONTHS[self.month as usize - 1].as_bytes());
        out.push(b' ');
        if self.day < 10 {
            out.push(b' ');
        }
        decimal(out, u64::from(self.day));
        out.push(b' ');
        self.time(out);
    }

    /// `1604996384.965`, as the Linux audit log writes it.
    pub fn epoch_millis(&self, out: &mut Vec<u8>) {
        decimal(out, (self.us / 1_000_000).unsigned_abs());
        out.push(b'.');
        padded(out, self.fraction / 1000, 3);
    }

    fn date(&self, out: &mut Vec<u8>) {
        padded(out, self.year as u32, 4);
        out.push(b'-');
        padded(out, u32::from(self.month), 2);
        out.push(b'-');
        padded(out, u32::from(self.day), 2);
    }

    fn time(&self, out: &mut Vec<u8>) {
        padded(out, self.second_of_day / 3600, 2);
        out.push(b':');
        padded(out, self.second_of_day / 60 % 60, 2);
        out.push(b':');
        padded(out, self.second_of_day % 60, 2);
    }
}

fn padded(out: &mut Vec<u8>, number: u32, width: u32) {
    for place in (0..width).rev() {
        out.push(b'0' + (number / 10u32.pow(place) % 10) as u8);
    }
}

/// Year, month and day of a day number since 1970 (H. Hinnant, `civil_from_days`).
fn civil(days: i64) -> (i64, u8, u8) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month as u8, day as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(us: i64, form: fn(&Stamp, &mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        form(&Stamp::new(us), &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn forms_agree_with_a_calendar() {
        for us in [0, 951_782_400_000_000, 1_604_996_384_965_000, 4_102_444_799_999_999] {
            let expected = jiff::Timestamp::from_microsecond(us).expect("in range");
            assert_eq!(shown(us, Stamp::rfc3339), format!("{expected:.6}"));
        }
        assert_eq!(shown(1_604_996_384_965_000, Stamp::syslog), "Nov 10 08:19:44");
        assert_eq!(shown(1_604_996_384_965_000, Stamp::epoch_millis), "1604996384.965");
        assert_eq!(shown(0, Stamp::syslog), "Jan  1 00:00:00");
    }

    #[test]
    fn most_of_the_day_happens_in_office_hours() {
        let hour = 60 * MINUTE;
        assert_eq!(at_share(0.0), 0);
        assert_eq!(at_share(1.0), DAY - 1);
        assert!(at_share(0.5) > 10 * hour && at_share(0.5) < 15 * hour);
        assert!(
            (0..100).all(|part| at_share(f64::from(part) / 100.0) < at_share(f64::from(part + 1) / 100.0))
        );
    }
}
