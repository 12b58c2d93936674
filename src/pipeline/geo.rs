//! The GeoIP databases: loaded at the start, replaced in the running process when their files change.
//!
//! In: `[geo]`. Out: what lanes ask, always a whole database. A file that is missing, half-written or
//! damaged leaves the database in force as it is; it is said once, counted, and tried again.

use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use inosec_enrich::geo::{Database, Geo, Subject, Tally};
use inosec_enrich::metrics as names;
use inosec_schemas::Rows;
use metrics::{counter, gauge};
use tokio::sync::watch;
use tracing::{info, warn};

use super::Error;
use crate::config;

/// What lanes ask: the databases in force at that moment.
#[derive(Debug, Clone)]
pub struct Current(watch::Receiver<Geo>);

impl Current {
    /// Loads the databases once, for work outside a running road.
    pub async fn load(config: &config::Geo) -> Result<Self, Error> {
        Ok(Keeper::start(config).await?.1)
    }

    /// The databases for all of a batch. Cloned, so that a reload never waits for one: two counters.
    pub fn now(&self) -> Geo {
        self.0.borrow().clone()
    }
}

/// Fills the country and ASN columns of some rows.
pub fn enrich(geo: &Geo, rows: &mut Rows, of: Range<usize>) {
    let tallies = geo.enrich(rows, of);
    count(Subject::Country, tallies.country);
    count(Subject::Asn, tallies.asn);
}

fn count(subject: Subject, tally: Tally) {
    for (outcome, number) in [("found", tally.found), ("missing", tally.missing)] {
        if number > 0 {
            counter!(names::GEO_LOOKUPS, "database" => subject.name(), "outcome" => outcome)
                .increment(number);
        }
    }
}

/// Reads a database on a thread of its own: up to a second of work.
pub async fn load(subject: Subject, path: &Path) -> Result<Database, Error> {
    let file = path.to_owned();
    let read = move || match std::fs::read(&file) {
        Ok(bytes) => Database::read(&bytes, subject).map_err(|error| super::chain(&error)),
        Err(error) => Err(error.to_string()),
    };
    let loaded = tokio::task::spawn_blocking(read).await?;
    loaded.map_err(|why| Error::Geo { key: subject.name(), path: path.to_owned(), why })
}

/// Whose content a path had: a change of any of these is another file, or another content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    size: u64,
    inode: u64,
}

impl Stamp {
    async fn of(path: &Path) -> Result<Self, String> {
        let metadata = tokio::fs::metadata(path).await.map_err(|error| error.to_string())?;
        if !metadata.is_file() {
            return Err("not a regular file".to_owned());
        }
        Ok(Self { modified: metadata.modified().ok(), size: metadata.len(), inode: metadata.ino() })
    }
}

/// A configured file.
#[derive(Debug)]
struct File {
    subject: Subject,
    path: PathBuf,
    /// The file the database in force was read from.
    loaded: Stamp,
    /// Another one that lies there now.
    changed: Option<Stamp>,
    /// What was wrong at the last look, so that it is said once.
    trouble: Option<String>,
}

/// Keeps the databases current.
#[derive(Debug)]
pub struct Keeper {
    files: Vec<File>,
    every: Duration,
    current: watch::Sender<Geo>,
}

impl Keeper {
    /// Loads what is configured; at the start a fault is the operator's to mend.
    pub async fn start(config: &config::Geo) -> Result<(Self, Current), Error> {
        let (current, receiver) = watch::channel(Geo::default());
        let mut keeper = Self { files: Vec::new(), every: config.reload, current };
        let configured = [(Subject::Country, &config.country), (Subject::Asn, &config.asn)];
        for (subject, path) in
            configured.into_iter().filter_map(|(subject, path)| Some((subject, path.as_ref()?)))
        {
            let fault = |why| Error::Geo { key: subject.name(), path: path.clone(), why };
            let loaded = Stamp::of(path).await.map_err(fault)?;
            let database = load(subject, path).await?;
            keeper.put(subject, path, database);
            keeper.files.push(File { subject, path: path.clone(), loaded, changed: None, trouble: None });
        }
        Ok((keeper, Current(receiver)))
    }

    /// Looks after the files; runs until dropped.
    pub async fn run(mut self) {
        while !self.files.is_empty() {
            tokio::time::sleep(self.every).await;
            for index in 0..self.files.len() {
                self.look(index).await;
            }
        }
    }

    async fn look(&mut self, index: usize) {
        let file = &mut self.files[index];
        let (subject, path) = (file.subject, file.path.clone());
        let stamp = match Stamp::of(&path).await {
            Ok(stamp) => stamp,
            Err(why) => return file.trouble(why),
        };
        if stamp == file.loaded {
            (file.changed, file.trouble) = (None, None);
            return;
        }
        // Whoever writes in place rather than renaming is given time: a file must lie still for one round.
        if file.changed.replace(stamp) != Some(stamp) {
            return;
        }
        match load(subject, &path).await {
            Ok(database) => {
                (file.loaded, file.changed, file.trouble) = (stamp, None, None);
                self.put(subject, &path, database);
            }
            Err(Error::Geo { why, .. }) => file.trouble(why),
            Err(error) => file.trouble(error.to_string()),
        }
    }

    fn put(&self, subject: Subject, path: &Path, database: Database) {
        info!(
            database = subject.name(),
            path = %path.display(),
            kind = database.kind(),
            built = database.built(),
            ranges = database.ranges(),
            "GeoIP database loaded"
        );
        counter!(names::GEO_LOADS, "database" => subject.name(), "outcome" => "loaded").increment(1);
        gauge!(names::GEO_BUILT, "database" => subject.name()).set(database.built() as f64);
        let database = Some(Arc::new(database));
        self.current.send_modify(|geo| match subject {
            Subject::Country => geo.country = database,
            Subject::Asn => geo.asn = database,
        });
    }
}

impl File {
    /// Counts a failure, and tells it unless the one before was the same.
    fn trouble(&mut self, why: String) {
        counter!(names::GEO_LOADS, "database" => self.subject.name(), "outcome" => "failed").increment(1);
        if self.trouble.as_ref() != Some(&why) {
            warn!(
                database = self.subject.name(),
                path = %self.path.display(),
                why,
                "the GeoIP database can't be loaded anew, keeping the one in force and trying again"
            );
            self.trouble = Some(why);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
