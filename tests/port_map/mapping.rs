//! Making, renewing, verifying and removing.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fabric::nat::port_map::journal::driver::{Journal, clean_up_after_the_dead};
use fabric::nat::port_map::journal::{Entry, Ledger};
use fabric::nat::port_map::mapping::driver::{Mapping, map};
use fabric::nat::port_map::mapping::{MapError, Removal, Wish};
use fabric::nat::port_map::survey::Survey;
use fabric::nat::port_map::verify::driver::{Ask, Dialler, Listener, TrialOptions, dial_back, plan, trial, trials};
use fabric::nat::port_map::verify::{DialBack, Reason};
use fabric::nat::port_map::{Protocol, Transport, pcp};
use fabric::protocol::stun::{AttributeType, Class, Method, Packet, TransactionId, Writer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::Instant;

use crate::fake::{LOOPBACK, Manner, Router};

const ALL: [Protocol; 3] = [Protocol::Pcp, Protocol::NatPmp, Protocol::Igd];

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

async fn make(router: &Router, survey: &Survey, wish: &Wish, journal: &Journal) -> Result<Mapping, MapError> {
    map(survey, router.control, wish, journal, soon()).await
}

#[tokio::test]
async fn a_mapping_is_made_renewed_and_removed_in_every_protocol() {
    let router = Router::start(Manner::default()).await;
    let survey = router.survey().await;
    let journal = Journal::forgetful();
    for (protocol, port) in ALL.into_iter().zip(4000..) {
        for transport in [Transport::Tcp, Transport::Udp] {
            let wish = Wish::short(protocol, transport, port);
            let mut mapping = make(&router, &survey, &wish, &journal).await.unwrap();
            let external = SocketAddr::new(Ipv4Addr::new(11, 0, 0, 1).into(), port);
            assert_eq!(mapping.grant().external, Some(external), "{protocol}");
            assert_eq!((mapping.grant().lease, mapping.renew_after()), (30, Some(Duration::from_secs(15))));
            let entry = router.table().remove(&(transport, port)).unwrap();
            assert_eq!((entry.internal, entry.lease), (SocketAddr::new(LOOPBACK, port), 30));
            mapping.renew(soon()).await.unwrap();
            assert_eq!(router.table().len(), 1);
            assert_eq!(mapping.remove(soon()).await.unwrap(), Removal::Removed, "{protocol}");
            assert!(router.table().is_empty(), "{protocol}");
        }
    }
    assert_eq!(router.made(), 12);
}

#[tokio::test]
async fn n17_a_lease_without_end_is_taken_only_where_no_other_is_given() {
    let router = Router::start(Manner { only_permanent: true, ..Manner::default() }).await;
    let survey = router.survey().await;
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::default();
    journal.keep_in(directory.path()).unwrap();
    let wish = Wish::short(Protocol::Igd, Transport::Tcp, 4000);
    let mapping = make(&router, &survey, &wish, &journal).await.unwrap();
    assert_eq!((mapping.grant().lease, mapping.renew_after()), (0, None));
    assert_eq!(router.table()[&(Transport::Tcp, 4000)].lease, 0);
    mapping.remove(soon()).await.unwrap();
    router.change(|manner| manner.only_permanent = false);
    let mapping = make(&router, &survey, &wish, &journal).await.unwrap();
    assert_eq!(mapping.grant().lease, 30, "a finite lease is accepted again, so it is taken");
    mapping.remove(soon()).await.unwrap();
    journal.close();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "a clean journal is removed");
}

#[tokio::test]
async fn a_conflict_moves_to_another_outer_port_unless_the_port_was_wished_for() {
    let router = Router::start(Manner { taken: vec![4000], ..Manner::default() }).await;
    let survey = router.survey().await;
    let journal = Journal::forgetful();
    let wish = Wish::short(Protocol::Igd, Transport::Udp, 4000);
    let mapping = make(&router, &survey, &wish, &journal).await.unwrap();
    assert_ne!(mapping.grant().external_port, 4000);
    let found: Vec<_> = router.table().into_iter().collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0.1, mapping.grant().external_port);
    assert_eq!(found[0].1.internal.port(), 4000);
    mapping.remove(soon()).await.unwrap();
    let exact = Wish { external_port: 4000, ..wish };
    let refused = make(&router, &survey, &exact, &journal).await.unwrap_err();
    assert!(refused.to_string().contains("718"), "{refused}");
    assert!(router.table().is_empty());
}

#[tokio::test]
async fn a_request_that_gets_no_answer_is_undone_all_the_same() {
    let router = Router::start(Manner::default()).await;
    let survey = router.survey().await;
    let directory = tempfile::tempdir().unwrap();
    for protocol in ALL {
        let journal = Journal::default();
        journal.keep_in(directory.path()).unwrap();
        router.change(|manner| manner.mute = true);
        let wish = Wish::short(protocol, Transport::Tcp, 4000);
        let deadline = Instant::now() + Duration::from_millis(200);
        assert!(map(&survey, router.control, &wish, &journal, deadline).await.is_err());
        router.change(|manner| manner.mute = false);
        journal.close();
        // Whatever the mute router carried out, the next start finds it in the journal.
        drop(journal);
        clean_up_after_the_dead(directory.path()).await;
        assert!(router.table().is_empty(), "{protocol}: {:?}", router.table());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "{protocol}");
    }
}

#[tokio::test]
async fn p5_an_interrupted_trial_is_settled() {
    let router = Router::start(Manner::default()).await;
    let survey = router.survey().await;
    // Nobody listens there and nobody refuses: every trial waits for its dial-back when it is interrupted.
    let mute = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let options = TrialOptions {
        port: router.control,
        dialler: Some(Dialler::new(mute.local_addr().unwrap(), LOOPBACK)),
        dial_back_limit: Duration::from_secs(60),
        ..TrialOptions::default()
    };
    let plan = plan(&survey);
    assert_eq!(plan.len(), 4);
    let journal = Journal::forgetful();
    tokio::select! {
        trials = trials(&survey, &plan, &options, &journal) => panic!("{trials:?}"),
        () = async { while router.table().len() < 4 { tokio::time::sleep(Duration::from_millis(1)).await } } => {}
    }
    let outcome = journal.settle().await;
    assert_eq!((outcome.left, router.table().len()), (0, 0), "{outcome:?}");
    assert_eq!(outcome.removed, 4);
}

#[tokio::test]
async fn without_a_place_to_write_it_down_nothing_is_asked_for() {
    let router = Router::start(Manner::default()).await;
    let survey = router.survey().await;
    let wish = Wish::short(Protocol::Pcp, Transport::Udp, 4000);
    let refused = make(&router, &survey, &wish, &Journal::default()).await.unwrap_err();
    assert!(matches!(refused, MapError::Journal(_)), "{refused}");
    assert_eq!(router.made(), 0);
}

#[tokio::test]
async fn a_journal_left_behind_removes_only_what_is_its_own() {
    let router = Router::start(Manner::default()).await;
    let survey = router.survey().await;
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::default();
    journal.keep_in(directory.path()).unwrap();
    let wish = Wish::short(Protocol::Igd, Transport::Tcp, 4000);
    let mapping = make(&router, &survey, &wish, &journal).await.unwrap();
    // Somebody else took the port meanwhile.
    router.plant(Transport::Tcp, 4000, "somebody else");
    drop((mapping, journal));
    let outcome = clean_up_after_the_dead(directory.path()).await;
    assert_eq!((outcome.removed, outcome.left), (1, 0));
    assert_eq!(router.table()[&(Transport::Tcp, 4000)].description, "somebody else");
}

#[tokio::test]
async fn a_living_process_keeps_its_mappings_through_the_start_of_another() {
    let router = Router::start(Manner::default()).await;
    let survey = router.survey().await;
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::default();
    journal.keep_in(directory.path()).unwrap();
    let mapping = make(&router, &survey, &Wish::short(Protocol::NatPmp, Transport::Udp, 4000), &journal).await.unwrap();
    let outcome = clean_up_after_the_dead(directory.path()).await;
    assert_eq!((outcome.removed, outcome.left, router.table().len()), (0, 0, 1));
    mapping.remove(soon()).await.unwrap();
}

#[tokio::test]
async fn a_nonce_overwritten_by_another_does_not_leave_the_mapping_behind() {
    let router = Router::start(Manner { careless_nonce: true, ..Manner::default() }).await;
    let survey = router.survey().await;
    let journal = Journal::forgetful();
    let wish = Wish::short(Protocol::Pcp, Transport::Udp, 4000);
    let mapping = make(&router, &survey, &wish, &journal).await.unwrap();
    // Another program of this host asks for the same port with a nonce of its own.
    let other = make(&router, &survey, &wish, &journal).await.unwrap();
    assert_eq!(router.table().len(), 1);
    assert_eq!(mapping.remove(soon()).await.unwrap(), Removal::Removed, "by way of IGD");
    assert!(router.table().is_empty());
    drop(other);
}

#[tokio::test]
async fn a_refusal_that_cannot_be_helped_is_reported_with_the_lease() {
    let router = Router::start(Manner { careless_nonce: true, ..Manner::default() }).await;
    let survey = router.survey().await;
    let journal = Journal::forgetful();
    let wish = Wish::short(Protocol::Pcp, Transport::Udp, 4000);
    let mapping = make(&router, &survey, &wish, &journal).await.unwrap();
    let _other = make(&router, &survey, &wish, &journal).await.unwrap();
    router.change(|manner| manner.mute_igd = true);
    assert_eq!(mapping.remove(soon()).await.unwrap(), Removal::LeftToExpire { lease: 30 });
}

#[tokio::test]
async fn a_restarted_gateway_is_noticed_when_a_mapping_is_renewed() {
    let router = Router::start(Manner { epoch: 50_000, ..Manner::default() }).await;
    let survey = router.survey().await;
    let wish = Wish::short(Protocol::Pcp, Transport::Udp, 4000);
    let mut mapping = make(&router, &survey, &wish, &Journal::forgetful()).await.unwrap();
    assert!(!mapping.grant().restarted);
    router.change(|manner| manner.epoch = 3);
    mapping.renew(soon()).await.unwrap();
    assert!(mapping.grant().restarted);
    mapping.remove(soon()).await.unwrap();
}

#[tokio::test]
async fn a_refused_mapping_tells_its_result_code() {
    let router = Router::start(Manner::default()).await;
    let survey = router.survey().await;
    let journal = Journal::forgetful();
    let wish = Wish::short(Protocol::Pcp, Transport::Udp, 4000);
    let _first = make(&router, &survey, &wish, &journal).await.unwrap();
    let refused = make(&router, &survey, &wish, &journal).await.unwrap_err();
    assert!(matches!(refused, MapError::Pcp(pcp::ResultCode::NotAuthorized)), "{refused}");
    let gone = Wish { protocol: Protocol::Igd, ..wish };
    let no_igd = Router::start(Manner { igd: false, ..Manner::default() }).await;
    let survey = no_igd.survey().await;
    let refused = make(&no_igd, &survey, &gone, &journal).await.unwrap_err();
    assert!(matches!(refused, MapError::NotOffered(Protocol::Igd)), "{refused}");
}

/// What a dial-back server does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Caller {
    Honest,
    /// Loses the first dial-back.
    Lossy,
    /// Offers and does not do it.
    Idle,
    /// Does not offer.
    Plain,
    /// Dials with another nonce.
    Confused,
}

/// A STUN server over TCP that dials back to `target`, standing in for the router's redirection.
async fn dial_back_server(manner: Caller, target: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for turn in 0.. {
            let (mut stream, from) = listener.accept().await.unwrap();
            let mut request = [0; 36];
            if stream.read_exact(&mut request).await.is_err() {
                continue;
            }
            let packet = Packet::scan(&request).unwrap();
            let asked = packet.find(AttributeType(0xC05B)).unwrap().to_vec();
            let mut buffer = [0; 64];
            let mut writer =
                Writer::new(&mut buffer, Class::Success, Method::BINDING, packet.transaction_id()).unwrap();
            writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, from).unwrap();
            if manner != Caller::Plain {
                writer.attribute(AttributeType(0xC05B), &[]).unwrap();
            }
            stream.write_all(writer.as_bytes()).await.unwrap();
            if matches!(manner, Caller::Plain | Caller::Idle) || manner == Caller::Lossy && turn == 0 {
                continue;
            }
            let mut id = [0; 12];
            id[4..].copy_from_slice(&asked[4..]);
            if manner == Caller::Confused {
                id[11] ^= 1;
            }
            let mut buffer = [0; 64];
            let mut writer = Writer::new(&mut buffer, Class::Indication, Method::BINDING, TransactionId(id)).unwrap();
            writer.attribute(AttributeType(0xC05B), &asked).unwrap();
            if asked[0] == 6 {
                if let Ok(mut back) = TcpStream::connect(target).await {
                    back.write_all(writer.as_bytes()).await.unwrap();
                }
            } else {
                let back = UdpSocket::bind((LOOPBACK, 0)).await.unwrap();
                back.send_to(writer.as_bytes(), target).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn a_dial_back_is_believed_only_with_its_nonce() {
    for transport in [Transport::Tcp, Transport::Udp] {
        for (manner, limit, expected) in [
            (Caller::Honest, 2000, "arrived"),
            (Caller::Lossy, 1500, "arrived"),
            (Caller::Idle, 300, "lost"),
            (Caller::Confused, 300, "lost"),
            (Caller::Plain, 2000, "not offered"),
        ] {
            let listener = Listener::bind(transport, LOOPBACK).await.unwrap();
            let inner = SocketAddr::new(LOOPBACK, listener.port().unwrap());
            let server = dial_back_server(manner, inner).await;
            let deadline = Instant::now() + Duration::from_millis(limit);
            let ask = Ask { dialler: Dialler::new(server, LOOPBACK), transport, port: 4000, deadline };
            let found = match dial_back(&listener, &ask).await {
                DialBack::Arrived { mapped: LOOPBACK, .. } => "arrived",
                DialBack::Lost { mapped: LOOPBACK, asked: 3 } => "lost",
                DialBack::NotOffered { mapped: LOOPBACK } => "not offered",
                other => panic!("{other:?}"),
            };
            assert_eq!(found, expected, "{transport} {manner:?}");
        }
    }
}

#[tokio::test]
async fn visitors_that_say_nothing_do_not_keep_the_dial_back_out() {
    let listener = Listener::bind(Transport::Tcp, LOOPBACK).await.unwrap();
    let inner = SocketAddr::new(LOOPBACK, listener.port().unwrap());
    let mut loiterers = Vec::new();
    for _ in 0..5 {
        loiterers.push(TcpStream::connect(inner).await.unwrap());
    }
    let server = dial_back_server(Caller::Honest, inner).await;
    let dialler = Dialler::new(server, LOOPBACK);
    let ask = Ask { dialler, transport: Transport::Tcp, port: 4000, deadline: soon() };
    assert!(matches!(dial_back(&listener, &ask).await, DialBack::Arrived { .. }));
}

#[tokio::test]
async fn a_trial_leaves_nothing_behind_and_does_not_call_granted_reachable() {
    let router = Router::start(Manner { external: Ipv4Addr::new(100, 64, 0, 9), ..Manner::default() }).await;
    let survey = router.survey().await;
    // The router grants and redirects nothing: the dial-back goes to a port where nobody listens.
    let server = dial_back_server(Caller::Honest, SocketAddr::new(LOOPBACK, 9)).await;
    let options = TrialOptions {
        port: router.control,
        dialler: Some(Dialler::new(server, LOOPBACK)),
        dial_back_limit: Duration::from_millis(300),
        ..TrialOptions::default()
    };
    for protocol in ALL {
        for transport in [Transport::Tcp, Transport::Udp] {
            let trial = trial(&survey, protocol, transport, &options, &Journal::forgetful()).await;
            let grant = trial.grant.as_ref().unwrap();
            assert_eq!(grant.external.unwrap().ip(), Ipv4Addr::new(100, 64, 0, 9), "{protocol}");
            let verdict = trial.verdict.unwrap();
            assert_eq!((verdict.open, verdict.reason), (Some(false), Reason::BehindAnotherNat), "{trial:?}");
            assert!(matches!(trial.removal, Some(Ok(Removal::Removed))), "{trial:?}");
        }
    }
    assert_eq!((router.made(), router.table().len()), (6, 0));
}

#[tokio::test]
async fn a_journal_speaks_of_a_mapping_before_the_router_hears_of_it() {
    let router = Router::start(Manner { slow: Duration::from_millis(300), ..Manner::default() }).await;
    let survey = router.survey().await;
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::default();
    journal.keep_in(directory.path()).unwrap();
    let wish = Wish::short(Protocol::Igd, Transport::Tcp, 4000);
    let making = tokio::spawn({
        let (control, journal) = (router.control, journal.clone());
        async move { map(&survey, control, &wish, &journal, soon()).await }
    });
    while router.table().is_empty() {
        tokio::task::yield_now().await;
        let path = std::fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(path).unwrap();
        if !router.table().is_empty() {
            assert_eq!(Ledger::read(&text).outstanding().count(), 1, "{text}");
        }
    }
    let mapping = making.await.unwrap().unwrap();
    mapping.remove(soon()).await.unwrap();
    journal.write(&Entry::Removed { id: 0 }).await.unwrap();
}
