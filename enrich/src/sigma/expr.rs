//! What a rule asks of an event, with names and notation resolved: tests of single fields under and, or
//! and not. The parser makes it, the compiler takes it.

use super::network::Network;
use super::number::Number;
use super::pattern::Pattern;
use super::time::TimePart;

/// A condition over one event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expr {
    /// All of them.
    And(Vec<Expr>),
    /// At least one of them.
    Or(Vec<Expr>),
    /// Not this one.
    Not(Box<Expr>),
    /// A single test.
    Atom(Atom),
}

/// A test of one field's values: true if any of them passes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Atom {
    /// The field; none is every scalar of the event, as keywords search it.
    pub field: Option<String>,
    /// The test.
    pub test: Test,
}

/// How a value is tested. Only [`Test::Exists`] and [`Test::IsNull`] see values that are not text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Test {
    /// The whole text matches; the pattern is folded unless `cased`.
    Text {
        /// What it must look like.
        pattern: Pattern,
        /// Whether case counts.
        cased: bool,
    },
    /// The regular expression is found in the text.
    Regex(String),
    /// The text is this number.
    Number(Number),
    /// The text is a number that compares so with this one.
    Compare(Comparison, Number),
    /// The text is a point in time, a part of which compares so.
    Time(TimePart, Comparison, Number),
    /// The text is an address within the block.
    Network(Network),
    /// The text equals one of another field's texts, or starts or ends with it, or contains it.
    Field {
        /// The other field.
        other: String,
        /// Whether text may stand before it.
        before: bool,
        /// Whether text may stand after it.
        after: bool,
        /// Whether case counts.
        cased: bool,
    },
    /// There is a value of any sort, null included.
    Exists,
    /// The value is an explicit null.
    IsNull,
}

/// How two numbers compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// Less than.
    Less,
    /// Less than or equal.
    LessOrEqual,
    /// Greater than.
    Greater,
    /// Greater than or equal.
    GreaterOrEqual,
    /// Equal.
    Equal,
}

impl Comparison {
    /// Whether `left` compares so with `right`.
    pub fn holds(self, left: Number, right: Number) -> bool {
        let order = left.order(right);
        match self {
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Equal => order.is_eq(),
        }
    }
}

impl Expr {
    /// A single test.
    pub fn atom(field: Option<&str>, test: Test) -> Self {
        Self::Atom(Atom { field: field.map(str::to_owned), test })
    }

    /// All of them; a single one stays itself.
    pub fn and(mut parts: Vec<Expr>) -> Self {
        match parts.pop() {
            Some(only) if parts.is_empty() => only,
            last => Self::And(parts.into_iter().chain(last).collect()),
        }
    }

    /// Any of them; a single one stays itself.
    pub fn or(mut parts: Vec<Expr>) -> Self {
        match parts.pop() {
            Some(only) if parts.is_empty() => only,
            last => Self::Or(parts.into_iter().chain(last).collect()),
        }
    }

    /// The opposite.
    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// Absent, or an explicit null.
    pub fn null(field: Option<&str>) -> Self {
        Self::or(vec![Self::atom(field, Test::Exists).negated(), Self::atom(field, Test::IsNull)])
    }

    /// How many tests it has.
    pub fn tests(&self) -> usize {
        let mut tests = 0;
        self.each_atom(&mut |_| tests += 1);
        tests
    }

    /// Calls `visit` with every atom.
    pub fn each_atom(&self, visit: &mut impl FnMut(&Atom)) {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.each_atom(visit)),
            Self::Not(part) => part.each_atom(visit),
            Self::Atom(atom) => visit(atom),
        }
    }
}
