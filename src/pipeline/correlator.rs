//! Correlation's place: one task per database. It stands by until it leads, rebuilds what counts, and then
//! turns what is queued into alerts, one transaction after another.
//!
//! What it holds is derived. Whatever fails, it forgets everything, and whoever leads next rebuilds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inosec_enrich::correlate::{Change, Options, TenantOptions, ThreatEvent};
use inosec_enrich::{Correlations, Correlator, Ledger, RuleFiles, alert::Events, metrics as names};
use inosec_schemas::{MemberKey, StoredThreatEvent, TenantId};
use inosec_sink::correlator::{Fold, Leader, Relevant};
use inosec_sink::{Error, Store};
use metrics::{counter, gauge, histogram};
use tokio::task::{AbortHandle, block_in_place};
use tracing::{info, warn};
use uuid::Uuid;

use super::{Error as RoadError, relay};
use crate::config::{Config, micros};
use crate::databases;

/// Between two looks at the queue while it is empty.
const IDLE: Duration = Duration::from_millis(100);
/// Between two attempts to lead.
const STANDBY: Duration = Duration::from_millis(500);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks at what tenants say.
const LOOK: Duration = Duration::from_secs(1);
/// Threat events folded in one transaction, about; fewer after a failure, in case it was too large to end.
const MOST: i64 = 10_000;
const LEAST: i64 = 100;
/// The clock moves in steps of this many microseconds: each is a transaction.
const STEP: i64 = 1_000_000;

/// The correlator of one database.
#[derive(Debug)]
pub struct Role {
    database: String,
    store: Arc<Store>,
    config: Arc<Config>,
    /// Those whose partitions count for the clock.
    topics: Vec<String>,
    correlations: Arc<Correlations>,
    optional: Vec<String>,
    /// What operators see of who leads.
    by: String,
}

/// What a leader knows.
struct Held {
    correlator: Correlator,
    ledger: Ledger,
    /// What tenants said when it was rebuilt, and the revision of what they say that was looked at last.
    tenants: Tenants,
    revision: i64,
    /// What was dropped up to now and told.
    dropped: inosec_enrich::correlate::Dropped,
    /// How far correlation has come; unknown until every partition was read once.
    clock: Option<i64>,
}

/// What tenants say of correlation.
type Tenants = BTreeMap<TenantId, TenantOptions>;

/// Stops a task when dropped.
struct Guard(AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Role {
    /// A correlator that does nothing yet; an error if it may not do anything in this database.
    pub async fn new(
        config: &Arc<Config>,
        database: &str,
        store: &Arc<Store>,
        files: &RuleFiles,
    ) -> Result<Self, RoadError> {
        let of = |source| RoadError::Sink { name: database.to_owned(), source };
        drop(store.feed().await.map_err(of)?);
        let (correlations, _) = Correlations::new(&files.correlations, &files.rules);
        info!(database, correlations = correlations.rules().count(), "correlating");
        Ok(Self {
            database: database.to_owned(),
            store: Arc::clone(store),
            config: Arc::clone(config),
            topics: config.topics_of(database).map(|topic| topic.name.clone()).collect(),
            correlations: Arc::new(correlations),
            optional: files.optional.iter().cloned().collect(),
            by: format!("{} (process {})", config.kafka.client_id, std::process::id()),
        })
    }

    /// Runs until dropped.
    pub async fn run(self) {
        let mut most = MOST;
        loop {
            gauge!(names::CORRELATE_LEADING, "database" => self.database.clone()).set(0);
            match self.store.lead(&self.by).await {
                Ok(None) => tokio::time::sleep(STANDBY).await,
                Ok(Some(leader)) => {
                    gauge!(names::CORRELATE_LEADING, "database" => self.database.clone()).set(1);
                    info!(database = self.database, epoch = leader.epoch(), "leading correlation");
                    let Err(error) = self.lead(leader, &mut most).await;
                    most = (most / 2).max(LEAST);
                    warn!(database = self.database, %error, most, "correlation starts again from what is stored");
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => {
                    warn!(database = self.database, %error, "correlation waits for the database");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn lead(&self, mut leader: Leader, most: &mut i64) -> Result<std::convert::Infallible, Error> {
        let _relay = self.config.correlate.alerts_topic.is_some().then(|| {
            let relay = relay::run(Arc::clone(&self.config), self.database.clone(), Arc::clone(&self.store));
            Guard(tokio::spawn(relay).abort_handle())
        });
        let mut clock = leader.clock();
        loop {
            // Asked first: what changes meanwhile is looked at again.
            let revision = self.store.tenant_rules_revision().await?;
            let tenants = self.tenants().await?;
            let mut held = self.rebuild(&mut leader, (tenants, revision), clock).await?;
            self.work(&mut leader, &mut held, most).await?;
            clock = held.clock;
        }
    }

    /// Folds until tenants say something else.
    async fn work(&self, leader: &mut Leader, held: &mut Held, most: &mut i64) -> Result<(), Error> {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let mut looked = Instant::now();
        loop {
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                let revision = self.store.tenant_rules_revision().await?;
                if revision != held.revision && self.tenants().await? != held.tenants {
                    return Ok(());
                }
                held.revision = revision;
            }
            let due = self.store.answered("asking for work", leader.due(&topics)).await?;
            if let Some(clock) = due.clock {
                let lag = (databases::now() - clock).max(0) as f64 / 1e6;
                gauge!(names::CORRELATE_LAG, "database" => self.database.clone()).set(lag);
            }
            let clock = due.clock.filter(|clock| held.clock.is_none_or(|before| *clock >= before + STEP));
            if !due.queued && clock.is_none() {
                tokio::time::sleep(IDLE).await;
                continue;
            }
            self.store.answered("correlating", self.fold(leader, held, *most, clock)).await?;
            *most = (*most + *most / 8).min(MOST);
        }
    }

    /// One transaction: what is queued, as far as it goes at once, and what the clock decides.
    async fn fold(
        &self,
        leader: &mut Leader,
        held: &mut Held,
        most: i64,
        clock: Option<i64>,
    ) -> Result<(), Error> {
        let started = Instant::now();
        let mut fold = leader.begin(most).await?;
        let events = std::mem::take(&mut fold.events);
        // What the clock decides is right only if nothing older is queued.
        let clock = clock.filter(|_| !fold.more);
        let cutoff = held.correlator.cutoff();
        let late: Vec<MemberKey> =
            events.iter().filter(|event| event.ingested_at < cutoff).map(StoredThreatEvent::key).collect();
        let changes = block_in_place(|| {
            let mut changes = held.correlator.insert(&views(&events));
            changes.extend(clock.iter().flat_map(|clock| held.correlator.advance(*clock)));
            changes
        });
        let counted = events.len() - late.len();
        fold.mark_late(&late).await?;
        self.write(&mut fold, held, changes, events).await?;
        if let Some(clock) = clock {
            fold.set_clock(clock).await?;
            held.clock = Some(clock);
        }
        fold.commit().await?;
        counter!(names::CORRELATE_EVENTS, "outcome" => "counted").increment(counted as u64);
        counter!(names::CORRELATE_EVENTS, "outcome" => "late").increment(late.len() as u64);
        histogram!(names::CORRELATE_SECONDS).record(started.elapsed().as_secs_f64());
        let (groups, entries) = held.correlator.size();
        for (what, count) in [("groups", groups), ("entries", entries)] {
            gauge!(names::CORRELATE_HELD, "database" => self.database.clone(), "what" => what)
                .set(count as f64);
        }
        Ok(())
    }

    /// Writes what became of alerts, and what had to be dropped.
    async fn write(
        &self,
        fold: &mut Fold<'_>,
        held: &mut Held,
        changes: Vec<Change>,
        events: Vec<StoredThreatEvent>,
    ) -> Result<(), Error> {
        let mut known: Events = events.into_iter().map(|event| ((event.tenant, event.id), event)).collect();
        let mut missing = Vec::new();
        for change in &changes {
            let tenant = change.summary.of.tenant;
            let keys = change.added.iter().map(|event| (tenant, *event));
            missing.extend(keys.filter(|key| !known.contains_key(key)));
        }
        let first = changes.iter().map(|change| change.summary.first_seen).min().unwrap_or(0);
        let last = changes.iter().map(|change| change.summary.last_seen).max().unwrap_or(0);
        for event in fold.members(&missing, (first, last)).await? {
            known.insert((event.tenant, event.id), event);
        }
        held.ledger.apply(changes, &known);
        self.write_ledger(fold, &mut held.ledger).await?;
        self.tell_dropped(fold, held).await
    }

    async fn write_ledger(&self, fold: &mut Fold<'_>, ledger: &mut Ledger) -> Result<(), Error> {
        if ledger.is_idle() {
            return Ok(());
        }
        let hosts: Vec<(TenantId, &str)> = ledger.hosts().collect();
        let mut tenants: Vec<Uuid> = ledger.changed_tenants().collect();
        tenants.dedup();
        let criticality = fold.criticality(&hosts).await?;
        let suppressions = fold.suppressions(&tenants).await?;
        let writes = ledger.write(&criticality, &suppressions);
        fold.write(&writes).await?;
        for (_, change, _) in &writes.alerts {
            counter!(names::CORRELATE_ALERTS, "change" => change.name()).increment(1);
        }
        counter!(names::CORRELATE_ALERTS, "change" => "merged").increment(writes.merged.len() as u64);
        counter!(names::CORRELATE_ALERTS, "change" => "withdrawn").increment(writes.withdrawn.len() as u64);
        Ok(())
    }

    async fn tell_dropped(&self, fold: &mut Fold<'_>, held: &mut Held) -> Result<(), Error> {
        let dropped = held.correlator.dropped();
        counter!(names::CORRELATE_FUTURE).increment(dropped.future - held.dropped.future);
        if dropped.evicted != held.dropped.evicted {
            for (tenant, now) in &dropped.evicted {
                let before = held.dropped.evicted.get(tenant).copied().unwrap_or_default();
                let (groups, entries) = (now.groups - before.groups, now.entries - before.entries);
                if (groups, entries) == (0, 0) {
                    continue;
                }
                fold.count_evicted(*tenant, groups, entries).await?;
                counter!(names::CORRELATE_EVICTED, "what" => "groups").increment(groups);
                counter!(names::CORRELATE_EVICTED, "what" => "entries").increment(entries);
            }
        }
        if held.dropped != *dropped {
            held.dropped = dropped.clone();
        }
        Ok(())
    }

    /// Derives what the leaders before knew, and finds the alerts of what it derived.
    async fn rebuild(
        &self,
        leader: &mut Leader,
        (tenants, revision): (Tenants, i64),
        clock: Option<i64>,
    ) -> Result<Held, Error> {
        let started = Instant::now();
        let options = self.options(&tenants);
        let levels = tenants.values().filter_map(|of| of.alert_severity);
        let severity_id = levels.min().unwrap_or(i16::MAX).min(options.alert_severity);
        let mut correlator = Correlator::new(Arc::clone(&self.correlations), options);
        let relevant = Relevant {
            since: correlator.cutoff_at(clock.unwrap_or_else(databases::now)),
            max_age: micros(self.config.time.max_age),
            severity_id,
            rules: self.correlations.detections().map(str::to_owned).collect(),
        };
        // First, so that what doesn't count any more joins nothing.
        if let Some(clock) = clock {
            correlator.advance(clock);
        }
        let mut count = 0;
        let alerts = leader.rebuild(&relevant, |events| {
            count += events.len();
            block_in_place(|| drop(correlator.insert(&views(&events))));
        });
        let alerts = alerts.await?;
        let episodes = block_in_place(|| {
            correlator.number_anew();
            correlator.episodes()
        });
        let mut ledger = Ledger::new(&self.correlations, Uuid::new_v4);
        let mut fold = leader.begin(0).await?;
        let unknown = Ledger::unknown(&alerts, &episodes);
        let first = episodes.iter().map(|episode| episode.summary.first_seen).min().unwrap_or(0);
        let last = episodes.iter().map(|episode| episode.summary.last_seen).max().unwrap_or(0);
        let events = fold.members(&unknown, (first, last)).await?;
        let events = events.into_iter().map(|event| ((event.tenant, event.id), event)).collect();
        let same = ledger.take_over(alerts, &episodes, &events);
        correlator.unite(&same);
        self.write_ledger(&mut fold, &mut ledger).await?;
        fold.commit().await?;
        let took = started.elapsed().as_secs_f64();
        histogram!(names::CORRELATE_REBUILD).record(took);
        info!(
            database = self.database,
            events = count,
            episodes = episodes.len(),
            seconds = took,
            "correlation is rebuilt"
        );
        let dropped = correlator.dropped().clone();
        Ok(Held { correlator, ledger, tenants, revision, dropped, clock })
    }

    fn options(&self, tenants: &Tenants) -> Options {
        let tenants = tenants.iter().map(|(id, of)| (*id, of.clone())).collect();
        Options { tenants, ..databases::correlate_options(&self.config) }
    }

    /// Reads what tenants say: which correlations they have, and from which severity on they want alerts.
    async fn tenants(&self) -> Result<Tenants, Error> {
        let levels = self.store.alert_severities().await?;
        let said = self.store.tenant_rules().await?;
        let mut options = Tenants::new();
        let optional: Vec<&String> =
            self.optional.iter().filter(|id| self.correlations.rules().any(|rule| rule.id == **id)).collect();
        if !optional.is_empty() {
            for tenant in self.store.tenants().await? {
                options.entry(tenant.id).or_default().off.extend(optional.iter().map(|id| (*id).clone()));
            }
        }
        for (tenant, severity) in levels {
            options.entry(tenant).or_default().alert_severity = Some(severity);
        }
        for rule in said.rules {
            if self.correlations.rules().all(|known| known.id != rule.rule_id) {
                continue;
            }
            let off = &mut options.entry(rule.tenant).or_default().off;
            if rule.enabled {
                off.remove(&rule.rule_id);
            } else {
                off.insert(rule.rule_id);
            }
        }
        Ok(options)
    }
}

fn views(events: &[StoredThreatEvent]) -> Vec<ThreatEvent<'_>> {
    events.iter().map(ThreatEvent::from).collect()
}
