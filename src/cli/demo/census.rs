//! What is in the database: a glance while the play runs, a census at its end.

use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::fingerprint::Fingerprint;
use super::player::Progress;
use crate::cli::Failure;

/// Looks at the database.
pub struct Observer {
    client: Client,
}

/// What the screen shows.
#[derive(Debug, Default)]
pub struct Glance {
    /// Microseconds of the played day.
    pub time_of_day: i64,
    /// Events stored per second.
    pub rate: u64,
    /// Messages sent and not stored yet.
    pub lag: u64,
    /// Rows per table.
    pub tables: Vec<(String, u64)>,
    /// Dead letters by reason.
    pub reasons: Vec<(String, u64)>,
    /// The newest grave detections.
    pub detections: Vec<Detection>,
}

/// A detection.
#[derive(Debug)]
pub struct Detection {
    /// Time of day.
    pub time: String,
    /// OCSF severity.
    pub severity: i16,
    /// What was detected.
    pub signature: String,
    /// Where.
    pub host: String,
}

/// An alert.
#[derive(Debug)]
pub struct Alert {
    /// 0 to 100.
    pub risk: i16,
    /// Its threat events.
    pub events: u64,
    /// What happened.
    pub title: String,
    /// Where.
    pub hosts: Vec<String>,
}

/// Everything that is stored.
#[derive(Debug, Default)]
pub struct Census {
    /// Per tenant: id, name, rows of `agent_logs`, of `threat_events`, dead letters. The nil tenant
    /// stands for dead letters nobody owns.
    pub tenants: Vec<(Uuid, String, u64, u64, u64)>,
    /// Dead letters: reason, how many, one's detail.
    pub letters: Vec<(String, u64, String)>,
    /// Rows by format.
    pub formats: Vec<(String, u64)>,
    /// Threat events that arrived as such.
    pub foreign: u64,
    /// Threat events made of detections among agents' events.
    pub derived: u64,
    /// What our rules found: severity, title, how often.
    pub detected: Vec<(i16, String, u64)>,
    /// The gravest alerts.
    pub alerts: Vec<Alert>,
    /// All of them.
    pub alert_count: u64,
    /// Transactions whose threat events are not correlated yet.
    pub queued: u64,
    /// Rows of `agent_logs` whose place in Kafka another row has too.
    pub repeated: u64,
    /// What `event_counts` says.
    pub counted: u64,
    /// Messages in raw blocks.
    pub in_blocks: u64,
    /// All bytes, of blocks and of dead letters.
    pub fingerprint: Fingerprint,
    /// Bytes of the messages stored, and what they take as blocks.
    pub bytes: (u64, u64),
}

impl Census {
    /// Rows of `agent_logs`.
    pub fn agent_logs(&self) -> u64 {
        self.tenants.iter().map(|(_, _, rows, _, _)| rows).sum()
    }

    /// Threat events of our rules.
    pub fn detections(&self) -> u64 {
        self.detected.iter().map(|(_, _, count)| count).sum()
    }

    /// Dead letters.
    pub fn dead_letters(&self) -> u64 {
        self.tenants.iter().map(|(_, _, _, _, letters)| letters).sum()
    }
}

impl Observer {
    /// Connects.
    pub async fn connect(url: &str) -> Result<Self, Failure> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        // Ends when the client is dropped; a broken connection shows in the next query.
        tokio::spawn(connection);
        client.batch_execute("SET timezone = 'UTC'").await?;
        Ok(Self { client })
    }

    /// Partitions the road has taken over.
    pub async fn partitions(&self) -> Result<i64, Failure> {
        Ok(self.client.query_one("SELECT count(*) FROM inosec.ingest_offsets", &[]).await?.get(0))
    }

    /// Messages stored: partitions begin at 0 and the mock broker leaves no holes.
    pub async fn stored(&self) -> Result<u64, Failure> {
        self.number("SELECT coalesce(sum(next_offset), 0)::bigint FROM inosec.ingest_offsets").await
    }

    /// What the screen shows.
    pub async fn glance(&self, rate: u64, progress: &Progress) -> Result<Glance, Failure> {
        let counts = "SELECT stream, sum(events)::bigint FROM inosec.event_counts GROUP BY 1 ORDER BY 1";
        let reasons = "SELECT reason, count(*) FROM inosec.dead_letters GROUP BY 1 ORDER BY 2 DESC, 1";
        let mut tables = self.pairs(counts).await?;
        let reasons = self.pairs(reasons).await?;
        tables.push(("dead_letters".to_owned(), reasons.iter().map(|(_, count)| count).sum()));
        Ok(Glance {
            time_of_day: progress.time_of_day(),
            rate,
            lag: progress.sent().saturating_sub(progress.stored()),
            tables,
            reasons,
            detections: self.detections().await?,
        })
    }

    async fn detections(&self) -> Result<Vec<Detection>, Failure> {
        let sql = "SELECT to_char(detected_at, 'HH24:MI:SS'), severity_id, signature, coalesce(host_name, '') \
                   FROM inosec.threat_events WHERE severity_id >= 4 ORDER BY detected_at DESC LIMIT 6";
        let rows = self.client.query(sql, &[]).await?;
        let detection = |row: &tokio_postgres::Row| Detection {
            time: row.get(0),
            severity: row.get(1),
            signature: row.get(2),
            host: row.get(3),
        };
        Ok(rows.iter().map(detection).collect())
    }

    /// Counts everything.
    pub async fn census(&self) -> Result<Census, Failure> {
        Ok(Census {
            tenants: self.tenants().await?,
            letters: self.letters().await?,
            formats: self
                .pairs("SELECT format, count(*) FROM inosec.agent_logs GROUP BY 1 ORDER BY 2 DESC, 1")
                .await?,
            foreign: self.threats("NOT EXISTS").await?,
            derived: self.threats("EXISTS").await?,
            detected: self.detected().await?,
            alerts: self.alerts().await?,
            alert_count: self.number("SELECT count(*) FROM inosec.alerts").await?,
            queued: self.queued().await?,
            repeated: self
                .number(
                    "SELECT count(*) - count(DISTINCT (kafka_topic_id, kafka_partition, kafka_offset)) \
                     FROM inosec.agent_logs",
                )
                .await?,
            counted: self.number("SELECT coalesce(sum(events), 0)::bigint FROM inosec.event_counts").await?,
            fingerprint: self.fingerprint().await?,
            in_blocks: self.number("SELECT coalesce(sum(events), 0)::bigint FROM inosec.raw_blocks").await?,
            bytes: (
                self.number("SELECT coalesce(sum(bytes), 0)::bigint FROM inosec.event_counts").await?,
                self.number("SELECT coalesce(sum(octet_length(data)), 0)::bigint FROM inosec.raw_blocks")
                    .await?,
            ),
        })
    }

    async fn tenants(&self) -> Result<Vec<(Uuid, String, u64, u64, u64)>, Failure> {
        let sql = "WITH known AS (SELECT id, name FROM inosec.tenants),
                 logs AS (SELECT tenant_id AS id, count(*) AS rows FROM inosec.agent_logs GROUP BY 1),
                 threats AS (SELECT tenant_id AS id, count(*) AS rows FROM inosec.threat_events GROUP BY 1),
                 letters AS (
                     SELECT (SELECT id FROM known WHERE id = tenant_id) AS id, count(*) AS rows
                     FROM inosec.dead_letters GROUP BY 1
                 )
            SELECT known.id::text, coalesce(known.name, '(no known tenant)'), coalesce(logs.rows, 0),
                coalesce(threats.rows, 0), coalesce(letters.rows, 0)
            FROM known LEFT JOIN logs USING (id) LEFT JOIN threats USING (id)
            FULL JOIN letters ON letters.id = known.id
            ORDER BY 3 DESC, 2";
        let rows = self.client.query(sql, &[]).await?;
        let tenant = |row: &tokio_postgres::Row| {
            let id: Option<String> = row.get(0);
            let id = id.and_then(|id| id.parse().ok()).unwrap_or_default();
            (id, row.get(1), positive(row.get(2)), positive(row.get(3)), positive(row.get(4)))
        };
        Ok(rows.iter().map(tenant).collect())
    }

    async fn letters(&self) -> Result<Vec<(String, u64, String)>, Failure> {
        let sql =
            "SELECT reason, count(*), min(detail) FROM inosec.dead_letters GROUP BY 1 ORDER BY 2 DESC, 1";
        let rows = self.client.query(sql, &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), positive(row.get(1)), row.get(2))).collect())
    }

    async fn threats(&self, of_agents: &str) -> Result<u64, Failure> {
        let sql = format!(
            "SELECT count(*) FROM inosec.threat_events AS t WHERE source <> 'inosec' AND {of_agents} \
             (SELECT FROM inosec.agent_logs AS a WHERE a.tenant_id = t.tenant_id AND a.event_id = t.event_id)"
        );
        self.number(&sql).await
    }

    async fn detected(&self) -> Result<Vec<(i16, String, u64)>, Failure> {
        let sql = "SELECT severity_id, signature, count(*) FROM inosec.threat_events WHERE source = 'inosec'
            GROUP BY 1, 2 ORDER BY 1 DESC, 3 DESC, 2";
        let rows = self.client.query(sql, &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1), positive(row.get(2)))).collect())
    }

    async fn alerts(&self) -> Result<Vec<Alert>, Failure> {
        let sql = "SELECT risk_score, event_count, title,
                array(SELECT jsonb_array_elements_text(entities->'hosts'))
            FROM inosec.alerts WHERE episode = 'live' ORDER BY risk_score DESC, event_count DESC, title LIMIT 10";
        let rows = self.client.query(sql, &[]).await?;
        let alert = |row: &tokio_postgres::Row| Alert {
            risk: row.get(0),
            events: positive(row.get(1)),
            title: row.get(2),
            hosts: row.get(3),
        };
        Ok(rows.iter().map(alert).collect())
    }

    /// Transactions whose threat events are not correlated yet.
    pub async fn queued(&self) -> Result<u64, Failure> {
        self.number("SELECT count(*) FROM inosec.correlation_queue").await
    }

    /// Reads every message back.
    async fn fingerprint(&self) -> Result<Fingerprint, Failure> {
        let mut sum = Fingerprint::default();
        for row in self.client.query("SELECT data FROM inosec.raw_blocks", &[]).await? {
            let block = inosec_sink::read_block(row.get(0))?;
            block.iter().for_each(|(_, message)| sum.add(message));
        }
        let letters = "SELECT coalesce(payload, '') FROM inosec.dead_letters";
        for row in self.client.query(letters, &[]).await? {
            sum.add(row.get(0));
        }
        Ok(sum)
    }

    async fn number(&self, sql: &str) -> Result<u64, Failure> {
        Ok(positive(self.client.query_one(sql, &[]).await?.get(0)))
    }

    async fn pairs(&self, sql: &str) -> Result<Vec<(String, u64)>, Failure> {
        let rows = self.client.query(sql, &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), positive(row.get(1)))).collect())
    }
}

fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// How long messages took from Kafka to their commit, as the road's own metrics have it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Delays {
    /// Half took at most this many seconds.
    pub median: f64,
    /// All but one in a hundred.
    pub p99: f64,
    /// Repeats of foreign threat events that were dropped.
    pub duplicates: u64,
}

impl Delays {
    /// Reads them out of a scrape. Quantiles are upper bounds: the histogram's buckets.
    pub fn read(scrape: &str) -> Self {
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        let mut duplicates = 0;
        for line in scrape.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            if series.starts_with(inosec_sink::metrics::DUPLICATES) {
                duplicates += value as u64;
            }
            let bucket = series
                .strip_prefix(inosec_sink::metrics::DELAY_SECONDS)
                .and_then(|rest| rest.strip_prefix("_bucket"))
                .and_then(|labels| labels.split("le=\"").nth(1)?.split('"').next()?.parse().ok());
            if let Some(bound) = bucket {
                match buckets.iter_mut().find(|(other, _)| *other == bound) {
                    Some((_, count)) => *count += value as u64,
                    None => buckets.push((bound, value as u64)),
                }
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total = buckets.last().map_or(0, |(_, count)| *count);
        let bound = |share: f64| {
            let reached = |bucket: &&(f64, u64)| bucket.1 as f64 >= share * total as f64;
            buckets.iter().find(reached).map_or(0.0, |(bound, _)| *bound)
        };
        Self { median: bound(0.5), p99: bound(0.99), duplicates }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_read_from_a_scrape() {
        let scrape = "# TYPE inosec_sink_event_delay_seconds histogram\n\
            inosec_sink_event_delay_seconds_bucket{stream=\"agent_logs\",le=\"0.1\"} 40\n\
            inosec_sink_event_delay_seconds_bucket{stream=\"agent_logs\",le=\"0.5\"} 98\n\
            inosec_sink_event_delay_seconds_bucket{stream=\"agent_logs\",le=\"+Inf\"} 99\n\
            inosec_sink_event_delay_seconds_bucket{stream=\"threat_events\",le=\"0.1\"} 20\n\
            inosec_sink_event_delay_seconds_bucket{stream=\"threat_events\",le=\"0.5\"} 21\n\
            inosec_sink_event_delay_seconds_bucket{stream=\"threat_events\",le=\"+Inf\"} 21\n\
            inosec_sink_duplicates_total{stream=\"threat_events\"} 7\n";
        assert_eq!(Delays::read(scrape), Delays { median: 0.1, p99: 0.5, duplicates: 7 });
        assert_eq!(Delays::read(""), Delays::default());
    }
}
