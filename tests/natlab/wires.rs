//! The wire of the lab delays, drops, doubles and reorders as told, and nothing else.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use fabric::netlab::kind::Kind;
use fabric::netlab::world::{Home, Plan, SERVERS_V4, SERVERS_V6, World};
use libtest_mimic::{Failed, Trial};

use crate::foreign::{Needs, trial};
use crate::netns::{inside, udp};
use crate::wire::{Weather, Wire};

pub(crate) fn trials() -> Vec<Trial> {
    let lab = &[Needs::Namespaces];
    vec![
        trial("a_wire_adds_its_delay_to_the_round_trip", lab, delay),
        trial("a_wire_loses_its_share_and_the_same_packets_for_the_same_seed", lab, loss),
        trial("a_wire_doubles_and_reorders_its_share", lab, duplication),
        trial("a_wire_carries_ipv6_tcp_and_fragments_whole", lab, everything),
    ]
}

struct Line {
    // Dropped in this order: the wire before the world it stands in.
    wire: Wire,
    host: UdpSocket,
    server: UdpSocket,
    world: World,
}

fn line(kind: &str, weather: Weather, seed: u64) -> Result<Line, Failed> {
    let kind = Kind::named(kind).ok_or("a known kind")?;
    let world = World::build(&Plan::one(Home::of_kind(kind).with_wire()))?;
    let [home] = world.homes() else { return Err("one home".into()) };
    let wire = Wire::connect(home.wire.as_ref().ok_or("a wire")?, weather, seed);
    let host = udp(&home.hosts[0], (home.hosts_v4[0], 0));
    let server = udp(world.public(), (SERVERS_V4[0], 0));
    Ok(Line { wire, host, server, world })
}

fn delay() -> Result<(), Failed> {
    let weather = Weather::round_trip(Duration::from_millis(40), 0.0);
    let Line { wire, host, server, world } = line("port-restricted", weather, 1)?;
    let mut buffer = [0; 64];
    let mut times = Vec::new();
    for _ in 0..5 {
        let begin = Instant::now();
        host.send_to(b"ping", server.local_addr()?)?;
        let (_, from) = server.recv_from(&mut buffer)?;
        server.send_to(b"pong", from)?;
        host.recv_from(&mut buffer)?;
        times.push(begin.elapsed());
    }
    let least = times.iter().min().ok_or("five")?;
    assert!(times.iter().all(|time| *time >= Duration::from_millis(40)), "{times:?}");
    assert!(*least < Duration::from_millis(60), "{times:?}");
    assert_eq!(wire.up.so_far(), (5, 5 * (28 + 4)));
    assert_eq!(wire.down.so_far(), (5, 5 * (28 + 4)));
    drop((wire, world));
    Ok(())
}

/// Which of a number of datagrams arrive, in order of arrival.
fn arrivals(weather: Weather, seed: u64, count: u16) -> Result<Vec<u16>, Failed> {
    let Line { wire, host, server, world } = line("port-restricted", weather, seed)?;
    server.set_read_timeout(Some(Duration::from_millis(300)))?;
    let to = server.local_addr()?;
    // Read beside the sending: the socket's own queue holds fewer packets than are sent.
    let reader = std::thread::spawn(move || {
        let mut arrived = Vec::new();
        let mut buffer = [0; 2];
        while server.recv_from(&mut buffer).is_ok() {
            arrived.push(u16::from_be_bytes(buffer));
        }
        arrived
    });
    for number in 0..count {
        host.send_to(&number.to_be_bytes(), to)?;
        if number % 32 == 31 {
            std::thread::sleep(Duration::from_millis(3));
        }
    }
    let arrived = reader.join().map_err(|_| "the reader panicked")?;
    drop((wire, world));
    Ok(arrived)
}

fn loss() -> Result<(), Failed> {
    let weather = Weather::round_trip(Duration::from_millis(2), 0.05);
    let first = arrivals(weather, 7, 2000)?;
    // 2000 at 5 %: 100 lost, with a standard deviation of 10.
    assert!((1850..=1950).contains(&first.len()), "{} arrived", first.len());
    assert!(first.is_sorted(), "in order");
    assert_eq!(first, arrivals(weather, 7, 2000)?, "the same seed");
    assert_ne!(first, arrivals(weather, 8, 2000)?, "another seed");
    Ok(())
}

fn duplication() -> Result<(), Failed> {
    let weather = Weather { delay: Duration::from_millis(20), duplication: 0.1, reordering: 0.1, ..Weather::default() };
    let arrived = arrivals(weather, 3, 500)?;
    let mut distinct = arrived.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 500, "nothing is lost");
    // 500 at 10 %: 50 twice, with a standard deviation of 7.
    assert!((15..=85).contains(&(arrived.len() - 500)), "{} came twice", arrived.len() - 500);
    assert!(!arrived.is_sorted(), "some were overtaken");
    Ok(())
}

fn everything() -> Result<(), Failed> {
    let weather = Weather::round_trip(Duration::from_millis(4), 0.0);
    let Line { wire, host, server, world } = line("nat66", weather, 5)?;
    let home = &world.homes()[0];
    let mut buffer = vec![0; 4096];
    // A datagram in three fragments.
    host.send_to(&[9; 4000], server.local_addr()?)?;
    assert_eq!(server.recv_from(&mut buffer)?.0, 4000);
    assert_eq!(wire.up.so_far().0, 3, "three fragments");
    let host_v6 = udp(&home.hosts[0], (home.hosts_v6[0], 0));
    let server_v6 = udp(world.public(), (SERVERS_V6[0], 0));
    host_v6.send_to(b"six", server_v6.local_addr()?)?;
    let (length, from) = server_v6.recv_from(&mut buffer)?;
    assert_eq!((length, from.ip()), (3, home.external_v6.into()));
    // A TCP stream longer than any segment.
    let listener = inside(world.public(), || TcpListener::bind(SocketAddr::from((SERVERS_V4[0], 0))))?;
    let to = listener.local_addr()?;
    let mut near = inside(&home.hosts[0], move || TcpStream::connect_timeout(&to, Duration::from_secs(5)))?;
    let (mut far, _) = listener.accept()?;
    far.set_read_timeout(Some(Duration::from_secs(5)))?;
    let sent: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || near.write_all(&copy));
    let mut received = vec![0; sent.len()];
    far.read_exact(&mut received)?;
    assert!(received == sent, "every byte");
    writer.join().map_err(|_| "the writer panicked")??;
    drop((wire, world));
    Ok(())
}
