//! Named places at which a test can hurt the program, in the very binary that ships.
//!
//! `INOSEC_FAULT="name:action[:nth]"`, several separated by commas, read once. `action` is `kill`
//! (the process aborts at once, as by `kill -9`: nothing is flushed, no destructor runs) or
//! `sleep=MS`; `nth` counts passages, from 1 (the default). Without the variable a point costs one
//! load. The points of the writer, in order: `before-copy`, `after-copy`, `after-cas`,
//! `before-commit`, `after-commit`; and `during-bisect`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Kill,
    Sleep(Duration),
}

#[derive(Debug)]
struct Armed {
    name: String,
    action: Action,
    nth: u64,
    passed: AtomicU64,
}

static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();

/// Passes the named point; does nothing unless the environment armed it.
pub async fn point(name: &str) {
    let armed = ARMED.get_or_init(|| parse(&std::env::var("INOSEC_FAULT").unwrap_or_default()));
    for fault in armed {
        if fault.name == name && fault.passed.fetch_add(1, Ordering::Relaxed) + 1 == fault.nth {
            match fault.action {
                Action::Kill => std::process::abort(),
                Action::Sleep(time) => tokio::time::sleep(time).await,
            }
        }
    }
}

/// A text that can't be read is a mistake in a test: it arms nothing and says so.
fn parse(text: &str) -> Vec<Armed> {
    let mut armed = Vec::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let mut parts = item.split(':');
        let name = parts.next().unwrap_or_default().to_owned();
        let action = match parts.next() {
            Some("kill") => Some(Action::Kill),
            Some(other) => other
                .strip_prefix("sleep=")
                .and_then(|ms| ms.parse().ok())
                .map(|ms| Action::Sleep(Duration::from_millis(ms))),
            None => None,
        };
        let nth = parts.next().map_or(Some(1), |nth| nth.parse().ok());
        match (action, nth) {
            (Some(action), Some(nth)) => armed.push(Armed { name, action, nth, passed: AtomicU64::new(0) }),
            _ => tracing::error!(item, "INOSEC_FAULT can't be read: name:kill|sleep=MS[:nth]"),
        }
    }
    armed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_actions_and_counts() {
        let armed = parse("after-copy:kill:3,before-commit:sleep=250,nonsense,x:explode");
        assert_eq!(armed.len(), 2);
        assert_eq!((armed[0].name.as_str(), armed[0].action, armed[0].nth), ("after-copy", Action::Kill, 3));
        assert_eq!(armed[1].action, Action::Sleep(Duration::from_millis(250)));
        assert_eq!(armed[1].nth, 1);
    }

    #[tokio::test]
    async fn an_unarmed_point_does_nothing() {
        point("after-copy").await;
    }
}
