//! The database itself fails: a server of the test's own crashes, again and again.

use std::time::Duration;

use inosec::private_postgres::{Mode, Options, PrivatePostgres};

use crate::exactly_once::Arena;
use crate::support::database::Database;
use crate::support::load::Load;
use crate::support::{calm, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_crashes_under_load() {
    let _calm = calm().await;
    let folder = std::env::temp_dir().join(format!("inosec-crash-{}", uuid::Uuid::new_v4().simple()));
    let mut server = start(folder.clone()).await;
    let database = Database::create_at(&server.url()).await;
    let url = database.url.clone();
    let mut arena = Arena::over("crash", database, &url).await;
    let load = Load::start(&arena.topic, arena.tenant, 400);
    let inosec = arena.setup.start(&[]);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        server = tokio::task::spawn_blocking(move || {
            server.restart(Mode::Immediate).expect("the server recovers");
            server
        })
        .await
        .unwrap();
        arena.database.reconnect().await;
        let before = arena.database.number("SELECT count(*) FROM inosec.agent_logs").await;
        eventually("rows after the crash", Duration::from_secs(30), || async {
            (arena.database.number("SELECT count(*) FROM inosec.agent_logs").await > before).then_some(())
        })
        .await;
    }
    let ledger = load.finish();
    arena.settle("PostgreSQL crashed 3 times", &ledger, &inosec).await;
    eventually("/readyz turns green again", Duration::from_secs(10), || async {
        inosec.get("/readyz").is_some_and(|(status, _)| status == 200).then_some(())
    })
    .await;
    drop(inosec);
    arena.end().await;
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
    let _ = std::fs::remove_dir_all(folder);
}

async fn start(folder: std::path::PathBuf) -> PrivatePostgres {
    tokio::task::spawn_blocking(move || {
        PrivatePostgres::start(&folder, &Options::default()).expect("it starts")
    })
    .await
    .unwrap()
}
