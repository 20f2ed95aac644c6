//! Facts beyond the core verdict: how long a mapping lives and what keeps it alive, and hairpins.

use std::time::{Duration, Instant};

use fabric::netlab::kind::Kind;
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::foreign::{Needs, trial};
use crate::probe::{Rig, Run, Server};
use crate::wire::Weather;

pub(crate) fn trials() -> Vec<Trial> {
    let lab = &[Needs::Namespaces];
    vec![
        trial("a_lifetime_is_told_within_a_second_of_the_truth", lab, lifetimes),
        trial("a_hairpin_is_found_where_there_is_one_and_only_there", lab, hairpins),
    ]
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

fn lifetimes() -> Result<(), Failed> {
    for name in ["short-lifetime", "outbound-refresh"] {
        let begun = Instant::now();
        let run = run(name, &["--lifetime=8s"])?;
        let told = fact(&run, "lifetime_seconds");
        println!("{name}: {told} s told where 5 s are true, after {:?}", begun.elapsed());
        let seconds = told.as_f64().ok_or_else(|| format!("no lifetime in {:#}", run.report))?;
        if (seconds - 5.0).abs() > 1.0 {
            return Err(format!("{name}: {seconds} s is not within a second of 5 s").into());
        }
    }
    Ok(())
}

fn hairpins() -> Result<(), Failed> {
    for (name, truth) in [("hairpin", true), ("port-restricted", false)] {
        let run = run(name, &["--hairpin"])?;
        if fact(&run, "hairpin") != truth {
            return Err(format!("{name}: {:#}", run.report).into());
        }
    }
    Ok(())
}
