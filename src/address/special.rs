//! The IANA special-purpose address registries, multicast, and what of them is reachable from the Internet.
//!
//! An address is looked up by its longest matching block, because some blocks hold smaller ones with another answer:
//! `192.0.0.0/24` is not globally reachable and `192.0.0.9/32` inside it is.

use std::net::IpAddr;

use super::peer_addr::canonical_ip;
use super::prefix::Prefix;

/// One block of a registry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Block {
    /// The addresses.
    pub prefix: Prefix,
    /// The registered name.
    pub name: &'static str,
    /// Where it is defined.
    pub reference: &'static str,
    /// Whether packets to it are forwarded beyond one administrative domain ("Globally Reachable"). Blocks the
    /// registry marks "N/A" count as not.
    pub global: bool,
}

const fn v4(octets: [u8; 4], length: u8, name: &'static str, reference: &'static str, global: bool) -> Block {
    let [a, b, c, d] = octets;
    let ip = IpAddr::V4(std::net::Ipv4Addr::new(a, b, c, d));
    Block { prefix: Prefix::containing(ip, length), name, reference, global }
}

const fn v6(bits: u128, length: u8, name: &'static str, reference: &'static str, global: bool) -> Block {
    let ip = IpAddr::V6(std::net::Ipv6Addr::from_bits(bits));
    Block { prefix: Prefix::containing(ip, length), name, reference, global }
}

/// The IPv4 blocks: the IANA IPv4 Special-Purpose Address Registry, and multicast.
pub const IPV4: &[Block] = &[
    v4([0, 0, 0, 0], 8, "this network", "RFC 791 section 3.2", false),
    v4([0, 0, 0, 0], 32, "this host on this network", "RFC 1122 section 3.2.1.3", false),
    v4([10, 0, 0, 0], 8, "private use", "RFC 1918", false),
    v4([100, 64, 0, 0], 10, "shared address space", "RFC 6598", false),
    v4([127, 0, 0, 0], 8, "loopback", "RFC 1122 section 3.2.1.3", false),
    v4([169, 254, 0, 0], 16, "link local", "RFC 3927", false),
    v4([172, 16, 0, 0], 12, "private use", "RFC 1918", false),
    v4([192, 0, 0, 0], 24, "IETF protocol assignments", "RFC 6890 section 2.1", false),
    v4([192, 0, 0, 0], 29, "IPv4 service continuity", "RFC 7335", false),
    v4([192, 0, 0, 8], 32, "IPv4 dummy address", "RFC 7600", false),
    v4([192, 0, 0, 9], 32, "Port Control Protocol anycast", "RFC 7723", true),
    v4([192, 0, 0, 10], 32, "TURN anycast", "RFC 8155", true),
    v4([192, 0, 0, 170], 32, "NAT64/DNS64 discovery", "RFC 8880", false),
    v4([192, 0, 0, 171], 32, "NAT64/DNS64 discovery", "RFC 8880", false),
    v4([192, 0, 2, 0], 24, "documentation (TEST-NET-1)", "RFC 5737", false),
    v4([192, 31, 196, 0], 24, "AS112-v4", "RFC 7535", true),
    v4([192, 52, 193, 0], 24, "AMT", "RFC 7450", true),
    v4([192, 88, 99, 0], 24, "6to4 relay anycast, deprecated", "RFC 7526", false),
    v4([192, 168, 0, 0], 16, "private use", "RFC 1918", false),
    v4([192, 175, 48, 0], 24, "direct delegation AS112", "RFC 7534", true),
    v4([198, 18, 0, 0], 15, "benchmarking", "RFC 2544", false),
    v4([198, 51, 100, 0], 24, "documentation (TEST-NET-2)", "RFC 5737", false),
    v4([203, 0, 113, 0], 24, "documentation (TEST-NET-3)", "RFC 5737", false),
    v4([224, 0, 0, 0], 4, "multicast", "RFC 5771", false),
    v4([240, 0, 0, 0], 4, "reserved", "RFC 1112 section 4", false),
    v4([255, 255, 255, 255], 32, "limited broadcast", "RFC 919 section 7", false),
];

/// The IPv6 blocks: the IANA IPv6 Special-Purpose Address Registry, multicast, and site-local (RFC 3879).
pub const IPV6: &[Block] = &[
    v6(0, 128, "unspecified", "RFC 4291 section 2.5.2", false),
    v6(1, 128, "loopback", "RFC 4291 section 2.5.3", false),
    v6(0xffff << 32, 96, "IPv4-mapped", "RFC 4291 section 2.5.5.2", false),
    v6(0x0064_ff9b << 96, 96, "IPv4-IPv6 translation", "RFC 6052", true),
    v6(0x0064_ff9b_0001 << 80, 48, "IPv4-IPv6 translation, local use", "RFC 8215", false),
    v6(0x0100 << 112, 64, "discard only", "RFC 6666", false),
    v6((0x0100 << 112) | (1 << 64), 64, "IPv6 dummy prefix", "RFC 9780", false),
    v6(0x2001 << 112, 23, "IETF protocol assignments", "RFC 2928", false),
    v6(0x2001 << 112, 32, "Teredo", "RFC 4380", false),
    v6((0x2001_0001 << 96) | 1, 128, "Port Control Protocol anycast", "RFC 7723", true),
    v6((0x2001_0001 << 96) | 2, 128, "TURN anycast", "RFC 8155", true),
    v6((0x2001_0001 << 96) | 3, 128, "DNS-SD service registration anycast", "RFC 9665", true),
    v6(0x2001_0002 << 96, 48, "benchmarking", "RFC 5180", false),
    v6(0x2001_0003 << 96, 32, "AMT", "RFC 7450", true),
    v6(0x2001_0004_0112 << 80, 48, "AS112-v6", "RFC 7535", true),
    v6(0x2001_0010 << 96, 28, "ORCHID, deprecated", "RFC 4843", false),
    v6(0x2001_0020 << 96, 28, "ORCHIDv2", "RFC 7343", true),
    v6(0x2001_0030 << 96, 28, "drone remote ID", "RFC 9374", true),
    v6(0x2001_0db8 << 96, 32, "documentation", "RFC 3849", false),
    v6(0x2002 << 112, 16, "6to4", "RFC 3056", false),
    v6(0x2620_004f_8000 << 80, 48, "direct delegation AS112", "RFC 7534", true),
    v6(0x3fff << 112, 20, "documentation", "RFC 9637", false),
    v6(0x5f00 << 112, 16, "segment routing SIDs", "RFC 9602", false),
    v6(0xfc00 << 112, 7, "unique local", "RFC 4193", false),
    v6(0xfe80 << 112, 10, "link local", "RFC 4291 section 2.5.6", false),
    v6(0xfec0 << 112, 10, "site local, deprecated", "RFC 3879", false),
    v6(0xff00 << 112, 8, "multicast", "RFC 4291 section 2.7", false),
];

/// The smallest registered block the address lies in, as it is spelled: nothing is folded.
#[must_use]
pub fn lookup(ip: IpAddr) -> Option<&'static Block> {
    let table = if ip.is_ipv4() { IPV4 } else { IPV6 };
    table.iter().filter(|block| block.prefix.contains(ip)).max_by_key(|block| block.prefix.length())
}

/// Whether the address is reachable from the Internet. An IPv4 address inside an IPv6 address is judged as what it is.
#[must_use]
pub fn is_global(ip: IpAddr) -> bool {
    lookup(canonical_ip(ip)).is_none_or(|block| block.global)
}

/// Whether a packet can carry this as its source and be answered: one host's own address, not a group, not
/// "unspecified", not a broadcast.
#[must_use]
pub fn can_be_answered(ip: IpAddr) -> bool {
    match canonical_ip(ip) {
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            first != 0 && first < 224
        }
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an IP address")
    }

    #[test]
    fn the_longest_block_decides() {
        assert!(!is_global(ip("192.0.0.7")));
        assert!(is_global(ip("192.0.0.9")));
        assert!(!is_global(ip("2001:1::")));
        assert!(is_global(ip("2001:1::1")));
        assert!(!is_global(ip("2001:5::1")));
        assert!(is_global(ip("2001:20::1")));
        assert!(is_global(ip("2001:200::1")));
        assert_eq!(lookup(ip("255.255.255.255")).map(|block| block.name), Some("limited broadcast"));
        assert_eq!(lookup(ip("0.0.0.0")).map(|block| block.name), Some("this host on this network"));
    }

    #[test]
    fn ordinary_addresses_are_in_no_block() {
        for ordinary in ["1.1.1.1", "9.9.9.9", "100.63.255.255", "100.128.0.0", "2606:4700::1", "2a00::1"] {
            assert_eq!(lookup(ip(ordinary)), None, "{ordinary}");
            assert!(is_global(ip(ordinary)), "{ordinary}");
        }
    }

    #[test]
    fn a_special_ipv4_address_stays_special_in_every_ipv6_spelling() {
        for spelling in [
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::127.0.0.1",
            "64:ff9b:1:7f00:0:100::",
            "2001::80ff:fffe",
        ] {
            assert!(!is_global(ip(spelling)), "{spelling}");
        }
    }

    #[test]
    fn every_block_is_found_by_its_own_first_address() {
        for block in IPV4.iter().chain(IPV6) {
            let found = lookup(block.prefix.base()).expect("a block");
            assert!(found.prefix.length() >= block.prefix.length(), "{}", block.name);
            assert!(block.prefix.contains(found.prefix.base()));
        }
    }

    #[test]
    fn groups_and_nobody_cannot_be_answered() {
        for source in
            ["0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "ff02::1"]
        {
            assert!(!can_be_answered(ip(source)), "{source}");
        }
        for source in ["127.0.0.1", "10.0.0.1", "223.255.255.255", "::1", "fe80::1", "2a00::1"] {
            assert!(can_be_answered(ip(source)), "{source}");
        }
    }
}
