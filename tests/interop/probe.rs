//! `nzc nat-probe` against coturn as an RFC 5780 server.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use crate::daemon::{Daemon, run};
use crate::foreign::{self, Needs::Program};

pub(crate) fn trials() -> Vec<Trial> {
    vec![foreign::trial(
        "probe_finds_an_open_host_through_coturn_in_rfc5780_mode",
        &[Program("turnserver", "coturn")],
        coturn,
    )]
}

fn coturn() -> Result<(), Failed> {
    // Two neighbouring free ports: coturn takes no port 0.
    let held = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
    let ports = [held[0].local_addr()?.port(), held[1].local_addr()?.port()];
    drop(held);
    let folder = tempfile::tempdir()?;
    let mut command = Command::new("turnserver");
    command.current_dir(folder.path()).args([
        "-n",
        "--no-auth",
        "--stun-only",
        "--listening-ip=127.0.0.1",
        "--listening-ip=127.0.0.2",
        &format!("--listening-port={}", ports[0]),
        &format!("--alt-listening-port={}", ports[1]),
        "--no-tls",
        "--no-dtls",
        "--no-cli",
        "--log-file=stdout",
        &format!("--pidfile={}", folder.path().join("pid").display()),
        &format!("--userdb={}", folder.path().join("db").display()),
    ]);
    let (_server, ()) = Daemon::start(&mut command, Duration::from_secs(10), |line| {
        line.contains("IO method (admin thread)").then_some(())
    });
    let output = run(
        Command::new(env!("CARGO_BIN_EXE_nzc")).args([
            "nat-probe",
            "--json",
            "--no-port-map",
            "--server",
            &format!("127.0.0.1:{}", ports[0]),
        ]),
        Duration::from_secs(20),
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let said = || format!("{}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {}", said()))?;
    for (pointer, wanted) in [
        ("/ipv4/udp/mapping", serde_json::json!("endpoint-independent")),
        ("/ipv4/udp/filtering", serde_json::json!("endpoint-independent")),
        ("/ipv4/udp/nat", serde_json::json!(false)),
        ("/ipv4/udp/class", serde_json::json!("open")),
    ] {
        if report.pointer(pointer) != Some(&wanted) {
            return Err(format!("{pointer} is not {wanted}: {}", said()).into());
        }
    }
    if output.status.code() == Some(0) { Ok(()) } else { Err(said().into()) }
}
