//! Who a request says it is for. A web page that rebinds its own name to this address still sends its own name, so a
//! name nobody configured is refused (DNS rebinding).

use std::net::IpAddr;

/// Whether `host`, the value of the Host header, names this listener. `local` is the address the connection came in on.
pub(super) fn is_ours(host: &str, local: IpAddr, configured: &[String]) -> bool {
    let Some(name) = name_of(host) else { return false };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return ip.to_canonical() == local.to_canonical() || (ip.is_loopback() && local.to_canonical().is_loopback());
    }
    name.eq_ignore_ascii_case("localhost") || configured.iter().any(|host| host.eq_ignore_ascii_case(name))
}

/// The part before the port, where host and port are well-formed.
fn name_of(host: &str) -> Option<&str> {
    let end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, port) = host.split_at_checked(end)?;
    let port_is_sound = match port.strip_prefix(':') {
        Some(digits) => digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    (port_is_sound && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n12_only_names_of_this_listener_are_served() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let public: IpAddr = "192.0.2.7".parse().unwrap();
        let configured = ["probe.example".to_owned()];
        for ours in [
            "127.0.0.1:9033",
            "127.0.0.1",
            "localhost:9033",
            "LOCALHOST",
            "[::1]:9033",
            "127.0.0.1:80",
            "probe.example:1",
        ] {
            assert!(is_ours(ours, loopback, &configured), "{ours}");
        }
        assert!(is_ours("192.0.2.7:9033", public, &[]));
        assert!(!is_ours("127.0.0.1:9033", public, &[]));
        for foreign in [
            "evil.example",
            "evil.example:9033",
            "127.0.0.1.evil.example",
            "localhost.evil.example:9033",
            "192.0.2.7:9033",
            "[2001:db8::1]:9033",
            "0.0.0.0:9033",
            "127.0.0.1:9033:9033",
            "127.0.0.1@evil.example",
            "",
            ":9033",
            "[::1",
        ] {
            assert!(!is_ours(foreign, loopback, &configured), "{foreign}");
        }
    }
}
