//! The encodings of Sigma's modifiers: base64, its three offsets, UTF-16, and dashes of Windows.

/// The dashes that `windash` exchanges.
const DASHES: [char; 5] = ['-', '/', '–', '—', '―'];

/// Dashes of one value that are exchanged: each one makes five times as many alternatives.
pub const MAX_DASHES: usize = 4;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = (word >> (18 - 6 * place)) as usize & 63;
            text.push(if place <= chunk.len() { char::from(ALPHABET[digit]) } else { '=' });
        }
    }
    text
}

/// What of the bytes is sure to appear in base64, wherever they stand in the encoded text: one text
/// for each of the three alignments.
pub fn base64_offsets(bytes: &[u8]) -> [String; 3] {
    [0, 1, 2].map(|offset: usize| {
        let mut shifted = vec![b' '; offset];
        shifted.extend_from_slice(bytes);
        let encoded = base64(&shifted);
        let start = [0, 2, 3][offset];
        let cut = [0, 3, 2][shifted.len() % 3];
        encoded.get(start..encoded.len() - cut).unwrap_or_default().to_owned()
    })
}

/// UTF-16, little end first.
pub fn utf16le(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// UTF-16, big end first.
pub fn utf16be(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// The text with every dash that opens a word (a flag like `-x`) exchanged for every other one, in all
/// combinations; none beyond [`MAX_DASHES`] of them.
pub fn dashes(text: &str) -> Option<Vec<String>> {
    let characters: Vec<char> = text.chars().collect();
    let places: Vec<usize> = (0..characters.len()).filter(|place| opens_word(&characters, *place)).collect();
    if places.len() > MAX_DASHES {
        return None;
    }
    let mut variants = vec![characters];
    for place in places {
        variants = variants
            .into_iter()
            .flat_map(|variant| {
                DASHES.map(|dash| {
                    let mut exchanged = variant.clone();
                    exchanged[place] = dash;
                    exchanged
                })
            })
            .collect();
    }
    Some(variants.into_iter().map(String::from_iter).collect())
}

fn opens_word(characters: &[char], place: usize) -> bool {
    let is_word = |character: &char| character.is_alphanumeric() || *character == '_';
    DASHES.contains(&characters[place])
        && !place.checked_sub(1).is_some_and(|before| is_word(&characters[before]))
        && characters.get(place + 1).is_some_and(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn an_offset_is_found_at_every_alignment() {
        for (length, word) in [(3, "foo"), (4, "IEX "), (5, "https"), (8, "/bin/sh "), (1, "x")] {
            for before in 0..7 {
                let text = format!("{}{word}{}", "#".repeat(before), "~".repeat(length));
                let encoded = base64(text.as_bytes());
                let offset = &base64_offsets(word.as_bytes())[before % 3];
                assert!(encoded.contains(offset.as_str()), "{word} after {before}: {offset} in {encoded}");
            }
        }
    }

    #[test]
    fn dashes_are_exchanged() {
        let variants = dashes(" -a b-c /d").unwrap();
        assert_eq!(variants.len(), 25);
        assert!(variants.contains(&" /a b-c ―d".to_owned()));
        assert_eq!(dashes("plain").unwrap(), ["plain"]);
        assert_eq!(dashes("-a -b -c -d -e"), None);
    }
}
