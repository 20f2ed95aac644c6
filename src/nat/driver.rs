//! One whole diagnosis: both families, UDP and TCP and the router's protocols, side by side.
#![cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "a driver owns clock, sockets and tasks"))]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::detector::driver::{Diagnosis, diagnose, link_mtu, local_towards};
use super::detector::{self, Detector};
use super::port_map::driver::{Family, SurveyOptions, survey};
use super::port_map::journal::driver::Journal;
use super::port_map::mapping::Removal;
use super::port_map::survey::Survey;
use super::port_map::verify::driver::{self as verify, Dialler, Trial, TrialOptions};
use super::report::{self, Contrast, FamilyReport, Outcome, PortMappingReport, Report, ServerReport, Tried};
use super::stream;

/// Addresses of one name that are asked.
const ADDRESSES_PER_NAME: usize = 1;

/// What to find out, from whom and at what cost.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program and its version, for the report.
    pub program: String,
    /// Servers as `HOST:PORT`, the preferred first.
    pub servers: Vec<String>,
    /// Whether to probe over IPv4.
    pub ipv4: bool,
    /// Whether to probe over IPv6.
    pub ipv6: bool,
    /// The local address to probe from; the one that leads to the servers where absent.
    pub bind: Vec<IpAddr>,
    /// Whether to stop at the core verdict.
    pub core_only: bool,
    /// Whether to find out whether the NAT turns packets round; some firewalls take them for an attack.
    pub hairpin: bool,
    /// The longest lifetime of an idle mapping to look for; `None` does not look.
    pub lifetime: Option<Duration>,
    /// Whether to test TCP.
    pub tcp: bool,
    /// Asks the router for its port-mapping protocols, and has a mapping in each tried from outside. The journal sees to it
    /// that none stays. `None` leaves the router alone.
    pub port_map: Option<Journal>,
    /// Whether the report holds every packet.
    pub explain: bool,
    /// Names are resolved and everything but the lifetime is done by then.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            program: concat!("nzc ", env!("CARGO_PKG_VERSION")).to_owned(),
            servers: Vec::new(),
            ipv4: true,
            ipv6: true,
            bind: Vec::new(),
            core_only: false,
            hairpin: false,
            lifetime: None,
            tcp: true,
            port_map: None,
            explain: false,
            timeout: Duration::from_secs(15),
        }
    }
}

/// What happens on the way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// Names are being resolved.
    Resolving,
    /// Packets are on their way.
    Probing,
    /// The core verdict of one family stands.
    Core {
        /// Whether it is the one for IPv4.
        ipv4: bool,
        /// The old name it comes to.
        class: super::behaviour::Class,
    },
}

/// One configured server and what its name resolved to.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    addresses: Result<Vec<SocketAddr>, String>,
}

/// Runs a diagnosis to its end.
pub async fn probe(options: &Options, progress: impl Fn(Progress) + Sync) -> Report {
    let start = Instant::now();
    progress(Progress::Resolving);
    let named = resolve(&options.servers, options.timeout.min(Duration::from_secs(4))).await;
    progress(Progress::Probing);
    let names_are_used = options.servers.iter().any(|server| server.parse::<SocketAddr>().is_err());
    let made_up = async { if names_are_used { resolver_makes_up().await } else { None } };
    let ((ipv4, mut port_mapping), (mut ipv6, pinholes), made_up) = tokio::join!(
        one_family(options, &named, true, &progress),
        one_family(options, &named, false, &progress),
        made_up
    );
    let nat64 = report::nat64(&ipv6.udp, made_up);
    ipv6.add("nat64", nat64);
    let elapsed = (start.elapsed().as_secs_f64() * 1e5).round() / 1e2;
    port_mapping.extend(pinholes);
    report::finish(options.program.clone(), elapsed, ipv4, ipv6, port_mapping)
}

/// Asks for an IPv6 address of a name that has only IPv4 ones (RFC 7050 section 3).
async fn resolver_makes_up() -> Option<bool> {
    let looked_up = tokio::time::timeout(Duration::from_secs(1), tokio::net::lookup_host(("ipv4only.arpa", 0))).await;
    let addresses: Vec<SocketAddr> = looked_up.ok()?.ok()?.collect();
    Some(addresses.iter().any(SocketAddr::is_ipv6))
}

async fn resolve(names: &[String], limit: Duration) -> Vec<Named> {
    let mut tasks = JoinSet::new();
    for (position, name) in names.iter().cloned().enumerate() {
        tasks.spawn(async move {
            let looked_up = tokio::time::timeout(limit, tokio::net::lookup_host(name.clone())).await;
            let addresses = match looked_up {
                Ok(Ok(addresses)) => Ok(addresses.collect()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the name was not resolved in time".to_owned()),
            };
            (position, Named { name, addresses })
        });
    }
    let mut named: Vec<(usize, Named)> = tasks.join_all().await;
    named.sort_by_key(|(position, _)| *position);
    named.into_iter().map(|(_, named)| named).collect()
}

async fn one_family(
    options: &Options,
    named: &[Named],
    is_ipv4: bool,
    progress: &(impl Fn(Progress) + Sync),
) -> (FamilyReport, Vec<PortMappingReport>) {
    let unprobed = |because: String| (report::unprobed(because), Vec::new());
    if !(if is_ipv4 { options.ipv4 } else { options.ipv6 }) {
        return unprobed("switched off".to_owned());
    }
    let mut servers: Vec<(String, SocketAddr)> = Vec::new();
    for each in named {
        let of_family = each.addresses.iter().flatten().filter(|address| address.is_ipv4() == is_ipv4);
        for address in of_family.take(ADDRESSES_PER_NAME) {
            if !servers.iter().any(|(_, other)| other == address) {
                servers.push((each.name.clone(), *address));
            }
        }
    }
    let Some((_, first)) = servers.first() else {
        let failed: Vec<String> = named
            .iter()
            .filter_map(|each| each.addresses.as_ref().err().map(|error| format!("{}: {error}", each.name)))
            .collect();
        return unprobed(if failed.is_empty() {
            "no server has an address of this family".to_owned()
        } else {
            failed.join("; ")
        });
    };
    let local = match options.bind.iter().find(|ip| ip.is_ipv4() == is_ipv4) {
        Some(ip) => *ip,
        None => match local_towards(*first) {
            Ok(ip) => ip,
            Err(error) => return unprobed(format!("no way to the servers: {error}")),
        },
    };
    let addresses: Vec<SocketAddr> = servers.iter().map(|(_, address)| *address).collect();
    let config = detector::Config {
        servers: addresses.clone(),
        core_only: options.core_only,
        hairpin: options.hairpin,
        lifetime: options.lifetime,
        link_mtu: link_mtu(*first),
        ..detector::Config::default()
    };
    let told = |event, detector: &Detector| {
        if event == detector::Event::CoreReady {
            progress(Progress::Core { ipv4: is_ipv4, class: detector.findings().class });
        }
    };
    // Where nothing answers over UDP, TCP that has not answered either by then is not waited for.
    let (give_up, given_up) = oneshot::channel();
    let udp = async {
        let udp = diagnose(config, local, told).await;
        if !udp.findings.answered {
            let _ = give_up.send(());
        }
        udp
    };
    let (udp, tcp, router) =
        tokio::join!(udp, tcp(options, &addresses, local, given_up), ask_router(options, is_ipv4, local, &addresses));
    let contrast = Contrast {
        networks: addresses.iter().map(|address| network(address.ip())).collect::<BTreeSet<_>>().len(),
        tcp_answers: tcp.as_ref().is_some_and(|tcp| tcp.answered),
        intercepted: tcp.as_ref().is_some_and(|tcp| tcp.intercepted),
    };
    let packets = options.explain.then(|| udp.log.records());
    let survey = router.as_ref().map(|router| &router.survey);
    let port_mapping =
        router.as_ref().map(|router| report::port_mapping(is_ipv4, &router.survey, &router.tried)).unwrap_or_default();
    let opens = report::any_opens(&port_mapping);
    let mut family = report::family(&udp.findings, packets, tcp.as_ref(), survey, opens, contrast);
    family.servers = server_reports(&servers, &udp);
    (family, port_mapping)
}

async fn tcp(
    options: &Options,
    servers: &[SocketAddr],
    local: IpAddr,
    given_up: oneshot::Receiver<()>,
) -> Option<stream::StreamFindings> {
    if options.core_only || !options.tcp {
        return None;
    }
    let config = stream::driver::Config {
        servers: servers.to_vec(),
        local: Some(local),
        deadline: Duration::from_millis(2_200).min(options.timeout),
    };
    let stop = async {
        if given_up.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    Some(stream::driver::survey_until(&config, stop).await)
}

/// What the router said, and what became of the mappings that were tried.
struct Router {
    survey: Survey,
    tried: Vec<Tried>,
}

/// Asks in all protocols, then has short mappings tried from outside, side by side.
async fn ask_router(options: &Options, is_ipv4: bool, local: IpAddr, servers: &[SocketAddr]) -> Option<Router> {
    let journal = options.port_map.as_ref()?;
    if options.core_only || local.is_loopback() {
        return None;
    }
    let family = if is_ipv4 { Family::V4 } else { Family::V6 };
    let asked = SurveyOptions { family, local: Some(local), ..SurveyOptions::default() };
    let until = tokio::time::Instant::now().checked_add(asked.limit)?;
    let (survey, dialler) = tokio::join!(survey(&asked), Dialler::choose(servers, local, until));
    let how = TrialOptions { dialler, ..TrialOptions::default() };
    let trials = verify::trials(&survey, &verify::plan(&survey), &how, journal).await;
    let tried = trials.into_iter().map(account).collect();
    Some(Router { survey, tried })
}

fn account(trial: Trial) -> Tried {
    let leftover = match trial.removal {
        Some(Ok(Removal::LeftToExpire { lease })) => {
            Some(format!("the mapping stays until its lease of {lease} s ends"))
        }
        Some(Err(error)) => Some(format!("the mapping could not be removed: {error}")),
        Some(Ok(Removal::Removed | Removal::AlreadyGone)) | None => None,
    };
    let granted = trial.grant.as_ref().ok();
    let (external, lease) =
        (granted.and_then(|grant| grant.external).map(|external| external.ip()), granted.map(|grant| grant.lease));
    let outcome = match (trial.grant, trial.verdict) {
        (Ok(_), Some(verdict)) => Outcome::Judged(verdict),
        (Ok(_), None) => Outcome::Unheard("nothing was tried".to_owned()),
        (Err(error), _) if error.is_refusal() => Outcome::Refused(error.to_string()),
        (Err(error), _) => Outcome::Unheard(error.to_string()),
    };
    Tried { protocol: trial.protocol, transport: trial.transport, external, lease, outcome, leftover }
}

/// The /16 or /32 an address belongs to: servers apart by that much are hardly down together.
fn network(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits() >> 16),
        IpAddr::V6(ip) => ip.to_bits() >> 96,
    }
}

fn server_reports(servers: &[(String, SocketAddr)], udp: &Diagnosis) -> Vec<ServerReport> {
    let found = udp.findings.servers.iter();
    servers
        .iter()
        .zip(found)
        .map(|((name, address), found)| ServerReport {
            name: name.clone(),
            address: *address,
            answered: found.answered,
            alternate: found.alternate,
            round_trip_ms: found.round_trip.map(|took| (took.as_secs_f64() * 1e5).round() / 1e2),
            note: found.note.clone(),
        })
        .collect()
}
