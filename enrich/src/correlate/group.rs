//! Events and episodes with the same tenant, correlation and group values.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::decimal;
use super::event::Identity;
use super::measure::Input;
use super::points::Points;
use super::resolve::Plan;
use super::rule::Kind;
use super::sliding::Sliding;
use super::whole::{Parental, Recomputed};

/// Between the values of a key; values can't hold it, because PostgreSQL's text can't.
const BETWEEN: char = '\0';

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) tenant: u32,
    pub(super) plan: u32,
    /// Its values, folded, one after another.
    pub(super) key: Box<str>,
    /// When the latest of its events arrived.
    pub(super) newest: i64,
    /// Whether it is to be looked at.
    pub(super) dirty: bool,
    /// Whether its episodes changed besides.
    pub(super) changed: bool,
    pub(super) state: State,
    /// What its episodes have in common, once they are told of.
    pub(super) identity: Option<Arc<Identity>>,
    /// How many of its events its tenant's limit counts already.
    pub(super) counted: usize,
    /// What stands for texts whose number counts.
    texts: Option<Box<Texts>>,
}

#[derive(Debug)]
pub(super) enum State {
    Sliding(Sliding),
    Recomputed(Recomputed),
}

#[derive(Debug, Default)]
struct Texts {
    numbers: HashMap<Box<str>, i64, foldhash::fast::RandomState>,
    last: i64,
}

impl Group {
    pub(super) fn new(tenant: u32, plan: u32, key: &str, of: &Plan) -> Self {
        let state = if of.slides() {
            State::Sliding(Sliding::default())
        } else {
            State::Recomputed(Recomputed::default())
        };
        Self {
            tenant,
            plan,
            key: key.into(),
            newest: i64::MIN,
            dirty: false,
            changed: false,
            counted: 0,
            state,
            identity: None,
            texts: None,
        }
    }

    pub(super) fn points(&mut self) -> &mut Points {
        match &mut self.state {
            State::Sliding(sliding) => &mut sliding.points,
            State::Recomputed(recomputed) => &mut recomputed.points,
        }
    }

    pub(super) fn len(&self) -> usize {
        match &self.state {
            State::Sliding(sliding) => sliding.points.len(),
            State::Recomputed(recomputed) => recomputed.points.len(),
        }
    }

    pub(super) fn has_episodes(&self) -> bool {
        match &self.state {
            State::Sliding(sliding) => !sliding.spans.is_empty(),
            State::Recomputed(recomputed) => !recomputed.episodes.is_empty(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        let parents = match &self.state {
            State::Sliding(_) => false,
            State::Recomputed(recomputed) => !recomputed.parents.is_empty(),
        };
        self.len() == 0 && !parents && !self.has_episodes()
    }

    /// A measured text as a number; none if the rule measures numbers and this is none.
    pub(super) fn value(&mut self, kind: Kind, text: &str) -> Option<i64> {
        match kind {
            Kind::ValueCount => {
                let texts = self.texts.get_or_insert_default();
                if let Some(number) = texts.numbers.get(text) {
                    return Some(*number);
                }
                texts.last += 1;
                texts.numbers.insert(text.into(), texts.last);
                Some(texts.last)
            }
            Kind::ValueSum => decimal::parse(text).filter(|value| *value >= 0),
            Kind::ValueAvg | Kind::ValuePercentile(_) => decimal::parse(text),
            Kind::EventCount | Kind::Temporal | Kind::TemporalOrdered => Some(0),
        }
    }

    /// Drops the texts that no event has any more.
    pub(super) fn forget_texts(&mut self) {
        let Some(mut texts) = self.texts.take() else { return };
        let live: HashSet<i64> = self.points().as_slice().iter().map(|point| point.value).collect();
        texts.numbers.retain(|_, number| live.contains(number));
        self.texts = Some(texts);
    }

    /// Its episodes as inputs of another correlation.
    pub(super) fn parentals(&self, plan: &Plan, slot: u16, value: i64) -> Vec<Parental> {
        match &self.state {
            State::Sliding(sliding) => {
                let spans = sliding.spans.iter().map(|span| {
                    let members = sliding.members(span, plan.rule.timespan);
                    let (_, until, _) = sliding.extent(span, plan.rule.timespan);
                    let since = sliding.satisfied_since(span, plan);
                    Parental {
                        input: Input { since, until, slot, value },
                        members: members.iter().map(super::points::Point::key).collect(),
                    }
                });
                spans.collect()
            }
            State::Recomputed(recomputed) => {
                let episodes = recomputed.episodes.iter().map(|episode| Parental {
                    input: Input { since: episode.since, until: episode.until, slot, value },
                    members: episode.members.clone(),
                });
                episodes.collect()
            }
        }
    }
}

/// Appends a value to a key, folded: Sigma doesn't tell case apart, and hosts don't write theirs alike.
pub(super) fn push_value(key: &mut String, first: bool, value: &str) {
    if !first {
        key.push(BETWEEN);
    }
    let start = key.len();
    if value.is_ascii() {
        key.push_str(value);
        key[start..].make_ascii_lowercase();
    } else {
        key.extend(value.chars().flat_map(char::to_lowercase));
    }
    if key[start..].contains(BETWEEN) {
        let clean = key[start..].replace(BETWEEN, "\u{fffd}");
        key.truncate(start);
        key.push_str(&clean);
    }
}

/// The values of a key.
pub(super) fn values_of(key: &str) -> impl Iterator<Item = &str> {
    key.split(BETWEEN)
}
