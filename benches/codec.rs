//! What a STUN message costs, in nanoseconds and as a ratio, beside the crates that could have done it.
//!
//! `cargo bench --bench codec`; `NZC_BENCH_SHORT=1` for a second's look with less steady numbers. Every line is the
//! fastest of many short batches, which is the figure that neighbours on the machine disturb least.

#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytecodec::DecodeExt as _;
use fabric::protocol::stun::auth::{Accounts, LongTermClient, LongTermServer, NonceMint, Outcome, Verdict};
use fabric::protocol::stun::integrity::fingerprint_is_sound;
use fabric::protocol::stun::{
    AttributeType, Class, Integrity, Message, Method, Packet, TransactionId, Writer, binding,
};
use stun_types::message::{MessageIntegrityCredentials, ShortTermCredentials};

const KEY: &str = "a password of common length";
const ID: TransactionId = TransactionId([7; 12]);

struct Bench {
    short: bool,
}

impl Bench {
    /// The fastest batch, in nanoseconds an operation.
    fn measure<T>(&self, mut operation: impl FnMut() -> T) -> f64 {
        let (batches, batch_time) =
            if self.short { (5, Duration::from_millis(4)) } else { (60, Duration::from_millis(10)) };
        let mut per_batch = 1u64;
        loop {
            let started = Instant::now();
            for _ in 0..per_batch {
                black_box(operation());
            }
            if started.elapsed() >= batch_time || per_batch > 1 << 40 {
                break;
            }
            per_batch *= 2;
        }
        (0..batches)
            .map(|_| {
                let started = Instant::now();
                for _ in 0..per_batch {
                    black_box(operation());
                }
                started.elapsed().as_nanos() as f64 / per_batch as f64
            })
            .fold(f64::INFINITY, f64::min)
    }
}

fn build(class: Class, parts: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let mut writer = Writer::new(&mut buffer, class, Method::BINDING, ID).expect("room");
    parts(&mut writer);
    writer.as_bytes().to_vec()
}

/// A request as ICE sends it: five attributes, integrity, fingerprint.
fn ice_request() -> Vec<u8> {
    build(Class::Request, |writer| {
        writer.attribute(AttributeType::SOFTWARE, b"a client of some sort").expect("room");
        writer.attribute(AttributeType::PRIORITY, &[0x6E, 0, 1, 0xFF]).expect("room");
        writer.attribute(AttributeType::ICE_CONTROLLED, &[1, 2, 3, 4, 5, 6, 7, 8]).expect("room");
        writer.attribute(AttributeType::USERNAME, b"evtj:h6vY").expect("room");
        writer.message_integrity(KEY.as_bytes()).expect("room").fingerprint().expect("room");
    })
}

fn foreign_typed(bytes: &[u8]) -> stun_codec::Message<stun_codec::rfc5389::Attribute> {
    stun_codec::MessageDecoder::new().decode_from_bytes(bytes).expect("framed").expect("typed")
}

fn row(name: &str, nanoseconds: f64, against: f64) {
    println!("  {name:<52} {nanoseconds:>12.1} ns {:>9.2}", nanoseconds / against);
}

fn main() {
    let bench = Bench { short: std::env::var_os("NZC_BENCH_SHORT").is_some() };
    let client = "192.0.2.1:32853".parse().expect("an address");
    let bare = build(Class::Request, |_| {});
    let ice = ice_request();
    let success = build(Class::Success, |writer| {
        writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, client).expect("room");
    });

    println!("Binding request without attributes, 20 bytes");
    let fast = bench.measure(|| binding::bare_request(black_box(&bare)));
    row("recognise by hand", fast, fast);
    row("scan", bench.measure(|| Packet::scan(black_box(&bare))), fast);
    row("scan, typed view", bench.measure(|| Message::decode(&Packet::scan(black_box(&bare)).expect("sound"))), fast);
    row("stun_codec alone", bench.measure(|| foreign_typed(black_box(&bare))), fast);
    row("stun-types", bench.measure(|| stun_types::message::Message::from_bytes(black_box(&bare)).is_ok()), fast);
    let mut buffer = [0; 64];
    row(
        "recognise and write the answer",
        bench.measure(|| {
            let id = binding::bare_request(black_box(&bare)).expect("bare");
            let length = binding::write_success(black_box(&mut buffer), id, client);
            black_box(&buffer);
            length
        }),
        fast,
    );

    println!("Binding response with XOR-MAPPED-ADDRESS, 32 bytes");
    let read = bench
        .measure(|| Packet::scan(black_box(&success)).expect("sound").xor_address(AttributeType::XOR_MAPPED_ADDRESS));
    row("scan, read the address", read, read);
    row(
        "scan, typed view",
        bench.measure(|| Message::decode(&Packet::scan(black_box(&success)).expect("sound"))),
        read,
    );
    row("stun_codec alone", bench.measure(|| foreign_typed(black_box(&success))), read);
    row(
        "stun-types",
        bench.measure(|| {
            let message = stun_types::message::Message::from_bytes(black_box(&success)).expect("sound");
            message.attribute::<stun_types::attribute::XorMappedAddress>().map(|it| it.addr(message.transaction_id()))
        }),
        read,
    );

    println!("ICE request with MESSAGE-INTEGRITY and FINGERPRINT, {} bytes", ice.len());
    let scan = bench.measure(|| Packet::scan(black_box(&ice)));
    row("scan", scan, scan);
    row(
        "scan, FINGERPRINT",
        bench.measure(|| fingerprint_is_sound(&Packet::scan(black_box(&ice)).expect("sound"))),
        scan,
    );
    row(
        "scan, MESSAGE-INTEGRITY",
        bench.measure(|| Integrity::Sha1.verify(&Packet::scan(black_box(&ice)).expect("sound"), KEY.as_bytes())),
        scan,
    );
    row("scan, typed view", bench.measure(|| Message::decode(&Packet::scan(black_box(&ice)).expect("sound"))), scan);
    row("stun_codec alone (checks FINGERPRINT)", bench.measure(|| foreign_typed(black_box(&ice))), scan);
    row(
        "stun-types (checks FINGERPRINT)",
        bench.measure(|| stun_types::message::Message::from_bytes(black_box(&ice)).is_ok()),
        scan,
    );
    let credentials = MessageIntegrityCredentials::ShortTerm(ShortTermCredentials::new(KEY.to_owned()));
    row(
        "stun-types, FINGERPRINT and MESSAGE-INTEGRITY",
        bench.measure(|| {
            stun_types::message::Message::from_bytes(black_box(&ice))
                .expect("sound")
                .validate_integrity(&credentials)
                .is_ok()
        }),
        scan,
    );

    println!("Long-term request with USERHASH and MESSAGE-INTEGRITY-SHA256, judged by a server");
    judged(&bench);

    println!("Hostile: 16 KiB of repeated MESSAGE-INTEGRITY");
    let hostile = repeated_integrity(16 * 1024);
    let refused = bench.measure(|| Packet::scan(black_box(&hostile)).is_err());
    row("scan, which refuses it", refused, refused);
    let started = Instant::now();
    let _ = black_box(stun_codec::MessageDecoder::<stun_codec::rfc5389::Attribute>::new().decode_from_bytes(&hostile));
    row("stun_codec alone, once", started.elapsed().as_nanos() as f64, refused);
}

fn judged(bench: &Bench) {
    let from = "192.0.2.1:32853".parse().expect("an address");
    let now = std::time::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let mint = NonceMint::new([9; 32], Duration::from_secs(600)).expect("a lifetime");
    let server = LongTermServer::new("example.org", mint).expect("a realm");
    let mut accounts = Accounts::new("example.org").expect("a realm");
    accounts.insert("alice", "open sesame").expect("an account");
    let mut reply = [0; 512];
    let first = build(Class::Request, |_| {});
    let mut refuse = || {
        let request = Packet::scan(black_box(&first)).expect("sound");
        match server.judge(&request, from, now, |claim, kind| accounts.find(claim, kind)) {
            Verdict::Refused(refusal) => refusal.write(&mut reply, &request).expect("room"),
            other => panic!("{other:?}"),
        }
    };
    let challenge = bench.measure(&mut refuse);
    row("scan, refuse with 401 and a nonce", challenge, challenge);
    let length = refuse();
    let mut client = LongTermClient::new("alice", "open sesame").expect("prepared");
    assert_eq!(client.handle(&Packet::scan(&reply[..length]).expect("sound")), Outcome::Retry);
    let signed = build(Class::Request, |writer| client.sign(writer).expect("room"));
    row(
        "scan, nonce, user, HMAC",
        bench.measure(|| {
            let request = Packet::scan(black_box(&signed)).expect("sound");
            matches!(server.judge(&request, from, now, |claim, kind| accounts.find(claim, kind)), Verdict::Accepted(_))
        }),
        challenge,
    );
    let elsewhere = "192.0.2.1:1".parse().expect("an address");
    row(
        "scan, foreign nonce refused before user and HMAC",
        bench.measure(|| {
            let request = Packet::scan(black_box(&signed)).expect("sound");
            matches!(
                server.judge(&request, elsewhere, now, |claim, kind| accounts.find(claim, kind)),
                Verdict::Refused(_)
            )
        }),
        challenge,
    );
}

fn repeated_integrity(length: usize) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    while bytes.len() + 24 <= length {
        bytes.extend([0, 8, 0, 20]);
        bytes.extend([0; 20]);
    }
    let body = u16::try_from(bytes.len() - 20).expect("short");
    bytes[2..4].copy_from_slice(&body.to_be_bytes());
    bytes
}
