//! The detector over real sockets on loopback, where there is no NAT.

use std::time::{Duration, Instant};

use fabric::nat::behaviour::Class;
use fabric::nat::driver::{Options, probe};
use fabric::nat::report::{Behaviour, Report, Verdict};
use fabric::ops::health::Health;
use fabric::ops::listen::Listeners;
use fabric::stun::driver::{Config, Server};

fn server(listen: &str, alternates: &[&str]) -> (Server, String) {
    let address = |text: &&str| text.parse().expect("an address");
    let config = Config {
        listen: vec![address(&listen)],
        alternates: alternates.iter().map(address).collect(),
        workers: 1,
        ..Config::default()
    };
    let server = Server::start(config, &mut Listeners::default(), &Health::default()).expect("a server");
    let first = server.addresses("udp").first().expect("an address").to_string();
    (server, first)
}

pub(crate) fn options(servers: &[&str]) -> Options {
    Options {
        servers: servers.iter().map(|server| (*server).to_owned()).collect(),
        port_map: None,
        ..Options::default()
    }
}

async fn run(options: &Options) -> Report {
    probe(options, |_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_through_our_own_server_is_open() {
    let (_server, first) = server("127.0.0.1:0", &["127.0.0.2:0"]);
    let report = run(&options(&[&first])).await;
    assert_eq!((report.ipv4.udp.class, report.verdict), (Class::Open, Verdict::Diagnosed), "{report:#?}");
    assert_eq!(report.ipv4.udp.nat, Some(false));
    assert_eq!(report.ipv4.udp.mapping, Behaviour::EndpointIndependent);
    assert_eq!(report.ipv4.udp.filtering, Behaviour::EndpointIndependent);
    assert!(!report.ipv6.probed);
    println!("core {:?} ms, all {:?} ms, {:?}", report.ipv4.udp.core_ms, report.elapsed_ms, report.ipv4.udp.cost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_a_server_that_refuses_and_not_a_blocked_network() {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let begun = Instant::now();
    let report = run(&options(&[&free.to_string()])).await;
    assert_eq!((report.ipv4.udp.class, report.verdict), (Class::Unknown, Verdict::Blocked), "{report:#?}");
    assert!(begun.elapsed() < Duration::from_millis(1_600), "{:?}", begun.elapsed());
    let blocked = &report.ipv4.udp.facts["blocked"];
    assert_eq!(blocked.value, None, "{blocked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_silent_server_alone_is_not_called_a_blocked_network() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let begun = Instant::now();
    let report = run(&options(&[&silent.local_addr().expect("an address").to_string()])).await;
    assert_eq!((report.ipv4.udp.class, report.verdict), (Class::Unknown, Verdict::Blocked), "{report:#?}");
    println!("silence was known after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_millis(1_600), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_survives_its_own_json_and_redaction_leaves_no_address() {
    let (_server, first) = server("127.0.0.1:0", &["127.0.0.2:0"]);
    let report = run(&Options { explain: true, ..options(&[&first]) }).await;
    let json = serde_json::to_string_pretty(&report).expect("JSON");
    let again: Report = serde_json::from_str(&json).expect("the same report");
    assert_eq!(again, report);
    assert!(json.contains("127.0.0."));
    let redacted = fabric::nat::report::redact(&json, &[first]);
    assert!(!redacted.contains("127.0.0."), "{redacted}");
}
