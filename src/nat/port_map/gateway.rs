//! Where the default gateway is, read from the kernel's route tables as text.
//!
//! `/proc/net/route` and `/proc/net/ipv6_route` need no privilege, no netlink and no sysfs, and show the namespace of the
//! reader. Systems without them are given the gateway by option.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A default route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DefaultRoute {
    /// The next hop.
    pub gateway: IpAddr,
    /// The name of the interface.
    pub interface: String,
}

const UP_AND_GATEWAY: u32 = 0x0003;

/// The preferred IPv4 default route in the text of `/proc/net/route`.
#[must_use]
pub fn default_v4(table: &str) -> Option<DefaultRoute> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (interface, destination, gateway, flags) =
            (fields.next()?, hex(fields.next()?)?, hex(fields.next()?)?, hex(fields.next()?)?);
        let metric: u32 = fields.nth(2)?.parse().ok()?;
        let mask = hex(fields.next()?)?;
        let is_default = destination == 0 && mask == 0 && flags & UP_AND_GATEWAY == UP_AND_GATEWAY;
        // The kernel prints the address as the host's own integer.
        let gateway = Ipv4Addr::from(gateway.to_ne_bytes());
        (is_default && !gateway.is_unspecified())
            .then(|| (metric, DefaultRoute { gateway: gateway.into(), interface: interface.to_owned() }))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, route)| route)
}

/// The preferred IPv6 default route in the text of `/proc/net/ipv6_route`.
#[must_use]
pub fn default_v6(table: &str) -> Option<DefaultRoute> {
    let routes = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [destination, length, _, _, next_hop, metric, _, _, flags, interface] = fields.as_slice() else {
            return None;
        };
        let is_default = u128::from_str_radix(destination, 16).ok()? == 0 && hex(length)? == 0;
        let gateway = Ipv6Addr::from(u128::from_str_radix(next_hop, 16).ok()?);
        (is_default && hex(flags)? & UP_AND_GATEWAY == UP_AND_GATEWAY && !gateway.is_unspecified()).then(|| {
            Some((hex(metric)?, DefaultRoute { gateway: gateway.into(), interface: (*interface).to_owned() }))
        })?
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, route)| route)
}

/// The index of an interface in the text of `/proc/net/if_inet6`: the scope of its link-local addresses.
#[must_use]
pub fn scope_id(table: &str, interface: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, index, _, _, _, name] = fields.as_slice() else { return None };
        if *name == interface { hex(index) } else { None }
    })
}

fn hex(field: &str) -> Option<u32> {
    u32::from_str_radix(field, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_default_route_with_the_lowest_metric_wins() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
            eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0\n\
            eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
            nonsense\n";
        let route = default_v4(table).unwrap();
        assert_eq!((route.gateway.to_string().as_str(), route.interface.as_str()), ("192.168.1.1", "eth0"));
        assert_eq!(default_v4(""), None);
    }

    #[test]
    fn the_ipv6_default_route_keeps_its_interface() {
        let zero = "0".repeat(32);
        let table = format!(
            "{zero} 00 {zero} 00 fe80000000000000000000000000000a 00000400 00000001 00000000 00450003     eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
             2a001100000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth0\n"
        );
        let route = default_v6(&table).unwrap();
        assert_eq!((route.gateway.to_string().as_str(), route.interface.as_str()), ("fe80::a", "eth0"));
        assert_eq!(default_v6("short line\n"), None);
        let addresses = "fe80000000000000000000fffe000001 1c 40 20 80     eth0\n";
        assert_eq!((scope_id(addresses, "eth0"), scope_id(addresses, "eth1")), (Some(28), None));
    }
}
