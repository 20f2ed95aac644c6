//! Whether a gateway's epoch fits the time that passed (RFC 6887 section 8.5, RFC 6886 section 3.6).

use std::time::Instant;

/// The last epoch a gateway told, and when. A gateway that lost its mappings starts again from 0.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EpochClock {
    last: Option<(Instant, u32)>,
}

/// What an epoch says beside the one before it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EpochVerdict {
    /// There is nothing to compare it with.
    First,
    /// It moved as the clock did.
    Consistent,
    /// It did not: the gateway restarted, or somebody else answered.
    Broken,
}

impl EpochClock {
    /// Compares an epoch in seconds, heard at `now`, with the last one noted.
    ///
    /// Two seconds and one sixteenth of slack are allowed either way, and a step back by one for reordering.
    #[must_use]
    pub fn check(&self, now: Instant, epoch: u32) -> EpochVerdict {
        let Some((then, before)) = self.last else { return EpochVerdict::First };
        if epoch < before.saturating_sub(1) {
            return EpochVerdict::Broken;
        }
        let here = now.saturating_duration_since(then).as_secs();
        let there = u64::from(epoch.saturating_sub(before));
        let fits = |less: u64, more: u64| less.saturating_add(2) >= more.saturating_sub(more / 16);
        if fits(here, there) && fits(there, here) { EpochVerdict::Consistent } else { EpochVerdict::Broken }
    }

    /// Makes this epoch the one later ones are compared with.
    pub const fn note(&mut self, now: Instant, epoch: u32) {
        self.last = Some((now, epoch));
    }

    /// The last epoch noted, in seconds.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.last.map(|(_, epoch)| epoch)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn p9_an_epoch_must_move_with_the_clock() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut clock = EpochClock::default();
        assert_eq!(clock.check(start, 7), EpochVerdict::First);
        clock.note(start, 1000);
        for (seconds, epoch, expected) in [
            (0, 1000, EpochVerdict::Consistent),
            (0, 999, EpochVerdict::Consistent),
            (0, 998, EpochVerdict::Broken),
            (0, 1002, EpochVerdict::Consistent),
            (0, 1003, EpochVerdict::Broken),
            (160, 1160, EpochVerdict::Consistent),
            (160, 1148, EpochVerdict::Consistent),
            (160, 1147, EpochVerdict::Broken),
            (160, 1172, EpochVerdict::Consistent),
            (160, 1173, EpochVerdict::Broken),
            (3600, 0, EpochVerdict::Broken),
            (0, u32::MAX, EpochVerdict::Broken),
        ] {
            assert_eq!(clock.check(after(seconds), epoch), expected, "{epoch} after {seconds} s");
        }
        assert_eq!(clock.last(), Some(1000));
        assert_eq!(EpochClock::default().last(), None);
    }
}
