//! Facts beyond the core verdict.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use serde_json::Value;

use super::allocation::{self, PortAllocation, is_contiguous, keeps_parity};
use super::depth::FRAGMENTED;
use super::{Detector, Phase};
use crate::nat::behaviour::{Dependence, Fact};
use crate::nat::client::Outcome;

/// Sockets that must share an outer address before addresses count as paired.
const PAIRED: usize = 8;

/// A fact with the name the report gives it.
pub type NamedFact = (&'static str, Fact<Value>);

fn named<T: Serialize>(name: &'static str, fact: Fact<T>) -> NamedFact {
    let value = fact.value.and_then(|value| serde_json::to_value(value).ok());
    (name, Fact { value, because: fact.because, packets: fact.packets })
}

/// What the allocation of ports means for a peer that wants to guess the next one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Guessing {
    /// Whether the next port can be told from the last ones.
    pub predictable: Option<bool>,
    /// How many ports there are to guess among, where that is known.
    pub pool: Option<u32>,
}

impl Detector {
    pub(super) fn guessing(&self) -> Guessing {
        let judgement = allocation::judge(&self.allocations());
        Guessing {
            predictable: judgement.allocation.map(|allocation| allocation != PortAllocation::Random),
            pool: judgement.pool.map(|pool| pool.likely_size),
        }
    }

    pub(super) fn depth_facts(&self) -> Vec<NamedFact> {
        let mut facts = self.allocation_facts();
        facts.push(named("address_pooling", self.pooling_fact()));
        facts.push(named("unasked_packets_move_mapping", self.unasked_fact()));
        facts.push(named("independent_under_collision", self.collision_fact()));
        facts.push(named("answers_rewritten", self.rewriting_fact()));
        facts.push(named("largest_datagram", self.largest_fact()));
        facts.push(named("fragments", self.fragments_fact()));
        facts.push(named("hairpin", self.hairpin_fact()));
        let (by_outgoing, by_incoming) = self.refreshes();
        facts.push(named("lifetime_seconds", self.lifetime_fact()));
        facts.push(named("refreshed_by_outgoing", by_outgoing));
        facts.push(named("refreshed_by_incoming", by_incoming));
        facts
    }

    fn untranslated<T>(&self) -> Option<Fact<T>> {
        (self.nat_fact().value == Some(false)).then(|| Fact::unknown("nothing is translated"))
    }

    fn allocation_facts(&self) -> Vec<NamedFact> {
        let allocations = self.allocations();
        let judgement = allocation::judge(&allocations);
        let (shown, of) = judgement.shown;
        let seen = allocations.iter().filter(|each| each.mapped.is_some()).count();
        let packets: Vec<u32> = self.sample_packets();
        let too_few = || format!("{seen} mappings are too few");
        let how = match judgement.allocation {
            Some(kind) => {
                let because = match kind {
                    PortAllocation::Preserved => format!("all of {shown} mappings kept the inner port"),
                    PortAllocation::Offset => {
                        format!("all of {shown} mappings moved the inner port by the same number")
                    }
                    PortAllocation::Sequential => format!("{shown} of {of} mappings in a row are one step apart"),
                    PortAllocation::Random => format!("{of} mappings in a row show no common step"),
                };
                Fact::known(kind, because, packets.clone())
            }
            None => Fact::unknown(too_few()),
        };
        let step = match (judgement.allocation, judgement.step) {
            (Some(PortAllocation::Sequential), Some(step)) => {
                Fact::known(step, format!("{shown} of {of} mappings in a row"), packets.clone())
            }
            (Some(PortAllocation::Sequential) | None, _) => Fact::unknown(too_few()),
            _ => Fact::unknown("ports are not given out one after another"),
        };
        let pool = match judgement.pool {
            Some(pool) => {
                Fact::known(pool, format!("{} mappings that did not keep their port", pool.samples), packets.clone())
            }
            None => Fact::unknown("too few mappings that did not keep their port"),
        };
        let parity = match keeps_parity(&allocations) {
            Some(kept) => Fact::known(kept, format!("{seen} mappings of even and odd inner ports"), packets.clone()),
            None => Fact::unknown(too_few()),
        };
        let pairs = self.neighbouring_pairs();
        let contiguous = match is_contiguous(&pairs) {
            Some(kept) => Fact::known(kept, format!("{} pairs of neighbouring inner ports", pairs.len()), packets),
            None => Fact::unknown(format!("{} pairs of neighbouring inner ports do not tell", pairs.len())),
        };
        if self.nat_fact().value == Some(false) {
            return ["port_allocation", "port_step", "port_pool", "preserves_parity", "contiguous_ports"]
                .map(|name| (name, Fact::unknown("nothing is translated")))
                .into();
        }
        vec![
            named("port_allocation", how),
            named("port_step", step),
            named("port_pool", pool),
            named("preserves_parity", parity),
            named("contiguous_ports", contiguous),
        ]
    }

    fn sample_packets(&self) -> Vec<u32> {
        let sampled = self.depth.samples.values().chain(self.asked.values()).collect::<BTreeSet<_>>();
        sampled.into_iter().filter_map(|id| self.client.exchange(*id)).flat_map(|exchange| exchange.packets()).collect()
    }

    /// Outer endpoints of inner neighbours, the lower first.
    fn neighbouring_pairs(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let pairs = self.depth.pairs.iter().filter(|(low, high)| {
            let port = |slot| self.locals.get(slot).map(|local: &SocketAddr| local.port());
            port(low).and_then(|low| low.checked_add(1)) == port(high) && port(low).is_some()
        });
        pairs.filter_map(|(low, high)| Some((self.sample(*low)?, self.sample(*high)?))).collect()
    }

    fn pooling_fact(&self) -> Fact<&'static str> {
        if let Some(fact) = self.untranslated() {
            return fact;
        }
        let Some(home) = self.home() else { return Fact::unknown("no server answered") };
        let asked = self.client.exchanges().filter(|(_, exchange)| exchange.request.to == home);
        let outer: Vec<(crate::nat::client::Slot, IpAddr)> = asked
            .filter_map(|(_, exchange)| Some((exchange.request.slot, exchange.answer()?.mapped()?.ip())))
            .collect();
        let sockets = outer.iter().map(|(slot, _)| slot).collect::<BTreeSet<_>>().len();
        let addresses = outer.iter().map(|(_, ip)| ip).collect::<BTreeSet<_>>().len();
        match (addresses, sockets) {
            (0 | 1, few) if few < PAIRED => Fact::unknown(format!("{few} sockets are too few")),
            (1, all) => Fact::known("paired", format!("{all} sockets share one outer address"), self.sample_packets()),
            (several, all) => {
                Fact::known("arbitrary", format!("{all} sockets have {several} outer addresses"), self.sample_packets())
            }
        }
    }

    fn unasked_fact(&self) -> Fact<bool> {
        if self.mapping() != Some(Dependence::EndpointIndependent) || self.nat_fact().value != Some(true) {
            return Fact::unknown("asked only where one mapping serves all destinations");
        }
        let mapped = |id| self.client.exchange(id).and_then(|exchange| exchange.answer()?.mapped());
        let compared: Vec<bool> =
            self.depth.unasked.iter().filter_map(|(before, after)| Some(mapped(*before)? != mapped(*after)?)).collect();
        let packets = self
            .depth
            .unasked
            .iter()
            .flat_map(|(before, after)| [*before, *after])
            .filter_map(|id| self.client.exchange(id))
            .flat_map(|exchange| exchange.packets())
            .collect();
        let moved = compared.iter().filter(|moved| **moved).count();
        match (moved, compared.len()) {
            (_, 0) => Fact::unknown("no unasked packet was turned away"),
            (0, all) => {
                let because = format!("{all} mappings stayed the same after an unasked packet was turned away");
                Fact::known(false, because, packets)
            }
            (some, all) => {
                let because = format!("{some} of {all} mappings moved to another port after an unasked packet");
                Fact::known(true, because, packets)
            }
        }
    }

    fn collision_fact(&self) -> Fact<bool> {
        if self.mapping() != Some(Dependence::EndpointIndependent) || self.nat_fact().value != Some(true) {
            return Fact::unknown("asked only where one mapping serves all destinations");
        }
        let odd = self.judgement().odd.len();
        if odd > 0 {
            let because =
                format!("{odd} sockets had one mapping that differs from their others: the port was taken there");
            return Fact::known(false, because, Vec::new());
        }
        if self.unasked_fact().value == Some(true) {
            return Fact::known(false, "a flow that holds the port already moves the mapping", Vec::new());
        }
        match self.preservation_fact().value {
            Some(true) => Fact::unknown(
                "the NAT keeps ports; what it does where two hosts use one port cannot be seen from one host",
            ),
            _ => Fact::unknown("no collision was seen"),
        }
    }

    fn rewriting_fact(&self) -> Fact<bool> {
        let answers = || {
            let answered = self.client.exchanges().filter_map(|(_, exchange)| Some((exchange.answer()?, exchange)));
            answered.filter(|(answer, _)| answer.xor_mapped.is_some() && answer.plain_mapped.is_some())
        };
        let rewritten: Vec<u32> = answers()
            .filter(|(answer, _)| answer.is_rewritten())
            .flat_map(|(_, exchange)| exchange.packets())
            .collect();
        match (rewritten.is_empty(), answers().count()) {
            (_, 0) => Fact::unknown("no server sends the address in both forms"),
            (true, all) => Fact::known(false, format!("both forms of the address agree in {all} answers"), Vec::new()),
            (false, _) => Fact::known(
                true,
                "the plain address differs from the masked one: something on the way rewrites answers",
                rewritten,
            ),
        }
    }

    fn largest_fact(&self) -> Fact<u16> {
        let outcomes = self.size_outcomes();
        let whole = outcomes.iter().filter(|size| size.length < FRAGMENTED && size.answered.is_some() && !size.shrunk);
        match whole.max_by_key(|size| size.length) {
            None if outcomes.is_empty() => Fact::unknown("not tested"),
            None => Fact::unknown("no padded request was answered"),
            Some(size) => {
                let back = if size.answered >= Some(usize::from(size.length)) { " and back" } else { "" };
                let because = format!("{} bytes of UDP payload went there{back} in one piece", size.length);
                Fact::known(size.length, because, size.packets.clone())
            }
        }
    }

    fn fragments_fact(&self) -> Fact<bool> {
        let outcomes = self.size_outcomes();
        let Some(size) = outcomes.iter().find(|size| size.length >= FRAGMENTED) else {
            let why = match self.config.link_mtu {
                Some(mtu) if mtu >= u32::from(FRAGMENTED) => "the local link takes large packets whole",
                _ => "not tested",
            };
            return Fact::unknown(why);
        };
        let settled = self.depth.sizes.iter().any(|(length, id)| {
            *length == size.length && matches!(self.outcome(*id), Some(Outcome::Silent | Outcome::Refused(_)))
        });
        match size.answered {
            Some(length) if length >= usize::from(FRAGMENTED) => {
                Fact::known(true, "fragments pass in both directions", size.packets.clone())
            }
            Some(_) => Fact::known(
                true,
                "fragments go out; the answer was not large enough to try the way in",
                size.packets.clone(),
            ),
            None if settled && self.pads() => Fact::known(
                false,
                "a request in two fragments stays unanswered; smaller ones are answered",
                size.packets.clone(),
            ),
            None => Fact::unknown("a request in fragments was not answered, and the server may be the reason")
                .with_packets(size.packets.clone()),
        }
    }

    fn hairpin_fact(&self) -> Fact<bool> {
        if !self.config.hairpin {
            return Fact::unknown("not asked for: some firewalls take such packets for an attack (--hairpin)");
        }
        if let Some(fact) = self.untranslated() {
            return fact;
        }
        let Some((one, other)) = self.depth.turners else { return Fact::unknown("not tested") };
        if let Some((_, at, from, packet)) = self.depth.turned.first() {
            let sender = if *at == other { one } else { other };
            let how = if self.sample(sender) == Some(*from) {
                "with its outer address"
            } else if self.locals.get(&sender) == Some(from) {
                "with its inner address, which a peer does not expect"
            } else {
                "with another address"
            };
            return Fact::known(true, format!("a packet to the own outer address came back {how}"), vec![*packet]);
        }
        let silent = !self.depth.turns.is_empty()
            && self
                .depth
                .turns
                .iter()
                .all(|id| matches!(self.outcome(*id), Some(Outcome::Silent | Outcome::Refused(_))));
        let independent = self.mapping() == Some(Dependence::EndpointIndependent);
        if silent && independent && self.phase == Phase::Done {
            let packets = self
                .depth
                .turns
                .iter()
                .filter_map(|id| self.client.exchange(*id))
                .flat_map(|exchange| exchange.packets());
            return Fact::known(false, "packets to the own outer address do not come back", packets.collect());
        }
        Fact::unknown("nothing came back, which may be the filter's doing")
    }
}
