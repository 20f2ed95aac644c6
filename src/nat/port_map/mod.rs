//! Port mappings: asking the router for an open port, honestly.
//!
//! Three protocols do it: UPnP IGD ([`igd`]), NAT-PMP ([`natpmp`], RFC 6886) and PCP ([`pcp`], RFC 6887). Which of them a
//! router answers is found out by asking all at once ([`driver::survey`]); the serial retry schedules of the
//! specifications take minutes where the router is silent.
//!
//! 1. [`gateway`] reads the default route; nobody but the gateway is ever asked or believed.
//! 2. [`exchange`] carries one PCP or NAT-PMP question, [`epoch`] judges the age the gateway claims.
//! 3. [`igd`] finds and reads the device description under tight limits and speaks SOAP.
//! 4. [`mapping`] makes, renews and removes one mapping in any of the three.
//! 5. [`journal`] remembers every mapping before it is asked for, so that none outlives its maker: in a file for the next
//!    start, and in a guard process that lives through the maker's death.
//! 6. [`verify`] says what a granted mapping is worth: granted is not reachable.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

pub mod driver;
pub mod epoch;
pub mod exchange;
pub mod gateway;
pub mod igd;
pub mod journal;
pub mod mapping;
pub mod natpmp;
pub mod pcp;
pub mod survey;
pub mod verify;

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest lease ever asked for, in seconds: what a crash can leave behind at worst.
pub const MAX_LEASE: u32 = 7200;

/// The port PCP and NAT-PMP gateways listen on.
pub const GATEWAY_PORT: u16 = 5351;

/// A way to ask for a mapping.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// Port Control Protocol (RFC 6887).
    Pcp,
    /// NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
    /// UPnP Internet Gateway Device, version 1 or 2.
    Igd,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Igd => "UPnP IGD",
        })
    }
}

/// The transport of a mapping.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP, protocol 6.
    Tcp,
    /// UDP, protocol 17.
    Udp,
}

impl Transport {
    /// The IANA protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// The transport with this IANA protocol number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}
