//! RFC 8489 section 9, first paragraphs: what stands behind an integrity attribute is not there.

use fabric::protocol::stun::message::own::{ChangeRequest, ErrorCode};
use fabric::protocol::stun::{
    AttributeType, Class, Integrity, Message, Method, Packet, ScanError, TransactionId, Writer,
};

const KEY: &[u8] = b"key";

fn build(parts: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = [0; 1024];
    let mut writer = Writer::new(&mut buffer, Class::Request, Method::BINDING, TransactionId([1; 12])).expect("room");
    parts(&mut writer);
    writer.as_bytes().to_vec()
}

/// T18: a man in the middle appends what he likes; nothing of it has any effect.
#[test]
fn t18_attributes_appended_behind_the_integrity_attribute_have_no_effect() {
    let appended = [
        0x0001u16, 0x0003, 0x0006, 0x0009, 0x000A, 0x000C, 0x000D, 0x0012, 0x0013, 0x0014, 0x0015, 0x0016, 0x0017,
        0x0018, 0x0019, 0x001A, 0x001D, 0x001E, 0x0020, 0x0022, 0x0026, 0x0027, 0x7FFF, 0x8002, 0x8022, 0x8023, 0x802C,
        0xC05B,
    ];
    assert!(appended.len() >= 20);
    for integrity in [Integrity::Sha1, Integrity::Sha256] {
        let honest = build(|writer| {
            writer.attribute(AttributeType::USERNAME, b"alice").expect("room");
            writer.integrity(integrity, KEY).expect("room");
        });
        let honest_packet = Packet::scan(&honest).expect("sound");
        let honest_typed = Message::decode(&honest_packet).expect("typed");
        for kind in appended {
            let mut longer = honest.clone();
            longer.extend(kind.to_be_bytes());
            longer.extend([0, 4, 0, 0, 0, 6]);
            let length = u16::try_from(longer.len() - 20).expect("short");
            longer[2..4].copy_from_slice(&length.to_be_bytes());
            let packet = Packet::scan(&longer).expect("sound");
            assert!(integrity.verify(&packet, KEY), "{kind:#06x}");
            assert_eq!(packet.attributes().collect::<Vec<_>>(), honest_packet.attributes().collect::<Vec<_>>());
            assert_eq!(packet.find(AttributeType(kind)), honest_packet.find(AttributeType(kind)));
            assert!(packet.unknown_required(&[AttributeType::USERNAME]).is_empty());
            assert_eq!(Message::decode(&packet).expect("typed"), honest_typed);
        }
    }
}

#[test]
fn t18_of_a_repeated_attribute_the_first_counts() {
    let bytes = build(|writer| {
        writer.attribute(AttributeType::CHANGE_REQUEST, &[0, 0, 0, 2]).expect("room");
        writer.attribute(AttributeType::CHANGE_REQUEST, &[0, 0, 0, 4]).expect("room");
        writer.error_code(400, "").expect("room").error_code(500, "").expect("room");
        // A repetition that does not even read spoils nothing.
        writer.attribute(AttributeType::ERROR_CODE, &[]).expect("room");
    });
    let packet = Packet::scan(&bytes).expect("sound");
    assert_eq!(packet.find(AttributeType::CHANGE_REQUEST), Some(&[0, 0, 0, 2][..]));
    assert_eq!(packet.error_code(), Some((400, "")));
    let typed = Message::decode(&packet).expect("typed");
    assert_eq!(typed.get::<ChangeRequest>(), Some(&ChangeRequest { ip: false, port: true }));
    assert_eq!(typed.all::<ErrorCode>().map(|error| error.code).collect::<Vec<_>>(), [400]);
}

#[test]
fn sha256_behind_sha1_counts_and_sha1_behind_sha256_does_not() {
    let both = build(|writer| {
        writer.message_integrity(KEY).expect("room").message_integrity_sha256(KEY).expect("room");
    });
    let packet = Packet::scan(&both).expect("sound");
    assert!(packet.message_integrity().is_some() && packet.message_integrity_sha256().is_some());
    assert!(Integrity::Sha1.verify(&packet, KEY) && Integrity::Sha256.verify(&packet, KEY));

    let turned = build(|writer| {
        writer.message_integrity_sha256(KEY).expect("room").message_integrity(KEY).expect("room");
    });
    let packet = Packet::scan(&turned).expect("sound");
    assert!(packet.message_integrity().is_none());
    assert!(!Integrity::Sha1.verify(&packet, KEY));
    assert!(Integrity::Sha256.verify(&packet, KEY));
}

#[test]
fn sha256_counts_also_behind_an_attribute_that_is_to_be_ignored() {
    let bytes = build(|writer| {
        writer.message_integrity(KEY).expect("room");
        writer.attribute(AttributeType::SOFTWARE, b"latecomer").expect("room");
        writer.message_integrity_sha256(KEY).expect("room");
    });
    let packet = Packet::scan(&bytes).expect("sound");
    assert!(Integrity::Sha256.verify(&packet, KEY));
    assert_eq!(packet.find(AttributeType::SOFTWARE), None);
}

#[test]
fn repeated_integrity_attributes_are_refused_in_every_order() {
    use Integrity::{Sha1, Sha256};
    for order in
        [&[Sha1, Sha1][..], &[Sha256, Sha256], &[Sha1, Sha256, Sha1], &[Sha256, Sha1, Sha1], &[Sha1, Sha256, Sha256]]
    {
        let bytes = build(|writer| {
            for integrity in order {
                writer.integrity(*integrity, KEY).expect("room");
            }
        });
        assert_eq!(Packet::scan(&bytes).expect_err("refused"), ScanError::BadIntegrity, "{order:?}");
    }
}
