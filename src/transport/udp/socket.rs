//! What a served UDP socket needs beyond being bound.

use std::io;
use std::net::UdpSocket;

use socket2::SockRef;

use super::batch::enable_packet_info;

/// How large the kernel's buffers of a socket are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SocketBuffers {
    /// The receive buffer in bytes. The kernel may give less (`net.core.rmem_max`).
    pub receive: usize,
    /// The send buffer in bytes. The kernel may give less (`net.core.wmem_max`).
    pub send: usize,
}

impl Default for SocketBuffers {
    /// 4 MiB each way: some 50 ms of small datagrams at 100,000 a second, with the kernel's bookkeeping.
    fn default() -> Self {
        Self { receive: 4 << 20, send: 4 << 20 }
    }
}

/// Sets the buffers and says what the kernel gave. A socket bound to a wildcard also gets packet information, so that an
/// answer can leave from the address that was asked.
///
/// # Errors
/// What the system says.
pub fn prepare(socket: &UdpSocket, buffers: SocketBuffers) -> io::Result<SocketBuffers> {
    let settings = SockRef::from(socket);
    settings.set_recv_buffer_size(buffers.receive)?;
    settings.set_send_buffer_size(buffers.send)?;
    let address = socket.local_addr()?;
    if address.ip().is_unspecified() {
        enable_packet_info(socket, address.is_ipv6())?;
    }
    // Linux books twice what was asked for, the other half for its own overhead (socket(7)).
    Ok(SocketBuffers { receive: settings.recv_buffer_size()? / 2, send: settings.send_buffer_size()? / 2 })
}
