//! One UDP thread: receive a batch, decide, send a batch.

use std::io::{self, PipeReader, PipeWriter};
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use super::Shared;
use crate::ops::health::{BEAT, Heartbeat};
use crate::stun::counters::{Counter, Tally};
use crate::stun::endpoint::LocalSlot;
use crate::stun::service::{Arrival, Decision, Reply, Transport};
use crate::transport::udp::{RecvBatch, SendBatch, wait_readable};

/// Datagrams in one system call. Beyond this a call costs no less for each datagram, and the first waits for the last.
const BATCH: usize = 64;

/// The largest datagram taken by a server without alternates. An ordinary request has 20 bytes, one with long credentials
/// some 1,300.
const ORDINARY: usize = 2_048;

/// The largest datagram there is, for servers whose clients send PADDING.
const LARGEST: usize = 65_536;

/// Batches taken from one socket before the others have their turn.
const TURN: usize = 8;

/// A thread, and the way to wake it.
pub(super) struct Worker {
    thread: Option<JoinHandle<()>>,
    /// Closing it wakes the thread.
    wake: Option<PipeWriter>,
}

impl Worker {
    /// Starts a thread that serves these sockets, whose place is their slot.
    pub(super) fn spawn(
        name: String,
        sockets: Vec<UdpSocket>,
        shared: Arc<Shared>,
        pulse: Heartbeat,
    ) -> io::Result<Self> {
        let (sleep, wake) = io::pipe()?;
        let work = move || {
            // Tells when the thread ends by itself, whether by an error or by a panic.
            let alarm = Alarm { shared: Arc::clone(&shared) };
            if let Err(error) = serve(&sockets, &sleep, &alarm.shared, &pulse) {
                tracing::error!(%error, "datagrams are not served any more");
            }
        };
        let thread = std::thread::Builder::new().name(name).spawn(work)?;
        Ok(Self { thread: Some(thread), wake: Some(wake) })
    }

    /// Wakes the thread, whose server has said stop, and waits for its end.
    pub(super) fn finish(&mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Alarm {
    shared: Arc<Shared>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if !self.shared.stop.load(Ordering::Relaxed) {
            let name = std::thread::current().name().unwrap_or("a UDP thread").to_owned();
            self.shared.failure.send_replace(Some(name));
        }
    }
}

fn serve(sockets: &[UdpSocket], sleep: &PipeReader, shared: &Shared, pulse: &Heartbeat) -> io::Result<()> {
    let mut waiting: Vec<BorrowedFd<'_>> = sockets.iter().map(|socket| socket.as_fd()).collect();
    waiting.push(sleep.as_fd());
    let mut desk = Desk::new(sockets, shared);
    loop {
        let ready = wait_readable(&waiting, BEAT)?;
        pulse.beat();
        for (index, socket) in sockets.iter().enumerate() {
            if ready.contains(index) {
                desk.serve(LocalSlot::new(index), socket);
            }
        }
        if shared.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// The memory of one thread.
struct Desk<'s> {
    sockets: &'s [UdpSocket],
    shared: &'s Shared,
    received: RecvBatch,
    /// One for each socket, in their order.
    answers: Vec<SendBatch>,
    tally: Tally,
}

impl<'s> Desk<'s> {
    fn new(sockets: &'s [UdpSocket], shared: &'s Shared) -> Self {
        let endpoints = shared.service.endpoints();
        let largest = if endpoints.has_groups() { LARGEST } else { ORDINARY };
        let wildcard = endpoints.iter().any(|(_, address)| address.ip().is_unspecified());
        Self {
            sockets,
            shared,
            received: RecvBatch::new(BATCH, largest, wildcard),
            answers: sockets.iter().map(|_| SendBatch::new(BATCH, largest)).collect(),
            tally: Tally::default(),
        }
    }

    /// Answers what one socket has, a few batches at most.
    fn serve(&mut self, slot: LocalSlot, socket: &UdpSocket) {
        for _ in 0..TURN {
            match self.received.receive(socket) {
                Ok(count) => {
                    self.answer(slot);
                    // Before anything is sent: whoever has an answer finds it counted.
                    self.shared.counters.absorb(&mut self.tally);
                    self.flush();
                    if count < BATCH {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::debug!(%error, "nothing could be received");
                    self.tally.count(Counter::ReceiveFailed);
                    break;
                }
            }
        }
        self.shared.counters.absorb(&mut self.tally);
    }

    fn answer(&mut self, slot: LocalSlot) {
        let live = self.shared.live.load();
        let now = self.shared.now();
        for datagram in self.received.iter() {
            if datagram.truncated {
                self.tally.count(Counter::DropTooLong);
                continue;
            }
            let (source, local) = (datagram.source, datagram.local);
            let arrival = Arrival { slot, local, source, transport: Transport::Udp };
            let Some(answers) = self.answers.get_mut(slot.index()) else { continue };
            let space = answers.space();
            let decision = self.shared.service.handle(&live.settings, now, &arrival, datagram.bytes, space);
            decision.record(&arrival, &mut self.tally);
            let Decision::Reply(reply) = decision else { continue };
            if reply.from == slot {
                answers.push(reply.length, reply.to, local);
            } else {
                push_elsewhere(&mut self.answers, slot, &reply);
            }
        }
    }

    fn flush(&mut self) {
        for (answers, socket) in self.answers.iter_mut().zip(self.sockets) {
            if !answers.is_empty() {
                let sent = answers.flush(socket);
                self.tally.add(Counter::SendRefused, sent.refused);
            }
        }
    }
}

/// Moves an answer to the batch of the socket it is to leave from. Only RFC 5780 asks for it.
fn push_elsewhere(answers: &mut [SendBatch], written: LocalSlot, reply: &Reply) {
    let Ok([here, there]) = answers.get_disjoint_mut([written.index(), reply.from.index()]) else { return };
    let (Some(answer), Some(space)) = (here.space().get(..reply.length), there.space().get_mut(..reply.length)) else {
        return;
    };
    space.copy_from_slice(answer);
    there.push(reply.length, reply.to, None);
}
