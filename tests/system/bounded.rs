//! P6 attacked: memory stays under its limit when the database can't follow, consumption pauses and
//! resumes by itself, and a flood in one topic doesn't hold up another.

use std::time::{Duration, Instant};

use crate::conservation::{add_tenant, wait_consumed};
use crate::support::database::Database;
use crate::support::kafka::{self, Producer};
use crate::support::load;
use crate::support::process::Setup;
use crate::support::proxy::Proxy;
use crate::support::servers::Store;
use crate::support::{calm, eventually};

const RSS_LIMIT: u64 = 512 << 20;
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

/// A quiet topic's message waits behind what is in flight, not behind the flood.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_in_one_topic_does_not_hold_up_another() {
    let _calm = calm().await;
    let database = Database::create(Store::Timescale).await;
    let (flood, quiet) = (kafka::topic_name("flood"), kafka::topic_name("quiet"));
    kafka::create_topic(&flood, 4, &[]).await;
    kafka::create_topic(&quiet, 1, &[]).await;
    let setup = Setup::new(&database.url, &flood, &(topic_entry(&flood) + &topic_entry(&quiet)));
    setup.json(&["migrate"]);
    let (noisy, calm_tenant) = (add_tenant(&setup, "noisy"), add_tenant(&setup, "calm"));
    let producer = Producer::new();
    for number in 0..FLOOD.cast_unsigned() {
        // Noise: what compresses well comes in one fetch, in which order is not ours to say.
        let noise =
            |part: u64| format!("{:016x}", (number * 90 + part + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let noise: String = (0..90).map(noise).collect();
        let message =
            format!("{{\"host\":\"h{}\",\"event\":{{\"n\":{number},\"p\":\"{noise}\"}}}}", number % 40);
        producer.send(&flood, message.as_bytes(), Some(noisy));
    }
    producer.ledger();
    let inosec = setup.start(&[]);
    let stored = async |tenant| {
        let sql = format!("SELECT count(*) FROM inosec.agent_logs WHERE tenant_id = '{tenant}'");
        database.number(&sql).await
    };
    let wait = Duration::from_secs(60);
    eventually("the flood", wait, async || (stored(noisy).await > 0).then_some(())).await;
    let sender = Producer::new();
    let mut overtaken = Vec::new();
    loop {
        let before = stored(noisy).await;
        if before == FLOOD {
            break;
        }
        let number = overtaken.len() as u32;
        sender.send(&quiet, &load::message(number), Some(calm_tenant));
        let arrived = async || (stored(calm_tenant).await > i64::from(number)).then_some(());
        eventually("the quiet topic's message", wait, arrived).await;
        overtaken.push(stored(noisy).await - before);
    }
    eprintln!(
        "the quiet topic's messages were each overtaken by so many of the flood's {FLOOD}: {overtaken:?}"
    );
    assert!(overtaken.len() >= 3, "the flood was over too soon");
    assert!(overtaken.iter().all(|messages| *messages < FLOOD / 2), "{overtaken:?}");
    drop(inosec);
    database.drop().await;
    kafka::delete_topic(&flood).await;
    kafka::delete_topic(&quiet).await;
}
