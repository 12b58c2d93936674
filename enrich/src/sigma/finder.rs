//! Many literals in one text: every occurrence of each.
//!
//! A short literal is known by one piece of itself, a gram of up to three bytes, chosen so that few texts
//! and few other literals have it; a longer one by four grams in a row, so that it is enough to look at
//! every fourth position of a text. A bitmap that fits the first-level cache says whether any literal is
//! known by the gram at a position, which is rarely so, and only then are literals compared. Unlike in an
//! automaton no step waits for the one before: measured on long PowerShell texts this takes a third of
//! Aho-Corasick's time.

use hashbrown::HashMap;

/// Longest gram.
const WIDEST: usize = 4;

/// Long literals are known by this many grams in a row, of which every occurrence has one at a multiple
/// of it.
const STRIDE: usize = 4;

/// The upper bits of a product are mixed best.
const HASH_SHIFT: u32 = 14;

/// Bits of bitmap for each literal: one position in so many is compared in vain.
const BITS_EACH: usize = 32;

/// Literals and what is to be done on an occurrence of each.
#[derive(Debug)]
pub struct Finder<T> {
    sets: Vec<GramSet>,
    text: Vec<u8>,
    actions: Vec<Box<[T]>>,
}

/// Literals whose grams are of one width.
#[derive(Debug)]
struct GramSet {
    width: usize,
    /// Positions from one look to the next.
    stride: usize,
    mask: u32,
    /// Takes as many bits of a hash as `bitmap` has places.
    bit_mask: u32,
    bitmap: Vec<u64>,
    /// Candidates by the hash: `candidates[slots[n]..slots[n + 1]]`.
    slots: Vec<u32>,
    candidates: Vec<Candidate>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    hash: u32,
    /// Place in [`Finder::text`].
    start: u32,
    length: u32,
    /// Where its gram stands in it.
    offset: u32,
    literal: u32,
}

impl<T> Default for Finder<T> {
    fn default() -> Self {
        Self { sets: Vec::new(), text: Vec::new(), actions: Vec::new() }
    }
}

impl<T: Copy> Finder<T> {
    /// From literals and their actions; literals may repeat, but none is empty.
    pub fn new(literals: Vec<(String, T)>) -> Self {
        let mut by_text: HashMap<String, Vec<T>> = HashMap::new();
        for (text, action) in literals {
            by_text.entry(text).or_default().push(action);
        }
        let mut literals: Vec<(String, Vec<T>)> = by_text.into_iter().collect();
        literals.sort_by(|one, two| one.0.cmp(&two.0));
        let mut finder = Self::default();
        let mut sets: [Vec<Candidate>; WIDEST + 1] = Default::default();
        let rarity = Rarity::new(literals.iter().map(|(text, _)| text.as_bytes()));
        for (text, actions) in literals {
            let bytes = text.as_bytes();
            let (width, stride) = shape(bytes.len());
            let first = rarity.rarest(bytes, width + stride - 1);
            let set = if stride > 1 { WIDEST } else { width - 1 };
            for offset in first..first + stride {
                sets[set].push(Candidate {
                    hash: hash(gram(&bytes[offset..], width)),
                    start: narrow(finder.text.len()),
                    length: narrow(bytes.len()),
                    offset: narrow(offset),
                    literal: narrow(finder.actions.len()),
                });
            }
            finder.text.extend_from_slice(bytes);
            finder.actions.push(actions.into_boxed_slice());
        }
        for (set, candidates) in sets.into_iter().enumerate().filter(|(_, candidates)| !candidates.is_empty())
        {
            let (width, stride) = if set == WIDEST { (WIDEST, STRIDE) } else { (set + 1, 1) };
            finder.sets.push(GramSet::new(width, stride, candidates));
        }
        finder
    }

    /// The bytes of the shortest literal; as many as can be if there is none.
    pub fn shortest(&self) -> usize {
        let lengths =
            self.sets.iter().flat_map(|set| &set.candidates).map(|candidate| candidate.length as usize);
        lengths.min().unwrap_or(usize::MAX)
    }

    /// Calls `found` with the actions of every occurrence.
    pub fn find(&self, text: &[u8], mut found: impl FnMut(T)) {
        for set in &self.sets {
            set.find(text, |hash, position| self.compare(set.candidates(hash), text, position, &mut found));
        }
    }

    /// Compares the literals that may stand here; kept out of the loop over positions.
    #[cold]
    #[inline(never)]
    fn compare(&self, candidates: &[Candidate], text: &[u8], position: usize, found: &mut impl FnMut(T)) {
        for candidate in candidates {
            let Some(start) = position.checked_sub(candidate.offset as usize) else { continue };
            let literal = &self.text[candidate.start as usize..][..candidate.length as usize];
            if text[start..].starts_with(literal) {
                self.actions[candidate.literal as usize].iter().for_each(|action| found(*action));
            }
        }
    }
}

impl GramSet {
    fn new(width: usize, stride: usize, mut candidates: Vec<Candidate>) -> Self {
        let bits = (candidates.len() * BITS_EACH).next_power_of_two().clamp(1 << 10, 1 << 18);
        let slots = candidates.len().next_power_of_two();
        let bit_mask = narrow(bits - 1);
        let mut bitmap = vec![0u64; bits / 64];
        for candidate in &candidates {
            let bit = bit(candidate.hash, bit_mask);
            bitmap[bit / 64] |= 1 << (bit % 64);
        }
        let slot = |hash: u32| hash as usize >> HASH_SHIFT & (slots - 1);
        candidates.sort_by_key(|candidate| slot(candidate.hash));
        let starts =
            (0..=slots).map(|n| narrow(candidates.partition_point(|one| slot(one.hash) < n))).collect();
        let mask = u32::MAX >> (8 * (WIDEST - width));
        Self { width, stride, mask, bit_mask, bitmap, slots: starts, candidates }
    }

    /// Calls `compare` with the hash and position of every gram that may belong to a literal.
    #[inline(always)]
    fn find(&self, text: &[u8], mut compare: impl FnMut(u32, usize)) {
        let (mask, bit_mask, bitmap) = (self.mask, self.bit_mask, self.bitmap.as_slice());
        let known = |hash: u32| {
            let bit = bit(hash, bit_mask);
            bitmap[bit / 64] >> (bit % 64) & 1 == 1
        };
        if self.stride == STRIDE {
            for (index, gram) in text.as_chunks::<STRIDE>().0.iter().enumerate() {
                let hash = hash(u32::from_le_bytes(*gram));
                if known(hash) {
                    compare(hash, index * STRIDE);
                }
            }
            return;
        }
        for (position, window) in text.windows(WIDEST).enumerate() {
            let hash = hash(u32::from_le_bytes([window[0], window[1], window[2], window[3]]) & mask);
            if known(hash) {
                compare(hash, position);
            }
        }
        let first = text.len().saturating_sub(WIDEST - 1);
        for position in first..(text.len() + 1).saturating_sub(self.width) {
            let hash = hash(gram(&text[position..], self.width));
            if known(hash) {
                compare(hash, position);
            }
        }
    }

    fn candidates(&self, hash: u32) -> &[Candidate] {
        let slot = hash as usize >> HASH_SHIFT & (self.slots.len() - 2);
        &self.candidates[self.slots[slot] as usize..self.slots[slot + 1] as usize]
    }
}

/// A hash's place in a bitmap.
#[inline(always)]
fn bit(hash: u32, mask: u32) -> usize {
    (hash >> HASH_SHIFT & mask) as usize
}

/// How wide a literal's grams are, and how many of them it is known by. Those of three to six bytes share
/// one width, so that one pass finds them all.
fn shape(length: usize) -> (usize, usize) {
    match length {
        0..3 => (length, 1),
        3..7 => (3, 1),
        _ => (WIDEST, STRIDE),
    }
}

/// The first bytes as one number.
fn gram(bytes: &[u8], width: usize) -> u32 {
    bytes.iter().take(width).rev().fold(0, |gram, byte| gram << 8 | u32::from(*byte))
}

#[inline(always)]
fn hash(gram: u32) -> u32 {
    gram.wrapping_mul(0x9E37_79B1)
}

/// How common grams are: in the literals themselves, and by their letters.
struct Rarity {
    grams: HashMap<u32, u32, foldhash::fast::RandomState>,
}

impl Rarity {
    fn new<'a>(literals: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut grams = HashMap::default();
        for window in literals.flat_map(|literal| literal.windows(WIDEST)) {
            *grams.entry(gram(window, WIDEST)).or_insert(0) += 1;
        }
        Self { grams }
    }

    /// Where the rarest so many bytes of a literal stand.
    fn rarest(&self, literal: &[u8], length: usize) -> usize {
        let cost = |bytes: &[u8]| {
            let literals = self.grams.get(&gram(bytes, WIDEST)).copied().unwrap_or(0);
            literals * 4 + bytes.iter().map(|byte| commonness(*byte)).sum::<u32>()
        };
        let total = |piece: &[u8]| piece.windows(WIDEST.min(length)).map(cost).sum::<u32>();
        let pieces = literal.windows(length).enumerate();
        pieces.min_by_key(|(_, piece)| total(piece)).map_or(0, |(offset, _)| offset)
    }
}

/// How common a byte is in command lines, paths and scripts, roughly.
fn commonness(byte: u8) -> u32 {
    match byte {
        b' ' | b'e' | b't' | b'i' | b's' | b'o' | b'n' | b'r' | b'a' => 8,
        b'\\' | b'.' | b'c' | b'm' | b'd' | b'l' | b'p' | b'u' | b'0' => 6,
        b'w' | b'h' | b'y' | b'f' | b'g' | b'v' | b'b' | b'x' | b'-' | b'=' | b'1'..=b'9' | b':' => 4,
        b'\0'..=b'\x1F' | b'\x7F'..=b'\xFF' => 2,
        _ => 1,
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("fewer than 2^32 bytes of literals")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_occurrence_is_found() {
        let literals = ["a", "ab", "abc", "powershell", "owershe", "hell-enc", "owers", "ell", "-enc ", "é"];
        let finder = Finder::new(literals.iter().map(|text| ((*text).to_owned(), *text)).collect());
        for text in [
            "",
            "a",
            "xab",
            "abc",
            "powershell -enc abcell",
            "powershell-enc",
            "xpowershell-enc ",
            "xxpowershellpowershell-enc",
            "xxxowershel",
            "é",
            "ppowershellpowershell",
            "el",
            "l",
        ] {
            let (mut found, mut expected) = (Vec::new(), Vec::new());
            finder.find(text.as_bytes(), |literal| found.push(literal));
            for literal in literals {
                expected.extend(
                    (0..text.len())
                        .filter(|at| text.as_bytes()[*at..].starts_with(literal.as_bytes()))
                        .map(|_| literal),
                );
            }
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn generated_literals_are_found_in_generated_texts() {
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..2000 {
            let mut text = |longest: usize, least: usize| -> String {
                let length = least + next(longest);
                (0..length).map(|_| ["a", "b", "é"][next(3)]).collect()
            };
            let literals: Vec<String> = (0..6).map(|_| text(9, 1)).collect();
            let finder =
                Finder::new(literals.iter().map(|literal| (literal.clone(), literal.len())).collect());
            for _ in 0..5 {
                let text = text(40, 0);
                let (mut found, mut expected) = (Vec::new(), Vec::new());
                finder.find(text.as_bytes(), |length| found.push(length));
                for literal in &literals {
                    let places =
                        (0..text.len()).filter(|at| text.as_bytes()[*at..].starts_with(literal.as_bytes()));
                    expected.extend(places.map(|_| literal.len()));
                }
                found.sort_unstable();
                expected.sort_unstable();
                assert_eq!(found, expected, "{literals:?} {text}");
            }
        }
    }
}
