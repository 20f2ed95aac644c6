//! Makes, renews and removes one mapping.
#![cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "a driver owns clock, sockets and tasks"))]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::RngExt as _;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::Instant;

use super::super::driver::{ask, at};
use super::super::epoch::EpochClock;
use super::super::exchange::{Conclusion, Question, Reply};
use super::super::igd::Connection;
use super::super::igd::driver::{ControlError, ControlPoint};
use super::super::journal::Entry;
use super::super::journal::driver::{Journal, unix_now};
use super::super::survey::{Route, Survey};
use super::super::{Protocol, Transport, natpmp, pcp};
use super::{Claim, Grant, MapError, Record, Removal, Wish, granted, renew_after};

/// How many outer ports are tried where the wished one is taken.
const PORT_TRIES: usize = 4;

/// How long an unanswered wish is undone for.
const UNDO_LIMIT: Duration = Duration::from_millis(700);

/// A mapping that stands. Dropping it leaves it to the journal's readers; call [`Mapping::remove`].
#[derive(Debug)]
pub struct Mapping {
    record: Record,
    grant: Grant,
    clock: EpochClock,
    journal: Journal,
}

/// Asks for a mapping. What the survey found says where and how; `port` is the UDP port of PCP and NAT-PMP.
///
/// The record is safe in `journal` before the request leaves. Where no answer comes, the mapping is undone as if it had
/// been made.
///
/// # Errors
/// A [`MapError`] that says why there is none.
pub async fn map(
    survey: &Survey,
    port: u16,
    wish: &Wish,
    journal: &Journal,
    deadline: Instant,
) -> Result<Mapping, MapError> {
    let not_offered = MapError::NotOffered(wish.protocol);
    let Some(route) = survey.route else { return Err(not_offered) };
    let (claim, clock) = match wish.protocol {
        Protocol::Pcp => {
            let clock = survey.pcp.facts.as_ref().map(|facts| facts.clock).ok_or(not_offered)?;
            let igd = survey.igd.facts.as_ref().filter(|facts| !facts.over_ipv6);
            let igd = igd.and_then(|facts| facts.connections.first().cloned());
            (Claim::Pcp { nonce: pcp::Nonce(rand::random()), port, igd }, clock)
        }
        Protocol::NatPmp => {
            let clock = survey.natpmp.facts.as_ref().map(|facts| facts.clock).ok_or(not_offered)?;
            (Claim::NatPmp { port }, clock)
        }
        Protocol::Igd => {
            let Some(facts) = &survey.igd.facts else { return Err(not_offered) };
            let claim = match (route.gateway, facts.connections.first(), &facts.firewall) {
                (IpAddr::V4(_), Some(connection), _) => Claim::Igd(connection.clone()),
                (IpAddr::V6(_), _, Some(firewall)) => Claim::Pinhole { firewall: firewall.clone(), id: None },
                _ => return Err(not_offered),
            };
            (claim, EpochClock::default())
        }
    };
    let known = survey.external_addresses().into_iter().find(|(protocol, _)| *protocol == wish.protocol);
    let mut attempt = Attempt { wish, route, known: known.map(|(_, ip)| ip), clock, journal, deadline };
    attempt.run(claim).await
}

struct Attempt<'a> {
    wish: &'a Wish,
    route: Route,
    known: Option<IpAddr>,
    clock: EpochClock,
    journal: &'a Journal,
    deadline: Instant,
}

impl Attempt<'_> {
    async fn run(&mut self, claim: Claim) -> Result<Mapping, MapError> {
        let first = if self.wish.external_port == 0 { self.wish.internal_port } else { self.wish.external_port };
        let (mut external_port, mut lease) = (first, self.wish.bounded_lease());
        let mut tries = 0;
        loop {
            let error = match self.once(claim.clone(), external_port, lease).await {
                Ok(mapping) => return Ok(mapping),
                Err(error) => error,
            };
            match error {
                MapError::Igd(ControlError::OnlyPermanent) if lease != 0 => lease = 0,
                MapError::Igd(ControlError::SamePortOnly) if external_port != self.wish.internal_port => {
                    external_port = self.wish.internal_port;
                }
                MapError::Igd(ControlError::Conflict) if tries < PORT_TRIES && self.wish.external_port == 0 => {
                    tries = tries.saturating_add(1);
                    external_port = rand::rng().random_range(1024..=u16::MAX);
                }
                error => return Err(error),
            }
        }
    }

    /// One request, journaled before and after.
    async fn once(&self, claim: Claim, external_port: u16, lease: u32) -> Result<Mapping, MapError> {
        let record = Record {
            id: rand::random(),
            claim,
            route: self.route,
            transport: self.wish.transport,
            internal_port: self.wish.internal_port,
            external_port,
            lease,
            asked_at: unix_now(),
            granted: false,
        };
        self.journal.write(&Entry::Intent(record.clone())).await.map_err(MapError::Journal)?;
        let mut mapping = Mapping {
            record,
            grant: Grant { external: None, external_port, lease, restarted: false },
            clock: self.clock,
            journal: self.journal.clone(),
        };
        match mapping.request(self.deadline).await {
            Ok(grant) => {
                mapping.grant = grant;
                if let (None, Some(ip)) = (grant.external, self.known) {
                    mapping.grant.external = Some(SocketAddr::new(ip, grant.external_port));
                }
                mapping.note_grant().await;
                Ok(mapping)
            }
            Err(error) => {
                mapping.abandon(&error).await;
                Err(error)
            }
        }
    }
}

impl Mapping {
    /// What the gateway granted.
    #[must_use]
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }

    /// What it takes to undo it.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// How long after it was made or last renewed it should be renewed. `None` for one without end.
    #[must_use]
    pub fn renew_after(&self) -> Option<Duration> {
        renew_after(self.grant.lease).map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// Renews it for the lease it has. The grant says what came of it: a gateway that restarted may give another port.
    ///
    /// # Errors
    /// A [`MapError`] that says why not. The old lease stands.
    pub async fn renew(&mut self, deadline: Instant) -> Result<(), MapError> {
        let grant = self.request(deadline).await?;
        let external = grant.external.or(self.grant.external);
        self.grant = Grant { external, ..grant };
        self.note_grant().await;
        Ok(())
    }

    /// Removes it.
    ///
    /// # Errors
    /// A [`MapError`] where the gateway could not be asked; the journal's readers try again.
    pub async fn remove(self, deadline: Instant) -> Result<Removal, MapError> {
        let removal = undo(&self.record, Claimant::Owner, deadline).await?;
        if !matches!(removal, Removal::LeftToExpire { .. }) {
            self.note_removal().await;
        }
        Ok(removal)
    }

    /// Sends the request for what the record says, as often as the schedule allows.
    async fn request(&mut self, deadline: Instant) -> Result<Grant, MapError> {
        let record = &mut self.record;
        let (transport, internal_port, lease) = (record.transport, record.internal_port, record.lease);
        match &mut record.claim {
            Claim::Pcp { nonce, port, .. } => {
                let (nonce, port) = (*nonce, *port);
                let question = pcp_question(record, nonce, record.external_port, lease);
                let finished = ask(record.route.local, at(&record.route, port), question, self.clock, deadline).await?;
                self.clock = finished.clock;
                match finished.conclusion {
                    Conclusion::Answered { reply: Reply::Pcp(response), restarted, .. } => {
                        match (response.result, response.operation) {
                            (pcp::ResultCode::Success, Some(pcp::Operation::Map(map))) => {
                                granted(map.external, response.lifetime, restarted)
                            }
                            (result, _) => Err(MapError::Pcp(result)),
                        }
                    }
                    Conclusion::Answered { .. } | Conclusion::Refused => Err(MapError::NotOffered(Protocol::Pcp)),
                    Conclusion::Silent => Err(MapError::Silent),
                }
            }
            Claim::NatPmp { port } => {
                let port = *port;
                let question = Question::NatPmp(natpmp::Request::Map {
                    transport,
                    internal_port,
                    external_port: record.external_port,
                    lifetime: lease,
                });
                let finished = ask(record.route.local, at(&record.route, port), question, self.clock, deadline).await?;
                self.clock = finished.clock;
                match finished.conclusion {
                    Conclusion::Answered { reply: Reply::NatPmp(response), restarted, .. } => {
                        match (response.result, response.answer) {
                            (natpmp::ResultCode::Success, natpmp::Answer::Map { external_port, lifetime, .. }) => {
                                granted(pcp::any_external(record.route.local, external_port), lifetime, restarted)
                            }
                            (result, _) => Err(MapError::NatPmp(result)),
                        }
                    }
                    Conclusion::Answered { .. } | Conclusion::Refused => Err(MapError::NotOffered(Protocol::NatPmp)),
                    Conclusion::Silent => Err(MapError::Silent),
                }
            }
            Claim::Igd(connection) => {
                let point = ControlPoint { route: record.route, deadline };
                let internal = SocketAddr::new(record.route.local, internal_port);
                let description = format!("nzc {:016x}", record.id);
                point.add_mapping(connection, transport, record.external_port, internal, lease, &description).await?;
                Ok(Grant { external: None, external_port: record.external_port, lease, restarted: false })
            }
            Claim::Pinhole { firewall, id } => {
                let point = ControlPoint { route: record.route, deadline };
                let IpAddr::V6(local) = record.route.local else { return Err(MapError::NotOffered(Protocol::Igd)) };
                let internal = std::net::SocketAddrV6::new(local, internal_port, 0, 0);
                *id = Some(point.add_pinhole(firewall, transport, internal, lease).await?);
                let external = SocketAddr::new(record.route.local, internal_port);
                Ok(Grant { external: Some(external), external_port: internal_port, lease, restarted: false })
            }
        }
    }

    async fn note_grant(&mut self) {
        let record = &mut self.record;
        (record.external_port, record.asked_at, record.granted) = (self.grant.external_port, unix_now(), true);
        let pinhole = if let Claim::Pinhole { id, .. } = record.claim { id } else { None };
        let entry = Entry::Granted {
            id: record.id,
            external_port: record.external_port,
            lease: self.grant.lease,
            at: record.asked_at,
            pinhole,
        };
        // The intent is safe already: without this line the readers only look for longer.
        if let Err(error) = self.journal.write(&entry).await {
            tracing::debug!(%error, "grant not journaled");
        }
    }

    async fn note_removal(&self) {
        if let Err(error) = self.journal.write(&Entry::Removed { id: self.record.id }).await {
            tracing::debug!(%error, "removal not journaled");
        }
    }

    /// After a refusal there is nothing to undo; after silence there may be.
    async fn abandon(&self, error: &MapError) {
        let may_stand = matches!(
            error,
            MapError::Silent
                | MapError::Io(_)
                | MapError::GatewayMisbehaved(_)
                | MapError::Igd(ControlError::Unusable(_))
        );
        if !may_stand {
            return self.note_removal().await;
        }
        let deadline = Instant::now().checked_add(UNDO_LIMIT).unwrap_or_else(Instant::now);
        if let Ok(Removal::Removed | Removal::AlreadyGone) = undo(&self.record, Claimant::Asker, deadline).await {
            self.note_removal().await;
        }
    }
}

fn pcp_question(record: &Record, nonce: pcp::Nonce, external_port: u16, lifetime: u32) -> Question {
    Question::Pcp(pcp::Request {
        client: record.route.local,
        lifetime,
        operation: pcp::Operation::Map(pcp::Map {
            nonce,
            transport: record.transport,
            internal_port: record.internal_port,
            external: pcp::any_external(record.route.local, external_port),
        }),
    })
}

/// Who takes a mapping back, and so how much it has to prove.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) enum Claimant {
    /// Its maker, to whom it was granted.
    Owner,
    /// Its maker, who did not hear an answer: what stands at the port may be somebody else's.
    Asker,
    /// Another process, after the maker's death: even the internal port may be somebody else's by now.
    Heir,
}

/// Takes a mapping back. Nothing is removed that cannot be told to be this record's.
///
/// # Errors
/// A [`MapError`] where the gateway could not be asked or did not answer.
pub(in super::super) async fn undo(
    record: &Record,
    claimant: Claimant,
    deadline: Instant,
) -> Result<Removal, MapError> {
    // NAT-PMP and pinholes have no sign of their maker: they belong to whoever has the internal port.
    let is_anonymous = matches!(record.claim, Claim::NatPmp { .. } | Claim::Pinhole { .. });
    if claimant == Claimant::Heir && is_anonymous && is_in_use(record).await {
        return Ok(Removal::LeftToExpire { lease: record.lease });
    }
    match &record.claim {
        Claim::Pcp { nonce, port, igd } => match undo_pcp(record, *nonce, *port, deadline).await? {
            pcp::ResultCode::Success => Ok(Removal::Removed),
            refusal => Ok(look_elsewhere(record, refusal, igd.as_ref(), claimant, deadline).await),
        },
        Claim::NatPmp { port } => undo_natpmp(record, *port, deadline).await,
        Claim::Igd(connection) => {
            let point = ControlPoint { route: record.route, deadline };
            if claimant != Claimant::Owner {
                match point.mapping_at(connection, record.transport, record.external_port).await {
                    Ok(Some(entry)) if entry.description.contains(&record.description()) => {}
                    Ok(_) => return Ok(Removal::AlreadyGone),
                    // It would not say whose it is. A granted one was ours a lease ago at most.
                    Err(ControlError::Refused { .. }) if record.granted => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match point.remove_mapping(connection, record.transport, record.external_port).await {
                Ok(()) => Ok(Removal::Removed),
                Err(ControlError::NotFound) => Ok(Removal::AlreadyGone),
                Err(ControlError::NotAuthorized | ControlError::Refused { .. }) => {
                    Ok(Removal::LeftToExpire { lease: record.lease })
                }
                Err(error) => Err(error.into()),
            }
        }
        Claim::Pinhole { firewall, id } => {
            let point = ControlPoint { route: record.route, deadline };
            let id = match id {
                Some(id) if claimant == Claimant::Owner => *id,
                // Asking for the same pinhole again tells its ID. It may come to life by this, for a moment.
                _ => {
                    let IpAddr::V6(local) = record.route.local else { return Ok(Removal::AlreadyGone) };
                    let internal = std::net::SocketAddrV6::new(local, record.internal_port, 0, 0);
                    point.add_pinhole(firewall, record.transport, internal, record.lease.max(1)).await?
                }
            };
            match point.remove_pinhole(firewall, id).await {
                Ok(()) => Ok(Removal::Removed),
                Err(ControlError::NotFound) => Ok(Removal::AlreadyGone),
                Err(ControlError::NotAuthorized | ControlError::Refused { .. }) => {
                    Ok(Removal::LeftToExpire { lease: record.lease })
                }
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// Whether some program of this host has the internal port.
async fn is_in_use(record: &Record) -> bool {
    let taken = match record.transport {
        Transport::Tcp => TcpListener::bind(record.internal()).await.err(),
        Transport::Udp => UdpSocket::bind(record.internal()).await.err(),
    };
    taken.is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

async fn undo_pcp(
    record: &Record,
    nonce: pcp::Nonce,
    port: u16,
    deadline: Instant,
) -> Result<pcp::ResultCode, MapError> {
    let question = pcp_question(record, nonce, 0, 0);
    let gateway = at(&record.route, port);
    let finished = ask(record.route.local, gateway, question, EpochClock::default(), deadline).await?;
    match finished.conclusion {
        Conclusion::Answered { reply: Reply::Pcp(response), .. } => Ok(response.result),
        Conclusion::Answered { .. } | Conclusion::Refused | Conclusion::Silent => Err(MapError::Silent),
    }
}

/// After PCP refused a removal: what IGD shows of the same table, and takes away.
///
/// Some servers let anybody overwrite the nonce and then refuse the owner (against RFC 6887 section 11.3), and answer
/// other errors where there is nothing to remove. NAT-PMP is no second way: asked to remove what PCP made, they say
/// "success" and leave it.
async fn look_elsewhere(
    record: &Record,
    refusal: pcp::ResultCode,
    igd: Option<&Connection>,
    claimant: Claimant,
    deadline: Instant,
) -> Removal {
    let left = Removal::LeftToExpire { lease: record.lease };
    let is_foreign = refusal == pcp::ResultCode::NotAuthorized;
    let point = ControlPoint { route: record.route, deadline };
    let entry = match igd {
        Some(connection) => point.mapping_at(connection, record.transport, record.external_port).await.ok(),
        None => None,
    };
    match (entry, igd) {
        // Only who still has the internal port may say that what leads there is his, whatever its nonce.
        (Some(Some(entry)), Some(connection))
            if entry.internal == Some(record.internal()) && claimant == Claimant::Owner =>
        {
            match point.remove_mapping(connection, record.transport, record.external_port).await {
                Ok(()) => Removal::Removed,
                Err(ControlError::NotFound) => Removal::AlreadyGone,
                Err(_) => left,
            }
        }
        (Some(None), _) if !is_foreign => Removal::AlreadyGone,
        (None, _) if !is_foreign && !record.granted => Removal::AlreadyGone,
        _ => left,
    }
}

async fn undo_natpmp(record: &Record, port: u16, deadline: Instant) -> Result<Removal, MapError> {
    // RFC 6886 section 3.4: lifetime and outer port 0.
    let question = Question::NatPmp(natpmp::Request::Map {
        transport: record.transport,
        internal_port: record.internal_port,
        external_port: 0,
        lifetime: 0,
    });
    let gateway = at(&record.route, port);
    let finished = ask(record.route.local, gateway, question, EpochClock::default(), deadline).await?;
    match finished.conclusion {
        Conclusion::Answered { reply: Reply::NatPmp(response), .. } => match response.result {
            natpmp::ResultCode::Success => Ok(Removal::Removed),
            _ => Ok(Removal::LeftToExpire { lease: record.lease }),
        },
        Conclusion::Answered { .. } | Conclusion::Refused | Conclusion::Silent => Err(MapError::Silent),
    }
}
