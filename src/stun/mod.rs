//! The Binding service (RFC 8489), with the second address and port of RFC 5780.
//!
//! [`Service`] is the core: one datagram or one framed message in, one [`Decision`] out, nothing allocated. [`driver`]
//! gives it sockets, threads and connections. What happens to a message:
//!
//! 1. A source that cannot be answered (port 0, a group, one of our own sockets) is dropped.
//! 2. The plainest request there is, 20 bytes, takes a short cut to step 6.
//! 3. The pre-scan drops what is not STUN, and every class but requests: answering responses or indications is how two
//!    servers are made to talk to each other for ever. A wrong FINGERPRINT is dropped as well.
//! 4. Where credentials are asked for, they are checked.
//! 5. Unknown comprehension-required attributes give 420 with their list.
//! 6. The caps on replies to one host and one site are asked. This is last, so that only what would be sent counts.
//! 7. The answer goes to the source address of the request, whatever the request says; only the port can be another
//!    (RESPONSE-PORT), and only on a server with alternates.
//!
//! ## How large an answer is
//!
//! A spoofed source makes the answer hit somebody else, so an answer should not be much larger than its request. With the
//! default configuration a success carries XOR-MAPPED-ADDRESS alone, no SOFTWARE and no reason phrase: 32 bytes for 20
//! over IPv4 (a ratio of 1.6), 44 over IPv6 (2.2), and no other request does better.
//!
//! RFC 5780 section 6.1 wants MAPPED-ADDRESS, RESPONSE-ORIGIN and OTHER-ADDRESS in every answer, also to a bare request,
//! and clients in the field depend on it. So an operator who configures alternates gets 68 bytes for 20 over IPv4 (3.4)
//! and 116 over IPv6 (5.8), under the same caps on replies. With [`Settings::strict_amplification`] the ratio stays at
//! 1.6 and 2.2 there too: an address is left out, OTHER-ADDRESS last, unless the request is long enough to pay for it.
//! A client that wants all of them makes its request 44 bytes long (56 over IPv6), for example with a SOFTWARE attribute.
//! An answer with PADDING is never longer than its request, in any configuration.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]
//!
//! ## Why there is no DTLS
//!
//! A DTLS server must prove a client's address by a cookie before it keeps anything for it (RFC 6347 section 4.2.1), or
//! spoofed first messages fill its memory. The crates for DTLS in Rust do not allow that. `dimpl` 0.9, the best kept of
//! them, makes a cookie from the client's random value under a secret of each connection object: the object has to exist,
//! with its buffers, before the cookie does, and the cookie is not bound to an address. Answering the first message
//! outside of it fails on its handshake counter, which expects to have seen that message, and on the transcript, which
//! contains the cookie. It also takes no RSA certificates and would bring a second set of elliptic curves beside that of
//! the TLS stack. `dtls` 0.17 keeps state and makes a key pair on the first message as well; `purecrypto` is too young.
//! With the stateless cookie left to the caller this decision should be looked at again.

mod counters;
pub mod driver;
mod endpoint;
mod guard;
mod legacy;
mod plan;
mod reply;
mod service;
mod settings;

pub use counters::{Counter, Counters, Tally};
pub use endpoint::{Endpoints, Flip, LocalSlot};
pub use guard::{Guard, Limits};
pub use plan::{PlanError, Site, plan};
pub use service::{Arrival, Decision, DialOrder, DropReason, Moment, Reply, Service, Transport};
pub use settings::{Credentials, Settings};
