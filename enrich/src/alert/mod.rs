//! Alerts: changes of episodes in, rows to write out; `docs/alerts.md` says what an alert holds.
//!
//! Pure. The ledger knows the alerts of live episodes, each by the numbers of its episodes; everything else
//! about alerts is in their table.

mod content;
mod ledger;

pub use ledger::{Events, Ledger};
