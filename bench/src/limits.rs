//! The raw limits: what PostgreSQL takes when nobody has to think about what to send it.

use std::sync::Arc;
use std::time::Duration;

use inosec_ingest::Decoder;
use inosec_schemas::{Batch, Catalog, Column, Rows, Stream};
use inosec_sink::{SealOptions, seal};

use crate::copyform::{self, Writer};
use crate::corpus::Corpus;
use crate::deck::{self, Deck};
use crate::error::{At, Result, check};
use crate::micro;
use crate::phase::{Phase, Start};
use crate::postgres::{Copy, Database, TABLES, copy_all, copy_into, within};
use crate::usage::Parties;

/// What others would write: the message as text beside a few columns.
const OTHERS: &str = "
    CREATE TABLE others (ts timestamptz NOT NULL, tenant_id uuid NOT NULL, host_name text, provider text,
        channel text, event_code text, format text, kafka_partition int, kafka_offset bigint,
        raw text COMPRESSION lz4);
    SELECT create_hypertable('others', by_range('ts', interval '1 day'), create_default_indexes => false);
    CREATE INDEX ON others (tenant_id, ts DESC);";
pub const OTHERS_COLUMNS: [&str; 10] = [
    "ts",
    "tenant_id",
    "host_name",
    "provider",
    "channel",
    "event_code",
    "format",
    "kafka_partition",
    "kafka_offset",
    "raw",
];
/// The columns of `raw_blocks`.
pub const RAW_BLOCKS: [&str; 8] =
    ["ts", "tenant_id", "stream", "first_seq", "last_seq", "events", "codec", "data"];

/// Transactions ready to be sent, one per batch.
pub struct Captured {
    /// The rows and blocks inosec writes.
    pub ours: Arc<Vec<Vec<Copy>>>,
    /// The same events as others would write them.
    pub others: Arc<Vec<Vec<Copy>>>,
    /// How many events became rows.
    pub rows: u64,
    pub dead_letters: u64,
}

impl Captured {
    /// Decodes and seals all events as the road does. Holds about 4 kB of memory an event.
    pub fn new(corpus: &Corpus, catalog: &Catalog, partitions: i32, events: usize) -> Result<Self> {
        let topic = deck::topic(catalog)?;
        let columns: Vec<&str> = topic.stream.columns.iter().map(|column| column.name.as_str()).collect();
        let into_rows = copy_into("inosec.agent_logs", &columns);
        let into_blocks = copy_into("inosec.raw_blocks", &RAW_BLOCKS);
        let into_others = copy_into("others", &OTHERS_COLUMNS);
        let (mut decoder, directory) = (Decoder::new(catalog, micro::limits()), corpus.directory());
        let (mut ours, mut others, mut rows, mut dead) = (Vec::new(), Vec::new(), 0, 0);
        let now = inosec::databases::now();
        for (number, messages) in (1..).zip(Deck::new(corpus, topic, partitions, events, now)) {
            let sealed = seal(decoder.decode(messages, &directory), number, &SealOptions::default());
            rows += sealed.batch.rows.len() as u64;
            dead += sealed.batch.dead.len() as u64;
            let written = copyform::count(&sealed.rows).at("reading the COPY data of agent_logs")?;
            check("rows that seal encodes", sealed.batch.rows.len() as u64, written as u64)?;
            others.push(vec![(Arc::clone(&into_others), as_others(&sealed.batch)?)]);
            ours.push(vec![(Arc::clone(&into_rows), sealed.rows), (Arc::clone(&into_blocks), sealed.blocks)]);
        }
        check("rows and dead letters of the captured batches", events as u64, rows + dead)?;
        Ok(Self { ours: Arc::new(ours), others: Arc::new(others), rows, dead_letters: dead })
    }
}

/// A batch as rows of the table `others`.
fn as_others(batch: &Batch) -> Result<Vec<bytes::Bytes>> {
    let rows = &batch.rows;
    let mut texts = Vec::new();
    for name in &OTHERS_COLUMNS[2..7] {
        texts.push(rows.stream.column(name).at(format!("agent_logs has no column {name}"))?);
    }
    let mut writer = Writer::new();
    for row in 0..rows.len() {
        let message = &batch.messages.entries[rows.message[row] as usize];
        writer.tuple(OTHERS_COLUMNS.len() as i16);
        writer.timestamp(rows.ts(row));
        writer.field(Some(rows.tenant(row).0.as_bytes()));
        for column in &texts {
            writer.field(text(rows, *column, row));
        }
        writer.field(Some(&message.partition.to_be_bytes()));
        writer.field(Some(&message.offset.to_be_bytes()));
        writer.field(Some(batch.messages.value(message)));
    }
    Ok(writer.finish())
}

fn text(rows: &Rows, column: usize, row: usize) -> Option<&[u8]> {
    match &rows.columns[column] {
        Column::Text(values) => values[row].map(|slice| rows.slice(slice)),
        _ => None,
    }
}

/// Where the raw COPY runs go.
pub struct Limits<'a> {
    pub database: &'a Database,
    pub parties: &'a Parties,
    pub captured: &'a Captured,
    pub timeout: Duration,
}

impl Limits<'_> {
    /// The table for rows as others would write them.
    pub async fn create_others(database: &Database) -> Result<()> {
        database.execute(OTHERS).await
    }

    /// Empties that table and makes its chunks ahead.
    pub async fn empty_others(database: &Database) -> Result<()> {
        database
            .execute(
                "TRUNCATE others;
                 INSERT INTO others (ts, tenant_id) SELECT now() + n * interval '1 day', gen_random_uuid()
                 FROM generate_series(0, 1) AS n;
                 DELETE FROM others;",
            )
            .await
    }

    /// COPY of the very rows and blocks that inosec writes.
    pub async fn ours(&self, connections: usize) -> Result<Phase> {
        self.database.empty(&TABLES).await?;
        let name = format!("raw COPY, inosec's rows and blocks, {}", of(connections));
        let tables = ["inosec.agent_logs", "inosec.raw_blocks"];
        self.run(&name, Arc::clone(&self.captured.ours), connections, &tables).await
    }

    /// COPY of the same events with the message as lz4 text.
    pub async fn others(&self, connections: usize) -> Result<Phase> {
        Self::empty_others(self.database).await?;
        let name = format!("raw COPY, message as lz4 text, {}", of(connections));
        self.run(&name, Arc::clone(&self.captured.others), connections, &["others"]).await
    }

    async fn run(
        &self,
        name: &str,
        transactions: Arc<Vec<Vec<Copy>>>,
        connections: usize,
        tables: &[&str],
    ) -> Result<Phase> {
        let Self { database, parties, captured, timeout } = self;
        database.settle().await?;
        let start = Start::take(database, parties).await?;
        let copied = within(*timeout, name, copy_all(&database.url, transactions, connections)).await?;
        let mut phase = start.end(name, captured.rows, database, parties, tables).await?;
        phase.backend_cpu = Some(copied.backend_cpu);
        let found = database.number(&format!("SELECT count(*) FROM {}", tables[0])).await?;
        check(name, captured.rows, copied.rows)?;
        check(name, captured.rows, found)?;
        phase.print();
        Ok(phase)
    }

    /// COPY of inosec's rows alone, with the first so many of the stream's indexes.
    pub async fn priced(&self, stream: &Stream, indexes: usize) -> Result<Phase> {
        let Self { database, captured, .. } = self;
        database.empty(&TABLES).await?;
        let drop = "SELECT coalesce(string_agg(format('DROP INDEX inosec.%I', indexname), ';'), 'SELECT 1')
            FROM pg_indexes WHERE schemaname = 'inosec' AND tablename = 'agent_logs'";
        database.execute(&database.text(drop).await?).await?;
        for index in &stream.indexes[..indexes] {
            database
                .execute(&format!("CREATE INDEX ON inosec.agent_logs ({})", index.columns.join(", ")))
                .await?;
        }
        let only_rows = |copies: &Vec<Copy>| copies[..1].to_vec();
        let transactions = Arc::new(captured.ours.iter().map(only_rows).collect());
        let added = indexes.checked_sub(1).map(|last| stream.indexes[last].columns.join(", "));
        let name = match added {
            None => "rows alone, no index".to_owned(),
            Some(columns) => format!("rows alone, + index ({columns})"),
        };
        self.run(&name, transactions, 1, &["inosec.agent_logs"]).await
    }
}

fn of(connections: usize) -> String {
    format!("{connections} connection{}", if connections == 1 { "" } else { "s" })
}
