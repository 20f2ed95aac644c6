//! What a survey finds, and how long it takes to find nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use fabric::nat::port_map::driver::{SurveyOptions, survey};
use fabric::nat::port_map::{Protocol, natpmp, pcp};
use tokio::net::UdpSocket;

use crate::fake::{LOOPBACK, Manner, Router};

#[tokio::test]
async fn an_honest_router_answers_in_all_three_protocols() {
    let router = Router::start(Manner::default()).await;
    let survey = router.survey().await;
    assert_eq!(
        (survey.pcp.answered, survey.natpmp.answered, survey.igd.answered),
        (Some(true), Some(true), Some(true)),
        "{survey:?}"
    );
    assert_eq!(survey.usable(), [Protocol::Pcp, Protocol::NatPmp, Protocol::Igd]);
    let external = Ipv4Addr::new(11, 0, 0, 1).into();
    assert_eq!(survey.external_addresses(), [(Protocol::NatPmp, external), (Protocol::Igd, external)]);
    let pcp = survey.pcp.facts.unwrap();
    assert_eq!((pcp.result, pcp.epoch), (pcp::ResultCode::Success, 1000));
    let natpmp = survey.natpmp.facts.unwrap();
    assert_eq!((natpmp.result, natpmp.epoch), (natpmp::ResultCode::Success, 1000));
    let igd = survey.igd.facts.unwrap();
    assert_eq!((igd.device.name.as_str(), igd.device.manufacturer.as_str()), ("Fake router", "Nobody"));
    assert_eq!((igd.device.server.as_str(), igd.device.version), ("Fake/1 UPnP/1.1 Router/1", 1));
    assert!(survey.elapsed < Duration::from_millis(500), "{:?}", survey.elapsed);
}

#[tokio::test]
async fn a_silent_gateway_costs_less_than_a_second() {
    let router = Router::start(Manner { pcp: false, natpmp: false, igd: false, ..Manner::default() }).await;
    let started = Instant::now();
    let survey = router.survey().await;
    let elapsed = started.elapsed();
    assert!(elapsed <= Duration::from_secs(1), "{elapsed:?}");
    assert_eq!(
        (survey.pcp.answered, survey.natpmp.answered, survey.igd.answered),
        (Some(false), Some(false), Some(false))
    );
    assert!(survey.usable().is_empty());
    let said: Vec<&str> = survey.pcp.evidence.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(said, ["PCP ANNOUNCE: sent 4 times", "no answer"]);
}

#[tokio::test]
async fn a_gateway_that_refuses_the_port_is_known_at_once() {
    let closed = UdpSocket::bind((LOOPBACK, 0)).await.unwrap().local_addr().unwrap().port();
    let options = SurveyOptions {
        gateway: Some(LOOPBACK),
        local: Some(LOOPBACK),
        port: closed,
        search: Some(SocketAddr::new(LOOPBACK, closed)),
        ..SurveyOptions::default()
    };
    let survey = survey(&options).await;
    assert_eq!((survey.pcp.answered, survey.natpmp.answered), (Some(false), Some(false)));
    let last = survey.pcp.evidence.last().unwrap();
    assert!(last.text.contains("refuses"), "{last:?}");
    assert!(last.at < Duration::from_millis(200), "{last:?}");
}

#[tokio::test]
async fn without_a_gateway_every_answer_is_unknown() {
    // No address of the documentation range is this host's, so nothing can be sent from it.
    let options = SurveyOptions {
        gateway: Some(LOOPBACK),
        local: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
        ..SurveyOptions::default()
    };
    let survey = survey(&options).await;
    assert_eq!((survey.pcp.answered, survey.natpmp.answered, survey.igd.answered), (None, None, None));
    assert!(survey.usable().is_empty());
}

#[tokio::test]
async fn a_router_that_speaks_only_nat_pmp_is_told_from_a_silent_one() {
    let socket = UdpSocket::bind((LOOPBACK, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 100];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let answer = match natpmp::Request::decode(&buffer[..length]) {
                Ok(_) => vec![0, 128, 0, 0, 0, 0, 0, 9, 100, 64, 0, 1],
                Err(_) => vec![0, 128 | buffer[1], 0, 1, 0, 0, 0, 9],
            };
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    let options = SurveyOptions {
        gateway: Some(LOOPBACK),
        local: Some(LOOPBACK),
        port,
        search: Some(SocketAddr::new(LOOPBACK, port)),
        ..SurveyOptions::default()
    };
    let survey = survey(&options).await;
    assert_eq!((survey.pcp.answered, survey.natpmp.answered), (Some(false), Some(true)));
    assert!(survey.pcp.evidence.last().unwrap().text.contains("does not speak PCP"));
    assert_eq!(survey.natpmp.facts.unwrap().external, Some(Ipv4Addr::new(100, 64, 0, 1)));
}
