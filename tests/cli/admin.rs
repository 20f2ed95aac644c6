//! The admin listener, asked nicely and not so nicely.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use serde_json::Value;

use crate::server::{Answer, Client, PATIENCE, Server, eventually, exchange, nzc, run};

const OPENMETRICS: &str = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";

#[test]
fn a_serving_process_is_live_ready_and_says_which_checks_it_made() {
    let server = Server::start(&[]);
    for path in ["/livez", "/readyz", "/healthz"] {
        let answer = server.get(path);
        assert_eq!((answer.code, answer.body.as_str()), (200, "ok, serving\n"), "{path}");
    }
    let verbose = server.get("/readyz?verbose").body;
    let listener = server.stun.to_string();
    assert!(verbose.lines().any(|line| line.starts_with("[+]") && line.contains(&listener)), "{verbose}");
}

#[test]
fn metrics_come_as_openmetrics_to_those_who_accept_it_and_as_plain_text_to_others() {
    let server = Server::start(&[]);
    assert!(server.answers());
    let ask = |accept: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n{accept}\r\n", server.admin);
        Answer::read(&exchange(server.admin, request.as_bytes()).unwrap()).unwrap()
    };
    let open = ask("Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2\r\n");
    assert!(open.head.contains(OPENMETRICS), "{}", open.head);
    assert!(open.body.ends_with("# EOF\n") && open.body.contains("# TYPE nzc_ops_build info\n"), "{}", open.body);
    let plain = ask("");
    assert!(plain.head.contains("content-type: text/plain; version=0.0.4"), "{}", plain.head);
    for metric in [
        "nzc_ops_build_info{",
        "nzc_ops_config_reload_success 1",
        "nzc_ops_config_last_reload_success_timestamp_seconds ",
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
        "process_open_fds ",
    ] {
        assert!(plain.body.lines().any(|line| line.starts_with(metric)), "{metric} is missing:\n{}", plain.body);
    }
}

#[test]
fn every_metric_is_named_after_its_floor_and_has_a_help_text() {
    let server = Server::start(&[]);
    let body = server.get("/metrics").body;
    let floors = ["ops", "stun", "transport", "protocol", "nat", "address"];
    let mut families = 0;
    for line in body.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').unwrap();
        families += 1;
        assert!(help.len() > 5, "{name}");
        let Some(rest) = name.strip_prefix("nzc_") else {
            assert!(name.starts_with("process_"), "{name}");
            continue;
        };
        assert!(
            floors.iter().any(|floor| rest.strip_prefix(floor).is_some_and(|rest| rest.starts_with('_'))),
            "{name}"
        );
    }
    assert!(families > 10, "{body}");
}

#[test]
fn the_description_is_openapi_3_1_and_every_path_in_it_answers_as_described() {
    let server = Server::start(&[]);
    let document: Value = serde_json::from_str(&server.get("/openapi.json").body).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 6);
    for (path, operations) in paths {
        let answer = server.get(path);
        let described = &operations["get"]["responses"][answer.code.to_string()];
        let types: Vec<_> = described["content"].as_object().unwrap().keys().collect();
        let told = answer.head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap();
        assert!(types.iter().any(|kind| *kind == told), "{path}: {told} is none of {types:?}");
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", server.admin);
            let answer = Answer::read(&exchange(server.admin, request.as_bytes()).unwrap()).unwrap();
            assert_eq!(answer.code, 405, "{method} {path} is not described");
        }
    }
    let status = &document["components"]["schemas"]["Status"]["properties"];
    let told = server.status();
    for field in told.as_object().unwrap().keys() {
        assert!(status[field].is_object(), "{field} is told and not described");
    }
}

#[test]
fn the_status_command_prints_a_table_or_json_and_ends_with_0_or_69() {
    let server = Server::start(&[]);
    let admin = server.admin.to_string();
    let table = run(&["stun-server", "status", "--admin", &admin]);
    assert_eq!(table.code, 0, "{}", table.err);
    for word in ["role", "stun-server", "serving, ready", &admin, &server.stun.to_string()] {
        assert!(table.out.contains(word), "{word}: {}", table.out);
    }
    let json = run(&["stun-server", "status", "--admin", &admin, "--json"]);
    let status: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((status["pid"].as_u64(), &status["role"]), (Some(server.pid().into()), &"stun-server".into()));
    drop(server);
    let nobody = run(&["stun-server", "status", "--admin", &admin]);
    assert_eq!((nobody.code, nobody.out.as_str()), (69, ""));
    assert!(nobody.err.contains(&admin), "{}", nobody.err);
    assert_eq!(run(&["stun-server", "status", "--admin", "off"]).code, 69);
}

#[test]
fn n12_ten_foreign_hosts_are_refused_and_our_own_names_are_served() {
    let server = Server::start(&["--admin-host", "stun.example"]);
    let ask = |host: &str| {
        let request = format!("GET /v1/status HTTP/1.1\r\n{host}\r\n");
        Answer::read(&exchange(server.admin, request.as_bytes()).unwrap()).unwrap().code
    };
    let port = server.admin.port();
    for foreign in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
        format!("evil.stun.example:{port}"),
        format!("192.0.2.1:{port}"),
        format!("[2001:db8::1]:{port}"),
        format!("10.0.0.1:{port}"),
        "0.0.0.0".to_owned(),
        format!("xn--lcalhost-n4a:{port}"),
    ] {
        assert!(matches!(ask(&format!("Host: {foreign}\r\n")), 403 | 421), "{foreign}");
    }
    assert_eq!(ask("Host: a\r\nHost: localhost\r\n"), 400, "two hosts");
    assert_eq!(ask(""), 400, "no host");
    for ours in
        ["localhost".to_owned(), format!("127.0.0.1:{port}"), format!("LOCALHOST:{port}"), "stun.example".to_owned()]
    {
        assert_eq!(ask(&format!("Host: {ours}\r\n")), 200, "{ours}");
    }
    let absolute = format!("GET http://evil.example/v1/status HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
    assert_eq!(Answer::read(&exchange(server.admin, absolute.as_bytes()).unwrap()).unwrap().code, 421);
}

/// Threats N7 and T24 at the admin listener: sockets that say nothing or dribble.
#[test]
fn n7_silent_and_dribbling_sockets_are_closed_within_15_s_and_others_are_served_meanwhile() {
    let server = Server::start(&[]);
    let limit = fs::read_to_string("/proc/self/limits").unwrap();
    let limit = limit.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let files: usize = limit.split_whitespace().next().unwrap().parse().unwrap_or(1024);
    // As many as this process may open, up to the ten thousand of the threat.
    let count = 10_000.min(files.saturating_sub(200) / 2);
    let start = Instant::now();
    let mut sockets = Vec::with_capacity(count);
    for n in 0..count {
        let mut socket = TcpStream::connect_timeout(&server.admin, PATIENCE).unwrap();
        if n % 2 == 0 {
            // A reset by the peer at this point is what the test waits for.
            let _ = socket.write_all(b"GET /livez HT");
        }
        sockets.push(socket);
        if n % 500 == 0 {
            assert_eq!(server.get("/livez").code, 200, "after {n} sockets");
        }
    }
    let opened = start.elapsed();
    let deadline = Instant::now() + Duration::from_secs(15);
    for (n, socket) in sockets.iter_mut().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left)).unwrap();
        let mut rest = [0; 512];
        loop {
            match socket.read(&mut rest) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => {
                    panic!("socket {n} of {count} is still open 15 s after the last was opened ({opened:?}): {error}")
                }
            }
        }
    }
    assert_eq!(server.get("/readyz").code, 200);
    assert!(server.resources().0 < 100, "{} descriptors are open", server.resources().0);
}

/// Fault F22: out of file descriptors, at the listener that must stay reachable to say so.
#[test]
fn f22_without_file_descriptors_the_accept_loop_rests_and_recovers_within_2_s() {
    let script = format!(
        "ulimit -n 64; exec {} stun-server --listen 127.0.0.1:0 --admin 127.0.0.1:0 --threads 1",
        env!("CARGO_BIN_EXE_nzc")
    );
    let server = Server::from(std::process::Command::new("sh").args(["-c", &script]));
    let mut sockets: Vec<_> = (0..200).map(|_| TcpStream::connect(server.admin).unwrap()).collect();
    eventually(PATIENCE, "the descriptors are used up", || server.resources().0 >= 60);
    let (start, used) = (Instant::now(), server.cpu_seconds());
    let mut client = Client::new(server.stun);
    while start.elapsed() < Duration::from_secs(1) {
        assert!(client.asks(), "who has a socket already is still served");
        std::thread::sleep(Duration::from_millis(20));
    }
    let share = (server.cpu_seconds() - used) / start.elapsed().as_secs_f64();
    assert!(share < 0.2, "{share} of a core");
    sockets.clear();
    eventually(Duration::from_secs(2), "the admin listener answers again", || {
        server.try_get("/livez").is_ok_and(|answer| answer.code == 200)
    });
}

/// Threat A7: whatever is asked, the answer is not an error of ours.
#[test]
fn a7_ten_thousand_random_requests_get_no_5xx() {
    let server = Server::start(&[]);
    let paths = ["/livez", "/readyz", "/healthz", "/metrics", "/openapi.json", "/v1/status", "/", "/v1", "/nowhere"];
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (server, paths) = (&server, &paths);
            scope.spawn(move || {
                let mut rng = SmallRng::seed_from_u64(700 + thread);
                for case in 0..2500 {
                    let request = random_request(&mut rng, paths, server.admin.port());
                    // A connection may be closed on nonsense; an answer must not be a 5xx.
                    let Ok(raw) = exchange(server.admin, &request) else { continue };
                    if let Some(answer) = Answer::read(&raw) {
                        assert!(answer.code < 500, "case {case}: {}: {}", request.escape_ascii(), answer.head);
                    }
                }
            });
        }
    });
    assert_eq!(server.get("/readyz").code, 200);
    assert!(server.answers());
}

fn random_request(rng: &mut SmallRng, paths: &[&str], port: u16) -> Vec<u8> {
    let pick = |rng: &mut SmallRng, from: &[&str]| from[rng.random_range(0..from.len())].to_owned();
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "X", ""];
    let method = if rng.random_bool(0.6) { "GET".to_owned() } else { pick(rng, &methods) };
    let mut path = pick(rng, paths);
    for _ in 0..rng.random_range(0..3) {
        path.push_str(&pick(
            rng,
            &[
                "?verbose",
                "?verbose=1&verbose=2",
                "%2e%2e",
                "/../..",
                "//",
                "%00",
                "%ff",
                ";a=b",
                "#x",
                "?%zz",
                "\u{e9}",
                " ",
                "?",
            ],
        ));
    }
    if rng.random_bool(0.02) {
        path.push_str(&"a".repeat(rng.random_range(1000..40_000)));
    }
    let host =
        if rng.random_bool(0.8) { format!("127.0.0.1:{port}") } else { pick(rng, &["evil", "", "[::1", "\u{1}"]) };
    let mut request = format!(
        "{method} {path} {}\r\nHost: {host}\r\n",
        pick(rng, &["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/9.9", ""])
    );
    for _ in 0..rng.random_range(0..4) {
        request.push_str(&pick(
            rng,
            &[
                "Content-Length: 5\r\n",
                "Content-Length: 99999999999999999999\r\n",
                "Content-Length: -1\r\n",
                "Transfer-Encoding: chunked\r\n",
                "Transfer-Encoding: gzip\r\n",
                "Accept: application/openmetrics-text\r\n",
                "Accept: \u{7f}\r\n",
                "Expect: 100-continue\r\n",
                "Upgrade: websocket\r\nConnection: upgrade\r\n",
                "Range: bytes=0-1\r\n",
                ": empty\r\n",
                "Content-Type: application/json\r\n",
            ],
        ));
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    if rng.random_bool(0.3) {
        request.extend_from_slice(b"{\"a\":[[[[[[");
    }
    if rng.random_bool(0.2) {
        let at = rng.random_range(0..request.len());
        request[at] = rng.random();
    }
    if rng.random_bool(0.05) {
        request.truncate(rng.random_range(0..request.len()));
        // An unfinished head would only wait for its deadline; the garbage ends it.
        request.extend_from_slice(b"\x00\x00\r\n\r\n");
    }
    request
}

#[test]
fn a_long_path_and_a_large_head_are_refused() {
    let server = Server::start(&[]);
    let ask = |head: String| Answer::read(&exchange(server.admin, head.as_bytes()).unwrap()).unwrap().code;
    assert_eq!(ask(format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(4000))), 414);
    let large = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    assert_eq!(ask(large), 431);
}

#[test]
fn the_admin_listener_can_be_off() {
    let server = Server::from(nzc().args(["stun-server", "--listen", "127.0.0.1:0", "--admin", "off"]));
    assert_eq!(server.admin.port(), 0);
    assert!(server.answers());
}
