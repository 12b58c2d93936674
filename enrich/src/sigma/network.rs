//! Blocks of addresses: CIDR notation in, whether an address is inside out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// Address and mask.
    V4(u32, u32),
    /// Address and mask.
    V6(u128, u128),
}

impl Network {
    /// Reads `address/bits`, or one address.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
            None => (text, None),
        };
        match address.parse().ok()? {
            IpAddr::V4(address) => {
                let mask = mask(bits.unwrap_or(32), 32)?;
                let mask = u32::try_from(mask >> 96).ok()?;
                Some(Self::V4(u32::from(address) & mask, mask))
            }
            IpAddr::V6(address) => {
                let mask = mask(bits.unwrap_or(128), 128)?;
                Some(Self::V6(u128::from(address) & mask, mask))
            }
        }
    }

    /// Whether the address lies inside. An IPv4 address written as IPv6 (`::ffff:1.2.3.4`) also counts
    /// as the IPv4 address it is.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::V4(network, mask), IpAddr::V4(address)) => u32::from(address) & mask == network,
            (Self::V6(network, mask), IpAddr::V6(address)) => u128::from(address) & mask == network,
            (Self::V4(..), IpAddr::V6(address)) => {
                address.to_ipv4_mapped().is_some_and(|address: Ipv4Addr| self.contains(address.into()))
            }
            (Self::V6(..), IpAddr::V4(_)) => false,
        }
    }
}

/// The address a value is, brackets and zone removed.
pub fn address(text: &str) -> Option<IpAddr> {
    if !text.as_bytes().first().is_some_and(|first| first.is_ascii_hexdigit() || matches!(first, b':' | b'['))
    {
        return None;
    }
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let inner = inner.split_once('%').map_or(inner, |(address, _)| address);
    inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// The leading `bits` of `width`, at the top of 128.
fn mask(bits: u32, width: u32) -> Option<u128> {
    match bits {
        0 => Some(0),
        bits if bits <= width => Some(u128::MAX << (128 - bits)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_their_addresses() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("fe80::/10", "fe80::1%eth0", true),
            ("::1/128", "[::1]", true),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("fc00::/7", "10.0.0.1", false),
        ];
        for (block, value, expected) in cases {
            let inside = Network::parse(block).unwrap().contains(address(value).unwrap());
            assert_eq!(inside, expected, "{block} {value}");
        }
        assert_eq!(Network::parse("10.0.0.0/33"), None);
        assert_eq!(address("host"), None);
    }
}
