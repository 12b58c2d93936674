//! What came of it: rows per table and tenant, dead letters and why, and whether every message is
//! accounted for.

use std::fmt::Write as _;

use serde_json::{Value, json};
use uuid::Uuid;

use super::census::{Census, Delays};
use super::player::Ledger;
use super::screen::{grouped, severity};
use super::stage::Place;
use crate::day::Fate;

/// Titles of detections that are shown, the gravest first.
const DETECTIONS: usize = 12;

/// How the play went.
#[derive(Debug)]
pub struct Course {
    /// From the first message sent to the last one stored.
    pub seconds: f64,
    /// Events stored in the busiest second.
    pub peak: u64,
    /// How long messages took, and how many were repeats.
    pub delays: Delays,
}

/// The whole outcome.
#[derive(Debug)]
pub struct Summary {
    /// How it went.
    pub course: Course,
    /// What was sent.
    pub ledger: Ledger,
    /// What is stored.
    pub census: Census,
    /// Where to look.
    pub place: Place,
}

/// One thing that must hold.
struct Check {
    what: String,
    expected: u64,
    found: u64,
    /// Whether the numbers are hashes.
    hash: bool,
}

impl Check {
    fn passed(&self) -> bool {
        self.expected == self.found
    }

    fn text(&self) -> String {
        let shown = |number| if self.hash { format!("{number:016x}") } else { grouped(number) };
        match self.passed() {
            true => format!("PASS  {}: {}", self.what, shown(self.found)),
            false => format!("FAIL  {}: {}, not {}", self.what, shown(self.found), shown(self.expected)),
        }
    }
}

impl Summary {
    /// Whether everything holds that must.
    pub fn passed(&self) -> bool {
        self.checks().iter().all(Check::passed)
    }

    fn checks(&self) -> Vec<Check> {
        let (ledger, census) = (&self.ledger, &self.census);
        let check =
            |what: &str, expected, found| Check { what: what.to_owned(), expected, found, hash: false };
        let duplicates = self.course.delays.duplicates;
        let accounted = census.agent_logs() + census.foreign + census.dead_letters() + duplicates;
        let mut checks = vec![
            check("messages sent = acknowledged by the broker", ledger.sent, ledger.acknowledged),
            check("messages sent = rows + dead letters + repeats dropped", ledger.sent, accounted),
            check("transactions with threat events that were not correlated", 0, census.queued),
            check("rows of agent_logs that are there twice (by Kafka offset)", 0, census.repeated),
            check(
                "rows counted by the hour = rows",
                census.agent_logs() + census.foreign + census.derived + census.detections(),
                census.counted,
            ),
        ];
        checks.push(Check {
            hash: true,
            ..check(
                "hash of all bytes sent = hash of all bytes read back",
                ledger.fingerprint.0,
                census.fingerprint.0,
            )
        });
        if let Some(fates) = &ledger.fates {
            let of = |fate| fates.get(&fate).copied().unwrap_or(0);
            checks.push(check(
                "bad messages sent = dead letters",
                of(Fate::DeadLetter),
                census.dead_letters(),
            ));
            checks.push(check("repeated threat events sent = dropped", of(Fate::Duplicate), duplicates));
            checks.push(check(
                "alerts among agents' events = threat events",
                of(Fate::RowAndThreat),
                census.derived,
            ));
            for tenant in &ledger.tenants {
                let sent = ledger.rows.get(&tenant.id).copied().unwrap_or(0);
                let found = census.tenants.iter().find(|(id, ..)| *id == tenant.id);
                let what = format!("agent events of {} sent = rows", tenant.name);
                checks.push(check(&what, sent, found.map_or(0, |(_, _, rows, ..)| *rows)));
            }
        }
        checks
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.stored(&mut text);
        self.detected(&mut text);
        self.alerted(&mut text);
        self.rejected(&mut text);
        self.promise(&mut text);
        self.speed(&mut text);
        self.look_around(&mut text);
        text
    }

    fn stored(&self, text: &mut String) {
        let _ = writeln!(text, "\nSTORED{:>39}{:>15}{:>14}", "agent_logs", "threat_events", "dead_letters");
        for (_, name, logs, threats, letters) in &self.census.tenants {
            let _ = writeln!(
                text,
                "  {name:<28}{:>15}{:>15}{:>14}",
                grouped(*logs),
                grouped(*threats),
                grouped(*letters)
            );
        }
        let formats: Vec<String> =
            self.census.formats.iter().map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
        let _ = writeln!(text, "  formats: {}", formats.join(", "));
        let (raw, blocks) = self.census.bytes;
        let _ = writeln!(
            text,
            "  {} MB of messages, kept byte for byte in {} MB of compressed blocks",
            raw / 1_000_000,
            blocks / 1_000_000
        );
    }

    fn detected(&self, text: &mut String) {
        let _ = writeln!(text, "\nDETECTED by the rules in the binary (`inosec rules list`)");
        let detected = &self.census.detected;
        for (id, title, count) in detected.iter().take(DETECTIONS) {
            let _ = writeln!(text, "  {:>6}  {:<8}  {title:.80}", grouped(*count), severity(*id));
        }
        match detected.len().saturating_sub(DETECTIONS) {
            0 if detected.is_empty() => text.push_str("  nothing\n"),
            0 => {}
            more => drop(writeln!(text, "  and {more} more titles")),
        }
    }

    fn alerted(&self, text: &mut String) {
        let census = &self.census;
        let _ = writeln!(text, "\nALERTS correlated of these: {}", grouped(census.alert_count));
        for alert in &census.alerts {
            let (risk, events, title) = (alert.risk, alert.events, &alert.title);
            let hosts = alert.hosts.iter().take(2).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if alert.hosts.len() > 2 { ", …" } else { "" };
            let _ = writeln!(text, "  risk {risk:>3}  events {events:>5}  {title:.64}  ({hosts}{more})");
        }
    }

    fn rejected(&self, text: &mut String) {
        let _ =
            writeln!(text, "\nDEAD LETTERS (kept with their bytes; `inosec dlq redrive` sends them again)");
        if self.census.letters.is_empty() {
            let _ = writeln!(text, "  none");
        }
        for (reason, count, detail) in &self.census.letters {
            let _ = writeln!(text, "  {:>6}  {reason:<20}  for example: {detail:.70}", grouped(*count));
        }
    }

    fn promise(&self, text: &mut String) {
        let _ = writeln!(text, "\nPROMISE: nothing lost, nothing twice, nothing dropped silently");
        for check in self.checks() {
            let _ = writeln!(text, "  {}", check.text());
        }
    }

    fn speed(&self, text: &mut String) {
        let course = &self.course;
        let rate = self.ledger.sent as f64 / course.seconds;
        let _ = writeln!(text, "\nPACE (the play's, not the road's limit: `make bench` looks for that)");
        let _ = writeln!(
            text,
            "  {} messages, {} MB in {:.1} s: {} a second, {} in the busiest",
            grouped(self.ledger.sent),
            self.ledger.bytes / 1_000_000,
            course.seconds,
            grouped(rate as u64),
            grouped(course.peak)
        );
        let _ = writeln!(
            text,
            "  from Kafka to the commit: half within {} s, 99 in 100 within {} s",
            course.delays.median, course.delays.p99
        );
    }

    fn look_around(&self, text: &mut String) {
        let _ = writeln!(text, "\nLOOK AROUND");
        if !self.place.stays {
            let _ = writeln!(
                text,
                "  Everything is stopped and removed now. With --keep (make demo ARGS=--keep) it stays until"
            );
            let _ = writeln!(text, "  Ctrl-C, and this can be tried in another terminal:");
        } else {
            let _ = writeln!(text, "  In another terminal; here, Ctrl-C stops and removes everything.");
        }
        let url = match self.place.stays {
            true => self.place.database.as_str(),
            false => "<the URL shown then>",
        };
        let _ = writeln!(text, "\n  psql {url}");
        for (what, sql) in STATEMENTS {
            let _ = writeln!(text, "\n    -- {what}\n    {sql}");
        }
        let config = self.place.config.display();
        let tenant = self.ledger.tenants.first().map_or(Uuid::nil(), |tenant| tenant.id);
        let _ = writeln!(text, "\n  inosec -c {config} events --tenant {tenant} --text PSEXESVC");
        let _ = writeln!(text, "  inosec -c {config} dlq list");
        let metrics = if self.place.stays { self.place.metrics.as_str() } else { "<the address shown then>" };
        let _ = writeln!(text, "  curl {metrics}");
    }

    /// For machines.
    pub fn document(&self) -> Value {
        let tenant = |(id, name, logs, threats, letters): &(Uuid, String, u64, u64, u64)| {
            let id = (!id.is_nil()).then_some(id);
            json!({ "id": id, "name": name, "agent_logs": logs, "threat_events": threats, "dead_letters": letters })
        };
        let check = |check: Check| {
            json!({
                "what": check.what,
                "expected": check.expected,
                "found": check.found,
                "passed": check.passed(),
            })
        };
        let letter = |(reason, count, detail): &(String, u64, String)| json!({ "reason": reason, "count": count, "example": detail });
        let census = &self.census;
        let course = &self.course;
        json!({
            "passed": self.passed(),
            "sent": self.ledger.sent,
            "bytes": self.ledger.bytes,
            "rows": { "agent_logs": census.agent_logs(), "threat_events": census.foreign + census.derived + census.detections(), "dead_letters": census.dead_letters() },
            "repeats_dropped": course.delays.duplicates,
            "tenants": census.tenants.iter().map(tenant).collect::<Vec<_>>(),
            "detections": census.detected.iter().map(|(severity, title, count)| json!({ "severity_id": severity, "title": title, "count": count })).collect::<Vec<_>>(),
            "alerts": census.alert_count,
            "dead_letters": census.letters.iter().map(letter).collect::<Vec<_>>(),
            "formats": census.formats.iter().map(|(name, count)| json!({ "format": name, "rows": count })).collect::<Vec<_>>(),
            "messages_in_blocks": census.in_blocks,
            "message_bytes": census.bytes.0,
            "block_bytes": census.bytes.1,
            "checks": self.checks().into_iter().map(check).collect::<Vec<_>>(),
            "seconds": course.seconds,
            "peak_per_second": course.peak,
            "delay_seconds": { "median_at_most": course.delays.median, "p99_at_most": course.delays.p99 },
            "database": self.place.stays.then_some(&self.place.database),
            "metrics": self.place.stays.then_some(&self.place.metrics),
        })
    }
}

/// Statements to try, and what they show.
const STATEMENTS: &[(&str, &str)] = &[
    (
        "the intrusion: what ran after the document was opened",
        "SELECT ts, host_name, user_name, process_cmd_line FROM inosec.agent_logs\n      WHERE event_code = '1' AND process_cmd_line ~ 'invoice 4471|-enc |nltest|PSEXESVC|vssadmin|wevtutil' ORDER BY ts;",
    ),
    (
        "the gravest detections",
        "SELECT detected_at, severity_id, source, host_name, signature FROM inosec.threat_events\n      WHERE severity_id >= 4 ORDER BY detected_at;",
    ),
    (
        "the alerts, gravest first",
        "SELECT risk_score, title, event_count, first_seen, last_seen, entities FROM inosec.alerts\n      WHERE episode = 'live' ORDER BY risk_score DESC, last_seen DESC;",
    ),
    (
        "the shape of the day",
        "SELECT date_trunc('hour', ts) AS hour, count(*), repeat('#', (count(*) / 100)::int) FROM inosec.agent_logs\n      GROUP BY 1 ORDER BY 1;",
    ),
    (
        "what could not be stored, with its bytes",
        "SELECT reason, detail, topic, partition, \"offset\", octet_length(payload) FROM inosec.dead_letters;",
    ),
];
