//! A Sigma string in, literals and wildcards out; and matching them against a value.

/// A piece of a [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Part {
    /// Text as it is.
    Literal(String),
    /// `*`: any text, also none.
    Any,
    /// `?`: exactly one character.
    One,
}

/// A text with wildcards; neighbouring literals are one, and so are neighbouring `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Pattern {
    parts: Vec<Part>,
}

/// What a pattern asks for, as far as plain text comparison answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape<'a> {
    /// `*`
    Anything,
    /// `text`
    Exact(&'a str),
    /// `text*`
    Prefix(&'a str),
    /// `*text`
    Suffix(&'a str),
    /// `*text*`
    Contains(&'a str),
    /// Anything else.
    Glob,
}

impl Pattern {
    /// Reads a string of a rule. A backslash escapes `*`, `?` and itself; before anything else it is
    /// a backslash.
    pub fn parse(text: &str) -> Self {
        let mut pattern = Self::default();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '\\' => {
                    let escaped = characters.next_if(|next| matches!(next, '*' | '?' | '\\'));
                    pattern.push_char(escaped.unwrap_or('\\'));
                }
                '*' => pattern.push(Part::Any),
                '?' => pattern.push(Part::One),
                _ => pattern.push_char(character),
            }
        }
        pattern
    }

    /// A text without wildcards.
    pub fn literal(text: &str) -> Self {
        let mut pattern = Self::default();
        pattern.push(Part::Literal(text.to_owned()));
        pattern
    }

    /// From parts, which are joined where they can be.
    pub fn from_parts(parts: impl IntoIterator<Item = Part>) -> Self {
        let mut pattern = Self::default();
        parts.into_iter().for_each(|part| pattern.push(part));
        pattern
    }

    /// The pieces in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn push_char(&mut self, character: char) {
        if let Some(Part::Literal(text)) = self.parts.last_mut() {
            text.push(character);
        } else {
            self.parts.push(Part::Literal(character.to_string()));
        }
    }

    fn push(&mut self, part: Part) {
        match (self.parts.last_mut(), part) {
            (_, Part::Literal(text)) if text.is_empty() => {}
            (Some(Part::Literal(before)), Part::Literal(text)) => before.push_str(&text),
            (Some(Part::Any), Part::Any) => {}
            (_, part) => self.parts.push(part),
        }
    }

    /// The same with any text allowed before and after it.
    #[must_use]
    pub fn unbound(self, before: bool, after: bool) -> Self {
        let start = before.then_some(Part::Any);
        let end = after.then_some(Part::Any);
        Self::from_parts(start.into_iter().chain(self.parts).chain(end))
    }

    /// The same with every literal changed.
    #[must_use]
    pub fn map(self, change: impl Fn(&str) -> String) -> Self {
        Self::from_parts(self.parts.into_iter().map(|part| match part {
            Part::Literal(text) => Part::Literal(change(&text)),
            other => other,
        }))
    }

    /// The text, if there is no wildcard in it.
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// How it can be compared.
    pub fn shape(&self) -> Shape<'_> {
        match self.parts.as_slice() {
            [] => Shape::Exact(""),
            [Part::Any] => Shape::Anything,
            [Part::Literal(text)] => Shape::Exact(text),
            [Part::Literal(text), Part::Any] => Shape::Prefix(text),
            [Part::Any, Part::Literal(text)] => Shape::Suffix(text),
            [Part::Any, Part::Literal(text), Part::Any] => Shape::Contains(text),
            _ => Shape::Glob,
        }
    }

    /// The longest literal, which every match contains.
    pub fn longest_literal(&self) -> Option<&str> {
        let literals = self.parts.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(text.as_str()),
            Part::Any | Part::One => None,
        });
        literals.max_by_key(|text| text.len())
    }

    /// Whether the whole value matches. Only the last `*` is ever tried again, so the time is at most
    /// the value's length times the pattern's.
    pub fn matches(&self, value: &str) -> bool {
        let (mut part, mut rest) = (0, value);
        let mut retry: Option<(usize, &str)> = None;
        loop {
            let next = match self.parts.get(part) {
                Some(Part::Any) => {
                    retry = Some((part, rest));
                    Some(rest)
                }
                Some(Part::Literal(text)) => rest.strip_prefix(text.as_str()),
                Some(Part::One) => skip_char(rest),
                None if rest.is_empty() => return true,
                None => None,
            };
            if let Some(next) = next {
                rest = next;
                part += 1;
                continue;
            }
            let Some((star, from)) = retry else { return false };
            let Some(from) = skip_char(from) else { return false };
            retry = Some((star, from));
            (part, rest) = (star + 1, from);
        }
    }
}

fn skip_char(text: &str) -> Option<&str> {
    let mut characters = text.chars();
    characters.next().map(|_| characters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Part {
        Part::Literal(text.to_owned())
    }

    #[test]
    fn escapes_as_the_specification_says() {
        let cases: [(&str, Vec<Part>); 9] = [
            (r"C:\Windows\x", vec![literal(r"C:\Windows\x")]),
            (r"C:\\x", vec![literal(r"C:\x")]),
            (r"a\*b", vec![literal("a*b")]),
            (r"a\?", vec![literal("a?")]),
            (r"a\\*", vec![literal(r"a\"), Part::Any]),
            (r"a\\\*", vec![literal(r"a\*")]),
            (r"\\\", vec![literal(r"\\")]),
            (r"\\\\", vec![literal(r"\\")]),
            ("a**?", vec![literal("a"), Part::Any, Part::One]),
        ];
        for (text, parts) in cases {
            assert_eq!(Pattern::parse(text).parts(), parts, "{text}");
        }
    }

    #[test]
    fn wildcards_match() {
        let cases = [
            ("a*b", "ab", true),
            ("a*b", "axxbxb", true),
            ("a*b", "axxbx", false),
            ("?", "é", true),
            ("?", "", false),
            ("a?c*", "abc", true),
            ("*a*b?", "xxabxab_", true),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("*x?y*z", "xxxay.z", true),
        ];
        for (pattern, value, expected) in cases {
            assert_eq!(Pattern::parse(pattern).matches(value), expected, "{pattern} {value}");
        }
    }
}
