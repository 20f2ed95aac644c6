//! What plain sockets on both sides of a router see. Nothing of our detector, and no STUN.
//!
//! The test holds the sockets of the host and of the servers alike, so an observation is one datagram: the host's socket
//! sends a token, the server's socket says where it came from.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use fabric::netlab::namespace::Namespace;
use fabric::netlab::world::{BuiltHome, SERVERS_V4, SERVERS_V6, World};

use crate::netns::udp;

/// How long to wait for what should not come. Everything is on one machine: what comes is there in a millisecond.
pub(crate) const SILENCE: Duration = Duration::from_millis(120);

/// Two addresses with two ports each on the public segment.
pub(crate) struct Servers {
    /// First address, first port.
    pub(crate) home: UdpSocket,
    /// First address, second port.
    pub(crate) other_port: UdpSocket,
    /// Second address, first port.
    pub(crate) other_address: UdpSocket,
    /// Second address, second port.
    pub(crate) other_both: UdpSocket,
}

impl Servers {
    /// Opens them on free ports.
    pub(crate) fn open(world: &World, v6: bool) -> Self {
        let [first, second]: [IpAddr; 2] = if v6 {
            [SERVERS_V6[0].into(), SERVERS_V6[1].into()]
        } else {
            [SERVERS_V4[0].into(), SERVERS_V4[1].into()]
        };
        let bind = |address: IpAddr| udp(world.public(), (address, 0));
        let (home, other_port) = (bind(first), bind(first));
        let port = home.local_addr().expect("bound").port();
        Self { home, other_port, other_address: udp(world.public(), (second, port)), other_both: bind(second) }
    }

    pub(crate) fn all(&self) -> [&UdpSocket; 4] {
        [&self.home, &self.other_port, &self.other_address, &self.other_both]
    }
}

/// A fresh socket of the first host, IPv4 or IPv6.
pub(crate) fn host_socket(home: &BuiltHome, v6: bool) -> UdpSocket {
    let address: IpAddr = if v6 { home.hosts_v6[0].into() } else { home.hosts_v4[0].into() };
    udp(&home.hosts[0], (address, 0))
}

/// Another socket on the port that `socket` has, on another host.
pub(crate) fn same_port(socket: &UdpSocket, host: &Namespace, address: Ipv4Addr) -> UdpSocket {
    udp(host, (address, socket.local_addr().expect("bound").port()))
}

/// Sends a token and says from where the other side saw it come; `None` where it did not arrive.
///
/// A first packet may be lost where a router takes a port that belongs to another host, so it is sent up to three
/// times.
pub(crate) fn seen(from: &UdpSocket, at: &UdpSocket) -> Option<SocketAddr> {
    let to = at.local_addr().expect("bound");
    (0..3).find_map(|_| carried(from, to, at))
}

/// Sends one token to an address and says with which source it arrived at `at`.
pub(crate) fn carried(from: &UdpSocket, to: SocketAddr, at: &UdpSocket) -> Option<SocketAddr> {
    let token: [u8; 16] = rand::random();
    // A refusal of an earlier packet shows up here; it says nothing about this one.
    if from.send_to(&token, to).is_err() {
        from.send_to(&token, to).expect("a socket sends");
    }
    arrival(at, &token)
}

fn arrival(at: &UdpSocket, token: &[u8]) -> Option<SocketAddr> {
    let deadline = Instant::now() + SILENCE;
    let mut buffer = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        at.set_read_timeout(Some(left)).expect("not zero");
        match at.recv_from(&mut buffer) {
            Ok((length, from)) if buffer.get(..length) == Some(token) => return Some(from),
            Ok(_) => {}
            // The answer to an earlier packet of ours, which nobody wanted.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(_) if Instant::now() >= deadline => return None,
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            return None;
        }
    }
}

/// What a mapping depends on, or whose packets it lets in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Depends {
    /// On nothing: endpoint independent.
    Nothing,
    /// On the address of the other side.
    Address,
    /// On its address and port.
    AddressAndPort,
}

/// The mapping behaviour, and the endpoint seen first.
pub(crate) fn mapping(socket: &UdpSocket, servers: &Servers) -> Option<(Depends, SocketAddr)> {
    let [first, port, address, both] = servers.all().map(|server| seen(socket, server));
    let first = first?;
    let depends = match (port? == first, address? == first, both? == first) {
        (true, true, true) => Depends::Nothing,
        (true, false, false) => Depends::Address,
        (false, false, false) => Depends::AddressAndPort,
        other => panic!("no behaviour of RFC 4787: {other:?}"),
    };
    Some((depends, first))
}

/// The filtering behaviour of a socket that has sent to the first server address only.
pub(crate) fn filtering(socket: &UdpSocket, servers: &Servers) -> Option<Depends> {
    let mapped = seen(socket, &servers.home)?;
    let answer = carried(&servers.home, mapped, socket);
    assert_eq!(answer, servers.home.local_addr().ok(), "an answer comes in unchanged");
    // The strangest first: a permission that a packet from inside would give is never given here.
    let [both, address, port] = [&servers.other_both, &servers.other_address, &servers.other_port]
        .map(|s| carried(s, mapped, socket).is_some());
    Some(match (port, address, both) {
        (true, true, true) => Depends::Nothing,
        (true, false, false) => Depends::Address,
        (false, false, false) => Depends::AddressAndPort,
        other => panic!("no behaviour of RFC 4787: {other:?}"),
    })
}
