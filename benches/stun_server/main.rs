//! What one Binding costs: server CPU time beside the floor of the kernel and beside coturn.
//!
//! `cargo bench --bench stun_server`, or for a quick look `NZC_BENCH_SHORT=1 cargo bench --bench stun_server`.
//!
//! Three servers answer the same load, each a process of its own with one worker on one core; the load runs on the other
//! core:
//!
//! - **raw echo**: `raw_echo.c`, compiled here: `recvmmsg`, `sendmmsg`, the same batch, the same length of answer.
//! - **nzc**: the `nzc stun-server` of this build with the caps on replies switched on, but out of reach.
//! - **coturn**: Debian's `turnserver` as a STUN server, with everything switched off that makes its answers longer.
//!
//! The load is a closed loop: a number of flows, each with a number of requests in flight, so that a faster server is not
//! asked more of. `dense` is a busy server (4 flows of 64), `sparse` a quiet one (8 flows of 1), where no batch ever forms
//! and every packet pays for its own system calls.
//!
//! Rounds are interleaved, since a shared machine drifts: each round measures the three servers one after the other, and
//! the ratio to the peer is taken within the round. Printed is the median over all rounds, with the quartiles. CPU time is
//! what the scheduler charged the process (`/proc/PID/task/*/schedstat`): user, system and the share of the network stack
//! that runs in its context.
//!
//! What a profile says (`perf record -g` on the server under dense load, two virtual cores, Linux 6.x): 97.4 % of the
//! server's samples are in the kernel, 2.6 % in user space, and of those 0.8 are the caps on replies, 0.5 the decision, 0.6
//! the loop. Copies, allocations, locks and formatting do not show up. What is left to win lies in the kernel's path for
//! one datagram (route, socket buffer, loopback), which the raw echo pays as well; a batch of one costs 1.2 to 1.4 times as
//! much as a datagram of a full batch. Under sparse load polling first is no loss: by the time the receive runs, a second
//! datagram is often there.
//!
//! Bars: `dense` at most 1.3 times the raw echo and at most 0.7 times coturn. The exit code is 1 where one is missed.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use fabric::transport::udp::{RecvBatch, SendBatch, SocketBuffers, prepare, wait_readable};

/// The core the servers run on, and that of the load.
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

const RAW: &str = "raw echo";
const OURS: &str = "nzc";
const COTURN: &str = "coturn";

/// Ratios that must not be exceeded under dense load: against the raw echo and against coturn.
const BARS: [(&str, f64); 2] = [(RAW, 1.3), (COTURN, 0.7)];

struct Shape {
    name: &'static str,
    flows: usize,
    window: usize,
}

const SHAPES: [Shape; 2] =
    [Shape { name: "dense", flows: 4, window: 64 }, Shape { name: "sparse", flows: 8, window: 1 }];

fn main() -> ExitCode {
    // Only `cargo bench` passes this flag; as a test this program has nothing to say.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let short = std::env::var_os("NZC_BENCH_SHORT").is_some();
    let (rounds, time) = if short { (5, Duration::from_millis(200)) } else { (25, Duration::from_millis(400)) };
    pin_this_thread(LOAD_CORE);
    let scratch = tempfile::tempdir().expect("a folder");
    let mut servers = vec![Server::raw_echo(scratch.path()), Server::ours()];
    match find("turnserver") {
        Some(program) => servers.push(Server::coturn(&program, scratch.path())),
        None => print("turnserver is missing (Debian package coturn): no comparison with it\n"),
    }
    for server in &servers {
        server.wait_until_ready();
    }
    let mut sound = true;
    for shape in &SHAPES {
        let mut costs: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for server in &servers {
            server.round(shape, time / 4);
        }
        for _ in 0..rounds {
            for server in &servers {
                costs.entry(server.name).or_default().push(server.round(shape, time));
            }
        }
        report(shape, &costs);
        if shape.name == "dense" {
            sound = judge(&costs);
        }
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(shape: &Shape, costs: &BTreeMap<&str, Vec<f64>>) {
    print(&format!("\n{} load: {} flows, {} in flight each\n", shape.name, shape.flows, shape.window));
    for name in [RAW, OURS, COTURN] {
        let Some(cost) = costs.get(name) else { continue };
        let [low, middle, high] = quartiles(cost.clone());
        print(&format!("  {name:<10} {middle:6.2} us of server CPU a Binding   ({low:.2} to {high:.2})\n"));
    }
    for (peer, _) in BARS {
        if let Some(ratio) = ratios(costs, peer) {
            let [low, middle, high] = quartiles(ratio);
            print(&format!("  nzc / {peer:<10} {middle:5.2}   ({low:.2} to {high:.2})\n"));
        }
    }
}

fn judge(costs: &BTreeMap<&str, Vec<f64>>) -> bool {
    let mut sound = true;
    for (peer, bar) in BARS {
        let Some(ratio) = ratios(costs, peer) else { continue };
        let [_, middle, _] = quartiles(ratio);
        let verdict = if middle <= bar { "met" } else { "MISSED" };
        print(&format!("  bar: at most {bar} times {peer}: {verdict} at {middle:.2}\n"));
        sound &= middle <= bar;
    }
    sound
}

/// Our cost over that of a peer, round by round.
fn ratios(costs: &BTreeMap<&str, Vec<f64>>, peer: &str) -> Option<Vec<f64>> {
    let (ours, theirs) = (costs.get(OURS)?, costs.get(peer)?);
    Some(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect())
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

struct Server {
    name: &'static str,
    at: SocketAddr,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn raw_echo(scratch: &Path) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/stun_server/raw_echo.c");
        let program = scratch.join("raw_echo");
        let built = Command::new("cc").args(["-O2", "-o"]).args([&program, &source]).status().expect("a C compiler");
        assert!(built.success(), "raw_echo.c does not compile");
        let port = free_port();
        Self::start(RAW, port, Command::new(program).arg(port.to_string()))
    }

    fn ours() -> Self {
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nzc"));
        command.args(["stun-server", "--listen", &format!("127.0.0.1:{port}"), "--tcp=false", "--threads", "1"]);
        // The caps do their work for every packet and are never reached.
        command.args(["--limit-host", "10000000", "--limit-site", "10000000", "--admin", "off", "--log", "warn"]);
        Self::start(OURS, port, &mut command)
    }

    fn coturn(program: &Path, scratch: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(program);
        command.args(["-n", "--stun-only", "-L", "127.0.0.1", "-p", &port.to_string(), "-m", "1"]);
        command.args(["--no-rfc5780", "--no-stun-backward-compatibility", "--no-software-attribute"]);
        command.args(["--no-cli", "--no-tcp", "--no-tls", "--no-dtls", "--log-file", "/dev/null", "--pidfile"]);
        command.arg(scratch.join("turnserver.pid")).arg("--userdb").arg(scratch.join("turndb"));
        Self::start(COTURN, port, &mut command)
    }

    fn start(name: &'static str, port: u16, command: &mut Command) -> Self {
        // A child inherits the affinity it is started with.
        pin_this_thread(SERVER_CORE);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        pin_this_thread(LOAD_CORE);
        let child = child.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name, at: SocketAddr::from(([127, 0, 0, 1], port)), child }
    }

    fn wait_until_ready(&self) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        for _ in 0..100 {
            let _ = socket.send_to(&request(0, 0), self.at);
            if socket.recv(&mut [0; 100]).is_ok() {
                return;
            }
        }
        panic!("{} gave no answer within 5 s", self.name);
    }

    /// Loads the server for a while and returns its CPU time for each answer in microseconds.
    fn round(&self, shape: &Shape, time: Duration) -> f64 {
        let before = self.cpu();
        let answers = load(self.at, shape, time);
        assert!(answers > 100, "{} answered {answers} requests", self.name);
        (self.cpu() - before).as_secs_f64() * 1e6 / answers as f64
    }

    /// CPU time of all threads so far.
    fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("the server is alive");
        let of_task = |task: std::io::Result<std::fs::DirEntry>| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(tasks.filter_map(of_task).sum())
    }
}

struct Flow {
    socket: UdpSocket,
    out: SendBatch,
    sent: u64,
}

/// Keeps every flow's window full until the time is over, and counts the answers.
fn load(at: SocketAddr, shape: &Shape, time: Duration) -> u64 {
    let mut flows: Vec<Flow> = (0..shape.flows).map(|number| open(at, number, shape.window)).collect();
    let mut received = RecvBatch::new(shape.window, 256, false);
    let (mut answers, end) = (0u64, Instant::now() + time);
    for flow in &mut flows {
        flow.fill(at, shape.window);
    }
    while Instant::now() < end {
        let sockets: Vec<_> = flows.iter().map(|flow| flow.socket.as_fd()).collect();
        let ready = wait_readable(&sockets, Duration::from_millis(100)).expect("poll");
        if ready.is_empty() {
            // Everything in flight was lost: nobody else would start again.
            for flow in &mut flows {
                flow.fill(at, shape.window);
            }
            continue;
        }
        for (number, flow) in flows.iter_mut().enumerate() {
            if ready.contains(number)
                && let Ok(count) = received.receive(&flow.socket)
            {
                answers += count as u64;
                flow.fill(at, count);
            }
        }
    }
    answers
}

fn open(at: SocketAddr, number: usize, window: usize) -> Flow {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    prepare(&socket, SocketBuffers::default()).expect("buffers");
    socket.connect(at).expect("connected");
    Flow { socket, out: SendBatch::new(window, 64), sent: number as u64 }
}

impl Flow {
    fn fill(&mut self, at: SocketAddr, count: usize) {
        for _ in 0..count {
            self.sent += 1;
            let bytes = request(self.sent, 7);
            self.out.space()[..bytes.len()].copy_from_slice(&bytes);
            self.out.push(bytes.len(), at, None);
        }
        self.out.flush(&self.socket);
    }
}

/// A bare Binding request: 20 bytes.
fn request(low: u64, high: u32) -> [u8; 20] {
    let mut bytes = [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[8..12].copy_from_slice(&high.to_be_bytes());
    bytes[12..].copy_from_slice(&low.to_be_bytes());
    bytes
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/bin")]);
    folders.map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

fn pin_this_thread(core: usize) {
    let mut cores = nix::sched::CpuSet::new();
    cores.set(core).expect("a core number");
    if nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cores).is_err() {
        print(&format!("core {core} cannot be had: the load disturbs the servers\n"));
    }
}

fn print(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
