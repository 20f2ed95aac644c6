//! The fuzz targets without a fuzzer (T19, S7): the same entry functions over the checked-in seeds, mutants of sound
//! messages and random bytes, a bounded number of times on stable Rust. `NZC_FUZZ_EXECUTIONS` raises the number.

#![expect(clippy::print_stdout, reason = "how many executions there were is the result a person wants to see")]

#[path = "../fuzz/entry/port_map.rs"]
mod port_map;
#[path = "../fuzz/entry/stun.rs"]
mod stun;
#[path = "support/stun_mutation.rs"]
mod stun_mutation;
#[path = "../fuzz/entry/stun_server.rs"]
mod stun_server;

use stun_mutation::{Mutator, Random, corpus};

fn executions() -> usize {
    std::env::var("NZC_FUZZ_EXECUTIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(200_000)
}

fn checked_in(target: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{folder}: {error}"))
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

/// Runs `entry` on the corpus, then half on mutants, half on random bytes behind a plausible header.
fn drive(target: &str, entry: fn(&[u8])) {
    let seeds = checked_in(target);
    assert!(!seeds.is_empty(), "{target} has a corpus");
    seeds.iter().for_each(|bytes| entry(bytes));
    let corpus: Vec<_> = corpus(7).into_iter().chain(seeds).collect();
    let mut mutator = Mutator::new(&corpus, 7);
    let mut random = Random::new(8);
    let started = std::time::Instant::now();
    let executions = executions();
    for index in 0..executions {
        if index % 2 == 0 {
            entry(&mutator.next());
        } else {
            let length = 4 * random.below(64);
            let mut bytes = random.bytes(20 + length);
            bytes[0] &= 0x3F;
            bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            bytes[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
            entry(&bytes);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{target}: {} executions in {seconds:.1} s, 0 crashes", corpus.len() + executions);
}

#[test]
fn t19_the_raw_path_holds_its_properties_on_bytes_of_every_kind() {
    drive("stun_packet", stun::packet);
}

#[test]
fn s7_the_typed_path_holds_its_properties_on_bytes_of_every_kind() {
    drive("stun_typed", stun::typed);
}

#[test]
fn s7_the_server_protects_third_parties_whatever_the_bytes() {
    drive("stun_server", stun_server::datagram);
}

#[test]
fn n18_what_a_router_sends_holds_its_properties_on_bytes_of_every_kind() {
    for (target, entry) in
        [("port_map_datagram", port_map::datagram as fn(&[u8])), ("port_map_document", port_map::document)]
    {
        let seeds = checked_in(target);
        assert!(!seeds.is_empty(), "{target} has a corpus");
        seeds.iter().for_each(|bytes| entry(bytes));
        let mut random = Random::new(9);
        let started = std::time::Instant::now();
        let executions = executions() / 4;
        for index in 0..executions {
            let mut bytes = seeds[index % seeds.len()].clone();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                match random.below(3) {
                    0 => bytes[at] = random.bytes(1)[0],
                    1 => bytes.truncate(at + 1),
                    _ => bytes.extend_from_within(at..),
                }
            }
            entry(&bytes);
        }
        let seconds = started.elapsed().as_secs_f64();
        println!("{target}: {} executions in {seconds:.1} s, 0 crashes", seeds.len() + executions);
    }
}
