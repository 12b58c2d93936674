//! P1 attacked: no message lost, none stored twice, whatever is killed, frozen, cut or restarted.
//! The ledger of the producer is the oracle.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::conservation::{add_tenant, check_counts, wait_consumed};
use crate::support::database::Database;
use crate::support::kafka::{self, Ledger};
use crate::support::load::{Load, verdict};
use crate::support::process::{Running, Setup};
use crate::support::proxy::Proxy;
use crate::support::servers::{self, Store};
use crate::support::{Random, calm, eventually};

/// Dead processes are noticed fast, so that a run holds many kills.
const QUICK: &str = "session_timeout = \"1500ms\"";
const PARTITIONS: i32 = 4;

/// A topic, a database, a tenant and a configuration.
pub struct Arena {
    pub topic: String,
    pub tenant: Uuid,
    pub setup: Setup,
    pub database: Database,
}

impl Arena {
    async fn new(what: &str) -> Self {
        let database = Database::create(Store::Timescale).await;
        let url = database.url.clone();
        Self::over(what, database, &url).await
    }

    /// inosec reaches `database` through `url`.
    pub async fn over(what: &str, database: Database, url: &str) -> Self {
        let topic = kafka::topic_name(what);
        kafka::create_topic(&topic, PARTITIONS, &[]).await;
        let more = format!(
            "[[topics]]\nname = \"{topic}\"\nstream = \"agent_logs\"\ntenant = \"header\"\n\
             [batch]\nmax_rows = 500\nmax_age = \"50ms\"\n"
        );
        let setup = Setup::new(url, &topic, &more);
        let text = std::fs::read_to_string(&setup.config).unwrap();
        std::fs::write(&setup.config, text.replacen("[kafka]", &format!("[kafka]\n{QUICK}"), 1)).unwrap();
        setup.json(&["migrate"]);
        let tenant = add_tenant(&setup, "tenant");
        Self { topic, tenant, setup, database }
    }

    /// Waits until all is consumed, then compares.
    pub async fn settle(&self, what: &str, ledger: &Ledger, inosec: &Running) {
        wait_consumed(&self.database, ledger, inosec).await;
        verdict(&self.database, ledger).await.assert_exact(what);
        check_counts(&self.database).await;
    }

    pub async fn end(self) {
        self.database.drop().await;
        kafka::delete_topic(&self.topic).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_named_point() {
    let _calm = calm().await;
    let arena = Arena::new("points").await;
    let load = Load::start(&arena.topic, arena.tenant, 400);
    for point in ["before-copy", "after-copy", "after-cas", "before-commit", "after-commit"] {
        let fault = format!("{point}:kill:4");
        let mut inosec = arena.setup.spawn(&[("INOSEC_FAULT", &fault)]);
        let status = inosec.wait(Duration::from_secs(60));
        assert!(!status.success(), "{point}: the fault point was never reached");
    }
    let inosec = arena.setup.start(&[]);
    let ledger = load.finish();
    arena.settle("killed at each named point", &ledger, &inosec).await;
    drop(inosec);
    arena.end().await;
}

/// Two to four replicas, killed and started at random: every kill is also a rebalance. Twenty kills;
/// `make soak` does 500.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_under_load() {
    let _calm = calm().await;
    let what = "killed at random under load";
    let kills = if std::env::var("INOSEC_SOAK").as_deref() == Ok("full") { 500 } else { 20 };
    let mut random = Random::new(what);
    let arena = Arena::new("kills").await;
    let load = Load::start(&arena.topic, arena.tenant, 400);
    let mut replicas: Vec<Running> = (0..2).map(|_| arena.setup.spawn(&[])).collect();
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(300 + random.below(1700))).await;
        let victim = usize::try_from(random.below(replicas.len() as u64)).unwrap();
        replicas[victim].kill();
        let wanted = 2 + usize::try_from(random.below(3)).unwrap();
        replicas.swap_remove(victim);
        while replicas.len() < wanted {
            replicas.push(arena.setup.spawn(&[]));
        }
        replicas.truncate(wanted);
    }
    let ledger = load.finish();
    arena.settle(&format!("{what}, {kills} kills"), &ledger, &replicas[0]).await;
    drop(replicas);
    arena.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn back_at_work_within_ten_seconds_of_a_kill() {
    let _calm = calm().await;
    let arena = Arena::new("recovery").await;
    // With the session time-out that users get.
    let text = std::fs::read_to_string(&arena.setup.config).unwrap();
    std::fs::write(&arena.setup.config, text.replace(QUICK, "")).unwrap();
    let load = Load::start(&arena.topic, arena.tenant, 200);
    let mut killed = arena.setup.start(&[]);
    eventually("first rows", Duration::from_secs(30), || async {
        (arena.database.number("SELECT count(*) FROM inosec.agent_logs").await > 100).then_some(())
    })
    .await;
    killed.kill();
    let at = Instant::now();
    let rows = arena.database.number("SELECT count(*) FROM inosec.agent_logs").await;
    let inosec = arena.setup.spawn(&[]);
    eventually("rows after the kill", Duration::from_secs(30), || async {
        (arena.database.number("SELECT count(*) FROM inosec.agent_logs").await > rows).then_some(())
    })
    .await;
    let recovered = at.elapsed();
    eprintln!("back at work {recovered:?} after a kill");
    assert!(recovered < Duration::from_secs(10), "{recovered:?}");
    let ledger = load.finish();
    arena.settle("recovery", &ledger, &inosec).await;
    drop(inosec);
    arena.end().await;
}

/// A process frozen beyond its session time-out loses its partitions without knowing.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_process_wakes_as_a_zombie() {
    let _calm = calm().await;
    let arena = Arena::new("zombie").await;
    let load = Load::start(&arena.topic, arena.tenant, 400);
    let zombie = arena.setup.start(&[]);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        zombie.signal(libc::SIGSTOP);
        let heir = arena.setup.spawn(&[]);
        tokio::time::sleep(Duration::from_secs(4)).await;
        zombie.signal(libc::SIGCONT);
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(heir);
    }
    let ledger = load.finish();
    arena.settle("frozen and woken three times", &ledger, &zombie).await;
    drop(zombie);
    arena.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_is_cut_between_commit_and_its_answer() {
    let _calm = calm().await;
    let database = Database::create(Store::Timescale).await;
    let proxy = Proxy::start(&database.url).await;
    let url = proxy.url(&database.url);
    let arena = Arena::over("cut", database, &url).await;
    let load = Load::start(&arena.topic, arena.tenant, 400);
    let inosec = arena.setup.start(&[]);
    for cut in 1..=5 {
        proxy.cut_commits(1);
        eventually("a commit to be cut", Duration::from_secs(30), || async {
            (proxy.cuts_made() >= cut).then_some(())
        })
        .await;
    }
    let ledger = load.finish();
    arena.settle("cut between COMMIT and its answer, 5 times", &ledger, &inosec).await;
    drop(inosec);
    arena.end().await;
}

/// Locks held too long and statements that take too long are waited out, not turned into dead letters.
#[tokio::test(flavor = "multi_thread")]
async fn lock_and_statement_timeouts_are_waited_out() {
    let _calm = calm().await;
    let arena = Arena::new("locks").await;
    let load = Load::start(&arena.topic, arena.tenant, 200);
    let inosec = arena.setup.start(&[]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lock = "BEGIN; LOCK TABLE inosec.agent_logs IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(12); COMMIT";
    arena.database.execute(lock).await;
    let ledger = load.finish();
    arena.settle("a table locked for 12 s", &ledger, &inosec).await;
    assert_eq!(arena.database.number("SELECT count(*) FROM inosec.dead_letters").await, 0);
    drop(inosec);
    arena.end().await;
}

/// Restarts the one Kafka all tests share, so it runs alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_broker_restarts() {
    let _storm = crate::support::storm().await;
    let arena = Arena::new("broker").await;
    let load = Load::start(&arena.topic, arena.tenant, 400);
    let inosec = arena.setup.start(&[]);
    for how in [&["restart", "kafka"][..], &["restart", "kafka", "immediate"]] {
        tokio::time::sleep(Duration::from_secs(2)).await;
        servers::services(how);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ledger = load.finish();
    arena.settle("the broker restarted twice, once by kill -9", &ledger, &inosec).await;
    drop(inosec);
    arena.end().await;
}
