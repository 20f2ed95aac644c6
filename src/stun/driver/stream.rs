//! TCP and TLS: a task for each listener and each connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::{Shared, dial};
use crate::ops::health::{BEAT, Heartbeat};
use crate::stun::counters::{Counter, Tally};
use crate::stun::endpoint::LocalSlot;
use crate::stun::service::{Arrival, Decision, DropReason, Transport};
use crate::transport::framing::Frames;
use crate::transport::tcp::{Accepted, Acceptor, Permit};

/// The longest message taken from a stream: every attribute a request can need, each at its longest, twice over.
const MAX_MESSAGE: usize = 4_096;

/// The longest answer: a challenge with the longest realm.
const MAX_ANSWER: usize = 1_024;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Tcp,
    Tls,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// Accepts until the server drains, then waits for its connections.
pub(super) async fn listen(shared: Arc<Shared>, slot: LocalSlot, kind: Kind, listener: TcpListener, pulse: Heartbeat) {
    let mut acceptor = Acceptor::new(listener);
    let mut connections = JoinSet::new();
    let mut tick = tokio::time::interval(BEAT);
    loop {
        tokio::select! {
            () = shared.drain.cancelled() => break,
            _ = tick.tick() => pulse.beat(),
            Some(_) = connections.join_next() => {}
            accepted = acceptor.accept() => match accepted {
                Accepted::Connection(stream, peer) => {
                    let limits = shared.live.load().streams.connections;
                    match shared.connections.admit(peer.ip(), limits) {
                        Ok(permit) => {
                            connections.spawn(serve(Arc::clone(&shared), slot, kind, stream, peer, permit));
                        }
                        Err(refusal) => {
                            shared.counters.count(Counter::ConnectionRefused);
                            tracing::debug!(%peer, ?refusal, "a connection was refused");
                            // A reset instead of a farewell: the port is not kept in TIME_WAIT.
                            let _ = stream.set_zero_linger();
                        }
                    }
                }
                Accepted::Gone(error) => tracing::debug!(%error, "a connection was gone before it was accepted"),
                Accepted::Exhausted(error) => {
                    shared.counters.count(Counter::AcceptExhausted);
                    tracing::debug!(%error, "no connection can be accepted");
                }
            }
        }
    }
    drop(acceptor);
    // Nothing new is taken, but the loop still lives and says so.
    loop {
        tokio::select! {
            ended = connections.join_next() => if ended.is_none() { return },
            _ = tick.tick() => pulse.beat(),
        }
    }
}

async fn serve(shared: Arc<Shared>, slot: LocalSlot, kind: Kind, stream: TcpStream, peer: SocketAddr, permit: Permit) {
    let _permit = permit;
    let Ok(local) = stream.local_addr() else { return };
    // An answer is one small write: waiting for more to send would only delay it.
    let _ = stream.set_nodelay(true);
    let transport = if kind == Kind::Tcp { Transport::Tcp } else { Transport::Tls };
    let arrival = Arrival { slot, local: Some(local.ip()), source: peer, transport };
    let due = Instant::now() + shared.live.load().streams.first_byte;
    let talk = Talk { shared: &shared, arrival, local: local.ip(), due };
    let end = match (kind, &shared.certificate) {
        (Kind::Tls, Some(certificate)) => {
            match timeout_at(due, TlsAcceptor::from(certificate.config()).accept(stream)).await {
                Ok(Ok(mut stream)) => talk.converse(&mut stream).await,
                Ok(Err(_)) | Err(_) => {
                    shared.counters.count(Counter::ConnectionHandshake);
                    return;
                }
            }
        }
        _ => {
            let mut stream = stream;
            talk.converse(&mut stream).await
        }
    };
    shared.counters.count(Counter::ConnectionServed);
    shared.counters.count(end);
    tracing::debug!(%peer, ?end, "a connection ended");
}

/// One connection.
struct Talk<'s> {
    shared: &'s Arc<Shared>,
    arrival: Arrival,
    local: IpAddr,
    /// When the first byte is due.
    due: Instant,
}

impl Talk<'_> {
    /// Answers message after message and says why it ended.
    async fn converse(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Counter {
        let limits = self.shared.live.load().streams;
        let mut frames = Frames::new(MAX_MESSAGE);
        let (mut deadline, mut overdue) = (self.due, Counter::EndFirstByte);
        loop {
            let was_mid_message = frames.is_mid_message();
            let read = tokio::select! {
                read = timeout_at(deadline, stream.read(frames.space())) => read,
                () = self.shared.drain.cancelled(), if !was_mid_message => {
                    // A peer that never takes the farewell is left to the kernel.
                    let _ = timeout(limits.message, stream.shutdown()).await;
                    return Counter::EndDrain;
                }
            };
            match read {
                Err(_) => return overdue,
                Ok(Err(_) | Ok(0)) => return Counter::EndClosed,
                Ok(Ok(count)) => frames.advance(count),
            }
            let answered = match self.answer_all(stream, &mut frames).await {
                Ok(answered) => answered,
                Err(end) => return end,
            };
            // The clock of a message starts with its first byte: a byte now and then does not set it back.
            if !frames.is_mid_message() {
                (deadline, overdue) = (Instant::now() + limits.idle, Counter::EndIdle);
            } else if answered || !was_mid_message {
                (deadline, overdue) = (Instant::now() + limits.message, Counter::EndMessage);
            }
        }
    }

    /// Answers every whole message and says whether there was one.
    async fn answer_all(&self, stream: &mut (impl AsyncWrite + Unpin), frames: &mut Frames) -> Result<bool, Counter> {
        let mut answered = false;
        loop {
            let frame = frames.next().map_err(|_| Counter::EndProtocol)?;
            let Some(frame) = frame else { return Ok(answered) };
            answered = true;
            let mut out = [0; MAX_ANSWER];
            let live = self.shared.live.load_full();
            let decision =
                self.shared.service.handle(&live.settings, self.shared.now(), &self.arrival, frame, &mut out);
            let mut tally = Tally::default();
            decision.record(&self.arrival, &mut tally);
            self.shared.counters.absorb(&mut tally);
            let reply = match decision {
                Decision::Reply(reply) => reply,
                // After bytes that are no message nothing can be trusted to begin where it should.
                Decision::Drop(DropReason::Malformed | DropReason::NoCookie) => return Err(Counter::EndProtocol),
                Decision::Drop(_) => continue,
            };
            let answer = out.get(..reply.length).unwrap_or_default();
            match timeout(live.streams.message, stream.write_all(answer)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Counter::EndClosed),
                Err(_) => return Err(Counter::EndWrite),
            }
            if let Some(order) = reply.dial {
                dial::call(Arc::clone(self.shared), order, self.local);
            }
        }
    }
}
