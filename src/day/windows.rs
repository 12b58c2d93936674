//! Windows events in the four shapes collectors give them.

use super::clock::{MINUTE, Stamp};
use super::random::Random;
use super::world::{Collector, Host};
use super::write::{Fields, Object, decimal, escape, hex};

/// The machine that gathers the tenants' Windows logs.
const COLLECTOR: &str = "wec-gathering-01.internal.cloud.example";

/// A log of Windows.
#[derive(Debug)]
pub struct Channel {
    /// Its name.
    pub name: &'static str,
    /// Who writes to it.
    pub provider: &'static str,
    /// The provider's id, upper case, no braces.
    pub guid: &'static str,
    /// Keywords as NXLog writes them: a signed 64-bit number.
    pub keywords: &'static str,
    /// The same as the binary log has them.
    pub keywords_hex: &'static str,
    /// What NXLog calls the type.
    pub event_type: &'static str,
}

/// A kind of Windows event.
#[derive(Debug)]
pub struct Kind {
    /// The log it is written to.
    pub channel: &'static Channel,
    /// Event id.
    pub id: u16,
    /// Its version.
    pub version: u8,
    /// Task number.
    pub task: u16,
    /// What the task is called.
    pub category: &'static str,
    /// The rendered text.
    pub text: Text,
}

/// How the text that people read is made from the fields.
#[derive(Debug)]
pub enum Text {
    /// A heading and every field on a line of its own (Sysmon).
    List(&'static str),
    /// JSON-escaped text with fields' names in braces.
    Template(&'static str),
}

/// One event to be written.
pub struct Event<'a> {
    /// Which host.
    pub host: &'a Host,
    /// When.
    pub at: Stamp,
    /// What kind.
    pub kind: &'a Kind,
    /// Its fields.
    pub fields: &'a Fields,
}

impl Event<'_> {
    /// Writes the record as its host's collector does.
    pub fn write(&self, collector: Collector, random: &mut Random, out: &mut Vec<u8>) {
        match collector {
            Collector::Nxlog => self.nxlog(random, out),
            Collector::Wef => self.wef(random, out),
            Collector::Beats => self.beats(random, out),
            Collector::Evtx => self.evtx(random, out),
        }
    }

    fn nxlog(&self, random: &mut Random, out: &mut Vec<u8>) {
        let channel = self.kind.channel;
        let local = self.at.later(120 * MINUTE);
        let received = local.later(random.between(200_000, 3_000_000) as i64);
        let mut record = Object::open(out);
        record.json("Keywords", channel.keywords).json("SeverityValue", "2");
        self.fields_into(&mut record);
        record.number("EventID", u64::from(self.kind.id));
        record.quoted("ProviderGuid", |out| braced(out, channel.guid));
        record.number("ExecutionProcessID", random.between(4, 9000)).text("Channel", channel.name);
        record.text("host", COLLECTOR).text("AccountType", "User").text("UserID", "S-1-5-18");
        record.text("EventTypeOrignal", channel.event_type);
        record.text("AccountName", "SYSTEM").text("Domain", "NT AUTHORITY");
        record.number("ThreadID", random.between(4, 9000)).text("EventType", channel.event_type);
        record.text("Opcode", "Info").time("EventTime", &local, Stamp::plain);
        record.time("EventReceivedTime", &received, Stamp::plain);
        record.time("@timestamp", &self.at, Stamp::rfc3339_millis);
        record.text("SourceModuleType", "im_msvistalog").text("SourceModuleName", "eventlog");
        record.number("port", 64_545).number("RecordNumber", random.between(10_000, 9_000_000));
        record.number("Task", u64::from(self.kind.task)).text("@version", "1").number("OpcodeValue", 0);
        record.text("Severity", "INFO").text("SourceName", channel.provider);
        record.number("Version", u64::from(self.kind.version)).text("Category", self.kind.category);
        if let Text::Template(_) = self.kind.text {
            record.quoted("Message", |out| self.message(out, br"\r\n"));
        }
        record.text("Hostname", &self.host.fqdn).json("tags", r#"["windows"]"#);
        record.close();
    }

    fn wef(&self, random: &mut Random, out: &mut Vec<u8>) {
        let channel = self.kind.channel;
        let mut record = Object::open(out);
        record.time("TimeCreated", &self.at, Stamp::plain_millis).text("SourceName", channel.provider);
        record.number("EventID", u64::from(self.kind.id)).text("Channel", channel.name);
        record.quoted("Task", |out| decimal(out, u64::from(self.kind.task)));
        record.text("Keywords", channel.keywords_hex).text("Level", "4");
        record.quoted("ProcessID", |out| decimal(out, random.between(4, 9000)));
        record.quoted("ThreadID", |out| decimal(out, random.between(4, 9000)));
        record.quoted("EventRecordID", |out| decimal(out, random.between(10_000, 9_000_000)));
        self.fields_into(&mut record);
        record.quoted("Message", |out| self.message(out, br"\r\n"));
        record.text("Hostname", &self.host.fqdn);
        record.close();
    }

    fn beats(&self, random: &mut Random, out: &mut Vec<u8>) {
        let channel = self.kind.channel;
        let mut record = Object::open(out);
        record.time("@timestamp", &self.at, Stamp::rfc3339_millis);
        record.json("@metadata", r#"{"beat":"winlogbeat","type":"doc","version":"6.8.23"}"#);
        record.quoted("message", |out| self.message(out, br"\n"));
        record.number("thread_id", random.between(4, 9000)).text("computer_name", &self.host.fqdn);
        record.text("level", "Information").number("process_id", random.between(4, 9000));
        record.quoted("record_number", |out| decimal(out, random.between(10_000, 9_000_000)));
        record.text("type", "wineventlog").number("version", u64::from(self.kind.version));
        record.text("task", self.kind.category).quoted("provider_guid", |out| braced(out, channel.guid));
        record.object("user", |user| {
            user.text("identifier", "S-1-5-18").text("name", "SYSTEM");
            user.text("domain", "NT AUTHORITY").text("type", "User");
        });
        record.object("event_data", |data| self.fields_into(data));
        record.json("beat", r#"{"version":"6.8.23","name":"collector","hostname":"collector"}"#);
        record.number("event_id", u64::from(self.kind.id)).text("log_name", channel.name);
        record.text("source_name", channel.provider).text("opcode", "Info");
        record.json("host", r#"{"name":"collector"}"#);
        record.close();
    }

    fn evtx(&self, random: &mut Random, out: &mut Vec<u8>) {
        let mut record = Object::open(out);
        record.object("Event", |event| {
            event.json("#attributes", r#"{"xmlns":"http://schemas.microsoft.com/win/2004/08/events/event"}"#);
            event.object("System", |system| self.evtx_system(random, system));
            event.object("EventData", |data| self.fields_into(data));
        });
        record.close();
    }

    fn evtx_system(&self, random: &mut Random, system: &mut Object<'_>) {
        let channel = self.kind.channel;
        system.object("Provider", |provider| {
            provider.object("#attributes", |attributes| {
                attributes.text("Name", channel.provider).text("Guid", channel.guid);
            });
        });
        system.number("EventID", u64::from(self.kind.id)).number("Version", u64::from(self.kind.version));
        system.number("Level", 0).number("Task", u64::from(self.kind.task)).number("Opcode", 0);
        system.text("Keywords", channel.keywords_hex);
        system.object("TimeCreated", |time| {
            time.object("#attributes", |attributes| {
                attributes.time("SystemTime", &self.at, Stamp::rfc3339);
            });
        });
        system.number("EventRecordID", random.between(10_000, 9_000_000)).json("Correlation", "null");
        system.object("Execution", |execution| {
            execution.object("#attributes", |attributes| {
                attributes.number("ProcessID", random.between(4, 9000));
                attributes.number("ThreadID", random.between(4, 9000));
            });
        });
        system.text("Channel", channel.name).text("Computer", &self.host.fqdn).json("Security", "null");
    }

    fn fields_into(&self, record: &mut Object<'_>) {
        for (key, value) in self.fields.iter() {
            record.escaped(key, value);
        }
    }

    /// The rendered text, escaped; `newline` is what ends the lines of a list.
    fn message(&self, out: &mut Vec<u8>, newline: &[u8]) {
        match self.kind.text {
            Text::List(heading) => {
                escape(out, heading);
                for (key, value) in self.fields.iter() {
                    out.extend_from_slice(newline);
                    out.extend_from_slice(key.as_bytes());
                    out.extend_from_slice(b": ");
                    out.extend_from_slice(value);
                }
            }
            Text::Template(template) => self.fill(out, template),
        }
    }

    fn fill(&self, out: &mut Vec<u8>, template: &str) {
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            out.extend_from_slice(before.as_bytes());
            let Some((key, after)) = after.split_once('}') else { return };
            out.extend_from_slice(self.fields.get(key));
            rest = after;
        }
        out.extend_from_slice(rest.as_bytes());
    }
}

fn braced(out: &mut Vec<u8>, guid: &str) {
    out.push(b'{');
    out.extend_from_slice(guid.as_bytes());
    out.push(b'}');
}

/// Sysmon's log.
pub const SYSMON: Channel = Channel {
    name: "Microsoft-Windows-Sysmon/Operational",
    provider: "Microsoft-Windows-Sysmon",
    guid: "5770385F-C22A-43E0-BF4C-06F5698FFBD9",
    keywords: "-9223372036854775808",
    keywords_hex: "0x8000000000000000",
    event_type: "INFO",
};

/// The security log.
pub const SECURITY: Channel = Channel {
    name: "Security",
    provider: "Microsoft-Windows-Security-Auditing",
    guid: "54849625-5478-4994-A5BA-3E3B0328C30D",
    keywords: "-9214364837600034816",
    keywords_hex: "0x8020000000000000",
    event_type: "AUDIT_SUCCESS",
};

/// Where the clearing of the security log is recorded: in itself, by the log service.
pub const SECURITY_LOG_SERVICE: Channel = Channel {
    name: "Security",
    provider: "Microsoft-Windows-Eventlog",
    guid: "FC65DDD8-D6EF-4962-83D5-6E5CFE9CE148",
    keywords: "4620693217682128896",
    keywords_hex: "0x4020000000000000",
    event_type: "INFO",
};

/// The system log, as the service control manager writes to it.
pub const SERVICES: Channel = Channel {
    name: "System",
    provider: "Service Control Manager",
    guid: "555908D1-A6D7-4695-8E1E-26931D2012F4",
    keywords: "-9187343239835811840",
    keywords_hex: "0x8080000000000000",
    event_type: "INFO",
};

/// PowerShell's own log.
pub const POWERSHELL: Channel = Channel {
    name: "Microsoft-Windows-PowerShell/Operational",
    provider: "Microsoft-Windows-PowerShell",
    guid: "A0C1853B-5C40-4B15-8766-3CF1C58F985A",
    keywords: "0",
    keywords_hex: "0x0",
    event_type: "INFO",
};

/// PowerShell's log of old.
pub const POWERSHELL_CLASSIC: Channel = Channel {
    name: "Windows PowerShell",
    provider: "PowerShell",
    guid: "00000000-0000-0000-0000-000000000000",
    keywords: "36028797018963968",
    keywords_hex: "0x80000000000000",
    event_type: "INFO",
};

/// A log-on session's number.
pub fn logon_id(fields: &mut Fields, key: &'static str, random: &mut Random) {
    let session = random.between(0x1_0000, 0x900_0000);
    fields.with(key, |out| {
        out.extend_from_slice(b"0x");
        hex(out, session, 7);
    });
}
