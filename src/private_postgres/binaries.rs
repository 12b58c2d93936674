//! Where PostgreSQL's programs are.

use std::fs;
use std::path::{Path, PathBuf};

use super::Error;

/// The two programs a server needs.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// Makes a data folder.
    pub initdb: PathBuf,
    /// The server.
    pub postgres: PathBuf,
}

/// The folders to look in, best first: the one that was named (and then no other), those of `PATH`,
/// and where Debian, Fedora and others put each version, newest first.
pub fn places() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os("INOSEC_POSTGRES_BIN") {
        return vec![named.into()];
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for root in ["/usr/lib/postgresql", "/usr/lib64/postgresql"] {
        places.extend(versions(Path::new(root), "bin"));
        // Holds no programs itself, but tells a reader of the error where they would be.
        places.push(root.into());
    }
    places.extend(versions(Path::new("/usr"), "bin").into_iter().filter(|place| pgsql(place)));
    places
}

/// The first folder that holds both.
pub fn find(places: &[PathBuf]) -> Result<Binaries, Error> {
    for place in places {
        let (initdb, postgres) = (place.join("initdb"), place.join("postgres"));
        if let (Ok(initdb), Ok(postgres)) = (initdb.canonicalize(), postgres.canonicalize()) {
            return Ok(Binaries { initdb, postgres });
        }
    }
    let looked_in: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    Err(Error::NotInstalled { looked_in: looked_in.join(", ") })
}

/// `root/<version>/<folder>` for each version, newest first.
fn versions(root: &Path, folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> =
        entries.map(|entry| (version(&entry.path()), entry.path().join(folder))).collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, place)| place).collect()
}

/// The digits a folder's name ends with: `17`, `pgsql-17`.
fn version(path: &Path) -> u32 {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.rsplit('-').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Fedora's packages from PostgreSQL's own archive: `/usr/pgsql-17/bin`.
fn pgsql(place: &Path) -> bool {
    place.to_string_lossy().contains("/pgsql-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_way_out() {
        let error = find(&[PathBuf::from("/nowhere/bin")]).expect_err("nothing is there").to_string();
        for part in ["initdb", "/nowhere/bin", "apt-get install postgresql", "INOSEC_POSTGRES_BIN"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn newer_versions_come_first() {
        let root = std::env::temp_dir().join(format!("inosec-versions-{}", std::process::id()));
        for version in ["9", "17", "15"] {
            fs::create_dir_all(root.join(version)).expect("made");
        }
        let found = versions(&root, "bin");
        fs::remove_dir_all(&root).expect("removed");
        assert_eq!(found, ["17", "15", "9"].map(|version| root.join(version).join("bin")));
    }
}
