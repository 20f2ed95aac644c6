//! Filtering behaviour: who may send to a mapping (RFC 5780 section 4.4).
//!
//! Every try has a socket of its own that has spoken to nobody. It asks the server to answer from elsewhere: *far*, from
//! the other address, which only endpoint-independent filtering lets pass; or *near*, from the other port, which
//! address-dependent filtering lets pass too. An answer proves that the filter is open. Silence proves nothing by
//! itself, so a silent try counts only where
//!
//! - the server answered something that was sent later, which shows that path and server were alive;
//! - the server was seen to answer from elsewhere where the way is open: a mapping socket that has spoken with the far
//!   endpoint asks it for the very same thing. Where the NAT maps by destination no socket can be so prepared; there the
//!   server must at least have answered a request with an empty CHANGE-REQUEST, and must answer from its far endpoint
//!   when asked directly;
//! - servers do not contradict each other about the mapping.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::weight::{Tally, cautious_loss};
use super::{Detector, Phase};
use crate::nat::behaviour::Dependence;
use crate::nat::client::{Ask, ExchangeId, Outcome, Request, Slot};

/// Tries of the controls, which are expected to be answered.
const CONTROL_TRIES: u8 = 5;
/// Tries of one kind in the first wave: two arrivals prove an open filter.
const FIRST_WAVE: u32 = 2;
/// Tries of one kind in a later wave.
const WAVE: u32 = 3;
/// Tries of one kind altogether, after which the answer is *unknown*.
const MAX_TRIES: usize = 18;
/// When to look again where no packet is awaited.
const LOOK: Duration = Duration::from_millis(10);
/// Servers that are asked to answer from elsewhere.
const STATIONS: usize = 2;

/// Which door is tried.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Door {
    /// From an address the socket never spoke to.
    Far,
    /// From an address the socket spoke to, but another port.
    Near,
}

/// One try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Knock {
    pub(super) door: Door,
    pub(super) server: usize,
    pub(super) exchange: ExchangeId,
    pub(super) sent_at: Instant,
}

/// What came of a try.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// The answer came from elsewhere, as asked.
    Passed,
    /// The server answered from where it was asked, or refused: it does not do this.
    NotDone,
    /// No answer, although the path was alive afterwards.
    Silent,
    /// Too early to tell.
    Open,
    /// No answer, and nothing to show that the path was alive.
    Worthless,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Filtering {
    pub(super) knocks: Vec<Knock>,
    /// Empty CHANGE-REQUESTs: the server and the exchange.
    pub(super) empties: Vec<(usize, ExchangeId)>,
    /// Requests to answer from elsewhere through a door known to be open.
    pub(super) honours: Vec<(usize, SocketAddr, ExchangeId)>,
    next_wave: Option<Instant>,
    given_up: bool,
}

impl Detector {
    /// The servers whose doors are tried: with an alternate, answering, and not known to ignore the request.
    pub(super) fn stations(&self) -> Vec<usize> {
        let able = self.servers.iter().enumerate().filter(|(index, server)| {
            let honour_failed = self.filtering.honours.iter().any(|(of, _, exchange)| {
                of == index && matches!(self.outcome(*exchange), Some(outcome) if !is_answer(outcome))
            });
            server.read && server.alternate.is_some() && !server.ignores_change && !honour_failed
        });
        able.map(|(index, _)| index).take(STATIONS).collect()
    }

    pub(super) const fn wake_for_filtering(&self) -> Option<Instant> {
        match self.phase {
            Phase::Core | Phase::Depth if !self.filtering.given_up => self.filtering.next_wave,
            _ => None,
        }
    }

    pub(super) fn advance_filtering(&mut self, now: Instant, certainty: f64) {
        self.read_refusals();
        self.prove_honour(now);
        let stations = self.stations();
        if stations.is_empty() || self.filtering_is_decided(certainty) {
            self.filtering.next_wave = None;
            return;
        }
        if let Some(at) = self.filtering.next_wave
            && now < at
        {
            return;
        }
        if self.filtering.knocks.iter().any(|knock| self.fate(knock) == Fate::Open) {
            // An answer that is still on its way, here or to a control, wakes this up.
            self.filtering.next_wave = self.next_look(now);
            return;
        }
        self.send_wave(now, certainty);
    }

    fn send_wave(&mut self, now: Instant, certainty: f64) {
        let is_first = self.filtering.knocks.is_empty();
        let mut sent = Vec::new();
        for door in [Door::Far, Door::Near] {
            let so_far = self.filtering.knocks.iter().filter(|knock| knock.door == door).count();
            // Where the far door is open, so is the near one.
            let settled = self.verdict_of_juries(door, certainty).is_some()
                || (door == Door::Near && self.verdict_of_juries(Door::Far, certainty) == Some(true));
            if settled || so_far >= MAX_TRIES {
                continue;
            }
            for jury in self.juries(door) {
                let missing = self.tally(door, &jury).missing(self.cautious_loss(), certainty);
                for turn in 0..missing.clamp(1, if is_first { FIRST_WAVE } else { WAVE }) {
                    let turn = so_far.saturating_add(turn as usize);
                    let Some(station) = turn.checked_rem(jury.len()).and_then(|turn| jury.get(turn)) else { break };
                    let Some(slot) = self.take_fresh() else { break };
                    sent.extend(self.knock(now, door, *station, slot));
                }
            }
        }
        if sent.is_empty() {
            // Either everything was tried and what remains is to hear from a control, or sockets are missing.
            let waiting = !self.opening.is_empty() || self.honour_is_pending();
            self.filtering.given_up = !waiting;
            self.filtering.next_wave = if waiting { now.checked_add(LOOK) } else { None };
            return;
        }
        // In the first wave the mapping test, sent right behind, is the control.
        if !is_first {
            let mut controlled = Vec::new();
            for (server, slot) in sent {
                if !controlled.contains(&server) {
                    controlled.push(server);
                    self.ask_empty(now, server, slot);
                }
            }
        }
        self.filtering.next_wave = self.next_look(now);
    }

    /// Who must agree that a door is closed. Stations that were seen to answer from elsewhere are pooled into one jury.
    /// Where none could be seen to, each is a jury of its own: one that swallows the request must not outvote the rest.
    fn juries(&self, door: Door) -> Vec<Vec<usize>> {
        let stations: Vec<usize> =
            self.stations().into_iter().filter(|station| self.door_of(*station, door).is_some()).collect();
        let honoured = |station: &usize| {
            self.filtering.honours.iter().any(|(of, _, exchange)| of == station && self.is_answered(*exchange))
        };
        let proven: Vec<usize> = stations.iter().copied().filter(honoured).collect();
        if !proven.is_empty() {
            vec![proven]
        } else if self.honour_is_pending() && !stations.is_empty() {
            vec![stations]
        } else {
            stations.into_iter().map(|station| vec![station]).collect()
        }
    }

    /// Open where any jury saw it open, closed where all saw it closed.
    fn verdict_of_juries(&self, door: Door, certainty: f64) -> Option<bool> {
        let loss = self.cautious_loss();
        let verdicts: Vec<Option<bool>> =
            self.juries(door).iter().map(|jury| self.tally(door, jury).decision(loss, certainty)).collect();
        if verdicts.contains(&Some(true)) {
            Some(true)
        } else {
            (!verdicts.is_empty() && verdicts.iter().all(|verdict| *verdict == Some(false))).then_some(false)
        }
    }

    fn door_of(&self, server: usize, door: Door) -> Option<SocketAddr> {
        let server = self.servers.get(server)?;
        match door {
            Door::Far => server.far(),
            Door::Near => server.near(),
        }
    }

    /// Whether a station has both doors, so that the filtering could be told.
    pub(super) fn door_exists(&self, station: usize) -> bool {
        self.door_of(station, Door::Far).is_some() && self.door_of(station, Door::Near).is_some()
    }

    fn knock(&mut self, now: Instant, door: Door, station: usize, slot: Slot) -> Option<(usize, Slot)> {
        let server = self.servers.get(station)?;
        let ask = match door {
            Door::Far => server.ask_far(),
            Door::Near => Ask::Change { ip: false, port: true },
        };
        let mut request = Request::new(slot, server.address, ask, 1);
        request.also_from = server.endpoints();
        let exchange = self.client.start(now, request);
        self.filtering.knocks.push(Knock { door, server: station, exchange, sent_at: now });
        Some((station, slot))
    }

    fn ask_empty(&mut self, now: Instant, station: usize, slot: Slot) {
        let Some(server) = self.servers.get(station) else { return };
        let ask = Ask::Change { ip: false, port: false };
        let exchange = self.client.start(now, Request::new(slot, server.address, ask, CONTROL_TRIES));
        self.filtering.empties.push((station, exchange));
    }

    /// Asks through an open door, once per station, as soon as a mapping socket has one open.
    fn prove_honour(&mut self, now: Instant) {
        for station in self.stations() {
            if self.filtering.honours.iter().any(|(of, ..)| *of == station) {
                continue;
            }
            let Some(server) = self.servers.get(station) else { continue };
            let sightings = self.sightings();
            let seen = |slot: Slot, to: SocketAddr| {
                sightings.iter().find(|sighting| sighting.slot == slot && sighting.to == to)
            };
            // The door is open where that endpoint was asked from the very mapping the answer will go to.
            let open = |to: Option<SocketAddr>| {
                let to = to?;
                self.mappers.iter().copied().find(|slot| {
                    let mapped = |to| seen(*slot, to).map(|sighting| sighting.mapped);
                    mapped(to).is_some() && mapped(to) == mapped(server.address)
                })
            };
            let near_will_do = server.far().is_none() || self.mapping() == Some(Dependence::AddressDependent);
            let doors = [
                (server.far(), server.ask_far(), true),
                (server.crossed(), Ask::Change { ip: true, port: false }, true),
                (server.near(), Ask::Change { ip: false, port: true }, near_will_do),
            ];
            let door =
                doors.into_iter().filter(|(.., useful)| *useful).find_map(|(to, ask, _)| Some((open(to)?, to?, ask)));
            let Some((slot, door, ask)) = door else { continue };
            let mut request = Request::new(slot, server.address, ask, CONTROL_TRIES);
            request.also_from = server.endpoints();
            let exchange = self.client.start(now, request);
            self.filtering.honours.push((station, door, exchange));
        }
    }

    /// Whether it may still turn out that a server answers from elsewhere.
    fn honour_is_pending(&self) -> bool {
        let mapping_is_open = !self.mapping_is_ready();
        self.stations().into_iter().any(|station| {
            let honour = self.filtering.honours.iter().find(|(of, ..)| *of == station);
            honour.map_or(mapping_is_open || self.endpoints_are_pending(station), |(.., exchange)| {
                self.outcome(*exchange).is_none()
            })
        }) || self.filtering.empties.iter().any(|(_, exchange)| self.outcome(*exchange).is_none())
    }

    fn endpoints_are_pending(&self, station: usize) -> bool {
        let endpoints = self.servers.get(station).map_or_else(Vec::new, super::reach::Server::endpoints);
        self.asked.iter().any(|((_, to), id)| endpoints.contains(to) && self.outcome(*id).is_none())
    }

    /// Servers that answer from where they were asked, or refuse, do not do what CHANGE-REQUEST asks.
    fn read_refusals(&mut self) {
        let refusing: Vec<usize> = self
            .filtering
            .knocks
            .iter()
            .filter(|knock| self.fate(knock) == Fate::NotDone)
            .map(|knock| knock.server)
            .chain(self.filtering.honours.iter().filter_map(|(server, door, exchange)| {
                let Some(Outcome::Answered { from, answer, .. }) = self.outcome(*exchange) else { return None };
                (answer.error.is_some() || from != door).then_some(*server)
            }))
            .collect();
        for index in refusing {
            if let Some(server) = self.servers.get_mut(index) {
                server.ignores_change = true;
            }
        }
    }

    pub(super) fn fate(&self, knock: &Knock) -> Fate {
        match self.outcome(knock.exchange) {
            Some(Outcome::Answered { from, answer, .. }) => {
                let moved = Some(*from) == self.door_of(knock.server, knock.door);
                if moved && answer.error.is_none() { Fate::Passed } else { Fate::NotDone }
            }
            Some(Outcome::OverBudget) => Fate::Worthless,
            _ => {
                let Some(server) = self.servers.get(knock.server) else { return Fate::Worthless };
                let patience = self.client.pace(server.address.ip()).patience();
                let alive_after = self.last_life_sign(knock.server).is_some_and(|at| at >= knock.sent_at);
                if self.now.is_some_and(|now| now < knock.sent_at + patience) {
                    Fate::Open
                } else if alive_after {
                    Fate::Silent
                } else if self.life_sign_is_coming(knock.server, knock.sent_at) {
                    Fate::Open
                } else {
                    Fate::Worthless
                }
            }
        }
    }

    /// When the latest request left that this server answered.
    fn last_life_sign(&self, station: usize) -> Option<Instant> {
        let endpoints = self.servers.get(station)?.endpoints();
        let answered = self.client.exchanges().filter(|(_, exchange)| endpoints.contains(&exchange.request.to));
        answered
            .flat_map(|(_, exchange)| exchange.tries.iter().filter(|each| each.answered))
            .map(|each| each.sent_at)
            .max()
    }

    /// Whether a request that is expected to be answered was begun at `since` or later, or is still being tried.
    fn life_sign_is_coming(&self, station: usize, since: Instant) -> bool {
        let Some(server) = self.servers.get(station) else { return false };
        let endpoints = server.endpoints();
        self.client.exchanges().any(|(_, exchange)| {
            endpoints.contains(&exchange.request.to)
                && exchange.outcome.is_none()
                && exchange.request.tries > 1
                && exchange.tries.last().is_some_and(|last| last.sent_at >= since)
        })
    }

    fn next_look(&self, now: Instant) -> Option<Instant> {
        let due = self.filtering.knocks.iter().filter_map(|knock| {
            let server = self.servers.get(knock.server)?;
            let at = knock.sent_at + self.client.pace(server.address.ip()).patience();
            (at > now).then_some(at)
        });
        due.max().or_else(|| now.checked_add(LOOK))
    }

    pub(super) fn cautious_loss(&self) -> f64 {
        let (lost, answered) = self.client.losses();
        cautious_loss(lost, answered)
    }

    /// Whether silence from this server means that a door is closed.
    pub(super) fn silence_is_credible(&self, station: usize, door: Door) -> bool {
        let Some(server) = self.servers.get(station) else { return false };
        if server.ignores_change || !self.judgement().is_settled() {
            return false;
        }
        // The far endpoint must be able to reach this host at all.
        let far_is_alive = door == Door::Near
            || self.sightings().iter().any(|seen| server.far().is_some_and(|far| far.ip() == seen.to.ip()));
        let passed_before = self.filtering.knocks.iter().any(|knock| {
            let moved = Some(knock.door) == Some(door) || knock.door == Door::Near;
            let outcome = self.outcome(knock.exchange);
            knock.server == station
                && moved
                && matches!(outcome, Some(Outcome::Answered { answer, from, .. })
                if answer.error.is_none() && Some(*from) == self.door_of(station, knock.door))
        });
        let honour = self.filtering.honours.iter().find(|(of, ..)| *of == station);
        let shown = match honour {
            Some((.., exchange)) => self.is_answered(*exchange),
            None if self.mapping() == Some(Dependence::AddressAndPortDependent) => {
                self.filtering.empties.iter().any(|(of, exchange)| *of == station && self.is_success(*exchange))
            }
            None => passed_before,
        };
        far_is_alive && shown
    }

    fn is_success(&self, id: ExchangeId) -> bool {
        matches!(self.outcome(id), Some(Outcome::Answered { answer, .. }) if answer.error.is_none())
    }

    /// The tries of some stations at one door.
    fn tally(&self, door: Door, stations: &[usize]) -> Tally {
        let mut tally = Tally::default();
        let of_these = |knock: &&Knock| knock.door == door && stations.contains(&knock.server);
        for knock in self.filtering.knocks.iter().filter(of_these) {
            match self.fate(knock) {
                Fate::Passed => tally.passed += 1,
                Fate::Silent => tally.silent += 1,
                Fate::NotDone | Fate::Open | Fate::Worthless => {}
            }
        }
        tally
    }

    /// The tries of all stations at one door.
    pub(super) fn whole_tally(&self, door: Door) -> Tally {
        self.tally(door, &(0..self.servers.len()).collect::<Vec<_>>())
    }

    /// Whether a door is open (`Some(true)`), closed, or not known.
    pub(super) fn door(&self, door: Door, certainty: f64) -> Option<bool> {
        let verdict = self.verdict_of_juries(door, certainty);
        if verdict == Some(false) {
            let credible = self.juries(door).iter().flatten().all(|station| self.silence_is_credible(*station, door));
            return credible.then_some(false);
        }
        verdict
    }

    /// The filtering behaviours that remain possible. Empty: the tries contradict each other.
    pub(super) fn filters(&self, certainty: f64) -> Vec<Dependence> {
        use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        match (self.door(Door::Far, certainty), self.door(Door::Near, certainty)) {
            (Some(true), Some(false)) => vec![],
            (Some(true), _) => vec![EndpointIndependent],
            (Some(false), Some(true)) => vec![AddressDependent],
            (Some(false), Some(false)) => vec![AddressAndPortDependent],
            (Some(false), None) => vec![AddressDependent, AddressAndPortDependent],
            // Whoever lets the far door open lets the near one open: a closed near door closes both.
            (None, Some(false)) if self.whole_tally(Door::Far).passed == 0 => vec![AddressAndPortDependent],
            (None, Some(true)) => vec![EndpointIndependent, AddressDependent],
            (None, _) => Dependence::ALL.to_vec(),
        }
    }

    fn filtering_is_decided(&self, certainty: f64) -> bool {
        self.filters(certainty).len() <= 1
    }

    /// Whether the filtering judgement is as good as it gets.
    pub(super) fn filtering_is_ready(&self, certainty: f64) -> bool {
        self.filtering.given_up || self.stations().is_empty() || self.filtering_is_decided(certainty)
    }
}

const fn is_answer(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Answered { .. })
}
