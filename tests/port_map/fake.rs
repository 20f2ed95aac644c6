//! A router on loopback that speaks PCP, NAT-PMP and UPnP IGD, with the faults a test wants.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fabric::nat::port_map::driver::{SurveyOptions, survey};
use fabric::nat::port_map::survey::Survey;
use fabric::nat::port_map::{Transport, natpmp, pcp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One redirection.
#[derive(Clone, Debug)]
pub(crate) struct Redirection {
    pub(crate) internal: SocketAddr,
    pub(crate) lease: u32,
    pub(crate) expires: Option<Instant>,
    pub(crate) description: String,
    pub(crate) nonce: Option<[u8; 12]>,
}

/// What the router does wrong, or differently.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    pub(crate) external: Ipv4Addr,
    pub(crate) pcp: bool,
    pub(crate) natpmp: bool,
    pub(crate) igd: bool,
    /// IGD error 725 for every lease but 0.
    pub(crate) only_permanent: bool,
    /// IGD error 718 for these outer ports.
    pub(crate) taken: Vec<u16>,
    /// Seconds the router claims to be up.
    pub(crate) epoch: u32,
    /// Whoever asks may overwrite a PCP nonce, and the owner is then refused.
    pub(crate) careless_nonce: bool,
    /// Carries out IGD requests only after this long.
    pub(crate) slow: Duration,
    /// Carries requests out and does not answer.
    pub(crate) mute: bool,
    /// Closes IGD connections without a word.
    pub(crate) mute_igd: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            external: Ipv4Addr::new(11, 0, 0, 1),
            pcp: true,
            natpmp: true,
            igd: true,
            only_permanent: false,
            taken: Vec::new(),
            epoch: 1000,
            careless_nonce: false,
            slow: Duration::ZERO,
            mute: false,
            mute_igd: false,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    table: BTreeMap<(Transport, u16), Redirection>,
    made: u64,
}

/// The router. Its sockets close when it is dropped.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) control: u16,
    pub(crate) ssdp: u16,
    state: Arc<Mutex<State>>,
    manner: Arc<Mutex<Manner>>,
    _tasks: JoinSet<()>,
}

impl Router {
    pub(crate) async fn start(manner: Manner) -> Self {
        let control = UdpSocket::bind((LOOPBACK, 0)).await.unwrap();
        let ssdp = UdpSocket::bind((LOOPBACK, 0)).await.unwrap();
        let http = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let (control_port, ssdp_port) = (control.local_addr().unwrap().port(), ssdp.local_addr().unwrap().port());
        let http_port = http.local_addr().unwrap().port();
        let (state, manner) = (Arc::new(Mutex::new(State::default())), Arc::new(Mutex::new(manner)));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_control(control, Arc::clone(&state), Arc::clone(&manner)));
        tasks.spawn(serve_search(ssdp, http_port, Arc::clone(&manner)));
        tasks.spawn(serve_http(http, Arc::clone(&state), Arc::clone(&manner)));
        Self { control: control_port, ssdp: ssdp_port, state, manner, _tasks: tasks }
    }

    pub(crate) fn options(&self) -> SurveyOptions {
        SurveyOptions {
            gateway: Some(LOOPBACK),
            local: Some(LOOPBACK),
            port: self.control,
            search: Some(SocketAddr::new(LOOPBACK, self.ssdp)),
            ..SurveyOptions::default()
        }
    }

    pub(crate) async fn survey(&self) -> Survey {
        survey(&self.options()).await
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.manner.lock().unwrap());
    }

    /// What stands now, with leases that ran out taken away.
    pub(crate) fn table(&self) -> BTreeMap<(Transport, u16), Redirection> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap();
        state.table.retain(|_, entry| entry.expires.is_none_or(|at| at > now));
        state.table.clone()
    }

    /// How many mappings were ever made.
    pub(crate) fn made(&self) -> u64 {
        self.state.lock().unwrap().made
    }

    /// Puts a mapping of somebody else into the table.
    pub(crate) fn plant(&self, transport: Transport, port: u16, description: &str) {
        let entry = Redirection {
            internal: SocketAddr::new(LOOPBACK, 1),
            lease: 0,
            expires: None,
            description: description.to_owned(),
            nonce: None,
        };
        self.state.lock().unwrap().table.insert((transport, port), entry);
    }
}

fn expiry(lease: u32) -> Option<Instant> {
    (lease != 0).then(|| Instant::now() + Duration::from_secs(lease.into()))
}

async fn serve_control(socket: UdpSocket, state: Arc<Mutex<State>>, manner: Arc<Mutex<Manner>>) {
    let mut buffer = [0; 1200];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let manner = manner.lock().unwrap().clone();
        let bytes = &buffer[..length];
        let answer = match bytes.first() {
            Some(2) if manner.pcp => {
                pcp::Request::decode(bytes).ok().map(|request| answer_pcp(&request, from, &manner, &state))
            }
            Some(0) if manner.natpmp => {
                natpmp::Request::decode(bytes).ok().map(|request| answer_natpmp(&request, from, &manner, &state))
            }
            _ => None,
        };
        if let Some(answer) = answer
            && !manner.mute
        {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

fn answer_pcp(request: &pcp::Request, from: SocketAddr, manner: &Manner, state: &Mutex<State>) -> Vec<u8> {
    let mut response = pcp::Response {
        result: pcp::ResultCode::Success,
        lifetime: request.lifetime,
        epoch: manner.epoch,
        operation: Some(request.operation),
    };
    let pcp::Operation::Map(map) = request.operation else { return response.encode() };
    let internal = SocketAddr::new(from.ip(), map.internal_port);
    let table = &mut state.lock().unwrap();
    let mine = table
        .table
        .iter()
        .find(|((transport, _), entry)| *transport == map.transport && entry.internal == internal)
        .map(|((_, port), entry)| (*port, entry.nonce));
    let is_foreign = mine.is_some_and(|(_, nonce)| nonce.is_some_and(|nonce| nonce != map.nonce.0));
    if is_foreign && (request.lifetime == 0 || !manner.careless_nonce) {
        response.result = pcp::ResultCode::NotAuthorized;
        return response.encode();
    }
    let port =
        mine.map_or(if map.external.port() == 0 { map.internal_port } else { map.external.port() }, |(port, _)| port);
    if request.lifetime == 0 {
        table.table.remove(&(map.transport, port));
    } else {
        table.made += 1;
        let entry = Redirection {
            internal,
            lease: request.lifetime,
            expires: expiry(request.lifetime),
            description: String::new(),
            nonce: Some(map.nonce.0),
        };
        table.table.insert((map.transport, port), entry);
    }
    response.operation =
        Some(pcp::Operation::Map(pcp::Map { external: SocketAddr::new(manner.external.into(), port), ..map }));
    response.encode()
}

fn answer_natpmp(request: &natpmp::Request, from: SocketAddr, manner: &Manner, state: &Mutex<State>) -> Vec<u8> {
    let answer = match *request {
        natpmp::Request::ExternalAddress => natpmp::Answer::ExternalAddress(manner.external),
        natpmp::Request::Map { transport, internal_port, external_port, lifetime } => {
            let internal = SocketAddr::new(from.ip(), internal_port);
            let table = &mut state.lock().unwrap();
            let port = if external_port == 0 { internal_port } else { external_port };
            if lifetime == 0 {
                table.table.retain(|(kind, _), entry| *kind != transport || entry.internal != internal);
            } else {
                table.made += 1;
                let entry = Redirection {
                    internal,
                    lease: lifetime,
                    expires: expiry(lifetime),
                    description: String::new(),
                    nonce: None,
                };
                table.table.insert((transport, port), entry);
            }
            natpmp::Answer::Map { transport, internal_port, external_port: port, lifetime }
        }
    };
    natpmp::Response { result: natpmp::ResultCode::Success, epoch: manner.epoch, answer }.encode()
}

async fn serve_search(socket: UdpSocket, http: u16, manner: Arc<Mutex<Manner>>) {
    let mut buffer = [0; 2048];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if !manner.lock().unwrap().igd || !request.starts_with("M-SEARCH * HTTP/1.1\r\n") {
            continue;
        }
        let target = request.lines().find_map(|line| line.strip_prefix("ST: ")).unwrap_or_default().to_owned();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {target}\r\nUSN: uuid:1::{target}\r\nEXT:\r\n\
             SERVER: Fake/1 UPnP/1.1 Router/1\r\nLOCATION: http://127.0.0.1:{http}/rootDesc.xml\r\n\r\n"
        );
        let _ = socket.send_to(answer.as_bytes(), from).await;
    }
}

async fn serve_http(listener: TcpListener, state: Arc<Mutex<State>>, manner: Arc<Mutex<Manner>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let (state, manner) = (Arc::clone(&state), Arc::clone(&manner));
        connections.spawn(async move {
            let Some(request) = read_request(&mut stream).await else { return };
            let manner = manner.lock().unwrap().clone();
            tokio::time::sleep(manner.slow).await;
            if manner.mute_igd {
                return;
            }
            let (status, body) = answer_http(&request, &manner, &state);
            if manner.mute {
                return;
            }
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        });
    }
}

pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let length = stream.read(&mut chunk).await.ok().filter(|length| *length > 0)?;
        bytes.extend_from_slice(&chunk[..length]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let wanted = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, value)| value.trim().parse().unwrap());
        if body.len() >= wanted {
            return Some(text);
        }
    }
}

pub(crate) const DESCRIPTION: &str = "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device>\
    <deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>\
    <friendlyName>Fake router</friendlyName><manufacturer>Nobody</manufacturer><modelName>Model</modelName>\
    <serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
    <controlURL>/ctl</controlURL><SCPDURL>/scpd</SCPDURL></service></serviceList></device></root>";

fn answer_http(request: &str, manner: &Manner, state: &Mutex<State>) -> (&'static str, String) {
    if request.starts_with("GET /rootDesc.xml ") {
        return ("200 OK", DESCRIPTION.to_owned());
    }
    let field = |name: &str| {
        let (_, rest) = request.split_once(&format!("<{name}>"))?;
        rest.split_once('<').map(|(value, _)| value.to_owned())
    };
    let key = || {
        let transport = if field("NewProtocol")? == "TCP" { Transport::Tcp } else { Transport::Udp };
        Some((transport, field("NewExternalPort")?.parse::<u16>().ok()?))
    };
    let action = request
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase().starts_with("soapaction:").then(|| line.trim().trim_end_matches('"'))
        })
        .and_then(|line| line.rsplit_once('#'))
        .map_or("", |(_, action)| action);
    let done = |arguments: &str| {
        let body = format!(
            "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>\
             <u:{action}Response xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\">{arguments}\
             </u:{action}Response></s:Body></s:Envelope>"
        );
        ("200 OK", body)
    };
    let fault = |code: u16| {
        let body = format!(
            "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><s:Fault>\
             <faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>\
             <UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>{code}</errorCode>\
             <errorDescription>No\x1b[31m</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>"
        );
        ("500 Internal Server Error", body.replace('\x1b', ""))
    };
    let mut state = state.lock().unwrap();
    match action {
        "GetExternalIPAddress" => done(&format!("<NewExternalIPAddress>{}</NewExternalIPAddress>", manner.external)),
        "AddPortMapping" => {
            let (Some(key), Some(lease)) = (key(), field("NewLeaseDuration").and_then(|text| text.parse().ok())) else {
                return fault(402);
            };
            if manner.only_permanent && lease != 0 {
                return fault(725);
            }
            let internal: Option<SocketAddr> = field("NewInternalClient")
                .and_then(|client| format!("{client}:{}", field("NewInternalPort")?).parse().ok());
            let (Some(internal), Some(description)) = (internal, field("NewPortMappingDescription")) else {
                return fault(402);
            };
            let is_foreign = state.table.get(&key).is_some_and(|entry| entry.internal != internal);
            if manner.taken.contains(&key.1) || is_foreign {
                return fault(718);
            }
            state.made += 1;
            let entry = Redirection { internal, lease, expires: expiry(lease), description, nonce: None };
            state.table.insert(key, entry);
            done("")
        }
        "DeletePortMapping" => match key().and_then(|key| state.table.remove(&key)) {
            Some(_) => done(""),
            None => fault(714),
        },
        "GetSpecificPortMappingEntry" => match key().and_then(|key| state.table.get(&key).cloned()) {
            Some(entry) => done(&format!(
                "<NewInternalPort>{}</NewInternalPort><NewInternalClient>{}</NewInternalClient><NewEnabled>1</NewEnabled>\
                 <NewPortMappingDescription>{}</NewPortMappingDescription><NewLeaseDuration>{}</NewLeaseDuration>",
                entry.internal.port(),
                entry.internal.ip(),
                entry.description,
                entry.lease
            )),
            None => fault(714),
        },
        _ => fault(401),
    }
}
