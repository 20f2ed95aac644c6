//! What the fuzz targets of port mapping feed: everything a router, or somebody who poses as one, can send. A plain test
//! includes this file too, so that it also runs without a fuzzer.

use std::net::{IpAddr, Ipv4Addr};

use fabric::nat::port_map::igd::{Endpoint, description, harmless, ssdp};
use fabric::nat::port_map::journal::Ledger;
use fabric::nat::port_map::{gateway, natpmp, pcp};

const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1));

/// PCP and NAT-PMP: what was read is written again and must read the same.
pub(crate) fn datagram(bytes: &[u8]) {
    if let Ok(request) = pcp::Request::decode(bytes) {
        assert_eq!(pcp::Request::decode(&request.encode()), Ok(request));
    }
    if let Ok(response) = pcp::Response::decode(bytes)
        && response.operation.is_some()
    {
        assert_eq!(pcp::Response::decode(&response.encode()), Ok(response));
    }
    if let Ok(request) = natpmp::Request::decode(bytes) {
        assert_eq!(natpmp::Request::decode(&request.encode()), Ok(request));
    }
    if let Ok(response) = natpmp::Response::decode(bytes) {
        assert_eq!(natpmp::Response::decode(&response.encode()), Ok(response));
    }
}

/// Search answers, descriptions and journals: nothing leads away from the gateway and nothing shown does harm.
pub(crate) fn document(bytes: &[u8]) {
    if let Ok(found) = ssdp::answer(bytes, GATEWAY, GATEWAY) {
        stays(&found.description);
        assert!(!found.server.chars().any(char::is_control));
    }
    let at = Endpoint { port: 80, path: "/d/root.xml".to_owned() };
    if let Ok(description) = description::read(bytes, &at, GATEWAY) {
        description.connections.iter().for_each(|connection| stays(&connection.control));
        description.firewall.iter().for_each(stays);
        let device = description.device;
        for text in [device.name, device.manufacturer, device.model] {
            assert!(!text.chars().any(char::is_control) && text.chars().count() <= 64);
        }
    }
    let text = String::from_utf8_lossy(bytes);
    assert!(!harmless(&text).chars().any(char::is_control));
    if description::screen(bytes).is_ok() {
        let _ = description::element_text(&text, "errorCode");
    }
    let _ = (gateway::default_v4(&text), gateway::default_v6(&text), gateway::scope_id(&text, "eth0"));
    let _ = Ledger::read(&text).outstanding().count();
}

fn stays(endpoint: &Endpoint) {
    assert!(endpoint.port != 0 && endpoint.path.starts_with('/') && !endpoint.path.starts_with("//"), "{endpoint:?}");
}
