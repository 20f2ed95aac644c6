//! RFC 8489 section 14: the attributes one by one, where their text demands something.

use std::net::SocketAddr;

use fabric::protocol::stun::integrity::{fingerprint_is_sound, userhash};
use fabric::protocol::stun::message::DecodeError;
use fabric::protocol::stun::message::own::{AlternateDomain, ErrorCode};
use fabric::protocol::stun::{
    AttributeType, Class, Integrity, Message, Method, Packet, ScanError, TextError, TransactionId, Writer,
};
use stun_codec::rfc5389::attributes::{Software, Username};

const KEY: &[u8] = b"key";

fn build(parts: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = [0; 8192];
    let mut writer = Writer::new(&mut buffer, Class::Success, Method::BINDING, TransactionId([5; 12])).expect("room");
    parts(&mut writer);
    writer.as_bytes().to_vec()
}

fn with(kind: AttributeType, value: &[u8]) -> Vec<u8> {
    build(|writer| {
        writer.attribute(kind, value).expect("room");
    })
}

#[test]
fn section_14_padding_is_written_as_zeros_and_ignored_when_read() {
    let mut bytes = with(AttributeType::SOFTWARE, b"abcde");
    assert_eq!(bytes[29..], [0, 0, 0]);
    bytes[29..].copy_from_slice(&[1, 2, 3]);
    assert_eq!(Packet::scan(&bytes).expect("sound").text(AttributeType::SOFTWARE), Ok(Some("abcde")));
}

#[test]
fn section_14_the_length_field_counts_the_value_without_padding() {
    let bytes = with(AttributeType::SOFTWARE, b"abcde");
    assert_eq!(bytes[22..24], [0, 5]);
    assert_eq!(bytes[2..4], [0, 12]);
}

#[test]
fn section_14_an_attribute_that_overruns_the_message_is_refused_also_by_its_padding_alone() {
    let mut bytes = with(AttributeType::SOFTWARE, b"abcde");
    bytes[23] = 9;
    assert_eq!(Packet::scan(&bytes).expect_err("refused"), ScanError::Overrun);
    // The value fits but the padding does not.
    let mut bytes = with(AttributeType::SOFTWARE, b"abcd");
    bytes[22..24].copy_from_slice(&5u16.to_be_bytes());
    assert_eq!(Packet::scan(&bytes).expect_err("refused"), ScanError::Overrun);
    let mut bytes = with(AttributeType::SOFTWARE, b"");
    bytes[22..24].copy_from_slice(&u16::MAX.to_be_bytes());
    assert_eq!(Packet::scan(&bytes).expect_err("refused"), ScanError::Overrun);
}

#[test]
fn section_14_1_an_address_of_another_family_or_length_is_none() {
    for value in [
        &[0, 3, 0, 1, 1, 2, 3, 4][..],
        &[0, 0, 0, 1, 1, 2, 3, 4],
        &[0, 1, 0, 1, 1, 2, 3],
        &[0, 1, 0, 1, 1, 2, 3, 4, 5],
        &[0, 2, 0, 1, 1, 2, 3, 4],
        &[0, 1],
        &[],
    ] {
        let bytes = with(AttributeType::MAPPED_ADDRESS, value);
        assert_eq!(Packet::scan(&bytes).expect("sound").address(AttributeType::MAPPED_ADDRESS), None);
    }
}

#[test]
fn section_14_1_the_first_byte_of_an_address_is_ignored() {
    let bytes = with(AttributeType::MAPPED_ADDRESS, &[0xFF, 1, 0x12, 0x34, 192, 0, 2, 1]);
    let expected: SocketAddr = "192.0.2.1:4660".parse().expect("an address");
    assert_eq!(Packet::scan(&bytes).expect("sound").address(AttributeType::MAPPED_ADDRESS), Some(expected));
}

#[test]
fn section_14_2_the_address_is_xored_with_cookie_and_transaction_id() {
    let address: SocketAddr = "[2001:db8::1]:3478".parse().expect("an address");
    let bytes = build(|writer| {
        writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, address).expect("room");
    });
    assert_eq!(bytes[24..28], [0, 2, 0x0D ^ 0x21, 0x96 ^ 0x12]);
    assert_eq!(bytes[28..32], [0x20 ^ 0x21, 0x01 ^ 0x12, 0x0D ^ 0xA4, 0xB8 ^ 0x42]);
    assert_eq!(bytes[32..43], [5; 11]);
    assert_eq!(bytes[43], 5 ^ 1);
}

#[test]
fn section_14_3_a_username_is_at_most_508_bytes_of_utf8() {
    for (value, expected) in [
        (vec![b'u'; 508], Ok(508)),
        (vec![b'u'; 509], Err(TextError::TooLong(AttributeType::USERNAME))),
        (vec![0xC3, 0x28], Err(TextError::NotUtf8(AttributeType::USERNAME))),
    ] {
        let bytes = with(AttributeType::USERNAME, &value);
        let packet = Packet::scan(&bytes).expect("sound");
        assert_eq!(packet.text(AttributeType::USERNAME).map(|text| text.map_or(0, str::len)), expected);
        let typed = Message::decode(&packet);
        match expected {
            Ok(length) => {
                assert_eq!(typed.expect("typed").get::<Username>().map(|name| name.name().len()), Some(length));
            }
            Err(_) => {
                assert!(matches!(typed, Err(DecodeError::Malformed { kind: AttributeType::USERNAME, .. })), "{typed:?}")
            }
        }
    }
}

#[test]
fn section_14_4_the_hash_of_a_name_is_sha256_of_name_colon_realm() {
    assert_eq!(userhash("user", "realm"), fabric_sha256(b"user:realm"));
}

fn fabric_sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

#[test]
fn section_14_5_the_length_under_the_hmac_ends_at_the_attribute_itself() {
    use hmac::{KeyInit as _, Mac as _};
    let bytes = build(|writer| {
        writer.attribute(AttributeType::SOFTWARE, b"abc").expect("room");
        writer.message_integrity(KEY).expect("room");
        writer.message_integrity_sha256(KEY).expect("room");
        writer.fingerprint().expect("room");
    });
    for (at, tag, own) in [(28usize, 20usize, 24u16), (52, 32, 36)] {
        let mut covered = bytes[..at].to_vec();
        covered[2..4].copy_from_slice(&(at as u16 - 20 + own).to_be_bytes());
        let expected = match tag {
            20 => hmac::Hmac::<sha1::Sha1>::new_from_slice(KEY)
                .expect("any length")
                .chain_update(&covered)
                .finalize()
                .into_bytes()
                .to_vec(),
            _ => hmac::Hmac::<sha2::Sha256>::new_from_slice(KEY)
                .expect("any length")
                .chain_update(&covered)
                .finalize()
                .into_bytes()
                .to_vec(),
        };
        assert_eq!(bytes[at + 4..at + 4 + tag], expected);
    }
}

#[test]
fn sections_14_5_and_14_6_an_integrity_attribute_of_impossible_length_is_refused() {
    for length in (0..=40).filter(|length| *length != 20) {
        let bytes = with(AttributeType::MESSAGE_INTEGRITY, &vec![0; length]);
        assert_eq!(Packet::scan(&bytes).expect_err("refused"), ScanError::BadIntegrity);
    }
    for length in (0..=40usize).filter(|length| !(16..=32).contains(length) || length % 4 != 0) {
        let bytes = with(AttributeType::MESSAGE_INTEGRITY_SHA256, &vec![0; length]);
        assert_eq!(Packet::scan(&bytes).expect_err("refused"), ScanError::BadIntegrity);
    }
}

#[test]
fn section_14_6_a_truncated_tag_is_refused_although_its_bytes_are_right() {
    use hmac::{KeyInit as _, Mac as _};
    for length in [16u16, 20, 24, 28] {
        let mut covered = build(|_| {});
        covered[2..4].copy_from_slice(&(length + 4).to_be_bytes());
        let tag =
            hmac::Hmac::<sha2::Sha256>::new_from_slice(KEY).expect("any length").chain_update(&covered).finalize();
        let bytes = with(AttributeType::MESSAGE_INTEGRITY_SHA256, &tag.into_bytes()[..usize::from(length)]);
        let packet = Packet::scan(&bytes).expect("sound");
        assert_eq!(Integrity::of(&packet), Some(Integrity::Sha256));
        assert!(!Integrity::Sha256.verify(&packet, KEY));
    }
}

#[test]
fn section_14_7_fingerprint_is_the_last_attribute_and_covers_all_before_it() {
    let sound = build(|writer| {
        writer.attribute(AttributeType::SOFTWARE, b"abc").expect("room");
        writer.fingerprint().expect("room");
    });
    assert!(fingerprint_is_sound(&Packet::scan(&sound).expect("sound")));
    for at in [0, 1, 8, 20, 24, 28, 32, 35] {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x01;
        if let Ok(packet) = Packet::scan(&bytes) {
            assert!(packet.fingerprint().is_none() || !fingerprint_is_sound(&packet), "byte {at}");
        }
    }
    for behind in [AttributeType::SOFTWARE, AttributeType::MESSAGE_INTEGRITY, AttributeType::FINGERPRINT] {
        let bytes = build(|writer| {
            writer.fingerprint().expect("room").attribute(behind, &[0; 20]).expect("room");
        });
        assert_eq!(Packet::scan(&bytes).expect_err("refused"), ScanError::FingerprintNotLast);
    }
    for length in [0, 3, 5, 8] {
        let bytes = with(AttributeType::FINGERPRINT, &vec![0; length]);
        assert_eq!(Packet::scan(&bytes).expect_err("refused"), ScanError::BadIntegrity);
    }
}

#[test]
fn section_14_8_error_codes_are_300_to_699() {
    for class in 0..=255u8 {
        for number in [0, 1, 38, 99, 100, 255] {
            let bytes = with(AttributeType::ERROR_CODE, &[0, 0, class, number]);
            let packet = Packet::scan(&bytes).expect("sound");
            // The upper five bits are reserved and ignored.
            let digit = class & 7;
            let expected =
                ((3..=6).contains(&digit) && number <= 99).then(|| u16::from(digit) * 100 + u16::from(number));
            assert_eq!(packet.error_code().map(|(code, _)| code), expected);
            let typed = Message::decode(&packet).ok();
            assert_eq!(typed.and_then(|typed| typed.get::<ErrorCode>().map(|error| error.code)), expected);
        }
    }
    for value in [&[][..], &[0, 0, 4]] {
        let bytes = with(AttributeType::ERROR_CODE, value);
        assert_eq!(Packet::scan(&bytes).expect("sound").error_code(), None);
    }
}

#[test]
fn section_14_8_a_reason_is_cut_before_its_128th_character_and_the_code_kept_in_range() {
    let bytes = build(|writer| {
        writer.error_code(1_000, &"\u{20AC}".repeat(200)).expect("room");
    });
    let packet = Packet::scan(&bytes).expect("sound");
    let (code, reason) = packet.error_code().expect("there");
    assert_eq!((code, reason.chars().count()), (699, 127));
    assert!(reason.len() <= 509);
}

#[test]
fn section_14_9_and_others_text_is_read_up_to_763_bytes() {
    for kind in [AttributeType::REALM, AttributeType::NONCE, AttributeType::SOFTWARE] {
        for (length, ok) in [(0, true), (127, true), (509, true), (763, true), (764, false)] {
            let bytes = with(kind, &vec![b'x'; length]);
            let text = Packet::scan(&bytes).expect("sound").text(kind).map(|text| text.map(str::len));
            assert_eq!(text, if ok { Ok(Some(length)) } else { Err(TextError::TooLong(kind)) });
        }
    }
    let bytes = with(AttributeType::SOFTWARE, b"x");
    assert_eq!(Packet::scan(&bytes).expect("sound").text(AttributeType::REALM), Ok(None));
}

#[test]
fn section_14_13_the_list_of_unknown_attributes_is_padded_not_repeated() {
    let bytes = build(|writer| {
        writer.unknown_attributes(&[AttributeType(1), AttributeType(2), AttributeType(3)]).expect("room");
    });
    assert_eq!(bytes[20..], [0x00, 0x0A, 0x00, 0x06, 0, 1, 0, 2, 0, 3, 0, 0]);
}

#[test]
fn section_14_14_software_has_no_effect_even_where_it_is_no_text() {
    let bytes = with(AttributeType::SOFTWARE, &[0xFF, 0xFE]);
    let packet = Packet::scan(&bytes).expect("sound");
    assert_eq!(packet.text(AttributeType::SOFTWARE), Err(TextError::NotUtf8(AttributeType::SOFTWARE)));
    let typed = Message::decode(&packet).expect("optional, so it spoils nothing");
    assert!(typed.get::<Software>().is_none());
}

#[test]
fn section_14_16_an_alternate_domain_is_at_most_255_bytes() {
    for (length, there) in [(255, true), (256, false)] {
        let bytes = with(AttributeType::ALTERNATE_DOMAIN, &vec![b'd'; length]);
        let typed = Message::decode(&Packet::scan(&bytes).expect("sound")).expect("typed");
        assert_eq!(typed.get::<AlternateDomain>().is_some(), there);
    }
}
