//! Facts from everything that was seen.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::depth_facts::{Guessing, NamedFact};
use super::filtering::{Door, Fate};
use super::reach::Server;
use super::{Detector, weight};
use crate::nat::behaviour::{Class, Dependence, Fact};
use crate::nat::client::{ExchangeId, Outcome, Refusal, Slot, Spent};

/// What the detector found out about UDP in one address family.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The old name that follows from the facts.
    pub class: Class,
    /// Whether any server answered.
    pub answered: bool,
    /// Whether servers contradict each other.
    pub servers_disagree: bool,
    /// Operators whose servers told a mapped address.
    pub operators: usize,
    /// Why what could have been decided was not: contradiction or loss. `None` where everything these servers can tell
    /// is known.
    pub undecided: Option<String>,
    /// Whether requests drew ICMP errors that did not come from the server.
    pub refused_on_the_way: bool,
    /// The errors requests drew, in words.
    pub refusals: Vec<String>,
    /// Local sockets opened.
    pub sockets: u32,
    /// A local address and how it was seen from outside.
    pub local: Option<SocketAddr>,
    /// The mapped address of [`Findings::local`].
    pub mapped: Option<SocketAddr>,
    /// Whether addresses or ports are translated.
    pub nat: Fact<bool>,
    /// Mapping behaviour.
    pub mapping: Fact<Dependence>,
    /// Whether the mapping depends on the peer at all, known more often than how far.
    pub mapping_depends: Option<bool>,
    /// Filtering behaviour.
    pub filtering: Fact<Dependence>,
    /// Whether the outer port equals the inner one.
    pub preserves_port: Fact<bool>,
    /// What the allocation of ports means for a peer.
    pub guessing: Guessing,
    /// Every further fact by name.
    pub more: Vec<NamedFact>,
    /// The servers, in the order they were given.
    pub servers: Vec<ServerFindings>,
    /// Tries lost and answered among those expected to be answered.
    pub losses: (u32, u32),
    /// When the core verdict stood, since the start.
    pub core_after: Option<Duration>,
    /// When everything was done, since the start.
    pub finished_after: Option<Duration>,
    /// What it cost.
    pub spent: Spent,
}

/// What became of one server.
#[derive(Clone, Debug, Default)]
pub struct ServerFindings {
    /// Whether it answered.
    pub answered: bool,
    /// Its second address and port, where they were believed.
    pub alternate: Option<SocketAddr>,
    /// Round trip to it.
    pub round_trip: Option<Duration>,
    /// What is peculiar about it.
    pub note: Option<String>,
}

pub(super) fn collect(detector: &Detector) -> Findings {
    let (nat, mapping, filtering) = (detector.nat_fact(), detector.mapping_fact(), detector.filtering_fact());
    let mapping_depends = detector.judgement().depends_on_peer();
    let answered = detector.servers.iter().any(|server| server.read);
    let class = if !answered && detector.is_silent_everywhere() {
        Class::Blocked
    } else if nat.value == Some(true) && mapping_depends == Some(true) {
        Class::Symmetric
    } else {
        Class::from_facts(nat.value, mapping.value, filtering.value)
    };
    let first = detector.sightings().into_iter().next();
    Findings {
        class,
        answered,
        servers_disagree: detector.judgement().servers_disagree(),
        operators: detector.operators(),
        undecided: detector.undecided(&nat, &mapping, &filtering),
        refused_on_the_way: !answered && detector.is_refused_on_the_way(),
        refusals: detector.refusals(),
        sockets: u32::try_from(detector.locals.len()).unwrap_or(u32::MAX),
        local: first.and_then(|seen| detector.locals.get(&seen.slot).copied()),
        mapped: first.map(|seen| seen.mapped),
        nat,
        mapping,
        mapping_depends,
        filtering,
        preserves_port: detector.preservation_fact(),
        guessing: detector.guessing(),
        more: detector.depth_facts(),
        servers: detector.server_findings(),
        losses: detector.client.losses(),
        core_after: detector.core_after,
        finished_after: detector.finished_after,
        spent: detector.stats(),
    }
}

impl Detector {
    /// Whether every question of the first round ended in silence and not in refusal.
    fn is_silent_everywhere(&self) -> bool {
        !self.asked.is_empty() && self.asked.values().all(|id| matches!(self.outcome(*id), Some(Outcome::Silent)))
    }

    /// Whether every question drew an error and at least one came from somebody else than the server.
    fn is_refused_on_the_way(&self) -> bool {
        let refused = |id: &ExchangeId| match self.outcome(*id) {
            Some(Outcome::Refused(error)) => Some(*error),
            _ => None,
        };
        let mut foreign = false;
        for ((_, to), id) in &self.asked {
            let Some(error) = refused(id) else { return false };
            foreign |= error.refusal != Refusal::Local && error.offender.is_some_and(|offender| offender != to.ip());
        }
        foreign
    }

    fn server_findings(&self) -> Vec<ServerFindings> {
        let found = |server: &Server| ServerFindings {
            answered: server.read,
            alternate: server.far().or_else(|| server.near()),
            round_trip: self.client.pace(server.address.ip()).round_trip().filter(|_| server.read),
            note: self.note_on(server),
        };
        self.servers.iter().map(found).collect()
    }

    fn note_on(&self, server: &Server) -> Option<String> {
        let first = self.mappers.iter().filter_map(|slot| self.asked.get(&(*slot, server.address)));
        let exchange = first.filter_map(|id| self.client.exchange(*id)).find(|exchange| exchange.answer().is_some());
        if let Some(code) = exchange.and_then(|exchange| exchange.answer()?.error) {
            return Some(format!("it refuses a plain request with error {code}"));
        }
        if let Some(why) = &server.alternate_refused {
            return Some(why.clone());
        }
        server.ignores_change.then(|| "it does not answer from elsewhere when asked to".to_owned())
    }

    fn refusals(&self) -> Vec<String> {
        let refused = self.asked.iter().filter_map(|((_, to), id)| match self.outcome(*id) {
            Some(Outcome::Refused(error)) => {
                let who = error.offender.map_or_else(|| "nobody named".to_owned(), |ip| ip.to_string());
                Some(format!("{:?} unreachable for {to}, says {who}", error.refusal))
            }
            _ => None,
        });
        refused.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn operators(&self) -> usize {
        self.sightings().iter().map(|seen| seen.server).collect::<BTreeSet<_>>().len()
    }

    /// What could have been decided with these servers and was not.
    fn undecided(&self, nat: &Fact<bool>, mapping: &Fact<Dependence>, filtering: &Fact<Dependence>) -> Option<String> {
        let judgement = self.judgement();
        if judgement.servers_disagree() {
            return Some(mapping.because.clone());
        }
        if nat.value.is_none() && !self.sightings().is_empty() {
            return Some(nat.because.clone());
        }
        let endpoints: BTreeSet<SocketAddr> = self.sightings().iter().map(|seen| seen.to).collect();
        if endpoints.len() >= 2 && !judgement.is_settled() {
            return Some(mapping.because.clone());
        }
        let testable = self.stations().iter().any(|station| self.door_exists(*station));
        (testable && filtering.value.is_none()).then(|| filtering.because.clone())
    }

    /// Each mapping socket with a sighting: its local and mapped address and the packets that show it.
    fn translations(&self) -> Vec<(Slot, SocketAddr, SocketAddr, Vec<u32>)> {
        let answered = self.client.exchanges().filter_map(|(_, exchange)| {
            let mapped = exchange.answer()?.mapped()?;
            let local = *self.locals.get(&exchange.request.slot)?;
            exchange.request.answer_at.is_none().then(|| (exchange.request.slot, local, mapped, exchange.packets()))
        });
        answered.collect()
    }

    pub(super) fn nat_fact(&self) -> Fact<bool> {
        let seen: Vec<_> =
            self.translations().into_iter().filter(|(_, local, ..)| !local.ip().is_unspecified()).collect();
        let packets = |translated: bool| -> Vec<u32> {
            let matching = seen.iter().filter(|(_, local, mapped, _)| (local != mapped) == translated);
            matching.flat_map(|(.., packets)| packets.iter().copied()).collect()
        };
        let translated = seen.iter().filter(|(_, local, mapped, _)| local != mapped).count();
        match (translated, seen.len()) {
            (_, 0) => Fact::unknown("no server reported a mapped address"),
            (0, _) => Fact::known(false, "servers see the local address and port unchanged", packets(false)),
            (some, all) if some == all => Fact::known(true, "servers see another address or port", packets(true)),
            (some, all) => Fact::unknown(format!("servers disagree: {some} of {all} answers show a translation")),
        }
    }

    fn mapping_fact(&self) -> Fact<Dependence> {
        let judgement = self.judgement();
        let packets: Vec<u32> = self
            .mappers
            .iter()
            .flat_map(|slot| self.asked.iter().filter(move |((of, _), _)| of == slot))
            .filter_map(|(_, id)| self.client.exchange(*id))
            .flat_map(|exchange| exchange.packets())
            .collect();
        let sightings = self.sightings();
        let destinations = |slot: &Slot| sightings.iter().filter(|seen| seen.slot == *slot).count();
        let most = self.mappers.iter().map(destinations).max().unwrap_or(0);
        if let Some(verdict) = judgement.verdict() {
            let what = match verdict {
                Dependence::EndpointIndependent => "one mapped address towards every destination",
                Dependence::AddressDependent => "one mapped address per destination address, whatever the port",
                Dependence::AddressAndPortDependent => "another mapped address towards every destination",
            };
            return Fact::known(verdict, format!("{what}, on {} sockets towards {most}", judgement.votes), packets);
        }
        let because = if judgement.servers_disagree() {
            "servers contradict each other: one of them lies, is rewritten, or is reached by another way".to_owned()
        } else if most < 2 {
            format!("needs answers from two endpoints, and {most} answered")
        } else if judgement.is_settled() {
            let names: Vec<&str> = judgement.candidates.iter().map(|candidate| candidate.as_str()).collect();
            format!("{}: telling them apart needs a server with a second address and port", names.join(" or "))
        } else {
            format!("{} sockets agree and {} do not", judgement.votes, judgement.odd.len() + judgement.disputed.len())
        };
        Fact::unknown(because).with_packets(packets)
    }

    fn filtering_fact(&self) -> Fact<Dependence> {
        let packets: Vec<u32> = self
            .filtering
            .knocks
            .iter()
            .filter_map(|knock| self.client.exchange(knock.exchange))
            .flat_map(|exchange| exchange.packets())
            .collect();
        let (far, near) = (self.whole_tally(Door::Far), self.whole_tally(Door::Near));
        match self.filters(weight::CORE).as_slice() {
            [] => Fact::unknown("packets from another address pass and packets from another port do not")
                .with_packets(packets),
            [only] => {
                let because = format!(
                    "unasked packets from another address: {} of {} arrived; from another port: {} of {}",
                    far.passed,
                    far.passed + far.silent,
                    near.passed,
                    near.passed + near.silent
                );
                Fact::known(*only, because, packets)
            }
            several => Fact::unknown(self.why_filtering_is_open(several.len())).with_packets(packets),
        }
    }

    fn why_filtering_is_open(&self, remaining: usize) -> String {
        if !self.servers.iter().any(|server| server.read) {
            return "no server answered".to_owned();
        }
        if let Some(why) = self.servers.iter().find_map(|server| server.alternate_refused.as_ref()) {
            return format!("no server can answer from elsewhere ({why})");
        }
        if !self.servers.iter().any(|server| server.alternate.is_some()) {
            return "no server can answer from another address (RFC 5780)".to_owned();
        }
        if self.stations().is_empty() {
            return "the server names an alternate address but does not answer from it when asked to".to_owned();
        }
        if self.judgement().servers_disagree() {
            return "servers contradict each other, and silence from such servers proves nothing".to_owned();
        }
        let worthless = self.filtering.knocks.iter().filter(|knock| self.fate(knock) == Fate::Worthless).count();
        format!("{remaining} behaviours remain possible; {worthless} tries had no control")
    }

    pub(super) fn preservation_fact(&self) -> Fact<bool> {
        let seen = self.translations();
        let kept = seen.iter().filter(|(_, local, mapped, _)| local.port() == mapped.port()).count();
        let packets = seen.iter().flat_map(|(.., packets)| packets.iter().copied()).collect();
        let because = format!("{kept} of {} mappings kept the local port", seen.len());
        match (kept, seen.len()) {
            (_, 0) => Fact::unknown("no mapping was seen"),
            (0, _) => Fact::known(false, because, packets),
            (kept, all) if kept == all => Fact::known(true, because, packets),
            _ => Fact::unknown(because).with_packets(packets),
        }
    }
}
