//! Threat events in, changes of episodes out; `docs/correlation.md` defines what an episode is.
//!
//! Pure: what the correlator holds is a function of the events that arrived within the horizon and of the
//! clock it was told, so it can be thrown away and rebuilt at any time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use hashbrown::HashMap;
use inosec_schemas::TenantId;

use super::address::{Address, Addressed};
use super::diff::{Delta, Numbers};
use super::event::{Change, Dropped, Episode, Identity, Options, Summary, ThreatEvent};
use super::group::{Counted, Group, NONE, State, push_value, values_of};
use super::groups::Groups;
use super::measure::Tally;
use super::points::Point;
use super::resolve::{Correlations, Plan};
use super::rule::Kind;
use super::whole::{Clock, Given, Parental};

/// The horizon moves in so many steps, because each looks at everything.
const STEPS: i64 = 32;

/// So many groups are fetched into the cache at once, instead of being waited for one by one.
pub(super) const AHEAD: usize = 32;

/// Room kept for events on their way: more than a batch of the road has, far less than a rebuild.
const WAITING: usize = 16_384;

/// Folds threat events into episodes.
#[derive(Debug)]
pub struct Correlator {
    pub(super) rules: Arc<Correlations>,
    /// Groups what makes alerts of its own, behind all others.
    pub(super) own: Arc<Plan>,
    pub(super) options: Options,
    pub(super) tenants: Vec<Tenant>,
    by_id: HashMap<TenantId, u32>,
    pub(super) groups: Groups,
    /// Events on their way into groups, and which of the same group is next.
    waiting: Vec<(Point, u32)>,
    /// By correlation, the groups to be looked at.
    dirty: Vec<Vec<u32>>,
    /// By step of the horizon, the groups of which it takes something then.
    pub(super) expiring: BTreeMap<i64, Vec<u32>>,
    due: BinaryHeap<Reverse<(i64, u32)>>,
    numbers: Numbers,
    pub(super) tally: Tally,
    now: i64,
    /// What arrived before doesn't count any more.
    pub(super) cutoff: i64,
    /// How long a step of the horizon is.
    pub(super) step: i64,
    pub(super) dropped: Dropped,
}

/// What is known of a tenant.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) id: TenantId,
    pub(super) alert_severity: i16,
    /// By correlation, whether it has it.
    pub(super) on: Vec<bool>,
    pub(super) groups: usize,
    pub(super) entries: usize,
    /// What its groups take, about.
    pub(super) bytes: usize,
}

impl Correlator {
    /// One that holds nothing.
    #[must_use]
    pub fn new(rules: Arc<Correlations>, options: Options) -> Self {
        let plans = rules.plans.len();
        let own = Arc::new(Plan::of_own_alerts(options.gap));
        let horizon = horizon(&rules, &own, &options);
        Self {
            own,
            rules,
            options,
            tenants: Vec::new(),
            by_id: HashMap::new(),
            groups: Groups::default(),
            waiting: Vec::new(),
            dirty: vec![Vec::new(); plans + 1],
            expiring: BTreeMap::new(),
            due: BinaryHeap::new(),
            numbers: Numbers::default(),
            tally: Tally::new(Kind::EventCount),
            now: i64::MIN,
            cutoff: i64::MIN,
            step: (horizon / STEPS).max(1),
            dropped: Dropped::default(),
        }
    }

    /// One that holds these events, as one would that was given them in any other way.
    #[must_use]
    pub fn rebuild(rules: Arc<Correlations>, options: Options, events: &[ThreatEvent<'_>], now: i64) -> Self {
        let mut correlator = Self::new(rules, options);
        // First, so that what doesn't count any more joins nothing.
        correlator.advance(now);
        correlator.insert(events);
        correlator
    }

    /// How long after its arrival an event counts, at least.
    #[must_use]
    pub fn horizon(&self) -> i64 {
        horizon(&self.rules, &self.own, &self.options)
    }

    /// Events that arrived before this don't count any more.
    #[must_use]
    pub fn cutoff(&self) -> i64 {
        self.cutoff
    }

    /// Where that is once it is `now`: what arrived before isn't needed to rebuild.
    #[must_use]
    pub fn cutoff_at(&self, now: i64) -> i64 {
        now.saturating_sub(self.horizon()).div_euclid(self.step).saturating_mul(self.step)
    }

    /// What was dropped so far.
    #[must_use]
    pub fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    /// Groups and events in groups, of all tenants.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let groups = self.tenants.iter().map(|tenant| tenant.groups).sum();
        (groups, self.tenants.iter().map(|tenant| tenant.entries).sum())
    }

    /// Folds events in, in any order; repeated ones change nothing.
    pub fn insert(&mut self, events: &[ThreatEvent<'_>]) -> Vec<Change> {
        let rules = Arc::clone(&self.rules);
        let mut addressed = Addressed::default();
        for events in events.chunks(AHEAD) {
            addressed.clear();
            events.iter().for_each(|event| self.address(&rules, event, &mut addressed));
            self.groups.touch_keys(addressed.all.iter().map(|to| to.hash));
            for to in &addressed.all {
                self.push(to, addressed.key(to), addressed.value(to));
            }
        }
        let mut changes = self.settle(false);
        self.evict(&mut changes);
        changes
    }

    /// Tells that nothing arrives before `now` any more: decides what waited for that and forgets what is
    /// beyond the horizon.
    pub fn advance(&mut self, now: i64) -> Vec<Change> {
        let mut changes = Vec::new();
        if now <= self.now {
            return changes;
        }
        self.now = now;
        while self.mark_due() {
            changes.extend(self.settle(false));
        }
        let cutoff = self.cutoff_at(now);
        if cutoff > self.cutoff {
            self.cutoff = cutoff;
            self.forget(&mut changes);
        }
        changes
    }

    /// Marks what waited for this moment; whether there was any.
    fn mark_due(&mut self) -> bool {
        let mut any = false;
        while self.due.peek().is_some_and(|Reverse((due, _))| *due <= self.now) {
            if let Some(Reverse((_, place))) = self.due.pop() {
                self.mark(place);
                any = true;
            }
        }
        any
    }

    /// All episodes that make alerts, with their members, in order.
    #[must_use]
    pub fn episodes(&self) -> Vec<Episode> {
        let mut episodes = Vec::new();
        for (_, group) in self.groups.iter() {
            if !self.makes_alerts(group) {
                continue;
            }
            let window = self.plan(group.plan).rule.timespan;
            let of = group.identity.clone().unwrap_or_else(|| Arc::new(self.identity(group)));
            let mut add = |(first_seen, last_seen, count), members, number| {
                let summary = Summary { of: Arc::clone(&of), first_seen, last_seen, count };
                episodes.push(Episode { summary, members, number });
            };
            match &group.state {
                State::Sliding(sliding) => {
                    for span in &sliding.spans {
                        let members = sliding.members(span, window).iter().map(|point| point.id).collect();
                        add(sliding.extent(span, window), members, span.number);
                    }
                }
                State::Recomputed(recomputed) => {
                    for episode in &recomputed.episodes {
                        let members = episode.members.iter().map(|(_, id)| *id).collect();
                        add(episode.extent(), members, episode.number);
                    }
                }
            }
        }
        episodes.sort_unstable();
        episodes
    }

    /// Gives each episode a number of its own. For one that is rebuilt: what is two in the end may have been one
    /// halfway, and nobody has heard of it.
    pub fn number_anew(&mut self) {
        for group in self.groups.all_mut() {
            group.renumber(|_| self.numbers.next());
        }
    }

    /// Calls episodes of these numbers by others from now on, because they are one alert with those.
    pub fn unite(&mut self, numbers: &HashMap<u64, u64>) {
        if numbers.is_empty() {
            return;
        }
        for group in self.groups.all_mut() {
            group.renumber(|number| numbers.get(&number).copied().unwrap_or(number));
        }
    }

    pub(super) fn plan(&self, plan: u32) -> &Plan {
        self.rules.plans.get(plan as usize).unwrap_or(&self.own)
    }

    pub(super) fn tenant(&mut self, id: TenantId) -> u32 {
        if let Some(tenant) = self.by_id.get(&id) {
            return *tenant;
        }
        let own = self.options.tenants.get(&id);
        let on = |plan: &Plan| own.is_none_or(|own| !own.off.contains(&plan.rule.id));
        self.tenants.push(Tenant {
            id,
            alert_severity: own.and_then(|own| own.alert_severity).unwrap_or(self.options.alert_severity),
            on: self.rules.plans.iter().map(on).collect(),
            groups: 0,
            entries: 0,
            bytes: 0,
        });
        let tenant = (self.tenants.len() - 1) as u32;
        self.by_id.insert(id, tenant);
        tenant
    }

    /// Has an event wait for its group to be looked at, unless it measures numbers and this is none.
    fn push(&mut self, to: &Address, key: &str, value: Option<&str>) {
        let Address { tenant, plan, hash, mut point, .. } = *to;
        let of = self.rules.plans.get(plan as usize).unwrap_or(&self.own);
        let kind = of.rule.kind;
        let (place, added) = self.groups.find_or_add(hash, tenant, plan, key, of);
        self.tenants[tenant as usize].groups += usize::from(added);
        let Some(group) = self.groups.get_mut(place) else { return };
        let known = value.map_or(Some(0), |text| group.value(kind, text));
        if let Some(value) = known {
            point.value = value;
            group.newest = group.newest.max(point.arrival);
            self.waiting.push((point, group.waiting));
            group.waiting = (self.waiting.len() - 1) as u32;
            self.expires(place, point.arrival);
        }
        self.mark(place);
    }

    /// Has a group looked at when the horizon moves beyond an arrival.
    pub(super) fn expires(&mut self, place: u32, arrival: i64) {
        let at = arrival.div_euclid(self.step);
        let Some(group) = self.groups.get_mut(place).filter(|group| at < group.expires) else { return };
        group.expires = at;
        self.expiring.entry(at).or_default().push(place);
    }

    pub(super) fn mark(&mut self, place: u32) {
        let Some(group) = self.groups.get_mut(place).filter(|group| !group.dirty) else { return };
        group.dirty = true;
        self.dirty[group.plan as usize].push(place);
    }

    /// Works out what is marked, parents before children, and says what changed.
    pub(super) fn settle(&mut self, forgetting: bool) -> Vec<Change> {
        let (mut changes, mut empty, mut events) = (Vec::new(), Vec::new(), Vec::new());
        let (rules, own) = (Arc::clone(&self.rules), Arc::clone(&self.own));
        for number in 0..self.dirty.len() {
            let plan = rules.plans.get(number).unwrap_or(&own);
            let mut places = std::mem::take(&mut self.dirty[number]);
            for (index, place) in places.iter().copied().enumerate() {
                if index % AHEAD == 0 {
                    let ahead = &places[index..places.len().min(index + AHEAD)];
                    self.groups.touch(ahead, Group::back);
                }
                let Some(mut group) = self.groups.take(place) else { continue };
                group.dirty = false;
                self.gather(&mut group, &mut events);
                let (changed, deltas) = self.apply(place, &mut group, plan, &mut events, forgetting);
                self.tell(&mut group, deltas, &mut changes);
                self.recount(&mut group);
                if group.is_empty() {
                    empty.push(place);
                }
                self.groups.put(place, group);
                if changed && !plan.children.is_empty() {
                    self.pass_on(place, plan);
                }
                if let Some(at) = self.groups.get(place).and_then(|group| self.stands_until(group)) {
                    self.expires(place, at);
                }
            }
            places.clear();
            self.dirty[number] = places;
        }
        self.waiting.clear();
        self.waiting.shrink_to(WAITING);
        for place in empty {
            if self.groups.get(place).is_some_and(Group::is_empty)
                && let Some(group) = self.groups.remove(place)
            {
                let tenant = &mut self.tenants[group.tenant as usize];
                tenant.groups -= 1;
                tenant.bytes -= group.counted.bytes;
            }
        }
        changes
    }

    /// Collects a group's events that wait.
    fn gather(&self, group: &mut Group, events: &mut Vec<Point>) {
        events.clear();
        let mut next = std::mem::replace(&mut group.waiting, NONE);
        while let Some((point, after)) = self.waiting.get(next as usize) {
            events.push(*point);
            next = *after;
        }
    }

    /// Counts what a group has for its tenant.
    pub(super) fn recount(&mut self, group: &mut Group) {
        let tenant = &mut self.tenants[group.tenant as usize];
        let now = Counted { entries: group.len(), bytes: group.bytes() };
        let before = std::mem::replace(&mut group.counted, now);
        tenant.entries = tenant.entries + now.entries - before.entries;
        tenant.bytes = tenant.bytes + now.bytes - before.bytes;
    }

    /// Works one group out: whether its episodes changed, and what to tell of it.
    fn apply(
        &mut self,
        place: u32,
        group: &mut Group,
        plan: &Plan,
        events: &mut Vec<Point>,
        forgetting: bool,
    ) -> (bool, Vec<Delta>) {
        let changed = std::mem::take(&mut group.changed);
        let moved = std::mem::take(&mut group.moved);
        group.points_mut().absorb(events);
        if let State::Recomputed(recomputed) = &group.state
            && !moved
            && !forgetting
            && recomputed.misses(plan, events)
        {
            return (changed, Vec::new());
        }
        let parents = self.parents(group, plan);
        match &mut group.state {
            State::Sliding(sliding) => {
                let deltas = sliding.apply(plan, events, &mut self.numbers, &mut self.tally);
                (changed || !deltas.is_empty(), deltas)
            }
            State::Recomputed(recomputed) => {
                let before = recomputed.due;
                let given = Given { events, parents: &parents, clock: self.clock(), forgetting };
                let (differs, deltas) = recomputed.apply(plan, given, &mut self.numbers);
                if let Some(due) = recomputed.due.filter(|due| Some(*due) != before) {
                    self.due.push(Reverse((due, place)));
                }
                (changed || differs, deltas)
            }
        }
    }

    pub(super) fn clock(&self) -> Clock {
        let floor = self.cutoff.saturating_add(self.options.max_skew);
        Clock { now: self.now, floor, lateness: self.options.allowed_lateness }
    }

    /// The episodes that are inputs of a group.
    fn parents(&self, group: &mut Group, plan: &Plan) -> Vec<Parental> {
        let State::Recomputed(recomputed) = &mut group.state else { return Vec::new() };
        recomputed.parents.retain(|place| self.groups.get(*place).is_some_and(Group::has_episodes));
        let places: Vec<u32> = recomputed.parents.iter().copied().collect();
        let mut parentals = Vec::new();
        for place in places {
            let Some(parent) = self.groups.get(place) else { continue };
            let of = self.plan(parent.plan);
            let Some(chain) = of.children.iter().find(|chain| chain.plan == group.plan as usize) else {
                continue;
            };
            let text = pick(&parent.key, &chain.values);
            if let Some(value) = group.value(plan.rule.kind, &text) {
                parentals.extend(parent.parentals(of, chain.slot, value));
            }
        }
        parentals
    }

    /// Marks the groups that a group's episodes are inputs of.
    fn pass_on(&mut self, place: u32, plan: &Plan) {
        let rules = Arc::clone(&self.rules);
        let Some(group) = self.groups.get(place) else { return };
        let (tenant, has_episodes) = (group.tenant, group.has_episodes());
        let keys: Vec<String> = plan.children.iter().map(|chain| pick(&group.key, &chain.group)).collect();
        let newest = group.newest;
        for (chain, key) in plan.children.iter().zip(keys) {
            if !self.tenants[tenant as usize].on[chain.plan] {
                continue;
            }
            let of = &rules.plans[chain.plan];
            let plan = chain.plan as u32;
            let hash = self.groups.hash(tenant, plan, &key);
            let (child, added) = self.groups.find_or_add(hash, tenant, plan, &key, of);
            self.tenants[tenant as usize].groups += usize::from(added);
            let Some(group) = self.groups.get_mut(child) else { continue };
            if let State::Recomputed(recomputed) = &mut group.state
                && has_episodes
            {
                recomputed.parents.insert(place);
                group.newest = group.newest.max(newest);
            }
            group.moved = true;
            self.mark(child);
        }
    }

    /// Whether a group's episodes make alerts, or only serve others.
    fn makes_alerts(&self, group: &Group) -> bool {
        let on = &self.tenants[group.tenant as usize].on;
        let referring = self.plan(group.plan).children.iter().map(|chain| chain.plan);
        self.rules.alone(referring, |plan| on[plan])
    }

    pub(super) fn tell(&self, group: &mut Group, deltas: Vec<Delta>, changes: &mut Vec<Change>) {
        if deltas.is_empty() || !self.makes_alerts(group) {
            return;
        }
        let of = group.identity.take().unwrap_or_else(|| Arc::new(self.identity(group)));
        for Delta { kind, number, first_seen, last_seen, count, added, removed, absorbed } in deltas {
            let summary = Summary { of: Arc::clone(&of), first_seen, last_seen, count };
            changes.push(Change { kind, number, summary, added, removed, absorbed });
        }
        group.identity = Some(of);
    }

    fn identity(&self, group: &Group) -> Identity {
        let tenant = self.tenants[group.tenant as usize].id;
        let correlation = self.rules.plans.get(group.plan as usize).map(|plan| &plan.rule);
        let mut values = values_of(&group.key).map(str::to_owned);
        let (rule, revision, group) = match correlation {
            Some(rule) => {
                (rule.id.clone(), rule.revision.clone(), rule.group_by.iter().cloned().zip(values).collect())
            }
            None => {
                let rule = values.next().unwrap_or_default();
                (rule, None, values.map(|host| ("host".to_owned(), host)).collect())
            }
        };
        Identity { tenant, rule, revision, correlation: correlation.is_some(), group }
    }
}

fn horizon(rules: &Correlations, own: &Plan, options: &Options) -> i64 {
    let reach = rules.plans.iter().map(|plan| plan.reach).fold(own.reach, i64::max);
    reach.saturating_add(options.allowed_lateness).saturating_add(options.max_skew)
}

/// Some of a key's values as a key.
fn pick(key: &str, places: &[usize]) -> String {
    let values: Vec<&str> = values_of(key).collect();
    let mut picked = String::new();
    for (index, place) in places.iter().enumerate() {
        push_value(&mut picked, index == 0, values.get(*place).copied().unwrap_or_default());
    }
    picked
}
