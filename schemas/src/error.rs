//! What can be wrong with a description; always the author's to mend, so every message names the
//! file and what to change.

/// A stream or format description that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not TOML, or names a key that doesn't exist.
    #[error("{file}: {source}")]
    Toml {
        /// The file at fault.
        file: String,
        /// What the TOML parser says, with line and column.
        source: Box<toml::de::Error>,
    },
    /// The TOML is sound, what it says is not.
    #[error("{file}: {what}")]
    Invalid {
        /// The file at fault.
        file: String,
        /// What is wrong and what to change.
        what: String,
    },
    /// A directory or file of descriptions can't be read.
    #[error("{file}: {source}")]
    Io {
        /// The path that can't be read.
        file: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn invalid(file: &str, what: impl Into<String>) -> Self {
        Self::Invalid { file: file.to_owned(), what: what.into() }
    }
}
