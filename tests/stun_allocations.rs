//! S9: the UDP path of the STUN server allocates nothing for a packet. Every allocation of the process counts, on whatever
//! thread, so this test has the process for itself.

use std::alloc::System;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use fabric::address::Rate;
use fabric::ops::health::Health;
use fabric::ops::listen::Listeners;
use fabric::protocol::stun::auth::{Accounts, LongTermClient, LongTermServer, NonceMint};
use fabric::protocol::stun::{AttributeType, Class, Method, Packet, TransactionId, Writer};
use fabric::stun::driver::{Config, Live, Server};
use fabric::stun::{Credentials, Limits};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 1_000;
const BURST: usize = 16;

fn request(build: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = vec![0; 2_048];
    let mut writer = Writer::new(&mut bytes, Class::Request, Method::BINDING, TransactionId([7; 12])).expect("room");
    build(&mut writer);
    let length = writer.finish();
    bytes.truncate(length);
    bytes
}

fn with(kind: AttributeType, value: &[u8]) -> Vec<u8> {
    request(|writer| {
        writer.attribute(kind, value).expect("room");
    })
}

/// Starts a server whose caps are in force and out of reach.
fn start(alternates: &[&str], mut live: Live) -> (Server, SocketAddr) {
    let plenty = Some(Rate::new(1_000_000, 1_000_000));
    live.settings.limits = Limits { per_host: plenty, per_site: plenty };
    let config = Config {
        listen: vec!["127.0.0.1:0".parse().expect("address")],
        alternates: alternates.iter().map(|text| text.parse().expect("address")).collect(),
        tcp: false,
        workers: 2,
        live,
        ..Config::default()
    };
    let server = Server::start(config, &mut Listeners::default(), &Health::default()).expect("a server");
    let at = server.addresses("udp")[0];
    (server, at)
}

/// Sends bursts of one request, and a bare one behind each burst that is answered in any case.
fn talk(client: &UdpSocket, at: SocketAddr, request: &[u8], bare: &[u8], rounds: usize) {
    let mut buffer = [0; 2_048];
    for _ in 0..rounds {
        for _ in 0..BURST {
            client.send_to(request, at).expect("sent");
        }
        client.send_to(bare, at).expect("sent");
        // The worker answers in order: the bare request's own transaction ID ends the round.
        loop {
            let length = client.recv(&mut buffer).expect("an answer");
            if buffer[..length].get(8..20) == bare.get(8..20) {
                break;
            }
        }
    }
}

fn client() -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").expect("a client");
    client.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    client
}

fn allocations(at: SocketAddr, name: &str, asked: &[u8]) {
    allocations_for(&client(), at, name, asked);
}

/// Asserts that the whole process allocates nothing while `ROUNDS` bursts of a request are answered.
fn allocations_for(client: &UdpSocket, at: SocketAddr, name: &str, asked: &[u8]) {
    let mut bare = request(|_| {});
    bare[8..20].fill(9);
    talk(client, at, asked, &bare, 50);
    let region = Region::new(ALLOCATOR);
    talk(client, at, asked, &bare, ROUNDS);
    let change = region.change();
    assert_eq!(
        (change.allocations, change.reallocations),
        (0, 0),
        "{name}: {change:?} for {} packets",
        ROUNDS * (BURST + 1)
    );
}

#[test]
fn s9_no_packet_costs_an_allocation() {
    let (_plain, at) = start(&[], Live::default());
    allocations(at, "bare request", &request(|_| {}));
    let fingerprint = request(|writer| {
        writer.fingerprint().expect("room");
    });
    allocations(at, "fingerprint", &fingerprint);
    allocations(at, "unknown attribute", &with(AttributeType(0x7777), &[0; 4]));
    allocations(at, "broken bytes", &[0; 64]);
    let mut without_cookie = request(|_| {});
    without_cookie[4] = 0;
    allocations(at, "no cookie", &without_cookie);

    let mut live = Live::default();
    live.settings.rfc3489 = true;
    let (_alternates, at) = start(&["127.0.0.2:0"], live);
    allocations(at, "bare request with alternates", &request(|_| {}));
    allocations(at, "padding", &with(AttributeType::PADDING, &[0; 1_400]));
    allocations(at, "change request", &with(AttributeType::CHANGE_REQUEST, &[0, 0, 0, 0]));
    allocations(at, "rfc 3489", &without_cookie);

    let mut accounts = Accounts::new("stun").expect("a realm");
    accounts.insert("ann", "secret").expect("an account");
    let mint = NonceMint::new([1; 32], Duration::from_secs(600)).expect("a lifetime");
    let server = Arc::new(LongTermServer::new("stun", mint).expect("a realm"));
    let mut live = Live::default();
    live.settings.credentials = Credentials::LongTerm(server, Arc::new(accounts));
    let (_guarded, at) = start(&[], live);
    allocations(at, "challenge", &with(AttributeType::SOFTWARE, b"x"));
    let client = client();
    let mut credentials = LongTermClient::new("ann", "secret").expect("credentials");
    client.send_to(&request(|_| {}), at).expect("sent");
    let mut buffer = [0; 2_048];
    let length = client.recv(&mut buffer).expect("a challenge");
    credentials.handle(&Packet::scan(&buffer[..length]).expect("a challenge"));
    let signed = request(|writer| credentials.sign(writer).expect("room"));
    allocations(at, "foreign nonce", &signed);
    allocations_for(&client, at, "credentials", &signed);
}
