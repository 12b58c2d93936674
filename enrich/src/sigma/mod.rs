//! Sigma 2.1: rules parsed, compiled once per class of events, matched over columns.
//!
//! ```text
//! text ─ yaml ─ rule, detection, modifier, condition ─► Rule, Filter        parse
//! rules ─ engine ─ program (atoms, witnesses, conditions) ─ scanner ─►      compile
//! columns ─ matcher (memo, scanner) ─ program ─ tenants ─► hits             match
//! ```

mod compile;
mod condition;
mod cost;
mod detection;
mod encode;
mod engine;
mod expr;
mod finder;
mod fold;
mod matcher;
mod memo;
mod modifier;
mod network;
pub(crate) mod number;
mod pattern;
mod program;
mod reference;
mod regexes;
pub(crate) mod rule;
mod scanner;
mod tenants;
mod time;
mod trie;
mod witness;
pub(crate) mod yaml;

pub use condition::Condition;
pub use cost::{Cost, costs};
pub use detection::{Detection, NamedSelection};
pub use engine::{ClassId, Engine, FilterId, RuleId, TooLarge};
pub use expr::{Atom, Comparison, Expr, Test};
pub use matcher::{Hit, Matcher};
pub use modifier::Placeholders;
pub use network::Network;
pub use number::Number;
pub use pattern::{Part, Pattern};
pub use rule::{Filter, Level, LogSource, Parsed, Problem, Rule, parse};
pub use tenants::{Selection, Tenants};
pub use time::TimePart;
