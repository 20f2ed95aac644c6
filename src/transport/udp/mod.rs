//! UDP in batches.
//!
//! A worker owns its sockets and one [`RecvBatch`], and a [`SendBatch`] for each socket it sends from. All memory is
//! allocated when the batch is made; receiving and sending allocate nothing.
//!
//! 1. [`wait_readable`] sleeps until one of the sockets has something.
//! 2. [`RecvBatch::receive`] takes what is there, up to the size of the batch, in one `recvmmsg`.
//! 3. For each datagram the worker writes an answer into [`SendBatch::space`] and calls [`SendBatch::push`].
//! 4. [`SendBatch::flush`] sends them all in one `sendmmsg`.
//!
//! Sockets come from [`crate::ops::listen`], several for one address through `SO_REUSEPORT`, over which the kernel spreads
//! flows; [`prepare`] sets them up. This floor needs Linux.

mod batch;
mod socket;

pub use batch::{Readiness, Received, RecvBatch, SendBatch, Sent, wait_readable};
pub use socket::{SocketBuffers, prepare};
