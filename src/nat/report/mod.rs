//! The report of a diagnosis: what `nzc nat-probe --json` prints, in a schema with a version.
//!
//! The shape is the same whatever was found: both families, both transports, every fact. What was not found out is
//! *unknown* and says why. `configs/schema/nat-probe.v1.json` describes it; a field is only ever added within a version.

mod assemble;
mod redact;
mod router;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::behaviour::{Class, Dependence, Fact};
use super::client::PacketRecord;
use super::outlook::{Front, Prospect};

pub use assemble::{Contrast, family, finish, nat64, unprobed};
pub use redact::redact;
pub use router::{Outcome, Tried, any_opens, port_mapping};

/// The version of the schema.
pub const SCHEMA_VERSION: u32 = 1;

/// A behaviour in the report: one of RFC 4787's, or unknown.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Behaviour {
    /// Endpoint-independent.
    EndpointIndependent,
    /// Address-dependent.
    AddressDependent,
    /// Address-and-port-dependent.
    AddressAndPortDependent,
    /// Not found out; the fact of the same name says why.
    #[default]
    Unknown,
}

impl From<Option<Dependence>> for Behaviour {
    fn from(value: Option<Dependence>) -> Self {
        match value {
            Some(Dependence::EndpointIndependent) => Self::EndpointIndependent,
            Some(Dependence::AddressDependent) => Self::AddressDependent,
            Some(Dependence::AddressAndPortDependent) => Self::AddressAndPortDependent,
            None => Self::Unknown,
        }
    }
}

impl Behaviour {
    /// The word in the report.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EndpointIndependent => Dependence::EndpointIndependent.as_str(),
            Self::AddressDependent => Dependence::AddressDependent.as_str(),
            Self::AddressAndPortDependent => Dependence::AddressAndPortDependent.as_str(),
            Self::Unknown => "unknown",
        }
    }
}

/// What the diagnosis as a whole came to, which is also how the process ends.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// What can be known with these servers is known.
    Diagnosed,
    /// Servers contradict each other, or loss left too little to decide by.
    Inconclusive,
    /// No server could be reached.
    Blocked,
}

/// One server and what became of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ServerReport {
    /// The name or address it was configured by.
    pub name: String,
    /// The address that was asked.
    pub address: SocketAddr,
    /// Whether it answered over UDP.
    pub answered: bool,
    /// Its second address and port (RFC 5780), where it has one that was believed.
    pub alternate: Option<SocketAddr>,
    /// Round trip over UDP in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// What is peculiar about it.
    pub note: Option<String>,
}

/// What one transport cost.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Cost {
    /// Datagrams sent.
    pub sent: u32,
    /// Datagrams accepted.
    pub received: u32,
    /// UDP payload sent, in bytes.
    pub sent_bytes: u64,
    /// UDP payload accepted, in bytes.
    pub received_bytes: u64,
    /// Datagrams that did not belong to any question: forged, stale or not STUN.
    pub rejected: u32,
    /// Local sockets opened.
    pub sockets: u32,
}

/// One transport of one family.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct TransportReport {
    /// The old name that follows from the facts.
    pub class: Class,
    /// Whether addresses or ports are translated; `null` where unknown.
    pub nat: Option<bool>,
    /// Mapping behaviour.
    pub mapping: Behaviour,
    /// Filtering behaviour.
    pub filtering: Behaviour,
    /// A local address and port.
    pub local: Option<SocketAddr>,
    /// How that was seen from outside.
    pub mapped: Option<SocketAddr>,
    /// When the core verdict stood, in milliseconds.
    pub core_ms: Option<f64>,
    /// When everything was done, in milliseconds.
    pub elapsed_ms: Option<f64>,
    /// What it cost.
    pub cost: Cost,
    /// Every fact by name.
    pub facts: BTreeMap<String, Fact<Value>>,
    /// The packets behind the facts, where asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packets: Vec<PacketRecord>,
}

impl TransportReport {
    /// Adds a fact.
    pub fn add<T: Serialize>(&mut self, name: &str, fact: Fact<T>) {
        let value = fact.value.and_then(|value| serde_json::to_value(value).ok());
        self.facts.insert(name.to_owned(), Fact { value, because: fact.because, packets: fact.packets });
    }
}

/// One address family.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct FamilyReport {
    /// Whether there was anybody to ask and an address to ask from.
    pub probed: bool,
    /// Why not, where not.
    pub because: Option<String>,
    /// The gateway, where there is one.
    pub gateway: Option<IpAddr>,
    /// UDP.
    pub udp: TransportReport,
    /// TCP.
    pub tcp: TransportReport,
    /// Facts about the way out as a whole: carrier-grade and double NAT, NAT64.
    pub facts: BTreeMap<String, Fact<Value>>,
    /// The servers.
    pub servers: Vec<ServerReport>,
    /// What is in front of this host for the outlook, where enough is known.
    pub front: Option<Front>,
    /// How this host meets each kind of peer over UDP.
    pub outlook: Vec<Prospect>,
    /// What a person could change.
    pub advice: Vec<String>,
}

impl FamilyReport {
    /// Adds a fact.
    pub fn add<T: Serialize>(&mut self, name: &str, fact: Fact<T>) {
        let value = fact.value.and_then(|value| serde_json::to_value(value).ok());
        self.facts.insert(name.to_owned(), Fact { value, because: fact.because, packets: fact.packets });
    }
}

/// One port-mapping protocol of the router.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PortMappingReport {
    /// `pcp`, `nat-pmp` or `upnp-igd`.
    pub protocol: String,
    /// The family it was asked in: `ipv4` or `ipv6`.
    pub family: String,
    /// Whether the gateway answers in it; `null` where it could not be asked.
    pub answered: Option<bool>,
    /// Whether it would map.
    pub usable: Option<bool>,
    /// The external address it tells.
    pub external: Option<IpAddr>,
    /// The model it names, made harmless.
    pub model: Option<String>,
    /// Whether a mapping it granted let a stranger in.
    pub opens: Fact<bool>,
    /// What was sent and heard.
    pub steps: Vec<String>,
}

/// The whole report.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What this is: `nzc nat-probe` and its version.
    pub program: String,
    /// The end of it all.
    pub verdict: Verdict,
    /// One sentence for a person.
    pub summary: String,
    /// From the first packet to the last, in milliseconds.
    pub elapsed_ms: f64,
    /// IPv4.
    pub ipv4: FamilyReport,
    /// IPv6. Never merged with IPv4.
    pub ipv6: FamilyReport,
    /// The port-mapping protocols of the router.
    pub port_mapping: Vec<PortMappingReport>,
}
