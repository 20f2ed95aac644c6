//! `nzc nat-probe` behind Debian's miniupnpd, with `nzc stun-server` dialling back: what it reports of mappings, and that
//! it leaves none, however it ends.
#![allow(clippy::print_stderr, reason = "a number that nobody sees is no measurement")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use fabric::netlab::kind::Kind;
use fabric::netlab::miniupnpd::{Miniupnpd, Options};
use fabric::netlab::namespace::Namespace;
use fabric::netlab::world::{BuiltHome, Home, Plan, SERVERS_V4, World};
use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::foreign::{Needs, trial};

const NEEDS: &[Needs] = &[Needs::Namespaces, Needs::Program("miniupnpd", "miniupnpd-nftables")];

const NZC: &str = env!("CARGO_BIN_EXE_nzc");

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("p5_the_probe_reports_open_mappings_and_leaves_none", NEEDS, reports),
        trial("p5_an_interrupted_probe_leaves_no_mapping", NEEDS, interrupted),
        trial("p5_a_hundred_killed_probes_leave_no_mapping", NEEDS, killed),
    ]
}

struct Lab {
    world: World,
    daemon: Miniupnpd,
    server: Child,
    state: tempfile::TempDir,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Lab {
    fn new() -> Result<Self, Failed> {
        let kind = Kind::named("port-restricted").ok_or("a known kind")?;
        let world = World::build(&Plan::one(Home::of_kind(kind)))?;
        let router = world.homes().first().and_then(|home| home.routers.first()).ok_or("a router")?;
        let daemon = Miniupnpd::start(router, &Options::default())?;
        let [first, second, ..] = SERVERS_V4;
        let mut server = world
            .public()
            .command(NZC)
            .args(["stun-server", "--dial-back", "--log", "warn", "--ready-json", "--admin", "off"])
            .args(["--listen", &format!("{first}:3478"), "--alternate", &format!("{second}:3479")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut ready = String::new();
        BufReader::new(server.stdout.take().ok_or("a pipe")?).read_line(&mut ready)?;
        let lab = Self { world, daemon, server, state: tempfile::tempdir()? };
        if ready.is_empty() { Err("the server did not get ready".into()) } else { Ok(lab) }
    }

    fn home(&self) -> Result<&BuiltHome, Failed> {
        self.world.homes().first().ok_or_else(|| "a home".into())
    }

    fn host(&self) -> Result<&Namespace, Failed> {
        self.home()?.hosts.first().ok_or_else(|| "a host".into())
    }

    fn probe(&self) -> Result<Command, Failed> {
        let mut command = self.host()?.command(NZC);
        command
            .args(["nat-probe", "--json", "--server", &format!("{}:3478", SERVERS_V4[0])])
            .env("XDG_STATE_HOME", self.state.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        Ok(command)
    }

    /// Packets and bytes the host's interfaces have carried, loopback apart.
    fn traffic(&self) -> Result<(u64, u64), Failed> {
        let output = self.host()?.command("cat").arg("/proc/thread-self/net/dev").output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (mut packets, mut bytes) = (0, 0);
        for (name, counters) in text.lines().filter_map(|line| line.split_once(':')) {
            let counters: Vec<u64> = counters.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
            if name.trim() != "lo"
                && let [rx_bytes, rx_packets, .., tx_bytes, tx_packets, _, _, _, _, _, _] = *counters
            {
                packets += rx_packets + tx_packets;
                bytes += rx_bytes + tx_bytes;
            }
        }
        Ok((packets, bytes))
    }

    fn rules(&self) -> Result<Vec<String>, Failed> {
        Ok(self.daemon.rules()?)
    }

    fn journals(&self) -> usize {
        std::fs::read_dir(self.state.path().join("nzc/port-mappings")).map_or(0, Iterator::count)
    }
}

fn reports() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let (started, before) = (Instant::now(), lab.traffic()?);
    let Output { status, stdout, .. } = lab.probe()?.output()?;
    let (elapsed, after) = (started.elapsed(), lab.traffic()?);
    let quiet = lab.traffic()?;
    assert!(lab.probe()?.arg("--no-port-map").output()?.status.success());
    let without = lab.traffic()?;
    let report: Value = serde_json::from_slice(&stdout)?;
    assert!(status.success(), "{status}: {report:#}");
    let external = lab.home()?.external_v4.first().ok_or("an address")?.to_string();
    let found = report["port_mapping"].as_array().ok_or("a list")?;
    let of_v4: Vec<&Value> = found.iter().filter(|one| one["family"] == "ipv4").collect();
    assert_eq!(of_v4.len(), 3, "{found:#?}");
    for one in of_v4 {
        assert_eq!((&one["answered"], &one["usable"]), (&Value::Bool(true), &Value::Bool(true)), "{one:#}");
        assert_eq!(
            (&one["external"], &one["opens"]["value"]),
            (&Value::String(external.clone()), &Value::Bool(true)),
            "{one:#}"
        );
    }
    assert!(lab.rules()?.is_empty(), "{:?}", lab.rules()?);
    assert_eq!(lab.journals(), 0, "journals left behind");
    eprintln!(
        "the whole probe, with mappings in three protocols tried from outside: {elapsed:?}, {} packets and {} bytes on \
         the wire; without the router {} packets and {} bytes",
        after.0 - before.0,
        after.1 - before.1,
        without.0 - quiet.0,
        without.1 - quiet.1
    );
    Ok(())
}

/// Lets a probe run for `after`, then sends it `signal`. Returns how it ended and whether it had a mapping open before.
fn stop(lab: &Lab, after: Duration, signal: Signal) -> Result<(ExitStatus, bool), Failed> {
    let mut probe = lab.probe()?.spawn()?;
    std::thread::sleep(after);
    let had_some = !lab.rules()?.is_empty();
    kill(Pid::from_raw(i32::try_from(probe.id())?), signal)?;
    Ok((probe.wait()?, had_some))
}

fn interrupted() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let mut caught = 0;
    for round in 0..40_u64 {
        let signal = if round % 2 == 0 { Signal::SIGINT } else { Signal::SIGTERM };
        let (_, had_some) = stop(&lab, Duration::from_millis(20 + round * 7), signal)?;
        caught += u32::from(had_some);
        assert!(lab.rules()?.is_empty(), "round {round}, {signal}: {:?}", lab.rules()?);
    }
    std::thread::sleep(Duration::from_secs(3));
    assert!(lab.rules()?.is_empty(), "{:?}", lab.rules()?);
    assert_eq!(lab.journals(), 0, "journals left behind");
    eprintln!("40 interruptions, {caught} seen with a mapping open, 0 left when the probe ended");
    Ok(())
}

fn killed() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let (mut caught, mut slowest) = (0, Duration::ZERO);
    for round in 0..100_u64 {
        // The mappings of a probe live for some ten milliseconds, about a tenth of a second after its start.
        let (_, had_some) = stop(&lab, Duration::from_millis(40 + round * 3), Signal::SIGKILL)?;
        let killed = Instant::now();
        let mut rules = lab.rules()?;
        caught += u32::from(had_some || !rules.is_empty());
        while !rules.is_empty() && killed.elapsed() < Duration::from_secs(8) {
            std::thread::sleep(Duration::from_millis(20));
            rules = lab.rules()?;
        }
        assert!(rules.is_empty(), "round {round}: {rules:?}");
        slowest = slowest.max(killed.elapsed());
    }
    std::thread::sleep(Duration::from_secs(3));
    assert!(lab.rules()?.is_empty(), "{:?}", lab.rules()?);
    assert_eq!(lab.journals(), 0, "journals left behind");
    assert!(caught > 0, "no kill found a mapping open");
    eprintln!("100 killed probes, {caught} seen with a mapping open, 0 left; the slowest clean-up took {slowest:?}");
    Ok(())
}
