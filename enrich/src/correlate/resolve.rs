//! Correlations of all files in; a plan out in which every reference is looked up, parents before their
//! children. A bad rule is named and left out, and so is what builds on it.

use hashbrown::{HashMap, HashSet};

use super::rule::{Alias, Condition, Correlation, Kind, Operator};
use crate::sigma::{Level, Problem, Rule};

/// How long a chain of correlations may be.
const DEEPEST: usize = 8;

/// Correlation rules that can run together.
#[derive(Debug, Clone, Default)]
pub struct Correlations {
    pub(super) plans: Vec<Plan>,
    feeds: HashMap<String, Vec<Feed>>,
}

/// A correlation ready to run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) rule: Correlation,
    pub(super) monotone: bool,
    /// For monotone rules the smallest count that satisfies them.
    pub(super) least: usize,
    /// Whether episodes of other correlations are among its inputs.
    pub(super) has_parents: bool,
    /// Where its own episodes go.
    pub(super) children: Vec<Chain>,
    /// How far before a moment inputs may lie that its parents need to be right about it.
    pub(super) reach_in: i64,
    /// The same with its own windows.
    pub(super) reach: i64,
    /// The ids of the detection rules below it that it refers to itself.
    detections: Vec<String>,
}

/// What a correlation takes from the events of a detection rule.
#[derive(Debug, Clone)]
pub(super) struct Feed {
    /// The correlation.
    pub(super) plan: usize,
    /// The rule's place in the correlation's list.
    pub(super) slot: u16,
    /// The fields it groups by, as these events call them.
    pub(super) group: Vec<String>,
    /// The fields it measures.
    pub(super) values: Vec<String>,
}

/// What a correlation takes from the episodes of another: group values, by their places.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub(super) plan: usize,
    pub(super) slot: u16,
    pub(super) group: Vec<usize>,
    pub(super) values: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Detection(usize),
    Correlation(usize),
}

/// What ids and names stand for.
struct Names<'a> {
    detections: &'a [Rule],
    correlations: &'a [Correlation],
    ids: HashMap<&'a str, Target>,
    names: HashMap<&'a str, Vec<Target>>,
}

impl Correlations {
    /// Looks up what the correlations refer to.
    #[must_use]
    pub fn new(correlations: &[Correlation], detections: &[Rule]) -> (Self, Vec<Problem>) {
        let names = Names::new(correlations, detections);
        let mut problems = Vec::new();
        let mut waiting = Vec::new();
        for (index, rule) in correlations.iter().enumerate() {
            match names.targets(rule) {
                Ok(targets) => waiting.push((index, targets)),
                Err(message) => problems.push(problem(rule, message)),
            }
        }
        let mut resolved = Self::default();
        let mut places: HashMap<usize, usize> = HashMap::new();
        let mut depths: HashMap<usize, usize> = HashMap::new();
        loop {
            let before = waiting.len();
            waiting.retain(|(index, targets)| {
                let parents = || targets.iter().filter_map(|target| target.correlation());
                if !parents().all(|parent| places.contains_key(&parent)) {
                    return true;
                }
                let depth = parents().map(|parent| depths[&parent] + 1).max().unwrap_or(0);
                let rule = &correlations[*index];
                if depth >= DEEPEST {
                    let message = format!("a chain of more than {DEEPEST} correlations: shorten it");
                    problems.push(problem(rule, message));
                    return false;
                }
                match resolved.plan(rule, targets, &names, &places) {
                    Ok(()) => {
                        places.insert(*index, resolved.plans.len() - 1);
                        depths.insert(*index, depth);
                    }
                    Err(message) => problems.push(problem(rule, message)),
                }
                false
            });
            if waiting.len() == before {
                break;
            }
        }
        for (index, targets) in &waiting {
            let message = why_left_out(*index, targets, &waiting, &places, correlations);
            problems.push(problem(&correlations[*index], message));
        }
        (resolved, problems)
    }

    /// The rules that run, parents before children.
    pub fn rules(&self) -> impl Iterator<Item = &Correlation> {
        self.plans.iter().map(|plan| &plan.rule)
    }

    /// The ids of the detection rules that some correlation refers to.
    pub fn detections(&self) -> impl Iterator<Item = &str> {
        self.feeds.keys().map(String::as_str)
    }

    /// The fields that threat events of a detection rule must carry for correlation, in order of names.
    #[must_use]
    pub fn fields_for(&self, rule_id: &str) -> Vec<&str> {
        let feeds = self.feeds(rule_id).iter();
        let mut fields: Vec<&str> =
            feeds.flat_map(|feed| feed.group.iter().chain(&feed.values)).map(String::as_str).collect();
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    /// Whether threat events of a detection rule make alerts of their own for a tenant that has the
    /// correlations that are `on`: those of rules no correlation refers to always do, of others only if
    /// one of them says `generate`.
    #[must_use]
    pub fn makes_own_alerts(&self, rule_id: &str, on: impl Fn(&str) -> bool) -> bool {
        self.alone(self.feeds(rule_id).iter().map(|feed| feed.plan), |plan| on(&self.plans[plan].rule.id))
    }

    /// Whether what some correlations refer to makes alerts too.
    pub(super) fn alone(&self, referring: impl Iterator<Item = usize>, on: impl Fn(usize) -> bool) -> bool {
        let mut referring = referring.filter(|plan| on(*plan)).peekable();
        referring.peek().is_none() || referring.any(|plan| self.plans[plan].rule.generate)
    }

    pub(super) fn feeds(&self, rule_id: &str) -> &[Feed] {
        self.feeds.get(rule_id).map_or(&[], Vec::as_slice)
    }

    fn plan(
        &mut self,
        rule: &Correlation,
        targets: &[Target],
        names: &Names<'_>,
        places: &HashMap<usize, usize>,
    ) -> Result<(), String> {
        let plan = self.plans.len();
        let (mut feeds, mut chains, mut reach_in) = (Vec::new(), Vec::new(), 0);
        for (slot, target) in (0..).zip(targets) {
            let group = names.fields(rule, &rule.group_by, *target)?;
            let values = names.fields(rule, &rule.values, *target)?;
            match *target {
                Target::Detection(index) => {
                    let id = names.detections[index].id.clone();
                    feeds.push((id, Feed { plan, slot, group, values }));
                }
                Target::Correlation(index) => {
                    let parent = places[&index];
                    let of = &self.plans[parent];
                    reach_in = reach_in.max(of.reach);
                    let (group, values) = (places_in(&of.rule, &group)?, places_in(&of.rule, &values)?);
                    chains.push((parent, Chain { plan, slot, group, values }));
                }
            }
        }
        let monotone = rule.is_monotone();
        let windows = if monotone { rule.timespan } else { 2 * rule.timespan };
        self.plans.push(Plan {
            monotone,
            least: rule.condition.least_count(usize::MAX).unwrap_or(1),
            has_parents: !chains.is_empty(),
            children: Vec::new(),
            reach_in,
            reach: reach_in + windows,
            detections: feeds.iter().map(|(id, _)| id.clone()).collect(),
            rule: rule.clone(),
        });
        for (id, feed) in feeds {
            self.feeds.entry(id).or_default().push(feed);
        }
        for (parent, chain) in chains {
            self.plans[parent].children.push(chain);
        }
        Ok(())
    }

    /// The detection rules a correlation refers to, those of its parents included.
    #[must_use]
    pub fn detections_of(&self, correlation_id: &str) -> Vec<&str> {
        let Some(of) = self.plans.iter().position(|plan| plan.rule.id == correlation_id) else {
            return Vec::new();
        };
        let mut wanted: HashSet<usize> = HashSet::new();
        wanted.insert(of);
        for (index, plan) in self.plans.iter().enumerate().rev() {
            if plan.children.iter().any(|child| wanted.contains(&child.plan)) {
                wanted.insert(index);
            }
        }
        let mut ids: Vec<&str> =
            wanted.iter().flat_map(|index| &self.plans[*index].detections).map(String::as_str).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

impl Plan {
    /// What groups a rule's own alerts: one event is enough, and those no further apart than `gap` are one
    /// episode.
    pub(super) fn of_own_alerts(gap: i64) -> Self {
        let rule = Correlation {
            id: String::new(),
            has_id: false,
            title: String::new(),
            name: None,
            author: None,
            description: None,
            status: None,
            revision: None,
            level: Level::Medium,
            tags: Vec::new(),
            fields: Vec::new(),
            falsepositives: Vec::new(),
            kind: Kind::EventCount,
            rules: Vec::new(),
            group_by: Vec::new(),
            aliases: Vec::new(),
            timespan: gap,
            values: Vec::new(),
            condition: Condition(vec![(Operator::Gt, 0)]),
            generate: false,
            origin: (String::new(), 0),
        };
        Self {
            rule,
            monotone: true,
            least: 1,
            has_parents: false,
            children: Vec::new(),
            reach_in: 0,
            reach: gap,
            detections: Vec::new(),
        }
    }

    /// Whether its inputs are only events and more of them never hurt, which allows the fast way.
    pub(super) fn slides(&self) -> bool {
        self.monotone && !self.has_parents
    }

    /// How many slots an ordered chain has.
    pub(super) fn slots(&self) -> usize {
        self.rule.rules.len()
    }
}

impl Target {
    fn correlation(self) -> Option<usize> {
        match self {
            Self::Correlation(index) => Some(index),
            Self::Detection(_) => None,
        }
    }
}

impl<'a> Names<'a> {
    fn new(correlations: &'a [Correlation], detections: &'a [Rule]) -> Self {
        let (mut ids, mut names) = (HashMap::new(), HashMap::<&str, Vec<Target>>::new());
        let of_detections = detections.iter().enumerate();
        let of_detections =
            of_detections.map(|(index, rule)| (&rule.id, &rule.name, Target::Detection(index)));
        let of_correlations = correlations.iter().enumerate();
        let of_correlations =
            of_correlations.map(|(index, rule)| (&rule.id, &rule.name, Target::Correlation(index)));
        for (id, name, target) in of_detections.chain(of_correlations) {
            ids.insert(id.as_str(), target);
            if let Some(name) = name {
                names.entry(name.as_str()).or_default().push(target);
            }
        }
        Self { detections, correlations, ids, names }
    }

    fn find(&self, name: &str) -> Result<Target, String> {
        if let Some(target) = self.ids.get(name) {
            return Ok(*target);
        }
        match self.names.get(name).map(Vec::as_slice) {
            Some([target]) => Ok(*target),
            Some(_) => Err(format!("several rules have the name `{name}`: refer to one by its id")),
            None => Err(format!("no rule has the id or name `{name}`: correct it, or load that rule too")),
        }
    }

    fn targets(&self, rule: &Correlation) -> Result<Vec<Target>, String> {
        let mut targets = Vec::with_capacity(rule.rules.len());
        for name in &rule.rules {
            let target = self.find(name)?;
            if targets.contains(&target) {
                return Err(format!("`{name}` is a rule that is listed already: remove one"));
            }
            targets.push(target);
        }
        for (name, _) in rule.aliases.iter().flat_map(|alias| &alias.fields) {
            let target = self.find(name)?;
            if !targets.contains(&target) {
                return Err(format!("an alias names `{name}`, which is not under `rules`: add or remove it"));
            }
        }
        Ok(targets)
    }

    /// Fields or aliases as the events of one rule call them.
    fn fields(&self, rule: &Correlation, names: &[String], of: Target) -> Result<Vec<String>, String> {
        let mut fields = Vec::with_capacity(names.len());
        for name in names {
            let Some(alias) = rule.aliases.iter().find(|alias| alias.name == *name) else {
                fields.push(name.clone());
                continue;
            };
            fields.push(self.aliased(alias, of)?);
        }
        Ok(fields)
    }

    fn aliased(&self, alias: &Alias, of: Target) -> Result<String, String> {
        for (rule, field) in &alias.fields {
            if self.find(rule)? == of {
                return Ok(field.clone());
            }
        }
        let title = match of {
            Target::Detection(index) => &self.detections[index].title,
            Target::Correlation(index) => &self.correlations[index].title,
        };
        Err(format!("the alias `{}` says nothing of `{title}`: add its field", alias.name))
    }
}

/// An episode has only what it is grouped by.
fn places_in(parent: &Correlation, fields: &[String]) -> Result<Vec<usize>, String> {
    let mut places = Vec::with_capacity(fields.len());
    for field in fields {
        let Some(place) = parent.group_by.iter().position(|name| name == field) else {
            let title = &parent.title;
            return Err(format!("`{title}` is not grouped by `{field}`: add it there, or use one it has"));
        };
        places.push(place);
    }
    Ok(places)
}

fn why_left_out(
    index: usize,
    targets: &[Target],
    waiting: &[(usize, Vec<Target>)],
    planned: &HashMap<usize, usize>,
    correlations: &[Correlation],
) -> String {
    let waits = |index: usize| waiting.iter().find(|(other, _)| *other == index);
    let mut parents = targets.iter().filter_map(|target| target.correlation());
    let gone = parents.find(|parent| waits(*parent).is_none() && !planned.contains_key(parent));
    let (mut path, mut at) = (vec![index], index);
    while let Some((_, targets)) = waits(at) {
        let next =
            targets.iter().filter_map(|target| target.correlation()).find(|next| waits(*next).is_some());
        let Some(next) = next else { break };
        if next == index {
            let titles: Vec<&str> = path.iter().map(|index| correlations[*index].title.as_str()).collect();
            return format!("it refers to itself, through {}: break the circle", titles.join(", "));
        }
        if path.contains(&next) {
            break;
        }
        path.push(next);
        at = next;
    }
    let of = gone.or_else(|| path.get(1).copied()).unwrap_or(index);
    format!("it refers to `{}`, which is left out: correct that first", correlations[of].title)
}

fn problem(rule: &Correlation, message: String) -> Problem {
    let (file, line) = rule.origin.clone();
    Problem { file, line, rule: Some(rule.id.clone()), message }
}
