//! The correlator's side of the database: one leader at a time, and its transactions.
//!
//! ```text
//!  lead ─► Leader ─ rebuild ─► threat events of the horizon, live alerts
//!            │
//!            └─ begin ─► Fold: queue rows taken, their threat events ─ write ─ commit
//!  feed ─► Feed: changes not relayed yet                                        relay
//! ```
//!
//! Leading is a session that holds an advisory lock. A session that dies gives the lock back; one whose
//! process is frozen is ended by the server after [`LEASE`]. Besides, each leader raises the epoch and each
//! transaction holds it, so that a transaction of a former leader can't commit.

mod fold;
mod leader;
mod rebuild;
mod relay;
mod row;
mod write;

pub use fold::Fold;
pub use leader::{Due, Leader};
pub use rebuild::Relevant;
pub use relay::{Feed, Outgoing};
