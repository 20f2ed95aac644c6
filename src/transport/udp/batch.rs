//! `recvmmsg`, `sendmmsg` and `poll` behind a safe interface. The only file of this crate with unsafe code.
//!
//! The headers the kernel reads hold pointers into memory the batch owns. They are written anew before each call from
//! live borrows and never read by this code afterwards, so no pointer outlives the call it was made for.
#![expect(unsafe_code, reason = "no crate offers preallocated batches with a source address for each datagram")]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

/// What is added to the distance of two buffers, so that their beginnings do not fall into the same cache set.
const STAGGER: usize = 192;

/// Room for one packet information message of either family.
const CONTROL_LEN: usize = 64;

/// A socket address as the kernel writes it.
#[repr(C)]
#[derive(Clone, Copy)]
union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_LEN]);

/// Headers for a batch of messages. Raw pointers in them are dead outside of a system call.
struct Headers {
    messages: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
}

// SAFETY: the raw pointers inside `messages` and `vectors` are overwritten before each use and never dereferenced by
// this code; everything else is plain data.
unsafe impl Send for Headers {}

impl Headers {
    fn new(count: usize) -> Self {
        // SAFETY: all four are C structures of integers and raw pointers, for which zero bytes are a valid value.
        unsafe {
            Self {
                messages: vec![MaybeUninit::zeroed().assume_init(); count].into_boxed_slice(),
                vectors: vec![MaybeUninit::zeroed().assume_init(); count].into_boxed_slice(),
                names: vec![MaybeUninit::zeroed().assume_init(); count].into_boxed_slice(),
                controls: vec![Control([0; CONTROL_LEN]); count].into_boxed_slice(),
            }
        }
    }

    /// Points message `index` at a buffer and at its own name and control memory.
    fn aim(&mut self, index: usize, buffer: *mut u8, length: usize, name_len: usize, control_len: usize) {
        let vector = &mut self.vectors[index];
        vector.iov_base = buffer.cast();
        vector.iov_len = length;
        let header = &mut self.messages[index].msg_hdr;
        header.msg_name = ptr::from_mut(&mut self.names[index]).cast();
        header.msg_namelen = name_len as libc::socklen_t;
        header.msg_iov = ptr::from_mut(vector);
        header.msg_iovlen = 1;
        header.msg_control =
            if control_len == 0 { ptr::null_mut() } else { ptr::from_mut(&mut self.controls[index]).cast() };
        header.msg_controllen = control_len as _;
        header.msg_flags = 0;
    }
}

/// Memory for a number of datagrams, side by side with a stagger.
struct Buffers {
    bytes: Box<[u8]>,
    each: usize,
}

impl Buffers {
    fn new(count: usize, each: usize) -> Self {
        let bytes = vec![0; count.saturating_mul(each.saturating_add(STAGGER))].into_boxed_slice();
        Self { bytes, each }
    }

    fn get(&self, index: usize) -> &[u8] {
        let start = index.saturating_mul(self.each.saturating_add(STAGGER));
        self.bytes.get(start..).and_then(|rest| rest.get(..self.each)).unwrap_or_default()
    }

    fn get_mut(&mut self, index: usize) -> &mut [u8] {
        let start = index.saturating_mul(self.each.saturating_add(STAGGER));
        self.bytes.get_mut(start..).and_then(|rest| rest.get_mut(..self.each)).unwrap_or_default()
    }
}

/// One received datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Received<'a> {
    /// Who sent it, as the packet says.
    pub source: SocketAddr,
    /// The local address it was sent to, on sockets bound to a wildcard.
    pub local: Option<IpAddr>,
    /// The payload.
    pub bytes: &'a [u8],
    /// Whether the datagram was larger than the buffer and lost its end.
    pub truncated: bool,
}

/// Receives many datagrams with one system call.
pub struct RecvBatch {
    headers: Headers,
    buffers: Buffers,
    filled: usize,
    packet_info: bool,
}

impl RecvBatch {
    /// Memory for `count` datagrams of at most `largest` bytes. `packet_info` is wanted for wildcard sockets.
    #[must_use]
    pub fn new(count: usize, largest: usize, packet_info: bool) -> Self {
        let count = count.clamp(1, 1024);
        Self { headers: Headers::new(count), buffers: Buffers::new(count, largest), filled: 0, packet_info }
    }

    /// Takes what the socket has, without waiting. Returns how many datagrams that is.
    ///
    /// # Errors
    /// What the system says. [`io::ErrorKind::WouldBlock`] where the socket has nothing.
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        self.filled = 0;
        let control_len = if self.packet_info { CONTROL_LEN } else { 0 };
        let count = self.headers.messages.len();
        for index in 0..count {
            let buffer = self.buffers.get_mut(index);
            let (start, length) = (buffer.as_mut_ptr(), buffer.len());
            self.headers.aim(index, start, length, mem::size_of::<Name>(), control_len);
        }
        // SAFETY: every header points at memory owned by `self` of the length it states, borrowed exclusively here.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.messages.as_mut_ptr(),
                count as _,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        self.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?.min(count);
        Ok(self.filled)
    }

    /// The datagrams of the last [`RecvBatch::receive`]. One whose source is no IP address is left out.
    pub fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        (0..self.filled).filter_map(|index| self.at(index))
    }

    fn at(&self, index: usize) -> Option<Received<'_>> {
        let message = self.headers.messages.get(index)?;
        let header = &message.msg_hdr;
        let length = usize::try_from(message.msg_len).ok()?;
        let control_len: usize = header.msg_controllen as _;
        let local = if self.packet_info {
            self.headers
                .controls
                .get(index)
                .and_then(|control| parse_packet_info(control.0.get(..control_len.min(CONTROL_LEN))?))
        } else {
            None
        };
        Some(Received {
            source: read_name(self.headers.names.get(index)?, header.msg_namelen)?,
            local,
            bytes: self.buffers.get(index).get(..length)?,
            truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        })
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sent {
    /// Datagrams the kernel took.
    pub sent: usize,
    /// Datagrams the kernel refused: no route, no buffer space, a filter.
    pub refused: usize,
}

/// Sends many datagrams with one system call.
pub struct SendBatch {
    headers: Headers,
    buffers: Buffers,
    lengths: Box<[u32]>,
    name_lens: Box<[u8]>,
    control_lens: Box<[u8]>,
    filled: usize,
}

impl SendBatch {
    /// Memory for `count` datagrams of at most `largest` bytes.
    #[must_use]
    pub fn new(count: usize, largest: usize) -> Self {
        let count = count.clamp(1, 1024);
        Self {
            headers: Headers::new(count),
            buffers: Buffers::new(count, largest),
            lengths: vec![0; count].into_boxed_slice(),
            name_lens: vec![0; count].into_boxed_slice(),
            control_lens: vec![0; count].into_boxed_slice(),
            filled: 0,
        }
    }

    /// Whether nothing waits to be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Where the next datagram is to be written. Empty where the batch is full.
    #[must_use]
    pub fn space(&mut self) -> &mut [u8] {
        if self.filled < self.lengths.len() { self.buffers.get_mut(self.filled) } else { &mut [] }
    }

    /// Adds the datagram whose first `length` bytes were written into [`SendBatch::space`]. `from` is the local address
    /// to send from, for sockets bound to a wildcard. A full batch takes nothing and returns false.
    pub fn push(&mut self, length: usize, to: SocketAddr, from: Option<IpAddr>) -> bool {
        let index = self.filled;
        let (Some(slot), Ok(length)) = (self.lengths.get_mut(index), u32::try_from(length.min(self.buffers.each)))
        else {
            return false;
        };
        *slot = length;
        self.name_lens[index] = write_name(&mut self.headers.names[index], to);
        self.control_lens[index] = from.map_or(0, |from| write_packet_info(&mut self.headers.controls[index].0, from));
        self.filled = index.saturating_add(1);
        true
    }

    /// Sends everything that was pushed and empties the batch. A datagram the kernel refuses is counted and skipped.
    pub fn flush(&mut self, socket: impl AsFd) -> Sent {
        let fd = socket.as_fd().as_raw_fd();
        let count = mem::take(&mut self.filled);
        for index in 0..count {
            let start = self.buffers.get_mut(index).as_mut_ptr();
            let (name_len, control_len) = (usize::from(self.name_lens[index]), usize::from(self.control_lens[index]));
            self.headers.aim(index, start, self.lengths[index] as usize, name_len, control_len);
        }
        let mut outcome = Sent::default();
        let mut at = 0;
        while let Some(rest) = self.headers.messages.get_mut(at..count).filter(|rest| !rest.is_empty()) {
            // SAFETY: every header in `rest` points at memory owned by `self` of the length it states; the kernel only
            // reads it and writes `msg_len`.
            let sent = unsafe { libc::sendmmsg(fd, rest.as_mut_ptr(), rest.len() as _, libc::MSG_DONTWAIT as _) };
            match usize::try_from(sent) {
                Ok(0) => break,
                Ok(sent) => {
                    outcome.sent = outcome.sent.saturating_add(sent);
                    at = at.saturating_add(sent);
                }
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    outcome.refused = outcome.refused.saturating_add(1);
                    at = at.saturating_add(1);
                }
            }
        }
        outcome
    }
}

/// Which of the descriptors given to [`wait_readable`] have something, as a bit mask by index.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Readiness(u64);

impl Readiness {
    /// Whether the descriptor at this index has something.
    #[must_use]
    pub const fn contains(self, index: usize) -> bool {
        index < 64 && self.0 >> index & 1 == 1
    }

    /// Whether none has anything.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Sleeps until one of up to 64 descriptors is readable or the time is over. An error on a descriptor counts as
/// readable: the next read tells it.
///
/// # Errors
/// What the system says; an interruption by a signal is an empty answer.
pub fn wait_readable(descriptors: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<Readiness> {
    let mut polled = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; 64];
    let count = descriptors.len().min(polled.len());
    for (slot, descriptor) in polled.iter_mut().zip(descriptors) {
        slot.fd = descriptor.as_raw_fd();
    }
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `polled` is a live array of at least `count` entries; the descriptors are borrowed for the call.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), count as _, millis) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(Readiness(0)) } else { Err(error) };
    }
    let mask = polled.iter().take(count).enumerate().filter(|(_, slot)| slot.revents != 0);
    Ok(Readiness(mask.fold(0, |mask, (index, _)| mask | 1 << index)))
}

/// Asks the kernel to say for each datagram which local address it was sent to.
pub(super) fn enable_packet_info(socket: &impl AsRawFd, v6: bool) -> io::Result<()> {
    let (level, option) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
    let on: libc::c_int = 1;
    // SAFETY: the option value is a live integer of the stated size.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&on).cast(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn read_name(name: &Name, length: libc::socklen_t) -> Option<SocketAddr> {
    let length = usize::try_from(length).ok()?;
    // SAFETY: every variant of the union is plain integers, so whichever bytes the kernel wrote are valid for each.
    let (family, v4, v6) = unsafe { (i32::from(name.family), name.v4, name.v6) };
    match family {
        libc::AF_INET if length >= mem::size_of::<libc::sockaddr_in>() => {
            let ip = Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 if length >= mem::size_of::<libc::sockaddr_in6>() => {
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn write_name(name: &mut Name, address: SocketAddr) -> u8 {
    // SAFETY: zero bytes are a valid value of these C structures of integers.
    let (mut v4, mut v6): (libc::sockaddr_in, libc::sockaddr_in6) =
        unsafe { (MaybeUninit::zeroed().assume_init(), MaybeUninit::zeroed().assume_init()) };
    match address {
        SocketAddr::V4(address) => {
            v4.sin_family = libc::AF_INET as libc::sa_family_t;
            v4.sin_port = address.port().to_be();
            v4.sin_addr.s_addr = address.ip().to_bits().to_be();
            name.v4 = v4;
            mem::size_of::<libc::sockaddr_in>() as u8
        }
        SocketAddr::V6(address) => {
            v6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            v6.sin6_port = address.port().to_be();
            v6.sin6_addr.s6_addr = address.ip().octets();
            v6.sin6_scope_id = address.scope_id();
            name.v6 = v6;
            mem::size_of::<libc::sockaddr_in6>() as u8
        }
    }
}

/// The header of a control message is its length in the machine's word, its level and its type.
const CONTROL_HEADER: usize = mem::size_of::<usize>() + 8;

fn parse_packet_info(control: &[u8]) -> Option<IpAddr> {
    let (length, rest) = control.split_first_chunk::<{ mem::size_of::<usize>() }>()?;
    let (level, rest) = rest.split_first_chunk::<4>()?;
    let (kind, _) = rest.split_first_chunk::<4>()?;
    let data = control.get(CONTROL_HEADER..usize::from_ne_bytes(*length))?;
    match (i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind)) {
        // struct in_pktinfo: interface index, local address, destination address of the header.
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(data.get(8..12)?).ok()?)))
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(data.get(..16)?).ok()?)))
        }
        _ => None,
    }
}

fn write_packet_info(control: &mut [u8; CONTROL_LEN], from: IpAddr) -> u8 {
    control.fill(0);
    // The interface index stays zero: the route to the destination decides.
    let (level, kind, data) = match from {
        IpAddr::V4(ip) => {
            control[CONTROL_HEADER + 4..CONTROL_HEADER + 8].copy_from_slice(&ip.octets());
            (libc::IPPROTO_IP, libc::IP_PKTINFO, 12)
        }
        IpAddr::V6(ip) => {
            control[CONTROL_HEADER..CONTROL_HEADER + 16].copy_from_slice(&ip.octets());
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 20)
        }
    };
    let length = CONTROL_HEADER + data;
    let word = mem::size_of::<usize>();
    control[..word].copy_from_slice(&length.to_ne_bytes());
    control[word..word + 4].copy_from_slice(&level.to_ne_bytes());
    control[word + 4..word + 8].copy_from_slice(&kind.to_ne_bytes());
    length.next_multiple_of(word) as u8
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::transport::udp::{SocketBuffers, prepare};

    fn socket(address: &str) -> UdpSocket {
        let socket = UdpSocket::bind(address).expect("socket");
        prepare(&socket, SocketBuffers::default()).expect("prepared");
        socket
    }

    fn wait(socket: &UdpSocket) {
        let ready = wait_readable(&[socket.as_fd()], Duration::from_secs(5)).expect("poll");
        assert!(ready.contains(0), "nothing came within 5 s");
    }

    #[test]
    fn a_batch_goes_out_and_comes_in_with_one_call_each() {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let (a, b) = (socket(loopback), socket(loopback));
            let (from, to) = (a.local_addr().expect("address"), b.local_addr().expect("address"));
            let mut out = SendBatch::new(32, 100);
            for number in 0..32u8 {
                let space = out.space();
                space[..3].copy_from_slice(&[number; 3]);
                assert!(out.push(usize::from(number % 4), to, None));
            }
            assert!(out.space().is_empty());
            assert!(!out.push(1, to, None));
            assert_eq!(out.flush(&a), Sent { sent: 32, refused: 0 });
            assert!(out.is_empty());
            wait(&b);
            let mut batch = RecvBatch::new(64, 100, false);
            assert_eq!(batch.receive(&b).expect("datagrams"), 32);
            for (number, datagram) in (0u8..).zip(batch.iter()) {
                let bytes: &[u8] = &vec![number; usize::from(number % 4)];
                assert_eq!(datagram, Received { source: from, local: None, bytes, truncated: false });
            }
            let empty = batch.receive(&b).expect_err("nothing is left");
            assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(batch.iter().count(), 0);
        }
    }

    #[test]
    fn a_wildcard_socket_answers_from_the_address_that_was_asked() {
        let server = socket("0.0.0.0:0");
        let port = server.local_addr().expect("address").port();
        let client = UdpSocket::bind("127.0.0.1:0").expect("client");
        client.send_to(b"?", ("127.7.7.7", port)).expect("sent");
        wait(&server);
        let mut batch = RecvBatch::new(4, 100, true);
        assert_eq!(batch.receive(&server).expect("datagrams"), 1);
        let asked = batch.iter().next().expect("a datagram");
        assert_eq!(asked.local, Some("127.7.7.7".parse().expect("IP")));
        let mut out = SendBatch::new(4, 100);
        out.space()[0] = b'!';
        assert!(out.push(1, asked.source, asked.local));
        assert_eq!(out.flush(&server).sent, 1);
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        let (_, source) = client.recv_from(&mut [0; 8]).expect("an answer");
        assert_eq!(source, SocketAddr::new("127.7.7.7".parse().expect("IP"), port));
    }

    #[test]
    fn an_ipv6_wildcard_socket_reports_the_address_that_was_asked() {
        let server = socket("[::]:0");
        let port = server.local_addr().expect("address").port();
        let client = UdpSocket::bind("[::1]:0").expect("client");
        client.send_to(b"?", ("::1", port)).expect("sent");
        wait(&server);
        let mut batch = RecvBatch::new(4, 100, true);
        assert_eq!(batch.receive(&server).expect("datagrams"), 1);
        let asked = batch.iter().next().expect("a datagram");
        assert_eq!(asked.local, Some(Ipv6Addr::LOCALHOST.into()));
        let mut out = SendBatch::new(4, 100);
        assert!(out.push(0, asked.source, asked.local));
        assert_eq!(out.flush(&server), Sent { sent: 1, refused: 0 });
    }

    #[test]
    fn a_datagram_larger_than_the_buffer_is_marked() {
        let (a, b) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        a.send_to(&[7; 101], b.local_addr().expect("address")).expect("sent");
        wait(&b);
        let mut batch = RecvBatch::new(4, 100, false);
        assert_eq!(batch.receive(&b).expect("datagrams"), 1);
        let datagram = batch.iter().next().expect("a datagram");
        assert!(datagram.truncated);
        assert_eq!(datagram.bytes, [7; 100]);
    }

    #[test]
    fn a_refused_datagram_does_not_hold_up_the_others() {
        let (a, b) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        let to = b.local_addr().expect("address");
        let mut out = SendBatch::new(8, 100);
        for index in 0..5 {
            // A loopback socket cannot reach a public address, and nobody can send to port 0.
            let nowhere = SocketAddr::new(to.ip(), 0);
            assert!(out.push(4, if index % 2 == 1 { nowhere } else { to }, None));
        }
        assert_eq!(out.flush(&a), Sent { sent: 3, refused: 2 });
        wait(&b);
        assert_eq!(RecvBatch::new(8, 100, false).receive(&b).expect("datagrams"), 3);
    }

    #[test]
    fn waiting_ends_with_the_timeout_and_names_the_ready_socket() {
        let (a, b) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        let both = [a.as_fd(), b.as_fd()];
        assert!(wait_readable(&both, Duration::from_millis(10)).expect("poll").is_empty());
        a.send_to(b"x", b.local_addr().expect("address")).expect("sent");
        let ready = wait_readable(&both, Duration::from_secs(5)).expect("poll");
        assert!(!ready.contains(0) && ready.contains(1) && !ready.contains(64));
    }
}
