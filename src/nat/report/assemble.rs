//! From findings to a report. Pure: everything that was seen comes in as values.

use std::net::IpAddr;

use super::{Behaviour, Cost, FamilyReport, PortMappingReport, Report, SCHEMA_VERSION, TransportReport, Verdict};
use crate::nat::behaviour::{Class, Dependence, Fact};
use crate::nat::client::PacketRecord;
use crate::nat::detector::Findings;
use crate::nat::outlook::{self, Front};
use crate::nat::port_map::survey::Survey;
use crate::nat::stream::StreamFindings;

/// What tells silence from a blocked network.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Contrast {
    /// Servers that were asked, counted by prefix (/16, /32).
    pub networks: usize,
    /// Whether any of them answered over TCP.
    pub tcp_answers: bool,
    /// Whether a web server answered in the place of one of them.
    pub intercepted: bool,
}

/// Builds the report of one family.
#[must_use]
pub fn family(
    udp: &Findings,
    packets: Option<&[PacketRecord]>,
    tcp: Option<&StreamFindings>,
    survey: Option<&Survey>,
    opens: Option<bool>,
    contrast: Contrast,
) -> FamilyReport {
    let mut report = FamilyReport { probed: true, ..FamilyReport::default() };
    report.udp = udp_report(udp, contrast);
    report.udp.packets = packets.map(<[PacketRecord]>::to_vec).unwrap_or_default();
    if let Some(tcp) = tcp {
        report.tcp = tcp_report(tcp);
    }
    report.gateway = survey.and_then(|survey| survey.route).map(|route| route.gateway);
    report.add("carrier_grade_nat", carrier_grade(&report.udp, survey));
    report.add("double_nat", double_nat(&report.udp, survey));
    report.front = front(udp, &report.udp);
    if let Some(front) = report.front {
        report.outlook = outlook::table(front, udp.guessing.pool);
        report.advice = outlook::advice(front, opens);
    }
    report
}

/// A family that was not probed, and why.
#[must_use]
pub fn unprobed(because: impl Into<String>) -> FamilyReport {
    FamilyReport { because: Some(because.into()), ..FamilyReport::default() }
}

/// Puts the families together and says what they come to.
#[must_use]
pub fn finish(
    program: String,
    elapsed_ms: f64,
    ipv4: FamilyReport,
    ipv6: FamilyReport,
    port_mapping: Vec<PortMappingReport>,
) -> Report {
    let verdicts: Vec<Verdict> =
        [&ipv4, &ipv6].into_iter().filter(|family| family.probed).map(family_verdict).collect();
    let verdict = if verdicts.contains(&Verdict::Inconclusive) {
        Verdict::Inconclusive
    } else if verdicts.contains(&Verdict::Diagnosed) {
        Verdict::Diagnosed
    } else {
        Verdict::Blocked
    };
    let summary = [("IPv4", &ipv4), ("IPv6", &ipv6)]
        .into_iter()
        .filter(|(_, family)| family.probed)
        .map(|(name, family)| format!("{name}: {}", sentence(family)))
        .collect::<Vec<_>>()
        .join(" ");
    let summary = if summary.is_empty() { "There was nobody to ask.".to_owned() } else { summary };
    Report { schema_version: SCHEMA_VERSION, program, verdict, summary, elapsed_ms, ipv4, ipv6, port_mapping }
}

fn family_verdict(family: &FamilyReport) -> Verdict {
    let is = |name: &str, value: bool| {
        family.udp.facts.get(name).and_then(|fact| fact.value.as_ref()).and_then(serde_json::Value::as_bool)
            == Some(value)
    };
    if is("answered", false) {
        Verdict::Blocked
    } else if is("undecided", true) {
        Verdict::Inconclusive
    } else {
        Verdict::Diagnosed
    }
}

fn udp_report(findings: &Findings, contrast: Contrast) -> TransportReport {
    let blocked = blocked(findings, contrast);
    let class = if blocked.value == Some(true) {
        Class::Blocked
    } else if findings.class == Class::Blocked {
        Class::Unknown
    } else {
        findings.class
    };
    let milliseconds = |duration: std::time::Duration| (duration.as_secs_f64() * 1e5).round() / 1e2;
    let mut report = TransportReport {
        class,
        nat: findings.nat.value,
        mapping: Behaviour::from(findings.mapping.value),
        filtering: Behaviour::from(findings.filtering.value),
        local: findings.local,
        mapped: findings.mapped,
        core_ms: findings.core_after.map(milliseconds),
        elapsed_ms: findings.finished_after.map(milliseconds),
        cost: Cost {
            sent: findings.spent.sent,
            received: findings.spent.received,
            sent_bytes: findings.spent.sent_bytes,
            received_bytes: findings.spent.received_bytes,
            rejected: findings.spent.rejected.saturating_add(findings.spent.repeated),
            sockets: findings.sockets,
        },
        ..TransportReport::default()
    };
    report.add("answered", answered(findings.answered));
    report.add("blocked", blocked);
    report.add("undecided", undecided(findings));
    report.add("servers_agree", servers_agree(findings));
    report.add("nat", findings.nat.clone());
    report.add("mapping", findings.mapping.clone());
    report.add("filtering", findings.filtering.clone());
    report.add("preserves_port", findings.preserves_port.clone());
    for (name, fact) in &findings.more {
        report.add(name, fact.clone());
    }
    report
}

fn answered(answered: bool) -> Fact<bool> {
    Fact::known(answered, if answered { "a server answered" } else { "no server answered" }, Vec::new())
}

fn tcp_report(findings: &StreamFindings) -> TransportReport {
    let mut report = TransportReport {
        class: findings.class,
        nat: findings.nat.value,
        mapping: Behaviour::from(findings.mapping.value),
        filtering: Behaviour::from(findings.filtering.value),
        local: findings.local,
        mapped: findings.mapped,
        ..TransportReport::default()
    };
    report.add("answered", answered(findings.answered));
    report.add("nat", findings.nat.clone());
    report.add("mapping", findings.mapping.clone());
    report.add("filtering", findings.filtering.clone());
    report.add("preserves_port", findings.preserves_port.clone());
    report
}

/// Silence means a blocked network only beside something that shows that the servers are there.
fn blocked(findings: &Findings, contrast: Contrast) -> Fact<bool> {
    if findings.answered {
        return Fact::known(false, "a server answered", Vec::new());
    }
    if findings.refused_on_the_way {
        return Fact::known(true, "requests are refused on the way: ICMP errors, not from the server", Vec::new());
    }
    if findings.class != Class::Blocked {
        return Fact::unknown(format!("requests are refused: {}", findings.refusals.join("; ")));
    }
    if contrast.tcp_answers {
        return Fact::known(true, "no answer over UDP from a server that answers over TCP", Vec::new());
    }
    if contrast.intercepted {
        let because = "no answer over UDP, and a web server answers in the place of the server over TCP: a login page?";
        return Fact::known(true, because, Vec::new());
    }
    if contrast.networks >= 2 {
        return Fact::known(true, format!("no answer from servers in {} networks", contrast.networks), Vec::new());
    }
    Fact::unknown("no answer from the one server, over UDP or TCP: blocked, or the server is down; ask another server")
}

fn undecided(findings: &Findings) -> Fact<bool> {
    match &findings.undecided {
        Some(why) => Fact::known(true, why.clone(), Vec::new()),
        None => Fact::known(false, "what these servers can tell is known", Vec::new()),
    }
}

fn servers_agree(findings: &Findings) -> Fact<bool> {
    match (findings.servers_disagree, findings.operators) {
        (true, _) => Fact::known(false, "servers contradict each other about the mapped address", Vec::new()),
        (false, 0 | 1) => Fact::unknown("one server alone cannot be contradicted"),
        (false, several) => Fact::known(true, format!("{several} servers fit together"), Vec::new()),
    }
}

/// 100.64/10 (RFC 6598) is the network between a carrier's NAT and its customers.
fn is_carriers(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 100 && ip.octets()[1] & 0xC0 == 64)
}

fn carrier_grade(udp: &TransportReport, survey: Option<&Survey>) -> Fact<bool> {
    if udp.local.is_some_and(|local| local.is_ipv6()) {
        return Fact::known(false, "IPv6 has none", Vec::new());
    }
    let inner = udp.local.map(|local| local.ip()).filter(|ip| is_carriers(*ip));
    let outer = survey.map(Survey::external_addresses).unwrap_or_default();
    if inner.is_some() {
        return Fact::known(true, "the local address is one a carrier's NAT gives (100.64.0.0/10)", Vec::new());
    }
    if let Some((protocol, _)) = outer.iter().find(|(_, ip)| is_carriers(*ip)) {
        return Fact::known(
            true,
            format!("the router's own outer address is one a carrier's NAT gives ({protocol})"),
            Vec::new(),
        );
    }
    if udp.nat == Some(false) {
        return Fact::known(false, "nothing is translated", Vec::new());
    }
    match (udp.mapped, outer.first()) {
        (Some(mapped), Some((protocol, _))) if outer.iter().any(|(_, ip)| *ip == mapped.ip()) => Fact::known(
            false,
            format!("the router's own outer address is the one the world sees ({protocol})"),
            Vec::new(),
        ),
        (_, None) => Fact::unknown("the router does not tell its outer address"),
        _ => Fact::unknown("the world sees another address than the router's outer one: another NAT, or a tunnel"),
    }
}

fn double_nat(udp: &TransportReport, survey: Option<&Survey>) -> Fact<bool> {
    if udp.nat == Some(false) {
        return Fact::known(false, "nothing is translated", Vec::new());
    }
    let Some(mapped) = udp.mapped else { return Fact::unknown("no mapped address") };
    let outer = survey.map(Survey::external_addresses).unwrap_or_default();
    match outer.first() {
        None => Fact::unknown("the router does not tell its outer address"),
        Some((protocol, _)) if outer.iter().any(|(_, ip)| *ip == mapped.ip()) => Fact::known(
            false,
            format!("the router's own outer address is the one the world sees ({protocol})"),
            Vec::new(),
        ),
        Some((protocol, ip)) if !crate::address::special::is_global(*ip) => Fact::known(
            true,
            format!("the router's own outer address is not public and not the one the world sees ({protocol})"),
            Vec::new(),
        ),
        Some((protocol, _)) => Fact::unknown(format!(
            "the world sees another address than the router's outer one ({protocol}): another NAT, an address pool, or a tunnel"
        )),
    }
}

/// NAT64 is seen from the family of the mapped address, or from a resolver that makes up addresses (RFC 7050): `Some(true)`
/// where it does, `Some(false)` where it does not, `None` where it was not asked.
#[must_use]
pub fn nat64(udp: &TransportReport, resolver_makes_up: Option<bool>) -> Fact<bool> {
    let is_v4 = |address: &std::net::SocketAddr| address.is_ipv4();
    match (udp.local.as_ref().map(is_v4), udp.mapped.as_ref().map(is_v4), resolver_makes_up) {
        (Some(false), Some(true), _) => {
            Fact::known(true, "a server sees an IPv4 address where this host used IPv6", Vec::new())
        }
        (_, _, Some(true)) => {
            Fact::known(true, "the resolver gives IPv6 addresses to a name that has none (RFC 7050)", Vec::new())
        }
        (_, _, Some(false)) => {
            Fact::known(false, "the resolver gives no IPv6 address to a name that has none (RFC 7050)", Vec::new())
        }
        (_, _, None) => Fact::unknown("the resolver was not asked: no server was given by name"),
    }
}

fn front(findings: &Findings, report: &TransportReport) -> Option<Front> {
    if report.class == Class::Blocked {
        return Some(Front::Blocked);
    }
    // Where it is only known that the mapping depends on the peer, the strictest way to do so is assumed.
    let strictest = (findings.mapping_depends == Some(true)).then_some(Dependence::AddressAndPortDependent);
    Front::from_facts(
        report.nat,
        findings.mapping.value.or(strictest),
        findings.filtering.value,
        findings.guessing.predictable,
    )
}

/// One sentence for a person.
fn sentence(family: &FamilyReport) -> String {
    let udp = &family.udp;
    match udp.class {
        Class::Open => "a public address, and nothing is filtered.".to_owned(),
        Class::Firewall => "a public address behind a firewall that lets only answers in.".to_owned(),
        Class::FullCone => "behind a NAT that lets everybody in through an existing mapping (full cone).".to_owned(),
        Class::Restricted => "behind a NAT that lets in addresses written to before (restricted).".to_owned(),
        Class::PortRestricted => {
            "behind a NAT that lets in only endpoints written to before (port-restricted).".to_owned()
        }
        Class::Symmetric => "behind a NAT that gives every peer another port (symmetric).".to_owned(),
        Class::Blocked => "UDP does not get through.".to_owned(),
        Class::Unknown => match (udp.nat, udp.facts.get("undecided").and_then(|fact| fact.value.clone())) {
            (_, Some(serde_json::Value::Bool(true))) => {
                "what was seen does not fit together; nothing is certain.".to_owned()
            }
            (Some(true), _) => {
                format!("behind a NAT; mapping {}, filtering {}.", udp.mapping.as_str(), udp.filtering.as_str())
            }
            (Some(false), _) => format!("a public address; filtering {}.", udp.filtering.as_str()),
            (None, _) => "no server could be reached.".to_owned(),
        },
    }
}
