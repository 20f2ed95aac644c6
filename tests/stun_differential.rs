//! Our decoder beside a foreign one (`stun-types`) on a million mutants (T19): what either makes of a datagram must agree,
//! except for what [`DIFFERENCES`] lists with its reason.
//!
//! The mutants are seeded: the same million on every machine. `NZC_MUTANTS` changes their number.

#![expect(clippy::print_stdout, reason = "the tally of the differences is the result a person wants to see")]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fabric::protocol::stun::integrity::fingerprint_is_sound;
use fabric::protocol::stun::message::DecodeError;
use fabric::protocol::stun::message::own::{
    AlternateDomain, ErrorCode, PasswordAlgorithmChoice, PasswordAlgorithms, Userhash,
};
use fabric::protocol::stun::{
    AttributeType, HEADER_LEN, Integrity, MAGIC_COOKIE, Message, Packet, PasswordAlgorithm, algorithm,
};
use stun_codec::rfc5389::attributes as typed;
use stun_types::attribute as foreign;
use stun_types::message::{IntegrityAlgorithm, MessageIntegrityCredentials, ShortTermCredentials};
use stun_types::prelude::*;

#[path = "support/stun_mutation.rs"]
mod stun_mutation;

use stun_mutation::{KEY, Mutator, corpus, is_ending};

/// What the two decoders are allowed to see differently, and why.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "trailing-bytes",
        "the foreign decoder reads on behind the length of the header; a datagram holds one message, so we refuse it",
    ),
    (
        "unaligned-length",
        "the foreign decoder takes a length that is no multiple of four; RFC 8489 section 5 rules it out",
    ),
    (
        "repeated-integrity",
        "we refuse a repeated MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256; the foreign decoder ignores the second",
    ),
    (
        "fingerprint-not-last",
        "we refuse anything behind FINGERPRINT (RFC 8489 section 14.7); the foreign decoder ignores it",
    ),
    (
        "misshapen-integrity",
        "we refuse an integrity attribute of impossible length at once; the foreign decoder when it is verified",
    ),
    (
        "damage-behind-integrity",
        "the foreign decoder stops at the first attribute that does not belong behind the integrity attribute; we check \
         framing and FINGERPRINT to the end",
    ),
    (
        "integrity-behind-latecomer",
        "the foreign decoder misses an integrity attribute that stands behind one that is to be ignored; \
         RFC 8489 section 9 says to ignore the one and to see the other",
    ),
    ("truncated-hmac", "we refuse a truncated MESSAGE-INTEGRITY-SHA256, which no usage here allows (section 14.6)"),
    (
        "username-509",
        "RFC 8489 section 14.3 keeps USERNAME under 509 bytes; the foreign decoder keeps the 513 of RFC 5389",
    ),
    (
        "alternate-domain-256",
        "RFC 8489 section 14.16 keeps ALTERNATE-DOMAIN to 255 bytes; the foreign decoder to nothing",
    ),
    ("reason-not-utf8", "an ERROR-CODE counts for us although its reason phrase is not UTF-8"),
    ("reason-too-long", "an ERROR-CODE counts for us although its reason phrase is longer than 763 bytes"),
    (
        "algorithm-list",
        "we keep a PASSWORD-ALGORITHMS list with entries we do not know, because a client picks the first it knows and \
         echoes the rest (section 9.2.5); the foreign decoder refuses the list, and also an empty one",
    ),
    (
        "algorithm-company",
        "we refuse a PASSWORD-ALGORITHM with anything behind its one entry; the foreign decoder ignores the rest",
    ),
    (
        "typed-128-characters",
        "within our own codec: the typed view, like the specification to senders, knows no REALM, NONCE or SOFTWARE of \
         128 characters or more; the raw accessors take the 763 bytes a receiver has to be able to hold",
    ),
];

/// What a decoder made of one attribute.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Value {
    Address(SocketAddr),
    Text(String),
    Error(u16, String),
    Kinds(Vec<u16>),
    Hash([u8; 32]),
    Algorithms(Vec<u16>),
}

/// What a decoder made of a datagram.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Reading {
    kind: u16,
    id: [u8; 12],
    attributes: Vec<(u16, Vec<u8>)>,
    integrity: Option<Integrity>,
    values: BTreeMap<u16, Option<Value>>,
}

/// The attributes both decoders give a typed form to.
const TYPED: [u16; 13] =
    [0x0001, 0x0006, 0x0009, 0x000A, 0x0014, 0x0015, 0x001D, 0x001E, 0x0020, 0x8002, 0x8003, 0x8022, 0x8023];

fn ours(bytes: &[u8]) -> Option<Reading> {
    let packet = Packet::scan(bytes).ok().filter(fingerprint_is_sound)?;
    let values = TYPED.map(|kind| (kind, our_value(&packet, AttributeType(kind))));
    Some(Reading {
        kind: fabric::protocol::stun::message_type(packet.class(), packet.method()),
        id: packet.transaction_id().0,
        attributes: packet.attributes().map(|attribute| (attribute.kind.0, attribute.value.to_vec())).collect(),
        integrity: Integrity::of(&packet).filter(|integrity| integrity.verify(&packet, KEY)),
        values: values.into(),
    })
}

fn our_value(packet: &Packet<'_>, kind: AttributeType) -> Option<Value> {
    match kind {
        AttributeType::MAPPED_ADDRESS | AttributeType::ALTERNATE_SERVER => packet.address(kind).map(Value::Address),
        AttributeType::XOR_MAPPED_ADDRESS => packet.xor_address(kind).map(Value::Address),
        AttributeType::ERROR_CODE => packet.error_code().map(|(code, reason)| Value::Error(code, reason.to_owned())),
        AttributeType::UNKNOWN_ATTRIBUTES => {
            let value = packet.find(kind)?;
            let kinds = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            (value.len() % 2 == 0).then_some(Value::Kinds(kinds))
        }
        AttributeType::USERHASH => packet.find(kind)?.try_into().ok().map(Value::Hash),
        AttributeType::PASSWORD_ALGORITHM => PasswordAlgorithm::from_bytes(packet.find(kind)?)
            .map(|algorithm| Value::Algorithms(vec![algorithm.number()])),
        AttributeType::PASSWORD_ALGORITHMS => {
            let entries = algorithm::entries(packet.find(kind)?).collect::<Result<Vec<_>, _>>().ok()?;
            Some(Value::Algorithms(entries.into_iter().map(|(number, _)| number).collect()))
        }
        _ => packet.text(kind).ok().flatten().map(|text| Value::Text(text.to_owned())),
    }
}

fn theirs(bytes: &[u8], credentials: &MessageIntegrityCredentials) -> Option<Reading> {
    let message = stun_types::message::Message::from_bytes(bytes).ok()?;
    let values = TYPED.map(|kind| (kind, their_value(&message, kind)));
    let mut id = [0; 12];
    id.copy_from_slice(&u128::from(message.transaction_id()).to_be_bytes()[4..]);
    Some(Reading {
        kind: u16::from_be_bytes([message.get_type().to_bytes()[0], message.get_type().to_bytes()[1]]),
        id,
        attributes: message
            .iter_attributes()
            .map(|(_, attribute)| (attribute.get_type().value(), attribute.value.to_vec()))
            .take_while(|(kind, _)| !is_ending(*kind))
            .collect(),
        integrity: match message.validate_integrity(credentials) {
            Ok(IntegrityAlgorithm::Sha1) => Some(Integrity::Sha1),
            Ok(IntegrityAlgorithm::Sha256) => Some(Integrity::Sha256),
            Err(_) => None,
        },
        values: values.into(),
    })
}

fn their_value(message: &stun_types::message::Message<'_>, kind: u16) -> Option<Value> {
    match kind {
        0x0001 => {
            let raw = message.raw_attribute(0x0001.into())?;
            foreign::MappedSocketAddr::from_raw(&raw).ok().map(|it| Value::Address(it.addr()))
        }
        0x0006 => message.attribute::<foreign::Username>().ok().map(|it| Value::Text(it.username().to_owned())),
        0x0009 => {
            message.attribute::<foreign::ErrorCode>().ok().map(|it| Value::Error(it.code(), it.reason().to_owned()))
        }
        0x000A => message.attribute::<foreign::UnknownAttributes>().ok().map(|it| {
            let raw = it.to_raw();
            Value::Kinds(raw.value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect())
        }),
        0x0014 => message.attribute::<foreign::Realm>().ok().map(|it| Value::Text(it.realm().to_owned())),
        0x0015 => message.attribute::<foreign::Nonce>().ok().map(|it| Value::Text(it.nonce().to_owned())),
        0x001D => message
            .attribute::<foreign::PasswordAlgorithm>()
            .ok()
            .map(|it| Value::Algorithms(vec![foreign_number(it.algorithm())])),
        0x001E => message.attribute::<foreign::Userhash>().ok().map(|it| Value::Hash(*it.hash())),
        0x0020 => message
            .attribute::<foreign::XorMappedAddress>()
            .ok()
            .map(|it| Value::Address(it.addr(message.transaction_id()))),
        0x8002 => message
            .attribute::<foreign::PasswordAlgorithms>()
            .ok()
            .map(|it| Value::Algorithms(it.algorithms().iter().map(|algorithm| foreign_number(*algorithm)).collect())),
        0x8003 => message.attribute::<foreign::AlternateDomain>().ok().map(|it| Value::Text(it.domain().to_owned())),
        0x8022 => message.attribute::<foreign::Software>().ok().map(|it| Value::Text(it.software().to_owned())),
        0x8023 => message.attribute::<foreign::AlternateServer>().ok().map(|it| Value::Address(it.server())),
        _ => unreachable!("not in TYPED"),
    }
}

fn foreign_number(algorithm: foreign::PasswordAlgorithmValue) -> u16 {
    match algorithm {
        foreign::PasswordAlgorithmValue::MD5 => 1,
        foreign::PasswordAlgorithmValue::SHA256 => 2,
    }
}

/// The structure of a datagram as a third, naive reader sees it: kinds, values, and whether they fill the bytes.
struct Structure<'b> {
    bytes: &'b [u8],
    attributes: Vec<(u16, &'b [u8])>,
    sound: bool,
}

impl<'b> Structure<'b> {
    fn of(bytes: &'b [u8]) -> Self {
        let mut attributes = Vec::new();
        let mut rest = bytes.get(HEADER_LEN..).unwrap_or_default();
        while rest.len() >= 4 {
            let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            let Some(value) = rest.get(4..4 + length) else { break };
            let Some(next) = rest.get(4 + length.next_multiple_of(4)..) else { break };
            attributes.push((u16::from_be_bytes([rest[0], rest[1]]), value));
            rest = next;
        }
        Self { bytes, attributes, sound: rest.is_empty() }
    }

    fn header_length(&self) -> usize {
        usize::from(u16::from_be_bytes([self.bytes[2], self.bytes[3]]))
    }

    fn first_ending(&self) -> usize {
        self.attributes.iter().position(|(kind, _)| is_ending(*kind)).unwrap_or(self.attributes.len())
    }

    /// An attribute that is to be ignored stands behind an ending one.
    fn has_latecomer(&self) -> bool {
        let ending = self.first_ending();
        self.attributes.iter().skip(ending).any(|(kind, _)| !is_ending(*kind))
    }

    /// MESSAGE-INTEGRITY, then something to be ignored, then MESSAGE-INTEGRITY-SHA256.
    fn sha256_follows_a_latecomer(&self) -> bool {
        let behind = &self.attributes[self.first_ending()..];
        behind.first().is_some_and(|(kind, _)| *kind == 0x0008)
            && behind.iter().skip_while(|(kind, _)| is_ending(*kind)).any(|(kind, _)| *kind == 0x001C)
    }

    fn count(&self, wanted: u16) -> usize {
        self.attributes.iter().filter(|(kind, _)| *kind == wanted).count()
    }

    fn first(&self, wanted: u16) -> Option<&'b [u8]> {
        self.attributes.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value)
    }
}

/// Names the listed differences that explain how the readings differ, or says what is unexplained.
fn explain(bytes: &[u8], ours: &Option<Reading>, theirs: &Option<Reading>) -> Result<Vec<&'static str>, String> {
    let structure = Structure::of(bytes);
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => explain_values(&structure, ours, theirs),
        (None, Some(_)) => explain_our_refusal(&structure).map(|name| vec![name]),
        (Some(_), None) => Err("the foreign decoder refused what we took".into()),
        (None, None) => Ok(Vec::new()),
    }
}

fn explain_our_refusal(structure: &Structure<'_>) -> Result<&'static str, String> {
    let header = structure.header_length();
    if !header.is_multiple_of(4) {
        return Ok("unaligned-length");
    }
    if header + HEADER_LEN < structure.bytes.len() {
        return Ok("trailing-bytes");
    }
    if structure.count(0x0008) > 1 || structure.count(0x001C) > 1 {
        return Ok("repeated-integrity");
    }
    let last = structure.attributes.len().saturating_sub(1);
    if structure.attributes.iter().position(|(kind, _)| *kind == 0x8028).is_some_and(|at| at < last || !structure.sound)
    {
        return Ok("fingerprint-not-last");
    }
    let misshapen = |(kind, value): &(u16, &[u8])| match kind {
        0x0008 => value.len() != 20,
        0x001C => !(16..=32).contains(&value.len()) || value.len() % 4 != 0,
        0x8028 => value.len() != 4,
        _ => false,
    };
    if structure.attributes.iter().any(misshapen) {
        return Ok("misshapen-integrity");
    }
    if structure.has_latecomer() {
        return Ok("damage-behind-integrity");
    }
    Err("we refused what the foreign decoder took".into())
}

fn explain_values(structure: &Structure<'_>, ours: &Reading, theirs: &Reading) -> Result<Vec<&'static str>, String> {
    let mut names = Vec::new();
    if (ours.kind, ours.id) != (theirs.kind, theirs.id) {
        return Err("the headers differ".into());
    }
    if ours.attributes != theirs.attributes {
        return Err("the attributes differ".into());
    }
    if ours.integrity != theirs.integrity {
        let truncated = structure.first(0x001C).is_some_and(|tag| tag.len() < 32);
        names.push(if structure.sha256_follows_a_latecomer() {
            "integrity-behind-latecomer"
        } else if truncated && ours.integrity.is_none() && theirs.integrity == Some(Integrity::Sha256) {
            "truncated-hmac"
        } else {
            return Err("the integrity verdicts differ".into());
        });
    }
    let visible = &structure.attributes[..structure.first_ending()];
    for kind in TYPED {
        let (our_value, their_value) = (&ours.values[&kind], &theirs.values[&kind]);
        if our_value == their_value {
            continue;
        }
        let raw = visible.iter().find(|(there, _)| *there == kind).map(|(_, value)| *value).unwrap_or_default();
        names.push(match (kind, our_value, their_value) {
            (0x0006, None, Some(_)) if raw.len() > 508 => "username-509",
            (0x8003, None, Some(_)) if raw.len() > 255 => "alternate-domain-256",
            (0x0009, Some(Value::Error(_, reason)), None)
                if reason.is_empty() && std::str::from_utf8(&raw[4..]).is_err() =>
            {
                "reason-not-utf8"
            }
            (0x0009, Some(_), None) if raw.len() > 767 => "reason-too-long",
            (0x8002, Some(Value::Algorithms(numbers)), None)
                if numbers.is_empty()
                    || numbers.iter().any(|number| !matches!(number, 1 | 2))
                    || raw.len() > 4 * numbers.len() =>
            {
                "algorithm-list"
            }
            (0x001D, None, Some(_)) if raw.len() > 4 => "algorithm-company",
            _ => return Err(format!("attribute {kind:#06x} differs: {our_value:?} against {their_value:?}")),
        });
    }
    Ok(names)
}

/// How the typed view of our own compares with the raw accessors.
enum TypedView {
    /// There is none.
    Absent,
    /// It agrees.
    Agrees,
    /// It differs as listed.
    Differs(&'static str),
}

fn typed_view(bytes: &[u8]) -> Result<TypedView, String> {
    let Ok(packet) = Packet::scan(bytes) else { return Ok(TypedView::Absent) };
    let long = |kind: u16| {
        matches!(kind, 0x0014 | 0x0015 | 0x8022)
            && packet.text(AttributeType(kind)).ok().flatten().is_some_and(|text| text.chars().count() >= 128)
    };
    let message = match Message::decode(&packet) {
        Ok(message) => message,
        Err(DecodeError::Malformed { kind, .. }) => {
            // Only a comprehension-required attribute may spoil the message, and only where its first one does not read.
            if !kind.is_comprehension_required() {
                return Err(format!("{kind:?} is optional and spoiled the message"));
            }
            if long(kind.0) {
                return Ok(TypedView::Differs("typed-128-characters"));
            }
            let reads = TYPED.contains(&kind.0) && our_value(&packet, kind).is_some();
            return if reads { Err(format!("{kind:?} reads raw but not typed")) } else { Ok(TypedView::Absent) };
        }
        Err(_) => return Ok(TypedView::Absent),
    };
    let mut view = TypedView::Agrees;
    for kind in TYPED {
        let typed = typed_value(&message, kind);
        let raw = our_value(&packet, AttributeType(kind));
        let same = match (&typed, &raw) {
            (Some(Value::Error(a, _)), Some(Value::Error(b, _))) => a == b,
            _ => typed == raw,
        };
        if !same && typed.is_none() && long(kind) {
            view = TypedView::Differs("typed-128-characters");
        } else if !same {
            return Err(format!("attribute {kind:#06x}: typed {typed:?}, raw {raw:?}"));
        }
    }
    Ok(view)
}

fn typed_value(message: &Message, kind: u16) -> Option<Value> {
    match kind {
        0x0001 => message.get::<typed::MappedAddress>().map(|it| Value::Address(it.address())),
        0x0006 => message.get::<typed::Username>().map(|it| Value::Text(it.name().to_owned())),
        0x0009 => message.get::<ErrorCode>().map(|it| Value::Error(it.code, it.reason.clone())),
        0x000A => message
            .get::<typed::UnknownAttributes>()
            .map(|it| Value::Kinds(it.unknowns().iter().map(|kind| kind.as_u16()).collect())),
        0x0014 => message.get::<typed::Realm>().map(|it| Value::Text(it.text().to_owned())),
        0x0015 => message.get::<typed::Nonce>().map(|it| Value::Text(it.value().to_owned())),
        0x001D => message.get::<PasswordAlgorithmChoice>().map(|it| Value::Algorithms(vec![it.0.number()])),
        0x001E => message.get::<Userhash>().map(|it| Value::Hash(it.0)),
        0x0020 => message.get::<typed::XorMappedAddress>().map(|it| Value::Address(it.address())),
        0x8002 => message
            .get::<PasswordAlgorithms>()
            .map(|it| Value::Algorithms(algorithm::entries(&it.0).flatten().map(|(number, _)| number).collect())),
        0x8003 => message.get::<AlternateDomain>().map(|it| Value::Text(it.0.clone())),
        0x8022 => message.get::<typed::Software>().map(|it| Value::Text(it.description().to_owned())),
        0x8023 => message.get::<typed::AlternateServer>().map(|it| Value::Address(it.address())),
        _ => unreachable!("not in TYPED"),
    }
}

/// What one share of the mutants showed.
#[derive(Debug, Default)]
struct Tally {
    mutants: usize,
    both_took: usize,
    both_refused: usize,
    verified: usize,
    typed: usize,
    differences: BTreeMap<&'static str, usize>,
    unexplained: Vec<String>,
}

fn run_share(corpus: &[Vec<u8>], seed: u64, mutants: usize) -> Tally {
    let password = String::from_utf8(KEY.to_vec()).expect("text");
    let credentials = MessageIntegrityCredentials::ShortTerm(ShortTermCredentials::new(password));
    let mut mutator = Mutator::new(corpus, seed);
    let mut tally = Tally { mutants, ..Tally::default() };
    for _ in 0..mutants {
        let bytes = mutator.next();
        let (our_reading, their_reading) = (ours(&bytes), theirs(&bytes, &credentials));
        match (&our_reading, &their_reading) {
            (Some(ours), Some(theirs)) => {
                tally.both_took += 1;
                tally.verified += usize::from(ours.integrity.is_some() && ours.integrity == theirs.integrity);
            }
            (None, None) => tally.both_refused += 1,
            _ => {}
        }
        match explain(&bytes, &our_reading, &their_reading) {
            Ok(names) => names.into_iter().for_each(|name| *tally.differences.entry(name).or_default() += 1),
            Err(what) => tally.unexplained.push(format!("{what}: {}", hex(&bytes))),
        }
        match typed_view(&bytes) {
            Ok(TypedView::Agrees) => tally.typed += 1,
            Ok(TypedView::Absent) => {}
            Ok(TypedView::Differs(name)) => *tally.differences.entry(name).or_default() += 1,
            Err(what) => tally.unexplained.push(format!("typed view: {what}: {}", hex(&bytes))),
        }
    }
    tally
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn t19_two_decoders_agree_on_a_million_mutants_but_for_the_listed_differences() {
    const SHARES: usize = 16;
    let mutants = std::env::var("NZC_MUTANTS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000_000usize);
    let started = std::time::Instant::now();
    let corpus = corpus(1);
    assert!(corpus.iter().all(|bytes| ours(bytes).is_some()), "the corpus itself is sound");
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(SHARES);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let corpus = &corpus;
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    (worker..SHARES)
                        .step_by(threads)
                        .map(|share| run_share(corpus, 1_000 + share as u64, mutants / SHARES))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic in either decoder")).collect()
    });
    let mut total = Tally::default();
    for tally in tallies {
        total.mutants += tally.mutants;
        total.both_took += tally.both_took;
        total.both_refused += tally.both_refused;
        total.verified += tally.verified;
        total.typed += tally.typed;
        tally.differences.into_iter().for_each(|(name, count)| *total.differences.entry(name).or_default() += count);
        total.unexplained.extend(tally.unexplained);
    }
    println!(
        "{} mutants in {:.1} s: both took {} (and verified {}), both refused {}, typed view of {}, panics 0, unexplained {}",
        total.mutants,
        started.elapsed().as_secs_f64(),
        total.both_took,
        total.verified,
        total.both_refused,
        total.typed,
        total.unexplained.len()
    );
    for (name, reason) in DIFFERENCES {
        println!("{:>8}  {name}: {reason}", total.differences.get(name).copied().unwrap_or_default());
    }
    for what in &total.unexplained {
        println!("{:.60}", what);
    }
    assert!(total.unexplained.is_empty(), "{} unexplained, first: {}", total.unexplained.len(), total.unexplained[0]);
    assert!(total.differences.keys().all(|name| DIFFERENCES.iter().any(|(listed, _)| listed == name)));
    assert!(total.both_took * 10 > total.mutants, "the mutants reach past the door");
    assert!(total.verified * 50 > total.mutants, "and past the integrity attribute");
    if total.mutants >= 1_000_000 {
        let idle: Vec<_> = DIFFERENCES.iter().filter(|(name, _)| !total.differences.contains_key(name)).collect();
        assert!(idle.is_empty(), "listed but never seen: {idle:?}");
    }
}

/// The cookie is what tells STUN from anything else; without it neither decoder goes on.
#[test]
fn s6_without_the_magic_cookie_neither_decoder_sees_a_message() {
    for mut bytes in corpus(2) {
        bytes[4..8].copy_from_slice(&(MAGIC_COOKIE ^ 1).to_be_bytes());
        assert!(Packet::scan(&bytes).is_err());
        assert!(stun_types::message::Message::from_bytes(&bytes).is_err());
    }
}
