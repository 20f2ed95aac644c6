//! Which sockets a server opens: single addresses, and pairs that span two addresses with two ports each.

use std::net::SocketAddr;

/// One address, or two that make a group of four sockets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Site {
    /// One address without alternates.
    Single(SocketAddr),
    /// Two addresses with two ports each (RFC 5780 section 6).
    Group {
        /// The first address and port.
        primary: SocketAddr,
        /// The second address and port.
        alternate: SocketAddr,
    },
}

/// An alternate that makes no group.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// There is no listening address of its family left to pair it with.
    #[error("{0} has no listening address of its family to be the alternate of")]
    NoPrimary(SocketAddr),
    /// It is not another address and another port.
    #[error("{alternate} must differ from {primary} in both the address and the port")]
    NotAnother {
        /// The listening address.
        primary: SocketAddr,
        /// The alternate.
        alternate: SocketAddr,
    },
    /// One of the two is a wildcard. An answer has to leave from an address the client can be told.
    #[error("{0} is a wildcard: with an alternate, both must be addresses of this host")]
    Wildcard(SocketAddr),
    /// More sockets than one thread waits for.
    #[error("these addresses make {0} sockets, and {MAX_SOCKETS} is the most")]
    TooMany(usize),
}

/// The most sockets for datagrams: what one thread waits for, less the descriptor that wakes it, rounded down.
const MAX_SOCKETS: usize = 60;

/// Pairs each alternate with the first listening address of its family that has none yet.
///
/// # Errors
/// [`PlanError`] for an alternate that makes no group.
pub fn plan(listen: &[SocketAddr], alternates: &[SocketAddr]) -> Result<Vec<Site>, PlanError> {
    let mut sites: Vec<Site> = listen.iter().copied().map(Site::Single).collect();
    for &alternate in alternates {
        let free = sites.iter_mut().find_map(|site| match *site {
            Site::Single(primary) if primary.is_ipv4() == alternate.is_ipv4() => Some((primary, site)),
            _ => None,
        });
        let (primary, site) = free.ok_or(PlanError::NoPrimary(alternate))?;
        if let Some(wildcard) = [primary, alternate].into_iter().find(|address| address.ip().is_unspecified()) {
            return Err(PlanError::Wildcard(wildcard));
        }
        if primary.ip() == alternate.ip() || (primary.port() == alternate.port() && primary.port() != 0) {
            return Err(PlanError::NotAnother { primary, alternate });
        }
        *site = Site::Group { primary, alternate };
    }
    let sockets = sites.iter().map(|site| if matches!(site, Site::Single(_)) { 1 } else { 4 }).sum();
    if sockets > MAX_SOCKETS { Err(PlanError::TooMany(sockets)) } else { Ok(sites) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("a socket address")).collect()
    }

    fn planned(listen: &[&str], alternates: &[&str]) -> Result<Vec<Site>, PlanError> {
        plan(&addresses(listen), &addresses(alternates))
    }

    #[test]
    fn each_family_has_its_own_group() {
        let sites = planned(&["127.0.0.1:1", "[::1]:1", "127.0.0.9:1"], &["[::2]:2", "127.0.0.2:2"]).expect("a plan");
        let [primary4, alternate4, primary6, alternate6, single] =
            addresses(&["127.0.0.1:1", "127.0.0.2:2", "[::1]:1", "[::2]:2", "127.0.0.9:1"])[..]
        else {
            unreachable!()
        };
        assert_eq!(
            sites,
            [
                Site::Group { primary: primary4, alternate: alternate4 },
                Site::Group { primary: primary6, alternate: alternate6 },
                Site::Single(single)
            ]
        );
    }

    #[test]
    fn more_sockets_than_a_thread_waits_for_are_refused() {
        let listen: Vec<SocketAddr> = (1..=61).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        assert!(plan(&listen[..60], &[]).is_ok());
        assert_eq!(plan(&listen, &[]), Err(PlanError::TooMany(61)));
        let alternate = SocketAddr::from(([127, 0, 0, 2], 99));
        assert_eq!(plan(&listen[..58], &[alternate]), Err(PlanError::TooMany(61)));
    }

    #[test]
    fn an_alternate_that_is_no_other_place_is_refused() {
        for (listen, alternate) in [
            ("127.0.0.1:1", "127.0.0.1:2"),
            ("127.0.0.1:1", "127.0.0.2:1"),
            ("0.0.0.0:1", "127.0.0.2:2"),
            ("127.0.0.1:1", "[::1]:2"),
        ] {
            assert!(planned(&[listen], &[alternate]).is_err(), "{listen} {alternate}");
        }
        assert!(planned(&["127.0.0.1:0"], &["127.0.0.2:0"]).is_ok(), "the system finds two ports");
    }
}
