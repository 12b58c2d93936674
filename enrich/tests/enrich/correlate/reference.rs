//! Episodes straight from the definitions of `docs/correlation.md`, over the whole list of events at once:
//! every window is looked at for itself. Slow, and sharing nothing with the correlator.

use std::collections::{BTreeMap, BTreeSet};

/// Microseconds.
pub const SECOND: i64 = 1_000_000;

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub tenant: u8,
    pub id: u32,
    pub rule: String,
    pub time: i64,
    pub arrival: i64,
    pub severity: i16,
    pub host: Option<String>,
    pub fields: BTreeMap<String, String>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measure {
    Count,
    Distinct,
    Rules,
    Order,
    Sum,
    Average,
    /// In percent.
    Percentile(f64),
}

#[derive(Debug, Clone)]
pub struct Rule {
    pub id: String,
    pub measure: Measure,
    /// Inputs: detection rules, or correlations that come earlier in the list.
    pub inputs: Vec<String>,
    /// By input, what `group` and `value` are called there.
    pub group: Vec<String>,
    pub names: BTreeMap<(String, String), String>,
    pub value: Option<String>,
    pub timespan: i64,
    pub condition: Vec<(String, f64)>,
    pub generate: bool,
}

#[derive(Debug, Clone)]
pub struct Setting {
    pub rules: Vec<Rule>,
    pub lateness: i64,
    pub max_skew: i64,
    pub gap: i64,
    pub alert_severity: i16,
    pub now: i64,
    /// The unit of all times here, in microseconds.
    pub unit: i64,
}

/// Tenant, rule, group values, first seen, last seen, members.
pub type Found = (u8, String, Vec<String>, i64, i64, Vec<u32>);

/// Something a rule looks at.
#[derive(Debug, Clone)]
struct Item {
    since: i64,
    until: i64,
    input: usize,
    value: String,
    arrival: i64,
    from_event: bool,
    members: BTreeSet<(i64, u32)>,
}

#[derive(Debug, Clone)]
struct Ep {
    group: Vec<String>,
    since: i64,
    until: i64,
    members: BTreeSet<(i64, u32)>,
}

impl Rule {
    fn monotone(&self) -> bool {
        let grows = !matches!(self.measure, Measure::Average | Measure::Percentile(_));
        grows && self.condition.iter().all(|(operator, _)| operator == "gt" || operator == "gte")
    }

    fn holds(&self, items: &[&Item]) -> bool {
        let numbers = || items.iter().map(|item| item.value.parse::<f64>().unwrap());
        let measure = match self.measure {
            Measure::Count => items.len() as f64,
            Measure::Distinct => items.iter().map(|item| &item.value).collect::<BTreeSet<_>>().len() as f64,
            Measure::Rules => items.iter().map(|item| item.input).collect::<BTreeSet<_>>().len() as f64,
            Measure::Order => unreachable!("looked at with its window"),
            Measure::Sum => numbers().sum(),
            Measure::Average => numbers().sum::<f64>() / items.len() as f64,
            Measure::Percentile(percent) => {
                let mut sorted: Vec<f64> = numbers().collect();
                sorted.sort_by(f64::total_cmp);
                let enough = |count: usize| count as f64 * 100.0 >= percent * sorted.len() as f64;
                sorted[(1..=sorted.len()).find(|count| enough(*count)).unwrap() - 1]
            }
        };
        self.admits(measure)
    }

    fn admits(&self, measure: f64) -> bool {
        self.condition.iter().all(|(operator, value)| match operator.as_str() {
            "gt" => measure > *value,
            "gte" => measure >= *value,
            "lt" => measure < *value,
            "lte" => measure <= *value,
            "eq" => measure == *value,
            "neq" => measure != *value,
            other => panic!("{other}"),
        })
    }

    /// Whether a window is satisfied: items are in it that touch [from, to].
    fn satisfied(&self, items: &[&Item], from: i64, to: i64) -> bool {
        if items.is_empty() {
            return false;
        }
        if self.measure != Measure::Order {
            return self.holds(items);
        }
        // Every choice of inputs, in their order.
        let mut longest = 0;
        for choice in 1..1u32 << self.inputs.len() {
            let chosen: Vec<usize> =
                (0..self.inputs.len()).filter(|input| choice >> input & 1 == 1).collect();
            if follows(items, &chosen, from, to) {
                longest = longest.max(chosen.len());
            }
        }
        longest > 0 && self.admits(longest as f64)
    }
}

/// Whether moments can be chosen, one of each input, that don't go back.
fn follows(items: &[&Item], inputs: &[usize], from: i64, to: i64) -> bool {
    let Some((first, rest)) = inputs.split_first() else { return true };
    items.iter().filter(|item| item.input == *first).any(|item| {
        let moment = item.since.max(from);
        moment <= item.until && moment <= to && follows(items, rest, moment, to)
    })
}

impl Setting {
    /// How far back a rule looks.
    fn reach(&self, rule: &Rule) -> i64 {
        self.reach_in(rule) + if rule.monotone() { rule.timespan } else { 2 * rule.timespan }
    }

    fn reach_in(&self, rule: &Rule) -> i64 {
        let parents = self.rules.iter().filter(|other| rule.inputs.contains(&other.id));
        parents.map(|parent| self.reach(parent)).max().unwrap_or(0)
    }

    /// How far back any rule's parents look.
    pub fn deepest(&self) -> i64 {
        self.rules.iter().map(|rule| self.reach_in(rule)).max().unwrap_or(0)
    }

    /// Where the horizon begins, in microseconds: it moves in steps.
    pub fn cutoff(&self) -> i64 {
        let reach = self.rules.iter().map(|rule| self.reach(rule)).max().unwrap_or(0).max(self.gap);
        let horizon = (reach + self.lateness + self.max_skew) * self.unit;
        let step = horizon / 32;
        (self.now * self.unit - horizon).div_euclid(step) * step
    }

    /// Whether everything from this time on is still there, so far before it that a rule's parents are right.
    fn is_whole(&self, time: i64, rule: &Rule) -> bool {
        time * self.unit >= self.cutoff() + (self.max_skew + self.reach_in(rule)) * self.unit
    }

    /// All episodes.
    pub fn episodes(&self, events: &[Event]) -> BTreeSet<Found> {
        let mut seen = BTreeSet::new();
        let mut live: Vec<Event> = Vec::new();
        for event in events {
            if event.arrival * self.unit >= self.cutoff() && seen.insert((event.tenant, event.id)) {
                let too_far = event.time > event.arrival + self.max_skew;
                let time = if too_far { event.arrival } else { event.time };
                live.push(Event { time, ..event.clone() });
            }
        }
        let mut found = BTreeSet::new();
        for tenant in live.iter().map(|event| event.tenant).collect::<BTreeSet<_>>() {
            let events: Vec<&Event> = live.iter().filter(|event| event.tenant == tenant).collect();
            self.of_tenant(tenant, &events, &mut found);
        }
        found
    }

    fn of_tenant(&self, tenant: u8, events: &[&Event], found: &mut BTreeSet<Found>) {
        let mut episodes: BTreeMap<&str, Vec<Ep>> = BTreeMap::new();
        for rule in &self.rules {
            let of_rule = self.of_rule(rule, events, &episodes);
            episodes.insert(&rule.id, of_rule);
        }
        for rule in &self.rules {
            if self.alone(&rule.id) {
                found
                    .extend(episodes[rule.id.as_str()].iter().map(|episode| told(tenant, &rule.id, episode)));
            }
        }
        let mut own: BTreeMap<(String, String), Vec<Item>> = BTreeMap::new();
        for event in events {
            if event.severity >= self.alert_severity && self.alone(&event.rule) {
                let host = event.host.clone().unwrap_or_default().to_lowercase();
                own.entry((event.rule.clone(), host)).or_default().push(item(event, 0, String::new()));
            }
        }
        for ((rule, host), mut items) in own {
            items.sort_by_key(|item| item.since);
            let mut runs: Vec<Ep> = Vec::new();
            for item in items {
                match runs.last_mut() {
                    Some(run) if item.since - run.until <= self.gap => {
                        run.until = item.since;
                        run.members.extend(item.members);
                    }
                    _ => runs.push(Ep {
                        group: vec![host.clone()],
                        since: item.since,
                        until: item.since,
                        members: item.members,
                    }),
                }
            }
            found.extend(runs.iter().map(|run| told(tenant, &rule, run)));
        }
    }

    fn alone(&self, id: &str) -> bool {
        let referring: Vec<&Rule> =
            self.rules.iter().filter(|rule| rule.inputs.iter().any(|input| input == id)).collect();
        referring.is_empty() || referring.iter().any(|rule| rule.generate)
    }

    fn of_rule(&self, rule: &Rule, events: &[&Event], episodes: &BTreeMap<&str, Vec<Ep>>) -> Vec<Ep> {
        let mut groups: BTreeMap<Vec<String>, Vec<Item>> = BTreeMap::new();
        for (number, input) in rule.inputs.iter().enumerate() {
            let name =
                |field: &String| rule.names.get(&(field.clone(), input.clone())).unwrap_or(field).clone();
            for event in events.iter().filter(|event| event.rule == *input) {
                let value = |field: &String| {
                    let value = event.fields.get(&name(field)).filter(|value| !value.is_empty());
                    value.map(|value| value.to_lowercase())
                };
                let Some(group) = rule.group.iter().map(value).collect::<Option<Vec<_>>>() else { continue };
                let Some(value) = rule.value.as_ref().map_or(Some(String::new()), value) else { continue };
                groups.entry(group).or_default().push(item(event, number, value));
            }
            let Some(parent) = self.rules.iter().find(|other| other.id == *input) else { continue };
            for episode in &episodes[input.as_str()] {
                let value = |field: &String| {
                    episode.group[parent.group.iter().position(|other| *other == name(field)).unwrap()]
                        .clone()
                };
                let group: Vec<String> = rule.group.iter().map(value).collect();
                let item = Item {
                    since: episode.since,
                    until: episode.until,
                    input: number,
                    value: rule.value.as_ref().map_or(String::new(), value),
                    arrival: i64::MIN,
                    from_event: false,
                    members: episode.members.clone(),
                };
                groups.entry(group).or_default().push(item);
            }
        }
        let mut found = Vec::new();
        for (group, mut items) in groups {
            if matches!(rule.measure, Measure::Sum | Measure::Average | Measure::Percentile(_)) {
                items.retain(|item| item.value.parse::<f64>().is_ok());
            }
            if rule.measure == Measure::Sum {
                items.retain(|item| item.value.parse::<f64>().unwrap() >= 0.0);
            }
            found.extend(if rule.monotone() {
                sliding(rule, &group, &items)
            } else {
                self.decided(rule, &group, &items)
            });
        }
        found
    }

    /// Windows side by side, each decided when it has been over for so long.
    fn decided(&self, rule: &Rule, group: &[String], items: &[Item]) -> Vec<Ep> {
        let mut episodes: Vec<(i64, Ep)> = Vec::new();
        let numbers: BTreeSet<i64> = items.iter().map(|item| item.since.div_euclid(rule.timespan)).collect();
        for number in numbers {
            let (start, end) = (number * rule.timespan, (number + 1) * rule.timespan);
            if !self.is_whole(start, rule) || end + self.lateness > self.now {
                continue;
            }
            let within: Vec<&Item> = items
                .iter()
                .filter(|item| item.arrival < end + self.lateness && item.since >= start && item.since < end)
                .collect();
            if !rule.satisfied(&within, i64::MIN, i64::MAX) {
                continue;
            }
            let joined = joined(group, &within);
            match episodes.last_mut() {
                Some((last, episode)) if *last + 1 == number => {
                    *last = number;
                    episode.since = episode.since.min(joined.since);
                    episode.until = episode.until.max(joined.until);
                    episode.members.extend(joined.members);
                }
                _ => episodes.push((number, joined)),
            }
        }
        episodes.into_iter().map(|(_, episode)| episode).collect()
    }
}

/// Every window that begins or ends where something begins or ends; those that share an item are one.
fn sliding(rule: &Rule, group: &[String], items: &[Item]) -> Vec<Ep> {
    let mut starts = BTreeSet::new();
    for item in items {
        starts.extend([item.since, item.until, item.since - rule.timespan, item.until - rule.timespan]);
    }
    // Each item's episode, by the lowest number of an item it shares a satisfied window with.
    let mut owner: Vec<usize> = (0..items.len()).collect();
    let mut member = vec![false; items.len()];
    let mut moments: Vec<(i64, usize)> = Vec::new();
    for start in starts {
        let end = start + rule.timespan;
        let within: Vec<usize> = (0..items.len())
            .filter(|item| items[*item].since <= end && items[*item].until >= start)
            .collect();
        let of: Vec<&Item> = within.iter().map(|item| &items[*item]).collect();
        if !rule.satisfied(&of, start, end) {
            continue;
        }
        moments.push((end, within[0]));
        let least = within.iter().map(|item| owner[*item]).min().unwrap();
        let owners: BTreeSet<usize> = within.iter().map(|item| owner[*item]).collect();
        owner.iter_mut().filter(|owner| owners.contains(*owner)).for_each(|owner| *owner = least);
        within.iter().for_each(|item| member[*item] = true);
    }
    let mut episodes = Vec::new();
    for number in owner.iter().copied().collect::<BTreeSet<_>>() {
        let of: Vec<&Item> = (0..items.len())
            .filter(|item| owner[*item] == number && member[*item])
            .map(|item| &items[item])
            .collect();
        if of.is_empty() {
            continue;
        }
        let mut episode = joined(group, &of);
        let mine = moments.iter().filter(|(_, item)| owner[*item] == number);
        episode.since = mine.map(|(end, _)| *end).min().unwrap();
        episodes.push(episode);
    }
    episodes
}

fn item(event: &Event, input: usize, value: String) -> Item {
    let members = BTreeSet::from([(event.time, event.id)]);
    Item {
        since: event.time,
        until: event.time,
        input,
        value,
        arrival: event.arrival,
        from_event: true,
        members,
    }
}

fn joined(group: &[String], items: &[&Item]) -> Ep {
    debug_assert!(items.iter().all(|item| !item.from_event || item.since == item.until));
    Ep {
        group: group.to_vec(),
        since: items.iter().map(|item| item.since).min().unwrap(),
        until: items.iter().map(|item| item.until).max().unwrap(),
        members: items.iter().flat_map(|item| item.members.iter().copied()).collect(),
    }
}

fn told(tenant: u8, rule: &str, episode: &Ep) -> Found {
    let (first, last) = (episode.members.first().unwrap().0, episode.members.last().unwrap().0);
    let members = episode.members.iter().map(|(_, id)| *id).collect();
    (tenant, rule.to_owned(), episode.group.clone(), first, last, members)
}
