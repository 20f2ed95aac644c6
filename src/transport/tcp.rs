//! Listeners that survive a lack of file descriptors, and caps on how many connections anybody holds.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::address::peer_addr::canonical_ip;
use crate::address::{Prefix, prefix};

/// The first pause after the system had no descriptor left, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// A listener's accept loop, one connection at a time.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    pause: Duration,
}

/// What an accept attempt brought.
#[derive(Debug)]
pub enum Accepted {
    /// A connection.
    Connection(TcpStream, SocketAddr),
    /// A connection that was gone before it was accepted.
    Gone(io::Error),
    /// The system is out of descriptors or memory; the loop has paused before it says so.
    Exhausted(io::Error),
}

impl Acceptor {
    /// Wraps a listener.
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, pause: PAUSE.0 }
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for a connection. While descriptors are short it pauses, longer each time, instead of spinning: the
    /// connection stays in the kernel's queue and is taken when a descriptor is free again.
    pub async fn accept(&mut self) -> Accepted {
        match self.listener.accept().await {
            Ok((stream, peer)) => {
                self.pause = PAUSE.0;
                Accepted::Connection(stream, peer)
            }
            Err(error) if is_about_the_peer(&error) => Accepted::Gone(error),
            Err(error) => {
                tokio::time::sleep(self.pause).await;
                self.pause = self.pause.saturating_mul(2).min(PAUSE.1);
                Accepted::Exhausted(error)
            }
        }
    }
}

fn is_about_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// How many connections may be open at once. Zero means no cap.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConnectionLimits {
    /// All together.
    pub total: u32,
    /// From one IPv4 address or one IPv6 /64.
    pub per_host: u32,
    /// From one IPv4 /24 or one IPv6 /48.
    pub per_site: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { total: 10_000, per_host: 256, per_site: 2_048 }
    }
}

/// Why a connection was not admitted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// All places are taken.
    Total,
    /// The host has its share.
    Host,
    /// The site has its share.
    Site,
}

/// Counts open connections. Its memory is bounded by the number of connections that are open.
#[derive(Debug, Default)]
pub struct ConnectionCaps {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: u32,
    by_prefix: BTreeMap<Prefix, u32>,
}

impl ConnectionCaps {
    /// Admits a connection, or says which cap is reached. The place is free again when the permit is dropped.
    ///
    /// # Errors
    /// The cap that is reached.
    pub fn admit(self: &Arc<Self>, peer: IpAddr, limits: ConnectionLimits) -> Result<Permit, Refusal> {
        let peer = canonical_ip(peer);
        let prefixes = [prefix::Prefix::host(peer), prefix::Prefix::site(peer)];
        let mut open = self.lock();
        let is_full = |held: u32, limit: u32| limit > 0 && held >= limit;
        if is_full(open.total, limits.total) {
            return Err(Refusal::Total);
        }
        for (prefix, limit, refusal) in
            [(prefixes[0], limits.per_host, Refusal::Host), (prefixes[1], limits.per_site, Refusal::Site)]
        {
            if is_full(open.by_prefix.get(&prefix).copied().unwrap_or(0), limit) {
                return Err(refusal);
            }
        }
        open.total = open.total.saturating_add(1);
        for prefix in prefixes {
            let held = open.by_prefix.entry(prefix).or_insert(0);
            *held = held.saturating_add(1);
        }
        drop(open);
        Ok(Permit { caps: Arc::clone(self), prefixes })
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection.
#[derive(Debug)]
pub struct Permit {
    caps: Arc<ConnectionCaps>,
    prefixes: [Prefix; 2],
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.caps.lock();
        open.total = open.total.saturating_sub(1);
        for prefix in self.prefixes {
            if let Some(held) = open.by_prefix.get_mut(&prefix) {
                *held = held.saturating_sub(1);
                if *held == 0 {
                    open.by_prefix.remove(&prefix);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an IP address")
    }

    #[test]
    fn a_cap_holds_for_a_host_a_site_and_all_together() {
        let caps = Arc::new(ConnectionCaps::default());
        let limits = ConnectionLimits { total: 5, per_host: 2, per_site: 3 };
        let admit = |peer: &str| caps.admit(ip(peer), limits);
        let _a = admit("198.51.100.1").expect("first");
        let _b = admit("198.51.100.1").expect("second");
        assert_eq!(admit("198.51.100.1").map(drop), Err(Refusal::Host));
        assert_eq!(admit("::ffff:198.51.100.1").map(drop), Err(Refusal::Host));
        let _c = admit("198.51.100.2").expect("another host");
        assert_eq!(admit("198.51.100.3").map(drop), Err(Refusal::Site));
        let _d = admit("2001:db8::1").expect("another family");
        let e = admit("2001:db8::2").expect("the same /64");
        assert_eq!(admit("203.0.113.1").map(drop), Err(Refusal::Total));
        drop(e);
        assert_eq!(admit("203.0.113.1").map(drop), Ok(()));
        assert_eq!(caps.open(), 4);
    }

    #[test]
    fn closed_connections_leave_nothing_behind() {
        let caps = Arc::new(ConnectionCaps::default());
        for host in 0..1_000u32 {
            let peer = IpAddr::V4(std::net::Ipv4Addr::from_bits(host << 12));
            drop(caps.admit(peer, ConnectionLimits::default()).expect("a place"));
        }
        assert_eq!(caps.open(), 0);
        assert!(caps.lock().by_prefix.is_empty());
    }
}
