//! The detector behind simulated NATs, on a virtual clock: never a wrong verdict, and within its budgets.

#![allow(clippy::print_stdout, reason = "the distributions are what a reader of a long run wants to see")]

mod depth;
mod nat;
mod sockets;
mod world;

use fabric::nat::behaviour::{Class, Dependence};
use fabric::nat::detector::Config;

use nat::{Model, Ports};
use world::{Manner, Run, Station, Wire, World};

use Dependence::EndpointIndependent as Ei;

fn core() -> Config {
    Config { core_only: true, ..Config::default() }
}

/// Every combination of RFC 4787 with several ways of choosing ports, and no translation with each filter.
fn kinds() -> Vec<(String, Model)> {
    let mut kinds = Vec::new();
    let ports: [(&str, Ports); 9] = [
        ("preserving", Ports::Preserve),
        ("random", Ports::Random { low: 1_024, high: 65_535 }),
        ("step 1", Ports::Sequential { step: 1, low: 1_024, high: 65_535 }),
        ("step 2", Ports::Sequential { step: 2, low: 1_024, high: 65_535 }),
        ("step 256", Ports::Sequential { step: 256, low: 1_024, high: 65_535 }),
        ("step -3", Ports::Sequential { step: -3, low: 20_000, high: 30_000 }),
        ("512 ports", Ports::Random { low: 30_208, high: 30_719 }),
        ("offset", Ports::Offset(1_000)),
        ("same parity", Ports::RandomSameParity { low: 1_024, high: 65_535 }),
    ];
    for mapping in Dependence::ALL {
        for filtering in Dependence::ALL {
            for (name, ports) in &ports {
                if mapping != Ei && matches!(ports, Ports::Offset(_)) {
                    continue;
                }
                let model = Model { ports: ports.clone(), ..Model::new(Some(mapping), filtering) };
                kinds.push((format!("mapping {mapping}, filtering {filtering}, {name}"), model));
            }
        }
    }
    for filtering in Dependence::ALL {
        kinds.push((format!("no NAT, filtering {filtering}"), Model::new(None, filtering)));
    }
    kinds.push(("Linux masquerade".into(), Model::masquerade(false)));
    kinds.push(("Linux masquerade that takes unasked packets".into(), Model::masquerade(true)));
    kinds
}

#[derive(Default, Debug)]
struct Score {
    right: usize,
    unknown: usize,
    wrong: Vec<String>,
}

impl Score {
    fn mark(&mut self, name: &str, seed: u64, model: &Model, run: &Run) {
        let findings = &run.findings;
        let mapping = model.mapping.unwrap_or(Ei);
        let class = Class::from_facts(Some(model.mapping.is_some()), Some(mapping), Some(model.filtering));
        let wrong = findings.nat.value.is_some_and(|nat| nat != model.mapping.is_some())
            || findings.mapping.value.is_some_and(|seen| seen != mapping)
            || findings.filtering.value.is_some_and(|seen| seen != model.filtering)
            || (findings.class != class && findings.class != Class::Unknown);
        if wrong {
            self.wrong.push(format!(
                "{name}, seed {seed}: {} {:?} {:?}",
                findings.class, findings.mapping, findings.filtering
            ));
        } else if findings.class == class && findings.filtering.value.is_some() && findings.mapping.value.is_some() {
            self.right += 1;
        } else {
            self.unknown += 1;
            if self.unknown < 4 && !name.is_empty() {
                println!("unknown: {name}, seed {seed}: {:?} {:?}", findings.mapping, findings.filtering);
            }
        }
    }
}

fn tally(wire: Wire, seeds: std::ops::Range<u64>, config: &Config) -> (Score, Vec<Run>) {
    let mut score = Score::default();
    let mut runs = Vec::new();
    for (kind, (name, model)) in (0..).zip(kinds()) {
        for seed in seeds.clone().map(|seed| seed * 1_000 + kind) {
            let mut world = World::new(model.clone(), wire, vec![Station::new(1, Manner::Honest)], seed);
            let run = world.run(config.clone());
            score.mark(&name, seed, &model, &run);
            runs.push(run);
        }
    }
    (score, runs)
}

#[test]
fn every_behaviour_is_recognised_on_a_clean_wire() {
    for round_trip in [0, 1, 20, 150, 600] {
        let (score, _) = tally(Wire::clean(round_trip), 0..seeds(4), &core());
        assert!(score.wrong.is_empty() && score.unknown == 0, "{round_trip} ms: {score:#?}");
    }
}

/// How many seeds a test runs: `NZC_SEEDS` where it is set, for a long run.
fn seeds(default: u64) -> u64 {
    std::env::var("NZC_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn percentile<T: Copy + PartialOrd>(values: &mut [T], percent: usize) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("comparable"));
    values[(values.len() - 1) * percent / 100]
}

fn print_cost(title: &str, runs: &[Run]) -> (f64, u32) {
    let mut times: Vec<f64> =
        runs.iter().map(|run| run.findings.core_after.map_or(f64::MAX, |after| after.as_secs_f64() * 1e3)).collect();
    let mut sent: Vec<u32> = runs.iter().map(|run| run.core_sent.unwrap_or(u32::MAX)).collect();
    let mut wire: Vec<u32> = runs.iter().map(|run| run.core_on_wire.unwrap_or(u32::MAX)).collect();
    println!(
        "{title}: core verdict after {:.0}/{:.0}/{:.0}/{:.0} ms, {}/{}/{}/{} packets sent, {}/{}/{}/{} both ways (50/90/99/100 %)",
        percentile(&mut times, 50),
        percentile(&mut times, 90),
        percentile(&mut times, 99),
        percentile(&mut times, 100),
        percentile(&mut sent, 50),
        percentile(&mut sent, 90),
        percentile(&mut sent, 99),
        percentile(&mut sent, 100),
        percentile(&mut wire, 50),
        percentile(&mut wire, 90),
        percentile(&mut wire, 99),
        percentile(&mut wire, 100),
    );
    (percentile(&mut times, 100), percentile(&mut sent, 100))
}

#[test]
fn at_five_percent_loss_no_verdict_is_wrong_and_hardly_any_unknown() {
    for (round_trip, loss) in [(20, 0.0), (20, 0.025), (20, 0.05), (40, 0.05), (20, 0.10)] {
        let (score, runs) = tally(Wire::lossy(round_trip, loss), 1_000..1_000 + seeds(6), &core());
        let (slowest, most_sent) = print_cost(&format!("{round_trip} ms, {} % loss each way", loss * 100.0), &runs);
        if round_trip == 20 && loss <= 0.05 {
            assert!(slowest <= 500.0, "{slowest} ms");
            assert!(most_sent <= 40, "{most_sent} packets sent");
        }
        println!("right {}, unknown {}, wrong {}", score.right, score.unknown, score.wrong.len());
        assert!(score.wrong.is_empty(), "{:#?}", score.wrong);
        assert!(score.unknown * 100 <= runs.len(), "{} of {} unknown", score.unknown, runs.len());
    }
}

fn wrong(model: &Model, run: &Run) -> bool {
    let mut score = Score::default();
    score.mark("", 0, model, run);
    !score.wrong.is_empty()
}

/// P1: whichever of three servers lies, and however, the verdict is right or there is none.
#[test]
fn p1_one_liar_of_three_never_makes_a_confident_wrong_verdict() {
    let liars = [
        Manner::LiesConstant,
        Manner::LiesRandom,
        Manner::LiesSometimes,
        Manner::SwallowsChange,
        Manner::IgnoresChange,
    ];
    let (mut runs, mut unknown, mut disagreements) = (0, 0, 0);
    for (kind, (name, model)) in (0..).zip(kinds()) {
        for liar in liars {
            for place in 0..3 {
                for honest in [Manner::Honest, Manner::Plain] {
                    let stations = (0..3)
                        .map(|number| Station::new(number + 1, if number == place { liar } else { honest }))
                        .collect();
                    let mut world =
                        World::new(model.clone(), Wire::lossy(20, 0.02), stations, kind * 100 + u64::from(place));
                    let run = world.run(core());
                    assert!(
                        !wrong(&model, &run),
                        "{name}, {liar:?} in place {place} among {honest:?}: {:#?}",
                        run.findings
                    );
                    runs += 1;
                    unknown += u32::from(run.findings.class == Class::Unknown);
                    disagreements += u32::from(run.findings.servers_disagree);
                }
            }
        }
    }
    println!(
        "{runs} runs with one liar of three: 0 wrong, {unknown} without a class, {disagreements} disagreements seen"
    );
    assert!(runs >= 1_000);
}

#[test]
fn a_server_that_swallows_change_requests_does_not_make_an_open_filter_look_closed() {
    for manner in [Manner::SwallowsChange, Manner::IgnoresChange, Manner::DeadAlternate] {
        for filtering in [Ei, Dependence::AddressDependent] {
            let model = Model::new(Some(Ei), filtering);
            for seed in 0..20 {
                let mut world = World::new(model.clone(), Wire::clean(20), vec![Station::new(1, manner)], seed);
                let run = world.run(core());
                assert_eq!(run.findings.filtering.value, None, "{manner:?}: {:#?}", run.findings);
            }
        }
    }
}

#[test]
fn an_other_address_on_the_same_host_proves_no_endpoint_independence() {
    for filtering in Dependence::ALL {
        let model = Model::new(Some(Ei), filtering);
        let mut world = World::new(model, Wire::clean(20), vec![Station::new(1, Manner::SameAddress)], 1);
        let run = world.run(core());
        assert_eq!(run.findings.mapping.value, None, "{:#?}", run.findings.mapping);
        let expected = (filtering == Dependence::AddressAndPortDependent).then_some(filtering);
        assert_eq!(run.findings.filtering.value, expected, "{:#?}", run.findings.filtering);
    }
}

#[test]
fn a_server_cannot_point_the_detector_at_the_local_network() {
    let mut world =
        World::new(Model::masquerade(false), Wire::clean(20), vec![Station::new(1, Manner::PointsInside)], 1);
    let run = world.run(core());
    assert_eq!(run.strayed, 0);
    assert!(run.findings.filtering.because.contains("scope"), "{:?}", run.findings.filtering);
}

#[test]
fn plain_servers_tell_the_mapping_and_say_what_they_cannot_know() {
    for mapping in Dependence::ALL {
        let model = Model::new(Some(mapping), Dependence::AddressAndPortDependent);
        let stations = (1..=3).map(|number| Station::new(number, Manner::Plain)).collect();
        let findings = World::new(model, Wire::lossy(20, 0.05), stations, 3).run(core()).findings;
        assert_eq!(findings.nat.value, Some(true));
        assert_eq!(findings.filtering.value, None);
        if mapping == Ei {
            assert_eq!((findings.mapping.value, findings.class), (Some(Ei), Class::Unknown));
        } else {
            assert_eq!((findings.mapping.value, findings.class), (None, Class::Symmetric));
        }
    }
}

#[test]
fn blocked_udp_is_known_within_one_and_a_half_seconds_and_a_refusing_server_is_not_blocked_udp() {
    let blocked = Model { blocked: true, ..Model::new(Some(Ei), Ei) };
    let run = World::new(blocked.clone(), Wire::clean(20), vec![Station::new(1, Manner::Honest)], 1).run(core());
    assert_eq!(run.findings.class, Class::Blocked);
    assert!(run.findings.finished_after.is_some_and(|after| after.as_millis() <= 1_500), "{:?}", run.findings);
    let refusing = Model { refuses: true, ..blocked };
    let run = World::new(refusing, Wire::clean(20), vec![Station::new(1, Manner::Honest)], 1).run(core());
    assert!(run.findings.finished_after.is_some_and(|after| after.as_millis() <= 500), "{:?}", run.findings);
    let closed = vec![Station::new(1, Manner::Refuses)];
    let run = World::new(Model::new(Some(Ei), Ei), Wire::clean(20), closed, 1).run(core());
    assert_eq!((run.findings.class, run.findings.answered), (Class::Unknown, false));
}

#[test]
fn a_dead_server_among_others_does_not_hold_up_the_verdict() {
    let stations = vec![Station::new(1, Manner::Dead), Station::new(2, Manner::Honest), Station::new(3, Manner::Plain)];
    let run = World::new(Model::masquerade(false), Wire::clean(20), stations, 1).run(core());
    assert_eq!(run.findings.class, Class::PortRestricted);
    assert!(run.findings.core_after.is_some_and(|after| after.as_millis() <= 300), "{:?}", run.findings.core_after);
}

/// Earlier runs leave permissions and flow entries behind; later runs must not be fooled where a port comes round again.
#[test]
fn runs_one_after_another_behind_one_box_are_not_fooled_by_what_is_left() {
    for (name, model) in kinds().into_iter().filter(|(name, _)| name.contains("preserving") || name.contains("Linux")) {
        let mut world = World::new(model.clone(), Wire::lossy(20, 0.02), vec![Station::new(1, Manner::Honest)], 5);
        for number in 0..40 {
            let run = world.run(core());
            assert!(!wrong(&model, &run), "{name}, run {number}: {:#?}", run.findings);
        }
    }
}

/// P3: duplicates and reordering change nothing.
#[test]
fn p3_repeated_and_reordered_packets_change_nothing() {
    let wire = Wire { repeat: 0.05, jitter: std::time::Duration::from_millis(15), ..Wire::lossy(20, 0.02) };
    let (score, runs) = tally(wire, 0..seeds(6), &core());
    print_cost("20 ms, 15 ms jitter, 2 % loss, 5 % repeated", &runs);
    assert!(score.wrong.is_empty(), "{:#?}", score.wrong);
    assert!(score.unknown * 100 <= runs.len(), "{} of {} unknown", score.unknown, runs.len());
}
