//! What the fuzz targets feed: every path of the STUN codec that bytes of a stranger reach, with the properties that must
//! hold whatever the bytes are. A plain test includes this file too, so that it also runs without a fuzzer.

use fabric::protocol::stun::integrity::{fingerprint_is_sound, verify_sha1, verify_sha256};
use fabric::protocol::stun::{Integrity, Message, Packet, UnknownRequired, Writer, binding};

/// The raw path: scan, accessors, integrity. What was read is written again and must read the same.
pub(crate) fn packet(bytes: &[u8]) {
    let bare = binding::bare_request(bytes);
    let Ok(packet) = Packet::scan(bytes) else {
        assert!(bare.is_none(), "the fast path takes nothing the scan refuses");
        return;
    };
    assert_eq!(bare.is_some(), bytes.len() == 20 && bytes.starts_with(&[0, 1]), "the fast path knows its one message");
    let (sha1, sha256) = (verify_sha1(&packet, bytes), verify_sha256(&packet, bytes));
    assert_eq!(
        Integrity::of(&packet).is_none(),
        packet.message_integrity().is_none() && packet.message_integrity_sha256().is_none()
    );
    assert!(Integrity::of(&packet).is_some() || !(sha1 || sha256), "nothing verifies where nothing is there");
    let _ = fingerprint_is_sound(&packet);

    let mut buffer = vec![0xEE; bytes.len() + 64];
    let mut writer =
        Writer::new(&mut buffer, packet.class(), packet.method(), packet.transaction_id()).expect("room for a header");
    for attribute in packet.attributes() {
        let _ = (packet.find(attribute.kind), packet.text(attribute.kind));
        let _ = (packet.address(attribute.kind), packet.xor_address(attribute.kind));
        writer.attribute(attribute.kind, attribute.value).expect("no larger than what was read");
    }
    let _ = packet.error_code();
    let unknown: UnknownRequired = packet.unknown_required(&[]);
    assert!(unknown.as_slice().len() <= 32);
    writer.integrity(Integrity::Sha256, bytes).expect("room");
    let again = Packet::scan(writer.as_bytes()).expect("what is written is sound");
    assert!(verify_sha256(&again, bytes), "what is signed verifies");
    assert!(packet.attributes().eq(again.attributes()), "what is written is what was read");
    assert_eq!((packet.class(), packet.method()), (again.class(), again.method()));
}

/// The typed path: what has a typed view can be written, and reads the same again.
pub(crate) fn typed(bytes: &[u8]) {
    let Ok(packet) = Packet::scan(bytes) else { return };
    let Ok(message) = Message::decode(&packet) else { return };
    let mut buffer = vec![0xEE; 2 * bytes.len() + 4096];
    let Ok(writer) = message.write(&mut buffer) else { return };
    let again = Packet::scan(writer.as_bytes()).expect("what is written is sound");
    let again = Message::decode(&again).expect("what is written has a typed view");
    assert_eq!(message.attributes(), again.attributes(), "what is written is what was read");
    assert!(again.unknown_required().is_empty(), "unknown attributes are not passed on");
}
