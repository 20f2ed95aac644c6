//! A virtual network: the detector behind a NAT model, servers in front of it, a wire with delay, loss, repetition and
//! reordering in between. Everything follows from one seed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use fabric::nat::client::{Refusal, Slot, Unreachable};
use fabric::nat::detector::{Config, Detector, Event, Findings};
use fabric::protocol::stun::{AttributeType, Class, Method, Packet, Writer};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::nat::{Model, Nat};

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wire {
    pub(crate) round_trip: Duration,
    /// Chance that a packet is lost, each way.
    pub(crate) loss: f64,
    pub(crate) repeat: f64,
    /// Up to this much more delay a packet.
    pub(crate) jitter: Duration,
}

impl Wire {
    pub(crate) fn clean(round_trip_ms: u64) -> Self {
        Self { round_trip: Duration::from_millis(round_trip_ms), ..Self::default() }
    }

    pub(crate) fn lossy(round_trip_ms: u64, loss: f64) -> Self {
        Self { loss, ..Self::clean(round_trip_ms) }
    }
}

/// What a server does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Manner {
    Honest,
    /// Without a second address: no OTHER-ADDRESS, 420 to CHANGE-REQUEST.
    Plain,
    /// Reports one and the same address to everybody.
    LiesConstant,
    /// Reports random ports.
    LiesRandom,
    /// Reports random ports one time in two.
    LiesSometimes,
    /// Names an alternate and answers everything truly, but swallows CHANGE-REQUEST.
    SwallowsChange,
    /// Answers CHANGE-REQUEST from where it was asked.
    IgnoresChange,
    /// Names its own address with another port as the other address (RFC 5780 section 7.4 forbids it).
    SameAddress,
    /// Names an address of the client's own network.
    PointsInside,
    /// Names an alternate that does not exist.
    DeadAlternate,
    Dead,
    /// The port is closed.
    Refuses,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Station {
    pub(crate) primary: SocketAddr,
    pub(crate) alternate: SocketAddr,
    pub(crate) manner: Manner,
}

impl Station {
    pub(crate) fn new(number: u8, manner: Manner) -> Self {
        Self {
            primary: SocketAddr::from(([11, number, 0, 1], 3478)),
            alternate: SocketAddr::from(([11, number, 1, 1], 3479)),
            manner,
        }
    }

    fn owns(&self, to: SocketAddr) -> bool {
        let ports = [self.primary.port(), self.alternate.port()];
        (to.ip() == self.primary.ip() || to.ip() == self.alternate.ip()) && ports.contains(&to.port())
    }
}

enum Arrival {
    /// At a server, from this outer source.
    AtServer {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// At the NAT from outside.
    AtNat {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Refused {
        slot: Slot,
        to: SocketAddr,
        error: Unreachable,
    },
}

pub(crate) struct Run {
    pub(crate) findings: Findings,
    /// Packets on the client's wire, both ways, and their payload in bytes.
    pub(crate) on_wire: u32,
    pub(crate) wire_bytes: usize,
    pub(crate) mappings: usize,
    pub(crate) strayed: usize,
    pub(crate) core_on_wire: Option<u32>,
    pub(crate) core_sent: Option<u32>,
}

pub(crate) struct World {
    start: Instant,
    wire: Wire,
    stations: Vec<Station>,
    nat: Nat,
    rng: StdRng,
    queue: BTreeMap<(Instant, u64), Arrival>,
    sequence: u64,
    locals: BTreeMap<Slot, SocketAddr>,
    local_ip: IpAddr,
    on_wire: u32,
    wire_bytes: usize,
    strayed: usize,
}

impl World {
    pub(crate) fn new(model: Model, wire: Wire, stations: Vec<Station>, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let local_ip = if model.mapping.is_some() { [192, 168, 1, 7].into() } else { IpAddr::from([12, 0, 0, 7]) };
        let nat = Nat::new(model, StdRng::seed_from_u64(rng.random()));
        Self {
            start: Instant::now(),
            wire,
            stations,
            nat,
            rng,
            queue: BTreeMap::new(),
            sequence: 0,
            locals: BTreeMap::new(),
            local_ip,
            on_wire: 0,
            wire_bytes: 0,
            strayed: 0,
        }
    }

    /// Runs one diagnosis to its end.
    pub(crate) fn run(&mut self, mut config: Config) -> Run {
        config.servers = self.stations.iter().map(|station| station.primary).collect();
        self.locals.clear();
        self.on_wire = 0;
        self.wire_bytes = 0;
        self.nat.made = 0;
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        let mut detector = Detector::new(config, seed);
        let mut now = self.start;
        let (mut core_on_wire, mut core_sent) = (None, None);
        detector.handle_start(now);
        for step in 0.. {
            assert!(step < 20_000, "the detector spins at {:?}", now - self.start);
            while let Some(open) = detector.poll_open() {
                let local = SocketAddr::new(self.local_ip, self.free_port(open.port));
                self.locals.insert(open.slot, local);
                detector.handle_open(now, open.slot, Some(local));
            }
            while let Some(transmit) = detector.poll_transmit() {
                self.on_wire += 1;
                self.wire_bytes += transmit.payload.len();
                self.send(now, transmit.socket, transmit.to, transmit.payload);
            }
            while let Some(event) = detector.poll_event() {
                if event == Event::CoreReady {
                    core_on_wire = Some(self.on_wire);
                    core_sent = Some(detector.stats().sent);
                }
            }
            let arrival = self.queue.keys().next().map(|(at, _)| *at);
            let Some(timeout) = detector.poll_timeout() else { break };
            assert!(timeout < self.start + Duration::from_secs(3_600), "the detector never ends");
            if let Some(at) = arrival
                && at <= timeout
            {
                now = now.max(at);
                let (_, arrival) = self.queue.pop_first().expect("an arrival");
                self.arrive(now, &mut detector, arrival);
            } else {
                now = now.max(timeout);
                detector.handle_timeout(now);
            }
        }
        self.start = now + Duration::from_millis(50);
        self.queue.clear();
        Run {
            findings: detector.findings(),
            on_wire: self.on_wire,
            wire_bytes: self.wire_bytes,
            mappings: self.nat.made,
            strayed: self.strayed,
            core_on_wire,
            core_sent,
        }
    }

    fn free_port(&mut self, wanted: Option<u16>) -> u16 {
        if let Some(port) = wanted
            && !self.locals.values().any(|local| local.port() == port)
        {
            return port;
        }
        loop {
            let port = self.rng.random_range(32_768..=60_999);
            if !self.locals.values().any(|local| local.port() == port) {
                return port;
            }
        }
    }

    fn push(&mut self, at: Instant, arrival: Arrival) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), arrival);
    }

    fn delay(&mut self) -> Duration {
        self.wire.round_trip / 2 + self.wire.jitter.mul_f64(self.rng.random())
    }

    /// How many copies of a packet get through.
    fn copies(&mut self) -> usize {
        if self.rng.random_bool(self.wire.loss) { 0 } else { 1 + usize::from(self.rng.random_bool(self.wire.repeat)) }
    }

    fn send(&mut self, now: Instant, slot: Slot, to: SocketAddr, bytes: Vec<u8>) {
        let local = *self.locals.get(&slot).expect("an open socket");
        let model = &self.nat.model;
        if model.blocked {
            if model.refuses {
                let error = Unreachable { refusal: Refusal::Path, offender: Some([192, 168, 1, 1].into()) };
                self.push(now + Duration::from_millis(1), Arrival::Refused { slot, to, error });
            }
            return;
        }
        if bytes.len() > model.mtu_payload && !model.passes_fragments {
            return;
        }
        let Some(source) = self.nat.outbound(now, local, to) else { return };
        if self.nat.model.pool.contains(&to.ip()) && self.nat.model.mapping.is_some() {
            if self.nat.model.hairpin {
                self.push(now + Duration::from_millis(1), Arrival::AtNat { from: source, to, bytes });
            }
            return;
        }
        let Some(station) = self.stations.iter().find(|station| station.owns(to)).copied() else {
            self.strayed += 1;
            return;
        };
        if station.manner == Manner::Refuses {
            let error = Unreachable { refusal: Refusal::Port, offender: Some(to.ip()) };
            self.push(now + self.wire.round_trip, Arrival::Refused { slot, to, error });
            return;
        }
        for _ in 0..self.copies() {
            let at = now + self.delay();
            self.push(at, Arrival::AtServer { from: source, to, bytes: bytes.clone() });
        }
    }

    fn arrive(&mut self, now: Instant, detector: &mut Detector, arrival: Arrival) {
        match arrival {
            Arrival::AtServer { from, to, bytes } => {
                if let Some((source, target, answer)) = self.serve(from, to, &bytes) {
                    for _ in 0..self.copies() {
                        let at = now + self.delay();
                        self.push(at, Arrival::AtNat { from: source, to: target, bytes: answer.clone() });
                    }
                }
            }
            Arrival::AtNat { from, to, bytes } => {
                if bytes.len() > self.nat.model.mtu_payload && !self.nat.model.passes_fragments {
                    return;
                }
                let Some(inner) = self.nat.inbound(now, from, to) else { return };
                let slot = self.locals.iter().find(|(_, local)| **local == inner).map(|(slot, _)| *slot);
                let Some(slot) = slot else { return };
                self.on_wire += 1;
                self.wire_bytes += bytes.len();
                detector.handle_input(now, slot, from, &bytes);
            }
            Arrival::Refused { slot, to, error } => {
                self.on_wire += 1;
                detector.handle_error(now, slot, to, error);
            }
        }
    }

    /// What the server does with one request: source, target and bytes of the answer.
    fn serve(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        let station = *self.stations.iter().find(|station| station.owns(to))?;
        let packet = Packet::scan(bytes).ok().filter(|packet| packet.class() == Class::Request)?;
        let is_alternate = to != station.primary;
        match station.manner {
            Manner::Dead => return None,
            Manner::DeadAlternate | Manner::Plain | Manner::PointsInside if is_alternate => return None,
            Manner::SameAddress if to.ip() != station.primary.ip() => return None,
            _ => {}
        }
        let change = packet.find(AttributeType::CHANGE_REQUEST).and_then(|value| value.last().copied());
        let id = packet.transaction_id();
        let mut buffer = [0; 4_096];
        let error = |code| {
            let mut buffer = [0; 128];
            let mut writer = Writer::new(&mut buffer, Class::Error, Method::BINDING, id).expect("room");
            writer.error_code(code, "").expect("room");
            let length = writer.finish();
            Some((to, from, buffer[..length].to_vec()))
        };
        if packet.find(AttributeType::PADDING).is_some() && station.manner == Manner::Plain {
            return error(420);
        }
        let mut source = to;
        if let Some(flags) = change {
            match station.manner {
                Manner::Plain | Manner::PointsInside => return error(420),
                Manner::SwallowsChange if flags != 0 => return None,
                Manner::IgnoresChange => {}
                _ => {
                    if flags & 4 != 0 && station.manner != Manner::SameAddress {
                        source.set_ip(other_of(station.primary.ip(), station.alternate.ip(), to.ip()));
                    }
                    if flags & 2 != 0 {
                        source.set_port(other_of(station.primary.port(), station.alternate.port(), to.port()));
                    }
                    if station.manner == Manner::DeadAlternate && source != station.primary {
                        return None;
                    }
                }
            }
        }
        let mut mapped = from;
        match station.manner {
            Manner::LiesConstant => mapped = SocketAddr::from(([12, 7, 7, 7], 7_777)),
            Manner::LiesSometimes if self.rng.random_bool(0.5) => {}
            Manner::LiesRandom | Manner::LiesSometimes => mapped.set_port(self.rng.random_range(1_024..=65_535)),
            _ => {}
        }
        let mut writer = Writer::new(&mut buffer, Class::Success, Method::BINDING, id).expect("room");
        writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, mapped).expect("room");
        let plain = if self.nat.model.rewrites { SocketAddr::new(self.local_ip, 1) } else { mapped };
        writer.address(AttributeType::MAPPED_ADDRESS, plain).expect("room");
        let other = match station.manner {
            Manner::Plain => None,
            Manner::SameAddress => Some(SocketAddr::new(station.primary.ip(), station.alternate.port())),
            Manner::PointsInside => Some(SocketAddr::from(([192, 168, 1, 1], 53))),
            _ => Some(station.alternate),
        };
        if let Some(other) = other {
            writer.address(AttributeType::OTHER_ADDRESS, other).expect("room");
            writer.address(AttributeType::RESPONSE_ORIGIN, source).expect("room");
        }
        if let Some(padding) = packet.find(AttributeType::PADDING) {
            let room = bytes.len().saturating_sub(writer.as_bytes().len() + 4).min(padding.len());
            writer.attribute(AttributeType::PADDING, &vec![0; room & !3]).expect("room");
        }
        let length = writer.finish();
        let mut target = from;
        if let Some(&[high, low]) = packet.find(AttributeType::RESPONSE_PORT) {
            target.set_port(u16::from_be_bytes([high, low]));
        }
        Some((source, target, buffer[..length].to_vec()))
    }
}

fn other_of<T: PartialEq>(a: T, b: T, at: T) -> T {
    if at == a { b } else { a }
}
