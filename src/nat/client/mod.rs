//! The STUN client without I/O: many Binding exchanges side by side, over many numbered local sockets.
//!
//! 1. [`Client::start`] begins an exchange; [`Client::poll_transmit`] hands out its first try.
//! 2. Each try has a transaction ID of its own, 96 random bits, so that an answer says which try it answers, the round
//!    trip is exact and a try that was lost is told from one that was slow. The IDs of all tries stay valid.
//! 3. [`Client::handle_input`] accepts a response only where the ID is one of its own, the local socket is the one the
//!    try left from, and the source is one the exchange expects. Everything else is counted and dropped.
//! 4. [`Client::handle_timeout`] sends the next try or, after the last, declares silence. An answer that comes after
//!    that is still reported.
//!
//! RFC 8489 section 6.2.1 describes one client waiting for one server. The schedule here is the same shape with a timer
//! learnt from the first answers ([`Pace`]) and bounded by a [`Budget`].

mod answer;
mod log;
mod pace;
mod request;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::protocol::stun::{AttributeType, Class, Method, Packet, TransactionId};
use crate::sansio::Transmit;

pub use answer::Answer;
pub use log::{Direction, PacketLog, PacketRecord};
pub use pace::Pace;
pub use request::Ask;

/// A local socket, in the numbering of whoever owns the client.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot(pub u16);

/// One exchange of one client.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ExchangeId(pub u32);

/// What to ask whom, from where and how often.
#[derive(Clone, Debug)]
pub struct Request {
    /// The local socket.
    pub slot: Slot,
    /// The server's address.
    pub to: SocketAddr,
    /// What to ask.
    pub ask: Ask,
    /// How many times to try, at least once.
    pub tries: u8,
    /// Sources an answer may come from beside `to`.
    pub also_from: Vec<SocketAddr>,
    /// The local socket the answer may arrive at beside `slot` (RESPONSE-PORT).
    pub answer_at: Option<Slot>,
}

impl Request {
    /// A plain request with answers from `to` alone.
    #[must_use]
    pub const fn new(slot: Slot, to: SocketAddr, ask: Ask, tries: u8) -> Self {
        Self { slot, to, ask, tries, also_from: Vec::new(), answer_at: None }
    }
}

/// Why an ICMP error came.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Port unreachable.
    Port,
    /// Host or network unreachable, or prohibited on the way.
    Path,
    /// Larger than the path carries.
    TooBig,
    /// The local system would not send it.
    Local,
}

/// An ICMP error as the driver reports it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unreachable {
    /// Why.
    pub refusal: Refusal,
    /// Who said so, where the system tells.
    pub offender: Option<IpAddr>,
}

/// What happened to an exchange.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// An answer arrived, the first to this exchange.
    Answered {
        /// Its content.
        answer: Answer,
        /// Where it came from.
        from: SocketAddr,
        /// Which socket it arrived at.
        at: Slot,
    },
    /// Every try went unanswered.
    Silent,
    /// Every try went unanswered and at least one drew an ICMP error.
    Refused(Unreachable),
    /// Nothing was sent: the budget is spent.
    OverBudget,
}

/// What the client reports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// An exchange came to an end. After [`Outcome::Silent`] or [`Outcome::Refused`] a late
    /// [`Outcome::Answered`] may follow.
    Settled(ExchangeId, Outcome),
    /// A request of this client came back to one of its own sockets (hairpin).
    Looped {
        /// The exchange the request belongs to.
        exchange: ExchangeId,
        /// Where it arrived.
        at: Slot,
        /// Its source as seen there.
        from: SocketAddr,
        /// The packet's number in the log.
        packet: u32,
    },
    /// A call back arrived: a Binding indication whose ID is four zero bytes and a nonce.
    CalledBack {
        /// The nonce.
        nonce: [u8; 8],
        /// Where it arrived.
        at: Slot,
        /// Where it came from.
        from: SocketAddr,
        /// The packet's number in the log.
        packet: u32,
    },
}

/// What one client may spend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budget {
    /// Datagrams sent.
    pub packets: u32,
    /// UDP payload sent, in bytes.
    pub bytes: u64,
}

/// What one client spent and saw.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Spent {
    /// Datagrams sent.
    pub sent: u32,
    /// UDP payload sent, in bytes.
    pub sent_bytes: u64,
    /// Datagrams accepted.
    pub received: u32,
    /// UDP payload of these, in bytes.
    pub received_bytes: u64,
    /// Datagrams that repeated an answer.
    pub repeated: u32,
    /// Datagrams nobody asked for: no STUN, a foreign transaction or a foreign source.
    pub rejected: u32,
}

/// One try of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct Try {
    /// Its transaction ID.
    pub id: TransactionId,
    /// When it was handed out.
    pub sent_at: Instant,
    /// Its number in the log.
    pub packet: u32,
    /// Whether an answer to this very try arrived.
    pub answered: bool,
}

/// One exchange with all its tries.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// What was asked.
    pub request: Request,
    /// The tries so far, in order.
    pub tries: Vec<Try>,
    /// How it ended, once it has.
    pub outcome: Option<Outcome>,
    /// The log number of the packet that settled it.
    pub settled_by: Option<u32>,
    refused: Option<(Unreachable, u8)>,
    too_big: bool,
    next_at: Option<Instant>,
}

impl Exchange {
    /// The answer, where there is one.
    #[must_use]
    pub const fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Some(Outcome::Answered { answer, .. }) => Some(answer),
            _ => None,
        }
    }

    /// Whether a try was refused as larger than the path carries.
    #[must_use]
    pub const fn was_too_big(&self) -> bool {
        self.too_big
    }

    /// When the first try left.
    #[must_use]
    pub fn first_sent_at(&self) -> Option<Instant> {
        self.tries.first().map(|first| first.sent_at)
    }

    /// The log numbers of its packets.
    #[must_use]
    pub fn packets(&self) -> Vec<u32> {
        self.tries.iter().map(|each| each.packet).chain(self.settled_by).collect()
    }
}

/// The client: see the module's description.
#[derive(Debug)]
pub struct Client {
    rng: StdRng,
    start: Option<Instant>,
    exchanges: BTreeMap<ExchangeId, Exchange>,
    index: BTreeMap<TransactionId, (ExchangeId, usize)>,
    paces: BTreeMap<IpAddr, Pace>,
    transmits: VecDeque<Transmit<Slot>>,
    events: VecDeque<Event>,
    log: PacketLog,
    budget: Budget,
    spent: Spent,
}

impl Client {
    /// A client with a seeded generator for its transaction IDs.
    #[must_use]
    pub fn new(seed: [u8; 32], budget: Budget) -> Self {
        Self {
            rng: StdRng::from_seed(seed),
            start: None,
            exchanges: BTreeMap::new(),
            index: BTreeMap::new(),
            paces: BTreeMap::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            log: PacketLog::default(),
            budget,
            spent: Spent::default(),
        }
    }

    /// Begins an exchange and queues its first try.
    pub fn start(&mut self, now: Instant, request: Request) -> ExchangeId {
        let id = ExchangeId(u32::try_from(self.exchanges.len()).unwrap_or(u32::MAX));
        let exchange = Exchange {
            request,
            tries: Vec::new(),
            outcome: None,
            settled_by: None,
            refused: None,
            too_big: false,
            next_at: None,
        };
        self.exchanges.insert(id, exchange);
        self.send_try(now, id);
        id
    }

    /// Stops trying: an exchange nobody needs any more settles as silent without an event.
    pub fn abandon(&mut self, id: ExchangeId) {
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.next_at = None;
            exchange.outcome.get_or_insert(Outcome::Silent);
        }
    }

    /// Takes one datagram that arrived at `slot`.
    pub fn handle_input(&mut self, now: Instant, slot: Slot, from: SocketAddr, bytes: &[u8]) {
        let Ok(packet) = Packet::scan(bytes) else {
            self.spent.rejected = self.spent.rejected.saturating_add(1);
            return;
        };
        match packet.class() {
            Class::Success | Class::Error => self.handle_response(now, slot, from, &packet),
            Class::Request => self.handle_request(now, slot, from, &packet),
            Class::Indication => self.handle_indication(now, slot, from, &packet),
        }
    }

    fn handle_response(&mut self, now: Instant, slot: Slot, from: SocketAddr, packet: &Packet<'_>) {
        let Some((id, which)) = self.index.get(&packet.transaction_id()).copied() else { return self.reject() };
        let Some(exchange) = self.exchanges.get_mut(&id) else { return self.reject() };
        let request = &exchange.request;
        let source_is_expected = from == request.to || request.also_from.contains(&from);
        let socket_is_expected = slot == request.slot || request.answer_at == Some(slot);
        let Some(answer) = Answer::read(packet).filter(|_| source_is_expected && socket_is_expected) else {
            return self.reject();
        };
        let Some(attempt) = exchange.tries.get_mut(which) else { return self.reject() };
        if attempt.answered {
            self.spent.repeated = self.spent.repeated.saturating_add(1);
            return;
        }
        attempt.answered = true;
        let mut relearnt = None;
        // A request with RESPONSE-PORT travels on two mappings and one that moves the source on two paths: no measure.
        if !request.ask.moves_source() && request.answer_at.is_none() {
            let round_trip = now.saturating_duration_since(attempt.sent_at);
            let ip = request.to.ip();
            self.paces.entry(ip).or_default().learn(round_trip);
            relearnt = Some(ip);
        }
        self.spent.received = self.spent.received.saturating_add(1);
        self.spent.received_bytes = self.spent.received_bytes.saturating_add(answer.length as u64);
        let what = describe(&answer, attempt.packet);
        let number = self.log.push(since(self.start, now), Direction::Received, slot.0, from, answer.length, what);
        if !matches!(exchange.outcome, Some(Outcome::Answered { .. })) {
            exchange.next_at = None;
            exchange.settled_by = Some(number);
            let outcome = Outcome::Answered { answer, from, at: slot };
            exchange.outcome = Some(outcome.clone());
            self.events.push_back(Event::Settled(id, outcome));
        }
        if let Some(ip) = relearnt {
            self.hasten(ip);
        }
    }

    /// Brings forward what waits for the first time with a timer that was a guess.
    fn hasten(&mut self, ip: IpAddr) {
        let patience = self.pace(ip).patience();
        for exchange in self.exchanges.values_mut().filter(|exchange| exchange.request.to.ip() == ip) {
            let (Some(next_at), Some(last)) = (exchange.next_at, exchange.tries.last()) else { continue };
            let index = exchange.tries.len().saturating_sub(1);
            let is_last = exchange.tries.len() >= usize::from(exchange.request.tries);
            let sooner = last.sent_at.checked_add(interval(patience, index, is_last));
            exchange.next_at = Some(sooner.map_or(next_at, |sooner| sooner.min(next_at)));
        }
    }

    fn handle_request(&mut self, now: Instant, slot: Slot, from: SocketAddr, packet: &Packet<'_>) {
        let Some((exchange, _)) = self.index.get(&packet.transaction_id()).copied() else { return self.reject() };
        let number = self.record_unasked(now, slot, from, packet, "own request came back");
        self.events.push_back(Event::Looped { exchange, at: slot, from, packet: number });
    }

    fn handle_indication(&mut self, now: Instant, slot: Slot, from: SocketAddr, packet: &Packet<'_>) {
        let TransactionId([0, 0, 0, 0, nonce @ ..]) = packet.transaction_id() else { return self.reject() };
        if packet.method() != Method::BINDING || packet.find(AttributeType::DIAL_BACK).is_none() {
            return self.reject();
        }
        let number = self.record_unasked(now, slot, from, packet, "call back");
        self.events.push_back(Event::CalledBack { nonce, at: slot, from, packet: number });
    }

    fn record_unasked(&mut self, now: Instant, slot: Slot, from: SocketAddr, packet: &Packet<'_>, what: &str) -> u32 {
        let length = packet.as_bytes().len();
        self.spent.received = self.spent.received.saturating_add(1);
        self.spent.received_bytes = self.spent.received_bytes.saturating_add(length as u64);
        self.log.push(since(self.start, now), Direction::Received, slot.0, from, length, what.to_owned())
    }

    fn reject(&mut self) {
        self.spent.rejected = self.spent.rejected.saturating_add(1);
    }

    /// Takes an ICMP error about something sent from `slot` to `to`. One error proves little (it may be forged, or a
    /// rate limit): two settle an exchange, one leaves the remaining tries to speak.
    pub fn handle_error(&mut self, now: Instant, slot: Slot, to: SocketAddr, error: Unreachable) {
        let who = error.offender.map_or_else(String::new, |ip| format!(" from {ip}"));
        let what = format!("ICMP error{who}: {:?} unreachable", error.refusal);
        let number = self.log.push(since(self.start, now), Direction::Refused, slot.0, to, 0, what);
        let open = self.exchanges.iter_mut().rev().find(|(_, exchange)| {
            exchange.outcome.is_none() && exchange.request.slot == slot && exchange.request.to == to
        });
        let Some((id, exchange)) = open else { return };
        if error.refusal == Refusal::TooBig {
            // The next try goes out in fragments.
            exchange.too_big = true;
            return;
        }
        let count = exchange.refused.map_or(1, |(_, count)| count.saturating_add(1));
        exchange.refused = Some((error, count));
        if count >= 2 || exchange.request.tries == 1 {
            exchange.next_at = None;
            exchange.settled_by = Some(number);
            exchange.outcome = Some(Outcome::Refused(error));
            self.events.push_back(Event::Settled(*id, Outcome::Refused(error)));
        }
    }

    /// Sends what is due again and settles what has waited long enough.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<ExchangeId> = self
            .exchanges
            .iter()
            .filter(|(_, exchange)| exchange.next_at.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let Some(exchange) = self.exchanges.get_mut(&id) else { continue };
            let finished = exchange.tries.len() >= usize::from(exchange.request.tries);
            if !finished && self.spent.sent < self.budget.packets {
                self.send_try(now, id);
                continue;
            }
            exchange.next_at = None;
            let outcome = exchange.refused.map_or(Outcome::Silent, |(error, _)| Outcome::Refused(error));
            exchange.outcome = Some(outcome.clone());
            self.events.push_back(Event::Settled(id, outcome));
        }
    }

    fn send_try(&mut self, now: Instant, id: ExchangeId) {
        let start = *self.start.get_or_insert(now);
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let mut bytes = [0; 12];
        self.rng.fill_bytes(&mut bytes);
        // Four leading zeros are the mark of a call back.
        bytes[0] |= 0x80;
        let transaction = TransactionId(bytes);
        let request = &exchange.request;
        let payload = request.ask.encode(transaction);
        let length = payload.len();
        let bytes_after = self.spent.sent_bytes.saturating_add(length as u64);
        if self.spent.sent >= self.budget.packets || bytes_after > self.budget.bytes {
            exchange.next_at = None;
            exchange.outcome = Some(Outcome::OverBudget);
            self.events.push_back(Event::Settled(id, Outcome::OverBudget));
            return;
        }
        self.spent.sent = self.spent.sent.saturating_add(1);
        self.spent.sent_bytes = bytes_after;
        let what = request.ask.to_string();
        let at = now.saturating_duration_since(start);
        let packet = self.log.push(at, Direction::Sent, request.slot.0, request.to, length, what);
        let patience = self.paces.get(&request.to.ip()).copied().unwrap_or_default().patience();
        let is_last = exchange.tries.len().saturating_add(1) >= usize::from(request.tries);
        exchange.next_at = (request.ask != Ask::Indication)
            .then(|| now.checked_add(interval(patience, exchange.tries.len(), is_last)))
            .flatten();
        self.index.insert(transaction, (id, exchange.tries.len()));
        exchange.tries.push(Try { id: transaction, sent_at: now, packet, answered: false });
        self.transmits.push_back(Transmit { socket: request.slot, to: request.to, payload });
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit<Slot>> {
        self.transmits.pop_front()
    }

    /// The next thing to report.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Client::handle_timeout`] wants to run.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.exchanges.values().filter_map(|exchange| exchange.next_at).min()
    }

    /// One exchange.
    #[must_use]
    pub fn exchange(&self, id: ExchangeId) -> Option<&Exchange> {
        self.exchanges.get(&id)
    }

    /// Every exchange, in the order of their beginning.
    pub fn exchanges(&self) -> impl Iterator<Item = (ExchangeId, &Exchange)> {
        self.exchanges.iter().map(|(id, exchange)| (*id, exchange))
    }

    /// What is known of the way to this address.
    #[must_use]
    pub fn pace(&self, ip: IpAddr) -> Pace {
        self.paces.get(&ip).copied().unwrap_or_default()
    }

    /// Starts the estimate for one address from that of another, where it has none of its own: the alternate address of
    /// a server is likely as far away as the server.
    pub fn assume_pace(&mut self, ip: IpAddr, like: IpAddr) {
        let assumed = self.pace(like);
        self.paces.entry(ip).or_insert(assumed);
    }

    /// Tries known to be lost and tries known to be answered, among exchanges that were answered in the end. A try
    /// before the answered one was lost, or is still on its way.
    #[must_use]
    pub fn losses(&self) -> (u32, u32) {
        let mut lost = 0u32;
        let mut answered = 0u32;
        for exchange in self.exchanges.values() {
            let Some(last) = exchange.tries.iter().rposition(|each| each.answered) else { continue };
            for each in exchange.tries.iter().take(last.saturating_add(1)) {
                if each.answered {
                    answered = answered.saturating_add(1);
                } else {
                    lost = lost.saturating_add(1);
                }
            }
        }
        (lost, answered)
    }

    /// Every packet so far.
    #[must_use]
    pub const fn log(&self) -> &PacketLog {
        &self.log
    }

    /// What was spent and seen so far.
    #[must_use]
    pub const fn stats(&self) -> Spent {
        self.spent
    }

    /// Raises or lowers what may be spent from here on.
    pub const fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
    }
}

/// The wait after try number `index` (from 0): even at first, stretching later; after the last try at least half as
/// long again, so that the answer to it has its chance.
fn interval(patience: Duration, index: usize, is_last: bool) -> Duration {
    const STEPS: [u32; 7] = [10, 10, 15, 20, 25, 30, 30];
    let tenths = STEPS.get(index).copied().unwrap_or(30);
    patience * if is_last { tenths.max(15) } else { tenths } / 10
}

fn since(start: Option<Instant>, now: Instant) -> Duration {
    start.map_or(Duration::ZERO, |start| now.saturating_duration_since(start))
}

fn describe(answer: &Answer, to: u32) -> String {
    match (answer.error, answer.mapped()) {
        (Some(code), _) => format!("error {code} to #{to}"),
        (None, Some(mapped)) => format!("answer to #{to}: mapped {mapped}"),
        (None, None) => format!("answer to #{to} without an address"),
    }
}

#[cfg(test)]
mod tests;
