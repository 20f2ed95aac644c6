//! How often something may happen: a rate and a burst, kept as one point in time.
//!
//! The bucket is the generic cell rate algorithm: instead of a number of tokens it keeps the moment at which it would be
//! full again. That moment never runs ahead of the clock by more than the burst, needs no refill step and is one number.

use std::num::NonZeroU32;
use std::time::Duration;

/// A sustained rate and how much may come at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Events a second in the long run.
    pub per_second: NonZeroU32,
    /// Events that may come at once after a silence.
    pub burst: NonZeroU32,
}

impl Rate {
    /// A rate with a burst; zero counts as one.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Self {
        const fn at_least_one(value: u32) -> NonZeroU32 {
            match NonZeroU32::new(value) {
                Some(value) => value,
                None => NonZeroU32::MIN,
            }
        }
        Self { per_second: at_least_one(per_second), burst: at_least_one(burst) }
    }

    /// What one event costs, in ticks of `1 / ticks_per_second`, at least one tick.
    pub(super) const fn cost(self, ticks_per_second: u64) -> u64 {
        let cost = ticks_per_second / self.per_second.get() as u64;
        if cost == 0 { 1 } else { cost }
    }
}

/// One token bucket. Time is given by the caller as the time since any fixed moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TokenBucket {
    /// When the bucket is full again, in nanoseconds since the caller's epoch.
    full_at: u64,
}

const NANOS: u64 = 1_000_000_000;

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub const fn new() -> Self {
        Self { full_at: 0 }
    }

    /// Takes one token, or says that there is none.
    pub fn take(&mut self, now: Duration, rate: Rate) -> bool {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let (taken, full_at) = advance(self.full_at, now, rate.cost(NANOS), rate.burst);
        self.full_at = full_at;
        taken
    }
}

/// Whether there is a token, and the "full again" moment to keep.
pub(super) fn advance(full_at: u64, now: u64, cost: u64, burst: NonZeroU32) -> (bool, u64) {
    let limit = now.saturating_add(cost.saturating_mul(u64::from(burst.get())));
    // A moment beyond the limit comes from a larger burst or a clock that was ahead: from now on the bucket is empty.
    let full_at = full_at.clamp(now, limit);
    let next = full_at.saturating_add(cost);
    if next <= limit { (true, next) } else { (false, full_at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_the_rate() {
        let rate = Rate::new(10, 5);
        let mut bucket = TokenBucket::new();
        let start = Duration::from_secs(100);
        assert_eq!((0..100).filter(|_| bucket.take(start, rate)).count(), 5);
        let taken = (0..1_000u64).filter(|ms| bucket.take(start + Duration::from_millis(10 * (ms + 1)), rate)).count();
        assert_eq!(taken, 100, "10 a second over 10 seconds");
    }

    #[test]
    fn a_silence_fills_the_bucket_up_to_the_burst_and_no_further() {
        let rate = Rate::new(10, 5);
        let mut bucket = TokenBucket::new();
        assert_eq!((0..9).filter(|_| bucket.take(Duration::ZERO, rate)).count(), 5);
        assert_eq!((0..9).filter(|_| bucket.take(Duration::from_secs(3600), rate)).count(), 5);
    }

    #[test]
    fn a_clock_that_steps_back_costs_at_most_one_burst_of_waiting() {
        let rate = Rate::new(10, 5);
        let mut bucket = TokenBucket::new();
        assert!(bucket.take(Duration::from_secs(1_000_000), rate));
        assert!(!bucket.take(Duration::ZERO, rate));
        assert!(bucket.take(Duration::from_millis(100), rate));
    }

    #[test]
    fn the_end_of_time_does_not_panic() {
        let mut bucket = TokenBucket::new();
        let _ = bucket.take(Duration::MAX, Rate::new(0, 0));
        let _ = bucket.take(Duration::MAX, Rate::new(u32::MAX, u32::MAX));
    }
}
