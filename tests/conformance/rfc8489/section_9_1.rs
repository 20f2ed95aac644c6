//! RFC 8489 section 9.1: the short-term mechanism.

use fabric::protocol::stun::auth::{Accounts, Outcome, RefusalReason, ShortTermClient, Verdict, short_term};
use fabric::protocol::stun::{AttributeType, Class, Integrity, Method, Packet, TransactionId, Writer};

const ID: TransactionId = TransactionId([7; 12]);

fn accounts() -> Accounts {
    let mut accounts = Accounts::new("example.org").expect("a realm");
    accounts.insert("alice", "open sesame").expect("an account");
    accounts
}

fn judge(bytes: &[u8]) -> Verdict<'static> {
    let accounts = accounts();
    short_term(&Packet::scan(bytes).expect("sound"), |claim, kind| accounts.find(claim, kind))
}

fn message(class: Class, build: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = [0; 1024];
    let mut writer = Writer::new(&mut buffer, class, Method::BINDING, ID).expect("room");
    build(&mut writer);
    writer.as_bytes().to_vec()
}

fn signed(class: Class, integrity: Integrity, username: &str, key: &str) -> Vec<u8> {
    message(class, |writer| {
        writer.attribute(AttributeType::USERNAME, username.as_bytes()).expect("room");
        writer.integrity(integrity, key.as_bytes()).expect("room");
    })
}

fn reason(verdict: &Verdict<'_>) -> Option<RefusalReason> {
    match verdict {
        Verdict::Refused(refusal) => Some(refusal.reason),
        _ => None,
    }
}

#[test]
fn section_9_1_1_the_key_is_the_password_after_preparation() {
    // U+00A0 is a space to OpaqueString, and a decomposed letter is composed.
    let mut accounts = Accounts::new("r").expect("a realm");
    accounts.insert("alice", "open\u{A0}s\u{0065}\u{0301}same").expect("an account");
    let bytes = signed(Class::Request, Integrity::Sha256, "alice", "open s\u{E9}same");
    let verdict = short_term(&Packet::scan(&bytes).expect("sound"), |claim, kind| accounts.find(claim, kind));
    assert!(matches!(verdict, Verdict::Accepted(_)));
}

#[test]
fn section_9_1_2_the_first_request_of_a_client_carries_both_integrity_attributes() {
    let client = ShortTermClient::new("alice", "open sesame").expect("prepared");
    let bytes = message(Class::Request, |writer| client.sign(writer).expect("room"));
    let packet = Packet::scan(&bytes).expect("sound");
    assert!(Integrity::Sha1.verify(&packet, b"open sesame"));
    assert!(Integrity::Sha256.verify(&packet, b"open sesame"));
    assert!(matches!(judge(&bytes), Verdict::Accepted(session) if session.integrity == Integrity::Sha256));
}

#[test]
fn section_9_1_3_a_request_without_username_or_integrity_is_400_and_an_indication_is_dropped() {
    let no_integrity = |class| {
        message(class, |writer| {
            writer.attribute(AttributeType::USERNAME, b"alice").expect("room");
        })
    };
    let no_username = |class| {
        message(class, |writer| {
            writer.message_integrity(b"open sesame").expect("room");
        })
    };
    for build in [&no_integrity as &dyn Fn(Class) -> Vec<u8>, &no_username] {
        let verdict = judge(&build(Class::Request));
        assert_eq!(reason(&verdict).map(RefusalReason::code), Some(400));
        assert!(matches!(judge(&build(Class::Indication)), Verdict::Discarded));
    }
}

#[test]
fn section_9_1_3_an_unknown_user_and_a_wrong_password_are_401_without_any_integrity() {
    for integrity in [Integrity::Sha1, Integrity::Sha256] {
        for (user, key, expected) in [
            ("bob", "open sesame", RefusalReason::UnknownUser),
            ("alice", "open barley", RefusalReason::WrongIntegrity),
        ] {
            let bytes = signed(Class::Request, integrity, user, key);
            let packet = Packet::scan(&bytes).expect("sound");
            let verdict = judge(&bytes);
            assert_eq!(reason(&verdict), Some(expected));
            let Verdict::Refused(refusal) = verdict else { unreachable!() };
            let mut buffer = [0; 64];
            let length = refusal.write(&mut buffer, &packet).expect("room");
            let reply = Packet::scan(&buffer[..length]).expect("sound");
            assert_eq!((reply.class(), reply.transaction_id()), (Class::Error, ID));
            assert_eq!(reply.error_code(), Some((401, "")));
            assert_eq!(Integrity::of(&reply), None);
            assert_eq!(reply.attributes().count(), 1);
            let bytes = signed(Class::Indication, integrity, user, key);
            assert!(matches!(judge(&bytes), Verdict::Discarded));
        }
    }
}

#[test]
fn section_9_1_3_sha256_decides_where_both_attributes_are_there() {
    let bytes = message(Class::Request, |writer| {
        writer.attribute(AttributeType::USERNAME, b"alice").expect("room");
        writer.message_integrity(b"open sesame").expect("room");
        writer.message_integrity_sha256(b"wrong").expect("room");
    });
    assert_eq!(reason(&judge(&bytes)), Some(RefusalReason::WrongIntegrity));
    let bytes = message(Class::Request, |writer| {
        writer.attribute(AttributeType::USERNAME, b"alice").expect("room");
        writer.message_integrity(b"wrong").expect("room");
        writer.message_integrity_sha256(b"open sesame").expect("room");
    });
    assert!(matches!(judge(&bytes), Verdict::Accepted(session) if session.integrity == Integrity::Sha256));
}

#[test]
fn section_9_1_3_the_answer_carries_the_attribute_of_the_request_and_no_username() {
    for integrity in [Integrity::Sha1, Integrity::Sha256] {
        let Verdict::Accepted(session) = judge(&signed(Class::Request, integrity, "alice", "open sesame")) else {
            panic!("accepted")
        };
        let answer = message(Class::Success, |writer| session.seal(writer).expect("room"));
        let answer = Packet::scan(&answer).expect("sound");
        assert_eq!(Integrity::of(&answer), Some(integrity));
        assert!(integrity.verify(&answer, b"open sesame"));
        assert_eq!(answer.find(AttributeType::USERNAME), None);
    }
}

#[test]
fn section_9_1_4_a_response_that_is_unsigned_or_signed_wrongly_counts_as_never_received() {
    let mut client = ShortTermClient::new("alice", "open sesame").expect("prepared");
    let unsigned = message(Class::Success, |_| {});
    assert_eq!(client.handle(&Packet::scan(&unsigned).expect("sound")), Outcome::Discard);
    let wrong = message(Class::Success, |writer| {
        writer.message_integrity_sha256(b"wrong").expect("room");
    });
    assert_eq!(client.handle(&Packet::scan(&wrong).expect("sound")), Outcome::Discard);
    let right = message(Class::Success, |writer| {
        writer.message_integrity_sha256(b"open sesame").expect("room");
    });
    assert_eq!(client.handle(&Packet::scan(&right).expect("sound")), Outcome::Take);
}

#[test]
fn section_9_1_5_later_requests_and_responses_stay_with_the_algorithm_of_the_first_response() {
    let answer = |integrity| {
        message(Class::Success, |writer| {
            writer.integrity(integrity, b"open sesame").expect("room");
        })
    };
    for (agreed, other) in [(Integrity::Sha1, Integrity::Sha256), (Integrity::Sha256, Integrity::Sha1)] {
        let mut client = ShortTermClient::new("alice", "open sesame").expect("prepared");
        assert_eq!(client.handle(&Packet::scan(&answer(agreed)).expect("sound")), Outcome::Take);
        let next = message(Class::Request, |writer| client.sign(writer).expect("room"));
        let next = Packet::scan(&next).expect("sound");
        assert_eq!(next.message_integrity().is_some(), agreed == Integrity::Sha1);
        assert_eq!(next.message_integrity_sha256().is_some(), agreed == Integrity::Sha256);
        assert_eq!(client.handle(&Packet::scan(&answer(other)).expect("sound")), Outcome::Discard);
    }
}
