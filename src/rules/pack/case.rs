//! A case of a correlation's fixture: bursts of events along a clock, and the episodes they must come to.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use inosec_enrich::geo::{Database, Error, Geo};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::parse_duration;
use crate::event_file::Lines;

/// Where every case's clock starts: 2026-03-02 09:00:00 UTC, a Monday.
const START: i64 = 1_772_442_000;
/// When its events arrive, which gives the year of syslog's times.
pub const ARRIVAL: i64 = (START + 30 * 86_400) * 1_000_000;
/// Events of one case.
const MOST: u32 = 10_000;

/// The networks of documentation (RFC 5737), each in a country and an autonomous system (RFC 5398) of its own.
const NETWORKS: [([u8; 3], [u8; 2], u32); 3] =
    [([192, 0, 2], *b"DE", 64496), ([198, 51, 100], *b"BR", 64497), ([203, 0, 113], *b"SG", 64498)];

/// Where the addresses of fixtures are.
///
/// # Errors
/// None, as long as the networks are in order.
pub fn geo() -> Result<Geo, Error> {
    let ends = |[a, b, c]: [u8; 3]| (IpAddr::from([a, b, c, 0]), IpAddr::from([a, b, c, 255]));
    let networks = NETWORKS.map(|(network, country, asn)| (ends(network), country, asn));
    let countries = networks.map(|((first, last), country, _)| (first, last, country));
    let asns = networks.map(|((first, last), _, asn)| (first, last, asn));
    Ok(Geo {
        country: Some(Arc::new(Database::of_countries(countries)?)),
        asn: Some(Arc::new(Database::of_asns(asns)?)),
    })
}

/// A line of a fixture.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub why: String,
    /// How many threat events each episode has, in any order; a near-miss has none.
    pub episodes: Vec<usize>,
    events: Vec<Burst>,
}

/// The same event several times.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Burst {
    #[serde(default)]
    event: Option<Box<RawValue>>,
    #[serde(default)]
    raw: Option<String>,
    #[serde(default = "once")]
    times: u32,
    /// From one to the next.
    #[serde(default = "second")]
    every: String,
    /// From the last event before.
    #[serde(default = "second")]
    after: String,
}

fn once() -> u32 {
    1
}

fn second() -> String {
    "1s".to_owned()
}

impl Case {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("not a case of a correlation: {error}"))
    }

    /// Its events as agents send them, numbered from 1.
    ///
    /// # Errors
    /// What is wrong with a burst.
    pub fn events(&self) -> Result<Lines, String> {
        let (mut lines, mut clock, mut number) = (Lines::default(), Duration::ZERO, 0);
        for burst in &self.events {
            let text = match (&burst.event, &burst.raw) {
                (Some(event), None) => event.get(),
                (None, Some(raw)) => raw,
                _ => return Err("a burst has either `event` or `raw`".to_owned()),
            };
            if burst.times == 0 || burst.times > MOST {
                return Err(format!("`times` is from 1 to {MOST}"));
            }
            let every = span(&burst.every)?;
            clock += span(&burst.after)?;
            for n in 1..=burst.times {
                clock += if n > 1 { every } else { Duration::ZERO };
                number += 1;
                lines.push(at(text, n, clock).as_bytes(), number);
            }
        }
        Ok(lines)
    }
}

fn span(text: &str) -> Result<Duration, String> {
    let span = parse_duration(text).filter(|span| *span < Duration::from_hours(24 * 25));
    span.ok_or_else(|| format!("{text:?} is no length of time below 25d: write 500ms, 10s, 5m, 2h or 1d"))
}

/// The text with its number and its time, as the formats write times: `{n}`, `{time}` (RFC 3339),
/// `{stamp}` (syslog, RFC 3164) and `{epoch}` (auditd).
fn at(text: &str, n: u32, clock: Duration) -> String {
    let second = START + i64::try_from(clock.as_secs()).unwrap_or(i64::MAX);
    let nanos = i32::try_from(clock.subsec_nanos()).unwrap_or(0);
    let time = Timestamp::new(second, nanos).unwrap_or_default();
    text.replace("{n}", &n.to_string())
        .replace("{time}", &time.to_string())
        .replace("{stamp}", &time.strftime("%b %e %H:%M:%S").to_string())
        .replace("{epoch}", &format!("{second}.{:03}", clock.subsec_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_follow_each_other_on_one_clock() {
        let case = Case::read(
            r#"{"why":"w","episodes":[3],"events":[
                {"raw":"a{n} {time}","times":2,"every":"1500ms"},
                {"event":{"t":"{stamp}","e":"{epoch}"},"after":"1d"}]}"#,
        )
        .expect("reads");
        let lines = case.events().expect("sound");
        let lines: Vec<&str> = lines.messages().map(|line| std::str::from_utf8(line).unwrap()).collect();
        let expected = [
            "a1 2026-03-02T09:00:01Z",
            "a2 2026-03-02T09:00:02.5Z",
            r#"{"t":"Mar  3 09:00:02","e":"1772528402.500"}"#,
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let events = |burst: &str| {
            Case::read(&format!(r#"{{"why":"w","episodes":[],"events":[{burst}]}}"#)).unwrap().events()
        };
        assert!(events(r#"{"raw":"a","event":{}}"#).unwrap_err().contains("either"));
        assert!(events(r#"{"raw":"a","times":0}"#).unwrap_err().contains("10000"));
        assert!(events(r#"{"raw":"a","every":"soon"}"#).unwrap_err().contains("soon"));
        assert!(Case::read(r#"{"fires":true}"#).unwrap_err().contains("fires"));
    }
}
