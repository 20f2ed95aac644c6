//! Our port mapping behind Debian's miniupnpd: found, made, tried from outside, removed, and gone after every death.

#![allow(clippy::print_stderr, reason = "a number that nobody sees is no measurement")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fabric::nat::port_map::driver::{Family, SurveyOptions, survey};
use fabric::nat::port_map::journal::driver::{Journal, guard};
use fabric::nat::port_map::mapping::driver::map;
use fabric::nat::port_map::mapping::{Removal, Wish};
use fabric::nat::port_map::survey::Survey;
use fabric::nat::port_map::verify::driver::{Dialler, Trial as MappingTrial, TrialOptions, trials as trials_of};
use fabric::nat::port_map::verify::{DialBack, Reason};
use fabric::nat::port_map::{GATEWAY_PORT, Protocol, Transport};
use fabric::netlab::kind::Kind;
use fabric::netlab::miniupnpd::{Miniupnpd, Options};
use fabric::netlab::namespace::Namespace;
use fabric::netlab::router::{Filtering, Gate, Nat, Router, Unsolicited};
use fabric::netlab::world::{BuiltHome, Home, Plan, SERVERS_V4, SERVERS_V6, World};
use fabric::protocol::stun::{AttributeType, Class, Method, Packet, TransactionId, Writer};
use libtest_mimic::{Failed, Trial};

use crate::foreign::{Needs, trial};
use crate::netns::inside;

const NEEDS: &[Needs] = &[Needs::Namespaces, Needs::Program("miniupnpd", "miniupnpd-nftables")];

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];

/// Set in a child of this program: which part it plays instead of running trials.
const PART: &str = "NZC_LAB_PART";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_survey_names_all_three_protocols_and_the_router", NEEDS, all_three),
        trial("a_silent_gateway_is_surveyed_within_a_second", &[Needs::Namespaces], silent),
        trial("a_host_without_a_default_route_knows_nothing", &[Needs::Namespaces], no_route),
        trial("mappings_in_every_protocol_let_a_stranger_in_and_are_removed", NEEDS, mapped),
        trial("an_old_gateway_device_is_used_all_the_same", NEEDS, version_one),
        trial("ipv6_pinholes_let_a_stranger_in_and_are_removed", NEEDS, pinholes),
        trial("a_link_local_ipv6_gateway_opens_pinholes_as_well", NEEDS, link_local),
        trial("behind_a_carrier_the_daemon_grants_nothing_and_nothing_is_claimed", NEEDS, carrier),
        trial("a_router_that_lies_about_its_address_is_not_believed", NEEDS, liar),
        trial("a_mapping_whose_nonce_was_overwritten_is_removed_by_way_of_igd", NEEDS, nonce),
        trial("a_refusal_tells_its_code_and_leaves_nothing", NEEDS, refusal),
        trial("n17_a_hundred_kills_leave_nothing_in_the_router", NEEDS, kills),
    ]
}

/// Plays a part in place of the trials, where this process was started for it.
pub(crate) fn play_part() -> bool {
    let Ok(part) = std::env::var(PART) else { return false };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match part.as_str() {
        "guard" => {
            runtime.block_on(guard(tokio::io::stdin()));
        }
        directory => runtime.block_on(make_until_killed(directory)),
    }
    true
}

/// One home behind a router with the daemon.
struct Lab {
    world: World,
    daemon: Miniupnpd,
}

impl Lab {
    fn new(home: Home, options: &Options) -> Result<Self, Failed> {
        let world = World::build(&Plan::one(home))?;
        let daemon = Miniupnpd::start(router_of(&world)?, options)?;
        Ok(Self { world, daemon })
    }

    fn usual(options: &Options) -> Result<Self, Failed> {
        let kind = Kind::named("port-restricted").ok_or("a known kind")?;
        Self::new(Home::of_kind(kind), options)
    }

    fn home(&self) -> Result<&BuiltHome, Failed> {
        home_of(&self.world)
    }

    fn host(&self) -> Result<&Namespace, Failed> {
        self.home()?.hosts.first().ok_or_else(|| "a host".into())
    }

    fn rules(&self) -> Result<Vec<String>, Failed> {
        Ok(self.daemon.rules()?)
    }
}

fn home_of(world: &World) -> Result<&BuiltHome, Failed> {
    world.homes().first().ok_or_else(|| "a home".into())
}

fn router_of(world: &World) -> Result<&Namespace, Failed> {
    home_of(world)?.routers.first().ok_or_else(|| "a router".into())
}

/// Runs asynchronous work in a namespace: a runtime of one thread, and threads it starts inherit the namespace.
fn run<T, F>(namespace: &Namespace, work: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    inside(namespace, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work())
    })
}

fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(1)
}

fn all_three() -> Result<(), Failed> {
    let lab = Lab::usual(&Options::default())?;
    let found: Survey = run(lab.host()?, || async { survey(&SurveyOptions::default()).await });
    let route = found.route.ok_or("a route read from the kernel's table")?;
    assert_eq!((route.gateway, route.local), (lab.home()?.gateway_v4.into(), first(&lab.home()?.hosts_v4)?.into()));
    assert_eq!(found.usable(), [Protocol::Pcp, Protocol::NatPmp, Protocol::Igd], "{found:?}");
    let external = IpAddr::V4(first(&lab.home()?.external_v4)?);
    assert_eq!(found.external_addresses(), [(Protocol::NatPmp, external), (Protocol::Igd, external)]);
    let device = found.igd.facts.ok_or("facts of the device")?.device;
    assert_eq!((device.name.as_str(), device.version), ("Lab router", 2), "{device:?}");
    assert!(device.server.contains("MiniUPnPd"), "{device:?}");
    eprintln!("survey behind miniupnpd: {:?}", found.elapsed);
    Ok(())
}

fn silent() -> Result<(), Failed> {
    // No daemon, and a router that drops what is sent to itself.
    let kind = Kind::named("port-restricted").ok_or("a known kind")?;
    let world = World::build(&Plan::one(Home::of_kind(kind)))?;
    router_of(&world)?.script(
        "nft add table inet mute\n\
         nft add chain inet mute input '{ type filter hook input priority -200; }'\n\
         nft add rule inet mute input drop\n",
    )?;
    let host = home_of(&world)?.hosts.first().ok_or("a host")?;
    let (found, elapsed): (Survey, Duration) = run(host, || async {
        let started = Instant::now();
        let found = survey(&SurveyOptions::default()).await;
        (found, started.elapsed())
    });
    let answers = (found.pcp.answered, found.natpmp.answered, found.igd.answered);
    assert_eq!(answers, (Some(false), Some(false), Some(false)), "{found:?}");
    assert!(elapsed <= Duration::from_secs(1), "{elapsed:?}");
    eprintln!("survey of a silent gateway: {elapsed:?}");
    Ok(())
}

fn no_route() -> Result<(), Failed> {
    let kind = Kind::named("port-restricted").ok_or("a known kind")?;
    let world = World::build(&Plan::one(Home::of_kind(kind)))?;
    let host = home_of(&world)?.hosts.first().ok_or("a host")?;
    host.script("ip route del default\n")?;
    let found: Survey = run(host, || async { survey(&SurveyOptions::default()).await });
    assert_eq!((found.pcp.answered, found.natpmp.answered, found.igd.answered), (None, None, None));
    assert_eq!(found.route, None);
    Ok(())
}

/// Tries every usable protocol over both transports.
async fn try_all(options: SurveyOptions, server: SocketAddr) -> (Survey, Vec<MappingTrial>) {
    let found = survey(&options).await;
    let local = found.route.expect("a route").local;
    let options = TrialOptions { dialler: Some(Dialler::new(server, local)), ..TrialOptions::default() };
    let all: Vec<_> = found.usable().into_iter().flat_map(|protocol| TRANSPORTS.map(|kind| (protocol, kind))).collect();
    let tried = trials_of(&found, &all, &options, &Journal::forgetful()).await;
    (found, tried)
}

fn mapped() -> Result<(), Failed> {
    let lab = Lab::usual(&Options::default())?;
    every_trial_opens(&lab, &[Protocol::Pcp, Protocol::NatPmp, Protocol::Igd])
}

fn version_one() -> Result<(), Failed> {
    let lab = Lab::usual(&Options { igd_v1: true, natpmp_and_pcp: false, ..Options::default() })?;
    every_trial_opens(&lab, &[Protocol::Igd])
}

fn every_trial_opens(lab: &Lab, protocols: &[Protocol]) -> Result<(), Failed> {
    let server = dial_back_server(lab.world.public(), SERVERS_V4[2].into());
    let started = Instant::now();
    let (found, trials) = run(lab.host()?, move || try_all(SurveyOptions::default(), server));
    assert_eq!(found.usable(), protocols, "{found:?}");
    assert_eq!(trials.len(), protocols.len() * 2);
    let external = IpAddr::V4(first(&lab.home()?.external_v4)?);
    for trial in &trials {
        let verdict = trial.verdict.ok_or_else(|| format!("{trial:?}"))?;
        assert_eq!((verdict.open, verdict.reason), (Some(true), Reason::StrangerCameIn), "{trial:?}");
        let grant = trial.grant.as_ref().map_err(|error| format!("{error}"))?;
        assert_eq!(grant.external.map(|external| external.ip()), Some(external), "{trial:?}");
        assert!(matches!(trial.removal, Some(Ok(Removal::Removed))), "{trial:?}");
        assert!(matches!(trial.dial_back, DialBack::Arrived { mapped, .. } if mapped == external), "{trial:?}");
    }
    assert!(lab.rules()?.is_empty(), "{:?}", lab.rules()?);
    let leases: Vec<_> = trials
        .iter()
        .filter_map(|trial| Some((trial.protocol, trial.transport, trial.grant.as_ref().ok()?.lease)))
        .collect();
    eprintln!("{} mappings made, tried from outside, removed in {:?}: {leases:?}", trials.len(), started.elapsed());
    Ok(())
}

fn pinholes() -> Result<(), Failed> {
    let router = Router {
        v6: Some(Gate::Firewall(Filtering::AddressAndPortDependent, Unsolicited::Drop)),
        ..Router::nat(Nat { ..Nat::PORT_RESTRICTED })
    };
    let lab = Lab::new(Home::behind(router), &Options::default())?;
    let server = dial_back_server(lab.world.public(), SERVERS_V6[2].into());
    let options = SurveyOptions { family: Family::V6, ..SurveyOptions::default() };
    // The daemon says that it is ready before it opens its IPv6 socket.
    let (awaited, patience) = (options.clone(), Instant::now() + Duration::from_secs(3));
    run(lab.host()?, move || async move {
        while Instant::now() < patience && survey(&awaited).await.pcp.answered != Some(true) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let (found, trials) = run(lab.host()?, move || try_all(options, server));
    assert_eq!(found.usable(), [Protocol::Pcp, Protocol::Igd], "{found:?}");
    let local = IpAddr::V6(first(&lab.home()?.hosts_v6)?);
    assert_eq!(found.route.map(|route| route.local), Some(local));
    for trial in &trials {
        let verdict = trial.verdict.ok_or_else(|| format!("{trial:?}"))?;
        assert_eq!((verdict.open, verdict.reason), (Some(true), Reason::StrangerCameIn), "{trial:?}");
        assert!(matches!(trial.removal, Some(Ok(Removal::Removed))), "{trial:?}");
    }
    assert_eq!(trials.len(), 4);
    assert!(lab.rules()?.is_empty(), "{:?}", lab.rules()?);
    // The firewall is no open door: without a pinhole nobody comes in.
    let closed = run(lab.host()?, move || async move {
        use fabric::nat::port_map::verify::driver::{Ask, Listener, dial_back};
        let listener = Listener::bind(Transport::Tcp, local).await.expect("a listener");
        let port = listener.port().expect("a port");
        let deadline = tokio::time::Instant::now() + Duration::from_millis(600);
        let dialler = Dialler::new(server, local);
        dial_back(&listener, &Ask { dialler, transport: Transport::Tcp, port, deadline }).await
    });
    assert!(matches!(closed, DialBack::Lost { .. }), "{closed:?}");
    Ok(())
}

/// Routers announce themselves by their link-local address, so that is what most hosts have as their gateway.
fn link_local() -> Result<(), Failed> {
    let router = Router {
        v6: Some(Gate::Firewall(Filtering::AddressAndPortDependent, Unsolicited::Drop)),
        ..Router::nat(Nat::PORT_RESTRICTED)
    };
    let lab = Lab::new(Home::behind(router), &Options::default())?;
    let listed = router_of(&lab.world)?
        .command("ip")
        .args(["-6", "-o", "addr", "show", "dev", "lan", "scope", "link"])
        .output()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let gateway = listed.split_ascii_whitespace().find_map(|word| word.split_once('/')).ok_or(listed.clone())?.0;
    let interface = "$(ip -6 route show default | sed 's/.* dev \\([^ ]*\\).*/\\1/')";
    lab.host()?.script(&format!("ip -6 route replace default via {gateway} dev {interface}\n"))?;
    let server = dial_back_server(lab.world.public(), SERVERS_V6[2].into());
    let options = SurveyOptions { family: Family::V6, ..SurveyOptions::default() };
    let patience = Instant::now() + Duration::from_secs(3);
    let (found, trials) = run(lab.host()?, move || async move {
        while Instant::now() < patience && survey(&options).await.pcp.answered != Some(true) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        try_all(options, server).await
    });
    let route = found.route.ok_or("a route")?;
    assert_eq!(route.gateway, gateway.parse::<IpAddr>()?);
    assert!(route.scope_id != 0);
    assert_eq!(route.local, IpAddr::V6(first(&lab.home()?.hosts_v6)?));
    assert_eq!(found.usable(), [Protocol::Pcp, Protocol::Igd], "{found:?}");
    for trial in &trials {
        let verdict = trial.verdict.ok_or_else(|| format!("{trial:?}"))?;
        assert_eq!((verdict.open, verdict.reason), (Some(true), Reason::StrangerCameIn), "{trial:?}");
        assert!(matches!(trial.removal, Some(Ok(Removal::Removed))), "{trial:?}");
    }
    assert!(lab.rules()?.is_empty(), "{:?}", lab.rules()?);
    Ok(())
}

fn carrier() -> Result<(), Failed> {
    let home = Home {
        carrier: true,
        routers: vec![Router::nat(Nat::PORT_RESTRICTED); 2],
        ..Home::behind(Router::nat(Nat::PORT_RESTRICTED))
    };
    // This daemon knows that a mapping behind another NAT is worth nothing. Routers that do not are played elsewhere.
    let lab = Lab::new(home, &Options::default())?;
    let server = dial_back_server(lab.world.public(), SERVERS_V4[2].into());
    let (found, trials) = run(lab.host()?, move || try_all(SurveyOptions::default(), server));
    assert_eq!((found.pcp.answered, found.natpmp.answered, found.igd.answered), (Some(true), Some(true), Some(true)));
    assert!(trials.iter().all(|trial| trial.grant.is_err() && trial.verdict.is_none()), "{trials:?}");
    let said: Vec<String> =
        trials.iter().filter_map(|trial| trial.grant.as_ref().err()).map(ToString::to_string).collect();
    eprintln!("behind a carrier: told {:?}, refused {said:?}", found.external_addresses());
    assert!(lab.rules()?.is_empty(), "{:?}", lab.rules()?);
    Ok(())
}

fn liar() -> Result<(), Failed> {
    let kind = Kind::named("double-nat").or_else(|| Kind::named("double")).map_or_else(
        || Home {
            routers: vec![Router::nat(Nat::PORT_RESTRICTED); 2],
            ..Home::behind(Router::nat(Nat::PORT_RESTRICTED))
        },
        Home::of_kind,
    );
    let lie = Ipv4Addr::new(13, 7, 7, 7);
    let lab = Lab::new(kind, &Options { external: Some(lie), ..Options::default() })?;
    let server = dial_back_server(lab.world.public(), SERVERS_V4[2].into());
    let (found, trials) = run(lab.host()?, move || try_all(SurveyOptions::default(), server));
    assert_eq!(found.external_addresses().first().map(|(_, ip)| *ip), Some(lie.into()));
    assert_eq!(trials.len(), 6);
    for trial in &trials {
        let verdict = trial.verdict.ok_or_else(|| format!("{trial:?}"))?;
        assert_eq!((verdict.open, verdict.reason), (Some(false), Reason::OtherAddressOutside), "{trial:?}");
    }
    assert!(lab.rules()?.is_empty(), "{:?}", lab.rules()?);
    Ok(())
}

fn nonce() -> Result<(), Failed> {
    let lab = Lab::usual(&Options::default())?;
    let removal = run(lab.host()?, || async {
        let found = survey(&SurveyOptions::default()).await;
        let wish = Wish::short(Protocol::Pcp, Transport::Udp, 4000);
        let mapping = map(&found, GATEWAY_PORT, &wish, &Journal::forgetful(), soon()).await.expect("a mapping");
        let other = map(&found, GATEWAY_PORT, &wish, &Journal::forgetful(), soon()).await;
        eprintln!("a second nonce for the same port: {:?}", other.as_ref().map(|mapping| *mapping.grant()));
        mapping.remove(soon()).await
    });
    assert!(matches!(removal, Ok(Removal::Removed)), "{removal:?}");
    assert!(lab.rules()?.is_empty(), "{:?}", lab.rules()?);
    Ok(())
}

fn refusal() -> Result<(), Failed> {
    let extra = vec!["deny 0-65535 0.0.0.0/0 0-65535".to_owned()];
    // Over NAT-PMP and PCP this daemon searches all ports for one that is allowed and answers nobody meanwhile.
    let lab = Lab::usual(&Options { extra, natpmp_and_pcp: false, ..Options::default() })?;
    let server = dial_back_server(lab.world.public(), SERVERS_V4[2].into());
    let (_, trials) = run(lab.host()?, move || try_all(SurveyOptions::default(), server));
    let said: Vec<String> =
        trials.iter().filter_map(|trial| trial.grant.as_ref().err()).map(ToString::to_string).collect();
    assert_eq!(said, ["UPnP IGD: not authorized (606)"; 2]);
    assert!(trials.iter().all(|trial| trial.verdict.is_none() && trial.removal.is_none()));
    assert!(lab.rules()?.is_empty());
    Ok(())
}

/// The maker: maps in all protocols again and again until it is killed, under a guard that is this program as well.
async fn make_until_killed(directory: &str) {
    let journal = Journal::default();
    journal.keep_in(std::path::Path::new(directory)).expect("a journal");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.env(PART, "guard");
    journal.guarded_by(command).expect("a guard");
    let found = survey(&SurveyOptions::default()).await;
    let mut out = std::io::stdout();
    writeln!(out, "ready").and_then(|()| out.flush()).expect("standard output");
    let mut kept = Vec::new();
    for port in 2000.. {
        for protocol in [Protocol::Pcp, Protocol::NatPmp, Protocol::Igd] {
            let port = port * 3 + protocol as u16;
            let wish = Wish { lease: 600, ..Wish::short(protocol, Transport::Udp, port) };
            kept.push(map(&found, GATEWAY_PORT, &wish, &journal, soon()).await.expect("a mapping"));
        }
        for mapping in kept.drain(2..) {
            mapping.remove(soon()).await.expect("a removal");
        }
    }
}

fn start_maker(host: &Namespace, directory: &str) -> Result<Child, Failed> {
    let mut maker = host
        .command(std::env::current_exe()?)
        .env(PART, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(maker.stdout.take().ok_or("a pipe")?).read_line(&mut line)?;
    if line.trim() != "ready" {
        return Err(format!("the maker said {line:?}").into());
    }
    Ok(maker)
}

fn kills() -> Result<(), Failed> {
    let lab = Lab::usual(&Options::default())?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().to_str().ok_or("a path in Unicode")?;
    let (mut most, mut slowest, mut caught) = (0, Duration::ZERO, 0);
    for round in 0..100_u64 {
        let mut maker = start_maker(lab.host()?, path)?;
        // Fixed odd steps: every phase of the exchange is hit some time.
        std::thread::sleep(Duration::from_micros(round * 1_313 % 40_000));
        maker.kill()?;
        let killed = Instant::now();
        maker.wait()?;
        let mut rules = lab.rules()?;
        most = most.max(rules.len());
        caught += u32::from(!rules.is_empty());
        while !rules.is_empty() && killed.elapsed() < Duration::from_secs(8) {
            std::thread::sleep(Duration::from_millis(20));
            rules = lab.rules()?;
        }
        assert!(rules.is_empty(), "round {round}: {rules:?}");
        slowest = slowest.max(killed.elapsed());
    }
    // The last guards look for stragglers and tidy their journals up.
    std::thread::sleep(Duration::from_secs(3));
    assert!(lab.rules()?.is_empty(), "{:?}", lab.rules()?);
    if let Some(left) = std::fs::read_dir(directory.path())?.flatten().next() {
        return Err(format!("a journal was left behind: {}", std::fs::read_to_string(left.path())?).into());
    }
    assert!(caught > 10, "only {caught} kills found a mapping open");
    eprintln!(
        "100 kills, {caught} of them with up to {most} rules open, 0 left; the slowest clean-up took {slowest:?}"
    );
    Ok(())
}

fn first<T: Copy>(list: &[T]) -> Result<T, Failed> {
    list.first().copied().ok_or_else(|| "an address".into())
}

/// A STUN server over TCP that dials back to whoever asks, at the port asked for.
fn dial_back_server(namespace: &Namespace, ip: IpAddr) -> SocketAddr {
    inside(namespace, move || {
        let listener = TcpListener::bind((ip, 0)).expect("a listener on the public segment");
        let address = listener.local_addr().expect("an address");
        // Threads inherit the namespace. They end with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || dial_back_once(stream, ip));
            }
        });
        address
    })
}

fn dial_back_once(mut stream: TcpStream, ip: IpAddr) -> Option<()> {
    let mut request = [0; 36];
    stream.read_exact(&mut request).ok()?;
    let packet = Packet::scan(&request).ok()?;
    let asked = packet.find(AttributeType::DIAL_BACK)?.to_vec();
    let from = stream.peer_addr().ok()?;
    let mut buffer = [0; 64];
    let mut writer = Writer::new(&mut buffer, Class::Success, Method::BINDING, packet.transaction_id()).ok()?;
    writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, from).ok()?;
    writer.attribute(AttributeType::DIAL_BACK, &[]).ok()?;
    stream.write_all(writer.as_bytes()).ok()?;
    let (head, nonce) = asked.split_first_chunk::<4>()?;
    let [transport, _, high, low] = *head;
    let to = SocketAddr::new(from.ip(), u16::from_be_bytes([high, low]));
    let mut id = [0; 12];
    id.get_mut(4..)?.copy_from_slice(nonce);
    let mut buffer = [0; 64];
    let mut writer = Writer::new(&mut buffer, Class::Indication, Method::BINDING, TransactionId(id)).ok()?;
    writer.attribute(AttributeType::DIAL_BACK, &asked).ok()?;
    if transport == 6 {
        let mut back = TcpStream::connect_timeout(&to, Duration::from_secs(2)).ok()?;
        back.write_all(writer.as_bytes()).ok()
    } else {
        UdpSocket::bind((ip, 0)).ok()?.send_to(writer.as_bytes(), to).ok().map(|_| ())
    }
}
