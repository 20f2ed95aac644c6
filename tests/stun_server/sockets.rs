//! UDP over real sockets.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fabric::ops::health::{Health, Phase};
use fabric::ops::listen::Listeners;
use fabric::ops::metrics::Metrics;
use fabric::protocol::stun::AttributeType;
use fabric::stun::Counter;
use fabric::stun::driver::{Config, Live, Server, StartError};

use crate::desk::{address, change_request, request, request_with, scan};
use crate::host::{client, config, exchange, is_silent, receive, start, try_start, with_alternates};

fn mapped(answer: &[u8]) -> Option<SocketAddr> {
    scan(answer).xor_address(AttributeType::XOR_MAPPED_ADDRESS)
}

#[tokio::test]
async fn both_families_learn_their_address() {
    let server = start(config(&["127.0.0.1:0", "[::1]:0"]));
    for (at, loopback) in server.addresses("udp").into_iter().zip(["127.0.0.1:0", "[::1]:0"]) {
        let client = client(loopback);
        let (answer, source) = exchange(&client, at, &request(|_| {}));
        assert_eq!(source, at);
        assert_eq!(mapped(&answer), Some(client.local_addr().expect("address")));
    }
    assert_eq!(server.count(Counter::RequestUdp4), 1);
    assert_eq!(server.count(Counter::RequestUdp6), 1);
}

#[tokio::test]
async fn every_client_is_answered_whichever_worker_it_falls_to() {
    let server = start(config(&["127.0.0.1:0"]));
    let at = server.addresses("udp")[0];
    let clients: Vec<UdpSocket> = (0..200).map(|_| client("127.0.0.1:0")).collect();
    for client in &clients {
        client.send_to(&request(|_| {}), at).expect("sent");
    }
    for client in &clients {
        assert_eq!(mapped(&receive(client).0), Some(client.local_addr().expect("address")));
    }
}

#[tokio::test]
async fn rfc5780_answers_leave_from_the_corner_that_was_asked_for() {
    let (_server, corners) = with_alternates();
    for (corner, at) in corners.into_iter().enumerate() {
        for (flags, flip) in [(0, 0), (2, 1), (4, 2), (6, 3)] {
            let (answer, source) = exchange(&client("127.0.0.1:0"), at, &change_request(flags));
            assert_eq!(source, corners[corner ^ flip]);
            assert_eq!(scan(&answer).address(AttributeType::RESPONSE_ORIGIN), Some(source));
            assert_eq!(scan(&answer).address(AttributeType::OTHER_ADDRESS), Some(corners[corner ^ 3]));
        }
    }
}

#[tokio::test]
async fn rfc5780_a_mixed_burst_is_answered_from_every_corner_at_once() {
    let (_server, corners) = with_alternates();
    let client = client("127.0.0.1:0");
    for round in 0..100u8 {
        client.send_to(&change_request(round % 4 * 2), corners[0]).expect("sent");
    }
    let mut counts = [0; 4];
    for _ in 0..100 {
        let (_, source) = receive(&client);
        counts[corners.iter().position(|corner| *corner == source).expect("a corner")] += 1;
    }
    assert_eq!(counts, [25; 4]);
}

#[tokio::test]
async fn rfc5780_response_port_reaches_another_socket_of_the_client() {
    let (_server, corners) = with_alternates();
    let (asking, hearing) = (client("127.0.0.1:0"), client("127.0.0.1:0"));
    let port = hearing.local_addr().expect("address").port().to_be_bytes();
    asking.send_to(&request_with(AttributeType::RESPONSE_PORT, &[port[0], port[1], 0, 0]), corners[0]).expect("sent");
    assert_eq!(mapped(&receive(&hearing).0), Some(asking.local_addr().expect("address")));
    assert!(is_silent(&asking));
}

#[tokio::test]
async fn rfc5780_padding_travels_in_fragments_both_ways() {
    let (_server, corners) = with_alternates();
    let asked = request_with(AttributeType::PADDING, &vec![0; 60_000]);
    let (answer, _) = exchange(&client("127.0.0.1:0"), corners[0], &asked);
    assert_eq!(answer.len(), asked.len());
}

#[tokio::test]
async fn a_datagram_beyond_what_an_ordinary_server_takes_is_counted_and_dropped() {
    let server = start(config(&["127.0.0.1:0"]));
    let at = server.addresses("udp")[0];
    let client = client("127.0.0.1:0");
    client.send_to(&request_with(AttributeType::SOFTWARE, &[b'x'; 2_100]), at).expect("sent");
    // The order of a flow holds: when this is answered, the one before was decided.
    exchange(&client, at, &request(|_| {}));
    assert!(is_silent(&client));
    assert_eq!(server.count(Counter::DropTooLong), 1);
}

#[tokio::test]
async fn a_wildcard_server_answers_from_the_address_that_was_asked() {
    let server = start(config(&["0.0.0.0:0", "[::]:0"]));
    let ports: Vec<u16> = server.addresses("udp").iter().map(SocketAddr::port).collect();
    for asked in ["127.0.0.1", "127.5.6.7"] {
        let at = SocketAddr::new(asked.parse().expect("IP"), ports[0]);
        assert_eq!(exchange(&client("127.0.0.1:0"), at, &request(|_| {})).1, at);
    }
    let at = SocketAddr::new("::1".parse().expect("IP"), ports[1]);
    assert_eq!(exchange(&client("[::1]:0"), at, &request(|_| {})).1, at);
}

#[tokio::test]
async fn a_taken_port_is_refused_by_name_and_nothing_stays_open() {
    let first = start(config(&["127.0.0.1:0"]));
    let taken = first.addresses("udp")[0];
    // On an address of its own: a port that is free for UDP may be held for TCP by a test beside this one.
    let free = client("127.77.3.9:0").local_addr().expect("address");
    let error = try_start(Config { listen: vec![free, taken], ..config(&[]) }).expect_err("the port is taken");
    assert!(matches!(error, StartError::Bind(_)));
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    UdpSocket::bind(free).expect("the first address is free again");
}

#[tokio::test]
async fn a_dropped_server_gives_its_ports_back_at_once() {
    let server = start(config(&["127.0.0.1:0"]));
    let at = server.addresses("udp")[0];
    drop(server);
    UdpSocket::bind(at).expect("the port is free");
}

#[tokio::test]
async fn an_alternate_that_is_no_other_place_stops_the_start() {
    let error = try_start(Config { alternates: vec![address("127.0.0.1:2")], ..config(&["127.0.0.1:0"]) });
    assert!(matches!(error, Err(StartError::Plan(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn f19_a_thousand_reloads_lose_no_packet() {
    let server = start(config(&["127.0.0.1:0"]));
    let at = server.addresses("udp")[0];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let client = client("127.0.0.1:0");
            let mut asked = 0;
            while !done.load(Ordering::Relaxed) {
                // One request at a time, never repeated: a lost one fails the test.
                assert_eq!(mapped(&exchange(&client, at, &request(|_| {})).0), client.local_addr().ok());
                asked += 1;
            }
            asked
        });
        for round in 0..1_000 {
            let mut live = Live::default();
            live.settings.rfc3489 = round % 2 == 0;
            server.reload(live).expect("reloaded");
            std::thread::sleep(Duration::from_micros(200));
        }
        done.store(true, Ordering::Relaxed);
        let asked = asking.join().expect("every request was answered");
        assert!(asked >= 1_000, "only {asked} requests were under way");
    });
}

#[tokio::test]
async fn a_reload_changes_the_answers() {
    let server = start(config(&["127.0.0.1:0"]));
    let (at, client) = (server.addresses("udp")[0], client("127.0.0.1:0"));
    exchange(&client, at, &request(|_| {}));
    let mut live = Live::default();
    live.settings.alternate_server_v4 = Some(address("192.0.2.1:3478"));
    server.reload(live).expect("reloaded");
    let (answer, _) = exchange(&client, at, &request(|_| {}));
    assert_eq!(scan(&answer).error_code().map(|(code, _)| code), Some(300));
}

#[tokio::test]
async fn every_loop_beats_and_the_metrics_tell_what_happened() {
    let health = Health::default();
    let server = Server::start(config(&["127.0.0.1:0"]), &mut Listeners::default(), &health).expect("a server");
    health.set_phase(Phase::Serving);
    let names: Vec<String> = health.readiness().checks.into_iter().map(|check| check.name).collect();
    let at = server.addresses("udp")[0];
    assert_eq!(names, ["stun-tcp ".to_owned() + &at.to_string(), "stun-udp-0".to_owned(), "stun-udp-1".to_owned()]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(health.readiness().ok, "idle loops beat: {:?}", health.readiness());

    let metrics = Metrics::new("stun-server", "0");
    server.register(&metrics);
    exchange(&client("127.0.0.1:0"), at, &request(|_| {}));
    client("127.0.0.1:0").send_to(b"junk", at).expect("sent");
    for _ in 0..100 {
        if server.count(Counter::DropMalformed) == 1 && server.count(Counter::Success) == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let text = metrics.openmetrics();
    for line in [
        "nzc_stun_requests_total{arrival=\"udp_ipv4\"} 1",
        "nzc_stun_responses_total{class=\"success\"} 1",
        "nzc_stun_dropped_total{reason=\"malformed\"} 1",
        "nzc_stun_open_connections 0",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}
