//! Mapping behaviour, judged from what servers saw (RFC 5780 section 4.3).
//!
//! One socket asks several destinations. Each pair of destinations is a test: two that share an address and differ in
//! port ask whether the port matters, two that differ in address ask whether the address matters. A socket *votes* for
//! the behaviours that all its pairs allow. Nothing here knows where the destinations came from: four endpoints of one
//! RFC 5780 server, three plain servers, or one server on two ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::nat::behaviour::Dependence::{self, AddressAndPortDependent, AddressDependent, EndpointIndependent};
use crate::nat::client::Slot;

/// What one server endpoint said about one local socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Sighting {
    /// The local socket.
    pub(super) slot: Slot,
    /// The destination of the request.
    pub(super) to: SocketAddr,
    /// The operator the destination belongs to: endpoints of one RFC 5780 server share a number.
    pub(super) server: usize,
    /// The mapped address it reported.
    pub(super) mapped: SocketAddr,
}

/// The outcome of [`judge`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Judgement {
    /// The behaviours that remain possible. Empty: the sightings contradict each other.
    pub(super) candidates: Vec<Dependence>,
    /// Sockets that voted.
    pub(super) votes: usize,
    /// Sockets whose own sightings, from one server, fit no behaviour.
    pub(super) odd: Vec<Slot>,
    /// Sockets about which servers contradict each other.
    pub(super) disputed: Vec<Slot>,
}

impl Judgement {
    /// The one behaviour that remains, seen on two sockets at least.
    pub(super) fn verdict(&self) -> Option<Dependence> {
        match self.candidates.as_slice() {
            [only] if self.is_settled() => Some(*only),
            _ => None,
        }
    }

    /// Whether two sockets agree, most sockets fit, and servers do not contradict each other.
    pub(super) fn is_settled(&self) -> bool {
        let unfit = self.odd.len() + self.disputed.len();
        self.votes >= 2 && unfit < self.votes && !self.servers_disagree() && !self.candidates.is_empty()
    }

    /// Whether servers contradict each other about more than one socket, or about the only one. A single disputed
    /// socket among others on which all agree is what a collision at the NAT looks like.
    pub(super) fn servers_disagree(&self) -> bool {
        self.disputed.len() >= 2 || (self.disputed.len() == 1 && self.votes < 2)
    }

    /// Whether the votes leave no behaviour, or odd sockets make up half.
    pub(super) fn is_contradictory(&self) -> bool {
        (self.votes > 0 && self.candidates.is_empty()) || self.odd.len() + self.disputed.len() >= self.votes.max(1)
    }

    /// Whether the mapping is known to depend on the peer, even where it is not known how far.
    pub(super) fn depends_on_peer(&self) -> Option<bool> {
        if !self.is_settled() {
            return None;
        }
        let independent = self.candidates.contains(&Dependence::EndpointIndependent);
        match (independent, self.candidates.len()) {
            (true, 1) => Some(false),
            (true, _) => None,
            (false, _) => Some(true),
        }
    }
}

/// Whether a pair of sightings on one socket is what `behaviour` does.
fn fits(behaviour: Dependence, a: &Sighting, b: &Sighting) -> bool {
    let same_mapping = a.mapped == b.mapped;
    match behaviour {
        Dependence::EndpointIndependent => same_mapping,
        Dependence::AddressDependent => same_mapping == (a.to.ip() == b.to.ip()),
        Dependence::AddressAndPortDependent => same_mapping == (a.to == b.to),
    }
}

fn candidates(sightings: &[Sighting]) -> Vec<Dependence> {
    let pairs = || {
        sightings.iter().enumerate().flat_map(move |(index, a)| sightings.iter().skip(index + 1).map(move |b| (a, b)))
    };
    Dependence::ALL.into_iter().filter(|behaviour| pairs().all(|(a, b)| fits(*behaviour, a, b))).collect()
}

/// Whether enough operators were asked on two ports of one address: all there are, or two.
fn is_port_witnessed(sightings: &[Sighting]) -> bool {
    let operators: BTreeSet<usize> = sightings.iter().map(|each| each.server).collect();
    let witnesses: BTreeSet<usize> = sightings
        .iter()
        .filter(|a| sightings.iter().any(|b| a.slot == b.slot && a.to.ip() == b.to.ip() && a.to != b.to))
        .map(|each| each.server)
        .collect();
    witnesses.len() >= operators.len().min(2)
}

/// Judges all sightings together.
///
/// A socket that fits no behaviour although each server by itself is consistent shows that servers contradict each
/// other: one lies, or the network treats them differently. A socket that is odd within one server is a collision (its
/// port was in use at the NAT) and has no vote; such sockets unsettle the rest only where they are not a minority.
pub(super) fn judge(sightings: &[Sighting]) -> Judgement {
    let mut by_slot: BTreeMap<Slot, Vec<Sighting>> = BTreeMap::new();
    for sighting in sightings {
        let seen = by_slot.entry(sighting.slot).or_default();
        if !seen.iter().any(|other| other.to == sighting.to && other.mapped == sighting.mapped) {
            seen.push(*sighting);
        }
    }
    let mut judgement = Judgement { candidates: Dependence::ALL.to_vec(), ..Judgement::default() };
    for (slot, seen) in by_slot {
        let destinations: BTreeSet<SocketAddr> = seen.iter().map(|each| each.to).collect();
        if destinations.len() < 2 {
            continue;
        }
        let own = candidates(&seen);
        if own.is_empty() {
            let servers: BTreeSet<usize> = seen.iter().map(|each| each.server).collect();
            let odd_within = servers.iter().any(|server| {
                let of_one: Vec<Sighting> = seen.iter().filter(|each| each.server == *server).copied().collect();
                candidates(&of_one).is_empty()
            });
            if odd_within {
                judgement.odd.push(slot);
            } else {
                judgement.disputed.push(slot);
            }
            continue;
        }
        judgement.votes += 1;
        judgement.candidates.retain(|candidate| own.contains(candidate));
    }
    if judgement.votes == 0 {
        judgement.candidates.clear();
    }
    if !is_port_witnessed(sightings) && judgement.candidates.iter().any(|candidate| *candidate != EndpointIndependent) {
        // The word of one operator among several does not decide how far the dependence goes.
        judgement.candidates.retain(|candidate| *candidate == EndpointIndependent);
        judgement.candidates.extend([AddressDependent, AddressAndPortDependent]);
    }
    judgement
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINTS: [&str; 4] = ["11.0.0.1:1", "11.0.0.1:2", "11.0.0.2:1", "11.0.0.2:2"];

    fn sightings(slot: u16, server: usize, seen: &[(&str, u16)]) -> Vec<Sighting> {
        seen.iter()
            .map(|(to, port)| Sighting {
                slot: Slot(slot),
                to: to.parse().expect("an address"),
                server,
                mapped: SocketAddr::from(([12, 0, 0, 1], *port)),
            })
            .collect()
    }

    fn four(slot: u16, ports: [u16; 4]) -> Vec<Sighting> {
        sightings(slot, 0, &std::array::from_fn::<_, 4, _>(|index| (ENDPOINTS[index], ports[index])))
    }

    #[test]
    fn four_endpoints_tell_the_three_behaviours_apart() {
        let cases = [
            ([5, 5, 5, 5], Dependence::EndpointIndependent),
            ([5, 5, 6, 6], Dependence::AddressDependent),
            ([5, 6, 7, 8], Dependence::AddressAndPortDependent),
        ];
        for (ports, behaviour) in cases {
            let seen = [four(0, ports), four(1, ports)].concat();
            assert_eq!(judge(&seen).verdict(), Some(behaviour));
            assert_eq!(judge(&four(0, ports)).verdict(), None, "one socket is not enough");
        }
    }

    #[test]
    fn two_plain_servers_know_independence_but_not_how_far_dependence_goes() {
        let pair =
            |slot, a, b| [sightings(slot, 0, &[("11.0.0.1:1", a)]), sightings(slot, 1, &[("12.0.0.1:1", b)])].concat();
        let same = judge(&[pair(0, 5, 5), pair(1, 6, 6)].concat());
        assert_eq!(same.verdict(), Some(Dependence::EndpointIndependent));
        let different = judge(&[pair(0, 5, 6), pair(1, 7, 8)].concat());
        assert_eq!((different.verdict(), different.depends_on_peer()), (None, Some(true)));
    }

    #[test]
    fn one_operator_of_two_does_not_decide_whether_the_port_matters() {
        let seen = |slot: u16, a| [four(slot, [1, 2, 3, 4]), sightings(slot, 1, &[("12.0.0.1:1", a)])].concat();
        let judgement = judge(&[seen(0, 8), seen(1, 9)].concat());
        assert_eq!((judgement.verdict(), judgement.depends_on_peer()), (None, Some(true)));
    }

    #[test]
    fn a_socket_that_collided_has_no_vote() {
        let seen = [four(0, [5, 5, 5, 9]), four(1, [6, 6, 6, 6])].concat();
        assert!(!judge(&seen).is_settled(), "one vote against one oddity");
        let seen = [seen, four(2, [7, 7, 7, 7])].concat();
        let judgement = judge(&seen);
        assert_eq!(judgement.verdict(), Some(Dependence::EndpointIndependent));
        assert_eq!(judgement.odd, [Slot(0)]);
    }

    #[test]
    fn sockets_that_vote_for_different_behaviours_leave_nothing() {
        let judgement = judge(&[four(0, [5, 5, 5, 5]), four(1, [6, 7, 8, 9]), four(2, [1, 1, 1, 1])].concat());
        assert_eq!((judgement.verdict(), judgement.is_settled()), (None, false));
    }

    #[test]
    fn one_server_that_differs_from_two_is_a_disagreement() {
        let seen: Vec<Sighting> = (0..3)
            .flat_map(|slot| {
                [
                    sightings(slot, 0, &[("11.0.0.1:1", 5)]),
                    sightings(slot, 1, &[("12.0.0.1:1", 5)]),
                    sightings(slot, 2, &[("13.0.0.1:1", 4_000)]),
                ]
                .concat()
            })
            .collect();
        let judgement = judge(&seen);
        assert!(judgement.servers_disagree() && judgement.verdict().is_none());
    }
}
