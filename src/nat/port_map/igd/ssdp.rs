//! The search: M-SEARCH out, one unicast answer back (UPnP Device Architecture 1.1 section 1.3).

use std::net::{IpAddr, SocketAddr};

use super::{Endpoint, UrlError, harmless};

/// The largest answer looked at, in bytes.
pub const MAX_LEN: usize = 2048;

/// The targets worth searching for. A version 2 device answers a search for version 1 as well.
pub const TARGETS: [&str; 3] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// An answer worth following.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// Where at the gateway the description is.
    pub description: Endpoint,
    /// The SERVER header, made harmless.
    pub server: String,
}

/// Why an answer is not followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AnswerError {
    /// Somebody else than the gateway answered.
    #[error("not from the gateway")]
    WrongSource,
    /// Not an answer to a search.
    #[error("not a search answer")]
    Malformed,
    /// LOCATION is missing or not followed.
    #[error("its LOCATION is not followed: {0}")]
    Location(#[from] UrlError),
}

/// The request for one target. `to` is the multicast group, or the gateway itself: then MX is left out, and the device
/// answers at once.
#[must_use]
pub fn request(to: SocketAddr, target: &str) -> String {
    let mx = if to.ip().is_multicast() { "MX: 1\r\n" } else { "" };
    let host = match to {
        SocketAddr::V4(to) => to.to_string(),
        SocketAddr::V6(to) => format!("[{}]:{}", to.ip(), to.port()),
    };
    format!("M-SEARCH * HTTP/1.1\r\nHOST: {host}\r\nMAN: \"ssdp:discover\"\r\n{mx}ST: {target}\r\n\r\n")
}

/// Reads one answer.
///
/// # Errors
/// An [`AnswerError`] that says why it is not followed.
pub fn answer(bytes: &[u8], from: IpAddr, gateway: IpAddr) -> Result<Found, AnswerError> {
    if from != gateway {
        return Err(AnswerError::WrongSource);
    }
    if bytes.len() > MAX_LEN {
        return Err(AnswerError::Malformed);
    }
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let mut status = lines.next().unwrap_or_default().split_ascii_whitespace();
    let is_http = status.next().is_some_and(|version| version.starts_with("HTTP/1."));
    if !is_http || status.next() != Some("200") {
        return Err(AnswerError::Malformed);
    }
    let (mut location, mut server, mut is_gateway_device) = (None, String::new(), false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match name.trim().to_ascii_lowercase().as_str() {
            "location" => location = location.or(Some(value.trim().to_owned())),
            "server" => server = harmless(value),
            "st" => is_gateway_device = value.contains("InternetGatewayDevice") || value.contains("Connection"),
            _ => {}
        }
    }
    if !is_gateway_device {
        return Err(AnswerError::Malformed);
    }
    let description = Endpoint::absolute(&location.ok_or(AnswerError::Malformed)?, gateway)?;
    Ok(Found { description, server })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 1));

    fn reply(location: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=120\r\nST: {}\r\nSERVER: Linux\x1b[31m UPnP/1.1 box/1\r\n\
             Location: {location}\r\n\r\n",
            TARGETS[0]
        )
    }

    #[test]
    fn an_answer_of_the_gateway_is_followed() {
        let found = answer(reply("http://192.168.1.1:5000/root.xml").as_bytes(), GATEWAY, GATEWAY).unwrap();
        assert_eq!(found.description, Endpoint { port: 5000, path: "/root.xml".to_owned() });
        assert_eq!(found.server, "Linux[31m UPnP/1.1 box/1");
    }

    #[test]
    fn n18_answers_of_or_towards_others_are_not_followed() {
        let honest = reply("http://192.168.1.1:5000/root.xml");
        let other = "192.168.1.66".parse().unwrap();
        assert_eq!(answer(honest.as_bytes(), other, GATEWAY), Err(AnswerError::WrongSource));
        let elsewhere = reply("http://192.168.1.66:5000/root.xml");
        assert_eq!(answer(elsewhere.as_bytes(), GATEWAY, GATEWAY), Err(AnswerError::Location(UrlError::Elsewhere)));
        for bad in ["HTTP/1.1 404 Not Found\r\n\r\n", "NOTIFY * HTTP/1.1\r\n\r\n", "", "HTTP/1.1 200 OK\r\n\r\n"] {
            assert_eq!(answer(bad.as_bytes(), GATEWAY, GATEWAY), Err(AnswerError::Malformed));
        }
    }

    #[test]
    fn only_a_multicast_search_asks_for_a_delay() {
        let multicast = request("239.255.255.250:1900".parse().unwrap(), TARGETS[0]);
        assert_eq!(
            multicast,
            "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\
             ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
        );
        assert!(!request("192.168.1.1:1900".parse().unwrap(), TARGETS[0]).contains("MX"));
        assert!(request("[ff02::c%3]:1900".parse().unwrap(), TARGETS[0]).contains("HOST: [ff02::c]:1900\r\n"));
    }

    proptest! {
        #[test]
        fn arbitrary_answers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = answer(&bytes, GATEWAY, GATEWAY);
            let _ = answer(&[b"HTTP/1.1 200 OK\r\n", bytes.as_slice()].concat(), GATEWAY, GATEWAY);
        }
    }
}
