//! rsigma-eval 0.23's correlator (feature `rsigma`), as it ships.
//!
//! Its detection is left out: it is given detections made beforehand, and flat events whose group and value
//! are one look-up. It keeps no members, takes events one by one and has no clock but theirs.

use rsigma_eval::{CorrelationConfig, CorrelationEngine, EvaluationResult, JsonEvent};
use rsigma_parser::parse_sigma_yaml;
use serde_json::{Value, json};

use super::cases::{Case, Made, SECOND};
use crate::error::{At, Error, Result};

/// What reports call it.
pub const NAME: &str = "rsigma-eval 0.23.0";

/// Its engine, and what a detection by the one or the other rule looks like.
pub struct Rival {
    engine: CorrelationEngine,
    detections: [Vec<EvaluationResult>; 2],
}

impl Rival {
    pub fn new(case: &Case) -> Result<Self> {
        let rules = parse_sigma_yaml(&case.text()).at("rsigma reading the rules")?;
        let mut engine = CorrelationEngine::new(CorrelationConfig::default());
        engine.add_collection(&rules).at("rsigma compiling the rules")?;
        let detections = ["a", "b"].map(|rule| engine.evaluate(&JsonEvent::borrow(&json!({ "F": rule }))));
        if detections.iter().any(|found| found.len() != 1) {
            return Err(Error::new("rsigma doesn't find what the rules say"));
        }
        Ok(Self { engine, detections })
    }

    /// Takes events in; `clock` times what it is given to do. How often correlations fired.
    pub fn take(&mut self, made: &[Made], clock: &mut dyn FnMut(&mut dyn FnMut())) -> u64 {
        let values: Vec<Value> =
            made.iter().map(|made| json!({ "g": made.group, "v": made.value })).collect();
        let mut inputs: Vec<_> = made
            .iter()
            .zip(&values)
            .map(|(made, value)| {
                let detections = self.detections[usize::from(made.second)].clone();
                (JsonEvent::borrow(value), detections, made.time / SECOND)
            })
            .collect();
        let mut fired = 0;
        clock(&mut || {
            for (event, detections, time) in inputs.drain(..) {
                let results = self.engine.process_with_detections(&event, detections, time);
                fired += results.iter().filter(|result| result.is_correlation()).count() as u64;
            }
        });
        fired
    }
}
