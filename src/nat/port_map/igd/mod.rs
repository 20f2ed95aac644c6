//! UPnP Internet Gateway Device, versions 1 and 2, as far as a careful client needs it.
//!
//! Whoever is on the LAN may answer a search and point anywhere. So:
//!
//! 1. [`ssdp`] believes only an answer that comes from the default gateway and points back at it.
//! 2. The description is fetched from the gateway's own address, over plain HTTP/1.1, at most [`MAX_DOCUMENT`] bytes, and
//!    a redirect is an error.
//! 3. [`description`] refuses document type declarations, so there are no entities to expand, and bounds depth and names.
//! 4. Control URLs keep their port and path only; [`driver`] hands them to `igd-next` with an HTTP client that cannot
//!    connect to anybody but the gateway.

pub mod description;
pub mod driver;
pub mod ssdp;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The largest document accepted from a gateway, in bytes.
pub const MAX_DOCUMENT: usize = 64 * 1024;

/// The longest text shown of what a device says of itself, in characters.
const MAX_TEXT: usize = 64;

/// What a gateway device said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IgdFacts {
    /// Maker, model and friendly name, made harmless.
    pub device: Device,
    /// The control points for mappings, in the order of the description. The first one that answered is first.
    pub connections: Vec<Connection>,
    /// The control point for IPv6 pinholes (WANIPv6FirewallControl:1).
    pub firewall: Option<Endpoint>,
    /// The external address, where it told one that is not 0.0.0.0.
    pub external: Option<IpAddr>,
    /// Over IPv6: whether the firewall is on and lets this host open pinholes.
    pub pinholes: Option<PinholePolicy>,
    /// Whether the gateway was asked over IPv6, where only pinholes make sense.
    pub over_ipv6: bool,
}

impl IgdFacts {
    /// Whether a mapping, or over IPv6 a pinhole, may be asked for.
    #[must_use]
    pub fn can_map(&self) -> bool {
        if self.over_ipv6 {
            self.firewall.is_some() && self.pinholes.is_some_and(|policy| policy.allowed)
        } else {
            !self.connections.is_empty()
        }
    }
}

/// What a device says of itself, free of control characters.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Device {
    /// `friendlyName`.
    pub name: String,
    /// `manufacturer`.
    pub manufacturer: String,
    /// `modelName` and `modelNumber`.
    pub model: String,
    /// The SERVER header of its search answer.
    pub server: String,
    /// Version of InternetGatewayDevice: 1 or 2; 0 where it did not say.
    pub version: u8,
}

/// A WAN connection service.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// Its kind.
    pub kind: ConnectionKind,
    /// Where it is controlled.
    pub control: Endpoint,
}

/// The services that make port mappings.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionKind {
    /// `WANIPConnection:1`.
    Ip1,
    /// `WANIPConnection:2`.
    Ip2,
    /// `WANPPPConnection:1`.
    Ppp1,
}

impl ConnectionKind {
    /// The service type, as SOAP wants it.
    #[must_use]
    pub const fn service_type(self) -> &'static str {
        match self {
            Self::Ip1 => "urn:schemas-upnp-org:service:WANIPConnection:1",
            Self::Ip2 => "urn:schemas-upnp-org:service:WANIPConnection:2",
            Self::Ppp1 => "urn:schemas-upnp-org:service:WANPPPConnection:1",
        }
    }

    /// The kind with this service type.
    #[must_use]
    pub fn from_service_type(text: &str) -> Option<Self> {
        [Self::Ip1, Self::Ip2, Self::Ppp1].into_iter().find(|kind| kind.service_type() == text)
    }
}

/// What GetFirewallStatus said.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PinholePolicy {
    /// Whether the firewall is on.
    pub firewall_on: bool,
    /// Whether hosts may open pinholes.
    pub allowed: bool,
}

/// A place at the gateway: its address is never part of what a document may choose.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The TCP port.
    pub port: u16,
    /// Path and query, beginning with one slash.
    pub path: String,
}

/// Why a URL is not followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UrlError {
    /// Not `http://` with a literal address, or not a path.
    #[error("not a plain http URL with a literal address")]
    Form,
    /// It names another host than the gateway.
    #[error("it points at another host than the gateway")]
    Elsewhere,
}

impl Endpoint {
    /// Reads an absolute URL that must name the gateway.
    ///
    /// An IPv4 gateway must be named by the address it was asked at. An IPv6 router has several addresses and is asked at
    /// a link-local one, which a URL cannot carry: there any literal IPv6 address passes, and only port and path are used.
    ///
    /// # Errors
    /// A [`UrlError`] that says why not.
    pub fn absolute(url: &str, gateway: IpAddr) -> Result<Self, UrlError> {
        let rest = url.trim().strip_prefix("http://").ok_or(UrlError::Form)?;
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(at).ok_or(UrlError::Form)?;
        let (ip, port) = match authority.parse::<std::net::SocketAddr>() {
            Ok(address) => (address.ip(), address.port()),
            Err(_) => {
                let bare = authority.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(authority);
                (bare.parse().map_err(|_| UrlError::Form)?, 80)
            }
        };
        let is_gateway = match gateway {
            IpAddr::V4(_) => ip == gateway,
            IpAddr::V6(_) => ip.is_ipv6(),
        };
        if !is_gateway {
            return Err(UrlError::Elsewhere);
        }
        Self::new(port, if path.is_empty() { "/" } else { path })
    }

    /// Reads a URL from a document that was found at `self`.
    ///
    /// # Errors
    /// A [`UrlError`] that says why not.
    pub fn join(&self, reference: &str, gateway: IpAddr) -> Result<Self, UrlError> {
        let reference = reference.trim();
        if reference.is_empty() {
            return Err(UrlError::Form);
        }
        if reference.contains("://") {
            return Self::absolute(reference, gateway);
        }
        if reference.starts_with('/') {
            return Self::new(self.port, reference);
        }
        let directory = self.path.rsplit_once('/').map_or("", |(directory, _)| directory);
        Self::new(self.port, &format!("{directory}/{reference}"))
    }

    fn new(port: u16, path: &str) -> Result<Self, UrlError> {
        let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#' | b'"' | b'<'));
        if port == 0 || !path.starts_with('/') || path.starts_with("//") || path.len() > 1024 || !is_plain {
            return Err(UrlError::Form);
        }
        Ok(Self { port, path: path.to_owned() })
    }
}

/// What a device said, fit for a terminal: no control, formatting or direction characters, blanks collapsed, 64
/// characters at most.
#[must_use]
pub fn harmless(text: &str) -> String {
    let is_shown = |c: &char| {
        !c.is_control()
            && !matches!(*c, '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF0}'..='\u{FFFB}' | '\u{E0000}'..='\u{E0FFF}')
    };
    let mut shown = String::new();
    for word in text.split_whitespace() {
        let word: String = word.chars().filter(is_shown).collect();
        if !word.is_empty() {
            if !shown.is_empty() {
                shown.push(' ');
            }
            shown.push_str(&word);
        }
        if shown.chars().count() >= MAX_TEXT {
            break;
        }
    }
    shown.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]
        #[test]
        fn p6_no_control_byte_of_a_device_reaches_the_terminal(text in "(\\PC|\\p{C}|\\x1b\\[[0-9;]*m|[\\r\\n\\t\\x07\\u{9b}\\u{202e}])*") {
            let shown = harmless(&text);
            prop_assert!(shown.chars().count() <= MAX_TEXT);
            prop_assert!(!shown.chars().any(char::is_control), "{shown:?}");
            prop_assert!(!shown.bytes().any(|byte| byte < 0x20 || byte == 0x7F));
        }

        #[test]
        fn arbitrary_urls_never_panic_and_never_leave_the_gateway(url in ".*", base in "/[a-z/]{0,9}") {
            let gateway: IpAddr = "192.168.1.1".parse().unwrap();
            let base = Endpoint::new(80, &base).unwrap_or(Endpoint { port: 80, path: "/".to_owned() });
            for endpoint in [Endpoint::absolute(&url, gateway), base.join(&url, gateway)].into_iter().flatten() {
                prop_assert!(endpoint.path.starts_with('/') && !endpoint.path.starts_with("//"));
            }
        }
    }

    #[test]
    fn n18_a_url_may_choose_port_and_path_but_not_the_host() {
        let gateway: IpAddr = "192.168.1.1".parse().unwrap();
        let at = |port, path: &str| Ok(Endpoint { port, path: path.to_owned() });
        let base = Endpoint { port: 5000, path: "/a/root.xml".to_owned() };
        assert_eq!(Endpoint::absolute("http://192.168.1.1:5000/a/root.xml", gateway), at(5000, "/a/root.xml"));
        assert_eq!(Endpoint::absolute("http://192.168.1.1", gateway), at(80, "/"));
        assert_eq!(base.join("/ctl/IPConn", gateway), at(5000, "/ctl/IPConn"));
        assert_eq!(base.join("ctl?x=1", gateway), at(5000, "/a/ctl?x=1"));
        assert_eq!(base.join("http://192.168.1.1:49152/ctl", gateway), at(49152, "/ctl"));
        for url in
            ["http://192.168.1.2/", "http://127.0.0.1:22/", "http://169.254.169.254/latest", "http://3232235777.1/"]
        {
            assert!(Endpoint::absolute(url, gateway).is_err(), "{url}");
            assert!(base.join(url, gateway).is_err(), "{url}");
        }
        for url in [
            "https://192.168.1.1/",
            "ftp://192.168.1.1/",
            "file:///etc/passwd",
            "http://router/",
            "http://@192.168.1.1/",
            "http://u:p@192.168.1.1/",
            "http://192.168.1.1:0/",
            "http://192.168.1.1@10.0.0.1/",
            "http://[::1]/",
            "//10.0.0.1/",
            "/\\10.0.0.1/",
            "/a b",
            "/a\r\nHost: x",
            "",
            "http://192.168.1.1:99999/",
        ] {
            assert!(base.join(url, gateway).is_err(), "{url}");
        }
    }

    #[test]
    fn an_ipv6_router_may_name_any_of_its_addresses_but_no_name_and_no_ipv4() {
        let gateway: IpAddr = "fe80::1".parse().unwrap();
        let endpoint = Endpoint::absolute("http://[2a00:11::1]:5000/r.xml", gateway).unwrap();
        assert_eq!((endpoint.port, endpoint.path.as_str()), (5000, "/r.xml"));
        assert_eq!(Endpoint::absolute("http://[2a00:11::1]/", gateway).unwrap().port, 80);
        assert!(Endpoint::absolute("http://10.0.0.1/", gateway).is_err());
        assert!(Endpoint::absolute("http://router/", gateway).is_err());
    }
}
