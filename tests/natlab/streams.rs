//! What the kinds do to TCP, proven by plain sockets: the same mapping and filtering as for UDP.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use fabric::netlab::kind::Kind;
use fabric::netlab::namespace::Namespace;
use fabric::netlab::world::{Home, PORTAL, Plan, SERVERS_V4, World};
use libtest_mimic::{Failed, Trial};
use socket2::{Domain, Socket, Type};

use crate::foreign::{Needs, trial};
use crate::measure::Depends::{self, Address, AddressAndPort, Nothing};
use crate::netns::inside;

/// How long a connection may take; one that is dropped takes this long.
const LIMIT: Duration = Duration::from_millis(300);

pub(crate) fn trials() -> Vec<Trial> {
    let lab = &[Needs::Namespaces];
    let mut trials: Vec<Trial> = [
        ("open", Nothing, Nothing),
        ("firewall", Nothing, AddressAndPort),
        ("full-cone", Nothing, Nothing),
        ("address-restricted", Nothing, Address),
        ("port-restricted", Nothing, AddressAndPort),
        ("symmetric", AddressAndPort, AddressAndPort),
        ("symmetric-sequential", AddressAndPort, AddressAndPort),
        ("address-dependent", Address, AddressAndPort),
        ("double-nat", Nothing, AddressAndPort),
        ("udp-blocked", Nothing, AddressAndPort),
    ]
    .into_iter()
    .map(|(name, mapping, filtering)| {
        trial(&format!("{name}_maps_and_filters_tcp_as_its_name_says"), lab, move || {
            behaviour(name, mapping, filtering)
        })
    })
    .collect();
    trials.push(trial("a_captive_portal_answers_every_connection_itself", lab, portal));
    trials
}

/// A TCP socket of a namespace, bound, on a port that others may share.
fn bound(namespace: &Namespace, address: SocketAddr) -> Socket {
    inside(namespace, move || -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        Ok(socket)
    })
    .unwrap_or_else(|error| panic!("{address}: {error}"))
}

fn listening(namespace: &Namespace, address: SocketAddr) -> Socket {
    let socket = bound(namespace, address);
    socket.listen(16).expect("a bound socket listens");
    // Accepting waits as long as connecting does.
    socket.set_read_timeout(Some(LIMIT)).expect("not zero");
    socket
}

fn local(socket: &Socket) -> SocketAddr {
    socket.local_addr().ok().and_then(|address| address.as_socket()).expect("bound")
}

/// Connects from `from` to a listener by the address `to`, and says whom the listener saw.
fn connect(from: Socket, to: SocketAddr, listener: &Socket) -> Option<(Socket, SocketAddr)> {
    from.connect_timeout(&to.into(), LIMIT).ok()?;
    let (_, peer) = listener.accept().ok()?;
    Some((from, peer.as_socket()?))
}

fn behaviour(name: &str, mapping: Depends, filtering: Depends) -> Result<(), Failed> {
    let kind = Kind::named(name).ok_or("a known kind")?;
    let world = World::build(&Plan::one(Home::of_kind(kind)))?;
    let [home] = world.homes() else { return Err("one home".into()) };
    let [first, second] = [SERVERS_V4[0], SERVERS_V4[1]].map(IpAddr::V4);
    let server = |address: IpAddr| listening(world.public(), (address, 0).into());
    let servers = [server(first), server(first), server(second), server(second)];
    let own: SocketAddr = {
        let any = bound(&home.hosts[0], (home.hosts_v4[0], 0).into());
        local(&any)
    };
    // One local port towards every server; the connections stay open.
    let mut open = Vec::new();
    let mut seen = Vec::new();
    for server in &servers {
        let (socket, peer) = connect(bound(&home.hosts[0], own), local(server), server).ok_or("a connection")?;
        open.push(socket);
        seen.push(peer);
    }
    let [a, port, address, both] = &*seen else { return Err("four connections".into()) };
    let depends = match (port == a, address == a, both == a) {
        (true, true, true) => Nothing,
        (true, false, false) => Address,
        (false, false, false) => AddressAndPort,
        other => return Err(format!("no behaviour of RFC 4787: {other:?}").into()),
    };
    assert_eq!(depends, mapping, "{seen:?}");

    // Another local port, one connection to the first server, and then strangers to its mapping.
    let service = listening(&home.hosts[0], (home.hosts_v4[0], 0).into());
    let [contacted, ..] = &servers;
    let (_kept, mapped) =
        connect(bound(&home.hosts[0], local(&service)), local(contacted), contacted).ok_or("a connection")?;
    let strange = |address: IpAddr| connect(bound(world.public(), (address, 0).into()), mapped, &service).is_some();
    let allowed = match (strange(second), strange(first)) {
        (true, true) => Nothing,
        (false, true) => Address,
        (false, false) => AddressAndPort,
        (true, false) => return Err("no behaviour of RFC 4787".into()),
    };
    assert_eq!(allowed, filtering, "who may connect to {mapped}");
    Ok(())
}

fn portal() -> Result<(), Failed> {
    let kind = Kind::named("captive-portal").ok_or("a known kind")?;
    let world = World::build(&Plan::one(Home::of_kind(kind)))?;
    let [home] = world.homes() else { return Err("one home".into()) };
    let portal = listening(world.public(), PORTAL.into());
    let wanted = listening(world.public(), (SERVERS_V4[0], 3478).into());
    let from = bound(&home.hosts[0], (Ipv4Addr::UNSPECIFIED, 0).into());
    let (client, _) = connect(from, local(&wanted), &portal).ok_or("the portal accepts")?;
    let mut client = TcpStream::from(client);
    client.set_read_timeout(Some(LIMIT))?;
    client.write_all(b"anything")?;
    assert!(client.read(&mut [0; 8]).is_ok_and(|read| read == 0), "the accepted side is closed by now");
    Ok(())
}
