//! What the three protocols said, side by side.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::exchange::{Conclusion, Dropped, Reply};
use super::{Protocol, epoch, igd, natpmp, pcp};

/// The gateway that was asked and the address it was asked from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The gateway.
    pub gateway: IpAddr,
    /// The link of a link-local IPv6 gateway; 0 elsewhere.
    pub scope_id: u32,
    /// This host's address towards it.
    pub local: IpAddr,
}

/// The answers of one gateway, for one address family.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Whom was asked. `None` where this host has no gateway of the family, which leaves every answer unknown.
    pub route: Option<Route>,
    /// What PCP brought.
    pub pcp: Finding<PcpFacts>,
    /// What NAT-PMP brought. Never asked over IPv6.
    pub natpmp: Finding<NatPmpFacts>,
    /// What UPnP IGD brought.
    pub igd: Finding<igd::IgdFacts>,
    /// From the first packet to the last conclusion.
    pub elapsed: Duration,
}

impl Survey {
    /// The protocols that would make a mapping, in the order to try them: the ones whose mappings die by themselves and
    /// belong to their maker first.
    #[must_use]
    pub fn usable(&self) -> Vec<Protocol> {
        let mut usable = Vec::new();
        if self.pcp.facts.as_ref().is_some_and(|facts| facts.result == pcp::ResultCode::Success) {
            usable.push(Protocol::Pcp);
        }
        if self.natpmp.facts.as_ref().is_some_and(|facts| facts.result == natpmp::ResultCode::Success) {
            usable.push(Protocol::NatPmp);
        }
        if self.igd.facts.as_ref().is_some_and(igd::IgdFacts::can_map) {
            usable.push(Protocol::Igd);
        }
        usable
    }

    /// The external address by the protocol that told it.
    #[must_use]
    pub fn external_addresses(&self) -> Vec<(Protocol, IpAddr)> {
        let natpmp = self.natpmp.facts.as_ref().and_then(|facts| facts.external).map(IpAddr::V4);
        let igd = self.igd.facts.as_ref().and_then(|facts| facts.external);
        [(Protocol::NatPmp, natpmp), (Protocol::Igd, igd)]
            .into_iter()
            .filter_map(|(protocol, ip)| Some((protocol, ip?)))
            .collect()
    }
}

/// What is known about one protocol.
#[derive(Clone, Debug)]
pub struct Finding<F> {
    /// Whether the gateway answers in this protocol: `None` where it could not be asked.
    pub answered: Option<bool>,
    /// What it said, where it answered.
    pub facts: Option<F>,
    /// What was sent and heard, in order.
    pub evidence: Vec<Step>,
}

impl<F> Default for Finding<F> {
    fn default() -> Self {
        Self { answered: None, facts: None, evidence: Vec::new() }
    }
}

impl<F> Finding<F> {
    /// A finding that says why nothing could be asked.
    #[must_use]
    pub fn unknown(at: Duration, why: impl Into<String>) -> Self {
        Self { answered: None, facts: None, evidence: vec![Step { at, text: why.into() }] }
    }
}

/// One line of evidence. The text holds no address, so that it may be shown redacted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// Since the start of the survey.
    pub at: Duration,
    /// What happened.
    pub text: String,
}

/// What a PCP server said to ANNOUNCE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PcpFacts {
    /// Its result code.
    pub result: pcp::ResultCode,
    /// Seconds since it last lost its mappings.
    pub epoch: u32,
    /// Request to answer.
    pub round_trip: Duration,
    /// The epoch to compare later answers with.
    pub clock: epoch::EpochClock,
}

/// What a NAT-PMP gateway said when asked for its external address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NatPmpFacts {
    /// Its result code.
    pub result: natpmp::ResultCode,
    /// Its external address, where it has one.
    pub external: Option<Ipv4Addr>,
    /// Seconds since it last lost its mappings.
    pub epoch: u32,
    /// Request to answer.
    pub round_trip: Duration,
    /// The epoch to compare later answers with.
    pub clock: epoch::EpochClock,
}

/// A finished exchange as evidence and facts need it.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// How it ended.
    pub conclusion: Conclusion,
    /// Transmissions.
    pub sent: usize,
    /// What was dropped.
    pub dropped: Dropped,
    /// The epoch clock after it.
    pub clock: epoch::EpochClock,
}

/// Reads a PCP finding out of an ANNOUNCE exchange that ended at `at`.
#[must_use]
pub fn pcp_finding(at: Duration, finished: &Finished) -> Finding<PcpFacts> {
    let (answered, facts, text) = match finished.conclusion {
        Conclusion::Answered { reply: Reply::Pcp(response), after, .. } => {
            let facts =
                PcpFacts { result: response.result, epoch: response.epoch, round_trip: after, clock: finished.clock };
            let text = format!("ANNOUNCE answered: {:?}, epoch {} s", response.result, response.epoch);
            (true, Some(facts), text)
        }
        Conclusion::Answered { reply: Reply::NatPmp(_), .. } => {
            (false, None, "answered in NAT-PMP that it does not speak PCP".to_owned())
        }
        other => (false, None, unanswered(other)),
    };
    Finding { answered: Some(answered), facts, evidence: evidence(at, "PCP ANNOUNCE", finished, text) }
}

/// Reads a NAT-PMP finding out of an external-address exchange that ended at `at`.
#[must_use]
pub fn natpmp_finding(at: Duration, finished: &Finished) -> Finding<NatPmpFacts> {
    let (answered, facts, text) = match finished.conclusion {
        Conclusion::Answered { reply: Reply::NatPmp(response), after, .. } => {
            let external = match response.answer {
                natpmp::Answer::ExternalAddress(ip)
                    if response.result == natpmp::ResultCode::Success && !ip.is_unspecified() =>
                {
                    Some(ip)
                }
                _ => None,
            };
            let facts = NatPmpFacts {
                result: response.result,
                external,
                epoch: response.epoch,
                round_trip: after,
                clock: finished.clock,
            };
            let text = format!("external address answered: {:?}, epoch {} s", response.result, response.epoch);
            (true, Some(facts), text)
        }
        Conclusion::Answered { reply: Reply::Pcp(_), .. } => {
            (false, None, "answered in PCP that it does not speak NAT-PMP".to_owned())
        }
        other => (false, None, unanswered(other)),
    };
    Finding { answered: Some(answered), facts, evidence: evidence(at, "NAT-PMP external address", finished, text) }
}

fn unanswered(conclusion: Conclusion) -> String {
    match conclusion {
        Conclusion::Refused => "the gateway refuses the port (ICMP port unreachable)".to_owned(),
        _ => "no answer".to_owned(),
    }
}

fn evidence(at: Duration, what: &str, finished: &Finished, outcome: String) -> Vec<Step> {
    let mut steps = vec![Step { at: Duration::ZERO, text: format!("{what}: sent {} times", finished.sent) }];
    let dropped = finished.dropped;
    if dropped.total() > 0 {
        let text = format!(
            "dropped: {} from elsewhere, {} malformed, {} to other questions, {} with a wrong epoch",
            dropped.wrong_source, dropped.malformed, dropped.unrelated, dropped.wrong_epoch
        );
        steps.push(Step { at, text });
    }
    steps.push(Step { at, text: outcome });
    steps
}
