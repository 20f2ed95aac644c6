//! The device description document (UPnP Device Architecture 1.1 section 2.3), read once and under limits.

use std::net::IpAddr;

use xml::reader::{EventReader, ParserConfig2, XmlEvent};

use super::{Connection, ConnectionKind, Device, Endpoint, MAX_DOCUMENT, harmless};

const MAX_DEPTH: usize = 32;
const MAX_SERVICES: usize = 64;
const FIREWALL: &str = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1";

/// What the document holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Description {
    /// The device, without its SERVER header.
    pub device: Device,
    /// Services for port mappings, in order.
    pub connections: Vec<Connection>,
    /// The service for IPv6 pinholes.
    pub firewall: Option<Endpoint>,
}

/// Why a document is not used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DocumentError {
    /// More than 64 KiB, or not text.
    #[error("larger than 64 KiB or not text")]
    Size,
    /// It has a document type declaration, the home of entity bombs.
    #[error("it declares a document type")]
    DocumentType,
    /// Not well-formed, too deep, or too many services.
    #[error("not a well-formed document of sane depth")]
    Malformed,
}

/// Checks what every document of a gateway must be before any parser sees it: text of at most 64 KiB without
/// declarations other than comments and CDATA.
///
/// # Errors
/// A [`DocumentError`] that says why not.
pub fn screen(bytes: &[u8]) -> Result<&str, DocumentError> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(DocumentError::Size);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| DocumentError::Size)?;
    // A zero byte would be a document in UTF-16, where the next check is blind.
    if text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\r' | '\n')) {
        return Err(DocumentError::Size);
    }
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("<!") {
        if !after.starts_with("--") && !after.starts_with("[CDATA[") {
            return Err(DocumentError::DocumentType);
        }
        rest = after;
    }
    Ok(text)
}

/// The text of the first element called `name` in a screened document, however deep.
#[must_use]
pub fn element_text(document: &str, name: &str) -> Option<String> {
    let mut collected: Option<String> = None;
    for event in reader(document) {
        match event.ok()? {
            XmlEvent::StartElement { name: found, .. } if found.local_name == name && collected.is_none() => {
                collected = Some(String::new());
            }
            XmlEvent::Characters(text) | XmlEvent::CData(text) => {
                if let Some(collected) = &mut collected {
                    collected.push_str(&text);
                }
            }
            XmlEvent::EndElement { name: found } if found.local_name == name => return collected,
            _ => {}
        }
    }
    None
}

/// Reads a description found at `at`.
///
/// # Errors
/// A [`DocumentError`] that says why not. Services whose URL leads elsewhere are left out.
pub fn read(bytes: &[u8], at: &Endpoint, gateway: IpAddr) -> Result<Description, DocumentError> {
    let text = screen(bytes)?;
    let mut found = Found::default();
    let mut path: Vec<String> = Vec::new();
    for event in reader(text) {
        match event.map_err(|_| DocumentError::Malformed)? {
            XmlEvent::StartElement { name, .. } => {
                if path.len() >= MAX_DEPTH {
                    return Err(DocumentError::Malformed);
                }
                path.push(name.local_name);
                found.text.clear();
                found.enter(&path)?;
            }
            XmlEvent::Characters(text) | XmlEvent::CData(text) => found.text.push_str(&text),
            XmlEvent::EndElement { .. } => {
                found.leave(&path);
                path.pop();
                found.text.clear();
            }
            _ => {}
        }
    }
    Ok(found.resolve(at, gateway))
}

fn reader(document: &str) -> EventReader<&[u8]> {
    let config = ParserConfig2::new()
        .max_attributes(16)
        .max_name_length(256)
        .max_attribute_length(1024)
        .max_data_length(MAX_DOCUMENT)
        .max_entity_expansion_depth(1)
        .max_entity_expansion_length(64);
    EventReader::new_with_config(document.as_bytes(), config)
}

#[derive(Default)]
struct Found {
    text: String,
    device: Device,
    base: Option<String>,
    services: Vec<(String, String)>,
}

impl Found {
    fn enter(&mut self, path: &[String]) -> Result<(), DocumentError> {
        if path.last().is_some_and(|name| name == "service") {
            if self.services.len() >= MAX_SERVICES {
                return Err(DocumentError::Malformed);
            }
            self.services.push((String::new(), String::new()));
        }
        Ok(())
    }

    fn leave(&mut self, path: &[String]) {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        let text = self.text.trim();
        match names.as_slice() {
            ["root", "URLBase"] if !text.is_empty() => self.base = Some(text.to_owned()),
            ["root", "device", "friendlyName"] => self.device.name = harmless(text),
            ["root", "device", "manufacturer"] => self.device.manufacturer = harmless(text),
            ["root", "device", "modelName"] => self.device.model = harmless(&format!("{text} {}", self.device.model)),
            ["root", "device", "modelNumber"] => self.device.model = harmless(&format!("{} {text}", self.device.model)),
            ["root", "device", "deviceType"] => {
                self.device.version = text
                    .strip_prefix("urn:schemas-upnp-org:device:InternetGatewayDevice:")
                    .and_then(|version| version.parse().ok())
                    .unwrap_or_default();
            }
            [.., "service", "serviceType"] => {
                if let Some((kind, _)) = self.services.last_mut() {
                    text.clone_into(kind);
                }
            }
            [.., "service", "controlURL"] => {
                if let Some((_, url)) = self.services.last_mut() {
                    text.clone_into(url);
                }
            }
            _ => {}
        }
    }

    fn resolve(self, at: &Endpoint, gateway: IpAddr) -> Description {
        let mut description = Description { device: self.device, ..Description::default() };
        let base = match self.base.map(|base| at.join(&base, gateway)) {
            None => at.clone(),
            Some(Ok(base)) => base,
            // Everything in such a document is meant to lead elsewhere.
            Some(Err(_)) => return description,
        };
        for (kind, url) in self.services {
            let Ok(control) = base.join(&url, gateway) else { continue };
            if let Some(kind) = ConnectionKind::from_service_type(&kind) {
                description.connections.push(Connection { kind, control });
            } else if kind == FIREWALL && description.firewall.is_none() {
                description.firewall = Some(control);
            }
        }
        description
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 1));

    fn at() -> Endpoint {
        Endpoint { port: 5000, path: "/dev/root.xml".to_owned() }
    }

    fn service(kind: &str, url: &str) -> String {
        format!(
            "<service><serviceType>{kind}</serviceType><SCPDURL>/x</SCPDURL><controlURL>{url}</controlURL></service>"
        )
    }

    fn document(services: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\"><!-- a box --><device>\
             <deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:2</deviceType>\
             <friendlyName>Box &amp; Co</friendlyName><manufacturer><![CDATA[Maker]]></manufacturer>\
             <modelName>Model</modelName><modelNumber>7</modelNumber>\
             <deviceList><device><modelName>inner</modelName><serviceList>{services}</serviceList></device></deviceList>\
             </device></root>"
        )
    }

    #[test]
    fn the_device_and_its_services_are_read() {
        let text = document(
            &[
                service("urn:schemas-upnp-org:service:Layer3Forwarding:1", "/l3"),
                service(ConnectionKind::Ip1.service_type(), "ctl/IPConn"),
                service(ConnectionKind::Ppp1.service_type(), "http://192.168.1.1:6000/ppp"),
                service(FIREWALL, "/fw"),
            ]
            .concat(),
        );
        let description = read(text.as_bytes(), &at(), GATEWAY).unwrap();
        let Device { name, manufacturer, model, version, .. } = &description.device;
        assert_eq!(
            (name.as_str(), manufacturer.as_str(), model.as_str(), *version),
            ("Box & Co", "Maker", "Model 7", 2)
        );
        let connections: Vec<_> =
            description.connections.iter().map(|c| (c.kind, c.control.port, c.control.path.as_str())).collect();
        assert_eq!(connections, [(ConnectionKind::Ip1, 5000, "/dev/ctl/IPConn"), (ConnectionKind::Ppp1, 6000, "/ppp")]);
        assert_eq!(description.firewall, Some(Endpoint { port: 5000, path: "/fw".to_owned() }));
    }

    #[test]
    fn n18_services_that_lead_elsewhere_are_left_out() {
        let kind = ConnectionKind::Ip1.service_type();
        for url in ["http://192.168.1.2/ctl", "//192.168.1.2/ctl", "https://192.168.1.1/ctl", "/\\192.168.1.2", ""] {
            let description = read(document(&service(kind, url)).as_bytes(), &at(), GATEWAY).unwrap();
            assert_eq!(description.connections, [], "{url}");
        }
    }

    #[test]
    fn n18_bombs_and_oversize_are_refused_before_a_parser_sees_them() {
        let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;\">]><root>&b;</root>";
        assert_eq!(screen(bomb.as_bytes()), Err(DocumentError::DocumentType));
        assert_eq!(screen(b"<!doctype x><root/>"), Err(DocumentError::DocumentType));
        let wide: Vec<u8> = bomb.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(screen(&wide), Err(DocumentError::Size));
        assert_eq!(screen(&vec![b' '; MAX_DOCUMENT + 1]), Err(DocumentError::Size));
        let deep = "<a>".repeat(1000);
        assert_eq!(read(deep.as_bytes(), &at(), GATEWAY), Err(DocumentError::Malformed));
        let crowd = document(&service("x", "/y").repeat(65));
        assert_eq!(read(crowd.as_bytes(), &at(), GATEWAY), Err(DocumentError::Malformed));
        let attributes: String = (0..200).map(|n| format!(" a{n}='x'")).collect();
        let many = format!("<root{attributes}/>");
        assert_eq!(read(many.as_bytes(), &at(), GATEWAY), Err(DocumentError::Malformed));
    }

    #[test]
    fn the_text_of_an_element_is_found() {
        assert_eq!(element_text("<s:a xmlns:s='x'><b>1<c/>2</b><b>3</b></s:a>", "b").as_deref(), Some("12"));
        assert_eq!(element_text("<a></a>", "b"), None);
        assert_eq!(element_text("<a><b>", "b"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_documents_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500), text in "(<|>|/|a|&|;|\"|=| |root|device|service){0,60}") {
            let _ = read(&bytes, &at(), GATEWAY);
            let _ = read(text.as_bytes(), &at(), GATEWAY);
            let _ = element_text(&text, "a");
        }
    }
}
