//! What the system tests stand on: real servers, the real binary, and oracles that share no code
//! with it.

pub mod blocks;
pub mod corpus;
pub mod correlation;
pub mod database;
pub mod full_scan;
pub mod kafka;
pub mod load;
pub mod process;
pub mod proxy;
pub mod servers;

use std::future::Future;
use std::time::{Duration, Instant};

/// Asks until the answer is `Some`, or fails naming what was waited for.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Seeded randomness; the seed is printed so that a failure can be repeated with `INOSEC_SEED`.
pub struct Random(u64);

impl Random {
    pub fn new(what: &str) -> Self {
        let given = std::env::var("INOSEC_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            u64::from(std::process::id()) << 20 | u64::from(uuid::Uuid::new_v4().as_fields().0)
        });
        eprintln!("{what}: INOSEC_SEED={seed}");
        Self(seed)
    }

    /// The next number below `bound` (SplitMix64).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }
}

/// Tests that share the servers in peace.
pub async fn calm() -> tokio::sync::RwLockReadGuard<'static, ()> {
    WEATHER.read().await
}

/// A test that restarts a server the others use: it waits until it is alone.
pub async fn storm() -> tokio::sync::RwLockWriteGuard<'static, ()> {
    WEATHER.write().await
}

static WEATHER: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());
