//! The sockets and the clock of port mapping.
#![cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "a driver owns clock, sockets and tasks"))]

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::epoch::EpochClock;
use super::exchange::{Exchange, Question, Schedule};
use super::igd::driver::{ControlPoint, SSDP_V4};
use super::igd::{IgdFacts, driver as igd};
use super::survey::{self, Finding, Finished, Route, Step, Survey};
use super::{GATEWAY_PORT, gateway, natpmp, pcp};

/// The longest a gateway one hop away is given for one answer.
const LONGEST_EXCHANGE: Duration = Duration::from_secs(1);

/// The address family of a survey. The two are never merged.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Family {
    /// IPv4: mappings.
    #[default]
    V4,
    /// IPv6: pinholes in a firewall.
    V6,
}

/// What to ask, whom and for how long.
#[derive(Clone, Debug)]
pub struct SurveyOptions {
    /// Which family to ask in.
    pub family: Family,
    /// The gateway; `None` reads it from the routing table.
    pub gateway: Option<IpAddr>,
    /// The link of a link-local IPv6 gateway given above.
    pub scope_id: u32,
    /// This host's address to ask from and map to; `None` takes the one the kernel would use.
    pub local: Option<IpAddr>,
    /// The UDP port of PCP and NAT-PMP, 5351.
    pub port: u16,
    /// Where the UPnP search goes; `None` is the group of the family and port 1900.
    pub search: Option<SocketAddr>,
    /// When everything is over. The default leaves a tenth of the promised second to the scheduler.
    pub limit: Duration,
}

impl Default for SurveyOptions {
    fn default() -> Self {
        Self {
            family: Family::V4,
            gateway: None,
            scope_id: 0,
            local: None,
            port: GATEWAY_PORT,
            search: None,
            limit: Duration::from_millis(900),
        }
    }
}

/// Why no gateway can be asked.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// There is no default route with a gateway, or no way to read it.
    #[error("no default gateway of this family")]
    NoGateway,
    /// No address of this host leads there.
    #[error("the gateway cannot be reached from here")]
    Unreachable(#[from] io::Error),
}

/// Finds the gateway to ask and this host's address towards it.
///
/// # Errors
/// A [`RouteError`] that says what is missing.
pub fn find_route(options: &SurveyOptions) -> Result<Route, RouteError> {
    let (gateway, scope_id) = match options.gateway {
        Some(gateway) => (gateway, options.scope_id),
        None => default_gateway(options.family).ok_or(RouteError::NoGateway)?,
    };
    let mut route = Route { gateway, scope_id, local: IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    route.local = match options.local {
        Some(local) => local,
        None => local_towards(at(&route, options.port), gateway)?,
    };
    Ok(route)
}

/// The socket address of a port at the gateway.
#[must_use]
pub fn at(route: &Route, port: u16) -> SocketAddr {
    match route.gateway {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), port),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, route.scope_id).into(),
    }
}

fn default_gateway(family: Family) -> Option<(IpAddr, u32)> {
    // The thread's own view: a thread may live in another network namespace than the process.
    let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).ok();
    match family {
        Family::V4 => Some((gateway::default_v4(&read("route")?)?.gateway, 0)),
        Family::V6 => {
            let route = gateway::default_v6(&read("ipv6_route")?)?;
            let is_link_local = matches!(route.gateway, IpAddr::V6(ip) if ip.is_unicast_link_local());
            // The scope also names the link of the search's group, so it is kept for a global gateway in `Route` too.
            let scope_id = gateway::scope_id(&read("if_inet6")?, &route.interface)?;
            Some((route.gateway, if is_link_local { scope_id } else { 0 }))
        }
    }
}

/// The address the kernel would send from. For a link-local gateway that is a link-local one, which no mapping can be for:
/// there the address towards the world behind the gateway is taken. Connecting a UDP socket sends nothing.
fn local_towards(gateway: SocketAddr, ip: IpAddr) -> io::Result<IpAddr> {
    let beyond = match ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
            SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1)), 9)
        }
        _ => gateway,
    };
    let any = if beyond.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(beyond)?;
    Ok(socket.local_addr()?.ip())
}

/// Asks one gateway in all protocols at once. Always returns within the limit of the options.
pub async fn survey(options: &SurveyOptions) -> Survey {
    let started = Instant::now();
    let deadline = started.checked_add(options.limit).unwrap_or(started);
    let route = match find_route(options) {
        Ok(route) => route,
        Err(error) => {
            return Survey {
                route: None,
                pcp: Finding::unknown(Duration::ZERO, error.to_string()),
                natpmp: Finding::unknown(Duration::ZERO, error.to_string()),
                igd: Finding::unknown(Duration::ZERO, error.to_string()),
                elapsed: started.elapsed(),
            };
        }
    };
    let to = at(&route, options.port);
    let (pcp, natpmp, igd) = tokio::join!(
        ask_pcp(&route, to, deadline),
        ask_natpmp(&route, to, deadline),
        ask_igd(&route, options, deadline)
    );
    Survey { route: Some(route), pcp, natpmp, igd, elapsed: started.elapsed() }
}

async fn ask_pcp(route: &Route, to: SocketAddr, deadline: Instant) -> Finding<survey::PcpFacts> {
    let started = Instant::now();
    let question =
        Question::Pcp(pcp::Request { client: route.local, lifetime: 0, operation: pcp::Operation::Announce });
    match ask(route.local, to, question, EpochClock::default(), deadline).await {
        Ok(finished) => survey::pcp_finding(started.elapsed(), &finished),
        Err(error) => Finding::unknown(started.elapsed(), format!("could not ask: {}", error.kind())),
    }
}

async fn ask_natpmp(route: &Route, to: SocketAddr, deadline: Instant) -> Finding<survey::NatPmpFacts> {
    if route.gateway.is_ipv6() {
        return Finding::unknown(Duration::ZERO, "NAT-PMP knows IPv4 only");
    }
    let started = Instant::now();
    let question = Question::NatPmp(natpmp::Request::ExternalAddress);
    match ask(route.local, to, question, EpochClock::default(), deadline).await {
        Ok(finished) => survey::natpmp_finding(started.elapsed(), &finished),
        Err(error) => Finding::unknown(started.elapsed(), format!("could not ask: {}", error.kind())),
    }
}

/// Runs one exchange on a socket of its own, connected so that the kernel passes on nobody else's datagrams.
pub(super) async fn ask(
    local: IpAddr,
    gateway: SocketAddr,
    question: Question,
    clock: EpochClock,
    deadline: Instant,
) -> io::Result<Finished> {
    let socket = UdpSocket::bind(SocketAddr::new(local, 0)).await?;
    socket.connect(gateway).await?;
    let now = Instant::now();
    let schedule = Schedule::within(deadline.saturating_duration_since(now).min(LONGEST_EXCHANGE));
    let mut exchange = Exchange::new(now.into_std(), gateway, question, schedule, clock);
    let mut buffer = [0; pcp::MAX_LEN + 1];
    let mut sent_any = false;
    loop {
        while let Some(transmit) = exchange.poll_transmit() {
            match socket.send(&transmit.payload).await {
                Ok(_) => sent_any = true,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => exchange.handle_refusal(),
                // Out of buffers, or the route is gone for a moment: the schedule tries again.
                Err(error) if sent_any => tracing::debug!(%error, "request to the gateway not sent"),
                Err(error) => return Err(error),
            }
        }
        if let Some(conclusion) = exchange.conclusion() {
            let (sent, dropped, clock) = (exchange.sent(), exchange.stats(), exchange.clock());
            return Ok(Finished { conclusion, sent, dropped, clock });
        }
        let wake = exchange.poll_timeout().map_or(deadline, Instant::from_std);
        match timeout_at(wake, socket.recv(&mut buffer)).await {
            Ok(Ok(length)) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                exchange.handle_input(Instant::now().into_std(), gateway, bytes);
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => exchange.handle_refusal(),
            Ok(Err(error)) => return Err(error),
            Err(_) => exchange.handle_timeout(Instant::now().into_std()),
        }
    }
}

async fn ask_igd(route: &Route, options: &SurveyOptions, deadline: Instant) -> Finding<IgdFacts> {
    let started = Instant::now();
    let mut finding = Finding { answered: Some(false), ..Finding::default() };
    let group = options.search.unwrap_or_else(|| match route.gateway {
        IpAddr::V4(_) => SSDP_V4,
        IpAddr::V6(_) => {
            SocketAddrV6::new(Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 0xC), SSDP_V4.port(), 0, route.scope_id).into()
        }
    });
    let search = match igd::search(route, group, deadline).await {
        Ok(search) => search,
        Err(error) => return Finding::unknown(started.elapsed(), format!("could not search: {}", error.kind())),
    };
    let mut note = |text: String| finding.evidence.push(Step { at: started.elapsed(), text });
    note(format!("search: sent {} times", search.sent));
    if let Some(reason) = search.last_drop {
        note(format!("dropped {} answers, the last: {reason}", search.dropped));
    }
    let Some(found) = search.found else {
        note("no answer from the gateway".to_owned());
        if search.sent == 0 {
            finding.answered = None;
        }
        return finding;
    };
    note("the gateway answered the search".to_owned());
    finding.answered = Some(true);
    let point = ControlPoint { route: *route, deadline };
    let description = match point.describe(&found).await {
        Ok(description) => description,
        Err(error) => {
            note(format!("its description is not used: {error}"));
            return finding;
        }
    };
    note(format!(
        "description read: {} services for mappings, {} for pinholes",
        description.connections.len(),
        usize::from(description.firewall.is_some())
    ));
    let mut facts = IgdFacts {
        device: description.device,
        connections: description.connections,
        firewall: description.firewall,
        external: None,
        pinholes: None,
        over_ipv6: route.gateway.is_ipv6(),
    };
    if facts.over_ipv6 {
        if let Some(firewall) = &facts.firewall {
            match point.pinhole_policy(firewall).await {
                Ok(policy) => {
                    note(format!("firewall on: {}, pinholes allowed: {}", policy.firewall_on, policy.allowed));
                    facts.pinholes = Some(policy);
                }
                Err(error) => note(format!("firewall status: {error}")),
            }
        }
    } else {
        for index in 0..facts.connections.len() {
            let Some(connection) = facts.connections.get(index) else { break };
            match point.external_address(connection).await {
                Ok(ip) if !ip.is_unspecified() => {
                    note("external address told".to_owned());
                    facts.external = Some(ip);
                    facts.connections.swap(0, index);
                    break;
                }
                Ok(_) => note("external address: none".to_owned()),
                Err(error) => note(format!("external address: {error}")),
            }
        }
    }
    finding.facts = Some(facts);
    finding
}
