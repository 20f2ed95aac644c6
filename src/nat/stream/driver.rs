//! Opens the connections of the TCP tests.
//!
//! Nothing here needs a privilege: several connections share a local port by SO_REUSEADDR and SO_REUSEPORT, which the
//! listener on the same port sets too.
#![cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "a driver owns clock, sockets and tasks"))]

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};

use super::{Call, Observations, Sighting, StreamFindings, alternates, judge};
use crate::protocol::stun::dial_back::{DialBack, DialTransport};
use crate::protocol::stun::{AttributeType, Class, HEADER_LEN, Method, Packet, TransactionId, Writer};

/// The longest answer a Binding request over TCP can have here.
const ANSWER_LIMIT: usize = 2048;
/// Where web servers are at home.
const WEB_PORTS: [u16; 4] = [80, 443, 8_080, 8_443];
/// Calls asked for in each filtering test: with each repeated by TCP itself, loss alone does not look like a filter.
const CALLS: usize = 2;

/// What to ask and how long to take.
#[derive(Clone, Debug)]
pub struct Config {
    /// Servers of one address family, the preferred first.
    pub servers: Vec<SocketAddr>,
    /// The local address to use; the one that leads to the servers where absent.
    pub local: Option<std::net::IpAddr>,
    /// Everything ends by then.
    pub deadline: Duration,
}

/// What a server says about itself over TCP.
#[derive(Clone, Copy, Debug)]
struct Answer {
    mapped: SocketAddr,
    other: Option<SocketAddr>,
    calls_back: bool,
}

/// Finds out how TCP is translated and filtered on the way to these servers.
pub async fn survey(config: &Config) -> StreamFindings {
    survey_until(config, std::future::pending()).await
}

/// As [`survey`], and ends early when `stop` does.
pub async fn survey_until(config: &Config, stop: impl Future<Output = ()>) -> StreamFindings {
    let until = tokio::time::Instant::now() + config.deadline;
    let mut seen = Observations { servers: config.servers.len(), ..Observations::default() };
    // What was seen when time runs out still counts.
    tokio::select! {
        _ = timeout_at(until, observe(config, until, &mut seen)) => {}
        () = stop => {}
    }
    judge(&seen)
}

async fn observe(config: &Config, until: tokio::time::Instant, seen: &mut Observations) -> io::Result<()> {
    let Some(first) = config.servers.first() else { return Ok(()) };
    let local = match config.local {
        Some(ip) => ip,
        None => local_towards(*first).await?,
    };
    let shared = shared_port(SocketAddr::new(local, 0))?;
    let local = shared.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;

    // Kept open to the end, so that mappings stay and ports are not reused.
    let mut open = Vec::new();
    let mut answers = Vec::new();
    let mut asked: Vec<SocketAddr> = Vec::new();
    let mut wave = config.servers.clone();
    while !wave.is_empty() {
        asked.extend(&wave);
        let mut tasks = JoinSet::new();
        for server in wave.drain(..) {
            tasks.spawn(async move { (server, ask(local, server, DialBack::Offer, until).await) });
        }
        while let Some(joined) = tasks.join_next().await {
            let Ok((server, outcome)) = joined else { continue };
            match outcome {
                Ok((stream, answer, took)) => {
                    seen.sightings.push(Sighting { local, server, mapped: answer.mapped });
                    seen.round_trip = Some(seen.round_trip.map_or(took, |best| best.min(took)));
                    seen.sent_bytes = seen.sent_bytes.saturating_add(HEADER_LEN as u64 + 4);
                    let more = answer.other.map(|other| alternates(server, other)).unwrap_or_default();
                    // One server's alternates are enough, and a chain of referrals is not followed.
                    if answers.is_empty() {
                        wave.extend(more.into_iter().filter(|target| !asked.contains(target)));
                    }
                    answers.push((server, answer));
                    open.push(stream);
                }
                // Nobody is surprised by a web server on a port of the web.
                Err(error) if error.kind() == io::ErrorKind::InvalidData && !WEB_PORTS.contains(&server.port()) => {
                    seen.intercepted = true;
                }
                Err(error) if error.kind() != io::ErrorKind::TimedOut => seen.refused = seen.refused.saturating_add(1),
                Err(_) => {}
            }
        }
    }
    let callers: Vec<SocketAddr> =
        answers.iter().filter(|(_, answer)| answer.calls_back).map(|(server, _)| *server).collect();
    let Some(acquaintance) = callers.first().copied() else { return Ok(()) };
    let stranger = callers.iter().copied().find(|server| server.ip() != acquaintance.ip());
    let known = called(local.ip(), acquaintance, acquaintance, until);
    let unknown = async {
        match stranger {
            Some(stranger) => called(local.ip(), acquaintance, stranger, until).await,
            None => None,
        }
    };
    let (known, unknown) = tokio::join!(known, unknown);
    seen.calls.push(Call { known_address: true, arrived: known });
    seen.calls.push(Call { known_address: false, arrived: unknown });
    Ok(())
}

/// Holds a mapping towards `held` open on a fresh local port and has `caller` call it. `None` where that cannot be
/// tried.
async fn called(
    local: std::net::IpAddr,
    held: SocketAddr,
    caller: SocketAddr,
    until: tokio::time::Instant,
) -> Option<bool> {
    let port = shared_port(SocketAddr::new(local, 0)).ok()?;
    let local = port.local_addr().ok()?.as_socket()?;
    port.listen(8).ok()?;
    port.set_nonblocking(true).ok()?;
    let listener = TcpListener::from_std(port.into()).ok()?;
    let (_holding, answer, _) = ask(local, held, DialBack::Offer, until).await.ok()?;
    if answer.mapped.ip().is_unspecified() {
        return None;
    }
    let nonces: Vec<[u8; 8]> = (0..CALLS).map(|_| rand::random()).collect();
    let mut orders = JoinSet::new();
    for nonce in nonces.clone() {
        let order = DialBack::Ask { transport: DialTransport::Tcp, port: answer.mapped.port(), nonce };
        orders.spawn(async move { order_call(caller, local.ip(), order, until).await });
    }
    let arrival = accept_call(&listener, &nonces);
    tokio::pin!(arrival);
    let mut promised = false;
    loop {
        tokio::select! {
            () = &mut arrival => return Some(true),
            Some(order) = orders.join_next() => promised |= order.is_ok_and(|order| order.is_ok()),
            // The last moment belongs to the judgement. Silence counts only where a call was promised.
            () = tokio::time::sleep_until(until.checked_sub(Duration::from_millis(50)).unwrap_or(until)) => {
                return promised.then_some(false);
            }
        }
    }
}

/// Asks `server`, from a port of its own, to call back. Fails where it does not promise to.
async fn order_call(
    server: SocketAddr,
    local: std::net::IpAddr,
    order: DialBack,
    until: tokio::time::Instant,
) -> io::Result<()> {
    let (_, answer, _) = ask(SocketAddr::new(local, 0), server, order, until).await?;
    if answer.calls_back { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
}

/// Returns once a connection carried one of the nonces.
async fn accept_call(listener: &TcpListener, nonces: &[[u8; 8]]) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let message = timeout(Duration::from_secs(1), read_message(&mut stream)).await;
        let Ok(Ok(bytes)) = message else { continue };
        let Ok(packet) = Packet::scan(&bytes) else { continue };
        let id = packet.transaction_id();
        if packet.class() == Class::Indication && nonces.iter().any(|nonce| DialBack::transaction_id(*nonce) == id) {
            return;
        }
    }
}

/// Connects from `local` and asks for the mapped address, with DIAL-BACK beside it.
async fn ask(
    local: SocketAddr,
    server: SocketAddr,
    dial_back: DialBack,
    until: tokio::time::Instant,
) -> io::Result<(TcpStream, Answer, Duration)> {
    let socket = TcpSocket::from_std_stream(shared_port(local)?.into());
    let begun = Instant::now();
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let mut stream = timeout_at(until, socket.connect(server)).await.map_err(late)??;
    let took = begun.elapsed();
    let transaction = TransactionId(rand::random());
    let mut buffer = [0; 64];
    let mut writer =
        Writer::new(&mut buffer, Class::Request, Method::BINDING, transaction).map_err(io::Error::other)?;
    writer.attribute(AttributeType::DIAL_BACK, &dial_back.to_bytes()).map_err(io::Error::other)?;
    timeout_at(until, stream.write_all(writer.as_bytes())).await.map_err(late)??;
    let bytes = timeout_at(until, read_message(&mut stream)).await.map_err(late)??;
    let packet = Packet::scan(&bytes).map_err(io::Error::other)?;
    if packet.class() != Class::Success || packet.transaction_id() != transaction {
        return Err(io::Error::other("the answer is no success of this request"));
    }
    let mapped = packet
        .xor_address(AttributeType::XOR_MAPPED_ADDRESS)
        .ok_or_else(|| io::Error::other("the answer has no XOR-MAPPED-ADDRESS"))?;
    let other = packet.address(AttributeType::OTHER_ADDRESS);
    let calls_back = packet.find(AttributeType::DIAL_BACK).is_some();
    Ok((stream, Answer { mapped, other, calls_back }, took))
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER_LEN];
    stream.read_exact(&mut bytes).await?;
    if bytes.starts_with(b"HTTP/") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a web server answers"));
    }
    let length = bytes.get(2..4).and_then(|length| Some(u16::from_be_bytes(length.try_into().ok()?)));
    let total = HEADER_LEN.saturating_add(usize::from(length.unwrap_or_default()));
    if total > ANSWER_LIMIT {
        return Err(io::Error::other("the answer is too long"));
    }
    bytes.resize(total, 0);
    stream.read_exact(bytes.get_mut(HEADER_LEN..).unwrap_or_default()).await?;
    Ok(bytes)
}

/// A socket on a local port that others may share.
fn shared_port(local: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&local.into())?;
    Ok(socket)
}

/// The local address the system would use towards `server`.
async fn local_towards(server: SocketAddr) -> io::Result<std::net::IpAddr> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    Ok(socket.local_addr()?.ip())
}
