//! RFC 5780 over IPv6, which needs two addresses that loopback does not have.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use fabric::ops::health::Health;
use fabric::ops::listen::Listeners;
use fabric::protocol::stun::{AttributeType, Class, Method, Packet, TransactionId, Writer};
use fabric::stun::driver::{Config, Server};
use libtest_mimic::{Failed, Trial};

use crate::foreign::{Needs, trial};

const ONE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x5780, 0, 0, 0, 0, 0, 1);
const TWO: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x5780, 0, 0, 0, 0, 0, 2);

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("rfc5780_over_ipv6_answers_leave_from_the_corner_that_was_asked_for", &[Needs::Namespaces], corners)]
}

fn corners() -> Result<(), Failed> {
    let config = Config {
        listen: vec![(ONE, 0).into()],
        alternates: vec![(TWO, 0).into()],
        tcp: false,
        workers: 2,
        ..Config::default()
    };
    let server = Server::start(config, &mut Listeners::default(), &Health::default())?;
    let corners = server.addresses("udp");
    assert_eq!(corners.len(), 4);
    for (corner, at) in corners.iter().enumerate() {
        for (flags, flip) in [(0, 0), (2, 1), (4, 2), (6, 3)] {
            let client = UdpSocket::bind("[::1]:0")?;
            client.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut asked = [0; 28];
            let mut writer = Writer::new(&mut asked, Class::Request, Method::BINDING, TransactionId([9; 12]))?;
            writer.attribute(AttributeType::CHANGE_REQUEST, &[0, 0, 0, flags])?;
            client.send_to(&asked, at)?;
            let mut answer = [0; 200];
            let (length, source) = client.recv_from(&mut answer)?;
            let answer = Packet::scan(&answer[..length])?;
            let expected = |address: SocketAddr| Some(SocketAddr::new(address.ip(), address.port()));
            assert_eq!(Some(source), expected(corners[corner ^ flip]));
            assert_eq!(answer.address(AttributeType::RESPONSE_ORIGIN), Some(source));
            assert_eq!(answer.address(AttributeType::OTHER_ADDRESS), expected(corners[corner ^ 3]));
            assert_eq!(answer.xor_address(AttributeType::XOR_MAPPED_ADDRESS), client.local_addr().ok());
        }
    }
    Ok(())
}
