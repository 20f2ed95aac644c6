//! Which technique two raw-socket punchers need for each pair of kinds: the table of the field, measured.

use std::fmt::Write as _;

use fabric::netlab::kind::Kind;
use fabric::netlab::world::{BuiltHome, Home, Plan, World};
use libtest_mimic::{Failed, Trial};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::foreign::{Needs, trial};
use crate::measure::Servers;
use crate::punch::{birthday, blocks, plain, predicted};

/// What it takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Takes {
    /// Plain simultaneous open.
    Plain,
    /// Prediction of the next port.
    Prediction,
    /// Many sockets against many probes.
    Birthday,
    /// Nothing works; a relay.
    Relay,
}

/// The kinds in the order of the table.
const ORDER: [&str; 9] = [
    "open",
    "firewall",
    "full-cone",
    "address-restricted",
    "port-restricted",
    "address-dependent",
    "symmetric-sequential",
    "symmetric",
    "udp-blocked",
];

/// The table; rows and columns in the order of [`ORDER`].
const TABLE: [&str; 9] = [
    "PPPPPPPPR",
    "PPPPPBSBR",
    "PPPPPPPPR",
    "PPPPPPPPR",
    "PPPPPBSBR",
    "PBPPBRRRR",
    "PSPPSRSRR",
    "PBPPBRRRR",
    "RRRRRRRRR",
];

pub(crate) fn trials() -> Vec<Trial> {
    let lab = &[Needs::Namespaces];
    let mut trials = vec![trial("the_table_of_pairs_is_symmetric", &[], || {
        for (row, line) in TABLE.iter().enumerate() {
            for (column, letter) in line.chars().enumerate() {
                assert_eq!(TABLE[column].chars().nth(row), Some(letter), "{} and {}", ORDER[row], ORDER[column]);
            }
        }
        Ok(())
    })];
    for (row, first) in ORDER.iter().enumerate() {
        for (second, letter) in ORDER.iter().zip(TABLE[row].chars()).skip(row) {
            let takes = match letter {
                'P' => Takes::Plain,
                'S' => Takes::Prediction,
                'B' => Takes::Birthday,
                _ => Takes::Relay,
            };
            trials.push(trial(&format!("pair_{first}_with_{second}_takes_{takes:?}").to_lowercase(), lab, move || {
                pair(first, second, takes)
            }));
        }
    }
    trials.push(trial("steps_of_two_and_of_256_can_be_predicted", lab, steps));
    trials.push(trial("two_sequential_nats_meet_at_the_sum_of_their_drifts", lab, drifts));
    trials.push(trial("two_random_nats_with_small_port_blocks_can_be_punched", lab, port_blocks));
    trials
}

fn worlds(first: &str, second: &str) -> Result<World, Failed> {
    let home = |name: &str| Kind::named(name).map(Home::of_kind).ok_or_else(|| format!("no kind {name}"));
    Ok(World::build(&Plan { homes: vec![home(first)?, home(second)?] })?)
}

fn two(world: &World) -> Result<[&BuiltHome; 2], Failed> {
    let [a, b] = world.homes() else { return Err("two homes".into()) };
    Ok([a, b])
}

fn pair(first: &str, second: &str, expected: Takes) -> Result<(), Failed> {
    let world = worlds(first, second)?;
    let [a, b] = two(&world)?;
    let servers = Servers::open(&world, false);
    let mut rng = StdRng::seed_from_u64(0x9a17);
    // In order of their cost; the first that works is what the pair takes.
    let measured = if plain(a, b, &servers).is_some() {
        Takes::Plain
    } else if predicted(a, b, &servers, [0, 0]).is_some() {
        Takes::Prediction
    } else if birthday(a, b, &servers, &mut rng).is_some() {
        Takes::Birthday
    } else {
        Takes::Relay
    };
    assert_eq!(measured, expected, "{first} with {second}");
    Ok(())
}

fn steps() -> Result<(), Failed> {
    for name in ["symmetric-sequential", "symmetric-step-2", "symmetric-step-256"] {
        let world = worlds("port-restricted", name)?;
        let [a, b] = two(&world)?;
        let servers = Servers::open(&world, false);
        for drift in 0..3 {
            assert!(predicted(a, b, &servers, [0, drift]).is_some(), "{name} after {drift} other flows");
        }
    }
    Ok(())
}

fn drifts() -> Result<(), Failed> {
    let world = worlds("symmetric-sequential", "symmetric-step-2")?;
    let [a, b] = two(&world)?;
    let servers = Servers::open(&world, false);
    let mut failed = String::new();
    for drift in [[0, 0], [1, 0], [0, 1], [2, 1], [1, 3], [4, 4]] {
        if predicted(a, b, &servers, drift).is_none() {
            let _ = write!(failed, " {drift:?}");
        }
    }
    assert!(failed.is_empty(), "not met with drifts{failed}");
    Ok(())
}

fn port_blocks() -> Result<(), Failed> {
    let world = worlds("port-blocks", "port-blocks")?;
    let [a, b] = two(&world)?;
    let servers = Servers::open(&world, false);
    let mut rng = StdRng::seed_from_u64(0xb10c);
    for _ in 0..3 {
        assert!(blocks(a, b, &servers, &mut rng).is_some());
    }
    Ok(())
}
