//! Routers, and hosts beside them, that mean harm.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fabric::nat::port_map::driver::{SurveyOptions, survey};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use crate::fake::{DESCRIPTION, LOOPBACK, Manner, Router, read_request};

const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What a hostile device says to the search and to whoever follows.
struct Device {
    name: &'static str,
    location: String,
    answer: Vec<u8>,
}

fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn redirect(status: &str, to: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

fn controlled_at(url: &str) -> Vec<u8> {
    ok(DESCRIPTION.replace("/ctl", url))
}

/// Twenty of them. `at` is the port of the gateway's HTTP server, `other` one that must never see a connection.
fn devices(at: u16, other: u16) -> Vec<Device> {
    let here = format!("http://127.0.0.1:{at}/");
    let there = format!("http://{OTHER}:{other}/");
    let bomb = {
        let mut text = String::from("<?xml version=\"1.0\"?><!DOCTYPE root [<!ENTITY a0 \"aaaaaaaaaaaaaaaa\">");
        for level in 1..12 {
            text += &format!("<!ENTITY a{level} \"{}\">", format!("&a{};", level - 1).repeat(16));
        }
        text + "]><root>&a11;</root>"
    };
    let external_entity = format!("<?xml version=\"1.0\"?><!DOCTYPE root SYSTEM \"{there}x.dtd\"><root/>");
    let wide: Vec<u8> = bomb.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let endless_chunks = {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..256 {
            bytes.extend_from_slice(b"10000\r\n");
            bytes.resize(bytes.len() + 0x1_0000, b' ');
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    };
    let device = |name, location: &str, answer| Device { name, location: location.to_owned(), answer };
    vec![
        device("LOCATION at another host", &there, ok(DESCRIPTION)),
        device("LOCATION at another host by user name", &format!("http://127.0.0.1@{OTHER}:{other}/"), ok(DESCRIPTION)),
        device("LOCATION over https", &format!("https://127.0.0.1:{at}/"), ok(DESCRIPTION)),
        device("LOCATION by name", &format!("http://localhost:{at}/"), ok(DESCRIPTION)),
        device("LOCATION in a file", "file:///etc/passwd", ok(DESCRIPTION)),
        device("moved permanently", &here, redirect("301 Moved Permanently", &there)),
        device("found elsewhere", &here, redirect("302 Found", &there)),
        device("temporary redirect", &here, redirect("307 Temporary Redirect", &there)),
        device("permanent redirect", &here, redirect("308 Permanent Redirect", &there)),
        device("control URL at another host", &here, controlled_at(&there)),
        device("control URL without a scheme", &here, controlled_at(&format!("//{OTHER}:{other}/ctl"))),
        device("control URL with backslashes", &here, controlled_at(&format!("/\\{OTHER}:{other}/ctl"))),
        device(
            "base URL at another host",
            &here,
            ok(DESCRIPTION.replace("<device>", &format!("<URLBase>{there}</URLBase><device>"))),
        ),
        device("entity bomb", &here, ok(&bomb)),
        device("external entity", &here, ok(&external_entity)),
        device("entity bomb in UTF-16", &here, ok(&wide)),
        device("sixteen MiB in one piece", &here, ok(vec![b' '; 16 << 20])),
        device("sixteen MiB in chunks", &here, endless_chunks),
        device("a hundred thousand levels", &here, ok("<a>".repeat(20_000))),
        device("a mebibyte of headers", &here, {
            let header = format!("X-Filler: {}\r\n", "y".repeat(1000));
            format!("HTTP/1.1 200 OK\r\n{}\r\n", header.repeat(1024)).into_bytes()
        }),
    ]
}

async fn count_connections(listener: TcpListener, count: Arc<AtomicUsize>) {
    let mut held = Vec::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            held.push(stream);
        }
    }
}

async fn serve(listener: Arc<TcpListener>, answer: Arc<Vec<u8>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let answer = Arc::clone(&answer);
        connections.spawn(async move {
            if read_request(&mut stream).await.is_some() {
                let _ = write_slowly(&mut stream, &answer).await;
            }
        });
    }
}

async fn write_slowly(stream: &mut TcpStream, answer: &[u8]) -> std::io::Result<()> {
    for piece in answer.chunks(1 << 16) {
        stream.write_all(piece).await?;
    }
    stream.shutdown().await
}

/// The peak of resident memory in KiB since the last reset.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn n18_twenty_hostile_devices_get_no_connection_elsewhere_and_little_memory() {
    let (elsewhere, strangers) = (TcpListener::bind((OTHER, 0)).await.unwrap(), Arc::new(AtomicUsize::new(0)));
    let other = elsewhere.local_addr().unwrap().port();
    tokio::spawn(count_connections(elsewhere, Arc::clone(&strangers)));
    let http = Arc::new(TcpListener::bind((LOOPBACK, 0)).await.unwrap());
    let devices = devices(http.local_addr().unwrap().port(), other);
    assert_eq!(devices.len(), 20);
    let mut most = 0;
    for device in devices {
        let answer = Arc::new(device.answer);
        let server = tokio::spawn(serve(Arc::clone(&http), Arc::clone(&answer)));
        let ssdp = UdpSocket::bind((LOOPBACK, 0)).await.unwrap();
        let search = ssdp.local_addr().unwrap();
        let location = device.location.clone();
        let finder = tokio::spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                let (_, from) = ssdp.recv_from(&mut buffer).await.unwrap();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\
                     SERVER: \x1b]0;evil\x07\r\nLOCATION: {location}\r\n\r\n"
                );
                ssdp.send_to(answer.as_bytes(), from).await.unwrap();
            }
        });
        let closed = UdpSocket::bind((LOOPBACK, 0)).await.unwrap().local_addr().unwrap().port();
        let options = SurveyOptions {
            gateway: Some(LOOPBACK),
            local: Some(LOOPBACK),
            port: closed,
            search: Some(search),
            ..SurveyOptions::default()
        };
        // "5" resets the peak to what is resident now (proc(5)).
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = peak_kib();
        let survey = survey(&options).await;
        let grown = peak_kib().saturating_sub(before);
        most = most.max(grown);
        assert!(grown <= 4096, "{}: {grown} KiB", device.name);
        assert!(survey.usable().is_empty(), "{}: {survey:?}", device.name);
        assert!(survey.elapsed <= Duration::from_secs(1), "{}: {:?}", device.name, survey.elapsed);
        for step in &survey.igd.evidence {
            assert!(!step.text.chars().any(char::is_control), "{}: {step:?}", device.name);
        }
        finder.abort();
        server.abort();
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(strangers.load(Ordering::SeqCst), 0, "connections to a host that is not the gateway");
    eprintln!("n18: 20 hostile devices, 0 connections elsewhere, at most {most} KiB more memory");
}

#[tokio::test]
async fn p9_a_thousand_fakes_from_the_network_leave_the_true_answer_standing() {
    // The true router answers late. Until then every other host and port of the network answers in its stead.
    let router = Router::start(Manner { igd: false, pcp: false, natpmp: false, ..Manner::default() }).await;
    let (survey_done, asked) = (router.options(), Arc::new(AtomicUsize::new(0)));
    let spoofers = spoof(Arc::clone(&asked));
    let sent = tokio::spawn(spoofers);
    let late = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        router.change(|manner| (manner.pcp, manner.natpmp) = (true, true));
    };
    let (found, ()) = tokio::join!(survey(&survey_done), late);
    let facts = found.natpmp.facts.expect("the true answer");
    assert_eq!(facts.external, Some(Ipv4Addr::new(11, 0, 0, 1)));
    assert_eq!((facts.epoch, found.pcp.facts.unwrap().epoch), (1000, 1000));
    sent.abort();
    let count = asked.load(Ordering::SeqCst);
    assert!(count >= 1000, "only {count} fakes were sent");
}

/// Sends fakes at every UDP socket of this process on loopback, from other addresses and ports than the router's.
async fn spoof(count: Arc<AtomicUsize>) {
    let mut rng = SmallRng::seed_from_u64(5351);
    let mut sources = Vec::new();
    for last in 1..=4 {
        sources.push(UdpSocket::bind((Ipv4Addr::new(127, 0, 0, last), 0)).await.unwrap());
    }
    let natpmp = [0, 128, 0, 0, 0, 0, 0, 7, 66, 6, 6, 6];
    let mut pcp = [0; 24];
    (pcp[0], pcp[1], pcp[11]) = (2, 128, 7);
    loop {
        for port in local_udp_ports() {
            let from = &sources[rng.random_range(0..sources.len())];
            let to = SocketAddr::new(LOOPBACK, port);
            let _ = from.send_to(&natpmp, to).await;
            let _ = from.send_to(&pcp, to).await;
            count.fetch_add(2, Ordering::SeqCst);
        }
        tokio::task::yield_now().await;
    }
}

/// The UDP ports bound on loopback, from the kernel's table: what an attacker on the host's network would have to guess.
fn local_udp_ports() -> Vec<u16> {
    let table = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap();
    let local = table.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().nth(1));
    local.filter_map(|address| u16::from_str_radix(address.strip_prefix("0100007F:")?, 16).ok()).collect()
}
