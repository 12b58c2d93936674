//! A database as sorted ranges of addresses.

use std::net::IpAddr;

use hashbrown::HashMap;
use maxminddb::{Reader, WithinOptions};

use super::{Error, Subject, record};

/// Every address' value; 0 is none.
#[derive(Debug, Default)]
pub struct Ranges {
    v4: Runs<u32>,
    v6: Runs<u128>,
}

impl Ranges {
    /// Walks the search tree in the order of addresses and decodes every record once.
    pub fn read(reader: &Reader<&[u8]>, subject: Subject) -> Result<Self, Error> {
        let mut ranges = Self::default();
        let mut values: HashMap<usize, u32> = HashMap::new();
        // A tree has one leaf more than nodes; a damaged one may lead round and round, for ages.
        let mut left = u64::from(reader.metadata().node_count) * 2 + 2;
        for network in reader.networks(WithinOptions::default().include_networks_without_data())? {
            left = left.checked_sub(1).ok_or(Error::Tangled)?;
            let network = network?;
            let Some(offset) = network.offset() else { continue };
            let value = match values.get(&offset) {
                Some(value) => *value,
                None => *values.entry(offset).insert(record::value(&network, subject)?).get(),
            };
            let network = network.network()?;
            ranges.add(network.network(), network.broadcast(), value)?;
        }
        ranges.v4.finish();
        ranges.v6.finish();
        Ok(ranges)
    }

    /// Networks in the order of their addresses: first, last and value of each.
    pub fn of(networks: impl IntoIterator<Item = (IpAddr, IpAddr, u32)>) -> Result<Self, Error> {
        let mut ranges = Self::default();
        for (first, last, value) in networks {
            ranges.add(first, last, value)?;
        }
        ranges.v4.finish();
        ranges.v6.finish();
        Ok(ranges)
    }

    fn add(&mut self, first: IpAddr, last: IpAddr, value: u32) -> Result<(), Error> {
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let (first, last) = (first.into(), u32::from(last));
                self.v4.add(first, last, last.checked_add(1), value)
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let (first, last) = (u128::from(first), u128::from(last));
                if first == 0 && last >= u128::from(u32::MAX) {
                    // One record for all of IPv4, which lies at ::/96.
                    self.v4.add(0, u32::MAX, None, value)?;
                }
                self.v6.add(first, last, last.checked_add(1), value)
            }
            _ => Err(Error::Tangled),
        }
    }

    /// The value of an address. An IPv4 address within an IPv6 one has the value of the former, as it
    /// has in MaxMind's own trees: mapped, 6to4 and, by its server, Teredo.
    pub fn find(&self, address: IpAddr) -> u32 {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.find(address.into()),
            IpAddr::V6(address) => {
                let address = u128::from(address);
                match (self.v6.find(address), embedded(address)) {
                    (0, Some(address)) => self.v4.find(address),
                    (value, _) => value,
                }
            }
        }
    }

    /// How many ranges have a value.
    pub fn len(&self) -> usize {
        let told = |values: &[u32]| values.iter().filter(|value| **value != 0).count();
        told(&self.v4.values) + told(&self.v6.values)
    }

    /// Whether no address has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The IPv4 address within an IPv6 one: `::a.b.c.d`, 6to4 (RFC 3056), Teredo (RFC 4380).
fn embedded(address: u128) -> Option<u32> {
    let bits = match address {
        _ if address >> 32 == 0 => address,
        _ if address >> 112 == 0x2002 => address >> 80,
        _ if address >> 96 == 0x2001_0000 => address >> 64,
        _ => return None,
    };
    u32::try_from(bits & u128::from(u32::MAX)).ok()
}

/// Neighbouring networks of equal value as one: where each run begins, and its value.
#[derive(Debug)]
struct Runs<A> {
    starts: Vec<A>,
    values: Vec<u32>,
    /// The first address nothing was said of yet; none behind the last.
    next: Option<A>,
}

impl<A: Default> Default for Runs<A> {
    fn default() -> Self {
        Self { starts: Vec::new(), values: Vec::new(), next: Some(A::default()) }
    }
}

impl<A: Copy + Ord> Runs<A> {
    /// Networks come in the order of their addresses; between them is nothing.
    fn add(&mut self, first: A, last: A, next: Option<A>, value: u32) -> Result<(), Error> {
        match self.next {
            Some(expected) if expected < first => self.push(expected, 0),
            Some(expected) if expected == first && first <= last => {}
            _ => return Err(Error::Tangled),
        }
        self.push(first, value);
        self.next = next;
        Ok(())
    }

    fn push(&mut self, first: A, value: u32) {
        if self.values.last() != Some(&value) {
            self.starts.push(first);
            self.values.push(value);
        }
    }

    fn finish(&mut self) {
        if let Some(next) = self.next.take() {
            self.push(next, 0);
        }
        self.starts.shrink_to_fit();
        self.values.shrink_to_fit();
    }

    fn find(&self, address: A) -> u32 {
        let after = self.starts.partition_point(|start| *start <= address);
        after.checked_sub(1).map_or(0, |run| self.values[run])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_answer_for_what_was_added_and_for_nothing_between() {
        let mut runs = Runs::<u32>::default();
        for (first, last, value) in [(4, 7, 1), (8, 9, 1), (20, 20, 2), (u32::MAX - 1, u32::MAX, 3)] {
            runs.add(first, last, last.checked_add(1), value).expect("in order");
        }
        runs.finish();
        assert_eq!(runs.starts, [0, 4, 10, 20, 21, u32::MAX - 1]);
        let found: Vec<u32> = [0, 3, 4, 9, 10, 19, 20, 21, u32::MAX].map(|at| runs.find(at)).into();
        assert_eq!(found, [0, 0, 1, 1, 0, 0, 2, 0, 3]);
    }

    #[test]
    fn networks_out_of_order_are_refused() {
        let mut runs = Runs::<u32>::default();
        runs.add(4, 7, Some(8), 1).expect("the first");
        assert!(runs.add(7, 9, Some(10), 1).is_err(), "overlapping");
        runs.add(8, u32::MAX, None, 1).expect("the last");
        assert!(runs.add(0, 3, Some(4), 1).is_err(), "behind the last");
    }

    #[test]
    fn ipv4_within_ipv6() {
        let of = |text: &str| embedded(text.parse::<std::net::Ipv6Addr>().expect(text).into());
        assert_eq!(of("::1.2.3.4"), Some(0x0102_0304));
        assert_eq!(of("2002:102:304::1"), Some(0x0102_0304));
        assert_eq!(of("2001:0:102:304::1"), Some(0x0102_0304));
        assert_eq!(of("2001:1:102:304::1"), None);
    }
}
