//! The NAT probe as scripts meet it: its JSON against the schema, redaction, comparison, the helper, the exit status.

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::daemon::{Daemon, run};

fn nzc(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nzc"));
    command.args(arguments);
    command
}

/// A daemon of ours and the first UDP address it listens on.
fn daemon(arguments: &[&str]) -> (Daemon, String) {
    Daemon::start(&mut nzc(arguments), Duration::from_secs(10), |line| {
        let ready: Value = serde_json::from_str(line).ok()?;
        let listen = ready.get("listen")?.as_array()?;
        listen.iter().find_map(|value| Some(value.as_str()?.strip_prefix("udp://")?.to_owned()))
    })
}

fn server() -> (Daemon, String) {
    daemon(&[
        "stun-server",
        "--listen",
        "127.0.0.1:0",
        "--alternate",
        "127.0.0.2:0",
        "--dial-back",
        "--admin",
        "off",
        "--ready-json",
    ])
}

fn probe(arguments: &[&str]) -> Output {
    run(nzc(&["nat-probe", "--no-port-map"]).args(arguments), Duration::from_secs(20))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The schema, and with it no field that it does not name.
fn schema() -> jsonschema::Validator {
    let text = include_str!("../../configs/schema/nat-probe.v1.json");
    let mut schema: Value = serde_json::from_str(text).expect("the schema is JSON");
    close(&mut schema);
    jsonschema::validator_for(&schema).expect("the schema is one")
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.contains_key("properties") {
                map.entry("additionalProperties").or_insert(Value::Bool(false));
            }
            map.values_mut().for_each(close);
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        _ => {}
    }
}

fn expect_valid(report: &Value) {
    let faults: Vec<_> =
        schema().iter_errors(report).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(faults.is_empty(), "{faults:#?}\n{report:#}");
}

#[test]
fn every_report_is_of_the_schema() {
    let (_server, address) = server();
    for arguments in [
        &["--json", "--server", &address][..],
        &["--json", "--explain", "--server", &address],
        &["--json", "--redact", "--server", &address],
        &["--json", "--no-tcp", "--server", &address],
        &["--json", "--server", "127.0.0.1:1"],
        &["--json", "--server", "name.invalid:3478"],
    ] {
        let report = json(&probe(arguments));
        expect_valid(&report);
        assert!(report.pointer("/ipv6/probed").is_some());
    }
}

#[test]
fn the_schema_refuses_what_is_no_report() {
    let (_server, address) = server();
    let good = json(&probe(&["--json", "--server", &address]));
    for (pointer, bad) in [
        ("/ipv4/udp/mapping", Value::from("cone")),
        ("/ipv4/udp/nat", Value::from("yes")),
        ("/verdict", Value::Null),
        ("/schema_version", Value::from(2)),
        ("/ipv4/udp/facts/nat", Value::from(true)),
    ] {
        let mut report = good.clone();
        *report.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is missing")) = bad;
        assert!(!schema().is_valid(&report), "{pointer}");
    }
}

#[test]
fn an_open_host_is_diagnosed_and_compares_equal_to_itself() {
    let (_server, address) = server();
    let output = probe(&["--json", "--server", &address]);
    assert_eq!(output.status.code(), Some(0));
    let report = json(&output);
    assert_eq!(report.pointer("/verdict"), Some(&"diagnosed".into()));
    for transport in ["udp", "tcp"] {
        let at = |field: &str| report.pointer(&format!("/ipv4/{transport}/{field}")).cloned().unwrap_or_default();
        assert_eq!(at("mapping"), "endpoint-independent", "{transport}");
        assert_eq!(at("filtering"), "endpoint-independent", "{transport}");
        assert_eq!(at("nat"), false, "{transport}");
        assert_eq!(at("class"), "open", "{transport}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let old = folder.path().join("old.json");
    std::fs::write(&old, &output.stdout).expect("the report can be kept");
    let old = old.to_str().expect("a plain path");
    let same = probe(&["--server", &address, "--compare", old]);
    assert_eq!(String::from_utf8_lossy(&same.stdout), "nothing changed\n");

    let mut other = report;
    *other.pointer_mut("/ipv4/udp/filtering").expect("a field") = "address-dependent".into();
    std::fs::write(old, other.to_string()).expect("the report can be kept");
    let changed = json(&probe(&["--json", "--server", &address, "--compare", old]));
    assert_eq!(changed.pointer("/changes/0/at"), Some(&"/ipv4/udp/filtering".into()));
    assert_eq!(changed.pointer("/changes/0/old"), Some(&"address-dependent".into()));
}

#[test]
fn a_helper_with_one_address_tells_filtering_over_tcp() {
    let (_helper, address) = daemon(&["nat-probe", "--listen", "127.0.0.1:0", "--json"]);
    let report = json(&probe(&["--json", "--server", &address]));
    let because = report.pointer("/ipv4/tcp/facts/filtering/because").and_then(Value::as_str).unwrap_or_default();
    assert!(because.contains("new port of a known address arrived"), "{report:#}");
}

#[test]
fn p8_a_hundred_redacted_outputs_hold_no_address() {
    let (_server, address) = server();
    for round in 0..100 {
        let mut arguments = vec!["--redact", "--no-tcp", "--server", &address];
        arguments.extend(if round % 2 == 0 { ["--json"] } else { ["--explain"] });
        let output = probe(&arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.len() > 500, "{text}");
        let words = text.split(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':')));
        for word in words {
            let word = word.trim_matches(['.', ':']);
            let host = word.rsplit_once(':').map_or(word, |(host, _)| host);
            for candidate in [word, host] {
                assert!(candidate.parse::<std::net::IpAddr>().is_err(), "{candidate} in\n{text}");
            }
        }
        assert!(!text.contains("127.0.0."), "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("other.json");
    std::fs::write(&path, "{}").expect("a file");
    let path = path.to_str().expect("a plain path");
    let output = probe(&["--server", "127.0.0.1:1", "--compare", path]);
    assert_eq!(output.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no report of nat-probe --json"), "{output:?}");
    let output = probe(&["--server", "127.0.0.1:1", "--compare", "/nonexistent/old.json"]);
    assert_eq!(output.status.code(), Some(66));
    let output = probe(&["--server", "127.0.0.1:1", "--bind", "192.0.2.1"]);
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("192.0.2.1"), "{output:?}");
}
