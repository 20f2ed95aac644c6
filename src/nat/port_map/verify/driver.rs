//! Listens, asks for the dial-back, and tests one mapping from its making to its removal.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::super::journal::driver::Journal;
use super::super::mapping::driver::{Mapping, map};
use super::super::mapping::{Grant, MapError, Removal, Wish};
use super::super::survey::Survey;
use super::super::{Protocol, Transport};
use super::{DialBack, Nonce, Verdict, is_dial_back, judge, offer, request};
use crate::protocol::stun::{HEADER_LEN, TransactionId};

/// Visitors served at once while the dial-back is awaited; more have to wait in the kernel's queue.
const MAX_VISITORS: usize = 8;

/// How often a dial-back is asked for. One datagram may be lost; three rarely are.
const ASKS: u32 = 3;

/// The longest answer or indication read, in bytes.
const MAX_MESSAGE: usize = 512;

/// A socket at the internal port that has sent nothing.
#[derive(Debug)]
pub enum Listener {
    /// For connections.
    Tcp(TcpListener),
    /// For datagrams.
    Udp(UdpSocket),
}

impl Listener {
    /// Binds a fresh port on `local`.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn bind(transport: Transport, local: IpAddr) -> io::Result<Self> {
        let address = SocketAddr::new(local, 0);
        Ok(match transport {
            Transport::Tcp => Self::Tcp(TcpListener::bind(address).await?),
            Transport::Udp => Self::Udp(UdpSocket::bind(address).await?),
        })
    }

    /// The internal port.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn port(&self) -> io::Result<u16> {
        Ok(match self {
            Self::Tcp(listener) => listener.local_addr()?,
            Self::Udp(socket) => socket.local_addr()?,
        }
        .port())
    }

    /// Waits for the dial-back with this nonce to this outer port. Other visitors are ignored. Does not end by itself.
    pub async fn dialled(&self, port: u16, nonce: Nonce) -> SocketAddr {
        match self {
            Self::Tcp(listener) => dialled_tcp(listener, port, nonce).await,
            Self::Udp(socket) => {
                let mut buffer = [0; MAX_MESSAGE];
                loop {
                    let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                    let bytes = buffer.get(..length).unwrap_or_default();
                    if is_dial_back(bytes, Transport::Udp, port, nonce) {
                        return from;
                    }
                }
            }
        }
    }
}

async fn dialled_tcp(listener: &TcpListener, port: u16, nonce: Nonce) -> SocketAddr {
    let mut visitors = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, from)) = listener.accept(), if visitors.len() < MAX_VISITORS => {
                visitors.spawn(async move {
                    let patience = Instant::now().checked_add(Duration::from_secs(1)).unwrap_or_else(Instant::now);
                    let mut stream = stream;
                    let message = timeout_at(patience, read_message(&mut stream)).await.ok()?.ok()?;
                    is_dial_back(&message, Transport::Tcp, port, nonce).then_some(from)
                });
            }
            Some(done) = visitors.join_next() => {
                if let Ok(Some(from)) = done {
                    return from;
                }
            }
        }
    }
}

/// Reads one STUN message off a stream: the header says how long it is.
async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; HEADER_LEN];
    stream.read_exact(&mut message).await?;
    let length = match *message.as_slice() {
        [_, _, high, low, ..] => usize::from(u16::from_be_bytes([high, low])),
        _ => 0,
    };
    let total = HEADER_LEN.saturating_add(length);
    if total > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    message.resize(total, 0);
    stream.read_exact(message.get_mut(HEADER_LEN..).unwrap_or_default()).await?;
    Ok(message)
}

/// Where a dial-back goes and how long it is awaited.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// The server, at its STUN port over TCP.
    pub server: SocketAddr,
    /// This host's address to ask from.
    pub local: IpAddr,
    /// The transport of the dial-back.
    pub transport: Transport,
    /// The outer port it is to come to.
    pub port: u16,
    /// When to give up.
    pub deadline: Instant,
}

/// Asks a server to dial back and waits for it at `listener`.
pub async fn dial_back(listener: &Listener, ask: &Ask) -> DialBack {
    let nonce = Nonce(rand::random());
    let started = Instant::now();
    // Each try has its share of the time; the listener listens all along, so a late one counts as well.
    let share = ask.deadline.saturating_duration_since(started).checked_div(ASKS).unwrap_or_default();
    let mut outcome = DialBack::ServerSilent;
    let arrived = listener.dialled(ask.port, nonce);
    tokio::pin!(arrived);
    for turn in 1..=ASKS {
        let until = started.checked_add(share.saturating_mul(turn)).unwrap_or(ask.deadline);
        let turn_of_asking = async {
            let mut stream = connect(ask.server, ask.local).await?;
            let answer = ask_once(&mut stream, ask, nonce).await?;
            io::Result::Ok((stream, answer))
        };
        tokio::pin!(turn_of_asking);
        let mut stream = None;
        let mut is_asking = true;
        loop {
            tokio::select! {
                biased;
                from = &mut arrived => {
                    // It can overtake the answer; without the answer the address it was dialled at is not known.
                    if is_asking && let Ok(Ok((_, (mapped, _)))) = timeout_at(ask.deadline, &mut turn_of_asking).await {
                        return DialBack::Arrived { mapped: mapped.ip(), from };
                    }
                    let mapped = match outcome {
                        DialBack::Lost { mapped, .. } => mapped,
                        _ => from.ip(),
                    };
                    return DialBack::Arrived { mapped, from };
                }
                asked = &mut turn_of_asking, if is_asking => {
                    is_asking = false;
                    match asked {
                        Ok((open, (mapped, true))) => {
                            stream = Some(open);
                            outcome = DialBack::Lost { mapped: mapped.ip(), asked: turn };
                        }
                        Ok((_, (mapped, false))) => return DialBack::NotOffered { mapped: mapped.ip() },
                        // Refused or cut off: the rest of the turn is still waited for.
                        Err(error) => tracing::debug!(%error, "dial-back not asked for"),
                    }
                }
                () = tokio::time::sleep_until(until) => break,
            }
        }
        drop(stream);
    }
    outcome
}

async fn connect(server: SocketAddr, local: IpAddr) -> io::Result<TcpStream> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(local, 0))?;
    socket.connect(server).await
}

async fn ask_once(stream: &mut TcpStream, ask: &Ask, nonce: Nonce) -> io::Result<(SocketAddr, bool)> {
    let transaction = TransactionId(rand::random());
    let bytes = request(transaction, ask.transport, ask.port, nonce).map_err(io::Error::other)?;
    stream.write_all(&bytes).await?;
    let answer = read_message(stream).await?;
    offer(&answer, transaction).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What became of one tested mapping.
#[derive(Debug)]
pub struct Trial {
    /// The protocol it was asked for in.
    pub protocol: Protocol,
    /// Its transport.
    pub transport: Transport,
    /// What was granted, or why nothing was.
    pub grant: Result<Grant, MapError>,
    /// How the dial-back went.
    pub dial_back: DialBack,
    /// Whether it is open to the world. `None` where nothing was granted.
    pub verdict: Option<Verdict>,
    /// How it was removed, or why not. `None` where nothing was granted.
    pub removal: Option<Result<Removal, MapError>>,
}

/// How a mapping is tested.
#[derive(Clone, Copy, Debug)]
pub struct TrialOptions {
    /// The UDP port of PCP and NAT-PMP.
    pub port: u16,
    /// A server to ask for a dial-back.
    pub server: Option<SocketAddr>,
    /// The longest the gateway may take to grant, and again to remove.
    pub gateway_limit: Duration,
    /// The longest the dial-back is awaited.
    pub dial_back_limit: Duration,
}

impl Default for TrialOptions {
    fn default() -> Self {
        Self {
            port: super::super::GATEWAY_PORT,
            server: None,
            gateway_limit: Duration::from_millis(700),
            dial_back_limit: Duration::from_millis(900),
        }
    }
}

/// Makes a short mapping, has it tried from outside and removes it.
///
/// Cancelling the returned future leaves the mapping to the journal's readers and its lease.
pub async fn trial(
    survey: &Survey,
    protocol: Protocol,
    transport: Transport,
    options: &TrialOptions,
    journal: &Journal,
) -> Trial {
    let mut trial = Trial {
        protocol,
        transport,
        grant: Err(MapError::NotOffered(protocol)),
        dial_back: DialBack::NotAsked,
        verdict: None,
        removal: None,
    };
    let Some(route) = survey.route else { return trial };
    let (listener, mapping) = match make(survey, protocol, transport, options, journal).await {
        Ok(made) => made,
        Err(error) => {
            trial.grant = Err(error);
            return trial;
        }
    };
    let grant = *mapping.grant();
    trial.grant = Ok(grant);
    if let Some(server) = options.server {
        let ask = Ask {
            server,
            local: route.local,
            transport,
            port: grant.external_port,
            deadline: after(options.dial_back_limit),
        };
        trial.dial_back = dial_back(&listener, &ask).await;
    }
    trial.verdict = Some(judge(grant.external.map(|external| external.ip()), trial.dial_back));
    trial.removal = Some(mapping.remove(after(options.gateway_limit)).await);
    trial
}

async fn make(
    survey: &Survey,
    protocol: Protocol,
    transport: Transport,
    options: &TrialOptions,
    journal: &Journal,
) -> Result<(Listener, Mapping), MapError> {
    let route = survey.route.ok_or(MapError::NotOffered(protocol))?;
    let listener = Listener::bind(transport, route.local).await?;
    let wish = Wish::short(protocol, transport, listener.port()?);
    let mapping = map(survey, options.port, &wish, journal, after(options.gateway_limit)).await?;
    Ok((listener, mapping))
}

fn after(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or(now)
}
