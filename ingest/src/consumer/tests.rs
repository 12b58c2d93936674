//! The consumer against librdkafka's own mock cluster, with a table in memory for the database: it
//! takes spans by compare-and-swap and keeps every message it took.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use inosec_schemas::{EventIds, Messages, Stream, TenantSource, Topic};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::topics::describe;

/// A topic that feeds a small stream.
pub(crate) fn topic(name: &str) -> Arc<Topic> {
    let stream = format!(
        "name = \"s_{}\"\ndescription = \"d\"\n\
         [[columns]]\nname = \"ts\"\nkind = \"timestamp\"\nfill = \"ts\"\ndescription = \"t\"\n\
         [[columns]]\nname = \"tenant_id\"\nkind = \"uuid\"\nfill = \"tenant\"\ndescription = \"t\"\n",
        name.replace('.', "_")
    );
    Arc::new(Topic {
        cluster: "c".to_owned(),
        name: name.to_owned(),
        id: None,
        key: 1,
        stream: Arc::new(Stream::parse("test", &stream).unwrap()),
        tenant: TenantSource::Header,
        event_ids: EventIds::new("c", name, None),
    })
}

type Inner = MockCluster<'static, DefaultProducerContext>;

/// A cluster and a producer for it.
struct Mock {
    producer: ThreadedProducer<DefaultProducerContext>,
    inner: Inner,
}

fn cluster(topics: &[(&str, i32)]) -> Mock {
    let inner = Inner::new(1).unwrap();
    for (name, partitions) in topics {
        inner.create_topic(name, *partitions, 1).unwrap();
    }
    let brokers = inner.bootstrap_servers();
    let producer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("linger.ms", "1").create().unwrap();
    Mock { producer, inner }
}

/// Writes messages "{partition}/{number}/…" of this size.
fn produce(cluster: &Mock, topic: &str, partition: i32, numbers: std::ops::Range<usize>, size: usize) {
    for number in numbers {
        let value = format!("{partition}/{number}/{}", "x".repeat(size));
        let headers = OwnedHeaders::new().insert(Header { key: "n", value: Some(&number.to_string()) });
        let mut record =
            BaseRecord::<(), String>::to(topic).partition(partition).payload(&value).headers(headers);
        while let Err((_, back)) = cluster.producer.send(record) {
            record = back;
            thread::park_timeout(Duration::from_millis(1));
        }
    }
    cluster.producer.flush(Duration::from_secs(20)).unwrap();
}

/// What the database would hold.
#[derive(Default)]
struct Table {
    next: HashMap<(String, i32), i64>,
    /// (topic, partition, offset) → how often it was taken.
    taken: BTreeMap<(String, i32, i64), usize>,
    lost: usize,
}

/// A consumer and its other ends.
struct Rig {
    handle: Option<JoinHandle<Result<(), Error>>>,
    lanes: Vec<Receiver<Messages>>,
    events: Receiver<Event>,
    commands: Option<Sender<Command>>,
    budget: Arc<Budget>,
    /// Events seen, as (name, partition).
    seen: Vec<(&'static str, i32)>,
    faults: Vec<String>,
    last: Option<(Arc<Topic>, i32, u64)>,
}

fn small() -> ConsumerConfig {
    let mut config = ConsumerConfig::new("", "g");
    config.max_rows = 100;
    config.max_bytes = 100_000;
    config.max_age = Duration::from_millis(50);
    config.memory = 2_000_000;
    config
}

impl Rig {
    fn start(cluster: &Mock, mut config: ConsumerConfig, names: &[&str], lanes: usize) -> Self {
        config.brokers = cluster.inner.bootstrap_servers();
        let (senders, lanes) = (0..lanes).map(|_| channel(1)).unzip();
        let ((event_sender, events), (commands, command_receiver)) = (channel(100), channel(100));
        let budget = Budget::new(config.memory);
        let wiring = Wiring {
            topics: names.iter().map(|name| topic(name)).collect(),
            lanes: senders,
            events: event_sender,
            commands: command_receiver,
            clock: || 1_800_000_000_000_000,
            budget: Arc::clone(&budget),
        };
        let handle = Some(Consumer::spawn(&config, wiring).unwrap());
        let (commands, seen, faults, last) = (Some(commands), Vec::new(), Vec::new(), None);
        Self { handle, lanes, events, commands, budget, seen, faults, last }
    }

    fn command(&self, command: Command) {
        self.commands.as_ref().unwrap().try_send(command).unwrap();
    }

    /// Answers events from the table.
    fn answer(&mut self, table: &mut Table) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Assigned { topic, partition, generation, low, .. } => {
                    let offset = *table.next.entry((topic.name.clone(), partition)).or_insert(low);
                    self.seen.push(("assigned", partition));
                    self.last = Some((Arc::clone(&topic), partition, generation));
                    self.command(Command::Resume { topic, partition, generation, offset });
                }
                Event::OutOfRange { topic, partition, generation, low, .. } => {
                    self.seen.push(("range", partition));
                    table.next.insert((topic.name.clone(), partition), low);
                    self.command(Command::Resume { topic, partition, generation, offset: low });
                }
                Event::Revoked { partition, .. } => self.seen.push(("revoked", partition)),
                Event::Unreadable { partition, .. } => self.seen.push(("unreadable", partition)),
                Event::Fault { why, .. } => self.faults.push(why),
                Event::AtEnd { .. } => {}
            }
        }
    }

    /// Stores one batch from each of these lanes that has one.
    fn store(&mut self, table: &mut Table, lanes: &[usize]) -> Vec<Messages> {
        let mut stored = Vec::new();
        for lane in lanes {
            let Ok(messages) = self.lanes[*lane].try_recv() else { continue };
            let topic = Arc::clone(messages.topic());
            for span in &messages.spans {
                let next = table.next.get_mut(&(topic.name.clone(), span.partition)).unwrap();
                if *next != span.from {
                    table.lost += 1;
                    let (topic, offset) = (Arc::clone(&topic), *next);
                    let (partition, generation) = (span.partition, span.generation);
                    self.command(Command::Reseek { topic, partition, generation, offset });
                    continue;
                }
                *next = span.to;
                let mut previous = span.from - 1;
                for message in messages.entries.iter().filter(|message| message.partition == span.partition) {
                    assert!(message.offset > previous && message.offset < span.to, "{span:?} {message:?}");
                    previous = message.offset;
                    let text = String::from_utf8_lossy(messages.value(message)).into_owned();
                    assert!(text.starts_with(&format!("{}/", span.partition)), "{text}");
                    let number = text.split('/').nth(1).unwrap();
                    assert_eq!(messages.headers(message).get("n"), Some(number.as_bytes()));
                    assert!(message.arrived_at > 0);
                    *table.taken.entry((topic.name.clone(), span.partition, message.offset)).or_default() +=
                        1;
                }
            }
            stored.push(messages);
        }
        stored
    }

    fn all_lanes(&self) -> Vec<usize> {
        (0..self.lanes.len()).collect()
    }

    /// Lets it run until the table is as wanted.
    fn until(&mut self, table: &mut Table, wanted: impl Fn(&Table) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(40);
        while !wanted(table) {
            assert!(Instant::now() < deadline, "{:?} {:?} {:?}", table.next, self.seen, self.faults);
            self.answer(table);
            self.store(table, &self.all_lanes());
            thread::park_timeout(Duration::from_millis(2));
        }
    }

    fn run_for(&mut self, table: &mut Table, time: Duration) {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.answer(table);
            self.store(table, &self.all_lanes());
            thread::park_timeout(Duration::from_millis(2));
        }
    }

    fn stop(&mut self, table: &mut Table) {
        self.command(Command::Stop { deadline: Instant::now() + Duration::from_secs(10) });
        while !self.lanes.iter().all(|lane| lane.is_closed() && lane.is_empty()) {
            self.answer(table);
            self.store(table, &self.all_lanes());
            thread::park_timeout(Duration::from_millis(2));
        }
        self.commands = None;
        self.handle.take().unwrap().join().unwrap().unwrap();
    }
}

fn at(table: &Table, topic: &str, partition: i32) -> i64 {
    table.next.get(&(topic.to_owned(), partition)).copied().unwrap_or(0)
}

fn assert_exactly_once(table: &Table, topic: &str, partition: i32, offsets: std::ops::Range<i64>) {
    let of = |(key, count): (&(String, i32, i64), &usize)| {
        (key.0 == topic && key.1 == partition).then_some((key.2, *count))
    };
    let found: Vec<_> = table.taken.iter().filter_map(of).collect();
    let wanted: Vec<_> = offsets.map(|offset| (offset, 1)).collect();
    assert!(found == wanted, "{topic}/{partition}: {} of {} messages", found.len(), wanted.len());
}

#[test]
fn the_first_span_starts_where_the_table_says() {
    let cluster = cluster(&[("t", 2)]);
    produce(&cluster, "t", 0, 0..300, 10);
    produce(&cluster, "t", 1, 0..300, 10);
    let mut table = Table::default();
    table.next.insert(("t".to_owned(), 0), 137);
    let mut rig = Rig::start(&cluster, small(), &["t"], 2);
    rig.until(&mut table, |table| at(table, "t", 0) == 300 && at(table, "t", 1) == 300);
    assert_exactly_once(&table, "t", 0, 137..300);
    assert_exactly_once(&table, "t", 1, 0..300);
    assert_eq!(table.lost, 0);
    rig.stop(&mut table);
}

#[test]
fn a_reseek_starts_a_generation_and_an_old_one_is_ignored() {
    let cluster = cluster(&[("t", 1)]);
    produce(&cluster, "t", 0, 0..500, 10);
    let mut table = Table::default();
    let mut rig = Rig::start(&cluster, small(), &["t"], 1);
    rig.until(&mut table, |table| at(table, "t", 0) == 500);
    let (topic, partition, generation) = rig.last.clone().unwrap();
    let reseek = |offset| Command::Reseek { topic: Arc::clone(&topic), partition, generation, offset };
    rig.command(reseek(40));
    rig.command(reseek(90));
    table.next.insert(("t".to_owned(), 0), 40);
    table.taken.clear();
    rig.until(&mut table, |table| at(table, "t", 0) == 500);
    assert_exactly_once(&table, "t", 0, 40..500);
    rig.command(reseek(0));
    produce(&cluster, "t", 0, 500..510, 10);
    rig.until(&mut table, |table| at(table, "t", 0) == 510);
    assert_exactly_once(&table, "t", 0, 40..510);
    assert_eq!(table.lost, 0);
    rig.stop(&mut table);
}

#[test]
fn paused_partitions_bring_nothing_and_lose_nothing() {
    let cluster = cluster(&[("t", 3)]);
    let mut table = Table::default();
    let mut rig = Rig::start(&cluster, small(), &["t"], 2);
    produce(&cluster, "t", 0, 0..200, 10);
    rig.until(&mut table, |table| at(table, "t", 0) == 200);
    rig.command(Command::PauseAll);
    rig.run_for(&mut table, Duration::from_millis(200));
    produce(&cluster, "t", 0, 200..400, 10);
    produce(&cluster, "t", 1, 0..100, 10);
    rig.run_for(&mut table, Duration::from_millis(500));
    assert_eq!((at(&table, "t", 0), at(&table, "t", 1)), (200, 0));
    rig.command(Command::ResumeAll);
    rig.until(&mut table, |table| at(table, "t", 0) == 400 && at(table, "t", 1) == 100);
    assert_exactly_once(&table, "t", 0, 0..400);
    assert_exactly_once(&table, "t", 1, 0..100);
    rig.stop(&mut table);
}

#[test]
fn a_flood_stops_at_the_budget_and_a_quiet_topic_passes() {
    let cluster = cluster(&[("flood", 1), ("quiet", 1)]);
    produce(&cluster, "flood", 0, 0..4000, 1000);
    let mut table = Table::default();
    let mut config = small();
    config.properties.insert("queued.max.messages.kbytes".into(), "500".into());
    let mut rig = Rig::start(&cluster, config, &["flood", "quiet"], 2);
    // Nobody takes anything: the flood fills the budget and is paused.
    let deadline = Instant::now() + Duration::from_secs(20);
    while rig.budget.used() < rig.budget.high() && Instant::now() < deadline {
        rig.answer(&mut table);
        thread::park_timeout(Duration::from_millis(2));
    }
    let until = Instant::now() + Duration::from_millis(600);
    while Instant::now() < until {
        assert!(rig.budget.used() <= rig.budget.memory(), "{} bytes", rig.budget.used());
        thread::park_timeout(Duration::from_millis(5));
    }
    // The lane of the quiet topic is the other one; its message passes while the flood stands.
    produce(&cluster, "quiet", 0, 0..1, 10);
    let (begun, quiet_lane) = (Instant::now(), 1);
    let mut first = rig.store(&mut table, &[quiet_lane]);
    while first.is_empty() && begun.elapsed() < Duration::from_secs(10) {
        thread::park_timeout(Duration::from_millis(2));
        first = rig.store(&mut table, &[quiet_lane]);
    }
    let lane_of_quiet = first.first().map(|messages| messages.topic().name.clone());
    println!("quiet after {:?}, {} bytes held", begun.elapsed(), rig.budget.used());
    assert!(lane_of_quiet.is_some(), "the quiet topic waits for the flood");
    assert!(begun.elapsed() < Duration::from_secs(2));
    drop(first);
    rig.until(&mut table, |table| at(table, "flood", 0) == 4000 && at(table, "quiet", 0) == 1);
    assert_exactly_once(&table, "flood", 0, 0..4000);
    assert_exactly_once(&table, "quiet", 0, 0..1);
    rig.stop(&mut table);
    assert_eq!(rig.budget.used(), 0);
}

#[test]
fn an_offset_the_broker_does_not_have_is_told() {
    let cluster = cluster(&[("t", 1)]);
    produce(&cluster, "t", 0, 0..20, 10);
    let mut table = Table::default();
    table.next.insert(("t".to_owned(), 0), 5000);
    let mut rig = Rig::start(&cluster, small(), &["t"], 1);
    rig.until(&mut table, |table| at(table, "t", 0) == 20);
    assert!(rig.seen.contains(&("range", 0)), "{:?}", rig.seen);
    assert_exactly_once(&table, "t", 0, 0..20);
    rig.stop(&mut table);
}

#[test]
fn two_consumers_share_and_take_over_exactly_once() {
    let cluster = cluster(&[("t", 4)]);
    let mut table = Table::default();
    let mut first = Rig::start(&cluster, small(), &["t"], 2);
    for partition in 0..4 {
        produce(&cluster, "t", partition, 0..500, 10);
    }
    first.until(&mut table, |table| (0..4).all(|partition| at(table, "t", partition) == 500));
    let mut second = Rig::start(&cluster, small(), &["t"], 2);
    let deadline = Instant::now() + Duration::from_secs(40);
    let mut number = 500;
    while !second.seen.iter().any(|(name, _)| *name == "assigned") || number < 1500 {
        assert!(Instant::now() < deadline, "{:?} {:?}", first.seen, second.seen);
        for partition in 0..4 {
            produce(&cluster, "t", partition, number..number + 50, 10);
        }
        number += 50;
        for rig in [&mut first, &mut second] {
            rig.run_for(&mut table, Duration::from_millis(20));
        }
    }
    let end = i64::try_from(number).unwrap();
    let all = |table: &Table| (0..4).all(|partition| at(table, "t", partition) == end);
    while !all(&table) {
        assert!(Instant::now() < deadline, "{:?}", table.next);
        first.run_for(&mut table, Duration::from_millis(10));
        second.run_for(&mut table, Duration::from_millis(10));
    }
    assert!(first.seen.iter().any(|(name, _)| *name == "revoked"), "{:?}", first.seen);
    // The first leaves; the second takes everything.
    first.stop(&mut table);
    for partition in 0..4 {
        produce(&cluster, "t", partition, number..number + 50, 10);
    }
    second.until(&mut table, |table| (0..4).all(|partition| at(table, "t", partition) == end + 50));
    for partition in 0..4 {
        assert_exactly_once(&table, "t", partition, 0..end + 50);
    }
    println!("{} lost spans", table.lost);
    second.stop(&mut table);
}

#[test]
fn any_mix_of_seeks_pauses_and_retries_loses_nothing() {
    let cluster = cluster(&[("a", 2), ("b", 2)]);
    let mut table = Table::default();
    let mut rig = Rig::start(&cluster, small(), &["a", "b"], 2);
    let topics = ["a", "b"].map(topic);
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    rig.run_for(&mut table, Duration::from_secs(4));
    for round in 0..60_usize {
        for (topic, partition) in [("a", 0), ("a", 1), ("b", 0), ("b", 1)] {
            produce(&cluster, topic, partition, round * 40..round * 40 + 40, 20);
        }
        let topic = Arc::clone(&topics[usize::try_from(random(2)).unwrap()]);
        let partition = i32::try_from(random(2)).unwrap();
        match random(4) {
            0 => rig.command(Command::PauseAll),
            1 => rig.command(Command::Retry { topic, partition }),
            // As if another owner had moved the table back: spans on their way lose their CAS.
            2 => {
                let key = (topic.name.clone(), partition);
                let next = table.next.get_mut(&key).unwrap();
                let back = i64::try_from(random(60)).unwrap().min(*next);
                *next -= back;
                let from = *next;
                table.taken.retain(|taken, _| (taken.0 != key.0 || taken.1 != key.1) || taken.2 < from);
                rig.command(Command::Retry { topic, partition });
            }
            _ => {}
        }
        rig.run_for(&mut table, Duration::from_millis(random(60)));
        rig.command(Command::ResumeAll);
    }
    let all = |table: &Table| {
        [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
            .iter()
            .all(|(topic, partition)| at(table, topic, *partition) == 2400)
    };
    rig.until(&mut table, all);
    for (topic, partition) in [("a", 0), ("a", 1), ("b", 0), ("b", 1)] {
        assert_exactly_once(&table, topic, partition, 0..2400);
    }
    println!("{} lost spans", table.lost);
    rig.stop(&mut table);
}

#[test]
fn restarts_amid_rebalances_lose_nothing() {
    let cluster = cluster(&[("t", 4)]);
    let mut table = Table::default();
    let mut first = Rig::start(&cluster, small(), &["t"], 2);
    first.run_for(&mut table, Duration::from_secs(4));
    let (topic, mut number) = (topic("t"), 0_usize);
    let retry = |rig: &Rig, number: usize| {
        let partition = i32::try_from(number / 10 % 4).unwrap();
        rig.command(Command::Retry { topic: Arc::clone(&topic), partition });
    };
    let mut second = Rig::start(&cluster, small(), &["t"], 2);
    let deadline = Instant::now() + Duration::from_secs(40);
    let mut after = 0;
    while after < 30 {
        assert!(Instant::now() < deadline, "{:?} {:?}", first.seen, second.seen);
        after += usize::from(second.seen.iter().any(|(name, _)| *name == "assigned"));
        for partition in 0..4 {
            produce(&cluster, "t", partition, number..number + 10, 10);
        }
        number += 10;
        retry(&first, number);
        retry(&second, number + 20);
        first.run_for(&mut table, Duration::from_millis(15));
        second.run_for(&mut table, Duration::from_millis(15));
    }
    second.stop(&mut table);
    let end = i64::try_from(number).unwrap();
    first.until(&mut table, |table| (0..4).all(|partition| at(table, "t", partition) == end));
    for partition in 0..4 {
        assert_exactly_once(&table, "t", partition, 0..end);
    }
    println!("{end} messages a partition, {} lost spans", table.lost);
    first.stop(&mut table);
}

#[test]
fn stopping_flushes_commits_and_leaves() {
    let cluster = cluster(&[("t", 1)]);
    let mut table = Table::default();
    let mut config = small();
    config.max_age = Duration::from_secs(3600);
    let mut rig = Rig::start(&cluster, config, &["t"], 1);
    rig.run_for(&mut table, Duration::from_secs(4));
    produce(&cluster, "t", 0, 0..150, 10);
    rig.until(&mut table, |table| at(table, "t", 0) == 100);
    rig.run_for(&mut table, Duration::from_millis(200));
    rig.command(Command::Commit { topic: topic("t"), partition: 0, offset: 100 });
    let begun = Instant::now();
    rig.stop(&mut table);
    assert_eq!(at(&table, "t", 0), 150);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let reader: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.inner.bootstrap_servers())
        .set("group.id", "g")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition("t", 0);
    let committed = reader.committed_offsets(list, Duration::from_secs(10)).unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(100));
}

#[test]
fn a_lost_pipeline_ends_the_consumer() {
    let cluster = cluster(&[("t", 1)]);
    let mut rig = Rig::start(&cluster, small(), &["t"], 1);
    rig.lanes.clear();
    let outcome = rig.handle.take().unwrap().join().unwrap();
    assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
}

#[test]
fn topics_are_described_and_what_is_missing_is_named() {
    let cluster = cluster(&[("t", 3)]);
    let brokers = cluster.inner.bootstrap_servers();
    let (none, timeout) = (BTreeMap::new(), Duration::from_secs(5));
    let found = describe(&brokers, &none, &["t"], timeout).unwrap();
    assert_eq!((found.topics[0].name.as_str(), found.topics[0].partitions), ("t", 3));
    println!("{found:?}");
    let error = describe("127.0.0.1:1", &none, &["t"], Duration::from_secs(1)).unwrap_err();
    assert!(matches!(&error, Error::Unreachable { .. }), "{error}");
    println!("{error}");
}

#[test]
fn hostile_record_times_become_ours() {
    let clock = 1_000_000_000_000_000;
    for millis in [-1, 0, i64::MIN, i64::MAX, clock / 1000 + 3_700_000] {
        assert_eq!(arrival(millis, clock), clock);
    }
    assert_eq!(arrival(5, clock), 5000);
}
