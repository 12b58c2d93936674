//! The arithmetic of a run. Nothing else of the benchmarks is worth a unit test.

use std::time::Duration;

/// The middle value; the mean of the two in the middle of an even number. 0 without values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The smallest value that `share` of the values don't exceed (nearest rank). 0 without values.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

/// Events per second from the first to the last commit, and that time. `progress` is how many events
/// were committed at a time. The first sample that shows any is where the clock starts, so its events
/// don't count: nobody saw how long they took.
pub fn commit_rate(progress: &[(Duration, u64)], total: u64) -> Option<(f64, Duration)> {
    let (start, already) = progress.iter().find(|(_, done)| *done > 0)?;
    let (end, _) = progress.iter().find(|(_, done)| *done >= total)?;
    let took = end.checked_sub(*start).filter(|took| !took.is_zero())?;
    Some(((total - already) as f64 / took.as_secs_f64(), took))
}

/// Buckets of a cumulative histogram that were filled between two scrapes: (upper bound, count).
pub fn since(before: &[(f64, u64)], after: &[(f64, u64)]) -> Vec<(f64, u64)> {
    let known = |bound: f64| before.iter().find(|(other, _)| *other == bound).map_or(0, |(_, count)| *count);
    after.iter().map(|(bound, count)| (*bound, count - known(*bound))).collect()
}

/// The upper bound of the bucket that holds `share` of a cumulative histogram's values.
pub fn bucket(cumulative: &[(f64, u64)], share: f64) -> Option<f64> {
    let total = cumulative.last().map(|(_, count)| *count).filter(|count| *count > 0)?;
    let rank = (share * total as f64).ceil() as u64;
    cumulative.iter().find(|(_, count)| *count >= rank).map(|(bound, _)| *bound)
}

/// Splits `done` and `visible` into delays: for each event the first look that saw it, in seconds.
/// `looks` are (time, what was visible then), in order; `seen` says whether a look saw the event.
pub fn delays<E, L>(
    events: &[(Duration, E)],
    looks: &[(Duration, L)],
    seen: impl Fn(&E, &L) -> bool,
) -> Vec<Option<f64>> {
    let delay = |(sent, event): &(Duration, E)| {
        let first = looks.partition_point(|(_, look)| !seen(event, look));
        looks.get(first).map(|(at, _)| at.saturating_sub(*sent).as_secs_f64())
    };
    events.iter().map(delay).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn medians_and_percentiles() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.5), 50.0);
        assert_eq!(percentile(&hundred, 0.99), 99.0);
        assert_eq!(percentile(&hundred, 1.0), 100.0);
        assert_eq!(percentile(&[7.0], 0.01), 7.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn the_clock_of_a_road_runs_from_the_first_commit_to_the_last() {
        let progress = [(ms(0), 0), (ms(1000), 100), (ms(1500), 400), (ms(3000), 1100), (ms(3020), 1100)];
        let (rate, took) = commit_rate(&progress, 1100).expect("complete");
        assert_eq!((rate, took), (500.0, ms(2000)));
        assert_eq!(commit_rate(&progress, 1200), None);
        assert_eq!(commit_rate(&[(ms(5), 10)], 10), None, "one look says nothing about time");
        assert_eq!(commit_rate(&[], 10), None);
    }

    #[test]
    fn histograms_are_subtracted_before_they_are_read() {
        let before = [(0.1, 10), (0.5, 20), (f64::INFINITY, 20)];
        let after = [(0.1, 10), (0.5, 119), (f64::INFINITY, 120)];
        let filled = since(&before, &after);
        assert_eq!(filled, [(0.1, 0), (0.5, 99), (f64::INFINITY, 100)]);
        assert_eq!(bucket(&filled, 0.99), Some(0.5));
        assert_eq!(bucket(&filled, 1.0), Some(f64::INFINITY));
        assert_eq!(bucket(&since(&after, &after), 0.5), None);
    }

    #[test]
    fn a_delay_ends_with_the_first_look_that_sees_the_event() {
        let events = [(ms(10), 1), (ms(20), 5), (ms(30), 9)];
        let looks = [(ms(15), 0), (ms(50), 5), (ms(90), 6)];
        let delays = delays(&events, &looks, |event, visible| visible >= event);
        assert_eq!(delays, [Some(0.04), Some(0.03), None]);
    }
}
