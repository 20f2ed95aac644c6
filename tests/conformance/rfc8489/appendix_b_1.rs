//! RFC 8489 appendix B.1 as corrected by erratum 6268.

use fabric::protocol::stun::auth::{Accounts, Claim, Features, KeyKind};
use fabric::protocol::stun::integrity::{long_term_key_sha256, userhash};
use fabric::protocol::stun::message::own::{PasswordAlgorithmChoice, Userhash};
use fabric::protocol::stun::{
    AttributeType, Class, Integrity, Message, Method, Packet, PasswordAlgorithm, ScanError, Writer,
};

use crate::vector::{self, MATRIX_PASSWORD, MATRIX_REALM, MATRIX_USER};

#[test]
fn the_corrected_vector_verifies_and_is_rebuilt_byte_for_byte() {
    let bytes = vector::read("rfc8489_b1");
    let packet = Packet::scan(&bytes).expect("sound");
    let key = long_term_key_sha256(MATRIX_USER, MATRIX_REALM, MATRIX_PASSWORD);
    assert!(Integrity::Sha256.verify(&packet, &key));
    assert_eq!(Integrity::of(&packet), Some(Integrity::Sha256));

    let typed = Message::decode(&packet).expect("typed");
    assert_eq!(typed.get::<Userhash>().expect("there").0, userhash(MATRIX_USER, MATRIX_REALM));
    assert_eq!(typed.get::<PasswordAlgorithmChoice>().expect("there").0, PasswordAlgorithm::Sha256);
    assert!(typed.unknown_required().is_empty());

    let mut buffer = [0xEE; 256];
    let mut writer = typed.write(&mut buffer).expect("room");
    writer.message_integrity_sha256(&key).expect("room");
    assert_eq!(writer.as_bytes(), bytes);

    let mut buffer = [0xEE; 256];
    let mut writer = Writer::new(&mut buffer, Class::Request, Method::BINDING, packet.transaction_id()).expect("room");
    for attribute in packet.attributes() {
        writer.attribute(attribute.kind, attribute.value).expect("room");
    }
    writer.message_integrity_sha256(&key).expect("room");
    assert_eq!(writer.as_bytes(), bytes);
}

#[test]
fn the_nonce_of_the_vector_announces_username_anonymity() {
    let bytes = vector::read("rfc8489_b1");
    let nonce = Packet::scan(&bytes).expect("sound").find(AttributeType::NONCE).expect("there").to_vec();
    assert_eq!(Features::of_nonce(&nonce), Some(Features { password_algorithms: false, username_anonymity: true }));
}

#[test]
fn accounts_find_the_user_of_the_vector_by_its_hash() {
    let mut accounts = Accounts::new(MATRIX_REALM).expect("a realm");
    accounts.insert(MATRIX_USER, MATRIX_PASSWORD).expect("an account");
    let hash = userhash(MATRIX_USER, MATRIX_REALM);
    let kind = KeyKind::LongTerm(PasswordAlgorithm::Sha256);
    let found = accounts.find(Claim::Userhash(&hash), kind).expect("found");
    assert_eq!(&*found.username, MATRIX_USER);
    assert_eq!(found.key.as_bytes(), long_term_key_sha256(MATRIX_USER, MATRIX_REALM, MATRIX_PASSWORD));
}

#[test]
fn the_vector_as_printed_is_refused_for_its_length_and_for_its_hmac() {
    let mut bytes = vector::read("rfc8489_b1_as_printed");
    assert_eq!(Packet::scan(&bytes).expect_err("wrong length"), ScanError::BadLength);
    let length = u16::try_from(bytes.len() - 20).expect("short");
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let packet = Packet::scan(&bytes).expect("sound with its length put right");
    for key in [
        long_term_key_sha256(MATRIX_USER, MATRIX_REALM, MATRIX_PASSWORD).as_slice(),
        &fabric::protocol::stun::integrity::long_term_key_md5(MATRIX_USER, MATRIX_REALM, MATRIX_PASSWORD),
    ] {
        assert!(!Integrity::Sha256.verify(&packet, key));
    }
}
