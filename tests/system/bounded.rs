//! P6 attacked: memory stays under its limit when the database can't follow, consumption pauses and
//! resumes by itself, and a flood in one topic doesn't hold up another.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::conservation::{add_tenant, wait_consumed};
use crate::support::database::Database;
use crate::support::kafka::{self, Producer};
use crate::support::load;
use crate::support::process::Setup;
use crate::support::proxy::Proxy;
use crate::support::servers::Store;
use crate::support::{calm, eventually};

const RSS_LIMIT: u64 = 512 << 20;
/// What the quiet topic's slowest message may take while the other topic floods.
const QUIET_P99: Duration = Duration::from_secs(5);
/// Messages in one topic while another is quiet: several times what is in flight.
const FLOOD: i64 = 200_000;

fn topic_entry(name: &str) -> String {
    format!("[[topics]]\nname = \"{name}\"\nstream = \"agent_logs\"\ntenant = \"header\"\n")
}

/// About ten times what the throttled database takes, for half a minute (`make soak`: five minutes).
#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_bounded_while_the_database_is_slow() {
    let _calm = calm().await;
    let soak = std::env::var("INOSEC_SOAK").as_deref() == Ok("full");
    let overload = Duration::from_secs(if soak { 300 } else { 25 });
    let database = Database::create(Store::Timescale).await;
    let proxy = Proxy::start(&database.url).await;
    let topic = kafka::topic_name("slow");
    kafka::create_topic(&topic, 4, &[]).await;
    let setup = Setup::new(&proxy.url(&database.url), &topic, &topic_entry(&topic));
    setup.json(&["migrate"]);
    let tenant = add_tenant(&setup, "tenant");
    let padding = "z".repeat(2000);
    let producer = Producer::new();
    for number in 0..150_000_u64 {
        let noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let message = format!(
            "{{\"host\":\"h\",\"event\":{{\"n\":{number},\"noise\":\"{noise:x}\",\"p\":\"{padding}\"}}}}"
        );
        producer.send(&topic, message.as_bytes(), Some(tenant));
    }
    let ledger = producer.ledger();
    proxy.limit(200_000);
    let inosec = setup.start(&[]);
    let until = Instant::now() + overload;
    let mut paused = 0.0_f64;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(250)).await;
        paused = paused.max(inosec.metric("inosec_consumer_paused_partitions"));
        assert!(inosec.memory().0 < RSS_LIMIT, "{} MiB resident", inosec.memory().0 >> 20);
    }
    assert!(paused > 0.0, "consumption never paused");
    proxy.limit(0);
    wait_consumed(&database, &ledger, &inosec).await;
    assert_eq!(database.number("SELECT count(*) FROM inosec.agent_logs").await, 150_000);
    let peak = inosec.memory().1;
    eprintln!("150,000 messages of 2 kB against a slow database: peak {} MiB resident", peak >> 20);
    assert!(peak < RSS_LIMIT, "{} MiB at the peak", peak >> 20);
    drop(inosec);
    database.drop().await;
    kafka::delete_topic(&topic).await;
}

/// A topic that is full when inosec starts, and one that is quiet.
struct Flooded {
    database: Database,
    setup: Setup,
    flood: String,
    quiet: String,
    noisy: Uuid,
    calm: Uuid,
}

impl Flooded {
    async fn new(padding: impl Fn(u64) -> String) -> Self {
        let database = Database::create(Store::Timescale).await;
        let (flood, quiet) = (kafka::topic_name("flood"), kafka::topic_name("quiet"));
        kafka::create_topic(&flood, 4, &[]).await;
        kafka::create_topic(&quiet, 1, &[]).await;
        let setup = Setup::new(&database.url, &flood, &(topic_entry(&flood) + &topic_entry(&quiet)));
        setup.json(&["migrate"]);
        let (noisy, calm) = (add_tenant(&setup, "noisy"), add_tenant(&setup, "calm"));
        let producer = Producer::new();
        for number in 0..FLOOD.cast_unsigned() {
            let padding = padding(number);
            let message =
                format!("{{\"host\":\"h{}\",\"event\":{{\"n\":{number},\"p\":\"{padding}\"}}}}", number % 40);
            producer.send(&flood, message.as_bytes(), Some(noisy));
        }
        producer.ledger();
        Self { database, setup, flood, quiet, noisy, calm }
    }

    async fn stored(&self, tenant: Uuid) -> i64 {
        let sql = format!("SELECT count(*) FROM inosec.agent_logs WHERE tenant_id = '{tenant}'");
        self.database.number(&sql).await
    }

    /// Joining the group is no part of what is asked.
    async fn begun(&self) {
        let begun = async || (self.stored(self.noisy).await > 0).then_some(());
        eventually("the flood", Duration::from_secs(60), begun).await;
    }

    /// How long a message in the quiet topic takes.
    async fn delay(&self, sender: &Producer, number: u32) -> Duration {
        let sent = Instant::now();
        sender.send(&self.quiet, &load::message(number), Some(self.calm));
        let arrived = async || (self.stored(self.calm).await > i64::from(number)).then_some(());
        eventually("the quiet topic's message", Duration::from_secs(60), arrived).await;
        sent.elapsed()
    }

    async fn end(self) {
        self.database.drop().await;
        kafka::delete_topic(&self.flood).await;
        kafka::delete_topic(&self.quiet).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_in_one_topic_does_not_hold_up_another() {
    let _calm = calm().await;
    let flooded = Flooded::new(|_| "z".repeat(1500)).await;
    let inosec = flooded.setup.start(&[]);
    flooded.begun().await;
    let mut delays = Vec::new();
    let sender = Producer::new();
    for number in 0..40 {
        delays.push(flooded.delay(&sender, number).await);
    }
    let flooding = flooded.stored(flooded.noisy).await;
    delays.sort_unstable();
    let (median, worst) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    eprintln!("while {flooding} of {FLOOD} flooded in: median {median:?}, worst {worst:?}");
    assert!(worst < QUIET_P99, "{worst:?}");
    drop(inosec);
    flooded.end().await;
}

/// Of a flood that doesn't fit one fetch only what is in flight goes before.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_topic_waits_behind_what_is_in_flight() {
    let _calm = calm().await;
    let noise = |number: u64, part: u64| (number * 90 + part + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let noise = |number| (0..90).map(|part| format!("{:016x}", noise(number, part))).collect();
    let flooded = Flooded::new(noise).await;
    let inosec = flooded.setup.start(&[]);
    flooded.begun().await;
    let sender = Producer::new();
    let mut overtaken = Vec::new();
    loop {
        let before = flooded.stored(flooded.noisy).await;
        if before == FLOOD {
            break;
        }
        flooded.delay(&sender, overtaken.len() as u32).await;
        overtaken.push(flooded.stored(flooded.noisy).await - before);
    }
    eprintln!(
        "the quiet topic's messages were each overtaken by so many of the flood's {FLOOD}: {overtaken:?}"
    );
    assert!(overtaken.len() >= 3, "the flood was over too soon");
    assert!(overtaken.iter().all(|messages| *messages < FLOOD / 2), "{overtaken:?}");
    drop(inosec);
    flooded.end().await;
}
