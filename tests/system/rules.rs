//! `inosec rules` as its users meet it; no server is asked for anything.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// A folder of a test's own.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("inosec-rules-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// Writes a file and gives its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// `inosec rules …` without any configuration.
pub fn rules(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inosec"));
    command.arg("rules").args(arguments).env_remove("INOSEC_CONFIG").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    rules(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn document(output: &Output) -> Value {
    serde_json::from_str(&out(output)).unwrap_or_else(|error| panic!("{error}: {}", out(output)))
}

/// Each line of stdout, one JSON document.
pub fn documents(output: &Output) -> Vec<Value> {
    out(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const WHOAMI: &str = "title: Whoami
id: 6a4e37a1-2f2c-4a0e-8f2f-5d2a1c4b7e10
level: low
logsource:
  product: windows
  category: process_creation
detection:
  tool:
    Image|endswith: '\\whoami.exe'
    CommandLine|contains: '/all'
  allowed:
    User: 'NT AUTHORITY\\SYSTEM'
  condition: tool and not allowed
";

fn process(image: &str, line: &str, user: &str) -> String {
    json!({
        "EventID": 1, "SourceName": "Microsoft-Windows-Sysmon", "EventReceivedTime": "2026-01-01 00:00:00",
        "Channel": "Microsoft-Windows-Sysmon/Operational", "Hostname": "ws-7",
        "Image": image, "CommandLine": line, "User": user,
    })
    .to_string()
}

#[test]
fn check_names_file_line_and_what_to_change_and_fails_only_on_errors() {
    let folder = Folder::new();
    folder.write("a/whoami.yml", WHOAMI);
    let odd = "title: Odd\nlogsource:\n  product: windoze\ndetection:\n  a:\n    x|re: '.*'\n  b:\n    y: z\n  condition: a\n";
    let odd = folder.write("a/odd.yaml", odd);
    let path = folder.0.display().to_string();
    let good = run(&["check", &path]);
    assert!(good.status.success(), "{}", err(&good));
    let text = out(&good);
    assert!(text.ends_with("2 rules, 0 filters, 0 correlations, 0 errors, 5 warnings\n"), "{text}");
    for part in ["never runs", "products are", "no id", "no level", "doesn't mention `b`", "every value of x"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }

    let broken = WHOAMI.replace("Image|endswith", "Image|endwith").replace("6a4e", "7777");
    let id = WHOAMI.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let many = format!(
        "title: Many\nid: many\ncorrelation: {{type: event_count, rules: [{id}], timespan: 1h, condition: {{gte: 3}}}}\n"
    );
    let broken = folder.write("b/broken.yml", &format!("{broken}---\n{WHOAMI}---\n{many}"));
    let bad = run(&["--output", "json", "check", &path]);
    assert_eq!(bad.status.code(), Some(1));
    let report = document(&bad);
    assert_eq!((&report["rules"], &report["correlations"]), (&json!(2), &json!(1)), "{report}");
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert_eq!((&errors[0]["file"], &errors[0]["line"]), (&json!(broken), &json!(9)));
    assert!(errors[0]["message"].as_str().unwrap().contains("endwith"), "{errors:?}");
    let twice = errors[1]["message"].as_str().unwrap();
    assert!(twice.contains("whoami.yml:1") && twice.contains("has this id"), "{twice}");
    let never =
        report["warnings"].as_array().unwrap().iter().find(|one| one["kind"] == "never-runs").unwrap();
    assert_eq!(never["file"], json!(odd));
}

#[test]
fn what_is_not_there_fails_and_says_so() {
    let nowhere = run(&["check", "/no/such/rules"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(err(&nowhere).contains("/no/such/rules"), "{}", err(&nowhere));
    let none = run(&["list"]);
    assert!(!none.status.success() && err(&none).contains("[rules] paths"), "{}", err(&none));
    let folder = Folder::new();
    let rule = folder.write("r.yml", WHOAMI);
    let events = run(&["eval", "--rules", &rule, "/no/such/events"]);
    assert!(!events.status.success() && err(&events).contains("/no/such/events"));
    let explain = run(&["eval", "--rules", &rule, "--explain", "nobody", &rule]);
    assert!(!explain.status.success() && err(&explain).contains("rules list"), "{}", err(&explain));
}

#[test]
fn rules_and_placeholders_come_from_the_configuration_that_may_lack_all_else() {
    let folder = Folder::new();
    let rule = WHOAMI.replace("CommandLine|contains: '/all'", "User|expand: '%admins%'");
    let rule = folder.write("r.yml", &rule);
    let config = folder.write("inosec.toml", &format!("[rules]\npaths = [{rule:?}]\n"));
    let check = || {
        let mut command = rules(&["--config", &config, "check"]);
        command.env_remove("INOSEC__RULES__PLACEHOLDERS");
        command
    };
    let without = check().output().unwrap();
    assert!(!without.status.success() && out(&without).contains("%admins%"), "{}", out(&without));
    let with = check().env("INOSEC__RULES__PLACEHOLDERS", r#"{ admins = ["eve"] }"#).output().unwrap();
    assert!(with.status.success(), "{}", out(&with));
    let list = rules(&["--config", &config, "--output", "json", "list"])
        .env("INOSEC__RULES__PLACEHOLDERS", r#"{ admins = ["eve"] }"#)
        .output()
        .unwrap();
    let list = document(&list);
    assert_eq!(list[0]["title"], "Whoami");
    assert_eq!(
        (&list[0]["level"], &list[0]["logsource"]),
        (&json!("low"), &json!("windows/process_creation/-"))
    );
}

#[test]
fn eval_prints_hits_in_order_and_counts_the_rest() {
    let folder = Folder::new();
    let second = WHOAMI.replace("6a4e37a1", "0a4e37a1").replace("'/all'", "'whoami'");
    let rules_path = folder.write("rules.yml", &format!("{WHOAMI}---\n{second}"));
    let hit = process(r"C:\Windows\System32\whoami.exe", "WHOAMI /ALL", "eve");
    let miss = process(r"C:\Windows\System32\cmd.exe", "cmd /all", "eve");
    let raw = r#"{"host":"web1","raw":"Mar 27 13:06:56 web1 sshd[1]: Failed password for root from 10.0.0.7 port 4022 ssh2"}"#;
    let text =
        format!("\n{miss}\r\n{hit}\n\n[1]\n{raw}\n{{\"nothing\":1}}\n{{\"event\":{hit},\"host\":\"h\"}}");
    let first = folder.write("events.ndjson", &text);
    let packed = zstd::encode_all(hit.as_bytes(), 3).unwrap();
    let packed_path = folder.0.join("more.ndjson.zst");
    std::fs::write(&packed_path, packed).unwrap();
    let packed_path = packed_path.display().to_string();
    let output = run(&["eval", "--timing", "--rules", &rules_path, &first, &packed_path]);
    assert!(output.status.success(), "{}", err(&output));
    let one = |id: &str, file: &str, line: u64| {
        let id = format!("{id}a4e37a1-2f2c-4a0e-8f2f-5d2a1c4b7e10");
        json!({ "rule_id": id, "title": "Whoami", "file": file, "line": line })
    };
    let expected = [
        one("0", &first, 3),
        one("6", &first, 3),
        one("0", &first, 8),
        one("6", &first, 8),
        one("0", &packed_path, 1),
        one("6", &packed_path, 1),
    ];
    assert_eq!(documents(&output), expected);
    let said = err(&output);
    for part in
        ["7 events, 6 hits", "1 lines can't be read", "events.ndjson:5: an array", "json 1", "match", "parse"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }

    let mut piped = rules(&["eval", "--rules", &rules_path, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(hit.as_bytes()).unwrap();
    let piped = piped.wait_with_output().unwrap();
    assert_eq!(documents(&piped), [one("0", "-", 1), one("6", "-", 1)]);
}

#[test]
fn a_bad_rule_is_named_and_the_others_run() {
    let folder = Folder::new();
    let rules_path = folder.write("rules.yml", &format!("title: Bad\n---\n{WHOAMI}"));
    let events = folder.write("events", &process(r"C:\whoami.exe", "whoami /all", "eve"));
    let output = run(&["eval", "--rules", &rules_path, &events]);
    assert!(output.status.success() && err(&output).contains("rule Bad"), "{}", err(&output));
    assert_eq!(documents(&output).len(), 1);
}

#[test]
fn a_filter_document_holds_for_the_rules_it_names() {
    let folder = Folder::new();
    let filter = "title: Not eve\nlogsource:\n  product: windows\nfilter:\n  rules: any\n  eve:\n    User: eve\n  condition: not eve\n";
    let rules_path = folder.write("rules.yml", &format!("{WHOAMI}---\n{filter}"));
    let line = |user| process(r"C:\whoami.exe", "whoami /all", user);
    let events = folder.write("events", &format!("{}\n{}\n", line("eve"), line("bob")));
    let output = run(&["eval", "--rules", &rules_path, &events]);
    let lines: Vec<Value> = documents(&output).iter().map(|hit| hit["line"].clone()).collect();
    assert_eq!(lines, [json!(2)]);
    let why = out(&run(&["eval", "--rules", &rules_path, "--explain", "Whoami", &events]));
    assert!(why.contains("no   filter Not eve") && why.contains("yes  filter Not eve"), "{why}");
}

#[test]
fn explain_says_which_part_of_which_selection_held() {
    let folder = Folder::new();
    let rules_path = folder.write("rules.yml", WHOAMI);
    let text = [
        process(r"C:\whoami.exe", "whoami /all", "eve"),
        process(r"C:\whoami.exe", "whoami /all", r"NT AUTHORITY\SYSTEM"),
        process(r"C:\whoami.exe", "whoami", "eve"),
        "Mar 27 13:06:56 web1 sshd[1]: hello".to_owned(),
        r#"{"nothing":1}"#.to_owned(),
        "[".to_owned(),
    ];
    let events = folder.write("events", &text.join("\n"));
    let explained =
        run(&["--output", "json", "eval", "--rules", &rules_path, "--explain", "Whoami", &events]);
    let explained = documents(&explained);
    let verdicts: Vec<&str> = explained.iter().map(|one| one["verdict"].as_str().unwrap()).collect();
    let expected = ["match", "no match", "no match", "other log", "not classified", "unreadable"];
    assert_eq!(verdicts, expected);
    let selections = &explained[2]["selections"];
    assert_eq!((&selections[0]["name"], &selections[0]["holds"]), (&json!("tool"), &json!(false)));
    let parts = &selections[0]["parts"];
    assert_eq!((&parts[0]["holds"], &parts[1]["holds"]), (&json!(true), &json!(false)));
    assert_eq!(parts[1]["values"]["CommandLine"], json!(["\"whoami\""]));
    assert_eq!(explained[1]["selections"][1]["holds"], json!(true));
    let text = out(&run(&["eval", "--rules", &rules_path, "--explain", "Whoami", &events]));
    for part in [
        "condition  tool and not allowed",
        "windows/process_creation/sysmon",
        "is of linux/-/sshd",
        "format json",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn our_pack_behaves_as_its_fixtures_say() {
    let pack = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let output = run(&["--output", "json", "test", &pack.display().to_string()]);
    let report = document(&output);
    assert!(output.status.success(), "{report:#}");
    assert!(report["rules"].as_u64().unwrap() >= 180, "{report}");
    assert!(report["correlations"].as_u64().unwrap() >= 60, "{report}");
    let checked = run(&["--output", "json", "check", &pack.display().to_string()]);
    let checked = document(&checked);
    assert_eq!(checked["errors"], json!([]));
    let never = checked["warnings"].as_array().unwrap().iter().filter(|one| one["kind"] == "never-runs");
    assert_eq!(never.count(), 0, "each of our rules runs on events of some format");
    let warnings = checked["warnings"].as_array().unwrap();
    assert!(warnings.iter().all(|one| one["kind"] != "silenced"), "no rule loses its alerts unawares");
}

#[test]
fn a_pack_fails_by_file_line_and_reason() {
    let folder = Folder::new();
    folder.write("detection/win/whoami.yml", WHOAMI);
    folder.write("detection/win/bare.yml", &WHOAMI.replace("6a4e", "7777"));
    let line = |fires: bool, why: &str, event: &str| {
        format!("{{\"fires\":{fires},\"why\":{why:?},\"event\":{event}}}\n")
    };
    let hit = process(r"C:\whoami.exe", "whoami /all", "eve");
    let miss = process(r"C:\whoami.exe", "whoami", "eve");
    let other =
        r#"{"timestamp":"2026-01-01T10:16:40.480073+0000","event_type":"dns","src_ip":"1.2.3.4","dns":{}}"#;
    let sound = line(true, "one", &hit)
        + &line(true, "two", &hit)
        + &line(false, "near", &miss)
        + &line(false, "an other log", other);
    folder.write("fixtures/win/whoami.ndjson", &sound);
    let path = folder.0.display().to_string();
    let report = out(&run(&["test", &path]));
    assert!(report.contains("bare.ndjson:1: rule 7777"), "{report}");
    assert!(report.contains("2 rules, 2 events fire, 2 near-misses, 1 failures"), "{report}");
    let only = folder.0.join("detection/win/whoami.yml").display().to_string();
    assert!(run(&["test", &only]).status.success(), "a rule of the pack alone");

    let unsound = line(true, "does not", &miss)
        + &line(false, "fires", &hit)
        + &line(false, "elsewhere", other)
        + "{\"fires\":true}\n"
        + "{\"fires\":false,\"why\":\"raw\",\"raw\":\"Mar 27 13:06:56 web1 sshd[1]: hello\"}\n";
    let fixture = folder.write("fixtures/win/whoami.ndjson", &unsound);
    let output = run(&["test", &only]);
    assert_eq!(output.status.code(), Some(1));
    let report = out(&output);
    for part in [
        ":1: rule 6a4e37a1-2f2c-4a0e-8f2f-5d2a1c4b7e10: 1 events that fire",
        ":1: rule 6a4e37a1-2f2c-4a0e-8f2f-5d2a1c4b7e10: does not fire: does not",
        ":2: rule 6a4e37a1-2f2c-4a0e-8f2f-5d2a1c4b7e10: a near-miss fires: fires",
        ":3: rule 6a4e37a1-2f2c-4a0e-8f2f-5d2a1c4b7e10: a near-miss that proves nothing, it is of suricata",
        ":4: rule 6a4e37a1-2f2c-4a0e-8f2f-5d2a1c4b7e10: not a fixture",
        ":5: rule 6a4e37a1-2f2c-4a0e-8f2f-5d2a1c4b7e10: a near-miss that proves nothing, it is of linux",
    ] {
        assert!(report.contains(&format!("{fixture}{part}")), "{part}: {report}");
    }
}

#[test]
fn a_sample_names_the_slowest_rules() {
    let folder = Folder::new();
    let slow =
        WHOAMI.replace("6a4e", "7777").replace("CommandLine|contains: '/all'", "CommandLine|re: '(a|b)*c$'");
    let keywords = "title: Words\nid: w\nlevel: low\nlogsource:\n  product: windows\ndetection:\n  words:\n    - 'ws-7'\n  condition: words\n";
    let path = folder.write("rules.yml", &format!("{WHOAMI}---\n{slow}---\n{keywords}"));
    let line = process(r"C:\whoami.exe", "whoami /all", "eve") + "\n";
    let events = folder.write("events", &line.repeat(500));
    let report = document(&run(&["--output", "json", "check", "--sample", &events, &path]));
    assert_eq!(
        (&report["sample"]["events"], &report["sample"]["rules"]),
        (&json!(500), &json!(3)),
        "{report}"
    );
    let slowest = report["sample"]["slowest"].as_array().unwrap();
    let hits = |title: &str| slowest.iter().find(|one| one["rule"] == *title).unwrap()["hits"].clone();
    assert_eq!(hits("6a4e37a1-2f2c-4a0e-8f2f-5d2a1c4b7e10"), json!(500));
    assert_eq!(hits("w"), json!(500), "a keyword lies in a field that this rule doesn't name");
    let text = out(&run(&["check", "--sample", &events, &path]));
    assert!(text.contains("slowest of 3 rules that ran on 500 events"), "{text}");
}
