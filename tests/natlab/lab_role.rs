//! `nzc lab --nat KIND` as a person runs it, and what stays after an interruption.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fabric::netlab::kind::Kind;
use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::daemon;
use crate::foreign::{Needs, trial};

const NZC: &str = env!("CARGO_BIN_EXE_nzc");

pub(crate) fn trials() -> Vec<Trial> {
    let lab = &[Needs::Namespaces];
    let mut trials: Vec<Trial> = ["open", "full-cone", "symmetric", "udp-blocked", "captive-portal", "nat66", "cgnat"]
        .into_iter()
        .map(|kind| trial(&format!("nzc_lab_diagnoses_{kind}"), lab, move || diagnoses(kind)))
        .collect();
    trials.push(trial("nzc_lab_lists_every_kind", &[], list));
    trials.push(trial("an_interrupted_nzc_lab_ends_at_once_with_all_it_started", lab, interrupted));
    trials
}

/// The lab from the outside: it makes a sandbox of its own, inside the one of this test.
fn lab(kind: &str) -> Command {
    let mut command = Command::new(NZC);
    command.args(["lab", "--json", "--nat", kind]).env_remove("NZC_LAB_SANDBOX");
    command
}

fn diagnoses(kind: &str) -> Result<(), Failed> {
    let output = daemon::run(&mut lab(kind), Duration::from_secs(30));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let checks = report["checks"].as_array().ok_or("checks")?;
    assert!(checks.len() >= 5, "{report:#}");
    assert!(checks.iter().all(|check| check["ok"] == true), "{report:#}");
    assert_eq!(output.status.code(), Some(0));
    Ok(())
}

fn list() -> Result<(), Failed> {
    let output = daemon::run(&mut lab("list"), Duration::from_secs(10));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let names: Vec<&str> =
        report["kinds"].as_array().ok_or("kinds")?.iter().filter_map(|kind| kind["name"].as_str()).collect();
    assert_eq!(names, Kind::ALL.iter().map(|kind| kind.name).collect::<Vec<_>>());
    Ok(())
}

/// How many processes have this word among their arguments.
fn processes(mark: &str) -> usize {
    let Ok(all) = std::fs::read_dir("/proc") else { return 0 };
    all.flatten()
        .filter(|entry| {
            std::fs::read(entry.path().join("environ"))
                .is_ok_and(|text| text.split(|byte| *byte == 0).any(|word| word == mark.as_bytes()))
        })
        .count()
}

fn interrupted() -> Result<(), Failed> {
    // The whole family of processes inherits this word.
    let mark = format!("LAB_MARK={}", rand::random::<u64>());
    let (name, value) = mark.split_once('=').ok_or("a name and a value")?;
    let mut child = lab("udp-blocked")
        .env(name, value)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let begin = Instant::now();
    // unshare, the shell, the lab, the server and the probe.
    while processes(&mark) < 5 {
        assert!(begin.elapsed() < Duration::from_secs(10), "{} processes", processes(&mark));
        std::thread::sleep(Duration::from_millis(5));
    }
    killpg(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
    let begin = Instant::now();
    let status = child.wait()?;
    while processes(&mark) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(3), "{} processes are left", processes(&mark));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!status.success());
    Ok(())
}
