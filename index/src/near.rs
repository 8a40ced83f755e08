//! What a walk found, by codes, and what follows from how far codes may be off.
//!
//! ```text
//!   score by codes   ├────┼────┤          ├────┼────┤ ... ├────┼────┤        ├────┼────┤
//!                    nearest                        the limit-th             left out, if all of it is below
//!                                                   └ what the best score at least
//! ```

/// So many more than the limit are scored exactly in any case,
const EXTRA: usize = 3;
/// and up to so many more where their codes are as good.
const EXTRA_MAX: usize = 256;

/// A vector that a walk found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Near {
    pub(crate) slot: u32,
    /// By codes; higher is nearer.
    pub(crate) score: f32,
    /// How far the score is likely to be off at most.
    pub(crate) doubt: f32,
}

/// What a walk found.
pub(crate) struct Walked {
    /// Best first by codes.
    pub(crate) near: Vec<Near>,
    /// How many vectors were compared.
    pub(crate) compared: u64,
}

/// Those that may be among the best by exact scores, given all in the order of codes: most often few more than the limit, many where codes
/// hardly tell vectors apart.
pub(crate) fn worth_scoring(near: &[Near], limit: usize) -> Vec<u32> {
    let least = least_of_best(near, limit);
    let (sure, others) = near.split_at(near.len().min(limit.saturating_add(EXTRA)));
    let others = others.iter().filter(|near| near.score + near.doubt >= least).take(EXTRA_MAX);
    sure.iter().chain(others).map(|near| near.slot).collect()
}

/// Whether codes hardly tell vectors apart here: even the last that was found may be among the best. So may others that the walk left
/// out.
pub(crate) fn is_blurred(near: &[Near], limit: usize) -> bool {
    near.last().is_some_and(|last| last.score + last.doubt > least_of_best(near, limit))
}

/// What each of the best scores at least: the lowest that so many score at least. All are above it where there are fewer than the limit.
fn least_of_best(near: &[Near], limit: usize) -> f32 {
    let mut lowest: Vec<f32> = near.iter().map(|near| near.score - near.doubt).collect();
    match limit.checked_sub(1) {
        Some(last) if last < lowest.len() => *lowest.select_nth_unstable_by(last, |a, b| b.total_cmp(a)).1,
        _ => f32::NEG_INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(scores: impl IntoIterator<Item = (f32, f32)>) -> Vec<Near> {
        (0..).zip(scores).map(|(slot, (score, doubt))| Near { slot, score, doubt }).collect()
    }

    #[test]
    fn what_cannot_reach_the_best_is_left_out() {
        let clear = near((0..50).map(|rank| (-(rank as f32), 0.4)));
        assert_eq!((worth_scoring(&clear, 10).len(), is_blurred(&clear, 10)), (13, false));
        let doubtful = near((0..50).map(|rank| (-(rank as f32), 4.5)));
        // Down to nine behind the tenth.
        assert_eq!((worth_scoring(&doubtful, 10).len(), is_blurred(&doubtful, 10)), (19, false));
        let equal = near((0..400).map(|_| (1.0, 0.1)));
        assert_eq!((worth_scoring(&equal, 10).len(), is_blurred(&equal, 10)), (269, true));
        // Where only the order is known, no wider walk would tell more.
        let ordered = near((0..50).map(|_| (0.0, 0.0)));
        assert_eq!((worth_scoring(&ordered, 10).len(), is_blurred(&ordered, 10)), (50, false));
    }

    #[test]
    fn one_whose_score_says_little_does_not_lower_what_the_best_are_sure_of() {
        // The third is known only roughly; the fourth is below what three others score at least.
        let rough =
            near([(9.0, 0.1), (8.0, 0.1), (7.0, 50.0), (6.0, 0.1), (5.0, 0.1), (4.0, 0.1), (3.0, 0.1), (2.0, 3.0)]);
        assert_eq!(worth_scoring(&rough, 2), [0, 1, 2, 3, 4]);
        assert_eq!(worth_scoring(&rough, 3), [0, 1, 2, 3, 4, 5]);
        assert!(!is_blurred(&rough, 3) && is_blurred(&rough, 5));
    }

    #[test]
    fn fewer_than_the_limit_are_all_scored() {
        let few = near([(2.0, 0.1), (f32::NEG_INFINITY, f32::INFINITY)]);
        assert_eq!((worth_scoring(&few, 10), worth_scoring(&few, usize::MAX)), (vec![0, 1], vec![0, 1]));
        assert_eq!((worth_scoring(&[], 10), is_blurred(&[], 10)), (vec![], false));
    }
}
