//! `nzc <role> status`: asks the admin listener of the running process.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use fabric::ops::{config::Settings, logging::harmless};
use serde_json::Value;

use super::{AdminAddress, Loader};
use crate::{exit::Exit, output};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1024 * 1024;

/// Prints the status as a table or as the JSON it came in. Only the address is taken from the settings: whoever asks need
/// not be able to read the keys and certificates of the one that is asked.
pub(super) fn run<S: Settings>(loader: &Loader, admin: impl FnOnce(&S) -> AdminAddress) -> Exit {
    let address = match loader.load::<S>(|_, _| {}) {
        Ok((_, resolved)) => admin(&resolved.settings).address(),
        Err(problems) => return loader.refuse(&problems),
    };
    let Some(address) = address else {
        output::complain("the admin listener is off, so there is nobody to ask");
        return Exit::Unavailable;
    };
    let status = match fetch(reachable(address)) {
        Ok(status) => status,
        Err(error) => {
            output::complain(format_args!("no status from {address}: {error}"));
            return Exit::Unavailable;
        }
    };
    let shown = if loader.json() { output::json(&status) } else { output::data(&table(&status)) };
    match status.pointer("/health/ok").and_then(Value::as_bool) {
        Some(true) => shown,
        _ => Exit::Unavailable,
    }
}

/// A listener on all addresses is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn fetch(address: SocketAddr) -> io::Result<Value> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /v1/status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "that is not the admin listener of nzc");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(strange)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(strange());
    }
    serde_json::from_str(body).map_err(|_| strange())
}

fn table(status: &Value) -> String {
    let text = |pointer: &str| match status.pointer(pointer) {
        Some(Value::String(text)) => harmless(text, false),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => harmless(&other.to_string(), false),
    };
    let list = |pointer: &str| status.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut out = String::new();
    let mut row = |name: &str, value: &str| out.push_str(&format!("{name:<14} {value}\n"));
    row("role", &format!("{} {} (pid {})", text("/role"), text("/version"), text("/pid")));
    let ready = status.pointer("/health/ok") == Some(&Value::Bool(true));
    row("state", &format!("{}, {}", text("/health/phase"), if ready { "ready" } else { "not ready" }));
    row("uptime", &format!("{} s", text("/uptime_seconds")));
    for listener in list("/listeners") {
        let field = |name: &str| harmless(listener[name].as_str().unwrap_or("-"), false);
        row("listener", &format!("{} {} ({})", field("transport"), field("address"), field("key")));
    }
    for check in list("/health/checks").iter().filter(|check| check["ok"] != true) {
        let field = |name: &str| harmless(check[name].as_str().unwrap_or("-"), false);
        row("failing", &format!("{}: {}", field("name"), field("detail")));
    }
    row("configuration", &format!("{} (digest {})", text("/configuration/file"), text("/configuration/digest")));
    if status.pointer("/configuration/reload_error").is_some_and(|error| !error.is_null()) {
        row("reload failed", &text("/configuration/reload_error"));
    }
    let waiting = list("/configuration/restart_needed");
    if !waiting.is_empty() {
        let keys: Vec<_> = waiting.iter().filter_map(Value::as_str).map(|key| harmless(key, false)).collect();
        row("after restart", &keys.join(", "));
    }
    out
}
