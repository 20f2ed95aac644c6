//! The detector behind simulated NATs, on a virtual clock: never a wrong verdict, and within its budgets.

mod nat;
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
    let ports: [(&str, Ports); 8] = [
        ("preserving", Ports::Preserve),
        ("random", Ports::Random { low: 1_024, high: 65_535 }),
        ("step 1", Ports::Sequential { step: 1, low: 1_024, high: 65_535 }),
        ("step 2", Ports::Sequential { step: 2, low: 1_024, high: 65_535 }),
        ("step 256", Ports::Sequential { step: 256, low: 1_024, high: 65_535 }),
        ("step -3", Ports::Sequential { step: -3, low: 20_000, high: 30_000 }),
        ("512 ports", Ports::Random { low: 30_208, high: 30_719 }),
        ("offset", Ports::Offset(1_000)),
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
            if self.unknown < 4 {
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
        let (score, _) = tally(Wire::clean(round_trip), 0..20, &core());
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
        let (score, runs) = tally(Wire::lossy(round_trip, loss), 1_000..1_000 + seeds(25), &core());
        print_cost(&format!("{round_trip} ms, {} % loss each way", loss * 100.0), &runs);
        println!("right {}, unknown {}, wrong {}", score.right, score.unknown, score.wrong.len());
        assert!(score.wrong.is_empty(), "{:#?}", score.wrong);
        assert!(score.unknown * 100 <= runs.len(), "{} of {} unknown", score.unknown, runs.len());
    }
}
