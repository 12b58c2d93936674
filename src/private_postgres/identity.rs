//! As whom the server runs: PostgreSQL refuses to run as root.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use super::Error;
use super::binaries::Binaries;

/// Nobody's user and group id on every distribution.
const NOBODY: u32 = 65_534;

/// As whom the programs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// As we are.
    Ourselves,
    /// As nobody, who owns the folder.
    Nobody,
    /// As user 1000 of a user namespace, who is us outside of it.
    Namespace,
}

impl Identity {
    /// The first that works with this folder. For root that is nobody, who must be able to enter all
    /// parents of the folder, or else a namespace, which needs the kernel's permission.
    pub fn choose(folder: &Path, binaries: &Binaries) -> Result<Self, Error> {
        let owner = std::fs::metadata("/proc/self").map(|process| process.uid());
        if owner.is_ok_and(|user| user != 0) {
            return Ok(Self::Ourselves);
        }
        let given = chown(folder, Some(NOBODY), Some(NOBODY));
        if given.is_ok() && Self::Nobody.can_use(folder, binaries) {
            return Ok(Self::Nobody);
        }
        // Seen from the namespace the folder must be ours again.
        let taken_back = chown(folder, Some(0), Some(0));
        if taken_back.is_ok() && Self::Namespace.can_use(folder, binaries) {
            return Ok(Self::Namespace);
        }
        Err(Error::Root(folder.to_owned()))
    }

    /// A program run as this identity. It replaces the one that changes the identity, so the process
    /// id we get is its own.
    pub fn command(self, program: &Path) -> Command {
        let nobody = format!("{NOBODY}");
        let mut command = match self {
            Self::Ourselves => return Self::bare(program),
            Self::Nobody => {
                let mut command = Self::bare(Path::new("setpriv"));
                command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]);
                command
            }
            Self::Namespace => {
                let mut command = Self::bare(Path::new("unshare"));
                command.args(["--user", "--map-user=1000", "--map-group=1000"]);
                command
            }
        };
        command.arg(program);
        command
    }

    fn bare(program: &Path) -> Command {
        let mut command = Command::new(program);
        // The caller's folder may be closed to the other user, and PGDATA and the like are not for us.
        command.current_dir("/").env_remove("PGDATA").env_remove("PGPORT").env("LC_ALL", "C");
        command
    }

    fn can_use(self, folder: &Path, binaries: &Binaries) -> bool {
        let mut probe = self.command(Path::new("/bin/sh"));
        probe.args(["-c", "test -w \"$0\" && exec \"$1\" --version"]).arg(folder).arg(&binaries.postgres);
        probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    }
}
