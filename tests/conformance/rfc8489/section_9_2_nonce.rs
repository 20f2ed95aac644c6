//! RFC 8489 section 9.2: what makes a nonce worth anything. The numbers are those of threat T12.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fabric::protocol::stun::auth::{Features, NonceMint, NonceState};

const FEATURES: Features = Features { password_algorithms: true, username_anonymity: true };
const NOON: u64 = 1_790_000_000;

fn mint() -> NonceMint {
    NonceMint::new([0x42; 32], Duration::from_secs(600)).expect("a lifetime")
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn client() -> SocketAddr {
    "198.51.100.9:5000".parse().expect("an address")
}

#[test]
fn t12_a_nonce_replayed_from_a_hundred_thousand_other_addresses_is_never_accepted() {
    let mint = mint();
    let nonce = mint.issue(client(), at(NOON), FEATURES);
    let mut tried = 0;
    for index in 0..100_000u32 {
        let other = match index % 3 {
            // The same address, every other port.
            0 => SocketAddr::new(client().ip(), (index / 3) as u16 ^ 5000 ^ 1),
            1 => SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x0B00_0000 + index)), client().port()),
            _ => SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(u128::from(index) << 64)), client().port()),
        };
        if other == client() {
            continue;
        }
        assert_eq!(mint.check(&nonce, other, at(NOON), FEATURES), NonceState::Foreign);
        tried += 1;
    }
    assert!(tried >= 99_999);
}

#[test]
fn t12_a_nonce_expires_to_the_second() {
    let mint = mint();
    let nonce = mint.issue(client(), at(NOON), FEATURES);
    for (seconds, expected) in [
        (0, NonceState::Valid),
        (599, NonceState::Valid),
        (600, NonceState::Valid),
        (601, NonceState::Expired),
        (1_000_000, NonceState::Expired),
    ] {
        assert_eq!(mint.check(&nonce, client(), at(NOON + seconds), FEATURES), expected, "{seconds} s");
    }
}

#[test]
fn t12_a_clock_set_back_makes_nonces_stale_and_never_panics() {
    let mint = mint();
    let nonce = mint.issue(client(), at(NOON), FEATURES);
    assert_eq!(mint.check(&nonce, client(), at(NOON - 1), FEATURES), NonceState::Expired);
    assert_eq!(mint.check(&nonce, client(), at(NOON - 3_600), FEATURES), NonceState::Expired);
    assert_eq!(mint.check(&nonce, client(), UNIX_EPOCH - Duration::from_secs(3_600), FEATURES), NonceState::Expired);
    // Clocks before 1970 and far after the 36 bits still give nonces that hold at their own time.
    for odd in [UNIX_EPOCH - Duration::from_secs(86_400), at(u64::from(u32::MAX) * 20), at(1 << 36)] {
        let nonce = mint.issue(client(), odd, FEATURES);
        assert_eq!(mint.check(&nonce, client(), odd, FEATURES), NonceState::Valid);
    }
}

#[test]
fn t12_a_million_nonces_for_distinct_inputs_do_not_repeat() {
    let mint = mint();
    let mut seen = HashSet::with_capacity(1_000_000);
    for index in 0..1_000_000u32 {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(index / 100)), (index % 100) as u16);
        assert!(seen.insert(mint.issue(address, at(NOON), FEATURES)), "{address}");
    }
    assert_eq!(seen.len(), 1_000_000);
}

#[test]
fn t12_no_changed_character_and_no_other_key_passes() {
    let nonce = mint().issue(client(), at(NOON), FEATURES);
    for index in 0..nonce.len() {
        for byte in 0..=255u8 {
            let mut changed = nonce;
            changed[index] = byte;
            if changed != nonce {
                assert_eq!(mint().check(&changed, client(), at(NOON), FEATURES), NonceState::Foreign);
            }
        }
    }
    for length in 0..nonce.len() {
        assert_eq!(mint().check(&nonce[..length], client(), at(NOON), FEATURES), NonceState::Foreign);
    }
    let longer = [&nonce[..], b"A"].concat();
    assert_eq!(mint().check(&longer, client(), at(NOON), FEATURES), NonceState::Foreign);
    let other = NonceMint::new([0x43; 32], Duration::from_secs(600)).expect("a lifetime");
    assert_eq!(other.check(&nonce, client(), at(NOON), FEATURES), NonceState::Foreign);
}

#[test]
fn t17_the_feature_bits_are_under_the_hmac() {
    let nonce = mint().issue(client(), at(NOON), FEATURES);
    for weaker in [
        Features::default(),
        Features { password_algorithms: true, username_anonymity: false },
        Features { password_algorithms: false, username_anonymity: true },
    ] {
        let mut stripped = nonce;
        stripped[9..13].copy_from_slice(&mint().issue(client(), at(NOON), weaker)[9..13]);
        assert_ne!(stripped, nonce);
        assert_eq!(mint().check(&stripped, client(), at(NOON), FEATURES), NonceState::Foreign);
        assert_eq!(mint().check(&stripped, client(), at(NOON), weaker), NonceState::Foreign);
    }
}

#[test]
fn the_same_client_over_mapped_and_plain_ipv4_is_one_client() {
    let mapped: SocketAddr = "[::ffff:198.51.100.9]:5000".parse().expect("an address");
    let nonce = mint().issue(client(), at(NOON), FEATURES);
    assert_eq!(mint().check(&nonce, mapped, at(NOON), FEATURES), NonceState::Valid);
}

#[test]
fn a_lifetime_under_a_second_is_refused() {
    assert!(NonceMint::new([0; 32], Duration::from_millis(999)).is_err());
    assert!(NonceMint::new([0; 32], Duration::from_secs(1)).is_ok());
}
