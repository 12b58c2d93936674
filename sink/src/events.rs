//! Finds hot rows by typed columns and shows their messages as received.
//!
//! Rows come from the API's views under the tenant's setting, so row-level security guards this
//! search as it guards the API. Their messages lie in blocks, found by (tenant, stream, `seq`)
//! within the row's partition interval and decompressed here, where their text can be searched.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use deadpool_postgres::Transaction;
use hashbrown::HashMap;
use inosec_schemas::{Fill, Kind, Stream, TenantId};
use tokio_postgres::IsolationLevel;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use crate::block::{CODEC, read_block};
use crate::micros::Micros;
use crate::{Error, Store};

/// Rows fetched at a time; each may need a block of its own.
const PAGE: i64 = 128;
/// How many blocks before a `seq` are looked at first: blocks merged before a slow transaction
/// committed may enclose its own.
const NEAREST: i64 = 8;
const DAY: i64 = 86_400_000_000;

/// How a column is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`; for a list: contains the item.
    Equal,
    /// `!=`; true for null, too.
    Different,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
    /// `~`: the text contains it, whatever the case.
    Contains,
}

/// A condition on a typed column, as in `host_name=web1` or `severity_id>=4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The column.
    pub column: String,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what, as text.
    pub value: String,
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let end = text.find(['=', '!', '<', '>', '~']).unwrap_or(text.len());
        let (column, rest) = text.split_at(end);
        // The longer signs first.
        let signs = [
            ("!=", Comparison::Different),
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("=", Comparison::Equal),
            ("<", Comparison::Less),
            (">", Comparison::More),
            ("~", Comparison::Contains),
        ];
        let found = signs.iter().find_map(|(sign, comparison)| Some((rest.strip_prefix(sign)?, *comparison)));
        match found {
            Some((value, comparison)) if !column.trim().is_empty() => {
                Ok(Self { column: column.trim().to_owned(), comparison, value: value.trim().to_owned() })
            }
            _ => Err(Error::Invalid(format!("{text:?} is no filter: write column=value, or != < <= > >= ~"))),
        }
    }
}

/// What to look for.
#[derive(Debug, Clone)]
pub struct Query {
    /// The stream whose rows are searched.
    pub stream: Arc<Stream>,
    /// Whose events.
    pub tenant: TenantId,
    /// From this `ts` on, in microseconds UTC.
    pub from: i64,
    /// Up to, not including, this `ts`.
    pub to: i64,
    /// All of these must hold.
    pub filters: Vec<Filter>,
    /// A text the message must contain, whatever the (ASCII) case.
    pub text: Option<String>,
    /// At most so many events.
    pub limit: usize,
}

/// One event found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Its storage time, in microseconds UTC.
    pub ts: i64,
    /// Its place among the tenant's blocks.
    pub seq: i64,
    /// The message byte for byte; `None` if no block holds it.
    pub message: Option<Vec<u8>>,
}

/// A search under way, newest events first.
pub struct Search<'a> {
    store: &'a Store,
    query: Query,
    sql: String,
    needle: Option<String>,
    /// The last row looked at.
    after: (i64, i64),
    left: usize,
    exhausted: bool,
}

impl<'a> Search<'a> {
    /// Prepares a search; an error names the filter at fault.
    pub fn new(store: &'a Store, query: Query) -> Result<Self, Error> {
        let sql = rows_statement(&query)?;
        let needle = query.text.as_ref().map(|text| text.to_ascii_lowercase());
        let (after, left) = ((query.to, i64::MIN), query.limit);
        Ok(Self { store, query, sql, needle, after, left, exhausted: left == 0 })
    }

    /// The next events, newest first; `None` when there are no more. May be empty where the text
    /// was not among the rows just looked at.
    pub async fn next(&mut self) -> Result<Option<Vec<Hit>>, Error> {
        if self.exhausted {
            return Ok(None);
        }
        let store = self.store;
        let mut hits = store.answered("searching events", self.page()).await?;
        if let Some(needle) = &self.needle {
            hits.retain(|hit| hit.message.as_ref().is_some_and(|message| contains(message, needle)));
        }
        hits.truncate(self.left);
        self.left -= hits.len();
        self.exhausted |= self.left == 0;
        Ok(Some(hits))
    }

    /// Rows and blocks of one snapshot: maintenance may merge blocks meanwhile.
    async fn page(&mut self) -> Result<Vec<Hit>, Error> {
        let doing = "searching events";
        let mut session = self.store.session().await?;
        let transaction = session
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await
            .map_err(Error::at(doing))?;
        let tenant = self.query.tenant.to_string();
        let set = "SELECT set_config('inosec.tenant_id', $1, true)";
        transaction.query(set, &[&tenant]).await.map_err(Error::at(doing))?;
        let mut hits = self.rows(&transaction).await?;
        self.exhausted = (hits.len() as i64) < PAGE;
        self.after = hits.last().map_or(self.after, |hit| (hit.ts, hit.seq));
        for limit in [NEAREST, i64::MAX] {
            if hits.iter().any(|hit| hit.message.is_none()) {
                self.fill(&transaction, &mut hits, limit).await?;
            }
        }
        Ok(hits)
    }

    async fn rows(&self, transaction: &Transaction<'_>) -> Result<Vec<Hit>, Error> {
        let (from, to, last) = (Micros(self.query.from), Micros(self.query.to), Micros(self.after.0));
        let mut values: Vec<&(dyn ToSql + Sync)> =
            vec![&self.query.tenant.0, &from, &to, &last, &self.after.1, &PAGE];
        values.extend(self.query.filters.iter().map(|filter| &filter.value as &(dyn ToSql + Sync)));
        let rows = transaction.query(&self.sql, &values).await.map_err(|source| {
            match source.code().is_some_and(|code| code.code().starts_with("22")) {
                true if source.code() != Some(&SqlState::DATETIME_FIELD_OVERFLOW) => {
                    Error::Invalid("a filter's value doesn't fit its column".to_owned())
                }
                _ => Error::Database { doing: "searching events", source },
            }
        })?;
        let hit =
            |row: &tokio_postgres::Row| Hit { ts: row.get::<_, Micros>(0).0, seq: row.get(1), message: None };
        Ok(rows.iter().map(hit).collect())
    }

    /// Fetches the blocks that may hold what is missing, each once, and takes the messages out.
    async fn fill(&self, transaction: &Transaction<'_>, hits: &mut [Hit], limit: i64) -> Result<(), Error> {
        let mut wanted: HashMap<i64, usize, foldhash::fast::RandomState> = HashMap::default();
        let (mut seqs, mut lows, mut highs) = (Vec::new(), Vec::new(), Vec::new());
        for (position, hit) in hits.iter().enumerate().filter(|(_, hit)| hit.message.is_none()) {
            let (low, high) = self.interval(hit.ts);
            wanted.insert(hit.seq, position);
            seqs.push(hit.seq);
            lows.push(Micros(low));
            highs.push(Micros(high));
        }
        let rows = transaction
            .query(BLOCKS, &[&self.query.tenant.0, &self.query.stream.name, &seqs, &lows, &highs, &limit])
            .await
            .map_err(Error::at("fetching raw messages"))?;
        for row in &rows {
            let (first, last): (i64, i64) = (row.get(0), row.get(1));
            let unreadable = |what: String| Error::Block { first_seq: first, what };
            if row.get::<_, &str>(2) != CODEC {
                return Err(unreadable(format!("its codec is {}", row.get::<_, &str>(2))));
            }
            let block = read_block(row.get(3)).map_err(|error| unreadable(error.to_string()))?;
            let inside: BTreeMap<i64, usize> = wanted
                .iter()
                .filter(|(seq, _)| (first..=last).contains(*seq))
                .map(|(s, p)| (*s, *p))
                .collect();
            for (seq, position) in inside {
                if let Some(message) = block.find(seq) {
                    hits[position].message = Some(message.to_vec());
                    wanted.remove(&seq);
                }
            }
        }
        Ok(())
    }

    /// Where the block of a row of this `ts` lies: in the same partition interval, except that a
    /// detection's block lies with the event it was detected in.
    fn interval(&self, ts: i64) -> (i64, i64) {
        if self.query.stream.name == "threat_events" {
            return (ts - 2 * DAY, ts + 2 * DAY);
        }
        let width = self.query.stream.interval.micros().min(DAY);
        let low = ts.div_euclid(width) * width;
        (low, low + width)
    }
}

/// The nearest blocks at or before each `seq` that reach it. A threat event's block belongs to the
/// stream its message arrived on, which may be any.
const BLOCKS: &str = "
    WITH streams AS (
        SELECT name FROM inosec.partitioned_tables
        WHERE name = $2 OR ($2 = 'threat_events' AND name NOT IN ('raw_blocks', 'dead_letters'))
    )
    SELECT DISTINCT ON (b.first_seq) b.first_seq, b.last_seq, b.codec, b.data
    FROM unnest($3::int8[], $4::timestamptz[], $5::timestamptz[]) AS wanted (seq, low, high), streams,
        LATERAL (
            SELECT * FROM inosec_api.raw_blocks
            WHERE tenant_id = $1 AND stream = streams.name AND first_seq <= wanted.seq
                AND ts >= wanted.low AND ts < wanted.high
            ORDER BY first_seq DESC LIMIT $6
        ) AS b
    WHERE b.last_seq >= wanted.seq
    ORDER BY b.first_seq";

/// The statement that finds rows; filter values are its parameters from $7 on.
fn rows_statement(query: &Query) -> Result<String, Error> {
    let stream = &query.stream;
    let Some(seq) = stream.filled_by(Fill::Seq) else {
        return Err(Error::Invalid(format!("rows of {} don't lead to raw messages", stream.name)));
    };
    let (ts, seq) = (&stream.columns[stream.ts].name, &stream.columns[seq].name);
    let tenant = &stream.columns[stream.tenant].name;
    let mut sql = format!(
        "SELECT {ts}, {seq} FROM inosec_api.{} WHERE {tenant} = $1 AND {ts} >= $2 AND {ts} < $3
            AND {ts} <= $4 AND ({ts}, {seq}) < ($4, $5)",
        stream.name
    );
    for (filter, number) in query.filters.iter().zip(7..) {
        sql.push_str(" AND ");
        sql.push_str(&condition(stream, filter, number)?);
    }
    sql.push_str(&format!(" ORDER BY {ts} DESC, {seq} DESC LIMIT $6"));
    Ok(sql)
}

fn condition(stream: &Stream, filter: &Filter, number: i32) -> Result<String, Error> {
    let Some(column) = stream.column(&filter.column).map(|position| &stream.columns[position]) else {
        let names: Vec<&str> = stream.columns.iter().map(|column| column.name.as_str()).collect();
        let what = format!("{} has no column {}: it has {}", stream.name, filter.column, names.join(", "));
        return Err(Error::Invalid(what));
    };
    let name = &column.name;
    let value = format!("${number}::text::{}", column.kind.ddl());
    let sign = match (filter.comparison, column.kind) {
        (_, Kind::Json | Kind::Bytes) => {
            return Err(Error::Invalid(format!("{name} is no column to filter by: search the text instead")));
        }
        (Comparison::Equal, Kind::TextList) => return Ok(format!("${number}::text = ANY({name})")),
        (Comparison::Contains, Kind::Text) => {
            return Ok(format!("position(lower(${number}::text) IN lower({name})) > 0"));
        }
        (_, Kind::TextList) | (Comparison::Contains, _) => {
            return Err(Error::Invalid(format!("{name} is {}: it can't be compared so", column.kind.docs())));
        }
        (Comparison::Equal, _) => "=",
        (Comparison::Different, _) => "IS DISTINCT FROM",
        (Comparison::Less, _) => "<",
        (Comparison::AtMost, _) => "<=",
        (Comparison::More, _) => ">",
        (Comparison::AtLeast, _) => ">=",
    };
    Ok(format!("{name} {sign} {value}"))
}

/// Whether the message contains the needle, which is in ASCII lower case.
fn contains(message: &[u8], needle: &str) -> bool {
    let message = message.to_ascii_lowercase();
    match std::str::from_utf8(&message) {
        Ok(text) => text.contains(needle),
        Err(_) => String::from_utf8_lossy(&message).contains(needle),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_with_the_longer_sign_first() {
        let filter = |text: &str| text.parse::<Filter>().map(|filter| (filter.comparison, filter.value));
        assert_eq!(filter("severity_id>=4").expect("reads"), (Comparison::AtLeast, "4".to_owned()));
        assert_eq!(filter("host_name=a=b").expect("reads"), (Comparison::Equal, "a=b".to_owned()));
        assert_eq!(filter("user_name != x").expect("reads"), (Comparison::Different, "x".to_owned()));
        assert!(filter("nothing").is_err());
        assert!(filter("=x").is_err());
    }

    #[test]
    fn text_is_found_whatever_the_ascii_case() {
        assert!(contains(b"Invoke-Mimikatz \xff", "mimikatz"));
        assert!(!contains(b"", "x"));
    }
}
