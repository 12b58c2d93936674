//! How many matches of a rule are stored for a tenant in a minute of arrival.
//!
//! A batch that is done again must come to the same rows, so the limiter remembers which events it let
//! through, not how many times it was asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::{HashMap, HashSet};
use inosec_schemas::TenantId;
use uuid::Uuid;

/// How many events are remembered; then the oldest minutes are forgotten.
const REMEMBERED: usize = 1 << 20;
const MINUTE: i64 = 60_000_000;

type Hasher = foldhash::fast::RandomState;
type Admitted = HashMap<(TenantId, u64), HashSet<Uuid, Hasher>, Hasher>;

/// Shared by all who detect in a process.
#[derive(Debug)]
pub struct Limiter {
    limit: u32,
    minutes: Mutex<Minutes>,
}

#[derive(Debug, Default)]
pub(crate) struct Minutes {
    limit: usize,
    remembered: usize,
    by_minute: BTreeMap<i64, Admitted>,
}

impl Limiter {
    /// So many matches per tenant, rule and minute.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        let minutes = Minutes { limit: limit as usize, ..Minutes::default() };
        Self { limit, minutes: Mutex::new(minutes) }
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Minutes> {
        self.minutes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The start of the minute.
pub(crate) fn minute(time: i64) -> i64 {
    time.div_euclid(MINUTE) * MINUTE
}

impl Minutes {
    /// Whether this event's match is stored. The same question gets the same answer.
    pub(crate) fn admit(&mut self, minute: i64, tenant: TenantId, rule: u64, event: Uuid) -> bool {
        let admitted = self.by_minute.entry(minute).or_default().entry((tenant, rule)).or_default();
        if admitted.contains(&event) {
            return true;
        }
        if admitted.len() >= self.limit {
            return false;
        }
        admitted.insert(event);
        self.remembered += 1;
        while self.remembered > REMEMBERED && self.by_minute.len() > 1 {
            if let Some((_, forgotten)) = self.by_minute.pop_first() {
                self.remembered -= forgotten.values().map(HashSet::len).sum::<usize>();
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_events_pass_again_and_no_more_of_others() {
        let limiter = Limiter::new(2);
        let (one, other) = (TenantId(Uuid::from_u128(1)), TenantId(Uuid::from_u128(2)));
        let mut minutes = limiter.lock();
        let mut ask =
            |minute, tenant, rule, event| minutes.admit(minute, tenant, rule, Uuid::from_u128(event));
        for _ in 0..3 {
            assert!(ask(0, one, 7, 1) && ask(0, one, 7, 2) && !ask(0, one, 7, 3));
        }
        assert!(ask(0, other, 7, 3) && ask(0, one, 8, 3) && ask(MINUTE, one, 7, 3));
        assert_eq!(minute(MINUTE - 1), 0);
        assert_eq!(minute(-1), -MINUTE);
    }

    #[test]
    fn the_oldest_minutes_are_forgotten() {
        let limiter = Limiter::new(u32::MAX);
        let mut minutes = limiter.lock();
        let tenant = TenantId(Uuid::nil());
        for event in 0..REMEMBERED as u128 + 10 {
            minutes.admit(event as i64 / 1000 * MINUTE, tenant, 1, Uuid::from_u128(event));
        }
        assert!(minutes.remembered <= REMEMBERED);
        assert!(!minutes.by_minute.contains_key(&0));
    }
}
