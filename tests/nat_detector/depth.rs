//! The facts beyond the core verdict, and what everything together costs.

use fabric::nat::behaviour::Dependence::{self, AddressAndPortDependent, EndpointIndependent};
use fabric::nat::behaviour::Fact;
use fabric::nat::detector::Config;
use serde_json::{Value, json};

use crate::nat::{Model, Ports};
use crate::world::{Manner, Run, Station, Wire, World};
use crate::{kinds, percentile, seeds, wrong};

fn full() -> Config {
    Config { link_mtu: Some(1_500), hairpin: true, ..Config::default() }
}

fn run(model: &Model, wire: Wire, manner: Manner, seed: u64) -> Run {
    World::new(model.clone(), wire, vec![Station::new(1, manner)], seed).run(full())
}

fn fact<'a>(run: &'a Run, name: &str) -> &'a Fact<Value> {
    &run.findings.more.iter().find(|(other, _)| *other == name).expect("a fact of this name").1
}

fn value(run: &Run, name: &str) -> Option<Value> {
    fact(run, name).value.clone()
}

fn cone(ports: Ports) -> Model {
    Model { ports, ..Model::new(Some(EndpointIndependent), EndpointIndependent) }
}

fn symmetric(ports: Ports) -> Model {
    Model { ports, ..Model::new(Some(AddressAndPortDependent), AddressAndPortDependent) }
}

const WIDE: (u16, u16) = (1_024, 65_535);

fn sequential(step: i32) -> Ports {
    Ports::Sequential { step, low: WIDE.0, high: WIDE.1 }
}

/// What each way of choosing ports is called, and its step.
fn port_cases() -> Vec<(Ports, &'static str, Option<i32>)> {
    vec![
        (Ports::Preserve, "preserved", None),
        (Ports::Offset(1_000), "offset", None),
        (sequential(1), "sequential", Some(1)),
        (sequential(2), "sequential", Some(2)),
        (sequential(256), "sequential", Some(256)),
        (sequential(-3), "sequential", Some(-3)),
        (Ports::Random { low: WIDE.0, high: WIDE.1 }, "random", None),
        (Ports::Random { low: 30_208, high: 30_719 }, "random", None),
    ]
}

#[test]
fn how_ports_are_chosen_is_told_right_or_not_at_all() {
    for loss in [0.0, 0.05] {
        for (ports, name, step) in port_cases() {
            for model in [cone(ports.clone()), symmetric(ports.clone())] {
                // A symmetric NAT that keeps ports keeps only the first of each socket.
                let mixed =
                    model.mapping != Some(EndpointIndependent) && matches!(ports, Ports::Preserve | Ports::Offset(_));
                for seed in 0..seeds(6) {
                    let run = run(&model, Wire::lossy(20, loss), Manner::Honest, seed);
                    let seen = value(&run, "port_allocation");
                    if loss == 0.0 && !mixed {
                        assert_eq!(
                            seen,
                            Some(json!(name)),
                            "{ports:?}, seed {seed}: {:?}",
                            fact(&run, "port_allocation")
                        );
                        assert_eq!(value(&run, "port_step"), step.map(|step| json!(step)), "{ports:?}, seed {seed}");
                    } else if !mixed {
                        assert!(seen.is_none() || seen == Some(json!(name)), "{ports:?}, seed {seed}: {seen:?}");
                        let seen = value(&run, "port_step");
                        assert!(
                            seen.is_none() || seen == step.map(|step| json!(step)),
                            "{ports:?}, seed {seed}: {seen:?}"
                        );
                    } else {
                        assert_ne!(seen, Some(json!("sequential")), "{ports:?}, seed {seed}");
                    }
                }
            }
        }
    }
}

#[test]
fn neighbours_that_take_ports_leave_the_step_right_or_unknown() {
    for step in [1, 2, 256] {
        let model = Model { neighbours: 0.5, ..symmetric(sequential(step)) };
        let mut known = 0;
        for seed in 0..seeds(10) {
            let run = run(&model, Wire::clean(20), Manner::Honest, seed);
            let seen = value(&run, "port_step");
            assert!(
                seen.is_none() || seen == Some(json!(step)),
                "step {step}, seed {seed}: {:?}",
                fact(&run, "port_step")
            );
            known += u32::from(seen.is_some());
        }
        assert!(known > 0, "step {step} was never found");
    }
}

#[test]
fn parity_pools_and_neighbouring_ports_are_told() {
    let parity = Ports::RandomSameParity { low: WIDE.0, high: WIDE.1 };
    for seed in 0..seeds(6) {
        let kept = run(&cone(parity.clone()), Wire::clean(20), Manner::Honest, seed);
        assert_eq!(value(&kept, "preserves_parity"), Some(json!(true)), "{:?}", fact(&kept, "preserves_parity"));
        assert_eq!(value(&kept, "contiguous_ports"), Some(json!(false)));
        let random = run(&cone(Ports::Random { low: WIDE.0, high: WIDE.1 }), Wire::clean(20), Manner::Honest, seed);
        assert_eq!(value(&random, "preserves_parity"), Some(json!(false)));
        let counted = run(&cone(sequential(1)), Wire::clean(20), Manner::Honest, seed);
        assert_ne!(value(&counted, "preserves_parity"), Some(json!(true)));
        assert_ne!(value(&counted, "contiguous_ports"), Some(json!(true)));
        let preserved = run(&cone(Ports::Preserve), Wire::clean(20), Manner::Honest, seed);
        assert_eq!(
            value(&preserved, "contiguous_ports"),
            Some(json!(true)),
            "{:?}",
            fact(&preserved, "contiguous_ports")
        );
        let block = run(&symmetric(Ports::Random { low: 30_208, high: 30_719 }), Wire::clean(20), Manner::Honest, seed);
        assert_eq!(value(&block, "port_pool").map(|pool| pool["likely_size"].clone()), Some(json!(512)));
    }
}

#[test]
fn address_pools_are_told_apart_from_one_address() {
    let pool: Vec<std::net::IpAddr> = (1..=4).map(|last| [12, 0, 0, last].into()).collect();
    for seed in 0..seeds(6) {
        let arbitrary =
            Model { pool: pool.clone(), paired: false, ..cone(Ports::Random { low: WIDE.0, high: WIDE.1 }) };
        assert_eq!(
            value(&run(&arbitrary, Wire::clean(20), Manner::Honest, seed), "address_pooling"),
            Some(json!("arbitrary"))
        );
        let paired = Model { paired: true, ..arbitrary };
        assert_eq!(
            value(&run(&paired, Wire::clean(20), Manner::Honest, seed), "address_pooling"),
            Some(json!("paired"))
        );
    }
}

#[test]
fn an_unasked_packet_that_moves_a_mapping_is_noticed() {
    for seed in 0..seeds(6) {
        let poisoned = run(&Model::masquerade(true), Wire::clean(20), Manner::Honest, seed);
        assert_eq!(
            value(&poisoned, "unasked_packets_move_mapping"),
            Some(json!(true)),
            "{:?}",
            fact(&poisoned, "unasked_packets_move_mapping")
        );
        assert_eq!(value(&poisoned, "independent_under_collision"), Some(json!(false)));
        let clean = run(&Model::masquerade(false), Wire::clean(20), Manner::Honest, seed);
        assert_eq!(value(&clean, "unasked_packets_move_mapping"), Some(json!(false)));
        assert_eq!(value(&clean, "independent_under_collision"), None);
    }
}

#[test]
fn fragments_and_sizes_are_told() {
    let dropping = Model { passes_fragments: false, ..Model::masquerade(false) };
    for (model, manner, expected) in [
        (Model::masquerade(false), Manner::Honest, Some(json!(true))),
        (Model::masquerade(false), Manner::Plain, Some(json!(true))),
        (dropping.clone(), Manner::Honest, Some(json!(false))),
        // A plain server answers padding with a short error: silence might be its doing.
        (dropping, Manner::Plain, None),
    ] {
        let run = run(&model, Wire::lossy(20, 0.02), manner, 3);
        assert_eq!(value(&run, "fragments"), expected, "{manner:?}: {:?}", fact(&run, "fragments"));
        assert_eq!(value(&run, "largest_datagram"), Some(json!(1_472)), "{:?}", fact(&run, "largest_datagram"));
    }
}

#[test]
fn hairpin_is_told_where_asked_for_and_no_packet_is_spent_on_it_otherwise() {
    for filtering in Dependence::ALL {
        for hairpin in [true, false] {
            let model = Model { hairpin, ..Model::new(Some(EndpointIndependent), filtering) };
            let run = run(&model, Wire::clean(20), Manner::Honest, 1);
            assert_eq!(value(&run, "hairpin"), Some(json!(hairpin)), "{filtering}: {:?}", fact(&run, "hairpin"));
        }
    }
    let model = Model { hairpin: true, ..Model::masquerade(false) };
    let config = Config { hairpin: false, ..full() };
    let run = World::new(model, Wire::clean(20), vec![Station::new(1, Manner::Honest)], 1).run(config);
    assert_eq!(value(&run, "hairpin"), None);
    assert_eq!(run.strayed, 0);
}

#[test]
fn rewritten_answers_are_noticed() {
    let model = Model { rewrites: true, ..Model::masquerade(false) };
    let rewritten = run(&model, Wire::clean(20), Manner::Honest, 1);
    assert_eq!(value(&rewritten, "answers_rewritten"), Some(json!(true)));
    assert!(!wrong(&model, &rewritten));
    let clean = run(&Model::masquerade(false), Wire::clean(20), Manner::Honest, 1);
    assert_eq!(value(&clean, "answers_rewritten"), Some(json!(false)));
}

/// P4: what everything but the lifetime costs, at 20 ms and 5 % loss each way.
#[test]
fn p4_everything_stays_within_200_packets_64_kib_100_mappings_and_two_and_a_half_seconds() {
    let (mut times, mut packets, mut bytes, mut mappings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut unknown = 0;
    for (kind, (name, model)) in (0..).zip(kinds()) {
        for seed in (0..seeds(3)).map(|seed| seed * 1_000 + kind) {
            let run = run(&model, Wire::lossy(20, 0.05), Manner::Honest, seed);
            assert!(!wrong(&model, &run), "{name}, seed {seed}: {:#?}", run.findings);
            unknown += u32::from(run.findings.undecided.is_some());
            times.push(run.findings.finished_after.map_or(f64::MAX, |after| after.as_secs_f64() * 1e3));
            packets.push(run.on_wire);
            bytes.push(run.wire_bytes);
            mappings.push(run.mappings);
        }
    }
    println!(
        "everything: {:.0}/{:.0} ms, {}/{} packets both ways, {}/{} bytes, {}/{} mappings (50/100 %), {unknown} of {} undecided",
        percentile(&mut times, 50),
        percentile(&mut times, 100),
        percentile(&mut packets, 50),
        percentile(&mut packets, 100),
        percentile(&mut bytes, 50),
        percentile(&mut bytes, 100),
        percentile(&mut mappings, 50),
        percentile(&mut mappings, 100),
        times.len(),
    );
    assert!(percentile(&mut times, 100) <= 2_500.0);
    assert!(percentile(&mut packets, 100) <= 200);
    assert!(percentile(&mut bytes, 100) <= 64 << 10);
    assert!(percentile(&mut mappings, 100) <= 100);
}

#[test]
fn lifetime_and_what_refreshes_are_found_in_the_lifetime_and_a_second() {
    use std::time::Duration;
    for (life, inbound, outbound, loss) in
        [(5, true, true, 0.0), (5, false, true, 0.05), (30, true, false, 0.05), (20, false, false, 0.0)]
    {
        for filtering in [EndpointIndependent, AddressAndPortDependent] {
            let model = Model {
                lifetime: Duration::from_secs(life),
                refreshed_by_inbound: inbound,
                refreshed_by_outbound: outbound,
                ..Model::new(Some(EndpointIndependent), filtering)
            };
            let config = Config { lifetime: Some(Duration::from_secs(60)), ..full() };
            let run = World::new(model, Wire::lossy(20, loss), vec![Station::new(1, Manner::Honest)], life).run(config);
            let seen = value(&run, "lifetime_seconds").and_then(|value| value.as_f64());
            let off = seen.map(|seen| (seen - life as f64).abs());
            assert!(off.is_some_and(|off| off <= 1.0), "{life} s: {:?}", fact(&run, "lifetime_seconds"));
            assert_eq!(
                value(&run, "refreshed_by_outgoing"),
                Some(json!(outbound)),
                "{life} s: {:?}",
                fact(&run, "refreshed_by_outgoing")
            );
            assert_eq!(
                value(&run, "refreshed_by_incoming"),
                Some(json!(inbound)),
                "{life} s: {:?}",
                fact(&run, "refreshed_by_incoming")
            );
            let took = run.findings.finished_after.expect("an end");
            println!("lifetime {life} s: {seen:?}, everything took {took:?}");
            assert!(took <= Duration::from_secs(life + 1) + Duration::from_millis(2_500), "{took:?}");
        }
    }
}
