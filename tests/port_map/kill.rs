//! Processes that die with a mapping in their hands.
//!
//! A child is this test binary again, told by its environment which part to play.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fabric::nat::port_map::driver::{SurveyOptions, survey};
use fabric::nat::port_map::journal::driver::{Journal, clean_up_after_the_dead, guard};
use fabric::nat::port_map::mapping::Wish;
use fabric::nat::port_map::mapping::driver::map;
use fabric::nat::port_map::{Protocol, Transport};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use crate::fake::{LOOPBACK, Manner, Router};

const PART: &str = "NZC_TEST_PART";

fn this_binary(test: &str, part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"]).env(PART, part);
    command
}

/// The maker: maps in all protocols again and again until it is killed. Its part is
/// `control port,search port,journal directory,guarded`.
#[tokio::test]
#[ignore = "a part played by a child process"]
async fn the_maker() {
    let Ok(part) = std::env::var(PART) else { return };
    let fields: Vec<&str> = part.split(',').collect();
    let (control, search): (u16, u16) = (fields[0].parse().unwrap(), fields[1].parse().unwrap());
    let options = SurveyOptions {
        gateway: Some(LOOPBACK),
        local: Some(LOOPBACK),
        port: control,
        search: Some((LOOPBACK, search).into()),
        ..SurveyOptions::default()
    };
    let journal = Journal::default();
    if !fields[2].is_empty() {
        journal.keep_in(Path::new(fields[2])).unwrap();
    }
    if fields[3] == "guarded" {
        journal.guarded_by(this_binary("kill::the_guard", "guard")).unwrap();
    }
    let survey = survey(&options).await;
    println!("ready");
    let soon = || Instant::now() + Duration::from_secs(5);
    // What a dead maker left at a port is not the next one's to overwrite.
    let (mut port, mut kept) = (rand::rng().random_range(2000..60_000_u16), Vec::new());
    loop {
        for protocol in [Protocol::Pcp, Protocol::NatPmp, Protocol::Igd] {
            port = if port > 60_000 { 2000 } else { port + 1 };
            let wish = Wish { lease: 600, ..Wish::short(protocol, Transport::Udp, port) };
            kept.push(map(&survey, control, &wish, &journal, soon()).await.unwrap());
        }
        for mapping in kept.drain(2..) {
            mapping.remove(soon()).await.unwrap();
        }
    }
}

/// The guard: what the hidden flag of the role runs.
#[tokio::test]
#[ignore = "a part played by a child process"]
async fn the_guard() {
    if std::env::var(PART).is_ok() {
        guard(tokio::io::stdin()).await;
    }
}

fn start_maker(router: &Router, directory: &Path, guarded: &str) -> Child {
    let part = format!("{},{},{},{guarded}", router.control, router.ssdp, directory.display());
    let mut maker = this_binary("kill::the_maker", &part).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(maker.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the maker never got ready");
    maker
}

async fn until_empty(router: &Router, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if router.table().is_empty() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n17_a_hundred_kills_leave_no_mapping_behind() {
    let router = Router::start(Manner::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let mut rng = SmallRng::seed_from_u64(100);
    let mut slowest = Duration::ZERO;
    for round in 0..100 {
        let mut maker = tokio::task::block_in_place(|| start_maker(&router, directory.path(), "guarded"));
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..30_000))).await;
        maker.kill().unwrap();
        maker.wait().unwrap();
        let killed = Instant::now();
        // A guard looks three times, the last time after one and a half seconds.
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(until_empty(&router, Duration::from_secs(8)).await, "round {round}: {:?}", router.table());
        slowest = slowest.max(killed.elapsed());
    }
    // The last guards look for stragglers and tidy their journals up.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(router.table().is_empty(), "{:?}", router.table());
    let made = router.made();
    assert!(made >= 100, "only {made} mappings were made");
    let journals = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(journals, 0, "journals left behind");
    eprintln!("n17: 100 kills, {made} mappings made, 0 left, the slowest clean-up took {slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n17_a_kill_without_a_guard_is_cleaned_up_at_the_next_start() {
    let router = Router::start(Manner::default()).await;
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let mut maker = tokio::task::block_in_place(|| start_maker(&router, directory.path(), "alone"));
        let made = router.made();
        let deadline = Instant::now() + Duration::from_secs(10);
        while router.made() < made + 3 {
            assert!(Instant::now() < deadline, "the maker makes nothing");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        maker.kill().unwrap();
        maker.wait().unwrap();
    }
    let stale = router.table().len();
    assert!(stale >= 5, "{stale} mappings were left to clean up");
    let outcome = clean_up_after_the_dead(directory.path()).await;
    assert_eq!((outcome.left, router.table().len()), (0, 0), "{outcome:?}");
    assert!(outcome.removed >= stale, "{outcome:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n17_a_kill_of_everything_leaves_nothing_longer_than_the_lease() {
    let router = Router::start(Manner::default()).await;
    let survey = router.survey().await;
    for (protocol, port) in [Protocol::Pcp, Protocol::NatPmp, Protocol::Igd].into_iter().zip(4000..) {
        let wish = Wish { lease: 1, ..Wish::short(protocol, Transport::Udp, port) };
        let deadline = Instant::now() + Duration::from_secs(1);
        drop(map(&survey, router.control, &wish, &Journal::forgetful(), deadline).await.unwrap());
    }
    assert_eq!(router.table().len(), 3);
    assert!(until_empty(&router, Duration::from_secs(2)).await);
}
