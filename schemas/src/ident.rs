//! Deterministic identifiers: a redo of the same message gives the same ids.

use uuid::Uuid;

use crate::TenantId;

/// Makes `event_id`s for one topic of one cluster.
///
/// UUIDv8 (RFC 9562 §5.8) laid out so that ids of one partition grow with the offset and
/// neighbours share a prefix, which keeps them small in indexes and in Parquet: 48 bits of
/// partition and topic hash, 12 bits of hash, 14 bits of hash, 48 bits of offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventIds {
    topic: u64,
}

impl EventIds {
    /// `incarnation` is the broker's topic id where it tells one: a re-created topic starts at
    /// offset 0 again and must not repeat the ids of its predecessor.
    #[must_use]
    pub fn new(cluster: &str, topic: &str, incarnation: Option<Uuid>) -> Self {
        let mut hash = Fnv::new();
        hash.part(cluster.as_bytes());
        hash.part(topic.as_bytes());
        hash.part(incarnation.unwrap_or_default().as_bytes());
        Self { topic: hash.finish() }
    }

    /// The id of the message at this place.
    #[must_use]
    pub fn event_id(self, partition: i32, offset: i64) -> Uuid {
        let place = self.topic ^ u64::from(partition.cast_unsigned()).wrapping_mul(GOLDEN);
        let high = place << 16 | (self.topic >> 52 & 0x0fff);
        let low = (self.topic >> 38 & 0x3fff) << 48 | (offset.cast_unsigned() & 0xffff_ffff_ffff);
        version_8(high, low)
    }
}

/// The id of what `rule` says about `event`: the same for every redo, different per tenant.
#[must_use]
pub fn derived_id(tenant: TenantId, rule: &str, event: Uuid) -> Uuid {
    content_id(tenant, rule, event.as_bytes())
}

/// The id of what a message says by `rule`, for one that brings none: the same wherever and however often it
/// arrives, different per tenant.
#[must_use]
pub fn content_id(tenant: TenantId, rule: &str, content: &[u8]) -> Uuid {
    let mut first = Fnv::new();
    first.part(tenant.0.as_bytes());
    first.part(rule.as_bytes());
    let mut second = Fnv(first.finish() ^ GOLDEN);
    first.part(content);
    second.part(content);
    second.part(rule.as_bytes());
    version_8(first.finish(), second.finish())
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn version_8(high: u64, low: u64) -> Uuid {
    let high = high & !0xf000 | 0x8000;
    let low = low & !(0b11 << 62) | 0b10 << 62;
    Uuid::from_u64_pair(high, low)
}

/// FNV-1a with a strong finish. Written out because identifiers outlive library versions.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a part and its length, so that ("ab", "c") and ("a", "bc") differ.
    fn part(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().copied().chain((bytes.len() as u64).to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The 64-bit finaliser of MurmurHash3 (public domain): every input bit reaches every output bit.
    fn finish(&self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ hash >> 33
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_8_distinct_and_repeatable() {
        let ids = EventIds::new("c", "inosec.agent_logs", None);
        let mut seen = std::collections::HashSet::new();
        for partition in 0..64 {
            for offset in 0..500 {
                let id = ids.event_id(partition, offset);
                assert_eq!((id.get_version_num(), id.get_variant()), (8, uuid::Variant::RFC4122));
                assert!(seen.insert(id), "{partition}/{offset} repeats");
            }
        }
        assert_eq!(ids.event_id(3, 7), EventIds::new("c", "inosec.agent_logs", None).event_id(3, 7));
        let other = EventIds::new("c", "inosec.agent_logs", Some(Uuid::from_u128(1)));
        assert_ne!(ids.event_id(3, 7), other.event_id(3, 7));
    }

    #[test]
    fn ids_of_one_partition_grow_with_the_offset() {
        let ids = EventIds::new("c", "t", None);
        assert!(ids.event_id(1, 41) < ids.event_id(1, 42));
    }

    #[test]
    fn a_derived_id_depends_on_every_part() {
        let (tenant, event) = (TenantId(Uuid::from_u128(5)), Uuid::from_u128(6));
        let id = derived_id(tenant, "suricata:1:20", event);
        assert_eq!(id, derived_id(tenant, "suricata:1:20", event));
        assert_ne!(id, derived_id(TenantId(Uuid::from_u128(7)), "suricata:1:20", event));
        assert_ne!(id, derived_id(tenant, "suricata:1:21", event));
        assert_ne!(id, derived_id(tenant, "suricata:1:20", Uuid::from_u128(8)));
    }
}
