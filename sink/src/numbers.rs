//! Batch numbers: `seq` = number × 2^20 + position.
//!
//! Several are fetched per call. They are used within a minute or thrown away: numbers that grow
//! with time keep the blocks of one hour next to each other.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, Store};

/// How many numbers one call fetches.
const PER_CALL: i64 = 64;
/// How long fetched numbers are good.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// Numbers fetched and not used yet, highest first.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    free: Vec<i64>,
    fetched: Option<Instant>,
}

impl Numbers {
    fn take(&mut self) -> Option<i64> {
        if self.fetched.is_some_and(|fetched| fetched.elapsed() > GOOD_FOR) {
            self.free.clear();
        }
        self.free.pop()
    }

    fn put(&mut self, mut numbers: Vec<i64>) {
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        self.free = numbers;
        self.fetched = Some(Instant::now());
    }
}

impl Store {
    /// A batch number nobody else has or will have.
    pub async fn number(&self) -> Result<i64, Error> {
        loop {
            if let Some(number) = lock(&self.numbers).take() {
                return Ok(number);
            }
            let numbers = self.batch_numbers(PER_CALL).await?;
            lock(&self.numbers).put(numbers);
        }
    }

    /// Several batch numbers at once.
    pub async fn batch_numbers(&self, count: i64) -> Result<Vec<i64>, Error> {
        let sql = "SELECT nextval('inosec.batch_numbers') FROM generate_series(1, $1::int8)";
        let session = self.session().await?;
        let rows = session.query(sql, &[&count]).await.map_err(Error::at("drawing batch numbers"))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

/// A poisoned lock here holds numbers that are as good as before.
fn lock(numbers: &std::sync::Mutex<Numbers>) -> std::sync::MutexGuard<'_, Numbers> {
    numbers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
