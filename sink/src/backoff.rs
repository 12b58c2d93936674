//! Waiting between attempts: exponential with full jitter, so that writers that failed together
//! don't come back together.

use std::time::Duration;

use uuid::Uuid;

/// The first wait is at most this long.
pub(crate) const FIRST: Duration = Duration::from_millis(50);
/// No wait is longer; also how soon a database that came back is noticed.
pub(crate) const LONGEST: Duration = Duration::from_secs(3);

/// How often it was waited.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Waits, longer each time.
    pub(crate) async fn wait(&mut self) {
        let ceiling = ceiling(self.attempts);
        self.attempts += 1;
        tokio::time::sleep(jitter(ceiling)).await;
    }

    /// How often it was waited so far.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }
}

fn ceiling(attempts: u32) -> Duration {
    FIRST.saturating_mul(1 << attempts.min(16)).min(LONGEST)
}

/// Half to all of it. Version 4 UUIDs are the randomness at hand.
fn jitter(ceiling: Duration) -> Duration {
    let random = u32::try_from(Uuid::new_v4().as_u128() & 0xffff).unwrap_or_default();
    ceiling / 2 + ceiling / 2 * random / 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_limit_and_never_beyond() {
        assert_eq!(ceiling(0), FIRST);
        assert_eq!(ceiling(3), FIRST * 8);
        assert_eq!(ceiling(1000), LONGEST);
        for attempts in 0..20 {
            let wait = jitter(ceiling(attempts));
            assert!(wait >= ceiling(attempts) / 2 && wait <= ceiling(attempts));
        }
    }
}
