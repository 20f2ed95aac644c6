//! The sockets and the clock of the detector.
//!
//! Every socket is bound to the address that leads to the servers, not to the wildcard: a mapped address can only be
//! compared with a local address that is known. Each socket has a task that reads it into one bounded channel; ICMP
//! errors come with the address of whoever sent them.
#![cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "a driver owns clock, sockets and tasks"))]

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::os::fd::AsRawFd as _;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Config, Detector, Event, Findings};
use crate::nat::client::{PacketLog, Refusal, Slot, Unreachable};

/// Datagrams read and not yet looked at.
const QUEUE: usize = 256;
/// The largest datagram read.
const MAX_DATAGRAM: usize = 4_096;

/// What arrived at a socket.
enum Arrival {
    Datagram { at: Instant, slot: Slot, from: SocketAddr, bytes: Vec<u8> },
    Error { slot: Slot, to: SocketAddr, error: Unreachable },
}

/// A finished diagnosis.
#[derive(Debug)]
pub struct Diagnosis {
    /// What was found out.
    pub findings: Findings,
    /// Every packet.
    pub log: PacketLog,
}

/// Runs one detector from `local` to its end and tells `progress` what happens on the way.
pub async fn diagnose(config: Config, local: IpAddr, mut progress: impl FnMut(Event, &Detector)) -> Diagnosis {
    let mut detector = Detector::new(config, rand::random());
    let (arrivals, mut arrived) = mpsc::channel(QUEUE);
    let mut sockets = BTreeMap::new();
    let mut readers = JoinSet::new();
    detector.handle_start(Instant::now());
    loop {
        while let Some(wanted) = detector.poll_open() {
            let opened = open(local, wanted.port).and_then(|socket| Ok((socket.local_addr()?, Arc::new(socket))));
            let address = opened.as_ref().ok().map(|(address, _)| *address);
            match opened {
                Ok((_, socket)) => {
                    readers.spawn(read(wanted.slot, Arc::clone(&socket), arrivals.clone()));
                    sockets.insert(wanted.slot, socket);
                }
                Err(error) => tracing::debug!(%error, "a socket cannot be opened"),
            }
            detector.handle_open(Instant::now(), wanted.slot, address);
        }
        while let Some(transmit) = detector.poll_transmit() {
            let Some(socket) = sockets.get(&transmit.socket) else { continue };
            if let Err(error) = send(socket, &transmit.payload, transmit.to) {
                tracing::debug!(%error, to = %transmit.to, "a request was not sent");
                let error = Unreachable { refusal: refusal_of(&error), offender: None };
                detector.handle_error(Instant::now(), transmit.socket, transmit.to, error);
            }
        }
        while let Some(event) = detector.poll_event() {
            progress(event, &detector);
        }
        let Some(timeout) = detector.poll_timeout() else { break };
        tokio::select! {
            biased;
            Some(arrival) = arrived.recv() => match arrival {
                Arrival::Datagram { at, slot, from, bytes } => detector.handle_input(at, slot, from, &bytes),
                Arrival::Error { slot, to, error } => detector.handle_error(Instant::now(), slot, to, error),
            },
            () = tokio::time::sleep_until(timeout.into()) => detector.handle_timeout(Instant::now()),
        }
    }
    Diagnosis { findings: detector.findings(), log: detector.log().clone() }
}

/// The local address the system would use towards `server`. Connecting a UDP socket sends nothing.
///
/// # Errors
/// What the system says: no route of this family.
pub fn local_towards(server: SocketAddr) -> io::Result<IpAddr> {
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    Ok(socket.local_addr()?.ip())
}

/// The largest IP packet the system believes the way to `server` carries, which starts as what the local link carries.
#[must_use]
pub fn link_mtu(server: SocketAddr) -> Option<u32> {
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
    socket.connect(server).ok()?;
    let mtu = if server.is_ipv4() {
        nix::sys::socket::getsockopt(&socket, sockopt::IpMtu).ok()?
    } else {
        return None;
    };
    u32::try_from(mtu).ok()
}

fn open(local: IpAddr, port: Option<u16>) -> io::Result<UdpSocket> {
    let domain = if local.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let bind = |port| {
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(local, port).into())?;
        Ok::<_, io::Error>(socket)
    };
    let socket = match port {
        Some(port) => bind(port).or_else(|_| bind(0))?,
        None => bind(0)?,
    };
    // Without this, an unconnected socket never hears of ICMP errors.
    let heard = if local.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)
    };
    if let Err(error) = heard {
        tracing::debug!(%error, "ICMP errors will not be heard");
    }
    UdpSocket::from_std(socket.into())
}

/// Sends once more where an error of an earlier datagram was reported instead of sending this one. Goes around the
/// runtime's notion of readiness, which a socket that was just opened does not have yet; a full buffer loses the datagram
/// as the network might.
fn send(socket: &UdpSocket, payload: &[u8], to: SocketAddr) -> io::Result<()> {
    let (socket, to) = (SockRef::from(socket), to.into());
    match socket.send_to(payload, &to) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(_) => socket.send_to(payload, &to).map(drop),
    }
}

/// Reads one socket until the channel closes.
async fn read(slot: Slot, socket: Arc<UdpSocket>, arrivals: mpsc::Sender<Arrival>) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    while let Ok(ready) = socket.ready(Interest::READABLE | Interest::ERROR).await {
        let mut batch = Vec::new();
        if ready.is_error() {
            while let Ok((to, error)) = socket.try_io(Interest::ERROR, || next_error(&socket)) {
                batch.push(Arrival::Error { slot, to, error });
            }
        }
        while let Ok((length, from)) = socket.try_recv_from(&mut buffer) {
            let bytes = buffer.get(..length).unwrap_or_default().to_vec();
            batch.push(Arrival::Datagram { at: Instant::now(), slot, from, bytes });
        }
        for arrival in batch {
            if arrivals.send(arrival).await.is_err() {
                return;
            }
        }
    }
}

/// Takes one ICMP error off the socket's error queue: where the refused datagram went, why, and who said so.
fn next_error(socket: &UdpSocket) -> io::Result<(SocketAddr, Unreachable)> {
    let mut control = nix::cmsg_space!(nix::libc::sock_extended_err, nix::libc::sockaddr_in6);
    let mut empty = [io::IoSliceMut::new(&mut [])];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut empty, Some(&mut control), flags)?;
    let to = message.address.and_then(plain).ok_or(io::ErrorKind::InvalidData)?;
    let mut unreachable = Unreachable { refusal: Refusal::Path, offender: None };
    for control in message.cmsgs()? {
        let (error, offender) = match control {
            ControlMessageOwned::Ipv4RecvErr(error, offender) => {
                (error, offender.map(|offender| IpAddr::from(offender.sin_addr.s_addr.to_ne_bytes())))
            }
            ControlMessageOwned::Ipv6RecvErr(error, offender) => {
                (error, offender.map(|offender| IpAddr::from(offender.sin6_addr.s6_addr)))
            }
            _ => continue,
        };
        let errno = io::Error::from_raw_os_error(i32::try_from(error.ee_errno).unwrap_or_default());
        unreachable.refusal = refusal_of(&errno);
        unreachable.offender = offender.filter(|ip| !ip.is_unspecified());
    }
    Ok((to, unreachable))
}

fn plain(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::from((address.ip(), address.port())));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::from((address.ip(), address.port()))))
}

fn refusal_of(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(nix::libc::ECONNREFUSED) => Refusal::Port,
        Some(nix::libc::EMSGSIZE) => Refusal::TooBig,
        Some(nix::libc::EHOSTUNREACH | nix::libc::ENETUNREACH | nix::libc::EACCES) => Refusal::Path,
        _ => Refusal::Local,
    }
}
