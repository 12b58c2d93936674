//! The memory budget of messages in flight: who holds how much, and who must pause.
//!
//! Every batch owns a [`Hold`] from its first byte until its last owner drops it. Bytes are counted
//! by allocated capacity, so that the budget bounds real memory, and by partition, so that a flood
//! pauses the partitions that cause it and no other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The bytes held by all batches of this process. Shared; cheap to read.
#[derive(Debug)]
pub struct Budget {
    memory: usize,
    used: AtomicUsize,
    waiting: Mutex<()>,
    released: Condvar,
}

impl Budget {
    /// A budget of `memory` bytes.
    #[must_use]
    pub fn new(memory: usize) -> Arc<Self> {
        Arc::new(Self {
            memory,
            used: AtomicUsize::new(0),
            waiting: Mutex::new(()),
            released: Condvar::new(),
        })
    }

    /// Bytes held now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The whole budget, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// At this fill the partitions that hold the most are paused.
    #[must_use]
    pub fn high(&self) -> usize {
        self.memory / 10 * 6
    }

    /// At this fill all paused partitions go on. Far from [`Self::high`], because a pause throws
    /// away what librdkafka has fetched for the partition.
    #[must_use]
    pub fn low(&self) -> usize {
        self.memory / 10 * 3
    }

    /// Waits until something is given back, at most `timeout`.
    pub fn wait(&self, timeout: Duration) {
        let guard = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.released.wait_timeout(guard, timeout));
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.released.notify_all();
    }
}

/// The bytes one partition has in batches that are closed and not yet dropped.
#[derive(Debug, Default)]
pub struct Share(AtomicUsize);

impl Share {
    /// Bytes held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A batch's part of the budget; dropping it gives the bytes back.
#[derive(Debug)]
pub struct Hold {
    budget: Arc<Budget>,
    bytes: usize,
    shares: Vec<(Arc<Share>, usize)>,
}

impl Hold {
    /// Holds nothing yet.
    #[must_use]
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0, shares: Vec::new() }
    }

    /// Sets what the batch has allocated.
    pub fn grow_to(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.budget.used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
            self.bytes = bytes;
        }
    }

    /// Counts `bytes` of the batch towards a partition.
    pub fn share(&mut self, share: &Arc<Share>, bytes: usize) {
        share.0.fetch_add(bytes, Ordering::Relaxed);
        self.shares.push((Arc::clone(share), bytes));
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        for (share, bytes) in &self.shares {
            share.0.fetch_sub(*bytes, Ordering::Relaxed);
        }
        self.budget.release(self.bytes);
    }
}

/// What one running partition holds, for [`relieve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder<K> {
    /// Which partition.
    pub key: K,
    /// Its bytes, in open and closed batches.
    pub held: usize,
    /// Whether it is paused for memory.
    pub paused: bool,
}

/// Which partitions change: the keys to pause and the keys to resume.
#[derive(Debug, PartialEq, Eq)]
pub struct Relief<K> {
    /// To be paused.
    pub pause: Vec<K>,
    /// To go on.
    pub resume: Vec<K>,
}

/// Decides who pauses and who goes on.
///
/// A partition's fair part is the low mark divided by the number of partitions. Above the high mark
/// whoever holds at least that is paused; a quiet partition never is, until the budget is spent.
/// So memory stays below `high + low + (what one turn of the loop adds)`, less than the budget,
/// unless the bytes sit in batches of partitions that have left. A paused partition goes on below
/// the low mark, or below the high one as soon as it holds less than half its part: a partition
/// whose batches have been stored doesn't wait for one whose batches are stuck.
pub fn relieve<K: Copy>(budget: &Budget, holders: &[Holder<K>]) -> Relief<K> {
    let (used, fair) = (budget.used(), (budget.low() / holders.len().max(1)).max(1));
    let mut relief = Relief { pause: Vec::new(), resume: Vec::new() };
    for holder in holders {
        let heavy = holder.held >= fair || used >= budget.memory;
        let light = used < budget.low() || holder.held < fair / 2;
        if !holder.paused && used >= budget.high() && heavy {
            relief.pause.push(holder.key);
        } else if holder.paused && used < budget.high() && light {
            relief.resume.push(holder.key);
        }
    }
    relief
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(key: i32, held: usize, paused: bool) -> Holder<i32> {
        Holder { key, held, paused }
    }

    #[test]
    fn a_dropped_hold_gives_everything_back() {
        let (budget, share) = (Budget::new(1000), Arc::new(Share::default()));
        let mut hold = Hold::new(&budget);
        hold.grow_to(300);
        hold.grow_to(200);
        hold.share(&share, 250);
        assert_eq!((budget.used(), share.held()), (300, 250));
        drop(hold);
        assert_eq!((budget.used(), share.held()), (0, 0));
    }

    #[test]
    fn a_flood_pauses_itself_and_nobody_else() {
        let budget = Budget::new(1000);
        let mut hold = Hold::new(&budget);
        hold.grow_to(610);
        let relief = relieve(&budget, &[holder(0, 600, false), holder(1, 10, false)]);
        assert_eq!(relief, Relief { pause: vec![0], resume: vec![] });
    }

    #[test]
    fn a_spent_budget_pauses_everyone() {
        let budget = Budget::new(1000);
        let mut hold = Hold::new(&budget);
        hold.grow_to(1000);
        let relief = relieve(&budget, &[holder(0, 0, false), holder(1, 900, true)]);
        assert_eq!(relief, Relief { pause: vec![0], resume: vec![] });
    }

    #[test]
    fn between_the_marks_only_the_drained_go_on() {
        let budget = Budget::new(1000);
        let mut hold = Hold::new(&budget);
        hold.grow_to(450);
        let relief = relieve(&budget, &[holder(0, 400, true), holder(1, 20, true), holder(2, 100, false)]);
        assert_eq!(relief, Relief { pause: vec![], resume: vec![1] });
        drop(hold);
        let relief = relieve(&budget, &[holder(0, 400, true), holder(2, 100, false)]);
        assert_eq!(relief, Relief { pause: vec![], resume: vec![0] });
    }
}
