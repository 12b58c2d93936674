//! Detection's place in the road: the rules that run now, and what each lane keeps to run them.
//!
//! Rule files are read at the start. What tenants say of them is read whenever it changes, and reaches
//! each lane with its next batch; a lane never waits for it.

use std::sync::Arc;
use std::time::Instant;

use inosec_enrich::{Detector, Limiter, RuleFiles, Ruleset};
use inosec_ingest::Watch;
use inosec_schemas::{Batch, Catalog, EventClass};
use inosec_sink::{Store, TenantRules};
use tokio::sync::watch;
use tracing::{info, warn};

use super::Error;
use crate::config::{self, Config};
use crate::rules;

/// Of `batch.memory`, what rules take of it: half for what they remember of values they have met, half for the
/// fields they look at.
pub fn memory(config: &Config) -> usize {
    config.batch.memory / 2
}

/// What the lanes of one database share.
#[derive(Debug, Clone)]
pub struct Detection {
    pub(super) catalog: Arc<Catalog>,
    pub(super) current: watch::Receiver<Arc<Ruleset>>,
    pub(super) limiter: Arc<Limiter>,
    /// A lane's share of what is remembered.
    pub(super) memo: usize,
}

/// Keeps the rules current.
#[derive(Debug)]
pub struct Keeper {
    sources: Arc<Sources>,
    revision: i64,
    current: watch::Sender<Arc<Ruleset>>,
}

/// What rules are compiled from, besides what tenants say of them.
#[derive(Debug)]
pub struct Sources {
    files: RuleFiles,
    classes: Vec<EventClass>,
}

/// One lane's.
#[derive(Debug)]
pub struct Stage {
    detection: Detection,
    watch: Watch,
    detector: Detector,
}

/// Reads and compiles the rules; `None` if none are configured.
pub async fn start(
    config: &Config,
    database: &str,
    catalog: &Arc<Catalog>,
    store: &Store,
) -> Result<Option<(Detection, Keeper)>, Error> {
    if config.rules.is_empty() {
        return Ok(None);
    }
    let tenants =
        store.tenant_rules().await.map_err(|source| Error::Sink { name: database.to_owned(), source })?;
    let revision = tenants.revision;
    let (rules, classes) = (config.rules.clone(), catalog.classes());
    // On one thread, so that compiling takes the memory that reading leaves.
    let compiled = tokio::task::spawn_blocking(move || {
        let sources = Sources { files: read(&rules)?, classes };
        let ruleset = sources.compile(&tenants, None)?;
        Ok::<_, Error>((Arc::new(sources), Arc::new(ruleset)))
    });
    let (sources, ruleset) = compiled.await??;
    let (current, receiver) = watch::channel(ruleset);
    let limiter = Arc::new(Limiter::new(config.rules.max_per_minute));
    let lanes: usize = config.databases.values().map(|database| database.writers).sum();
    let memo = memory(config) / 2 / lanes.max(1);
    let detection = Detection { catalog: Arc::clone(catalog), current: receiver, limiter, memo };
    Ok(Some((detection, Keeper { sources, revision, current })))
}

/// The configured files. A bad rule is named and left out.
fn read(config: &config::Rules) -> Result<RuleFiles, Error> {
    let placeholders = rules::placeholders(config);
    let configured = rules::configured(config, &placeholders);
    let rules::Configured { parsed, optional } =
        configured.map_err(|error| Error::Config(format!("[rules] {error}")))?;
    for problem in &parsed.problems {
        warn!(%problem, "a rule is left out");
    }
    info!(
        rules = parsed.rules.len(),
        filters = parsed.filters.len(),
        left_out = parsed.problems.len(),
        "rules read"
    );
    let inosec_enrich::Parsed { rules, filters, correlations, .. } = parsed;
    Ok(RuleFiles { rules, filters, correlations, optional, placeholders })
}

/// Reads the rules, for a process that only correlates.
pub async fn files(config: &Config, catalog: &Catalog) -> Result<Arc<Sources>, Error> {
    let (rules, classes) = (config.rules.clone(), catalog.classes());
    let read = tokio::task::spawn_blocking(move || Ok(Sources { files: read(&rules)?, classes }));
    read.await?.map(Arc::new)
}

impl Sources {
    /// The rules.
    pub fn rules(&self) -> &RuleFiles {
        &self.files
    }

    /// About a second for all of SigmaHQ's rules: not for async threads.
    fn compile(&self, tenants: &TenantRules, before: Option<&Ruleset>) -> Result<Ruleset, Error> {
        let started = Instant::now();
        let ruleset = Ruleset::new(&self.files, &self.classes, &tenants.rules, before)
            .map_err(|error| Error::Config(format!("[rules] {error}")))?;
        for problem in ruleset.problems() {
            warn!(%problem, "left out: the rule runs without it");
        }
        let rules = ruleset.engine().rules().len();
        info!(rules, seconds = started.elapsed().as_secs_f64(), "rules ready");
        Ok(ruleset)
    }
}

impl Keeper {
    /// What it compiles.
    pub fn files(&self) -> Arc<Sources> {
        Arc::clone(&self.sources)
    }

    /// Compiles anew whenever a tenant changes something; runs until dropped.
    pub async fn run(mut self, store: Arc<Store>) {
        loop {
            let tenants = store.tenant_rules_after(self.revision).await;
            self.revision = tenants.revision;
            let (sources, before) = (Arc::clone(&self.sources), Arc::clone(&self.current.borrow()));
            let compiled = tokio::task::spawn_blocking(move || sources.compile(&tenants, Some(&before)));
            match compiled.await.unwrap_or_else(|error| Err(Error::Task(error))) {
                Ok(ruleset) => drop(self.current.send_replace(Arc::new(ruleset))),
                Err(error) => warn!(%error, "the rules stay as they are"),
            }
        }
    }
}

impl Detection {
    /// What a lane needs.
    pub fn stage(&self) -> Stage {
        let ruleset = Arc::clone(&self.current.borrow());
        Stage {
            watch: Watch::new(&self.catalog, ruleset.engine().class_fields()),
            detector: Detector::new(ruleset, Arc::clone(&self.limiter), self.memo),
            detection: self.clone(),
        }
    }
}

impl Stage {
    /// Takes the rules as they are now, for all of a batch.
    pub fn begin(&mut self) {
        let current = Arc::clone(&self.detection.current.borrow());
        if !Arc::ptr_eq(current.engine(), self.detector.ruleset().engine()) {
            self.watch = Watch::new(&self.detection.catalog, current.engine().class_fields());
        }
        self.detector.set_ruleset(current);
    }

    /// What takes the fields that the rules look at.
    pub fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }

    /// Adds the threat events that the events watched last are.
    pub fn detect(&mut self, batch: &mut Batch) {
        self.detector.detect(batch, self.watch.extracted());
    }
}
