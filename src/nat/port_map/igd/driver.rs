//! The sockets of UPnP IGD: the search, and an HTTP client that can reach nobody but the gateway.
#![cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "a driver owns clock, sockets and tasks"))]

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::pin::Pin;
use std::time::Duration;

use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use igd_next::aio::{Gateway, Provider};
use igd_next::{AddPortError, GetExternalIpError, PinholeError, PortMappingProtocol, RemovePortError, RequestError};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::super::Transport;
use super::super::exchange::percent_of;
use super::super::survey::Route;
use super::description::{self, Description, DocumentError};
use super::ssdp::{self, Found};
use super::{Connection, Endpoint, MAX_DOCUMENT, PinholePolicy, harmless};

/// The multicast group and port of the search over IPv4.
pub const SSDP_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), 1900);

/// The longest one control request may take where nothing shorter binds it.
const REQUEST_LIMIT: Duration = Duration::from_secs(3);

/// Why a document could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The connection failed.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// Time ran out.
    #[error("no answer in time")]
    TimedOut,
    /// What came is not HTTP.
    #[error("not HTTP")]
    Http(#[from] hyper::Error),
    /// A redirect or any other status that carries no document.
    #[error("status {0}")]
    Status(u16),
    /// The document is refused.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The request could not be formed, or it was not for the gateway.
    #[error("not a request to the gateway")]
    Forbidden,
}

/// What went wrong with a control request.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The gateway refused, with its UPnP error code.
    #[error("refused with UPnP error {code} ({text})")]
    Refused {
        /// The number: 718 is a conflict, 725 wants a lease without end, 606 is not authorized.
        code: u16,
        /// The gateway's words, made harmless.
        text: String,
    },
    /// The port is mapped to another host (718).
    #[error("the outer port belongs to another mapping (718)")]
    Conflict,
    /// Only leases without end are accepted (725).
    #[error("only leases without end are accepted (725)")]
    OnlyPermanent,
    /// Inner and outer port must be the same (724).
    #[error("inner and outer port must be the same (724)")]
    SamePortOnly,
    /// The gateway does not let this host (606).
    #[error("not authorized (606)")]
    NotAuthorized,
    /// There is no such mapping (714).
    #[error("no such mapping")]
    NotFound,
    /// The gateway was not reached or did not make sense.
    #[error("no usable answer: {0}")]
    Unusable(String),
}

/// A mapping as the gateway shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Its description.
    pub description: String,
    /// The host and port it leads to, where the gateway names them as such.
    pub internal: Option<SocketAddr>,
}

/// A control point at one gateway: where it is and from which address of this host it is asked.
#[derive(Clone, Copy, Debug)]
pub struct ControlPoint {
    /// The gateway and this host.
    pub route: Route,
    /// When requests must be over.
    pub deadline: Instant,
}

tokio::task_local! {
    /// The provider trait of `igd-next` has no receiver, so the control point of a request travels beside it.
    static CONTROL: ControlPoint;
}

/// The HTTP client under `igd-next`.
#[derive(Clone, Copy, Debug)]
struct Guarded;

impl Provider for Guarded {
    async fn send_async(url: &str, action: &str, body: &str) -> Result<String, RequestError> {
        let refused = |error: FetchError| RequestError::InvalidResponse(error.to_string());
        let point = CONTROL.try_with(|point| *point).map_err(|_| refused(FetchError::Forbidden))?;
        let endpoint = endpoint_of(url, point.route.gateway).ok_or_else(|| refused(FetchError::Forbidden))?;
        let headers = [("SOAPAction", action), ("Content-Type", "text/xml; charset=\"utf-8\"")];
        point.fetch(Method::POST, &endpoint, &headers, body.to_owned()).await.map_err(refused)
    }
}

/// The endpoint in a URL made by `igd-next`, which writes a scope into an IPv6 authority.
fn endpoint_of(url: &str, gateway: IpAddr) -> Option<Endpoint> {
    let rest = url.strip_prefix("http://")?;
    let (authority, _) = rest.split_at_checked(rest.find('/')?)?;
    let address: SocketAddr = authority.parse().ok()?;
    if address.ip() != gateway {
        return None;
    }
    let unscoped = format!("http://{}{}", SocketAddr::new(gateway, address.port()), rest.get(authority.len()..)?);
    Endpoint::absolute(&unscoped, gateway).ok()
}

impl ControlPoint {
    /// Fetches a document from the gateway.
    ///
    /// # Errors
    /// A [`FetchError`] that says why there is none.
    pub async fn get(&self, endpoint: &Endpoint) -> Result<String, FetchError> {
        self.fetch(Method::GET, endpoint, &[], String::new()).await
    }

    /// Fetches and reads the device description that a search found.
    ///
    /// # Errors
    /// A [`FetchError`] that says why there is none.
    pub async fn describe(&self, found: &Found) -> Result<Description, FetchError> {
        let document = self.get(&found.description).await?;
        let mut description = description::read(document.as_bytes(), &found.description, self.route.gateway)?;
        description.device.server.clone_from(&found.server);
        Ok(description)
    }

    /// Asks for the external address.
    ///
    /// # Errors
    /// A [`ControlError`] that says why there is none.
    pub async fn external_address(&self, connection: &Connection) -> Result<IpAddr, ControlError> {
        let gateway = self.gateway(Some(connection), None);
        self.scoped(async { gateway.get_external_ip().await.map_err(ControlError::from) }).await
    }

    /// Makes or renews a mapping to `internal` for `lease` seconds; 0 is without end.
    ///
    /// # Errors
    /// A [`ControlError`] that says why not.
    pub async fn add_mapping(
        &self,
        connection: &Connection,
        transport: Transport,
        external_port: u16,
        internal: SocketAddr,
        lease: u32,
        description: &str,
    ) -> Result<(), ControlError> {
        let gateway = self.gateway(Some(connection), None);
        self.scoped(async {
            let added = gateway.add_port(wire(transport), external_port, internal, lease, description).await;
            added.map_err(ControlError::from)
        })
        .await
    }

    /// Removes a mapping.
    ///
    /// # Errors
    /// A [`ControlError`] that says why not; [`ControlError::NotFound`] where there was none.
    pub async fn remove_mapping(
        &self,
        connection: &Connection,
        transport: Transport,
        external_port: u16,
    ) -> Result<(), ControlError> {
        let gateway = self.gateway(Some(connection), None);
        self.scoped(async { gateway.remove_port(wire(transport), external_port).await.map_err(ControlError::from) })
            .await
    }

    /// The mapping at an outer port, or `None` where there is none.
    ///
    /// # Errors
    /// A [`ControlError`] where the gateway does not say.
    pub async fn mapping_at(
        &self,
        connection: &Connection,
        transport: Transport,
        external_port: u16,
    ) -> Result<Option<Entry>, ControlError> {
        let service = connection.kind.service_type();
        let body = format!(
            "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
             <u:GetSpecificPortMappingEntry xmlns:u=\"{service}\"><NewRemoteHost></NewRemoteHost>\
             <NewExternalPort>{external_port}</NewExternalPort><NewProtocol>{transport}</NewProtocol>\
             </u:GetSpecificPortMappingEntry></s:Body></s:Envelope>"
        );
        let action = format!("\"{service}#GetSpecificPortMappingEntry\"");
        let headers = [("SOAPAction", action.as_str()), ("Content-Type", "text/xml; charset=\"utf-8\"")];
        let unusable = |error: FetchError| ControlError::Unusable(error.to_string());
        let answer = self.fetch(Method::POST, &connection.control, &headers, body).await.map_err(unusable)?;
        let text = |name: &str| description::element_text(&answer, name);
        if let Some(description) = text("NewPortMappingDescription") {
            let client = text("NewInternalClient").and_then(|client| client.trim().parse::<IpAddr>().ok());
            let port = text("NewInternalPort").and_then(|port| port.trim().parse::<u16>().ok());
            let internal = client.zip(port).map(|(client, port)| SocketAddr::new(client, port));
            return Ok(Some(Entry { description, internal }));
        }
        match text("errorCode").as_deref().map(str::trim) {
            Some("714") => Ok(None),
            Some(code) => Err(ControlError::Refused { code: code.parse().unwrap_or(0), text: String::new() }),
            None => Err(ControlError::Unusable("neither a mapping nor an error".to_owned())),
        }
    }

    /// Asks whether the IPv6 firewall is on and lets this host open pinholes.
    ///
    /// # Errors
    /// A [`ControlError`] where the gateway does not say.
    pub async fn pinhole_policy(&self, firewall: &Endpoint) -> Result<PinholePolicy, ControlError> {
        let gateway = self.gateway(None, Some(firewall));
        self.scoped(async {
            let status = gateway.get_firewall_status().await?;
            Ok(PinholePolicy { firewall_on: status.firewall_enabled, allowed: status.inbound_pinhole_allowed })
        })
        .await
    }

    /// Opens a pinhole to `internal` for everybody and returns its ID. Asking again for the same one returns the same ID
    /// and renews the lease (1 to 86,400 seconds).
    ///
    /// # Errors
    /// A [`ControlError`] that says why not.
    pub async fn add_pinhole(
        &self,
        firewall: &Endpoint,
        transport: Transport,
        internal: SocketAddrV6,
        lease: u32,
    ) -> Result<u16, ControlError> {
        let gateway = self.gateway(None, Some(firewall));
        self.scoped(async { Ok(gateway.add_pinhole(wire(transport), internal, lease).await?) }).await
    }

    /// Renews a pinhole.
    ///
    /// # Errors
    /// A [`ControlError`] that says why not.
    pub async fn renew_pinhole(&self, firewall: &Endpoint, id: u16, lease: u32) -> Result<(), ControlError> {
        let gateway = self.gateway(None, Some(firewall));
        self.scoped(async { Ok(gateway.update_pinhole(id, lease).await?) }).await
    }

    /// Closes a pinhole.
    ///
    /// # Errors
    /// A [`ControlError`] that says why not.
    pub async fn remove_pinhole(&self, firewall: &Endpoint, id: u16) -> Result<(), ControlError> {
        let gateway = self.gateway(None, Some(firewall));
        self.scoped(async { Ok(gateway.remove_pinhole(id).await?) }).await
    }

    async fn scoped<T>(&self, request: impl Future<Output = Result<T, ControlError>>) -> Result<T, ControlError> {
        CONTROL.scope(*self, request).await
    }

    fn gateway(&self, connection: Option<&Connection>, firewall: Option<&Endpoint>) -> Gateway<Guarded> {
        let kind = connection.map_or(super::ConnectionKind::Ip1, |connection| connection.kind);
        let control = connection.map(|connection| &connection.control).or(firewall);
        let path = control.map(|control| control.path.clone()).unwrap_or_default();
        let port = control.map_or(0, |control| control.port);
        Gateway {
            addr: self.address(port),
            root_url: String::new(),
            control_url: path,
            control_schema_url: String::new(),
            control_schema: schema(),
            service_type: kind.service_type().to_owned(),
            ipv6_firewall_control_url: firewall.map(|firewall| firewall.path.clone()),
            provider: Guarded,
        }
    }

    fn address(&self, port: u16) -> SocketAddr {
        super::super::driver::at(&self.route, port)
    }

    async fn fetch(
        &self,
        method: Method,
        endpoint: &Endpoint,
        headers: &[(&str, &str)],
        body: String,
    ) -> Result<String, FetchError> {
        let limit = Instant::now().checked_add(REQUEST_LIMIT).map_or(self.deadline, |limit| limit.min(self.deadline));
        let to = self.address(endpoint.port);
        let mut request = Request::builder()
            .method(method.clone())
            .uri(&endpoint.path)
            .header("Host", SocketAddr::new(to.ip(), to.port()).to_string())
            .header("Connection", "close")
            .header("User-Agent", concat!("Linux UPnP/1.1 nzc/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if method == Method::POST {
            request = request.header("Content-Length", body.len());
        }
        let request = request.body(body).map_err(|_| FetchError::Forbidden)?;
        let answer = exchange(to, self.route.local, request);
        timeout_at(limit, answer).await.map_err(|_| FetchError::TimedOut)?
    }
}

/// One request on one connection. Redirects are statuses like any other here: nothing follows them.
async fn exchange(to: SocketAddr, local: IpAddr, request: Request<String>) -> Result<String, FetchError> {
    let is_control = request.method() == Method::POST;
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(FetchError::Connect)?;
    socket.bind(SocketAddr::new(local, 0)).map_err(FetchError::Connect)?;
    let stream = socket.connect(to).await.map_err(FetchError::Connect)?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(16 * 1024).max_headers(64);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        // A SOAP fault comes with status 500 and says more than the status.
        let has_document =
            response.status() == StatusCode::OK || is_control && response.status() == StatusCode::INTERNAL_SERVER_ERROR;
        if !has_document {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let bytes = collect(response.into_body()).await?;
        Ok(description::screen(&bytes)?.to_owned())
    };
    let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
    let mut is_open = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            // Only polled for its effect: the answer carries its failure.
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}

async fn collect(mut body: Incoming) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let data: Bytes = frame?.into_data().unwrap_or_default();
        if bytes.len().saturating_add(data.len()) > MAX_DOCUMENT {
            return Err(DocumentError::Size.into());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The arguments of the actions used here, in the order of WANIPConnection:1 sections 2.4.16 and 2.4.18. Fetching a
/// second document from the gateway to learn them would be one more thing to defend.
fn schema() -> HashMap<String, Vec<String>> {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let key = ["NewRemoteHost", "NewExternalPort", "NewProtocol"];
    let rest = ["NewInternalPort", "NewInternalClient", "NewEnabled", "NewPortMappingDescription", "NewLeaseDuration"];
    HashMap::from([
        ("AddPortMapping".to_owned(), list(&[&key[..], &rest[..]].concat())),
        ("DeletePortMapping".to_owned(), list(&key)),
    ])
}

const fn wire(transport: Transport) -> PortMappingProtocol {
    match transport {
        Transport::Tcp => PortMappingProtocol::TCP,
        Transport::Udp => PortMappingProtocol::UDP,
    }
}

/// How a search ended.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// The gateway's answer.
    pub found: Option<Found>,
    /// Requests sent.
    pub sent: u32,
    /// Answers that were not followed, with the last reason.
    pub dropped: u32,
    /// The reason for the last of them.
    pub last_drop: Option<ssdp::AnswerError>,
}

/// Searches for the gateway's device, at the gateway itself and by multicast to `group`, several times, until the gateway
/// answers or `deadline`.
///
/// # Errors
/// What the operating system says of the socket.
pub async fn search(route: &Route, group: SocketAddr, deadline: Instant) -> io::Result<Search> {
    let socket = search_socket(route)?;
    let gateway = super::super::driver::at(route, group.port());
    let started = Instant::now();
    let span = deadline.saturating_duration_since(started);
    // First the gateway itself, which mostly answers, and at once. Then everybody, and for services too, for devices that
    // know no better.
    let everybody = [gateway, group];
    let rounds: [(u32, &[&str], &[SocketAddr]); 3] = [
        (0, &ssdp::TARGETS[..1], &everybody[..1]),
        (10, &ssdp::TARGETS[..1], &everybody),
        (35, &ssdp::TARGETS, &everybody),
    ];
    let mut rounds = rounds.iter().map(|(percent, targets, whom)| {
        (started.checked_add(percent_of(span, *percent)).unwrap_or(deadline), *targets, *whom)
    });
    let mut next = rounds.next();
    let mut search = Search::default();
    let mut buffer = [0; ssdp::MAX_LEN];
    loop {
        let wake = next.as_ref().map_or(deadline, |(at, ..)| *at);
        tokio::select! {
            biased;
            () = sleep_until(wake) => {
                let Some((_, targets, whom)) = next.take() else { return Ok(search) };
                for target in targets {
                    for to in whom.iter().copied() {
                        if socket.send_to(ssdp::request(to, target).as_bytes(), to).await.is_ok() {
                            search.sent = search.sent.saturating_add(1);
                        }
                    }
                }
                next = rounds.next();
            }
            received = socket.recv_from(&mut buffer) => {
                // An error here is an ICMP message about the unicast request: the multicast answer may still come.
                let Ok((length, from)) = received else { continue };
                let bytes = buffer.get(..length).unwrap_or_default();
                match ssdp::answer(bytes, from.ip(), route.gateway) {
                    Ok(found) => {
                        search.found = Some(found);
                        return Ok(search);
                    }
                    Err(reason) => {
                        search.dropped = search.dropped.saturating_add(1);
                        search.last_drop = Some(reason);
                    }
                }
            }
        }
    }
}

fn search_socket(route: &Route) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(SocketAddr::new(route.local, 0));
    let socket = Socket::new(domain, Type::DGRAM, Some(SocketProtocol::UDP))?;
    socket.set_nonblocking(true)?;
    match route.local {
        IpAddr::V4(local) => {
            socket.bind(&SocketAddr::new(route.local, 0).into())?;
            socket.set_multicast_if_v4(&local)?;
            socket.set_multicast_ttl_v4(2)?;
        }
        // Unbound: towards the group of the link the kernel takes the link-local address, which the router answers from
        // its own.
        IpAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.bind(&SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), 0).into())?;
            socket.set_multicast_if_v6(route.scope_id)?;
        }
    }
    UdpSocket::from_std(socket.into())
}

impl From<RequestError> for ControlError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::ErrorCode(606, _) => Self::NotAuthorized,
            RequestError::ErrorCode(714, _) => Self::NotFound,
            RequestError::ErrorCode(718, _) => Self::Conflict,
            RequestError::ErrorCode(724, _) => Self::SamePortOnly,
            RequestError::ErrorCode(725, _) => Self::OnlyPermanent,
            RequestError::ErrorCode(code, text) => Self::Refused { code, text: harmless(&text) },
            other => Self::Unusable(harmless(&other.to_string())),
        }
    }
}

impl From<GetExternalIpError> for ControlError {
    fn from(error: GetExternalIpError) -> Self {
        match error {
            GetExternalIpError::ActionNotAuthorized => Self::NotAuthorized,
            GetExternalIpError::RequestError(error) => error.into(),
        }
    }
}

impl From<AddPortError> for ControlError {
    fn from(error: AddPortError) -> Self {
        match error {
            AddPortError::ActionNotAuthorized => Self::NotAuthorized,
            AddPortError::PortInUse => Self::Conflict,
            AddPortError::SamePortValuesRequired => Self::SamePortOnly,
            AddPortError::OnlyPermanentLeasesSupported => Self::OnlyPermanent,
            AddPortError::RequestError(error) => error.into(),
            other => Self::Unusable(other.to_string()),
        }
    }
}

impl From<RemovePortError> for ControlError {
    fn from(error: RemovePortError) -> Self {
        match error {
            RemovePortError::ActionNotAuthorized => Self::NotAuthorized,
            RemovePortError::NoSuchPortMapping => Self::NotFound,
            RemovePortError::RequestError(error) => error.into(),
        }
    }
}

impl From<PinholeError> for ControlError {
    fn from(error: PinholeError) -> Self {
        match error {
            PinholeError::ActionNotAuthorized => Self::NotAuthorized,
            PinholeError::NoSuchEntry => Self::NotFound,
            PinholeError::RequestError(error) => error.into(),
            other => Self::Unusable(other.to_string()),
        }
    }
}
