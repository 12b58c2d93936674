//! What can go wrong at the database, and the one place that decides what to do about it.

use std::time::Duration;

use tokio_postgres::error::{DbError, SqlState};

/// What the sink reports.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database, or the road to it, said no.
    #[error("{doing}: {}", describe(source))]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What the driver says.
        source: tokio_postgres::Error,
    },
    /// No connection could be had.
    #[error("can't reach the database: {what}")]
    Connect {
        /// Why.
        what: String,
        /// What the pool says, if it was the pool.
        source: Option<Box<deadpool_postgres::PoolError>>,
    },
    /// The database didn't answer in time.
    #[error("{doing}: no answer from the database within {after:?}")]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// How long it was waited.
        after: Duration,
    },
    /// The connection URL can't be read.
    #[error("the database url can't be read: {source}")]
    Url {
        /// What is wrong with it, without the URL itself, which may hold a password.
        source: tokio_postgres::Error,
    },
    /// The tables are older, or newer, than this program.
    #[error("the database stands at migration {found} and this program needs {needed}: run `inosec migrate`")]
    NotMigrated {
        /// The last migration applied; 0 for none.
        found: i32,
        /// The last migration this program carries.
        needed: i32,
    },
    /// The login lacks rights.
    #[error("the login lacks rights; as an administrator of the database server run:\n{}", statements.join("\n"))]
    Rights {
        /// The statements that grant them.
        statements: Vec<String>,
    },
    /// A migration that was applied is not the one this program carries.
    #[error("migration {number} ({name}) was applied with another text than this program's: {advice}")]
    Changed {
        /// Its number.
        number: i32,
        /// Its name.
        name: String,
        /// What to do.
        advice: &'static str,
    },
    /// A stream's table can't become what its description says.
    #[error("table inosec.{table}: {what}")]
    Table {
        /// The table.
        table: String,
        /// What is wrong and what to change.
        what: String,
    },
    /// A request can't be carried out as it stands: the user's to mend.
    #[error("{0}")]
    Invalid(String),
    /// A block of raw messages can't be read.
    #[error("block {first_seq} of raw messages can't be read: {what}")]
    Block {
        /// Its first sequence number.
        first_seq: i64,
        /// What is wrong with it.
        what: String,
    },
    /// Work handed to a blocking thread didn't come back.
    #[error("a worker thread failed: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

/// What to do about an error of a writer's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Wait and try the same again: lock, timeout, disk, connection, restart.
    Retry,
    /// Some row is at fault: bisect until it is found.
    Reject,
    /// Nothing will change by itself: stop and say what to do.
    Halt,
}

impl Error {
    /// Names what was being done when the driver failed.
    pub(crate) fn at(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Database { doing, source }
    }

    /// What the server said, if it was the server.
    #[must_use]
    pub fn db(&self) -> Option<&DbError> {
        match self {
            Self::Database { source, .. } => source.as_db_error(),
            _ => None,
        }
    }

    /// Whether a row found no partition: PostgreSQL reports it as a check violation of no constraint.
    pub(crate) fn is_missing_partition(&self) -> bool {
        self.db().is_some_and(|db| *db.code() == SqlState::CHECK_VIOLATION && db.constraint().is_none())
    }

    /// What to do about it in a writer's transaction.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Database { source, .. } => match source.as_db_error() {
                Some(_) if self.is_missing_partition() => Disposition::Retry,
                Some(db) => of_state(db.code().code()),
                // A parameter of another type than the statement's: ours to mend.
                None if is_wrong_type(source) => Disposition::Halt,
                None => Disposition::Retry,
            },
            Self::Connect { .. } | Self::Timeout { .. } => Disposition::Retry,
            Self::Url { .. }
            | Self::NotMigrated { .. }
            | Self::Rights { .. }
            | Self::Changed { .. }
            | Self::Table { .. }
            | Self::Invalid(_)
            | Self::Block { .. }
            | Self::Worker(_) => Disposition::Halt,
        }
    }

    /// Whether the database as a whole is in trouble, not just this statement.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Database { source, .. } => match source.as_db_error() {
                Some(db) => {
                    matches!(db.code().code().get(..2), Some("08" | "28" | "3D" | "53" | "57" | "58" | "XX"))
                }
                None => true,
            },
            Self::Connect { .. } | Self::Timeout { .. } => true,
            _ => false,
        }
    }

    /// What a dead letter says of the row the database refused: code and names, never values.
    pub(crate) fn refusal(&self) -> String {
        let Some(db) = self.db() else { return self.to_string() };
        let mut text = format!("sqlstate {}", db.code().code());
        for (what, name) in [("table", db.table()), ("column", db.column()), ("constraint", db.constraint())]
        {
            if let Some(name) = name {
                text.push_str(&format!(", {what} {name}"));
            }
        }
        text
    }
}

/// By SQLSTATE (PostgreSQL, appendix A): only data exceptions (22), integrity violations (23) and
/// exceeded limits (54) speak of a row. A wrong table, column or right (42, 0A) stays wrong until
/// somebody migrates or grants. All else passes: locks, timeouts, disk, restarts, fail-overs.
fn of_state(code: &str) -> Disposition {
    match code.get(..2) {
        Some("22" | "23" | "54") => Disposition::Reject,
        Some("42" | "0A") => Disposition::Halt,
        _ => Disposition::Retry,
    }
}

fn is_wrong_type(source: &tokio_postgres::Error) -> bool {
    std::error::Error::source(source).is_some_and(|cause| cause.is::<tokio_postgres::types::WrongType>())
}

/// The server's message without detail, which quotes values; the driver's otherwise.
fn describe(source: &tokio_postgres::Error) -> String {
    match source.as_db_error() {
        // Messages of class 22 quote the value they refuse.
        Some(db) if db.code().code().starts_with("22") => format!("sqlstate {}", db.code().code()),
        Some(db) => format!("{} (sqlstate {})", db.message(), db.code().code()),
        None => {
            let mut text = source.to_string();
            let mut inner = std::error::Error::source(source);
            while let Some(cause) = inner {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                inner = cause.source();
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_classes_22_23_and_54_blame_a_row() {
        for code in ["22021", "22P03", "23514", "23502", "54000"] {
            assert_eq!(of_state(code), Disposition::Reject, "{code}");
        }
        for code in ["40P01", "55P03", "57014", "57P01", "53100", "08006", "25P02", "XX000", "28P01"] {
            assert_eq!(of_state(code), Disposition::Retry, "{code}");
        }
        for code in ["42P01", "42501", "0A000"] {
            assert_eq!(of_state(code), Disposition::Halt, "{code}");
        }
    }
}
