//! One mapping: what is wished for, what must be remembered to undo it, and how it ends.
//!
//! ```text
//!  Wish --> Record (journaled) --> asked --> Mapping --> renewed --> removed (journaled)
//!                                    |                                  ^
//!                                    +--- no answer: undone all the same+
//! ```

pub mod driver;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::igd::driver::ControlError;
use super::igd::{Connection, Endpoint};
use super::survey::Route;
use super::{MAX_LEASE, Protocol, Transport, natpmp, pcp};

/// What is wished for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wish {
    /// In which protocol to ask.
    pub protocol: Protocol,
    /// The transport.
    pub transport: Transport,
    /// The port on this host.
    pub internal_port: u16,
    /// The outer port; 0 takes the internal one where it is free and any other where it is not.
    pub external_port: u16,
    /// The lease in seconds, at most [`MAX_LEASE`]. 0 is never asked for unless the gateway accepts nothing else.
    pub lease: u32,
}

impl Wish {
    /// A mapping that is only there to be tested. Thirty seconds is the shortest lease gateways are known to keep: one
    /// that grants more says so.
    #[must_use]
    pub const fn short(protocol: Protocol, transport: Transport, internal_port: u16) -> Self {
        Self { protocol, transport, internal_port, external_port: 0, lease: 30 }
    }

    /// The lease as it is asked for: never 0, never more than [`MAX_LEASE`].
    #[must_use]
    pub const fn bounded_lease(&self) -> u32 {
        if self.lease == 0 || self.lease > MAX_LEASE { MAX_LEASE } else { self.lease }
    }
}

/// What makes a mapping ours, by protocol.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Claim {
    /// PCP: the nonce, and the UDP port of the server.
    Pcp {
        /// The nonce.
        nonce: pcp::Nonce,
        /// The UDP port of the server.
        port: u16,
        /// The control point of the same router's IGD, where it has one: another way to the same table.
        igd: Option<Connection>,
    },
    /// NAT-PMP: the internal port alone, and the UDP port of the gateway.
    NatPmp {
        /// The UDP port of the gateway.
        port: u16,
    },
    /// IGD: the control point; the record's ID is in the mapping's description.
    Igd(Connection),
    /// An IPv6 pinhole.
    Pinhole {
        /// The control point.
        firewall: Endpoint,
        /// Its ID, once it is known.
        id: Option<u16>,
    },
}

impl Claim {
    /// The protocol of the claim.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        match self {
            Self::Pcp { .. } => Protocol::Pcp,
            Self::NatPmp { .. } => Protocol::NatPmp,
            Self::Igd(_) | Self::Pinhole { .. } => Protocol::Igd,
        }
    }
}

/// Everything it takes to undo a mapping, written down before it is asked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// A random number that names it.
    pub id: u64,
    /// What makes it ours.
    pub claim: Claim,
    /// The gateway and this host's address.
    pub route: Route,
    /// The transport.
    pub transport: Transport,
    /// The port on this host.
    pub internal_port: u16,
    /// The outer port: the wish until it is granted.
    pub external_port: u16,
    /// The lease in seconds; 0 is without end.
    pub lease: u32,
    /// When it was asked for or renewed, in seconds since 1970.
    pub asked_at: u64,
    /// Whether the gateway granted it.
    pub granted: bool,
}

impl Record {
    /// Whether the lease ran out by itself: `now` in seconds since 1970. A minute of slack covers the gateway's clock.
    #[must_use]
    pub const fn has_expired(&self, now: u64) -> bool {
        self.lease != 0 && now > self.asked_at.saturating_add(self.lease as u64).saturating_add(60)
    }

    /// The host's end of the mapping.
    #[must_use]
    pub const fn internal(&self) -> SocketAddr {
        SocketAddr::new(self.route.local, self.internal_port)
    }

    /// What stands in the description field of an IGD mapping, so that it is known again.
    #[must_use]
    pub fn description(&self) -> String {
        format!("nzc {:016x}", self.id)
    }
}

/// What the gateway granted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Grant {
    /// The outer address and port, as the gateway tells it. `None` where it does not tell its address.
    pub external: Option<SocketAddr>,
    /// The outer port.
    pub external_port: u16,
    /// The lease in seconds; 0 is without end.
    pub lease: u32,
    /// Whether the gateway restarted since it was first asked, so that older mappings are gone.
    pub restarted: bool,
}

/// How a mapping ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Removal {
    /// The gateway says that it removed it.
    Removed,
    /// The gateway says that there is none.
    AlreadyGone,
    /// The gateway would not remove it; it goes with its lease.
    LeftToExpire {
        /// The whole lease in seconds.
        lease: u32,
    },
}

/// Why there is no mapping.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The survey did not find this protocol.
    #[error("{0} was not found at the gateway")]
    NotOffered(Protocol),
    /// PCP said no.
    #[error("PCP: {0:?}")]
    Pcp(pcp::ResultCode),
    /// NAT-PMP said no.
    #[error("NAT-PMP: {0:?}")]
    NatPmp(natpmp::ResultCode),
    /// IGD said no.
    #[error("UPnP IGD: {0}")]
    Igd(#[from] ControlError),
    /// No acceptable answer.
    #[error("the gateway did not answer")]
    Silent,
    /// A success that makes no sense.
    #[error("the gateway granted {0}")]
    GatewayMisbehaved(&'static str),
    /// The record could not be kept, so nothing was asked for.
    #[error("the mapping could not be journaled")]
    Journal(#[source] std::io::Error),
    /// A socket failed.
    #[error("socket")]
    Io(#[from] std::io::Error),
}

impl MapError {
    /// Whether the gateway said no, as opposed to nothing that could be used.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        match self {
            Self::Pcp(_) | Self::NatPmp(_) => true,
            Self::Igd(error) => !matches!(error, ControlError::Unusable(_)),
            _ => false,
        }
    }
}

/// Checks what a gateway granted.
///
/// # Errors
/// [`MapError::GatewayMisbehaved`] for port 0, an unspecified address or a lease of 0 where one was asked for.
pub fn granted(external: SocketAddr, lease: u32, restarted: bool) -> Result<Grant, MapError> {
    if external.port() == 0 {
        return Err(MapError::GatewayMisbehaved("port 0"));
    }
    if lease == 0 {
        return Err(MapError::GatewayMisbehaved("a lease of 0 s"));
    }
    let is_told = !external.ip().is_unspecified() && !external.ip().is_multicast();
    Ok(Grant { external: is_told.then_some(external), external_port: external.port(), lease, restarted })
}

/// When to renew a lease, in seconds from its start: at its half (RFC 6887 section 11.2.1), and no later than in a day
/// whatever the gateway claims. `None` for one without end.
#[must_use]
pub const fn renew_after(lease: u32) -> Option<u32> {
    match lease {
        0 => None,
        1..=2 => Some(1),
        3..=172_800 => Some(lease / 2),
        _ => Some(86_400),
    }
}

/// The outer address a mapping of `local` gets where the gateway does not translate: itself.
#[must_use]
pub const fn untranslated(local: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(local, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n17_a_lease_is_bounded_and_never_without_end() {
        let wish = |lease| Wish { lease, ..Wish::short(Protocol::Pcp, Transport::Udp, 1) }.bounded_lease();
        assert_eq!([0, 1, 30, 7200, 7201, u32::MAX].map(wish), [7200, 1, 30, 7200, 7200, 7200]);
        assert!(wish(30) != 0);
    }

    #[test]
    fn n22_what_the_gateway_claims_is_checked_before_it_is_used() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(granted(at("11.0.0.1:0"), 30, false).is_err());
        assert!(granted(at("11.0.0.1:1"), 0, false).is_err());
        assert_eq!(granted(at("0.0.0.0:1"), 30, false).unwrap().external, None);
        assert_eq!(granted(at("11.0.0.1:1"), u32::MAX, false).unwrap().lease, u32::MAX);
        assert_eq!(
            [0, 1, 2, 3, 7200, u32::MAX].map(renew_after),
            [None, Some(1), Some(1), Some(1), Some(3600), Some(86_400)]
        );
    }

    #[test]
    fn a_record_expires_with_its_lease_and_never_without_one() {
        let record = |lease, asked_at| Record {
            id: 0xAB,
            claim: Claim::NatPmp { port: 5351 },
            route: Route { gateway: [192, 168, 1, 1].into(), scope_id: 0, local: [192, 168, 1, 7].into() },
            transport: Transport::Tcp,
            internal_port: 1,
            external_port: 1,
            lease,
            asked_at,
            granted: true,
        };
        assert!(!record(30, 1000).has_expired(1090) && record(30, 1000).has_expired(1091));
        assert!(!record(0, 1000).has_expired(u64::MAX));
        assert!(!record(u32::MAX, u64::MAX).has_expired(u64::MAX));
        assert!(!record(30, 1000).has_expired(0), "a clock that was set back proves nothing");
        assert_eq!(record(1, 1).description(), "nzc 00000000000000ab");
    }
}
