//! NAT behaviour for TCP (RFC 5382): what the addresses seen by STUN servers and the calls back from them add up to.
//!
//! The exchange, carried out by [`driver`]:
//!
//! 1. A connection from a fresh local port to the first server gives the mapped address, OTHER-ADDRESS where the server
//!    follows RFC 5780, and a mark where it offers to call back (DIAL-BACK).
//! 2. From the same local port, connections to the other addresses and ports: *mapping*. The local port can be shared
//!    because each connection has another destination.
//! 3. Two more local ports each hold a connection to one address open and listen. A server is asked, over a connection of
//!    its own, to call the mapped address of one of them from a port it never used: *filtering*. One of them is called by
//!    an address it never wrote to, the other by a new port of the address it did write to.
//!
//! Here is only the judgement, without I/O.

pub mod driver;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::behaviour::{Class, Dependence, Fact};

/// One connection and how its server saw it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sighting {
    /// The local address and port.
    pub local: SocketAddr,
    /// The server that was connected to.
    pub server: SocketAddr,
    /// The address and port it saw.
    pub mapped: SocketAddr,
}

/// A call back to a port that listens behind a mapping which is held open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Call {
    /// Whether the caller's address had been written to from that port.
    pub known_address: bool,
    /// Whether the call arrived; `None` where the server was not able or willing to call.
    pub arrived: Option<bool>,
}

/// Everything the driver saw.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    /// Connections from one local port, in the order they were tried.
    pub sightings: Vec<Sighting>,
    /// Calls back.
    pub calls: Vec<Call>,
    /// Servers that were tried.
    pub servers: usize,
    /// Servers that refused the connection or closed it without an answer: somebody is there, but no STUN over TCP.
    pub refused: usize,
    /// Whether a web server answered where a STUN server was asked: something on the way takes connections over.
    pub intercepted: bool,
    /// The shortest time a connection took.
    pub round_trip: Option<Duration>,
    /// Bytes of payload sent.
    pub sent_bytes: u64,
}

/// What follows for TCP in one address family.
#[derive(Clone, Debug, Default)]
pub struct StreamFindings {
    /// The old name that follows from the facts.
    pub class: Class,
    /// Whether any server answered.
    pub answered: bool,
    /// Whether a web server answered where a STUN server was asked.
    pub intercepted: bool,
    /// The local address of the first connection.
    pub local: Option<SocketAddr>,
    /// How it was seen from outside.
    pub mapped: Option<SocketAddr>,
    /// Whether addresses or ports are translated.
    pub nat: Fact<bool>,
    /// Mapping behaviour.
    pub mapping: Fact<Dependence>,
    /// Filtering behaviour.
    pub filtering: Fact<Dependence>,
    /// Whether the outer port equals the inner one.
    pub preserves_port: Fact<bool>,
    /// The shortest time a connection took.
    pub round_trip: Option<Duration>,
}

/// Derives facts from what was seen.
#[must_use]
pub fn judge(seen: &Observations) -> StreamFindings {
    let first = seen.sightings.first().copied();
    let (nat, mapping, filtering) = (nat(seen), mapping(&seen.sightings), filtering(&seen.calls));
    let class = match (seen.sightings.is_empty(), nat.value, mapping.value) {
        (true, ..) => Class::Unknown,
        _ => Class::from_facts(nat.value, mapping.value, filtering.value),
    };
    StreamFindings {
        class,
        answered: first.is_some(),
        intercepted: seen.intercepted,
        local: first.map(|sighting| sighting.local),
        mapped: first.map(|sighting| sighting.mapped),
        nat,
        mapping,
        filtering,
        preserves_port: preservation(&seen.sightings),
        round_trip: seen.round_trip,
    }
}

fn nat(seen: &Observations) -> Fact<bool> {
    let translated = seen.sightings.iter().filter(|sighting| sighting.local != sighting.mapped).count();
    match (translated, seen.sightings.len()) {
        (_, 0) if seen.refused > 0 => {
            Fact::unknown(format!("{} of {} servers refuse STUN over TCP", seen.refused, seen.servers))
        }
        (_, 0) => Fact::unknown("no server answered over TCP"),
        (0, _) => Fact::known(false, "servers see the local address and port unchanged", Vec::new()),
        (some, all) if some == all => Fact::known(true, "servers see another address or port", Vec::new()),
        (some, all) => Fact::unknown(format!("servers disagree: {some} of {all} connections were translated")),
    }
}

fn mapping(sightings: &[Sighting]) -> Fact<Dependence> {
    let pairs = || {
        sightings
            .iter()
            .enumerate()
            .flat_map(|(index, one)| sightings.iter().skip(index.saturating_add(1)).map(move |other| (one, other)))
            .filter(|(one, other)| one.local == other.local && one.server != other.server)
    };
    let same_address = |(one, other): &(&Sighting, &Sighting)| one.server.ip() == other.server.ip();
    let equal = |(one, other): (&Sighting, &Sighting)| one.mapped == other.mapped;
    let same: Vec<bool> = pairs().filter(same_address).map(equal).collect();
    let other: Vec<bool> = pairs().filter(|pair| !same_address(pair)).map(equal).collect();
    if same.is_empty() && other.is_empty() {
        return Fact::unknown("fewer than two servers answered over TCP from one local port");
    }
    let known = |value, because: &str| Fact::known(value, because, Vec::new());
    let all = |values: &[bool]| !values.is_empty() && values.iter().all(|value| *value);
    let none = |values: &[bool]| !values.is_empty() && values.iter().all(|value| !*value);
    match () {
        () if all(&other) && (same.is_empty() || all(&same)) => {
            known(Dependence::EndpointIndependent, "one mapped address towards different server addresses")
        }
        () if none(&other) && all(&same) => {
            known(Dependence::AddressDependent, "one mapped address per server address, whatever the port")
        }
        () if none(&same) && (other.is_empty() || none(&other)) => {
            known(Dependence::AddressAndPortDependent, "another mapped address towards every port of a server")
        }
        () if none(&other) && same.is_empty() => {
            Fact::unknown("the mapping depends on the peer, but no server has two ports to tell how far")
        }
        () if other.is_empty() => {
            Fact::unknown("one mapped address towards two ports of one server; no second server address to compare")
        }
        () => Fact::unknown("servers contradict each other"),
    }
}

fn filtering(calls: &[Call]) -> Fact<Dependence> {
    let arrived = |known: bool| {
        let mut outcomes = calls.iter().filter(|call| call.known_address == known).filter_map(|call| call.arrived);
        let first = outcomes.next()?;
        Some(outcomes.fold(first, |any, one| any || one))
    };
    let known = |value, because: &str| Fact::known(value, because, Vec::new());
    match (arrived(false), arrived(true)) {
        (Some(true), _) => {
            known(Dependence::EndpointIndependent, "a call from an address that was never written to arrived")
        }
        (Some(false), Some(true)) => known(
            Dependence::AddressDependent,
            "a call from a new port of a known address arrived, one from an unknown address did not",
        ),
        (Some(false), Some(false)) => known(
            Dependence::AddressAndPortDependent,
            "calls from a new port of a known address and from an unknown address did not arrive",
        ),
        (None, Some(false)) => {
            known(Dependence::AddressAndPortDependent, "a call from a new port of a known address did not arrive")
        }
        (None, Some(true)) => {
            Fact::unknown("a call from a new port of a known address arrived; no unknown address to be called from")
        }
        (Some(false), None) => {
            Fact::unknown("a call from an unknown address did not arrive; none was made from a known one")
        }
        (None, None) => Fact::unknown("no server offers to call back over TCP"),
    }
}

fn preservation(sightings: &[Sighting]) -> Fact<bool> {
    let kept = sightings.iter().filter(|sighting| sighting.local.port() == sighting.mapped.port()).count();
    match (kept, sightings.len()) {
        (_, 0) => Fact::unknown("no mapped address over TCP"),
        (0, _) => Fact::known(false, "the outer port differs from the inner one", Vec::new()),
        (some, all) if some == all => Fact::known(true, "the outer port equals the inner one", Vec::new()),
        (some, all) => Fact::known(false, format!("the port was kept in {some} of {all} connections"), Vec::new()),
    }
}

/// The other addresses and ports of a server worth connecting to: the other port first, because it tells most about the
/// port alone.
fn alternates(primary: SocketAddr, other: SocketAddr) -> Vec<SocketAddr> {
    let mut targets = Vec::new();
    if other.is_ipv4() != primary.is_ipv4() {
        return targets;
    }
    let same_port = |ip: IpAddr| SocketAddr::new(ip, primary.port());
    for target in [SocketAddr::new(primary.ip(), other.port()), same_port(other.ip()), other] {
        if target != primary && !targets.contains(&target) {
            targets.push(target);
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(points: &[(&str, &str)]) -> Vec<Sighting> {
        let local = "192.168.1.2:4000".parse().expect("an address");
        let sighting = |&(server, mapped): &(&str, &str)| Sighting {
            local,
            server: server.parse().expect("an address"),
            mapped: mapped.parse().expect("an address"),
        };
        points.iter().map(sighting).collect()
    }

    #[test]
    fn mapping_is_told_from_the_destinations_that_share_a_port() {
        use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        let (a1, a2) = ("11.0.0.1:3478", "11.0.0.1:3479");
        let (b1, b2) = ("12.0.0.1:3478", "12.0.0.1:3479");
        let (m, n, o, p) = ("13.0.0.1:1", "13.0.0.1:2", "13.0.0.1:3", "13.0.0.1:4");
        for (points, expected) in [
            (vec![(a1, m), (a2, m), (b1, m), (b2, m)], Some(EndpointIndependent)),
            (vec![(a1, m), (b1, m)], Some(EndpointIndependent)),
            (vec![(a1, m), (a2, m), (b1, n), (b2, n)], Some(AddressDependent)),
            (vec![(a1, m), (a2, n), (b1, o), (b2, p)], Some(AddressAndPortDependent)),
            (vec![(a1, m), (a2, n)], Some(AddressAndPortDependent)),
            (vec![(a1, m), (b1, n)], None),
            (vec![(a1, m), (a2, m)], None),
            (vec![(a1, m)], None),
            (vec![], None),
            (vec![(a1, m), (a2, m), (b1, m), (b2, n)], None),
        ] {
            assert_eq!(mapping(&seen(&points)).value, expected, "{points:?}");
        }
    }

    #[test]
    fn filtering_is_known_only_from_calls_that_were_made() {
        use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        for (stranger, acquaintance, expected) in [
            (Some(true), Some(true), Some(EndpointIndependent)),
            (Some(true), None, Some(EndpointIndependent)),
            (Some(false), Some(true), Some(AddressDependent)),
            (Some(false), Some(false), Some(AddressAndPortDependent)),
            (None, Some(false), Some(AddressAndPortDependent)),
            (None, Some(true), None),
            (Some(false), None, None),
            (None, None, None),
        ] {
            let calls =
                [Call { known_address: false, arrived: stranger }, Call { known_address: true, arrived: acquaintance }];
            assert_eq!(filtering(&calls).value, expected, "{calls:?}");
        }
    }

    #[test]
    fn a_refused_connection_is_not_a_blocked_network() {
        let findings = judge(&Observations { servers: 2, refused: 2, ..Observations::default() });
        assert_eq!((findings.class, findings.nat.value, findings.answered), (Class::Unknown, None, false));
    }

    #[test]
    fn alternates_are_three_for_two_addresses_and_one_for_a_second_port() {
        let primary: SocketAddr = "11.0.0.1:3478".parse().expect("an address");
        assert_eq!(alternates(primary, "12.0.0.1:3479".parse().expect("an address")).len(), 3);
        assert_eq!(alternates(primary, "11.0.0.1:3479".parse().expect("an address")).len(), 1);
        assert_eq!(alternates(primary, "[2a00::1]:3479".parse().expect("an address")).len(), 0);
    }
}
