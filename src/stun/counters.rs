//! What a server counts. Each thread tallies by itself and adds its tally to the shared counters once a batch.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::stun::auth::RefusalReason;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident => $family:literal, $label:literal, $value:literal;)*) => {
        /// One thing that is counted.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Counter {
            $($(#[$doc])* $name,)*
        }

        impl Counter {
            /// All of them, in their order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The metric it belongs to, without the prefix of the floor, and its label.
            #[must_use]
            pub const fn metric(self) -> (&'static str, &'static str, &'static str) {
                match self {
                    $(Self::$name => ($family, $label, $value),)*
                }
            }
        }

        const COUNT: usize = Counter::ALL.len();
    };
}

counters! {
    /// A request over UDP and IPv4 that deserved an answer.
    RequestUdp4 => "requests", "arrival", "udp_ipv4";
    /// A request over UDP and IPv6 that deserved an answer.
    RequestUdp6 => "requests", "arrival", "udp_ipv6";
    /// A request over TCP that deserved an answer.
    RequestTcp => "requests", "arrival", "tcp";
    /// A request over TLS that deserved an answer.
    RequestTls => "requests", "arrival", "tls";
    /// A success response.
    Success => "responses", "class", "success";
    /// 300 Try Alternate.
    Error300 => "responses", "class", "error_300";
    /// 400 Bad Request.
    Error400 => "responses", "class", "error_400";
    /// 401 Unauthenticated.
    Error401 => "responses", "class", "error_401";
    /// 403 Forbidden.
    Error403 => "responses", "class", "error_403";
    /// 420 Unknown Attribute.
    Error420 => "responses", "class", "error_420";
    /// 438 Stale Nonce.
    Error438 => "responses", "class", "error_438";
    /// Any other error.
    ErrorOther => "responses", "class", "error_other";
    /// A signed request with USERNAME, REALM or NONCE missing or malformed.
    AuthIncomplete => "auth_failures", "reason", "incomplete";
    /// A nonce that is too old.
    AuthStaleNonce => "auth_failures", "reason", "stale_nonce";
    /// A nonce issued elsewhere or to another address.
    AuthForeignNonce => "auth_failures", "reason", "foreign_nonce";
    /// Password algorithms that do not match the offer.
    AuthAlgorithms => "auth_failures", "reason", "algorithms";
    /// An unknown user.
    AuthUnknownUser => "auth_failures", "reason", "unknown_user";
    /// A wrong password, or a message changed on the way.
    AuthWrongIntegrity => "auth_failures", "reason", "wrong_integrity";
    /// Not STUN, or malformed.
    DropMalformed => "dropped", "reason", "malformed";
    /// No magic cookie.
    DropNoCookie => "dropped", "reason", "no_cookie";
    /// Larger than the buffer.
    DropTooLong => "dropped", "reason", "too_long";
    /// A response.
    DropResponse => "dropped", "reason", "response";
    /// An indication: a keepalive.
    DropIndication => "dropped", "reason", "indication";
    /// Another method than Binding.
    DropMethod => "dropped", "reason", "method";
    /// A wrong FINGERPRINT.
    DropFingerprint => "dropped", "reason", "fingerprint";
    /// A source nobody can answer.
    DropSource => "dropped", "reason", "source";
    /// One of our own sockets as source.
    DropOwnSource => "dropped", "reason", "own_source";
    /// A cap on replies is reached.
    DropLimited => "dropped", "reason", "limited";
    /// A request with PADDING that is shorter than any answer to it.
    DropPadding => "dropped", "reason", "padding";
    /// An answer that did not fit the buffer.
    DropNoRoom => "dropped", "reason", "no_room";
    /// An answer the kernel did not take.
    SendRefused => "io_errors", "operation", "send";
    /// A receive call that failed.
    ReceiveFailed => "io_errors", "operation", "receive";
    /// An accept call that failed for lack of descriptors or memory.
    AcceptExhausted => "io_errors", "operation", "accept";
    /// A connection that was served.
    ConnectionServed => "connections", "result", "served";
    /// A connection beyond a cap.
    ConnectionRefused => "connections", "result", "refused";
    /// A TLS handshake that failed or took too long.
    ConnectionHandshake => "connections", "result", "handshake_failed";
    /// The peer closed.
    EndClosed => "connection_ends", "reason", "closed";
    /// No first byte in time.
    EndFirstByte => "connection_ends", "reason", "first_byte";
    /// A message begun and not finished in time.
    EndMessage => "connection_ends", "reason", "unfinished_message";
    /// Idle for too long.
    EndIdle => "connection_ends", "reason", "idle";
    /// Not STUN, or nothing a server answers.
    EndProtocol => "connection_ends", "reason", "protocol";
    /// The peer did not take an answer in time.
    EndWrite => "connection_ends", "reason", "write";
    /// The server drained.
    EndDrain => "connection_ends", "reason", "drain";
    /// A datagram sent back from a fresh port.
    DialUdp => "dial_backs", "result", "udp_sent";
    /// A connection opened back.
    DialTcpOpen => "dial_backs", "result", "tcp_connected";
    /// A connection back that was not taken.
    DialTcpFailed => "dial_backs", "result", "tcp_failed";
    /// A dial-back the server was not willing to make.
    DialRefused => "dial_backs", "result", "refused";
    /// A certificate that was replaced.
    CertificateReloaded => "certificate_reloads", "result", "taken";
    /// A certificate that could not be replaced.
    CertificateKept => "certificate_reloads", "result", "kept_old";
}

impl Counter {
    /// The counter of a refusal; the first request of a session, which has no credentials yet, is none.
    #[must_use]
    pub const fn of_refusal(reason: RefusalReason) -> Option<Self> {
        match reason {
            RefusalReason::NoIntegrity => None,
            RefusalReason::Incomplete => Some(Self::AuthIncomplete),
            RefusalReason::StaleNonce => Some(Self::AuthStaleNonce),
            RefusalReason::ForeignNonce => Some(Self::AuthForeignNonce),
            RefusalReason::Algorithms | RefusalReason::LegacyAlgorithm => Some(Self::AuthAlgorithms),
            RefusalReason::UnknownUser => Some(Self::AuthUnknownUser),
            RefusalReason::WrongIntegrity => Some(Self::AuthWrongIntegrity),
        }
    }

    /// The counter of a response with this error code.
    #[must_use]
    pub const fn of_error(code: u16) -> Self {
        match code {
            300 => Self::Error300,
            400 => Self::Error400,
            401 => Self::Error401,
            403 => Self::Error403,
            420 => Self::Error420,
            438 => Self::Error438,
            _ => Self::ErrorOther,
        }
    }
}

/// What one thread counted since it last handed in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tally([u64; COUNT]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

impl Tally {
    /// Counts one.
    pub fn count(&mut self, what: Counter) {
        self.add(what, 1);
    }

    /// Counts several.
    pub fn add(&mut self, what: Counter, how_many: usize) {
        if let Some(cell) = self.0.get_mut(what as usize) {
            *cell = cell.wrapping_add(how_many as u64);
        }
    }
}

/// The counters of a server.
#[derive(Debug)]
pub struct Counters([AtomicU64; COUNT]);

impl Default for Counters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Counters {
    /// Adds a tally and empties it.
    pub fn absorb(&self, tally: &mut Tally) {
        for (cell, counted) in self.0.iter().zip(&mut tally.0) {
            if *counted != 0 {
                cell.fetch_add(std::mem::take(counted), Ordering::Relaxed);
            }
        }
    }

    /// Counts one.
    pub fn count(&self, what: Counter) {
        if let Some(cell) = self.0.get(what as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often it was counted.
    #[must_use]
    pub fn get(&self, what: Counter) -> u64 {
        self.0.get(what as usize).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up_and_are_empty_afterwards() {
        let counters = Counters::default();
        let mut tally = Tally::default();
        for what in Counter::ALL {
            tally.count(*what);
        }
        tally.add(Counter::Success, 4);
        counters.absorb(&mut tally);
        assert_eq!(tally, Tally::default());
        assert_eq!(counters.get(Counter::Success), 5);
        assert!(Counter::ALL.iter().all(|what| counters.get(*what) >= 1));
    }

    #[test]
    fn every_counter_has_a_label_of_its_own() {
        let mut labels: Vec<_> = Counter::ALL.iter().map(|what| what.metric()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), COUNT);
    }
}
