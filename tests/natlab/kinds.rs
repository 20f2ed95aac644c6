//! Every kind of router does what its name says: mapping, filtering, ports, hairpin, lifetime, proven by plain sockets.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use fabric::netlab::kind::Kind;
use fabric::netlab::world::{BuiltHome, Home, Plan, World};
use libtest_mimic::{Failed, Trial};

use crate::foreign::{Needs, trial};
use crate::measure::{Depends, SILENCE, Servers, carried, filtering, host_socket, mapping, same_port, seen};
use crate::netns::udp;

use Depends::{Address, AddressAndPort, Nothing};

/// How the external port follows from the internal one or from the last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ports {
    Kept,
    Random,
    Step(u16),
    /// Random within this many.
    Within(u16),
}

/// What must be measured behind each kind; `None` where UDP does not pass.
type Expected = Option<(Depends, Depends, Ports)>;

/// Written down here once more, so that a slip in the description of a kind is a failure.
const EXPECTED: &[(&str, bool, Expected)] = &[
    ("open", false, Some((Nothing, Nothing, Ports::Kept))),
    ("firewall", false, Some((Nothing, AddressAndPort, Ports::Kept))),
    ("full-cone", true, Some((Nothing, Nothing, Ports::Kept))),
    ("address-restricted", true, Some((Nothing, Address, Ports::Kept))),
    ("port-restricted", true, Some((Nothing, AddressAndPort, Ports::Kept))),
    ("symmetric", true, Some((AddressAndPort, AddressAndPort, Ports::Random))),
    ("symmetric-sequential", true, Some((AddressAndPort, AddressAndPort, Ports::Step(1)))),
    ("hairpin", true, Some((Nothing, AddressAndPort, Ports::Kept))),
    ("double-nat", true, Some((Nothing, AddressAndPort, Ports::Kept))),
    ("udp-blocked", true, None),
    ("short-lifetime", true, Some((Nothing, AddressAndPort, Ports::Kept))),
    ("ipv6-firewall", true, Some((Nothing, AddressAndPort, Ports::Kept))),
    ("symmetric-step-2", true, Some((AddressAndPort, AddressAndPort, Ports::Step(2)))),
    ("symmetric-step-256", true, Some((AddressAndPort, AddressAndPort, Ports::Step(256)))),
    ("address-dependent", true, Some((Address, AddressAndPort, Ports::Random))),
    ("address-dependent-open", true, Some((Address, Address, Ports::Random))),
    ("symmetric-open", true, Some((AddressAndPort, Nothing, Ports::Random))),
    ("address-firewall", false, Some((Nothing, Address, Ports::Kept))),
    ("address-pool", true, Some((Nothing, AddressAndPort, Ports::Random))),
    ("port-blocks", true, Some((AddressAndPort, AddressAndPort, Ports::Within(512)))),
    ("random-cone", true, Some((Nothing, Nothing, Ports::Random))),
    ("refusing", true, Some((Nothing, AddressAndPort, Ports::Kept))),
    ("poisoned", true, Some((Nothing, AddressAndPort, Ports::Kept))),
    ("outbound-refresh", true, Some((Nothing, Nothing, Ports::Kept))),
    ("no-fragments", true, Some((Nothing, AddressAndPort, Ports::Kept))),
    ("refusing-firewall", false, Some((Nothing, AddressAndPort, Ports::Kept))),
    ("cgnat", true, Some((AddressAndPort, AddressAndPort, Ports::Random))),
    ("nat66", true, Some((Nothing, AddressAndPort, Ports::Kept))),
    ("captive-portal", true, None),
];

pub(crate) fn trials() -> Vec<Trial> {
    let lab = &[Needs::Namespaces];
    let mut trials: Vec<Trial> = EXPECTED
        .iter()
        .map(|(name, translated, expected)| {
            trial(&format!("{name}_maps_filters_and_numbers_as_its_name_says"), lab, move || {
                behaviour(name, *translated, *expected)
            })
        })
        .collect();
    trials.push(trial("every_kind_has_an_expectation", &[], || {
        let known: BTreeSet<&str> = EXPECTED.iter().map(|(name, _, _)| *name).collect();
        let all: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.name).collect();
        assert_eq!(known, all);
        Ok(())
    }));
    trials.push(trial("the_truth_about_each_kind_is_what_was_measured", &[], truth));
    for name in ["full-cone", "address-restricted", "port-restricted", "hairpin", "random-cone", "refusing"] {
        trials.push(trial(&format!("{name}_stays_endpoint_independent_when_two_hosts_use_one_port"), lab, move || {
            collision(name)
        }));
    }
    for (name, through) in [("hairpin", true), ("port-restricted", false), ("full-cone", false)] {
        let word = if through { "carries" } else { "does_not_carry" };
        trials.push(trial(
            &format!("{name}_{word}_packets_between_neighbours_by_their_external_endpoints"),
            lab,
            move || hairpin(name, through),
        ));
    }
    for (name, inbound) in [("short-lifetime", true), ("outbound-refresh", false)] {
        trials
            .push(trial(&format!("{name}_forgets_a_mapping_after_five_seconds"), lab, move || lifetime(name, inbound)));
    }
    trials.push(trial("poisoned_moves_a_mapping_after_an_unsolicited_packet", lab, poison));
    trials.push(trial("port_restricted_is_not_moved_by_an_unsolicited_packet", lab, no_poison));
    for (name, refused) in
        [("refusing", true), ("refusing-firewall", true), ("port-restricted", false), ("firewall", false)]
    {
        let word = if refused { "refuses_aloud" } else { "drops_silently" };
        trials.push(trial(&format!("{name}_{word}"), lab, move || refusal(name, refused)));
    }
    trials.push(trial("double_nat_and_cgnat_have_a_private_network_between_the_routers", lab, between_routers));
    trials.push(trial("no_fragments_carries_whole_datagrams_only", lab, fragments));
    trials.push(trial("an_ipv6_firewall_lets_answers_in_and_strangers_not", lab, v6_firewall));
    trials.push(trial("nat66_translates_ipv6", lab, v6_translated));
    trials.push(trial("open_is_open_over_ipv6_too", lab, v6_open));
    trials.push(trial("address_pool_gives_sockets_different_addresses", lab, pool));
    trials
}

/// What the lab says to the tools' tests is what plain sockets see.
fn truth() -> Result<(), Failed> {
    for (name, translated, expected) in EXPECTED {
        let truth = Kind::named(name).ok_or("a known kind")?.truth();
        assert_eq!((truth.udp, truth.translated), (expected.is_some(), *translated), "{name}");
        if let Some((mapping, filtering, _)) = expected {
            let said = (format!("{:?}", truth.mapping), format!("{:?}", truth.filtering));
            let word = |depends: &Depends| match depends {
                Nothing => "EndpointIndependent",
                Address => "AddressDependent",
                AddressAndPort => "AddressAndPortDependent",
            };
            assert_eq!(said, (word(mapping).to_owned(), word(filtering).to_owned()), "{name}");
        }
    }
    Ok(())
}

/// A world with one home of a kind.
fn home(name: &str, hosts: u8) -> Result<World, Failed> {
    let kind = Kind::named(name).ok_or_else(|| format!("no kind {name}"))?;
    Ok(World::build(&Plan::one(Home::of_kind(kind).with_hosts(hosts)))?)
}

fn behaviour(name: &str, translated: bool, expected: Expected) -> Result<(), Failed> {
    let world = home(name, 1)?;
    let [home] = world.homes() else { return Err("one home".into()) };
    let servers = Servers::open(&world, false);
    let Some((expect_mapping, expect_filtering, ports)) = expected else {
        assert_eq!(seen(&host_socket(home, false), &servers.home), None, "UDP does not pass");
        return Ok(());
    };
    // Several sockets: a kind that is right by luck fails one of them.
    for _ in 0..3 {
        let socket = host_socket(home, false);
        let (depends, outside) = mapping(&socket, &servers).ok_or("a packet arrives")?;
        assert_eq!(depends, expect_mapping, "mapping");
        let own = socket.local_addr()?;
        assert_eq!(outside.ip() != own.ip(), translated, "{own} is seen as {outside}");
        if translated {
            assert!(home.external_v4.iter().any(|address| outside.ip() == *address), "{outside}");
        }
        assert_eq!(filtering(&host_socket(home, false), &servers), Some(expect_filtering), "filtering");
    }
    numbering(home, &servers, ports)
}

/// The external ports of one socket towards many destinations, or of many sockets where the mapping is independent.
fn numbering(home: &BuiltHome, servers: &Servers, ports: Ports) -> Result<(), Failed> {
    let mut pairs: Vec<(u16, u16)> = Vec::new();
    for _ in 0..8 {
        let socket = host_socket(home, false);
        for server in [&servers.home, &servers.other_address] {
            let mapped = seen(&socket, server).ok_or("a packet arrives")?;
            pairs.push((socket.local_addr()?.port(), mapped.port()));
        }
    }
    let outside: Vec<u16> = pairs.iter().map(|(_, mapped)| *mapped).collect();
    let distinct: BTreeSet<u16> = outside.iter().copied().collect();
    let spread = distinct.last().zip(distinct.first()).map_or(0, |(high, low)| high - low);
    match ports {
        Ports::Kept => assert!(pairs.iter().all(|(own, mapped)| own == mapped), "{pairs:?}"),
        Ports::Random => {
            assert!(distinct.len() >= 8 && spread > 2048, "{outside:?}");
            assert!(pairs.iter().filter(|(own, mapped)| own == mapped).count() < 2, "{pairs:?}");
        }
        Ports::Step(step) => {
            let steps: BTreeSet<u16> =
                outside.iter().zip(outside.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a)).collect();
            assert_eq!(steps, BTreeSet::from([step]), "{outside:?}");
        }
        Ports::Within(size) => assert!(distinct.len() >= 12 && spread < size && spread > 16, "{outside:?}"),
    }
    Ok(())
}

/// RFC 4787 REQ-1 and REQ-3: a second host on the same source port gets an external port of its own and keeps it.
fn collision(name: &str) -> Result<(), Failed> {
    let world = home(name, 2)?;
    let [home] = world.homes() else { return Err("one home".into()) };
    let servers = Servers::open(&world, false);
    let first = host_socket(home, false);
    let second = same_port(&first, &home.hosts[1], home.hosts_v4[1]);
    // Interleaved: each destination sees both hosts, in changing order.
    let mut outside: [BTreeSet<SocketAddr>; 2] = Default::default();
    for (index, server) in servers.all().into_iter().enumerate() {
        let order = if index % 2 == 0 { [0, 1] } else { [1, 0] };
        for host in order {
            let socket = if host == 0 { &first } else { &second };
            outside[host].insert(seen(socket, server).ok_or("a packet arrives")?);
        }
    }
    let [a, b] = &outside;
    assert!(a.len() == 1 && b.len() == 1, "each host has one mapping: {a:?} {b:?}");
    assert!(a.is_disjoint(b), "{a:?} {b:?}");
    // And what comes back reaches the host it is for.
    let (a, b) = (a.first().ok_or("one")?, b.first().ok_or("one")?);
    for server in servers.all() {
        assert!(carried(server, *a, &first).is_some(), "to the first host");
        assert!(carried(server, *b, &second).is_some(), "to the second host");
    }
    Ok(())
}

/// RFC 4787 REQ-9: with a hairpin the neighbour sees the external endpoint as the source.
fn hairpin(name: &str, through: bool) -> Result<(), Failed> {
    let world = home(name, 2)?;
    let [home] = world.homes() else { return Err("one home".into()) };
    let servers = Servers::open(&world, false);
    let first = host_socket(home, false);
    let second = udp(&home.hosts[1], (home.hosts_v4[1], 0));
    let outside_first = seen(&first, &servers.home).ok_or("a packet arrives")?;
    let outside_second = seen(&second, &servers.home).ok_or("a packet arrives")?;
    let heard = carried(&first, outside_second, &second);
    assert_eq!(heard, through.then_some(outside_first), "to a neighbour");
    let third = udp(&home.hosts[0], (home.hosts_v4[0], 0));
    let outside_third = seen(&third, &servers.home).ok_or("a packet arrives")?;
    assert_eq!(carried(&third, outside_first, &first), through.then_some(outside_third), "to itself");
    if through {
        assert_eq!(carried(&second, outside_first, &first), Some(outside_second), "and back");
    }
    Ok(())
}

/// A socket's mapping of which the age is known.
struct Aged {
    socket: UdpSocket,
    outside: SocketAddr,
}

fn lifetime(name: &str, inbound_refreshes: bool) -> Result<(), Failed> {
    let world = home(name, 1)?;
    let [home] = world.homes() else { return Err("one home".into()) };
    let servers = Servers::open(&world, false);
    let fresh = || -> Result<Aged, Failed> {
        let socket = host_socket(home, false);
        let outside = seen(&socket, &servers.home).ok_or("a packet arrives")?;
        Ok(Aged { socket, outside })
    };
    let reaches = |aged: &Aged| carried(&servers.home, aged.outside, &aged.socket).is_some();
    let begin = Instant::now();
    let [young, old, refreshed_out, refreshed_in] = [fresh()?, fresh()?, fresh()?, fresh()?];
    let made = begin.elapsed();
    let sleep_until = |age: f64| std::thread::sleep(Duration::from_secs_f64(age).saturating_sub(begin.elapsed()));
    sleep_until(3.5);
    assert_eq!(seen(&refreshed_out.socket, &servers.home), Some(refreshed_out.outside));
    assert!(reaches(&refreshed_in), "alive before the end");
    sleep_until(4.5);
    assert!(reaches(&young), "alive after {:?}", begin.elapsed());
    // Everything was made within `made`, so the last of them is five seconds old then.
    sleep_until(5.4 + made.as_secs_f64());
    assert!(!reaches(&old), "forgotten after {:?}", begin.elapsed());
    assert!(reaches(&refreshed_out), "a packet from inside keeps a mapping alive");
    assert_eq!(reaches(&refreshed_in), inbound_refreshes, "what a packet from outside does");
    Ok(())
}

/// An unsolicited packet from where the host is about to send: does it change the host's mapping?
fn after_a_knock(name: &str) -> Result<(SocketAddr, SocketAddr, SocketAddr), Failed> {
    let world = home(name, 1)?;
    let [home] = world.homes() else { return Err("one home".into()) };
    let servers = Servers::open(&world, false);
    let socket = host_socket(home, false);
    let before = seen(&socket, &servers.home).ok_or("a packet arrives")?;
    assert_eq!(carried(&servers.other_both, before, &socket), None, "filtered");
    let knocked = seen(&socket, &servers.other_both).ok_or("a packet arrives")?;
    let elsewhere = seen(&socket, &servers.other_port).ok_or("a packet arrives")?;
    Ok((before, knocked, elsewhere))
}

fn poison() -> Result<(), Failed> {
    let (before, knocked, _) = after_a_knock("poisoned")?;
    assert_ne!(before, knocked, "the trace of the knock holds the port");
    Ok(())
}

fn no_poison() -> Result<(), Failed> {
    let (before, knocked, elsewhere) = after_a_knock("port-restricted")?;
    assert_eq!((before, before), (knocked, elsewhere));
    Ok(())
}

fn refusal(name: &str, refused: bool) -> Result<(), Failed> {
    let world = home(name, 1)?;
    let [home] = world.homes() else { return Err("one home".into()) };
    let servers = Servers::open(&world, false);
    let socket = host_socket(home, false);
    let outside = seen(&socket, &servers.home).ok_or("a packet arrives")?;
    let stranger = &servers.other_both;
    stranger.connect(outside)?;
    stranger.send(b"knock")?;
    stranger.set_read_timeout(Some(SILENCE))?;
    let error = stranger.recv(&mut [0; 8]).expect_err("nothing is said");
    assert_eq!(error.kind() == std::io::ErrorKind::ConnectionRefused, refused, "{error}");
    Ok(())
}

fn between_routers() -> Result<(), Failed> {
    for (name, inner) in [("double-nat", [10, 1]), ("cgnat", [100, 65])] {
        let world = home(name, 1)?;
        let [home] = world.homes() else { return Err("one home".into()) };
        let [own, outer] = &*home.routers else { return Err("two routers".into()) };
        let [a, b] = inner;
        let middle = udp(own, ([a, b, 1, 2], 0));
        let servers = Servers::open(&world, false);
        let seen_outside = seen(&middle, &servers.home).ok_or("a packet arrives")?;
        assert_eq!(seen_outside.ip(), home.external_v4[0], "the outer router translates the inner one");
        let outermost = udp(outer, (home.external_v4[0], 0));
        assert_eq!(seen(&outermost, &servers.home), outermost.local_addr().ok(), "and nobody the outer one");
    }
    Ok(())
}

fn fragments() -> Result<(), Failed> {
    for (name, passes) in [("no-fragments", false), ("port-restricted", true)] {
        let world = home(name, 1)?;
        let [home] = world.homes() else { return Err("one home".into()) };
        let servers = Servers::open(&world, false);
        let socket = host_socket(home, false);
        assert!(seen(&socket, &servers.home).is_some());
        servers.home.set_read_timeout(Some(SILENCE))?;
        let mut buffer = vec![0; 4096];
        for (size, expected) in [(1400, true), (3000, passes)] {
            socket.send_to(&vec![7; size], servers.home.local_addr()?)?;
            let arrived = servers.home.recv_from(&mut buffer).is_ok_and(|(length, _)| length == size);
            assert_eq!(arrived, expected, "{name}: {size} bytes");
        }
    }
    Ok(())
}

fn v6_firewall() -> Result<(), Failed> {
    let world = home("ipv6-firewall", 1)?;
    let [home] = world.homes() else { return Err("one home".into()) };
    let servers = Servers::open(&world, true);
    let socket = host_socket(home, true);
    let (depends, outside) = mapping(&socket, &servers).ok_or("a packet arrives")?;
    assert_eq!((depends, Some(outside)), (Nothing, socket.local_addr().ok()), "nothing is translated");
    assert_eq!(filtering(&host_socket(home, true), &servers), Some(AddressAndPort));
    Ok(())
}

fn v6_translated() -> Result<(), Failed> {
    let world = home("nat66", 1)?;
    let [home] = world.homes() else { return Err("one home".into()) };
    let servers = Servers::open(&world, true);
    let (depends, outside) = mapping(&host_socket(home, true), &servers).ok_or("a packet arrives")?;
    assert_eq!((depends, outside.ip()), (Nothing, IpAddr::V6(home.external_v6)));
    assert_eq!(filtering(&host_socket(home, true), &servers), Some(AddressAndPort));
    Ok(())
}

fn v6_open() -> Result<(), Failed> {
    let world = home("open", 1)?;
    let [home] = world.homes() else { return Err("one home".into()) };
    let servers = Servers::open(&world, true);
    let socket = host_socket(home, true);
    let (depends, outside) = mapping(&socket, &servers).ok_or("a packet arrives")?;
    assert_eq!((depends, Some(outside)), (Nothing, socket.local_addr().ok()));
    assert_eq!(filtering(&host_socket(home, true), &servers), Some(Nothing));
    Ok(())
}

fn pool() -> Result<(), Failed> {
    let world = home("address-pool", 1)?;
    let [home] = world.homes() else { return Err("one home".into()) };
    let servers = Servers::open(&world, false);
    let addresses: BTreeSet<IpAddr> =
        (0..24).filter_map(|_| seen(&host_socket(home, false), &servers.home)).map(|outside| outside.ip()).collect();
    // 24 draws from four miss one of them with a chance of 0.4 %, and two with one in 2.8 million.
    assert!(addresses.len() >= 3, "{addresses:?}");
    Ok(())
}
