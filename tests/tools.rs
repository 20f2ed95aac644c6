//! What foreign programs say about what nzc ships: mandoc, promtool, systemd. Each is skipped in plain sight where it is
//! missing.

#[path = "support/foreign.rs"]
mod foreign;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, ExitCode, Output, Stdio},
    time::{Duration, Instant},
};

use foreign::{Needs, program, trial};
use libtest_mimic::{Arguments, Failed};

const MANDOC: &[Needs] = &[Needs::Program("mandoc", "mandoc")];
const PROMTOOL: &[Needs] = &[Needs::Program("promtool", "prometheus")];
const SYSTEMD: &[Needs] = &[Needs::Program("systemd-analyze", "systemd")];
const ACTIVATE: &[Needs] = &[Needs::Program("systemd-socket-activate", "systemd")];

const BINARY: &str = env!("CARGO_BIN_EXE_nzc");
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let trials = vec![
        trial("mandoc_finds_nothing_to_say_about_the_manual_pages", MANDOC, manual_pages),
        trial("promtool_finds_nothing_to_say_about_the_metrics", PROMTOOL, metrics),
        trial("promtool_accepts_the_rules_and_their_tests", PROMTOOL, rules),
        trial("systemd_accepts_the_units_and_finds_them_well_locked_in", SYSTEMD, units),
        trial("systemd_socket_activate_hands_over_the_socket", ACTIVATE, activation),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn run(name: &str, args: &[&str], folder: &Path) -> Result<Output, Failed> {
    let program = program(name).ok_or("the program has gone")?;
    Ok(Command::new(program).args(args).current_dir(folder).stdin(Stdio::null()).output()?)
}

/// Fails with what the program said unless it ended with 0.
fn succeed(name: &str, args: &[&str], folder: &Path) -> Result<String, Failed> {
    let output = run(name, args, folder)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(said) } else { Err(format!("{name} {}: {said}", args.join(" ")).into()) }
}

fn manual_pages() -> Result<(), Failed> {
    let mut pages = 0;
    for entry in fs::read_dir("man")? {
        let page = entry?.path();
        let said = succeed("mandoc", &["-T", "lint", "-W", "style", &page.to_string_lossy()], Path::new("."))?;
        if !said.is_empty() {
            return Err(said.into());
        }
        pages += 1;
    }
    if pages < 5 { Err(format!("only {pages} pages").into()) } else { Ok(()) }
}

/// A server on ephemeral ports, killed when dropped.
struct Server {
    child: Child,
    admin: SocketAddr,
}

impl Server {
    fn start() -> Result<Self, Failed> {
        let listen = ["stun-server", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ready-json"];
        let mut child = Command::new(BINARY).args(listen).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        let mut out = child.stdout.take().ok_or("standard output is piped")?;
        let mut byte = [0];
        while out.read(&mut byte)? == 1 && byte[0] != b'\n' {
            line.push(char::from(byte[0]));
        }
        let ready: serde_json::Value = serde_json::from_str(&line)?;
        let mut listeners = ready["listen"].as_array().into_iter().flatten().filter_map(|it| it.as_str());
        let admin = listeners.find_map(|it| it.strip_prefix("http://")).ok_or("no admin listener")?.parse()?;
        Ok(Self { child, admin })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn metrics() -> Result<(), Failed> {
    let server = Server::start()?;
    let mut stream = TcpStream::connect_timeout(&server.admin, PATIENCE)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", server.admin)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
    let promtool = program("promtool").ok_or("promtool has gone")?;
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    check.stdin.take().ok_or("standard input is piped")?.write_all(body.as_bytes())?;
    let output = check.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() && said.is_empty() { Ok(()) } else { Err(format!("{said}\n{body}").into()) }
}

fn rules() -> Result<(), Failed> {
    let folder = Path::new("configs/prometheus");
    succeed("promtool", &["check", "rules", "nzc-alerts.yaml"], folder)?;
    succeed("promtool", &["test", "rules", "nzc-alerts.test.yaml"], folder)?;
    succeed("promtool", &["check", "config", "scrape.yaml"], folder)?;
    Ok(())
}

fn units() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let mut names = Vec::new();
    for entry in fs::read_dir("configs/systemd")? {
        let path = entry?.path();
        let name = path.file_name().ok_or("a unit has a name")?.to_string_lossy().into_owned();
        // The units name the installed binary, which a test machine does not have.
        fs::write(dir.path().join(&name), fs::read_to_string(&path)?.replace("/usr/bin/nzc", BINARY))?;
        names.push(format!("./{name}"));
    }
    let verify: Vec<&str> = ["verify", "--man=no"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let said = succeed("systemd-analyze", &verify, dir.path())?;
    if let Some(complaint) = said.lines().find(|line| line.contains("nzc-")) {
        return Err(complaint.to_owned().into());
    }
    for service in names.iter().filter(|name| name.ends_with(".service")) {
        succeed("systemd-analyze", &["security", "--offline=true", "--threshold=15", service], dir.path())?;
    }
    Ok(())
}

fn activation() -> Result<(), Failed> {
    let free = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    let activate = program("systemd-socket-activate").ok_or("systemd-socket-activate has gone")?;
    let child = Command::new(activate)
        .args(["--datagram", "--listen", &free.to_string(), "--fdname=listen", BINARY])
        .args(["stun-server", "--listen", "127.0.0.1:9", "--tcp=false", "--admin", "off"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let _child = Server { child, admin: free };
    let client = UdpSocket::bind("127.0.0.1:0")?;
    client.set_read_timeout(Some(Duration::from_millis(250)))?;
    let request = [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let deadline = Instant::now() + PATIENCE;
    // The first datagrams may come before the socket is open, and the one that wakes the server up waits for it.
    while Instant::now() < deadline {
        let mut answer = [0; 64];
        let asked = client.send_to(&request, free);
        if asked.is_ok() && client.recv(&mut answer).is_ok_and(|length| length == 32) && answer[..2] == [1, 1] {
            return Ok(());
        }
    }
    Err("no answer through the socket that was handed over".into())
}
