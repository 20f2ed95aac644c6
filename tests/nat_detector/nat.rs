//! Models of NATs and firewalls: what a packet becomes on its way out, and whether one gets in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use fabric::nat::behaviour::Dependence;
use rand::RngExt as _;
use rand::rngs::StdRng;

/// How outer ports are chosen.
#[derive(Clone, Debug)]
pub(crate) enum Ports {
    /// The inner port where it is free, else a random one.
    Preserve,
    /// The inner port plus a constant.
    Offset(u16),
    /// A counter with a step, wrapping in a range.
    Sequential { step: i32, low: u16, high: u16 },
    /// Random in a range.
    Random { low: u16, high: u16 },
    /// Random in a range, of the inner port's parity.
    RandomSameParity { low: u16, high: u16 },
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// `None`: no translation.
    pub(crate) mapping: Option<Dependence>,
    pub(crate) filtering: Dependence,
    pub(crate) ports: Ports,
    /// Outer addresses.
    pub(crate) pool: Vec<IpAddr>,
    /// Whether one inner host keeps one outer address.
    pub(crate) paired: bool,
    /// A flow table as Linux has: endpoint independent only while no other flow holds the port.
    pub(crate) linux: bool,
    /// Whether the box accepts unasked packets for itself, which leaves flow entries.
    pub(crate) poisonable: bool,
    /// Idle life of a mapping.
    pub(crate) lifetime: Duration,
    pub(crate) refreshed_by_inbound: bool,
    pub(crate) refreshed_by_outbound: bool,
    /// Mappings other hosts behind the box make, on average, before each of ours.
    pub(crate) neighbours: f64,
    /// UDP goes nowhere.
    pub(crate) blocked: bool,
    /// Blocked UDP draws ICMP errors.
    pub(crate) refuses: bool,
    /// Turns packets round that a host sends to an outer address of the box.
    pub(crate) hairpin: bool,
    /// Rewrites MAPPED-ADDRESS in answers to the inner address.
    pub(crate) rewrites: bool,
    /// Datagrams with more payload than this need fragments.
    pub(crate) mtu_payload: usize,
    pub(crate) passes_fragments: bool,
}

impl Model {
    pub(crate) fn new(mapping: Option<Dependence>, filtering: Dependence) -> Self {
        Self {
            mapping,
            filtering,
            ports: Ports::Random { low: 1_024, high: 65_535 },
            pool: vec![IpAddr::from([12, 0, 0, 1])],
            paired: true,
            linux: false,
            poisonable: false,
            lifetime: Duration::from_secs(120),
            refreshed_by_inbound: true,
            refreshed_by_outbound: true,
            neighbours: 0.0,
            blocked: false,
            refuses: false,
            hairpin: false,
            rewrites: false,
            mtu_payload: 1_472,
            passes_fragments: true,
        }
    }

    /// Plain Linux masquerade.
    pub(crate) fn masquerade(poisonable: bool) -> Self {
        Self {
            ports: Ports::Preserve,
            linux: true,
            poisonable,
            ..Self::new(Some(Dependence::EndpointIndependent), Dependence::AddressAndPortDependent)
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Key {
    Endpoint(SocketAddr),
    Address(SocketAddr, IpAddr),
    AddressAndPort(SocketAddr, SocketAddr),
}

#[derive(Clone, Debug)]
struct Entry {
    outer: SocketAddr,
    inner: SocketAddr,
    peers: BTreeSet<SocketAddr>,
    used: Instant,
}

pub(crate) struct Nat {
    pub(crate) model: Model,
    entries: BTreeMap<Key, Entry>,
    /// Flow entries unasked packets left: remote and outer port.
    poison: BTreeMap<(SocketAddr, u16), Instant>,
    counter: i32,
    rng: StdRng,
    /// Mappings made.
    pub(crate) made: usize,
}

impl Nat {
    pub(crate) fn new(model: Model, mut rng: StdRng) -> Self {
        let counter = match model.ports {
            Ports::Sequential { low, high, .. } => rng.random_range(i32::from(low)..=i32::from(high)),
            _ => 0,
        };
        Self { model, entries: BTreeMap::new(), poison: BTreeMap::new(), counter, rng, made: 0 }
    }

    fn key(&self, inner: SocketAddr, to: SocketAddr) -> Key {
        if self.model.linux {
            return Key::AddressAndPort(inner, to);
        }
        match self.model.mapping {
            None | Some(Dependence::EndpointIndependent) => Key::Endpoint(inner),
            Some(Dependence::AddressDependent) => Key::Address(inner, to.ip()),
            Some(Dependence::AddressAndPortDependent) => Key::AddressAndPort(inner, to),
        }
    }

    fn alive(&self, entry: &Entry, now: Instant) -> bool {
        now < entry.used + self.model.lifetime
    }

    /// Sends a packet out; returns the source it leaves with.
    pub(crate) fn outbound(&mut self, now: Instant, inner: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        if self.model.blocked {
            return None;
        }
        let key = self.key(inner, to);
        let lifetime = self.model.lifetime;
        self.entries.retain(|_, entry| now < entry.used + lifetime);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.peers.insert(to);
            if self.model.refreshed_by_outbound {
                entry.used = now;
            }
            return Some(entry.outer);
        }
        let outer = self.allocate(now, inner, to)?;
        self.made += 1;
        self.entries.insert(key, Entry { outer, inner, peers: BTreeSet::from([to]), used: now });
        Some(outer)
    }

    fn allocate(&mut self, now: Instant, inner: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        if self.model.mapping.is_none() {
            return Some(inner);
        }
        let paired = self.model.paired || self.model.pool.len() == 1;
        let index = if paired { 0 } else { self.rng.random_range(0..self.model.pool.len()) };
        let ip = *self.model.pool.get(index)?;
        let mut neighbours = self.model.neighbours;
        while neighbours > 0.0 && self.rng.random_bool((neighbours / (1.0 + neighbours)).min(0.9)) {
            neighbours *= 0.7;
            self.choose(inner.port());
        }
        for attempt in 0..2_000 {
            let port = match (&self.model.ports, attempt) {
                (Ports::Preserve, 0) => inner.port(),
                (Ports::Preserve, _) => self.rng.random_range(1_024..=65_535),
                _ => self.choose(inner.port()),
            };
            let outer = SocketAddr::new(ip, port);
            if self.is_free(now, outer, to) {
                return Some(outer);
            }
        }
        None
    }

    fn choose(&mut self, inner: u16) -> u16 {
        match self.model.ports {
            Ports::Preserve => inner,
            Ports::Offset(offset) => inner.wrapping_add(offset),
            Ports::Sequential { step, low, high } => {
                let size = i32::from(high) - i32::from(low) + 1;
                self.counter = i32::from(low) + (self.counter - i32::from(low) + step).rem_euclid(size);
                self.counter as u16
            }
            Ports::Random { low, high } => self.rng.random_range(low..=high),
            Ports::RandomSameParity { low, high } => (self.rng.random_range(low..high) & !1) | (inner & 1),
        }
    }

    fn is_free(&self, now: Instant, outer: SocketAddr, to: SocketAddr) -> bool {
        let taken = self.entries.values().any(|entry| {
            entry.outer == outer && self.alive(entry, now) && (!self.model.linux || entry.peers.contains(&to))
        });
        // An entry left by an unasked packet moves a later flow of the same addresses and ports.
        let poisoned = self.poison.get(&(to, outer.port())).is_some_and(|at| now < *at + Duration::from_secs(30));
        !taken && !poisoned
    }

    /// Lets a packet in; returns the inner endpoint it reaches.
    pub(crate) fn inbound(&mut self, now: Instant, from: SocketAddr, outer: SocketAddr) -> Option<SocketAddr> {
        if self.model.blocked {
            return None;
        }
        let (filtering, lifetime) = (self.model.filtering, self.model.lifetime);
        if self.model.mapping.is_none() && filtering == Dependence::EndpointIndependent {
            return Some(outer);
        }
        let admitted = self.entries.values_mut().find(|entry| {
            entry.outer == outer
                && now < entry.used + lifetime
                && match filtering {
                    Dependence::EndpointIndependent => true,
                    Dependence::AddressDependent => entry.peers.iter().any(|peer| peer.ip() == from.ip()),
                    Dependence::AddressAndPortDependent => entry.peers.contains(&from),
                }
        });
        if let Some(entry) = admitted {
            if self.model.refreshed_by_inbound {
                entry.used = now;
            }
            return Some(entry.inner);
        }
        if self.model.poisonable {
            self.poison.entry((from, outer.port())).or_insert(now);
        }
        None
    }
}
