//! S3, S4 and S5: what spoofed sources achieve.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use fabric::protocol::stun::{AttributeType, Class, Method, TransactionId, Writer};
use fabric::stun::Counter;
use fabric::stun::driver::{Live, Server};
use libtest_mimic::{Failed, Trial};

use crate::foreign::{Needs, trial};
use crate::wire::{Spoofer, address, arrived, bare, serve, settle};

pub(crate) fn trials() -> Vec<Trial> {
    let lab = &[Needs::Namespaces];
    vec![
        trial("s4_two_servers_that_are_made_to_talk_to_each_other_exchange_two_packets", lab, loops),
        trial("s5_a_source_nobody_can_answer_gets_nothing", lab, sources),
        trial("s3_nobody_but_the_source_of_a_request_hears_of_it", lab, bystander),
    ]
}

fn udp(server: &Server) -> Vec<SocketAddrV4> {
    let v4 = |address: &std::net::SocketAddr| match address {
        std::net::SocketAddr::V4(v4) => *v4,
        std::net::SocketAddr::V6(_) => unreachable!("an IPv4 server"),
    };
    server.addresses("udp").iter().map(v4).collect()
}

fn change_request(flags: u8) -> Vec<u8> {
    let mut bytes = vec![0; 28];
    let mut writer = Writer::new(&mut bytes, Class::Request, Method::BINDING, TransactionId([6; 12])).expect("room");
    writer.attribute(AttributeType::CHANGE_REQUEST, &[0, 0, 0, flags]).expect("room");
    bytes
}

fn loops() -> Result<(), Failed> {
    let spoofer = Spoofer::new();
    let mut live = Live::default();
    live.settings.rfc3489 = true;
    let mut old = bare(Class::Request);
    old[4] = 1;
    // A request that succeeds, one that fails, and one of an old client.
    for asked in [bare(Class::Request).to_vec(), change_request(6), old.to_vec()] {
        let (a, b) = (serve("11.0.0.1:0", None, live.clone()), serve("11.0.0.2:0", None, live.clone()));
        spoofer.send(udp(&b)[0], udp(&a)[0], &asked);
        settle(&b, 1);
        // One packet to A, its answer to B, and silence.
        assert_eq!((arrived(&a), arrived(&b)), (1, 1));
        assert_eq!(a.count(Counter::RequestUdp4), 1);
        assert_eq!(b.count(Counter::DropResponse) + b.count(Counter::DropMalformed), 1);
    }
    // A server whose own addresses are given as the source answers nothing at all.
    let server = serve("11.0.0.1:0", Some("11.0.0.2:0"), live);
    let own = udp(&server);
    for (count, source) in (1..).zip(&own) {
        spoofer.send(*source, own[0], &change_request(6));
        settle(&server, count);
        assert_eq!((server.count(Counter::DropOwnSource), server.count(Counter::RequestUdp4)), (count, 0));
    }
    Ok(())
}

fn sources() -> Result<(), Failed> {
    let spoofer = Spoofer::new();
    let server = serve("11.0.0.1:0", Some("11.0.0.2:0"), Live::default());
    let at = udp(&server)[0];
    for asked in [bare(Class::Request).to_vec(), change_request(6)] {
        for source in ["11.1.1.1:0", "224.0.0.1:5000", "239.255.255.250:1900", "255.255.255.255:5000"] {
            spoofer.send(address(source), at, &asked);
        }
    }
    // An honest request behind them: when it is answered, they all were decided.
    let client = UdpSocket::bind("11.2.2.2:0")?;
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    client.send_to(&bare(Class::Request), at)?;
    client.recv(&mut [0; 200])?;
    settle(&server, 1);
    assert_eq!(server.count(Counter::RequestUdp4), 1, "only the honest request was answered");
    assert!(server.count(Counter::DropSource) >= 2, "port 0 comes through the kernel and is dropped here");
    Ok(())
}

fn bystander() -> Result<(), Failed> {
    let spoofer = Spoofer::new();
    let server = serve("11.0.0.1:0", Some("11.0.0.2:0"), Live::default());
    let (victim, bystander) = (UdpSocket::bind("11.3.3.3:0")?, UdpSocket::bind("11.3.3.4:0")?);
    let local = |socket: &UdpSocket| match socket.local_addr() {
        Ok(std::net::SocketAddr::V4(v4)) => v4,
        other => unreachable!("{other:?}"),
    };
    let (victim_at, bystander_at) = (local(&victim), local(&bystander));
    // RESPONSE-PORT names the bystander's port: the answer still goes to the victim's address.
    let mut asked = vec![0; 28];
    let mut writer = Writer::new(&mut asked, Class::Request, Method::BINDING, TransactionId([6; 12]))?;
    writer.attribute(AttributeType::RESPONSE_PORT, &[&bystander_at.port().to_be_bytes()[..], &[0, 0]].concat())?;
    for corner in udp(&server) {
        spoofer.send(victim_at, corner, &asked);
        spoofer.send(victim_at, corner, &change_request(6));
    }
    settle(&server, 8);
    assert_eq!(server.count(Counter::Success), 8);
    bystander.set_nonblocking(true)?;
    assert!(bystander.recv(&mut [0; 200]).is_err(), "the bystander heard something");
    victim.set_nonblocking(true)?;
    let heard = std::iter::from_fn(|| victim.recv(&mut [0; 200]).ok()).count();
    assert_eq!(heard, 4, "the four answers without RESPONSE-PORT");
    Ok(())
}
