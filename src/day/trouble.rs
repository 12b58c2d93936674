//! Messages that can't be stored, so that it can be seen what becomes of them.

use super::clock::{Stamp, at_share};
use super::random::Random;
use super::world::{Host, Network, World};
use super::write::Fields;
use super::{Fate, Feed, Message, Scene, Trouble, report};

/// Per this many messages of the day there is one of each small kind.
const ONE_IN: u64 = 6000;

/// Bad messages spread over the day: a few of each small kind, one each of the large.
pub fn make(
    world: &World,
    random: &mut Random,
    start_us: i64,
    trouble: Trouble,
    events: u64,
) -> Vec<Message> {
    let mut bad = Vec::new();
    for _ in 0..(events / ONE_IN).clamp(1, 50) {
        for break_it in [truncated, unknown_tenant, nobodys, empty, without_signature] {
            let mut message = sound(world, random, start_us);
            break_it(&mut message, random);
            bad.push(message);
        }
    }
    for payload in [deep(trouble.depth), large(trouble.bytes)] {
        bad.push(Message { payload, ..sound(world, random, start_us) });
    }
    for message in &mut bad {
        message.fate = Fate::DeadLetter;
    }
    bad
}

/// A message of some Windows host that nothing is wrong with yet.
fn sound(world: &World, random: &mut Random, start_us: i64) -> Message {
    let network: &Network = random.one(&world.networks);
    let host: &Host = network.host(1, random);
    let at = Stamp::new(start_us + at_share(random.fraction()));
    report(&mut Scene { world, network, host, at, random, fields: &mut Fields::default() })
}

/// An agent that died while it wrote.
fn truncated(message: &mut Message, random: &mut Random) {
    let length = message.payload.len();
    message.payload.truncate(random.between(length as u64 / 3, length as u64 - 1) as usize);
}

/// A tenant nobody added.
fn unknown_tenant(message: &mut Message, random: &mut Random) {
    message.tenant = Some(random.uuid());
}

/// No tenant at all.
fn nobodys(message: &mut Message, _: &mut Random) {
    message.tenant = None;
}

/// Nothing in it.
fn empty(message: &mut Message, _: &mut Random) {
    message.payload.clear();
}

/// A detection that doesn't say what was detected.
fn without_signature(message: &mut Message, random: &mut Random) {
    let tenant = message.tenant.unwrap_or_default();
    let id = random.uuid();
    message.feed = Feed::ThreatEvents;
    message.payload = format!(
        r#"{{"id":"{id}","tenant_id":"{tenant}","severity":"high","detected_at":"2026-01-01T00:00:00Z","payload":{{}}}}"#
    )
    .into_bytes();
}

/// Arrays in arrays.
fn deep(depth: usize) -> Vec<u8> {
    format!(r#"{{"host":"probe","event":{{"nested":{}1{}}}}}"#, "[".repeat(depth), "]".repeat(depth))
        .into_bytes()
}

/// One enormous value.
fn large(bytes: usize) -> Vec<u8> {
    format!(r#"{{"host":"probe","event":{{"dump":"{}"}}}}"#, "0123456789abcdef".repeat(bytes.div_ceil(16)))
        .into_bytes()
}
