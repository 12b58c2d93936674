//! Whether the database can be written to: the circuit breaker the pipeline watches.
//!
//! Whoever meets an outage holds an [`Outage`] while it retries; the store counts as down while
//! anybody holds one. A cancelled retry drops its guard, so the circuit can't stay open for nobody.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;
use tokio::time::Instant;

/// What the store says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Writes go through.
    Ok,
    /// They don't: stop consuming, answer `/readyz` with 503. Ends by itself.
    Down {
        /// Since when.
        since: Instant,
        /// What was said first.
        why: String,
    },
}

/// Counts those who are met by an outage and tells watchers.
#[derive(Debug)]
pub(crate) struct Circuit {
    outages: AtomicUsize,
    state: watch::Sender<Health>,
}

impl Circuit {
    pub(crate) fn new() -> Self {
        Self { outages: AtomicUsize::new(0), state: watch::Sender::new(Health::Ok) }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Health> {
        self.state.subscribe()
    }

    /// Opens the circuit until the guard is dropped.
    pub(crate) fn outage(&self, why: &str) -> Outage<'_> {
        self.state.send_if_modified(|state| {
            // Within the lock, as in `drop`, so that count and state can't disagree.
            self.outages.fetch_add(1, Ordering::Relaxed);
            let opened = *state == Health::Ok;
            if opened {
                *state = Health::Down { since: Instant::now(), why: why.to_owned() };
                tracing::warn!(why, "the database is down, consumption pauses");
            }
            opened
        });
        Outage(self)
    }
}

/// Keeps the circuit open.
#[derive(Debug)]
pub(crate) struct Outage<'a>(&'a Circuit);

impl Drop for Outage<'_> {
    fn drop(&mut self) {
        self.0.state.send_if_modified(|state| {
            let last = self.0.outages.fetch_sub(1, Ordering::Relaxed) == 1;
            if last {
                *state = Health::Ok;
                tracing::info!("the database answers again");
            }
            last
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_down_while_anybody_holds_an_outage() {
        let circuit = Circuit::new();
        let watch = circuit.watch();
        let first = circuit.outage("disk full");
        let second = circuit.outage("later words don't matter");
        assert!(matches!(&*watch.borrow(), Health::Down { why, .. } if why == "disk full"));
        drop(first);
        assert!(matches!(*watch.borrow(), Health::Down { .. }));
        drop(second);
        assert_eq!(*watch.borrow(), Health::Ok);
    }
}
