//! Detection against a slow evaluator that shares nothing with it, and against what others found.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod corpus;
mod oracle;
mod properties;
mod rules;
mod support;
