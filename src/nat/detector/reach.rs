//! Which servers answer, and what each of them can do.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::mapping::{Judgement, Sighting, judge};
use super::{Detector, Phase};
use crate::nat::behaviour::Dependence;
use crate::nat::client::{Ask, ExchangeId, Outcome};

/// Tries of the first question: with the initial pace they span 1.4 seconds.
const REACH_TRIES: u8 = 7;
/// Tries of a mapping question to a server known to answer.
const MAPPING_TRIES: u8 = 6;
/// Sockets that test the mapping: two, and more only to settle a contradiction.
const MAPPERS: usize = 2;
const MAX_MAPPERS: usize = 6;
/// How long the core verdict waits for servers that have not answered yet.
const STRAGGLERS: Duration = Duration::from_millis(250);

/// One configured server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Where it is asked.
    pub(super) address: SocketAddr,
    /// The alternate it offers, where it is one this host may talk to.
    pub(super) alternate: Option<Alternate>,
    /// Why the alternate it named was not believed.
    pub(super) alternate_refused: Option<String>,
    /// Whether it was seen not to do what CHANGE-REQUEST asks.
    pub(super) ignores_change: bool,
    pub(super) read: bool,
}

/// What OTHER-ADDRESS adds to the primary endpoint (RFC 5780 section 7.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Alternate {
    /// The other address, where it differs.
    pub(super) ip: Option<IpAddr>,
    /// The other port, where it differs.
    pub(super) port: Option<u16>,
}

impl Server {
    pub(super) const fn new(address: SocketAddr) -> Self {
        Self { address, alternate: None, alternate_refused: None, ignores_change: false, read: false }
    }

    /// The far endpoint: other address, and other port where there is one.
    pub(super) fn far(&self) -> Option<SocketAddr> {
        let alternate = self.alternate?;
        Some(SocketAddr::new(alternate.ip?, alternate.port.unwrap_or(self.address.port())))
    }

    /// The near endpoint: same address, other port.
    pub(super) fn near(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address.ip(), self.alternate?.port?))
    }

    /// The endpoint with the other address and the same port, where the port differs too.
    pub(super) fn crossed(&self) -> Option<SocketAddr> {
        let alternate = self.alternate?;
        alternate.port?;
        Some(SocketAddr::new(alternate.ip?, self.address.port()))
    }

    /// Every endpoint, the primary first.
    pub(super) fn endpoints(&self) -> Vec<SocketAddr> {
        [Some(self.address), self.near(), self.crossed(), self.far()].into_iter().flatten().collect()
    }

    /// CHANGE-REQUEST for an answer from [`Server::far`].
    pub(super) fn ask_far(&self) -> Ask {
        Ask::Change { ip: true, port: self.alternate.is_some_and(|alternate| alternate.port.is_some()) }
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Scope {
    Loopback,
    Private,
    Global,
    Nowhere,
}

fn scope(ip: IpAddr) -> Scope {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            if ip.is_loopback() {
                Scope::Loopback
            } else if ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() || a == 0 || a >= 240 {
                Scope::Nowhere
            } else if ip.is_private() || ip.is_link_local() || (a == 100 && (64..128).contains(&b)) {
                Scope::Private
            } else {
                Scope::Global
            }
        }
        IpAddr::V6(ip) => {
            if ip.is_loopback() {
                Scope::Loopback
            } else if ip.is_unspecified() || ip.is_multicast() || ip.to_ipv4_mapped().is_some() {
                Scope::Nowhere
            } else if ip.is_unique_local() || ip.is_unicast_link_local() {
                Scope::Private
            } else {
                Scope::Global
            }
        }
    }
}

/// Whether the alternate a server names is one to send packets to. A server could name anybody: it must be of the same
/// family and as public as the server itself, so that no server on the Internet can point this host at its own network.
fn believe(server: SocketAddr, other: SocketAddr) -> Result<Alternate, String> {
    if server.is_ipv4() != other.is_ipv4() {
        return Err("OTHER-ADDRESS is of the other family".to_owned());
    }
    if other.port() == 0 || scope(other.ip()) == Scope::Nowhere {
        return Err("OTHER-ADDRESS is not an address a packet can go to".to_owned());
    }
    if scope(other.ip()) != scope(server.ip()) {
        return Err("OTHER-ADDRESS is of another scope than the server's own address".to_owned());
    }
    let alternate = Alternate {
        ip: (other.ip() != server.ip()).then_some(other.ip()),
        port: (other.port() != server.port()).then_some(other.port()),
    };
    if alternate == (Alternate { ip: None, port: None }) {
        return Err("OTHER-ADDRESS is the server's own address".to_owned());
    }
    Ok(alternate)
}

impl Detector {
    pub(super) fn advance_reach(&mut self, now: Instant) {
        if self.mappers.len() < MAPPERS && self.phase == Phase::Reaching {
            // Both sockets first, so that the order of requests is the order of the plan.
            if self.idle.len() < MAPPERS {
                return;
            }
            for _ in 0..MAPPERS {
                self.add_mapper();
            }
            for (position, slot) in self.mappers.clone().into_iter().enumerate() {
                // A second socket at two servers is hedge enough; the rest hear from it once they answered.
                let servers = if position == 0 { self.servers.len() } else { 2 };
                for server in self.servers.iter().map(|server| server.address).take(servers).collect::<Vec<_>>() {
                    self.ask_mapped(now, slot, server, REACH_TRIES);
                }
            }
        }
        self.read_servers();
        if self.phase == Phase::Reaching {
            let somebody_moves = self.servers.iter().any(|server| server.alternate.is_some());
            let all_settled = self.asked.values().all(|id| self.outcome(*id).is_some());
            let somebody_answered = self.servers.iter().any(|server| server.read);
            let waited = self.wake_for_reach().is_none();
            if somebody_moves || (somebody_answered && (waited || all_settled)) {
                self.phase = Phase::Core;
            } else if all_settled && !self.asked.is_empty() {
                self.finish(now);
            }
        }
    }

    fn add_mapper(&mut self) -> bool {
        let slot = self.take_fresh();
        self.mappers.extend(slot);
        slot.is_some()
    }

    /// When servers that have not answered stop holding up the rest, until that moment.
    pub(super) fn wake_for_reach(&self) -> Option<Instant> {
        let at = self.started_at?.checked_add(STRAGGLERS)?;
        (self.phase <= Phase::Core && self.now.is_none_or(|now| now < at)).then_some(at)
    }

    /// Learns from first answers what a server can do.
    fn read_servers(&mut self) {
        let mut alternates = Vec::new();
        for server in &mut self.servers {
            if server.read {
                continue;
            }
            let answer = self
                .mappers
                .iter()
                .filter_map(|slot| self.asked.get(&(*slot, server.address)))
                .find_map(|id| self.client.exchange(*id)?.answer());
            let Some(answer) = answer else { continue };
            server.read = true;
            if let Some(other) = answer.other {
                match believe(server.address, other) {
                    Ok(alternate) => {
                        server.alternate = Some(alternate);
                        alternates.extend(alternate.ip.map(|ip| (ip, server.address.ip())));
                    }
                    Err(why) => server.alternate_refused = Some(why),
                }
            }
        }
        for (ip, like) in alternates {
            self.client.assume_pace(ip, like);
        }
    }

    /// The number that stands for the operator of an endpoint: the first configured server it belongs to.
    pub(super) fn operator_of(&self, to: SocketAddr) -> usize {
        let position = self.servers.iter().position(|server| server.endpoints().contains(&to));
        position.unwrap_or(usize::MAX)
    }

    /// Destinations of the mapping test: every endpoint of the first server with an alternate, three of a second one,
    /// and every other server that answered.
    fn destinations(&self) -> Vec<SocketAddr> {
        let mut list = Vec::new();
        let mut add = |address: SocketAddr| {
            if !list.contains(&address) {
                list.push(address);
            }
        };
        let mut able = 0;
        for server in self.servers.iter().filter(|server| server.read) {
            add(server.address);
            if server.alternate.is_some() {
                able += 1;
                match able {
                    1 => server.endpoints().into_iter().for_each(&mut add),
                    2 => [server.near(), server.far()].into_iter().flatten().for_each(&mut add),
                    _ => {}
                }
            }
        }
        list
    }

    pub(super) fn advance_mapping(&mut self, now: Instant) {
        for slot in self.mappers.clone() {
            for to in self.destinations() {
                self.ask_mapped(now, slot, to, MAPPING_TRIES);
            }
        }
        let judgement = self.judgement();
        let settled = self.mapping_exchanges().all(|id| self.outcome(id).is_some());
        if settled && judgement.is_contradictory() && self.mappers.len() < MAX_MAPPERS && self.add_mapper() {
            self.advance_mapping(now);
        }
    }

    /// The exchanges of the mapping test with servers that answered at all.
    fn mapping_exchanges(&self) -> impl Iterator<Item = ExchangeId> {
        let destinations: BTreeSet<SocketAddr> = self.destinations().into_iter().collect();
        self.asked
            .iter()
            .filter(move |((slot, to), _)| self.mappers.contains(slot) && destinations.contains(to))
            .map(|(_, id)| *id)
    }

    /// Whether the mapping judgement is as good as it gets for now.
    pub(super) fn mapping_is_ready(&self) -> bool {
        let stragglers = self.servers.iter().any(|server| !server.read)
            && self.wake_for_reach().is_some()
            && self.servers.iter().any(|server| {
                let first = self.mappers.first().and_then(|slot| self.asked.get(&(*slot, server.address)));
                first.is_some_and(|id| self.outcome(*id).is_none())
            });
        if stragglers {
            return false;
        }
        let judgement = self.judgement();
        let settled = self.mapping_exchanges().all(|id| self.outcome(id).is_some());
        let out_of_sockets = self.mappers.len() >= MAX_MAPPERS || self.is_out_of_sockets();
        if settled {
            return !judgement.is_contradictory() || out_of_sockets;
        }
        // Two sockets agree and the first has heard from every server: what is missing can only repeat it.
        let Some(first) = self.mappers.first() else { return false };
        let heard: BTreeSet<usize> =
            self.sightings().iter().filter(|seen| seen.slot == *first).map(|seen| seen.server).collect();
        let everybody_heard = self.destinations().into_iter().all(|to| heard.contains(&self.operator_of(to)));
        judgement.verdict().is_some() && everybody_heard
    }

    /// What servers said about the sockets of the mapping test.
    pub(super) fn sightings(&self) -> Vec<Sighting> {
        self.asked
            .iter()
            .filter(|((slot, _), _)| self.mappers.contains(slot))
            .filter_map(|((slot, to), id)| {
                let mapped = self.client.exchange(*id)?.answer()?.mapped()?;
                Some(Sighting { slot: *slot, to: *to, server: self.operator_of(*to), mapped })
            })
            .collect()
    }

    pub(super) fn judgement(&self) -> Judgement {
        judge(&self.sightings())
    }

    /// The mapping behaviour, once two sockets agree on one.
    pub(super) fn mapping(&self) -> Option<Dependence> {
        self.judgement().verdict()
    }

    /// Whether this exchange was answered.
    pub(super) fn is_answered(&self, id: ExchangeId) -> bool {
        matches!(self.outcome(id), Some(Outcome::Answered { .. }))
    }
}
