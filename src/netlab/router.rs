//! What a router of the lab does, in the terms of RFC 4787.

use std::time::Duration;

/// Which mapping a NAT uses for a second destination (RFC 4787 section 4.1), the most useful first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Mapping {
    /// One mapping for every destination.
    EndpointIndependent,
    /// One mapping for each destination address.
    AddressDependent,
    /// One mapping for each destination address and port.
    AddressAndPortDependent,
    /// Whatever Linux masquerading does: the port is kept for every destination towards which no other flow holds it,
    /// which looks independent of the endpoint until a second host uses the same port.
    Masquerade,
}

/// Whose packets a mapping lets in (RFC 4787 section 5), the most open first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Filtering {
    /// Everybody's.
    EndpointIndependent,
    /// Those of addresses the host has sent to.
    AddressDependent,
    /// Those of addresses and ports the host has sent to.
    AddressAndPortDependent,
}

/// How the external port of a new mapping is chosen (RFC 4787 section 4.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ports {
    /// The internal port while it is free, otherwise a random one.
    Preserve,
    /// A random port of this range, both ends included.
    Random(u16, u16),
    /// The port of the mapping before plus this step.
    Sequential(u16),
    /// A random port of a block of this many ports that belongs to the internal address alone.
    Block(u16),
}

/// What becomes of a packet from outside that no mapping or rule lets in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unsolicited {
    /// It is dropped without a word.
    Drop,
    /// It is answered: ICMP port unreachable for UDP, a reset for TCP.
    Refuse,
    /// The router takes it for its own, answers that nobody listens, and keeps the flow in its connection table, where
    /// it stands in the way of a later flow from inside to the same endpoint.
    Accept,
}

/// A translator of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Nat {
    /// Which mapping a second destination gets.
    pub mapping: Mapping,
    /// Whose packets a mapping lets in.
    pub filtering: Filtering,
    /// How external ports are chosen.
    pub ports: Ports,
    /// How many external addresses there are, 1 to 4. With more than one, each internal endpoint gets one of them,
    /// which is the "arbitrary" pooling of RFC 4787 section 4.1; the ports must be random then.
    pub addresses: u8,
    /// Whether a host reaches a neighbour, or itself, through the external endpoint (RFC 4787 section 6).
    pub hairpin: bool,
    /// How long an idle UDP mapping lives.
    pub lifetime: Duration,
    /// Whether a packet from outside keeps a UDP mapping alive (RFC 4787 REQ-6 allows both). A NAT that says no must
    /// map independently of the endpoint and have one address.
    pub inbound_refresh: bool,
    /// What becomes of packets nobody asked for.
    pub unsolicited: Unsolicited,
}

impl Nat {
    /// The commonest home router: endpoint-independent mapping, address- and port-dependent filtering, preserved ports,
    /// no hairpin, two minutes.
    pub const PORT_RESTRICTED: Self = Self {
        mapping: Mapping::EndpointIndependent,
        filtering: Filtering::AddressAndPortDependent,
        ports: Ports::Preserve,
        addresses: 1,
        hairpin: false,
        lifetime: Duration::from_secs(120),
        inbound_refresh: true,
        unsolicited: Unsolicited::Drop,
    };

    /// A router with a fresh random port for each destination.
    pub const SYMMETRIC: Self =
        Self { mapping: Mapping::AddressAndPortDependent, ports: Ports::Random(1024, 65_535), ..Self::PORT_RESTRICTED };
}

/// How one address family passes a router.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gate {
    /// Routed, nothing filtered; the hosts have public addresses.
    Open,
    /// Routed, and packets from outside come in as far as the filtering allows.
    Firewall(Filtering, Unsolicited),
    /// Translated; the hosts have private addresses.
    Translate(Nat),
}

/// What a router does beyond passing packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Restriction {
    /// Nothing.
    None,
    /// UDP passes in neither direction.
    NoUdp,
    /// No fragment passes.
    NoFragments,
    /// UDP is dropped and every TCP connection ends at a web server of the router's owner, [`super::world::PORTAL`].
    CaptivePortal,
}

/// One router, from the hosts' side to the next router or the public segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Router {
    /// What happens to IPv4.
    pub v4: Gate,
    /// What happens to IPv6, where there is any.
    pub v6: Option<Gate>,
    /// What else it does.
    pub restriction: Restriction,
}

impl Router {
    /// A router for IPv4 only.
    #[must_use]
    pub const fn v4(gate: Gate) -> Self {
        Self { v4: gate, v6: None, restriction: Restriction::None }
    }

    /// A translating router for IPv4 only.
    #[must_use]
    pub const fn nat(nat: Nat) -> Self {
        Self::v4(Gate::Translate(nat))
    }
}
