//! RFC 5769: the four sample messages verify, mean what the text says, and come out of our own writer again.

use fabric::protocol::stun::auth::{Accounts, Claim, KeyKind};
use fabric::protocol::stun::integrity::{fingerprint_is_sound, long_term_key_md5};
use fabric::protocol::stun::{
    AttributeType, Class, Integrity, Message, Method, Packet, PasswordAlgorithm, TransactionId, Writer,
};
use stun_codec::rfc5245::attributes::{IceControlled, Priority};
use stun_codec::rfc5389::attributes::{Realm, Software, Username, XorMappedAddress};

use crate::vector::{self, MATRIX_PASSWORD, MATRIX_REALM, MATRIX_USER, SHORT_TERM_PASSWORD};

const SHORT_TERM_ID: TransactionId =
    TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);

/// Decodes to types and writes again; values and order must survive (padding need not, the vectors pad with spaces).
fn assert_typed_round_trip(packet: &Packet<'_>) {
    let typed = Message::decode(packet).expect("typed");
    let mut buffer = [0; 512];
    let writer = typed.write(&mut buffer).expect("written");
    let again = Packet::scan(writer.as_bytes()).expect("scanned");
    assert_eq!(packet.attributes().collect::<Vec<_>>(), again.attributes().collect::<Vec<_>>());
    assert_eq!(Message::decode(&again).expect("typed again"), typed);
}

#[test]
fn section_2_1_sample_request_verifies_and_is_understood() {
    let bytes = vector::read("rfc5769_request");
    let packet = Packet::scan(&bytes).expect("sound");
    assert_eq!((packet.class(), packet.method()), (Class::Request, Method::BINDING));
    assert_eq!(packet.transaction_id(), SHORT_TERM_ID);
    assert!(Integrity::Sha1.verify(&packet, SHORT_TERM_PASSWORD.as_bytes()));
    assert!(!Integrity::Sha1.verify(&packet, b"VOkJxbRl1RmTxUk/WvJxBT"));
    assert!(fingerprint_is_sound(&packet));
    assert!(packet.fingerprint().is_some());
    assert_eq!(packet.text(AttributeType::USERNAME), Ok(Some("evtj:h6vY")));

    let typed = Message::decode(&packet).expect("typed");
    assert_eq!(typed.get::<Software>().expect("there").description(), "STUN test client");
    assert_eq!(typed.get::<Username>().expect("there").name(), "evtj:h6vY");
    assert_eq!(typed.get::<Priority>().expect("there").prio(), 0x6e00_01ff);
    assert_eq!(typed.get::<IceControlled>().expect("there").prio(), 0x932f_f9b1_5126_3b36);
    assert_typed_round_trip(&packet);
}

#[test]
fn sections_2_2_and_2_3_sample_responses_verify_and_give_the_mapped_address() {
    for (name, address) in [
        ("rfc5769_ipv4_response", "192.0.2.1:32853"),
        ("rfc5769_ipv6_response", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let bytes = vector::read(name);
        let address = address.parse().expect("an address");
        let packet = Packet::scan(&bytes).expect("sound");
        assert_eq!((packet.class(), packet.method()), (Class::Success, Method::BINDING));
        assert_eq!(packet.transaction_id(), SHORT_TERM_ID);
        assert!(Integrity::Sha1.verify(&packet, SHORT_TERM_PASSWORD.as_bytes()));
        assert!(fingerprint_is_sound(&packet));
        assert_eq!(packet.xor_address(AttributeType::XOR_MAPPED_ADDRESS), Some(address));
        let typed = Message::decode(&packet).expect("typed");
        assert_eq!(typed.get::<XorMappedAddress>().expect("there").address(), address);
        assert_eq!(typed.get::<Software>().expect("there").description(), "test vector");
        assert_typed_round_trip(&packet);
    }
}

#[test]
fn section_2_4_long_term_request_verifies_and_is_rebuilt_byte_for_byte() {
    let bytes = vector::read("rfc5769_long_term");
    let packet = Packet::scan(&bytes).expect("sound");
    let key = long_term_key_md5(MATRIX_USER, MATRIX_REALM, MATRIX_PASSWORD);
    assert!(Integrity::Sha1.verify(&packet, &key));
    assert_eq!(packet.text(AttributeType::NONCE), Ok(Some("f//499k954d6OL34oL9FSTvy64sA")));

    let typed = Message::decode(&packet).expect("typed");
    assert_eq!(typed.get::<Username>().expect("there").name(), MATRIX_USER);
    assert_eq!(typed.get::<Realm>().expect("there").text(), MATRIX_REALM);
    assert_typed_round_trip(&packet);

    let mut buffer = [0xEE; 256];
    let mut writer = Writer::new(&mut buffer, Class::Request, Method::BINDING, packet.transaction_id()).expect("room");
    for attribute in packet.attributes() {
        writer.attribute(attribute.kind, attribute.value).expect("room");
    }
    writer.message_integrity(&key).expect("room");
    assert_eq!(writer.as_bytes(), bytes);

    let mut accounts = Accounts::new(MATRIX_REALM).expect("a realm");
    accounts.insert(MATRIX_USER, MATRIX_PASSWORD).expect("an account");
    let found = accounts.find(Claim::Username(MATRIX_USER), KeyKind::LongTerm(PasswordAlgorithm::Md5)).expect("found");
    assert_eq!(found.key.as_bytes(), key);
}

/// Every sample is protected at every byte: whatever changes, it is no longer accepted.
#[test]
fn a_changed_byte_anywhere_in_a_sample_is_noticed() {
    let long_term = long_term_key_md5(MATRIX_USER, MATRIX_REALM, MATRIX_PASSWORD);
    let short_term = SHORT_TERM_PASSWORD.as_bytes();
    for (name, key) in [
        ("rfc5769_request", short_term),
        ("rfc5769_ipv4_response", short_term),
        ("rfc5769_ipv6_response", short_term),
        ("rfc5769_long_term", &long_term),
    ] {
        let bytes = vector::read(name);
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                let accepted = Packet::scan(&changed)
                    .is_ok_and(|packet| Integrity::Sha1.verify(&packet, key) && fingerprint_is_sound(&packet));
                // Without FINGERPRINT counted in, its own header could turn into an attribute that is ignored.
                let fingerprint_gone = Packet::scan(&changed).is_ok_and(|packet| packet.fingerprint().is_none());
                assert!(!accepted || fingerprint_gone && at + 8 >= bytes.len(), "{name}: byte {at} ^ {flip:#x}");
            }
        }
    }
}
