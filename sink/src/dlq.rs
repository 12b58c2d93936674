//! Looking at dead letters.

use inosec_schemas::TenantId;
use serde_json::Value;
use tokio_postgres::Row;

use crate::micros::Micros;
use crate::{Error, Store};

/// Which letters; what is left out doesn't matter.
#[derive(Debug, Clone, Default)]
pub struct LetterFilter {
    /// These ids only; empty for any.
    pub ids: Vec<i64>,
    /// A reason, as in `dead_letters.reason`.
    pub reason: Option<String>,
    /// A topic's name.
    pub topic: Option<String>,
    /// A tenant.
    pub tenant: Option<TenantId>,
    /// Letters that were redriven, too.
    pub redriven: bool,
}

/// A letter without its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its id.
    pub id: i64,
    /// When it was stored, in microseconds UTC.
    pub received_at: i64,
    /// Whose message it was, where that is known.
    pub tenant: Option<TenantId>,
    /// Why it couldn't be stored.
    pub reason: String,
    /// What to look at.
    pub detail: String,
    /// The topic it came from.
    pub topic: String,
    /// The partition it came from.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The last offset it stands for: beyond the quota one letter stands for many.
    pub last_offset: i64,
    /// When it was redriven, in microseconds UTC.
    pub redriven_at: Option<i64>,
    /// How long its payload is; `None` for a tombstone and beyond the quota.
    pub payload_bytes: Option<i32>,
}

/// A letter's contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterContents {
    /// What the list says of it.
    pub letter: Letter,
    /// When Kafka took the message, in microseconds UTC.
    pub arrived_at: i64,
    /// The headers: name to text, `{"hex": …}`, null, or a list of these.
    pub headers: Value,
    /// The value byte for byte.
    pub payload: Option<Vec<u8>>,
    /// `kafka_topics.key` of its topic.
    pub(crate) topic_key: i32,
}

const COLUMNS: &str = "id, received_at, tenant_id, reason, detail, topic, partition, \"offset\", last_offset,
    redriven_at, octet_length(payload)";

const MATCHES: &str = "(cardinality($1::int8[]) = 0 OR id = ANY($1)) AND ($2::text IS NULL OR reason = $2)
    AND ($3::text IS NULL OR topic = $3) AND ($4::uuid IS NULL OR tenant_id = $4)
    AND ($5 OR redriven_at IS NULL)";

impl Store {
    /// The newest letters that match.
    pub async fn dead_letters(&self, filter: &LetterFilter, limit: i64) -> Result<Vec<Letter>, Error> {
        let sql =
            format!("SELECT {COLUMNS} FROM inosec.dead_letters WHERE {MATCHES} ORDER BY id DESC LIMIT $6");
        let rows = self.matching_letters(&sql, filter, limit).await?;
        Ok(rows.iter().map(letter).collect())
    }

    /// As [`Self::dead_letters`], oldest first: the order in which they are redriven.
    pub(crate) async fn oldest_letters(
        &self,
        filter: &LetterFilter,
        limit: i64,
    ) -> Result<Vec<Letter>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM inosec.dead_letters WHERE {MATCHES} ORDER BY id LIMIT $6");
        let rows = self.matching_letters(&sql, filter, limit).await?;
        Ok(rows.iter().map(letter).collect())
    }

    async fn matching_letters(
        &self,
        sql: &str,
        filter: &LetterFilter,
        limit: i64,
    ) -> Result<Vec<Row>, Error> {
        let tenant = filter.tenant.map(|tenant| tenant.0);
        let session = self.session().await?;
        let rows = session
            .query(sql, &[&filter.ids, &filter.reason, &filter.topic, &tenant, &filter.redriven, &limit])
            .await;
        rows.map_err(Error::at("reading dead letters"))
    }

    /// One letter with its headers and bytes.
    pub async fn dead_letter(&self, id: i64) -> Result<Option<LetterContents>, Error> {
        Ok(self.letter_contents(&[id]).await?.pop())
    }

    /// Letters with their contents, in the order of their messages.
    pub(crate) async fn letter_contents(&self, ids: &[i64]) -> Result<Vec<LetterContents>, Error> {
        let sql = format!(
            "SELECT {COLUMNS}, arrived_at, headers::text, payload, topic_key FROM inosec.dead_letters
            WHERE id = ANY($1) ORDER BY partition, \"offset\", id"
        );
        let session = self.session().await?;
        let rows = session.query(&sql, &[&ids]).await.map_err(Error::at("reading dead letters"))?;
        Ok(rows.iter().map(contents).collect())
    }
}

fn letter(row: &Row) -> Letter {
    Letter {
        id: row.get(0),
        received_at: row.get::<_, Micros>(1).0,
        tenant: row.get::<_, Option<uuid::Uuid>>(2).map(TenantId),
        reason: row.get(3),
        detail: row.get(4),
        topic: row.get(5),
        partition: row.get(6),
        offset: row.get(7),
        last_offset: row.get(8),
        redriven_at: row.get::<_, Option<Micros>>(9).map(|at| at.0),
        payload_bytes: row.get(10),
    }
}

fn contents(row: &Row) -> LetterContents {
    let headers = row.get::<_, Option<&str>>(12).and_then(|text| serde_json::from_str(text).ok());
    LetterContents {
        letter: letter(row),
        arrived_at: row.get::<_, Micros>(11).0,
        headers: headers.unwrap_or(Value::Null),
        payload: row.get(13),
        topic_key: row.get(14),
    }
}
