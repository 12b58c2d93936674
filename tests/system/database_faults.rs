//! The database itself fails: a server of the test's own crashes, is away, or has no disk left.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use inosec::private_postgres::{Mode, Options, PrivatePostgres};

use crate::exactly_once::Arena;
use crate::support::database::Database;
use crate::support::load::Load;
use crate::support::process::Running;
use crate::support::{calm, eventually};

/// A server of the test's own and an arena over it.
struct Own {
    server: PrivatePostgres,
    arena: Arena,
    folder: PathBuf,
}

impl Own {
    async fn start(what: &str, folder: PathBuf, options: Options) -> Self {
        let at = folder.clone();
        let server = blocking(move || PrivatePostgres::start(&at, &options).expect("it starts")).await;
        let database = Database::create_at(&server.url()).await;
        let url = database.url.clone();
        let arena = Arena::over(what, database, &url).await;
        Self { server, arena, folder }
    }

    /// Does something to the server, off the async threads.
    async fn server(self, change: impl FnOnce(&mut PrivatePostgres) + Send + 'static) -> Self {
        let Self { mut server, mut arena, folder } = self;
        let server = blocking(move || {
            change(&mut server);
            server
        })
        .await;
        if server.pid().is_some() {
            arena.database.reconnect().await;
        }
        Self { server, arena, folder }
    }

    async fn count(&self) -> i64 {
        self.arena.database.number("SELECT count(*) FROM inosec.agent_logs").await
    }

    async fn more_rows(&self) {
        let before = self.count().await;
        eventually("more rows", Duration::from_secs(30), || async {
            (self.count().await > before).then_some(())
        })
        .await;
    }

    /// Waits until every acknowledged message is stored, once, and `/readyz` is green.
    async fn settle(&self, what: &str, load: Load, inosec: &Running) {
        let ledger = load.finish();
        self.arena.settle(what, &ledger, inosec).await;
        ready(inosec, 200).await;
    }

    async fn end(self) {
        self.arena.end().await;
        let Self { server, folder, .. } = self;
        blocking(move || drop(server)).await;
        let _ = std::fs::remove_dir_all(folder);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn ready(inosec: &Running, wanted: u16) {
    eventually(&format!("/readyz answers {wanted}"), Duration::from_secs(30), || async {
        inosec.get("/readyz").is_some_and(|(status, _)| status == wanted).then_some(())
    })
    .await;
}

fn folder(what: &str) -> PathBuf {
    std::env::temp_dir().join(format!("inosec-{what}-{}", uuid::Uuid::new_v4().simple()))
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_crashes_under_load() {
    let _calm = calm().await;
    let mut own = Own::start("crash", folder("crash"), Options::default()).await;
    let load = Load::start(&own.arena.topic, own.arena.tenant, 400);
    let inosec = own.arena.setup.start(&[]);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        own = own.server(|server| server.restart(Mode::Immediate).expect("the server recovers")).await;
        own.more_rows().await;
    }
    own.settle("PostgreSQL crashed 3 times", load, &inosec).await;
    drop(inosec);
    own.end().await;
}

/// No batch number was drawn yet when the server went away; drawing one failed the road once.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_messages_meet_no_database() {
    let _calm = calm().await;
    let mut own = Own::start("away", folder("away"), Options::default()).await;
    let inosec = own.arena.setup.start(&[]);
    eventually("all partitions are read", Duration::from_secs(30), || async {
        (inosec.logs().matches("resuming").count() >= 4).then_some(())
    })
    .await;
    own = own.server(|server| server.stop(Mode::Fast).unwrap()).await;
    let load = Load::start(&own.arena.topic, own.arena.tenant, 400);
    ready(&inosec, 503).await;
    own = own.server(|server| server.resume().unwrap()).await;
    own.more_rows().await;
    own.settle("the first messages met no database", load, &inosec).await;
    drop(inosec);
    own.end().await;
}

/// The tables have no room: every transaction fails with 53100 until there is some.
#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_the_tables_is_full() {
    let _calm = calm().await;
    let disk = SmallDisk::mount(64);
    let server_folder = folder("disk");
    let at = server_folder.clone();
    let server = blocking(move || PrivatePostgres::start(&at, &Options::default()).expect("it starts")).await;
    let space = disk.folder_like(&server.data_dir());
    let database = Database::create_at(&server.url()).await;
    database.execute(&format!("CREATE TABLESPACE small LOCATION '{}'", space.display())).await;
    database.execute("GRANT CREATE ON TABLESPACE small TO PUBLIC").await;
    let name = database.rows("SELECT current_database()", &[]).await[0].get::<_, String>(0);
    database.execute(&format!("ALTER DATABASE \"{name}\" SET default_tablespace = small")).await;
    let url = database.url.clone();
    let arena = Arena::over("disk", database, &url).await;
    let own = Own { server, arena, folder: server_folder };
    let own = fill_and_free(own, &disk).await;
    own.end().await;
}

/// The log has no room either: the server panics, may not even come up again until there is some.
#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_the_server_is_full() {
    let _calm = calm().await;
    let disk = SmallDisk::mount(320);
    let small_log = Options::default().with("max_wal_size", "64MB").with("min_wal_size", "32MB");
    let own = Own::start("disk", disk.path.join("server"), small_log).await;
    let own = fill_and_free(own, &disk).await;
    own.end().await;
}

/// Load, a full disk, room again.
async fn fill_and_free(mut own: Own, disk: &SmallDisk) -> Own {
    let inosec = own.arena.setup.start(&[]);
    let load = Load::start(&own.arena.topic, own.arena.tenant, 2_000);
    own.more_rows().await;
    disk.fill();
    ready(&inosec, 503).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(
        inosec.logs().contains("53100") || !is_up(&own.server),
        "the disk was never full:\n{}",
        inosec.logs()
    );
    disk.free();
    // A server that crashed may have given up.
    own = own.server(|server| server.restart(Mode::Immediate).expect("it recovers")).await;
    own.more_rows().await;
    own.settle("the disk was full", load, &inosec).await;
    own
}

fn is_up(server: &PrivatePostgres) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", server.port())).is_ok()
}

/// A file system in memory, gone with the value.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(megabytes: u32) -> Self {
        let path = folder("small-disk");
        std::fs::create_dir(&path).unwrap();
        let size = format!("size={megabytes}m,mode=755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).status();
        assert!(mounted.unwrap().success(), "a small disk needs the right to mount a tmpfs: run as root");
        Self { path }
    }

    /// A folder with the owner of another one.
    fn folder_like(&self, other: &Path) -> PathBuf {
        use std::os::unix::fs::MetadataExt as _;
        let (owner, path) = (std::fs::metadata(other).unwrap(), self.path.join("space"));
        std::fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        path
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Leaves not a byte.
    fn fill(&self) {
        use std::io::Write as _;
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        while ballast.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server may still be ending on it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
        let _ = std::fs::remove_dir(&self.path);
    }
}
