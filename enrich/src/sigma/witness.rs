//! Which tests a rule can't match without: a rule is looked at only when one of its witnesses passed.

use super::expr::{Atom, Expr, Test};
use super::pattern::Pattern;

/// Tests of which at least one passes whenever the rule matches, and how often that is likely to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Witness<'a> {
    /// Expected passes per event, of all together.
    pub cost: f64,
    /// The tests.
    pub atoms: Vec<&'a Atom>,
}

/// The cheapest witness; none when the rule can match an event in which nothing passes. `cost` says how
/// often a test passes.
pub fn witness<'a>(expr: &'a Expr, cost: &impl Fn(&Atom) -> f64) -> Option<Witness<'a>> {
    choose(expr, true, cost)
}

/// For the expression, or for its negation.
fn choose<'a>(expr: &'a Expr, holds: bool, cost: &impl Fn(&Atom) -> f64) -> Option<Witness<'a>> {
    match (expr, holds) {
        (Expr::Atom(Atom { test: Test::Field { .. }, .. }), _) | (Expr::Atom(_), false) => None,
        (Expr::Atom(atom), true) => Some(Witness { cost: cost(atom), atoms: vec![atom] }),
        (Expr::Not(part), _) => choose(part, !holds, cost),
        (Expr::And(parts), true) | (Expr::Or(parts), false) => {
            let witnesses = parts.iter().filter_map(|part| choose(part, holds, cost));
            witnesses.min_by(|one, two| one.cost.total_cmp(&two.cost))
        }
        (Expr::Or(parts), true) | (Expr::And(parts), false) => {
            let mut all = Witness { cost: 0.0, atoms: Vec::new() };
            for part in parts {
                let part = choose(part, holds, cost)?;
                all.cost += part.cost;
                all.atoms.extend(part.atoms);
            }
            Some(all)
        }
    }
}

/// How often a test passes, guessed from what it asks for and in how many places rules ask for it:
/// what many rules mention is common.
pub fn frequency(test: &Test, uses: usize) -> f64 {
    let alone = match test {
        Test::Exists => 1.0,
        Test::IsNull => 0.1,
        Test::Compare(..) | Test::Time(..) => 0.5,
        Test::Network(_) => 0.2,
        Test::Number(_) => 0.1,
        Test::Regex(_) => 0.05,
        Test::Field { .. } => 1.0,
        Test::Text { pattern, .. } => of_text(pattern),
    };
    #[expect(clippy::cast_precision_loss, reason = "a guess")]
    let uses = uses as f64;
    alone * (1.0 + uses / 8.0)
}

fn of_text(pattern: &Pattern) -> f64 {
    let anchored = pattern.as_literal().is_some();
    match pattern.longest_literal().map_or(0, |text| text.chars().count()) {
        0 if anchored => 0.05,
        0 => 1.0,
        1 | 2 if !anchored => 0.5,
        3 if !anchored => 0.1,
        1..=4 => 0.04,
        5..=7 => 0.015,
        8..=11 => 0.008,
        12..=19 => 0.004,
        _ => 0.002,
    }
}
