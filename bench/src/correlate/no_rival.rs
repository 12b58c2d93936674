//! Built without the feature `rsigma`: nobody to compare with.

use super::cases::{Case, Made};
use crate::error::Result;

/// What reports call it.
pub const NAME: &str = "none: built without the feature rsigma";

/// Nobody.
pub struct Rival;

impl Rival {
    pub fn new(_: &Case) -> Result<Self> {
        Ok(Self)
    }

    pub fn take(&mut self, _: &[Made], _: &mut dyn FnMut(&mut dyn FnMut())) -> u64 {
        0
    }
}
