//! The report as a person reads it on a terminal.

use std::fmt::Write as _;
use std::net::SocketAddr;

use fabric::nat::behaviour::Fact;
use fabric::nat::client::Direction;
use fabric::nat::outlook::Strategy;
use fabric::nat::report::{Behaviour, FamilyReport, Report, TransportReport, Verdict};
use serde_json::Value;

/// How to show it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// Colours and bold by escape codes.
    pub(crate) colour: bool,
    /// The evidence behind each fact, and the packets.
    pub(crate) explain: bool,
}

const PLAIN: &str = "";
const GOOD: &str = "32";
const FAIR: &str = "33";
const BAD: &str = "31";
const BOLD: &str = "1";
const DIM: &str = "2";

/// Facts that stand in rows of their own.
const SHOWN_ELSEWHERE: [&str; 3] = ["nat", "mapping", "filtering"];

/// Facts that serve the verdict and only matter to a person when they are not as usual.
const USUAL: [(&str, bool); 4] =
    [("answered", true), ("blocked", false), ("servers_agree", true), ("undecided", false)];

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour && !code.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Renders a report. Control characters a router or a server may have smuggled in are escaped.
pub(crate) fn render(report: &Report, style: Style) -> String {
    let mut text = String::new();
    let tone = match report.verdict {
        Verdict::Diagnosed => GOOD,
        Verdict::Inconclusive => FAIR,
        Verdict::Blocked => BAD,
    };
    let _ = writeln!(text, "{}", style.paint(tone, &clean(&report.summary)));
    for (name, family) in [("IPv4", &report.ipv4), ("IPv6", &report.ipv6)] {
        if family.probed {
            render_family(&mut text, name, family, style);
        } else if let Some(because) = &family.because {
            let _ = writeln!(text, "\n{}", style.paint(DIM, &format!("{name}: not probed: {}", clean(because))));
        }
    }
    render_port_mapping(&mut text, report, style);
    let cost = |family: &FamilyReport| (family.udp.cost.sent, family.udp.cost.sent_bytes);
    let ((packets4, bytes4), (packets6, bytes6)) = (cost(&report.ipv4), cost(&report.ipv6));
    let (packets, bytes) = (packets4.saturating_add(packets6), bytes4.saturating_add(bytes6));
    let line = format!("{:.0} ms, {packets} datagrams with {bytes} bytes sent", report.elapsed_ms);
    let _ = writeln!(text, "\n{}", style.paint(DIM, &line));
    text
}

fn render_family(text: &mut String, name: &str, family: &FamilyReport, style: Style) {
    for (transport, found) in [("UDP", &family.udp), ("TCP", &family.tcp)] {
        if !found.facts.is_empty() {
            let _ = writeln!(text, "\n{}", style.paint(BOLD, &format!("{name} {transport}")));
            render_transport(text, found, style);
        }
    }
    if !family.facts.is_empty() {
        let _ = writeln!(text, "\n{}", style.paint(BOLD, &format!("{name}: the way out")));
        for (name, fact) in &family.facts {
            render_fact(text, name, fact, style);
        }
    }
    if let Some(front) = family.front {
        let heading = format!("{name}: will it work? This host ({front}) and a peer that is");
        let _ = writeln!(text, "\n{}", style.paint(BOLD, &heading));
        for peer in &family.outlook {
            let tone = match peer.strategy {
                Strategy::Direct | Strategy::Punch => GOOD,
                Strategy::PunchPredicted | Strategy::PunchBirthday => FAIR,
                Strategy::Relay => BAD,
            };
            let strategy = style.paint(tone, &format!("{:26}", peer.strategy.as_str()));
            let because = style.paint(DIM, &clean(&peer.because));
            let _ = writeln!(text, "  {:26}  {strategy}  {because}", peer.peer.as_str());
        }
    }
    for advice in &family.advice {
        let _ = writeln!(text, "  {} {}", style.paint(BOLD, "Advice:"), clean(advice));
    }
    for server in &family.servers {
        if style.explain || server.note.is_some() || !server.answered {
            let state = if server.answered { "answers" } else { "no answer" };
            let note = server.note.as_deref().map_or(String::new(), |note| format!("; {}", clean(note)));
            let line = format!("  server {} ({}): {state}{note}", clean(&server.name), server.address);
            let _ = writeln!(text, "{}", style.paint(DIM, &line));
        }
    }
}

fn render_transport(text: &mut String, found: &TransportReport, style: Style) {
    let address = |address: Option<SocketAddr>| address.map_or("unknown".to_owned(), |it| it.to_string());
    let mut row = |name: &str, value: &str, tone: &str| {
        let _ = writeln!(text, "  {name:27}  {}", style.paint(tone, value));
    };
    row("local address", &address(found.local), PLAIN);
    row("mapped address", &address(found.mapped), PLAIN);
    let nat = found.nat.map_or("unknown", |nat| if nat { "yes" } else { "no" });
    row("translated (NAT)", nat, tone_of_unknown(nat));
    row("mapping", found.mapping.as_str(), tone(found.mapping));
    row("filtering", found.filtering.as_str(), tone(found.filtering));
    row("old name (RFC 3489)", found.class.as_str(), PLAIN);
    for (name, fact) in &found.facts {
        if SHOWN_ELSEWHERE.contains(&name.as_str()) {
            if style.explain || fact.value.is_none() {
                because(text, &format!("{name}: "), fact, style);
            }
        } else if style.explain || !is_usual(name, fact) {
            render_fact(text, name, fact, style);
        }
    }
    if style.explain && !found.packets.is_empty() {
        let _ = writeln!(text, "  {}", style.paint(BOLD, "packets"));
        for packet in &found.packets {
            let arrow = match packet.direction {
                Direction::Sent => "->",
                Direction::Received => "<-",
                Direction::Refused => "x-",
            };
            let (number, at, socket) = (packet.number, packet.at_ms, packet.socket);
            let what = clean(&packet.what);
            let line = format!(
                "  {number:4}  {at:8.1} ms  socket {socket:3}  {arrow}  {}  {} bytes  {what}",
                packet.remote, packet.bytes
            );
            let _ = writeln!(text, "{}", style.paint(DIM, &line));
        }
    }
}

fn render_fact(text: &mut String, name: &str, fact: &Fact<Value>, style: Style) {
    let value = match &fact.value {
        None | Some(Value::Null) => "unknown".to_owned(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(Value::String(text)) => clean(text),
        Some(Value::Object(parts)) => {
            let parts: Vec<_> =
                parts.iter().map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect();
            clean(&parts.join(", "))
        }
        Some(other) => clean(&other.to_string()),
    };
    let _ = writeln!(text, "  {:27}  {}", name.replace('_', " "), style.paint(tone_of_unknown(&value), &value));
    if style.explain || value == "unknown" {
        because(text, "", fact, style);
    }
}

fn is_usual(name: &str, fact: &Fact<Value>) -> bool {
    USUAL.iter().any(|(usual, value)| *usual == name && fact.value == Some(Value::Bool(*value)))
}

fn because(text: &mut String, prefix: &str, fact: &Fact<Value>, style: Style) {
    let packets: Vec<_> = fact.packets.iter().map(u32::to_string).collect();
    let packets = match style.explain && !packets.is_empty() {
        true => format!(" [packets {}]", packets.join(", ")),
        false => String::new(),
    };
    let line = format!("  {:27}    {prefix}{}{packets}", "", clean(&fact.because));
    let _ = writeln!(text, "{}", style.paint(DIM, &line));
}

fn render_port_mapping(text: &mut String, report: &Report, style: Style) {
    if report.port_mapping.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{}", style.paint(BOLD, "Port mapping"));
    for protocol in &report.port_mapping {
        let name = format!("{} ({})", protocol.protocol, protocol.family);
        let answered = match (protocol.answered, protocol.usable) {
            (Some(true), Some(false)) => "answers, but would not map",
            (Some(true), _) => "answers",
            (Some(false), _) => "no answer",
            (None, _) => "unknown",
        };
        let _ = writeln!(text, "  {name:27}  {answered}");
        if let Some(external) = &protocol.external {
            let _ = writeln!(text, "  {:27}    external address {external}", "");
        }
        if let Some(model) = &protocol.model {
            let _ = writeln!(text, "  {:27}    {}", "", clean(model));
        }
        if protocol.answered == Some(true) {
            let _ = writeln!(text, "  {:27}    {}", "", clean(&protocol.opens.because));
        }
        if style.explain {
            for step in &protocol.steps {
                let _ = writeln!(text, "{}", style.paint(DIM, &format!("  {:27}    {}", "", clean(step))));
            }
        }
    }
}

const fn tone(behaviour: Behaviour) -> &'static str {
    match behaviour {
        Behaviour::EndpointIndependent => GOOD,
        Behaviour::AddressDependent | Behaviour::Unknown => FAIR,
        Behaviour::AddressAndPortDependent => BAD,
    }
}

fn tone_of_unknown(value: &str) -> &'static str {
    if value == "unknown" { FAIR } else { PLAIN }
}

/// Escapes control characters: a model name may hold anything.
fn clean(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use fabric::nat::report::{finish, unprobed};

    use super::*;

    fn report() -> Report {
        let mut ipv4 = unprobed("");
        ipv4.probed = true;
        finish("nzc nat-probe".to_owned(), 1.0, ipv4, unprobed("switched off"), Vec::new())
    }

    #[test]
    fn p6_nothing_a_router_or_a_server_says_reaches_the_terminal_as_a_control_byte() {
        let hostile = "A\x1b]0;title\x07B\n\u{9b}31m\r";
        let mut report = report();
        report.summary = hostile.to_owned();
        report.ipv4.add("evil", Fact::known(hostile, hostile, Vec::new()));
        report.ipv4.udp.add("evil", Fact::<bool>::unknown(hostile));
        report.ipv4.advice.push(hostile.to_owned());
        report.ipv6.because = Some(hostile.to_owned());
        let text = render(&report, Style { colour: false, explain: true });
        assert!(text.contains("A\\u{1b}"), "{text:?}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }

    #[test]
    fn what_is_unknown_says_why_without_being_asked() {
        let mut report = report();
        report.ipv4.udp.add("filtering", Fact::<bool>::unknown("no server has a second address"));
        report.ipv4.udp.add("hairpin", Fact::known(true, "came back", Vec::new()));
        let text = render(&report, Style { colour: false, explain: false });
        assert!(text.contains("no server has a second address"), "{text}");
        assert!(!text.contains("came back"), "{text}");
        let text = render(&report, Style { colour: false, explain: true });
        assert!(text.contains("came back"), "{text}");
    }
}
