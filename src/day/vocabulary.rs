//! What runs, is loaded, asked for and written on an ordinary office network.

/// A program.
#[derive(Debug)]
pub struct Program {
    /// Where it lies.
    pub path: &'static str,
    /// What its version resource says it is.
    pub description: &'static str,
    /// The product it belongs to.
    pub product: &'static str,
    /// Who made it.
    pub company: &'static str,
    /// How it is usually started.
    pub command: &'static str,
    /// Whether it runs as the machine rather than as the person at it.
    pub system: bool,
}

const MS: &str = "Microsoft Corporation";
const WINDOWS: &str = "Microsoft® Windows® Operating System";

const fn own(path: &'static str, description: &'static str, command: &'static str, system: bool) -> Program {
    Program { path, description, product: WINDOWS, company: MS, command, system }
}

const fn other(
    path: &'static str,
    description: &'static str,
    product: &'static str,
    company: &'static str,
    command: &'static str,
) -> Program {
    Program { path, description, product, company, command, system: false }
}

/// Programs. The first eight belong to Windows itself and start the others.
pub const PROGRAMS: &[Program] = &[
    own(
        r"C:\Windows\System32\svchost.exe",
        "Host Process for Windows Services",
        r"C:\Windows\system32\svchost.exe -k netsvcs -p -s Schedule",
        true,
    ),
    own(
        r"C:\Windows\System32\services.exe",
        "Services and Controller app",
        r"C:\Windows\system32\services.exe",
        true,
    ),
    own(
        r"C:\Windows\System32\lsass.exe",
        "Local Security Authority Process",
        r"C:\Windows\system32\lsass.exe",
        true,
    ),
    own(r"C:\Windows\explorer.exe", "Windows Explorer", r"C:\Windows\Explorer.EXE", false),
    own(
        r"C:\Windows\System32\taskhostw.exe",
        "Host Process for Windows Tasks",
        r"taskhostw.exe -RegisterDevice -ProtectionStateChanged",
        true,
    ),
    own(
        r"C:\Windows\System32\wbem\WmiPrvSE.exe",
        "WMI Provider Host",
        r"C:\Windows\system32\wbem\wmiprvse.exe -secured -Embedding",
        true,
    ),
    own(
        r"C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe",
        "Windows PowerShell",
        r#""C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe" -NoProfile -File C:\ProgramData\Fleet\inventory.ps1"#,
        true,
    ),
    own(
        r"C:\Windows\System32\cmd.exe",
        "Windows Command Processor",
        r#"C:\Windows\system32\cmd.exe /c "C:\ProgramData\Fleet\mapdrives.cmd""#,
        false,
    ),
    own(
        r"C:\Windows\System32\conhost.exe",
        "Console Window Host",
        r"\??\C:\Windows\system32\conhost.exe 0xffffffff -ForceV1",
        false,
    ),
    own(
        r"C:\Windows\System32\dllhost.exe",
        "COM Surrogate",
        r"C:\Windows\system32\DllHost.exe /Processid:{AB8902B4-09CA-4BB6-B78D-A8F59079A8D5}",
        false,
    ),
    own(
        r"C:\Windows\System32\RuntimeBroker.exe",
        "Runtime Broker",
        r"C:\Windows\System32\RuntimeBroker.exe -Embedding",
        false,
    ),
    own(
        r"C:\Windows\System32\SearchIndexer.exe",
        "Microsoft Windows Search Indexer",
        r"C:\Windows\system32\SearchIndexer.exe /Embedding",
        true,
    ),
    own(
        r"C:\Windows\System32\spoolsv.exe",
        "Spooler SubSystem App",
        r"C:\Windows\System32\spoolsv.exe",
        true,
    ),
    own(
        r"C:\Windows\System32\gpupdate.exe",
        "Microsoft Group Policy Update Utility",
        r"gpupdate.exe /target:user",
        true,
    ),
    own(
        r"C:\Windows\System32\MusNotification.exe",
        "MusNotification.exe",
        r"C:\Windows\system32\MusNotification.exe Display",
        true,
    ),
    own(
        r"C:\Windows\servicing\TrustedInstaller.exe",
        "Windows Modules Installer",
        r"C:\Windows\servicing\TrustedInstaller.exe",
        true,
    ),
    other(
        r"C:\Program Files\Google\Chrome\Application\chrome.exe",
        "Google Chrome",
        "Google Chrome",
        "Google LLC",
        r#""C:\Program Files\Google\Chrome\Application\chrome.exe" --type=renderer --lang=en-GB --device-scale-factor=1 --num-raster-threads=2 --renderer-client-id=41"#,
    ),
    other(
        r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
        "Microsoft Edge",
        "Microsoft Edge",
        MS,
        r#""C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe" --type=utility --utility-sub-type=network.mojom.NetworkService --lang=en-GB"#,
    ),
    other(
        r"C:\Program Files\Microsoft Office\root\Office16\OUTLOOK.EXE",
        "Microsoft Outlook",
        "Microsoft Office",
        MS,
        r#""C:\Program Files\Microsoft Office\root\Office16\OUTLOOK.EXE""#,
    ),
    other(
        r"C:\Program Files\Microsoft Office\root\Office16\EXCEL.EXE",
        "Microsoft Excel",
        "Microsoft Office",
        MS,
        r#""C:\Program Files\Microsoft Office\root\Office16\EXCEL.EXE" /dde"#,
    ),
    other(
        r"C:\Program Files\Microsoft Office\root\Office16\WINWORD.EXE",
        "Microsoft Word",
        "Microsoft Office",
        MS,
        r#""C:\Program Files\Microsoft Office\root\Office16\WINWORD.EXE" /n "Quarterly plan.docx""#,
    ),
    other(
        r"C:\Program Files\Ledgerline\ledger.exe",
        "Ledgerline Desktop",
        "Ledgerline",
        "Ledgerline Software AB",
        r#""C:\Program Files\Ledgerline\ledger.exe" --profile default --sync"#,
    ),
    other(
        r"C:\Program Files\Fleet Agent\fleetagent.exe",
        "Fleet Agent",
        "Fleet Agent",
        "Fleet Systems Ltd",
        r#""C:\Program Files\Fleet Agent\fleetagent.exe" --service"#,
    ),
    other(
        r"C:\Program Files\7-Zip\7zFM.exe",
        "7-Zip File Manager",
        "7-Zip",
        "Igor Pavlov",
        r#""C:\Program Files\7-Zip\7zFM.exe" "C:\Users\Public\Documents\minutes.zip""#,
    ),
];

/// Modules processes load.
pub const MODULES: &[(&str, &str)] = &[
    (r"C:\Windows\System32\ntdll.dll", "NT Layer DLL"),
    (r"C:\Windows\System32\kernel32.dll", "Windows NT BASE API Client DLL"),
    (r"C:\Windows\System32\KernelBase.dll", "Windows NT BASE API Client DLL"),
    (r"C:\Windows\System32\advapi32.dll", "Advanced Windows 32 Base API"),
    (r"C:\Windows\System32\combase.dll", "Microsoft COM for Windows"),
    (r"C:\Windows\System32\sechost.dll", "Host for SCM/SDDL/LSA Lookup APIs"),
    (r"C:\Windows\System32\rpcrt4.dll", "Remote Procedure Call Runtime"),
    (r"C:\Windows\System32\ws2_32.dll", "Windows Socket 2.0 32-Bit DLL"),
    (r"C:\Windows\System32\wininet.dll", "Internet Extensions for Win32"),
    (r"C:\Windows\System32\amsi.dll", "Anti-Malware Scan Interface"),
    (r"C:\Windows\System32\taskschd.dll", "Task Scheduler COM API"),
    (r"C:\Windows\System32\samlib.dll", "SAM Library DLL"),
    (r"C:\Windows\System32\wbem\wbemprox.dll", "WMI"),
    (r"C:\Windows\System32\dbghelp.dll", "Windows Image Helper"),
    (r"C:\Windows\System32\propsys.dll", "Microsoft Property System"),
    (
        r"C:\Windows\Microsoft.NET\Framework64\v4.0.30319\clr.dll",
        "Microsoft .NET Runtime Common Language Runtime - WorkStation",
    ),
    (
        r"C:\Windows\assembly\NativeImages_v4.0.30319_64\System.Core\8f5c61b6bdbc2a5d\System.Core.ni.dll",
        ".NET Framework",
    ),
];

/// Registry keys and values that are touched all day.
pub const REGISTRY: &[(&str, &str)] = &[
    (r"HKLM\System\CurrentControlSet\Services\bam\State\UserSettings", "Binary Data"),
    (
        r"HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Schedule\TaskCache\Tree\Fleet\Inventory\Index",
        "DWORD (0x00000003)",
    ),
    (
        r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\WindowsUpdate\Orchestrator\USO_WakeTimer",
        "QWORD (0x01d6f3a2-0x8c2f1b40)",
    ),
    (
        r"HKU\.DEFAULT\Software\Microsoft\Windows\CurrentVersion\Internet Settings\ProxyEnable",
        "DWORD (0x00000000)",
    ),
    (
        r"HKLM\System\CurrentControlSet\Services\Tcpip\Parameters\Interfaces\{1f0a9b1c-57f3-4a5e-8a75-8f2a90d1c3b7}\LeaseObtainedTime",
        "DWORD (0x5f8d40a6)",
    ),
    (r"HKLM\SOFTWARE\Policies\Microsoft\SystemCertificates\Root\Certificates", "Binary Data"),
    (
        r"HKU\S-1-5-20\Software\Microsoft\Windows\CurrentVersion\Explorer\SessionInfo\LogonCount",
        "DWORD (0x00000012)",
    ),
    (r"HKLM\System\CurrentControlSet\Control\Lsa\LmCompatibilityLevel", "DWORD (0x00000005)"),
    (
        r"HKU\S-1-5-21-1000000000-1117-1104\Software\Classes\Local Settings\Software\Microsoft\Windows\CurrentVersion\AppModel\SystemAppData\Microsoft.Windows.ContentDeliveryManager_cw5n1h2txyewy\Internet.Explorer.Settings\LastSync",
        "QWORD (0x01d6a5e1-0x3e9d0f72)",
    ),
    (
        r"HKU\S-1-5-21-1000000000-1121-1104\Software\Microsoft\Windows\CurrentVersion\CloudStore\Store\DefaultAccount\Current\default$windows.data.unifiedtile.localstartvolatiletilepropertiesmap\windows.data.unifiedtile.localstartvolatiletilepropertiesmap\Data",
        "Binary Data",
    ),
    (
        r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing\Packages\Package_for_RollupFix~31bf3856ad364e35~amd64~~19041.4648.1.9\Owners\Microsoft-Windows-Foundation-Package~31bf3856ad364e35~amd64~~10.0.19041.1",
        "DWORD (0x00020070)",
    ),
    (r"HKLM\SOFTWARE\Microsoft\SystemCertificates\AuthRoot\AutoUpdate\EncodedCtl", "Binary Data"),
    (
        r"HKLM\System\CurrentControlSet\Services\W32Time\Config\LastKnownGoodTime",
        "QWORD (0x01d6a5e1-0x3e9d0f72)",
    ),
];

/// Files that are written all day; `~` is the person's profile folder.
pub const FILES: &[&str] = &[
    r"~\AppData\Local\Temp\~DF3A19.tmp",
    r"~\AppData\Local\Google\Chrome\User Data\Default\Cache\f_0012a4",
    r"~\AppData\Roaming\Microsoft\Office\Recent\index.dat",
    r"~\Documents\Quarterly plan.docx",
    r"~\Downloads\invoice-2291.pdf",
    r"C:\Windows\Prefetch\CHROME.EXE-5A1054AF.pf",
    r"C:\Windows\Temp\fleet-inventory.json",
    r"C:\ProgramData\Microsoft\Windows Defender\Scans\History\CacheManager\MpSfc.bin",
    r"C:\Windows\SoftwareDistribution\DataStore\Logs\edb.log",
    r"C:\ProgramData\Fleet\queue\outbox-0007.bin",
];

/// Names that are looked up, and where they point (documentation addresses, RFC 5737).
pub const DOMAINS: &[(&str, &str)] = &[
    ("www.google.com", "198.51.100.14"),
    ("outlook.office365.com", "198.51.100.21"),
    ("login.microsoftonline.com", "198.51.100.22"),
    ("ctldl.windowsupdate.com", "198.51.100.30"),
    ("settings-win.data.microsoft.com", "198.51.100.31"),
    ("clients4.google.com", "198.51.100.15"),
    ("fonts.gstatic.com", "198.51.100.16"),
    ("api.fleet-systems.example", "192.0.2.40"),
    ("sync.ledgerline.example", "192.0.2.51"),
    ("updates.ledgerline.example", "192.0.2.52"),
    ("cdn.newsroom.example", "192.0.2.88"),
    ("www.weather.example", "192.0.2.90"),
    ("packages.linux.example", "192.0.2.120"),
    ("time.example.net", "192.0.2.123"),
    ("registry.containers.example", "192.0.2.131"),
];

/// First halves of people's account names; the second is a letter.
pub const PEOPLE: &[&str] = &[
    "ada", "björn", "carmen", "dmitri", "elif", "farah", "giulia", "hanna", "ines", "jonas", "kaito",
    "leila", "marta", "nils", "olga", "priya", "quentin", "rosa", "samir", "tove", "uma", "viktor",
];

/// Lines administrators' scripts are made of.
pub const SCRIPT_LINES: &[&str] = &[
    "$ErrorActionPreference = 'Stop'",
    "$inventory = @{}",
    "foreach ($disk in Get-CimInstance -ClassName Win32_LogicalDisk) { $inventory[$disk.DeviceID] = $disk.FreeSpace }",
    "$services = Get-Service | Where-Object { $_.Status -eq 'Running' } | Select-Object Name, StartType",
    "if (-not (Test-Path -Path $target)) { New-Item -ItemType Directory -Path $target -Force | Out-Null }",
    "Get-ChildItem -Path $env:ProgramData -Filter *.log -Recurse | Where-Object LastWriteTime -lt (Get-Date).AddDays(-14) | Remove-Item",
    "$patches = Get-HotFix | Sort-Object InstalledOn -Descending | Select-Object -First 20",
    "Write-EventLog -LogName Application -Source Fleet -EventId 210 -Message \"inventory of $env:COMPUTERNAME done\"",
    "$body = $inventory | ConvertTo-Json -Depth 4 -Compress",
    "Invoke-RestMethod -Method Post -Uri 'https://api.fleet-systems.example/v2/inventory' -Body $body -ContentType 'application/json'",
    "$printers = Get-Printer | Where-Object Shared | ForEach-Object { [pscustomobject]@{ Name = $_.Name; Port = $_.PortName } }",
    "Start-Sleep -Seconds (Get-Random -Minimum 3 -Maximum 30)",
];

/// Commands that PowerShell's module log names.
pub const CMDLETS: &[&str] = &[
    "Get-CimInstance",
    "Where-Object",
    "ForEach-Object",
    "Select-Object",
    "ConvertTo-Json",
    "Get-Service",
    "Test-Path",
    "New-Item",
    "Get-ChildItem",
    "Start-Sleep",
    "Out-Null",
    "Write-EventLog",
];

/// Tenants' names; what follows is the mail domain's first part.
pub const TENANTS: &[(&str, &str)] = &[
    ("Aurora Bank", "aurora"),
    ("Borealis Energy", "borealis"),
    ("Cascade Clinics", "cascade"),
    ("Delta Freight", "delta"),
    ("Ember Foods", "ember"),
    ("Fjord Insurance", "fjord"),
    ("Granite Works", "granite"),
    ("Harbour Media", "harbour"),
];
