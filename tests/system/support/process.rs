//! The real binary as its users run it.

use std::io::Read as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::servers;

/// For tests that look at what is queued for correlation.
pub const INGEST_ONLY: &[(&str, &str)] = &[("INOSEC__ROLES", "[\"ingest\"]")];

/// A configuration file of a test's own.
pub struct Setup {
    pub folder: PathBuf,
    pub config: PathBuf,
}

impl Setup {
    /// Writes `[kafka]`, `[databases.main]` and what is added.
    pub fn new(database_url: &str, group: &str, more: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("inosec-test-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = folder.join("inosec.toml");
        let text = format!(
            "[kafka]\nbrokers = \"{}\"\ngroup = \"{group}\"\n\n[databases.main]\nurl = \"{database_url}\"\n\n{more}\n",
            servers::kafka()
        );
        std::fs::write(&config, text).unwrap();
        Self { folder, config }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_inosec"));
        command.arg("-c").arg(&self.config).args(arguments).env_remove("INOSEC_CONFIG");
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed, and returns its JSON document.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--output", "json"];
        all.extend(arguments);
        let output = self.run(&all);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {}\n{out}\n{err}", output.status);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"))
    }

    /// Starts `inosec run` and waits until it is ready.
    pub fn start(&self, environment: &[(&str, &str)]) -> Running {
        let running = self.spawn(environment);
        running.wait_ready(Duration::from_secs(60));
        running
    }

    /// Starts `inosec run` without waiting.
    pub fn spawn(&self, environment: &[(&str, &str)]) -> Running {
        let port = free_port();
        let log = self.folder.join(format!("run-{port}.log"));
        let file = std::fs::File::create(&log).unwrap();
        let mut command = self.command(&["run"]);
        command.env("INOSEC__METRICS__LISTEN", format!("127.0.0.1:{port}"));
        command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        Running { child: command.spawn().unwrap(), port, log }
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// A running `inosec run`; killed when dropped.
pub struct Running {
    child: Child,
    pub port: u16,
    pub log: PathBuf,
}

impl Running {
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill(2) on a child of ours that has not been waited for.
        #[allow(unsafe_code)]
        let result = unsafe { libc::kill(self.pid(), signal) };
        assert_eq!(result, 0, "kill({signal})");
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then the exit status.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait(Duration::from_secs(40))
    }

    pub fn wait(&mut self, within: Duration) -> std::process::ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {within:?}:\n{}", self.logs());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub fn logs(&self) -> String {
        let mut text = String::new();
        let _ = std::fs::File::open(&self.log).and_then(|mut file| file.read_to_string(&mut text));
        text
    }

    /// The status code and body of a page, if the process answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        use std::io::Write as _;
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: inosec\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n")?.1.to_owned();
        Some((status, body))
    }

    pub fn wait_ready(&self, within: Duration) {
        let deadline = Instant::now() + within;
        while self.get("/readyz").is_none_or(|(status, _)| status != 200) {
            let report = self.get("/readyz");
            assert!(Instant::now() < deadline, "not ready after {within:?}: {report:?}\n{}", self.logs());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// The sum of a metric over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, body) = self.get("/metrics").unwrap_or_default();
        let matching = body.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        });
        matching.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Resident memory in bytes, now and at its peak.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let read = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        (read("VmRSS:").unwrap_or(0) * 1024, read("VmHWM:").unwrap_or(0) * 1024)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.logs();
            let tail: Vec<&str> = logs.lines().rev().take(30).collect();
            eprintln!("last of {}:", self.log.display());
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
        self.kill();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
