//! Sockets of one test process in many network namespaces.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use fabric::netlab::namespace::Namespace;

/// Runs `work` on a thread inside a namespace. What it opens there stays there, whoever uses it later.
pub(crate) fn inside<T: Send + 'static>(namespace: &Namespace, work: impl FnOnce() -> T + Send + 'static) -> T {
    let path = namespace.path();
    std::thread::spawn(move || {
        let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("a namespace of our own sandbox");
        work()
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A UDP socket bound inside a namespace, with a receive timeout of two seconds.
pub(crate) fn udp(namespace: &Namespace, bind: impl Into<SocketAddr>) -> UdpSocket {
    let bind = bind.into();
    let socket = inside(namespace, move || UdpSocket::bind(bind)).unwrap_or_else(|error| panic!("{bind}: {error}"));
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout that is not zero");
    socket
}
