//! The signals an operator sends, by what they mean.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What the operator wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request {
    /// TERM or INT: drain and exit. A second one: exit now.
    Terminate,
    /// HUP: read configuration, certificates and secrets again.
    Reload,
    /// USR1: drain and stay.
    Drain,
}

/// The signals of this process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
}

impl Signals {
    /// Takes the signals over. From here on none of them ends the process by itself.
    ///
    /// # Errors
    /// Where the system refuses a handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next request.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::Terminate,
            _ = self.interrupt.recv() => Request::Terminate,
            _ = self.hangup.recv() => Request::Reload,
            _ = self.user1.recv() => Request::Drain,
        }
    }
}
