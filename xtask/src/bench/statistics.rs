//! What repeated runs come to.

/// Two runs of a loop in one round, the first what the second is held to,
/// nanoseconds a turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pair {
    pub(crate) bare: f64,
    pub(crate) with: f64,
}

impl Pair {
    /// How many times as long a turn of the second takes.
    pub(crate) fn ratio(self) -> f64 {
        self.with / self.bare
    }
}

/// The pairs of one loop, summed up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// Median, nanoseconds a turn.
    pub(crate) bare: f64,
    /// Median, nanoseconds a turn.
    pub(crate) with: f64,
    /// Median of what a turn of the second takes longer, nanoseconds.
    pub(crate) more: f64,
    /// Median of the pairs' ratios, which is not the ratio of the medians: what
    /// slows the machine for a while slows both runs of a pair.
    pub(crate) ratio: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Summary {
    /// Not a number without pairs.
    pub(crate) fn of(pairs: &[Pair]) -> Self {
        let all = |of: fn(&Pair) -> f64| pairs.iter().map(of).collect::<Vec<_>>();
        let middle = |values: &[f64]| median(values).unwrap_or(f64::NAN);
        let ratios = all(|pair| pair.ratio());
        Self {
            bare: middle(&all(|pair| pair.bare)),
            with: middle(&all(|pair| pair.with)),
            more: middle(&all(|pair| pair.with - pair.bare)),
            ratio: middle(&ratios),
            least: ratios.iter().copied().fold(f64::NAN, f64::min),
            most: ratios.iter().copied().fold(f64::NAN, f64::max),
        }
    }
}

/// The middle value; the mean of the middle two where their number is even.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    let upper = *sorted.get(half)?;
    Some(match sorted.len() % 2 {
        0 => f64::midpoint(sorted[half - 1], upper),
        _ => upper,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle_in_whatever_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 100.0, 2.0]), Some(3.0));
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let pair = |bare, with| Pair { bare, with };
        // The second pair ran on a machine that was busy with something else.
        let pairs = [pair(100.0, 110.0), pair(200.0, 240.0), pair(100.0, 105.0)];
        let summary = Summary::of(&pairs);
        assert_eq!((summary.bare, summary.with), (100.0, 110.0));
        assert_eq!(summary.more, 10.0);
        assert_eq!(
            (summary.least, summary.ratio, summary.most),
            (1.05, 1.1, 1.2)
        );
        assert!(Summary::of(&[]).ratio.is_nan());
    }
}
