//! The STUN server as a process: short of descriptors, reloaded a thousand times under load, and besieged by slow clients.
//! Trials run one at a time and print what they measured.
#![expect(clippy::print_stdout, reason = "a measurement is printed beside its verdict")]

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fabric::protocol::stun::{Class, Method, TransactionId, Writer};
use libtest_mimic::{Failed, Trial};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What the flood of slow clients needs on each side.
const DESCRIPTORS: u64 = 12_000;

fn trials() -> Vec<Trial> {
    let many = getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(_, hard)| hard >= DESCRIPTORS);
    let slow = "t24_ten_thousand_silent_connections_are_closed_in_time";
    let required = std::env::var_os("NZC_REQUIRE_LAB").is_some_and(|value| value == "1");
    if !many && !required {
        println!("skipped: {slow}: {DESCRIPTORS} descriptors are not allowed here (ulimit -Hn)");
    }
    vec![
        Trial::test("f22_without_descriptors_the_server_waits_and_recovers", descriptors),
        Trial::test("f19_a_thousand_reloads_of_the_process_lose_nothing_and_leave_nothing", reloads),
        Trial::test(slow, slow_clients).with_ignored_flag(!many && !required),
    ]
}

fn main() -> ExitCode {
    let mut arguments = libtest_mimic::Arguments::from_args();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials()).exit_code()
}

/// A Binding request without attributes.
fn request() -> [u8; 20] {
    let mut bytes = [0; 20];
    Writer::new(&mut bytes, Class::Request, Method::BINDING, TransactionId([5; 12])).expect("room");
    bytes
}

struct Nzc {
    child: Child,
    at: SocketAddr,
}

impl Drop for Nzc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Nzc {
    fn start(limit: &str, flags: &[&str]) -> Result<Self, Failed> {
        let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        let mut child = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_nzc"), "stun-server", "--listen", "127.0.0.1:0"])
            .args(["--admin", "off", "--ready-json", "--log", "warn"])
            .args(flags)
            .envs(["MAX_CONNECTIONS", "MAX_CONNECTIONS_HOST", "MAX_CONNECTIONS_SITE"].map(uncapped))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let at = line.split("udp://").nth(1).and_then(|rest| rest.split('"').next()).ok_or("no address")?.parse()?;
        Ok(Self { child, at })
    }

    fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("the server is alive");
        let of_task = |task: std::io::Result<std::fs::DirEntry>| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(tasks.filter_map(of_task).sum())
    }

    fn resident_kib(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
    }

    fn count(&self, folder: &str) -> usize {
        std::fs::read_dir(format!("/proc/{}/{folder}", self.child.id())).map_or(0, Iterator::count)
    }
}

/// All clients of these tests come from one address.
fn uncapped(key: &str) -> (String, String) {
    (format!("NZC_STUN_SERVER_{key}"), "0".to_owned())
}

fn udp_answers(at: SocketAddr) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    socket.send_to(&request(), at).expect("sent");
    socket.recv(&mut [0; 100]).is_ok()
}

fn tcp_answers(stream: &mut TcpStream, limit: Duration) -> bool {
    stream.set_read_timeout(Some(limit)).expect("a timeout");
    stream.write_all(&request()).is_ok() && stream.read_exact(&mut [0; 32]).is_ok()
}

fn descriptors() -> Result<(), Failed> {
    let server = Nzc::start("64", &[])?;
    let mut early = TcpStream::connect(server.at)?;
    assert!(tcp_answers(&mut early, Duration::from_secs(2)));
    // More than the process has descriptors for; the kernel completes the handshakes all the same.
    let held: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(server.at)).collect::<Result<_, _>>()?;
    std::thread::sleep(Duration::from_millis(500));
    let (before, start) = (server.cpu(), Instant::now());
    while start.elapsed() < Duration::from_secs(2) {
        assert!(tcp_answers(&mut early, Duration::from_secs(2)), "a connection from before is served");
        assert!(udp_answers(server.at), "datagrams are answered");
        std::thread::sleep(Duration::from_millis(100));
    }
    let share = (server.cpu() - before).as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(share <= 0.2, "{:.0} % of a core while waiting for descriptors", share * 100.0);
    drop(held);
    let freed = Instant::now();
    assert!(tcp_answers(&mut TcpStream::connect(server.at)?, Duration::from_secs(2)), "served again");
    assert!(freed.elapsed() <= Duration::from_secs(2), "{:?}", freed.elapsed());
    println!("{:.1} % of a core while short, served {:?} after", share * 100.0, freed.elapsed());
    Ok(())
}

fn reloads() -> Result<(), Failed> {
    let server = Nzc::start("256", &[])?;
    let mut stream = TcpStream::connect(server.at)?;
    assert!(tcp_answers(&mut stream, Duration::from_secs(2)) && udp_answers(server.at));
    let before = (server.count("fd"), server.count("task"));
    let (done, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let pid = Pid::from_raw(server.child.id().cast_signed());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
            while !done.load(Ordering::Relaxed) {
                socket.send_to(&request(), server.at).expect("sent");
                socket.recv(&mut [0; 100]).expect("every request is answered");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..1_000 {
            kill(pid, Signal::SIGHUP).expect("the server is alive");
            std::thread::sleep(Duration::from_millis(3));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(tcp_answers(&mut stream, Duration::from_secs(2)), "the connection lived through all of it");
    assert!(asked.load(Ordering::Relaxed) > 1_000);
    // The last reloads may still be under way.
    let deadline = Instant::now() + Duration::from_secs(5);
    while (server.count("fd"), server.count("task")) != before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!((server.count("fd"), server.count("task")), before, "descriptors and threads");
    Ok(())
}

/// What slow-loris attacks look like: half of the clients send a byte every second from the start, half say nothing until
/// just before their first byte is due.
fn slow_clients() -> Result<(), Failed> {
    const CLIENTS: usize = 10_000;
    const DUE: Duration = Duration::from_secs(15);
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, getrlimit(Resource::RLIMIT_NOFILE)?.1)
        .map_err(|error| format!("{DESCRIPTORS} descriptors cannot be had: {error}"))?;
    let server = Nzc::start(&DESCRIPTORS.to_string(), &[])?;
    let connect = |number| TcpStream::connect(server.at).map(|client| (number % 2 == 0, client));
    let mut clients: Vec<(bool, TcpStream)> = (0..CLIENTS).map(connect).collect::<Result<_, _>>()?;
    let start = Instant::now();
    let (mut honest, mut peak) = ((0, 0), 0);
    for (_, client) in &clients {
        client.set_nonblocking(true)?;
    }
    while !clients.is_empty() && start.elapsed() < DUE {
        let second = Instant::now();
        for _ in 0..20 {
            let mut client = TcpStream::connect(server.at)?;
            honest.0 += 1;
            honest.1 += usize::from(tcp_answers(&mut client, Duration::from_secs(1)));
        }
        let is_late = start.elapsed() > Duration::from_millis(6_500);
        for (_, client) in clients.iter_mut().filter(|(drips, _)| *drips || is_late) {
            let _ = client.write(&[0]);
        }
        clients
            .retain_mut(|(_, client)| matches!(client.read(&mut [0; 1]), Err(e) if e.kind() == ErrorKind::WouldBlock));
        peak = peak.max(server.resident_kib());
        if !clients.is_empty() {
            std::thread::sleep(Duration::from_secs(1).saturating_sub(second.elapsed()));
        }
    }
    println!(
        "{CLIENTS} slow clients gone after {:?}, {} of {} honest ones answered, {} MiB resident at most",
        start.elapsed(),
        honest.1,
        honest.0,
        peak / 1024
    );
    assert!(clients.is_empty(), "{} connections are open after {DUE:?}", clients.len());
    assert!(honest.1 * 100 >= honest.0 * 99, "{} of {} honest clients were answered", honest.1, honest.0);
    assert!(peak <= 250 * 1024, "{peak} KiB resident");
    Ok(())
}
