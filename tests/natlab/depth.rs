//! Facts beyond the core verdict: how long a mapping lives and what keeps it alive, and hairpins.

use std::time::Duration;

use fabric::netlab::kind::Kind;
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::foreign::{Needs, trial};
use crate::probe::{Rig, Run, Server};
use crate::wire::Weather;

pub(crate) fn trials() -> Vec<Trial> {
    let lab = &[Needs::Namespaces];
    let mut trials = Vec::new();
    for name in ["short-lifetime", "outbound-refresh"] {
        trials.push(trial(&format!("{name}_is_told_within_a_second_of_the_truth"), lab, move || lifetime(name)));
    }
    trials.push(trial("a_hairpin_is_found_where_there_is_one_and_only_there", lab, hairpin));
    trials
}

fn run(name: &str, flags: &[&str]) -> Result<Run, Failed> {
    let kind = Kind::named(name).ok_or("a known kind")?;
    let weather = Weather::round_trip(Duration::from_millis(20), 0.0);
    let rig = Rig::new(kind, weather, 1, &[Server::TwoAddresses])?;
    rig.probe(&[&["--no-port-map", "--no-tcp"], flags].concat())
}

fn fact(run: &Run, name: &str) -> Value {
    run.report.pointer(&format!("/ipv4/udp/facts/{name}/value")).cloned().unwrap_or_default()
}

fn lifetime(name: &str) -> Result<(), Failed> {
    let run = run(name, &["--lifetime=8s"])?;
    let told = fact(&run, "lifetime_seconds").as_f64().ok_or("a lifetime")?;
    assert!((told - 5.0).abs() <= 1.0, "{name}: {told} s");
    // Known behind a NAT that lets answers in late; what is not known is null and not a guess.
    assert_ne!(fact(&run, "refreshed_by_outgoing"), Value::Bool(false), "{name}");
    let inbound = name == "short-lifetime";
    assert_ne!(fact(&run, "refreshed_by_incoming"), Value::Bool(!inbound), "{name}");
    let took = run.number("/elapsed_ms").ok_or("a duration")? / 1000.0;
    println!(
        "{name}: {told} s told after {took:.2} s; refreshed from inside {}, from outside {}",
        fact(&run, "refreshed_by_outgoing"),
        fact(&run, "refreshed_by_incoming")
    );
    // The lifetime and a second, beside the half second of the core verdict that comes first.
    assert!(took <= 6.5, "{name}: {took} s");
    Ok(())
}

/// Behind a symmetric NAT no endpoint could be reached by a hairpin, so nothing is claimed.
fn hairpin() -> Result<(), Failed> {
    for (name, expected) in [
        ("hairpin", Value::Bool(true)),
        ("port-restricted", Value::Bool(false)),
        ("full-cone", Value::Bool(false)),
        ("symmetric", Value::Null),
    ] {
        let run = run(name, &["--hairpin"])?;
        assert_eq!(fact(&run, "hairpin"), expected, "{name}");
    }
    Ok(())
}
