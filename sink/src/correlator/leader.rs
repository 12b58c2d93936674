//! Who leads, and whether there is work.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::micros::Micros;
use crate::{Error, Store};

/// A leader that doesn't speak for so long is given up by the server.
const LEASE: Duration = Duration::from_secs(10);
/// Held by the session of the leader. The number is arbitrary and must never change.
const LOCK: i64 = 0x0069_6e6f_7365_6303;

/// The leading correlator's session.
#[derive(Debug)]
pub struct Leader {
    pub(super) client: Client,
    connection: JoinHandle<()>,
    pub(super) epoch: i64,
    clock: Option<i64>,
}

/// Whether there is work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Whether the queue holds anything.
    pub queued: bool,
    /// All that arrived before this was stored, as far as it is known of all partitions.
    pub clock: Option<i64>,
}

impl Store {
    /// Becomes the leader, unless another one leads. `by` is shown to operators.
    pub async fn lead(&self, by: &str) -> Result<Option<Leader>, Error> {
        let (client, connection) = self.session_as("inosec_correlator").await?;
        let mut leader = Leader { client, connection, epoch: 0, clock: None };
        let taken = self.answered("asking to lead", leader.take_over(by)).await?;
        Ok(taken.then_some(leader))
    }
}

impl Leader {
    async fn take_over(&mut self, by: &str) -> Result<bool, Error> {
        let doing = "asking to lead";
        // What is read and written at once may take longer than a statement of the road may.
        let lease = format!(
            "SET idle_session_timeout = {0}; SET idle_in_transaction_session_timeout = {0};
             SET statement_timeout = 0",
            LEASE.as_millis()
        );
        self.client.batch_execute(&lease).await.map_err(Error::at(doing))?;
        let ask = "SELECT pg_try_advisory_lock($1)";
        let ours: bool = self.client.query_one(ask, &[&LOCK]).await.map_err(Error::at(doing))?.get(0);
        if !ours {
            return Ok(false);
        }
        let raise = "UPDATE inosec.correlator SET epoch = epoch + 1, led_by = $1, led_since = now()
            RETURNING epoch, clock";
        let row = self.client.query_one(raise, &[&by]).await.map_err(Error::at(doing))?;
        self.epoch = row.get(0);
        self.clock = row.get::<_, Option<Micros>>(1).map(|clock| clock.0);
        Ok(true)
    }

    /// How often somebody became leader.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// How far the leaders before came.
    #[must_use]
    pub fn clock(&self) -> Option<i64> {
        self.clock
    }

    /// Asks whether there is work; `topics` are those whose partitions count for the clock. Also tells the
    /// server that we are alive.
    pub async fn due(&self, topics: &[&str]) -> Result<Due, Error> {
        let sql = "SELECT EXISTS (SELECT FROM inosec.correlation_queue), (
            SELECT CASE WHEN bool_and(read_until IS NOT NULL) THEN min(read_until) END
            FROM inosec.ingest_offsets WHERE topic = ANY($1))";
        let row = self.client.query_one(sql, &[&topics]).await.map_err(Error::at("asking for work"))?;
        Ok(Due { queued: row.get(0), clock: row.get::<_, Option<Micros>>(1).map(|clock| clock.0) })
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
