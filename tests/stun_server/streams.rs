//! TCP: framing, deadlines, caps and the end.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use fabric::protocol::stun::AttributeType;
use fabric::stun::Counter;
use fabric::stun::driver::{Config, Live, Server, StreamLimits};
use fabric::transport::tcp::ConnectionLimits;

use crate::desk::{message, request, request_with, scan};
use crate::host::{PATIENCE, config, start, with_alternates};
use fabric::protocol::stun::{Class, Method};

fn server(streams: StreamLimits) -> (Server, SocketAddr) {
    let live = Live { streams, ..Live::default() };
    let server = start(Config { live, ..config(&["127.0.0.1:0"]) });
    let at = server.addresses("tcp")[0];
    (server, at)
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

fn read_answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = vec![0; 20];
    stream.read_exact(&mut answer).expect("a header");
    let length = usize::from(u16::from_be_bytes([answer[2], answer[3]]));
    answer.resize(20 + length, 0);
    stream.read_exact(&mut answer[20..]).expect("a body");
    answer
}

fn assert_mapped(stream: &mut TcpStream) {
    let answer = read_answer(stream);
    let mapped = scan(&answer).xor_address(AttributeType::XOR_MAPPED_ADDRESS);
    assert_eq!(mapped, stream.local_addr().ok());
}

/// How long until the server closes the connection.
fn closed_after(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    match stream.read(&mut [0; 1]) {
        Ok(0) => start.elapsed(),
        Ok(_) => panic!("an answer where none was expected"),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => start.elapsed(),
        Err(error) => panic!("still open: {error}"),
    }
}

async fn wait_for(server: &Server, what: Counter, count: u64) {
    for _ in 0..500 {
        if server.count(what) == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.count(what), count, "{what:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_come_byte_by_byte() {
    let (_server, at) = server(StreamLimits::default());
    let mut stream = connect(at);
    for byte in request_with(AttributeType::SOFTWARE, b"slow") {
        stream.write_all(&[byte]).expect("sent");
    }
    assert_mapped(&mut stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_may_come_at_once_and_are_answered_in_their_order() {
    let (server, at) = server(StreamLimits::default());
    let mut stream = connect(at);
    let mut burst = Vec::new();
    for number in 0..50u8 {
        let mut asked = request_with(AttributeType::SOFTWARE, &vec![b'x'; usize::from(number)]);
        asked[19] = number;
        burst.extend(asked);
        burst.extend(message(Class::Indication, Method::BINDING, |_| {}));
    }
    stream.write_all(&burst).expect("sent");
    for number in 0..50u8 {
        assert_eq!(scan(&read_answer(&mut stream)).transaction_id().0[11], number);
    }
    wait_for(&server, Counter::DropIndication, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rfc5780_the_four_addresses_answer_over_tcp_too() {
    let (server, corners) = with_alternates();
    assert_eq!(server.addresses("tcp"), corners);
    for (corner, at) in corners.into_iter().enumerate() {
        let mut stream = connect(at);
        stream.write_all(&request(|_| {})).expect("sent");
        let answer = read_answer(&mut stream);
        assert_eq!(scan(&answer).address(AttributeType::OTHER_ADDRESS), Some(corners[corner ^ 3]));
        assert_eq!(scan(&answer).address(AttributeType::RESPONSE_ORIGIN), Some(at));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_is_hung_up_on_at_its_first_byte() {
    let (server, at) = server(StreamLimits::default());
    let mut stream = connect(at);
    stream.write_all(b"G").expect("sent");
    assert!(closed_after(&mut stream) < Duration::from_secs(2));
    let mut without_cookie = request(|_| {});
    without_cookie[4] = 0;
    let mut stream = connect(at);
    stream.write_all(&without_cookie).expect("sent");
    assert!(closed_after(&mut stream) < Duration::from_secs(2));
    wait_for(&server, Counter::EndProtocol, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_closed_when_its_first_byte_is_due() {
    let limits = StreamLimits { first_byte: Duration::from_millis(300), ..StreamLimits::default() };
    let (server, at) = server(limits);
    let took = closed_after(&mut connect(at));
    assert!((Duration::from_millis(250)..Duration::from_secs(3)).contains(&took), "{took:?}");
    wait_for(&server, Counter::EndFirstByte, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_now_and_then_do_not_buy_time() {
    let limits = StreamLimits { message: Duration::from_millis(400), ..StreamLimits::default() };
    let (server, at) = server(limits);
    let mut stream = connect(at);
    let start = Instant::now();
    let mut dripped = 0;
    for byte in request(|_| {}) {
        if stream.write_all(&[byte]).is_err() {
            break;
        }
        dripped += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(dripped < 20, "the whole request was taken after {:?}", start.elapsed());
    wait_for(&server, Counter::EndMessage, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_goes_quiet_after_an_answer_is_closed_as_idle() {
    let limits = StreamLimits {
        first_byte: Duration::from_secs(60),
        idle: Duration::from_millis(300),
        ..StreamLimits::default()
    };
    let (server, at) = server(limits);
    let mut stream = connect(at);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(150));
        stream.write_all(&request(|_| {})).expect("sent");
        assert_mapped(&mut stream);
    }
    let took = closed_after(&mut stream);
    assert!((Duration::from_millis(250)..Duration::from_secs(3)).contains(&took), "{took:?}");
    wait_for(&server, Counter::EndIdle, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_gets_its_share_of_connections_and_no_more() {
    let connections = ConnectionLimits { total: 100, per_host: 5, per_site: 50 };
    let (server, at) = server(StreamLimits { connections, ..StreamLimits::default() });
    let mut held: Vec<TcpStream> = (0..5).map(|_| connect(at)).collect();
    for stream in &mut held {
        stream.write_all(&request(|_| {})).expect("sent");
        assert_mapped(stream);
    }
    closed_after(&mut connect(at));
    assert_eq!(server.connections(), 5);
    assert_eq!(server.count(Counter::ConnectionRefused), 1);
    held.pop();
    wait_for(&server, Counter::EndClosed, 1).await;
    let mut stream = connect(at);
    stream.write_all(&request(|_| {})).expect("sent");
    assert_mapped(&mut stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn f17_a_drain_closes_idle_connections_and_takes_no_new_ones() {
    let (mut server, at) = server(StreamLimits::default());
    let mut stream = connect(at);
    stream.write_all(&request(|_| {})).expect("sent");
    assert_mapped(&mut stream);
    let start = Instant::now();
    tokio::time::timeout(PATIENCE, server.drain()).await.expect("drained");
    assert!(start.elapsed() < Duration::from_secs(1));
    closed_after(&mut stream);
    assert!(TcpStream::connect(at).is_err());
    assert_eq!(server.count(Counter::EndDrain), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn f17_a_drain_lets_a_message_under_way_finish() {
    let (mut server, at) = server(StreamLimits::default());
    let mut stream = connect(at);
    let asked = request(|_| {});
    stream.write_all(&asked[..7]).expect("sent");
    // The server has the first half when the connection counts as mid-message; it shows in nothing but time.
    std::thread::sleep(Duration::from_millis(200));
    let rest = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        stream.write_all(&asked[7..]).expect("sent");
        assert_mapped(&mut stream);
    });
    tokio::time::timeout(PATIENCE, server.drain()).await.expect("drained");
    rest.join().expect("answered during the drain");
}
