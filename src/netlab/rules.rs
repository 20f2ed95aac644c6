//! A router's behaviour as an nftables ruleset.
//!
//! Linux keeps a source port only while no other flow towards the same destination holds it, so its NAT is endpoint
//! independent by accident. Here independence is learned: after the kernel has translated the first packet of a flow,
//! the rules write the mapping into a table, and later flows of the same internal endpoint take it from there. Where
//! the kernel happened to choose a port that belongs to another internal endpoint, the packet is dropped before its flow
//! is confirmed; the sender's next one gets another port. What outsiders may use is learned on the way out as well.
//!
//! | table | key | value |
//! |---|---|---|
//! | `out` | protocol, internal endpoint (and destination address) | external endpoint |
//! | `in` | protocol, external endpoint | internal endpoint |
//! | `used` | protocol, external port | |
//! | `pairs` | protocol, external port, internal endpoint | |
//! | `permit` | protocol, external endpoint, outside address | |
//!
//! Learning is for IPv4: the keys of a map that packets fill have 16 bytes at most in nft 1.0.6. Translated IPv6 is what
//! Linux masquerading makes of it, which is also what one meets.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::LabError;
use super::router::{Filtering, Gate, Mapping, Nat, Ports, Restriction, Router, Unsolicited};
use super::world::PORTAL;

/// The addresses of one family on the two sides of a router.
pub(super) struct Sides {
    /// The network of the hosts, with its prefix length.
    pub(super) inside: String,
    /// The router's addresses on the other side; the first is its own.
    pub(super) outside: Vec<IpAddr>,
}

/// How many numbers a sequential allocation goes through before it starts over.
const SEQUENCE: u32 = 2048;

/// The first port of a sequential allocation. The kernel translates a port below 1024 to one below 1024 only.
const SEQUENCE_START: u32 = 20_000;

/// Writes the ruleset of a router between the interfaces `lan` and `wan`.
pub(super) fn ruleset(router: &Router, v4: &Sides, v6: Option<&Sides>) -> Result<String, LabError> {
    let mut tables = String::new();
    // Port mapping daemons fill the first three chains.
    let mut chains = Chains {
        pre: "jump prerouting_miniupnpd\n".to_owned(),
        // What the router sends itself keeps its own endpoint.
        post: "jump postrouting_miniupnpd\nfib saddr type local return\n".to_owned(),
        forward: "jump miniupnpd\n".to_owned(),
        ..Chains::default()
    };
    match router.restriction {
        Restriction::None => {}
        Restriction::NoUdp => chains.forward.push_str("meta l4proto udp drop\n"),
        Restriction::NoFragments => {
            chains.raw.push_str("ip frag-off & 0x3fff != 0 drop\nexthdr frag exists drop\n");
        }
        Restriction::CaptivePortal => {
            chains.forward.push_str("meta l4proto udp drop\n");
            let _ = writeln!(chains.pre, "iifname lan meta nfproto ipv4 meta l4proto tcp dnat ip to {PORTAL}");
        }
    }
    gate(&mut tables, &mut chains, &router.v4, Family::V4, v4)?;
    if let (Some(v6_gate), Some(sides)) = (&router.v6, v6) {
        gate(&mut tables, &mut chains, v6_gate, Family::V6, sides)?;
    }
    Ok(chains.assemble(&tables))
}

/// The rules of each hook.
#[derive(Default)]
struct Chains {
    raw: String,
    stateless: String,
    pre: String,
    input: String,
    forward: String,
    refresh: String,
    post: String,
    learn: String,
}

impl Chains {
    fn assemble(&self, tables: &str) -> String {
        let Self { raw, stateless, pre, input, forward, refresh, post, learn } = self;
        format!(
            "table inet nzc {{
chain miniupnpd {{}}
chain prerouting_miniupnpd {{}}
chain postrouting_miniupnpd {{}}
{tables}
chain raw {{ type filter hook prerouting priority -450;
{raw}}}
chain stateless {{ type filter hook prerouting priority raw;
{stateless}}}
chain pre {{ type nat hook prerouting priority dstnat;
{pre}}}
chain input {{ type filter hook input priority filter;
iifname lo accept
ct state established,related accept
meta l4proto {{ icmp, ipv6-icmp }} accept
{input}}}
chain forward {{ type filter hook forward priority filter;
{forward}}}
chain refresh {{ type filter hook forward priority filter + 10;
{refresh}}}
chain post {{ type nat hook postrouting priority srcnat;
{post}}}
chain learn {{ type filter hook postrouting priority srcnat + 10;
{learn}}}
}}
"
        )
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Family {
    V4,
    V6,
}

impl Family {
    /// Fills in the words that differ between the families: `%ip` the keyword, `%proto` the family of `meta nfproto`,
    /// `%type` the set type, `%n` the number that tells the tables apart.
    fn words(self, template: &str) -> String {
        let (ip, proto, kind, number) = match self {
            Self::V4 => ("ip", "ipv4", "ipv4_addr", "4"),
            Self::V6 => ("ip6", "ipv6", "ipv6_addr", "6"),
        };
        template.replace("%proto", proto).replace("%type", kind).replace("%ip", ip).replace("%n", number)
    }
}

fn gate(tables: &mut String, chains: &mut Chains, gate: &Gate, family: Family, sides: &Sides) -> Result<(), LabError> {
    match gate {
        Gate::Open => Ok(()),
        Gate::Firewall(filtering, unsolicited) => {
            refuse(tables, *unsolicited, family);
            firewall(tables, chains, *filtering, family);
            Ok(())
        }
        Gate::Translate(nat) => translate(tables, chains, nat, family, sides),
    }
}

/// Lets in what the filtering allows, with what was learned on the way out.
fn firewall(tables: &mut String, chains: &mut Chains, filtering: Filtering, family: Family) {
    let inside = "meta l4proto . %ip saddr . th sport";
    let (learned, allowed) = match filtering {
        Filtering::EndpointIndependent => (inside.to_owned(), "meta l4proto . %ip daddr . th dport"),
        Filtering::AddressDependent => {
            (format!("{inside} . %ip daddr"), "meta l4proto . %ip daddr . th dport . %ip saddr")
        }
        Filtering::AddressAndPortDependent => (String::new(), ""),
    };
    chains.forward.push_str(&family.words(
        "meta nfproto %proto iifname wan ct state established,related accept
meta nfproto %proto iifname wan meta l4proto { icmp, ipv6-icmp } accept
",
    ));
    if !learned.is_empty() {
        let remote = if filtering == Filtering::AddressDependent { " . %type" } else { "" };
        tables.push_str(&family.words(&format!(
            "set open%n {{ type inet_proto . %type . inet_service{remote}; flags dynamic,timeout; timeout 120s; }}\n"
        )));
        chains.forward.push_str(&family.words(&format!(
            "meta nfproto %proto meta l4proto {{ tcp, udp }} oifname wan update @open%n {{ {learned} }}
meta nfproto %proto meta l4proto {{ tcp, udp }} iifname wan {allowed} @open%n accept
"
        )));
    }
    chains.forward.push_str(&family.words("meta nfproto %proto iifname wan jump unsolicited%n\n"));
}

/// The chain for packets nobody asked for.
fn refuse(tables: &mut String, unsolicited: Unsolicited, family: Family) {
    let verdict = match unsolicited {
        Unsolicited::Drop => "drop",
        Unsolicited::Refuse => "meta l4proto tcp reject with tcp reset\nmeta l4proto udp reject\ndrop",
        Unsolicited::Accept => "accept",
    };
    tables.push_str(&family.words(&format!("chain unsolicited%n {{\n{verdict}\n}}\n")));
}

fn translate(
    tables: &mut String,
    chains: &mut Chains,
    nat: &Nat,
    family: Family,
    sides: &Sides,
) -> Result<(), LabError> {
    let outside = external(nat, sides)?;
    let strangers = nat.hairpin || nat.filtering != Filtering::AddressAndPortDependent || !nat.inbound_refresh;
    // A mapping for each destination needs no table to be made, but one to let strangers in.
    let learned = match nat.mapping {
        Mapping::EndpointIndependent | Mapping::AddressDependent => true,
        Mapping::AddressAndPortDependent => strangers,
        Mapping::Masquerade => false,
    };
    if !learned && strangers {
        return Err(LabError::Plan("only learned mappings can hairpin or let strangers in".to_owned()));
    }
    if family == Family::V6 && (learned || nat.addresses != 1) {
        return Err(LabError::Plan("translated IPv6 has one address and no learned mappings".to_owned()));
    }
    if learned {
        declare(tables, nat, family);
        learn(chains, nat, family);
    }
    if nat.inbound_refresh {
        admit(chains, nat, family, &outside);
    } else {
        admit_stateless(tables, chains, nat, family, &outside)?;
    }
    refuse(tables, nat.unsolicited, family);
    chains.input.push_str(&family.words(&format!(
        "meta nfproto %proto meta l4proto {{ tcp, udp }} iifname wan jump unsolicited%n
meta nfproto %proto meta l4proto {{ tcp, udp }} iifname lan %ip daddr {outside} jump unsolicited%n
"
    )));
    chains.forward.push_str(&family.words(
        "meta nfproto %proto iifname wan ct state established,related,untracked accept
meta nfproto %proto iifname wan ct status dnat accept
meta nfproto %proto iifname wan meta l4proto { icmp, ipv6-icmp } accept
meta nfproto %proto iifname wan drop
",
    ));
    allocate(chains, nat, family, sides)
}

/// The external addresses as a set expression.
fn external(nat: &Nat, sides: &Sides) -> Result<String, LabError> {
    let count = usize::from(nat.addresses);
    let addresses =
        sides.outside.get(..count).filter(|list| !list.is_empty()).ok_or_else(|| {
            LabError::Plan(format!("{count} external addresses of {} there are", sides.outside.len()))
        })?;
    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    Ok(format!("{{ {} }}", list.join(", ")))
}

/// The tables of learned mappings.
fn declare(tables: &mut String, nat: &Nat, family: Family) {
    let target = if nat.mapping == Mapping::AddressDependent { " . %type" } else { "" };
    let life = format!("flags dynamic,timeout; timeout {}ms; size 65535;", nat.lifetime.as_millis());
    tables.push_str(&family.words(&format!(
        "map out%n {{ type inet_proto . %type . inet_service{target} : %type . inet_service; {life} }}
map in%n {{ type inet_proto . %type . inet_service : %type . inet_service; {life} }}
set used%n {{ type inet_proto . inet_service; {life} }}
set pairs%n {{ type inet_proto . inet_service . %type . inet_service; {life} }}
set permit%n {{ type inet_proto . %type . inet_service . %type; {life} }}
"
    )));
}

/// What a packet on its way out teaches, and what a packet on its way in keeps alive.
fn learn(chains: &mut Chains, nat: &Nat, family: Family) {
    for protocol in ["udp", "tcp"] {
        // On its way out a packet carries the external endpoint; the internal one is on record in the connection. A
        // flow that began outside has it on the other side of the record.
        for (direction, status) in [("original", "snat"), ("reply", "dnat")] {
            let lesson = Lesson {
                head: format!("meta l4proto {protocol} ct direction {direction} ct status {status}"),
                inner: format!("ct {direction} %ip saddr . ct {direction} proto-src"),
                outer: ("%ip saddr".to_owned(), format!("{protocol} sport")),
                remote: "%ip daddr",
            };
            if direction == "original" {
                chains.learn.push_str(&family.words(&lesson.clash()));
            }
            chains.learn.push_str(&family.words(&lesson.updates(nat)));
            chains.learn.push_str(&family.words(&lesson.permit()));
        }
        if !nat.inbound_refresh {
            continue;
        }
        // On its way in it carries the internal endpoint here, and the external one is on record.
        for (direction, status) in [("reply", "snat"), ("original", "dnat")] {
            let lesson = Lesson {
                head: format!("iifname wan meta l4proto {protocol} ct direction {direction} ct status {status}"),
                inner: format!("%ip daddr . {protocol} dport"),
                outer: (format!("ct {direction} %ip daddr"), format!("ct {direction} proto-dst")),
                remote: "%ip saddr",
            };
            chains.refresh.push_str(&family.words(&lesson.updates(nat)));
        }
    }
}

/// What one packet shows about a mapping: where its two endpoints and the outside address are found.
struct Lesson {
    /// Which packets.
    head: String,
    /// The internal endpoint.
    inner: String,
    /// The external address and port.
    outer: (String, String),
    /// The outside address.
    remote: &'static str,
}

impl Lesson {
    /// Drops a new flow whose external port belongs to another internal endpoint.
    fn clash(&self) -> String {
        let Self { head, inner, outer: (_, port), .. } = self;
        format!(
            "meta nfproto %proto {head} meta l4proto . {port} @used%n meta l4proto . {port} . {inner} != @pairs%n drop\n"
        )
    }

    fn updates(&self, nat: &Nat) -> String {
        let Self { head, inner, outer: (address, port), remote } = self;
        let target = if nat.mapping == Mapping::AddressDependent { format!(" . {remote}") } else { String::new() };
        let mut rules = String::new();
        let mut rule = |text: String| {
            let _ = writeln!(rules, "meta nfproto %proto {head} {text}");
        };
        if nat.mapping != Mapping::AddressAndPortDependent {
            rule(format!("update @out%n {{ meta l4proto . {inner}{target} : {address} . {port} }}"));
        }
        rule(format!("update @in%n {{ meta l4proto . {address} . {port} : {inner} }}"));
        rule(format!("update @used%n {{ meta l4proto . {port} }}"));
        rule(format!("update @pairs%n {{ meta l4proto . {port} . {inner} }}"));
        rules
    }

    fn permit(&self) -> String {
        let Self { head, outer: (address, port), remote, .. } = self;
        format!("meta nfproto %proto {head} update @permit%n {{ meta l4proto . {address} . {port} . {remote} }}\n")
    }
}

/// Lets strangers in as far as the filtering allows, and neighbours where there is a hairpin.
fn admit(chains: &mut Chains, nat: &Nat, family: Family, outside: &str) {
    let to_mapping = "dnat %ip to meta l4proto . %ip daddr . th dport map @in%n";
    let head = format!("meta nfproto %proto meta l4proto {{ tcp, udp }} %ip daddr {outside}");
    match nat.filtering {
        Filtering::EndpointIndependent => {
            chains.pre.push_str(&family.words(&format!("{head} iifname wan {to_mapping}\n")));
        }
        Filtering::AddressDependent => chains.pre.push_str(&family.words(&format!(
            "{head} iifname wan meta l4proto . %ip daddr . th dport . %ip saddr @permit%n {to_mapping}\n"
        ))),
        Filtering::AddressAndPortDependent => {}
    }
    if nat.hairpin {
        chains.pre.push_str(&family.words(&format!("{head} iifname lan {to_mapping}\n")));
    }
}

/// As [`admit`] for UDP, past the connection table, so that a packet from outside refreshes nothing.
fn admit_stateless(
    tables: &mut String,
    chains: &mut Chains,
    nat: &Nat,
    family: Family,
    outside: &str,
) -> Result<(), LabError> {
    if nat.mapping != Mapping::EndpointIndependent || nat.addresses != 1 || nat.hairpin {
        return Err(LabError::Plan("without refresh from outside only the plainest mapping works".to_owned()));
    }
    let life = format!("flags dynamic,timeout; timeout {}ms; size 65535;", nat.lifetime.as_millis());
    tables.push_str(&family.words(&format!(
        "map home%n {{ type inet_service : %type; {life} }}
map door%n {{ type inet_service : inet_service; {life} }}
set known%n {{ type inet_service . %type . inet_service; {life} }}
"
    )));
    chains.learn.push_str(&family.words(
        "meta nfproto %proto meta l4proto udp ct status snat update @home%n { udp sport : ct original %ip saddr }
meta nfproto %proto meta l4proto udp ct status snat update @door%n { udp sport : ct original proto-src }
meta nfproto %proto meta l4proto udp ct status snat update @known%n { udp sport . %ip daddr . udp dport }
",
    ));
    let filter = match nat.filtering {
        Filtering::EndpointIndependent => "",
        Filtering::AddressDependent => "meta l4proto . %ip daddr . udp dport . %ip saddr @permit%n",
        Filtering::AddressAndPortDependent => "udp dport . %ip saddr . udp sport @known%n",
    };
    chains.stateless.push_str(&family.words(&format!(
        "meta nfproto %proto meta l4proto udp iifname wan %ip daddr {outside} {filter} \
%ip daddr set udp dport map @home%n udp dport set udp dport map @door%n notrack accept
"
    )));
    Ok(())
}

/// Gives a new flow its external endpoint.
fn allocate(chains: &mut Chains, nat: &Nat, family: Family, sides: &Sides) -> Result<(), LabError> {
    let (Some(first), inside) = (sides.outside.first(), &sides.inside) else {
        return Err(LabError::Plan("a router needs an address outside".to_owned()));
    };
    let bracket = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let head = format!("meta nfproto %proto %ip saddr {inside} meta l4proto {{ tcp, udp }}");
    let to = bracket(first);
    let mut rules = String::new();
    match nat.mapping {
        Mapping::EndpointIndependent => {
            let _ = writeln!(rules, "{head} snat %ip to meta l4proto . %ip saddr . th sport map @out%n");
        }
        Mapping::AddressDependent => {
            let _ = writeln!(rules, "{head} snat %ip to meta l4proto . %ip saddr . th sport . %ip daddr map @out%n");
        }
        Mapping::AddressAndPortDependent | Mapping::Masquerade => {}
    }
    match (nat.ports, nat.addresses) {
        (Ports::Preserve, 1) => {
            if nat.mapping == Mapping::EndpointIndependent {
                let _ =
                    writeln!(rules, "{head} meta l4proto . th sport @used%n snat %ip to {to}:1024-65535 fully-random");
            }
            let _ = writeln!(rules, "{head} snat %ip to {to}");
        }
        (Ports::Random(low, high), 1) => {
            let _ = writeln!(rules, "{head} snat %ip to {to}:{low}-{high} fully-random");
        }
        (Ports::Sequential(step), 1) => {
            let _ = writeln!(rules, "{head} snat %ip to {to}:numgen inc mod {SEQUENCE} map {{ {} }}", sequence(step));
        }
        (Ports::Block(size), 1) => {
            // Hosts have the last octets 2 to 9.
            for host in 2..10_u16 {
                let low = 20_480_u16.saturating_add(size.saturating_mul(host));
                let high = low.saturating_add(size).saturating_sub(1);
                let own = nth_host(inside, host);
                let _ = writeln!(rules, "{head} %ip saddr {own} snat %ip to {to}:{low}-{high} fully-random");
            }
        }
        (Ports::Random(low, high), count) => {
            let pool: Vec<String> = (0..)
                .zip(sides.outside.iter().take(count.into()))
                .map(|(n, a): (u8, _)| format!("{n} : {a}"))
                .collect();
            // One address for each internal endpoint, whatever the destination.
            let _ = writeln!(
                rules,
                "{head} snat %ip to jhash %ip saddr . th sport mod {count} map {{ {} }}:{low}-{high} fully-random",
                pool.join(", ")
            );
        }
        _ => return Err(LabError::Plan("a pool of addresses wants random ports".to_owned())),
    }
    let _ = writeln!(rules, "meta nfproto %proto %ip saddr {inside} snat %ip to {first}");
    chains.post.push_str(&family.words(&rules));
    Ok(())
}

/// The `host`-th address of a network given as prefix and length: `192.168.1.0/24` and 2 make `192.168.1.2`.
fn nth_host(network: &str, host: u16) -> String {
    let base = network.split('/').next().unwrap_or(network);
    let stem = base.strip_suffix('0').unwrap_or(base);
    format!("{stem}{host}")
}

/// The elements of a counter's map: 0 to the first port, 1 to the one a step further.
fn sequence(step: u16) -> String {
    // Wraps inside the unprivileged ports, and each lap is one port beside the last: a step that divides the span would
    // meet its own ports again.
    let span = 65_536 - 1024;
    let port = |number: u32| {
        let way = SEQUENCE_START - 1024 + number * u32::from(step);
        1024 + (way + way / span) % span
    };
    (0..SEQUENCE).map(|number| format!("{number} : {}", port(number))).collect::<Vec<_>>().join(", ")
}
