//! What Windows' security log and PowerShell's logs say on an ordinary day.
//!
//! Texts are our own; labels and values are those analysts know. Windows appends a paragraph of
//! explanation to some events, which is where their size comes from.

use super::Scene;
use super::vocabulary::{CMDLETS, DOMAINS, FILES, PROGRAMS, REGISTRY};
use super::windows::{Kind, POWERSHELL, POWERSHELL_CLASSIC, SECURITY, Text, logon_id};
use super::world::{process_guid, profile_path};
use super::write::{decimal, escape};

const fn kind(id: u16, task: u16, category: &'static str, text: &'static str) -> Kind {
    Kind { channel: &SECURITY, id, version: 1, task, category, text: Text::Template(text) }
}

/// The part on who asked, common to most.
macro_rules! subject {
    () => {
        r"\r\n\r\nSubject:\r\n\tSecurity ID:\t\t{SubjectUserSid}\r\n\tAccount Name:\t\t{SubjectUserName}\r\n\tAccount Domain:\t\t{SubjectDomainName}\r\n\tLogon ID:\t\t{SubjectLogonId}"
    };
}

/// 4624, a log-on.
pub const LOGON: Kind = kind(
    4624,
    12544,
    "Logon",
    concat!(
        "A session was opened for an account.",
        subject!(),
        r"\r\n\r\nLogon Information:\r\n\tLogon Type:\t\t{LogonType}\r\n\tElevated Token:\t\t{ElevatedToken}\r\n\r\nNew Logon:\r\n\tSecurity ID:\t\t{TargetUserSid}\r\n\tAccount Name:\t\t{TargetUserName}\r\n\tAccount Domain:\t\t{TargetDomainName}\r\n\tLogon ID:\t\t{TargetLogonId}\r\n\tLogon GUID:\t\t{LogonGuid}\r\n\r\nProcess Information:\r\n\tProcess ID:\t\t{ProcessId}\r\n\tProcess Name:\t\t{ProcessName}\r\n\r\nNetwork Information:\r\n\tWorkstation Name:\t{WorkstationName}\r\n\tSource Network Address:\t{IpAddress}\r\n\tSource Port:\t\t{IpPort}\r\n\r\nDetailed Authentication Information:\r\n\tLogon Process:\t\t{LogonProcessName}\r\n\tAuthentication Package:\t{AuthenticationPackageName}\r\n\tKey Length:\t\t{KeyLength}",
        r"\r\n\r\nThe machine that was reached writes this when it makes the session. The subject is who asked for it locally, often a service. The type tells a person at the keyboard (2) from an access over the network (3), a service (5) or a remote desktop (10). The new logon is the account the session runs as. The network part names where a remote request came from and may be empty. The level of impersonation says how far a process in the session may act for the account; the package and key length say how the account proved itself.",
    ),
);
/// 4634, a log-off.
pub const LOGOFF: Kind = kind(
    4634,
    12545,
    "Logoff",
    r"A session was closed.\r\n\r\nSubject:\r\n\tSecurity ID:\t\t{TargetUserSid}\r\n\tAccount Name:\t\t{TargetUserName}\r\n\tAccount Domain:\t\t{TargetDomainName}\r\n\tLogon ID:\t\t{TargetLogonId}\r\n\r\nLogon Type:\t\t\t{LogonType}\r\n\r\nThe logon ID pairs it with the opening; it is only unique until the machine restarts.",
);
/// 4656, a handle was asked for.
pub const HANDLE: Kind = kind(
    4656,
    12801,
    "Registry",
    concat!(
        "A handle to an object was asked for.",
        subject!(),
        r"\r\n\r\nObject:\r\n\tObject Server:\t\t{ObjectServer}\r\n\tObject Type:\t\t{ObjectType}\r\n\tObject Name:\t\t{ObjectName}\r\n\tHandle ID:\t\t{HandleId}\r\n\r\nProcess Information:\r\n\tProcess ID:\t\t{ProcessId}\r\n\tProcess Name:\t\t{ProcessName}\r\n\r\nAccess Request Information:\r\n\tAccesses:\t\t{AccessList}\r\n\tAccess Mask:\t\t{AccessMask}",
    ),
);
/// 4658, a handle was closed.
pub const HANDLE_CLOSED: Kind = kind(
    4658,
    12801,
    "Registry",
    concat!(
        "A handle to an object was given back.",
        subject!(),
        r"\r\n\r\nObject:\r\n\tObject Server:\t\t{ObjectServer}\r\n\tHandle ID:\t\t{HandleId}\r\n\r\nProcess Information:\r\n\tProcess ID:\t\t{ProcessId}\r\n\tProcess Name:\t\t{ProcessName}",
    ),
);
/// 4663, an object was accessed.
pub const OBJECT_ACCESS: Kind = kind(
    4663,
    12800,
    "File System",
    concat!(
        "An object was accessed.",
        subject!(),
        r"\r\n\r\nObject:\r\n\tObject Server:\t\t{ObjectServer}\r\n\tObject Type:\t\t{ObjectType}\r\n\tObject Name:\t\t{ObjectName}\r\n\tHandle ID:\t\t{HandleId}\r\n\r\nProcess Information:\r\n\tProcess ID:\t\t{ProcessId}\r\n\tProcess Name:\t\t{ProcessName}\r\n\r\nAccess Request Information:\r\n\tAccesses:\t\t{AccessList}\r\n\tAccess Mask:\t\t{AccessMask}",
    ),
);
/// 4672, privileges were given to a log-on.
pub const PRIVILEGES: Kind = kind(
    4672,
    12548,
    "Special Logon",
    concat!("A new session holds special privileges.", subject!(), r"\r\n\r\nPrivileges:\t\t{PrivilegeList}"),
);
/// 4688, a process was created.
pub const PROCESS: Kind = kind(
    4688,
    13312,
    "Process Creation",
    concat!(
        "A process was created.",
        subject!(),
        r"\r\n\r\nProcess Information:\r\n\tNew Process ID:\t\t{NewProcessId}\r\n\tNew Process Name:\t{NewProcessName}\r\n\tToken Elevation Type:\t{TokenElevationType}\r\n\tMandatory Label:\t\t{MandatoryLabel}\r\n\tCreator Process ID:\t{ProcessId}\r\n\tCreator Process Name:\t{ParentProcessName}\r\n\tProcess Command Line:\t{CommandLine}",
        r"\r\n\r\nThe type of elevation says which token user account control gave the process: a full one because control is off or the account is exempt (1), a full one because somebody agreed to run as administrator (2), or a limited one without administrative rights (3), which is the everyday case.",
    ),
);
/// 5145, a file on a share was checked for access.
pub const SHARE: Kind = kind(
    5145,
    12811,
    "Detailed File Share",
    concat!(
        "A client's access to an object on a share was checked.",
        subject!(),
        r"\r\n\r\nNetwork Information:\r\n\tObject Type:\t\t{ObjectType}\r\n\tSource Address:\t\t{IpAddress}\r\n\tSource Port:\t\t{IpPort}\r\n\r\nShare Information:\r\n\tShare Name:\t\t{ShareName}\r\n\tShare Path:\t\t{ShareLocalPath}\r\n\tRelative Target Name:\t{RelativeTargetName}\r\n\r\nAccess Request Information:\r\n\tAccess Mask:\t\t{AccessMask}\r\n\tAccesses:\t\t{AccessList}",
    ),
);
/// 5156, a connection was let through.
pub const CONNECTION: Kind = kind(
    5156,
    12810,
    "Filtering Platform Connection",
    r"The filtering platform let a connection through.\r\n\r\nApplication Information:\r\n\tProcess ID:\t\t{ProcessID}\r\n\tApplication Name:\t{Application}\r\n\r\nNetwork Information:\r\n\tDirection:\t\t{Direction}\r\n\tSource Address:\t\t{SourceAddress}\r\n\tSource Port:\t\t{SourcePort}\r\n\tDestination Address:\t{DestAddress}\r\n\tDestination Port:\t\t{DestPort}\r\n\tProtocol:\t\t{Protocol}\r\n\r\nFilter Information:\r\n\tFilter Run-Time ID:\t{FilterRTID}\r\n\tLayer Name:\t\t{LayerName}\r\n\tLayer Run-Time ID:\t{LayerRTID}",
);
/// 4103, a pipeline of PowerShell.
pub const PIPELINE: Kind = Kind {
    channel: &POWERSHELL,
    id: 4103,
    version: 1,
    task: 106,
    category: "Executing Pipeline",
    text: Text::Template(r"{Payload}\r\n\r\nContext:\r\n{ContextInfo}\r\n\r\nUser Data:\r\n\r\n"),
};
/// 4104, the text of a script.
pub const SCRIPT: Kind = Kind {
    channel: &POWERSHELL,
    id: 4104,
    version: 1,
    task: 2,
    category: "Execute a Remote Command",
    text: Text::Template(
        r"Script block ({MessageNumber} of {MessageTotal}):\r\n{ScriptBlockText}\r\n\r\nScriptBlock ID: {ScriptBlockId}\r\nPath: {Path}",
    ),
};
/// 800, a pipeline in the log of old.
pub const PIPELINE_CLASSIC: Kind = Kind {
    channel: &POWERSHELL_CLASSIC,
    id: 800,
    version: 0,
    task: 8,
    category: "Pipeline Execution Details",
    text: Text::Template(
        r"Pipeline details for: {CommandLine}\r\n\r\nContext:\r\n{Context}\r\n\r\nDetails:\r\n{Details}",
    ),
};

/// Who asked, in four fields.
pub fn subject(scene: &mut Scene<'_>, system: bool) {
    let fields = &mut *scene.fields;
    if system {
        fields.text("SubjectUserSid", "S-1-5-18");
        fields.with("SubjectUserName", |out| {
            escape(out, &scene.host.name);
            out.push(b'$');
        });
        fields.text("SubjectDomainName", &scene.network.domain);
        fields.text("SubjectLogonId", "0x3e7");
    } else {
        fields.text("SubjectUserSid", &scene.host.sid);
        fields.text("SubjectUserName", &scene.host.user);
        fields.text("SubjectDomainName", &scene.network.domain);
        logon_id(fields, "SubjectLogonId", scene.random);
    }
}

/// The account a session is opened or closed for.
pub fn target(scene: &mut Scene<'_>) {
    scene.fields.text("TargetUserSid", &scene.host.sid);
    scene.fields.text("TargetUserName", &scene.host.user);
    scene.fields.text("TargetDomainName", &scene.network.domain);
    logon_id(scene.fields, "TargetLogonId", scene.random);
}

/// 4624.
pub fn logon(scene: &mut Scene<'_>) -> &'static Kind {
    const TYPES: &[(u32, &str)] = &[(6, "3"), (2, "5"), (2, "2"), (1, "7"), (1, "10")];
    let network = *scene.random.weighted(TYPES);
    logon_of(scene, network, None);
    &LOGON
}

/// The fields of 4624 with a type and, for a log-on over the network, where from.
pub fn logon_of(scene: &mut Scene<'_>, logon_type: &str, from: Option<(&str, &str)>) {
    subject(scene, true);
    target(scene);
    let (workstation, address) = from.unwrap_or((&scene.host.name, &scene.host.address));
    let fields = &mut *scene.fields;
    fields.text("LogonType", logon_type);
    fields.text("LogonProcessName", if logon_type == "3" { "NtLmSsp" } else { "Advapi" });
    fields.text("AuthenticationPackageName", if logon_type == "3" { "NTLM" } else { "Negotiate" });
    fields.text("WorkstationName", workstation);
    let session = scene.random.bits();
    fields.with("LogonGuid", |out| process_guid(out, scene.host, session));
    fields.text("TransmittedServices", "-");
    fields.text("LmPackageName", "-");
    fields.text("KeyLength", "128");
    fields.hexadecimal("ProcessId", scene.random.between(0x100, 0x4000));
    fields.text("ProcessName", r"C:\Windows\System32\svchost.exe");
    fields.text("IpAddress", address);
    fields.number("IpPort", scene.random.between(49_152, 65_535));
    fields.text("ImpersonationLevel", "%%1833");
    fields.text("ElevatedToken", "%%1842");
}

/// 4634.
pub fn logoff(scene: &mut Scene<'_>) -> &'static Kind {
    target(scene);
    scene.fields.text("LogonType", "3");
    &LOGOFF
}

fn object_process(scene: &mut Scene<'_>) {
    scene.fields.hexadecimal("ProcessId", scene.random.between(0x100, 0x4000));
    scene.fields.text("ProcessName", scene.random.one(PROGRAMS).path);
}

/// 4656.
pub fn handle(scene: &mut Scene<'_>) -> &'static Kind {
    subject(scene, true);
    scene.fields.text("ObjectServer", "Security");
    scene.fields.text("ObjectType", "Key");
    scene.fields.text("ObjectName", scene.random.one(REGISTRY).0);
    scene.fields.hexadecimal("HandleId", scene.random.between(0x10, 0x4000));
    scene.fields.text("AccessList", "%%1538\r\n\t\t\t\t%%4432\r\n\t\t\t\t%%4435\r\n\t\t\t\t");
    scene.fields.text("AccessMask", "0x20019");
    object_process(scene);
    &HANDLE
}

/// 4658.
pub fn handle_closed(scene: &mut Scene<'_>) -> &'static Kind {
    subject(scene, true);
    scene.fields.text("ObjectServer", "Security");
    scene.fields.hexadecimal("HandleId", scene.random.between(0x10, 0x4000));
    object_process(scene);
    &HANDLE_CLOSED
}

/// 4663.
pub fn object_access(scene: &mut Scene<'_>) -> &'static Kind {
    subject(scene, false);
    scene.fields.text("ObjectServer", "Security");
    scene.fields.text("ObjectType", "File");
    let file = scene.random.one(FILES);
    scene.fields.with("ObjectName", |out| profile_path(out, scene.host, file));
    scene.fields.hexadecimal("HandleId", scene.random.between(0x10, 0x4000));
    scene.fields.text("AccessList", "%%4416\r\n\t\t\t\t");
    scene.fields.text("AccessMask", "0x1");
    object_process(scene);
    &OBJECT_ACCESS
}

/// 4672.
pub fn privileges(scene: &mut Scene<'_>) -> &'static Kind {
    subject(scene, true);
    scene.fields.text(
        "PrivilegeList",
        "SeSecurityPrivilege\r\n\t\t\tSeBackupPrivilege\r\n\t\t\tSeRestorePrivilege\r\n\t\t\tSeTakeOwnershipPrivilege\r\n\t\t\tSeImpersonatePrivilege",
    );
    &PRIVILEGES
}

/// 4688.
pub fn process(scene: &mut Scene<'_>) -> &'static Kind {
    let program = scene.random.one(PROGRAMS);
    subject(scene, program.system);
    let fields = &mut *scene.fields;
    fields.hexadecimal("NewProcessId", scene.random.between(0x100, 0x4000));
    fields.text("NewProcessName", program.path);
    fields.text("TokenElevationType", if program.system { "%%1936" } else { "%%1938" });
    fields.hexadecimal("ProcessId", scene.random.between(0x100, 0x4000));
    fields.text("CommandLine", program.command);
    fields.text("TargetUserSid", "S-1-0-0");
    fields.text("TargetUserName", "-");
    fields.text("TargetLogonId", "0x0");
    fields.text("ParentProcessName", PROGRAMS[scene.random.below(8)].path);
    fields.text("MandatoryLabel", if program.system { "S-1-16-16384" } else { "S-1-16-8192" });
    &PROCESS
}

/// 5145.
pub fn share(scene: &mut Scene<'_>) -> &'static Kind {
    const TARGETS: &[&str] = &["teams\\minutes\\2026-11.docx", "srvsvc", "finance\\ledger-q4.xlsx", "\\"];
    let target = scene.random.one(TARGETS);
    share_of(scene, if *target == "srvsvc" { r"\\*\IPC$" } else { r"\\*\departments" }, target);
    &SHARE
}

/// The fields of 5145 for an object on a share.
pub fn share_of(scene: &mut Scene<'_>, share: &str, target: &str) {
    subject(scene, false);
    let fields = &mut *scene.fields;
    fields.text("ObjectType", "File");
    fields.text("IpAddress", &scene.host.address);
    fields.number("IpPort", scene.random.between(49_152, 65_535));
    fields.text("ShareName", share);
    fields.text("ShareLocalPath", r"\??\D:\shares\departments");
    fields.text("RelativeTargetName", target);
    fields.text("AccessMask", "0x120089");
    fields.text("AccessList", "%%1538\r\n\t\t\t\t%%1541\r\n\t\t\t\t%%4416\r\n\t\t\t\t%%4423\r\n\t\t\t\t");
    fields.text("AccessReason", "-");
}

/// 5156.
pub fn connection(scene: &mut Scene<'_>) -> &'static Kind {
    let (_, address) = scene.random.one(DOMAINS);
    let fields = &mut *scene.fields;
    fields.number("ProcessID", scene.random.between(100, 9000));
    let path = scene.random.one(PROGRAMS).path;
    fields.with("Application", |out| {
        out.extend_from_slice(br"\\device\\harddiskvolume2");
        escape(out, path.strip_prefix("C:").unwrap_or(path));
    });
    fields.text("Direction", "%%14593");
    fields.text("SourceAddress", &scene.host.address);
    fields.number("SourcePort", scene.random.between(49_152, 65_535));
    fields.text("DestAddress", address);
    fields.text("DestPort", "443");
    fields.text("Protocol", "6");
    fields.number("FilterRTID", scene.random.between(60_000, 99_999));
    fields.text("LayerName", "%%14611");
    fields.text("LayerRTID", "48");
    fields.text("RemoteUserID", "S-1-0-0");
    fields.text("RemoteMachineID", "S-1-0-0");
    &CONNECTION
}

/// The block of text on host and user that PowerShell's logs carry, escaped.
fn shell_context(scene: &mut Scene<'_>, key: &'static str, command: &str, cmdlet: &str) {
    let sequence = scene.random.between(10, 9000);
    scene.fields.with(key, |out| {
        out.extend_from_slice(br"        Severity = Informational\r\n        Host Name = ConsoleHost\r\n        Host Version = 5.1.19041.4648\r\n        Host Application = ");
        escape(out, command);
        out.extend_from_slice(br"\r\n        Engine Version = 5.1.19041.4648\r\n        Command Name = ");
        escape(out, cmdlet);
        out.extend_from_slice(br"\r\n        Command Type = Cmdlet\r\n        Script Name = \r\n        Sequence Number = ");
        decimal(out, sequence);
        out.extend_from_slice(br"\r\n        User = ");
        escape(out, &scene.network.domain);
        out.extend_from_slice(br"\\");
        escape(out, &scene.host.user);
        out.extend_from_slice(br"\r\n        Shell ID = Microsoft.PowerShell");
    });
}

/// `CommandInvocation(…)` and what was bound to its parameters.
fn invocation(scene: &mut Scene<'_>, key: &'static str, cmdlet: &str) {
    let count = scene.random.between(1, 6);
    let amount = scene.random.between(1, 60);
    scene.fields.with(key, |out| {
        escape(out, &format!("CommandInvocation({cmdlet}): \"{cmdlet}\"\r\n"));
        for at in 0..count {
            let line =
                format!("ParameterBinding({cmdlet}): name=\"InputObject\"; value=\"{}\"\r\n", amount + at);
            escape(out, &line);
        }
    });
}

/// PowerShell 4103.
pub fn pipeline(scene: &mut Scene<'_>) -> &'static Kind {
    let cmdlet = *scene.random.one(CMDLETS);
    let world = scene.world;
    let script = scene.random.one(&world.scripts);
    shell_context(scene, "ContextInfo", &script.command, cmdlet);
    scene.fields.text("UserData", "");
    invocation(scene, "Payload", cmdlet);
    &PIPELINE
}

/// PowerShell 4104.
pub fn script(scene: &mut Scene<'_>) -> &'static Kind {
    let world = scene.world;
    let script = scene.random.one(&world.scripts);
    script_of(scene, &script.text);
    &SCRIPT
}

/// The fields of 4104 for a script.
pub fn script_of(scene: &mut Scene<'_>, text: &str) {
    scene.fields.text("MessageNumber", "1");
    scene.fields.text("MessageTotal", "1");
    scene.fields.text("ScriptBlockText", text);
    let id = scene.random.uuid();
    scene.fields.text("ScriptBlockId", id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
    scene.fields.text("Path", "");
}

/// PowerShell 800.
pub fn pipeline_classic(scene: &mut Scene<'_>) -> &'static Kind {
    let cmdlet = *scene.random.one(CMDLETS);
    let world = scene.world;
    let script = scene.random.one(&world.scripts);
    scene.fields.text("CommandLine", script.text.lines().nth(1).unwrap_or_default());
    shell_context(scene, "Context", &script.command, cmdlet);
    invocation(scene, "Details", cmdlet);
    &PIPELINE_CLASSIC
}
