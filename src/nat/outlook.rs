//! "Will it work?": what two hosts can do, given what is known of the NAT in front of each.
//!
//! The rules follow from the facts and not from names:
//!
//! 1. A host that takes packets from anybody, or from any port of an address it wrote to, can be reached by whatever the
//!    other side turns out to send from. A plain simultaneous open is enough, even against random ports.
//! 2. Where both sides filter by address *and* port, each must know the exact port the other sends from. A mapping that
//!    does not depend on the peer gives that port away beforehand; a sequential one can be predicted; a random one can
//!    only be met by chance, by opening many ports and trying many (a birthday search).
//! 3. Two sides that both change ports in a way nobody can predict need a relay, unless the NAT gives a subscriber so
//!    few ports that both can be searched.
//!
//! Every pair was measured with plain sockets behind real packet filters (`tests/natlab`).

use serde::{Deserialize, Serialize};

use super::behaviour::Dependence;

/// A subscriber's ports at or below this number can be searched from both sides within a few seconds.
const SMALL_POOL: u32 = 512;

/// What is in front of a host, as far as meeting a peer is concerned.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Front {
    /// A public address and no filter.
    Open,
    /// A public address; packets from where nothing was sent are dropped.
    Firewall,
    /// Endpoint-independent mapping and filtering (full cone).
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering (restricted).
    Restricted,
    /// Endpoint-independent mapping, address-and-port-dependent filtering (port-restricted).
    PortRestricted,
    /// Address-dependent mapping: another port for each peer address.
    AddressDependent,
    /// Another port for each peer endpoint, one step from the last (symmetric, predictable).
    Sequential,
    /// Another port for each peer endpoint, at random (symmetric).
    Random,
    /// No UDP at all.
    Blocked,
}

impl Front {
    /// Every kind of front, the easiest first.
    pub const ALL: [Self; 9] = [
        Self::Open,
        Self::Firewall,
        Self::FullCone,
        Self::Restricted,
        Self::PortRestricted,
        Self::AddressDependent,
        Self::Sequential,
        Self::Random,
        Self::Blocked,
    ];

    /// Derives the front from facts. `nat` is whether addresses are translated, `predictable` whether the next port can
    /// be told from the last ones. Where only filtering is unknown the strictest is assumed, so that the outlook promises
    /// no more than is known; `None` where too much is missing.
    #[must_use]
    pub const fn from_facts(
        nat: Option<bool>,
        mapping: Option<Dependence>,
        filtering: Option<Dependence>,
        predictable: Option<bool>,
    ) -> Option<Self> {
        use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        match (nat, mapping) {
            (Some(false), _) => match filtering {
                Some(EndpointIndependent) => Some(Self::Open),
                _ => Some(Self::Firewall),
            },
            (_, Some(EndpointIndependent)) => match filtering {
                Some(EndpointIndependent) => Some(Self::FullCone),
                Some(AddressDependent) => Some(Self::Restricted),
                Some(AddressAndPortDependent) | None => Some(Self::PortRestricted),
            },
            (_, Some(AddressDependent)) => Some(Self::AddressDependent),
            (_, Some(AddressAndPortDependent)) => match predictable {
                Some(true) => Some(Self::Sequential),
                _ => Some(Self::Random),
            },
            (_, None) => None,
        }
    }

    /// A few words for a table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Firewall => "firewall only",
            Self::FullCone => "full cone",
            Self::Restricted => "restricted",
            Self::PortRestricted => "port-restricted",
            Self::AddressDependent => "address-dependent mapping",
            Self::Sequential => "symmetric, sequential",
            Self::Random => "symmetric, random",
            Self::Blocked => "UDP blocked",
        }
    }

    /// Takes the first packet of a stranger.
    const fn is_public(self) -> bool {
        matches!(self, Self::Open)
    }

    /// Hears a peer whose port it could not know: filters by nothing, or by address only, on a port the peer knows.
    const fn hears_any_port(self) -> bool {
        matches!(self, Self::Open | Self::FullCone | Self::Restricted)
    }

    /// Shows every peer the same port.
    const fn keeps_its_port(self) -> bool {
        matches!(self, Self::Open | Self::Firewall | Self::FullCone | Self::Restricted | Self::PortRestricted)
    }
}

impl std::fmt::Display for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How two hosts meet over UDP.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// One side writes to the other, nothing else.
    Direct,
    /// Both write to the address a server saw, at the same time.
    Punch,
    /// As [`Strategy::Punch`], with ports told from the step between mappings.
    PunchPredicted,
    /// As [`Strategy::Punch`], with hundreds of ports tried until two meet.
    PunchBirthday,
    /// Through a third host.
    Relay,
}

impl Strategy {
    /// A few words for a table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Punch => "punch",
            Self::PunchPredicted => "punch with port prediction",
            Self::PunchBirthday => "punch by birthday search",
            Self::Relay => "relay",
        }
    }
}

impl std::fmt::Display for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How this host meets one kind of peer, and why.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Prospect {
    /// What is in front of the peer.
    pub peer: Front,
    /// The cheapest way that works.
    pub strategy: Strategy,
    /// One sentence: why this and nothing cheaper.
    pub because: String,
}

/// The cheapest strategy that lets two hosts meet. `pool` is the number of ports either NAT chooses from, where known.
#[must_use]
pub const fn meet(a: Front, b: Front, pool: Option<u32>) -> Strategy {
    if matches!(a, Front::Blocked) || matches!(b, Front::Blocked) {
        return Strategy::Relay;
    }
    if a.is_public() || b.is_public() {
        return Strategy::Direct;
    }
    if a.hears_any_port() || b.hears_any_port() || (a.keeps_its_port() && b.keeps_its_port()) {
        return Strategy::Punch;
    }
    match (a, b) {
        // Two sequential sides: one probes straight, the other sweeps; they meet at the sum of the drifts.
        (Front::Sequential, Front::Sequential) => Strategy::PunchPredicted,
        (Front::Sequential, other) | (other, Front::Sequential) if other.keeps_its_port() => Strategy::PunchPredicted,
        (one, other) if one.keeps_its_port() || other.keeps_its_port() => Strategy::PunchBirthday,
        _ => match pool {
            Some(ports) if ports <= SMALL_POOL => Strategy::PunchBirthday,
            _ => Strategy::Relay,
        },
    }
}

/// How a host meets every kind of peer.
#[must_use]
pub fn table(own: Front, pool: Option<u32>) -> Vec<Prospect> {
    let prospect = |peer| {
        let strategy = meet(own, peer, pool);
        Prospect { peer, strategy, because: because(own, peer, strategy) }
    };
    Front::ALL.into_iter().map(prospect).collect()
}

fn because(own: Front, peer: Front, strategy: Strategy) -> String {
    let text = match strategy {
        Strategy::Direct if own.is_public() => "this host takes the first packet of anybody",
        Strategy::Direct => "the peer takes the first packet of anybody",
        Strategy::Punch if own.hears_any_port() => {
            "once this host has written to the peer, it hears every port of the peer's address"
        }
        Strategy::Punch if peer.hears_any_port() => {
            "once the peer has written to this host, it hears every port of this host's address"
        }
        Strategy::Punch => "both keep one port for all peers, so each knows where the other will send from",
        Strategy::PunchPredicted => "ports change with each peer, but by a step that can be told in advance",
        Strategy::PunchBirthday => "a port cannot be predicted, but with hundreds of tries from both sides two meet",
        Strategy::Relay if matches!(own, Front::Blocked) => "no UDP leaves this network",
        Strategy::Relay if matches!(peer, Front::Blocked) => "no UDP leaves the peer's network",
        Strategy::Relay => "both sides change to ports that nobody can predict",
    };
    text.to_owned()
}

/// What a person could change to meet more peers directly, plainly said; empty where nothing is to be gained.
/// `mapped` says whether a port-mapping protocol opened a port that was reached from outside.
#[must_use]
pub fn advice(own: Front, mapped: Option<bool>) -> Vec<String> {
    let mut advice = Vec::new();
    if mapped == Some(true) {
        advice.push(
            "The router opens ports on request: let the application ask it (UPnP IGD, NAT-PMP or PCP).".to_owned(),
        );
    }
    let wish = match own {
        Front::Open | Front::FullCone => return advice,
        Front::Firewall => "Allow the application's UDP port in the firewall, and this host is open to everybody.",
        Front::Restricted | Front::PortRestricted => {
            "Forward a UDP port to this host, or switch on UPnP or PCP in the router: symmetric peers then reach it too."
        }
        Front::AddressDependent | Front::Sequential | Front::Random => {
            "Forward a UDP port to this host, switch on UPnP or PCP, or set the router to endpoint-independent (cone) \
             mapping; without that, peers behind a like NAT need a relay."
        }
        Front::Blocked => "Allow outgoing UDP, or configure a relay that is reached over TCP or TLS on port 443.",
    };
    if mapped != Some(true) || matches!(own, Front::Firewall | Front::Blocked) {
        advice.push(wish.to_owned());
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_the_one_that_was_measured() {
        use Strategy::{Direct as D, Punch as P, PunchBirthday as B, PunchPredicted as S, Relay as R};
        let expected = [
            [D, D, D, D, D, D, D, D, R],
            [D, P, P, P, P, B, S, B, R],
            [D, P, P, P, P, P, P, P, R],
            [D, P, P, P, P, P, P, P, R],
            [D, P, P, P, P, B, S, B, R],
            [D, B, P, P, B, R, R, R, R],
            [D, S, P, P, S, R, S, R, R],
            [D, B, P, P, B, R, R, R, R],
            [R, R, R, R, R, R, R, R, R],
        ];
        for (own, row) in Front::ALL.into_iter().zip(expected) {
            let strategies: Vec<_> = table(own, None).iter().map(|prospect| prospect.strategy).collect();
            assert_eq!(strategies, row, "{own}");
        }
    }

    #[test]
    fn the_outlook_is_the_same_seen_from_either_side() {
        for a in Front::ALL {
            for b in Front::ALL {
                for pool in [None, Some(512), Some(28_232)] {
                    assert_eq!(meet(a, b, pool), meet(b, a, pool), "{a} and {b}");
                }
            }
        }
    }

    #[test]
    fn a_small_pool_turns_a_relay_into_a_birthday_search() {
        assert_eq!(meet(Front::Random, Front::Random, Some(512)), Strategy::PunchBirthday);
        assert_eq!(meet(Front::Random, Front::Random, Some(513)), Strategy::Relay);
        assert_eq!(meet(Front::Random, Front::Blocked, Some(512)), Strategy::Relay);
    }

    #[test]
    fn an_unknown_filter_promises_no_more_than_the_strictest() {
        let own = Front::from_facts(Some(true), Some(Dependence::EndpointIndependent), None, None);
        assert_eq!(own, Some(Front::PortRestricted));
        assert_eq!(Front::from_facts(Some(true), None, Some(Dependence::EndpointIndependent), None), None);
    }
}
