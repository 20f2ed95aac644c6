//! The STUN server and the NAT probe, beside each other on loopback.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fabric::protocol::stun::{AttributeType, Class, HEADER_LEN, Method, Packet, TransactionId, Writer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::check::Checks;
use super::child::{self, Daemon, Place};

const PATIENCE: Duration = Duration::from_secs(10);
const ROUNDS: usize = 200;

/// Runs the scene and returns the diagnosis as a person reads it.
pub(crate) async fn scene(checks: &mut Checks, wants_text: bool) -> String {
    let begun = Instant::now();
    let server = match Daemon::start(
        Place::Here,
        &[
            "stun-server",
            "--listen",
            "127.0.0.1:0",
            "--alternate",
            "127.0.0.2:0",
            "--dial-back",
            "--admin",
            "off",
            "--log",
            "warn",
            "--ready-json",
        ],
        PATIENCE,
    )
    .await
    {
        Ok(server) => server,
        Err(error) => {
            checks.fail("stun-server starts", format_args!("{error:#}"));
            return String::new();
        }
    };
    checks.milliseconds("stun-server starts", true, begun.elapsed());

    let mut text = String::new();
    match listener(&server, "udp://") {
        None => checks.fail("stun-server listens on UDP", "no address in its ready line"),
        Some(address) => {
            measure(checks, "stun binding over udp, p50", udp_binding(address).await);
            if let Some(address) = listener(&server, "tcp://") {
                measure(checks, "stun binding over tcp, with connect", tcp_binding(address).await);
            }
            text = diagnose(checks, address, wants_text).await;
        }
    }

    let begun = Instant::now();
    match server.stop(PATIENCE).await {
        Ok(status) => checks.milliseconds("stun-server drains and stops", status.success(), begun.elapsed()),
        Err(error) => checks.fail("stun-server drains and stops", format_args!("{error:#}")),
    }
    text
}

/// The first address of this scheme in the ready line.
fn listener(server: &Daemon, scheme: &str) -> Option<SocketAddr> {
    let listen = server.ready.get("listen")?.as_array()?;
    listen.iter().find_map(|value| value.as_str()?.strip_prefix(scheme)?.parse().ok())
}

fn measure(checks: &mut Checks, name: &str, took: anyhow::Result<Duration>) {
    match took {
        Ok(took) => checks.add(name, true, (took.as_secs_f64() * 1e7).round() / 10.0, "us"),
        Err(error) => checks.fail(name, format_args!("{error:#}")),
    }
}

async fn udp_binding(server: SocketAddr) -> anyhow::Result<Duration> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let mut times = Vec::with_capacity(ROUNDS);
    let mut buffer = [0; 1500];
    for _ in 0..ROUNDS {
        let (request, transaction) = request()?;
        let begun = Instant::now();
        socket.send_to(&request, server).await?;
        let (length, from) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await.context("no answer")??;
        times.push(begun.elapsed());
        ensure!(from == server, "the answer came from {from}");
        expect_mapped(buffer.get(..length).unwrap_or_default(), transaction, socket.local_addr()?)?;
    }
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("nothing was measured")
}

async fn tcp_binding(server: SocketAddr) -> anyhow::Result<Duration> {
    let (request, transaction) = request()?;
    let begun = Instant::now();
    let mut stream = timeout(PATIENCE, TcpStream::connect(server)).await.context("no connection")??;
    stream.write_all(&request).await?;
    let mut answer = vec![0; HEADER_LEN];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.context("no answer")??;
    let length = answer.get(2..4).map_or(0, |bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
    answer.resize(HEADER_LEN + length, 0);
    timeout(PATIENCE, stream.read_exact(answer.get_mut(HEADER_LEN..).unwrap_or_default()))
        .await
        .context("cut off")??;
    let took = begun.elapsed();
    expect_mapped(&answer, transaction, stream.local_addr()?)?;
    Ok(took)
}

fn request() -> anyhow::Result<([u8; HEADER_LEN], TransactionId)> {
    let transaction = TransactionId(rand::random());
    let mut buffer = [0; HEADER_LEN];
    Writer::new(&mut buffer, Class::Request, Method::BINDING, transaction)?;
    Ok((buffer, transaction))
}

fn expect_mapped(answer: &[u8], transaction: TransactionId, local: SocketAddr) -> anyhow::Result<()> {
    let packet = Packet::scan(answer)?;
    ensure!(packet.class() == Class::Success, "the answer is no success");
    ensure!(packet.transaction_id() == transaction, "the answer belongs to another request");
    let mapped = packet.xor_address(AttributeType::XOR_MAPPED_ADDRESS);
    ensure!(mapped == Some(local), "the server saw {mapped:?} and not {local}");
    Ok(())
}

async fn diagnose(checks: &mut Checks, server: SocketAddr, wants_text: bool) -> String {
    let server = server.to_string();
    let arguments = ["nat-probe", "--no-port-map", "--server", &server];
    let begun = Instant::now();
    let output = match child::run(Place::Here, &[&arguments[..], &["--json"]].concat(), PATIENCE).await {
        Ok(output) => output,
        Err(error) => {
            checks.fail("nat-probe runs", format_args!("{error:#}"));
            return String::new();
        }
    };
    checks.milliseconds("nat-probe diagnoses", output.status.success(), begun.elapsed());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    for (name, pointer, expected) in [
        ("udp mapping", "/ipv4/udp/mapping", "endpoint-independent"),
        ("udp filtering", "/ipv4/udp/filtering", "endpoint-independent"),
        ("udp class", "/ipv4/udp/class", "open"),
    ] {
        let seen = report.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or("missing");
        checks.word(name, expected, seen);
    }
    if !wants_text {
        return String::new();
    }
    match child::run(Place::Here, &arguments, PATIENCE).await {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(_) => String::new(),
    }
}
