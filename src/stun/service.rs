//! The core: what a server does with one message.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::counters::{Counter, Tally};
use super::endpoint::{Endpoints, Flip, LocalSlot};
use super::guard::Guard;
use super::legacy;
use super::reply::{Body, BodyError, Origins, fair_length};
use super::settings::Settings;
use crate::address::peer_addr::on_the_wire;
use crate::address::special::can_be_answered;
use crate::protocol::stun::auth::{RefusalReason, Session, Verdict};
use crate::protocol::stun::dial_back::{DialBack, DialTransport};
use crate::protocol::stun::{
    AttributeType, Class, Integrity, Method, Packet, ScanError, WriteError, Writer, binding, integrity,
};

/// What a message came over.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Transport {
    /// A datagram: the source is a claim.
    Udp,
    /// A connection: the source has shown that packets to it arrive.
    Tcp,
    /// An encrypted connection.
    Tls,
}

/// How a message came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// The socket it came to.
    pub slot: LocalSlot,
    /// The address it was sent to, where the socket is bound to a wildcard and the system told.
    pub local: Option<IpAddr>,
    /// Who sent it.
    pub source: SocketAddr,
    /// What it came over.
    pub transport: Transport,
}

/// The time, on both clocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moment {
    /// Since any fixed moment, never stepping back; caps run on it.
    pub monotonic: Duration,
    /// The calendar; nonces carry it, so that servers can share them.
    pub wall: SystemTime,
}

/// Why a message got no answer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum DropReason {
    /// The source cannot be answered: port 0, a group, a broadcast, nobody.
    Source,
    /// The source is one of our own sockets.
    OwnSource,
    /// It is not STUN, or malformed.
    Malformed,
    /// It has no magic cookie.
    NoCookie,
    /// It is a response.
    Response,
    /// It is an indication.
    Indication,
    /// It asks for another method than Binding.
    Method,
    /// Its FINGERPRINT is wrong.
    Fingerprint,
    /// The destination has had its share of replies.
    Limited,
    /// It asks for PADDING and is shorter than any answer.
    Padding,
    /// The answer does not fit the buffer given.
    NoRoom,
}

/// Calls a client back, because it asked to and because its return path is proven.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DialOrder {
    /// Over a TCP connection instead of a datagram.
    pub tcp: bool,
    /// The client's address, at the port it named.
    pub to: SocketAddr,
    /// What it recognises the call by.
    pub nonce: [u8; 8],
}

/// One answer, written into the buffer that was given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reply {
    /// The local socket it leaves from.
    pub from: LocalSlot,
    /// Where it goes.
    pub to: SocketAddr,
    /// Its length in bytes.
    pub length: usize,
    /// The error code, where it is an error.
    pub error: Option<u16>,
    /// Why credentials were refused, where they were.
    pub refusal: Option<RefusalReason>,
    /// What to do after it was sent.
    pub dial: Option<DialOrder>,
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Nothing.
    Drop(DropReason),
    /// Send this.
    Reply(Reply),
}

impl Decision {
    /// Counts what was decided.
    pub fn record(&self, arrival: &Arrival, tally: &mut Tally) {
        match self {
            Self::Drop(reason) => tally.count(match reason {
                DropReason::Source => Counter::DropSource,
                DropReason::OwnSource => Counter::DropOwnSource,
                DropReason::Malformed => Counter::DropMalformed,
                DropReason::NoCookie => Counter::DropNoCookie,
                DropReason::Response => Counter::DropResponse,
                DropReason::Indication => Counter::DropIndication,
                DropReason::Method => Counter::DropMethod,
                DropReason::Fingerprint => Counter::DropFingerprint,
                DropReason::Limited => Counter::DropLimited,
                DropReason::Padding => Counter::DropPadding,
                DropReason::NoRoom => Counter::DropNoRoom,
            }),
            Self::Reply(reply) => {
                tally.count(match arrival.transport {
                    Transport::Udp if on_the_wire(arrival.source).is_ipv4() => Counter::RequestUdp4,
                    Transport::Udp => Counter::RequestUdp6,
                    Transport::Tcp => Counter::RequestTcp,
                    Transport::Tls => Counter::RequestTls,
                });
                tally.count(reply.error.map_or(Counter::Success, Counter::of_error));
                if let Some(failure) = reply.refusal.and_then(Counter::of_refusal) {
                    tally.count(failure);
                }
            }
        }
    }
}

/// The Binding service of one server. All threads share what is behind it.
#[derive(Clone, Debug)]
pub struct Service {
    endpoints: Arc<Endpoints>,
    guard: Arc<Guard>,
    /// Caps on calls back, apart from those on replies.
    dials: Arc<Guard>,
}

/// The attributes of the STUN base that a request may carry, whether or not there is a use for them (RFC 8489 section
/// 6.3.1), and those of RFC 5780, which count only where there are alternates.
const KNOWN: &[AttributeType] = &[
    AttributeType::MAPPED_ADDRESS,
    AttributeType::USERNAME,
    AttributeType::MESSAGE_INTEGRITY,
    AttributeType::ERROR_CODE,
    AttributeType::UNKNOWN_ATTRIBUTES,
    AttributeType::REALM,
    AttributeType::NONCE,
    AttributeType::MESSAGE_INTEGRITY_SHA256,
    AttributeType::PASSWORD_ALGORITHM,
    AttributeType::USERHASH,
    AttributeType::XOR_MAPPED_ADDRESS,
    AttributeType::CHANGE_REQUEST,
    AttributeType::RESPONSE_PORT,
    AttributeType::PADDING,
];

/// How many of [`KNOWN`] belong to RFC 5780.
const OF_RFC5780: usize = 3;

/// The lowest port a client may have called back: below are the services of a host, which are none of the caller's.
const LOWEST_DIAL_PORT: u16 = 1024;

impl Service {
    /// A service at these addresses. The seeds come from the system's random source.
    #[must_use]
    pub fn new(endpoints: Endpoints, seed: [u64; 2]) -> Self {
        let dials = Guard::new([seed[1] ^ seed[0].rotate_left(7), seed[0]]);
        Self { endpoints: Arc::new(endpoints), guard: Arc::new(Guard::new(seed)), dials: Arc::new(dials) }
    }

    /// The addresses it serves.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Decides about one message. An answer is written into `out`.
    #[must_use]
    pub fn handle(
        &self,
        settings: &Settings,
        now: Moment,
        arrival: &Arrival,
        bytes: &[u8],
        out: &mut [u8],
    ) -> Decision {
        self.answer(settings, now, arrival, bytes, out).map_or_else(Decision::Drop, Decision::Reply)
    }

    fn answer(
        &self,
        settings: &Settings,
        now: Moment,
        arrival: &Arrival,
        bytes: &[u8],
        out: &mut [u8],
    ) -> Result<Reply, DropReason> {
        let source = on_the_wire(arrival.source);
        if arrival.transport == Transport::Udp {
            self.check_source(source, arrival)?;
        }
        let other = self.endpoints.flipped(arrival.slot, Flip::BOTH);
        if let Some(transaction) = binding::bare_request(bytes)
            && other.is_none()
            && settings.is_plain(source)
        {
            self.check_caps(settings, now, arrival, source)?;
            let length = binding::write_success(out, transaction, source).map_err(no_room)?;
            return Ok(Reply {
                from: arrival.slot,
                to: arrival.source,
                length,
                error: None,
                refusal: None,
                dial: None,
            });
        }
        let packet = match Packet::scan(bytes) {
            Ok(packet) => packet,
            Err(ScanError::NoCookie) if settings.rfc3489 && arrival.transport == Transport::Udp => {
                return self.answer_legacy(settings, now, arrival, bytes, out);
            }
            Err(ScanError::NoCookie) => return Err(DropReason::NoCookie),
            Err(_) => return Err(DropReason::Malformed),
        };
        match packet.class() {
            Class::Request => {}
            Class::Indication => return Err(DropReason::Indication),
            Class::Success | Class::Error => return Err(DropReason::Response),
        }
        if packet.method() != Method::BINDING {
            return Err(DropReason::Method);
        }
        if !integrity::fingerprint_is_sound(&packet) {
            return Err(DropReason::Fingerprint);
        }
        let mut exchange = Exchange { service: self, settings, now, arrival, source, packet, session: None };
        let reply = match settings.credentials.judge(&packet, source, now.wall) {
            None => exchange.answer(out)?,
            Some(Verdict::Accepted(session)) => {
                exchange.session = Some(session);
                exchange.answer(out)?
            }
            Some(Verdict::Refused(refusal)) => {
                let reply = exchange.refuse(out, refusal.code(), |writer| refusal.write_attributes(writer))?;
                Reply { refusal: Some(refusal.reason), ..reply }
            }
            Some(Verdict::Discarded) => return Err(DropReason::Malformed),
        };
        self.check_caps(settings, now, arrival, source)?;
        Ok(reply)
    }

    fn check_source(&self, source: SocketAddr, arrival: &Arrival) -> Result<(), DropReason> {
        if source.port() == 0 || !can_be_answered(source.ip()) {
            return Err(DropReason::Source);
        }
        if self.endpoints.is_own(source, arrival.local) {
            return Err(DropReason::OwnSource);
        }
        Ok(())
    }

    fn check_caps(
        &self,
        settings: &Settings,
        now: Moment,
        arrival: &Arrival,
        source: SocketAddr,
    ) -> Result<(), DropReason> {
        // Over a connection the answer reaches whoever asked.
        if arrival.transport != Transport::Udp || self.guard.admits(source.ip(), now.monotonic, &settings.limits) {
            Ok(())
        } else {
            Err(DropReason::Limited)
        }
    }

    fn answer_legacy(
        &self,
        settings: &Settings,
        now: Moment,
        arrival: &Arrival,
        bytes: &[u8],
        out: &mut [u8],
    ) -> Result<Reply, DropReason> {
        let request = legacy::Request::parse(bytes).ok_or(DropReason::Malformed)?;
        let source = on_the_wire(arrival.source);
        let reply = |from, length, error| Reply { from, to: arrival.source, length, error, refusal: None, dial: None };
        let refuse = |out: &mut [u8], code| {
            Ok(reply(arrival.slot, request.write_error(out, code).map_err(no_room)?, Some(code)))
        };
        self.check_caps(settings, now, arrival, source)?;
        if request.unknown.is_some() {
            return refuse(out, 420);
        }
        let Some(flip) = request.flip else { return refuse(out, 400) };
        let changed = self.endpoints.flipped(arrival.slot, Flip::BOTH);
        let from = if flip == Flip::NEITHER { Some(arrival.slot) } else { self.endpoints.flipped(arrival.slot, flip) };
        // A server without a second address cannot do what is asked; an answer from here would be taken for one from there.
        let Some(from) = from else { return refuse(out, 420) };
        let origin = self.local_address(from, arrival.local).ok_or(DropReason::NoRoom)?;
        let changed = changed.and_then(|slot| self.endpoints.address(slot));
        Ok(reply(from, request.write_success(out, source, origin, changed).map_err(no_room)?, None))
    }

    /// The address an answer from this slot leaves from.
    fn local_address(&self, slot: LocalSlot, asked: Option<IpAddr>) -> Option<SocketAddr> {
        let address = self.endpoints.address(slot)?;
        Some(match asked {
            Some(ip) if address.ip().is_unspecified() => SocketAddr::new(ip, address.port()),
            _ => address,
        })
    }
}

fn no_room(_: WriteError) -> DropReason {
    DropReason::NoRoom
}

/// One sound Binding request and everything its answer depends on.
struct Exchange<'a> {
    service: &'a Service,
    settings: &'a Settings,
    now: Moment,
    arrival: &'a Arrival,
    source: SocketAddr,
    packet: Packet<'a>,
    /// Who asked, where credentials are asked for.
    session: Option<Session>,
}

/// What the attributes of RFC 5780 ask for.
struct Wishes {
    from: LocalSlot,
    port: u16,
    padded: bool,
}

impl Exchange<'_> {
    fn answer(&self, out: &mut [u8]) -> Result<Reply, DropReason> {
        let known = if self.knows_rfc5780() { KNOWN } else { &KNOWN[..KNOWN.len() - OF_RFC5780] };
        let unknown = self.packet.unknown_required(known);
        if !unknown.is_empty() {
            return self.refuse_with(out, 420, |writer| writer.unknown_attributes(unknown.as_slice()).map(|_| ()));
        }
        if let Some(server) = self.settings.alternate_server(self.source) {
            let attribute = AttributeType::ALTERNATE_SERVER;
            return self.refuse_with(out, 300, |writer| writer.address(attribute, server).map(|_| ()));
        }
        let Some(wishes) = self.wishes() else { return self.refuse_with(out, 400, |_| Ok(())) };
        let (offer, dial) = match self.dial_back() {
            Ok(dial) => dial,
            Err(code) => return self.refuse_with(out, code, |_| Ok(())),
        };
        let endpoints = &self.service.endpoints;
        let other = endpoints.flipped(self.arrival.slot, Flip::BOTH).and_then(|slot| endpoints.address(slot));
        let origin = self.service.local_address(wishes.from, self.arrival.local);
        let body = Body {
            source: self.source,
            origins: origin.zip(other).map(|(origin, other)| Origins { origin, other }),
            padded: wishes.padded,
            allowed: self.allowed_length(wishes.padded),
            tail: self.tail_length(offer),
        };
        let mut writer = self.start(out, Class::Success)?;
        body.write(&mut writer).map_err(|error| match error {
            BodyError::Underpaid => DropReason::Padding,
            BodyError::NoRoom => DropReason::NoRoom,
        })?;
        if offer {
            writer.attribute(AttributeType::DIAL_BACK, &[]).map_err(no_room)?;
        }
        let length = self.finish(writer)?;
        let to = SocketAddr::new(self.arrival.source.ip(), wishes.port);
        let to = if wishes.port == self.arrival.source.port() { self.arrival.source } else { to };
        Ok(Reply { from: wishes.from, to, length, error: None, refusal: None, dial })
    }

    fn start<'b>(&self, out: &'b mut [u8], class: Class) -> Result<Writer<'b>, DropReason> {
        Writer::new(out, class, Method::BINDING, self.packet.transaction_id()).map_err(no_room)
    }

    /// Adds what the end of the answer must carry: proof where the request brought some, and FINGERPRINT exactly where it
    /// had it.
    fn finish(&self, mut writer: Writer<'_>) -> Result<usize, DropReason> {
        if let Some(session) = &self.session {
            session.seal(&mut writer).map_err(no_room)?;
        }
        if self.packet.fingerprint().is_some() {
            writer.fingerprint().map_err(no_room)?;
        }
        Ok(writer.finish())
    }

    /// Answers with an error code and what belongs to it.
    fn refuse_with(
        &self,
        out: &mut [u8],
        code: u16,
        more: impl FnOnce(&mut Writer<'_>) -> Result<(), WriteError>,
    ) -> Result<Reply, DropReason> {
        self.refuse(out, code, |writer| {
            writer.error_code(code, "")?;
            more(writer)
        })
    }

    /// Answers with an error whose attributes the caller writes, from where the request came in.
    fn refuse(
        &self,
        out: &mut [u8],
        code: u16,
        attributes: impl FnOnce(&mut Writer<'_>) -> Result<(), WriteError>,
    ) -> Result<Reply, DropReason> {
        let mut writer = self.start(out, Class::Error)?;
        attributes(&mut writer).map_err(no_room)?;
        let length = self.finish(writer)?;
        Ok(Reply {
            from: self.arrival.slot,
            to: self.arrival.source,
            length,
            error: Some(code),
            refusal: None,
            dial: None,
        })
    }

    /// Whether the attributes of RFC 5780 mean anything here: on UDP sockets that have alternates.
    fn knows_rfc5780(&self) -> bool {
        let group = self.service.endpoints.flipped(self.arrival.slot, Flip::NEITHER);
        self.arrival.transport == Transport::Udp && group.is_some()
    }

    /// What the request wishes, or `None` where the wishes are malformed or contradict each other (400).
    fn wishes(&self) -> Option<Wishes> {
        let mut wishes = Wishes { from: self.arrival.slot, port: self.arrival.source.port(), padded: false };
        if !self.knows_rfc5780() {
            return Some(wishes);
        }
        if let Some(value) = self.packet.find(AttributeType::CHANGE_REQUEST) {
            wishes.from = self.service.endpoints.flipped(wishes.from, Flip::from_change_request(value)?)?;
        }
        wishes.padded = self.packet.find(AttributeType::PADDING).is_some();
        if let Some(value) = self.packet.find(AttributeType::RESPONSE_PORT) {
            // The two bytes behind the port are padding, which some senders count as part of the value.
            let &[high, low] = value.first_chunk::<2>()?;
            wishes.port = u16::from_be_bytes([high, low]);
            if wishes.port == 0 || wishes.padded || value.len() > 4 {
                return None;
            }
        }
        Some(wishes)
    }

    /// The longest answer allowed. PADDING never makes one longer than its request.
    fn allowed_length(&self, padded: bool) -> usize {
        let request = self.packet.as_bytes().len();
        if padded {
            request
        } else if self.settings.strict_amplification && self.arrival.transport == Transport::Udp {
            fair_length(request, self.source)
        } else {
            usize::MAX
        }
    }

    fn tail_length(&self, offer: bool) -> usize {
        let proof = match self.session.as_ref().map(|session| session.integrity) {
            None => 0,
            Some(Integrity::Sha1) => 24,
            Some(Integrity::Sha256) => 36,
        };
        let fingerprint = if self.packet.fingerprint().is_some() { 8 } else { 0 };
        proof + fingerprint + if offer { 4 } else { 0 }
    }

    /// Whether the answer offers to call back, and whom to call. An error is the code to refuse with.
    fn dial_back(&self) -> Result<(bool, Option<DialOrder>), u16> {
        let (Some(rate), true) = (self.settings.dial_back, self.arrival.transport != Transport::Udp) else {
            return Ok((false, None));
        };
        let wish = self.packet.find(AttributeType::DIAL_BACK).and_then(DialBack::from_bytes);
        match wish {
            None => Ok((false, None)),
            Some(DialBack::Offer) => Ok((true, None)),
            Some(DialBack::Ask { transport, port, nonce }) => {
                let limits = super::guard::Limits { per_host: Some(rate), per_site: None };
                if port < LOWEST_DIAL_PORT || !self.service.dials.admits(self.source.ip(), self.now.monotonic, &limits)
                {
                    return Err(403);
                }
                let to = SocketAddr::new(self.source.ip(), port);
                Ok((true, Some(DialOrder { tcp: transport == DialTransport::Tcp, to, nonce })))
            }
        }
    }
}
