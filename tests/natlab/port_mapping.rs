//! Debian's miniupnpd in a router of the lab really opens ports.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use fabric::netlab::kind::Kind;
use fabric::netlab::miniupnpd::{HTTP_PORT, Miniupnpd, Options};
use fabric::netlab::world::{Home, Plan, World};
use libtest_mimic::{Failed, Trial};

use crate::foreign::{Needs, trial};
use crate::netns::{inside, udp};

const NEEDS: &[Needs] = &[Needs::Namespaces, Needs::Program("miniupnpd", "miniupnpd-nftables")];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_port_opened_with_nat_pmp_lets_a_stranger_in", NEEDS, nat_pmp),
        trial("upnp_discovery_answers_with_a_description_on_the_gateway", NEEDS, discovery),
    ]
}

/// RFC 6886 section 3.3 by hand: version 0, opcode 1 (UDP), internal port, wished external port, lifetime.
fn nat_pmp() -> Result<(), Failed> {
    let kind = Kind::named("port-restricted").ok_or("a known kind")?;
    let world = World::build(&Plan::one(Home::of_kind(kind)))?;
    let [home] = world.homes() else { return Err("one home".into()) };
    let ([host], [router], [host_v4]) = (&*home.hosts, &*home.routers, &*home.hosts_v4) else {
        return Err("one host, one router".into());
    };
    let daemon = Miniupnpd::start(router, &Options::default())?;
    assert!(daemon.rules()?.is_empty(), "nothing is open at the start");

    let service = udp(host, (*host_v4, 7000));
    let client = udp(host, (*host_v4, 0));
    let mut request = vec![0, 1, 0, 0];
    request.extend(7000_u16.to_be_bytes());
    request.extend(7100_u16.to_be_bytes());
    request.extend(3600_u32.to_be_bytes());
    client.send_to(&request, (home.gateway_v4, 5351))?;
    let mut answer = [0; 64];
    let (length, _) = client.recv_from(&mut answer)?;
    let answer = answer.get(..length).ok_or("a length within the buffer")?;
    assert_eq!(answer.get(..4), Some(&[0, 129, 0, 0][..]), "success: {answer:?}");
    assert_eq!(answer.get(10..12), Some(&7100_u16.to_be_bytes()[..]), "the wished port: {answer:?}");
    assert!(daemon.rules()?.iter().any(|rule| rule.contains("7100")), "{:?}", daemon.rules()?);

    let stranger = udp(world.public(), (Ipv4Addr::new(12, 0, 0, 1), 0));
    stranger.send_to(b"knock", (Ipv4Addr::new(11, 1, 0, 2), 7100))?;
    let mut heard = [0; 16];
    let (length, from) = service.recv_from(&mut heard)?;
    assert_eq!(heard.get(..length), Some(&b"knock"[..]));
    assert_eq!(from, stranger.local_addr()?, "the source is not translated");
    service.send_to(b"come in", from)?;
    let (length, from) = stranger.recv_from(&mut heard)?;
    assert_eq!((heard.get(..length), from), (Some(&b"come in"[..]), "11.1.0.2:7100".parse()?));
    Ok(())
}

fn discovery() -> Result<(), Failed> {
    let kind = Kind::named("port-restricted").ok_or("a known kind")?;
    let world = World::build(&Plan::one(Home::of_kind(kind)))?;
    let [home] = world.homes() else { return Err("one home".into()) };
    let ([host], [router], [host_v4]) = (&*home.hosts, &*home.routers, &*home.hosts_v4) else {
        return Err("one host, one router".into());
    };
    let _daemon = Miniupnpd::start(router, &Options::default())?;
    let client = udp(host, (*host_v4, 0));
    let search = "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\
                  ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n";
    client.send_to(search.as_bytes(), (Ipv4Addr::new(239, 255, 255, 250), 1900))?;
    let mut answer = [0; 2048];
    let (length, _) = client.recv_from(&mut answer)?;
    let answer = String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned();
    let root = format!("http://{}:{HTTP_PORT}", home.gateway_v4);
    let place = answer.lines().find_map(|line| Some(line.split_once(": ")?.1.strip_prefix(&root)?.trim().to_owned()));
    let path = place.ok_or_else(|| format!("no location on the gateway: {answer}"))?;

    let gateway = home.gateway_v4;
    let page = inside(host, move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((gateway, HTTP_PORT))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {gateway}:{HTTP_PORT}\r\n\r\n").as_bytes())?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    })?;
    assert!(page.contains("WANIPConnection"), "{page}");
    Ok(())
}
