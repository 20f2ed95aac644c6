//! Threats S1, S3, S5 and S6 at the core. S2, S4 and S9 need sockets.

use fabric::protocol::stun::{AttributeType, Class, Method, Packet};
use fabric::stun::{DropReason, Limits, Transport};

use crate::desk::{CLIENTS, Corpus, Desk, address, change_request, message, request, scan};

/// The largest ratio of answer to request over a corpus, and how many requests were answered.
fn worst_ratio(desk: &Desk, slot: usize, seed: u64) -> (f64, usize) {
    let mut corpus = Corpus::new(seed);
    let (mut worst, mut answered) = (0f64, 0);
    for _ in 0..10_000 {
        let asked = corpus.request();
        if let Ok((_, answer)) = desk.ask(slot, &asked) {
            worst = worst.max(answer.len() as f64 / asked.len() as f64);
            answered += 1;
        }
    }
    (worst, answered)
}

fn uncapped(mut desk: Desk) -> Desk {
    desk.settings.limits = Limits::OFF;
    desk
}

#[test]
fn s1_no_answer_is_longer_than_1_6_times_its_request_over_ipv4_and_2_2_times_over_ipv6() {
    let desk = uncapped(Desk::plain());
    for (slot, bound) in [(0, 1.6), (1, 2.2)] {
        let (worst, answered) = worst_ratio(&desk, slot, 1);
        assert!(answered > 6_000, "{answered} answers");
        assert!(worst <= bound, "{worst}");
        assert!((worst - bound).abs() < 1e-9, "the bare request is the worst: {worst}");
    }
}

#[test]
fn s1_alternates_cost_3_4_and_5_8_and_strictness_takes_it_back() {
    let mut desk = uncapped(Desk::with_alternates());
    for (strict, bounds) in [(false, [3.4, 5.8]), (true, [1.6, 2.2])] {
        desk.settings.strict_amplification = strict;
        for (slot, bound) in [(0, bounds[0]), (4, bounds[1])] {
            let (worst, answered) = worst_ratio(&desk, slot, 2);
            assert!(answered > 6_000, "{answered} answers");
            assert!((worst - bound).abs() < 1e-9, "{worst} where {bound} is documented");
        }
    }
}

#[test]
fn s1_nothing_in_an_answer_names_the_software() {
    for desk in [uncapped(Desk::plain()), uncapped(Desk::with_alternates())] {
        let mut corpus = Corpus::new(3);
        for _ in 0..2_000 {
            if let Ok((_, answer)) = desk.ask(0, &corpus.request()) {
                assert_eq!(scan(&answer).find(AttributeType::SOFTWARE), None);
                assert!(scan(&answer).error_code().is_none_or(|(_, reason)| reason.is_empty()));
            }
        }
    }
}

#[test]
fn s3_whatever_is_asked_the_answer_goes_to_the_address_it_came_from() {
    for strict in [false, true] {
        let mut desk = uncapped(Desk::with_alternates());
        desk.settings.strict_amplification = strict;
        desk.settings.rfc3489 = true;
        let mut corpus = Corpus::new(4);
        let (mut answered, mut moved, mut padded) = (0, 0, 0);
        for _ in 0..50_000 {
            let asked = corpus.request();
            let slot = corpus.number(8) as usize;
            let Ok((reply, answer)) = desk.ask(slot, &asked) else { continue };
            answered += 1;
            let client = address(CLIENTS[slot / 4]);
            assert_eq!(reply.to.ip(), client.ip());
            moved += usize::from(reply.to.port() != client.port());
            assert_eq!(reply.from.index() / 4, slot / 4, "the family stays");
            let modern = Packet::scan(&answer).ok();
            if modern.and_then(|answer| answer.find(AttributeType::PADDING)).is_some() {
                padded += 1;
                assert!(answer.len() <= asked.len(), "{} for {}", answer.len(), asked.len());
            }
        }
        assert!(answered > 25_000 && moved > 1_000 && padded > 1_000, "{answered} {moved} {padded}");
    }
}

#[test]
fn s3_without_alternates_nothing_leaves_from_anywhere_else() {
    let desk = uncapped(Desk::plain());
    let mut corpus = Corpus::new(5);
    for _ in 0..10_000 {
        if let Ok((reply, _)) = desk.ask(0, &corpus.request()) {
            assert_eq!((reply.to, reply.from.index()), (address(CLIENTS[0]), 0));
        }
    }
}

#[test]
fn s4_responses_indications_and_errors_are_never_answered() {
    for desk in [Desk::plain(), Desk::with_alternates()] {
        for class in [Class::Indication, Class::Success, Class::Error] {
            for method in [Method::BINDING, Method::ALLOCATE] {
                assert!(desk.ask(0, &message(class, method, |_| {})).is_err());
            }
        }
    }
    // Every answer the server itself can give, sent back to it.
    let desk = uncapped(Desk::with_alternates());
    let mut corpus = Corpus::new(6);
    for _ in 0..10_000 {
        if let Ok((_, answer)) = desk.ask(0, &corpus.request()) {
            assert_eq!(desk.ask(1, &answer), Err(DropReason::Response));
        }
    }
}

#[test]
fn s5_sources_nobody_can_answer_get_nothing() {
    let mut desk = Desk::with_alternates();
    desk.settings.rfc3489 = true;
    let mut old = request(|_| {});
    old[4] = 0;
    for bytes in [request(|_| {}), change_request(6), old, vec![0; 3]] {
        for source in [
            "198.51.100.7:0",
            "0.0.0.0:4000",
            "0.1.2.3:4000",
            "224.0.0.1:4000",
            "239.255.255.250:1900",
            "255.255.255.255:4000",
            "240.1.1.1:4000",
            "[2001:db8::7]:0",
            "[::]:4000",
            "[ff02::1]:4000",
            "[ff0e::1234]:4000",
            "[::ffff:224.0.0.1]:4000",
            "[::ffff:255.255.255.255]:4000",
        ] {
            let answer = desk.handle(&Desk::arrival(0, source, Transport::Udp), &bytes);
            assert_eq!(answer, Err(DropReason::Source), "{source}");
        }
        for own in ["192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.2:3479", "[2001:db8:1::2]:3479"] {
            let answer = desk.handle(&Desk::arrival(0, own, Transport::Udp), &bytes);
            assert_eq!(answer, Err(DropReason::OwnSource), "{own}");
        }
    }
}

#[test]
fn s6_a_request_without_a_cookie_gets_nothing_by_default() {
    for desk in [uncapped(Desk::plain()), uncapped(Desk::with_alternates())] {
        let mut corpus = Corpus::new(7);
        for _ in 0..5_000 {
            let mut asked = corpus.request();
            if asked.len() < 8 {
                continue;
            }
            asked[4] ^= 0x40;
            assert!(desk.ask(0, &asked).is_err());
        }
        let mut bare = request(|_| {});
        bare[4..8].copy_from_slice(b"1234");
        assert_eq!(desk.ask(0, &bare), Err(DropReason::NoCookie));
    }
}
