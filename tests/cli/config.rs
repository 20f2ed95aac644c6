//! Configuration through the binary: precedence, complaints, and the same verdict from a check and from a start.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::server::{Dir, Server, finish, nzc, run};

fn print(args: &[&str], env: &[(&str, &str)]) -> BTreeMap<String, (Value, Value)> {
    let done = finish(nzc().args(["stun-server", "--print-config", "--json"]).args(args).envs(env.iter().copied()));
    assert_eq!(done.code, 0, "{}", done.err);
    let shown: Value = serde_json::from_str(&done.out).unwrap();
    let settings = shown["settings"].as_array().unwrap().iter();
    settings.map(|it| (it["key"].as_str().unwrap().to_owned(), (it["value"].clone(), it["origin"].clone()))).collect()
}

#[test]
fn flags_beat_variables_beat_the_file_beats_the_defaults_and_each_origin_is_told() {
    let dir = Dir::new();
    let file = dir.file("nzc.yaml", "log: warn\ndrain_grace: 1s\ndrain_timeout: 1s\n");
    let env = [("NZC_STUN_SERVER_DRAIN_GRACE", "2s"), ("NZC_STUN_SERVER_DRAIN_TIMEOUT", "2s")];
    let all = print(&["--config", &file, "--drain-timeout", "3s"], &env);
    let value = |key: &str| all[key].0.as_str().unwrap().to_owned();
    let from = |key: &str| all[key].1["from"].as_str().unwrap().to_owned();
    assert_eq!((value("drain_timeout"), from("drain_timeout")), ("3s".into(), "flag".into()));
    assert_eq!((value("drain_grace"), from("drain_grace")), ("2s".into(), "environment".into()));
    assert_eq!((value("log"), from("log")), ("warn".into(), "file".into()));
    assert_eq!(from("admin"), "default");
    assert_eq!((&all["log"].1["line"], &all["log"].1["column"]), (&Value::from(1), &Value::from(1)));
    let by_variable = print(&[], &[("NZC_STUN_SERVER_CONFIG", &file)]);
    assert_eq!(by_variable["log"].0, "warn");
}

#[test]
fn the_text_listing_names_each_value_with_its_origin() {
    let dir = Dir::new();
    let file = dir.file("nzc.yaml", "# hello\nlog: warn\n");
    let done = run(&["stun-server", "--config", &file, "--print-config"]);
    assert!(done.out.contains(&format!("# {file}:2:1")), "{}", done.out);
    assert!(done.out.lines().any(|line| line.starts_with("drain_timeout: 2m") && line.ends_with("# default")));
}

#[test]
fn a_wrong_file_ends_with_78_and_says_file_line_column_and_what_was_meant() {
    let dir = Dir::new();
    let file = dir.file("nzc.yaml", "log: info\n\nlisen: []\n");
    for extra in [&["--check-config"][..], &[]] {
        let done = finish(nzc().args(["stun-server", "--config", &file]).args(extra));
        assert_eq!((done.code, done.out.as_str()), (78, ""));
        assert_eq!(done.err, format!("nzc: {file}:3:1: unknown key `lisen`, did you mean `listen`?\n"));
    }
    let missing = run(&["stun-server", "--config", "/nonexistent/nzc.yaml"]);
    assert_eq!(missing.code, 78);
    assert!(missing.err.contains("/nonexistent/nzc.yaml"), "{}", missing.err);
}

#[test]
fn a_wrong_flag_is_a_matter_of_usage_and_ends_with_64() {
    for args in [
        &["stun-server", "--listen", "here"][..],
        &["stun-server", "--drain-grace", "soon"],
        &["stun-server", "--no-such-flag"],
        &["stun-server", "--log-format", "xml"],
        &["no-such-role"],
        &["audit", "verify"],
        &[],
    ] {
        let done = run(args);
        assert_eq!((done.code, done.out.as_str()), (64, ""), "{args:?}");
        assert!(!done.err.is_empty());
    }
}

/// Threat A4 through the binary, on the configuration file that is shipped.
#[test]
fn a4_two_hundred_mutations_of_the_shipped_file_are_refused_with_a_place_and_mostly_the_right_suggestion() {
    let dir = Dir::new();
    let example = run(&["stun-server", "--example-config"]).out;
    let is_key = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    let live: Vec<&str> = example.lines().filter(is_key).map(|line| &line[1..]).collect();
    assert!(live.len() >= 8, "{live:?}");
    let (mut rng, mut right) = (rand::rngs::SmallRng::seed_from_u64(44), 0);
    for case in 0..200 {
        let at = rng.random_range(0..live.len());
        let (key, rest) = live[at].split_once(':').unwrap();
        let typo = loop {
            let typo = mistype(key, &mut rng);
            if !live.iter().any(|line| line.split_once(':').unwrap().0 == typo) {
                break typo;
            }
        };
        let text: String = live
            .iter()
            .enumerate()
            .map(|(n, line)| if n == at { format!("{typo}:{rest}\n") } else { format!("{line}\n") })
            .collect();
        let file = dir.file("nzc.yaml", &text);
        let done = run(&["stun-server", "--config", &file, "--check-config", "--json"]);
        assert_eq!(done.code, 78, "case {case}: {text}");
        let verdict: Value = serde_json::from_str(&done.out).unwrap();
        let problem = &verdict["problems"][0];
        assert_eq!((&problem["origin"]["line"], &problem["origin"]["column"]), (&(at + 1).into(), &1.into()), "{typo}");
        right += usize::from(problem["suggestion"] == key);
    }
    assert!(right >= 160, "{right} of 200 suggestions are right");
}

/// One letter lost, doubled, swapped, replaced or capitalised.
fn mistype(word: &str, rng: &mut rand::rngs::SmallRng) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let at = rng.random_range(0..letters.len());
    match rng.random_range(0..5) {
        0 => drop(letters.remove(at)),
        1 => letters.insert(at, letters[at]),
        2 => letters.swap(at, (at + 1) % word.len()),
        3 => letters[at] = char::from(rng.random_range(b'a'..=b'z')),
        _ => letters[at] = letters[at].to_ascii_uppercase(),
    }
    letters.into_iter().collect()
}

#[test]
fn f20_a_check_and_a_start_give_the_same_verdict() {
    let dir = Dir::new();
    let good = [
        "",
        "listen: [127.0.0.1:0]\n",
        "log: warn,fabric=debug\n",
        "{ drain_grace: 1s }\n",
        "admin_host: [a.example]\n",
    ];
    let bad = [
        "lisen: []\n",
        "listen: []\n",
        "listen: 127.0.0.1:3478\n",
        "listen: [127.0.0.1]\n",
        "listen: [127.0.0.1:99999]\n",
        "listen: [127.0.0.1:3478, 127.0.0.1:3478]\n",
        "listen: [0.0.0.0:3478, 127.0.0.1:3478]\n",
        "log: 'fabric=loud'\n",
        "log: info\nlog: info\n",
        "drain_timeout: 120\n",
        "drain_timeout: -1s\n",
        "admin: localhost\n",
        "log_format: yaml\n",
        "- log\n",
        "log: [\n",
        "log: *anchor\n",
        "\tlog: info\n",
        "log: info\n---\nlog: warn\n",
    ];
    for (text, expected) in good.iter().map(|text| (text, 0)).chain(bad.iter().map(|text| (text, 78))) {
        let file = dir.file("nzc.yaml", text);
        // What would open a port is replaced, in the check just as in the start.
        let mut args = vec!["--config", &file, "--admin", "127.0.0.1:0"];
        if expected == 0 {
            args.extend(["--listen", "127.0.0.1:0"]);
        }
        let checked = finish(nzc().args(["stun-server", "--check-config"]).args(&args));
        assert_eq!(checked.code, expected, "{text:?}: {}", checked.err);
        if expected == 0 {
            let server = Server::from(nzc().arg("stun-server").args(&args).args(["--log", "info"]));
            server.signal(Signal::SIGTERM);
            assert_eq!(server.wait().0.code(), Some(0), "{text:?}");
        } else {
            let started = finish(nzc().arg("stun-server").args(&args));
            assert_eq!((started.code, started.err), (78, checked.err), "{text:?}");
        }
    }
}
