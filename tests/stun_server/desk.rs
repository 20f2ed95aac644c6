//! A core with a few addresses, asked without sockets; and what requests are made of.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use fabric::protocol::stun::{AttributeType, Class, Method, Packet, TransactionId, Writer};
use fabric::stun::{Arrival, Decision, DropReason, Endpoints, LocalSlot, Moment, Reply, Service, Settings, Transport};
use rand::{Rng, RngExt, SeedableRng as _};

/// The transaction of every request that does not say otherwise.
pub(crate) const ID: TransactionId = TransactionId(*b"abcdefghijkl");

/// Where clients are, one of each family.
pub(crate) const CLIENTS: [&str; 2] = ["198.51.100.7:40000", "[2001:db8::7]:40000"];

/// The four corners of the IPv4 group of [`Desk::with_alternates`].
pub(crate) const CORNERS4: [&str; 4] = ["192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.2:3479"];

/// The four corners of its IPv6 group.
pub(crate) const CORNERS6: [&str; 4] =
    ["[2001:db8:1::1]:3478", "[2001:db8:1::1]:3479", "[2001:db8:1::2]:3478", "[2001:db8:1::2]:3479"];

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("a socket address")
}

pub(crate) struct Desk {
    pub(crate) service: Service,
    pub(crate) settings: Settings,
    pub(crate) now: Moment,
}

impl Desk {
    fn new(endpoints: Endpoints) -> Self {
        let now =
            Moment { monotonic: Duration::from_secs(1_000), wall: UNIX_EPOCH + Duration::from_secs(1_900_000_000) };
        Self { service: Service::new(endpoints, [7, 11]), settings: Settings::default(), now }
    }

    /// The default: one address of each family, slot 0 and slot 1.
    pub(crate) fn plain() -> Self {
        let mut endpoints = Endpoints::default();
        endpoints.add_single(address("192.0.2.1:3478"));
        endpoints.add_single(address("[2001:db8:1::1]:3478"));
        Self::new(endpoints)
    }

    /// A group of each family, slots 0 to 3 and 4 to 7.
    pub(crate) fn with_alternates() -> Self {
        let mut endpoints = Endpoints::default();
        endpoints.add_group(CORNERS4.map(address));
        endpoints.add_group(CORNERS6.map(address));
        Self::new(endpoints)
    }

    pub(crate) fn arrival(slot: usize, source: &str, transport: Transport) -> Arrival {
        Arrival { slot: LocalSlot::new(slot), local: None, source: address(source), transport }
    }

    pub(crate) fn handle(&self, arrival: &Arrival, bytes: &[u8]) -> Result<(Reply, Vec<u8>), DropReason> {
        let mut out = vec![0xEE; 70_000];
        match self.service.handle(&self.settings, self.now, arrival, bytes, &mut out) {
            Decision::Reply(reply) => Ok((reply, out[..reply.length].to_vec())),
            Decision::Drop(reason) => Err(reason),
        }
    }

    /// Asks over UDP from the client of the slot's family: the first half of the slots is IPv4.
    pub(crate) fn ask(&self, slot: usize, bytes: &[u8]) -> Result<(Reply, Vec<u8>), DropReason> {
        let slots = self.service.endpoints().iter().count();
        self.handle(&Self::arrival(slot, CLIENTS[slot * 2 / slots], Transport::Udp), bytes)
    }

    /// The local address an answer leaves from.
    pub(crate) fn leaves_from(&self, reply: &Reply) -> String {
        self.service.endpoints().address(reply.from).expect("a slot").to_string()
    }
}

/// A Binding request with these attributes, written by `build`.
pub(crate) fn request(build: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    message(Class::Request, Method::BINDING, build)
}

pub(crate) fn message(class: Class, method: Method, build: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = vec![0; 70_000];
    let mut writer = Writer::new(&mut bytes, class, method, ID).expect("room");
    build(&mut writer);
    let length = writer.finish();
    bytes.truncate(length);
    bytes
}

/// A request with one attribute.
pub(crate) fn request_with(kind: AttributeType, value: &[u8]) -> Vec<u8> {
    request(|writer| {
        writer.attribute(kind, value).expect("room");
    })
}

pub(crate) fn change_request(flags: u8) -> Vec<u8> {
    request_with(AttributeType::CHANGE_REQUEST, &[0, 0, 0, flags])
}

pub(crate) fn scan(bytes: &[u8]) -> Packet<'_> {
    Packet::scan(bytes).expect("a sound message")
}

/// The error code of an answer.
pub(crate) fn error_code(bytes: &[u8]) -> Option<u16> {
    scan(bytes).error_code().map(|(code, _)| code)
}

/// The attribute numbers of a message in their order, those behind the integrity attribute left out.
pub(crate) fn kinds(bytes: &[u8]) -> Vec<AttributeType> {
    scan(bytes).attributes().map(|attribute| attribute.kind).collect()
}

/// Requests as an attacker might mix them: known and unknown attributes, right and wrong lengths, broken bytes. The same
/// seed gives the same requests.
pub(crate) struct Corpus(rand::rngs::SmallRng);

impl Corpus {
    pub(crate) fn new(seed: u64) -> Self {
        Self(rand::rngs::SmallRng::seed_from_u64(seed))
    }

    pub(crate) fn number(&mut self, below: u32) -> u32 {
        self.0.random_range(0..below)
    }

    pub(crate) fn request(&mut self) -> Vec<u8> {
        const KINDS: [(AttributeType, usize); 19] = [
            (AttributeType::CHANGE_REQUEST, 4),
            (AttributeType::CHANGE_REQUEST, 4),
            (AttributeType::RESPONSE_PORT, 4),
            (AttributeType::RESPONSE_PORT, 2),
            (AttributeType::PADDING, 0),
            (AttributeType::PADDING, 64),
            (AttributeType::PADDING, 1_400),
            (AttributeType::USERNAME, 5),
            (AttributeType::REALM, 9),
            (AttributeType::NONCE, 12),
            (AttributeType::PRIORITY, 4),
            (AttributeType::SOFTWARE, 20),
            (AttributeType::MAPPED_ADDRESS, 8),
            (AttributeType::XOR_MAPPED_ADDRESS, 8),
            (AttributeType::OTHER_ADDRESS, 8),
            (AttributeType::RESPONSE_ORIGIN, 8),
            (AttributeType::ALTERNATE_SERVER, 8),
            (AttributeType::DIAL_BACK, 12),
            (AttributeType(0x0002), 8),
        ];
        let mut bytes = vec![0; 70_000];
        let class = if self.number(20) == 0 { Class::Indication } else { Class::Request };
        let mut id = [0; 12];
        self.0.fill_bytes(&mut id);
        let mut writer = Writer::new(&mut bytes, class, Method::BINDING, TransactionId(id)).expect("room");
        for _ in 0..self.number(5) {
            let (kind, length) = match self.number(4) {
                0 => (AttributeType(self.0.random()), self.number(24) as usize),
                _ => KINDS[self.number(KINDS.len() as u32) as usize],
            };
            if matches!(
                kind,
                AttributeType::MESSAGE_INTEGRITY | AttributeType::MESSAGE_INTEGRITY_SHA256 | AttributeType::FINGERPRINT
            ) {
                continue;
            }
            let mut value = vec![0; length];
            self.0.fill_bytes(&mut value);
            if kind == AttributeType::CHANGE_REQUEST {
                value[..3].fill(0);
            }
            writer.attribute(kind, &value).expect("room");
        }
        if self.number(8) == 0 {
            writer.message_integrity(b"guess").expect("room");
        }
        if self.number(3) == 0 {
            writer.fingerprint().expect("room");
        }
        let length = writer.finish();
        bytes.truncate(length);
        if self.number(10) == 0 {
            let at = self.number(length as u32) as usize;
            bytes[at] ^= 1 << self.number(8);
        }
        if self.number(40) == 0 {
            bytes.truncate(self.number(length as u32) as usize);
        }
        bytes
    }
}
