//! Every packet, numbered: the evidence behind the facts.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which way a packet went.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From this host.
    Sent,
    /// To this host.
    Received,
    /// An ICMP error about something this host sent.
    Refused,
}

/// One packet of the log.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PacketRecord {
    /// Its number, from 1.
    pub number: u32,
    /// Milliseconds since the start.
    pub at_ms: f64,
    /// Which way it went.
    pub direction: Direction,
    /// The local socket, by number.
    pub socket: u16,
    /// The other end.
    pub remote: SocketAddr,
    /// Bytes of UDP payload.
    pub bytes: usize,
    /// What it was.
    pub what: String,
}

/// The log of one diagnosis. It stops recording at [`PacketLog::CAP`] packets: strangers can send as much as they like.
#[derive(Clone, Debug, Default)]
pub struct PacketLog {
    records: Vec<PacketRecord>,
}

impl PacketLog {
    /// The most packets the log keeps.
    pub const CAP: usize = 2_000;

    /// Appends a packet and returns its number, or 0 where the log is full.
    pub fn push(
        &mut self,
        at: Duration,
        direction: Direction,
        socket: u16,
        remote: SocketAddr,
        bytes: usize,
        what: String,
    ) -> u32 {
        if self.records.len() >= Self::CAP {
            return 0;
        }
        let number = u32::try_from(self.records.len()).unwrap_or(u32::MAX).saturating_add(1);
        let at_ms = (at.as_secs_f64() * 1e6).round() / 1e3;
        self.records.push(PacketRecord { number, at_ms, direction, socket, remote, bytes, what });
        number
    }

    /// The packets so far, in order.
    #[must_use]
    pub fn records(&self) -> &[PacketRecord] {
        &self.records
    }
}
