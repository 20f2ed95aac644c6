//! How outer ports are chosen, judged from mappings in the order they were made (RFC 4787 section 4.2).
//!
//! A mapping is made by the first packet of a new flow, so the order of first packets is the order of allocations. Only
//! neighbours in that order tell a step: what lies between two others is unknown, and so is the moment of an allocation
//! whose first packet got lost. Other hosts behind the same NAT take ports as well; a step that still explains half of
//! the neighbours is real, because chance explains none.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One mapping, in the order of making.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Allocation {
    /// The inner endpoint.
    pub(super) local: SocketAddr,
    /// The outer endpoint; `None` where no answer told it.
    pub(super) mapped: Option<SocketAddr>,
    /// Whether the order is certain: the first packet was the one that was answered.
    pub(super) is_certain: bool,
}

/// How outer ports are chosen.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortAllocation {
    /// The inner port is kept.
    Preserved,
    /// The inner port plus a constant.
    Offset,
    /// One step from the last.
    Sequential,
    /// Nothing a peer could tell.
    Random,
}

/// The range outer ports were seen in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PortPool {
    /// The lowest port seen.
    pub low: u16,
    /// The highest port seen.
    pub high: u16,
    /// The number of ports the NAT likely chooses from: the power of two that holds what was seen.
    pub likely_size: u32,
    /// Mappings seen.
    pub samples: u32,
}

/// What [`judge`] finds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Judgement {
    pub(super) allocation: Option<PortAllocation>,
    /// The step between consecutive mappings, or the constant of [`PortAllocation::Offset`].
    pub(super) step: Option<i32>,
    /// Neighbours that show the step, of how many.
    pub(super) shown: (usize, usize),
    pub(super) pool: Option<PortPool>,
}

/// Samples below which nothing is said about steps or pools.
const ENOUGH: usize = 8;
/// The largest step that is believed.
const LARGEST_STEP: i32 = 4_096;

/// Judges allocations in order.
pub(super) fn judge(allocations: &[Allocation]) -> Judgement {
    let known: Vec<(SocketAddr, SocketAddr)> =
        allocations.iter().filter_map(|each| Some((each.local, each.mapped?))).collect();
    if known.len() < 3 {
        return Judgement::default();
    }
    let distance = |(local, mapped): &(SocketAddr, SocketAddr)| i32::from(mapped.port()) - i32::from(local.port());
    let kept = known.iter().filter(|pair| distance(pair) == 0).count();
    if kept == known.len() {
        return Judgement { allocation: Some(PortAllocation::Preserved), shown: (kept, kept), ..Judgement::default() };
    }
    // A NAT that keeps the port where it can says nothing about what it does where it cannot.
    let moved: Vec<&Allocation> =
        allocations.iter().filter(|each| each.mapped.is_none_or(|mapped| mapped.port() != each.local.port())).collect();
    let ports: Vec<u16> = moved.iter().filter_map(|each| each.mapped).map(|mapped| mapped.port()).collect();
    let pool = pool(&ports);
    let apart = known.iter().map(distance).filter(|distance| *distance != 0);
    if let Some((offset, count)) = most_frequent(apart.clone())
        && count >= ENOUGH / 2
        && count == apart.count()
        && kept == 0
    {
        let shown = (count, count);
        return Judgement { allocation: Some(PortAllocation::Offset), step: Some(offset), shown, pool };
    }
    let steps: Vec<i32> = moved
        .windows(2)
        .filter_map(|pair| match pair {
            [a, b] if a.is_certain && b.is_certain => Some(i32::from(b.mapped?.port()) - i32::from(a.mapped?.port())),
            _ => None,
        })
        .collect();
    if let Some((step, count)) = step_of(&steps) {
        let shown = (count, steps.len());
        return Judgement { allocation: Some(PortAllocation::Sequential), step: Some(step), shown, pool };
    }
    let allocation = (steps.len() >= ENOUGH).then_some(PortAllocation::Random);
    Judgement { allocation, step: None, shown: (0, steps.len()), pool }
}

/// The step most neighbours show; else, where ports go one way by small distances, what these have in common.
fn step_of(steps: &[i32]) -> Option<(i32, usize)> {
    if steps.len() < 4 {
        return None;
    }
    if let Some((step, count)) = most_frequent(steps.iter().copied())
        && count * 2 >= steps.len()
        && step.abs() <= LARGEST_STEP
    {
        return Some((step, count));
    }
    if steps.len() < ENOUGH {
        return None;
    }
    // Random ports go up and down; a counter that others use too only goes one way, by gaps of several steps.
    let forward = steps.iter().filter(|step| **step > 0).count();
    let sign = if forward * 2 >= steps.len() { 1 } else { -1 };
    let same: Vec<i32> = steps.iter().map(|step| step * sign).filter(|step| *step > 0).collect();
    let mut sizes = same.clone();
    sizes.sort_unstable();
    let median = *sizes.get(sizes.len() / 2)?;
    let wraps = steps.len() - same.len();
    if wraps <= 1 && median <= LARGEST_STEP / 4 {
        let common = sizes.iter().copied().filter(|size| *size <= LARGEST_STEP).reduce(gcd)?;
        return Some((common * sign, same.len()));
    }
    None
}

fn gcd(a: i32, b: i32) -> i32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn most_frequent(values: impl Iterator<Item = i32>) -> Option<(i32, usize)> {
    let mut sorted: Vec<i32> = values.collect();
    sorted.sort_unstable();
    sorted
        .chunk_by(|a, b| a == b)
        .map(|run| (run.first().copied().unwrap_or_default(), run.len()))
        .max_by_key(|run| run.1)
}

fn pool(ports: &[u16]) -> Option<PortPool> {
    let (low, high) = (*ports.iter().min()?, *ports.iter().max()?);
    let span = u32::from(high - low) + 1;
    let samples = u32::try_from(ports.len()).unwrap_or(u32::MAX);
    (ports.len() >= ENOUGH).then(|| PortPool { low, high, likely_size: span.next_power_of_two(), samples })
}

/// Whether outer ports keep the parity of inner ones: `None` where too few were seen for chance to be excluded.
pub(super) fn keeps_parity(allocations: &[Allocation]) -> Option<bool> {
    let pairs: Vec<(u16, u16)> =
        allocations.iter().filter_map(|each| Some((each.local.port(), each.mapped?.port()))).collect();
    let even = pairs.iter().filter(|(local, _)| local % 2 == 0).count();
    if pairs.iter().any(|(local, mapped)| local % 2 != mapped % 2) {
        return Some(false);
    }
    let all_kept = pairs.iter().all(|(local, mapped)| local == mapped) && pairs.len() >= 3;
    (all_kept || (even >= 3 && pairs.len() - even >= 3 && pairs.len() >= 12)).then_some(true)
}

/// Whether two inner ports in a row become two outer ports in a row: all pairs, none, or `None`.
pub(super) fn is_contiguous(pairs: &[(SocketAddr, SocketAddr)]) -> Option<bool> {
    let in_a_row = pairs.iter().filter(|(low, high)| low.port().checked_add(1) == Some(high.port())).count();
    match (in_a_row, pairs.len()) {
        (_, 0 | 1) => None,
        (0, _) => Some(false),
        (count, all) if count == all && all >= 3 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    fn allocations(ports: &[(u16, u16)]) -> Vec<Allocation> {
        ports
            .iter()
            .map(|(local, mapped)| Allocation {
                local: SocketAddr::from(([192, 168, 1, 7], *local)),
                mapped: Some(SocketAddr::from(([12, 0, 0, 1], *mapped))),
                is_certain: true,
            })
            .collect()
    }

    fn stepping(step: i32, low: i32, high: i32, count: usize, gaps: &[i32]) -> Vec<Allocation> {
        let mut port = high - 3 * step.abs();
        let ports: Vec<(u16, u16)> = (0..count)
            .map(|index| {
                let taken = step * (1 + gaps.get(index % gaps.len().max(1)).copied().unwrap_or(0));
                port = low + (port - low + taken).rem_euclid(high - low + 1);
                (40_000 + 7 * index as u16, port as u16)
            })
            .collect();
        allocations(&ports)
    }

    #[test]
    fn steps_of_any_size_and_sign_are_found_across_the_end_of_the_range() {
        for step in [1, 2, 3, 16, 256, -1, -3] {
            let judgement = judge(&stepping(step, 20_000, 30_000, 12, &[]));
            assert_eq!(
                (judgement.allocation, judgement.step),
                (Some(PortAllocation::Sequential), Some(step)),
                "{step}"
            );
        }
    }

    #[test]
    fn neighbours_that_take_ports_too_do_not_hide_the_step() {
        for step in [1, 2, 256] {
            let judgement = judge(&stepping(step, 20_000, 60_000, 14, &[0, 2, 0, 1, 0, 0, 3]));
            assert_eq!(
                (judgement.allocation, judgement.step),
                (Some(PortAllocation::Sequential), Some(step)),
                "{step}"
            );
            let crowded = judge(&stepping(step, 20_000, 60_000, 14, &[1, 3, 2, 4, 1, 6, 2]));
            assert_eq!((crowded.allocation, crowded.step), (Some(PortAllocation::Sequential), Some(step)), "{step}");
        }
    }

    #[test]
    fn random_ports_in_any_pool_are_never_called_sequential() {
        let mut rng = StdRng::seed_from_u64(4);
        for (low, high) in [(1_024, 65_535), (30_208, 30_719), (5_000, 5_063)] {
            for _ in 0..3_000 {
                let ports: Vec<(u16, u16)> = (0..13).map(|i| (40_000 + i, rng.random_range(low..=high))).collect();
                let judgement = judge(&allocations(&ports));
                assert_eq!(judgement.allocation, Some(PortAllocation::Random), "{ports:?}");
            }
        }
    }

    #[test]
    fn kept_and_shifted_ports_are_told() {
        let kept: Vec<(u16, u16)> = (0..5).map(|i| (40_000 + i, 40_000 + i)).collect();
        assert_eq!(judge(&allocations(&kept)).allocation, Some(PortAllocation::Preserved));
        let shifted: Vec<(u16, u16)> = (0..9).map(|i| (40_000 + 91 * i, 41_000 + 91 * i)).collect();
        let judgement = judge(&allocations(&shifted));
        assert_eq!((judgement.allocation, judgement.step), (Some(PortAllocation::Offset), Some(1_000)));
    }

    #[test]
    fn a_block_of_512_ports_is_seen_as_one() {
        let mut rng = StdRng::seed_from_u64(5);
        let ports: Vec<(u16, u16)> = (0..24).map(|i| (40_000 + i, rng.random_range(30_208..=30_719))).collect();
        assert_eq!(judge(&allocations(&ports)).pool.map(|pool| pool.likely_size), Some(512));
    }

    #[test]
    fn parity_needs_both_kinds_of_inner_port() {
        let all_even: Vec<(u16, u16)> = (0..14).map(|i| (40_000 + 2 * i, 50_000 + 4 * i)).collect();
        assert_eq!(keeps_parity(&allocations(&all_even)), None);
        let both: Vec<(u16, u16)> = (0..14).map(|i| (40_000 + i, 50_000 + 3 * i)).collect();
        assert_eq!(keeps_parity(&allocations(&both)), Some(true));
        let broken: Vec<(u16, u16)> = (0..14).map(|i| (40_000 + i, 50_001 + i)).collect();
        assert_eq!(keeps_parity(&allocations(&broken)), Some(false));
    }
}
