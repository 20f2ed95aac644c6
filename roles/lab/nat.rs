//! The NAT probe behind a router of the lab, and the STUN server on the other side of it.

use std::time::{Duration, Instant};

use fabric::nat::behaviour::{Class, Dependence};
use fabric::netlab::kind::{Kind, Truth};
use fabric::netlab::router::{Filtering, Mapping, Restriction};
use fabric::netlab::world::{BuiltHome, Home, PORTAL, Plan, SERVERS_V4, SERVERS_V6, World};

use super::check::Checks;
use super::child::{self, Daemon, Place};

const PATIENCE: Duration = Duration::from_secs(10);

/// The kinds of router, a line each.
pub(crate) fn list() -> String {
    let width = Kind::ALL.iter().map(|kind| kind.name.len()).max().unwrap_or_default();
    Kind::ALL.iter().map(|kind| format!("{:width$}  {}\n", kind.name, kind.about)).collect()
}

/// The kinds of router as data.
pub(crate) fn list_json() -> serde_json::Value {
    let kind = |kind: &Kind| serde_json::json!({ "name": kind.name, "about": kind.about });
    serde_json::json!({ "kinds": Kind::ALL.iter().map(kind).collect::<Vec<_>>() })
}

/// Runs the scene inside a sandbox and returns the diagnosis as a person reads it.
pub(crate) async fn scene(checks: &mut Checks, kind: &'static Kind, wants_text: bool) -> String {
    let begun = Instant::now();
    let world = match World::build(&Plan::one(Home::of_kind(kind))) {
        Ok(world) => world,
        Err(error) => {
            checks.fail("the network comes up", error);
            return String::new();
        }
    };
    checks.milliseconds("the network comes up", true, begun.elapsed());
    let [home] = world.homes() else { return String::new() };
    // Processes end before the world they are in.
    let text = inhabited(checks, kind, &world, home, wants_text).await;
    let begun = Instant::now();
    drop(world);
    checks.milliseconds("the network goes down", true, begun.elapsed());
    text
}

async fn inhabited(
    checks: &mut Checks,
    kind: &'static Kind,
    world: &World,
    home: &BuiltHome,
    wants_text: bool,
) -> String {
    let begun = Instant::now();
    let server = match Daemon::start(Place::In(world.public()), &server_arguments(kind, home), PATIENCE).await {
        Ok(server) => server,
        Err(error) => {
            checks.fail("stun-server starts", format_args!("{error:#}"));
            return String::new();
        }
    };
    checks.milliseconds("stun-server starts", true, begun.elapsed());
    let text = diagnose(checks, kind, home, wants_text).await;
    let begun = Instant::now();
    match server.stop(PATIENCE).await {
        Ok(status) => checks.milliseconds("stun-server drains and stops", status.success(), begun.elapsed()),
        Err(error) => checks.fail("stun-server drains and stops", format_args!("{error:#}")),
    }
    text
}

fn server_arguments(kind: &Kind, home: &BuiltHome) -> Vec<String> {
    let mut arguments = ["stun-server", "--dial-back", "--log", "warn", "--ready-json"].map(str::to_owned).to_vec();
    let mut pair = |first: String, second: String| {
        arguments.extend(["--listen".to_owned(), first, "--alternate".to_owned(), second]);
    };
    let [first, second, ..] = SERVERS_V4;
    pair(format!("{first}:3478"), format!("{second}:3479"));
    if !home.hosts_v6.is_empty() {
        let [first, second, ..] = SERVERS_V6;
        pair(format!("[{first}]:3478"), format!("[{second}]:3479"));
    }
    // A second network, so that silence of both shows a blocked network and not a server that is down.
    arguments.extend(["--listen".to_owned(), elsewhere()]);
    // A captive portal sends every connection to a web server; the admin listener is one.
    let captive = kind.routers.iter().any(|router| router.restriction == Restriction::CaptivePortal);
    let admin = if captive { PORTAL.to_string() } else { "off".to_owned() };
    arguments.extend(["--admin".to_owned(), admin]);
    arguments
}

/// The server's address in another network.
fn elsewhere() -> String {
    let [_, _, third, _] = SERVERS_V4;
    format!("{third}:3478")
}

async fn diagnose(checks: &mut Checks, kind: &'static Kind, home: &BuiltHome, wants_text: bool) -> String {
    let [host, ..] = &*home.hosts else { return String::new() };
    let mut arguments = vec!["nat-probe".to_owned(), "--server".to_owned(), format!("{}:3478", SERVERS_V4[0])];
    if !home.hosts_v6.is_empty() {
        arguments.extend(["--server".to_owned(), format!("[{}]:3478", SERVERS_V6[0])]);
    }
    if !kind.truth().udp {
        arguments.extend(["--server".to_owned(), elsewhere()]);
    }
    let with_json = [&arguments[..], &["--json".to_owned()]].concat();
    let begun = Instant::now();
    let output = match child::run(Place::In(host), &with_json, PATIENCE).await {
        Ok(output) => output,
        Err(error) => {
            checks.fail("nat-probe runs", format_args!("{error:#}"));
            return String::new();
        }
    };
    let truth = kind.truth();
    // A network without UDP is reported as blocked.
    let expected = if truth.udp { 0 } else { 69 };
    checks.milliseconds("nat-probe diagnoses", output.status.code() == Some(expected), begun.elapsed());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    for (name, pointer, expected) in verdict(truth) {
        let seen = report.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or("missing");
        checks.word(name, &expected, seen);
    }
    if !wants_text {
        return String::new();
    }
    match child::run(Place::In(host), &arguments, PATIENCE).await {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(_) => String::new(),
    }
}

/// What the report must say: the name of the check, where it stands in the report, and the word.
fn verdict(truth: Truth) -> Vec<(&'static str, &'static str, String)> {
    let class = "/ipv4/udp/class";
    if !truth.udp {
        return vec![("udp class", class, Class::Blocked.to_string())];
    }
    let mapping = match truth.mapping {
        Mapping::EndpointIndependent | Mapping::Masquerade => Dependence::EndpointIndependent,
        Mapping::AddressDependent => Dependence::AddressDependent,
        Mapping::AddressAndPortDependent => Dependence::AddressAndPortDependent,
    };
    let filtering = match truth.filtering {
        Filtering::EndpointIndependent => Dependence::EndpointIndependent,
        Filtering::AddressDependent => Dependence::AddressDependent,
        Filtering::AddressAndPortDependent => Dependence::AddressAndPortDependent,
    };
    let name = Class::from_facts(Some(truth.translated), Some(mapping), Some(filtering));
    vec![
        ("udp mapping", "/ipv4/udp/mapping", mapping.to_string()),
        ("udp filtering", "/ipv4/udp/filtering", filtering.to_string()),
        ("udp class", class, name.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_verdict_and_an_old_name() {
        for kind in Kind::ALL {
            let verdict = verdict(kind.truth());
            assert!(!verdict.is_empty(), "{}", kind.name);
            assert!(verdict.iter().all(|(_, _, word)| word != "unknown"), "{}: {verdict:?}", kind.name);
        }
    }

    #[test]
    fn the_list_names_every_kind_once() {
        let list = list();
        assert_eq!(list.lines().count(), Kind::ALL.len());
        assert!(list.lines().any(|line| line.starts_with("symmetric ")));
    }
}
