//! The outlook (`nat::outlook`) against two raw-socket punchers: what each pair of kinds takes, measured.

use std::fmt::Write as _;

use fabric::nat::outlook::{Front, Strategy, meet};
use fabric::netlab::kind::Kind;
use fabric::netlab::world::{BuiltHome, Home, Plan, World};
use libtest_mimic::{Failed, Trial};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::foreign::{Needs, trial};
use crate::measure::Servers;
use crate::punch::{birthday, blocks, direct, plain, predicted};

/// The fronts of the outlook and the kinds of the lab that stand for them.
const FRONTS: [(Front, &str); 9] = [
    (Front::Open, "open"),
    (Front::Firewall, "firewall"),
    (Front::FullCone, "full-cone"),
    (Front::Restricted, "address-restricted"),
    (Front::PortRestricted, "port-restricted"),
    (Front::AddressDependent, "address-dependent"),
    (Front::Sequential, "symmetric-sequential"),
    (Front::Random, "symmetric"),
    (Front::Blocked, "udp-blocked"),
];

pub(crate) fn trials() -> Vec<Trial> {
    let lab = &[Needs::Namespaces];
    let mut trials = Vec::new();
    for (row, (front, kind)) in FRONTS.into_iter().enumerate() {
        for (other_front, other_kind) in FRONTS.into_iter().skip(row) {
            let name = format!("pair_{kind}_with_{other_kind}_takes_what_the_outlook_says");
            trials.push(trial(&name, lab, move || pair(kind, other_kind, meet(front, other_front, None))));
        }
    }
    trials.push(trial("every_front_of_the_outlook_is_measured", &[], || {
        assert_eq!(FRONTS.map(|(front, _)| front), Front::ALL);
        Ok(())
    }));
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

fn pair(first: &str, second: &str, expected: Strategy) -> Result<(), Failed> {
    let world = worlds(first, second)?;
    let [a, b] = two(&world)?;
    let servers = Servers::open(&world, false);
    let mut rng = StdRng::seed_from_u64(0x9a17);
    // In order of their cost; the first that works is what the pair takes.
    let measured = if direct(a, b) || direct(b, a) {
        Strategy::Direct
    } else if plain(a, b, &servers).is_some() {
        Strategy::Punch
    } else if predicted(a, b, &servers, [0, 0]).is_some() {
        Strategy::PunchPredicted
    } else if birthday(a, b, &servers, &mut rng).is_some() {
        Strategy::PunchBirthday
    } else {
        Strategy::Relay
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
    assert_eq!(meet(Front::Random, Front::Random, Some(512)), Strategy::PunchBirthday);
    for _ in 0..3 {
        assert!(blocks(a, b, &servers, &mut rng).is_some());
    }
    Ok(())
}
