//! DIAL-BACK: a client that asks over TCP is called from a port it has never heard from.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use fabric::protocol::stun::dial_back::{DialBack, DialTransport};
use fabric::protocol::stun::{AttributeType, Class, Method};
use fabric::stun::driver::{Config, Live, Server};
use fabric::stun::{Counter, DialOrder, Settings, Transport};

use crate::desk::{CLIENTS, Desk, address, error_code, request, request_with, scan};
use crate::host::{PATIENCE, client, config, is_silent, receive, start};

const NONCE: [u8; 8] = *b"nonce-42";

fn ask(transport: DialTransport, port: u16) -> Vec<u8> {
    request_with(AttributeType::DIAL_BACK, &DialBack::Ask { transport, port, nonce: NONCE }.to_bytes())
}

fn willing(mut desk: Desk) -> Desk {
    desk.settings.dial_back = Some(Settings::DIAL_BACK_RATE);
    desk
}

#[test]
fn an_order_goes_to_the_source_address_and_the_port_asked_for() {
    let desk = willing(Desk::plain());
    for transport in [Transport::Tcp, Transport::Tls] {
        let arrival = Desk::arrival(0, CLIENTS[0], transport);
        let (reply, answer) = desk.handle(&arrival, &ask(DialTransport::Udp, 5_000)).expect("an answer");
        let order = DialOrder { tcp: false, to: address("198.51.100.7:5000"), nonce: NONCE };
        assert_eq!((reply.error, reply.dial), (None, Some(order)));
        assert_eq!(scan(&answer).find(AttributeType::DIAL_BACK), Some(&[][..]), "and the service is offered");
    }
}

#[test]
fn over_udp_nobody_is_called() {
    let desk = willing(Desk::with_alternates());
    let (reply, answer) = desk.ask(0, &ask(DialTransport::Udp, 5_000)).expect("an answer");
    assert_eq!(reply.dial, None);
    assert_eq!(scan(&answer).find(AttributeType::DIAL_BACK), None);
}

#[test]
fn the_service_is_offered_only_where_it_is_asked_about_and_switched_on() {
    let arrival = Desk::arrival(0, CLIENTS[0], Transport::Tcp);
    let offered = |desk: &Desk, asked: &[u8]| {
        let (reply, answer) = desk.handle(&arrival, asked).expect("an answer");
        assert_eq!((reply.error, reply.dial), (None, None));
        scan(&answer).find(AttributeType::DIAL_BACK).is_some()
    };
    let about = request_with(AttributeType::DIAL_BACK, &[]);
    assert!(offered(&willing(Desk::plain()), &about));
    assert!(!offered(&willing(Desk::plain()), &request(|_| {})));
    assert!(!offered(&Desk::plain(), &about));
    assert!(!offered(&Desk::plain(), &ask(DialTransport::Tcp, 5_000)));
}

#[test]
fn the_services_of_a_host_are_not_called() {
    let desk = willing(Desk::plain());
    for port in [1, 22, 25, 1_023] {
        let arrival = Desk::arrival(0, CLIENTS[0], Transport::Tcp);
        let (reply, answer) = desk.handle(&arrival, &ask(DialTransport::Tcp, port)).expect("an answer");
        assert_eq!((error_code(&answer), reply.dial), (Some(403), None));
    }
}

#[test]
fn a_host_is_called_so_often_and_no_oftener() {
    let desk = willing(Desk::plain());
    let calls = |source: &str| {
        let arrival = Desk::arrival(0, source, Transport::Tcp);
        let asked = ask(DialTransport::Udp, 5_000);
        (0..50).filter(|_| desk.handle(&arrival, &asked).expect("an answer").0.dial.is_some()).count()
    };
    assert_eq!(calls(CLIENTS[0]), 16);
    assert_eq!(calls("198.51.100.7:40001"), 0, "the same host");
    assert_eq!(calls("198.51.100.8:40000"), 16);
}

fn server() -> (Server, SocketAddr) {
    let mut live = Live::default();
    live.settings.dial_back = Some(Settings::DIAL_BACK_RATE);
    let server = start(Config { live, ..config(&["127.0.0.1:0"]) });
    let at = server.addresses("tcp")[0];
    (server, at)
}

fn send(at: SocketAddr, asked: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(at).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(asked).expect("sent");
    let mut answer = [0; 36];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(scan(&answer).class(), Class::Success);
    stream
}

fn assert_call(bytes: &[u8], transport: DialTransport, port: u16) {
    let call = scan(bytes);
    assert_eq!((call.class(), call.method()), (Class::Indication, Method::BINDING));
    assert_eq!(call.transaction_id().0, *b"\0\0\0\0nonce-42");
    let value = call.find(AttributeType::DIAL_BACK).and_then(DialBack::from_bytes);
    assert_eq!(value, Some(DialBack::Ask { transport, port, nonce: NONCE }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datagram_comes_from_a_port_the_server_does_not_listen_on() {
    let (server, at) = server();
    let hearing = client("127.0.0.1:0");
    let port = hearing.local_addr().expect("address").port();
    let mut ports = std::collections::BTreeSet::from([at.port()]);
    for _ in 0..4 {
        let _stream = send(at, &ask(DialTransport::Udp, port));
        let (bytes, source) = receive(&hearing);
        assert_call(&bytes, DialTransport::Udp, port);
        assert_eq!(source.ip(), at.ip());
        ports.insert(source.port());
    }
    assert_eq!(ports.len(), 5, "a fresh port each time: {ports:?}");
    assert!(is_silent(&hearing), "one datagram for each ask");
    assert_eq!(server.count(Counter::DialUdp), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_comes_from_a_fresh_port_and_is_closed() {
    let (server, at) = server();
    let hearing = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = hearing.local_addr().expect("address").port();
    let _stream = send(at, &ask(DialTransport::Tcp, port));
    let (mut call, source) = hearing.accept().expect("a call");
    assert!(source.ip() == at.ip() && source.port() != at.port());
    let mut bytes = Vec::new();
    call.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    call.read_to_end(&mut bytes).expect("an end");
    assert_call(&bytes, DialTransport::Tcp, port);
    for _ in 0..100 {
        if server.count(Counter::DialTcpOpen) == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(server.count(Counter::DialTcpOpen), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_nobody_takes_is_counted_as_failed() {
    let (server, at) = server();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("address").port();
    let _stream = send(at, &ask(DialTransport::Tcp, port));
    for _ in 0..500 {
        if server.count(Counter::DialTcpFailed) == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(server.count(Counter::DialTcpFailed), 1);
}
