//! Sockets that share an address.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::batch::enable_packet_info;

/// How the sockets of one address are set up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SocketOptions {
    /// The kernel's receive buffer in bytes. The kernel may give less (`net.core.rmem_max`).
    pub receive_buffer: usize,
    /// The kernel's send buffer in bytes. The kernel may give less (`net.core.wmem_max`).
    pub send_buffer: usize,
}

impl Default for SocketOptions {
    /// 4 MiB each way: 100 ms of small datagrams at 100,000 a second, with the kernel's bookkeeping.
    fn default() -> Self {
        Self { receive_buffer: 4 << 20, send_buffer: 4 << 20 }
    }
}

/// Opens `count` sockets on one address, so that as many workers can serve it. Port 0 takes a free port, the same for
/// all. A wildcard address gets packet information, so that an answer can leave from the address that was asked.
///
/// `SO_REUSEPORT` alone would let a second process of the same user share the port unnoticed and take half of the
/// traffic. Therefore the first socket is bound without it, which fails where anybody else holds the port, and shares
/// only after that.
///
/// # Errors
/// What the system says, most often that the address is in use, not there or privileged.
pub fn bind_group(address: SocketAddr, count: usize, options: SocketOptions) -> io::Result<Vec<UdpSocket>> {
    let first = open(address, options)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    let first: UdpSocket = first.into();
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        let next = open(bound, options)?;
        next.set_reuse_port(true)?;
        next.bind(&bound.into())?;
        sockets.push(next.into());
    }
    Ok(sockets)
}

fn open(address: SocketAddr, options: SocketOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_recv_buffer_size(options.receive_buffer)?;
    socket.set_send_buffer_size(options.send_buffer)?;
    if address.ip().is_unspecified() {
        enable_packet_info(&socket, address.is_ipv6())?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY_PORT: &str = "127.0.0.1:0";

    #[test]
    fn a_group_shares_one_port() {
        let sockets = bind_group(ANY_PORT.parse().expect("address"), 4, SocketOptions::default()).expect("sockets");
        let addresses: Vec<_> = sockets.iter().map(|socket| socket.local_addr().expect("address")).collect();
        assert_eq!(addresses.len(), 4);
        assert!(addresses.iter().all(|address| *address == addresses[0] && address.port() != 0));
    }

    #[test]
    fn a_second_group_on_the_same_port_is_refused() {
        let sockets = bind_group(ANY_PORT.parse().expect("address"), 2, SocketOptions::default()).expect("sockets");
        let taken = sockets[0].local_addr().expect("address");
        let refused = bind_group(taken, 2, SocketOptions::default()).expect_err("the port is taken");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn the_kernel_spreads_flows_over_the_group() {
        let sockets = bind_group(ANY_PORT.parse().expect("address"), 2, SocketOptions::default()).expect("sockets");
        let target = sockets[0].local_addr().expect("address");
        for _ in 0..64 {
            let client = UdpSocket::bind(ANY_PORT).expect("client");
            client.send_to(b"x", target).expect("sent");
        }
        let counts: Vec<usize> = sockets
            .iter()
            .map(|socket| {
                socket.set_nonblocking(true).expect("nonblocking");
                std::iter::from_fn(|| socket.recv(&mut [0; 8]).ok()).count()
            })
            .collect();
        assert_eq!(counts.iter().sum::<usize>(), 64);
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    }
}
