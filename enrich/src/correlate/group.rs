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

/// So many events are looked at when the horizon takes some: those of the skew that is believed, mostly.
const NEAR: usize = 8;

/// No event.
pub(super) const NONE: u32 = u32::MAX;

/// What a group takes, about, without its texts: itself and an event in it, as `bench correlate` measures them, and
/// an episode with the alert it is, weighed by 100,000 of one event each.
const GROUP_BYTES: usize = 230;
pub(super) const ENTRY_BYTES: usize = 72;
const EPISODE_BYTES: usize = 2_800;
/// A text that stands for a number, besides its length.
const TEXT_BYTES: usize = 32;

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) tenant: u32,
    pub(super) plan: u32,
    /// Its values, folded, one after another.
    pub(super) key: Box<str>,
    /// When the latest of its events arrived.
    pub(super) newest: i64,
    /// The first of its events that wait; [`NONE`] if none does.
    pub(super) waiting: u32,
    /// With what the horizon moves past it is looked at again.
    pub(super) expires: i64,
    /// Whether it is to be looked at.
    pub(super) dirty: bool,
    /// Whether its episodes changed besides.
    pub(super) changed: bool,
    /// Whether episodes that are its inputs changed.
    pub(super) moved: bool,
    pub(super) state: State,
    /// What its episodes have in common, once they are told of.
    pub(super) identity: Option<Arc<Identity>>,
    /// What its tenant's limits count of it already.
    pub(super) counted: Counted,
    /// What stands for texts whose number counts.
    texts: Option<Box<Texts>>,
    /// How long those are together.
    text_bytes: usize,
}

/// What limits count of a group.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Counted {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) enum State {
    Sliding(Sliding),
    Recomputed(Box<Recomputed>),
}

/// Numbers from 1 on.
type Texts = HashMap<Box<str>, i64, foldhash::fast::RandomState>;

impl Group {
    pub(super) fn new(tenant: u32, plan: u32, key: &str, of: &Plan) -> Self {
        let state =
            if of.slides() { State::Sliding(Sliding::default()) } else { State::Recomputed(Box::default()) };
        Self {
            tenant,
            plan,
            key: key.into(),
            newest: i64::MIN,
            waiting: NONE,
            expires: i64::MAX,
            dirty: false,
            changed: false,
            moved: false,
            counted: Counted::default(),
            state,
            identity: None,
            texts: None,
            text_bytes: 0,
        }
    }

    pub(super) fn points(&self) -> &Points {
        match &self.state {
            State::Sliding(sliding) => &sliding.points,
            State::Recomputed(recomputed) => &recomputed.points,
        }
    }

    pub(super) fn points_mut(&mut self) -> &mut Points {
        match &mut self.state {
            State::Sliding(sliding) => &mut sliding.points,
            State::Recomputed(recomputed) => &mut recomputed.points,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.points().len()
    }

    /// Something of each part that is looked at when the horizon takes events.
    pub(super) fn front(&self) -> i64 {
        let first = self.points().as_slice().iter().take(NEAR).fold(0, |all, point| all ^ point.time);
        first ^ self.number(0) ^ self.newest ^ i64::from(self.tenant)
    }

    /// Something of each part that a new event changes.
    pub(super) fn back(&self) -> i64 {
        let last = self.points().as_slice().iter().rev().take(2).fold(0, |all, point| all ^ point.time);
        let told = self.identity.as_ref().map_or(0, |of| Arc::strong_count(of) as i64);
        last ^ told ^ self.number(self.episodes().wrapping_sub(1)) ^ self.newest ^ i64::from(self.tenant)
    }

    /// The number of the episode at a place, if there is one.
    fn number(&self, place: usize) -> i64 {
        let number = match &self.state {
            State::Sliding(sliding) => sliding.spans.get(place).map(|span| span.number),
            State::Recomputed(recomputed) => recomputed.episodes.get(place).map(|episode| episode.number),
        };
        number.unwrap_or_default().cast_signed()
    }

    /// Numbers its episodes otherwise.
    pub(super) fn renumber(&mut self, mut number: impl FnMut(u64) -> u64) {
        match &mut self.state {
            State::Sliding(sliding) => {
                sliding.spans.iter_mut().for_each(|span| span.number = number(span.number));
            }
            State::Recomputed(recomputed) => {
                recomputed.episodes.iter_mut().for_each(|episode| episode.number = number(episode.number));
            }
        }
    }

    fn episodes(&self) -> usize {
        match &self.state {
            State::Sliding(sliding) => sliding.spans.len(),
            State::Recomputed(recomputed) => recomputed.episodes.len(),
        }
    }

    pub(super) fn has_episodes(&self) -> bool {
        self.episodes() > 0
    }

    /// What it takes, about, and the alerts it is: those name its values and whom it concerns.
    pub(super) fn bytes(&self) -> usize {
        let episode = EPISODE_BYTES + 4 * self.key.len();
        let fixed = GROUP_BYTES + self.key.len() + self.text_bytes;
        fixed + self.len() * ENTRY_BYTES + self.episodes() * episode
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
                if let Some(number) = texts.get(text) {
                    return Some(*number);
                }
                let number = texts.len() as i64 + 1;
                texts.insert(text.into(), number);
                self.text_bytes += text.len() + TEXT_BYTES;
                Some(number)
            }
            Kind::ValueSum => decimal::parse(text).filter(|value| *value >= 0),
            Kind::ValueAvg | Kind::ValuePercentile(_) => decimal::parse(text),
            Kind::EventCount | Kind::Temporal | Kind::TemporalOrdered => Some(0),
        }
    }

    /// Drops the texts that no event has any more, once they are many, and numbers the others anew.
    pub(super) fn forget_texts(&mut self) {
        let most = self.len() + self.len() / 2;
        let Some(mut texts) = self.texts.take_if(|texts| texts.len() > most) else { return };
        let live: HashSet<i64> = self.points().as_slice().iter().map(|point| point.value).collect();
        texts.retain(|_, number| live.contains(number));
        texts.shrink_to_fit();
        self.text_bytes = texts.keys().map(|text| text.len() + TEXT_BYTES).sum();
        let mut numbers = HashMap::with_capacity(texts.len());
        for (number, old) in (1..).zip(texts.values_mut()) {
            numbers.insert(std::mem::replace(old, number), number);
        }
        for value in self.points_mut().values_mut() {
            *value = numbers.get(value).copied().unwrap_or_default();
        }
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
