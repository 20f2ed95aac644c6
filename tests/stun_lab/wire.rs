//! A server inside the test process, requests, and packets with a source of the sender's choice.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use fabric::ops::health::Health;
use fabric::ops::listen::Listeners;
use fabric::protocol::stun::{Class, Method, TransactionId, Writer};
use fabric::stun::Counter;
use fabric::stun::driver::{Config, Live, Server};
use socket2::{Domain, Protocol, Socket, Type};

pub(crate) fn address(text: &str) -> SocketAddrV4 {
    text.parse().expect("an IPv4 socket address")
}

pub(crate) fn serve(listen: &str, alternate: Option<&str>, live: Live) -> Server {
    let config = Config {
        listen: vec![address(listen).into()],
        alternates: alternate.into_iter().map(|text| address(text).into()).collect(),
        tcp: false,
        workers: 2,
        live,
        ..Config::default()
    };
    Server::start(config, &mut Listeners::default(), &Health::default()).expect("a server")
}

/// A message without attributes.
pub(crate) fn bare(class: Class) -> [u8; 20] {
    let mut bytes = [0; 20];
    Writer::new(&mut bytes, class, Method::BINDING, TransactionId([5; 12])).expect("room");
    bytes
}

/// Everything that arrived at a server, whatever became of it.
pub(crate) fn arrived(server: &Server) -> u64 {
    let is_arrival = |counter: &&Counter| matches!(counter.metric().0, "requests" | "dropped");
    Counter::ALL.iter().filter(is_arrival).map(|counter| server.count(*counter)).sum()
}

/// Waits until a server counted so many arrivals, and a moment longer for those that must not come.
pub(crate) fn settle(server: &Server, arrivals: u64) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while arrived(server) < arrivals && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_millis(250));
}

/// Sends datagrams whose source is whatever the sender says.
pub(crate) struct Spoofer(Socket);

impl Spoofer {
    pub(crate) fn new() -> Self {
        /// IPPROTO_RAW: the header comes from the sender.
        const RAW: i32 = 255;
        Self(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW))).expect("a raw socket"))
    }

    pub(crate) fn send(&self, source: SocketAddrV4, target: SocketAddrV4, payload: &[u8]) {
        let packet = datagram(source, target, payload);
        self.0.send_to(&packet, &SocketAddr::from(target).into()).expect("sent");
    }
}

/// An IPv4 packet with a UDP datagram in it. The kernel fills in the length and the checksum of the IP header; a UDP
/// checksum of zero means none (RFC 768).
fn datagram(source: SocketAddrV4, target: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    for ip in [source.ip(), target.ip()] {
        packet.extend(Ipv4Addr::octets(ip));
    }
    for field in [source.port(), target.port(), length, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(payload);
    packet
}
