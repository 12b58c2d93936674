//! Unicode simple case folding: text in, text with which case no longer tells apart out.
//!
//! Characters that fold together (K, k and the Kelvin sign; Σ, σ and ς) get one representative, the
//! ASCII letter if there is one. One character stays one character, so wildcards count the same.

use std::sync::LazyLock;

use hashbrown::HashMap;
use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

/// Folded characters beyond ASCII; about 2,800 of them.
static TABLE: LazyLock<HashMap<char, char, foldhash::fast::RandomState>> = LazyLock::new(table);

/// Appends the folded text to `into`. One ® among the letters of a file's description must not make the
/// others cost more: runs of ASCII are folded as a whole.
pub fn fold_into(text: &str, into: &mut String) {
    if text.is_ascii() {
        return fold_ascii(text, into);
    }
    let mut rest = text;
    while let Some(run) = rest.bytes().position(|byte| !byte.is_ascii()) {
        let (ascii, other) = rest.split_at(run);
        fold_ascii(ascii, into);
        let mut characters = other.chars();
        into.extend(characters.next().map(fold_char));
        rest = characters.as_str();
    }
    fold_ascii(rest, into);
}

fn fold_ascii(text: &str, into: &mut String) {
    let start = into.len();
    into.push_str(text);
    into[start..].make_ascii_lowercase();
}

/// The folded text.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    fold_into(text, &mut folded);
    folded
}

/// The character's representative.
pub fn fold_char(character: char) -> char {
    if character.is_ascii() {
        return character.to_ascii_lowercase();
    }
    TABLE.get(&character).copied().unwrap_or(character)
}

/// From the character classes by which the regex crate ignores case.
fn table() -> HashMap<char, char, foldhash::fast::RandomState> {
    let mut table = HashMap::default();
    for character in ('\u{80}'..='\u{1FFFF}').filter(|character| has_case(*character)) {
        let mut class = ClassUnicode::new([ClassUnicodeRange::new(character, character)]);
        if class.try_case_fold_simple().is_err() {
            continue;
        }
        let members: Vec<char> = class.iter().flat_map(|range| range.start()..=range.end()).collect();
        let lower = members.iter().find(|member| member.is_ascii_lowercase());
        let Some(representative) = lower.or(members.first()).copied() else { continue };
        table.extend(
            members.into_iter().filter(|member| !member.is_ascii()).map(|member| (member, representative)),
        );
    }
    table
}

fn has_case(character: char) -> bool {
    !character.to_lowercase().eq([character]) || !character.to_uppercase().eq([character])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_gone() {
        assert_eq!(fold("C:\\Windows\\CMD.exe"), "c:\\windows\\cmd.exe");
        assert_eq!(fold("ΣΑΣ"), fold("σας"));
        assert_eq!(fold("\u{212A}elvin"), "kelvin");
        assert_eq!(fold("ſ"), "s");
        assert_eq!(fold("ÄÖÜ"), fold("äöü"));
        assert_ne!(fold("ß"), fold("ss"));
        assert_ne!(fold("İ"), fold("i"));
        assert_eq!(fold("ДОБРО"), fold("добро"));
        assert_eq!(fold("Microsoft® WINDOWS®"), "microsoft® windows®");
        assert_eq!(fold("©ÄX©"), fold("©äx©"));
    }

    #[test]
    fn every_character_folds_like_the_regex_crate() {
        let mut classes: HashMap<char, Vec<char>> = HashMap::new();
        for character in '\0'..=char::MAX {
            let folded = fold_char(character);
            assert_eq!(fold_char(folded), folded);
            if folded != character {
                classes.entry(folded).or_default().push(character);
            }
        }
        for (folded, members) in classes {
            let text: String = members.iter().collect();
            let pattern = format!("(?i)^{}+$", regex_syntax::escape(&folded.to_string()));
            assert!(regex::Regex::new(&pattern).unwrap().is_match(&text), "{folded:?} {members:?}");
        }
    }
}
