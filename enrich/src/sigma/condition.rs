//! The condition language: `selection and not 1 of filter*` in, a tree over selections out.

use super::yaml::Fault;

/// How deep parentheses and negations may nest.
const MAX_DEPTH: usize = 64;

/// How many selections a condition may mention, `them` counted as all it stands for.
const MAX_MENTIONS: usize = 10_000;

/// A condition over selections, which it names by their position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// All of them.
    And(Vec<Condition>),
    /// At least one of them.
    Or(Vec<Condition>),
    /// Not this one.
    Not(Box<Condition>),
    /// A selection.
    Selection(usize),
}

impl Condition {
    /// Reads one condition; `names` are the selections in order.
    pub fn parse(text: &str, names: &[String], line: usize) -> Result<Self, Fault> {
        let mut parser =
            ConditionParser { tokens: tokens(text, line)?, at: 0, depth: 0, mentions: 0, names, line };
        let condition = parser.or()?;
        match parser.peek() {
            None => Ok(condition),
            Some(token) => {
                Err(parser.fault(format!("`{token}` is not expected: put and, or or not before it")))
            }
        }
    }

    /// Calls `visit` with every selection mentioned.
    pub fn each_selection(&self, visit: &mut impl FnMut(usize)) {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.each_selection(visit)),
            Self::Not(part) => part.each_selection(visit),
            Self::Selection(index) => visit(*index),
        }
    }
}

fn tokens(text: &str, line: usize) -> Result<Vec<&str>, Fault> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' => 1,
            '|' => {
                let message = "aggregations in a condition are not part of Sigma 2: write a correlation rule";
                return Err(Fault::new(line, message));
            }
            _ => rest
                .find(|next: char| next.is_whitespace() || matches!(next, '(' | ')' | '|'))
                .unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    Ok(tokens)
}

struct ConditionParser<'a> {
    tokens: Vec<&'a str>,
    at: usize,
    depth: usize,
    mentions: usize,
    names: &'a [String],
    line: usize,
}

impl<'a> ConditionParser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.at).copied()
    }

    fn take(&mut self, keyword: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.eq_ignore_ascii_case(keyword));
        self.at += usize::from(found);
        found
    }

    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.line, format!("condition: {}", message.into()))
    }

    fn or(&mut self) -> Result<Condition, Fault> {
        let mut parts = vec![self.and()?];
        while self.take("or") {
            parts.push(self.and()?);
        }
        Ok(joined(parts, Condition::Or))
    }

    fn and(&mut self) -> Result<Condition, Fault> {
        let mut parts = vec![self.not()?];
        while self.take("and") {
            parts.push(self.not()?);
        }
        Ok(joined(parts, Condition::And))
    }

    fn not(&mut self) -> Result<Condition, Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fault(format!("nested deeper than {MAX_DEPTH} levels: simplify it")));
        }
        let condition = if self.take("not") {
            Condition::Not(Box::new(self.not()?))
        } else if self.take("(") {
            let inner = self.or()?;
            if !self.take(")") {
                return Err(self.fault("a `(` is not closed: add `)`"));
            }
            inner
        } else {
            self.operand()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    /// A selection's name, or `1 of …`, `any of …`, `all of …`.
    fn operand(&mut self) -> Result<Condition, Fault> {
        let Some(token) = self.peek() else {
            return Err(self.fault("it ends too early: name a selection"));
        };
        self.at += 1;
        let quantified = self.peek().is_some_and(|next| next.eq_ignore_ascii_case("of"));
        if quantified && !self.names.iter().any(|name| name == token) {
            self.at += 1;
            let pattern =
                self.peek().ok_or_else(|| self.fault("`of` needs `them` or a pattern like `selection*`"))?;
            self.at += 1;
            let of = self.selections(pattern)?;
            return match token.to_ascii_lowercase().as_str() {
                "1" | "any" => Ok(joined(of, Condition::Or)),
                "all" => Ok(joined(of, Condition::And)),
                _ => Err(self.fault(format!("`{token} of` is not Sigma: write `1 of` or `all of`"))),
            };
        }
        match self.names.iter().position(|name| name == token) {
            Some(index) => {
                self.mention(1)?;
                Ok(Condition::Selection(index))
            }
            None => Err(self.fault(format!("there is no selection `{token}`: add or rename it"))),
        }
    }

    fn mention(&mut self, selections: usize) -> Result<(), Fault> {
        self.mentions += selections;
        if self.mentions > MAX_MENTIONS {
            return Err(
                self.fault(format!("more than {MAX_MENTIONS} selections are mentioned: split the rule"))
            );
        }
        Ok(())
    }

    fn selections(&mut self, pattern: &str) -> Result<Vec<Condition>, Fault> {
        let them = pattern.eq_ignore_ascii_case("them");
        let chosen = self.names.iter().enumerate().filter(|(_, name)| match them {
            true => !name.starts_with('_'),
            false => matches_name(pattern, name),
        });
        let of: Vec<_> = chosen.map(|(index, _)| Condition::Selection(index)).collect();
        if of.is_empty() {
            return Err(self.fault(format!("no selection is called like `{pattern}`: add or rename one")));
        }
        self.mention(of.len())?;
        Ok(of)
    }
}

fn joined(mut parts: Vec<Condition>, join: impl FnOnce(Vec<Condition>) -> Condition) -> Condition {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => join(parts.into_iter().chain(last).collect()),
    }
}

/// `*` stands for any number of characters, anywhere.
fn matches_name(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Condition, Fault> {
        let names = ["selection_a", "selection_b", "filter", "_hidden"].map(str::to_owned);
        Condition::parse(text, &names, 7)
    }

    #[test]
    fn precedence_is_or_and_not() {
        use Condition::{And, Not, Or, Selection};
        let expected = Or(vec![Selection(0), And(vec![Selection(1), Not(Box::new(Selection(2)))])]);
        assert_eq!(parse("selection_a or selection_b AND not filter").unwrap(), expected);
        let expected = And(vec![Or(vec![Selection(0), Selection(1)]), Not(Box::new(Selection(2)))]);
        assert_eq!(parse("1 of selection_*and not(filter)").unwrap_err().line, 7);
        assert_eq!(parse("1 of selection_* and not(filter)").unwrap(), expected);
        assert_eq!(parse("all of them").unwrap(), And(vec![Selection(0), Selection(1), Selection(2)]));
        assert_eq!(parse("any of *_b").unwrap(), Selection(1));
    }

    #[test]
    fn faults_say_what_to_change() {
        let cases = [
            ("", "ends too early"),
            ("selection_a selection_b", "not expected"),
            ("(selection_a", "not closed"),
            ("nothing", "no selection `nothing`"),
            ("1 of nothing*", "called like"),
            ("2 of them", "write `1 of`"),
            ("selection_a | count() > 5", "correlation rule"),
            (&"not ".repeat(100), "deeper"),
        ];
        for (text, expected) in cases {
            let fault = parse(text).unwrap_err();
            assert!(fault.message.contains(expected), "{text}: {}", fault.message);
        }
    }
}
