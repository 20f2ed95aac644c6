//! A server with real sockets inside the test process.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use fabric::ops::health::Health;
use fabric::ops::listen::Listeners;
use fabric::stun::driver::{Config, Server, StartError};

use crate::desk::address;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a test waits for what must not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(200);

pub(crate) fn config(listen: &[&str]) -> Config {
    Config { listen: listen.iter().map(|text| address(text)).collect(), workers: 2, ..Config::default() }
}

pub(crate) fn start(config: Config) -> Server {
    try_start(config).expect("a server")
}

pub(crate) fn try_start(config: Config) -> Result<Server, StartError> {
    Server::start(config, &mut Listeners::default(), &Health::default())
}

/// A server with two loopback addresses and two ports, which it lists in the order of RFC 5780.
pub(crate) fn with_alternates() -> (Server, [SocketAddr; 4]) {
    let server = start(Config { alternates: vec![address("127.0.0.2:0")], ..config(&["127.0.0.1:0"]) });
    let corners = server.addresses("udp").try_into().expect("four corners");
    (server, corners)
}

pub(crate) fn client(bind: &str) -> UdpSocket {
    let socket = UdpSocket::bind(bind).expect("a client");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// The next datagram and where it came from.
pub(crate) fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 70_000];
    let (length, source) = socket.recv_from(&mut buffer).expect("a datagram");
    buffer.truncate(length);
    (buffer, source)
}

/// Sends a request and waits for the answer.
pub(crate) fn exchange(socket: &UdpSocket, server: SocketAddr, request: &[u8]) -> (Vec<u8>, SocketAddr) {
    socket.send_to(request, server).expect("sent");
    receive(socket)
}

/// Whether nothing comes for a while.
pub(crate) fn is_silent(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
    let silent = socket.recv_from(&mut [0; 100]).is_err();
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    silent
}
