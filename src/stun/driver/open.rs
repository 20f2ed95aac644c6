//! Opens every socket of a server before the first is served.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use super::stream::Kind;
use super::{Config, Listening, StartError};
use crate::ops::listen::{BindError, Listeners};
use crate::stun::endpoint::{Endpoints, LocalSlot};
use crate::stun::plan::Site;
use crate::transport::udp::prepare;

/// How often a free pair of ports is looked for before giving up. A pair is refused where the port the system gave at one
/// address is taken at the other.
const PORT_TRIES: usize = 32;

/// Everything a server needs from the system.
pub(super) struct Opened {
    pub(super) endpoints: Endpoints,
    pub(super) listening: Vec<Listening>,
    /// For each worker, one socket for each slot from zero on.
    pub(super) udp: Vec<Vec<UdpSocket>>,
    pub(super) streams: Vec<(LocalSlot, Kind, TcpListener)>,
    smallest_buffer: usize,
}

/// One address, open.
struct Place {
    address: SocketAddr,
    /// One socket for each worker.
    udp: Vec<UdpSocket>,
    tcp: Option<TcpListener>,
}

pub(super) fn open(
    sites: &[Site],
    config: &Config,
    workers: usize,
    listeners: &mut Listeners,
) -> Result<Opened, StartError> {
    let mut opened = Opened {
        endpoints: Endpoints::default(),
        listening: Vec::new(),
        udp: (0..workers).map(|_| Vec::new()).collect(),
        streams: Vec::new(),
        smallest_buffer: usize::MAX,
    };
    let mut opener = Opener { listeners, workers, tcp: config.tcp };
    for site in sites {
        match *site {
            Site::Single(address) => {
                let place = opener.retrying(address.port() == 0, |opener| opener.place("listen", address))?;
                let slot = opened.endpoints.add_single(place.address);
                opened.take(slot, place, config)?;
            }
            Site::Group { primary, alternate } => {
                let free = primary.port() == 0 || alternate.port() == 0;
                let places = opener.retrying(free, |opener| opener.group(primary, alternate))?;
                let slots = opened.endpoints.add_group(places.each_ref().map(|place| place.address));
                for (slot, place) in slots.into_iter().zip(places) {
                    opened.take(slot, place, config)?;
                }
            }
        }
    }
    for address in &config.tls_listen {
        let listener = opener.listeners.tcp("tls_listen", *address)?;
        let address = bound(listener.local_addr())?;
        let slot = opened.endpoints.add_single(address);
        opened.listening.push(Listening { transport: Kind::Tls.name(), address });
        opened.streams.push((slot, Kind::Tls, listener));
    }
    if opened.smallest_buffer < config.buffers.receive {
        tracing::info!(
            asked = config.buffers.receive,
            given = opened.smallest_buffer,
            "the kernel gives smaller receive buffers than asked for; a burst may overflow them, net.core.rmem_max raises \
             the limit"
        );
    }
    Ok(opened)
}

fn bound(address: std::io::Result<SocketAddr>) -> Result<SocketAddr, StartError> {
    address.map_err(|source| StartError::System { what: "a socket has no address", source })
}

impl Opened {
    fn take(&mut self, slot: LocalSlot, place: Place, config: &Config) -> Result<(), StartError> {
        self.listening.push(Listening { transport: "udp", address: place.address });
        for (worker, socket) in self.udp.iter_mut().zip(place.udp) {
            let given = prepare(&socket, config.buffers)
                .map_err(|source| StartError::System { what: "a socket cannot be set up", source })?;
            self.smallest_buffer = self.smallest_buffer.min(given.receive);
            worker.push(socket);
        }
        if let Some(listener) = place.tcp {
            self.listening.push(Listening { transport: Kind::Tcp.name(), address: place.address });
            self.streams.push((slot, Kind::Tcp, listener));
        }
        Ok(())
    }
}

struct Opener<'l> {
    listeners: &'l mut Listeners,
    workers: usize,
    tcp: bool,
}

impl Opener<'_> {
    /// Tries again with other ports of the system's choice, where it has one and one of them was taken.
    fn retrying<T>(
        &mut self,
        has_choice: bool,
        mut open: impl FnMut(&mut Self) -> Result<T, StartError>,
    ) -> Result<T, StartError> {
        for _ in 1..PORT_TRIES {
            match open(self) {
                Err(StartError::Bind(error)) if has_choice && is_taken(&error) => {}
                other => return other,
            }
        }
        open(self)
    }

    fn place(&mut self, key: &str, address: SocketAddr) -> Result<Place, StartError> {
        let udp = self.listeners.udp_group(key, address, self.workers)?;
        let address = match udp.first() {
            Some(socket) => bound(socket.local_addr())?,
            None => address,
        };
        let tcp = if self.tcp { Some(self.listeners.tcp(key, address)?) } else { None };
        Ok(Place { address, udp, tcp })
    }

    /// The four places of RFC 5780 section 6.
    fn group(&mut self, primary: SocketAddr, alternate: SocketAddr) -> Result<[Place; 4], StartError> {
        let first = self.place("listen", primary)?;
        let other_port = self.place("listen", SocketAddr::new(primary.ip(), alternate.port()))?;
        let ports = [first.address.port(), other_port.address.port()];
        let [other_ip, both] = ports.map(|port| self.place("alternate", SocketAddr::new(alternate.ip(), port)));
        Ok([first, other_port, other_ip?, both?])
    }
}

fn is_taken(error: &BindError) -> bool {
    error.source.kind() == ErrorKind::AddrInUse
}
