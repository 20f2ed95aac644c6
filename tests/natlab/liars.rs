//! Servers that lie, servers that know little, and several servers at once: never a confident wrong verdict.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fabric::netlab::kind::Kind;
use fabric::netlab::world::SERVERS_V4;
use fabric::protocol::stun::binding::{bare_request, write_success};
use libtest_mimic::{Failed, Trial};

use crate::bar::runs;
use crate::foreign::{Needs, trial};
use crate::netns::udp;
use crate::probe::{Judgement, Rig, Server};
use crate::wire::Weather;

pub(crate) fn trials() -> Vec<Trial> {
    let lab = &[Needs::Namespaces];
    let mut trials = Vec::new();
    for (word, lie) in
        [("a_false_address", Lie::Address), ("a_false_port", Lie::Port), ("the_same_endpoint_to_all", Lie::Constant)]
    {
        trials.push(trial(&format!("p1_a_server_that_tells_{word}_never_decides_against_two"), lab, move || liar(lie)));
    }
    trials.push(trial("plain_servers_tell_the_mapping_and_leave_the_filtering_unknown", lab, plain));
    trials
}

/// What the liar says instead of the truth.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// Another address, the true port.
    Address,
    /// The true address, a port that changes with each answer.
    Port,
    /// One endpoint for everybody.
    Constant,
}

/// A STUN server that lies about mapped addresses.
struct Liar {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Liar {
    fn start(socket: UdpSocket, lie: Lie) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("not zero");
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let Some(id) = buffer.get(..length).and_then(bare_request) else { continue };
                count += 1;
                let told = match lie {
                    Lie::Address => SocketAddr::from((Ipv4Addr::new(14, 1, 2, 3), from.port())),
                    Lie::Port => SocketAddr::new(from.ip(), 40_000 + count),
                    Lie::Constant => SocketAddr::from((Ipv4Addr::new(14, 9, 9, 9), 4_444)),
                };
                let mut answer = [0; 128];
                let length = write_success(&mut answer, id, told).expect("there is room");
                let _ = socket.send_to(&answer[..length], from);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn liar(lie: Lie) -> Result<(), Failed> {
    let weather = Weather::round_trip(Duration::from_millis(10), 0.02);
    let (mut right, mut unknown) = (0, 0);
    for name in ["open", "port-restricted", "symmetric", "full-cone"] {
        let kind = Kind::named(name).ok_or("a known kind")?;
        let mut rig = Rig::new(kind, weather, 3, &[Server::TwoAddresses, Server::Plain(2)])?;
        let _liar = Liar::start(udp(rig.world.public(), (SERVERS_V4[3], 3478)), lie);
        let honest = rig.servers.clone();
        for round in 0..runs(3, 84) {
            // The liar is asked first, between the others and last.
            rig.servers = honest.clone();
            rig.servers.insert(round % (honest.len() + 1), format!("{}:3478", SERVERS_V4[3]));
            let run = rig.probe(&["--no-port-map", "--no-tcp"])?;
            match run.judge(kind.truth()) {
                Judgement::Right => right += 1,
                Judgement::Unknown => unknown += 1,
                Judgement::Wrong => return Err(format!("{name} with {lie:?}: {}", run.line()).into()),
            }
        }
    }
    println!("one liar of three ({lie:?}): {right} right, {unknown} unknown, 0 wrong");
    Ok(())
}

fn plain() -> Result<(), Failed> {
    let weather = Weather::round_trip(Duration::from_millis(10), 0.0);
    for name in ["port-restricted", "full-cone", "symmetric", "symmetric-sequential"] {
        let kind = Kind::named(name).ok_or("a known kind")?;
        let rig = Rig::new(kind, weather, 3, &[Server::Plain(0), Server::Plain(2), Server::Plain(3)])?;
        let run = rig.probe(&["--no-port-map", "--no-tcp"])?;
        assert_ne!(run.judge(kind.truth()), Judgement::Wrong, "{name}: {}", run.line());
        assert_eq!(run.report.pointer("/ipv4/udp/nat"), Some(&true.into()), "{name}");
        let independent = run.word("/ipv4/udp/mapping") == "endpoint-independent";
        assert_eq!(independent, !name.starts_with("symmetric"), "{name}: {}", run.line());
    }
    Ok(())
}
