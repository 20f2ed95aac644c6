//! The admin listener: health, metrics, status and the description of itself, over plain HTTP/1.1.
//!
//! It runs on a thread of its own with a runtime of its own, so that it can still tell when the data path is stuck and
//! a slow scraper cannot slow the data path. Every connection carries one request and ends within [`server::LIFETIME`].

mod api;
mod host;
mod server;

use std::{io, net::SocketAddr, net::TcpListener};

pub use api::document;
pub use server::{CONNECTIONS, FIRST_BYTE, LIFETIME};
use tokio_util::sync::CancellationToken;

use super::{metrics::Metrics, status::Board};

/// The running admin listener. Dropping it closes the listener.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    stop: CancellationToken,
}

impl Admin {
    /// Serves `board` and `metrics` on `listener`. Requests must name this host by a loopback or local address, by
    /// `localhost` or by one of `hosts`.
    ///
    /// # Errors
    /// Where the system refuses the thread or the runtime.
    pub fn start(listener: TcpListener, hosts: &[String], board: &Board, metrics: &Metrics) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let server = server::Server::new(board.clone(), metrics, hosts);
        let stopped = stop.clone();
        std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => {
                        stopped.run_until_cancelled(server.serve(listener)).await;
                    }
                    Err(error) => tracing::error!(%error, "the admin listener cannot be served"),
                }
            });
        })?;
        Ok(Self { address, stop })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
