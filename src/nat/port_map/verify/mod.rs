//! What a granted mapping is worth.
//!
//! A router grants what it can, not what is: behind a carrier's NAT its "external" address is one more private address,
//! and the port is open to nobody. Only a stranger who comes in proves that it is open:
//!
//! 1. Something listens at the internal port and has sent nothing, so that no state of an earlier packet lets anybody in.
//! 2. A server is asked over TCP to dial back to the outer port ([`request`], [`offer`]).
//! 3. What arrives must carry the nonce ([`is_dial_back`]).
//! 4. [`judge`] weighs that with the address the router told and the one the server saw.

pub mod driver;

use std::net::{IpAddr, SocketAddr};

use super::Transport;
use crate::address::special;
use crate::protocol::stun::dial_back::{self, DialTransport};
use crate::protocol::stun::{AttributeType, Class, Method, Packet, TransactionId, WriteError, Writer};

/// What a dial-back is recognised by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Nonce(pub [u8; 8]);

/// How asking for a dial-back went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DialBack {
    /// No server was at hand.
    NotAsked,
    /// The server did not answer over TCP.
    ServerSilent,
    /// The server does not offer it.
    NotOffered {
        /// The address the server saw.
        mapped: IpAddr,
    },
    /// The server offers it and nothing arrived, whatever the number of tries.
    Lost {
        /// The address the server saw.
        mapped: IpAddr,
        /// How many times it was asked.
        asked: u32,
    },
    /// It arrived.
    Arrived {
        /// The address the server saw and dialled.
        mapped: IpAddr,
        /// Who came in.
        from: SocketAddr,
    },
}

/// Whether a mapping is open to the world, and why that is believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// `None` where it cannot be told.
    pub open: Option<bool>,
    /// Why.
    pub reason: Reason,
}

/// The reason for a verdict.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// A stranger came in through it.
    StrangerCameIn,
    /// The router's own external address is not a public one: another NAT stands behind it.
    BehindAnotherNat,
    /// The world sees another address than the one the router told.
    OtherAddressOutside,
    /// Everything fits, and still nobody came in.
    NobodyCameIn,
    /// No server was at hand that dials back.
    NoDialBack,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::StrangerCameIn => "a connection from outside came in through it",
            Self::BehindAnotherNat => {
                "granted, but not reachable from outside: the router itself is behind another NAT"
            }
            Self::OtherAddressOutside => {
                "granted, but not reachable from outside: the world sees another address than the router's"
            }
            Self::NobodyCameIn => "granted, but not reachable from outside: nothing came in",
            Self::NoDialBack => "granted; no server at hand could try it from outside",
        })
    }
}

/// Weighs the outer address a router told with what a server saw and did.
#[must_use]
pub fn judge(external: Option<IpAddr>, dial_back: DialBack) -> Verdict {
    let verdict = |open, reason| Verdict { open, reason };
    let is_inner = external.is_some_and(|ip| !special::is_global(ip));
    let differs = |mapped: IpAddr| external.is_some_and(|ip| ip != mapped);
    match dial_back {
        DialBack::Arrived { .. } => verdict(Some(true), Reason::StrangerCameIn),
        // A public server cannot be on the near side of a NAT with an inner address.
        DialBack::Lost { mapped, .. } | DialBack::NotOffered { mapped } if is_inner && differs(mapped) => {
            verdict(Some(false), Reason::BehindAnotherNat)
        }
        DialBack::NotAsked | DialBack::ServerSilent if is_inner => verdict(Some(false), Reason::BehindAnotherNat),
        DialBack::Lost { mapped, .. } if differs(mapped) => verdict(Some(false), Reason::OtherAddressOutside),
        DialBack::Lost { .. } => verdict(Some(false), Reason::NobodyCameIn),
        // Traffic through a tunnel looks the same, and there the mapping may well be open at the router's address.
        DialBack::NotOffered { mapped } if differs(mapped) => verdict(None, Reason::OtherAddressOutside),
        DialBack::NotOffered { .. } | DialBack::NotAsked | DialBack::ServerSilent => verdict(None, Reason::NoDialBack),
    }
}

/// The Binding request that asks for a dial-back to `port`.
///
/// # Errors
/// Never in practice: the buffer holds it.
pub fn request(
    transaction: TransactionId,
    transport: Transport,
    port: u16,
    nonce: Nonce,
) -> Result<Vec<u8>, WriteError> {
    let mut buffer = [0; 64];
    let mut writer = Writer::new(&mut buffer, Class::Request, Method::BINDING, transaction)?;
    writer.attribute(AttributeType::DIAL_BACK, &value(transport, port, nonce))?;
    Ok(writer.as_bytes().to_vec())
}

/// The Binding request that asks whether the server dials back, and has it dial nobody.
///
/// # Errors
/// Never in practice: the buffer holds it.
pub fn enquiry(transaction: TransactionId) -> Result<Vec<u8>, WriteError> {
    let mut buffer = [0; 64];
    let mut writer = Writer::new(&mut buffer, Class::Request, Method::BINDING, transaction)?;
    writer.attribute(AttributeType::DIAL_BACK, &dial_back::DialBack::Offer.to_bytes())?;
    Ok(writer.as_bytes().to_vec())
}

/// What the server's answer says: the address it saw, and whether it dials back. `None` for anything else.
#[must_use]
pub fn offer(bytes: &[u8], transaction: TransactionId) -> Option<(SocketAddr, bool)> {
    let packet = Packet::scan(bytes).ok()?;
    if (packet.class(), packet.method(), packet.transaction_id()) != (Class::Success, Method::BINDING, transaction) {
        return None;
    }
    let mapped = packet
        .xor_address(AttributeType::XOR_MAPPED_ADDRESS)
        .or_else(|| packet.address(AttributeType::MAPPED_ADDRESS))?;
    Some((mapped, packet.find(AttributeType::DIAL_BACK).is_some()))
}

/// Whether these bytes are the dial-back that was asked for.
#[must_use]
pub fn is_dial_back(bytes: &[u8], transport: Transport, port: u16, nonce: Nonce) -> bool {
    let Ok(packet) = Packet::scan(bytes) else { return false };
    let id = dial_back::DialBack::transaction_id(nonce.0);
    (packet.class(), packet.method(), packet.transaction_id()) == (Class::Indication, Method::BINDING, id)
        && packet.find(AttributeType::DIAL_BACK).is_some_and(|found| found == value(transport, port, nonce))
}

fn value(transport: Transport, port: u16, nonce: Nonce) -> Vec<u8> {
    let transport = match transport {
        Transport::Tcp => DialTransport::Tcp,
        Transport::Udp => DialTransport::Udp,
    };
    dial_back::DialBack::Ask { transport, port, nonce: nonce.0 }.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_a_stranger_makes_a_mapping_open() {
        let (public, other) = (ip("11.0.0.1"), ip("12.0.0.1"));
        let (lost, not_offered) =
            (|mapped| DialBack::Lost { mapped, asked: 3 }, |mapped| DialBack::NotOffered { mapped });
        let from = "11.0.0.9:1".parse().unwrap();
        for (external, dial_back, open, reason) in [
            ("11.0.0.1", DialBack::Arrived { mapped: public, from }, Some(true), Reason::StrangerCameIn),
            ("100.64.0.1", DialBack::Arrived { mapped: public, from }, Some(true), Reason::StrangerCameIn),
            ("11.0.0.1", lost(public), Some(false), Reason::NobodyCameIn),
            ("11.0.0.1", lost(other), Some(false), Reason::OtherAddressOutside),
            ("11.0.0.1", not_offered(public), None, Reason::NoDialBack),
            ("11.0.0.1", not_offered(other), None, Reason::OtherAddressOutside),
            ("11.0.0.1", DialBack::NotAsked, None, Reason::NoDialBack),
            ("11.0.0.1", DialBack::ServerSilent, None, Reason::NoDialBack),
        ] {
            assert_eq!(judge(Some(ip(external)), dial_back), Verdict { open, reason }, "{external} {dial_back:?}");
        }
        assert_eq!(judge(None, lost(public)).reason, Reason::NobodyCameIn);
    }

    #[test]
    fn an_inner_external_address_is_never_called_open_and_never_left_open() {
        for external in ["100.64.0.1", "100.127.255.254", "10.1.2.3", "172.16.0.1", "192.168.0.2", "169.254.1.1"] {
            for dial_back in [
                DialBack::NotAsked,
                DialBack::ServerSilent,
                DialBack::NotOffered { mapped: ip("11.0.0.1") },
                DialBack::Lost { mapped: ip("11.0.0.1"), asked: 1 },
            ] {
                let expected = Verdict { open: Some(false), reason: Reason::BehindAnotherNat };
                assert_eq!(judge(Some(ip(external)), dial_back), expected, "{external} {dial_back:?}");
            }
        }
    }

    #[test]
    fn a_dial_back_must_carry_what_was_asked_for() {
        let nonce = Nonce([1, 2, 3, 4, 5, 6, 7, 8]);
        let indication = |class, id: [u8; 12], value: &[u8]| {
            let mut buffer = [0; 64];
            let mut writer = Writer::new(&mut buffer, class, Method::BINDING, TransactionId(id)).unwrap();
            writer.attribute(AttributeType::DIAL_BACK, value).unwrap();
            writer.as_bytes().to_vec()
        };
        let id = [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let right = value(Transport::Tcp, 4000, nonce);
        let is_ours = |bytes: &[u8]| is_dial_back(bytes, Transport::Tcp, 4000, nonce);
        assert!(is_ours(&indication(Class::Indication, id, &right)));
        assert!(!is_ours(&indication(Class::Success, id, &right)));
        assert!(!is_ours(&indication(Class::Indication, [9; 12], &right)));
        assert!(!is_ours(&indication(Class::Indication, id, &value(Transport::Udp, 4000, nonce))));
        assert!(!is_ours(&indication(Class::Indication, id, &value(Transport::Tcp, 4001, nonce))));
        assert!(!is_ours(&indication(Class::Indication, id, &[])));
        assert!(!is_ours(b"GET / HTTP/1.1\r\n\r\n"));
    }

    #[test]
    fn the_request_asks_and_the_answer_tells_whether_it_is_offered() {
        let transaction = TransactionId([5; 12]);
        let bytes = request(transaction, Transport::Udp, 0x1234, Nonce([6; 8])).unwrap();
        let packet = Packet::scan(&bytes).unwrap();
        assert_eq!(packet.find(AttributeType::DIAL_BACK), Some(&[17, 0, 0x12, 0x34, 6, 6, 6, 6, 6, 6, 6, 6][..]));
        let mapped = "11.0.0.1:7".parse().unwrap();
        let answer = |offers: bool| {
            let mut buffer = [0; 64];
            let mut writer = Writer::new(&mut buffer, Class::Success, Method::BINDING, transaction).unwrap();
            writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, mapped).unwrap();
            if offers {
                writer.attribute(AttributeType::DIAL_BACK, &[]).unwrap();
            }
            writer.as_bytes().to_vec()
        };
        assert_eq!(offer(&answer(true), transaction), Some((mapped, true)));
        assert_eq!(offer(&answer(false), transaction), Some((mapped, false)));
        assert_eq!(offer(&answer(true), TransactionId([6; 12])), None);
    }
}
