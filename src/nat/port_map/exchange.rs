//! One question to a gateway over UDP, from the first transmission to its conclusion. No I/O.
//!
//! 1. `poll_transmit` hands out the request, at once and then whenever the schedule says so.
//! 2. `handle_input` takes what arrives. Only a reply from the gateway's own address and port, of the asked kind, with
//!    the mapping's nonce and a plausible epoch concludes the exchange; everything else is counted and dropped.
//! 3. `handle_refusal` takes an ICMP "port unreachable", which concludes at once.
//! 4. `handle_timeout` at `poll_timeout` moves the schedule on; past its end the gateway is silent.
//!
//! A reply with a broken epoch comes from a gateway that restarted or from somebody who guessed. It is held back until
//! the answer to a later transmission bears it out; an answer that fits the old epoch beats it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::epoch::{EpochClock, EpochVerdict};
use super::{natpmp, pcp};
use crate::sansio::Transmit;

/// When a request is sent, as offsets from the start, and when the exchange is over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Schedule {
    /// Offsets of the transmissions in rising order. The first should be zero.
    pub sends: Vec<Duration>,
    /// When to stop waiting.
    pub give_up: Duration,
}

impl Schedule {
    /// Four transmissions within a second: a gateway is one hop away, so an answer takes milliseconds or never comes.
    /// The schedules of the specifications (64 s for NAT-PMP, unlimited for PCP) are for a different patience.
    #[must_use]
    pub fn within(give_up: Duration) -> Self {
        let sends = [0, 20, 45, 75].iter().map(|percent| percent_of(give_up, *percent)).collect();
        Self { sends, give_up }
    }
}

/// A share of a span, in percent.
pub(super) fn percent_of(span: Duration, percent: u32) -> Duration {
    span.saturating_mul(percent).checked_div(100).unwrap_or(span)
}

/// A question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Question {
    /// In PCP.
    Pcp(pcp::Request),
    /// In NAT-PMP.
    NatPmp(natpmp::Request),
}

/// An answer that passed every check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
    /// A PCP response. To a NAT-PMP question it is a version error: the gateway speaks PCP only.
    Pcp(pcp::Response),
    /// A NAT-PMP response. To a PCP question it is a version error: the gateway speaks NAT-PMP only.
    NatPmp(natpmp::Response),
}

impl Reply {
    const fn epoch(&self) -> u32 {
        match self {
            Self::Pcp(response) => response.epoch,
            Self::NatPmp(response) => response.epoch,
        }
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Conclusion {
    /// The gateway answered.
    Answered {
        /// What it said.
        reply: Reply,
        /// Time from the first transmission to the answer.
        after: Duration,
        /// Whether its epoch says that it restarted since the clock was last noted.
        restarted: bool,
    },
    /// The gateway's host says that nobody listens there.
    Refused,
    /// No acceptable answer to any transmission.
    Silent,
}

/// What was dropped, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Dropped {
    /// Not from the gateway's address and port.
    pub wrong_source: u32,
    /// Not a message of the protocol.
    pub malformed: u32,
    /// An answer to something else: another opcode, port, transport or nonce.
    pub unrelated: u32,
    /// The epoch does not fit the one before and nothing bore it out.
    pub wrong_epoch: u32,
}

impl Dropped {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u32 {
        self.wrong_source.saturating_add(self.malformed).saturating_add(self.unrelated).saturating_add(self.wrong_epoch)
    }
}

/// The core. See the module's description for the order of calls.
#[derive(Debug)]
pub struct Exchange {
    gateway: SocketAddr,
    question: Question,
    request: Vec<u8>,
    schedule: Schedule,
    started: Instant,
    clock: EpochClock,
    sent: usize,
    due: bool,
    suspect: Option<Suspect>,
    conclusion: Option<Conclusion>,
    dropped: Dropped,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    clock: EpochClock,
    /// How many transmissions had gone out when it came.
    sent: usize,
}

impl Exchange {
    /// Starts an exchange with the gateway's protocol port. `clock` carries the epoch of earlier exchanges, if any.
    #[must_use]
    pub fn new(now: Instant, gateway: SocketAddr, question: Question, schedule: Schedule, clock: EpochClock) -> Self {
        let request = match question {
            Question::Pcp(request) => request.encode(),
            Question::NatPmp(request) => request.encode(),
        };
        let mut exchange = Self {
            gateway,
            question,
            request,
            schedule,
            started: now,
            clock,
            sent: 0,
            due: false,
            suspect: None,
            conclusion: None,
            dropped: Dropped::default(),
        };
        exchange.handle_timeout(now);
        exchange
    }

    /// Takes one datagram.
    pub fn handle_input(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        if self.conclusion.is_some() {
            return;
        }
        // A scope ID is how this host names a link, not part of what the gateway says.
        if (from.ip(), from.port()) != (self.gateway.ip(), self.gateway.port()) {
            self.dropped.wrong_source = self.dropped.wrong_source.saturating_add(1);
            return;
        }
        let Some(reply) = self.decode(bytes) else {
            self.dropped.malformed = self.dropped.malformed.saturating_add(1);
            return;
        };
        if !self.is_answered_by(&reply) {
            self.dropped.unrelated = self.dropped.unrelated.saturating_add(1);
            return;
        }
        let epoch = reply.epoch();
        let restarted = match self.clock.check(now, epoch) {
            EpochVerdict::First | EpochVerdict::Consistent => false,
            EpochVerdict::Broken => {
                let borne_out = self.suspect.is_some_and(|suspect| {
                    suspect.sent < self.sent && suspect.clock.check(now, epoch) == EpochVerdict::Consistent
                });
                if !borne_out {
                    self.dropped.wrong_epoch = self.dropped.wrong_epoch.saturating_add(1);
                    // The first suspect stays: a stream of guesses must not keep pushing out the true one.
                    if self.suspect.is_none() {
                        let mut clock = EpochClock::default();
                        clock.note(now, epoch);
                        self.suspect = Some(Suspect { clock, sent: self.sent });
                    }
                    return;
                }
                true
            }
        };
        self.clock.note(now, epoch);
        let after = now.saturating_duration_since(self.started);
        self.conclusion = Some(Conclusion::Answered { reply, after, restarted });
    }

    /// Takes the news that the gateway's host refuses the port.
    pub fn handle_refusal(&mut self) {
        self.conclusion.get_or_insert(Conclusion::Refused);
    }

    /// Moves the schedule on to `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.conclusion.is_some() {
            return;
        }
        let elapsed = now.saturating_duration_since(self.started);
        if elapsed >= self.schedule.give_up {
            self.conclusion = Some(Conclusion::Silent);
        } else if self.schedule.sends.get(self.sent).is_some_and(|at| *at <= elapsed) {
            self.due = true;
        }
    }

    /// The next transmission, if one is due.
    pub fn poll_transmit(&mut self) -> Option<Transmit<()>> {
        if !self.due || self.conclusion.is_some() {
            return None;
        }
        self.due = false;
        self.sent = self.sent.saturating_add(1);
        Some(Transmit { socket: (), to: self.gateway, payload: self.request.clone() })
    }

    /// How the exchange ended, once it has.
    #[must_use]
    pub const fn conclusion(&self) -> Option<Conclusion> {
        self.conclusion
    }

    /// When to call `handle_timeout` next; `None` once it is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.conclusion.is_some() {
            return None;
        }
        let next = self.schedule.sends.get(self.sent).copied().unwrap_or(self.schedule.give_up);
        self.started.checked_add(next.min(self.schedule.give_up))
    }

    /// Transmissions so far.
    #[must_use]
    pub const fn sent(&self) -> usize {
        self.sent
    }

    /// What was dropped so far.
    #[must_use]
    pub const fn stats(&self) -> Dropped {
        self.dropped
    }

    /// The epoch clock to carry into the next exchange with this gateway.
    #[must_use]
    pub const fn clock(&self) -> EpochClock {
        self.clock
    }

    fn decode(&self, bytes: &[u8]) -> Option<Reply> {
        let pcp = |bytes| pcp::Response::decode(bytes).ok().map(Reply::Pcp);
        let natpmp = |bytes| natpmp::Response::decode(bytes).ok().map(Reply::NatPmp);
        match self.question {
            Question::Pcp(_) => pcp(bytes).or_else(|| natpmp(bytes)),
            Question::NatPmp(_) => natpmp(bytes).or_else(|| pcp(bytes)),
        }
    }

    fn is_answered_by(&self, reply: &Reply) -> bool {
        match (self.question, reply) {
            (Question::Pcp(request), Reply::Pcp(response)) => match (request.operation, response.operation) {
                (pcp::Operation::Announce, Some(pcp::Operation::Announce)) => true,
                (pcp::Operation::Map(asked), Some(pcp::Operation::Map(given))) => {
                    (asked.nonce, asked.transport, asked.internal_port)
                        == (given.nonce, given.transport, given.internal_port)
                }
                (_, None) => response.result == pcp::ResultCode::UnsupportedVersion,
                _ => false,
            },
            (Question::NatPmp(request), Reply::NatPmp(response)) => match (request, response.answer) {
                (natpmp::Request::ExternalAddress, natpmp::Answer::ExternalAddress(_) | natpmp::Answer::Bare(0)) => {
                    true
                }
                (
                    natpmp::Request::Map { transport, internal_port, .. },
                    natpmp::Answer::Map { transport: same_transport, internal_port: same_port, .. },
                ) => transport == same_transport && internal_port == same_port,
                (natpmp::Request::Map { .. }, natpmp::Answer::Bare(1 | 2)) => true,
                _ => false,
            },
            // RFC 6887 section 9: whoever speaks only the other version answers with a version error of its own.
            (Question::Pcp(_), Reply::NatPmp(response)) => response.result == natpmp::ResultCode::UnsupportedVersion,
            (Question::NatPmp(_), Reply::Pcp(response)) => response.result == pcp::ResultCode::UnsupportedVersion,
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;
    use crate::nat::port_map::Transport;

    const GATEWAY: &str = "192.168.1.1:5351";

    fn map_question() -> (Question, pcp::Map) {
        let map = pcp::Map {
            nonce: pcp::Nonce([9; 12]),
            transport: Transport::Udp,
            internal_port: 4000,
            external: "0.0.0.0:0".parse().unwrap(),
        };
        let request =
            pcp::Request { client: "192.168.1.7".parse().unwrap(), lifetime: 30, operation: pcp::Operation::Map(map) };
        (Question::Pcp(request), map)
    }

    fn granted(map: pcp::Map, epoch: u32) -> pcp::Response {
        let external = "11.0.0.1:4000".parse().unwrap();
        pcp::Response {
            result: pcp::ResultCode::Success,
            lifetime: 30,
            epoch,
            operation: Some(pcp::Operation::Map(pcp::Map { external, ..map })),
        }
    }

    fn exchange(now: Instant, question: Question, clock: EpochClock) -> Exchange {
        Exchange::new(now, GATEWAY.parse().unwrap(), question, Schedule::within(Duration::from_secs(1)), clock)
    }

    #[test]
    fn silence_costs_the_transmissions_of_the_schedule_and_ends_on_time() {
        let start = Instant::now();
        let mut exchange = exchange(start, map_question().0, EpochClock::default());
        let (mut now, mut sent_at) = (start, Vec::new());
        while exchange.conclusion().is_none() {
            while let Some(transmit) = exchange.poll_transmit() {
                assert_eq!(transmit.to, GATEWAY.parse().unwrap());
                sent_at.push(now.duration_since(start).as_millis());
            }
            now = exchange.poll_timeout().expect("an open exchange has a deadline");
            exchange.handle_timeout(now);
        }
        assert_eq!(exchange.conclusion(), Some(Conclusion::Silent));
        assert_eq!(sent_at, [0, 200, 450, 750]);
        assert_eq!(now.duration_since(start), Duration::from_secs(1));
        assert_eq!((exchange.poll_transmit(), exchange.poll_timeout()), (None, None));
    }

    #[test]
    fn p9_a_thousand_fakes_are_dropped_and_the_true_answer_still_counts() {
        let start = Instant::now();
        let mut rng = SmallRng::seed_from_u64(9);
        let (question, map) = map_question();
        let mut exchange = exchange(start, question, EpochClock::default());
        let gateway: SocketAddr = GATEWAY.parse().unwrap();
        exchange.poll_transmit();
        for index in 0..1000_u32 {
            let mut bytes = granted(map, rng.random()).encode();
            let mut from = gateway;
            match index % 8 {
                0 => from.set_port(rng.random_range(1..5351)),
                1 => from.set_ip(std::net::Ipv4Addr::from(rng.random_range(1..0xC0A8_0101_u32)).into()),
                2 => bytes[24 + rng.random_range(0..12_usize)] ^= rng.random_range(1..=255_u8),
                3 => bytes[40 + rng.random_range(0..2_usize)] ^= rng.random_range(1..=255_u8),
                4 => bytes[36] = 6,
                5 => bytes[1] = rng.random_range(0..0x81),
                6 => bytes.truncate(rng.random_range(0..60)),
                _ => bytes[0] = rng.random_range(3..=255),
            }
            exchange.handle_input(start, from, &bytes);
            assert_eq!(exchange.conclusion(), None, "fake {index} was believed");
        }
        assert_eq!(exchange.stats().total(), 1000);
        exchange.handle_input(start, gateway, &granted(map, 77).encode());
        assert!(matches!(
            exchange.conclusion(),
            Some(Conclusion::Answered { reply: Reply::Pcp(response), restarted: false, .. }) if response.epoch == 77
        ));
    }

    #[test]
    fn p9_a_broken_epoch_counts_only_when_a_later_transmission_bears_it_out() {
        let start = Instant::now();
        let gateway = GATEWAY.parse().unwrap();
        let (question, map) = map_question();
        let mut clock = EpochClock::default();
        clock.note(start, 5000);

        let mut restarted = exchange(start, question, clock);
        restarted.poll_transmit();
        for _ in 0..3 {
            restarted.handle_input(start, gateway, &granted(map, 3).encode());
        }
        assert_eq!(restarted.conclusion(), None, "repeats of one guess bear nothing out");
        let later = start + Duration::from_millis(200);
        restarted.handle_timeout(later);
        restarted.poll_transmit();
        restarted.handle_input(later, gateway, &granted(map, 3).encode());
        assert!(matches!(restarted.conclusion(), Some(Conclusion::Answered { restarted: true, .. })));
        assert_eq!(restarted.clock().last(), Some(3));

        let mut guessed = exchange(start, question, clock);
        guessed.poll_transmit();
        guessed.handle_input(start, gateway, &granted(map, 3).encode());
        guessed.handle_input(start, gateway, &granted(map, 5000).encode());
        assert!(matches!(guessed.conclusion(), Some(Conclusion::Answered { restarted: false, .. })));
        assert_eq!(guessed.stats().wrong_epoch, 1);
    }

    #[test]
    fn version_errors_tell_which_protocol_is_spoken_instead() {
        let start = Instant::now();
        let gateway = GATEWAY.parse().unwrap();
        let mut pcp_question = exchange(start, map_question().0, EpochClock::default());
        pcp_question.handle_input(start, gateway, &[0, 129, 0, 1, 0, 0, 0, 9]);
        assert!(matches!(pcp_question.conclusion(), Some(Conclusion::Answered { reply: Reply::NatPmp(_), .. })));

        let natpmp = Question::NatPmp(natpmp::Request::ExternalAddress);
        let mut natpmp_question = exchange(start, natpmp, EpochClock::default());
        let mut version_error = vec![2, 0x80, 0, 1];
        version_error.resize(24, 0);
        natpmp_question.handle_input(start, gateway, &version_error);
        assert!(matches!(natpmp_question.conclusion(), Some(Conclusion::Answered { reply: Reply::Pcp(_), .. })));
    }

    #[test]
    fn a_refused_port_concludes_at_once() {
        let mut exchange = exchange(Instant::now(), map_question().0, EpochClock::default());
        exchange.handle_refusal();
        assert_eq!((exchange.conclusion(), exchange.poll_transmit()), (Some(Conclusion::Refused), None));
    }
}
