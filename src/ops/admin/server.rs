//! The accept loop. Connections that have not asked anything yet are the first to go when room is short, oldest first:
//! a client that means it has asked long before.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, http::StatusCode, response::IntoResponse as _};
use hyper::{Request, Response, Version, body::Incoming, header, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tower::util::ServiceExt as _;

use super::{api, host};
use crate::ops::{metrics::Metrics, status::Board};

/// How long a connection may stay silent before its first byte.
pub const FIRST_BYTE: Duration = Duration::from_secs(5);
/// How long a connection may last in all.
pub const LIFETIME: Duration = Duration::from_secs(10);
/// How many connections there may be at once.
pub const CONNECTIONS: usize = 256;
/// The longest path with query that is looked at, in bytes.
const MAX_URI: usize = 2048;
/// The most that is read of a request head, in bytes. hyper takes no less than 8192.
const MAX_HEAD: usize = 16 * 1024;
/// How long to wait when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a connection was not served.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Reason {
    Silent,
    Slow,
    Full,
    ForeignHost,
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Full => "full",
            Self::ForeignHost => "foreign_host",
        })
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Rejected {
    reason: Reason,
}

/// What the connections share.
pub(super) struct Server {
    router: Router,
    hosts: Arc<[String]>,
    rejected: Family<Rejected, Counter>,
    open: Gauge,
}

/// The connections whose request has not arrived yet, oldest first.
type Waiting = Arc<Mutex<VecDeque<AbortHandle>>>;

impl Server {
    pub(super) fn new(board: Board, metrics: &Metrics, hosts: &[String]) -> Self {
        let (rejected, open) = (Family::<Rejected, Counter>::default(), Gauge::default());
        for reason in [Reason::Silent, Reason::Slow, Reason::Full, Reason::ForeignHost] {
            drop(rejected.get_or_create(&Rejected { reason }));
        }
        metrics.floor("ops", |ops| {
            let help = "Admin connections that were closed without an answer or refused";
            ops.register("admin_rejected", help, rejected.clone());
            ops.register("admin_connections", "Admin connections that are open", open.clone());
        });
        Self { router: api::router(board, metrics.clone()), hosts: hosts.into(), rejected, open }
    }

    pub(super) async fn serve(self, listener: TcpListener) {
        let server = Arc::new(self);
        let waiting = Waiting::default();
        let mut connections = JoinSet::new();
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: somebody who has not asked anything yet gives theirs back.
                    tracing::debug!(%error, "an admin connection could not be accepted");
                    server.make_room(&waiting, &mut connections).await;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            if connections.len() >= CONNECTIONS && !server.make_room(&waiting, &mut connections).await {
                server.reject(Reason::Full);
                continue;
            }
            let server = Arc::clone(&server);
            let queue = Arc::clone(&waiting);
            let handle = connections.spawn(async move { server.connection(stream, peer, &queue).await });
            lock(&waiting).push_back(handle);
        }
    }

    /// Closes the connection that has waited longest. False where all are being answered.
    async fn make_room(&self, waiting: &Waiting, connections: &mut JoinSet<()>) -> bool {
        loop {
            let Some(oldest) = lock(waiting).pop_front() else { return false };
            if oldest.is_finished() {
                continue;
            }
            oldest.abort();
            self.reject(Reason::Silent);
            let _ = connections.join_next().await;
            return true;
        }
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, waiting: &Waiting) {
        let _open = Open::count(&self.open);
        let id = tokio::task::id();
        let has_asked = || lock(waiting).retain(|handle| handle.id() != id);
        match timeout(FIRST_BYTE, stream.peek(&mut [0])).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return has_asked(),
            Err(_) => {
                has_asked();
                return self.reject(Reason::Silent);
            }
        }
        let Ok(local) = stream.local_addr() else { return has_asked() };
        let service = service_fn(|request| {
            has_asked();
            self.answer(request, local)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(FIRST_BYTE)
            .keep_alive(false)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        match timeout(LIFETIME, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.is_timeout() => self.reject(Reason::Slow),
            Ok(Err(error)) => tracing::debug!(%peer, %error, "an admin connection failed"),
            Err(_) => self.reject(Reason::Slow),
        }
        has_asked();
    }

    async fn answer(&self, request: Request<Incoming>, local: SocketAddr) -> Result<Response<Body>, Infallible> {
        let refusal = self.refuse(&request, local);
        let mut response = match refusal {
            Some((code, text)) => (code, text).into_response(),
            None => self.router.clone().oneshot(request.map(Body::new)).await?,
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
        Ok(response)
    }

    fn refuse(&self, request: &Request<Incoming>, local: SocketAddr) -> Option<(StatusCode, &'static str)> {
        if request.uri().path_and_query().is_some_and(|path| path.as_str().len() > MAX_URI) {
            return Some((StatusCode::URI_TOO_LONG, "the path is too long\n"));
        }
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().ok(),
            // Plain probes speak HTTP/1.0 and name no host; no browser does.
            (None, _) if request.version() == Version::HTTP_10 => return None,
            _ => return Some((StatusCode::BAD_REQUEST, "one Host header is needed\n")),
        };
        let named = |host: &str| host::is_ours(host, local.ip(), &self.hosts);
        // A request line with a whole URI names a host as well, and it counts before the header.
        let target_is_ours = request.uri().authority().is_none_or(|authority| named(authority.as_str()));
        if host.is_some_and(named) && target_is_ours {
            return None;
        }
        self.reject(Reason::ForeignHost);
        Some((StatusCode::MISDIRECTED_REQUEST, "this listener does not go by that name; see the key `admin_host`\n"))
    }

    fn reject(&self, reason: Reason) {
        self.rejected.get_or_create(&Rejected { reason }).inc();
    }
}

/// Counts a connection down however it ends.
struct Open<'a>(&'a Gauge);

impl<'a> Open<'a> {
    fn count(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, VecDeque<AbortHandle>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
