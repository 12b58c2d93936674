//! What Sysmon sees on an ordinary day.

use super::Scene;
use super::clock::Stamp;
use super::vocabulary::{DOMAINS, FILES, MODULES, PROGRAMS, Program, REGISTRY};
use super::windows::{Kind, SYSMON, Text};
use super::world::{process_guid, profile_path};
use super::write::{escape, hex};

const fn kind(id: u16, version: u8, category: &'static str, heading: &'static str) -> Kind {
    Kind { channel: &SYSMON, id, version, task: id, category, text: Text::List(heading) }
}

/// A process starts.
pub const PROCESS_CREATE: Kind = kind(1, 5, "Process Create (rule: ProcessCreate)", "Process Create:");
/// A process opens a connection.
pub const NETWORK: Kind =
    kind(3, 5, "Network connection detected (rule: NetworkConnect)", "Network connection detected:");
/// A process loads a module.
pub const IMAGE_LOAD: Kind = kind(7, 3, "Image loaded (rule: ImageLoad)", "Image loaded:");
/// A process opens another.
pub const PROCESS_ACCESS: Kind = kind(10, 3, "Process accessed (rule: ProcessAccess)", "Process accessed:");
/// A file is created.
pub const FILE_CREATE: Kind = kind(11, 2, "File created (rule: FileCreate)", "File created:");
/// A registry key is created or deleted.
pub const REGISTRY_KEY: Kind = kind(
    12,
    2,
    "Registry object added or deleted (rule: RegistryEvent)",
    "Registry object added or deleted:",
);
/// A registry value is set.
pub const REGISTRY_VALUE: Kind =
    kind(13, 2, "Registry value set (rule: RegistryEvent)", "Registry value set:");
/// A name is looked up.
pub const DNS: Kind = kind(22, 5, "Dns query (rule: DnsQuery)", "Dns query:");

/// What every Sysmon event begins with.
pub fn begin(scene: &mut Scene<'_>) {
    scene.fields.text("RuleName", "-");
    scene.fields.with("UtcTime", |out| Stamp::plain_millis(&scene.at, out));
}

/// GUID and number of a process of this host.
fn process(scene: &mut Scene<'_>, guid: &'static str, id: &'static str) {
    let number = scene.random.between(100, 3000) * 4;
    scene.fields.with(guid, |out| process_guid(out, scene.host, number ^ (scene.at.us as u64 >> 34)));
    scene.fields.number(id, number);
}

fn account(scene: &mut Scene<'_>, key: &'static str, program: &Program) {
    scene.fields.with(key, |out| {
        if program.system {
            out.extend_from_slice(br"NT AUTHORITY\\SYSTEM");
        } else {
            out.extend_from_slice(scene.network.domain.as_bytes());
            out.extend_from_slice(br"\\");
            escape(out, &scene.host.user);
        }
    });
}

/// Sysmon 1.
pub fn process_create(scene: &mut Scene<'_>) -> &'static Kind {
    let at = scene.random.below(PROGRAMS.len());
    let program = &PROGRAMS[at];
    let parent = &PROGRAMS[scene.random.below(8)];
    begin(scene);
    process(scene, "ProcessGuid", "ProcessId");
    let fields = &mut *scene.fields;
    fields.text("Image", program.path);
    fields.text("FileVersion", "10.0.19041.1 (WinBuild.160101.0800)");
    fields.text("Description", program.description);
    fields.text("Product", program.product);
    fields.text("Company", program.company);
    fields.text("OriginalFileName", program.path.rsplit('\\').next().unwrap_or("-"));
    if program.path.ends_with("powershell.exe") {
        let script = scene.random.one(&scene.world.scripts);
        fields.text("CommandLine", &script.command);
    } else {
        fields.text("CommandLine", program.command);
    }
    fields.text("CurrentDirectory", r"C:\Windows\system32\");
    account(scene, "User", program);
    let session = scene.random.bits();
    scene.fields.with("LogonGuid", |out| process_guid(out, scene.host, session));
    super::windows::logon_id(scene.fields, "LogonId", scene.random);
    scene.fields.text("TerminalSessionId", if program.system { "0" } else { "1" });
    scene.fields.text("IntegrityLevel", if program.system { "System" } else { "Medium" });
    scene.fields.text("Hashes", &scene.world.program_hashes[at]);
    process(scene, "ParentProcessGuid", "ParentProcessId");
    scene.fields.text("ParentImage", parent.path);
    scene.fields.text("ParentCommandLine", parent.command);
    &PROCESS_CREATE
}

/// Sysmon 3.
pub fn network(scene: &mut Scene<'_>) -> &'static Kind {
    let program = scene.random.one(PROGRAMS);
    let (name, address) = scene.random.one(DOMAINS);
    begin(scene);
    process(scene, "ProcessGuid", "ProcessId");
    scene.fields.text("Image", program.path);
    account(scene, "User", program);
    let fields = &mut *scene.fields;
    fields.text("Protocol", "tcp");
    fields.text("Initiated", "true");
    fields.text("SourceIsIpv6", "false");
    fields.text("SourceIp", &scene.host.address);
    fields.text("SourceHostname", &scene.host.fqdn);
    fields.number("SourcePort", scene.random.between(49_152, 65_535));
    fields.text("SourcePortName", "-");
    fields.text("DestinationIsIpv6", "false");
    fields.text("DestinationIp", address);
    fields.text("DestinationHostname", name);
    fields.text("DestinationPort", "443");
    fields.text("DestinationPortName", "https");
    &NETWORK
}

const DOTNET_HOST: &str = r"C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe";

/// Sysmon 7.
pub fn image_load(scene: &mut Scene<'_>) -> &'static Kind {
    let at = scene.random.below(MODULES.len());
    let (module, description) = MODULES[at];
    begin(scene);
    process(scene, "ProcessGuid", "ProcessId");
    let fields = &mut *scene.fields;
    // Assemblies compiled ahead of time are the unsigned ones, and .NET's hosts load them.
    let signed = !module.contains("NativeImages");
    let image = scene.random.one(PROGRAMS).path;
    fields.text("Image", if signed { image } else { DOTNET_HOST });
    fields.text("ImageLoaded", module);
    fields.text("FileVersion", "10.0.19041.1 (WinBuild.160101.0800)");
    fields.text("Description", description);
    fields.text("Product", "Microsoft® Windows® Operating System");
    fields.text("Company", "Microsoft Corporation");
    fields.text("OriginalFileName", module.rsplit('\\').next().unwrap_or("-"));
    fields.text("Hashes", &scene.world.module_hashes[at]);
    fields.text("Signed", if signed { "true" } else { "false" });
    fields.text("Signature", if signed { "Microsoft Windows" } else { "-" });
    fields.text("SignatureStatus", if signed { "Valid" } else { "Unavailable" });
    &IMAGE_LOAD
}

/// Sysmon 10.
pub fn process_access(scene: &mut Scene<'_>) -> &'static Kind {
    const RIGHTS: &[&str] = &["0x1000", "0x1400", "0x1410", "0x1478", "0x100000", "0x40"];
    begin(scene);
    process(scene, "SourceProcessGUID", "SourceProcessId");
    scene.fields.number("SourceThreadId", scene.random.between(100, 9000));
    scene.fields.text("SourceImage", scene.random.one(PROGRAMS).path);
    process(scene, "TargetProcessGUID", "TargetProcessId");
    scene.fields.text("TargetImage", scene.random.one(PROGRAMS).path);
    let rights = scene.random.one(RIGHTS);
    scene.fields.text("GrantedAccess", rights);
    scene.fields.text("CallTrace", scene.random.one::<String>(&scene.world.stacks));
    &PROCESS_ACCESS
}

/// Sysmon 11.
pub fn file_create(scene: &mut Scene<'_>) -> &'static Kind {
    begin(scene);
    process(scene, "ProcessGuid", "ProcessId");
    scene.fields.text("Image", scene.random.one(PROGRAMS).path);
    let file = scene.random.one(FILES);
    scene.fields.with("TargetFilename", |out| profile_path(out, scene.host, file));
    scene.fields.with("CreationUtcTime", |out| Stamp::plain_millis(&scene.at, out));
    &FILE_CREATE
}

/// Sysmon 12.
pub fn registry_key(scene: &mut Scene<'_>) -> &'static Kind {
    const TYPES: &[&str] = &["CreateKey", "CreateKey", "DeleteValue", "DeleteKey"];
    begin(scene);
    let change = scene.random.one(TYPES);
    scene.fields.text("EventType", change);
    process(scene, "ProcessGuid", "ProcessId");
    scene.fields.text("Image", scene.random.one(PROGRAMS).path);
    scene.fields.text("TargetObject", scene.random.one(REGISTRY).0);
    &REGISTRY_KEY
}

/// Sysmon 13.
pub fn registry_value(scene: &mut Scene<'_>) -> &'static Kind {
    begin(scene);
    scene.fields.text("EventType", "SetValue");
    process(scene, "ProcessGuid", "ProcessId");
    scene.fields.text("Image", scene.random.one(PROGRAMS).path);
    let (key, value) = scene.random.one(REGISTRY);
    scene.fields.text("TargetObject", key);
    scene.fields.text("Details", value);
    &REGISTRY_VALUE
}

/// Sysmon 22.
pub fn dns(scene: &mut Scene<'_>) -> &'static Kind {
    begin(scene);
    process(scene, "ProcessGuid", "ProcessId");
    let (name, address) = scene.random.one(DOMAINS);
    let fields = &mut *scene.fields;
    fields.text("QueryName", name);
    if scene.random.per_mille(60) {
        fields.text("QueryStatus", "9003");
        fields.text("QueryResults", "-");
    } else {
        fields.text("QueryStatus", "0");
        let alias = scene.random.bits();
        fields.with("QueryResults", |out| {
            out.extend_from_slice(b"type:  5 edge-");
            hex(out, alias, 6);
            out.extend_from_slice(b".cdn.example;::ffff:");
            escape(out, address);
            out.push(b';');
        });
    }
    fields.text("Image", scene.random.one(PROGRAMS).path);
    &DNS
}
