//! A steady load with a ledger, and the check that every acknowledged message is stored once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::blocks;
use super::database::Database;
use super::kafka::{Ledger, Producer};

/// Sends messages at a rate until told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Ledger>,
}

impl Load {
    pub fn start(topic: &str, tenant: Uuid, per_second: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (topic, stopped) = (topic.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || send(&topic, tenant, per_second, &stopped));
        Self { stop, thread }
    }

    /// Stops, waits for the broker's acknowledgements, and returns them.
    pub fn finish(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn send(topic: &str, tenant: Uuid, per_second: u32, stop: &AtomicBool) -> Ledger {
    let producer = Producer::new();
    let started = Instant::now();
    let mut number: u32 = 0;
    while !stop.load(Ordering::Relaxed) {
        producer.send(topic, &message(number), Some(tenant));
        number += 1;
        let due = Duration::from_secs_f64(f64::from(number) / f64::from(per_second));
        if let Some(early) = due.checked_sub(started.elapsed()) {
            std::thread::park_timeout(early);
        }
    }
    producer.ledger()
}

/// A distinct event of about 300 bytes from one of fifty hosts.
pub fn message(number: u32) -> Vec<u8> {
    let host = number % 50;
    let text = format!(
        "{{\"host\":\"host-{host}\",\"format\":\"json\",\"event\":{{\"number\":{number},\"message\":\"event {number} of a steady load\",\
         \"user\":{{\"name\":\"user-{user}\"}},\"padding\":\"{padding}\"}}}}",
        user = number % 7,
        padding = "x".repeat(120 + (number as usize * 37) % 120),
    );
    text.into_bytes()
}

/// What a comparison of ledger and table found.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    pub messages: usize,
    pub lost: usize,
    pub duplicated: usize,
    pub altered: usize,
    pub foreign: usize,
}

impl Verdict {
    pub fn assert_exact(&self, what: &str) {
        eprintln!("{what}: {} messages, {} lost, {} duplicated", self.messages, self.lost, self.duplicated);
        let exact = Self { messages: self.messages, lost: 0, duplicated: 0, altered: 0, foreign: 0 };
        assert_eq!(*self, exact, "{what}");
        assert!(self.messages > 0, "{what}: nothing was tested");
    }
}

/// Compares acknowledged messages with stored rows (and dead letters) by place and hash.
pub async fn verdict(database: &Database, ledger: &Ledger) -> Verdict {
    let raw = blocks::messages(database, "agent_logs").await;
    let sql = "SELECT kafka_partition, kafka_offset, tenant_id, seq FROM inosec.agent_logs";
    let mut stored: HashMap<(i32, i64), (usize, [u8; 32])> = HashMap::new();
    for row in database.rows(sql, &[]).await {
        let hash = raw.get(&(row.get(2), row.get(3))).map_or([0; 32], |bytes| Sha256::digest(bytes).into());
        stored.entry((row.get(0), row.get(1))).or_insert((0, hash)).0 += 1;
    }
    let dead = "SELECT partition, \"offset\", payload FROM inosec.dead_letters";
    for row in database.rows(dead, &[]).await {
        let hash = Sha256::digest(row.get::<_, &[u8]>(2)).into();
        stored.entry((row.get(0), row.get(1))).or_insert((0, hash)).0 += 1;
    }
    let duplicated = stored.values().filter(|(times, _)| *times > 1).count();
    let (mut lost, mut altered) = (0, 0);
    for (partition, offset, hash) in ledger {
        match stored.remove(&(*partition, *offset)) {
            None => lost += 1,
            Some((_, found)) if found != *hash => altered += 1,
            Some(_) => {}
        }
    }
    Verdict { messages: ledger.len(), lost, duplicated, altered, foreign: stored.len() }
}
