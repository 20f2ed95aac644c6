//! Listens, asks for the dial-back, and tests one mapping from its making to its removal.
#![cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "a driver owns clock, sockets and tasks"))]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::super::journal::driver::Journal;
use super::super::mapping::driver::{Mapping, map};
use super::super::mapping::{Grant, MapError, Removal, Wish};
use super::super::survey::Survey;
use super::super::{Protocol, Transport};
use super::{DialBack, Nonce, Verdict, enquiry, is_dial_back, judge, offer, request};
use crate::protocol::stun::{HEADER_LEN, TransactionId};

/// Visitors served at once while the dial-back is awaited; more have to wait in the kernel's queue.
const MAX_VISITORS: usize = 8;

/// How often a dial-back is asked for. One datagram may be lost; three rarely are.
const ASKS: u32 = 3;

/// Servers asked whether they dial back.
const MAX_SERVERS: usize = 3;

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

/// A server that is asked to dial back. All clones share one connection, so that many questions cost little more than one.
#[derive(Clone, Debug)]
pub struct Dialler {
    server: SocketAddr,
    local: IpAddr,
    /// Taken out while a question is under way: one that is given up takes the connection with it.
    idle: Arc<Mutex<Option<TcpStream>>>,
}

impl Dialler {
    /// A server at its STUN port over TCP, asked from this host's `local` address.
    #[must_use]
    pub fn new(server: SocketAddr, local: IpAddr) -> Self {
        Self { server, local, idle: Arc::default() }
    }

    /// The first of the preferred servers that dials back, among the first three: they are asked side by side, without
    /// having them dial. Where none does, the first one, which then says so itself.
    pub async fn choose(servers: &[SocketAddr], local: IpAddr, deadline: Instant) -> Option<Self> {
        let mut asked = JoinSet::new();
        for (rank, server) in servers.iter().copied().take(MAX_SERVERS).enumerate() {
            asked.spawn(async move {
                let dialler = Self::new(server, local);
                let transaction = TransactionId(rand::random());
                let bytes = enquiry(transaction).map_err(io::Error::other)?;
                let (_, dials) = dialler.question(transaction, &bytes).await?;
                io::Result::Ok((rank, dialler, dials))
            });
        }
        let mut best: Option<(usize, Self)> = None;
        while let Ok(Some(done)) = timeout_at(deadline, asked.join_next()).await {
            if let Ok(Ok((rank, dialler, true))) = done
                && best.as_ref().is_none_or(|(other, _)| rank < *other)
            {
                best = Some((rank, dialler));
                if rank == 0 {
                    break;
                }
            }
        }
        best.map(|(_, dialler)| dialler).or_else(|| Some(Self::new(*servers.first()?, local)))
    }

    /// Asks over the shared connection, once it is free, or over a new one where it is gone.
    async fn question(&self, transaction: TransactionId, request: &[u8]) -> io::Result<(SocketAddr, bool)> {
        let mut idle = self.idle.lock().await;
        if let Some(mut stream) = idle.take()
            && let Ok(answer) = answered(&mut stream, transaction, request).await
        {
            *idle = Some(stream);
            return Ok(answer);
        }
        let mut stream = self.connect().await?;
        let answer = answered(&mut stream, transaction, request).await?;
        *idle = Some(stream);
        Ok(answer)
    }

    /// Asks over a connection of its own.
    async fn question_apart(&self, transaction: TransactionId, request: &[u8]) -> io::Result<(SocketAddr, bool)> {
        answered(&mut self.connect().await?, transaction, request).await
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = if self.server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(self.local, 0))?;
        socket.connect(self.server).await
    }
}

async fn answered(
    stream: &mut TcpStream,
    transaction: TransactionId,
    request: &[u8],
) -> io::Result<(SocketAddr, bool)> {
    stream.write_all(request).await?;
    let answer = read_message(stream).await?;
    offer(&answer, transaction).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Where a dial-back goes and how long it is awaited.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Who is asked.
    pub dialler: Dialler,
    /// The transport of the dial-back.
    pub transport: Transport,
    /// The outer port it is to come to.
    pub port: u16,
    /// When to give up.
    pub deadline: Instant,
}

/// Asks a server to dial back and waits for it at `listener`.
///
/// It is asked up to three times. No question is given up for the next: over a long path an answer may take longer than
/// the time between two. Where the shared connection has not brought an answer by then, the next has one of its own.
pub async fn dial_back(listener: &Listener, ask: &Ask) -> DialBack {
    let nonce = Nonce(rand::random());
    let started = Instant::now();
    let share = ask.deadline.saturating_duration_since(started).checked_div(ASKS).unwrap_or_default();
    let arrived = listener.dialled(ask.port, nonce);
    tokio::pin!(arrived);
    let (mut asks, mut turn, mut mapped_as) = (JoinSet::new(), 0, None);
    loop {
        let next = started.checked_add(share.saturating_mul(turn)).unwrap_or(ask.deadline);
        tokio::select! {
            biased;
            from = &mut arrived => {
                // It can overtake the answer, which alone tells the address that was dialled.
                while mapped_as.is_none() {
                    match timeout_at(ask.deadline, asks.join_next()).await {
                        Ok(Some(Ok(Ok((mapped, _))))) => mapped_as = Some(mapped),
                        Ok(Some(_)) => {}
                        Ok(None) | Err(_) => break,
                    }
                }
                let mapped = mapped_as.map_or(from.ip(), |mapped: SocketAddr| mapped.ip());
                return DialBack::Arrived { mapped, from };
            }
            Some(asked) = asks.join_next() => match asked {
                Ok(Ok((mapped, true))) => mapped_as = Some(mapped),
                Ok(Ok((mapped, false))) => return DialBack::NotOffered { mapped: mapped.ip() },
                // Refused or cut off: the other turns may do better.
                failed => tracing::debug!(?failed, "dial-back not asked for"),
            },
            () = sleep_until(next), if turn < ASKS => {
                let apart = turn > 0 && mapped_as.is_none();
                turn = turn.saturating_add(1);
                let ask = ask.clone();
                asks.spawn(async move {
                    let transaction = TransactionId(rand::random());
                    let bytes = request(transaction, ask.transport, ask.port, nonce).map_err(io::Error::other)?;
                    if apart {
                        ask.dialler.question_apart(transaction, &bytes).await
                    } else {
                        ask.dialler.question(transaction, &bytes).await
                    }
                });
            }
            () = sleep_until(ask.deadline) => break,
        }
    }
    mapped_as.map_or(DialBack::ServerSilent, |mapped| DialBack::Lost { mapped: mapped.ip(), asked: turn })
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
#[derive(Clone, Debug)]
pub struct TrialOptions {
    /// The UDP port of PCP and NAT-PMP.
    pub port: u16,
    /// Who is asked for a dial-back.
    pub dialler: Option<Dialler>,
    /// The longest the gateway may take to grant, and again to remove.
    pub gateway_limit: Duration,
    /// The longest the dial-back is awaited.
    pub dial_back_limit: Duration,
}

impl Default for TrialOptions {
    fn default() -> Self {
        Self {
            port: super::super::GATEWAY_PORT,
            dialler: None,
            gateway_limit: Duration::from_millis(400),
            dial_back_limit: Duration::from_millis(700),
        }
    }
}

/// What is worth trying: the best protocol over both transports, the others over UDP, which takes fewer packets.
#[must_use]
pub fn plan(survey: &Survey) -> Vec<(Protocol, Transport)> {
    let usable = survey.usable();
    let both = usable.first().map(|best| (*best, Transport::Tcp));
    both.into_iter().chain(usable.iter().map(|protocol| (*protocol, Transport::Udp))).collect()
}

/// Tries everything in `plan` side by side, in the order of the plan. At the longest it takes twice the limit of the
/// gateway and once that of the dial-back: with the defaults a second and a half.
pub async fn trials(
    survey: &Survey,
    plan: &[(Protocol, Transport)],
    options: &TrialOptions,
    journal: &Journal,
) -> Vec<Trial> {
    let (survey, mut running) = (Arc::new(survey.clone()), JoinSet::new());
    for (index, (protocol, transport)) in plan.iter().copied().enumerate() {
        let (survey, options, journal) = (Arc::clone(&survey), options.clone(), journal.clone());
        running.spawn(async move { (index, trial(&survey, protocol, transport, &options, &journal).await) });
    }
    // A task cannot fail but by a bug; the others' results are worth having all the same.
    let mut done = Vec::new();
    while let Some(finished) = running.join_next().await {
        done.extend(finished);
    }
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, trial)| trial).collect()
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
    let (listener, mapping) = match make(survey, protocol, transport, options, journal).await {
        Ok(made) => made,
        Err(error) => {
            trial.grant = Err(error);
            return trial;
        }
    };
    let grant = *mapping.grant();
    trial.grant = Ok(grant);
    if let Some(dialler) = options.dialler.clone() {
        let deadline = after(options.dial_back_limit);
        let ask = Ask { dialler, transport, port: grant.external_port, deadline };
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
