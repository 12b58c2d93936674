//! A correlation rule as it is written: types, condition, who may trigger it.

use std::cmp::Ordering;

use super::decimal::ONE;
use crate::sigma::Level;

/// What is measured in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Events.
    EventCount,
    /// Distinct values of a field.
    ValueCount,
    /// Distinct rules.
    Temporal,
    /// Rules that follow each other in the order they are listed.
    TemporalOrdered,
    /// The sum of a field's values, which are not negative.
    ValueSum,
    /// The mean of a field's values.
    ValueAvg,
    /// A percentile of a field's values, in millionths of a percent, by nearest rank.
    ValuePercentile(i64),
}

impl Kind {
    /// As rules write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EventCount => "event_count",
            Self::ValueCount => "value_count",
            Self::Temporal => "temporal",
            Self::TemporalOrdered => "temporal_ordered",
            Self::ValueSum => "value_sum",
            Self::ValueAvg => "value_avg",
            Self::ValuePercentile(_) => "value_percentile",
        }
    }

    /// Whether it looks at the values of a field.
    #[must_use]
    pub fn takes_field(self) -> bool {
        !matches!(self, Self::EventCount | Self::Temporal | Self::TemporalOrdered)
    }

    /// Whether it looks at numbers.
    #[must_use]
    pub fn is_numeric(self) -> bool {
        matches!(self, Self::ValueSum | Self::ValueAvg | Self::ValuePercentile(_))
    }

    /// Whether another event never makes it less.
    #[must_use]
    pub fn only_grows(self) -> bool {
        !matches!(self, Self::ValueAvg | Self::ValuePercentile(_))
    }
}

/// How a measure is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// More than.
    Gt,
    /// At least.
    Gte,
    /// Less than.
    Lt,
    /// At most.
    Lte,
    /// Equal.
    Eq,
    /// Not equal.
    Neq,
}

impl Operator {
    /// By the name rules use.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "gt" => Self::Gt,
            "gte" => Self::Gte,
            "lt" => Self::Lt,
            "lte" => Self::Lte,
            "eq" => Self::Eq,
            "neq" => Self::Neq,
            _ => return None,
        })
    }

    fn admits(self, ordering: Ordering) -> bool {
        match self {
            Self::Gt => ordering.is_gt(),
            Self::Gte => ordering.is_ge(),
            Self::Lt => ordering.is_lt(),
            Self::Lte => ordering.is_le(),
            Self::Eq => ordering.is_eq(),
            Self::Neq => ordering.is_ne(),
        }
    }
}

/// What must hold of a measure: every comparison. Values are in millionths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition(pub Vec<(Operator, i64)>);

impl Condition {
    /// Whether it holds of `total / parts`, `total` in millionths; nothing is divided, so nothing is rounded.
    #[must_use]
    pub fn holds(&self, total: i128, parts: i128) -> bool {
        let admits = |(operator, value): &(Operator, i64)| {
            operator.admits(total.cmp(&i128::from(*value).saturating_mul(parts)))
        };
        self.0.iter().all(admits)
    }

    /// Whether a measure that grows can't make it false again.
    #[must_use]
    pub fn only_bounds_below(&self) -> bool {
        self.0.iter().all(|(operator, _)| matches!(operator, Operator::Gt | Operator::Gte))
    }

    /// The smallest count it holds of, counting from 1; none if there is none up to `most`.
    #[must_use]
    pub fn least_count(&self, most: usize) -> Option<usize> {
        let mut candidates: Vec<i128> = self
            .0
            .iter()
            .flat_map(|(_, value)| {
                let whole = i128::from(*value).div_euclid(ONE);
                [whole, whole + 1]
            })
            .chain([1])
            .filter(|count| *count >= 1 && *count <= most as i128)
            .collect();
        candidates.sort_unstable();
        candidates.into_iter().find(|count| self.holds(count * ONE, 1)).map(|count| count as usize)
    }
}

/// A field that events of several rules have under different names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// Its name in `group-by` and `field`.
    pub name: String,
    /// Rule, by id or name, and the field's name in its events.
    pub fields: Vec<(String, String)>,
}

/// A correlation rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Correlation {
    /// Its `id`, or its title where it has none.
    pub id: String,
    /// Whether it has an `id`.
    pub has_id: bool,
    /// Its name for people.
    pub title: String,
    /// Its `name`, by which other correlations call it.
    pub name: Option<String>,
    /// Who wrote it; alerts carry it on.
    pub author: Option<String>,
    /// What it is about.
    pub description: Option<String>,
    /// How far it is tested.
    pub status: Option<String>,
    /// When it was changed last: `modified`, else `date`.
    pub revision: Option<String>,
    /// How serious an episode is; `medium` where it says nothing.
    pub level: Level,
    /// Tags, such as `attack.t1110`.
    pub tags: Vec<String>,
    /// Fields worth showing.
    pub fields: Vec<String>,
    /// Known false positives.
    pub falsepositives: Vec<String>,
    /// What is measured.
    pub kind: Kind,
    /// Rules by id or name, in the order they are written.
    pub rules: Vec<String>,
    /// Fields or aliases; events with the same values are measured together.
    pub group_by: Vec<String>,
    /// Fields by several names.
    pub aliases: Vec<Alias>,
    /// The length of a window in microseconds.
    pub timespan: i64,
    /// The fields whose values are measured: one, or for `value_count` several whose combinations count.
    pub values: Vec<String>,
    /// What must hold of the measure.
    pub condition: Condition,
    /// Whether what the rules find by themselves makes alerts too.
    pub generate: bool,
    /// The file it came from, and its line there.
    pub origin: (String, usize),
}

impl Correlation {
    /// Whether more events can only keep it satisfied, so that it needn't wait for the window's end.
    #[must_use]
    pub fn is_monotone(&self) -> bool {
        self.kind.only_grows() && self.condition.only_bounds_below()
    }
}
