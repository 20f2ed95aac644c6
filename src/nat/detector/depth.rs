//! What is found out after the core verdict: how ports are chosen, what an unasked packet does to a mapping, how large a
//! datagram may be, and, where asked for, whether the NAT turns packets round (hairpin).
//!
//! The steps stand in one list and leave two milliseconds apart: the order in which mappings are made must be the order
//! in which they are asked for, and a burst would look like a flood.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::allocation::Allocation;
use super::filtering::{Door, Fate};
use super::{Detector, Phase};
use crate::nat::behaviour::Dependence;
use crate::nat::client::{Ask, Exchange, ExchangeId, Request, Slot};

/// Between two steps.
const SPACING: Duration = Duration::from_millis(2);
/// Tries of a question in this phase.
const TRIES: u8 = 4;
/// Pairs of neighbouring local ports.
const PAIRS: usize = 3;
/// Further sockets whose mapping is asked for.
const SINGLES: usize = 7;
/// Mapping sockets whose NAT keeps ports need fewer.
const SINGLES_WHERE_PORTS_ARE_KEPT: usize = 3;
/// Sockets on which an unasked packet is followed by an own one.
const UNASKED: usize = 2;
/// IP packet sizes tried in one piece: the IPv6 minimum, a common tunnel, PPPoE, Ethernet.
const PACKETS: [u16; 4] = [1_280, 1_420, 1_492, 1_500];
/// A UDP payload that needs two fragments on Ethernet.
pub(super) const FRAGMENTED: u16 = 2_000;
/// A server that answers a padded request with so much was seen to do what RFC 5780 section 7.6 asks of it.
const PADDED: usize = 1_000;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Asks for the mapping of a fresh socket.
    Single,
    /// Asks for the mapping of this socket.
    Of(Slot),
    /// Asks the far endpoint from a socket that an unasked packet of that endpoint was sent to.
    Unasked(Slot, SocketAddr),
    /// Sends a request of this size.
    Size(u16),
    /// Sends a request from the first socket to the mapping of the second.
    Turn(Slot, Slot),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Depth {
    is_planned: bool,
    steps: VecDeque<Step>,
    next_at: Option<Instant>,
    /// Sockets opened for a particular port: they do not go to the idle ones.
    pub(super) companions: BTreeSet<Slot>,
    /// Neighbouring local ports, the lower first.
    pub(super) pairs: Vec<(Slot, Slot)>,
    pub(super) samples: BTreeMap<Slot, ExchangeId>,
    /// The mapping towards the server, and the one towards the far endpoint after its unasked packet.
    pub(super) unasked: Vec<(ExchangeId, ExchangeId)>,
    pub(super) sizes: Vec<(u16, ExchangeId)>,
    size_slot: Option<Slot>,
    pub(super) turners: Option<(Slot, Slot)>,
    turning: bool,
    pub(super) turns: Vec<ExchangeId>,
    /// Requests of this host that came back: where, and from whom.
    pub(super) turned: Vec<(ExchangeId, Slot, SocketAddr, u32)>,
}

impl Depth {
    pub(super) fn is_sampling(&self) -> bool {
        !self.is_planned || self.steps.iter().any(|step| matches!(step, Step::Single | Step::Of(_)))
    }
}

impl Detector {
    pub(super) fn wake_for_depth(&self) -> Option<Instant> {
        (self.phase == Phase::Depth && !self.depth.steps.is_empty()).then_some(self.depth.next_at).flatten()
    }

    /// The server all questions of this phase go to: one that answers, and with an alternate where there is one.
    pub(super) fn home(&self) -> Option<SocketAddr> {
        let answering = || self.servers.iter().filter(|server| server.read);
        answering()
            .find(|server| server.alternate.is_some())
            .or_else(|| answering().next())
            .map(|server| server.address)
    }

    pub(super) fn advance_steps(&mut self, now: Instant) {
        let Some(home) = self.home() else { return };
        if !self.depth.is_planned {
            self.plan(home);
            // Companions are opened by the time their turn comes, or they never will be.
            self.depth.next_at = now.checked_add(SPACING);
        }
        while self.depth.next_at.is_none_or(|at| now >= at) {
            let Some(step) = self.depth.steps.pop_front() else { break };
            if matches!(step, Step::Single) && self.idle.is_empty() && !self.opening.is_empty() {
                self.depth.steps.push_front(step);
                return;
            }
            if self.run(now, home, step) {
                self.depth.next_at = now.checked_add(SPACING);
            }
        }
        self.plan_unasked();
        self.plan_turning();
    }

    fn plan(&mut self, home: SocketAddr) {
        self.depth.is_planned = true;
        let translated = self.nat_fact().value != Some(false);
        if translated {
            let kept = self.preservation_fact().value == Some(true);
            let mut pairs = Vec::new();
            for _ in 0..PAIRS {
                let Some(one) = self.take_fresh() else { break };
                let Some(local) = self.locals.get(&one).copied() else { continue };
                let Some(other) = self.want_socket(Some(local.port() ^ 1)) else { break };
                self.depth.companions.insert(other);
                let low_first = if local.port() % 2 == 0 { (one, other) } else { (other, one) };
                self.depth.pairs.push(low_first);
                pairs.push(low_first);
            }
            // The order of even and odd is mixed, so that a counter does not look like kept parity or like neighbours kept
            // together.
            for (index, (low, high)) in pairs.into_iter().enumerate() {
                let (first, second) = if index % 2 == 0 { (high, low) } else { (low, high) };
                self.depth.steps.extend([Step::Of(first), Step::Of(second), Step::Single]);
            }
            let singles = if kept { SINGLES_WHERE_PORTS_ARE_KEPT } else { SINGLES };
            self.depth.steps.extend((PAIRS..singles).map(|_| Step::Single));
        }
        if self.config.hairpin && translated {
            self.depth.turners = self.take_fresh().and_then(|one| Some((one, self.take_fresh()?)));
            if let Some((one, other)) = self.depth.turners {
                self.depth.steps.extend([Step::Of(one), Step::Of(other)]);
            }
        }
        let headers = if home.is_ipv4() { 28 } else { 48 };
        let link = self.config.link_mtu.unwrap_or(1_500);
        let fitting = PACKETS.into_iter().filter(|size| u32::from(*size) <= link);
        self.depth.steps.extend(fitting.map(|size| Step::Size(size - headers)));
        if link < u32::from(FRAGMENTED) {
            self.depth.steps.push_back(Step::Size(FRAGMENTED));
        }
    }

    /// Whether a packet was sent.
    fn run(&mut self, now: Instant, home: SocketAddr, step: Step) -> bool {
        match step {
            Step::Single => {
                let Some(slot) = self.take_fresh() else { return false };
                self.run(now, home, Step::Of(slot))
            }
            Step::Of(slot) => {
                if !self.locals.contains_key(&slot) {
                    return false;
                }
                let id = self.ask_mapped(now, slot, home, TRIES);
                self.depth.samples.insert(slot, id);
                true
            }
            Step::Unasked(slot, far) => {
                let before = self.ask_mapped(now, slot, home, TRIES);
                let after = self.ask_mapped(now, slot, far, TRIES);
                self.depth.unasked.push((before, after));
                true
            }
            Step::Size(length) => {
                let Some(slot) = self.depth.size_slot.or_else(|| self.take_fresh()) else { return false };
                self.depth.size_slot = Some(slot);
                let request = Request::new(slot, home, Ask::Padded(length & !3), TRIES);
                let id = self.client.start(now, request);
                self.depth.sizes.push((length & !3, id));
                true
            }
            Step::Turn(from, to) => {
                let Some(mapped) = self.sample(to) else { return false };
                let request = Request::new(from, mapped, Ask::Mapped, TRIES);
                let id = self.client.start(now, request);
                self.depth.turns.push(id);
                true
            }
        }
    }

    /// The mapped address of a sampled socket.
    pub(super) fn sample(&self, slot: Slot) -> Option<SocketAddr> {
        self.client.exchange(*self.depth.samples.get(&slot)?)?.answer()?.mapped()
    }

    /// Once silence has settled, some of the sockets whose door was knocked at in vain ask the far endpoint themselves.
    fn plan_unasked(&mut self) {
        let planned = !self.depth.unasked.is_empty()
            || self.depth.steps.iter().any(|step| matches!(step, Step::Unasked(..)))
            || self.mapping() != Some(Dependence::EndpointIndependent)
            || self.nat_fact().value != Some(true)
            || !self.filtering_is_ready(super::weight::FINAL);
        if planned {
            return;
        }
        let silent =
            self.filtering.knocks.iter().filter(|knock| knock.door == Door::Far && self.fate(knock) == Fate::Silent);
        let steps: Vec<Step> = silent
            .filter_map(|knock| {
                let slot = self.client.exchange(knock.exchange)?.request.slot;
                Some(Step::Unasked(slot, self.servers.get(knock.server)?.far()?))
            })
            .take(UNASKED)
            .collect();
        self.depth.steps.extend(steps);
    }

    /// Once both mappings are known, each of the two sockets writes to the other's.
    fn plan_turning(&mut self) {
        let Some((one, other)) = self.depth.turners else { return };
        if self.depth.turning || self.sample(one).is_none() || self.sample(other).is_none() {
            return;
        }
        self.depth.turning = true;
        self.depth.steps.extend([Step::Turn(one, other), Step::Turn(other, one)]);
    }

    /// Whether everything planned was sent and settled.
    pub(super) fn depth_is_done(&self) -> bool {
        let mut asked = self
            .depth
            .samples
            .values()
            .chain(self.depth.sizes.iter().map(|(_, id)| id))
            .chain(self.depth.unasked.iter().flat_map(|(before, after)| [before, after]))
            .chain(&self.depth.turns);
        let turning_is_over = self.depth.turners.is_none() || self.depth.turning || self.turning_is_hopeless();
        let turned = self.depth.turners.is_some_and(|_| !self.depth.turned.is_empty());
        self.depth.is_planned
            && self.depth.steps.is_empty()
            && turning_is_over
            && asked.all(|id| self.outcome(*id).is_some() || (turned && self.depth.turns.contains(id)))
    }

    fn turning_is_hopeless(&self) -> bool {
        let failed = |slot: Slot| {
            self.depth.samples.get(&slot).and_then(|id| self.outcome(*id)).is_some() && self.sample(slot).is_none()
        };
        self.depth.turners.is_some_and(|(one, other)| failed(one) || failed(other))
    }

    /// Every mapping that was made, in the order of making: the first packet of each flow the NAT tells apart.
    pub(super) fn allocations(&self) -> Vec<Allocation> {
        let mapping = self.mapping().unwrap_or(Dependence::AddressAndPortDependent);
        let mut seen = BTreeSet::new();
        let mut flows: Vec<(u32, Allocation)> = Vec::new();
        for (_, exchange) in self.client.exchanges() {
            let request = &exchange.request;
            let key = match mapping {
                Dependence::EndpointIndependent => (request.slot, None, None),
                Dependence::AddressDependent => (request.slot, Some(request.to.ip()), None),
                Dependence::AddressAndPortDependent => (request.slot, Some(request.to.ip()), Some(request.to.port())),
            };
            let is_turn = self
                .depth
                .turns
                .iter()
                .any(|id| self.client.exchange(*id).is_some_and(|turn| std::ptr::eq(turn, exchange)));
            if is_turn || !seen.insert(key) {
                continue;
            }
            let (Some(first), Some(local)) = (exchange.tries.first(), self.locals.get(&request.slot)) else { continue };
            flows.push((first.packet, self.allocation(exchange, *local, first.answered)));
        }
        flows.sort_by_key(|(packet, _)| *packet);
        flows.into_iter().map(|(_, allocation)| allocation).collect()
    }

    fn allocation(&self, exchange: &Exchange, local: SocketAddr, first_answered: bool) -> Allocation {
        let mapped = exchange.answer().filter(|answer| answer.error.is_none()).and_then(|answer| answer.mapped());
        Allocation { local, mapped, is_certain: first_answered && mapped.is_some() }
    }

    /// The sizes tried, whether each was answered in full, in part or not, and without being refused as too big.
    pub(super) fn size_outcomes(&self) -> Vec<SizeOutcome> {
        let outcome = |(length, id): &(u16, ExchangeId)| {
            let exchange = self.client.exchange(*id)?;
            let answered = exchange.answer().map(|answer| answer.length);
            let shrunk = exchange.was_too_big();
            Some(SizeOutcome { length: *length, answered, shrunk, packets: exchange.packets() })
        };
        self.depth.sizes.iter().filter_map(outcome).collect()
    }

    /// Whether the server was seen to fill its answers up.
    pub(super) fn pads(&self) -> bool {
        self.size_outcomes().iter().any(|size| size.answered.is_some_and(|length| length >= PADDED))
    }
}

/// What came of a request of one size.
#[derive(Clone, Debug)]
pub(super) struct SizeOutcome {
    /// Bytes of UDP payload sent.
    pub(super) length: u16,
    /// Bytes of UDP payload of the answer.
    pub(super) answered: Option<usize>,
    /// Whether something on the way said that it was too big: from then on the system sends fragments.
    pub(super) shrunk: bool,
    /// The packets.
    pub(super) packets: Vec<u32>,
}
