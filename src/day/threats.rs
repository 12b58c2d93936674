//! Detections of another producer, in inosec's own message for them.

use super::clock::Stamp;
use super::random::Random;
use super::world::{Host, Network};
use super::write::Object;
use super::{Fate, Feed, Message};

/// What endpoint protection finds on an ordinary day: signature, severity.
const EVERYDAY: &[(&str, &str)] = &[
    ("Unwanted program quarantined", "low"),
    ("Macro document from the internet opened", "low"),
    ("Sign-in from a new country", "medium"),
    ("Unsigned driver blocked", "medium"),
    ("Repeated failed sign-ins for one account", "medium"),
    ("Credential prompt by an unusual program", "medium"),
];

/// A detection of an ordinary day.
pub fn everyday(network: &Network, at: Stamp, random: &mut Random) -> Message {
    let (signature, severity) = *random.one(EVERYDAY);
    let host = random.one(&network.hosts);
    detection(network, host, at, random, (signature, severity), "T1204")
}

/// One detection.
pub fn detection(
    network: &Network,
    host: &Host,
    at: Stamp,
    random: &mut Random,
    (signature, severity): (&str, &str),
    technique: &str,
) -> Message {
    let mut payload = Vec::with_capacity(512);
    let mut message = Object::open(&mut payload);
    message.text("id", &random.uuid().to_string()).text("tenant_id", &network.tenant.id.to_string());
    message.text("signature", signature).text("severity", severity);
    message.time("detected_at", &at, Stamp::rfc3339);
    message.object("payload", |inner| {
        inner.text("producer", "endpoint-protection").text("host", &host.fqdn);
        inner.text("user", &host.user).text("technique", technique);
        inner.text("address", &host.address).number("score", random.between(30, 99));
    });
    message.close();
    let tenant = Some(network.tenant.id);
    Message { at_us: at.us, feed: Feed::ThreatEvents, tenant, fate: Fate::Row, payload }
}
