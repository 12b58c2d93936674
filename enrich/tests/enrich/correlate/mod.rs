//! Correlation against a reference that goes by the definitions alone, and what trips others.

mod alerts;
mod properties;
mod reference;
mod resolve;
mod support;
mod traps;
