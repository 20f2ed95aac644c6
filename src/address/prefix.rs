//! Prefixes: ranges of addresses that belong together.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A text that is not `ADDRESS/LENGTH`, or that has bits set behind the length.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PrefixError {
    /// The part before the slash is no IP address.
    #[error("{0:?} is not an IP address")]
    Address(String),
    /// The part after the slash is no number, or more than the family has bits.
    #[error("{0:?} is not a prefix length for this family")]
    Length(String),
    /// The address has bits set that the length cuts off. The field is the prefix that was probably meant.
    #[error("the address has bits set behind the prefix length; {0} was probably meant")]
    HostBits(Prefix),
}

/// An IP prefix. The bits behind the length are zero.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Prefix {
    base: IpAddr,
    length: u8,
}

impl Prefix {
    /// The prefix of this length that contains the address. A length beyond the family's is cut to it.
    #[must_use]
    pub const fn containing(ip: IpAddr, length: u8) -> Self {
        match ip {
            IpAddr::V4(v4) => {
                let length = if length > 32 { 32 } else { length };
                let mask = if length == 0 { 0 } else { u32::MAX << (32 - length) };
                Self { base: IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask)), length }
            }
            IpAddr::V6(v6) => {
                let length = if length > 128 { 128 } else { length };
                let mask = if length == 0 { 0 } else { u128::MAX << (128 - length) };
                Self { base: IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask)), length }
            }
        }
    }

    /// What one subscriber can use at will: the address itself for IPv4, its /64 for IPv6.
    #[must_use]
    pub const fn host(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::containing(ip, 32),
            IpAddr::V6(_) => Self::containing(ip, 64),
        }
    }

    /// What a household is often given: the address itself for IPv4, its /56 for IPv6.
    #[must_use]
    pub const fn household(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::containing(ip, 32),
            IpAddr::V6(_) => Self::containing(ip, 56),
        }
    }

    /// What one site is usually given: /24 for IPv4, /48 for IPv6.
    #[must_use]
    pub const fn site(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::containing(ip, 24),
            IpAddr::V6(_) => Self::containing(ip, 48),
        }
    }

    /// The first address.
    #[must_use]
    pub const fn base(self) -> IpAddr {
        self.base
    }

    /// How many leading bits are fixed.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether the address lies inside. An address of the other family never does.
    #[must_use]
    pub fn contains(self, ip: IpAddr) -> bool {
        Self::containing(ip, self.length).base == self.base && ip.is_ipv4() == self.base.is_ipv4()
    }

    /// A number that tells this prefix from every other: the address bits, the length and the family.
    #[must_use]
    pub const fn key(self) -> (u128, u8) {
        match self.base {
            IpAddr::V4(v4) => (v4.to_bits() as u128, self.length),
            IpAddr::V6(v6) => (v6.to_bits(), self.length | 0x80),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.length)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// Reads `ADDRESS/LENGTH`, or an address alone for a prefix of one.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = address.parse().map_err(|_| PrefixError::Address(address.to_owned()))?;
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => bits,
            Some(length) => length
                .parse()
                .ok()
                .filter(|parsed| *parsed <= bits)
                .ok_or_else(|| PrefixError::Length(length.to_owned()))?,
        };
        let prefix = Self::containing(ip, length);
        if prefix.base == ip { Ok(prefix) } else { Err(PrefixError::HostBits(prefix)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn groups_have_the_lengths_of_what_they_stand_for() {
        let v4: IpAddr = "198.51.100.77".parse().expect("IP");
        let v6: IpAddr = "2001:db8:1:2:3:4:5:6".parse().expect("IP");
        assert_eq!(Prefix::host(v4).to_string(), "198.51.100.77/32");
        assert_eq!(Prefix::site(v4).to_string(), "198.51.100.0/24");
        assert_eq!(Prefix::host(v6).to_string(), "2001:db8:1:2::/64");
        assert_eq!(Prefix::household(v6).to_string(), "2001:db8:1::/56");
        assert_eq!(Prefix::site(v6).to_string(), "2001:db8:1::/48");
    }

    #[test]
    fn the_families_never_mix() {
        let everything: Prefix = "::/0".parse().expect("prefix");
        assert!(!everything.contains("10.0.0.1".parse().expect("IP")));
        assert_ne!(
            Prefix::containing("::".parse().expect("IP"), 32).key(),
            "0.0.0.0/32".parse::<Prefix>().expect("p").key()
        );
    }

    #[test]
    fn host_bits_are_refused_with_the_prefix_that_was_meant() {
        assert_eq!("10.1.2.3/8".parse::<Prefix>(), Err(PrefixError::HostBits("10.0.0.0/8".parse().expect("prefix"))));
        assert!(matches!("10.0.0.0/33".parse::<Prefix>(), Err(PrefixError::Length(_))));
        assert!(matches!("ten/8".parse::<Prefix>(), Err(PrefixError::Address(_))));
    }

    proptest! {
        #[test]
        fn containment_equals_the_integer_range(base: u128, ip: u128, length in 0u8..=128) {
            let prefix = Prefix::containing(Ipv6Addr::from_bits(base).into(), length);
            let size = 1u128.checked_shl(128 - u32::from(length)).unwrap_or(0);
            let IpAddr::V6(first) = prefix.base() else { unreachable!() };
            let inside = ip.wrapping_sub(first.to_bits()) < size || size == 0;
            prop_assert_eq!(prefix.contains(Ipv6Addr::from_bits(ip).into()), inside);
        }
    }
}
