//! How much silence proves: a sequential probability ratio test over independent tries.
//!
//! Each try asks for a packet that either passes the filter or does not. Where the filter lets it pass, it still gets
//! lost with the loss rate of the path; where the filter blocks, it hardly ever arrives (a fresh socket may by chance
//! reuse a port for which the NAT still remembers an older flow). Summing the log-likelihood ratios says when either
//! explanation is certain enough to stop (Wald 1945), and how many more tries the other one takes.

/// How often a packet arrives on a fresh port although the filter blocks it.
const STALE: f64 = 0.01;

/// Certainty of the core verdict: wrong about once in a hundred thousand.
pub(super) const CORE: f64 = 11.5;
/// Certainty of the final report: wrong about once in a million.
pub(super) const FINAL: f64 = 13.8;

/// The tally of tries of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    /// Tries whose packet arrived.
    pub(super) passed: u32,
    /// Tries whose packet did not, although the path was shown to work after they were sent.
    pub(super) silent: u32,
}

/// The share of tries that get lost on the way, judged on the cautious side from few samples.
pub(super) fn cautious_loss(lost: u32, answered: u32) -> f64 {
    let seen = f64::from(lost) + f64::from(answered);
    ((f64::from(lost) + 1.5) / (seen + 10.0)).clamp(0.08, 0.6)
}

impl Tally {
    fn ratio(self, loss: f64) -> f64 {
        f64::from(self.passed) * ((1.0 - loss) / STALE).ln() + f64::from(self.silent) * (loss / (1.0 - STALE)).ln()
    }

    /// `Some(true)`: it passes. `Some(false)`: it is blocked. The chance of being wrong is about `e^-certainty`.
    pub(super) fn decision(self, loss: f64, certainty: f64) -> Option<bool> {
        let ratio = self.ratio(loss);
        if self.passed >= 2 && ratio >= certainty.min(8.0) {
            Some(true)
        } else if ratio <= -certainty {
            Some(false)
        } else {
            None
        }
    }

    /// How many more silent tries would decide for *blocked*.
    pub(super) fn missing(self, loss: f64, certainty: f64) -> u32 {
        let each = -(loss / (1.0 - STALE)).ln();
        let gap = self.ratio(loss) + certainty;
        if gap <= 0.0 { 0 } else { (gap / each).ceil().min(20.0) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_arrivals_decide_for_passing_and_one_does_not() {
        assert_eq!(Tally { passed: 2, silent: 0 }.decision(0.1, CORE), Some(true));
        assert_eq!(Tally { passed: 1, silent: 0 }.decision(0.1, CORE), None);
    }

    #[test]
    fn five_silences_decide_at_low_loss_and_more_are_wanted_at_high_loss() {
        assert_eq!(Tally { passed: 0, silent: 5 }.decision(0.08, CORE), Some(false));
        assert_eq!(Tally { passed: 0, silent: 5 }.decision(0.2, CORE), None);
        assert_eq!(Tally { passed: 0, silent: 5 }.missing(0.2, CORE), 3);
    }

    #[test]
    fn one_stale_arrival_does_not_open_a_closed_filter() {
        let tally = Tally { passed: 1, silent: 4 };
        assert_eq!(tally.decision(0.08, CORE), None);
        assert_eq!(Tally { passed: 1, silent: 7 }.decision(0.08, CORE), Some(false));
    }

    #[test]
    fn the_silences_that_suffice_mislead_less_than_once_in_ten_thousand_at_five_percent_each_way() {
        let lost_round_trip = 1.0 - 0.95f64 * 0.95;
        assert!(lost_round_trip.powi(5) < 1e-5);
        assert_eq!(Tally { passed: 0, silent: 4 }.decision(cautious_loss(0, 8), CORE), None);
    }
}
