//! RFC 8489: what a server does with a Binding request, and with everything else.

use fabric::protocol::stun::{AttributeType, Class, Method, TransactionId, integrity};
use fabric::stun::{DropReason, Transport};

use crate::desk::{CLIENTS, Desk, ID, address, error_code, kinds, message, request, request_with, scan};

#[test]
fn section_6_3_a_bare_request_gets_its_address_and_nothing_else() {
    let desk = Desk::plain();
    for (slot, client) in CLIENTS.into_iter().enumerate() {
        let (reply, answer) = desk.ask(slot, &request(|_| {})).expect("an answer");
        assert_eq!(reply.to, address(client));
        assert_eq!(reply.from.index(), slot);
        assert_eq!(answer.len(), [32, 44][slot]);
        let answer = scan(&answer);
        assert_eq!((answer.class(), answer.method(), answer.transaction_id()), (Class::Success, Method::BINDING, ID));
        assert_eq!(answer.xor_address(AttributeType::XOR_MAPPED_ADDRESS), Some(address(client)));
        assert_eq!(answer.attributes().count(), 1);
    }
}

#[test]
fn section_6_3_a_mapped_source_is_answered_as_the_ipv4_address_it_is() {
    let desk = Desk::plain();
    let arrival = Desk::arrival(1, "[::ffff:198.51.100.7]:40000", Transport::Udp);
    let (reply, answer) = desk.handle(&arrival, &request(|_| {})).expect("an answer");
    assert_eq!(reply.to, address("[::ffff:198.51.100.7]:40000"), "the socket wants its own spelling");
    let mapped = scan(&answer).xor_address(AttributeType::XOR_MAPPED_ADDRESS);
    assert_eq!(mapped, Some(address("198.51.100.7:40000")));
}

#[test]
fn section_6_3_an_address_of_a_tunnel_is_reported_as_it_is() {
    let desk = Desk::plain();
    let source = "[2002:c633:6407::1]:40000";
    let (_, answer) = desk.handle(&Desk::arrival(1, source, Transport::Udp), &request(|_| {})).expect("an answer");
    assert_eq!(scan(&answer).xor_address(AttributeType::XOR_MAPPED_ADDRESS), Some(address(source)));
}

#[test]
fn section_6_3_1_unknown_required_attributes_are_listed_in_a_420() {
    let desk = Desk::plain();
    let asked = request(|writer| {
        for kind in [0x0024, 0x0025, 0x7777, 0x0024, 0x8888] {
            writer.attribute(AttributeType(kind), &[0; 4]).expect("room");
        }
    });
    let (reply, answer) = desk.ask(0, &asked).expect("an answer");
    assert_eq!(reply.error, Some(420));
    assert_eq!(error_code(&answer), Some(420));
    let list = scan(&answer).find(AttributeType::UNKNOWN_ATTRIBUTES).expect("a list").to_vec();
    assert_eq!(list, [0x00, 0x24, 0x00, 0x25, 0x77, 0x77]);
}

#[test]
fn section_6_3_1_known_attributes_without_a_use_here_do_no_harm() {
    let desk = Desk::plain();
    let asked = request(|writer| {
        for kind in [AttributeType::USERNAME, AttributeType::REALM, AttributeType::NONCE, AttributeType::SOFTWARE] {
            writer.attribute(kind, b"text").expect("room");
        }
        writer.message_integrity(b"any key").expect("room");
    });
    let (_, answer) = desk.ask(0, &asked).expect("an answer");
    assert_eq!(kinds(&answer), [AttributeType::XOR_MAPPED_ADDRESS]);
}

#[test]
fn section_14_5_attributes_behind_the_integrity_attribute_are_not_seen() {
    let desk = Desk::plain();
    let mut asked = request(|writer| {
        writer.message_integrity(b"any key").expect("room");
    });
    asked.extend([0x00, 0x24, 0, 4, 0, 0, 0, 0]);
    let body = (asked.len() - 20) as u16;
    asked[2..4].copy_from_slice(&body.to_be_bytes());
    assert_eq!(desk.ask(0, &asked).expect("an answer").0.error, None);
}

#[test]
fn section_7_3_indications_are_taken_in_silence() {
    let desk = Desk::plain();
    let keepalive = message(Class::Indication, Method::BINDING, |_| {});
    assert_eq!(desk.ask(0, &keepalive), Err(DropReason::Indication));
}

#[test]
fn other_methods_get_no_answer() {
    let desk = Desk::plain();
    for method in [Method::ALLOCATE, Method::REFRESH, Method::new(0), Method::new(0xfff)] {
        assert_eq!(desk.ask(0, &message(Class::Request, method, |_| {})), Err(DropReason::Method));
    }
}

#[test]
fn section_10_alternate_server_sends_each_family_elsewhere() {
    let mut desk = Desk::plain();
    desk.settings.alternate_server_v4 = Some(address("203.0.113.9:3478"));
    let (_, answer) = desk.ask(0, &request(|_| {})).expect("an answer");
    assert_eq!(error_code(&answer), Some(300));
    assert_eq!(scan(&answer).address(AttributeType::ALTERNATE_SERVER), Some(address("203.0.113.9:3478")));
    assert_eq!(desk.ask(1, &request(|_| {})).expect("an answer").0.error, None, "IPv6 stays");
}

#[test]
fn section_14_7_the_answer_has_a_fingerprint_exactly_where_the_request_had_one() {
    for desk in [Desk::plain(), Desk::with_alternates()] {
        for unknown in [false, true] {
            for with in [false, true] {
                let asked = request(|writer| {
                    if unknown {
                        writer.attribute(AttributeType::PRIORITY, &[0; 4]).expect("room");
                    }
                    if with {
                        writer.fingerprint().expect("room");
                    }
                });
                let (reply, answer) = desk.ask(0, &asked).expect("an answer");
                assert_eq!(reply.error.is_some(), unknown);
                assert_eq!(scan(&answer).fingerprint().is_some(), with);
                assert!(integrity::fingerprint_is_sound(&scan(&answer)));
            }
        }
    }
}

#[test]
fn section_14_7_a_wrong_fingerprint_is_dropped() {
    let desk = Desk::plain();
    let sound = request(|writer| {
        writer.fingerprint().expect("room");
    });
    for at in (0..sound.len()).filter(|at| !(20..24).contains(at)) {
        let mut broken = sound.clone();
        broken[at] ^= 0x10;
        assert!(desk.ask(0, &broken).is_err(), "byte {at}");
    }
}

#[test]
fn every_transaction_id_comes_back_as_it_was() {
    let desk = Desk::plain();
    for seed in 0..=255u8 {
        let mut asked = request(|_| {});
        asked[8..20].fill(seed);
        let (_, answer) = desk.ask(0, &asked).expect("an answer");
        assert_eq!(scan(&answer).transaction_id(), TransactionId([seed; 12]));
    }
}

#[test]
fn over_a_connection_the_same_rules_hold_without_caps() {
    let mut desk = Desk::plain();
    desk.settings.limits.per_host = Some(fabric::address::Rate::new(1, 1));
    for _ in 0..10 {
        let arrival = Desk::arrival(0, CLIENTS[0], Transport::Tcp);
        let (_, answer) = desk.handle(&arrival, &request(|_| {})).expect("an answer");
        assert_eq!(kinds(&answer), [AttributeType::XOR_MAPPED_ADDRESS]);
    }
    let unknown = request_with(AttributeType::CHANGE_REQUEST, &[0, 0, 0, 6]);
    let (reply, _) = desk.handle(&Desk::arrival(0, CLIENTS[0], Transport::Tls), &unknown).expect("an answer");
    assert_eq!(reply.error, Some(420));
}
