//! Who is there: tenants, their hosts, and what those hosts look like in each event.

use super::random::Random;
use super::vocabulary::{MODULES, PEOPLE, PROGRAMS, SCRIPT_LINES, TENANTS};
use super::write::{escape, hex};
use super::{Mix, Options, Tenant};

/// How a Windows host's events are collected, which decides their wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collector {
    /// NXLog: flat, integers, local time, no rendered text for Sysmon.
    Nxlog,
    /// Windows event forwarding: flat, numbers as text, always the rendered text.
    Wef,
    /// Winlogbeat 6: nested `event_data`.
    Beats,
    /// The binary log as JSON: `Event.System`, `Event.EventData`.
    Evtx,
}

/// What a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A Windows machine.
    Windows(Collector),
    /// A Linux server sending syslog lines.
    Syslog,
    /// A Linux server sending its audit log.
    Auditd,
    /// An AWS account.
    Cloud,
    /// A Suricata sensor.
    Sensor,
}

/// One host.
#[derive(Debug)]
pub struct Host {
    /// What it is.
    pub role: Role,
    /// Short name.
    pub name: String,
    /// Name with domain.
    pub fqdn: String,
    /// Address in the tenant's network.
    pub address: String,
    /// Who works at it.
    pub user: String,
    /// Security identifier of that account.
    pub sid: String,
    /// First part of its processes' GUIDs, which Sysmon derives from the machine.
    pub guid: u32,
    /// Whether its agent wraps records in the envelope.
    pub envelope: bool,
    /// Whether the envelope names the format.
    pub names_format: bool,
}

/// One tenant's network.
#[derive(Debug)]
pub struct Network {
    /// The tenant as others know it.
    pub tenant: Tenant,
    /// Windows domain, upper case.
    pub domain: String,
    /// DNS domain.
    pub dns: String,
    /// All hosts.
    pub hosts: Vec<Host>,
    /// Index into `hosts` per role of [`Mix`], in its order; never empty.
    by_role: [Vec<usize>; ROLES],
}

/// The whole world, derived from the seed.
#[derive(Debug)]
pub struct World {
    /// The tenants' networks.
    pub networks: Vec<Network>,
    /// Per program its hashes as Sysmon writes them.
    pub program_hashes: Vec<String>,
    /// Per module its hashes.
    pub module_hashes: Vec<String>,
    /// Stacks as Sysmon writes them.
    pub stacks: Vec<String>,
    /// Administrators' scripts.
    pub scripts: Vec<Script>,
}

/// A script administrators run.
#[derive(Debug)]
pub struct Script {
    /// Its text.
    pub text: String,
    /// How it is started: the whole text in base64 for about every second one.
    pub command: String,
}

/// Number of host roles.
pub const ROLES: usize = 8;

const ALL_ROLES: [Role; ROLES] = [
    Role::Windows(Collector::Nxlog),
    Role::Windows(Collector::Wef),
    Role::Windows(Collector::Beats),
    Role::Windows(Collector::Evtx),
    Role::Syslog,
    Role::Auditd,
    Role::Cloud,
    Role::Sensor,
];

impl World {
    /// The world of these options.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let mut random = Random::new(options.seed ^ 0x776f_726c_6400);
        let networks = (0..options.tenants.max(1)).map(|at| Network::new(at, options, &mut random)).collect();
        let hashes = |random: &mut Random, count: usize| (0..count).map(|_| hashes(random)).collect();
        Self {
            networks,
            program_hashes: hashes(&mut random, PROGRAMS.len()),
            module_hashes: hashes(&mut random, MODULES.len()),
            stacks: (0..32).map(|_| stack(&mut random)).collect(),
            scripts: (0..16).map(|at| Script::new(at, &mut random)).collect(),
        }
    }
}

impl Network {
    fn new(at: usize, options: &Options, random: &mut Random) -> Self {
        let (name, short) = match TENANTS.get(at) {
            Some((name, short)) => ((*name).to_owned(), (*short).to_owned()),
            None => (format!("Tenant {}", at + 1), format!("tenant{}", at + 1)),
        };
        let tenant = Tenant { id: random.uuid(), name };
        let mut network = Self {
            tenant,
            domain: short.to_ascii_uppercase(),
            dns: format!("{short}.example"),
            hosts: Vec::new(),
            by_role: Default::default(),
        };
        // One host of every role first, so that any mix can be served; the rest are Windows.
        for number in 0..options.hosts.max(ROLES) {
            let role = ALL_ROLES.get(number).copied().unwrap_or_else(|| windows(&options.mix, random));
            network.add(at, number, role, random);
        }
        network
    }

    fn add(&mut self, at: usize, number: usize, role: Role, random: &mut Random) {
        let prefix = &self.domain[..self.domain.len().min(3)];
        let name = match role {
            Role::Windows(_) if number == 1 => format!("{prefix}-DC-01"),
            Role::Windows(_) if number.is_multiple_of(5) => format!("{prefix}-SRV-{number:03}"),
            Role::Windows(_) => format!("{prefix}-WS-{number:03}"),
            Role::Syslog | Role::Auditd => format!("{}-lx-{number:03}", prefix.to_ascii_lowercase()),
            Role::Cloud => "aws".to_owned(),
            Role::Sensor => format!("{}-ids-{number:02}", prefix.to_ascii_lowercase()),
        };
        let user = format!("{}.{}", random.one(PEOPLE), char::from(b'a' + random.below(26) as u8));
        let position = ALL_ROLES.iter().position(|other| *other == role).unwrap_or(0);
        self.by_role[position].push(self.hosts.len());
        self.hosts.push(Host {
            role,
            fqdn: format!("{name}.{}", self.dns),
            address: format!("10.{}.{}.{}", 10 + at, number / 200, 10 + number % 200),
            sid: format!("S-1-5-21-{}-{}-1104", 1_000_000_000 + at * 7_654_321, 1100 + number),
            guid: random.bits() as u32,
            envelope: random.per_mille(600),
            names_format: random.per_mille(500),
            name,
            user,
        });
    }

    /// One of the hosts of the role that stands at this place of [`Mix::weights`].
    pub fn host(&self, role: usize, random: &mut Random) -> &Host {
        &self.hosts[*random.one(&self.by_role[role])]
    }
}

fn windows(mix: &Mix, random: &mut Random) -> Role {
    let weights = mix.weights();
    let collectors = [
        (weights[0].0, Collector::Nxlog),
        (weights[1].0, Collector::Wef),
        (weights[2].0, Collector::Beats),
        (weights[3].0, Collector::Evtx),
    ];
    let none = collectors.iter().all(|(weight, _)| *weight == 0);
    Role::Windows(if none { Collector::Wef } else { *random.weighted(&collectors) })
}

/// `SHA1=…,MD5=…,SHA256=…,IMPHASH=…`.
pub fn hashes(random: &mut Random) -> String {
    let mut out = Vec::new();
    for (name, words) in [("SHA1=", 5), (",MD5=", 4), (",SHA256=", 8), (",IMPHASH=", 4)] {
        out.extend_from_slice(name.as_bytes());
        for _ in 0..words {
            hex(&mut out, random.bits() >> 32, 8);
        }
    }
    String::from_utf8_lossy(&out).to_uppercase()
}

/// `C:\…\ntdll.dll+9c584|…`, nine to thirty frames.
fn stack(random: &mut Random) -> String {
    let mut text = format!(r"C:\Windows\SYSTEM32\ntdll.dll+{:x}", random.between(0x9_0000, 0xa_0000));
    for _ in 0..random.between(8, 30) {
        let (module, _) = random.one(MODULES);
        // Nobody in the ordinary day writes memory dumps.
        if module.ends_with("dbghelp.dll") {
            continue;
        }
        text.push_str(&format!("|{module}+{:x}", random.between(0x1000, 0x12_0000)));
    }
    text
}

impl Script {
    fn new(at: usize, random: &mut Random) -> Self {
        let mut text = format!("# task {at}: kept by the desktop team, see the runbook\r\n");
        for _ in 0..random.between(10, 32) {
            let line = random.one(SCRIPT_LINES);
            text.push_str(line);
            text.push_str("\r\n");
        }
        let command = if at.is_multiple_of(2) {
            format!(
                r"C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe -NoProfile -NonInteractive -EncodedCommand {}",
                encoded(&text)
            )
        } else {
            format!(
                r#""C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe" -NoProfile -File "C:\ProgramData\Fleet\task{at}.ps1""#
            )
        };
        Self { text, command }
    }
}

/// What PowerShell's `-EncodedCommand` takes: base64 of UTF-16 (RFC 4648 §4).
#[must_use]
pub fn encoded(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut out = String::with_capacity(bytes.len() * 4 / 3 + 4);
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0u32, |word, at| word << 8 | u32::from(*chunk.get(at).unwrap_or(&0)));
        for place in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// Appends a process GUID of this host.
pub fn process_guid(out: &mut Vec<u8>, host: &Host, process: u64) {
    out.push(b'{');
    hex(out, u64::from(host.guid), 8);
    out.push(b'-');
    hex(out, process >> 16 & 0xffff, 4);
    out.extend_from_slice(b"-5fa0-");
    hex(out, process & 0xffff, 4);
    out.extend_from_slice(b"-000000000900}");
}

/// A file name of [`super::vocabulary::FILES`] in this host's user's profile, escaped.
pub fn profile_path(out: &mut Vec<u8>, host: &Host, path: &str) {
    match path.strip_prefix('~') {
        Some(rest) => {
            out.extend_from_slice(br"C:\\Users\\");
            escape(out, &host.user);
            escape(out, rest);
        }
        None => escape(out, path),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn encoded_commands_are_base64_of_utf16() {
        assert_eq!(super::encoded("dir"), "ZABpAHIA");
        assert_eq!(super::encoded("ab"), "YQBiAA==");
        assert_eq!(super::encoded("whoami"), "dwBoAG8AYQBtAGkA");
    }
}
