//! What goes into the correlator and what comes out.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use inosec_schemas::{StoredThreatEvent, TenantId};
use uuid::Uuid;

/// A threat event as far as correlation looks at it. Times are microseconds since 1970, UTC.
#[derive(Debug, Clone)]
pub struct ThreatEvent<'a> {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its id: the same id and tenant is the same event.
    pub id: Uuid,
    /// The rule that found it, else its signature.
    pub rule: &'a str,
    /// When it says it happened.
    pub time: i64,
    /// When Kafka took it.
    pub arrival: i64,
    /// OCSF.
    pub severity: i16,
    /// Where it happened.
    pub host: Option<&'a str>,
    /// What [`super::Correlations::fields_for`] asks for, as far as the event has it.
    pub fields: Vec<(&'a str, &'a str)>,
}

impl<'a> From<&'a StoredThreatEvent> for ThreatEvent<'a> {
    /// Its fields are those its rule keeps, and its columns by their names.
    fn from(event: &'a StoredThreatEvent) -> Self {
        let kept = event.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let columns = [
            ("host_name", event.host_name.as_deref()),
            ("user_name", event.user_name.as_deref()),
            ("src_ip", event.src_ip.as_deref()),
            ("dst_ip", event.dst_ip.as_deref()),
            ("signature", Some(event.signature.as_str())),
        ];
        let columns = columns.into_iter().filter_map(|(name, value)| Some((name, value?)));
        Self {
            tenant: event.tenant,
            id: event.id,
            rule: event.rule(),
            time: event.detected_at,
            arrival: event.ingested_at,
            severity: event.severity_id,
            host: event.host_name.as_deref(),
            fields: kept.chain(columns).collect(),
        }
    }
}

/// Settings of a correlator. Lengths of time are in microseconds.
#[derive(Debug, Clone)]
pub struct Options {
    /// A time further beyond its arrival is replaced by the arrival.
    pub max_skew: i64,
    /// How long after a window's end its events may arrive, for rules that are decided once.
    pub allowed_lateness: i64,
    /// Threat events of one rule and host further apart than this are different alerts.
    pub gap: i64,
    /// Threat events of this OCSF severity or more have alerts of their own.
    pub alert_severity: i16,
    /// Groups a tenant may have.
    pub max_groups: usize,
    /// Events a tenant may have in its groups, counted in each.
    pub max_entries: usize,
    /// What groups, events and live alerts of all tenants may take, in bytes; beyond it those who have most have
    /// less.
    pub max_bytes: usize,
    /// Tenants that differ.
    pub tenants: HashMap<TenantId, TenantOptions>,
}

/// Where a tenant differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantOptions {
    /// Its own [`Options::alert_severity`].
    pub alert_severity: Option<i16>,
    /// The ids of correlations it has switched off.
    pub off: HashSet<String>,
}

const MINUTE: i64 = 60_000_000;

impl Default for Options {
    /// Ten minutes of skew, of lateness one hour as most agents buffer no longer, a gap of one hour, alerts
    /// from `high`; a hundred thousand groups and a million entries are about 100 MB without alerts, and all
    /// tenants together may have more than twice that.
    fn default() -> Self {
        Self {
            max_skew: 10 * MINUTE,
            allowed_lateness: 60 * MINUTE,
            gap: 60 * MINUTE,
            alert_severity: 4,
            max_groups: 100_000,
            max_entries: 1_000_000,
            max_bytes: 256 << 20,
            tenants: HashMap::new(),
        }
    }
}

/// What all episodes of a group have in common. Shared, because a flood makes a change for every event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Whose they are.
    pub tenant: TenantId,
    /// The correlation's id, or the rule or signature whose events are grouped.
    pub rule: String,
    /// The correlation's revision.
    pub revision: Option<String>,
    /// Whether they are of a correlation, not of a rule's own alerts.
    pub correlation: bool,
    /// What they are grouped by, with values folded to lower case; for a rule's own alerts `host`.
    pub group: Vec<(String, String)>,
}

/// An episode without its members.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Summary {
    /// Whose it is, and of what.
    pub of: Arc<Identity>,
    /// The time of its first member.
    pub first_seen: i64,
    /// The time of its last member.
    pub last_seen: i64,
    /// How many members it has.
    pub count: usize,
}

/// An episode: what one alert is made of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Episode {
    /// What and when.
    pub summary: Summary,
    /// The ids of its threat events by time, then id.
    pub members: Vec<Uuid>,
    /// What its changes call it. Only of meaning to the correlator that gave it.
    pub number: u64,
}

/// What happened to an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Opened,
    /// It has more members.
    Grown,
    /// It took in others: the one with the earliest member survives.
    Merged,
    /// It lost members: a correlation it builds on changed.
    Shrunk,
    /// It isn't satisfied any more: a correlation it builds on changed.
    Withdrawn,
    /// All of it is beyond the horizon or the tenant's limits: it is as it is and won't change again.
    Settled,
}

/// A change of an episode, with members as differences: an episode of a million events must not be
/// copied for each event that joins it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Which episode: the same for all its changes.
    pub number: u64,
    /// The episode from now on, as far as it is within the horizon; its last state if it is gone.
    pub summary: Summary,
    /// Members that neither it nor what it absorbed had. What the horizon took from a chain may come back
    /// with what still counts, so adding a member again must change nothing.
    pub added: Vec<Uuid>,
    /// Members it has no more; only if it shrunk or is withdrawn. What the horizon passes is not removed.
    pub removed: Vec<Uuid>,
    /// The numbers of episodes it took in with their members, which are used no more.
    pub absorbed: Vec<u64>,
}

/// What was dropped, since the correlator began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Events that arrived before the horizon.
    pub late: u64,
    /// Events whose time was replaced by their arrival.
    pub future: u64,
    /// State dropped because its tenant was beyond its limits.
    pub evicted: BTreeMap<TenantId, Evicted>,
}

/// State dropped for one tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Groups.
    pub groups: u64,
    /// Events in groups.
    pub entries: u64,
}
