//! RFC 8489 section 6.3: what a receiver owes a message with attributes it does not know.

use fabric::protocol::stun::{AttributeType, Class, Message, Method, Packet, TransactionId, Writer};

const KNOWN: &[AttributeType] = &[AttributeType::USERNAME, AttributeType::CHANGE_REQUEST];

fn request(kinds: &[u16], integrity_after: Option<usize>) -> Vec<u8> {
    let mut buffer = vec![0; 8192];
    let mut writer = Writer::new(&mut buffer, Class::Request, Method::BINDING, TransactionId([1; 12])).expect("room");
    for (index, kind) in kinds.iter().enumerate() {
        if integrity_after == Some(index) {
            writer.message_integrity(b"key").expect("room");
        }
        writer.attribute(AttributeType(*kind), b"any").expect("room");
    }
    writer.as_bytes().to_vec()
}

fn unknown(bytes: &[u8]) -> Vec<u16> {
    let packet = Packet::scan(bytes).expect("sound");
    packet.unknown_required(KNOWN).as_slice().iter().map(|kind| kind.0).collect()
}

#[test]
fn unknown_comprehension_required_attributes_are_listed_each_once_in_order() {
    assert_eq!(unknown(&request(&[0x7FFF, 0x0006, 0x0002, 0x7FFF, 0x0003], None)), [0x7FFF, 0x0002]);
}

#[test]
fn comprehension_optional_attributes_are_never_listed() {
    assert_eq!(unknown(&request(&[0x8000, 0x8FFF, 0xC05B, 0xFFFF], None)), [0u16; 0]);
}

#[test]
fn the_edge_between_required_and_optional_is_between_7fff_and_8000() {
    assert!(AttributeType(0x7FFF).is_comprehension_required());
    assert!(!AttributeType(0x8000).is_comprehension_required());
}

#[test]
fn a_known_attribute_that_a_receiver_does_not_take_here_is_listed_like_an_unknown_one() {
    assert_eq!(unknown(&request(&[AttributeType::LIFETIME.0], None)), [AttributeType::LIFETIME.0]);
}

#[test]
fn attributes_behind_the_integrity_attribute_are_not_listed() {
    assert_eq!(unknown(&request(&[0x0006, 0x7FFF], Some(1))), [0u16; 0]);
}

#[test]
fn the_integrity_attributes_and_fingerprint_are_always_known() {
    let mut buffer = [0; 256];
    let mut writer = Writer::new(&mut buffer, Class::Request, Method::BINDING, TransactionId([1; 12])).expect("room");
    writer.message_integrity(b"key").expect("room").message_integrity_sha256(b"key").expect("room");
    writer.fingerprint().expect("room");
    assert!(Packet::scan(writer.as_bytes()).expect("sound").unknown_required(&[]).is_empty());
}

#[test]
fn a_request_of_a_thousand_unknown_attributes_is_answered_with_a_short_list() {
    let kinds: Vec<u16> = (0x4000..0x43E8).collect();
    let bytes = request(&kinds, None);
    let listed = unknown(&bytes);
    assert_eq!(listed, kinds[..32]);
}

#[test]
fn the_answer_is_420_with_the_list() {
    let bytes = request(&[0x7FFF, 0x0002], None);
    let packet = Packet::scan(&bytes).expect("sound");
    let mut buffer = [0; 128];
    let mut writer = Writer::new(&mut buffer, Class::Error, packet.method(), packet.transaction_id()).expect("room");
    writer.error_code(420, "Unknown Attribute").expect("room");
    writer.unknown_attributes(packet.unknown_required(KNOWN).as_slice()).expect("room");
    let answer = Packet::scan(writer.as_bytes()).expect("sound");
    assert_eq!(answer.error_code(), Some((420, "Unknown Attribute")));
    assert_eq!(answer.find(AttributeType::UNKNOWN_ATTRIBUTES), Some(&[0x7F, 0xFF, 0x00, 0x02][..]));
}

#[test]
fn the_typed_view_lists_what_the_codec_does_not_know_at_all() {
    let bytes = request(&[0x7FFF, 0x8FFF, 0x0002, 0x7FFF], None);
    let typed = Message::decode(&Packet::scan(&bytes).expect("sound")).expect("typed");
    assert_eq!(typed.unknown_required(), [AttributeType(0x7FFF), AttributeType(0x0002)]);
    assert!(typed.attributes().is_empty());
}
