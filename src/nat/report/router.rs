//! What the router's port-mapping protocols said and did, for the report.

use std::net::IpAddr;

use super::PortMappingReport;
use crate::nat::behaviour::Fact;
use crate::nat::port_map::Protocol;
use crate::nat::port_map::survey::{Step, Survey};
use crate::nat::port_map::verify::Verdict;

/// What became of the one mapping that was tried in a protocol.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tried {
    /// The protocol.
    pub protocol: Protocol,
    /// Whether the mapping let a stranger in, or why there was none.
    pub verdict: Result<Verdict, String>,
    /// What could not be undone, where something could not.
    pub leftover: Option<String>,
}

/// Builds a report for each protocol that was asked in one family.
#[must_use]
pub fn port_mapping(is_ipv4: bool, survey: &Survey, tried: &[Tried]) -> Vec<PortMappingReport> {
    let usable = survey.usable();
    let external = survey.external_addresses();
    let one = |protocol: Protocol, name: &str, answered: Option<bool>, model: Option<String>, evidence: &[Step]| {
        let tried = tried.iter().find(|tried| tried.protocol == protocol);
        let mut steps: Vec<String> =
            evidence.iter().map(|step| format!("{} ms: {}", step.at.as_millis(), step.text)).collect();
        steps.extend(tried.and_then(|tried| tried.leftover.clone()));
        PortMappingReport {
            protocol: name.to_owned(),
            family: if is_ipv4 { "ipv4" } else { "ipv6" }.to_owned(),
            answered,
            usable: answered.map(|_| usable.contains(&protocol)),
            external: external.iter().find(|(by, _)| *by == protocol).map(|(_, ip): &(Protocol, IpAddr)| *ip),
            model,
            opens: opens(answered, tried),
            steps,
        }
    };
    let model = survey.igd.facts.as_ref().map(|facts| format!("{} {}", facts.device.manufacturer, facts.device.model));
    let model = model.map(|model| model.trim().to_owned()).filter(|model| !model.is_empty());
    let mut reports = vec![
        one(Protocol::Pcp, "pcp", survey.pcp.answered, None, &survey.pcp.evidence),
        one(Protocol::Igd, "upnp-igd", survey.igd.answered, model, &survey.igd.evidence),
    ];
    if is_ipv4 {
        reports.push(one(Protocol::NatPmp, "nat-pmp", survey.natpmp.answered, None, &survey.natpmp.evidence));
    }
    reports
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

fn opens(answered: Option<bool>, tried: Option<&Tried>) -> Fact<bool> {
    match (answered, tried) {
        (_, Some(Tried { verdict: Ok(verdict), .. })) => {
            Fact { value: verdict.open, because: verdict.reason.to_string(), packets: Vec::new() }
        }
        (_, Some(Tried { verdict: Err(error), .. })) => {
            Fact::known(false, format!("the router refused a mapping: {error}"), Vec::new())
        }
        (Some(true), None) => Fact::unknown("the router answers, but not as one that would make a mapping"),
        (Some(false), None) => Fact::unknown("the router does not speak it"),
        (None, None) => Fact::unknown("the router could not be asked"),
    }
}
