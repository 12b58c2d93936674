//! The second half of `inosec rules eval`: what the threat events of all files come to, once there are
//! correlations among the rules.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use inosec_enrich::{Correlations, RuleFiles, Ruleset};
use inosec_schemas::Catalog;
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::{Failure, block_on, time};
use crate::config::Config;
use crate::databases;
use crate::event_file::Lines;
use crate::pipeline::geo;
use crate::rules::{self, Detected, Detections, Episode, Episodes};

/// Detects in lines of events and folds what it finds.
pub struct Correlating {
    rules: Arc<Correlations>,
    detections: Detections,
    episodes: Episodes,
    members: HashMap<Uuid, Member>,
    /// Of rules and signatures that fired.
    titles: HashMap<String, String>,
}

/// Where a threat event comes from.
struct Member {
    rule: Arc<str>,
    /// Among the files.
    file: usize,
    line: u64,
}

/// What tells an episode from a hit.
#[derive(Serialize)]
struct Line<'a> {
    episode: Printed<'a>,
}

/// An episode as it is printed.
#[derive(Serialize)]
struct Printed<'a> {
    rule_id: &'a str,
    title: &'a str,
    group: Map<String, Value>,
    first_seen: String,
    last_seen: String,
    count: usize,
    members: Vec<Place<'a>>,
}

/// The hit that a member is.
#[derive(Serialize)]
struct Place<'a> {
    rule_id: &'a str,
    file: &'a str,
    line: u64,
}

impl Correlating {
    /// None without correlations.
    pub fn new(
        ruleset: &Arc<Ruleset>,
        files: &RuleFiles,
        catalog: &Catalog,
        config: &Config,
    ) -> Result<Option<Self>, Failure> {
        let (correlations, _) = Correlations::new(&files.correlations, &files.rules);
        if correlations.rules().next().is_none() {
            return Ok(None);
        }
        let geo = block_on(async { Ok(geo::Current::load(&config.geo).await?.now()) })?;
        let limits = rules::limits(config);
        let rules = Arc::new(correlations);
        Ok(Some(Self {
            detections: Detections::new(Arc::clone(ruleset), catalog, limits, geo, databases::now())?,
            episodes: Episodes::new(Arc::clone(&rules), databases::correlate_options(config)),
            rules,
            members: HashMap::new(),
            titles: HashMap::new(),
        }))
    }

    /// Takes lines of a file.
    pub fn add(&mut self, file: usize, lines: &Lines) {
        let source = i32::try_from(file).unwrap_or(i32::MAX);
        let detected = self.detections.run(lines, source);
        self.episodes.add(&detected);
        for Detected { index, event } in detected {
            let (rule, line) = (Arc::from(event.rule()), lines.number(index));
            self.members.insert(event.id, Member { rule, file, line });
            self.titles.entry(event.rule().to_owned()).or_insert(event.signature);
        }
    }

    /// Prints the episodes, one a line; how many there are.
    pub fn print(mut self, files: &[PathBuf], out: &mut impl Write) -> io::Result<usize> {
        for rule in self.rules.rules() {
            self.titles.insert(rule.id.clone(), rule.title.clone());
        }
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let episodes = self.episodes.finish();
        for episode in &episodes {
            let printed = printed(episode, &self.members, &self.titles, &names);
            serde_json::to_writer(&mut *out, &Line { episode: printed })?;
            out.write_all(b"\n")?;
        }
        Ok(episodes.len())
    }
}

fn printed<'a>(
    episode: &'a Episode,
    members: &'a HashMap<Uuid, Member>,
    titles: &'a HashMap<String, String>,
    names: &'a [String],
) -> Printed<'a> {
    let Episode { of, first_seen, last_seen, members: ids } = episode;
    let place = |id| {
        let Member { rule, file, line } = members.get(id)?;
        Some(Place { rule_id: rule, file: &names[*file], line: *line })
    };
    Printed {
        rule_id: &of.rule,
        title: titles.get(&of.rule).unwrap_or(&of.rule),
        group: of.group.iter().map(|(name, value)| (name.clone(), json!(value))).collect(),
        first_seen: time(*first_seen),
        last_seen: time(*last_seen),
        count: ids.len(),
        members: ids.iter().filter_map(place).collect(),
    }
}
