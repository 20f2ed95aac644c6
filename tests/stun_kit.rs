//! The codec kit: for each attribute golden bytes, length and round trip; for every entry point arbitrary bytes; and the
//! properties of the whole: nothing leaks into padding, cost grows with the length and no faster.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fabric::protocol::stun::auth::{
    Accounts, Features, LongTermClient, LongTermServer, NonceMint, ShortTermClient, Verdict, opaque_string, short_term,
};
use fabric::protocol::stun::dial_back::{DialBack, DialTransport};
use fabric::protocol::stun::integrity::{fingerprint_is_sound, verify_sha1, verify_sha256};
use fabric::protocol::stun::message::own::{
    AddressErrorCode, AlternateDomain, ChangeRequest, ConnectionId, ErrorCode, Icmp, Padding, PasswordAlgorithmChoice,
    PasswordAlgorithms, RequestedAddressFamily, ResponsePort, Userhash,
};
use fabric::protocol::stun::message::{Attribute, DecodeError};
use fabric::protocol::stun::{
    AttributeType, Class, HEADER_LEN, Message, Method, Packet, PasswordAlgorithm, ScanError, TransactionId, Writer,
    algorithm, attribute, binding,
};
use proptest::prelude::*;
use stun_codec::rfc5245::attributes::{IceControlled, IceControlling, Priority, UseCandidate};
use stun_codec::rfc5389::attributes::{
    AlternateServer, MappedAddress, Nonce, Realm, Software, UnknownAttributes, Username, XorMappedAddress,
};
use stun_codec::rfc5766::attributes::{
    ChannelNumber, Data, DontFragment, EvenPort, Lifetime, RequestedTransport, ReservationToken, XorPeerAddress,
    XorRelayAddress,
};
use stun_codec::rfc5780::attributes::{OtherAddress, ResponseOrigin};
use stun_codec::rfc8016::attributes::MobilityTicket;
use stun_codec::rfc8656::attributes::{AdditionalAddressFamily, AddressFamily};

#[path = "support/stun_mutation.rs"]
mod stun_mutation;

use stun_mutation::{KEY, KINDS, Mutator, Random, corpus, value_for};

const ID: TransactionId = TransactionId([0xA0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);

fn v4() -> SocketAddr {
    "192.0.2.1:32853".parse().expect("an address")
}

fn v6() -> SocketAddr {
    "[2001:db8::7]:443".parse().expect("an address")
}

/// Every typed attribute with the bytes it must have, type and length included, padding excluded.
fn golden() -> Vec<(Attribute, &'static str)> {
    let text = |text: &str| text.to_owned();
    vec![
        (MappedAddress::new(v4()).into(), "0001 0008 00018055c0000201"),
        (MappedAddress::new(v6()).into(), "0001 0014 000201bb20010db8000000000000000000000007"),
        (ChangeRequest { ip: true, port: false }.into(), "0003 0004 00000004"),
        (ChangeRequest { ip: false, port: true }.into(), "0003 0004 00000002"),
        (ChangeRequest { ip: true, port: true }.into(), "0003 0004 00000006"),
        (Username::new(text("evtj:h6vY")).expect("short").into(), "0006 0009 6576746a3a68367659"),
        (ErrorCode { code: 438, reason: text("Stale") }.into(), "0009 0009 000004265374616c65"),
        (ErrorCode { code: 699, reason: String::new() }.into(), "0009 0004 00000663"),
        (UnknownAttributes::new(vec![0x0003.into(), 0x7FFF.into()]).into(), "000a 0004 00037fff"),
        (ChannelNumber::new(0x4001).expect("a channel").into(), "000c 0004 40010000"),
        (Lifetime::from_u32(600).into(), "000d 0004 00000258"),
        (XorPeerAddress::new(v4()).into(), "0012 0008 0001a147e112a643"),
        (Data::new(vec![1, 2, 3]).expect("short").into(), "0013 0003 010203"),
        (Realm::new(text("example.org")).expect("short").into(), "0014 000b 6578616d706c652e6f7267"),
        (Nonce::new(text("n0nce")).expect("short").into(), "0015 0005 6e306e6365"),
        (XorRelayAddress::new(v6()).into(), "0016 0014 000220a901 13a9faa001020304050607080 90a0c"),
        (RequestedAddressFamily(2).into(), "0017 0004 02000000"),
        (RequestedAddressFamily(9).into(), "0017 0004 09000000"),
        (EvenPort::new(true).into(), "0018 0001 80"),
        (RequestedTransport::new(17).into(), "0019 0004 11000000"),
        (DontFragment.into(), "001a 0000"),
        (PasswordAlgorithmChoice(PasswordAlgorithm::Sha256).into(), "001d 0004 00020000"),
        (Userhash([0x5A; 32]).into(), "001e 0020 5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"),
        (XorMappedAddress::new(v4()).into(), "0020 0008 0001a147e112a643"),
        (ReservationToken::new(0x0102_0304_0506_0708).into(), "0022 0008 0102030405060708"),
        (Priority::new(0x6E00_01FF).into(), "0024 0004 6e0001ff"),
        (UseCandidate::new().into(), "0025 0000"),
        (Padding { length: 5 }.into(), "0026 0005 0000000000"),
        (ResponsePort(0xC001).into(), "0027 0004 c0010000"),
        (ConnectionId(0xDEAD_BEEF).into(), "002a 0004 deadbeef"),
        (AdditionalAddressFamily::new(AddressFamily::V6).into(), "8000 0004 02000000"),
        (AddressErrorCode { family: 2, code: 440, reason: text("no") }.into(), "8001 0006 020004286e6f"),
        (
            PasswordAlgorithms::new(&[PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5]).into(),
            "8002 0008 0002000000010000",
        ),
        (AlternateDomain(text("a.example")).into(), "8003 0009 612e6578616d706c65"),
        (Icmp { kind: 3, code: 4, data: [0, 0, 5, 0xDC] }.into(), "8004 0008 00000304000005dc"),
        (Software::new(text("nzc")).expect("short").into(), "8022 0003 6e7a63"),
        (AlternateServer::new(v4()).into(), "8023 0008 00018055c0000201"),
        (IceControlled::new(1).into(), "8029 0008 0000000000000001"),
        (IceControlling::new(2).into(), "802a 0008 0000000000000002"),
        (ResponseOrigin::new(v4()).into(), "802b 0008 00018055c0000201"),
        (OtherAddress::new(v6()).into(), "802c 0014 000201bb20010db8000000000000000000000007"),
        (MobilityTicket::new(vec![9, 8, 7]).expect("short").into(), "8030 0003 090807"),
        (
            DialBack::Ask { transport: DialTransport::Tcp, port: 0x1F90, nonce: *b"12345678" }.into(),
            "c05b 000c 06001f903132333435363738",
        ),
        (DialBack::Offer.into(), "c05b 0000"),
    ]
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("two digits"))
        .collect()
}

fn typed_message(attributes: impl IntoIterator<Item = Attribute>) -> Message {
    let mut message = Message::new(Class::Request, Method::ALLOCATE, ID);
    for attribute in attributes {
        message.push(attribute);
    }
    message
}

#[test]
fn every_typed_attribute_has_its_golden_bytes_its_length_and_round_trips() {
    for (attribute, bytes) in golden() {
        let mut expected = unhex(bytes);
        let length = usize::from(u16::from_be_bytes([expected[2], expected[3]]));
        assert_eq!(expected.len(), 4 + length, "{attribute:?}: the golden bytes themselves");
        expected.resize(expected.len().next_multiple_of(4), 0);
        let message = typed_message([attribute.clone()]);
        let mut buffer = [0xEE; 512];
        let writer = message.write(&mut buffer).expect("room");
        let written = writer.as_bytes();
        assert_eq!(written[HEADER_LEN..], expected, "{attribute:?}");
        assert_eq!(usize::from(u16::from_be_bytes([written[2], written[3]])), expected.len());
        let packet = Packet::scan(written).expect("sound");
        assert_eq!(Message::decode(&packet).expect("typed"), message);
    }
}

#[test]
fn every_attribute_kind_this_codec_names_is_written_by_some_golden_case_or_verified_raw() {
    let raw = [AttributeType::MESSAGE_INTEGRITY, AttributeType::MESSAGE_INTEGRITY_SHA256, AttributeType::FINGERPRINT];
    // Superseded: RFC 5780 section 7.7 has nobody left who reads it.
    let retired = [AttributeType::CACHE_TIMEOUT];
    let written: Vec<u16> =
        golden().iter().map(|(_, bytes)| u16::from_be_bytes([unhex(bytes)[0], unhex(bytes)[1]])).collect();
    for number in 0..=u16::MAX {
        let kind = AttributeType(number);
        if kind.name().is_some() && !raw.contains(&kind) && !retired.contains(&kind) {
            assert!(written.contains(&number), "{number:#06x} {:?}", kind.name());
        }
    }
}

#[test]
fn all_attributes_together_round_trip_in_order() {
    let message = typed_message(golden().into_iter().map(|(attribute, _)| attribute));
    let mut buffer = [0; 4096];
    let writer = message.write(&mut buffer).expect("room");
    let packet = Packet::scan(writer.as_bytes()).expect("sound");
    let again = Message::decode(&packet).expect("typed");
    // Of repeated attributes the first counts, so the repetitions of the list are gone.
    let kinds: Vec<_> = packet.attributes().map(|attribute| attribute.kind).collect();
    let mut firsts = kinds.clone();
    let mut seen = Vec::new();
    firsts.retain(|kind| {
        !seen.contains(kind) && {
            seen.push(*kind);
            true
        }
    });
    assert_eq!(again.attributes().len(), firsts.len());
    assert_eq!(again.get::<MappedAddress>().map(MappedAddress::address), Some(v4()));
}

#[test]
fn peer_addresses_may_be_repeated_and_all_count() {
    let message = typed_message([XorPeerAddress::new(v4()).into(), XorPeerAddress::new(v6()).into()]);
    let mut buffer = [0; 256];
    let writer = message.write(&mut buffer).expect("room");
    let again = Message::decode(&Packet::scan(writer.as_bytes()).expect("sound")).expect("typed");
    assert_eq!(again.all::<XorPeerAddress>().map(XorPeerAddress::address).collect::<Vec<_>>(), [v4(), v6()]);
}

#[test]
fn methods_of_every_number_survive_the_typed_view() {
    for number in 0..0x1000 {
        let message = Message::new(Class::Error, Method::new(number), ID);
        let mut buffer = [0; 32];
        let writer = message.write(&mut buffer).expect("room");
        assert_eq!(Message::decode(&Packet::scan(writer.as_bytes()).expect("sound")).expect("typed"), message);
    }
}

#[test]
fn a_message_of_more_attributes_than_any_honest_one_has_no_typed_view() {
    let build = |count: usize| {
        let mut buffer = vec![0; 4096];
        let mut writer = Writer::new(&mut buffer, Class::Request, Method::BINDING, ID).expect("room");
        for _ in 0..count {
            writer.attribute(AttributeType(0x8FFF), &[]).expect("room");
        }
        writer.as_bytes().to_vec()
    };
    let full = build(Message::MAX_ATTRIBUTES);
    assert!(Message::decode(&Packet::scan(&full).expect("sound")).is_ok());
    let over = build(Message::MAX_ATTRIBUTES + 1);
    let error = Message::decode(&Packet::scan(&over).expect("sound")).expect_err("too many");
    assert!(matches!(error, DecodeError::TooManyAttributes));
}

#[test]
fn the_writer_says_no_at_every_buffer_that_is_too_small_and_never_writes_behind_it() {
    let message = typed_message(golden().into_iter().map(|(attribute, _)| attribute));
    let mut buffer = [0; 4096];
    let needed = {
        let mut writer = message.write(&mut buffer).expect("room");
        writer.message_integrity(KEY).expect("room").message_integrity_sha256(KEY).expect("room");
        writer.fingerprint().expect("room");
        writer.finish()
    };
    for size in 0..=needed {
        let mut small = vec![0xEE; size];
        let written = message.write(&mut small).ok().and_then(|mut writer| {
            writer.message_integrity(KEY).ok()?;
            writer.message_integrity_sha256(KEY).ok()?;
            writer.fingerprint().ok()?;
            Some(writer.finish())
        });
        assert_eq!(written, (size == needed).then_some(needed), "{size} of {needed}");
    }
}

/// T20: a buffer full of somebody else's bytes shows nowhere in what is written over it.
#[test]
fn t20_no_byte_of_an_earlier_packet_shows_in_what_is_written() {
    const CANARY: u8 = 0xC7;
    let mut random = Random::new(20);
    let mut written = 0;
    while written < 100_000 {
        let mut buffer = [CANARY; 2048];
        let mut clean = [0; 2048];
        let class = [Class::Request, Class::Success, Class::Error, Class::Indication][random.below(4)];
        let parts: Vec<(u16, Vec<u8>)> = (0..random.below(5))
            .map(|_| {
                let kind = KINDS[random.below(KINDS.len())];
                (kind, value_for(kind, &mut random))
            })
            .collect();
        let seal = random.below(8);
        let write = |buffer: &mut [u8]| {
            let mut writer = Writer::new(buffer, class, Method::BINDING, TransactionId([1; 12])).ok()?;
            for (kind, value) in &parts {
                writer.attribute(AttributeType(*kind), value).ok()?;
            }
            if class == Class::Error {
                writer.error_code(401, "no").ok()?.unknown_attributes(&[AttributeType(1)]).ok()?;
            }
            writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, v4()).ok()?;
            if seal & 1 != 0 {
                writer.message_integrity(KEY).ok()?;
            }
            if seal & 2 != 0 {
                writer.message_integrity_sha256(KEY).ok()?;
            }
            if seal & 4 != 0 {
                writer.fingerprint().ok()?;
            }
            Some(writer.finish())
        };
        let Some(length) = write(&mut buffer) else { continue };
        // Written over zeros it is the same message, so nothing depends on what was there before.
        assert_eq!(write(&mut clean), Some(length));
        assert_eq!(buffer[..length], clean[..length]);
        assert!(buffer[length..].iter().all(|byte| *byte == CANARY), "nothing is written behind the message");
        written += 1;
    }
}

/// The processor time this thread has used: what neighbours on the machine do not change.
fn thread_cpu_time() -> Duration {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    nix::time::clock_gettime(clock).expect("the clock is there").into()
}

/// One message of 16 KiB that repeats MESSAGE-INTEGRITY made a well-known decoder work for seconds.
fn repeated_integrity(length: usize) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    while bytes.len() + 24 <= length {
        bytes.extend([0, 8, 0, 20]);
        bytes.extend([0; 20]);
    }
    let body = u16::try_from(bytes.len() - HEADER_LEN).expect("short");
    bytes[2..4].copy_from_slice(&body.to_be_bytes());
    bytes
}

#[test]
fn thousands_of_integrity_attributes_are_refused_at_the_second() {
    let bytes = repeated_integrity(16 * 1024);
    assert!(bytes.len() > 16_000);
    assert_eq!(Packet::scan(&bytes).expect_err("refused"), ScanError::BadIntegrity);
    let started = thread_cpu_time();
    for _ in 0..1_000 {
        let _ = black_box(Packet::scan(black_box(&bytes)));
    }
    // The second attribute ends it, so the length does not matter: microseconds, where the other takes seconds.
    let taken = thread_cpu_time() - started;
    assert!(taken < Duration::from_millis(100), "{taken:?} for 1000 scans");
}

/// The scan looks at each attribute once: eight times the attributes cost about eight times the time, not 64 times.
#[test]
fn the_cost_of_a_scan_and_of_a_typed_view_grows_with_the_length_and_no_faster() {
    let message = |attributes: usize, kind: u16| {
        let mut buffer = vec![0; 65_535];
        let mut writer = Writer::new(&mut buffer, Class::Request, Method::BINDING, ID).expect("room");
        for _ in 0..attributes {
            writer.attribute(AttributeType(kind), &[]).expect("room");
        }
        writer.as_bytes().to_vec()
    };
    let once = |bytes: &[u8], work: &dyn Fn(&Packet<'_>)| {
        let started = thread_cpu_time();
        for _ in 0..2 {
            work(&Packet::scan(black_box(bytes)).expect("sound"));
        }
        thread_cpu_time() - started
    };
    let scan = |packet: &Packet<'_>| {
        black_box(packet.class());
    };
    let find = |packet: &Packet<'_>| {
        black_box(packet.find(AttributeType::USERNAME));
        black_box(packet.unknown_required(&[]));
    };
    let typed = |packet: &Packet<'_>| {
        let _ = black_box(Message::decode(packet));
    };
    for (name, work, small, large, kind) in [
        ("scan", &scan as &dyn Fn(&Packet<'_>), 2_000, 16_000, 0x8FFF),
        ("find and list unknowns", &find, 2_000, 16_000, 0x7F00),
        ("typed view", &typed, 2_000, 16_000, 0x7F00),
    ] {
        let (small, large) = (message(small, kind), message(large, kind));
        // Side by side, so that whatever slows the machine slows both; the fastest round of each is what it takes.
        let rounds: Vec<_> = (0..20).map(|_| (once(&small, work), once(&large, work))).collect();
        let small = rounds.iter().map(|(small, _)| *small).min().expect("some rounds");
        let large = rounds.iter().map(|(_, large)| *large).min().expect("some rounds");
        let ratio = large.as_secs_f64() / small.as_secs_f64();
        assert!(ratio < 24.0, "{name}: {ratio:.1} times the time for 8 times the attributes ({small:?}, {large:?})");
    }
}

fn mint() -> NonceMint {
    NonceMint::new([7; 32], Duration::from_secs(600)).expect("a lifetime")
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

const BOTH: Features = Features { password_algorithms: true, username_anonymity: true };

/// Drives everything a stranger's bytes reach.
fn exercise(bytes: &[u8]) {
    let _ = binding::bare_request(bytes);
    let _ = attribute::decode_address(bytes);
    let _ = attribute::decode_xor_address(bytes, ID);
    let _ = algorithm::entries(bytes).count();
    let _ = PasswordAlgorithm::from_bytes(bytes);
    let _ = DialBack::from_bytes(bytes);
    let _ = ChangeRequest::from_value(bytes);
    let _ = ResponsePort::from_value(bytes);
    let _ = Features::of_nonce(bytes);
    let _ = mint().check(bytes, v4(), at(1_790_000_000), BOTH);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = opaque_string(text);
    }
    let Ok(packet) = Packet::scan(bytes) else { return };
    let _ = (fingerprint_is_sound(&packet), verify_sha1(&packet, KEY), verify_sha256(&packet, KEY));
    for kind in KINDS {
        let kind = AttributeType(*kind);
        let _ = (packet.find(kind), packet.text(kind), packet.address(kind), packet.xor_address(kind));
    }
    let _ = (packet.error_code(), packet.unknown_required(&[]));
    if let Ok(message) = Message::decode(&packet) {
        let mut buffer = vec![0; 65_535];
        let _ = message.write(&mut buffer);
    }
    let mut accounts = Accounts::new("example.org").expect("a realm");
    accounts.insert("alice", "open sesame").expect("an account");
    let server = LongTermServer::new("example.org", mint()).expect("a realm");
    let verdict = server.judge(&packet, v4(), at(1_790_000_000), |claim, kind| accounts.find(claim, kind));
    assert!(!matches!(verdict, Verdict::Accepted(_)), "nobody guessed the password");
    let _ = short_term(&packet, |claim, kind| accounts.find(claim, kind));
    let _ = LongTermClient::new("alice", "open sesame").expect("prepared").handle(&packet);
    let _ = ShortTermClient::new("alice", "open sesame").expect("prepared").handle(&packet);
}

#[test]
fn mutants_of_sound_messages_never_panic_anywhere() {
    let corpus = corpus(3);
    let mut mutator = Mutator::new(&corpus, 3);
    for _ in 0..5_000 {
        exercise(&mutator.next());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic_anywhere(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        exercise(&bytes);
    }

    #[test]
    fn arbitrary_values_behind_a_sound_header_never_panic_anywhere(
        kinds in proptest::collection::vec((proptest::sample::select(KINDS), proptest::collection::vec(any::<u8>(), 0..80)), 0..8),
        message_type in 0u16..0x4000,
        id in any::<[u8; 12]>(),
    ) {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[..2].copy_from_slice(&message_type.to_be_bytes());
        bytes[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
        bytes[8..].copy_from_slice(&id);
        for (kind, value) in &kinds {
            bytes.extend(kind.to_be_bytes());
            bytes.extend((value.len() as u16).to_be_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0xAA);
        }
        let length = (bytes.len() - HEADER_LEN) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        exercise(&bytes);
    }

    #[test]
    fn whatever_is_written_is_read_back(
        parts in proptest::collection::vec((any::<u16>(), proptest::collection::vec(any::<u8>(), 0..60)), 0..10),
        number in 0u16..0x1000,
        id in any::<[u8; 12]>(),
    ) {
        let parts: Vec<_> = parts.into_iter().filter(|(kind, _)| !stun_mutation::is_ending(*kind)).collect();
        let mut buffer = [0xEE; 2048];
        let mut writer = Writer::new(&mut buffer, Class::Indication, Method::new(number), TransactionId(id)).expect("room");
        for (kind, value) in &parts {
            writer.attribute(AttributeType(*kind), value).expect("room");
        }
        writer.message_integrity(KEY).expect("room").message_integrity_sha256(KEY).expect("room");
        writer.fingerprint().expect("room");
        let packet = Packet::scan(writer.as_bytes()).expect("sound");
        prop_assert!(verify_sha1(&packet, KEY) && verify_sha256(&packet, KEY) && fingerprint_is_sound(&packet));
        prop_assert_eq!((packet.class(), packet.method().number(), packet.transaction_id().0), (Class::Indication, number, id));
        let read: Vec<_> = packet.attributes().map(|attribute| (attribute.kind.0, attribute.value.to_vec())).collect();
        prop_assert_eq!(read, parts);
    }

    #[test]
    fn addresses_survive_writing_and_reading_plain_and_xored(ip in any::<std::net::IpAddr>(), port in any::<u16>(), id in any::<[u8; 12]>()) {
        let address = SocketAddr::new(ip, port);
        let mut buffer = [0; 128];
        let mut writer = Writer::new(&mut buffer, Class::Success, Method::BINDING, TransactionId(id)).expect("room");
        writer.address(AttributeType::MAPPED_ADDRESS, address).expect("room");
        writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, address).expect("room");
        let packet = Packet::scan(writer.as_bytes()).expect("sound");
        prop_assert_eq!(packet.address(AttributeType::MAPPED_ADDRESS), Some(address));
        prop_assert_eq!(packet.xor_address(AttributeType::XOR_MAPPED_ADDRESS), Some(address));
        let typed = Message::decode(&packet).expect("typed");
        prop_assert_eq!(typed.get::<XorMappedAddress>().map(XorMappedAddress::address), Some(address));
    }

    #[test]
    fn nonces_hold_for_their_address_and_second_only(
        ip in any::<std::net::IpAddr>(), port in any::<u16>(), other in any::<std::net::IpAddr>(), other_port in any::<u16>(),
        seconds in 0u64..4_000_000_000, key in any::<[u8; 32]>(),
    ) {
        use fabric::protocol::stun::auth::NonceState;
        let mint = NonceMint::new(key, Duration::from_secs(600)).expect("a lifetime");
        let client = SocketAddr::new(ip, port);
        let nonce = mint.issue(client, at(seconds), BOTH);
        prop_assert_eq!(mint.check(&nonce, client, at(seconds), BOTH), NonceState::Valid);
        prop_assert_eq!(mint.check(&nonce, client, at(seconds + 600), BOTH), NonceState::Valid);
        prop_assert_eq!(mint.check(&nonce, client, at(seconds + 601), BOTH), NonceState::Expired);
        let elsewhere = SocketAddr::new(other, other_port);
        prop_assume!((elsewhere.ip().to_canonical(), other_port) != (client.ip().to_canonical(), port));
        prop_assert_eq!(mint.check(&nonce, elsewhere, at(seconds), BOTH), NonceState::Foreign);
    }
}
