//! Opens listening sockets, or takes those the service manager passed on, and explains what went wrong.
//!
//! Sockets passed by socket activation are used where their address is the configured one. A name given to them
//! (`FileDescriptorName=`) that equals the configuration key replaces the configured addresses of that key.

mod holder;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// UDP or TCP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

/// A socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {transport} {address} (`{key}`): {source}{}", hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default())]
pub struct BindError {
    /// The configuration key the address belongs to.
    pub key: String,
    /// UDP or TCP.
    pub transport: Transport,
    /// The address.
    pub address: SocketAddr,
    /// What to look at.
    pub hint: Option<String>,
    /// What the system said.
    pub source: io::Error,
}

impl BindError {
    /// Whether a privilege is missing, as opposed to the address not being available.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }

    fn new(key: &str, transport: Transport, address: SocketAddr, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => Some(match holder::of(transport, address) {
                Some(holder) => format!("held by {holder}"),
                None => "another process holds it, `ss -lnp` as root shows which".to_owned(),
            }),
            io::ErrorKind::AddrNotAvailable => {
                Some("no interface of this host has that address, `ip address` lists those there are".to_owned())
            }
            io::ErrorKind::PermissionDenied if address.port() < 1024 => Some(
                "low ports need the capability CAP_NET_BIND_SERVICE (AmbientCapabilities= in a unit) or a socket unit"
                    .to_owned(),
            ),
            _ => None,
        };
        Self { key: key.to_owned(), transport, address, hint, source }
    }
}

/// The source of listening sockets for one start.
#[derive(Debug, Default)]
pub struct Listeners {
    inherited: Vec<Inherited>,
}

#[derive(Debug)]
struct Inherited {
    name: String,
    transport: Transport,
    address: SocketAddr,
    socket: Socket,
}

impl Listeners {
    /// Takes the sockets the service manager passed on. Must be called before the first thread is spawned, because it
    /// removes the variables that announce them.
    #[must_use]
    pub fn from_environment() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        // Without LISTEN_PID the announcement may be meant for a parent.
        if std::env::var_os("LISTEN_PID").is_none() {
            return Self::default();
        }
        let mut fds = ListenFd::from_env();
        let mut inherited = Vec::new();
        for index in 0..fds.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let socket = if let Ok(Some(udp)) = fds.take_udp_socket(index) {
                (Transport::Udp, Socket::from(udp))
            } else if let Ok(Some(tcp)) = fds.take_tcp_listener(index) {
                (Transport::Tcp, Socket::from(tcp))
            } else {
                continue;
            };
            let (transport, socket) = socket;
            if let Some(address) = socket.local_addr().ok().and_then(|address| address.as_socket()) {
                inherited.push(Inherited { name, transport, address, socket });
            }
        }
        Self { inherited }
    }

    /// The addresses to listen on for `key`: those of the sockets that were passed on under its name, or else the
    /// configured ones.
    #[must_use]
    pub fn addresses(&self, key: &str, transport: Transport, configured: &[SocketAddr]) -> Vec<SocketAddr> {
        let passed: Vec<_> = self
            .inherited
            .iter()
            .filter(|it| it.name == key && it.transport == transport)
            .map(|it| it.address)
            .collect();
        if passed.is_empty() { configured.to_vec() } else { passed }
    }

    /// A UDP socket on `address`, non-blocking.
    ///
    /// # Errors
    /// [`BindError`] where it cannot be opened.
    pub fn udp(&mut self, key: &str, address: SocketAddr) -> Result<UdpSocket, BindError> {
        let fail = |source| BindError::new(key, Transport::Udp, address, source);
        let socket = match self.take(Transport::Udp, address) {
            Some(socket) => socket,
            None => open(Transport::Udp, address, false).map_err(fail)?,
        };
        socket.set_nonblocking(true).map_err(fail)?;
        Ok(socket.into())
    }

    /// `count` UDP sockets that share `address`: the kernel spreads clients over them by hash (SO_REUSEPORT). A socket
    /// that was passed on is shared as it is.
    ///
    /// # Errors
    /// [`BindError`] where one cannot be opened, and where anybody else listens there: SO_REUSEPORT alone would let two
    /// servers of one user share a port unnoticed.
    pub fn udp_group(&mut self, key: &str, address: SocketAddr, count: usize) -> Result<Vec<UdpSocket>, BindError> {
        let fail = |source| BindError::new(key, Transport::Udp, address, source);
        let mut group: Vec<Socket> = Vec::new();
        if let Some(socket) = self.take(Transport::Udp, address) {
            for _ in 1..count {
                group.push(socket.try_clone().map_err(fail)?);
            }
            group.push(socket);
        } else {
            // Bound alone, which fails where anybody else is, and shared only after that.
            let first = open(Transport::Udp, address, false).map_err(fail)?;
            first.set_reuse_port(true).map_err(fail)?;
            let bound = first.local_addr().map_err(fail)?.as_socket().unwrap_or(address);
            group.push(first);
            for _ in 1..count {
                group.push(open(Transport::Udp, bound, true).map_err(fail)?);
            }
        }
        for socket in &group {
            socket.set_nonblocking(true).map_err(fail)?;
        }
        Ok(group.into_iter().map(UdpSocket::from).collect())
    }

    /// A listening TCP socket on `address`, non-blocking.
    ///
    /// # Errors
    /// [`BindError`] where it cannot be opened.
    pub fn tcp(&mut self, key: &str, address: SocketAddr) -> Result<TcpListener, BindError> {
        let fail = |source| BindError::new(key, Transport::Tcp, address, source);
        let socket = match self.take(Transport::Tcp, address) {
            Some(socket) => socket,
            None => open(Transport::Tcp, address, false).map_err(fail)?,
        };
        socket.set_nonblocking(true).map_err(fail)?;
        Ok(socket.into())
    }

    /// What was passed on and not used, in words.
    #[must_use]
    pub fn unused(&self) -> Vec<String> {
        self.inherited.iter().map(|it| format!("{} {} ({})", it.transport, it.address, it.name)).collect()
    }

    fn take(&mut self, transport: Transport, address: SocketAddr) -> Option<Socket> {
        let at = self.inherited.iter().position(|it| it.transport == transport && it.address == address)?;
        Some(self.inherited.remove(at).socket)
    }
}

fn open(transport: Transport, address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // [::] and 0.0.0.0 are two listeners, each with addresses of its own family.
        socket.set_only_v6(true)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    if transport == Transport::Tcp {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if transport == Transport::Tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    #[test]
    fn f21_a_port_in_use_names_the_address_and_its_holder() {
        let mut listeners = Listeners::default();
        for transport in [Transport::Udp, Transport::Tcp] {
            let (udp, tcp);
            let address = match transport {
                Transport::Udp => {
                    udp = UdpSocket::bind(any()).unwrap();
                    udp.local_addr().unwrap()
                }
                Transport::Tcp => {
                    tcp = TcpListener::bind(any()).unwrap();
                    tcp.local_addr().unwrap()
                }
            };
            let error = match transport {
                Transport::Udp => listeners.udp_group("listen", address, 2).unwrap_err(),
                Transport::Tcp => listeners.tcp("listen", address).unwrap_err(),
            };
            let text = error.to_string();
            assert!(text.contains(&format!("{transport} {address}")), "{text}");
            assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
            assert!(!error.is_permission());
        }
    }

    #[test]
    fn a_group_shares_one_port_and_refuses_to_share_it_with_strangers() {
        let mut listeners = Listeners::default();
        let group = listeners.udp_group("listen", any(), 3).unwrap();
        let address = group[0].local_addr().unwrap();
        assert!(group.iter().all(|socket| socket.local_addr().unwrap() == address));
        assert!(listeners.udp_group("listen", address, 1).is_err());
        drop(group);
        assert!(listeners.udp_group("listen", address, 1).is_ok());
    }

    #[test]
    fn f21_a_missing_address_is_explained() {
        let error = Listeners::default().udp("listen", "192.0.2.1:3478".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("no interface of this host"), "{error}");
    }

    #[test]
    fn both_families_listen_on_one_port() {
        let mut listeners = Listeners::default();
        let Ok(v6) = listeners.tcp("listen", "[::]:0".parse().unwrap()) else {
            return; // A host without IPv6 has nothing to show here.
        };
        let port = v6.local_addr().unwrap().port();
        assert!(listeners.tcp("listen", ([0, 0, 0, 0], port).into()).is_ok());
    }

    #[test]
    fn a_socket_passed_under_the_name_of_a_key_replaces_the_configured_addresses() {
        let socket = Socket::from(UdpSocket::bind(any()).unwrap());
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let name = "listen".to_owned();
        let mut listeners =
            Listeners { inherited: vec![Inherited { name, transport: Transport::Udp, address, socket }] };
        let configured = ["127.0.0.1:9".parse().unwrap()];
        assert_eq!(listeners.addresses("listen", Transport::Udp, &configured), [address]);
        assert_eq!(listeners.addresses("listen", Transport::Tcp, &configured), configured);
        assert_eq!(listeners.addresses("admin", Transport::Udp, &configured), configured);
        assert_eq!(listeners.unused().len(), 1);
        assert_eq!(listeners.udp("listen", address).unwrap().local_addr().unwrap(), address);
        assert!(listeners.unused().is_empty());
    }
}
