//! Where the real servers are. A missing server fails the test unless skipping was asked for by
//! name, so that no green run hides an untested promise.

/// The value of a contract variable.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `make test`, or `eval \"$(deploy/local/services env)\"` after `services up`")
    })
}

pub fn kafka() -> String {
    variable("INOSEC_TEST_KAFKA")
}

/// Stops or starts servers that all tests share; whoever does is to be alone.
pub fn services(how: &[&str]) {
    let status = std::process::Command::new(variable("INOSEC_TEST_SERVICES")).args(how).status().unwrap();
    assert!(status.success(), "{how:?}");
}

/// The two hot stores every storage promise is tested on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    Timescale,
    Postgres,
}

impl Store {
    pub const BOTH: [Self; 2] = [Self::Timescale, Self::Postgres];

    pub fn admin_url(self) -> String {
        match self {
            Self::Timescale => variable("INOSEC_TEST_TIMESCALE_URL"),
            Self::Postgres => variable("INOSEC_TEST_POSTGRES_URL"),
        }
    }
}
