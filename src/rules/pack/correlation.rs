//! Correlations over their cases: each comes to the episodes it must, in whatever order its events come
//! and however often.

use std::path::Path;
use std::sync::Arc;

use inosec_enrich::correlate::Options;
use inosec_enrich::{Correlation, Correlations, Rule};

use super::case::Case;
use super::{Failure, LEAST, Report, fixture_of};
use crate::day::random::Random;
use crate::rules::{Detected, Detections, Episode, Episodes, alone};

/// Random orders that each case is tried in.
const SHUFFLES: u64 = 3;

/// Runs the cases of a pack's correlations.
pub struct Tester<'a> {
    pub root: &'a Path,
    pub rules: &'a [Rule],
    pub correlations: &'a [Correlation],
    pub detections: Detections,
}

impl Tester<'_> {
    /// Runs a correlation over its fixture.
    pub fn correlation(&mut self, rule: &Correlation, report: &mut Report) {
        let path = fixture_of(self.root, &rule.origin.0);
        let file = path.display().to_string();
        let fail = |line: usize, message: String| {
            let (file, rule) = (file.clone(), Some(rule.id.clone()));
            Failure { file, line, rule, message }
        };
        report.correlations += 1;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => return report.failures.push(fail(1, format!("no fixture: {error}"))),
        };
        let alone = Arc::new(alone(rule, self.correlations, self.rules));
        let (mut raising, mut quiet) = (0, 0);
        for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
            let wrong = Case::read(text).and_then(|case| {
                *(if case.episodes.is_empty() { &mut quiet } else { &mut raising }) += 1;
                self.case(rule, &alone, &case).map_err(|message| format!("{message}: {}", case.why))
            });
            report.failures.extend(wrong.err().map(|message| fail(line, message)));
        }
        report.raising += raising;
        report.quiet += quiet;
        if raising < LEAST || quiet < LEAST {
            let message = format!(
                "{raising} cases that raise episodes, {quiet} near-misses: {LEAST} of each are needed"
            );
            report.failures.push(fail(1, message));
        }
    }

    fn case(&mut self, rule: &Correlation, alone: &Arc<Correlations>, case: &Case) -> Result<(), String> {
        let detected = self.detections.run(&case.events()?, 0);
        let of = alone.detections_of(&rule.id);
        if !detected.iter().any(|one| of.contains(&one.event.rule())) {
            return Err("it proves nothing, no rule that the correlation refers to fires".to_owned());
        }
        let episodes = fold(alone, &rule.id, [detected.as_slice()]);
        let mut counts: Vec<usize> = episodes.iter().map(|episode| episode.members.len()).collect();
        let mut expected = case.episodes.clone();
        counts.sort_unstable();
        expected.sort_unstable();
        if counts != expected {
            return Err(format!("episodes of {counts:?} threat events instead of {expected:?}"));
        }
        for seed in 0..SHUFFLES {
            let mut twice: Vec<Detected> = detected.iter().chain(&detected).cloned().collect();
            let mut random = Random::new(seed);
            for last in (1..twice.len()).rev() {
                twice.swap(last, random.below(last + 1));
            }
            if fold(alone, &rule.id, twice.chunks(1 + seed as usize)) != episodes {
                return Err(format!("other episodes when each event comes twice in random order {seed}"));
            }
        }
        Ok(())
    }
}

/// The episodes of one rule.
fn fold<'a>(
    rules: &Arc<Correlations>,
    id: &str,
    batches: impl IntoIterator<Item = &'a [Detected]>,
) -> Vec<Episode> {
    let mut episodes = Episodes::new(Arc::clone(rules), Options::default());
    batches.into_iter().for_each(|batch| episodes.add(batch));
    let mut episodes = episodes.finish();
    episodes.retain(|episode| episode.of.rule == id && episode.of.correlation);
    episodes
}
