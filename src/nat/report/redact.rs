//! Takes every address out of a text, so that it may be shown to strangers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Replaces every IPv4 and IPv6 address in `text`, and every word of `names`, by a placeholder. The same address gets
/// the same placeholder everywhere, so that one can still see which are equal; ports stay.
#[must_use]
pub fn redact(text: &str, names: &[String]) -> String {
    let mut known = BTreeMap::new();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = split_word(rest);
        if word.is_empty() {
            let mut characters = rest.chars();
            out.extend(characters.next());
            rest = characters.as_str();
            continue;
        }
        let (name, number) = (&mut known, names.iter().position(|name| name == word));
        match number {
            Some(number) => out.push_str(&format!("server-{}", number.saturating_add(1))),
            None => out.push_str(&without_address(word, name)),
        }
        rest = after;
    }
    out
}

/// A run of characters an address or a host name is made of, and what follows it.
fn split_word(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_' | '[' | ']' | '%' | '/')))
        .unwrap_or(text.len());
    text.split_at(end)
}

fn without_address(word: &str, known: &mut BTreeMap<IpAddr, usize>) -> String {
    // Signs around an address: of a sentence, of a list, of a URL.
    for (head, core, tail) in cuts(word) {
        if let Some((ip, port)) = read(core) {
            let next = known.len().saturating_add(1);
            let number = *known.entry(ip).or_insert(next);
            let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
            let port = port.map_or_else(String::new, |port| format!(":{port}"));
            let (head, tail) = (without_address(head, known), without_address(tail, known));
            return format!("{head}{family}-address-{number}{port}{tail}");
        }
    }
    word.to_owned()
}

/// Every way to take a word apart into what stands before, an address, and what stands after; the longest address first.
fn cuts(word: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let edges: Vec<usize> = word.char_indices().map(|(at, _)| at).chain([word.len()]).collect();
    let worth_it =
        word.len() <= 120 && word.contains(['.', ':']) && word.contains(|c: char| c.is_ascii_hexdigit() || c == ':');
    let edges = if worth_it { edges } else { Vec::new() };
    let lengths = (2..=edges.len().saturating_sub(1)).rev();
    lengths.flat_map(move |length| {
        let edges = edges.clone();
        (0..edges.len().saturating_sub(length)).filter_map(move |start| {
            let (from, to) = (*edges.get(start)?, *edges.get(start.checked_add(length)?)?);
            Some((word.get(..from)?, word.get(from..to)?, word.get(to..)?))
        })
    })
}

fn read(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip(), Some(address.port())));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let bare = bare.split('%').next().unwrap_or(bare);
    bare.parse().ok().map(|ip| (ip, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_and_ports_stay() {
        let text = "from 192.168.1.7:4000 as 12.0.0.1, [2001:db8::1]:53, fe80::1%eth0 and ::1; again 12.0.0.1.";
        assert_eq!(
            redact(text, &[]),
            "from ipv4-address-1:4000 as ipv4-address-2, ipv6-address-3:53, ipv6-address-4 and ipv6-address-5; again ipv4-address-2."
        );
    }

    #[test]
    fn addresses_inside_words_go_too() {
        for text in [
            "http://10.0.0.1:80/desc.xml",
            "ip=10.0.0.1",
            "\"10.0.0.1:3478\"",
            "(10.0.0.1)",
            "udp://[::1]:5",
            "x10.0.0.1y",
        ] {
            let redacted = redact(text, &[]);
            assert!(!redacted.contains("10.0.0.1") && !redacted.contains("::1"), "{redacted}");
        }
    }

    #[test]
    fn names_go_where_asked_and_other_words_stay() {
        let names = ["stun.example.org".to_owned(), "stun.example.org:3478".to_owned()];
        assert_eq!(
            redact("\"stun.example.org:3478\" took 20.5 ms at version 0.1.0", &names),
            "\"server-2\" took 20.5 ms at version 0.1.0"
        );
        assert_eq!(redact("endpoint-independent, 5 of 5: a, b", &[]), "endpoint-independent, 5 of 5: a, b");
    }
}
