//! Where each partition stands: first assignment, resuming, and setting by hand.

use std::sync::Arc;

use inosec_schemas::Topic;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::micros::Micros;
use crate::tenants::{administer, audit};
use crate::{Error, Store};

/// Where a partition nobody read yet starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest message Kafka has.
    Earliest,
    /// At the next message to come.
    Latest,
}

/// What to do with a partition that was assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Seek there.
    At(i64),
    /// Don't read it: tell the operator.
    Halt {
        /// What is wrong and the command that decides it.
        why: String,
    },
}

/// One row of `ingest_offsets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetRow {
    /// The Kafka cluster's id.
    pub cluster: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The broker's topic id, where it tells one.
    pub topic_id: Option<Uuid>,
    /// The first offset not stored yet.
    pub next_offset: i64,
    /// When it last moved, in microseconds UTC.
    pub updated_at: i64,
}

impl Store {
    /// The number under which rows name this topic; a re-created topic gets another.
    pub async fn register_topic(&self, cluster: &str, topic: &str, id: Option<Uuid>) -> Result<i32, Error> {
        let find = "SELECT key FROM inosec.kafka_topics
            WHERE cluster = $1 AND topic = $2 AND topic_id IS NOT DISTINCT FROM $3";
        let add = "INSERT INTO inosec.kafka_topics (cluster, topic, topic_id) VALUES ($1, $2, $3)
            ON CONFLICT DO NOTHING";
        let session = self.session().await?;
        let doing = "registering a topic";
        loop {
            if let Some(row) =
                session.query_opt(find, &[&cluster, &topic, &id]).await.map_err(Error::at(doing))?
            {
                return Ok(row.get(0));
            }
            session.execute(add, &[&cluster, &topic, &id]).await.map_err(Error::at(doing))?;
        }
    }

    /// Notes that all Kafka took into these partitions before `at` is stored, of those that stand at these
    /// offsets.
    pub async fn read_until(&self, partitions: &[(Arc<Topic>, i32, i64)], at: i64) -> Result<(), Error> {
        // A writer that holds a row moves it away from the end.
        let sql = "UPDATE inosec.ingest_offsets AS known SET read_until = greatest(known.read_until, $5)
            FROM (
                SELECT cluster, topic, partition FROM inosec.ingest_offsets AS o
                JOIN unnest($1::text[], $2::text[], $3::int4[], $4::int8[])
                    AS r (cluster, topic, partition, next_offset) USING (cluster, topic, partition, next_offset)
                FOR UPDATE OF o SKIP LOCKED
            ) AS ended
            WHERE (known.cluster, known.topic, known.partition) = (ended.cluster, ended.topic, ended.partition)";
        let clusters: Vec<&str> = partitions.iter().map(|(topic, ..)| topic.cluster.as_str()).collect();
        let topics: Vec<&str> = partitions.iter().map(|(topic, ..)| topic.name.as_str()).collect();
        let numbers: Vec<i32> = partitions.iter().map(|(_, partition, _)| *partition).collect();
        let offsets: Vec<i64> = partitions.iter().map(|(.., offset)| *offset).collect();
        let noting = async {
            let session = self.session().await?;
            let noted = session.execute(sql, &[&clusters, &topics, &numbers, &offsets, &Micros(at)]).await;
            noted.map(drop).map_err(Error::at("noting how far partitions were read"))
        };
        self.answered("noting how far partitions were read", noting).await
    }

    /// Where an assigned partition resumes; `low` and `high` are Kafka's watermarks just read.
    ///
    /// The first assignment ever stores its resolved start before anything is fetched, so that a
    /// crash doesn't resolve it anew. A start below `low` is recorded as a gap and moved to `low`.
    /// One above `high`, or another topic id, halts: the topic was re-created or restored.
    pub async fn resume_offset(
        &self,
        topic: &Topic,
        partition: i32,
        (low, high): (i64, i64),
        start: Start,
    ) -> Result<Resume, Error> {
        let doing = "resuming a partition";
        let mut session = self.session().await?;
        let transaction = session.transaction().await.map_err(Error::at(doing))?;
        let first = match start {
            Start::Earliest => low,
            Start::Latest => high,
        };
        let key = (&topic.cluster, &topic.name, &partition, &topic.id);
        let add = "INSERT INTO inosec.ingest_offsets (cluster, topic, partition, topic_id, next_offset)
            VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        transaction.execute(add, &[key.0, key.1, key.2, key.3, &first]).await.map_err(Error::at(doing))?;
        let read = "SELECT next_offset, topic_id FROM inosec.ingest_offsets
            WHERE cluster = $1 AND topic = $2 AND partition = $3 FOR UPDATE";
        let row = transaction.query_one(read, &[key.0, key.1, key.2]).await.map_err(Error::at(doing))?;
        let (stored, id): (i64, Option<Uuid>) = (row.get(0), row.get(1));
        if let Some(why) = mismatch(topic, partition, stored, id, high) {
            return Ok(Resume::Halt { why });
        }
        let resumed = stored.max(low);
        if stored < low {
            let gap = "INSERT INTO inosec.ingest_gaps (cluster, topic, partition, from_offset, to_offset)
                VALUES ($1, $2, $3, $4, $5)";
            let recorded = transaction.execute(gap, &[key.0, key.1, key.2, &stored, &low]).await;
            recorded.map_err(Error::at(doing))?;
            tracing::error!(
                topic = topic.name,
                partition,
                from = stored,
                to = low,
                "kafka deleted unread messages"
            );
        }
        if resumed != stored || (id.is_none() && topic.id.is_some()) {
            let update = "UPDATE inosec.ingest_offsets
                SET next_offset = $4, topic_id = coalesce($5, topic_id), updated_at = now()
                WHERE cluster = $1 AND topic = $2 AND partition = $3";
            let moved = transaction.execute(update, &[key.0, key.1, key.2, &resumed, key.3]).await;
            moved.map_err(Error::at(doing))?;
        }
        transaction.commit().await.map_err(Error::at(doing))?;
        Ok(Resume::At(resumed))
    }

    /// All offsets, or those of one topic.
    pub async fn offsets(&self, topic: Option<&str>) -> Result<Vec<OffsetRow>, Error> {
        let sql = "SELECT cluster, topic, partition, topic_id, next_offset, updated_at
            FROM inosec.ingest_offsets WHERE $1::text IS NULL OR topic = $1
            ORDER BY cluster, topic, partition";
        let session = self.session().await?;
        let rows = session.query(sql, &[&topic]).await.map_err(Error::at("reading the offsets"))?;
        Ok(rows.iter().map(read).collect())
    }

    /// Sets an offset by hand: the next assignment resumes there, whatever topic id the broker then
    /// tells. A writer at work finds its span lost and seeks. Returns the offset before.
    pub async fn set_offset(
        &self,
        (cluster, topic, partition): (&str, &str, i32),
        to: i64,
        actor: &str,
    ) -> Result<Option<i64>, Error> {
        let doing = "setting an offset";
        let mut session = self.session().await?;
        let transaction = administer(&mut session).await?;
        let read = "SELECT next_offset FROM inosec.ingest_offsets
            WHERE cluster = $1 AND topic = $2 AND partition = $3 FOR UPDATE";
        let before =
            transaction.query_opt(read, &[&cluster, &topic, &partition]).await.map_err(Error::at(doing))?;
        let before: Option<i64> = before.map(|row| row.get(0));
        let set = "INSERT INTO inosec.ingest_offsets (cluster, topic, partition, next_offset)
            VALUES ($1, $2, $3, $4)
            ON CONFLICT (cluster, topic, partition)
            DO UPDATE SET next_offset = excluded.next_offset, topic_id = NULL, updated_at = now()";
        transaction.execute(set, &[&cluster, &topic, &partition, &to]).await.map_err(Error::at(doing))?;
        let detail = serde_json::json!({ "from": before, "to": to });
        let object = format!("offset {cluster}/{topic}/{partition}");
        audit(&transaction, actor, "offsets.set", &object, None, &detail).await?;
        transaction.commit().await.map_err(Error::at(doing))?;
        Ok(before)
    }
}

fn read(row: &Row) -> OffsetRow {
    OffsetRow {
        cluster: row.get(0),
        topic: row.get(1),
        partition: row.get(2),
        topic_id: row.get(3),
        next_offset: row.get(4),
        updated_at: row.get::<_, Micros>(5).0,
    }
}

/// What speaks against reading on.
fn mismatch(topic: &Topic, partition: i32, stored: i64, id: Option<Uuid>, high: i64) -> Option<String> {
    let name = &topic.name;
    let decide = format!("decide with `inosec offsets set --topic {name} --partition {partition} --to N`");
    if let (Some(stored), Some(told)) = (id, topic.id)
        && stored != told
    {
        return Some(format!(
            "topic {name} was re-created: the stored offset of partition {partition} belongs to topic id \
             {stored}, the broker now has {told}; to read the new topic from its start, {decide} (N = 0)"
        ));
    }
    (stored > high).then(|| {
        format!(
            "partition {partition} of topic {name} ends at {high}, but everything below {stored} was already \
             stored: the topic was re-created or restored from a backup; {decide}"
        )
    })
}
