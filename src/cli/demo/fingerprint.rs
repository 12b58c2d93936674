//! Whether the bytes that were sent are the bytes that are stored, in whatever order.

use std::hash::{DefaultHasher, Hasher as _};

/// The sum of all messages' hashes. It tells nothing about order, which the road doesn't promise
/// between partitions; that a message is stored once is checked by offset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// Adds a message.
    pub fn add(&mut self, message: &[u8]) {
        let mut hasher = DefaultHasher::new();
        hasher.write(message);
        self.0 = self.0.wrapping_add(hasher.finish());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(messages: &[&[u8]]) -> Fingerprint {
        let mut sum = Fingerprint::default();
        messages.iter().for_each(|message| sum.add(message));
        sum
    }

    #[test]
    fn order_does_not_matter_and_every_byte_does() {
        assert_eq!(of(&[b"a", b"", b"bc"]), of(&[b"bc", b"a", b""]));
        assert_ne!(of(&[b"a", b"bc"]), of(&[b"ab", b"c"]));
        assert_ne!(of(&[b"a", b"a"]), of(&[b"a"]));
    }
}
