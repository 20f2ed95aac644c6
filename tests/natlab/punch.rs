//! Two punchers on plain sockets: what it takes to get a packet across in both directions.
//!
//! 1. Each side asks a server how it is seen, several times, and tells the other (the test carries that by hand).
//! 2. Both send HELLO to where the other is expected, again and again, from sockets that stay open.
//! 3. Whoever hears a HELLO answers to where it came from, which need not be where it was expected. Who hears an answer
//!    knows that both directions work. The pair has succeeded when both know.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use fabric::netlab::world::BuiltHome;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use crate::measure::{Servers, carried, host_socket, seen};

/// How long the two sides keep trying before the attempt has failed.
const ATTEMPT: Duration = Duration::from_millis(300);
/// The pause between two volleys.
const VOLLEY: Duration = Duration::from_millis(20);
/// Sockets of the side that cannot be predicted.
const BIRTHDAY_SOCKETS: usize = 256;
/// Probes of the other side, in groups of this many, and how many groups.
const PROBES: usize = 512;
const GROUPS: usize = 5;

const HELLO: u8 = 1;
const ANSWER: u8 = 2;

/// One side of an attempt.
struct Side {
    token: [u8; 8],
    /// Each socket with the places it sends to.
    sockets: Vec<(UdpSocket, Vec<SocketAddr>)>,
    /// Where an answer came from.
    through: Option<SocketAddr>,
}

impl Side {
    fn new(token: [u8; 8], sockets: Vec<(UdpSocket, Vec<SocketAddr>)>) -> Self {
        for (socket, _) in &sockets {
            socket.set_nonblocking(true).expect("a socket can be told not to wait");
        }
        Self { token, sockets, through: None }
    }

    fn send(socket: &UdpSocket, kind: u8, token: [u8; 8], to: SocketAddr) {
        let mut packet = vec![kind];
        packet.extend(token);
        // A refusal of an earlier packet is reported here and means nothing for this one.
        if socket.send_to(&packet, to).is_err() {
            let _ = socket.send_to(&packet, to);
        }
    }

    fn volley(&self) -> usize {
        let mut sent = 0;
        for (socket, targets) in &self.sockets {
            for target in targets {
                Self::send(socket, HELLO, self.token, *target);
                sent += 1;
            }
        }
        sent
    }

    fn listen(&mut self) {
        let mut buffer = [0; 64];
        for (socket, targets) in &mut self.sockets {
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let Some((kind, token)) = buffer.get(..length).and_then(<[u8]>::split_first) else { continue };
                if token != self.token {
                    continue;
                }
                match *kind {
                    HELLO => {
                        Self::send(socket, ANSWER, self.token, from);
                        if !targets.contains(&from) {
                            targets.push(from);
                        }
                    }
                    ANSWER => self.through = Some(from),
                    _ => {}
                }
            }
        }
    }
}

/// Lets both sides try; says after how many HELLOs the pair succeeded.
fn attempt(mut a: Side, mut b: Side) -> Option<usize> {
    let begin = Instant::now();
    let mut sent = 0;
    while begin.elapsed() < ATTEMPT {
        sent += a.volley();
        sent += b.volley();
        let next = Instant::now() + VOLLEY;
        while Instant::now() < next {
            a.listen();
            b.listen();
            if a.through.is_some() && b.through.is_some() {
                return Some(sent);
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
    None
}

/// A fresh socket of a home and how the server sees it.
fn known(home: &BuiltHome, servers: &Servers) -> Option<(UdpSocket, SocketAddr)> {
    let socket = host_socket(home, false);
    let outside = seen(&socket, &servers.home)?;
    Some((socket, outside))
}

/// One side writes to the other's own address; the other has sent nothing before and answers.
pub(crate) fn direct(writer: &BuiltHome, listener: &BuiltHome) -> bool {
    let (from, to) = (host_socket(writer, false), host_socket(listener, false));
    let Ok(address) = to.local_addr() else { return false };
    let Some(seen_as) = carried(&from, address, &to) else { return false };
    carried(&to, seen_as, &from) == Some(address)
}

/// Simultaneous open towards the endpoints that a server saw.
pub(crate) fn plain(a: &BuiltHome, b: &BuiltHome, servers: &Servers) -> Option<usize> {
    let (socket_a, outside_a) = known(a, servers)?;
    let (socket_b, outside_b) = known(b, servers)?;
    let token = rand::random();
    attempt(Side::new(token, vec![(socket_a, vec![outside_b])]), Side::new(token, vec![(socket_b, vec![outside_a])]))
}

/// The numbering of a NAT as three observations show it: the last external endpoint and the step to the next.
struct Forecast {
    socket: UdpSocket,
    last: SocketAddr,
    /// Between the ports of two mappings of one socket; zero where the mapping is the same for every destination.
    step: Option<u16>,
}

impl Forecast {
    fn observe(home: &BuiltHome, servers: &Servers) -> Option<Self> {
        let socket = host_socket(home, false);
        let [first, second, last] = [
            seen(&socket, &servers.home)?,
            seen(&socket, &servers.other_port)?,
            seen(&socket, &servers.other_address)?,
        ];
        let [one, two] = [second.port().wrapping_sub(first.port()), last.port().wrapping_sub(second.port())];
        Some(Self { socket, last, step: (one == two && one < 1024).then_some(one) })
    }

    /// The `number`-th external endpoint from now on; the first has number 1.
    fn endpoint(&self, number: u16) -> SocketAddr {
        let step = self.step.unwrap_or(0);
        SocketAddr::new(self.last.ip(), self.last.port().wrapping_add(step.wrapping_mul(number)))
    }
}

/// How many mappings somebody else may have taken between observation and use.
const DRIFT: u16 = 4;
/// How many steps two predictable sides search: enough for the sum of two drifts.
const SEARCH: u16 = 11;

/// Prediction of the next external port, on one side or both. `drift` makes other flows of the host take ports between
/// the observation and the use. `None` too where a side cannot be predicted.
pub(crate) fn predicted(a: &BuiltHome, b: &BuiltHome, servers: &Servers, drift: [u16; 2]) -> Option<usize> {
    let [forecast_a, forecast_b] = [Forecast::observe(a, servers)?, Forecast::observe(b, servers)?];
    let [step_a, step_b] = [forecast_a.step?, forecast_b.step?];
    for (home, flows) in [(a, drift[0]), (b, drift[1])] {
        for _ in 0..flows {
            known(home, servers)?;
        }
    }
    let ahead = |forecast: &Forecast| (1..=DRIFT + 1).map(|number| forecast.endpoint(number)).collect::<Vec<_>>();
    let (to_b, to_a): (Vec<_>, Vec<_>) = match (step_a, step_b) {
        (0, 0) => return None,
        (0, _) => (ahead(&forecast_b), vec![forecast_a.last]),
        (_, 0) => (vec![forecast_b.last], ahead(&forecast_a)),
        // Each new destination takes a port on the own side too. One side goes straight; the other advances two at a
        // time, so that their distance grows by one with each packet until it is the sum of the two drifts.
        _ => (
            (1..=SEARCH + DRIFT).map(|number| forecast_b.endpoint(number)).collect(),
            (1..=SEARCH).map(|number| forecast_a.endpoint(2 * number - 1)).collect(),
        ),
    };
    let token = rand::random();
    attempt(Side::new(token, vec![(forecast_a.socket, to_b)]), Side::new(token, vec![(forecast_b.socket, to_a)]))
}

/// Many sockets on the random side, many probes on the other. Tries both ways round; says how many probes it took.
pub(crate) fn birthday(a: &BuiltHome, b: &BuiltHome, servers: &Servers, rng: &mut StdRng) -> Option<usize> {
    probe_into(a, b, servers, rng).or_else(|| probe_into(b, a, servers, rng))
}

/// `steady` probes random ports of `random`'s address, which has opened many towards it.
fn probe_into(steady: &BuiltHome, random: &BuiltHome, servers: &Servers, rng: &mut StdRng) -> Option<usize> {
    let (prober, outside) = known(steady, servers)?;
    let (_, address) = known(random, servers)?;
    let mut ports: Vec<u16> = (1024..=u16::MAX).collect();
    ports.shuffle(rng);
    let token = rand::random();
    let doors = (0..BIRTHDAY_SOCKETS).map(|_| (host_socket(random, false), vec![outside])).collect();
    let mut doors = Side::new(token, doors);
    let mut prober = Side::new(token, vec![(prober, Vec::new())]);
    doors.volley();
    let mut sent = 0;
    for group in ports.chunks(PROBES).take(GROUPS) {
        for port in group {
            let (socket, _) = prober.sockets.first()?;
            Side::send(socket, HELLO, token, SocketAddr::new(address.ip(), *port));
            sent += 1;
            if sent % 64 == 0 {
                doors.listen();
                prober.listen();
            }
        }
        let end = Instant::now() + VOLLEY;
        while Instant::now() < end {
            doors.listen();
            prober.listen();
            if prober.through.is_some() {
                return Some(sent);
            }
        }
    }
    None
}

/// Both sides random within a small block of ports: each opens many flows into the other's block until two meet.
pub(crate) fn blocks(a: &BuiltHome, b: &BuiltHome, servers: &Servers, rng: &mut StdRng) -> Option<usize> {
    let [(ip_a, from_a, to_a), (ip_b, from_b, to_b)] = [block(a, servers)?, block(b, servers)?];
    let token = rand::random();
    let mut sides =
        [a, b].map(|home| Side::new(token, (0..8).map(|_| (host_socket(home, false), Vec::new())).collect()));
    let mut sent = 0;
    for _ in 0..256 {
        for (side, (ip, low, high)) in sides.iter_mut().zip([(ip_b, from_b, to_b), (ip_a, from_a, to_a)]) {
            for (socket, _) in &side.sockets {
                Side::send(socket, HELLO, token, SocketAddr::new(ip, rng.random_range(low..=high)));
                sent += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
        sides.iter_mut().for_each(Side::listen);
        if sides.iter().any(|side| side.through.is_some()) {
            return Some(sent);
        }
    }
    None
}

/// The range of ports a home was seen with, over 64 flows, widened to what they leave open.
fn block(home: &BuiltHome, servers: &Servers) -> Option<(IpAddr, u16, u16)> {
    let mut ports = Vec::new();
    let mut address = None;
    for _ in 0..32 {
        let socket = host_socket(home, false);
        for server in [&servers.home, &servers.other_address] {
            let outside = seen(&socket, server)?;
            address = Some(outside.ip());
            ports.push(outside.port());
        }
    }
    let (low, high) = (*ports.iter().min()?, *ports.iter().max()?);
    let margin = (high - low) / 32;
    (high - low < 1024).then_some((address?, low.saturating_sub(margin), high.saturating_add(margin)))
}
