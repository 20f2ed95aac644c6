//! Calls a client back from a port it has never heard from.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use super::Shared;
use crate::protocol::stun::dial_back::{DialBack, DialTransport};
use crate::protocol::stun::{AttributeType, Class, Method, WriteError, Writer};
use crate::stun::counters::Counter;
use crate::stun::service::DialOrder;

/// How long a connection may take to be accepted.
const CONNECT: Duration = Duration::from_secs(5);

/// Starts a call from `local`, the address the client reached. It ends by itself and nobody waits for it.
pub(super) fn call(shared: Arc<Shared>, order: DialOrder, local: IpAddr) {
    tokio::spawn(async move {
        let Ok(_place) = shared.dials.try_acquire() else {
            shared.counters.count(Counter::DialRefused);
            return;
        };
        let outcome = match (indication(order), order.tcp) {
            (Err(_), _) => Counter::DialRefused,
            (Ok(message), false) => match datagram(local, order.to, &message).await {
                Ok(()) => Counter::DialUdp,
                Err(_) => Counter::DialRefused,
            },
            (Ok(message), true) => match timeout(CONNECT, connection(local, order.to, &message)).await {
                Ok(Ok(())) => Counter::DialTcpOpen,
                Ok(Err(_)) | Err(_) => Counter::DialTcpFailed,
            },
        };
        shared.counters.count(outcome);
        tracing::debug!(to = %order.to, ?outcome, "called back");
    });
}

fn indication(order: DialOrder) -> Result<Vec<u8>, WriteError> {
    let mut bytes = vec![0; 64];
    let mut writer =
        Writer::new(&mut bytes, Class::Indication, Method::BINDING, DialBack::transaction_id(order.nonce))?;
    let transport = if order.tcp { DialTransport::Tcp } else { DialTransport::Udp };
    let ask = DialBack::Ask { transport, port: order.to.port(), nonce: order.nonce };
    writer.attribute(AttributeType::DIAL_BACK, &ask.to_bytes())?;
    let length = writer.finish();
    bytes.truncate(length);
    Ok(bytes)
}

async fn datagram(local: IpAddr, to: SocketAddr, message: &[u8]) -> std::io::Result<()> {
    let socket = UdpSocket::bind((local, 0)).await?;
    socket.send_to(message, to).await.map(|_| ())
}

async fn connection(local: IpAddr, to: SocketAddr, message: &[u8]) -> std::io::Result<()> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(local, 0))?;
    let mut stream = socket.connect(to).await?;
    stream.write_all(message).await?;
    stream.shutdown().await
}
