//! Worlds come up quickly, whole, and leave nothing behind.

use std::time::{Duration, Instant};

use fabric::netlab::kind::Kind;
use fabric::netlab::world::{Home, Plan, World};
use libtest_mimic::{Failed, Trial};

use crate::foreign::{Needs, trial};

pub(crate) fn trials() -> Vec<Trial> {
    let named = |kind: &'static Kind| {
        trial(&format!("{}_a_world_with_this_home_comes_and_goes", kind.name), &[Needs::Namespaces], move || {
            world(kind)
        })
    };
    Kind::ALL.iter().map(named).collect()
}

fn world(kind: &Kind) -> Result<(), Failed> {
    let begin = Instant::now();
    let world = World::build(&Plan::one(Home::of_kind(kind)))?;
    let up = begin.elapsed();
    let paths: Vec<_> = world.homes().iter().flat_map(|home| home.hosts.iter().chain(&home.routers)).cloned().collect();
    assert!(paths.iter().all(|namespace| namespace.path().exists()));
    let begin = Instant::now();
    drop(world);
    let down = begin.elapsed();
    assert!(paths.iter().all(|namespace| !namespace.path().exists()), "all namespaces are gone");
    // A quarter of a second alone; the other tests of this program run at the same time.
    assert!(up + down < Duration::from_secs(3), "up in {up:?}, down in {down:?}");
    Ok(())
}
