//! Detection's place in the road: the rules that run now, and what each lane keeps to run them.
//!
//! Rule files are read at the start. What tenants say of them is read whenever it changes, and reaches
//! each lane with its next batch; a lane never waits for it.

use std::sync::Arc;
use std::time::Instant;

use inosec_enrich::{Detector, Limiter, RuleFiles, Ruleset};
use inosec_ingest::{Decoder, Watch};
use inosec_schemas::{Batch, Catalog, Directory, EventClass, Messages};
use inosec_sink::{Store, TenantRules};
use tokio::sync::watch;
use tracing::{info, warn};

use super::Error;
use crate::config::Config;
use crate::rules;

/// What the lanes of one database share.
#[derive(Debug, Clone)]
pub struct Detection {
    catalog: Arc<Catalog>,
    current: watch::Receiver<Arc<Ruleset>>,
    limiter: Arc<Limiter>,
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
struct Sources {
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
    let sources = Arc::new(Sources { files: read(config)?, classes: catalog.classes() });
    let tenants =
        store.tenant_rules().await.map_err(|source| Error::Sink { name: database.to_owned(), source })?;
    let revision = tenants.revision;
    let ruleset = compile(Arc::clone(&sources), tenants, None).await?;
    let (current, receiver) = watch::channel(ruleset);
    let limiter = Arc::new(Limiter::new(config.rules.max_per_minute));
    let detection = Detection { catalog: Arc::clone(catalog), current: receiver, limiter };
    Ok(Some((detection, Keeper { sources, revision, current })))
}

/// The configured files. A bad rule is named and left out.
fn read(config: &Config) -> Result<RuleFiles, Error> {
    let placeholders = rules::placeholders(&config.rules);
    let configured = rules::configured(&config.rules, &placeholders);
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

async fn compile(
    sources: Arc<Sources>,
    tenants: TenantRules,
    before: Option<Arc<Ruleset>>,
) -> Result<Arc<Ruleset>, Error> {
    let started = Instant::now();
    let compiled = tokio::task::spawn_blocking(move || {
        Ruleset::new(&sources.files, &sources.classes, &tenants.rules, before.as_deref())
    });
    let ruleset = compiled.await?.map_err(|error| Error::Config(format!("[rules] {error}")))?;
    for problem in ruleset.problems() {
        warn!(%problem, "left out: the rule runs without it");
    }
    let rules = ruleset.engine().rules().len();
    info!(rules, seconds = started.elapsed().as_secs_f64(), "rules ready");
    Ok(Arc::new(ruleset))
}

impl Keeper {
    /// Compiles anew whenever a tenant changes something; runs until dropped.
    pub async fn run(mut self, store: Arc<Store>) {
        loop {
            let tenants = store.tenant_rules_after(self.revision).await;
            self.revision = tenants.revision;
            let before = Some(Arc::clone(&self.current.borrow()));
            match compile(Arc::clone(&self.sources), tenants, before).await {
                Ok(ruleset) => drop(self.current.send_replace(ruleset)),
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
            detector: Detector::new(ruleset, Arc::clone(&self.limiter)),
            detection: self.clone(),
        }
    }
}

impl Stage {
    /// Decodes a batch and adds the threat events that its events are, with the rules as they are now.
    pub fn decode(&mut self, decoder: &mut Decoder, messages: Messages, directory: &Directory) -> Batch {
        let current = Arc::clone(&self.detection.current.borrow());
        if !Arc::ptr_eq(current.engine(), self.detector.ruleset().engine()) {
            self.watch = Watch::new(&self.detection.catalog, current.engine().class_fields());
        }
        self.detector.set_ruleset(current);
        let mut batch = decoder.decode(messages, directory, Some(&mut self.watch));
        self.detector.detect(&mut batch, self.watch.extracted());
        batch
    }
}
