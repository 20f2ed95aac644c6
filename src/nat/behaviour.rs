//! The words a diagnosis is made of: RFC 4787 behaviours, the old names of RFC 3489, and facts with their evidence.

use serde::{Deserialize, Serialize};

/// What a mapping or a filter depends on (RFC 4787 sections 4.1 and 5).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dependence {
    /// On the inner endpoint alone.
    EndpointIndependent,
    /// On the inner endpoint and the address of the peer.
    AddressDependent,
    /// On the inner endpoint and both address and port of the peer.
    AddressAndPortDependent,
}

impl Dependence {
    /// The three behaviours, the most permissive first.
    pub const ALL: [Self; 3] = [Self::EndpointIndependent, Self::AddressDependent, Self::AddressAndPortDependent];

    /// The words of RFC 4787, hyphenated.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
        }
    }
}

impl std::fmt::Display for Dependence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The old names (RFC 3489 section 5), with the two cases that section calls "open" and "symmetric UDP firewall".
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Class {
    /// No translation, nothing filtered.
    #[serde(rename = "open")]
    Open,
    /// No translation, but unasked packets are dropped.
    #[serde(rename = "firewall")]
    Firewall,
    /// Endpoint-independent mapping and filtering.
    #[serde(rename = "full cone")]
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering.
    #[serde(rename = "restricted")]
    Restricted,
    /// Endpoint-independent mapping, address-and-port-dependent filtering.
    #[serde(rename = "port-restricted")]
    PortRestricted,
    /// Any mapping that depends on the peer.
    #[serde(rename = "symmetric")]
    Symmetric,
    /// Nothing gets through.
    #[serde(rename = "blocked")]
    Blocked,
    /// The facts do not decide it.
    #[default]
    #[serde(rename = "unknown")]
    Unknown,
}

impl Class {
    /// Derives the old name from the facts; [`Class::Unknown`] wherever a fact that matters is unknown.
    #[must_use]
    pub const fn from_facts(nat: Option<bool>, mapping: Option<Dependence>, filtering: Option<Dependence>) -> Self {
        match (nat, mapping, filtering) {
            (Some(true), Some(Dependence::AddressDependent | Dependence::AddressAndPortDependent), _) => {
                Self::Symmetric
            }
            (Some(false), Some(Dependence::EndpointIndependent), Some(filtering)) => match filtering {
                Dependence::EndpointIndependent => Self::Open,
                Dependence::AddressDependent | Dependence::AddressAndPortDependent => Self::Firewall,
            },
            (Some(true), Some(Dependence::EndpointIndependent), Some(filtering)) => match filtering {
                Dependence::EndpointIndependent => Self::FullCone,
                Dependence::AddressDependent => Self::Restricted,
                Dependence::AddressAndPortDependent => Self::PortRestricted,
            },
            _ => Self::Unknown,
        }
    }

    /// The name as the report writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Firewall => "firewall",
            Self::FullCone => "full cone",
            Self::Restricted => "restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::Blocked => "blocked",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Something a diagnosis claims: a value or *unknown*, why, and the numbers of the packets that show it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fact<T> {
    /// The value; `None` is *unknown*.
    pub value: Option<T>,
    /// One sentence: what was seen, or why it could not be known.
    pub because: String,
    /// Packets of the log that show it, by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packets: Vec<u32>,
}

impl<T> Fact<T> {
    /// A fact that was established.
    #[must_use]
    pub fn known(value: T, because: impl Into<String>, packets: Vec<u32>) -> Self {
        Self { value: Some(value), because: because.into(), packets }
    }

    /// A fact that could not be established.
    #[must_use]
    pub fn unknown(because: impl Into<String>) -> Self {
        Self { value: None, because: because.into(), packets: Vec::new() }
    }

    /// The same unknown fact with the packets that led nowhere.
    #[must_use]
    pub fn with_packets(mut self, packets: Vec<u32>) -> Self {
        self.packets = packets;
        self
    }
}

impl<T> Default for Fact<T> {
    fn default() -> Self {
        Self::unknown("not tested")
    }
}
