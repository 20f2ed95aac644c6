//! Valid STUN messages of every shape, and seeded damage to them. The same seed gives the same bytes everywhere.

use fabric::protocol::stun::{
    AttributeType, Class, HEADER_LEN, Integrity, MAGIC_COOKIE, Method, TransactionId, Writer, algorithm,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::Sha256;

/// The short-term key that [`corpus`] and [`Mutator`] sign with.
pub(crate) const KEY: &[u8] = b"a key both decoders know";

/// SplitMix64: small, seeded, the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Attribute kinds worth writing: everything a decoder knows, and some that none knows.
pub(crate) const KINDS: &[u16] = &[
    0x0001, 0x0003, 0x0006, 0x0008, 0x0009, 0x000A, 0x000C, 0x000D, 0x0012, 0x0013, 0x0014, 0x0015, 0x0016, 0x0017,
    0x0018, 0x0019, 0x001A, 0x001C, 0x001D, 0x001E, 0x0020, 0x0022, 0x0024, 0x0025, 0x0026, 0x0027, 0x002A, 0x8000,
    0x8001, 0x8002, 0x8003, 0x8004, 0x8022, 0x8023, 0x8027, 0x8028, 0x8029, 0x802A, 0x802B, 0x802C, 0x8030, 0xC05B,
    0x0000, 0x0002, 0x7FFF, 0x8FFF, 0xFFFF,
];

/// A value that fits the kind, most of the time.
pub(crate) fn value_for(kind: u16, random: &mut Random) -> Vec<u8> {
    let v4 = |random: &mut Random| [&[0, 1][..], &random.bytes(6)].concat();
    let v6 = |random: &mut Random| [&[0, 2][..], &random.bytes(18)].concat();
    let text = |random: &mut Random, limit: usize| {
        // Now and then just around a limit of the specification.
        let length = if random.chance(24) {
            let edge = *random.pick(&[255, 508, 513, 763]);
            edge - 2 + random.below(5)
        } else {
            random.below(limit)
        };
        (0..length).map(|_| *random.pick(b"abcdefghijklmnopqrstuvwxyz0123456789+/: ")).collect::<Vec<u8>>()
    };
    match kind {
        0x0001 | 0x0012 | 0x0016 | 0x0020 | 0x8023 | 0x802B | 0x802C => {
            if random.chance(2) {
                v4(random)
            } else {
                v6(random)
            }
        }
        0x0003 => vec![0, 0, 0, random.below(8) as u8],
        0x0006 => text(random, 40),
        0x0008 => random.bytes(20),
        0x0009 => [&[0, 0, random.below(8) as u8, random.below(110) as u8][..], &text(random, 20)].concat(),
        0x000A => {
            let length = 2 * random.below(5);
            random.bytes(length)
        }
        0x000C => vec![0x40, random.next() as u8, 0, 0],
        0x0014 | 0x0015 | 0x8022 | 0x8003 => text(random, 60),
        0x0017 | 0x8000 => vec![1 + random.below(2) as u8, 0, 0, 0],
        0x0018 => vec![if random.chance(2) { 0x80 } else { 0 }],
        0x0019 => vec![17, 0, 0, 0],
        0x001A | 0x0025 => Vec::new(),
        0x001C => {
            let length = if random.chance(4) { 16 + 4 * random.below(4) } else { 32 };
            random.bytes(length)
        }
        0x001D => algorithm::PasswordAlgorithm::from_number(1 + random.below(2) as u16)
            .map_or_else(Vec::new, |algorithm| algorithm.to_bytes().repeat(1 + random.below(2))),
        0x001E => random.bytes(32),
        0x0013 | 0x0026 | 0x8030 => {
            let length = random.below(64);
            random.bytes(length)
        }
        0x0022 | 0x8004 | 0x8029 | 0x802A => random.bytes(8),
        0x8001 => [&[1, 0, 4, random.below(100) as u8][..], &text(random, 10)].concat(),
        0x8002 => vec![0, 2 + random.below(2) as u8, 0, 0, 0, 1, 0, 0],
        0x8028 => random.bytes(4),
        0xC05B => [&[17, 0][..], &random.bytes(10)].concat(),
        _ => random.bytes(4),
    }
}

/// Sound messages: every attribute alone, mixtures, and each combination of integrity and fingerprint.
pub(crate) fn corpus(seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    let mut messages = Vec::new();
    let bodies: Vec<Vec<u16>> = std::iter::once(Vec::new())
        .chain(KINDS.iter().filter(|kind| !is_ending(**kind)).map(|kind| vec![*kind]))
        .chain((0..120).map(|_| {
            let count = 2 + random.below(8);
            let plain: Vec<u16> = KINDS.iter().copied().filter(|kind| !is_ending(*kind)).collect();
            (0..count).map(|_| *random.pick(&plain)).collect()
        }))
        .collect();
    for (index, body) in bodies.iter().enumerate() {
        let class = [Class::Request, Class::Success, Class::Error, Class::Indication][index % 4];
        let method = [Method::BINDING, Method::ALLOCATE, Method::SEND, Method::new(0xABC)][index / 4 % 4];
        let parts: Vec<(u16, Vec<u8>)> = body.iter().map(|kind| (*kind, value_for(*kind, &mut random))).collect();
        let mut id = [0; 12];
        id.copy_from_slice(&random.bytes(12));
        messages.push(assemble(class, method, TransactionId(id), &parts, index % 4, index % 3 == 0));
    }
    messages
}

pub(crate) fn is_ending(kind: u16) -> bool {
    matches!(kind, 0x0008 | 0x001C | 0x8028)
}

/// Writes a message; `seal` 0 is unsigned, 1 SHA-1, 2 SHA-256, 3 both.
fn assemble(
    class: Class,
    method: Method,
    id: TransactionId,
    parts: &[(u16, Vec<u8>)],
    seal: usize,
    fingerprint: bool,
) -> Vec<u8> {
    let mut buffer = vec![0; 8192];
    let mut writer = Writer::new(&mut buffer, class, method, id).expect("room");
    for (kind, value) in parts {
        writer.attribute(AttributeType(*kind), value).expect("room");
    }
    if seal & 1 != 0 {
        writer.integrity(Integrity::Sha1, KEY).expect("room");
    }
    if seal & 2 != 0 {
        writer.integrity(Integrity::Sha256, KEY).expect("room");
    }
    if fingerprint {
        writer.fingerprint().expect("room");
    }
    let length = writer.finish();
    buffer.truncate(length);
    buffer
}

/// Turns sound messages into damaged ones.
#[derive(Clone, Debug)]
pub(crate) struct Mutator<'c> {
    corpus: &'c [Vec<u8>],
    random: Random,
}

impl<'c> Mutator<'c> {
    pub(crate) fn new(corpus: &'c [Vec<u8>], seed: u64) -> Self {
        Self { corpus, random: Random::new(seed) }
    }

    /// The next mutant: one to four changes, most of them to the structure, and half of the time header length,
    /// integrity and fingerprint put right again, so that damage is not only found at the door.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let mut bytes = random.pick(self.corpus).clone();
        for _ in 0..1 + random.below(4) {
            match random.below(14) {
                0 => flip_bit(&mut bytes, random),
                1 => set_byte(&mut bytes, random),
                2 => {
                    let length = random.below(bytes.len() + 1);
                    bytes.truncate(length);
                }
                3 => {
                    let length = random.below(9);
                    let tail = random.bytes(length);
                    bytes.extend(tail);
                }
                4 => change_header_length(&mut bytes, random),
                5 => {
                    let other = random.pick(self.corpus).clone();
                    splice(&mut bytes, &other, random);
                }
                6 => change_attribute_length(&mut bytes, random),
                7 => change_attribute_kind(&mut bytes, random),
                8 => remove_attribute(&mut bytes, random),
                9 => repeat_attribute(&mut bytes, random),
                10 => swap_attributes(&mut bytes, random),
                11 | 12 => insert_attribute(&mut bytes, random),
                _ => dirty_padding(&mut bytes, random),
            }
        }
        if random.chance(2) {
            mend(&mut bytes, random);
        }
        bytes
    }
}

fn flip_bit(bytes: &mut [u8], random: &mut Random) {
    if !bytes.is_empty() {
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
    }
}

fn set_byte(bytes: &mut [u8], random: &mut Random) {
    if !bytes.is_empty() {
        let at = random.below(bytes.len());
        bytes[at] = *random.pick(&[0x00, 0x01, 0x7F, 0x80, 0xFF, 0x20]);
    }
}

fn change_header_length(bytes: &mut [u8], random: &mut Random) {
    if bytes.len() >= 4 {
        let length = match random.below(3) {
            0 => random.next() as u16,
            1 => (bytes.len().wrapping_sub(HEADER_LEN) as u16).wrapping_add(random.below(9) as u16).wrapping_sub(4),
            _ => random.below(64) as u16,
        };
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
}

/// Start and end of every attribute that lies within the bytes.
fn attributes(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = HEADER_LEN;
    while at + 4 <= bytes.len() {
        let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        let end = at + 4 + length.next_multiple_of(4);
        if end > bytes.len() {
            break;
        }
        found.push((at, end));
        at = end;
    }
    found
}

fn change_attribute_length(bytes: &mut [u8], random: &mut Random) {
    let found = attributes(bytes);
    if found.is_empty() {
        return;
    }
    let (at, end) = *random.pick(&found);
    let length = match random.below(3) {
        0 => random.next() as u16,
        1 => ((end - at) as u16).wrapping_add(random.below(9) as u16).wrapping_sub(8),
        _ => random.below(40) as u16,
    };
    bytes[at + 2..at + 4].copy_from_slice(&length.to_be_bytes());
}

fn change_attribute_kind(bytes: &mut [u8], random: &mut Random) {
    let found = attributes(bytes);
    if !found.is_empty() {
        let (at, _) = *random.pick(&found);
        bytes[at..at + 2].copy_from_slice(&random.pick(KINDS).to_be_bytes());
    }
}

fn remove_attribute(bytes: &mut Vec<u8>, random: &mut Random) {
    let found = attributes(bytes);
    if !found.is_empty() {
        let (at, end) = *random.pick(&found);
        bytes.drain(at..end);
    }
}

fn repeat_attribute(bytes: &mut Vec<u8>, random: &mut Random) {
    let found = attributes(bytes);
    if !found.is_empty() {
        let (at, end) = *random.pick(&found);
        let copy = bytes[at..end].to_vec();
        let (to, _) = *random.pick(&found);
        bytes.splice(to..to, copy);
    }
}

fn swap_attributes(bytes: &mut Vec<u8>, random: &mut Random) {
    let found = attributes(bytes);
    if found.len() >= 2 {
        let index = random.below(found.len() - 1);
        let (start, middle) = found[index];
        let (_, end) = found[index + 1];
        let turned = [&bytes[middle..end], &bytes[start..middle]].concat();
        bytes.splice(start..end, turned);
    }
}

fn insert_attribute(bytes: &mut Vec<u8>, random: &mut Random) {
    let found = attributes(bytes);
    let at = found.get(random.below(found.len() + 1)).map_or(bytes.len(), |(at, _)| *at);
    let kind = *random.pick(KINDS);
    let value = if random.chance(4) {
        let length = random.below(80);
        random.bytes(length)
    } else {
        value_for(kind, random)
    };
    let mut attribute = [kind.to_be_bytes(), (value.len() as u16).to_be_bytes()].concat();
    attribute.extend(&value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    bytes.splice(at..at, attribute);
}

fn dirty_padding(bytes: &mut [u8], random: &mut Random) {
    for (at, end) in attributes(bytes) {
        let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        for byte in &mut bytes[at + 4 + length..end] {
            *byte = random.next() as u8;
        }
    }
}

fn splice(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let (ours, theirs) = (attributes(bytes), attributes(other));
    let from = theirs.get(random.below(theirs.len() + 1)).map_or(other.len(), |(at, _)| *at);
    let to = ours.get(random.below(ours.len() + 1)).map_or(bytes.len(), |(at, _)| *at);
    bytes.truncate(to);
    bytes.extend(&other[from..]);
}

/// Makes header, length, integrity and fingerprint true again, as far as the structure allows.
fn mend(bytes: &mut [u8], random: &mut Random) {
    if bytes.len() < HEADER_LEN {
        return;
    }
    bytes[0] &= 0x3F;
    bytes[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    let length = (bytes.len() - HEADER_LEN) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    if random.chance(4) {
        return;
    }
    for (at, end) in attributes(bytes) {
        let kind = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let size = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        if let Some(value) = seal_value(&bytes[..at], kind, size) {
            bytes[at + 4..end].copy_from_slice(&value);
        }
    }
}

/// What an integrity attribute or fingerprint behind `front` must hold, worked out without the code under test.
fn seal_value(front: &[u8], kind: u16, size: usize) -> Option<Vec<u8>> {
    let mut covered = front.to_vec();
    let length = (front.len() - HEADER_LEN + 4 + size) as u16;
    covered[2..4].copy_from_slice(&length.to_be_bytes());
    match (kind, size) {
        (0x0008, 20) => {
            let mac = Hmac::<Sha1>::new_from_slice(KEY).expect("any length").chain_update(&covered);
            Some(mac.finalize().into_bytes().to_vec())
        }
        (0x001C, 16 | 20 | 24 | 28 | 32) => {
            let mac = Hmac::<Sha256>::new_from_slice(KEY).expect("any length").chain_update(&covered);
            Some(mac.finalize().into_bytes()[..size].to_vec())
        }
        (0x8028, 4) => Some((crc32fast::hash(&covered) ^ 0x5354_554E).to_be_bytes().to_vec()),
        _ => None,
    }
}
