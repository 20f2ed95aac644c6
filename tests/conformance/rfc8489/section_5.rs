//! RFC 8489 section 5: the header and the frame of a message.

use fabric::protocol::stun::{
    AttributeType, Class, Method, Packet, ScanError, TransactionId, Writer, binding, message_type, split_message_type,
};

const ID: TransactionId = TransactionId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);

fn sound() -> Vec<u8> {
    let mut buffer = [0; 64];
    let mut writer = Writer::new(&mut buffer, Class::Request, Method::BINDING, ID).expect("room");
    writer.attribute(AttributeType::SOFTWARE, b"abc").expect("room");
    writer.as_bytes().to_vec()
}

#[test]
fn the_header_has_the_bytes_of_the_figure() {
    assert_eq!(
        sound(),
        [
            0x00, 0x01, 0x00, 0x08, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x80, 0x22, 0x00,
            0x03, b'a', b'b', b'c', 0
        ]
    );
}

#[test]
fn a_message_whose_two_leading_bits_are_not_zero_is_none() {
    for leading in [0x40, 0x80, 0xC0] {
        let mut bytes = sound();
        bytes[0] |= leading;
        assert_eq!(Packet::scan(&bytes).expect_err("refused"), ScanError::NotStun);
    }
}

#[test]
fn class_and_method_bits_are_interleaved_as_in_figure_3() {
    for (value, class, number) in [
        (0x0001, Class::Request, 0x001),
        (0x0011, Class::Indication, 0x001),
        (0x0101, Class::Success, 0x001),
        (0x0111, Class::Error, 0x001),
        (0x0003, Class::Request, 0x003),
        (0x0113, Class::Error, 0x003),
        (0x0016, Class::Indication, 0x006),
        (0x3EEF, Class::Request, 0xFFF),
        (0x3FFF, Class::Error, 0xFFF),
        (0x0020, Class::Request, 0x010),
        (0x0200, Class::Request, 0x080),
    ] {
        assert_eq!(split_message_type(value), (class, Method::new(number)));
        assert_eq!(message_type(class, Method::new(number)), value);
    }
}

#[test]
fn the_magic_cookie_is_required_in_network_order() {
    for at in 4..8 {
        let mut bytes = sound();
        bytes[at] ^= 1;
        assert_eq!(Packet::scan(&bytes).expect_err("refused"), ScanError::NoCookie);
    }
    let mut bytes = sound();
    bytes[4..8].reverse();
    assert_eq!(Packet::scan(&bytes).expect_err("refused"), ScanError::NoCookie);
}

#[test]
fn the_length_is_a_multiple_of_four_and_exactly_what_follows() {
    for length in 0..64u16 {
        let mut bytes = sound();
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        if length == 8 {
            assert!(Packet::scan(&bytes).is_ok());
        } else {
            assert_eq!(Packet::scan(&bytes).expect_err("refused"), ScanError::BadLength);
        }
    }
    for size in 0..sound().len() {
        assert!(Packet::scan(&sound()[..size]).is_err());
    }
    let mut longer = sound();
    longer.extend([0; 4]);
    assert_eq!(Packet::scan(&longer).expect_err("refused"), ScanError::BadLength);
}

#[test]
fn the_transaction_id_is_taken_over_bit_by_bit() {
    for bit in 0..96 {
        let mut id = [0; 12];
        id[bit / 8] = 1 << (bit % 8);
        let mut buffer = [0; 20];
        Writer::new(&mut buffer, Class::Request, Method::BINDING, TransactionId(id)).expect("room");
        assert_eq!(Packet::scan(&buffer).expect("sound").transaction_id(), TransactionId(id));
        assert_eq!(binding::bare_request(&buffer), Some(TransactionId(id)));
    }
}

#[test]
fn the_bare_request_is_recognised_and_nothing_that_differs_from_it() {
    let mut bare = [0; 20];
    Writer::new(&mut bare, Class::Request, Method::BINDING, ID).expect("room");
    assert_eq!(binding::bare_request(&bare), Some(ID));
    for at in 0..8 {
        for bit in 0..8 {
            let mut other = bare;
            other[at] ^= 1 << bit;
            assert_eq!(binding::bare_request(&other), None);
        }
    }
    assert_eq!(binding::bare_request(&bare[..19]), None);
    assert_eq!(binding::bare_request(&sound()), None);
}
