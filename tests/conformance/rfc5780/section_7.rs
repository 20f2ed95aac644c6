//! RFC 5780 section 7: the attributes of NAT behaviour discovery.

use std::net::SocketAddr;

use fabric::protocol::stun::message::DecodeError;
use fabric::protocol::stun::message::own::{ChangeRequest, Padding, ResponsePort};
use fabric::protocol::stun::{AttributeType, Class, Message, Method, Packet, TransactionId, Writer};
use stun_codec::rfc5780::attributes::{OtherAddress, ResponseOrigin};

fn with(kind: AttributeType, value: &[u8]) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let mut writer = Writer::new(&mut buffer, Class::Request, Method::BINDING, TransactionId([1; 12])).expect("room");
    writer.attribute(kind, value).expect("room");
    writer.as_bytes().to_vec()
}

fn typed(bytes: &[u8]) -> Result<Message, DecodeError> {
    Message::decode(&Packet::scan(bytes).expect("sound"))
}

#[test]
fn section_7_2_change_ip_is_bit_4_and_change_port_bit_2_and_the_others_are_ignored() {
    for flags in 0..=255u8 {
        let bytes = with(AttributeType::CHANGE_REQUEST, &[0xFF, 0xFF, 0xFF, flags]);
        let message = typed(&bytes).expect("typed");
        let change = message.get::<ChangeRequest>().expect("there");
        assert_eq!((change.ip, change.port), (flags & 4 != 0, flags & 2 != 0));
    }
    for change in [(false, false), (false, true), (true, false), (true, true)] {
        let change = ChangeRequest { ip: change.0, port: change.1 };
        assert_eq!(ChangeRequest::from_value(&change.to_value()), Some(change));
    }
    for value in [&[][..], &[4], &[0, 0, 4], &[0, 0, 0, 0, 4]] {
        assert!(matches!(
            typed(&with(AttributeType::CHANGE_REQUEST, value)),
            Err(DecodeError::Malformed { kind: AttributeType::CHANGE_REQUEST, .. })
        ));
    }
}

#[test]
fn sections_7_3_and_7_4_response_origin_and_other_address_are_plain_addresses() {
    let address: SocketAddr = "203.0.113.5:3479".parse().expect("an address");
    let mut buffer = [0; 128];
    let mut writer = Writer::new(&mut buffer, Class::Success, Method::BINDING, TransactionId([1; 12])).expect("room");
    writer.address(AttributeType::RESPONSE_ORIGIN, address).expect("room");
    writer.address(AttributeType::OTHER_ADDRESS, address).expect("room");
    let packet = Packet::scan(writer.as_bytes()).expect("sound");
    let message = Message::decode(&packet).expect("typed");
    assert_eq!(message.get::<ResponseOrigin>().map(ResponseOrigin::address), Some(address));
    assert_eq!(message.get::<OtherAddress>().map(OtherAddress::address), Some(address));
    assert_eq!(packet.address(AttributeType::OTHER_ADDRESS), Some(address));
}

#[test]
fn section_7_5_response_port_is_read_with_and_without_its_padding_in_the_length() {
    for value in [&[0x12, 0x34][..], &[0x12, 0x34, 0, 0], &[0x12, 0x34, 0xFF, 0xFF]] {
        let message = typed(&with(AttributeType::RESPONSE_PORT, value)).expect("typed");
        assert_eq!(message.get::<ResponsePort>(), Some(&ResponsePort(0x1234)));
    }
    for value in [&[][..], &[1], &[1, 2, 3], &[1, 2, 3, 4, 5]] {
        assert!(typed(&with(AttributeType::RESPONSE_PORT, value)).is_err());
    }
    assert_eq!(ResponsePort(0x1234).to_value(), [0x12, 0x34, 0, 0]);
}

#[test]
fn section_7_6_padding_counts_by_its_length_and_is_comprehension_required() {
    assert!(AttributeType::PADDING.is_comprehension_required());
    let message = typed(&with(AttributeType::PADDING, &[0xAA; 1_500])).expect("typed");
    assert_eq!(message.get::<Padding>(), Some(&Padding { length: 1_500 }));
    let mut buffer = [0xEE; 2048];
    let writer = message.write(&mut buffer).expect("room");
    assert!(writer.as_bytes()[24..].iter().all(|byte| *byte == 0), "what was received is not sent on");
}
