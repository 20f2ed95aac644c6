//! Behaviour discovery without I/O: one address family, UDP (RFC 4787, RFC 5780).
//!
//! The detector is driven like every core: [`Detector::handle_start`] once, then feed it what happened
//! ([`Detector::handle_open`], [`Detector::handle_input`], [`Detector::handle_error`], [`Detector::handle_timeout`]) and
//! drain [`Detector::poll_open`], [`Detector::poll_transmit`] and [`Detector::poll_event`] until each returns `None`.
//!
//! 1. *Reach*: two fresh sockets ask every server for their mapped address. An answer with OTHER-ADDRESS makes a server
//!    able to test filtering.
//! 2. *Core*: side by side, the same two sockets ask the remaining endpoints (mapping), while sockets that never spoke
//!    to anybody ask for answers from elsewhere (filtering). Neither test touches the other's sockets: a mapping test
//!    opens the filter, and an unasked packet may leave a conntrack entry that moves a later mapping.
//! 3. *Depth*: more silence for what was judged by silence, how ports are allocated, sizes, hairpin, call backs.
//! 4. *Lifetime*, only where asked for.
//!
//! A verdict is never a guess at a kind: facts are true, false or unknown, and the class follows from them. Silence
//! counts only beside an answer that shows that the path and the server were alive afterwards, and only when enough
//! independent tries agree for the loss rate that was seen.

mod allocation;
mod depth;
mod depth_facts;
pub mod driver;
mod filtering;
mod findings;
mod lifetime;
mod mapping;
mod reach;
mod weight;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::nat::client::{self, Ask, Budget, Client, ExchangeId, PacketLog, Request, Slot, Spent, Unreachable};
use crate::sansio::Transmit;

pub use allocation::{PortAllocation, PortPool};
pub use depth_facts::{Guessing, NamedFact};
pub use findings::{Findings, ServerFindings};

/// However far the servers are, everything but the lifetime ends by then.
const LIMIT: Duration = Duration::from_secs(12);

/// What to find out and what it may cost.
#[derive(Clone, Debug)]
pub struct Config {
    /// Servers of one address family, the preferred first.
    pub servers: Vec<SocketAddr>,
    /// Whether to stop at the core verdict.
    pub core_only: bool,
    /// Datagrams the core verdict may send.
    pub core_packets: u32,
    /// Datagrams everything may send, lifetime apart.
    pub packets: u32,
    /// Bytes of UDP payload everything may send.
    pub bytes: u64,
    /// Local sockets, each an entry or more in the tables of the NAT.
    pub sockets: u16,
    /// Whether to find out whether the NAT turns packets round. Some firewalls take such packets for an attack.
    pub hairpin: bool,
    /// The largest IP packet the local link carries in one piece, where known.
    pub link_mtu: Option<u32>,
    /// The longest lifetime of an idle mapping to look for; `None` does not look.
    pub lifetime: Option<Duration>,
    /// When everything but the lifetime ends, whatever is known by then.
    pub deadline: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            core_only: false,
            core_packets: 40,
            packets: 120,
            bytes: 40 << 10,
            sockets: 72,
            hairpin: false,
            link_mtu: None,
            lifetime: None,
            deadline: Duration::from_millis(2_200),
        }
    }
}

/// What the detector reports while it runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// The core verdict stands: [`Detector::findings`] has mapping, filtering, preservation and class.
    CoreReady,
    /// Nothing more will be sent.
    Finished,
}

/// A local socket the detector wants. The driver opens it on the address that leads to the servers and answers with
/// [`Detector::handle_open`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OpenSocket {
    /// Its number.
    pub slot: Slot,
    /// The local port, where one in particular is wanted.
    pub port: Option<u16>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Phase {
    Waiting,
    Reaching,
    Core,
    Depth,
    Lifetime,
    Done,
}

/// The detector: see the module's description.
#[derive(Debug)]
pub struct Detector {
    config: Config,
    client: Client,
    phase: Phase,
    started_at: Option<Instant>,
    now: Option<Instant>,
    core_after: Option<Duration>,
    finished_after: Option<Duration>,
    locals: BTreeMap<Slot, SocketAddr>,
    idle: VecDeque<Slot>,
    opening: Vec<Slot>,
    next_slot: u16,
    opens: VecDeque<OpenSocket>,
    events: VecDeque<Event>,
    /// Sockets that test the mapping, and what each of them has asked.
    mappers: Vec<Slot>,
    asked: BTreeMap<(Slot, SocketAddr), ExchangeId>,
    servers: Vec<reach::Server>,
    filtering: filtering::Filtering,
    depth: depth::Depth,
    lifetime: lifetime::Lifetime,
}

impl Detector {
    /// A detector with a seeded generator for its transaction IDs.
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let budget = Budget { packets: config.core_packets, bytes: config.bytes };
        let servers = config.servers.iter().copied().map(reach::Server::new).collect();
        Self {
            client: Client::new(seed, budget),
            config,
            phase: Phase::Waiting,
            started_at: None,
            now: None,
            core_after: None,
            finished_after: None,
            locals: BTreeMap::new(),
            idle: VecDeque::new(),
            opening: Vec::new(),
            next_slot: 0,
            opens: VecDeque::new(),
            events: VecDeque::new(),
            mappers: Vec::new(),
            asked: BTreeMap::new(),
            servers,
            filtering: filtering::Filtering::default(),
            depth: depth::Depth::default(),
            lifetime: lifetime::Lifetime::default(),
        }
    }

    /// Begins: asks for the first sockets.
    pub fn handle_start(&mut self, now: Instant) {
        self.started_at = Some(now);
        self.phase = Phase::Reaching;
        for _ in 0..8 {
            self.want_socket(None);
        }
    }

    /// Takes the local address of a socket that was opened, or `None` where it could not be.
    pub fn handle_open(&mut self, now: Instant, slot: Slot, local: Option<SocketAddr>) {
        self.opening.retain(|other| *other != slot);
        if let Some(local) = local {
            self.locals.insert(slot, local);
            if !self.depth.companions.contains(&slot) {
                self.idle.push_back(slot);
            }
        }
        self.advance(now);
    }

    /// Takes one datagram that arrived at `slot`.
    pub fn handle_input(&mut self, now: Instant, slot: Slot, from: SocketAddr, bytes: &[u8]) {
        self.client.handle_input(now, slot, from, bytes);
        self.advance(now);
    }

    /// Takes an ICMP error about something sent from `slot` to `to`.
    pub fn handle_error(&mut self, now: Instant, slot: Slot, to: SocketAddr, error: Unreachable) {
        self.client.handle_error(now, slot, to, error);
        self.advance(now);
    }

    /// Takes the passing of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.client.handle_timeout(now);
        self.advance(now);
    }

    /// The next socket to open.
    pub fn poll_open(&mut self) -> Option<OpenSocket> {
        self.opens.pop_front()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit<Slot>> {
        self.client.poll_transmit()
    }

    /// The next thing to report.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Detector::handle_timeout`] wants to run; `None` once finished.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if matches!(self.phase, Phase::Waiting | Phase::Done) {
            return None;
        }
        let own = [
            self.wake_for_reach(),
            self.wake_for_filtering(),
            self.wake_for_depth(),
            self.wake_for_lifetime(),
            self.deadline(),
        ];
        own.into_iter().flatten().chain(self.client.poll_timeout()).min()
    }

    /// What is known so far.
    #[must_use]
    pub fn findings(&self) -> Findings {
        findings::collect(self)
    }

    /// Every packet so far.
    #[must_use]
    pub const fn log(&self) -> &PacketLog {
        self.client.log()
    }

    /// What was spent and seen so far.
    #[must_use]
    pub const fn stats(&self) -> Spent {
        self.client.stats()
    }

    /// The configured deadline, or later where the servers are so far away that it leaves no time for the tests.
    fn deadline(&self) -> Option<Instant> {
        if self.phase == Phase::Lifetime {
            return None;
        }
        let slowest = self.servers.iter().filter_map(|server| self.client.pace(server.address.ip()).round_trip()).max();
        let needed = slowest.unwrap_or_default().saturating_mul(12).min(LIMIT);
        self.started_at?.checked_add(self.config.deadline.max(needed))
    }

    fn since_start(&self, now: Instant) -> Duration {
        self.started_at.map_or(Duration::ZERO, |start| now.saturating_duration_since(start))
    }

    /// Runs every step that has something to do, until none has.
    fn advance(&mut self, now: Instant) {
        self.now = Some(now);
        while let Some(event) = self.client.poll_event() {
            self.note(event);
        }
        let before = self.phase;
        match self.phase {
            Phase::Waiting | Phase::Done => return,
            Phase::Reaching => self.advance_reach(now),
            Phase::Core => self.advance_core(now),
            Phase::Depth => self.advance_depth(now),
            Phase::Lifetime => self.advance_lifetime(now),
        }
        if self.phase < Phase::Lifetime && self.deadline().is_some_and(|at| now >= at) {
            self.end_of_depth(now);
        }
        if self.phase != before && self.phase != Phase::Done {
            self.advance(now);
        }
    }

    fn advance_core(&mut self, now: Instant) {
        self.advance_reach(now);
        self.advance_filtering(now, weight::CORE);
        self.advance_mapping(now);
        if self.mapping_is_ready() && self.filtering_is_ready(weight::CORE) {
            self.core_after = Some(self.since_start(now));
            self.events.push_back(Event::CoreReady);
            self.phase = Phase::Depth;
            self.client.set_budget(Budget { packets: self.config.packets, bytes: self.config.bytes });
            if self.config.core_only {
                self.finish(now);
            }
        } else if self.stats().sent >= self.config.core_packets {
            // The core verdict is late, not given up.
            self.client.set_budget(Budget { packets: self.config.packets, bytes: self.config.bytes });
        }
    }

    fn advance_depth(&mut self, now: Instant) {
        self.advance_reach(now);
        self.advance_mapping(now);
        self.advance_steps(now);
        // Between two samples nothing else may take a port.
        if !self.depth.is_sampling() {
            self.advance_filtering(now, weight::FINAL);
        }
        if self.mapping_is_ready() && self.filtering_is_ready(weight::FINAL) && self.depth_is_done() {
            self.end_of_depth(now);
        }
    }

    fn end_of_depth(&mut self, now: Instant) {
        if self.core_after.is_none() || !self.begin_lifetime(now) {
            self.finish(now);
        }
    }

    /// Most events change nothing by themselves: the steps look at exchanges when they run.
    fn note(&mut self, event: client::Event) {
        if let client::Event::Looped { exchange, at, from, packet } = event
            && self.depth.turns.contains(&exchange)
        {
            self.depth.turned.push((exchange, at, from, packet));
        }
    }

    fn finish(&mut self, now: Instant) {
        self.phase = Phase::Done;
        self.finished_after = Some(self.since_start(now));
        self.events.push_back(Event::Finished);
    }

    fn want_socket(&mut self, port: Option<u16>) -> Option<Slot> {
        if self.next_slot >= self.config.sockets {
            return None;
        }
        let slot = Slot(self.next_slot);
        self.next_slot = self.next_slot.saturating_add(1);
        self.opening.push(slot);
        self.opens.push_back(OpenSocket { slot, port });
        Some(slot)
    }

    /// A socket that never sent anything. `None` while it is being opened or where there are none left.
    fn take_fresh(&mut self) -> Option<Slot> {
        let slot = self.idle.pop_front();
        if self.idle.len().saturating_add(self.opening.len()) < 6 {
            self.want_socket(None);
        }
        slot
    }

    /// Whether fresh sockets have run out for good.
    fn is_out_of_sockets(&self) -> bool {
        self.idle.is_empty() && self.opening.is_empty() && self.next_slot >= self.config.sockets
    }

    /// Asks once per socket and destination.
    fn ask_mapped(&mut self, now: Instant, slot: Slot, to: SocketAddr, tries: u8) -> ExchangeId {
        if let Some(id) = self.asked.get(&(slot, to)) {
            return *id;
        }
        let id = self.client.start(now, Request::new(slot, to, Ask::Mapped, tries));
        self.asked.insert((slot, to), id);
        id
    }

    fn outcome(&self, id: ExchangeId) -> Option<&client::Outcome> {
        self.client.exchange(id)?.outcome.as_ref()
    }
}
