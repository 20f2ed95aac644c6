//! The rules of the house, checked on its sources: who may use whom, who may touch a clock or a socket.
//!
//! The sources are read as tokens, without comments and text literals, so that only code counts. Every breach is printed with
//! its file and line.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// The floors of the library from the ground up. A floor uses strictly lower floors and itself.
const FLOORS: &[(&str, u8)] = &[
    ("sansio", 0),
    ("address", 0),
    ("ops", 1),
    ("netlab", 1),
    ("transport", 2),
    ("protocol", 3),
    ("stun", 4),
    ("relay", 4),
    ("nat", 4),
    ("dht", 4),
    ("discovery", 5),
    ("crawl", 5),
];

/// Where clocks, sockets, threads and randomness of the system belong: drivers, and these floors.
const IMPURE_FLOORS: &[&str] = &["ops", "netlab", "transport"];

/// What a core must be given instead of taking it.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "tokio::net",
    "tokio::spawn",
    "tokio::time",
    "net::UdpSocket",
    "net::TcpListener",
    "net::TcpStream",
    "thread::spawn",
    "thread::Builder",
    "rand::rng",
    "rand::random",
];

/// The one file that may say `unsafe`: batched system calls no crate offers.
const UNSAFE: &str = "src/transport/udp/batch.rs";

/// What roles may share. Every other folder of `roles` is a role.
const SHARED_BY_ROLES: &[&str] = &["launch", "output", "exit"];

const MAIN_LINES: usize = 80;

/// A file of the sources, as lines of code.
struct Source {
    path: String,
    lines: Vec<String>,
}

impl Source {
    /// The first part of the path below `root`: the floor or the role the file belongs to.
    fn unit(&self, root: &str) -> &str {
        let rest = self.path.strip_prefix(root).and_then(|rest| rest.strip_prefix('/')).unwrap_or(&self.path);
        rest.split('/').next().unwrap_or(rest).trim_end_matches(".rs")
    }

    /// The lines that are not tests, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test_file = self.path.ends_with("/tests.rs") || self.path.contains("/tests/");
        let opens_tests = |at: &usize| {
            let mut after =
                self.lines[at + 1..].iter().map(|line| line.trim()).skip_while(|line| line.starts_with("#["));
            self.lines[*at].trim() == "#[cfg(test)]" && after.next().is_some_and(|line| line.starts_with("mod "))
        };
        let end = (0..self.lines.len()).find(opens_tests).unwrap_or(self.lines.len());
        let end = if is_test_file { 0 } else { end };
        self.lines.iter().take(end).enumerate().map(|(at, line)| (at + 1, line.as_str()))
    }

    /// What the file names of a crate: for `use root::{a::b, c}` and `root::d::e` these are a, c and d.
    fn names_below(&self, root: &str) -> Vec<(usize, String)> {
        let (text, mut found) = (self.lines.join("\n"), Vec::new());
        let needle = format!("{root}::");
        for (at, _) in text.match_indices(&needle) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            let line = text[..at].matches('\n').count() + 1;
            let rest = &text[at + needle.len()..];
            found.extend(first_names(rest).into_iter().map(|name| (line, name)));
        }
        found
    }
}

/// The first identifier of a path, or those of each path in a group.
fn first_names(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()];
    };
    let (mut names, mut depth, mut name, mut at_start) = (Vec::new(), 0, String::new(), true);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(std::mem::take(&mut name));
                at_start = true;
            }
            c if depth == 0 && at_start && (c.is_alphanumeric() || c == '_') => name.push(c),
            c if depth == 0 && !c.is_whitespace() => at_start = false,
            _ => {}
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

/// Blanks out comments and the insides of literals; line breaks stay, so that line numbers do too.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r\"") || rest.starts_with("r#\"") {
            let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
            let close = format!("\"{}", "#".repeat(hashes));
            let open = 2 + hashes;
            rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else if c == '"' {
            string_end(rest)
        } else if let Some(end) = char_literal_end(rest) {
            end
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.extend(rest[..skip].chars().filter(|c| *c == '\n'));
        rest = &rest[skip..];
    }
    code
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `'x'` and `'\n'`, but not the lifetime `'x`.
fn char_literal_end(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let body = match inner.strip_prefix('\\') {
        Some(escape) => 1 + escape.char_indices().skip(1).find(|(_, c)| *c == '\'')?.0,
        None => inner.chars().next()?.len_utf8(),
    };
    inner[body..].starts_with('\'').then_some(body + 2)
}

fn sources(root: &str) -> Vec<Source> {
    let (mut pending, mut found) = (vec![PathBuf::from(root)], Vec::new());
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).expect("the sources can be listed").flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("the sources can be read");
                let lines = code_of(&text).lines().map(str::to_owned).collect();
                found.push(Source { path: path.to_string_lossy().into_owned(), lines });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "{root} has no sources");
    found
}

/// Fails with every breach on a line of its own.
fn none(breaches: &[String]) {
    let list = breaches.iter().fold(String::new(), |mut list, breach| {
        let _ = write!(list, "\n  {breach}");
        list
    });
    assert!(breaches.is_empty(), "{} breach(es):{list}", breaches.len());
}

fn level(floor: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == floor).map(|(_, level)| *level)
}

/// Breaches of the floors in one file: a path to a floor that is neither lower nor its own.
fn floor_breaches(source: &Source) -> Vec<String> {
    let own = source.unit("src");
    let Some(own_level) = level(own) else {
        let known = own == "lib";
        return if known { Vec::new() } else { vec![format!("{}: the floor `{own}` has no number", source.path)] };
    };
    let named = source.names_below("crate").into_iter().chain(source.names_below("fabric"));
    let breach = |(line, other): &(usize, String)| match level(other) {
        Some(other_level) if other != own && other_level >= own_level => {
            Some(format!("{}:{line}: `{own}` (F{own_level}) uses `{other}` (F{other_level})", source.path))
        }
        _ => None,
    };
    named.filter_map(|name| breach(&name)).collect()
}

/// A driver is a `driver.rs`, or a file in the folder of one that outgrew its file.
fn is_driver(path: &str) -> bool {
    path.ends_with("/driver.rs") || path.contains("/driver/")
}

fn purity_breaches(source: &Source) -> Vec<String> {
    let allowed = IMPURE_FLOORS.contains(&source.unit("src")) || is_driver(&source.path);
    if allowed {
        return Vec::new();
    }
    let mut breaches = Vec::new();
    for (number, line) in source.code() {
        for taken in IMPURE.iter().filter(|taken| names(line, taken)) {
            breaches.push(format!("{}:{number}: a core takes `{taken}`: {}", source.path, line.trim()));
        }
    }
    breaches
}

/// Whether a line holds a path as whole words.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !word(line[..at].chars().next_back()) && !word(line[at + path.len()..].chars().next())
    })
}

fn role_breaches(source: &Source) -> Vec<String> {
    let own = source.unit("roles");
    let is_role = |name: &str| !SHARED_BY_ROLES.contains(&name) && Path::new("roles").join(name).is_dir();
    let named = source.names_below("crate").into_iter();
    if own == "main" {
        return Vec::new();
    }
    named
        .filter(|(_, other)| is_role(other) && other != own)
        .map(|(line, other)| format!("{}:{line}: `{own}` imports the role `{other}`", source.path))
        .collect()
}

#[test]
fn every_floor_uses_only_lower_floors() {
    none(&sources("src").iter().flat_map(floor_breaches).collect::<Vec<_>>());
}

#[test]
fn cores_take_no_clock_no_socket_no_thread_and_no_randomness() {
    none(&sources("src").iter().flat_map(purity_breaches).collect::<Vec<_>>());
}

#[test]
fn the_library_knows_no_role_and_no_command_line() {
    let mut breaches = Vec::new();
    for source in sources("src") {
        for (number, line) in source.code() {
            for name in ["clap", "anyhow", "miette", "indicatif"].into_iter().filter(|name| names(line, name)) {
                breaches.push(format!("{}:{number}: the library uses `{name}`: {}", source.path, line.trim()));
            }
        }
    }
    none(&breaches);
}

#[test]
fn roles_import_no_role() {
    none(&sources("roles").iter().flat_map(role_breaches).collect::<Vec<_>>());
}

#[test]
fn unsafe_is_said_in_one_file() {
    let mut breaches = Vec::new();
    for source in
        ["src", "roles", "tests", "benches"].into_iter().filter(|root| Path::new(root).is_dir()).flat_map(sources)
    {
        for (number, line) in source.lines.iter().enumerate().filter(|(_, line)| names(line, "unsafe")) {
            if source.path != UNSAFE {
                breaches.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    none(&breaches);
}

#[test]
fn main_is_short() {
    let lines = fs::read_to_string("roles/main.rs").expect("main.rs can be read").lines().count();
    assert!(lines < MAIN_LINES, "roles/main.rs has {lines} lines, {MAIN_LINES} are too many");
}

#[test]
fn every_floor_stands_in_the_crate_doc() {
    let text = fs::read_to_string("src/lib.rs").expect("lib.rs can be read");
    for (floor, level) in FLOORS.iter().filter(|(floor, _)| Path::new("src").join(floor).is_dir()) {
        assert!(
            text.contains(&format!("**F{level} [`{floor}`]**")),
            "src/lib.rs does not introduce F{level} `{floor}`"
        );
    }
}

#[test]
fn the_check_finds_what_it_is_for() {
    let source = |path: &str, text: &str| Source {
        path: path.to_owned(),
        lines: code_of(text).lines().map(str::to_owned).collect(),
    };
    let upwards = "use crate::{\n    address::Prefix,\n    nat::{Kind, driver},\n};\nfn f() { crate::stun::serve() }\n";
    let found = floor_breaches(&source("src/protocol/stun/mod.rs", upwards));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("src/protocol/stun/mod.rs:1: `protocol` (F3) uses `nat` (F4)"), "{found:?}");
    assert!(floor_breaches(&source("src/nat/mod.rs", "use crate::stun::Server;")).len() == 1, "neighbours");
    assert!(floor_breaches(&source("src/nat/mod.rs", "// use crate::stun;\nuse crate::nat::x;")).is_empty());
    assert_eq!(floor_breaches(&source("src/misc/mod.rs", "")).len(), 1, "a floor without a number");

    let clock =
        "fn f() { let t = std::time::Instant::now(); }\n#[cfg(test)]\nmod tests { fn g() { Instant::now(); } }\n";
    assert_eq!(purity_breaches(&source("src/nat/detector.rs", clock)).len(), 1);
    assert!(purity_breaches(&source("src/nat/driver.rs", clock)).is_empty());
    assert!(purity_breaches(&source("src/nat/driver/udp.rs", clock)).is_empty());
    assert!(purity_breaches(&source("src/ops/health.rs", clock)).is_empty());
    assert!(purity_breaches(&source("src/nat/x.rs", "const S: &str = \"Instant::now\"; // tokio::net")).is_empty());

    let role = "use crate::launch::Ops;\nuse crate::stun_server::config;\n";
    assert_eq!(role_breaches(&source("roles/lab/mod.rs", role)).len(), 1);
    assert!(role_breaches(&source("roles/stun_server/mod.rs", role)).is_empty());
    assert_eq!(code_of("a('\"', \"x // y\", 'l: &'a str) // z\nb"), "a(, , 'l: &'a str) \nb");
}
