//! The audit log as its keeper meets it.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::server::{Dir, PATIENCE, Server, eventually, run};

fn verify(files: &[&str]) -> (i32, String) {
    let done = run(&[&["audit", "verify"], files].concat());
    (done.code, done.out + &done.err)
}

#[test]
fn a_log_is_verified_and_an_edit_is_found_in_its_line() {
    let dir = Dir::new();
    let path = dir.join("audit.jsonl");
    let log = path.to_str().unwrap();
    let server = Server::start(&["--audit-log", log]);
    let head = server.status()["audit_head"].as_str().unwrap().to_owned();
    server.signal(Signal::SIGHUP);
    eventually(PATIENCE, "the reload is recorded", || {
        server.status()["audit_head"].as_str().is_some_and(|head| head.starts_with("3:"))
    });
    server.signal(Signal::SIGTERM);
    assert!(server.wait().0.success());

    assert_eq!(verify(&[log]).0, 0);
    assert_eq!(verify(&[log, "--head", &head]).0, 0);
    let text = fs::read_to_string(&path).unwrap();
    let events: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(events, ["audit-file-begun", "started", "config-reloaded", "draining", "stopped"]);

    fs::write(&path, text.replacen("config-reloaded", "config-relaoded", 1)).unwrap();
    let (code, message) = verify(&[log]);
    assert_eq!(code, 65);
    assert!(message.contains(&format!("{log}:3: the record was changed")), "{message}");
    let without_end: String = text.split_inclusive('\n').take(4).collect();
    fs::write(&path, without_end).unwrap();
    let (code, message) = verify(&[log]);
    assert_eq!(code, 65);
    assert!(message.contains(&format!("{log}:5: the end is missing")), "{message}");
    assert_eq!(verify(&["/nonexistent"]).0, 66);
}

#[test]
fn a_rotated_log_goes_on_in_a_new_file_after_a_hang_up() {
    let dir = Dir::new();
    let (path, old) = (dir.join("audit.jsonl"), dir.join("audit.jsonl.1"));
    let (log, old_log) = (path.to_str().unwrap(), old.to_str().unwrap());
    let server = Server::start(&["--audit-log", log]);
    fs::rename(&path, &old).unwrap();
    server.signal(Signal::SIGHUP);
    eventually(PATIENCE, "a new file is begun", || path.exists());
    server.signal(Signal::SIGTERM);
    assert!(server.wait().0.success());
    assert_eq!(verify(&[old_log]).0, 0);
    assert_eq!(verify(&[log]).0, 0);
    assert_eq!(verify(&[old_log, log]).0, 0);
    assert_eq!(verify(&[log, old_log]).0, 65, "in the wrong order");
}

#[test]
fn a_log_that_cannot_be_continued_ends_the_start() {
    let dir = Dir::new();
    let foreign = dir.file("passwd", "root:x:0:0\n");
    let base = ["stun-server", "--listen", "127.0.0.1:0", "--admin", "off", "--audit-log"];
    let done = run(&[&base[..], &[&foreign]].concat());
    assert_eq!(done.code, 65, "{}", done.err);
    let done = run(&[&base[..], &["/nonexistent/audit.jsonl"]].concat());
    assert_eq!(done.code, 73, "{}", done.err);
}
