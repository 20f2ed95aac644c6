//! RFC 3489: clients without a magic cookie, where the operator lets them in.

use fabric::stun::{DropReason, Transport};

use crate::desk::{CLIENTS, CORNERS4, Desk, change_request, request, request_with};
use fabric::protocol::stun::AttributeType;

fn without_cookie(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[4..8].copy_from_slice(b"1234");
    bytes
}

fn lenient(mut desk: Desk) -> Desk {
    desk.settings.rfc3489 = true;
    desk
}

#[test]
fn a_client_learns_its_address_and_where_the_answer_came_from() {
    let desk = lenient(Desk::plain());
    let (reply, answer) = desk.ask(0, &without_cookie(request(|_| {}))).expect("an answer");
    assert_eq!(reply.to.to_string(), CLIENTS[0]);
    assert_eq!(answer[..8], [1, 1, 0, 24, b'1', b'2', b'3', b'4']);
    assert_eq!(answer[8..20], *b"abcdefghijkl");
    assert_eq!(answer[20..32], [0, 1, 0, 8, 0, 1, 0x9c, 0x40, 198, 51, 100, 7]);
    assert_eq!(answer[32..], [0, 4, 0, 8, 0, 1, 0x0d, 0x96, 192, 0, 2, 1]);
}

#[test]
fn change_request_works_as_in_its_successor() {
    let desk = lenient(Desk::with_alternates());
    for (flags, corner) in [(0, 0), (2, 1), (4, 2), (6, 3)] {
        let (reply, answer) = desk.ask(0, &without_cookie(change_request(flags))).expect("an answer");
        assert_eq!(desk.leaves_from(&reply), CORNERS4[corner]);
        assert_eq!(answer[44..48], [0, 5, 0, 8], "CHANGED-ADDRESS");
        assert_eq!(answer.len(), 56);
    }
}

#[test]
fn without_alternates_a_changed_source_is_refused_instead_of_faked() {
    let desk = lenient(Desk::plain());
    let (reply, _) = desk.ask(0, &without_cookie(change_request(6))).expect("an answer");
    assert_eq!(reply.error, Some(420));
}

#[test]
fn response_address_sends_nothing_to_anybody_else() {
    let desk = lenient(Desk::with_alternates());
    let victim = [0, 1, 0, 80, 203, 0, 113, 1];
    let (reply, _) = desk.ask(0, &without_cookie(request_with(AttributeType(2), &victim))).expect("an answer");
    assert_eq!((reply.error, reply.to.to_string().as_str()), (Some(420), CLIENTS[0]));
}

#[test]
fn over_a_connection_a_cookie_is_needed_all_the_same() {
    let desk = lenient(Desk::plain());
    let arrival = Desk::arrival(0, CLIENTS[0], Transport::Tcp);
    assert_eq!(desk.handle(&arrival, &without_cookie(request(|_| {}))), Err(DropReason::NoCookie));
}
