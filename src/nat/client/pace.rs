//! How long to wait for an answer: learnt from the answers themselves.

use std::time::Duration;

/// Round-trip estimate towards one address.
///
/// The timer of RFC 8489 section 6.2.1 starts at 500 ms because a client may be far away and alone. A diagnosis sends
/// several requests side by side, so the first answer teaches the rest: the wait is the smoothed round trip plus four
/// deviations (RFC 6298), and never less than [`Pace::MARGIN`] beyond the round trip.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    estimate: Option<(Duration, Duration)>,
}

impl Pace {
    /// The wait before anything is known.
    pub const INITIAL: Duration = Duration::from_millis(100);
    /// What a host under load may add to any round trip.
    pub const MARGIN: Duration = Duration::from_millis(16);
    /// The longest wait between two tries.
    pub const MAX: Duration = Duration::from_secs(1);

    /// Learns from one answered request.
    pub fn learn(&mut self, round_trip: Duration) {
        self.estimate = Some(match self.estimate {
            None => (round_trip, round_trip / 4),
            Some((smoothed, deviation)) => {
                let error = smoothed.abs_diff(round_trip);
                ((smoothed * 7 + round_trip) / 8, (deviation * 3 + error) / 4)
            }
        });
    }

    /// The smoothed round trip, once known.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.estimate.map(|(smoothed, _)| smoothed)
    }

    /// How long to wait before a request counts as unanswered for now.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.estimate.map_or(Self::INITIAL, |(smoothed, deviation)| {
            smoothed.saturating_add((deviation * 4).max(Self::MARGIN)).min(Self::MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_shrinks_to_the_round_trip_and_a_margin() {
        let mut pace = Pace::default();
        assert_eq!(pace.patience(), Pace::INITIAL);
        for _ in 0..50 {
            pace.learn(Duration::from_millis(20));
        }
        assert_eq!(pace.round_trip(), Some(Duration::from_millis(20)));
        assert_eq!(pace.patience(), Duration::from_millis(36));
    }

    #[test]
    fn the_wait_grows_with_jitter_and_stays_bounded() {
        let mut pace = Pace::default();
        for index in 0..50 {
            pace.learn(Duration::from_millis(if index % 2 == 0 { 20 } else { 100 }));
        }
        assert!(pace.patience() > Duration::from_millis(150));
        pace.learn(Duration::from_secs(3600));
        assert_eq!(pace.patience(), Pace::MAX);
    }
}
