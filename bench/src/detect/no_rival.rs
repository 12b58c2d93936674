//! Built without the feature `rsigma`: nobody to compare with.

use inosec_enrich::Engine as OurEngine;
use inosec_schemas::EventClass;

use super::events::Group;
use super::rules::RuleText;
use crate::error::Result;

/// What reports call it.
pub const NAME: &str = "none: built without the feature rsigma";

/// How the rival chooses rules for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    Shipped,
    Strict,
}

/// Nobody.
pub struct Rival;

impl Rival {
    pub fn new(_: &[RuleText], _: &OurEngine, _: &[EventClass], _: impl Fn(u32) -> bool) -> Result<Self> {
        Ok(Self)
    }

    pub fn run(
        &mut self,
        _: &Group,
        _: Routing,
        _: bool,
        _: &mut dyn FnMut(&mut dyn FnMut()),
    ) -> Result<Vec<(usize, String)>> {
        Ok(Vec::new())
    }
}
