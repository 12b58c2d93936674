//! Which groups events go to.

use std::ops::Range;

use super::correlator::Correlator;
use super::event::ThreatEvent;
use super::group::push_value;
use super::points::Point;
use super::resolve::Correlations;

/// Events on their way to groups, and their texts one after another.
#[derive(Debug, Default)]
pub(super) struct Addressed {
    pub(super) all: Vec<Address>,
    texts: String,
}

/// An event on its way to a group.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) tenant: u32,
    pub(super) plan: u32,
    /// Of tenant, correlation and key.
    pub(super) hash: u64,
    pub(super) point: Point,
    key: Range<usize>,
    /// What is measured; none if nothing is.
    value: Option<Range<usize>>,
}

impl Addressed {
    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.texts.clear();
    }

    pub(super) fn key(&self, of: &Address) -> &str {
        &self.texts[of.key.clone()]
    }

    pub(super) fn value(&self, of: &Address) -> Option<&str> {
        of.value.clone().map(|value| &self.texts[value])
    }

    /// The event's values of some fields, folded; none if it lacks one.
    fn join(&mut self, fields: &[String], event: &ThreatEvent<'_>) -> Option<Range<usize>> {
        let start = self.texts.len();
        for (index, field) in fields.iter().enumerate() {
            let value = event.fields.iter().find(|(name, _)| name == field).map(|(_, value)| *value);
            push_value(&mut self.texts, index == 0, value.filter(|value| !value.is_empty())?);
        }
        Some(start..self.texts.len())
    }
}

impl Correlator {
    /// Says which groups an event goes to: those of the correlations that look for it and of which it has all
    /// fields, and that of its rule's own alerts.
    pub(super) fn address(&mut self, rules: &Correlations, event: &ThreatEvent<'_>, to: &mut Addressed) {
        if event.arrival < self.cutoff {
            self.dropped.late += 1;
            return;
        }
        let future = event.time > event.arrival.saturating_add(self.options.max_skew);
        self.dropped.future += u64::from(future);
        let time = if future { event.arrival } else { event.time };
        let point = Point { time, id: event.id, arrival: event.arrival, value: 0, slot: 0 };
        let tenant = self.tenant(event.tenant);
        let (feeds, of) = (rules.feeds(event.rule), &self.tenants[tenant as usize]);
        let add = |to: &mut Addressed, plan: usize, key: Range<usize>, value, point| {
            let plan = plan as u32;
            let hash = self.groups.hash(tenant, plan, &to.texts[key.clone()]);
            to.all.push(Address { tenant, plan, hash, point, key, value });
        };
        for feed in feeds.iter().filter(|feed| of.on[feed.plan]) {
            let Some(key) = to.join(&feed.group, event) else { continue };
            let Some(value) = to.join(&feed.values, event) else { continue };
            add(to, feed.plan, key, Some(value), Point { slot: feed.slot, ..point });
        }
        let alone = || rules.alone(feeds.iter().map(|feed| feed.plan), |plan| of.on[plan]);
        if event.severity >= of.alert_severity && alone() {
            let start = to.texts.len();
            to.texts.push_str(event.rule);
            push_value(&mut to.texts, false, event.host.unwrap_or_default());
            add(to, rules.plans.len(), start..to.texts.len(), None, point);
        }
    }
}
