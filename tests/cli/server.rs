//! A STUN server as a process of its own, and small clients for it.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The binary, with no variable of the caller that would configure it.
pub(crate) fn nzc() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nzc"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NZC_") {
            command.env_remove(name);
        }
    }
    command
}

/// What a finished command left.
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `nzc` with `args` to its end.
pub(crate) fn run(args: &[&str]) -> Finished {
    finish(nzc().args(args))
}

pub(crate) fn finish(command: &mut Command) -> Finished {
    let output = command.stdin(Stdio::null()).output().expect("the command runs");
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    Finished { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// A directory that is gone when the test is over.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory can be made"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file and returns its path as text.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.join(name);
        fs::write(&path, text).expect("a temporary file can be written");
        path.to_str().expect("the path is UTF-8").to_owned()
    }
}

/// A running server. It is killed when dropped.
pub(crate) struct Server {
    child: Child,
    log: Option<BufReader<ChildStderr>>,
    pub(crate) stun: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Server {
    /// Starts on ephemeral loopback ports and waits until it serves.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::from(nzc().args(["stun-server", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).args(args))
    }

    /// Starts a prepared command and waits until it says that it serves.
    pub(crate) fn from(command: &mut Command) -> Self {
        Self::with_input(command, Stdio::null())
    }

    /// The same with something on standard input.
    pub(crate) fn with_input(command: &mut Command, input: Stdio) -> Self {
        let mut child = command.stdin(input).stderr(Stdio::piped()).spawn().expect("the server can be started");
        let log = child.stderr.take().map(BufReader::new);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Self { child, log, stun: nowhere, admin: nowhere };
        let listeners = server.read_until_serving();
        let find = |transport: &str| {
            let mut all = listeners.split(", ").filter_map(|it| it.strip_prefix(transport)?.strip_prefix(' '));
            all.next().map_or(nowhere, |address| address.parse().expect("an address"))
        };
        (server.stun, server.admin) = (find("udp"), find("http"));
        server
    }

    /// The listeners as the server tells them.
    fn read_until_serving(&mut self) -> String {
        let log = self.log.as_mut().expect("standard error is piped");
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let length = log.read_line(&mut line).expect("the log can be read");
            assert!(length > 0, "the server ended before it served:\n{seen}");
            seen.push_str(&line);
            let record: Value = serde_json::from_str(&line).unwrap_or_default();
            if record["message"] == "serving" {
                return record["listeners"].as_str().expect("the listeners are told").to_owned();
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process number fits");
        kill(Pid::from_raw(pid), signal).expect("the signal can be sent");
    }

    /// Waits for the end and returns it with what was logged since the start.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let mut text = String::new();
        if let Some(mut log) = self.log.take() {
            log.read_to_string(&mut text).expect("the log can be read");
        }
        (self.child.wait().expect("the server can be waited for"), text)
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the server can be asked").is_some()
    }

    /// Stops reading the log: the pipe is closed.
    pub(crate) fn close_log(&mut self) {
        self.log = None;
    }

    /// The answer of the admin listener to a GET.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    pub(crate) fn try_get(&self, path: &str) -> io::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.admin);
        let raw = exchange(self.admin, request.as_bytes())?;
        Answer::read(&raw).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, raw))
    }

    /// The status as JSON.
    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.get("/v1/status").body).expect("the status is JSON")
    }

    /// Whether a Binding request is answered.
    pub(crate) fn answers(&self) -> bool {
        Client::new(self.stun).asks()
    }

    /// Seconds of CPU time used so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let metrics = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("/proc can be read");
        let fields: Vec<&str> = metrics.rsplit_once(')').expect("a command name").1.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
        (ticks(11) + ticks(12)) / 100.0
    }

    /// What `/proc` counts: open descriptors and threads.
    pub(crate) fn resources(&self) -> (usize, usize) {
        let count =
            |what: &str| fs::read_dir(format!("/proc/{}/{what}", self.pid())).expect("/proc can be read").count();
        (count("fd"), count("task"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn read(raw: &str) -> Option<Self> {
        let (head, body) = raw.split_once("\r\n\r\n")?;
        let code = head.strip_prefix("HTTP/1.1 ").or(head.strip_prefix("HTTP/1.0 "))?.get(..3)?.parse().ok()?;
        Some(Self { code, head: head.to_ascii_lowercase(), body: body.to_owned() })
    }
}

/// Sends bytes and reads until the end.
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // What was answered before a reset counts: the server need not read a request it refuses to its end.
        Err(error) if answer.is_empty() => return Err(error),
        _ => {}
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A STUN client with one socket.
pub(crate) struct Client {
    socket: UdpSocket,
    server: SocketAddr,
    count: u32,
}

impl Client {
    pub(crate) fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket can be had");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout can be set");
        Self { socket, server, count: 0 }
    }

    /// Sends one Binding request and waits for its answer. Nothing is repeated: a lost answer is a lost answer.
    pub(crate) fn asks(&mut self) -> bool {
        self.count += 1;
        let mut request = [0; 20];
        request[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]);
        request[16..].copy_from_slice(&self.count.to_be_bytes());
        let mut answer = [0; 128];
        self.socket.send_to(&request, self.server).is_ok()
            && self.socket.recv(&mut answer).is_ok_and(|length| length >= 32 && answer[..2] == [1, 1])
            && answer[8..20] == request[8..20]
    }
}

/// Waits until something holds, and fails with `what` if it does not in time.
pub(crate) fn eventually(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::yield_now();
    }
}
