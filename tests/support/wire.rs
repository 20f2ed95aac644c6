//! A wire in user space between a router of the lab and the public segment: delay, jitter, loss, reordering and
//! duplication, from a seed.
//!
//! Two packet sockets on the two interfaces of the wire's namespace; one thread a direction decides the fate of each
//! frame, another sends what is due. The kernel leaves checksums of local packets to the network card, and here there
//! is none, so the wire fills them in. Address resolution passes untouched: a lost question would cost a second that
//! no real line costs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fabric::netlab::namespace::Namespace;
use pnet_datalink::{Channel, Config, DataLinkReceiver, DataLinkSender};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::netns::inside;

/// What a wire does to each direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// The way from end to end, one direction.
    pub(crate) delay: Duration,
    /// Added at random to the delay, from nothing to this.
    pub(crate) jitter: Duration,
    /// The share of packets that are lost, 0 to 1.
    pub(crate) loss: f64,
    /// The share of packets that come twice.
    pub(crate) duplication: f64,
    /// The share of packets that are overtaken: they take half the delay more.
    pub(crate) reordering: f64,
}

impl Weather {
    /// A round trip time and a share lost in each direction.
    pub(crate) fn round_trip(time: Duration, loss: f64) -> Self {
        Self { delay: time / 2, loss, ..Self::default() }
    }
}

/// How much one direction has been given to carry, lost packets included.
#[derive(Debug, Default)]
pub(crate) struct Load {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Load {
    /// Packets and bytes, from the IP header on.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        (self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// A wire at work; it is cut when it is dropped.
pub(crate) struct Wire {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Away from the router.
    pub(crate) up: Arc<Load>,
    /// Towards the router.
    pub(crate) down: Arc<Load>,
}

/// How long a thread may sleep before it looks whether the wire was cut.
const PATIENCE: Duration = Duration::from_millis(50);

impl Wire {
    /// Connects the interfaces `near` and `far` of a wire's namespace.
    pub(crate) fn connect(namespace: &Namespace, weather: Weather, seed: u64) -> Self {
        let ((near_tx, near_rx), (far_tx, far_rx)) = inside(namespace, || (open("near"), open("far")));
        let mut wire = Self { stop: Arc::default(), threads: Vec::new(), up: Arc::default(), down: Arc::default() };
        let (up, down) = (wire.up.clone(), wire.down.clone());
        wire.direction(near_rx, far_tx, weather, seed, up);
        wire.direction(far_rx, near_tx, weather, seed ^ 0x5eed_5eed, down);
        wire
    }

    fn direction(
        &mut self,
        mut from: Box<dyn DataLinkReceiver>,
        to: Box<dyn DataLinkSender>,
        weather: Weather,
        seed: u64,
        load: Arc<Load>,
    ) {
        let (queue, due) = channel();
        let stop = self.stop.clone();
        self.threads.push(std::thread::spawn(move || {
            let mut fate = StdRng::seed_from_u64(seed);
            while !stop.load(Ordering::Relaxed) {
                // An error is the timeout, after which the flag is looked at.
                let Ok(frame) = from.next() else { continue };
                receive(frame, weather, &mut fate, &load, &queue);
            }
        }));
        self.threads.push(std::thread::spawn(move || send(&due, to)));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The senders end when the queues of the receivers are gone.
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn open(name: &str) -> (Box<dyn DataLinkSender>, Box<dyn DataLinkReceiver>) {
    let interface = pnet_datalink::interfaces()
        .into_iter()
        .find(|interface| interface.name == name)
        .unwrap_or_else(|| panic!("no interface {name}"));
    let config = Config { read_timeout: Some(PATIENCE), ..Config::default() };
    match pnet_datalink::channel(&interface, config) {
        Ok(Channel::Ethernet(sender, receiver)) => (sender, receiver),
        Ok(_) => panic!("{name} is no Ethernet"),
        Err(error) => panic!("{name}: {error}"),
    }
}

/// A frame under way; the number keeps frames of one instant in order.
type Flight = Reverse<(Instant, u64, Vec<u8>)>;

fn receive(frame: &[u8], weather: Weather, fate: &mut StdRng, load: &Load, queue: &Sender<(Instant, Vec<u8>)>) {
    let now = Instant::now();
    let mut frame = frame.to_vec();
    if !is_traffic(&frame) {
        let _ = queue.send((now, frame));
        return;
    }
    load.packets.fetch_add(1, Ordering::Relaxed);
    load.bytes.fetch_add(frame.len().saturating_sub(ETHERNET) as u64, Ordering::Relaxed);
    fill_checksum(&mut frame);
    // Every draw is made for every packet, so that one setting does not shift the others.
    let (lost, twice, late, jitter) = (
        fate.random_bool(weather.loss),
        fate.random_bool(weather.duplication),
        fate.random_bool(weather.reordering),
        fate.random::<f64>(),
    );
    if lost {
        return;
    }
    let mut due = now + weather.delay + weather.jitter.mul_f64(jitter);
    if late {
        due += weather.delay / 2;
    }
    if twice {
        let _ = queue.send((due + weather.delay / 10, frame.clone()));
    }
    let _ = queue.send((due, frame));
}

fn send(due: &Receiver<(Instant, Vec<u8>)>, mut to: Box<dyn DataLinkSender>) {
    let mut flights: BinaryHeap<Flight> = BinaryHeap::new();
    let mut number = 0;
    loop {
        let wait = flights
            .peek()
            .map_or(Duration::from_secs(3600), |Reverse((at, ..))| at.saturating_duration_since(Instant::now()));
        match due.recv_timeout(wait) {
            Ok((at, frame)) => {
                number += 1;
                flights.push(Reverse((at, number, frame)));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while flights.peek().is_some_and(|Reverse((at, ..))| *at <= Instant::now()) {
            if let Some(Reverse((_, _, frame))) = flights.pop() {
                // A full queue of the interface loses a frame as a router does.
                let _ = to.send_to(&frame, None);
            }
        }
    }
}

/// Bytes before the IP header.
const ETHERNET: usize = 14;

/// Whether this is IP, and neither a question for a neighbour's address nor anything else for the whole link.
fn is_traffic(frame: &[u8]) -> bool {
    if frame.first().is_none_or(|first| first & 1 == 1) {
        return false;
    }
    match frame.get(12..ETHERNET) {
        Some([0x08, 0x00]) => true,
        // Neighbour discovery: ICMPv6 types 133 to 137.
        Some([0x86, 0xdd]) => !(frame.get(20) == Some(&58) && matches!(frame.get(54), Some(133..=137))),
        _ => false,
    }
}

/// Computes the UDP or TCP checksum, where the frame holds the whole of it.
fn fill_checksum(frame: &mut [u8]) -> Option<()> {
    let packet = frame.get_mut(ETHERNET..)?;
    let (header, protocol, addresses) = match packet.first()? >> 4 {
        4 => {
            let [high, low] = *packet.get(6..8)?.first_chunk()?;
            if u16::from_be_bytes([high & 0x3f, low]) != 0 {
                return None;
            }
            (usize::from(packet.first()? & 0x0f) * 4, *packet.get(9)?, 12..20)
        }
        6 => (40, *packet.get(6)?, 8..40),
        _ => return None,
    };
    let length = if packet.first()? >> 4 == 4 {
        usize::from(u16::from_be_bytes(*packet.get(2..4)?.first_chunk()?)).checked_sub(header)?
    } else {
        usize::from(u16::from_be_bytes(*packet.get(4..6)?.first_chunk()?))
    };
    let place = match protocol {
        17 => 6,
        6 => 16,
        _ => return None,
    };
    let pseudo = sum(packet.get(addresses)?) + u64::from(protocol) + length as u64;
    let segment = packet.get_mut(header..header + length)?;
    segment.get_mut(place..place + 2)?.fill(0);
    let mut total = pseudo + sum(segment);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    let checksum = match !(total as u16) {
        // Zero means "none" in UDP.
        0 if protocol == 17 => 0xffff,
        value => value,
    };
    segment.get_mut(place..place + 2)?.copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| u64::from(pair.first().copied().unwrap_or(0)) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}
