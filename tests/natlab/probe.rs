//! The real binaries in the lab: `nzc stun-server` on the public segment, `nzc nat-probe` on a host.

use std::process::Command;
use std::time::{Duration, Instant};

use fabric::netlab::kind::{Kind, Truth};
use fabric::netlab::namespace::Namespace;
use fabric::netlab::router::{Filtering, Mapping};
use fabric::netlab::world::{BuiltHome, Home, Plan, SERVERS_V4, SERVERS_V6, World};
use libtest_mimic::Failed;
use serde_json::Value;

use crate::daemon::{self, Daemon};
use crate::wire::{Weather, Wire};

const NZC: &str = env!("CARGO_BIN_EXE_nzc");
/// How long a server may take to start, and a probe to end; far more than either takes.
const LIMIT: Duration = Duration::from_secs(30);

/// A world with one home, a wire in front of it and servers behind that.
pub(crate) struct Rig {
    // Dropped in this order: what runs in the world before the world.
    _servers: Vec<Daemon>,
    _wire: Wire,
    pub(crate) world: World,
    /// The `--server` arguments.
    pub(crate) servers: Vec<String>,
}

/// Our server at a place in [`SERVERS_V4`].
#[derive(Clone, Copy)]
pub(crate) enum Server {
    /// With two addresses and two ports, IPv4 and IPv6: places 0 and 1.
    TwoAddresses,
    /// With one.
    Plain(usize),
}

impl Rig {
    pub(crate) fn new(kind: &Kind, weather: Weather, seed: u64, servers: &[Server]) -> Result<Self, Failed> {
        Self::home(Home::of_kind(kind), weather, seed, servers)
    }

    pub(crate) fn home(home: Home, weather: Weather, seed: u64, servers: &[Server]) -> Result<Self, Failed> {
        let world = World::build(&Plan::one(home.with_wire()))?;
        let [home] = world.homes() else { return Err("one home".into()) };
        let six = !home.hosts_v6.is_empty();
        let wire = Wire::connect(home.wire.as_ref().ok_or("a wire")?, weather, seed);
        let mut names = Vec::new();
        let mut running = Vec::new();
        for server in servers {
            let mut arguments = Vec::new();
            match server {
                Server::TwoAddresses => {
                    names.push(format!("{}:3478", SERVERS_V4[0]));
                    arguments.extend(pair(SERVERS_V4[0].to_string(), SERVERS_V4[1].to_string()));
                    if six {
                        names.push(format!("[{}]:3478", SERVERS_V6[0]));
                        arguments.extend(pair(format!("[{}]", SERVERS_V6[0]), format!("[{}]", SERVERS_V6[1])));
                    }
                }
                Server::Plain(place) => {
                    names.push(format!("{}:3478", SERVERS_V4[*place]));
                    arguments.extend(["--listen".to_owned(), format!("{}:3478", SERVERS_V4[*place])]);
                }
            }
            running.push(start_server(world.public(), &arguments));
        }
        Ok(Self { _servers: running, _wire: wire, world, servers: names })
    }

    pub(crate) fn home_built(&self) -> &BuiltHome {
        &self.world.homes()[0]
    }

    /// Runs the probe on the first host.
    pub(crate) fn probe(&self, extra: &[&str]) -> Result<Run, Failed> {
        let mut command = self.command(extra);
        let begin = Instant::now();
        let output = daemon::run(&mut command, LIMIT);
        let took = begin.elapsed();
        let report = serde_json::from_slice(&output.stdout).map_err(|error| {
            format!("{error}: {}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        })?;
        Ok(Run { report, exit: output.status.code(), took })
    }

    pub(crate) fn command(&self, extra: &[&str]) -> Command {
        let mut command = self.home_built().hosts[0].command(NZC);
        command.args(["nat-probe", "--json"]).args(extra);
        for server in &self.servers {
            command.args(["--server", server]);
        }
        command
    }
}

fn pair(first: String, second: String) -> [String; 4] {
    ["--listen".to_owned(), format!("{first}:3478"), "--alternate".to_owned(), format!("{second}:3479")]
}

/// Starts `nzc stun-server` in a namespace and waits until it serves.
pub(crate) fn start_server(namespace: &Namespace, arguments: &[String]) -> Daemon {
    let mut command = namespace.command(NZC);
    command.args(["stun-server", "--admin", "off", "--log", "warn", "--ready-json"]).args(arguments);
    Daemon::start(&mut command, LIMIT, |line| line.contains("\"listen\"").then_some(())).0
}

/// One run of the probe.
pub(crate) struct Run {
    pub(crate) report: Value,
    pub(crate) exit: Option<i32>,
    /// From start to end of the process.
    pub(crate) took: Duration,
}

/// How a verdict compares with the truth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Judgement {
    Right,
    Unknown,
    Wrong,
}

impl Run {
    /// A word of the report.
    pub(crate) fn word(&self, pointer: &str) -> &str {
        self.report.pointer(pointer).and_then(Value::as_str).unwrap_or("missing")
    }

    /// A number of the report.
    pub(crate) fn number(&self, pointer: &str) -> Option<f64> {
        self.report.pointer(pointer).and_then(Value::as_f64)
    }

    /// Compares translation, mapping, filtering and class over IPv4 and UDP with the truth about a kind.
    pub(crate) fn judge(&self, truth: Truth) -> Judgement {
        let class = self.word("/ipv4/udp/class");
        if !truth.udp {
            return match class {
                "blocked" => Judgement::Right,
                "unknown" => Judgement::Unknown,
                _ => Judgement::Wrong,
            };
        }
        let nat = self.report.pointer("/ipv4/udp/nat").cloned().unwrap_or_default();
        let words = [
            (self.word("/ipv4/udp/mapping").to_owned(), mapping(truth.mapping).to_owned()),
            (self.word("/ipv4/udp/filtering").to_owned(), filtering(truth.filtering).to_owned()),
            (class.to_owned(), old_name(truth).to_owned()),
            (if nat.is_null() { "unknown".to_owned() } else { nat.to_string() }, truth.translated.to_string()),
        ];
        if words.iter().any(|(seen, expected)| seen != expected && seen != "unknown") {
            Judgement::Wrong
        } else if words.iter().any(|(seen, _)| seen == "unknown") {
            Judgement::Unknown
        } else {
            Judgement::Right
        }
    }

    /// The verdict in one line.
    pub(crate) fn line(&self) -> String {
        format!(
            "exit {:?}, nat {}, mapping {}, filtering {}, class {}",
            self.exit,
            self.report.pointer("/ipv4/udp/nat").cloned().unwrap_or_default(),
            self.word("/ipv4/udp/mapping"),
            self.word("/ipv4/udp/filtering"),
            self.word("/ipv4/udp/class"),
        )
    }
}

fn mapping(mapping: Mapping) -> &'static str {
    match mapping {
        Mapping::EndpointIndependent | Mapping::Masquerade => "endpoint-independent",
        Mapping::AddressDependent => "address-dependent",
        Mapping::AddressAndPortDependent => "address-and-port-dependent",
    }
}

fn filtering(filtering: Filtering) -> &'static str {
    match filtering {
        Filtering::EndpointIndependent => "endpoint-independent",
        Filtering::AddressDependent => "address-dependent",
        Filtering::AddressAndPortDependent => "address-and-port-dependent",
    }
}

/// The old names, written down apart from the code under test.
fn old_name(truth: Truth) -> &'static str {
    match (truth.translated, truth.mapping, truth.filtering) {
        (false, _, Filtering::EndpointIndependent) => "open",
        (false, ..) => "firewall",
        (true, Mapping::EndpointIndependent, Filtering::EndpointIndependent) => "full cone",
        (true, Mapping::EndpointIndependent, Filtering::AddressDependent) => "restricted",
        (true, Mapping::EndpointIndependent, Filtering::AddressAndPortDependent) => "port-restricted",
        (true, ..) => "symmetric",
    }
}
