//! Sockets that cannot be had, and sockets that are passed on.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{MetadataExt as _, PermissionsExt as _},
            process::CommandExt as _,
        },
    },
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::server::{Client, Dir, Finished, Server, finish, nzc};

/// Fault F21 allows one second.
const LIMIT: Duration = Duration::from_secs(1);

fn fails_at_once(command: &mut Command) -> Finished {
    let start = Instant::now();
    let done = finish(command);
    assert!(start.elapsed() < LIMIT, "it took {:?}", start.elapsed());
    done
}

#[test]
fn f21_a_port_in_use_ends_with_69_and_names_the_address_and_its_holder() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (udp_at, tcp_at) = (udp.local_addr().unwrap().to_string(), tcp.local_addr().unwrap().to_string());
    for (listen, admin, busy) in [(udp_at.as_str(), "off", &udp_at), ("127.0.0.1:0", tcp_at.as_str(), &tcp_at)] {
        let done = fails_at_once(nzc().args(["stun-server", "--listen", listen, "--admin", admin]));
        assert_eq!(done.code, 69, "{}", done.err);
        assert!(done.err.contains(busy), "{}", done.err);
        assert!(done.err.contains(&format!("(pid {})", std::process::id())), "{}", done.err);
    }
}

#[test]
fn f21_no_listener_is_left_when_one_of_several_cannot_be_had() {
    let busy = UdpSocket::bind("127.0.0.1:0").unwrap();
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (busy_at, free_at) = (busy.local_addr().unwrap().to_string(), free.to_string());
    let listen = ["--listen", &free_at, "--listen", &busy_at];
    let done = fails_at_once(nzc().args(["stun-server", "--admin", "off"]).args(listen));
    assert_eq!(done.code, 69, "{}", done.err);
    assert!(!done.err.contains("serving"), "{}", done.err);
    assert!(UdpSocket::bind(free).is_ok(), "the port is free again");
}

#[test]
fn f21_a_missing_address_ends_with_69_and_says_so() {
    let done = fails_at_once(nzc().args(["stun-server", "--listen", "192.0.2.1:3478", "--admin", "off"]));
    assert_eq!(done.code, 69);
    assert!(done.err.contains("192.0.2.1:3478") && done.err.contains("no interface of this host"), "{}", done.err);
}

#[test]
fn f21_a_low_port_without_the_privilege_ends_with_77_and_says_what_is_needed() {
    let lowest = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if lowest.trim() == "0" {
        return; // Here every port is free for everyone.
    }
    let dir = Dir::new();
    let binary = dir.join("nzc");
    fs::copy(env!("CARGO_BIN_EXE_nzc"), &binary).unwrap();
    for path in [dir.path(), &binary] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(&binary);
    command.args(["stun-server", "--listen", "127.0.0.1:1", "--admin", "off"]).current_dir("/");
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65534).gid(65534);
    }
    let done = fails_at_once(&mut command);
    assert_eq!(done.code, 77, "{}", done.err);
    assert!(done.err.contains("127.0.0.1:1 ") && done.err.contains("CAP_NET_BIND_SERVICE"), "{}", done.err);
}

/// A server that gets `socket` as descriptor 3, the way a service manager passes it on.
fn activated(socket: OwnedFd, name: &str, listen: &str) -> Server {
    let script = format!(
        "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_FDNAMES={name} LISTEN_PID=$$ exec {} stun-server --listen {listen} --admin off",
        env!("CARGO_BIN_EXE_nzc")
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    Server::with_input(&mut command, Stdio::from(socket))
}

#[test]
fn a_socket_that_is_passed_on_is_used_by_its_address_or_by_the_name_of_its_key() {
    for by_name in [false, true] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let kept = socket.try_clone().unwrap();
        let (name, listen) = if by_name { ("listen", "127.0.0.1:9") } else { ("stun", &*address.to_string()) };
        let server = activated(socket.into(), name, listen);
        assert_eq!(server.stun, address);
        assert!(Client::new(address).asks(), "by name: {by_name}");
        server.signal(Signal::SIGTERM);
        assert!(server.wait().0.success());
        drop(kept);
    }
}

#[test]
fn a_socket_nobody_asks_for_is_told() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let server = activated(socket.into(), "other", "127.0.0.1:0");
    assert_ne!(server.stun, address);
}
