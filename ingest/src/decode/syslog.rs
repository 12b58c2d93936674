//! Syslog lines: RFC 5424, and the older form RFC 3164 describes, whose priority files leave out.

use std::borrow::Cow;

/// Which form a line has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rfc {
    Rfc3164,
    Rfc5424,
}

type Fields<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];
const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
/// Longer ids of structured data are no ids: the RFC allows 32 bytes. They stand in the name of each of
/// their parameters, so one of megabytes with many parameters would be copied until memory is full.
const LONGEST_ID: usize = 128;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads a line; `None` if it is neither form.
pub(crate) fn parse<'a>(line: &'a str, fields: &mut Fields<'a>) -> Option<Rfc> {
    let (priority, rest) = priority(line);
    let rfc = match rest.strip_prefix("1 ").filter(|_| priority.is_some()) {
        Some(rest) => {
            modern(rest, fields)?;
            Rfc::Rfc5424
        }
        None => {
            classic(rest, fields)?;
            Rfc::Rfc3164
        }
    };
    if let Some(priority) = priority {
        fields.push(("facility".into(), FACILITIES[priority / 8].into()));
        fields.push(("severity".into(), SEVERITIES[priority % 8].into()));
    }
    Some(rfc)
}

/// `<pri>` and what follows it.
fn priority(line: &str) -> (Option<usize>, &str) {
    let told = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    match told
        .and_then(|(number, rest)| Some((number.parse::<usize>().ok().filter(|number| *number < 192)?, rest)))
    {
        Some((number, rest)) => (Some(number), rest),
        None => (None, line),
    }
}

/// `Mar 27 13:06:56 host program[pid]: text`.
fn classic<'a>(line: &'a str, fields: &mut Fields<'a>) -> Option<()> {
    let stamp = line.get(..15)?;
    if !MONTHS.contains(&stamp.get(..3)?) || stamp.as_bytes()[9] != b':' || stamp.as_bytes()[12] != b':' {
        return None;
    }
    let rest = line.get(15..)?.strip_prefix(' ')?;
    let (host, rest) = rest.split_once(' ')?;
    fields.push(("timestamp".into(), stamp.into()));
    fields.push(("host".into(), host.into()));
    let tag = rest.split_once(':').filter(|(tag, _)| !tag.is_empty() && !tag.contains(' '));
    let text = match tag {
        Some((tag, text)) => {
            let (program, pid) = tag.split_once('[').unwrap_or((tag, ""));
            fields.push(("program".into(), program.into()));
            if let Some(pid) = pid.strip_suffix(']') {
                fields.push(("pid".into(), pid.into()));
            }
            text.strip_prefix(' ').unwrap_or(text)
        }
        None => rest,
    };
    message(text, fields);
    Some(())
}

/// `timestamp host app procid msgid [sd] text`, behind the version.
fn modern<'a>(line: &'a str, fields: &mut Fields<'a>) -> Option<()> {
    let mut rest = line;
    for name in ["timestamp", "host", "program", "pid", "msgid"] {
        let (value, after) = rest.split_once(' ')?;
        if value != "-" {
            fields.push((name.into(), value.into()));
        }
        rest = after;
    }
    let text = match rest.strip_prefix('-') {
        Some(text) => text,
        None => structured(rest, fields)?,
    };
    let text = text.strip_prefix(' ').unwrap_or(text);
    message(text.strip_prefix('\u{feff}').unwrap_or(text), fields);
    Some(())
}

/// `[id name="value" …]…`; returns what follows.
fn structured<'a>(line: &'a str, fields: &mut Fields<'a>) -> Option<&'a str> {
    let mut rest = line.starts_with('[').then_some(line)?;
    while let Some(element) = rest.strip_prefix('[') {
        let end = element.find([' ', ']']).filter(|end| *end <= LONGEST_ID)?;
        let id = &element[..end];
        rest = &element[end..];
        while let Some(parameter) = rest.strip_prefix(' ') {
            let (name, value) = parameter.split_once("=\"")?;
            let (value, after) = quoted(value)?;
            fields.push((format!("sd.{id}.{name}").into(), value));
            rest = after;
        }
        rest = rest.strip_prefix(']')?;
    }
    Some(rest)
}

/// A value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => {
                let value = &text[..at];
                let plain = value.contains('\\');
                let value = if plain { unescape(value).into() } else { Cow::Borrowed(value) };
                return Some((value, &text[at + 1..]));
            }
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

fn unescape(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    let mut escaped = false;
    for c in value.chars() {
        if c == '\\' && !escaped {
            escaped = true;
            continue;
        }
        if escaped && !matches!(c, '"' | '\\' | ']') {
            plain.push('\\');
        }
        plain.push(c);
        escaped = false;
    }
    plain
}

/// The text, and who logs in from where, as sshd puts it. The name is the attacker's to choose, so the
/// last `from` counts: `Invalid user a from 8.8.8.8 port 1 from 6.6.6.6 port 22` came from 6.6.6.6.
fn message<'a>(text: &'a str, fields: &mut Fields<'a>) {
    fields.push(("message".into(), text.into()));
    let Some((name, origin)) = login(text).and_then(|told| told.rsplit_once(" from ")) else { return };
    let mut words = origin.split_ascii_whitespace();
    let Some(address) = words.next() else { return };
    fields.push(("user".into(), name.into()));
    fields.push(("src_ip".into(), address.into()));
    if words.next() == Some("port")
        && let Some(port) = words.next()
    {
        fields.push(("src_port".into(), port.into()));
    }
}

/// What follows `Failed METHOD for [invalid user ]`, `Accepted METHOD for ` or `Invalid user `.
fn login(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix("Invalid user ") {
        return Some(rest);
    }
    let rest = text.strip_prefix("Failed ").or_else(|| text.strip_prefix("Accepted "))?;
    let (_, rest) = rest.split_once(' ')?;
    let rest = rest.strip_prefix("for ")?;
    Some(rest.strip_prefix("invalid user ").unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(line: &str) -> Option<(Rfc, Vec<(String, String)>)> {
        let mut fields = Vec::new();
        let rfc = parse(line, &mut fields)?;
        Some((rfc, fields.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()))
    }

    fn get(line: &str, name: &str) -> Option<String> {
        fields(line)?.1.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    #[test]
    fn rfc_3164_with_and_without_priority() {
        let line = "Mar 27 13:06:56 web1 sshd[1291]: Failed password for invalid user admin from 10.0.0.7 port 4022 ssh2";
        assert_eq!(fields(line).unwrap().0, Rfc::Rfc3164);
        for (name, value) in [
            ("host", "web1"),
            ("program", "sshd"),
            ("pid", "1291"),
            ("user", "admin"),
            ("src_ip", "10.0.0.7"),
            ("src_port", "4022"),
        ] {
            assert_eq!(get(line, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(get("<38>Mar  7 13:06:56 web1 su: text", "facility").as_deref(), Some("auth"));
        assert_eq!(
            get("Mar 27 13:06:56 h sshd[1]: Accepted publickey for root from ::1 port 2", "user").as_deref(),
            Some("root")
        );
    }

    #[test]
    fn a_user_name_cannot_forge_the_address() {
        let line = "Mar 27 13:06:56 web1 sshd[1]: Invalid user a from 8.8.8.8 port 1 from 6.6.6.6 port 22";
        assert_eq!(get(line, "src_ip").as_deref(), Some("6.6.6.6"));
        assert_eq!(get(line, "src_port").as_deref(), Some("22"));
        assert_eq!(get(line, "user").as_deref(), Some("a from 8.8.8.8 port 1"));
        let line =
            "Mar 27 13:06:56 web1 sshd[1]: Failed password for invalid user  from 6.6.6.6 port 22 ssh2";
        assert_eq!(get(line, "src_ip").as_deref(), Some("6.6.6.6"));
    }

    #[test]
    fn rfc_5424_with_structured_data() {
        let line = r#"<165>1 2003-10-11T22:14:15.003Z host.example evntslog - ID47 [a@1 iut="3" note="say \"hi\""][b x="]"] An event"#;
        assert_eq!(fields(line).unwrap().0, Rfc::Rfc5424);
        for (name, value) in [
            ("host", "host.example"),
            ("msgid", "ID47"),
            ("sd.a@1.note", "say \"hi\""),
            ("sd.b.x", "]"),
            ("message", "An event"),
            ("severity", "notice"),
        ] {
            assert_eq!(get(line, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(get(line, "pid"), None);
    }

    #[test]
    fn a_long_id_is_not_copied_for_each_of_its_parameters() {
        let line = |id: usize| format!("<1>1 - h - - - [{}{}] x", "i".repeat(id), " a=\"\"".repeat(100_000));
        assert!(parse(&line(1 << 20), &mut Vec::new()).is_none());
        assert!(parse(&line(LONGEST_ID), &mut Vec::new()).is_some());
    }

    #[test]
    fn other_lines_are_refused_and_harmless() {
        for line in [
            "",
            "<",
            "<999>",
            "Mar",
            "Mar 27 13:06:56",
            "Mar 27 13é06:56 h x",
            "<1>1 - - - - - [x",
            "<1>1 - - - - - [x y=\"",
            "type=SYSCALL",
        ] {
            assert!(fields(line).is_none(), "{line}");
        }
    }
}
