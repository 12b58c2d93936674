//! A PostgreSQL server of our own, for the demo and for tests: its own data folder and port, trusted
//! connections from this machine only, gone when the value is dropped.
//!
//! In: a folder and [`Options`]. Out: a running server and its URL. What a killed predecessor left in
//! the folder, data or process, is removed first; a folder with anything else in it is refused. Needs
//! the binaries `initdb` and `postgres`, which are found by `INOSEC_POSTGRES_BIN`, by `PATH` or where
//! distributions put them. PostgreSQL refuses to run as root; then another user id is taken on.
//!
//! All calls block, a start for one to two seconds.

mod binaries;
mod identity;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use binaries::Binaries;
use identity::Identity;

/// How long a server may take to start or to stop. After a crash it replays its log first.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often its state is looked at meanwhile.
const GLANCE: Duration = Duration::from_millis(20);
/// The file that says a folder is ours to delete.
const MARK: &str = "made-by-inosec";
/// What the superuser is called; connections are trusted.
const SUPERUSER: &str = "postgres";
/// The database that is made besides PostgreSQL's own.
const DATABASE: &str = "inosec";

/// How to run the server.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lines for `postgresql.conf`, name and value; the value is quoted as needed.
    pub settings: Vec<(String, String)>,
    /// The port; by default a free one.
    pub port: Option<u16>,
}

impl Options {
    /// Adds a setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// How to stop the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Connections are cut, what is committed is written out.
    Fast,
    /// At once, as in a crash; the log is replayed at the next start.
    Immediate,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The binaries aren't installed.
    #[error(
        "PostgreSQL's programs initdb and postgres were not found (looked in {looked_in}); install them \
         (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server) or set \
         INOSEC_POSTGRES_BIN to the folder that holds them"
    )]
    NotInstalled {
        /// Where they were looked for.
        looked_in: String,
    },
    /// The folder holds something that isn't ours.
    #[error("{} holds something inosec did not make: choose another folder", .0.display())]
    Foreign(PathBuf),
    /// We are root and can't become anybody else.
    #[error(
        "PostgreSQL doesn't run as root, and no other user can use {}: run as an ordinary user, or choose \
         a folder all of whose parents others may enter",
        .0.display()
    )]
    Root(PathBuf),
    /// A program failed.
    #[error("{program} failed: {text}")]
    Program {
        /// Which.
        program: &'static str,
        /// The end of what it printed.
        text: String,
    },
    /// It neither started nor stopped in time.
    #[error("PostgreSQL did not {what} within {PATIENCE:?}: see {}", .log.display())]
    Slow {
        /// What it was to do.
        what: &'static str,
        /// Its log.
        log: PathBuf,
    },
    /// A file or process could not be used.
    #[error("{what}: {source}")]
    Io {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
}

/// A running (or stopped, or killed) server.
#[derive(Debug)]
pub struct PrivatePostgres {
    folder: PathBuf,
    binaries: Binaries,
    identity: Identity,
    port: u16,
    child: Option<Child>,
}

impl PrivatePostgres {
    /// Makes a data folder inside `folder`, and starts a server on it.
    pub fn start(folder: &Path, options: &Options) -> Result<Self, Error> {
        let binaries = binaries::find(&binaries::places())?;
        prepare(folder)?;
        let folder = folder.canonicalize().map_err(io("folder", folder))?;
        let identity = Identity::choose(&folder, &binaries)?;
        let port = match options.port {
            Some(port) => port,
            None => free_port().map_err(io("a free port", &folder))?,
        };
        let mut server = Self { folder, binaries, identity, port, child: None };
        server.initialise(options)?;
        server.resume()?;
        Ok(server)
    }

    /// Where to connect as superuser.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data folder.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What it prints.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    /// The postmaster's process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it again on the same data and port, waiting until it takes connections. Does nothing
    /// while it runs.
    pub fn resume(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        while self.child.is_none() {
            let child = self.launch()?;
            if self.ready(child, deadline)? {
                break;
            }
            // Killed outright, its children may hold the shared memory for another moment.
            std::thread::park_timeout(10 * GLANCE);
        }
        Ok(())
    }

    /// Stops it and waits until it is gone.
    pub fn stop(&mut self, mode: Mode) -> Result<(), Error> {
        self.end(match mode {
            Mode::Fast => "INT",
            Mode::Immediate => "QUIT",
        })
    }

    /// Kills the postmaster with SIGKILL; its children notice and end by themselves.
    pub fn kill9(&mut self) -> Result<(), Error> {
        self.end("KILL")
    }

    /// Stops it and starts it again.
    pub fn restart(&mut self, mode: Mode) -> Result<(), Error> {
        self.stop(mode)?;
        self.resume()
    }

    fn initialise(&self, options: &Options) -> Result<(), Error> {
        let data = self.data_dir();
        let mut initdb = self.identity.command(&self.binaries.initdb);
        initdb.arg("-D").arg(&data).args(["-U", SUPERUSER, "--auth=trust", "--no-sync"]);
        initdb.args(["-E", "UTF8", "--locale=C.UTF-8"]);
        run("initdb", initdb, "")?;
        let mut text = format!("\nport = {}\nlisten_addresses = '127.0.0.1'\n", self.port);
        // No socket file: its path may not exceed 107 bytes, and folders are the caller's choice.
        text.push_str("unix_socket_directories = ''\n");
        for (name, value) in &options.settings {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        let file = data.join("postgresql.conf");
        let append = OpenOptions::new().append(true).open(&file);
        append.and_then(|mut conf| conf.write_all(text.as_bytes())).map_err(io("settings", &file))?;
        let mut single = self.identity.command(&self.binaries.postgres);
        single.args(["--single", "-D"]).arg(&data).args(["-c", "log_min_messages=error", SUPERUSER]);
        run("postgres --single", single, &format!("CREATE DATABASE {DATABASE}\n"))
    }

    fn launch(&self) -> Result<Child, Error> {
        let log = File::create(self.log()).map_err(io("log", &self.log()))?;
        let both = log.try_clone().map_err(io("log", &self.log()))?;
        let mut postgres = self.identity.command(&self.binaries.postgres);
        postgres.arg("-D").arg(self.data_dir()).stdin(Stdio::null()).stdout(log).stderr(both);
        // A process group of its own: Ctrl-C at the terminal is for us, we still need the server.
        postgres.process_group(0).spawn().map_err(io("postgres", &self.binaries.postgres))
    }

    /// Waits for the server to take connections; false if it can't just yet.
    fn ready(&mut self, mut child: Child, deadline: Instant) -> Result<bool, Error> {
        loop {
            if child.try_wait().map_err(io("postgres", &self.folder))?.is_some() {
                let text = tail(&fs::read_to_string(self.log()).unwrap_or_default());
                let passing = text.contains("shared memory") || text.contains("postmaster.pid");
                if passing && Instant::now() < deadline {
                    return Ok(false);
                }
                return Err(Error::Program { program: "postgres", text });
            }
            if status(&self.data_dir()).is_some_and(|(pid, ready)| ready && pid == child.id()) {
                self.child = Some(child);
                return Ok(true);
            }
            if Instant::now() > deadline {
                signal(child.id(), "QUIT");
                let _ = child.wait();
                return Err(Error::Slow { what: "start", log: self.log() });
            }
            std::thread::park_timeout(GLANCE);
        }
    }

    fn end(&mut self, name: &str) -> Result<(), Error> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        signal(child.id(), name);
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().map_err(io("postgres", &self.folder))?.is_none() {
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::Slow { what: "stop", log: self.log() });
            }
            std::thread::park_timeout(GLANCE);
        }
        Ok(())
    }
}

impl Drop for PrivatePostgres {
    /// Stops at once and deletes the data; the log stays.
    fn drop(&mut self) {
        if let Err(error) = self.stop(Mode::Immediate) {
            tracing::warn!(%error, "the private PostgreSQL did not stop");
        }
        if let Err(error) = remove(&self.data_dir()) {
            tracing::warn!(%error, "the private PostgreSQL's data could not be deleted");
        }
    }
}

/// Makes the folder, or clears away what a predecessor left.
fn prepare(folder: &Path) -> Result<(), Error> {
    let data = folder.join("data");
    if data.exists() {
        if !folder.join(MARK).is_file() {
            return Err(Error::Foreign(folder.to_owned()));
        }
        end_predecessor(&data);
        remove(&data).map_err(io("what a predecessor left", &data))?;
    }
    fs::create_dir_all(folder).map_err(io("folder", folder))?;
    let mark = folder.join(MARK);
    fs::write(&mark, "This folder is inosec's to delete.\n").map_err(io("folder", &mark))
}

/// Ends a server that still runs on this data: its parent was killed.
fn end_predecessor(data: &Path) {
    let Some((pid, _)) = status(data) else { return };
    let ours = || {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("postgres")
            && data.canonicalize().is_ok_and(|data| line.contains(&*data.to_string_lossy()))
    };
    if !ours() {
        return;
    }
    signal(pid, "QUIT");
    let deadline = Instant::now() + PATIENCE;
    while ours() && Instant::now() < deadline {
        std::thread::park_timeout(GLANCE);
    }
}

fn remove(data: &Path) -> io::Result<()> {
    match fs::remove_dir_all(data) {
        // A postmaster that was killed leaves children that still write for a moment.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            std::thread::park_timeout(10 * GLANCE);
            fs::remove_dir_all(data)
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The process that runs on this data and whether it takes connections, as `postmaster.pid` has it:
/// the pid on the first line, the state on the eighth.
fn status(data: &Path) -> Option<(u32, bool)> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim().parse().ok()?;
    let ready = text.lines().nth(7).is_some_and(|state| state.trim() == "ready");
    Some((pid, ready))
}

/// Sends a signal by the shell's own `kill`: std has none, and unsafe code is not worth it here.
fn signal(pid: u32, name: &str) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "kill -s \"$0\" \"$1\" 2>/dev/null", name, &pid.to_string()]);
    if let Err(error) = shell.stdin(Stdio::null()).status() {
        tracing::warn!(%error, "no signal could be sent");
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Runs a program to its end.
fn run(program: &'static str, mut command: Command, input: &str) -> Result<(), Error> {
    let failed = |source| Error::Io { what: program.to_owned(), source };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // Not read to the end if the program fails first, which its status says better.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    let printed = [output.stdout, output.stderr].concat();
    let text = tail(&String::from_utf8_lossy(&printed));
    // The single-user mode reports errors of statements, and exits with 0.
    if output.status.success() && !text.contains("ERROR:") {
        Ok(())
    } else {
        Err(Error::Program { program, text })
    }
}

/// The last lines of a text.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let what = format!("{what} {}", path.display());
    move |source| Error::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("inosec-private-postgres-{name}-{}", std::process::id()))
    }

    #[test]
    fn it_starts_survives_kills_and_leaves_nothing() {
        let folder = folder("life");
        let options =
            Options::default().with("shared_buffers", "16MB").with("application_name", "it's quoted");
        let mut server = PrivatePostgres::start(&folder, &options).expect("starts");
        assert!(server.url().ends_with("/inosec"));
        let first = server.pid().expect("runs");
        server.restart(Mode::Immediate).expect("restarts");
        server.kill9().expect("killed");
        assert_eq!(server.pid(), None);
        server.resume().expect("starts again");
        assert_ne!(server.pid(), Some(first));
        let data = server.data_dir();
        assert!(data.join("PG_VERSION").is_file());
        drop(server);
        assert!(!data.exists());
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn what_a_killed_predecessor_left_is_taken_over() {
        let folder = folder("stale");
        let mut left = PrivatePostgres::start(&folder, &Options::default()).expect("starts");
        let mut orphan = left.child.take().expect("runs");
        let next = PrivatePostgres::start(&folder, &Options::default()).expect("starts beside it");
        assert!(orphan.wait().is_ok(), "the orphan was ended");
        assert_ne!(next.pid(), Some(orphan.id()));
        std::mem::forget(left);
        drop(next);
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn a_foreign_folder_is_refused() {
        let folder = folder("foreign");
        fs::create_dir_all(folder.join("data")).expect("made");
        let refused = PrivatePostgres::start(&folder, &Options::default());
        assert!(matches!(refused, Err(Error::Foreign(_))), "{refused:?}");
        assert!(folder.join("data").exists());
        fs::remove_dir_all(&folder).expect("removed");
    }
}
