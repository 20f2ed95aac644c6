//! TLS with the operator's own certificate, replaced while the server runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fabric::ops::metrics::Metrics;
use fabric::protocol::stun::AttributeType;
use fabric::stun::Counter;
use fabric::stun::driver::{Config, Live, Server, StartError, StreamLimits};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::desk::{address, request, scan};
use crate::host::{PATIENCE, config, try_start};

struct Files {
    _folder: tempfile::TempDir,
    chain: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new() -> (Self, CertificateDer<'static>) {
        let folder = tempfile::tempdir().expect("a folder");
        let files =
            Self { chain: folder.path().join("chain.pem"), key: folder.path().join("key.pem"), _folder: folder };
        let certificate = files.issue(1);
        (files, certificate)
    }

    /// Writes a new certificate and key. Each gets a time of its own, whatever the resolution of the file system.
    fn issue(&self, number: u64) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().expect("a key");
        let parameters = rcgen::CertificateParams::new(vec!["stun.example".to_owned()]).expect("parameters");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        for (path, text) in [(&self.chain, certificate.pem()), (&self.key, key.serialize_pem())] {
            std::fs::write(path, text).expect("written");
            let file = std::fs::File::options().append(true).open(path).expect("a file");
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000 + number)).expect("a time");
        }
        certificate.der().clone()
    }

    fn server(&self) -> (Server, SocketAddr) {
        let streams = StreamLimits { first_byte: Duration::from_millis(600), ..StreamLimits::default() };
        let server = try_start(Config {
            tls_listen: vec![address("127.0.0.1:0")],
            certificate: Some((self.chain.clone(), self.key.clone())),
            live: Live { streams, ..Live::default() },
            ..config(&[])
        })
        .expect("a server");
        let at = server.addresses("tls")[0];
        (server, at)
    }
}

/// Connects and trusts exactly this certificate.
async fn connect(at: SocketAddr, trusted: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(at).await?;
    let name = ServerName::try_from("stun.example").expect("a name");
    timeout(PATIENCE, TlsConnector::from(Arc::new(client)).connect(name, stream)).await.expect("in time")
}

async fn ask(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(&request(|_| {})).await.expect("sent");
    let mut answer = [0; 32];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    let local = stream.get_ref().0.local_addr().ok();
    assert_eq!(scan(&answer).xor_address(AttributeType::XOR_MAPPED_ADDRESS), local);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_asks_over_tls() {
    let (files, certificate) = Files::new();
    let (server, at) = files.server();
    let mut stream = connect(at, &certificate).await.expect("a connection");
    ask(&mut stream).await;
    ask(&mut stream).await;
    assert_eq!(server.count(Counter::RequestTls), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn f28_a_reload_brings_the_new_certificate_and_old_connections_live_on() {
    let (files, old) = Files::new();
    let (server, at) = files.server();
    let mut before = connect(at, &old).await.expect("a connection");
    ask(&mut before).await;
    let new = files.issue(2);
    server.reload(Live::default()).expect("reloaded");
    let mut after = connect(at, &new).await.expect("the new certificate is in use");
    ask(&mut after).await;
    assert!(connect(at, &old).await.is_err(), "the old one is not");
    ask(&mut before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f28_a_changed_file_is_noticed_without_a_signal() {
    let (files, old) = Files::new();
    let (server, at) = files.server();
    drop(connect(at, &old).await.expect("a connection"));
    let new = files.issue(2);
    let noticed = async {
        while server.count(Counter::CertificateReloaded) == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(12), noticed).await.expect("noticed");
    connect(at, &new).await.expect("the new certificate is in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn f28_a_bad_replacement_keeps_the_old_certificate_and_is_counted() {
    let (files, old) = Files::new();
    let (server, at) = files.server();
    std::fs::write(&files.chain, "nothing").expect("written");
    assert!(server.reload(Live::default()).is_err());
    ask(&mut connect(at, &old).await.expect("the old certificate is in use")).await;
    // The watch on the files may have tried by itself as well.
    assert!(server.count(Counter::CertificateKept) >= 1);
    let metrics = Metrics::new("stun-server", "0");
    server.register(&metrics);
    let text = metrics.openmetrics();
    assert!(!text.contains("nzc_stun_certificate_reloads_total{result=\"kept_old\"} 0"), "{text}");
    assert!(text.contains("nzc_stun_certificate_expiry_timestamp_seconds "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_begin_is_given_up() {
    let (files, _) = Files::new();
    let (server, at) = files.server();
    let mut stream = TcpStream::connect(at).await.expect("a connection");
    let read = timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("closed in time");
    assert!(matches!(read, Ok(0) | Err(_)));
    assert_eq!(server.count(Counter::ConnectionHandshake), 1);
}

#[tokio::test]
async fn tls_without_a_certificate_stops_the_start() {
    let error = try_start(Config { tls_listen: vec![address("127.0.0.1:0")], ..config(&[]) });
    assert!(matches!(error, Err(StartError::NoCertificate)));
}
