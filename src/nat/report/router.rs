//! What the router's port-mapping protocols said and did, for the report.

use std::net::IpAddr;

use super::PortMappingReport;
use crate::nat::behaviour::Fact;
use crate::nat::port_map::igd::Device;
use crate::nat::port_map::survey::{Step, Survey};
use crate::nat::port_map::verify::Verdict;
use crate::nat::port_map::{Protocol, Transport};

/// What became of one mapping that was tried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tried {
    /// The protocol.
    pub protocol: Protocol,
    /// The transport.
    pub transport: Transport,
    /// The outer address it was granted at.
    pub external: Option<IpAddr>,
    /// The lease it was granted for, in seconds; 0 is without end.
    pub lease: Option<u32>,
    /// What it was worth.
    pub outcome: Outcome,
    /// What could not be undone, where something could not.
    pub leftover: Option<String>,
}

/// What a mapping that was tried was worth.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was granted and tried from outside.
    Judged(Verdict),
    /// The router said no.
    Refused(String),
    /// No answer that could be used.
    Unheard(String),
}

impl Tried {
    fn opens(&self) -> Fact<bool> {
        match &self.outcome {
            Outcome::Judged(verdict) => {
                Fact { value: verdict.open, because: verdict.reason.to_string(), packets: Vec::new() }
            }
            Outcome::Refused(error) => Fact::known(false, format!("the router refused a mapping: {error}"), Vec::new()),
            Outcome::Unheard(error) => Fact::unknown(format!("no mapping came about: {error}")),
        }
    }

    fn step(&self) -> String {
        let lease = match self.lease {
            Some(0) => "granted without end".to_owned(),
            Some(lease) => format!("granted for {lease} s"),
            None => "not granted".to_owned(),
        };
        let end = match (&self.leftover, self.lease) {
            (Some(leftover), _) => format!("; {leftover}"),
            (None, Some(_)) => "; removed".to_owned(),
            (None, None) => String::new(),
        };
        format!("{} mapping {lease}: {}{end}", self.transport, self.opens().because)
    }
}

/// Builds a report for each protocol that was asked in one family.
#[must_use]
pub fn port_mapping(is_ipv4: bool, survey: &Survey, tried: &[Tried]) -> Vec<PortMappingReport> {
    let usable = survey.usable();
    let external = survey.external_addresses();
    let one = |protocol: Protocol, name: &str, answered: Option<bool>, model: Option<String>, evidence: &[Step]| {
        let tried: Vec<&Tried> = tried.iter().filter(|tried| tried.protocol == protocol).collect();
        let mut steps: Vec<String> =
            evidence.iter().map(|step| format!("{} ms: {}", step.at.as_millis(), step.text)).collect();
        steps.extend(tried.iter().map(|tried| tried.step()));
        let told = external.iter().find(|(by, _)| *by == protocol).map(|(_, ip): &(Protocol, IpAddr)| *ip);
        PortMappingReport {
            protocol: name.to_owned(),
            family: if is_ipv4 { "ipv4" } else { "ipv6" }.to_owned(),
            answered,
            usable: answered.map(|_| usable.contains(&protocol)),
            external: told.or_else(|| tried.iter().find_map(|tried| tried.external)),
            model,
            opens: opens(answered, &tried),
            steps,
        }
    };
    let model = survey.igd.facts.as_ref().map(|facts| model(&facts.device)).filter(|model| !model.is_empty());
    let mut reports = vec![
        one(Protocol::Pcp, "pcp", survey.pcp.answered, None, &survey.pcp.evidence),
        one(Protocol::Igd, "upnp-igd", survey.igd.answered, model, &survey.igd.evidence),
    ];
    if is_ipv4 {
        reports.push(one(Protocol::NatPmp, "nat-pmp", survey.natpmp.answered, None, &survey.natpmp.evidence));
    }
    reports
}

/// Maker and model, the maker once.
fn model(device: &Device) -> String {
    if device.model.starts_with(&device.manufacturer) {
        return device.model.clone();
    }
    format!("{} {}", device.manufacturer, device.model).trim().to_owned()
}

/// Whether any mapping let a stranger in: `Some(false)` only where each that was granted did not.
#[must_use]
pub fn any_opens(reports: &[PortMappingReport]) -> Option<bool> {
    let verdicts: Vec<Option<bool>> =
        reports.iter().filter(|report| report.usable == Some(true)).map(|report| report.opens.value).collect();
    if verdicts.contains(&Some(true)) {
        return Some(true);
    }
    (!verdicts.is_empty() && verdicts.iter().all(|verdict| *verdict == Some(false))).then_some(false)
}

/// A protocol opens ports where each transport that was tried let a stranger in, and does not where one did not.
fn opens(answered: Option<bool>, tried: &[&Tried]) -> Fact<bool> {
    let facts: Vec<(String, Fact<bool>)> =
        tried.iter().map(|tried| (tried.transport.to_string(), tried.opens())).collect();
    let Some((_, first)) = facts.first() else {
        return Fact::unknown(match answered {
            Some(true) => "the router answers, but not as one that would make a mapping",
            Some(false) => "the router does not speak it",
            None => "the router could not be asked",
        });
    };
    if facts.iter().all(|(_, fact)| fact == first) {
        return first.clone();
    }
    let value = if facts.iter().any(|(_, fact)| fact.value == Some(false)) { Some(false) } else { None };
    let because: Vec<String> = facts.iter().map(|(name, fact)| format!("{name}: {}", fact.because)).collect();
    Fact { value, because: because.join("; "), packets: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::port_map::verify::Reason;

    fn tried(transport: Transport, outcome: Outcome) -> Tried {
        Tried { protocol: Protocol::Pcp, transport, external: None, lease: Some(30), outcome, leftover: None }
    }

    #[test]
    fn one_transport_that_stays_shut_is_not_hidden_by_one_that_opens() {
        let open = Outcome::Judged(Verdict { open: Some(true), reason: Reason::StrangerCameIn });
        let shut = Outcome::Judged(Verdict { open: Some(false), reason: Reason::NobodyCameIn });
        let (tcp, udp) = (tried(Transport::Tcp, open.clone()), tried(Transport::Udp, open));
        assert_eq!(opens(Some(true), &[&tcp, &udp]).value, Some(true));
        let udp = tried(Transport::Udp, shut);
        let fact = opens(Some(true), &[&tcp, &udp]);
        assert_eq!(fact.value, Some(false));
        assert!(fact.because.starts_with("TCP: ") && fact.because.contains("; UDP: granted, but not"), "{fact:?}");
    }

    #[test]
    fn silence_is_unknown_and_a_refusal_is_no() {
        let silent = tried(Transport::Tcp, Outcome::Unheard("the gateway did not answer".to_owned()));
        let refused = tried(Transport::Tcp, Outcome::Refused("not authorized".to_owned()));
        assert_eq!(opens(Some(true), &[&silent]).value, None);
        assert_eq!(opens(Some(true), &[&refused]).value, Some(false));
        assert_eq!(opens(Some(false), &[]).value, None);
    }
}
