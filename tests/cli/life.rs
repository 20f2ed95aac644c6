//! What each signal does, and what the service manager hears of it.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::server::{Client, Dir, PATIENCE, Server, eventually, nzc};

#[test]
fn a_term_without_anything_to_drain_ends_with_0_at_once() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = Server::start(&[]);
        let start = Instant::now();
        server.signal(signal);
        let (status, _) = server.wait();
        assert_eq!(status.code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[test]
fn f17_a_draining_server_is_not_ready_within_1_s_and_still_answers_during_its_grace() {
    let server = Server::start(&["--drain-grace", "5s"]);
    let mut client = Client::new(server.stun);
    server.signal(Signal::SIGTERM);
    eventually(Duration::from_secs(1), "readiness is off", || server.get("/readyz").code == 503);
    assert_eq!(server.get("/livez").code, 200);
    assert_eq!(server.status()["health"]["phase"], "draining");
    for _ in 0..200 {
        assert!(client.asks());
    }
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn f18_a_second_term_or_int_ends_a_drain_within_2_s() {
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let server = Server::start(&["--drain-grace", "1h"]);
        server.signal(Signal::SIGTERM);
        eventually(PATIENCE, "readiness is off", || server.get("/readyz").code == 503);
        let start = Instant::now();
        server.signal(second);
        assert_eq!(server.wait().0.code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[test]
fn usr1_drains_and_stays_until_a_term() {
    let mut server = Server::start(&[]);
    server.signal(Signal::SIGUSR1);
    eventually(PATIENCE, "it is drained", || server.status()["health"]["phase"] == "drained");
    assert_eq!((server.get("/readyz").code, server.get("/livez").code), (503, 200));
    assert!(!server.has_ended());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn f19_a_thousand_reloads_under_load_lose_no_answer_and_leave_nothing_open() {
    let dir = Dir::new();
    let file = dir.file("nzc.yaml", "drain_grace: 0s\n");
    let server = Server::start(&["--config", &file, "--log", "warn,nzc=info"]);
    let mut client = Client::new(server.stun);
    assert!(client.asks());
    let before = server.resources();
    for n in 0..1000 {
        dir.file("nzc.yaml", &format!("drain_grace: {}s\n", n % 7));
        server.signal(Signal::SIGHUP);
        assert!(client.asks(), "the answer after reload {n} was lost");
    }
    let last = server.status()["configuration"].clone();
    assert!(last["reloads"].as_u64() > Some(0), "{last}");
    let after = server.resources();
    assert!(after.0 <= before.0 + 1 && after.1 <= before.1, "{before:?} became {after:?}");
    assert!(server.get("/metrics").body.contains("\nnzc_ops_config_reload_success 1\n"));
}

#[test]
fn f19_an_invalid_file_keeps_the_old_configuration_and_shows_in_status_and_metric() {
    let dir = Dir::new();
    let file = dir.file("nzc.yaml", "drain_grace: 1s\n");
    let server = Server::start(&["--config", &file]);
    let before = server.status()["configuration"].clone();
    assert!(before["reload_error"].is_null() && before["file"] == file.as_str(), "{before}");
    dir.file("nzc.yaml", "drain_grace: 1s\nlgo: warn\n");
    server.signal(Signal::SIGHUP);
    eventually(PATIENCE, "the reload is refused", || !server.status()["configuration"]["reload_error"].is_null());
    let refused = server.status()["configuration"].clone();
    let reason = refused["reload_error"].as_str().unwrap();
    assert_eq!(reason, format!("{file}:2:1: unknown key `lgo`, did you mean `log`?"));
    assert_eq!(refused["digest"], before["digest"]);
    assert!(server.get("/metrics").body.contains("\nnzc_ops_config_reload_success 0\n"));
    assert!(server.answers());
    dir.file("nzc.yaml", "drain_grace: 2s\nadmin_host: [a.example]\n");
    server.signal(Signal::SIGHUP);
    eventually(PATIENCE, "the file is mended", || server.status()["configuration"]["reload_error"].is_null());
    let mended = server.status()["configuration"].clone();
    assert_ne!(mended["digest"], before["digest"]);
    assert_eq!(mended["restart_needed"], serde_json::json!(["admin_host"]));
    assert!(server.get("/metrics").body.contains("\nnzc_ops_config_reload_success 1\n"));
    // What waits for a restart goes on waiting when something else is reloaded.
    dir.file("nzc.yaml", "drain_grace: 3s\nadmin_host: [a.example]\n");
    server.signal(Signal::SIGHUP);
    eventually(PATIENCE, "the reload is counted", || server.status()["configuration"]["reloads"] == 3);
    assert_eq!(server.status()["configuration"]["restart_needed"], serde_json::json!(["admin_host"]));
}

#[test]
fn a_reload_changes_what_is_logged() {
    let dir = Dir::new();
    let file = dir.file("nzc.yaml", "log: info\n");
    let server = Server::start(&["--config", &file]);
    dir.file("nzc.yaml", "log: error\n");
    server.signal(Signal::SIGHUP);
    eventually(PATIENCE, "the reload is counted", || server.status()["configuration"]["reloads"] == 1);
    server.signal(Signal::SIGTERM);
    let (_, log) = server.wait();
    assert!(!log.contains("draining"), "{log}");
}

/// The socket of a service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn new(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn hears(&self) -> String {
        let mut message = [0; 4096];
        let length = self.0.recv(&mut message).expect("the service manager hears something in time");
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    /// What comes before the message that holds `line`, which is returned last.
    fn hears_until(&self, line: &str) -> String {
        loop {
            let message = self.hears();
            if message.lines().any(|it| it == line) {
                return message;
            }
        }
    }
}

#[test]
fn the_service_manager_hears_of_start_reload_drain_and_stop() {
    let dir = Dir::new();
    let path = dir.join("notify");
    let manager = Manager::new(&path);
    let listen = ["stun-server", "--listen", "127.0.0.1:0", "--admin", "off"];
    let server = Server::from(nzc().args(listen).env("NOTIFY_SOCKET", &path));
    assert!(manager.hears().contains("READY=1\n"));
    server.signal(Signal::SIGHUP);
    let reloading = manager.hears_until("RELOADING=1");
    let at = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
    let age = uptime - at.parse::<f64>().unwrap() / 1e6;
    assert!((-1.0..60.0).contains(&age), "{at} is not on the clock of /proc/uptime {uptime}");
    manager.hears_until("READY=1");
    server.signal(Signal::SIGUSR1);
    manager.hears_until("STATUS=drained");
    server.signal(Signal::SIGTERM);
    manager.hears_until("STOPPING=1");
    assert!(server.wait().0.success());
}

#[test]
fn the_watchdog_is_fed_at_least_twice_a_period() {
    let dir = Dir::new();
    let path = dir.join("notify");
    let manager = Manager::new(&path);
    let listen = ["stun-server", "--listen", "127.0.0.1:0", "--admin", "off"];
    let mut command = nzc();
    command.args(listen).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000");
    let _server = Server::from(&mut command);
    manager.hears_until("READY=1");
    let start = Instant::now();
    for _ in 0..10 {
        manager.hears_until("WATCHDOG=1");
    }
    // Ten feedings take 2 s at a third of the period; the service manager wants them within 6 s.
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}
