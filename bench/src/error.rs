//! Why a benchmark could not be run: what was being done, and what went wrong.

use std::fmt;

/// Ends the run. A measurement that can't be taken is not guessed.
pub struct Error {
    doing: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What this crate's functions return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure without another one behind it.
    pub fn new(what: impl Into<String>) -> Self {
        Self { doing: what.into(), source: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        let mut source = self.source.as_ref().map(|source| &**source as &dyn std::error::Error);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    /// `main` prints errors with it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Says what was being done when something failed or was missing.
pub trait At<T> {
    /// `doing` completes "could not be run: …".
    fn at(self, doing: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> At<T> for std::result::Result<T, E> {
    fn at(self, doing: impl Into<String>) -> Result<T> {
        self.map_err(|error| Error { doing: doing.into(), source: Some(error.into()) })
    }
}

impl<T> At<T> for Option<T> {
    fn at(self, doing: impl Into<String>) -> Result<T> {
        self.ok_or_else(|| Error::new(doing))
    }
}

/// A count that has to be right: no speed may come from losing rows.
pub fn check(what: &str, expected: u64, found: u64) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::new(format!("{what}: {expected} expected, {found} found: the run is void")))
}
