//! The kinds of router that have a name.

use std::time::Duration;

use super::router::{Filtering, Gate, Mapping, Nat, Ports, Restriction, Router, Unsolicited};

/// A named way to be connected: one router or a chain of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kind {
    /// The name on the command line.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// The routers, the host's own first.
    pub routers: &'static [Router],
    /// Whether the routers between host and public segment use 100.64/10 (RFC 6598) instead of a private network.
    pub carrier: bool,
}

/// What a right diagnosis says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Truth {
    /// Whether UDP passes at all; if not, the rest cannot be known over UDP.
    pub udp: bool,
    /// Whether addresses are translated.
    pub translated: bool,
    /// The mapping behaviour, never [`Mapping::Masquerade`].
    pub mapping: Mapping,
    /// The filtering behaviour.
    pub filtering: Filtering,
}

const PORT_RESTRICTED: Nat = Nat::PORT_RESTRICTED;
const SYMMETRIC: Nat = Nat::SYMMETRIC;

const fn sequential(step: u16) -> Nat {
    Nat { ports: Ports::Sequential(step), ..SYMMETRIC }
}

const fn kind(name: &'static str, about: &'static str, routers: &'static [Router]) -> Kind {
    Kind { name, about, routers, carrier: false }
}

impl Kind {
    /// Every kind, the common ones first.
    pub const ALL: &'static [Self] = &[
        kind(
            "open",
            "a public address and no filter, IPv4 and IPv6",
            &[Router { v6: Some(Gate::Open), ..Router::v4(Gate::Open) }],
        ),
        kind(
            "firewall",
            "a public address behind a firewall that lets answers in",
            &[Router::v4(Gate::Firewall(Filtering::AddressAndPortDependent, Unsolicited::Drop))],
        ),
        kind(
            "full-cone",
            "one mapping for all destinations, open to everybody",
            &[Router::nat(Nat { filtering: Filtering::EndpointIndependent, ..PORT_RESTRICTED })],
        ),
        kind(
            "address-restricted",
            "one mapping for all destinations, open to addresses the host has sent to",
            &[Router::nat(Nat { filtering: Filtering::AddressDependent, ..PORT_RESTRICTED })],
        ),
        kind(
            "port-restricted",
            "one mapping for all destinations, open to endpoints the host has sent to",
            &[Router::nat(PORT_RESTRICTED)],
        ),
        kind("symmetric", "a new random port for each destination", &[Router::nat(SYMMETRIC)]),
        kind(
            "symmetric-sequential",
            "a new port for each destination, one more than the last",
            &[Router::nat(sequential(1))],
        ),
        kind(
            "hairpin",
            "port-restricted, and hosts reach each other through their external endpoints",
            &[Router::nat(Nat { hairpin: true, ..PORT_RESTRICTED })],
        ),
        kind(
            "double-nat",
            "a port-restricted router behind another",
            &[Router::nat(PORT_RESTRICTED), Router::nat(PORT_RESTRICTED)],
        ),
        kind(
            "udp-blocked",
            "port-restricted for TCP; UDP does not pass",
            &[Router { restriction: Restriction::NoUdp, ..Router::nat(PORT_RESTRICTED) }],
        ),
        kind(
            "short-lifetime",
            "port-restricted, mappings live 5 seconds",
            &[Router::nat(Nat { lifetime: Duration::from_secs(5), ..PORT_RESTRICTED })],
        ),
        kind(
            "ipv6-firewall",
            "port-restricted for IPv4; public IPv6 behind a firewall",
            &[Router {
                v6: Some(Gate::Firewall(Filtering::AddressAndPortDependent, Unsolicited::Drop)),
                ..Router::nat(PORT_RESTRICTED)
            }],
        ),
        kind(
            "symmetric-step-2",
            "a new port for each destination, two more than the last",
            &[Router::nat(sequential(2))],
        ),
        kind(
            "symmetric-step-256",
            "a new port for each destination, 256 more than the last",
            &[Router::nat(sequential(256))],
        ),
        kind(
            "address-dependent",
            "a new random port for each destination address",
            &[Router::nat(Nat { mapping: Mapping::AddressDependent, ..SYMMETRIC })],
        ),
        kind(
            "address-dependent-open",
            "a new random port for each destination address, open to that address",
            &[Router::nat(Nat {
                mapping: Mapping::AddressDependent,
                filtering: Filtering::AddressDependent,
                ..SYMMETRIC
            })],
        ),
        kind(
            "symmetric-open",
            "a new random port for each destination, each open to everybody",
            &[Router::nat(Nat { filtering: Filtering::EndpointIndependent, ..SYMMETRIC })],
        ),
        kind(
            "address-pool",
            "four external addresses, one for each internal endpoint",
            &[Router::nat(Nat { addresses: 4, ports: Ports::Random(1024, 65_535), ..PORT_RESTRICTED })],
        ),
        kind(
            "port-blocks",
            "a new random port for each destination out of 512 that belong to the host",
            &[Router::nat(Nat { ports: Ports::Block(512), ..SYMMETRIC })],
        ),
        kind(
            "random-cone",
            "full cone with random ports",
            &[Router::nat(Nat {
                filtering: Filtering::EndpointIndependent,
                ports: Ports::Random(1024, 65_535),
                ..PORT_RESTRICTED
            })],
        ),
        kind(
            "refusing",
            "port-restricted, unsolicited packets are refused aloud",
            &[Router::nat(Nat { unsolicited: Unsolicited::Refuse, ..PORT_RESTRICTED })],
        ),
        kind(
            "poisoned",
            "port-restricted, unsolicited packets leave a trace that moves the next mapping",
            &[Router::nat(Nat { mapping: Mapping::Masquerade, unsolicited: Unsolicited::Accept, ..PORT_RESTRICTED })],
        ),
        kind(
            "outbound-refresh",
            "full cone, mappings live 5 seconds and only packets from inside keep them alive",
            &[Router::nat(Nat {
                filtering: Filtering::EndpointIndependent,
                lifetime: Duration::from_secs(5),
                inbound_refresh: false,
                ..PORT_RESTRICTED
            })],
        ),
        kind(
            "no-fragments",
            "port-restricted, fragments are dropped",
            &[Router { restriction: Restriction::NoFragments, ..Router::nat(PORT_RESTRICTED) }],
        ),
        kind(
            "refusing-firewall",
            "a public address behind a firewall that refuses aloud",
            &[Router::v4(Gate::Firewall(Filtering::AddressAndPortDependent, Unsolicited::Refuse))],
        ),
        kind(
            "address-firewall",
            "a public address behind a firewall that is open to addresses the host has sent to",
            &[Router::v4(Gate::Firewall(Filtering::AddressDependent, Unsolicited::Drop))],
        ),
        Kind {
            carrier: true,
            ..kind(
                "cgnat",
                "a port-restricted router behind a carrier's symmetric one, 100.64/10 between them",
                &[Router::nat(PORT_RESTRICTED), Router::nat(SYMMETRIC)],
            )
        },
        kind(
            "nat66",
            "port-restricted for IPv4, and IPv6 is translated too",
            &[Router {
                v6: Some(Gate::Translate(Nat { mapping: Mapping::Masquerade, ..PORT_RESTRICTED })),
                ..Router::nat(PORT_RESTRICTED)
            }],
        ),
        kind(
            "captive-portal",
            "UDP is dropped and every TCP connection ends at a web server",
            &[Router { restriction: Restriction::CaptivePortal, ..Router::nat(PORT_RESTRICTED) }],
        ),
    ];

    /// What a right diagnosis says about IPv4 and UDP behind this kind.
    #[must_use]
    pub fn truth(&self) -> Truth {
        let mut truth = Truth {
            udp: true,
            translated: false,
            mapping: Mapping::EndpointIndependent,
            filtering: Filtering::EndpointIndependent,
        };
        for router in self.routers {
            truth.udp &= !matches!(router.restriction, Restriction::NoUdp | Restriction::CaptivePortal);
            let (mapping, filtering) = match router.v4 {
                Gate::Open => continue,
                Gate::Firewall(filtering, _) => (Mapping::EndpointIndependent, filtering),
                Gate::Translate(nat) => {
                    truth.translated = true;
                    // One host alone cannot tell the two apart.
                    let mapping =
                        if nat.mapping == Mapping::Masquerade { Mapping::EndpointIndependent } else { nat.mapping };
                    (mapping, nat.filtering)
                }
            };
            // In a chain the strictest decides.
            truth.mapping = truth.mapping.max(mapping);
            truth.filtering = truth.filtering.max(filtering);
        }
        truth
    }

    /// Finds a kind by its name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|kind| kind.name == name)
    }
}
