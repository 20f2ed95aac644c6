//! Caps on replies to one destination, so that spoofed requests cannot turn the server into a stream of packets at
//! somebody (RFC 8489 section 13 leaves this to the server).

use std::net::IpAddr;
use std::time::Duration;

use crate::address::peer_addr::canonical_ip;
use crate::address::{Prefix, Rate, RateTable};

/// How many replies one destination gets. `None` switches a cap off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// To one IPv4 address or one IPv6 /64.
    pub per_host: Option<Rate>,
    /// To one IPv4 /24 or one IPv6 /48.
    pub per_site: Option<Rate>,
}

impl Limits {
    /// No caps.
    pub const OFF: Self = Self { per_host: None, per_site: None };
}

impl Default for Limits {
    /// 50,000 replies a second to a host and 200,000 to a site, twice that at once. Far above what a carrier's NAT with
    /// thousands of subscribers asks for; 1.6 MB/s of payload is the most a spoofer gets out of it at one address.
    fn default() -> Self {
        Self { per_host: Some(Rate::new(50_000, 100_000)), per_site: Some(Rate::new(200_000, 400_000)) }
    }
}

/// The state behind [`Limits`]: fixed in size, shared by all threads of a server.
#[derive(Debug)]
pub struct Guard {
    hosts: RateTable,
    sites: RateTable,
}

impl Guard {
    /// Two tables of 512 KiB. The seed comes from the system's random source.
    #[must_use]
    pub fn new(seed: [u64; 2]) -> Self {
        let other = [seed[1].rotate_left(17), seed[0].rotate_left(41)];
        Self {
            hosts: RateTable::new(RateTable::DEFAULT_BUCKETS, seed),
            sites: RateTable::new(RateTable::DEFAULT_BUCKETS, other),
        }
    }

    /// Counts a reply to this destination, or says that it has had its share.
    #[must_use]
    pub fn admits(&self, to: IpAddr, now: Duration, limits: &Limits) -> bool {
        let to = canonical_ip(to);
        limits.per_host.is_none_or(|rate| self.hosts.take(Prefix::host(to), now, rate))
            && limits.per_site.is_none_or(|rate| self.sites.take(Prefix::site(to), now, rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(guard: &Guard, limits: &Limits, to: &str) -> usize {
        let to = to.parse().expect("an IP address");
        (0..1_000).filter(|_| guard.admits(to, Duration::from_secs(1), limits)).count()
    }

    #[test]
    fn a_host_and_a_site_have_their_own_caps() {
        let guard = Guard::new([1, 2]);
        let limits = Limits { per_host: Some(Rate::new(1, 10)), per_site: Some(Rate::new(1, 25)) };
        assert_eq!(admitted(&guard, &limits, "198.51.100.1"), 10);
        assert_eq!(admitted(&guard, &limits, "198.51.100.2"), 10);
        assert_eq!(admitted(&guard, &limits, "198.51.100.3"), 5);
        assert_eq!(admitted(&guard, &limits, "198.51.101.1"), 10);
        assert_eq!(admitted(&guard, &limits, "2001:db8:0:1::1"), 10);
        assert_eq!(admitted(&guard, &limits, "2001:db8:0:1::2"), 0, "the same /64");
        assert_eq!(admitted(&guard, &limits, "2001:db8:0:2::1"), 10);
        assert_eq!(admitted(&guard, &limits, "2001:db8:0:3::1"), 5);
    }

    #[test]
    fn switched_off_caps_admit_everything() {
        assert_eq!(admitted(&Guard::new([1, 2]), &Limits::OFF, "198.51.100.1"), 1_000);
    }

    #[test]
    fn another_spelling_of_an_address_has_no_cap_of_its_own() {
        let guard = Guard::new([1, 2]);
        let limits = Limits { per_host: Some(Rate::new(1, 10)), per_site: None };
        assert_eq!(admitted(&guard, &limits, "198.51.100.1"), 10);
        assert_eq!(admitted(&guard, &limits, "::ffff:198.51.100.1"), 0);
        assert_eq!(admitted(&guard, &limits, "64:ff9b::198.51.100.1"), 0);
    }
}
