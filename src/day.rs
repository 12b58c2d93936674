//! A believable day of security telemetry, made from a seed: ordinary office traffic of several
//! tenants in every wire format, an intrusion told by ordinary events, detections of a foreign
//! producer (some sent twice), and messages that can't be stored.
//!
//! In: [`Options`]. Out: [`Message`]s in the order of the day. The same options give the same bytes,
//! on any machine. Shapes, field types, sizes and proportions follow the public collections in the
//! corpus; the texts are our own and the addresses are reserved for documentation (RFC 5737).
//! Used by `inosec demo` and by the benchmarks: 2 to 3 µs a message.

mod clock;
mod cloud;
mod intrusion;
mod lines;
mod network;
pub(crate) mod random;
mod security;
mod sysmon;
mod threats;
mod trouble;
mod vocabulary;
mod windows;
mod world;
mod write;

use uuid::Uuid;

use clock::{Stamp, at_share};
use random::Random;
use windows::{Event, Kind};
use world::{Collector, Host, Network, Role, World};
use write::{Fields, Object, escape};

/// What the day is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Decides everything that is left open here.
    pub seed: u64,
    /// How many tenants there are; the first is the largest.
    pub tenants: usize,
    /// Hosts per tenant; at least one of every role of [`Mix`].
    pub hosts: usize,
    /// About how many messages to make.
    pub events: u64,
    /// Midnight (UTC) with which the day begins, in microseconds since 1970.
    pub start_us: i64,
    /// How often each source writes.
    pub mix: Mix,
    /// How many in a thousand messages are detections of the foreign producer.
    pub threats: usize,
    /// Whether the first tenant is broken into.
    pub intrusion: bool,
    /// Whether there are messages that can't be stored, and how bad they are.
    pub trouble: Option<Trouble>,
}

impl Options {
    /// A day of three tenants with everything in it.
    #[must_use]
    pub fn new(seed: u64, events: u64, start_us: i64) -> Self {
        Self {
            seed,
            tenants: 3,
            hosts: 40,
            events,
            start_us,
            mix: Mix::default(),
            threats: 4,
            intrusion: true,
            trouble: Some(Trouble::default()),
        }
    }
}

/// How often each source writes, relative to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// Windows by NXLog.
    pub nxlog: u32,
    /// Windows by event forwarding.
    pub wef: u32,
    /// Windows by Winlogbeat.
    pub beats: u32,
    /// Windows logs as JSON.
    pub evtx: u32,
    /// Syslog lines.
    pub syslog: u32,
    /// Lines of the Linux audit log.
    pub auditd: u32,
    /// CloudTrail.
    pub cloudtrail: u32,
    /// Suricata.
    pub eve: u32,
}

impl Default for Mix {
    /// The corpus' proportions, the rare sources a little more often so that a short day has them.
    fn default() -> Self {
        Self { nxlog: 470, wef: 380, beats: 20, evtx: 35, syslog: 25, auditd: 10, cloudtrail: 10, eve: 50 }
    }
}

impl Mix {
    fn weights(&self) -> [(u32, usize); world::ROLES] {
        let shares = [
            self.nxlog,
            self.wef,
            self.beats,
            self.evtx,
            self.syslog,
            self.auditd,
            self.cloudtrail,
            self.eve,
        ];
        let mut weights = [(0, 0); world::ROLES];
        for (at, share) in shares.into_iter().enumerate() {
            weights[at] = (share, at);
        }
        weights
    }
}

/// How bad the bad messages are; must exceed the limits of whoever is to reject them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// Bytes of a message that is too large.
    pub bytes: usize,
    /// Depth of a message that is nested too deeply.
    pub depth: usize,
}

impl Default for Trouble {
    fn default() -> Self {
        Self { bytes: 1_200_000, depth: 400 }
    }
}

/// A tenant of the day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id, which the seed decides.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// Which topic a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// What agents and sensors report; the tenant travels beside the message.
    AgentLogs,
    /// What another producer detected; the tenant stands in the message.
    ThreatEvents,
}

/// What becomes of a message, as far as its maker can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It becomes a row.
    Row,
    /// It becomes a row, and because it is a detection itself also a threat event.
    RowAndThreat,
    /// Its id was sent before: it is dropped.
    Duplicate,
    /// It can't be stored: it becomes a dead letter.
    DeadLetter,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// When it happens, in microseconds since 1970.
    pub at_us: i64,
    /// Where it goes.
    pub feed: Feed,
    /// Whose it is; `None` if nobody says.
    pub tenant: Option<Uuid>,
    /// What becomes of it.
    pub fate: Fate,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// One event in the making.
struct Scene<'a> {
    world: &'a World,
    network: &'a Network,
    host: &'a Host,
    at: Stamp,
    random: &'a mut Random,
    fields: &'a mut Fields,
}

/// Makes one kind of Windows event: adds its fields and says what kind it is.
type Windows = fn(&mut Scene<'_>) -> &'static Kind;

/// How often Windows hosts report what (measured on the corpus, rounded).
const WINDOWS: &[(u32, Windows)] = &[
    (320, sysmon::process_access),
    (140, sysmon::registry_key),
    (110, sysmon::image_load),
    (64, sysmon::registry_value),
    (50, security::handle_closed),
    (45, security::connection),
    (40, sysmon::network),
    (54, security::pipeline_classic),
    (54, security::pipeline),
    (30, sysmon::file_create),
    (30, security::handle),
    (26, sysmon::process_create),
    (25, sysmon::dns),
    (20, security::object_access),
    (16, security::process),
    (14, security::logon),
    (8, security::logoff),
    (8, security::share),
    (5, security::script),
    (5, security::privileges),
];

/// The day's messages in order.
pub struct Day {
    world: World,
    random: Random,
    fields: Fields,
    start_us: i64,
    weights: [(u32, usize); world::ROLES],
    /// Cumulative shares of the tenants.
    sizes: Vec<(u32, usize)>,
    threats: usize,
    last_threat: Option<Message>,
    /// Intrusion and trouble, latest first.
    scripted: Vec<Message>,
    made: u64,
    ordinary: u64,
    upcoming: Option<Message>,
}

impl Day {
    /// The day of these options.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let world = World::new(options);
        let mut random = Random::new(options.seed);
        let mut scripted = Vec::new();
        if options.intrusion {
            scripted.extend(intrusion::tell(&world, &mut random, options.start_us));
        }
        if let Some(trouble) = options.trouble {
            scripted.extend(trouble::make(&world, &mut random, options.start_us, trouble, options.events));
        }
        scripted.sort_by_key(|message| std::cmp::Reverse(message.at_us));
        let size = |at: usize| ((6000.0 / (at as f64 + 1.0).powf(0.7)) as u32, at);
        let ordinary = options.events.saturating_sub(scripted.len() as u64);
        let mut day = Self {
            sizes: (0..world.networks.len()).map(size).collect(),
            world,
            random,
            fields: Fields::default(),
            start_us: options.start_us,
            weights: options.mix.weights(),
            threats: options.threats,
            last_threat: None,
            scripted,
            made: 0,
            ordinary,
            upcoming: None,
        };
        day.upcoming = day.ordinary();
        day
    }

    /// The tenants, which must be known to whoever is to store their events.
    pub fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.world.networks.iter().map(|network| &network.tenant)
    }

    /// The next message of ordinary traffic.
    fn ordinary(&mut self) -> Option<Message> {
        if self.made == self.ordinary {
            return None;
        }
        let share = (self.made as f64 + self.random.fraction()) / self.ordinary as f64;
        self.made += 1;
        let at = Stamp::new(self.start_us + at_share(share));
        let tenant = *self.random.weighted(&self.sizes);
        let network = &self.world.networks[tenant];
        if self.random.per_mille(self.threats) {
            return Some(self.threat(tenant, at));
        }
        let role = *self.random.weighted(&self.weights);
        let host = network.host(role, &mut self.random);
        self.fields.clear();
        let (world, random, fields) = (&self.world, &mut self.random, &mut self.fields);
        Some(report(&mut Scene { world, network, host, at, random, fields }))
    }

    /// A detection of the foreign producer; one in eight comes a second time.
    fn threat(&mut self, tenant: usize, at: Stamp) -> Message {
        if self.random.below(8) == 0
            && let Some(mut again) = self.last_threat.take()
        {
            again.at_us = at.us;
            again.fate = Fate::Duplicate;
            return again;
        }
        let message = threats::everyday(&self.world.networks[tenant], at, &mut self.random);
        self.last_threat = Some(message.clone());
        message
    }
}

impl Iterator for Day {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let scripted_first = match (self.scripted.last(), &self.upcoming) {
            (Some(scripted), Some(upcoming)) => scripted.at_us < upcoming.at_us,
            (scripted, _) => scripted.is_some(),
        };
        if scripted_first {
            return self.scripted.pop();
        }
        let next = self.ordinary();
        std::mem::replace(&mut self.upcoming, next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let ordinary = (self.ordinary - self.made) as usize + usize::from(self.upcoming.is_some());
        let left = ordinary + self.scripted.len();
        (left, Some(left))
    }
}

impl ExactSizeIterator for Day {}

/// What the scene's host reports at its time.
fn report(scene: &mut Scene<'_>) -> Message {
    let mut fate = Fate::Row;
    let payload = match scene.host.role {
        Role::Windows(collector) => {
            let kind = (scene.random.weighted(WINDOWS))(scene);
            windows_record(scene, collector, kind)
        }
        Role::Syslog => text(scene, "syslog-3164", lines::syslog),
        Role::Auditd => text(scene, "auditd", lines::auditd),
        Role::Cloud => json(scene, "cloudtrail", cloud::cloudtrail),
        Role::Sensor => json(scene, "eve", |scene, out| {
            if network::everyday(scene, out) {
                fate = Fate::RowAndThreat;
            }
        }),
    };
    sent(scene, fate, payload)
}

/// A message to the agents' topic.
fn sent(scene: &Scene<'_>, fate: Fate, payload: Vec<u8>) -> Message {
    let tenant = Some(scene.network.tenant.id);
    Message { at_us: scene.at.us, feed: Feed::AgentLogs, tenant, fate, payload }
}

/// A Windows event whose fields the scene holds.
fn windows_record(scene: &mut Scene<'_>, collector: Collector, kind: &'static Kind) -> Vec<u8> {
    let format = match collector {
        Collector::Nxlog => "winlog-nxlog",
        Collector::Wef => "winlog-wef",
        Collector::Beats => "winlog-beats6",
        Collector::Evtx => "evtx-json",
    };
    json(scene, format, |scene, out| {
        let Scene { host, at, .. } = *scene;
        Event { host, at, kind, fields: scene.fields }.write(collector, scene.random, out);
    })
}

/// A JSON record, in the envelope if the host's agent uses it.
fn json(scene: &mut Scene<'_>, format: &str, write: impl FnOnce(&mut Scene<'_>, &mut Vec<u8>)) -> Vec<u8> {
    let mut payload = Vec::with_capacity(3072);
    if scene.host.envelope {
        let mut envelope = envelope(scene, format, &mut payload);
        write(scene, envelope.key("event"));
        envelope.close();
    } else {
        write(scene, &mut payload);
    }
    payload
}

/// A line of text, likewise.
fn text(scene: &mut Scene<'_>, format: &str, write: impl FnOnce(&mut Scene<'_>, &mut Vec<u8>)) -> Vec<u8> {
    let mut line = Vec::with_capacity(256);
    write(scene, &mut line);
    if !scene.host.envelope {
        return line;
    }
    let mut payload = Vec::with_capacity(512);
    let mut envelope = envelope(scene, format, &mut payload);
    envelope.quoted("raw", |out| escape(out, &String::from_utf8_lossy(&line)));
    envelope.close();
    payload
}

fn envelope<'a>(scene: &Scene<'_>, format: &str, out: &'a mut Vec<u8>) -> Object<'a> {
    let mut envelope = Object::open(out);
    envelope.text("host", &scene.host.fqdn).time("ts", &scene.at, Stamp::rfc3339_millis);
    if scene.host.names_format {
        envelope.text("format", format);
    }
    envelope.text("agent", "fleet/4.2.1").text("site", &scene.network.dns);
    envelope
}

#[cfg(test)]
mod tests;
