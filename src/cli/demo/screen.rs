//! What is seen while the play runs, on stderr: a block that renews itself on a terminal, else a line
//! every few seconds.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::census::Glance;

/// Between two plain lines.
const PLAIN: Duration = Duration::from_secs(5);
/// Lines of detections shown on a terminal.
const DETECTIONS: usize = 6;
/// Columns of the progress bar.
const BAR: i64 = 32;
/// Microseconds in a day.
const DAY: i64 = 86_400_000_000;

/// The display.
pub struct Screen {
    terminal: bool,
    /// Lines of the block on the screen.
    height: usize,
    last: Option<Instant>,
}

impl Screen {
    /// The display for this process's stderr.
    pub fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), height: 0, last: None }
    }

    /// Shows how things stand.
    pub fn show(&mut self, glance: &Glance) {
        if self.terminal {
            self.block(glance);
        } else if self.last.is_none_or(|last| last.elapsed() >= PLAIN) {
            self.last = Some(Instant::now());
            note(&line(glance));
        }
    }

    fn block(&mut self, glance: &Glance) {
        let lines = block(glance);
        let mut text = String::new();
        if self.height > 0 {
            text.push_str(&format!("\x1b[{}A", self.height));
        }
        for line in &lines {
            text.push_str(&format!("\r\x1b[2K{line}\n"));
        }
        self.height = lines.len();
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

/// Says what is going on.
pub fn note(text: &str) {
    // Nothing can be done about a closed stderr.
    let _ = writeln!(std::io::stderr().lock(), "demo: {text}");
}

/// `31,204`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What people call an OCSF severity.
pub fn severity(id: i16) -> &'static str {
    match id {
        1 => "info",
        2 => "low",
        3 => "medium",
        4 => "high",
        5 => "critical",
        6 => "fatal",
        _ => "unknown",
    }
}

/// `10:42`, the time of the played day.
fn clock(time_of_day: i64) -> String {
    let minutes = time_of_day.clamp(0, DAY) / 60_000_000;
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

fn counts(of: &[(String, u64)], between: &str) -> String {
    let shown = |(name, count): &(String, u64)| format!("{name} {}", grouped(*count));
    of.iter().map(shown).collect::<Vec<_>>().join(between)
}

fn line(glance: &Glance) -> String {
    let mut text = format!(
        "{}  {}/s  lag {}  {}",
        clock(glance.time_of_day),
        grouped(glance.rate),
        grouped(glance.lag),
        counts(&glance.tables, "  ")
    );
    if !glance.reasons.is_empty() {
        text.push_str(&format!(" ({})", counts(&glance.reasons, ", ")));
    }
    if let Some(newest) = glance.detections.first() {
        text.push_str(&format!("  newest: {} {}", newest.time, newest.signature));
    }
    text
}

fn block(glance: &Glance) -> Vec<String> {
    let done = (glance.time_of_day * BAR / DAY).clamp(0, BAR) as usize;
    let bar = format!("{}{}", "█".repeat(done), "·".repeat(BAR as usize - done));
    let mut lines = vec![
        String::new(),
        format!(
            "  {}  {bar}  {:>7} events/s   lag {}",
            clock(glance.time_of_day),
            grouped(glance.rate),
            grouped(glance.lag)
        ),
        format!("  stored   {}", counts(&glance.tables, "   ")),
        format!(
            "  rejects  {}",
            if glance.reasons.is_empty() { "none".to_owned() } else { counts(&glance.reasons, " · ") }
        ),
        "  newest grave detections:".to_owned(),
    ];
    for at in 0..DETECTIONS {
        lines.push(glance.detections.get(at).map_or_else(String::new, |detection| {
            let colour = if detection.severity >= 5 { "31" } else { "33" };
            format!(
                "    {}  \x1b[{colour}m{:<8}\x1b[0m  {:<44.44}  {:.28}",
                detection.time,
                severity(detection.severity),
                detection.signature,
                detection.host
            )
        }));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_easy_to_read() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(clock(38_520_000_000), "10:42");
        assert_eq!(clock(DAY), "24:00");
    }

    #[test]
    fn the_block_keeps_its_height() {
        let quiet = Glance::default();
        let busy =
            Glance { reasons: vec![("bad_json".to_owned(), 3)], time_of_day: DAY, ..Glance::default() };
        assert_eq!(block(&quiet).len(), block(&busy).len());
        assert!(line(&busy).contains("bad_json 3"));
    }
}
