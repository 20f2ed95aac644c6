//! Foreign clients against `nzc stun-server`.

use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use crate::daemon::run;
use crate::foreign::Needs::Program;
use crate::{foreign, stun_server};

const TWO_ADDRESSES: [&str; 4] = ["--listen", "127.0.0.1:0", "--alternate", "127.0.0.2:0"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        foreign::trial(
            "coturn_stunclient_reads_mapped_address_and_other_address",
            &[Program("turnutils_stunclient", "coturn")],
            stunclient,
        ),
        foreign::trial(
            "coturn_natdiscovery_finds_endpoint_independent_mapping_and_filtering_on_loopback",
            &[Program("turnutils_natdiscovery", "coturn")],
            natdiscovery,
        ),
        foreign::trial(
            "debian_stun_client_finds_an_open_host_once_rfc3489_is_allowed",
            &[Program("stun", "stun-client")],
            rfc3489_client,
        ),
        foreign::trial(
            "debian_stun_client_gets_no_answer_by_default",
            &[Program("stun", "stun-client")],
            rfc3489_client_is_dropped,
        ),
    ]
}

fn stunclient() -> Result<(), Failed> {
    let (_server, addresses) = stun_server(&TWO_ADDRESSES);
    let primary = addresses.first().ok_or("no address")?;
    let mut client = Command::new("turnutils_stunclient");
    client.args(["-p", &primary.port().to_string(), &primary.ip().to_string()]);
    let text = text(&mut client)?;
    expect(&text, "UDP reflexive addr: 127.0.0.1:")?;
    expect(&text, "Other addr: : 127.0.0.2:")?;
    expect(&text, "RFC 5780 response 3")
}

fn natdiscovery() -> Result<(), Failed> {
    let (_server, addresses) = stun_server(&TWO_ADDRESSES);
    let primary = addresses.first().ok_or("no address")?;
    let mut client = Command::new("turnutils_natdiscovery");
    client.args(["-m", "-f", "-p", &primary.port().to_string(), &primary.ip().to_string()]);
    let text = text(&mut client)?;
    expect(&text, "Endpoint Independent Mapping!")?;
    expect(&text, "Endpoint Independent Filtering!")?;
    expect(&text, "No ALG: Mapped == XOR-Mapped")
}

fn rfc3489_client() -> Result<(), Failed> {
    let (_server, addresses) = stun_server(&[&TWO_ADDRESSES[..], &["--rfc3489"]].concat());
    let primary = addresses.first().ok_or("no address")?;
    let text = text(Command::new("stun").args([&primary.to_string(), "-v"]))?;
    expect(&text, "Primary: Open")
}

fn rfc3489_client_is_dropped() -> Result<(), Failed> {
    let (_server, addresses) = stun_server(&TWO_ADDRESSES);
    let primary = addresses.first().ok_or("no address")?;
    let text = text(Command::new("stun").args([&primary.to_string(), "-v"]))?;
    expect(&text, "Blocked or could not reach STUN server")
}

fn text(command: &mut Command) -> Result<String, Failed> {
    let output = run(command, Duration::from_secs(30));
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

fn expect(text: &str, part: &str) -> Result<(), Failed> {
    if text.contains(part) { Ok(()) } else { Err(format!("{part:?} is not in what the client said:\n{text}").into()) }
}
