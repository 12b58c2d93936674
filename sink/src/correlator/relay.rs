//! Changes of alerts on their way out: what was not sent yet, and how far sending has come.

use tokio::task::JoinHandle;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::{Error, Store};

/// A session that reads changes.
#[derive(Debug)]
pub struct Feed {
    client: Client,
    connection: JoinHandle<()>,
}

/// A change that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Whose it is: the message's key.
    pub tenant: Uuid,
    /// Its place among the tenant's changes.
    pub seq: i64,
    /// The message.
    pub message: String,
}

impl Store {
    /// A session of its own, so that whoever sends holds nobody up.
    pub async fn feed(&self) -> Result<Feed, Error> {
        let (client, connection) = self.session_as("inosec_correlator").await?;
        Ok(Feed { client, connection })
    }
}

impl Feed {
    /// Changes that were not sent yet, at most so many; in order for each tenant.
    pub async fn unsent(&self, most: i64) -> Result<Vec<Outgoing>, Error> {
        let sql = "SELECT c.tenant_id, c.seq, jsonb_build_object('seq', c.seq, 'kind', c.kind,
                'version', c.version, 'changed_at', c.changed_at, 'alert', c.alert)::text
            FROM inosec.alert_sequences AS s LEFT JOIN inosec.alert_relay AS r USING (tenant_id)
            CROSS JOIN LATERAL (
                SELECT * FROM inosec.alert_changes AS c
                WHERE c.tenant_id = s.tenant_id AND c.seq > coalesce(r.sent_seq, 0) ORDER BY c.seq LIMIT $1
            ) AS c
            WHERE s.last_seq > coalesce(r.sent_seq, 0) ORDER BY c.tenant_id, c.seq LIMIT $1";
        let rows = self.client.query(sql, &[&most]).await.map_err(Error::at("reading changes of alerts"))?;
        let read =
            |row: &tokio_postgres::Row| Outgoing { tenant: row.get(0), seq: row.get(1), message: row.get(2) };
        Ok(rows.iter().map(read).collect())
    }

    /// Notes that all of these were sent.
    pub async fn sent(&self, changes: &[Outgoing]) -> Result<(), Error> {
        let tenants: Vec<Uuid> = changes.iter().map(|change| change.tenant).collect();
        let seqs: Vec<i64> = changes.iter().map(|change| change.seq).collect();
        let sql = "INSERT INTO inosec.alert_relay AS known (tenant_id, sent_seq)
            SELECT tenant_id, max(seq) FROM unnest($1::uuid[], $2::bigint[]) AS sent (tenant_id, seq)
            GROUP BY tenant_id ORDER BY tenant_id
            ON CONFLICT (tenant_id) DO UPDATE SET sent_seq = greatest(known.sent_seq, excluded.sent_seq)";
        let noted = self.client.execute(sql, &[&tenants, &seqs]).await;
        noted.map(drop).map_err(Error::at("noting what was sent"))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
