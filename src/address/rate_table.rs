//! Token buckets for any number of prefixes in a fixed amount of memory, shared by threads without a lock.
//!
//! The table has sets of four buckets. A prefix is hashed with a secret; part of the hash picks the set, another part is
//! kept beside the bucket as a tag. A prefix that finds no bucket of its own takes over the one of its set that has been
//! idle for longest, whose owner then starts with a full bucket. A bucket under attack is the last to be taken over,
//! because it is the one whose "full again" moment lies furthest ahead; so inventing prefixes does not free a victim's
//! bucket, and it grows nothing.
//!
//! Two prefixes share a bucket only if set and tag agree: one chance in 67 million for a given pair with the default
//! 65,536 buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Prefix;
use super::token_bucket::{Rate, advance};

/// Buckets in a set.
const WAYS: usize = 4;
/// Bits of a slot that hold the time; the rest is the tag.
const TIME_BITS: u32 = 52;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// Clock ticks a second: 1/16 microsecond, which 52 bits hold for 8.9 years.
const TICKS: u64 = 16_000_000;

/// A fixed-size table of token buckets keyed by prefix.
#[derive(Debug)]
pub struct RateTable {
    sets: Box<[[AtomicU64; WAYS]]>,
    seed: [u64; 2],
}

impl RateTable {
    /// The number of buckets [`RateTable::new`] is usually given: 512 KiB.
    pub const DEFAULT_BUCKETS: usize = 65_536;

    /// A table with this many buckets, rounded up to a power of two. The seed keeps outsiders from choosing prefixes
    /// that share a bucket, so it comes from the system's random source.
    #[must_use]
    pub fn new(buckets: usize, seed: [u64; 2]) -> Self {
        let sets = buckets.div_ceil(WAYS).clamp(1, 1 << 24).next_power_of_two();
        Self { sets: (0..sets).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect(), seed }
    }

    /// Takes one token from the bucket of this prefix, or says that there is none. `now` is the time since any fixed
    /// moment, the same for all callers.
    #[must_use]
    pub fn take(&self, prefix: Prefix, now: Duration, rate: Rate) -> bool {
        let now = ticks(now);
        let cost = rate.cost(TICKS);
        let hash = self.hash(prefix);
        let tag = hash >> TIME_BITS;
        let index = usize::try_from(hash & (self.sets.len() as u64).wrapping_sub(1)).unwrap_or(0);
        let Some(set) = self.sets.get(index) else { return true };
        // Another thread can win the race for the same bucket; each round one of them gets on.
        for _ in 0..64 {
            let (slot, seen, full_at) = find(set, tag);
            let (taken, next) = advance(full_at, now, cost, rate.burst);
            let packed = (tag << TIME_BITS) | next.min(TIME_MASK);
            if packed == seen || slot.compare_exchange_weak(seen, packed, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                return taken;
            }
        }
        false
    }

    /// A keyed hash: two rounds of folded multiplication.
    fn hash(&self, prefix: Prefix) -> u64 {
        let (bits, length) = prefix.key();
        let [low, high] = [bits as u64, (bits >> 64) as u64];
        let first = fold(low ^ self.seed[0], high ^ self.seed[1] ^ u64::from(length).rotate_right(8));
        fold(first ^ self.seed[1], self.seed[0] | 1)
    }
}

/// The bucket of this tag, or the one of the set that has been idle for longest, as a full bucket.
fn find(set: &[AtomicU64; WAYS], tag: u64) -> (&AtomicU64, u64, u64) {
    let mut idlest = (&set[0], set[0].load(Ordering::Relaxed));
    for slot in set {
        let seen = slot.load(Ordering::Relaxed);
        if seen >> TIME_BITS == tag {
            return (slot, seen, seen & TIME_MASK);
        }
        if seen & TIME_MASK < idlest.1 & TIME_MASK {
            idlest = (slot, seen);
        }
    }
    (idlest.0, idlest.1, 0)
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(u128::from(b ^ 0xD1B5_4A32_D192_ED03));
    (product >> 64) as u64 ^ product as u64
}

fn ticks(now: Duration) -> u64 {
    let ticks = now.as_nanos() * u128::from(TICKS) / 1_000_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX).min(TIME_MASK)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const SEED: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfeed_face_cafe_beef];

    fn host(number: u32) -> Prefix {
        Prefix::host(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn each_prefix_has_its_own_bucket() {
        let table = RateTable::new(RateTable::DEFAULT_BUCKETS, SEED);
        let rate = Rate::new(10, 3);
        let now = Duration::from_secs(5);
        for number in 0..1_000 {
            assert_eq!((0..10).filter(|_| table.take(host(number), now, rate)).count(), 3, "host {number}");
        }
    }

    #[test]
    fn a_bucket_refills_at_its_rate_within_a_hundredth() {
        for per_second in [1u32, 7, 333, 3_000, 10_000, 70_000, 100_000] {
            let table = RateTable::new(64, SEED);
            let rate = Rate::new(per_second, 4);
            let tries = u64::from(per_second) * 10 * 4;
            let taken = (0..tries)
                .filter(|step| {
                    let at = Duration::from_secs(9) + Duration::from_nanos(step * 10_000_000_000 / tries);
                    table.take(host(1), at, rate)
                })
                .count() as f64;
            let expected = f64::from(per_second) * 10.0;
            assert!(taken >= expected * 0.99, "{per_second} a second gave {taken} in 10 s");
            assert!(taken <= expected * 1.01 + 4.0, "{per_second} a second gave {taken} in 10 s");
        }
    }

    #[test]
    fn inventing_prefixes_does_not_free_the_bucket_of_a_victim() {
        let table = RateTable::new(256, SEED);
        let rate = Rate::new(10, 100);
        let now = Duration::from_secs(1);
        let victim = host(0xC633_6401);
        let mut replies = (0..100).filter(|_| table.take(victim, now, rate)).count();
        for number in 0..100_000 {
            let _ = table.take(host(number), now, rate);
            replies += usize::from(table.take(victim, now, rate));
        }
        assert_eq!(replies, 100);
    }

    #[test]
    fn threads_share_one_budget() {
        let table = RateTable::new(64, SEED);
        let rate = Rate::new(1, 10_000);
        let total: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (0..10_000).filter(|_| table.take(host(7), Duration::from_secs(1), rate)).count())
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("worker")).sum()
        });
        assert!((9_000..=10_000).contains(&total), "{total}");
    }

    #[test]
    fn a_clock_beyond_its_range_does_not_panic() {
        let table = RateTable::new(1, SEED);
        let rate = Rate::new(u32::MAX, u32::MAX);
        let _ = table.take(host(1), Duration::MAX, rate);
        let _ = table.take(host(1), Duration::ZERO, rate);
    }
}
