//! RFC 5780: two addresses, two ports, and what a client can ask of them.

use fabric::protocol::stun::AttributeType;
use fabric::stun::{DropReason, Transport};

use crate::desk::{
    CLIENTS, CORNERS4, CORNERS6, Desk, address, change_request, error_code, kinds, request, request_with, scan,
};

#[test]
fn section_6_without_alternates_every_attribute_of_it_is_unknown() {
    let desk = Desk::plain();
    for kind in [AttributeType::CHANGE_REQUEST, AttributeType::RESPONSE_PORT, AttributeType::PADDING] {
        let (reply, answer) = desk.ask(0, &request_with(kind, &[0, 0, 0, 0])).expect("an answer");
        assert_eq!(reply.error, Some(420));
        assert_eq!(scan(&answer).find(AttributeType::UNKNOWN_ATTRIBUTES), Some(&kind.0.to_be_bytes()[..]));
    }
}

#[test]
fn section_6_1_a_bare_request_gets_all_four_addresses() {
    let desk = Desk::with_alternates();
    for (slot, other) in [(0, CORNERS4[3]), (1, CORNERS4[2]), (2, CORNERS4[1]), (3, CORNERS4[0]), (4, CORNERS6[3])] {
        let (reply, answer) = desk.ask(slot, &request(|_| {})).expect("an answer");
        let client = address(CLIENTS[slot / 4]);
        let answer = scan(&answer);
        assert_eq!(reply.from.index(), slot);
        assert_eq!(answer.xor_address(AttributeType::XOR_MAPPED_ADDRESS), Some(client));
        assert_eq!(answer.address(AttributeType::MAPPED_ADDRESS), Some(client));
        assert_eq!(answer.address(AttributeType::OTHER_ADDRESS), Some(address(other)));
        let origin = answer.address(AttributeType::RESPONSE_ORIGIN).expect("an origin");
        assert_eq!(origin.to_string(), desk.leaves_from(&reply));
    }
}

#[test]
fn section_6_1_table_1_holds_from_every_corner() {
    let desk = Desk::with_alternates();
    for corners in [CORNERS4, CORNERS6] {
        let base = if corners == CORNERS4 { 0 } else { 4 };
        for slot in 0..4usize {
            for (flags, flip) in [(0, 0), (2, 1), (4, 2), (6, 3)] {
                let (reply, answer) = desk.ask(base + slot, &change_request(flags)).expect("an answer");
                let expected = corners[slot ^ flip];
                assert_eq!(desk.leaves_from(&reply), expected);
                let answer = scan(&answer);
                assert_eq!(answer.address(AttributeType::RESPONSE_ORIGIN), Some(address(expected)));
                let other = address(corners[slot ^ 3]);
                assert_eq!(answer.address(AttributeType::OTHER_ADDRESS), Some(other), "whatever the flags");
            }
        }
    }
}

#[test]
fn section_6_1_errors_leave_from_where_the_request_came_in() {
    let desk = Desk::with_alternates();
    let asked = request(|writer| {
        writer.attribute(AttributeType::CHANGE_REQUEST, &[0, 0, 0, 6]).expect("room");
        writer.attribute(AttributeType::PRIORITY, &[0; 4]).expect("room");
    });
    let (reply, answer) = desk.ask(1, &asked).expect("an answer");
    assert_eq!((desk.leaves_from(&reply).as_str(), error_code(&answer)), (CORNERS4[1], Some(420)));
}

#[test]
fn section_6_1_padding_and_response_port_together_are_a_bad_request() {
    let desk = Desk::with_alternates();
    let asked = request(|writer| {
        writer.attribute(AttributeType::PADDING, &[0; 1_000]).expect("room");
        writer.attribute(AttributeType::RESPONSE_PORT, &[0x9c, 0x41, 0, 0]).expect("room");
    });
    let (_, answer) = desk.ask(0, &asked).expect("an answer");
    assert_eq!(error_code(&answer), Some(400));
}

#[test]
fn section_7_2_a_malformed_change_request_is_a_bad_request() {
    let desk = Desk::with_alternates();
    let (_, answer) = desk.ask(0, &request_with(AttributeType::CHANGE_REQUEST, &[6])).expect("an answer");
    assert_eq!(error_code(&answer), Some(400));
}

#[test]
fn section_7_5_response_port_changes_the_port_and_nothing_else() {
    let desk = Desk::with_alternates();
    for value in [&[0x9c, 0x41, 0, 0][..], &[0x9c, 0x41]] {
        let (reply, answer) = desk.ask(0, &request_with(AttributeType::RESPONSE_PORT, value)).expect("an answer");
        assert_eq!(reply.to, address("198.51.100.7:40001"));
        let mapped = scan(&answer).xor_address(AttributeType::XOR_MAPPED_ADDRESS);
        assert_eq!(mapped, Some(address(CLIENTS[0])), "the address is that of the sender");
    }
    let (reply, answer) = desk.ask(0, &request_with(AttributeType::RESPONSE_PORT, &[0, 0, 0, 0])).expect("an answer");
    assert_eq!((reply.to, error_code(&answer)), (address(CLIENTS[0]), Some(400)), "nobody hears at port 0");
}

#[test]
fn section_7_6_padding_fills_the_answer_up_to_the_length_of_the_request() {
    let desk = Desk::with_alternates();
    for length in [52, 100, 1_480, 2_000, 60_000] {
        for slot in [0, 4] {
            let asked = request(|writer| {
                writer.attribute(AttributeType::PADDING, &vec![0xAA; length]).expect("room");
                writer.fingerprint().expect("room");
            });
            let (_, answer) = desk.ask(slot, &asked).expect("an answer");
            assert!(answer.len() <= asked.len() && answer.len() + 28 > asked.len(), "{} {}", answer.len(), asked.len());
            let padding = scan(&answer).find(AttributeType::PADDING).expect("padding").to_vec();
            assert!(padding.iter().all(|byte| *byte == 0), "no byte of an earlier packet");
        }
    }
    let asked = request_with(AttributeType::PADDING, &[0xAA; 1_480]);
    assert_eq!(desk.ask(0, &asked).expect("an answer").1.len(), asked.len());
}

#[test]
fn section_7_6_padding_that_pays_for_no_answer_gets_none() {
    let desk = Desk::with_alternates();
    assert_eq!(desk.ask(0, &request_with(AttributeType::PADDING, &[])), Err(DropReason::Padding));
    assert_eq!(desk.ask(0, &request_with(AttributeType::PADDING, &[0; 8])), Err(DropReason::Padding));
    let (_, answer) = desk.ask(0, &request_with(AttributeType::PADDING, &[0; 12])).expect("an answer");
    assert_eq!(kinds(&answer), [AttributeType::XOR_MAPPED_ADDRESS, AttributeType::PADDING]);
}

#[test]
fn over_tcp_the_addresses_are_told_and_the_wishes_are_unknown() {
    let desk = Desk::with_alternates();
    let arrival = Desk::arrival(0, CLIENTS[0], Transport::Tcp);
    let (_, answer) = desk.handle(&arrival, &request(|_| {})).expect("an answer");
    assert_eq!(scan(&answer).address(AttributeType::OTHER_ADDRESS), Some(address(CORNERS4[3])));
    for kind in [AttributeType::CHANGE_REQUEST, AttributeType::RESPONSE_PORT, AttributeType::PADDING] {
        let (reply, _) = desk.handle(&arrival, &request_with(kind, &[0, 0, 0, 6])).expect("an answer");
        assert_eq!((reply.error, reply.from.index()), (Some(420), 0));
    }
}

#[test]
fn strict_amplification_gives_as_many_addresses_as_the_request_pays_for() {
    let mut desk = Desk::with_alternates();
    desk.settings.strict_amplification = true;
    let extra = |length: usize, slot: usize| {
        let asked = match length {
            20 => request(|_| {}),
            _ => request_with(AttributeType::SOFTWARE, &vec![b'x'; length - 24]),
        };
        kinds(&desk.ask(slot, &asked).expect("an answer").1).len() - 1
    };
    assert_eq!([20, 28, 36, 44].map(|length| extra(length, 0)), [0, 1, 2, 3]);
    assert_eq!([20, 32, 44, 56].map(|length| extra(length, 4)), [0, 1, 2, 3]);
    let (_, answer) = desk.ask(0, &change_request(6)).expect("an answer");
    assert!(scan(&answer).address(AttributeType::OTHER_ADDRESS).is_some(), "the last to be left out");
}

#[test]
fn alternate_server_comes_without_any_attribute_of_rfc_5780() {
    let mut desk = Desk::with_alternates();
    desk.settings.alternate_server_v4 = Some(address("203.0.113.9:3478"));
    let (_, answer) = desk.ask(0, &change_request(6)).expect("an answer");
    assert_eq!(kinds(&answer), [AttributeType::ERROR_CODE, AttributeType::ALTERNATE_SERVER]);
}
