//! The probe against the truth, behind every kind of router and in every weather.
//!
//! A plain `cargo test` makes a few runs; `NZC_LAB_RUNS=20 cargo test --release --test natlab -- verdict` makes the full
//! count and prints the same tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use fabric::netlab::kind::Kind;
use libtest_mimic::{Failed, Trial};

use crate::foreign::{Needs, trial};
use crate::probe::{Judgement, Rig, Run, Server};
use crate::wire::Weather;

/// Worlds side by side; a probe mostly waits.
const WORKERS: usize = 4;

pub(crate) fn trials() -> Vec<Trial> {
    let lab = &[Needs::Namespaces];
    let weather = |milliseconds, loss| Weather::round_trip(Duration::from_millis(milliseconds), loss);
    vec![
        trial("verdict_is_right_behind_every_kind_without_delay", lab, move || verdicts(weather(0, 0.0), 0.0)),
        trial("verdict_is_right_behind_every_kind_at_20_ms", lab, move || verdicts(weather(20, 0.0), 0.0)),
        trial("ipv6_is_diagnosed_apart_from_ipv4", lab, ipv6),
        trial("verdict_is_never_wrong_at_40_ms_with_5_percent_loss", lab, move || verdicts(weather(40, 0.05), 0.01)),
    ]
}

/// How many runs to make where the full bar says `full`.
pub(crate) fn runs(few: usize, full: usize) -> usize {
    std::env::var("NZC_LAB_RUNS").ok().and_then(|value| value.parse().ok()).map_or(few, |runs: usize| runs.min(full))
}

#[derive(Default)]
struct Tally {
    right: usize,
    unknown: Vec<String>,
    wrong: Vec<String>,
    slowest: Duration,
    core: f64,
}

impl Tally {
    fn add(&mut self, run: &Run, judgement: Judgement) {
        match judgement {
            Judgement::Right => self.right += 1,
            Judgement::Unknown => self.unknown.push(run.line()),
            Judgement::Wrong => self.wrong.push(run.line()),
        }
        self.slowest = self.slowest.max(run.took);
        self.core = self.core.max(run.number("/ipv4/udp/core_ms").unwrap_or_default());
    }
}

fn verdicts(weather: Weather, unknown_allowed: f64) -> Result<(), Failed> {
    let runs = runs(2, 20);
    let tallies = Mutex::new(BTreeMap::new());
    let next = Mutex::new(Kind::ALL.iter());
    std::thread::scope(|scope| {
        let worker = || -> Result<(), Failed> {
            loop {
                let Some(kind) = next.lock().expect("no worker panicked").next() else { return Ok(()) };
                // Silence of one server may be the server's; two in different networks show a blocked network.
                let both = [Server::TwoAddresses, Server::Plain(2)];
                let servers = if kind.truth().udp { &both[..1] } else { &both };
                let mut tally = Tally::default();
                for seed in 0..runs {
                    // A fresh router each time: small pools of ports would still hold the last run's mappings.
                    let rig = Rig::new(kind, weather, seed as u64, servers)?;
                    let run = rig.probe(&["--no-port-map"])?;
                    tally.add(&run, run.judge(kind.truth()));
                }
                tallies.lock().expect("no worker panicked").insert(kind.name, tally);
            }
        };
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked")?)
    })?;
    let tallies = tallies.into_inner()?;
    let (mut wrong, mut unknown) = (0, 0);
    let mut table = format!("{weather:?}\n{:24} right unknown wrong  slowest core\n", "kind");
    for (name, tally) in &tallies {
        let Tally { right, unknown: u, wrong: w, slowest, core } = tally;
        let _ = writeln!(table, "{name:24} {right:5} {:7} {:5} {slowest:>8.2?} {core:.0} ms", u.len(), w.len());
        for line in u.iter().chain(w) {
            let _ = writeln!(table, "    {line}");
        }
        wrong += w.len();
        unknown += u.len();
    }
    // One call, so that the lines of tests that run at the same time do not mix.
    println!("{table}");
    let all = runs * Kind::ALL.len();
    if wrong > 0 || unknown as f64 > unknown_allowed * all as f64 {
        return Err(format!("{wrong} wrong and {unknown} unknown of {all}").into());
    }
    Ok(())
}

/// Open, behind a firewall and translated over IPv6, whatever IPv4 is.
fn ipv6() -> Result<(), Failed> {
    let weather = Weather::round_trip(Duration::from_millis(20), 0.0);
    for (name, nat, v4, v6) in [
        ("open", false, "open", "open"),
        ("ipv6-firewall", false, "port-restricted", "firewall"),
        ("nat66", true, "port-restricted", "port-restricted"),
    ] {
        let kind = Kind::named(name).ok_or("a known kind")?;
        let rig = Rig::new(kind, weather, 1, &[Server::TwoAddresses])?;
        let run = rig.probe(&["--no-port-map"])?;
        assert_eq!(run.word("/ipv4/udp/class"), v4, "{name}");
        assert_eq!(run.word("/ipv6/udp/class"), v6, "{name}");
        assert_eq!(run.report.pointer("/ipv6/udp/nat"), Some(&nat.into()), "{name}");
    }
    Ok(())
}
