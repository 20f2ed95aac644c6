//! The log of a process: its form, and that it never stands in the way.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::server::{Client, Server, exchange};

#[test]
fn away_from_a_terminal_every_record_is_json_with_a_time_in_utc() {
    let server = Server::start(&[]);
    server.signal(Signal::SIGHUP);
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait();
    assert!(status.success());
    assert!(!log.is_empty());
    for line in log.lines() {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let time = record["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
        assert!(record["level"].is_string() && record["message"].is_string(), "{line}");
    }
}

#[test]
fn text_is_there_for_the_asking() {
    let server = Server::start(&["--drain-grace", "0s"]);
    server.signal(Signal::SIGTERM);
    assert!(server.wait().1.starts_with('{'));
    let done =
        crate::server::run(&["stun-server", "--listen", "192.0.2.1:3478", "--admin", "off", "--log-format", "text"]);
    assert_eq!(done.code, 69);
    assert!(done.err.contains(" ERROR ") && done.err.contains("192.0.2.1:3478"), "{}", done.err);
}

/// Fault F39: whoever reads the log stops doing so, or goes away.
#[test]
fn f39_a_log_nobody_reads_costs_no_answer() {
    let mut server = Server::start(&["--log", "trace"]);
    let mut client = Client::new(server.stun);
    // Every piece of nonsense is a record; together they are more than the pipe and the queue behind it hold.
    for _ in 0..3000 {
        drop(exchange(server.admin, b"\0\r\n\r\n"));
    }
    let slowest = (0..500)
        .map(|_| {
            let start = Instant::now();
            assert!(client.asks());
            start.elapsed()
        })
        .max();
    assert!(slowest < Some(Duration::from_secs(1)), "{slowest:?}");
    server.close_log();
    for _ in 0..200 {
        assert!(client.asks());
        drop(exchange(server.admin, b"\0\r\n\r\n"));
    }
    assert!(!server.has_ended());
    let metrics = server.get("/metrics").body;
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("nzc_ops_log_dropped_total ")).unwrap();
    assert_ne!(dropped, "0", "the test did not fill the queue");
    server.signal(Signal::SIGTERM);
    assert!(server.wait().0.success());
}
