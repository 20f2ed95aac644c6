//! RFC 8489 section 9.2: the long-term mechanism.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fabric::protocol::stun::auth::{
    Accounts, Features, LongTermClient, LongTermServer, NonceMint, Outcome, RefusalReason, Rejection, Verdict,
};
use fabric::protocol::stun::integrity::{long_term_key_md5, long_term_key_sha256, userhash};
use fabric::protocol::stun::{
    AttributeType, Class, Integrity, Method, Packet, PasswordAlgorithm, TransactionId, Writer, algorithm,
};

const ID: TransactionId = TransactionId([9; 12]);
const REALM: &str = "example.org";
const LIFETIME: Duration = Duration::from_secs(600);

fn client_address() -> SocketAddr {
    "192.0.2.7:40000".parse().expect("an address")
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn server() -> LongTermServer {
    LongTermServer::new(REALM, NonceMint::new([3; 32], LIFETIME).expect("a lifetime")).expect("a realm")
}

fn accounts() -> Accounts {
    let mut accounts = Accounts::new(REALM).expect("a realm");
    accounts.insert("alice", "open sesame").expect("an account");
    accounts
}

fn message(class: Class, build: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let mut writer = Writer::new(&mut buffer, class, Method::BINDING, ID).expect("room");
    build(&mut writer);
    writer.as_bytes().to_vec()
}

/// What the server answers, and why where it refuses.
fn ask_at(server: &LongTermServer, bytes: &[u8], from: SocketAddr, at: SystemTime) -> (Vec<u8>, Option<RefusalReason>) {
    let accounts = accounts();
    let request = Packet::scan(bytes).expect("sound");
    match server.judge(&request, from, at, |claim, kind| accounts.find(claim, kind)) {
        Verdict::Accepted(session) => (message(Class::Success, |writer| session.seal(writer).expect("room")), None),
        Verdict::Refused(refusal) => {
            let mut buffer = [0; 1024];
            let length = refusal.write(&mut buffer, &request).expect("room");
            (buffer[..length].to_vec(), Some(refusal.reason))
        }
        Verdict::Discarded => panic!("the long-term mechanism judges requests only"),
    }
}

fn ask(bytes: &[u8]) -> (Vec<u8>, Option<RefusalReason>) {
    ask_at(&server(), bytes, client_address(), now())
}

fn fresh_nonce() -> Vec<u8> {
    let (reply, _) = ask(&message(Class::Request, |_| {}));
    Packet::scan(&reply).expect("sound").find(AttributeType::NONCE).expect("a nonce").to_vec()
}

fn offer() -> Vec<u8> {
    algorithm::encode_list(&[PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5])
}

/// A request that is right in everything, unless a test changes a part.
struct Request {
    parts: Vec<(AttributeType, Vec<u8>)>,
    integrity: Integrity,
    key: Vec<u8>,
}

impl Request {
    fn modern() -> Self {
        Self {
            parts: vec![
                (AttributeType::USERHASH, userhash("alice", REALM).to_vec()),
                (AttributeType::REALM, REALM.into()),
                (AttributeType::NONCE, fresh_nonce()),
                (AttributeType::PASSWORD_ALGORITHMS, offer()),
                (AttributeType::PASSWORD_ALGORITHM, PasswordAlgorithm::Sha256.to_bytes().to_vec()),
            ],
            integrity: Integrity::Sha256,
            key: long_term_key_sha256("alice", REALM, "open sesame").to_vec(),
        }
    }

    fn legacy() -> Self {
        Self {
            parts: vec![
                (AttributeType::USERNAME, b"alice".to_vec()),
                (AttributeType::REALM, REALM.into()),
                (AttributeType::NONCE, fresh_nonce()),
            ],
            integrity: Integrity::Sha1,
            key: long_term_key_md5("alice", REALM, "open sesame").to_vec(),
        }
    }

    fn with(mut self, kind: AttributeType, value: &[u8]) -> Self {
        match self.parts.iter_mut().find(|(there, _)| *there == kind) {
            Some((_, there)) => *there = value.to_vec(),
            None => self.parts.push((kind, value.to_vec())),
        }
        self
    }

    fn without(mut self, kind: AttributeType) -> Self {
        self.parts.retain(|(there, _)| *there != kind);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        message(Class::Request, |writer| {
            for (kind, value) in &self.parts {
                writer.attribute(*kind, value).expect("room");
            }
            writer.integrity(self.integrity, &self.key).expect("room");
        })
    }
}

fn assert_challenge(reply: &[u8], code: u16) {
    let reply = Packet::scan(reply).expect("sound");
    assert_eq!((reply.class(), reply.transaction_id()), (Class::Error, ID));
    assert_eq!(reply.error_code(), Some((code, "")));
    assert_eq!(reply.text(AttributeType::REALM), Ok(Some(REALM)));
    assert_eq!(reply.find(AttributeType::PASSWORD_ALGORITHMS), Some(&offer()[..]));
    let nonce = reply.find(AttributeType::NONCE).expect("a nonce");
    assert_eq!(Features::of_nonce(nonce), Some(Features { password_algorithms: true, username_anonymity: true }));
    for absent in [AttributeType::USERNAME, AttributeType::USERHASH] {
        assert_eq!(reply.find(absent), None);
    }
    assert_eq!(Integrity::of(&reply), None);
}

fn assert_bad_request(reply: &[u8]) {
    let reply = Packet::scan(reply).expect("sound");
    assert_eq!(reply.error_code(), Some((400, "")));
    assert_eq!(reply.attributes().count(), 1, "no USERNAME, USERHASH, NONCE or REALM");
    assert_eq!(Integrity::of(&reply), None);
}

#[test]
fn section_9_2_the_nonce_starts_with_the_cookie_and_the_security_features() {
    let nonce = fresh_nonce();
    assert!(nonce.starts_with(b"obMatJos2AAAD"));
    assert_eq!(nonce.len(), NonceMint::NONCE_LEN);
    assert!(nonce.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte)));
}

#[test]
fn section_9_2_the_feature_bits_are_read_in_either_order() {
    for (nonce, password_algorithms, username_anonymity) in [
        (&b"obMatJos2AAAAx"[..], false, false),
        (b"obMatJos2AAAB", true, false),
        (b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA", false, true),
        (b"obMatJos2gAAAx", true, false),
        (b"obMatJos2QAAAx", false, true),
        (b"obMatJos2wAAAx", true, true),
    ] {
        assert_eq!(Features::of_nonce(nonce), Some(Features { password_algorithms, username_anonymity }));
    }
    for nonce in [&b"obMatJos2AA"[..], b"obmatjos2AAAB", b"obMatJos2A*AB", b"", b"f//499k954d6OL34oL9FSTvy64sA"] {
        assert_eq!(Features::of_nonce(nonce), None);
    }
}

#[test]
fn section_9_2_2_the_example_key_of_the_text() {
    assert_eq!(
        long_term_key_md5("user", "realm", "pass"),
        [0x84, 0x93, 0xfb, 0xc5, 0x3b, 0xa5, 0x82, 0xfb, 0x4c, 0x04, 0x4c, 0x45, 0x6b, 0xdc, 0x40, 0xeb]
    );
}

#[test]
fn section_9_2_3_1_the_first_request_of_a_client_carries_no_credentials() {
    let client = LongTermClient::new("alice", "open sesame").expect("prepared");
    assert_eq!(message(Class::Request, |writer| client.sign(writer).expect("room")).len(), 20);
}

#[test]
fn section_9_2_4_a_request_without_integrity_is_401_with_realm_nonce_and_algorithms() {
    let (reply, reason) = ask(&message(Class::Request, |_| {}));
    assert_eq!(reason, Some(RefusalReason::NoIntegrity));
    assert_challenge(&reply, 401);
    // Credentials without integrity prove nothing either.
    let unsigned = message(Class::Request, |writer| {
        for (kind, value) in &Request::modern().parts {
            writer.attribute(*kind, value).expect("room");
        }
    });
    let (reply, reason) = ask(&unsigned);
    assert_eq!(reason, Some(RefusalReason::NoIntegrity));
    assert_challenge(&reply, 401);
}

#[test]
fn section_9_2_4_a_missing_user_realm_or_nonce_is_400() {
    for (request, kinds) in [
        (Request::modern as fn() -> Request, [AttributeType::USERHASH, AttributeType::REALM, AttributeType::NONCE]),
        (Request::legacy, [AttributeType::USERNAME, AttributeType::REALM, AttributeType::NONCE]),
    ] {
        for kind in kinds {
            let (reply, reason) = ask(&request().without(kind).bytes());
            assert_eq!(reason, Some(RefusalReason::Incomplete));
            assert_bad_request(&reply);
        }
    }
}

#[test]
fn section_9_2_4_a_user_realm_or_hash_that_cannot_be_one_is_400() {
    for request in [
        Request::legacy().with(AttributeType::USERNAME, &[b'a'; 509]),
        Request::legacy().with(AttributeType::USERNAME, &[0xFF, 0xFE]),
        Request::legacy().with(AttributeType::REALM, &[b'a'; 764]),
        Request::modern().with(AttributeType::USERHASH, &[0; 31]),
        Request::modern().with(AttributeType::USERHASH, &[0; 33]),
    ] {
        let (reply, reason) = ask(&request.bytes());
        assert_eq!(reason, Some(RefusalReason::Incomplete));
        assert_bad_request(&reply);
    }
}

#[test]
fn section_9_2_4_algorithms_must_be_both_there_or_both_absent_and_match_the_offer() {
    let sha256 = PasswordAlgorithm::Sha256.to_bytes();
    for request in [
        Request::modern().without(AttributeType::PASSWORD_ALGORITHMS),
        Request::modern().without(AttributeType::PASSWORD_ALGORITHM),
        Request::legacy().with(AttributeType::PASSWORD_ALGORITHM, &sha256),
        Request::legacy().with(AttributeType::PASSWORD_ALGORITHMS, &offer()),
        Request::modern().with(AttributeType::PASSWORD_ALGORITHMS, &PasswordAlgorithm::Md5.to_bytes()),
        Request::modern().with(AttributeType::PASSWORD_ALGORITHMS, &sha256),
        Request::modern().with(AttributeType::PASSWORD_ALGORITHMS, &[0, 1, 0, 0, 0, 2, 0, 0]),
        Request::modern().with(AttributeType::PASSWORD_ALGORITHM, &[0, 3, 0, 0]),
        Request::modern().with(AttributeType::PASSWORD_ALGORITHM, &[]),
    ] {
        let (reply, reason) = ask(&request.bytes());
        assert_eq!(reason, Some(RefusalReason::Algorithms));
        assert_bad_request(&reply);
    }
}

#[test]
fn section_9_2_4_md5_may_be_picked_from_the_offer_and_is_answered_with_sha256() {
    let mut request = Request::modern().with(AttributeType::PASSWORD_ALGORITHM, &PasswordAlgorithm::Md5.to_bytes());
    request.key = long_term_key_md5("alice", REALM, "open sesame").to_vec();
    let (reply, reason) = ask(&request.bytes());
    assert_eq!(reason, None);
    let reply = Packet::scan(&reply).expect("sound");
    assert_eq!(Integrity::of(&reply), Some(Integrity::Sha256));
    assert!(Integrity::Sha256.verify(&reply, &request.key));
}

#[test]
fn section_9_2_4_a_client_that_knows_no_algorithms_is_served_with_md5_unless_that_is_switched_off() {
    let request = Request::legacy();
    let (reply, reason) = ask(&request.bytes());
    assert_eq!(reason, None);
    let reply = Packet::scan(&reply).expect("sound");
    assert_eq!(Integrity::of(&reply), Some(Integrity::Sha1));
    assert!(Integrity::Sha1.verify(&reply, &request.key));

    let strict = server().without_md5();
    let (_, reason) = ask_at(&strict, &request.bytes(), client_address(), now());
    assert_eq!(reason, Some(RefusalReason::LegacyAlgorithm));
}

/// What the answer carries depends on whether the request knew of algorithms, not on the attribute it was signed with.
#[test]
fn section_9_2_4_the_answer_to_a_request_of_mixed_age_goes_by_its_algorithms() {
    let mut sha1_with_algorithms = Request::modern();
    sha1_with_algorithms.integrity = Integrity::Sha1;
    let mut sha256_without = Request::legacy();
    sha256_without.integrity = Integrity::Sha256;
    for (request, expected) in [(sha1_with_algorithms, Integrity::Sha256), (sha256_without, Integrity::Sha1)] {
        let (reply, reason) = ask(&request.bytes());
        assert_eq!(reason, None);
        let reply = Packet::scan(&reply).expect("sound");
        assert_eq!(Integrity::of(&reply), Some(expected));
        assert!(expected.verify(&reply, &request.key));
    }
}

#[test]
fn section_9_2_4_an_unknown_user_and_a_wrong_password_get_the_same_401() {
    let unknown = Request::legacy().with(AttributeType::USERNAME, b"bob");
    let (unknown_reply, reason) = ask(&unknown.bytes());
    assert_eq!(reason, Some(RefusalReason::UnknownUser));
    assert_challenge(&unknown_reply, 401);
    let mut wrong = Request::legacy();
    wrong.key[0] ^= 1;
    let (wrong_reply, reason) = ask(&wrong.bytes());
    assert_eq!(reason, Some(RefusalReason::WrongIntegrity));
    assert_eq!(unknown_reply, wrong_reply, "nothing tells the two apart");

    let hash = Request::modern().with(AttributeType::USERHASH, &userhash("bob", REALM));
    assert_eq!(ask(&hash.bytes()).1, Some(RefusalReason::UnknownUser));
}

#[test]
fn section_9_2_4_the_answer_names_no_user_realm_or_nonce() {
    for request in [Request::modern(), Request::legacy()] {
        let (reply, reason) = ask(&request.bytes());
        assert_eq!(reason, None);
        assert_eq!(Packet::scan(&reply).expect("sound").attributes().count(), 0);
    }
}

#[test]
fn section_9_2_4_an_old_nonce_is_438_with_a_new_one_that_works() {
    let request = Request::modern();
    let later = now() + LIFETIME + Duration::from_secs(1);
    let (reply, reason) = ask_at(&server(), &request.bytes(), client_address(), later);
    assert_eq!(reason, Some(RefusalReason::StaleNonce));
    assert_challenge(&reply, 438);
    let nonce = Packet::scan(&reply).expect("sound").find(AttributeType::NONCE).expect("a nonce").to_vec();
    let again = Request::modern().with(AttributeType::NONCE, &nonce);
    assert_eq!(ask_at(&server(), &again.bytes(), client_address(), later).1, None);
}

#[test]
fn t10_a_nonce_that_is_not_ours_is_refused_before_any_user_is_looked_up() {
    let lookups = Cell::new(0);
    let server = server();
    let count = |bytes: &[u8], from: SocketAddr| {
        let request = Packet::scan(bytes).expect("sound");
        let verdict = server.judge(&request, from, now(), |_, _| {
            lookups.set(lookups.get() + 1);
            None
        });
        match verdict {
            Verdict::Refused(refusal) => refusal.reason,
            other => panic!("{other:?}"),
        }
    };
    let foreign = Request::modern().with(AttributeType::NONCE, b"f//499k954d6OL34oL9FSTvy64sA").bytes();
    assert_eq!(count(&foreign, client_address()), RefusalReason::ForeignNonce);
    let elsewhere: SocketAddr = "192.0.2.7:40001".parse().expect("an address");
    assert_eq!(count(&Request::modern().bytes(), elsewhere), RefusalReason::ForeignNonce);
    assert_eq!(lookups.get(), 0);
    assert_eq!(count(&Request::modern().bytes(), client_address()), RefusalReason::UnknownUser);
    assert_eq!(lookups.get(), 1);
}

#[test]
fn t11_a_challenge_with_a_short_realm_is_at_most_three_times_a_request_of_28_bytes() {
    let mint = NonceMint::new([3; 32], LIFETIME).expect("a lifetime");
    let server = LongTermServer::new("nzc", mint).expect("a realm");
    let (reply, _) = ask_at(&server, &message(Class::Request, |_| {}), client_address(), now());
    assert_eq!(reply.len(), 84);
    assert!(reply.len() <= 3 * 28);
}

#[test]
fn section_9_2_5_client_and_server_agree_in_two_exchanges() {
    let mut client = LongTermClient::new("alice", "open sesame").expect("prepared");
    let first = message(Class::Request, |writer| client.sign(writer).expect("room"));
    let (reply, _) = ask(&first);
    assert_eq!(client.handle(&Packet::scan(&reply).expect("sound")), Outcome::Retry);
    let second = message(Class::Request, |writer| client.sign(writer).expect("room"));
    let packet = Packet::scan(&second).expect("sound");
    assert_eq!(packet.find(AttributeType::USERHASH), Some(&userhash("alice", REALM)[..]));
    assert_eq!(packet.find(AttributeType::USERNAME), None, "the server offers anonymity");
    assert_eq!(packet.find(AttributeType::PASSWORD_ALGORITHMS), Some(&offer()[..]));
    let (reply, reason) = ask(&second);
    assert_eq!(reason, None);
    assert_eq!(client.handle(&Packet::scan(&reply).expect("sound")), Outcome::Take);
}

#[test]
fn section_9_2_5_a_stale_nonce_is_replaced_and_a_wrong_password_given_up() {
    let server = server();
    let mut client = LongTermClient::new("alice", "open sesame").expect("prepared");
    let exchange = |client: &mut LongTermClient, at| {
        let request = message(Class::Request, |writer| client.sign(writer).expect("room"));
        let (reply, reason) = ask_at(&server, &request, client_address(), at);
        (client.handle(&Packet::scan(&reply).expect("sound")), reason)
    };
    exchange(&mut client, now());
    assert_eq!(exchange(&mut client, now()), (Outcome::Take, None));
    let later = now() + 2 * LIFETIME;
    assert_eq!(exchange(&mut client, later), (Outcome::Retry, Some(RefusalReason::StaleNonce)));
    assert_eq!(exchange(&mut client, later), (Outcome::Take, None));

    let mut stranger = LongTermClient::new("alice", "guess").expect("prepared");
    assert_eq!(exchange(&mut stranger, now()).0, Outcome::Retry);
    assert_eq!(
        exchange(&mut stranger, now()),
        (Outcome::GiveUp(Rejection::Credentials), Some(RefusalReason::WrongIntegrity))
    );
}

#[test]
fn section_9_2_5_a_server_that_calls_every_nonce_stale_is_given_up_after_three() {
    let mut client = LongTermClient::new("alice", "open sesame").expect("prepared");
    let mut outcomes = Vec::new();
    for round in 0..5u8 {
        let stale = message(Class::Error, |writer| {
            writer.error_code(438, "").expect("room");
            writer.attribute(AttributeType::REALM, REALM.as_bytes()).expect("room");
            writer.attribute(AttributeType::NONCE, &[b'a' + round]).expect("room");
        });
        outcomes.push(client.handle(&Packet::scan(&stale).expect("sound")));
    }
    assert_eq!(outcomes[..3], [Outcome::Retry; 3]);
    assert_eq!(outcomes[3], Outcome::GiveUp(Rejection::NonceLoop));
}

#[test]
fn section_9_2_5_unsigned_or_wrongly_signed_answers_to_a_signed_request_count_as_never_received() {
    let mut client = LongTermClient::new("alice", "open sesame").expect("prepared");
    let (reply, _) = ask(&message(Class::Request, |_| {}));
    client.handle(&Packet::scan(&reply).expect("sound"));
    let key = long_term_key_sha256("alice", REALM, "open sesame");
    for forged in [
        message(Class::Success, |_| {}),
        message(Class::Error, |writer| {
            writer.error_code(400, "").expect("room");
        }),
        message(Class::Success, |writer| {
            writer.message_integrity_sha256(b"wrong").expect("room");
        }),
        // Right key, weaker attribute than was agreed on.
        message(Class::Success, |writer| {
            writer.message_integrity(&key).expect("room");
        }),
        message(Class::Request, |writer| {
            writer.message_integrity_sha256(&key).expect("room");
        }),
    ] {
        assert_eq!(client.handle(&Packet::scan(&forged).expect("sound")), Outcome::Discard);
    }
}

/// A challenge as the server sent it, changed on the way.
fn tampered_challenge(change: impl Fn(AttributeType, &[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let (reply, _) = ask(&message(Class::Request, |_| {}));
    let reply = Packet::scan(&reply).expect("sound");
    message(Class::Error, |writer| {
        for attribute in reply.attributes() {
            if let Some(value) = change(attribute.kind, attribute.value) {
                writer.attribute(attribute.kind, &value).expect("room");
            }
        }
    })
}

/// T17: whatever a man in the middle does to the offer, the exchange does not end with the weaker algorithm accepted.
#[test]
fn t17_a_stripped_or_weakened_offer_is_refused() {
    let strip_list =
        |kind: AttributeType, value: &[u8]| (kind != AttributeType::PASSWORD_ALGORITHMS).then(|| value.to_vec());
    let strip_both = |kind: AttributeType, value: &[u8]| match kind {
        AttributeType::PASSWORD_ALGORITHMS => None,
        AttributeType::NONCE => Some([b"obMatJos2AAAA", &value[13..]].concat()),
        _ => Some(value.to_vec()),
    };
    let strip_cookie = |kind: AttributeType, value: &[u8]| match kind {
        AttributeType::PASSWORD_ALGORITHMS => None,
        AttributeType::NONCE => Some(value[13..].to_vec()),
        _ => Some(value.to_vec()),
    };
    let only_md5 = |kind: AttributeType, value: &[u8]| match kind {
        AttributeType::PASSWORD_ALGORITHMS => Some(PasswordAlgorithm::Md5.to_bytes().to_vec()),
        _ => Some(value.to_vec()),
    };
    let md5_first = |kind: AttributeType, value: &[u8]| match kind {
        AttributeType::PASSWORD_ALGORITHMS => {
            Some(algorithm::encode_list(&[PasswordAlgorithm::Md5, PasswordAlgorithm::Sha256]))
        }
        _ => Some(value.to_vec()),
    };
    let unknown_only = |kind: AttributeType, value: &[u8]| match kind {
        AttributeType::PASSWORD_ALGORITHMS => Some(vec![0, 9, 0, 0]),
        _ => Some(value.to_vec()),
    };
    let challenged = |challenge: Vec<u8>| {
        let mut client = LongTermClient::new("alice", "open sesame").expect("prepared");
        let outcome = client.handle(&Packet::scan(&challenge).expect("sound"));
        (outcome, message(Class::Request, |writer| client.sign(writer).expect("room")))
    };
    // The client notices.
    assert_eq!(challenged(tampered_challenge(strip_list)).0, Outcome::GiveUp(Rejection::BidDown));
    assert_eq!(challenged(tampered_challenge(unknown_only)).0, Outcome::GiveUp(Rejection::NoCommonAlgorithm));
    // The server notices.
    for (challenge, expected) in [
        (tampered_challenge(strip_both), RefusalReason::ForeignNonce),
        (tampered_challenge(strip_cookie), RefusalReason::ForeignNonce),
        (tampered_challenge(only_md5), RefusalReason::Algorithms),
        (tampered_challenge(md5_first), RefusalReason::Algorithms),
    ] {
        let (outcome, request) = challenged(challenge);
        assert_eq!(outcome, Outcome::Retry);
        assert_eq!(ask(&request).1, Some(expected));
    }
}

#[test]
fn t17_a_client_that_saw_an_offer_does_not_go_on_without_one() {
    let mut client = LongTermClient::new("alice", "open sesame").expect("prepared");
    let (reply, _) = ask(&message(Class::Request, |_| {}));
    assert_eq!(client.handle(&Packet::scan(&reply).expect("sound")), Outcome::Retry);
    let plain = message(Class::Error, |writer| {
        writer.error_code(438, "").expect("room");
        writer.attribute(AttributeType::REALM, REALM.as_bytes()).expect("room");
        writer.attribute(AttributeType::NONCE, b"plain").expect("room");
    });
    assert_eq!(client.handle(&Packet::scan(&plain).expect("sound")), Outcome::GiveUp(Rejection::BidDown));
}

#[test]
fn section_9_2_5_a_response_whose_nonce_promises_algorithms_it_lacks_is_ignored() {
    let mut client = LongTermClient::new("alice", "open sesame").expect("prepared");
    let response = message(Class::Success, |writer| {
        writer.attribute(AttributeType::NONCE, b"obMatJos2AAABx").expect("room");
    });
    assert_eq!(client.handle(&Packet::scan(&response).expect("sound")), Outcome::Discard);
}

#[test]
fn section_9_2_5_a_challenge_without_realm_or_nonce_is_given_up() {
    for kind in [AttributeType::REALM, AttributeType::NONCE] {
        let challenge = tampered_challenge(|there, value| (there != kind).then(|| value.to_vec()));
        let mut client = LongTermClient::new("alice", "open sesame").expect("prepared");
        assert_eq!(client.handle(&Packet::scan(&challenge).expect("sound")), Outcome::GiveUp(Rejection::BadChallenge));
    }
}

#[test]
fn section_9_2_5_a_server_from_before_the_specification_is_met_with_md5_and_sha1() {
    let mut client = LongTermClient::new("alice", "open sesame").expect("prepared");
    let challenge = message(Class::Error, |writer| {
        writer.error_code(401, "Unauthorized").expect("room");
        writer.attribute(AttributeType::REALM, REALM.as_bytes()).expect("room");
        writer.attribute(AttributeType::NONCE, b"f//499k954d6OL34oL9FSTvy64sA").expect("room");
    });
    assert_eq!(client.handle(&Packet::scan(&challenge).expect("sound")), Outcome::Retry);
    let request = message(Class::Request, |writer| client.sign(writer).expect("room"));
    let request = Packet::scan(&request).expect("sound");
    assert_eq!(request.text(AttributeType::USERNAME), Ok(Some("alice")));
    assert_eq!(request.find(AttributeType::PASSWORD_ALGORITHM), None);
    assert!(Integrity::Sha1.verify(&request, &long_term_key_md5("alice", REALM, "open sesame")));
}

/// S8, first half: in the required mode nothing gets through without MESSAGE-INTEGRITY.
#[test]
fn s8_every_request_without_integrity_is_401() {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut asked = 0;
    for _ in 0..2_000 {
        let bytes = message(Class::Request, |writer| {
            for _ in 0..next() % 6 {
                let kind = AttributeType(match next() % 4 {
                    0 => (next() % 0x30) as u16,
                    1 => 0x8000 + (next() % 0x30) as u16,
                    2 => [0x0006, 0x0014, 0x0015, 0x001D, 0x001E, 0x8002][(next() % 6) as usize],
                    _ => next() as u16,
                });
                if matches!(kind.0, 0x0008 | 0x001C | 0x8028) {
                    continue;
                }
                let value: Vec<u8> = (0..next() % 40).map(|_| next() as u8).collect();
                writer.attribute(kind, &value).expect("room");
            }
        });
        let (reply, reason) = ask(&bytes);
        assert_eq!(reason, Some(RefusalReason::NoIntegrity));
        assert_challenge(&reply, 401);
        asked += 1;
    }
    assert_eq!(asked, 2_000);
}

/// S8, second half: a request that would be accepted is not once any byte of it changed.
#[test]
fn s8_a_tampered_byte_at_every_offset_is_rejected() {
    let (server, accounts) = (server(), accounts());
    let mut tried = 0;
    for request in [Request::modern(), Request::legacy()] {
        let bytes = request.bytes();
        assert_eq!(ask(&bytes).1, None, "untouched it is accepted");
        for at in 0..bytes.len() {
            for flip in 1..=255u8 {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                tried += 1;
                let Ok(packet) = Packet::scan(&changed) else { continue };
                let verdict = server.judge(&packet, client_address(), now(), |claim, kind| accounts.find(claim, kind));
                assert!(!matches!(verdict, Verdict::Accepted(_)), "byte {at} ^ {flip:#x}");
            }
        }
    }
    assert!(tried > 60_000);
}
