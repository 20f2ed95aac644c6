//! What the fuzz target of the STUN server feeds: any datagram to any of its cores, with the properties that protect third
//! parties. A plain test includes this file too, so that it also runs without a fuzzer.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use fabric::protocol::stun::{Class, Packet};
use fabric::stun::{Arrival, Decision, Endpoints, Limits, LocalSlot, Moment, Service, Settings, Transport};

const PRIMARY: [&str; 4] = ["192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.2:3479"];

fn services() -> &'static [(Service, Settings); 2] {
    static SERVICES: OnceLock<[(Service, Settings); 2]> = OnceLock::new();
    SERVICES.get_or_init(|| {
        let address = |text: &str| text.parse::<SocketAddr>().expect("a socket address");
        let mut single = Endpoints::default();
        single.add_single(address(PRIMARY[0]));
        let mut group = Endpoints::default();
        group.add_group(PRIMARY.map(address));
        let strict = Settings { limits: Limits::OFF, strict_amplification: true, ..Settings::default() };
        let lenient = Settings {
            limits: Limits::OFF,
            rfc3489: true,
            dial_back: Some(Settings::DIAL_BACK_RATE),
            ..Settings::default()
        };
        [(Service::new(single, [1, 2]), strict), (Service::new(group, [3, 4]), lenient)]
    })
}

/// Gives the datagram to a default server and to one with everything switched on, over UDP and TCP.
pub(crate) fn datagram(bytes: &[u8]) {
    let now = Moment { monotonic: Duration::from_secs(1), wall: UNIX_EPOCH + Duration::from_secs(1_900_000_000) };
    let source = SocketAddr::from(([198, 51, 100, 7], 40_000));
    let mut out = vec![0xEE; bytes.len() + 256];
    for (place, (service, settings)) in services().iter().enumerate() {
        for transport in [Transport::Udp, Transport::Tcp] {
            let arrival = Arrival { slot: LocalSlot::new(0), local: None, source, transport };
            let Decision::Reply(reply) = service.handle(settings, now, &arrival, bytes, &mut out) else { continue };
            assert_eq!(reply.to.ip(), source.ip(), "the answer goes to the source address");
            let answer = out.get(..reply.length).expect("an answer within the buffer");
            if place == 0 {
                assert!(answer.len() * 5 <= bytes.len() * 8, "{} bytes for {}", answer.len(), bytes.len());
            }
            assert!(transport == Transport::Tcp || reply.dial.is_none(), "nobody is called on the word of a datagram");
            // What was answered without a cookie is answered without one.
            if bytes.get(4..8) == Some(&[0x21, 0x12, 0xA4, 0x42]) {
                let answer = Packet::scan(answer).expect("an answer is a sound message");
                assert!(matches!(answer.class(), Class::Success | Class::Error));
                assert_eq!(bytes.get(8..20), Some(&answer.transaction_id().0[..]));
            }
        }
    }
}
