//! What the tests share.

pub mod database;
pub mod proxy;
pub mod road;

/// The wall clock, in microseconds UTC.
#[expect(clippy::disallowed_methods, reason = "tests live in real time")]
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_micros()).expect("before 294000")
}
